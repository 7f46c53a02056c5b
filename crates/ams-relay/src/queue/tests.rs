//! What a slow link drops, and what it never drops.

use super::*;
use crate::wire::{EndReason, FRAME_LEN_MAX, MediaFrame, Parsed};
use ams_types::{ExtSeq, NodeId};
use std::io::IoSlice;

const VIDEO: (u8, u8) = (1, 0);
const AUDIO: (u8, u8) = (0, 0);
const HANDLE: StreamHandle = StreamHandle(1);
const EPOCH: Epoch = Epoch(1);

fn packet(at: Instant, (track, layer): (u8, u8), seq: u64, keyframe: bool, len: usize) -> Arc<MediaPacket> {
    Arc::new(MediaPacket {
        track: TrackNo(track),
        layer: LayerNo(layer),
        seq: ExtSeq(seq),
        timestamp: seq as u32,
        marker: true,
        keyframe,
        sublayer: None,
        extensions: Default::default(),
        payload: Bytes::from(vec![seq as u8; len]),
        ingest_at: at,
        age: Duration::ZERO,
    })
}

fn queue(limits: QueueLimits) -> EgressQueue {
    let mut queue = EgressQueue::new(limits);
    for handle in 1..=3 {
        assert!(queue.open(StreamHandle(handle)));
    }
    queue
}

fn kind(track: TrackNo) -> char {
    if track.0 == AUDIO.0 { 'a' } else { 'v' }
}

/// What arrives at the peer, shortened: `v10` and `a10` packets, `gap v5-9` gaps, other frames by name.
fn arrived(bytes: &[u8]) -> Vec<String> {
    let mut rest = bytes;
    let mut all = Vec::new();
    while let Parsed::Frame { frame, used } = Frame::parse(rest, FRAME_LEN_MAX).unwrap() {
        all.push(match frame {
            Frame::Media(MediaFrame { track, seq, .. }) => format!("{}{}", kind(track), seq.0),
            Frame::Gap(Gap { track, from, to, .. }) => format!("gap {}{}-{}", kind(track), from.0, to.0),
            other => other.name().to_owned(),
        });
        rest = &rest[used..];
    }
    assert!(rest.is_empty(), "half a frame");
    all
}

fn take_bytes(out: &mut WriteBuf) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let set = out.slices(&mut slices);
        let batch: Vec<u8> = slices[..set].iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.extend_from_slice(&batch);
        out.advance(batch.len());
    }
    bytes
}

fn drain(queue: &mut EgressQueue, now: Instant) -> Vec<String> {
    let mut bytes = Vec::new();
    let mut out = WriteBuf::new();
    while queue.fill(now, &mut out) > 0 {
        bytes.extend(take_bytes(&mut out));
    }
    assert!(queue.is_empty());
    arrived(&bytes)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_link_in_time_delivers_all_in_order() {
    let now = Instant::now();
    let mut queue = queue(QueueLimits::default());
    for seq in 0..4 {
        assert_eq!(queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000)), Pushed::Queued);
        queue.push_media(now, HANDLE, EPOCH, &packet(now, AUDIO, seq, true, 80));
    }
    queue.push_control(&Frame::Ping { nonce: 1 }).unwrap();
    assert_eq!(drain(&mut queue, now + ms(299)), ["Ping", "v0", "a0", "v1", "a1", "v2", "a2", "v3", "a3"]);
    let stats = queue.stream_stats(HANDLE).unwrap();
    assert_eq!((stats.sent_packets, stats.sent_bytes, stats.dropped_packets), (8, 4 * 1_080, 0));
    assert_eq!((stats.queued_packets, stats.queued_bytes), (0, 0));
    assert_eq!(queue.poll_keyframe_want(), None);
}

