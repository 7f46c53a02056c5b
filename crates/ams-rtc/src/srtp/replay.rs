//! Which packet indexes of one source were already accepted (RFC 3711 §3.3.2).
//!
//! A bitmap over the last [`WINDOW`] indexes. Ask with [`ReplayWindow::is_fresh`], and only after authentication tell
//! it with [`ReplayWindow::accept`].

/// Indexes remembered: half a second of a 20 Mbit/s stream, more reordering than any path shows.
pub(super) const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// The accepted indexes of one source.
#[derive(Clone)]
pub(super) struct ReplayWindow {
    highest: u64,
    /// Bit `index % WINDOW` is set if that index, within the window below `highest`, was accepted.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Starts with `first` as the only accepted index.
    pub(super) fn starting_at(first: u64) -> ReplayWindow {
        let mut window = ReplayWindow { highest: first, seen: [0; WORDS] };
        window.mark(first);
        window
    }

    /// The highest index accepted so far.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `index` is neither seen before nor too old to tell.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        self.highest - index < WINDOW && self.seen[word(index)] & bit(index) == 0
    }

    /// Remembers `index` as seen.
    pub(super) fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..=index {
                    self.seen[word(skipped)] &= !bit(skipped);
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        self.seen[word(index)] |= bit(index);
    }
}

fn word(index: u64) -> usize {
    ((index % WINDOW) / 64) as usize
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_is_fresh_once_and_old_ones_never() {
        let mut window = ReplayWindow::starting_at(5000);
        let rows = [
            ("the first again", 5000, false),
            ("next", 5001, true),
            ("next again", 5001, false),
            ("reordered", 4999, true),
            ("reordered again", 4999, false),
            ("oldest inside", 5001 - WINDOW + 1, true),
            ("just outside", 5001 - WINDOW, false),
            ("jump", 5001 + 3 * WINDOW, true),
            ("before the jump, now too old", 5002, false),
            ("inside after the jump", 5001 + 3 * WINDOW - 7, true),
        ];
        for (name, index, want) in rows {
            assert_eq!(window.is_fresh(index), want, "{name}");
            if want {
                window.accept(index);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_a_set(indexes in proptest::collection::vec(0u64..6000, 1..400)) {
            let mut window = ReplayWindow::starting_at(3000);
            let mut accepted = std::collections::BTreeSet::from([3000]);
            for index in indexes {
                let highest = *accepted.last().unwrap();
                let want = !accepted.contains(&index) && index + WINDOW > highest;
                proptest::prop_assert_eq!(window.is_fresh(index), want);
                if want {
                    window.accept(index);
                    accepted.insert(index);
                }
            }
        }
    }
}
