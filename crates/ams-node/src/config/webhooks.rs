//! The `[webhooks]` section: how events are signed and how long they are kept.
//!
//! Owns these values. Which events go where is said by the applications' settings and the streams' records.

use std::path::Path;
use std::time::Duration;

use ams_access::webhook::WebhookKey;
use ams_api::Secret;
use serde::{Deserialize, Serialize};

use crate::node::webhooks::post::Poster;

/// Least and greatest number of events an application may have waiting.
const WAITING_MAX: std::ops::RangeInclusive<usize> = 100..=10_000_000;
/// Least time before an event is given up.
const GIVE_UP_MIN: Duration = Duration::from_secs(60);
/// Greatest.
const GIVE_UP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How webhooks are sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebhookConfig {
    /// Key of the signatures, 16 characters or more, the same on all nodes. Empty: they are not signed.
    pub(crate) secret: Secret,
    /// PEM file of certificate authorities that receivers may have besides the public ones.
    pub(crate) ca_file: String,
    /// When an event that could not be delivered is given up.
    #[serde(with = "humantime_serde")]
    pub(crate) give_up_after: Duration,
    /// Events of one application that may wait; of more, the oldest are dropped.
    pub(crate) waiting_max: usize,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            secret: Secret::default(),
            ca_file: String::new(),
            give_up_after: Duration::from_secs(24 * 3600),
            waiting_max: 100_000,
        }
    }
}

impl WebhookConfig {
    /// The key of the signatures, if there is to be one.
    pub(crate) fn key(&self) -> Option<WebhookKey> {
        WebhookKey::new(&ams_access::Secret::from(self.secret.0.as_str())).ok()
    }

    /// What is wrong with a key, if something is.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        // Stars are what --print-config shows in its place.
        let secret = ams_access::Secret::from(self.secret.0.trim_matches('*'));
        if let Err(error) = WebhookKey::new(&secret)
            && !secret.expose().is_empty()
        {
            return Err(("secret", error.to_string()));
        }
        if !(GIVE_UP_MIN..=GIVE_UP_MAX).contains(&self.give_up_after) {
            return Err(("give_up_after", "must be from a minute to 30 days".into()));
        }
        if !WAITING_MAX.contains(&self.waiting_max) {
            let (least, most) = (WAITING_MAX.start(), WAITING_MAX.end());
            return Err(("waiting_max", format!("must be from {least} to {most}")));
        }
        if !self.ca_file.is_empty() {
            Poster::new(Some(Path::new(&self.ca_file))).map_err(|problem| ("ca_file", problem))?;
        }
        Ok(())
    }
}
