//! What is left in nodes that survive: of killing and restarting a viewer, a publisher, an edge and an origin, over and over
//! (here), and of hours of random faults ([`unrest`]).
//!
//!     tests/env/with-mongo cargo test --workspace --test soak -- kill_and_restart --nocapture
//!
//! `AMS_SOAK_CYCLES` is how many, 200 by default. Prints memory and descriptors as it goes.

mod unrest;

use std::time::{Duration, Instant};

use ams_testkit::case::{long_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{Control, LightPublisher, LightViewer};
use ams_testkit::mongo::bson::doc;
use ams_testkit::node::NodeProcess;
use ams_testkit::{APP, eventually};
use anyhow::{Context, Result, ensure};

/// Longest wait for a step.
const SOON: Duration = Duration::from_secs(10);
/// Longest wait until nothing is left of a peer that vanished.
const NOTICED: Duration = Duration::from_secs(15);
/// A cycle that takes longer hangs.
const CYCLE_MAX: Duration = Duration::from_secs(60);
/// Memory may grow by this much after the warm-up, in kB: allocators breathe, leaks do not stop.
const GROWTH_KB_MAX: u64 = 6 * 1024;
/// So many cycles tell a leak from breathing.
const CYCLES_THAT_TELL: u32 = 40;

#[test]
fn kill_and_restart() {
    let cycles: u32 = std::env::var("AMS_SOAK_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    long_case(CYCLE_MAX * (cycles + 2), soak(cycles));
}

/// What a surviving node takes.
#[derive(Clone, Copy, Debug)]
struct Burden {
    rss_kb: u64,
    descriptors: usize,
}

impl Burden {
    fn of(node: &NodeProcess) -> Result<Self> {
        Ok(Self { rss_kb: node.rss_kb().context("no memory figure")?, descriptors: node.descriptors() })
    }
}

async fn soak(cycles: u32) -> Result<()> {
    // The first edge and the cluster's own origin survive; the second edge and another origin die in every cycle.
    let mut cluster = Cluster::start(ClusterOptions::new(200, 2)).await?;
    let mut mortal_origin = NodeProcess::start(cluster.node("origin", 20)).await?;
    let steady = LightPublisher::publish(&cluster.origin.socket(), "steady").await?;
    let witness = LightViewer::play(&cluster.edge(0)?.socket(), "steady").await?;
    let warm_up = (cycles / 10).clamp(1, 20);
    let begun = Instant::now();
    let mut warm = None;
    for cycle in 0..cycles {
        one_cycle(&mut cluster, &mut mortal_origin, cycle).await.with_context(|| format!("cycle {cycle}"))?;
        witness.counts.intact().with_context(|| format!("the steady stream, cycle {cycle}"))?;
        if cycle % (cycles / 20).max(1) == 0 || cycle + 1 == cycles {
            let (origin, edge) = (Burden::of(&cluster.origin)?, Burden::of(cluster.edge(0)?)?);
            say(&format!(
                "cycle {cycle:>4}, {:>4} s: origin {:>6} kB {:>3} descriptors, edge {:>6} kB {:>3} descriptors",
                begun.elapsed().as_secs(),
                origin.rss_kb,
                origin.descriptors,
                edge.rss_kb,
                edge.descriptors
            ));
        }
        if cycle + 1 == warm_up {
            warm = Some((Burden::of(&cluster.origin)?, Burden::of(cluster.edge(0)?)?));
        }
    }

    // The steady stream is all that is left.
    for (node, publishers, viewers, served) in [(&cluster.origin, 1.0, 0.0, 1.0), (cluster.edge(0)?, 0.0, 1.0, 0.0)] {
        node.wait_metric("ams_publishers", NOTICED, |n| n == publishers).await?;
        node.wait_metric("ams_viewers", NOTICED, |n| n == viewers).await?;
        node.wait_metric("ams_streams", NOTICED, |n| n == 1.0).await?;
        node.wait_metric("ams_relay_streams_served", NOTICED, |n| n == served).await?;
        node.wait_metric("ams_sessions", NOTICED, |n| n == 1.0).await?;
        node.wait_metric("ams_media_addresses", NOTICED, |n| n == 1.0).await?;
        node.wait_metric("ams_waiting", NOTICED, |n| n == 0.0).await?;
    }
    let warm = warm.context("no warm-up")?;
    for (name, node, warm) in [("origin", &cluster.origin, warm.0), ("edge", cluster.edge(0)?, warm.1)] {
        let settled = eventually("descriptors are back", NOTICED, || async {
            Burden::of(node).ok().filter(|now| now.descriptors <= warm.descriptors + 4)
        })
        .await
        .with_context(|| format!("{name}: {:?} now, {warm:?} after the warm-up", Burden::of(node)))?;
        say(&format!("{name}: {settled:?} at the end, {warm:?} after {warm_up} cycles"));
        ensure!(
            cycles < CYCLES_THAT_TELL || settled.rss_kb <= warm.rss_kb + GROWTH_KB_MAX,
            "{name}: {settled:?} at the end, {warm:?} after {warm_up} cycles"
        );
    }
    witness.wait_video(60, SOON).await?;
    witness.counts.intact().context("the steady stream")?;
    let nodes = cluster.databases.nodes().await?;
    ensure!(nodes.len() == 4, "four nodes have four rows: {nodes:?}");

    drop((steady, witness));
    for node in [&cluster.origin, cluster.edge(0)?, cluster.edge(1)?, &mortal_origin] {
        for figure in ["ams_publishers", "ams_viewers", "ams_streams", "ams_sessions", "ams_media_addresses"] {
            node.wait_metric(figure, NOTICED, |n| n == 0.0).await?;
        }
    }
    for collection in ["broadcast", "StreamInfo"] {
        let left = cluster.databases.find(&APP.to_lowercase(), collection, doc! {}).await?;
        ensure!(left.is_empty(), "{collection} documents are left: {left:?}");
    }
    drop(mortal_origin);
    cluster.end().await;
    Ok(())
}

async fn one_cycle(cluster: &mut Cluster, mortal_origin: &mut NodeProcess, cycle: u32) -> Result<()> {
    let edge = cluster.edge(0)?.socket();

    // A viewer dies: without a word, by its process, by close_notify, each in turn.
    let viewer = LightViewer::play(&edge, "steady").await.context("a viewer")?;
    viewer.wait_video(5, SOON).await?;
    match cycle % 3 {
        0 => viewer.vanish(),
        1 => drop(viewer),
        _ => viewer.control(Control::Close),
    }

    // A publisher dies; its viewer goes on with the next, and hears when that one ends the stream.
    let publisher = LightPublisher::publish(&cluster.origin.socket(), "mortal").await.context("a publisher")?;
    let mut viewer = LightViewer::play(&edge, "mortal").await.context("its viewer")?;
    viewer.wait_video(5, SOON).await?;
    drop(publisher);
    let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "mortal").await.context("it comes back")?;
    viewer.wait_takeovers(1, SOON).await.context("the publisher came back")?;
    viewer.counts.intact().context("the publisher came back")?;
    publisher.socket()?.stop("mortal").await?;
    viewer.socket()?.definition("play_finished", SOON).await.context("the publisher stopped")?;
    drop((publisher, viewer));

    // An edge dies and comes again.
    let viewer =
        LightViewer::play(&cluster.edge(1)?.socket(), "steady").await.context("a viewer of the second edge")?;
    viewer.wait_video(5, SOON).await?;
    cluster.edge_mut(1)?.kill()?;
    drop(viewer);
    cluster.edge_mut(1)?.restart().await?;
    let viewer = LightViewer::play(&cluster.edge(1)?.socket(), "steady").await.context("after the edge's restart")?;
    viewer.wait_video(5, SOON).await?;
    viewer.counts.intact()?;
    drop(viewer);

    // An origin dies and comes again; its stream is published again at once.
    let publisher = LightPublisher::publish(&mortal_origin.socket(), "moved").await.context("the other origin")?;
    let viewer = LightViewer::play(&edge, "moved").await.context("a viewer of the other origin")?;
    viewer.wait_video(5, SOON).await?;
    mortal_origin.kill()?;
    drop(publisher);
    mortal_origin.restart().await?;
    let publisher =
        LightPublisher::publish(&mortal_origin.socket(), "moved").await.context("after the origin's restart")?;
    viewer.wait_takeovers(1, SOON).await.context("after the origin's restart")?;
    let newcomer = LightViewer::play(&edge, "moved").await.context("a viewer after the origin's restart")?;
    newcomer.wait_video(5, SOON).await?;
    newcomer.counts.intact()?;
    viewer.counts.intact()?;
    drop((publisher, viewer, newcomer));
    Ok(())
}
