//! Contract: a publication's life, and who has a say in it.

use ams_types::{Epoch, Incarnation};
use mongodb::bson::doc;
use serde_json::json;

use super::bench::{Bench, NOW, app, claim_by, key, live_at, node};
use crate::record::{broadcast, stream_info};
use crate::{
    BroadcastRecord, ClaimError, ClaimRequest, Grant, LeftoverRequest, Leftovers, PublishType, ReleaseReason, Released,
    Status, StreamQuality, Takeover,
};

fn refused(answer: Result<crate::Claim, ClaimError>) -> crate::Holder {
    match answer {
        Err(ClaimError::InUse(holder)) => *holder,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(super) async fn an_unknown_id_gets_a_record_that_goes_with_its_publication(bench: &Bench) {
    assert!(bench.a.lookup(&key("s"), NOW).await.unwrap().is_none());
    let named = ClaimRequest {
        name: Some("a name".into()),
        meta_data: Some("words".into()),
        publish_type: PublishType::Rtmp,
        ..claim_by("a", "s")
    };
    let claim = bench.a.claim(named).await.unwrap();
    assert!(claim.zombi && claim.previous.is_none());
    assert_eq!(claim.grant, Grant::NoRecord);

    let preparing = bench.b.lookup(&key("s"), NOW).await.unwrap().unwrap();
    assert_eq!(preparing.status, Status::Preparing);
    assert_eq!(preparing.epoch, claim.lease.epoch);
    assert!(!preparing.is_live());
    let origin = preparing.origin.unwrap();
    assert_eq!((origin.host.as_str(), origin.port), ("10.0.0.a", None), "no relay port before media flows");

    bench.a.mark_live(&claim.lease, live_at(NOW + 100)).await.unwrap();
    let live = bench.b.lookup(&key("s"), NOW + 100).await.unwrap().unwrap();
    assert!(live.is_live());
    let origin = live.origin.unwrap();
    assert_eq!((origin.host.as_str(), origin.port), ("10.0.0.a", Some(5000)));
    assert_eq!(live.infos.len(), 1);
    assert_eq!(live.infos[0].height, 720);
    assert_eq!(live.infos[0].stream_id, "s");
    let record = live.broadcast;
    assert_eq!(record.start_time, NOW + 100);
    assert_eq!(record.absolute_start_time_ms, NOW + 100);
    assert_eq!(record.date, NOW);
    assert_eq!(record.publish_type.as_deref(), Some("WebRTC"));
    assert_eq!(record.name.as_deref(), Some("a name"));
    assert_eq!(record.meta_data.as_deref(), Some("words"));
    assert_eq!(record.remote_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(record.owner_node(), Some(node("a")));
    assert_eq!(record.owner_incarnation(), Some(Incarnation(1)));

    let released = bench.a.release(&claim.lease, ReleaseReason::Finished, NOW + 200).await.unwrap();
    assert_eq!(released, Released::Deleted);
    assert!(bench.b.lookup(&key("s"), NOW + 200).await.unwrap().is_none());
    assert!(bench.fetch(broadcast::COLLECTION, "s").await.is_empty());
    assert!(bench.fetch(stream_info::COLLECTION, "s").await.is_empty());
}

pub(super) async fn a_record_made_by_rest_outlives_its_publications(bench: &Bench) {
    let made = BroadcastRecord {
        status: Some("created".into()),
        name: Some("ours".into()),
        webrtc_viewer_limit: 50,
        ..BroadcastRecord::default()
    };
    assert!(bench.a.create_broadcast(&key("s"), &made).await.unwrap());
    for (round, reason, end) in [
        (0, ReleaseReason::Finished, Status::Finished),
        (1, ReleaseReason::TerminatedUnexpectedly, Status::TerminatedUnexpectedly),
    ] {
        let at = NOW + round * 1000;
        let claim = bench.a.claim(ClaimRequest { now_ms: at, ..claim_by("a", "s") }).await.unwrap();
        assert!(!claim.zombi);
        assert_eq!(claim.grant, Grant::NotHeld);
        assert_eq!(claim.previous.unwrap().name.as_deref(), Some("ours"));
        bench.a.mark_live(&claim.lease, live_at(at)).await.unwrap();
        let set = bench.a.set_viewer_count(&key("s"), Some(claim.lease.epoch), 7).await.unwrap();
        assert!(set);
        assert_eq!(bench.a.release(&claim.lease, reason, at + 10).await.unwrap(), Released::Ended);
        let after = bench.b.lookup(&key("s"), at + 10).await.unwrap().unwrap();
        assert_eq!(after.status, end);
        assert_eq!(after.broadcast.webrtc_viewer_count, 0, "nobody watches a stream that ended");
        assert_eq!(after.broadcast.webrtc_viewer_limit, 50);
        assert_eq!(after.broadcast.name.as_deref(), Some("ours"));
        assert!(after.infos.is_empty() && after.origin.is_none());
    }
}

pub(super) async fn an_id_that_is_held_is_refused_and_the_holder_named(bench: &Bench) {
    let claim = bench.a.claim(claim_by("a", "s")).await.unwrap();
    for (name, live, status) in [("preparing", false, Status::Preparing), ("live", true, Status::Broadcasting)] {
        if live {
            bench.a.mark_live(&claim.lease, live_at(NOW)).await.unwrap();
        }
        let late = ClaimRequest { now_ms: NOW + 19_999, ..claim_by("b", "s") };
        let holder = refused(bench.b.claim(late).await);
        assert_eq!(holder.node, Some(node("a")), "{name}");
        assert_eq!(holder.incarnation, Some(Incarnation(1)), "{name}");
        assert_eq!(holder.host.as_deref(), Some("10.0.0.a"), "{name}");
        assert_eq!(holder.session.as_deref(), Some("session-a"), "{name}");
        assert_eq!(holder.epoch, claim.lease.epoch, "{name}");
        assert_eq!(holder.status, status, "{name}");
    }
    let other_session = ClaimRequest { session: "another".into(), ..claim_by("a", "s") };
    assert_eq!(refused(bench.a.claim(other_session).await).epoch, claim.lease.epoch, "also on the same node");
    assert!(bench.a.heartbeat(&claim.lease, NOW, &StreamQuality::default()).await.is_ok(), "refusals cost nothing");
}

pub(super) async fn a_stale_publication_can_be_taken_and_then_has_no_say(bench: &Bench) {
    let old = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&old, live_at(NOW)).await.unwrap();
    let at = NOW + 20_000;
    let seen = bench.b.lookup(&key("s"), at).await.unwrap().unwrap();
    assert_eq!(seen.status, Status::TerminatedUnexpectedly);
    assert!(seen.origin.is_none(), "nowhere to pull from");

    let claim = bench.b.claim(ClaimRequest { now_ms: at, ..claim_by("b", "s") }).await.unwrap();
    let new = claim.lease;
    assert_eq!(claim.grant, Grant::NotHeld);
    assert!(claim.zombi, "still nobody but publishers made the record");
    assert!(new.epoch > old.epoch);
    bench.b.mark_live(&new, live_at(at)).await.unwrap();

    let quality = StreamQuality { width: Some(1), ..StreamQuality::default() };
    for (name, answer) in [
        ("heartbeat", bench.a.heartbeat(&old, at, &quality).await.map(|_| ())),
        ("mark_live", bench.a.mark_live(&old, live_at(at)).await),
        ("release", bench.a.release(&old, ReleaseReason::Finished, at).await.map(|_| ())),
    ] {
        assert!(matches!(answer, Err(ClaimError::Lost { epoch }) if epoch == old.epoch), "{name}: {answer:?}");
    }
    let seen = bench.a.lookup(&key("s"), at).await.unwrap().unwrap();
    assert!(seen.is_live());
    assert_eq!(seen.broadcast.width, 1280);
    assert_eq!(seen.origin.unwrap().host, "10.0.0.b");
    assert_eq!(seen.infos.len(), 1, "renditions of the old publication are gone");
}

pub(super) async fn a_restarted_node_takes_its_streams_back_at_once(bench: &Bench) {
    let old = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&old, live_at(NOW)).await.unwrap();
    let restarted =
        ClaimRequest { incarnation: Incarnation(2), host: "10.0.0.new".into(), now_ms: NOW + 1, ..claim_by("a", "s") };
    let claim = bench.b.claim(restarted).await.unwrap();
    assert_eq!(claim.grant, Grant::NodeRestarted);
    assert!(claim.lease.epoch > old.epoch);
    let lost = bench.a.heartbeat(&old, NOW + 2, &StreamQuality::default()).await;
    assert!(matches!(lost, Err(ClaimError::Lost { .. })), "{lost:?}");
    assert!(bench.fetch(stream_info::COLLECTION, "s").await.is_empty(), "the earlier run's renditions are gone");
}

pub(super) async fn a_claim_whose_answer_was_lost_can_be_repeated(bench: &Bench) {
    let first = bench.a.claim(claim_by("a", "s")).await.unwrap();
    let again = bench.a.claim(claim_by("a", "s")).await.unwrap();
    assert_eq!(again.grant, Grant::SameSession);
    assert!(again.zombi);
    assert!(again.lease.epoch > first.lease.epoch);
    bench.a.mark_live(&again.lease, live_at(NOW)).await.unwrap();
}

pub(super) async fn a_dead_nodes_stream_can_be_taken_at_once(bench: &Bench) {
    let old = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&old, live_at(NOW)).await.unwrap();
    let knowing = |incarnation| ClaimRequest {
        takeover: Takeover::FromDead { node: node("a"), incarnation: Incarnation(incarnation) },
        ..claim_by("b", "s")
    };
    refused(bench.b.claim(knowing(9)).await);
    let claim = bench.b.claim(knowing(1)).await.unwrap();
    assert_eq!(claim.grant, Grant::OwnerDead);
    assert!(claim.lease.epoch > old.epoch);
}

