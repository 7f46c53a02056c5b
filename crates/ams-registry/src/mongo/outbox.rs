//! The webhook outbox in MongoDB: one document per event, leased by compare-and-set.
//!
//! An event is due when its time has come and no earlier event of its stream waits. What is due but blocked is put off,
//! so that it does not hide others from those who look; the one in front calls the next when it is done.

use std::collections::BTreeMap;

use ams_types::{AppName, Epoch, NodeId, StreamKey};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::ReturnDocument;

use super::error::{classify, is_duplicate_key};
use super::{MongoRegistry, convert};
use crate::error::RegistryError;
use crate::outbox::{DROP_MAX, OutboxReport, OutboxRules, Shares, TAKE_MAX, TakeEvents};
use crate::record::broadcast::epoch_to_stored;
use crate::record::outbox::{
    COLLECTION, DEAD, DEAD_MEMORY_MS, DONE, MEMORY_MS, OutboxRecord, PLACE_FIRST, PLACE_LAST, WAITING, WITHDRAWN,
};
use crate::registry::DOCUMENT_LIST_MAX;

/// Due events looked at in one call.
const LOOKED_AT_MAX: i64 = 256;
/// Longest a blocked event is put off; by then it is looked at again, whoever was to call it.
const BLOCKED_MS_MAX: i64 = 10_000;

impl MongoRegistry {
    fn outbox(&self, app: &AppName) -> Result<Collection<RawDocumentBuf>, RegistryError> {
        Ok(self.app_database(app)?.collection(COLLECTION))
    }

    fn read_event(&self, document: &RawDocumentBuf) -> OutboxRecord {
        self.misreads.note(COLLECTION, OutboxRecord::from_json(convert::to_json(document)))
    }

    pub(super) async fn do_enqueue_event(&self, app: &AppName, event: &OutboxRecord) -> Result<bool, RegistryError> {
        const OPERATION: &str = "keeping a webhook event";
        self.indexes.ensure(&self.app_database(app)?).await?;
        let document = RawDocumentBuf::try_from(&convert::document(&event.fields()))
            .map_err(|error| RegistryError::InvalidRequest { operation: OPERATION, reason: error.to_string() })?;
        match self.outbox(app)?.insert_one(document).await {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate_key(&error) => Ok(false),
            Err(error) => Err(classify(OPERATION, &error)),
        }
    }

    pub(super) async fn do_withdraw_events(
        &self,
        key: &StreamKey,
        action: &str,
        by: Epoch,
        at_ms: i64,
    ) -> Result<bool, RegistryError> {
        const OPERATION: &str = "withdrawing webhook events";
        let outbox = self.outbox(&key.app)?;
        let by = epoch_to_stored(by);
        let waiting = doc! {
            "streamId": key.id.as_str(), "action": action, "state": WAITING, "epoch": { "$lt": by }, "attempts": 0,
            "notBefore": { "$gt": at_ms }, "leasedUntil": { "$lte": at_ms },
        };
        let withdrawn =
            doc! { "$set": { "state": WITHDRAWN, "withdrawnBy": by, "body": "", "forgetAt": at_ms + MEMORY_MS } };
        let done = outbox.update_many(waiting, withdrawn).await.map_err(|e| classify(OPERATION, &e))?;
        if done.matched_count > 0 {
            return Ok(true);
        }
        // Said before, and the answer was lost.
        let before = doc! { "streamId": key.id.as_str(), "state": WITHDRAWN, "action": action, "withdrawnBy": by };
        Ok(outbox.find_one(before).await.map_err(|e| classify(OPERATION, &e))?.is_some())
    }

