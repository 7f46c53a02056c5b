//! The estimator against links in virtual time, from seeds.

use std::collections::VecDeque;

use super::*;

/// A small generator of our own: tests replay from a seed, and this crate has no randomness.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A link with a queue, and a viewer that reports every 50 ms.
struct Link {
    dice: Dice,
    rate: f64,
    loss: f64,
    jitter_ms: f64,
    delay: Duration,
    busy_until: Instant,
    /// Number, arrival.
    arrived: VecDeque<(u16, Instant)>,
    reported_at: Instant,
    next_report: u16,
    /// The viewer's clock runs this much faster, in parts per million.
    drift: f64,
    began: Instant,
    reports_lost: f64,
}

impl Link {
    fn new(seed: u64, now: Instant, rate: f64) -> Self {
        Self {
            dice: Dice(seed * 7919 + 1),
            rate,
            loss: 0.0,
            jitter_ms: 0.0,
            delay: Duration::from_millis(25),
            busy_until: now,
            arrived: VecDeque::new(),
            reported_at: now,
            next_report: 0,
            drift: 0.0,
            began: now,
            reports_lost: 0.0,
        }
    }

    fn send(&mut self, now: Instant, seq: u16, len: usize) {
        let start = self.busy_until.max(now);
        if start - now > Duration::from_millis(300) {
            return;
        }
        self.busy_until = start + Duration::from_secs_f64(len as f64 * 8.0 / self.rate);
        if self.dice.roll() < self.loss {
            return;
        }
        let jitter = Duration::from_secs_f64(self.dice.roll() * self.jitter_ms / 1000.0);
        self.arrived.push_back((seq, self.busy_until + self.delay + jitter));
    }

    fn report(&mut self, now: Instant, estimator: &mut BandwidthEstimator) {
        if now - self.reported_at < Duration::from_millis(50) {
            return;
        }
        self.reported_at = now;
        let heard = now - self.delay;
        let mut here: Vec<(u16, Instant)> = Vec::new();
        self.arrived.retain(|(seq, at)| {
            if *at <= heard {
                here.push((*seq, *at));
            }
            *at > heard
        });
        let ahead = |seq: u16| seq.wrapping_sub(self.next_report).cast_signed();
        here.retain(|(seq, _)| ahead(*seq) >= 0);
        here.sort_by_key(|(seq, _)| ahead(*seq));
        let Some((last, _)) = here.last().copied() else { return };
        let mut packets = Vec::new();
        let mut seq = self.next_report;
        while seq != last.wrapping_add(1) {
            let at = here.iter().find(|(s, _)| *s == seq).map(|(_, at)| {
                let micros = (*at - self.began).as_micros() as f64 * (1.0 + self.drift / 1e6);
                (micros as i64) / 250 * 250 + 7_777_000
            });
            packets.push((seq, at));
            seq = seq.wrapping_add(1);
        }
        self.next_report = last.wrapping_add(1);
        if self.dice.roll() >= self.reports_lost {
            estimator.on_feedback(now, packets.into_iter());
        }
    }
}

/// What is sent.
#[derive(Clone, Copy)]
enum Media {
    /// As much as the estimate says.
    Greedy,
    /// The highest of these rates that fits, and probes for the next.
    Layers(&'static [u64]),
}

struct Run {
    now: Instant,
    estimator: BandwidthEstimator,
    link: Link,
    media: Media,
    seq: u16,
    budget: f64,
    seen: Vec<(Instant, u64)>,
}

impl Run {
    fn new(seed: u64, rate: f64, media: Media) -> Self {
        let now = crate::testing::start();
        Self {
            now,
            estimator: BandwidthEstimator::new(now, Bitrate(1_000_000)),
            link: Link::new(seed, now, rate),
            media,
            seq: 65_000,
            budget: 0.0,
            seen: Vec::new(),
        }
    }

