//! Streams that are live: seen, spoken to, stopped and deleted, at their origin and through another node.

use ams_testkit::APP;
use ams_testkit::ams::AmsSocket;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::NodeProcess;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{NONE, SOON, call, check, result, row};

const STOPPED: &str = "broadcast is deleted and stopped successfully";

fn socket(publisher: &mut LightPublisher) -> Result<&mut AmsSocket> {
    publisher.socket.as_mut().context("a publisher with a socket")
}

#[test]
fn a_live_stream_is_seen_and_ended_on_its_origin() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(65, 1)).await?;
        let origin = &cluster.origin;
        on(&cluster, origin).await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_live_stream_is_seen_and_ended_through_an_edge() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(66, 1)).await?;
        on(&cluster, cluster.edge(0)?).await?;
        cluster.end().await;
        Ok(())
    });
}

/// All that can be done to live streams of the origin, asked for at `node`.
async fn on(cluster: &Cluster, node: &NodeProcess) -> Result<()> {
    let origin = cluster.origin.socket();
    let made = call(node, "POST", "/broadcasts/create", &json!({"streamId": "kept", "name": "Kept"})).await?;
    ensure!(made.status == 200, "{made:?}");
    let mut kept = LightPublisher::publish(&origin, "kept").await?;
    let mut own = LightPublisher::publish(&origin, "own").await?;
    let mut viewer = LightViewer::play(&origin, "kept").await?;
    eventually("one viewer is counted", SOON, || async {
        let got = call(node, "GET", "/broadcasts/kept", &NONE).await.ok()?.json();
        (got["webRTCViewerCount"] == 1).then_some(())
    })
    .await?;
    check(node, &[
        row("live", "GET", "/broadcasts/kept", NONE, 200, json!({
            "status": "broadcasting", "name": "Kept", "zombi": false, "publishType": "WebRTC", "webRTCViewerCount": 1,
            "originAdress": cluster.origin.ip().to_string()
        })),
        row("made by its publisher", "GET", "/broadcasts/own", NONE, 200, json!({"zombi": true})),
        row("two live", "GET", "/broadcasts/active-live-stream-count", NONE, 200, json!({"number": 2})),
        row("statistics", "GET", "/broadcasts/kept/broadcast-statistics", NONE, 200,
            json!({"totalWebRTCWatchersCount": 1, "totalHLSWatchersCount": 0})),
        row("all statistics", "GET", "/broadcasts/total-broadcast-statistics", NONE, 200,
            json!({"totalWebRTCWatchersCount": 1, "activeLiveStreamCount": 2})),
        row("client figures", "GET", "/broadcasts/kept/webrtc-client-stats/0/50", NONE, 200, json!([])),
        row("edited while live", "PUT", "/broadcasts/kept",
            json!({"name": "Still", "status": "finished", "webRTCViewerCount": 77, "originAdress": "10.0.0.9"}), 200,
            result(true, Value::Null)),
        row("still live", "GET", "/broadcasts/kept", NONE, 200,
            json!({"status": "broadcasting", "name": "Still", "webRTCViewerCount": 1})),
        row("a subtrack", "POST", "/broadcasts/kept/subtrack?id=own", NONE, 200, result(true, Value::Null)),
        row("live subtracks", "GET", "/broadcasts/kept/active-subtracks/0/50", NONE, 200, json!([{"streamId": "own"}])),
        row("counted", "GET", "/broadcasts/kept/active-subtracks-count", NONE, 200, json!({"number": 1})),
        row("said", "POST", "/broadcasts/kept/data", json!("hello"), 200, result(true, Value::Null)),
        row("said to nobody", "POST", "/broadcasts/nobody/data", json!("hello"), 200,
            result(false, "Requested WebRTC stream does not exist")),
    ])
    .await?;
    let info = call(node, "GET", "/broadcasts/kept/stream-info", &NONE).await?.json();
    ensure!(info[0]["videoCodec"] == "H264" || info[0]["videoCodec"] == "VP8", "{info}");
    ensure!(info[0]["videoBitrate"].is_number() && info[0]["audioBitrate"].is_number(), "{info}");

    check(
        node,
        &[row(
            "stopped alone",
            "POST",
            "/broadcasts/kept/stop?stopSubtracks=false",
            NONE,
            200,
            result(true, Value::Null),
        )],
    )
    .await?;
    viewer.socket()?.definition("play_finished", SOON).await?;
    socket(&mut kept)?.definition("publish_finished", SOON).await?;
    check(
        node,
        &[
            row(
                "finished",
                "GET",
                "/broadcasts/kept",
                NONE,
                200,
                json!({"status": "finished", "webRTCViewerCount": 0}),
            ),
            row("its subtrack is live", "GET", "/broadcasts/own", NONE, 200, json!({"status": "broadcasting"})),
            row("stopped again, with subtracks", "POST", "/broadcasts/kept/stop", NONE, 200, result(true, Value::Null)),
            row("now nothing is live", "POST", "/broadcasts/kept/stop", NONE, 200, result(false, Value::Null)),
            row("what its publisher made is gone", "GET", "/broadcasts/own", NONE, 404, Value::Null),
        ],
    )
    .await?;
    socket(&mut own)?.definition("publish_finished", SOON).await?;

    let mut kept = LightPublisher::publish(&origin, "kept").await?;
    let mut own = LightPublisher::publish(&origin, "own").await?;
    let mut third = LightPublisher::publish(&origin, "third").await?;
    check(
        node,
        &[
            row("deleted", "DELETE", "/broadcasts/kept", NONE, 200, result(true, STOPPED)),
            row("gone", "GET", "/broadcasts/kept", NONE, 404, Value::Null),
            row("several deleted", "DELETE", "/broadcasts?ids=own,third", NONE, 200, result(true, STOPPED)),
            row("nothing left", "GET", "/broadcasts/count", NONE, 200, json!({"number": 0})),
        ],
    )
    .await?;
    for publisher in [&mut kept, &mut own, &mut third] {
        socket(publisher)?.definition("publish_finished", SOON).await?;
    }
    for stream in ["kept", "own", "third"] {
        ensure!(cluster.databases.broadcast(APP, stream).await?.is_none(), "{stream} left its record");
        ensure!(cluster.databases.stream_infos(APP, stream).await?.is_empty(), "{stream} left its renditions");
    }
    Ok(())
}
