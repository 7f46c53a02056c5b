//! Whether a queue fills on the path: the delay gradient of packet groups, by trendline (what libwebrtc uses in place of
//! draft-ietf-rmcat-gcc-02 §5.3's filter), against an adaptive threshold (§5.4).

use std::collections::VecDeque;

use super::Usage;

/// Packets sent within this are one group.
const GROUP_US: i64 = 5_000;
/// Points the line is drawn through.
const POINTS: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
/// Groups after which the slope has its full weight.
const WEIGHT_MAX: f64 = 60.0;
const THRESHOLD_START: f64 = 12.5;
const THRESHOLD_MIN: f64 = 6.0;
const THRESHOLD_MAX: f64 = 600.0;
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// A slope this far over the threshold does not move it.
const OUTLIER: f64 = 15.0;
/// The slope must be over the threshold for this long to count, in ms.
const OVER_MS: f64 = 10.0;
/// A step of the viewer's clock: begin anew.
const JUMP_US: u64 = 3_000_000;
/// A queue this long is too long however it came about, and short again below that.
const QUEUE_LONG_US: i64 = 90_000;
/// One packet alone may have been held up by something else.
const QUEUE_PACKETS: u32 = 3;
const QUEUE_SHORT_US: i64 = 50_000;
/// A path whose queue was this short within the last [`RECENT_US`] has no queue that fills.
const QUEUE_NONE_US: i64 = 10_000;
const RECENT_US: i64 = 100_000;
/// The shortest delay of this long, twice over, is that of an empty queue.
const BASE_US: i64 = 5_000_000;
/// A queue that stays so long in spite of all is none: the path has become longer.
const QUEUE_STAYS_US: i64 = 3_000_000;

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    last_arrival: i64,
}

#[derive(Debug)]
pub(super) struct DelayMonitor {
    group: Option<Group>,
    before: Option<Group>,
    groups: f64,
    first_arrival: Option<i64>,
    delay: f64,
    smoothed: f64,
    points: VecDeque<(f64, f64)>,
    threshold: f64,
    over_ms: f64,
    over_count: u32,
    last_slope: f64,
    usage: Usage,
    queue: Queue,
}

/// How long packets wait on the path, against the shortest delay seen lately.
#[derive(Debug, Default)]
struct Queue {
    /// Start of the present window on the viewer's clock, its shortest delay, and that of the window before.
    window: Option<i64>,
    shortest: i64,
    before: i64,
    long_packets: u32,
    long_since: Option<i64>,
    /// Since when `low` is the shortest queue, and the shortest of the time before.
    low_since: i64,
    low: i64,
    low_before: i64,
}

impl Queue {
    /// Takes a packet's delay, between two clocks.
    fn add(&mut self, delay: i64, arrival: i64) {
        let window = *self.window.get_or_insert_with(|| {
            (self.shortest, self.before) = (delay, delay);
            arrival
        });
        if arrival.saturating_sub(window) > BASE_US {
            (self.window, self.before, self.shortest) = (Some(arrival), self.shortest, delay);
        }
        self.shortest = self.shortest.min(delay);
        let queue = delay.saturating_sub(self.shortest.min(self.before));
        if arrival.saturating_sub(self.low_since).unsigned_abs() > RECENT_US.unsigned_abs() {
            (self.low_since, self.low_before, self.low) = (arrival, self.low, queue);
        }
        self.low = self.low.min(queue);
        match self.long_since {
            Some(since) if queue > QUEUE_SHORT_US && arrival.saturating_sub(since) < QUEUE_STAYS_US => {}
            Some(_) if queue > QUEUE_SHORT_US => *self = Self::default(),
            Some(_) => (self.long_since, self.long_packets) = (None, 0),
            None if queue > QUEUE_LONG_US => {
                self.long_packets += 1;
                self.long_since = (self.long_packets >= QUEUE_PACKETS).then_some(arrival);
            }
            None => self.long_packets = 0,
        }
    }

    fn is_long(&self) -> bool {
        self.long_since.is_some()
    }

    /// There was none at some time lately.
    fn is_none(&self) -> bool {
        self.low.min(self.low_before) < QUEUE_NONE_US
    }
}

