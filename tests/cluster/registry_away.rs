//! MongoDB that goes and comes back: what runs goes on, what needs it is refused by name, what was missed is made good.

use std::time::{Duration, Instant};

use ams_testkit::APP;
use ams_testkit::case::{case, say};
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::mongod::Mongod;
use ams_testkit::{eventually, http};
use anyhow::{Context, ensure};

use super::{SOON, all_intact, error_of, is_error, play, publish};

/// Longest wait for a refusal: a call's deadline is 2 s, and the SDK asks again after 3 s.
const REFUSED: Duration = Duration::from_secs(3);
/// Longest wait for a node to use a database that is back.
const BACK: Duration = Duration::from_secs(20);

#[test]
fn a_database_that_is_away_costs_running_streams_nothing() {
    case(async {
        let mut mongod = Mongod::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(60, 1).registry(mongod.uri())).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let mut publisher = LightPublisher::publish(&origin.socket(), "runs").await?;
        let viewer = LightViewer::play(&edge.socket(), "runs").await?;
        viewer.wait_video(30, super::MEDIA).await?;

        mongod.kill()?;
        for (name, url, command, stream) in [
            ("publish", origin.socket(), publish("new"), "new"),
            ("play of a stream not here", edge.socket(), play("unknown"), "unknown"),
        ] {
            let begun = Instant::now();
            let error = error_of(&url, command).await.context(name)?;
            is_error(&error, "data_store_not_available", Some(stream)).context(name)?;
            ensure!(begun.elapsed() < REFUSED, "{name} was refused after {:?}", begun.elapsed());
        }
        let late = LightViewer::play(&edge.socket(), "runs").await.context("what is known here needs no database")?;
        all_intact(&[viewer, late], 90).await?;
        ensure!(http::get(&origin.url("/healthz")).await?.status == 200, "alive");
        eventually("readiness names the registry", SOON, || async {
            let answer = http::get(&origin.url("/readyz?verbose")).await.ok()?;
            let checks = answer.json()["checks"].clone();
            checks.as_array()?.iter().find(|c| c["name"] == "registry" && c["ok"] == false).map(drop)
        })
        .await?;

        mongod.restart().await?;
        let back = Instant::now();
        eventually("a new stream can be published", BACK, || async {
            LightPublisher::publish(&origin.socket(), "new").await.ok()
        })
        .await?;
        say(&format!("publishing worked again {} ms after the database was back", back.elapsed().as_millis()));
        eventually("the running stream's record is kept up again", BACK, || async {
            let record = cluster.databases.broadcast(APP, "runs").await.ok()??;
            (record.get_str("status").ok()? == "broadcasting").then_some(())
        })
        .await?;
        publisher.socket()?.stop("runs").await?;
        super::record_over(&cluster.databases, "runs", SOON).await?;
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
        super::record_over(&cluster.databases, "ends", BACK).await?;
        ensure!(cluster.databases.broadcast(APP, "ends").await?.is_none(), "and its record is gone");
        cluster.end().await;
        Ok(())
    });
}
