//! Applications' settings and the streams' small documents in MongoDB.

use ams_types::{AppName, StreamKey};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::error::{classify, is_duplicate_key};
use super::{MongoRegistry, convert};
use crate::error::RegistryError;
use crate::record::JsonMap;
use crate::record::field::Field;
use crate::record::settings::{self, AppSettingsRecord};
use crate::record::token::{Shelf, TokenRecord, TokenUse};
use crate::registry::{APP_SETTINGS_MAX, DOCUMENT_LIST_MAX, DOCUMENTS_PER_STREAM_MAX, Upserted};

impl MongoRegistry {
    fn settings(&self) -> Collection<RawDocumentBuf> {
        self.cluster_database().collection(settings::COLLECTION)
    }

    pub(super) async fn do_list_app_settings(&self) -> Result<Vec<AppSettingsRecord>, RegistryError> {
        const OPERATION: &str = "reading applications' settings";
        let limit = i64::try_from(APP_SETTINGS_MAX).unwrap_or(i64::MAX);
        let found = self.settings().find(Document::new()).sort(doc! { "_id": 1 }).limit(limit).await;
        let documents: Vec<RawDocumentBuf> =
            found.map_err(|e| classify(OPERATION, &e))?.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        let read = |document: &RawDocumentBuf| {
            let mut map = convert::to_json(document);
            for mapper in ["_id", "_t", "className"] {
                map.remove(mapper);
            }
            self.misreads.note(settings::COLLECTION, AppSettingsRecord::from_json(map))
        };
        Ok(documents.iter().map(read).collect())
    }

    pub(super) async fn do_put_app_settings(
        &self,
        app: &AppName,
        settings: &AppSettingsRecord,
    ) -> Result<(), RegistryError> {
        const OPERATION: &str = "writing an application's settings";
        let mut fields = settings.fields();
        fields.retain(|(name, _)| *name != "appName");
        fields.push(("appName", Field::Text(app.to_string())));
        let mut update = convert::update(&fields);
        let extra = settings.extra.iter().filter(|(name, _)| is_plain(name));
        let extra: Document = extra.map(|(name, value)| (name.clone(), convert::json_to_bson(value))).collect();
        if let Ok(set) = update.get_document_mut("$set") {
            set.extend(extra);
        }
        // Its own id, so that two that make it at one time meet.
        update.insert("$setOnInsert", doc! { "_id": app.as_str() });
        for _ in 0..2 {
            let filter = doc! { "appName": app.as_str() };
            match self.settings().update_one(filter, update.clone()).upsert(true).await {
                Ok(_) => return Ok(()),
                Err(error) if is_duplicate_key(&error) => {}
                Err(error) => return Err(classify(OPERATION, &error)),
            }
        }
        Err(RegistryError::Contended { operation: OPERATION })
    }

    fn shelf(&self, key: &StreamKey, shelf: Shelf) -> Result<Collection<RawDocumentBuf>, RegistryError> {
        Ok(self.app_database(&key.app)?.collection(shelf.collection()))
    }

    pub(super) async fn do_put_document(
        &self,
        key: &StreamKey,
        shelf: Shelf,
        id: &str,
        document: &JsonMap,
    ) -> Result<Upserted, RegistryError> {
        const OPERATION: &str = "writing a stream's document";
        self.indexes.ensure(&self.app_database(&key.app)?).await?;
        let documents = self.shelf(key, shelf)?;
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        let (mut set, mut unset) = (Document::new(), Document::new());
        for (name, value) in document.iter().filter(|(name, _)| is_plain(name)) {
            let fields = if value.is_null() { &mut unset } else { &mut set };
            fields.insert(name.clone(), convert::json_to_bson(value));
        }
        for (name, value) in [("streamId", key.id.as_str()), (shelf.id_field(), id)] {
            unset.remove(name);
            set.insert(name, value);
        }
        let filter = doc! { "streamId": key.id.as_str(), shelf.id_field(): id };
        let is_new =
            shelf == Shelf::ConnectionEvents || documents.find_one(filter.clone()).await.map_err(failed)?.is_none();
        if is_new {
            let of_stream = doc! { "streamId": key.id.as_str() };
            let count = documents.count_documents(of_stream).limit(DOCUMENTS_PER_STREAM_MAX).await.map_err(failed)?;
            if count >= DOCUMENTS_PER_STREAM_MAX && shelf == Shelf::ConnectionEvents {
                let oldest = doc! { "streamId": key.id.as_str() };
                documents.find_one_and_delete(oldest).sort(doc! { "_id": 1 }).await.map_err(failed)?;
            } else if count >= DOCUMENTS_PER_STREAM_MAX {
                return Err(too_many(OPERATION));
            }
        }
        if shelf == Shelf::ConnectionEvents {
            let raw = RawDocumentBuf::try_from(&set)
                .map_err(|error| RegistryError::InvalidRequest { operation: OPERATION, reason: error.to_string() })?;
            documents.insert_one(raw).await.map_err(failed)?;
            return Ok(Upserted::Created);
        }
        let mut update = doc! { "$set": set };
        if !unset.is_empty() {
            update.insert("$unset", unset);
        }
        let done = documents.update_one(filter, update).upsert(true).await.map_err(failed)?;
        Ok(match done {
            done if done.upserted_id.is_some() => Upserted::Created,
            done if done.modified_count > 0 => Upserted::Changed,
            _ => Upserted::Unchanged,
        })
    }

