//! The media core: what happens to packets between ingest and egress, without sockets, clocks or tasks.
//!
//! Owns numbering, history, keyframe finding and the choice of what a viewer gets. Never sees a socket, a clock, SDP
//! or JSON: every function is told the time. See ARCHITECTURE.md, "The path of one RTP packet".
//!
//! - [`packet`]: the unit of media inside a node, shared by every viewer
//! - [`track`]: what a stream consists of

pub mod packet;
pub mod track;

pub use packet::{AbsCaptureTime, MediaPacket, PacketExtensions};
pub use track::{LayerInfo, SourceClock, StreamTracks, TrackInfo};
