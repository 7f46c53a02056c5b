//! Shards without threads, sockets or clocks: cores driven by hand, with real peers at the other end.
//!
//! Owns a simulated network that loses nothing, and time. Decides nothing: tests give commands and look at what comes.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ams_relay::{LinkReader, RelayConfig, WriteBuf};
use ams_rtc::dtls::{DtlsIdentity, DtlsRole};
use ams_rtc::ext::{Ext, ExtMap, ExtValues};
use ams_rtc::ice::{DatagramKind, IceCredentials, classify};
use ams_rtc::publisher::PublisherSetup;
use ams_rtc::rtcp::{self, Rtcp};
use ams_rtc::rtp::{HeaderFields, RtpHeader, write_header};
use ams_rtc::sctp::{ChannelEvent, ChannelId};
use ams_rtc::sdp::{FeedbackFlags, PublishedLayer, PublishedTrack};
use ams_rtc::testpeer::{Received, TestPeer, TestPeerConfig, TestPeerEvent};
use ams_rtc::transport::{RemoteTransport, TransportConfig, TransportTimeouts};
use ams_rtc::viewer::{EgressTrack, ViewerSetup};
use ams_types::{Codec, CodecParams, Epoch, MediaKind, Mid, Pt, Ssrc, StreamKey, TrackNo};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::shard::core::{PUMPS_PER_TICK, ShardCore};
use crate::shard::fan_out::PUMP;
use crate::shard::links::{LinkOut, Links};
use crate::shard::protocol::{Census, LinkId, LinkSide, PeerId, ShardCommand, ShardEvent, ShardMedia, ShardNo};
use crate::shard::sinks::Socket;

pub(super) const VIDEO: Ssrc = Ssrc(0x0001_1111);
pub(super) const AUDIO: Ssrc = Ssrc(0x0002_2222);
const VIDEO_PT: Pt = Pt(100);
const AUDIO_PT: Pt = Pt(109);

pub(super) fn key(id: &str) -> StreamKey {
    StreamKey::new("WebRTCAppEE".parse().unwrap(), id.parse().unwrap())
}

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn identity() -> &'static Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(DtlsIdentity::generate().unwrap()))
}

/// A socket that keeps what is sent, trains cut into datagrams.
#[derive(Default)]
struct Wire(RefCell<Vec<(SocketAddr, Vec<u8>)>>);

impl Socket for Wire {
    fn send(&self, to: SocketAddr, _: Option<IpAddr>, contents: &[u8], segment: Option<usize>) -> bool {
        let datagrams = contents.chunks(segment.unwrap_or(contents.len()).max(1));
        self.0.borrow_mut().extend(datagrams.map(|d| (to, d.to_vec())));
        true
    }

    fn segments_max(&self) -> usize {
        8
    }
}

/// One shard.
pub(super) struct Shard {
    pub(super) core: ShardCore,
    wire: Rc<Wire>,
    events: mpsc::Receiver<ShardEvent>,
    media: mpsc::Receiver<ShardMedia>,
}

/// An opened RTP packet as a client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) ssrc: Ssrc,
    pub(super) pt: Pt,
    pub(super) seq: u16,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) transport_seq: Option<u16>,
    pub(super) payload: Vec<u8>,
}

/// A browser.
pub(super) struct Client {
    pub(super) peer: TestPeer,
    pub(super) address: SocketAddr,
    shard: usize,
    /// RTP that came, opened.
    pub(super) rtp: Vec<Got>,
    /// The same as it came.
    pub(super) raw: Vec<Vec<u8>>,
    /// RTP the client's SRTP would not take.
    pub(super) refused: Vec<Vec<u8>>,
    /// Keyframe requests that came, with their time.
    pub(super) plis: Vec<Instant>,
    /// Sender reports that came.
    pub(super) reports: usize,
    /// The NTP time of the last one, and when it came.
    pub(super) last_report: Option<(u64, Instant)>,
    /// Goodbyes that came.
    pub(super) byes: usize,
    /// Its data channel, once open, and the messages that came on it.
    channel: Option<ChannelId>,
    pub(super) messages: Vec<(bool, Vec<u8>)>,
    gone: bool,
}

/// A relay link between two shards of different nodes.
struct Relay {
    name: LinkId,
    /// The shard at either end, and what it queued.
    ends: [(usize, LinkOut); 2],
}

/// Everything of one test.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) shards: Vec<Shard>,
    pub(super) clients: Vec<Client>,
    relays: Vec<Relay>,
    next: u64,
}

impl World {
    /// `count` shards that are siblings.
    pub(super) fn new(count: usize) -> Self {
        Self::of(&vec!["node-a"; count])
    }

