//! A registry in memory whose calls are done where they are made: no thread, no waiting, the same outcome every time.
//!
//! Owns copies of all records as they were at some moments, so that a simulation can have the registry forget.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::worker::Worker;
use super::{SqliteRegistry, classify};
use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::gate::Gate;
use crate::record::misread::Misreads;
use crate::registry::Registry;

const TABLES: [&str; 4] = ["broadcast", "stream_info", "cluster_node", "epoch"];

/// See the module.
#[derive(Clone, Debug)]
pub struct InPlaceRegistry(Arc<SqliteRegistry>);

impl InPlaceRegistry {
    /// An empty one.
    ///
    /// # Errors
    /// SQLite has no memory.
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        Ok(Self(Arc::new(SqliteRegistry {
            gate: Gate::new(config),
            misreads: Arc::new(Misreads::default()),
            writer: Worker::in_place()?,
            readers: Vec::new(),
            next_reader: AtomicUsize::new(0),
        })))
    }

    /// The registry itself.
    pub fn registry(&self) -> Arc<dyn Registry> {
        Arc::clone(&self.0) as Arc<dyn Registry>
    }

    /// Keeps a copy of all records under `slot`, in the place of an earlier one.
    ///
    /// # Errors
    /// SQLite has no memory.
    pub async fn keep(&self, slot: u8) -> Result<(), RegistryError> {
        let copy = |table| {
            format!(
                "DROP TABLE IF EXISTS kept{slot}_{table}; CREATE TABLE kept{slot}_{table} AS SELECT * FROM {table};"
            )
        };
        self.run("keeping a copy", TABLES.map(copy).concat()).await
    }

    /// Makes all records what they were when `slot` was kept.
    ///
    /// # Errors
    /// Nothing was kept there.
    pub async fn restore(&self, slot: u8) -> Result<(), RegistryError> {
        let copy = |table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept{slot}_{table};");
        self.run("restoring a copy", TABLES.map(copy).concat()).await
    }

    async fn run(&self, operation: &'static str, statements: String) -> Result<(), RegistryError> {
        let job = move |c: &mut rusqlite::Connection| {
            c.execute_batch(&statements).map_err(|error| classify(operation, &error))
        };
        self.0.writer.run(operation, job).await
    }
}
