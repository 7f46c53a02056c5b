//! Documents that other programs left half-written or wrong: read as far as they make sense, never a crash, never a
//! stream that cannot be had.

use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::http;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::mongo::bson::{Bson, Document, doc};
use anyhow::{Context, Result, ensure};

use super::{SOON, error_of, is_error, play};

/// Something of every type BSON has a use for.
fn any_values() -> Vec<Bson> {
    vec![
        Bson::Null,
        Bson::String("x".repeat(5000)),
        Bson::String(String::new()),
        Bson::Int32(-1),
        Bson::Int64(i64::MAX),
        Bson::Double(f64::NAN),
        Bson::Boolean(true),
        Bson::Array(vec![Bson::Null; 50]),
        doc! {"a": {"b": [1]}}.into(),
        Bson::DateTime(ams_testkit::mongo::bson::DateTime::now()),
    ]
}

#[test]
fn records_with_missing_and_wrong_fields_are_no_streams_and_can_be_published() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(100, 1)).await?;
        let steady = LightPublisher::publish(&cluster.origin.socket(), "steady").await?;
        let witness = LightViewer::play(&cluster.edge(0)?.socket(), "steady").await?;
        let records = cluster.databases.collection("webrtcappee", "broadcast");
        let infos = cluster.databases.collection("webrtcappee", "StreamInfo");
        let fields =
            ["status", "updateTime", "originAdress", "zombi", "startTime", "webRTCViewerCount", "amsEpoch", "virtual"];
        let mut names = Vec::new();
        let mut row = 0;
        for field in fields {
            for value in any_values() {
                let id = format!("odd{row}");
                row += 1;
                let mut document = doc! {"streamId": &id, "status": "created"};
                document.insert(field, value.clone());
                records.insert_one(document).await.context(field)?;
                let mut info: Document = doc! {"streamId": &id, "host": "127.0.100.11", "originPort": 5000};
                info.insert(if row % 2 == 0 { "host" } else { "originPort" }, value);
                infos.insert_one(info).await?;
                names.push((id, field));
            }
        }
        for bare in [doc! {}, doc! {"streamId": 7}, doc! {"streamId": {"a": 1}}] {
            // The unique index may refuse some of them: that is fine too.
            let _ = records.insert_one(bare).await;
        }
        for (at, (id, field)) in names.iter().enumerate() {
            let error =
                error_of(&cluster.edge(0)?.socket(), play(id)).await.with_context(|| format!("{id} {field}"))?;
            is_error(&error, "no_stream_exist", Some(id)).with_context(|| format!("{id} {field}"))?;
            // One of each field is published over, too.
            if at % any_values().len() == at / any_values().len() {
                let mut publisher = LightPublisher::publish(&cluster.origin.socket(), id)
                    .await
                    .with_context(|| format!("{id} {field}"))?;
                let viewer = LightViewer::play(&cluster.edge(0)?.socket(), id).await?;
                viewer.wait_video(10, super::MEDIA).await?;
                publisher.socket()?.stop(id).await?;
                publisher.socket()?.definition("publish_finished", SOON).await?;
            }
        }
        healthy(&cluster).await?;
        super::all_intact(&[witness], 30).await.context("a running stream")?;
        drop(steady);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_live_record_that_leads_nowhere_is_refused_in_time() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(101, 1)).await?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
        let records = cluster.databases.collection("webrtcappee", "broadcast");
        let infos = cluster.databases.collection("webrtcappee", "StreamInfo");
        let edge = cluster.edge(0)?;
        for (name, host, port) in [
            ("nobody there", Bson::from("127.0.101.99"), Bson::from(5000)),
            ("itself", edge.ip().to_string().into(), i32::from(edge.relay.port()).into()),
            ("no address", "not a host name".into(), 5000.into()),
            ("port too large", "127.0.101.11".into(), 70_000.into()),
            ("port negative", "127.0.101.11".into(), (-1).into()),
            ("HTTP, no relay", "127.0.101.11".into(), i32::from(cluster.origin.http.port()).into()),
            ("an origin without it", "127.0.101.11".into(), i32::from(cluster.origin.relay.port()).into()),
            ("no host", Bson::Null, Bson::Null),
        ] {
            let id = name.replace([' ', ','], "-");
            let record = doc! {"streamId": &id, "status": "broadcasting", "updateTime": now + 60_000, "originAdress": host.clone()};
            records.insert_one(record).await?;
            infos.insert_one(doc! {"streamId": &id, "host": host, "originPort": port}).await?;
            let begun = std::time::Instant::now();
            let error = error_of(&edge.socket(), play(&id)).await.context(name)?;
            is_error(&error, "no_stream_exist", Some(&id)).context(name)?;
            ensure!(begun.elapsed().as_millis() < 3000, "{name}: refused after {:?}", begun.elapsed());
        }
        healthy(&cluster).await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn node_rows_that_make_no_sense_disturb_nobody() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(102, 1)).await?;
        let rows = cluster.databases.collection("clusterdb", "clusternode");
        for (at, value) in any_values().into_iter().enumerate() {
            let mut row = doc! {"_id": format!("odd{at}")};
            for field in ["ip", "lastUpdateTime", "memory", "cpu", "httpPort", "role"] {
                row.insert(field, value.clone());
            }
            rows.insert_one(row).await?;
        }
        rows.insert_one(doc! {"_id": ""}).await?;
        rows.insert_one(doc! {"_id": 42}).await?;
        let error = error_of(&cluster.edge(0)?.socket(), super::publish("x")).await?;
        let sentence = error["information"].as_str().unwrap_or_default();
        ensure!(sentence.contains(&cluster.origin.http.to_string()), "the real origin is named: {error}");
        healthy(&cluster).await?;
        cluster.end().await;
        Ok(())
    });
}

async fn healthy(cluster: &Cluster) -> Result<()> {
    for node in [&cluster.origin].into_iter().chain(&cluster.edges) {
        let answer = http::get(&node.url("/readyz?verbose")).await?;
        ensure!(answer.status == 200, "{}", answer.body);
        ensure!(!node.log().contains("panicked"), "{}", node.log());
    }
    ensure!(cluster.databases.broadcast(APP, "none").await?.is_none());
    Ok(())
}
