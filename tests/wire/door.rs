//! The node as a whole behind its doors: what many strangers at once cost.

use std::time::Duration;

use ams_testkit::ams::AmsSocket;
use ams_testkit::case::case;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::{NodeOptions, NodeProcess};
use ams_testkit::{http, rawhttp};
use anyhow::{Context, ensure};
use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::{SOON, Witness};

#[test]
fn more_connections_than_there_is_room_for_are_told_so() {
    case(async {
        let mut witness = Witness::start(1, &["--set", "api.limits.connections=40"]).await?;
        let mut open = Vec::new();
        for _ in 0..60 {
            open.push(TcpStream::connect(witness.node.http).await?);
        }
        let mut refused = 0;
        for stream in open.iter_mut().rev().take(20) {
            let reply = rawhttp::read(stream, Duration::from_millis(500)).await;
            refused += usize::from(reply.status() == 503 && reply.closed);
        }
        ensure!(refused == 20, "{refused} of the last 20 were told 503");
        witness.undisturbed("60 connections").await?;
        open.clear();
        witness.node.wait_metric("ams_connections_refused_total", SOON, |n| n >= 20.0).await?;
        let answer = ams_testkit::eventually("there is room again", SOON, || async {
            http::get(&witness.node.url("/healthz")).await.ok().filter(|answer| answer.status == 200)
        })
        .await?;
        ensure!(answer.status == 200);
        witness.unburdened("60 connections").await
    });
}

#[test]
fn one_address_may_not_take_all_connections() {
    case(async {
        let options = NodeOptions { registry: Some("memory".into()), ..NodeOptions::new("standalone", [127, 1, 2, 1]) };
        let limits = ["--set", "api.trusted_proxies=192.0.2.0/24", "--set", "api.limits.connections_per_address=12"];
        let node = NodeProcess::start(options.args(&limits)).await?;
        let mut open = Vec::new();
        for _ in 0..20 {
            open.push(TcpStream::connect(node.http).await?);
        }
        let replies = join_all(open.iter_mut().map(|stream| rawhttp::read(stream, Duration::from_secs(1)))).await;
        let refused = replies.iter().filter(|reply| reply.status() == 503 && reply.closed).count();
        // The check that the node is ready came from this address, too: its connection may have had a place meanwhile.
        ensure!((8..=9).contains(&refused), "{refused} of 20 were told 503: {}", node.log());
        let neighbour = tokio::net::TcpSocket::new_v4()?;
        neighbour.bind("127.1.2.99:0".parse()?)?;
        let mut stream = neighbour.connect(node.http).await?;
        tokio::io::AsyncWriteExt::write_all(
            &mut stream,
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await?;
        ensure!(rawhttp::read(&mut stream, SOON).await.status() == 200, "another address has room");
        Ok(())
    });
}

#[test]
fn a_node_that_is_full_says_so_and_serves_those_it_has() {
    case(async {
        let mut witness = Witness::start(6, &["--set", "media.load_max=8"]).await?;
        // So little that a row of joins is too much.
        let mut taken = Vec::new();
        let refusal = loop {
            match LightViewer::play(&witness.node.socket(), "witness").await {
                Ok(viewer) => taken.push(viewer),
                Err(refusal) => break refusal.to_string(),
            }
            ensure!(taken.len() < 200, "200 viewers are no load: {}", witness.node.log());
        };
        ensure!(refusal.contains("highResourceUsage") && refusal.contains("media.load_max"), "{refusal}");
        let base = format!("http://{}", witness.node.http);
        let refused = LightViewer::whep(&base, "WebRTCAppEE", "witness").await;
        ensure!(refused.as_ref().is_err_and(|e| e.to_string().contains("503")), "{:?}", refused.err());
        let mut publisher = LightPublisher::publish(&witness.node.socket(), "second").await?;
        publisher.socket()?.stop("second").await?;
        drop(publisher);
        witness.undisturbed("a full node").await?;
        drop(taken);
        ams_testkit::eventually("there is room again", Duration::from_secs(20), || async {
            LightViewer::play(&witness.node.socket(), "witness").await.ok()
        })
        .await?;
        witness.undisturbed("room again").await
    });
}

#[test]
fn requests_that_come_too_fast_are_told_when_to_come_again() {
    case(async {
        let limits = ["--set", "api.limits.requests_per_second=5", "--set", "api.limits.request_burst=20"];
        let mut witness = Witness::start(3, &limits).await?;
        let (mut passed, mut refused) = (0, None);
        for _ in 0..40 {
            let url = witness.node.url("/WebRTCAppEE/whip/x");
            let answer = http::send("POST", &url, &[("content-type", "application/sdp")], "v=0\r\n").await?;
            match answer.status {
                429 => refused = Some(answer),
                _ => passed += 1,
            }
        }
        let refused = refused.with_context(|| format!("all {passed} passed"))?;
        ensure!(refused.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()), "{refused:?}");
        ensure!(AmsSocket::connect(&witness.node.socket()).await.is_err(), "WebSockets count too");
        ensure!(http::get(&witness.node.url("/healthz")).await?.status == 200, "health checks never count");
        witness.undisturbed("too many requests").await?;
        ams_testkit::eventually("after a rest", SOON, || async {
            AmsSocket::connect(&witness.node.socket()).await.ok()
        })
        .await?;
        witness.unburdened("too many requests").await
    });
}

