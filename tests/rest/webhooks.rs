//! Webhooks at a real receiver: each event once, in the order of its stream, signed, whoever was away meanwhile.
//!
//! `AMS_TEST_WEBHOOK_STREAMS` is how many streams come and go while the receiver is away (12 by default),
//! `AMS_TEST_WEBHOOK_OUTAGE_SECONDS` for how long it is (6).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ams_access::webhook::{HEADER_EVENT_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, WebhookKey, parse_body};
use ams_access::{Secret, UnixMs};
use ams_testkit::ams::AmsSocket;
use ams_testkit::case::{case, patient_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::LightPublisher;
use ams_testkit::node::NodeProcess;
use ams_testkit::{APP, eventually};
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{SETTINGS, SOON, call, call_with};

const SECRET: &str = "a secret of the receiver and the nodes";
/// For how long a lost stream may come back in these cases.
const WINDOW: Duration = Duration::from_secs(4);
const STARTED: &str = "liveStreamStarted";
const ENDED: &str = "liveStreamEnded";

/// One request as the receiver took it.
#[derive(Clone, Debug)]
struct Delivery {
    path: String,
    content_type: String,
    id: String,
    fields: BTreeMap<String, Value>,
    is_signed: bool,
}

impl Delivery {
    fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A program that is told what happens.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Delivery>>>,
    hangs: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.down();
    }
}

impl Receiver {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut receiver = Self { address, got: Arc::default(), hangs: Arc::default(), task: None };
        receiver.serve(listener);
        Ok(receiver)
    }

    fn serve(&mut self, listener: TcpListener) {
        let (got, hangs) = (Arc::clone(&self.got), Arc::clone(&self.hangs));
        self.task = Some(tokio::spawn(async move {
            let mut requests = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (got, hangs) = (Arc::clone(&got), Arc::clone(&hangs));
                requests.spawn(async move { request(stream, &got, &hangs).await });
            }
        }));
    }

    /// Goes away: connections are refused, and those that are open break.
    fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    async fn up(&mut self) -> Result<()> {
        self.serve(TcpListener::bind(self.address).await?);
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn deliveries(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was heard of each stream, one of each event id.
    fn heard(&self) -> BTreeMap<String, Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for delivery in self.deliveries().iter().filter(|delivery| seen.insert(delivery.id.clone())) {
            heard.entry(delivery.text("id").to_owned()).or_default().push(delivery.text("action").to_owned());
        }
        heard
    }

    fn heard_of(&self, stream: &str) -> Vec<String> {
        self.heard().remove(stream).unwrap_or_default()
    }

    async fn wait(&self, stream: &str, action: &str, limit: Duration) -> Result<()> {
        let what = format!("{action} of {stream}");
        let found = eventually(&what, limit, || async {
            self.heard_of(stream).iter().any(|heard| heard == action).then_some(())
        });
        found.await.with_context(|| format!("heard: {:?}", self.heard()))
    }

    /// Waits until exactly this was heard, and a little longer.
    async fn wait_all(&self, want: &BTreeMap<String, Vec<String>>, limit: Duration) -> Result<()> {
        let all = eventually("all is heard", limit, || async { (self.heard() == *want).then_some(()) }).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let heard = self.heard();
        let differs = want.iter().filter(|(stream, events)| heard.get(*stream) != Some(events));
        let differs: Vec<_> = differs.map(|(stream, want)| (stream, want, heard.get(stream))).collect();
        let more: Vec<_> = heard.iter().filter(|(stream, _)| !want.contains_key(*stream)).collect();
        all.with_context(|| format!("wanted and heard: {differs:?}; besides: {more:?}"))?;
        ensure!(heard == *want, "then more came; wanted and heard: {differs:?}; besides: {more:?}");
        Ok(())
    }
}

