//! One peer's transport: ICE-lite, DTLS-SRTP and data channels put together, sans-IO.
//!
//! Owns the three state machines and the peer's liveness. Datagrams go in and come out decrypted or as events; what is
//! to be sent is polled. Never touches a socket or a clock, and knows nothing of SDP, tracks or streams.
//!
//! Order of a turn: [`Transport::handle_datagram`] or [`Transport::handle_timeout`], then drain
//! [`Transport::poll_event`] and [`Transport::poll_transmit`], then arm a timer with [`Transport::poll_timeout`].

mod close;
mod config;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::dtls::{Dtls, DtlsError, DtlsEvent, DtlsIdentity, DtlsRole};
use crate::ice::{DatagramKind, IceCredentials, IceLite, Path, classify};
use crate::sctp::{ChannelError, ChannelEvent, ChannelId, DataChannels};
use crate::srtp::{SrtpError, SrtpOpener, SrtpProfile, SrtpSealer};

pub use close::CloseReason;
pub use config::{RemoteTransport, TransportConfig, TransportTimeouts};

/// Datagrams waiting to be polled; past it new ones are dropped and counted. SCTP's window stays under it.
pub const OUTBOX_MAX: usize = 2048;
/// Events waiting to be polled; past it messages are dropped and counted. Changes of state never are.
pub const EVENTS_MAX: usize = 1024;
/// Most SCTP packets kept until the peer's SDP is there.
const EARLY_PACKETS_MAX: usize = 4;
/// Longest RTCP compound that can be sent.
pub const RTCP_LEN_MAX: usize = 1400;

/// What a datagram was, decrypted in its own buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// An authenticated RTP packet.
    Rtp(&'a [u8]),
    /// An authenticated compound RTCP packet.
    Rtcp(&'a [u8]),
    /// Consumed, or dropped and counted.
    Nothing,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses, if it is known.
    pub from_ip: Option<IpAddr>,
    /// The datagram.
    pub data: Vec<u8>,
}

/// What happened to the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// Path, certificate and keys are all there: media may flow.
    Connected {
        /// How media is protected.
        profile: SrtpProfile,
        /// Where the peer is.
        remote: SocketAddr,
    },
    /// The peer nominated another path; from now on packets go there. Also sent before [`TransportEvent::Connected`].
    PathChanged {
        /// Where the peer is now.
        remote: SocketAddr,
    },
    /// A data channel can be used: the peer opened it, or acknowledged ours.
    ChannelOpen {
        /// Which.
        id: ChannelId,
        /// Its name.
        label: String,
    },
    /// A whole message came on a data channel.
    Message {
        /// On which.
        id: ChannelId,
        /// Binary, or UTF-8 text (which was checked).
        binary: bool,
        /// The message.
        data: Bytes,
    },
    /// A data channel is gone.
    ChannelClosed {
        /// Which.
        id: ChannelId,
    },
    /// The transport is over. Nothing follows; drain the transmits once more.
    Closed(CloseReason),
}

/// Things counted over a transport's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// STUN datagrams that were no STUN message, or had a wrong FINGERPRINT.
    pub stun_malformed: u64,
    /// Checks with a missing or wrong integrity, or for another peer.
    pub stun_refused: u64,
    /// DTLS datagrams dropped: malformed, unexpected, over a limit, or from an address that never passed a check.
    pub dtls_dropped: u64,
    /// Media packets dropped because they failed authentication.
    pub srtp_unauthenticated: u64,
    /// Media packets dropped because they were seen before or too old.
    pub srtp_replayed: u64,
    /// Media packets dropped for any other reason: before there are keys, truncated, malformed.
    pub srtp_dropped: u64,
    /// Datagrams of no known protocol.
    pub unknown: u64,
    /// Own datagrams and events dropped because nobody polled them.
    pub overflow: u64,
    /// Data channel messages dropped.
    pub messages_dropped: u64,
}

enum Phase {
    /// No path nominated yet.
    Ice {
        until: Instant,
    },
    /// Path nominated; handshake or the peer's SDP outstanding.
    Dtls {
        until: Instant,
    },
    Connected,
    Closed,
}