impl Default for DelayMonitor {
    fn default() -> Self {
        Self {
            group: None,
            before: None,
            groups: 0.0,
            first_arrival: None,
            delay: 0.0,
            smoothed: 0.0,
            points: VecDeque::with_capacity(POINTS + 1),
            threshold: THRESHOLD_START,
            over_ms: 0.0,
            over_count: 0,
            last_slope: 0.0,
            usage: Usage::Normal,
            queue: Queue::default(),
        }
    }
}

impl DelayMonitor {
    pub(super) fn usage(&self) -> Usage {
        match self.usage {
            _ if self.queue.is_long() => Usage::Over,
            // The line still rises where few packets are sent, long after the queue is gone.
            Usage::Over if self.queue.is_none() => Usage::Normal,
            usage => usage,
        }
    }

    /// A packet sent at `sent` arrived at `arrival`: both in microseconds, on two clocks.
    pub(super) fn add(&mut self, sent: i64, arrival: i64) {
        self.queue.add(arrival.saturating_sub(sent), arrival);
        let Some(group) = &mut self.group else {
            self.group = Some(Group { first_sent: sent, last_sent: sent, last_arrival: arrival });
            return;
        };
        if arrival.saturating_sub(group.last_arrival).unsigned_abs() > JUMP_US {
            *self = Self {
                threshold: self.threshold,
                group: Some(Group { first_sent: sent, last_sent: sent, last_arrival: arrival }),
                ..Self::default()
            };
            return;
        }
        if sent < group.first_sent {
            return;
        }
        let with_it = sent - group.first_sent <= GROUP_US || {
            // What a queue releases in one go belongs together.
            let (sent_delta, arrival_delta) = (sent - group.last_sent, arrival - group.last_arrival);
            arrival_delta < sent_delta && arrival_delta <= GROUP_US && arrival - group.last_arrival >= 0
        };
        if with_it {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival);
            return;
        }
        let done = *group;
        self.group = Some(Group { first_sent: sent, last_sent: sent, last_arrival: arrival });
        if let Some(before) = self.before.replace(done) {
            let sent_delta = (done.last_sent - before.last_sent) as f64 / 1000.0;
            let arrival_delta = (done.last_arrival - before.last_arrival) as f64 / 1000.0;
            self.step(sent_delta, arrival_delta, done.last_arrival);
        }
    }

    fn step(&mut self, sent_delta: f64, arrival_delta: f64, arrival: i64) {
        self.groups = (self.groups + 1.0).min(WEIGHT_MAX);
        self.delay += arrival_delta - sent_delta;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.delay;
        let first = *self.first_arrival.get_or_insert(arrival);
        self.points.push_back(((arrival - first) as f64 / 1000.0, self.smoothed));
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
        let slope = if self.points.len() == POINTS { self.fit().unwrap_or(self.last_slope) } else { 0.0 };
        self.judge(slope, sent_delta);
    }

    /// Slope of the line of least squares.
    fn fit(&self) -> Option<f64> {
        let n = self.points.len() as f64;
        let (mean_x, mean_y) = self.points.iter().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x / n, sy + y / n));
        let (above, below) = self.points.iter().fold((0.0, 0.0), |(above, below), (x, y)| {
            (above + (x - mean_x) * (y - mean_y), below + (x - mean_x) * (x - mean_x))
        });
        (below > 0.0).then(|| above / below)
    }

    fn judge(&mut self, slope: f64, sent_delta: f64) {
        let weighted = self.groups * slope * GAIN;
        if weighted > self.threshold {
            self.over_ms += sent_delta.max(0.0);
            self.over_count += 1;
            if self.over_ms > OVER_MS && self.over_count > 1 && slope >= self.last_slope {
                self.usage = Usage::Over;
                self.over_ms = 0.0;
                self.over_count = 0;
            }
        } else {
            self.over_ms = 0.0;
            self.over_count = 0;
            self.usage = if weighted < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.last_slope = slope;
        let size = weighted.abs();
        if size <= self.threshold + OUTLIER {
            let pace = if size < self.threshold { THRESHOLD_DOWN } else { THRESHOLD_UP };
            let time = sent_delta.clamp(0.0, 100.0);
            self.threshold =
                (self.threshold + pace * (size - self.threshold) * time).clamp(THRESHOLD_MIN, THRESHOLD_MAX);
        }
    }
}
