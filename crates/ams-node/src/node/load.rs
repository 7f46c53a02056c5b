//! How busy the node is, and whether it takes more.
//!
//! Owns the measures and the limits: the time media threads work, how punctual they are, memory, file descriptors. A node
//! that is full serves all its viewers late, or dies: better that those who come later are told, and go elsewhere.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::NodeCore;
use crate::clock;
use crate::shard::protocol::ShardNo;
use crate::system;

/// How often the load is measured.
const INTERVAL: Duration = Duration::from_millis(500);
/// One measure counts for one part in so many: a burst of joins is no load yet.
const SMOOTHING: u32 = 4;

/// Memory is measured with every so many measures of the load.
const MEASURES_PER_MEMORY: u32 = 4;
/// Share of the machine's memory that must be left, in percent.
const MEMORY_LEFT_MIN: u64 = 5;
/// File descriptors that must be left, for the registry, relay links and files.
const DESCRIPTORS_LEFT_MIN: u64 = 128;
/// What a viewer costs a media thread until enough are there to tell, in thousandths of its time.
const VIEWER_COST: f64 = 0.8;
/// Viewers that tell what one costs.
const VIEWERS_THAT_TELL: usize = 20;
/// Load that tells, in thousandths.
const LOAD_THAT_TELLS: u32 = 50;
/// Share of its turns that a shard may be late with and still take viewers, in thousandths: 99 of 100 are to be in time.
const LATE_MAX: u32 = 10;
/// Load from which on lateness is the load's doing, in thousandths: one that works less is late when its machine is.
const LATE_FROM: u32 = 450;
/// So many turns tell how punctual a shard is.
const TURNS_THAT_TELL: u64 = 50;

/// What is short besides the media threads' time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    Memory,
    Descriptors,
}

impl Shortage {
    /// What is short, of these measures.
    fn of(memory: Option<(u64, u64)>, descriptors_left: Option<u64>) -> Option<Self> {
        let little_memory = |(used, total): (u64, u64)| (total - used.min(total)) * 100 < total * MEMORY_LEFT_MIN;
        if memory.is_some_and(little_memory) {
            return Some(Self::Memory);
        }
        descriptors_left.is_some_and(|left| left < DESCRIPTORS_LEFT_MIN).then_some(Self::Descriptors)
    }

    /// A sentence for who is refused.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Memory => "its machine has less than 5 % of its memory left",
            Self::Descriptors => "it has hardly any file descriptors left (raise the limit: LimitNOFILE, ulimit -n)",
        }
    }
}

/// Viewers that a shard would still take.
fn seats(load: u32, viewers: usize, limit: u32) -> u32 {
    let tells = viewers >= VIEWERS_THAT_TELL && load >= LOAD_THAT_TELLS;
    let cost = if tells { f64::from(load) / viewers as f64 } else { VIEWER_COST };
    (f64::from(limit.saturating_sub(load)) / cost) as u32
}

/// Of one shard, in thousandths.
#[derive(Debug, Default)]
struct ShardLoad {
    /// Share of its time that it works.
    busy: AtomicU32,
    /// Share of its turns that it is late with.
    late: AtomicU32,
}

/// What the shards' measures say.
#[derive(Debug)]
pub(super) struct ShardLoads(Vec<ShardLoad>);

fn smoothed(value: &AtomicU32, share: u32) {
    let before = value.load(Ordering::Relaxed);
    value.store((before * (SMOOTHING - 1) + share).div_ceil(SMOOTHING), Ordering::Relaxed);
}

