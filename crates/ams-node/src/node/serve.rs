//! A stream going out to edges: what they ask for, and where it is fed from.
//!
//! Owns the answer to a subscription. Only what is published here is served: streams pulled from elsewhere would make
//! chains, and chains could be loops.

use std::sync::atomic::Ordering;

use ams_relay::wire::EndReason;
use ams_types::StreamKey;
use tracing::{debug, info};

use super::NodeCore;
use super::directory::{IdleReplica, Origin};
use crate::clock;
use crate::shard::protocol::{LinkId, ShardCommand};

impl NodeCore {
    /// An edge asks for a stream.
    pub(super) async fn serve_requested(&self, link: LinkId, handle: u32, key: StreamKey) {
        let _order = self.in_order().await;
        let Some(shard) = self.link_shard(link) else { return };
        let published = self
            .directory()
            .streams
            .get(&key)
            .is_some_and(|s| s.is_playable() && matches!(s.origin, Origin::Published { .. }));
        if self.leaving.load(Ordering::Relaxed) || !published || !self.ensure_on_shard(&key, shard).await {
            debug!(stream_id = %key, ?link, "edge asked for a stream that is not here");
            let sentence = format!("{key} is not published on this node");
            self.command(shard, ShardCommand::RefuseServe { link, handle, sentence }).await;
            return;
        }
        if let Some(stream) = self.directory().streams.get_mut(&key) {
            stream.served.insert(link, 0);
            stream.idle_since = None;
        }
        info!(stream_id = %key, ?link, "stream is pulled by an edge");
        self.command(shard, ShardCommand::Serve { link, handle, key }).await;
    }

    /// An edge let a stream go.
    pub(super) async fn serve_ended(&self, link: LinkId, key: &StreamKey) {
        let _order = self.in_order().await;
        let idle = self.directory().unserve(clock::now(), link, key);
        debug!(stream_id = %key, ?link, "edge let a stream go");
        self.drop_replica(idle).await;
    }

    /// Takes a replica that nothing needs off its shard. In order.
    pub(super) async fn drop_replica(&self, idle: Option<IdleReplica>) {
        if let Some(IdleReplica { key, home, replica }) = idle {
            self.command(home, ShardCommand::StopReplica { key: key.clone(), to: replica }).await;
            self.command(replica, ShardCommand::CloseStream { key, reason: EndReason::Finished }).await;
        }
    }
}
