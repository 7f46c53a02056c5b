//! The estimate itself: up while the path is at ease, down when a queue fills or much is lost
//! (draft-ietf-rmcat-gcc-02 §5.5, §6).

use std::time::{Duration, Instant};

use ams_types::Bitrate;

use super::{Cause, ESTIMATE_MAX, ESTIMATE_MIN, Usage};

/// Share of what arrived that is kept when a queue fills.
const DECREASE: f64 = 0.85;
/// And when it was a probe that filled it.
const DECREASE_BY_PROBE: f64 = 0.95;
/// Growth per second up to a little more than where the path was last found full.
const GROWTH: f64 = 0.15;
/// Growth per second when the path has been at ease for [`EASE`] beyond where it was last found full.
const GROWTH_FREE: f64 = 1.5;
const EASE: Duration = Duration::from_millis(1000);
/// So much more than the path carried when it was last found full shows that it has become wider.
const BEYOND_FULL: f64 = 1.08;
/// The estimate may be this much above what arrives: more is not known.
const HEADROOM: f64 = 1.5;
const HEADROOM_BASE: f64 = 20_000.0;
/// Loss above this is the path's answer to too much; below it is bad air.
const LOSS_MAX: f64 = 0.12;
/// Loss is taken over this, and this many packets at least.
const LOSS_WINDOW: Duration = Duration::from_millis(600);
const LOSS_PACKETS: u32 = 20;

#[derive(Debug)]
pub(super) struct RateControl {
    estimate: f64,
    updated_at: Instant,
    decreased_at: Option<Instant>,
    loss_decreased_at: Option<Instant>,
    /// Rate at which the path was last found full.
    full_at: Option<f64>,
    window: Instant,
    arrived: u32,
    lost: u32,
    loss: f64,
}

impl RateControl {
    pub(super) fn new(now: Instant, start: Bitrate) -> Self {
        Self {
            estimate: start.clamp(ESTIMATE_MIN, ESTIMATE_MAX).0 as f64,
            updated_at: now,
            decreased_at: None,
            loss_decreased_at: None,
            full_at: None,
            window: now,
            arrived: 0,
            lost: 0,
            loss: 0.0,
        }
    }

    pub(super) fn estimate(&self) -> Bitrate {
        Bitrate(self.estimate as u64)
    }

    pub(super) fn is_limited(&self) -> bool {
        self.full_at.is_some()
    }

    pub(super) fn loss_ratio(&self) -> f64 {
        self.loss
    }

    /// Packets that arrived and that did not.
    pub(super) fn count(&mut self, now: Instant, arrived: u32, lost: u32) {
        self.arrived += arrived;
        self.lost += lost;
        let all = self.arrived + self.lost;
        if all >= LOSS_PACKETS && now.saturating_duration_since(self.window) >= LOSS_WINDOW {
            self.loss = f64::from(self.lost) / f64::from(all);
            (self.window, self.arrived, self.lost) = (now, 0, 0);
        }
    }

    /// Takes one report into account.
    pub(super) fn update(&mut self, now: Instant, usage: Usage, cause: Cause, acked: Option<Bitrate>, rtt: Duration) {
        let elapsed = now.saturating_duration_since(self.updated_at).as_secs_f64().min(1.0);
        self.updated_at = now;
        let acked = acked.map(|rate| rate.0 as f64);
        let settled =
            |at: Option<Instant>, wait: Duration| at.is_none_or(|at| now.saturating_duration_since(at) >= wait);
        if usage == Usage::Over {
            // One decrease must show before the next.
            if settled(self.decreased_at, rtt + Duration::from_millis(200)) {
                self.decreased_at = Some(now);
                let share = if cause == Cause::Probe { DECREASE_BY_PROBE } else { DECREASE };
                if let Some(acked) = acked {
                    self.full_at = Some(acked);
                    self.set_rate((acked * share).min(self.estimate));
                } else {
                    self.set_rate(self.estimate * 0.5);
                }
            }
            return;
        }
        if self.loss > LOSS_MAX {
            if settled(self.loss_decreased_at, rtt + Duration::from_secs(1)) {
                self.loss_decreased_at = Some(now);
                let floor = acked.unwrap_or(0.0) * DECREASE;
                self.set_rate((self.estimate * (1.0 - 0.5 * self.loss)).max(floor.min(self.estimate)));
            }
            return;
        }
        if usage == Usage::Under {
            return;
        }
        let Some(acked) = acked else { return };
        // What arrives without a queue is carried.
        if acked > self.estimate {
            self.set_rate(acked);
        }
        if self.full_at.is_some_and(|full| acked >= BEYOND_FULL * full) {
            self.full_at = None;
        }
        let is_free = self.full_at.is_none() && settled(self.decreased_at, EASE + rtt);
        let growth = if is_free { GROWTH_FREE } else { GROWTH };
        let limit = acked * HEADROOM + HEADROOM_BASE;
        if self.estimate < limit {
            self.set_rate((self.estimate * (1.0 + growth * elapsed) + 1000.0 * elapsed).min(limit));
        }
    }

    /// A probe arrived at this rate: the path carries it.
    pub(super) fn found(&mut self, now: Instant, rate: Bitrate) {
        if rate.0 as f64 > self.estimate {
            self.updated_at = now;
            self.full_at = None;
            self.set_rate(rate.0 as f64);
        }
    }

    /// The viewer's own word.
    pub(super) fn set(&mut self, now: Instant, rate: Bitrate) {
        self.updated_at = now;
        self.set_rate(rate.0 as f64);
    }

    /// Nothing was heard for long.
    pub(super) fn silence(&mut self, now: Instant) {
        self.decreased_at = Some(now);
        self.set_rate(self.estimate * 0.5);
    }

    fn set_rate(&mut self, rate: f64) {
        self.estimate = rate.clamp(ESTIMATE_MIN.0 as f64, ESTIMATE_MAX.0 as f64);
    }
}