struct Media {
    sealer: SrtpSealer,
    opener: SrtpOpener,
}

/// The transport of one publisher or viewer.
pub struct Transport {
    identity: Arc<DtlsIdentity>,
    config: TransportConfig,
    ice: IceLite,
    /// Made once our role is known: from the SDP, or because a ClientHello came first.
    dtls: Option<Dtls>,
    remote: Option<RemoteTransport>,
    media: Option<Media>,
    channels: Option<DataChannels>,
    /// SCTP packets that came after the handshake and before the peer's SDP: kept, or its INIT would be lost and the data
    /// channel a second late.
    early: Vec<Bytes>,
    phase: Phase,
    last_seen: Instant,
    outbox: VecDeque<Transmit>,
    events: VecDeque<TransportEvent>,
    stats: TransportStats,
}

impl Transport {
    /// Starts waiting for the peer's first check, for at most [`TransportTimeouts::connect`].
    pub fn new(now: Instant, identity: &Arc<DtlsIdentity>, config: TransportConfig) -> Transport {
        Transport {
            identity: identity.clone(),
            ice: IceLite::new(config.local.clone()),
            dtls: config.role.map(|role| Dtls::new(identity.clone(), role)),
            remote: None,
            media: None,
            channels: None,
            early: Vec::new(),
            phase: Phase::Ice { until: now + config.timeouts.connect },
            last_seen: now,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            stats: TransportStats::default(),
            config,
        }
    }

