//! What a stream consists of: tracks, their codecs and layers, and how their clocks relate.

use std::time::Instant;

use ams_types::{CodecParams, LayerNo, MediaKind, Rid, TrackNo};

/// One audio or video of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Its place in the stream.
    pub no: TrackNo,
    /// Audio or video; always that of the codec.
    pub kind: MediaKind,
    /// The codec every layer of it uses.
    pub codec: CodecParams,
    /// Its layers in the publisher's order; at least one, at most [`LAYERS_MAX`].
    pub layers: Vec<LayerInfo>,
}

/// Most tracks one stream may have.
pub const TRACKS_MAX: usize = 8;
/// Most simulcast layers one track may have.
pub const LAYERS_MAX: usize = 4;

/// One simulcast encoding of a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its place in the track.
    pub no: LayerNo,
    /// The publisher's name for it; none without simulcast.
    pub rid: Option<Rid>,
}

/// Everything a viewer must know of a stream before the first packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTracks {
    /// The tracks in order of their numbers.
    pub tracks: Vec<TrackInfo>,
    /// The publisher opened a data channel.
    pub data_channel: bool,
}

/// The last sender report of a layer: which RTP timestamp was which moment of the publisher's clock (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceClock {
    /// Publisher's wall clock as 32.32 fixed-point NTP time.
    pub ntp: u64,
    /// RTP timestamp of that moment, in the layer's own numbering.
    pub rtp: u32,
    /// When this node learned it. One node's clock only.
    pub learned_at: Instant,
}
