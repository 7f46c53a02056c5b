//! Who may use the REST API: from where, with which token, and logged in as whom.
//!
//! Owns the order of the checks and their words. What is allowed in an application is in its settings, which every node
//! has. The server's own calls need a session of the panel, or a token made with the server's key.
//!
//! **Forged requests.** A page elsewhere can make a browser send the session along, so a request that changes something
//! must show that it does not come from there: by the session's token in `X-CSRF-Token`, or by what browsers say and
//! pages cannot: `Sec-Fetch-Site`, else `Origin`. A request with neither comes from no browser, since all of them
//! send `Origin` with everything that is not a GET; so AMS's panel, which knows no token, and scripts with a cookie
//! file work as they are. `SameSite=Lax` keeps the cookie from other sites' requests besides.

use std::sync::Arc;
use std::time::SystemTime;

use ams_access::jwt::{Check, Hs256Key, bearer};
use ams_access::users::{is_public, may};
use ams_access::{CidrList, Secret, UnixMs};
use ams_registry::AppSettingsRecord;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::call::no_such_app;
use super::outcome::RestError;
use super::proxy::{self, Proxied, Target};
use super::{cookie, forward};
use crate::client::{ClientAddr, Front};
use crate::login::SignedIn;
use crate::state::Shared;

/// Put into a request that another node has forwarded: it is done here, whoever owns the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded;

/// Who asks for one of the server's calls.
#[derive(Clone)]
pub(super) enum Who {
    /// Anybody: the call is open to all.
    Anybody,
    /// Whoever has the server's key.
    KeyHolder,
    /// Somebody who has logged in.
    User(Arc<SignedIn>),
}

fn forbidden(sentence: &str) -> RestError {
    RestError::Status(StatusCode::FORBIDDEN, sentence.to_owned())
}

/// Before every call about an application.
pub(super) async fn app(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    // A browser asks without a token whether it may ask.
    if request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let name = request.uri().path().split('/').nth(1).unwrap_or_default();
    let Some(app) = state.app(name) else { return no_such_app(name).into_response() };
    if request.extensions().get::<Proxied>().is_some() {
        return next.run(request).await;
    }
    if forward::is_from_a_node(&state, &request) {
        request.extensions_mut().insert(Forwarded);
        return next.run(request).await;
    }
    let settings = state.node.settings(&app);
    let allowed = address_allowed(&settings, request.extensions().get::<ClientAddr>().copied())
        .and_then(|()| token_allowed(&settings, request.headers()));
    match allowed {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn address_allowed(settings: &AppSettingsRecord, client: Option<ClientAddr>) -> Result<(), RestError> {
    if !settings.ip_filter_enabled {
        return Ok(());
    }
    // A list that cannot be read allows nobody.
    let list = CidrList::parse(settings.remote_allowed_cidr.as_deref().unwrap_or_default()).unwrap_or_default();
    match client {
        Some(client) if list.contains(client.0) => Ok(()),
        _ => Err(forbidden("Not allowed IP")),
    }
}

fn token_allowed(settings: &AppSettingsRecord, headers: &HeaderMap) -> Result<(), RestError> {
    if !settings.jwt_control_enabled {
        return Ok(());
    }
    let key = settings.jwt_secret_key.as_deref().unwrap_or_default();
    match is_signed(key, headers, header::AUTHORIZATION.as_str()) {
        true => Ok(()),
        false => Err(forbidden("Invalid App JWT Token")),
    }
}

/// Whether a header holds a JWT that was signed with `key` and is valid now.
fn is_signed(key: &str, headers: &HeaderMap, name: &str) -> bool {
    let Ok(key) = Hs256Key::new(&Secret::from(key)) else { return false };
    let token = headers.get(name).and_then(|value| value.to_str().ok()).map(bearer);
    token.is_some_and(|token| key.verify(token, &Check::at(UnixMs::from(SystemTime::now()))).is_ok())
}

/// Before every call about the server.
pub(super) async fn server(State(state): State<Shared>, request: Request, next: Next) -> Response {
    // A browser asks without a cookie whether it may ask.
    if request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let (who, target) = match admit(&state, &parts).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused.into_response(),
    };
    let front = parts.extensions.get::<Front>().cloned().unwrap_or_default();
    parts.extensions.insert(who.clone());
    if let Some(target) = target {
        parts.extensions.insert(target);
    }
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Who::User(signed_in) = who
        && let Some(renewed) = &signed_in.renewed
        && !response.headers().contains_key(header::SET_COOKIE)
    {
        cookie::give_session(&mut response, renewed.expose(), &front);
    }
    response
}

/// Who asks, and where a call of the proxy goes; or the refusal.
async fn admit(state: &Shared, parts: &Parts) -> Result<(Who, Option<Target>), RestError> {
    const PROXY_AUTHORIZATION: &str = "proxyauthorization";
    match parts.extensions.get::<ClientAddr>() {
        Some(client) if state.dashboard.contains(client.0) => {}
        _ => return Err(forbidden("Not allowed IP")),
    }
    let path = parts.uri.path();
    let method = effective_method(&parts.method, path);
    let changes = !["GET", "HEAD"].contains(&method);
    if is_public(method, path) {
        // A page elsewhere must not make the first user of a server behind a firewall.
        return if changes && !is_same_origin(parts) { Err(forged()) } else { Ok((Who::Anybody, None)) };
    }
    let key = &state.config.server_jwt_secret.0;
    let who = match parts.headers.contains_key(PROXY_AUTHORIZATION) && !key.is_empty() {
        true if is_signed(key, &parts.headers, PROXY_AUTHORIZATION) => Who::KeyHolder,
        true => return Err(forbidden("Invalid Server JWT Token")),
        false => {
            let cookies = cookie::sessions(&parts.headers);
            let found = state.login.find(&*state.node.registry(), &cookies).await?;
            Who::User(Arc::new(found.ok_or_else(|| forbidden("Not authenticated user"))?))
        }
    };
    if let Who::User(signed_in) = &who
        && changes
        && !carries_token(&parts.headers, signed_in)
        && !is_same_origin(parts)
    {
        return Err(forged());
    }
    let target = match proxy::is_proxy(path) {
        true => Some(Target::of(&parts.uri).ok_or_else(not_allowed)?),
        false => None,
    };
    if let Who::User(signed_in) = &who {
        let asked = target.as_ref().map_or(path, |target| &target.path);
        may(&signed_in.user, method, asked).map_err(|_| not_allowed())?;
    }
    Ok((who, target))
}

fn not_allowed() -> RestError {
    forbidden(&ams_access::Forbidden.to_string())
}

fn forged() -> RestError {
    forbidden("The request does not come from the panel itself: send its X-CSRF-Token, or come from the same origin")
}

/// What a call does: an old address of AMS deletes by GET.
fn effective_method<'a>(method: &'a Method, path: &str) -> &'a str {
    if path.starts_with("/rest/cluster/") { "DELETE" } else { method.as_str() }
}

