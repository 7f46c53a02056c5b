//! A light WebRTC peer for the other end of a [`Transport`](crate::transport::Transport): tests and load generators.
//!
//! Does what a browser's transport does and no more: full ICE as controlling agent on one candidate pair, DTLS in
//! either role, SRTP both ways, data channels. STUN is written by `rtc-stun`, so that it checks this crate's own.
//! Sans-IO like the transport; as publisher it seals RTP, as viewer it opens what comes. No SDP: the caller hands over
//! what the SDPs would have said.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_dtls::crypto_provider::RTCCryptoProvider;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Getter, Message, Setter, TransactionId};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;

use crate::dtls::{Dtls, DtlsError, DtlsEvent, DtlsIdentity, DtlsRole, Fingerprint};
use crate::ice::{DatagramKind, IceCredentials, classify};
use crate::sctp::{ChannelError, ChannelEvent, ChannelId, DataChannels};
use crate::srtp::{SRTP_OVERHEAD_MAX, SrtpError, SrtpOpener, SrtpProfile, SrtpSealer};

pub use crate::transport::Received;

/// Pause between checks until the first answer.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Pause between consent checks after that (RFC 7675 §5.1 says 5 s on average).
const CONSENT_INTERVAL: Duration = Duration::from_secs(3);
/// Checks that may be unanswered at once; older ones are forgotten.
const TRANSACTIONS_MAX: usize = 8;

/// What both SDPs would have said.
#[derive(Clone, Debug)]
pub struct TestPeerConfig {
    /// Our credentials.
    pub local: IceCredentials,
    /// The node's.
    pub remote: IceCredentials,
    /// The node's fingerprint.
    pub remote_fingerprint: Fingerprint,
    /// The node's candidate to use.
    pub server: SocketAddr,
    /// Our DTLS role.
    pub role: DtlsRole,
    /// Whether data channels were negotiated.
    pub data_channel: bool,
}

/// What happened to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestPeerEvent {
    /// The first check was answered; `mapped` is our address as the node sees it.
    PathFound {
        /// Our address as the node sees it.
        mapped: SocketAddr,
    },
    /// Media may flow.
    Connected {
        /// How it is protected.
        profile: SrtpProfile,
    },
    /// Something on a data channel.
    Channel(ChannelEvent),
    /// A check was refused with this STUN error code.
    CheckRefused {
        /// The code, as in RFC 8489 §14.8.
        code: u16,
    },
    /// The handshake failed.
    Failed(DtlsError),
    /// The node said close_notify.
    Closed,
}

/// The peer. Drive it as a transport: datagrams in, [`TestPeer::poll_transmit`], [`TestPeer::poll_timeout`].
pub struct TestPeer {
    config: TestPeerConfig,
    provider: AwsLcRsProvider,
    dtls: Dtls,
    media: Option<(SrtpSealer, SrtpOpener)>,
    channels: Option<DataChannels>,
    outbox: VecDeque<Vec<u8>>,
    events: VecDeque<TestPeerEvent>,
    transactions: VecDeque<TransactionId>,
    path_found: bool,
    next_check: Instant,
    silent: bool,
    nominating: bool,
}

impl TestPeer {
    /// A peer that begins to check at once.
    pub fn new(now: Instant, identity: &Arc<DtlsIdentity>, config: TestPeerConfig) -> TestPeer {
        TestPeer {
            dtls: Dtls::new(identity.clone(), config.role),
            config,
            provider: AwsLcRsProvider::new(),
            media: None,
            channels: None,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            transactions: VecDeque::new(),
            path_found: false,
            next_check: now,
            silent: false,
            nominating: true,
        }
    }

    /// Where everything goes: the node's candidate.
    pub fn server(&self) -> SocketAddr {
        self.config.server
    }

    /// Stops checks, as a peer whose network went away; with `false` resumes them.
    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// Checks from now on with USE-CANDIDATE, or without.
    pub fn set_nominating(&mut self, nominating: bool) {
        self.nominating = nominating;
    }

    /// Takes new credentials on both sides, as after an ICE restart, and checks at once.
    pub fn restart_ice(&mut self, now: Instant, local: IceCredentials, remote: IceCredentials) {
        self.config.local = local;
        self.config.remote = remote;
        self.next_check = now;
    }

