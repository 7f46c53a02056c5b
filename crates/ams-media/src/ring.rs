//! Recent packets of one layer, kept so that NACKs can be answered and viewers can begin.
//!
//! Owns the stored packets and nothing else. Two spans are kept: the last few seconds, which viewers may ask for again,
//! and the run since the latest keyframe, from which a joining viewer starts. One ring per track, layer and shard, shared by every viewer there; memory
//! is bounded by [`RingLimits`]. See ARCHITECTURE.md, "Feedback".

use std::sync::Arc;
use std::time::Duration;

use ams_types::ExtSeq;

use crate::packet::MediaPacket;
use crate::seq::SEQ_MAX;

/// What a ring may hold; whichever bound is met first evicts the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    /// Sequence numbers between the oldest and the newest; rounded up to a power of two.
    pub packets: usize,
    /// Bounds of everything before the latest keyframe, kept for NACKs.
    pub history: Kept,
    /// Bounds of the run since the latest keyframe. A run beyond them is given up: nobody can begin with it any more.
    pub run: Kept,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Sum of payloads of the whole ring.
    pub bytes: usize,
    /// Time between the ingest of the oldest and of the newest.
    pub span: Duration,
}

impl RingLimits {
    /// For a layer of video: a run of a key interval of 10 s at 3 Mbit/s, else four seconds of history.
    pub const VIDEO: Self = Self {
        packets: 4096,
        history: Kept { bytes: 2 << 20, span: Duration::from_secs(4) },
        run: Kept { bytes: 4 << 20, span: Duration::from_secs(12) },
    };
    /// For audio, of which every packet is a beginning.
    pub const AUDIO: Self = Self {
        packets: 256,
        history: Kept { bytes: 256 << 10, span: Duration::from_secs(4) },
        run: Kept { bytes: 256 << 10, span: Duration::from_secs(4) },
    };
}

/// What became of a packet offered to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It is new and stored.
    Stored,
    /// It is here already: do not forward it again.
    Duplicate,
    /// Its place was given up already (or its number is no packet's). No viewer could ask for it.
    TooOld,
}

/// The last packets of one layer, by sequence number.
#[derive(Debug)]
pub struct PacketRing {
    limits: RingLimits,
    slots: Box<[Option<Arc<MediaPacket>>]>,
    /// Numbers that may be in use: `oldest..next`.
    oldest: u64,
    next: u64,
    /// Something was evicted: numbers below `oldest` are gone, not yet to come.
    evicted: bool,
    packets: usize,
    bytes: usize,
    keyframe: Option<u64>,
}

impl PacketRing {
    /// An empty ring. The slots, 8 bytes each, are allocated at once.
    pub fn new(limits: RingLimits) -> Self {
        let slots = limits.packets.max(1).next_power_of_two();
        Self {
            limits,
            slots: (0..slots).map(|_| None).collect(),
            oldest: 0,
            next: 0,
            evicted: false,
            packets: 0,
            bytes: 0,
            keyframe: None,
        }
    }

    /// Stores a packet. One that is far ahead of the newest evicts all before it.
    pub fn insert(&mut self, packet: Arc<MediaPacket>) -> Insert {
        let seq = packet.seq.0;
        if seq > SEQ_MAX {
            return Insert::TooOld;
        }
        if self.next == 0 {
            (self.oldest, self.next) = (seq, seq);
        }
        if seq >= self.next {
            let oldest = (seq + 1).saturating_sub(self.slots.len() as u64);
            self.evict_before(oldest);
            self.next = seq + 1;
        } else if seq < self.oldest {
            if self.evicted || self.next - seq > self.slots.len() as u64 {
                return Insert::TooOld;
            }
            self.oldest = seq;
        } else if self.get(packet.seq).is_some() {
            return Insert::Duplicate;
        }
        if packet.keyframe {
            self.keyframe = self.keyframe.max(Some(seq));
        }
        self.packets += 1;
        self.bytes += packet.payload.len();
        let newest_at = packet.ingest_at;
        let slot = self.slot(seq);
        self.slots[slot] = Some(packet);
        while self.oldest < self.next - 1 {
            let in_run = self.keyframe.is_some_and(|start| start <= self.oldest);
            let kept = if in_run { self.limits.run } else { self.limits.history };
            let held_for =
                self.slots[self.slot(self.oldest)].as_ref().map(|p| newest_at.saturating_duration_since(p.ingest_at));
            if self.bytes <= kept.bytes && held_for.is_some_and(|held| held <= kept.span) {
                break;
            }
            self.evict_before(self.oldest + 1);
        }
        self.check_invariants();
        Insert::Stored
    }

    /// The packet with this number, if it is still here.
    pub fn get(&self, seq: ExtSeq) -> Option<&Arc<MediaPacket>> {
        self.slots[self.slot(seq.0)].as_ref().filter(|packet| packet.seq == seq)
    }

