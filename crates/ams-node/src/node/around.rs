//! Asking other nodes what they publish, past the registry.
//!
//! Owns the list of nodes last seen in the registry and one question over a short link of its own. Used when the registry
//! is away, behind, or names a node that may be dead. Never changes anything at the node that is asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_registry::{ClusterNodeRecord, OriginAddress};
use ams_relay::wire::{Find, Found, Frame};
use ams_relay::{LinkReader, PeerInfo, RelayError};
use ams_signal::{RateLimit, TokenBucket};
use ams_types::{AppName, Epoch, NodeId, StreamId, StreamKey};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout_at;
use tracing::debug;

use super::NodeCore;
use super::directory::Origin;
use crate::clock;
use crate::shard::protocol::{LinkId, ShardCommand};

/// Longest wait for one node's answer; a publisher or a viewer is waiting.
const ASK_TIMEOUT: Duration = Duration::from_millis(700);
/// Questions to all nodes that viewers may cause while the registry is away or behind.
const QUESTIONS: RateLimit = RateLimit { per_second: 50.0, burst: 200.0 };
/// A row that stands still for so long is late: it is written every 5 s, and read every 5 s.
const LATE_AFTER: Duration = Duration::from_secs(11);
/// And for so long, with a registry that answers, a dead node's.
const DEAD_AFTER: Duration = Duration::from_secs(30);
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
    pub(super) host: String,
    pub(super) relay_port: u16,
}

/// What is known of a node, by this node's own clock.
#[derive(Clone, Debug)]
struct Row {
    node: KnownNode,
    /// What it last wrote, and since when that has stood there.
    written: i64,
    since: Instant,
}

/// Nodes that may hold streams. What the registry said last holds while it is away.
#[derive(Debug, Default)]
pub(super) struct KnownNodes {
    rows: Mutex<HashMap<NodeId, Row>>,
    /// Doubts of the registry that may still be looked into, and questions while it is away.
    doubts: Mutex<Option<TokenBucket>>,
    questions: Mutex<Option<TokenBucket>>,
}

impl KnownNodes {
    /// Takes over what the registry says now. `settled`: it has answered for so long that a row that stands still is a dead
    /// node's.
    pub(super) fn learn(&self, now: Instant, own: &NodeId, rows: &[ClusterNodeRecord], settled: bool) {
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = HashMap::new();
        for row in rows {
            let relay_port = u16::try_from(row.relay_port).ok().filter(|port| *port > 0);
            let id = row.node_id().filter(|id| id != own);
            let host = row.ip.clone().filter(|host| host.len() < 256);
            let (Some(relay_port), Some(id), Some(host)) = (relay_port, id, host) else { continue };
            let written = row.last_update_time;
            let before = known.get(&id).filter(|before| before.written == written);
            let since = before.map_or(now, |before| before.since);
            if !settled || now.saturating_duration_since(since) < DEAD_AFTER {
                let node = KnownNode { host, relay_port };
                present.insert(id, Row { node, written, since });
            }
        }
        *known = present;
    }

    fn all(&self) -> Vec<KnownNode> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).values().map(|row| row.node.clone()).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A node has missed a heartbeat: it may hold what the registry does not know.
    fn one_is_late(&self, now: Instant) -> bool {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.values().any(|row| now.saturating_duration_since(row.since) > LATE_AFTER)
    }
}

