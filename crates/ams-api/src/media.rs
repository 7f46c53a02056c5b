//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-03) over the same port as the WebSocket.
//!
//! Owns methods, headers and status codes. Session descriptions pass through untouched; the only thing read in them
//! is the ICE user fragment, to tell an ICE restart from a trickled candidate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ams_access::jwt::TOKEN_LEN_MAX;
use ams_types::{StreamId, StreamKey};
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::client::{ClientAddr, caller};
use crate::port::{
    Answer, Caller, Credentials, Door, EndReason, Opened, PlayRequest, PublishRequest, Refusal, SessionEvent, SessionId,
};
use crate::problem::{End, Problem};
use crate::resources::Side;
use crate::state::Shared;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// Longest subscriber id, code and room, in bytes, as over the WebSocket.
const FIELD_LEN_MAX: usize = 4096;
/// Longest session name that is looked up, in bytes.
const SESSION_ID_LEN_MAX: usize = 128;

impl Side {
    fn end(self) -> End {
        match self {
            Self::Whip => End::Publisher,
            Self::Whep => End::Viewer,
        }
    }
}

/// `/{app}/whip/{stream}` or `/{app}/whep/{stream}`.
pub(crate) fn endpoint(side: Side) -> MethodRouter<Shared> {
    any(
        move |State(state): State<Shared>,
              Path((app, stream)): Path<(String, String)>,
              Extension(client): Extension<ClientAddr>,
              method: Method,
              uri: Uri,
              headers: HeaderMap,
              body: Body| async move {
            let key = match stream_key(&state, &app, &stream) {
                Ok(key) => key,
                Err(problem) => return problem.into_response(),
            };
            match method {
                Method::POST => {
                    let who = caller(Door::Http, client, &headers);
                    match entry(side, &uri, &headers) {
                        Ok(entry) => open(&state, side, key, who, entry, &headers, body).await.into_response(),
                        Err(problem) => problem.into_response(),
                    }
                }
                Method::OPTIONS => (StatusCode::NO_CONTENT, [(ACCEPT_POST, SDP)]).into_response(),
                // Players find out by it what kind of endpoint this is.
                Method::GET | Method::HEAD if side == Side::Whep => {
                    (StatusCode::OK, [(header::CONTENT_TYPE, SDP), (ACCEPT_POST, SDP)]).into_response()
                }
                Method::GET | Method::HEAD => (StatusCode::NO_CONTENT, [(ACCEPT_POST, SDP)]).into_response(),
                _ => method_not_allowed("GET, HEAD, OPTIONS, POST", "POST an SDP offer to this address"),
            }
        },
    )
}

/// `/{app}/whip/{stream}/{session}` or `/{app}/whep/{stream}/{session}`.
pub(crate) fn resource(side: Side) -> MethodRouter<Shared> {
    any(
        move |State(state): State<Shared>,
              Path((app, stream, session)): Path<(String, String, String)>,
              method: Method,
              headers: HeaderMap,
              body: Body| async move {
            if method == Method::OPTIONS {
                return (StatusCode::NO_CONTENT, [(ACCEPT_PATCH, FRAGMENT)]).into_response();
            }
            let key = match stream_key(&state, &app, &stream) {
                Ok(key) => key,
                Err(problem) => return problem.into_response(),
            };
            let id = SessionId(session);
            let found = (id.0.len() <= SESSION_ID_LEN_MAX).then(|| state.resources.find(side, &key, &id)).flatten();
            let Some(remote_ufrag) = found else {
                return Problem::from_refusal(&Refusal::NoSession, side.end()).into_response();
            };
            match method {
                Method::GET | Method::HEAD => StatusCode::NO_CONTENT.into_response(),
                Method::PATCH => patch(&state, side, &id, remote_ufrag, &headers, body).await.into_response(),
                Method::DELETE => {
                    state.resources.remove(&id);
                    state.node.close(&id, EndReason::ByRequest).await;
                    StatusCode::OK.into_response()
                }
                _ => method_not_allowed(
                    "DELETE, GET, HEAD, OPTIONS, PATCH",
                    "PATCH an SDP fragment to this session or DELETE it",
                ),
            }
        },
    )
}

fn stream_key(state: &Shared, app: &str, stream: &str) -> Result<StreamKey, Problem> {
    let app = state.app(app).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "there is no such application on this node; check the first part of the path",
        )
    })?;
    let id: StreamId = stream.parse().map_err(|e| Problem::new(StatusCode::BAD_REQUEST, format!("{e}")))?;
    Ok(StreamKey::new(app, id))
}