    /// What a viewer needs to begin at the latest keyframe: every packet here from its first one on, by number.
    ///
    /// None if no keyframe start is here.
    pub fn run_since_keyframe(&self) -> Option<impl Iterator<Item = &Arc<MediaPacket>>> {
        let first = self.keyframe?;
        Some((first..self.next).filter_map(|seq| self.get(ExtSeq(seq))))
    }

    /// Number of the latest keyframe's first packet, if it is here.
    pub fn keyframe_start(&self) -> Option<ExtSeq> {
        self.keyframe.map(ExtSeq)
    }

    /// How much media the run since the latest keyframe holds, in ticks of the codec's clock; none if no run is here.
    pub fn run_ticks(&self) -> Option<u32> {
        let start = self.get(ExtSeq(self.keyframe?))?;
        let newest = self.get(ExtSeq(self.next - 1))?;
        Some(newest.timestamp.wrapping_sub(start.timestamp))
    }

    /// The first packet here with this number or a higher one; none if all are lower.
    pub fn first_from(&self, seq: ExtSeq) -> Option<&Arc<MediaPacket>> {
        (seq.0.max(self.oldest)..self.next).find_map(|seq| self.get(ExtSeq(seq)))
    }

    /// Packets here.
    pub fn len(&self) -> usize {
        self.packets
    }

    /// No packet is here.
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Sum of their payloads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, as at the start of a new epoch.
    pub fn clear(&mut self) {
        self.slots.fill(None);
        (self.oldest, self.next, self.evicted) = (0, 0, false);
        (self.packets, self.bytes, self.keyframe) = (0, 0, None);
    }

    fn slot(&self, seq: u64) -> usize {
        // The mask keeps it below the length, which is a power of two.
        (seq & (self.slots.len() as u64 - 1)) as usize
    }

    /// Gives up every number below `oldest`; at most one step per slot.
    fn evict_before(&mut self, oldest: u64) {
        if oldest <= self.oldest {
            return;
        }
        for seq in self.oldest..oldest.min(self.next) {
            let slot = self.slot(seq);
            if let Some(packet) = self.slots[slot].take() {
                self.packets -= 1;
                self.bytes -= packet.payload.len();
            }
        }
        self.oldest = oldest;
        self.evicted = true;
        if self.keyframe.is_some_and(|keyframe| keyframe < oldest) {
            self.keyframe = None;
        }
    }

