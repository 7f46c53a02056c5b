//! Everything one media thread owns, as one synchronous value.
//!
//! Owns peers, streams, relay links' queues and the batch of outgoing datagrams. Never awaits, locks, or reads a clock:
//! the shell in [`super`] calls it with datagrams, commands, frames and ticks, and tells it the time. Each call leaves
//! what it took in `pending` lists; [`ShardCore::flush`] hands them on.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ams_media::{MediaPacket, SourceClock};
use ams_relay::wire::EndReason;
use ams_rtc::dtls::DtlsIdentity;
use ams_rtc::ice::{DatagramKind, classify, peek_ufrag};
use ams_rtc::publisher::{Publisher, PublisherEvent, PublisherSetup};
use ams_rtc::transport::{CloseReason, Transmit};
use ams_rtc::tx::TxBatch;
use ams_rtc::viewer::{Feedback, Viewer, ViewerEvent, ViewerSetup};
use ams_types::{Epoch, LayerNo, MediaKind, StreamKey, TrackNo};
use slab::Slab;
use tokio::sync::mpsc;

use super::fan_out::Holding;
use super::links::Links;
use super::messages::{Distribution, Talk};
use super::protocol::{Census, PeerId, PullEnd, REPORT_INTERVAL, ShardCommand, ShardEvent, ShardMedia, ViewerSteer};
use super::punctuality::Punctuality;
use super::sinks::{Intake, Socket};
use super::stream::{Source, Stream};
use super::viewers::Reported;

pub(super) enum Role {
    Publisher(Box<Publisher>),
    Viewer(Box<Viewer>),
}

pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) stream: usize,
    ufrags: Vec<Box<str>>,
    addresses: Vec<(SocketAddr, IpAddr)>,
    /// It is in the shard's list of viewers that catch up.
    pub(super) catches_up: bool,
    /// How long its first picture took has been counted.
    picture_counted: bool,
    /// What it may still say on its data channel.
    pub(super) talk: Talk,
    /// Its last report, if its rates are to be reported.
    pub(super) report: Option<Reported>,
    pub(super) role: Role,
}

/// Addresses one peer's datagrams may come from at one time, more than it can have validated.
const ADDRESSES_MAX: usize = 2 * ams_rtc::ice::PATHS_MAX;

/// Everything one media thread owns. Not `Send` in spirit: what is never shared needs no lock.
pub struct ShardCore {
    identity: Arc<DtlsIdentity>,
    pub(super) peers: Slab<Peer>,
    pub(super) by_id: HashMap<PeerId, usize>,
    by_ufrag: HashMap<Box<str>, usize>,
    by_address: HashMap<(SocketAddr, IpAddr), usize>,
    pub(super) streams: Slab<Stream>,
    pub(super) by_key: HashMap<StreamKey, usize>,
    pub(super) links: Links,
    /// Streams with packets of this turn.
    pub(super) dirty: Vec<usize>,
    /// Streams with packets their viewers did not get yet.
    pub(super) holding: Vec<usize>,
    /// Who gets what viewers say on their data channels.
    pub(super) distribution: Distribution,
    /// How long packets are held for viewers.
    pub(super) pace: Holding,
    /// Viewers that are fed from rings because they began with packets of the past.
    pub(super) behind: Vec<usize>,
    pub(super) tx: TxBatch,
    pub(super) socket: Rc<dyn Socket>,
    pub(super) siblings: Vec<Option<mpsc::Sender<ShardMedia>>>,
    pub(super) events: mpsc::Sender<ShardEvent>,
    pub(super) backlog: VecDeque<ShardEvent>,
    pub(super) feedback: Vec<Feedback>,
    pub(super) scratch: Vec<usize>,
    /// How often viewers get their packets late.
    pub(super) punctuality: Arc<Punctuality>,
    tick_no: u64,
    reported_at: Option<Instant>,
    pub(super) counts: Census,
}

