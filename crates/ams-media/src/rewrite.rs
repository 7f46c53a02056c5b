//! From the numbers of sources to the numbers of one viewer.
//!
//! Owns what a viewer sees as one unbroken RTP stream: sequence numbers and timestamps of one track, and the numbers
//! that VP8 payloads carry, and where its pictures end. Which packets a viewer gets is decided elsewhere; SSRC, payload type and extension ids are written by the transport.
//!
//! The rule all else serves: **a viewer's number stands for one source packet for ever**, and is given out once. SRTP
//! makes its nonce of that number, and a nonce used for two packets gives the key away (RFC 7714 §8.4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ams_types::{Codec, ExtSeq, LayerNo};

use crate::clock;
use crate::packet::MediaPacket;
use crate::payload::vp8_ids::{self, Vp8Ids, Vp8Shift};
use crate::sent_window::SentWindow;
use crate::seq::SEQ_MAX;
use crate::timeline::Timeline;

/// Ranges of numbers remembered per viewer and track: so many switches and skips back a NACK can be answered.
pub const RANGES_MAX: usize = 64;
/// A wider gap in a source's numbers is closed for the viewer: nobody will fill it.
pub const GAP_KEPT_MAX: u64 = crate::nack::GAP_PACKETS_MAX;
/// Longest silence that shows in timestamps; they would seem to run backwards if it were half their range.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// Where a viewer's packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Counts publications and restarts of the stream as this viewer saw them. Numbers of different runs are unrelated.
    pub run: u32,
    /// Which layer of the track.
    pub layer: LayerNo,
}

/// How a packet is numbered for one viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The viewer's number: low 16 bits go into the RTP header, the rest is SRTP's rollover counter.
    pub seq: ExtSeq,
    /// The viewer's RTP timestamp.
    pub timestamp: u32,
    /// What is to be added to the numbers in a VP8 payload.
    pub vp8: Vp8Shift,
    /// The RTP marker bit: also on the last packet of the highest spatial layer a viewer gets.
    pub marker: bool,
}

impl Rewritten {
    /// SRTP's rollover counter (RFC 3711 §3.2.1).
    pub fn rollover_counter(self) -> u32 {
        (self.seq.0 >> 16) as u32
    }
}

/// The source packet a viewer's number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePacket {
    /// Where it came from.
    pub source: Source,
    /// Its number there.
    pub seq: ExtSeq,
    /// Its number at the viewer, extended.
    pub viewer_seq: ExtSeq,
    /// It was given out; if not, the packet never came, or came at a time when the viewer got none.
    pub sent: bool,
    shape: Shape,
}

impl SourcePacket {
    /// The numbering of `packet`, which must be this one.
    pub fn rewritten(&self, packet: &MediaPacket) -> Rewritten {
        self.shape.rewritten(self.viewer_seq.0, packet)
    }
}

/// How packets of a range look to the viewer, but for their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    timeline: Timeline,
    vp8: Vp8Shift,
    /// Highest spatial layer the viewer gets.
    top: u8,
}

impl Shape {
    fn rewritten(&self, number: u64, packet: &MediaPacket) -> Rewritten {
        let ends_top = packet.sublayer.is_some_and(|s| s.ends_frame && s.spatial == self.top);
        Rewritten {
            seq: ExtSeq(number),
            timestamp: self.timeline.viewer(packet.timestamp),
            vp8: self.vp8,
            marker: packet.marker || ends_top,
        }
    }
}

/// Source numbers `first..end` are viewer numbers from `viewer_first` on.
#[derive(Clone, Copy, Debug)]
struct Range {
    source: Source,
    first: u64,
    /// `u64::MAX` for the last range, which is open.
    end: u64,
    viewer_first: u64,
    shape: Shape,
    /// The viewer switched here: what the source sent earlier is not for it.
    after_switch: bool,
}

/// Numbers the packets of one track for one viewer.
///
/// Call [`switch_source`](Self::switch_source) with the first packet of every source, then
/// [`rewrite`](Self::rewrite) for each packet, that one included.
#[derive(Clone, Debug)]
pub struct SequenceRewriter {
    clock_rate: u32,
    start_timestamp: u32,
    /// One past the highest number given out.
    next: u64,
    /// Ascending in viewer numbers; the last is open.
    ranges: VecDeque<Range>,
    /// Highest number of the current source that was given a number.
    source_highest: u64,
    sent: SentWindow,
    /// Highest viewer timestamp so far, and when its packet was taken in; of a packet of the past, when it was due.
    newest: Option<(u32, Instant)>,
    /// Payloads are VP8's, with numbers of their own.
    is_vp8: bool,
    /// The newest of these as the viewer has them.
    newest_ids: Option<Vp8Ids>,
}

