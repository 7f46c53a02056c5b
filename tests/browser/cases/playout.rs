//! How long a browser holds pictures before it shows them.

use ams_testkit::driver::Driver;
use ams_testkit::node::{NodeOptions, NodeProcess};

use super::{APP, PATIENCE, Picture, finish, result, saw, say, turn};

#[tokio::test]
async fn a_viewer_holds_pictures_as_long_as_the_node_asks() {
    let _turn = turn().await;
    for (wish, held) in [("", 0..400), ("700ms-2s", 600..2100)] {
        let options = NodeOptions { registry: Some("memory".into()), ..NodeOptions::new("standalone", [127, 0, 0, 1]) };
        let set = format!("media.playout_delay={wish}");
        let node = NodeProcess::start(options.args(&["--set", &set])).await.unwrap();
        let url = |door: &str| format!("http://{}/{APP}/{door}/held", node.http);
        let mut publisher = Driver::start("whip.mjs", &["--url", &url("whip"), "--seconds", "0"]).unwrap();
        publisher.event("connected", PATIENCE).await.unwrap();

        let args = ["--url", &url("whep"), "--browser", "chromium", "--seconds", "6"];
        let seen = result(&mut Driver::start("whep.mjs", &args).unwrap()).await;
        say(&format!("asked for {wish:?}: held for {} ms", seen["heldMs"]));
        saw("pictures that are held", &seen, Picture::Camera, None);
        assert!(seen["heldMs"].as_i64().is_some_and(|ms| held.contains(&ms)), "{wish:?}: {seen:#}");
        finish(publisher).await;
    }
}