/// Which streams are live.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// By the registry: it also knows where.
    pub(super) recorded: Vec<StreamKey>,
    /// By the nodes themselves: where, and which publication.
    pub(super) said: Vec<(StreamKey, OriginAddress, Epoch)>,
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
        back_at.is_some_and(|at| clock::now().saturating_duration_since(at) < BEHIND_FOR)
            || self.known_nodes.one_is_late(clock::now())
    }

    /// Takes over which nodes there are.
    pub(super) fn learn_nodes(&self, rows: &[ClusterNodeRecord]) {
        let back_at = *self.registry_back_at.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = back_at.is_none_or(|at| clock::now().saturating_duration_since(at) > DEAD_AFTER);
        self.known_nodes.learn(clock::now(), &self.id, rows, settled);
    }

    /// Whether to ask around for a stream that the registry does not know: always while it may be behind, and otherwise as
    /// often as costs little. A node whose registry was away for a moment holds what is not written down.
    pub(super) fn may_doubt(&self, now: Instant) -> bool {
        if self.is_registry_behind() {
            return self.may_ask(now);
        }
        let mut doubts = self.known_nodes.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.get_or_insert_with(|| TokenBucket::new(DOUBTS, now)).take(now).is_ok()
    }

    /// Whether another stream may be asked around for: strangers choose the ids.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let mut questions = self.known_nodes.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.get_or_insert_with(|| TokenBucket::new(QUESTIONS, now)).take(now).is_ok()
    }

    /// Which of these streams are live: by the registry, and as far as that is away or may be behind by the nodes, with the
    /// place and the publication.
    pub(super) async fn live(self: &Arc<Self>, app: &AppName, ids: Vec<StreamId>) -> Live {
        let mut live = Live::default();
        let mut unknown: HashSet<StreamId> = ids.iter().cloned().collect();
        if self.is_registry_ok() {
            let result = self.registry.find_live(app, &ids, self.wall.ms()).await;
            self.note_registry(&result);
            for id in result.unwrap_or_default() {
                unknown.remove(&id);
                live.recorded.push(StreamKey::new(app.clone(), id));
            }
            if !self.is_registry_behind() {
                return live;
            }
        }
        let keys: Vec<_> = unknown.into_iter().map(|id| StreamKey::new(app.clone(), id)).collect();
        for keys in keys.chunks(KEYS_MAX) {
            for (key, (origin, found)) in self.ask_around(keys).await.holders {
                if found.live {
                    live.said.push((key, origin, found.epoch));
                }
            }
        }
        live
    }

    /// Asks at a relay address for some streams.
    pub(super) async fn ask(&self, host: &str, port: u16, keys: &[StreamKey]) -> Result<Answered, RelayError> {
        let deadline = clock::now() + ASK_TIMEOUT;
        let (address, connected) = self.net.dial(host, port, &self.relay_identity, deadline, Duration::ZERO).await?;
        let (read, mut writer) = tokio::io::split(connected.stream);
        let (peer, mut reader) = (connected.peer, LinkReader::new(read, connected.leftover));
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
            // A host that vanished is waited for only while something is still missing.
            if keys.iter().all(|key| around.holders.get(key).is_some_and(|(_, found)| found.live)) {
                break;
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
                    let silent_ms = u32::try_from(stream.silence(clock::now()).as_millis()).unwrap_or(u32::MAX);
                    Found { nonce, held: true, live, epoch: stream.epoch, silent_ms: if live { silent_ms } else { 0 } }
                }
                None => {
                    let held = directory.claiming.contains(key);
                    Found { nonce, held, live: false, epoch: Epoch(0), silent_ms: 0 }
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
    fn nodes_to_ask_are_known_by_this_nodes_own_clock() {
        let row = |id: &str, host: Option<&str>, relay_port, written: i64| ClusterNodeRecord {
            id: id.into(),
            ip: host.map(str::to_owned),
            relay_port,
            last_update_time: written,
            ..ClusterNodeRecord::default()
        };
        // Clocks that differ by hours.
        let rows = |b| {
            [
                row("a", Some("10.0.0.1"), 5000, 7),
                row("own", Some("10.0.0.2"), 5000, 1),
                row("edge", Some("10.0.0.3"), 0, 1),
                row("nowhere", None, 5000, 1),
                row("", Some("10.0.0.5"), 5000, 1),
                row("nonsense", Some("10.0.0.6"), 99_999, 1),
                row("b", Some("10.0.0.7"), 5001, b),
            ]
        };
        let (known, begin, own) = (KnownNodes::default(), Instant::now(), "own".parse().unwrap());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let hosts = |known: &KnownNodes| {
            let mut hosts: Vec<_> = known.all().into_iter().map(|node| node.host).collect();
            hosts.sort();
            hosts
        };
        known.learn(at(0), &own, &rows(3_600_000), true);
        assert_eq!(hosts(&known), ["10.0.0.1", "10.0.0.7"]);
        known.learn(at(10), &own, &rows(3_605_000), true);
        assert!(!known.one_is_late(at(11)));
        assert!(known.one_is_late(at(12)), "a wrote nothing for 12 s");
        // The registry was away in between: a row that stands still says nothing yet.
        known.learn(at(60), &own, &rows(3_605_000), false);
        assert_eq!(hosts(&known), ["10.0.0.1", "10.0.0.7"]);
        known.learn(at(65), &own, &rows(3_610_000), true);
        assert_eq!(hosts(&known), ["10.0.0.7"], "a is dead");
    }
}
