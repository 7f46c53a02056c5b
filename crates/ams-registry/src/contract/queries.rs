//! Contract: lists with conditions, edits, settings, and the streams' small documents.

use ams_types::AppName;
use mongodb::bson::doc;
use serde_json::{Value, json};

use super::bench::{Bench, NOW, app, claim_by, key, live_at};
use crate::record::{JsonMap, broadcast};
use crate::{
    AppSettingsRecord, BroadcastEdit, BroadcastQuery, BroadcastRecord, LiveTotals, Search, Shelf, Sort, Status,
    TokenUse, Upserted,
};

fn map(value: Value) -> JsonMap {
    if let Value::Object(map) = value { map } else { JsonMap::new() }
}

async fn found(bench: &Bench, query: &BroadcastQuery) -> Vec<String> {
    let found = bench.b.query_broadcasts(&app(), query, 0, 50).await.unwrap();
    let count = bench.b.count_matching(&app(), query).await.unwrap();
    assert_eq!(count, found.len() as u64, "the count agrees with the list: {query:?}");
    found.into_iter().map(|record| record.stream_id).collect()
}

pub(super) async fn a_list_shows_what_is_asked_for_in_that_order(bench: &Bench) {
    for (id, name, kind, main, date) in [
        ("room1", Some("Zebra Talk"), "liveStream", None, 3_i64),
        ("room2", Some("apple (live)"), "liveStream", Some("room1"), 1),
        ("cam-1", None, "ipCamera", None, 2),
    ] {
        let record = BroadcastRecord {
            name: name.map(str::to_owned),
            kind: Some(kind.to_owned()),
            main_track_stream_id: main.map(str::to_owned),
            role: main.map(|_| "speaker".to_owned()),
            date,
            ..BroadcastRecord::default()
        };
        assert!(bench.a.create_broadcast(&key(id), &record).await.unwrap());
    }
    let all = BroadcastQuery::default;
    let search = |text: &str| BroadcastQuery { search: Search::parse(text).unwrap(), ..all() };
    let sort = |field, descending| BroadcastQuery { sort: Sort::by(field, descending), ..all() };
    for (name, query, want) in [
        ("all, oldest first", all(), &["room1", "room2", "cam-1"][..]),
        ("text in an id, any case", search("ROOM"), &["room1", "room2"]),
        ("text with a sign of patterns in it", search("cam-1"), &["cam-1"]),
        ("text in a name", search("zebra"), &["room1"]),
        ("a pattern", search("^(room2|cam-.)$"), &["room2", "cam-1"]),
        ("no pattern: words of a name", search("apple ("), &["room2"]),
        ("nothing", search("nobody"), &[]),
        ("of a type", BroadcastQuery { kind: Some("ipCamera".into()), ..all() }, &["cam-1"]),
        ("subtracks", BroadcastQuery { main_track: Some("room1".into()), ..all() }, &["room2"]),
        ("of a role", BroadcastQuery { role: Some("listener".into()), ..all() }, &[]),
        ("by date", sort("date", false), &["room2", "cam-1", "room1"]),
        ("by date, latest first", sort("date", true), &["room1", "cam-1", "room2"]),
        ("by name, latest first", sort("name", true), &["room2", "room1", "cam-1"]),
        (
            "a pattern in an order",
            BroadcastQuery { sort: Sort::by("date", true), ..search("[12]$") },
            &["room1", "cam-1", "room2"],
        ),
    ] {
        assert_eq!(found(bench, &query).await, want, "{name}");
    }
    for (offset, size, want) in [(1, 1, &["room2"][..]), (2, 50, &["cam-1"]), (9, 9, &[]), (0, 0, &[])] {
        for query in [all(), search("[a-z]")] {
            let page = bench.a.query_broadcasts(&app(), &query, offset, size).await.unwrap();
            assert!(page.iter().map(|r| r.stream_id.as_str()).eq(want.iter().copied()), "{offset}/{size}");
        }
    }
}

pub(super) async fn live_streams_are_counted_and_summed_up(bench: &Bench) {
    assert_eq!(bench.a.live_totals(&app(), NOW).await.unwrap(), LiveTotals::default());
    for (id, at) in [("one", NOW), ("two", NOW), ("stale", NOW - 30_000)] {
        let request = crate::ClaimRequest { now_ms: at, ..claim_by("a", id) };
        let lease = bench.a.claim(request).await.unwrap().lease;
        bench.a.mark_live(&lease, live_at(at)).await.unwrap();
        bench.a.set_viewer_count(&key(id), None, 5).await.unwrap();
    }
    bench.meddle("two", doc! { "hlsViewerCount": 3 }).await;
    let totals = bench.b.live_totals(&app(), NOW - 20_000).await.unwrap();
    assert_eq!(totals, LiveTotals { streams: 2, webrtc: 10, hls: 3, dash: 0, rtmp: 0 });
    let live = BroadcastQuery { live_since: Some(NOW - 20_000), ..BroadcastQuery::default() };
    assert_eq!(found(bench, &live).await, ["one", "two"]);
}

