//! A publisher's peer: a transport whose RTP becomes the stream's media.
//!
//! Owns the mapping from SSRC to track and layer, sequence extension, gap detection and everything that is sent back to
//! the publisher: receiver reports, NACK, transport-wide feedback, PLI. Never fans out and never keeps packets: whoever
//! drives it does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::{ArrivedRtp, LayerInfo, LayerIngest, MediaPacket, SourceClock, StreamTracks, TrackInfo};
use ams_types::{Codec, ExtSeq, LayerNo, Pt, Ssrc, TrackNo};
use bytes::{Bytes, BytesMut};

use crate::dtls::DtlsIdentity;
use crate::ext::{Ext, ExtValues};
use crate::ice::IceCredentials;
use crate::rtcp::{self, ReportBlock, Rtcp};
use crate::rtp::RtpHeader;
use crate::sctp::ChannelId;
use crate::sdp::PublishedTrack;
use crate::transport::{CloseReason, Received, RemoteTransport, Transmit, Transport, TransportConfig, TransportEvent};
use crate::twcc::FeedbackGenerator;

/// How often receiver reports go out. RFC 3550 §6.2 would allow less; browsers keep to 1 s.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Payloads are cut from chunks of this size, so that a packet costs no allocation of its own.
const ARENA_LEN: usize = 64 * 1024;
/// Missing packets asked for in one NACK.
const NACKS_MAX: usize = 128;
/// A compound longer than this goes out before more is added: what one turn asks for may not fit one datagram.
const COMPOUND_LEN: usize = 800;
/// Round trip assumed for NACK timing until it is measured.
const RTT_ASSUMED: Duration = Duration::from_millis(80);
/// SSRC this end's feedback speaks as; nothing is sent from it.
const FEEDBACK_SSRC: Ssrc = Ssrc(1);

/// What a publisher's transport and SDP agreed on.
#[derive(Debug)]
pub struct PublisherSetup {
    /// Our end of the transport.
    pub transport: TransportConfig,
    /// The publisher's end.
    pub remote: RemoteTransport,
    /// Its tracks, numbered from 0 without gaps.
    pub tracks: Vec<PublishedTrack>,
    /// A data channel was negotiated.
    pub data_channel: bool,
}

impl PublisherSetup {
    /// What a viewer has to know of the stream.
    pub fn stream_tracks(&self) -> StreamTracks {
        let info = |track: &PublishedTrack| TrackInfo {
            no: track.no,
            kind: track.kind,
            codec: track.codec.clone(),
            layers: (0u8..)
                .zip(&track.layers)
                .map(|(no, layer)| LayerInfo { no: LayerNo(no), rid: layer.rid.clone() })
                .collect(),
        };
        StreamTracks { tracks: self.tracks.iter().map(info).collect(), data_channel: self.data_channel }
    }
}

/// Where a publisher's media goes.
pub trait IngestSink {
    /// One packet, in order of arrival.
    fn packet(&mut self, packet: MediaPacket);
    /// A sender report of one layer.
    fn clock(&mut self, track: TrackNo, layer: LayerNo, clock: SourceClock);
    /// A data channel message.
    fn message(&mut self, binary: bool, data: Bytes);
    /// Packets are missing that will not come again: only a keyframe helps.
    fn keyframe_needed(&mut self, track: TrackNo, layer: LayerNo);
}

/// What a publisher's peer has to say.
#[derive(Clone, Debug)]
pub enum PublisherEvent {
    /// The transport is up.
    Connected,
    /// It is over; nothing follows.
    Closed(CloseReason),
}

struct IngestLayer {
    ssrc: Option<Ssrc>,
    ingest: LayerIngest,
    /// Added to the ingest's numbers, so that they go on rising when the source restarts under another SSRC.
    seq_base: u64,
    seq_highest: u64,
    /// Added to the source's timestamps, so that they go on by the time that passed when the source restarts.
    timestamp_offset: u32,
    /// Timestamp handed out last, and when.
    newest: Option<(u32, Instant)>,
}

