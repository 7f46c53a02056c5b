//! Origins killed under a publishing browser, and edges drained under a watching one, behind a real balancer: AMS's SDK comes
//! back by itself, and nobody loses the stream.
//!
//! `AMS_TEST_FAILOVER_ROUNDS` is how often, once by default.

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
    let rounds: usize = std::env::var("AMS_TEST_FAILOVER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
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

#[tokio::test]
async fn an_edge_that_drains_sends_a_browser_to_the_next() {
    let _turn = turn().await;
    let mut cluster = Cluster::start(ClusterOptions::new(121, 2)).await.unwrap();
    let balancer = Balancer::start(&[], &[cluster.edges[0].http, cluster.edges[1].http]).await.unwrap();
    let url = format!("{}/WebRTCAppEE/whip/drained", cluster.origin.url(""));
    let mut publisher = Driver::start("whip.mjs", &["--url", &url, "--seconds", "0"]).unwrap();
    publisher.event("connected", PATIENCE).await.unwrap();
    let scenario = json!({"steps": [
        {"do": "adaptor", "name": "viewer", "url": balancer.to_edges(), "play": true},
        {"do": "wait", "on": "viewer", "info": "initialized", "since": "begin", "within": 20},
        {"do": "call", "on": "viewer", "method": "play", "args": ["drained"]},
        {"do": "wait", "on": "viewer", "info": "play_started", "within": 20},
        {"do": "frames", "on": "viewer", "min": 20, "within": 30},
        {"do": "mark", "on": "viewer"},
        // Here its edge is told to end.
        {"do": "wait", "on": "viewer", "info": "server_will_stop", "within": BACK},
        {"do": "wait", "on": "viewer", "info": "play_started", "within": BACK},
        {"do": "resumes", "on": "viewer", "from": "viewer", "info": "play_started", "within": 10},
        {"do": "frames", "on": "viewer", "min": 20, "within": 20},
    ]});
    let mut driver = Driver::start("sdk.mjs", &["--scenario", &scenario.to_string(), "--deadline", "120"]).unwrap();
    let result = loop {
        let line = driver.line(PATIENCE).await.unwrap();
        if line["event"] == "result" {
            break line;
        }
        if line["do"] == "mark" {
            let here = cluster.edges[0].metric("ams_viewers").await.unwrap();
            let edge = &mut cluster.edges[if here == 1.0 { 0 } else { 1 }];
            let status = edge.terminate().await.unwrap();
            assert_eq!(status.code(), Some(0), "it leaves when its only viewer has");
        }
    };
    assert_eq!(result["ok"], true, "{}: {result:#}", result["why"]);
    let steps = result["steps"].as_array().unwrap();
    let pause = steps.iter().find(|s| s["do"] == "resumes").unwrap()["pausedMs"].as_i64().unwrap();
    say(&format!("drained edge: {pause} ms without a picture"));
    assert!(pause < 2000, "{pause} ms");
    drop(publisher);
    cluster.end().await;
}
