//! The node as the API sees it.
//!
//! Owns nothing: every call goes to the part of the node it belongs to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ams_access::Secret;
use ams_api::port::{
    Answer, BadDescription, Check, DrainState, EndReason, Load, Node, Offer, Opened, PlayRequest, PublishRequest,
    Refusal, Rendition, Said, SessionId, Steer, WaitGuard, Whereabouts,
};
use ams_registry::{AppSettingsRecord, BroadcastRecord, Ended, Registry, RegistryError};
use ams_rtc::ice::IceCredentials;
use ams_rtc::sdp::{Candidate, LocalSdp, parse_sdpfrag, write_sdpfrag};
use ams_rtc::transport::{TransportConfig, TransportTimeouts};
use ams_types::{AppName, Codec, MediaKind, Mid, StreamKey};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::broadcast;

use super::NodeCore;
use super::directory::{LocalStream, Origin};
use crate::shard::protocol::{ShardCommand, ShardNo};

/// The node, as a handle the API can keep.
#[derive(Clone)]
pub struct NodeHandle(pub(super) Arc<NodeCore>);

impl Node for NodeHandle {
    fn apps(&self) -> Vec<AppName> {
        self.0.config.apps.clone()
    }

    fn open_publisher(&self, request: PublishRequest) -> BoxFuture<'_, Result<Opened<()>, Refusal>> {
        self.0.open_publisher(request).boxed()
    }

    fn publisher_offer(&self, session: &SessionId, sdp: String) -> BoxFuture<'_, Result<Answer, Refusal>> {
        let session = session.clone();
        async move { self.0.publisher_offer(&session, &sdp).await }.boxed()
    }

    fn open_viewer(&self, request: PlayRequest) -> BoxFuture<'_, Result<Opened<Offer>, Refusal>> {
        self.0.open_viewer(request).boxed()
    }

    fn viewer_answer(&self, session: &SessionId, sdp: String) -> BoxFuture<'_, Result<(), Refusal>> {
        let session = session.clone();
        async move { self.0.viewer_answer(&session, &sdp).await }.boxed()
    }

    fn open_viewer_with_offer(
        &self,
        request: PlayRequest,
        sdp: String,
    ) -> BoxFuture<'_, Result<Opened<Answer>, Refusal>> {
        async move { self.0.open_viewer_with_offer(request, &sdp).await }.boxed()
    }

    fn steer(&self, session: &SessionId, steer: Steer) -> BoxFuture<'_, ()> {
        let session = session.clone();
        async move { self.0.steer(&session, steer).await }.boxed()
    }

    fn remote_candidate(&self, session: &SessionId, _candidate: &str) {
        if let Some(entry) = self.0.directory().sessions.get_mut(session) {
            entry.candidates = entry.candidates.saturating_add(1);
        }
    }

    fn restart_ice(
        &self,
        session: &SessionId,
        if_match: String,
        fragment: String,
    ) -> BoxFuture<'_, Result<Answer, Refusal>> {
        let session = session.clone();
        async move { self.0.restart_ice(&session, &if_match, &fragment).await }.boxed()
    }

    fn trickle(
        &self,
        session: &SessionId,
        if_match: Option<String>,
        fragment: String,
    ) -> BoxFuture<'_, Result<(), Refusal>> {
        let outcome = self.0.trickle(session, if_match.as_deref(), &fragment);
        std::future::ready(outcome).boxed()
    }

    fn close(&self, session: &SessionId, reason: EndReason) -> BoxFuture<'_, bool> {
        // In a task of its own: whoever asks may hang up before it is done.
        let (node, session) = (Arc::clone(&self.0), session.clone());
        let ending = self.0.tasks.spawn(async move { node.end_session(&session, reason).await });
        async move { ending.await.unwrap_or(false) }.boxed()
    }

    fn broadcast(&self, key: &StreamKey) -> BoxFuture<'_, Result<Option<BroadcastRecord>, Refusal>> {
        let key = key.clone();
        async move {
            let result = self.0.registry.get_broadcast(&key).await;
            self.0.note_registry(&result);
            result.map_err(|_| Refusal::RegistryUnavailable)
        }
        .boxed()
    }

    fn renditions(&self, key: &StreamKey) -> BoxFuture<'_, Result<Vec<Rendition>, Refusal>> {
        let outcome = self.0.renditions(key);
        std::future::ready(outcome).boxed()
    }

    fn wait_for(&self, key: &StreamKey) -> Box<dyn WaitGuard> {
        self.0.directory().wait(key);
        Box::new(Waiting { node: Arc::clone(&self.0), key: key.clone() })
    }

    fn starts(&self) -> broadcast::Receiver<StreamKey> {
        self.0.starts.subscribe()
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        self.0.metrics().boxed()
    }

    fn registry(&self) -> Arc<dyn Registry> {
        Arc::clone(&self.0.registry)
    }

    fn whereabouts(&self) -> Whereabouts {
        let node = &self.0;
        Whereabouts {
            node: node.id.clone(),
            host: node.config.advertise.clone(),
            http_port: node.http_port,
            is_clustered: node.config.registry.is_shared(),
        }
    }

    fn load(&self) -> Load {
        let (streams, viewers) = self.0.directory().census();
        Load { streams, viewers, cpu_percent: self.0.cpu_percent.load(Ordering::Relaxed) }
    }

    fn settings(&self, app: &AppName) -> Arc<AppSettingsRecord> {
        self.0.settings.of(app)
    }

    fn store_settings(&self, app: &AppName, settings: AppSettingsRecord) -> BoxFuture<'_, Result<(), RegistryError>> {
        let app = app.clone();
        async move { self.0.store_settings(&app, &settings).await }.boxed()
    }

    fn stop_stream(&self, key: &StreamKey, sentence: String) -> BoxFuture<'_, bool> {
        match self.0.directory().publisher_of(key) {
            Some(session) => self.close(&session, EndReason::ByServer(sentence)),
            None => std::future::ready(false).boxed(),
        }
    }

    fn say(&self, key: &StreamKey, text: String) -> BoxFuture<'_, Said> {
        let key = key.clone();
        async move { self.0.say(key, text).await }.boxed()
    }

    fn released(&self, ended: &Ended) {
        self.0.note_released(ended, false);
    }

    fn cluster_secret(&self) -> Option<Secret> {
        // A key of its own, so that no signed call can pass for a proof of the relay link.
        let key = self.0.config.cluster_key.as_ref()?;
        let derived: String = key.derive(b"ClusterAuthorization").iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Secret::from(derived))
    }

    fn drain(&self, wanted: bool) -> bool {
        self.0.order_drain(wanted)
    }

    fn drain_state(&self) -> DrainState {
        self.0.drain_state()
    }

    fn alive(&self) -> bool {
        self.0.shards.iter().all(|shard| !shard.commands.is_closed())
    }

    fn readiness(&self) -> Vec<Check> {
        let node = &self.0;
        let shards = self.alive();
        let registry = node.registry_ok.load(Ordering::Relaxed);
        let draining = node.is_draining();
        let sentence = |ok: bool, yes: &str, no: &str| if ok { yes.to_owned() } else { no.to_owned() };
        vec![
            Check {
                name: "shards",
                ok: shards,
                detail: sentence(shards, "all run", "a shard has ended"),
                required: true,
            },
            Check {
                name: "draining",
                ok: !draining,
                detail: sentence(!draining, "takes new sessions", "the node is about to stop"),
                required: true,
            },
            // Media, and streams known here, need no registry: a node without it is worth keeping in the balancer.
            Check {
                name: "registry",
                ok: registry,
                detail: sentence(registry, "answers", "does not answer; running streams go on"),
                required: false,
            },
        ]
    }
}

