//! Whether another node's run is over, so that what it claimed is free.
//!
//! Owns the evidence. A run is over when its node says so (it answers as another run), when nothing listens at its relay
//! address any more, or when its records have not been renewed, by this node's own clock, for longer than three missed
//! heartbeats. Never judges by the other node's clock.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_registry::Holder;
use ams_relay::{RelayError, dial};
use ams_types::{Epoch, Incarnation, NodeId, StreamKey};
use tracing::debug;

use super::NodeCore;

/// Longest a publisher waits for the answer of the node that holds its id.
const ASK_TIMEOUT: Duration = Duration::from_millis(700);
/// A record that nobody renews for this long is a dead node's: it is renewed every 5 s.
const RENEWED_WITHIN: Duration = Duration::from_secs(12);
/// Records watched; beyond, the oldest are forgotten.
const WATCHED_MAX: usize = 1024;

/// A record as it was first seen: its epoch and update time.
type Version = (Epoch, i64);

/// Records of nodes that do not answer, and since when they look the same.
#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<HashMap<StreamKey, (Version, Instant)>>);

impl Watched {
    /// Notes how a record looks now. Returns for how long it has looked so.
    fn unchanged_for(&self, now: Instant, key: &StreamKey, version: Version) -> Duration {
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

/// What a node's relay address told of one of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Lives,
    Gone,
    Unclear,
}

impl NodeCore {
    /// Whether the run of a node that holds `key` is over.
    pub(super) async fn is_gone(&self, key: &StreamKey, holder: &Holder, node: &NodeId, run: Incarnation) -> bool {
        if *node == self.id {
            // The registry knows our own former runs; this one holds the id itself.
            return false;
        }
        match self.sign_of(key, holder, node, run).await {
            Sign::Lives => false,
            Sign::Gone => true,
            Sign::Unclear => {
                let version = (holder.epoch, holder.update_time);
                self.watched.unchanged_for(Instant::now(), key, version) >= RENEWED_WITHIN
            }
        }
    }

    async fn sign_of(&self, key: &StreamKey, holder: &Holder, node: &NodeId, run: Incarnation) -> Sign {
        let Some(host) = &holder.host else { return Sign::Unclear };
        let rows = self.registry.list_nodes().await.unwrap_or_default();
        let row = rows.iter().find(|row| row.node_id().as_ref() == Some(node));
        if row.and_then(|row| row.incarnation()).is_some_and(|latest| latest != run) {
            return Sign::Gone;
        }
        let of_row = row.and_then(|row| u16::try_from(row.relay_port).ok()).filter(|port| *port > 0);
        let port = match of_row {
            Some(port) => Some(port),
            None => self.lookup(key).await.ok().flatten().and_then(|found| found.origin?.port),
        };
        let Some(port) = port else { return Sign::Unclear };
        let sign = self.knock(host, port, node, run).await;
        debug!(node_id = %node, host, port, ?sign, "asked whether a stream's origin still runs");
        sign
    }

    /// Asks at a relay address whether that run of that node is there.
    async fn knock(&self, host: &str, port: u16, node: &NodeId, run: Incarnation) -> Sign {
        let deadline = Instant::now() + ASK_TIMEOUT;
        let resolved = tokio::time::timeout_at(deadline.into(), tokio::net::lookup_host((host, port))).await;
        let Some(address) = resolved.ok().and_then(Result::ok).and_then(|mut found| found.next()) else {
            return Sign::Unclear;
        };
        match dial(address, &self.relay_identity, None, deadline).await {
            Ok(connected) if connected.peer.node_id == *node && connected.peer.incarnation == run => Sign::Lives,
            Ok(_) => Sign::Gone,
            Err(error) => sign_of_error(address, &error),
        }
    }
}

fn sign_of_error(address: SocketAddr, error: &RelayError) -> Sign {
    match error {
        RelayError::Connect { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused => Sign::Gone,
        _ => {
            debug!(%address, %error, "no answer from a stream's origin");
            Sign::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn only_a_closed_door_says_that_nobody_is_there() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let connect = |kind: io::ErrorKind| RelayError::Connect { addr, cause: kind.into() };
        for (error, want) in [
            (connect(io::ErrorKind::ConnectionRefused), Sign::Gone),
            (connect(io::ErrorKind::TimedOut), Sign::Unclear),
            (connect(io::ErrorKind::HostUnreachable), Sign::Unclear),
            (RelayError::HandshakeTimeout, Sign::Unclear),
            (RelayError::NotARelay, Sign::Unclear),
        ] {
            assert_eq!(sign_of_error(addr, &error), want, "{error}");
        }
    }
}
