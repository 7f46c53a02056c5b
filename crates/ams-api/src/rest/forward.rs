//! Any node takes any call: one that changes a stream which is live on another node is passed on to that node, once.
//!
//! Owns the hop: finding the owner, the proof that a node of this cluster asks, and what happens when the owner cannot
//! be reached, in which case the call is done here.

use std::time::{Duration, SystemTime};

use ams_access::UnixMs;
use ams_access::jwt::{Check, Claims, Hs256Key};
use ams_registry::BroadcastRecord;
use ams_types::{NodeId, StreamKey};
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::call::now_ms;
use super::guard::Forwarded;
use super::outcome::RestError;
use crate::client::ClientAddr;
use crate::media::read_body;
use crate::outgoing;
use crate::state::Shared;

/// What proves that a node of this cluster asks.
const CLUSTER_AUTHORIZATION: &str = "clusterauthorization";
/// Says that a call was passed on already. Anybody may write it: it only keeps a call where it is.
const PASSED_ON: &str = "x-ams-passed-on";
/// The claim that binds such a proof to one request.
const REQUEST: &str = "request";
/// How long the proof is good for, beyond the difference of two clocks.
const PROOF_SECS: u64 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Another node, on which a stream is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    host: String,
    port: u16,
}

impl Owner {
    /// The other node that holds a stream now; `None` if it is this one, or nobody.
    pub(super) async fn of(state: &Shared, record: &BroadcastRecord) -> Option<Self> {
        if record.is_virtual || !record.is_held(now_ms()) {
            return None;
        }
        let here = state.node.whereabouts();
        let host = record.origin_address.clone().filter(|host| is_host(host))?;
        let Some(id) = record.owner_node() else {
            // Another program's node, which uses the same port everywhere.
            return (host != here.host).then_some(Self { host, port: here.http_port });
        };
        if id == here.node {
            return None;
        }
        let port = port_of(state, &id).await.unwrap_or(here.http_port);
        (host != here.host || port != here.http_port).then_some(Self { host, port })
    }
}

/// Records are others' too: what is no address is not dialled.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.len() < 256 && host.chars().all(|c| c.is_ascii_alphanumeric() || ".:-_[]".contains(c))
}

async fn port_of(state: &Shared, id: &NodeId) -> Option<u16> {
    let rows = state.node.registry().list_nodes().await.ok()?;
    let row = rows.into_iter().find(|row| row.node_id().as_ref() == Some(id))?;
    u16::try_from(row.http_port).ok().filter(|port| *port > 0)
}

fn what_is_asked(method: &Method, uri: &Uri) -> String {
    format!("{method} {}", uri.path_and_query().map_or("/", |path| path.as_str()))
}

fn cluster_key(state: &Shared) -> Option<Hs256Key> {
    Hs256Key::new(&state.node.cluster_secret()?).ok()
}

/// Whether a node of this cluster passes this very request on.
pub(super) fn is_from_a_node(state: &Shared, request: &Request) -> bool {
    let Some(token) = request.headers().get(CLUSTER_AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let check = Check::at(UnixMs::from(SystemTime::now())).with_expiry();
    let claims = cluster_key(state).and_then(|key| key.verify(token, &check).ok());
    claims.is_some_and(|claims| claims.text(REQUEST) == Some(&what_is_asked(request.method(), request.uri())))
}

/// Before every call about one broadcast.
pub(super) async fn to_owner(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let changes = matches!(*request.method(), Method::POST | Method::PUT | Method::DELETE);
    let passed_on = request.extensions().get::<Forwarded>().is_some() || request.headers().contains_key(PASSED_ON);
    if !changes || passed_on {
        return next.run(request).await;
    }
    let owner = match key_of(&state, &request) {
        Some(key) => owner_of(&state, &key).await,
        None => None,
    };
    let Some(owner) = owner else { return next.run(request).await };
    // Kept, in case the owner cannot be reached.
    let (parts, body) = request.into_parts();
    let body = match read_body(&state, &parts.headers, body).await {
        Ok(body) => Bytes::from(body),
        Err(problem) => return RestError::from(problem).into_response(),
    };
    let mut passed_on = Request::new(Body::from(body.clone()));
    *passed_on.method_mut() = parts.method.clone();
    *passed_on.uri_mut() = parts.uri.clone();
    // The token is the caller's own proof, for a cluster that has no key.
    for name in [header::CONTENT_TYPE, header::AUTHORIZATION] {
        if let Some(value) = parts.headers.get(&name) {
            passed_on.headers_mut().insert(name, value.clone());
        }
    }
    if let Some(client) = parts.extensions.get::<ClientAddr>()
        && let Ok(address) = HeaderValue::try_from(client.0.to_string())
    {
        passed_on.headers_mut().insert("x-forwarded-for", address);
        passed_on.headers_mut().insert("x-forwarded-proto", HeaderValue::from_static("http"));
    }
    match exchange(&state, &owner, passed_on).await {
        Some((status, answer)) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (status, headers, answer).into_response()
        }
        None => next.run(Request::from_parts(parts, Body::from(body))).await,
    }
}

