//! A stream going out to viewers: find it, pull it if it is elsewhere, attach.
//!
//! Owns the order of a viewer's steps and the life of pulls: any number of viewers share one, and it is let go shortly
//! after the last has left. Negative answers are never remembered.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ams_api::port::{
    Answer, Door, EndReason, Media, Offer, Opened, PlayRequest, Rates, Refusal, SessionEvent, SessionId, Steer,
};
use ams_media::StreamTracks;
use ams_rtc::sdp::{Msid, PlayTrack, RemoteSdp, answer_play, offer_play, parse_play_answer};
use ams_rtc::viewer::{EgressTrack, ViewerSetup};
use ams_types::{Epoch, MediaKind, Ssrc, StreamKey};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::directory::{LocalStream, Origin, PullState, Role, Session};
use super::publish::bad_description;
use super::{NodeCore, new_session_id, now_ms};
use crate::shard::protocol::{PeerId, ShardCommand, ShardNo, ViewerRates, ViewerSteer};

/// Longest a viewer waits for its stream to be found and pulled. The SDK asks again after 3 s.
const ATTACH_TIMEOUT: Duration = Duration::from_millis(2000);
/// Longest a viewer waits for the registry: it leaves time to say that it was the registry.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1000);
/// Longest a description is held back for the shard to take its viewer in.
const READY_TIMEOUT: Duration = Duration::from_millis(200);
/// Events of one session that wait: started and ended, and what may be left out.
const EVENTS_MAX: usize = 8;

/// A stream as a viewer needs it.
struct Attached {
    epoch: Epoch,
    tracks: Arc<StreamTracks>,
    home: ShardNo,
}

/// A place on a shard for a viewer who is on the way; given back when dropped, by when the session counts itself.
struct Seat {
    node: Arc<NodeCore>,
    shard: ShardNo,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.node.directory().leave_seat(self.shard);
    }
}

impl NodeCore {
    /// Opens a viewer's session with an offer of ours.
    pub(super) async fn open_viewer(self: &Arc<Self>, request: PlayRequest) -> Result<Opened<Offer>, Refusal> {
        // First: a full node pulls nothing.
        let seat = self.take_seat()?;
        let stream = self.attach(&request.key).await?;
        let shard = seat.shard;
        let (mut local, mut transport) = self.local_description(shard);
        local.data_channel = request.data_channel;
        transport.data_channel = request.data_channel;
        let tracks = play_tracks(&request.key, &stream.tracks);
        let offer = offer_play(&local, &tracks).map_err(bad_description)?;
        let setup = ViewerSetup {
            transport,
            remote: None,
            tracks: offer.tracks.iter().map(EgressTrack::from).collect(),
            channel_label: request.data_channel.then(|| request.key.id.to_string()),
            playout_delay: self.config.media.playout_delay.bytes(),
        };
        let id_mapping = offer.id_mapping.iter().map(|(mid, id)| (mid.to_string(), id.clone())).collect();
        let value = Offer { sdp: offer.sdp.clone(), id_mapping };
        let etag = setup.transport.local.ufrag().to_owned();
        let role = Role::Viewer { offer: Some(Box::new(offer)) };
        let (session, events) = self.add_viewer(&request, shard, stream, role, etag, setup).await?;
        Ok(Opened { session, value, events })
    }

    /// Opens a viewer's session from its own offer.
    pub(super) async fn open_viewer_with_offer(
        self: &Arc<Self>,
        request: PlayRequest,
        sdp: &str,
    ) -> Result<Opened<Answer>, Refusal> {
        let offer = RemoteSdp::parse(sdp).map_err(bad_description)?;
        // First: a full node pulls nothing.
        let seat = self.take_seat()?;
        let stream = self.attach(&request.key).await?;
        let shard = seat.shard;
        let (local, mut transport) = self.local_description(shard);
        let tracks = play_tracks(&request.key, &stream.tracks);
        let answer = answer_play(&offer, &tracks, &local).map_err(bad_description)?;
        transport.role = Some(answer.agreed.remote.role);
        transport.data_channel = answer.agreed.data.is_some();
        let setup = ViewerSetup {
            channel_label: transport.data_channel.then(|| request.key.id.to_string()),
            transport,
            remote: Some(answer.agreed.remote),
            tracks: answer.agreed.tracks.iter().map(EgressTrack::from).collect(),
            playout_delay: self.config.media.playout_delay.bytes(),
        };
        let etag = setup.transport.local.ufrag().to_owned();
        let value = Answer { sdp: answer.sdp, etag: etag.clone() };
        let role = Role::Viewer { offer: None };
        let (session, events) = self.add_viewer(&request, shard, stream, role, etag, setup).await?;
        Ok(Opened { session, value, events })
    }

