//! What one layer of one stream still has to send, and the rule that drops to the next keyframe.
//!
//! Owns the waiting packets of the layer and the range it dropped; the limits are judged in [`super::EgressQueue`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::{MediaPacket, SourceClock};
use ams_types::{ExtSeq, LayerNo, TrackNo};

use crate::wire::EpochLow;

/// While a keyframe is waited for, it is asked for again this often.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Bytes a waiting packet counts for beyond its payload.
pub(super) const PACKET_OVERHEAD: usize = 64;

/// A packet that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Place among all packets of the stream.
    pub(super) order: u64,
    pub(super) epoch: EpochLow,
    pub(super) packet: Arc<MediaPacket>,
}

impl Waiting {
    pub(super) fn cost(&self) -> usize {
        self.packet.payload.len() + PACKET_OVERHEAD
    }
}

/// A range of numbers that was dropped and is not told to the peer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) epoch: EpochLow,
    pub(super) from: ExtSeq,
    pub(super) to: ExtSeq,
}

/// What became of a packet offered to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Taken { cost: usize },
    Dropped,
}

/// The egress queue of one layer.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) track: TrackNo,
    pub(super) layer: LayerNo,
    waiting: VecDeque<Waiting>,
    pub(super) bytes: usize,
    /// Packets without a keyframe start were seen: this is video, and only useful from keyframe to keyframe.
    pub(super) has_deltas: bool,
    /// Dropped and waiting for the next keyframe.
    skipping: bool,
    /// Numbers below it belong to what was dropped, even if they come late.
    floor: ExtSeq,
    epoch: EpochLow,
    dropped: Option<Dropped>,
    asked_at: Option<Instant>,
    /// Listed for the owner to ask the publisher for a keyframe.
    pub(super) want_listed: bool,
    pub(super) timing: Option<(EpochLow, SourceClock)>,
}

impl Lane {
    pub(super) fn new(track: TrackNo, layer: LayerNo) -> Self {
        Self {
            track,
            layer,
            waiting: VecDeque::new(),
            bytes: 0,
            has_deltas: false,
            skipping: false,
            floor: ExtSeq(0),
            epoch: EpochLow(0),
            dropped: None,
            asked_at: None,
            want_listed: false,
            timing: None,
        }
    }

    pub(super) fn offer(&mut self, order: u64, epoch: EpochLow, packet: &Arc<MediaPacket>) -> Offer {
        if epoch != self.epoch {
            // Another publication numbers anew; what was dropped of the last one interests nobody.
            (self.epoch, self.floor, self.dropped) = (epoch, ExtSeq(0), None);
        }
        self.has_deltas |= !packet.keyframe;
        if self.skipping && packet.keyframe && packet.seq >= self.floor {
            self.skipping = false;
            self.floor = packet.seq;
            self.asked_at = None;
        }
        if self.skipping || packet.seq < self.floor {
            self.note_dropped(epoch, packet.seq);
            return Offer::Dropped;
        }
        let waiting = Waiting { order, epoch, packet: packet.clone() };
        let cost = waiting.cost();
        self.bytes += cost;
        self.waiting.push_back(waiting);
        Offer::Taken { cost }
    }

    /// Whether the owner should ask for a keyframe now; at most once per [`ASK_AGAIN_AFTER`].
    pub(super) fn wants_keyframe(&mut self, now: Instant) -> bool {
        let due = self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK_AGAIN_AFTER);
        let wants = self.skipping && self.has_deltas && due;
        if wants {
            self.asked_at = Some(now);
        }
        wants
    }

    /// Drops from the oldest packet up to the next keyframe start behind it. Returns packets and bytes dropped.
    pub(super) fn drop_run(&mut self) -> (u64, usize) {
        let (mut packets, mut bytes) = (0, 0);
        while let Some(front) = self.waiting.front() {
            if packets > 0 && front.packet.keyframe {
                if front.epoch == self.epoch {
                    self.floor = self.floor.max(front.packet.seq);
                }
                return (packets, bytes);
            }
            let Some(gone) = self.pop() else { break };
            packets += 1;
            bytes += gone.cost();
            self.note_dropped(gone.epoch, gone.packet.seq);
        }
        self.skipping |= packets > 0;
        (packets, bytes)
    }

    fn note_dropped(&mut self, epoch: EpochLow, seq: ExtSeq) {
        if epoch != self.epoch {
            return;
        }
        self.floor = self.floor.max(ExtSeq(seq.0.saturating_add(1)));
        self.dropped = Some(match self.dropped {
            Some(range) => Dropped { epoch, from: range.from.min(seq), to: range.to.max(seq) },
            None => Dropped { epoch, from: seq, to: seq },
        });
    }

    pub(super) fn front(&self) -> Option<&Waiting> {
        self.waiting.front()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.cost();
        Some(waiting)
    }

    /// The dropped range, once, if packet `next` is the one to go out now: the part below it, and the part above it
    /// that was dropped before it came.
    pub(super) fn take_dropped(&mut self, next: &Waiting) -> [Option<Dropped>; 2] {
        let Some(range) = self.dropped.take().filter(|range| range.epoch == next.epoch) else {
            return [None, None];
        };
        let at = next.packet.seq.0;
        let below = at.checked_sub(1).map(|last| Dropped { to: range.to.min(ExtSeq(last)), ..range });
        let above = at.checked_add(1).map(|first| Dropped { from: range.from.max(ExtSeq(first)), ..range });
        [below, above].map(|part| part.filter(|part| part.from <= part.to))
    }
}
