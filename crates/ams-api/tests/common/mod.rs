//! A stand-in for the node behind the port, and small helpers. It keeps sessions in memory and knows no media.

#![allow(dead_code, unreachable_pub, reason = "every test target uses its own part")]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ams_access::Secret;
use ams_api::port::{
    Answer, BadDescription, Check, DrainState, EndReason, Load, Node, Offer, Opened, PlayRequest, PublishRequest,
    Refusal, Rendition, Said, SessionEvent, SessionId, Steer, WaitGuard, Whereabouts,
};
use ams_api::{Api, ApiConfig};
use ams_registry::{
    AppSettingsRecord, BroadcastRecord, Ended, Registry, RegistryConfig, RegistryError, RegistryUri, connect,
};
use ams_types::{AppName, StreamKey};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

pub struct FakeSession {
    pub key: StreamKey,
    pub publisher: bool,
    pub events: mpsc::Sender<SessionEvent>,
    pub etag: String,
}

pub struct FakeNode {
    pub sessions: Mutex<HashMap<SessionId, FakeSession>>,
    pub closed: Mutex<Vec<(SessionId, EndReason)>>,
    pub live: Mutex<HashSet<StreamKey>>,
    pub requests: Mutex<Vec<PublishRequest>>,
    /// What the next opening is refused with.
    pub refuse: Mutex<Option<Refusal>>,
    pub trickled: Mutex<Vec<(Option<String>, String)>>,
    pub candidates: AtomicUsize,
    pub steers: Mutex<Vec<(SessionId, Steer)>>,
    pub waiting: Arc<AtomicUsize>,
    pub alive: AtomicBool,
    pub ready: AtomicBool,
    /// Openings wait for a permit each.
    pub gate: Semaphore,
    pub gate_waiting: AtomicUsize,
    pub registry: Arc<dyn Registry>,
    pub settings: Mutex<AppSettingsRecord>,
    pub said: Mutex<Vec<(StreamKey, String)>>,
    starts: broadcast::Sender<StreamKey>,
    next: AtomicUsize,
}

struct Guard(Arc<AtomicUsize>);

impl WaitGuard for Guard {}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub fn key(app: &str, id: &str) -> StreamKey {
    StreamKey::new(app.parse().unwrap(), id.parse().unwrap())
}

/// A registry in memory, made outside the test's own runtime.
fn memory() -> Arc<dyn Registry> {
    let made = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(connect(&RegistryUri::memory(), RegistryConfig::default())).unwrap()
    });
    made.join().unwrap()
}

impl FakeNode {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::default(),
            closed: Mutex::default(),
            live: Mutex::default(),
            requests: Mutex::default(),
            refuse: Mutex::default(),
            trickled: Mutex::default(),
            candidates: AtomicUsize::new(0),
            steers: Mutex::default(),
            waiting: Arc::default(),
            alive: AtomicBool::new(true),
            ready: AtomicBool::new(true),
            gate: Semaphore::new(1_000_000),
            gate_waiting: AtomicUsize::new(0),
            registry: memory(),
            settings: Mutex::default(),
            said: Mutex::default(),
            starts: broadcast::channel(16).0,
            next: AtomicUsize::new(0),
        })
    }

    pub fn session_count(&self) -> usize {
        self.sessions.lock().unwrap().len()
    }

    pub fn only_session(&self) -> SessionId {
        let sessions = self.sessions.lock().unwrap();
        assert_eq!(sessions.len(), 1);
        sessions.keys().next().unwrap().clone()
    }

    pub fn start_stream(&self, key: &StreamKey) {
        self.live.lock().unwrap().insert(key.clone());
        let _ = self.starts.send(key.clone());
    }

    pub async fn end(&self, id: &SessionId, reason: EndReason) {
        let session = self.sessions.lock().unwrap().remove(id).unwrap();
        session.events.send(SessionEvent::Ended(reason)).await.unwrap();
    }

    async fn open<T>(&self, key: StreamKey, publisher: bool, value: T) -> Result<Opened<T>, Refusal> {
        self.gate_waiting.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.gate_waiting.fetch_sub(1, Ordering::SeqCst);
        if let Some(refusal) = self.refuse.lock().unwrap().take() {
            return Err(refusal);
        }
        let mut sessions = self.sessions.lock().unwrap();
        if publisher && sessions.values().any(|s| s.publisher && s.key == key) {
            return Err(Refusal::InUse(key.id));
        }
        if !publisher && !self.live.lock().unwrap().contains(&key) {
            return Err(Refusal::NotLive(key.id));
        }
        let (events, receiver) = mpsc::channel(8);
        let session = SessionId(format!("session-{}", self.next.fetch_add(1, Ordering::SeqCst)));
        sessions.insert(session.clone(), FakeSession { key, publisher, events, etag: "tag-0".into() });
        Ok(Opened { session, value, events: receiver })
    }

    fn with_session<T>(&self, id: &SessionId, f: impl FnOnce(&mut FakeSession) -> T) -> Result<T, Refusal> {
        self.sessions.lock().unwrap().get_mut(id).map(f).ok_or(Refusal::NoSession)
    }
}

