//! The cluster in a simulated world: real nodes on virtual time, over a network and with a registry that fail by the seed.
//!
//! Owns the worlds and their runs. After each run it is checked what must be true ([`truth`]): one owner per stream and
//! epoch, no mixed media, every viewer of a live stream sees it, counts and records are right, nothing is left over. A seed
//! does the same every time, on a thread of its own.
//!
//! - [`chance`], [`net`], [`registry`]: the surroundings
//! - [`host`], [`clients`]: machines with nodes; publishers and viewers
//! - [`faults`]: what goes wrong
//!
//! `AMS_SIM_SEEDS` says how many seeds [`seeds`] runs, `AMS_SIM_SEED` which one [`one`] does; `AMS_SIM_TRACE=1` has it say
//! what happens.

mod chance;
mod clients;
mod faults;
mod host;
pub(crate) mod net;
mod registry;
mod truth;

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ams_types::StreamKey;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use crate::cli::DemoArgs;
use crate::config::{self, Config};
use clients::Client;
use host::Host;
use net::{Network, Weather};
use registry::Server;
use truth::Truth;

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(40);
/// How long it may take until all is well again: a dead node's claim stands
/// for 12 s, publishers try again every 3 s, and a record that nobody confirms is ended after 32 s.
const SETTLE: Duration = Duration::from_secs(50);
/// How often it is looked whether all is well, and how often in a row it must be.
const LOOK_AGAIN: Duration = Duration::from_millis(730);
const WELL_IN_A_ROW: usize = 3;
/// How often what must always be true is checked.
const CHECK: Duration = Duration::from_millis(100);

/// Copies of the registry: of a moment ago, and older ones.
const JUST_NOW: u8 = 0;
const BACKUP: u8 = 1;

/// Everything there is.
struct World {
    begun: Instant,
    network: Network,
    registry_address: IpAddr,
    server: Server,
    hosts: Vec<Host>,
    streams: Vec<StreamKey>,
    clients: Vec<Rc<Client>>,
    truth: RefCell<Truth>,
    /// Of all that happened, in order: two runs of a seed have the same.
    digest: Cell<u64>,
}

fn configs() -> (Config, Config) {
    let any = || "127.0.0.1:0".to_owned();
    let args = DemoArgs {
        origin_http: any(),
        edge_http: any(),
        relay: "127.0.0.1:5000".to_owned(),
        udp_ports: "50000-60000".to_owned(),
        public_ip: Vec::new(),
        apps: vec!["live".to_owned()],
        shards: "2".to_owned(),
        log: "info".to_owned(),
    };
    config::demo(&args).expect("the demo's configuration is valid")
}

impl World {
    fn new(chance: &mut StdRng) -> Self {
        let network = Network::new(chance.random());
        let address = |last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
        let registry_address = address(100);
        let server = Server::new(registry_address, network.clone(), chance.random());
        let (origin, edge) = configs();
        let mut hosts = Vec::new();
        for (name, base, from, count) in
            [("origin", &origin, 1, chance.random_range(2..4)), ("edge", &edge, 11, chance.random_range(1..4))]
        {
            for n in 0..count {
                let skew = chance.random_range(-2000..2000);
                hosts.push(Host::new(&format!("{name}-{}", n + 1), address(from + n), base, skew));
            }
        }
        let (mut streams, mut clients) = (Vec::new(), Vec::new());
        for n in 0..chance.random_range(1..4) {
            let key = StreamKey::new("live".parse().expect("a name"), format!("s{n}").parse().expect("an id"));
            let publishers = if chance.random_bool(0.5) { 2 } else { 1 };
            let viewers = chance.random_range(1..5);
            for at in 0..publishers + viewers {
                let publishes = at < publishers;
                let name = format!("{}-{n}-{at}", if publishes { "publisher" } else { "viewer" });
                clients.push(Rc::new(Client::new(name, key.clone(), publishes, chance.random())));
            }
            streams.push(key);
        }
        Self {
            begun: Instant::now(),
            network,
            registry_address,
            server,
            hosts,
            streams,
            clients,
            truth: RefCell::default(),
            digest: Cell::new(0),
        }
    }

