//! What a viewer says of the media it gets: RTCP, read in place.
//!
//! Owns how reports become figures of the viewer and what they ask of the stream. Answers nothing itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ams_media::BandwidthEstimator;
use ams_types::{Ssrc, TrackNo};

use super::{RTT_ASSUMED, Track};
use crate::rtcp::{self, Rtcp};

/// What a viewer asks of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// A packet did not arrive.
    Lost {
        /// Of which track.
        track: TrackNo,
        /// The viewer's number of it.
        seq: u16,
    },
    /// Its decoder needs a keyframe.
    KeyframeWanted {
        /// Of which track.
        track: TrackNo,
    },
}

/// The parts of a viewer that reading RTCP needs while the transport lends the packet.
pub(super) struct Reader<'a> {
    pub(super) bandwidth: &'a mut Option<Box<BandwidthEstimator>>,
    pub(super) tracks: &'a mut Vec<Track>,
    pub(super) reports: &'a VecDeque<(u32, Instant)>,
    pub(super) rtt: &'a mut Option<Duration>,
    pub(super) malformed: &'a mut u64,
}

impl Reader<'_> {
    pub(super) fn read(&mut self, now: Instant, packet: &[u8], feedback: &mut Vec<Feedback>) {
        for item in rtcp::parse(packet) {
            match item {
                Ok(Rtcp::ReceiverReport { reports, .. }) => self.reports(now, reports),
                Ok(Rtcp::SenderReport(report)) => self.reports(now, report.reports),
                Ok(Rtcp::Nack { media, seqs, .. }) => {
                    if let Some(track) = self.track_of(media) {
                        let before = feedback.len();
                        feedback.extend(seqs.map(|seq| Feedback::Lost { track: track.setup.no, seq }));
                        track.heard.nacks += (feedback.len() - before) as u64;
                    }
                }
                Ok(Rtcp::Pli { media, .. }) => {
                    self.keyframe_wanted(now, media, feedback);
                }
                Ok(Rtcp::Fir { entries, .. }) => {
                    for (ssrc, _) in entries {
                        self.keyframe_wanted(now, ssrc, feedback);
                    }
                }
                Ok(Rtcp::TransportCc(report)) => {
                    if let Some(bandwidth) = self.bandwidth {
                        bandwidth.on_feedback(now, report.packets());
                    }
                }
                Ok(Rtcp::Remb { bitrate, .. }) => {
                    let new = || Box::new(BandwidthEstimator::new(now, bitrate));
                    self.bandwidth.get_or_insert_with(new).on_remb(now, bitrate);
                }
                Ok(_) => {}
                Err(_) => *self.malformed += 1,
            }
        }
    }

    fn track_of(&mut self, ssrc: Ssrc) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|t| t.setup.ssrc == ssrc)
    }

    fn keyframe_wanted(&mut self, now: Instant, ssrc: Ssrc, feedback: &mut Vec<Feedback>) {
        let rtt = self.rtt.unwrap_or(RTT_ASSUMED);
        let estimate = self.bandwidth.as_ref().and_then(|bandwidth| bandwidth.estimate());
        if let Some(track) = self.track_of(ssrc) {
            track.heard.keyframe_requests += 1;
            if !track.keyframe.is_some_and(|keyframe| keyframe.is_enough(now, rtt, estimate)) {
                feedback.push(Feedback::KeyframeWanted { track: track.setup.no });
            }
        }
    }

    fn reports(&mut self, now: Instant, reports: rtcp::ReportBlocks<'_>) {
        for report in reports {
            if let Some(track) = self.tracks.iter_mut().find(|t| t.setup.ssrc == report.ssrc) {
                track.bound = true;
                track.heard.lost = report.lost;
                track.heard.fraction_lost = report.fraction_lost;
                track.heard.jitter = report.jitter;
            }
            if let Some((_, sent_at)) =
                self.reports.iter().find(|(middle, _)| *middle == report.last_sr && *middle != 0)
            {
                let held = Duration::from_secs_f64(f64::from(report.delay_since_last_sr) / 65_536.0);
                let sample = now.saturating_duration_since(*sent_at).saturating_sub(held);
                *self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
            }
        }
    }
}
