//! A shard driven by hand: what publishers, viewers, siblings and edges get out of it.

mod harness;
mod interruption;
mod messages;
mod netsim;

use std::sync::Arc;

use ams_media::MediaPacket;
use ams_relay::wire::EndReason;
use ams_rtc::ice::IceCredentials;
use ams_rtc::rtcp::{self, SenderInfo};
use ams_rtc::rtp::HeaderFields;
use ams_rtc::transport::CloseReason;
use ams_types::{Epoch, ExtSeq, MediaKind, Pt, Ssrc};

use super::fan_out::{HOLD, HOLD_VIEWERS_MIN};
use super::protocol::{LinkId, PeerId, PullEnd, ShardCommand, ShardEvent, ShardMedia, ShardNo};
use harness::{AUDIO, Got, VIDEO, World, key, ms, payload};

const BOTH: [MediaKind; 2] = [MediaKind::Video, MediaKind::Audio];
/// The payload types viewers get: video, its RTX, audio.
const V: u8 = 96;
const RTX: u8 = 97;
const A: u8 = 111;

fn video(seqs: &[u16]) -> Vec<Vec<u8>> {
    seqs.iter().map(|seq| payload(VIDEO, *seq, *seq == seqs[0])).collect()
}

/// As [`video`], where other packets than the first are keyframes, too.
fn video_with(seqs: &[u16], keyframes: &[u16]) -> Vec<Vec<u8>> {
    seqs.iter().map(|seq| payload(VIDEO, *seq, keyframes.contains(seq))).collect()
}

fn payloads(got: &[Got]) -> Vec<Vec<u8>> {
    got.iter().map(|got| got.payload.clone()).collect()
}

/// Numbers without a gap, in order.
fn assert_numbered(got: &[Got]) {
    for pair in got.windows(2) {
        assert_eq!(pair[1].seq, pair[0].seq.wrapping_add(1), "{got:?}");
    }
}

fn closed(events: &[ShardEvent]) -> Vec<(PeerId, &CloseReason)> {
    let closed = |event| match event {
        &ShardEvent::PeerClosed { peer, ref reason } => Some((peer, reason)),
        _ => None,
    };
    events.iter().filter_map(closed).collect()
}

fn is_live(events: &[ShardEvent]) -> bool {
    events.iter().any(|event| matches!(event, ShardEvent::PublisherLive { .. }))
}

// --- live --------------------------------------------------------------------------------------------------------------

#[test]
fn a_stream_is_live_once_there_is_something_to_see_or_hear() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "both", 1, &BOTH);
    assert!(!is_live(&world.events(0)), "connected is not live");
    world.send(publisher, AUDIO, 1, 0, true);
    world.send(publisher, VIDEO, 1, 0, false);
    assert!(!is_live(&world.events(0)), "no picture can be shown yet");
    world.send(publisher, VIDEO, 2, 0, true);
    assert!(is_live(&world.events(0)));
    world.send(publisher, VIDEO, 3, 0, true);
    assert!(!is_live(&world.events(0)), "only once");

    let (publisher, _) = world.publisher(0, "sound", 1, &[MediaKind::Audio]);
    world.send(publisher, AUDIO, 1, 0, true);
    assert!(is_live(&world.events(0)), "sound alone, and nothing else was promised");

    let (publisher, _) = world.publisher(0, "camera-off", 1, &BOTH);
    world.send(publisher, AUDIO, 1, 0, true);
    assert!(!is_live(&world.events(0)));
    world.pass(ms(2000));
    world.send(publisher, AUDIO, 2, 0, true);
    assert!(is_live(&world.events(0)), "the picture does not come");

    world.publisher(0, "data", 1, &[]);
    assert!(is_live(&world.events(0)), "with a data channel alone, being connected is all there is");
}

#[test]
fn a_publisher_whose_first_picture_was_lost_is_asked_for_another() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 2, 0, false);
    assert!(!is_live(&world.events(0)));
    world.pass(ms(100));
    assert_eq!(world.clients[publisher].plis.len(), 1, "nobody watches who would ask");
    world.send(publisher, VIDEO, 3, 0, true);
    assert!(is_live(&world.events(0)));
    world.pass(ms(2000));
    assert_eq!(world.clients[publisher].plis.len(), 1, "it has begun");
}

