//! Whether another node's claim still stands.
//!
//! Owns the evidence. A run is over when its node answers as another run, when nothing listens at its relay address any
//! more, or when its records have not been renewed, by this node's own clock, for longer than two missed heartbeats. A
//! claim is void, too, when its node says that it does not publish the stream, or that it has fallen silent. Never judges by
//! the other node's clock.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_api::port::SessionId;
use ams_registry::Holder;
use ams_relay::RelayError;
use ams_relay::wire::Found;
use ams_types::{Epoch, Incarnation, NodeId, StreamKey};
use tracing::debug;

use super::NodeCore;
use super::around::Answered;
use crate::clock;

/// A record that nobody renews for this long is a dead node's: it is renewed every 5 s.
pub(super) const RENEWED_WITHIN: Duration = Duration::from_secs(12);
/// Records watched; beyond, the oldest are forgotten.
const WATCHED_MAX: usize = 1024;
/// A publisher that has been silent for so long gives way to a newcomer.
const SILENT_AFTER_MS: u32 = 2500;

/// A record as it was first seen: its epoch and update time.
type Version = (Epoch, i64);

/// Records of nodes that do not answer, and since when they look the same.
#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<HashMap<StreamKey, (Version, Instant)>>);

impl Watched {
    /// Notes how a record looks now. Returns for how long it has looked so.
    pub(super) fn unchanged_for(&self, now: Instant, key: &StreamKey, version: Version) -> Duration {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match watched.get(key) {
            Some((seen, since)) if *seen == version => now.saturating_duration_since(*since),
            _ => {
                if watched.len() >= WATCHED_MAX {
                    watched.retain(|_, (_, since)| now.saturating_duration_since(*since) < 2 * RENEWED_WITHIN);
                }
                if watched.len() < WATCHED_MAX {
                    watched.insert(key.clone(), (version, now));
                }
                Duration::ZERO
            }
        }
    }
}

/// What is to be made of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stands.
    Holds,
    /// The run of the node that made it is over.
    Gone,
    /// Its node lives, but does not publish the stream any more, or nothing comes of it.
    LetGo,
}

impl NodeCore {
    /// Judges the claim of a run of a node.
    pub(super) async fn judge(&self, key: &StreamKey, holder: &Holder, node: &NodeId, run: Incarnation) -> Verdict {
        if *node == self.id && run == self.incarnation {
            // What one of our own sessions claimed is void once the session is gone, written down or not.
            let session = holder.session.clone().map(SessionId);
            let lives = session.is_some_and(|session| self.directory().sessions.contains_key(&session));
            return if lives { Verdict::Holds } else { Verdict::LetGo };
        }
        let verdict = self.evidence(key, holder, node, run).await;
        debug!(stream_id = %key, node_id = %node, ?verdict, "asked whether a claim still stands");
        verdict.unwrap_or_else(|| {
            let unchanged = self.watched.unchanged_for(clock::now(), key, (holder.epoch, holder.update_time));
            if unchanged >= RENEWED_WITHIN { Verdict::Gone } else { Verdict::Holds }
        })
    }

    /// Whether that run of that node answers and says that it publishes the stream.
    pub(super) async fn says_it_publishes(
        &self,
        key: &StreamKey,
        holder: &Holder,
        node: &NodeId,
        run: Incarnation,
    ) -> bool {
        *node != self.id && self.evidence(key, holder, node, run).await == Some(Verdict::Holds)
    }

    /// What the holder's node says, or its absence; none if that is unclear.
    async fn evidence(&self, key: &StreamKey, holder: &Holder, node: &NodeId, run: Incarnation) -> Option<Verdict> {
        let host = holder.host.as_deref()?;
        let rows = self.registry.list_nodes().await.unwrap_or_default();
        let row = rows.iter().find(|row| row.node_id().as_ref() == Some(node));
        if row.and_then(|row| row.incarnation()).is_some_and(|latest| latest != run) {
            return Some(Verdict::Gone);
        }
        let of_row = row.and_then(|row| u16::try_from(row.relay_port).ok()).filter(|port| *port > 0);
        let port = match of_row {
            Some(port) => port,
            None => self.lookup(key).await.ok().flatten()?.origin?.port?,
        };
        match self.ask(host, port, std::slice::from_ref(key)).await {
            Ok(answered) => Some(verdict_of(&answered, node, run)),
            Err(error) => is_nobody_there(&error).then_some(Verdict::Gone),
        }
    }
}

