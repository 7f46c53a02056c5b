//! The documents AMS's own tools read: names, types and values, while a stream lives and after it.

use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::mongo::bson::{Bson, Document, doc};
use anyhow::{Result, ensure};

use super::{SOON, record_over};

/// How long after a start the first regular update has been written.
const UPDATED: std::time::Duration = std::time::Duration::from_secs(12);

fn type_of(value: Option<&Bson>) -> &'static str {
    match value {
        None => "absent",
        Some(Bson::Int32(_)) => "int32",
        Some(Bson::Int64(_)) => "int64",
        Some(Bson::Double(_)) => "double",
        Some(Bson::String(_)) => "string",
        Some(Bson::Boolean(_)) => "bool",
        Some(Bson::Array(_)) => "array",
        Some(Bson::Null) => "null",
        Some(_) => "other",
    }
}

fn check_types(document: &Document, rows: &[(&str, &str)]) -> Result<()> {
    let wrong: Vec<String> = rows
        .iter()
        .filter(|(name, want)| type_of(document.get(name)) != *want)
        .map(|(name, want)| format!("{name} is {}, not {want}", type_of(document.get(name))))
        .collect();
    ensure!(wrong.is_empty(), "{wrong:?} in {document}");
    Ok(())
}

fn check_values(document: &Document, rows: &[(&str, Bson)]) -> Result<()> {
    for (name, want) in rows {
        ensure!(document.get(name) == Some(want), "{name} is {:?}, not {want}; {document}", document.get(name));
    }
    Ok(())
}