fn method_not_allowed(allow: &'static str, sentence: &str) -> Response {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, sentence).with(header::ALLOW, allow).into_response()
}

/// What a client says besides its offer, in the header `Authorization` and in the query.
struct Entry {
    credentials: Credentials,
    /// Main track or room.
    room: String,
}

fn entry(side: Side, uri: &Uri, headers: &HeaderMap) -> Result<Entry, Problem> {
    let bad = |sentence: String| Problem::new(StatusCode::BAD_REQUEST, sentence);
    let query = Query::<HashMap<String, String>>::try_from_uri(uri);
    let Query(mut query) = query.map_err(|_| bad("the query of the address cannot be read".to_owned()))?;
    let mut take = |names: &[&str], max: usize| {
        let text = names.iter().find_map(|name| query.remove(*name)).unwrap_or_default();
        let name = names.first().copied().unwrap_or_default();
        if text.len() <= max { Ok(text) } else { Err(bad(format!("{name} is longer than {max} bytes"))) }
    };
    let in_query = take(&["token"], TOKEN_LEN_MAX)?;
    let token = bearer(headers).map_or(in_query, str::to_owned);
    if token.len() > TOKEN_LEN_MAX {
        return Err(bad(format!("the token is longer than {TOKEN_LEN_MAX} bytes")));
    }
    let (id, code) = (take(&["subscriberId"], FIELD_LEN_MAX)?, take(&["subscriberCode"], FIELD_LEN_MAX)?);
    let rooms: &[&str] = if side == Side::Whip { &["mainTrack", "room"] } else { &["room", "mainTrack"] };
    let room = take(rooms, FIELD_LEN_MAX)?;
    Ok(Entry { credentials: Credentials::new(token, id, code), room })
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

async fn open(
    state: &Shared,
    side: Side,
    key: StreamKey,
    caller: Caller,
    entry: Entry,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if !has_type(headers, SDP) {
        let sentence = "send the SDP offer with Content-Type: application/sdp";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence).with(ACCEPT_POST, SDP));
    }
    if state.resources.is_full() || state.is_stopping() {
        let reason = if state.is_stopping() { "it is stopping" } else { "all HTTP sessions are taken" };
        let refusal = Refusal::Busy { reason: reason.into(), retry_after: Duration::from_secs(5) };
        return Err(Problem::from_refusal(&refusal, side.end()));
    }
    let offer = read_body(state, headers, body).await?;
    if offer.trim().is_empty() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body is empty; it must be an SDP offer"));
    }
    let remote_ufrag = ice_ufrag(&offer).map(str::to_owned);
    let opened = match side {
        Side::Whip => open_publisher(state, key.clone(), caller, entry, offer).await,
        Side::Whep => {
            let data_channel = offer.lines().any(|line| line.starts_with("m=application"));
            let Entry { credentials, room } = entry;
            let request = PlayRequest { key: key.clone(), caller, data_channel, room, credentials };
            let node = Arc::clone(&state.node);
            run_to_end(state, async move { node.open_viewer_with_offer(request, offer).await }).await
        }
    };
    let Opened { session, value: answer, events } = opened.map_err(|refusal| {
        debug!(side = side.as_str(), stream = %key, %refusal, "http session refused");
        Problem::from_refusal(&refusal, side.end())
    })?;
    info!(side = side.as_str(), stream = %key, "http session opened");
    let path = format!("{}/{}/{}/{}/{}", state.config.public_base, key.app, side.as_str(), key.id, session.0);
    state.resources.insert(session.clone(), side, key.clone(), remote_ufrag);
    state.tasks.spawn(forget_when_ended(Arc::clone(state), key, session, events));

    let mut response = (StatusCode::CREATED, answer.sdp).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    out.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    out.extend(HeaderValue::try_from(path).ok().map(|value| (header::LOCATION, value)));
    out.extend(quoted(&answer.etag).map(|value| (header::ETAG, value)));
    for link in &state.ice_links {
        out.append(header::LINK, link.clone());
    }
    Ok(response)
}

async fn open_publisher(
    state: &Shared,
    key: StreamKey,
    caller: Caller,
    entry: Entry,
    offer: String,
) -> Result<Opened<Answer>, Refusal> {
    let Entry { credentials, room: main_track } = entry;
    let (stream_name, meta_data) = (String::new(), String::new());
    let request = PublishRequest { key, caller, stream_name, meta_data, main_track, credentials };
    let node = Arc::clone(&state.node);
    run_to_end(state, async move {
        let Opened { session, value: (), events } = node.open_publisher(request).await?;
        match node.publisher_offer(&session, offer).await {
            Ok(value) => Ok(Opened { session, value, events }),
            Err(refusal) => {
                node.close(&session, EndReason::ByRequest).await;
                Err(refusal)
            }
        }
    })
    .await
}