    /// Shards of these nodes, to be linked; they are siblings only if the nodes are one.
    pub(super) fn of(nodes: &[&str]) -> Self {
        let count = nodes.len();
        let rings: Vec<_> = (0..count).map(|_| mpsc::channel(64)).collect();
        let senders: Vec<_> = rings.iter().map(|(sender, _)| sender.clone()).collect();
        let shards = rings.into_iter().enumerate().map(|(at, (_, media))| {
            let siblings = senders.iter().enumerate().map(|(n, s)| (n != at).then(|| s.clone())).collect();
            let wire = Rc::new(Wire::default());
            let (sender, events) = mpsc::channel(64);
            let links = Links::new(RelayConfig::default(), nodes[at].parse().unwrap());
            let socket = Rc::clone(&wire) as Rc<dyn Socket>;
            let core = ShardCore::new(Arc::clone(identity()), socket, siblings, sender, links);
            Shard { core, wire, events, media }
        });
        Self { now: Instant::now(), shards: shards.collect(), clients: Vec::new(), relays: Vec::new(), next: 1 }
    }

    pub(super) fn command(&mut self, shard: usize, command: ShardCommand) {
        self.shards[shard].core.command(self.now, command);
        self.settle();
    }

    pub(super) fn census(&self, shard: usize) -> Census {
        self.shards[shard].core.census()
    }

    /// What a shard told the control runtime since the last call, reports apart.
    pub(super) fn events(&mut self, shard: usize) -> Vec<ShardEvent> {
        let mut events = Vec::new();
        loop {
            self.shards[shard].core.flush(self.now);
            let before = events.len();
            events.extend(std::iter::from_fn(|| self.shards[shard].events.try_recv().ok()));
            if events.len() == before {
                break;
            }
        }
        events.retain(|e| !matches!(e, ShardEvent::StreamReport { .. }));
        events
    }

    // --- peers -------------------------------------------------------------------------------------------------------

    fn transport(&mut self, shard: usize, data_channel: bool) -> (TransportConfig, RemoteTransport, usize) {
        let (ours, theirs) = (IceCredentials::random(), IceCredentials::random());
        let transport = TransportConfig {
            local: ours.clone(),
            role: Some(DtlsRole::Server),
            data_channel,
            timeouts: TransportTimeouts::default(),
        };
        let remote = RemoteTransport {
            credentials: theirs.clone(),
            fingerprint: identity().fingerprint().clone(),
            role: DtlsRole::Server,
            message_len_max: None,
        };
        let config = TestPeerConfig {
            local: theirs,
            remote: ours,
            remote_fingerprint: identity().fingerprint().clone(),
            server: self.here(),
            role: DtlsRole::Client,
            data_channel,
        };
        let n = self.clients.len();
        self.clients.push(Client {
            peer: TestPeer::new(self.now, identity(), config),
            address: SocketAddr::from(([198, 51, 100, (n % 250) as u8], 10_000 + n as u16)),
            shard,
            rtp: Vec::new(),
            raw: Vec::new(),
            refused: Vec::new(),
            plis: Vec::new(),
            reports: 0,
            last_report: None,
            byes: 0,
            channel: None,
            messages: Vec::new(),
            gone: false,
        });
        (transport, remote, n)
    }

