//! Nodes that are killed, restarted and stopped: who hears of it, and what is left in the database.

use std::time::{Duration, Instant};

use ams_testkit::APP;
use ams_testkit::case::{case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::mongo::bson::doc;
use anyhow::{Context, ensure};

use super::{SOON, all_intact, all_told_within, record_over};

/// `relay_link.dead_after`, and some air.
const ORIGIN_LOST: Duration = Duration::from_secs(15);

#[test]
fn an_edge_that_is_killed_leaves_nothing_at_the_origin_and_serves_again() {
    case(async {
        let mut cluster = Cluster::start(ClusterOptions::new(50, 2)).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "edge-dies").await?;
        let stays = LightViewer::play(&cluster.edge(0)?.socket(), "edge-dies").await?;
        let lost = LightViewer::play(&cluster.edge(1)?.socket(), "edge-dies").await?;
        lost.wait_video(30, super::MEDIA).await?;
        cluster.edge_mut(1)?.kill()?;
        cluster.origin.wait_metric("ams_relay_streams_served", SOON, |n| n == 1.0).await?;
        cluster.origin.wait_metric("ams_relay_links", SOON, |n| n == 1.0).await?;
        cluster.edge_mut(1)?.restart().await?;
        drop(lost);
        let again = LightViewer::play(&cluster.edge(1)?.socket(), "edge-dies").await.context("after the restart")?;
        all_intact(&[stays, again], 60).await?;
        ensure!(cluster.databases.nodes().await?.len() == 3, "a restarted node has one row, not two");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_origin_that_is_killed_and_restarted_takes_its_streams_back_at_once() {
    case(async {
        let mut cluster = Cluster::start(ClusterOptions::new(51, 1).args(&["--set", "media.resume_window=1s"])).await?;
        let record = doc! {"streamId": "kept", "status": "created", "type": "liveStream", "zombi": false};
        cluster.databases.collection("webrtcappee", "broadcast").insert_one(record).await?;
        let _kept = LightPublisher::publish(&cluster.origin.socket(), "kept").await?;
        let _zombi = LightPublisher::publish(&cluster.origin.socket(), "zombi").await?;
        let mut viewers = [LightViewer::play(&cluster.edge(0)?.socket(), "zombi").await?];
        all_intact(&viewers, 30).await?;
        let killed = Instant::now();
        cluster.origin.kill()?;
        all_told_within(&mut viewers, killed, ORIGIN_LOST).await?;
        say(&format!("viewers heard of the dead origin after {} ms", killed.elapsed().as_millis()));

        cluster.origin.restart().await?;
        // What its former run left is cleaned before it takes publishers.
        record_over(&cluster.databases, "zombi", SOON).await?;
        ensure!(cluster.databases.broadcast(APP, "zombi").await?.is_none(), "a record made by publishing is gone");
        let kept = cluster.databases.broadcast(APP, "kept").await?.context("a record made beforehand stays")?;
        ensure!(!["broadcasting", "preparing"].contains(&kept.get_str("status")?), "{kept}");
        let publisher = LightPublisher::publish(&cluster.origin.socket(), "zombi").await.context("at once")?;
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), "zombi").await.context("over a new link")?;
        all_intact(&[viewer], 60).await?;
        ensure!(cluster.edge(0)?.metric("ams_relay_links").await? == 1.0, "the dead link is gone");
        drop(publisher);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_node_that_is_told_to_stop_says_so_and_cleans_up() {
    case(async {
        let mut cluster = Cluster::start(ClusterOptions::new(53, 1).args(&["--set", "drain.timeout=0s"])).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "sigterm").await?;
        let mut viewers = [
            LightViewer::play(&cluster.origin.socket(), "sigterm").await?,
            LightViewer::play(&cluster.edge(0)?.socket(), "sigterm").await?,
        ];
        all_intact(&viewers, 30).await?;
        let stopped = Instant::now();
        let status = cluster.origin.terminate().await?;
        say(&format!("the origin ended after {} ms", stopped.elapsed().as_millis()));
        ensure!(status.code() == Some(0), "SIGTERM ends a node with code 0, not {status}");
        publisher.socket()?.definition("server_will_stop", SOON).await?;
        viewers[0].socket()?.definition("server_will_stop", SOON).await?;
        viewers[1].socket()?.definition("play_finished", ORIGIN_LOST).await.context("when nobody took it up")?;
        let record = cluster.databases.broadcast(APP, "sigterm").await?;
        ensure!(
            record.as_ref().is_none_or(|r| r.get_str("status").is_ok_and(|s| s == "terminated_unexpectedly")),
            "{record:?}"
        );
        ensure!(cluster.databases.stream_infos(APP, "sigterm").await?.is_empty(), "no rendition is left");
        ensure!(cluster.databases.nodes().await?.len() == 1, "the edge's row alone is left");

        let status = cluster.edge_mut(0)?.terminate().await?;
        ensure!(status.code() == Some(0), "SIGTERM ends an edge with code 0, not {status}");
        ensure!(cluster.databases.nodes().await?.is_empty(), "no row is left");
        cluster.end().await;
        Ok(())
    });
}
