//! WebRTC transport and peers: ICE-lite, DTLS-SRTP, data channels, SDP, RTP and RTCP.
//!
//! Owns everything between a UDP socket and the media core. The only crate that names `rtc-*` types. Sans-IO but for
//! [`udp`] and [`candidates`], which ask the system. Never sees HTTP, JSON, the registry or the relay.
//!
//! - [`transport`]: one peer's connection; made of [`ice`], [`dtls`], [`srtp`] and [`sctp`]
//! - [`sdp`]: what is negotiated
//! - [`rtp`], [`ext`], [`rtcp`], [`twcc`]: packets, read and written in place
//! - [`publisher`], [`viewer`]: the two kinds of peer
//! - [`udp`], [`tx`], [`candidates`]: a shard's socket, what leaves it, and how it can be reached

pub mod candidates;
pub mod dtls;
pub mod ext;
pub mod ice;
pub mod publisher;
pub mod rtcp;
pub mod rtp;
pub mod sctp;
pub mod sdp;
pub mod srtp;
mod stun;
#[cfg(any(test, feature = "test-util"))]
pub mod testpeer;
pub mod transport;
pub mod twcc;
pub mod tx;
pub mod udp;
pub mod viewer;
