//! Networks that lose packets, either way and at either end: the picture must go on.

use serde_json::Value;

use super::whip_whep::publish;
use super::{Demo, Picture, finish, result, saw, say};
use ams_testkit::driver::Driver;

/// Of a hundred datagrams three are lost each way, the others are 25 ms late.
const BAD: [&str; 4] = ["--loss", "3", "--delay", "25"];

/// Media was lost, and it hardly shows. Without retransmissions the picture stands still for seconds.
fn went_on(who: &str, seen: &Value) {
    let number = |name: &str| seen[name].as_f64().unwrap_or(0.0);
    say(&format!(
        "{who}: {} packets lost, {} NACKs, {} PLIs, {} freezes, longest still {} s",
        seen["packetsLost"], seen["nackCount"], seen["pliCount"], seen["freezes"], seen["longestStillS"]
    ));
    assert!(number("nackCount") > 0.0, "{who}: nothing was lost: {seen:#}");
    assert!(number("longestStillS") <= 1.5, "{who}: {seen:#}");
    assert!(number("moved") * 3.0 >= number("pictures") * 2.0, "{who}: {seen:#}");
}

#[tokio::test]
async fn viewers_on_a_bad_network_go_on() {
    let demo = Demo::start().await;
    let publisher = publish("whip.mjs", &demo.origin("whip/far"), &["--codec", "VP8"]).await;
    let url = demo.edge("whep/far");
    for browser in ["chromium", "firefox"] {
        let args = [&["--url", &url, "--browser", browser, "--seconds", "7"], &BAD[..]].concat();
        let seen = result(&mut Driver::start("whep.mjs", &args).unwrap()).await;
        let who = format!("bad network to {browser}");
        saw(&who, &seen, Picture::Camera, Some("VP8"));
        went_on(&who, &seen);
    }
    finish(publisher).await;
}

#[tokio::test]
async fn a_publisher_on_a_bad_network_is_watched_as_if_it_were_not() {
    let demo = Demo::start().await;
    let args = [&["--codec", "VP8"], &BAD[..]].concat();
    let publisher = publish("whip.mjs", &demo.origin("whip/far"), &args).await;
    let url = demo.edge("whep/far");
    let args = ["--url", &url, "--browser", "chromium", "--seconds", "7"];
    let seen = result(&mut Driver::start("whep.mjs", &args).unwrap()).await;
    saw("bad network from chromium", &seen, Picture::Camera, Some("VP8"));
    let sent = finish(publisher).await;
    let nacks: u64 = sent["sent"].as_array().unwrap().iter().filter_map(|l| l["nacks"].as_u64()).sum();
    say(&format!("bad network from chromium: {nacks} NACKs sent to it, longest still {} s", seen["longestStillS"]));
    assert!(nacks > 0, "nothing was asked for again: {sent:#}");
    assert!(seen["longestStillS"].as_f64() <= Some(1.0), "{seen:#}");
}
