//! Two handshakes talking to each other, and to those who should not get in.

use super::*;
use crate::wire::FRAME_LEN_MAX;

const KEY: &[u8] = b"0123456789abcdef";

fn config(node_id: &str, key: Option<&[u8]>) -> HandshakeConfig {
    HandshakeConfig {
        node_id: node_id.parse().unwrap(),
        incarnation: Incarnation(node_id.len() as u64),
        role: Role::Edge,
        key: key.map(|key| ClusterKey::from_bytes(key).unwrap()),
        features: Features::default(),
    }
}

type Outcome = Result<PeerInfo, RelayError>;

/// Carries bytes between the two until neither has any, `step` bytes at a time; returns both outcomes.
fn shake(mut dialer: Handshake, mut acceptor: Handshake, step: usize) -> (Outcome, Outcome) {
    let mut outcomes: [Option<Outcome>; 2] = [None, None];
    loop {
        let mut moved = false;
        for (turn, outcome) in outcomes.iter_mut().enumerate() {
            let (from, to) = if turn == 0 { (&mut dialer, &mut acceptor) } else { (&mut acceptor, &mut dialer) };
            for piece in from.take_output().chunks(step) {
                moved = true;
                if outcome.is_some() {
                    continue;
                }
                *outcome = match to.receive(piece) {
                    Ok(Progress::NeedMore) => None,
                    Ok(Progress::Established(established)) => Some(Ok(established.peer)),
                    Err(error) => Some(Err(error)),
                };
            }
        }
        if !moved {
            // Index 0 is what the acceptor made of the dialer's bytes.
            let [acceptor, dialer] = outcomes.map(|outcome| outcome.unwrap_or(Err(RelayError::HandshakeTimeout)));
            return (dialer, acceptor);
        }
    }
}

fn dialer(config: HandshakeConfig) -> Handshake {
    Handshake::dialer(config, None, [1; 32]).unwrap()
}

fn acceptor(config: HandshakeConfig) -> Handshake {
    Handshake::acceptor(config, [2; 32]).unwrap()
}

#[test]
fn both_sides_learn_who_is_there_however_the_bytes_are_cut() {
    for (name, key) in [("with a key", Some(KEY)), ("without a key", None)] {
        for step in [1, 7, 4096] {
            let (at_dialer, at_acceptor) = shake(dialer(config("edge", key)), acceptor(config("origin-1", key)), step);
            let (origin, edge) = (at_dialer.unwrap(), at_acceptor.unwrap());
            assert_eq!(origin.node_id.as_str(), "origin-1", "{name}, {step}");
            assert_eq!(edge.node_id.as_str(), "edge", "{name}, {step}");
            assert_eq!(origin.version, VERSION);
            assert_eq!(origin.features.has(Features::OPEN), key.is_none());
        }
    }
}