/// The broadcast a call is about, if it is about one.
fn key_of(state: &Shared, request: &Request) -> Option<StreamKey> {
    let route = request.extensions().get::<MatchedPath>()?;
    if !route.as_str().starts_with("/{app}/rest/v2/broadcasts/{id}") {
        return None;
    }
    let mut parts = request.uri().path().split('/').skip(1);
    let (app, id) = (parts.next()?, parts.nth(3)?);
    Some(StreamKey::new(state.app(app)?, id.parse().ok()?))
}

async fn owner_of(state: &Shared, key: &StreamKey) -> Option<Owner> {
    let record = state.node.registry().get_broadcast(key).await.ok()??;
    Owner::of(state, &record).await
}

/// Has an owner do something without a body; whether it was done, or `None` if the owner could not be asked.
pub(super) async fn ask(state: &Shared, owner: &Owner, method: &Method, path: &str) -> Option<bool> {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).ok()?;
    let (status, answer) = exchange(state, owner, request).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    Some(status == StatusCode::OK && answer.get("success").is_some_and(|success| *success == true))
}

/// Sends a request to another node; `None` if that did not answer.
async fn exchange(state: &Shared, owner: &Owner, mut request: Request) -> Option<(StatusCode, Bytes)> {
    let asked = what_is_asked(request.method(), request.uri());
    let headers = request.headers_mut();
    headers.insert(PASSED_ON, HeaderValue::from_static("1"));
    // A cluster without a key has no proof to give: the owner then judges the caller by its own guards.
    if let Some(key) = cluster_key(state) {
        let until = UnixMs::from(SystemTime::now()).secs() + PROOF_SECS;
        let claims = Claims::until(until).and(REQUEST, &asked);
        headers.insert(CLUSTER_AUTHORIZATION, HeaderValue::try_from(key.sign(&claims)).ok()?);
    }
    let host = owner.host.trim_matches(['[', ']']);
    let authority = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    headers.insert(header::HOST, HeaderValue::try_from(format!("{authority}:{}", owner.port)).ok()?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));

    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, owner.port))).await {
        Ok(Ok(stream)) => stream,
        _ => {
            warn!(host, port = owner.port, "the node that owns a stream cannot be reached; its call is done here");
            return None;
        }
    };
    let asked = async {
        let answer = outgoing::exchange(stream, request).await;
        let (parts, body) = answer.inspect_err(|error| debug!(%error, "a connection to another node broke")).ok()?;
        Some((parts.status, body))
    };
    let answer = timeout(ANSWER_TIMEOUT, asked).await.ok().flatten();
    if answer.is_none() {
        warn!(host, port = owner.port, "the node that owns a stream does not answer; its call is done here");
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_dialled() {
        for (host, want) in [
            ("10.0.0.1", true),
            ("node-1.example", true),
            ("fd00::1", true),
            ("", false),
            ("10.0.0.1/x", false),
            ("a b", false),
            ("user@host", false),
        ] {
            assert_eq!(is_host(host), want, "{host:?}");
        }
    }
}