impl IngestLayer {
    /// Another source takes the layer over with a packet of this timestamp: its numbers have nothing to do with the old.
    fn restart(&mut self, now: Instant, codec: Codec, timestamp: u32) {
        self.ingest = LayerIngest::new(codec);
        self.seq_base = (self.seq_highest | 0xffff) + 1;
        if let Some((newest, at)) = self.newest {
            let step = ams_media::clock::ticks(now.saturating_duration_since(at), codec.clock_rate()).max(1);
            self.timestamp_offset = newest.wrapping_add(step).wrapping_sub(timestamp);
        }
    }
}

struct IngestTrack {
    track: PublishedTrack,
    layers: Vec<IngestLayer>,
}

/// What an SSRC carries.
#[derive(Clone, Copy)]
struct Bound {
    ssrc: Ssrc,
    track: usize,
    layer: usize,
    rtx: bool,
}

/// Data channels of one publisher that messages go to.
const CHANNELS_KEPT: usize = 4;

/// A publisher's peer.
pub struct Publisher {
    transport: Transport,
    tracks: Vec<IngestTrack>,
    bound: Vec<Bound>,
    twcc: Option<FeedbackGenerator>,
    arena: BytesMut,
    reported_at: Instant,
    keyframes_due: Vec<Ssrc>,
    scratch: Vec<u8>,
    malformed: u64,
    channels: Vec<ChannelId>,
    events: std::collections::VecDeque<PublisherEvent>,
}

impl Publisher {
    /// A peer that waits for the publisher's first connectivity check.
    pub fn new(now: Instant, identity: &Arc<DtlsIdentity>, setup: PublisherSetup) -> Self {
        let mut transport = Transport::new(now, identity, setup.transport);
        transport.set_remote(now, setup.remote);
        let twcc = setup.tracks.iter().any(|t| t.exts.id(Ext::TransportCc).is_some());
        let mut bound = Vec::new();
        let tracks = setup
            .tracks
            .into_iter()
            .enumerate()
            .map(|(no, track)| {
                let layers = track
                    .layers
                    .iter()
                    .enumerate()
                    .map(|(layer, l)| {
                        bound.extend(l.ssrc.map(|ssrc| Bound { ssrc, track: no, layer, rtx: false }));
                        bound.extend(l.rtx_ssrc.map(|ssrc| Bound { ssrc, track: no, layer, rtx: true }));
                        IngestLayer {
                            ssrc: l.ssrc,
                            ingest: LayerIngest::new(track.codec.codec),
                            seq_base: 0,
                            seq_highest: 0,
                            timestamp_offset: 0,
                            newest: None,
                        }
                    })
                    .collect();
                IngestTrack { track, layers }
            })
            .collect();
        Self {
            transport,
            tracks,
            bound,
            twcc: twcc.then(|| FeedbackGenerator::new(FEEDBACK_SSRC)),
            arena: BytesMut::new(),
            reported_at: now,
            keyframes_due: Vec::new(),
            scratch: Vec::new(),
            malformed: 0,
            channels: Vec::new(),
            events: std::collections::VecDeque::new(),
        }
    }

