//! What this node holds: sessions, streams, and who waits for what.
//!
//! Owns the control runtime's picture of the shards. Plain data behind one short lock; never awaits, never talks to the
//! registry or a shard: callers take what they need out and act on it after the lock is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_access::Secret;
use ams_api::port::{Door, EndReason, SessionEvent, SessionId};
use ams_media::StreamTracks;
use ams_registry::{ClaimRequest, Lease, OriginAddress, TokenUse};
use ams_relay::Redial;
use ams_rtc::sdp::PlayOffer;
use ams_types::{Epoch, StreamKey};
use tokio::sync::{mpsc, watch};

use super::places::Place;
use super::webhooks::Former;
use crate::clock;
use crate::shard::protocol::{LayerReport, LinkId, PeerId, ShardNo};

/// Without a packet for this long a publication counts as silent. Reports come every second.
const SILENT_AFTER: Duration = Duration::from_millis(2500);

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
    /// Nowhere at the moment: it was lost, and its viewers wait.
    Lost,
}

/// The time in which a stream's viewers wait for another source, and how that is looked for.
#[derive(Debug)]
pub struct Interruption {
    /// When they have waited long enough.
    pub until: Instant,
    /// The publication is over: only a later one will do.
    pub is_epoch_over: bool,
    /// Where it was last asked for, and which publication.
    pub asked: Option<(OriginAddress, Epoch)>,
    /// When it may be asked for there again.
    pub again_at: Instant,
    /// The waits in between.
    pub redial: Redial,
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
    /// Links it is served on, to edges that pull it, and how many watch it there.
    pub served: HashMap<LinkId, u32>,
    /// How many watch it, as was last written to the registry or told to its origin.
    pub told_viewers: u32,
    /// Since when nobody has watched it; none while somebody does.
    pub idle_since: Option<Instant>,
    /// Its viewers wait for another source; none while they have one.
    pub interruption: Option<Interruption>,
    /// The layers' figures as last reported.
    pub layers: Vec<LayerReport>,
    /// How many packets had come, and when that was last seen to grow.
    pub heard: (u64, Instant),
}

impl LocalStream {
    /// Whether a viewer can be attached now.
    pub fn is_playable(&self) -> bool {
        match &self.origin {
            Origin::Published { live, .. } => *live,
            Origin::Pulled { state, .. } => *state.borrow() == PullState::Here,
            Origin::Lost => false,
        }
    }

    /// A pull that nobody watches yet.
    pub fn pulled(state: watch::Sender<PullState>, attempt: u64) -> Self {
        Self {
            epoch: Epoch(0),
            tracks: Arc::default(),
            home: ShardNo(0),
            replicas: HashSet::new(),
            origin: Origin::Pulled { link: None, state, attempt },
            viewers: HashSet::new(),
            served: HashMap::new(),
            told_viewers: 0,
            idle_since: Some(clock::now()),
            interruption: None,
            layers: Vec::new(),
            heard: (0, clock::now()),
        }
    }

    /// Takes a report of the layers' figures in.
    pub fn report(&mut self, now: Instant, layers: Vec<LayerReport>) {
        let packets = layers.iter().map(|layer| layer.packets).sum();
        if packets != self.heard.0 {
            self.heard = (packets, now);
        }
        self.layers = layers;
    }

    /// How many watch it here and at the edges that pull it from here.
    pub fn audience(&self) -> u32 {
        let here = u32::try_from(self.viewers.len()).unwrap_or(u32::MAX);
        self.served.values().fold(here, |sum, viewers| sum.saturating_add(*viewers))
    }

    /// For how long nothing of it has come. A data channel alone is never silent: it has nothing to say all the time.
    pub fn silence(&self, now: Instant) -> Duration {
        if self.tracks.tracks.is_empty() { Duration::ZERO } else { now.saturating_duration_since(self.heard.1) }
    }

    /// Whether nothing of it has come for a while.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.silence(now) > SILENT_AFTER
    }

    /// Whether it comes, or is to come, over this link.
    pub fn is_pulled_on(&self, link: LinkId) -> bool {
        matches!(self.origin, Origin::Pulled { link: Some(l), .. } if l == link)
    }

    /// Whether this session publishes it.
    pub fn is_published_by(&self, session: &SessionId) -> bool {
        matches!(&self.origin, Origin::Published { session: s, .. } if s == session)
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
    Publisher(Box<Publication>),
    /// It watches its stream.
    Viewer {
        /// Our offer, until it is answered.
        offer: Option<Box<PlayOffer>>,
    },
}

