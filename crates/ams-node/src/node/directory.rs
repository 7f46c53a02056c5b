//! What this node holds: sessions, streams, and who waits for what.
//!
//! Owns the control runtime's picture of the shards. Plain data behind one short lock; never awaits, never talks to the
//! registry or a shard: callers take what they need out and act on it after the lock is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use ams_api::port::{Door, EndReason, SessionEvent, SessionId};
use ams_media::StreamTracks;
use ams_registry::Lease;
use ams_rtc::sdp::PlayOffer;
use ams_types::{Epoch, StreamKey};
use tokio::sync::{mpsc, watch};

use crate::shard::protocol::{LayerReport, LinkId, PeerId, ShardNo};

/// How far a pull has come; those who wait for it watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullState {
    /// Asked for, not answered.
    Asking,
    /// Here.
    Here,
    /// Not to be had; the sentence is for the log.
    Failed(String),
}

/// Where a stream on this node comes from.
#[derive(Debug)]
pub enum Origin {
    /// A publisher of ours. Playable once `live`.
    Published {
        /// The publisher's session.
        session: SessionId,
        /// What it claimed in the registry.
        lease: Lease,
        /// Its media has come.
        live: bool,
        /// The registry knows that.
        announced: bool,
    },
    /// Another node, over a relay link.
    Pulled {
        /// The link, once there is one.
        link: Option<LinkId>,
        /// How far it has come.
        state: watch::Sender<PullState>,
        /// Tells this pull from a later one of the same stream.
        attempt: u64,
    },
}

/// A stream on this node.
#[derive(Debug)]
pub struct LocalStream {
    /// Which publication.
    pub epoch: Epoch,
    /// What it consists of; empty until known.
    pub tracks: Arc<StreamTracks>,
    /// The shard its media comes in on.
    pub home: ShardNo,
    /// Shards that hold a replica.
    pub replicas: HashSet<ShardNo>,
    /// Where it comes from.
    pub origin: Origin,
    /// Sessions that watch it here.
    pub viewers: HashSet<SessionId>,
    /// Links it is served on: edges that pull it.
    pub served: HashSet<LinkId>,
    /// Since when nobody has watched it; none while somebody does.
    pub idle_since: Option<Instant>,
    /// The layers' figures as last reported.
    pub layers: Vec<LayerReport>,
}

impl LocalStream {
    /// Whether a viewer can be attached now.
    pub fn is_playable(&self) -> bool {
        match &self.origin {
            Origin::Published { live, .. } => *live,
            Origin::Pulled { state, .. } => *state.borrow() == PullState::Here,
        }
    }

    fn note_idle(&mut self, now: Instant) {
        if self.viewers.is_empty() && self.served.is_empty() {
            self.idle_since = Some(now);
        }
    }
}

/// What a session is.
#[derive(Debug)]
pub enum Role {
    /// It publishes its stream.
    Publisher {
        /// What it claimed.
        lease: Lease,
        /// Its media has come.
        live: bool,
    },
    /// It watches its stream.
    Viewer {
        /// Our offer, until it is answered.
        offer: Option<Box<PlayOffer>>,
    },
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Its transport.
    pub peer: PeerId,
    /// Its stream.
    pub key: StreamKey,
    /// The shard its transport is on; none before there is a transport.
    pub shard: Option<ShardNo>,
    /// What it is.
    pub role: Role,
    /// Who wants to know.
    pub events: mpsc::Sender<SessionEvent>,
    /// Entity tag of the current ICE session.
    pub etag: String,
    /// The door it came through.
    pub door: Door,
    /// Remote candidates seen, for diagnosis.
    pub candidates: u32,
    /// A viewer's transport is connected.
    pub started: bool,
}

impl Session {
    /// Tells whoever opened the session. The queue holds every event a session can have.
    /// As [`Self::tell`], for what may be left out when the client does not keep up: the end must find room.
    pub fn mention(&self, event: SessionEvent) {
        if self.events.capacity() > self.events.max_capacity() / 2 {
            self.tell(event);
        }
    }

    pub fn tell(&self, event: SessionEvent) {
        let _ = self.events.try_send(event);
    }
}

/// What this node holds.
#[derive(Debug, Default)]
pub struct Directory {
    /// Every session.
    pub sessions: HashMap<SessionId, Session>,
    /// Transport → session.
    pub peers: HashMap<PeerId, SessionId>,
    /// Every stream.
    pub streams: HashMap<StreamKey, LocalStream>,
    /// Streams somebody waits for, and how many do.
    pub waiting: HashMap<StreamKey, usize>,
    /// The shard each relay link is on.
    pub links: HashMap<LinkId, ShardNo>,
    /// Transports per shard.
    pub load: Vec<usize>,
    /// Streams whose claim is just being given back; closed when it is. A new claim of ours would meet its predecessor.
    pub releasing: HashMap<StreamKey, watch::Receiver<()>>,
}