    /// One datagram from `from`, which came to our address `local_ip`. It is opened in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local_ip: IpAddr,
        datagram: &mut [u8],
        sink: &mut impl IngestSink,
    ) {
        match self.transport.handle_datagram(now, from, local_ip, datagram) {
            Received::Rtp(packet) => {
                let mut ingest = Ingest {
                    tracks: &mut self.tracks,
                    bound: &mut self.bound,
                    twcc: &mut self.twcc,
                    arena: &mut self.arena,
                };
                if ingest.rtp(now, packet, sink).is_none() {
                    self.malformed += 1;
                }
            }
            Received::Rtcp(packet) => {
                for item in rtcp::parse(packet) {
                    match item {
                        Ok(Rtcp::SenderReport(report)) => {
                            let info = report.info;
                            if let Some(b) = self.bound.iter().find(|b| b.ssrc == info.ssrc && !b.rtx)
                                && let Some(layer) =
                                    self.tracks.get_mut(b.track).and_then(|t| t.layers.get_mut(b.layer))
                            {
                                let mut clock = layer.ingest.on_sender_report(now, info.ntp, info.rtp_timestamp);
                                clock.rtp = clock.rtp.wrapping_add(layer.timestamp_offset);
                                sink.clock(TrackNo(b.track as u8), LayerNo(b.layer as u8), clock);
                            }
                        }
                        Ok(_) => {}
                        Err(_) => self.malformed += 1,
                    }
                }
            }
            Received::Nothing => {}
        }
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::Message { binary, data, .. } => sink.message(binary, data),
                event => self.note(event),
            }
        }
    }

    fn note(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Connected { .. } => self.events.push_back(PublisherEvent::Connected),
            TransportEvent::ChannelOpen { id, .. } if self.channels.len() < CHANNELS_KEPT => self.channels.push(id),
            TransportEvent::ChannelClosed { id } => self.channels.retain(|channel| *channel != id),
            TransportEvent::Closed(reason) => self.events.push_back(PublisherEvent::Closed(reason)),
            // Messages come with datagrams only.
            TransportEvent::Message { .. }
            | TransportEvent::ChannelOpen { .. }
            | TransportEvent::PathChanged { .. } => {}
        }
    }

    /// Sends a data channel message. Returns how many channels it was lost on: none is open, or the backlog is full.
    pub fn send_message(&mut self, now: Instant, binary: bool, data: &Bytes) -> u64 {
        let Self { channels, transport, .. } = self;
        let failed = channels.iter().filter(|id| transport.send_message(now, **id, binary, data.clone()).is_err());
        failed.count() as u64
    }

    /// Timers; to be called every 20 ms or so.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        while let Some(event) = self.transport.poll_event() {
            self.note(event);
        }
        if !self.transport.is_connected() {
            return;
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        if now.saturating_duration_since(self.reported_at) >= REPORT_INTERVAL {
            self.reported_at = now;
            self.write_report(now, &mut out);
        }
        for ssrc in self.keyframes_due.drain(..) {
            start_compound(&mut out);
            rtcp::write_pli(&mut out, FEEDBACK_SSRC, ssrc);
        }
        self.write_nacks(now, &mut out);
        if !out.is_empty() {
            self.transport.send_rtcp(now, &out);
        }
        if let Some(twcc) = &mut self.twcc {
            loop {
                out.clear();
                start_compound(&mut out);
                if !twcc.poll(now, &mut out) {
                    break;
                }
                self.transport.send_rtcp(now, &out);
            }
        }
        self.scratch = out;
    }

    fn write_report(&mut self, now: Instant, out: &mut Vec<u8>) {
        let mut blocks = Vec::with_capacity(4);
        for layer in self.tracks.iter_mut().flat_map(|t| &mut t.layers) {
            if let (Some(ssrc), Some(r)) = (layer.ssrc, layer.ingest.report(now)) {
                blocks.push(ReportBlock {
                    ssrc,
                    fraction_lost: r.fraction_lost,
                    lost: r.cumulative_lost,
                    highest_seq: r.highest_seq,
                    jitter: r.jitter,
                    last_sr: r.last_sr,
                    delay_since_last_sr: r.delay_since_last_sr,
                });
            }
        }
        rtcp::write_receiver_report(out, FEEDBACK_SSRC, &blocks);
    }

    fn write_nacks(&mut self, now: Instant, out: &mut Vec<u8>) {
        let mut missing = [ExtSeq(0); NACKS_MAX];
        let mut seqs = [0_u16; NACKS_MAX];
        for track in &mut self.tracks {
            if !track.track.feedback.nack {
                continue;
            }
            for layer in &mut track.layers {
                let Some(ssrc) = layer.ssrc else { continue };
                let n = layer.ingest.poll_nack(now, RTT_ASSUMED, &mut missing);
                if n > 0 {
                    for (seq, ext) in seqs.iter_mut().zip(&missing) {
                        *seq = ext.low16();
                    }
                    if out.len() > COMPOUND_LEN {
                        self.transport.send_rtcp(now, out);
                        out.clear();
                    }
                    start_compound(out);
                    rtcp::write_nack(out, FEEDBACK_SSRC, ssrc, seqs.get(..n).unwrap_or_default());
                }
            }
        }
    }

    /// Asks the publisher for a keyframe of one layer; goes out at the next [`Self::handle_timeout`].
    pub fn request_keyframe(&mut self, track: TrackNo, layer: LayerNo) {
        let ssrc = self.tracks.get(usize::from(track.0)).and_then(|t| t.layers.get(usize::from(layer.0))?.ssrc);
        if let Some(ssrc) = ssrc
            && !self.keyframes_due.contains(&ssrc)
        {
            self.keyframes_due.push(ssrc);
        }
    }

    /// New credentials after an ICE restart; the old keep working until the first check on the new.
    pub fn restart_ice(&mut self, local: IceCredentials, remote: &IceCredentials) {
        self.transport.restart_ice(local);
        self.transport.set_remote_credentials(remote);
    }

    /// The ufrags a check may be addressed to right now; two between an ICE restart and its first check.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        self.transport.local_ufrags()
    }

    /// Says goodbye; what is to be sent is in [`Self::poll_transmit`].
    pub fn close(&mut self, now: Instant) {
        self.transport.close(now);
    }

    /// The next control datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transport.poll_transmit()
    }

    /// The next thing to say.
    pub fn poll_event(&mut self) -> Option<PublisherEvent> {
        self.events.pop_front()
    }

    /// Whether a connectivity check from this address has been authenticated.
    pub fn is_validated(&self, remote: SocketAddr) -> bool {
        self.transport.is_validated(remote)
    }

    /// Datagrams refused so far: wrong integrity, forged, replayed, malformed.
    pub fn refused(&self) -> u64 {
        self.transport.refused() + self.malformed
    }
}

