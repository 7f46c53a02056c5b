//! Trying the path at a higher rate than the media needs.
//!
//! Owns when a probe is made, how long it is, and what it found. A viewer of a low layer never fills its path: without
//! probes nobody would know that the next layer fits.

use std::time::{Duration, Instant};

use ams_types::Bitrate;

/// Length of a probe. Long enough to show a filling queue, short enough not to fill one by much.
const LENGTH: Duration = Duration::from_millis(60);
/// It is longer where the rate is so low that it would have less than this in bytes: a dozen packets.
const BYTES_MIN: f64 = 13_000.0;
/// Packets that must be reported for a probe to tell something.
const PACKETS_MIN: u32 = 6;
/// Wait between probes: doubles with each that finds nothing.
const WAIT_MIN: Duration = Duration::from_millis(700);
const WAIT_MAX: Duration = Duration::from_secs(4);
/// A queue that fills within this time after a probe, beyond the round trip, is the probe's.
const BLAME: Duration = Duration::from_millis(500);
/// After congestion the path is left alone for this long.
const REST: Duration = Duration::from_millis(1500);
/// A probe goes this far beyond the rate that is wanted, and at most this far beyond the estimate.
const BEYOND_WANTED: f64 = 1.25;
const BEYOND_ESTIMATE: f64 = 4.0;

#[derive(Clone, Copy, Debug)]
struct Flight {
    id: u8,
    rate: f64,
    began: Instant,
    until: Instant,
    paid_until: Instant,
    /// When it is to be judged at the latest.
    judge_at: Instant,
}

/// What was reported of a probe.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    packets: u32,
    bytes: u64,
    sent: (i64, i64),
    arrived: (i64, i64),
    first_len: u64,
    last_len: u64,
}

#[derive(Debug)]
pub(super) struct Prober {
    flight: Option<Flight>,
    arrivals: Arrivals,
    last_id: u8,
    not_before: Option<Instant>,
    wait: Duration,
    /// A queue that fills until then is the last probe's.
    blamed_until: Option<Instant>,
}

impl Default for Prober {
    fn default() -> Self {
        Self {
            flight: None,
            arrivals: Arrivals::default(),
            last_id: 0,
            not_before: None,
            wait: WAIT_MIN,
            blamed_until: None,
        }
    }
}

impl Prober {
    /// The probe that packets sent now belong to; 0 for none.
    pub(super) fn current(&self) -> u8 {
        self.flight.filter(|flight| flight.paid_until < flight.until).map_or(0, |flight| flight.id)
    }

    /// Bytes to add now.
    pub(super) fn poll(&mut self, now: Instant, estimate: Bitrate, wanted: Option<Bitrate>, rtt: Duration) -> usize {
        if let Some(flight) = &mut self.flight {
            if now >= flight.judge_at {
                // Not enough of it was reported.
                self.fail(now);
                return 0;
            }
            let end = now.min(flight.until);
            let pay = end.saturating_duration_since(flight.paid_until);
            flight.paid_until = flight.paid_until.max(end);
            return (flight.rate * pay.as_secs_f64() / 8.0) as usize;
        }
        let Some(wanted) = wanted.filter(|wanted| wanted.0 > estimate.0) else { return 0 };
        if self.not_before.is_some_and(|at| now < at) {
            return 0;
        }
        let rate = (wanted.0 as f64 * BEYOND_WANTED).min(estimate.0 as f64 * BEYOND_ESTIMATE);
        self.last_id = self.last_id % u8::MAX + 1;
        let until = now + LENGTH.max(Duration::from_secs_f64(BYTES_MIN * 8.0 / rate.max(100_000.0)));
        let judge_at = until + rtt + Duration::from_millis(400);
        self.flight = Some(Flight { id: self.last_id, rate, began: now, until, paid_until: now, judge_at });
        self.arrivals = Arrivals::default();
        self.blamed_until = Some(until + rtt + BLAME);
        0
    }

    /// A queue that fills now is a probe's.
    pub(super) fn has_filled_queue(&self, now: Instant) -> bool {
        self.blamed_until.is_some_and(|until| now < until)
    }

    pub(super) fn on_arrival(&mut self, probe: u8, sent_us: i64, arrival_us: i64, len: u32) {
        if probe == 0 || self.flight.is_none_or(|flight| flight.id != probe) {
            return;
        }
        let len = u64::from(len);
        let all = &mut self.arrivals;
        if all.packets == 0 {
            *all = Arrivals { sent: (sent_us, sent_us), arrived: (arrival_us, arrival_us), first_len: len, ..*all };
        }
        if sent_us >= all.sent.1 {
            all.last_len = len;
        }
        all.packets += 1;
        all.bytes += len;
        all.sent = (all.sent.0.min(sent_us), all.sent.1.max(sent_us));
        all.arrived = (all.arrived.0.min(arrival_us), all.arrived.1.max(arrival_us));
    }

    /// What the last probe found, once it is over and reported.
    pub(super) fn poll_result(&mut self, now: Instant) -> Option<Bitrate> {
        let flight = self.flight?;
        let all = self.arrivals;
        let length = (flight.until - flight.began).as_micros();
        let reported_to_the_end = u128::from((all.sent.1 - all.sent.0).unsigned_abs()) >= length * 3 / 4;
        if now < flight.until || all.packets < PACKETS_MIN || !reported_to_the_end {
            return None;
        }
        let rate = |bytes: u64, (from, to): (i64, i64)| bytes as f64 * 8_000_000.0 / ((to - from).max(1) as f64);
        let sent = rate(all.bytes - all.last_len, all.sent);
        let arrived = rate(all.bytes - all.first_len, all.arrived);
        if arrived >= 0.9 * sent {
            self.flight = None;
            self.wait = WAIT_MIN;
            self.not_before = Some(now + Duration::from_millis(200));
            return Some(Bitrate((sent.min(arrived) * 0.95) as u64));
        }
        // The path let through less than was sent: what it let through is what it carries.
        self.fail(now);
        Some(Bitrate((arrived * 0.85) as u64))
    }

    pub(super) fn on_congestion(&mut self, now: Instant) {
        if self.flight.is_some() {
            self.fail(now);
        }
        let rest = now + REST;
        self.not_before = Some(self.not_before.map_or(rest, |at| at.max(rest)));
    }

    fn fail(&mut self, now: Instant) {
        self.flight = None;
        self.not_before = Some(now + self.wait);
        self.wait = (self.wait * 2).min(WAIT_MAX);
    }
}