/// Takes one request.
async fn request(mut stream: TcpStream, got: &Mutex<Vec<Delivery>>, hangs: &AtomicBool) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(bytes.get(..at)?).into_owned();
            let len: usize = header(&head, "content-length").parse().ok()?;
            if let Some(body) = bytes.get(at + 4..at + 4 + len) {
                break (head, body.to_vec());
            }
        }
        let mut some = [0; 4096];
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(some.get(..n)?),
        }
    };
    while hangs.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let key = WebhookKey::new(&Secret::from(SECRET)).ok()?;
    let (timestamp, signature) = (header(&head, HEADER_TIMESTAMP), header(&head, HEADER_SIGNATURE));
    let now = UnixMs::from(SystemTime::now());
    let is_signed = key.verify(&timestamp, &signature, &body, now, Duration::from_secs(30)).is_ok();
    let content_type = header(&head, "content-type");
    let delivery = Delivery {
        path: head.split(' ').nth(1).unwrap_or_default().to_owned(),
        fields: parse_body(&content_type, &body).unwrap_or_default(),
        id: header(&head, HEADER_EVENT_ID),
        content_type,
        is_signed,
    };
    // Taken when the answer is written: what the node does not hear of it sends again, and that counts as one.
    got.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.ok()
}

fn header(head: &str, name: &str) -> String {
    let of = |line: &str| {
        let (n, value) = line.split_once(':')?;
        n.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    head.lines().find_map(of).unwrap_or_default()
}

fn options(net: u8, edges: u8) -> ClusterOptions {
    let secret = format!("webhooks.secret={SECRET}");
    let window = format!("media.resume_window={}s", WINDOW.as_secs());
    ClusterOptions::new(net, edges).args(&["--set", &secret, "--set", &window, "--set", "media.connect_timeout=3s"])
}

/// Writes the application's settings and waits until every node goes by them.
async fn set(node: &NodeProcess, settings: Value) -> Result<()> {
    let path = format!("/rest/v2/applications/settings/{APP}");
    let done = call_with(node, "POST", &path, &[], &settings).await?;
    ensure!(done.json()["success"] == true, "{done:?}");
    tokio::time::sleep(SETTINGS).await;
    Ok(())
}

async fn make(node: &NodeProcess, stream: &str, url: &str) -> Result<()> {
    let body = json!({"streamId": stream, "name": "A name", "listenerHookURL": url});
    let made = call(node, "POST", "/broadcasts/create", &body).await?;
    ensure!(made.status == 200, "{made:?}");
    Ok(())
}

#[test]
fn what_happens_to_a_stream_is_told_once_in_order_and_signed() {
    case(async {
        let cluster = Cluster::start(options(180, 0)).await?;
        let origin = &cluster.origin;
        let receiver = Receiver::start().await?;
        let form = "application/x-www-form-urlencoded";
        set(
            origin,
            json!({"listenerHookURL": receiver.url("/app"), "webhookContentType": form,
                "webhookStreamStatusUpdatePeriodMs": 700}),
        )
        .await?;
        make(origin, "made", &receiver.url("/own?x=1")).await?;

        let mut own = LightPublisher::publish(&origin.socket(), "own").await?;
        let mut made = LightPublisher::publish(&origin.socket(), "made").await?;
        for stream in ["own", "made"] {
            receiver.wait(stream, "liveStreamStatus", SOON).await?;
        }
        for (publisher, stream) in [(&mut own, "own"), (&mut made, "made")] {
            publisher.socket()?.stop(stream).await?;
            receiver.wait(stream, ENDED, SOON).await?;
        }
        for (stream, path, name) in [("own", "/app", ""), ("made", "/own?x=1", "A name")] {
            let heard = receiver.heard_of(stream);
            let inner = heard.get(1..heard.len() - 1).context("a start, statuses, an end")?;
            ensure!(
                heard.first().is_some_and(|a| a == STARTED) && heard.last().is_some_and(|a| a == ENDED),
                "{heard:?}"
            );
            ensure!(!inner.is_empty() && inner.iter().all(|action| action == "liveStreamStatus"), "{heard:?}");
            for delivery in receiver.deliveries().iter().filter(|d| d.text("id") == stream) {
                ensure!(delivery.path == path && delivery.text("streamName") == name, "{delivery:?}");
                ensure!(delivery.content_type == form && delivery.text("app") == APP, "{delivery:?}");
                ensure!(delivery.is_signed, "the signature is wrong: {delivery:?}");
                ensure!(delivery.id.len() == 32 && delivery.text("eventId") == delivery.id, "{delivery:?}");
                ensure!(delivery.text("timestamp").parse::<u64>().is_ok(), "{delivery:?}");
            }
        }

        // A publisher that comes back in time never ended; one that does not has, when the time is over.
        set(origin, json!({"listenerHookURL": receiver.url("/app")})).await?;
        let first = LightPublisher::publish(&origin.socket(), "back").await?;
        receiver.wait("back", STARTED, SOON).await?;
        drop(first);
        tokio::time::sleep(WINDOW / 4).await;
        let again = LightPublisher::publish(&origin.socket(), "back").await?;
        tokio::time::sleep(WINDOW + Duration::from_secs(2)).await;
        ensure!(receiver.heard_of("back") == [STARTED], "{:?}", receiver.heard_of("back"));
        let begun = Instant::now();
        drop(again);
        receiver.wait("back", ENDED, WINDOW + SOON).await?;
        ensure!(begun.elapsed() > WINDOW / 2, "it ended after {:?} already", begun.elapsed());
        ensure!(receiver.heard_of("back") == [STARTED, ENDED], "{:?}", receiver.heard_of("back"));

        // One that never brings media.
        let mut late = AmsSocket::connect(&origin.socket()).await?;
        late.send(json!({"command": "publish", "streamId": "late", "video": true, "audio": true})).await?;
        receiver.wait("late", "publishTimeoutError", 2 * SOON).await?;
        ensure!(receiver.heard_of("late") == ["publishTimeoutError"], "{:?}", receiver.heard_of("late"));
        let json = receiver.deliveries().last().cloned().context("a delivery")?;
        ensure!(json.content_type == "application/json" && json.is_signed, "{json:?}");
        ensure!(origin.metric("ams_webhooks_sent_total").await? >= 9.0);
        ensure!(origin.metric("ams_webhooks_dropped_total").await? == 0.0);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_receiver_that_hangs_delays_no_other() {
    case(async {
        let cluster = Cluster::start(options(181, 0)).await?;
        let origin = &cluster.origin;
        let (quick, slow) = (Receiver::start().await?, Receiver::start().await?);
        slow.hangs.store(true, Ordering::Relaxed);
        set(origin, json!({"listenerHookURL": quick.url("/")})).await?;
        let names: Vec<String> = (0..6).map(|n| format!("slow{n}")).collect();
        let mut publishers = Vec::new();
        for name in &names {
            make(origin, name, &slow.url("/")).await?;
            publishers.push(LightPublisher::publish(&origin.socket(), name).await?);
        }
        for name in ["quick0", "quick1", "quick2"] {
            let mut publisher = LightPublisher::publish(&origin.socket(), name).await?;
            let begun = Instant::now();
            quick.wait(name, STARTED, Duration::from_secs(3)).await?;
            say(&format!("told after {} ms beside a receiver that hangs", begun.elapsed().as_millis()));
            publisher.socket()?.stop(name).await?;
            quick.wait(name, ENDED, Duration::from_secs(3)).await?;
        }
        ensure!(slow.heard().is_empty(), "{:?}", slow.heard());
        slow.hangs.store(false, Ordering::Relaxed);
        let want = names.iter().map(|name| (name.clone(), vec![STARTED.to_owned()])).collect();
        slow.wait_all(&want, Duration::from_secs(60)).await?;
        cluster.end().await;
        Ok(())
    });
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Publishes all of them, some at a time.
async fn publish_all(node: &NodeProcess, names: &[String]) -> Result<BTreeMap<String, LightPublisher>> {
    let socket = node.socket();
    let publish = |name: &String| {
        let (socket, name) = (socket.clone(), name.clone());
        async move { Ok::<_, anyhow::Error>((name.clone(), LightPublisher::publish(&socket, &name).await?)) }
    };
    futures_util::stream::iter(names.iter().map(publish)).buffer_unordered(8).try_collect().await
}

#[test]
fn a_receiver_that_was_away_hears_everything_once_though_an_origin_died() {
    let streams = number("AMS_TEST_WEBHOOK_STREAMS", 12);
    let outage = Duration::from_secs(number("AMS_TEST_WEBHOOK_OUTAGE_SECONDS", 6));
    patient_case(outage + Duration::from_secs(150 + 2 * streams), async move {
        let cluster = Cluster::start(options(182, 1)).await?;
        let origin = &cluster.origin;
        let secret = format!("webhooks.secret={SECRET}");
        let window = format!("media.resume_window={}s", WINDOW.as_secs());
        let other = cluster.node("origin", 30).args(&["--set", &secret, "--set", &window]);
        let mut other = NodeProcess::start(other).await?;
        let mut receiver = Receiver::start().await?;
        set(origin, json!({"listenerHookURL": receiver.url("/")})).await?;
        let name = |what: &str, n: u64| format!("{what}{n}");
        let third = (streams / 3).max(2);
        let all = |what: &'static str| (0..third).map(move |n| name(what, n)).collect::<Vec<_>>();
        // Some live through it, some stop, and of some the origin dies: half of these come back on another.
        let lives = publish_all(origin, &all("lives")).await?;
        receiver.down();
        let down_at = Instant::now();
        let mut stops = publish_all(origin, &all("stops")).await?;
        let orphans = publish_all(&other, &all("orphan")).await?;
        for (stream, publisher) in &mut stops {
            publisher.socket()?.stop(stream).await?;
        }
        // What happened last is on its way to the outbox for some milliseconds.
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.kill()?;
        drop(orphans);
        let (moved, gone): (Vec<_>, Vec<_>) = all("orphan").into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
        let names = |of: Vec<(usize, String)>| of.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        let (moved, gone) = (names(moved), names(gone));
        let back = publish_all(origin, &moved).await?;
        // The origin comes back and cleans up; nobody publishes there any more.
        other.restart().await?;
        tokio::time::sleep(outage.saturating_sub(down_at.elapsed())).await;
        let pending = eventually("events wait", 3 * SOON, || async {
            origin.metric("ams_webhooks_pending").await.ok().filter(|n| *n > 0.0)
        });
        pending.await?;

        receiver.up().await?;
        let up_at = Instant::now();
        let mut want = BTreeMap::new();
        let (start, both) = (vec![STARTED.to_owned()], vec![STARTED.to_owned(), ENDED.to_owned()]);
        want.extend(all("lives").into_iter().chain(moved.clone()).map(|stream| (stream, start.clone())));
        want.extend(all("stops").into_iter().chain(gone).map(|stream| (stream, both.clone())));
        receiver.wait_all(&want, Duration::from_secs(100)).await?;
        say(&format!("all {} streams told {} s after the receiver was back", want.len(), up_at.elapsed().as_secs()));
        let total = receiver.deliveries().len();
        let once: usize = receiver.heard().values().map(Vec::len).sum();
        say(&format!("{total} requests for {once} events"));
        for (stream, mut publisher) in lives.into_iter().chain(back) {
            publisher.socket()?.stop(&stream).await?;
            want.insert(stream, both.clone());
        }
        receiver.wait_all(&want, 4 * SOON).await?;
        ensure!(receiver.deliveries().iter().all(|delivery| delivery.is_signed), "a signature is wrong");
        for node in [origin, &other, cluster.edge(0)?] {
            ensure!(node.metric("ams_webhooks_dropped_total").await? == 0.0, "something was dropped");
        }
        drop(other);
        cluster.end().await;
        Ok(())
    });
}
