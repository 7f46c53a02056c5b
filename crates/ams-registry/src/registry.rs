//! The one trait through which everything else reaches the registry.
//!
//! Owns the contract, word by word; the contract suite holds every implementation to it.

use std::fmt;
use std::time::Duration;

use ams_types::{AppName, Epoch, NodeId, StreamId, StreamKey};
use futures_util::future::BoxFuture;

use crate::claim::{Claim, ClaimError, ClaimRequest, Lease, LiveInfo, ReleaseReason, Released, StreamQuality};
use crate::error::RegistryError;
use crate::leftovers::{LeftoverRequest, Leftovers};
use crate::outbox::{OutboxReport, OutboxRules, TakeEvents};
use crate::panel::PanelStore;
use crate::query::{BroadcastQuery, LiveTotals};
use crate::record::JsonMap;
use crate::record::broadcast::BroadcastRecord;
use crate::record::edit::BroadcastEdit;
use crate::record::node::ClusterNodeRecord;
use crate::record::outbox::OutboxRecord;
use crate::record::settings::AppSettingsRecord;
use crate::record::stream_info::StreamInfoRecord;
use crate::record::token::{Shelf, TokenRecord, TokenUse};
use crate::status::Status;

/// Most records one [`Registry::list_broadcasts`] returns.
pub const BROADCAST_LIST_MAX: usize = 50;
/// Most documents one [`Registry::list_documents`] returns.
pub const DOCUMENT_LIST_MAX: usize = 50;
/// Most documents of one kind and stream; one more is refused.
pub const DOCUMENTS_PER_STREAM_MAX: u64 = 10_000;
/// Most applications whose settings are read.
pub const APP_SETTINGS_MAX: usize = 1000;
/// Most rows one [`Registry::list_nodes`] returns.
pub const NODE_LIST_MAX: usize = 1000;
/// Most leases one [`Registry::find_stale`] returns.
pub const STALE_LIST_MAX: usize = 100;
/// Most ids asked for in one query; longer lists are asked for in several.
pub const FIND_LIVE_IDS_MAX: usize = 1000;

/// An answer of the registry that is on its way. Dropping it is safe at any time.
pub type Answer<'a, T, E = RegistryError> = BoxFuture<'a, Result<T, E>>;

/// Where a stream is, at the time it was asked for.
#[derive(Clone, Debug)]
pub struct StreamLocation {
    /// The stream's record.
    pub broadcast: BroadcastRecord,
    /// The status as it reads now.
    pub status: Status,
    /// Renditions of the current publication at its origin; none before it is live.
    pub infos: Vec<StreamInfoRecord>,
    /// The origin, while the stream is held.
    pub origin: Option<OriginAddress>,
    /// Epoch of the last claim; 0 before the first.
    pub epoch: Epoch,
}

/// Where to pull a stream from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginAddress {
    /// Host or address to dial.
    pub host: String,
    /// Relay port; `None` until the stream is live, or when the documents name none that could be one.
    pub port: Option<u16>,
}

impl StreamLocation {
    /// Whether the stream can be played: `broadcasting` and confirmed lately.
    pub fn is_live(&self) -> bool {
        self.status == Status::Broadcasting
    }

    /// The lease of whoever holds the stream, for ending a publication whose node is known to be dead.
    pub fn lease(&self, key: StreamKey) -> Option<Lease> {
        let host = self.broadcast.origin_address.clone()?;
        Some(Lease { key, epoch: self.epoch, host })
    }

