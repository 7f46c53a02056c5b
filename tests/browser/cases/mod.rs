//! The cases, and what they share: turns, a demo to talk to, and what counts as seen and heard.

mod cluster;
mod failover;
mod loss;
mod pages;
mod playout;
mod sdk;
mod simulcast;
mod sublayers;
mod whip_whep;

use std::io::Write;
use std::time::{Duration, Instant};

use ams_testkit::driver::Driver;
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

/// The application every case uses.
const APP: &str = "WebRTCAppEE";
/// From the start of a driver to what it is waited for: browsers start slowly beside others.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest first frame that still counts as working, from the press or from the answer; what is usual is far below.
const FIRST_FRAME_MS_MAX: u64 = 5000;

/// Cases run one after the other, however many threads the harness has.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// `ams-node demo`, and the turn to use it.
struct Demo {
    node: NodeProcess,
    _turn: MutexGuard<'static, ()>,
}

impl Demo {
    async fn start() -> Self {
        let turn = turn().await;
        let node = NodeProcess::start(NodeOptions::new("demo", [127, 0, 0, 1])).await.unwrap();
        Self { node, _turn: turn }
    }

    /// A URL of the origin within the application.
    fn origin(&self, path: &str) -> String {
        format!("http://{}/{APP}/{path}", self.node.http)
    }

    /// A URL of the edge within the application. The demo's second address is its edge.
    fn edge(&self, path: &str) -> String {
        format!("http://{}/{APP}/{path}", self.node.relay)
    }

    fn origin_socket(&self) -> String {
        format!("ws://{}/{APP}/websocket", self.node.http)
    }

    fn edge_socket(&self) -> String {
        format!("ws://{}/{APP}/websocket", self.node.relay)
    }
}

/// What a publisher shows.
#[derive(Clone, Copy, Debug)]
enum Picture {
    /// Chromium's fake camera.
    Camera,
    /// The pattern of the Python publishers.
    Pattern,
}

/// Waits for the result of a driver that ends by itself.
async fn result(driver: &mut Driver) -> Value {
    let result = driver.event("result", PATIENCE).await.unwrap();
    assert_eq!(result["ok"], true, "{result:#}");
    result
}

/// Ends a driver and returns its result.
async fn finish(driver: Driver) -> Value {
    let result = driver.finish(PATIENCE).await.unwrap();
    assert_eq!(result["ok"], true, "{result:#}");
    result
}

/// Waits until the page says a sentence that contains `words`.
async fn said(player: &mut Driver, words: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = player.event("said", left).await.unwrap();
        if let Some(sentence) = line["said"].as_str().filter(|s| s.contains(words)) {
            return sentence.to_owned();
        }
    }
}

/// Checks what a viewer reports: the right picture moving, the right codec, sound, and a first frame in bounded time.
fn saw(who: &str, result: &Value, picture: Picture, codec: Option<&str>) {
    check_saw(result, picture, codec).with_context(|| format!("{who}: {result:#}")).unwrap();
    let fps =
        result["fps"].as_f64().map_or_else(|| format!("{} frames", result["framesDecoded"]), |f| format!("{f} fps"));
    let first = result["firstFrameMs"].as_u64().map(|ms| format!("first frame after {ms} ms, ")).unwrap_or_default();
    say(&format!("{who}: {first}{fps}{}", codec.map(|c| format!(", {c}")).unwrap_or_default()));
}

/// What was seen, without the time of the first frame: it was counted from a moment that says nothing.
fn but_when(seen: &Value) -> Value {
    let mut seen = seen.clone();
    seen["firstFrameMs"] = Value::Null;
    seen
}

fn check_saw(result: &Value, picture: Picture, codec: Option<&str>) -> Result<()> {
    let number = |name: &str| result[name].as_f64().unwrap_or(0.0);
    let look = match picture {
        Picture::Camera => "looksLikeFakeCamera",
        Picture::Pattern => "looksLikePattern",
    };
    ensure!(number("framesDecoded") >= 20.0, "hardly a frame was decoded");
    ensure!(result[look] == true, "the picture is not the one that was sent");
    ensure!(number("moved") >= 4.0, "the picture does not move");
    ensure!(number("longestStillS") <= 2.0, "the picture stood still");
    // Browsers report the energy they decoded, programs the loudest sample.
    ensure!(number("audioEnergy") > 0.0 || number("soundPeak") > 1000.0, "nothing was heard");
    ensure!(number("firstFrameMs") <= FIRST_FRAME_MS_MAX as f64, "the first frame was very late");
    if let (Some(codec), Some(codecs)) = (codec, result["codecs"].as_array()) {
        ensure!(codecs.iter().any(|c| c == &format!("video/{codec}")), "another codec than {codec}");
    }
    Ok(())
}

/// Checks that a page had nothing to complain about.
fn no_complaints(who: &str, result: &Value) {
    assert_eq!(result["complaints"].as_array().map(Vec::len), Some(0), "{who}: {:#}", result["complaints"]);
}

/// Prints a figure past the harness, which would keep it to itself when the test passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "    {line}");
}
