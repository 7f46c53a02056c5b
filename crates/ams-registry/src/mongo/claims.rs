//! A publication's life in MongoDB: claim, live, heartbeat, release, and cleaning up after a crash.
//!
//! A claim reads the record, asks [`claim::decide`], and writes only if the record still is as it was read; one who
//! comes second reads again. The epoch is taken from a counter apart from the record, so that it rises even when the
//! record was deleted meanwhile.

use ams_types::{AppName, Epoch, StreamKey};
use futures_util::TryStreamExt;
use mongodb::Database;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::options::ReturnDocument;

use super::error::{classify, is_duplicate_key};
use super::{EPOCH_COLLECTION, MongoRegistry, convert};
use crate::claim::{
    self, Claim, ClaimError, ClaimRequest, Grant, Lease, LiveInfo, ReleaseReason, Released, StreamQuality,
};
use crate::error::RegistryError;
use crate::leftovers::{self, Ended, Leftover, LeftoverRequest, Leftovers};
use crate::record::broadcast::{BroadcastRecord, EPOCH_MAX, epoch_from_stored, epoch_to_stored};
use crate::record::field::Changes;
use crate::registry::STALE_LIST_MAX;
use crate::status::{STALE_AFTER_MS, Status};

/// How often a claim begins anew because others came in between. Each time somebody else got further.
const CLAIM_ATTEMPTS_MAX: usize = 16;
/// How often an upsert is repeated that met its twin.
const UPSERT_ATTEMPTS_MAX: usize = 4;
const CLAIM: &str = "a claim";

