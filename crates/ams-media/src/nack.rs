//! Which packets of a publisher's layer to ask for again.
//!
//! Owns the list of missing packets of one layer at ingest. It neither builds RTCP nor sends it, and NACKs from viewers
//! are none of its business: those are answered from the [`PacketRing`](crate::PacketRing).

use std::time::{Duration, Instant};

use ams_types::ExtSeq;

/// More packets missing at once than this are not asked for: a keyframe is cheaper and sooner.
pub const GAP_PACKETS_MAX: u64 = 512;
/// Most packets missing at the same time.
pub const MISSING_MAX: usize = 1024;
/// How often one packet is asked for.
pub const ATTEMPTS_MAX: u8 = 10;
/// Least time between two requests for one packet, however short the round trip.
pub const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// Time a packet has to arrive out of order before it counts as lost.
pub const REORDER_WAIT: Duration = Duration::from_millis(5);

const _: () = assert!(GAP_PACKETS_MAX <= MISSING_MAX as u64);

/// Too much is missing to be asked for packet by packet: ask for a keyframe (PLI) instead. Nothing older is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{missing} packets are missing; a keyframe must be asked for")]
pub struct GapTooWide {
    /// How many packets are given up.
    pub missing: u64,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: ExtSeq,
    since: Instant,
    asked: Option<(Instant, u8)>,
}

impl Missing {
    fn due_at(&self, interval: Duration) -> Instant {
        match self.asked {
            None => self.since + REORDER_WAIT,
            Some((at, _)) => at + interval,
        }
    }
}

/// What became of missing packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NackCounters {
    /// Sequence numbers asked for, repetitions included.
    pub asked: u64,
    /// Packets that came as a retransmission.
    pub recovered: u64,
    /// Packets that were given up.
    pub given_up: u64,
}

/// Notes gaps in one layer's numbers and says when to ask for what is missing (generic NACK, RFC 4585 §6.2.1).
#[derive(Clone, Debug, Default)]
pub struct NackGenerator {
    highest: Option<ExtSeq>,
    /// Ascending by number.
    missing: Vec<Missing>,
    counters: NackCounters,
}

impl NackGenerator {
    /// A packet arrived; `recovered` if as a retransmission (RFC 4588).
    ///
    /// # Errors
    /// [`GapTooWide`] when too much is missing; the packet itself counts as arrived all the same.
    pub fn on_packet(&mut self, now: Instant, seq: ExtSeq, recovered: bool) -> Result<(), GapTooWide> {
        self.counters.recovered += u64::from(recovered);
        let Some(highest) = self.highest else {
            self.highest = Some(seq);
            return Ok(());
        };
        if seq <= highest {
            if let Ok(at) = self.missing.binary_search_by_key(&seq, |m| m.seq) {
                self.missing.remove(at);
            }
            return Ok(());
        }
        self.highest = Some(seq);
        let gap = seq.0 - highest.0 - 1;
        let missing = gap.saturating_add(self.missing.len() as u64);
        if gap > GAP_PACKETS_MAX || missing > MISSING_MAX as u64 {
            self.counters.given_up += missing;
            self.missing.clear();
            return Err(GapTooWide { missing });
        }
        self.missing.extend((highest.0 + 1..seq.0).map(|s| Missing { seq: ExtSeq(s), since: now, asked: None }));
        Ok(())
    }

    /// Writes the numbers to ask for now to `out`, ascending, and returns how many.
    ///
    /// Each number comes at most once per `rtt` (but see [`RETRY_INTERVAL_MIN`]) and [`ATTEMPTS_MAX`] times in all.
    /// What does not fit is due again at the next call.
    pub fn poll(&mut self, now: Instant, rtt: Duration, out: &mut [ExtSeq]) -> usize {
        let interval = rtt.max(RETRY_INTERVAL_MIN);
        let mut written = 0;
        let mut given_up = 0;
        self.missing.retain_mut(|missing| {
            if missing.due_at(interval) > now {
                return true;
            }
            let attempts = missing.asked.map_or(0, |(_, attempts)| attempts);
            if attempts >= ATTEMPTS_MAX {
                given_up += 1;
                return false;
            }
            if let Some(slot) = out.get_mut(written) {
                *slot = missing.seq;
                written += 1;
                missing.asked = Some((now, attempts + 1));
            }
            true
        });
        self.counters.asked += written as u64;
        self.counters.given_up += given_up;
        written
    }

    /// When [`poll`](Self::poll) has something to do next; none while nothing is missing.
    pub fn poll_timeout(&self, rtt: Duration) -> Option<Instant> {
        let interval = rtt.max(RETRY_INTERVAL_MIN);
        self.missing.iter().map(|m| m.due_at(interval)).min()
    }

    /// Gives up what is missing before `seq`: a keyframe started there and nobody needs what came before.
    pub fn forget_before(&mut self, seq: ExtSeq) {
        let forgotten = self.missing.partition_point(|m| m.seq < seq);
        self.missing.drain(..forgotten);
        self.counters.given_up += forgotten as u64;
    }

    /// How many packets are missing now and still waited for.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// What became of missing packets so far.
    pub fn counters(&self) -> NackCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{ms, start};

    const RTT: Duration = Duration::from_millis(50);