pub(super) async fn a_newcomer_may_replace_exactly_one_publication(bench: &Bench) {
    let old = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    let replacing = |epoch| ClaimRequest { takeover: Takeover::FromEpoch(epoch), ..claim_by("b", "s") };
    refused(bench.b.claim(replacing(Epoch(old.epoch.0 - 1))).await);
    let claim = bench.b.claim(replacing(old.epoch)).await.unwrap();
    assert_eq!(claim.grant, Grant::Replaced);
    refused(bench.a.claim(ClaimRequest { takeover: Takeover::FromEpoch(old.epoch), ..claim_by("c", "s") }).await);
}

pub(super) async fn epochs_rise_over_deletion_and_a_clock_that_runs_back(bench: &Bench) {
    let mut last = Epoch(0);
    for (name, now_ms) in [
        ("first", NOW),
        ("same time", NOW),
        ("an hour back", NOW - 3_600_000),
        ("1970", 0),
        ("before 1970", -1),
        ("forward again", NOW + 1),
    ] {
        let claim = bench.a.claim(ClaimRequest { now_ms, ..claim_by("a", "s") }).await.unwrap();
        assert!(claim.lease.epoch > last, "{name}: {} after {last}", claim.lease.epoch);
        last = claim.lease.epoch;
        let released = bench.b.release(&claim.lease, ReleaseReason::Finished, now_ms).await.unwrap();
        assert_eq!(released, Released::Deleted, "{name}");
    }
}

