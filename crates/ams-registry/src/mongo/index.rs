//! Makes the indexes other readers of the documents expect, and the one that forgets old epochs.
//!
//! Idempotent, and content with what is there already: another program may have made them first.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use super::error::{DUPLICATE_KEY, INDEX_CONFLICTS, classify, code};
use crate::claim::EPOCH_MEMORY_MS;
use crate::error::RegistryError;
use crate::record::token::Shelf;
use crate::record::{broadcast, outbox, stream_info};

/// Most databases remembered as prepared; more are prepared each time, which is slow and harmless.
const PREPARED_MAX: usize = 1024;

/// Which databases have their indexes.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    prepared: Mutex<BTreeSet<String>>,
}

impl Indexes {
    /// Makes the indexes of an application's database once.
    ///
    /// # Errors
    /// Only when the server could not be asked. Indexes it refuses are logged: records can be read and written anyhow.
    pub(super) async fn ensure(&self, database: &Database) -> Result<(), RegistryError> {
        if self.prepared.lock().unwrap_or_else(PoisonError::into_inner).contains(database.name()) {
            return Ok(());
        }
        for (collection, model) in models() {
            let made = database.collection::<Document>(collection).create_index(model).await;
            if let Err(error) = made {
                tolerate(database.name(), collection, &error)?;
            }
        }
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if prepared.len() < PREPARED_MAX {
            prepared.insert(database.name().to_owned());
        }
        Ok(())
    }
}

fn models() -> [(&'static str, IndexModel); 14] {
    let plain = |keys: Document| IndexModel::builder().keys(keys).build();
    let with = |keys: Document, options: IndexOptions| IndexModel::builder().keys(keys).options(options).build();
    let unique = IndexOptions::builder().unique(true).name("streamId_unique_index".to_owned()).build();
    let memory = Duration::from_millis(EPOCH_MEMORY_MS.unsigned_abs());
    let forgets = IndexOptions::builder().expire_after(memory).build();
    [
        (broadcast::COLLECTION, with(doc! { "streamId": 1 }, unique)),
        (broadcast::COLLECTION, plain(doc! { "status": 1 })),
        (broadcast::COLLECTION, plain(doc! { "name": "text" })),
        (stream_info::COLLECTION, plain(doc! { "streamId": 1 })),
        (super::EPOCH_COLLECTION, with(doc! { "at": 1 }, forgets)),
        (broadcast::COLLECTION, plain(doc! { "mainTrackStreamId": 1 })),
        (Shelf::Tokens.collection(), plain(doc! { "tokenId": 1 })),
        (Shelf::Tokens.collection(), plain(doc! { "streamId": 1 })),
        (Shelf::Subscribers.collection(), plain(doc! { "streamId": 1, "subscriberId": 1 })),
        (Shelf::ConnectionEvents.collection(), plain(doc! { "streamId": 1, "subscriberId": 1 })),
        (outbox::COLLECTION, plain(doc! { "state": 1, "nextAttempt": 1 })),
        (outbox::COLLECTION, plain(doc! { "state": 1, "createdAt": 1 })),
        (outbox::COLLECTION, plain(doc! { "streamId": 1, "state": 1, "epoch": 1, "place": 1 })),
        (outbox::COLLECTION, plain(doc! { "forgetAt": 1 })),
    ]
}

fn tolerate(database: &str, collection: &str, error: &mongodb::error::Error) -> Result<(), RegistryError> {
    let found = classify("making an index", error);
    if found.is_transient() {
        return Err(found);
    }
    match (code(error), &found) {
        (Some(code), _) if INDEX_CONFLICTS.contains(&code) => {
            tracing::debug!(database, collection, %found, "an index exists already, made differently");
        }
        (Some(DUPLICATE_KEY), _) => tracing::error!(
            database,
            collection,
            "several records have one stream id, so their index cannot be made and two publishers may get one id: \
             delete the doubles and restart"
        ),
        (_, RegistryError::Closed) => return Err(found),
        _ => tracing::warn!(database, collection, %found, "an index cannot be made"),
    }
    Ok(())
}
