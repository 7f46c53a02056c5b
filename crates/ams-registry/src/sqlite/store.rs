//! What each call does inside a SQLite transaction.
//!
//! Synchronous functions over a connection: no thread, no deadline, no clock. A record is read, changed field by field
//! as JSON, and written back whole; unknown fields ride along.

use ams_types::{AppName, Epoch, NodeId, StreamId};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::claim::{
    self, Claim, ClaimError, ClaimRequest, EPOCH_MEMORY_MS, Lease, LiveInfo, ReleaseReason, Released, StreamQuality,
};
use crate::error::RegistryError;
use crate::leftovers::{self, Ended, Leftover, LeftoverRequest, Leftovers};
use crate::record::broadcast::{self, BroadcastRecord, epoch_from_stored, epoch_to_stored};
use crate::record::field::{Changes, Field, JsonMap, apply};
use crate::record::misread::Misreads;
use crate::record::node::{self, ClusterNodeRecord};
use crate::record::stream_info::{self, StreamInfoRecord};
use crate::registry::{BROADCAST_LIST_MAX, NODE_LIST_MAX, STALE_LIST_MAX, StreamLocation, Upserted};
use crate::status::{STALE_AFTER_MS, Status};

/// Most forgotten epochs that one claim sweeps out: it never has to sweep many.
const SWEEP_MAX: i64 = 100;

/// One call's view of the database: the application's name as records go by it, and who counts misread fields.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) app: &'a str,
    pub(super) misreads: &'a Misreads,
}

pub(super) type Result<T, E = rusqlite::Error> = std::result::Result<T, E>;

/// A row of `broadcast`, as JSON and as a record.
pub(super) struct Row {
    id: i64,
    pub(super) document: JsonMap,
    record: BroadcastRecord,
}

pub(super) fn parse(text: &str, misreads: &Misreads, collection: &'static str) -> JsonMap {
    serde_json::from_str(text).unwrap_or_else(|_| misreads.note(collection, (JsonMap::new(), vec!["document"])))
}

impl Scope<'_> {
    pub(super) fn broadcast(self, stream_id: String, text: &str) -> (JsonMap, BroadcastRecord) {
        let document = parse(text, self.misreads, broadcast::COLLECTION);
        let record = self.misreads.note(broadcast::COLLECTION, BroadcastRecord::from_json(document.clone()));
        (document, BroadcastRecord { stream_id, ..record })
    }

    pub(super) fn find(self, connection: &Connection, stream_id: &str) -> Result<Option<Row>> {
        let mut query =
            connection.prepare_cached("SELECT rowid, document FROM broadcast WHERE app = ?1 AND stream_id = ?2")?;
        let row = query.query_row(params![self.app, stream_id], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
        Ok(row.optional()?.map(|(id, text)| {
            let (document, record) = self.broadcast(stream_id.to_owned(), &text);
            Row { id, document, record }
        }))
    }

    fn infos(self, connection: &Connection, stream_id: &str) -> Result<Vec<StreamInfoRecord>> {
        let mut query =
            connection.prepare_cached("SELECT document FROM stream_info WHERE app = ?1 AND stream_id = ?2 LIMIT 64")?;
        let texts = query.query_map(params![self.app, stream_id], |row| row.get::<_, String>(0))?;
        texts
            .map(|text| {
                let document = parse(&text?, self.misreads, stream_info::COLLECTION);
                Ok(self.misreads.note(stream_info::COLLECTION, StreamInfoRecord::from_json(document)))
            })
            .collect()
    }

    fn insert(self, connection: &Connection, stream_id: &str, document: &JsonMap) -> Result<()> {
        let mut query =
            connection.prepare_cached("INSERT INTO broadcast (app, stream_id, document) VALUES (?1, ?2, ?3)")?;
        query.execute(params![self.app, stream_id, text(document)]).map(|_| ())
    }

    fn held(self, connection: &Connection, lease: &Lease, must_be_held: bool) -> Result<Option<Row>> {
        let row = self.find(connection, lease.key.id.as_str())?;
        Ok(row.filter(|row| claim::lease_holds(&row.record, lease, must_be_held)))
    }
}

