//! When to ask a publisher for a keyframe.
//!
//! Owns the throttle of one layer on one hop (shard, home shard, relay, publisher): many viewers ask, few requests go
//! on. Neither builds PLI nor sends it. See ARCHITECTURE.md, "Feedback".

use std::time::{Duration, Instant};

/// Least time between two requests for one layer on one hop.
pub const REQUEST_INTERVAL: Duration = Duration::from_millis(500);
/// How often a request that brought no keyframe is repeated on a lossy path.
pub const REPEATS_MAX: u8 = 3;

/// Coalesces PLI, FIR and joins of one layer into at most one request per [`REQUEST_INTERVAL`].
///
/// A request that comes too early is remembered and sent when it may be, unless a keyframe came meanwhile.
#[derive(Clone, Debug, Default)]
pub struct KeyframeThrottle {
    last_sent: Option<Instant>,
    /// A request is wanted from this moment on.
    wanted_at: Option<Instant>,
    /// Requests may get lost: repeat after this time without a keyframe.
    repeat_after: Option<Duration>,
    repeats_left: u8,
}

impl KeyframeThrottle {
    /// For a path that loses nothing: a relay link, another thread.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a path that loses packets: a request without a keyframe is repeated after `repeat_after`, [`REPEATS_MAX`]
    /// times. Only the last hop, to the publisher, does this.
    pub fn repeating(repeat_after: Duration) -> Self {
        Self { repeat_after: Some(repeat_after.max(REQUEST_INTERVAL)), ..Self::default() }
    }

    /// Somebody needs a keyframe now. True: send a request; false: one is on its way or will be.
    pub fn request(&mut self, now: Instant) -> bool {
        self.request_at(now, now)
    }

    /// Somebody needs a keyframe unless one comes by itself before `at`. True: send a request now.
    pub fn request_at(&mut self, now: Instant, at: Instant) -> bool {
        self.wanted_at = Some(self.wanted_at.map_or(at, |wanted| wanted.min(at)));
        self.repeats_left = REPEATS_MAX;
        self.poll(now)
    }

    /// A keyframe started: whoever waited has it.
    pub fn on_keyframe(&mut self) {
        self.wanted_at = None;
    }

    /// True when a remembered request is to be sent now.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return false;
        }
        self.last_sent = Some(now);
        self.wanted_at = match self.repeat_after {
            Some(after) if self.repeats_left > 0 => {
                self.repeats_left -= 1;
                Some(now + after)
            }
            _ => None,
        };
        true
    }

    /// When [`poll`](Self::poll) will answer true if no keyframe comes; none if nobody waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let wanted_at = self.wanted_at?;
        Some(self.last_sent.map_or(wanted_at, |sent| wanted_at.max(sent + REQUEST_INTERVAL)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{ms, start};

    #[test]
    fn many_requests_become_one_per_window() {
        let begin = start();
        let mut throttle = KeyframeThrottle::new();
        let sent: Vec<u64> = (0..1200).filter(|n| throttle.request(begin + ms(*n))).collect();
        assert_eq!(sent, [0, 500, 1000]);
    }

    #[test]
    fn a_request_that_came_too_early_is_remembered() {
        let begin = start();
        let mut throttle = KeyframeThrottle::new();
        assert!(throttle.request(begin));
        assert_eq!(throttle.poll_timeout(), None);
        assert!(!throttle.request(begin + ms(100)));
        assert_eq!(throttle.poll_timeout(), Some(begin + ms(500)));
        assert!(!throttle.poll(begin + ms(499)));
        assert!(throttle.poll(begin + ms(500)));
        assert!(!throttle.poll(begin + ms(2000)), "sent once");
    }

    #[test]
    fn a_keyframe_meanwhile_makes_it_needless() {
        let begin = start();
        let mut throttle = KeyframeThrottle::new();
        throttle.request(begin);
        throttle.request(begin + ms(100));
        throttle.on_keyframe();
        assert_eq!(throttle.poll_timeout(), None);
        assert!(!throttle.request(begin + ms(200)), "the window is still open");
        assert!(throttle.poll(begin + ms(500)));
    }

    #[test]
    fn a_join_may_wait_for_a_keyframe_that_comes_by_itself() {
        let begin = start();
        let mut throttle = KeyframeThrottle::new();
        assert!(!throttle.request_at(begin, begin + ms(1000)));
        assert!(!throttle.request_at(begin + ms(900), begin + ms(1900)), "a later join does not delay the first");
        assert_eq!(throttle.poll_timeout(), Some(begin + ms(1000)));
        assert!(throttle.request(begin + ms(950)), "a decoder in trouble does not wait");
    }

    #[test]
    fn a_lost_request_is_repeated_but_not_for_ever() {
        let begin = start();
        let mut throttle = KeyframeThrottle::repeating(ms(1000));
        assert!(throttle.request(begin));
        let sent: Vec<u64> = (0..10_000).filter(|n| throttle.poll(begin + ms(*n))).collect();
        assert_eq!(sent, [1000, 2000, 3000]);
        assert!(throttle.request(begin + ms(20_000)));
        throttle.on_keyframe();
        assert_eq!(throttle.poll_timeout(), None);
    }

    proptest! {
        #[test]
        fn requests_are_never_closer_than_the_window(steps in vec((0u64..300, 0u8..4), 1..200), repeating: bool) {
            let mut now = start();
            let mut throttle = if repeating { KeyframeThrottle::repeating(ms(100)) } else { KeyframeThrottle::new() };
            let mut last: Option<Instant> = None;
            for (step, what) in steps {
                now += ms(step);
                let sent = match what {
                    0 => throttle.request(now),
                    1 => throttle.request_at(now, now + ms(250)),
                    2 => throttle.poll(now),
                    _ => { throttle.on_keyframe(); false }
                };
                if sent {
                    prop_assert!(last.is_none_or(|last| now - last >= REQUEST_INTERVAL));
                    last = Some(now);
                }
            }
        }
    }
}
