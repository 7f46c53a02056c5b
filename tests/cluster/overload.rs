//! Three times as many viewers as an edge can take: those it took get everything, the others are told why and come in when
//! there is room again.
//!
//! The short case has a limit that a few dozen reach. With `AMS_TEST_OVERLOAD=N` there is another one: the edge has a core
//! of its own and its usual limit, and N viewers come, most of them those of `ams-node bench` (2 Mbit/s each). It needs two
//! cores and nobody else on them, and a release build (`AMS_TEST_NODE`); lateness is printed and judged by who reads it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ams_rtc::ice::IceCredentials;
use ams_testkit::case::{long_case, patient_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::{NodeProcess, binary};
use ams_testkit::{APP, eventually, http, light, sdp};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::all_intact;

const STREAM: &str = "wanted";
/// From seats that are free to a viewer on one of them, by asking again.
const ROOM_AGAIN: Duration = Duration::from_secs(60);
/// What the issue allows a packet's send to be late.
const LATENESS: Duration = Duration::from_millis(20);
/// What comes from one address here comes from many elsewhere.
const MANY_AT_ONE_ADDRESS: [&str; 6] = [
    "--set",
    "api.limits.requests_per_second=100000",
    "--set",
    "api.limits.request_burst=100000",
    "--set",
    "api.limits.http_sessions=100000",
];

/// Those who want to watch at one edge, by both doors in turn.
struct Crowd<'a> {
    edge: &'a NodeProcess,
    taken: Vec<LightViewer>,
    refused: usize,
    /// Refusals that said when to come again.
    dated: usize,
    longest_refusal: Duration,
}

impl<'a> Crowd<'a> {
    fn before(edge: &'a NodeProcess) -> Self {
        Self { edge, taken: Vec::new(), refused: 0, dated: 0, longest_refusal: Duration::ZERO }
    }

    /// One more comes. Returns whether it was taken.
    async fn one_comes(&mut self) -> Result<bool> {
        let begun = Instant::now();
        let by_socket = (self.taken.len() + self.refused).is_multiple_of(2);
        let came = match by_socket {
            true => LightViewer::play(&self.edge.socket(), STREAM).await,
            false => LightViewer::whep(&self.edge.url(""), APP, STREAM).await,
        };
        let refusal = match came {
            Ok(viewer) => {
                self.taken.push(viewer);
                return Ok(true);
            }
            Err(error) => error.to_string(),
        };
        let word = if by_socket { "highResourceUsage" } else { "WHEP answered 503" };
        let says_why = refusal.contains("its media threads work") && refusal.contains("media.load_max");
        ensure!(refusal.contains(word) && says_why, "{refusal}");
        self.longest_refusal = self.longest_refusal.max(begun.elapsed());
        self.refused += 1;
        if !by_socket {
            self.dated += usize::from(self.is_told_when().await?);
        }
        Ok(false)
    }

    /// Whether the answer to another offer is a refusal with its time; there may be room meanwhile.
    async fn is_told_when(&self) -> Result<bool> {
        let offer = sdp::play_offer(&IceCredentials::random(), &light::fingerprint()?);
        let url = self.edge.url(&format!("/{APP}/whep/{STREAM}"));
        let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
        if answer.status == 201 {
            let resource = self.edge.url(answer.header("location").context("no Location")?);
            http::send("DELETE", &resource, &[], "").await?;
            return Ok(false);
        }
        let after = answer.header("retry-after").context("Retry-After")?;
        ensure!(answer.status == 503 && after.parse::<u32>().is_ok_and(|s| (1..=30).contains(&s)), "{answer:?}");
        ensure!(answer.json()["detail"].as_str().is_some_and(|s| s.contains("media.load_max")), "{answer:?}");
        Ok(true)
    }

    /// Three come for each that is taken, and `refused` at least are not.
    async fn all_come(&mut self, refused: usize, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.refused < refused.max(2 * self.taken.len()) {
            self.one_comes().await?;
            ensure!(begun.elapsed() < limit, "{} taken, {} refused in {limit:?}", self.taken.len(), self.refused);
        }
        ensure!(self.dated > 0, "nobody was told when to come again");
        Ok(())
    }

    /// A third of those who watch leave, properly.
    async fn third_leaves(&mut self) -> Result<usize> {
        let leaving = self.taken.len().div_ceil(3);
        for viewer in self.taken.drain(..leaving) {
            if let Some(resource) = &viewer.resource {
                http::send("DELETE", resource, &[], "").await?;
            }
        }
        Ok(leaving)
    }

