//! A plain SFU made with the webrtc crate, one PeerConnection per viewer, to compare `ams-node bench` with.
//!
//! One publisher (VP8 and Opus) comes by WHIP, any number of viewers by WHEP; each packet of the publisher is written
//! to each viewer's own local track. Nothing is clever here: this is what the crate's broadcast example does, with HTTP
//! in front. All sockets are on 127.0.0.1, all work is on one worker thread; a viewer that stalls holds up the others.
//!
//! `webrtc-sfu [PORT]` listens for HTTP on that port, 8090 without one: POST /whip, POST /whep, DELETE /session/ID.
//! The bench keeps its load on core 1, so start this as `taskset -c 0 webrtc-sfu`.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8};
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use tokio::net::TcpListener;
use tokio::sync::{Notify, RwLock};
use webrtc::media_stream::MediaStreamTrack;
use webrtc::media_stream::track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder, register_default_interceptors,
};

const DEFAULT_PORT: u16 = 8090;
/// How often the publisher is asked for a keyframe.
const PLI_INTERVAL: Duration = Duration::from_secs(2);
/// Sources every viewer sees; each is alone on its connection.
const VIDEO_SSRC: u32 = 1;
const AUDIO_SSRC: u32 = 2;

/// One client: the publisher or a viewer.
struct Session {
    id: u64,
    pc: Arc<dyn PeerConnection>,
    /// A viewer's audio and video: the crate binds a track to one connection. A publisher gets none.
    tracks: Vec<Arc<TrackLocalStaticRTP>>,
    /// Whether DTLS is done and media may flow.
    connected: Arc<AtomicBool>,
}

#[derive(Default)]
struct Sfu {
    next_id: AtomicU64,
    sessions: RwLock<Vec<Session>>,
    /// The publisher's video.
    video: Mutex<Option<Arc<dyn TrackRemote>>>,
}

impl Sfu {
    /// Answers an offer with a new connection.
    async fn answer(self: &Arc<Self>, offer: &str, tracks: Vec<Arc<TrackLocalStaticRTP>>) -> Result<(u64, String)> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (gathered, connected) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let handler =
            Handler { sfu: Arc::clone(self), id, gathered: Arc::clone(&gathered), connected: Arc::clone(&connected) };
        let pc = connection(handler).await.context("making a connection")?;
        for track in &tracks {
            pc.add_track(Arc::clone(track) as Arc<dyn TrackLocal>).await.context("adding a track")?;
        }
        let offer = RTCSessionDescription::offer(offer.to_owned())?;
        pc.set_remote_description(offer).await.context("taking the offer")?;
        let answer = pc.create_answer(None).await.context("making the answer")?;
        pc.set_local_description(answer).await.context("setting the answer")?;
        gathered.notified().await;
        let answer = pc.local_description().await.context("there is no answer")?;
        self.sessions.write().await.push(Session { id, pc, tracks, connected });
        Ok((id, answer.sdp))
    }

    /// Closes a session; says whether it was there.
    async fn end(&self, id: u64) -> bool {
        let mut sessions = self.sessions.write().await;
        let Some(at) = sessions.iter().position(|session| session.id == id) else { return false };
        let session = sessions.swap_remove(at);
        drop(sessions);
        if let Err(error) = session.pc.close().await {
            eprintln!("closing session {id}: {error}");
        }
        true
    }

    /// Asks the publisher for a keyframe.
    async fn ask_keyframe(&self) {
        let Some(video) = self.video.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        for media_ssrc in video.ssrcs().await {
            // A publisher that left needs no keyframe.
            let _ = video.write_rtcp(vec![Box::new(PictureLossIndication { sender_ssrc: 0, media_ssrc })]).await;
        }
    }

    /// Writes all packets of one of the publisher's tracks to all viewers, until it ends.
    async fn forward(&self, remote: &dyn TrackRemote) {
        let is_video = remote.kind().await == RtpCodecKind::Video;
        while let Some(event) = remote.poll().await {
            let TrackRemoteEvent::OnRtpPacket(mut packet) = event else { continue };
            packet.header.ssrc = if is_video { VIDEO_SSRC } else { AUDIO_SSRC };
            // Extensions are negotiated per connection: the publisher's mean nothing to a viewer.
            packet.header.extension = false;
            packet.header.extensions.clear();
            for session in self.sessions.read().await.iter() {
                let Some(track) = session.tracks.get(usize::from(is_video)) else { continue };
                if session.connected.load(Ordering::Relaxed) {
                    // It fails for a viewer that is about to be removed.
                    let _ = track.write_rtp(packet.clone()).await;
                }
            }
        }
    }
}

