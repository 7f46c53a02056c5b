//! Why an SDP was refused. Each reason is one sentence for the person at the other end; [`SdpError::fault`] sorts them
//! for a caller that has to choose a status code.

use ams_types::{MediaKind, Mid};

use super::attr::Direction;

/// Why an SDP was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// The text is longer than is read.
    #[error("the SDP is {len} bytes or lines long; the limit is {max}")]
    TooLong {
        /// Its length, in bytes or, where that was in bounds, in lines.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A line is not SDP, or says something impossible.
    #[error("line {line} of the SDP: {reason}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no m-line.
    #[error("the SDP has no m-line: nothing to send or receive")]
    NoMedia,
    /// There are more m-lines than are read.
    #[error("the SDP has more than {max} m-lines")]
    TooManyMedia {
        /// The limit.
        max: usize,
    },
    /// Two m-lines have one mid.
    #[error("two m-lines have the mid {mid:?}")]
    DuplicateMid {
        /// The name used twice.
        mid: Mid,
    },
    /// There are more tracks of a kind than one stream has.
    #[error("a stream has at most {max} {} track(s)", .kind.as_str())]
    TooManyTracks {
        /// Audio or video.
        kind: MediaKind,
        /// The limit.
        max: usize,
    },
    /// An m-line is neither RTP over DTLS nor a data channel.
    #[error("m-line {mid} is {media:?}, which is neither audio or video over DTLS-SRTP nor a data channel")]
    UnsupportedMedia {
        /// The m-line.
        mid: Mid,
        /// Its media and protocol.
        media: String,
    },
    /// An m-line flows the wrong way.
    #[error("m-line {mid} is {offered}; it must be {wanted}")]
    Direction {
        /// The m-line.
        mid: Mid,
        /// What it says.
        offered: Direction,
        /// What would do.
        wanted: &'static str,
    },
    /// None of an m-line's codecs will do.
    #[error("no common {} codec: offered {offered}; needed {needed}", .kind.as_str())]
    NoCommonCodec {
        /// Audio or video.
        kind: MediaKind,
        /// What the other end has, for a person.
        offered: String,
        /// What would do, for a person.
        needed: String,
    },
    /// An m-line would need a transport of its own.
    #[error("m-line {mid} is not in the BUNDLE group; all media must share one transport")]
    NotBundled {
        /// The m-line.
        mid: Mid,
    },
    /// An m-line would need a transport of its own for RTCP.
    #[error("m-line {mid} lacks a=rtcp-mux, which is required")]
    RtcpMuxRequired {
        /// The m-line.
        mid: Mid,
    },
    /// There is no usable `a=fingerprint`.
    #[error("the SDP has no a=fingerprint of SHA-256, SHA-384 or SHA-512")]
    NoFingerprint,
    /// There is no `a=ice-ufrag` or `a=ice-pwd`.
    #[error("the SDP has no a=ice-ufrag and a=ice-pwd")]
    NoIceCredentials,
    /// Both ends wait for the other to begin.
    #[error("both ends are ICE-lite; the other end must be a full ICE agent")]
    IceLitePeer,
    /// An answer does not fit its offer.
    #[error("the answer does not fit the offer: {reason}")]
    AnswerMismatch {
        /// In what.
        reason: &'static str,
    },
    /// Every m-line was refused, or wants nothing.
    #[error("no m-line of the SDP can be used")]
    NothingAccepted,
}

/// What kind of fault a refused SDP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not SDP as the RFCs have it (HTTP 400).
    Syntax,
    /// It is too large (HTTP 413).
    Size,
    /// It is well-formed and asks for something that is not done here (HTTP 422).
    Unsupported,
    /// The two ends have no codec in common (HTTP 406 for a viewer, 422 for a publisher).
    Codec,
}

impl SdpError {
    /// Whose fault it is, for the choice of a status code.
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLong { .. } => Fault::Size,
            Self::Malformed { .. } | Self::NoMedia | Self::DuplicateMid { .. } => Fault::Syntax,
            Self::NoFingerprint | Self::NoIceCredentials | Self::AnswerMismatch { .. } => Fault::Syntax,
            Self::NoCommonCodec { .. } => Fault::Codec,
            Self::TooManyMedia { .. }
            | Self::TooManyTracks { .. }
            | Self::UnsupportedMedia { .. }
            | Self::Direction { .. }
            | Self::NotBundled { .. }
            | Self::RtcpMuxRequired { .. }
            | Self::IceLitePeer
            | Self::NothingAccepted => Fault::Unsupported,
        }
    }
}
