//! Contract: documents that other programs, older versions and shells have left.

use mongodb::bson::{Bson, doc};

use super::bench::{Bench, NOW, app, claim_by, id, key, live_at};
use crate::record::{broadcast, stream_info};
use crate::{BroadcastRecord, Grant, Status};

pub(super) async fn a_document_with_wrong_types_can_be_read_listed_and_claimed(bench: &Bench) {
    bench.plant(broadcast::COLLECTION, doc! { "streamId": "before", "name": "plain" }).await;
    bench
        .plant(
            broadcast::COLLECTION,
            doc! {
                "streamId": "s", "status": 5, "updateTime": "yesterday", "originAdress": ["10.0.0.9"],
                "name": { "first": "x" }, "zombi": "true", "publish": 0, "webRTCViewerCount": "many",
                "webRTCViewerLimit": 20.0, "speed": 1, "width": 3_000_000_000_i64, "amsEpoch": "seven",
                "amsNodeId": 7, "amsIncarnation": true, "amsSession": {}, "endPointList": "none",
                "metaData": Bson::Null, "userAgent": Bson::Null,
            },
        )
        .await;
    bench.plant(broadcast::COLLECTION, doc! { "streamId": "after", "name": "plain" }).await;

    let list = bench.a.list_broadcasts(&app(), 0, 50).await.unwrap();
    let names: Vec<_> = list.iter().map(|record| record.stream_id.as_str()).collect();
    assert_eq!(names, ["before", "s", "after"], "one broken document does not hide the others");
    let misread = bench.a.stats().fields_misread;
    assert!(misread >= 12, "{misread}");

    let record = bench.a.get_broadcast(&key("s")).await.unwrap().unwrap();
    assert_eq!(record.effective_status(NOW), Status::Unset);
    assert_eq!((record.webrtc_viewer_count, record.width, record.zombi, record.publish), (0, 0, false, true));
    assert_eq!(record.webrtc_viewer_limit, 20, "a shell's double is a number all the same");
    assert_eq!(record.user_agent.as_deref(), Some("N/A"));
    assert!((record.speed - 1.0).abs() < f64::EPSILON);

    assert!(bench.a.find_live(&app(), &[id("s")], NOW).await.unwrap().is_empty());
    let claim = bench.a.claim(claim_by("a", "s")).await.unwrap();
    assert_eq!(claim.grant, Grant::NotHeld);
    bench.a.mark_live(&claim.lease, live_at(NOW)).await.unwrap();
    assert!(bench.b.lookup(&key("s"), NOW).await.unwrap().unwrap().is_live());

    // Live by its word, but nobody can tell since when: stale.
    bench.plant(broadcast::COLLECTION, doc! { "streamId": "t", "status": "broadcasting", "updateTime": "now" }).await;
    assert_eq!(bench.a.claim(claim_by("a", "t")).await.unwrap().grant, Grant::NotHeld);
}

pub(super) async fn a_document_with_missing_fields_has_defaults(bench: &Bench) {
    bench.plant(broadcast::COLLECTION, doc! { "streamId": "s" }).await;
    let record = bench.a.get_broadcast(&key("s")).await.unwrap().unwrap();
    assert_eq!(record, BroadcastRecord { stream_id: "s".into(), ..BroadcastRecord::default() });
    assert_eq!(bench.a.stats().fields_misread, 0, "a missing field is nothing to complain about");
    let seen = bench.a.lookup(&key("s"), NOW).await.unwrap().unwrap();
    assert!(seen.origin.is_none() && seen.lease(key("s")).is_none());
}

pub(super) async fn renditions_of_others_do_not_lead_anywhere(bench: &Bench) {
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    let epoch = i64::try_from(lease.epoch.0).unwrap();
    for (host, port, epoch) in [
        ("10.0.0.old", 6000, 0),       // a node that died long ago
        ("10.0.0.a", 6001, epoch - 1), // an earlier publication here
        ("10.0.0.a", 0, epoch),        // no port
        ("10.0.0.a", 70_000, epoch),   // no port either
    ] {
        let info = doc! { "streamId": "s", "host": host, "originPort": port, "amsEpoch": epoch };
        bench.plant(stream_info::COLLECTION, info).await;
    }
    let seen = bench.a.lookup(&key("s"), NOW).await.unwrap().unwrap();
    assert_eq!(seen.origin.unwrap().port, None);
    bench
        .plant(
            stream_info::COLLECTION,
            doc! { "streamId": "s", "host": "10.0.0.a", "originPort": 5000, "amsEpoch": epoch, "height": "tall" },
        )
        .await;
    let seen = bench.a.lookup(&key("s"), NOW).await.unwrap().unwrap();
    assert_eq!(seen.origin.unwrap().port, Some(5000));
    assert_eq!(seen.infos.last().unwrap().height, 0);
}
