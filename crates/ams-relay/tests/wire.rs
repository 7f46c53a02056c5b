//! The codec against everything that may come: its own frames, later versions' frames, and garbage.

use std::time::{Duration, Instant};

use ams_media::{AbsCaptureTime, LayerInfo, StreamTracks, Sublayer, TrackInfo};
use ams_relay::link::LinkReader;
use ams_relay::wire::{
    DataMessage, EndReason, EpochLow, FRAME_LEN_MAX, Frame, FrameKind, Gap, MediaExtensions, MediaFrame, Parsed,
    Position, RefuseCode, Refused, Reject, RejectCode, Resume, StreamHandle, StreamState, Subscribe, Subscribed,
    Timing, WireError,
};
use ams_types::{Codec, CodecParams, Epoch, ExtSeq, LayerNo, Rid, StreamKey, TrackNo};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame.encode_into(&mut bytes).unwrap();
    bytes.to_vec()
}

fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 1).to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

fn key() -> impl Strategy<Value = StreamKey> {
    ("[A-Za-z0-9_-]{1,32}", "[A-Za-z0-9_.-]{1,128}")
        .prop_map(|(app, id)| StreamKey::new(app.parse().unwrap(), id.parse().unwrap()))
}

fn tracks() -> impl Strategy<Value = StreamTracks> {
    let layers = vec(option::of("[a-z0-9]{1,255}"), 1..=4).prop_map(|rids| {
        let layer = |(no, rid): (usize, Option<String>)| LayerInfo {
            no: LayerNo(no as u8),
            rid: rid.map(|rid| Rid(rid.as_str().into())),
        };
        rids.into_iter().enumerate().map(layer).collect::<Vec<_>>()
    });
    let track = (prop::sample::select(&Codec::ALL[..]), "[ -~]{0,400}", layers);
    (vec(track, 0..=8), any::<bool>()).prop_map(|(tracks, data_channel)| StreamTracks {
        tracks: (0u8..)
            .zip(tracks)
            .map(|(no, (codec, fmtp, layers))| TrackInfo {
                no: TrackNo(no),
                kind: codec.kind(),
                codec: CodecParams { codec, fmtp: fmtp.as_str().into() },
                layers,
            })
            .collect(),
        data_channel,
    })
}

fn resume() -> impl Strategy<Value = Resume> {
    let position = (any::<u8>(), any::<u8>(), any::<u64>()).prop_map(|(track, layer, seq)| Position {
        track: TrackNo(track),
        layer: LayerNo(layer),
        seq: ExtSeq(seq),
    });
    (any::<u64>(), vec(position, 0..=32)).prop_map(|(epoch, positions)| Resume { epoch: Epoch(epoch), positions })
}

