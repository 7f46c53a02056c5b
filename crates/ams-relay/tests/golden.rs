//! The bytes of each frame, as `WIRE.md` shows them.
//!
//! A change of a byte changes a file in `golden/` and the block in `WIRE.md` that quotes it, in the same commit.

use std::time::Duration;

use ams_media::{AbsCaptureTime, LayerInfo, StreamTracks, Sublayer, TrackInfo};
use ams_relay::handshake::{Handshake, HandshakeConfig, Progress};
use ams_relay::wire::{
    Auth, AuthMethod, DataMessage, EndReason, EpochLow, FRAME_LEN_MAX, Features, Find, Found, Frame, FrameKind,
    GO_AWAY_WITHDRAWN, Gap, HANDSHAKE_FRAME_LEN_MAX, Hello, MediaExtensions, MediaFrame, Parsed, Position, RefuseCode,
    Refused, Reject, RejectCode, Resume, Role, StreamHandle, StreamState, Subscribe, Subscribed, Timing,
};
use ams_relay::{ClusterKey, wire};
use ams_types::{Codec, CodecParams, Epoch, ExtSeq, Incarnation, LayerNo, MediaKind, Rid, StreamKey, TrackNo};
use bytes::BytesMut;

const WIRE_MD: &str = include_str!("../WIRE.md");

macro_rules! golden {
    ($name:literal) => {
        ($name, include_str!(concat!("../golden/", $name, ".hex")))
    };
}

fn stream_key() -> StreamKey {
    StreamKey::new("WebRTCAppEE".parse().unwrap(), "stream1".parse().unwrap())
}

fn subscribed() -> Subscribed {
    let layer = |no, rid: &str| LayerInfo { no: LayerNo(no), rid: Some(Rid(rid.into())) };
    Subscribed {
        handle: StreamHandle(7),
        epoch: Epoch(0x1_0000_0002),
        tracks: StreamTracks {
            tracks: vec![
                TrackInfo {
                    no: TrackNo(0),
                    kind: MediaKind::Audio,
                    codec: CodecParams { codec: Codec::Opus, fmtp: "minptime=10;useinbandfec=1".into() },
                    layers: vec![LayerInfo::default()],
                },
                TrackInfo {
                    no: TrackNo(1),
                    kind: MediaKind::Video,
                    codec: CodecParams { codec: Codec::Vp8, fmtp: "".into() },
                    layers: vec![layer(0, "hi"), layer(1, "lo")],
                },
            ],
            data_channel: true,
        },
    }
}

