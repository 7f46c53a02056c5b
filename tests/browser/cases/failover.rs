//! Origins killed under a publishing browser, behind a real balancer: AMS's SDK comes back by itself, viewers stay.
//!
//! `AMS_TEST_FAILOVER_ROUNDS` is how often, twice by default.

use std::time::Duration;

use ams_testkit::balancer::Balancer;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::driver::Driver;
use ams_testkit::light::LightViewer;
use ams_testkit::node::NodeProcess;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::{PATIENCE, say, turn};

/// Longest wait for the balancer, the SDK and the browser together.
const BACK: u64 = 20;
/// Light viewers of each edge.
const LIGHT: usize = 9;
/// From the word that the stream is live again to the picture.
const RESUMED_MS: i64 = 300;

#[tokio::test]
async fn an_origin_killed_under_a_browser_is_a_pause_for_its_viewers() {
    let _turn = turn().await;
    let rounds: usize = std::env::var("AMS_TEST_FAILOVER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let mut cluster = Cluster::start(ClusterOptions::new(120, 2)).await.unwrap();
    let mut other = NodeProcess::start(cluster.node("origin", 30)).await.unwrap();
    let balancer = Balancer::start(&[cluster.origin.http, other.http], &[]).await.unwrap();
    let edges = [cluster.edges[0].socket(), cluster.edges[1].socket()];

    let open = |name: &str, url: &str, play: bool, method: &str, started: &str| {
        [
            json!({"do": "adaptor", "name": name, "url": url, "play": play}),
            json!({"do": "wait", "on": name, "info": "initialized", "since": "begin", "within": 20}),
            json!({"do": "call", "on": name, "method": method, "args": ["killed"]}),
            json!({"do": "wait", "on": name, "info": started, "within": 20}),
        ]
    };
    let mut steps = vec![];
    steps.extend(open("publisher", &balancer.to_origins(), false, "publish", "publish_started"));
    for (name, edge) in ["first", "second"].iter().zip(&edges) {
        steps.extend(open(name, edge, true, "play", "play_started"));
        steps.push(json!({"do": "frames", "on": name, "min": 20, "within": 30}));
    }
    for _ in 0..rounds {
        for name in ["publisher", "first", "second"] {
            steps.push(json!({"do": "mark", "on": name}));
        }
        // Here the origin is killed.
        steps.push(json!({"do": "wait", "on": "publisher", "info": "session_restored", "within": BACK}));
        for name in ["first", "second"] {
            let from =
                json!({"do": "resumes", "on": name, "from": "publisher", "info": "session_restored", "within": 10});
            steps.extend([from, json!({"do": "frames", "on": name, "min": 20, "within": 20})]);
        }
        // Here the killed one is started again.
        steps.push(json!({"do": "sleep", "seconds": 4}));
    }
    let scenario = json!({"steps": steps}).to_string();
    let deadline = (90 + 60 * rounds).to_string();
    let mut driver = Driver::start("sdk.mjs", &["--scenario", &scenario, "--deadline", &deadline]).unwrap();

    let mut light: Vec<LightViewer> = Vec::new();
    let mut marks = 0;
    let result = loop {
        let line = driver.line(PATIENCE).await.unwrap();
        match (line["event"].as_str(), line["do"].as_str(), line["on"].as_str()) {
            (Some("result"), ..) => break line,
            (Some("step"), Some("mark"), Some("second")) => {
                marks += 1;
                while light.len() < 2 * LIGHT {
                    light.push(LightViewer::play(&edges[light.len() % 2], "killed").await.unwrap());
                }
                let here = cluster.origin.metric("ams_publishers").await.unwrap();
                let dies = if here == 1.0 { &mut cluster.origin } else { &mut other };
                dies.kill().unwrap();
            }
            (Some("step"), Some("frames"), Some("second")) if marks > 0 => {
                // Their media is a browser's and cannot be checked; that it flows can.
                let flows = light.iter().map(|viewer| viewer.wait_packets(30, Duration::from_secs(10)));
                try_join_all(flows).await.unwrap();
                let dead = if cluster.origin.is_running() { &mut other } else { &mut cluster.origin };
                dead.restart().await.unwrap();
            }
            _ => {}
        }
    };
    assert_eq!(result["ok"], true, "{}: {result:#}", result["why"]);
    let resumed: Vec<&Value> = result["steps"].as_array().unwrap().iter().filter(|s| s["do"] == "resumes").collect();
    assert_eq!(resumed.len(), 2 * rounds);
    for step in &resumed {
        say(&format!(
            "killed origin, {}: picture {} ms after session_restored, {} ms of pause",
            step["on"], step["afterMs"], step["pausedMs"]
        ));
        assert!(step["afterMs"].as_i64() <= Some(RESUMED_MS), "{step:#}");
    }
    for name in ["first", "second"] {
        let heard: Vec<&str> =
            result["callbacks"][name].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
        let is_disturbed = |word: &&&str| {
            word.starts_with("reconnection_attempt") || ["closed", "play_finished", "no_stream_exist"].contains(*word)
        };
        assert_eq!(heard.iter().find(is_disturbed), None, "{heard:?}");
        assert_eq!(heard.iter().filter(|word| **word == "play_started").count(), 1, "{heard:?}");
    }
    assert!(light.iter().all(|viewer| !viewer.counts.is_closed()), "a viewer was closed");
    drop(other);
    cluster.end().await;
}
