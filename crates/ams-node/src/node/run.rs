//! A node's life: start, serve, stop, each in one order.
//!
//! Owns that order. Whatever is started here is stopped here and waited for.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ams_api::Api;
use ams_api::port::{EndReason, SessionId};
use ams_registry::Registry;
use ams_relay::HandshakeConfig;
use ams_rtc::candidates::{IceAddressConfig, candidates};
use ams_rtc::dtls::DtlsIdentity;
use ams_rtc::udp::UdpBindError;
use ams_types::Incarnation;
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::access::Access;
use super::around::KnownNodes;
use super::claims::Unreleased;
use super::directory::Directory;
use super::links::OriginLinks;
use super::load::ShardLoads;
use super::places::Places;
use super::port::NodeHandle;
use super::settings::Settings;
use super::suspicion::Watched;
use super::tasks::Tasks;
use super::webhooks::Webhooks;
use super::{NodeCore, STARTS_KEPT};
use crate::clock::WallClock;
use crate::config::{Config, Mode};
use crate::exit::{Exit, ExitError};
use crate::net::{Listener, Net};
use crate::shard::{self, ShardConfig, ShardHandle};
use crate::startup::{self, Door, Listeners};

/// Events of all shards waiting for the control runtime.
const EVENTS_MAX: usize = 8192;
/// Longest wait at the end for tasks that still talk to the registry.
const STOP_LINGER: Duration = Duration::from_secs(5);
/// Sessions ended side by side when the node stops.
const ENDS_AT_ONCE: usize = 64;
/// Longest first wait for the registry; after it the node starts without.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(5);

/// What a running node is told from outside.
#[derive(Clone, Debug)]
pub struct Orders {
    /// To end.
    pub cancel: CancellationToken,
    /// To drain, and end when it is empty; or not to, any more.
    pub drain: watch::Sender<bool>,
}

impl From<CancellationToken> for Orders {
    fn from(cancel: CancellationToken) -> Self {
        Self { cancel, drain: watch::Sender::new(false) }
    }
}

/// Runs a node with its own registry until it is told to end, or cannot go on.
///
/// # Errors
/// What keeps the node from starting, or made it end.
pub async fn run(config: Config, listeners: Listeners, orders: Orders) -> Result<(), ExitError> {
    let registry = connect(&config).await?;
    let ended = run_with(config, listeners, Arc::clone(&registry), orders, |_| std::future::ready(())).await;
    registry.close().await;
    ended
}

/// Opens the registry of a configuration.
///
/// # Errors
/// It cannot be opened; one that merely does not answer yet is no error.
pub async fn connect(config: &Config) -> Result<Arc<dyn Registry>, ExitError> {
    ams_registry::connect(&config.registry, config.registry_client.clone()).await.map_err(|error| {
        ExitError::new(Exit::Registry, format!("registry {} cannot be opened: {error}", config.registry))
            .hint("check --registry; ams-node --check tries it")
    })
}

