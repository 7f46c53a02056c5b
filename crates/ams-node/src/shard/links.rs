//! The relay links of one shard: what is queued on them, and which stream each handle means.
//!
//! Owns queues, subscriptions and keepalives; the sockets belong to the shell's tasks. A queue that overflows with
//! control frames, or a link that is silent too long, is marked dead; the shell sees that and ends it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::{MediaPacket, SourceClock, StreamTracks};
use ams_relay::session::{LinkSubscribers, Subscriptions};
use ams_relay::wire::{
    DataMessage, EndReason, Found, Frame, GO_AWAY_WITHDRAWN, RefuseCode, Refused, StreamHandle, Subscribed,
};
use ams_relay::{EgressQueue, Keepalive, KeepaliveAction, RelayConfig};
use ams_types::{Epoch, LayerNo, NodeId, StreamKey, TrackNo};
use bytes::Bytes;
use tokio::sync::Notify;

use super::messages::From;
use super::protocol::{Census, LinkId, LinkSide};

/// Hops a stream has made when it is pulled straight from its origin.
const HOPS_DIRECT: u8 = 1;

/// What the core and a link's writer task share.
#[derive(Clone)]
pub struct LinkOut {
    /// What is to be written.
    pub queue: Rc<RefCell<EgressQueue>>,
    /// Wakes the writer.
    pub wake: Rc<Notify>,
    /// Tells the link's task to end, and why.
    pub end: Rc<LinkEnd>,
}

/// The order to end a link.
#[derive(Default)]
pub struct LinkEnd {
    reason: RefCell<Option<String>>,
    notify: Notify,
}

impl LinkEnd {
    /// Orders the end; the first reason stays.
    pub fn order(&self, reason: &str) {
        self.reason.borrow_mut().get_or_insert_with(|| reason.to_owned());
        self.notify.notify_one();
    }

    /// Waits for the order.
    pub async fn ordered(&self) -> String {
        loop {
            if let Some(reason) = self.reason.borrow().clone() {
                return reason;
            }
            self.notify.notified().await;
        }
    }
}

enum Sessions {
    Pull(Subscriptions),
    Serve(LinkSubscribers),
}

struct Link {
    out: LinkOut,
    remote: SocketAddr,
    sessions: Sessions,
    keepalive: Keepalive,
    dirty: bool,
}

/// Every link of a shard.
pub struct Links {
    config: RelayConfig,
    node: NodeId,
    links: HashMap<LinkId, Link>,
    packets_in: u64,
    closed_sent: u64,
    closed_dropped: u64,
}

impl Links {
    /// No links yet. `node` is this node's name, as data messages carry it.
    pub fn new(config: RelayConfig, node: NodeId) -> Self {
        Self { config, node, links: HashMap::new(), packets_in: 0, closed_sent: 0, closed_dropped: 0 }
    }

    /// Takes a link in; its tasks run on what is returned.
    pub fn add(&mut self, now: Instant, link: LinkId, side: LinkSide, remote: SocketAddr) -> LinkOut {
        let out = LinkOut {
            queue: Rc::new(RefCell::new(EgressQueue::new(self.config.queue_limits()))),
            wake: Rc::default(),
            end: Rc::default(),
        };
        let sessions = match side {
            LinkSide::Pull => Sessions::Pull(Subscriptions::new(self.config.subscriptions_max)),
            LinkSide::Serve => {
                Sessions::Serve(LinkSubscribers::new(self.config.subscriptions_max, self.config.hops_max))
            }
        };
        let keepalive = Keepalive::new(self.config.keepalive_interval, self.config.dead_after, now);
        self.links.insert(link, Link { out: out.clone(), remote, sessions, keepalive, dirty: false });
        out
    }

    /// Forgets a link; its tasks end.
    pub fn remove(&mut self, link: LinkId) {
        if let Some(gone) = self.links.remove(&link) {
            gone.out.end.order("closed");
            let stats = gone.out.queue.borrow().stats();
            self.closed_sent += stats.sent_packets;
            self.closed_dropped += stats.dropped_packets;
        }
    }

