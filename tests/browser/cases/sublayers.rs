//! A publisher whose one encoding has temporal and spatial layers inside: what a narrow path gets of it.

use ams_testkit::driver::Driver;

use super::{Demo, PATIENCE, Picture, finish, result, saw, say};

/// Watches over a path as in `network`, then over a wide one. Returns what was seen while it was narrow, and then.
async fn watch_narrow_then_wide(name: &str, publish: &[&str], network: &[&str], codec: &str) -> [serde_json::Value; 2] {
    let demo = Demo::start().await;
    let (whip, whep) = (demo.origin("whip/deep"), demo.edge("whep/deep"));
    let args = [&["--url", &whip, "--codec", codec, "--seconds", "0"], publish].concat();
    let mut publisher = Driver::start("whip.mjs", &args).unwrap();
    publisher.event("connected", PATIENCE).await.unwrap();

    let args = [&["--url", &whep, "--seconds", "3", "--delay", "25", "--rateSeconds", "12"], network].concat();
    let mut viewer = Driver::start("whep.mjs", &args).unwrap();
    let narrow = viewer.event("narrow", PATIENCE * 2).await.unwrap();
    let lifted = viewer.event("lifted", PATIENCE * 2).await.unwrap();
    let seen = result(&mut viewer).await;
    say(&format!(
        "{name}: {} of {} kbit/s: {} lines, {} fps, longest gap {} ms; wide again: {} lines, {} fps after {} ms",
        narrow["carried"],
        narrow["kbps"],
        narrow["height"],
        narrow["fps"],
        narrow["longestGapMs"],
        lifted["height"],
        lifted["fps"],
        lifted["wholeAfterMs"]
    ));
    saw(name, &seen, Picture::Camera, Some(codec));
    assert!(narrow["longestStillS"].as_f64().is_some_and(|s| s <= 1.0), "{narrow:#}");
    assert!(narrow["audioEnergy"].as_f64() > Some(0.0), "{narrow:#}");
    assert!(lifted["wholeAfterMs"].as_u64().is_some_and(|ms| ms <= 10_000), "{lifted:#}");
    finish(publisher).await;
    [narrow, lifted]
}

#[tokio::test]
async fn a_narrow_path_gets_fewer_pictures_of_one_encoding() {
    for (codec, [width, height, fps, whole]) in
        [("VP8", ["640", "480", "20", "17"]), ("AV1", ["1280", "720", "15", "13"])]
    {
        let publish = ["--scalability", "L1T3", "--width", width, "--height", height, "--fps", fps];
        // The lowest temporal layer has less than half of the bytes.
        let network = ["--share", "65", "--fps", whole];
        let [narrow, lifted] = watch_narrow_then_wide(&format!("{codec} L1T3"), &publish, &network, codec).await;
        let fps = narrow["fps"].as_f64().unwrap();
        assert!(fps > 2.5 && fps < lifted["fps"].as_f64().unwrap() * 0.8, "{codec}: {narrow:#}");
    }
}

#[tokio::test]
async fn a_narrow_path_gets_smaller_pictures_of_one_encoding() {
    let publish = ["--scalability", "L3T3_KEY", "--width", "1280", "--height", "720", "--fps", "15"];
    let network = ["--rate", "500", "--height", "720"];
    let [narrow, _] = watch_narrow_then_wide("VP9 L3T3_KEY", &publish, &network, "VP9").await;
    assert!(narrow["height"].as_u64().is_some_and(|h| h == 180 || h == 360), "{narrow:#}");
}
