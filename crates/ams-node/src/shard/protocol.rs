//! What the control runtime tells a shard, and what a shard tells the control runtime.
//!
//! Both queues are bounded. Commands wait at the sender; events of state are never dropped (a shard keeps what does not
//! fit and offers it again), events of statistics may be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ams_media::{MediaPacket, SourceClock, StreamTracks};
use ams_relay::PeerInfo;
use ams_relay::wire::{EndReason, Found};
use ams_rtc::ice::IceCredentials;
use ams_rtc::publisher::PublisherSetup;
use ams_rtc::sdp::PlayAnswer;
use ams_rtc::transport::CloseReason;
use ams_rtc::viewer::ViewerSetup;
use ams_types::{Bitrate, Codec, Epoch, ExtSeq, LayerNo, MediaKind, StreamKey, TrackNo};
use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::histogram::Histogram;
use super::messages::From;
use crate::net::Parked;

/// A shard's place in its node, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardNo(pub u16);

/// A publisher's or viewer's transport on this node. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(pub u64);

/// A relay link of this node. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub u64);

/// Who opened a relay link: this node, to pull, or the other, to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkSide {
    /// We dialled an origin and pull streams from it.
    Pull,
    /// An edge dialled us and is served.
    Serve,
}

/// A relay link after its handshake, on its way to the shard that will own it.
#[derive(Debug)]
pub struct LinkSetup {
    /// Its name from now on.
    pub link: LinkId,
    /// Who opened it.
    pub side: LinkSide,
    /// The authenticated connection.
    pub stream: Parked,
    /// Who is at the other end.
    pub peer: PeerInfo,
    /// Bytes that came right behind the handshake.
    pub leftover: BytesMut,
}

/// Control → shard.
#[derive(Debug)]
pub enum ShardCommand {
    /// A publisher's description was answered; its stream's home is this shard.
    AddPublisher {
        /// The peer.
        peer: PeerId,
        /// The stream it publishes.
        key: StreamKey,
        /// The publication's epoch.
        epoch: Epoch,
        /// The negotiated session.
        setup: Box<PublisherSetup>,
    },
    /// A viewer was offered or answered; its stream must be on this shard already.
    AddViewer {
        /// The peer.
        peer: PeerId,
        /// The stream it watches.
        key: StreamKey,
        /// The negotiated, or half negotiated, session.
        setup: Box<ViewerSetup>,
        /// Whether its rates are to be reported.
        reported: bool,
        /// Told when its checks are expected; the description is held back until then.
        ready: Option<oneshot::Sender<()>>,
    },
    /// A viewer's wish about its running stream.
    SteerViewer {
        /// The peer.
        peer: PeerId,
        /// The wish.
        steer: ViewerSteer,
    },
    /// A viewer answered our offer.
    SetViewerAnswer {
        /// The peer.
        peer: PeerId,
        /// What it answered.
        answer: Box<PlayAnswer>,
    },
    /// ICE restart: the peer's new credentials and ours.
    RestartIce {
        /// The peer.
        peer: PeerId,
        /// Ours.
        local: IceCredentials,
        /// The other end's.
        remote: IceCredentials,
    },
    /// Close a peer; no event follows.
    ClosePeer {
        /// The peer.
        peer: PeerId,
    },
    /// Take a relay link over.
    AddLink(Box<LinkSetup>),
    /// Pull a stream over a link of this shard, which becomes its home.
    Pull {
        /// The link.
        link: LinkId,
        /// The stream.
        key: StreamKey,
    },
    /// Serve a stream on a link of this shard. The stream is on this shard already.
    Serve {
        /// The link.
        link: LinkId,
        /// The edge's handle for it.
        handle: u32,
        /// The stream.
        key: StreamKey,
    },
    /// Refuse an edge's subscription.
    RefuseServe {
        /// The link.
        link: LinkId,
        /// The edge's handle.
        handle: u32,
        /// The reason, for a person.
        sentence: String,
    },
    /// Another node is told whether a stream is published here.
    AnswerFind {
        /// The link it asked on.
        link: LinkId,
        /// The answer.
        found: Found,
    },
    /// An edge is told that this node is to leave, or stays after all.
    GoAway {
        /// Its link.
        link: LinkId,
        /// When this node is gone; none if it stays.
        left: Option<Duration>,
    },
    /// The origin is told how many watch a stream here.
    TellAudience {
        /// The link it is pulled on.
        link: LinkId,
        /// The stream.
        key: StreamKey,
        /// Viewers.
        viewers: u32,
    },
    /// This shard is to hold a replica of a stream whose home is another shard.
    AddReplica {
        /// The stream.
        key: StreamKey,
        /// Its home.
        home: ShardNo,
        /// Its epoch.
        epoch: Epoch,
        /// What it consists of.
        tracks: Arc<StreamTracks>,
    },
    /// This shard is the stream's home and must feed a replica.
    FeedReplica {
        /// The stream.
        key: StreamKey,
        /// Where the replica is.
        to: ShardNo,
    },
    /// The replica on that shard went away.
    StopReplica {
        /// The stream.
        key: StreamKey,
        /// Where the replica was.
        to: ShardNo,
    },
    /// A stream has lost its source: links are told why it ended there, viewers wait for another source.
    Interrupt {
        /// The stream.
        key: StreamKey,
        /// What links are told.
        reason: EndReason,
    },
    /// Forget a stream, or the wish to pull it: links are told why it ended, viewers are closed without events.
    CloseStream {
        /// The stream.
        key: StreamKey,
        /// What links are told.
        reason: EndReason,
    },
    /// A text goes to everybody on a stream's data channels, its publisher too. This shard is its home.
    Say {
        /// The stream.
        key: StreamKey,
        /// The text.
        text: Bytes,
    },
    /// Count what this shard holds.
    Census(oneshot::Sender<Census>),
    /// Shut everything down: peers are told, links closed, the thread ends.
    Stop(oneshot::Sender<()>),
}

