//! What a receiver tells a sender about one layer: the numbers of an RTCP report block.
//!
//! Owns the counting of RFC 3550 appendix A.3 and A.8. Retransmissions are not fed to it: they have an SSRC of their
//! own (RFC 4588 §4), and loss that was repaired is still loss.

use std::time::{Duration, Instant};

use ams_types::ExtSeq;

use crate::clock;
use crate::seq::SeqExtender;

/// The contents of a report block (RFC 3550 §6.4.1) but for the SSRC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceptionReport {
    /// Packets lost since the last report, in 256ths of those expected.
    pub fraction_lost: u8,
    /// Packets lost since the beginning, within 24 bits with sign; negative where duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Highest sequence number; above its 16 bits the number of wraps.
    pub highest_seq: u32,
    /// Interarrival jitter in units of the RTP timestamp.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time; 0 if there was none.
    pub last_sr: u32,
    /// Time since that report in 65 536ths of a second; 0 if there was none.
    pub delay_since_last_sr: u32,
}

/// Counts the reception of one layer.
#[derive(Clone, Debug)]
pub struct ReceiveStats {
    clock_rate: u32,
    range: Option<Range>,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    last_sender_report: Option<(u64, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u64,
    highest: u64,
    /// Arrival of the first packet; arrivals are counted from here.
    since: Instant,
    /// Arrival less timestamp of the last packet, in units of the timestamp.
    transit: u32,
    /// Jitter times 16, as in RFC 3550 appendix A.8.
    jitter_scaled: u64,
}

impl ReceiveStats {
    /// Statistics of a layer whose timestamps count `clock_rate` per second.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, range: None, received: 0, expected_prior: 0, received_prior: 0, last_sender_report: None }
    }

    /// A packet with this number and RTP timestamp arrived at `now`.
    pub fn on_packet(&mut self, now: Instant, seq: ExtSeq, timestamp: u32) {
        self.received += 1;
        let Some(range) = &mut self.range else {
            let transit = 0u32.wrapping_sub(timestamp);
            self.range = Some(Range { first: seq.0, highest: seq.0, since: now, transit, jitter_scaled: 0 });
            return;
        };
        range.first = range.first.min(seq.0);
        range.highest = range.highest.max(seq.0);
        let arrival = clock::ticks(now.saturating_duration_since(range.since), self.clock_rate);
        let transit = arrival.wrapping_sub(timestamp);
        let change = u64::from((transit.wrapping_sub(range.transit) as i32).unsigned_abs());
        range.transit = transit;
        range.jitter_scaled = (range.jitter_scaled + change).saturating_sub((range.jitter_scaled + 8) >> 4);
    }

    /// A sender report with this NTP time arrived at `now`.
    pub fn on_sender_report(&mut self, now: Instant, ntp: u64) {
        self.last_sender_report = Some((ntp, now));
    }

    /// The report block for `now`; none before the first packet. The next fraction counts from here.
    pub fn report(&mut self, now: Instant) -> Option<ReceptionReport> {
        let range = self.range?;
        let expected = self.expected();
        let expected_now = expected.saturating_sub(self.expected_prior);
        let received_now = self.received.saturating_sub(self.received_prior);
        (self.expected_prior, self.received_prior) = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction_lost = (lost_now.saturating_mul(256)).checked_div(expected_now).unwrap_or(0).min(255) as u8;
        let (last_sr, delay_since_last_sr) = match self.last_sender_report {
            Some((ntp, at)) => (clock::ntp_middle(ntp), delay_units(now.saturating_duration_since(at))),
            None => (0, 0),
        };
        Some(ReceptionReport {
            fraction_lost,
            cumulative_lost: self.lost().clamp(-(1 << 23), (1 << 23) - 1) as i32,
            highest_seq: range.highest.saturating_sub(SeqExtender::FIRST_CYCLE) as u32,
            jitter: u32::try_from(range.jitter_scaled >> 4).unwrap_or(u32::MAX),
            last_sr,
            delay_since_last_sr,
        })
    }

    /// Packets that arrived, duplicates included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets that were sent as far as can be seen.
    pub fn expected(&self) -> u64 {
        self.range.map_or(0, |range| range.highest.saturating_sub(range.first).saturating_add(1))
    }

