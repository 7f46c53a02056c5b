//! A stream coming in: claim, offer and answer, live, end.
//!
//! Owns the order of a publication's steps. A claim always comes before a transport, and is always released, whatever
//! ends the publication.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_api::port::{
    Answer, BadDescription, Door, EndReason, Opened, PublishRequest, Refusal, SessionEvent, SessionId,
};
use ams_registry::{
    ClaimError, ClaimRequest, Grant, Lease, LiveInfo, PublishType, ReleaseReason, StreamInfoRecord, Takeover,
};
use ams_relay::wire;
use ams_rtc::publisher::PublisherSetup;
use ams_rtc::sdp::{Fault, PublishPolicy, RemoteSdp, SdpError, answer_publish};
use ams_types::{MediaKind, StreamKey};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::directory::{Origin, Role, Session};
use super::pulls::Attached;
use super::{NodeCore, new_session_id, now_ms};
use crate::shard::protocol::{LayerReport, PeerId, ShardCommand, ShardNo};

/// Events one session can have: started and ended.
const EVENTS_MAX: usize = 4;

/// A stream id that is a session's now.
struct Claimed {
    lease: Lease,
    /// Its former publication ended without an end: viewers elsewhere may still wait for this one.
    restores: bool,
}

impl NodeCore {
    pub(super) async fn open_publisher(self: &Arc<Self>, request: PublishRequest) -> Result<Opened<()>, Refusal> {
        if !self.config.mode.takes_publishers() {
            return Err(Refusal::EdgeTakesNoPublishers(self.an_origin().await));
        }
        if self.is_draining() {
            return Err(self.busy("it is about to stop"));
        }
        if self.directory().least_loaded(|shard| self.has_room_for_publisher(shard)).is_none() {
            return Err(self.full("publishers"));
        }
        let key = request.key.clone();
        self.make_way(&key).await?;
        let releasing = self.directory().releasing.get(&key).cloned();
        if let Some(mut releasing) = releasing {
            // Its former publisher has just left this node: the claim would meet its own predecessor.
            let _ = tokio::time::timeout(RELEASE_PATIENCE, releasing.changed()).await;
        }
        let session = new_session_id();
        let Claimed { lease, mut restores } = self.claim(&session, &request).await?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let peer = self.next_peer();
        let order = self.in_order().await;
        let left = {
            let mut directory = self.directory();
            if self.is_draining() {
                drop(directory);
                drop(order);
                self.release(&lease, ReleaseReason::Finished).await;
                return Err(self.busy("it is about to stop"));
            }
            let window = Instant::now().checked_sub(self.config.media.resume_window);
            restores |= window.is_some_and(|since| directory.take_lost(&key, since));
            let entry = Session {
                peer,
                key: key.clone(),
                shard: None,
                role: Role::Publisher { lease: lease.clone(), live: false, restores },
                events,
                etag: String::new(),
                door: request.caller.door,
                candidates: 0,
                started: false,
                left: false,
            };
            directory.sessions.insert(session.clone(), entry);
            directory.peers.insert(peer, session.clone());
            let home = directory.least_loaded(|shard| self.has_room_for_publisher(shard)).unwrap_or(ShardNo(0));
            let epoch = lease.epoch;
            let origin = Origin::Published { session: session.clone(), lease, live: false, announced: false };
            directory.publish(&key, home, epoch, origin, self.interruption(Instant::now(), true))
        };
        if let Some(left) = left {
            let reason = wire::EndReason::Superseded;
            self.command(left, ShardCommand::CloseStream { key: key.clone(), reason }).await;
        }
        drop(order);
        self.watch_start(session.clone());
        info!(stream_id = %key, session = %session.0, door = ?request.caller.door, "publisher accepted");
        Ok(Opened { session, value: (), events: receiver })
    }

