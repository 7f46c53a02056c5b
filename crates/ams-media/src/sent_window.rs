//! Which of a viewer's recent sequence numbers were given out, so that none is given out twice.

/// Numbers that are remembered, counted back from the highest.
pub(crate) const WINDOW: u64 = 2048;
const WORDS: usize = (WINDOW / 64) as usize;

/// One bit for each of the last [`WINDOW`] numbers.
#[derive(Clone, Debug)]
pub(crate) struct SentWindow {
    /// One past the highest number marked.
    next: u64,
    bits: [u64; WORDS],
}

impl SentWindow {
    pub(crate) fn new() -> Self {
        Self { next: 0, bits: [0; WORDS] }
    }

    /// Marks a number. False if it was marked before, or is too old to tell.
    pub(crate) fn mark(&mut self, number: u64) -> bool {
        if number >= self.next {
            self.forget(self.next, number);
            self.next = number + 1;
        } else if self.is_too_old(number) {
            return false;
        }
        let (word, bit) = place(number);
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }

    /// Whether a number was marked; none if that is forgotten.
    pub(crate) fn contains(&self, number: u64) -> Option<bool> {
        if self.is_too_old(number) {
            return None;
        }
        let (word, bit) = place(number);
        Some(number < self.next && self.bits[word] & bit != 0)
    }

    fn is_too_old(&self, number: u64) -> bool {
        number + WINDOW < self.next
    }

    /// Clears the places of numbers that come into the window.
    fn forget(&mut self, from: u64, to: u64) {
        if to - from >= WINDOW {
            self.bits = [0; WORDS];
            return;
        }
        for number in from..=to {
            let (word, bit) = place(number);
            self.bits[word] &= !bit;
        }
    }
}

/// Word and bit of a number; the word is always below [`WORDS`].
fn place(number: u64) -> (usize, u64) {
    ((number % WINDOW / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_ends_where_it_says() {
        let mut sent = SentWindow::new();
        assert!(sent.mark(0) && sent.mark(WINDOW));
        assert_eq!((sent.contains(0), sent.contains(1)), (None, Some(false)));
        assert!(!sent.mark(0), "too old to tell");
        assert!(sent.mark(1) && !sent.mark(1));
        assert_eq!(sent.contains(WINDOW + 1), Some(false), "not yet given out");
    }

    proptest! {
        #[test]
        fn no_number_is_marked_twice(steps in vec((0u64..3000, any::<bool>()), 1..300)) {
            let (mut sent, mut model, mut at) = (SentWindow::new(), HashSet::from([10_000]), 10_000u64);
            sent.mark(at);
            for (step, back) in steps {
                let number = if back { at.saturating_sub(step) } else { at + step % 40 };
                let highest = at.max(number);
                let too_old = number + WINDOW <= highest;
                prop_assert_eq!(sent.mark(number), !too_old && !model.contains(&number));
                if !too_old { model.insert(number); }
                at = highest;
            }
        }
    }
}