/// Opens in a task of its own, so that a client that hangs up meanwhile leaves nothing behind.
async fn run_to_end<F>(state: &Shared, open: F) -> Result<Opened<Answer>, Refusal>
where
    F: Future<Output = Result<Opened<Answer>, Refusal>> + Send + 'static,
{
    let node = Arc::clone(&state.node);
    let (tell, told) = tokio::sync::oneshot::channel();
    state.tasks.spawn(async move {
        if let Err(Ok(unclaimed)) = tell.send(open.await) {
            node.close(&unclaimed.session, EndReason::ByRequest).await;
        }
    });
    told.await.unwrap_or(Err(Refusal::Internal))
}

async fn forget_when_ended(state: Shared, key: StreamKey, id: SessionId, mut events: mpsc::Receiver<SessionEvent>) {
    let reason = loop {
        match events.recv().await {
            Some(SessionEvent::Started { .. } | SessionEvent::Measured(_) | SessionEvent::Resized(_)) => {}
            Some(SessionEvent::Ended(reason)) => break Some(reason),
            None => break None,
        }
    };
    state.resources.remove(&id);
    info!(stream = %key, ?reason, "http session ended");
}

async fn patch(
    state: &Shared,
    side: Side,
    id: &SessionId,
    remote_ufrag: Option<String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if !has_type(headers, FRAGMENT) {
        let sentence = "send the SDP fragment with Content-Type: application/trickle-ice-sdpfrag";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence).with(ACCEPT_PATCH, FRAGMENT));
    }
    let tag = if_match(headers)?;
    let fragment = read_body(state, headers, body).await?;
    let new_ufrag = ice_ufrag(&fragment).map(str::to_owned);
    let restart = match (&new_ufrag, &remote_ufrag) {
        (Some(new), Some(current)) => new != current,
        (Some(_), None) => tag == "*",
        (None, _) => false,
    };
    let refused = |refusal: Refusal| Problem::from_refusal(&refusal, side.end());
    let Some(new_ufrag) = new_ufrag.filter(|_| restart) else {
        let tag = (tag != "*").then_some(tag);
        state.node.trickle(id, tag, fragment).await.map_err(refused)?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let answer = state.node.restart_ice(id, tag, fragment).await.map_err(refused)?;
    state.resources.restarted(id, new_ufrag);
    let mut response = (StatusCode::OK, answer.sdp).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
    out.extend(quoted(&answer.etag).map(|value| (header::ETAG, value)));
    Ok(response)
}

/// The entity tag without quotes, or `*`. Only the first of a list counts; clients send one.
fn if_match(headers: &HeaderMap) -> Result<String, Problem> {
    let missing = || {
        let sentence = "send If-Match with the entity tag of the session, or * for an ICE restart";
        Problem::new(StatusCode::PRECONDITION_REQUIRED, sentence)
    };
    let value = headers.get(header::IF_MATCH).ok_or_else(missing)?;
    let text = value.to_str().unwrap_or_default().split(',').next().unwrap_or_default().trim();
    if text == "*" {
        return Ok(text.to_owned());
    }
    // A weak tag never matches (RFC 9110 §13.1.1). Some clients leave the quotes out.
    let tag = text.strip_prefix('"').map_or(Some(text), |rest| rest.strip_suffix('"'));
    match tag {
        Some(tag) if !tag.is_empty() && !tag.contains('"') => Ok(tag.to_owned()),
        _ => Err(Problem::from_refusal(&Refusal::StaleTag, End::Viewer)),
    }
}

fn quoted(tag: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{tag}\"")).ok()
}

/// The first ICE user fragment of a description or fragment (RFC 8839 §5.4).
fn ice_ufrag(sdp: &str) -> Option<&str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map(str::trim)
}

fn has_type(headers: &HeaderMap, want: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(want)
}

/// The body as text, within the limits of length and time.
pub(crate) async fn read_body(state: &Shared, headers: &HeaderMap, body: Body) -> Result<String, Problem> {
    let max = state.config.limits.body_bytes;
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {max} bytes"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if announced.is_some_and(|length: u64| length > max as u64) {
        return Err(too_large());
    }
    let read = async {
        let mut bytes = Vec::new();
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body broke off"))?;
            if bytes.len() + chunk.len() > max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body is not UTF-8 text"))
    };
    match tokio::time::timeout(state.config.limits.body_timeout, read).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}
