//! Packets that get lost, and keyframes that many want: asked for again, asked for once.

use std::time::{Duration, Instant};

use ams_testkit::case::{case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{Control, Counts, Habits, LightPublisher, LightViewer};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use super::SOON;

/// Five in a hundred.
const LOSSY: f32 = 0.05;

/// Waits until nothing is missing after the path has become good again.
async fn complete(counts: &Counts) -> Result<()> {
    eventually("every lost packet has come", SOON, || async {
        (counts.get(|c| &c.missing) == 0 && counts.get(|c| &c.skipped) == 0).then_some(())
    })
    .await
    .with_context(|| format!("{counts:?}"))
}

#[test]
fn a_viewer_gets_again_what_its_path_lost() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(90, 1)).await?;
        let publisher = LightPublisher::publish(&cluster.origin.socket(), "lossy").await?;
        let steady = LightViewer::play(&cluster.edge(0)?.socket(), "lossy").await?;
        // The first picture comes whole: what is lost before it is missed by nobody.
        let habits = Habits { asks_again: true, ..Habits::default() };
        for door in ["websocket", "whep"] {
            let viewer = match door {
                "whep" => LightViewer::whep_with(&cluster.edge(0)?.url(""), ams_testkit::APP, "lossy", habits).await?,
                _ => LightViewer::play_with(&cluster.edge(0)?.socket(), "lossy", habits).await?,
            };
            viewer.wait_video(10, SOON).await?;
            viewer.control(Control::Habits(Habits { lose_received: LOSSY, ..habits }));
            // Numbers wrap in here.
            viewer.wait_video(600, Duration::from_secs(20)).await?;
            viewer.control(Control::Habits(habits));
            viewer.wait_video(90, SOON).await?;
            complete(&viewer.counts).await.context(door)?;
            let (lost, recovered) = (viewer.counts.get(|c| &c.lost), viewer.counts.get(|c| &c.recovered));
            say(&format!("{door}: {lost} packets lost, {recovered} came again by RTX"));
            ensure!(lost >= 15 && recovered >= 10, "{door}: {:?}", viewer.counts);
            ensure!(viewer.counts.get(|c| &c.wrong) == 0, "{door}: {:?}", viewer.counts);
        }
        ensure!(cluster.edge(0)?.metric("ams_retransmissions_total").await? >= 20.0, "counted at the edge");
        ensure!(publisher.counts.get(|c| &c.nacks) == 0, "a viewer's loss is no business of the publisher");
        steady.counts.intact().context("nor of another viewer")?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_publisher_is_asked_again_for_what_its_path_lost() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(91, 1)).await?;
        let habits = Habits { lose_sent: LOSSY, ..Habits::default() };
        let publisher = LightPublisher::publish_with(&cluster.origin.socket(), "uplink", habits).await?;
        let asks = Habits { asks_again: true, ..Habits::default() };
        let viewers = [
            LightViewer::play_with(&cluster.origin.socket(), "uplink", asks).await?,
            LightViewer::play_with(&cluster.edge(0)?.socket(), "uplink", asks).await?,
        ];
        for viewer in &viewers {
            viewer.wait_video(500, Duration::from_secs(20)).await?;
        }
        publisher.control(Control::Habits(Habits::default()));
        for (place, viewer) in ["origin", "edge"].into_iter().zip(&viewers) {
            viewer.wait_video(90, SOON).await?;
            complete(&viewer.counts).await.context(place)?;
            ensure!(viewer.counts.get(|c| &c.wrong) == 0, "{place}: {:?}", viewer.counts);
        }
        let (lost, again) = (publisher.counts.get(|c| &c.lost), publisher.counts.get(|c| &c.recovered));
        say(&format!("the publisher's path lost {lost} packets, it sent {again} again"));
        // What is lost before the first packet came is missed by nobody.
        ensure!(lost >= 10 && again + 5 >= lost && publisher.counts.get(|c| &c.nacks) > 0, "{:?}", publisher.counts);
        ensure!(again < lost * 3, "each is asked for about once: {again} for {lost}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn many_who_want_a_keyframe_make_one_request_per_half_second() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(92, 2)).await?;
        let publisher = LightPublisher::publish(&cluster.origin.socket(), "keys").await?;
        let sockets = [cluster.edge(0)?.socket(), cluster.edge(1)?.socket(), cluster.origin.socket()];
        let viewers = try_join_all((0..12).map(|n| LightViewer::play(&sockets[n % 3], "keys"))).await?;
        super::all_intact(&viewers, 10).await?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            viewers.iter().for_each(|viewer| viewer.control(Control::AskKeyframe));
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let times = publisher.counts.keyframe_requests_at.lock().map(|at| at.clone()).unwrap_or_default();
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let shortest = gaps.iter().min().copied().unwrap_or_default();
        say(&format!("{} keyframe requests, the closest two {} ms apart", times.len(), shortest.as_millis()));
        ensure!(times.len() >= 4, "they are passed on: {}", times.len());
        ensure!(shortest >= Duration::from_millis(450), "at most one per 500 ms: {gaps:?}");
        let counted = cluster.origin.metric("ams_keyframe_requests_total").await?;
        ensure!((counted - times.len() as f64).abs() <= 1.0, "counted {counted} of {}", times.len());
        super::all_intact(&viewers, 10).await?;
        cluster.end().await;
        Ok(())
    });
}
