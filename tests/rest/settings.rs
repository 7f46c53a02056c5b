//! Applications' settings: read, replaced, and in force on every node within 2 s.

use std::time::{Instant, SystemTime};

use ams_access::jwt::{Claims, Hs256Key};
use ams_access::{Secret, UnixMs};
use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::mongo::bson::{Bson, doc};
use ams_testkit::mongod::Mongod;
use ams_testkit::node::NodeProcess;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{NONE, SETTINGS, SOON, call_with, result};

/// A token that was signed with `key` and is good for a minute.
pub(crate) fn signed(key: &str) -> String {
    let key = Hs256Key::new(&Secret::from(key)).expect("a long key");
    key.sign(&Claims::until(UnixMs::from(SystemTime::now()).secs() + 60))
}

/// Waits until a GET is answered with this status.
pub(crate) async fn wait_status(node: &NodeProcess, path: &str, headers: &[(&str, &str)], status: u16) -> Result<()> {
    eventually(&format!("{path} answers {status}"), SOON, || async {
        let got = call_with(node, "GET", path, headers, &NONE).await.ok()?;
        (got.status == status).then_some(())
    })
    .await
}

#[test]
fn settings_are_replaced_and_in_force_on_every_node() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(71, 1)).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let path = format!("/rest/v2/applications/settings/{APP}");
        let get = async |node| call_with(node, "GET", &path, &[], &NONE).await;
        let post = async |node, body: Value| call_with(node, "POST", &path, &[], &body).await;

        let first = get(origin).await?.json();
        for (name, want) in [
            ("appName", json!(APP)),
            ("ipFilterEnabled", json!(true)),
            ("remoteAllowedCIDR", json!("127.0.0.1")),
            ("jwtControlEnabled", json!(false)),
            ("webRTCPortRangeMin", json!(50_000)),
            ("dataChannelPlayerDistribution", json!("all")),
            ("abrUpScalePacketLostRatio", json!(0.1)),
            ("timeTokenPeriod", json!(60)),
            ("encoderSettings", json!([])),
        ] {
            ensure!(first[name] == want, "{name} is {}", first[name]);
        }

        let done = post(edge, json!({"remoteAllowedCIDR": "127.0.0.1,10.9.0.0/16", "hlsTime": "4", "ours": {"a": 1}}));
        ensure!(done.await?.json() == result(true, Value::Null));
        let begun = Instant::now();
        eventually("the other node has them", SOON, || async {
            (get(origin).await.ok()?.json()["hlsTime"] == "4").then_some(())
        })
        .await?;
        ensure!(begun.elapsed() < SETTINGS, "after {:?}", begun.elapsed());
        let stored = cluster.databases.find("clusterdb", "AppSettings", doc! {"appName": APP}).await?;
        ensure!(stored.len() == 1, "{stored:?}");
        ensure!(stored[0].get("ipFilterEnabled") == Some(&Bson::Boolean(true)), "{stored:?}");
        ensure!(stored[0].get_str("clusterCommunicationKey").is_ok_and(|key| key.len() == 32), "{stored:?}");

        let done = post(origin, json!({"remoteAllowedCIDR": "127.0.0.1"})).await?;
        ensure!(done.json() == result(true, Value::Null), "{done:?}");
        let now = get(origin).await?.json();
        ensure!(now["hlsTime"] == "2", "what is left out has its default: {}", now["hlsTime"]);
        ensure!(now["ours"] == json!({"a": 1}), "what nobody knows stays: {}", now["ours"]);

        for (name, body, status) in [
            ("no list of addresses", json!({"remoteAllowedCIDR": "everybody"}), 200),
            ("another type", json!({"ipFilterEnabled": "yes"}), 400),
            ("no JSON", json!("{"), 400),
        ] {
            let refused = post(origin, body).await?;
            ensure!(refused.status == status && refused.json()["success"] == false, "{name}: {refused:?}");
        }
        ensure!(get(origin).await?.json()["remoteAllowedCIDR"] == "127.0.0.1", "a refusal changes nothing");
        let unknown = call_with(origin, "GET", "/rest/v2/applications/settings/nobody", &[], &NONE).await?;
        ensure!(unknown.status == 404 && unknown.json()["success"] == false, "{unknown:?}");

        // Another program writes them.
        let settings = cluster.databases.collection("clusterdb", "AppSettings");
        settings.update_one(doc! {"appName": APP}, doc! {"$set": {"ipFilterEnabled": false}}).await?;
        let stranger = [("X-Forwarded-For", "203.0.113.5")];
        let count = format!("/{APP}/rest/v2/broadcasts/count");
        wait_status(edge, &count, &stranger, 200).await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn settings_stay_in_force_while_the_registry_is_away() {
    case(async {
        let mut mongod = Mongod::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(72, 0).registry(mongod.uri())).await?;
        let settings = json!({"remoteAllowedCIDR": "10.9.0.0/16"});
        let path = format!("/rest/v2/applications/settings/{APP}");
        ensure!(call_with(&cluster.origin, "POST", &path, &[], &settings).await?.json()["success"] == true);
        let count = format!("/{APP}/rest/v2/broadcasts/count");
        let (friend, stranger) = ([("X-Forwarded-For", "10.9.1.1")], [("X-Forwarded-For", "10.8.1.1")]);
        wait_status(&cluster.origin, &count, &friend, 200).await?;
        wait_status(&cluster.origin, &count, &stranger, 403).await?;
        mongod.kill()?;
        let version = format!("/{APP}/rest/v2/version");
        for _ in 0..3 {
            tokio::time::sleep(SETTINGS).await;
            ensure!(call_with(&cluster.origin, "GET", &version, &friend, &NONE).await?.status == 200);
            ensure!(call_with(&cluster.origin, "GET", &version, &stranger, &NONE).await?.status == 403);
        }
        let away = call_with(&cluster.origin, "GET", &count, &friend, &NONE).await?;
        let sentence = "Database is not available. Please try again";
        ensure!(away.status == 500 && away.json() == result(false, sentence), "{away:?}");
        drop(cluster);
        Ok(())
    });
}
