//! From the outbox to the receivers.
//!
//! Owns the flights: a bounded number, few to one target, one of a stream. A target that does not answer is left alone
//! for a while and then tried with one event, so that it holds up nobody else's. Every failure is tried again, later each
//! time, until the event is given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ams_access::UnixMs;
use ams_access::webhook::{HEADER_EVENT_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, RetryPolicy, is_delivered};
use ams_registry::{OutboxRecord, OutboxRules, TakeEvents};
use ams_types::{AppName, StreamKey};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::post::Target;
use crate::clock;
use crate::node::NodeCore;

/// Requests to one target at once.
const PER_TARGET: usize = 4;
/// Requests at once: sixteen targets can be as slow as they like.
const FLIGHTS_MAX: usize = 16 * PER_TARGET;
/// How often the outbox is looked at while nothing is known to wait.
const IDLE_LOOK: Duration = Duration::from_millis(1000);
/// The same, while something is.
const BUSY_LOOK: Duration = Duration::from_millis(200);
/// How often the outbox is kept in bounds and counted.
const TEND: Duration = Duration::from_secs(10);
/// An event is this node's for so long: longer than a request and its record take.
const LEASE_MS: i64 = 30_000;
/// Tries to record what became of an event; after them it is sent again when its lease is over.
const RECORD_TRIES: usize = 4;
const RECORD_PAUSE: Duration = Duration::from_millis(500);
/// Longest time between two tries of one event, jitter left out.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest time a target is left alone.
const REST_MAX: Duration = Duration::from_secs(30);
/// Longest a node that ends waits for what is on its way.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// Targets remembered.
const TARGETS_MAX: usize = 10_000;

/// A receiver, as this node has met it.
#[derive(Debug, Default)]
struct Lane {
    in_flight: usize,
    /// Requests in a row that got no answer.
    silent: u32,
    /// It is left alone until then.
    rests_until: Option<Instant>,
}

impl Lane {
    fn has_room(&self, now: Instant) -> bool {
        let room = if self.silent == 0 { PER_TARGET } else { 1 };
        self.in_flight < room && self.rests_until.is_none_or(|until| until <= now)
    }

    fn landed(&mut self, now: Instant, answered: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if answered {
            *self = Self { in_flight: self.in_flight, ..Self::default() };
        } else {
            let rest = Duration::from_millis(500).saturating_mul(1 << self.silent.min(10)).min(REST_MAX);
            self.silent = self.silent.saturating_add(1);
            self.rests_until = Some(now + rest);
        }
    }
}

/// What a flight brought back.
struct Landed {
    target: String,
    answered: bool,
}

