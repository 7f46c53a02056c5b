//! Edges that come and go as an auto-scaling group has them: who must move is away for a second, nobody else notices.
//!
//! `AMS_TEST_SCALING_VIEWERS` is how many watch, 12 by default.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ams_testkit::balancer::Balancer;
use ams_testkit::case::{patient_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::{NodeProcess, free_port};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::task::JoinHandle;

use super::{MEDIA, SOON};

/// What the SDK waits between `server_will_stop` and its next word.
const SDK_WAIT: Duration = Duration::from_millis(1000);
/// Longest time a viewer may be without pictures, as the issue promises.
const INTERRUPTION_MAX: Duration = Duration::from_secs(2);
/// What they watch.
const STREAM: &str = "scaled";

fn many() -> usize {
    std::env::var("AMS_TEST_SCALING_VIEWERS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

/// What a viewer went through.
#[derive(Debug, Default)]
struct Watched {
    /// From the last packet on one edge to the first on the next.
    moves: Vec<Duration>,
    /// Longest time between two packets on one edge.
    longest_gap: Duration,
}

impl Watched {
    /// All it got on one edge was right and complete.
    fn note(&mut self, viewer: &LightViewer) -> Result<()> {
        viewer.counts.intact()?;
        self.longest_gap = self.longest_gap.max(Duration::from_micros(viewer.counts.get(|c| &c.longest_gap_us)));
        Ok(())
    }
}

fn last_packet(viewer: &LightViewer) -> Instant {
    let last = viewer.counts.last_at.lock().map_or_else(|e| *e.into_inner(), |last| *last);
    last.unwrap_or_else(Instant::now)
}

/// A client that follows `server_will_stop` as the SDK does.
fn watch(socket: String, end: Arc<AtomicBool>) -> JoinHandle<Result<Watched>> {
    tokio::spawn(async move {
        let mut watched = Watched::default();
        let mut viewer = LightViewer::play(&socket, STREAM).await.context("at first")?;
        viewer.wait_video(10, MEDIA).await?;
        while !end.load(Ordering::Relaxed) {
            let told = viewer.socket()?.definition("server_will_stop", Duration::from_millis(200)).await;
            if told.is_err() {
                ensure!(!viewer.counts.is_closed(), "closed without a word");
                continue;
            }
            watched.note(&viewer).context("until it was told to go")?;
            let last = last_packet(&viewer);
            drop(viewer);
            tokio::time::sleep(SDK_WAIT).await;
            viewer = LightViewer::play(&socket, STREAM).await.context("on another edge")?;
            viewer.wait_video(1, MEDIA).await?;
            watched.moves.push(last.elapsed());
        }
        watched.note(&viewer)?;
        Ok(watched)
    })
}

/// Viewers that come through the balancer now.
fn come(balancer: &Balancer, count: usize, end: &Arc<AtomicBool>) -> Vec<JoinHandle<Result<Watched>>> {
    (0..count).map(|_| watch(balancer.to_edges(), Arc::clone(end))).collect()
}

async fn all(viewers: Vec<JoinHandle<Result<Watched>>>) -> Result<Vec<Watched>> {
    try_join_all(viewers).await?.into_iter().collect()
}

#[test]
fn an_edge_of_three_leaves_and_its_viewers_alone_move() {
    patient_case(Duration::from_secs(90), async {
        let mut cluster = Cluster::start(ClusterOptions::new(162, 3)).await?;
        let edges: Vec<SocketAddr> = cluster.edges.iter().map(|edge| edge.http).collect();
        let balancer = Balancer::start(&[cluster.origin.http], &edges).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), STREAM).await?;
        let end = Arc::new(AtomicBool::new(false));
        let viewers = come(&balancer, many(), &end);
        for edge in &cluster.edges {
            edge.wait_metric("ams_viewers", MEDIA, |n| n >= (many() / 3) as f64).await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let there = cluster.edge(0)?.metric("ams_viewers").await?;
        let status = cluster.edge_mut(0)?.terminate().await?;
        ensure!(status.code() == Some(0), "ended with {status}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.store(true, Ordering::Relaxed);
        let watched = all(viewers).await?;
        let (moved, stayed): (Vec<_>, Vec<_>) = watched.iter().partition(|w| !w.moves.is_empty());
        let mut moves: Vec<Duration> = moved.iter().flat_map(|w| w.moves.iter().copied()).collect();
        moves.sort();
        let longest = moves.last().context("nobody had to move")?;
        let median = moves[moves.len() / 2];
        let gap = stayed.iter().map(|w| w.longest_gap).max().unwrap_or_default();
        say(&format!(
            "one edge of three left: {} viewers moved, {median:?} without a packet (median), {longest:?} at most; {} stayed, longest pause {gap:?}",
            moves.len(),
            stayed.len(),
        ));
        ensure!(moved.iter().all(|w| w.moves.len() == 1), "each moved once: {moved:?}");
        ensure!(moved.len() as f64 == there, "{} moved of {there} on that edge", moved.len());
        ensure!(*longest < INTERRUPTION_MAX, "{longest:?}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_edge_that_joins_gets_new_viewers_and_disturbs_nobody() {
    patient_case(Duration::from_secs(90), async {
        let cluster = Cluster::start(ClusterOptions::new(163, 2)).await?;
        // The balancer knows its address already and finds nobody there.
        let options = cluster.node("edge", 14);
        let at = SocketAddr::from((options.ip, free_port(options.ip)?));
        let relay = SocketAddr::from((options.ip, free_port(options.ip)?));
        let edges = [cluster.edges[0].http, cluster.edges[1].http, at];
        let balancer = Balancer::start(&[cluster.origin.http], &edges).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), STREAM).await?;
        let end = Arc::new(AtomicBool::new(false));
        let first = come(&balancer, many(), &end);
        let viewers = || async {
            let counts = try_join_all(cluster.edges.iter().map(|edge| edge.metric("ams_viewers"))).await.ok()?;
            (counts.iter().sum::<f64>() == many() as f64).then_some(())
        };
        ams_testkit::eventually("all watch", MEDIA, viewers).await?;
        // Health checks have seen by then that nobody is there.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let third = NodeProcess::start_at(options, at, relay).await?;
        // And now that somebody is.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let joined = Instant::now();
        let second = come(&balancer, many(), &end);
        third.wait_metric("ams_viewers", SOON, |n| n >= (many() / 3) as f64).await?;
        say(&format!("the edge that joined had its share {} ms after new viewers came", joined.elapsed().as_millis()));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let taken = third.metric("ams_viewers").await?;
        end.store(true, Ordering::Relaxed);
        let (first, second) = (all(first).await?, all(second).await?);
        let gap = first.iter().map(|w| w.longest_gap).max().unwrap_or_default();
        say(&format!(
            "those who watched: longest pause {gap:?}; {taken} of {} new ones on the edge that joined",
            many()
        ));
        ensure!(taken * 3.0 >= many() as f64, "{taken} of {} came to the third edge", many());
        ensure!(first.iter().chain(&second).all(|w| w.moves.is_empty()), "nobody had to move");
        drop(third);
        cluster.end().await;
        Ok(())
    });
}
