//! Names inside one media session, as in the RFCs, and the numbers a stream's media goes by inside a node.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// RTP synchronisation source (RFC 3550 §3). Unique within one peer connection, never across nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ssrc(pub u32);

/// RTP payload type (RFC 3550 §5.1), 0 to 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pt(pub u8);

/// Media identification: names an m-line of one SDP (RFC 8843).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mid(pub Arc<str>);

/// Restriction identifier: names a simulcast layer (RFC 8851).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rid(pub Arc<str>);

/// A track's place in its stream, counted from 0 in the order of the publisher's m-lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrackNo(pub u8);

/// A simulcast layer's place in its track; 0 where there is only one. Order is the publisher's; quality is not implied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerNo(pub u8);

/// An RTP sequence number extended past its 16 bits (RFC 3711 §3.3.1): it never wraps in practice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExtSeq(pub u64);

impl ExtSeq {
    /// The 16 bits that go on the wire.
    pub fn low16(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
