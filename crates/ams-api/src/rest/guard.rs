//! Who may use the REST API: from where, and with which token.
//!
//! Owns the order of the checks and their words. What is allowed is in the application's settings, which every node
//! has; the server's own calls need the server's token, or come from the machine itself.

use std::time::SystemTime;

use ams_access::jwt::{Check, Hs256Key, bearer};
use ams_access::{CidrList, Secret, UnixMs};
use ams_registry::AppSettingsRecord;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};

use super::call::no_such_app;
use super::forward;
use super::outcome::RestError;
use crate::client::ClientAddr;
use crate::state::Shared;

/// Put into a request that another node has forwarded: it is done here, whoever owns the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded;

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
    const PROXY_AUTHORIZATION: &str = "proxyauthorization";
    if request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let key = &state.config.server_jwt_secret.0;
    let is_sent = request.headers().contains_key(PROXY_AUTHORIZATION);
    let from_here = request.extensions().get::<ClientAddr>().is_some_and(|client| client.0.is_loopback());
    let refused = match key.is_empty() {
        false if is_signed(key, request.headers(), PROXY_AUTHORIZATION) => None,
        false if is_sent => Some("Invalid Server JWT Token"),
        true if from_here => None,
        _ => Some("Not authenticated user"),
    };
    match refused {
        None => next.run(request).await,
        Some(sentence) => forbidden(sentence).into_response(),
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
}
