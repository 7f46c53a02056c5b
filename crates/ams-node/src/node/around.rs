//! Asking other nodes what they publish, past the registry.
//!
//! Owns the list of nodes last seen in the registry and one question over a short link of its own. Used when the registry
//! is away, behind, or names a node that may be dead. Never changes anything at the node that is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_registry::{ClusterNodeRecord, OriginAddress};
use ams_relay::wire::{Find, Found, Frame};
use ams_relay::{PeerInfo, RelayError, dial};
use ams_signal::{RateLimit, TokenBucket};
use ams_types::{NodeId, StreamKey};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout_at;
use tracing::debug;

use super::NodeCore;
use super::directory::Origin;
use crate::shard::protocol::{LinkId, ShardCommand};

/// Longest wait for one node's answer; a publisher or a viewer is waiting.
const ASK_TIMEOUT: Duration = Duration::from_millis(700);
/// After it was away the registry is not relied upon for this long: other nodes may hear of it later.
const BEHIND_FOR: Duration = Duration::from_secs(15);
/// Streams unknown to the registry that are asked around for without another reason.
const DOUBTS: RateLimit = RateLimit { per_second: 20.0, burst: 20.0 };
/// Nodes asked side by side.
const ASKED_AT_ONCE: usize = 32;
/// Streams asked for in one go.
const KEYS_MAX: usize = 1000;

/// A node that may hold streams, as the registry last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownNode {
    pub(super) id: NodeId,
    pub(super) host: String,
    pub(super) relay_port: u16,
}

/// Nodes that may hold streams. What the registry said last holds while it is away.
#[derive(Debug, Default)]
pub(super) struct KnownNodes {
    nodes: Mutex<Vec<KnownNode>>,
    /// When each row was last written, as last seen.
    seen: Mutex<HashMap<String, i64>>,
    /// A node has missed a heartbeat: it may hold what the registry does not know.
    one_is_late: AtomicBool,
    /// Doubts of the registry that may still be looked into.
    doubts: Mutex<Option<TokenBucket>>,
}

impl KnownNodes {
    /// Takes over what the registry says now.
    pub(super) fn learn(&self, own: &NodeId, rows: &[ClusterNodeRecord], now_ms: i64) {
        let known = |row: &ClusterNodeRecord| {
            let relay_port = u16::try_from(row.relay_port).ok().filter(|port| *port > 0)?;
            let id = row.node_id().filter(|id| id != own)?;
            let host = row.ip.clone()?;
            (row.is_fresh(now_ms) && host.len() < 256).then_some(KnownNode { id, host, relay_port })
        };
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = rows.iter().filter_map(known).collect();
        // Compared with what was seen one heartbeat ago: no clock but this node's.
        let written = rows.iter().filter(|row| row.is_fresh(now_ms)).map(|row| (row.id.clone(), row.last_update_time));
        let written: HashMap<_, _> = written.collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = written.iter().any(|(id, at)| id.as_str() != own.as_str() && seen.get(id) == Some(at));
        self.one_is_late.store(is_late, Ordering::Relaxed);
        *seen = written;
    }

    fn all(&self) -> Vec<KnownNode> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one node answered.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    /// Who it is now.
    pub(super) peer: PeerInfo,
    /// Per stream; none where it did not say, as nodes of an earlier version do not.
    pub(super) found: Vec<Option<Found>>,
}

/// What all nodes together answered.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Nodes that answered.
    pub(super) answered: usize,
    /// Who holds what: where, and what was said of it. Of several the newest publication.
    pub(super) holders: HashMap<StreamKey, (OriginAddress, Found)>,
}

impl NodeCore {
    /// Whether nodes may publish what the registry does not know: it has just come back, or is away for one of them.
    pub(super) fn is_registry_behind(&self) -> bool {
        let back_at = *self.registry_back_at.lock().unwrap_or_else(PoisonError::into_inner);
        let just_back = back_at.is_some_and(|at| at.elapsed() < BEHIND_FOR);
        just_back || self.known_nodes.one_is_late.load(Ordering::Relaxed)
    }

    /// Whether to ask around for a stream that the registry does not know: always while it may be behind, and otherwise as
    /// often as costs little. A node whose registry was away for a moment holds what is not written down.
    pub(super) fn may_doubt(&self, now: Instant) -> bool {
        if self.is_registry_behind() {
            return true;
        }
        let mut doubts = self.known_nodes.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.get_or_insert_with(|| TokenBucket::new(DOUBTS, now)).take(now).is_ok()
    }