fn carries_token(headers: &HeaderMap, signed_in: &SignedIn) -> bool {
    let token = headers.get(cookie::CSRF_HEADER).and_then(|value| value.to_str().ok());
    token.is_some_and(|token| signed_in.csrf_matches(token))
}

/// Whether no page of another origin has made a browser send this. See the module.
fn is_same_origin(parts: &Parts) -> bool {
    let header = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
    match (header("sec-fetch-site"), header("origin")) {
        (Some(site), _) => [b"same-origin".as_slice(), b"none"].contains(&site),
        (None, None) => true,
        (None, Some(origin)) => {
            let host = parts.extensions.get::<Front>().and_then(|front| front.host.as_ref());
            let host = host.and_then(|host| host.to_str().ok());
            let origin = std::str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
            match (origin, host) {
                (Some((scheme, origin)), Some(host)) => {
                    let port = if scheme == "https" { ":443" } else { ":80" };
                    let usual = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
                    usual(origin) == usual(host)
                }
                _ => false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_looked_up_in_the_settings() {
        for (name, enabled, list, client, want) in [
            ("the default", true, "127.0.0.1", "127.0.0.1", true),
            ("another address", true, "127.0.0.1", "127.0.0.2", false),
            ("a network in a list", true, "127.0.0.1, 10.0.0.0/8", "10.1.2.3", true),
            ("everybody", true, "0.0.0.0/0", "203.0.113.5", true),
            ("nobody", true, "", "127.0.0.1", false),
            ("what cannot be read", true, "127.0.0.1,nonsense", "127.0.0.1", false),
            ("switched off", false, "", "203.0.113.5", true),
        ] {
            let settings = AppSettingsRecord {
                ip_filter_enabled: enabled,
                remote_allowed_cidr: Some(list.to_owned()),
                ..AppSettingsRecord::default()
            };
            let got = address_allowed(&settings, Some(ClientAddr(client.parse().unwrap())));
            assert_eq!(got.is_ok(), want, "{name}");
        }
        assert!(address_allowed(&AppSettingsRecord::default(), None).is_err(), "nobody knows from where");
    }

    #[test]
    fn pages_of_other_origins_are_told_apart() {
        for (name, site, origin, host, want) in [
            ("a script", None, None, "node:5080", true),
            ("the panel, over TLS", Some("same-origin"), Some("https://panel"), "inside", true),
            ("a person", Some("none"), None, "panel", true),
            ("another site", Some("cross-site"), Some("https://evil"), "panel", false),
            ("a neighbour", Some("same-site"), Some("https://panel"), "panel", false),
            ("the panel, in the clear", None, Some("http://node:5080"), "node:5080", true),
            ("in another spelling", None, Some("https://Node"), "node:443", true),
            ("another port", None, Some("http://node:5081"), "node:5080", false),
            ("another host", None, Some("http://evil"), "node:5080", false),
            ("a sandbox", None, Some("null"), "node:5080", false),
            ("a host in front", None, Some("http://node:5080.evil"), "node:5080", false),
        ] {
            let mut request = http::Request::builder();
            for (header, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    request = request.header(header, value);
                }
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            parts.extensions.insert(Front { https: false, host: Some(HeaderValue::from_static(host)) });
            assert_eq!(is_same_origin(&parts), want, "{name}");
        }
    }

    #[test]
    fn the_old_way_to_delete_a_node_is_a_change() {
        for (method, path, want) in [
            (Method::GET, "/rest/cluster/deleteNode/a", "DELETE"),
            (Method::GET, "/rest/v2/cluster/nodes/0/5", "GET"),
            (Method::PUT, "/rest/v2/users", "PUT"),
        ] {
            assert_eq!(effective_method(&method, path), want);
        }
    }
}
