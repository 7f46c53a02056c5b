//! The registry in MongoDB: one database per application, `clusterdb` for the nodes.
//!
//! Owns the client and the way every call takes through the gate. Works on a standalone server as on a replica set:
//! no transactions, no change streams, each write guarded by what it expects to find.
//!
//! - `claims`: a publication's life
//! - `records`, `query`: finding, listing and editing records
//! - `settings`: applications' settings, and the streams' small documents
//! - `outbox`: webhook events that wait
//! - `nodes`: the nodes' rows
//! - `panel`: users, and what nodes share about logins
//! - `convert`, `error`, `index`: documents, driver errors, indexes

mod claims;
pub(crate) mod convert;
mod error;
mod index;
mod nodes;
mod outbox;
mod panel;
mod query;
mod records;
pub(crate) mod settings;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use ams_types::{AppName, Epoch, NodeId, StreamId, StreamKey};
use futures_util::future::BoxFuture;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::options::{ClientOptions, ConnectionString, WriteConcern};
use mongodb::{Client, Collection, Database};
use tokio::time::timeout;

use crate::app::{CLUSTER_DATABASE, database_name};
use crate::claim::{Claim, ClaimError, ClaimRequest, Lease, LiveInfo, ReleaseReason, Released, StreamQuality};
use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::gate::{Gate, Lane};
use crate::leftovers::{LeftoverRequest, Leftovers};
use crate::outbox::{OutboxReport, OutboxRules, TakeEvents};
use crate::query::{BroadcastQuery, LiveTotals};
use crate::record::JsonMap;
use crate::record::broadcast::{self, BroadcastRecord};
use crate::record::edit::BroadcastEdit;
use crate::record::misread::Misreads;
use crate::record::node::ClusterNodeRecord;
use crate::record::outbox::OutboxRecord;
use crate::record::settings::AppSettingsRecord;
use crate::record::stream_info::{self, StreamInfoRecord};
use crate::record::token::{Shelf, TokenRecord, TokenUse};
use crate::registry::{Answer, Registry, RegistryStats, StreamLocation, Upserted};
use crate::status::Status;
use crate::uri::UriError;

/// Collection in an application's database that remembers the last epoch of each stream id.
const EPOCH_COLLECTION: &str = "amsEpoch";
/// See the module.
pub(crate) struct MongoRegistry {
    client: Client,
    config: RegistryConfig,
    gate: Gate,
    indexes: index::Indexes,
    misreads: Misreads,
}

