//! Clusters as operators run them: an origin and edges as processes of their own, a real MongoDB, light WebRTC peers.
//!
//! Owns what is promised across nodes: one copy per edge, the documents AMS's tools read, who hears of what and how
//! soon, and what is left when something is killed. Judged by bytes, documents and figures alone. Needs what
//! `tests/env/with-mongo` provides.

mod counts;
mod documents;
mod draining;
mod errors;
mod failover;
mod fanout;
mod hostile_documents;
mod leaving;
mod lifecycle;
mod limits;
mod loss;
mod lossy_links;
mod overload;
mod partitions;
mod pulls;
mod registry_away;
mod scaling;
mod shards;
mod waiting;
mod whip_whep;

use std::time::{Duration, Instant};

use ams_testkit::ams::AmsSocket;
use ams_testkit::eventually;
use ams_testkit::light::LightViewer;
use ams_testkit::mongo::Databases;
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

/// Longest wait for what takes no longer than a message or a call to the registry.
const SOON: Duration = Duration::from_secs(5);
/// Longest wait for media to come.
const MEDIA: Duration = Duration::from_secs(10);
/// What the issue promises for news of starts and ends.
const PROMPTLY: Duration = Duration::from_secs(1);

/// Waits until every viewer has this many more video packets, then checks that all it ever got is intact.
async fn all_intact(viewers: &[LightViewer], more: u64) -> Result<()> {
    try_join_all(viewers.iter().map(|viewer| viewer.wait_video(more, MEDIA))).await?;
    for (at, viewer) in viewers.iter().enumerate() {
        viewer.counts.intact().with_context(|| format!("viewer {at}"))?;
    }
    Ok(())
}

/// Waits until each viewer was told that the stream is over, and checks that none waited longer than promised.
async fn all_told_within(viewers: &mut [LightViewer], since: Instant, limit: Duration) -> Result<()> {
    let told = viewers.iter_mut().map(|viewer| async {
        let left = limit.saturating_sub(since.elapsed());
        viewer.socket()?.definition("play_finished", left).await.context("play_finished")
    });
    try_join_all(told).await.map(drop)
}

/// Waits until a stream's record is gone, or reads other than live.
async fn record_over(databases: &Databases, stream: &str, limit: Duration) -> Result<()> {
    eventually("the record is over", limit, || async {
        let record = databases.broadcast(ams_testkit::APP, stream).await.ok()?;
        let infos = databases.stream_infos(ams_testkit::APP, stream).await.ok()?;
        let over = record.is_none_or(|r| !["broadcasting", "preparing"].contains(&r.get_str("status").unwrap_or("")));
        (over && infos.is_empty()).then_some(())
    })
    .await
}

/// Sends one command on a new socket and gives the first error that comes.
async fn error_of(websocket: &str, command: Value) -> Result<Value> {
    let mut socket = AmsSocket::connect(websocket).await?;
    socket.send(command).await?;
    socket.command("error", SOON).await
}

/// Checks an error frame's name and stream.
fn is_error(error: &Value, definition: &str, stream: Option<&str>) -> Result<()> {
    ensure!(error["command"] == "error" && error["definition"] == definition, "not {definition}: {error}");
    ensure!(error["streamId"].as_str() == stream, "not of stream {stream:?}: {error}");
    Ok(())
}

fn play(stream: &str) -> Value {
    json!({"command": "play", "streamId": stream, "token": "", "room": "", "trackList": []})
}

fn publish(stream: &str) -> Value {
    json!({"command": "publish", "streamId": stream, "video": true, "audio": true})
}