#[test]
fn a_slow_reader_gets_a_gap_and_the_next_keyframe_and_audio_goes_on() {
    let start = Instant::now();
    let mut queue = queue(QueueLimits::default());
    let at = |seq: u64| start + ms(20 * seq);
    // Nothing is sent for a second; a keyframe comes at 0 and 40.
    for seq in 0..50 {
        queue.push_media(at(seq), HANDLE, EPOCH, &packet(at(seq), VIDEO, seq, seq % 40 == 0, 1_000));
        queue.push_media(at(seq), HANDLE, EPOCH, &packet(at(seq), AUDIO, seq, true, 80));
    }
    assert_eq!(queue.poll_keyframe_want(), Some(LayerRef { handle: HANDLE, track: TrackNo(1), layer: LayerNo(0) }));
    let got = drain(&mut queue, at(50));
    let of = |kind: char| got.iter().filter(|g| g.trim_start_matches("gap ").starts_with(kind)).collect::<Vec<_>>();
    let mut video = vec!["gap v0-39".to_owned()];
    video.extend((40..50).map(|seq| format!("v{seq}")));
    assert_eq!(of('v'), video.iter().collect::<Vec<_>>());
    let mut audio = vec!["gap a0-34".to_owned()];
    audio.extend((35..50).map(|seq| format!("a{seq}")));
    assert_eq!(of('a'), audio.iter().collect::<Vec<_>>(), "audio of the last 300 ms is kept");
    let stats = queue.stats();
    assert_eq!(stats.dropped_packets, 40 + 35);
    assert_eq!(stats.queued_bytes, 0);
}

#[test]
fn memory_is_bounded_and_other_streams_are_untouched() {
    let now = Instant::now();
    let limits = QueueLimits { stream_bytes_max: 100_000, ..QueueLimits::default() };
    let mut queue = queue(limits);
    for seq in 0..10_000 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
        assert!(queue.stream_stats(HANDLE).unwrap().queued_bytes <= 100_000);
        if seq % 200 == 0 {
            queue.push_media(now, StreamHandle(2), EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
        }
    }
    assert_eq!(queue.stream_stats(StreamHandle(2)).unwrap().dropped_packets, 0);
    assert_eq!(queue.stream_stats(StreamHandle(2)).unwrap().queued_packets, 50);
    assert_eq!(queue.stream_stats(HANDLE).unwrap().queued_packets, 0, "no keyframe, so nothing is worth sending");
    assert_eq!(queue.stream_stats(HANDLE).unwrap().dropped_packets, 10_000);
    // The next keyframe brings it back, announced.
    queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, 10_000, true, 1_000));
    let got = drain(&mut queue, now);
    assert!(got.contains(&"gap v0-9999".to_owned()) && got.contains(&"v10000".to_owned()), "{got:?}");
    assert_eq!(got.len(), 52);
}

#[test]
fn the_link_limit_makes_the_hot_stream_drop_and_not_the_others() {
    let now = Instant::now();
    let limits = QueueLimits { stream_bytes_max: 1_000_000, link_bytes_max: 300_000, ..QueueLimits::default() };
    let mut queue = queue(limits);
    for seq in 0..250 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
    }
    for seq in 0..90 {
        queue.push_media(now, StreamHandle(2), EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
    }
    for seq in 250..300 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, false, 1_000));
    }
    assert!(queue.stats().queued_bytes <= 300_000);
    assert_eq!(queue.stream_stats(StreamHandle(2)).unwrap().dropped_packets, 0);
    assert_eq!(queue.stream_stats(HANDLE).unwrap().queued_packets, 0);
}

#[test]
fn a_hot_stream_does_not_delay_a_quiet_one() {
    let now = Instant::now();
    let mut queue = queue(QueueLimits::default());
    for seq in 0..1_000 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
    }
    queue.push_media(now, StreamHandle(2), EPOCH, &packet(now, AUDIO, 0, true, 80));
    let mut out = WriteBuf::new();
    queue.fill(now, &mut out);
    let first = arrived(&take_bytes(&mut out));
    let place = first.iter().position(|g| g == "a0").expect("the quiet stream is in the first batch");
    assert!(place <= 9, "behind one turn of the hot stream, not behind all of it: {place}");
}

