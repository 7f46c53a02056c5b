//! From the packets of one turn to links, replicas and viewers.
//!
//! Owns when viewers get what was taken in. Links and sibling shards get it at the end of the turn. A send to a viewer
//! costs nearly the same for one packet as for several, so with many viewers packets are held for a moment: until the
//! frame is whole, which is when a decoder can use it, or for [`HOLD`]. When the shard is busy, longer, so that it never
//! spends all its time on sends of single packets.

use std::time::{Duration, Instant};

use super::core::{Role, ShardCore};
use super::protocol::{ShardEvent, ShardMedia};
use super::sinks::Out;
use super::stream::Source;

/// How often [`ShardCore::pump`] is to be called.
pub const PUMP: Duration = Duration::from_millis(5);
/// Longest time a packet waits for others of its frame while the shard is at ease.
pub(super) const HOLD: Duration = Duration::from_millis(3);
/// Longest time it waits when the shard is busy.
const HOLD_MAX: Duration = Duration::from_millis(25);
/// Shares of its time that the shard spends on handing over: above the first it holds longer, below the second less.
const BUSY: f64 = 0.75;
const AT_EASE: f64 = 0.6;
/// With fewer viewers of a stream on the shard, single sends are cheap enough.
pub(super) const HOLD_VIEWERS_MIN: usize = 32;
/// So many packets do not wait for more: a train holds about as many.
const HOLD_PACKETS_MAX: usize = 13;

/// How long packets wait for others, by how busy the shard is.
#[derive(Debug)]
pub(super) struct Holding {
    hold: Duration,
    busy: f64,
    last: Option<Instant>,
}

impl Default for Holding {
    fn default() -> Self {
        Self { hold: HOLD, busy: 0.0, last: None }
    }
}

impl Holding {
    /// A hand-over took from `begun` to `ended`.
    fn learn(&mut self, begun: Instant, ended: Instant) {
        if let Some(last) = self.last.replace(begun) {
            let took = ended.saturating_duration_since(begun).as_secs_f64();
            let since = begun.saturating_duration_since(last).as_secs_f64().max(took).max(1e-6);
            self.busy += (took / since - self.busy) / 8.0;
        }
        if self.busy > BUSY {
            self.hold = (self.hold + self.hold / 8).min(HOLD_MAX);
        } else if self.busy < AT_EASE {
            self.hold = (self.hold - self.hold / 16).max(HOLD);
        }
    }
}

