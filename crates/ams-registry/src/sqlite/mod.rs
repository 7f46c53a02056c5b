//! The registry in SQLite, for one node: in a file that survives `kill -9`, or in memory.
//!
//! Owns the threads: one writer, and for a file a few readers beside it. The way in is the same gate as MongoDB's.
//!
//! - `worker`: a thread with a connection
//! - `in_place`: the same without a thread, for simulations
//! - `schema`: opening and tables
//! - `store`, `query`, `outbox`, `panel`: what each call does

mod in_place;
mod outbox;
mod panel;
mod query;
mod schema;
mod store;
mod worker;

pub use in_place::InPlaceRegistry;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ams_types::{AppName, Epoch, NodeId, StreamId, StreamKey};
use futures_util::future::BoxFuture;
use rusqlite::{Connection, ErrorCode};

use self::schema::Access;
use self::store::Scope;
use self::worker::Worker;
use crate::app::database_name;
use crate::claim::{Claim, ClaimError, ClaimRequest, Lease, LiveInfo, ReleaseReason, Released, StreamQuality};
use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::gate::{Gate, Lane};
use crate::leftovers::{LeftoverRequest, Leftovers};
use crate::outbox::{OutboxReport, OutboxRules, TakeEvents};
use crate::query::{BroadcastQuery, LiveTotals};
use crate::record::JsonMap;
use crate::record::broadcast::BroadcastRecord;
use crate::record::edit::BroadcastEdit;
use crate::record::misread::Misreads;
use crate::record::node::ClusterNodeRecord;
use crate::record::outbox::OutboxRecord;
use crate::record::settings::AppSettingsRecord;
use crate::record::token::{Shelf, TokenRecord, TokenUse};
use crate::registry::{Answer, Registry, RegistryStats, StreamLocation, Upserted};
use crate::status::Status;

/// Reading threads beside the writer of a file.
const READERS: usize = 2;

/// See the module.
pub(crate) struct SqliteRegistry {
    gate: Gate,
    misreads: Arc<Misreads>,
    writer: Worker,
    /// None for a database in memory: it lives in the writer's connection.
    readers: Vec<Worker>,
    next_reader: AtomicUsize,
}

impl fmt::Debug for SqliteRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteRegistry").field("gate", &self.gate).finish_non_exhaustive()
    }
}

fn classify(operation: &'static str, error: &rusqlite::Error) -> RegistryError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => RegistryError::Unavailable { operation, reason },
        _ => RegistryError::Refused { operation, reason },
    }
}

/// Which connection a call needs.
#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

impl SqliteRegistry {
    /// Opens the file, or a new database in memory.
    pub(crate) async fn open(path: Option<PathBuf>, config: RegistryConfig) -> Result<Self, RegistryError> {
        let patience = config.operation_timeout;
        let queue_len = config.calls_in_flight_max.saturating_add(config.heartbeats_in_flight_max);
        let writer = Worker::start(path.clone(), Access::Write { patience }, queue_len).await?;
        let mut readers = Vec::new();
        if path.is_some() {
            for _ in 0..READERS {
                readers.push(Worker::start(path.clone(), Access::Read { patience }, queue_len).await?);
            }
        }
        let misreads = Arc::new(Misreads::default());
        Ok(Self { gate: Gate::new(&config), misreads, writer, readers, next_reader: AtomicUsize::new(0) })
    }

