//! How much of a stream's bursts one viewer's path is given at once.
//!
//! Owns the credit and nothing else. A keyframe has many times the bytes of other pictures, and all of them are there in
//! one moment: sent so, they fill the queue of a narrow path, lose what does not fit, and hold up the sound. What goes
//! beyond the credit is sent later, from the ring.

use std::time::{Duration, Instant};

use ams_types::Bitrate;

/// Pace as a share of the estimate, in percent: what was held up must be able to catch up. But not while a queue is there.
const PACE_PERCENT: u64 = 200;
const PACE_QUEUED_PERCENT: u64 = 100;
/// Several packets may always go at once, or few could be sent together.
const BURST_MIN: i64 = 6_000;

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// It carried whatever was sent: the estimate says no more than that.
    Wide,
    /// It has been found full at the estimate, more or less.
    Limited,
    /// A queue is there now.
    Queued,
}

impl Path {
    /// The queue a burst may fill, at the estimate.
    fn queue(self) -> Duration {
        Duration::from_millis(if self == Self::Wide { 250 } else { 80 })
    }
}

/// The credit of one viewer; without an estimate it has no end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: Option<Bitrate>,
    /// Most bytes that may go at once.
    burst: i64,
    /// Bytes; the last packet may overdraw it.
    credit: i64,
    at: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { rate: None, burst: i64::MAX, credit: i64::MAX, at: now }
    }

    /// Follows the estimate of the path.
    pub(crate) fn set_estimate(&mut self, estimate: Option<Bitrate>, path: Path) {
        let percent = if path == Path::Queued { PACE_QUEUED_PERCENT } else { PACE_PERCENT };
        self.rate = estimate.map(|estimate| Bitrate(estimate.0.saturating_mul(percent) / 100));
        self.burst = estimate.map_or(i64::MAX, |estimate| bytes(estimate, path.queue()).max(BURST_MIN));
    }

    /// Bytes that may go now; none where there is no limit.
    pub(crate) fn credit(&mut self, now: Instant) -> Option<i64> {
        let rate = self.rate?;
        if now != self.at {
            let elapsed = now.saturating_duration_since(self.at).min(Duration::from_secs(1));
            self.at = now;
            self.credit = self.credit.saturating_add(bytes(rate, elapsed)).min(self.burst);
        }
        Some(self.credit)
    }

    pub(crate) fn spend(&mut self, bytes: i64) {
        self.credit = self.credit.saturating_sub(bytes);
    }
}

/// What comes at this rate in this time.
fn bytes(rate: Bitrate, time: Duration) -> i64 {
    i64::try_from(u128::from(rate.0) * time.as_micros() / 8_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1200 bytes that may go at once.
    fn burst(pace: &mut Pace, now: Instant) -> usize {
        (0..1000)
            .take_while(|_| pace.credit(now).is_none_or(|credit| credit > 0) && [pace.spend(1200)].len() == 1)
            .count()
    }

    #[test]
    fn a_burst_is_as_long_as_the_queue_it_may_fill() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut pace = Pace::new(begin);
        assert_eq!(burst(&mut pace, at(1)), 1000, "no estimate, no limit");
        pace.set_estimate(Some(Bitrate(8_000_000)), Path::Wide);
        assert_eq!(burst(&mut pace, at(1000)), 209, "250 kB: a keyframe, mostly");
        pace.set_estimate(Some(Bitrate(8_000_000)), Path::Limited);
        assert_eq!(burst(&mut pace, at(2000)), 67, "80 kB, overdrawn by 400");
        assert_eq!(burst(&mut pace, at(2000)), 0);
        assert_eq!(burst(&mut pace, at(2010)), 17, "20 kB in 10 ms");
        pace.set_estimate(Some(Bitrate(300_000)), Path::Queued);
        assert_eq!(burst(&mut pace, at(9000)), 5, "six kB at least");
    }

    #[test]
    fn media_of_the_estimated_rate_never_waits() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        pace.set_estimate(Some(Bitrate(1_000_000)), Path::Queued);
        for picture in 0..300u64 {
            // 30 pictures of 4 kB a second.
            let now = begin + Duration::from_millis(picture * 33);
            for _ in 0..4 {
                assert!(pace.credit(now) > Some(0), "picture {picture}");
                pace.spend(1000);
            }
        }
    }
}
