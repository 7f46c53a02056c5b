//! The pages: a small landing page, and what Vite built, embedded and served under every application.
//!
//! Owns content types, caching and the policy pages run under. Nothing is read from disk at run time.

use std::fmt::Write as _;

use ams_types::AppName;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::state::Shared;

/// One embedded file.
pub(crate) struct File {
    /// Path below the application.
    name: &'static str,
    /// Entity tag with its quotes.
    tag: &'static str,
    content: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Pages connect to other nodes of a cluster, so `connect-src` names schemes and no hosts. Framing is allowed:
/// `play.html` is meant to be embedded elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; media-src 'self' blob: mediastream:; connect-src 'self' ws: wss: http: https:; \
     worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'";
const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), display-capture=(self)";

/// What stands in for every page while there are none.
const PLACEHOLDER: &str = "<p>The pages are not part of this build, because Node was not there when it was made. \
     Everything else works: WebSocket, WHIP, WHEP and the health checks.</p>\
     <p>To get the pages, install Node 20 or newer and build again, or run \
     <code>npm ci &amp;&amp; npm run build</code> in <code>webapp/</code> first.</p>";

/// `/`
pub(crate) async fn landing(State(state): State<Shared>) -> Response {
    let mut body = String::from("<p>Applications on this node:</p><ul>");
    for app in state.node.apps() {
        // An application's name needs no escaping: letters, digits, '_' and '-'.
        let _ = write!(
            body,
            "<li><b>{app}</b>: <a href=\"/{app}/\">publish</a> · <a href=\"/{app}/player.html\">play</a></li>"
        );
    }
    body.push_str("</ul>");
    html(StatusCode::OK, "ams-node", &body)
}

/// `/{app}`
pub(crate) async fn to_directory(
    State(state): State<Shared>,
    Path(app): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(app) = state.app(&app) else { return unknown_app(&state) };
    let location = match query {
        Some(query) => format!("/{app}/?{query}"),
        None => format!("/{app}/"),
    };
    match HeaderValue::try_from(location) {
        Ok(location) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// `/{app}/`
pub(crate) async fn index(State(state): State<Shared>, Path(app): Path<String>, headers: HeaderMap) -> Response {
    serve(&state, &app, "index.html", &headers)
}

/// `/{app}/{anything}`
pub(crate) async fn file(
    State(state): State<Shared>,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    serve(&state, &app, &name, &headers)
}

/// `/{app}/streams/…`: players probe here for HLS and DASH and must learn at once that there is none.
pub(crate) async fn no_stream_file() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::NOT_FOUND, headers, "this node serves WebRTC only; there are no stream files\n").into_response()
}

/// Every other address.
pub(crate) async fn not_found() -> Response {
    html(StatusCode::NOT_FOUND, "Not found", "<p>There is nothing at this address. <a href=\"/\">Start page</a></p>")
}

fn unknown_app(state: &Shared) -> Response {
    let apps: Vec<String> = state.node.apps().iter().map(AppName::to_string).collect();
    let body = format!(
        "<p>There is no such application on this node. Its applications are: {}. <a href=\"/\">Start page</a></p>",
        apps.join(", ")
    );
    html(StatusCode::NOT_FOUND, "Unknown application", &body)
}

fn serve(state: &Shared, app: &str, name: &str, headers: &HeaderMap) -> Response {
    if state.app(app).is_none() {
        return unknown_app(state);
    }
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        if FILES.is_empty() && (name == "index.html" || name.ends_with(".html")) {
            return html(StatusCode::OK, "ams-node", PLACEHOLDER);
        }
        return html(
            StatusCode::NOT_FOUND,
            "Not found",
            "<p>This application has no such page. <a href=\"/\">Start page</a></p>",
        );
    };
    // Vite puts a hash of the content into the names below assets/.
    let caching = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == file.tag));
    let common = [(header::CACHE_CONTROL, caching), (header::ETAG, file.tag)];
    if known {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = content_type(name);
    let mut response = (common, [(header::CONTENT_TYPE, kind)], file.content).into_response();
    if kind.starts_with("text/html") {
        add_policies(response.headers_mut());
    }
    response
}

fn html(status: StatusCode, title: &str, body: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;\
         max-width:40rem;margin:3rem auto;padding:0 1rem}}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    );
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    let mut response = (status, headers, page).into_response();
    add_policies(response.headers_mut());
    response
}

fn add_policies(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert("permissions-policy", HeaderValue::from_static(PERMISSIONS_POLICY));
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