/// Runs a node on a registry that outlives it. `ready` is told once everything listens.
///
/// # Errors
/// What keeps the node from starting, or made it end.
pub async fn run_with<F: Future<Output = ()>>(
    config: Config,
    listeners: Listeners,
    registry: Arc<dyn Registry>,
    orders: Orders,
    ready: impl FnOnce(NodeHandle) -> F,
) -> Result<(), ExitError> {
    let internal = |what: String| ExitError::new(Exit::Internal, what);
    let http = TcpListener::from_std(listeners.http).map_err(|e| startup::explain(Door::Http, config.http, &e))?;
    let relay = listeners
        .relay
        .map(|l| TcpListener::from_std(l).map_err(|e| startup::explain(Door::Relay, config.relay, &e)))
        .transpose()?;
    let port_of = |l: &TcpListener| l.local_addr().map_or(0, |a| a.port());

    let identity = DtlsIdentity::generate().map_err(|e| internal(format!("no DTLS certificate: {e}")))?;
    let identity = Arc::new(identity);
    let (events, shard_events) = mpsc::channel(EVENTS_MAX);
    let (died, mut deaths) = mpsc::channel(1);
    let shard_config = ShardConfig {
        udp_ports: config.udp_ports.from..=config.udp_ports.to,
        identity: Arc::clone(&identity),
        relay: config.relay_link.clone(),
        node: config.node_id.clone(),
        distribution: config.media.viewer_messages,
    };
    let (shards, threads) =
        shard::start(config.shards, &shard_config, &events, &died).map_err(|error| match &error {
            UdpBindError::NoFreePort { .. } => ExitError::new(Exit::PortInUse, error.to_string())
                .hint("give a wider --udp-ports FROM-TO, or stop what holds the ports"),
            UdpBindError::Io { port, cause } => startup::explain(Door::Media, port, cause),
        })?;
    // From here on only the shards hold senders: the event loop ends when they do.
    drop(events);
    let ipv6 = shards.iter().all(|s| s.ipv6);
    let ice = IceAddressConfig {
        public_ip: config.public_ips.iter().map(ToString::to_string).collect(),
        include_loopback: false,
    };
    let addresses = candidates(&ice, 0, ipv6)
        .map_err(|error| ExitError::new(Exit::Config, error.to_string()).hint("name the address with --public-ip"))?;

    let webhooks = Webhooks::new(&config.webhooks).map_err(|problem| ExitError::new(Exit::Config, problem))?;
    let relay_port = relay.as_ref().map_or(0, port_of);
    let node = NodeCore::new(Parts {
        webhooks,
        config,
        registry,
        net: Net::Tcp,
        wall: WallClock::default(),
        tasks: Tasks::default(),
        orders,
        shards,
        dtls: identity,
        addresses: addresses.into_iter().map(|a| a.ip()).collect(),
        relay_port,
        http_port: port_of(&http),
    });

    let hearing = tokio::spawn(Arc::clone(&node).hear_shards(shard_events));
    node.begin(relay.map(Listener::Tcp)).await;
    node.tasks.spawn(Arc::clone(&node).measure_load_loop());
    let handle = NodeHandle(Arc::clone(&node));
    let api = Api::new(Arc::new(handle.clone()), node.config.api.clone());
    let http_cancel = CancellationToken::new();
    let serving = {
        let (api, stop) = (api.clone(), http_cancel.clone());
        tokio::spawn(async move { api.serve(http, stop).await })
    };
    let udp: Vec<u16> = node.shards.iter().map(|s| s.udp_port).collect();
    info!(
        mode = %node.config.mode,
        node_id = %node.id,
        http = node.http_port,
        relay = node.relay_port,
        ?udp,
        addresses = ?node.addresses,
        "ready"
    );
    ready(handle).await;

    let outcome = tokio::select! {
        () = node.until_empty(&api) => Ok(()),
        Some(shard) = deaths.recv() => {
            error!(shard = shard.0, "a media shard failed; its sessions are lost and the node stops");
            Err(internal(format!("media shard {} failed", shard.0)))
        }
    };
    stop(&node, &api, http_cancel, serving).await;
    threads.stop(&node.shards).await;
    let _ = hearing.await;
    outcome
}

/// Ends a node: its sessions, then its server, then the rest.
async fn stop(node: &Arc<NodeCore>, api: &Api, http_cancel: CancellationToken, serving: tokio::task::JoinHandle<()>) {
    node.dismiss(api).await;
    // Sockets get their last words before the server goes.
    http_cancel.cancel();
    if !api.shutdown(STOP_LINGER).await || tokio::time::timeout(STOP_LINGER, serving).await.is_err() {
        warn!("connections were still open at the end");
    }
    node.finish().await;
}

/// What a node is put together from and does not make itself.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) net: Net,
    pub(crate) wall: WallClock,
    pub(crate) tasks: Tasks,
    pub(crate) orders: Orders,
    pub(crate) webhooks: Webhooks,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) dtls: Arc<DtlsIdentity>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) relay_port: u16,
    pub(crate) http_port: u16,
}

