//! Nodes that leave on purpose: clients that do as the SDK does notice a second, and nothing is lost.
//!
//! `AMS_TEST_ROLLING_VIEWERS` is how many watch while everything is restarted, 20 by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ams_access::Secret;
use ams_access::jwt::{Claims, Hs256Key};
use ams_testkit::balancer::Balancer;
use ams_testkit::case::{case, patient_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::mongo::Databases;
use ams_testkit::node::{NodeProcess, SERVER_KEY};
use ams_testkit::{APP, eventually, http};
use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinHandle;

use super::{MEDIA, SOON, all_intact, error_of, is_error, play, publish};

/// What the SDK waits between `server_will_stop` and its next word.
const SDK_WAIT: Duration = Duration::from_millis(1000);
/// Longest time a viewer may be without pictures, as the issue promises.
const INTERRUPTION_MAX: Duration = Duration::from_secs(2);

/// Longest time without media so far, if that was an interruption.
fn longest_gap(viewer: &LightViewer) -> Option<Duration> {
    let gap = Duration::from_micros(viewer.counts.get(|c| &c.longest_gap_us));
    (gap > Duration::from_millis(300)).then_some(gap)
}

/// A client that follows `server_will_stop` as the SDK does. Gives its interruptions when it is told to end: those when it
/// moved, and those when its publisher did.
fn follow(socket: String, stream: &'static str, end: Arc<AtomicBool>) -> JoinHandle<Result<Vec<Duration>>> {
    tokio::spawn(async move {
        let mut interruptions = Vec::new();
        let mut viewer = LightViewer::play(&socket, stream).await.context("at first")?;
        viewer.wait_video(10, MEDIA).await?;
        while !end.load(Ordering::Relaxed) {
            let told = viewer.socket()?.definition("server_will_stop", Duration::from_millis(200)).await;
            if told.is_err() {
                ensure!(!viewer.counts.is_closed(), "closed without a word");
                continue;
            }
            viewer.counts.intact().context("until it was told to go")?;
            interruptions.extend(longest_gap(&viewer));
            let gone = Instant::now();
            drop(viewer);
            tokio::time::sleep(SDK_WAIT).await;
            viewer = LightViewer::play(&socket, stream).await.context("on another node")?;
            viewer.wait_video(1, MEDIA).await?;
            interruptions.push(gone.elapsed());
        }
        viewer.counts.intact()?;
        interruptions.extend(longest_gap(&viewer));
        Ok(interruptions)
    })
}

/// A publisher that does likewise. Gives how often it moved.
fn publish_on(socket: String, stream: &'static str, end: Arc<AtomicBool>) -> JoinHandle<Result<usize>> {
    tokio::spawn(async move {
        let mut moved = 0;
        let mut publisher = LightPublisher::publish(&socket, stream).await.context("at first")?;
        while !end.load(Ordering::Relaxed) {
            let told = publisher.socket()?.definition("server_will_stop", Duration::from_millis(200)).await;
            if told.is_ok() {
                drop(publisher);
                tokio::time::sleep(SDK_WAIT).await;
                publisher = LightPublisher::publish(&socket, stream).await.context("on another node")?;
                moved += 1;
            }
        }
        Ok(moved)
    })
}

/// Waits until a node's log has said something so often.
async fn wait_log(node: &NodeProcess, sentence: &str, times: usize) -> Result<()> {
    let said = || async { (node.log().matches(sentence).count() >= times).then_some(()) };
    eventually(&format!("the log says {sentence:?} {times} times"), SOON, said).await
}

async fn restart(node: &mut NodeProcess) -> Result<()> {
    let status = node.terminate().await?;
    ensure!(status.code() == Some(0), "ended with {status}");
    node.restart().await?;
    // Health checks see it within a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    Ok(())
}

#[test]
fn a_whole_cluster_is_restarted_under_its_viewers() {
    let many = std::env::var("AMS_TEST_ROLLING_VIEWERS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    patient_case(Duration::from_secs(150), async move {
        let mut cluster = Cluster::start(ClusterOptions::new(140, 2)).await?;
        let mut other = NodeProcess::start(cluster.node("origin", 30)).await?;
        let edges = [cluster.edges[0].http, cluster.edges[1].http];
        let balancer = Balancer::start(&[cluster.origin.http, other.http], &edges).await?;
        let end = Arc::new(AtomicBool::new(false));
        let publisher = publish_on(balancer.to_origins(), "rolling", Arc::clone(&end));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let viewers: Vec<_> = (0..many).map(|_| follow(balancer.to_edges(), "rolling", Arc::clone(&end))).collect();
        tokio::time::sleep(Duration::from_secs(3)).await;
        for at in 0..2 {
            restart(cluster.edge_mut(at)?).await.with_context(|| format!("edge {at}"))?;
        }
        restart(&mut cluster.origin).await.context("the first origin")?;
        restart(&mut other).await.context("the second origin")?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        end.store(true, Ordering::Relaxed);
        let moved = publisher.await??;
        let mut interruptions = Vec::new();
        for viewer in viewers {
            interruptions.extend(viewer.await??);
        }
        interruptions.sort();
        let Some(longest) = interruptions.last() else { bail!("nobody had to move") };
        say(&format!(
            "{many} viewers were interrupted {} times, {:?} (median), {longest:?} at most; the publisher moved {moved} times",
            interruptions.len(),
            interruptions[interruptions.len() / 2],
        ));
        ensure!(interruptions.len() >= many, "each edge had viewers");
        ensure!(moved >= 1, "the publisher's origin was one of them");
        ensure!(*longest < INTERRUPTION_MAX, "{longest:?}");
        drop(other);
        cluster.end().await;
        Ok(())
    });
}