pub(super) fn text(document: &JsonMap) -> String {
    serde_json::Value::Object(document.clone()).to_string()
}

pub(super) fn change(connection: &Connection, mut row: Row, changes: &Changes) -> Result<()> {
    apply(&mut row.document, changes);
    let mut query = connection.prepare_cached("UPDATE broadcast SET document = ?2 WHERE rowid = ?1")?;
    query.execute(params![row.id, text(&row.document)]).map(|_| ())
}

fn delete(connection: &Connection, row: &Row) -> Result<()> {
    connection.prepare_cached("DELETE FROM broadcast WHERE rowid = ?1")?.execute([row.id]).map(|_| ())
}

/// A transaction that has the write lock from the start: what it reads stays true until it commits.
pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn next_epoch(connection: &Connection, scope: Scope<'_>, stream_id: &str, floor: Epoch, now_ms: i64) -> Result<Epoch> {
    connection
        .prepare_cached(
            "DELETE FROM epoch WHERE (app, stream_id) IN (SELECT app, stream_id FROM epoch WHERE at_ms < ?1 LIMIT ?2)",
        )?
        .execute([now_ms.saturating_sub(EPOCH_MEMORY_MS), SWEEP_MAX])?;
    let epoch = connection
        .prepare_cached(
            "INSERT INTO epoch (app, stream_id, epoch, at_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET epoch = max(excluded.epoch, epoch + ?5), at_ms = max(at_ms, excluded.at_ms)
             RETURNING epoch",
        )?
        .query_row(params![scope.app, stream_id, epoch_to_stored(floor), now_ms, claim::epoch_step()], |row| {
            row.get(0)
        })?;
    Ok(epoch_from_stored(epoch))
}

pub(super) fn claim(
    connection: &mut Connection,
    scope: Scope<'_>,
    request: &ClaimRequest,
) -> Result<Result<Claim, ClaimError>> {
    let transaction = begin(connection)?;
    let stream_id = request.key.id.as_str();
    let row = scope.find(&transaction, stream_id)?;
    let existing = row.as_ref().map(|row| row.record.clone());
    let grant = match claim::decide(existing.as_ref(), request) {
        Ok(grant) => grant,
        Err(refused) => return Ok(Err(refused)),
    };
    let floor = claim::epoch_floor(existing.as_ref(), request.now_ms);
    let epoch = next_epoch(&transaction, scope, stream_id, floor, request.now_ms)?;
    let changes = claim::claim_changes(request, epoch);
    match row {
        Some(row) => change(&transaction, row, &changes)?,
        None => {
            let mut document = JsonMap::new();
            apply(&mut document, &claim::zombi_record(request).fields());
            apply(&mut document, &changes);
            scope.insert(&transaction, stream_id, &document)?;
        }
    }
    if let Some(previous) = &existing {
        transaction.execute(
            "DELETE FROM stream_info WHERE app = ?1 AND stream_id = ?2
             AND (host = ?3 OR (epoch > 0 AND epoch < ?4))",
            params![scope.app, stream_id, previous.origin_address, epoch_to_stored(epoch)],
        )?;
    }
    transaction.commit()?;
    Ok(Ok(Claim {
        lease: Lease { key: request.key.clone(), epoch, host: request.host.clone() },
        zombi: existing.as_ref().is_none_or(|record| record.zombi),
        grant,
        previous: existing.map(Box::new),
    }))
}

