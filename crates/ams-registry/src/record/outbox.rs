//! Webhook events that wait to be sent, and what is remembered of those that were.
//!
//! Owns names, types and the states of an event. What a body says, and how it is sent, is not decided here.

use std::fmt;

use super::field::record;

/// Name of the collection in MongoDB, in the application's database.
pub(crate) const COLLECTION: &str = "amsWebhookOutbox";

/// To be sent.
pub const WAITING: &str = "waiting";
/// Sent, and remembered so that nobody sends it again.
pub(crate) const DONE: &str = "done";
/// Never to be sent: what it says did not come true.
pub const WITHDRAWN: &str = "withdrawn";
/// Given up.
pub(crate) const DEAD: &str = "dead";

/// Place of an event that comes before all others of its publication.
pub const PLACE_FIRST: i64 = 0;
/// Place of an event that comes after all others of its publication.
pub const PLACE_LAST: i64 = i64::MAX;

/// How long one is remembered that was sent or withdrawn.
pub const MEMORY_MS: i64 = 3600 * 1000;
/// How long one is listed that was given up.
pub(crate) const DEAD_MEMORY_MS: i64 = 24 * 3600 * 1000;

record! {
    /// One document of collection `amsWebhookOutbox`.
    pub struct OutboxRecord {
        /// The event's id; there is one event of an id.
        id: String = String::new() => "_id",
        /// The stream it is about.
        stream_id: String = String::new() => "streamId",
        /// The publication it is about.
        epoch: i64 = 0 => "epoch",
        /// Its place among the events of that publication.
        place: i64 = PLACE_FIRST => "place",
        /// What happened, by AMS's word.
        action: String = String::new() => "action",
        /// Where it goes.
        url: String = String::new() => "url",
        /// Scheme, host and port of that: what is slow or away as a whole.
        target: String = String::new() => "target",
        /// Type of the body.
        content_type: String = String::new() => "contentType",
        /// What is sent; empty once it was.
        body: String = String::new() => "body",
        /// [`WAITING`], [`WITHDRAWN`], `done` or `dead`.
        state: String = WAITING.to_owned() => "state",
        /// When it happened, ms since 1970.
        created: i64 = 0 => "createdAt",
        /// Tries that failed.
        attempts: i32 = 0 => "attempts",
        /// Before this it is not sent, ms since 1970: it may still be withdrawn.
        not_before: i64 = 0 => "notBefore",
        /// When it is to be tried next.
        next_attempt: i64 = 0 => "nextAttempt",
        /// The node that sends it now.
        leased_by: Option<String> = None => "leasedBy",
        /// Until when; others leave it alone.
        leased_until: i64 = 0 => "leasedUntil",
        /// The publication that made it untrue.
        withdrawn_by: i64 = 0 => "withdrawnBy",
        /// When it may be forgotten; 0 while it waits.
        forget_at: i64 = 0 => "forgetAt",
    }
}

impl OutboxRecord {
    /// Whether it happens once in a publication, so that two nodes may both say so.
    pub fn is_once(&self) -> bool {
        self.place == PLACE_FIRST || self.place == PLACE_LAST
    }
}

impl fmt::Debug for OutboxRecord {
    /// Leaves out the body and the address: both may hold what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxRecord")
            .field("id", &self.id)
            .field("stream_id", &self.stream_id)
            .field("epoch", &self.epoch)
            .field("action", &self.action)
            .field("state", &self.state)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