impl NodeCore {
    pub(in crate::node) async fn webhook_sender_loop(self: Arc<Self>) {
        let mut flights: JoinSet<Landed> = JoinSet::new();
        let mut lanes: HashMap<String, Lane> = HashMap::new();
        let mut tended_at: Option<Instant> = None;
        let mut is_busy = false;
        loop {
            let look = if is_busy || !flights.is_empty() { BUSY_LOOK } else { IDLE_LOOK };
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = tokio::time::sleep(look.mul_f64(0.75 + 0.5 * rand::random::<f64>())) => {}
                Some(landed) = flights.join_next() => land(&mut lanes, landed),
            }
            while let Some(landed) = flights.try_join_next() {
                land(&mut lanes, landed);
            }
            if !self.is_registry_ok() {
                continue;
            }
            if tended_at.is_none_or(|at| clock::now().saturating_duration_since(at) >= TEND) {
                tended_at = Some(clock::now());
                self.tend_outboxes().await;
            }
            is_busy = false;
            for app in &self.config.apps {
                is_busy |= self.send_webhooks(app, &mut flights, &mut lanes).await;
            }
            let now = clock::now();
            if lanes.len() > TARGETS_MAX {
                lanes.retain(|_, lane| lane.in_flight > 0 || lane.rests_until.is_some_and(|until| until > now));
            }
        }
        // What is on its way may arrive; the rest is another node's when the lease is over.
        let _ = tokio::time::timeout(LAST_WAIT, async { while flights.join_next().await.is_some() {} }).await;
    }

    /// Takes what is due and there is room for, and sends it; whether there was something.
    async fn send_webhooks(
        self: &Arc<Self>,
        app: &AppName,
        flights: &mut JoinSet<Landed>,
        lanes: &mut HashMap<String, Lane>,
    ) -> bool {
        let now = clock::now();
        let room = FLIGHTS_MAX.saturating_sub(flights.len());
        if room == 0 {
            return true;
        }
        let not_to = lanes.iter().filter(|(_, lane)| !lane.has_room(now)).map(|(target, _)| target.clone()).collect();
        // Those that were silent are tried with one event each.
        let is_probing = lanes.values().any(|lane| lane.silent > 0 && lane.has_room(now));
        let now_ms = self.wall.ms();
        let take = TakeEvents {
            node: self.id.clone(),
            now_ms,
            until_ms: now_ms + LEASE_MS,
            not_to,
            per_target: if is_probing { 1 } else { PER_TARGET },
            max: room,
        };
        let taken = self.registry.take_events(app, &take).await;
        self.note_registry(&taken);
        let Ok(events) = taken else { return false };
        let found = !events.is_empty();
        for event in events {
            lanes.entry(event.target.clone()).or_default().in_flight += 1;
            let node = Arc::clone(self);
            let app = app.clone();
            flights.spawn(async move { node.fly(app, event).await });
        }
        found
    }

    /// Sends one event and records what became of it.
    async fn fly(self: Arc<Self>, app: AppName, event: OutboxRecord) -> Landed {
        let sent = self.post(&event).await;
        let answered = sent.is_ok();
        let landed = Landed { target: event.target.clone(), answered };
        let delivered = matches!(sent, Ok(status) if is_delivered(status));
        let figure = if delivered { &self.webhooks.sent } else { &self.webhooks.failed };
        figure.fetch_add(1, Ordering::Relaxed);
        let Ok(stream_id) = event.stream_id.parse() else { return landed };
        let key = StreamKey::new(app, stream_id);
        match &sent {
            Ok(status) if delivered => {
                debug!(stream_id = %key, action = event.action, status, "webhook event delivered");
            }
            // The first failure is news, the others are the same again.
            result if event.attempts == 0 => {
                let problem = result.as_ref().map_or_else(Clone::clone, |status| format!("it answered {status}"));
                info!(stream_id = %key, action = event.action, receiver = event.target, problem, "a webhook event was not taken; it is sent again");
            }
            result => debug!(stream_id = %key, action = event.action, attempts = event.attempts, ?result, "again"),
        }
        let settings = self.settings.of(&key.app);
        let delay = retry_delay(settings.webhook_retry_delay, event.attempts, rand::random());
        let next_ms = self.wall.ms().saturating_add(i64::try_from(delay.as_millis()).unwrap_or(0));
        for _ in 0..RECORD_TRIES {
            let result = if delivered {
                self.registry.event_done(&key, &event.id, &self.id, self.wall.ms()).await
            } else {
                self.registry.event_failed(&key, &event.id, &self.id, next_ms).await
            };
            self.note_registry(&result);
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(RECORD_PAUSE).await;
        }
        landed
    }

    async fn post(&self, event: &OutboxRecord) -> Result<u16, String> {
        let target = Target::parse(&event.url)?;
        let at = UnixMs::from(SystemTime::now());
        let mut headers = vec![
            ("content-type", event.content_type.clone()),
            (HEADER_EVENT_ID, event.id.clone()),
            (HEADER_TIMESTAMP, at.0.to_string()),
        ];
        if let Some(key) = &self.webhooks.key {
            headers.push((HEADER_SIGNATURE, key.sign(at, event.body.as_bytes())));
        }
        self.webhooks.poster.post(&target, &headers, event.body.clone()).await
    }

    async fn tend_outboxes(&self) {
        let mut waiting = 0;
        for app in &self.config.apps {
            let give_up_after = i64::try_from(self.config.webhooks.give_up_after.as_millis()).unwrap_or(i64::MAX);
            let rules = OutboxRules {
                now_ms: self.wall.ms(),
                given_up_before_ms: self.wall.ms().saturating_sub(give_up_after),
                // So many tries were promised, and the first.
                attempts_min: self.settings.of(app).webhook_retry_count.clamp(0, 32) + 1,
                waiting_max: self.config.webhooks.waiting_max,
            };
            let result = self.registry.tend_outbox(app, &rules).await;
            self.note_registry(&result);
            let Ok(report) = result else { continue };
            waiting += report.waiting;
            let lost = report.given_up + report.dropped;
            if lost > 0 {
                warn!(app = %app, given_up = report.given_up, dropped = report.dropped, dead = report.dead,
                    "webhook events are lost: their receivers did not take them in time, or there were too many");
                self.webhooks.dropped.fetch_add(lost, Ordering::Relaxed);
            }
        }
        self.webhooks.waiting.store(waiting, Ordering::Relaxed);
    }
}