    /// Virtual time since the beginning, in ms.
    fn now_ms(&self) -> u64 {
        u64::try_from(Instant::now().saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self, who: &str, what: &str) {
        let mut hasher = DefaultHasher::new();
        (self.digest.get(), self.now_ms(), who, what).hash(&mut hasher);
        self.digest.set(hasher.finish());
    }

    /// Mends everything.
    fn heal(&self) {
        let addresses: Vec<_> = self.hosts.iter().map(|h| h.address).chain([self.registry_address]).collect();
        for (at, a) in addresses.iter().enumerate() {
            addresses.iter().skip(at + 1).for_each(|b| self.network.mend(*a, *b));
        }
        self.network.set_weather(Weather::default());
        self.server.start();
    }

    async fn live(self: &Rc<Self>, chance: &mut StdRng) {
        self.hosts.iter().for_each(|host| host.start(self));
        let watched = Rc::clone(self);
        spawn_local(async move {
            loop {
                sleep(CHECK).await;
                watched.truth.borrow_mut().check_always(&watched);
            }
        });
        for client in &self.clients {
            spawn_local(Rc::clone(client).live(Rc::clone(self)));
        }
        let until = Instant::now() + TROUBLE;
        faults::run(Rc::clone(self), chance, until).await;
        self.heal();
        for client in &self.clients {
            client.restless.set(false);
            client.wants.set(true);
        }
        // One stream may end up without a publisher: nothing of it may stay.
        if let Some(abandoned) = self.streams.first().filter(|_| chance.random_bool(0.3)) {
            self.clients.iter().filter(|c| c.publishes && c.key == *abandoned).for_each(|c| c.wants.set(false));
        }
        // Nodes that are about to stop do so first.
        while self.hosts.iter().any(Host::is_stopping) {
            sleep(CHECK).await;
        }
        self.hosts.iter().for_each(|host| host.start(self));
        // What is well does not stay so by itself: some wait until the end before they look.
        let mended = Instant::now();
        if chance.random_bool(0.3) {
            sleep(SETTLE).await;
        }
        let mut well = 0;
        while well < WELL_IN_A_ROW {
            sleep(LOOK_AGAIN).await;
            let wrong = truth::check_settled(self).await;
            well = if wrong.is_empty() { well + 1 } else { 0 };
            self.truth.borrow_mut().settled_wrong = wrong;
            // What is on its way at one moment is not at another.
            if well == 0 && mended.elapsed() > SETTLE + LOOK_AGAIN * 5 {
                break;
            }
        }
    }
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime")
}

/// What the branches of a `select!` are tried by depends on how many runtimes the process had before: as many as its batch
/// would have given a seed.
fn stand_in(count: u64) {
    for _ in 0..count {
        std::thread::spawn(|| runtime().block_on(async {})).join().expect("no panic");
    }
}

/// Runs a seed. Returns its digest and what was wrong.
fn run(seed: u64) -> (u64, Vec<String>) {
    chance::seed(seed);
    let runtime = runtime();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut chance = StdRng::seed_from_u64(seed);
        let world = Rc::new(World::new(&mut chance));
        if std::env::var_os("AMS_SIM_TRACE").is_some() {
            trace(world.begun);
        }
        world.live(&mut chance).await;
        (world.digest.get(), world.truth.take().wrong())
    })
}

