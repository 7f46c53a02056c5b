//! A stream going out to viewers: have it here, attach, steer.
//!
//! Owns the order of a viewer's steps. Where the stream comes from is `pulls`' affair.

use std::sync::Arc;
use std::time::Duration;

use ams_api::port::{Answer, Door, Media, Offer, Opened, PlayRequest, Rates, Refusal, SessionEvent, SessionId, Steer};
use ams_media::StreamTracks;
use ams_rtc::sdp::{Msid, PlayTrack, RemoteSdp, answer_play, offer_play, parse_play_answer};
use ams_rtc::viewer::{EgressTrack, ViewerSetup};
use ams_types::{MediaKind, Ssrc, StreamKey};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::access::Entry;
use super::directory::{Role, Session};
use super::places::Place;
use super::publish::bad_description;
use super::pulls::Attached;
use super::{NodeCore, new_session_id};
use crate::shard::protocol::{PeerId, ShardCommand, ShardNo, ViewerRates, ViewerSteer};

/// Longest a description is held back for the shard to take its viewer in.
const READY_TIMEOUT: Duration = Duration::from_millis(200);
/// Events of one session that wait: started and ended, and what may be left out.
const EVENTS_MAX: usize = 8;

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
        let place = self.place_for_viewer(&request.key, &request.caller)?;
        let seat = self.take_seat()?;
        let pass = self.admit(&Entry::of_viewer(&request)).await?;
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
        let role = Role::Viewer { offer: Some(Box::new(offer)) };
        let (session, events) = self.add_viewer(&request, shard, stream, place, role, setup).await?;
        self.check_in(&session, &request.key, pass).await?;
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
        let place = self.place_for_viewer(&request.key, &request.caller)?;
        let seat = self.take_seat()?;
        let pass = self.admit(&Entry::of_viewer(&request)).await?;
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
        let value = Answer { sdp: answer.sdp, etag: setup.transport.local.ufrag().to_owned() };
        let role = Role::Viewer { offer: None };
        let (session, events) = self.add_viewer(&request, shard, stream, place, role, setup).await?;
        self.check_in(&session, &request.key, pass).await?;
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
        place: Place,
        role: Role,
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
                return Err(self.stopping());
            }
            let Some(local) = directory.streams.get_mut(&key).filter(|s| s.epoch == stream.epoch && s.is_playable())
            else {
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
                etag: setup.transport.local.ufrag().to_owned(),
                door: request.caller.door,
                candidates: 0,
                started: false,
                left: false,
                place: Some(place),
                visit: None,
            };
            directory.add_session(&session, entry);
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