#[test]
fn who_should_not_get_in_is_told_what_to_do() {
    let other = Some(&b"fedcba9876543210"[..]);
    let node = config;
    let wanted = |expected: &str| {
        Handshake::dialer(config("edge", Some(KEY)), Some(expected.parse().unwrap()), [1; 32]).unwrap()
    };
    // Name, the two sides, what the side that notices says, and what it tells the other.
    let cases = [
        ("wrong key", dialer(node("edge", other)), acceptor(node("origin", Some(KEY))), "different cluster key"),
        (
            "key at the origin only",
            dialer(node("edge", None)),
            acceptor(node("origin", Some(KEY))),
            "has no cluster key",
        ),
        ("key at the edge only", dialer(node("edge", Some(KEY))), acceptor(node("origin", None)), "asks for a cluster"),
        ("reused address", wanted("origin"), acceptor(node("origin-2", Some(KEY))), "origin was dialled but origin-2"),
        ("itself", dialer(node("edge", Some(KEY))), acceptor(node("edge", Some(KEY))), "dialled itself"),
        (
            "cloned node id",
            dialer(HandshakeConfig { incarnation: Incarnation(77), ..node("edge", Some(KEY)) }),
            acceptor(node("edge", Some(KEY))),
            "both called edge",
        ),
        (
            "unknown demand",
            dialer(HandshakeConfig { features: Features(1 << 63), ..node("edge", Some(KEY)) }),
            acceptor(node("origin", Some(KEY))),
            "insists on relay features 0x8000000000000000",
        ),
    ];
    for (name, dialer, acceptor, sentence) in cases {
        let (at_dialer, at_acceptor) = shake(dialer, acceptor, 4096);
        let errors = [at_dialer.unwrap_err(), at_acceptor.unwrap_err()];
        let noticed = errors.iter().filter(|e| !matches!(e, RelayError::Rejected { .. })).collect::<Vec<_>>();
        assert_eq!(noticed.len(), 1, "{name}: one side notices, the other is told: {errors:?}");
        assert!(noticed[0].to_string().contains(sentence), "{name}: {}", noticed[0]);
        assert!(!noticed[0].is_transient(), "{name}");
        let told = errors.iter().find(|e| matches!(e, RelayError::Rejected { .. })).unwrap().to_string();
        assert!(told.contains(sentence), "{name}: {told}");
    }
}

#[test]
fn an_acceptor_with_the_wrong_key_cannot_pass_for_an_origin() {
    // It skips its own check and answers whatever the dialer proved.
    let mut edge = dialer(config("edge", Some(KEY)));
    let mut forger = acceptor(config("origin", Some(b"fedcba9876543210")));
    let hello = edge.take_output();
    forger.receive(&hello).unwrap();
    edge.receive(&forger.take_output()).unwrap();
    edge.take_output();
    forger.send_auth(&hello).unwrap();
    let error = edge.receive(&forger.take_output()).unwrap_err();
    assert!(matches!(error, RelayError::WrongKey { .. }), "{error}");
    assert!(!edge.take_output().is_empty(), "it is told why");
}

#[test]
fn recorded_and_reflected_proofs_are_worth_nothing() {
    // A whole handshake is recorded.
    let mut edge = dialer(config("edge", Some(KEY)));
    let mut origin = acceptor(config("origin", Some(KEY)));
    let hello = edge.take_output();
    origin.receive(&hello).unwrap();
    edge.receive(&origin.take_output()).unwrap();
    let auth = edge.take_output();
    assert!(matches!(origin.receive(&auth), Ok(Progress::Established(_))));

    // The same bytes on a new connection, where the origin has another nonce.
    let mut again = Handshake::acceptor(config("origin", Some(KEY)), [3; 32]).unwrap();
    again.receive(&hello).unwrap();
    again.take_output();
    assert!(matches!(again.receive(&auth), Err(RelayError::WrongKey { .. })), "replay");

    // The dialer's own proof sent back to it.
    let mut edge = dialer(config("edge", Some(KEY)));
    edge.take_output();
    let mut origin = acceptor(config("origin", Some(KEY)));
    origin.receive(&hello).unwrap();
    edge.receive(&origin.take_output()).unwrap();
    let own = edge.take_output();
    assert!(matches!(edge.receive(&own), Err(RelayError::WrongKey { .. })), "reflection");
}

#[test]
fn a_changed_hello_breaks_the_proof() {
    let mut edge = dialer(config("edge", Some(KEY)));
    let mut origin = acceptor(config("origin", Some(KEY)));
    let mut hello = edge.take_output();
    // Someone in between takes an offered feature away (last byte of the feature set).
    let features = 4 + 1 + 4 + 2 + 2 + 7;
    hello[features] ^= 2;
    origin.receive(&hello).unwrap();
    edge.receive(&origin.take_output()).unwrap();
    assert!(matches!(origin.receive(&edge.take_output()), Err(RelayError::WrongKey { .. })));
}