pub(super) async fn another_program_that_takes_a_stream_over_ends_our_lease(bench: &Bench) {
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    // It knows nothing of our fields and leaves them as they are.
    let takes_over = doc! { "originAdress": "10.0.0.ams", "status": "broadcasting", "updateTime": NOW + 30_000 };
    bench.meddle("s", takes_over).await;
    let lost = bench.a.heartbeat(&lease, NOW + 30_000, &StreamQuality::default()).await;
    assert!(matches!(lost, Err(ClaimError::Lost { .. })), "{lost:?}");
    let lost = bench.a.release(&lease, ReleaseReason::Finished, NOW + 30_000).await;
    assert!(matches!(lost, Err(ClaimError::Lost { .. })), "{lost:?}");
    let restarted = ClaimRequest { incarnation: Incarnation(2), now_ms: NOW + 30_000, ..claim_by("a", "s") };
    let holder = refused(bench.a.claim(restarted).await);
    assert_eq!((holder.node, holder.host.as_deref()), (None, Some("10.0.0.ams")));
}

pub(super) async fn a_stream_ended_by_others_cannot_be_confirmed(bench: &Bench) {
    let made = BroadcastRecord { status: Some("created".into()), ..BroadcastRecord::default() };
    bench.a.create_broadcast(&key("s"), &made).await.unwrap();
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.meddle("s", doc! { "status": "finished" }).await;
    let lost = bench.a.heartbeat(&lease, NOW, &StreamQuality::default()).await;
    assert!(matches!(lost, Err(ClaimError::Lost { .. })), "{lost:?}");
    let released = bench.a.release(&lease, ReleaseReason::Finished, NOW).await.unwrap();
    assert_eq!(released, Released::Ended, "ending what has ended is no fault");

    bench.a.delete_broadcast(&key("s")).await.unwrap();
    let lost = bench.a.release(&lease, ReleaseReason::Finished, NOW).await;
    assert!(matches!(lost, Err(ClaimError::Lost { .. })), "{lost:?}");
}

