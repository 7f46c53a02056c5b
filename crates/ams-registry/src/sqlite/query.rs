//! Lists, counts and sums of streams' records, and settings and small documents, in SQLite.
//!
//! Synchronous functions over a connection, as in `store`. Conditions are checked here, row by row.

use ams_types::{AppName, StreamId};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, params};

use super::store::{Result, Scope, begin, change, parse, text};
use crate::error::RegistryError;
use crate::query::{BroadcastQuery, LiveTotals, SEARCH_RECORDS_MAX};
use crate::record::JsonMap;
use crate::record::broadcast::BroadcastRecord;
use crate::record::edit::BroadcastEdit;
use crate::record::field::apply;
use crate::record::misread::Misreads;
use crate::record::settings::{self, AppSettingsRecord};
use crate::record::token::{Shelf, TokenRecord, TokenUse};
use crate::registry::{APP_SETTINGS_MAX, BROADCAST_LIST_MAX, DOCUMENT_LIST_MAX, DOCUMENTS_PER_STREAM_MAX, Upserted};

/// Calls `each` with every record `query` finds, in order, until it says no.
fn walk(
    connection: &Connection,
    scope: Scope<'_>,
    query: &BroadcastQuery,
    mut each: impl FnMut(BroadcastRecord) -> bool,
) -> Result<()> {
    const VALUE: &str = "CASE WHEN json_valid(document) THEN json_extract(document, ?2) END";
    let order = match &query.sort {
        None => "?2, rowid".to_owned(),
        Some(sort) if sort.descending => format!("{VALUE} DESC, rowid"),
        Some(_) => format!("{VALUE}, rowid"),
    };
    let sql =
        format!("SELECT stream_id, document FROM broadcast WHERE app = ?1 ORDER BY {order} LIMIT {SEARCH_RECORDS_MAX}");
    let path = query.sort.as_ref().map(|sort| format!("$.{}", sort.field));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![scope.app, path])?;
    while let Some(row) = rows.next()? {
        let (_, record) = scope.broadcast(row.get(0)?, &row.get::<_, String>(1)?);
        if query.finds(&record) && !each(record) {
            break;
        }
    }
    Ok(())
}

pub(super) fn query(
    connection: &Connection,
    scope: Scope<'_>,
    query: &BroadcastQuery,
    offset: usize,
    size: usize,
) -> Result<Vec<BroadcastRecord>> {
    let size = size.min(BROADCAST_LIST_MAX);
    let (mut found, mut skipped) = (Vec::new(), 0);
    walk(connection, scope, query, |record| {
        if skipped < offset {
            skipped += 1;
        } else if found.len() < size {
            found.push(record);
        }
        found.len() < size
    })?;
    Ok(found)
}

pub(super) fn count(connection: &Connection, scope: Scope<'_>, query: &BroadcastQuery) -> Result<u64> {
    let mut count = 0;
    walk(connection, scope, query, |_| {
        count += 1;
        true
    })?;
    Ok(count)
}

pub(super) fn live_totals(connection: &Connection, scope: Scope<'_>, since_ms: i64) -> Result<LiveTotals> {
    let live = BroadcastQuery { live_since: Some(since_ms), ..BroadcastQuery::default() };
    let mut totals = LiveTotals::default();
    walk(connection, scope, &live, |record| {
        totals.streams += 1;
        totals.webrtc += i64::from(record.webrtc_viewer_count);
        totals.hls += i64::from(record.hls_viewer_count);
        totals.dash += i64::from(record.dash_viewer_count);
        totals.rtmp += i64::from(record.rtmp_viewer_count);
        true
    })?;
    Ok(totals)
}

pub(super) fn edit(
    connection: &mut Connection,
    scope: Scope<'_>,
    id: &StreamId,
    edit: &BroadcastEdit,
) -> Result<Option<Upserted>> {
    let transaction = begin(connection)?;
    let Some(row) = scope.find(&transaction, id.as_str())? else { return Ok(None) };
    let mut after = row.document.clone();
    apply(&mut after, edit.changes());
    if after == row.document {
        return Ok(Some(Upserted::Unchanged));
    }
    change(&transaction, row, edit.changes())?;
    transaction.commit()?;
    Ok(Some(Upserted::Changed))
}