// --- out to viewers ----------------------------------------------------------------------------------------------------

#[test]
fn a_viewer_gets_every_packet_intact_under_its_own_numbers() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 65_530, 90_000, true);
    let (viewer, peer) = world.viewer(0, "s", true);
    assert!(world.events(0).iter().any(|e| matches!(e, ShardEvent::ViewerConnected { peer: p } if *p == peer)));
    world.send(publisher, VIDEO, 65_531, 93_000, false);
    assert_eq!(payloads(&world.clients[viewer].of(V)), video(&[65_530, 65_531]), "it begins with the last keyframe");
    for (n, seq) in [65_532, 65_533, 65_534, 65_535].into_iter().enumerate() {
        world.send(publisher, VIDEO, seq, 96_000 + 3000 * n as u32, n == 0);
        world.send(publisher, AUDIO, 10 + n as u16, 960 * n as u32, true);
    }
    let (pictures, sound) = (world.clients[viewer].of(V), world.clients[viewer].of(A));
    assert_eq!(payloads(&pictures), video_with(&[65_530, 65_531, 65_532, 65_533, 65_534, 65_535], &[65_530, 65_532]));
    assert_eq!(payloads(&sound), (10..14).map(|seq| payload(AUDIO, seq, true)).collect::<Vec<_>>());
    assert_numbered(&pictures);
    assert_numbered(&sound);
    assert!(pictures.windows(2).all(|p| p[1].timestamp.wrapping_sub(p[0].timestamp) == 3000));
    assert!(pictures.iter().all(|p| p.ssrc == Ssrc(0x10_0000 + viewer as u32)));
}

#[test]
fn with_many_viewers_a_picture_goes_out_whole() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 3000, true);
    let viewers: Vec<usize> = (0..HOLD_VIEWERS_MIN).map(|_| world.viewer(0, "s", true).0).collect();
    let got = |world: &World| -> Vec<usize> { viewers.iter().map(|v| world.clients[*v].of(V).len()).collect() };
    let part = |world: &mut World, seq: u16, marker: bool| {
        let fields = HeaderFields { marker, pt: Pt(0), seq, timestamp: 6000, ssrc: VIDEO };
        world.send_rtp(publisher, u64::from(seq), fields, &payload(VIDEO, seq, false));
        world.settle();
    };
    part(&mut world, 2, false);
    part(&mut world, 3, false);
    assert_eq!(got(&world), [1; HOLD_VIEWERS_MIN], "nobody can decode half a picture");
    part(&mut world, 4, true);
    assert_eq!(got(&world), [4; HOLD_VIEWERS_MIN]);
    part(&mut world, 5, false);
    world.now += HOLD;
    world.settle();
    assert_eq!(got(&world), [5; HOLD_VIEWERS_MIN], "what follows is late: nothing waits for it any longer");
}

/// Nine seconds of pictures since the last keyframe, one packet each.
fn nine_seconds_since_a_keyframe(world: &mut World, publisher: usize) -> Vec<u16> {
    let seqs: Vec<u16> = (100..370).collect();
    for seq in &seqs {
        world.send(publisher, VIDEO, *seq, 3000 * u32::from(*seq), *seq == 100);
        world.pass(ms(33));
    }
    seqs
}