    fn here(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 50_000)
    }

    pub(super) fn next_peer(&mut self) -> PeerId {
        self.next += 1;
        PeerId(self.next)
    }

    /// A connected publisher of these kinds of media. Returns its client and its peer.
    pub(super) fn publisher(&mut self, shard: usize, id: &str, epoch: u64, kinds: &[MediaKind]) -> (usize, PeerId) {
        let tracks = (0u8..).zip(kinds).map(|(no, kind)| published(TrackNo(no), *kind)).collect();
        self.publisher_of(shard, id, epoch, tracks)
    }

    /// A connected publisher of video in so many simulcast layers, with SSRCs from [`VIDEO`] on, and of audio.
    pub(super) fn simulcaster(&mut self, shard: usize, id: &str, layers: u32) -> usize {
        let mut video = published(TrackNo(0), MediaKind::Video);
        let ssrcs = (0..layers).map(|n| Some(Ssrc(VIDEO.0 + n)));
        video.layers = ssrcs.map(|ssrc| PublishedLayer { rid: None, ssrc, rtx_ssrc: None }).collect();
        self.publisher_of(shard, id, 1, vec![video, published(TrackNo(1), MediaKind::Audio)]).0
    }

    fn publisher_of(&mut self, shard: usize, id: &str, epoch: u64, tracks: Vec<PublishedTrack>) -> (usize, PeerId) {
        let (transport, remote, client) = self.transport(shard, true);
        let setup = Box::new(PublisherSetup { transport, remote, tracks, data_channel: true });
        let peer = self.next_peer();
        self.command(shard, ShardCommand::AddPublisher { peer, key: key(id), epoch: Epoch(epoch), setup });
        self.until("the publisher is connected", |w| w.clients[client].peer.is_connected());
        (client, peer)
    }

    /// A viewer, not connected yet, of a video and an audio track with or without RTX. Returns its client and its peer.
    pub(super) fn viewer_unconnected(&mut self, shard: usize, id: &str, rtx: bool) -> (usize, PeerId) {
        self.viewer_with(shard, id, rtx, false)
    }

    /// A connected viewer with a data channel, which the node opens.
    pub(super) fn talker(&mut self, shard: usize, id: &str) -> usize {
        let client = self.viewer_with(shard, id, true, true).0;
        self.until("the channel is open", |w| w.clients[client].channel.is_some());
        client
    }

    fn viewer_with(&mut self, shard: usize, id: &str, rtx: bool, channel: bool) -> (usize, PeerId) {
        let (transport, remote, client) = self.transport(shard, channel);
        let n = client as u32;
        let exts = viewer_exts();
        let track = |no: u8, codec, ssrc, pt| EgressTrack {
            no: TrackNo(no),
            codec,
            mid: Mid(no.to_string().into()),
            ssrc,
            pt,
            rtx: (rtx && no == 0).then_some((Ssrc(0x30_0000 + n), Pt(97))),
            exts,
            accepted: true,
        };
        let setup = Box::new(ViewerSetup {
            transport,
            remote: Some(remote),
            tracks: vec![
                track(0, Codec::Vp8, Ssrc(0x10_0000 + n), Pt(96)),
                track(1, Codec::Opus, Ssrc(0x20_0000 + n), Pt(111)),
            ],
            channel_label: channel.then(|| id.to_owned()),
            playout_delay: None,
        });
        let peer = self.next_peer();
        self.command(shard, ShardCommand::AddViewer { peer, key: key(id), setup, reported: true, ready: None });
        (client, peer)
    }

    /// As [`Self::viewer_unconnected`], connected.
    pub(super) fn viewer(&mut self, shard: usize, id: &str, rtx: bool) -> (usize, PeerId) {
        let (client, peer) = self.viewer_unconnected(shard, id, rtx);
        self.until("the viewer is connected", |w| w.clients[client].peer.is_connected());
        (client, peer)
    }

    /// The client's network goes away without a word.
    pub(super) fn vanish(&mut self, client: usize) {
        self.clients[client].peer.set_silent(true);
        self.clients[client].gone = true;
    }

    // --- media -------------------------------------------------------------------------------------------------------

    /// A client opens a data channel of its own, as the SDK does when it publishes.
    pub(super) fn open_channel(&mut self, client: usize) {
        let now = self.now;
        self.clients[client].peer.open_channel(now, "s").unwrap();
        self.until("the channel is open", |w| w.clients[client].channel.is_some());
    }

    /// A client says something on its data channel.
    pub(super) fn say(&mut self, client: usize, binary: bool, message: &[u8]) {
        let now = self.now;
        let Client { peer, channel, .. } = &mut self.clients[client];
        peer.send_message(now, channel.unwrap(), binary, Bytes::copy_from_slice(message)).unwrap();
        self.settle();
    }

    /// A publisher sends one packet. Its number is also the end of its payload.
    pub(super) fn send(&mut self, client: usize, ssrc: Ssrc, seq: u16, timestamp: u32, keyframe: bool) {
        let fields = HeaderFields { marker: true, pt: Pt(0), seq, timestamp, ssrc };
        self.send_rtp(client, u64::from(seq), fields, &payload(ssrc, seq, keyframe));
        self.settle();
    }

    /// A publisher sends a packet with this extended number and payload. Nothing is carried on to viewers yet.
    pub(super) fn send_rtp(&mut self, client: usize, seq: u64, fields: HeaderFields, payload: &[u8]) {
        let pt = if fields.ssrc == AUDIO { AUDIO_PT } else { VIDEO_PT };
        let mut packet = vec![0; 64];
        let fields = HeaderFields { pt, ..fields };
        let header_len = write_header(&mut packet, &fields, &ExtMap::default(), &Default::default()).unwrap();
        packet.truncate(header_len);
        packet.extend_from_slice(payload);
        let sealed = self.clients[client].peer.seal_rtp(seq, &packet, header_len).unwrap();
        self.carry(client, sealed);
    }

    /// What a shard sent since the last time, for a test that carries datagrams itself.
    pub(super) fn take_sent(&mut self, shard: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut *self.shards[shard].wire.0.borrow_mut())
    }

    /// A datagram of the node comes to a client.
    pub(super) fn arrive(&mut self, client: usize, datagram: Vec<u8>) {
        let now = self.now;
        self.clients[client].take(now, datagram);
    }

    /// A client sends a compound.
    pub(super) fn send_rtcp(&mut self, client: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let mut compound = Vec::new();
        rtcp::write_receiver_report(&mut compound, Ssrc(9), &[]);
        write(&mut compound);
        let sealed = self.clients[client].peer.seal_rtcp(&compound).unwrap();
        self.carry(client, sealed);
        self.settle();
    }

    /// A datagram of a client comes to its shard.
    pub(super) fn carry(&mut self, client: usize, mut datagram: Vec<u8>) {
        let Client { shard, address, gone, .. } = self.clients[client];
        if !gone {
            let local = self.here().ip();
            self.shards[shard].core.datagram(self.now, address, local, &mut datagram);
            self.shards[shard].core.flush(self.now);
        }
    }

    // --- relay -------------------------------------------------------------------------------------------------------

    /// A link: `edge` pulls from `origin`.
    pub(super) fn link(&mut self, origin: usize, edge: usize) -> LinkId {
        self.next += 1;
        let name = LinkId(self.next);
        let (now, remote) = (self.now, self.here());
        let mut add = |shard: usize, side| (shard, self.shards[shard].core.links.add(now, name, side, remote));
        let ends = [add(origin, LinkSide::Serve), add(edge, LinkSide::Pull)];
        self.relays.push(Relay { name, ends });
        name
    }

    /// The link breaks; both ends notice.
    pub(super) fn cut(&mut self, link: LinkId) {
        let at = self.relays.iter().position(|r| r.name == link).unwrap();
        let relay = self.relays.remove(at);
        for (shard, _) in relay.ends {
            self.shards[shard].core.drop_link(self.now, link);
        }
        self.settle();
    }

    /// Carries what is queued on the links. False if nothing was.
    fn relay(&mut self) -> bool {
        let mut any = false;
        let mut carried = Vec::new();
        for Relay { name, ends } in &self.relays {
            for (from, to) in [(&ends[0], ends[1].0), (&ends[1], ends[0].0)] {
                let mut bytes = BytesMut::new();
                let mut batch = WriteBuf::new();
                while from.1.queue.borrow_mut().fill(self.now, &mut batch) > 0 {
                    let mut slices = [std::io::IoSlice::new(&[]); 64];
                    while !batch.is_empty() {
                        let set = batch.slices(&mut slices);
                        let len = slices[..set].iter().map(|s| s.len()).sum();
                        slices[..set].iter().for_each(|s| bytes.extend_from_slice(s));
                        slices = [std::io::IoSlice::new(&[]); 64];
                        batch.advance(len);
                    }
                }
                if !bytes.is_empty() {
                    carried.push((*name, to, bytes));
                }
            }
        }
        for (name, to, bytes) in carried {
            any = true;
            let mut reader = LinkReader::new((), bytes);
            let core = &mut self.shards[to].core;
            core.links.heard(self.now, name);
            while let Some(frame) = reader.next_frame() {
                core.frame(self.now, name, frame.unwrap()).unwrap();
            }
            core.flush(self.now);
        }
        any
    }

    // --- time --------------------------------------------------------------------------------------------------------

    /// Carries everything until all are silent.
    pub(super) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for client in 0..self.clients.len() {
                while let Some(datagram) = self.clients[client].peer.poll_transmit() {
                    quiet = false;
                    self.carry(client, datagram);
                }
            }
            for at in 0..self.shards.len() {
                while let Ok(media) = self.shards[at].media.try_recv() {
                    quiet = false;
                    self.shards[at].core.sibling(self.now, media);
                }
                self.shards[at].core.flush(self.now);
                let sent = std::mem::take(&mut *self.shards[at].wire.0.borrow_mut());
                for (to, datagram) in sent {
                    quiet = false;
                    let now = self.now;
                    if let Some(client) = self.clients.iter_mut().find(|c| c.address == to && c.shard == at && !c.gone)
                    {
                        client.take(now, datagram);
                        client.hear();
                    }
                }
            }
            quiet &= !self.relay();
            if quiet {
                return;
            }
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            for n in 1..=PUMPS_PER_TICK {
                self.now += PUMP;
                for shard in &mut self.shards {
                    shard.core.pump(self.now);
                    if n == PUMPS_PER_TICK {
                        shard.core.tick(self.now);
                    }
                }
                if n < PUMPS_PER_TICK {
                    self.settle();
                }
            }
            for client in &mut self.clients {
                client.peer.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    /// Lets time pass until something is so; fails after 20 s.
    pub(super) fn until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let deadline = self.now + Duration::from_secs(20);
        self.settle();
        while !is_so(self) {
            assert!(self.now < deadline, "never: {what}");
            self.pass(PUMP * PUMPS_PER_TICK);
        }
    }

    /// Two siblings: shard `to` gets a replica of what shard `home` has.
    pub(super) fn replicate(&mut self, id: &str, epoch: u64, home: usize, to: usize) {
        let tracks = {
            let core = &self.shards[home].core;
            Arc::clone(&core.streams[core.by_key[&key(id)]].tracks)
        };
        let add = ShardCommand::AddReplica { key: key(id), home: ShardNo(home as u16), epoch: Epoch(epoch), tracks };
        self.command(to, add);
        self.command(home, ShardCommand::FeedReplica { key: key(id), to: ShardNo(to as u16) });
    }
}