impl fmt::Debug for MongoRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoRegistry").field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// Checks a connection string without asking anyone.
pub(crate) fn validate(uri: &str) -> Result<(), UriError> {
    // The driver cuts the text behind a `%` without looking where its characters end.
    let encoded =
        |after: &str| matches!(after.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !uri.split('%').skip(1).all(encoded) {
        let reason = "every % must be followed by two hexadecimal digits; write a % itself as %25".to_owned();
        return Err(UriError::Mongo { reason });
    }
    match ConnectionString::parse(uri) {
        Ok(_) => Ok(()),
        Err(error) => Err(UriError::Mongo { reason: without_credentials(&error.kind.to_string(), uri) }),
    }
}

/// The driver's words, unless they repeat a part of the credentials.
fn without_credentials(reason: &str, uri: &str) -> String {
    let credentials = uri.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
    let repeats = credentials
        .is_some_and(|credentials| credentials.split(':').any(|part| !part.is_empty() && reason.contains(part)));
    if repeats {
        "user name or password holds a character that must be percent-encoded".to_owned()
    } else {
        reason.to_owned()
    }
}

impl MongoRegistry {
    /// Makes a client. No server is asked; for `mongodb+srv://` the name is resolved within the deadline.
    pub(crate) async fn connect(uri: &str, config: RegistryConfig) -> Result<Self, RegistryError> {
        const OPERATION: &str = "resolving the address";
        validate(uri)?;
        let mut options = match timeout(config.operation_timeout, ClientOptions::parse(uri)).await {
            Ok(Ok(options)) => options,
            Ok(Err(error)) => return Err(error::classify(OPERATION, &error)),
            Err(_) => return Err(RegistryError::Deadline { operation: OPERATION, after: config.operation_timeout }),
        };
        let within =
            |set: Option<Duration>| Some(set.unwrap_or(config.operation_timeout).min(config.operation_timeout));
        options.server_selection_timeout = within(options.server_selection_timeout);
        options.connect_timeout = within(options.connect_timeout);
        options.app_name.get_or_insert_with(|| "ams-node".to_owned());
        // Each permit of the gate finds a connection, so heartbeats never wait behind calls in the pool.
        let connections = config.calls_in_flight_max.saturating_add(config.heartbeats_in_flight_max);
        options.max_pool_size.get_or_insert(u32::try_from(connections).unwrap_or(u32::MAX));
        // A claim that an election could undo would not be one.
        options.write_concern.get_or_insert_with(WriteConcern::majority);
        let client = Client::with_options(options).map_err(|error| error::classify(OPERATION, &error))?;
        let gate = Gate::new(&config);
        Ok(Self { client, config, gate, indexes: index::Indexes::default(), misreads: Misreads::default() })
    }

    /// The database of an application: its name in lower case.
    fn app_database(&self, app: &AppName) -> Result<Database, RegistryError> {
        let name = database_name(app)?;
        Ok(self.client.database(&format!("{}{name}", self.config.database_prefix)))
    }

    fn broadcasts(&self, app: &AppName) -> Result<Collection<RawDocumentBuf>, RegistryError> {
        Ok(self.app_database(app)?.collection(broadcast::COLLECTION))
    }

    fn infos(&self, app: &AppName) -> Result<Collection<RawDocumentBuf>, RegistryError> {
        Ok(self.app_database(app)?.collection(stream_info::COLLECTION))
    }

    fn cluster_database(&self) -> Database {
        self.client.database(&format!("{}{CLUSTER_DATABASE}", self.config.database_prefix))
    }

    fn read_broadcast(&self, document: &RawDocumentBuf) -> BroadcastRecord {
        let mut map = convert::to_json(document);
        map.remove("_id");
        self.misreads.note(broadcast::COLLECTION, BroadcastRecord::from_json(map))
    }

    fn read_info(&self, document: &RawDocumentBuf) -> StreamInfoRecord {
        let mut map = convert::to_json(document);
        map.remove("_id");
        self.misreads.note(stream_info::COLLECTION, StreamInfoRecord::from_json(map))
    }

    fn call<'a, T: Send + 'a, E: From<RegistryError> + Send + 'a>(
        &'a self,
        operation: &'static str,
        call: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> Answer<'a, T, E> {
        Box::pin(self.gate.run(Lane::Call, operation, call))
    }

    fn vital<'a, T: Send + 'a, E: From<RegistryError> + Send + 'a>(
        &'a self,
        operation: &'static str,
        call: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> Answer<'a, T, E> {
        Box::pin(self.gate.run(Lane::Heartbeat, operation, call))
    }
}

