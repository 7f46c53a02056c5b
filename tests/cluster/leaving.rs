//! Peers that go without a word, or with one: noticed in time, and nothing is left of them.

use std::time::{Duration, Instant};

use ams_testkit::case::{case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{Control, LightPublisher, LightViewer};
use anyhow::{Context, ensure};

use super::{PROMPTLY, SOON, all_intact, all_told_within, record_over};

/// Viewers hear at once that their publisher is gone; what they get otherwise is in `failover`.
const KEEP_NOBODY: [&str; 2] = ["--set", "media.resume_window=0s"];
/// What the issue promises for peers that are dead.
const NOTICED: Duration = Duration::from_secs(10);

#[test]
fn a_viewer_that_vanishes_is_noticed() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(40, 1)).await?;
        let edge = cluster.edge(0)?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "vanish").await?;
        let stays = LightViewer::play(&edge.socket(), "vanish").await?;
        let goes = LightViewer::play(&edge.socket(), "vanish").await?;
        goes.wait_video(30, super::MEDIA).await?;
        let gone = Instant::now();
        goes.vanish();
        edge.wait_metric("ams_viewers", NOTICED, |n| n == 1.0).await?;
        say(&format!("a vanished viewer was noticed after {} ms", gone.elapsed().as_millis()));
        ensure!(edge.metric("ams_sessions").await? == 1.0, "its session went with it");
        all_intact(&[stays], 60).await.context("the other one")?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_publisher_that_vanishes_is_noticed() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(41, 1).args(&KEEP_NOBODY)).await?;
        let publisher = LightPublisher::publish(&cluster.origin.socket(), "blackout").await?;
        let mut viewers = [
            LightViewer::play(&cluster.origin.socket(), "blackout").await?,
            LightViewer::play(&cluster.edge(0)?.socket(), "blackout").await?,
        ];
        all_intact(&viewers, 30).await?;
        let gone = Instant::now();
        publisher.vanish();
        all_told_within(&mut viewers, gone, NOTICED).await?;
        say(&format!("a vanished publisher was noticed after {} ms", gone.elapsed().as_millis()));
        record_over(&cluster.databases, "blackout", SOON).await?;
        ensure!(cluster.databases.broadcast(ams_testkit::APP, "blackout").await?.is_none(), "its record is gone");
        // The id is free at once.
        LightPublisher::publish(&cluster.origin.socket(), "blackout").await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn peers_that_close_their_socket_or_say_goodbye_are_gone_at_once() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(42, 1).args(&KEEP_NOBODY)).await?;
        let edge = cluster.edge(0)?;
        for (name, by_socket) in [("by closing the socket", true), ("by close_notify", false)] {
            let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "bye").await?;
            let mut viewers = [
                LightViewer::play(&cluster.origin.socket(), "bye").await?,
                LightViewer::play(&edge.socket(), "bye").await?,
            ];
            let mut leaves = LightViewer::play(&edge.socket(), "bye").await?;
            all_intact(&viewers, 10).await?;
            match by_socket {
                true => leaves.socket.take().context("socket")?.close().await,
                false => leaves.control(Control::Close),
            }
            edge.wait_metric("ams_viewers", PROMPTLY, |n| n == 1.0).await.with_context(|| format!("viewer {name}"))?;
            let gone = Instant::now();
            match by_socket {
                true => publisher.socket.take().context("socket")?.close().await,
                false => publisher.control(Control::Close),
            }
            all_told_within(&mut viewers, gone, PROMPTLY).await.with_context(|| format!("publisher {name}"))?;
            record_over(&cluster.databases, "bye", SOON).await.with_context(|| format!("publisher {name}"))?;
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn viewers_are_closed_when_their_stream_ends() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(43, 1)).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "closed").await?;
        let viewers = [
            LightViewer::whep(&cluster.origin.url(""), ams_testkit::APP, "closed").await?,
            LightViewer::whep(&cluster.edge(0)?.url(""), ams_testkit::APP, "closed").await?,
        ];
        all_intact(&viewers, 30).await?;
        publisher.socket()?.stop("closed").await?;
        for viewer in &viewers {
            // WHEP has no messages: the transport itself must say so.
            ams_testkit::eventually("close_notify", PROMPTLY, || async { viewer.counts.is_closed().then_some(()) })
                .await?;
        }
        cluster.end().await;
        Ok(())
    });
}