    /// Takes what the peer's SDP says. May come after checks, even after the DTLS handshake; the wait for a
    /// connection starts anew. Called again it only takes the credentials.
    pub fn set_remote(&mut self, now: Instant, remote: RemoteTransport) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.ice.set_remote_ufrag(remote.credentials.ufrag());
        if self.remote.is_some() {
            return;
        }
        if let Phase::Ice { until } | Phase::Dtls { until } = &mut self.phase {
            *until = now + self.config.timeouts.connect;
        }
        if self.dtls.is_none() {
            self.dtls = Some(Dtls::new(self.identity.clone(), remote.role));
        }
        self.remote = Some(remote);
        if matches!(self.phase, Phase::Dtls { .. }) {
            self.start_dtls(now);
        }
        self.finish_connecting(now);
        self.pump(now);
    }

    /// Begins an ICE restart with new credentials of ours; [`Transport::set_remote_credentials`] brings the peer's. Media
    /// goes on meanwhile; the old credentials work until the peer uses the new.
    pub fn restart_ice(&mut self, local: IceCredentials) {
        self.ice.restart(local);
    }

    /// Takes the peer's new credentials, as its SDP after an ICE restart says them.
    pub fn set_remote_credentials(&mut self, remote: &IceCredentials) {
        self.ice.set_remote_ufrag(remote.ufrag());
    }

    /// Our ICE credentials, the newest after a restart.
    pub fn local_credentials(&self) -> &IceCredentials {
        self.ice.local()
    }

    /// The ufrags by which an unknown address may be found to belong to this peer.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        self.ice.local_ufrags()
    }

    /// Takes one datagram the peer's address sent to `local_ip` and decrypts it where it lies.
    ///
    /// Allocates nothing for media. Handles anything: what is not understood or not authentic is counted and dropped.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local_ip: IpAddr,
        datagram: &'a mut [u8],
    ) -> Received<'a> {
        if matches!(self.phase, Phase::Closed) {
            return Received::Nothing;
        }
        match classify(datagram) {
            DatagramKind::Rtp => {
                if let Some(len) = self.open(now, datagram, SrtpOpener::open_rtp) {
                    return Received::Rtp(&datagram[..len]);
                }
            }
            DatagramKind::Rtcp => {
                if let Some(len) = self.open(now, datagram, SrtpOpener::open_rtcp) {
                    return Received::Rtcp(&datagram[..len]);
                }
            }
            DatagramKind::Stun => self.handle_stun(now, Path { remote: from, local_ip }, datagram),
            DatagramKind::Dtls => self.handle_dtls(now, from, datagram),
            DatagramKind::Unknown => self.stats.unknown += 1,
        }
        Received::Nothing
    }

    fn open(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        open: fn(&mut SrtpOpener, &mut [u8]) -> Result<usize, SrtpError>,
    ) -> Option<usize> {
        let Some(media) = &mut self.media else {
            self.stats.srtp_dropped += 1;
            return None;
        };
        match open(&mut media.opener, packet) {
            Ok(len) => {
                self.last_seen = now;
                return Some(len);
            }
            Err(SrtpError::Unauthenticated) => self.stats.srtp_unauthenticated += 1,
            Err(SrtpError::Replayed) => self.stats.srtp_replayed += 1,
            Err(_) => self.stats.srtp_dropped += 1,
        }
        None
    }

    fn handle_stun(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        let outcome = self.ice.handle(now, path, datagram);
        self.stats.stun_malformed += u64::from(outcome.malformed);
        self.stats.stun_refused += u64::from(outcome.reply.is_some() && !outcome.authenticated);
        if let Some(data) = outcome.reply {
            self.push_transmit(path, data);
        }
        if outcome.authenticated {
            self.last_seen = now;
        }
        if outcome.selected.is_some() {
            self.events.push_back(TransportEvent::PathChanged { remote: path.remote });
            if let Phase::Ice { .. } = self.phase {
                self.phase = Phase::Dtls { until: now + self.config.timeouts.connect };
                self.start_dtls(now);
                self.finish_connecting(now);
                self.pump(now);
            }
        }
    }

    fn start_dtls(&mut self, now: Instant) {
        if let Some(dtls) = &mut self.dtls
            && let Err(error) = dtls.start(now)
        {
            self.close_with(now, error.into());
        }
    }

    fn handle_dtls(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if !self.ice.is_validated(from) {
            self.stats.dtls_dropped += 1;
            return;
        }
        if self.dtls.is_none() && !crate::dtls::is_client_hello(datagram) {
            self.stats.dtls_dropped += 1;
            return;
        }
        // A ClientHello before the answer's SDP: the peer has made itself the client.
        let dtls = self.dtls.get_or_insert_with(|| Dtls::new(self.identity.clone(), DtlsRole::Server));
        let dropped = dtls.dropped();
        let (mut complete, mut closed, mut packets) = (false, false, Vec::new());
        let result = dtls.handle_datagram(now, datagram, |event| match event {
            DtlsEvent::HandshakeComplete => complete = true,
            DtlsEvent::Data(data) => packets.push(data.freeze()),
            DtlsEvent::Closed => closed = true,
        });
        self.stats.dtls_dropped += dtls.dropped() - dropped;
        if !packets.is_empty() {
            self.last_seen = now;
        }
        if complete {
            self.finish_connecting(now);
        }
        if matches!(self.phase, Phase::Connected) {
            self.take_sctp(now, packets);
        } else if self.config.data_channel {
            packets.truncate(EARLY_PACKETS_MAX.saturating_sub(self.early.len()));
            self.early.append(&mut packets);
        }
        match result {
            Err(error) => self.close_with(now, error.into()),
            Ok(()) if closed => self.close_with(now, CloseReason::ClosedByPeer),
            Ok(()) => self.pump(now),
        }
    }

    fn take_sctp(&mut self, now: Instant, packets: Vec<Bytes>) {
        if let Some(channels) = &mut self.channels {
            for packet in packets {
                channels.handle_packet(now, packet);
            }
        }
    }

    /// Becomes connected once a checked path, a complete handshake and the peer's fingerprint are all there.
    ///
    /// The peer may nominate later. Browsers shake hands on the first path that works and send their first picture a few
    /// milliseconds before they nominate it; it must not be lost (RFC 8445 §12.2: be prepared to receive on any).
    fn finish_connecting(&mut self, now: Instant) {
        let (Phase::Ice { .. } | Phase::Dtls { .. }, Some(dtls), Some(remote), Some(path)) =
            (&self.phase, &self.dtls, &self.remote, self.ice.best_path())
        else {
            return;
        };
        if !dtls.is_complete() {
            return;
        }
        let role = dtls.role();
        let session = dtls.srtp_keys(&remote.fingerprint).and_then(|keys| {
            keys.session(role == DtlsRole::Client).map_err(|error| DtlsError::Handshake(error.to_string()))
        });
        let (sealer, opener) = match session {
            Ok(session) => session,
            Err(error) => return self.close_with(now, error.into()),
        };
        let profile = sealer.profile();
        self.media = Some(Media { sealer, opener });
        self.phase = Phase::Connected;
        self.last_seen = now;
        self.events.push_back(TransportEvent::Connected { profile, remote: path.remote });
        if self.config.data_channel {
            let channels = self.channels.get_or_insert_with(|| DataChannels::new(role));
            channels.set_peer_message_len_max(remote.message_len_max.unwrap_or(65_536));
            channels.start(now);
        }
        let early = std::mem::take(&mut self.early);
        self.take_sctp(now, early);
    }

    /// Moves what the inner machines produced into the outbox and the events.
    fn pump(&mut self, now: Instant) {
        if let (Some(channels), Some(dtls)) = (&mut self.channels, &mut self.dtls) {
            while let Some(packets) = channels.poll_transmit(now) {
                for packet in packets {
                    let _ = dtls.write(now, &packet);
                }
            }
            while let Some(event) = channels.poll_event() {
                self.events.push_back(match event {
                    ChannelEvent::Message { .. } if self.events.len() >= EVENTS_MAX => {
                        self.stats.overflow += 1;
                        continue;
                    }
                    ChannelEvent::Message { id, binary, data } => TransportEvent::Message { id, binary, data },
                    ChannelEvent::Open { id, label } => TransportEvent::ChannelOpen { id, label },
                    ChannelEvent::Closed { id } => TransportEvent::ChannelClosed { id },
                });
            }
            self.stats.messages_dropped = channels.messages_dropped();
        }
        let Some(path) = self.ice.best_path() else { return };
        while let Some(data) = self.dtls.as_mut().and_then(Dtls::poll_transmit) {
            self.push_transmit(path, data.to_vec());
        }
    }

    fn push_transmit(&mut self, path: Path, data: Vec<u8>) {
        if self.outbox.len() >= OUTBOX_MAX {
            self.stats.overflow += 1;
            return;
        }
        let from_ip = (!path.local_ip.is_unspecified()).then_some(path.local_ip);
        self.outbox.push_back(Transmit { to: path.remote, from_ip, data });
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// The next control datagram to send: STUN, DTLS, SCTP within it, SRTCP.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }

    /// When [`Transport::handle_timeout`] is due. `None` once closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Ice { until } | Phase::Dtls { until } => until,
            Phase::Connected => self.last_seen + self.config.timeouts.consent,
            Phase::Closed => return None,
        };
        let dtls = self.dtls.as_ref().and_then(Dtls::poll_timeout);
        let channels = self.channels.as_ref().and_then(DataChannels::poll_timeout);
        [Some(own), dtls, channels].into_iter().flatten().min()
    }

    /// Runs what is due at `now`; harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Closed => return,
            Phase::Ice { until } if now >= until => {
                let reason = if self.ice.stun_seen() { CloseReason::IceTimeout } else { CloseReason::NoStun };
                return self.close_with(now, reason);
            }
            Phase::Dtls { until } if now >= until => {
                let complete = self.dtls.as_ref().is_some_and(Dtls::is_complete);
                let unknown = complete && self.remote.is_none();
                let reason = if unknown { CloseReason::RemoteUnknown } else { CloseReason::DtlsTimeout };
                return self.close_with(now, reason);
            }
            Phase::Connected if now.saturating_duration_since(self.last_seen) >= self.config.timeouts.consent => {
                return self.close_with(now, CloseReason::ConsentLost);
            }
            _ => {}
        }
        if let Some(dtls) = &mut self.dtls
            && let Err(error) = dtls.handle_timeout(now)
        {
            return self.close_with(now, error.into());
        }
        if let Some(channels) = &mut self.channels
            && channels.poll_timeout().is_some_and(|at| at <= now)
        {
            channels.handle_timeout(now);
        }
        self.pump(now);
    }

    /// Whether media may flow.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    /// Whether the transport is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Seals RTP for this peer, once connected.
    pub fn sealer(&self) -> Option<&SrtpSealer> {
        self.media.as_ref().map(|media| &media.sealer)
    }

    /// Where media goes: the peer's address and the address of ours to send from. `None` until connected.
    pub fn media_path(&self) -> Option<Path> {
        self.media.as_ref().and(self.ice.best_path())
    }

    /// The address of the peer on its nominated path, or else the one that sent the last good check.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.ice.best_path().map(|path| path.remote)
    }

    /// When the peer last proved to be alive, by a check or an authenticated packet.
    pub fn last_seen(&self) -> Instant {
        self.last_seen
    }

    /// Whether `remote` proved to be the peer with a check.
    pub fn is_validated(&self, remote: SocketAddr) -> bool {
        self.ice.is_validated(remote)
    }

    /// Datagrams refused for whatever reason: the sum of the drops in [`Transport::stats`].
    pub fn refused(&self) -> u64 {
        let s = &self.stats;
        s.stun_malformed
            + s.stun_refused
            + s.dtls_dropped
            + s.srtp_unauthenticated
            + s.srtp_replayed
            + s.srtp_dropped
            + s.unknown
    }

    /// What was counted so far.
    pub fn stats(&self) -> TransportStats {
        self.stats
    }

    /// Seals a plain compound RTCP packet into the transmits. False if it was dropped: not connected, too long or
    /// shorter than a header, or the outbox is full.
    pub fn send_rtcp(&mut self, _now: Instant, compound: &[u8]) -> bool {
        let (Some(media), Some(path)) = (&mut self.media, self.ice.best_path()) else { return false };
        if compound.len() > RTCP_LEN_MAX || self.outbox.len() >= OUTBOX_MAX {
            return false;
        }
        let sealed_len = compound.len() + media.sealer.profile().rtcp_overhead();
        let mut data = Vec::with_capacity(sealed_len);
        data.extend_from_slice(compound);
        data.resize(sealed_len, 0);
        let Ok(len) = media.sealer.seal_rtcp(&mut data, compound.len()) else { return false };
        debug_assert_eq!(len, sealed_len);
        self.push_transmit(path, data);
        true
    }

    /// Opens a data channel to the peer; usable once [`ChannelEvent::Open`] came.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] without a connection or without data channels negotiated, else as
    /// [`DataChannels::open`].
    pub fn open_channel(&mut self, now: Instant, label: &str) -> Result<ChannelId, ChannelError> {
        let id = self.channels.as_mut().ok_or(ChannelError::Closed)?.open(now, label)?;
        self.pump(now);
        Ok(id)
    }

    /// Sends a message on a data channel.
    ///
    /// # Errors
    /// As [`DataChannels::send`]; the message is dropped.
    pub fn send_message(&mut self, now: Instant, id: ChannelId, binary: bool, data: Bytes) -> Result<(), ChannelError> {
        let result = self.channels.as_mut().ok_or(ChannelError::Closed)?.send(now, id, binary, data);
        self.pump(now);
        result
    }

    /// Ends the transport: aborts SCTP, says close_notify. [`CloseReason::ClosedHere`] follows as event; drain the
    /// transmits once more.
    pub fn close(&mut self, now: Instant) {
        self.close_with(now, CloseReason::ClosedHere);
    }

    fn close_with(&mut self, now: Instant, reason: CloseReason) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        if let Some(channels) = &mut self.channels {
            channels.abort();
        }
        self.pump(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
        self.pump(now);
        self.media = None;
        self.phase = Phase::Closed;
        self.events.push_back(TransportEvent::Closed(reason));
    }
}

#[cfg(test)]
mod tests;