impl ShardLoads {
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| ShardLoad::default()).collect())
    }

    /// A shard was `busy` for so long of `time`.
    fn note(&self, shard: usize, busy: Duration, time: Duration) {
        let Some(load) = self.0.get(shard) else { return };
        let share = (busy.as_secs_f64() / time.as_secs_f64().max(1e-3) * 1000.0).clamp(0.0, 1000.0) as u32;
        smoothed(&load.busy, share);
    }

    /// A shard was late with so many of its turns.
    fn note_late(&self, shard: usize, turns: u64, late: u64) {
        let Some(load) = self.0.get(shard) else { return };
        smoothed(&load.late, (late.min(turns) * 1000 / turns.max(TURNS_THAT_TELL)) as u32);
    }

    /// In thousandths.
    pub(super) fn of(&self, shard: ShardNo) -> u32 {
        self.0.get(usize::from(shard.0)).map_or(0, |load| load.busy.load(Ordering::Relaxed))
    }

    /// Whether a shard works less than `limit` thousandths of its time; a limit of all of it is none.
    fn has_room(&self, shard: ShardNo, limit: u32) -> bool {
        limit >= 1000 || self.of(shard) < limit
    }

    /// Whether a shard is late too often, and because of its load.
    fn is_late(&self, shard: ShardNo, limit: u32) -> bool {
        let late = self.0.get(usize::from(shard.0)).map_or(0, |load| load.late.load(Ordering::Relaxed));
        limit < 1000 && late > LATE_MAX && self.of(shard) >= LATE_FROM
    }

    /// The busiest shard's, in thousandths.
    pub(super) fn highest(&self) -> u32 {
        self.0.iter().map(|load| load.busy.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// The least punctual shard's share of late turns, in thousandths.
    pub(super) fn latest(&self) -> u32 {
        self.0.iter().map(|load| load.late.load(Ordering::Relaxed)).max().unwrap_or(0)
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
        let turns =
            |node: &Self| -> Vec<(u64, u64)> { node.shards.iter().map(|shard| shard.punctuality.counted()).collect() };
        let (mut last, mut at, mut measures) = (busy(&self), clock::now(), 0u32);
        let mut counted = turns(&self);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            let (now, present) = (clock::now(), busy(&self));
            measures += 1;
            if measures.is_multiple_of(MEASURES_PER_MEMORY) {
                let short = Shortage::of(system::memory_mb(), system::descriptors_left());
                let before = std::mem::replace(&mut *self.shortage(), short);
                match short.filter(|_| before != short) {
                    Some(short) => warn!(reason = short.sentence(), "takes no more sessions"),
                    None if before.is_some() && short.is_none() => info!("takes sessions again"),
                    None => {}
                }
            }
            for (shard, (before, after)) in last.iter().zip(&present).enumerate() {
                self.loads.note(shard, after.saturating_sub(*before), now - at);
            }
            let turned = turns(&self);
            for (shard, (before, after)) in counted.iter().zip(&turned).enumerate() {
                self.loads.note_late(shard, after.0 - before.0, after.1 - before.1);
            }
            (last, at, counted) = (present, now, turned);
        }
    }

    pub(super) fn shortage(&self) -> MutexGuard<'_, Option<Shortage>> {
        self.short_of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Viewers that the node would still take: what an auto-scaling group can go by.
    pub(super) fn seats_left(&self) -> u32 {
        if self.is_draining() || self.shortage().is_some() {
            return 0;
        }
        let transports = self.directory().load.clone();
        let limit = u32::from(self.config.media.load_max) * 10;
        let of = |(shard, viewers): (u16, &usize)| match self.loads.is_late(ShardNo(shard), limit) {
            true => 0,
            false => seats(self.loads.of(ShardNo(shard)), *viewers, limit),
        };
        let seats = (0u16..).zip(&transports).map(of).sum();
        self.places.left().and_then(|left| u32::try_from(left).ok()).map_or(seats, |left| left.min(seats))
    }

    /// Whether a shard takes another viewer.
    pub(super) fn has_room_for_viewer(&self, shard: ShardNo) -> bool {
        let limit = u32::from(self.config.media.load_max) * 10;
        self.shortage().is_none() && self.loads.has_room(shard, limit) && !self.loads.is_late(shard, limit)
    }

    /// Whether a shard takes another publisher: when there is no room for viewers, there still is for those they come for.
    pub(super) fn has_room_for_publisher(&self, shard: ShardNo) -> bool {
        self.shortage().is_none() && self.loads.has_room(shard, (u32::from(self.config.media.load_max) * 10 + 1000) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_named() {
        for (name, memory, descriptors, want) in [
            ("plenty", Some((500, 1000)), Some(60_000), None),
            ("nothing known", None, None, None),
            ("memory", Some((951, 1000)), Some(60_000), Some(Shortage::Memory)),
            ("just enough", Some((950, 1000)), Some(128), None),
            ("descriptors", Some((10, 1000)), Some(127), Some(Shortage::Descriptors)),
            ("nonsense", Some((2000, 1000)), None, Some(Shortage::Memory)),
        ] {
            assert_eq!(Shortage::of(memory, descriptors), want, "{name}");
        }
    }

    #[test]
    fn seats_follow_from_what_a_viewer_costs() {
        for (name, load, viewers, limit, want) in [
            ("nobody there", 0, 0, 900, 1125),
            ("too few to tell", 100, 19, 900, 1000),
            ("cheap ones", 300, 600, 900, 1200),
            ("dear ones", 300, 30, 900, 60),
            ("full", 900, 600, 900, 0),
            ("beyond", 990, 600, 900, 0),
        ] {
            assert_eq!(seats(load, viewers, limit), want, "{name}");
        }
    }

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

    #[test]
    fn late_is_who_works_much_and_is_late_often() {
        for (name, busy, turns, late, limit, want) in [
            ("in time", 600, 100, 1, 900, false),
            ("late", 600, 100, 3, 900, true),
            ("the machine is late", 400, 100, 50, 900, false),
            ("few turns, one late each time", 600, 4, 1, 900, true),
            ("one that nobody watches", 600, 0, 0, 900, false),
            ("no limit", 990, 100, 100, 1000, false),
            ("nonsense", 600, 1, 9, 900, true),
        ] {
            let loads = ShardLoads::new(1);
            for _ in 0..40 {
                loads.note(0, Duration::from_millis(busy), Duration::from_secs(1));
                loads.note_late(0, turns, late);
            }
            assert_eq!(loads.is_late(ShardNo(0), limit), want, "{name}: {loads:?}");
            loads.note_late(7, 1, 1);
        }
    }
}