#[test]
fn who_joins_long_after_a_keyframe_catches_up_or_goes_on_with_the_next_one() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    let watcher = world.viewer(0, "s", true).0;
    let mut seqs = nine_seconds_since_a_keyframe(&mut world, publisher);

    let joiner = world.viewer(0, "s", true).0;
    assert_eq!(world.clients[publisher].plis.len(), 1, "a run this long is no good beginning");
    let begun = world.clients[joiner].of(V).len();
    assert!((1..seqs.len()).contains(&begun), "a picture at once, but not all at once: {begun}");
    world.pass(ms(2300));
    let got = world.clients[joiner].of(V);
    assert_eq!(payloads(&got), video(&seqs), "no keyframe came: the whole run");
    let steps: Vec<u32> = got.windows(2).map(|p| p[1].timestamp.wrapping_sub(p[0].timestamp)).collect();
    assert_eq!(steps, vec![750; seqs.len() - 1], "shown at four times its speed, as it was sent");
    world.send(publisher, VIDEO, 370, 3000 * 370, false);
    seqs.push(370);
    for viewer in [watcher, joiner] {
        let got = world.clients[viewer].of(V);
        assert_eq!(payloads(&got), video(&seqs));
        assert_numbered(&got);
    }

    // This one's keyframe comes before it has caught up.
    let jumper = world.viewer(0, "s", true).0;
    let begun = world.clients[jumper].of(V).len();
    world.send(publisher, VIDEO, 371, 3000 * 371, true);
    world.send(publisher, VIDEO, 372, 3000 * 372, false);
    let got = world.clients[jumper].of(V);
    assert_eq!(payloads(&got[..begun]), video(&seqs[..begun]));
    assert_eq!(payloads(&got[begun..]), video(&[371, 372]));
    assert_numbered(&got);
    world.pass(ms(500));
    assert_eq!(world.clients[jumper].of(V).len(), got.len(), "what was left of the run is not sent any more");
    assert_eq!(world.clients[watcher].of(V).len(), seqs.len() + 2, "the others are not disturbed");
}

#[test]
fn a_keyframe_whose_first_packet_comes_late_is_whole_for_who_waited() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 10, 3000, false);
    let viewer = world.viewer(0, "s", true).0;
    for seq in [12, 13, 14] {
        world.send(publisher, VIDEO, seq, 6000, false);
    }
    assert!(world.clients[viewer].of(V).is_empty(), "nothing can be shown before a keyframe");
    world.send(publisher, VIDEO, 11, 6000, true);
    world.send(publisher, VIDEO, 15, 9000, false);
    assert_eq!(payloads(&world.clients[viewer].of(V)), video(&[11, 12, 13, 14, 15]));
    assert_numbered(&world.clients[viewer].of(V));
}

#[test]
fn a_lost_packet_is_sent_again() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    let (with_rtx, _) = world.viewer(0, "s", true);
    let (without, _) = world.viewer(0, "s", false);
    for seq in 1..=5 {
        world.send(publisher, VIDEO, seq, 0, seq == 1);
    }
    for viewer in [with_rtx, without] {
        let lost = world.clients[viewer].of(V)[2].clone();
        let position = world.clients[viewer].rtp.iter().position(|got| *got == lost).unwrap();
        let raw = world.clients[viewer].raw[position].clone();
        world.send_rtcp(viewer, |out| {
            rtcp::write_nack(out, Ssrc(9), lost.ssrc, &[lost.seq]);
        });
        if viewer == with_rtx {
            let resent = world.clients[viewer].of(RTX);
            let want = [&lost.seq.to_be_bytes()[..], &lost.payload].concat();
            assert_eq!(payloads(&resent), [want], "the original number, then the payload");
            assert_eq!(resent[0].timestamp, lost.timestamp);
        } else {
            // The client's SRTP refuses it as a replay, which it can only be if number and bytes are the same.
            assert_eq!(world.clients[viewer].of(V).len(), 5);
            assert_eq!(world.clients[viewer].refused, [raw], "byte for byte: another one would give the key away");
        }
    }
    assert_eq!(world.census(0).retransmissions, 2);
}

#[test]
fn a_viewer_that_asks_for_everything_all_the_time_is_not_given_it() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    let (viewer, _) = world.viewer(0, "s", true);
    for seq in 1..=600 {
        world.send(publisher, VIDEO, seq, 0, seq == 1);
    }
    let first = world.clients[viewer].of(V)[0].clone();
    for from in (0..600).step_by(100) {
        let seqs: Vec<u16> = (from..from + 100).map(|n: u16| first.seq.wrapping_add(n)).collect();
        world.send_rtcp(viewer, |out| {
            rtcp::write_nack(out, Ssrc(9), first.ssrc, &seqs);
        });
    }
    let resent = world.clients[viewer].of(RTX).len();
    assert!((100..=256).contains(&resent), "{resent}");
}