    pub(super) async fn do_take_events(
        &self,
        app: &AppName,
        take: &TakeEvents,
    ) -> Result<Vec<OutboxRecord>, RegistryError> {
        const OPERATION: &str = "taking webhook events";
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        let outbox = self.outbox(app)?;
        let due = doc! {
            "state": WAITING, "nextAttempt": { "$lte": take.now_ms }, "leasedUntil": { "$lte": take.now_ms },
            "target": { "$nin": &take.not_to },
        };
        let found = outbox.find(due).sort(doc! { "nextAttempt": 1, "epoch": 1, "place": 1 }).limit(LOOKED_AT_MAX);
        let found: Vec<RawDocumentBuf> = found.await.map_err(failed)?.try_collect().await.map_err(failed)?;
        let mut streams: Vec<(String, Vec<OutboxRecord>)> = Vec::new();
        for event in found.iter().map(|document| self.read_event(document)) {
            match streams.iter_mut().find(|(stream, _)| *stream == event.stream_id) {
                Some((_, events)) => events.push(event),
                None => streams.push((event.stream_id.clone(), vec![event])),
            }
        }
        let fronts = self.fronts(&outbox, streams.iter().map(|(stream, _)| stream.as_str()).collect()).await?;
        let (mut taken, mut shares) = (Vec::new(), Shares::default());
        for (stream, events) in streams {
            let Some(front) = fronts.get(&stream) else { continue };
            let mut until = front.next_attempt.max(front.leased_until);
            if let Some(first) = events.iter().find(|event| event.id == front.id) {
                if taken.len() >= take.max.min(TAKE_MAX) || !shares.take(first, take.per_target) {
                    continue;
                }
                until = take.until_ms;
                let free = doc! { "_id": &first.id, "state": WAITING, "leasedUntil": { "$lte": take.now_ms } };
                let lease = doc! { "$set": { "leasedBy": take.node.as_str(), "leasedUntil": take.until_ms } };
                let leased = outbox.find_one_and_update(free, lease).return_document(ReturnDocument::After);
                taken.extend(leased.await.map_err(failed)?.map(|document| self.read_event(&document)));
            }
            let blocked: Vec<&str> =
                events.iter().filter(|event| event.id != front.id).map(|event| event.id.as_str()).collect();
            if !blocked.is_empty() {
                let until = until.min(take.now_ms + BLOCKED_MS_MAX);
                // One that was called meanwhile stays called.
                let still = doc! { "_id": { "$in": blocked }, "nextAttempt": { "$lte": take.now_ms } };
                let later = doc! { "$set": { "nextAttempt": until } };
                outbox.update_many(still, later).await.map_err(failed)?;
            }
        }
        Ok(taken)
    }

    /// The first event that waits of each stream.
    async fn fronts(
        &self,
        outbox: &Collection<RawDocumentBuf>,
        streams: Vec<&str>,
    ) -> Result<BTreeMap<String, OutboxRecord>, RegistryError> {
        const OPERATION: &str = "taking webhook events";
        if streams.is_empty() {
            return Ok(BTreeMap::new());
        }
        let first = |field: &str| doc! { "$first": format!("${field}") };
        let stages = [
            doc! { "$match": { "streamId": { "$in": streams }, "state": WAITING } },
            doc! { "$sort": { "streamId": 1, "state": 1, "epoch": 1, "place": 1 } },
            doc! { "$group": {
                "_id": "$streamId", "event": first("_id"), "nextAttempt": first("nextAttempt"),
                "leasedUntil": first("leasedUntil"),
            } },
            doc! { "$project": {
                "_id": "$event", "streamId": "$_id", "nextAttempt": 1, "leasedUntil": 1,
            } },
        ];
        let found = outbox.aggregate(stages).await.map_err(|e| classify(OPERATION, &e))?;
        let found: Vec<Document> = found.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        let read = |document: Document| {
            let document = RawDocumentBuf::try_from(&document).ok()?;
            let event = self.read_event(&document);
            Some((event.stream_id.clone(), event))
        };
        Ok(found.into_iter().filter_map(read).collect())
    }

    pub(super) async fn do_event_done(
        &self,
        key: &StreamKey,
        id: &str,
        node: &NodeId,
        now_ms: i64,
    ) -> Result<bool, RegistryError> {
        const OPERATION: &str = "closing a webhook event";
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        let outbox = self.outbox(&key.app)?;
        let ours = || doc! { "_id": id, "leasedBy": node.as_str(), "state": WAITING };
        let mut once = ours();
        once.insert("place", doc! { "$in": [PLACE_FIRST, PLACE_LAST] });
        let done = doc! { "$set": { "state": DONE, "body": "", "forgetAt": now_ms + MEMORY_MS } };
        let mut closed = outbox.update_one(once, done).await.map_err(failed)?.matched_count;
        if closed == 0 {
            closed = outbox.delete_one(ours()).await.map_err(failed)?.deleted_count;
        }
        // Whoever waited behind it.
        let next = doc! { "streamId": key.id.as_str(), "state": WAITING };
        let call = vec![doc! { "$set": { "nextAttempt": { "$max": [now_ms, "$notBefore"] } } }];
        let called = outbox.find_one_and_update(next, call).sort(doc! { "epoch": 1, "place": 1 });
        called.await.map_err(failed)?;
        Ok(closed > 0)
    }

