//! Contract: webhook events are kept once, taken by one, in the order of their stream, and never for ever.

use std::collections::BTreeMap;

use ams_types::Epoch;

use super::bench::{Bench, NOW, app, key, node};
use crate::record::outbox::{MEMORY_MS, PLACE_FIRST, PLACE_LAST, WAITING, WITHDRAWN};
use crate::{OutboxRecord, OutboxReport, OutboxRules, Registry, TakeEvents};

fn event(id: &str, stream: &str, epoch: i64, place: i64) -> OutboxRecord {
    OutboxRecord {
        id: id.to_owned(),
        stream_id: stream.to_owned(),
        epoch,
        place,
        action: "said".to_owned(),
        url: "http://receiver/hook".to_owned(),
        target: "http://receiver:80".to_owned(),
        content_type: "application/json".to_owned(),
        body: format!("{{\"id\":\"{id}\"}}"),
        created: NOW,
        not_before: NOW,
        next_attempt: NOW,
        ..OutboxRecord::default()
    }
}

fn take_at(by: &str, now_ms: i64) -> TakeEvents {
    TakeEvents { node: node(by), now_ms, until_ms: now_ms + 30_000, not_to: Vec::new(), per_target: 64, max: 64 }
}

async fn taken(registry: &dyn Registry, take: &TakeEvents) -> Vec<String> {
    let events = registry.take_events(&app(), take).await.unwrap();
    let mut ids: Vec<String> = events.into_iter().map(|event| event.id).collect();
    ids.sort_unstable();
    ids
}

pub(super) async fn an_event_is_kept_once_and_sent_in_the_order_of_its_stream(bench: &Bench) {
    let put = async |event: OutboxRecord| bench.a.enqueue_event(&app(), &event).await.unwrap();
    assert!(put(event("ended", "s", 1, PLACE_LAST)).await);
    assert!(put(event("started", "s", 1, PLACE_FIRST)).await);
    assert!(put(event("status", "s", 1, 500)).await);
    assert!(put(event("again", "s", 2, PLACE_FIRST)).await);
    assert!(put(event("other", "t", 1, PLACE_FIRST)).await);
    assert!(!bench.b.enqueue_event(&app(), &event("started", "s", 9, 9)).await.unwrap(), "one of an id");

    let mut now = NOW;
    let first = bench.b.take_events(&app(), &take_at("a", now)).await.unwrap();
    let started = first.iter().find(|event| event.id == "started").unwrap();
    assert_eq!((started.body.as_str(), started.epoch), ("{\"id\":\"started\"}", 1));
    assert_eq!(first.len(), 2, "one of each stream: {first:?}");
    assert!(taken(&*bench.a, &take_at("b", now)).await.is_empty(), "what is being sent is another's");
    assert!(!bench.a.event_done(&key("s"), "started", &node("b"), now).await.unwrap(), "not that node's");
    assert!(bench.a.event_done(&key("s"), "started", &node("a"), now).await.unwrap());
    for want in ["status", "ended", "again"] {
        now += 1;
        assert_eq!(taken(&*bench.a, &take_at("b", now)).await, [want]);
        // It fails once, and nothing overtakes it.
        assert!(bench.b.event_failed(&key("s"), want, &node("b"), now + 5000).await.unwrap());
        assert!(taken(&*bench.b, &take_at("a", now + 4000)).await.is_empty(), "before its time: {want}");
        now += 15_000;
        let again = bench.b.take_events(&app(), &take_at("a", now)).await.unwrap();
        let of_s: Vec<_> = again.iter().filter(|event| event.stream_id == "s").collect();
        assert_eq!((of_s.len(), of_s[0].id.as_str(), of_s[0].attempts), (1, want, 1));
        assert!(bench.a.event_done(&key("s"), want, &node("a"), now).await.unwrap());
    }
    // The other stream's was never closed: its lease ends, and it is sent again.
    assert_eq!(taken(&*bench.a, &take_at("b", now + 60_000)).await, ["other"]);
    assert!(!put(event("started", "s", 1, PLACE_FIRST)).await, "one that was sent is remembered");
    assert!(put(event("status", "s", 1, 500)).await, "unless there are many of its kind");
}

pub(super) async fn of_two_that_take_each_event_goes_to_one(bench: &Bench) {
    const STREAMS: usize = 20;
    const EACH: i64 = 5;
    for stream in 0..STREAMS {
        for place in 1..=EACH {
            let event = event(&format!("{stream:02}-{place}"), &format!("s{stream}"), 1, place);
            assert!(bench.a.enqueue_event(&app(), &event).await.unwrap());
        }
    }
    let taker = |registry: &std::sync::Arc<dyn Registry>, by: &'static str| {
        let registry = std::sync::Arc::clone(registry);
        tokio::spawn(async move {
            let (mut got, mut idle, mut now) = (Vec::new(), 0, NOW);
            while idle < 10 {
                now += 5000;
                // Leases that outlast the case: what is taken twice was given twice.
                let take = TakeEvents { until_ms: i64::MAX / 4, max: 7, ..take_at(by, now) };
                let events = registry.take_events(&app(), &take).await.unwrap();
                idle = if events.is_empty() { idle + 1 } else { 0 };
                for event in events {
                    let key = key(&event.stream_id);
                    got.push((event.stream_id.clone(), event.place));
                    assert!(registry.event_done(&key, &event.id, &node(by), now).await.unwrap());
                }
            }
            got
        })
    };
    let (a, b) = tokio::join!(taker(&bench.a, "a"), taker(&bench.b, "b"));
    let (a, b) = (a.unwrap(), b.unwrap());
    let mut all: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for one in a.iter().chain(&b) {
        *all.entry(one.clone()).or_default() += 1;
    }
    assert_eq!(all.len(), STREAMS * usize::try_from(EACH).unwrap(), "all are taken");
    assert!(all.values().all(|times| *times == 1), "each once: {all:?}");
    for got in [a, b] {
        for stream in 0..STREAMS {
            let name = format!("s{stream}");
            let places: Vec<i64> = got.iter().filter(|(s, _)| *s == name).map(|(_, place)| *place).collect();
            assert!(places.is_sorted(), "{name}: {places:?}");
        }
    }
}