    /// Ends a publication of this node that a newcomer may replace: one whose publisher has closed its transport, or of which
    /// nothing comes any more.
    async fn make_way(self: &Arc<Self>, key: &StreamKey) -> Result<(), Refusal> {
        let present = {
            let directory = self.directory();
            let Some(stream) = directory.streams.get(key) else { return Ok(()) };
            let Origin::Published { session, live, .. } = &stream.origin else { return Ok(()) };
            let left = directory.sessions.get(session).is_some_and(|s| s.left);
            if !left && (!*live || !stream.is_silent(Instant::now())) {
                return Err(Refusal::InUse(key.id.clone()));
            }
            session.clone()
        };
        info!(stream_id = %key, "a newcomer replaces a publisher that has left or fallen silent");
        self.end_session(&present, EndReason::Gone).await;
        Ok(())
    }

    async fn claim(&self, session: &SessionId, request: &PublishRequest) -> Result<Claimed, Refusal> {
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let mut takeover = Takeover::IfFree;
        loop {
            let claim = ClaimRequest {
                key: request.key.clone(),
                node: self.id.clone(),
                incarnation: self.incarnation,
                host: self.config.advertise.clone(),
                session: session.0.clone(),
                publish_type: PublishType::WebRtc,
                user_agent: text(&request.caller.user_agent),
                remote_ip: Some(request.caller.remote_ip.to_string()),
                name: text(&request.stream_name),
                meta_data: text(&request.meta_data),
                now_ms: now_ms(),
                takeover: takeover.clone(),
            };
            let result = self.registry.claim(claim).await;
            self.note_registry(&result, matches!(result, Err(ClaimError::Registry(_))));
            match result {
                Ok(claim) => {
                    let restores = matches!(claim.grant, Grant::NodeRestarted | Grant::OwnerDead | Grant::Replaced);
                    return Ok(Claimed { lease: claim.lease, restores });
                }
                Err(ClaimError::InUse(holder)) => {
                    debug!(stream_id = %request.key, host = ?holder.host, "stream id is in use");
                    let Some((node, incarnation)) = holder.node.clone().zip(holder.incarnation) else {
                        return Err(Refusal::InUse(request.key.id.clone()));
                    };
                    if takeover != Takeover::IfFree || !self.is_gone(&request.key, &holder, &node, incarnation).await {
                        return Err(Refusal::InUse(request.key.id.clone()));
                    }
                    info!(stream_id = %request.key, node_id = %node, "its former origin is gone: the stream id is free");
                    takeover = Takeover::FromDead { node, incarnation };
                }
                Err(ClaimError::Lost { .. }) => return Err(Refusal::InUse(request.key.id.clone())),
                Err(ClaimError::Registry(_)) => return Err(Refusal::RegistryUnavailable),
            }
        }
    }

    pub(super) async fn publisher_offer(&self, session: &SessionId, sdp: &str) -> Result<Answer, Refusal> {
        let offer = RemoteSdp::parse(sdp).map_err(bad_description)?;
        let (peer, key, epoch, home, policy) = {
            let directory = self.directory();
            let entry = directory.sessions.get(session).ok_or(Refusal::NoSession)?;
            let Role::Publisher { lease, .. } = &entry.role else { return Err(Refusal::NoSession) };
            if entry.shard.is_some() {
                let what = "this session has been answered already; stop and publish again to renegotiate".to_owned();
                return Err(Refusal::BadDescription(BadDescription::Unsupported(what)));
            }
            let stream = directory.streams.get(&entry.key).ok_or(Refusal::NoSession)?;
            let policy = match entry.door {
                Door::WebSocket => PublishPolicy::WEBSOCKET,
                Door::Http => PublishPolicy::WHIP,
            };
            (entry.peer, entry.key.clone(), lease.epoch, stream.home, policy)
        };
        let (local, mut transport) = self.local_description(home);
        let answer = answer_publish(&offer, &local, policy).map_err(bad_description)?;
        transport.role = Some(answer.remote.role);
        transport.data_channel = answer.data.is_some();
        let setup = PublisherSetup {
            data_channel: transport.data_channel,
            transport,
            remote: answer.remote,
            tracks: answer.tracks,
        };
        let etag = local.ice.ufrag().to_owned();
        let tracks = Arc::new(setup.stream_tracks());
        let _order = self.in_order().await;
        let waiting = {
            let mut directory = self.directory();
            let entry = directory.sessions.get_mut(session).filter(|s| s.shard.is_none()).ok_or(Refusal::NoSession)?;
            entry.etag.clone_from(&etag);
            directory.place(session, home);
            let stream = directory.streams.get_mut(&key).filter(|s| s.is_published_by(session));
            let stream = stream.ok_or(Refusal::NoSession)?;
            stream.tracks = tracks;
            (Attached::of(stream), stream.replicas.clone())
        };
        let (setup, add_key) = (Box::new(setup), key.clone());
        self.command(home, ShardCommand::AddPublisher { peer, key: add_key, epoch, setup }).await;
        let (stream, replicas) = waiting;
        for replica in replicas {
            self.add_replica(&key, replica, &stream).await;
        }
        Ok(Answer { sdp: answer.sdp, etag })
    }

