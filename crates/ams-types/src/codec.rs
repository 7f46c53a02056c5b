//! Media kinds and the codecs that are forwarded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

impl MediaKind {
    /// The word of an SDP m-line: `audio` or `video`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

/// A codec this product forwards. Nothing is transcoded, so this list is what publishers may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// RFC 6184.
    H264,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// AOMedia's RTP payload format for AV1.
    Av1,
    /// RFC 7798.
    H265,
}

impl Codec {
    /// Every codec, in the order this node prefers none over another: a test and a menu iterate it.
    pub const ALL: [Codec; 6] = [Self::Opus, Self::H264, Self::Vp8, Self::Vp9, Self::Av1, Self::H265];

    /// The encoding name as `a=rtpmap` spells it.
    pub fn sdp_name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::H264 => "H264",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::H265 => "H265",
        }
    }

    /// The codec an `a=rtpmap` names; encoding names compare without case (RFC 8866 §6.6).
    pub fn from_sdp_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.sdp_name().eq_ignore_ascii_case(name))
    }

    /// Whether it carries sound or pictures.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Opus => MediaKind::Audio,
            _ => MediaKind::Video,
        }
    }

    /// RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self.kind() {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        }
    }
}

/// A codec with the parameters its publisher negotiated; viewers are offered the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CodecParams {
    /// Which codec.
    pub codec: Codec,
    /// The text after `a=fmtp:<pt> `, without payload type; empty where there is none.
    pub fmtp: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways_without_case() {
        for codec in Codec::ALL {
            assert_eq!(Codec::from_sdp_name(&codec.sdp_name().to_lowercase()), Some(codec));
        }
        assert_eq!(Codec::from_sdp_name("rtx"), None);
    }
}
