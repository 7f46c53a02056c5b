//! Hours of unrest: publishers and viewers that come and go, nodes and the database that die and hang, strangers at every
//! door. Between its legs all is calm, and the nodes that lived through it must be as small as they were, with no session
//! left and none unaccounted for.
//!
//!     AMS_SOAK_MINUTES=120 tests/env/with-mongo cargo test --workspace --test soak -- unrest --nocapture
//!
//! Three minutes without the variable; ten legs in any case. `AMS_SOAK_SEED` is what the faults follow.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_testkit::ams::AmsSocket;
use ams_testkit::case::{long_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{Control, LightPublisher, LightViewer};
use ams_testkit::metrics::figures;
use ams_testkit::mongo::bson::doc;
use ams_testkit::mongod::Mongod;
use ams_testkit::node::NodeProcess;
use ams_testkit::{APP, eventually, http};
use anyhow::{Context, Result, bail, ensure};
use futures_util::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

/// Streams, each with one who wants to publish it.
const STREAMS: u32 = 6;
/// Viewers who go from stream to stream.
const VIEWERS: u32 = 24;
const LEGS: u32 = 10;
/// Legs before what a node takes counts: allocators and caches fill.
const WARM_LEGS: u32 = 2;
/// Longest wait until nothing is left after the unrest: a record that nobody confirms is ended after 32 s.
const CALM: Duration = Duration::from_secs(60);
/// Longest wait for a step that must succeed.
const SOON: Duration = Duration::from_secs(10);
/// What a client waits before it tries again.
const AGAIN: Duration = Duration::from_millis(1500);
/// Memory may grow by this much from the first legs to the last, in kB: allocators breathe, leaks do not stop.
const GROWTH_KB_MAX: u64 = 8 * 1024;
/// Connections of the driver and such, which come and go.
const DESCRIPTORS_SPREAD: usize = 6;
/// The same of tasks.
const TASKS_SPREAD: u64 = 6;

/// Figures that are zero on a node without sessions.
const NOTHING: [&str; 8] = [
    "ams_publishers",
    "ams_viewers",
    "ams_streams",
    "ams_sessions",
    "ams_places",
    "ams_media_addresses",
    "ams_relay_streams_served",
    "ams_waiting",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn unrest() {
    let time = Duration::from_secs(60 * number("AMS_SOAK_MINUTES", 3));
    long_case(time * 2 + CALM * 2 * LEGS, soak(time / LEGS, number("AMS_SOAK_SEED", 1)));
}

/// What clients went through.
#[derive(Debug, Default)]
struct Told {
    published: AtomicU64,
    played: AtomicU64,
    /// Packets that were checked byte by byte.
    packets: AtomicU64,
    /// Why somebody had to try again, and how often.
    again: Mutex<BTreeMap<String, u64>>,
    /// What must never happen.
    wrong: Mutex<Vec<String>>,
}

impl Told {
    /// Somebody was refused, and waits before the next try.
    async fn again(&self, error: &anyhow::Error) {
        // Ids and addresses differ; reasons are few.
        let reason: String = error.to_string().chars().take(160).collect();
        let reason = reason.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned();
        *self.again.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
        sleep(AGAIN).await;
    }

    /// What a machine misses while it is frozen nobody sends again; but nothing comes twice or changed.
    fn check(&self, viewer: &LightViewer, name: impl FnOnce() -> String) {
        self.packets.fetch_add(viewer.counts.get(|c| &c.received), Ordering::Relaxed);
        let counted = [viewer.counts.get(|c| &c.wrong), viewer.counts.get(|c| &c.repeated)];
        if counted != [0; 2] {
            let first = viewer.counts.first_wrong.lock().map_or(None, |first| first.clone());
            let what = format!("{}: wrong and repeated {counted:?}, {first:?}", name());
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        }
    }
}

/// Whether clients come and go, or stay away.
type Mood = watch::Receiver<bool>;

/// Stays for a while, unless the node ends it or calm comes, and leaves in one of the ways that clients have. Returns what
/// the client's transport is to do.
async fn stay_and_leave(
    socket: &mut Option<AmsSocket>,
    id: &str,
    stays: Duration,
    mood: &mut Mood,
    chance: &mut StdRng,
) -> Option<Control> {
    if let Some(socket) = socket {
        tokio::select! {
            _ = socket.closed(stays) => {}
            _ = mood.wait_for(|unrest| !*unrest) => {}
        }
    }
    match chance.random_range(0..4) {
        0 => {
            socket.iter().for_each(AmsSocket::freeze);
            return Some(Control::Silent(true));
        }
        1 => return Some(Control::Close),
        2 => drop(socket.take()),
        _ => {
            if let Some(socket) = socket {
                let _ = socket.stop(id).await;
            }
        }
    }
    None
}

/// One who publishes a stream again and again, now here, now there.
async fn publisher(number: u32, origins: [String; 2], mut mood: Mood, told: Arc<Told>, mut chance: StdRng) {
    let id = format!("s{number}");
    while mood.wait_for(|unrest| *unrest).await.is_ok() {
        let Some(origin) = origins.choose(&mut chance) else { return };
        match LightPublisher::publish(origin, &id).await {
            Ok(mut publisher) => {
                told.published.fetch_add(1, Ordering::Relaxed);
                let stays = Duration::from_millis(chance.random_range(2_000..40_000));
                let last = stay_and_leave(&mut publisher.socket, &id, stays, &mut mood, &mut chance).await;
                last.into_iter().for_each(|last| publisher.control(last));
                sleep(Duration::from_millis(chance.random_range(0..4_000))).await;
            }
            Err(error) => told.again(&error).await,
        }
    }
}

/// One who plays one stream after the other, here or there.
async fn viewer(nodes: [String; 4], mut mood: Mood, told: Arc<Told>, mut chance: StdRng) {
    while mood.wait_for(|unrest| *unrest).await.is_ok() {
        let Some(node) = nodes.choose(&mut chance) else { return };
        let id = format!("s{}", chance.random_range(0..STREAMS));
        match LightViewer::play(node, &id).await {
            Ok(mut viewer) => {
                told.played.fetch_add(1, Ordering::Relaxed);
                let stays = Duration::from_millis(chance.random_range(500..45_000));
                let last = stay_and_leave(&mut viewer.socket, &id, stays, &mut mood, &mut chance).await;
                last.into_iter().for_each(|last| viewer.control(last));
                told.check(&viewer, || format!("viewer of {id} at {node}"));
            }
            Err(error) => told.again(&error).await,
        }
    }
}

/// The nodes and their database.
struct Site {
    mongod: Mongod,
    /// Its origin and its edge live through everything.
    cluster: Cluster,
    mortal_origin: NodeProcess,
    mortal_edge: NodeProcess,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillOrigin,
    KillEdge,
    DrainOrigin,
    DrainEdge,
    FreezeOrigin,
    FreezeEdge,
    FreezeSurvivingOrigin,
    FreezeSurvivingEdge,
    KillDatabase,
    FreezeDatabase,
    Strangers,
    Calls,
}

const FAULTS: [Fault; 12] = [
    Fault::KillOrigin,
    Fault::KillEdge,
    Fault::DrainOrigin,
    Fault::DrainEdge,
    Fault::FreezeOrigin,
    Fault::FreezeEdge,
    Fault::FreezeSurvivingOrigin,
    Fault::FreezeSurvivingEdge,
    Fault::KillDatabase,
    Fault::FreezeDatabase,
    Fault::Strangers,
    Fault::Calls,
];

impl Site {
    async fn start() -> Result<Self> {
        let mongod = Mongod::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(210, 1).registry(mongod.uri())).await?;
        let mortal_origin = NodeProcess::start(cluster.node("origin", 20)).await?;
        let mortal_edge = NodeProcess::start(cluster.node("edge", 21)).await?;
        Ok(Self { mongod, cluster, mortal_origin, mortal_edge })
    }

    fn nodes(&self) -> Result<[&NodeProcess; 4]> {
        Ok([&self.cluster.origin, self.cluster.edge(0)?, &self.mortal_origin, &self.mortal_edge])
    }

    /// Lets something go wrong, and mends it.
    async fn suffer(&mut self, fault: Fault, chance: &mut StdRng) -> Result<()> {
        let lasts = Duration::from_millis(chance.random_range(100..8_000));
        match fault {
            Fault::KillOrigin | Fault::KillEdge | Fault::DrainOrigin | Fault::DrainEdge => {
                let node = match fault {
                    Fault::KillOrigin | Fault::DrainOrigin => &mut self.mortal_origin,
                    _ => &mut self.mortal_edge,
                };
                if matches!(fault, Fault::KillOrigin | Fault::KillEdge) {
                    node.kill()?;
                } else {
                    node.signal("TERM")?;
                    let ended = node.ended(Duration::from_secs(60)).await?;
                    ensure!(ended.success(), "a drained node ended with {ended}:\n{}", node.log());
                }
                sleep(lasts).await;
                node.restart().await?;
            }
            Fault::FreezeOrigin => frozen(&self.mortal_origin, lasts).await?,
            Fault::FreezeEdge => frozen(&self.mortal_edge, lasts).await?,
            Fault::FreezeSurvivingOrigin => frozen(&self.cluster.origin, lasts).await?,
            Fault::FreezeSurvivingEdge => frozen(self.cluster.edge(0)?, lasts).await?,
            Fault::KillDatabase => {
                self.mongod.kill()?;
                sleep(lasts * 3).await;
                self.mongod.restart().await?;
            }
            Fault::FreezeDatabase => {
                self.mongod.signal("STOP")?;
                sleep(lasts * 2).await;
                self.mongod.signal("CONT")?;
            }
            Fault::Strangers => {
                for node in self.nodes()? {
                    strangers(node, chance).await;
                }
            }
            Fault::Calls => {
                for node in self.nodes()? {
                    calls(node).await;
                }
            }
        }
        Ok(())
    }
}

async fn frozen(node: &NodeProcess, lasts: Duration) -> Result<()> {
    node.signal("STOP")?;
    sleep(lasts).await;
    node.signal("CONT")
}

/// Connections that say nothing or nonsense, at every door.
async fn strangers(node: &NodeProcess, chance: &mut StdRng) {
    let nonsense: Vec<u8> = (0..300).map(|_| chance.random()).collect();
    let knock = |address| {
        let nonsense = &nonsense;
        async move {
            let Ok(mut stream) = TcpStream::connect(address).await else { return };
            let _ = stream.write_all(nonsense).await;
            sleep(Duration::from_millis(300)).await;
        }
    };
    join_all((0..20).flat_map(|_| [knock(node.http), knock(node.relay)])).await;
    if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
        for length in 1..nonsense.len() {
            let _ = socket.send_to(&nonsense[..length], (node.ip(), 50_000));
        }
    }
    // Offers whose sender is never seen again.
    let offer = include_str!("../../crates/ams-rtc/src/sdp/tests/samples/chromium_view.sdp");
    for _ in 0..5 {
        let url = node.url(&format!("/{APP}/whep/s0"));
        let _ = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await;
    }
}