#[test]
fn joins_and_losses_become_one_keyframe_request_per_half_second() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.replicate("s", 1, 0, 1);
    let begun = world.now;
    let viewers: Vec<usize> = (0..20).map(|n| world.viewer(n % 2, "s", true).0).collect();
    assert!(world.clients[publisher].plis.is_empty(), "the last keyframe is fresh: joins need no other");
    for round in 0..10 {
        world.pass(ms(100));
        for viewer in &viewers {
            let media = Ssrc(0x10_0000 + *viewer as u32);
            world.send_rtcp(*viewer, |out| rtcp::write_pli(out, Ssrc(9), media));
        }
        world.send(publisher, VIDEO, 2 + round, 0, false);
    }
    let asked = &world.clients[publisher].plis;
    let most = world.now.duration_since(begun).as_millis() / 500 + 1;
    assert!((2..=most).contains(&(asked.len() as u128)), "{} requests, at most {most}", asked.len());
    assert!(asked.windows(2).all(|pair| pair[1].duration_since(pair[0]) >= ms(480)), "{asked:?}");
    // The keyframe comes, and all begin.
    world.send(publisher, VIDEO, 50, 0, true);
    for viewer in viewers {
        let got = world.clients[viewer].of(V);
        assert_eq!(payloads(&got), video_with(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 50], &[1, 50]));
    }
    let before = world.clients[publisher].plis.len();
    world.pass(ms(2000));
    assert_eq!(world.clients[publisher].plis.len(), before, "nobody waits any more");
}

#[test]
fn a_source_that_starts_anew_under_another_ssrc_goes_on_for_viewers() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    let (viewer, _) = world.viewer(0, "s", true);
    world.send(publisher, VIDEO, 100, 5_000_000, true);
    world.send(publisher, VIDEO, 101, 5_003_000, false);
    world.pass(ms(100));
    let before = world.clients[publisher].plis.len();
    world.send(publisher, Ssrc(0x0005_5555), 40_000, 77, true);
    world.send(publisher, Ssrc(0x0005_5555), 40_001, 3077, false);
    let got = world.clients[viewer].of(V);
    assert_eq!(got.len(), 4);
    assert_numbered(&got);
    let steps: Vec<u32> = got.windows(2).map(|p| p[1].timestamp.wrapping_sub(p[0].timestamp)).collect();
    assert_eq!(steps, [3000, 9000, 3000], "time goes on by what has passed");
    world.pass(ms(600));
    assert!(world.clients[publisher].plis.len() > before, "the decoder needs a keyframe of the new encoder");
}

#[test]
fn viewers_get_sender_reports_as_soon_as_the_publisher_sent_one() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    let info = SenderInfo { ssrc: VIDEO, ntp: 7 << 32, rtp_timestamp: 0, packets: 1, octets: 1 };
    world.send_rtcp(publisher, |out| rtcp::write_sender_report(out, &info, &[]));
    // The replica comes after the report, and the next one would be seconds away.
    world.replicate("s", 1, 0, 1);
    let (here, _) = world.viewer(0, "s", true);
    let (there, _) = world.viewer(1, "s", true);
    world.send(publisher, VIDEO, 2, 0, true);
    world.pass(ms(300));
    for viewer in [here, there] {
        assert!(world.clients[viewer].reports > 0, "viewer {viewer}");
    }
}

// --- ends --------------------------------------------------------------------------------------------------------------

#[test]
fn what_leaves_leaves_nothing_behind() {
    let mut world = World::new(1);
    let (publisher, published) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    let (stopped, peer) = world.viewer(0, "s", true);
    let (closed_itself, _) = world.viewer(0, "s", true);
    let (vanished, _) = world.viewer(0, "s", true);
    assert_eq!((world.census(0).viewers, world.census(0).addresses), (3, 4));
    world.events(0);

    world.command(0, ShardCommand::ClosePeer { peer });
    assert_eq!(world.clients[stopped].byes, 1);
    assert!(closed(&world.events(0)).is_empty(), "whoever ordered it knows");
    let now = world.now;
    world.clients[closed_itself].peer.close(now);
    world.settle();
    let events = world.events(0);
    assert_eq!(closed(&events).iter().map(|c| c.1).collect::<Vec<_>>(), [&CloseReason::ClosedByPeer]);
    world.vanish(vanished);
    world.pass(ms(9900));
    let events = world.events(0);
    assert_eq!(closed(&events).iter().map(|c| c.1).collect::<Vec<_>>(), [&CloseReason::ConsentLost], "within 10 s");
    assert_eq!((world.census(0).viewers, world.census(0).addresses), (0, 1));

    world.vanish(publisher);
    world.pass(ms(9900));
    let events = world.events(0);
    assert_eq!(closed(&events), [(published, &CloseReason::ConsentLost)]);
    world.command(0, ShardCommand::CloseStream { key: key("s"), reason: EndReason::Finished });
    let census = world.census(0);
    assert_eq!((census.publishers, census.viewers, census.streams, census.addresses), (0, 0, 0, 0));
}

