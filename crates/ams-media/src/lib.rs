//! The media core: what happens to packets between ingest and egress, without sockets, clocks or tasks.
//!
//! Owns numbering, history, keyframe finding and the choice of what a viewer gets. Never sees a socket, a clock, SDP
//! or JSON: every function is told the time. See ARCHITECTURE.md, "The path of one RTP packet".
//!
//! - [`packet`]: the unit of media inside a node, shared by every viewer
//! - [`track`]: what a stream consists of
//! - [`clock`]: RTP ticks, NTP time and the sender reports that tie them together
//!
//! Ingest, per layer:
//! - [`ingest`]: one layer at ingest, the call per packet
//! - [`seq`]: sequence numbers that do not wrap
//! - [`payload`]: frame starts and picture sizes in what payloads tell of themselves
//! - [`keyframe`]: which packet starts a keyframe
//! - [`sublayer`]: where packets stand among temporal and spatial layers
//! - [`nack`]: what to ask the publisher for again
//! - [`receive_stats`]: what to report to it
//! - [`keyframe_request`]: when to ask it for a keyframe
//!
//! Fan-out and egress:
//! - [`ring`]: recent packets of a layer, for NACKs of viewers
//! - [`bandwidth`]: what the path to a viewer carries
//! - [`choice`], [`layer`], [`depth`]: which layer a viewer is to get and how much of it, and when that can change
//! - [`rewrite`], [`timeline`]: from source numbers and timestamps to those of viewers
//! - [`egress`]: one track of one viewer, the call per viewer and packet

pub mod bandwidth;
pub mod choice;
pub mod clock;
pub mod depth;
pub mod egress;
pub mod ingest;
pub mod keyframe;
pub mod keyframe_request;
pub mod layer;
pub mod nack;
pub mod packet;
pub mod payload;
pub mod receive_stats;
pub mod rewrite;
pub mod ring;
mod sent_window;
pub mod seq;
pub mod sublayer;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod track;

pub use bandwidth::BandwidthEstimator;
pub use choice::{Choice, LayerChoice, LayerOffer};
pub use clock::ReportTime;
pub use depth::{DepthSelector, DepthVerdict};
pub use egress::{EgressCounters, Resend, ViewerTrack};
pub use ingest::{ArrivedRtp, Ingested, LayerIngest};
pub use keyframe::KeyframeDetector;
pub use keyframe_request::KeyframeThrottle;
pub use layer::{LayerMonitor, LayerSelector, Verdict};
pub use nack::{GapTooWide, NackCounters, NackGenerator};
pub use packet::{AbsCaptureTime, MediaPacket, PacketExtensions};
pub use payload::{FrameSize, frame_size, spatial_heights, starts_frame, starts_keyframe};
pub use receive_stats::{ReceiveStats, ReceptionReport};
pub use rewrite::{Rewritten, SequenceRewriter, Source, SourcePacket};
pub use ring::{Insert, Kept, PacketRing, RingLimits};
pub use seq::SeqExtender;
pub use sublayer::{Depth, Sublayer, SublayerReader};
pub use track::{LayerInfo, SourceClock, StreamTracks, TrackInfo};
