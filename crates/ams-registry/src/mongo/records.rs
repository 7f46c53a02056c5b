//! Finding, listing and editing records in MongoDB.
//!
//! Edits name the fields they change, so that fields nobody here knows stay as they are.

use std::collections::BTreeSet;

use ams_types::{AppName, Epoch, StreamId, StreamKey};
use futures_util::{TryFutureExt, TryStreamExt};
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::error::{classify, is_duplicate_key};
use super::{MongoRegistry, convert};
use crate::error::RegistryError;
use crate::record::broadcast::{BroadcastRecord, epoch_to_stored};
use crate::record::edit::BroadcastEdit;
use crate::registry::{BROADCAST_LIST_MAX, FIND_LIVE_IDS_MAX, StreamLocation, Upserted};
use crate::status::Status;

/// Most renditions of one stream that are read.
const INFOS_MAX: i64 = 64;

impl MongoRegistry {
    pub(super) async fn do_lookup(
        &self,
        key: &StreamKey,
        now_ms: i64,
    ) -> Result<Option<StreamLocation>, RegistryError> {
        const OPERATION: &str = "finding a stream";
        let infos = self.infos(&key.app)?;
        let infos = async {
            let found = infos.find(doc! { "streamId": key.id.as_str() }).limit(INFOS_MAX).await?;
            found.try_collect::<Vec<RawDocumentBuf>>().await
        };
        let infos = infos.map_err(|e| classify(OPERATION, &e));
        let (broadcast, infos) = tokio::try_join!(self.do_get(key), infos)?;
        let infos = infos.iter().map(|info| self.read_info(info)).collect();
        Ok(broadcast.map(|broadcast| StreamLocation::new(broadcast, infos, now_ms)))
    }

    pub(super) async fn do_find_live(
        &self,
        app: &AppName,
        ids: &[StreamId],
        now_ms: i64,
    ) -> Result<Vec<StreamId>, RegistryError> {
        const OPERATION: &str = "finding live streams";
        let broadcasts = self.broadcasts(app)?;
        let mut live = BTreeSet::new();
        for ids in ids.chunks(FIND_LIVE_IDS_MAX) {
            let names: Vec<&str> = ids.iter().map(StreamId::as_str).collect();
            let filter = doc! { "streamId": { "$in": names }, "status": Status::Broadcasting.as_str() };
            let fields = doc! { "streamId": 1, "status": 1, "updateTime": 1, "virtual": 1 };
            let mut found = broadcasts.find(filter).projection(fields).await.map_err(|e| classify(OPERATION, &e))?;
            while let Some(document) = found.try_next().await.map_err(|e| classify(OPERATION, &e))? {
                let record = self.read_broadcast(&document);
                if record.effective_status(now_ms) == Status::Broadcasting {
                    live.insert(record.stream_id);
                }
            }
        }
        Ok(ids.iter().filter(|id| live.contains(id.as_str())).cloned().collect())
    }

    pub(super) async fn do_get(&self, key: &StreamKey) -> Result<Option<BroadcastRecord>, RegistryError> {
        let found = self.broadcasts(&key.app)?.find_one(doc! { "streamId": key.id.as_str() }).await;
        let found = found.map_err(|e| classify("reading a broadcast", &e))?;
        Ok(found.map(|document| self.read_broadcast(&document)))
    }