pub(super) async fn publications_nobody_confirms_are_found_and_can_be_ended(bench: &Bench) {
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    // Of another program, and ended long ago.
    let theirs = doc! { "streamId": "theirs", "status": "broadcasting", "updateTime": 5_i64, "originAdress": "a" };
    bench.plant(broadcast::COLLECTION, theirs).await;
    let ended =
        doc! { "streamId": "ended", "status": "finished", "updateTime": 5_i64, "amsEpoch": 7_i64, "originAdress": "a" };
    bench.plant(broadcast::COLLECTION, ended).await;
    let stale_at = async |at| bench.b.find_stale(&app(), at).await.unwrap();
    assert_eq!(stale_at(NOW + 19_999).await, []);
    assert_eq!(stale_at(NOW + 20_000).await, [(lease.clone(), NOW)]);
    bench.a.heartbeat(&lease, NOW + 20_000, &StreamQuality::default()).await.unwrap();
    assert_eq!(stale_at(NOW + 39_999).await, []);
    let (found, at) = stale_at(NOW + 40_000).await.pop().unwrap();
    assert_eq!(at, NOW + 20_000);
    bench.b.release(&found, ReleaseReason::TerminatedUnexpectedly, NOW + 40_000).await.unwrap();
    assert_eq!(stale_at(NOW + 60_000).await, []);
    assert!(bench.a.get_broadcast(&key("s")).await.unwrap().is_none(), "no REST call had made it");
}

pub(super) async fn a_heartbeat_tells_of_a_record_that_was_set_back(bench: &Bench) {
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    // As a restore from a copy of the time between the two leaves it.
    bench.meddle("s", doc! { "status": "preparing" }).await;
    let quality = StreamQuality::default();
    assert_eq!(bench.a.heartbeat(&lease, NOW + 5000, &quality).await.unwrap(), Status::Preparing);
    bench.a.mark_live(&lease, live_at(NOW + 5000)).await.unwrap();
    assert_eq!(bench.a.heartbeat(&lease, NOW + 10_000, &quality).await.unwrap(), Status::Broadcasting);
}

