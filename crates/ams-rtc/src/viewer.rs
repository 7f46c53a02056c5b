//! A viewer's peer: a transport that a stream's media leaves by.
//!
//! Owns the viewer's SSRCs, numbers, payload types and extension ids, retransmission, sender reports and its data
//! channel. Never seals an SSRC's number for two packets: `egress` alone seals, and an index always means the same bytes. Never keeps packets: lost ones are looked up in the shard's ring.

mod catch_up;
mod egress;
mod feedback;
mod keyframe;
mod pace;
mod setup;
mod stats;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::bandwidth::Usage;
use ams_media::{
    BandwidthEstimator, Choice, Depth, LayerChoice, LayerOffer, MediaPacket, PacketRing, Rewritten, SourceClock,
    StreamTracks, ViewerTrack,
};
use ams_types::{Bitrate, ExtSeq, LayerNo, MediaKind, Ssrc, TrackNo};
use bytes::Bytes;
use catch_up::CatchUp;
use egress::{Egress, Shared};
pub use feedback::Feedback;
use feedback::Reader;
use keyframe::Keyframe;
use pace::{Pace, Path};
use setup::fixed_bytes_without_rtx;
pub use setup::{EgressTrack, ViewerSetup};
use stats::Heard;
pub use stats::{Stages, TrackStats, ViewerStats};

use crate::dtls::DtlsIdentity;
use crate::ext::Ext;
use crate::ice::IceCredentials;
use crate::rtcp::{self, SenderInfo, ntp_middle};
use crate::sctp::ChannelId;
use crate::sdp::PlayAnswer;
use crate::transport::{CloseReason, Received, Transmit, Transport, TransportEvent};
use crate::tx::{DatagramSink, TxBatch};

/// How often sender reports go out once the first has.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The first few come faster: without one, sound and picture are not in step yet.
const REPORT_INTERVAL_FIRST: Duration = Duration::from_millis(200);
/// How many come faster.
const REPORTS_FIRST: u32 = 5;
/// Round trip assumed until a receiver report tells.
const RTT_ASSUMED: Duration = Duration::from_millis(100);
/// Sender reports whose sending is remembered, to measure round trips.
const REPORTS_KEPT: usize = 8;
/// Packets one viewer gets sent again between two calls of [`Viewer::handle_timeout`]: 25 Mbit/s of 1200 bytes. More is
/// no loss any more but a viewer that asks for everything.
const RESENDS_PER_TURN: u32 = 256;
/// Believed of a path until it is measured: a viewer begins with a good picture where there are layers to fall back to.
const ESTIMATE_START: Bitrate = Bitrate(2_500_000);
/// Kept free for sound, bit/s.
const SOUND_RATE: u64 = 40_000;
/// A probe's debt below this is paid later.
const PROBE_PACKET_BYTES: u64 = 200;
/// Bytes that may always be sent again in one go.
const RESEND_CREDIT_MIN: u64 = 6_000;
/// Data channels of one viewer that messages go to.
const CHANNELS_KEPT: usize = 4;
/// Canonical name in RTCP: one per node is enough, tracks of one stream share it (RFC 7022).
const CNAME: &str = "ams-node";

/// What a viewer's peer has to say.
#[derive(Clone, Debug)]
pub enum ViewerEvent {
    /// The transport is up.
    Connected,
    /// A data channel message.
    Message {
        /// Whether it is binary.
        binary: bool,
        /// The message.
        data: Bytes,
    },
    /// It is over; nothing follows.
    Closed(CloseReason),
}

struct Track {
    setup: EgressTrack,
    numbering: ViewerTrack,
    choice: LayerChoice,
    /// The choice is to send nothing of it.
    starved: bool,
    /// The viewer wants it; if not, nothing of it is sent.
    on: bool,
    /// The viewer is behind the live packets and is fed from the ring.
    behind: Option<CatchUp>,
    /// The last keyframe sent.
    keyframe: Option<Keyframe>,
    rtx_seq: u64,
    bytes: u64,
    /// The viewer's reports name this SSRC: it has bound it, the MID can be left out.
    bound: bool,
    /// What the viewer reports.
    heard: Heard,
}

