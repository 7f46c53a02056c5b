//! Why somebody may not.

use crate::jwt::JwtError;
use crate::time::UnixMs;

/// Why a request is refused. Its text is for operators and developers, [`wire_name`](Self::wire_name) for clients;
/// neither repeats a token, a code or a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// `allowedPublisherCIDR` leaves the client's address out.
    #[error("publishing is not allowed from this address")]
    Address,
    /// `acceptOnlyStreamsInDataStore`, and the stream was not created.
    #[error("the stream id is not registered, and only registered streams are accepted")]
    Unregistered,
    /// Before the planned start, after the planned end, or past its duration.
    #[error("the stream is not active yet, or has expired")]
    Window,
    /// No token came.
    #[error("a token is needed")]
    TokenMissing,
    /// No such one-time token.
    #[error("the token is not known")]
    TokenUnknown,
    /// The one-time token's `expireDate` has passed.
    #[error("the token has expired")]
    TokenExpired,
    /// The token is for playing, not publishing, or the other way round.
    #[error("the token is for another purpose")]
    TokenPurpose,
    /// The token is for another stream or room.
    #[error("the token is for another stream")]
    TokenStream,
    /// The one-time token was used by another session, or too long ago.
    #[error("the token has been used")]
    TokenUsed,
    /// The JSON Web Token is not good.
    #[error(transparent)]
    Jwt(JwtError),
    /// The hash token is not the one for stream and purpose.
    #[error("the hash does not fit stream and purpose")]
    Hash,
    /// No subscriber id came.
    #[error("a subscriber id is needed")]
    SubscriberMissing,
    /// No code came.
    #[error("a subscriber code is needed")]
    CodeMissing,
    /// The code is not the present one.
    #[error("the subscriber code is wrong or out of date")]
    Code,
    /// The subscriber's stored secret cannot be read.
    #[error("the subscriber's secret is not Base32 text")]
    SubscriberSecret,
    /// The subscriber may only do the other thing.
    #[error("the subscriber is registered for another purpose")]
    SubscriberPurpose,
    /// The subscriber has all the sessions it may have.
    #[error("the subscriber has as many sessions as it may have")]
    SubscriberSessions,
    /// Somebody blocked the subscriber.
    #[error("the subscriber is blocked")]
    Blocked {
        /// Until when.
        until: UnixMs,
    },
    /// `ingestingStreamLimit` is reached.
    #[error("as many streams are published as may be")]
    IngestLimit,
    /// `webRTCViewerLimit` is reached.
    #[error("the stream has as many viewers as it may have")]
    ViewerLimit,
    /// The application's webhook said no, or could not be asked.
    #[error("the application's webhook does not allow it")]
    Webhook,
    /// A check is enabled and its setting cannot work.
    #[error("the application's {setting} is missing or cannot be used")]
    Misconfigured {
        /// The setting's name.
        setting: &'static str,
    },
    /// What must be looked up could not be.
    #[error("the registry cannot be asked right now")]
    DataStore,
}

impl Denial {
    /// The `definition` AMS's clients know.
    pub fn wire_name(&self) -> &'static str {
        match self {
            Self::Unregistered => "not_allowed_unregistered_streams",
            Self::Window => "stream_not_active_or_expired",
            Self::Blocked { .. } => "user_blocked",
            Self::ViewerLimit => "viewerLimitReached",
            Self::IngestLimit => "highResourceUsage",
            Self::DataStore => "data_store_not_available",
            _ => "unauthorized_access",
        }
    }
}
