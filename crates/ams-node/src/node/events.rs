//! What shards report, and what the node makes of it.
//!
//! Owns the ends of sessions and streams: however one ends, it ends here, once.

use std::sync::Arc;
use std::time::Instant;

use ams_api::port::{EndReason, SessionEvent, SessionId};
use ams_registry::ReleaseReason;
use ams_rtc::transport::CloseReason;
use ams_types::StreamKey;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use super::NodeCore;
use super::directory::{Origin, Role};
use crate::shard::protocol::{PeerId, ShardCommand, ShardEvent};

impl NodeCore {
    /// Handles what shards report until they are gone.
    pub(super) async fn hear_shards(self: Arc<Self>, mut events: mpsc::Receiver<ShardEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                ShardEvent::ViewerConnected { peer } => self.viewer_connected(peer),
                // Talks to the registry: must not hold up the others.
                ShardEvent::PublisherLive { peer, layers } => {
                    let node = Arc::clone(&self);
                    self.tasks.spawn(async move { node.publisher_live(peer, layers).await });
                }
                ShardEvent::PeerClosed { peer, reason } => {
                    let node = Arc::clone(&self);
                    self.tasks.spawn(async move { node.peer_closed(peer, &reason).await });
                }
                ShardEvent::ServeRequested { link, handle, key } => self.serve_requested(link, handle, key).await,
                ShardEvent::ServeEnded { link, key } => self.serve_ended(link, &key).await,
                ShardEvent::Pulled { link, key, epoch, tracks } => self.pulled(key, link, epoch, tracks).await,
                ShardEvent::PullEnded { link, key, sentence } => self.pull_ended(&key, link, &sentence).await,
                ShardEvent::LinkDown { link, side, remote, sentence } => {
                    self.link_down(link, side, remote, &sentence).await;
                }
                ShardEvent::ViewerReport { peer, rates, resized } => self.viewer_report(peer, rates, resized),
                ShardEvent::StreamReport { key, layers } => {
                    if let Some(stream) = self.directory().streams.get_mut(&key) {
                        stream.layers = layers;
                    }
                }
            }
        }
    }

    pub(super) async fn peer_closed(self: &Arc<Self>, peer: PeerId, reason: &CloseReason) {
        let session = self.directory().peers.get(&peer).cloned();
        let Some(session) = session else { return };
        let sentence = reason.to_string();
        let started = self.directory().sessions.get(&session).is_some_and(|s| match &s.role {
            Role::Publisher { live, .. } => *live,
            Role::Viewer { .. } => s.started,
        });
        let end = match reason {
            CloseReason::ClosedByPeer => EndReason::ByRequest,
            _ if !started => EndReason::Timeout(sentence),
            _ => EndReason::TransportLost(sentence),
        };
        self.finish_session(&session, end, false).await;
    }

    /// Ends a session: its transport, and if it publishes its stream. Returns whether there was one.
    pub(super) async fn end_session(self: &Arc<Self>, session: &SessionId, reason: EndReason) -> bool {
        self.finish_session(session, reason, true).await
    }

    async fn finish_session(self: &Arc<Self>, session: &SessionId, reason: EndReason, close_peer: bool) -> bool {
        let order = self.in_order().await;
        let Some(removed) = self.directory().remove_session(Instant::now(), session) else { return false };
        let ended = removed.session;
        debug!(stream_id = %ended.key, session = %session.0, ?reason, "session ended");
        if close_peer && let Some(shard) = ended.shard {
            self.command(shard, ShardCommand::ClosePeer { peer: ended.peer }).await;
        }
        self.drop_replica(removed.idle_replica).await;
        let Role::Publisher { lease, .. } = &ended.role else {
            ended.tell(SessionEvent::Ended(reason));
            return true;
        };
        let released = self.end_publication(&ended.key, session, &reason).await;
        drop(order);
        let release = match reason {
            // The claim is another's already.
            EndReason::TakenOver => None,
            EndReason::NodeStopping => Some(ReleaseReason::TerminatedUnexpectedly),
            _ => Some(ReleaseReason::Finished),
        };
        if let Some(release) = release {
            self.release(lease, release).await;
        }
        self.directory().released(&ended.key, released);
        ended.tell(SessionEvent::Ended(reason));
        true
    }

    /// A publisher is gone: its viewers and edges are told. What is returned is to be handed to
    /// [`super::directory::Directory::released`] once the claim is given back.
    async fn end_publication(&self, key: &StreamKey, session: &SessionId, reason: &EndReason) -> watch::Sender<()> {
        let told = match reason {
            EndReason::NodeStopping => EndReason::NodeStopping,
            _ => EndReason::StreamEnded,
        };
        let (stream, releasing) = {
            let mut directory = self.directory();
            let ours = directory
                .streams
                .get(key)
                .is_some_and(|s| matches!(&s.origin, Origin::Published { session: s, .. } if s == session));
            let stream = if ours { directory.remove_stream(Instant::now(), key, &told) } else { None };
            (stream, directory.releasing(key))
        };
        if let Some(stream) = stream {
            info!(stream_id = %key, ?reason, "stream ended");
            self.close_on_shards(key, &stream).await;
        }
        releasing
    }
}