impl Client {
    fn take(&mut self, now: Instant, datagram: Vec<u8>) {
        let mut opened = datagram.clone();
        match self.peer.handle_datagram(now, &mut opened) {
            Received::Rtp(packet) => {
                let header = RtpHeader::parse(packet).unwrap();
                self.rtp.push(Got {
                    ssrc: header.ssrc,
                    pt: header.pt,
                    seq: header.seq,
                    timestamp: header.timestamp,
                    marker: header.marker,
                    transport_seq: ExtValues::read(&header, &viewer_exts()).transport_seq,
                    payload: packet[header.payload.clone()].to_vec(),
                });
                self.raw.push(datagram);
            }
            Received::Rtcp(packet) => {
                for item in rtcp::parse(packet) {
                    match item.unwrap() {
                        Rtcp::Pli { .. } => self.plis.push(now),
                        Rtcp::SenderReport(report) => {
                            self.reports += 1;
                            self.last_report = Some((report.info.ntp, now));
                        }
                        Rtcp::Bye(_) => self.byes += 1,
                        _ => {}
                    }
                }
            }
            Received::Nothing if classify(&datagram) == DatagramKind::Rtp => self.refused.push(datagram),
            Received::Nothing => {}
        }
    }

    /// Takes what its data channel brought.
    fn hear(&mut self) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                TestPeerEvent::Channel(ChannelEvent::Open { id, .. }) => self.channel = Some(id),
                TestPeerEvent::Channel(ChannelEvent::Message { binary, data, .. }) => {
                    self.messages.push((binary, data.to_vec()));
                }
                _ => {}
            }
        }
    }

    /// RTP of one payload type that came.
    pub(super) fn of(&self, pt: u8) -> Vec<Got> {
        self.rtp.iter().filter(|got| got.pt == Pt(pt)).cloned().collect()
    }
}

