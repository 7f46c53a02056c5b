//! Is the process alive, should it get traffic, and how is it: `/healthz`, `/readyz`, AMS's `/rest/v2/liveness`,
//! `/metrics`.
//!
//! Owns the answers' shape. Liveness never asks the registry: a database outage must not restart nodes.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::client::{ClientAddr, is_trusted};
use crate::state::Shared;

pub(crate) async fn healthz(State(state): State<Shared>) -> Response {
    match state.node.alive() {
        true => answer(StatusCode::OK, &json!({"status": "ok"})),
        false => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "failed"})),
    }
}

pub(crate) async fn readyz(State(state): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let checks = state.node.readiness();
    let stopping = state.is_stopping();
    let ready = !stopping && checks.iter().all(|check| check.ok || !check.required);
    let mut body = json!({"status": if ready { "ready" } else { "not ready" }});
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    if verbose || !ready {
        let rows = checks.iter().map(
            |check| json!({"name": check.name, "ok": check.ok, "required": check.required, "detail": check.detail}),
        );
        body["checks"] = rows.collect();
    }
    if stopping {
        body["detail"] = "this node is stopping".into();
    }
    answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

pub(crate) async fn liveness(State(state): State<Shared>) -> Response {
    match state.node.alive() {
        true => answer(StatusCode::OK, &json!({"host": state.host_name, "status": "ok"})),
        false => answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"host": "unknown", "status": "error"})),
    }
}

/// The node's figures, for a Prometheus inside the network: strangers learn nothing of them.
pub(crate) async fn metrics(State(state): State<Shared>, Extension(client): Extension<ClientAddr>) -> Response {
    if !is_trusted(client.0, &state.config.trusted_proxies) {
        let body = json!({"error": "figures are told to loopback and private addresses only (api.trusted_proxies)"});
        return answer(StatusCode::FORBIDDEN, &body);
    }
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4"), (header::CACHE_CONTROL, "no-store")];
    let mut text = state.node.metrics().await;
    state.refusals.write(&mut text);
    (headers, text).into_response()
}

/// AMS's version object. Its tools look for "Enterprise Edition" before they use a cluster.
pub(crate) async fn version() -> Response {
    answer(StatusCode::OK, &version_object())
}

pub(crate) fn version_object() -> Value {
    json!({
        "versionName": env!("CARGO_PKG_VERSION"),
        "versionType": "Enterprise Edition",
        "buildNumber": "0",
    })
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}