#[test]
fn late_packets_of_a_dropped_run_stay_out() {
    let now = Instant::now();
    let limits = QueueLimits { stream_bytes_max: 5_000, ..QueueLimits::default() };
    let mut queue = queue(limits);
    for seq in 0..6 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
    }
    assert_eq!(queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, 9, true, 1_000)), Pushed::Queued);
    let late = queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, 7, false, 1_000));
    assert_eq!(late, Pushed::Dropped, "its frame was dropped");
    queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, 10, false, 1_000));
    assert_eq!(drain(&mut queue, now), ["gap v0-7", "v9", "v10"]);
}

#[test]
fn a_new_publication_numbers_anew() {
    let now = Instant::now();
    let limits = QueueLimits { stream_bytes_max: 5_000, ..QueueLimits::default() };
    let mut queue = queue(limits);
    for seq in 1_000..1_010 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 1_000, 1_000));
    }
    assert_eq!(queue.push_media(now, HANDLE, Epoch(2), &packet(now, VIDEO, 1, false, 1_000)), Pushed::Dropped);
    assert_eq!(queue.push_media(now, HANDLE, Epoch(2), &packet(now, VIDEO, 2, true, 1_000)), Pushed::Queued);
    assert_eq!(drain(&mut queue, now), ["gap v1-1", "v2"], "the gap of the old numbers is not told");
}

#[test]
fn a_missing_keyframe_is_asked_for_once_a_second() {
    let start = Instant::now();
    let limits = QueueLimits { stream_bytes_max: 5_000, ..QueueLimits::default() };
    let mut queue = queue(limits);
    let mut wants = 0;
    for seq in 0..350 {
        let now = start + ms(10 * seq);
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
        wants += std::iter::from_fn(|| queue.poll_keyframe_want()).count();
    }
    assert_eq!(wants, 4, "in three and a half seconds");
}

#[test]
fn control_frames_are_never_dropped_and_their_pile_up_ends_the_link() {
    let now = Instant::now();
    let mut queue = queue(QueueLimits { control_bytes_max: 100, ..QueueLimits::default() });
    queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, 0, true, 1_000));
    for nonce in 0..7 {
        queue.push_control(&Frame::Ping { nonce }).unwrap();
    }
    let error = queue.push_control(&Frame::Ping { nonce: 7 }).unwrap_err();
    assert!(matches!(error, RelayError::ControlOverflow { queued: 104, max: 100 }), "{error}");
    assert_eq!(drain(&mut queue, now + Duration::from_secs(9)), ["Ping"; 7], "old media is gone, control is not");
}

#[test]
fn a_closed_stream_leaves_nothing_behind() {
    let now = Instant::now();
    let mut queue = queue(QueueLimits::default());
    for seq in 0..5 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq, seq == 0, 1_000));
    }
    queue.push_control(&Frame::End { handle: HANDLE, reason: EndReason::Finished }).unwrap();
    assert!(queue.close(HANDLE).is_some());
    assert_eq!(queue.stats().queued_bytes, 0);
    assert_eq!(queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, 5, true, 10)), Pushed::NoSuchStream);
    assert_eq!(drain(&mut queue, now), ["End"]);
    let mut full = EgressQueue::new(QueueLimits { streams_max: 1, ..QueueLimits::default() });
    assert!(full.open(StreamHandle(1)) && full.open(StreamHandle(1)));
    assert!(!full.open(StreamHandle(2)));
}

#[test]
fn messages_wait_bounded_and_only_the_newest_timing_is_sent() {
    let now = Instant::now();
    let mut queue = queue(QueueLimits { stream_data_bytes_max: 3_000, ..QueueLimits::default() });
    let from_node: NodeId = "edge-1".parse().unwrap();
    let payload = [7; 1_000];
    let message = DataMessage { handle: HANDLE, binary: true, from_node, from_peer: 1, payload: &payload };
    assert_eq!(queue.push_data(&message), Ok(Pushed::Queued));
    assert_eq!(queue.push_data(&message), Ok(Pushed::Queued));
    assert_eq!(queue.push_data(&message), Ok(Pushed::Dropped));
    assert_eq!(queue.stats().dropped_messages, 1);
    let huge = vec![0; 64 * 1024 + 1];
    assert!(queue.push_data(&DataMessage { payload: &huge, ..message.clone() }).is_err());
    for rtp in 0..3 {
        let clock = SourceClock { ntp: 1, rtp, learned_at: now };
        queue.push_timing(HANDLE, EPOCH, TrackNo(1), LayerNo(0), clock);
    }
    queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, 0, true, 1_000));
    assert_eq!(drain(&mut queue, now), ["Timing", "DataMessage", "DataMessage", "v0"]);
}