/// What a publisher's session has the right to.
#[derive(Clone, Debug)]
pub struct Publication {
    /// What it claims with, also when the registry forgets it.
    pub wish: ClaimRequest,
    /// What it claimed.
    pub lease: Lease,
    /// The registry knows of it; if not, the registry was away.
    pub recorded: bool,
    /// Its media has come.
    pub live: bool,
    /// It took a lost publication up.
    pub restores: bool,
    /// Whose claim it took, until its start is noted for webhooks.
    pub former: Option<Former>,
    /// Its start is noted for webhooks.
    pub told: bool,
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
    /// A publisher closed its transport.
    pub left: bool,
    /// Its place under the node's limits.
    pub place: Option<Place>,
    /// What it was let in with, if that is to be remembered.
    pub visit: Option<Box<Visit>>,
}

/// What somebody was let in with.
#[derive(Clone, Debug)]
pub struct Visit {
    /// What stays the same when the client connects again.
    pub owner: String,
    /// Who it says it is.
    pub subscriber: Option<String>,
    /// The one-time token it used up.
    pub token: Option<UsedToken>,
}

/// A one-time token that was used up.
#[derive(Clone, Debug)]
pub struct UsedToken {
    /// The token.
    pub id: Secret,
    /// The use, as it was last written.
    pub used: TokenUse,
}

impl Session {
    /// As [`Self::tell`], for what may be left out when the client does not keep up: the end must find room.
    pub fn mention(&self, event: SessionEvent) {
        if self.events.capacity() > self.events.max_capacity() / 2 {
            self.tell(event);
        }
    }

    /// Tells whoever opened the session. The queue holds every event a session can have.
    pub fn tell(&self, event: SessionEvent) {
        let _ = self.events.try_send(event);
    }
}

/// What this node holds.
#[derive(Debug, Default)]
pub struct Directory {
    /// Every session.
    pub sessions: HashMap<SessionId, Session>,
    /// Sessions that ever began.
    pub begun: u64,
    /// Transport → session.
    pub peers: HashMap<PeerId, SessionId>,
    /// Every stream.
    pub streams: HashMap<StreamKey, LocalStream>,
    /// Publications of this node that were lost, and when: whoever comes back in time restores one.
    pub lost: HashMap<StreamKey, Instant>,
    /// Ids that are just being claimed: not published yet, but nobody else's.
    pub claiming: HashSet<StreamKey>,
    /// Streams somebody waits for, and how many do.
    pub waiting: HashMap<StreamKey, usize>,
    /// The shard each relay link is on.
    pub links: HashMap<LinkId, ShardNo>,
    /// Links to origins that said that they are to leave.
    pub draining_origins: HashSet<LinkId>,
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

/// The shards that hold a stream without a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scattered {
    /// Its viewers wait there.
    pub waiting: HashSet<ShardNo>,
    /// Nobody needs it there.
    pub idle: Vec<ShardNo>,
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

    /// Streams published here, and viewers connected here.
    pub fn census(&self) -> (usize, usize) {
        let published = self.streams.values().filter(|s| matches!(s.origin, Origin::Published { .. })).count();
        (published, self.streams.values().map(|s| s.viewers.len()).sum())
    }

    /// The session that publishes a stream here.
    pub fn publisher_of(&self, key: &StreamKey) -> Option<SessionId> {
        match &self.streams.get(key)?.origin {
            Origin::Published { session, .. } => Some(session.clone()),
            Origin::Pulled { .. } | Origin::Lost => None,
        }
    }

