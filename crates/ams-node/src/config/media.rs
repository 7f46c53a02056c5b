//! The `[media]` section: how long peers and streams are waited for, where viewers' messages go, and what delay viewers
//! are asked for.
//!
//! Owns these values, which belong to the binary's own lifecycle code. Never measures time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::playout::PlayoutDelay;
use crate::shard::messages::Distribution;

/// Nobody looks at a still picture for longer.
const RESUME_WINDOW_MAX: Duration = Duration::from_secs(600);

/// Deadlines of peers and streams on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MediaConfig {
    /// From the SDP exchange to a connected peer. A peer that needs longer is closed with a reason.
    #[serde(with = "humantime_serde")]
    pub(crate) connect_timeout: Duration,
    /// Silence of a connected peer after which it counts as gone (RFC 7675 allows up to 30 s).
    #[serde(with = "humantime_serde")]
    pub(crate) consent_timeout: Duration,
    /// How long a stream's viewers are kept when its publisher or origin is lost: whoever publishes it again within that
    /// time takes them over.
    #[serde(with = "humantime_serde")]
    pub(crate) resume_window: Duration,
    /// Who gets what viewers say on their data channels.
    pub(crate) viewer_messages: Distribution,
    /// How long viewers are asked to hold pictures, where the publisher does not say.
    pub(crate) playout_delay: PlayoutDelay,
    /// Share of its time that a media thread may work before it takes no more viewers, in percent.
    pub(crate) load_max: u8,
}

impl MediaConfig {
    /// What is wrong with a key, if something is.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.resume_window > RESUME_WINDOW_MAX {
            return Err(("resume_window", "is longer than 10 min".into()));
        }
        match self.load_max {
            1..=100 => Ok(()),
            percent => Err(("load_max", format!("{percent} is not from 1 to 100 percent; 100 refuses nobody"))),
        }
    }
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            consent_timeout: Duration::from_secs(8),
            resume_window: Duration::from_secs(10),
            viewer_messages: Distribution::All,
            playout_delay: PlayoutDelay::default(),
            load_max: 90,
        }
    }
}