    /// Chooses the shard of the next viewer and keeps its seat, so that those who come meanwhile are spread as well.
    fn take_seat(self: &Arc<Self>) -> Result<Seat, Refusal> {
        let shard = self.directory().take_seat(|shard| self.has_room_for_viewer(shard));
        let shard = shard.ok_or_else(|| self.full("viewers"))?;
        Ok(Seat { node: Arc::clone(self), shard })
    }

    async fn add_viewer(
        &self,
        request: &PlayRequest,
        shard: ShardNo,
        stream: Attached,
        role: Role,
        etag: String,
        setup: ViewerSetup,
    ) -> Result<(SessionId, mpsc::Receiver<ams_api::port::SessionEvent>), Refusal> {
        let key = request.key.clone();
        let session = new_session_id();
        let peer = self.next_peer();
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let order = self.in_order().await;
        let replica = {
            let mut directory = self.directory();
            if self.is_draining() {
                return Err(self.busy("it is about to stop"));
            }
            let Some(local) = directory.streams.get_mut(&key).filter(|s| s.epoch == stream.epoch) else {
                return Err(Refusal::NotLive(key.id));
            };
            local.viewers.insert(session.clone());
            local.idle_since = None;
            let replica = shard != local.home && local.replicas.insert(shard);
            let entry = Session {
                peer,
                key: key.clone(),
                shard: None,
                role,
                events,
                etag,
                door: request.caller.door,
                candidates: 0,
                started: false,
            };
            directory.sessions.insert(session.clone(), entry);
            directory.peers.insert(peer, session.clone());
            directory.place(&session, shard);
            replica
        };
        if replica {
            self.add_replica(&key, shard, &stream).await;
        }
        debug!(stream_id = %key, session = %session.0, door = ?request.caller.door, "viewer accepted");
        let reported = request.caller.door == Door::WebSocket;
        let (tell, ready) = oneshot::channel();
        let setup = Box::new(setup);
        self.command(shard, ShardCommand::AddViewer { peer, key, setup, reported, ready: Some(tell) }).await;
        drop(order);
        // A viewer's first check must find its place: one that comes too early costs it a tenth of a second.
        let _ = tokio::time::timeout(READY_TIMEOUT, ready).await;
        Ok((session, receiver))
    }

    async fn add_replica(&self, key: &StreamKey, to: ShardNo, stream: &Attached) {
        let (key_there, tracks) = (key.clone(), Arc::clone(&stream.tracks));
        let add = ShardCommand::AddReplica { key: key_there, home: stream.home, epoch: stream.epoch, tracks };
        self.command(to, add).await;
        self.command(stream.home, ShardCommand::FeedReplica { key: key.clone(), to }).await;
    }

    /// Makes sure that a shard holds the stream, as its home or as a replica. In order.
    pub(super) async fn ensure_on_shard(&self, key: &StreamKey, shard: ShardNo) -> bool {
        let stream = {
            let mut directory = self.directory();
            let Some(local) = directory.streams.get_mut(key).filter(|s| s.is_playable()) else { return false };
            if shard == local.home || !local.replicas.insert(shard) {
                return true;
            }
            Attached { epoch: local.epoch, tracks: Arc::clone(&local.tracks), home: local.home }
        };
        self.add_replica(key, shard, &stream).await;
        true
    }

