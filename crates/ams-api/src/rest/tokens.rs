//! Tokens to publish or play a stream with: one-time ones, and JWTs.

use std::time::SystemTime;

use ams_access::jwt::{Claims, Hs256Key};
use ams_access::{Purpose, Secret, UnixMs};
use ams_registry::{JsonMap, RegistryError, Shelf, TokenRecord, TokenUse};
use axum::response::{IntoResponse, Response};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::Value;

use super::call::{Call, Object};
use super::outcome::{Answer, Outcome, RestError, ok};

/// Characters of a one-time token.
const TOKEN_LEN: usize = 32;
/// Longest token that is looked up.
const TOKEN_LEN_MAX: usize = 8 * 1024;
/// Who uses up a token that is only validated.
const BY_REST: &str = "validate-token";
const WORDS_MISSING: &str = "Define stream ID, token type and expire date (unix time)";
const NO_JWT: &str =
    "Cannot create JWT token. The problem may be -> JWT stream key is not set or its length is less than 32";

/// What a token is to say; the error is AMS's sentence.
fn wanted(call: &Call) -> Result<(Purpose, i64), RestError> {
    let expires = call.query("expireDate").and_then(|text| text.parse().ok()).filter(|expires| *expires > 0);
    let purpose = call.query("type").and_then(purpose);
    purpose.zip(expires).ok_or_else(|| RestError::Bad(WORDS_MISSING.to_owned()))
}

pub(super) fn purpose(word: &str) -> Option<Purpose> {
    [Purpose::Publish, Purpose::Play].into_iter().find(|purpose| purpose.as_str() == word)
}

fn token(call: &Call, token_id: String, (purpose, expire_date): (Purpose, i64)) -> TokenRecord {
    TokenRecord {
        token_id: Some(token_id),
        stream_id: Some(call.named("id").to_owned()),
        expire_date,
        kind: Some(purpose.to_string()),
        room_id: call.query("roomId").map(str::to_owned),
        ..TokenRecord::default()
    }
}

/// `GET /{id}/token`
pub(super) async fn create(call: Call) -> Answer {
    let wanted = wanted(&call)?;
    let key = call.key()?.ok_or_else(|| RestError::Bad(WORDS_MISSING.to_owned()))?;
    let id: String = rand::rng().sample_iter(Alphanumeric).take(TOKEN_LEN).map(char::from).collect();
    let token = token(&call, id.clone(), wanted);
    let registry = call.registry();
    let put = async || registry.put_document(&key, Shelf::Tokens, &id, &token.to_json()).await;
    match put().await {
        // The stream has all it may have: those that are over make room.
        Err(RegistryError::InvalidRequest { .. }) => {
            let now = i64::try_from(UnixMs::from(SystemTime::now()).secs()).unwrap_or(i64::MAX);
            registry.delete_expired_tokens(&key, now).await?;
            put().await?;
        }
        put => drop(put?),
    }
    ok(&token.to_rest_json())
}

/// `GET /{id}/jwt-token`
pub(super) async fn create_jwt(call: Call) -> Answer {
    let (purpose, expires) = wanted(&call)?;
    call.key()?.ok_or_else(|| RestError::Bad(WORDS_MISSING.to_owned()))?;
    let secret = call.settings()?.jwt_stream_secret_key.clone().unwrap_or_default();
    let key = Hs256Key::new(&Secret::from(secret)).map_err(|_| RestError::Bad(NO_JWT.to_owned()))?;
    let mut claims =
        Claims::until(expires.unsigned_abs()).and("streamId", call.named("id")).and("type", purpose.as_str());
    if let Some(room) = call.query("roomId").filter(|room| !room.is_empty()) {
        claims = claims.and("roomId", room);
    }
    ok(&token(&call, key.sign(&claims), (purpose, expires)).to_rest_json())
}

/// `POST /validate-token`: a one-time token is used up by it.
pub(super) async fn validate(call: Call, Object(body): Object) -> Answer {
    let (asked, misread) = TokenRecord::from_json(body);
    if let Some(name) = misread.first() {
        return Err(RestError::Bad(format!("The value of {name} has the wrong type")));
    }
    Ok(Outcome::of(is_valid(&call, &asked).await?).into_response())
}

async fn is_valid(call: &Call, asked: &TokenRecord) -> Result<bool, RestError> {
    let id = asked.token_id.as_deref().filter(|id| !id.is_empty() && id.len() <= TOKEN_LEN_MAX);
    let key = call.key_of(asked.stream_id.as_deref().unwrap_or_default())?;
    let Some((id, key)) = id.zip(key) else { return Ok(false) };
    let registry = call.registry();
    let Some(stored) = registry.get_document(&key, Shelf::Tokens, id).await? else { return Ok(false) };
    let (stored, _) = TokenRecord::from_json(stored);
    let now = UnixMs::from(SystemTime::now()).secs();
    let in_time = u64::try_from(stored.expire_date).is_ok_and(|expires| now < expires);
    if !in_time || stored.kind != asked.kind || stored.token_use().is_some() {
        return Ok(false);
    }
    // A room's token is good for every track of the room.
    if stored.room_id.as_deref().is_some_and(|room| !room.is_empty()) {
        return Ok(stored.room_id == asked.room_id);
    }
    // Of two that show one token at a time, here or to publish or play, one gets through.
    let now = i64::try_from(UnixMs::from(SystemTime::now()).0).unwrap_or(i64::MAX);
    let used = TokenUse { by: BY_REST.to_owned(), at_ms: now };
    if !registry.use_token(&key, id, None, &used).await? {
        return Ok(false);
    }
    Ok(registry.delete_documents(&key, Shelf::Tokens, Some(id)).await? > 0)
}

/// `DELETE /{id}/tokens`
pub(super) async fn revoke(call: Call) -> Answer {
    Ok(deleted(&call, Shelf::Tokens, None).await?.into_response())
}

/// `GET /{id}/tokens/list/{offset}/{size}`
pub(super) async fn list(call: Call) -> Answer {
    listed(&call, Shelf::Tokens, None, |document| TokenRecord::from_json(document).0.to_rest_json()).await
}

/// Deletes documents of the path's stream.
pub(super) async fn deleted(call: &Call, shelf: Shelf, id: Option<&str>) -> Result<Outcome, RestError> {
    Ok(match call.key()? {
        Some(key) => Outcome::of(call.registry().delete_documents(&key, shelf, id).await? > 0),
        None => Outcome::not_done(),
    })
}

/// Documents of the path's stream, as `show` makes them.
pub(super) async fn listed(
    call: &Call,
    shelf: Shelf,
    id: Option<&str>,
    show: impl Fn(JsonMap) -> JsonMap,
) -> Result<Response, RestError> {
    let (offset, size) = call.page()?;
    let found = match call.key()? {
        Some(key) => call.registry().list_documents(&key, shelf, id, offset, size).await?,
        None => Vec::new(),
    };
    let shown: Vec<Value> = found.into_iter().map(|document| Value::Object(show(document))).collect();
    ok(&shown)
}
