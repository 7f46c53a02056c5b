//! A stream coming in: claim, offer and answer, live, end.
//!
//! Owns the order of a publication's steps. A claim always comes before a transport, and is always released, whatever
//! ends the publication.

use std::sync::Arc;
use std::time::Duration;

use ams_api::port::{
    Answer, BadDescription, Door, EndReason, Opened, PublishRequest, Refusal, SessionEvent, SessionId,
};
use ams_registry::{ClaimError, LiveInfo, PublishType, ReleaseReason, StreamInfoRecord};
use ams_relay::wire;
use ams_rtc::publisher::PublisherSetup;
use ams_rtc::sdp::{Fault, PublishPolicy, RemoteSdp, SdpError, answer_publish};
use ams_types::{MediaKind, StreamKey};
use tokio::sync::mpsc;
use tracing::info;

use super::access::Entry;
use super::claims::{Claimed, Claiming};
use super::directory::{Origin, Publication, Role, Session};
use super::places::Reason;
use super::pulls::Attached;
use super::{NodeCore, new_session_id};
use crate::clock;
use crate::shard::protocol::{LayerReport, PeerId, ShardCommand, ShardNo};

/// Events one session can have: started and ended.
const EVENTS_MAX: usize = 4;

/// Claims and announcements of one start; more mean that others keep changing the record.
const ANNOUNCE_ATTEMPTS: usize = 3;

