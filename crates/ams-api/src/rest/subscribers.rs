//! Subscribers of a stream: who they are, their time codes, who is blocked, and who connected when.

use std::time::SystemTime;

use ams_access::totp::{Period, TotpSecret};
use ams_access::{Secret, UnixMs};
use ams_registry::{ConnectionEventRecord, JsonMap, Shelf, SubscriberRecord};
use axum::response::IntoResponse;
use serde_json::json;

use super::call::{Call, Object, now_ms};
use super::outcome::{Answer, Outcome, RestError};
use super::tokens::{deleted, listed, purpose};

/// Longest subscriber id, in bytes.
const ID_LEN_MAX: usize = 256;
const ID_MISSING: &str =
    "Missing parameter: Make sure you set subscriber object correctly and make subscriberId's length at least 3";
const NO_SECRET: &str = "Secret code is not multiple of 8 bytes length. Use b32Secret, which is a string and its length \
     is multiple of 8 bytes and allowed characters A-Z, 2-7";

/// `POST /{id}/subscribers`
pub(super) async fn add(call: Call, Object(body): Object) -> Answer {
    let (subscriber, misread) = SubscriberRecord::from_json(body);
    if let Some(name) = misread.first() {
        return Err(RestError::Bad(format!("The value of {name} has the wrong type")));
    }
    let id = subscriber.subscriber_id.as_deref().map(str::trim).unwrap_or_default();
    let key = call.key()?;
    let (Some(key), true) = (key, (3..=ID_LEN_MAX).contains(&id.len())) else {
        return Ok(Outcome::failed(ID_MISSING).into_response());
    };
    let secret = subscriber.b32_secret.clone().filter(|secret| !secret.is_empty());
    if secret.as_deref().is_some_and(|secret| TotpSecret::from_base32(&Secret::from(secret)).is_err()) {
        return Ok(Outcome::failed(NO_SECRET).into_response());
    }
    // What says how it is connected is not the client's to write.
    let stored = SubscriberRecord {
        subscriber_id: Some(id.to_owned()),
        subscriber_name: subscriber.subscriber_name.clone(),
        b32_secret: secret,
        kind: subscriber.kind.clone(),
        concurrent_connections_limit: subscriber.concurrent_connections_limit,
        blocked_type: subscriber.blocked_type.clone(),
        blocked_until_ms: subscriber.blocked_until_ms,
        totp_expiry_period_seconds: subscriber.totp_expiry_period_seconds,
        ..SubscriberRecord::default()
    };
    call.registry().put_document(&key, Shelf::Subscribers, id, &stored.to_json()).await?;
    Ok(Outcome::done().into_response())
}

/// As REST shows a subscriber: its secret is written, never read.
fn shown(document: JsonMap) -> JsonMap {
    let mut shown = SubscriberRecord::from_json(document).0.to_json();
    shown.remove("b32Secret");
    shown
}

/// `GET /{id}/subscribers/list/{offset}/{size}`
pub(super) async fn list(call: Call) -> Answer {
    listed(&call, Shelf::Subscribers, None, shown).await
}

/// `DELETE /{id}/subscribers/{subscriber}`
pub(super) async fn delete(call: Call) -> Answer {
    Ok(deleted(&call, Shelf::Subscribers, Some(call.named("subscriber"))).await?.into_response())
}

/// `DELETE /{id}/subscribers`
pub(super) async fn delete_all(call: Call) -> Answer {
    Ok(deleted(&call, Shelf::Subscribers, None).await?.into_response())
}

async fn known(call: &Call) -> Result<Option<SubscriberRecord>, RestError> {
    let Some(key) = call.key()? else { return Ok(None) };
    let found = call.registry().get_document(&key, Shelf::Subscribers, call.named("subscriber")).await?;
    Ok(found.map(|document| SubscriberRecord::from_json(document).0))
}

/// `GET /{id}/subscribers/{subscriber}/totp`
pub(super) async fn time_code(call: Call) -> Answer {
    let refused = |sentence: &str| Ok(Outcome::failed(sentence).into_response());
    let settings = call.settings()?;
    let subscriber = known(&call).await?;
    let own = subscriber.as_ref().and_then(|s| s.b32_secret.clone()).filter(|secret| !secret.is_empty());
    let secret = match own {
        Some(own) => TotpSecret::from_base32(&Secret::from(own)).ok(),
        None => {
            let Some(purpose) = call.query("type").and_then(purpose) else {
                return refused("type must be publish or play for a subscriber without a secret of its own");
            };
            let app_secret = match purpose {
                ams_access::Purpose::Play => settings.time_token_secret_for_play.clone(),
                ams_access::Purpose::Publish => settings.time_token_secret_for_publish.clone(),
            };
            let app_secret = Secret::from(app_secret.unwrap_or_default());
            TotpSecret::derived(&app_secret, call.named("subscriber"), call.named("id"), purpose).ok()
        }
    };
    let Some(secret) = secret else {
        return refused("Secret is not set for AppSettings.timeTokenSecret or not in db");
    };
    // As it is checked: only who has a secret of their own may have a period of their own.
    let has_own = |s: &SubscriberRecord| s.b32_secret.as_deref().is_some_and(|secret| !secret.is_empty());
    let own_period = subscriber.filter(has_own).map_or(0, |s| s.totp_expiry_period_seconds);
    let secs = if own_period > 0 { own_period } else { settings.time_token_period };
    let code = secret.code(Period::from_secs(secs.into()), UnixMs::from(SystemTime::now()));
    Ok(Outcome::done().with_data(code).into_response())
}

/// `PUT /{id}/subscribers/{subscriber}/block/{seconds}/{type}`
pub(super) async fn block(call: Call) -> Answer {
    let seconds = call.number("seconds")?;
    let kind = call.named("type");
    if !["publish", "play", "publish_play"].contains(&kind) || seconds < 0 {
        return Ok(Outcome::failed("type must be publish, play or publish_play, for 0 or more seconds").into_response());
    }
    let id = call.named("subscriber");
    let (Some(key), true) = (call.key()?, (1..=ID_LEN_MAX).contains(&id.len())) else {
        return Ok(Outcome::not_done().into_response());
    };
    // One that is not known yet is kept out all the same.
    let until = now_ms().saturating_add(seconds.saturating_mul(1000));
    let fields = json!({ "blockedType": kind, "blockedUntilUnitTimeStampMs": until });
    let fields: JsonMap = fields.as_object().cloned().unwrap_or_default();
    call.registry().put_document(&key, Shelf::Subscribers, id, &fields).await?;
    Ok(Outcome::done().into_response())
}

/// `GET /{id}/connection-events/{offset}/{size}`
pub(super) async fn connection_events(call: Call) -> Answer {
    let show = |document| ConnectionEventRecord::from_json(document).0.to_json();
    listed(&call, Shelf::ConnectionEvents, call.query("subscriberId"), show).await
}
