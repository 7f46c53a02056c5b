//! From the timestamps of a source to those of one viewer.
//!
//! Owns one line between the two. Where a viewer begins with packets of the past, the line has a knee: what the source
//! took seconds for is over in a quarter of them, so that the timestamps a viewer sees keep pace with the arrival of its
//! packets. Timestamps that ran ahead of the clock would make receivers wait, and sound and picture part.

use std::time::{Duration, Instant};

use crate::clock;

/// A run of the past is shown so many times faster than it was recorded.
pub const CATCH_UP_SPEED: u32 = 4;
/// Younger packets are as good as live ones.
const AGE_MIN: Duration = Duration::from_millis(200);
/// Longest past that is shown; what is older begins later than it should.
const AGE_MAX: Duration = Duration::from_secs(20);

/// How the timestamps of one source become those of one viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// To be added to a source's timestamp.
    offset: u32,
    past: Option<Past>,
}

/// The part of a line in which time passes faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Past {
    /// The source timestamp at which it ends.
    end: u32,
    /// Its length, in ticks of the source.
    span: u32,
    /// When its first packet was sent.
    began: Instant,
}

impl Timeline {
    /// A line on which `source` is `viewer`.
    pub(crate) fn through(source: u32, viewer: u32) -> Self {
        Self { offset: viewer.wrapping_sub(source), past: None }
    }

    /// A line that begins `now` with a packet of this age, which has timestamp `source` and is to have `viewer`.
    pub(crate) fn beginning(now: Instant, age: Duration, clock_rate: u32, source: u32, viewer: u32) -> Self {
        if age < AGE_MIN {
            return Self::through(source, viewer);
        }
        // While the past is shown, more of it accrues.
        let span = clock::ticks(age.min(AGE_MAX), clock_rate) / (CATCH_UP_SPEED - 1) * CATCH_UP_SPEED;
        let end = source.wrapping_add(span);
        Self {
            offset: viewer.wrapping_add(span / CATCH_UP_SPEED).wrapping_sub(end),
            past: Some(Past { end, span, began: now }),
        }
    }

    /// The viewer's timestamp.
    pub(crate) fn viewer(&self, source: u32) -> u32 {
        match self.past_of(source) {
            Some((past, left)) => past.end.wrapping_add(self.offset).wrapping_sub(left / CATCH_UP_SPEED),
            None => self.live(source),
        }
    }

    /// The viewer's timestamp for what the source takes now, whatever the viewer is shown.
    pub(crate) fn live(&self, source: u32) -> u32 {
        source.wrapping_add(self.offset)
    }

    /// When a live packet with this viewer's timestamp would have been taken in; none for those of no past.
    pub(crate) fn moment(&self, source: u32, clock_rate: u32) -> Option<Instant> {
        let (past, left) = self.past_of(source)?;
        let ticks = past.span.saturating_sub(left) / CATCH_UP_SPEED;
        Some(past.began + clock::duration_of_ticks(ticks.into(), clock_rate))
    }

    /// Whether there is a past that `source` is well behind: its timestamps come again after hours.
    pub(crate) fn has_left_past(&self, source: u32) -> bool {
        self.past.is_some_and(|past| (past.span..1 << 31).contains(&source.wrapping_sub(past.end)))
    }

    /// The same line without its past.
    pub(crate) fn without_past(self) -> Self {
        Self { past: None, ..self }
    }

    /// The past a source's timestamp is of, and the ticks that are left of it. A picture may be older than the first by its
    /// timestamp: frames are not always sent in the order they are shown.
    fn past_of(&self, source: u32) -> Option<(Past, u32)> {
        let past = self.past?;
        let left = past.end.wrapping_sub(source);
        (left > 0 && left <= past.span.saturating_mul(2)).then_some((past, left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{ms, start};

    const RATE: u32 = 90_000;

    #[test]
    fn a_past_of_three_seconds_is_over_in_one() {
        let begin = start();
        let line = Timeline::beginning(begin, ms(3000), RATE, 500_000, 1000);
        // Seconds of the source since its first packet → seconds of the viewer, and of the clock while it is the past.
        for (source, viewer, moment) in [
            (0.0, 0.0, Some(0)),
            (1.0, 0.25, Some(250)),
            (3.0, 0.75, Some(750)),
            (3.999_96, 0.999_99, Some(999)),
            (4.0, 1.0, None),
            (5.0, 2.0, None),
            (-1.0, -0.25, Some(0)),
        ] {
            let ticks = |seconds: f64| (seconds * f64::from(RATE)).round() as i64 as u32;
            let at = 500_000u32.wrapping_add(ticks(source));
            assert_eq!(line.viewer(at), 1000u32.wrapping_add(ticks(viewer)), "{source}");
            assert_eq!(line.moment(at, RATE).map(|m| (m - begin).as_millis()), moment, "{source}");
        }
        assert_eq!(line.live(500_000 + 3 * RATE), 1000, "what is taken now belongs to what is sent now");
    }

    #[test]
    fn what_is_nearly_live_is_shown_as_it_is() {
        let line = Timeline::beginning(start(), ms(199), RATE, 7, 1000);
        assert_eq!(line, Timeline::through(7, 1000));
    }

    #[test]
    fn a_past_is_forgotten_before_its_timestamps_come_again() {
        let line = Timeline::beginning(start(), ms(3000), RATE, 0, 1000);
        for source in [RATE, 4 * RATE, 7 * RATE] {
            assert!(!line.has_left_past(source), "{source}");
        }
        assert!(line.has_left_past(9 * RATE));
        let line = line.without_past();
        assert_eq!(line.viewer(RATE), line.live(RATE));
        assert!(!line.has_left_past(9 * RATE));
    }

    proptest! {
        #[test]
        fn time_never_stands_still(age in 0u64..100_000, source: u32, viewer: u32, steps in proptest::collection::vec(4u32..100_000, 1..200)) {
            let line = Timeline::beginning(start(), ms(age), RATE, source, viewer);
            prop_assert_eq!(line.viewer(source), viewer);
            let (mut at, mut last) = (source, viewer);
            for step in steps {
                at = at.wrapping_add(step);
                let next = line.viewer(at);
                let passed = next.wrapping_sub(last);
                prop_assert!(passed > 0 && passed <= step, "{} of {}", passed, step);
                last = next;
            }
        }
    }
}
