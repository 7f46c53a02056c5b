//! Small documents that belong to a stream: one-time tokens, subscribers, and who connected when.
//!
//! Owns names, types and defaults; what makes a token valid is not decided here.

use std::fmt;

use super::field::{JsonMap, record};

/// Which kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shelf {
    /// [`TokenRecord`]s, by token id.
    Tokens,
    /// [`SubscriberRecord`]s, by subscriber id.
    Subscribers,
    /// [`ConnectionEventRecord`]s, by subscriber id; several of one id.
    ConnectionEvents,
}

impl Shelf {
    /// Every kind.
    pub const ALL: [Shelf; 3] = [Self::Tokens, Self::Subscribers, Self::ConnectionEvents];

    /// Name of the collection in MongoDB.
    pub(crate) fn collection(self) -> &'static str {
        match self {
            Self::Tokens => "token",
            Self::Subscribers => "subscriber",
            Self::ConnectionEvents => "ConnectionEvent",
        }
    }

    /// The field that names a document among those of its stream.
    pub(crate) fn id_field(self) -> &'static str {
        match self {
            Self::Tokens => "tokenId",
            Self::Subscribers | Self::ConnectionEvents => "subscriberId",
        }
    }
}

record! {
    /// One document of collection `token`.
    pub struct TokenRecord {
        /// The token: random text, or a JWT.
        token_id: Option<String> = None => "tokenId",
        /// The stream it is for.
        stream_id: Option<String> = None => "streamId",
        /// When it ends, seconds since 1970.
        expire_date: i64 = 0 => "expireDate",
        /// `play` or `publish`.
        kind: Option<String> = None => "type",
        /// The room it is for.
        room_id: Option<String> = None => "roomId",
        /// Who used it up; unset before. Ours: AMS deletes a token when it is used.
        used_by: Option<String> = None => "amsUsedBy",
        /// When that session was last seen, ms since 1970.
        used_at_ms: i64 = 0 => "amsUsedAt",
    }
}

/// That a token is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// Who used it.
    pub by: String,
    /// When that session was last seen, ms since 1970.
    pub at_ms: i64,
}

impl TokenRecord {
    /// Who used it up, if anybody did.
    pub fn token_use(&self) -> Option<TokenUse> {
        self.used_by.clone().map(|by| TokenUse { by, at_ms: self.used_at_ms })
    }

    /// The token as AMS shows it.
    pub fn to_rest_json(&self) -> JsonMap {
        let mut shown = self.to_json();
        shown.retain(|name, _| !name.starts_with("ams"));
        shown
    }
}

record! {
    /// One document of collection `subscriber`.
    pub struct SubscriberRecord {
        /// The subscriber's id.
        subscriber_id: Option<String> = None => "subscriberId",
        /// A name for people.
        subscriber_name: Option<String> = None => "subscriberName",
        /// The stream.
        stream_id: Option<String> = None => "streamId",
        /// The secret time codes are made from; REST never shows it.
        b32_secret: Option<String> = None => "b32Secret",
        /// `play` or `publish`.
        kind: Option<String> = None => "type",
        /// Whether it is connected.
        connected: bool = false => "connected",
        /// Connections now.
        current_concurrent_connections: i32 = 0 => "currentConcurrentConnections",
        /// Most connections at one time.
        concurrent_connections_limit: i32 = 1 => "concurrentConnectionsLimit",
        /// What it is kept from: `publish`, `play` or `publish_play`.
        blocked_type: Option<String> = None => "blockedType",
        /// Until when, ms since 1970 (the name is as it is).
        blocked_until_ms: i64 = 0 => "blockedUntilUnitTimeStampMs",
        /// Address of the node it is connected to.
        registered_node_ip: Option<String> = None => "registeredNodeIp",
        /// Mean video bits per second it got.
        avg_video_bitrate: i64 = 0 => "avgVideoBitrate",
        /// Mean audio bits per second it got.
        avg_audio_bitrate: i64 = 0 => "avgAudioBitrate",
        /// Seconds a time code is good for; 0 as the application says.
        totp_expiry_period_seconds: i32 = 0 => "totpExpiryPeriodSeconds",
    }
}

record! {
    /// One document of collection `ConnectionEvent`.
    pub struct ConnectionEventRecord {
        /// When, ms since 1970.
        timestamp: i64 = 0 => "timestamp",
        /// `connected` or `disconnected`.
        event_type: Option<String> = None => "eventType",
        /// Address of the node.
        instance_ip: Option<String> = None => "instanceIP",
        /// `play` or `publish`.
        kind: Option<String> = None => "type",
        /// How it came, such as `webrtc`.
        event_protocol: Option<String> = None => "eventProtocol",
        /// The stream.
        stream_id: Option<String> = None => "streamId",
        /// The subscriber.
        subscriber_id: Option<String> = None => "subscriberId",
    }
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRecord").field("stream_id", &self.stream_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for SubscriberRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriberRecord").field("subscriber_id", &self.subscriber_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectionEventRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionEventRecord").field("timestamp", &self.timestamp).finish_non_exhaustive()
    }
}