#[test]
fn the_time_spent_here_is_told() {
    let now = Instant::now();
    let mut queue = queue(QueueLimits::default());
    queue.push_media(now, HANDLE, Epoch(0x7_0000_0003), &packet(now, VIDEO, 0, true, 1_000));
    let mut out = WriteBuf::new();
    queue.fill(now + Duration::from_micros(1_234), &mut out);
    let bytes = take_bytes(&mut out);
    let Ok(Parsed::Frame { frame: Frame::Media(media), .. }) = Frame::parse(&bytes, FRAME_LEN_MAX) else {
        panic!("no media");
    };
    assert_eq!(media.age, Duration::from_micros(1_234));
    assert_eq!(media.epoch, EpochLow(3));
    assert_eq!(media.payload.len(), 1_000);
}

#[test]
fn more_layers_than_a_stream_can_have_are_dropped() {
    let now = Instant::now();
    let mut queue = queue(QueueLimits::default());
    for layer in 0..=255 {
        queue.push_media(now, HANDLE, EPOCH, &packet(now, (0, layer), 0, true, 10));
    }
    assert_eq!(queue.stream_stats(HANDLE).unwrap().dropped_packets, 256 - LANES_MAX as u64);
}

proptest::proptest! {
    /// Whatever is pushed and whenever it is drained: what arrives of a layer is in order, every hole in it is
    /// announced, and after a hole video goes on at a keyframe.
    #[test]
    fn holes_are_announced_and_end_at_a_keyframe(
        steps in proptest::collection::vec((0u64..80, 0u32..12, proptest::bool::ANY), 1..400),
    ) {
        let mut now = Instant::now();
        let mut queue = queue(QueueLimits { stream_bytes_max: 30_000, ..QueueLimits::default() });
        let mut got = Vec::new();
        for (seq, (wait, keyframe, drained)) in steps.iter().enumerate() {
            now += ms(*wait);
            let keyframe = seq == 0 || *keyframe == 0;
            // The payload's length tells the reader whether it is a keyframe.
            let len = if keyframe { 2_000 } else { 1_000 };
            queue.push_media(now, HANDLE, EPOCH, &packet(now, VIDEO, seq as u64, keyframe, len));
            proptest::prop_assert!(queue.stats().queued_bytes <= 30_000);
            if *drained {
                let mut out = WriteBuf::new();
                queue.fill(now, &mut out);
                got.extend(take_bytes(&mut out));
            }
        }
        let mut next = 0;
        let mut rest = &got[..];
        while let Parsed::Frame { frame, used } = Frame::parse(rest, FRAME_LEN_MAX).unwrap() {
            match frame {
                Frame::Gap(gap) => {
                    proptest::prop_assert_eq!(gap.from.0, next);
                    next = gap.to.0 + 1;
                    let Parsed::Frame { frame: Frame::Media(media), .. } =
                        Frame::parse(&rest[used..], FRAME_LEN_MAX).unwrap() else { panic!("gap without a packet") };
                    proptest::prop_assert_eq!(media.seq.0, next);
                    proptest::prop_assert_eq!(media.payload.len(), 2_000, "goes on at a keyframe");
                }
                Frame::Media(media) => {
                    proptest::prop_assert_eq!(media.seq.0, next);
                    next += 1;
                }
                other => panic!("{other:?}"),
            }
            rest = &rest[used..];
        }
    }
}
