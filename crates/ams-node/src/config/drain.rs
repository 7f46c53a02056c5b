//! The `[drain]` section: how a node leaves that is told to.
//!
//! Owns these values. What happens in these times is [`crate::node`]'s.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A node that waits longer is forgotten, not draining.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Times of a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DrainConfig {
    /// From the moment the node says that it is not ready until its clients are told to go: the balancer's time to notice.
    #[serde(with = "humantime_serde")]
    pub(crate) notice: Duration,
    /// The time over which clients are told, one after the other.
    #[serde(with = "humantime_serde")]
    pub(crate) spread: Duration,
    /// When the node leaves, whoever is still there; counted from the beginning.
    #[serde(with = "humantime_serde")]
    pub(crate) timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { notice: Duration::from_secs(1), spread: Duration::from_secs(2), timeout: Duration::from_secs(8) }
    }
}

impl DrainConfig {
    /// Clients are told at once, and nobody is waited for.
    pub(crate) const AT_ONCE: Self = Self { notice: Duration::ZERO, spread: Duration::ZERO, timeout: Duration::ZERO };

    /// What is wrong with a key, if something is.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.timeout > TIMEOUT_MAX {
            return Err(("timeout", "is longer than a day".into()));
        }
        if self.timeout != Duration::ZERO && self.notice.saturating_add(self.spread) > self.timeout {
            let sum = self.notice.saturating_add(self.spread);
            return Err(("timeout", format!("is shorter than notice and spread together, which are {sum:?}")));
        }
        Ok(())
    }
}