    /// Hands a viewer's wish to its shard.
    pub(super) async fn steer(&self, session: &SessionId, steer: Steer) {
        let found = self.directory().sessions.get(session).map(|s| (s.peer, s.shard, s.key.id.clone()));
        let Some((peer, Some(shard), id)) = found else { return };
        let steer = match steer {
            Steer::Quality { height } => ViewerSteer::Height(height),
            Steer::Switch { media: Media::Video, on } => ViewerSteer::Switch { kind: Some(MediaKind::Video), on },
            Steer::Switch { media: Media::Audio, on } => ViewerSteer::Switch { kind: Some(MediaKind::Audio), on },
            // Every track of a stream goes by the stream's id; see `play_tracks`.
            Steer::Switch { media: Media::Track(track), on } if track == id.as_str() => {
                ViewerSteer::Switch { kind: None, on }
            }
            Steer::Switch { .. } => return,
        };
        self.command(shard, ShardCommand::SteerViewer { peer, steer }).await;
    }

    /// A viewer's rates, for its client.
    pub(super) fn viewer_report(&self, peer: PeerId, rates: ViewerRates, resized: Option<u32>) {
        let directory = self.directory();
        let Some(session) = directory.peers.get(&peer).and_then(|id| directory.sessions.get(id)) else { return };
        if let Some(height) = resized {
            session.mention(SessionEvent::Resized(height));
        }
        let ViewerRates { target, video, audio } = rates;
        session.mention(SessionEvent::Measured(Rates { target: target.0, video: video.0, audio: audio.0 }));
    }