impl SequenceRewriter {
    /// A rewriter whose first packet will have these numbers, which should be random (RFC 3550 §5.1).
    ///
    /// Only the low 15 bits of `start_seq` count, so that a receiver cannot guess the first rollover counter wrong.
    pub fn new(clock_rate: u32, start_seq: u16, start_timestamp: u32) -> Self {
        Self {
            clock_rate,
            start_timestamp,
            next: u64::from(start_seq & 0x7fff),
            ranges: VecDeque::new(),
            source_highest: 0,
            sent: SentWindow::new(),
            newest: None,
            is_vp8: false,
            newest_ids: None,
        }
    }

    /// The same, for a track of this codec.
    pub fn for_codec(self, codec: Codec) -> Self {
        Self { is_vp8: codec == Codec::Vp8, ..self }
    }

    /// From this packet on the viewer is fed from `source`, which may be the present one after a pause.
    ///
    /// The packet takes the viewer's next number, without a gap. From a new source its timestamp follows the highest
    /// so far by the time between the ingest of both packets, and one tick at least; from the present one timestamps
    /// go on as they are. A new source that begins in the past is caught up with: see [`timeline`](crate::timeline).
    /// False, and nothing is changed, if the packet is older than what the present source gave.
    #[must_use]
    pub fn switch_source(&mut self, now: Instant, source: Source, packet: &MediaPacket) -> bool {
        if packet.seq.0 > SEQ_MAX {
            return false;
        }
        let present = self.ranges.back().filter(|range| range.source == source).copied();
        if present.is_some() && packet.seq.0 <= self.source_highest {
            return false;
        }
        // Numbers that were held open for late packets of former ranges are the new range's now.
        while self.ranges.back().is_some_and(|range| range.viewer_first >= self.next) {
            self.ranges.pop_back();
        }
        let live = present.map(|range| range.shape.timeline.live(packet.timestamp));
        let timeline = match (self.newest, live) {
            (Some((newest, _)), Some(live)) if is_ahead(newest, live) => Timeline::through(packet.timestamp, live),
            (newest, _) => {
                let age = packet.age_at(now);
                let first = newest.map_or(self.start_timestamp, |(newest, at)| {
                    let silence = packet.ingest_at.saturating_duration_since(at).min(SILENCE_MAX);
                    newest.wrapping_add(clock::ticks(silence, self.clock_rate).max(1))
                });
                Timeline::beginning(now, age, self.clock_rate, packet.timestamp, first)
            }
        };
        let ids = if self.is_vp8 { Vp8Ids::read(&packet.payload) } else { None };
        let vp8 = match (self.newest_ids, ids) {
            (Some(newest), Some(first)) => Vp8Shift::after(&newest, &first),
            _ => Vp8Shift::default(),
        };
        self.push(Range {
            source,
            first: packet.seq.0,
            end: u64::MAX,
            viewer_first: self.next,
            shape: Shape { timeline, vp8, top: u8::MAX },
            after_switch: true,
        });
        self.source_highest = packet.seq.0;
        true
    }

    /// The viewer's numbering of a packet; none for one that the viewer is not to get: of another source, from before
    /// the last switch, a duplicate, or later than anyone waits.
    ///
    /// Gaps in the source's numbers stay gaps, so that late packets fit in; see [`GAP_KEPT_MAX`] for wide ones.
    pub fn rewrite(&mut self, source: Source, packet: &MediaPacket) -> Option<Rewritten> {
        let seq = packet.seq.0;
        let (mut number, shape) = self.number_of(source, seq)?;
        if number > self.next + GAP_KEPT_MAX {
            number = self.close_gap(seq);
        }
        if !self.sent.mark(number) {
            return None;
        }
        self.next = self.next.max(number + 1);
        self.source_highest = self.source_highest.max(seq);
        let rewritten = shape.rewritten(number, packet);
        let timestamp = rewritten.timestamp;
        if self.newest.is_none_or(|(newest, _)| newest != timestamp && is_ahead(newest, timestamp)) {
            let at = shape.timeline.moment(packet.timestamp, self.clock_rate).unwrap_or(packet.ingest_at);
            self.newest = Some((timestamp, at));
            self.forget_past(packet.timestamp);
        }
        if self.is_vp8
            && let Some(ids) = Vp8Ids::read(&packet.payload).map(|ids| shape.vp8.shift(&ids))
            && self.newest_ids.is_none_or(|newest| vp8_ids::is_newer(&newest, &ids))
        {
            self.newest_ids = Some(ids);
        }
        Some(rewritten)
    }

    /// Whether a number of the present source is higher than all that were given one.
    pub fn is_new(&self, seq: ExtSeq) -> bool {
        seq.0 > self.source_highest
    }

    /// Once `timestamp` is well behind the past that the present source began with, what follows is numbered without it.
    /// Numbers that were given out keep it: sent again, they must be what they were.
    fn forget_past(&mut self, timestamp: u32) {
        let Some(last) = self.ranges.back() else { return };
        let after = self.source_highest + 1;
        if last.first < after && last.shape.timeline.has_left_past(timestamp) {
            self.split(after, self.next, after);
            if let Some(last) = self.ranges.back_mut() {
                last.shape.timeline = last.shape.timeline.without_past();
            }
        }
    }

