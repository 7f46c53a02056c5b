//! Publishers and viewers, who behave as the SDK does: they try again, go elsewhere, come back.
//!
//! Owns what each of them wants and where it stands. A client sees of a node what a real one sees: answers, events, and a
//! connection that ends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ams_api::port::{
    Caller, Credentials, Door, EndReason, Node, Opened, PlayRequest, PublishRequest, Refusal, SessionEvent, SessionId,
};
use ams_rtc::transport::CloseReason;
use ams_types::StreamKey;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::World;
use super::host::Run;
use crate::config::Mode;
use crate::node::port::NodeHandle;
use crate::shard::protocol::PeerId;

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n";

/// The SDK's wait before it tries again.
const RETRY: Duration = Duration::from_secs(3);
/// Time between two pictures.
const PICTURE: Duration = Duration::from_millis(200);

/// Where a client stands.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) run: Rc<Run>,
    pub(super) session: SessionId,
    pub(super) peer: PeerId,
    /// Its media has come, or its transport is connected.
    pub(super) started: bool,
}

/// One publisher or viewer.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) key: StreamKey,
    pub(super) publishes: bool,
    /// It wants to be there; if not, it goes.
    pub(super) wants: Cell<bool>,
    /// It leaves and comes back by itself.
    pub(super) restless: Cell<bool>,
    pub(super) standing: RefCell<Option<Standing>>,
    chance: RefCell<StdRng>,
}

/// What a client does next.
enum Next {
    /// Its connection or session is over.
    Over(&'static str),
    Leave(EndReason),
}

impl Client {
    pub(super) fn new(name: String, key: StreamKey, publishes: bool, seed: u64) -> Self {
        Self {
            name,
            key,
            publishes,
            wants: Cell::new(true),
            restless: Cell::new(true),
            standing: RefCell::default(),
            chance: RefCell::new(StdRng::seed_from_u64(seed)),
        }
    }

    fn between(&self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.chance.borrow_mut().random_range(from_ms..to_ms))
    }

    fn happens(&self, probability: f64) -> bool {
        self.chance.borrow_mut().random_bool(probability)
    }

    fn note(&self, world: &World, what: &str) {
        debug!(client = self.name, stream_id = %self.key, "{what}");
        world.note(&self.name, what);
    }

    /// A node of the right kind, as a balancer would choose.
    fn choose(&self, world: &World) -> Option<Rc<Run>> {
        let mode = if self.publishes { Mode::Origin } else { Mode::Edge };
        let open: Vec<_> = world.hosts.iter().filter(|h| h.mode == mode).filter_map(|h| h.open()).collect();
        open.choose(&mut *self.chance.borrow_mut()).cloned()
    }

