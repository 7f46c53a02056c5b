//! Arithmetic of media clocks: RTP ticks, NTP's 32.32 fixed point, and the sender reports that tie them together.
//!
//! Reads no clock: what time it is, in either sense, is always an argument.

use std::time::{Duration, Instant};

use crate::track::SourceClock;

/// Seconds from NTP's era (1900) to Unix's (1970).
pub const NTP_UNIX_OFFSET_S: u64 = 2_208_988_800;

/// A moment in a sender report: the wall clock and the RTP timestamp that belongs to it (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportTime {
    /// 32.32 fixed-point NTP time.
    pub ntp: u64,
    /// RTP timestamp.
    pub rtp: u32,
}

impl SourceClock {
    /// The publisher's wall clock and the source's RTP timestamp at `now`, carried on from its last sender report.
    ///
    /// For reports to viewers: put the timestamp through [`ViewerTrack::timestamp`](crate::ViewerTrack::timestamp).
    /// Sound and picture stay in sync as both name the publisher's clock.
    pub fn at(&self, now: Instant, clock_rate: u32) -> ReportTime {
        let elapsed = now.saturating_duration_since(self.learned_at);
        ReportTime {
            ntp: self.ntp.wrapping_add(ntp_from_duration(elapsed)),
            rtp: self.rtp.wrapping_add(ticks(elapsed, clock_rate)),
        }
    }

    /// A clock for a source that has sent no report yet: timestamp `rtp` was taken in at `now`, which is `ntp` here.
    pub fn assumed(now: Instant, ntp: u64, rtp: u32) -> Self {
        Self { ntp, rtp, learned_at: now }
    }
}

/// RTP ticks in a duration, wrapping as timestamps do.
pub fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    let whole = duration.as_secs().wrapping_mul(clock_rate.into());
    let part = u64::from(duration.subsec_nanos()) * u64::from(clock_rate) / 1_000_000_000;
    whole.wrapping_add(part) as u32
}

/// The time `ticks` of a clock take; no time for a clock that stands still.
pub fn duration_of_ticks(ticks: u64, clock_rate: u32) -> Duration {
    let rate = u64::from(clock_rate);
    let (Some(whole), Some(part)) = (ticks.checked_div(rate), ticks.checked_rem(rate)) else { return Duration::ZERO };
    Duration::from_secs(whole) + Duration::from_nanos(part * 1_000_000_000 / rate)
}

/// A duration as 32.32 fixed point; wraps at 2³² seconds as NTP does.
pub fn ntp_from_duration(duration: Duration) -> u64 {
    let fraction = (u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000;
    duration.as_secs() << 32 | fraction
}

/// A 32.32 fixed-point number of seconds as a duration, to the nanosecond below.
pub fn duration_from_ntp(ntp: u64) -> Duration {
    let nanos = ((ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
    Duration::new(ntp >> 32, nanos as u32)
}

/// NTP time of a moment given as time since the Unix epoch.
pub fn ntp_from_unix(since_unix_epoch: Duration) -> u64 {
    ntp_from_duration(since_unix_epoch + Duration::from_secs(NTP_UNIX_OFFSET_S))
}

/// The middle 32 bits, as report blocks quote a sender report (LSR, RFC 3550 §6.4.1).
pub fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Round trip time from a report block that came back at `now_ntp` (RFC 3550 §6.4.1); none if it quotes no report, or
/// nonsense.
pub fn round_trip(now_ntp: u64, last_sr: u32, delay_since_last_sr: u32) -> Option<Duration> {
    if last_sr == 0 {
        return None;
    }
    let units = ntp_middle(now_ntp).wrapping_sub(last_sr).wrapping_sub(delay_since_last_sr);
    // Above half the range the peer claims to have held it longer than it had it.
    (units < 1 << 31).then(|| duration_from_ntp(u64::from(units) << 16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{ms, start};

    #[test]
    fn a_source_clock_runs_on() {
        let now = start();
        for (name, ntp, rtp, elapsed, rate, want) in [
            ("at once", 5 << 32, 1000, ms(0), 90_000, (5 << 32, 1000)),
            ("video", 5 << 32, 1000, ms(2500), 90_000, ((7 << 32) + (1 << 31), 226_000)),
            ("audio", 0, 0, ms(20), 48_000, (ntp_from_duration(ms(20)), 960)),
            ("timestamp wraps", 0, u32::MAX, ms(1000), 90_000, (1 << 32, 89_999)),
            ("NTP's era ends", u64::MAX, 0, ms(1000), 90_000, ((1 << 32) - 1, 90_000)),
        ] {
            let clock = SourceClock { ntp, rtp, learned_at: now };
            let (ntp, rtp) = want;
            assert_eq!(clock.at(now + elapsed, rate), ReportTime { ntp, rtp }, "{name}");
        }
    }

    #[test]
    fn round_trips() {
        let at = |ms_: u64| ntp_from_unix(Duration::from_secs(1_700_000_000) + ms(ms_));
        let sent = ntp_middle(at(0));
        for (name, back, last_sr, delay_ms, want_ms) in [
            ("plain", 150, sent, 100, Some(50)),
            ("no report quoted", 150, 0, 0, None),
            ("held longer than it was away", 150, sent, 500, None),
        ] {
            let delay = (ntp_from_duration(ms(delay_ms)) >> 16) as u32;
            let got = round_trip(at(back), last_sr, delay);
            assert_eq!(
                got.map(|rtt| rtt.as_millis().abs_diff(want_ms.unwrap_or(0)) <= 1),
                want_ms.map(|_| true),
                "{name}"
            );
        }
    }

    #[test]
    fn ticks_wrap_and_a_standing_clock_is_no_fault() {
        assert_eq!(ticks(Duration::from_secs(47_722), 90_000), (47_722u64 * 90_000 % (1 << 32)) as u32);
        assert_eq!(duration_of_ticks(90_000 * 3 + 45_000, 90_000), ms(3500));
        assert_eq!(duration_of_ticks(1, 0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn ntp_goes_both_ways(seconds in 0u64..1 << 32, nanos in 0u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            let back = duration_from_ntp(ntp_from_duration(duration));
            prop_assert!(back <= duration && duration - back <= Duration::from_nanos(1));
        }
    }
}
