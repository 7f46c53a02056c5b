//! A publisher that sends one picture in three layers.

use ams_testkit::driver::Driver;

use super::{Demo, PATIENCE, Picture, finish, result, saw, say};

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

#[tokio::test]
async fn a_narrow_path_is_given_a_layer_that_fits_and_the_best_again_when_it_is_wide() {
    let demo = Demo::start().await;
    let (whip, whep) = (demo.origin("whip/narrow"), demo.edge("whep/narrow"));
    let size = ["--width", "1280", "--height", "720", "--fps", "15"];
    let args = [&["--url", &whip, "--simulcast", "3", "--seconds", "0"], &size[..]].concat();
    let mut publisher = Driver::start("whip.mjs", &args).unwrap();
    publisher.event("layers", PATIENCE).await.unwrap();

    let network = ["--delay", "25", "--rate", "600", "--rateSeconds", "10", "--height", "720"];
    let args = [&["--url", &whep, "--browser", "chromium", "--seconds", "3"], &network[..]].concat();
    let mut viewer = Driver::start("whep.mjs", &args).unwrap();
    let narrow = viewer.event("narrow", PATIENCE * 2).await.unwrap();
    let lifted = viewer.event("lifted", PATIENCE * 2).await.unwrap();
    let seen = result(&mut viewer).await;
    say(&format!(
        "600 kbit/s: {} lines, {} fps, longest still {} s; wide again: {} lines after {} ms",
        narrow["height"], narrow["fps"], narrow["longestStillS"], lifted["height"], lifted["wholeAfterMs"]
    ));
    assert!(narrow["height"].as_u64().is_some_and(|h| h == 180 || h == 360), "a layer that fits: {narrow:#}");
    assert!(narrow["longestStillS"].as_f64().is_some_and(|s| s <= 1.0), "{narrow:#}");
    assert!(lifted["wholeAfterMs"].as_u64().is_some_and(|ms| ms <= 10_000), "{lifted:#}");
    saw("narrow path, wide again", &seen, Picture::Camera, Some("VP8"));
    finish(publisher).await;
}