    /// Takes one datagram of the node.
    pub fn handle_datagram<'a>(&mut self, now: Instant, datagram: &'a mut [u8]) -> Received<'a> {
        match classify(datagram) {
            DatagramKind::Rtp => {
                if let Some(Ok(len)) = self.media.as_mut().map(|(_, opener)| opener.open_rtp(datagram)) {
                    return Received::Rtp(&datagram[..len]);
                }
            }
            DatagramKind::Rtcp => {
                if let Some(Ok(len)) = self.media.as_mut().map(|(_, opener)| opener.open_rtcp(datagram)) {
                    return Received::Rtcp(&datagram[..len]);
                }
            }
            DatagramKind::Stun => self.handle_stun(now, datagram),
            DatagramKind::Dtls => self.handle_dtls(now, datagram),
            DatagramKind::Unknown => {}
        }
        Received::Nothing
    }

    fn handle_stun(&mut self, now: Instant, datagram: &[u8]) {
        let mut message = Message::new();
        if message.unmarshal_binary(datagram).is_err() {
            return;
        }
        if message.typ == BINDING_REQUEST {
            self.answer_check(&mut message);
            return;
        }
        if !self.transactions.contains(&message.transaction_id) {
            return;
        }
        if FINGERPRINT.check(&message).is_err() {
            return;
        }
        self.transactions.retain(|id| *id != message.transaction_id);
        if message.typ != BINDING_SUCCESS {
            let mut error = rtc_stun::error_code::ErrorCodeAttribute::default();
            if error.get_from(&message).is_ok() {
                self.events.push_back(TestPeerEvent::CheckRefused { code: error.code.0 });
            }
            return;
        }
        let password = self.config.remote.pwd().as_bytes();
        if MessageIntegrity::check(&mut message, password, self.provider.crypto()).is_err() {
            return;
        }
        let mut mapped = XorMappedAddress::default();
        if !self.path_found && mapped.get_from(&message).is_ok() {
            self.path_found = true;
            let mapped = SocketAddr::new(mapped.ip, mapped.port);
            self.events.push_back(TestPeerEvent::PathFound { mapped });
            if let Err(error) = self.dtls.start(now) {
                self.events.push_back(TestPeerEvent::Failed(error));
            }
            self.pump(now);
        }
    }

    /// Answers a check of a node that is no lite agent.
    fn answer_check(&mut self, request: &mut Message) {
        let password = self.config.local.pwd().to_owned();
        if MessageIntegrity::check(request, password.as_bytes(), self.provider.crypto()).is_err() {
            return;
        }
        let mut answer = Message::new();
        let built = answer.build(&[
            Box::new(BINDING_SUCCESS),
            Box::new(request.transaction_id),
            Box::new(XorMappedAddress { ip: self.config.server.ip(), port: self.config.server.port() }),
            Box::new(MessageIntegrity::new_short_term_integrity_with_provider(password, self.provider.crypto())),
            Box::new(FINGERPRINT),
        ]);
        if built.is_ok() {
            self.outbox.push_back(answer.raw);
        }
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) {
        let (mut complete, mut closed, mut packets) = (false, false, Vec::new());
        let result = self.dtls.handle_datagram(now, datagram, |event| match event {
            DtlsEvent::HandshakeComplete => complete = true,
            DtlsEvent::Data(data) => packets.push(data.freeze()),
            DtlsEvent::Closed => closed = true,
        });
        if complete {
            let is_client = self.dtls.role() == DtlsRole::Client;
            match self.dtls.srtp_keys(&self.config.remote_fingerprint) {
                Ok(keys) => {
                    self.media = keys.session(is_client).ok();
                    self.events.push_back(TestPeerEvent::Connected { profile: keys.profile() });
                    if self.config.data_channel {
                        let mut channels = DataChannels::new(self.dtls.role());
                        channels.start(now);
                        self.channels = Some(channels);
                    }
                }
                Err(error) => self.events.push_back(TestPeerEvent::Failed(error)),
            }
        }
        if let Some(channels) = &mut self.channels {
            for packet in packets {
                channels.handle_packet(now, packet);
            }
        }
        if let Err(error) = result {
            self.events.push_back(TestPeerEvent::Failed(error));
        }
        if closed {
            self.media = None;
            self.events.push_back(TestPeerEvent::Closed);
        }
        self.pump(now);
    }

    fn pump(&mut self, now: Instant) {
        if let Some(channels) = &mut self.channels {
            while let Some(packets) = channels.poll_transmit(now) {
                for packet in packets {
                    let _ = self.dtls.write(now, &packet);
                }
            }
            while let Some(event) = channels.poll_event() {
                self.events.push_back(TestPeerEvent::Channel(event));
            }
        }
        while let Some(data) = self.dtls.poll_transmit() {
            self.outbox.push_back(data.to_vec());
        }
    }

    /// A check as a browser sends it, with USE-CANDIDATE unless told otherwise. Also for tests that want to send it from elsewhere.
    pub fn check(&mut self) -> Vec<u8> {
        let username = format!("{}:{}", self.config.remote.ufrag(), self.config.local.ufrag());
        let raw = |typ, value: &[u8]| RawAttribute { typ, length: value.len() as u16, value: value.to_vec() };
        let id = TransactionId::new();
        if self.transactions.len() >= TRANSACTIONS_MAX {
            self.transactions.pop_front();
        }
        self.transactions.push_back(id);
        let password = self.config.remote.pwd().to_owned();
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(id),
            Box::new(TextAttribute::new(ATTR_USERNAME, username)),
            Box::new(raw(ATTR_ICE_CONTROLLING, &7u64.to_be_bytes())),
            Box::new(raw(ATTR_PRIORITY, &1_845_501_695u32.to_be_bytes())),
        ];
        if self.nominating {
            setters.push(Box::new(raw(ATTR_USE_CANDIDATE, &[])));
        }
        setters
            .push(Box::new(MessageIntegrity::new_short_term_integrity_with_provider(password, self.provider.crypto())));
        setters.push(Box::new(FINGERPRINT));
        let mut message = Message::new();
        // Building from fixed attributes cannot fail; an empty datagram would show if it did.
        message.build(&setters).map(|()| message.raw).unwrap_or_default()
    }

    /// The next datagram to send to [`TestPeer::server`].
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TestPeerEvent> {
        self.events.pop_front()
    }

    /// When [`TestPeer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let check = (!self.silent).then_some(self.next_check);
        let channels = self.channels.as_ref().and_then(DataChannels::poll_timeout);
        [check, self.dtls.poll_timeout(), channels].into_iter().flatten().min()
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.silent && now >= self.next_check {
            let check = self.check();
            self.outbox.push_back(check);
            self.next_check = now + if self.path_found { CONSENT_INTERVAL } else { CHECK_INTERVAL };
        }
        if let Err(error) = self.dtls.handle_timeout(now) {
            self.events.push_back(TestPeerEvent::Failed(error));
        }
        if let Some(channels) = &mut self.channels {
            channels.handle_timeout(now);
        }
        self.pump(now);
    }

    /// Whether media may flow.
    pub fn is_connected(&self) -> bool {
        self.media.is_some()
    }

    /// Seals a plain RTP packet whose header is `header_len` bytes; `ext_seq` is its index (see
    /// [`SrtpSealer::seal_rtp`]).
    ///
    /// # Errors
    /// As [`SrtpSealer::seal_rtp`]; [`SrtpError::KeyLength`] before there are keys.
    pub fn seal_rtp(&self, ext_seq: u64, packet: &[u8], header_len: usize) -> Result<Vec<u8>, SrtpError> {
        let (sealer, _) = self.media.as_ref().ok_or(SrtpError::KeyLength)?;
        let mut sealed = Vec::with_capacity(packet.len() + SRTP_OVERHEAD_MAX);
        sealed.extend_from_slice(packet);
        sealed.resize(packet.len() + SRTP_OVERHEAD_MAX, 0);
        let payload_len = packet.len().saturating_sub(header_len);
        let len = sealer.seal_rtp(ext_seq, &mut sealed, header_len, payload_len)?;
        sealed.truncate(len);
        Ok(sealed)
    }

    /// The sealer itself, for a load generator that seals in its own buffers.
    pub fn sealer(&self) -> Option<&SrtpSealer> {
        self.media.as_ref().map(|(sealer, _)| sealer)
    }

    /// Seals a plain compound RTCP packet.
    ///
    /// # Errors
    /// As [`SrtpSealer::seal_rtcp`]; [`SrtpError::KeyLength`] before there are keys.
    pub fn seal_rtcp(&mut self, compound: &[u8]) -> Result<Vec<u8>, SrtpError> {
        let (sealer, _) = self.media.as_mut().ok_or(SrtpError::KeyLength)?;
        let mut sealed = compound.to_vec();
        sealed.resize(compound.len() + SRTP_OVERHEAD_MAX, 0);
        let len = sealer.seal_rtcp(&mut sealed, compound.len())?;
        sealed.truncate(len);
        Ok(sealed)
    }

    /// Opens a data channel.
    ///
    /// # Errors
    /// As [`DataChannels::open`].
    pub fn open_channel(&mut self, now: Instant, label: &str) -> Result<ChannelId, ChannelError> {
        let id = self.channels.as_mut().ok_or(ChannelError::Closed)?.open(now, label)?;
        self.pump(now);
        Ok(id)
    }

    /// Sends a message on a data channel.
    ///
    /// # Errors
    /// As [`DataChannels::send`].
    pub fn send_message(&mut self, now: Instant, id: ChannelId, binary: bool, data: Bytes) -> Result<(), ChannelError> {
        let result = self.channels.as_mut().ok_or(ChannelError::Closed)?.send(now, id, binary, data);
        self.pump(now);
        result
    }

    /// Says close_notify.
    pub fn close(&mut self, now: Instant) {
        self.dtls.close(now);
        self.media = None;
        self.pump(now);
    }
}