/// One of the server's calls about the drain, with the server's token.
async fn drain_call(node: &NodeProcess, method: &str, query: &str) -> Result<http::Answer> {
    let token = server_token();
    http::send(method, &node.url(&format!("/rest/v2/drain{query}")), &[("ProxyAuthorization", &*token)], "").await
}

fn server_token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let key = Hs256Key::new(&Secret::from(SERVER_KEY)).expect("a long key");
    key.sign(&Claims::until(now + 60))
}

#[test]
fn a_drain_is_ordered_watched_and_taken_back_over_rest() {
    case(async {
        let options = ClusterOptions::new(202, 1).args(&["--set", "drain.notice=3s", "--set", "drain.timeout=10m"]);
        let mut cluster = Cluster::start(options).await?;
        let name = drain_call(cluster.edge(0)?, "GET", "").await?.json()["nodeId"].as_str().unwrap_or("").to_owned();
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "stays").await?;
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), "stays").await?;
        let state_of = async |databases: &Databases, wanted: &str| {
            eventually(&format!("its row says {wanted}"), Duration::from_secs(2), || async {
                let rows = databases.nodes().await.ok()?;
                let row = rows.into_iter().find(|row| row.get_str("_id").is_ok_and(|id| id == name))?;
                (row.get_str("state").ok()? == wanted).then_some(())
            })
            .await
        };
        let edge = cluster.edge(0)?;
        let refused = http::send("POST", &edge.url("/rest/v2/drain"), &[], "").await?;
        ensure!(refused.status == 403, "{refused:?}");
        let elsewhere = drain_call(edge, "POST", "?node=another").await?;
        ensure!(elsewhere.status == 421 && elsewhere.json()["success"] == false, "{elsewhere:?}");
        ensure!(drain_call(edge, "GET", "").await?.json()["draining"] == false, "nobody meant this one");
        for _ in 0..2 {
            let ordered = drain_call(edge, "POST", &format!("?node={name}")).await?;
            ensure!(ordered.status == 200 && ordered.json()["success"] == true, "{ordered:?}");
            edge.wait_status("/readyz", 503, SOON).await?;
            let state = drain_call(edge, "GET", "").await?.json();
            let time = |field: &str| state[field].as_i64().unwrap_or(0);
            ensure!(state["draining"] == true && state["ending"] == false && time("sessions") == 1, "{state}");
            ensure!(time("deadline") - time("since") == 600_000, "{state}");
            state_of(&cluster.databases, "draining").await?;
            let stays = drain_call(edge, "DELETE", "").await?;
            ensure!(stays.json()["success"] == true, "{stays:?}");
            edge.wait_status("/readyz", 200, SOON).await?;
            state_of(&cluster.databases, "ready").await?;
            ensure!(drain_call(edge, "GET", "").await?.json()["draining"] == false, "it stays");
        }
        all_intact(std::slice::from_ref(&viewer), 30).await?;
        // A node that was told to end by a signal does not stay.
        drop(viewer);
        let other = LightViewer::whep(&cluster.edge(0)?.url(""), APP, "stays").await?;
        cluster.edge(0)?.signal("TERM")?;
        cluster.edge(0)?.wait_status("/readyz", 503, SOON).await?;
        let late = drain_call(cluster.edge(0)?, "DELETE", "").await?;
        ensure!(late.status == 200 && late.json()["success"] == false, "{late:?}");
        // WHEP has no word for it: its session is ended with the notice, and then there is nobody.
        let status = cluster.edge_mut(0)?.ended(3 * SOON).await?;
        ensure!(status.code() == Some(0), "{status}");
        drop(other);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_node_that_drains_takes_nobody_new_serves_its_edges_and_may_stay_after_all() {
    case(async {
        let options = ClusterOptions::new(141, 1).args(&["--set", "drain.notice=4s", "--set", "drain.timeout=5m"]);
        let mut cluster = Cluster::start(options).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "stays").await?;
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), "stays").await?;
        all_intact(std::slice::from_ref(&viewer), 30).await?;
        for round in 0..2 {
            cluster.origin.command("drain", &[])?;
            cluster.origin.wait_status("/readyz", 503, SOON).await?;
            ensure!(http::get(&cluster.origin.url("/healthz")).await?.status == 200, "alive");
            let refused = error_of(&cluster.origin.socket(), publish("new")).await;
            ensure!(refused.is_err(), "new sockets are refused: {refused:?}");
            let edge = cluster.edge(0)?;
            wait_log(edge, "an origin is to leave; its streams are awaited elsewhere", round + 1).await?;
            // What it has, edges may still pull.
            let late = LightViewer::play(&cluster.edge(0)?.socket(), "stays").await?;
            all_intact(&[late], 30).await.with_context(|| format!("round {round}"))?;
            cluster.origin.command("drain", &["--cancel"])?;
            cluster.origin.wait_status("/readyz", 200, SOON).await?;
            wait_log(edge, "the origin stays after all", round + 1).await?;
            let error = error_of(&cluster.origin.socket(), play("nothing")).await?;
            is_error(&error, "no_stream_exist", Some("nothing"))?;
        }
        all_intact(std::slice::from_ref(&viewer), 30).await?;
        // Empty, it ends as soon as the balancer has had its time.
        cluster.origin.command("drain", &[])?;
        publisher.socket()?.stop("stays").await?;
        publisher.socket()?.definition("publish_finished", SOON).await?;
        drop(publisher);
        let status = cluster.origin.ended(2 * SOON).await?;
        ensure!(status.code() == Some(0), "{status}");
        ensure!(cluster.databases.nodes().await?.len() == 1, "its row is gone");
        wait_log(cluster.edge(0)?, "the origin that was to leave is gone", 1).await?;
        ensure!(!cluster.edge(0)?.log().contains("link to origin is down"), "that was no accident");
        cluster.end().await;
        Ok(())
    });
}
