//! Tokens that are used up.
//!
//! AMS deletes a one-time token when it is used, so that a client which loses its connection is locked out. Here the
//! record stays until it expires and says who used it; that owner may come back within a window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::denial::Denial;
use super::facts::Request;
use crate::time::UnixMs;

/// A one-time token's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredToken {
    /// `streamId`.
    pub stream_id: String,
    /// `type`: `publish` or `play`.
    pub purpose: String,
    /// `roomId`: with it the token is good for every stream in the room, and is not used up.
    pub room_id: Option<String>,
    /// `expireDate`, s since 1970.
    pub expire_secs: i64,
    /// Who used it, if anybody did.
    pub consumed: Option<Consumption>,
}

/// Who used a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumption {
    /// The session's [`Request::owner`].
    pub by: String,
    /// When it was last seen: written when it began, and again when it ended or from time to time.
    pub at: UnixMs,
}

/// Uses up a token: write `consumption` if the record's is still `before`. If it is not, somebody was faster, and the
/// request is refused with [`Denial::TokenUsed`].
#[derive(Clone, Debug, PartialEq)]
pub struct Consume {
    /// What the record should say now.
    pub before: Option<Consumption>,
    /// What it says after.
    pub consumption: Consumption,
}

impl StoredToken {
    pub(super) fn check(&self, request: &Request<'_>, resume: Duration) -> Result<Option<Consume>, Denial> {
        if self.purpose != request.purpose.as_str() {
            return Err(Denial::TokenPurpose);
        }
        let room = self.room_id.as_deref().unwrap_or_default();
        let fits = if room.is_empty() { self.stream_id == request.stream_id } else { request.is_in(room) };
        if !fits {
            return Err(Denial::TokenStream);
        }
        match &self.consumed {
            // Who is back goes on as if the connection had never been lost, whenever the token expires.
            Some(used) if used.by == request.owner && request.now.since(used.at) <= resume => {}
            Some(_) => return Err(Denial::TokenUsed),
            None if u64::try_from(self.expire_secs).is_ok_and(|secs| request.now.secs() < secs) => {}
            None => return Err(Denial::TokenExpired),
        }
        let consumption = Consumption { by: request.owner.to_owned(), at: request.now };
        Ok(room.is_empty().then(|| Consume { before: self.consumed.clone(), consumption }))
    }
}
