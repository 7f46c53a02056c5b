//! Data channels (RFC 8831) of one peer: SCTP over DTLS, with in-band opening (RFC 8832).
//!
//! Owns the SCTP association and the channels on it; encrypting and sending what it produces is the transport's.
//! Everything a peer can make grow has a limit: channels, streams, message size, bytes waiting either way. Past a
//! limit on what it sends the association is aborted; past the limit on what it should read a message is dropped.

mod dcep;
mod gate;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};
use rtc_shared::TransportProtocol;

use crate::dtls::DtlsRole;
use dcep::{Dcep, Open};
use gate::Gate;

/// Channels open or opening at once.
pub const CHANNELS_MAX: usize = 16;
/// Largest message taken from a peer and sent to one, in bytes; the `a=max-message-size` to offer.
pub const MESSAGE_LEN_MAX: usize = 262_144;
/// What a peer takes that named no `a=max-message-size` (RFC 8841 §6.1).
pub const PEER_MESSAGE_LEN_DEFAULT: usize = 65_536;
/// Bytes waiting to be sent or acknowledged; a message that would exceed it is dropped.
pub const SEND_BACKLOG_MAX: usize = 1024 * 1024;
/// Longest label of a channel, in bytes.
pub const LABEL_LEN_MAX: usize = 1024;

/// Receive window offered. Must hold the largest message.
const RECEIVE_WINDOW: u32 = 384 * 1024;
/// Bytes of DATA taken without one complete message coming of it, after which the peer is up to no good.
const UNREADABLE_BYTES_MAX: usize = 4 * RECEIVE_WINDOW as usize;
/// Streams a peer may touch, opened as a channel or not.
const STREAMS_MAX: usize = 64;
/// Handshakes of repeated INITs kept until one is complete.
const ASSOCIATIONS_MAX: usize = 4;
/// Browsers send INIT at once whichever role they have. Others leave it to the DTLS client: as such, we send ours if
/// none came by then. Waiting keeps the two from crossing.
const CONNECT_AFTER: Duration = Duration::from_millis(500);

const _: () = assert!(RECEIVE_WINDOW as usize > MESSAGE_LEN_MAX);

/// The library wants an address; SCTP over DTLS has none.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

/// A channel's SCTP stream number, unique within one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);

/// What happened on the data channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// A channel can be used: the peer opened it, or acknowledged ours.
    Open {
        /// Which.
        id: ChannelId,
        /// Its name.
        label: String,
    },
    /// A whole message came.
    Message {
        /// On which channel.
        id: ChannelId,
        /// Binary, or UTF-8 text (which is checked).
        binary: bool,
        /// The message.
        data: Bytes,
    },
    /// A channel is gone, closed by the peer or with the association.
    Closed {
        /// Which.
        id: ChannelId,
    },
}

/// Why a message was not sent or a channel not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// No such channel, or it is not open yet or any more.
    #[error("data channel is not open")]
    NotOpen,
    /// [`SEND_BACKLOG_MAX`] would be exceeded; the message is dropped and counted.
    #[error("data channel backlog is full")]
    BacklogFull,
    /// Larger than the peer takes or [`MESSAGE_LEN_MAX`].
    #[error("message is larger than the peer takes")]
    TooLarge,
    /// [`CHANNELS_MAX`] are open.
    #[error("too many data channels")]
    TooManyChannels,
    /// Longer than [`LABEL_LEN_MAX`].
    #[error("data channel label is too long")]
    LabelTooLong,
    /// The association is gone, or there never was one.
    #[error("data channels are closed")]
    Closed,
}

struct Channel {
    id: ChannelId,
    label: String,
    open: bool,
    unordered: bool,
    reliability: (ReliabilityType, u32),
    /// Ours: its OPEN still has to be sent.
    announce: bool,
}

enum State {
    /// Waiting for DTLS.
    Idle,
    /// Waiting for an INIT of the peer; if there is an end to it, ours follows.
    Waiting {
        until: Option<Instant>,
    },
    /// Handshaking or established.
    Running,
    Closed,
}

/// The data channels of one peer. Feed decrypted packets, drain [`DataChannels::poll_transmit`] and
/// [`DataChannels::poll_event`], keep the timer.
pub struct DataChannels {
    role: DtlsRole,
    state: State,
    endpoint: Endpoint,
    associations: Vec<(AssociationHandle, Association)>,
    /// The association is one we sent INIT for.
    begun_here: bool,
    connected: bool,
    channels: Vec<Channel>,
    streams_seen: Vec<u16>,
    gate: Gate,
    events: std::collections::VecDeque<ChannelEvent>,
    unreadable_bytes: usize,
    peer_message_len_max: usize,
    messages_dropped: u64,
}

