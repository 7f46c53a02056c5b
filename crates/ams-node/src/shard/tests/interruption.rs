//! A stream's source goes and another comes: what its viewers get.

use ams_relay::wire::{EpochLow, Frame, Gap, StreamHandle};

use super::*;
use crate::shard::stream::Source;

/// Media of one publication, recognisable by its numbers: a keyframe and pictures after it.
fn play(world: &mut World, publisher: usize, from: u16) {
    for seq in from..from + 10 {
        world.send(publisher, VIDEO, seq, 3000 * u32::from(seq), seq == from);
        world.send(publisher, AUDIO, seq, 960 * u32::from(seq), true);
        world.pass(ms(33));
    }
}

/// What a viewer got is one track without a seam: numbers follow each other, time only moves on, and at the same pace as
/// the clock on the wall.
fn assert_seamless(got: &[Got], from: usize, clock: u32, silence: u64) {
    assert_numbered(got);
    for pair in got.windows(2) {
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(step > 0 && step < u32::MAX / 2, "{got:?}");
    }
    let step = u64::from(got[from].timestamp.wrapping_sub(got[from - 1].timestamp)) * 1000 / u64::from(clock);
    assert!(step.abs_diff(silence) < 150, "{step} ms of silence instead of {silence}");
}

#[test]
fn viewers_go_on_with_another_origin_in_the_same_connection() {
    let mut world = World::of(&["origin-a", "edge", "origin-b"]);
    let (first, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(first, VIDEO, 99, 297_000, true);
    let link = pulled_from(&mut world, 0, "s");
    let (viewer, _) = world.viewer(1, "s", true);
    play(&mut world, first, 100);
    world.events(1);
    let before = (world.clients[viewer].of(V).len(), world.clients[viewer].of(A).len());

    world.cut(link);
    world.pass(ms(1500));
    let (second, _) = world.publisher(2, "s", 2, &BOTH);
    // Numbers and timestamps of another publication; the first packet that comes is no keyframe.
    world.send(second, VIDEO, 7, 21_000, false);
    pulled_from(&mut world, 2, "s");
    let back = world.events(1).iter().any(|e| matches!(e, ShardEvent::Pulled { epoch: Epoch(2), .. }));
    assert!(back);
    world.send(second, VIDEO, 8, 24_000, false);
    assert_eq!(world.clients[viewer].of(V).len(), before.0, "nothing that it could not decode");
    play(&mut world, second, 9);
    let client = &world.clients[viewer];
    assert_eq!(client.byes, 0);
    let (video, audio) = (client.of(V), client.of(A));
    let mut want = video_with(&(100..110).collect::<Vec<_>>(), &[100]);
    want.extend(video_with(&(9..19).collect::<Vec<_>>(), &[9]));
    assert_eq!(payloads(&video[before.0 - 10..]), want);
    assert_eq!(audio.len(), 20);
    assert_seamless(&video, before.0, 90_000, 1533);
    assert_seamless(&audio, before.1, 48_000, 1533);
}

#[test]
fn a_publisher_that_comes_back_here_takes_its_viewers_on_every_shard() {
    let mut world = World::new(2);
    let (first, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(first, VIDEO, 99, 297_000, true);
    let tracks = Arc::clone(&world.shards[0].core.streams[world.shards[0].core.by_key[&key("s")]].tracks);
    let replica = |epoch, home: u16| ShardCommand::AddReplica {
        key: key("s"),
        home: ShardNo(home),
        epoch: Epoch(epoch),
        tracks: Arc::clone(&tracks),
    };
    let feed = |to: u16| ShardCommand::FeedReplica { key: key("s"), to: ShardNo(to) };
    world.command(1, replica(1, 0));
    world.command(0, feed(1));
    let viewers = [world.viewer(0, "s", true).0, world.viewer(1, "s", false).0];
    play(&mut world, first, 100);
    let before = viewers.map(|viewer| world.clients[viewer].of(V).len());

    for shard in [0, 1] {
        world.command(shard, ShardCommand::Interrupt { key: key("s"), reason: EndReason::PublisherLost });
    }
    assert!(!world.clients[first].peer.is_connected(), "the former source is closed");
    world.pass(ms(1000));
    let (second, _) = world.publisher(1, "s", 2, &BOTH);
    world.command(0, replica(2, 1));
    world.command(1, feed(0));
    play(&mut world, second, 20);
    for (viewer, before) in viewers.into_iter().zip(before) {
        let got = world.clients[viewer].of(V);
        assert_eq!(got.len(), before + 10);
        assert_seamless(&got, before, 90_000, 1033);
        assert_eq!(world.clients[viewer].byes, 0);
    }
    assert_eq!((world.census(0).viewers, world.census(1).viewers), (1, 1));
    assert_eq!((world.census(0).publishers, world.census(1).publishers), (0, 1), "the former one is gone");
}

#[test]
fn a_viewer_that_cannot_decode_the_new_publication_is_told_of() {
    let mut world = World::new(1);
    let (first, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(first, VIDEO, 99, 297_000, true);
    let (viewer, peer) = world.viewer(0, "s", true);
    play(&mut world, first, 100);
    world.events(0);
    world.command(0, ShardCommand::Interrupt { key: key("s"), reason: EndReason::PublisherLost });
    // Track 0 was video; now it is sound.
    world.publisher(0, "s", 2, &[MediaKind::Audio]);
    let events = world.events(0);
    assert!(events.iter().any(|e| matches!(e, ShardEvent::ViewerUnfit { peer: p } if *p == peer)), "{events:?}");
    assert_eq!(world.clients[viewer].byes, 0, "its end is the control runtime's to say");
}

#[test]
fn what_is_asked_for_again_after_the_source_changed_is_not_answered_with_other_bytes() {
    for fits in [true, false] {
        let mut world = World::new(1);
        let (first, _) = world.publisher(0, "s", 1, &BOTH);
        world.send(first, VIDEO, 99, 297_000, true);
        // Without RTX what is sent again goes out under its own number: other bytes there would give the key away.
        let (viewer, _) = world.viewer(0, "s", false);
        play(&mut world, first, 100);
        let got = world.clients[viewer].of(V);
        let (ssrc_there, asked) = (got[0].ssrc, got.iter().map(|got| got.seq).collect::<Vec<u16>>());
        world.command(0, ShardCommand::Interrupt { key: key("s"), reason: EndReason::PublisherLost });
        let kinds: &[MediaKind] = if fits { &BOTH } else { &[MediaKind::Audio] };
        let (second, _) = world.publisher(0, "s", 2, kinds);
        let ssrc = if fits { VIDEO } else { AUDIO };
        for seq in 100..105 {
            world.send(second, ssrc, seq, 3000, false);
        }
        let before = world.clients[viewer].rtp.len();
        world.send_rtcp(viewer, |out| {
            rtcp::write_nack(out, Ssrc(9), ssrc_there, &asked);
        });
        world.pass(ms(200));
        assert_eq!(world.clients[viewer].rtp.len(), before, "fits: {fits}");
    }
}

#[test]
fn a_gap_of_the_link_is_no_gap_for_viewers() {
    let mut world = World::of(&["origin", "edge"]);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    let link = pulled(&mut world, "s");
    let (viewer, _) = world.viewer(1, "s", true);
    world.pass(ms(40));
    let now = world.now;
    let gap = |from: u64, to: u64, world: &mut World| {
        let stream = &world.shards[1].core.streams[world.shards[1].core.by_key[&key("s")]];
        let Source::Link(_, handle) = stream.source else { panic!("{:?}", stream.source) };
        // Numbers as they are on the link.
        let base = stream.layers().find(|l| l.track.0 == 0).unwrap().ring.keyframe_start().unwrap().0 & !0xffff;
        let gap = Gap {
            handle: StreamHandle(handle),
            epoch: EpochLow::from(stream.epoch),
            track: ams_types::TrackNo(0),
            layer: ams_types::LayerNo(0),
            from: ExtSeq(base + from),
            to: ExtSeq(base + to),
        };
        world.shards[1].core.frame(now, link, Frame::Gap(gap)).unwrap();
    };
    world.send(publisher, VIDEO, 2, 3000, false);
    gap(3, 40, &mut world);
    world.send(publisher, VIDEO, 41, 123_000, true);
    world.send(publisher, VIDEO, 42, 126_000, false);
    // One that came too late for the link, long ago for viewers.
    gap(7, 7, &mut world);
    world.send(publisher, VIDEO, 43, 129_000, false);
    world.pass(ms(40));
    let got = world.clients[viewer].of(V);
    assert_eq!(payloads(&got), video_with(&[1, 2, 41, 42, 43], &[1, 41]));
    assert_numbered(&got);
}