    fn send(&mut self, mut bytes: f64) -> f64 {
        while bytes >= 1100.0 {
            self.estimator.on_sent(self.now, self.seq, 1100);
            self.link.send(self.now, self.seq, 1100);
            self.seq = self.seq.wrapping_add(1);
            bytes -= 1100.0;
        }
        bytes
    }

    fn run(&mut self, time: Duration) {
        if self.link.next_report == 0 {
            self.link.next_report = self.seq;
        }
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(5);
            let estimate = self.estimator.estimate().unwrap_or(Bitrate(1_000_000)).0;
            let (rate, wanted) = match self.media {
                Media::Greedy => (estimate, None),
                Media::Layers(layers) => {
                    let rate = layers.iter().rev().find(|rate| **rate <= estimate).unwrap_or(&layers[0]);
                    (*rate, layers.iter().find(|next| *next > rate).map(|rate| Bitrate(*rate)))
                }
            };
            self.budget += rate as f64 / 8.0 * 0.005;
            self.budget = self.send(self.budget);
            let more = self.estimator.poll_probe(self.now, wanted);
            if more > 0 {
                let owed = more as f64 - rate as f64 / 8.0 * 0.005;
                self.budget += owed.max(0.0);
                self.budget = self.send(self.budget);
            }
            self.link.report(self.now, &mut self.estimator);
            self.estimator.on_timeout(self.now);
            self.seen.push((self.now, self.estimator.estimate().map_or(0, |e| e.0)));
        }
    }

