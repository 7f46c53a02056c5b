//! SDP: what the other end says, what this node answers, and what was agreed.
//!
//! Owns the text and the rules of negotiation (RFC 3264, RFC 8829 as far as one round trip goes). Opens no transport and
//! knows no HTTP: the caller gets the text to send and typed values to set the transport and the tracks up with. Offers
//! and answers of strangers are limited in every dimension ([`SDP_LEN_MAX`], [`MEDIA_MAX`] and their like), and never
//! make it panic.
//!
//! - [`RemoteSdp::parse`] then [`answer_publish`]: a publisher offers, this node answers
//! - [`offer_play`] then [`parse_play_answer`]: this node offers, a viewer answers (WebSocket)
//! - [`RemoteSdp::parse`] then [`answer_play`]: a viewer offers, this node answers (WHEP)
//! - [`parse_sdpfrag`], [`write_sdpfrag`]: trickle ICE and ICE restart over HTTP

pub mod attr;
pub mod candidate;
mod codec;
pub mod error;
mod fragment;
mod lines;
mod play;
mod publish;
pub mod remote;
#[cfg(test)]
mod tests;
mod whep;
mod write;

use ams_types::Codec;

use crate::dtls::Fingerprint;
use crate::ice::IceCredentials;

pub use attr::{Direction, Msid, Setup};
pub use candidate::{Candidate, RemoteCandidate, SkippedCandidate, parse_candidate};
pub use error::{Fault, SdpError};
pub use fragment::{FRAGMENT_CANDIDATES_MAX, FRAGMENT_LEN_MAX, Fragment, parse_sdpfrag, write_sdpfrag};
pub use lines::{LINE_LEN_MAX, LINES_MAX, MEDIA_MAX, SDP_LEN_MAX};
pub use play::{NegotiatedTrack, OfferedTrack, PlayAnswer, PlayOffer, PlayTrack, offer_play, parse_play_answer};
pub use publish::{PublishAnswer, PublishPolicy, PublishedLayer, PublishedTrack, Refusal, answer_publish};
pub use remote::{DataSession, FeedbackFlags, RemoteMedia, RemoteSdp};
pub use whep::{WhepAnswer, answer_play};

/// SCTP port of this node's data channels (RFC 8841 §5.2).
pub const SCTP_PORT: u16 = 5000;
/// Largest data channel message taken unless configured otherwise, in bytes: what the SCTP side has room for.
pub const MAX_MESSAGE_SIZE: u32 = crate::sctp::MESSAGE_LEN_MAX as u32;

/// What this node says of itself in any SDP.
#[derive(Clone, Debug)]
pub struct LocalSdp {
    /// ICE user name fragment and password of this peer.
    pub ice: IceCredentials,
    /// Hash of this node's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Where this node can be reached, the best first; complete, since nothing is trickled.
    pub candidates: Vec<Candidate>,
    /// Session id of the `o=` line: random, below 2^63 (RFC 8829 §5.2.1).
    pub session_id: u64,
    /// Session version of the `o=` line: grows with each SDP of a session.
    pub session_version: u64,
    /// Canonical name of the sources sent; token characters.
    pub cname: String,
    /// Codecs publishers may send. The publisher's order decides among them.
    pub codecs: Vec<Codec>,
    /// Whether data channels are negotiated.
    pub data_channel: bool,
    /// Largest data channel message this node takes, in bytes.
    pub max_message_size: u32,
}