    /// Lets every link write what it has, then close.
    pub fn close_all(&mut self) {
        for link in self.links.values() {
            link.out.queue.borrow_mut().finish();
            link.out.wake.notify_one();
        }
    }

    /// Wakes the writers that got something since the last call.
    pub fn wake(&mut self) {
        for link in self.links.values_mut().filter(|l| l.dirty) {
            link.dirty = false;
            link.out.wake.notify_one();
        }
    }

    /// Keepalives.
    pub fn tick(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            match link.keepalive.poll(now) {
                KeepaliveAction::None => {}
                KeepaliveAction::SendPing(nonce) => link.control(&Frame::Ping { nonce }),
                KeepaliveAction::Dead { silent_for } => {
                    let sentence = format!("{} has been silent for {silent_for:?}", link.remote);
                    link.out.end.order(&sentence);
                }
            }
        }
    }

    /// Something came over the link.
    pub fn heard(&mut self, now: Instant, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.keepalive.on_received(now);
        }
    }

    /// The other end asked whether we are there, or answered.
    pub fn ping_or_pong(&mut self, now: Instant, link: LinkId, frame: &Frame<'_>) {
        let Some(link) = self.links.get_mut(&link) else { return };
        match frame {
            Frame::Ping { nonce } => link.control(&Frame::Pong { nonce: *nonce }),
            Frame::Pong { nonce } => {
                link.keepalive.on_pong(*nonce, now);
            }
            _ => {}
        }
    }

    /// Adds this shard's links to a census.
    pub fn count(&self, census: &mut Census) {
        census.links = self.links.len();
        census.relay_packets_in = self.packets_in;
        census.relay_packets_out = self.closed_sent;
        census.relay_packets_dropped = self.closed_dropped;
        for link in self.links.values() {
            let stats = link.out.queue.borrow().stats();
            census.relay_packets_out += stats.sent_packets;
            census.relay_packets_dropped += stats.dropped_packets;
        }
    }

    /// Notes a media packet that came in.
    pub fn count_in(&mut self) {
        self.packets_in += 1;
    }

    // --- origin side: serving ----------------------------------------------------------------------------------------

    /// An edge asks for a stream. `None` if it was refused on the spot.
    pub fn asked(&mut self, link: LinkId, subscribe: ams_relay::wire::Subscribe) -> Option<(u32, StreamKey)> {
        let link = self.links.get_mut(&link)?;
        let Sessions::Serve(subscribers) = &mut link.sessions else {
            link.out.end.order("the origin asked for a stream on a link it serves");
            return None;
        };
        match subscribers.on_subscribe(subscribe) {
            Ok(admitted) => Some((admitted.handle.0, admitted.key)),
            Err(refusal) => {
                let frame = refusal.frame();
                push(&link.out, &frame);
                link.dirty = true;
                None
            }
        }
    }

    /// Tells an edge that it gets the stream. False if it does not want it any more.
    pub fn accept(&mut self, link: LinkId, handle: u32, epoch: Epoch, tracks: &StreamTracks) -> bool {
        let handle = StreamHandle(handle);
        let Some(link) = self.links.get_mut(&link) else { return false };
        let Sessions::Serve(subscribers) = &mut link.sessions else { return false };
        if !subscribers.activate(handle, epoch) || !link.out.queue.borrow_mut().open(handle) {
            return false;
        }
        link.control(&Frame::Subscribed(Subscribed { handle, epoch, tracks: tracks.clone() }));
        true
    }

    /// Answers a node that asked for a stream.
    pub fn answer_find(&mut self, link: LinkId, found: Found) {
        if let Some(link) = self.links.get_mut(&link) {
            link.control(&Frame::Found(found));
        }
    }

    /// Tells the origin how many watch a stream here.
    pub fn tell_audience(&mut self, link: LinkId, key: &StreamKey, viewers: u32) {
        let Some(link) = self.links.get_mut(&link) else { return };
        if let Sessions::Pull(subscriptions) = &link.sessions
            && let Some(handle) = subscriptions.handle(key)
        {
            link.control(&Frame::Audience { handle, viewers });
        }
    }

    /// Tells an edge that this node is to leave in that time, or stays.
    pub fn go_away(&mut self, link: LinkId, left: Option<Duration>) {
        if let Some(link) = self.links.get_mut(&link).filter(|link| matches!(link.sessions, Sessions::Serve(_))) {
            link.control(&Frame::GoAway { deadline: left.unwrap_or(GO_AWAY_WITHDRAWN) });
        }
    }

    /// The origin at the other end of a link that streams are pulled on.
    pub fn origin_of(&self, link: LinkId) -> Option<SocketAddr> {
        self.links.get(&link).filter(|link| matches!(link.sessions, Sessions::Pull(_))).map(|link| link.remote)
    }

    /// Tells an edge that it does not get the stream.
    pub fn refuse(&mut self, link: LinkId, handle: u32, sentence: &str) {
        let handle = StreamHandle(handle);
        let Some(link) = self.links.get_mut(&link) else { return };
        if let Sessions::Serve(subscribers) = &mut link.sessions {
            subscribers.remove(handle);
        }
        link.control(&Frame::Refused(Refused { handle, code: RefuseCode::NotFound, sentence }));
    }

    /// An edge lets a stream go. Returns which.
    pub fn unsubscribed(&mut self, link: LinkId, handle: StreamHandle) -> Option<StreamKey> {
        let link = self.links.get_mut(&link)?;
        let Sessions::Serve(subscribers) = &mut link.sessions else { return None };
        link.out.queue.borrow_mut().close(handle);
        subscribers.remove(handle)
    }

    /// Tells an edge that a stream is over.
    pub fn end(&mut self, link: LinkId, handle: u32, reason: EndReason) {
        let handle = StreamHandle(handle);
        let Some(link) = self.links.get_mut(&link) else { return };
        link.out.queue.borrow_mut().close(handle);
        if let Sessions::Serve(subscribers) = &mut link.sessions {
            subscribers.remove(handle);
        }
        link.control(&Frame::End { handle, reason });
    }

    /// Queues packets of a served stream. What is dropped is counted by the queue.
    pub fn push_media(&mut self, now: Instant, link: LinkId, handle: u32, epoch: Epoch, packets: &[Arc<MediaPacket>]) {
        let Some(link) = self.links.get_mut(&link) else { return };
        let mut queue = link.out.queue.borrow_mut();
        for packet in packets {
            queue.push_media(now, StreamHandle(handle), epoch, packet);
        }
        link.dirty = true;
    }

    /// Layers that need a keyframe because a queue dropped media, as (link, handle, track, layer).
    pub fn keyframe_wants(&mut self, mut ask: impl FnMut(&StreamKey, TrackNo, LayerNo)) {
        for link in self.links.values_mut() {
            let Sessions::Serve(subscribers) = &link.sessions else { continue };
            while let Some(want) = link.out.queue.borrow_mut().poll_keyframe_want() {
                if let Some(key) = subscribers.key(want.handle) {
                    ask(key, want.track, want.layer);
                }
            }
        }
    }

    /// Queues a sender report of a served stream.
    pub fn push_clock(
        &mut self,
        link: LinkId,
        handle: u32,
        epoch: Epoch,
        track: TrackNo,
        layer: LayerNo,
        clock: SourceClock,
    ) {
        let Some(link) = self.links.get_mut(&link) else { return };
        link.out.queue.borrow_mut().push_timing(StreamHandle(handle), epoch, track, layer, clock);
        link.dirty = true;
    }

    /// Queues a data channel message of a served stream.
    pub fn push_message(&mut self, link: LinkId, handle: u32, from: Option<&From>, binary: bool, data: &Bytes) {
        let from_node = from.map_or_else(|| self.node.clone(), |from| from.node.clone());
        let from_peer = from.map_or(0, |from| from.peer);
        let Some(link) = self.links.get_mut(&link) else { return };
        let message = DataMessage { handle: StreamHandle(handle), binary, from_node, from_peer, payload: data };
        // A message over the protocol's limit was over the data channel's as well.
        let _ = link.out.queue.borrow_mut().push_data(&message);
        link.dirty = true;
    }

    /// This node's name.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The stream behind a handle of a served link.
    pub fn served_key(&self, link: LinkId, handle: StreamHandle) -> Option<StreamKey> {
        match &self.links.get(&link)?.sessions {
            Sessions::Serve(subscribers) => subscribers.key(handle).cloned(),
            Sessions::Pull(_) => None,
        }
    }

    // --- edge side: pulling ------------------------------------------------------------------------------------------

    /// Asks the origin for a stream. False if the link is gone or full.
    pub fn subscribe(&mut self, link: LinkId, key: &StreamKey) -> bool {
        let Some(link) = self.links.get_mut(&link) else { return false };
        let Sessions::Pull(subscriptions) = &mut link.sessions else { return false };
        match subscriptions.subscribe(key, HOPS_DIRECT) {
            Ok(Some(subscribe)) => {
                link.control(&Frame::Subscribe(subscribe));
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Lets a stream go.
    pub fn unsubscribe(&mut self, link: LinkId, key: &StreamKey) {
        let Some(link) = self.links.get_mut(&link) else { return };
        if let Sessions::Pull(subscriptions) = &mut link.sessions
            && let Some(handle) = subscriptions.unsubscribe(key)
        {
            link.out.queue.borrow_mut().close(handle);
            link.control(&Frame::Unsubscribe { handle });
        }
    }

    /// Lets go of a stream on whatever link it was asked for.
    pub fn unsubscribe_all(&mut self, key: &StreamKey) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for link in ids {
            self.unsubscribe(link, key);
        }
    }

    /// The origin sends a stream, or changed it. Returns which.
    pub fn subscribed(&mut self, link: LinkId, subscribed: &Subscribed) -> Option<StreamKey> {
        let link = self.links.get_mut(&link)?;
        let Sessions::Pull(subscriptions) = &mut link.sessions else { return None };
        let key = subscriptions.on_subscribed(subscribed).cloned()?;
        // For what viewers say towards the publisher.
        link.out.queue.borrow_mut().open(subscribed.handle);
        Some(key)
    }

    /// The origin refuses a stream. Returns which.
    pub fn refused(&mut self, link: LinkId, refused: &Refused<'_>) -> Option<StreamKey> {
        match &mut self.links.get_mut(&link)?.sessions {
            Sessions::Pull(subscriptions) => {
                let key = subscriptions.on_refused(refused)?;
                subscriptions.unsubscribe(&key);
                Some(key)
            }
            Sessions::Serve(_) => None,
        }
    }

    /// The origin ended a stream. Returns which.
    pub fn ended(&mut self, link: LinkId, handle: StreamHandle, reason: EndReason) -> Option<StreamKey> {
        let link = self.links.get_mut(&link)?;
        let Sessions::Pull(subscriptions) = &mut link.sessions else { return None };
        link.out.queue.borrow_mut().close(handle);
        subscriptions.on_end(handle, reason)
    }

    /// The stream a handle of a pulled link means.
    pub fn pulled_key(&self, link: LinkId, handle: StreamHandle) -> Option<&StreamKey> {
        match &self.links.get(&link)?.sessions {
            Sessions::Pull(subscriptions) => subscriptions.key(handle),
            Sessions::Serve(_) => None,
        }
    }

    /// Asks the origin for a keyframe.
    pub fn push_keyframe_request(&mut self, link: LinkId, key: &StreamKey, track: TrackNo, layer: LayerNo) {
        let Some(link) = self.links.get_mut(&link) else { return };
        if let Sessions::Pull(subscriptions) = &link.sessions
            && let Some(handle) = subscriptions.handle(key)
        {
            link.control(&Frame::KeyframeRequest { handle, track, layer });
        }
    }
}

impl Link {
    fn control(&mut self, frame: &Frame<'_>) {
        push(&self.out, frame);
        self.dirty = true;
    }
}

fn push(out: &LinkOut, frame: &Frame<'_>) {
    if let Err(error) = out.queue.borrow_mut().push_control(frame) {
        out.end.order(&error.to_string());
    }
}