/// Hears what happens to one connection.
struct Handler {
    sfu: Arc<Sfu>,
    id: u64,
    gathered: Arc<Notify>,
    connected: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.notify_one();
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let connected = state == RTCPeerConnectionState::Connected;
        self.connected.store(connected, Ordering::Relaxed);
        // In tasks of their own: the connection's driver waits for this handler.
        let (sfu, id) = (Arc::clone(&self.sfu), self.id);
        if connected {
            tokio::spawn(async move { sfu.ask_keyframe().await });
        } else if matches!(state, RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed) {
            tokio::spawn(async move { sfu.end(id).await });
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        if track.kind().await == RtpCodecKind::Video {
            *self.sfu.video.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&track));
        }
        let sfu = Arc::clone(&self.sfu);
        tokio::spawn(async move { sfu.forward(track.as_ref()).await });
    }
}

/// A connection with the crate's default codecs and interceptors. It is ICE-lite and the DTLS server, as SFUs are.
async fn connection(handler: Handler) -> Result<Arc<dyn PeerConnection>> {
    let mut media = MediaEngine::default();
    media.register_default_codecs()?;
    let interceptors = register_default_interceptors(Registry::new(), &mut media)?;
    let settings = SettingEngineBuilder::new()
        .with_lite(true)
        .with_include_loopback_candidate(true)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_answering_dtls_role(RTCDtlsRole::Server)
        .build();
    let pc = PeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_interceptor_registry(interceptors)
        .with_setting_engine(settings)
        .with_handler(Arc::new(handler))
        .with_udp_addrs(vec![(Ipv4Addr::LOCALHOST, 0)])
        .build()
        .await?;
    Ok(Arc::new(pc))
}

/// A track for one viewer.
fn local_track(kind: RtpCodecKind) -> Arc<TrackLocalStaticRTP> {
    let (name, mime_type, clock_rate, channels, ssrc) = match kind {
        RtpCodecKind::Audio => ("audio", MIME_TYPE_OPUS, 48_000, 2, AUDIO_SSRC),
        _ => ("video", MIME_TYPE_VP8, 90_000, 0, VIDEO_SSRC),
    };
    let coding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec: RTCRtpCodec { mime_type: mime_type.to_owned(), clock_rate, channels, ..Default::default() },
        ..Default::default()
    };
    let track = MediaStreamTrack::new("sfu".to_owned(), name.to_owned(), name.to_owned(), kind, vec![coding]);
    Arc::new(TrackLocalStaticRTP::new(track))
}

// --- HTTP ------------------------------------------------------------------------------------------------------------

async fn whip(State(sfu): State<Arc<Sfu>>, offer: String) -> Response {
    created(sfu.answer(&offer, Vec::new()).await)
}

async fn whep(State(sfu): State<Arc<Sfu>>, offer: String) -> Response {
    let tracks = [RtpCodecKind::Audio, RtpCodecKind::Video].map(local_track).to_vec();
    created(sfu.answer(&offer, tracks).await)
}

async fn end(State(sfu): State<Arc<Sfu>>, Path(id): Path<u64>) -> StatusCode {
    if sfu.end(id).await { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

fn created(answer: Result<(u64, String)>) -> Response {
    match answer {
        Ok((id, sdp)) => {
            let headers =
                [(header::CONTENT_TYPE, "application/sdp".into()), (header::LOCATION, format!("/session/{id}"))];
            (StatusCode::CREATED, headers, sdp).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}\n")).into_response(),
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<()> {
    let port = match std::env::args().nth(1) {
        Some(port) => port.parse().with_context(|| format!("{port} is not a port"))?,
        None => DEFAULT_PORT,
    };
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| format!("binding port {port}"))?;
    let sfu = Arc::new(Sfu::default());
    let router = Router::new()
        .route("/whip", post(whip))
        .route("/whep", post(whep))
        .route("/session/{id}", delete(end))
        .with_state(Arc::clone(&sfu));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PLI_INTERVAL).await;
            sfu.ask_keyframe().await;
        }
    });
    axum::serve(listener, router).await.context("serving HTTP")
}
