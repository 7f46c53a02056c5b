//! A simulated machine: it runs a node, loses it, and runs it again at the same address.
//!
//! Owns the node's life. Everything of the node but its transports, its doors and its surroundings is real.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ams_api::Api;
use ams_rtc::dtls::DtlsIdentity;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info};

use super::World;
use crate::clock::WallClock;
use crate::config::{Config, FirstUser, Mode};
use crate::net::{Listener, Net};
use crate::node::NodeCore;
use crate::node::port::NodeHandle;
use crate::node::run::Parts;
use crate::node::tasks::Tasks;
use crate::node::webhooks::Webhooks;
use crate::shard::ShardConfig;
use crate::shard::protocol::{PeerId, ShardNo};
use crate::shard::simulated::{self, SimShard};

/// Shards of each node: enough for replicas.
const SHARDS: u16 = 2;
/// Events waiting for the control runtime.
const EVENTS_MAX: usize = 1024;
/// The wall clock of a machine whose clock is right, at the beginning.
const BEGIN_MS: i64 = 1_800_000_000_000;
/// Time clients of a node that is about to stop have to go.
const NOTICE: Duration = Duration::from_secs(2);

/// One run of a node.
pub(super) struct Run {
    pub(super) core: Arc<NodeCore>,
    pub(super) shards: Vec<SimShard>,
    pub(super) api: Api,
    /// The process is gone.
    pub(super) killed: CancellationToken,
    /// Clients are told to go elsewhere.
    pub(super) leaving: CancellationToken,
    ready: Cell<bool>,
}

/// A machine.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) mode: Mode,
    config: Config,
    /// How far its wall clock is off, in ms.
    skew: Arc<AtomicI64>,
    run: RefCell<Option<Rc<Run>>>,
}

/// Everybody's. Made from the system's chance, before the first seed.
pub(super) fn identity() -> Arc<DtlsIdentity> {
    static IDENTITY: OnceLock<Arc<DtlsIdentity>> = OnceLock::new();
    Arc::clone(IDENTITY.get_or_init(|| Arc::new(DtlsIdentity::generate().expect("a certificate"))))
}

impl Host {
    pub(super) fn new(name: &str, address: IpAddr, base: &Config, skew_ms: i64) -> Self {
        let mut config = base.clone();
        config.node_id = name.parse().expect("a name");
        config.advertise = address.to_string();
        config.public_ips = vec![address];
        // Its password would be asked of a service outside.
        config.first_user = FirstUser::None;
        // Transports do nothing here: they must not run out of time.
        config.media.connect_timeout = Duration::from_secs(100_000);
        config.media.consent_timeout = Duration::from_secs(100_000);
        Self {
            name: name.to_owned(),
            address,
            mode: config.mode,
            config,
            skew: Arc::new(AtomicI64::new(skew_ms)),
            run: RefCell::default(),
        }
    }

    /// The run that takes new clients, if there is one.
    pub(super) fn open(&self) -> Option<Rc<Run>> {
        self.run.borrow().clone().filter(|run| run.ready.get() && !run.leaving.is_cancelled())
    }

    /// The run, whatever it takes.
    pub(super) fn run(&self) -> Option<Rc<Run>> {
        self.run.borrow().clone()
    }

    /// Whether it is about to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.run.borrow().as_ref().is_some_and(|run| run.leaving.is_cancelled())
    }

    /// Sets its wall clock forward or back.
    pub(super) fn step_clock(&self, ms: i64) {
        self.skew.fetch_add(ms, Ordering::Relaxed);
    }

    /// Starts the node, if none runs.
    pub(super) fn start(&self, world: &World) {
        if self.run.borrow().is_some() {
            return;
        }
        world.network.revive(self.address);
        let (killed, config) = (CancellationToken::new(), self.config.clone());
        let span = tracing::info_span!("node", name = self.name);
        let (events, shard_events) = mpsc::channel(EVENTS_MAX);
        let shard_config = ShardConfig {
            udp_ports: 0..=0,
            identity: identity(),
            relay: config.relay_link.clone(),
            node: config.node_id.clone(),
            distribution: config.media.viewer_messages,
        };
        let (handles, shards, tasks) = simulated::start(SHARDS, &shard_config, &events);
        for task in tasks {
            let mortal = killed.clone().run_until_cancelled_owned(task);
            tokio::task::spawn_local(mortal.instrument(span.clone()));
        }
        let (skew, begun) = (Arc::clone(&self.skew), world.begun);
        let wall = WallClock::new(move || {
            let since = i64::try_from(Instant::now().saturating_duration_since(begun).as_millis()).unwrap_or(i64::MAX);
            BEGIN_MS + since + skew.load(Ordering::Relaxed)
        });
        let api_config = config.api.clone();
        let relay_port = config.relay.port();
        let core = NodeCore::new(Parts {
            net: Net::Simulated(world.network.place(self.address)),
            orders: CancellationToken::new().into(),
            wall,
            tasks: Tasks::mortal(killed.clone(), span),
            webhooks: Webhooks::new(&config.webhooks).expect("none to read"),
            registry: world.server.client(self.address),
            shards: handles,
            dtls: identity(),
            addresses: vec![self.address],
            relay_port,
            http_port: 5080,
            config,
        });
        let api = Api::new(Arc::new(NodeHandle(Arc::clone(&core))), api_config);
        let leaving = CancellationToken::new();
        let run = Rc::new(Run { core, shards, api, killed, leaving, ready: Cell::new(false) });
        *self.run.borrow_mut() = Some(Rc::clone(&run));
        let hearing = Arc::clone(&run.core).hear_shards(shard_events);
        run.core.tasks.spawn(hearing);
        let listener = world.network.listen(self.address, relay_port);
        let core = Arc::clone(&run.core);
        let begin = run.core.tasks.spawn(async move { core.begin(Some(Listener::Simulated(listener))).await });
        let killed = run.killed.clone();
        tokio::task::spawn_local(async move {
            if killed.run_until_cancelled(begin).await.is_some() {
                run.ready.set(true);
            }
        });
    }

    /// Ends the node where it stands; `silent` if nobody is told.
    pub(super) fn kill(&self, world: &World, silent: bool) {
        if let Some(run) = self.run.borrow_mut().take() {
            if silent {
                world.network.silence(self.address);
            }
            run.killed.cancel();
        }
    }

    /// Ends the node as an operator does.
    pub(super) async fn stop(&self) {
        let Some(run) = self.open() else { return };
        info!(node = self.name, "is to stop");
        run.leaving.cancel();
        let stop = async {
            tokio::time::sleep(NOTICE).await;
            run.core.dismiss(&run.api).await;
            run.core.finish().await;
        };
        run.killed.run_until_cancelled(stop).await;
        run.killed.cancel();
        let mut present = self.run.borrow_mut();
        if present.as_ref().is_some_and(|present| Rc::ptr_eq(present, &run)) {
            *present = None;
        }
    }
}

impl Run {
    /// The shard a peer is on.
    pub(super) fn shard_of(&self, peer: PeerId) -> Option<(ShardNo, &SimShard)> {
        let at = self.shards.iter().position(|shard| shard.has(peer))?;
        Some((simulated::no(at), self.shards.get(at)?))
    }
}
