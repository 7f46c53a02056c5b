//! Counts document fields that had another type than expected, and says so once per field.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shared by all readers of one registry. Bounded: only names of known fields get in.
#[derive(Debug, Default)]
pub(crate) struct Misreads {
    total: AtomicU64,
    told: Mutex<BTreeSet<(&'static str, &'static str)>>,
}

impl Misreads {
    /// Notes the fields of one document of `collection`; the first time each, a warning is logged.
    pub(crate) fn note<T>(&self, collection: &'static str, decoded: (T, Vec<&'static str>)) -> T {
        let (record, fields) = decoded;
        for field in fields {
            self.total.fetch_add(1, Ordering::Relaxed);
            let first = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert((collection, field));
            if first {
                tracing::warn!(
                    collection,
                    field,
                    "a document field has an unexpected type and is read as its default; said once per field"
                );
            }
        }
        record
    }

    /// Fields misread since the registry was opened.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}
