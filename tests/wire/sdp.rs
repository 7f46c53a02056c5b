//! Session descriptions as strangers write them, through every door that takes one.

use ams_rtc::ice::IceCredentials;
use ams_testkit::ams::AmsSocket;
use ams_testkit::case::case;
use ams_testkit::{http, light, sdp};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{SOON, Witness};

/// Name, description, and the status WHIP answers.
type Row = (&'static str, String, &'static [u16]);

fn rows() -> Result<Vec<Row>> {
    let base = sdp::publish_offer(&IceCredentials::random(), &light::fingerprint()?);
    let (head, media) = base.split_once("m=").context("an m-line")?;
    let audio = format!("m={}", media.split("m=video").next().unwrap_or_default());
    let many = |n: usize| (0..n).map(|i| audio.replace("a=mid:0", &format!("a=mid:m{i}"))).collect::<String>();
    let bundle = |n: usize| {
        let mids: Vec<String> = (0..n).map(|i| format!("m{i}")).collect();
        head.replace("BUNDLE 0 1", &format!("BUNDLE {}", mids.join(" ")))
    };
    let without = |what: &str| base.split_inclusive("\r\n").filter(|l| !l.starts_with(what)).collect::<String>();
    Ok(vec![
        ("no media", head.to_owned(), &[400]),
        ("100 m-lines", bundle(100) + &many(100), &[422, 400]),
        ("three audio tracks", bundle(3) + &many(3), &[422]),
        ("garbage", "\u{1}\u{2}garbage\r\n".repeat(20), &[400]),
        ("HTML", "<html><body>offer</body></html>".into(), &[400]),
        ("JSON", json!({"type": "offer", "sdp": base}).to_string(), &[400]),
        ("binary zeros", "\0".repeat(1000), &[400]),
        ("received only", base.replace("a=sendonly", "a=recvonly"), &[422]),
        ("inactive", base.replace("a=sendonly", "a=inactive"), &[422]),
        ("mixed directions", base.replacen("a=sendonly", "a=recvonly", 1), &[422]),
        ("no fingerprint", without("a=fingerprint"), &[400]),
        ("a weak fingerprint", base.replace("sha-256", "md5"), &[400]),
        ("no ICE", without("a=ice-"), &[400]),
        ("a short password", base.replace("a=ice-pwd:", "a=ice-pwd:x\r\na=x:"), &[400]),
        ("no mux", without("a=rtcp-mux"), &[422]),
        ("no codecs of ours", base.replace("VP8", "Theora").replace("opus", "speex"), &[422]),
        ("SDES keys", without("a=fingerprint").replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF"), &[422, 400]),
        ("one mid twice", base.replace("a=mid:1", "a=mid:0"), &[400]),
        ("payload type 300", base.replace("SAVPF 96", "SAVPF 300"), &[400]),
        ("a line of 100 KB", base.replace("s=-", &format!("s={}", "x".repeat(100_000))), &[400, 413]),
        ("20000 lines", base.clone() + &"a=x\r\n".repeat(20_000), &[413, 400, 422]),
        (
            "10000 candidates",
            base.clone() + &"a=candidate:1 1 UDP 1 10.0.0.1 9 typ host\r\n".repeat(2000),
            &[201, 400, 413, 422],
        ),
        ("a version of the future", base.replace("v=0", "v=7"), &[400]),
        ("negative and huge numbers", base.replace("o=- 1 1", "o=- -1 99999999999999999999999"), &[201, 400]),
    ])
}

#[test]
fn whip_refuses_them_with_a_sentence() {
    case(async {
        let mut witness = Witness::start(30, &[]).await?;
        for (at, (name, description, statuses)) in rows()?.into_iter().enumerate() {
            let url = witness.node.url(&format!("/WebRTCAppEE/whip/whip{at}"));
            let answer = http::send("POST", &url, &[("content-type", "application/sdp")], description).await?;
            ensure!(statuses.contains(&answer.status), "{name}: {answer:?}");
            if answer.status == 201 {
                let resource = witness.node.url(answer.header("location").context("Location")?);
                ensure!(http::send("DELETE", &resource, &[], "").await?.status == 200);
            } else {
                let sentence = answer.json()["detail"].as_str().map(str::len).unwrap_or_default();
                ensure!((10..600).contains(&sentence), "{name} says why: {answer:?}");
            }
            witness.undisturbed(name).await?;
        }
        witness.node.wait_metric("ams_sessions", SOON, |n| n == 2.0).await?;
        witness.unburdened("WHIP").await
    });
}

#[test]
fn whep_refuses_them_with_a_sentence() {
    case(async {
        let mut witness = Witness::start(31, &[]).await?;
        for (name, description, _) in rows()? {
            // The other way round, except where the direction is the fault.
            let (from, to) = ("a=sendonly", "a=recvonly");
            let description = match name {
                "received only" => description.replace("a=recvonly", from),
                _ => description.replace(from, to),
            };
            let url = witness.node.url("/WebRTCAppEE/whep/witness");
            let answer = http::send("POST", &url, &[("content-type", "application/sdp")], description).await?;
            match answer.status {
                201 => {
                    let resource = witness.node.url(answer.header("location").context("Location")?);
                    ensure!(http::send("DELETE", &resource, &[], "").await?.status == 200);
                }
                status => {
                    ensure!((400..500).contains(&status), "{name}: {answer:?}");
                    let sentence = answer.json()["detail"].as_str().map(str::len).unwrap_or_default();
                    ensure!((10..600).contains(&sentence), "{name} says why: {answer:?}");
                }
            }
            witness.undisturbed(name).await?;
        }
        witness.node.wait_metric("ams_sessions", SOON, |n| n == 2.0).await?;
        witness.unburdened("WHEP").await
    });
}

#[test]
fn the_websocket_names_the_error_and_goes_on() {
    case(async {
        let mut witness = Witness::start(32, &[]).await?;
        let mut socket = AmsSocket::connect(&witness.node.socket()).await?;
        for (at, (name, description, statuses)) in rows()?.into_iter().enumerate() {
            if description.len() > 100_000 {
                continue;
            }
            let stream = format!("ws{at}");
            socket.send(json!({"command": "publish", "streamId": &stream})).await?;
            socket.command("start", SOON).await.with_context(|| name.to_owned())?;
            let offer =
                json!({"command": "takeConfiguration", "streamId": &stream, "type": "offer", "sdp": description});
            socket.send(offer).await?;
            let answer = socket
                .wait("an answer", SOON, |m| m["command"] == "takeConfiguration" || m["command"] == "error")
                .await
                .with_context(|| name.to_owned())?;
            if answer["command"] == "error" {
                ensure!(answer["definition"] == "notSetRemoteDescription", "{name}: {answer}");
                ensure!(answer["streamId"] == stream.as_str(), "{name}: {answer}");
                ensure!(answer["information"].as_str().is_some_and(|s| s.len() > 10), "{name} says why: {answer}");
            } else {
                // The socket takes some that WHIP must not: several tracks, or only some m-lines.
                ensure!(!statuses.contains(&400) || statuses.contains(&201), "{name} was accepted: {answer}");
                socket.stop(&stream).await?;
                socket.definition("publish_finished", SOON).await?;
            }
            witness.undisturbed(name).await?;
        }
        for (name, answer) in [("none", ""), ("garbage", "x"), ("another's", "v=0\r\ns=-\r\n")] {
            socket.send(json!({"command": "play", "streamId": "witness"})).await?;
            socket.command("takeConfiguration", SOON).await?;
            let answer =
                json!({"command": "takeConfiguration", "streamId": "witness", "type": "answer", "sdp": answer});
            socket.send(answer).await?;
            let error = socket.command("error", SOON).await.with_context(|| name.to_owned())?;
            ensure!(error["definition"] == "notSetRemoteDescription", "{name}: {error}");
            witness.undisturbed(name).await?;
        }
        socket.close().await;
        witness.node.wait_metric("ams_sessions", SOON, |n| n == 2.0).await?;
        witness.unburdened("the WebSocket").await
    });
}
