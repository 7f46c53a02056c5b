//! Origins and publishers that are lost: viewers stay connected and go on with whoever brings the stream next.
//!
//! `AMS_TEST_FAILOVER_ROUNDS` is how often an origin is killed, 4 by default.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ams_testkit::case::{case, long_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::NodeProcess;
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;

use super::{MEDIA, PROMPTLY, SOON, all_intact, record_over};

/// From the publisher's first new keyframe to the viewers' first picture, as the issue promises.
const RESUMED: Duration = Duration::from_millis(300);
/// Viewers of each edge.
const VIEWERS: usize = 10;

fn at(moment: &Mutex<Option<Instant>>) -> Result<Instant> {
    moment.lock().ok().and_then(|at| *at).context("it never happened")
}

#[test]
fn an_origin_that_is_killed_costs_its_viewers_a_pause_and_nothing_else() {
    let rounds: u64 = std::env::var("AMS_TEST_FAILOVER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    long_case(Duration::from_secs(60 + 20 * rounds), async move {
        let mut cluster = Cluster::start(ClusterOptions::new(100, 2)).await?;
        let mut other = NodeProcess::start(cluster.node("origin", 30)).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "moves").await?;
        let sockets = [cluster.edge(0)?.socket(), cluster.edge(1)?.socket()];
        let players = sockets.iter().flat_map(|socket| (0..VIEWERS).map(move |_| LightViewer::play(socket, "moves")));
        let viewers = try_join_all(players).await?;
        all_intact(&viewers, 60).await?;
        let mut waits = Vec::new();
        for round in 1..=rounds {
            let (dies, takes_over) = match round % 2 {
                1 => (&mut cluster.origin, &other),
                _ => (&mut other, &cluster.origin),
            };
            dies.kill()?;
            // A light publisher comes at once; a browser takes a second.
            publisher = LightPublisher::publish(&takes_over.socket(), "moves")
                .await
                .with_context(|| format!("round {round}: the id of a dead origin is free"))?;
            ensure!(publisher.restored, "round {round}: the publisher is told that its viewers were kept");
            let began = at(&publisher.counts.began_at)?;
            try_join_all(viewers.iter().map(|viewer| viewer.wait_takeovers(round, MEDIA)))
                .await
                .with_context(|| format!("round {round}\n{}", cluster.edges[0].log()))?;
            for viewer in &viewers {
                ensure!(!viewer.counts.is_closed(), "round {round}: a viewer was closed");
                waits.push(at(&viewer.counts.taken_over_at)?.saturating_duration_since(began));
            }
            all_intact(&viewers, 30).await.with_context(|| format!("round {round}"))?;
            dies_again(round, &mut cluster.origin, &mut other).await?;
        }
        waits.sort();
        let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        say(&format!("{rounds} origins killed: pictures again after {median:?} (median), {longest:?} (longest)"));
        ensure!(longest <= RESUMED, "{longest:?} from the publisher's first keyframe");
        drop((publisher, other));
        cluster.end().await;
        Ok(())
    });
}

/// The node that was killed in this round comes back for the next.
async fn dies_again(round: u64, first: &mut NodeProcess, second: &mut NodeProcess) -> Result<()> {
    match round % 2 {
        1 => first.restart().await,
        _ => second.restart().await,
    }
}

#[test]
fn a_publisher_that_comes_back_finds_its_viewers() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(101, 1)).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "back").await?;
        ensure!(!publisher.restored);
        let viewers = [
            LightViewer::play(&cluster.origin.socket(), "back").await?,
            LightViewer::play(&cluster.edge(0)?.socket(), "back").await?,
            LightViewer::whep(&cluster.edge(0)?.url(""), ams_testkit::APP, "back").await?,
        ];
        all_intact(&viewers, 30).await?;
        for round in 1..=3 {
            // The socket goes, as when a page is loaded anew.
            publisher.socket.take().context("socket")?.close().await;
            record_over(&cluster.databases, "back", SOON).await.context("nobody publishes it meanwhile")?;
            publisher = LightPublisher::publish(&cluster.origin.socket(), "back").await?;
            ensure!(publisher.restored, "round {round}");
            try_join_all(viewers.iter().map(|viewer| viewer.wait_takeovers(round, MEDIA))).await?;
            all_intact(&viewers, 30).await.with_context(|| format!("round {round}"))?;
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn viewers_wait_as_long_as_they_are_to_and_a_stop_ends_at_once() {
    case(async {
        let options = ClusterOptions::new(102, 1).args(&["--set", "media.resume_window=2s"]);
        let cluster = Cluster::start(options).await?;
        for stops in [false, true] {
            let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "window").await?;
            let mut viewers = [
                LightViewer::play(&cluster.origin.socket(), "window").await?,
                LightViewer::play(&cluster.edge(0)?.socket(), "window").await?,
            ];
            all_intact(&viewers, 30).await?;
            let gone = Instant::now();
            match stops {
                true => publisher.socket()?.stop("window").await?,
                false => publisher.socket.take().context("socket")?.close().await,
            }
            for viewer in &mut viewers {
                viewer.socket()?.definition("play_finished", SOON).await?;
                let waited = gone.elapsed();
                let wanted = if stops {
                    Duration::ZERO..PROMPTLY
                } else {
                    Duration::from_secs(2)..Duration::from_secs(2) + PROMPTLY
                };
                ensure!(wanted.contains(&waited), "stopped: {stops}, told after {waited:?}");
            }
            for node in [&cluster.origin, cluster.edge(0)?] {
                node.wait_metric("ams_streams", SOON, |n| n == 0.0).await?;
                node.wait_metric("ams_sessions", SOON, |n| n == 0.0).await?;
            }
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_newcomer_replaces_a_publisher_that_has_fallen_silent() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(103, 1)).await?;
        let first = LightPublisher::publish(&cluster.origin.socket(), "silent").await?;
        let viewers = [LightViewer::play(&cluster.edge(0)?.socket(), "silent").await?];
        all_intact(&viewers, 30).await?;
        let refused = LightPublisher::publish(&cluster.origin.socket(), "silent").await.map(|_| ()).unwrap_err();
        ensure!(refused.to_string().contains("streamIdInUse"), "{refused}");
        first.vanish();
        let gone = Instant::now();
        let second = ams_testkit::eventually("the id is free", SOON, || async {
            LightPublisher::publish(&cluster.origin.socket(), "silent").await.ok()
        })
        .await?;
        say(&format!("a newcomer was let in {} ms after its predecessor's last packet", gone.elapsed().as_millis()));
        viewers[0].wait_takeovers(1, MEDIA).await?;
        all_intact(&viewers, 60).await?;
        ensure!(second.restored);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_origin_that_stands_still_for_a_while_is_taken_up_again() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(104, 1)).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "frozen").await?;
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), "frozen").await?;
        viewer.wait_video(30, MEDIA).await?;
        cluster.origin.signal("STOP")?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        ensure!(cluster.edge(0)?.log().contains("has been silent"), "the dead link was noticed");
        cluster.origin.signal("CONT")?;
        viewer.wait_video(60, MEDIA).await.context("the same viewer goes on")?;
        ensure!(!viewer.counts.is_closed());
        let (wrong, missing) = (viewer.counts.get(|c| &c.wrong), viewer.counts.get(|c| &c.missing));
        ensure!((wrong, missing) == (0, 0), "{wrong} wrong, {missing} missing: {:?}", viewer.counts.first_wrong);
        cluster.end().await;
        Ok(())
    });
}