pub(super) fn mark_live(
    connection: &mut Connection,
    scope: Scope<'_>,
    lease: &Lease,
    live: LiveInfo,
) -> Result<Result<(), ClaimError>> {
    let transaction = begin(connection)?;
    let Some(row) = scope.held(&transaction, lease, true)? else {
        return Ok(Err(ClaimError::Lost { epoch: lease.epoch }));
    };
    change(&transaction, row, &claim::live_changes(lease, &live))?;
    transaction.execute(
        "DELETE FROM stream_info WHERE app = ?1 AND stream_id = ?2 AND host = ?3",
        params![scope.app, lease.key.id.as_str(), lease.host],
    )?;
    for info in claim::live_infos(lease, live) {
        let mut document = JsonMap::new();
        apply(&mut document, &info.fields());
        transaction.execute(
            "INSERT INTO stream_info (app, stream_id, host, origin_port, epoch, document)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![scope.app, info.stream_id, info.host, info.origin_port, info.ams_epoch, text(&document)],
        )?;
    }
    transaction.commit()?;
    Ok(Ok(()))
}

pub(super) fn heartbeat(
    connection: &mut Connection,
    scope: Scope<'_>,
    lease: &Lease,
    now_ms: i64,
    quality: &StreamQuality,
) -> Result<Result<Status, ClaimError>> {
    let transaction = begin(connection)?;
    let Some(row) = scope.held(&transaction, lease, true)? else {
        return Ok(Err(ClaimError::Lost { epoch: lease.epoch }));
    };
    let before = Status::from_wire(row.record.status.as_deref().unwrap_or_default());
    change(&transaction, row, &claim::heartbeat_changes(now_ms, quality))?;
    transaction.commit()?;
    Ok(Ok(before))
}

pub(super) fn release(
    connection: &mut Connection,
    scope: Scope<'_>,
    lease: &Lease,
    reason: ReleaseReason,
    now_ms: i64,
) -> Result<Result<Released, ClaimError>> {
    let transaction = begin(connection)?;
    let released = match scope.held(&transaction, lease, false)? {
        None => Err(ClaimError::Lost { epoch: lease.epoch }),
        Some(row) if row.record.zombi => {
            delete(&transaction, &row)?;
            Ok(Released::Deleted)
        }
        Some(row) => {
            change(&transaction, row, &claim::end_changes(&reason.end_status(), now_ms))?;
            Ok(Released::Ended)
        }
    };
    transaction.execute(
        "DELETE FROM stream_info WHERE app = ?1 AND stream_id = ?2 AND host = ?3 AND (?4 = 0 OR epoch = ?4)",
        params![scope.app, lease.key.id.as_str(), lease.host, epoch_to_stored(lease.epoch)],
    )?;
    transaction.commit()?;
    Ok(released)
}

pub(super) fn lookup(
    connection: &mut Connection,
    scope: Scope<'_>,
    stream_id: &StreamId,
    now_ms: i64,
) -> Result<Option<StreamLocation>> {
    // One snapshot: a record and renditions that belong together.
    let transaction = connection.transaction()?;
    let Some(row) = scope.find(&transaction, stream_id.as_str())? else { return Ok(None) };
    let infos = scope.infos(&transaction, stream_id.as_str())?;
    Ok(Some(StreamLocation::new(row.record, infos, now_ms)))
}

pub(super) fn find_live(
    connection: &Connection,
    scope: Scope<'_>,
    ids: &[StreamId],
    now_ms: i64,
) -> Result<Vec<StreamId>> {
    let mut live = Vec::new();
    for id in ids {
        let row = scope.find(connection, id.as_str())?;
        if row.is_some_and(|row| row.record.effective_status(now_ms) == Status::Broadcasting) {
            live.push(id.clone());
        }
    }
    Ok(live)
}

