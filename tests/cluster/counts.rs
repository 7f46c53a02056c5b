//! How many watch: over all nodes, whatever dies.

use std::time::{Duration, Instant};

use ams_testkit::APP;
use ams_testkit::case::{case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use super::{MEDIA, SOON};

/// From a crash to the right number, as the issue promises.
const EXACT_WITHIN: Duration = Duration::from_secs(2);
/// Viewers of each edge; `AMS_TEST_VIEWERS` sets another number.
fn viewers_per_edge() -> usize {
    std::env::var("AMS_TEST_VIEWERS").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

/// Waits until the stream's record says so many viewers.
async fn counted(cluster: &Cluster, stream: &str, viewers: i32, limit: Duration) -> Result<()> {
    let (mut last, begun) = (None, Instant::now());
    while last != Some(viewers) && begun.elapsed() < limit {
        let record = cluster.databases.broadcast(APP, stream).await?;
        last = record.and_then(|record| record.get_i32("webRTCViewerCount").ok());
        ensure!(last.is_none_or(|n| n >= 0), "{last:?} viewers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(last == Some(viewers), "{last:?} viewers instead of {viewers}");
    Ok(())
}

#[test]
fn viewers_are_counted_over_all_nodes_and_dead_ones_are_not() {
    case(async {
        let mut cluster = Cluster::start(ClusterOptions::new(130, 2)).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "counted").await?;
        let sockets = [cluster.edge(0)?.socket(), cluster.edge(1)?.socket(), cluster.origin.socket()];
        let many = viewers_per_edge();
        let join = |socket: usize, count: usize| {
            let socket = &sockets[socket];
            try_join_all((0..count).map(move |_| LightViewer::play(socket, "counted")))
        };
        let mut first = join(0, many).await?;
        let second = join(1, many).await?;
        let at_origin = join(2, 3).await?;
        counted(&cluster, "counted", 2 * many as i32 + 3, EXACT_WITHIN).await.context("all")?;
        first.truncate(many - 7);
        counted(&cluster, "counted", 2 * many as i32 + 3 - 7, SOON).await.context("seven left")?;
        drop(at_origin);
        counted(&cluster, "counted", 2 * many as i32 - 7, SOON).await.context("those at the origin left")?;

        let killed = Instant::now();
        cluster.edge_mut(1)?.kill()?;
        counted(&cluster, "counted", many as i32 - 7, EXACT_WITHIN).await.context("an edge was killed")?;
        say(&format!("the count was right {} ms after an edge was killed", killed.elapsed().as_millis()));
        drop(second);
        cluster.edge_mut(1)?.restart().await?;
        let again = try_join_all((0..5).map(|_| LightViewer::play(&sockets[1], "counted"))).await?;
        counted(&cluster, "counted", many as i32 - 7 + 5, EXACT_WITHIN).await.context("the edge is back")?;
        super::all_intact(&again, 30).await?;

        // The origin dies and comes back: who still watches is counted anew.
        cluster.origin.kill()?;
        cluster.origin.restart().await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "counted").await?;
        try_join_all(first.iter().chain(&again).map(|viewer| viewer.wait_takeovers(1, MEDIA))).await?;
        counted(&cluster, "counted", many as i32 - 7 + 5, EXACT_WITHIN).await.context("the origin is back")?;
        drop((first, again));
        counted(&cluster, "counted", 0, SOON).await.context("all left")?;
        cluster.end().await;
        Ok(())
    });
}