#[test]
fn a_live_stream_is_recorded_as_ams_does_it() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(2, 1)).await?;
        let before = now_ms();
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "doc.stream_1-a").await?;
        let _viewer = LightViewer::play(&cluster.origin.socket(), "doc.stream_1-a").await?;
        let host = cluster.origin.ip().to_string();

        let record = cluster.databases.broadcast(APP, "doc.stream_1-a").await?.unwrap_or_default();
        check_types(
            &record,
            &[
                ("startTime", "int64"),
                ("updateTime", "int64"),
                ("absoluteStartTimeMs", "int64"),
                ("date", "int64"),
                ("duration", "int64"),
                ("plannedStartDate", "int64"),
                ("receivedBytes", "int64"),
                ("bitrate", "int64"),
                ("webRTCViewerCount", "int32"),
                ("hlsViewerCount", "int32"),
                ("dashViewerCount", "int32"),
                ("rtmpViewerCount", "int32"),
                ("webRTCViewerLimit", "int32"),
                ("hlsViewerLimit", "int32"),
                ("width", "int32"),
                ("height", "int32"),
                ("mp4Enabled", "int32"),
                ("speed", "double"),
                ("packetLostRatio", "double"),
                ("zombi", "bool"),
                ("publish", "bool"),
                ("publicStream", "bool"),
                ("virtual", "bool"),
                ("autoStartStopEnabled", "bool"),
                ("encoderSettingsList", "array"),
            ],
        )?;
        check_values(
            &record,
            &[
                ("streamId", "doc.stream_1-a".into()),
                ("status", "broadcasting".into()),
                ("type", "liveStream".into()),
                ("publishType", "WebRTC".into()),
                ("originAdress", host.clone().into()),
                ("zombi", true.into()),
                ("hlsViewerCount", 0.into()),
                ("webRTCViewerLimit", (-1).into()),
                ("width", 640.into()),
                ("height", 480.into()),
            ],
        )?;
        for name in ["startTime", "updateTime", "absoluteStartTimeMs"] {
            let at = record.get_i64(name)?;
            ensure!((before..=now_ms()).contains(&at), "{name} {at} is a time in ms of this minute");
        }

        let infos = cluster.databases.stream_infos(APP, "doc.stream_1-a").await?;
        ensure!(infos.len() == 1, "one rendition, one document: {infos:?}");
        let info = infos.first().cloned().unwrap_or_default();
        check_types(
            &info,
            &[
                ("height", "int32"),
                ("width", "int32"),
                ("videoBitrate", "int32"),
                ("audioBitrate", "int32"),
                ("videoRTimebase", "int32"),
                ("audioRTimebase", "int32"),
                ("originPort", "int32"),
                ("videoEnabled", "bool"),
                ("audioEnabled", "bool"),
                ("dataChannelEnabled", "bool"),
                ("isGlobalHost", "bool"),
            ],
        )?;
        check_values(
            &info,
            &[
                ("streamId", "doc.stream_1-a".into()),
                ("host", host.into()),
                ("originPort", i32::from(cluster.origin.relay.port()).into()),
                ("videoCodec", "VP8".into()),
                ("width", 640.into()),
                ("height", 480.into()),
                ("videoEnabled", true.into()),
                ("audioEnabled", true.into()),
                ("dataChannelEnabled", false.into()),
                ("nodeGroup", "default".into()),
            ],
        )?;

        let updated = record.get_i64("updateTime")?;
        let record = eventually("updateTime, bitrate and viewers are kept up", UPDATED, || async {
            let record = cluster.databases.broadcast(APP, "doc.stream_1-a").await.ok()??;
            let moved = record.get_i64("updateTime").ok()? > updated && record.get_i64("bitrate").ok()? > 100_000;
            (moved && record.get_i32("webRTCViewerCount").ok()? == 1).then_some(record)
        })
        .await?;
        ensure!(record.get_i64("receivedBytes")? > 10_000, "{record}");
        ensure!(record.get_i64("startTime")? <= updated, "a heartbeat is no new start: {record}");

        publisher.socket()?.stop("doc.stream_1-a").await?;
        record_over(&cluster.databases, "doc.stream_1-a", SOON).await?;
        let left = cluster.databases.broadcast(APP, "doc.stream_1-a").await?;
        ensure!(left.is_none(), "a record made by publishing alone goes with the publisher: {left:?}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_record_made_beforehand_stays_and_keeps_what_others_wrote() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(3, 0)).await?;
        let made = doc! {
            "streamId": "camera7", "status": "created", "type": "liveStream", "name": "Front door", "zombi": false,
            "date": 1_700_000_000_000_i64, "metaData": "{\"room\":7}", "someToolsField": {"a": [1, 2]},
            "webRTCViewerLimit": -1, "publish": true,
        };
        cluster.databases.collection("webrtcappee", "broadcast").insert_one(made).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "camera7").await?;
        let live = cluster.databases.broadcast(APP, "camera7").await?.unwrap_or_default();
        let kept = [
            ("name", Bson::from("Front door")),
            ("zombi", false.into()),
            ("date", 1_700_000_000_000_i64.into()),
            ("metaData", "{\"room\":7}".into()),
            ("someToolsField", doc! {"a": [1, 2]}.into()),
        ];
        check_values(&live, &kept)?;
        check_values(&live, &[("status", "broadcasting".into())])?;

        publisher.socket()?.stop("camera7").await?;
        record_over(&cluster.databases, "camera7", SOON).await?;
        let over = cluster.databases.broadcast(APP, "camera7").await?.unwrap_or_default();
        check_values(&over, &kept)?;
        check_values(&over, &[("status", "finished".into()), ("webRTCViewerCount", 0.into())])?;
        ensure!(over.get_i64("updateTime")? >= live.get_i64("updateTime")?, "{over}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn every_node_has_its_row_and_takes_it_with_it() {
    case(async {
        let mut cluster = Cluster::start(ClusterOptions::new(4, 2)).await?;
        let rows = eventually("three rows", SOON, || async {
            cluster.databases.nodes().await.ok().filter(|rows| rows.len() == 3)
        })
        .await?;
        for row in &rows {
            check_types(
                row,
                &[
                    ("_id", "string"),
                    ("ip", "string"),
                    ("lastUpdateTime", "int64"),
                    ("memory", "string"),
                    ("cpu", "string"),
                    ("dbQueryAveargeTimeMs", "int64"),
                ],
            )?;
            ensure!((now_ms() - row.get_i64("lastUpdateTime")?).abs() < 20_000, "{row}");
            let memory = row.get_str("memory")?;
            let parts: Vec<u64> = memory.split('/').filter_map(|part| part.parse().ok()).collect();
            ensure!(parts.len() == 2 && parts[0] <= parts[1] && parts[1] > 0, "memory is used/total in MB: {memory}");
            ensure!(row.get_str("cpu")?.parse::<u8>().is_ok_and(|cpu| cpu <= 100), "cpu is 0 to 100: {row}");
        }
        let mut ips: Vec<&str> = rows.iter().filter_map(|row| row.get_str("ip").ok()).collect();
        ips.sort_unstable();
        ensure!(ips == ["127.0.4.11", "127.0.4.12", "127.0.4.13"], "{ips:?}");

        let status = cluster.edge_mut(1)?.terminate().await?;
        ensure!(status.code() == Some(0), "SIGTERM ends a node with code 0, not {status}");
        let rows = cluster.databases.nodes().await?;
        ensure!(rows.len() == 2, "a node that ended in order took its row along: {rows:?}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn applications_have_databases_and_names_of_their_own() {
    case(async {
        let options = ClusterOptions::new(6, 1).args(&["--app", "WebRTCAppEE", "--app", "LiveApp"]);
        let cluster = Cluster::start(options).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let mut one = LightPublisher::publish(&origin.websocket("WebRTCAppEE"), "same").await?;
        let _two = LightPublisher::publish(&origin.websocket("LiveApp"), "same").await?;
        let mut viewers = [
            LightViewer::play(&edge.websocket("WebRTCAppEE"), "same").await?,
            LightViewer::play(&edge.websocket("LiveApp"), "same").await?,
        ];
        super::all_intact(&viewers, 30).await?;
        for app in ["WebRTCAppEE", "LiveApp"] {
            ensure!(cluster.databases.broadcast(app, "same").await?.is_some(), "{app} has its record");
            ensure!(cluster.databases.stream_infos(app, "same").await?.len() == 1, "{app} has its rendition");
        }
        one.socket()?.stop("same").await?;
        viewers[0].socket()?.definition("play_finished", super::PROMPTLY).await?;
        record_over(&cluster.databases, "same", SOON).await?;
        viewers[1].wait_video(30, SOON).await?;
        viewers[1].counts.intact()?;
        let live = cluster.databases.broadcast("LiveApp", "same").await?.unwrap_or_default();
        ensure!(live.get_str("status")? == "broadcasting", "the other goes on: {live}");
        cluster.end().await;
        Ok(())
    });
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
