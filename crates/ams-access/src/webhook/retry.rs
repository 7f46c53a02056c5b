//! When a webhook is sent again.

use std::time::Duration;

/// Most further tries, whatever the settings say.
const RETRIES_MAX: u32 = 32;
/// Longest time between two.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// How often and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub retries: u32,
    /// Time before the first of them; doubled each time.
    pub first: Duration,
    /// The longest time between two, jitter left out.
    pub max: Duration,
}

impl RetryPolicy {
    /// From `webhookRetryCount` and `webhookRetryDelay` (ms). AMS waits the same time between all; here it grows.
    pub fn from_settings(retry_count: i64, retry_delay_ms: i64) -> Self {
        let first = Duration::from_millis(u64::try_from(retry_delay_ms).unwrap_or(0)).min(DELAY_MAX);
        let retries = u32::try_from(retry_count.max(0)).unwrap_or(u32::MAX).min(RETRIES_MAX);
        Self { retries, first: first.max(Duration::from_millis(10)), max: DELAY_MAX }
    }

    /// Time to wait before retry `retry` (the first is 0); `None` when it is given up. `jitter`, from 0 to 1, adds up
    /// to a half, so that events that failed together do not come together again.
    pub fn delay(&self, retry: u32, jitter: f64) -> Option<Duration> {
        if retry >= self.retries {
            return None;
        }
        let delay = self.first.saturating_mul(1 << retry.min(30)).min(self.max).min(DELAY_MAX);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
        Some(delay + delay.mul_f64(jitter / 2.0))
    }
}

/// Whether a receiver's answer means it has the event. AMS counts 200 alone; others of its kind (202, 204) are no
/// reason to send again.
pub fn is_delivered(status: u16) -> bool {
    (200..300).contains(&status)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let policy = RetryPolicy::from_settings(12, 1000);
        let waits: Vec<u64> = (0..).map_while(|retry| policy.delay(retry, 0.0)).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(policy.delay(1, 1.0), Some(Duration::from_secs(3)));
        assert_eq!(RetryPolicy::from_settings(0, 1000).delay(0, 0.5), None, "AMS's default is no retry");
        assert_eq!(RetryPolicy::from_settings(-3, -1).delay(0, 0.5), None);
        assert!([200, 204].into_iter().all(is_delivered) && ![0, 199, 302, 404, 500].into_iter().any(is_delivered));
    }

    proptest! {
        #[test]
        fn hostile_settings_stay_in_bounds(count: i64, delay: i64, retry: u32, jitter: f64) {
            let policy = RetryPolicy::from_settings(count, delay);
            if let Some(wait) = policy.delay(retry, jitter) {
                prop_assert!(retry < RETRIES_MAX);
                prop_assert!(wait >= Duration::from_millis(10) && wait <= DELAY_MAX * 3 / 2);
            }
        }
    }
}
