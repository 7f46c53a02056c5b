//! The relay port: peers that are none, that have another key or another version, and that lie about lengths.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ams_relay::wire::{Features, Role};
use ams_relay::{ClusterKey, Connected, HandshakeConfig, RelayError, dial};
use ams_testkit::case::case;
use ams_testkit::node::NodeOptions;
use ams_testkit::rawhttp::{Reply, exchange, read};
use ams_types::{Incarnation, NodeId};
use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{SOON, Witness};

const KEY: &str = "the key of this test, 32 bytes or so";
/// The handshake's time, and some air.
const HANDSHAKE: Duration = Duration::from_secs(4);

async fn start(net: u8) -> Result<(Witness, tempfile::TempDir)> {
    let secrets = tempfile::tempdir()?;
    let key = secrets.path().join("cluster.key");
    std::fs::write(&key, KEY)?;
    let options =
        NodeOptions { registry: Some("memory".into()), key: Some(key), ..NodeOptions::new("origin", [127, 1, net, 1]) };
    Ok((Witness::on(options).await?, secrets))
}

fn edge(name: &str, key: Option<&str>) -> Result<HandshakeConfig> {
    Ok(HandshakeConfig {
        node_id: name.parse::<NodeId>()?,
        incarnation: Incarnation(rand::random()),
        role: Role::Edge,
        key: key.map(|key| ClusterKey::from_bytes(key.as_bytes())).transpose()?,
        features: Features::default(),
    })
}

async fn link(to: SocketAddr, name: &str, key: Option<&str>) -> Result<Connected, RelayError> {
    let config = edge(name, key).map_err(|e| RelayError::Io(std::io::Error::other(e.to_string())))?;
    dial(to, &config, None, Instant::now() + SOON).await
}

/// A hello frame of version 1 (WIRE.md §3) with these fields.
fn hello(magic: &[u8; 4], versions: (u16, u16), features: u64, name: &[u8]) -> Vec<u8> {
    let mut body = vec![1];
    body.extend_from_slice(magic);
    body.extend_from_slice(&versions.0.to_be_bytes());
    body.extend_from_slice(&versions.1.to_be_bytes());
    body.extend_from_slice(&features.to_be_bytes());
    body.push(name.len() as u8);
    body.extend_from_slice(name);
    body.extend_from_slice(&7_u64.to_be_bytes());
    body.extend_from_slice(&[9; 32]);
    body.push(2);
    frame(&body)
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

/// The code and sentence of a Reject among the frames that came.
fn rejection(reply: &Reply) -> Option<(u16, String)> {
    let mut rest = reply.bytes.as_slice();
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (body, tail) = tail.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        if let [3, a, b, _, _, sentence @ ..] = body {
            return Some((u16::from_be_bytes([*a, *b]), String::from_utf8_lossy(sentence).into_owned()));
        }
        rest = tail;
    }
    None
}

#[test]
fn peers_that_are_none_are_told_why() {
    case(async {
        let (mut witness, _secrets) = start(50).await?;
        let relay = witness.node.relay;
        let auth = frame(&[&[2, 1][..], &[0x5a; 32]].concat());
        let good = hello(b"AMSR", (1, 1), 0, b"stranger");
        let rows: Vec<(&str, Vec<u8>, Option<u16>)> = vec![
            ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), Some(10)),
            ("garbage", vec![0x55; 2000], Some(10)),
            ("4 GiB", vec![0xff, 0xff, 0xff, 0xff, 1, 2, 3], Some(10)),
            ("a frame of nothing", vec![0, 0, 0, 0], Some(10)),
            ("over the handshake's limit", frame(&[1; 1025]), Some(10)),
            ("another magic", hello(b"RTMP", (1, 1), 0, b"stranger"), Some(10)),
            ("a hello cut", frame(good.get(4..20).unwrap_or_default()), Some(10)),
            ("no name", hello(b"AMSR", (1, 1), 0, b""), Some(10)),
            ("a name of control characters", hello(b"AMSR", (1, 1), 0, b"a\nb"), Some(10)),
            ("a name that is not UTF-8", hello(b"AMSR", (1, 1), 0, b"\xff\xfe"), Some(10)),
            ("auth before hello", auth.clone(), Some(10)),
            ("a version of the future", hello(b"AMSR", (9, 9), 0, b"stranger"), Some(1)),
            ("version 0", hello(b"AMSR", (0, 0), 0, b"stranger"), Some(1)),
            ("a demand it does not know", hello(b"AMSR", (1, 1), 1 << 50, b"stranger"), Some(7)),
            ("no key", hello(b"AMSR", (1, 1), 1, b"stranger"), Some(3)),
            ("a wrong proof", [good.clone(), auth.clone()].concat(), Some(2)),
            ("media instead of a proof", [good.clone(), frame(&[0x20, 0, 0, 0, 0])].concat(), Some(10)),
            ("hello twice", [good.clone(), good.clone()].concat(), Some(10)),
        ];
        for (name, bytes, code) in rows {
            let reply = exchange(relay, &bytes, HANDSHAKE).await?;
            ensure!(reply.closed, "{name}: the link stays open");
            let rejection = rejection(&reply);
            ensure!(rejection.as_ref().map(|r| r.0) == code, "{name}: {rejection:?}, not {code:?}");
            ensure!(rejection.is_none_or(|r| (10..512).contains(&r.1.len())), "{name} says why");
            witness.undisturbed(name).await?;
        }
        ensure!(witness.node.metric("ams_relay_links").await? == 0.0, "none of them is a link");
        witness.unburdened("relay strangers").await
    });
}

