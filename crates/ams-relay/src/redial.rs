//! How long to wait before dialling a lost peer again.
//!
//! Owns the back-off of one supervisor. The caller brings the randomness and does the waiting.

use std::time::Duration;

/// Exponential back-off with jitter: the wait doubles from `min` to `max` and each is spread over its upper half.
#[derive(Clone, Debug)]
pub struct Redial {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Redial {
    /// Starts at `min`; no wait is longer than `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        Self { min, max, next: min }
    }

    /// The next wait. `jitter` is a fresh random number from 0 to 1; anything outside counts as the nearer end.
    pub fn wait(&mut self, jitter: f64) -> Duration {
        let wait = self.next;
        self.next = self.next.saturating_mul(2).min(self.max);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
        wait.mul_f64(0.5 + jitter / 2.0)
    }

    /// The link stood: start from `min` next time.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_success() {
        let mut redial = Redial::new(Duration::from_millis(100), Duration::from_secs(5));
        let waits: Vec<u128> = (0..8).map(|_| redial.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        redial.reset();
        assert_eq!(redial.wait(0.0), Duration::from_millis(50), "jitter shortens by half at most");
        assert_eq!(redial.wait(f64::NAN), Duration::from_millis(200));
    }
}