impl Registry for MongoRegistry {
    fn ping(&self) -> Answer<'_, ()> {
        self.vital("a ping", async {
            let pong = self.cluster_database().run_command(doc! { "ping": 1 }).await;
            pong.map(|_| ()).map_err(|error| error::classify("a ping", &error))
        })
    }

    fn prepare_app<'a>(&'a self, app: &'a AppName) -> Answer<'a, ()> {
        self.call("making indexes", async { self.indexes.ensure(&self.app_database(app)?).await })
    }

    fn claim(&self, request: ClaimRequest) -> Answer<'_, Claim, ClaimError> {
        self.call("a claim", async move { self.do_claim(&request).await })
    }

    fn mark_live<'a>(&'a self, lease: &'a Lease, live: LiveInfo) -> Answer<'a, (), ClaimError> {
        self.call("going live", self.do_mark_live(lease, live))
    }

    fn heartbeat<'a>(
        &'a self,
        lease: &'a Lease,
        now_ms: i64,
        quality: &'a StreamQuality,
    ) -> Answer<'a, Status, ClaimError> {
        self.vital("a stream's heartbeat", self.do_heartbeat(lease, now_ms, quality))
    }

    fn release<'a>(&'a self, lease: &'a Lease, reason: ReleaseReason, now_ms: i64) -> Answer<'a, Released, ClaimError> {
        self.call("ending a stream", self.do_release(lease, reason, now_ms))
    }

    fn find_stale<'a>(&'a self, app: &'a AppName, now_ms: i64) -> Answer<'a, Vec<(Lease, i64)>> {
        self.call("finding stale streams", self.do_find_stale(app, now_ms))
    }

    fn lookup<'a>(&'a self, key: &'a StreamKey, now_ms: i64) -> Answer<'a, Option<StreamLocation>> {
        self.call("finding a stream", self.do_lookup(key, now_ms))
    }

    fn find_live<'a>(&'a self, app: &'a AppName, ids: &'a [StreamId], now_ms: i64) -> Answer<'a, Vec<StreamId>> {
        self.call("finding live streams", self.do_find_live(app, ids, now_ms))
    }

    fn get_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, Option<BroadcastRecord>> {
        self.call("reading a broadcast", self.do_get(key))
    }

    fn list_broadcasts<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<BroadcastRecord>> {
        self.call("listing broadcasts", self.do_list(app, offset, size))
    }

    fn count_broadcasts<'a>(&'a self, app: &'a AppName) -> Answer<'a, u64> {
        self.call("counting broadcasts", self.do_count(app))
    }

    fn query_broadcasts<'a>(
        &'a self,
        app: &'a AppName,
        query: &'a BroadcastQuery,
        offset: usize,
        size: usize,
    ) -> Answer<'a, Vec<BroadcastRecord>> {
        self.call("searching broadcasts", self.do_query(app, query, offset, size))
    }

    fn count_matching<'a>(&'a self, app: &'a AppName, query: &'a BroadcastQuery) -> Answer<'a, u64> {
        self.call("counting broadcasts", self.do_count_matching(app, query))
    }

    fn live_totals<'a>(&'a self, app: &'a AppName, since_ms: i64) -> Answer<'a, LiveTotals> {
        self.call("summing up live streams", self.do_live_totals(app, since_ms))
    }

    fn edit_broadcast<'a>(&'a self, key: &'a StreamKey, edit: &'a BroadcastEdit) -> Answer<'a, Option<Upserted>> {
        self.call("editing a broadcast", self.do_edit(key, edit))
    }

    fn create_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, bool> {
        self.call("making a broadcast", self.do_create(key, record))
    }

    fn upsert_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, Upserted> {
        self.call("updating a broadcast", self.do_upsert(key, record))
    }

    fn delete_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, bool> {
        self.call("deleting a broadcast", self.do_delete(key))
    }

    fn set_viewer_count<'a>(&'a self, key: &'a StreamKey, epoch: Option<Epoch>, viewers: u32) -> Answer<'a, bool> {
        self.call("counting viewers", self.do_set_viewer_count(key, epoch, viewers))
    }

    fn clean_own_leftovers<'a>(&'a self, request: &'a LeftoverRequest) -> Answer<'a, Leftovers> {
        Box::pin(async move {
            let mut total = Leftovers::default();
            // A deadline for each application, not for all: there may be much to clean.
            for app in &request.apps {
                let cleaned = self.call("cleaning up", self.clean_app(app, request)).await?;
                total.deleted += cleaned.deleted;
                total.finished += cleaned.finished;
                total.infos_deleted += cleaned.infos_deleted;
                total.ended.extend(cleaned.ended);
            }
            Ok(total)
        })
    }

    fn heartbeat_node<'a>(&'a self, node: &'a ClusterNodeRecord) -> Answer<'a, ()> {
        self.vital("a node's heartbeat", self.do_heartbeat_node(node))
    }

    fn list_nodes(&self) -> Answer<'_, Vec<ClusterNodeRecord>> {
        self.call("listing nodes", self.do_list_nodes())
    }

    fn remove_node<'a>(&'a self, id: &'a NodeId) -> Answer<'a, bool> {
        self.call("removing a node", self.do_remove_node(id))
    }

    fn list_app_settings(&self) -> Answer<'_, Vec<AppSettingsRecord>> {
        self.vital("reading applications' settings", self.do_list_app_settings())
    }

    fn put_app_settings<'a>(&'a self, app: &'a AppName, settings: &'a AppSettingsRecord) -> Answer<'a, ()> {
        self.call("writing an application's settings", self.do_put_app_settings(app, settings))
    }

    fn put_document<'a>(
        &'a self,
        key: &'a StreamKey,
        shelf: Shelf,
        id: &'a str,
        document: &'a JsonMap,
    ) -> Answer<'a, Upserted> {
        self.call("writing a stream's document", self.do_put_document(key, shelf, id, document))
    }

    fn get_document<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: &'a str) -> Answer<'a, Option<JsonMap>> {
        self.call("reading a stream's document", async move {
            Ok(self.do_list_documents(key, shelf, Some(id), 0, 1).await?.pop())
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
        self.call("listing a stream's documents", self.do_list_documents(key, shelf, id, offset, size))
    }

    fn delete_documents<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: Option<&'a str>) -> Answer<'a, u64> {
        self.call("deleting a stream's documents", self.do_delete_documents(key, shelf, id))
    }

    fn delete_expired_tokens<'a>(&'a self, key: &'a StreamKey, now_secs: i64) -> Answer<'a, u64> {
        self.call("deleting expired tokens", self.do_delete_expired_tokens(key, now_secs))
    }

    fn find_token<'a>(&'a self, app: &'a AppName, token_id: &'a str) -> Answer<'a, Option<TokenRecord>> {
        self.call("finding a token", self.do_find_token(app, token_id))
    }

    fn use_token<'a>(
        &'a self,
        key: &'a StreamKey,
        token_id: &'a str,
        before: Option<&'a TokenUse>,
        after: &'a TokenUse,
    ) -> Answer<'a, bool> {
        self.call("using a token up", self.do_use_token(key, token_id, before, after))
    }

    fn enqueue_event<'a>(&'a self, app: &'a AppName, event: &'a OutboxRecord) -> Answer<'a, bool> {
        self.call("keeping a webhook event", self.do_enqueue_event(app, event))
    }

    fn withdraw_events<'a>(&'a self, key: &'a StreamKey, action: &'a str, by: Epoch, at_ms: i64) -> Answer<'a, bool> {
        self.call("withdrawing webhook events", self.do_withdraw_events(key, action, by, at_ms))
    }

    fn take_events<'a>(&'a self, app: &'a AppName, take: &'a TakeEvents) -> Answer<'a, Vec<OutboxRecord>> {
        self.call("taking webhook events", self.do_take_events(app, take))
    }

    fn event_done<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, now_ms: i64) -> Answer<'a, bool> {
        self.call("closing a webhook event", self.do_event_done(key, id, node, now_ms))
    }

    fn event_failed<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, next_ms: i64) -> Answer<'a, bool> {
        self.call("putting a webhook event off", self.do_event_failed(key, id, node, next_ms))
    }

    fn tend_outbox<'a>(&'a self, app: &'a AppName, rules: &'a OutboxRules) -> Answer<'a, OutboxReport> {
        self.call("tending the webhook outbox", self.do_tend_outbox(app, rules))
    }

    fn list_dead_events<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<OutboxRecord>> {
        self.call("listing webhook events", self.do_list_dead_events(app, offset, size))
    }

    fn stats(&self) -> RegistryStats {
        self.gate.stats(self.misreads.total())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.gate.is_closed() {
                return;
            }
            self.gate.close().await;
            let patient = timeout(self.config.operation_timeout, self.client.clone().shutdown()).await;
            if patient.is_err() {
                self.client.clone().shutdown().immediate(true).await;
            }
        })
    }
}

#[cfg(test)]
mod tests;