/// A session that was taken out, and what is left to be done about it.
#[derive(Debug)]
pub struct Removed {
    /// The session.
    pub session: Session,
    /// It was the last on a shard that is not the stream's home.
    pub idle_replica: Option<IdleReplica>,
}

/// A replica nothing needs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleReplica {
    /// The stream.
    pub key: StreamKey,
    /// Its home, which feeds the replica.
    pub home: ShardNo,
    /// Where the replica is.
    pub replica: ShardNo,
}

impl Directory {
    /// The shard with the fewest transports of those that have room; none if none has.
    pub fn least_loaded(&self, has_room: impl Fn(ShardNo) -> bool) -> Option<ShardNo> {
        let shards = (0u16..).map(ShardNo).zip(&self.load);
        shards.filter(|(shard, _)| has_room(*shard)).min_by_key(|(_, n)| **n).map(|(shard, _)| shard)
    }

    /// Counts one more transport on the shard with the fewest, before its session is there. [`Self::leave_seat`] follows.
    /// None if no shard has room.
    pub fn take_seat(&mut self, has_room: impl Fn(ShardNo) -> bool) -> Option<ShardNo> {
        let shard = self.least_loaded(has_room)?;
        if let Some(load) = self.load.get_mut(usize::from(shard.0)) {
            *load += 1;
        }
        Some(shard)
    }

    /// Undoes [`Self::take_seat`].
    pub fn leave_seat(&mut self, shard: ShardNo) {
        if let Some(load) = self.load.get_mut(usize::from(shard.0)) {
            *load = load.saturating_sub(1);
        }
    }

    /// Notes that a session's transport is on `shard`.
    pub fn place(&mut self, session: &SessionId, shard: ShardNo) {
        if let Some(s) = self.sessions.get_mut(session) {
            s.shard = Some(shard);
            if let Some(load) = self.load.get_mut(usize::from(shard.0)) {
                *load += 1;
            }
        }
    }

    /// Takes a session out. Tells it nothing.
    pub fn remove_session(&mut self, now: Instant, id: &SessionId) -> Option<Removed> {
        let session = self.sessions.remove(id)?;
        self.peers.remove(&session.peer);
        if let Some(load) = session.shard.and_then(|s| self.load.get_mut(usize::from(s.0))) {
            *load = load.saturating_sub(1);
        }
        let mut idle_replica = None;
        if let Some(stream) = self.streams.get_mut(&session.key)
            && stream.viewers.remove(id)
        {
            stream.note_idle(now);
            idle_replica = session.shard.and_then(|shard| self.release_replica(&session.key, shard));
        }
        Some(Removed { session, idle_replica })
    }

    /// A link stopped serving a stream. Returns the replica that is no longer needed for it, as (home, replica).
    pub fn unserve(&mut self, now: Instant, link: LinkId, key: &StreamKey) -> Option<IdleReplica> {
        let shard = self.links.get(&link).copied();
        let stream = self.streams.get_mut(key)?;
        if !stream.served.remove(&link) {
            return None;
        }
        stream.note_idle(now);
        self.release_replica(key, shard?)
    }

    /// Gives up a stream's replica on `shard` if nothing there needs it.
    fn release_replica(&mut self, key: &StreamKey, shard: ShardNo) -> Option<IdleReplica> {
        let stream = self.streams.get_mut(key)?;
        let watched = stream.viewers.iter().any(|v| self.sessions.get(v).is_some_and(|s| s.shard == Some(shard)));
        let served = stream.served.iter().any(|l| self.links.get(l) == Some(&shard));
        if watched || served || !stream.replicas.remove(&shard) {
            return None;
        }
        Some(IdleReplica { key: key.clone(), home: stream.home, replica: shard })
    }

    /// Takes a stream out with all its viewers, who are told why.
    pub fn remove_stream(&mut self, now: Instant, key: &StreamKey, reason: &EndReason) -> Option<LocalStream> {
        let stream = self.streams.remove(key)?;
        for viewer in &stream.viewers {
            if let Some(removed) = self.remove_session(now, viewer) {
                removed.session.tell(SessionEvent::Ended(reason.clone()));
            }
        }
        Some(stream)
    }

    /// Notes that a stream's claim is being given back, until [`Self::released`] or until the sender is gone.
    pub fn releasing(&mut self, key: &StreamKey) -> watch::Sender<()> {
        let (sender, receiver) = watch::channel(());
        self.releasing.insert(key.clone(), receiver);
        sender
    }

    /// The claim is given back: the id can be claimed again.
    pub fn released(&mut self, key: &StreamKey, releasing: watch::Sender<()>) {
        if self.releasing.get(key).is_some_and(|r| r.same_channel(&releasing.subscribe())) {
            self.releasing.remove(key);
        }
    }

    /// Somebody joined the waiting list.
    pub fn wait(&mut self, key: &StreamKey) {
        *self.waiting.entry(key.clone()).or_default() += 1;
    }

    /// Somebody left it.
    pub fn stop_waiting(&mut self, key: &StreamKey) {
        if let Some(n) = self.waiting.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                self.waiting.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