fn verdict_of(answered: &Answered, node: &NodeId, run: Incarnation) -> Verdict {
    if answered.peer.node_id != *node || answered.peer.incarnation != run {
        return Verdict::Gone;
    }
    match answered.found.first() {
        Some(Some(found)) if !stands(found) => Verdict::LetGo,
        _ => Verdict::Holds,
    }
}

/// Whether what a node says of a stream leaves no room for a newcomer.
pub(super) fn stands(found: &Found) -> bool {
    found.held && found.silent_ms <= SILENT_AFTER_MS
}

fn is_nobody_there(error: &RelayError) -> bool {
    matches!(error, RelayError::Connect { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ams_relay::PeerInfo;
    use ams_relay::wire::{Features, Role};

    use super::*;

    #[test]
    fn a_record_is_stale_by_the_observers_clock_alone() {
        let (watched, begin) = (Watched::default(), Instant::now());
        let key = |id: &str| StreamKey::new("live".parse().unwrap(), id.parse().unwrap());
        let at = |seconds, id: &str, version| {
            watched.unchanged_for(begin + Duration::from_secs(seconds), &key(id), version).as_secs()
        };
        assert_eq!(at(0, "a", (Epoch(1), 500)), 0);
        assert_eq!(at(4, "a", (Epoch(1), 500)), 4);
        assert_eq!(at(5, "b", (Epoch(1), 500)), 0, "another stream");
        assert_eq!(at(6, "a", (Epoch(1), 400)), 0, "renewed by a clock that was set back");
        assert_eq!(at(9, "a", (Epoch(1), 400)), 3);
        assert_eq!(at(10, "a", (Epoch(2), 400)), 0, "another publication");
        for n in 0..2 * WATCHED_MAX {
            at(100, &format!("s{n}"), (Epoch(1), 1));
        }
        assert_eq!(watched.0.lock().unwrap().len(), WATCHED_MAX);
    }

    #[test]
    fn a_claim_stands_while_its_run_lives_and_publishes() {
        let found = |held, silent_ms| Some(Found { nonce: 0, held, live: held, epoch: Epoch(1), silent_ms });
        for (name, node, run, found, want) in [
            ("publishes it", "a", 7, found(true, 20), Verdict::Holds),
            ("an earlier version that does not say", "a", 7, None, Verdict::Holds),
            ("let it go", "a", 7, found(false, 0), Verdict::LetGo),
            ("fell silent", "a", 7, found(true, 3000), Verdict::LetGo),
            ("restarted", "a", 8, found(true, 20), Verdict::Gone),
            ("another node at its address", "b", 7, found(true, 20), Verdict::Gone),
        ] {
            let peer = PeerInfo {
                node_id: node.parse().unwrap(),
                incarnation: Incarnation(run),
                role: Role::Origin,
                version: 1,
                features: Features::default(),
            };
            let answered = Answered { peer, found: vec![found] };
            assert_eq!(verdict_of(&answered, &"a".parse().unwrap(), Incarnation(7)), want, "{name}");
        }
    }

    #[test]
    fn only_a_closed_door_says_that_nobody_is_there() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let connect = |kind: io::ErrorKind| RelayError::Connect { addr, cause: kind.into() };
        for (error, want) in [
            (connect(io::ErrorKind::ConnectionRefused), true),
            (connect(io::ErrorKind::TimedOut), false),
            (connect(io::ErrorKind::HostUnreachable), false),
            (RelayError::HandshakeTimeout, false),
            (RelayError::NotARelay, false),
        ] {
            assert_eq!(is_nobody_there(&error), want, "{error}");
        }
    }
}
