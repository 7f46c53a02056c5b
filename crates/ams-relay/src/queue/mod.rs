//! What one link still has to send, bounded in time and bytes, and fair between its streams.
//!
//! Owns the waiting frames of one link and the rule for when they are too many. Media never waits for a slow peer: what
//! is older than [`QueueLimits::age_max`], or more than a stream's bytes, is dropped up to the next keyframe of its
//! layer, counted, and told to the peer as a gap. A stream's trouble stays its own: each is served in turns of equal
//! bytes. Control frames go first and are never dropped; when they pile up the peer is not
//! reading, and the link has failed. Told the time; no socket, no task.

mod lane;
mod write_buf;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::track::{LAYERS_MAX, TRACKS_MAX};
use ams_media::{MediaPacket, SourceClock};
use ams_types::{Epoch, LayerNo, TrackNo};
use bytes::{Bytes, BytesMut};

use crate::error::RelayError;
use crate::wire::media::media_head_into;
use crate::wire::{DataMessage, EpochLow, Frame, Gap, StreamHandle, Timing, WireError};
use lane::{Dropped, Lane, Offer, Waiting};

pub use write_buf::{BATCH_LEN, COPY_LEN_MAX, SLICES_MAX, WriteBuf};

/// Bytes a stream may send before the next one has its turn.
const TURN_LEN: usize = 8 * 1024;
/// Most layers one stream may have waiting.
const LANES_MAX: usize = TRACKS_MAX * LAYERS_MAX;

/// The limits of one link's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Oldest media still sent, from its ingest on this node.
    pub age_max: Duration,
    /// Most media bytes one stream may have waiting.
    pub stream_bytes_max: usize,
    /// Media bytes on the whole link above which streams with more than an equal share drop.
    pub link_bytes_max: usize,
    /// Most bytes of data channel messages one stream may have waiting; further ones are refused.
    pub stream_data_bytes_max: usize,
    /// Most bytes of control frames that may wait; more is [`RelayError::ControlOverflow`].
    pub control_bytes_max: usize,
    /// Most streams on the link.
    pub streams_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            age_max: Duration::from_millis(300),
            stream_bytes_max: 4 * 1024 * 1024,
            link_bytes_max: 64 * 1024 * 1024,
            stream_data_bytes_max: 256 * 1024,
            // 10,000 subscriptions with all their positions, at once after a redial.
            control_bytes_max: 8 * 1024 * 1024,
            streams_max: 10_000,
        }
    }
}

/// A layer of a stream on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerRef {
    /// The subscription.
    pub handle: StreamHandle,
    /// The track.
    pub track: TrackNo,
    /// Its layer.
    pub layer: LayerNo,
}

/// What became of something pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits to be sent.
    Queued,
    /// It was dropped and counted: its layer waits for a keyframe, or its limit is reached.
    Dropped,
    /// No stream is open under that handle.
    NoSuchStream,
}

/// What one stream, or the whole link, sent and did not send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressStats {
    /// Media packets waiting.
    pub queued_packets: u64,
    /// Media bytes waiting.
    pub queued_bytes: u64,
    /// Media packets handed to the socket.
    pub sent_packets: u64,
    /// Payload bytes of them.
    pub sent_bytes: u64,
    /// Media packets dropped because the peer was too slow.
    pub dropped_packets: u64,
    /// Data channel messages refused because too many waited.
    pub dropped_messages: u64,
    /// Gap frames handed to the socket.
    pub gaps: u64,
}

#[derive(Debug, Default)]
struct Stream {
    lanes: Vec<Lane>,
    data: VecDeque<Bytes>,
    data_bytes: usize,
    bytes: usize,
    /// In the round of those that have something to send.
    in_round: bool,
    next_order: u64,
    stats: EgressStats,
}

/// The egress queue of one link, on either end of it.
///
/// Call [`EgressQueue::open`] before a stream's first frame and [`EgressQueue::close`] after its last. After pushing,
/// wake the task that calls [`EgressQueue::fill`], and ask [`EgressQueue::poll_keyframe_want`] until it is `None`.
#[derive(Debug)]
pub struct EgressQueue {
    limits: QueueLimits,
    control: BytesMut,
    streams: HashMap<StreamHandle, Stream>,
    round: VecDeque<StreamHandle>,
    wants: VecDeque<LayerRef>,
    bytes: usize,
    totals: EgressStats,
    finished: bool,
}