impl Track {
    fn new(setup: EgressTrack) -> Self {
        Self {
            numbering: ViewerTrack::new(setup.codec.clock_rate(), rand::random::<u16>() & 0x7fff, rand::random())
                .for_codec(setup.codec),
            choice: LayerChoice::default(),
            starved: false,
            on: true,
            behind: None,
            keyframe: None,
            rtx_seq: u64::from(rand::random::<u16>() & 0x7fff),
            bytes: 0,
            bound: false,
            heard: Heard::default(),
            setup: fixed_bytes_without_rtx(setup),
        }
    }

    fn is_sent(&self) -> bool {
        self.setup.accepted && self.on
    }

    /// The stream begins anew. Numbers and time go on, choices are made again.
    fn on_source_restart(&mut self) {
        self.numbering.on_source_restart();
        self.choice.on_source_restart();
        self.starved = false;
        self.behind = None;
        self.keyframe = None;
    }

    /// Follows a choice. `is_over`: the path is full already, so that a layer that is too much must stop now.
    fn take(&mut self, choice: Choice, is_over: bool) {
        self.starved = self.choice.is_sound_only();
        match choice.layer {
            _ if self.starved => {
                self.behind = None;
                self.numbering.skip_to_keyframe();
            }
            // Nothing came yet.
            None => {}
            Some(layer) => {
                self.numbering.set_target(layer, choice.depth);
                if is_over && self.numbering.layer().is_some_and(|present| present != layer) {
                    self.behind = None;
                    self.numbering.wait_for_target();
                }
            }
        }
    }

    /// Sends one packet, if the viewer gets it.
    fn forward(&mut self, packet: &MediaPacket, egress: &mut Egress<'_>) -> Option<Rewritten> {
        let rewritten = self.numbering.forward(egress.now, packet)?;
        self.bytes += packet.payload.len() as u64;
        if packet.keyframe && self.setup.codec.kind() == MediaKind::Video {
            self.keyframe = Some(Keyframe::begun(egress.now, packet.timestamp));
        }
        if let Some(keyframe) = &mut self.keyframe
            && keyframe.is_being_sent()
        {
            keyframe.on_sent(egress.now, packet, rewritten.marker);
        }
        egress.original(self, packet, rewritten).then_some(rewritten)
    }
}

/// A viewer's peer.
pub struct Viewer {
    transport: Transport,
    tracks: Vec<Track>,
    channel_label: Option<String>,
    channels: Vec<ChannelId>,
    shared: Shared,
    pace: Pace,
    resends_left: u32,
    /// Bytes that may be sent again, and when they were last credited.
    resend_credit: u64,
    resends_at: Instant,
    rtt: Option<Duration>,
    reports: VecDeque<(u32, Instant)>,
    reported_at: Option<Instant>,
    reports_sent: u32,
    scratch: Vec<u8>,
    malformed: u64,
    stages: Stages,
    /// The rate the path is to be tried at, if a probe may be made.
    wanted: Option<Bitrate>,
    /// Bytes sent when a probe was last paid, and what it is owed.
    probe_mark: u64,
    probe_owed: u64,
    /// What the chosen layers send, bit/s.
    budget: u64,
    events: VecDeque<ViewerEvent>,
}

impl Viewer {
    /// A peer that waits for the viewer's first connectivity check.
    pub fn new(now: Instant, identity: &Arc<DtlsIdentity>, setup: ViewerSetup) -> Self {
        let mut transport = Transport::new(now, identity, setup.transport);
        if let Some(remote) = setup.remote {
            transport.set_remote(now, remote);
        }
        let tracks = setup.tracks.into_iter().map(Track::new).collect();
        Self {
            transport,
            tracks,
            channel_label: setup.channel_label,
            channels: Vec::new(),
            shared: Shared::new(setup.playout_delay),
            pace: Pace::new(now),
            resends_left: RESENDS_PER_TURN,
            resend_credit: u64::MAX,
            resends_at: now,
            rtt: None,
            reports: VecDeque::new(),
            reported_at: None,
            reports_sent: 0,
            scratch: Vec::new(),
            malformed: 0,
            stages: Stages::new(now),
            wanted: None,
            probe_mark: 0,
            probe_owed: 0,
            budget: 0,
            events: VecDeque::new(),
        }
    }

