//! Bounds of one connection: how many messages, sessions and waits it may have.

use std::time::{Duration, Instant};

/// A steady rate with room for a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Tokens that come back per second.
    pub per_second: f64,
    /// Tokens when rested.
    pub burst: f64,
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalLimits {
    /// Text frames; over it the connection is closed.
    pub messages: RateLimit,
    /// Publishers and viewers open at once; over it `highResourceUsage`.
    pub sessions: usize,
    /// Streams waited for at once; over it `no_stream_exist` comes without `information`, so that players poll.
    pub waits: usize,
    /// Questions about streams in flight at once; over it `highResourceUsage`.
    pub asks: usize,
    /// Silence after which the connection is closed. The SDK pings every 3 s.
    pub idle: Duration,
}

impl Default for SignalLimits {
    fn default() -> Self {
        Self {
            messages: RateLimit { per_second: 100.0, burst: 300.0 },
            sessions: 64,
            waits: 64,
            asks: 32,
            idle: Duration::from_secs(30),
        }
    }
}

/// Tokens that refill with time. Starts full.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    limit: RateLimit,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        Self { limit, tokens: limit.burst, filled_at: now }
    }

    /// Takes one token; `Err` says how long until there is one. `now` may stand still but is never trusted to.
    ///
    /// # Errors
    /// The wait until the next token, at most an hour.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - self.tokens) / self.limit.per_second.max(f64::MIN_POSITIVE);
        Err(Duration::from_secs_f64(seconds.clamp(0.001, 3600.0)))
    }

    /// Whether nothing was taken lately: a rested bucket may be forgotten.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.limit.burst
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.limit.per_second).min(self.limit.burst);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "tests need some instant to count from")]
        Instant::now()
    }

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let t0 = start();
        let mut bucket = TokenBucket::new(RateLimit { per_second: 10.0, burst: 3.0 }, t0);
        assert_eq!((0..10).filter(|_| bucket.take(t0).is_ok()).count(), 3, "the burst");
        let wait = bucket.take(t0).unwrap_err();
        assert!(wait > Duration::from_millis(90) && wait <= Duration::from_millis(101), "{wait:?}");
        let t1 = t0 + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| bucket.take(t1).is_ok()).count(), 3, "never more than the burst");
        assert!(bucket.is_full(t1 + Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_steps_back_gives_no_tokens() {
        let t0 = start() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(RateLimit { per_second: 1.0, burst: 1.0 }, t0);
        assert!(bucket.take(t0).is_ok());
        for _ in 0..5 {
            assert!(bucket.take(t0 - Duration::from_secs(5)).is_err());
        }
        assert!(bucket.take(t0 + Duration::from_millis(500)).is_err(), "the step back must not count twice");
    }

    #[test]
    fn a_rate_of_zero_never_divides_by_it() {
        let mut bucket = TokenBucket::new(RateLimit { per_second: 0.0, burst: 0.0 }, start());
        assert_eq!(bucket.take(start()), Err(Duration::from_secs(3600)));
    }
}