pub(super) async fn an_edit_changes_what_it_names_and_makes_nothing(bench: &Bench) {
    let edit = |value| BroadcastEdit::from_json(map(value)).unwrap();
    let named = edit(json!({ "name": "n", "status": "finished" }));
    assert_eq!(bench.a.edit_broadcast(&key("s"), &named).await.unwrap(), None);
    assert!(bench.fetch(broadcast::COLLECTION, "s").await.is_empty());
    let lease = bench.a.claim(claim_by("a", "s")).await.unwrap().lease;
    bench.a.mark_live(&lease, live_at(NOW)).await.unwrap();
    assert_eq!(bench.b.edit_broadcast(&key("s"), &named).await.unwrap(), Some(Upserted::Changed));
    assert_eq!(bench.b.edit_broadcast(&key("s"), &named).await.unwrap(), Some(Upserted::Unchanged));
    assert_eq!(bench.b.edit_broadcast(&key("s"), &edit(json!({}))).await.unwrap(), Some(Upserted::Unchanged));
    let main = BroadcastEdit::main_track(Some("m"));
    assert_eq!(bench.b.edit_broadcast(&key("s"), &main).await.unwrap(), Some(Upserted::Changed));
    let record = bench.a.get_broadcast(&key("s")).await.unwrap().unwrap();
    assert_eq!(record.effective_status(NOW), Status::Broadcasting);
    assert_eq!((record.name.as_deref(), record.main_track_stream_id.as_deref()), (Some("n"), Some("m")));
    bench.b.edit_broadcast(&key("s"), &BroadcastEdit::main_track(None)).await.unwrap();
    let stored = bench.fetch(broadcast::COLLECTION, "s").await.pop().unwrap();
    assert!(!stored.contains_key("mainTrackStreamId"), "{stored:?}");
}

pub(super) async fn settings_are_every_nodes_and_keep_what_nobody_knows(bench: &Bench) {
    assert!(bench.a.list_app_settings().await.unwrap().is_empty());
    let described = |value| AppSettingsRecord::described(map(value)).unwrap();
    let first = described(json!({ "remoteAllowedCIDR": "10.0.0.0/8", "pluginSetting": { "a": [1] }, "appName": "x" }));
    bench.a.put_app_settings(&app(), &first).await.unwrap();
    let second = described(json!({ "ipFilterEnabled": false, "hlsTime": null }));
    bench.b.put_app_settings(&app(), &second).await.unwrap();
    let other: AppName = "other".parse().unwrap();
    bench.b.put_app_settings(&other, &AppSettingsRecord::of_app("other")).await.unwrap();
    let mut all = bench.a.list_app_settings().await.unwrap();
    all.sort_by(|a, b| a.app_name.cmp(&b.app_name));
    let [live, other] = all.try_into().unwrap();
    assert_eq!((live.app_name.as_deref(), other.app_name.as_deref()), (Some("live"), Some("other")));
    assert!(!live.ip_filter_enabled && other.ip_filter_enabled);
    assert_eq!(live.remote_allowed_cidr.as_deref(), Some("127.0.0.1"), "what is left out has its default again");
    assert_eq!(live.extra.get("pluginSetting"), Some(&json!({ "a": [1] })));
    assert!(AppSettingsRecord::described(map(json!({ "ipFilterEnabled": "no" }))).is_err());
}

