//! Streams' records: making, reading, listing, counting and editing them.

use ams_registry::status::STALE_AFTER_MS;
use ams_registry::{BroadcastEdit, BroadcastQuery, BroadcastRecord, Search, Sort, Status, Upserted, WrongType};
use axum::response::IntoResponse;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

use super::call::{Call, Object, now_ms};
use super::off::SOURCES_OFF;
use super::outcome::{Answer, Outcome, RestError, json as answer, number, ok};

/// Schemes of addresses a stream can be pulled from.
const STREAM_SCHEMES: [&str; 8] = ["http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "srt"];

impl From<WrongType> for RestError {
    fn from(error: WrongType) -> Self {
        Self::Bad(format!("The body cannot be used: {error}"))
    }
}

/// `POST /create`
pub(super) async fn create(call: Call, Object(body): Object) -> Answer {
    let app = call.app()?.clone();
    let described = BroadcastRecord::described(body)?;
    let given = described.stream_id.trim().to_owned();
    let id = if given.is_empty() { generated_id() } else { given };
    let Some(key) = call.key_of(&id)? else {
        return Err(RestError::Bad("Stream id is not valid.".to_owned()));
    };
    if described.stream_url.as_deref().is_some_and(|url| !url.is_empty() && !is_stream_url(url)) {
        return Err(RestError::Bad("Stream url is not valid. ".to_owned()));
    }
    if described.sub_folder.as_deref().is_some_and(|folder| !is_sub_folder(folder)) {
        return Err(RestError::Bad("Subfolder is not valid. ".to_owned()));
    }
    if call.flag("autoStart", false) {
        let is_pulled = matches!(described.kind.as_deref(), Some("ipCamera" | "streamSource"));
        let sentence =
            if is_pulled { SOURCES_OFF } else { "autoStart needs a broadcast of type ipCamera or streamSource" };
        return Ok(Outcome::failed(sentence).into_response());
    }
    let here = call.state.node.whereabouts();
    let settings = call.settings()?;
    let hook = described.listener_hook_url.clone().filter(|url| !url.is_empty());
    let record = BroadcastRecord {
        stream_id: id.clone(),
        status: Some(Status::Created.as_str().to_owned()),
        date: now_ms(),
        rtmp_url: Some(format!("rtmp://{}/{app}/{id}", here.host)),
        origin_address: Some(here.host),
        listener_hook_url: hook.or_else(|| settings.listener_hook_url.clone().filter(|url| !url.is_empty())),
        ..described
    };
    if !call.registry().create_broadcast(&key, &record).await? {
        let sentence = "Stream id is already being used. Please change stream id or keep it empty";
        return Err(RestError::Bad(sentence.to_owned()));
    }
    ok(&record.to_rest_json(now_ms()))
}

/// AMS's own way: 16 random characters, then a counter of nanoseconds.
fn generated_id() -> String {
    let random: String = rand::rng().sample_iter(Alphanumeric).take(16).map(char::from).collect();
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{random}{nanos}")
}

fn is_stream_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    STREAM_SCHEMES.contains(&scheme.to_ascii_lowercase().as_str())
        && !rest.is_empty()
        && !url.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_sub_folder(folder: &str) -> bool {
    !folder.contains("..") && !folder.contains('\\') && !folder.chars().any(char::is_control)
}

/// `GET /{id}`
pub(super) async fn get(call: Call) -> Answer {
    let key = call.key()?.ok_or(RestError::NotFound)?;
    let record = call.registry().get_broadcast(&key).await?.ok_or(RestError::NotFound)?;
    ok(&record.to_rest_json(now_ms()))
}

/// `GET /list/{offset}/{size}`
pub(super) async fn list(call: Call) -> Answer {
    let (offset, size) = call.page()?;
    let descending = call.query("order_by").is_some_and(|order| order.eq_ignore_ascii_case("desc"));
    let query = BroadcastQuery {
        search: search(call.query("search").unwrap_or_default())?,
        kind: call.query("type_by").map(str::to_owned),
        sort: call.query("sort_by").and_then(|field| Sort::by(field, descending)),
        ..BroadcastQuery::default()
    };
    let found = call.registry().query_broadcasts(call.app()?, &query, offset, size).await?;
    ok(&shown(&found))
}

fn search(text: &str) -> Result<Option<Search>, RestError> {
    Search::parse(text).map_err(|error| RestError::Bad(error.to_string()))
}

pub(super) fn shown(records: &[BroadcastRecord]) -> Vec<Value> {
    let now = now_ms();
    records.iter().map(|record| Value::Object(record.to_rest_json(now))).collect()
}

/// `GET /count`
pub(super) async fn count(call: Call) -> Answer {
    number(call.registry().count_broadcasts(call.app()?).await?)
}

/// `GET /count/{search}`
pub(super) async fn count_found(call: Call) -> Answer {
    let query = BroadcastQuery { search: search(call.named("search"))?, ..BroadcastQuery::default() };
    number(call.registry().count_matching(call.app()?, &query).await?)
}

/// `GET /active-live-stream-count`
pub(super) async fn count_live(call: Call) -> Answer {
    let query = BroadcastQuery { live_since: Some(live_since()), ..BroadcastQuery::default() };
    number(call.registry().count_matching(call.app()?, &query).await?)
}

/// A stream confirmed since then is live.
pub(super) fn live_since() -> i64 {
    // At exactly the limit it is stale already.
    now_ms() - STALE_AFTER_MS + 1
}

/// `PUT /{id}`
pub(super) async fn update(call: Call, Object(body): Object) -> Answer {
    let unknown = || Outcome::failed(format!("Broadcast with streamId: {} does not exist", call.named("id")));
    let edit = BroadcastEdit::from_json(body)?;
    let Some(key) = call.key()? else { return Ok(unknown().into_response()) };
    Ok(match call.registry().edit_broadcast(&key, &edit).await? {
        None => unknown(),
        // AMS answers by the number of records that changed.
        Some(done) => Outcome::of(done != Upserted::Unchanged),
    }
    .into_response())
}

/// `GET /{id}/broadcast-statistics`
pub(super) async fn statistics(call: Call) -> Answer {
    let record = match call.key()? {
        Some(key) => call.registry().get_broadcast(&key).await?,
        None => None,
    };
    let count = |of: fn(&BroadcastRecord) -> i32| record.as_ref().map_or(-1, of);
    ok(&json!({
        "totalRTMPWatchersCount": count(|r| r.rtmp_viewer_count),
        "totalHLSWatchersCount": count(|r| r.hls_viewer_count),
        "totalWebRTCWatchersCount": count(|r| r.webrtc_viewer_count),
        "totalDASHWatchersCount": count(|r| r.dash_viewer_count),
    }))
}

/// `GET /total-broadcast-statistics`
pub(super) async fn total_statistics(call: Call) -> Answer {
    let totals = call.registry().live_totals(call.app()?, live_since()).await?;
    ok(&json!({
        "totalRTMPWatchersCount": totals.rtmp,
        "totalHLSWatchersCount": totals.hls,
        "totalWebRTCWatchersCount": totals.webrtc,
        "totalDASHWatchersCount": totals.dash,
        "activeLiveStreamCount": totals.streams,
    }))
}

/// `GET /{id}/stream-info`
pub(super) async fn stream_info(call: Call) -> Answer {
    let found = match call.key()? {
        Some(key) => call.registry().lookup(&key, now_ms()).await?,
        None => None,
    };
    let infos = found.map(|found| found.infos).unwrap_or_default();
    let shown: Vec<Value> = infos
        .iter()
        .map(|info| {
            json!({
                "videoHeight": info.height,
                "videoWidth": info.width,
                "videoBitrate": info.video_bitrate,
                "audioBitrate": info.audio_bitrate,
                "videoCodec": info.video_codec,
            })
        })
        .collect();
    ok(&shown)
}

/// `POST /create-list`, a later addition: either all are made, or by `onDuplicate` what can be.
pub(super) async fn create_list(_call: Call) -> Answer {
    Ok(answer(
        http::StatusCode::OK,
        &Outcome::failed("This server makes broadcasts one by one; use /broadcasts/create"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_ids_and_differ() {
        let (one, two) = (generated_id(), generated_id());
        assert!(one.parse::<ams_types::StreamId>().is_ok(), "{one}");
        assert_ne!(one, two);
        assert!(one.chars().skip(16).all(|c| c.is_ascii_digit()));
    }

    #[test]
    fn addresses_and_folders_are_looked_at() {
        for (url, want) in [
            ("rtsp://10.0.0.1/live", true),
            ("HTTPS://example.com/x.m3u8", true),
            ("rtsp://", false),
            ("example.com", false),
            ("file:///etc/passwd", false),
            ("http://a b", false),
        ] {
            assert_eq!(is_stream_url(url), want, "{url}");
        }
        for (folder, want) in [("a/b", true), ("", true), ("../a", false), ("a/../../b", false), ("a\nb", false)] {
            assert_eq!(is_sub_folder(folder), want, "{folder:?}");
        }
    }
}
