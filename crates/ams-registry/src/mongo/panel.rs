//! The panel's users and shared entries in MongoDB: database `serverdb`.
//!
//! AMS keeps its users in collection `user`; its older releases, and its documentation, in `User`. Both are read, a
//! document is written where it is, and a new one goes where the others are.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use mongodb::options::IndexOptions;
use mongodb::{Collection, Database, IndexModel};
use serde_json::Value;

use super::error::{classify, is_duplicate_key};
use super::{MongoRegistry, convert};
use crate::error::RegistryError;
use crate::panel::{EMAIL, PanelStore, SHARED_LEN_MAX, Shared, Swap, USERS_MAX, email_of, invalid, is_field};
use crate::record::JsonMap;
use crate::registry::Answer;

/// Database of what belongs to the server, not to an application.
const SERVER_DATABASE: &str = "serverdb";
/// Where users are, the present name first.
const USER_COLLECTIONS: [&str; 2] = ["user", "User"];
/// Where shared entries are: AMS has no such collection.
const SHARED_COLLECTION: &str = "amsShared";

impl MongoRegistry {
    fn server_database(&self) -> Database {
        self.client.database(&format!("{}{SERVER_DATABASE}", self.config.database_prefix))
    }

    fn users(&self) -> [Collection<RawDocumentBuf>; 2] {
        USER_COLLECTIONS.map(|name| self.server_database().collection(name))
    }

    fn shared(&self) -> Collection<RawDocumentBuf> {
        self.server_database().collection(SHARED_COLLECTION)
    }

    async fn do_find_user(&self, email: &str) -> Result<Option<JsonMap>, RegistryError> {
        for users in self.users() {
            let found = users.find_one(doc! { EMAIL: email }).await.map_err(|e| classify("finding a user", &e))?;
            if let Some(found) = found {
                return Ok(Some(read(&found)));
            }
        }
        Ok(None)
    }

    async fn do_list_users(&self) -> Result<Vec<JsonMap>, RegistryError> {
        const OPERATION: &str = "listing users";
        let limit = i64::try_from(USERS_MAX).unwrap_or(i64::MAX);
        let mut all: Vec<JsonMap> = Vec::new();
        for users in self.users() {
            let found = users.find(Document::new()).limit(limit).await.map_err(|e| classify(OPERATION, &e))?;
            let found: Vec<RawDocumentBuf> = found.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
            // Of one name in both, the present collection's counts.
            let new: Vec<_> =
                found.iter().map(read).filter(|user| !all.iter().any(|known| same(known, user))).collect();
            all.extend(new);
        }
        all.sort_by(|a, b| email_of(a).cmp(&email_of(b)));
        all.truncate(USERS_MAX);
        Ok(all)
    }