pub(super) async fn a_streams_documents_are_its_own(bench: &Bench) {
    let document = |n: i32| map(json!({ "expireDate": n, "type": "play", "roomId": null }));
    for shelf in Shelf::ALL {
        let put = async |stream: &str, id: &str, n| {
            bench.a.put_document(&key(stream), shelf, id, &document(n)).await.unwrap()
        };
        assert_eq!(put("s", "one", 1).await, Upserted::Created, "{shelf:?}");
        assert_eq!(put("t", "one", 1).await, Upserted::Created, "{shelf:?}");
        if shelf != Shelf::ConnectionEvents {
            assert_eq!(put("s", "one", 1).await, Upserted::Unchanged, "{shelf:?}");
            assert_eq!(put("s", "one", 2).await, Upserted::Changed, "{shelf:?}");
        } else {
            assert_eq!(put("s", "one", 2).await, Upserted::Created, "events add up");
        }
        put("s", "two", 3).await;
        let stored = bench.b.get_document(&key("s"), shelf, "two").await.unwrap().unwrap();
        let want = json!({ "streamId": "s", shelf.id_field(): "two", "expireDate": 3, "type": "play" });
        assert_eq!(Value::Object(stored), want, "{shelf:?}");
        assert_eq!(bench.b.get_document(&key("s"), shelf, "three").await.unwrap(), None);
        let all = if shelf == Shelf::ConnectionEvents { 3 } else { 2 };
        let list =
            async |id, offset, size| bench.b.list_documents(&key("s"), shelf, id, offset, size).await.unwrap().len();
        assert_eq!(list(None, 0, 50).await, all, "{shelf:?}");
        assert_eq!(list(None, 1, 50).await, all - 1, "{shelf:?}");
        assert_eq!(list(None, 0, 0).await, 0, "{shelf:?}");
        assert_eq!(list(Some("one"), 0, 50).await, all - 1, "{shelf:?}");
        let key = key("s");
        let (a, b) = tokio::join!(
            bench.a.delete_documents(&key, shelf, Some("two")),
            bench.b.delete_documents(&key, shelf, Some("two"))
        );
        assert_eq!(a.unwrap() + b.unwrap(), 1, "one of two alone takes a token: {shelf:?}");
        assert_eq!(bench.a.delete_documents(&key, shelf, None).await.unwrap(), all as u64 - 1, "{shelf:?}");
        assert_eq!(list(None, 0, 50).await, 0, "{shelf:?}");
    }
}

pub(super) async fn expired_tokens_are_swept_out(bench: &Bench) {
    for (id, ends) in [("old", 10), ("older", 5), ("new", 20)] {
        let token = map(json!({ "expireDate": ends }));
        bench.a.put_document(&key("s"), Shelf::Tokens, id, &token).await.unwrap();
        bench.a.put_document(&key("t"), Shelf::Tokens, id, &token).await.unwrap();
    }
    assert_eq!(bench.b.delete_expired_tokens(&key("s"), 20).await.unwrap(), 2);
    let left = bench.a.list_documents(&key("s"), Shelf::Tokens, None, 0, 50).await.unwrap();
    assert_eq!(left.iter().map(|token| &token["tokenId"]).collect::<Vec<_>>(), ["new"]);
    assert_eq!(bench.a.list_documents(&key("t"), Shelf::Tokens, None, 0, 50).await.unwrap().len(), 3);
}

pub(super) async fn a_token_is_used_by_one_at_a_time(bench: &Bench) {
    let token = map(json!({ "expireDate": 10, "type": "play" }));
    bench.a.put_document(&key("s"), Shelf::Tokens, "one", &token).await.unwrap();
    let found = bench.b.find_token(&app(), "one").await.unwrap().unwrap();
    assert_eq!((found.stream_id.as_deref(), found.token_use()), (Some("s"), None));
    assert_eq!(bench.b.find_token(&app(), "two").await.unwrap(), None);

    let used = |by: &str, at_ms| TokenUse { by: by.to_owned(), at_ms };
    let (mine, yours) = (used("me", 5), used("you", 5));
    let s = key("s");
    let (a, b) = tokio::join!(bench.a.use_token(&s, "one", None, &mine), bench.b.use_token(&s, "one", None, &yours));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a != b, "one of two alone");
    let winner = if a { mine } else { yours };
    for (name, stream, id, before, after, want) in [
        ("repeated", "s", "one", None, winner.clone(), true),
        ("too late", "s", "one", None, used("they", 6), false),
        ("seen again", "s", "one", Some(winner.clone()), used(&winner.by, 7), true),
        ("by what it was", "s", "one", Some(winner.clone()), used(&winner.by, 8), false),
        ("another stream's", "t", "one", None, used("me", 9), false),
        ("none there is", "s", "two", None, used("me", 9), false),
    ] {
        assert_eq!(bench.b.use_token(&key(stream), id, before.as_ref(), &after).await.unwrap(), want, "{name}");
    }
    let found = bench.a.find_token(&app(), "one").await.unwrap().unwrap();
    assert_eq!(found.token_use(), Some(used(&winner.by, 7)));
    assert_eq!((found.expire_date, found.to_rest_json().contains_key("amsUsedBy")), (10, false));
}
