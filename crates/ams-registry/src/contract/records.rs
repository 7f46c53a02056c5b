//! Contract: finding, listing and editing records.

use ams_types::{AppName, Epoch, StreamId, StreamKey};
use mongodb::bson::doc;
use serde_json::json;

use super::bench::{Bench, NOW, app, claim_by, id, key, live_at};
use crate::record::{broadcast, stream_info};
use crate::{BroadcastRecord, ClaimError, ClaimRequest, RegistryError, ReleaseReason, Status, StreamQuality, Upserted};

fn named(name: &str) -> BroadcastRecord {
    BroadcastRecord { name: Some(name.into()), status: Some("created".into()), ..BroadcastRecord::default() }
}

pub(super) async fn an_upsert_says_what_it_did(bench: &Bench) {
    assert_eq!(bench.a.upsert_broadcast(&key("s"), &named("one")).await.unwrap(), Upserted::Created);
    assert_eq!(bench.b.upsert_broadcast(&key("s"), &named("one")).await.unwrap(), Upserted::Unchanged);
    assert_eq!(bench.a.upsert_broadcast(&key("s"), &named("two")).await.unwrap(), Upserted::Changed);
    let unnamed = BroadcastRecord { name: None, ..named("") };
    assert_eq!(bench.a.upsert_broadcast(&key("s"), &unnamed).await.unwrap(), Upserted::Changed);
    let stored = bench.a.get_broadcast(&key("s")).await.unwrap().unwrap();
    assert_eq!((stored.stream_id.as_str(), stored.name.as_deref()), ("s", None));
    assert_eq!(stored.effective_status(NOW), Status::Created);
    assert!(!bench.a.create_broadcast(&key("s"), &named("three")).await.unwrap());
    assert_eq!(bench.a.get_broadcast(&key("s")).await.unwrap().unwrap().name, None, "the one that is there stays");
}

pub(super) async fn an_upsert_leaves_a_running_publication_alone(bench: &Bench) {
    let before = named("before");
    bench.a.create_broadcast(&key("s"), &before).await.unwrap();
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    // As REST does it: read before the publication began, written while it runs.
    let edited = BroadcastRecord { name: Some("after".into()), zombi: true, ..before };
    assert_eq!(bench.b.upsert_broadcast(&key("s"), &edited).await.unwrap(), Upserted::Changed);
    let seen = bench.a.lookup(&key("s"), NOW).await.unwrap().unwrap();
    assert!(seen.is_live());
    assert_eq!(seen.broadcast.name.as_deref(), Some("after"));
    assert_eq!(seen.epoch, lease.epoch);
    assert!(!seen.broadcast.zombi);
    bench.a.heartbeat(&lease, NOW, &StreamQuality::default()).await.unwrap();
}

pub(super) async fn unknown_fields_outlive_every_write(bench: &Bench) {
    bench
        .plant(
            broadcast::COLLECTION,
            doc! {
                "streamId": "s", "status": "created", "name": "theirs",
                "conferenceMode": "mcu", "subTrackStreamIds": ["a", "b"], "plugin": { "deep": [1, { "er": 2.5 }] },
            },
        )
        .await;
    let check = async |step: &str| {
        let stored = bench.fetch(broadcast::COLLECTION, "s").await.pop().unwrap();
        for (name, want) in [
            ("conferenceMode", json!("mcu")),
            ("subTrackStreamIds", json!(["a", "b"])),
            ("plugin", json!({ "deep": [1, { "er": 2.5 }] })),
        ] {
            assert_eq!(stored.get(name), Some(&want), "{name} after {step}");
        }
    };
    let record = bench.a.get_broadcast(&key("s")).await.unwrap().unwrap();
    assert_eq!(record.extra.get("conferenceMode"), Some(&json!("mcu")));
    assert_eq!(record.to_rest_json(NOW).get("plugin"), Some(&json!({ "deep": [1, { "er": 2.5 }] })));
    let edited = BroadcastRecord { name: Some("ours".into()), ..record };
    bench.a.upsert_broadcast(&key("s"), &edited).await.unwrap();
    check("an upsert").await;
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    check("a claim").await;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    check("going live").await;
    bench.a.heartbeat(&lease, NOW, &StreamQuality::default()).await.unwrap();
    check("a heartbeat").await;
    bench.a.set_viewer_count(&key("s"), None, 1).await.unwrap();
    check("counting viewers").await;
    bench.a.release(&lease, ReleaseReason::Finished, NOW).await.unwrap();
    check("a release").await;

    // A record moved to another id takes them along, but not what belongs to the old one.
    let record = bench.a.get_broadcast(&key("s")).await.unwrap().unwrap();
    bench.a.create_broadcast(&key("t"), &record).await.unwrap();
    let copy = bench.a.get_broadcast(&key("t")).await.unwrap().unwrap();
    assert_eq!(copy.stream_id, "t");
    assert_eq!(copy.extra.get("conferenceMode"), Some(&json!("mcu")));
}

pub(super) async fn lists_are_ordered_bounded_and_counted(bench: &Bench) {
    for n in 0..60 {
        bench.a.create_broadcast(&key(&format!("s{n:02}")), &named("x")).await.unwrap();
    }
    assert_eq!(bench.b.count_broadcasts(&app()).await.unwrap(), 60);
    for (name, offset, size, first, len) in [
        ("the first page", 0, 10, Some("s00"), 10),
        ("a later page", 20, 10, Some("s20"), 10),
        ("never more than 50", 0, 1000, Some("s00"), 50),
        ("the last page", 55, 10, Some("s55"), 5),
        ("past the end", 60, 10, None, 0),
        ("far past the end", usize::MAX, 10, None, 0),
        ("nothing", 0, 0, None, 0),
    ] {
        let page = bench.a.list_broadcasts(&app(), offset, size).await.unwrap();
        assert_eq!(page.len(), len, "{name}");
        assert_eq!(page.first().map(|record| record.stream_id.as_str()), first, "{name}");
    }
}

