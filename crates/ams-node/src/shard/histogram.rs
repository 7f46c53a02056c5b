//! Durations sorted into few buckets, for the metrics.
//!
//! Owns the buckets' bounds: from half a millisecond, below which nobody notices, to ten seconds, after which nobody
//! waits. Never keeps single values.

use std::time::Duration;

/// Upper bounds of the buckets but the last, which has none.
pub const BOUNDS: [Duration; 13] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// How many durations fell into each bucket, and their sum.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let bucket = BOUNDS.iter().position(|bound| duration <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(duration);
    }

    /// Adds another one's counts.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Per bound, how many durations were not above it; then how many there were in all.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = BOUNDS.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_first_bucket_that_holds_them() {
        let mut one = Histogram::default();
        for micros in [0, 500, 501, 4_999, 60_000_000] {
            one.record(Duration::from_micros(micros));
        }
        let mut both = Histogram::default();
        both.add(&one);
        both.add(&one);
        let cumulative: Vec<u64> = both.cumulative().map(|(_, count)| count).collect();
        assert_eq!(cumulative, [4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 10]);
        assert_eq!(both.count(), 10);
        assert_eq!(both.sum(), Duration::from_micros(2 * 60_006_000));
    }
}