/// Has everything said that happens, with the time of the simulation.
fn trace(begun: Instant) {
    struct Virtual(Instant);
    impl tracing_subscriber::fmt::time::FormatTime for Virtual {
        fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
            write!(w, "{:9.3}", Instant::now().saturating_duration_since(self.0).as_secs_f64())
        }
    }
    let filter = tracing_subscriber::EnvFilter::new("ams_node=debug,ams_relay=debug,ams_registry=debug");
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Virtual(begun))
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seed `AMS_SIM_SEED`, or `AMS_SIM_BATCH` from there on, in this process.
#[test]
fn one() {
    let (first, count) = (number("AMS_SIM_SEED", 1), number("AMS_SIM_BATCH", 1));
    let panicked = Arc::new(AtomicBool::new(false));
    let (flag, usual) = (Arc::clone(&panicked), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        flag.store(true, Ordering::Relaxed);
        usual(info);
    }));
    host::identity();
    stand_in(first % BATCH);
    // The harness has begun the line.
    println!();
    let mut failed = 0;
    for seed in first..first + count {
        // A thread of its own: the order of hash maps is the thread's.
        let (digest, mut wrong) = std::thread::spawn(move || run(seed)).join().unwrap_or_default();
        if panicked.swap(false, Ordering::Relaxed) {
            wrong.push("panicked".to_owned());
        }
        println!("seed {seed}: digest {digest:016x}");
        for what in &wrong {
            println!("seed {seed}: {what}");
        }
        failed += u32::from(!wrong.is_empty());
        println!("seed {seed}: {}", if wrong.is_empty() { FINE } else { "failed" });
    }
    assert!(failed == 0, "{failed} of the seeds from {first} on found something wrong");
}

/// The verdict on a seed of which nothing is wrong.
const FINE: &str = "fine";

/// What the seeds of one process said.
struct Outcome(String);

impl Outcome {
    fn said(&self, seed: u64) -> impl Iterator<Item = &str> {
        let begin = format!("seed {seed}: ");
        self.0.lines().filter_map(move |line| line.strip_prefix(&begin))
    }

    fn digest(&self, seed: u64) -> Option<&str> {
        self.said(seed).find_map(|words| words.strip_prefix("digest "))
    }

    /// Also false when the process ended before it came to this seed.
    fn is_fine(&self, seed: u64) -> bool {
        self.said(seed).any(|words| words == FINE)
    }
}

/// Runs some seeds in a process of their own: what one does wrong to it is not another's trouble for long.
fn in_a_process(first: u64, count: u64) -> Outcome {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["node::sim::one", "--exact", "--nocapture", "--test-threads", "1"])
        .env("AMS_SIM_SEED", first.to_string())
        .env("AMS_SIM_BATCH", count.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .expect("this program runs");
    Outcome([output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
}

/// How many seeds share a process: starting one costs as much as a seed does.
const BATCH: u64 = 20;

/// Many seeds, on all cores.
#[test]
fn seeds() {
    let (first, count) = (number("AMS_SIM_FIRST", 1), number("AMS_SIM_SEEDS", 24));
    let next = AtomicU64::new(first / BATCH);
    let failed = std::sync::Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed) * BATCH;
                    let (begin, end) = (batch.max(first), (batch + BATCH).min(first + count));
                    if begin >= end {
                        return;
                    }
                    if begin > first && begin.is_multiple_of(1000) {
                        println!("seed {begin}, {} of {count} done", begin - first);
                    }
                    let outcome = in_a_process(begin, end - begin);
                    for seed in (begin..end).filter(|seed| !outcome.is_fine(*seed)) {
                        // What its panic said names no seed.
                        let panics = outcome.0.lines().filter(|line| line.contains("panicked"));
                        let said: Vec<_> = outcome.said(seed).chain(panics).collect();
                        println!("seed {seed}: {}", said.join("\n    "));
                        failed.lock().expect("no panic").push(seed);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort_unstable();
    assert!(
        failed.is_empty(),
        "{} of {count} seeds fail: {failed:?}; to see what happens: AMS_SIM_TRACE=1 AMS_SIM_SEED=…",
        failed.len()
    );
    println!("{count} seeds, from {first}: nothing wrong");
}

/// Alone or behind another.
#[test]
fn a_seed_does_the_same_again() {
    let (first, second) = (3, 4);
    let (both, alone) = (in_a_process(first, 2), in_a_process(second, 1));
    assert!(both.digest(second).is_some(), "{}", both.0);
    assert_eq!(both.digest(second), alone.digest(second));
    assert_eq!(both.digest(first), in_a_process(first, 1).digest(first));
}