    async fn do_has_users(&self) -> Result<bool, RegistryError> {
        for users in self.users() {
            if users.find_one(Document::new()).await.map_err(|e| classify("looking for users", &e))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn do_create_user(&self, user: &JsonMap, first: bool) -> Result<bool, RegistryError> {
        const OPERATION: &str = "making a user";
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        let email = email_of(user).ok_or_else(|| invalid(OPERATION, "a user needs a name"))?;
        let taken = if first { self.do_has_users().await? } else { self.do_find_user(email).await?.is_some() };
        if taken {
            return Ok(false);
        }
        let [present, former] = self.users();
        let mut count = 0;
        for users in [&present, &former] {
            count += users.estimated_document_count().await.map_err(failed)?;
        }
        if count >= USERS_MAX as u64 {
            return Err(invalid(OPERATION, "there are too many users already; delete some"));
        }
        // Where an older release reads, a user in the present collection would be nobody.
        let has = async |users: &Collection<RawDocumentBuf>| users.find_one(Document::new()).await.map_err(failed);
        let is_former = has(&present).await?.is_none() && has(&former).await?.is_some();
        let mut document = doc! { EMAIL: email };
        let fields = user.iter().filter(|(name, value)| is_field(name) && !value.is_null());
        document.extend(fields.map(|(name, value)| (name.clone(), convert::json_to_bson(value))));
        // Two that make one user, or two first users, meet at the id; AMS's index says nothing of doubles.
        document.insert("_id", if first { object_id("the first user") } else { object_id(&format!("user {email}")) });
        let raw = RawDocumentBuf::try_from(&document).map_err(|error| invalid(OPERATION, &error.to_string()))?;
        match if is_former { former } else { present }.insert_one(raw).await {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate_key(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn do_edit_user(&self, email: &str, set: &JsonMap, unless_changed: &JsonMap) -> Result<bool, RegistryError> {
        let (mut fields, mut gone) = (Document::new(), Document::new());
        for (name, value) in set.iter().filter(|(name, _)| is_field(name)) {
            let side = if value.is_null() { &mut gone } else { &mut fields };
            side.insert(name.clone(), convert::json_to_bson(value));
        }
        // The name again, so that the update is never empty.
        fields.insert(EMAIL, email);
        let mut update = doc! { "$set": fields };
        if !gone.is_empty() {
            update.insert("$unset", gone);
        }
        let mut filter = doc! { EMAIL: email };
        let conditions = unless_changed.iter().filter(|(name, _)| is_field(name));
        // Null is equal to a field that is absent.
        filter.extend(
            conditions.map(|(name, value)| (name.clone(), Bson::from(doc! { "$eq": convert::json_to_bson(value) }))),
        );
        for users in self.users() {
            if users.find_one(doc! { EMAIL: email }).await.map_err(|e| classify("editing a user", &e))?.is_some() {
                let done = users.update_one(filter, update).await.map_err(|e| classify("editing a user", &e))?;
                return Ok(done.matched_count > 0);
            }
        }
        Ok(false)
    }

    async fn do_delete_user(&self, email: &str) -> Result<bool, RegistryError> {
        let mut deleted = 0;
        for users in self.users() {
            let done = users.delete_many(doc! { EMAIL: email }).await.map_err(|e| classify("deleting a user", &e))?;
            deleted += done.deleted_count;
        }
        Ok(deleted > 0)
    }

    async fn do_get_shared(&self, names: &[String]) -> Result<Vec<Shared>, RegistryError> {
        const OPERATION: &str = "reading what nodes share";
        let found = self.shared().find(doc! { "_id": { "$in": names } }).await.map_err(|e| classify(OPERATION, &e))?;
        let found: Vec<RawDocumentBuf> = found.try_collect().await.map_err(|e| classify(OPERATION, &e))?;
        let read = |document: &RawDocumentBuf| {
            let map = convert::to_json(document);
            let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let version = map.get("version").and_then(Value::as_u64).unwrap_or_default();
            Shared { name: text("_id"), value: text("value"), version }
        };
        Ok(found.iter().map(read).collect())
    }

    async fn do_swap_shared(&self, swap: &Swap) -> Result<bool, RegistryError> {
        const OPERATION: &str = "writing what nodes share";
        let failed = |e: mongodb::error::Error| classify(OPERATION, &e);
        if swap.value.len() > SHARED_LEN_MAX {
            return Err(invalid(OPERATION, "the entry is too long"));
        }
        let version = i64::try_from(swap.version).unwrap_or(i64::MAX).saturating_add(1);
        let mut fields = doc! { "value": &swap.value, "version": version };
        fields.insert("until", swap.until_ms.map_or(Bson::Null, |ms| DateTime::from_millis(ms).into()));
        if swap.version > 0 {
            let filter = doc! { "_id": &swap.name, "version": version - 1 };
            let done = self.shared().update_one(filter, doc! { "$set": fields }).await.map_err(failed)?;
            return Ok(done.matched_count > 0);
        }
        // Made again each time there is a new entry: cheap, and never missing after a restore.
        let forgets = IndexOptions::builder().expire_after(Duration::ZERO).build();
        let forgets = IndexModel::builder().keys(doc! { "until": 1 }).options(forgets).build();
        if let Err(error) = self.shared().create_index(forgets).await {
            let error = failed(error);
            if error.is_transient() {
                return Err(error);
            }
            tracing::warn!(%error, "entries that nodes share are not forgotten: their index cannot be made");
        }
        fields.insert("_id", &swap.name);
        let raw = RawDocumentBuf::try_from(&fields).map_err(|error| invalid(OPERATION, &error.to_string()))?;
        match self.shared().insert_one(raw).await {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate_key(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

impl PanelStore for MongoRegistry {
    fn find_user<'a>(&'a self, email: &'a str) -> Answer<'a, Option<JsonMap>> {
        self.call("finding a user", self.do_find_user(email))
    }

    fn list_users(&self) -> Answer<'_, Vec<JsonMap>> {
        self.call("listing users", self.do_list_users())
    }

    fn has_users(&self) -> Answer<'_, bool> {
        self.call("looking for users", self.do_has_users())
    }

    fn create_user<'a>(&'a self, user: &'a JsonMap, first: bool) -> Answer<'a, bool> {
        self.call("making a user", self.do_create_user(user, first))
    }

    fn edit_user<'a>(&'a self, email: &'a str, set: &'a JsonMap, unless_changed: &'a JsonMap) -> Answer<'a, bool> {
        self.call("editing a user", self.do_edit_user(email, set, unless_changed))
    }

    fn delete_user<'a>(&'a self, email: &'a str) -> Answer<'a, bool> {
        self.call("deleting a user", self.do_delete_user(email))
    }

    fn get_shared<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Shared>> {
        self.call("reading what nodes share", self.do_get_shared(names))
    }

    fn swap_shared<'a>(&'a self, swap: &'a Swap, _now_ms: i64) -> Answer<'a, bool> {
        self.call("writing what nodes share", self.do_swap_shared(swap))
    }
}

fn read(document: &RawDocumentBuf) -> JsonMap {
    let mut map = convert::to_json(document);
    for mapper in ["_id", "_t", "className"] {
        map.remove(mapper);
    }
    map
}

fn same(a: &JsonMap, b: &JsonMap) -> bool {
    email_of(a).is_some() && email_of(a) == email_of(b)
}

/// An id made from a text, the same on every node (FNV-1a, 128 bits, of which 96 are kept). AMS's mapper takes no other
/// kind of id.
fn object_id(text: &str) -> ObjectId {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let sum = text.bytes().fold(BASIS, |sum, byte| (sum ^ u128::from(byte)).wrapping_mul(PRIME));
    let mut id = [0; 12];
    id.copy_from_slice(&sum.to_be_bytes()[4..]);
    ObjectId::from_bytes(id)
}