impl EgressQueue {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            control: BytesMut::new(),
            streams: HashMap::new(),
            round: VecDeque::new(),
            wants: VecDeque::new(),
            bytes: 0,
            totals: EgressStats::default(),
            finished: false,
        }
    }

    /// Lets media and messages of `handle` in. Opening it twice changes nothing. Returns whether it is open: not when
    /// the link has its most streams.
    pub fn open(&mut self, handle: StreamHandle) -> bool {
        if self.streams.contains_key(&handle) {
            return true;
        }
        let room = self.streams.len() < self.limits.streams_max;
        if room {
            self.streams.insert(handle, Stream::default());
        }
        room
    }

    /// Forgets `handle` and what waits of it. Returns what it sent and dropped.
    pub fn close(&mut self, handle: StreamHandle) -> Option<EgressStats> {
        let stream = self.streams.remove(&handle)?;
        self.bytes -= stream.bytes;
        self.round.retain(|other| *other != handle);
        self.wants.retain(|want| want.handle != handle);
        Some(stream.stats())
    }

    /// Puts a frame in front of all media.
    ///
    /// # Errors
    /// [`RelayError::ControlOverflow`]: the peer does not read; drop the link. [`RelayError::Wire`]: the frame is over
    /// a limit of the protocol and was not queued; the link is fine.
    pub fn push_control(&mut self, frame: &Frame<'_>) -> Result<(), RelayError> {
        let before = self.control.len();
        frame.encode_into(&mut self.control)?;
        let queued = self.control.len();
        if queued > self.limits.control_bytes_max {
            self.control.truncate(before);
            return Err(RelayError::ControlOverflow { queued, max: self.limits.control_bytes_max });
        }
        Ok(())
    }

    /// Queues one packet, and drops what is too much.
    pub fn push_media(
        &mut self,
        now: Instant,
        handle: StreamHandle,
        epoch: Epoch,
        packet: &Arc<MediaPacket>,
    ) -> Pushed {
        let Some(stream) = self.streams.get_mut(&handle) else {
            return Pushed::NoSuchStream;
        };
        let order = stream.next_order;
        let Some(lane) = stream.lane(packet.track, packet.layer) else {
            stream.count_dropped(1, &mut self.totals);
            return Pushed::Dropped;
        };
        let offer = lane.offer(order, epoch.into(), packet);
        let pushed = match offer {
            Offer::Taken { cost } => {
                stream.next_order += 1;
                stream.bytes += cost;
                self.bytes += cost;
                Pushed::Queued
            }
            Offer::Dropped => {
                stream.count_dropped(1, &mut self.totals);
                Pushed::Dropped
            }
        };
        let backlogged = self.round.len().max(1);
        let share = match self.bytes > self.limits.link_bytes_max {
            true => self.limits.stream_bytes_max.min(self.limits.link_bytes_max / backlogged),
            false => self.limits.stream_bytes_max,
        };
        self.bytes -= stream.shed(now, self.limits.age_max, share, &mut self.totals);
        stream.list_wants(now, handle, &mut self.wants);
        stream.join_round(handle, &mut self.round);
        pushed
    }

    /// Notes a layer's newest sender report; it replaces one that still waits.
    pub fn push_timing(
        &mut self,
        handle: StreamHandle,
        epoch: Epoch,
        track: TrackNo,
        layer: LayerNo,
        clock: SourceClock,
    ) -> Pushed {
        let Some(stream) = self.streams.get_mut(&handle) else {
            return Pushed::NoSuchStream;
        };
        let Some(lane) = stream.lane(track, layer) else {
            return Pushed::Dropped;
        };
        lane.timing = Some((epoch.into(), clock));
        stream.join_round(handle, &mut self.round);
        Pushed::Queued
    }

    /// Queues a data channel message behind the stream's earlier ones, all of them before its media.
    ///
    /// # Errors
    /// The message is over the protocol's limit.
    pub fn push_data(&mut self, message: &DataMessage<'_>) -> Result<Pushed, WireError> {
        let handle = message.handle;
        let Some(stream) = self.streams.get_mut(&handle) else {
            return Ok(Pushed::NoSuchStream);
        };
        let mut bytes = BytesMut::with_capacity(message.payload.len() + 256);
        Frame::DataMessage(message.clone()).encode_into(&mut bytes)?;
        if stream.data_bytes + bytes.len() > self.limits.stream_data_bytes_max {
            stream.stats.dropped_messages += 1;
            self.totals.dropped_messages += 1;
            return Ok(Pushed::Dropped);
        }
        stream.data_bytes += bytes.len();
        stream.data.push_back(bytes.freeze());
        stream.join_round(handle, &mut self.round);
        Ok(Pushed::Queued)
    }

    /// The next layer the publisher should be asked a keyframe of, because media was dropped here. Each is named again
    /// once a second until one comes.
    pub fn poll_keyframe_want(&mut self) -> Option<LayerRef> {
        let want = self.wants.pop_front()?;
        if let Some(lane) = self.streams.get_mut(&want.handle).and_then(|s| s.find_lane(want.track, want.layer)) {
            lane.want_listed = false;
        }
        Some(want)
    }

    /// Moves frames into `out` until it is full or nothing waits. Returns the bytes moved.
    pub fn fill(&mut self, now: Instant, out: &mut WriteBuf) -> usize {
        let before = out.len();
        if !self.control.is_empty() {
            match self.control.len() <= BATCH_LEN {
                true => {
                    let control = &self.control;
                    let copied: Result<(), std::convert::Infallible> = out.head(|to| {
                        to.extend_from_slice(control);
                        Ok(())
                    });
                    let Ok(()) = copied;
                    self.control.clear();
                }
                false => out.payload(&self.control.split().freeze()),
            }
        }
        while !out.is_full() {
            let Some(handle) = self.round.pop_front() else { break };
            let Some(stream) = self.streams.get_mut(&handle) else { continue };
            stream.in_round = false;
            self.bytes -= stream.shed(now, self.limits.age_max, usize::MAX, &mut self.totals);
            self.bytes -= stream.take_turn(now, handle, out, &mut self.totals);
            stream.list_wants(now, handle, &mut self.wants);
            stream.join_round(handle, &mut self.round);
        }
        out.len() - before
    }

    /// No more will be pushed: once empty, the writer may close the connection.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether [`EgressQueue::finish`] was called.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.round.is_empty()
    }

    /// What one stream sent and dropped.
    pub fn stream_stats(&self, handle: StreamHandle) -> Option<EgressStats> {
        self.streams.get(&handle).map(Stream::stats)
    }

    /// What the link sent and dropped, closed streams included.
    pub fn stats(&self) -> EgressStats {
        EgressStats {
            queued_packets: self.streams.values().map(|s| s.stats().queued_packets).sum(),
            queued_bytes: self.bytes as u64,
            ..self.totals
        }
    }
}