/// A compound starts with a report, if only an empty one (RFC 3550 §6.1).
fn start_compound(out: &mut Vec<u8>) {
    if out.is_empty() {
        rtcp::write_receiver_report(out, FEEDBACK_SSRC, &[]);
    }
}

/// The parts of a publisher that ingest needs while the transport lends the packet.
struct Ingest<'a> {
    tracks: &'a mut Vec<IngestTrack>,
    bound: &'a mut Vec<Bound>,
    twcc: &'a mut Option<FeedbackGenerator>,
    arena: &'a mut BytesMut,
}

impl Ingest<'_> {
    /// Takes one opened RTP packet. `None` if it is malformed or belongs to nothing that was negotiated.
    fn rtp(&mut self, now: Instant, packet: &[u8], sink: &mut impl IngestSink) -> Option<()> {
        let header = RtpHeader::parse(packet).ok()?;
        let bound = match self.bound.iter().find(|b| b.ssrc == header.ssrc) {
            Some(bound) => *bound,
            None => match self.bind(now, &header, sink) {
                Some(bound) => bound,
                None => {
                    // Nothing to forward, but it did arrive: the sender's estimate would count it as lost.
                    let seq = self.tracks.iter().find_map(|t| ExtValues::read(&header, &t.track.exts).transport_seq);
                    if let (Some(twcc), Some(seq)) = (self.twcc.as_mut(), seq) {
                        twcc.on_packet(now, header.ssrc, seq);
                    }
                    return None;
                }
            },
        };
        let track = self.tracks.get_mut(bound.track)?;
        let values = ExtValues::read(&header, &track.track.exts);
        if let (Some(twcc), Some(seq)) = (self.twcc.as_mut(), values.transport_seq) {
            twcc.on_packet(now, header.ssrc, seq);
        }
        let layer = track.layers.get_mut(bound.layer)?;
        let header = if bound.rtx {
            let ssrc = layer.ssrc?;
            match header.unwrap_rtx(packet, ssrc, track.track.pt) {
                Some(header) => header,
                // An empty one: the sender probes the bandwidth.
                None => return Some(()),
            }
        } else {
            if header.pt != track.track.pt {
                return None;
            }
            header
        };
        let payload = packet.get(header.payload.clone())?;
        let ingested = layer.ingest.on_rtp(
            now,
            ArrivedRtp {
                seq: header.seq,
                timestamp: header.timestamp,
                payload,
                dependency_descriptor: values.dependency_descriptor,
                recovered: bound.rtx,
            },
        );
        let seq = ExtSeq(layer.seq_base + ingested.seq.0);
        layer.seq_highest = layer.seq_highest.max(seq.0);
        let timestamp = header.timestamp.wrapping_add(layer.timestamp_offset);
        layer.newest = Some((timestamp, now));
        let (track_no, layer_no) = (TrackNo(bound.track as u8), LayerNo(bound.layer as u8));
        if ingested.needs_keyframe {
            sink.keyframe_needed(track_no, layer_no);
        }
        let extensions = values.to_media();
        if self.arena.capacity() < payload.len() {
            self.arena.reserve(ARENA_LEN.max(payload.len()));
        }
        self.arena.extend_from_slice(payload);
        // An empty payload is padding, a probe of the bandwidth: it keeps its place in the numbers.
        sink.packet(MediaPacket {
            track: track_no,
            layer: layer_no,
            seq,
            timestamp,
            marker: header.marker,
            keyframe: ingested.keyframe && !payload.is_empty(),
            sublayer: ingested.sublayer,
            extensions,
            payload: self.arena.split().freeze(),
            ingest_at: now,
            age: Duration::ZERO,
        });
        Some(())
    }

    /// Finds out what a new SSRC carries: by RID and MID where they come with it, else by payload type.
    fn bind(&mut self, now: Instant, header: &RtpHeader<'_>, sink: &mut impl IngestSink) -> Option<Bound> {
        let carries = |track: &PublishedTrack, pt: Pt| {
            if pt == track.pt { Some(false) } else { (Some(pt) == track.rtx_pt).then_some(true) }
        };
        let (no, rtx) = self.tracks.iter().enumerate().find_map(|(no, t)| {
            let rtx = carries(&t.track, header.pt)?;
            let mid = ExtValues::read(header, &t.track.exts).mid;
            mid.is_none_or(|mid| mid == t.track.mid.0.as_bytes()).then_some((no, rtx))
        })?;
        let track = self.tracks.get_mut(no)?;
        let values = ExtValues::read(header, &track.track.exts);
        let rid = if rtx { values.repaired_rid.or(values.rid) } else { values.rid };
        let layer = match rid {
            Some(rid) => {
                track.track.layers.iter().position(|l| l.rid.as_ref().is_some_and(|known| known.0.as_bytes() == rid))?
            }
            // Without RIDs there is one layer, and its SSRC may have changed or never been announced.
            None if track.layers.len() == 1 => 0,
            None => return None,
        };
        // A layer has one source, and one for its retransmissions: a new one takes the place of the old.
        self.bound.retain(|b| (b.track, b.layer, b.rtx) != (no, layer, rtx));
        if !rtx {
            let l = track.layers.get_mut(layer)?;
            if l.ssrc.is_some_and(|old| old != header.ssrc) {
                l.restart(now, track.track.codec.codec, header.timestamp);
                // Retransmissions of the old source's packets would be taken for the new one's.
                self.bound.retain(|b| (b.track, b.layer) != (no, layer));
                // Viewers' decoders cannot go on with pictures of another encoder.
                sink.keyframe_needed(TrackNo(no as u8), LayerNo(layer as u8));
            }
            l.ssrc = Some(header.ssrc);
        }
        let bound = Bound { ssrc: header.ssrc, track: no, layer, rtx };
        self.bound.push(bound);
        Some(bound)
    }
}