/// What somebody's program asks of a node.
async fn calls(node: &NodeProcess) {
    let base = node.url(&format!("/{APP}/rest/v2/broadcasts"));
    for n in 0..20 {
        let body = format!(r#"{{"streamId":"called{n}","name":"by REST"}}"#);
        let _ = http::send("POST", &format!("{base}/create"), &[("content-type", "application/json")], body).await;
        let _ = http::get(&format!("{base}/list/0/50")).await;
        let _ = http::get(&format!("{base}/called{n}")).await;
    }
}

/// What a node takes.
#[derive(Clone, Copy, Debug)]
struct Burden {
    rss_kb: u64,
    descriptors: usize,
    tasks: u64,
}

impl Burden {
    async fn of(node: &NodeProcess) -> Result<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let tasks = node.metric("ams_tasks").await? as u64;
        Ok(Self { rss_kb: node.rss_kb().context("no memory figure")?, descriptors: node.descriptors(), tasks })
    }
}

/// Waits until nothing is left of anybody.
async fn nothing_left(site: &Site) -> Result<()> {
    for node in site.nodes()? {
        let empty = eventually("no session is left", CALM, || async {
            let figures = figures(&node.url("")).await.ok()?;
            let zero = NOTHING.iter().all(|name| figures.get(*name) == Some(&0.0));
            (zero && figures.get("ams_unreleased")? == &0.0).then_some(())
        });
        if let Err(error) = empty.await {
            let figures = figures(&node.url("")).await?;
            let left: Vec<_> = figures
                .iter()
                .filter(|(name, _)| name.starts_with("ams_s") || NOTHING.contains(&name.as_str()))
                .collect();
            return Err(error.context(format!("{}: {left:?}\n{}", node.http, node.log())));
        }
    }
    // What REST made is theirs who made it.
    let app = APP.to_lowercase();
    let broadcasts = site.cluster.databases.collection(&app, "broadcast");
    broadcasts.delete_many(doc! { "streamId": { "$regex": "^called" } }).await?;
    eventually("no record is left", CALM, || async {
        let broadcasts = site.cluster.databases.find(&app, "broadcast", doc! {}).await.ok()?;
        let infos = site.cluster.databases.find(&app, "StreamInfo", doc! {}).await.ok()?;
        (broadcasts.is_empty() && infos.is_empty()).then_some(())
    })
    .await
}