    pub(super) async fn do_list_documents(
        &self,
        key: &StreamKey,
        shelf: Shelf,
        id: Option<&str>,
        offset: usize,
        size: usize,
    ) -> Result<Vec<JsonMap>, RegistryError> {
        const OPERATION: &str = "listing a stream's documents";
        let size = size.min(DOCUMENT_LIST_MAX);
        if size == 0 {
            return Ok(Vec::new());
        }
        let offset = u64::try_from(offset).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs());
        let limit = i64::try_from(size).unwrap_or(1);
        let documents = self.shelf(key, shelf)?;
        let found = documents.find(of(key, shelf, id)).sort(doc! { "_id": 1 });
        let found = found.skip(offset).limit(limit).await.map_err(|e| classify(OPERATION, &e))?;
        let documents: Vec<RawDocumentBuf> = found.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        Ok(documents.iter().map(|document| without_mapper(convert::to_json(document))).collect())
    }

    pub(super) async fn do_delete_expired_tokens(&self, key: &StreamKey, now_secs: i64) -> Result<u64, RegistryError> {
        let expired = doc! { "streamId": key.id.as_str(), "expireDate": { "$lt": now_secs } };
        let deleted = self.shelf(key, Shelf::Tokens)?.delete_many(expired).await;
        Ok(deleted.map_err(|e| classify("deleting expired tokens", &e))?.deleted_count)
    }

    pub(super) async fn do_find_token(
        &self,
        app: &AppName,
        token_id: &str,
    ) -> Result<Option<TokenRecord>, RegistryError> {
        let tokens: Collection<RawDocumentBuf> = self.app_database(app)?.collection(Shelf::Tokens.collection());
        let found = tokens.find_one(doc! { "tokenId": token_id }).sort(doc! { "_id": 1 }).await;
        let found = found.map_err(|e| classify("finding a token", &e))?;
        let read = |document: RawDocumentBuf| {
            let document = without_mapper(convert::to_json(&document));
            self.misreads.note(Shelf::Tokens.collection(), TokenRecord::from_json(document))
        };
        Ok(found.map(read))
    }

    pub(super) async fn do_use_token(
        &self,
        key: &StreamKey,
        token_id: &str,
        before: Option<&TokenUse>,
        after: &TokenUse,
    ) -> Result<bool, RegistryError> {
        let used = |by: &TokenUse| doc! { "amsUsedBy": by.by.as_str(), "amsUsedAt": by.at_ms };
        let before = before.map_or_else(|| doc! { "amsUsedBy": null }, used);
        let mut filter = of(key, Shelf::Tokens, Some(token_id));
        // A call whose answer was lost may be repeated.
        filter.insert("$or", vec![before, used(after)]);
        let done = self.shelf(key, Shelf::Tokens)?.update_one(filter, doc! { "$set": used(after) }).await;
        Ok(done.map_err(|e| classify("using a token up", &e))?.matched_count > 0)
    }

    pub(super) async fn do_delete_documents(
        &self,
        key: &StreamKey,
        shelf: Shelf,
        id: Option<&str>,
    ) -> Result<u64, RegistryError> {
        let deleted = self.shelf(key, shelf)?.delete_many(of(key, shelf, id)).await;
        Ok(deleted.map_err(|e| classify("deleting a stream's documents", &e))?.deleted_count)
    }
}

fn of(key: &StreamKey, shelf: Shelf, id: Option<&str>) -> Document {
    let mut filter = doc! { "streamId": key.id.as_str() };
    if let Some(id) = id {
        filter.insert(shelf.id_field(), id);
    }
    filter
}

fn without_mapper(mut document: JsonMap) -> JsonMap {
    for mapper in ["_id", "_t", "className"] {
        document.remove(mapper);
    }
    document
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0']) && !["_id", "appName"].contains(&name)
}

/// A stream has all the documents of one kind it may have.
pub(crate) fn too_many(operation: &'static str) -> RegistryError {
    let reason = format!("the stream has {DOCUMENTS_PER_STREAM_MAX} of them already; delete some");
    RegistryError::InvalidRequest { operation, reason }
}
