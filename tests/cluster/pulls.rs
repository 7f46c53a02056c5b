//! How an edge holds a stream: one subscription however many ask, let go when nobody watches, had again when wanted.

use std::time::{Duration, Instant};

use ams_testkit::case::{case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::NodeProcess;
use anyhow::{Context, ensure};
use futures_util::future::try_join_all;

use super::{SOON, all_intact};

/// The default `relay_link.linger`, the poll for it, and some air.
const LINGER: Duration = Duration::from_secs(6);

#[test]
fn a_stream_is_let_go_after_the_last_viewer_and_had_again() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(30, 1)).await?;
        let edge = cluster.edge(0)?;
        let publisher = LightPublisher::publish(&cluster.origin.socket(), "comes").await?;
        for round in 0..2 {
            let viewer = LightViewer::play(&edge.socket(), "comes").await?;
            let second = LightViewer::play(&edge.socket(), "comes").await?;
            all_intact(&[viewer, second], 60).await.with_context(|| format!("round {round}"))?;
            // Both are gone: their values were moved in and dropped.
            let left = Instant::now();
            cluster.origin.wait_metric("ams_relay_streams_served", LINGER, |n| n == 0.0).await?;
            say(&format!("let go {} ms after the last viewer", left.elapsed().as_millis()));
            edge.wait_metric("ams_streams", SOON, |n| n == 0.0).await?;
            let before = edge.metric("ams_relay_packets_received_total").await?;
            let made = publisher.counts.get(|c| &c.video);
            eventually("half a second of media", SOON, || async {
                (publisher.counts.get(|c| &c.video) > made + 45).then_some(())
            })
            .await?;
            let idle = edge.metric("ams_relay_packets_received_total").await? - before;
            ensure!(idle == 0.0, "{idle} packets came for nobody");
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_viewer_that_comes_while_the_stream_is_let_go_gets_it() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(31, 1).args(&["--set", "relay_link.linger=100ms"])).await?;
        let edge = cluster.edge(0)?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "edgewise").await?;
        // Pauses around the moment of letting go, which is looked for every half second.
        for pause in [0, 80, 160, 240, 320, 400, 480, 560, 640] {
            let viewer = LightViewer::play(&edge.socket(), "edgewise").await.with_context(|| format!("{pause} ms"))?;
            all_intact(&[viewer], 5).await.with_context(|| format!("{pause} ms"))?;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn many_who_join_at_once_make_one_subscription() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(32, 1)).await?;
        let edge = cluster.edge(0)?;
        let publisher = LightPublisher::publish(&cluster.origin.socket(), "rush").await?;
        let socket = edge.socket();
        let viewers = try_join_all((0..12).map(|_| LightViewer::play(&socket, "rush"))).await?;
        all_intact(&viewers, 60).await?;
        ensure!(cluster.origin.metric("ams_relay_streams_served").await? == 1.0, "one subscription");
        let pulls = edge.log().matches("stream is pulled").count();
        ensure!(pulls == 1, "{pulls} pulls");
        // One for the first picture, perhaps one for those who came between two keyframes.
        let asked = publisher.counts.get(|c| &c.keyframe_requests);
        ensure!(asked <= 4, "{asked} keyframe requests for one rush");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn several_streams_share_one_link_and_end_apart() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(33, 1)).await?;
        let edge = cluster.edge(0)?;
        let names = ["a", "b", "c", "d"];
        let (origin, socket) = (cluster.origin.socket(), edge.socket());
        let mut publishers = try_join_all(names.iter().map(|name| LightPublisher::publish(&origin, name))).await?;
        let mut viewers = try_join_all(names.iter().map(|name| LightViewer::play(&socket, name))).await?;
        all_intact(&viewers, 60).await?;
        ensure!(edge.metric("ams_relay_links").await? == 1.0, "four streams, one link");
        let mut ended = publishers.remove(0);
        ended.socket()?.stop("a").await?;
        viewers[0].socket()?.definition("play_finished", super::PROMPTLY).await?;
        all_intact(&viewers[1..], 60).await.context("the others go on")?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_edge_that_stands_still_slows_nobody_and_comes_back() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(34, 2)).await?;
        let (steady, slow) = (cluster.edge(0)?, cluster.edge(1)?);
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "still").await?;
        let witnesses = [
            LightViewer::play(&steady.socket(), "still").await?,
            LightViewer::play(&cluster.origin.socket(), "still").await?,
        ];
        let stuck = LightViewer::play(&slow.socket(), "still").await?;
        stuck.wait_video(30, SOON).await?;
        let before = cluster.origin.rss_kb().context("memory")?;
        slow.signal("STOP")?;
        let let_go = cluster.origin.wait_metric("ams_relay_streams_served", LINGER, |n| n == 1.0).await;
        let intact = all_intact(&witnesses, 180).await;
        slow.signal("CONT")?;
        let_go.context("a link that is silent for 3 s is dead")?;
        intact.context("the others while one stands still")?;
        let after = cluster.origin.rss_kb().context("memory")?;
        ensure!(after < before + 16 * 1024, "{after} kB at the origin, {before} before");
        drop(stuck);
        // It learns only now that its link is dead: who comes in that moment may be sent away once.
        let again =
            eventually("it goes on", LINGER, || async { LightViewer::play(&slow.socket(), "still").await.ok() })
                .await?;
        all_intact(&[again], 60).await?;
        all_intact(&witnesses, 30).await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_stream_that_flaps_between_origins_can_always_be_had() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(35, 1)).await?;
        let other = NodeProcess::start(cluster.node("origin", 14)).await?;
        let edge = cluster.edge(0)?;
        for round in 0..16 {
            // Now here, now there, now twice in one place.
            let origin = if round % 4 < 2 { &cluster.origin } else { &other };
            let mut publisher =
                LightPublisher::publish(&origin.socket(), "flaps").await.with_context(|| format!("round {round}"))?;
            let mut viewer = LightViewer::play(&edge.socket(), "flaps")
                .await
                .with_context(|| format!("round {round}, the viewer"))?;
            viewer.wait_video(5, SOON).await.with_context(|| format!("round {round}"))?;
            viewer.counts.intact().with_context(|| format!("round {round}"))?;
            publisher.socket()?.stop("flaps").await?;
            publisher.socket()?.definition("publish_finished", SOON).await?;
            viewer.socket()?.definition("play_finished", super::PROMPTLY).await?;
            // The publisher hears of the end before the database does; another origin asks the database.
            super::record_over(&cluster.databases, "flaps", SOON).await?;
        }
        drop(other);
        cluster.end().await;
        Ok(())
    });
}