    pub(crate) fn new(broadcast: BroadcastRecord, infos: Vec<StreamInfoRecord>, now_ms: i64) -> Self {
        let status = broadcast.effective_status(now_ms);
        let epoch = broadcast.epoch();
        let of_this_publication = |info: &StreamInfoRecord| {
            // Epoch 0: another program's, which writes no epochs.
            info.host == broadcast.origin_address && (info.epoch() == epoch || info.ams_epoch == 0)
        };
        let infos: Vec<_> = infos.into_iter().filter(of_this_publication).collect();
        let port = infos.iter().find_map(|info| u16::try_from(info.origin_port).ok().filter(|port| *port > 0));
        let host = broadcast.origin_address.clone().filter(|_| status.is_held());
        Self { status, epoch, origin: host.map(|host| OriginAddress { host, port }), infos, broadcast }
    }
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upserted {
    /// There was no such record.
    Created,
    /// The record differs now.
    Changed,
    /// The record already was like that.
    Unchanged,
}

/// Numbers since the registry was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryStats {
    /// Calls begun.
    pub calls: u64,
    /// Calls that failed, those below included.
    pub failed: u64,
    /// Calls that ran out of time.
    pub deadlines: u64,
    /// Calls refused because too many waited.
    pub overloaded: u64,
    /// Calls running or waiting now.
    pub in_flight: u64,
    /// Document fields that had an unexpected type.
    pub fields_misread: u64,
    /// Mean time of a call, the latest weighing most: `dbQueryAveargeTimeMs` of a node's row.
    pub mean_time: Duration,
}