pub(super) async fn one_target_leaves_room_for_others(bench: &Bench) {
    for n in 0..6 {
        let slow =
            OutboxRecord { target: "http://slow:80".into(), ..event(&format!("slow{n}"), &format!("s{n}"), 1, 0) };
        assert!(bench.a.enqueue_event(&app(), &slow).await.unwrap());
    }
    assert!(bench.a.enqueue_event(&app(), &event("quick", "q", 1, 0)).await.unwrap());
    let few = TakeEvents { per_target: 2, ..take_at("a", NOW) };
    assert_eq!(taken(&*bench.a, &few).await.len(), 3, "two of one target and one of the other");
    let not_slow = TakeEvents { not_to: vec!["http://slow:80".into()], ..take_at("a", NOW) };
    assert!(taken(&*bench.a, &not_slow).await.is_empty());
    assert_eq!(taken(&*bench.b, &TakeEvents { max: 3, ..take_at("b", NOW) }).await.len(), 3);
}

pub(super) async fn an_end_is_withdrawn_by_the_publication_that_goes_on(bench: &Bench) {
    let end = |epoch, not_before| OutboxRecord {
        action: "ended".into(),
        not_before,
        next_attempt: not_before,
        ..event(&format!("end{epoch}"), "s", epoch, PLACE_LAST)
    };
    let withdraw = async |by, at| bench.b.withdraw_events(&key("s"), "ended", Epoch(by), at).await.unwrap();
    assert!(!withdraw(2, NOW).await, "nothing to withdraw");
    assert!(bench.a.enqueue_event(&app(), &end(1, NOW + 10_000)).await.unwrap());
    assert!(taken(&*bench.a, &take_at("a", NOW + 9000)).await.is_empty(), "it is held back");
    assert!(!withdraw(1, NOW).await, "its own publication does not");
    assert!(withdraw(2, NOW + 9000).await);
    assert!(withdraw(2, NOW + 9000).await, "and again, when the answer was lost");
    assert!(!withdraw(3, NOW + 9000).await, "once it is gone it is nobody else's");
    assert!(!bench.a.enqueue_event(&app(), &end(1, NOW)).await.unwrap(), "it does not come back");
    assert!(taken(&*bench.a, &take_at("a", NOW + 20_000)).await.is_empty());

    assert!(bench.a.enqueue_event(&app(), &end(3, NOW + 10_000)).await.unwrap());
    assert!(!withdraw(4, NOW + 10_000).await, "too late");
    assert_eq!(taken(&*bench.a, &take_at("a", NOW + 10_000)).await, ["end3"]);
    // Whoever says it first: the end, or that it goes on.
    let goes_on = OutboxRecord { state: WITHDRAWN.into(), withdrawn_by: 6, ..end(5, NOW) };
    assert!(bench.a.enqueue_event(&app(), &goes_on).await.unwrap());
    assert!(!bench.b.enqueue_event(&app(), &end(5, NOW)).await.unwrap());
    assert!(withdraw(6, NOW).await);
}

pub(super) async fn old_events_are_given_up_and_too_many_dropped(bench: &Bench) {
    for n in 0..5_i64 {
        let at = NOW + n * 1000;
        let event = OutboxRecord { created: at, ..event(&format!("e{n}"), &format!("s{n}"), 1, PLACE_FIRST) };
        assert!(bench.a.enqueue_event(&app(), &event).await.unwrap());
    }
    let later = NOW + 10_000;
    let rules = OutboxRules { now_ms: later, given_up_before_ms: NOW, attempts_min: 0, waiting_max: 10 };
    let tend = async |rules: OutboxRules| bench.b.tend_outbox(&app(), &rules).await.unwrap();
    assert_eq!(tend(rules).await, OutboxReport { waiting: 5, ..OutboxReport::default() });
    let want = OutboxReport { waiting: 4, dropped: 1, ..OutboxReport::default() };
    assert_eq!(tend(OutboxRules { waiting_max: 4, ..rules }).await, want, "the oldest");
    let old = OutboxRules { given_up_before_ms: NOW + 2000, ..rules };
    assert_eq!(tend(OutboxRules { attempts_min: 1, ..old }).await.given_up, 0, "it has not been tried");
    assert_eq!(tend(old).await, OutboxReport { waiting: 3, dead: 1, given_up: 1, dropped: 0 });
    let dead = bench.a.list_dead_events(&app(), 0, 50).await.unwrap();
    assert_eq!(dead.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["e1"]);
    assert!(dead[0].body.contains("e1") && dead[0].state != WAITING);
    assert!(bench.a.list_dead_events(&app(), 1, 50).await.unwrap().is_empty());
    assert_eq!(taken(&*bench.a, &take_at("a", later)).await, ["e2", "e3", "e4"]);
    assert!(bench.a.event_done(&key("s2"), "e2", &node("a"), later).await.unwrap());
    let day = 24 * 3600 * 1000;
    let next = OutboxRules { now_ms: later + day + 1, given_up_before_ms: NOW, ..rules };
    assert!(day > MEMORY_MS);
    assert_eq!(tend(next).await, OutboxReport { waiting: 2, ..OutboxReport::default() });
    assert!(bench.a.enqueue_event(&app(), &event("e2", "s2", 1, 0)).await.unwrap(), "forgotten");
}