proptest! {
    #[test]
    fn subscriptions_survive_the_wire(
        (handle, hops, epoch, changed) in any::<(u32, u8, u64, bool)>(),
        key in key(),
        resume in option::of(resume()),
        tracks in tracks(),
    ) {
        let handle = StreamHandle(handle);
        let subscribed = Subscribed { handle, epoch: Epoch(epoch), tracks };
        let answer = if changed { Frame::TracksChanged(subscribed) } else { Frame::Subscribed(subscribed) };
        for frame in [Frame::Subscribe(Subscribe { handle, key, hops, resume }), answer] {
            let bytes = encode(&frame);
            prop_assert_eq!(Frame::parse(&bytes, FRAME_LEN_MAX), Ok(Parsed::Frame { frame, used: bytes.len() }));
        }
    }

    #[test]
    fn media_survives_the_wire_whole_and_cut(
        (handle, epoch, track, layer, seq, timestamp) in any::<(u32, u32, u8, u8, u64, u32)>(),
        (marker, keyframe, age) in any::<(bool, bool, u32)>(),
        (audio_level, video_orientation, playout_delay) in any::<(Option<u8>, Option<u8>, Option<[u8; 3]>)>(),
        time in any::<Option<(u64, Option<i64>)>>(),
        (descriptor, sublayer) in (option::of(vec(any::<u8>(), 0..=255)), any::<Option<u16>>()),
        payload in vec(any::<u8>(), 0..3_000),
        cut: prop::sample::Index,
    ) {
        let frame = Frame::Media(MediaFrame {
            handle: StreamHandle(handle),
            epoch: EpochLow(epoch),
            track: TrackNo(track),
            layer: LayerNo(layer),
            marker,
            keyframe,
            seq: ExtSeq(seq),
            timestamp,
            age: Duration::from_micros(age.into()),
            extensions: MediaExtensions {
                audio_level,
                video_orientation,
                abs_capture_time: time.map(|(timestamp, clock_offset)| AbsCaptureTime { timestamp, clock_offset }),
                playout_delay,
                dependency_descriptor: descriptor.as_deref(),
                sublayer: sublayer.map(Sublayer::from_bits),
            },
            payload: &payload,
        });
        let bytes = encode(&frame);
        let used = bytes.len();
        prop_assert_eq!(Frame::parse(&bytes, FRAME_LEN_MAX), Ok(Parsed::Frame { frame: frame.clone(), used }));
        let part = &bytes[..cut.index(bytes.len())];
        let needs = matches!(Frame::parse(part, FRAME_LEN_MAX), Ok(Parsed::NeedMore { len }) if len > part.len());
        prop_assert!(needs, "a part of a frame is not an error and not a frame");
    }

    #[test]
    fn small_frames_survive_the_wire(
        (handle, track, layer, epoch) in any::<(u32, u8, u8, u32)>(),
        (a, b, rtp, age, code, byte) in any::<(u64, u64, u32, u32, u16, u8)>(),
        sentence in "\\PC{0,120}",
        message in vec(any::<u8>(), 0..2_000),
        node in "[A-Za-z0-9_.:-]{1,128}",
    ) {
        let (handle, track, layer, epoch) = (StreamHandle(handle), TrackNo(track), LayerNo(layer), EpochLow(epoch));
        let age = Duration::from_micros(age.into());
        let sentence = sentence.as_str();
        let state = match byte {
            1 => StreamState::Interrupted,
            2 => StreamState::Resumed,
            other => StreamState::Other(other),
        };
        for frame in [
            Frame::Reject(Reject { code: RejectCode::from_code(code), sentence }),
            Frame::Refused(Refused { handle, code: RefuseCode::from_code(code), sentence }),
            Frame::Unsubscribe { handle },
            Frame::StreamState { handle, state },
            Frame::End { handle, reason: EndReason::from_code(code) },
            Frame::Timing(Timing { handle, epoch, track, layer, ntp: a, rtp, age }),
            Frame::Gap(Gap { handle, epoch, track, layer, from: ExtSeq(a.min(b)), to: ExtSeq(a.max(b)) }),
            Frame::KeyframeRequest { handle, track, layer },
            Frame::DataMessage(DataMessage {
                handle, binary: byte & 1 == 1, from_node: node.parse().unwrap(), from_peer: b, payload: &message,
            }),
            Frame::Ping { nonce: a },
            Frame::Pong { nonce: b },
            Frame::GoAway { deadline: Duration::from_millis(rtp.into()) },
        ] {
            let bytes = encode(&frame);
            prop_assert_eq!(Frame::parse(&bytes, FRAME_LEN_MAX), Ok(Parsed::Frame { frame, used: bytes.len() }));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = Frame::parse(&bytes, FRAME_LEN_MAX);
    }

    #[test]
    fn arbitrary_bodies_of_known_types_never_panic_and_what_is_read_can_be_written(
        kind in prop::sample::select(FrameKind::ALL), body in vec(any::<u8>(), 0..300),
    ) {
        let bytes = raw(kind as u8, &body);
        if let Ok(Parsed::Frame { frame, used }) = Frame::parse(&bytes, FRAME_LEN_MAX) {
            prop_assert_eq!(used, bytes.len());
            let again = encode(&frame);
            prop_assert_eq!(Frame::parse(&again, FRAME_LEN_MAX), Ok(Parsed::Frame { frame, used: again.len() }));
        }
    }

    #[test]
    fn a_changed_byte_in_a_real_frame_never_panics(tracks in tracks(), at: prop::sample::Index, to: u8) {
        let frame = Frame::Subscribed(Subscribed { handle: StreamHandle(1), epoch: Epoch(1), tracks });
        let mut bytes = encode(&frame);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Frame::parse(&bytes, FRAME_LEN_MAX);
    }
}

#[test]
fn lengths_are_judged_before_anything_is_kept() {
    for (name, bytes, want) in [
        ("4 GiB", &[0xff, 0xff, 0xff, 0xff][..], Err("frame of 4294967295 bytes is over the 67584 byte limit")),
        ("one over", &[0, 1, 8, 1][..], Err("frame of 67585 bytes is over the 67584 byte limit")),
        ("at the limit", &[0, 1, 8, 0][..], Ok(67_588)),
        ("no type", &[0, 0, 0, 0][..], Err("frame of 0 bytes has no type")),
        ("nothing yet", &[][..], Ok(4)),
        ("half a length", &[0xff, 0xff][..], Ok(4)),
        ("type missing", &[0, 0, 0, 9][..], Ok(13)),
        ("body missing", &[0, 0, 0, 9, 0x30, 1][..], Ok(13)),
    ] {
        let got = match Frame::parse(bytes, FRAME_LEN_MAX) {
            Ok(Parsed::NeedMore { len }) => Ok(len),
            Ok(Parsed::Frame { frame, .. }) => panic!("{name}: {frame:?}"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(got, want.map_err(str::to_owned), "{name}");
    }
}

#[test]
fn fields_that_lie_are_named() {
    let (h, key) = ([0, 0, 0, 7], [&[1, b'a', 1, b's'][..], &[1]].concat());
    let track = |layers: &[u8]| {
        let element = [&[0, 4], &b"opus"[..], &[0, 0], layers].concat();
        [&(element.len() as u16).to_be_bytes()[..], &element].concat()
    };
    let subscribed = |count: u8, tracks: &[u8]| [&h[..], &[0; 8], &[0, count], tracks].concat();
    for (name, kind, body, what) in [
        ("cut handle", 0x13, vec![0, 0, 0], "stream handle"),
        ("stream id with a slash", 0x10, [&h[..], &[1, b'a', 3, b'a', b'/', b'b', 1, 0]].concat(), "stream id"),
        ("application not UTF-8", 0x10, [&h[..], &[1, 0xff, 1, b's', 1, 0]].concat(), "application name"),
        ("name longer than the frame", 0x10, [&h[..], &[200, b'a']].concat(), "application name"),
        ("resume neither 0 nor 1", 0x10, [&h[..], &key, &[2]].concat(), "resume"),
        (
            "33 positions",
            0x10,
            [&h[..], &key, &[1], &[0; 8], &[33]].concat(),
            "more positions than a stream has layers",
        ),
        ("positions missing", 0x10, [&h[..], &key, &[1], &[0; 8], &[2], &[0; 10]].concat(), "track"),
        ("nine tracks", 0x11, subscribed(9, &[]), "more tracks than a stream may have"),
        ("track longer than the frame", 0x11, subscribed(1, &[0xff, 0xff, 0]), "track"),
        ("track without layers", 0x11, subscribed(1, &track(&[0])), "layer count"),
        ("five layers", 0x11, subscribed(1, &track(&[5])), "layer count"),
        ("layer longer than its track", 0x11, subscribed(1, &track(&[1, 0, 9, 0, 0])), "layer"),
        ("one layer twice", 0x11, subscribed(1, &track(&[2, 0, 2, 0, 0, 0, 2, 0, 0])), "two layers with one number"),
        (
            "one track twice",
            0x11,
            subscribed(2, &[track(&[1, 0, 2, 0, 0]), track(&[1, 0, 2, 0, 0])].concat()),
            "two tracks with one number",
        ),
        ("gap inverted", 0x22, [&h[..], &[0; 6], &[0, 0, 0, 0, 0, 0, 0, 9], &[0; 8]].concat(), "range inverted"),
        ("extensions longer than the frame", 0x20, [&h[..], &[0; 23], &[0xff, 0xff]].concat(), "extensions"),
        ("extension longer than the block", 0x20, [&h[..], &[0; 23], &[0, 2, 1, 9]].concat(), "extension"),
        ("empty audio level", 0x20, [&h[..], &[0; 23], &[0, 2, 1, 0]].concat(), "audio level"),
        ("half a capture time", 0x20, [&h[..], &[0; 23], &[0, 6, 3, 4, 1, 1, 1, 1]].concat(), "capture time"),
        ("message of 4 GiB", 0x24, [&h[..], &[0, 1, b'n'], &[0; 8], &[0xff; 4]].concat(), "message over 64 KiB"),
        ("message cut", 0x24, [&h[..], &[0, 1, b'n'], &[0; 8], &[0, 0, 0, 9, 1]].concat(), "message"),
        ("sentence too long", 0x03, [&[0, 1], &[2, 1][..], &[b'x'; 513]].concat(), "sentence"),
    ] {
        match Frame::parse(&raw(kind, &body), FRAME_LEN_MAX) {
            Err(WireError::Malformed { what: found, .. }) => assert_eq!(found, what, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn what_later_versions_add_is_skipped() {
    let base = encode(&Frame::End { handle: StreamHandle(7), reason: EndReason::Finished });
    let longer = raw(base[4], &[&base[5..], b"more"].concat());
    let Ok(Parsed::Frame { frame, used }) = Frame::parse(&longer, FRAME_LEN_MAX) else { panic!("not read") };
    assert_eq!(frame, Frame::End { handle: StreamHandle(7), reason: EndReason::Finished });
    assert_eq!(used, longer.len());

    let unknown = raw(0xee, b"news");
    assert_eq!(
        Frame::parse(&unknown, FRAME_LEN_MAX),
        Ok(Parsed::Frame { frame: Frame::Unknown { kind: 0xee, body: b"news" }, used: unknown.len() })
    );

    // An unknown extension, then a known one with more behind its value.
    let body = [&[0, 0, 0, 7][..], &[0; 23], &[0, 8, 99, 2, 1, 1, 2, 2, 3, 9], b"payload"].concat();
    let bytes = raw(0x20, &body);
    let Ok(Parsed::Frame { frame: Frame::Media(media), .. }) = Frame::parse(&bytes, FRAME_LEN_MAX) else {
        panic!("not read");
    };
    assert_eq!(media.extensions.video_orientation, Some(3));
    assert_eq!(media.to_packet(Instant::now()).payload, &b"payload"[..]);

    // A track with an unknown codec is left out; track and layer elements may be longer than known.
    let element = |name: &[u8], no: u8| {
        let body = [&[no, name.len() as u8], name, &[0, 0, 1, 0, 4, 0, 0, 5, 5], b"future"].concat();
        [&(body.len() as u16).to_be_bytes()[..], &body].concat()
    };
    let body = [&[0, 0, 0, 7][..], &[0; 8], &[0xfe, 2], &element(b"av9", 0), &element(b"vp8", 1)].concat();
    let bytes = raw(0x11, &body);
    let Ok(Parsed::Frame { frame: Frame::Subscribed(subscribed), .. }) = Frame::parse(&bytes, FRAME_LEN_MAX) else {
        panic!("not read");
    };
    let codecs: Vec<_> = subscribed.tracks.tracks.iter().map(|track| (track.no.0, track.codec.codec)).collect();
    assert_eq!(codecs, [(1, Codec::Vp8)]);
    assert!(!subscribed.tracks.data_channel, "unknown flags are ignored");
}

#[test]
fn what_no_peer_would_take_is_not_written() {
    let handle = StreamHandle(1);
    let huge = vec![0; FRAME_LEN_MAX as usize];
    let media = Frame::Media(MediaFrame {
        handle,
        epoch: EpochLow(0),
        track: TrackNo(0),
        layer: LayerNo(0),
        marker: false,
        keyframe: true,
        seq: ExtSeq(0),
        timestamp: 0,
        age: Duration::from_secs(100_000),
        extensions: MediaExtensions::default(),
        payload: &huge,
    });
    let track = |fmtp: String, layers: usize| TrackInfo {
        no: TrackNo(0),
        kind: Codec::Opus.kind(),
        codec: CodecParams { codec: Codec::Opus, fmtp: fmtp.as_str().into() },
        layers: vec![LayerInfo::default(); layers],
    };
    let subscribed = |tracks| {
        let tracks = StreamTracks { tracks, data_channel: false };
        Frame::Subscribed(Subscribed { handle, epoch: Epoch(0), tracks })
    };
    for (name, frame) in [
        ("payload", media),
        ("fmtp", subscribed(vec![track("x".repeat(5_000), 1)])),
        ("no layers", subscribed(vec![track(String::new(), 0)])),
        ("five layers", subscribed(vec![track(String::new(), 5)])),
        ("nine tracks", subscribed(vec![track(String::new(), 1); 9])),
    ] {
        let mut out = BytesMut::from(&b"before"[..]);
        assert!(frame.encode_into(&mut out).is_err(), "{name}");
        assert_eq!(&out[..], b"before", "{name}: nothing of it is left in the buffer");
    }
    let sentence = "ä".repeat(400);
    let bytes = encode(&Frame::Refused(Refused { handle, code: RefuseCode::NotFound, sentence: &sentence }));
    let Ok(Parsed::Frame { frame: Frame::Refused(refused), .. }) = Frame::parse(&bytes, FRAME_LEN_MAX) else {
        panic!("not read");
    };
    assert_eq!(refused.sentence, "ä".repeat(256), "a long sentence is cut between characters");
}

#[test]
fn the_reader_skips_unknown_frames_and_stops_at_half_a_frame() {
    let mut bytes = raw(0xee, b"x");
    bytes.extend(encode(&Frame::Ping { nonce: 1 }));
    bytes.extend(raw(0xed, &[0; 500]));
    bytes.extend(raw(0xec, &[]));
    bytes.extend(encode(&Frame::Pong { nonce: 2 }));
    bytes.extend_from_slice(&encode(&Frame::Ping { nonce: 3 })[..7]);
    let mut reader = LinkReader::new((), BytesMut::from(&bytes[..]));
    assert_eq!(reader.next_frame(), Some(Ok(Frame::Ping { nonce: 1 })));
    assert_eq!(reader.next_frame(), Some(Ok(Frame::Pong { nonce: 2 })));
    assert_eq!(reader.next_frame(), None);
    assert_eq!(reader.unknown_frames(), 3);
    let mut reader = LinkReader::new((), BytesMut::from(&[0xff; 8][..]));
    assert!(matches!(reader.next_frame(), Some(Err(WireError::FrameTooLarge { .. }))), "also of an unknown type");
}
