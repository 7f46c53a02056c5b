//! Places for sessions: as many as the `[limits]` section says, of all, of an application, a stream, an address.
//!
//! Owns the counts of places, and of sessions that were refused one. A place is taken in one step before its session is
//! made, goes with it, and is given back when it is dropped, whatever became of the session. The lock is the innermost one:
//! nothing else is locked while it is held.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ams_api::port::{Caller, Refusal};
use ams_types::{AppName, StreamKey};
use tracing::warn;

use super::NodeCore;
use crate::clock;
use crate::config::LimitsConfig;

/// When one that was refused a place may ask again: sessions that were lost are noticed within seconds.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often the log says that a limit is reached.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Why a session was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// `limits.sessions`.
    Node,
    /// `limits.sessions_per_app`.
    App,
    /// `limits.sessions_per_address`.
    Address,
    /// `limits.viewers_per_stream`.
    Stream,
    /// The media threads are busy, or memory or file descriptors are short.
    Load,
    /// The node is to end.
    Draining,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; 6] = [Self::Node, Self::App, Self::Address, Self::Stream, Self::Load, Self::Draining];

    /// Its label in the metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Node => "sessions",
            Self::App => "sessions_per_app",
            Self::Address => "sessions_per_address",
            Self::Stream => "viewers_per_stream",
            Self::Load => "load",
            Self::Draining => "draining",
        }
    }
}

/// What is taken. Only what somebody has is in the maps, so they hold no more entries than there are sessions.
#[derive(Debug, Default)]
struct Taken {
    sessions: usize,
    apps: HashMap<AppName, usize>,
    addresses: HashMap<IpAddr, usize>,
    viewers: HashMap<StreamKey, usize>,
    said: [Option<Instant>; Reason::ALL.len()],
}

/// Who wants a place.
#[derive(Clone, Debug)]
struct Claimant {
    app: AppName,
    /// None if it is not counted.
    address: Option<IpAddr>,
    /// The stream a viewer watches.
    watches: Option<StreamKey>,
}

/// A node's places.
#[derive(Debug)]
pub(super) struct Places {
    limits: LimitsConfig,
    taken: Arc<Mutex<Taken>>,
    refused: [AtomicU64; Reason::ALL.len()],
}