pub(super) async fn a_heartbeat_changes_only_what_it_names(bench: &Bench) {
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    bench.meddle("s", doc! { "theirs": 1 }).await;
    let quality = StreamQuality {
        bitrate: Some(1_234_567),
        speed: Some(1.5),
        packets_lost: Some(3),
        webrtc_viewers: Some(-4),
        ..StreamQuality::default()
    };
    assert_eq!(bench.a.heartbeat(&lease, NOW + 10_000, &quality).await.unwrap(), Status::Broadcasting);
    let stored = bench.fetch(broadcast::COLLECTION, "s").await.pop().unwrap();
    for (name, want) in [
        ("updateTime", json!(NOW + 10_000)),
        ("startTime", json!(NOW)),
        ("bitrate", json!(1_234_567)),
        ("speed", json!(1.5)),
        ("packetsLost", json!(3)),
        ("webRTCViewerCount", json!(0)),
        ("width", json!(1280)),
        ("theirs", json!(1)),
    ] {
        assert_eq!(stored.get(name), Some(&want), "{name}");
    }
    let seen = bench.b.lookup(&key("s"), NOW + 29_999).await.unwrap().unwrap();
    assert!(seen.is_live(), "a confirmed stream stays live");
}

pub(super) async fn a_dead_nodes_stream_can_be_ended_by_any_node(bench: &Bench) {
    let claim = bench.a.claim(claim_by("a", "s")).await.unwrap();
    bench.a.mark_live(&claim.lease, live_at(NOW)).await.unwrap();
    let seen = bench.b.lookup(&key("s"), NOW).await.unwrap().unwrap();
    let lease = seen.lease(key("s")).unwrap();
    assert_eq!(lease, claim.lease);
    bench.b.release(&lease, ReleaseReason::TerminatedUnexpectedly, NOW).await.unwrap();
    assert!(bench.a.lookup(&key("s"), NOW).await.unwrap().is_none());

    // One that another program left behind has no epoch.
    bench
        .plant(
            broadcast::COLLECTION,
            doc! { "streamId": "t", "status": "broadcasting", "updateTime": NOW, "originAdress": "10.0.0.ams" },
        )
        .await;
    bench.plant(stream_info::COLLECTION, doc! { "streamId": "t", "host": "10.0.0.ams", "originPort": 5000 }).await;
    let seen = bench.b.lookup(&key("t"), NOW).await.unwrap().unwrap();
    let released = bench.b.release(&seen.lease(key("t")).unwrap(), ReleaseReason::Finished, NOW).await.unwrap();
    assert_eq!(released, Released::Ended);
    assert!(bench.fetch(stream_info::COLLECTION, "t").await.is_empty());
}

pub(super) async fn leftovers_of_an_earlier_run_are_cleaned(bench: &Bench) {
    let made = BroadcastRecord { status: Some("created".into()), ..BroadcastRecord::default() };
    bench.a.create_broadcast(&key("made"), &made).await.unwrap();
    for (by, stream_id) in [("a", "zombi"), ("a", "made"), ("b", "other")] {
        let claim = bench.a.claim(claim_by(by, stream_id)).await.unwrap();
        bench.a.mark_live(&claim.lease, live_at(NOW)).await.unwrap();
        bench.a.set_viewer_count(&key(stream_id), None, 5).await.unwrap();
    }
    let request = LeftoverRequest {
        apps: vec![app(), "other".parse().unwrap()],
        node: node("a"),
        incarnation: Incarnation(2),
        host: "10.0.0.a".into(),
        origin_port: 5000,
        now_ms: NOW + 1,
    };
    let cleaned = bench.b.clean_own_leftovers(&request).await.unwrap();
    assert_eq!((cleaned.deleted, cleaned.finished, cleaned.infos_deleted), (1, 1, 2));
    let mut ended: Vec<&str> = cleaned.ended.iter().map(|ended| ended.key.id.as_str()).collect();
    ended.sort_unstable();
    assert_eq!(ended, ["made", "zombi"]);
    assert!(bench.a.lookup(&key("zombi"), NOW).await.unwrap().is_none());
    let finished = bench.a.lookup(&key("made"), NOW).await.unwrap().unwrap();
    assert_eq!((finished.status, finished.broadcast.webrtc_viewer_count), (Status::Finished, 0));
    let other = bench.a.lookup(&key("other"), NOW).await.unwrap().unwrap();
    assert!(other.is_live() && other.infos.len() == 1, "another node's stream goes on");
    assert_eq!(bench.b.clean_own_leftovers(&request).await.unwrap(), Leftovers::default(), "once is enough");
}