/// Shard → shard: a stream's home feeding its replicas, and what flows back. May be dropped when the ring is full.
#[derive(Debug)]
pub enum ShardMedia {
    /// Packets of one turn, in order.
    Packets {
        /// The stream.
        key: StreamKey,
        /// The publication they belong to.
        epoch: Epoch,
        /// The packets.
        packets: Vec<Arc<MediaPacket>>,
    },
    /// A sender report.
    Clock {
        /// The stream.
        key: StreamKey,
        /// The publication it belongs to.
        epoch: Epoch,
        /// Which track.
        track: TrackNo,
        /// Which layer.
        layer: LayerNo,
        /// The report.
        clock: SourceClock,
    },
    /// Packets of a layer will not come.
    Gap {
        /// The stream.
        key: StreamKey,
        /// The publication it belongs to.
        epoch: Epoch,
        /// Which track.
        track: TrackNo,
        /// Which layer.
        layer: LayerNo,
        /// The last of them.
        to: ExtSeq,
    },
    /// A data channel message of a viewer, on its way to the stream's home.
    FromViewer {
        /// The stream.
        key: StreamKey,
        /// The publication it belongs to.
        epoch: Epoch,
        /// Who sent it.
        from: From,
        /// Whether it is binary.
        binary: bool,
        /// The message.
        data: Bytes,
    },
    /// A data channel message towards viewers.
    Data {
        /// The stream.
        key: StreamKey,
        /// The publication it belongs to.
        epoch: Epoch,
        /// Who sent it; none for the publisher.
        from: Option<From>,
        /// Whether it is binary.
        binary: bool,
        /// The message.
        data: Bytes,
    },
    /// A replica needs a keyframe.
    KeyframeRequest {
        /// The stream.
        key: StreamKey,
        /// Which track.
        track: TrackNo,
        /// Which layer.
        layer: LayerNo,
    },
}

/// Shard → control.
#[derive(Debug)]
pub enum ShardEvent {
    /// A viewer's transport is connected.
    ViewerConnected {
        /// The peer.
        peer: PeerId,
    },
    /// A publisher's media is there: from now on it can be watched.
    PublisherLive {
        /// The peer.
        peer: PeerId,
        /// What is known of its layers.
        layers: Vec<LayerReport>,
    },
    /// What a viewer's network takes and what it gets. May be dropped.
    ViewerReport {
        /// The peer.
        peer: PeerId,
        /// The rates.
        rates: ViewerRates,
        /// Height of the picture it gets now, if it is another one than at the last report.
        resized: Option<u32>,
    },
    /// A peer is gone and freed.
    PeerClosed {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
    /// An edge asks for a stream.
    ServeRequested {
        /// The link it asks on.
        link: LinkId,
        /// Its handle.
        handle: u32,
        /// The stream.
        key: StreamKey,
    },
    /// Another node asks whether a stream is published here.
    FindRequested {
        /// The link it asks on.
        link: LinkId,
        /// Comes back in the answer.
        nonce: u64,
        /// The stream.
        key: StreamKey,
    },
    /// An edge says how many watch a stream there.
    Audience {
        /// The link it is served on.
        link: LinkId,
        /// The stream.
        key: StreamKey,
        /// Viewers.
        viewers: u32,
    },
    /// An edge let go of a stream.
    ServeEnded {
        /// The link.
        link: LinkId,
        /// The stream.
        key: StreamKey,
    },
    /// The origin answered a pull.
    Pulled {
        /// The link.
        link: LinkId,
        /// The stream.
        key: StreamKey,
        /// Its epoch at the origin.
        epoch: Epoch,
        /// What it consists of.
        tracks: Arc<StreamTracks>,
    },
    /// The origin refused a pull, or ended the stream.
    PullEnded {
        /// The link.
        link: LinkId,
        /// The stream.
        key: StreamKey,
        /// What is over.
        end: PullEnd,
        /// The reason, for a person.
        sentence: String,
    },
    /// A viewer cannot decode what its stream has become.
    ViewerUnfit {
        /// The peer.
        peer: PeerId,
    },
    /// An origin says that it is to leave, or stays after all.
    OriginLeaves {
        /// The link to it.
        link: LinkId,
        /// The origin.
        remote: SocketAddr,
        /// When it is gone; none if it stays.
        left: Option<Duration>,
    },
    /// A relay link broke.
    LinkDown {
        /// The link.
        link: LinkId,
        /// Which side we were.
        side: LinkSide,
        /// The other end.
        remote: SocketAddr,
        /// The reason, for a person.
        sentence: String,
    },
    /// Periodic figures of a stream whose publisher or pull is on this shard. May be dropped.
    StreamReport {
        /// The stream.
        key: StreamKey,
        /// Per layer.
        layers: Vec<LayerReport>,
    },
}

/// What is over when a pull ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// The way: the stream may be had again, here or elsewhere.
    Way,
    /// The publication: another one may follow.
    Publication,
    /// The stream, on purpose.
    Stream,
}