fn transport_config() -> TransportConfig {
    TransportConfig::default()
        .with_max_message_size(MESSAGE_LEN_MAX as u32)
        .with_max_receive_buffer_size(RECEIVE_WINDOW)
}

impl DataChannels {
    /// Data channels over an association in which we have `role`; it decides which stream numbers are ours.
    pub fn new(role: DtlsRole) -> DataChannels {
        let server = ServerConfig::new(transport_config());
        let endpoint =
            Endpoint::new(PEER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), Some(Arc::new(server)));
        DataChannels {
            role,
            state: State::Idle,
            endpoint,
            associations: Vec::new(),
            begun_here: false,
            connected: false,
            channels: Vec::new(),
            streams_seen: Vec::new(),
            gate: Gate::default(),
            events: std::collections::VecDeque::new(),
            unreadable_bytes: 0,
            peer_message_len_max: PEER_MESSAGE_LEN_DEFAULT,
            messages_dropped: 0,
        }
    }

    /// Takes the peer's `a=max-message-size`; zero means no limit (RFC 8841 §6.1).
    pub fn set_peer_message_len_max(&mut self, len: u64) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.peer_message_len_max = if len == 0 { MESSAGE_LEN_MAX } else { len.min(MESSAGE_LEN_MAX) };
    }

    /// DTLS is up: expect the peer's INIT, and as DTLS client send ours if none comes.
    pub fn start(&mut self, now: Instant) {
        if matches!(self.state, State::Idle) {
            let until = (self.role == DtlsRole::Client).then(|| now + CONNECT_AFTER);
            self.state = State::Waiting { until };
        }
    }

    /// Messages dropped: backlog full, too large, or not what they claimed to be.
    pub fn messages_dropped(&self) -> u64 {
        self.messages_dropped
    }

    /// Opens a reliable, ordered channel and returns its number. It can be used once [`ChannelEvent::Open`] came.
    ///
    /// # Errors
    /// [`ChannelError::TooManyChannels`], [`ChannelError::LabelTooLong`] or [`ChannelError::Closed`].
    pub fn open(&mut self, now: Instant, label: &str) -> Result<ChannelId, ChannelError> {
        if matches!(self.state, State::Closed) {
            return Err(ChannelError::Closed);
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(ChannelError::TooManyChannels);
        }
        if label.len() > LABEL_LEN_MAX {
            return Err(ChannelError::LabelTooLong);
        }
        // The DTLS client has the even numbers (RFC 8832 §6).
        let first = if self.role == DtlsRole::Client { 0 } else { 1 };
        let id = (first..u16::MAX)
            .step_by(2)
            .find(|id| self.channels.iter().all(|c| c.id.0 != *id) && !self.streams_seen.contains(id))
            .map(ChannelId)
            .ok_or(ChannelError::TooManyChannels)?;
        self.channels.push(Channel {
            id,
            label: label.to_owned(),
            open: false,
            unordered: false,
            reliability: (ReliabilityType::Reliable, 0),
            announce: true,
        });
        self.announce_channels(now);
        Ok(id)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ChannelError::NotOpen`], [`ChannelError::TooLarge`], [`ChannelError::BacklogFull`]: the message is dropped.
    pub fn send(&mut self, now: Instant, id: ChannelId, binary: bool, data: Bytes) -> Result<(), ChannelError> {
        let channel = self.channels.iter().find(|c| c.id == id && c.open).ok_or(ChannelError::NotOpen)?;
        let (unordered, (kind, value)) = (channel.unordered, channel.reliability);
        if data.len() > self.peer_message_len_max {
            self.messages_dropped += 1;
            return Err(ChannelError::TooLarge);
        }
        if self.backlog() + data.len() > SEND_BACKLOG_MAX {
            self.messages_dropped += 1;
            return Err(ChannelError::BacklogFull);
        }
        let (ppid, data) = match (binary, data.is_empty()) {
            (true, false) => (Ppid::Binary, data),
            (false, false) => (Ppid::String, data),
            // SCTP carries no empty message: one byte that does not count stands for it (RFC 8831 §6.6).
            (true, true) => (Ppid::BinaryEmpty, Bytes::from_static(&[0])),
            (false, true) => (Ppid::StringEmpty, Bytes::from_static(&[0])),
        };
        let (_, association) = self.associations.first_mut().ok_or(ChannelError::Closed)?;
        let mut stream = association.stream(id.0).map_err(|_| ChannelError::NotOpen)?;
        stream.set_reliability_params(unordered, kind, value).map_err(|_| ChannelError::NotOpen)?;
        stream.write_chunk_with_ppi(now, &data, ppid).map_err(|_| ChannelError::NotOpen)?;
        Ok(())
    }

    /// Bytes handed over and not yet acknowledged, over all channels.
    pub fn backlog(&mut self) -> usize {
        let Some((_, association)) = self.associations.first_mut() else { return 0 };
        self.channels.iter().filter_map(|channel| association.stream(channel.id.0).ok()?.buffered_amount().ok()).sum()
    }

    /// Closes one channel; the peer is told by a stream reset.
    pub fn close_channel(&mut self, now: Instant, id: ChannelId) {
        if let Some(at) = self.channels.iter().position(|channel| channel.id == id) {
            self.channels.swap_remove(at);
            if let Some((_, association)) = self.associations.first_mut()
                && let Ok(mut stream) = association.stream(id.0)
            {
                let _ = stream.close(now);
            }
            self.events.push_back(ChannelEvent::Closed { id });
        }
    }

    /// Takes one decrypted SCTP packet.
    pub fn handle_packet(&mut self, now: Instant, packet: Bytes) {
        if matches!(self.state, State::Closed) || !self.gate.admits(&packet) {
            return;
        }
        let mut rest = packet.get(12..).unwrap_or_default();
        while let Some(&[kind, _, len0, len1]) = rest.get(..4) {
            let len = usize::from(u16::from_be_bytes([len0, len1]));
            if kind == 0 {
                self.unreadable_bytes += len;
            }
            rest = rest.get(len.max(4).next_multiple_of(4)..).unwrap_or_default();
        }
        match self.endpoint.handle(now, PEER, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                if self.connected || self.associations.len() >= ASSOCIATIONS_MAX {
                    return;
                }
                // The peer's INIT crossed ours: give ours up, so that both ends settle on the same association.
                if std::mem::take(&mut self.begun_here) {
                    self.associations.clear();
                }
                self.associations.push((handle, association));
                if self.associations.len() >= ASSOCIATIONS_MAX {
                    self.endpoint.reject_new_associations();
                }
                self.state = State::Running;
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) = self.associations.iter_mut().find(|(known, _)| *known == handle) {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
        self.drain(now);
        if self.unreadable_bytes > UNREADABLE_BYTES_MAX || self.streams_seen.len() > STREAMS_MAX {
            self.abort();
        }
    }

    /// When [`DataChannels::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => until,
            State::Running => self.associations.iter().filter_map(|(_, a)| a.poll_timeout()).min(),
            State::Idle | State::Closed => None,
        }
    }

    /// Runs timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Waiting { until: Some(until) } if now >= until => {
                self.state = State::Running;
                match self.endpoint.connect(now, ClientConfig::new(transport_config()), PEER) {
                    Ok(connection) => {
                        self.begun_here = true;
                        self.associations.push(connection);
                    }
                    Err(_) => self.state = State::Closed,
                }
            }
            State::Running => {
                for (_, association) in &mut self.associations {
                    if association.poll_timeout().is_some_and(|at| at <= now) {
                        association.handle_timeout(now);
                    }
                }
                self.drain(now);
            }
            _ => {}
        }
    }

    /// The next event. Drain after each call that handles something.
    pub fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// The next packets to encrypt and send, each on its own.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        for (_, association) in &mut self.associations {
            if let Some(transmit) = association.poll_transmit(now)
                && let Payload::RawEncode(packets) = transmit.message
            {
                packets.iter().for_each(|packet| self.gate.on_sent(packet));
                return Some(packets);
            }
        }
        None
    }

    /// Ends the association with an ABORT and closes every channel. Drain the transmits once more.
    pub fn abort(&mut self) {
        for (_, association) in &mut self.associations {
            let _ = association.abort();
        }
        self.lost();
    }

    fn lost(&mut self) {
        self.state = State::Closed;
        for channel in self.channels.drain(..) {
            self.events.push_back(ChannelEvent::Closed { id: channel.id });
        }
    }

    fn drain(&mut self, now: Instant) {
        let mut winner = None;
        for (at, (_, association)) in self.associations.iter_mut().enumerate() {
            if !self.connected && !association.is_handshaking() && !association.is_closed() {
                winner = Some(at);
                break;
            }
        }
        if let Some(at) = winner {
            self.connected = true;
            self.associations.swap(0, at);
            self.associations.truncate(1);
            self.endpoint.reject_new_associations();
            self.announce_channels(now);
        }
        let Some((_, association)) = self.associations.first_mut() else { return };
        let (mut readable, mut opened, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        while association.accept_stream().is_some() {}
        while let Some(event) = association.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id }) if !readable.contains(&id) => readable.push(id),
                Event::Stream(StreamEvent::Opened { id }) => opened.push(id),
                Event::AssociationLost { id, .. } => gone.push(id),
                _ => {}
            }
        }
        while association.poll_endpoint_event().is_some() {}
        let closed = association.is_closed();
        for id in opened {
            if !self.streams_seen.contains(&id) && self.streams_seen.len() <= STREAMS_MAX {
                self.streams_seen.push(id);
            }
        }
        for id in readable {
            self.read_stream(now, id);
        }
        for id in gone {
            self.streams_seen.retain(|seen| *seen != id);
            if let Some(at) = self.channels.iter().position(|channel| channel.id.0 == id) {
                self.channels.swap_remove(at);
                self.events.push_back(ChannelEvent::Closed { id: ChannelId(id) });
            }
        }
        if closed && self.connected {
            self.lost();
        }
    }

    fn read_stream(&mut self, now: Instant, id: u16) {
        loop {
            let Some((_, association)) = self.associations.first_mut() else { return };
            let Ok(mut stream) = association.stream(id) else { return };
            let Ok(Some(chunks)) = stream.read_sctp() else { return };
            self.unreadable_bytes = 0;
            match chunks.to_payload(MESSAGE_LEN_MAX) {
                Ok(data) => self.message(now, ChannelId(id), chunks.ppi, data.freeze()),
                Err(_) => self.messages_dropped += 1,
            }
        }
    }

    fn message(&mut self, now: Instant, id: ChannelId, ppid: Ppid, data: Bytes) {
        let (binary, data) = match ppid {
            Ppid::Dcep => return self.control(now, id, &data),
            Ppid::Binary => (true, data),
            Ppid::String => (false, data),
            Ppid::BinaryEmpty => (true, Bytes::new()),
            Ppid::StringEmpty => (false, Bytes::new()),
            _ => {
                self.messages_dropped += 1;
                return;
            }
        };
        let Some(channel) = self.channels.iter_mut().find(|channel| channel.id == id) else {
            self.messages_dropped += 1; // no channel was opened on this stream, or it was refused
            return;
        };
        if !binary && std::str::from_utf8(&data).is_err() {
            self.messages_dropped += 1;
            return;
        }
        if !channel.open {
            // Data implies the acknowledgement that may have been overtaken (RFC 8832 §6).
            channel.open = true;
            let label = channel.label.clone();
            self.events.push_back(ChannelEvent::Open { id, label });
        }
        self.events.push_back(ChannelEvent::Message { id, binary, data });
    }

    fn control(&mut self, now: Instant, id: ChannelId, data: &[u8]) {
        let room = self.channels.len() < CHANNELS_MAX;
        let known = self.channels.iter_mut().find(|channel| channel.id == id);
        match (Dcep::parse(data), known) {
            (Some(Dcep::Ack), Some(channel)) if !channel.open => {
                channel.open = true;
                let label = channel.label.clone();
                self.events.push_back(ChannelEvent::Open { id, label });
            }
            (Some(Dcep::Ack), _) => {}
            (Some(Dcep::Open(open)), None) if room => {
                self.write_control(now, id, Bytes::from_static(dcep::ACK));
                self.channels.push(Channel {
                    id,
                    label: open.label.clone(),
                    open: true,
                    unordered: open.unordered,
                    reliability: open.reliability,
                    announce: false,
                });
                self.events.push_back(ChannelEvent::Open { id, label: open.label });
            }
            // An OPEN on a used stream, too many channels, or nonsense: reset the stream (RFC 8832 §6).
            (_, known) => {
                self.messages_dropped += 1;
                if known.is_none()
                    && let Some((_, association)) = self.associations.first_mut()
                    && let Ok(mut stream) = association.stream(id.0)
                {
                    let _ = stream.close(now);
                }
            }
        }
    }

    fn announce_channels(&mut self, now: Instant) {
        if !self.connected {
            return;
        }
        let waiting: Vec<(ChannelId, Bytes)> = self
            .channels
            .iter_mut()
            .filter_map(|channel| {
                std::mem::take(&mut channel.announce).then(|| (channel.id, Open::reliable(&channel.label).encode()))
            })
            .collect();
        for (id, open) in waiting {
            if let Some((_, association)) = self.associations.first_mut() {
                let _ = association.open_stream(id.0, Ppid::Binary);
            }
            self.write_control(now, id, open);
        }
    }

    /// DCEP messages are ordered and reliable whatever the channel is (RFC 8832 §5).
    fn write_control(&mut self, now: Instant, id: ChannelId, message: Bytes) {
        if let Some((_, association)) = self.associations.first_mut()
            && let Ok(mut stream) = association.stream(id.0)
        {
            let _ = stream.set_reliability_params(false, ReliabilityType::Reliable, 0);
            let _ = stream.write_chunk_with_ppi(now, &message, Ppid::Dcep);
        }
    }
}

#[cfg(test)]
mod tests;
