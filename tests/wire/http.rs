//! HTTP: methods, sizes, speeds and paths that nobody should send.

use std::time::{Duration, Instant};

use ams_testkit::case::case;
use ams_testkit::http::send;
use ams_testkit::rawhttp::{self, exchange};
use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{SOON, Witness};

/// How long a connection is watched after its answer.
const QUIET: Duration = Duration::from_millis(300);

#[test]
fn requests_that_are_none_are_answered_and_closed() {
    case(async {
        let mut witness = Witness::start(20, &[]).await?;
        let to = witness.node.http;
        let head = |line: &str| format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n").into_bytes();
        let rows: Vec<(&str, Vec<u8>, &[u16])> = vec![
            ("garbage", vec![0xde, 0xad, 0xbe, 0xef, b'\r', b'\n', b'\r', b'\n'], &[400, 0]),
            ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, b'\r', b'\n', b'\r', b'\n'], &[400, 0]),
            ("a relay hello", b"\0\0\0\x41\x01AMSR\0\x01\0\x01\r\n\r\n".to_vec(), &[400, 0]),
            ("no version", b"GET /\r\n\r\n".to_vec(), &[400]),
            ("HTTP/9.9", b"GET / HTTP/9.9\r\n\r\n".to_vec(), &[400, 505]),
            ("a target with blanks", b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[400]),
            ("HTTP/2 by surprise", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[400, 505, 0]),
            ("a header without name", head(": x"), &[400]),
            ("a header with NUL", head("A: b\0c"), &[400]),
            ("a header of 300 KiB", head(&format!("A: {}", "x".repeat(300 * 1024))), &[431]),
            (
                "a path with dots",
                b"GET /WebRTCAppEE/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                &[400, 404],
            ),
            (
                "a path with hidden dots",
                b"GET /WebRTCAppEE/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                &[400, 404],
            ),
            (
                "a path with back slashes",
                b"GET /WebRTCAppEE/..\\..\\etc\\passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                &[400, 404],
            ),
            (
                "a session named by dots",
                b"DELETE /WebRTCAppEE/whep/witness/%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
                &[404],
            ),
            ("500 headers", head(&"A: b\r\n".repeat(500)), &[431]),
            (
                "a target of 300 KB",
                format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(300_000)).into_bytes(),
                &[414, 431],
            ),
            ("a negative length", post("Content-Length: -1", ""), &[400]),
            ("a length of letters", post("Content-Length: abc", ""), &[400]),
            ("two lengths", post("Content-Length: 3\r\nContent-Length: 4", "abcd"), &[400]),
            ("length and chunks", post("Content-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), &[400]),
            ("an unknown encoding", post("Transfer-Encoding: gzip", "x"), &[400, 501]),
            ("chunks that lie", post("Transfer-Encoding: chunked", "ffffffffffffffffff\r\nx"), &[400]),
            ("chunks that are none", post("Transfer-Encoding: chunked", "zz\r\nx"), &[400]),
            ("a body of 1 TB", post("Content-Length: 1099511627776", "v=0"), &[413]),
            ("a length of 2^64", post("Content-Length: 18446744073709551616", "v=0"), &[400]),
        ];
        for (name, bytes, statuses) in rows {
            let reply = exchange(to, &bytes, QUIET).await?;
            ensure!(statuses.contains(&reply.status()), "{name}: answered {}", String::from_utf8_lossy(&reply.bytes));
            witness.undisturbed(name).await?;
        }
        let chunk = format!("8000\r\n{}\r\n", "a".repeat(0x8000));
        let reply = exchange(to, &post("Transfer-Encoding: chunked", &chunk.repeat(6)), QUIET).await?;
        ensure!(reply.status() == 413, "chunks over the limit: {}", String::from_utf8_lossy(&reply.bytes));
        witness.unburdened("requests").await
    });
}

fn post(header: &str, body: &str) -> Vec<u8> {
    let head = "POST /WebRTCAppEE/whip/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp";
    format!("{head}\r\n{header}\r\n\r\n{body}").into_bytes()
}