fn judge(sdp: &str) -> Result<(), Refusal> {
    let text = || "as the test wants it".to_owned();
    match sdp {
        s if s.contains("malformed") => Err(Refusal::BadDescription(BadDescription::Malformed(text()))),
        s if s.contains("unsupported") => Err(Refusal::BadDescription(BadDescription::Unsupported(text()))),
        s if s.contains("no codec") => Err(Refusal::BadDescription(BadDescription::NoCommonCodec(text()))),
        _ => Ok(()),
    }
}

impl Node for FakeNode {
    fn apps(&self) -> Vec<AppName> {
        vec!["WebRTCAppEE".parse().unwrap(), "live".parse().unwrap()]
    }

    fn open_publisher(&self, request: PublishRequest) -> BoxFuture<'_, Result<Opened<()>, Refusal>> {
        self.requests.lock().unwrap().push(request.clone());
        self.open(request.key, true, ()).boxed()
    }

    fn publisher_offer(&self, session: &SessionId, sdp: String) -> BoxFuture<'_, Result<Answer, Refusal>> {
        let id = session.clone();
        async move {
            judge(&sdp)?;
            let (events, key) = self.with_session(&id, |s| (s.events.clone(), s.key.clone()))?;
            events.send(SessionEvent::Started { restored: false }).await.unwrap();
            self.start_stream(&key);
            Ok(Answer { sdp: "v=0 answer".into(), etag: "tag-0".into() })
        }
        .boxed()
    }

    fn open_viewer(&self, request: PlayRequest) -> BoxFuture<'_, Result<Opened<Offer>, Refusal>> {
        let mapping = vec![("0".to_owned(), request.key.id.to_string())];
        self.open(request.key, false, Offer { sdp: "v=0 offer".into(), id_mapping: mapping }).boxed()
    }

    fn viewer_answer(&self, session: &SessionId, sdp: String) -> BoxFuture<'_, Result<(), Refusal>> {
        let id = session.clone();
        async move {
            judge(&sdp)?;
            let events = self.with_session(&id, |s| s.events.clone())?;
            events.send(SessionEvent::Started { restored: false }).await.unwrap();
            Ok(())
        }
        .boxed()
    }

    fn open_viewer_with_offer(
        &self,
        request: PlayRequest,
        sdp: String,
    ) -> BoxFuture<'_, Result<Opened<Answer>, Refusal>> {
        async move {
            judge(&sdp)?;
            let answer = Answer { sdp: "v=0 answer".into(), etag: "tag-0".into() };
            self.open(request.key, false, answer).await
        }
        .boxed()
    }

    fn steer(&self, session: &SessionId, steer: Steer) -> BoxFuture<'_, ()> {
        self.steers.lock().unwrap().push((session.clone(), steer));
        std::future::ready(()).boxed()
    }

    fn remote_candidate(&self, _session: &SessionId, _candidate: &str) {
        self.candidates.fetch_add(1, Ordering::SeqCst);
    }

    fn restart_ice(
        &self,
        session: &SessionId,
        if_match: String,
        fragment: String,
    ) -> BoxFuture<'_, Result<Answer, Refusal>> {
        let id = session.clone();
        async move {
            judge(&fragment)?;
            self.with_session(&id, |s| {
                if if_match != "*" && if_match != s.etag {
                    return Err(Refusal::StaleTag);
                }
                s.etag.push('+');
                Ok(Answer { sdp: "a=ice-ufrag:ours".into(), etag: s.etag.clone() })
            })?
        }
        .boxed()
    }

    fn trickle(
        &self,
        session: &SessionId,
        if_match: Option<String>,
        fragment: String,
    ) -> BoxFuture<'_, Result<(), Refusal>> {
        let id = session.clone();
        async move {
            self.with_session(&id, |s| match &if_match {
                Some(tag) if *tag != s.etag => Err(Refusal::StaleTag),
                _ => Ok(()),
            })??;
            self.trickled.lock().unwrap().push((if_match, fragment));
            Ok(())
        }
        .boxed()
    }

    fn close(&self, session: &SessionId, reason: EndReason) -> BoxFuture<'_, bool> {
        let id = session.clone();
        async move {
            let known = self.sessions.lock().unwrap().remove(&id).is_some();
            if known {
                self.closed.lock().unwrap().push((id, reason));
            }
            known
        }
        .boxed()
    }

    fn broadcast(&self, key: &StreamKey) -> BoxFuture<'_, Result<Option<BroadcastRecord>, Refusal>> {
        let live = self.live.lock().unwrap().contains(key);
        let id = key.id.to_string();
        async move {
            let document = serde_json::json!({"streamId": id, "name": "a name", "password": "hunter2"});
            let serde_json::Value::Object(document) = document else { unreachable!() };
            Ok(live.then(|| BroadcastRecord::from_json(document).0))
        }
        .boxed()
    }

    fn renditions(&self, key: &StreamKey) -> BoxFuture<'_, Result<Vec<Rendition>, Refusal>> {
        let live = self.live.lock().unwrap().contains(key);
        let id = key.id.clone();
        async move {
            let rendition = Rendition { width: 640, height: 480, video_codec: "VP8".into(), ..Default::default() };
            if live { Ok(vec![rendition]) } else { Err(Refusal::NotLive(id)) }
        }
        .boxed()
    }

    fn wait_for(&self, _key: &StreamKey) -> Box<dyn WaitGuard> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Box::new(Guard(Arc::clone(&self.waiting)))
    }

    fn starts(&self) -> broadcast::Receiver<StreamKey> {
        self.starts.subscribe()
    }

    fn registry(&self) -> Arc<dyn Registry> {
        Arc::clone(&self.registry)
    }

    fn whereabouts(&self) -> Whereabouts {
        let node = "fake:1".parse().unwrap();
        Whereabouts { node, host: "10.0.0.1".into(), http_port: 5080, is_clustered: false }
    }

    fn load(&self) -> Load {
        Load { streams: 1, viewers: 2, cpu_percent: 3 }
    }

    fn settings(&self, _app: &AppName) -> Arc<AppSettingsRecord> {
        Arc::new(self.settings.lock().unwrap().clone())
    }

    fn store_settings(&self, _app: &AppName, settings: AppSettingsRecord) -> BoxFuture<'_, Result<(), RegistryError>> {
        *self.settings.lock().unwrap() = settings;
        std::future::ready(Ok(())).boxed()
    }

    fn stop_stream(&self, key: &StreamKey, _sentence: String) -> BoxFuture<'_, bool> {
        std::future::ready(self.live.lock().unwrap().remove(key)).boxed()
    }

    fn say(&self, key: &StreamKey, text: String) -> BoxFuture<'_, Said> {
        let live = self.live.lock().unwrap().contains(key);
        self.said.lock().unwrap().push((key.clone(), text));
        std::future::ready(if live { Said::Sent } else { Said::NotHere }).boxed()
    }

    fn released(&self, _ended: &Ended) {}

    fn drain(&self, _wanted: bool) -> bool {
        true
    }

    fn drain_state(&self) -> DrainState {
        DrainState::default()
    }

    fn cluster_secret(&self) -> Option<Secret> {
        None
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        std::future::ready("ams_publishers 1\n".to_owned()).boxed()
    }

    fn alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    fn readiness(&self) -> Vec<Check> {
        let ok = self.ready.load(Ordering::SeqCst);
        vec![
            Check { name: "registry", ok, detail: "answers in 1 ms".into(), required: true },
            Check { name: "relay", ok: false, detail: "no edge connected".into(), required: false },
        ]
    }
}

/// A served API on a port of its own.
pub struct Server {
    pub api: Api,
    pub node: Arc<FakeNode>,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
}

pub async fn serve(config: ApiConfig) -> Server {
    let node = FakeNode::new();
    let api = Api::new(Arc::clone(&node) as Arc<dyn Node>, config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (api, stop) = (api.clone(), stop.clone());
        async move { api.serve(listener, stop).await }
    });
    Server { api, node, address, stop, task }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A configuration whose limits are changed by `change`.
pub fn limited(change: impl FnOnce(&mut ams_api::ApiLimits)) -> ApiConfig {
    let mut config = ApiConfig::default();
    change(&mut config.limits);
    config
}
