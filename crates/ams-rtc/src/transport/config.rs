//! What a transport is told: at its making, and once the peer's SDP is there.

use std::time::Duration;

use crate::dtls::{DtlsRole, Fingerprint};
use crate::ice::IceCredentials;

/// Waits of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportTimeouts {
    /// From the transport's making, or the peer's SDP if later, to a nominated path; and again from there to a
    /// finished handshake.
    pub connect: Duration,
    /// Silence after which a connected peer counts as dead. Browsers check every 2 to 6 s (RFC 7675), and media and
    /// its reports count too.
    pub consent: Duration,
}

impl Default for TransportTimeouts {
    fn default() -> TransportTimeouts {
        TransportTimeouts { connect: Duration::from_secs(10), consent: Duration::from_secs(8) }
    }
}

/// Our side of a transport.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Our ICE credentials, as in our SDP.
    pub local: IceCredentials,
    /// Our DTLS role. `None` after offering `setup:actpass`: the answer decides.
    pub role: Option<DtlsRole>,
    /// Whether data channels were negotiated.
    pub data_channel: bool,
    /// How long to wait for what.
    pub timeouts: TransportTimeouts,
}

/// The peer's side of a transport, out of its SDP.
#[derive(Clone, Debug)]
pub struct RemoteTransport {
    /// Its `a=ice-ufrag` and `a=ice-pwd`.
    pub credentials: IceCredentials,
    /// Its `a=fingerprint`.
    pub fingerprint: Fingerprint,
    /// *Our* role that follows from its `a=setup`: [`DtlsRole::Server`] for `active` or `actpass`,
    /// [`DtlsRole::Client`] for `passive`. Does not matter if [`TransportConfig::role`] was given or a handshake began.
    pub role: DtlsRole,
    /// Its `a=max-message-size`, in bytes; zero for no limit (RFC 8841 §6.1).
    pub message_len_max: Option<u64>,
}
