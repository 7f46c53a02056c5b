//! MongoDB that goes and comes back: publishing, playing and stopping go on, and what it missed is made good.
//!
//! `AMS_TEST_OUTAGE_SECONDS` is how long it is away under churn, 6 by default.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ams_testkit::ams::AmsSocket;
use ams_testkit::case::{case, patient_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::mongo::Databases;
use ams_testkit::mongo::bson::doc;
use ams_testkit::mongod::{Mongod, ReplicaSet};
use ams_testkit::node::NodeProcess;
use ams_testkit::{APP, eventually, http};
use anyhow::{Context, Result, ensure};

use super::{MEDIA, SOON, all_intact, error_of, is_error, play, publish};

/// Longest wait for a refusal: a call's deadline is 2 s, and the SDK asks again after 3 s.
const REFUSED: Duration = Duration::from_secs(3);
/// From the moment the database is back until its documents are right, as the issue promises.
const MADE_GOOD: Duration = Duration::from_secs(5);

/// Waits until exactly these streams are recorded as live, each with its renditions, and no other record is left.
async fn recorded(databases: &Databases, live: &BTreeSet<String>, limit: Duration) -> Result<()> {
    let all = |collection| databases.find("webrtcappee", collection, doc! {});
    let settled = eventually("documents equal what is published", limit, || async {
        let records = databases.find(&APP.to_lowercase(), "broadcast", doc! {}).await.ok()?;
        let infos = databases.find(&APP.to_lowercase(), "StreamInfo", doc! {}).await.ok()?;
        let id = |document: &ams_testkit::mongo::bson::Document| document.get_str("streamId").map(str::to_owned);
        let recorded: BTreeSet<_> = records
            .iter()
            .filter(|r| r.get_str("status").is_ok_and(|status| status == "broadcasting"))
            .filter_map(|r| id(r).ok())
            .collect();
        let rendered: BTreeSet<_> = infos.iter().filter_map(|info| id(info).ok()).collect();
        (recorded == *live && rendered == *live && records.len() == live.len()).then_some(())
    })
    .await;
    match settled {
        Ok(()) => Ok(()),
        Err(error) => {
            let (records, infos) = (all("broadcast").await?, all("StreamInfo").await?);
            let lines = records.iter().chain(&infos).map(|d| {
                let field = |name| d.get(name).map(ToString::to_string).unwrap_or_default();
                ["streamId", "status", "originAdress", "host", "amsEpoch"].map(field).join(" ")
            });
            Err(error.context(format!("published: {live:?}, stored:\n{}", lines.collect::<Vec<_>>().join("\n"))))
        }
    }
}

#[test]
fn without_the_database_streams_are_published_played_and_stopped() {
    case(async {
        let mut mongod = Mongod::start().await?;
        let mut cluster = Cluster::start(ClusterOptions::new(60, 1).registry(mongod.uri())).await?;
        let mut other = NodeProcess::start(cluster.node("origin", 30)).await?;
        know_each_other(&cluster, &other).await?;
        let edge = cluster.edge(0)?.socket();
        let mut runs = LightPublisher::publish(&cluster.origin.socket(), "runs").await?;
        let viewer = LightViewer::play(&edge, "runs").await?;
        viewer.wait_video(30, MEDIA).await?;

        mongod.kill()?;
        let begun = Instant::now();
        let error = error_of(&edge, play("unknown")).await?;
        is_error(&error, "no_stream_exist", Some("unknown")).context("the nodes know that nobody has it")?;
        ensure!(begun.elapsed() < REFUSED, "refused after {:?}", begun.elapsed());
        let late = LightViewer::play(&edge, "runs").await.context("what is here")?;
        let mut waits = AmsSocket::connect(&edge).await?;
        waits.send(play("new")).await?;
        waits.command("error", SOON).await?;
        let begun = Instant::now();
        let mut new = LightPublisher::publish(&other.socket(), "new").await.context("a new stream")?;
        say(&format!("published without the database after {} ms", begun.elapsed().as_millis()));
        waits.definition("streaming_started", SOON).await.context("who waits is called")?;
        let begun = Instant::now();
        let of_new = LightViewer::play(&edge, "new").await.context("a stream the edge has never heard of")?;
        say(&format!("played without the database after {} ms", begun.elapsed().as_millis()));
        for (name, socket, stream) in [
            ("held by another origin", cluster.origin.socket(), "new"),
            ("held by another origin, from before", other.socket(), "runs"),
            ("held here", other.socket(), "new"),
        ] {
            let error = error_of(&socket, publish(stream)).await.context(name)?;
            is_error(&error, "streamIdInUse", Some(stream)).context(name)?;
        }
        all_intact(&[viewer, late, of_new], 60).await?;

        // An origin dies meanwhile, and its stream is published on the other one.
        let viewer = LightViewer::play(&edge, "runs").await?;
        viewer.wait_video(30, MEDIA).await?;
        cluster.origin.kill()?;
        let moved = LightPublisher::publish(&other.socket(), "runs").await.context("the origin is dead")?;
        viewer.wait_takeovers(1, MEDIA).await.context("viewers go on without the database")?;
        all_intact(std::slice::from_ref(&viewer), 60).await?;
        ensure!(http::get(&other.url("/healthz")).await?.status == 200, "alive");
        let answer = http::get(&other.url("/readyz?verbose")).await?.json();
        let named = answer["checks"]
            .as_array()
            .is_some_and(|checks| checks.iter().any(|check| check["name"] == "registry" && check["ok"] == false));
        ensure!(named, "readiness names the registry: {answer}");

        mongod.restart().await?;
        let back = Instant::now();
        let live = BTreeSet::from(["new".to_owned(), "runs".to_owned()]);
        recorded(&cluster.databases, &live, MADE_GOOD).await?;
        say(&format!("documents were right {} ms after the database was back", back.elapsed().as_millis()));
        new.socket()?.stop("new").await?;
        recorded(&cluster.databases, &BTreeSet::from(["runs".to_owned()]), SOON).await?;
        all_intact(&[viewer], 30).await?;
        let _ = runs.socket()?;
        drop((moved, new, runs));
        other.terminate().await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_stream_that_ends_while_the_database_is_away_is_released_later() {
    case(async {
        let mut mongod = Mongod::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(61, 0).registry(mongod.uri())).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "ends").await?;
        mongod.kill()?;
        publisher.socket()?.stop("ends").await?;
        publisher.socket()?.definition("publish_finished", SOON).await.context("the publisher waits for nothing")?;
        cluster.origin.wait_metric("ams_streams", SOON, |n| n == 0.0).await?;
        mongod.restart().await?;
        recorded(&cluster.databases, &BTreeSet::new(), MADE_GOOD).await.context("and its record is gone")?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn records_that_a_restore_took_away_are_made_again() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(62, 1)).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "restored").await?;
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), "restored").await?;
        viewer.wait_video(30, MEDIA).await?;
        // A backup from before the stream: no record, no rendition, and an epoch counter that was never counted.
        for collection in ["broadcast", "StreamInfo", "amsEpoch"] {
            cluster.databases.collection("webrtcappee", collection).delete_many(doc! {}).await?;
        }
        let begun = Instant::now();
        recorded(&cluster.databases, &BTreeSet::from(["restored".to_owned()]), Duration::from_secs(8)).await?;
        say(&format!("records were made again after {} ms", begun.elapsed().as_millis()));
        let late = LightViewer::play(&cluster.edge(0)?.socket(), "restored").await?;
        all_intact(&[viewer, late], 60).await?;
        cluster.end().await;
        Ok(())
    });
}