/// A viewer's wish about its running stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewerSteer {
    /// Pictures of this height in pixels, or of the layer nearest to it; 0 for what the network takes.
    Height(u32),
    /// Media of one kind, or all, is to be sent or not.
    Switch {
        /// Which kind; both without one.
        kind: Option<MediaKind>,
        /// Whether it is sent.
        on: bool,
    },
}

/// What a viewer's network takes and what it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewerRates {
    /// What the path is thought to carry.
    pub target: Bitrate,
    /// Video that was sent.
    pub video: Bitrate,
    /// Audio that was sent.
    pub audio: Bitrate,
}

/// What a shard knows of one layer of a stream.
#[derive(Clone, Debug)]
pub struct LayerReport {
    /// Audio or video.
    pub kind: MediaKind,
    /// Its codec.
    pub codec: Codec,
    /// Which layer of its track.
    pub layer: LayerNo,
    /// Picture size in pixels; zeros while unknown and for audio.
    pub size: (u32, u32),
    /// Bits per second over the last second.
    pub bitrate: u64,
    /// Packets taken in so far.
    pub packets: u64,
    /// Bytes taken in so far.
    pub bytes: u64,
}

/// How many of everything a shard holds: tests and the leak watch compare it with what there should be.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Publishers' transports.
    pub publishers: usize,
    /// Viewers' transports.
    pub viewers: usize,
    /// Streams, homes and replicas.
    pub streams: usize,
    /// Relay links.
    pub links: usize,
    /// Streams served to edges, over all links.
    pub served: usize,
    /// Addresses datagrams are mapped by.
    pub addresses: usize,
    /// Media packets put on relay links.
    pub relay_packets_out: u64,
    /// Media packets that came over relay links.
    pub relay_packets_in: u64,
    /// Media packets dropped because a relay link was slow.
    pub relay_packets_dropped: u64,
    /// Packets sent to viewers.
    pub egress_packets: u64,
    /// Datagrams no peer was found for.
    pub unknown_datagrams: u64,
    /// Datagrams the kernel would not take.
    pub send_blocked: u64,
    /// Datagrams that were refused: bad integrity, forged tags, replays, garbage.
    pub refused_datagrams: u64,
    /// Keyframe requests sent to publishers.
    pub keyframe_requests: u64,
    /// Packets sent again because a viewer asked.
    pub retransmissions: u64,
    /// Events that did not fit into the control runtime's queue yet.
    pub events_waiting: usize,
    /// Turns of media another shard's ring had no room for.
    pub ring_drops: u64,
    /// Data channel messages dropped: a backlog was full, or a viewer said too much.
    pub messages_dropped: u64,
    /// Packets viewers asked for again, of those that are here now.
    pub nacks: u64,
    /// Keyframes viewers asked for, of those that are here now.
    pub keyframes_wanted: u64,
    /// From the intake of a turn's oldest packet on this node to the last viewer's send.
    pub forward_delay: Histogram,
    /// From a viewer's description to its connection.
    pub join_connected: Histogram,
    /// From a viewer's description to its first whole picture.
    pub join_picture: Histogram,
}

impl Census {
    /// Adds another shard's figures.
    pub fn add(&mut self, other: &Census) {
        self.publishers += other.publishers;
        self.viewers += other.viewers;
        self.streams += other.streams;
        self.links += other.links;
        self.served += other.served;
        self.addresses += other.addresses;
        self.relay_packets_out += other.relay_packets_out;
        self.relay_packets_in += other.relay_packets_in;
        self.relay_packets_dropped += other.relay_packets_dropped;
        self.egress_packets += other.egress_packets;
        self.unknown_datagrams += other.unknown_datagrams;
        self.send_blocked += other.send_blocked;
        self.refused_datagrams += other.refused_datagrams;
        self.keyframe_requests += other.keyframe_requests;
        self.retransmissions += other.retransmissions;
        self.events_waiting += other.events_waiting;
        self.ring_drops += other.ring_drops;
        self.messages_dropped += other.messages_dropped;
        self.nacks += other.nacks;
        self.keyframes_wanted += other.keyframes_wanted;
        self.forward_delay.add(&other.forward_delay);
        self.join_connected.add(&other.join_connected);
        self.join_picture.add(&other.join_picture);
    }
}

/// How often a viewer's rates are reported.
pub const VIEWER_REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// How often a home shard reports its streams' figures.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
