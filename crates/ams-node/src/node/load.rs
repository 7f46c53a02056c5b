//! How busy the media shards are, and whether they take more.
//!
//! Owns the measure and the limits. A shard that is full serves all its viewers late: better that those who come later are
//! told, and go elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::NodeCore;
use crate::shard::protocol::ShardNo;

/// How often the load is measured.
const INTERVAL: Duration = Duration::from_millis(500);
/// One measure counts for one part in so many: a burst of joins is no load yet.
const SMOOTHING: u32 = 4;

/// Shares of their time that the shards work, in thousandths.
#[derive(Debug)]
pub(super) struct ShardLoads(Vec<AtomicU32>);

impl ShardLoads {
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| AtomicU32::new(0)).collect())
    }

    /// A shard was `busy` for so long of `time`.
    fn note(&self, shard: usize, busy: Duration, time: Duration) {
        let Some(load) = self.0.get(shard) else { return };
        let share = (busy.as_secs_f64() / time.as_secs_f64().max(1e-3) * 1000.0).clamp(0.0, 1000.0) as u32;
        let before = load.load(Ordering::Relaxed);
        load.store((before * (SMOOTHING - 1) + share).div_ceil(SMOOTHING), Ordering::Relaxed);
    }

    /// In thousandths.
    pub(super) fn of(&self, shard: ShardNo) -> u32 {
        self.0.get(usize::from(shard.0)).map_or(0, |load| load.load(Ordering::Relaxed))
    }

    /// Whether a shard works less than `limit` thousandths of its time; a limit of all of it is none.
    fn has_room(&self, shard: ShardNo, limit: u32) -> bool {
        limit >= 1000 || self.of(shard) < limit
    }

    /// The busiest shard's, in thousandths.
    pub(super) fn highest(&self) -> u32 {
        self.0.iter().map(|load| load.load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

impl NodeCore {
    /// Measures, as long as the node runs.
    pub(super) async fn measure_load_loop(self: Arc<Self>) {
        let busy = |node: &Self| -> Vec<Duration> {
            node.shards.iter().map(|shard| shard.runtime.metrics().worker_total_busy_duration(0)).collect()
        };
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut at) = (busy(&self), Instant::now());
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            let (now, present) = (Instant::now(), busy(&self));
            for (shard, (before, after)) in last.iter().zip(&present).enumerate() {
                self.loads.note(shard, after.saturating_sub(*before), now - at);
            }
            (last, at) = (present, now);
        }
    }

    /// Whether a shard takes another viewer.
    pub(super) fn has_room_for_viewer(&self, shard: ShardNo) -> bool {
        self.loads.has_room(shard, u32::from(self.config.media.load_max) * 10)
    }

    /// Whether a shard takes another publisher: when there is no room for viewers, there still is for those they come for.
    pub(super) fn has_room_for_publisher(&self, shard: ShardNo) -> bool {
        self.loads.has_room(shard, (u32::from(self.config.media.load_max) * 10 + 1000) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_follows_in_a_few_measures() {
        let loads = ShardLoads::new(2);
        let time = Duration::from_millis(500);
        let mut seen = Vec::new();
        for busy in [500, 500, 500, 500, 500, 500, 500, 500, 0, 0, 0, 0] {
            loads.note(1, Duration::from_millis(busy), time);
            seen.push(loads.of(ShardNo(1)));
        }
        assert!(seen[..8].is_sorted() && seen[0] == 250 && seen[7] > 880, "{seen:?}");
        assert!(seen[11] < 350, "{seen:?}");
        assert_eq!((loads.of(ShardNo(0)), loads.of(ShardNo(9)), loads.highest()), (0, 0, seen[11]));
        loads.note(1, Duration::from_secs(9), Duration::ZERO);
        assert!(loads.of(ShardNo(1)) <= 1000);
        (0..20).for_each(|_| loads.note(1, time, time));
        assert_eq!([900, 999, 1000].map(|limit| loads.has_room(ShardNo(1), limit)), [false, false, true]);
        assert!(loads.has_room(ShardNo(0), 10));
    }
}