    /// The viewer answered our offer. Once media may flow the agreement stands: its packets' bytes follow from it.
    pub fn set_remote(&mut self, now: Instant, answer: PlayAnswer) {
        if self.transport.is_connected() {
            return;
        }
        for track in &mut self.tracks {
            match answer.tracks.iter().find(|t| t.no == track.setup.no) {
                Some(agreed) => track.setup = fixed_bytes_without_rtx(agreed.into()),
                None => track.setup.accepted = false,
            }
        }
        if answer.data.is_none() {
            self.channel_label = None;
        }
        self.transport.set_remote(now, answer.remote);
        self.drain_transport(now);
    }

    // --- media out ---------------------------------------------------------------------------------------------------

    /// Sends one packet of the stream to this viewer, if it gets it now. Returns whether it was sent.
    pub fn forward(
        &mut self,
        now: Instant,
        packet: &MediaPacket,
        tx: &mut TxBatch,
        sink: &mut dyn DatagramSink,
    ) -> bool {
        if !self.transport.is_connected() {
            return false;
        }
        let wanted = |t: &&mut Track| t.setup.no == packet.track && t.is_sent() && !t.starved;
        let Some(track) = self.tracks.iter_mut().find(wanted) else { return false };
        if let Some(behind) = &track.behind
            && behind.will_come_to(packet)
        {
            if !packet.keyframe || track.keyframe.is_some_and(|keyframe| keyframe.is_being_sent()) {
                return false;
            }
            // The viewer can begin anew right here: what is left of the run before it is of no use any more.
            track.behind = None;
            track.numbering.skip_to_keyframe();
        }
        let is_video = track.setup.codec.kind() == MediaKind::Video;
        if is_video
            && track.behind.is_none()
            && track.numbering.is_new(packet)
            && self.pace.credit(now).is_some_and(|credit| credit <= 0)
        {
            track.behind = Some(CatchUp::paced(now, packet, track.setup.codec.clock_rate()));
            return false;
        }
        let layer = track.numbering.layer();
        let mut egress = Egress { now, transport: &self.transport, shared: &mut self.shared, number: None, tx, sink };
        let sent = track.forward(packet, &mut egress);
        if sent.is_some() {
            self.pace.spend(catch_up::cost(packet));
        }
        if sent.is_some() && is_video && layer != track.numbering.layer() {
            // What follows may be in the ring already, if this packet came late.
            track.behind = Some(CatchUp::after(now, packet, track.setup.codec.clock_rate()));
        }
        self.stages.sent(now, sent, &track.setup);
        sent.is_some()
    }

    /// A track that waits for its first keyframe begins with the run in `ring`, if one is there and the viewer is
    /// connected; [`Self::catch_up`] sends it. Returns whether it does.
    pub fn begin(&mut self, now: Instant, track: TrackNo, layer: LayerNo, ring: &PacketRing) -> bool {
        let Some(start) = ring.keyframe_start() else { return false };
        let connected = self.transport.is_connected();
        let Some(track) = self.tracks.iter_mut().find(|t| t.setup.no == track && t.is_sent()) else {
            return false;
        };
        if !connected || track.behind.is_some() || !track.numbering.is_untouched() {
            return false;
        }
        track.behind = Some(CatchUp::from(now, layer, start, track.setup.codec.clock_rate()));
        true
    }

    /// Sends what the viewer lacks up to the live packets, paced; to be called every few milliseconds while
    /// [`Self::is_behind`]. `ring_of` gives a layer's ring and live bitrate. Returns how many packets were sent.
    pub fn catch_up<'r>(
        &mut self,
        now: Instant,
        ring_of: impl Fn(TrackNo, LayerNo) -> Option<(&'r PacketRing, Bitrate)>,
        tx: &mut TxBatch,
        sink: &mut dyn DatagramSink,
    ) -> u64 {
        let mut count = 0;
        let mut egress = Egress { now, transport: &self.transport, shared: &mut self.shared, number: None, tx, sink };
        for track in &mut self.tracks {
            let Some(mut behind) = track.behind.take() else { continue };
            let Some((ring, live_rate)) = ring_of(track.setup.no, behind.layer()) else { continue };
            behind.refill(now, live_rate, self.pace.credit(now));
            while let Some(packet) = behind.next(ring) {
                let sent = track.forward(packet, &mut egress);
                if sent.is_some() {
                    behind.sent(packet);
                    self.pace.spend(catch_up::cost(packet));
                }
                self.stages.sent(now, sent, &track.setup);
                count += u64::from(sent.is_some());
            }
            if !behind.is_done(ring) {
                track.behind = Some(behind);
            }
        }
        count
    }

