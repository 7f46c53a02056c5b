//! Viewers that come before the publisher: told so, and told again in time, wherever the publisher starts.

use std::time::Instant;

use ams_testkit::ams::AmsSocket;
use ams_testkit::case::{case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{Habits, LightPublisher, LightViewer};
use ams_testkit::mongo;
use anyhow::{Result, ensure};
use serde_json::Value;

use super::{PROMPTLY, SOON, is_error, play};

#[test]
fn viewers_are_woken_across_nodes_with_a_standalone_mongod() {
    case(async { wake_across_nodes(ClusterOptions::new(10, 2)).await });
}

#[test]
fn viewers_are_woken_across_nodes_with_a_replica_set() {
    case(async { wake_across_nodes(ClusterOptions::new(11, 2).registry(mongo::replica_set_uri()?)).await });
}

async fn wake_across_nodes(options: ClusterOptions) -> Result<()> {
    let cluster = Cluster::start(options).await?;
    let mut waiting = Vec::new();
    for node in [&cluster.origin].into_iter().chain(&cluster.edges) {
        let mut socket = AmsSocket::connect(&node.socket()).await?;
        socket.send(play("later")).await?;
        let error = socket.next(SOON).await?;
        not_yet(&error)?;
        node.wait_metric("ams_waiting", SOON, |n| n == 1.0).await?;
        waiting.push(socket);
    }
    let publisher = LightPublisher::publish(&cluster.origin.socket(), "later").await?;
    let live = Instant::now();
    let told = waiting.iter_mut().map(|socket| async {
        let message = socket.definition("streaming_started", PROMPTLY).await?;
        ensure!(message["command"] == "notification" && message["streamId"] == "later", "{message}");
        anyhow::Ok(live.elapsed())
    });
    let told = futures_util::future::try_join_all(told).await?;
    say(&format!("woken after {told:?}"));
    for socket in waiting {
        let viewer = LightViewer::play_on(socket, "later", Habits::default()).await?;
        viewer.wait_video(60, super::MEDIA).await?;
        viewer.counts.intact()?;
    }
    drop(publisher);
    cluster.end().await;
    Ok(())
}

#[test]
fn a_viewer_is_woken_once_per_start_and_not_after_it_stopped_waiting() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(12, 1)).await?;
        let edge = cluster.edge(0)?;
        let (mut waits, mut gave_up) =
            (AmsSocket::connect(&edge.socket()).await?, AmsSocket::connect(&edge.socket()).await?);
        for socket in [&mut waits, &mut gave_up] {
            socket.send(play("again")).await?;
            not_yet(&socket.next(SOON).await?)?;
        }
        gave_up.stop("again").await?;
        for round in 0..2 {
            let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "again").await?;
            waits.definition("streaming_started", PROMPTLY).await?;
            publisher.socket()?.stop("again").await?;
            publisher.socket()?.definition("publish_finished", SOON).await?;
            super::record_over(&cluster.databases, "again", SOON).await?;
            // Asks again, as the web player does, and waits for the next start.
            waits.send(play("again")).await?;
            let next = waits.next(SOON).await?;
            not_yet(&next).map_err(|error| error.context(format!("round {round}")))?;
        }
        let rest = gave_up.settle(SOON).await?;
        ensure!(rest.is_empty(), "whoever stopped waiting hears nothing: {rest:?}");
        drop(gave_up);
        waits.close().await;
        edge.wait_metric("ams_waiting", SOON, |n| n == 0.0).await?;
        cluster.end().await;
        Ok(())
    });
}

fn not_yet(error: &Value) -> Result<()> {
    let stream = error["streamId"].as_str();
    is_error(error, "no_stream_exist", stream)?;
    ensure!(error["error_code"] == "404", "error_code is the text 404: {error}");
    ensure!(error["information"] == "stream_not_exist_or_not_streaming", "{error}");
    Ok(())
}