impl MongoRegistry {
    pub(super) async fn do_claim(&self, request: &ClaimRequest) -> Result<Claim, ClaimError> {
        let database = self.app_database(&request.key.app)?;
        self.indexes.ensure(&database).await?;
        let broadcasts = self.broadcasts(&request.key.app)?;
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            let found = broadcasts.find_one(by_id(&request.key)).await.map_err(|e| classify(CLAIM, &e))?;
            let existing = found.as_ref().map(|document| self.read_broadcast(document));
            let grant = claim::decide(existing.as_ref(), request)?;
            let floor = claim::epoch_floor(existing.as_ref(), request.now_ms);
            let epoch = reserve_epoch(&database, &request.key, floor).await?;
            let won = match &found {
                None => self.insert_zombi(&database, request, epoch).await?,
                Some(read) => {
                    let update = convert::update(&claim::claim_changes(request, epoch));
                    let updated = broadcasts.update_one(convert::guard(read), update).await;
                    (updated.map_err(|e| classify(CLAIM, &e))?.matched_count > 0).then_some(epoch)
                }
            };
            if let Some(epoch) = won {
                self.forget_infos_before(&request.key, epoch, existing.as_ref()).await?;
                return Ok(granted(request, epoch, grant, existing));
            }
        }
        Err(RegistryError::Contended { operation: CLAIM }.into())
    }

    /// Makes a record for an id that had none. `None` when another claim made one first.
    async fn insert_zombi(
        &self,
        database: &Database,
        request: &ClaimRequest,
        mut epoch: Epoch,
    ) -> Result<Option<Epoch>, ClaimError> {
        let broadcasts = self.broadcasts(&request.key.app)?;
        let mut document = convert::document(&claim::zombi_record(request).fields());
        document.extend(convert::document(&claim::claim_changes(request, epoch)));
        let raw = RawDocumentBuf::try_from(&document)
            .map_err(|error| RegistryError::InvalidRequest { operation: CLAIM, reason: error.to_string() })?;
        match broadcasts.insert_one(raw).await {
            Ok(_) => {}
            Err(error) if is_duplicate_key(&error) => return Ok(None),
            Err(error) => return Err(classify(CLAIM, &error).into()),
        }
        // Between our taking an epoch and this insert, another may have taken a higher one, published and ended.
        // Then ours is too low: take the next until none was taken after it.
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            if is_latest_epoch(database, &request.key, epoch).await? {
                return Ok(Some(epoch));
            }
            let next = reserve_epoch(database, &request.key, epoch).await?;
            let lease = Lease { key: request.key.clone(), epoch, host: request.host.clone() };
            let update = doc! { "$set": { "amsEpoch": epoch_to_stored(next) } };
            let updated = broadcasts.update_one(by_lease(&lease), update).await;
            if updated.map_err(|e| classify(CLAIM, &e))?.matched_count == 0 {
                return Ok(None);
            }
            epoch = next;
        }
        Err(RegistryError::Contended { operation: CLAIM }.into())
    }

    /// Deletes the renditions of publications that a claim ended.
    async fn forget_infos_before(
        &self,
        key: &StreamKey,
        epoch: Epoch,
        previous: Option<&BroadcastRecord>,
    ) -> Result<(), RegistryError> {
        let Some(previous) = previous else { return Ok(()) };
        let mut theirs = vec![doc! { "amsEpoch": { "$lt": epoch_to_stored(epoch) } }];
        if let Some(host) = &previous.origin_address {
            theirs.push(doc! { "host": host });
        }
        let filter = doc! { "streamId": key.id.as_str(), "$or": theirs };
        let deleted = self.infos(&key.app)?.delete_many(filter).await;
        deleted.map(|_| ()).map_err(|e| classify(CLAIM, &e))
    }

    pub(super) async fn do_mark_live(&self, lease: &Lease, live: LiveInfo) -> Result<(), ClaimError> {
        const OPERATION: &str = "going live";
        self.update_held(OPERATION, lease, &claim::live_changes(lease, &live)).await?;
        let infos = self.infos(&lease.key.app)?;
        let filter = doc! { "streamId": lease.key.id.as_str(), "host": &lease.host };
        infos.delete_many(filter).await.map_err(|e| classify(OPERATION, &e))?;
        let records = claim::live_infos(lease, live);
        let documents = records.iter().map(|info| RawDocumentBuf::try_from(&convert::document(&info.fields())));
        let documents = documents
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| RegistryError::InvalidRequest { operation: OPERATION, reason: error.to_string() })?;
        if !documents.is_empty() {
            infos.insert_many(documents).await.map_err(|e| classify(OPERATION, &e))?;
        }
        Ok(())
    }

    pub(super) async fn do_heartbeat(
        &self,
        lease: &Lease,
        now_ms: i64,
        quality: &StreamQuality,
    ) -> Result<Status, ClaimError> {
        self.update_held("a stream's heartbeat", lease, &claim::heartbeat_changes(now_ms, quality)).await
    }

    /// Changes a record that the lease still holds. Returns the status it had.
    async fn update_held(
        &self,
        operation: &'static str,
        lease: &Lease,
        changes: &Changes,
    ) -> Result<Status, ClaimError> {
        let mut filter = by_lease(lease);
        filter.insert("status", doc! { "$in": [Status::Preparing.as_str(), Status::Broadcasting.as_str()] });
        let broadcasts = self.broadcasts(&lease.key.app)?;
        let updated = broadcasts.find_one_and_update(filter, convert::update(changes)).projection(doc! { "status": 1 });
        match updated.await.map_err(|e| classify(operation, &e))? {
            Some(before) => Ok(Status::from_wire(before.get_str("status").unwrap_or_default())),
            None => Err(ClaimError::Lost { epoch: lease.epoch }),
        }
    }

    pub(super) async fn do_find_stale(&self, app: &AppName, now_ms: i64) -> Result<Vec<(Lease, i64)>, RegistryError> {
        const OPERATION: &str = "finding stale streams";
        let filter = doc! {
            "status": { "$in": [Status::Preparing.as_str(), Status::Broadcasting.as_str()] },
            "updateTime": { "$lte": now_ms.saturating_sub(STALE_AFTER_MS) },
            "amsEpoch": { "$gt": 0 },
        };
        let limit = i64::try_from(STALE_LIST_MAX).unwrap_or(i64::MAX);
        let mut found = self.broadcasts(app)?.find(filter).limit(limit).await.map_err(|e| classify(OPERATION, &e))?;
        let mut stale = Vec::new();
        while let Some(document) = found.try_next().await.map_err(|e| classify(OPERATION, &e))? {
            stale.extend(Lease::of(app, &self.read_broadcast(&document)));
        }
        Ok(stale)
    }

    pub(super) async fn do_release(
        &self,
        lease: &Lease,
        reason: ReleaseReason,
        now_ms: i64,
    ) -> Result<Released, ClaimError> {
        const OPERATION: &str = "ending a stream";
        let broadcasts = self.broadcasts(&lease.key.app)?;
        let mut zombi = by_lease(lease);
        zombi.insert("zombi", true);
        let deleted = broadcasts.delete_one(zombi).await.map_err(|e| classify(OPERATION, &e))?.deleted_count > 0;
        let ended = if deleted {
            Ok(Released::Deleted)
        } else {
            let update = convert::update(&claim::end_changes(&reason.end_status(), now_ms));
            let updated = broadcasts.update_one(by_lease(lease), update).await;
            match updated.map_err(|e| classify(OPERATION, &e))?.matched_count {
                0 => Err(ClaimError::Lost { epoch: lease.epoch }),
                _ => Ok(Released::Ended),
            }
        };
        let mut renditions = doc! { "streamId": lease.key.id.as_str(), "host": &lease.host };
        if lease.epoch != Epoch(0) {
            renditions.insert("amsEpoch", epoch_to_stored(lease.epoch));
        }
        self.infos(&lease.key.app)?.delete_many(renditions).await.map_err(|e| classify(OPERATION, &e))?;
        ended
    }

    pub(super) async fn clean_app(&self, app: &AppName, request: &LeftoverRequest) -> Result<Leftovers, RegistryError> {
        const OPERATION: &str = "cleaning up";
        let broadcasts = self.broadcasts(app)?;
        let suspects = doc! { "$or": [
            { "amsNodeId": request.node.as_str() },
            { "originAdress": &request.host },
        ] };
        let mut cleaned = Leftovers::default();
        let mut found = broadcasts.find(suspects).await.map_err(|e| classify(OPERATION, &e))?;
        while let Some(read) = found.try_next().await.map_err(|e| classify(OPERATION, &e))? {
            let guard = convert::guard(&read);
            let record = self.read_broadcast(&read);
            let was_live = Ended::of(app, &record);
            let done = match leftovers::decide(&record, request) {
                Leftover::Leave => 0,
                Leftover::Delete => {
                    let deleted = broadcasts.delete_one(guard).await;
                    let deleted = deleted.map_err(|e| classify(OPERATION, &e))?.deleted_count;
                    cleaned.deleted += deleted;
                    deleted
                }
                Leftover::Finish => {
                    let update = convert::update(&claim::end_changes(&Status::Finished, request.now_ms));
                    let updated = broadcasts.update_one(guard, update).await;
                    let finished = updated.map_err(|e| classify(OPERATION, &e))?.matched_count;
                    cleaned.finished += finished;
                    finished
                }
            };
            cleaned.ended.extend(was_live.filter(|_| done > 0));
        }
        let own = doc! { "host": &request.host, "originPort": i32::from(request.origin_port) };
        let deleted = self.infos(app)?.delete_many(own).await;
        cleaned.infos_deleted = deleted.map_err(|e| classify(OPERATION, &e))?.deleted_count;
        Ok(cleaned)
    }
}