#[test]
fn a_viewer_that_never_comes_is_given_up_and_told_of() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    let (client, peer) = world.viewer_unconnected(0, "gone", true);
    let events = world.events(0);
    assert_eq!(closed(&events), [(peer, &CloseReason::ClosedHere)], "its stream ended meanwhile");
    world.vanish(client);
    // Before its first check leaves.
    let (client, peer) = world.viewer_unconnected(0, "s", true);
    world.vanish(client);
    world.pass(ms(10_200));
    let events = world.events(0);
    assert_eq!(closed(&events).iter().map(|c| c.0).collect::<Vec<_>>(), [peer]);
    assert_eq!(world.census(0).viewers, 0);
}

#[test]
fn a_peer_that_moves_all_the_time_takes_no_more_room() {
    let mut world = World::new(1);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    for port in 0..100 {
        world.clients[publisher].address.set_port(20_000 + port);
        world.pass(ms(3100));
    }
    assert!(world.census(0).addresses <= 16, "{}", world.census(0).addresses);
    world.send(publisher, VIDEO, 1, 0, true);
    assert!(is_live(&world.events(0)), "and its media is taken from where it is now");
}

#[test]
fn credentials_change_and_media_goes_on() {
    let mut world = World::new(1);
    let (publisher, peer) = world.publisher(0, "s", 1, &BOTH);
    let (mut ours, mut theirs) = (IceCredentials::random(), IceCredentials::random());
    // Twice before the client uses any of them: the first answer may have got lost.
    for _ in 0..2 {
        (ours, theirs) = (IceCredentials::random(), IceCredentials::random());
        world.command(0, ShardCommand::RestartIce { peer, local: ours.clone(), remote: theirs.clone() });
    }
    world.pass(ms(9000));
    assert!(closed(&world.events(0)).is_empty(), "the old ones work until the new ones are used");
    let now = world.now;
    world.clients[publisher].peer.restart_ice(now, theirs, ours);
    world.clients[publisher].address.set_port(33_333);
    world.pass(ms(20_000));
    world.send(publisher, VIDEO, 1, 0, true);
    assert!(is_live(&world.events(0)));
}

// --- replicas ----------------------------------------------------------------------------------------------------------

#[test]
fn a_replica_serves_viewers_of_another_shard() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.replicate("s", 1, 0, 1);
    let (viewer, _) = world.viewer(1, "s", true);
    assert_eq!(world.clients[publisher].plis.len(), 0);
    world.pass(ms(40));
    assert_eq!(world.clients[publisher].plis.len(), 1, "the join is heard where the publisher is");
    for seq in 1..=3 {
        world.send(publisher, VIDEO, seq, 3000 * u32::from(seq), seq == 1);
    }
    let got = world.clients[viewer].of(V);
    assert_eq!(payloads(&got), video(&[1, 2, 3]));
    assert_numbered(&got);

    world.command(0, ShardCommand::StopReplica { key: key("s"), to: ShardNo(1) });
    world.send(publisher, VIDEO, 4, 12_000, false);
    assert_eq!(world.clients[viewer].of(V).len(), 3);
    world.command(1, ShardCommand::CloseStream { key: key("s"), reason: EndReason::Finished });
    assert_eq!(world.clients[viewer].byes, 1);
    assert_eq!((world.census(1).streams, world.census(1).viewers, world.census(1).addresses), (0, 0, 0));
}

#[test]
fn a_replica_of_a_former_publication_gives_way() {
    let mut world = World::new(2);
    world.publisher(0, "s", 1, &BOTH);
    world.replicate("s", 1, 0, 1);
    let (publisher, _) = world.publisher(0, "s", 2, &BOTH);
    world.replicate("s", 2, 0, 1);
    let (viewer, _) = world.viewer(1, "s", true);
    world.send(publisher, VIDEO, 1, 0, true);
    assert_eq!(world.clients[viewer].of(V).len(), 1);
    assert_eq!(world.census(1).streams, 1);
}

