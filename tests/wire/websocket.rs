//! The WebSocket: frames and JSON that are cut, too large, of the wrong type, or too many.

use std::time::Duration;

use ams_testkit::ams::AmsSocket;
use ams_testkit::case::case;
use anyhow::{Context, ensure};
use serde_json::json;

use super::raw_socket::{BINARY, CONTINUATION, RawSocket, TEXT, frame};
use super::{SOON, Witness};

const PING: &[u8] = br#"{"command":"ping"}"#;

#[test]
fn text_that_makes_no_sense_is_ignored_or_named() {
    case(async {
        let mut witness = Witness::start(10, &[]).await?;
        let deep = format!("{{\"command\":\"ping\",\"x\":{}1{}}}", "[".repeat(60_000), "]".repeat(60_000));
        let long = format!("{{\"command\":\"play\",\"streamId\":\"{}\"}}", "a".repeat(100_000));
        let rows: Vec<(&str, String, Option<&str>)> = vec![
            ("empty", String::new(), None),
            ("blank", "   ".into(), None),
            ("no JSON", "hello".into(), None),
            ("cut", r#"{"command":"play","streamId":"wit"#.into(), None),
            ("cut in an escape", r#"{"command":"play","streamId":"\u00"#.into(), None),
            ("two objects", r#"{"command":"ping"}{"command":"ping"}"#.into(), None),
            ("array", r#"["command","play"]"#.into(), None),
            ("number", "7".into(), None),
            ("null", "null".into(), None),
            ("number too large", r#"{"command":"takeCandidate","streamId":"x","label":1e999}"#.into(), None),
            ("no command", r#"{"streamId":"witness"}"#.into(), None),
            ("command is a number", r#"{"command":7,"streamId":"witness"}"#.into(), None),
            ("command is an object", r#"{"command":{"a":1},"streamId":"witness"}"#.into(), None),
            ("unknown command", r#"{"command":"reboot","streamId":"witness"}"#.into(), None),
            ("deep", deep, None),
            ("id is a number", r#"{"command":"play","streamId":7}"#.into(), Some("")),
            ("id is an array", r#"{"command":"play","streamId":["witness"]}"#.into(), Some("")),
            (
                "id of control characters",
                r#"{"command":"play","streamId":"\u0000\u0007"}"#.into(),
                Some("invalidStreamName"),
            ),
            ("id with half a surrogate", r#"{"command":"play","streamId":"\ud800"}"#.into(), Some("")),
            ("id too long", long, Some("invalidStreamName")),
            ("path as id", r#"{"command":"publish","streamId":"../../etc/passwd"}"#.into(), Some("invalidStreamName")),
            ("Mongo operator as id", r#"{"command":"play","streamId":"$where"}"#.into(), Some("invalidStreamName")),
            ("markup as id", r#"{"command":"play","streamId":"<script>"}"#.into(), Some("invalidStreamName")),
            (
                "configuration for nothing",
                r#"{"command":"takeConfiguration","streamId":"x","type":"offer","sdp":"v=0"}"#.into(),
                None,
            ),
            (
                "sdp is a number",
                r#"{"command":"takeConfiguration","streamId":"x","type":"offer","sdp":1}"#.into(),
                None,
            ),
            (
                "candidate for nothing",
                r#"{"command":"takeCandidate","streamId":"x","label":0,"candidate":"x"}"#.into(),
                None,
            ),
            (
                "candidate of wrong types",
                r#"{"command":"takeCandidate","streamId":"x","label":"0","id":5,"candidate":[]}"#.into(),
                None,
            ),
            ("stop of nothing", r#"{"command":"stop","streamId":"x"}"#.into(), None),
            (
                "play with wrong types",
                r#"{"command":"play","streamId":"none","token":5,"room":[],"trackList":"x"}"#.into(),
                Some(""),
            ),
            (
                "publish with wrong types",
                r#"{"command":"publish","streamId":"a b","video":"yes","audio":{}}"#.into(),
                Some(""),
            ),
        ];
        let mut socket = AmsSocket::connect(&witness.node.socket()).await?;
        for (name, text, want) in rows {
            socket.send_text(text).await?;
            let answers = socket.settle(SOON).await.with_context(|| name.to_owned())?;
            match want {
                None => ensure!(answers.is_empty(), "{name}: {answers:?}"),
                // Any answer will do as long as it is an error; silence too, as for JSON that cannot be read.
                Some("") => ensure!(answers.iter().all(|a| a["command"] == "error"), "{name}: {answers:?}"),
                Some(word) => {
                    ensure!(answers.len() == 1 && answers[0]["definition"] == word, "{name}: {answers:?}");
                    ensure!(answers[0].to_string().len() < 1000, "{name} is not echoed at length");
                }
            }
            witness.undisturbed(name).await?;
        }
        socket.close().await;
        witness.unburdened("text").await
    });
}

#[test]
fn frames_that_are_not_as_they_should_be_close_the_socket_with_a_reason() {
    case(async {
        let mut witness = Witness::start(11, &[]).await?;
        let http = witness.node.http;
        let kib = vec![b' '; 1024];
        let rows: Vec<(&str, Vec<u8>, &[u16])> = vec![
            ("binary", frame(true, BINARY, PING), &[1003]),
            ("not UTF-8", frame(true, TEXT, b"{\"command\":\"\xff\xfe\"}"), &[1007]),
            (
                "UTF-8 cut in a character",
                frame(true, TEXT, "{\"command\":\"ø".as_bytes().split_last().map_or(&[], |x| x.1)),
                &[1007],
            ),
            ("129 KiB", frame(true, TEXT, &kib.repeat(129)), &[1009]),
            (
                "a length of 2^63 - 1",
                vec![0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
                &[1009, 1002],
            ),
            (
                "a length of 2^64 - 1",
                vec![0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
                &[1009, 1002],
            ),
            ("without a mask", vec![0x81, 0x02, b'{', b'}'], &[1002]),
            ("reserved bits", vec![0xf1, 0x80, 0, 0, 0, 0], &[1002]),
            ("reserved type", vec![0x85, 0x80, 0, 0, 0, 0], &[1002]),
            ("continuation of nothing", frame(true, CONTINUATION, b"x"), &[1002]),
            ("a ping in fragments", frame(false, 9, b"x"), &[1002]),
            ("a ping of 126 bytes", frame(true, 9, &[b'x'; 126]), &[1002]),
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[1002]),
        ];
        for (name, bytes, codes) in rows {
            let mut socket = RawSocket::connect(http).await?;
            socket.send(&bytes).await;
            let code = socket.closed(SOON).await.with_context(|| format!("{name}: stays open"))?;
            ensure!(codes.contains(&code), "{name}: closed with {code}, not {codes:?}");
            witness.undisturbed(name).await?;
        }

        let mut socket = RawSocket::connect(http).await?;
        socket.frame(false, TEXT, &kib).await;
        for _ in 0..200 {
            socket.frame(false, CONTINUATION, &kib).await;
        }
        let code = socket.closed(SOON).await.context("fragments without end: stays open")?;
        ensure!(code == 1009, "fragments without end: closed with {code}");
        witness.undisturbed("fragments without end").await?;

        // Cut anywhere: nothing to answer, and nothing left behind.
        let whole = frame(true, TEXT, PING);
        for len in 1..whole.len() {
            let mut socket = RawSocket::connect(http).await?;
            socket.send(whole.get(..len).unwrap_or_default()).await;
        }
        // Fragments that do make a message are one.
        let mut socket = RawSocket::connect(http).await?;
        socket.frame(false, TEXT, &PING[..5]).await;
        socket.frame(true, 9, b"between").await;
        socket.frame(true, CONTINUATION, &PING[5..]).await;
        let answer = socket.text(SOON).await.context("a message in fragments")?;
        ensure!(answer.contains("pong"), "{answer}");
        drop(socket);
        witness.unburdened("frames").await
    });
}

#[test]
fn a_client_that_talks_too_much_is_cut_off() {
    case(async {
        let mut witness = Witness::start(12, &[]).await?;
        let mut socket = RawSocket::connect(witness.node.http).await?;
        let flood = frame(true, TEXT, PING).repeat(2000);
        socket.send(&flood).await;
        let code = socket.closed(SOON).await.context("a flood: stays open")?;
        ensure!(code == 1008 || code == 1006, "a flood: closed with {code}");
        ensure!(witness.node.is_running());
        witness.undisturbed("a flood").await?;
        witness.unburdened("a flood").await
    });
}

#[test]
fn one_socket_may_not_hold_everything() {
    case(async {
        let limits = ["--set", "api.limits.socket_sessions=16", "--set", "api.limits.socket_waits=8"];
        let witness = Witness::start(13, &limits).await?;
        let mut socket = AmsSocket::connect(&witness.node.socket()).await?;
        for n in 0..20 {
            socket.send(json!({"command": "publish", "streamId": format!("p{n}")})).await?;
        }
        let answers = socket.wait_all(20, SOON).await?;
        let started = answers.iter().filter(|a| a["command"] == "start").count();
        let refused = answers.iter().filter(|a| a["definition"] == "highResourceUsage").count();
        ensure!((started, refused) == (16, 4), "{started} started, {refused} refused: {answers:?}");
        for n in 0..20 {
            socket.stop(&format!("p{n}")).await?;
        }
        socket.wait_all(16, SOON).await?;
        for n in 0..12 {
            socket.send(json!({"command": "play", "streamId": format!("w{n}")})).await?;
        }
        let answers = socket.wait_all(12, SOON).await?;
        let waits = answers.iter().filter(|a| !a["information"].is_null()).count();
        ensure!(answers.iter().all(|a| a["definition"] == "no_stream_exist"), "{answers:?}");
        ensure!(waits == 8, "{waits} may wait, the others are to ask again: {answers:?}");
        ensure!(witness.node.metric("ams_waiting").await? == 8.0);
        socket.close().await;
        witness.node.wait_metric("ams_waiting", SOON, |n| n == 0.0).await?;
        witness.unburdened("one socket").await
    });
}

#[test]
fn a_socket_that_says_nothing_is_closed() {
    case(async {
        let witness = Witness::start(14, &["--set", "api.limits.socket_idle=6s"]).await?;
        let begun = std::time::Instant::now();
        let mut socket = RawSocket::connect(witness.node.http).await?;
        let code = socket.closed(Duration::from_secs(12)).await.context("silence: stays open")?;
        ensure!(begun.elapsed() >= Duration::from_secs(5), "not before its time: {:?}", begun.elapsed());
        ensure!(code == 1008 || code == 1001, "silence: closed with {code}");
        drop(socket);
        witness.unburdened("silence").await
    });
}

#[test]
fn sockets_that_come_and_go_leave_nothing() {
    case(async {
        let mut witness = Witness::start(15, &[]).await?;
        for round in 0..3 {
            let mut sockets = Vec::new();
            for n in 0..60 {
                let mut socket = RawSocket::connect(witness.node.http).await?;
                let command = match n % 3 {
                    0 => json!({"command": "play", "streamId": "witness"}),
                    1 => json!({"command": "publish", "streamId": format!("gone{n}")}),
                    _ => json!({"command": "play", "streamId": "nobody"}),
                };
                socket.frame(true, TEXT, command.to_string().as_bytes()).await;
                sockets.push(socket);
            }
            // Hung up in the middle of what they began.
            drop(sockets);
            witness.undisturbed(&format!("round {round}")).await?;
        }
        witness.node.wait_metric("ams_sessions", SOON, |n| n == 2.0).await?;
        witness.node.wait_metric("ams_waiting", SOON, |n| n == 0.0).await?;
        witness.node.wait_metric("ams_publishers", SOON, |n| n == 1.0).await?;
        witness.unburdened("sockets that come and go").await
    });
}
