//! The path between an origin and an edge fails or is poor: the edge's viewers notice as little as can be, others nothing.

use std::time::{Duration, Instant};

use ams_testkit::case::{case, patient_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{Habits, LightPublisher, LightViewer};
use ams_testkit::mongo::bson::doc;
use ams_testkit::proxy::{PathState, TcpPath};
use anyhow::{Context, Result, ensure};

use super::{MEDIA, SOON, all_intact};

const STALLED: PathState = PathState { stalled: true, delay: Duration::ZERO, rate: None };
/// From a path that is whole again to pictures, with a link that was dead.
const TAKEN_UP: Duration = Duration::from_secs(5);

/// A stream that an edge pulls over a path of ours, and its viewer; another one that goes its usual way.
struct Scene {
    cluster: Cluster,
    path: TcpPath,
    viewer: LightViewer,
    witness: LightViewer,
    _publishers: [LightPublisher; 2],
}

impl Scene {
    async fn start(net: u8) -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions::new(net, 2)).await?;
        let path = TcpPath::to(cluster.origin.ip(), cluster.origin.relay).await?;
        let publishers = [
            LightPublisher::publish(&cluster.origin.socket(), "far").await?,
            LightPublisher::publish(&cluster.origin.socket(), "near").await?,
        ];
        let infos = cluster.databases.collection("webrtcappee", "StreamInfo");
        let port = i32::from(path.address.port());
        infos.update_many(doc! {"streamId": "far"}, doc! {"$set": {"originPort": port}}).await?;
        let habits = Habits { asks_again: true, ..Habits::default() };
        let viewer = LightViewer::play_with(&cluster.edge(0)?.socket(), "far", habits).await?;
        let witness = LightViewer::play(&cluster.edge(1)?.socket(), "near").await?;
        let scene = Self { cluster, path, viewer, witness, _publishers: publishers };
        scene.viewer.wait_video(60, MEDIA).await?;
        scene.viewer.counts.intact()?;
        Ok(scene)
    }

    /// The viewer got nothing wrong, and all that the edge numbered, if need be by asking again: what had been on its way
    /// comes in one burst.
    async fn nothing_wrong(&self) -> Result<()> {
        let counts = &self.viewer.counts;
        let complete = || async { (counts.get(|c| &c.missing) == 0).then_some(()) };
        eventually("nothing is missing", SOON, complete).await.with_context(|| format!("{counts:?}"))?;
        ensure!(counts.get(|c| &c.wrong) == 0, "{counts:?}");
        ensure!(!counts.is_closed(), "the viewer was closed");
        Ok(())
    }

    async fn end(self) -> Result<()> {
        self.witness.counts.intact().context("the other stream")?;
        self.cluster.end().await;
        Ok(())
    }
}

#[test]
fn two_seconds_are_a_still_picture_on_the_same_link() {
    case(async {
        let scene = Scene::start(150).await?;
        scene.path.set(STALLED);
        tokio::time::sleep(Duration::from_secs(2)).await;
        scene.path.set(PathState::default());
        let healed = Instant::now();
        scene.viewer.wait_video(30, SOON).await?;
        say(&format!("2 s of partition: 30 more packets {} ms after it", healed.elapsed().as_millis()));
        scene.nothing_wrong().await?;
        scene.viewer.wait_video(90, MEDIA).await?;
        ensure!(!scene.cluster.edge(0)?.log().contains("link to origin is down"), "the link was kept");
        scene.end().await
    });
}

#[test]
fn eight_seconds_cost_the_link_and_no_viewer() {
    case(async {
        let scene = Scene::start(151).await?;
        scene.path.set(STALLED);
        tokio::time::sleep(Duration::from_secs(8)).await;
        ensure!(scene.cluster.edge(0)?.log().contains("has been silent"), "the dead link was noticed and named");
        scene.path.set(PathState::default());
        let healed = Instant::now();
        scene.viewer.wait_video(30, TAKEN_UP).await?;
        say(&format!("8 s of partition: pictures again {} ms after it", healed.elapsed().as_millis()));
        scene.nothing_wrong().await?;
        scene.end().await
    });
}

/// `AMS_TEST_PARTITION_SECONDS` sets another time; it must be longer than viewers wait.
#[test]
fn a_long_partition_is_an_end_and_a_new_beginning() {
    let seconds = std::env::var("AMS_TEST_PARTITION_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    patient_case(Duration::from_secs(seconds + 60), async move {
        let mut scene = Scene::start(152).await?;
        scene.path.set(STALLED);
        let begun = Instant::now();
        scene.viewer.socket()?.definition("play_finished", Duration::from_secs(20)).await?;
        say(&format!("{seconds} s of partition: the viewer was told after {} ms", begun.elapsed().as_millis()));
        // Who plays meanwhile waits for it, and is not left without a word.
        let mut waits = ams_testkit::ams::AmsSocket::connect(&scene.cluster.edge(0)?.socket()).await?;
        waits.send(super::play("far")).await?;
        waits.command("error", SOON).await?;
        tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed())).await;
        scene.path.set(PathState::default());
        let again = eventually("it can be played again", TAKEN_UP, || async {
            LightViewer::play(&scene.cluster.edge(0).ok()?.socket(), "far").await.ok()
        })
        .await?;
        all_intact(&[again], 60).await?;
        scene.end().await
    });
}

#[test]
fn a_far_origin_is_as_good_as_a_near_one() {
    case(async {
        let scene = Scene::start(153).await?;
        scene.path.set(PathState { delay: Duration::from_millis(100), ..PathState::default() });
        let late = LightViewer::play(&scene.cluster.edge(1)?.socket(), "far").await.context("pulled from far away")?;
        scene.viewer.wait_video(300, MEDIA).await?;
        scene.viewer.counts.intact()?;
        all_intact(&[late], 60).await?;
        scene.end().await
    });
}

#[test]
fn a_path_too_narrow_for_the_stream_carries_what_can_be_shown() {
    case(async {
        let scene = Scene::start(154).await?;
        let before = scene.viewer.counts.get(|c| &c.video);
        // The stream takes about 90 kB a second.
        scene.path.set(PathState { rate: Some(45_000), ..PathState::default() });
        tokio::time::sleep(Duration::from_secs(8)).await;
        let came = scene.viewer.counts.get(|c| &c.video) - before;
        let dropped = scene.cluster.origin.metric("ams_relay_packets_dropped_total").await?;
        say(&format!(
            "half the stream's rate for 8 s: {came} of 720 packets came, {dropped} were dropped at the origin"
        ));
        ensure!((100..600).contains(&came), "{came} packets in 8 s");
        scene.nothing_wrong().await?;
        scene.path.set(PathState::default());
        scene.viewer.wait_video(180, SOON).await.context("all of it again")?;
        scene.nothing_wrong().await?;
        scene.end().await
    });
}
