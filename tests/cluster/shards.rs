//! Several media threads: viewers on every one of them get the same, at the origin and at an edge.

use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::sdp::NodeSdp;
use anyhow::ensure;
use futures_util::future::try_join_all;

use super::{PROMPTLY, SOON, all_intact, all_told_within};

#[test]
fn viewers_on_both_shards_get_intact_media() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(70, 1).args(&["--shards", "2"])).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "sharded").await?;
        let sockets = [cluster.origin.socket(), cluster.edge(0)?.socket()];
        // All at once: each goes where the fewest are, those on the way counted.
        let mut viewers = try_join_all((0..8).map(|n| LightViewer::play(&sockets[n % 2], "sharded"))).await?;
        for place in 0..2 {
            let mut ports = Vec::new();
            for viewer in viewers.iter().skip(place).step_by(2) {
                ports.push(NodeSdp::parse(&viewer.description)?.candidate()?.port());
            }
            ports.sort_unstable();
            ports.dedup();
            ensure!(ports.len() == 2, "four viewers are on both shards' ports: {ports:?}");
        }
        all_intact(&viewers, 90).await?;
        for node in [&cluster.origin, cluster.edge(0)?] {
            ensure!(node.metric("ams_media_ring_drops_total").await? == 0.0, "nothing was lost between shards");
        }
        ensure!(cluster.origin.metric("ams_relay_streams_served").await? == 1.0, "one subscription for both shards");
        let stopped = std::time::Instant::now();
        publisher.socket()?.stop("sharded").await?;
        all_told_within(&mut viewers, stopped, PROMPTLY).await?;
        for node in [&cluster.origin, cluster.edge(0)?] {
            node.wait_metric("ams_streams", SOON, |n| n == 0.0).await?;
            node.wait_metric("ams_media_addresses", SOON, |n| n == 0.0).await?;
        }
        cluster.end().await;
        Ok(())
    });
}