    fn worker(&self, side: Side) -> &Worker {
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed);
        match side {
            Side::Read => turn.checked_rem(self.readers.len()).and_then(|at| self.readers.get(at)),
            Side::Write => None,
        }
        .unwrap_or(&self.writer)
    }

    /// Runs `job` in the right thread, through the gate. Dropped early, it may still run, whole.
    fn call<'a, T, E, F>(&'a self, lane: Lane, operation: &'static str, side: Side, job: F) -> Answer<'a, T, E>
    where
        T: Send + 'static,
        E: From<RegistryError> + Send + 'static,
        F: FnOnce(&mut Connection, &Misreads) -> Result<T, E> + Send + 'static,
    {
        let misreads = Arc::clone(&self.misreads);
        let job = move |connection: &mut Connection| job(connection, &misreads);
        Box::pin(self.gate.run(lane, operation, self.worker(side).run(operation, job)))
    }

    /// The same, for a job over one application's records that only the database can fail.
    fn in_app<'a, T, F>(&'a self, operation: &'static str, side: Side, app: &AppName, job: F) -> Answer<'a, T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, Scope<'_>) -> store::Result<T> + Send + 'static,
    {
        let app = database_name(app);
        self.call(Lane::Call, operation, side, move |connection, misreads| {
            let scope = Scope { app: &app?, misreads };
            job(connection, scope).map_err(|error| classify(operation, &error))
        })
    }

    /// The same, for a step in a publication's life.
    fn in_life<'a, T, F>(
        &'a self,
        lane: Lane,
        operation: &'static str,
        app: &AppName,
        job: F,
    ) -> Answer<'a, T, ClaimError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, Scope<'_>) -> store::Result<Result<T, ClaimError>> + Send + 'static,
    {
        let app = database_name(app);
        self.call(lane, operation, Side::Write, move |connection, misreads| {
            let scope = Scope { app: &app?, misreads };
            job(connection, scope).map_err(|error| classify(operation, &error))?
        })
    }
}