    /// Lives for ever.
    pub(super) async fn live(self: Rc<Self>, world: Rc<World>) {
        sleep(self.between(0, 3000)).await;
        loop {
            if !self.wants.get() {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            let Some(run) = self.choose(&world) else {
                sleep(self.between(500, 1500)).await;
                continue;
            };
            let killed = run.killed.clone();
            let opened = killed.run_until_cancelled(self.open(&world, &run)).await;
            let wait = match opened {
                Some(Ok((session, peer, events))) => {
                    let standing = Standing { run: Rc::clone(&run), session, peer, started: false };
                    *self.standing.borrow_mut() = Some(standing.clone());
                    let next = killed.run_until_cancelled(self.stay(&world, &run, &standing, events)).await;
                    *self.standing.borrow_mut() = None;
                    match next {
                        Some(Next::Leave(reason)) => {
                            self.note(&world, "leaves");
                            let node = NodeHandle(std::sync::Arc::clone(&run.core));
                            // Its end of the socket is closed: it hears nothing more of it.
                            let closing = node.close(&standing.session, reason);
                            let _ = killed.run_until_cancelled(closing).await;
                            self.between(300, 4000)
                        }
                        Some(Next::Over(why)) => {
                            self.note(&world, why);
                            self.between(500, 1500)
                        }
                        None => {
                            self.note(&world, "its node is gone");
                            self.between(500, 1500)
                        }
                    }
                }
                Some(Err(refusal)) => {
                    self.note(&world, &format!("refused: {refusal}"));
                    if !self.publishes && matches!(refusal, Refusal::NotLive(_)) {
                        let _ = killed.run_until_cancelled(self.wait_for_start(&run)).await;
                        self.between(0, 50)
                    } else {
                        RETRY
                    }
                }
                None => self.between(500, 1500),
            };
            sleep(wait).await;
        }
    }

    fn caller() -> Caller {
        Caller { door: Door::WebSocket, remote_ip: [10, 9, 9, 9].into(), user_agent: String::new() }
    }

    async fn open(
        &self,
        world: &World,
        run: &Run,
    ) -> Result<(SessionId, PeerId, mpsc::Receiver<SessionEvent>), Refusal> {
        let node = NodeHandle(std::sync::Arc::clone(&run.core));
        let (session, events) = if self.publishes {
            let request = PublishRequest {
                key: self.key.clone(),
                caller: Self::caller(),
                stream_name: String::new(),
                meta_data: String::new(),
                main_track: String::new(),
                credentials: Credentials::default(),
            };
            let Opened { session, events, .. } = node.open_publisher(request).await?;
            world.truth.borrow_mut().publishes(run, &self.key, &session);
            node.publisher_offer(&session, OFFER.to_owned()).await?;
            (session, events)
        } else {
            let request = PlayRequest {
                key: self.key.clone(),
                caller: Self::caller(),
                credentials: Credentials::default(),
                room: String::new(),
                data_channel: false,
            };
            let Opened { session, events, .. } = node.open_viewer(request).await?;
            (session, events)
        };
        let peer = run.core.directory().sessions.get(&session).map(|s| s.peer).ok_or(Refusal::NoSession)?;
        self.note(world, "accepted");
        Ok((session, peer, events))
    }

    /// As long as the session lasts and the client wants it.
    async fn stay(
        &self,
        world: &World,
        run: &Rc<Run>,
        standing: &Standing,
        mut events: mpsc::Receiver<SessionEvent>,
    ) -> Next {
        let connecting = Instant::now() + self.between(30, 300);
        let leaves_at = Instant::now() + self.between(4000, 30_000);
        let (mut connected, mut silent_until, mut seq) = (false, None, 0);
        loop {
            let event = timeout(PICTURE, events.recv()).await;
            match event {
                Ok(Some(SessionEvent::Started { .. })) => {
                    if let Some(standing) = self.standing.borrow_mut().as_mut() {
                        standing.started = true;
                    }
                    self.note(world, "started");
                }
                Ok(Some(SessionEvent::Ended(_)) | None) => return Next::Over("ended"),
                Ok(Some(_)) | Err(_) => {}
            }
            let now = Instant::now();
            let Some((_, shard)) = run.shard_of(standing.peer) else { continue };
            if !connected && now >= connecting {
                connected = true;
                shard.connect(standing.peer);
            }
            if connected && self.publishes && silent_until.is_none_or(|until| now >= until) {
                seq += 1;
                let tag = world.truth.borrow().tag_of(&standing.session);
                shard.picture(standing.peer, tag, seq, world.now_ms());
            }
            if !self.wants.get() {
                return Next::Leave(EndReason::ByRequest);
            }
            if run.leaving.is_cancelled() && self.happens(0.3) {
                return Next::Leave(EndReason::Gone);
            }
            if self.restless.get() && now >= leaves_at {
                let how = self.chance.borrow_mut().random_range(0..10);
                match how {
                    0..3 => return Next::Leave(EndReason::ByRequest),
                    3..6 => return Next::Leave(EndReason::Gone),
                    6..8 => shard.lose(standing.peer, CloseReason::ConsentLost),
                    8 if self.publishes => shard.lose(standing.peer, CloseReason::ClosedByPeer),
                    _ if self.publishes && silent_until.is_none() => {
                        silent_until = Some(now + self.between(1000, 8000));
                    }
                    _ => {}
                }
            }
        }
    }

    /// As the SDK waits for a stream that is not there.
    async fn wait_for_start(&self, run: &Run) {
        let node = NodeHandle(std::sync::Arc::clone(&run.core));
        let mut starts = node.starts();
        let _waiting = node.wait_for(&self.key);
        let started = async {
            while let Ok(key) = starts.recv().await {
                if key == self.key {
                    return;
                }
            }
        };
        let _ = timeout(RETRY, started).await;
    }
}