/// Waits until every node knows the origins it is to ask: they hear of each other with the heartbeats.
async fn know_each_other(cluster: &Cluster, other: &NodeProcess) -> Result<()> {
    for (node, origins) in [(&cluster.origin, 1.0), (other, 1.0), (cluster.edge(0)?, 2.0)] {
        node.wait_metric("ams_known_nodes", MEDIA, |n| n == origins).await?;
    }
    Ok(())
}

/// Waits until both origins have noticed that their publishers are gone.
async fn nobody_publishes(cluster: &Cluster, other: &NodeProcess) -> Result<()> {
    for node in [&cluster.origin, other] {
        node.wait_metric("ams_publishers", SOON, |n| n == 0.0).await?;
    }
    Ok(())
}

/// Publishes, plays and stops, over and over, on both origins. Returns what is published at the end.
async fn churn(cluster: &Cluster, other: &NodeProcess, until: Instant) -> Result<Vec<(String, LightPublisher)>> {
    let mut live: Vec<(String, LightPublisher)> = Vec::new();
    let mut slowest = Duration::ZERO;
    let mut round = 0;
    while Instant::now() < until || live.len() < 3 {
        let origin = if round % 2 == 0 { cluster.origin.socket() } else { other.socket() };
        // Some ids are used again, on the other origin.
        let id = format!("churn{}", round % 7);
        if let Some(at) = live.iter().position(|(live, _)| *live == id) {
            let (id, mut publisher) = live.remove(at);
            publisher.socket()?.stop(&id).await?;
            publisher.socket()?.definition("publish_finished", SOON).await?;
        }
        let begun = Instant::now();
        let publisher = LightPublisher::publish(&origin, &id).await.with_context(|| format!("round {round}: {id}"))?;
        slowest = slowest.max(begun.elapsed());
        let begun = Instant::now();
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), &id)
            .await
            .with_context(|| format!("round {round}: playing {id}"))?;
        slowest = slowest.max(begun.elapsed());
        viewer.wait_video(15, MEDIA).await.with_context(|| format!("round {round}"))?;
        viewer.counts.intact().with_context(|| format!("round {round}"))?;
        live.push((id, publisher));
        round += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    say(&format!("{round} streams published and played, the slowest step took {} ms", slowest.as_millis()));
    Ok(live)
}

