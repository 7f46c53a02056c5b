//! Packets that were sent and are to be reported on.
//!
//! Owns a ring of eight bytes per packet, which grows with the packets under way up to [`PACKETS_MAX`].

use std::time::Instant;

/// Packets remembered at most: two seconds at 10 Mbit/s.
const PACKETS_MAX: usize = 2048;
/// And at first.
const PACKETS_MIN: usize = 128;

/// A packet that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// When it was sent, in microseconds since the history began.
    pub(super) at_us: i64,
    /// Its length in bytes.
    pub(super) len: u32,
    /// The probe it belongs to; 0 for none.
    pub(super) probe: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Low 32 bits of the microseconds: differences of less than half an hour are all that is asked for.
    at_us: u32,
    len: u16,
    probe: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Sent,
    Lost,
}

#[derive(Debug)]
pub(super) struct SentHistory {
    began: Instant,
    slots: Vec<Slot>,
    /// One past the last number sent, extended.
    next: u64,
    /// Every number below was reported or given up.
    oldest: u64,
    now_us: i64,
}

impl SentHistory {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, slots: Vec::new(), next: 0, oldest: 0, now_us: 0 }
    }

    pub(super) fn push(&mut self, now: Instant, seq: u16, len: usize, probe: u8) {
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); PACKETS_MIN];
            self.next = 0x1_0000 + u64::from(seq);
            self.oldest = self.next;
        }
        // Numbers rise by one; should one be left out, its slot stays empty.
        let step = seq.wrapping_sub((self.next & 0xffff) as u16);
        if step >= 0x8000 {
            return;
        }
        for _ in 0..step.min(PACKETS_MAX as u16) {
            self.put(Slot::default());
        }
        self.now_us = i64::try_from(now.saturating_duration_since(self.began).as_micros()).unwrap_or(i64::MAX);
        let at_us = (self.now_us & 0xffff_ffff) as u32;
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.put(Slot { at_us, len, probe, state: State::Sent });
    }

    fn put(&mut self, slot: Slot) {
        if self.next - self.oldest >= self.slots.len() as u64 {
            if self.slots.len() < PACKETS_MAX {
                self.grow();
            } else {
                self.oldest = self.next + 1 - self.slots.len() as u64;
            }
        }
        let at = self.place(self.next);
        self.slots[at] = slot;
        self.next += 1;
    }

    fn grow(&mut self) {
        let mut wider = vec![Slot::default(); self.slots.len() * 2];
        let mask = wider.len() as u64 - 1;
        for number in self.oldest..self.next {
            wider[(number & mask) as usize] = self.slots[self.place(number)];
        }
        self.slots = wider;
    }

    /// The packet with this number arrived. None if it was reported before, or is unknown.
    pub(super) fn arrived(&mut self, seq: u16) -> Option<Sent> {
        let (number, slot) = self.find(seq)?;
        if slot.state == State::Empty {
            return None;
        }
        let sent = Sent {
            at_us: self.now_us - i64::from(((self.now_us & 0xffff_ffff) as u32).wrapping_sub(slot.at_us)),
            len: slot.len.into(),
            probe: slot.probe,
        };
        let at = self.place(number);
        self.slots[at] = Slot::default();
        self.pass_reported();
        Some(sent)
    }

    /// The packet with this number is reported missing. True the first time; it may still arrive.
    pub(super) fn lost(&mut self, seq: u16) -> bool {
        let Some((number, slot)) = self.find(seq) else { return false };
        let at = self.place(number);
        let is_new = slot.state == State::Sent;
        if is_new {
            self.slots[at].state = State::Lost;
        }
        is_new
    }

    fn find(&self, seq: u16) -> Option<(u64, Slot)> {
        let newest = self.next.checked_sub(1)?;
        let back = ((newest & 0xffff) as u16).wrapping_sub(seq);
        let number = newest.checked_sub(back.into())?;
        (number >= self.oldest && !self.slots.is_empty()).then(|| (number, self.slots[self.place(number)]))
    }

    /// What is reported at the old end needs no room any more; what was reported lost only while room is left.
    fn pass_reported(&mut self) {
        while self.oldest < self.next && self.slots[self.place(self.oldest)].state != State::Sent {
            self.oldest += 1;
        }
    }

    fn place(&self, number: u64) -> usize {
        // The length is a power of two, and not zero where this is called.
        (number & (self.slots.len() as u64 - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn packets_are_reported_once_over_the_wrap() {
        let begin = crate::testing::start();
        let mut history = SentHistory::new(begin);
        for n in 0..1000u16 {
            history.push(begin + Duration::from_millis(n.into()), n.wrapping_add(65_000), 100 + usize::from(n), 0);
        }
        for n in (0..1000u16).rev() {
            let sent = history.arrived(n.wrapping_add(65_000)).unwrap();
            assert_eq!((sent.at_us, sent.len), (i64::from(n) * 1000, 100 + u32::from(n)));
            assert_eq!(history.arrived(n.wrapping_add(65_000)), None);
        }
        assert!(history.slots.len() <= 1024);
    }

    #[test]
    fn a_number_given_out_twice_counts_once() {
        let begin = crate::testing::start();
        let mut history = SentHistory::new(begin);
        for seq in [10, 11, 11, 9, 12] {
            history.push(begin, seq, 100, 0);
        }
        assert_eq!(history.next, 0x1_0000 + 13);
        assert_eq!([10, 11, 12, 9].map(|seq| history.arrived(seq).is_some()), [true, true, true, false]);
    }

    #[test]
    fn unreported_packets_are_given_up_and_memory_is_bounded() {
        let begin = crate::testing::start();
        let mut history = SentHistory::new(begin);
        (0..50_000u32).for_each(|n| history.push(begin, (n & 0xffff) as u16, 100, 0));
        assert_eq!(history.slots.len(), PACKETS_MAX);
        assert!(history.arrived((50_000u32 - 1) as u16).is_some());
        assert!(history.arrived((50_000u32 - 3000) as u16).is_none());
        assert!(history.lost((50_000u32 - 5) as u16) && !history.lost((50_000u32 - 5) as u16));
        assert!(history.arrived((50_000u32 - 5) as u16).is_some(), "late, not lost");
    }
}
