//! One publisher, fifty viewers over two edges: everybody gets everything, the origin sends each edge one copy.

use std::time::{Duration, Instant};

use ams_testkit::case::{heavy_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{Habits, LightPublisher, LightViewer};
use anyhow::ensure;
use futures_util::future::try_join_all;

use super::{PROMPTLY, SOON, all_intact, all_told_within, record_over};

const VIEWERS: usize = 50;

#[test]
fn fifty_viewers_over_two_edges_and_one_copy_to_each() {
    heavy_case(async {
        let cluster = Cluster::start(ClusterOptions::new(0, 2)).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "stream1").await?;
        let begun = Instant::now();
        let sockets: Vec<String> = cluster.edges.iter().map(|edge| edge.socket()).collect();
        let joins = (0..VIEWERS).map(|n| LightViewer::play(&sockets[n % sockets.len()], "stream1"));
        let mut viewers = try_join_all(joins).await?;
        say(&format!("{VIEWERS} viewers joined in {} ms", begun.elapsed().as_millis()));
        for edge in &cluster.edges {
            edge.wait_metric("ams_viewers", SOON, |n| n == (VIEWERS / 2) as f64).await?;
            ensure!(edge.metric("ams_relay_links").await? == 1.0, "one link per edge and origin");
            ensure!(edge.metric("ams_streams").await? == 1.0, "each edge pulls the stream once");
        }
        ensure!(cluster.origin.metric("ams_relay_streams_served").await? == 2.0, "one subscription per edge");
        all_intact(&viewers, 90).await?;

        let made = || publisher.counts.get(|c| &c.video) + publisher.counts.get(|c| &c.audio);
        let sent = || cluster.origin.metric("ams_relay_packets_sent_total");
        let before = (made(), sent().await?);
        eventually("five seconds of media", Duration::from_secs(20), || async {
            (made() >= before.0 + 700).then_some(())
        })
        .await?;
        let after = (made(), sent().await?);
        let copies = (after.1 - before.1) / (after.0 - before.0) as f64;
        say(&format!("{copies:.3} relayed packets for each published one"));
        ensure!((1.94..=2.06).contains(&copies), "two edges make two copies, not {copies:.3}");
        ensure!(cluster.origin.metric("ams_relay_packets_dropped_total").await? == 0.0, "nothing was dropped");
        all_intact(&viewers, 90).await?;
        ensure!(viewers.iter().all(|v| v.counts.get(|c| &c.audio) > 100), "everybody hears it too");

        let stopped = Instant::now();
        publisher.socket()?.stop("stream1").await?;
        all_told_within(&mut viewers, stopped, PROMPTLY).await?;
        publisher.socket()?.definition("publish_finished", SOON).await?;
        record_over(&cluster.databases, "stream1", SOON).await?;
        for node in [&cluster.origin].into_iter().chain(&cluster.edges) {
            for figure in ["ams_viewers", "ams_publishers", "ams_streams", "ams_relay_streams_served"] {
                node.wait_metric(figure, SOON, |n| n == 0.0).await?;
            }
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn sound_and_picture_stay_together_through_the_relay() {
    ams_testkit::case::case(async {
        let cluster = Cluster::start(ClusterOptions::new(1, 1)).await?;
        let publisher = LightPublisher::publish(&cluster.origin.socket(), "lips").await?;
        let viewers = [
            LightViewer::play(&cluster.origin.socket(), "lips").await?,
            LightViewer::play(&cluster.edge(0)?.socket(), "lips").await?,
        ];
        for (place, viewer) in ["origin", "edge"].into_iter().zip(&viewers) {
            let counts = &viewer.counts;
            eventually("sender reports of both tracks", Duration::from_secs(10), || async {
                use std::sync::atomic::Ordering::Relaxed;
                let lags = (counts.audio_lag_us.load(Relaxed), counts.video_lag_us.load(Relaxed));
                (counts.get(|c| &c.reports) >= 4 && lags.0 != 0 && lags.1 != 0).then_some(())
            })
            .await?;
            viewer.wait_video(90, Duration::from_secs(10)).await?;
            use std::sync::atomic::Ordering::Relaxed;
            let apart = counts.audio_lag_us.load(Relaxed) - counts.video_lag_us.load(Relaxed);
            say(&format!("{place}: sound and picture are {:.1} ms apart", apart as f64 / 1000.0));
            ensure!(apart.abs() < 20_000, "{place}: {apart} µs apart");
            counts.intact()?;
        }
        ensure!(publisher.counts.get(|c| &c.transport_feedback) > 10, "the publisher hears how its packets arrive");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn sound_alone_and_pictures_alone_pass_too() {
    ams_testkit::case::case(async {
        let cluster = Cluster::start(ClusterOptions::new(5, 1)).await?;
        for kind in ["audio", "video"] {
            let habits = Habits { only: Some(kind), ..Habits::default() };
            let _publisher = LightPublisher::publish_with(&cluster.origin.socket(), kind, habits).await?;
            let viewers = [
                LightViewer::play(&cluster.origin.socket(), kind).await?,
                LightViewer::play(&cluster.edge(0)?.socket(), kind).await?,
                LightViewer::whep(&cluster.edge(0)?.url(""), ams_testkit::APP, kind).await?,
            ];
            for viewer in &viewers {
                match kind {
                    "audio" => viewer.wait_audio(60, SOON).await?,
                    _ => viewer.wait_video(60, SOON).await?,
                }
                viewer.counts.intact()?;
                let other = if kind == "audio" { &viewer.counts.video } else { &viewer.counts.audio };
                ensure!(other.load(std::sync::atomic::Ordering::Relaxed) == 0, "{kind} alone");
            }
            let infos = cluster.databases.stream_infos(ams_testkit::APP, kind).await?;
            let info = infos.first().cloned().unwrap_or_default();
            let enabled = (info.get_bool("videoEnabled")?, info.get_bool("audioEnabled")?);
            ensure!(enabled == (kind == "video", kind == "audio"), "{info}");
        }
        cluster.end().await;
        Ok(())
    });
}
