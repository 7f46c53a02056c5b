//! Shards of a simulated node: real cores, real links' tasks, no thread and no socket.
//!
//! Owns what peers would do on their transports: connecting, sending media, going away. Whose media it is stands in each
//! packet, so that a stream that mixes two publishers' is seen.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ams_media::{MediaPacket, PacketExtensions};
use ams_rtc::transport::CloseReason;
use ams_types::{Epoch, ExtSeq, LayerNo, StreamKey, TrackNo};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::core::{Role, ShardCore};
use super::links::Links;
use super::protocol::{Census, PeerId, ShardEvent, ShardNo};
use super::sinks::Socket;
use super::stream::Stream;
use super::{COMMANDS_MAX, MEDIA_MAX, ShardConfig, ShardHandle, flush, obey, read_siblings, release_held};
use crate::clock;

/// Time between two ticks: longer than a real shard's, because nothing here depends on it but keepalives.
const TICK: Duration = Duration::from_millis(100);

/// A socket into nothing.
struct Nowhere;

impl Socket for Nowhere {
    fn send(&self, _: SocketAddr, _: Option<IpAddr>, _: &[u8], _: Option<usize>) -> bool {
        true
    }

    fn segments_max(&self) -> usize {
        1
    }
}

/// One shard of a simulated node.
#[derive(Clone)]
pub struct SimShard {
    core: Rc<RefCell<ShardCore>>,
    wake: Rc<Notify>,
}

/// What a stream on a shard last got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which publication it is of.
    pub epoch: Epoch,
    /// Whose media the last packet is.
    pub owner: u64,
    /// When that was sent, in ms of the simulation.
    pub sent_ms: u64,
}

/// Shards that run in this thread, and their tasks, which end when the handles are dropped.
pub fn start(
    count: u16,
    config: &ShardConfig,
    events: &mpsc::Sender<ShardEvent>,
) -> (Vec<ShardHandle>, Vec<SimShard>, Vec<impl Future<Output = ()> + 'static>) {
    let rings: Vec<_> = (0..count).map(|_| mpsc::channel(MEDIA_MAX)).collect();
    let senders: Vec<_> = rings.iter().map(|(sender, _)| sender.clone()).collect();
    let (mut handles, mut shards, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (_, media)) in rings.into_iter().enumerate() {
        let siblings = senders.iter().enumerate().map(|(n, s)| (n != at).then(|| s.clone())).collect();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let links = Links::new(config.relay.clone(), config.node.clone());
        let core = ShardCore::new(Arc::clone(&config.identity), Rc::new(Nowhere), siblings, events.clone(), links);
        let punctuality = Arc::clone(&core.punctuality);
        let shard = SimShard { core: Rc::new(RefCell::new(core)), wake: Rc::default() };
        handles.push(ShardHandle {
            commands,
            udp_port: 50_000 + at as u16,
            ipv6: false,
            runtime: tokio::runtime::Handle::current(),
            punctuality,
        });
        let SimShard { core, wake } = shard.clone();
        tasks.push(async move {
            tokio::select! {
                biased;
                () = obey(Rc::clone(&core), inbox, Rc::clone(&wake)) => {}
                () = read_siblings(Rc::clone(&core), media, Rc::clone(&wake)) => {}
                () = release_held(Rc::clone(&core), wake) => {}
                () = tick(core) => {}
            }
        });
        shards.push(shard);
    }
    (handles, shards, tasks)
}

async fn tick(core: Rc<RefCell<ShardCore>>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        let now = clock::now();
        core.borrow_mut().pump(now);
        core.borrow_mut().tick(now);
    }
}

impl SimShard {
    /// Whether a peer is on this shard.
    pub fn has(&self, peer: PeerId) -> bool {
        self.core.borrow().by_id.contains_key(&peer)
    }

    /// A peer's transport is connected; a publisher's media has come.
    pub fn connect(&self, peer: PeerId) {
        let mut core = self.core.borrow_mut();
        let Some(peer_there) = core.by_id.get(&peer).and_then(|at| core.peers.get(*at)) else { return };
        let (is_publisher, stream) = (matches!(peer_there.role, Role::Publisher(_)), peer_there.stream);
        if !is_publisher {
            core.emit(ShardEvent::ViewerConnected { peer });
        } else if core.streams.get_mut(stream).is_some_and(Stream::connected) {
            core.emit(ShardEvent::PublisherLive { peer, layers: Vec::new() });
        }
    }

    /// A peer's transport is lost, or closed by the peer.
    pub fn lose(&self, peer: PeerId, reason: CloseReason) {
        let mut core = self.core.borrow_mut();
        let Some(&index) = core.by_id.get(&peer) else { return };
        core.remove_peer(index);
        core.emit(ShardEvent::PeerClosed { peer, reason });
    }

    /// A publisher sends a picture. False if it is not here.
    pub fn picture(&self, peer: PeerId, owner: u64, seq: u64, sent_ms: u64) -> bool {
        let mut core = self.core.borrow_mut();
        let Some(index) = core.by_id.get(&peer).and_then(|at| core.peers.get(*at)).map(|p| p.stream) else {
            return false;
        };
        let now = clock::now();
        let packet = MediaPacket {
            track: TrackNo(0),
            layer: LayerNo(0),
            seq: ExtSeq(70_000 + seq),
            timestamp: (sent_ms * 90) as u32,
            marker: true,
            keyframe: true,
            sublayer: None,
            extensions: PacketExtensions::default(),
            payload: Bytes::from([owner.to_be_bytes(), sent_ms.to_be_bytes()].concat()),
            ingest_at: now,
            age: Duration::ZERO,
        };
        core.ingest(now, index, Arc::new(packet));
        flush(&mut core, now, &self.wake);
        true
    }

    /// What a stream last got here; none if it is not here or nothing has come.
    pub fn seen(&self, key: &StreamKey) -> Option<Seen> {
        let core = self.core.borrow();
        let stream = core.streams.get(*core.by_key.get(key)?)?;
        let packet = stream.layer(TrackNo(0), LayerNo(0))?.ring.run_since_keyframe()?.last()?.clone();
        let number = |at: usize| Some(u64::from_be_bytes(packet.payload.get(at..at + 8)?.try_into().ok()?));
        Some(Seen { epoch: stream.epoch, owner: number(0)?, sent_ms: number(8)? })
    }

    /// Whether a viewer's transport is fed from a stream here.
    pub fn feeds(&self, key: &StreamKey, peer: PeerId) -> bool {
        let core = self.core.borrow();
        let (Some(&stream), Some(peer)) = (core.by_key.get(key), core.by_id.get(&peer)) else { return false };
        core.streams.get(stream).is_some_and(|stream| stream.viewers.contains(peer))
    }

    /// The streams here.
    pub fn streams(&self) -> Vec<StreamKey> {
        let mut streams: Vec<_> = self.core.borrow().by_key.keys().cloned().collect();
        streams.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
        streams
    }

    /// What is here.
    pub fn census(&self) -> Census {
        self.core.borrow().census()
    }
}

/// A shard's number by its place.
pub fn no(at: usize) -> ShardNo {
    ShardNo(at as u16)
}
