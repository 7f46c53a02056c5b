//! The `[limits]` section: how many sessions there may be.
//!
//! Owns these values. Who has a place is [`crate::node`]'s to count.

use serde::{Deserialize, Serialize};

/// Most sessions on this node, publishers and viewers of all doors together; 0 is as many as there is room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// All of them.
    pub(crate) sessions: usize,
    /// Those of one application.
    pub(crate) sessions_per_app: usize,
    /// Those of one client address outside `api.trusted_proxies`. Many people may share one.
    pub(crate) sessions_per_address: usize,
    /// Viewers of one stream.
    pub(crate) viewers_per_stream: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { sessions: 0, sessions_per_app: 0, sessions_per_address: 1000, viewers_per_stream: 0 }
    }
}