impl NodeCore {
    /// A node that does nothing yet.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            config,
            registry,
            net,
            wall,
            tasks,
            orders,
            webhooks,
            shards,
            dtls,
            addresses,
            relay_port,
            http_port,
        } = parts;
        let incarnation = Incarnation(rand::random());
        Arc::new(Self {
            id: config.node_id.clone(),
            incarnation,
            relay_identity: HandshakeConfig {
                node_id: config.node_id.clone(),
                incarnation,
                role: match config.mode {
                    Mode::Origin => ams_relay::wire::Role::Origin,
                    Mode::Edge => ams_relay::wire::Role::Edge,
                    Mode::Standalone => ams_relay::wire::Role::Standalone,
                },
                key: config.cluster_key.clone(),
                features: ams_relay::wire::Features::default(),
            },
            relay_port,
            http_port,
            registry,
            net,
            wall,
            dtls,
            directory: Mutex::new(Directory { load: vec![0; shards.len()], ..Directory::default() }),
            loads: ShardLoads::new(shards.len()),
            places: Places::new(config.limits.clone()),
            short_of: Mutex::new(None),
            order: tokio::sync::Mutex::default(),
            shards,
            addresses,
            links: OriginLinks::default(),
            settings: Settings::new(config.media.resume_window),
            access: Access::new(),
            webhooks,
            watched: Watched::default(),
            known_nodes: KnownNodes::default(),
            unreleased: Unreleased::default(),
            registry_back: watch::Sender::new(()),
            registry_back_at: Mutex::new(None),
            starts: broadcast::Sender::new(STARTS_KEPT),
            registry_ok: AtomicBool::new(true),
            heartbeat_lag: AtomicU64::new(0),
            cpu_percent: AtomicU32::new(0),
            links_refused: AtomicU64::new(0),
            orders,
            draining: AtomicBool::new(false),
            drains_since: AtomicI64::new(0),
            row_changed: Notify::new(),
            leaving: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            tasks,
            cancel: CancellationToken::new(),
            config,
        })
    }

    /// Cleans up after an earlier run, and starts what a node does all the time.
    pub(crate) async fn begin(self: &Arc<Self>, relay: Option<Listener>) {
        let found = tokio::time::timeout(REGISTRY_PATIENCE, self.registry.ping()).await;
        if !matches!(found, Ok(Ok(()))) {
            warn!(registry = %self.config.registry, "registry does not answer; starting without it");
            self.registry_ok.store(false, Ordering::Relaxed);
        }
        self.clean_leftovers().await;
        self.tasks.spawn(Arc::clone(self).heartbeat_node_loop());
        self.tasks.spawn(Arc::clone(self).heartbeat_streams_loop());
        self.tasks.spawn(Arc::clone(self).audience_loop());
        self.tasks.spawn(Arc::clone(self).registry_watch_loop());
        self.tasks.spawn(Arc::clone(self).waiting_loop());
        self.tasks.spawn(Arc::clone(self).settings_loop());
        self.tasks.spawn(Arc::clone(self).visits_loop());
        self.tasks.spawn(Arc::clone(self).first_user_loop());
        self.tasks.spawn(Arc::clone(self).stale_loop());
        self.tasks.spawn(Arc::clone(self).idle_loop());
        self.tasks.spawn(Arc::clone(self).webhook_writer_loop());
        self.tasks.spawn(Arc::clone(self).webhook_sender_loop());
        self.tasks.spawn(Arc::clone(self).webhook_status_loop());
        self.tasks.spawn(Arc::clone(self).interruptions_loop());
        if let Some(relay) = relay {
            self.tasks.spawn(Arc::clone(self).accept_links(relay));
        }
        if self.is_registry_ok() {
            // Before the first request: an address list must not be open for a moment.
            let _ = self.read_settings().await;
        }
    }

    /// Ends all sessions: no new ones, those there are told, records released.
    pub(crate) async fn dismiss(self: &Arc<Self>, api: &Api) {
        self.draining.store(true, Ordering::Relaxed);
        self.leaving.store(true, Ordering::Relaxed);
        api.announce_stop(Duration::ZERO, Duration::ZERO);
        let (sessions, streams) = {
            let directory = self.directory();
            (directory.sessions.keys().cloned().collect::<Vec<SessionId>>(), directory.streams.len())
        };
        info!(sessions = sessions.len(), streams, "stopping");
        // Many at once: each publisher's end waits for the registry.
        let ends = futures_util::stream::iter(sessions).for_each_concurrent(ENDS_AT_ONCE, |session| async move {
            self.end_session(&session, EndReason::NodeStopping).await;
        });
        ends.await;
        self.settle_last().await;
        self.write_last_webhooks().await;
    }

    /// Ends the tasks, and takes the node's row out of the registry.
    pub(crate) async fn finish(&self) {
        self.cancel.cancel();
        if tokio::time::timeout(STOP_LINGER, self.tasks.wait()).await.is_err() {
            warn!("some tasks did not end in time");
        }
        if let Err(error) = self.registry.remove_node(&self.id).await {
            warn!(%error, "the node's row stays in the registry until it is stale");
        }
    }
}