    pub(super) async fn do_event_failed(
        &self,
        key: &StreamKey,
        id: &str,
        node: &NodeId,
        next_ms: i64,
    ) -> Result<bool, RegistryError> {
        const OPERATION: &str = "putting a webhook event off";
        let ours = doc! { "_id": id, "leasedBy": node.as_str(), "state": WAITING };
        let later = doc! { "$set": { "nextAttempt": next_ms, "leasedUntil": 0_i64 }, "$inc": { "attempts": 1 } };
        let done = self.outbox(&key.app)?.update_one(ours, later).await.map_err(|e| classify(OPERATION, &e))?;
        Ok(done.matched_count > 0)
    }

    pub(super) async fn do_tend_outbox(
        &self,
        app: &AppName,
        rules: &OutboxRules,
    ) -> Result<OutboxReport, RegistryError> {
        const OPERATION: &str = "tending the webhook outbox";
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        let outbox = self.outbox(app)?;
        let forgotten = doc! { "forgetAt": { "$gt": 0_i64, "$lt": rules.now_ms } };
        outbox.delete_many(forgotten).await.map_err(failed)?;
        let old = doc! {
            "state": WAITING, "createdAt": { "$lt": rules.given_up_before_ms },
            "attempts": { "$gte": rules.attempts_min }, "leasedUntil": { "$lte": rules.now_ms },
        };
        let dead = doc! { "$set": { "state": DEAD, "forgetAt": rules.now_ms + DEAD_MEMORY_MS } };
        let given_up = outbox.update_many(old, dead).await.map_err(failed)?.modified_count;
        let (waiting, dropped) = self.trim(&outbox, WAITING, rules).await?;
        let (dead, _) = self.trim(&outbox, DEAD, rules).await?;
        Ok(OutboxReport { waiting, dead, given_up, dropped })
    }

    /// Drops the oldest events of a state beyond the bound. How many are left, and how many were dropped.
    async fn trim(
        &self,
        outbox: &Collection<RawDocumentBuf>,
        state: &str,
        rules: &OutboxRules,
    ) -> Result<(u64, u64), RegistryError> {
        const OPERATION: &str = "tending the webhook outbox";
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        let count = outbox.count_documents(doc! { "state": state }).await.map_err(failed)?;
        let beyond = count.saturating_sub(rules.waiting_max as u64).min(DROP_MAX as u64);
        if beyond == 0 {
            return Ok((count, 0));
        }
        let oldest = outbox.find(doc! { "state": state, "leasedUntil": { "$lte": rules.now_ms } });
        let oldest = oldest.sort(doc! { "createdAt": 1 }).limit(i64::try_from(beyond).unwrap_or(1));
        let oldest = oldest.projection(doc! { "_id": 1 }).await.map_err(failed)?;
        let oldest: Vec<RawDocumentBuf> = oldest.try_collect().await.map_err(failed)?;
        let ids: Vec<String> = oldest.iter().map(|document| self.read_event(document).id).collect();
        let dropped = outbox.delete_many(doc! { "_id": { "$in": ids }, "state": state }).await.map_err(failed)?;
        Ok((count.saturating_sub(dropped.deleted_count), dropped.deleted_count))
    }

    pub(super) async fn do_list_dead_events(
        &self,
        app: &AppName,
        offset: usize,
        size: usize,
    ) -> Result<Vec<OutboxRecord>, RegistryError> {
        const OPERATION: &str = "listing webhook events";
        let size = size.min(DOCUMENT_LIST_MAX);
        if size == 0 {
            return Ok(Vec::new());
        }
        let offset = u64::try_from(offset).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs());
        let outbox = self.outbox(app)?;
        let found = outbox.find(doc! { "state": DEAD }).sort(doc! { "createdAt": 1, "_id": 1 });
        let found = found.skip(offset).limit(i64::try_from(size).unwrap_or(1)).await;
        let found: Vec<RawDocumentBuf> =
            found.map_err(|e| classify(OPERATION, &e))?.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        Ok(found.iter().map(|document| self.read_event(document)).collect())
    }
}