pub(super) fn list_app_settings(connection: &Connection, misreads: &Misreads) -> Result<Vec<AppSettingsRecord>> {
    let mut query = connection.prepare_cached("SELECT document FROM app_settings ORDER BY app LIMIT ?1")?;
    let limit = i64::try_from(APP_SETTINGS_MAX).unwrap_or(i64::MAX);
    let rows = query.query_map([limit], |row| row.get::<_, String>(0))?;
    rows.map(|text| {
        let document = parse(&text?, misreads, settings::COLLECTION);
        Ok(misreads.note(settings::COLLECTION, AppSettingsRecord::from_json(document)))
    })
    .collect()
}

pub(super) fn put_app_settings(
    connection: &mut Connection,
    misreads: &Misreads,
    app: &AppName,
    settings: &AppSettingsRecord,
) -> Result<()> {
    let transaction = begin(connection)?;
    let known: Option<String> = transaction
        .query_row("SELECT document FROM app_settings WHERE app = ?1", [app.as_str()], |row| row.get(0))
        .optional()?;
    let mut document = known.map(|text| parse(&text, misreads, settings::COLLECTION)).unwrap_or_default();
    document.extend(settings.extra.clone());
    apply(&mut document, &settings.fields());
    document.insert("appName".to_owned(), app.as_str().into());
    transaction.execute(
        "INSERT INTO app_settings (app, document) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET document = excluded.document",
        params![app.as_str(), text(&document)],
    )?;
    transaction.commit()
}

