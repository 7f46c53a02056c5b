//! Whole nodes in this process: real shards, real relay links, one registry in memory. No media flows; that a publisher
//! went live is said for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_api::port::{
    Caller, Credentials, Door, EndReason, Node, Opened, PlayRequest, PublishRequest, Refusal, SessionEvent, SessionId,
};
use ams_registry::Registry;
use ams_rtc::transport::CloseReason;
use ams_types::StreamKey;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::port::NodeHandle;
use super::run::{connect, run_with};
use crate::cli::DemoArgs;
use crate::config::{self, Config, PortRange};
use crate::shard::protocol::Census;
use crate::startup;

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n";

struct Running {
    node: NodeHandle,
    cancel: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

struct Cluster {
    registry: Arc<dyn Registry>,
    origin: Running,
    edge: Running,
}

async fn start(mut config: Config, registry: &Arc<dyn Registry>) -> Running {
    config.udp_ports = PortRange { from: 0, to: 0 };
    config.public_ips = vec![[127, 0, 0, 1].into()];
    let listeners = startup::bind(&config).unwrap();
    let (tell, told) = oneshot::channel();
    let (cancel, registry) = (CancellationToken::new(), Arc::clone(registry));
    let stop = cancel.clone();
    let ended = tokio::spawn(async move {
        let ready = async move |node| drop(tell.send(node));
        run_with(config, listeners, registry, stop.into(), ready).await.unwrap();
    });
    Running { node: told.await.unwrap(), cancel, ended }
}

impl Running {
    async fn stop(self) {
        self.cancel.cancel();
        self.ended.await.unwrap();
    }

    async fn census(&self) -> Census {
        self.node.0.census().await
    }

    async fn publish(&self, id: &str) -> Result<Opened<()>, Refusal> {
        let request = PublishRequest {
            key: key(id),
            caller: caller(),
            stream_name: String::new(),
            meta_data: String::new(),
            main_track: String::new(),
            credentials: Credentials::default(),
        };
        self.node.open_publisher(request).await
    }

    /// A publisher whose media has come.
    async fn live(&self, id: &str) -> Opened<()> {
        let mut opened = self.publish(id).await.unwrap();
        self.node.publisher_offer(&opened.session, OFFER.to_owned()).await.unwrap();
        let peer = self.node.0.directory().sessions[&opened.session].peer;
        self.node.0.publisher_live(peer, Vec::new()).await;
        assert!(matches!(opened.events.recv().await, Some(SessionEvent::Started { .. })));
        opened
    }

    async fn play(&self, id: &str) -> Result<Viewer, Refusal> {
        play(self.node.clone(), id).await
    }

    /// So many viewers, each from a task of its own: they meet on every worker.
    fn join(&self, id: &'static str, count: usize) -> JoinSet<Viewer> {
        (0..count).map(|_| play(self.node.clone(), id)).map(|play| async { play.await.unwrap() }).collect()
    }

    /// So many viewers that leave, likewise.
    fn leave(&self, viewers: &[Viewer]) -> JoinSet<bool> {
        let close = |(session, _): &Viewer| {
            let (node, session) = (self.node.clone(), session.clone());
            async move { node.close(&session, EndReason::ByRequest).await }
        };
        viewers.iter().map(close).collect()
    }

    async fn close(&self, session: &SessionId) -> bool {
        self.node.close(session, EndReason::ByRequest).await
    }

