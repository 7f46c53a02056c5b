//! What is known of one viewer: its figures and how far it has come.
//!
//! Owns the counts that RTCP brings and the moments of joining. Costs the media path one comparison per packet.

use std::time::{Duration, Instant};

use ams_media::{EgressCounters, Rewritten};
use ams_types::{Codec, LayerNo, MediaKind, TrackNo};

use super::{EgressTrack, Track};

/// How far a viewer has come, each step counted from the moment its peer was made.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    made_at: Instant,
    /// ICE and DTLS done.
    pub connected: Option<Duration>,
    /// The first packet of media was sent.
    pub first_packet: Option<Duration>,
    /// The last packet of the first keyframe was sent.
    pub first_picture: Option<Duration>,
}

impl Stages {
    pub(super) fn new(now: Instant) -> Self {
        Self { made_at: now, connected: None, first_packet: None, first_picture: None }
    }

    pub(super) fn connected(&mut self, now: Instant) {
        self.connected.get_or_insert(now.saturating_duration_since(self.made_at));
    }

    pub(super) fn sent(&mut self, now: Instant, sent: Option<Rewritten>, track: &EgressTrack) {
        let Some(sent) = sent.filter(|_| self.first_picture.is_none()) else { return };
        let since = now.saturating_duration_since(self.made_at);
        self.first_packet.get_or_insert(since);
        if sent.marker && track.codec.kind() == MediaKind::Video {
            self.first_picture = Some(since);
        }
    }
}

/// What the viewer itself said of a track.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    pub(super) nacks: u64,
    pub(super) keyframe_requests: u64,
    /// Of the last report: packets lost since the track began, share lost lately in 1/256, jitter in clock ticks.
    pub(super) lost: i32,
    pub(super) fraction_lost: u8,
    pub(super) jitter: u32,
}

/// One track of a viewer.
#[derive(Clone, Debug)]
pub struct TrackStats {
    /// Which track of the stream.
    pub no: TrackNo,
    /// Its codec.
    pub codec: Codec,
    /// The layer the viewer is on; none while it waits for a keyframe.
    pub layer: Option<LayerNo>,
    /// What was sent.
    pub sent: EgressCounters,
    /// Packets the viewer asked for again.
    pub nacks: u64,
    /// Keyframes it asked for.
    pub keyframe_requests: u64,
    /// Packets lost in all, as it reports them; duplicates can make it negative (RFC 3550 §6.4.1).
    pub lost: i32,
    /// Share of packets lost before its last report, 0 to 1.
    pub loss_ratio: f32,
    /// Interarrival jitter it reports.
    pub jitter: Duration,
}

impl TrackStats {
    pub(super) fn of(track: &Track) -> Self {
        let heard = track.heard;
        Self {
            no: track.setup.no,
            codec: track.setup.codec,
            layer: track.numbering.layer(),
            sent: track.numbering.counters(),
            nacks: heard.nacks,
            keyframe_requests: heard.keyframe_requests,
            lost: heard.lost,
            loss_ratio: f32::from(heard.fraction_lost) / 256.0,
            jitter: Duration::from_secs_f64(f64::from(heard.jitter) / f64::from(track.setup.codec.clock_rate())),
        }
    }
}

/// A viewer's figures.
#[derive(Clone, Debug)]
pub struct ViewerStats {
    /// Round trip, once a report told.
    pub rtt: Option<Duration>,
    /// How far it has come.
    pub stages: Stages,
    /// Its tracks.
    pub tracks: Vec<TrackStats>,
}
