//! Main tracks and the streams that belong to them.

use ams_registry::{BroadcastEdit, BroadcastQuery, BroadcastRecord};
use ams_types::StreamKey;
use axum::response::IntoResponse;

use super::broadcasts::{live_since, shown};
use super::call::Call;
use super::outcome::{Answer, Outcome, RestError, number, ok};

/// `POST /{id}/subtrack?id=…`
pub(super) async fn add(call: Call) -> Answer {
    let (main, subtrack) = match pair(&call).await? {
        Ok(pair) => pair,
        Err(refused) => return Ok(refused.into_response()),
    };
    let (main_key, main) = main;
    if main_key == subtrack.0 {
        return Ok(Outcome::failed("A stream cannot be its own subtrack").into_response());
    }
    if let Ok(limit) = u64::try_from(main.subtracks_limit) {
        let query = BroadcastQuery { main_track: Some(main.stream_id.clone()), ..BroadcastQuery::default() };
        if call.registry().count_matching(&main_key.app, &query).await? >= limit {
            return Ok(Outcome::failed(format!("Subtrack limit is reached for the main track:{}", main_key.id))
                .into_response());
        }
    }
    let edit = BroadcastEdit::main_track(Some(main_key.id.as_str()));
    let done = call.registry().edit_broadcast(&subtrack.0, &edit).await?.is_some();
    Ok(outcome(done, "added to", &subtrack.0, &main_key).into_response())
}

/// `DELETE /{id}/subtrack?id=…`
pub(super) async fn remove(call: Call) -> Answer {
    let ((main, _), (subtrack, record)) = match pair(&call).await? {
        Ok(pair) => pair,
        Err(refused) => return Ok(refused.into_response()),
    };
    let belongs = record.main_track_stream_id.as_deref() == Some(main.id.as_str());
    let edit = BroadcastEdit::main_track(None);
    let done = belongs && call.registry().edit_broadcast(&subtrack, &edit).await?.is_some();
    Ok(outcome(done, "removed from", &subtrack, &main).into_response())
}

fn outcome(done: bool, how: &str, subtrack: &StreamKey, main: &StreamKey) -> Outcome {
    match done {
        true => Outcome::done(),
        false => Outcome::failed(format!("Subtrack:{} could not be {how} main track: {}", subtrack.id, main.id)),
    }
}

type Known = (StreamKey, BroadcastRecord);

/// The main track of the path and the subtrack of the query, or what is said when one of them does not exist.
async fn pair(call: &Call) -> Result<Result<(Known, Known), Outcome>, RestError> {
    let subtrack = call.query("id").unwrap_or_default();
    let mut found = Vec::new();
    for id in [call.named("id"), subtrack] {
        let missing = || Outcome::failed(format!("There is not stream with id:{id}"));
        let Some(key) = call.key_of(id)? else { return Ok(Err(missing())) };
        match call.registry().get_broadcast(&key).await? {
            Some(record) => found.push((key, record)),
            None => return Ok(Err(missing())),
        }
    }
    match <[Known; 2]>::try_from(found) {
        Ok([main, subtrack]) => Ok(Ok((main, subtrack))),
        Err(_) => Ok(Err(Outcome::not_done())),
    }
}

/// The query for the subtracks of the path's main track, which must exist.
async fn query(call: &Call, live: bool) -> Result<BroadcastQuery, RestError> {
    let missing = || RestError::NoSuch(format!("Broadcast not found with id: {}", call.named("id")));
    let key = call.key()?.ok_or_else(missing)?;
    call.registry().get_broadcast(&key).await?.ok_or_else(missing)?;
    Ok(BroadcastQuery {
        main_track: Some(key.id.to_string()),
        role: call.query("role").map(str::to_owned),
        live_since: live.then(live_since),
        ..BroadcastQuery::default()
    })
}

async fn page(call: &Call, live: bool) -> Answer {
    let (offset, size) = call.page()?;
    let query = query(call, live).await?;
    ok(&shown(&call.registry().query_broadcasts(call.app()?, &query, offset, size).await?))
}

/// `GET /{id}/subtracks/{offset}/{size}`
pub(super) async fn list(call: Call) -> Answer {
    page(&call, false).await
}

/// `GET /{id}/active-subtracks/{offset}/{size}`
pub(super) async fn list_live(call: Call) -> Answer {
    page(&call, true).await
}

/// `GET /{id}/active-subtracks-count`
pub(super) async fn count_live(call: Call) -> Answer {
    let query = query(&call, true).await?;
    number(call.registry().count_matching(call.app()?, &query).await?)
}
