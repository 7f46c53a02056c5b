//! Every named error when it is due, on the socket it concerns, and nothing else on it.

use std::time::{Duration, Instant};

use ams_testkit::ams::AmsSocket;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::light::{Habits, LightPublisher, LightViewer};
use ams_testkit::node::NodeProcess;
use ams_testkit::{eventually, http, sdp};
use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{SOON, error_of, is_error, play, publish};

#[test]
fn commands_that_make_no_sense_are_named() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(20, 1)).await?;
        for node in [&cluster.origin, cluster.edge(0)?] {
            for (name, command, definition, stream) in [
                ("no id", json!({"command": "play"}), "noStreamNameSpecified", None),
                ("empty id", json!({"command": "publish", "streamId": ""}), "noStreamNameSpecified", None),
                ("null id", json!({"command": "stop", "streamId": null}), "noStreamNameSpecified", None),
                ("space", play("a b"), "invalidStreamName", Some("a b")),
                ("slash", publish("../etc"), "invalidStreamName", Some("../etc")),
                ("not ASCII", play("strøm"), "invalidStreamName", Some("strøm")),
                ("no such stream", play("nobody"), "no_stream_exist", Some("nobody")),
                (
                    "info of none",
                    json!({"command": "getStreamInfo", "streamId": "nobody"}),
                    "no_stream_exist",
                    Some("nobody"),
                ),
            ] {
                let error = error_of(&node.socket(), command).await.context(name)?;
                is_error(&error, definition, stream).context(name)?;
            }
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn what_is_on_already_is_not_begun_again() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(21, 1)).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "twice").await?;
        publisher.socket()?.send(publish("twice")).await?;
        is_error(&publisher.socket()?.command("error", SOON).await?, "already_publishing", Some("twice"))?;

        let mut viewer = LightViewer::play(&cluster.edge(0)?.socket(), "twice").await?;
        viewer.socket()?.send(play("twice")).await?;
        is_error(&viewer.socket()?.command("error", SOON).await?, "already_playing", Some("twice"))?;

        let error = error_of(&cluster.origin.socket(), publish("twice")).await?;
        is_error(&error, "streamIdInUse", Some("twice"))?;
        let other = NodeProcess::start(cluster.node("origin", 14)).await?;
        let error = error_of(&other.socket(), publish("twice")).await?;
        is_error(&error, "streamIdInUse", Some("twice")).context("from another origin")?;

        viewer.wait_video(60, super::MEDIA).await?;
        viewer.counts.intact().context("none of it disturbed the stream")?;
        drop(other);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn of_two_origins_that_race_one_id_one_wins() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(22, 0)).await?;
        let other = NodeProcess::start(cluster.node("origin", 14)).await?;
        for round in 0..10 {
            let stream = format!("race{round}");
            let mut sockets =
                [AmsSocket::connect(&cluster.origin.socket()).await?, AmsSocket::connect(&other.socket()).await?];
            let answers = join_all(sockets.iter_mut().map(|socket| async {
                socket.send(publish(&stream)).await?;
                socket.wait("start or error", SOON, |m| m["command"] == "start" || m["command"] == "error").await
            }))
            .await;
            let (mut started, mut refused) = (0, 0);
            for answer in answers {
                let answer = answer?;
                if answer["command"] == "start" {
                    started += 1;
                } else {
                    is_error(&answer, "streamIdInUse", Some(&stream))?;
                    refused += 1;
                }
            }
            ensure!((started, refused) == (1, 1), "round {round}: {started} started, {refused} refused");
        }
        drop(other);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn descriptions_that_cannot_be_used_are_answered() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(23, 1)).await?;
        let configuration = |kind: &str, text: &str| json!({"command": "takeConfiguration", "streamId": "bad", "type": kind, "sdp": text});
        let mut socket = AmsSocket::connect(&cluster.origin.socket()).await?;
        socket.send(publish("bad")).await?;
        socket.command("start", SOON).await?;
        socket.send(configuration("offer", "v=0\r\nnonsense")).await?;
        is_error(&socket.command("error", SOON).await?, "notSetRemoteDescription", Some("bad"))?;
        // The id is free again at once: the same socket may try better.
        let publisher = LightPublisher::publish_on(socket, "bad", Habits::default()).await?;

        let mut socket = AmsSocket::connect(&cluster.edge(0)?.socket()).await?;
        socket.send(play("bad")).await?;
        let offer = socket.command("takeConfiguration", SOON).await?;
        check_offer(&offer, "bad")?;
        socket.send(configuration("answer", "")).await?;
        is_error(&socket.command("error", SOON).await?, "notSetRemoteDescription", Some("bad"))?;
        let viewer = LightViewer::play_on(socket, "bad", Habits::default()).await?;
        viewer.wait_video(30, super::MEDIA).await?;
        drop((viewer, publisher));
        cluster.end().await;
        Ok(())
    });
}

/// What the SDK needs of an offer.
fn check_offer(offer: &Value, stream: &str) -> Result<()> {
    ensure!(offer["type"] == "offer" && offer["streamId"] == stream, "{offer}");
    let description = sdp::NodeSdp::parse(offer["sdp"].as_str().unwrap_or_default())?;
    for media in &description.media {
        let mapped = offer["idMapping"][&media.mid].as_str();
        ensure!(mapped.is_some() || media.kind == "application", "mid {} has no idMapping: {offer}", media.mid);
    }
    let kinds: Vec<&str> = description.media.iter().map(|m| m.kind.as_str()).collect();
    ensure!(kinds.contains(&"audio") && kinds.contains(&"video") && kinds.contains(&"application"), "{kinds:?}");
    Ok(())
}