fn hello(version: u16, min_version: u16, trailing: &[u8]) -> Vec<u8> {
    let hello = Hello {
        version,
        min_version,
        features: Features::OPEN,
        node_id: "future".parse().unwrap(),
        incarnation: Incarnation(9),
        nonce: [5; 32],
        role: Role::Other(200),
    };
    let mut bytes = BytesMut::new();
    Frame::Hello(hello).encode_into(&mut bytes).unwrap();
    bytes.extend_from_slice(trailing);
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    bytes.to_vec()
}

#[test]
fn versions_meet_in_the_middle_or_say_who_must_upgrade() {
    for (name, version, min_version, want) in [
        ("newer that still speaks ours", 9, 1, None),
        (
            "newer that does not",
            9,
            2,
            Some("needs relay version 2 or newer, this node speaks up to 1: upgrade this node"),
        ),
        ("older than we accept", 0, 0, Some("speaks relay version 0, this node needs 1 or newer: upgrade future")),
    ] {
        let mut origin = acceptor(config("origin", None));
        let result = origin.receive(&hello(version, min_version, b"fields of a later version"));
        match want {
            None => {
                result.unwrap();
                let mut auth = BytesMut::new();
                let open = Auth { method: AuthMethod::Open, proof: [0; PROOF_LEN] };
                Frame::Auth(open).encode_into(&mut auth).unwrap();
                auth.extend_from_slice(b"next");
                origin.take_output();
                let Progress::Established(established) = origin.receive(&auth).unwrap() else {
                    panic!("{name}: not established");
                };
                assert_eq!(established.peer.version, 1, "{name}");
                assert_eq!(&established.leftover[..], b"next", "{name}: nothing is lost behind the handshake");
            }
            Some(sentence) => {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(sentence), "{name}: {error}");
                let output = origin.take_output();
                let parsed = Frame::parse(&output, FRAME_LEN_MAX).unwrap();
                let crate::wire::Parsed::Frame { frame: Frame::Reject(reject), .. } = parsed else {
                    panic!("{name}: {parsed:?}");
                };
                assert_eq!(reject.code, RejectCode::Version, "{name}");
            }
        }
    }
}

#[test]
fn strangers_are_refused_at_once_and_cost_no_memory() {
    let ping = b"\0\0\0\x09\x30\0\0\0\0\0\0\0\x01";
    let wrong_magic = {
        let mut bytes = hello(1, 1, b"");
        bytes[5] = b'X';
        bytes
    };
    for (name, bytes, not_a_relay) in [
        ("a web browser", &b"GET / HTTP/1.1\r\n"[..], true),
        ("TLS", &[0x16, 3, 1, 2, 0, 1][..], true),
        ("4 GiB frame", &[0xff, 0xff, 0xff, 0xff][..], true),
        ("just over the limit", &[0, 0, 4, 1, 1][..], false),
        ("no type", &[0, 0, 0, 0][..], false),
        ("a frame that is not a hello", &ping[..], true),
        ("another magic", &wrong_magic[..], false),
        ("cut hello", &[0, 0, 0, 3, 1, b'A', b'M'][..], false),
    ] {
        let mut origin = acceptor(config("origin", None));
        let error = origin.receive(bytes).unwrap_err();
        assert_eq!(matches!(error, RelayError::NotARelay), not_a_relay, "{name}: {error}");
        assert!(origin.receive(b"\0\0\0\x01\x01").is_err(), "{name}: it is over");
    }
    let mut origin = acceptor(config("origin", None));
    origin.receive(&hello(1, 1, b"")).unwrap();
    let error = origin.receive(ping).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer sent a Ping frame where Auth was due: one of the two nodes has a broken relay"
    );
}

#[test]
fn a_reason_with_control_characters_is_cleaned() {
    let mut edge = dialer(config("edge", None));
    let mut output = BytesMut::new();
    let sentence = "no\u{1b}[31m\nfake log line";
    Frame::Reject(Reject { code: RejectCode::Other(99), sentence }).encode_into(&mut output).unwrap();
    let error = edge.receive(&output).unwrap_err().to_string();
    assert_eq!(error, "the peer refused the link (code 99): no [31m fake log line");
}