    /// Mean of the estimate over the last while.
    fn mean(&self, last: Duration) -> f64 {
        let from = self.now - last;
        let seen: Vec<f64> = self.seen.iter().filter(|(at, _)| *at >= from).map(|(_, rate)| *rate as f64).collect();
        seen.iter().sum::<f64>() / seen.len() as f64
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_a_link_carries_is_found() {
    for rate in [300_000.0, 1_000_000.0, 4_000_000.0, 20_000_000.0] {
        for seed in 1..=5 {
            let mut run = Run::new(seed, rate, Media::Greedy);
            run.link.jitter_ms = 3.0;
            run.run(SECOND * 15);
            let found = run.mean(SECOND * 5) / rate;
            assert!((0.75..=1.15).contains(&found), "{rate} bit/s, seed {seed}: found {found:.2} of it");
        }
    }
}

#[test]
fn a_link_that_changes_is_followed_within_five_seconds() {
    for seed in 1..=20 {
        let mut run = Run::new(seed, 4_000_000.0, Media::Greedy);
        run.link.jitter_ms = 2.0;
        run.run(SECOND * 15);
        for (name, rate) in [("down", 500_000.0), ("up", 4_000_000.0)] {
            run.link.rate = rate;
            run.run(SECOND * 5);
            let settled = run.mean(Duration::from_millis(500)) / rate;
            assert!((0.8..=1.2).contains(&settled), "{name}, seed {seed}: {settled:.2} of the link");
            run.run(SECOND * 10);
        }
    }
}

#[test]
fn a_viewer_of_layers_climbs_by_probes() {
    const LAYERS: &[u64] = &[150_000, 500_000, 1_500_000];
    for seed in 1..=20 {
        let mut run = Run::new(seed, 4_000_000.0, Media::Layers(LAYERS));
        run.link.jitter_ms = 2.0;
        run.run(SECOND * 8);
        assert!(run.mean(SECOND) >= 1_500_000.0, "seed {seed}: {}", run.mean(SECOND));
        run.link.rate = 600_000.0;
        run.run(SECOND * 10);
        let narrow = run.mean(SECOND * 5);
        assert!((150_000.0..750_000.0).contains(&narrow), "seed {seed}: {narrow}");
        run.link.rate = 4_000_000.0;
        run.run(SECOND * 9);
        assert!(run.mean(SECOND / 2) >= 1_500_000.0, "seed {seed}: {}", run.mean(SECOND / 2));
    }
}

#[test]
fn bad_air_is_not_congestion() {
    for (loss, drift, reports_lost) in
        [(0.05, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 200.0, 0.0), (0.0, -200.0, 0.0), (0.02, 0.0, 0.2)]
    {
        for seed in 1..=5 {
            let mut run = Run::new(seed, 6_000_000.0, Media::Layers(&[150_000, 500_000, 1_500_000]));
            (run.link.loss, run.link.drift, run.link.reports_lost, run.link.jitter_ms) =
                (loss, drift, reports_lost, 3.0);
            run.run(SECOND * 20);
            let mean = run.mean(SECOND * 8);
            assert!(
                mean >= 1_400_000.0,
                "loss {loss}, drift {drift}, reports lost {reports_lost}, seed {seed}: {mean}"
            );
        }
    }
}

#[test]
fn nonsense_in_reports_does_no_harm() {
    let begin = crate::testing::start();
    let mut estimator = BandwidthEstimator::new(begin, Bitrate(1_000_000));
    let mut dice = Dice(77);
    for n in 0..20_000u32 {
        let now = begin + Duration::from_millis(n.into());
        estimator.on_sent(now, (n & 0xffff) as u16, (dice.roll() * 3000.0) as usize);
        if n % 20 == 0 {
            let report = (0..30).map(|_| {
                let at = match (dice.roll() * 4.0) as u32 {
                    0 => None,
                    1 => Some(i64::MAX / 4),
                    2 => Some(-(i64::MAX / 4)),
                    _ => Some((dice.roll() * 1e9) as i64),
                };
                ((dice.roll() * 65_536.0) as u16, at)
            });
            let report: Vec<_> = report.collect();
            estimator.on_feedback(now, report.into_iter());
        }
        estimator.on_timeout(now);
        estimator.poll_probe(now, Some(Bitrate(u64::MAX)));
        let estimate = estimator.estimate().unwrap_or(ESTIMATE_MIN);
        assert!((ESTIMATE_MIN..=ESTIMATE_MAX).contains(&estimate));
    }
}

#[test]
fn a_queue_is_gone_when_nothing_has_been_sent_for_long() {
    let begin = crate::testing::start();
    let mut estimator = BandwidthEstimator::new(begin, Bitrate(1_000_000));
    let at = |millis: u64| begin + Duration::from_millis(millis);
    // Each packet is 4 ms later than the one before.
    for n in 0..100u16 {
        estimator.on_sent(at(u64::from(n) * 10), n, 1200);
        estimator.on_feedback(at(u64::from(n) * 10 + 30), [(n, Some(i64::from(n) * 14_000))].into_iter());
    }
    assert_eq!(estimator.usage(), Usage::Over);
    let wanted = Some(Bitrate(2_000_000));
    (1000..2500).step_by(100).for_each(|n| estimator.on_timeout(at(n)));
    assert_eq!(estimator.poll_probe(at(2500), wanted), 0);
    (2500..3000).step_by(100).for_each(|n| estimator.on_timeout(at(n)));
    assert_eq!(estimator.usage(), Usage::Normal);
    estimator.poll_probe(at(3000), wanted);
    assert!(estimator.poll_probe(at(3010), wanted) > 0, "the path can be tried again");
}

#[test]
fn after_an_outage_the_path_is_tried_again_without_a_word_from_the_viewer() {
    let begin = crate::testing::start();
    let mut estimator = BandwidthEstimator::new(begin, Bitrate(1_000_000));
    let at = |millis: u64| begin + Duration::from_millis(millis);
    let wanted = Some(Bitrate(2_000_000));
    estimator.on_sent(at(0), 0, 1200);
    estimator.on_feedback(at(50), [(0, Some(0))].into_iter());
    let mut probed = 0;
    for n in (100..12_000u64).step_by(10) {
        // Pictures are sent for five seconds, then none: only the sound, which has no such numbers.
        if n < 5000 {
            estimator.on_sent(at(n), (n / 10) as u16, 1200);
        }
        if n % 100 == 0 {
            estimator.on_timeout(at(n));
        }
        if n >= 8000 {
            probed += estimator.poll_probe(at(n), wanted);
        }
    }
    assert!(probed > 0);
}