    pub(super) async fn do_list(
        &self,
        app: &AppName,
        offset: usize,
        size: usize,
    ) -> Result<Vec<BroadcastRecord>, RegistryError> {
        const OPERATION: &str = "listing broadcasts";
        if size == 0 {
            return Ok(Vec::new());
        }
        let size = i64::try_from(size.min(BROADCAST_LIST_MAX)).unwrap_or(1);
        // The server takes a signed number.
        let offset = u64::try_from(offset).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs());
        let broadcasts = self.broadcasts(app)?;
        let found = broadcasts.find(Document::new()).sort(doc! { "_id": 1 }).skip(offset).limit(size).await;
        let found = found.map_err(|e| classify(OPERATION, &e))?;
        let documents: Vec<_> = found.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        Ok(documents.iter().map(|document| self.read_broadcast(document)).collect())
    }

    pub(super) async fn do_count(&self, app: &AppName) -> Result<u64, RegistryError> {
        let count = self.broadcasts(app)?.count_documents(Document::new()).await;
        count.map_err(|e| classify("counting broadcasts", &e))
    }

    pub(super) async fn do_create(&self, key: &StreamKey, record: &BroadcastRecord) -> Result<bool, RegistryError> {
        const OPERATION: &str = "making a broadcast";
        let mut document = convert::document(&record.fields());
        document.insert("streamId", key.id.as_str());
        document.extend(extra(record));
        let raw = RawDocumentBuf::try_from(&document)
            .map_err(|error| RegistryError::InvalidRequest { operation: OPERATION, reason: error.to_string() })?;
        self.indexes.ensure(&self.app_database(&key.app)?).await?;
        match self.broadcasts(&key.app)?.insert_one(raw).await {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate_key(&error) => Ok(false),
            Err(error) => Err(classify(OPERATION, &error)),
        }
    }

    pub(super) async fn do_upsert(&self, key: &StreamKey, record: &BroadcastRecord) -> Result<Upserted, RegistryError> {
        const OPERATION: &str = "updating a broadcast";
        self.indexes.ensure(&self.app_database(&key.app)?).await?;
        let mut update = convert::update(&record.descriptive_fields());
        let mut on_insert = convert::document(&record.publication_fields());
        on_insert.extend(extra(record));
        update.insert("$setOnInsert", on_insert);
        let broadcasts = self.broadcasts(&key.app)?;
        // Two upserts of a new id can meet; the one that comes second finds a record to update.
        for _ in 0..2 {
            let filter = doc! { "streamId": key.id.as_str() };
            match broadcasts.update_one(filter, update.clone()).upsert(true).await {
                Ok(done) if done.upserted_id.is_some() => return Ok(Upserted::Created),
                Ok(done) if done.modified_count > 0 => return Ok(Upserted::Changed),
                Ok(_) => return Ok(Upserted::Unchanged),
                Err(error) if is_duplicate_key(&error) => {}
                Err(error) => return Err(classify(OPERATION, &error)),
            }
        }
        Err(RegistryError::Contended { operation: OPERATION })
    }

    pub(super) async fn do_edit(
        &self,
        key: &StreamKey,
        edit: &BroadcastEdit,
    ) -> Result<Option<Upserted>, RegistryError> {
        let filter = doc! { "streamId": key.id.as_str() };
        let changes = edit.changes();
        if changes.is_empty() {
            return Ok(self.do_get(key).await?.map(|_| Upserted::Unchanged));
        }
        let done = self.broadcasts(&key.app)?.update_one(filter, convert::update(changes)).await;
        let done = done.map_err(|e| classify("editing a broadcast", &e))?;
        Ok(match (done.matched_count, done.modified_count) {
            (0, _) => None,
            (_, 0) => Some(Upserted::Unchanged),
            _ => Some(Upserted::Changed),
        })
    }

    pub(super) async fn do_delete(&self, key: &StreamKey) -> Result<bool, RegistryError> {
        const OPERATION: &str = "deleting a broadcast";
        let filter = doc! { "streamId": key.id.as_str() };
        let deleted = self.broadcasts(&key.app)?.delete_many(filter.clone()).await;
        let deleted = deleted.map_err(|e| classify(OPERATION, &e))?.deleted_count;
        self.infos(&key.app)?.delete_many(filter).await.map_err(|e| classify(OPERATION, &e))?;
        Ok(deleted > 0)
    }

    pub(super) async fn do_set_viewer_count(
        &self,
        key: &StreamKey,
        epoch: Option<Epoch>,
        viewers: u32,
    ) -> Result<bool, RegistryError> {
        let mut filter = doc! { "streamId": key.id.as_str() };
        if let Some(epoch) = epoch {
            filter.insert("amsEpoch", epoch_to_stored(epoch));
        }
        let update = doc! { "$set": { "webRTCViewerCount": i32::try_from(viewers).unwrap_or(i32::MAX) } };
        let updated = self.broadcasts(&key.app)?.update_one(filter, update).await;
        Ok(updated.map_err(|e| classify("counting viewers", &e))?.matched_count > 0)
    }
}

/// Unknown fields of a record that is being made.
fn extra(record: &BroadcastRecord) -> Document {
    record.insertable_extra().map(|(name, value)| (name.clone(), convert::json_to_bson(value))).collect()
}
