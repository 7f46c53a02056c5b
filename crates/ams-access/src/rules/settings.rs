//! What an application asks of publishers and viewers, by AMS's names.

use std::time::Duration;

use serde::Deserialize;

use crate::purpose::Purpose;
use crate::secret::Secret;

/// The settings of an application that decide about streams. Read from the settings' JSON; other settings there are
/// ignored. Deliberately not serialisable: it holds secrets, and its owner is the settings' record.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessSettings {
    /// Whether publishers need a one-time token.
    pub publish_token_control_enabled: bool,
    /// Whether viewers do.
    pub play_token_control_enabled: bool,
    /// Whether publishers need a JWT.
    pub publish_jwt_control_enabled: bool,
    /// Whether viewers do.
    pub play_jwt_control_enabled: bool,
    /// Its key.
    pub jwt_stream_secret_key: Secret,
    /// Whether publishers need a hash token.
    pub hash_control_publish_enabled: bool,
    /// Whether viewers do.
    pub hash_control_play_enabled: bool,
    /// Its secret.
    pub token_hash_secret: Secret,
    /// Whether publishers need a subscriber id and a code.
    pub enable_time_token_for_publish: bool,
    /// Whether viewers do.
    pub enable_time_token_for_play: bool,
    /// The same, by an older name.
    pub time_token_subscriber_only: bool,
    /// What codes of publishers without a secret of their own are made from.
    pub time_token_secret_for_publish: Secret,
    /// The same for viewers.
    pub time_token_secret_for_play: Secret,
    /// Seconds a code is the present one.
    pub time_token_period: i64,
    /// Whether only streams that were created may be published.
    pub accept_only_streams_in_data_store: bool,
    /// From where streams may be published; empty for anywhere.
    #[serde(rename = "allowedPublisherCIDR")]
    pub allowed_publisher_cidr: Option<String>,
    /// Asked before a stream is published, unless empty.
    #[serde(rename = "webhookAuthenticateURL")]
    pub webhook_authenticate_url: Option<String>,
    /// Asked before a stream is played, unless empty.
    pub webhook_play_auth_url: Option<String>,
    /// Most viewers of a stream that has no limit of its own; negative for any number.
    #[serde(rename = "webRTCViewerLimit")]
    pub web_rtc_viewer_limit: i64,
    /// Most streams published at once; negative for any number.
    pub ingesting_stream_limit: i64,
}

impl Default for AccessSettings {
    /// AMS's defaults: everybody may do everything.
    fn default() -> Self {
        Self {
            publish_token_control_enabled: false,
            play_token_control_enabled: false,
            publish_jwt_control_enabled: false,
            play_jwt_control_enabled: false,
            jwt_stream_secret_key: Secret::default(),
            hash_control_publish_enabled: false,
            hash_control_play_enabled: false,
            token_hash_secret: Secret::default(),
            enable_time_token_for_publish: false,
            enable_time_token_for_play: false,
            time_token_subscriber_only: false,
            time_token_secret_for_publish: Secret::default(),
            time_token_secret_for_play: Secret::default(),
            time_token_period: 60,
            accept_only_streams_in_data_store: false,
            allowed_publisher_cidr: None,
            webhook_authenticate_url: None,
            webhook_play_auth_url: None,
            web_rtc_viewer_limit: -1,
            ingesting_stream_limit: -1,
        }
    }
}

/// What AMS has no setting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    /// How far a JWT's clock may be off.
    pub jwt_leeway: Duration,
    /// Whether a JWT must say when it ends. AMS does not ask.
    pub jwt_expiry_required: bool,
    /// How long after it was last seen the session that used up a one-time token may come back with it.
    pub token_resume: Duration,
}

impl Default for AccessPolicy {
    fn default() -> Self {
        Self { jwt_leeway: Duration::from_secs(30), jwt_expiry_required: false, token_resume: Duration::from_secs(60) }
    }
}

/// Which checks of tokens are enabled for one purpose.
pub(super) struct Uses {
    pub(super) one_time: bool,
    pub(super) jwt: bool,
    pub(super) hash: bool,
    pub(super) time: bool,
}

impl AccessSettings {
    pub(super) fn uses(&self, purpose: Purpose) -> Uses {
        match purpose {
            Purpose::Publish => Uses {
                one_time: self.publish_token_control_enabled,
                jwt: self.publish_jwt_control_enabled,
                hash: self.hash_control_publish_enabled,
                time: self.enable_time_token_for_publish,
            },
            Purpose::Play => Uses {
                one_time: self.play_token_control_enabled,
                jwt: self.play_jwt_control_enabled,
                hash: self.hash_control_play_enabled,
                time: self.enable_time_token_for_play || self.time_token_subscriber_only,
            },
        }
    }

    pub(super) fn webhook(&self, purpose: Purpose) -> Option<&str> {
        let url = match purpose {
            Purpose::Publish => &self.webhook_authenticate_url,
            Purpose::Play => &self.webhook_play_auth_url,
        };
        url.as_deref().map(str::trim).filter(|url| !url.is_empty())
    }

    /// The application's secret for codes, with its setting's name.
    pub(super) fn time_token_secret(&self, purpose: Purpose) -> (&'static str, &Secret) {
        match purpose {
            Purpose::Publish => ("timeTokenSecretForPublish", &self.time_token_secret_for_publish),
            Purpose::Play => ("timeTokenSecretForPlay", &self.time_token_secret_for_play),
        }
    }
}