impl ShardCore {
    /// An empty shard.
    ///
    /// `siblings` are the media rings of the node's shards by number, none for this one.
    pub fn new(
        identity: Arc<DtlsIdentity>,
        socket: Rc<dyn Socket>,
        siblings: Vec<Option<mpsc::Sender<ShardMedia>>>,
        events: mpsc::Sender<ShardEvent>,
        links: Links,
    ) -> Self {
        let tx = TxBatch::new(socket.segments_max());
        Self {
            identity,
            peers: Slab::new(),
            by_id: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            streams: Slab::new(),
            by_key: HashMap::new(),
            links,
            dirty: Vec::new(),
            holding: Vec::new(),
            distribution: Distribution::default(),
            pace: Holding::default(),
            behind: Vec::new(),
            tx,
            socket,
            siblings,
            events,
            backlog: VecDeque::new(),
            feedback: Vec::new(),
            scratch: Vec::new(),
            punctuality: Arc::default(),
            tick_no: 0,
            reported_at: None,
            counts: Census::default(),
        }
    }

    /// Sets who gets what viewers say on their data channels.
    pub fn set_distribution(&mut self, distribution: Distribution) {
        self.distribution = distribution;
    }

    // --- datagrams ---------------------------------------------------------------------------------------------------

    /// One datagram as it came. `data` is opened in place.
    pub fn datagram(&mut self, now: Instant, from: SocketAddr, local_ip: IpAddr, data: &mut [u8]) {
        let path = (from, local_ip);
        let index = match classify(data) {
            // A check names its session; the same address may start a new one.
            DatagramKind::Stun => peek_ufrag(data).and_then(|ufrag| self.by_ufrag.get(ufrag).copied()),
            DatagramKind::Unknown => None,
            _ => self.by_address.get(&path).copied(),
        };
        let Some(index) = index else {
            self.counts.unknown_datagrams += 1;
            return;
        };
        let Some(peer) = self.peers.get_mut(index) else { return };
        let stream = peer.stream;
        match &mut peer.role {
            Role::Publisher(publisher) => {
                let Some(s) = self.streams.get_mut(stream) else { return };
                let had_pending = !s.pending.is_empty();
                let mut clocks = Vec::new();
                let mut messages = Vec::new();
                let mut keyframes = Vec::new();
                let mut intake =
                    Intake { now, stream: s, clocks: &mut clocks, messages: &mut messages, keyframes: &mut keyframes };
                publisher.handle_datagram(now, from, local_ip, data, &mut intake);
                if !had_pending && !s.pending.is_empty() {
                    self.dirty.push(stream);
                }
                for (track, layer, clock) in clocks {
                    self.take_clock(stream, track, layer, clock);
                }
                for (binary, data) in messages {
                    self.publisher_message(now, stream, binary, data);
                }
                for (track, layer) in keyframes {
                    self.request_keyframe(now, stream, track, layer);
                }
            }
            Role::Viewer(viewer) => {
                self.feedback.clear();
                viewer.handle_datagram(now, from, local_ip, data, &mut self.feedback);
                let is_over = viewer.is_over_budget();
                if !self.feedback.is_empty() {
                    self.answer_feedback(now, index);
                }
                if is_over {
                    self.choose_layers(now, index);
                    self.ask_keyframes_of(now, index);
                }
            }
        }
        self.after(now, index, Some(path));
    }