pub(super) async fn the_waiting_list_hears_only_of_streams_that_can_be_played(bench: &Bench) {
    for (stream_id, live, now_ms) in [("live", true, NOW), ("preparing", false, NOW), ("stale", true, NOW - 20_000)] {
        let request = ClaimRequest { now_ms, ..claim_by("a", stream_id) };
        let lease = bench.a.claim(request).await.unwrap().lease;
        if live {
            bench.a.mark_live(&lease, live_at(now_ms)).await.unwrap();
        }
    }
    bench.a.create_broadcast(&key("created"), &named("x")).await.unwrap();
    bench.plant(broadcast::COLLECTION, doc! { "streamId": "room", "status": "broadcasting", "virtual": true }).await;
    let asked: Vec<StreamId> = ["room", "nobody", "stale", "preparing", "created", "live"].map(id).into();
    let live = bench.b.find_live(&app(), &asked, NOW).await.unwrap();
    assert_eq!(live, ["room", "live"].map(id), "in the order asked for");
    assert!(bench.b.find_live(&app(), &[], NOW).await.unwrap().is_empty());
    let mut many: Vec<StreamId> = (0..2500).map(|n| id(&format!("nobody{n}"))).collect();
    many.push(id("live"));
    assert_eq!(bench.b.find_live(&app(), &many, NOW).await.unwrap(), [id("live")]);
}

pub(super) async fn viewer_counts_are_set_for_one_publication_only(bench: &Bench) {
    let epoch = bench.a.claim(claim_by("a", "s")).await.unwrap().lease.epoch;
    for (name, stream_id, epoch, viewers, done) in [
        ("of this publication", "s", Some(epoch), 7, true),
        ("of an earlier one", "s", Some(Epoch(epoch.0 - 1)), 9, false),
        ("of an unknown stream", "t", None, 9, false),
    ] {
        assert_eq!(bench.b.set_viewer_count(&key(stream_id), epoch, viewers).await.unwrap(), done, "{name}");
        assert_eq!(bench.a.get_broadcast(&key("s")).await.unwrap().unwrap().webrtc_viewer_count, 7, "{name}");
    }
    assert!(bench.b.set_viewer_count(&key("s"), None, u32::MAX).await.unwrap());
    assert_eq!(bench.a.get_broadcast(&key("s")).await.unwrap().unwrap().webrtc_viewer_count, i32::MAX);
}

pub(super) async fn applications_are_apart_whatever_their_case(bench: &Bench) {
    let in_app = |app: &str| StreamKey::new(app.parse().unwrap(), id("s"));
    bench.a.create_broadcast(&in_app("live"), &named("live")).await.unwrap();
    bench.a.create_broadcast(&in_app("WebRTCAppEE"), &named("other")).await.unwrap();
    for (app, want) in [("live", Some("live")), ("LIVE", Some("live")), ("webrtcappee", Some("other")), ("none", None)]
    {
        let found = bench.b.get_broadcast(&in_app(app)).await.unwrap();
        assert_eq!(found.and_then(|record| record.name).as_deref(), want, "{app}");
    }
    for app in ["admin", "ClusterDB", "local"] {
        let app: AppName = app.parse().unwrap();
        let refused = bench.a.count_broadcasts(&app).await;
        assert!(matches!(refused, Err(RegistryError::InvalidRequest { .. })), "{app}: {refused:?}");
        let refused = bench.a.claim(ClaimRequest { key: in_app(app.as_str()), ..claim_by("a", "s") }).await;
        assert!(matches!(refused, Err(ClaimError::Registry(RegistryError::InvalidRequest { .. }))), "{app}");
    }
}

pub(super) async fn deleting_takes_the_renditions_along(bench: &Bench) {
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    assert!(bench.b.delete_broadcast(&key("s")).await.unwrap());
    assert!(!bench.b.delete_broadcast(&key("s")).await.unwrap());
    assert!(bench.fetch(stream_info::COLLECTION, "s").await.is_empty());
    let lost = bench.a.heartbeat(&lease, NOW, &StreamQuality::default()).await;
    assert!(matches!(lost, Err(ClaimError::Lost { .. })), "a heartbeat does not bring a deleted record back");
    assert!(bench.fetch(broadcast::COLLECTION, "s").await.is_empty());
}

pub(super) async fn a_closed_registry_says_so(bench: &Bench) {
    bench.a.prepare_app(&app()).await.unwrap();
    bench.a.prepare_app(&app()).await.unwrap();
    bench.a.ping().await.unwrap();
    bench.a.create_broadcast(&key("s"), &named("x")).await.unwrap();
    let before = bench.a.stats();
    assert!(before.calls >= 4 && before.failed == 0 && before.in_flight == 0, "{before:?}");
    assert!(!before.mean_time.is_zero());
    bench.a.close().await;
    bench.a.close().await;
    let late = bench.a.get_broadcast(&key("s")).await;
    assert!(matches!(late, Err(RegistryError::Closed)), "{late:?}");
    assert!(matches!(bench.a.ping().await, Err(RegistryError::Closed)));
    assert_eq!(bench.a.stats().failed, before.failed + 2);
}