#[test]
fn what_a_sibling_still_sends_of_a_former_publication_is_ignored() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 2, &BOTH);
    world.replicate("s", 2, 0, 1);
    let (viewer, _) = world.viewer(1, "s", true);
    world.send(publisher, VIDEO, 1, 0, true);
    let packet = {
        let core = &world.shards[0].core;
        let layer = core.streams[core.by_key[&key("s")]].layers().next().unwrap();
        layer.ring.run_since_keyframe().unwrap().next().unwrap().clone()
    };
    let late = Arc::new(MediaPacket { seq: ExtSeq(packet.seq.0 + 1), ..(*packet).clone() });
    for (epoch, want) in [(1, 1), (2, 2)] {
        let (now, packets) = (world.now, vec![Arc::clone(&late)]);
        world.shards[1].core.sibling(now, ShardMedia::Packets { key: key("s"), epoch: Epoch(epoch), packets });
        world.settle();
        assert_eq!(world.clients[viewer].of(V).len(), want, "epoch {epoch}");
    }
}

// --- relay -------------------------------------------------------------------------------------------------------------

/// Shard 1 pulls a stream that shard 0 publishes, as edge and origin.
fn pulled(world: &mut World, id: &str) -> LinkId {
    pulled_from(world, 0, id)
}

/// Shard 1 pulls a stream from the shard that publishes it.
fn pulled_from(world: &mut World, origin: usize, id: &str) -> LinkId {
    let link = world.link(origin, 1);
    world.command(1, ShardCommand::Pull { link, key: key(id) });
    let asked = world.events(origin).into_iter().find_map(|event| match event {
        ShardEvent::ServeRequested { link: l, handle, key: k } if l == link && k == key(id) => Some(handle),
        _ => None,
    });
    let handle = asked.expect("the origin was asked");
    world.command(origin, ShardCommand::Serve { link, handle, key: key(id) });
    link
}

#[test]
fn an_edge_gets_a_stream_once_and_gives_it_to_many() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.events(0);
    let link = pulled(&mut world, "s");
    let events = world.events(1);
    let here = events.iter().any(|e| {
        matches!(e, ShardEvent::Pulled { link: l, key: k, epoch, tracks }
            if *l == link && *k == key("s") && epoch.0 == 1 && tracks.tracks.len() == 2)
    });
    assert!(here, "{events:?}");
    let viewers: Vec<usize> = (0..5).map(|_| world.viewer(1, "s", true).0).collect();
    world.pass(ms(40));
    assert!(world.clients[publisher].plis.is_empty(), "the link brought the last keyframe");
    for seq in 2..=6 {
        world.send(publisher, VIDEO, seq, 3000 * u32::from(seq), seq == 2);
        world.send(publisher, AUDIO, seq, 960 * u32::from(seq), true);
    }
    for viewer in &viewers {
        let got = world.clients[*viewer].of(V);
        assert_eq!(payloads(&got), video_with(&[1, 2, 3, 4, 5, 6], &[1, 2]));
        assert_numbered(&got);
        assert_eq!(world.clients[*viewer].of(A).len(), 5);
    }
    assert_eq!(world.census(1).relay_packets_in, 11, "one copy, however many viewers");

    // The publisher leaves: the edge is told at once, and its viewers as soon as it says so.
    let close = || ShardCommand::CloseStream { key: key("s"), reason: EndReason::Finished };
    world.command(0, close());
    let events = world.events(1);
    assert!(events.iter().any(|e| matches!(e, ShardEvent::PullEnded { end: PullEnd::Stream, .. })), "{events:?}");
    world.command(1, close());
    assert!(viewers.iter().all(|v| world.clients[*v].byes == 1));
    for shard in [0, 1] {
        let census = world.census(shard);
        assert_eq!((census.streams, census.viewers, census.addresses, census.served), (0, 0, 0, 0), "shard {shard}");
    }
}