/// One place on the waiting list.
struct Waiting {
    node: Arc<NodeCore>,
    key: StreamKey,
}

impl WaitGuard for Waiting {}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.node.directory().stop_waiting(&self.key);
    }
}

impl NodeCore {
    /// What a new session on `shard` says of itself, in SDP and to its transport.
    pub(super) fn local_description(&self, shard: ShardNo) -> (LocalSdp, TransportConfig) {
        let credentials = IceCredentials::random();
        let candidates = self.shard(shard).map(|s| self.candidates(s.udp_port)).unwrap_or_default();
        let local = LocalSdp {
            ice: credentials.clone(),
            fingerprint: self.dtls.fingerprint().clone(),
            candidates,
            session_id: rand::random::<u64>() >> 2,
            session_version: 1,
            cname: "ams-node".to_owned(),
            codecs: Codec::ALL.to_vec(),
            data_channel: true,
            max_message_size: ams_rtc::sdp::MAX_MESSAGE_SIZE,
        };
        let transport = TransportConfig {
            local: credentials,
            role: None,
            data_channel: false,
            timeouts: TransportTimeouts {
                connect: self.config.media.connect_timeout,
                consent: self.config.media.consent_timeout,
            },
        };
        (local, transport)
    }

    fn candidates(&self, port: u16) -> Vec<Candidate> {
        Candidate::hosts(self.addresses.iter().map(|ip| std::net::SocketAddr::new(*ip, port)))
    }

