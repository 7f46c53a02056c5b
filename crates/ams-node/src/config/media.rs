//! The `[media]` section: how long peers and streams are waited for, and where viewers' messages go.
//!
//! Owns these durations, which belong to the binary's own lifecycle code. Never measures time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shard::messages::Distribution;

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
    /// Who gets what viewers say on their data channels.
    pub(crate) viewer_messages: Distribution,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            consent_timeout: Duration::from_secs(8),
            viewer_messages: Distribution::All,
        }
    }
}