    /// Packets lost so far; negative where duplicates outnumber losses.
    pub fn lost(&self) -> i64 {
        i64::try_from(i128::from(self.expected()) - i128::from(self.received)).unwrap_or(i64::MAX)
    }

    /// Interarrival jitter.
    pub fn jitter(&self) -> Duration {
        let Some(range) = self.range else { return Duration::ZERO };
        clock::duration_of_ticks(range.jitter_scaled >> 4, self.clock_rate)
    }
}

/// A duration in 65 536ths of a second, at most what 32 bits hold.
fn delay_units(duration: Duration) -> u32 {
    u32::try_from(clock::ntp_from_duration(duration.min(Duration::from_secs(65_535))) >> 16).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ms, start};

    const C: u64 = SeqExtender::FIRST_CYCLE;

    fn report_of(seqs: &[u64]) -> ReceptionReport {
        let now = start();
        let mut stats = ReceiveStats::new(90_000);
        for seq in seqs {
            stats.on_packet(now, ExtSeq(*seq), 0);
        }
        stats.report(now).unwrap()
    }

    #[test]
    fn losses_are_counted() {
        for (name, seqs, fraction, lost, highest) in [
            ("none lost", &[C + 1, C + 2, C + 3, C + 4][..], 0, 0, 4),
            ("one of four", &[C + 1, C + 2, C + 4], 64, 1, 4),
            ("reordered", &[C + 2, C + 1, C + 4, C + 3], 0, 0, 4),
            ("wraps", &[C + 65_535, C + 65_536, C + 65_538], 64, 1, 65_538),
            ("duplicates", &[C + 1, C + 1, C + 1], 0, -2, 1),
            ("nearly all", &[C + 1, C + 10_000], 255, 9_998, 10_000),
            ("more than 24 bits hold", &[C, C + (1 << 30)], 255, (1 << 23) - 1, 1 << 30),
        ] {
            let report = report_of(seqs);
            assert_eq!(
                (report.fraction_lost, report.cumulative_lost, report.highest_seq),
                (fraction, lost, highest),
                "{name}"
            );
        }
    }

    #[test]
    fn the_fraction_counts_from_the_last_report() {
        let now = start();
        let mut stats = ReceiveStats::new(90_000);
        assert_eq!(stats.report(now), None);
        for seq in [C, C + 3] {
            stats.on_packet(now, ExtSeq(seq), 0);
        }
        assert_eq!(stats.report(now).unwrap().fraction_lost, 128);
        for seq in [C + 4, C + 5] {
            stats.on_packet(now, ExtSeq(seq), 0);
        }
        let second = stats.report(now).unwrap();
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, 2));
        assert_eq!(stats.report(now).unwrap().fraction_lost, 0, "nothing came since");
    }

    #[test]
    fn jitter_settles_at_the_mean_deviation() {
        let begin = start();
        let mut stats = ReceiveStats::new(90_000);
        for n in 0..400u64 {
            // Every other packet is 10 ms late: neighbours differ by 10 ms.
            let late = ms(if n % 2 == 1 { 10 } else { 0 });
            stats.on_packet(begin + ms(20 * n) + late, ExtSeq(C + n), (u32::MAX - 1000).wrapping_add(1800 * n as u32));
        }
        let jitter = stats.report(begin).unwrap().jitter;
        assert!((880..=900).contains(&jitter), "{jitter} is not 10 ms in 90 kHz");
        assert!(stats.jitter().abs_diff(ms(10)) < ms(1));
    }

    #[test]
    fn the_last_sender_report_is_named() {
        let now = start();
        let mut stats = ReceiveStats::new(48_000);
        stats.on_packet(now, ExtSeq(C), 0);
        assert_eq!(stats.report(now).map(|r| (r.last_sr, r.delay_since_last_sr)), Some((0, 0)));
        stats.on_sender_report(now, 0x1122_3344_5566_7788);
        let report = stats.report(now + ms(1500)).unwrap();
        assert_eq!((report.last_sr, report.delay_since_last_sr), (0x3344_5566, 0x0001_8000));
    }
}