    /// Notes that datagrams of this path are the peer's.
    fn map_address(&mut self, index: usize, path: (SocketAddr, IpAddr)) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.addresses.len() >= ADDRESSES_MAX {
            // It moves a lot. What it does not use any more goes first, then what it used first.
            let before = std::mem::take(&mut peer.addresses);
            let mut kept: Vec<_> = before.iter().copied().filter(|(from, _)| peer.role.is_validated(*from)).collect();
            if kept.len() >= ADDRESSES_MAX {
                kept.remove(0);
            }
            for gone in before.iter().filter(|a| !kept.contains(a)) {
                if self.by_address.get(gone) == Some(&index) {
                    self.by_address.remove(gone);
                }
            }
            peer.addresses = kept;
        }
        peer.addresses.push(path);
        if let Some(old) = self.by_address.insert(path, index)
            && old != index
            && let Some(old) = self.peers.get_mut(old)
        {
            old.addresses.retain(|a| *a != path);
        }
    }

    /// Sends what a peer has to send and hears what it has to say. `path` is the one a datagram just came on.
    pub(super) fn after(&mut self, now: Instant, index: usize, path: Option<(SocketAddr, IpAddr)>) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Some(path) = path
            && !peer.addresses.contains(&path)
            && peer.role.is_validated(path.0)
        {
            self.map_address(index, path);
        }
        let mut closed = None;
        let mut connected = false;
        let mut live = false;
        let mut messages = Vec::new();
        let Some(peer) = self.peers.get_mut(index) else { return };
        match &mut peer.role {
            Role::Publisher(publisher) => {
                while let Some(transmit) = publisher.poll_transmit() {
                    send(&*self.socket, &mut self.counts, &transmit);
                }
                while let Some(event) = publisher.poll_event() {
                    match event {
                        PublisherEvent::Connected => {
                            live = self.streams.get_mut(peer.stream).is_some_and(Stream::connected);
                        }
                        PublisherEvent::Closed(reason) => closed = Some(reason),
                    }
                }
            }
            Role::Viewer(viewer) => {
                while let Some(transmit) = viewer.poll_transmit() {
                    send(&*self.socket, &mut self.counts, &transmit);
                }
                while let Some(event) = viewer.poll_event() {
                    match event {
                        ViewerEvent::Connected => {
                            connected = true;
                            self.counts.join_connected.record(viewer.stages().connected.unwrap_or_default());
                        }
                        ViewerEvent::Message { binary, data } => messages.push((binary, data)),
                        ViewerEvent::Closed(reason) => closed = Some(reason),
                    }
                }
            }
        }
        let (id, stream) = (peer.id, peer.stream);
        if live {
            self.emit(ShardEvent::PublisherLive { peer: id, layers: Vec::new() });
        }
        if connected {
            self.emit(ShardEvent::ViewerConnected { peer: id });
            self.ask_keyframes_of(now, index);
        }
        for (binary, data) in messages {
            self.viewer_message(now, index, stream, binary, data);
        }
        if let Some(reason) = closed {
            self.remove_peer(index);
            self.emit(ShardEvent::PeerClosed { peer: id, reason });
        }
    }

    // --- media -------------------------------------------------------------------------------------------------------

    /// Takes packets from a relay link or another shard.
    pub(super) fn ingest(&mut self, now: Instant, index: usize, packet: Arc<MediaPacket>) {
        if let Some(stream) = self.streams.get_mut(index) {
            let had_pending = !stream.pending.is_empty();
            if stream.take(now, packet) && !had_pending {
                self.dirty.push(index);
            }
        }
    }

    pub(super) fn take_clock(&mut self, index: usize, track: TrackNo, layer: LayerNo, clock: SourceClock) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        let Some(l) = stream.layer_mut(track, layer) else { return };
        l.clock = Some(clock);
        for &(link, handle) in &stream.links {
            self.links.push_clock(link, handle, stream.epoch, track, layer, clock);
        }
        for to in &stream.replicas {
            if let Some(Some(ring)) = self.siblings.get(usize::from(to.0)) {
                let _ = ring.try_send(ShardMedia::Clock {
                    key: stream.key.clone(),
                    epoch: stream.epoch,
                    track,
                    layer,
                    clock,
                });
            }
        }
    }

    // --- keyframes ---------------------------------------------------------------------------------------------------

    /// Someone needs a keyframe. At most one request per layer and window goes on towards the publisher.
    pub(super) fn request_keyframe(&mut self, now: Instant, index: usize, track: TrackNo, layer: LayerNo) {
        let send = self
            .streams
            .get_mut(index)
            .and_then(|s| s.layer_mut(track, layer))
            .is_some_and(|l| l.throttle.request(now));
        if send {
            self.send_keyframe_request(now, index, track, layer);
        }
    }

    fn send_keyframe_request(&mut self, now: Instant, index: usize, track: TrackNo, layer: LayerNo) {
        let Some(stream) = self.streams.get(index) else { return };
        match stream.source {
            Source::Publisher(id) => {
                if let Some(&at) = self.by_id.get(&id)
                    && let Some(Peer { role: Role::Publisher(publisher), .. }) = self.peers.get_mut(at)
                {
                    publisher.request_keyframe(track, layer);
                    self.counts.keyframe_requests += 1;
                    self.after(now, at, None);
                }
            }
            Source::Link(link, _) => self.links.push_keyframe_request(link, &stream.key, track, layer),
            Source::Lost => {}
            Source::Shard(home) => {
                if let Some(Some(ring)) = self.siblings.get(usize::from(home.0)) {
                    let _ = ring.try_send(ShardMedia::KeyframeRequest { key: stream.key.clone(), track, layer });
                }
            }
        }
    }

    // --- time --------------------------------------------------------------------------------------------------------

    /// To be called after every [`PUMPS_PER_TICK`]th [`Self::pump`]: timers of peers and streams, reports, keepalives.
    pub fn tick(&mut self, now: Instant) {
        self.tick_no += 1;
        for index in 0..self.peers.capacity() {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            match &mut peer.role {
                Role::Publisher(publisher) => publisher.handle_timeout(now),
                Role::Viewer(viewer) => {
                    // Viewers have no timer that is finer than this; a fifth of them per tick spreads the work.
                    if !(self.tick_no + index as u64).is_multiple_of(VIEWER_TICKS) {
                        continue;
                    }
                    if !peer.picture_counted
                        && let Some(took) = viewer.stages().first_picture
                    {
                        peer.picture_counted = true;
                        self.counts.join_picture.record(took);
                    }
                    let Some(stream) = self.streams.get(peer.stream) else { continue };
                    viewer.handle_timeout(now, |track, layer| stream.layer(track, layer)?.clock);
                }
            }
            self.after(now, index, None);
            if (self.tick_no + index as u64).is_multiple_of(VIEWER_TICKS) {
                self.choose_layers(now, index);
                self.ask_keyframes_of(now, index);
                self.report_viewer(now, index);
            }
        }
        let report = self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
        if report {
            self.reported_at = Some(now);
        }
        for index in 0..self.streams.capacity() {
            let Some(stream) = self.streams.get_mut(index) else { continue };
            let mut due = Vec::new();
            for layer in stream.layers_mut() {
                if layer.throttle.poll(now) {
                    due.push((layer.track, layer.no));
                }
            }
            if report && matches!(stream.source, Source::Publisher(_) | Source::Link(..)) {
                let event = ShardEvent::StreamReport { key: stream.key.clone(), layers: stream.report(now) };
                // Statistics may be dropped.
                let _ = self.events.try_send(event);
            }
            let without_beginning: Vec<_> = stream.layers_without_beginning().collect();
            for (track, layer) in due {
                self.send_keyframe_request(now, index, track, layer);
            }
            for (track, layer) in without_beginning {
                self.request_keyframe(now, index, track, layer);
            }
        }
        let mut wants = Vec::new();
        self.links.keyframe_wants(|key, track, layer| wants.push((key.clone(), track, layer)));
        for (key, track, layer) in wants {
            if let Some(&index) = self.by_key.get(&key) {
                self.request_keyframe(now, index, track, layer);
            }
        }
        self.links.tick(now);
        self.flush(now);
    }

    // --- commands ----------------------------------------------------------------------------------------------------

    /// One command of the control runtime. Links are added by the shell, which owns their tasks.
    pub fn command(&mut self, now: Instant, command: ShardCommand) {
        match command {
            ShardCommand::AddPublisher { peer, key, epoch, setup } => self.add_publisher(now, peer, key, epoch, *setup),
            ShardCommand::AddViewer { peer, key, setup, reported, ready } => {
                self.add_viewer(now, peer, &key, *setup, reported);
                if let Some(ready) = ready {
                    let _ = ready.send(());
                }
            }
            ShardCommand::SteerViewer { peer, steer } => {
                if let Some(&index) = self.by_id.get(&peer)
                    && let Some(Peer { role: Role::Viewer(viewer), .. }) = self.peers.get_mut(index)
                {
                    match steer {
                        ViewerSteer::Height(height) => viewer.want_height(height),
                        ViewerSteer::Switch { kind, on } => viewer.switch(kind, on),
                    }
                    self.choose_layers(now, index);
                    self.ask_keyframes_of(now, index);
                }
            }
            ShardCommand::SetViewerAnswer { peer, answer } => {
                if let Some(&index) = self.by_id.get(&peer)
                    && let Some(Peer { role: Role::Viewer(viewer), .. }) = self.peers.get_mut(index)
                {
                    viewer.set_remote(now, *answer);
                    self.after(now, index, None);
                }
            }
            ShardCommand::RestartIce { peer, local, remote } => {
                if let Some(&index) = self.by_id.get(&peer)
                    && let Some(p) = self.peers.get_mut(index)
                {
                    match &mut p.role {
                        Role::Publisher(publisher) => publisher.restart_ice(local, &remote),
                        Role::Viewer(viewer) => viewer.restart_ice(local, &remote),
                    }
                    // The transport knows which of the former ones the other end may still use.
                    let ufrags = p.role.local_ufrags();
                    for gone in p.ufrags.iter().filter(|u| !ufrags.contains(u)) {
                        self.by_ufrag.remove(gone);
                    }
                    self.by_ufrag.extend(ufrags.iter().map(|ufrag| (ufrag.clone(), index)));
                    p.ufrags = ufrags;
                }
            }
            ShardCommand::ClosePeer { peer } => {
                if let Some(&index) = self.by_id.get(&peer) {
                    self.close_peer(now, index);
                }
            }
            ShardCommand::Pull { link, key } => {
                if !self.links.subscribe(link, &key) {
                    let sentence = "the link to the origin is gone".to_owned();
                    self.emit(ShardEvent::PullEnded { link, key, end: PullEnd::Way, sentence });
                }
            }
            ShardCommand::Serve { link, handle, key } => self.serve(now, link, handle, &key),
            ShardCommand::RefuseServe { link, handle, sentence } => self.links.refuse(link, handle, &sentence),
            ShardCommand::AnswerFind { link, found } => self.links.answer_find(link, found),
            ShardCommand::GoAway { link, left } => self.links.go_away(link, left),
            ShardCommand::TellAudience { link, key, viewers } => self.links.tell_audience(link, &key, viewers),
            ShardCommand::AddReplica { key, home, epoch, tracks } => self.add_replica(now, key, home, epoch, tracks),
            ShardCommand::FeedReplica { key, to } => self.feed_replica(&key, to),
            ShardCommand::StopReplica { key, to } => self.stop_replica(&key, to),
            ShardCommand::Interrupt { key, reason } => {
                // Also what was asked for and not answered yet: a late answer must not bring it back.
                self.links.unsubscribe_all(&key);
                if let Some(&index) = self.by_key.get(&key) {
                    self.lose_source(now, index, reason);
                }
            }
            ShardCommand::CloseStream { key, reason } => {
                self.links.unsubscribe_all(&key);
                if let Some(&index) = self.by_key.get(&key) {
                    self.close_stream(now, index, reason);
                }
            }
            ShardCommand::Say { key, text } => self.say(now, &key, &text),
            ShardCommand::Census(reply) => {
                let _ = reply.send(self.census());
            }
            // The shell's.
            ShardCommand::AddLink(_) | ShardCommand::Stop(_) => {}
        }
    }

    fn add_peer(&mut self, id: PeerId, stream: usize, ufrag: Box<str>, role: Role) -> usize {
        let index = self.peers.insert(Peer {
            id,
            stream,
            ufrags: vec![ufrag.clone()],
            addresses: Vec::new(),
            catches_up: false,
            picture_counted: false,
            talk: Talk::default(),
            report: None,
            role,
        });
        self.by_id.insert(id, index);
        self.by_ufrag.insert(ufrag, index);
        index
    }

    fn add_publisher(&mut self, now: Instant, id: PeerId, key: StreamKey, epoch: Epoch, setup: PublisherSetup) {
        let tracks = Arc::new(setup.stream_tracks());
        let stream = self.put_stream(now, Stream::new(now, key, epoch, tracks, Source::Publisher(id)));
        let ufrag = setup.transport.local.ufrag().into();
        let publisher = Publisher::new(now, &self.identity, setup);
        let index = self.add_peer(id, stream, ufrag, Role::Publisher(Box::new(publisher)));
        self.after(now, index, None);
    }

    fn add_viewer(&mut self, now: Instant, id: PeerId, key: &StreamKey, setup: ViewerSetup, reported: bool) {
        let Some(&stream) = self.by_key.get(key) else {
            self.emit(ShardEvent::PeerClosed { peer: id, reason: CloseReason::ClosedHere });
            return;
        };
        let ufrag = setup.transport.local.ufrag().into();
        let mut viewer = Viewer::new(now, &self.identity, setup);
        if let Some(stream) = self.streams.get(stream) {
            viewer.choose(now, |track, offers| stream.offers(now, track, offers));
        }
        let index = self.add_peer(id, stream, ufrag, Role::Viewer(Box::new(viewer)));
        if reported && let Some(peer) = self.peers.get_mut(index) {
            peer.report = Some(Reported { at: now, bytes: (0, 0), height: 0 });
        }
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.viewers.push(index);
        }
        self.after(now, index, None);
    }

    fn serve(&mut self, now: Instant, link: super::protocol::LinkId, handle: u32, key: &StreamKey) {
        let Some(&index) = self.by_key.get(key) else {
            self.links.refuse(link, handle, "the stream has just ended");
            return;
        };
        let Some(stream) = self.streams.get_mut(index) else { return };
        if self.links.accept(link, handle, stream.epoch, &stream.tracks) {
            stream.links.retain(|(l, _)| *l != link);
            stream.links.push((link, handle));
            for layer in stream.layers() {
                if let Some(clock) = layer.clock {
                    self.links.push_clock(link, handle, stream.epoch, layer.track, layer.no, clock);
                }
                if layer.codec.kind() == MediaKind::Video
                    && let Some(run) = layer.ring.run_since_keyframe()
                {
                    // Stamped anew, or the queue would take it for media that has waited here all the time.
                    let anew = |p: &Arc<MediaPacket>| {
                        Arc::new(MediaPacket { ingest_at: now, age: p.age_at(now), ..MediaPacket::clone(p) })
                    };
                    let run: Vec<_> = run.map(anew).collect();
                    self.links.push_media(now, link, handle, stream.epoch, &run);
                }
            }
        }
    }

    /// An edge let go of a stream.
    pub(super) fn unserve(&mut self, link: super::protocol::LinkId, key: &StreamKey) {
        if let Some(&index) = self.by_key.get(key)
            && let Some(stream) = self.streams.get_mut(index)
        {
            stream.links.retain(|(l, _)| *l != link);
        }
    }

    // --- endings -----------------------------------------------------------------------------------------------------

    pub(super) fn close_peer(&mut self, now: Instant, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        match &mut peer.role {
            Role::Publisher(publisher) => {
                publisher.close(now);
                while let Some(transmit) = publisher.poll_transmit() {
                    send(&*self.socket, &mut self.counts, &transmit);
                }
            }
            Role::Viewer(viewer) => {
                viewer.close(now);
                while let Some(transmit) = viewer.poll_transmit() {
                    send(&*self.socket, &mut self.counts, &transmit);
                }
            }
        }
        self.remove_peer(index);
    }

    pub(super) fn remove_peer(&mut self, index: usize) {
        let Some(peer) = self.peers.try_remove(index) else { return };
        self.by_id.remove(&peer.id);
        for ufrag in &peer.ufrags {
            if self.by_ufrag.get(ufrag) == Some(&index) {
                self.by_ufrag.remove(ufrag);
            }
        }
        for address in &peer.addresses {
            if self.by_address.get(address) == Some(&index) {
                self.by_address.remove(address);
            }
        }
        if let Some(stream) = self.streams.get_mut(peer.stream) {
            stream.viewers.retain(|v| *v != index);
        }
        let refused = match &peer.role {
            Role::Publisher(publisher) => publisher.refused(),
            Role::Viewer(viewer) => viewer.refused(),
        };
        self.counts.refused_datagrams += refused;
    }

    /// Tells every peer and link that the node stops.
    pub fn stop(&mut self, now: Instant) {
        let streams: Vec<usize> = self.streams.iter().map(|(i, _)| i).collect();
        for stream in streams {
            self.close_stream(now, stream, EndReason::Draining);
        }
        let peers: Vec<usize> = self.peers.iter().map(|(i, _)| i).collect();
        for peer in peers {
            self.close_peer(now, peer);
        }
        self.links.close_all();
    }

    // --- events ------------------------------------------------------------------------------------------------------

    /// Tells the control runtime; what does not fit is offered again at the next flush.
    pub(super) fn emit(&mut self, event: ShardEvent) {
        self.backlog.push_back(event);
        self.offer_backlog();
    }

    pub(super) fn offer_backlog(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(error) = self.events.try_send(event) {
                if let mpsc::error::TrySendError::Full(event) = error {
                    self.backlog.push_front(event);
                }
                break;
            }
        }
    }

    /// Events that did not fit into the control runtime's queue yet.
    pub(super) fn events_waiting(&self) -> usize {
        self.backlog.len()
    }

    /// What this shard holds.
    pub fn census(&self) -> Census {
        let mut census = self.counts.clone();
        for (_, peer) in &self.peers {
            match &peer.role {
                Role::Publisher(publisher) => {
                    census.publishers += 1;
                    census.refused_datagrams += publisher.refused();
                }
                Role::Viewer(viewer) => {
                    census.viewers += 1;
                    census.refused_datagrams += viewer.refused();
                    for track in viewer.stats().tracks {
                        census.nacks += track.nacks;
                        census.keyframes_wanted += track.keyframe_requests;
                    }
                }
            }
        }
        census.streams = self.streams.len();
        census.served = self.streams.iter().map(|(_, s)| s.links.len()).sum();
        census.addresses = self.by_address.len();
        census.events_waiting = self.backlog.len();
        self.links.count(&mut census);
        census
    }
}

/// One in so many of these calls is followed by [`ShardCore::tick`]: every 20 ms.
pub const PUMPS_PER_TICK: u32 = 4;
/// A viewer's timers run every so many ticks.
const VIEWER_TICKS: u64 = 5;

fn send(socket: &dyn Socket, counts: &mut Census, transmit: &Transmit) {
    if !socket.send(transmit.to, transmit.from_ip, &transmit.data, None) {
        counts.send_blocked += 1;
    }
}

impl Role {
    fn local_ufrags(&self) -> Vec<Box<str>> {
        match self {
            Role::Publisher(publisher) => publisher.local_ufrags().map(Into::into).collect(),
            Role::Viewer(viewer) => viewer.local_ufrags().map(Into::into).collect(),
        }
    }

    fn is_validated(&self, remote: SocketAddr) -> bool {
        match self {
            Role::Publisher(publisher) => publisher.is_validated(remote),
            Role::Viewer(viewer) => viewer.is_validated(remote),
        }
    }
}