#[test]
fn a_wrong_key_is_refused_by_both_ends() {
    case(async {
        let (mut witness, _secrets) = start(51).await?;
        for (name, key) in [("another key", Some("another key of enough length!")), ("no key", None)] {
            let error = link(witness.node.relay, "edge-1", key).await.err().context(name)?;
            ensure!(
                matches!(error, RelayError::Rejected { .. }) || error.to_string().contains("key"),
                "{name}: {error}"
            );
            witness.undisturbed(name).await?;
        }
        ensure!(witness.node.log().contains("relay link refused"), "the operator is told");
        witness.node.wait_metric("ams_relay_links_refused_total", SOON, |n| n == 2.0).await?;
        let linked = link(witness.node.relay, "edge-1", Some(KEY)).await.context("the right key")?;
        witness.node.wait_metric("ams_relay_links", SOON, |n| n == 1.0).await?;
        drop(linked);
        witness.node.wait_metric("ams_relay_links", SOON, |n| n == 0.0).await?;
        witness.unburdened("keys").await
    });
}

#[test]
fn those_who_never_finish_their_handshake_keep_nobody_out() {
    case(async {
        let (mut witness, _secrets) = start(52).await?;
        let mut idle = Vec::new();
        for n in 0..160 {
            let mut stream = TcpStream::connect(witness.node.relay).await?;
            if n % 2 == 0 {
                stream.write_all(&[0, 0, 0, 65, 1]).await?;
            }
            idle.push(stream);
        }
        witness.undisturbed("160 silent connections").await?;
        let begun = Instant::now();
        let linked = ams_testkit::eventually("an edge gets through", HANDSHAKE, || async {
            link(witness.node.relay, "edge-1", Some(KEY)).await.ok()
        })
        .await?;
        for stream in &mut idle {
            ensure!(read(stream, HANDSHAKE).await.closed, "a silent connection is closed after its time");
        }
        ensure!(begun.elapsed() < HANDSHAKE, "after {:?}", begun.elapsed());
        drop((linked, idle));
        witness.node.wait_metric("ams_relay_links", SOON, |n| n == 0.0).await?;
        witness.unburdened("silent connections").await
    });
}

#[test]
fn an_edge_gone_mad_loses_its_link_and_nothing_else() {
    case(async {
        let (mut witness, _secrets) = start(53).await?;
        let text8 = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
        let subscribe = |handle: u32, app: &str, stream: &str, hops: u8| {
            let parts = [&[0x10][..], &handle.to_be_bytes(), &text8(app), &text8(stream), &[hops, 0]];
            frame(&parts.concat())
        };
        // Frames, and whether the link is to end.
        let rows: Vec<(&str, Vec<u8>, bool)> = vec![
            ("4 GiB", vec![0xff, 0xff, 0xff, 0xff, 0x20], true),
            ("a frame of nothing", vec![0, 0, 0, 0], true),
            ("a subscribe cut", frame(&[0x10, 0, 0, 0, 1, 5, b'a']), true),
            ("an unknown frame", frame(&[0x7f, 1, 2, 3]), false),
            ("subscribe to nobody", subscribe(1, "WebRTCAppEE", "nobody", 1), false),
            ("subscribe with 0 hops", subscribe(1, "WebRTCAppEE", "witness", 0), false),
            ("subscribe with 255 hops", subscribe(1, "WebRTCAppEE", "witness", 255), false),
            ("subscribe to another application", subscribe(1, "Other", "witness", 1), false),
            ("unsubscribe of nothing", frame(&[0x13, 0, 0, 0, 77]), false),
            ("keyframe request of nothing", frame(&[0x23, 0, 0, 0, 77, 0, 0]), false),
            (
                "one handle twice",
                [subscribe(5, "WebRTCAppEE", "witness", 1), subscribe(5, "WebRTCAppEE", "x", 1)].concat(),
                false,
            ),
            (
                "one stream twice",
                [subscribe(5, "WebRTCAppEE", "witness", 1), subscribe(6, "WebRTCAppEE", "witness", 1)].concat(),
                false,
            ),
            (
                "keyframe requests for ever",
                [subscribe(5, "WebRTCAppEE", "witness", 1), frame(&[0x23, 0, 0, 0, 5, 1, 0]).repeat(3000)].concat(),
                false,
            ),
        ];
        for (name, bytes, ends) in rows {
            let mut linked = link(witness.node.relay, "mad", Some(KEY)).await.with_context(|| name.to_owned())?;
            witness.node.wait_metric("ams_relay_links", SOON, |n| n == 1.0).await?;
            linked.stream.write_all(&bytes).await?;
            if ends {
                witness
                    .node
                    .wait_metric("ams_relay_links", SOON, |n| n == 0.0)
                    .await
                    .with_context(|| name.to_owned())?;
            }
            witness.undisturbed(name).await?;
            drop(linked);
            witness.node.wait_metric("ams_relay_links", SOON, |n| n == 0.0).await.with_context(|| name.to_owned())?;
            witness.node.wait_metric("ams_relay_streams_served", SOON, |n| n == 0.0).await?;
        }
        let asked = witness.publisher.counts.get(|c| &c.keyframe_requests);
        ensure!(asked < 30, "{asked} keyframe requests reached the publisher");

        // Reads nothing: what waits for it is bounded, and dropped.
        let mut deaf = link(witness.node.relay, "deaf", Some(KEY)).await?;
        deaf.stream.write_all(&subscribe(5, "WebRTCAppEE", "witness", 1)).await?;
        witness.node.wait_metric("ams_relay_streams_served", SOON, |n| n == 1.0).await?;
        witness.viewer.wait_video(360, Duration::from_secs(10)).await?;
        witness.undisturbed("an edge that reads nothing").await?;
        drop(deaf);
        witness.node.wait_metric("ams_relay_links", SOON, |n| n == 0.0).await?;
        witness.unburdened("an edge gone mad").await
    });
}
