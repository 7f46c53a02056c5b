//! The media port: datagrams of strangers, and forgeries from the very address of a connected peer.

use std::net::SocketAddr;
use std::time::Instant;

use ams_rtc::dtls::{DtlsIdentity, DtlsRole};
use ams_rtc::ice::IceCredentials;
use ams_rtc::testpeer::{TestPeer, TestPeerConfig};
use ams_testkit::case::case;
use ams_testkit::light::Control;
use ams_testkit::sdp::NodeSdp;
use anyhow::{Context, Result, ensure};
use tokio::net::UdpSocket;

use super::{SOON, Witness};

const MANY: usize = 50;

async fn stranger(to: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// A connectivity check for the witness's viewer, with another password.
fn check(node: &NodeSdp, password: &str) -> Result<Vec<u8>> {
    let config = TestPeerConfig {
        local: IceCredentials::random(),
        remote: IceCredentials::new(node.ice.ufrag(), password)?,
        remote_fingerprint: node.fingerprint.clone(),
        server: node.candidate()?,
        role: DtlsRole::Client,
        data_channel: false,
    };
    let identity = std::sync::Arc::new(DtlsIdentity::generate()?);
    Ok(TestPeer::new(Instant::now(), &identity, config).check())
}

async fn total(witness: &Witness) -> Result<f64> {
    let figures = [witness.node.metric("ams_datagrams_unknown_total").await?, refused(witness).await?];
    Ok(figures.iter().sum())
}

async fn refused(witness: &Witness) -> Result<f64> {
    witness.node.metric("ams_datagrams_refused_total").await
}

#[test]
fn datagrams_of_strangers_are_counted_and_dropped() {
    case(async {
        let mut witness = Witness::start(40, &[]).await?;
        let node = NodeSdp::parse(&witness.viewer.description)?;
        let to = node.candidate()?;
        let addresses = witness.node.metric("ams_media_addresses").await?;
        let good = check(&node, node.ice.pwd())?;
        let wrong = check(&node, "anotherpasswordof24chars")?;
        let mut unknown = node.clone();
        unknown.ice = IceCredentials::random();
        let unknown = check(&unknown, unknown.ice.pwd())?;
        let mut random = vec![0_u8; 1200];
        rand::fill(&mut random[..]);
        let hello = {
            let mut bytes = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe8];
            bytes.extend_from_slice(random.get(..1000).unwrap_or_default());
            bytes
        };
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
            bytes
        };
        let rows: Vec<(&str, Vec<u8>)> = vec![
            ("empty", Vec::new()),
            ("one byte", vec![0]),
            ("random", random.clone()),
            ("as large as they come", vec![0x80; 65_000]),
            ("STUN with a wrong integrity", wrong.clone()),
            ("STUN for nobody", unknown),
            ("STUN cut", good.get(..good.len() - 9).unwrap_or_default().to_vec()),
            ("STUN cut in its header", good.get(..12).unwrap_or_default().to_vec()),
            ("STUN with a length that lies", with(3, 0xff)),
            ("STUN with an attribute that lies", with(23, 0xff)),
            ("STUN with another cookie", with(4, 0)),
            ("STUN answer to no question", with(0, 1)),
            ("DTLS hello", hello),
            ("DTLS alert", vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40]),
            ("RTP", [&[0x80, 96, 0, 1, 0, 0, 0, 1, 0x0b, 0x0b, 0, 1][..], &random[..100]].concat()),
            ("RTCP BYE", vec![0x81, 203, 0, 1, 0x0b, 0x0b, 0, 1]),
            ("TURN channel data", vec![0x40, 0, 0, 4, 1, 2, 3, 4]),
        ];
        for (name, bytes) in rows {
            let socket = stranger(to).await?;
            let before = total(&witness).await?;
            for _ in 0..MANY {
                socket.send(&bytes).await?;
            }
            if name != "empty" {
                ams_testkit::eventually("they are counted", SOON, || async {
                    total(&witness).await.ok().filter(|now| *now >= before + MANY as f64)
                })
                .await
                .with_context(|| format!("{name}, {MANY} of them"))?;
            }
            witness.undisturbed(name).await?;
        }
        ensure!(
            witness.node.metric("ams_media_addresses").await? <= addresses,
            "strangers take no place in the address map"
        );

        // A wrong integrity is answered with an error at most: nobody is made to send more than he got.
        let socket = stranger(to).await?;
        socket.send(&wrong).await?;
        let mut buffer = [0; 2048];
        let answer = tokio::time::timeout(std::time::Duration::from_millis(300), socket.recv(&mut buffer)).await;
        if let Ok(Ok(len)) = answer {
            ensure!(len <= wrong.len(), "{len} bytes for {}", wrong.len());
            ensure!(buffer.first() == Some(&1) && buffer.get(1) == Some(&0x11), "an error response");
        }
        witness.unburdened("datagrams of strangers").await
    });
}

