//! Calls for streams of another node: passed on once, proved, and done on the spot when the other one is gone.

use std::time::Instant;

use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::http;
use ams_testkit::light::LightPublisher;
use ams_testkit::mongo::bson::doc;
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::ensure;
use serde_json::{Value, json};

use super::{NONE, SOON, call, call_with, check, result, row};

#[test]
fn a_dead_owners_streams_are_ended_here() {
    case(async {
        let mut cluster = Cluster::start(ClusterOptions::new(67, 1)).await?;
        let _streams = [
            LightPublisher::publish(&cluster.origin.socket(), "one").await?,
            LightPublisher::publish(&cluster.origin.socket(), "two").await?,
        ];
        cluster.origin.kill()?;
        let edge = cluster.edge(0)?;
        let begun = Instant::now();
        check(
            edge,
            &[
                row("edited", "PUT", "/broadcasts/one", json!({"name": "n"}), 200, result(true, Value::Null)),
                row("stopped", "POST", "/broadcasts/one/stop", NONE, 200, result(true, Value::Null)),
                row("gone with it", "GET", "/broadcasts/one", NONE, 404, Value::Null),
                row(
                    "deleted",
                    "DELETE",
                    "/broadcasts/two",
                    NONE,
                    200,
                    result(true, "broadcast is deleted and stopped successfully"),
                ),
                row("gone", "GET", "/broadcasts/two", NONE, 404, Value::Null),
                row(
                    "said",
                    "POST",
                    "/broadcasts/two/data",
                    json!("x"),
                    200,
                    result(false, "Requested WebRTC stream does not exist"),
                ),
            ],
        )
        .await?;
        ensure!(begun.elapsed() < SOON, "a dead node costs little time: {:?}", begun.elapsed());
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_owner_that_does_not_answer_does_not_hold_a_call_for_ever() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(68, 1)).await?;
        let _stream = LightPublisher::publish(&cluster.origin.socket(), "one").await?;
        cluster.origin.signal("STOP")?;
        let begun = Instant::now();
        let done = call(cluster.edge(0)?, "DELETE", "/broadcasts/one", &NONE).await?;
        ensure!(done.json()["success"] == true, "{done:?}");
        ensure!(begun.elapsed().as_secs() < 9, "{:?}", begun.elapsed());
        ensure!(cluster.databases.broadcast(APP, "one").await?.is_none());
        cluster.origin.signal("CONT")?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_call_is_passed_on_past_the_guards_of_the_owner_but_not_by_strangers() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(69, 1)).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let mut publisher = LightPublisher::publish(&origin.socket(), "one").await?;
        // The edge lets the caller in by its token; what it passes on has none.
        let key = "0123456789abcdef0123456789abcdef";
        let settings = json!({"jwtControlEnabled": true, "jwtSecretKey": key});
        let path = format!("/rest/v2/applications/settings/{APP}");
        ensure!(call_with(edge, "POST", &path, &[], &settings).await?.json()["success"] == true);
        let token = super::settings::signed(key);
        let stop = format!("/{APP}/rest/v2/broadcasts/one/stop");
        super::settings::wait_status(origin, &stop.replace("/stop", ""), &[], 403).await?;
        super::settings::wait_status(edge, &stop.replace("/stop", ""), &[], 403).await?;
        for (name, header) in [
            ("nonsense", "nonsense".to_owned()),
            ("another key", super::settings::signed("another key, which is long enough, too")),
            ("the application's key", token.clone()),
        ] {
            let got = call_with(origin, "POST", &stop, &[("ClusterAuthorization", &header)], &NONE).await?;
            ensure!(got.status == 403, "{name}: {got:?}");
        }
        let got = call_with(edge, "POST", &stop, &[("Authorization", &token)], &NONE).await?;
        ensure!(got.status == 200 && got.json() == result(true, Value::Null), "{got:?}");
        publisher.socket()?.definition("publish_finished", SOON).await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_record_that_leads_nowhere_leads_to_no_harm() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(70, 0)).await?;
        let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?;
        let records = cluster.databases.collection(&APP.to_lowercase(), "broadcast");
        for (id, host) in [
            ("self", cluster.origin.ip().to_string()),
            ("nobody", "127.0.70.99".to_owned()),
            ("path", "127.0.0.1/x@".to_owned()),
        ] {
            let record = doc! { "streamId": id, "status": "broadcasting", "updateTime": now, "originAdress": host };
            records.insert_one(record).await?;
            let done = call(&cluster.origin, "DELETE", &format!("/broadcasts/{id}"), &NONE).await?;
            ensure!(done.status == 200 && done.json()["success"] == true, "{id}: {done:?}");
            ensure!(cluster.databases.broadcast(APP, id).await?.is_none(), "{id}");
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn nodes_without_a_cluster_key_pass_calls_on_too() {
    case(async {
        let demo = NodeProcess::start(NodeOptions::new("demo", [127, 0, 0, 1])).await?;
        let mut publisher = LightPublisher::publish(&demo.socket(), "one").await?;
        // The second address is the edge's.
        let stop = format!("http://{}/{APP}/rest/v2/broadcasts/one/stop", demo.relay);
        let got = http::send("POST", &stop, &[], "").await?;
        ensure!(got.status == 200 && got.json() == result(true, Value::Null), "{got:?}");
        publisher.socket()?.definition("publish_finished", SOON).await?;
        let stranger = http::send("POST", &stop, &[("X-Forwarded-For", "203.0.113.5")], "").await?;
        ensure!(stranger.status == 403, "{stranger:?}");
        Ok(())
    });
}