    /// Waits until the shards hold what they should.
    async fn until(&self, what: &str, is_so: impl Fn(&Census) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(8);
        loop {
            let census = self.census().await;
            if is_so(&census) {
                return;
            }
            assert!(Instant::now() < deadline, "never: {what}: {census:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Cluster {
    async fn start() -> Self {
        let any = || "127.0.0.1:0".to_owned();
        let args = DemoArgs {
            origin_http: any(),
            edge_http: any(),
            relay: any(),
            udp_ports: "50000-60000".to_owned(),
            public_ip: Vec::new(),
            apps: Vec::new(),
            shards: "4".to_owned(),
            log: "info".to_owned(),
        };
        let (origin, edge) = config::demo(&args).unwrap();
        let registry = connect(&origin).await.unwrap();
        Self { origin: start(origin, &registry).await, edge: start(edge, &registry).await, registry }
    }

    async fn stop(self) {
        tokio::join!(self.origin.stop(), self.edge.stop());
        self.registry.close().await;
    }
}

type Viewer = (SessionId, mpsc::Receiver<SessionEvent>);

async fn play(node: NodeHandle, id: &str) -> Result<Viewer, Refusal> {
    let request = PlayRequest {
        key: key(id),
        caller: caller(),
        data_channel: false,
        room: String::new(),
        credentials: Credentials::default(),
    };
    node.open_viewer(request).await.map(|opened| (opened.session, opened.events))
}

fn key(id: &str) -> StreamKey {
    StreamKey::new("WebRTCAppEE".parse().unwrap(), id.parse().unwrap())
}

fn caller() -> Caller {
    Caller { door: Door::WebSocket, remote_ip: [127, 0, 0, 1].into(), user_agent: String::new() }
}

/// What a session was told, if anything, without waiting.
fn told(events: &mut mpsc::Receiver<SessionEvent>) -> Option<SessionEvent> {
    events.try_recv().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn viewers_come_and_go_at_once_and_none_is_lost() {
    let cluster = Cluster::start().await;
    let node = &cluster.origin;
    let publisher = node.live("s").await;
    for round in 0..150 {
        // All at once: the first of each shard brings the replica, the others must not come before it.
        let mut viewers = node.join("s", 8).join_all().await;
        node.until("all are on shards", |c| c.viewers == 8).await;
        // All leave while others come: replicas go and come again.
        let (leaving, joining) = (node.leave(&viewers), node.join("s", 8));
        let (left, joined) = tokio::join!(leaving.join_all(), joining.join_all());
        assert!(left.into_iter().all(|was_there| was_there));
        viewers = joined;
        node.until("as many as before", |c| c.viewers == 8).await;
        for (session, events) in &mut viewers {
            assert!(told(events).is_none(), "round {round}: {session:?} was ended");
        }
        node.leave(&viewers).join_all().await;
        node.until("only the home is left", |c| (c.viewers, c.streams, c.addresses) == (0, 1, 0)).await;
    }
    assert!(node.close(&publisher.session).await);
    node.until("nothing is left", |c| (c.publishers, c.streams) == (0, 0)).await;
    let directory_is_empty = {
        let directory = node.node.0.directory();
        directory.sessions.is_empty() && directory.peers.is_empty() && directory.load.iter().all(|n| *n == 0)
    };
    assert!(directory_is_empty);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_edge_pulls_once_and_its_viewers_hear_the_end() {
    let cluster = Cluster::start().await;
    let (origin, edge) = (&cluster.origin, &cluster.edge);
    assert!(matches!(edge.play("s").await, Err(Refusal::NotLive(_))));
    let mut starts = edge.node.starts();
    let guard = edge.node.wait_for(&key("s"));
    let publisher = origin.live("s").await;
    let started = tokio::time::timeout(Duration::from_secs(1), starts.recv()).await.expect("within a second");
    assert_eq!(started.unwrap(), key("s"));
    drop(guard);

    let mut viewers = edge.join("s", 30).join_all().await;
    edge.until("all are on shards", |c| c.viewers == 30).await;
    let (served, links) = (origin.census().await, edge.census().await);
    assert_eq!((served.served, links.links), (1, 1));

    assert!(origin.close(&publisher.session).await);
    for (session, events) in &mut viewers {
        let told = tokio::time::timeout(Duration::from_secs(1), events.recv()).await.expect("within a second");
        assert!(matches!(told, Some(SessionEvent::Ended(EndReason::StreamEnded))), "{session:?}: {told:?}");
    }
    edge.until("nothing is left", |c| (c.viewers, c.streams) == (0, 0)).await;
    origin.until("nothing is left", |c| (c.served, c.streams) == (0, 0)).await;

    // Once more; this time the viewers leave first.
    let publisher = origin.live("s").await;
    let (session, _events) = edge.play("s").await.unwrap();
    edge.until("it is on a shard", |c| c.viewers == 1).await;
    assert!(edge.close(&session).await);
    edge.until("the pull is let go", |c| c.streams == 0).await;
    origin.until("nothing is served", |c| (c.served, c.streams) == (0, 1)).await;
    assert!(origin.close(&publisher.session).await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_id_is_free_as_soon_as_its_publisher_has_left() {
    let cluster = Cluster::start().await;
    let node = &cluster.origin;
    for _ in 0..20 {
        let opened = node.live("s").await;
        assert!(matches!(node.publish("s").await, Err(Refusal::InUse(_))));
        let peer = node.node.0.directory().sessions[&opened.session].peer;
        // The SDK closes its connection before it says stop: both ends come at one time.
        let core = Arc::clone(&node.node.0);
        let lost = tokio::spawn(async move { core.peer_closed(peer, &CloseReason::ClosedByPeer).await });
        tokio::task::yield_now().await;
        node.close(&opened.session).await;
        let again = node.publish("s").await.expect("free");
        assert!(node.close(&again.session).await);
        lost.await.unwrap();
    }
    node.until("nothing is left", |c| (c.publishers, c.streams) == (0, 0)).await;
    assert!(node.node.0.directory().releasing.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_registry_what_runs_goes_on_and_ends() {
    let cluster = Cluster::start().await;
    let node = &cluster.origin;
    let mut opened = node.publish("s").await.unwrap();
    node.node.publisher_offer(&opened.session, OFFER.to_owned()).await.unwrap();
    let peer = node.node.0.directory().sessions[&opened.session].peer;
    cluster.registry.close().await;
    node.node.0.publisher_live(peer, Vec::new()).await;
    assert!(matches!(told(&mut opened.events), Some(SessionEvent::Started { .. })), "its media is there");
    let (_session, mut events) = node.play("s").await.expect("viewers here need no registry");
    let other = node.publish("other").await.expect("no other node holds it");
    assert!(matches!(node.publish("other").await, Err(Refusal::InUse(_))));
    assert!(node.close(&other.session).await);
    let begun = Instant::now();
    assert!(node.close(&opened.session).await);
    assert!(begun.elapsed() < Duration::from_secs(1), "the client does not wait for the registry to come back");
    assert!(matches!(told(&mut events), Some(SessionEvent::Ended(EndReason::StreamEnded))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_stops_tells_everybody_and_frees_its_ids() {
    let cluster = Cluster::start().await;
    let mut published = Vec::new();
    for n in 0..10 {
        published.push(cluster.origin.live(&format!("s{n}")).await);
    }
    // Some of them are likely to come after their publisher in whatever order sessions are ended.
    let mut here = cluster.origin.join("s0", 12).join_all().await;
    let (_session, mut there) = cluster.edge.play("s0").await.unwrap();
    let Cluster { registry, origin, edge } = cluster;
    origin.stop().await;
    for opened in &mut published {
        assert!(matches!(told(&mut opened.events), Some(SessionEvent::Ended(EndReason::NodeStopping))));
    }
    for (_, events) in &mut here {
        let told = told(events);
        assert!(matches!(told, Some(SessionEvent::Ended(EndReason::NodeStopping))), "{told:?}");
    }
    assert!(told(&mut there).is_none(), "another origin may take it up");
    for n in 0..10 {
        assert!(registry.get_broadcast(&key(&format!("s{n}"))).await.unwrap().is_none(), "no record stays");
    }
    assert_eq!(registry.list_nodes().await.unwrap().len(), 1, "the edge's row");
    edge.stop().await;
    registry.close().await;
}
