//! A relay link over a path that loses packets below TCP: late or thinned out for its edge, nothing for anybody else.
//!
//! `AMS_TEST_LOSSY_SECONDS` is how long it is watched, 10 by default.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ams_testkit::case::{case, patient_case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{Habits, LightPublisher, LightViewer};
use ams_testkit::lossy::{LossyPath, Quality, congestion_controls};
use ams_testkit::mongo::bson::doc;
use ams_testkit::node::{NodeOptions, NodeProcess, free_port};
use anyhow::{Context, Result, ensure};

use super::{MEDIA, SOON};

/// Each way.
const QUALITY: Quality = Quality { loss: 0.05, delay: Duration::from_millis(100), seed: 5 };

/// A viewer whose edge pulls over a lossy path.
struct Far {
    congestion: &'static str,
    path: LossyPath,
    viewer: LightViewer,
    /// Video packets it had when it was first looked at.
    before: u64,
    longest_still: Duration,
    last: (u64, Instant),
}

impl Far {
    fn look(&mut self) {
        let video = self.viewer.counts.get(|c| &c.video);
        if video > self.last.0 {
            self.last = (video, Instant::now());
        }
        self.longest_still = self.longest_still.max(self.last.1.elapsed());
    }

    /// What came was right, in order and whole from keyframe to keyframe.
    async fn whole(&self) -> Result<()> {
        let counts = &self.viewer.counts;
        let complete = || async { (counts.get(|c| &c.missing) == 0).then_some(()) };
        eventually("nothing is missing", SOON, complete).await.with_context(|| format!("{counts:?}"))?;
        ensure!(counts.get(|c| &c.wrong) == 0 && counts.get(|c| &c.skipped) == 0, "{counts:?}");
        ensure!(!counts.is_closed(), "the viewer was closed");
        Ok(())
    }
}

#[test]
fn a_link_that_loses_five_percent_carries_whole_pictures_and_disturbs_nobody() {
    let seconds = std::env::var("AMS_TEST_LOSSY_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    patient_case(Duration::from_secs(seconds + 60), async move {
        let known = congestion_controls();
        let congestions: Vec<_> = ["cubic", "bbr"].into_iter().filter(|c| known.iter().any(|k| k == c)).collect();
        ensure!(!congestions.is_empty(), "neither cubic nor bbr: {known:?}");
        let cluster = Cluster::start(ClusterOptions::new(160, 3)).await?;
        // Listens at every address, those of the paths among them.
        let options = cluster.node("origin", 30);
        let (ip, every) = (options.ip, Ipv4Addr::UNSPECIFIED);
        let (http, relay) = ((ip, free_port(ip)?), (every, free_port(every)?));
        let origin = NodeProcess::start_at(options, http.into(), relay.into()).await?;
        let mut paths = Vec::new();
        for (net, congestion) in (160..).zip(&congestions) {
            let Some(mut path) = LossyPath::open(net, congestion, QUALITY)? else { return Ok(()) };
            let door = path.door((ip, relay.1).into()).await?;
            paths.push((*congestion, path, door));
        }
        let publisher = LightPublisher::publish(&origin.socket(), "far").await?;
        let _near = LightPublisher::publish(&cluster.origin.socket(), "near").await?;
        let witnesses = [
            ("the same stream at another edge", LightViewer::play(&cluster.edge(2)?.socket(), "far").await?),
            ("another stream at the same edge", LightViewer::play(&cluster.edge(0)?.socket(), "near").await?),
        ];
        let infos = cluster.databases.collection("webrtcappee", "StreamInfo");
        let mut fars = Vec::new();
        for (at, (congestion, path, door)) in paths.into_iter().enumerate() {
            let way = doc! {"$set": {"originPort": i32::from(door.port())}};
            infos.update_many(doc! {"streamId": "far"}, way).await?;
            let habits = Habits { asks_again: true, ..Habits::default() };
            let socket = cluster.edge(at)?.socket();
            // A dial whose packets get lost takes longer than a viewer is made to wait: then it is told to ask again.
            let viewer = eventually("the stream is pulled", 2 * MEDIA, || async {
                LightViewer::play_with(&socket, "far", habits).await.ok()
            })
            .await?;
            viewer.wait_video(30, MEDIA).await.context(congestion)?;
            let last = (0, Instant::now());
            fars.push(Far { congestion, path, viewer, before: 0, longest_still: Duration::ZERO, last });
        }
        let made = publisher.counts.get(|c| &c.video);
        for far in &mut fars {
            (far.before, far.last.1) = (far.viewer.counts.get(|c| &c.video), Instant::now());
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(seconds) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            fars.iter_mut().for_each(Far::look);
        }
        let made = publisher.counts.get(|c| &c.video) - made;
        for far in &fars {
            let came = far.viewer.counts.get(|c| &c.video) - far.before;
            let (carried, lost) = far.path.passed();
            say(&format!(
                "{}: {lost} of {} packets lost on the path; {:.0} % of the pictures in {seconds} s, longest still {} ms",
                far.congestion,
                carried + lost,
                came as f64 / made as f64 * 100.0,
                far.longest_still.as_millis(),
            ));
            ensure!(lost >= 20, "{}: {lost} of {carried} packets lost is no lossy path", far.congestion);
        }
        for (name, witness) in &witnesses {
            let gap = Duration::from_micros(witness.counts.get(|c| &c.longest_gap_us));
            say(&format!("{name}: {} pictures' packets, longest pause {gap:?}", witness.counts.get(|c| &c.video)));
            witness.counts.intact().with_context(|| (*name).to_owned())?;
        }
        let dropped = origin.metric("ams_relay_packets_dropped_total").await?;
        say(&format!("dropped at the origin: {dropped}"));
        for (at, far) in fars.iter().enumerate() {
            far.whole().await.context(far.congestion)?;
            let log = cluster.edge(at)?.log();
            ensure!(!log.contains("link to origin is down"), "{}: the link was kept: {log}", far.congestion);
        }
        drop((origin, fars));
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_origin_at_the_other_end_of_the_world_is_reached() {
    case(async {
        let quality = Quality { loss: 0.0, delay: Duration::from_millis(180), seed: 0 };
        let Some(path) = LossyPath::open(164, "reno", quality)? else { return Ok(()) };
        let cluster = Cluster::start(ClusterOptions::new(164, 1)).await?;
        let options = NodeOptions { advertise: Some(path.far), ..cluster.node("origin", 30) };
        let every = Ipv4Addr::UNSPECIFIED;
        let (http, relay) = ((options.ip, free_port(options.ip)?), (every, free_port(every)?));
        let origin = NodeProcess::start_at(options, http.into(), relay.into()).await?;
        let _publisher = LightPublisher::publish(&origin.socket(), "world").await?;
        // A connection and a handshake are three round trips, and the subscription is one more.
        let asked = Instant::now();
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), "world").await?;
        say(&format!("360 ms of round trip: offered and connected after {} ms", asked.elapsed().as_millis()));
        viewer.wait_video(180, MEDIA).await?;
        viewer.counts.intact()?;
        drop(origin);
        cluster.end().await;
        Ok(())
    });
}
