//! Why a transport ended, as a name for metrics and a sentence for people.

use crate::dtls::DtlsError;

/// Why a transport ended. `Display` gives a sentence to show or log, [`CloseReason::name`] a word to count by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Nothing of ICE ever came.
    #[error("no STUN packet arrived: the peer cannot reach this node's UDP port, or never tried")]
    NoStun,
    /// STUN came, but no path was nominated.
    #[error("the peer's connectivity checks led to no path")]
    IceTimeout,
    /// The handshake took too long or went unanswered.
    #[error("the DTLS handshake did not finish in time")]
    DtlsTimeout,
    /// The handshake failed.
    #[error("{0}")]
    DtlsFailed(String),
    /// Handshake done, but the SDP to check the peer against never came.
    #[error("the peer connected, but its session description never arrived")]
    RemoteUnknown,
    /// Someone else answered, or the SDP was tampered with.
    #[error("the peer's certificate does not match the fingerprint in its SDP")]
    FingerprintMismatch,
    /// The peer cannot protect media in a way we know.
    #[error("no SRTP protection profile in common")]
    NoSrtpProfile,
    /// Nothing authentic came for too long (RFC 7675 §5.1).
    #[error("nothing was heard from the peer any more")]
    ConsentLost,
    /// The peer said close_notify.
    #[error("the peer closed the connection")]
    ClosedByPeer,
    /// The peer sent a fatal alert.
    #[error("the peer broke off the connection with a DTLS alert")]
    FatalAlert,
    /// This node closed it.
    #[error("closed by this node")]
    ClosedHere,
}

impl CloseReason {
    /// A short, stable name for a metric's label.
    pub fn name(&self) -> &'static str {
        match self {
            CloseReason::NoStun => "no_stun",
            CloseReason::IceTimeout => "ice_timeout",
            CloseReason::DtlsTimeout => "dtls_timeout",
            CloseReason::DtlsFailed(_) => "dtls_failed",
            CloseReason::RemoteUnknown => "remote_unknown",
            CloseReason::FingerprintMismatch => "fingerprint_mismatch",
            CloseReason::NoSrtpProfile => "no_srtp_profile",
            CloseReason::ConsentLost => "consent_lost",
            CloseReason::ClosedByPeer => "close_notify",
            CloseReason::FatalAlert => "fatal_alert",
            CloseReason::ClosedHere => "closed_here",
        }
    }
}

impl From<DtlsError> for CloseReason {
    fn from(error: DtlsError) -> CloseReason {
        match error {
            DtlsError::FingerprintMismatch => CloseReason::FingerprintMismatch,
            DtlsError::NoSrtpProfile => CloseReason::NoSrtpProfile,
            DtlsError::FatalAlert => CloseReason::FatalAlert,
            DtlsError::Unanswered => CloseReason::DtlsTimeout,
            DtlsError::Closed => CloseReason::ClosedByPeer,
            DtlsError::Handshake(_) | DtlsError::NotComplete => CloseReason::DtlsFailed(error.to_string()),
        }
    }
}