#[test]
fn those_who_send_slowly_are_not_waited_for() {
    case(async {
        let limits = [
            "--set",
            "api.limits.header_timeout=1s",
            "--set",
            "api.limits.body_timeout=1s",
            "--set",
            "api.limits.keep_alive=3s",
        ];
        let mut witness = Witness::start(21, &limits).await?;
        let to = witness.node.http;
        let (header, body, idle) = tokio::join!(
            async {
                let mut stream = TcpStream::connect(to).await?;
                let begun = Instant::now();
                // A byte now and then, for ever.
                let (mut read, mut write) = stream.split();
                let drip = async {
                    loop {
                        if write.write_all(b"G").await.is_err() {
                            std::future::pending::<()>().await;
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                };
                let mut rest = Vec::new();
                let end = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut rest);
                tokio::select! {
                    () = drip => {}
                    ended = tokio::time::timeout(SOON, end) => { ended.context("a slow header is waited for")?.ok(); }
                }
                anyhow::Ok(begun.elapsed())
            },
            async {
                let mut stream = TcpStream::connect(to).await?;
                stream.write_all(&post("Content-Length: 100", "v=0")).await?;
                let reply = rawhttp::read(&mut stream, SOON).await;
                ensure!(reply.status() == 408, "a slow body: {}", String::from_utf8_lossy(&reply.bytes));
                Ok(())
            },
            async {
                let mut stream = TcpStream::connect(to).await?;
                let begun = Instant::now();
                let reply = rawhttp::read(&mut stream, SOON).await;
                ensure!(reply.closed && begun.elapsed() < SOON, "a connection that says nothing stays");
                Ok(())
            },
        );
        let waited = header?;
        ensure!(waited < Duration::from_secs(3), "a slow header was waited for {waited:?}");
        body?;
        idle?;
        witness.undisturbed("slow requests").await?;
        witness.unburdened("slow requests").await
    });
}

#[test]
fn methods_and_paths_have_their_answers() {
    case(async {
        let mut witness = Witness::start(22, &[]).await?;
        const SDP: &[(&str, &str)] = &[("content-type", "application/sdp")];
        const FRAGMENT: &[(&str, &str)] = &[("content-type", "application/trickle-ice-sdpfrag"), ("if-match", "*")];
        const NONE: &[(&str, &str)] = &[];
        let offer =
            ams_testkit::sdp::play_offer(&ams_rtc::ice::IceCredentials::random(), &ams_testkit::light::fingerprint()?);
        let text = offer.as_str();
        for (method, path, headers, body, status) in [
            ("PUT", "/WebRTCAppEE/whip/x", SDP, "", 405),
            ("DELETE", "/WebRTCAppEE/whep/x", NONE, "", 405),
            ("PATCH", "/WebRTCAppEE/whip/x", FRAGMENT, "", 405),
            ("BREW", "/WebRTCAppEE/whip/x", NONE, "", 405),
            ("POST", "/healthz", NONE, "", 405),
            ("POST", "/WebRTCAppEE/whip/x", NONE, "v=0", 415),
            ("POST", "/WebRTCAppEE/whip/x", &[("content-type", "text/plain")], "v=0", 415),
            ("POST", "/WebRTCAppEE/whip/x", SDP, "", 400),
            ("POST", "/WebRTCAppEE/whip/x", SDP, "\u{0}", 400),
            ("POST", "/Other/whip/x", SDP, text, 404),
            ("POST", "/WebRTCAppEE/whip/%20", SDP, text, 400),
            ("POST", "/WebRTCAppEE/whip/..%2f..%2fx", SDP, text, 400),
            ("POST", "/WebRTCAppEE/whep/%00", SDP, text, 400),
            ("POST", "/WebRTCAppEE/whep/%ff", SDP, text, 400),
            ("POST", "/WebRTCAppEE/whep/nobody", SDP, text, 409),
            ("PATCH", "/WebRTCAppEE/whep/witness/none", FRAGMENT, "", 404),
            ("DELETE", "/WebRTCAppEE/whip/witness/none", NONE, "", 404),
            ("GET", "/WebRTCAppEE/websocket", NONE, "", 426),
            ("GET", "/Other/websocket", NONE, "", 404),
            ("GET", "/WebRTCAppEE/..%2f..%2f..%2fetc/passwd", NONE, "", 404),
            ("GET", "/no/such/page", NONE, "", 404),
        ] {
            let name = format!("{method} {path}");
            let answer = send(method, &witness.node.url(path), headers, body).await.context(name.clone())?;
            ensure!(answer.status == status, "{name}: {answer:?}");
            ensure!(!answer.body.contains("root:"), "{name}: {answer:?}");
            let explained = status == 405 || !answer.body.is_empty();
            ensure!(explained, "{name} says why: {answer:?}");
            witness.undisturbed(&name).await?;
        }
        let long = format!("/WebRTCAppEE/whep/witness/{}", "s".repeat(20_000));
        ensure!(send("DELETE", &witness.node.url(&long), NONE, "").await?.status == 404, "a long session name");
        let answer = send("POST", &witness.node.url("/WebRTCAppEE/whep/witness"), SDP, vec![b'v', b'=', 0xff]).await?;
        ensure!(answer.status == 400, "a body that is not UTF-8: {answer:?}");
        let answer = send("POST", &witness.node.url("/WebRTCAppEE/whip/x"), SDP, "x".repeat(200_000)).await?;
        ensure!(answer.status == 413, "a long body: {answer:?}");
        witness.unburdened("methods and paths").await
    });
}
