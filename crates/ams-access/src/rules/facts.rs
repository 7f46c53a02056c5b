//! What is asked, what must be looked up, and what was found.

use std::net::IpAddr;

use super::denial::Denial;
use super::one_time::StoredToken;
use crate::purpose::Purpose;
use crate::secret::Secret;
use crate::time::UnixMs;

/// Somebody wants to publish or play.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What for.
    pub purpose: Purpose,
    /// Which stream.
    pub stream_id: &'a str,
    /// The room or main track named with it, if any.
    pub room: Option<&'a str>,
    /// The token that came.
    pub token: Option<&'a Secret>,
    /// Who the client says it is.
    pub subscriber_id: Option<&'a str>,
    /// Its code.
    pub subscriber_code: Option<&'a Secret>,
    /// From where, as far as proxies can be believed.
    pub client: Option<IpAddr>,
    /// What stays the same when the client connects again, and nobody else has: address and user agent, or a
    /// session's own secret. One-time tokens are bound to it.
    pub owner: &'a str,
    /// The present.
    pub now: UnixMs,
}

impl Request<'_> {
    /// Whether it is about `room` as a whole, or about a stream in it. No room is nobody's.
    pub(super) fn is_in(&self, room: &str) -> bool {
        !room.is_empty() && (self.room == Some(room) || self.stream_id == room)
    }
}

/// What to look up. Lookups are exact and by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs<'a> {
    /// The one-time token of this id.
    pub token: Option<&'a str>,
    /// The subscriber of this id, of the request's stream.
    pub subscriber: Option<&'a str>,
    /// The stream's record. While the registry is away only [`Denial::DataStore`] of
    /// `acceptOnlyStreamsInDataStore` comes of leaving it unknown.
    pub broadcast: bool,
    /// How many streams of the application are published.
    pub ingesting: bool,
}

/// What a lookup came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fact<T> {
    /// Not looked up, or the registry could not be asked. What needs it refuses.
    #[default]
    Unknown,
    /// There is none.
    Missing,
    /// Here it is.
    Found(T),
}

impl<T> From<Option<T>> for Fact<T> {
    /// The answer of a registry that answered.
    fn from(found: Option<T>) -> Self {
        found.map_or(Self::Missing, Self::Found)
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The one-time token.
    pub token: Fact<StoredToken>,
    /// The subscriber.
    pub subscriber: Fact<SubscriberFacts>,
    /// The stream's record.
    pub broadcast: Fact<BroadcastFacts>,
    /// Viewers of the stream now, on all nodes as far as known.
    pub viewers: u64,
    /// Streams of the application published now, this one left out.
    pub ingesting: Option<u64>,
    /// What the webhook said, once it was asked; a webhook that fails says no.
    pub webhook: Option<bool>,
}

/// What matters of a broadcast's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BroadcastFacts {
    /// `plannedStartDate`, s since 1970; 0 for none.
    pub planned_start_secs: i64,
    /// `plannedEndDate`, s since 1970; 0 for none.
    pub planned_end_secs: i64,
    /// `date`, ms since 1970: when it was created.
    pub created_ms: i64,
    /// `expireDurationMS` since then; 0 for ever.
    pub expires_after_ms: i64,
    /// `webRTCViewerLimit`; negative for none.
    pub viewer_limit: i64,
}

impl BroadcastFacts {
    /// Whether `now` is within its planned times.
    pub(super) fn is_open(&self, now: UnixMs) -> bool {
        let secs = i64::try_from(now.secs()).unwrap_or(i64::MAX);
        let ms = i64::try_from(now.0).unwrap_or(i64::MAX);
        let started = self.planned_start_secs <= 0 || secs >= self.planned_start_secs;
        let ended = self.planned_end_secs > 0 && secs > self.planned_end_secs;
        let expired = self.expires_after_ms > 0 && ms >= self.created_ms.saturating_add(self.expires_after_ms);
        started && !ended && !expired
    }
}

/// What matters of a subscriber's record.
#[derive(Clone, Debug, Default)]
pub struct SubscriberFacts {
    /// `b32Secret`; blank for none.
    pub b32_secret: Secret,
    /// `totpExpiryPeriodSeconds`.
    pub totp_period_secs: Option<i64>,
    /// `type`: `play`, `publish` (which includes playing), or nothing for both.
    pub purpose: Option<String>,
    /// `blockedType`: `play`, `publish` or `publish_play`.
    pub blocked_purpose: Option<String>,
    /// `blockedUntilUnitTimeStampMs`; 0 for not blocked.
    pub blocked_until: UnixMs,
    /// `concurrentConnectionsLimit`; 0 and less for any number.
    pub sessions_max: i64,
    /// Its living sessions, those of the request's owner left out: an old socket must not stand in the way of its
    /// successor. Counted, not read from the record, where a crash leaves ones behind.
    pub sessions: u64,
}

impl SubscriberFacts {
    pub(super) fn check_blocked(&self, request: &Request<'_>) -> Result<(), Denial> {
        let word = self.blocked_purpose.as_deref().unwrap_or_default();
        let meant = word == request.purpose.as_str() || word == "publish_play";
        if meant && self.blocked_until.0 > 0 && self.blocked_until >= request.now {
            return Err(Denial::Blocked { until: self.blocked_until });
        }
        Ok(())
    }

    pub(super) fn check_use(&self, request: &Request<'_>) -> Result<(), Denial> {
        let may = match self.purpose.as_deref().unwrap_or_default() {
            "" | "publish" | "publish_play" => true,
            other => other == request.purpose.as_str(),
        };
        if !may {
            return Err(Denial::SubscriberPurpose);
        }
        match u64::try_from(self.sessions_max) {
            Ok(max) if max > 0 && self.sessions >= max => Err(Denial::SubscriberSessions),
            _ => Ok(()),
        }
    }
}