impl Stream {
    fn stats(&self) -> EgressStats {
        EgressStats {
            queued_packets: self.lanes.iter().map(|lane| lane.len() as u64).sum(),
            queued_bytes: self.bytes as u64,
            ..self.stats
        }
    }

    fn find_lane(&mut self, track: TrackNo, layer: LayerNo) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.track == track && lane.layer == layer)
    }

    /// The lane of a layer, made when new; none when a stream would have more layers than any can.
    fn lane(&mut self, track: TrackNo, layer: LayerNo) -> Option<&mut Lane> {
        let at = self.lanes.iter().position(|lane| lane.track == track && lane.layer == layer);
        let at = at.unwrap_or_else(|| {
            if self.lanes.len() < LANES_MAX {
                self.lanes.push(Lane::new(track, layer));
                self.lanes.len() - 1
            } else {
                LANES_MAX
            }
        });
        self.lanes.get_mut(at)
    }

    fn has_something(&self) -> bool {
        !self.data.is_empty() || self.lanes.iter().any(|lane| lane.len() > 0 || lane.timing.is_some())
    }

    fn join_round(&mut self, handle: StreamHandle, round: &mut VecDeque<StreamHandle>) {
        if !self.in_round && self.has_something() {
            self.in_round = true;
            round.push_back(handle);
        }
    }

    fn count_dropped(&mut self, packets: u64, totals: &mut EgressStats) {
        self.stats.dropped_packets += packets;
        totals.dropped_packets += packets;
    }

    fn list_wants(&mut self, now: Instant, handle: StreamHandle, wants: &mut VecDeque<LayerRef>) {
        for lane in &mut self.lanes {
            if lane.wants_keyframe(now) && !lane.want_listed {
                lane.want_listed = true;
                wants.push_back(LayerRef { handle, track: lane.track, layer: lane.layer });
            }
        }
    }

    /// Drops until the limits hold, each time up to the layer's next keyframe: what waited too long, and for the bytes
    /// first the video with most of them and only then audio. Returns the bytes dropped.
    fn shed(&mut self, now: Instant, age_max: Duration, bytes_max: usize, totals: &mut EgressStats) -> usize {
        let (mut packets, mut bytes) = (0, 0);
        for lane in &mut self.lanes {
            while lane.front().is_some_and(|f| now.saturating_duration_since(f.packet.ingest_at) > age_max) {
                let run = lane.drop_run();
                (packets, bytes) = (packets + run.0, bytes + run.1);
            }
        }
        while self.bytes - bytes > bytes_max {
            let fattest = self.lanes.iter_mut().filter(|lane| lane.len() > 0).max_by_key(|l| (l.has_deltas, l.bytes));
            let Some(lane) = fattest else { break };
            let run = lane.drop_run();
            (packets, bytes) = (packets + run.0, bytes + run.1);
        }
        self.bytes -= bytes;
        self.count_dropped(packets, totals);
        bytes
    }

    /// Moves up to a turn's bytes into `out`. Returns the media bytes that no longer wait.
    fn take_turn(&mut self, now: Instant, handle: StreamHandle, out: &mut WriteBuf, totals: &mut EgressStats) -> usize {
        let end = out.len() + TURN_LEN;
        for lane in &mut self.lanes {
            if let Some((epoch, clock)) = lane.timing.take() {
                let (track, layer) = (lane.track, lane.layer);
                let age = now.saturating_duration_since(clock.learned_at);
                let timing = Timing { handle, epoch, track, layer, ntp: clock.ntp, rtp: clock.rtp, age };
                put(out, &Frame::Timing(timing));
            }
        }
        while out.len() < end {
            let Some(message) = self.data.pop_front() else { break };
            self.data_bytes -= message.len();
            out.payload(&message);
        }
        let mut moved = 0;
        while out.len() < end {
            let next = self.lanes.iter_mut().filter(|lane| lane.len() > 0);
            let Some(lane) = next.min_by_key(|lane| lane.front().map_or(u64::MAX, |front| front.order)) else { break };
            let Some(waiting) = lane.pop() else { break };
            let layer = LayerRef { handle, track: lane.track, layer: lane.layer };
            let dropped = lane.take_dropped(&waiting);
            moved += waiting.cost();
            self.bytes -= waiting.cost();
            let gaps = write_packet(now, layer, &waiting, dropped, out);
            for stats in [&mut self.stats, &mut *totals] {
                stats.gaps += gaps;
                stats.sent_packets += 1;
                stats.sent_bytes += waiting.packet.payload.len() as u64;
            }
        }
        moved
    }
}

