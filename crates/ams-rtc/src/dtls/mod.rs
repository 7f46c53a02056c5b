//! One DTLS 1.2 association: handshake in either role, SRTP keys, application data for SCTP.
//!
//! Wraps `rtc-dtls` and adds what a server open to strangers needs: rubbish is dropped instead of answered, what is
//! read before the peer is known is bounded, retransmissions back off and survive loss, and keys come out only once the
//! peer's certificate was compared with its fingerprint. Sans-IO: addresses and the handshake's deadline are the
//! caller's affair.

mod fingerprint;
mod flights;
mod identity;
mod records;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error as LibraryError;

use crate::srtp::{SrtpKeys, SrtpProfile};
use flights::{FlightGate, Offered};

pub use fingerprint::{Fingerprint, FingerprintHash, InvalidFingerprint};
pub use identity::{DtlsIdentity, IdentityError};

/// Wait before the first retransmission of a flight; doubles up to [`RETRANSMIT_MAX`]. Shorter than RFC 6347's 1 s
/// because a viewer waits for it (RFC 6347 §4.2.4.1 allows it).
pub(crate) const RETRANSMIT_FIRST: Duration = Duration::from_millis(300);
const RETRANSMIT_MAX: Duration = Duration::from_secs(2);

/// Bytes of handshake read before it is complete: a dozen times what a chain of RSA certificates needs.
const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;
/// Bytes of plain-text records read after that: the peer may repeat its last flight, nothing more.
const AFTER_HANDSHAKE_PLAIN_BYTES_MAX: usize = 32 * 1024;

const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// The library tells associations apart by address; ours has one, whatever path its packets take.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Whether a datagram begins a handshake: its sender takes the client's part.
pub(crate) fn is_client_hello(datagram: &[u8]) -> bool {
    records::is_plausible(datagram) && records::client_hello(datagram).is_some()
}

/// Which end of the handshake this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// `setup:passive`: waits for the peer's ClientHello and picks the SRTP profile. Preferred.
    Server,
    /// `setup:active`: begins.
    Client,
}

/// What a datagram brought.
#[derive(Debug)]
pub enum DtlsEvent {
    /// The handshake is complete. The peer's certificate is not yet checked: ask [`Dtls::verify_peer`].
    HandshakeComplete,
    /// Decrypted application data (SCTP).
    Data(BytesMut),
    /// The peer closed with close_notify; the answer is among the transmits.
    Closed,
}

/// Why an association is over, or gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DtlsError {
    /// The peers have no way of talking in common, or one sent nonsense.
    #[error("DTLS handshake failed: {0}")]
    Handshake(String),
    /// A flight went unanswered too often.
    #[error("DTLS peer stopped answering")]
    Unanswered,
    /// The peer ended the association with a fatal alert.
    #[error("DTLS peer sent a fatal alert")]
    FatalAlert,
    /// The certificate is not the one the SDP named.
    #[error("the peer's certificate does not match the fingerprint in its SDP")]
    FingerprintMismatch,
    /// The peer knows no SRTP profile of ours.
    #[error("no SRTP protection profile in common")]
    NoSrtpProfile,
    /// Asked for something that needs a complete handshake.
    #[error("DTLS handshake is not complete")]
    NotComplete,
    /// The association is closed.
    #[error("DTLS association is closed")]
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing sent or received yet.
    Idle,
    Handshaking,
    Complete,
    Closed,
}

/// One association. Feed datagrams, drain [`Dtls::poll_transmit`], keep the timer.
pub struct Dtls {
    identity: Arc<DtlsIdentity>,
    role: DtlsRole,
    endpoint: Endpoint,
    state: State,
    gate: FlightGate,
    retransmissions: u32,
    handshake_bytes: usize,
    plain_bytes_after: usize,
    dropped: u64,
}