    fn fed(now: Instant, seqs: &[u64]) -> NackGenerator {
        let mut nack = NackGenerator::default();
        for seq in seqs {
            nack.on_packet(now, ExtSeq(*seq), false).unwrap();
        }
        nack
    }

    fn due(nack: &mut NackGenerator, now: Instant) -> Vec<u64> {
        let mut out = [ExtSeq(0); 600];
        let count = nack.poll(now, RTT, &mut out);
        out[..count].iter().map(|s| s.0).collect()
    }

    #[test]
    fn what_is_missing_is_asked_for() {
        for (name, seqs, want) in [
            ("nothing missing", &[1, 2, 3][..], &[][..]),
            ("one", &[1, 3], &[2]),
            ("over the wrap of the wire's 16 bits", &[65_534, 65_538], &[65_535, 65_536, 65_537]),
            ("arrived late", &[1, 4, 2], &[3]),
            ("before the first", &[5, 3], &[]),
            ("twice", &[1, 3, 3, 5], &[2, 4]),
        ] {
            let now = start();
            assert_eq!(due(&mut fed(now, seqs), now + REORDER_WAIT), want, "{name}");
        }
    }

    #[test]
    fn a_packet_is_asked_for_once_per_round_trip_and_then_given_up() {
        let begin = start();
        let mut nack = fed(begin, &[1, 3]);
        assert_eq!(due(&mut nack, begin), [], "it may only be late");
        let mut asked = 0;
        for tick in 0..200 {
            asked += due(&mut nack, begin + REORDER_WAIT + ms(10 * tick)).len();
            assert!(asked as u64 <= 1 + tick / 5, "more than once in {RTT:?}");
        }
        assert_eq!(asked, usize::from(ATTEMPTS_MAX));
        assert_eq!(nack.missing(), 0);
        assert_eq!(nack.poll_timeout(RTT), None);
        assert_eq!(nack.counters(), NackCounters { asked: 10, recovered: 0, given_up: 1 });
    }

    #[test]
    fn an_instant_round_trip_does_not_mean_a_storm() {
        let begin = start() + REORDER_WAIT;
        let mut nack = fed(begin - REORDER_WAIT, &[1, 3]);
        let mut out = [ExtSeq(0); 4];
        let asked: usize = (0..20).map(|tick| nack.poll(begin + ms(tick), Duration::ZERO, &mut out)).sum();
        assert_eq!(asked, 1);
        assert_eq!(nack.poll_timeout(Duration::ZERO), Some(begin + RETRY_INTERVAL_MIN));
    }

    #[test]
    fn what_does_not_fit_comes_next_time() {
        let now = start();
        let mut nack = fed(now, &[1, 6]);
        let mut out = [ExtSeq(0); 3];
        assert_eq!(nack.poll(now + ms(5), RTT, &mut out), 3);
        assert_eq!(nack.poll(now + ms(5), RTT, &mut out), 1);
        assert_eq!(out[0], ExtSeq(5));
    }

    #[test]
    fn too_wide_a_gap_is_left_to_a_keyframe() {
        let now = start();
        for (name, seqs, next, missing) in [
            ("widest", &[1][..], 2 + GAP_PACKETS_MAX, None),
            ("one more", &[1], 3 + GAP_PACKETS_MAX, Some(GAP_PACKETS_MAX + 1)),
            ("small gaps add up", &[1, 514, 1027], 1029, Some(1025)),
            ("numbers jump", &[1], u64::MAX, Some(u64::MAX - 2)),
        ] {
            let mut nack = fed(now, seqs);
            let got = nack.on_packet(now, ExtSeq(next), false).err().map(|e| e.missing);
            assert_eq!(got, missing, "{name}");
            assert_eq!(due(&mut nack, now + REORDER_WAIT).is_empty(), missing.is_some(), "{name}");
        }
    }

    #[test]
    fn a_retransmission_is_not_asked_for_again() {
        let now = start();
        let mut nack = fed(now, &[1, 3]);
        nack.on_packet(now, ExtSeq(2), true).unwrap();
        assert_eq!(due(&mut nack, now + ms(100)), []);
        assert_eq!(nack.counters().recovered, 1);
    }

    #[test]
    fn a_keyframe_ends_the_wait_for_what_came_before() {
        let now = start();
        let mut nack = fed(now, &[1, 3, 5, 7]);
        nack.forget_before(ExtSeq(5));
        assert_eq!(due(&mut nack, now + REORDER_WAIT), [6]);
    }

    proptest! {
        #[test]
        fn only_missing_numbers_are_asked_for(steps in vec((0u64..40, any::<bool>()), 1..300)) {
            let begin = start();
            let mut nack = NackGenerator::default();
            let mut arrived = std::collections::HashSet::new();
            let mut highest = 1000u64;
            for (at, (step, back)) in steps.into_iter().enumerate() {
                let now = begin + ms(at as u64);
                let seq = if back { highest.saturating_sub(step) } else { highest + step };
                highest = highest.max(seq);
                arrived.insert(seq);
                let _ = nack.on_packet(now, ExtSeq(seq), back);
                for asked in due(&mut nack, now) {
                    prop_assert!(asked < highest && !arrived.contains(&asked));
                }
                prop_assert!(nack.missing() <= MISSING_MAX);
            }
        }
    }
}
