//! The webhook outbox in SQLite: one row per event.
//!
//! Synchronous functions over a connection. The document is one JSON text; the columns beside it are what changes while
//! an event waits, and what is searched by.

use ams_types::{Epoch, NodeId, StreamId};
use rusqlite::{Connection, Row, params};

use super::store::{Result, Scope, begin, parse, text};
use crate::outbox::{DROP_MAX, OutboxReport, OutboxRules, Shares, TAKE_MAX, TakeEvents};
use crate::record::broadcast::epoch_to_stored;
use crate::record::field::{JsonMap, apply};
use crate::record::outbox::{
    COLLECTION, DEAD, DEAD_MEMORY_MS, DONE, MEMORY_MS, OutboxRecord, PLACE_FIRST, PLACE_LAST, WAITING, WITHDRAWN,
};
use crate::registry::DOCUMENT_LIST_MAX;

/// Due events looked at in one call.
const LOOKED_AT_MAX: i64 = 256;

const COLUMNS: &str = "document, state, attempts, next_attempt, leased_by, leased_until, withdrawn_by, forget_at";

fn read(scope: Scope<'_>, row: &Row<'_>) -> Result<OutboxRecord> {
    let document = parse(&row.get::<_, String>(0)?, scope.misreads, COLLECTION);
    let event = scope.misreads.note(COLLECTION, OutboxRecord::from_json(document));
    Ok(OutboxRecord {
        state: row.get(1)?,
        attempts: row.get(2)?,
        next_attempt: row.get(3)?,
        leased_by: row.get(4)?,
        leased_until: row.get(5)?,
        withdrawn_by: row.get(6)?,
        forget_at: row.get(7)?,
        ..event
    })
}

pub(super) fn enqueue(connection: &Connection, scope: Scope<'_>, event: &OutboxRecord) -> Result<bool> {
    let mut document = JsonMap::new();
    apply(&mut document, &event.fields());
    let mut query = connection.prepare_cached(
        "INSERT OR IGNORE INTO webhook_outbox (app, id, stream_id, epoch, place, action, target, created, not_before,
             document, state, attempts, next_attempt, leased_by, leased_until, withdrawn_by, forget_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    )?;
    let done = query.execute(params![
        scope.app,
        event.id,
        event.stream_id,
        event.epoch,
        event.place,
        event.action,
        event.target,
        event.created,
        event.not_before,
        text(&document),
        event.state,
        event.attempts,
        event.next_attempt,
        event.leased_by,
        event.leased_until,
        event.withdrawn_by,
        event.forget_at,
    ])?;
    Ok(done > 0)
}

pub(super) fn withdraw(
    connection: &mut Connection,
    scope: Scope<'_>,
    stream_id: &StreamId,
    action: &str,
    by: Epoch,
    at_ms: i64,
) -> Result<bool> {
    let transaction = begin(connection)?;
    let by = epoch_to_stored(by);
    let done = transaction.execute(
        "UPDATE webhook_outbox SET state = ?5, withdrawn_by = ?4, forget_at = ?6 + ?7
         WHERE app = ?1 AND stream_id = ?2 AND action = ?3 AND state = ?8 AND epoch < ?4 AND attempts = 0
             AND not_before > ?6 AND leased_until <= ?6",
        params![scope.app, stream_id.as_str(), action, by, WITHDRAWN, at_ms, MEMORY_MS, WAITING],
    )?;
    // Said before, and the answer was lost.
    let before: i64 = transaction.query_row(
        "SELECT count(*) FROM webhook_outbox
         WHERE app = ?1 AND stream_id = ?2 AND action = ?3 AND state = ?5 AND withdrawn_by = ?4",
        params![scope.app, stream_id.as_str(), action, by, WITHDRAWN],
        |row| row.get(0),
    )?;
    transaction.commit()?;
    Ok(done > 0 || before > 0)
}

pub(super) fn take(connection: &mut Connection, scope: Scope<'_>, take: &TakeEvents) -> Result<Vec<OutboxRecord>> {
    let transaction = begin(connection)?;
    let not_to = serde_json::Value::from(take.not_to.clone()).to_string();
    let due: Vec<OutboxRecord> = {
        let mut query = transaction.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM webhook_outbox AS it
             WHERE app = ?1 AND state = ?2 AND next_attempt <= ?3 AND leased_until <= ?3
                 AND target NOT IN (SELECT value FROM json_each(?4))
                 AND NOT EXISTS (
                     SELECT 1 FROM webhook_outbox AS before
                     WHERE before.app = it.app AND before.stream_id = it.stream_id AND before.state = ?2
                         AND (before.epoch, before.place, before.id) < (it.epoch, it.place, it.id))
             ORDER BY next_attempt, epoch, place LIMIT ?5"
        ))?;
        let rows =
            query.query_map(params![scope.app, WAITING, take.now_ms, not_to, LOOKED_AT_MAX], |row| read(scope, row))?;
        rows.collect::<Result<_>>()?
    };
    let (mut taken, mut shares) = (Vec::new(), Shares::default());
    for event in due {
        if taken.len() >= take.max.min(TAKE_MAX) {
            break;
        }
        if !shares.take(&event, take.per_target) {
            continue;
        }
        transaction.execute(
            "UPDATE webhook_outbox SET leased_by = ?3, leased_until = ?4 WHERE app = ?1 AND id = ?2",
            params![scope.app, event.id, take.node.as_str(), take.until_ms],
        )?;
        let leased_by = Some(take.node.to_string());
        taken.push(OutboxRecord { leased_by, leased_until: take.until_ms, ..event });
    }
    transaction.commit()?;
    Ok(taken)
}