    /// The sessions of a stream here.
    pub fn sessions_of(&self, key: &StreamKey) -> impl Iterator<Item = (&SessionId, &Session)> {
        let stream = self.streams.get(key);
        let publisher = stream.and_then(|stream| match &stream.origin {
            Origin::Published { session, .. } => Some(session),
            Origin::Pulled { .. } | Origin::Lost => None,
        });
        let viewers = stream.into_iter().flat_map(|stream| &stream.viewers);
        viewers.chain(publisher).filter_map(|id| self.sessions.get(id).map(|session| (id, session)))
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

    /// Takes a session in, without a place yet.
    pub fn add_session(&mut self, id: &SessionId, session: Session) {
        self.peers.insert(session.peer, id.clone());
        self.sessions.insert(id.clone(), session);
        self.begun += 1;
    }

    /// Takes a session out. Tells it nothing.
    pub fn remove_session(&mut self, now: Instant, id: &SessionId) -> Option<Removed> {
        let mut session = self.sessions.remove(id)?;
        // At once: what is left to be done about it may take time.
        session.place = None;
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
        stream.served.remove(&link)?;
        stream.note_idle(now);
        self.release_replica(key, shard?)
    }

    /// Gives up a stream's replica on `shard` if nothing there needs it.
    fn release_replica(&mut self, key: &StreamKey, shard: ShardNo) -> Option<IdleReplica> {
        let stream = self.streams.get_mut(key)?;
        let watched = stream.viewers.iter().any(|v| self.sessions.get(v).is_some_and(|s| s.shard == Some(shard)));
        let served = stream.served.keys().any(|l| self.links.get(l) == Some(&shard));
        if watched || served || !stream.replicas.remove(&shard) {
            return None;
        }
        Some(IdleReplica { key: key.clone(), home: stream.home, replica: shard })
    }

    /// The shards of a stream's viewers.
    fn shards_of_viewers(&self, key: &StreamKey) -> HashSet<ShardNo> {
        let viewers = self.streams.get(key).map(|stream| &stream.viewers).into_iter().flatten();
        viewers.filter_map(|viewer| self.sessions.get(viewer)?.shard).collect()
    }

    /// A stream lost its source. Its viewers are kept as `interruption` says, or as was said when it was lost before. None,
    /// and nothing is changed, if there are none or they have waited long enough.
    pub fn interrupt(&mut self, key: &StreamKey, now: Instant, interruption: Interruption) -> Option<Scattered> {
        let watched = self.shards_of_viewers(key);
        let stream = self.streams.get_mut(key)?;
        let home = if watched.contains(&stream.home) { stream.home } else { *watched.iter().min_by_key(|s| s.0)? };
        let is_epoch_over = interruption.is_epoch_over;
        let waits = stream.interruption.get_or_insert(interruption);
        waits.is_epoch_over |= is_epoch_over;
        if waits.until <= now {
            return None;
        }
        let holders: HashSet<ShardNo> = stream.replicas.iter().copied().chain([stream.home]).collect();
        let idle = holders.difference(&watched).copied().collect();
        stream.home = home;
        stream.replicas = watched.iter().copied().filter(|shard| *shard != home).collect();
        stream.served.clear();
        stream.layers.clear();
        stream.origin = Origin::Lost;
        Some(Scattered { waiting: watched, idle })
    }

    /// A stream's media will come in on `home`. Its viewers stay where they are. Returns the shard that holds it for nobody
    /// any more.
    pub fn rehome(&mut self, key: &StreamKey, home: ShardNo) -> Option<ShardNo> {
        let watched = self.shards_of_viewers(key);
        let stream = self.streams.get_mut(key)?;
        let former = std::mem::replace(&mut stream.home, home);
        stream.replicas = watched.iter().copied().filter(|shard| *shard != home).collect();
        (former != home && !watched.contains(&former)).then_some(former)
    }

    /// Whether a publication of this stream was lost here since `since`. What is older is forgotten.
    pub fn take_lost(&mut self, key: &StreamKey, since: Instant) -> bool {
        self.lost.retain(|_, at| *at >= since);
        self.lost.remove(key).is_some()
    }

    /// A publisher of this node claimed a stream. Viewers that are here already stay, and wait as `interruption` says.
    /// Returns the shard that holds it for nobody any more.
    pub fn publish(
        &mut self,
        key: &StreamKey,
        home: ShardNo,
        epoch: Epoch,
        origin: Origin,
        interruption: Interruption,
    ) -> Option<ShardNo> {
        let stream = self.streams.entry(key.clone()).or_insert_with(|| LocalStream {
            home,
            idle_since: None,
            ..LocalStream::pulled(watch::Sender::new(PullState::Asking), 0)
        });
        stream.epoch = epoch;
        stream.tracks = Arc::default();
        stream.origin = origin;
        stream.layers.clear();
        stream.heard = (0, clock::now());
        stream.told_viewers = 0;
        if !stream.viewers.is_empty() {
            stream.interruption.get_or_insert(interruption);
        }
        self.rehome(key, home)
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
