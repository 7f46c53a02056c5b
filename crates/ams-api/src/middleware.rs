//! What every request passes: the client's address, the rate limit, and the headers browsers ask for.
//!
//! Owns cross-origin answers. `*` is answered without credentials, so that no page can act with another's cookies.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::client::{ClientAddr, Front};
use crate::problem::Problem;
use crate::state::Shared;

const ALLOW_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const ALLOW_HEADERS: &str = "Accept, Authorization, Content-Type, If-Match, If-None-Match, Origin, X-Requested-With, \
     Access-Control-Request-Method, Access-Control-Request-Headers";
const EXPOSE_HEADERS: &str = "Location, Link, ETag, Accept-Patch, Accept-Post, Retry-After, WWW-Authenticate";

pub(crate) async fn guard(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let client = ClientAddr::find(request.extensions(), request.headers(), &state.config.trusted_proxies);
    let front = Front::find(request.extensions(), request.headers(), &state.config.trusted_proxies);
    request.extensions_mut().insert(client);
    request.extensions_mut().insert(front);
    let origin = allowed_origin(&state.config.cors_origins, request.headers());
    let is_options = request.method() == Method::OPTIONS;
    let is_preflight = is_options && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);

    let mut response = match limit(&state, &request, client) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if is_preflight && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = StatusCode::NO_CONTENT.into_response();
    }

    state.refusals.answered(response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
    if let Some(origin) = origin {
        if origin != "*" {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSE_HEADERS));
        if is_options {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOW_METHODS));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOW_HEADERS));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        }
    }
    response
}

/// Counts what costs the node something: changes and WebSocket connects.
fn limit(state: &Shared, request: &Request, client: ClientAddr) -> Result<(), Problem> {
    let counted = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
        || request.headers().contains_key(header::UPGRADE);
    if !counted {
        return Ok(());
    }
    state.rates.take(client.0, Instant::now()).map_err(|wait| {
        let sentence = "too many requests from this address in a short time; send them more slowly";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, sentence).retry_after(wait)
    })
}

/// Whether a page of the request's origin may open a WebSocket. Clients that are no browsers send no `Origin`.
pub(crate) fn origin_allowed(origins: &[String], headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let same_host = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, host)| host.as_bytes())
        == headers.get(header::HOST).map(HeaderValue::as_bytes);
    same_host || allowed_origin(origins, headers).is_some()
}

/// The value of `Access-Control-Allow-Origin`, if the request's origin may read the answer.
fn allowed_origin(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    if origins.iter().any(|origin| origin == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = headers.get(header::ORIGIN)?;
    origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}