/// The shared memory of a cluster: which node holds which stream, and which nodes there are.
///
/// Every call ends within [`crate::RegistryConfig::operation_timeout`], whatever the server does, and every write may
/// be repeated. `now_ms` is the caller's wall clock, ms since 1970: the registry has none.
pub trait Registry: PanelStore + fmt::Debug + Send + Sync + 'static {
    /// Asks the store for a sign of life: one round trip.
    fn ping(&self) -> Answer<'_, ()>;

    /// Makes an application's indexes, if they are missing. Optional: the first write to an application does it too.
    fn prepare_app<'a>(&'a self, app: &'a AppName) -> Answer<'a, ()>;

    /// Claims a stream id for a publisher. Of any number of claims at one time, one is granted.
    ///
    /// # Errors
    /// [`ClaimError::InUse`] when another publication holds the id.
    fn claim(&self, request: ClaimRequest) -> Answer<'_, Claim, ClaimError>;

    /// Says that media flows: the record reads `broadcasting`, and `StreamInfo` documents stand beside it.
    ///
    /// # Errors
    /// [`ClaimError::Lost`] when the lease is over.
    fn mark_live<'a>(&'a self, lease: &'a Lease, live: LiveInfo) -> Answer<'a, (), ClaimError>;

    /// Confirms a publication and writes its quality. Not confirmed for 20 s, its id is free for others. Returns how the
    /// record read before: one that is not [`Status::Broadcasting`] has forgotten [`Registry::mark_live`], by a restore from an
    /// older copy say.
    ///
    /// # Errors
    /// [`ClaimError::Lost`] when the lease is over.
    fn heartbeat<'a>(
        &'a self,
        lease: &'a Lease,
        now_ms: i64,
        quality: &'a StreamQuality,
    ) -> Answer<'a, Status, ClaimError>;

    /// Ends a publication: a zombi record is deleted, another one gets its end status; its `StreamInfo` goes.
    ///
    /// # Errors
    /// [`ClaimError::Lost`] when the lease is over; `StreamInfo` of that epoch goes all the same.
    fn release<'a>(&'a self, lease: &'a Lease, reason: ReleaseReason, now_ms: i64) -> Answer<'a, Released, ClaimError>;

    /// Publications of this product that nobody has confirmed for [`crate::status::STALE_AFTER_MS`], with when they were; at
    /// most [`STALE_LIST_MAX`]. Their lease is what [`Registry::release`] ends them with.
    fn find_stale<'a>(&'a self, app: &'a AppName, now_ms: i64) -> Answer<'a, Vec<(Lease, i64)>>;

    /// Finds a stream and its origin. `None` when there is no record.
    fn lookup<'a>(&'a self, key: &'a StreamKey, now_ms: i64) -> Answer<'a, Option<StreamLocation>>;

    /// Which of `ids` can be played now (`broadcasting` and confirmed lately), in the order given.
    fn find_live<'a>(&'a self, app: &'a AppName, ids: &'a [StreamId], now_ms: i64) -> Answer<'a, Vec<StreamId>>;

    /// One record as stored.
    fn get_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, Option<BroadcastRecord>>;

    /// Records of an application, oldest first; at most [`BROADCAST_LIST_MAX`].
    fn list_broadcasts<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<BroadcastRecord>>;

    /// How many records an application has.
    fn count_broadcasts<'a>(&'a self, app: &'a AppName) -> Answer<'a, u64>;

    /// Records that `query` finds; at most [`BROADCAST_LIST_MAX`].
    fn query_broadcasts<'a>(
        &'a self,
        app: &'a AppName,
        query: &'a BroadcastQuery,
        offset: usize,
        size: usize,
    ) -> Answer<'a, Vec<BroadcastRecord>>;

    /// How many records `query` finds.
    fn count_matching<'a>(&'a self, app: &'a AppName, query: &'a BroadcastQuery) -> Answer<'a, u64>;

    /// What the streams come to that are `broadcasting` and were confirmed at `since_ms` or later.
    fn live_totals<'a>(&'a self, app: &'a AppName, since_ms: i64) -> Answer<'a, LiveTotals>;

    /// Changes descriptive fields of a record; `None` when there is no such record, which is not made.
    fn edit_broadcast<'a>(&'a self, key: &'a StreamKey, edit: &'a BroadcastEdit) -> Answer<'a, Option<Upserted>>;

    /// Makes a record if there is none of that id; `false` when there is one, which stays as it is.
    fn create_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, bool>;

    /// Makes a record, or updates the descriptive fields of one. What belongs to a publication (status, origin, times,
    /// counts, quality, owner, `zombi`) is written only when the record is made; unknown fields stay.
    fn upsert_broadcast<'a>(&'a self, key: &'a StreamKey, record: &'a BroadcastRecord) -> Answer<'a, Upserted>;

    /// Deletes a record and its `StreamInfo`, live or not; `false` when there was none.
    fn delete_broadcast<'a>(&'a self, key: &'a StreamKey) -> Answer<'a, bool>;

    /// Sets `webRTCViewerCount`; with an epoch only while that is the stream's. `false` when nothing matched.
    fn set_viewer_count<'a>(&'a self, key: &'a StreamKey, epoch: Option<Epoch>, viewers: u32) -> Answer<'a, bool>;

    /// Cleans up what an earlier run of a node left behind. Called once, at its start.
    fn clean_own_leftovers<'a>(&'a self, request: &'a LeftoverRequest) -> Answer<'a, Leftovers>;

    /// Writes a node's row; fields of it that are not known here stay.
    fn heartbeat_node<'a>(&'a self, node: &'a ClusterNodeRecord) -> Answer<'a, ()>;

    /// All nodes' rows, by id; at most [`NODE_LIST_MAX`].
    fn list_nodes(&self) -> Answer<'_, Vec<ClusterNodeRecord>>;

    /// Deletes a node's row; `false` when there was none. A living node writes it again.
    fn remove_node<'a>(&'a self, id: &'a NodeId) -> Answer<'a, bool>;

    /// The settings of every application that has some; at most [`APP_SETTINGS_MAX`].
    fn list_app_settings(&self) -> Answer<'_, Vec<AppSettingsRecord>>;

    /// Writes an application's settings; fields of the document that are not known here, nor among the given ones, stay.
    fn put_app_settings<'a>(&'a self, app: &'a AppName, settings: &'a AppSettingsRecord) -> Answer<'a, ()>;

    /// Writes fields of a document of a stream, nulls taking theirs out. There is one document of an id, except of
    /// connection events: those add up, and of too many the oldest goes.
    ///
    /// # Errors
    /// [`RegistryError::InvalidRequest`] when the stream has [`DOCUMENTS_PER_STREAM_MAX`] of another kind.
    fn put_document<'a>(
        &'a self,
        key: &'a StreamKey,
        shelf: Shelf,
        id: &'a str,
        document: &'a JsonMap,
    ) -> Answer<'a, Upserted>;

    /// A document of a stream.
    fn get_document<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: &'a str) -> Answer<'a, Option<JsonMap>>;

    /// Documents of a stream, oldest first, of one id or of all; at most [`DOCUMENT_LIST_MAX`].
    fn list_documents<'a>(
        &'a self,
        key: &'a StreamKey,
        shelf: Shelf,
        id: Option<&'a str>,
        offset: usize,
        size: usize,
    ) -> Answer<'a, Vec<JsonMap>>;

    /// Deletes documents of a stream, of one id or all; how many there were. Of several callers that delete one document
    /// at a time, one alone is told 1.
    fn delete_documents<'a>(&'a self, key: &'a StreamKey, shelf: Shelf, id: Option<&'a str>) -> Answer<'a, u64>;

    /// Deletes a stream's tokens that ended before `now_secs` (seconds since 1970); how many there were.
    fn delete_expired_tokens<'a>(&'a self, key: &'a StreamKey, now_secs: i64) -> Answer<'a, u64>;

    /// The token of that id, whatever stream of the application it is for.
    fn find_token<'a>(&'a self, app: &'a AppName, token_id: &'a str) -> Answer<'a, Option<TokenRecord>>;

    /// Says that a token of a stream is used, if it is still used as `before` says. `false` when it is not, or is gone: of
    /// several callers that use one token at a time, one alone is told `true`.
    fn use_token<'a>(
        &'a self,
        key: &'a StreamKey,
        token_id: &'a str,
        before: Option<&'a TokenUse>,
        after: &'a TokenUse,
    ) -> Answer<'a, bool>;

    /// Keeps a webhook event until it is sent; `false` when there is one of that id, sent or not, which stays as it is.
    fn enqueue_event<'a>(&'a self, app: &'a AppName, event: &'a OutboxRecord) -> Answer<'a, bool>;

    /// Withdraws events of a stream's earlier publications that were not to be sent before `at_ms`; whether there was one.
    /// Asked again for the same `by`, it says the same.
    fn withdraw_events<'a>(&'a self, key: &'a StreamKey, action: &'a str, by: Epoch, at_ms: i64) -> Answer<'a, bool>;

    /// Takes events that are due, each for one node alone until its lease ends. An event is due when its time has come
    /// and no earlier one of its stream waits.
    fn take_events<'a>(&'a self, app: &'a AppName, take: &'a TakeEvents) -> Answer<'a, Vec<OutboxRecord>>;

    /// An event was sent; `false` when it is not that node's any more.
    fn event_done<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, now_ms: i64) -> Answer<'a, bool>;

    /// An event could not be sent: it is due again at `next_ms`. `false` when it is not that node's any more.
    fn event_failed<'a>(&'a self, key: &'a StreamKey, id: &'a str, node: &'a NodeId, next_ms: i64) -> Answer<'a, bool>;

    /// Gives old events up, drops what is beyond the bound and forgets what was remembered long enough.
    fn tend_outbox<'a>(&'a self, app: &'a AppName, rules: &'a OutboxRules) -> Answer<'a, OutboxReport>;

    /// Events given up within the last day, oldest first; at most [`DOCUMENT_LIST_MAX`].
    fn list_dead_events<'a>(&'a self, app: &'a AppName, offset: usize, size: usize) -> Answer<'a, Vec<OutboxRecord>>;

    /// Numbers for metrics.
    fn stats(&self) -> RegistryStats;

    /// Ends: calls that run may finish within the deadline, later ones get [`RegistryError::Closed`]. Idempotent.
    fn close(&self) -> BoxFuture<'_, ()>;
}