    fn check_invariants(&self) {
        debug_assert!(self.oldest < self.next, "ring range inverted");
        debug_assert!(self.next - self.oldest <= self.slots.len() as u64, "ring range too wide");
        debug_assert!(self.packets <= self.slots.len(), "more packets than slots");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{ms, packet, start};

    const WIDE: Kept = Kept { bytes: 10_000, span: Duration::from_secs(10) };
    const SMALL: RingLimits = RingLimits { packets: 8, history: WIDE, run: WIDE };

    fn insert(ring: &mut PacketRing, seq: u64, at: Instant) -> Insert {
        ring.insert(Arc::new(packet(seq, 0, at)))
    }

    fn held(ring: &PacketRing, seqs: std::ops::Range<u64>) -> Vec<u64> {
        seqs.filter(|s| ring.get(ExtSeq(*s)).is_some()).collect()
    }

    #[test]
    fn packets_are_kept_by_number() {
        let now = start();
        for (name, seqs, last, want) in [
            ("in order", &[100, 101, 102][..], Insert::Stored, &[100, 101, 102][..]),
            ("late", &[100, 102, 101], Insert::Stored, &[100, 101, 102]),
            ("before the first", &[100, 99], Insert::Stored, &[99, 100]),
            ("far before the first", &[100, 93, 92], Insert::TooOld, &[93, 100]),
            ("duplicate", &[100, 101, 100], Insert::Duplicate, &[100, 101]),
            ("full", &[100, 101, 108], Insert::Stored, &[101, 108]),
            ("late for an evicted place", &[100, 101, 108, 100], Insert::TooOld, &[101, 108]),
            ("jump", &[100, 101, 150], Insert::Stored, &[150]),
            ("late after a jump", &[100, 101, 150, 144], Insert::TooOld, &[150]),
            ("no packet's number", &[100, u64::MAX], Insert::TooOld, &[100]),
        ] {
            let mut ring = PacketRing::new(SMALL);
            let results: Vec<_> = seqs.iter().map(|s| insert(&mut ring, *s, now)).collect();
            assert_eq!(results.last(), Some(&last), "{name}");
            assert_eq!(held(&ring, 80..200), want, "{name}");
            assert_eq!((ring.len(), ring.bytes()), (want.len(), want.len() * 100), "{name}");
        }
    }

    #[test]
    fn numbers_may_cross_the_wire_s_wrap() {
        let mut ring = PacketRing::new(SMALL);
        for seq in 65_533..65_540 {
            insert(&mut ring, seq, start());
        }
        assert_eq!(held(&ring, 65_530..65_545), Vec::from_iter(65_533..65_540));
    }

    #[test]
    fn bytes_and_time_are_bounds_too() {
        let begin = start();
        let mut by_bytes = PacketRing::new(RingLimits { history: Kept { bytes: 250, ..WIDE }, ..SMALL });
        let mut by_time = PacketRing::new(RingLimits { history: Kept { span: ms(15), ..WIDE }, ..SMALL });
        for n in 0..4 {
            insert(&mut by_bytes, 100 + n, begin);
            insert(&mut by_time, 100 + n, begin + ms(10 * n));
        }
        assert_eq!(held(&by_bytes, 90..110), [102, 103]);
        assert_eq!(held(&by_time, 90..110), [102, 103]);
        let mut one = PacketRing::new(RingLimits { history: Kept { bytes: 10, ..WIDE }, ..SMALL });
        insert(&mut one, 1, begin);
        assert_eq!(one.len(), 1, "the newest stays even if it alone is over the bound");
    }

    #[test]
    fn the_latest_keyframe_begins_a_run() {
        let now = start();
        let mut ring = PacketRing::new(SMALL);
        assert!(ring.run_since_keyframe().is_none());
        for seq in [10, 11, 12, 14] {
            let packet = packet(seq, 0, now);
            ring.insert(Arc::new(if seq == 11 || seq == 12 { packet.keyframe() } else { packet }));
        }
        let run = |ring: &PacketRing| ring.run_since_keyframe().map(|run| run.map(|p| p.seq.0).collect::<Vec<_>>());
        assert_eq!(run(&ring), Some(vec![12, 14]));
        insert(&mut ring, 20, now);
        assert_eq!(run(&ring), None, "its start was evicted");
    }

    #[test]
    fn a_run_is_kept_longer_than_history_and_then_given_up() {
        let begin = start();
        let history = Kept { span: ms(40), ..WIDE };
        let mut ring = PacketRing::new(RingLimits { packets: 64, history, run: Kept { span: ms(100), ..WIDE } });
        let insert = |ring: &mut PacketRing, n: u64| {
            let packet = packet(n, 0, begin + ms(10 * n));
            ring.insert(Arc::new(if n == 5 { packet.keyframe() } else { packet }));
        };
        (1..=9).for_each(|n| insert(&mut ring, n));
        assert_eq!(held(&ring, 0..99), [5, 6, 7, 8, 9], "before the keyframe history's span counts");
        (10..=15).for_each(|n| insert(&mut ring, n));
        assert_eq!(held(&ring, 0..99), Vec::from_iter(5..=15), "the run's span is wider");
        assert_eq!(ring.first_from(ExtSeq(2)).map(|p| p.seq.0), Some(5));
        assert_eq!(ring.first_from(ExtSeq(16)).map(|p| p.seq.0), None);
        insert(&mut ring, 16);
        assert_eq!(ring.keyframe_start(), None);
        assert_eq!(held(&ring, 0..99), Vec::from_iter(12..=16), "what is left is history");
    }

    #[test]
    fn a_cleared_ring_begins_anew() {
        let mut ring = PacketRing::new(SMALL);
        insert(&mut ring, 1000, start());
        ring.clear();
        assert!(ring.is_empty() && ring.bytes() == 0);
        assert_eq!(insert(&mut ring, 5, start()), Insert::Stored);
        assert_eq!(held(&ring, 0..2000), [5]);
        assert_eq!(ring.slots.len(), 8);
    }

    proptest! {
        #[test]
        fn counts_match_what_is_held(steps in vec((0u64..20, any::<bool>(), any::<bool>()), 1..200)) {
            let now = start();
            let mut ring = PacketRing::new(RingLimits {
                history: Kept { bytes: 300, ..WIDE },
                run: Kept { bytes: 500, ..WIDE },
                ..SMALL
            });
            let mut at = 1000u64;
            for (n, (step, back, keyframe)) in steps.into_iter().enumerate() {
                at = if back { at.saturating_sub(step) } else { at + step };
                let packet = packet(at, 0, now + ms(n as u64));
                let known = ring.get(ExtSeq(at)).is_some();
                let result = ring.insert(Arc::new(if keyframe { packet.keyframe() } else { packet }));
                prop_assert_eq!(known, result == Insert::Duplicate);
                let held = held(&ring, 0..6000);
                prop_assert_eq!(held.len(), ring.len());
                prop_assert_eq!(held.len() * 100, ring.bytes());
                prop_assert!(ring.bytes() <= 500);
                if let Some(start) = ring.keyframe_start() {
                    prop_assert!(ring.get(start).is_some_and(|p| p.keyframe));
                }
            }
        }
    }
}
