//! The frames of the handshake: Hello, Auth, Reject.
//!
//! Owns their layout. The layout of Hello up to `role` is the same in every version for ever, so that nodes of any two
//! versions can tell each other what is wrong. Who may be at the other end is decided in [`crate::handshake`].

use std::fmt;

use ams_types::{Incarnation, NodeId};
use bytes::{BufMut, BytesMut};

use super::fields::{Fields, cut_text, put_text8, put_text16};
use super::{SENTENCE_LEN_MAX, WireError};
use crate::key::PROOF_LEN;

/// The first bytes of a Hello's body.
pub const MAGIC: [u8; 4] = *b"AMSR";
/// Bytes of a hello's nonce.
pub const NONCE_LEN: usize = 32;

/// What a node can do beyond its version. Bits 0 to 47 are offers; bits 48 to 63 are demands: who does not know one of
/// them must refuse the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// The node has no cluster key and will not ask for one. Both ends must agree on this bit.
    pub const OPEN: Self = Self(1);
    /// The bits whose meaning must be known to go on.
    pub const DEMANDS: Self = Self(0xffff << 48);
    /// Every bit this version knows.
    pub const KNOWN: Self = Self(Self::OPEN.0);

    /// Whether every bit of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits set in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The bits set in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The demands among these bits that this version does not know.
    pub fn unknown_demands(self) -> u64 {
        self.0 & Self::DEMANDS.0 & !Self::KNOWN.0
    }
}

/// What a node is in the cluster. Tells nothing about who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes publishers.
    Origin,
    /// Serves viewers.
    Edge,
    /// Both.
    Standalone,
    /// A role of a later version.
    Other(u8),
}

impl Role {
    fn byte(self) -> u8 {
        match self {
            Self::Origin => 1,
            Self::Edge => 2,
            Self::Standalone => 3,
            Self::Other(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Origin,
            2 => Self::Edge,
            3 => Self::Standalone,
            other => Self::Other(other),
        }
    }
}

/// Who is at this end of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Newest version spoken.
    pub version: u16,
    /// Oldest version accepted.
    pub min_version: u16,
    /// Offers and demands.
    pub features: Features,
    /// The node's name.
    pub node_id: NodeId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Random, new for each connection.
    pub nonce: [u8; NONCE_LEN],
    /// What the node is in the cluster.
    pub role: Role,
}

impl Hello {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        if *f.array::<4>("magic")? != MAGIC {
            return Err(f.malformed("magic"));
        }
        Ok(Self {
            version: f.u16("version")?,
            min_version: f.u16("oldest version")?,
            features: Features(f.u64("features")?),
            node_id: f.name("node id")?,
            incarnation: Incarnation(f.u64("incarnation")?),
            nonce: *f.array("nonce")?,
            role: Role::from_byte(f.u8("role")?),
        })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_slice(&MAGIC);
        out.put_u16(self.version);
        out.put_u16(self.min_version);
        out.put_u64(self.features.0);
        put_text8(out, self.node_id.as_str(), "Hello", "node id")?;
        out.put_u64(self.incarnation.0);
        out.put_slice(&self.nonce);
        out.put_u8(self.role.byte());
        Ok(())
    }
}

/// How an [`Auth`] proves the right to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// Not at all: neither end has a cluster key.
    Open,
    /// HMAC-SHA256 over a direction label and both hellos.
    HmacSha256,
    /// A method of a later version.
    Other(u8),
}

/// Proof of the cluster key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How.
    pub method: AuthMethod,
    /// All zeros in [`AuthMethod::Open`].
    pub proof: [u8; PROOF_LEN],
}

impl Auth {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        let method = match f.u8("method")? {
            0 => AuthMethod::Open,
            1 => AuthMethod::HmacSha256,
            other => AuthMethod::Other(other),
        };
        Ok(Self { method, proof: *f.array("proof")? })
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u8(match self.method {
            AuthMethod::Open => 0,
            AuthMethod::HmacSha256 => 1,
            AuthMethod::Other(byte) => byte,
        });
        out.put_slice(&self.proof);
    }
}

macro_rules! codes {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $text:literal;)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A code of a later version.
            Other(u16),
        }

        impl $name {
            /// The number on the wire.
            pub fn code(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(code) => code,
                }
            }

            /// The meaning of a number from the wire.
            pub fn from_code(code: u16) -> Self {
                match code {
                    $($number => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Other(code) => write!(f, "code {code}"),
                }
            }
        }
    };
}
pub(super) use codes;

codes! {
    /// Why a link is refused.
    RejectCode {
        /// The two nodes have no protocol version in common.
        Version = 1, "no common version";
        /// The proof of the cluster key is wrong.
        WrongKey = 2, "wrong cluster key";
        /// One end has a cluster key and the other has none.
        KeyMode = 3, "key on one end only";
        /// Another node was dialled.
        WrongNode = 4, "wrong node";
        /// The node dialled itself.
        SelfLoop = 5, "dialled itself";
        /// Two nodes have one id.
        DuplicateNodeId = 6, "node id used twice";
        /// A demanded feature is unknown.
        Feature = 7, "unknown feature demanded";
        /// The node is shutting down.
        Draining = 8, "draining";
        /// The node has as many links as it takes.
        TooManyLinks = 9, "too many links";
        /// The peer broke the protocol.
        Malformed = 10, "protocol broken";
        /// The peer took too long.
        Timeout = 11, "too slow";
    }
}

/// Says why the link is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject<'a> {
    /// For programs.
    pub code: RejectCode,
    /// For people. From outside: clean it before it is shown (see [`clean_sentence`]).
    pub sentence: &'a str,
}

impl<'a> Reject<'a> {
    pub(super) fn read(f: &mut Fields<'a>) -> Result<Self, WireError> {
        Ok(Self { code: RejectCode::from_code(f.u16("code")?), sentence: f.text16(SENTENCE_LEN_MAX, "sentence")? })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u16(self.code.code());
        put_text16(out, cut_text(self.sentence, SENTENCE_LEN_MAX), SENTENCE_LEN_MAX, "Reject", "sentence")?;
        Ok(())
    }
}

/// A sentence from a peer as it may be logged: control characters become spaces.
pub fn clean_sentence(sentence: &str) -> String {
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin => f.write_str("origin"),
            Self::Edge => f.write_str("edge"),
            Self::Standalone => f.write_str("standalone"),
            Self::Other(byte) => write!(f, "role {byte}"),
        }
    }
}