    /// Sends a text to everybody on a stream of ours.
    async fn say(&self, key: StreamKey, text: String) -> Said {
        const TEXT_LEN_MAX: usize = ams_rtc::sdp::MAX_MESSAGE_SIZE as usize;
        if text.len() > TEXT_LEN_MAX {
            return Said::TooLong(TEXT_LEN_MAX);
        }
        let _order = self.in_order().await;
        let home = {
            let directory = self.directory();
            let published = |s: &&LocalStream| matches!(s.origin, Origin::Published { live: true, .. });
            directory.streams.get(&key).filter(published).map(|stream| stream.home)
        };
        let Some(home) = home else { return Said::NotHere };
        self.command(home, ShardCommand::Say { key, text: text.into() }).await;
        Said::Sent
    }

    async fn restart_ice(&self, session: &SessionId, if_match: &str, fragment: &str) -> Result<Answer, Refusal> {
        let fragment = parse_sdpfrag(fragment).map_err(super::publish::bad_description)?;
        let Some(remote) = fragment.ice else {
            let what = "an ICE restart needs a=ice-ufrag and a=ice-pwd".to_owned();
            return Err(Refusal::BadDescription(BadDescription::Malformed(what)));
        };
        let local = IceCredentials::random();
        let etag = local.ufrag().to_owned();
        let _order = self.in_order().await;
        let (peer, shard) = {
            let mut directory = self.directory();
            let entry = directory.sessions.get_mut(session).ok_or(Refusal::NoSession)?;
            if if_match != "*" && if_match != entry.etag {
                return Err(Refusal::StaleTag);
            }
            let shard = entry.shard.ok_or(Refusal::NoSession)?;
            entry.etag.clone_from(&etag);
            (entry.peer, shard)
        };
        let candidates = self.shard(shard).map(|s| self.candidates(s.udp_port)).unwrap_or_default();
        let sdp = write_sdpfrag(&Mid("0".into()), &local, &candidates);
        self.command(shard, ShardCommand::RestartIce { peer, local, remote }).await;
        Ok(Answer { sdp, etag })
    }

    fn trickle(&self, session: &SessionId, if_match: Option<&str>, fragment: &str) -> Result<(), Refusal> {
        let fragment = parse_sdpfrag(fragment).map_err(super::publish::bad_description)?;
        let mut directory = self.directory();
        let entry = directory.sessions.get_mut(session).ok_or(Refusal::NoSession)?;
        if if_match.is_some_and(|tag| tag != entry.etag && tag != "*") {
            return Err(Refusal::StaleTag);
        }
        let seen = u32::try_from(fragment.candidates.len()).unwrap_or(u32::MAX);
        entry.candidates = entry.candidates.saturating_add(seen);
        Ok(())
    }

    fn renditions(&self, key: &StreamKey) -> Result<Vec<Rendition>, Refusal> {
        let directory = self.directory();
        let stream = directory.streams.get(key).filter(|s| s.is_playable());
        let Some(stream) = stream else { return Err(Refusal::NotLive(key.id.clone())) };
        let audio: u64 = stream.layers.iter().filter(|l| l.kind == MediaKind::Audio).map(|l| l.bitrate).sum();
        let mut renditions: Vec<Rendition> = stream
            .layers
            .iter()
            .filter(|l| l.kind == MediaKind::Video && l.packets > 0)
            .map(|l| Rendition {
                width: l.size.0,
                height: l.size.1,
                video_bitrate: l.bitrate,
                audio_bitrate: audio,
                video_codec: l.codec.sdp_name().to_owned(),
            })
            .collect();
        if renditions.is_empty() {
            renditions.push(Rendition { audio_bitrate: audio, ..Rendition::default() });
        }
        Ok(renditions)
    }
}