/// One session's place. Dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    claimant: Claimant,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.sessions = taken.sessions.saturating_sub(1);
        give_back(&mut taken.apps, &self.claimant.app);
        if let Some(address) = &self.claimant.address {
            give_back(&mut taken.addresses, address);
        }
        if let Some(stream) = &self.claimant.watches {
            give_back(&mut taken.viewers, stream);
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

fn give_back<K: Clone + Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Entry::Occupied(mut count) = counts.entry(key.clone()) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

impl Places {
    pub(super) fn new(limits: LimitsConfig) -> Self {
        Self { limits, taken: Arc::default(), refused: Default::default() }
    }

    /// A place, or the limit that stands against it.
    fn take(&self, claimant: Claimant) -> Result<Place, (Reason, usize)> {
        let limits = &self.limits;
        let mut taken = lock(&self.taken);
        let of = |reason, limit: usize, there: usize| {
            if limit > 0 && there >= limit { Err((reason, limit)) } else { Ok(()) }
        };
        of(Reason::Node, limits.sessions, taken.sessions)?;
        of(Reason::App, limits.sessions_per_app, count(&taken.apps, Some(&claimant.app)))?;
        of(Reason::Stream, limits.viewers_per_stream, count(&taken.viewers, claimant.watches.as_ref()))?;
        of(Reason::Address, limits.sessions_per_address, count(&taken.addresses, claimant.address.as_ref()))?;
        taken.sessions += 1;
        *taken.apps.entry(claimant.app.clone()).or_default() += 1;
        if let Some(address) = claimant.address {
            *taken.addresses.entry(address).or_default() += 1;
        }
        if let Some(stream) = &claimant.watches {
            *taken.viewers.entry(stream.clone()).or_default() += 1;
        }
        drop(taken);
        Ok(Place { taken: Arc::clone(&self.taken), claimant })
    }

    /// Places that `limits.sessions` leaves; none if it is no limit.
    pub(super) fn left(&self) -> Option<usize> {
        let limit = self.limits.sessions;
        (limit > 0).then(|| limit.saturating_sub(self.taken()))
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        lock(&self.taken).sessions
    }

    /// Counts a session that was refused.
    pub(super) fn note_refused(&self, reason: Reason) {
        if let Some(counter) = self.refused.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sessions that were refused, by reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counted = |reason: &Reason| self.refused.get(*reason as usize).map_or(0, |n| n.load(Ordering::Relaxed));
        Reason::ALL.into_iter().map(move |reason| (reason, counted(&reason)))
    }

    /// Whether the log is to say again that a limit is reached.
    fn is_to_be_said(&self, reason: Reason, now: Instant) -> bool {
        let mut taken = lock(&self.taken);
        let Some(said) = taken.said.get_mut(reason as usize) else { return false };
        let lately = said.is_some_and(|at| now.saturating_duration_since(at) < SAID_EVERY);
        if !lately {
            *said = Some(now);
        }
        !lately
    }
}

fn count<K: Eq + Hash>(counts: &HashMap<K, usize>, key: Option<&K>) -> usize {
    key.and_then(|key| counts.get(key)).copied().unwrap_or(0)
}

impl NodeCore {
    /// A place for a viewer of this stream.
    pub(super) fn place_for_viewer(&self, key: &StreamKey, caller: &Caller) -> Result<Place, Refusal> {
        self.place(key, caller, Some(key.clone()))
    }

    /// A place for a publisher.
    pub(super) fn place_for_publisher(&self, key: &StreamKey, caller: &Caller) -> Result<Place, Refusal> {
        self.place(key, caller, None)
    }

    fn place(&self, key: &StreamKey, caller: &Caller, watches: Option<StreamKey>) -> Result<Place, Refusal> {
        let address = self.config.api.counted_address(caller.remote_ip);
        let (reason, limit) = match self.places.take(Claimant { app: key.app.clone(), address, watches }) {
            Ok(place) => return Ok(place),
            Err(refused) => refused,
        };
        self.places.note_refused(reason);
        if self.places.is_to_be_said(reason, clock::now()) {
            warn!(stream_id = %key, key = %format_args!("limits.{}", reason.label()), limit, "sessions are refused: a limit is reached");
        }
        let sentence = sentence(reason, key, limit);
        Err(match reason {
            Reason::Address => Refusal::TooMany { reason: sentence, retry_after: RETRY_AFTER },
            _ => Refusal::Busy { reason: sentence, retry_after: RETRY_AFTER },
        })
    }
}

/// What is full, for who is refused.
fn sentence(reason: Reason, key: &StreamKey, limit: usize) -> String {
    let full = match reason {
        Reason::App => format!("application {} has as many sessions here as it may", key.app),
        Reason::Stream => format!("stream {} has as many viewers here as it may", key.id),
        Reason::Address => "your address has as many sessions here as it may".to_owned(),
        Reason::Node | Reason::Load | Reason::Draining => "it has as many as it may".to_owned(),
    };
    format!("{full} (limits.{} = {limit})", reason.label())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(app: &str, address: Option<u8>, watches: Option<&str>) -> Claimant {
        let app: AppName = app.parse().unwrap();
        let watches = watches.map(|id| StreamKey::new(app.clone(), id.parse().unwrap()));
        Claimant { app, address: address.map(|n| [203, 0, 113, n].into()), watches }
    }

    #[test]
    fn each_limit_refuses_what_it_is_about_and_nothing_else() {
        let limits = LimitsConfig { sessions: 0, sessions_per_app: 3, sessions_per_address: 2, viewers_per_stream: 1 };
        let places = Places::new(limits);
        let mut held = Vec::new();
        for (name, who, want) in [
            ("a publisher", claimant("a", Some(1), None), None),
            ("the first viewer", claimant("a", Some(1), Some("s")), None),
            ("a second one", claimant("a", Some(2), Some("s")), Some((Reason::Stream, 1))),
            ("of the same id elsewhere", claimant("b", Some(2), Some("s")), None),
            ("a third of an address", claimant("b", Some(1), None), Some((Reason::Address, 2))),
            ("an address that is not counted", claimant("a", None, None), None),
            ("a fourth of an application", claimant("a", None, None), Some((Reason::App, 3))),
        ] {
            match places.take(who) {
                Ok(place) => {
                    assert_eq!(want, None, "{name}");
                    held.push(place);
                }
                Err(refused) => assert_eq!(Some(refused), want, "{name}"),
            }
        }
        assert_eq!(places.left(), None, "no limit of all");
        drop(held);
        let taken = lock(&places.taken);
        let left = (taken.sessions, taken.apps.len(), taken.addresses.len(), taken.viewers.len());
        assert_eq!(left, (0, 0, 0, 0), "nothing stays: {taken:?}");
    }

    #[test]
    fn no_limit_refuses_nobody() {
        let places = Places::new(LimitsConfig { sessions_per_address: 0, ..LimitsConfig::default() });
        let held: Vec<_> = (0..5000).map(|_| places.take(claimant("a", Some(1), Some("s"))).unwrap()).collect();
        assert_eq!(held.len(), 5000);
    }

    #[test]
    fn as_many_as_may_get_a_place_however_many_come_at_once() {
        let places = Places::new(LimitsConfig { sessions: 7, ..LimitsConfig::default() });
        for _ in 0..200 {
            let taken: usize = std::thread::scope(|scope| {
                let come =
                    || (0..5).filter_map(|_| places.take(claimant("a", None, Some("s"))).ok()).collect::<Vec<_>>();
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
                let held: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
                held.iter().map(Vec::len).sum()
            });
            assert_eq!((taken, places.left()), (7, Some(7)));
        }
    }

    #[test]
    fn the_log_says_it_now_and_then() {
        let places = Places::new(LimitsConfig::default());
        let now = Instant::now();
        assert!(places.is_to_be_said(Reason::App, now) && places.is_to_be_said(Reason::Stream, now));
        assert!(!places.is_to_be_said(Reason::App, now + Duration::from_secs(9)));
        assert!(places.is_to_be_said(Reason::App, now + Duration::from_secs(10)));
        places.note_refused(Reason::App);
        let refused: Vec<_> = places.refused().filter(|(_, n)| *n > 0).collect();
        assert_eq!(refused, [(Reason::App, 1)]);
    }
}