/// A VP8 or Opus payload that tells its packet.
pub(super) fn payload(ssrc: Ssrc, seq: u16, keyframe: bool) -> Vec<u8> {
    let mut payload = if ssrc == AUDIO {
        vec![0xfc]
    } else if keyframe {
        vec![0x10, 0x50, 0x08, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]
    } else {
        vec![0x10, 0x51]
    };
    payload.extend_from_slice(&seq.to_be_bytes());
    payload
}

/// What viewers negotiate.
fn viewer_exts() -> ExtMap {
    let mut exts = ExtMap::default();
    exts.insert(Ext::Mid, 4);
    exts.insert(Ext::TransportCc, 3);
    exts
}

fn published(no: TrackNo, kind: MediaKind) -> PublishedTrack {
    let (codec, pt, ssrc) = match kind {
        MediaKind::Video => (Codec::Vp8, VIDEO_PT, VIDEO),
        MediaKind::Audio => (Codec::Opus, AUDIO_PT, AUDIO),
    };
    PublishedTrack {
        no,
        kind,
        mid: Mid(no.0.to_string().into()),
        codec: CodecParams { codec, fmtp: "".into() },
        pt,
        rtx_pt: None,
        layers: vec![PublishedLayer { rid: None, ssrc: Some(ssrc), rtx_ssrc: None }],
        exts: ExtMap::default(),
        feedback: FeedbackFlags { nack: kind == MediaKind::Video, pli: true, ..FeedbackFlags::default() },
        msid: None,
    }
}