    /// Asks at a relay address for some streams.
    pub(super) async fn ask(&self, host: &str, port: u16, keys: &[StreamKey]) -> Result<Answered, RelayError> {
        let deadline = Instant::now() + ASK_TIMEOUT;
        let late = || RelayError::HandshakeTimeout;
        let resolved = timeout_at(deadline.into(), tokio::net::lookup_host((host, port))).await.map_err(|_| late())?;
        let address = resolved?.next().ok_or_else(late)?;
        let (peer, mut reader, writer) = {
            let connected = dial(address, &self.relay_identity, None, deadline).await?;
            let (read, write) = connected.stream.into_split();
            (connected.peer, ams_relay::LinkReader::new(read, connected.leftover), write)
        };
        let mut writer = writer;
        let mut questions = BytesMut::new();
        for (nonce, key) in (0u64..).zip(keys.iter().take(KEYS_MAX)) {
            Frame::Find(Find { nonce, key: key.clone() }).encode_into(&mut questions)?;
        }
        let mut found = vec![None; keys.len()];
        let mut left = keys.len().min(KEYS_MAX);
        let hear = async {
            writer.write_all(&questions).await?;
            while left > 0 {
                while let Some(frame) = reader.next_frame() {
                    if let Frame::Found(answer) = frame?
                        && let Some(place) = usize::try_from(answer.nonce).ok().and_then(|at| found.get_mut(at))
                        && place.replace(answer).is_none()
                    {
                        left -= 1;
                    }
                }
                if left > 0 {
                    reader.read_batch().await?;
                }
            }
            Ok::<_, RelayError>(())
        };
        // A node that answers nothing is there all the same.
        let heard = timeout_at(deadline.into(), hear).await;
        if let Ok(Err(error)) = heard {
            debug!(%address, %error, "a node that was asked hung up");
        }
        Ok(Answered { peer, found })
    }

    /// Asks every node that is known for some streams.
    pub(super) async fn ask_around(self: &Arc<Self>, keys: &[StreamKey]) -> Around {
        let mut around = Around::default();
        let answers = futures_util::stream::iter(self.known_nodes.all()).map(|node| async move {
            let answered = self.ask(&node.host, node.relay_port, keys).await;
            (node, answered)
        });
        let mut answers = std::pin::pin!(answers.buffer_unordered(ASKED_AT_ONCE));
        while let Some((node, answered)) = answers.next().await {
            let Ok(answered) = answered else { continue };
            around.answered += 1;
            for (key, found) in keys.iter().zip(answered.found) {
                let Some(found) = found.filter(|found| found.held) else { continue };
                let is_newer =
                    |(_, known): &(OriginAddress, Found)| (known.live, known.epoch) < (found.live, found.epoch);
                if around.holders.get(key).is_none_or(is_newer) {
                    let origin = OriginAddress { host: node.host.clone(), port: Some(node.relay_port) };
                    around.holders.insert(key.clone(), (origin, found));
                }
            }
        }
        around
    }

    /// Another node asks.
    pub(super) async fn find_requested(&self, link: LinkId, nonce: u64, key: &StreamKey) {
        let found = {
            let directory = self.directory();
            let stream = directory.streams.get(key);
            let published = stream.and_then(|stream| match &stream.origin {
                Origin::Published { live, .. } => Some((stream, *live)),
                _ => None,
            });
            match published {
                Some((stream, live)) => {
                    let silent = Instant::now().saturating_duration_since(stream.heard.1).as_millis();
                    let silent_ms = u32::try_from(silent).unwrap_or(u32::MAX);
                    Found { nonce, held: true, live, epoch: stream.epoch, silent_ms: if live { silent_ms } else { 0 } }
                }
                None => {
                    let held = directory.claiming.contains(key);
                    Found { nonce, held, live: false, epoch: ams_types::Epoch(0), silent_ms: 0 }
                }
            }
        };
        if let Some(shard) = self.link_shard(link) {
            self.command(shard, ShardCommand::AnswerFind { link, found }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_that_name_a_living_relay_are_nodes_to_ask() {
        let row = |id: &str, host: Option<&str>, relay_port, age: i64| ClusterNodeRecord {
            id: id.into(),
            ip: host.map(str::to_owned),
            relay_port,
            last_update_time: 1_000_000 - age,
            ..ClusterNodeRecord::default()
        };
        let rows = [
            row("a", Some("10.0.0.1"), 5000, 0),
            row("own", Some("10.0.0.2"), 5000, 0),
            row("edge", Some("10.0.0.3"), 0, 0),
            row("nowhere", None, 5000, 0),
            row("dead", Some("10.0.0.4"), 5000, 20_001),
            row("", Some("10.0.0.5"), 5000, 0),
            row("nonsense", Some("10.0.0.6"), 99_999, 0),
            row("b", Some("10.0.0.7"), 5001, 4_000),
        ];
        let known = KnownNodes::default();
        known.learn(&"own".parse().unwrap(), &rows, 1_000_000);
        let hosts: Vec<_> = known.all().into_iter().map(|node| (node.host, node.relay_port)).collect();
        assert_eq!(hosts, [("10.0.0.1".to_owned(), 5000), ("10.0.0.7".to_owned(), 5001)]);
    }
}
