//! Browsers against an origin and an edge that are processes of their own, with a real MongoDB between them.

use std::time::{Duration, Instant};

use ams_testkit::driver::Driver;
use ams_testkit::eventually;
use ams_testkit::mongo::{Databases, uri};
use ams_testkit::node::{NodeOptions, NodeProcess};
use tokio::sync::MutexGuard;

use super::{APP, PATIENCE, Picture, but_when, finish, no_complaints, result, said, saw, say, turn};

/// An origin and an edge, each at its own address, and their databases.
struct Cluster {
    origin: NodeProcess,
    edge: NodeProcess,
    databases: Databases,
    _secrets: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    async fn start() -> Self {
        let turn = turn().await;
        let databases = Databases::new().await.unwrap();
        let secrets = tempfile::tempdir().unwrap();
        let key = secrets.path().join("cluster.key");
        std::fs::write(&key, "a secret of this test alone: 7f1d").unwrap();
        let options = |mode, ip| NodeOptions {
            registry: Some(uri().unwrap()),
            prefix: Some(databases.prefix.clone()),
            key: Some(key.clone()),
            ..NodeOptions::new(mode, ip)
        };
        let origin = NodeProcess::start(options("origin", [127, 0, 0, 21])).await.unwrap();
        let edge = NodeProcess::start(options("edge", [127, 0, 0, 22])).await.unwrap();
        Self { origin, edge, databases, _secrets: secrets, _turn: turn }
    }

    async fn stop(self) {
        drop((self.origin, self.edge));
        self.databases.drop_all().await;
    }
}

#[tokio::test]
async fn browsers_meet_across_processes_and_the_records_say_so() {
    let cluster = Cluster::start().await;
    let Cluster { origin, edge, databases, .. } = &cluster;

    // The viewer is there first: the edge must hear of the publisher through the registry.
    let player_url = edge.url(&format!("/{APP}/player.html"));
    let player_args = ["--url", &player_url, "--browser", "firefox", "--seconds", "5", "--start-deadline", "60"];
    let mut player = Driver::start("play.mjs", &player_args).unwrap();
    player.event("pressed", PATIENCE).await.unwrap();

    let publish_url = origin.url(&format!("/{APP}/"));
    let mut publisher = Driver::start("publish.mjs", &["--url", &publish_url, "--seconds", "0"]).unwrap();
    let live = publisher.event("publishing", PATIENCE).await.unwrap();
    say(&format!("cluster: live {} ms after Start Publishing", live["startedMs"]));
    let published = Instant::now();
    player.event("playing", PATIENCE).await.unwrap();
    say(&format!(
        "cluster, waiting player: picture {} ms after the publisher was live",
        published.elapsed().as_millis()
    ));
    let record = databases.broadcast(APP, "stream1").await.unwrap().unwrap();
    assert_eq!(record.get_str("status").ok(), Some("broadcasting"), "{record}");
    let seen = result(&mut player).await;
    saw("cluster, player page, firefox", &but_when(&seen), Picture::Camera, None);
    no_complaints("player page", &seen);

    let whep = edge.url(&format!("/{APP}/whep/stream1"));
    let seen = result(&mut Driver::start("whep_gstreamer.py", &["--url", &whep, "--seconds", "4"]).unwrap()).await;
    saw("cluster, GStreamer", &seen, Picture::Camera, Some("VP8"));

    no_complaints("publish page", &finish(publisher).await);
    eventually("the record says that the stream is over", Duration::from_secs(10), || async {
        let record = databases.broadcast(APP, "stream1").await.ok()?;
        record.is_none_or(|r| r.get_str("status").ok() != Some("broadcasting")).then_some(())
    })
    .await
    .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn pages_come_back_by_themselves_after_a_killed_edge_and_a_killed_origin() {
    let mut cluster = Cluster::start().await;
    let publish_url = cluster.origin.url(&format!("/{APP}/"));
    let mut publisher = Driver::start("publish.mjs", &["--url", &publish_url, "--seconds", "0"]).unwrap();
    publisher.event("publishing", PATIENCE).await.unwrap();
    let player_url = cluster.edge.url(&format!("/{APP}/player.html"));
    let mut player = Driver::start("play.mjs", &["--url", &player_url, "--seconds", "0"]).unwrap();
    said(&mut player, "Playing stream1").await;

    for what in ["edge", "origin"] {
        let node = if what == "edge" { &mut cluster.edge } else { &mut cluster.origin };
        node.kill().unwrap();
        // Of the edge's end the page learns by itself; the edge keeps its viewers when it loses the origin.
        let words = if what == "edge" { "connection to the server was lost" } else { "Nothing has arrived" };
        said(&mut player, words).await;
        node.restart().await.unwrap();
        let again = Instant::now();
        said(&mut player, "Playing stream1").await;
        say(&format!("killed {what}: the page plays {} ms after it was ready again", again.elapsed().as_millis()));
    }

    // The page says so at the first frame. What it shows is sampled twice a second: let some samples be of now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = finish(player).await;
    assert!(seen["looksLikeFakeCamera"] == true, "{seen:#}");
    assert!(seen["framesDecoded"].as_u64() >= Some(20), "{seen:#}");
    finish(publisher).await;
    cluster.stop().await;
}