    /// Refused ones ask again until two of them, one at each door, are in.
    async fn get_in(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut doors = [false; 2];
        while doors != [true; 2] {
            if self.one_comes().await? {
                let by_socket = self.taken.last().is_some_and(|viewer| viewer.socket.is_some());
                doors[usize::from(by_socket)] = true;
            }
            ensure!(begun.elapsed() < ROOM_AGAIN, "no room again: {doors:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

#[test]
fn three_times_too_many_are_told_and_come_in_when_there_is_room() {
    patient_case(Duration::from_secs(120), async {
        let cluster = Cluster::start(ClusterOptions::new(165, 0)).await?;
        let options = cluster.node("edge", 12).args(&["--shards", "1", "--set", "media.load_max=6"]);
        let edge = NodeProcess::start(options.args(&MANY_AT_ONE_ADDRESS)).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), STREAM).await?;
        let mut crowd = Crowd::before(&edge);
        crowd.all_come(40, Duration::from_secs(60)).await?;
        let (taken, refused) = (crowd.taken.len(), crowd.refused);
        all_intact(&crowd.taken, 90).await.context("those who were taken")?;
        let left = crowd.third_leaves().await?;
        let begun = Instant::now();
        crowd.get_in().await?;
        say(&format!(
            "{taken} taken and {refused} refused, the slowest in {:?}; {left} left, others were in after {:?}",
            crowd.longest_refusal,
            begun.elapsed(),
        ));
        all_intact(&crowd.taken, 60).await.context("those who stayed and those who came in")?;
        drop(crowd);
        drop(edge);
        cluster.end().await;
        Ok(())
    });
}

/// A part of the load: a process of `ams-node bench` with a stream of its own.
struct Load {
    child: Child,
    figures: std::path::PathBuf,
}

impl Load {
    fn start(origin: &NodeProcess, edge: &NodeProcess, part: usize, viewers: usize, seconds: u64) -> Result<Self> {
        let figures = std::env::temp_dir().join(format!("ams-overload-{:08x}.json", rand::random::<u32>()));
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).arg(binary()?).args(["bench", "--no-pin", "--joins", "15"]);
        command.args(["--viewers", &viewers.to_string(), "--seconds", &seconds.to_string()]);
        command.args(["--whip", &origin.url(&format!("/{APP}/whip/load{part}"))]);
        command.args(["--whep", &edge.url(&format!("/{APP}/whep/load{part}"))]);
        command.args(["--pid", &edge.pid().to_string(), "--json"]).arg(&figures);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("starting the bench")?;
        Ok(Self { child, figures })
    }

    /// Its only row, when it is through.
    fn row(&self) -> Option<Value> {
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&self.figures).ok()?).ok()?;
        report["rows"].get(0).cloned()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.figures);
    }
}

fn pin(node: &NodeProcess, core: &str) -> Result<()> {
    let pinned = Command::new("taskset").args(["-a", "-p", "-c", core, &node.pid().to_string()]).output()?;
    ensure!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
    Ok(())
}

#[test]
fn a_core_full_of_viewers_is_late_for_none_of_them() {
    let Some(wanted) = std::env::var("AMS_TEST_OVERLOAD").ok().and_then(|n| n.parse::<usize>().ok()) else { return };
    long_case(Duration::from_secs(900), async move {
        const PARTS: usize = 3;
        const SECONDS: u64 = 60;
        let cluster = Cluster::start(ClusterOptions::new(166, 0).args(&MANY_AT_ONE_ADDRESS)).await?;
        let edge =
            NodeProcess::start(cluster.node("edge", 12).args(&MANY_AT_ONE_ADDRESS).args(&["--shards", "1"])).await?;
        pin(&edge, "0")?;
        pin(&cluster.origin, "1")?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), STREAM).await?;
        let mut crowd = Crowd::before(&edge);
        while crowd.taken.len() < 20 {
            ensure!(crowd.one_comes().await?, "an empty edge is not full");
        }
        let mut loads = Vec::new();
        for part in 0..PARTS {
            loads.push(Load::start(&cluster.origin, &edge, part, wanted / PARTS, SECONDS)?);
        }
        eventually("the edge is full", Duration::from_secs(300), || async {
            (edge.metric("ams_seats_left").await.ok()? == 0.0).then_some(())
        })
        .await?;
        // The rest of them comes and is refused.
        tokio::time::sleep(Duration::from_secs((wanted / PARTS / 15) as u64 / 2)).await;
        let mut watched = Vec::new();
        let before = edge.histogram("ams_forward_delay_seconds").await?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            crowd.one_comes().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            watched.push((edge.metric("ams_shard_load_percent").await?, edge.metric("ams_viewers").await?));
        }
        let delay = edge.histogram("ams_forward_delay_seconds").await?.since(&before);
        let most = |of: fn(&(f64, f64)) -> f64| watched.iter().map(of).fold(0.0, f64::max);
        say(&format!(
            "{wanted} came and more; load {:.0} % on average, {:.0} % at most, {:.0} viewers at most; light ones: {} taken, {} refused, the slowest in {:?}",
            watched.iter().map(|w| w.0).sum::<f64>() / watched.len() as f64,
            most(|w| w.0),
            most(|w| w.1),
            crowd.taken.len(),
            crowd.refused,
            crowd.longest_refusal,
        ));
        say(&format!(
            "send lateness over 30 s, {} turns: p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}; {:.2} % within {LATENESS:?}",
            delay.count(),
            delay.quantile(0.5),
            delay.quantile(0.99),
            delay.quantile(0.999),
            delay.within(LATENESS) * 100.0,
        ));
        all_intact(&crowd.taken, 90).await.context("those who were taken")?;
        let gap = crowd.taken.iter().map(|v| v.counts.get(|c| &c.longest_gap_us)).max().unwrap_or_default();
        say(&format!("all intact; longest pause of any {} ms", gap / 1000));
        drop(loads.remove(0));
        let begun = Instant::now();
        crowd.get_in().await?;
        say(&format!("a third of the bench vanished; others were in after {:?}", begun.elapsed()));
        for load in &loads {
            let row = eventually("the bench is through", Duration::from_secs(240), || async { load.row() }).await?;
            say(&format!(
                "bench: {} taken, {} refused, lost {}, damaged {}, delay {}, CPU of the edge {}",
                row["viewers"], row["refused"], row["lost_ratio"], row["damaged"], row["delay_ms"], row["cpu_percent"]
            ));
        }
        drop(loads);
        all_intact(&crowd.taken, 60).await?;
        drop(crowd);
        drop(edge);
        cluster.end().await;
        Ok(())
    });
}