impl ShardCore {
    /// Hands on everything taken in since the last flush, to links and replicas, and to viewers what is due. Returns
    /// when the oldest packet that went to viewers was taken in.
    pub fn flush(&mut self, now: Instant) -> Option<Instant> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.hand_on(now, index);
        }
        self.dirty = dirty;
        let mut oldest: Option<Instant> = None;
        let mut holding = std::mem::take(&mut self.holding);
        holding.retain(|&index| {
            let Some(due) = self.due_of(index) else { return false };
            if due > now {
                return true;
            }
            if let Some(since) = self.fan_out(now, index) {
                oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
            }
            false
        });
        self.holding = holding;
        self.links.wake();
        self.offer_backlog();
        oldest
    }

    /// A flush that began at `begun` and handed packets taken in at `oldest` to viewers is over now.
    pub fn flushed(&mut self, begun: Instant, oldest: Option<Instant>, now: Instant) {
        if let Some(oldest) = oldest {
            let delay = now.saturating_duration_since(oldest);
            self.counts.forward_delay.record(delay);
            self.punctuality.note(delay);
            self.pace.learn(begun, now);
        }
    }

    /// When [`Self::flush`] is to be called for what is held; none if nothing is.
    pub fn hold_due(&self) -> Option<Instant> {
        self.holding.iter().filter_map(|index| self.due_of(*index)).min()
    }

    /// When the viewers of a stream are to get what is held for them.
    fn due_of(&self, index: usize) -> Option<Instant> {
        let stream = self.streams.get(index)?;
        let since = stream.held_since?;
        let waits =
            stream.viewers.len() >= HOLD_VIEWERS_MIN && !stream.held_whole && stream.held.len() < HOLD_PACKETS_MAX;
        Some(if waits { since + self.pace.hold } else { since })
    }

    /// What came this turn goes to links and replicas, and is held for viewers.
    pub(super) fn hand_on(&mut self, now: Instant, index: usize) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        if stream.take_went_live()
            && let Source::Publisher(peer) = stream.source
        {
            let layers = stream.report(now);
            self.backlog.push_back(ShardEvent::PublisherLive { peer, layers });
        }
        for &(link, handle) in &stream.links {
            self.links.push_media(now, link, handle, stream.epoch, &stream.pending);
        }
        for to in &stream.replicas {
            if let Some(Some(ring)) = self.siblings.get(usize::from(to.0)) {
                let (key, packets) = (stream.key.clone(), stream.pending.clone());
                let media = ShardMedia::Packets { key, epoch: stream.epoch, packets };
                // Full: the replica's viewers find the gap by the numbers and ask for a keyframe.
                self.counts.ring_drops += u64::from(ring.try_send(media).is_err());
            }
        }
        if stream.viewers.is_empty() {
            stream.pending.clear();
            return;
        }
        if stream.held.is_empty() {
            stream.held_since = stream.pending.first().map(|_| now);
            self.holding.push(index);
        }
        stream.held_whole |= stream.pending.iter().any(|packet| stream.ends_picture(packet));
        stream.held.append(&mut stream.pending);
    }

    /// Every viewer gets what is held for it. Returns when the oldest of it was taken in.
    pub(super) fn fan_out(&mut self, now: Instant, index: usize) -> Option<Instant> {
        let stream = self.streams.get_mut(index)?;
        let mut packets = std::mem::take(&mut stream.held);
        // A shorter packet ends a train, so sound goes last. It has numbers of its own: nobody sees the order.
        packets.sort_by_key(|packet| stream.is_sound(packet));
        stream.held_since = None;
        stream.held_whole = false;
        // Viewers may go on with these packets and need what follows at once.
        let begins = packets.iter().any(|p| p.keyframe);
        let mut out = Out { socket: &*self.socket, blocked: &mut self.counts.send_blocked };
        for &index in &stream.viewers {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            if let Role::Viewer(viewer) = &mut peer.role {
                for packet in &packets {
                    self.counts.egress_packets += u64::from(viewer.forward(now, packet, &mut self.tx, &mut out));
                }
                if viewer.is_behind() && (!peer.catches_up || begins) {
                    self.scratch.push(index);
                }
            }
        }
        self.tx.flush(&mut out);
        let mut began = std::mem::take(&mut self.scratch);
        for viewer in began.drain(..) {
            self.start_catching_up(now, viewer);
        }
        self.scratch = began;
        let oldest = packets.iter().map(|p| p.ingest_at).min();
        packets.clear();
        if let Some(stream) = self.streams.get_mut(index) {
            stream.held = packets;
        }
        oldest
    }

    // --- beginning ---------------------------------------------------------------------------------------------------

    /// Sends viewers that catch up what their pace allows; to be called every [`PUMP`].
    pub fn pump(&mut self, now: Instant) {
        let mut behind = std::mem::take(&mut self.behind);
        behind.retain(|&index| self.catch_up(now, index));
        // Viewers that began meanwhile: none while this is one synchronous call.
        behind.append(&mut self.behind);
        self.behind = behind;
    }

    pub(super) fn start_catching_up(&mut self, now: Instant, index: usize) {
        if self.catch_up(now, index)
            && self.peers.get_mut(index).is_some_and(|p| !std::mem::replace(&mut p.catches_up, true))
        {
            self.behind.push(index);
        }
    }

    /// Sends one viewer what it lacks. Returns whether it still lacks something.
    fn catch_up(&mut self, now: Instant, index: usize) -> bool {
        let Some(peer) = self.peers.get_mut(index) else { return false };
        let (Role::Viewer(viewer), Some(stream)) = (&mut peer.role, self.streams.get(peer.stream)) else {
            return false;
        };
        let ring_of = |track, layer| Some((&stream.layer(track, layer)?.ring, stream.bitrate(track, layer)));
        let mut out = Out { socket: &*self.socket, blocked: &mut self.counts.send_blocked };
        self.counts.egress_packets += viewer.catch_up(now, ring_of, &mut self.tx, &mut out);
        viewer.probe(now, &mut self.tx, &mut out);
        self.tx.flush(&mut out);
        let is_busy = viewer.is_busy();
        peer.catches_up &= is_busy;
        is_busy
    }
}