#[test]
fn forgeries_from_a_peers_own_address_are_counted_and_dropped() {
    case(async {
        let mut witness = Witness::start(41, &[]).await?;
        let mut random = vec![0_u8; 600];
        rand::fill(&mut random[..]);
        let raw = |bytes: Vec<u8>| Control::Raw(bytes);
        let record = |kind: u8, body: &[u8]| {
            let mut bytes = vec![kind, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9];
            bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
            bytes.extend_from_slice(body);
            Control::Raw(bytes)
        };
        let rows: Vec<(&str, Control)> = vec![
            ("forged RTP", Control::Forge),
            ("replayed RTP", Control::Replay),
            ("random RTP", raw([&[0x80, 96, 1, 1, 0, 0, 0, 1, 0x0b, 0x0b, 0, 1][..], &random].concat())),
            ("RTP of a stranger", raw([&[0x80, 96, 1, 1, 0, 0, 0, 1, 9, 9, 9, 9][..], &random].concat())),
            ("RTP cut", raw(vec![0x80, 96, 1])),
            (
                "RTP whose extension lies",
                raw(vec![0x90, 96, 1, 1, 0, 0, 0, 1, 0x0b, 0x0b, 0, 1, 0xbe, 0xde, 0xff, 0xff]),
            ),
            ("RTP whose sources lie", raw(vec![0x8f, 96, 1, 1, 0, 0, 0, 1, 0x0b, 0x0b, 0, 1, 0, 0])),
            ("random RTCP", raw([&[0x81, 206, 0, 9][..], &random].concat())),
            ("DTLS application data", record(23, &random)),
            ("DTLS alert", record(21, &[2, 40])),
            ("DTLS handshake", record(22, &random)),
            ("random", raw([&[0xff][..], &random].concat())),
        ];
        for (name, control) in rows {
            let before = total(&witness).await?;
            for _ in 0..20 {
                witness.publisher.control(control.clone());
            }
            // A record that cannot be decrypted is dropped inside the DTLS library without a word.
            if !name.starts_with("DTLS") {
                ams_testkit::eventually("they are counted", SOON, || async {
                    total(&witness).await.ok().filter(|now| *now >= before + 20.0)
                })
                .await
                .with_context(|| format!("{name}, 20 of them"))?;
            }
            witness.undisturbed(name).await?;
            ensure!(witness.node.metric("ams_publishers").await? == 1.0, "{name}: the publisher stays");
        }
        witness.unburdened("forgeries").await
    });
}

#[test]
fn packets_that_lie_behind_a_right_tag_are_counted_and_dropped() {
    case(async {
        let mut witness = Witness::start(42, &[]).await?;
        let ours = [0x0b, 0x0b, 0, 1];
        let stranger = [0x0c, 0x0c, 0, 1];
        let packet = |first: u8, pt: u8, seq: u8, ssrc: [u8; 4], rest: &[u8]| {
            let mut bytes = vec![first, pt, 0x10, seq, 0, 0, 0, 1];
            bytes.extend_from_slice(&ssrc);
            bytes.extend_from_slice(rest);
            bytes
        };
        let mut seq = 0;
        for (name, header_len, bytes) in [
            ("nothing that was negotiated", 12, packet(0x80, 51, 1, stranger, b"hello")),
            ("a payload type that was not negotiated", 12, packet(0x80, 50, 2, stranger, b"hello")),
            ("padding longer than the packet", 12, packet(0xa0, 96, 3, stranger, &[0, 0, 255])),
            ("padding of nothing", 12, packet(0xa0, 96, 4, stranger, &[0, 0, 0])),
            (
                "an extension element that lies",
                20,
                packet(0x90, 50, 5, stranger, &[0xbe, 0xde, 0, 1, 0x3f, 1, 2, 3, 9]),
            ),
            ("extensions of another profile", 20, packet(0x90, 50, 6, stranger, &[1, 2, 0, 1, 9, 9, 9, 9, 9])),
        ] {
            let before = refused(&witness).await?;
            for _ in 0..5 {
                let mut bytes = bytes.clone();
                seq += 1;
                if let Some(b) = bytes.get_mut(3) {
                    *b = seq;
                }
                witness.publisher.control(Control::Rtp { header_len, bytes });
            }
            ams_testkit::eventually("they are counted", SOON, || async {
                refused(&witness).await.ok().filter(|now| *now >= before + 5.0)
            })
            .await
            .with_context(|| name.to_owned())?;
            witness.undisturbed(name).await?;
        }
        for (name, bytes) in [
            ("RTCP of nothing", vec![0x80, 201, 0, 0]),
            ("RTCP with a length that lies", [&[0x81, 200, 0xff, 0xff][..], &ours].concat()),
            ("RTCP with padding that lies", [&[0xa1, 201, 0, 1][..], &[0, 0, 0, 200]].concat()),
            ("a sender report cut", [&[0x80, 200, 0, 2][..], &ours, &[0, 0, 0, 0]].concat()),
            (
                "feedback that contradicts itself",
                [&[0x8f, 205, 0, 4][..], &ours, &ours, &[0, 0, 0xff, 0xff, 0, 0, 0, 0]].concat(),
            ),
            ("a NACK for everything", [&[0x81, 205, 0, 3][..], &ours, &ours, &[0xff; 4]].concat()),
            ("a NACK of a publisher's own", [&[0x81, 205, 0, 3][..], &ours, &ours, &[0, 1, 0, 0]].concat()),
            (
                "a bandwidth of infinity",
                [&[0x8f, 206, 0, 5][..], &ours, &[0; 4], b"REMB", &[1, 0xff, 0xff, 0xff], &ours].concat(),
            ),
        ] {
            for _ in 0..5 {
                witness.publisher.control(Control::Rtcp(bytes.clone()));
                witness.viewer.control(Control::Rtcp(bytes.clone()));
            }
            witness.undisturbed(name).await?;
        }
        witness.unburdened("packets that lie").await
    });
}