pub(super) fn find_stale(
    connection: &Connection,
    scope: Scope<'_>,
    app: &AppName,
    now_ms: i64,
) -> Result<Vec<(Lease, i64)>> {
    let mut query = connection.prepare_cached(
        "SELECT document FROM broadcast WHERE app = ?1 AND document ->> '$.status' IN (?2, ?3)
         AND document ->> '$.updateTime' <= ?4 AND document ->> '$.amsEpoch' > 0 LIMIT ?5",
    )?;
    let (held, before) = ([Status::Preparing, Status::Broadcasting], now_ms.saturating_sub(STALE_AFTER_MS));
    let limit = i64::try_from(STALE_LIST_MAX).unwrap_or(i64::MAX);
    let which = params![scope.app, held[0].as_str(), held[1].as_str(), before, limit];
    let rows = query.query_map(which, |row| row.get::<_, String>(0))?;
    let mut stale = Vec::new();
    for text in rows {
        let document = parse(&text?, scope.misreads, broadcast::COLLECTION);
        stale.extend(Lease::of(app, &scope.misreads.note(broadcast::COLLECTION, BroadcastRecord::from_json(document))));
    }
    Ok(stale)
}

pub(super) fn get(connection: &Connection, scope: Scope<'_>, id: &StreamId) -> Result<Option<BroadcastRecord>> {
    Ok(scope.find(connection, id.as_str())?.map(|row| row.record))
}

pub(super) fn list(
    connection: &Connection,
    scope: Scope<'_>,
    offset: usize,
    size: usize,
) -> Result<Vec<BroadcastRecord>> {
    let mut query = connection
        .prepare_cached("SELECT stream_id, document FROM broadcast WHERE app = ?1 ORDER BY rowid LIMIT ?2 OFFSET ?3")?;
    let size = i64::try_from(size.min(BROADCAST_LIST_MAX)).unwrap_or_default();
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let rows = query
        .query_map(params![scope.app, size, offset], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| row.map(|(stream_id, text)| scope.broadcast(stream_id, &text).1)).collect()
}