/// Writes a packet and, in front of it, the gaps it ends. Returns the number of gaps.
fn write_packet(
    now: Instant,
    layer: LayerRef,
    waiting: &Waiting,
    dropped: [Option<Dropped>; 2],
    out: &mut WriteBuf,
) -> u64 {
    let LayerRef { handle, track, layer } = layer;
    let mut gaps = 0;
    for Dropped { epoch, from, to } in dropped.into_iter().flatten() {
        put(out, &Frame::Gap(Gap { handle, epoch, track, layer, from, to }));
        gaps += 1;
    }
    let age = waiting.packet.age_at(now);
    let epoch: EpochLow = waiting.epoch;
    match out.head(|to| media_head_into(to, handle, epoch, &waiting.packet, age)) {
        Ok(()) => out.payload(&waiting.packet.payload),
        // A payload no frame can carry; ingest never makes one. The peer hears of the hole.
        Err(_) => {
            let seq = waiting.packet.seq;
            put(out, &Frame::Gap(Gap { handle, epoch, track, layer, from: seq, to: seq }));
            gaps += 1;
        }
    }
    gaps
}

/// Writes a frame whose fields all have a fixed length, and which so is never over a limit.
fn put(out: &mut WriteBuf, frame: &Frame<'_>) {
    let written = out.head(|to| frame.encode_into(to));
    debug_assert!(written.is_ok(), "fixed-length frame over a limit");
}

#[cfg(test)]
mod tests;
