//! Everything that can go wrong with a relay link, each with a sentence that says what to do about it.
//!
//! Owns the error type of handshake, link and queue. What a single frame can get wrong is [`WireError`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ams_types::NodeId;

use crate::wire::{RejectCode, WireError};

/// Why a relay link was not established, or ended.
///
/// Except for [`RelayError::Resolve`], [`RelayError::Connect`], [`RelayError::Io`], [`RelayError::Closed`], [`RelayError::HandshakeTimeout`] and
/// [`RelayError::Silent`], dialling again without changing something will fail the same way: see
/// [`RelayError::is_transient`].
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The bytes that arrived are not the relay protocol, or break its limits.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The other node's name has no address.
    #[error("{host} cannot be resolved: {cause}")]
    Resolve {
        /// The name.
        host: String,
        /// What went wrong.
        #[source]
        cause: std::io::Error,
    },
    /// The peer does not begin with a relay hello.
    #[error("the peer does not speak the relay protocol: check that the address is a node's relay port (5000)")]
    NotARelay,
    /// A frame that has no place where it came.
    #[error("the peer sent a {found} frame where {wanted} was due: one of the two nodes has a broken relay")]
    UnexpectedFrame {
        /// The frame that came.
        found: &'static str,
        /// What the protocol allows there.
        wanted: &'static str,
    },
    /// The peer needs a newer protocol than this node has.
    #[error("node {peer} needs relay version {peer_min} or newer, this node speaks up to {ours}: upgrade this node")]
    PeerTooNew {
        /// The other node.
        peer: NodeId,
        /// The oldest version it accepts.
        peer_min: u16,
        /// The newest version this node speaks.
        ours: u16,
    },
    /// The peer is too old for this node.
    #[error("node {peer} speaks relay version {peer_version}, this node needs {ours_min} or newer: upgrade {peer}")]
    PeerTooOld {
        /// The other node.
        peer: NodeId,
        /// The newest version it speaks.
        peer_version: u16,
        /// The oldest version this node accepts.
        ours_min: u16,
    },
    /// The peer insists on features this node does not know.
    #[error("node {peer} insists on relay features {bits:#018x} that this node does not know: upgrade this node")]
    FeatureRequired {
        /// The other node.
        peer: NodeId,
        /// The required feature bits that are unknown here.
        bits: u64,
    },
    /// The peer could not prove that it holds this node's cluster key.
    #[error("node {peer} holds a different cluster key: give both nodes the same --cluster-key-file")]
    WrongKey {
        /// Who the peer said it was.
        peer: NodeId,
    },
    /// This node has no cluster key, the peer has one.
    #[error("node {peer} asks for a cluster key and this node has none: start this node with --cluster-key-file")]
    KeyMissingHere {
        /// The other node.
        peer: NodeId,
    },
    /// This node has a cluster key, the peer has none.
    #[error("node {peer} has no cluster key and this node asks for one: start {peer} with --cluster-key-file")]
    KeyMissingThere {
        /// The other node.
        peer: NodeId,
    },
    /// Another node answers behind the dialled address.
    #[error("node {expected} was dialled but {found} answered: the address was reused, look {expected} up again")]
    WrongNode {
        /// Who was dialled.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// The link leads back to this very process.
    #[error("node {node_id} dialled itself: check --advertise, it must be an address only this node has")]
    SelfLoop {
        /// This node.
        node_id: NodeId,
    },
    /// Another process runs under this node's id.
    #[error("two running nodes are both called {node_id}: give each its own node id (was an image or volume cloned?)")]
    DuplicateNodeId {
        /// The id both have.
        node_id: NodeId,
    },
    /// The peer refused the link and said why.
    #[error("the peer refused the link ({code}): {sentence}")]
    Rejected {
        /// The peer's reason for programs.
        code: RejectCode,
        /// The peer's reason for people, without control characters.
        sentence: String,
    },
    /// The handshake did not finish in its time.
    #[error("the relay handshake was not finished in time: the peer is overloaded or is not a node's relay port")]
    HandshakeTimeout,
    /// No TCP connection.
    #[error("cannot connect to relay address {addr}")]
    Connect {
        /// The address dialled.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The connection broke.
    #[error("the relay link broke")]
    Io(#[from] io::Error),
    /// The peer closed the connection.
    #[error("the peer closed the relay link")]
    Closed,
    /// Nothing came from the peer, or it answers no more, although TCP holds.
    #[error("the relay link was silent for {silent_for:?}")]
    Silent {
        /// How long.
        silent_for: Duration,
    },
    /// The peer takes control frames so slowly that they piled up to the limit.
    #[error("{queued} bytes of control frames wait for the peer, over the limit of {max}: it does not read its link")]
    ControlOverflow {
        /// Bytes that would wait.
        queued: usize,
        /// The limit in bytes.
        max: usize,
    },
}

impl RelayError {
    /// Whether dialling again may succeed without anyone changing a setting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Io(_)
            | Self::Closed
            | Self::Silent { .. }
            | Self::HandshakeTimeout
            | Self::ControlOverflow { .. } => true,
            Self::Rejected { code, .. } => matches!(code, RejectCode::Draining | RejectCode::TooManyLinks),
            _ => false,
        }
    }

    /// The code this node rejects the peer with for this error; none where there is nothing left to tell it.
    pub fn reject_code(&self) -> Option<RejectCode> {
        Some(match self {
            Self::Wire(_) | Self::NotARelay | Self::UnexpectedFrame { .. } => RejectCode::Malformed,
            Self::PeerTooNew { .. } | Self::PeerTooOld { .. } => RejectCode::Version,
            Self::FeatureRequired { .. } => RejectCode::Feature,
            Self::WrongKey { .. } => RejectCode::WrongKey,
            Self::KeyMissingHere { .. } | Self::KeyMissingThere { .. } => RejectCode::KeyMode,
            Self::WrongNode { .. } => RejectCode::WrongNode,
            Self::SelfLoop { .. } => RejectCode::SelfLoop,
            Self::DuplicateNodeId { .. } => RejectCode::DuplicateNodeId,
            Self::HandshakeTimeout => RejectCode::Timeout,
            Self::Rejected { .. }
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Io(_)
            | Self::Closed
            | Self::Silent { .. }
            | Self::ControlOverflow { .. } => return None,
        })
    }
}
