//! What the path to one viewer carries, from what the viewer reports of single packets.
//!
//! Owns the estimate: send-side congestion control after draft-ietf-rmcat-gcc-02, with the trendline filter that took the
//! place of its Kalman filter, and probes so that a viewer of a low layer can climb. Decides nothing about layers and
//! sends nothing: the viewer asks [`BandwidthEstimator::poll_probe`] what to add.

mod acked;
mod delay;
mod history;
mod probe;
mod rate;

use std::time::{Duration, Instant};

use ams_types::Bitrate;

use acked::AckedRate;
use delay::DelayMonitor;
use history::SentHistory;
use probe::Prober;
use rate::RateControl;

/// Estimates are never below this: sound still fits.
pub const ESTIMATE_MIN: Bitrate = Bitrate(50_000);
/// Nor above this.
pub const ESTIMATE_MAX: Bitrate = Bitrate(100_000_000);
/// Arrivals beyond this, in microseconds, are no times: what a report can say ends far below (RTP's is 24 bits of 64 ms).
const ARRIVAL_MAX: u64 = 1 << 50;
/// Feedback that fails to come for this long, while packets are sent, counts as heavy loss.
const SILENCE: Duration = Duration::from_millis(1500);

/// How the delay on the path moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// It stays.
    #[default]
    Normal,
    /// It grows: a queue fills.
    Over,
    /// It shrinks: a queue empties.
    Under,
}

/// What filled a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Media,
    /// It will be empty soon: nothing more of it is sent.
    Probe,
}

/// The estimate of one viewer's path.
#[derive(Debug)]
pub struct BandwidthEstimator {
    history: SentHistory,
    delay: DelayMonitor,
    acked: AckedRate,
    rate: RateControl,
    prober: Prober,
    rtt: Duration,
    heard_at: Option<Instant>,
    sent_since_heard: bool,
}

impl BandwidthEstimator {
    /// An estimator that believes `start` until feedback tells.
    pub fn new(now: Instant, start: Bitrate) -> Self {
        Self {
            history: SentHistory::new(now),
            delay: DelayMonitor::default(),
            acked: AckedRate::default(),
            rate: RateControl::new(now, start),
            prober: Prober::default(),
            rtt: Duration::from_millis(100),
            heard_at: None,
            sent_since_heard: false,
        }
    }

    /// A packet of `len` bytes was sent under transport-wide number `seq`; numbers rise by one (wrapping). The media
    /// path's only call: no search, and an allocation only while the history grows to its bound.
    pub fn on_sent(&mut self, now: Instant, seq: u16, len: usize) {
        self.history.push(now, seq, len, self.prober.current());
        self.sent_since_heard = true;
    }

    /// A report: numbers in order, each with its arrival in microseconds on the viewer's clock, or none if it has not
    /// arrived (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1). Numbers that were never sent are ignored.
    pub fn on_feedback(&mut self, now: Instant, packets: impl Iterator<Item = (u16, Option<i64>)>) {
        self.heard_at = Some(now);
        self.sent_since_heard = false;
        let (mut arrived, mut lost) = (0u32, 0u32);
        for (seq, arrival) in packets {
            let Some(arrival) = arrival else {
                lost += u32::from(self.history.lost(seq));
                continue;
            };
            if arrival.unsigned_abs() > ARRIVAL_MAX {
                continue;
            }
            let Some(sent) = self.history.arrived(seq) else { continue };
            arrived += 1;
            self.acked.add(arrival, sent.len);
            self.delay.add(sent.at_us, arrival);
            self.prober.on_arrival(sent.probe, sent.at_us, arrival, sent.len);
        }
        self.rate.count(now, arrived, lost);
        if arrived == 0 && lost == 0 {
            return;
        }
        let usage = self.delay.usage();
        let mut acked = self.acked.rate();
        let mut cause = Cause::Media;
        if usage == Usage::Over {
            if self.prober.has_filled_queue(now) {
                cause = Cause::Probe;
            }
            self.prober.on_congestion(now);
            acked = self.acked.recent().or(acked);
        }
        self.rate.update(now, usage, cause, acked, self.rtt);
        if let Some(found) = self.prober.poll_result(now)
            && usage != Usage::Over
        {
            self.rate.found(now, found);
        }
    }

    /// The round trip to the viewer.
    pub fn on_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// The viewer's own estimate, from viewers without transport-wide feedback (draft-alvestrand-rmcat-remb-03).
    pub fn on_remb(&mut self, now: Instant, bitrate: Bitrate) {
        self.heard_at = Some(now);
        self.sent_since_heard = false;
        self.rate.set(now, bitrate);
    }

    /// To be called every 100 ms or so.
    pub fn on_timeout(&mut self, now: Instant) {
        let Some(heard) = self.heard_at else { return };
        if now.saturating_duration_since(heard) < SILENCE {
            return;
        }
        self.heard_at = Some(now);
        if self.sent_since_heard {
            self.sent_since_heard = false;
            self.prober.on_congestion(now);
            self.rate.silence(now);
        } else {
            // Nothing is sent that would tell that a queue has gone: it has.
            self.delay = DelayMonitor::default();
        }
    }

    /// Bytes to be sent now beyond the media, so that the path is tried at a higher rate; zero mostly. `wanted` is the
    /// rate that would be of use; none if all is sent already. To be called every few milliseconds while it answers
    /// [`Self::is_probing`], every 100 ms or so otherwise; what is sent for it goes through [`Self::on_sent`].
    pub fn poll_probe(&mut self, now: Instant, wanted: Option<Bitrate>) -> usize {
        if self.heard_at.is_none() || self.delay.usage() == Usage::Over {
            return 0;
        }
        self.prober.poll(now, self.rate.estimate(), wanted, self.rtt)
    }

    /// A probe is under way.
    pub fn is_probing(&self) -> bool {
        self.prober.current() != 0
    }

    /// What the path is thought to carry; none before the first report.
    pub fn estimate(&self) -> Option<Bitrate> {
        self.heard_at.map(|_| self.rate.estimate())
    }

    /// The path has been found full, at about the estimate; if not, it carried all there was.
    pub fn is_limited(&self) -> bool {
        self.rate.is_limited()
    }

    /// Share of packets lost lately, 0 to 1.
    pub fn loss_ratio(&self) -> f64 {
        self.rate.loss_ratio()
    }

    /// How the delay moves.
    pub fn usage(&self) -> Usage {
        self.delay.usage()
    }
}

#[cfg(test)]
mod tests;
