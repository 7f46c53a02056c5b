//! The relay link: one TCP connection by which an edge pulls streams from an origin.
//!
//! Owns the frames on the wire (`WIRE.md`), the handshake, the bounded egress queue and the link's IO shell. Never sees
//! WebRTC, HTTP or the registry, and never decides who pulls what from where: that is the node's.
//!
//! Sans-IO, told the time, no clock and no randomness:
//! - [`wire`]: the codec, one table of frames
//! - [`handshake`]: who is at the other end, and may it be there
//! - [`queue`]: what one link still has to send, bounded in time and bytes
//! - [`session`]: which streams go over a link, on both ends
//! - [`keepalive`], [`redial`]: when a link counts as dead, and when to dial again
//!
//! With sockets:
//! - [`connect`]: dial and accept, up to an established link
//! - [`link`]: reading and writing an established link
//!
//! Data that others fill in: [`config`], [`key`]. Everything that can go wrong: [`error`].

pub mod config;
pub mod connect;
pub mod error;
pub mod handshake;
pub mod keepalive;
pub mod key;
pub mod link;
pub mod queue;
pub mod redial;
pub mod session;
pub mod wire;

pub use config::RelayConfig;
pub use connect::{Connected, ConnectedStd, accept, dial, dial_far};
pub use error::RelayError;
pub use handshake::{Established, Handshake, HandshakeConfig, PeerInfo};
pub use keepalive::{Keepalive, KeepaliveAction};
pub use key::ClusterKey;
pub use link::{LinkReader, LinkWriter, write_loop};
pub use queue::{EgressQueue, LayerRef, Pushed, QueueLimits, WriteBuf};
pub use redial::Redial;
pub use wire::{Frame, StreamHandle, WireError};