#[test]
fn a_publisher_that_brings_no_media_is_told_so() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(24, 0)).await?;
        let options = cluster.node("origin", 14).env("AMS_MEDIA__CONNECT_TIMEOUT", "1s");
        let impatient = NodeProcess::start(options).await?;
        let mut socket = AmsSocket::connect(&impatient.socket()).await?;
        let begun = Instant::now();
        socket.send(publish("silent")).await?;
        socket.command("start", SOON).await?;
        let error = socket.command("error", SOON).await?;
        is_error(&error, "publishTimeoutError", Some("silent"))?;
        ensure!(begun.elapsed() >= Duration::from_millis(900), "not before its time: {:?}", begun.elapsed());
        ensure!(error["information"].as_str().is_some_and(|s| s.contains("did not start")), "{error}");
        super::record_over(&cluster.databases, "silent", SOON).await?;
        drop(impatient);
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_edge_says_where_to_publish() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(25, 1)).await?;
        let edge = cluster.edge(0)?;
        let origin = format!("http://{}", cluster.origin.http);
        eventually("the origin's row", SOON, || async {
            cluster.databases.nodes().await.ok().filter(|rows| rows.len() == 2)
        })
        .await?;
        let error = error_of(&edge.socket(), publish("lost")).await?;
        let sentence = error["information"].as_str().unwrap_or_default();
        ensure!(sentence.contains("publish to an origin") && sentence.contains(&origin), "{error}");

        let offer = "v=0\r\n";
        let url = edge.url("/WebRTCAppEE/whip/lost");
        let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
        ensure!(answer.status == 403, "{answer:?}");
        ensure!(answer.json()["detail"].as_str().is_some_and(|s| s.contains(&origin)), "{answer:?}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn an_origin_that_serves_no_viewers_says_so_and_serves_edges() {
    case(async {
        let cluster =
            Cluster::start(ClusterOptions::new(28, 1).args(&["--set", "serve_viewers_on_origin=false"])).await?;
        let _publisher = LightPublisher::publish(&cluster.origin.socket(), "edges-only").await?;
        let error = error_of(&cluster.origin.socket(), play("edges-only")).await?;
        ensure!(error["information"].as_str().is_some_and(|s| s.contains("play from an edge")), "{error}");
        let viewer = LightViewer::play(&cluster.edge(0)?.socket(), "edges-only").await?;
        viewer.wait_video(30, super::MEDIA).await?;
        viewer.counts.intact()?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn stop_and_again_works_at_once() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(26, 1)).await?;
        let mut publisher = LightPublisher::publish(&cluster.origin.socket(), "again").await?;
        let mut socket = AmsSocket::connect(&cluster.edge(0)?.socket()).await?;
        for round in 0..5 {
            let mut viewer = LightViewer::play_on(socket, "again", Habits::default()).await?;
            viewer.wait_video(10, super::MEDIA).await?;
            viewer.counts.intact().with_context(|| format!("round {round}"))?;
            socket = viewer.socket.take().context("socket")?;
            socket.stop("again").await?;
            let finished = socket.next(SOON).await?;
            ensure!(finished["definition"] == "play_finished", "{finished}");
        }
        for round in 0..3 {
            let mut socket = publisher.socket.take().context("socket")?;
            socket.stop("again").await?;
            // No pause at all: the SDK leaves 500 ms.
            publisher = LightPublisher::publish_on(socket, "again", Habits::default())
                .await
                .with_context(|| format!("round {round}"))?;
            let finished = publisher.socket()?.settle(SOON).await?;
            let words: Vec<&Value> = finished.iter().map(|m| &m["definition"]).collect();
            ensure!(words == ["publish_finished"], "one end for one stop: {finished:?}");
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn messages_come_in_ams_order() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(27, 1)).await?;
        let mut socket = AmsSocket::connect(&format!("{}?target=origin&x=1", cluster.origin.socket())).await?;
        socket.send(json!({"command": "getIceServerConfig"})).await?;
        let first = socket.next(SOON).await?;
        ensure!(first["command"] == "iceServerConfig", "{first}");
        let mut publisher = LightPublisher::publish_on(socket, "order", Habits::default()).await?;
        let rest = publisher.socket()?.settle(SOON).await?;
        ensure!(rest.is_empty(), "start, answer, publish_started and nothing else: {rest:?}");

        let mut viewer = LightViewer::play(&format!("{}?target=edge", cluster.edge(0)?.socket()), "order").await?;
        viewer.wait_video(60, super::MEDIA).await?;
        let socket = viewer.socket()?;
        socket.send(json!({"command": "getStreamInfo", "streamId": "order"})).await?;
        let info = socket.command("streamInformation", SOON).await?;
        ensure!(info["streamInfo"].as_array().is_some_and(|list| !list.is_empty()), "{info}");
        socket.send(json!({"command": "getBroadcastObject", "streamId": "order"})).await?;
        let object = socket.definition("broadcastObject", SOON).await?;
        let broadcast: Value = serde_json::from_str(object["broadcast"].as_str().unwrap_or_default())?;
        ensure!(broadcast["status"] == "broadcasting" && broadcast["streamId"] == "order", "{broadcast}");
        ensure!(broadcast.get("amsEpoch").is_none(), "what is ours alone is not shown: {broadcast}");
        let rest = socket.settle(SOON).await?;
        ensure!(rest.is_empty(), "offer, play_started and nothing else: {rest:?}");
        cluster.end().await;
        Ok(())
    });
}