/// Name of the golden file, its text, and the frame it shows.
fn frames() -> Vec<((&'static str, &'static str), Frame<'static>)> {
    let handle = StreamHandle(7);
    let epoch = EpochLow(2);
    let (track, layer) = (TrackNo(1), LayerNo(0));
    vec![
        (
            golden!("hello"),
            Frame::Hello(Hello {
                version: 1,
                min_version: 1,
                features: Features::OPEN,
                node_id: "edge-1".parse().unwrap(),
                incarnation: Incarnation(0x0102_0304_0506_0708),
                nonce: [0x11; 32],
                role: Role::Edge,
            }),
        ),
        (golden!("auth_open"), Frame::Auth(Auth { method: AuthMethod::Open, proof: [0; 32] })),
        (golden!("reject"), Frame::Reject(Reject { code: RejectCode::WrongKey, sentence: "wrong key" })),
        (golden!("subscribe"), Frame::Subscribe(Subscribe { handle, key: stream_key(), hops: 1, resume: None })),
        (
            golden!("subscribe_resume"),
            Frame::Subscribe(Subscribe {
                handle,
                key: stream_key(),
                hops: 1,
                resume: Some(Resume {
                    epoch: Epoch(0x1_0000_0002),
                    positions: vec![Position { track, layer, seq: ExtSeq(65_537) }],
                }),
            }),
        ),
        (golden!("subscribed"), Frame::Subscribed(subscribed())),
        (
            golden!("refused"),
            Frame::Refused(Refused { handle, code: RefuseCode::NotFound, sentence: "stream1 is not live here" }),
        ),
        (golden!("unsubscribe"), Frame::Unsubscribe { handle }),
        (
            golden!("tracks_changed"),
            Frame::TracksChanged(Subscribed { handle, epoch: Epoch(3), tracks: StreamTracks::default() }),
        ),
        (golden!("stream_state"), Frame::StreamState { handle, state: StreamState::Interrupted }),
        (golden!("end"), Frame::End { handle, reason: EndReason::Finished }),
        (golden!("find"), Frame::Find(Find { nonce: 9, key: stream_key() })),
        (
            golden!("found"),
            Frame::Found(Found { nonce: 9, held: true, live: true, epoch: Epoch(0x1_0000_0002), silent_ms: 20 }),
        ),
        (golden!("audience"), Frame::Audience { handle, viewers: 1500 }),
        (
            golden!("media_plain"),
            Frame::Media(MediaFrame {
                handle,
                epoch,
                track,
                layer,
                marker: true,
                keyframe: false,
                seq: ExtSeq(65_536),
                timestamp: 0xffff_fff0,
                age: Duration::from_micros(1_500),
                extensions: MediaExtensions::default(),
                payload: &[0x90, 0x80, 0x01],
            }),
        ),
        (
            golden!("media_extensions"),
            Frame::Media(MediaFrame {
                handle,
                epoch,
                track,
                layer,
                marker: false,
                keyframe: true,
                seq: ExtSeq(u64::MAX),
                timestamp: 90_000,
                age: Duration::ZERO,
                extensions: MediaExtensions {
                    audio_level: Some(0x9e),
                    video_orientation: Some(1),
                    abs_capture_time: Some(AbsCaptureTime { timestamp: 0x0102_0304_0506_0708, clock_offset: Some(-1) }),
                    playout_delay: Some([0x00, 0xa0, 0x14]),
                    dependency_descriptor: Some(&[0x80, 0x00, 0x01]),
                    sublayer: Some(Sublayer { spatial: 1, temporal: 2, climb: Some((1, 2)), ends_frame: true }),
                },
                payload: &[0x10],
            }),
        ),
        (
            golden!("timing"),
            Frame::Timing(Timing {
                handle,
                epoch,
                track,
                layer,
                ntp: 0xe8d4_a510_8000_0000,
                rtp: 90_000,
                age: Duration::from_millis(20),
            }),
        ),
        (golden!("gap"), Frame::Gap(Gap { handle, epoch, track, layer, from: ExtSeq(65_530), to: ExtSeq(65_540) })),
        (golden!("keyframe_request"), Frame::KeyframeRequest { handle, track, layer }),
        (
            golden!("data_message"),
            Frame::DataMessage(DataMessage {
                handle,
                binary: false,
                from_node: "edge-1".parse().unwrap(),
                from_peer: 42,
                payload: b"hello",
            }),
        ),
        (golden!("ping"), Frame::Ping { nonce: 1 }),
        (golden!("pong"), Frame::Pong { nonce: 1 }),
        (golden!("go_away"), Frame::GoAway { deadline: Duration::from_secs(30) }),
        (golden!("go_away_withdrawn"), Frame::GoAway { deadline: GO_AWAY_WITHDRAWN }),
    ]
}