#[test]
fn an_edge_lets_go_and_may_come_back() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.events(0);
    let link = world.link(0, 1);
    for round in 0..3 {
        world.command(1, ShardCommand::Pull { link, key: key("s") });
        let handle = world.events(0).into_iter().find_map(|event| match event {
            ShardEvent::ServeRequested { handle, .. } => Some(handle),
            _ => None,
        });
        world.command(0, ShardCommand::Serve { link, handle: handle.unwrap(), key: key("s") });
        assert_eq!((world.census(0).served, world.census(1).streams), (1, 1), "round {round}");
        world.command(1, ShardCommand::CloseStream { key: key("s"), reason: EndReason::Finished });
        assert_eq!((world.census(0).served, world.census(1).streams), (0, 0), "round {round}");
        let events = world.events(0);
        assert!(matches!(events[..], [ShardEvent::ServeEnded { .. }]), "{events:?}");
    }
    // A pull that is given up before it is answered is not answered later.
    world.command(1, ShardCommand::Pull { link, key: key("s") });
    world.command(1, ShardCommand::CloseStream { key: key("s"), reason: EndReason::Finished });
    world.events(1);
    let events = world.events(0);
    let [ShardEvent::ServeRequested { handle, .. }, ShardEvent::ServeEnded { .. }] = events[..] else {
        panic!("{events:?}");
    };
    world.command(0, ShardCommand::Serve { link, handle, key: key("s") });
    assert_eq!((world.census(0).served, world.census(1).streams), (0, 0));
    assert!(world.events(1).is_empty());
}

#[test]
fn a_broken_link_leaves_viewers_to_be_ended_or_taken_over() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.events(0);
    let link = pulled(&mut world, "s");
    let (viewer, _) = world.viewer(1, "s", true);
    world.cut(link);
    assert_eq!(world.clients[viewer].byes, 0);
    assert_eq!((world.census(0).served, world.census(1).streams, world.census(1).viewers), (0, 1, 1));
    world.events(1);
    world.command(1, ShardCommand::Pull { link, key: key("s") });
    let events = world.events(1);
    let on_a_dead_link = matches!(events[..], [ShardEvent::PullEnded { end: PullEnd::Way, .. }]);
    assert!(on_a_dead_link, "{events:?}");
    world.command(1, ShardCommand::CloseStream { key: key("s"), reason: EndReason::PublisherLost });
    assert_eq!(world.clients[viewer].byes, 1);
    assert_eq!((world.census(1).streams, world.census(1).viewers), (0, 0));
}

#[test]
fn a_late_answer_to_a_pull_leaves_a_publisher_of_the_same_id_alone() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.events(0);
    let link = world.link(0, 1);
    world.command(1, ShardCommand::Pull { link, key: key("s") });
    let (ours, _) = world.publisher(1, "s", 2, &BOTH);
    let handle = world.events(0).into_iter().find_map(|event| match event {
        ShardEvent::ServeRequested { handle, .. } => Some(handle),
        _ => None,
    });
    world.command(0, ShardCommand::Serve { link, handle: handle.unwrap(), key: key("s") });
    assert_eq!((world.census(1).publishers, world.census(1).streams), (1, 1));
    assert_eq!(world.census(0).served, 0, "it was let go again");
    world.events(1);
    world.send(ours, VIDEO, 1, 0, true);
    assert!(is_live(&world.events(1)));
}

#[test]
fn at_the_end_everybody_hears_of_it() {
    let mut world = World::new(2);
    let (publisher, _) = world.publisher(0, "s", 1, &BOTH);
    world.send(publisher, VIDEO, 1, 0, true);
    world.events(0);
    pulled(&mut world, "s");
    let (at_origin, _) = world.viewer(0, "s", true);
    let (at_edge, _) = world.viewer(1, "s", true);
    let now = world.now;
    world.shards[0].core.stop(now);
    world.settle();
    assert!(!world.clients[publisher].peer.is_connected(), "close_notify");
    assert_eq!(
        (world.clients[at_origin].byes, world.clients[at_edge].byes),
        (1, 0),
        "the edge may find another origin"
    );
    let events = world.events(1);
    assert!(events.iter().any(|e| matches!(e, ShardEvent::PullEnded { end: PullEnd::Way, .. })), "{events:?}");
}