pub(super) fn done(
    connection: &mut Connection,
    scope: Scope<'_>,
    id: &str,
    node: &NodeId,
    now_ms: i64,
) -> Result<bool> {
    let transaction = begin(connection)?;
    let mut closed = transaction.execute(
        "UPDATE webhook_outbox SET state = ?5, forget_at = ?6
         WHERE app = ?1 AND id = ?2 AND leased_by = ?3 AND state = ?4 AND place IN (?7, ?8)",
        params![scope.app, id, node.as_str(), WAITING, DONE, now_ms + MEMORY_MS, PLACE_FIRST, PLACE_LAST],
    )?;
    if closed == 0 {
        closed = transaction.execute(
            "DELETE FROM webhook_outbox WHERE app = ?1 AND id = ?2 AND leased_by = ?3 AND state = ?4",
            params![scope.app, id, node.as_str(), WAITING],
        )?;
    }
    transaction.commit()?;
    Ok(closed > 0)
}

pub(super) fn failed(connection: &Connection, scope: Scope<'_>, id: &str, node: &NodeId, next_ms: i64) -> Result<bool> {
    let done = connection.execute(
        "UPDATE webhook_outbox SET attempts = attempts + 1, next_attempt = ?4, leased_until = 0
         WHERE app = ?1 AND id = ?2 AND leased_by = ?3 AND state = ?5",
        params![scope.app, id, node.as_str(), next_ms, WAITING],
    )?;
    Ok(done > 0)
}

pub(super) fn tend(connection: &mut Connection, scope: Scope<'_>, rules: &OutboxRules) -> Result<OutboxReport> {
    let transaction = begin(connection)?;
    transaction.execute(
        "DELETE FROM webhook_outbox WHERE app = ?1 AND forget_at > 0 AND forget_at < ?2",
        params![scope.app, rules.now_ms],
    )?;
    let given_up = transaction.execute(
        "UPDATE webhook_outbox SET state = ?5, forget_at = ?6
         WHERE app = ?1 AND state = ?2 AND created < ?3 AND attempts >= ?4 AND leased_until <= ?7",
        params![
            scope.app,
            WAITING,
            rules.given_up_before_ms,
            rules.attempts_min,
            DEAD,
            rules.now_ms + DEAD_MEMORY_MS,
            rules.now_ms
        ],
    )?;
    let trim = |state: &str| -> Result<(u64, u64)> {
        let count: i64 = transaction.query_row(
            "SELECT count(*) FROM webhook_outbox WHERE app = ?1 AND state = ?2",
            params![scope.app, state],
            |row| row.get(0),
        )?;
        let count = count.unsigned_abs();
        let beyond = count.saturating_sub(rules.waiting_max as u64).min(DROP_MAX as u64);
        let dropped = transaction.execute(
            "DELETE FROM webhook_outbox WHERE rowid IN (
                 SELECT rowid FROM webhook_outbox WHERE app = ?1 AND state = ?2 AND leased_until <= ?3
                 ORDER BY created LIMIT ?4)",
            params![scope.app, state, rules.now_ms, i64::try_from(beyond).unwrap_or(0)],
        )? as u64;
        Ok((count.saturating_sub(dropped), dropped))
    };
    let (waiting, dropped) = trim(WAITING)?;
    let (dead, _) = trim(DEAD)?;
    transaction.commit()?;
    Ok(OutboxReport { waiting, dead, given_up: given_up as u64, dropped })
}

pub(super) fn list_dead(
    connection: &Connection,
    scope: Scope<'_>,
    offset: usize,
    size: usize,
) -> Result<Vec<OutboxRecord>> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM webhook_outbox WHERE app = ?1 AND state = ?2 ORDER BY created, id LIMIT ?3 OFFSET ?4"
    ))?;
    let size = i64::try_from(size.min(DOCUMENT_LIST_MAX)).unwrap_or_default();
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let rows = query.query_map(params![scope.app, DEAD, size, offset], |row| read(scope, row))?;
    rows.collect()
}