fn granted(request: &ClaimRequest, epoch: Epoch, grant: Grant, existing: Option<BroadcastRecord>) -> Claim {
    Claim {
        lease: Lease { key: request.key.clone(), epoch, host: request.host.clone() },
        zombi: existing.as_ref().is_none_or(|record| record.zombi),
        grant,
        previous: existing.map(Box::new),
    }
}

fn by_id(key: &StreamKey) -> Document {
    doc! { "streamId": key.id.as_str() }
}

/// Matches the record while the lease is the latest and no other program has taken the stream over.
fn by_lease(lease: &Lease) -> Document {
    let epoch = match lease.epoch {
        // A record another program wrote has none.
        Epoch(0) => doc! { "$in": [0_i64, Bson::Null] },
        epoch => doc! { "$eq": epoch_to_stored(epoch) },
    };
    doc! { "streamId": lease.key.id.as_str(), "amsEpoch": epoch, "originAdress": &lease.host }
}

/// Takes the next epoch of a stream, at least `floor`. Each number is given out once.
async fn reserve_epoch(database: &Database, key: &StreamKey, floor: Epoch) -> Result<Epoch, RegistryError> {
    let counters = database.collection::<RawDocumentBuf>(EPOCH_COLLECTION);
    let sound = doc! { "$and": [
        { "$isNumber": "$epoch" }, { "$gte": ["$epoch", 0_i64] }, { "$lt": ["$epoch", EPOCH_MAX - i64::from(claim::EPOCHS_PER_MS)] },
    ] };
    let last = doc! { "$cond": [sound, { "$toLong": "$epoch" }, 0_i64] };
    let next = doc! { "$max": [epoch_to_stored(floor), { "$add": [last, i64::from(claim::epoch_step())] }] };
    let step = doc! { "$set": { "epoch": next, "at": "$$NOW" } };
    for _ in 0..UPSERT_ATTEMPTS_MAX {
        let answer = counters
            .find_one_and_update(doc! { "_id": key.id.as_str() }, vec![step.clone()])
            .upsert(true)
            .return_document(ReturnDocument::After)
            .await;
        match answer {
            Ok(Some(counter)) => return Ok(epoch_from_stored(counter.get_i64("epoch").unwrap_or_default())),
            Ok(None) => {}
            Err(error) if is_duplicate_key(&error) => {}
            Err(error) => return Err(classify(CLAIM, &error)),
        }
    }
    Err(RegistryError::Contended { operation: CLAIM })
}

/// Whether no epoch above `epoch` was given out.
async fn is_latest_epoch(database: &Database, key: &StreamKey, epoch: Epoch) -> Result<bool, RegistryError> {
    let counters = database.collection::<RawDocumentBuf>(EPOCH_COLLECTION);
    let filter = doc! { "_id": key.id.as_str(), "epoch": epoch_to_stored(epoch) };
    let found = counters.find_one(filter).await.map_err(|e| classify(CLAIM, &e))?;
    Ok(found.is_some())
}