/// Every node does its work at once.
async fn all_works(site: &Site) -> Result<()> {
    for (n, origin) in [&site.cluster.origin, &site.mortal_origin].into_iter().enumerate() {
        let id = format!("check{n}");
        let mut publisher = LightPublisher::publish(&origin.socket(), &id).await.context("publishing when calm")?;
        let viewers = [origin, site.cluster.edge(0)?, &site.mortal_edge].map(|node| {
            let id = &id;
            async move {
                let played = LightViewer::play(&node.socket(), id).await;
                let mut viewer = played.with_context(|| format!("playing {id} at {} when calm", node.http))?;
                viewer.wait_video(30, SOON).await?;
                viewer.counts.intact()?;
                viewer.socket()?.stop(id).await
            }
        });
        try_join_all(viewers).await?;
        publisher.socket()?.stop(&id).await?;
        publisher.socket()?.definition("publish_finished", SOON).await?;
    }
    Ok(())
}

async fn soak(leg: Duration, seed: u64) -> Result<()> {
    let mut site = Site::start().await?;
    let mut chance = StdRng::seed_from_u64(seed);
    let (moods, mood) = watch::channel(false);
    let told = Arc::new(Told::default());
    let [origin, edge, mortal_origin, mortal_edge] = site.nodes()?.map(NodeProcess::socket);
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..STREAMS {
        let origins = [origin.clone(), mortal_origin.clone()];
        clients.spawn(publisher(n, origins, mood.clone(), Arc::clone(&told), StdRng::seed_from_u64(chance.random())));
    }
    for _ in 0..VIEWERS {
        // Edges have more of them than origins.
        let nodes = [edge.clone(), mortal_edge.clone(), edge.clone(), origin.clone()];
        clients.spawn(viewer(nodes, mood.clone(), Arc::clone(&told), StdRng::seed_from_u64(chance.random())));
    }
    let (begun, mut faults) = (Instant::now(), BTreeMap::<String, u32>::new());
    let mut warm: Option<[Burden; 2]> = None;
    for at in 1..=LEGS {
        moods.send_replace(true);
        let until = Instant::now() + leg;
        while Instant::now() < until {
            sleep(Duration::from_millis(chance.random_range(500..6_000))).await;
            let fault = *FAULTS.choose(&mut chance).context("there are faults")?;
            site.suffer(fault, &mut chance).await.with_context(|| format!("leg {at}: {fault:?}"))?;
            *faults.entry(format!("{fault:?}")).or_default() += 1;
            if let Some(ended) = clients.try_join_next() {
                bail!("a client ended: {ended:?}");
            }
        }
        moods.send_replace(false);
        nothing_left(&site).await.with_context(|| format!("after leg {at}"))?;
        all_works(&site).await.with_context(|| format!("after leg {at}"))?;
        nothing_left(&site).await.with_context(|| format!("after leg {at}'s check"))?;
        let wrong = std::mem::take(&mut *told.wrong.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(wrong.is_empty(), "leg {at}: {wrong:#?}");
        let now = [Burden::of(&site.cluster.origin).await?, Burden::of(site.cluster.edge(0)?).await?];
        say(&format!(
            "{:>5} s, leg {at}: {} published, {} played, {} packets right, {} faults; origin {:?}; edge {:?}",
            begun.elapsed().as_secs(),
            told.published.load(Ordering::Relaxed),
            told.played.load(Ordering::Relaxed),
            told.packets.load(Ordering::Relaxed),
            faults.values().sum::<u32>(),
            now[0],
            now[1],
        ));
        if at <= WARM_LEGS {
            warm = Some(now);
            continue;
        }
        for (name, now, warm) in warm.map(|w| [("origin", now[0], w[0]), ("edge", now[1], w[1])]).into_iter().flatten()
        {
            let flat = now.rss_kb <= warm.rss_kb + GROWTH_KB_MAX
                && now.descriptors <= warm.descriptors + DESCRIPTORS_SPREAD
                && now.tasks <= warm.tasks + TASKS_SPREAD;
            ensure!(flat, "{name}, leg {at}: {now:?}, {warm:?} after leg {WARM_LEGS}");
        }
    }
    say(&format!("faults: {faults:?}"));
    say(&format!("tried again: {:#?}", told.again.lock().unwrap_or_else(PoisonError::into_inner)));
    clients.shutdown().await;
    let Site { cluster, mortal_origin, mortal_edge, .. } = site;
    drop((mortal_origin, mortal_edge));
    cluster.end().await;
    Ok(())
}
