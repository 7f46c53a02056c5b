//! What strangers send, at every door of a running node: each is refused clearly, and costs the others nothing.
//!
//! Owns the hostile input. Judged three ways: by what the stranger is answered, by a stream that runs through the same
//! node all the while and must not lose a packet, and by the node's memory and descriptors afterwards.

mod door;
mod http;
mod raw_socket;
mod relay;
mod sdp;
mod udp;
mod websocket;

use std::time::Duration;

use ams_testkit::eventually;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::{Context, Result, ensure};

/// Longest wait for an answer.
const SOON: Duration = Duration::from_secs(5);
/// Memory a case may cost the node for good, in kB: allocators keep some, a leak per message would be more.
const GROWTH_KB_MAX: u64 = 24 * 1024;

/// A node with a stream running through it, which nothing may disturb.
struct Witness {
    node: NodeProcess,
    publisher: LightPublisher,
    viewer: LightViewer,
    rss_kb: u64,
    descriptors: usize,
}

impl Witness {
    /// A standalone node without a database, at 127.1.NET.1.
    async fn start(net: u8, args: &[&str]) -> Result<Self> {
        let options =
            NodeOptions { registry: Some("memory".into()), ..NodeOptions::new("standalone", [127, 1, net, 1]) };
        Self::on(options.args(args)).await
    }

    async fn on(options: NodeOptions) -> Result<Self> {
        let node = NodeProcess::start(options).await?;
        let publisher = LightPublisher::publish(&node.socket(), "witness").await?;
        let viewer = LightViewer::play(&node.socket(), "witness").await?;
        viewer.wait_video(60, SOON).await?;
        let (rss_kb, descriptors) = (node.rss_kb().context("memory")?, node.descriptors());
        Ok(Self { node, publisher, viewer, rss_kb, descriptors })
    }

    /// Checks that the node lives and that the stream has lost nothing, up to now and a little further.
    async fn undisturbed(&mut self, what: &str) -> Result<()> {
        ensure!(self.node.is_running(), "{what}: the node ended: {}", self.node.log());
        self.viewer.wait_video(6, SOON).await.with_context(|| what.to_owned())?;
        self.viewer.counts.intact().with_context(|| what.to_owned())?;
        ensure!(!self.viewer.counts.is_closed(), "{what}: the viewer was closed");
        Ok(())
    }

    /// Checks what is left after the last stranger has gone.
    async fn unburdened(mut self, what: &str) -> Result<()> {
        self.undisturbed(what).await?;
        let log = self.node.log();
        ensure!(!log.contains("panicked"), "{what}: {log}");
        eventually("the strangers' descriptors are closed", Duration::from_secs(10), || async {
            (self.node.descriptors() <= self.descriptors + 2).then_some(())
        })
        .await
        .with_context(|| format!("{what}: {} descriptors, {} before", self.node.descriptors(), self.descriptors))?;
        let sessions = self.node.metric("ams_sessions").await?;
        ensure!(sessions == 2.0, "{what}: {sessions} sessions are left, not the witness's two");
        let now = self.node.rss_kb().context("memory")?;
        ensure!(now <= self.rss_kb + GROWTH_KB_MAX, "{what}: {now} kB resident, {} before", self.rss_kb);
        drop((self.publisher, self.viewer));
        Ok(())
    }
}