fn land(lanes: &mut HashMap<String, Lane>, landed: Result<Landed, tokio::task::JoinError>) {
    match landed {
        Ok(landed) => {
            if let Some(lane) = lanes.get_mut(&landed.target) {
                lane.landed(clock::now(), landed.answered);
            }
        }
        Err(error) => {
            // Nobody knows whose it was: better a few too many at once than a target that is never tried again.
            warn!(%error, "sending a webhook event failed");
            lanes.values_mut().for_each(|lane| lane.in_flight = 0);
        }
    }
}

/// Time until the next try of an event that failed `attempts` times before: at least `webhookRetryDelay`, doubling.
fn retry_delay(setting_ms: i64, attempts: i32, jitter: f64) -> Duration {
    let policy = RetryPolicy { retries: u32::MAX, ..RetryPolicy::from_settings(0, setting_ms) };
    let policy = RetryPolicy { max: RETRY_MAX.max(policy.first), ..policy };
    policy.delay(u32::try_from(attempts).unwrap_or(0), jitter).unwrap_or(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_later_each_time_and_never_sooner_than_set() {
        let seconds = |setting, attempts| retry_delay(setting, attempts, 0.0).as_secs();
        assert_eq!([0, 1, 2, 5, 6, 1000].map(|attempts| seconds(1000, attempts)), [1, 2, 4, 32, 60, 60]);
        assert_eq!([0, 1, 9].map(|attempts| seconds(120_000, attempts)), [120; 3]);
        assert!(retry_delay(-1, 0, 1.0) >= Duration::from_millis(10));
        assert_eq!(retry_delay(1000, 9, 1.0), Duration::from_secs(90));
    }

    #[test]
    fn a_silent_target_rests_and_is_tried_with_one() {
        let (mut lane, now) = (Lane::default(), Instant::now());
        for _ in 0..PER_TARGET {
            assert!(lane.has_room(now));
            lane.in_flight += 1;
        }
        assert!(!lane.has_room(now));
        lane.landed(now, false);
        assert!(!lane.has_room(now + Duration::from_secs(60)), "three are still on their way");
        for _ in 0..3 {
            lane.landed(now, false);
        }
        assert!(!lane.has_room(now + Duration::from_secs(3)) && lane.has_room(now + Duration::from_secs(5)));
        lane.in_flight += 1;
        assert!(!lane.has_room(now + Duration::from_secs(5)), "one at a time");
        lane.landed(now, true);
        assert!(lane.has_room(now));
        for _ in 0..100 {
            lane.landed(now, false);
        }
        assert!(lane.has_room(now + REST_MAX));
    }
}