impl NodeCore {
    pub(super) async fn open_publisher(self: &Arc<Self>, request: PublishRequest) -> Result<Opened<()>, Refusal> {
        if !self.config.mode.takes_publishers() {
            return Err(Refusal::EdgeTakesNoPublishers(self.an_origin().await));
        }
        if self.is_draining() {
            return Err(self.stopping());
        }
        if self.directory().least_loaded(|shard| self.has_room_for_publisher(shard)).is_none() {
            return Err(self.full("publishers"));
        }
        let key = request.key.clone();
        let pass = self.admit(&Entry::of_publisher(&request)).await?;
        let claiming = Claiming::begin(self, &key).ok_or_else(|| Refusal::InUse(key.id.clone()))?;
        self.make_way(&key).await?;
        // Not before: who takes a stream up may have the place of the session that lost it.
        let place = self.place_for_publisher(&key, &request.caller)?;
        let releasing = self.directory().releasing.get(&key).cloned();
        if let Some(mut releasing) = releasing {
            // Its former publisher has just left this node: the claim would meet its own predecessor.
            let _ = tokio::time::timeout(RELEASE_PATIENCE, releasing.changed()).await;
        }
        let session = new_session_id();
        let wish = self.claim_request(&session, &request);
        let Claimed { lease, recorded, mut restores, former } = self.claim(&wish).await?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let peer = self.next_peer();
        let order = self.in_order().await;
        let left = {
            let mut directory = self.directory();
            if self.is_draining() {
                drop(directory);
                drop(order);
                if recorded {
                    self.release(lease, ReleaseReason::Finished).await;
                }
                return Err(self.stopping());
            }
            let window = clock::now().checked_sub(self.config.media.resume_window);
            restores |= window.is_some_and(|since| directory.take_lost(&key, since));
            let epoch = lease.epoch;
            let entry = Session {
                peer,
                key: key.clone(),
                shard: None,
                role: Role::Publisher(Box::new(Publication {
                    wish,
                    lease,
                    recorded,
                    live: false,
                    restores,
                    former,
                    told: false,
                })),
                events,
                etag: String::new(),
                door: request.caller.door,
                candidates: 0,
                started: false,
                left: false,
                place: Some(place),
                visit: None,
            };
            directory.add_session(&session, entry);
            let home = directory.least_loaded(|shard| self.has_room_for_publisher(shard)).unwrap_or(ShardNo(0));
            let origin = Origin::Published { session: session.clone(), live: false, announced: false };
            directory.publish(&key, home, epoch, origin, self.interruption(clock::now(), true))
        };
        if let Some(left) = left {
            let reason = wire::EndReason::Superseded;
            self.command(left, ShardCommand::CloseStream { key: key.clone(), reason }).await;
        }
        drop((order, claiming));
        self.watch_start(session.clone());
        self.check_in(&session, &key, pass).await?;
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
            if !left && (!*live || !stream.is_silent(clock::now())) {
                return Err(Refusal::InUse(key.id.clone()));
            }
            session.clone()
        };
        info!(stream_id = %key, "a newcomer replaces a publisher that has left or fallen silent");
        self.end_session(&present, EndReason::Gone).await;
        Ok(())
    }

    pub(super) async fn publisher_offer(&self, session: &SessionId, sdp: &str) -> Result<Answer, Refusal> {
        let offer = RemoteSdp::parse(sdp).map_err(bad_description)?;
        let (peer, key, epoch, home, policy) = {
            let directory = self.directory();
            let entry = directory.sessions.get(session).ok_or(Refusal::NoSession)?;
            if !matches!(entry.role, Role::Publisher(_)) {
                return Err(Refusal::NoSession);
            }
            if entry.shard.is_some() {
                let what = "this session has been answered already; stop and publish again to renegotiate".to_owned();
                return Err(Refusal::BadDescription(BadDescription::Unsupported(what)));
            }
            let stream = directory.streams.get(&entry.key).ok_or(Refusal::NoSession)?;
            let policy = match entry.door {
                Door::WebSocket => PublishPolicy::WEBSOCKET,
                Door::Http => PublishPolicy::WHIP,
            };
            (entry.peer, entry.key.clone(), stream.epoch, stream.home, policy)
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
                Some(Session { role: Role::Publisher(publication), shard, candidates, .. }) if !publication.live => match shard {
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
                let Role::Publisher(publication) = &mut entry.role else { return None };
                // Before the registry knows: whoever learns of it there finds it here.
                publication.live = true;
                let stream = directory.streams.get_mut(&entry.key)?;
                if let Origin::Published { live, .. } = &mut stream.origin {
                    *live = true;
                }
                stream.report(clock::now(), layers);
                let restored = stream.interruption.take().is_some() || publication.restores;
                Some((session, entry.key.clone(), stream.epoch, restored))
            })
        };
        let Some((session, key, epoch, restored)) = found else { return };
        if !self.announce(&session).await || !self.note_started(&session) {
            return;
        }
        let told = self.directory().sessions.get(&session).map(|s| s.tell(SessionEvent::Started { restored }));
        if told.is_some() {
            info!(stream_id = %key, %epoch, restored, "stream is live");
            let _ = self.starts.send(key);
        }
    }

    /// Tells the registry that a stream is live. A registry that is away is told later, with the heartbeats. False if the
    /// stream is over, and ends it if its id is another's.
    pub(super) async fn announce(self: &Arc<Self>, session: &SessionId) -> bool {
        for _ in 0..ANNOUNCE_ATTEMPTS {
            let (lease, recorded, info) = {
                let directory = self.directory();
                let Some(entry) = directory.sessions.get(session) else { return false };
                let Role::Publisher(publication) = &entry.role else { return false };
                let Some(stream) = directory.streams.get(&entry.key) else { return false };
                let info = self.live_info(&stream.layers, stream.tracks.data_channel);
                (publication.lease.clone(), publication.recorded, info)
            };
            let known = match recorded {
                true => {
                    let result = self.registry.mark_live(&lease, info).await;
                    self.note_registry(&result);
                    match result {
                        Ok(()) => true,
                        Err(ClaimError::Registry(_)) => false,
                        // Forgotten, or another's: a new claim tells.
                        Err(ClaimError::Lost { .. } | ClaimError::InUse(_)) => {
                            if self.record_claim(session).await {
                                continue;
                            }
                            false
                        }
                    }
                }
                // Recorded while it was being decided, or still unknown to the registry.
                false if self.is_registry_ok() && self.record_claim(session).await => continue,
                false => false,
            };
            let mut directory = self.directory();
            return match directory.streams.get_mut(&lease.key).map(|s| &mut s.origin) {
                Some(Origin::Published { session: s, announced, .. }) if s == session => {
                    *announced |= known;
                    true
                }
                _ => false,
            };
        }
        self.directory().sessions.contains_key(session)
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
            now_ms: self.wall.ms(),
            publish_type: PublishType::WebRtc,
            width: top.map_or(0, |v| int(v.size.0.into())),
            height: top.map_or(0, |v| int(v.size.1.into())),
            infos,
        }
    }

    /// The node takes no more of `whom`.
    pub(super) fn full(&self, whom: &str) -> Refusal {
        self.places.note_refused(Reason::Load);
        if let Some(shortage) = *self.shortage() {
            return self.busy(shortage.sentence());
        }
        let (load, late) = (self.loads.highest() / 10, self.loads.latest() / 10);
        let limit = self.config.media.load_max;
        let late = if late > 0 { format!(", are late with {late} % of what they send") } else { String::new() };
        self.busy(&format!(
            "its media threads work {load} % of the time{late} and take no more {whom} (media.load_max = {limit})"
        ))
    }

    /// The node takes nobody new.
    pub(super) fn stopping(&self) -> Refusal {
        self.places.note_refused(Reason::Draining);
        self.busy("it is about to stop")
    }

    fn busy(&self, reason: &str) -> Refusal {
        Refusal::Busy { reason: reason.to_owned(), retry_after: Duration::from_secs(2) }
    }
}

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
