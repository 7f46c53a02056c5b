//! The handshake of a relay link: who is at the other end, do we understand each other, and may it be there.
//!
//! Owns the order Hello, Hello, Auth, Auth and every reason to refuse. Sans-IO: the shell brings bytes, nonce and
//! deadline, and sends what [`Handshake::take_output`] gives, also after an error (it is the reason for the peer).
//!
//! With a cluster key each side proves that it holds the key by HMAC-SHA256 over a label for its direction and both
//! hellos as sent. The nonces in them make every proof worth nothing on any other connection; the label makes it worth
//! nothing in the other direction. The dialer proves first, so that a stranger who dials learns nothing derived from
//! the key. The link is authenticated, not encrypted: it belongs on a private network.

use ams_types::{Incarnation, NodeId};
use bytes::BytesMut;

use crate::error::RelayError;
use crate::key::{ClusterKey, PROOF_LEN};
use crate::wire::hello::clean_sentence;
use crate::wire::{
    Auth, AuthMethod, Cut, Features, Frame, FrameKind, HANDSHAKE_FRAME_LEN_MAX, Hello, NONCE_LEN, Reject, RejectCode,
    Role, VERSION, VERSION_MIN, WireError, cut,
};

const LABEL_DIALER: &[u8] = b"ams-relay 1 dialer\0";
const LABEL_ACCEPTOR: &[u8] = b"ams-relay 1 acceptor\0";

/// Who this node is on every link.
#[derive(Clone, Debug)]
pub struct HandshakeConfig {
    /// This node.
    pub node_id: NodeId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// What it is in the cluster.
    pub role: Role,
    /// The cluster key; without one, only nodes without one are talked to.
    pub key: Option<ClusterKey>,
    /// Offers and demands; [`Features::OPEN`] is set or cleared by whether there is a key.
    pub features: Features,
}

/// The other end of an established link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name; proved as far as everyone who holds the cluster key is trusted.
    pub node_id: NodeId,
    /// That run of it.
    pub incarnation: Incarnation,
    /// The version to speak: the newest both know.
    pub version: u16,
    /// The features both have.
    pub features: Features,
    /// What it is in the cluster.
    pub role: Role,
}

/// What a finished handshake leaves.
#[derive(Clone, Debug)]
pub struct Established {
    /// The other end.
    pub peer: PeerInfo,
    /// Bytes that came behind the handshake: the start of the first frame.
    pub leftover: BytesMut,
}

/// How far the handshake is.
#[derive(Debug)]
pub enum Progress {
    /// Send the output, then read on.
    NeedMore,
    /// Send the output; then the link stands.
    Established(Established),
}

#[derive(Debug)]
enum Side {
    Dialer { expected: Option<NodeId> },
    Acceptor,
}

#[derive(Debug)]
enum State {
    AwaitingHello,
    AwaitingAuth { peer: Hello, peer_hello: Vec<u8> },
    Over,
}

/// One side of one handshake.
#[derive(Debug)]
pub struct Handshake {
    config: HandshakeConfig,
    side: Side,
    state: State,
    own_hello: Vec<u8>,
    input: BytesMut,
    output: BytesMut,
}

impl Handshake {
    /// The side that dialled. `expected` is whom it wanted to reach, if it knows; `nonce` is fresh random bytes.
    ///
    /// # Errors
    /// Never with a config whose node id is valid.
    pub fn dialer(
        config: HandshakeConfig,
        expected: Option<NodeId>,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Self, RelayError> {
        let mut handshake = Self::new(config, Side::Dialer { expected }, nonce)?;
        handshake.output.extend_from_slice(&handshake.own_hello);
        Ok(handshake)
    }

    /// The side that was dialled. `nonce` is fresh random bytes.
    ///
    /// # Errors
    /// Never with a config whose node id is valid.
    pub fn acceptor(config: HandshakeConfig, nonce: [u8; NONCE_LEN]) -> Result<Self, RelayError> {
        Self::new(config, Side::Acceptor, nonce)
    }

    fn new(config: HandshakeConfig, side: Side, nonce: [u8; NONCE_LEN]) -> Result<Self, RelayError> {
        let hello = Hello {
            version: VERSION,
            min_version: VERSION_MIN,
            features: features(&config),
            node_id: config.node_id.clone(),
            incarnation: config.incarnation,
            nonce,
            role: config.role,
        };
        let mut own_hello = BytesMut::new();
        Frame::Hello(hello).encode_into(&mut own_hello)?;
        Ok(Self {
            config,
            side,
            state: State::AwaitingHello,
            own_hello: own_hello.to_vec(),
            input: BytesMut::new(),
            output: BytesMut::new(),
        })
    }

    /// Bytes to send now; empty if there are none.
    pub fn take_output(&mut self) -> BytesMut {
        self.output.split()
    }

    /// Takes bytes that came.
    ///
    /// # Errors
    /// The link is refused, by this side or by the other. The output may hold the reason for the peer: send it, then
    /// close.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Progress, RelayError> {
        self.input.extend_from_slice(bytes);
        let result = self.advance();
        if let Err(error) = &result {
            self.refuse(error);
        }
        result
    }

    /// Gives up, for example because the time is over or the node is draining; the output then holds the reason for
    /// the peer.
    pub fn reject(&mut self, code: RejectCode, sentence: &str) {
        self.state = State::Over;
        // A reject with a cut sentence is never over a limit.
        let _ = Frame::Reject(Reject { code, sentence }).encode_into(&mut self.output);
    }

    fn refuse(&mut self, error: &RelayError) {
        match error.reject_code() {
            Some(code) => self.reject(code, &format!("node {} says: {error}", self.config.node_id)),
            None => self.state = State::Over,
        }
    }

