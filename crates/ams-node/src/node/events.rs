//! What shards report, and what the node makes of it.
//!
//! Owns the ends of sessions and streams: however one ends, it ends here, once.

use std::sync::Arc;
use std::time::Duration;

use ams_api::port::{EndReason, SessionEvent, SessionId};
use ams_registry::ReleaseReason;
use ams_relay::wire;
use ams_rtc::transport::CloseReason;
use ams_types::StreamKey;
use tokio::sync::{MutexGuard, mpsc, watch};
use tracing::{debug, info};

use super::NodeCore;
use super::directory::Role;
use crate::clock;
use crate::shard::protocol::{PeerId, ShardCommand, ShardEvent};

/// Time between a publisher's goodbye on its transport and its word on its socket.
const LAST_WORDS: Duration = Duration::from_millis(700);

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
                ShardEvent::FindRequested { link, nonce, key } => self.find_requested(link, nonce, &key).await,
                ShardEvent::Audience { link, key, viewers } => {
                    let mut directory = self.directory();
                    if let Some(told) = directory.streams.get_mut(&key).and_then(|s| s.served.get_mut(&link)) {
                        *told = viewers;
                    }
                }
                ShardEvent::ServeRequested { link, handle, key } => self.serve_requested(link, handle, key).await,
                ShardEvent::ServeEnded { link, key } => self.serve_ended(link, &key).await,
                ShardEvent::Pulled { link, key, epoch, tracks } => self.pulled(key, link, epoch, tracks).await,
                ShardEvent::PullEnded { link, key, end, sentence } => self.pull_ended(&key, link, end, &sentence).await,
                ShardEvent::ViewerUnfit { peer } => {
                    let node = Arc::clone(&self);
                    self.tasks.spawn(async move { node.viewer_unfit(peer).await });
                }
                ShardEvent::OriginLeaves { link, remote, left } => self.origin_leaves(link, remote, left),
                ShardEvent::LinkDown { link, side, remote, sentence } => {
                    self.link_down(link, side, remote, &sentence).await;
                }
                ShardEvent::ViewerReport { peer, rates, resized } => self.viewer_report(peer, rates, resized),
                ShardEvent::StreamReport { key, layers } => {
                    if let Some(stream) = self.directory().streams.get_mut(&key) {
                        stream.report(clock::now(), layers);
                    }
                }
            }
        }
    }

    pub(super) async fn peer_closed(self: &Arc<Self>, peer: PeerId, reason: &CloseReason) {
        let session = self.directory().peers.get(&peer).cloned();
        let Some(session) = session else { return };
        if *reason == CloseReason::ClosedByPeer && self.note_left(&session) {
            // Clients close their connection before they say stop: what they say decides.
            tokio::select! {
                () = tokio::time::sleep(LAST_WORDS) => {}
                () = self.cancel.cancelled() => {}
            }
        }
        let sentence = reason.to_string();
        let started = self.directory().sessions.get(&session).is_some_and(|s| match &s.role {
            Role::Publisher(publication) => publication.live,
            Role::Viewer { .. } => s.started,
        });
        let end = match reason {
            CloseReason::ClosedByPeer => EndReason::Gone,
            _ if !started => EndReason::Timeout(sentence),
            _ => EndReason::TransportLost(sentence),
        };
        self.finish_session(&session, end, false).await;
    }

    /// Notes that a session's transport was closed by its client. Returns whether it publishes.
    fn note_left(&self, session: &SessionId) -> bool {
        let mut directory = self.directory();
        let Some(entry) = directory.sessions.get_mut(session) else { return false };
        entry.left = true;
        matches!(entry.role, Role::Publisher(_))
    }

    async fn viewer_unfit(self: &Arc<Self>, peer: PeerId) {
        let session = self.directory().peers.get(&peer).cloned();
        if let Some(session) = session {
            debug!(session = %session.0, "a viewer cannot decode what its stream has become");
            self.end_session(&session, EndReason::StreamEnded).await;
        }
    }

    /// Ends a session: its transport, and if it publishes its stream. Returns whether there was one.
    pub(super) async fn end_session(self: &Arc<Self>, session: &SessionId, reason: EndReason) -> bool {
        self.finish_session(session, reason, true).await
    }

    async fn finish_session(self: &Arc<Self>, session: &SessionId, reason: EndReason, close_peer: bool) -> bool {
        let order = self.in_order().await;
        let reason = if reason == EndReason::ByRequest && self.is_retrying(session) { EndReason::Gone } else { reason };
        let Some(removed) = self.directory().remove_session(clock::now(), session) else { return false };
        let ended = removed.session;
        debug!(stream_id = %ended.key, session = %session.0, ?reason, "session ended");
        self.leave(&ended);
        if close_peer && let Some(shard) = ended.shard {
            self.command(shard, ShardCommand::ClosePeer { peer: ended.peer }).await;
        }
        self.drop_replica(removed.idle_replica).await;
        let Role::Publisher(publication) = &ended.role else {
            ended.tell(SessionEvent::Ended(reason));
            return true;
        };
        let released = self.end_publication(&ended.key, session, &reason, &order).await;
        drop(order);
        let release = match &reason {
            // The claim is another's already.
            EndReason::TakenOver => None,
            EndReason::NodeStopping => Some(ReleaseReason::TerminatedUnexpectedly),
            _ => Some(ReleaseReason::Finished),
        };
        self.note_ended(publication, &reason);
        if let Some(release) = release.filter(|_| publication.recorded) {
            self.release(publication.lease.clone(), release).await;
        }
        self.directory().released(&ended.key, released);
        ended.tell(SessionEvent::Ended(reason));
        true
    }

    /// Whether a publisher that stops is one whose media does not get here: the SDK then stops and publishes anew, and nobody
    /// is to lose the stream over it.
    fn is_retrying(&self, session: &SessionId) -> bool {
        let directory = self.directory();
        let stream = directory.sessions.get(session).and_then(|s| directory.streams.get(&s.key));
        stream.filter(|s| s.is_published_by(session)).is_some_and(|s| !s.is_playable() || s.is_silent(clock::now()))
    }

    /// A publisher is gone: its viewers and edges are told, or wait for it. What is returned is to be handed to
    /// [`super::directory::Directory::released`] once the claim is given back.
    async fn end_publication(
        &self,
        key: &StreamKey,
        session: &SessionId,
        reason: &EndReason,
        order: &MutexGuard<'_, ()>,
    ) -> watch::Sender<()> {
        let (ours, releasing) = {
            let mut directory = self.directory();
            let ours = directory.streams.get(key).is_some_and(|s| s.is_published_by(session));
            (ours, directory.releasing(key))
        };
        if ours {
            info!(stream_id = %key, ?reason, "publication ended");
            match reason {
                EndReason::Gone | EndReason::Timeout(_) | EndReason::TransportLost(_) => {
                    self.directory().lost.insert(key.clone(), clock::now());
                    self.lose(key, true, wire::EndReason::PublisherLost, order).await;
                }
                EndReason::TakenOver => self.lose(key, true, wire::EndReason::Superseded, order).await,
                EndReason::NodeStopping => {
                    self.end_stream(key, &EndReason::NodeStopping, wire::EndReason::Draining, order).await;
                }
                EndReason::ByServer(_) => {
                    self.end_stream(key, &EndReason::StreamEnded, wire::EndReason::ByRequest, order).await;
                }
                EndReason::ByRequest | EndReason::StreamEnded => {
                    self.end_stream(key, &EndReason::StreamEnded, wire::EndReason::Finished, order).await;
                }
            }
        }
        releasing
    }
}