impl Registry for SqliteRegistry {
    fn ping(&self) -> Answer<'_, ()> {
        const OPERATION: &str = "a ping";
        self.call(Lane::Heartbeat, OPERATION, Side::Write, |connection, _| {
            let pong = connection.query_row("SELECT count(*) FROM cluster_node", [], |_| Ok(()));
            pong.map_err(|error| classify(OPERATION, &error))
        })
    }

    fn prepare_app<'a>(&'a self, app: &'a AppName) -> Answer<'a, ()> {
        self.in_app("making indexes", Side::Read, app, |_, _| Ok(()))
    }

    fn claim(&self, request: ClaimRequest) -> Answer<'_, Claim, ClaimError> {
        let app = request.key.app.clone();
        self.in_life(Lane::Call, "a claim", &app, move |c, scope| store::claim(c, scope, &request))
    }

    fn mark_live<'a>(&'a self, lease: &'a Lease, live: LiveInfo) -> Answer<'a, (), ClaimError> {
        let held = lease.clone();
        self.in_life(Lane::Call, "going live", &lease.key.app, move |c, scope| store::mark_live(c, scope, &held, live))
    }

    fn heartbeat<'a>(
        &'a self,
        lease: &'a Lease,
        now_ms: i64,
        quality: &'a StreamQuality,
    ) -> Answer<'a, Status, ClaimError> {
        let (held, quality) = (lease.clone(), quality.clone());
        self.in_life(Lane::Heartbeat, "a stream's heartbeat", &lease.key.app, move |c, scope| {
            store::heartbeat(c, scope, &held, now_ms, &quality)
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease, reason: ReleaseReason, now_ms: i64) -> Answer<'a, Released, ClaimError> {
        let held = lease.clone();
        self.in_life(Lane::Call, "ending a stream", &lease.key.app, move |c, scope| {
            store::release(c, scope, &held, reason, now_ms)
        })
    }

    fn find_stale<'a>(&'a self, app: &'a AppName, now_ms: i64) -> Answer<'a, Vec<(Lease, i64)>> {
        let name = app.clone();
        self.in_app("finding stale streams", Side::Read, app, move |c, scope| {
            store::find_stale(c, scope, &name, now_ms)
        })
    }

    fn lookup<'a>(&'a self, key: &'a StreamKey, now_ms: i64) -> Answer<'a, Option<StreamLocation>> {
        let id = key.id.clone();
        self.in_app("finding a stream", Side::Read, &key.app, move |c, scope| store::lookup(c, scope, &id, now_ms))
    }

    fn find_live<'a>(&'a self, app: &'a AppName, ids: &'a [StreamId], now_ms: i64) -> Answer<'a, Vec<StreamId>> {
        let ids = ids.to_vec();
        self.in_app("finding live streams", Side::Read, app, move |c, scope| store::find_live(c, scope, &ids, now_ms))
    }

    fn get_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, Option<BroadcastRecord>> {
        let id = key.id.clone();
        self.in_app("reading a broadcast", Side::Read, &key.app, move |c, scope| store::get(c, scope, &id))
    }

    fn list_broadcasts<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<BroadcastRecord>> {
        self.in_app("listing broadcasts", Side::Read, app, move |c, scope| store::list(c, scope, offset, size))
    }

    fn count_broadcasts<'a>(&'a self, app: &'a AppName) -> Answer<'a, u64> {
        self.in_app("counting broadcasts", Side::Read, app, |c, scope| store::count(c, scope))
    }

    fn query_broadcasts<'a>(
        &'a self,
        app: &'a AppName,
        query: &'a BroadcastQuery,
        offset: usize,
        size: usize,
    ) -> Answer<'a, Vec<BroadcastRecord>> {
        let query = query.clone();
        self.in_app("searching broadcasts", Side::Read, app, move |c, scope| {
            query::query(c, scope, &query, offset, size)
        })
    }

    fn count_matching<'a>(&'a self, app: &'a AppName, query: &'a BroadcastQuery) -> Answer<'a, u64> {
        let query = query.clone();
        self.in_app("counting broadcasts", Side::Read, app, move |c, scope| query::count(c, scope, &query))
    }

    fn live_totals<'a>(&'a self, app: &'a AppName, since_ms: i64) -> Answer<'a, LiveTotals> {
        self.in_app("summing up live streams", Side::Read, app, move |c, scope| query::live_totals(c, scope, since_ms))
    }

    fn edit_broadcast<'a>(&'a self, key: &'a StreamKey, edit: &'a BroadcastEdit) -> Answer<'a, Option<Upserted>> {
        let (id, edit) = (key.id.clone(), edit.clone());
        self.in_app("editing a broadcast", Side::Write, &key.app, move |c, scope| query::edit(c, scope, &id, &edit))
    }

    fn create_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, bool> {
        let (id, record) = (key.id.clone(), record.clone());
        self.in_app("making a broadcast", Side::Write, &key.app, move |c, scope| store::create(c, scope, &id, &record))
    }

    fn upsert_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, Upserted> {
        let (id, record) = (key.id.clone(), record.clone());
        self.in_app("updating a broadcast", Side::Write, &key.app, move |c, scope| {
            store::upsert(c, scope, &id, &record)
        })
    }

    fn delete_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, bool> {
        let id = key.id.clone();
        self.in_app("deleting a broadcast", Side::Write, &key.app, move |c, scope| store::remove(c, scope, &id))
    }

    fn set_viewer_count<'a>(&'a self, key: &'a StreamKey, epoch: Option<Epoch>, viewers: u32) -> Answer<'a, bool> {
        let id = key.id.clone();
        self.in_app("counting viewers", Side::Write, &key.app, move |c, scope| {
            store::set_viewer_count(c, scope, &id, epoch, viewers)
        })
    }

    fn clean_own_leftovers<'a>(&'a self, request: &'a LeftoverRequest) -> Answer<'a, Leftovers> {
        Box::pin(async move {
            let mut total = Leftovers::default();
            for app in &request.apps {
                let (job_app, job_request) = (app.clone(), request.clone());
                let clean = move |c: &mut Connection, scope: Scope<'_>| store::clean(c, scope, &job_app, &job_request);
                let cleaned = self.in_app("cleaning up", Side::Write, app, clean).await?;
                total.deleted += cleaned.deleted;
                total.finished += cleaned.finished;
                total.infos_deleted += cleaned.infos_deleted;
                total.ended.extend(cleaned.ended);
            }
            Ok(total)
        })
    }

    fn heartbeat_node<'a>(&'a self, node: &'a ClusterNodeRecord) -> Answer<'a, ()> {
        let node = node.clone();
        self.call(Lane::Heartbeat, "a node's heartbeat", Side::Write, move |connection, misreads| {
            store::heartbeat_node(connection, misreads, &node)
        })
    }

    fn list_nodes(&self) -> Answer<'_, Vec<ClusterNodeRecord>> {
        const OPERATION: &str = "listing nodes";
        self.call(Lane::Call, OPERATION, Side::Read, |connection, misreads| {
            store::list_nodes(connection, misreads).map_err(|error| classify(OPERATION, &error))
        })
    }

    fn remove_node<'a>(&'a self, id: &'a NodeId) -> Answer<'a, bool> {
        const OPERATION: &str = "removing a node";
        let id = id.clone();
        self.call(Lane::Call, OPERATION, Side::Write, move |connection, _| {
            store::remove_node(connection, &id).map_err(|error| classify(OPERATION, &error))
        })
    }

    fn list_app_settings(&self) -> Answer<'_, Vec<AppSettingsRecord>> {
        const OPERATION: &str = "reading applications' settings";
        self.call(Lane::Heartbeat, OPERATION, Side::Read, |connection, misreads| {
            query::list_app_settings(connection, misreads).map_err(|error| classify(OPERATION, &error))
        })
    }

    fn put_app_settings<'a>(&'a self, app: &'a AppName, settings: &'a AppSettingsRecord) -> Answer<'a, ()> {
        const OPERATION: &str = "writing an application's settings";
        let (app, settings) = (app.clone(), settings.clone());
        self.call(Lane::Call, OPERATION, Side::Write, move |connection, misreads| {
            let written = query::put_app_settings(connection, misreads, &app, &settings);
            written.map_err(|error| classify(OPERATION, &error))
        })
    }

    fn put_document<'a>(
        &'a self,
        key: &'a StreamKey,
        shelf: Shelf,
        id: &'a str,
        document: &'a JsonMap,
    ) -> Answer<'a, Upserted> {
        let (stream, id, document) = (key.id.clone(), id.to_owned(), document.clone());
        let put = self.in_app("writing a stream's document", Side::Write, &key.app, move |c, scope| {
            query::put_document(c, scope, &stream, shelf, &id, &document)
        });
        Box::pin(async move { put.await? })
    }

    fn get_document<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: &'a str) -> Answer<'a, Option<JsonMap>> {
        let (stream, id) = (key.id.clone(), id.to_owned());
        self.in_app("reading a stream's document", Side::Read, &key.app, move |c, scope| {
            Ok(query::list_documents(c, scope, &stream, shelf, Some(&id), 0, 1)?.pop())
        })
    }

    fn list_documents<'a>(
        &'a self,
        key: &'a StreamKey,
        shelf: Shelf,
        id: Option<&'a str>,
        offset: usize,
        size: usize,
    ) -> Answer<'a, Vec<JsonMap>> {
        let (stream, id) = (key.id.clone(), id.map(str::to_owned));
        self.in_app("listing a stream's documents", Side::Read, &key.app, move |c, scope| {
            query::list_documents(c, scope, &stream, shelf, id.as_deref(), offset, size)
        })
    }

    fn delete_documents<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: Option<&'a str>) -> Answer<'a, u64> {
        let (stream, id) = (key.id.clone(), id.map(str::to_owned));
        self.in_app("deleting a stream's documents", Side::Write, &key.app, move |c, scope| {
            query::delete_documents(c, scope, &stream, shelf, id.as_deref())
        })
    }

    fn delete_expired_tokens<'a>(&'a self, key: &'a StreamKey, now_secs: i64) -> Answer<'a, u64> {
        let stream = key.id.clone();
        self.in_app("deleting expired tokens", Side::Write, &key.app, move |c, scope| {
            query::delete_expired_tokens(c, scope, &stream, now_secs)
        })
    }

    fn find_token<'a>(&'a self, app: &'a AppName, token_id: &'a str) -> Answer<'a, Option<TokenRecord>> {
        let id = token_id.to_owned();
        self.in_app("finding a token", Side::Read, app, move |c, scope| query::find_token(c, scope, &id))
    }

    fn use_token<'a>(
        &'a self,
        key: &'a StreamKey,
        token_id: &'a str,
        before: Option<&'a TokenUse>,
        after: &'a TokenUse,
    ) -> Answer<'a, bool> {
        let (stream, id, before, after) = (key.id.clone(), token_id.to_owned(), before.cloned(), after.clone());
        self.in_app("using a token up", Side::Write, &key.app, move |c, scope| {
            query::use_token(c, scope, &stream, &id, before.as_ref(), &after)
        })
    }

    fn enqueue_event<'a>(&'a self, app: &'a AppName, event: &'a OutboxRecord) -> Answer<'a, bool> {
        let event = event.clone();
        self.in_app("keeping a webhook event", Side::Write, app, move |c, scope| outbox::enqueue(c, scope, &event))
    }

    fn withdraw_events<'a>(&'a self, key: &'a StreamKey, action: &'a str, by: Epoch, at_ms: i64) -> Answer<'a, bool> {
        let (stream, action) = (key.id.clone(), action.to_owned());
        self.in_app("withdrawing webhook events", Side::Write, &key.app, move |c, scope| {
            outbox::withdraw(c, scope, &stream, &action, by, at_ms)
        })
    }

    fn take_events<'a>(&'a self, app: &'a AppName, take: &'a TakeEvents) -> Answer<'a, Vec<OutboxRecord>> {
        let take = take.clone();
        self.in_app("taking webhook events", Side::Write, app, move |c, scope| outbox::take(c, scope, &take))
    }

    fn event_done<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, now_ms: i64) -> Answer<'a, bool> {
        let (id, node) = (id.to_owned(), node.clone());
        self.in_app("closing a webhook event", Side::Write, &key.app, move |c, scope| {
            outbox::done(c, scope, &id, &node, now_ms)
        })
    }

    fn event_failed<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, next_ms: i64) -> Answer<'a, bool> {
        let (id, node) = (id.to_owned(), node.clone());
        self.in_app("putting a webhook event off", Side::Write, &key.app, move |c, scope| {
            outbox::failed(c, scope, &id, &node, next_ms)
        })
    }

    fn tend_outbox<'a>(&'a self, app: &'a AppName, rules: &'a OutboxRules) -> Answer<'a, OutboxReport> {
        let rules = *rules;
        self.in_app("tending the webhook outbox", Side::Write, app, move |c, scope| outbox::tend(c, scope, &rules))
    }

    fn list_dead_events<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<OutboxRecord>> {
        self.in_app("listing webhook events", Side::Read, app, move |c, scope| {
            outbox::list_dead(c, scope, offset, size)
        })
    }

    fn stats(&self) -> RegistryStats {
        self.gate.stats(self.misreads.total())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.gate.close().await;
            // Readers first: the last connection to close folds the log into the file.
            for reader in &self.readers {
                reader.close().await;
            }
            self.writer.close().await;
        })
    }
}

#[cfg(test)]
impl SqliteRegistry {
    /// The writer's connection, for tests that plant or read rows behind the registry's back.
    pub(crate) async fn raw<T: Send + 'static>(&self, job: impl FnOnce(&mut Connection) -> T + Send + 'static) -> T {
        self.writer.run("a test", |connection| Ok::<_, RegistryError>(job(connection))).await.unwrap()
    }
}

#[cfg(test)]
mod tests;