    fn advance(&mut self) -> Result<Progress, RelayError> {
        loop {
            let first = matches!(self.state, State::AwaitingHello);
            let (kind, used) = match cut(&self.input, HANDSHAKE_FRAME_LEN_MAX) {
                Ok(Cut::Frame { kind, used, .. }) => (kind, used),
                Ok(Cut::NeedMore { .. }) => return Ok(Progress::NeedMore),
                // Another protocol's first bytes read as a length beyond any limit.
                Err(WireError::FrameTooLarge { len, .. }) if first && len > 0xff_ffff => {
                    return Err(RelayError::NotARelay);
                }
                Err(error) => return Err(error.into()),
            };
            let raw = self.input.split_to(used);
            let body = raw.get(used.min(5)..).unwrap_or_default();
            let wanted = if first { "Hello" } else { "Auth" };
            if first && !matches!(FrameKind::from_byte(kind), Some(FrameKind::Hello | FrameKind::Reject)) {
                return Err(RelayError::NotARelay);
            }
            match Frame::read(kind, body)? {
                Frame::Reject(reject) => {
                    return Err(RelayError::Rejected { code: reject.code, sentence: clean_sentence(reject.sentence) });
                }
                frame => match (std::mem::replace(&mut self.state, State::Over), frame) {
                    (State::AwaitingHello, Frame::Hello(peer)) => self.on_hello(peer, &raw)?,
                    (State::AwaitingAuth { peer, peer_hello }, Frame::Auth(auth)) => {
                        let peer = self.on_auth(peer, &peer_hello, &auth)?;
                        return Ok(Progress::Established(Established { peer, leftover: self.input.split() }));
                    }
                    (State::Over, _) => return Err(RelayError::Closed),
                    (_, frame) => return Err(RelayError::UnexpectedFrame { found: frame.name(), wanted }),
                },
            }
        }
    }

    fn on_hello(&mut self, peer: Hello, raw: &[u8]) -> Result<(), RelayError> {
        self.check(&peer)?;
        let peer_hello = raw.to_vec();
        match self.side {
            Side::Dialer { .. } => self.send_auth(&peer_hello)?,
            Side::Acceptor => self.output.extend_from_slice(&self.own_hello),
        }
        self.state = State::AwaitingAuth { peer, peer_hello };
        Ok(())
    }

    fn check(&self, peer: &Hello) -> Result<(), RelayError> {
        let node_id = || peer.node_id.clone();
        if peer.min_version > VERSION {
            return Err(RelayError::PeerTooNew { peer: node_id(), peer_min: peer.min_version, ours: VERSION });
        }
        if peer.version < VERSION_MIN {
            return Err(RelayError::PeerTooOld { peer: node_id(), peer_version: peer.version, ours_min: VERSION_MIN });
        }
        if peer.features.unknown_demands() != 0 {
            return Err(RelayError::FeatureRequired { peer: node_id(), bits: peer.features.unknown_demands() });
        }
        if peer.node_id == self.config.node_id {
            return Err(match peer.incarnation == self.config.incarnation {
                true => RelayError::SelfLoop { node_id: node_id() },
                false => RelayError::DuplicateNodeId { node_id: node_id() },
            });
        }
        if let Side::Dialer { expected: Some(expected) } = &self.side
            && *expected != peer.node_id
        {
            return Err(RelayError::WrongNode { expected: expected.clone(), found: node_id() });
        }
        match (self.config.key.is_some(), peer.features.has(Features::OPEN)) {
            (true, true) => Err(RelayError::KeyMissingThere { peer: node_id() }),
            (false, false) => Err(RelayError::KeyMissingHere { peer: node_id() }),
            _ => Ok(()),
        }
    }

    fn on_auth(&mut self, peer: Hello, peer_hello: &[u8], auth: &Auth) -> Result<PeerInfo, RelayError> {
        let proved = match &self.config.key {
            Some(key) => {
                auth.method == AuthMethod::HmacSha256
                    && match self.side {
                        Side::Dialer { .. } => key.verify(&[LABEL_ACCEPTOR, &self.own_hello, peer_hello], &auth.proof),
                        Side::Acceptor => key.verify(&[LABEL_DIALER, peer_hello, &self.own_hello], &auth.proof),
                    }
            }
            None => auth.method == AuthMethod::Open,
        };
        if !proved {
            return Err(RelayError::WrongKey { peer: peer.node_id });
        }
        if let Side::Acceptor = self.side {
            self.send_auth(peer_hello)?;
        }
        Ok(PeerInfo {
            node_id: peer.node_id,
            incarnation: peer.incarnation,
            version: peer.version.min(VERSION),
            features: features(&self.config).and(peer.features),
            role: peer.role,
        })
    }

    fn send_auth(&mut self, peer_hello: &[u8]) -> Result<(), RelayError> {
        let auth = match &self.config.key {
            Some(key) => Auth {
                method: AuthMethod::HmacSha256,
                proof: match self.side {
                    Side::Dialer { .. } => key.prove(&[LABEL_DIALER, &self.own_hello, peer_hello]),
                    Side::Acceptor => key.prove(&[LABEL_ACCEPTOR, peer_hello, &self.own_hello]),
                },
            },
            None => Auth { method: AuthMethod::Open, proof: [0; PROOF_LEN] },
        };
        Ok(Frame::Auth(auth).encode_into(&mut self.output)?)
    }
}

fn features(config: &HandshakeConfig) -> Features {
    let offered = Features(config.features.0 & !Features::OPEN.0);
    if config.key.is_none() { offered.or(Features::OPEN) } else { offered }
}

#[cfg(test)]
mod tests;
