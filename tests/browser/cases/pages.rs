//! The demo's own pages, as a person uses them.

use std::time::Instant;

use ams_testkit::driver::Driver;

use super::{Demo, PATIENCE, Picture, but_when, finish, no_complaints, result, said, saw, say};

/// Publishes the fake camera from the origin's page, until its input is closed or `seconds` have passed.
async fn publish(url: &str, seconds: &str) -> Driver {
    let mut publisher = Driver::start("publish.mjs", &["--url", url, "--seconds", seconds]).unwrap();
    let live = publisher.event("publishing", PATIENCE).await.unwrap();
    say(&format!("publish page: live {} ms after Start Publishing", live["startedMs"]));
    publisher
}

#[tokio::test]
async fn chromium_publishes_and_chromium_and_firefox_watch_on_the_edge() {
    let demo = Demo::start().await;
    let publisher = publish(&demo.origin(""), "0").await;

    for (who, page, browser) in [
        // Nobody watches on this edge yet: it has no link to the origin.
        ("player page, chromium, first on its edge", "player", "chromium"),
        ("player page, firefox", "player", "firefox"),
        ("embedded player, chromium", "play", "chromium"),
    ] {
        let url = demo.edge(if page == "play" { "play.html?id=stream1" } else { "player.html" });
        let args = ["--url", &url, "--browser", browser, "--page", page, "--seconds", "5"];
        let seen = result(&mut Driver::start("play.mjs", &args).unwrap()).await;
        // The embedded player starts before the driver can look at it.
        saw(who, &if page == "play" { but_when(&seen) } else { seen.clone() }, Picture::Camera, None);
        no_complaints(who, &seen);
        // Nobody is told to wait for a stream that is there.
        let sentences = seen["sentences"].to_string();
        assert!(!sentences.contains("Waiting"), "{who}: {sentences}");
    }

    let sent = finish(publisher).await;
    no_complaints("publish page", &sent);
    assert!(sent["framesSent"].as_u64() > Some(100) && sent["audioPacketsSent"].as_u64() > Some(100), "{sent:#}");
}

#[tokio::test]
async fn a_player_that_comes_first_plays_by_itself_and_says_when_it_is_over() {
    let demo = Demo::start().await;
    let url = demo.edge("player.html");
    let mut player = Driver::start("play.mjs", &["--url", &url, "--seconds", "0"]).unwrap();
    let waiting = said(&mut player, "Waiting for stream1").await;
    assert!(waiting.contains("It will play by itself"), "{waiting}");

    let mut publisher = publish(&demo.origin(""), "4").await;
    let live = Instant::now();
    player.event("playing", PATIENCE).await.unwrap();
    say(&format!("waiting player: picture {} ms after the publisher was live", live.elapsed().as_millis()));

    publisher.event("stopped", PATIENCE).await.unwrap();
    let stopped = Instant::now();
    said(&mut player, "stream1 has ended").await;
    let took = stopped.elapsed();
    say(&format!("player page says that the stream ended {} ms after Stop Publishing", took.as_millis()));
    assert!(took.as_secs() < 5, "{took:?}");
    result(&mut publisher).await;

    let seen = finish(player).await;
    no_complaints("player page", &seen);
    assert!(seen["framesPresented"].as_u64() > Some(20), "{seen:#}");
}

/// Firefox's fake camera shows one colour, so that only the frames and the sound are judged.
#[tokio::test]
async fn firefox_publishes_and_chromium_watches() {
    let demo = Demo::start().await;
    let url = demo.origin("");
    let args = ["--url", &url, "--browser", "firefox", "--seconds", "0"];
    let mut publisher = Driver::start("publish.mjs", &args).unwrap();
    publisher.event("publishing", PATIENCE).await.unwrap();
    let player = demo.edge("player.html");
    let seen = result(&mut Driver::start("play.mjs", &["--url", &player, "--seconds", "4"]).unwrap()).await;
    say(&format!("firefox → player page: first frame after {} ms, {} fps", seen["firstFrameMs"], seen["fps"]));
    assert!(seen["framesDecoded"].as_u64() > Some(20), "{seen:#}");
    assert!(seen["audioEnergy"].as_f64() > Some(0.0), "{seen:#}");
    no_complaints("player page", &seen);
    no_complaints("publish page", &finish(publisher).await);
}

#[tokio::test]
async fn an_edge_says_where_to_publish() {
    let demo = Demo::start().await;
    let args = ["--url", &demo.edge(""), "--seconds", "1", "--start-deadline", "3"];
    let refused = Driver::start("publish.mjs", &args).unwrap().event("result", PATIENCE).await.unwrap();
    assert_eq!(refused["ok"], false, "{refused:#}");
    let said = refused["said"].as_str().unwrap_or_default();
    assert!(said.contains(&format!("publish to an origin, for example http://{}", demo.node.http)), "{said}");
}
