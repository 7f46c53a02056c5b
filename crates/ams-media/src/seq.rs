//! From 16-bit sequence numbers on the wire to numbers that do not wrap.

use ams_types::ExtSeq;

/// No packet's number is above this: a stream of 100,000 packets a second gets there after a million years. Numbers
/// that other nodes send may claim to be.
pub const SEQ_MAX: u64 = 1 << 62;

/// Extends the sequence numbers of one layer (RFC 3550 appendix A.1), over wraps and reordering.
///
/// The first number is placed in the second cycle, so that packets which were sent before it but arrive after have a
/// place too.
#[derive(Clone, Debug, Default)]
pub struct SeqExtender {
    highest: Option<u64>,
}

impl SeqExtender {
    /// Where the first packet's cycle begins.
    pub const FIRST_CYCLE: u64 = 1 << 16;

    /// The extended number of a packet; nearest to the highest so far, at most 32 768 before it.
    pub fn extend(&mut self, seq: u16) -> ExtSeq {
        let Some(highest) = self.highest else {
            let first = Self::FIRST_CYCLE | u64::from(seq);
            self.highest = Some(first);
            return ExtSeq(first);
        };
        let ahead = seq.wrapping_sub(ExtSeq(highest).low16());
        if ahead < 1 << 15 {
            let extended = highest + u64::from(ahead);
            self.highest = Some(extended);
            ExtSeq(extended)
        } else {
            ExtSeq(highest - u64::from(ahead.wrapping_neg()))
        }
    }

    /// The highest number so far.
    pub fn highest(&self) -> Option<ExtSeq> {
        self.highest.map(ExtSeq)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_extended() {
        const C: u64 = SeqExtender::FIRST_CYCLE;
        for (name, seen, next, want) in [
            ("first", &[][..], 7, C + 7),
            ("in order", &[10], 11, C + 11),
            ("again", &[10], 10, C + 10),
            ("wraps", &[65_535], 0, 2 * C),
            ("late", &[11], 10, C + 10),
            ("late, over the wrap", &[65_535, 2], 65_534, 2 * C - 2),
            ("before the first, over the wrap", &[0], 65_535, C - 1),
            ("far ahead", &[0], 32_767, C + 32_767),
            ("half a cycle is behind", &[0], 32_768, C - 32_768),
            ("late does not move the highest", &[100, 50], 101, C + 101),
        ] {
            let mut extender = SeqExtender::default();
            for seq in seen {
                extender.extend(*seq);
            }
            assert_eq!(extender.extend(next), ExtSeq(want), "{name}");
        }
    }

    proptest! {
        #[test]
        fn low_bits_are_kept_and_steps_are_short(numbers in vec(any::<u16>(), 1..200)) {
            let mut extender = SeqExtender::default();
            for seq in numbers {
                let before = extender.highest();
                let extended = extender.extend(seq);
                prop_assert_eq!(extended.low16(), seq);
                if let Some(before) = before {
                    prop_assert!(extended.0.abs_diff(before.0) <= 1 << 15);
                }
            }
        }
    }
}
