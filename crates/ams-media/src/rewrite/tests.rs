//! Tables and properties of the rewriter.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::{ms, packet, start};

const A: Source = Source { run: 0, layer: LayerNo(0) };
const B: Source = Source { run: 0, layer: LayerNo(1) };

/// A rewriter that begins at number 10 and timestamp 1000.
fn rewriter() -> SequenceRewriter {
    SequenceRewriter::new(90_000, 10, 1000)
}

/// What a test does to a rewriter.
#[derive(Clone, Copy)]
enum Do {
    Switch(Source, u64),
    Packet(Source, u64),
    Skip(u64),
}
use Do::{Packet, Skip, Switch};

/// The viewer numbers given out; a refused packet is `None`.
fn numbers(steps: &[Do]) -> Vec<Option<u64>> {
    let (mut rewriter, now) = (rewriter(), start());
    let mut numbers = Vec::new();
    for step in steps {
        let (source, seq) = match *step {
            Switch(source, seq) => {
                assert!(rewriter.switch_source(now, source, &packet(seq, 0, now)));
                (source, seq)
            }
            Packet(source, seq) => (source, seq),
            Skip(seq) => {
                let source = rewriter.source().unwrap();
                rewriter.skip(source, ExtSeq(seq), true);
                continue;
            }
        };
        numbers.push(rewriter.rewrite(source, &packet(seq, 0, now)).map(|r| r.seq.0));
    }
    numbers
}

#[test]
fn viewer_numbers() {
    let n = |numbers: &[u64]| numbers.iter().map(|n| Some(*n)).collect::<Vec<_>>();
    for (name, steps, want) in [
        ("nothing before the first switch", &[Packet(A, 5)][..], vec![None]),
        ("in order", &[Switch(A, 5), Packet(A, 6), Packet(A, 7)], n(&[10, 11, 12])),
        ("late", &[Switch(A, 5), Packet(A, 7), Packet(A, 6)], n(&[10, 12, 11])),
        ("duplicate", &[Switch(A, 5), Packet(A, 6), Packet(A, 6)], vec![Some(10), Some(11), None]),
        ("before the first", &[Switch(A, 5), Packet(A, 4)], vec![Some(10), None]),
        ("source wraps", &[Switch(A, 65_535), Packet(A, 65_536), Packet(A, 65_537)], n(&[10, 11, 12])),
        ("other source", &[Switch(A, 5), Packet(B, 6)], vec![Some(10), None]),
        ("switch", &[Switch(A, 5), Packet(A, 6), Switch(B, 900), Packet(B, 901)], n(&[10, 11, 12, 13])),
        (
            "switch with a hole before it",
            &[Switch(A, 5), Packet(A, 8), Switch(B, 900), Packet(A, 6), Packet(B, 901)],
            vec![Some(10), Some(13), Some(14), None, Some(15)],
        ),
        (
            "before the switch, new source",
            &[Switch(A, 5), Switch(B, 900), Packet(B, 899)],
            vec![Some(10), Some(11), None],
        ),
        (
            "there and back",
            &[Switch(A, 5), Switch(B, 9), Switch(A, 7), Packet(A, 6)],
            vec![Some(10), Some(11), Some(12), None],
        ),
        (
            "pause of one source",
            &[Switch(A, 5), Packet(A, 7), Switch(A, 50), Packet(A, 6), Packet(A, 51)],
            vec![Some(10), Some(12), Some(13), None, Some(14)],
        ),
        ("skipped", &[Switch(A, 5), Skip(6), Packet(A, 7), Packet(A, 8)], n(&[10, 11, 12])),
        (
            "skipped, then sent after all",
            &[Switch(A, 5), Skip(6), Packet(A, 7), Packet(A, 6)],
            vec![Some(10), Some(11), None],
        ),
        ("several skipped", &[Switch(A, 5), Skip(6), Skip(7), Packet(A, 8)], n(&[10, 11])),
        ("skipped after a hole", &[Switch(A, 5), Skip(7), Packet(A, 8), Packet(A, 6)], n(&[10, 12, 11])),
        ("skipped too late", &[Switch(A, 5), Packet(A, 7), Skip(6), Packet(A, 8)], n(&[10, 12, 13])),
        ("skip then switch", &[Switch(A, 5), Skip(7), Switch(B, 1), Packet(A, 6)], vec![Some(10), Some(11), None]),
        ("skip of the first", &[Switch(A, 5), Packet(A, 6), Skip(7), Skip(8), Switch(B, 1)], n(&[10, 11, 12])),
        ("widest gap kept", &[Switch(A, 5), Packet(A, 6 + GAP_KEPT_MAX)], n(&[10, 11 + GAP_KEPT_MAX])),
        (
            "wider gap closed",
            &[Switch(A, 5), Packet(A, 7 + GAP_KEPT_MAX), Packet(A, 9), Packet(A, 8 + GAP_KEPT_MAX)],
            vec![Some(10), Some(11), None, Some(12)],
        ),
        (
            "wide gap behind a skip behind a hole",
            &[Switch(A, 5), Skip(7), Packet(A, 5000), Packet(A, 6), Packet(A, 5001)],
            n(&[10, 12, 11, 13]),
        ),
        ("no packet's number", &[Switch(A, 5), Packet(A, u64::MAX), Packet(A, 6)], vec![Some(10), None, Some(11)]),
    ] {
        assert_eq!(numbers(steps), want, "{name}");
    }
}