impl Dtls {
    /// An idle association. A server waits for datagrams; a client begins with [`Dtls::start`].
    pub fn new(identity: Arc<DtlsIdentity>, role: DtlsRole) -> Dtls {
        Dtls {
            identity,
            role,
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, None),
            state: State::Idle,
            gate: FlightGate::new(role == DtlsRole::Client),
            retransmissions: 0,
            handshake_bytes: 0,
            plain_bytes_after: 0,
            dropped: 0,
        }
    }

    /// Which end this is.
    pub fn role(&self) -> DtlsRole {
        self.role
    }

    /// Sends the ClientHello, if this is a client that has not yet.
    ///
    /// # Errors
    /// [`DtlsError::Handshake`] if the library cannot begin.
    pub fn start(&mut self, now: Instant) -> Result<(), DtlsError> {
        if self.role != DtlsRole::Client || self.state != State::Idle {
            return Ok(());
        }
        self.state = State::Handshaking;
        let config = self.identity.client.clone();
        self.endpoint.connect(now, PEER, config, None).map_err(|error| self.failed(&error))
    }

    /// Whether the handshake is complete (and the association not closed).
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Datagrams dropped as malformed, unexpected or over a limit.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Reads one datagram and reports what it brought, in order. Rubbish is dropped and counted, not an error.
    ///
    /// # Errors
    /// [`DtlsError::Handshake`] or [`DtlsError::FatalAlert`]: the association is over, an alert may be among the
    /// transmits. [`DtlsError::Closed`] on any later call.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        mut on_event: impl FnMut(DtlsEvent),
    ) -> Result<(), DtlsError> {
        if self.state == State::Closed {
            return Err(DtlsError::Closed);
        }
        if !self.admit(datagram) {
            self.dropped += 1;
            return Ok(());
        }
        if self.state != State::Handshaking {
            return self.read(now, BytesMut::from(datagram), &mut on_event);
        }
        match self.gate.offer(datagram) {
            Offered::Ready(datagrams) => {
                for datagram in datagrams {
                    self.read(now, datagram, &mut on_event)?;
                }
            }
            Offered::Held | Offered::Stale => {}
        }
        Ok(())
    }

    fn read(
        &mut self,
        now: Instant,
        datagram: BytesMut,
        on_event: &mut impl FnMut(DtlsEvent),
    ) -> Result<(), DtlsError> {
        match self.endpoint.read(now, PEER, None, datagram) {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            self.state = State::Complete;
                            on_event(DtlsEvent::HandshakeComplete);
                        }
                        EndpointEvent::ApplicationData(data) => on_event(DtlsEvent::Data(data)),
                        EndpointEvent::PeerClosed => {
                            self.state = State::Closed;
                            on_event(DtlsEvent::Closed);
                        }
                        _ => {}
                    }
                }
                self.retransmissions = 0;
                Ok(())
            }
            Err(LibraryError::ErrAlertFatalOrClose) => {
                self.state = State::Closed;
                Err(DtlsError::FatalAlert)
            }
            Err(error) if self.state != State::Complete => Err(self.failed(&error)),
            Err(_) => {
                self.dropped += 1;
                Ok(())
            }
        }
    }

    /// Whether a datagram goes to the library. A server's settings are chosen by its first ClientHello.
    fn admit(&mut self, datagram: &[u8]) -> bool {
        if !records::is_plausible(datagram) {
            return false;
        }
        match (self.state, self.role) {
            (State::Idle, DtlsRole::Server) => {
                let Some(hello) = records::client_hello(datagram) else { return false };
                let identity = &self.identity;
                let config = if hello.offers_gcm { &identity.server_gcm } else { &identity.server_any };
                self.endpoint.set_server_config(Some(config.clone()));
                self.state = State::Handshaking;
            }
            (State::Idle, DtlsRole::Client) | (State::Closed, _) => return false,
            (State::Handshaking | State::Complete, _) => {}
        }
        if self.state == State::Handshaking {
            self.handshake_bytes += datagram.len();
            return self.handshake_bytes <= HANDSHAKE_BYTES_MAX;
        }
        self.plain_bytes_after += records::plain_bytes(datagram);
        self.plain_bytes_after <= AFTER_HANDSHAKE_PLAIN_BYTES_MAX || records::plain_bytes(datagram) == 0
    }

    fn failed(&mut self, error: &LibraryError) -> DtlsError {
        self.state = State::Closed;
        match error {
            LibraryError::ErrServerNoMatchingSrtpProfile
            | LibraryError::ErrClientNoMatchingSrtpProfile
            | LibraryError::ErrRequestedButNoSrtpExtension => DtlsError::NoSrtpProfile,
            other => DtlsError::Handshake(other.to_string()),
        }
    }

    /// Compares the peer's certificate with the fingerprint of its SDP (RFC 8122 §6.2).
    ///
    /// # Errors
    /// [`DtlsError::NotComplete`] too early, [`DtlsError::FingerprintMismatch`] if it is another's.
    pub fn verify_peer(&self, fingerprint: &Fingerprint) -> Result<(), DtlsError> {
        let state = self.library_state()?;
        match state.peer_certificates.first() {
            Some(certificate) if fingerprint.matches(certificate) => Ok(()),
            _ => Err(DtlsError::FingerprintMismatch),
        }
    }

    /// The SRTP keys of a complete handshake, for a peer whose certificate has `fingerprint` and no other.
    ///
    /// # Errors
    /// As [`Dtls::verify_peer`]; [`DtlsError::NoSrtpProfile`] if the peer did not ask for SRTP.
    pub fn srtp_keys(&self, fingerprint: &Fingerprint) -> Result<SrtpKeys, DtlsError> {
        self.verify_peer(fingerprint)?;
        let state = self.library_state()?;
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => SrtpProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => SrtpProfile::Aes128CmHmacSha1_80,
            _ => return Err(DtlsError::NoSrtpProfile),
        };
        let material = state
            .export_keying_material(EXPORTER_LABEL, &[], profile.keying_material_len())
            .map_err(|error| DtlsError::Handshake(error.to_string()))?;
        SrtpKeys::from_keying_material(profile, material.as_ref())
            .map_err(|error| DtlsError::Handshake(error.to_string()))
    }

    fn library_state(&self) -> Result<&rtc_dtls::state::State, DtlsError> {
        match self.state {
            State::Complete => self.endpoint.get_connection_state(PEER).ok_or(DtlsError::Closed),
            State::Closed => Err(DtlsError::Closed),
            State::Idle | State::Handshaking => Err(DtlsError::NotComplete),
        }
    }

    /// Encrypts application data into the transmits. One record: keep it under the path's MTU less 37 bytes.
    ///
    /// # Errors
    /// [`DtlsError::NotComplete`] or [`DtlsError::Closed`].
    pub fn write(&mut self, now: Instant, data: &[u8]) -> Result<(), DtlsError> {
        match self.state {
            State::Complete => self.endpoint.write(now, PEER, data).map_err(|_| DtlsError::Closed),
            State::Closed => Err(DtlsError::Closed),
            State::Idle | State::Handshaking => Err(DtlsError::NotComplete),
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    /// When [`Dtls::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.state != State::Handshaking {
            return None;
        }
        // The library repeats at a fixed interval; asking later makes it back off.
        let interval = (RETRANSMIT_FIRST * 2u32.saturating_pow(self.retransmissions)).min(RETRANSMIT_MAX);
        self.endpoint.poll_timeout(&PEER).map(|at| at + interval.saturating_sub(RETRANSMIT_FIRST))
    }

    /// Repeats the last flight if it is time.
    ///
    /// # Errors
    /// [`DtlsError::Unanswered`] after the last try: the association is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return Ok(());
        }
        self.retransmissions = (self.retransmissions + 1).min(8);
        self.endpoint.handle_timeout(PEER, now).map_err(|_| {
            self.state = State::Closed;
            DtlsError::Unanswered
        })
    }

    /// Says close_notify, if there is anyone to say it to.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.state, State::Handshaking | State::Complete) {
            let _ = self.endpoint.close(now);
        }
        self.state = State::Closed;
    }
}

#[cfg(test)]
mod tests;