    /// This packet of the present source is left out on purpose: the next one takes its number. The first of a picture
    /// takes the picture out of the payloads' count as well.
    ///
    /// One that is older than what was given out already leaves a gap.
    pub fn skip(&mut self, source: Source, seq: ExtSeq, is_first: bool) {
        let seq = seq.0;
        if self.part(source, seq, seq.saturating_add(1))
            && is_first
            && self.is_vp8
            && let Some(range) = self.ranges.back_mut()
        {
            range.shape.vp8 = range.shape.vp8.without_one();
        }
    }

    /// From this packet of the present source on, `top` is the highest spatial layer the viewer gets.
    pub fn set_top(&mut self, source: Source, seq: ExtSeq, top: u8) {
        let has_it = self.ranges.back().is_some_and(|range| range.shape.top == top);
        if !has_it
            && self.part(source, seq.0, seq.0)
            && let Some(range) = self.ranges.back_mut()
        {
            range.shape.top = top;
        }
    }

    /// Ends the open range before `seq` of the present source; the next has `first` under the number of `seq`. False,
    /// and nothing is changed, if something newer was given out.
    fn part(&mut self, source: Source, seq: u64, first: u64) -> bool {
        if self.ranges.back().is_none_or(|range| seq < range.first) {
            return false;
        }
        let Some((number, _)) = self.number_of(source, seq).filter(|(number, _)| *number >= self.next) else {
            return false;
        };
        let number = if number > self.next + GAP_KEPT_MAX { self.close_gap(seq) } else { number };
        self.split(seq, number, first);
        true
    }

    /// What a number the viewer names in a NACK stands for; none for numbers that are long past or not yet given out.
    pub fn source_of(&self, viewer_seq: u16) -> Option<SourcePacket> {
        let newest = self.next.checked_sub(1)?;
        let back = ExtSeq(newest).low16().wrapping_sub(viewer_seq);
        let number = newest.checked_sub(back.into())?;
        let sent = self.sent.contains(number)?;
        let range = self.ranges.iter().rev().find(|range| range.viewer_first <= number)?;
        let seq = range.first + (number - range.viewer_first);
        (seq < range.end).then_some(SourcePacket {
            source: range.source,
            seq: ExtSeq(seq),
            viewer_seq: ExtSeq(number),
            sent,
            shape: range.shape,
        })
    }

    /// The viewer's timestamp for what the present source takes now, as sender reports need it; none before the first
    /// packet.
    pub fn timestamp(&self, source_timestamp: u32) -> Option<u32> {
        self.ranges.back().map(|range| range.shape.timeline.live(source_timestamp))
    }

    /// Whether a viewer's number was given out before it last switched its source or resumed.
    pub fn is_before_switch(&self, viewer_seq: ExtSeq) -> bool {
        let switch = self.ranges.iter().rev().find(|range| range.after_switch);
        switch.is_some_and(|range| viewer_seq.0 < range.viewer_first)
    }

    /// Where the viewer is fed from now.
    pub fn source(&self) -> Option<Source> {
        self.ranges.back().map(|range| range.source)
    }

    fn number_of(&self, source: Source, seq: u64) -> Option<(u64, Shape)> {
        if seq > SEQ_MAX {
            return None;
        }
        for range in self.ranges.iter().rev() {
            if range.source != source {
                return None;
            }
            if seq >= range.first {
                let number = range.viewer_first + (seq - range.first);
                return (seq < range.end).then_some((number, range.shape));
            }
            if range.after_switch {
                return None;
            }
        }
        None
    }

    /// Gives `seq`, of the open range, the next free number and returns that.
    fn close_gap(&mut self, seq: u64) -> u64 {
        let Some(last) = self.ranges.back() else { return self.next };
        let number = self.next.max(last.viewer_first);
        let end = last.first + (number - last.viewer_first);
        self.split(end, number, seq);
        number
    }

    /// Ends the open range before `end`, which has viewer number `number`; `first` has that number in the next.
    fn split(&mut self, end: u64, number: u64, first: u64) {
        let Some(last) = self.ranges.back_mut() else { return };
        if end == last.first {
            last.first = first;
            return;
        }
        let next = Range { first, viewer_first: number, after_switch: false, ..*last };
        last.end = end;
        self.push(next);
    }

    fn push(&mut self, range: Range) {
        if self.ranges.len() == RANGES_MAX {
            self.ranges.pop_front();
        }
        self.ranges.push_back(range);
        debug_assert!(
            self.ranges.iter().is_sorted_by(|a, b| a.viewer_first < b.viewer_first),
            "viewer ranges are not ascending"
        );
    }
}

/// `timestamp` is not before `newest`, over the wrap.
fn is_ahead(newest: u32, timestamp: u32) -> bool {
    timestamp.wrapping_sub(newest) < 1 << 31
}

#[cfg(test)]
mod tests;