/// The four frames of a handshake with the key `0123456789abcdef`.
fn keyed_handshake() -> Vec<((&'static str, &'static str), Vec<u8>)> {
    let config = |node_id: &str, incarnation, role| HandshakeConfig {
        node_id: node_id.parse().unwrap(),
        incarnation: Incarnation(incarnation),
        role,
        key: Some(ClusterKey::from_bytes(b"0123456789abcdef").unwrap()),
        features: Features::default(),
    };
    let mut dialer = Handshake::dialer(config("edge-1", 1, Role::Edge), None, [0x11; 32]).unwrap();
    let mut acceptor = Handshake::acceptor(config("origin-1", 2, Role::Origin), [0x22; 32]).unwrap();
    let dialer_hello = dialer.take_output();
    assert!(matches!(acceptor.receive(&dialer_hello), Ok(Progress::NeedMore)));
    let acceptor_hello = acceptor.take_output();
    assert!(matches!(dialer.receive(&acceptor_hello), Ok(Progress::NeedMore)));
    let dialer_auth = dialer.take_output();
    assert!(matches!(acceptor.receive(&dialer_auth), Ok(Progress::Established(_))));
    let acceptor_auth = acceptor.take_output();
    assert!(matches!(dialer.receive(&acceptor_auth), Ok(Progress::Established(_))));
    vec![
        (golden!("keyed_1_dialer_hello"), dialer_hello.to_vec()),
        (golden!("keyed_2_acceptor_hello"), acceptor_hello.to_vec()),
        (golden!("keyed_3_dialer_auth"), dialer_auth.to_vec()),
        (golden!("keyed_4_acceptor_auth"), acceptor_auth.to_vec()),
    ]
}

#[test]
fn each_frame_has_the_bytes_the_document_shows() {
    let mut all: Vec<((&str, &str), Vec<u8>)> = keyed_handshake();
    for (golden, frame) in frames() {
        let mut bytes = BytesMut::new();
        frame.encode_into(&mut bytes).unwrap();
        all.push((golden, bytes.to_vec()));
    }
    let mut wrong = String::new();
    for ((name, text), bytes) in all {
        let actual = hex::encode(bytes);
        if actual != text.trim() {
            wrong.push_str(&format!("golden/{name}.hex {actual}\n"));
        }
        if !WIRE_MD.contains(&format!("golden/{name}.hex\n{actual}\n")) {
            wrong.push_str(&format!("WIRE.md does not show golden/{name}.hex as it is\n"));
        }
    }
    assert!(wrong.is_empty(), "the wire format changed:\n{wrong}");
}

#[test]
fn the_golden_bytes_are_read_back_as_the_frames() {
    for ((name, text), frame) in frames() {
        let bytes = hex::decode(text.trim()).unwrap();
        assert_eq!(Frame::parse(&bytes, FRAME_LEN_MAX), Ok(Parsed::Frame { frame, used: bytes.len() }), "{name}");
    }
}

#[test]
fn every_type_has_a_golden_file_and_a_row_in_the_document() {
    for kind in FrameKind::ALL {
        assert!(frames().iter().any(|(_, frame)| frame.kind() == Some(*kind)), "no golden file for {kind:?}");
        let row = format!("| `{:#04x}` | {} |", *kind as u8, kind.name());
        assert!(WIRE_MD.contains(&row), "WIRE.md has no row {row}");
    }
}

#[test]
fn the_limits_in_the_document_are_those_of_the_code() {
    for (what, number) in [
        ("FRAME_LEN_MAX", FRAME_LEN_MAX as usize),
        ("HANDSHAKE_FRAME_LEN_MAX", HANDSHAKE_FRAME_LEN_MAX as usize),
        ("DATA_LEN_MAX", wire::DATA_LEN_MAX),
        ("SENTENCE_LEN_MAX", wire::SENTENCE_LEN_MAX),
        ("FMTP_LEN_MAX", wire::tracks::FMTP_LEN_MAX),
        ("TRACKS_MAX", ams_media::track::TRACKS_MAX),
        ("LAYERS_MAX", ams_media::track::LAYERS_MAX),
        ("POSITIONS_MAX", wire::subscribe::POSITIONS_MAX),
    ] {
        let row = format!("| `{what}` | {number} |");
        assert!(WIRE_MD.contains(&row), "WIRE.md has no row {row}");
    }
}