#[test]
fn what_is_refused_is_counted() {
    case(async {
        let witness = Witness::start(5, &[]).await?;
        let node = &witness.node;
        for name in ["ams_http_refused_total", "ams_sockets_closed_total", "ams_descriptions_refused_total"] {
            ensure!(node.metric(name).await? == 0.0, "{name} at first");
        }
        ensure!(http::get(&node.url("/nothing/of/this/name")).await?.status == 404);
        let sdp = [("content-type", "application/sdp")];
        ensure!(http::send("POST", &node.url("/WebRTCAppEE/whep/witness"), &sdp, "nonsense").await?.status == 400);
        ensure!(node.metric("ams_http_refused_total").await? == 2.0, "two requests");

        let mut socket = AmsSocket::connect(&node.socket()).await?;
        socket.send(serde_json::json!({"command": "publish", "streamId": "refused"})).await?;
        socket.command("start", SOON).await?;
        let offer = serde_json::json!({
            "command": "takeConfiguration", "streamId": "refused", "type": "offer", "sdp": "nonsense"
        });
        socket.send(offer).await?;
        node.wait_metric("ams_descriptions_refused_total", SOON, |n| n == 1.0).await?;
        socket.send_text("x".repeat(200 * 1024)).await?;
        node.wait_metric("ams_sockets_closed_total", SOON, |n| n == 1.0).await?;
        Ok(())
    });
}

#[test]
fn viewers_that_come_and_never_connect_are_forgotten() {
    case(async {
        let mut witness = Witness::start(4, &["--set", "media.connect_timeout=1s"]).await?;
        for round in 0..3 {
            for _ in 0..40 {
                let offer = ams_testkit::sdp::play_offer(
                    &ams_rtc::ice::IceCredentials::random(),
                    &ams_testkit::light::fingerprint()?,
                );
                let url = witness.node.url("/WebRTCAppEE/whep/witness");
                let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
                ensure!(answer.status == 201, "{answer:?}");
            }
            witness.undisturbed(&format!("round {round}")).await?;
            witness.node.wait_metric("ams_viewers", SOON, |n| n == 1.0).await?;
        }
        let late = LightViewer::play(&witness.node.socket(), "witness").await?;
        late.wait_video(30, SOON).await?;
        late.counts.intact()?;
        drop(late);
        witness.node.wait_metric("ams_sessions", SOON, |n| n == 2.0).await?;
        witness.unburdened("viewers that never connect").await
    });
}