pub(super) fn count(connection: &Connection, scope: Scope<'_>) -> Result<u64> {
    let count: i64 =
        connection.query_row("SELECT count(*) FROM broadcast WHERE app = ?1", [scope.app], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// A whole new document of a record somebody described.
fn described(stream_id: &StreamId, record: &BroadcastRecord) -> JsonMap {
    let mut document: JsonMap = record.insertable_extra().map(|(name, value)| (name.clone(), value.clone())).collect();
    apply(&mut document, &record.fields());
    apply(&mut document, &vec![("streamId", Field::Text(stream_id.to_string()))]);
    document
}

pub(super) fn create(
    connection: &mut Connection,
    scope: Scope<'_>,
    id: &StreamId,
    record: &BroadcastRecord,
) -> Result<bool> {
    let transaction = begin(connection)?;
    if scope.find(&transaction, id.as_str())?.is_some() {
        return Ok(false);
    }
    scope.insert(&transaction, id.as_str(), &described(id, record))?;
    transaction.commit()?;
    Ok(true)
}

pub(super) fn upsert(
    connection: &mut Connection,
    scope: Scope<'_>,
    id: &StreamId,
    record: &BroadcastRecord,
) -> Result<Upserted> {
    let transaction = begin(connection)?;
    let done = match scope.find(&transaction, id.as_str())? {
        None => {
            scope.insert(&transaction, id.as_str(), &described(id, record))?;
            Upserted::Created
        }
        Some(row) => {
            let before = row.document.clone();
            let mut after = before.clone();
            apply(&mut after, &record.descriptive_fields());
            if after == before {
                return Ok(Upserted::Unchanged);
            }
            change(&transaction, row, &record.descriptive_fields())?;
            Upserted::Changed
        }
    };
    transaction.commit()?;
    Ok(done)
}

pub(super) fn remove(connection: &mut Connection, scope: Scope<'_>, id: &StreamId) -> Result<bool> {
    let transaction = begin(connection)?;
    let which = params![scope.app, id.as_str()];
    let deleted = transaction.execute("DELETE FROM broadcast WHERE app = ?1 AND stream_id = ?2", which)?;
    transaction.execute("DELETE FROM stream_info WHERE app = ?1 AND stream_id = ?2", which)?;
    transaction.commit()?;
    Ok(deleted > 0)
}

pub(super) fn set_viewer_count(
    connection: &mut Connection,
    scope: Scope<'_>,
    id: &StreamId,
    epoch: Option<Epoch>,
    viewers: u32,
) -> Result<bool> {
    let transaction = begin(connection)?;
    let row = scope.find(&transaction, id.as_str())?;
    let Some(row) = row.filter(|row| epoch.is_none_or(|epoch| row.record.epoch() == epoch)) else { return Ok(false) };
    let viewers = Field::Int32(i32::try_from(viewers).unwrap_or(i32::MAX));
    change(&transaction, row, &vec![("webRTCViewerCount", viewers)])?;
    transaction.commit()?;
    Ok(true)
}

pub(super) fn clean(
    connection: &mut Connection,
    scope: Scope<'_>,
    app: &AppName,
    request: &LeftoverRequest,
) -> Result<Leftovers> {
    let transaction = begin(connection)?;
    let mut cleaned = Leftovers::default();
    let ids: Vec<String> = {
        let mut query = transaction.prepare("SELECT stream_id FROM broadcast WHERE app = ?1")?;
        query.query_map([scope.app], |row| row.get(0))?.collect::<Result<_>>()?
    };
    for id in ids {
        let Some(row) = scope.find(&transaction, &id)? else { continue };
        let was_live = Ended::of(app, &row.record);
        match leftovers::decide(&row.record, request) {
            Leftover::Leave => continue,
            Leftover::Delete => {
                delete(&transaction, &row)?;
                cleaned.deleted += 1;
            }
            Leftover::Finish => {
                change(&transaction, row, &claim::end_changes(&Status::Finished, request.now_ms))?;
                cleaned.finished += 1;
            }
        }
        cleaned.ended.extend(was_live);
    }
    let infos = transaction.execute(
        "DELETE FROM stream_info WHERE app = ?1 AND host = ?2 AND origin_port = ?3",
        params![scope.app, request.host, request.origin_port],
    )?;
    cleaned.infos_deleted = infos as u64;
    transaction.commit()?;
    Ok(cleaned)
}

pub(super) fn heartbeat_node(
    connection: &mut Connection,
    misreads: &Misreads,
    node: &ClusterNodeRecord,
) -> Result<(), RegistryError> {
    const OPERATION: &str = "a node's heartbeat";
    node.check_id(OPERATION)?;
    let mut write = || {
        let transaction = begin(connection)?;
        let known: Option<String> = transaction
            .query_row("SELECT document FROM cluster_node WHERE id = ?1", [&node.id], |row| row.get(0))
            .optional()?;
        let mut document = known.map(|text| parse(&text, misreads, node::COLLECTION)).unwrap_or_default();
        apply(&mut document, &node.fields());
        transaction.execute(
            "INSERT INTO cluster_node (id, document) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET document = excluded.document",
            params![node.id, text(&document)],
        )?;
        transaction.commit()
    };
    write().map_err(|error| super::classify(OPERATION, &error))
}

pub(super) fn list_nodes(connection: &Connection, misreads: &Misreads) -> Result<Vec<ClusterNodeRecord>> {
    let mut query = connection.prepare_cached("SELECT id, document FROM cluster_node ORDER BY id LIMIT ?1")?;
    let limit = i64::try_from(NODE_LIST_MAX).unwrap_or(i64::MAX);
    let rows = query.query_map([limit], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (id, text) = row?;
        let document = parse(&text, misreads, node::COLLECTION);
        let record = misreads.note(node::COLLECTION, ClusterNodeRecord::from_json(document));
        Ok(ClusterNodeRecord { id, ..record })
    })
    .collect()
}

pub(super) fn remove_node(connection: &Connection, id: &NodeId) -> Result<bool> {
    Ok(connection.execute("DELETE FROM cluster_node WHERE id = ?1", [id.as_str()])? > 0)
}