pub(super) fn put_document(
    connection: &mut Connection,
    scope: Scope<'_>,
    stream_id: &StreamId,
    shelf: Shelf,
    id: &str,
    document: &JsonMap,
) -> Result<Result<Upserted, RegistryError>> {
    const OPERATION: &str = "writing a stream's document";
    let transaction = begin(connection)?;
    let of_stream = params![scope.app, shelf.collection(), stream_id.as_str()];
    let known: Option<(i64, String)> = transaction
        .query_row(
            "SELECT rowid, document FROM stream_document
             WHERE app = ?1 AND shelf = ?2 AND stream_id = ?3 AND id = ?4",
            params![scope.app, shelf.collection(), stream_id.as_str(), id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?
        .filter(|_| shelf != Shelf::ConnectionEvents);
    let mut merged =
        known.as_ref().map(|(_, text)| parse(text, scope.misreads, shelf.collection())).unwrap_or_default();
    merged.extend(document.clone());
    merged.retain(|_, value| !value.is_null());
    merged.insert("streamId".to_owned(), stream_id.as_str().into());
    merged.insert(shelf.id_field().to_owned(), id.into());
    let document = text(&merged);
    let done = match known {
        Some((_, before)) if before == document => Upserted::Unchanged,
        Some((row, _)) => {
            transaction.execute("UPDATE stream_document SET document = ?2 WHERE rowid = ?1", params![row, document])?;
            Upserted::Changed
        }
        None => {
            let count = "SELECT count(*) FROM stream_document WHERE app = ?1 AND shelf = ?2 AND stream_id = ?3";
            let count: i64 = transaction.query_row(count, of_stream, |row| row.get(0))?;
            if count.unsigned_abs() >= DOCUMENTS_PER_STREAM_MAX && shelf == Shelf::ConnectionEvents {
                transaction.execute(
                    "DELETE FROM stream_document WHERE rowid = (SELECT min(rowid) FROM stream_document
                     WHERE app = ?1 AND shelf = ?2 AND stream_id = ?3)",
                    of_stream,
                )?;
            } else if count.unsigned_abs() >= DOCUMENTS_PER_STREAM_MAX {
                return Ok(Err(crate::mongo::settings::too_many(OPERATION)));
            }
            transaction.execute(
                "INSERT INTO stream_document (app, shelf, stream_id, id, document) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![scope.app, shelf.collection(), stream_id.as_str(), id, document],
            )?;
            Upserted::Created
        }
    };
    transaction.commit()?;
    Ok(Ok(done))
}

pub(super) fn list_documents(
    connection: &Connection,
    scope: Scope<'_>,
    stream_id: &StreamId,
    shelf: Shelf,
    id: Option<&str>,
    offset: usize,
    size: usize,
) -> Result<Vec<JsonMap>> {
    let mut query = connection.prepare_cached(
        "SELECT document FROM stream_document WHERE app = ?1 AND shelf = ?2 AND stream_id = ?3
         AND (?4 IS NULL OR id = ?4) ORDER BY rowid LIMIT ?5 OFFSET ?6",
    )?;
    let size = i64::try_from(size.min(DOCUMENT_LIST_MAX)).unwrap_or_default();
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let which: &[&dyn ToSql] = &[&scope.app, &shelf.collection(), &stream_id.as_str(), &id, &size, &offset];
    let rows = query.query_map(which, |row| row.get::<_, String>(0))?;
    rows.map(|text| Ok(parse(&text?, scope.misreads, shelf.collection()))).collect()
}

pub(super) fn delete_documents(
    connection: &Connection,
    scope: Scope<'_>,
    stream_id: &StreamId,
    shelf: Shelf,
    id: Option<&str>,
) -> Result<u64> {
    let deleted = connection.execute(
        "DELETE FROM stream_document WHERE app = ?1 AND shelf = ?2 AND stream_id = ?3 AND (?4 IS NULL OR id = ?4)",
        params![scope.app, shelf.collection(), stream_id.as_str(), id],
    )?;
    Ok(deleted as u64)
}

pub(super) fn delete_expired_tokens(
    connection: &Connection,
    scope: Scope<'_>,
    stream_id: &StreamId,
    now_secs: i64,
) -> Result<u64> {
    let deleted = connection.execute(
        "DELETE FROM stream_document WHERE app = ?1 AND shelf = ?2 AND stream_id = ?3
         AND json_extract(document, '$.expireDate') < ?4",
        params![scope.app, Shelf::Tokens.collection(), stream_id.as_str(), now_secs],
    )?;
    Ok(deleted as u64)
}

pub(super) fn find_token(connection: &Connection, scope: Scope<'_>, token_id: &str) -> Result<Option<TokenRecord>> {
    let shelf = Shelf::Tokens.collection();
    let mut query = connection.prepare_cached(
        "SELECT document FROM stream_document WHERE app = ?1 AND shelf = ?2 AND id = ?3 ORDER BY rowid LIMIT 1",
    )?;
    let found: Option<String> = query.query_row(params![scope.app, shelf, token_id], |row| row.get(0)).optional()?;
    let read = |text: String| TokenRecord::from_json(parse(&text, scope.misreads, shelf));
    Ok(found.map(|text| scope.misreads.note(shelf, read(text))))
}

pub(super) fn use_token(
    connection: &mut Connection,
    scope: Scope<'_>,
    stream_id: &StreamId,
    token_id: &str,
    before: Option<&TokenUse>,
    after: &TokenUse,
) -> Result<bool> {
    let transaction = begin(connection)?;
    let shelf = Shelf::Tokens.collection();
    let found: Option<(i64, String)> = transaction
        .query_row(
            "SELECT rowid, document FROM stream_document
             WHERE app = ?1 AND shelf = ?2 AND stream_id = ?3 AND id = ?4 ORDER BY rowid LIMIT 1",
            params![scope.app, shelf, stream_id.as_str(), token_id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((row, document)) = found else { return Ok(false) };
    let mut document = parse(&document, scope.misreads, shelf);
    let used = scope.misreads.note(shelf, TokenRecord::from_json(document.clone())).token_use();
    // A call whose answer was lost may be repeated.
    if used.as_ref() != before && used.as_ref() != Some(after) {
        return Ok(false);
    }
    document.insert("amsUsedBy".to_owned(), after.by.as_str().into());
    document.insert("amsUsedAt".to_owned(), after.at_ms.into());
    transaction.execute("UPDATE stream_document SET document = ?2 WHERE rowid = ?1", params![row, text(&document)])?;
    transaction.commit()?;
    Ok(true)
}