fn outage() -> Duration {
    let seconds = std::env::var("AMS_TEST_OUTAGE_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    Duration::from_secs(seconds)
}

#[test]
fn churn_goes_on_while_the_database_is_dead_and_the_documents_follow() {
    patient_case(outage() + Duration::from_secs(90), async {
        let mut mongod = Mongod::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(63, 1).registry(mongod.uri())).await?;
        let other = NodeProcess::start(cluster.node("origin", 30)).await?;
        know_each_other(&cluster, &other).await?;
        let before = churn(&cluster, &other, Instant::now() + Duration::from_secs(1)).await?;
        mongod.kill()?;
        drop(before);
        nobody_publishes(&cluster, &other).await?;
        let live = churn(&cluster, &other, Instant::now() + outage()).await?;
        mongod.restart().await?;
        let back = Instant::now();
        let ids = live.iter().map(|(id, _)| id.clone()).collect();
        recorded(&cluster.databases, &ids, MADE_GOOD).await?;
        say(&format!("documents were right {} ms after the database was back", back.elapsed().as_millis()));
        drop((live, other));
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn churn_goes_on_while_a_replica_set_elects_another_primary() {
    case(async {
        let mut set = ReplicaSet::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(64, 1).registry(set.uri())).await?;
        let other = NodeProcess::start(cluster.node("origin", 30)).await?;
        know_each_other(&cluster, &other).await?;
        let before = churn(&cluster, &other, Instant::now() + Duration::from_secs(1)).await?;
        drop(before);
        nobody_publishes(&cluster, &other).await?;
        let killed = set.kill_primary().await?;
        let live = churn(&cluster, &other, Instant::now() + Duration::from_secs(8)).await?;
        let ids = live.iter().map(|(id, _)| id.clone()).collect();
        recorded(&cluster.databases, &ids, MADE_GOOD).await?;
        set.restart(killed).await?;
        drop((live, other));
        cluster.end().await;
        Ok(())
    });
}
