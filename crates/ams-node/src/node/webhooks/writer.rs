//! From the node's queue into the registry's outbox.
//!
//! Owns the decision whether a start and an end are told at all, and the body that is sent. What cannot be written now
//! stays in the queue.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ams_access::UnixMs;
use ams_access::webhook::{Action, ContentType, Event, EventId};
use ams_registry::record::outbox::{MEMORY_MS, PLACE_FIRST, PLACE_LAST, WITHDRAWN};
use ams_registry::{AppSettingsRecord, OutboxRecord, RegistryError};
use ams_types::Epoch;
use futures_util::future::join_all;
use tracing::warn;

use super::post::Target;
use super::{Facts, Former, Happening};
use crate::node::NodeCore;

/// Streams whose events are written side by side.
const WRITES_AT_ONCE: usize = 16;
/// Pause before a registry that did not take them is asked again.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest time to write what is left when the node stops.
const LAST_TRIES_MAX: Duration = Duration::from_millis(1500);
/// Longest body, in bytes; what clients said of themselves is left out of a longer one.
const BODY_LEN_MAX: usize = 64 * 1024;
/// Records remembered; more mean that ends are missing, and all are forgotten.
const SAID_MAX: usize = 20_000;

impl NodeCore {
    pub(in crate::node) async fn webhook_writer_loop(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = self.webhooks.backlog.filled() => {}
            }
            if !self.write_webhooks().await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Writes what is left before the node goes.
    pub(in crate::node) async fn write_last_webhooks(&self) {
        let tries = async {
            while !self.write_webhooks().await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(LAST_TRIES_MAX, tries).await;
        let left = self.webhooks.backlog.len();
        if left > 0 {
            warn!(events = left, "webhook events are lost: the registry did not take them before the end");
        }
    }

    /// Writes all there is; false if some could not be.
    async fn write_webhooks(&self) -> bool {
        let backlog = &self.webhooks.backlog;
        loop {
            if !self.is_registry_ok() {
                return backlog.len() == 0;
            }
            let oldest = backlog.oldest(WRITES_AT_ONCE);
            if oldest.is_empty() {
                return true;
            }
            let writes = oldest.iter().map(|(no, happening)| async move { (*no, self.write_webhook(happening).await) });
            let (mut written, mut all) = (Vec::new(), true);
            for (no, result) in join_all(writes).await {
                self.note_registry(&result);
                match result {
                    Ok(()) => written.push(no),
                    Err(error) if error.is_transient() => all = false,
                    Err(error) => {
                        warn!(%error, "a webhook event cannot be kept and is dropped");
                        self.webhooks.dropped.fetch_add(1, Ordering::Relaxed);
                        written.push(no);
                    }
                }
            }
            backlog.done(&written);
            if !all {
                return false;
            }
        }
    }

    fn said(&self) -> MutexGuard<'_, std::collections::HashMap<ams_types::StreamKey, Facts>> {
        self.webhooks.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_webhook(&self, happening: &Happening) -> Result<(), RegistryError> {
        let Happening { key, action, .. } = happening;
        let record = self.registry.get_broadcast(key).await?;
        let facts = record.as_ref().map(Facts::from).or_else(|| happening.facts.clone());
        let facts = facts.or_else(|| self.said().get(key).cloned()).unwrap_or_default();
        let settings = self.settings.of(&key.app);
        let blank = |url: &Option<String>| url.clone().filter(|url| !url.trim().is_empty());
        let Some(url) = blank(&facts.url).or_else(|| blank(&settings.listener_hook_url)) else { return Ok(()) };
        let target = match Target::parse(url.trim()) {
            Ok(target) => target,
            Err(problem) => {
                warn!(stream_id = %key, action = action.as_str(), problem, "listenerHookURL cannot be used");
                self.webhooks.dropped.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        };
        let make = |happening: &Happening, facts: &Facts| {
            self.outbox_record(happening, facts, &settings, url.trim(), &target.origin())
        };
        match action {
            Action::LiveStreamStarted => {
                if self.goes_on_after(happening, &make).await? {
                    // Said already; remembered, so that who takes over next does not say it either.
                    let start = withdrawn(make(happening, &facts), happening.epoch, self.wall.ms());
                    self.registry.enqueue_event(&key.app, &start).await?;
                } else {
                    self.enqueue(happening, make(happening, &facts)).await?;
                }
                let mut said = self.said();
                if said.len() >= SAID_MAX {
                    said.clear();
                }
                said.insert(key.clone(), facts);
            }
            Action::LiveStreamEnded => {
                let end = make(happening, &facts);
                match self.webhooks.backlog.goes_on(happening) {
                    Some(by) => {
                        self.registry.enqueue_event(&key.app, &withdrawn(end, by, self.wall.ms())).await?;
                    }
                    None => self.enqueue(happening, end).await?,
                }
                self.said().remove(key);
            }
            _ => self.enqueue(happening, make(happening, &facts)).await?,
        }
        Ok(())
    }

    /// Whether a start goes on with a publication whose end was not told and will not be.
    async fn goes_on_after(
        &self,
        start: &Happening,
        make: &impl Fn(&Happening, &Facts) -> OutboxRecord,
    ) -> Result<bool, RegistryError> {
        let (key, by) = (&start.key, start.epoch);
        let ended = Action::LiveStreamEnded.as_str();
        if self.registry.withdraw_events(key, ended, by, start.at_ms).await? {
            return Ok(true);
        }
        let Some(Former { epoch, goes_on, started_ms, facts }) = &start.former else { return Ok(false) };
        let of_former = |action, at_ms| {
            let happening = Happening { epoch: *epoch, action, at_ms, not_before_ms: at_ms, ..start.clone() };
            make(&happening, facts)
        };
        // Its node may have died before it could say so. Long ago it had the time, and that it did is forgotten.
        if start.at_ms.saturating_sub(*started_ms) < MEMORY_MS / 2 {
            let start_of_former = of_former(Action::LiveStreamStarted, *started_ms);
            self.registry.enqueue_event(&key.app, &start_of_former).await?;
        }
        let end = of_former(Action::LiveStreamEnded, start.at_ms);
        if !goes_on {
            self.registry.enqueue_event(&key.app, &end).await?;
            return Ok(false);
        }
        // Whoever writes first decides: this, or the end that somebody else saw.
        self.registry.enqueue_event(&key.app, &withdrawn(end, by, self.wall.ms())).await
    }

    async fn enqueue(&self, happening: &Happening, event: OutboxRecord) -> Result<(), RegistryError> {
        if event.body.len() > BODY_LEN_MAX {
            warn!(stream_id = %happening.key, bytes = event.body.len(), "a webhook event is too long and is dropped");
            self.webhooks.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.registry.enqueue_event(&happening.key.app, &event).await.map(drop)
    }

    fn outbox_record(
        &self,
        happening: &Happening,
        facts: &Facts,
        settings: &AppSettingsRecord,
        url: &str,
        target: &str,
    ) -> OutboxRecord {
        let Happening { key, epoch, action, at_ms, not_before_ms, status, .. } = happening;
        let (place, id) = match action {
            Action::LiveStreamStarted => (PLACE_FIRST, self.event_id(happening)),
            Action::LiveStreamEnded => (PLACE_LAST, self.event_id(happening)),
            _ => (*at_ms, EventId(rand::random())),
        };
        let content_type = ContentType::from_setting(settings.webhook_content_type.as_deref().unwrap_or_default());
        let mut event = Event {
            stream_id: key.id.to_string(),
            app: key.app.to_string(),
            stream_name: facts.name.clone(),
            category: facts.category.clone(),
            main_track_id: facts.main_track.clone(),
            metadata: facts.metadata.clone(),
            status: *status,
            ..Event::default()
        };
        let at = UnixMs(u64::try_from(*at_ms).unwrap_or(0));
        let body = |event: &Event| String::from_utf8_lossy(&event.body(*action, id, at, content_type)).into_owned();
        let mut text = body(&event);
        if text.len() > BODY_LEN_MAX {
            event.metadata = None;
            text = body(&event);
        }
        OutboxRecord {
            id: id.to_string(),
            stream_id: key.id.to_string(),
            epoch: i64::try_from(epoch.0).unwrap_or(i64::MAX),
            place,
            action: action.as_str().to_owned(),
            url: url.to_owned(),
            target: target.to_owned(),
            content_type: content_type.as_str().to_owned(),
            body: text,
            created: *at_ms,
            not_before: *not_before_ms,
            next_attempt: *not_before_ms,
            ..OutboxRecord::default()
        }
    }

    /// The id of what happens once in a publication. Without any key to be had it can be guessed.
    fn event_id(&self, happening: &Happening) -> EventId {
        let secret = self.config.cluster_key.as_ref().map(|key| key.derive(b"webhook events"));
        let secret = secret.as_ref().map_or(self.config.webhooks.secret.0.as_bytes(), |secret| secret.as_ref());
        let key = &happening.key;
        EventId::of(secret, key.app.as_str(), key.id.as_str(), happening.epoch.0, happening.action)
    }
}

/// An event that is not to be sent, because publication `by` makes it untrue.
fn withdrawn(event: OutboxRecord, by: Epoch, now_ms: i64) -> OutboxRecord {
    OutboxRecord {
        state: WITHDRAWN.to_owned(),
        withdrawn_by: i64::try_from(by.0).unwrap_or(i64::MAX),
        body: String::new(),
        forget_at: now_ms.saturating_add(MEMORY_MS),
        ..event
    }
}
