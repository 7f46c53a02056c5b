//! The words every crate shares: ids, epochs, units, codecs.
//!
//! Owns names and their parsing, nothing that acts. Parse once, at the door: a [`StreamId`] that exists is valid.
//!
//! - [`id`]: names of things that last (application, stream, node)
//! - [`rtp`]: names inside one media session (SSRC, MID, RID, payload type, track, layer)
//! - [`codec`]: media kinds and codec parameters
//! - [`unit`]: quantities with their unit

pub mod codec;
pub mod id;
pub mod rtp;
pub mod unit;

pub use codec::{Codec, CodecParams, MediaKind};
pub use id::{AppName, Epoch, Incarnation, InvalidId, NodeId, StreamId, StreamKey};
pub use rtp::{ExtSeq, LayerNo, Mid, Pt, Rid, Ssrc, TrackNo};
pub use unit::Bitrate;