    /// Ends a publisher that has not brought media in time.
    fn watch_start(self: &Arc<Self>, session: SessionId) {
        let node = Arc::clone(self);
        let limit = self.config.media.connect_timeout;
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(limit) => {}
                () = node.cancel.cancelled() => return,
            }
            let stage = match node.directory().sessions.get(&session) {
                Some(Session { role: Role::Publisher { live: false, .. }, shard, candidates, .. }) => match shard {
                    None => "no session description came".to_owned(),
                    Some(_) => format!(
                        "no media came ({candidates} remote candidates seen); check that UDP {} is open from the publisher to this node",
                        node.config.udp_ports
                    ),
                },
                _ => return,
            };
            let sentence = format!("publishing did not start within {} s: {stage}", limit.as_secs());
            node.end_session(&session, EndReason::Timeout(sentence)).await;
        });
    }

    /// A publisher's media has come: announce it, then tell the publisher.
    pub(super) async fn publisher_live(self: &Arc<Self>, peer: PeerId, layers: Vec<LayerReport>) {
        let found = {
            let mut directory = self.directory();
            let directory = &mut *directory;
            directory.peers.get(&peer).cloned().and_then(|session| {
                let entry = directory.sessions.get_mut(&session)?;
                let Role::Publisher { live, lease, restores } = &mut entry.role else { return None };
                // Before the registry knows: whoever learns of it there finds it here.
                *live = true;
                let stream = directory.streams.get_mut(&entry.key)?;
                if let Origin::Published { live, .. } = &mut stream.origin {
                    *live = true;
                }
                stream.report(Instant::now(), layers);
                let restored = stream.interruption.take().is_some() || *restores;
                Some((session, entry.key.clone(), lease.clone(), restored))
            })
        };
        let Some((session, key, lease, restored)) = found else { return };
        if !self.announce(&session, &lease).await {
            return;
        }
        let told = self.directory().sessions.get(&session).map(|s| s.tell(SessionEvent::Started { restored }));
        if told.is_some() {
            info!(stream_id = %key, epoch = %lease.epoch, restored, "stream is live");
            let _ = self.starts.send(key);
        }
    }

    /// Tells the registry that a stream is live. A registry that is away is told later, with the heartbeats. False if the
    /// stream is over, and ends it if its id is another's.
    pub(super) async fn announce(self: &Arc<Self>, session: &SessionId, lease: &Lease) -> bool {
        let info = {
            let directory = self.directory();
            let Some(stream) = directory.streams.get(&lease.key) else { return false };
            self.live_info(&stream.layers, stream.tracks.data_channel)
        };
        let result = self.registry.mark_live(lease, info).await;
        self.note_registry(&result, matches!(result, Err(ClaimError::Registry(_))));
        let known = match result {
            Ok(()) => true,
            Err(ClaimError::Registry(_)) => false,
            Err(ClaimError::Lost { .. } | ClaimError::InUse(_)) => {
                if self.end_session(session, EndReason::TakenOver).await {
                    warn!(stream_id = %lease.key, "another node took the stream id over");
                }
                return false;
            }
        };
        let mut directory = self.directory();
        match directory.streams.get_mut(&lease.key).map(|s| &mut s.origin) {
            Some(Origin::Published { session: s, announced, .. }) if s == session => {
                *announced |= known;
                true
            }
            _ => false,
        }
    }

    fn live_info(&self, layers: &[LayerReport], data_channel: bool) -> LiveInfo {
        let int = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
        let audio: u64 = layers.iter().filter(|l| l.kind == MediaKind::Audio).map(|l| l.bitrate).sum();
        let has_audio = layers.iter().any(|l| l.kind == MediaKind::Audio);
        let info = |video: Option<&LayerReport>| StreamInfoRecord {
            height: video.map_or(0, |v| int(v.size.1.into())),
            width: video.map_or(0, |v| int(v.size.0.into())),
            video_bitrate: video.map_or(0, |v| int(v.bitrate)),
            audio_bitrate: int(audio),
            video_r_timebase: 90_000,
            audio_r_timebase: 48_000,
            video_enabled: video.is_some(),
            audio_enabled: has_audio,
            data_channel_enabled: data_channel,
            video_codec: video.map(|v| v.codec.sdp_name().to_owned()),
            node_group: Some("default".to_owned()),
            is_global_host: true,
            origin_port: self.relay_port.into(),
            ..StreamInfoRecord::default()
        };
        let videos: Vec<&LayerReport> =
            layers.iter().filter(|l| l.kind == MediaKind::Video && (l.packets > 0 || l.layer.0 == 0)).collect();
        let infos = if videos.is_empty() { vec![info(None)] } else { videos.iter().map(|v| info(Some(v))).collect() };
        let top = videos.iter().max_by_key(|v| v.size.1);
        LiveInfo {
            now_ms: now_ms(),
            publish_type: PublishType::WebRtc,
            width: top.map_or(0, |v| int(v.size.0.into())),
            height: top.map_or(0, |v| int(v.size.1.into())),
            infos,
        }
    }

    /// Gives a claim back. Returns after the first attempt; when the registry is away the others go on behind, because a
    /// record that stays would block the id until its lease ends.
    pub(super) async fn release(self: &Arc<Self>, lease: &Lease, reason: ReleaseReason) {
        let (first, tried) = oneshot::channel::<()>();
        let (node, lease) = (Arc::clone(self), lease.clone());
        // In a task of its own: whoever waits for it may be gone before it is done.
        self.tasks.spawn(async move {
            let mut first = Some(first);
            for attempt in 1..=RELEASE_ATTEMPTS {
                let result = node.registry.release(&lease, reason, now_ms()).await;
                let failed = matches!(result, Err(ClaimError::Registry(_)));
                node.note_registry(&result, failed);
                if !failed || (attempt >= RELEASE_ATTEMPTS_STOPPING && node.cancel.is_cancelled()) {
                    return;
                }
                drop(first.take());
                tokio::time::sleep(RELEASE_RETRY).await;
            }
            warn!(stream_id = %lease.key, "the stream's record stays in the registry until it is stale");
        });
        let _ = tried.await;
    }

    /// All shards are too busy for more of `whom`.
    pub(super) fn full(&self, whom: &str) -> Refusal {
        let load = self.loads.highest() / 10;
        let limit = self.config.media.load_max;
        self.busy(&format!(
            "its media threads work {load} % of the time and take no more {whom} (media.load_max = {limit})"
        ))
    }

    pub(super) fn busy(&self, reason: &str) -> Refusal {
        Refusal::Busy { reason: reason.to_owned(), retry_after: Duration::from_secs(2) }
    }
}

/// As long as a lease lasts; then the record is nobody's anyway.
const RELEASE_ATTEMPTS: u32 = 60;
/// While the node stops there is less time.
const RELEASE_ATTEMPTS_STOPPING: u32 = 3;
const RELEASE_RETRY: Duration = Duration::from_millis(300);
/// Longest a publisher waits for the claim of the one before it to be given back.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);

/// What is wrong with a description, in the port's words.
pub(super) fn bad_description(error: SdpError) -> Refusal {
    let sentence = error.to_string();
    Refusal::BadDescription(match error.fault() {
        Fault::Syntax | Fault::Size => BadDescription::Malformed(sentence),
        Fault::Unsupported => BadDescription::Unsupported(sentence),
        Fault::Codec => BadDescription::NoCommonCodec(sentence),
    })
}
