//! Webhooks: what is sent, how it is signed, when it is sent again.
//!
//! Owns AMS's bodies in both content types, and what AMS lacks: an event id, a signature, a back-off. Sends nothing.
//! Receivers drop an `eventId` they have seen.
//!
//! - `event`: what happened, and its body
//! - `form`: `application/x-www-form-urlencoded`
//! - `signature`: who sent it, and when
//! - `retry`: when to try again

mod event;
mod form;
mod retry;
mod signature;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::event::{Action, AuthAsk, ContentType, Event, EventId, StreamStatus, auth_body};
pub use self::retry::{RetryPolicy, is_delivered};
pub use self::signature::{
    HEADER_EVENT_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, WebhookError, WebhookKey, WebhookKeyError,
};

/// Longest body a receiver reads, in bytes.
pub const BODY_LEN_MAX: usize = 1024 * 1024;

/// Reads a body in either content type, for receivers: its keys and values, values of forms as text. `None` for what
/// is neither, or over [`BODY_LEN_MAX`].
pub fn parse_body(content_type: &str, body: &[u8]) -> Option<BTreeMap<String, Value>> {
    if body.len() > BODY_LEN_MAX {
        return None;
    }
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => serde_json::from_slice(body).ok(),
        "application/x-www-form-urlencoded" => {
            let pairs = form::decode(std::str::from_utf8(body).ok()?)?;
            Some(pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
        }
        _ => None,
    }
}
