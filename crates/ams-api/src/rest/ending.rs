//! Stopping streams and deleting records, with their subtracks, wherever they are live.
//!
//! Owns where an end takes place: here, at the owner, or, when that is gone, in the record alone.

use ams_registry::{BroadcastQuery, BroadcastRecord, Ended, ReleaseReason};
use ams_types::StreamKey;
use axum::response::IntoResponse;
use http::Method;

use super::call::{Call, PAGE_MAX, now_ms};
use super::forward::{self, Owner};
use super::off::SOURCES_OFF;
use super::outcome::{Answer, Outcome, RestError};
use crate::state::Shared;

/// Most subtracks one call ends.
const SUBTRACKS_MAX: usize = 1000;
/// Most ids of one `DELETE /?ids=`.
const IDS_MAX: usize = 1000;

/// `POST /{id}/stop`
pub(super) async fn stop(call: Call) -> Answer {
    let Some(key) = call.key()? else { return Ok(Outcome::not_done().into_response()) };
    let Some(record) = call.registry().get_broadcast(&key).await? else {
        return Ok(Outcome::not_done().into_response());
    };
    let stopped = stop_here(&call.state, &key, &record).await?;
    let mut subtracks = false;
    if call.flag("stopSubtracks", true) {
        for (key, record) in subtracks_of(&call.state, &key).await? {
            subtracks |= stop_anywhere(&call.state, &key, &record).await?;
        }
    }
    Ok(Outcome::of(stopped || subtracks).into_response())
}

/// `POST /{id}/start`
pub(super) async fn start(call: Call) -> Answer {
    let unknown = || Outcome::failed(format!("No Stream Exists with id:{}", call.named("id")));
    let Some(key) = call.key()? else { return Ok(unknown().into_response()) };
    let outcome = match call.registry().get_broadcast(&key).await? {
        None => unknown(),
        Some(_) => Outcome::failed(SOURCES_OFF),
    };
    Ok(outcome.into_response())
}

/// `DELETE /{id}`
pub(super) async fn delete(call: Call) -> Answer {
    let Some(key) = call.key()? else { return Ok(Outcome::not_done().into_response()) };
    Ok(delete_here(&call.state, &key, call.flag("deleteSubtracks", true)).await?.into_response())
}

/// `DELETE /?ids=…`
pub(super) async fn delete_many(call: Call) -> Answer {
    let Some(ids) = call.query("ids") else {
        return Ok(Outcome::failed("ids parameter is blank").into_response());
    };
    if ids.split(',').count() > IDS_MAX {
        return Err(RestError::Bad(format!("More than {IDS_MAX} ids in one call; delete them in several")));
    }
    let mut last = Outcome::not_done();
    for id in ids.split(',').map(str::trim) {
        let Some(key) = call.key_of(id)? else { return Ok(Outcome::not_done().into_response()) };
        last = delete_anywhere(&call.state, &key).await?;
        if !last.is_success() {
            break;
        }
    }
    Ok(last.into_response())
}

/// Deletes a record where its stream is live, or here.
async fn delete_anywhere(state: &Shared, key: &StreamKey) -> Result<Outcome, RestError> {
    let record = state.node.registry().get_broadcast(key).await?;
    if let Some(record) = record
        && let Some(owner) = Owner::of(state, &record).await
    {
        let path = format!("/{}/rest/v2/broadcasts/{}", key.app, key.id);
        if let Some(done) = forward::ask(state, &owner, &Method::DELETE, &path).await {
            return Ok(match done {
                true => Outcome::done().saying(DELETED_AND_STOPPED),
                false => Outcome::not_done(),
            });
        }
    }
    delete_here(state, key, true).await
}

const DELETED_AND_STOPPED: &str = "broadcast is deleted and stopped successfully";
const DELETED_ONLY: &str = "broadcast is deleted but could not stopped ";

async fn delete_here(state: &Shared, key: &StreamKey, with_subtracks: bool) -> Result<Outcome, RestError> {
    let registry = state.node.registry();
    let Some(record) = registry.get_broadcast(key).await? else { return Ok(Outcome::not_done()) };
    let stopped = stop_here(state, key, &record).await?;
    if with_subtracks {
        for (subtrack, record) in subtracks_of(state, key).await? {
            stop_anywhere(state, &subtrack, &record).await?;
            registry.delete_broadcast(&subtrack).await?;
        }
    }
    // A record of a publication alone went with it.
    registry.delete_broadcast(key).await?;
    Ok(Outcome::done().saying(if stopped { DELETED_AND_STOPPED } else { DELETED_ONLY }))
}

/// Up to [`SUBTRACKS_MAX`] subtracks of a main track.
async fn subtracks_of(state: &Shared, main: &StreamKey) -> Result<Vec<(StreamKey, BroadcastRecord)>, RestError> {
    let registry = state.node.registry();
    let query = BroadcastQuery { main_track: Some(main.id.to_string()), ..BroadcastQuery::default() };
    let mut found = Vec::new();
    while found.len() < SUBTRACKS_MAX {
        let page = registry.query_broadcasts(&main.app, &query, found.len(), PAGE_MAX).await?;
        let is_last = page.len() < PAGE_MAX;
        let keys = page.into_iter().filter_map(|record| {
            let id = record.stream_id.parse().ok().filter(|id| *id != main.id)?;
            Some((StreamKey::new(main.app.clone(), id), record))
        });
        found.extend(keys);
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// Ends a publication where it is; returns whether there was one.
async fn stop_anywhere(state: &Shared, key: &StreamKey, record: &BroadcastRecord) -> Result<bool, RestError> {
    if let Some(owner) = Owner::of(state, record).await {
        let path = format!("/{}/rest/v2/broadcasts/{}/stop?stopSubtracks=false", key.app, key.id);
        if let Some(stopped) = forward::ask(state, &owner, &Method::POST, &path).await {
            return Ok(stopped);
        }
    }
    stop_here(state, key, record).await
}

/// Ends a publication of this node, or one whose node cannot be reached; returns whether there was one.
async fn stop_here(state: &Shared, key: &StreamKey, record: &BroadcastRecord) -> Result<bool, RestError> {
    if state.node.stop_stream(key, "stopped by the REST API".to_owned()).await {
        return Ok(true);
    }
    let now = now_ms();
    if record.is_virtual || !record.is_held(now) {
        return Ok(false);
    }
    let registry = state.node.registry();
    let lease = registry.lookup(key, now).await?.and_then(|found| found.lease(key.clone()));
    let Some(lease) = lease else { return Ok(false) };
    match registry.release(&lease, ReleaseReason::Finished, now).await {
        Ok(_) => {
            if let Some(ended) = Ended::of(&key.app, record) {
                state.node.released(&ended);
            }
            Ok(true)
        }
        Err(ams_registry::ClaimError::Registry(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}