    /// What may be sent again until the next call: what the path carries beyond the media, and a share of it always. On a
    /// path that is full, answers to all NACKs would keep it full.
    fn refill_resends(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.resends_at, now));
        let Some(estimate) = self.estimate() else {
            self.resend_credit = u64::MAX;
            return;
        };
        let rate = estimate.0.saturating_sub(self.budget).max(estimate.0 / 5);
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let most = (rate / 8 / 4).max(RESEND_CREDIT_MIN);
        self.resend_credit = self.resend_credit.min(most).saturating_add(rate.saturating_mul(millis) / 8000).min(most);
    }

    /// The stream comes from another source from now on, with numbers of its own: what comes next continues the viewer's
    /// numbers and time, from a keyframe on.
    pub fn on_source_restart(&mut self) {
        self.tracks.iter_mut().for_each(Track::on_source_restart);
        self.budget = 0;
        self.wanted = None;
    }

    /// Packets of a layer will not come. Who gets it goes on at its next keyframe, sound with its next packet, without a gap
    /// in its own numbers.
    pub fn on_gap(&mut self, track: TrackNo, layer: LayerNo) {
        let on_it = |t: &&mut Track| t.setup.no == track && t.numbering.layer() == Some(layer);
        if let Some(track) = self.tracks.iter_mut().find(on_it) {
            track.behind = None;
            track.numbering.skip_to_keyframe();
        }
    }

    /// Whether the viewer can decode a stream of these tracks with what was agreed: each of its tracks has its codec there,
    /// or nothing of its kind nor under its number is there at all.
    pub fn can_go_on_with(&self, tracks: &StreamTracks) -> bool {
        self.tracks.iter().filter(|t| t.setup.accepted).all(|ours| {
            let kind = ours.setup.codec.kind();
            match tracks.tracks.iter().find(|t| t.no == ours.setup.no) {
                Some(theirs) => theirs.codec.codec == ours.setup.codec,
                None => tracks.tracks.iter().all(|t| t.kind != kind),
            }
        })
    }

    /// Adds what a probe of the path needs beyond the media; to be called with [`Self::catch_up`] while
    /// [`Self::is_busy`], and every 100 ms or so otherwise.
    pub fn probe(&mut self, now: Instant, tx: &mut TxBatch, sink: &mut dyn DatagramSink) {
        let Some(bandwidth) = &mut self.shared.bandwidth else { return };
        let bytes = bandwidth.poll_probe(now, self.wanted) as u64;
        let media = self.shared.bytes - std::mem::replace(&mut self.probe_mark, self.shared.bytes);
        let mut owed = (self.probe_owed + bytes).saturating_sub(media);
        let padded = self.tracks.iter_mut().find_map(|t| Some((t.setup.accepted.then_some(t.setup.rtx)??, t)));
        let Some((rtx, track)) = padded else { return };
        let mut egress = Egress { now, transport: &self.transport, shared: &mut self.shared, number: None, tx, sink };
        while owed >= PROBE_PACKET_BYTES {
            owed = owed.saturating_sub(egress.padding(track, rtx).max(1) as u64);
        }
        self.probe_owed = if bytes == 0 { 0 } else { owed };
        self.probe_mark = self.shared.bytes;
    }

    /// Some track is fed from the ring.
    pub fn is_behind(&self) -> bool {
        self.tracks.iter().any(|t| t.behind.is_some())
    }

    /// It needs [`Self::catch_up`] and [`Self::probe`] every few milliseconds.
    pub fn is_busy(&self) -> bool {
        self.is_behind() || self.shared.bandwidth.as_ref().is_some_and(|b| b.is_probing())
    }

    /// Answers a NACK: finds the packet with `lookup` and sends it again, as RTX where negotiated. False if it was not.
    pub fn retransmit<'r>(
        &mut self,
        now: Instant,
        track: TrackNo,
        seq: u16,
        lookup: impl FnOnce(LayerNo, ExtSeq) -> Option<&'r Arc<MediaPacket>>,
        tx: &mut TxBatch,
        sink: &mut dyn DatagramSink,
    ) -> bool {
        let rtt = self.rtt.unwrap_or(RTT_ASSUMED);
        let Some(left) = self.resends_left.checked_sub(1) else { return false };
        let Some(track) = self.tracks.iter_mut().find(|t| t.setup.no == track) else { return false };
        let Some(resend) = track.numbering.nack(now, rtt, seq) else { return false };
        let Some(packet) = lookup(resend.layer, resend.source_seq) else { return false };
        track.numbering.on_missed(packet);
        let cost = packet.payload.len() as u64;
        let Some(credit) = self.resend_credit.checked_sub(cost) else { return false };
        self.resends_left = left;
        self.resend_credit = credit;
        self.pace.spend(catch_up::cost(packet));
        let mut egress = Egress { now, transport: &self.transport, shared: &mut self.shared, number: None, tx, sink };
        let rewritten = resend.rewritten(packet);
        match track.setup.rtx {
            _ if !resend.sent => track.forward(packet, &mut egress).is_some(),
            Some(rtx) => egress.rtx(track, rtx, packet, rewritten),
            None => egress.original(track, packet, rewritten),
        }
    }

    /// Sends a data channel message. Returns on how many channels it was lost because their backlog is full.
    pub fn send_message(&mut self, now: Instant, binary: bool, data: &Bytes) -> u64 {
        let Self { channels, transport, .. } = self;
        let failed = channels.iter().filter(|id| transport.send_message(now, **id, binary, data.clone()).is_err());
        failed.count() as u64
    }

    // --- feedback in -------------------------------------------------------------------------------------------------

    /// One datagram from `from`, which came to our address `local_ip`. What it asks for is appended to `feedback`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local_ip: IpAddr,
        datagram: &mut [u8],
        feedback: &mut Vec<Feedback>,
    ) {
        match self.transport.handle_datagram(now, from, local_ip, datagram) {
            Received::Rtcp(packet) => {
                let mut reader = Reader {
                    bandwidth: &mut self.shared.bandwidth,
                    tracks: &mut self.tracks,
                    reports: &self.reports,
                    rtt: &mut self.rtt,
                    malformed: &mut self.malformed,
                };
                reader.read(now, packet, feedback);
            }
            Received::Rtp(_) | Received::Nothing => {}
        }
        self.drain_transport(now);
    }

    fn drain_transport(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::Connected { .. } => {
                    self.stages.connected(now);
                    if self.tracks.iter().any(|t| t.setup.exts.id(Ext::TransportCc).is_some()) {
                        self.shared.bandwidth = Some(Box::new(BandwidthEstimator::new(now, ESTIMATE_START)));
                    }
                    if let Some(label) = self.channel_label.take() {
                        // Refused only for a label too long or a closed transport; then there is no channel.
                        let _ = self.transport.open_channel(now, &label);
                    }
                    self.events.push_back(ViewerEvent::Connected);
                }
                TransportEvent::ChannelOpen { id, .. } if self.channels.len() < CHANNELS_KEPT => self.channels.push(id),
                TransportEvent::ChannelClosed { id } => self.channels.retain(|c| *c != id),
                TransportEvent::Message { binary, data, .. } => {
                    self.events.push_back(ViewerEvent::Message { binary, data });
                }
                TransportEvent::Closed(reason) => self.events.push_back(ViewerEvent::Closed(reason)),
                TransportEvent::ChannelOpen { .. } | TransportEvent::PathChanged { .. } => {}
            }
        }
    }

    // --- time --------------------------------------------------------------------------------------------------------

    /// Timers and sender reports; to be called every 100 ms or so. `clock_of` gives a layer's last sender report.
    pub fn handle_timeout(&mut self, now: Instant, clock_of: impl Fn(TrackNo, LayerNo) -> Option<SourceClock>) {
        self.transport.handle_timeout(now);
        self.drain_transport(now);
        self.resends_left = RESENDS_PER_TURN;
        self.refill_resends(now);
        if let Some(bandwidth) = &mut self.shared.bandwidth {
            bandwidth.on_timeout(now);
            if let Some(rtt) = self.rtt {
                bandwidth.on_rtt(rtt);
            }
        }
        let interval = if self.reports_sent < REPORTS_FIRST { REPORT_INTERVAL_FIRST } else { REPORT_INTERVAL };
        let due = self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if !due || !self.transport.is_connected() {
            return;
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let mut middle = None;
        for track in self.tracks.iter().filter(|t| t.setup.accepted) {
            let Some(layer) = track.numbering.layer() else { continue };
            let Some(clock) = clock_of(track.setup.no, layer) else { continue };
            let time = clock.at(now, track.setup.codec.clock_rate());
            let Some(rtp_timestamp) = track.numbering.timestamp(time.rtp) else { continue };
            let info = SenderInfo {
                ssrc: track.setup.ssrc,
                ntp: time.ntp,
                rtp_timestamp,
                packets: (track.numbering.counters().packets & 0xffff_ffff) as u32,
                octets: (track.bytes & 0xffff_ffff) as u32,
            };
            rtcp::write_sender_report(&mut out, &info, &[]);
            rtcp::write_cname(&mut out, track.setup.ssrc, CNAME);
            // Audio and video report nearly the same moment; the last one stands for the round trip.
            middle = Some(ntp_middle(time.ntp));
        }
        if let Some(middle) = middle {
            self.transport.send_rtcp(now, &out);
            self.reported_at = Some(now);
            self.reports_sent = self.reports_sent.saturating_add(1);
            if self.reports.len() == REPORTS_KEPT {
                self.reports.pop_front();
            }
            self.reports.push_back((middle, now));
        }
        self.scratch = out;
    }

    // --- what it wants -----------------------------------------------------------------------------------------------

    /// Layers of which this viewer needs a keyframe to begin or go on.
    pub fn keyframes_wanted(&self) -> impl Iterator<Item = (TrackNo, LayerNo)> + '_ {
        let connected = self.transport.is_connected();
        self.tracks
            .iter()
            .filter(move |t| connected && t.is_sent() && !t.starved && t.setup.codec.kind() == MediaKind::Video)
            .filter_map(|t| Some((t.setup.no, t.numbering.waiting_keyframe()?)))
    }

    /// The layer a track is on, or waits for.
    pub fn layer_of(&self, track: TrackNo) -> LayerNo {
        let track = self.tracks.iter().find(|t| t.setup.no == track);
        track.and_then(|t| t.numbering.layer().or(t.numbering.waiting_keyframe())).unwrap_or_default()
    }

    /// Media of one kind, or all of it, is sent from now on or not. Pictures come back with the next keyframe.
    pub fn switch(&mut self, kind: Option<MediaKind>, on: bool) {
        for track in &mut self.tracks {
            if kind.is_none_or(|kind| track.setup.codec.kind() == kind) && track.on != on {
                track.on = on;
                track.behind = None;
                track.numbering.skip_to_keyframe();
            }
        }
    }

    /// Pictures of this height are wanted; 0 for what the network takes.
    pub fn want_height(&mut self, height: u32) {
        self.tracks.iter_mut().for_each(|track| track.choice.want_height(height));
    }

    /// What the path to the viewer is thought to carry, once feedback told.
    pub fn estimate(&self) -> Option<Bitrate> {
        self.shared.bandwidth.as_ref()?.estimate()
    }

    /// Chooses the layer of every video track. `offers` appends what can be had of a track, from the lowest bitrate up, and
    /// gives the best layer. To be called every 100 ms or so, and when [`Self::is_over_budget`].
    pub fn choose(&mut self, now: Instant, mut offers: impl FnMut(TrackNo, &mut Vec<LayerOffer>) -> Option<LayerNo>) {
        let estimate = self.estimate();
        let is_over = self.shared.bandwidth.as_ref().is_some_and(|b| b.usage() == Usage::Over);
        let path = match &self.shared.bandwidth {
            _ if is_over => Path::Queued,
            Some(bandwidth) if bandwidth.is_limited() => Path::Limited,
            _ => Path::Wide,
        };
        self.pace.set_estimate(estimate.map(|estimate| Bitrate(estimate.0.max(self.budget))), path);
        let mut video = self.tracks.iter().filter(|t| t.is_sent() && t.setup.codec.kind() == MediaKind::Video).count();
        let sound = self.tracks.iter().any(|t| t.is_sent() && t.setup.codec.kind() == MediaKind::Audio);
        let mut left = estimate.map(|e| Bitrate(e.0.saturating_sub(if sound { SOUND_RATE } else { 0 })));
        self.wanted = None;
        self.budget = 0;
        for track in &mut self.tracks {
            if !track.is_sent() || track.setup.codec.kind() != MediaKind::Video {
                continue;
            }
            let mut layers = Vec::new();
            let best = offers(track.setup.no, &mut layers);
            let share = left.map(|left| Bitrate(left.0 / video.max(1) as u64));
            let choice = track.choice.choose(now, &layers, best, share);
            track.take(choice, is_over);
            video -= 1;
            left = left.map(|left| Bitrate(left.0.saturating_sub(choice.bitrate.0)));
            self.budget += choice.bitrate.0;
            if let Some(wanted) = choice.wanted {
                self.wanted = Some(Bitrate(wanted.0 + if sound { SOUND_RATE } else { 0 }));
            }
        }
    }

    /// The estimate has fallen below what is sent: choose again now.
    pub fn is_over_budget(&self) -> bool {
        self.estimate().is_some_and(|estimate| estimate.0 < self.budget)
    }

    /// Pictures are left out because the path is too narrow for them.
    pub fn is_sound_only(&self) -> bool {
        self.tracks.iter().any(|t| t.is_sent() && t.choice.is_sound_only())
    }

    /// The video track's number, its layer and how much of it is sent, while it has one.
    pub fn video_layer(&self) -> Option<(TrackNo, LayerNo, Depth)> {
        let track = self.tracks.iter().find(|t| t.is_sent() && t.setup.codec.kind() == MediaKind::Video)?;
        Some((track.setup.no, track.numbering.layer()?, track.numbering.depth()))
    }

    /// Payload bytes of video and of audio sent so far, without retransmissions.
    pub fn bytes_sent(&self) -> (u64, u64) {
        let of = |kind| self.tracks.iter().filter(|t| t.setup.codec.kind() == kind).map(|t| t.bytes).sum();
        (of(MediaKind::Video), of(MediaKind::Audio))
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
        let mut bye = Vec::new();
        let ssrcs: Vec<Ssrc> = self.tracks.iter().filter(|t| t.setup.accepted).map(|t| t.setup.ssrc).collect();
        if let Some(first) = ssrcs.first() {
            rtcp::write_receiver_report(&mut bye, *first, &[]);
            rtcp::write_bye(&mut bye, &ssrcs);
            self.transport.send_rtcp(now, &bye);
        }
        self.transport.close(now);
    }

    /// The next control datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transport.poll_transmit()
    }

    /// The next thing to say.
    pub fn poll_event(&mut self) -> Option<ViewerEvent> {
        self.events.pop_front()
    }

    /// Whether a connectivity check from this address has been authenticated.
    pub fn is_validated(&self, remote: SocketAddr) -> bool {
        self.transport.is_validated(remote)
    }

    /// Round trip to the viewer, once a report told.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// What is known of this viewer.
    pub fn stats(&self) -> ViewerStats {
        let tracks = self.tracks.iter().filter(|t| t.setup.accepted);
        ViewerStats { rtt: self.rtt, stages: self.stages, tracks: tracks.map(TrackStats::of).collect() }
    }

    /// How far it has come since it was made.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Datagrams refused so far: wrong integrity, forged, replayed, malformed.
    pub fn refused(&self) -> u64 {
        self.transport.refused() + self.malformed
    }
}