#[test]
fn the_first_number_leaves_room_below_the_first_wrap() {
    let mut rewriter = SequenceRewriter::new(90_000, 0xffff, 0);
    assert!(rewriter.switch_source(start(), A, &packet(1, 0, start())));
    let first = rewriter.rewrite(A, &packet(1, 0, start())).unwrap();
    assert_eq!((first.seq.low16(), first.rollover_counter()), (0x7fff, 0));
    let mut last = first;
    for seq in 2..70_000 {
        last = rewriter.rewrite(A, &packet(seq, 0, start())).unwrap();
    }
    assert_eq!((last.seq.low16(), last.rollover_counter()), (((0x7fff + 69_998) % 65_536) as u16, 1));
}

#[test]
fn an_old_packet_cannot_begin_the_same_source_anew() {
    let (mut rewriter, now) = (rewriter(), start());
    assert!(rewriter.switch_source(now, A, &packet(5, 0, now)));
    assert!(rewriter.rewrite(A, &packet(8, 0, now)).is_some());
    assert!(!rewriter.switch_source(now, A, &packet(7, 0, now)));
    assert!(
        rewriter.switch_source(now, Source { run: 1, ..A }, &packet(7, 0, now)),
        "a new run has numbers of its own"
    );
}

#[test]
fn timestamps_go_on() {
    let begin = start();
    // (source, seq, timestamp, ingest in ms) → viewer timestamp; the first of a source switches to it.
    for (name, packets, want) in [
        ("one source", &[(A, 1, 500, 0), (A, 2, 3500, 33)][..], &[1000, 4000][..]),
        ("wraps", &[(A, 1, u32::MAX, 0), (A, 2, 2999, 33)], &[1000, 4000]),
        ("switch after 20 ms", &[(A, 1, 500, 0), (B, 9, 777_777, 20), (B, 10, 780_777, 53)], &[1000, 2800, 5800]),
        ("switch at once", &[(A, 1, 500, 0), (B, 9, 777_777, 0)], &[1000, 1001]),
        ("and back", &[(A, 1, 500, 0), (B, 9, 0, 10), (A, 4, 9500, 30)], &[1000, 1900, 3700]),
        ("late packet keeps its own", &[(A, 1, 500, 0), (A, 3, 6500, 66), (A, 2, 3500, 70)], &[1000, 7000, 4000]),
    ] {
        let mut rewriter = rewriter();
        let mut got = Vec::new();
        for (source, seq, timestamp, at) in packets {
            let packet = packet(*seq, *timestamp, begin + ms(*at));
            if rewriter.source() != Some(*source) {
                assert!(rewriter.switch_source(packet.ingest_at, *source, &packet));
            }
            got.push(rewriter.rewrite(*source, &packet).unwrap().timestamp);
        }
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_pause_of_one_source_keeps_its_timeline() {
    let (mut rewriter, begin) = (rewriter(), start());
    assert!(rewriter.switch_source(begin, A, &packet(1, 500, begin)));
    rewriter.rewrite(A, &packet(1, 500, begin)).unwrap();
    // Taken in 5 s later by this node, but 6 s later by the source's own clock: that is the one to believe.
    let after = packet(900, 500 + 540_000, begin + ms(5000));
    assert!(rewriter.switch_source(after.ingest_at, A, &after));
    assert_eq!(rewriter.rewrite(A, &after).unwrap().timestamp, 541_000);
    assert_eq!(rewriter.timestamp(500), Some(1000));
}

#[test]
fn a_run_of_the_past_is_caught_up_with() {
    let (mut rewriter, begin) = (rewriter(), start());
    // A run of 3 s, 25 pictures a second, sent a good second long; then live pictures, then another source.
    let now = begin + ms(3000);
    assert!(rewriter.switch_source(now, A, &packet(0, 0, begin)));
    let mut all = Vec::new();
    for n in 0..150u64 {
        let packet = packet(n, n as u32 * 3600, begin + ms(40 * n));
        let rewritten = rewriter.rewrite(A, &packet).unwrap();
        let again = rewriter.source_of(rewritten.seq.low16()).unwrap().rewritten(&packet);
        assert_eq!(again, rewritten, "sent again it is the same");
        all.push(rewritten.timestamp);
        assert_eq!(
            rewriter.timestamp(packet.timestamp + 270_000),
            Some(1000 + packet.timestamp + 3 * 90_000 - 270_000)
        );
    }
    let steps: Vec<u32> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps[..100].iter().all(|step| *step == 900) && steps[100..].iter().all(|step| *step == 3600), "{steps:?}");
    // The last live picture was taken in 2.96 s after the viewer began.
    assert_eq!(all[149] - all[0], 2960 * 90);
    let other = packet(9, 77, begin + ms(6000));
    assert!(rewriter.switch_source(begin + ms(6000), B, &other));
    assert_eq!(rewriter.rewrite(B, &other).map(|r| r.timestamp), Some(1000 + 3000 * 90));
}

#[test]
fn what_was_sent_in_the_past_is_the_same_for_ever() {
    let (mut rewriter, now) = (rewriter(), start());
    // Ten pictures a second, the first 300 ms old; each is sent as soon as it is there.
    let of_the_past = |n: u64| {
        let age = ms(300u64.saturating_sub(n * 75));
        MediaPacket { age, ..packet(n, n as u32 * 9000, now + ms(100 * n)) }
    };
    let mut sent = Vec::new();
    for n in 0..40 {
        let packet = of_the_past(n);
        if n == 0 {
            assert!(rewriter.switch_source(now, A, &packet));
        }
        sent.push((rewriter.rewrite(A, &packet).unwrap(), packet));
        for (first, packet) in &sent {
            let again = rewriter.source_of(first.seq.low16()).unwrap();
            assert_eq!(again.rewritten(packet), *first, "picture {n}");
        }
    }
}

#[test]
fn a_new_keyframe_ends_the_past() {
    let (mut rewriter, begin) = (rewriter(), start());
    let now = begin + ms(5000);
    assert!(rewriter.switch_source(now, A, &packet(0, 0, begin)));
    for n in 0..15u64 {
        rewriter.rewrite(A, &packet(n, n as u32 * 3600, begin + ms(40 * n))).unwrap();
    }
    // 15 pictures at four times their speed took 150 ms; then a live one comes that the viewer can begin anew with.
    let key = packet(129, 129 * 3600, begin + ms(5160));
    assert!(rewriter.switch_source(begin + ms(5160), A, &key));
    assert_eq!(rewriter.rewrite(A, &key).map(|r| r.timestamp), Some(1000 + 160 * 90));
    let next = packet(130, 130 * 3600, begin + ms(5200));
    assert_eq!(rewriter.rewrite(A, &next).map(|r| r.timestamp), Some(1000 + 200 * 90));
}

#[test]
fn viewer_numbers_lead_back_to_source_packets() {
    let (mut rewriter, now) = (rewriter(), start());
    assert_eq!(rewriter.source_of(10), None, "nothing was sent");
    for (source, seq) in [(A, 5), (A, 7), (B, 900)] {
        let packet = packet(seq, 0, now);
        if rewriter.source() != Some(source) {
            assert!(rewriter.switch_source(now, source, &packet));
        }
        rewriter.rewrite(source, &packet).unwrap();
    }
    for (name, asked, want) in [
        ("first", 10, Some((A, 5, true))),
        ("hole", 11, Some((A, 6, false))),
        ("before the switch", 12, Some((A, 7, true))),
        ("after the switch", 13, Some((B, 900, true))),
        ("not yet given out", 14, None),
        ("before the first", 9, None),
    ] {
        let found = rewriter.source_of(asked).map(|p| (p.source, p.seq.0, p.sent));
        assert_eq!(found, want, "{name}");
    }
}

#[test]
fn ranges_are_bounded() {
    let (mut rewriter, now) = (rewriter(), start());
    for n in 0..1000 {
        let source = if n % 2 == 0 { A } else { B };
        assert!(rewriter.switch_source(now, source, &packet(n, 0, now)));
        rewriter.rewrite(source, &packet(n, 0, now)).unwrap();
    }
    assert_eq!(rewriter.ranges.len(), RANGES_MAX);
    assert!(rewriter.source_of(10 + 999).is_some() && rewriter.source_of(10).is_none());
}

/// One thing that happens to a viewer's track.
#[derive(Clone, Debug)]
enum Event {
    /// The next packet of the present source.
    Next,
    /// So many packets are lost; they may come later.
    Lose(u16),
    /// A packet that many numbers back comes (again).
    Late(u16),
    /// The next packet is left out on purpose.
    Skip,
    /// The viewer is switched to a layer, or paused and resumed on its own.
    Switch(u8),
    /// The publisher starts anew.
    Restart,
}

fn event(with_loss: bool) -> impl Strategy<Value = Event> {
    let lossless = prop_oneof![
        20 => Just(Event::Next),
        2 => Just(Event::Skip),
        2 => (0u8..3).prop_map(Event::Switch),
        1 => Just(Event::Restart),
    ];
    if !with_loss {
        return lossless.boxed();
    }
    prop_oneof![
        20 => lossless,
        3 => (1u16..700).prop_map(Event::Lose),
        8 => (1u16..900).prop_map(Event::Late),
    ]
    .boxed()
}

/// A packet that was given to the viewer.
struct Given {
    packet: (Source, u64),
    as_: Rewritten,
    in_order: bool,
}

/// Plays events to a rewriter, which is returned with what it gave out.
fn play(start_seq: u16, events: &[Event]) -> (SequenceRewriter, Vec<Given>) {
    let begin = start();
    let mut rewriter = SequenceRewriter::new(90_000, start_seq, u32::MAX - 5000);
    let mut source = A;
    // Each source counts for itself, starting near a wrap of the wire's numbers.
    let mut counts: HashMap<Source, u64> = HashMap::new();
    let mut out = Vec::new();
    let mut switch = true;
    for (tick, event) in events.iter().enumerate() {
        let at = begin + ms(10 * tick as u64);
        let next = counts.entry(source).or_insert(131_060);
        let (seq, in_order) = match event {
            Event::Next => (*next, true),
            Event::Lose(count) => {
                *next += u64::from(*count);
                continue;
            }
            Event::Late(back) => (*next - u64::from(*back), false),
            Event::Skip => {
                if !switch {
                    rewriter.skip(source, ExtSeq(*next), true);
                }
                *next += 1;
                continue;
            }
            Event::Switch(layer) => {
                source.layer = LayerNo(*layer);
                switch = true;
                continue;
            }
            Event::Restart => {
                source.run += 1;
                switch = true;
                continue;
            }
        };
        *next = (*next).max(seq + 1);
        let timestamp = (seq as u32).wrapping_mul(900).wrapping_add(u32::from(source.layer.0) * 0x5000_0000);
        let packet = packet(seq, timestamp, at);
        if switch && in_order {
            assert!(rewriter.switch_source(at, source, &packet));
            switch = false;
        }
        if let Some(rewritten) = rewriter.rewrite(source, &packet) {
            out.push(Given { packet: (source, seq), as_: rewritten, in_order });
        }
    }
    (rewriter, out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn without_loss_numbers_rise_by_one_however_layers_switch(seq: u16, events in vec(event(false), 1..300)) {
        let (_, out) = play(seq, &events);
        for pair in out.windows(2) {
            prop_assert_eq!(pair[0].as_.seq.0 + 1, pair[1].as_.seq.0);
            prop_assert!(is_ahead(pair[0].as_.timestamp + 1, pair[1].as_.timestamp), "time stands still or runs back");
        }
    }

    #[test]
    fn a_number_stands_for_one_packet_for_ever(seq: u16, events in vec(event(true), 1..400)) {
        let (rewriter, out) = play(seq, &events);
        let mut by_number = HashMap::new();
        for given in &out {
            prop_assert!(by_number.insert(given.as_.seq.0, given.packet).is_none(), "given out twice");
        }
        // What a NACK finds is the packet that was sent under that number, or one that never was.
        let newest = out.iter().map(|given| given.as_.seq.0).max().unwrap_or(0);
        for number in newest.saturating_sub(3000)..=newest {
            if let Some(found) = rewriter.source_of(ExtSeq(number).low16()) && found.viewer_seq.0 == number {
                prop_assert_eq!(found.sent, by_number.contains_key(&number));
                if let Some(packet) = by_number.get(&number) {
                    prop_assert_eq!((found.source, found.seq.0), *packet);
                }
            }
        }
    }

    #[test]
    fn in_order_packets_never_step_back(seq: u16, events in vec(event(true), 1..400)) {
        let (_, out) = play(seq, &events);
        let in_order: Vec<_> = out.iter().filter(|given| given.in_order).collect();
        for pair in in_order.windows(2) {
            prop_assert!(pair[0].as_.seq < pair[1].as_.seq);
            prop_assert!(is_ahead(pair[0].as_.timestamp, pair[1].as_.timestamp));
        }
    }
}
