//! A publisher that sends one picture in three layers.

use ams_testkit::driver::Driver;

use super::{Demo, PATIENCE, Picture, finish, result, saw};

#[tokio::test]
async fn a_simulcast_publisher_is_watched_in_its_best_layer() {
    let demo = Demo::start().await;
    let (whip, whep) = (demo.origin("whip/layers"), demo.edge("whep/layers"));
    let size = ["--width", "1280", "--height", "720", "--fps", "15"];
    let args = [&["--url", &whip, "--simulcast", "3", "--seconds", "0"], &size[..]].concat();
    let mut publisher = Driver::start("whip.mjs", &args).unwrap();
    let answer = publisher.event("answered", PATIENCE).await.unwrap();
    assert_eq!(answer["rids"], serde_json::json!(["q", "h", "f"]), "{answer:#}");
    let layers = publisher.event("layers", PATIENCE).await.unwrap();
    assert_eq!(layers["sent"].as_array().map(Vec::len), Some(3), "{layers:#}");

    // One who watches long enough to have changed layers, and one who gets the best at once.
    for (who, browser) in [("first viewer, chromium", "chromium"), ("second viewer, firefox", "firefox")] {
        let args = ["--url", &whep, "--browser", browser, "--seconds", "5"];
        let seen = result(&mut Driver::start("whep.mjs", &args).unwrap()).await;
        saw(&format!("simulcast, {who}"), &seen, Picture::Camera, Some("VP8"));
        assert_eq!((&seen["width"], &seen["height"]), (&1280.into(), &720.into()), "{who} is not on the best layer");
    }
    let sent = finish(publisher).await;
    let frames = |rid: &str| sent["sent"].as_array()?.iter().find(|l| l["rid"] == rid)?["frames"].as_u64();
    for rid in ["q", "h", "f"] {
        assert!(frames(rid) > Some(50), "layer {rid}: {sent:#}");
    }
}