    /// Hands a viewer's answer to its shard.
    pub(super) async fn viewer_answer(&self, session: &SessionId, sdp: &str) -> Result<(), Refusal> {
        let (peer, shard, ours) = {
            let mut directory = self.directory();
            let entry = directory.sessions.get_mut(session).ok_or(Refusal::NoSession)?;
            let shard = entry.shard.ok_or(Refusal::NoSession)?;
            let Role::Viewer { offer } = &mut entry.role else { return Err(Refusal::NoSession) };
            let Some(ours) = offer.take() else {
                let what = "this session has been answered already".to_owned();
                return Err(Refusal::BadDescription(ams_api::port::BadDescription::Unsupported(what)));
            };
            (entry.peer, shard, ours)
        };
        // Read without the lock: it may be long.
        let answer = match parse_play_answer(sdp, &ours) {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(Role::Viewer { offer }) = self.directory().sessions.get_mut(session).map(|s| &mut s.role) {
                    *offer = Some(ours);
                }
                return Err(bad_description(error));
            }
        };
        self.command(shard, ShardCommand::SetViewerAnswer { peer, answer: Box::new(answer) }).await;
        Ok(())
    }

    // --- finding the stream ------------------------------------------------------------------------------------------

    /// Finds a stream here or elsewhere; pulls it if it is elsewhere.
    async fn attach(self: &Arc<Self>, key: &StreamKey) -> Result<Attached, Refusal> {
        if self.is_draining() {
            return Err(self.busy("it is about to stop"));
        }
        if !self.config.mode.takes_viewers(self.config.serve_viewers_on_origin) {
            return Err(Refusal::OriginTakesNoViewers);
        }
        let deadline = tokio::time::Instant::now() + ATTACH_TIMEOUT;
        let mut watch = {
            let mut directory = self.directory();
            match directory.streams.get(key) {
                Some(stream) if stream.is_playable() => return Ok(attached(stream)),
                Some(LocalStream { origin: Origin::Published { .. }, .. }) => {
                    return Err(Refusal::NotLive(key.id.clone()));
                }
                Some(LocalStream { origin: Origin::Pulled { state, .. }, .. }) => state.subscribe(),
                None if self.config.mode.pulls() => self.begin_pull(&mut directory, key),
                None => return Err(Refusal::NotLive(key.id.clone())),
            }
        };
        let state = tokio::time::timeout_at(deadline, watch.wait_for(|s| *s != PullState::Asking)).await;
        match state {
            Ok(Ok(state)) if *state == PullState::Here => {}
            Ok(Ok(state)) => {
                debug!(stream_id = %key, state = ?*state, "stream cannot be had");
                return Err(if self.registry_ok.load(Ordering::Relaxed) {
                    Refusal::NotLive(key.id.clone())
                } else {
                    Refusal::RegistryUnavailable
                });
            }
            Ok(Err(_)) => return Err(Refusal::NotLive(key.id.clone())),
            Err(_) => {
                warn!(stream_id = %key, "the origin did not answer in time");
                return Err(Refusal::NotLive(key.id.clone()));
            }
        }
        let directory = self.directory();
        let stream = directory.streams.get(key).filter(|s| s.is_playable());
        stream.map(attached).ok_or_else(|| Refusal::NotLive(key.id.clone()))
    }

    fn begin_pull(
        self: &Arc<Self>,
        directory: &mut super::directory::Directory,
        key: &StreamKey,
    ) -> watch::Receiver<PullState> {
        let (state, watch) = watch::channel(PullState::Asking);
        let attempt = self.next_id.fetch_add(1, Ordering::Relaxed);
        let stream = LocalStream {
            epoch: Epoch(0),
            tracks: Arc::default(),
            home: ShardNo(0),
            replicas: HashSet::new(),
            origin: Origin::Pulled { link: None, state, attempt },
            viewers: HashSet::new(),
            served: HashSet::new(),
            idle_since: Some(Instant::now()),
            layers: Vec::new(),
        };
        directory.streams.insert(key.clone(), stream);
        let (node, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            if let Err(sentence) = node.pull(&key, attempt).await {
                node.pull_failed(&key, attempt, sentence).await;
            }
        });
        watch
    }

    /// Looks a stream's origin up and subscribes to it there. The answer comes as a shard event.
    async fn pull(self: &Arc<Self>, key: &StreamKey, attempt: u64) -> Result<(), String> {
        let asked = tokio::time::timeout(LOOKUP_TIMEOUT, self.registry.lookup(key, now_ms())).await;
        let result = asked.map_err(|_| "no answer in time".to_owned()).and_then(|r| r.map_err(|e| e.to_string()));
        self.note_registry(&result, result.is_err());
        let location = result.map_err(|e| format!("registry: {e}"))?;
        let Some(location) = location.filter(|l| l.is_live()) else { return Err("no node has it".to_owned()) };
        let Some(origin) = location.origin else { return Err("its record names no origin".to_owned()) };
        let port = origin.port.ok_or_else(|| format!("its record names no relay port at {}", origin.host))?;
        if origin.host == self.config.advertise && port == self.relay_port {
            return Err("its record names this node, which does not have it".to_owned());
        }
        let (link, shard) = self.link_to(&origin.host, port).await?;
        let order = self.in_order().await;
        {
            let mut directory = self.directory();
            let Some(stream) = directory.streams.get_mut(key) else { return Ok(()) };
            match &mut stream.origin {
                Origin::Pulled { link: place, attempt: current, .. } if *current == attempt => *place = Some(link),
                _ => return Ok(()),
            }
            stream.home = shard;
        }
        self.command(shard, ShardCommand::Pull { link, key: key.clone() }).await;
        drop(order);
        // The origin answers at once or not at all.
        tokio::time::sleep(ATTACH_TIMEOUT).await;
        let asking = self.directory().streams.get(key).is_some_and(|s| {
            matches!(&s.origin, Origin::Pulled { attempt: a, state, .. } if *a == attempt && *state.borrow() == PullState::Asking)
        });
        if asking { Err(format!("{}:{port} did not answer the subscription", origin.host)) } else { Ok(()) }
    }

    async fn pull_failed(&self, key: &StreamKey, attempt: u64, sentence: String) {
        let _order = self.in_order().await;
        let stream = {
            let mut directory = self.directory();
            let Some(stream) = directory.streams.get(key) else { return };
            let Origin::Pulled { state, attempt: current, .. } = &stream.origin else { return };
            // It may have come while the order was waited for.
            if *current != attempt || *state.borrow() != PullState::Asking {
                return;
            }
            debug!(stream_id = %key, reason = sentence, "pull failed");
            state.send_replace(PullState::Failed(sentence));
            directory.streams.remove(key)
        };
        if let Some(stream) = stream {
            self.close_on_shards(key, &stream).await;
        }
    }

    /// An origin answered a subscription.
    pub(super) async fn pulled(
        &self,
        key: StreamKey,
        link: crate::shard::protocol::LinkId,
        epoch: Epoch,
        tracks: Arc<StreamTracks>,
    ) {
        let _order = self.in_order().await;
        let wanted = {
            let mut directory = self.directory();
            match directory.streams.get_mut(&key) {
                Some(stream) if matches!(stream.origin, Origin::Pulled { link: Some(l), .. } if l == link) => {
                    stream.epoch = epoch;
                    stream.tracks = tracks;
                    // Whoever waits for it needs a moment to come.
                    stream.idle_since = Some(Instant::now());
                    if let Origin::Pulled { state, .. } = &stream.origin {
                        state.send_replace(PullState::Here);
                    }
                    true
                }
                _ => false,
            }
        };
        if wanted {
            info!(stream_id = %key, %epoch, "stream is pulled");
        } else if let Some(shard) = self.link_shard(link) {
            self.command(shard, ShardCommand::CloseStream { key }).await;
        }
    }

    /// A pulled stream ended at its origin, or its link broke.
    pub(super) async fn pull_ended(&self, key: &StreamKey, link: crate::shard::protocol::LinkId, sentence: &str) {
        let _order = self.in_order().await;
        let stream = {
            let mut directory = self.directory();
            let ours = directory
                .streams
                .get(key)
                .is_some_and(|s| matches!(s.origin, Origin::Pulled { link: Some(l), .. } if l == link));
            if !ours {
                return;
            }
            directory.remove_stream(Instant::now(), key, &EndReason::StreamEnded)
        };
        let Some(stream) = stream else { return };
        if let Origin::Pulled { state, .. } = &stream.origin {
            state.send_replace(PullState::Failed(sentence.to_owned()));
        }
        info!(stream_id = %key, reason = sentence, "pulled stream ended");
        self.close_on_shards(key, &stream).await;
    }

    /// Lets go of pulled streams that nobody has watched for a while.
    pub(super) async fn drop_idle_pulls(&self) {
        let linger = self.config.relay_link.linger;
        let now = Instant::now();
        let _order = self.in_order().await;
        let idle: Vec<(StreamKey, LocalStream)> = {
            let mut directory = self.directory();
            let keys: Vec<StreamKey> = directory
                .streams
                .iter()
                .filter(
                    |(_, s)| matches!(&s.origin, Origin::Pulled { state, .. } if *state.borrow() == PullState::Here),
                )
                .filter(|(_, s)| s.idle_since.is_some_and(|at| now.saturating_duration_since(at) >= linger))
                .map(|(key, _)| key.clone())
                .collect();
            keys.into_iter().filter_map(|k| Some((k.clone(), directory.streams.remove(&k)?))).collect()
        };
        for (key, stream) in idle {
            info!(stream_id = %key, "nobody watches; pull released");
            self.close_on_shards(&key, &stream).await;
        }
    }

    /// Takes a stream off every shard that has it. In order.
    pub(super) async fn close_on_shards(&self, key: &StreamKey, stream: &LocalStream) {
        for shard in stream.replicas.iter().chain([&stream.home]) {
            self.command(*shard, ShardCommand::CloseStream { key: key.clone() }).await;
        }
    }

    /// A viewer's transport is connected.
    pub(super) fn viewer_connected(&self, peer: PeerId) {
        let mut directory = self.directory();
        let id = directory.peers.get(&peer).cloned();
        if let Some(session) = id.and_then(|id| directory.sessions.get_mut(&id)) {
            session.started = true;
            session.tell(SessionEvent::Started { restored: false });
        }
    }
}

fn attached(stream: &LocalStream) -> Attached {
    Attached { epoch: stream.epoch, tracks: Arc::clone(&stream.tracks), home: stream.home }
}

/// A stream's tracks as they are offered: one media stream, AMS's track ids, SSRCs of our own.
fn play_tracks(key: &StreamKey, tracks: &StreamTracks) -> Vec<PlayTrack> {
    tracks
        .tracks
        .iter()
        .map(|track| PlayTrack {
            no: track.no,
            codec: track.codec.clone(),
            msid: Msid::ams(&key.id, track.kind),
            track_id: key.id.to_string(),
            ssrc: random_ssrc(),
            rtx_ssrc: (track.kind == MediaKind::Video).then(random_ssrc),
        })
        .collect()
}

/// Any number but the few that other ends use for feedback.
fn random_ssrc() -> Ssrc {
    Ssrc(rand::random_range(0x1_0000..=u32::MAX))
}
