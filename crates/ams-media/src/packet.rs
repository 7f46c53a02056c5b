//! The unit of media inside a node: one RTP packet of one layer, frozen at ingest and shared by every viewer.
//!
//! Owns the payload and what egress needs to rewrite the header. Knows nothing of the SSRC, sequence number or payload
//! type it arrived with: those belong to the publisher's session and end at ingest.

use std::time::{Duration, Instant};

use ams_types::{ExtSeq, LayerNo, TrackNo};
use bytes::Bytes;

use crate::sublayer::Sublayer;

/// One packet of media. Held in an `Arc`; never changed after ingest.
#[derive(Clone, Debug)]
pub struct MediaPacket {
    /// Which track of the stream.
    pub track: TrackNo,
    /// Which layer of the track.
    pub layer: LayerNo,
    /// The source's sequence number, extended. Counts per (track, layer); continues over reordering, not over epochs.
    pub seq: ExtSeq,
    /// The source's RTP timestamp, in the codec's clock.
    pub timestamp: u32,
    /// RTP marker bit: the last packet of a video frame, the first of a talk spurt.
    pub marker: bool,
    /// This packet starts a keyframe: a decoder can begin here. Always true for audio.
    pub keyframe: bool,
    /// Where it stands among the temporal and spatial layers of its encoding, if it says so.
    pub sublayer: Option<Sublayer>,
    /// Header extensions that travel with the media.
    pub extensions: PacketExtensions,
    /// RTP payload, without padding.
    pub payload: Bytes,
    /// When this node took it in; base of the forward delay. One node's clock only.
    pub ingest_at: Instant,
    /// How old it was then: what it had spent in other nodes, in their histories above all. Zero from a publisher.
    pub age: Duration,
}

impl MediaPacket {
    /// How long ago the publisher's packet came to its origin, but for the time on the wires between nodes.
    pub fn age_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.ingest_at).saturating_add(self.age)
    }
}

/// Header extensions that describe the media itself and so are forwarded from publisher to viewer (RFC 8285).
///
/// Those that describe a hop (MID, RID, transport sequence number, send time) are not here: each hop writes its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketExtensions {
    /// `ssrc-audio-level`: voice flag in the top bit, level in -dBov below (RFC 6464).
    pub audio_level: Option<u8>,
    /// `video-orientation`: rotation and flip bits (3GPP TS 26.114).
    pub video_orientation: Option<u8>,
    /// `abs-capture-time`.
    pub abs_capture_time: Option<AbsCaptureTime>,
    /// `playout-delay`: 12 bits of minimum, 12 of maximum, in 10 ms.
    pub playout_delay: Option<[u8; 3]>,
    /// AV1 dependency descriptor, as it came.
    pub dependency_descriptor: Option<Bytes>,
}

/// `abs-capture-time`: when the capturer's clock took the picture or sound, as 32.32 fixed-point NTP time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// Capture time in the capturer's NTP clock.
    pub timestamp: u64,
    /// Estimated offset from that clock to the sender's, if it said so.
    pub clock_offset: Option<i64>,
}
