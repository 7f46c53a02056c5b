//! Settings of the relay.
//!
//! Owns the `[relay]` section, its defaults and its checks. Addresses and the cluster key file belong to the binary.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::queue::QueueLimits;

/// Settings of every relay link of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// How often a link is pinged.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// Silence after which a link counts as dead. At least twice `keepalive_interval`.
    #[serde(with = "humantime_serde")]
    pub dead_after: Duration,
    /// Time for TCP connect and handshake together, dialling or accepting.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// First wait before a lost link is dialled again; doubles from there.
    #[serde(with = "humantime_serde")]
    pub redial_min: Duration,
    /// Longest wait before a lost link is dialled again.
    #[serde(with = "humantime_serde")]
    pub redial_max: Duration,
    /// Oldest media still sent; what waited longer is dropped to the next keyframe.
    #[serde(with = "humantime_serde")]
    pub queue_age_max: Duration,
    /// Most media bytes one stream may have waiting on one link.
    pub queue_stream_bytes_max: usize,
    /// Media bytes waiting on one link above which the streams with more than their share drop.
    pub queue_link_bytes_max: usize,
    /// How long an edge keeps pulling a stream after its last viewer left.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Most streams one link carries.
    pub subscriptions_max: usize,
    /// Most nodes a stream may have passed before this one; 1 lets edges pull from origins only.
    pub hops_max: u8,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            keepalive_interval: Duration::from_secs(1),
            dead_after: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(2),
            redial_min: Duration::from_millis(100),
            redial_max: Duration::from_secs(5),
            queue_age_max: Duration::from_millis(300),
            queue_stream_bytes_max: 4 * 1024 * 1024,
            queue_link_bytes_max: 64 * 1024 * 1024,
            linger: Duration::from_secs(2),
            subscriptions_max: 10_000,
            hops_max: 3,
        }
    }
}

/// A setting that cannot work, with the key and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("relay.{key} {problem}")]
pub struct RelayConfigError {
    /// The key within the `[relay]` section.
    pub key: &'static str,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

impl RelayConfig {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), RelayConfigError> {
        let wrong = |key, problem: String| Err(RelayConfigError { key, problem });
        if self.keepalive_interval < Duration::from_millis(10) {
            return wrong("keepalive_interval", format!("is {:?}; use 10ms or more", self.keepalive_interval));
        }
        if self.dead_after < self.keepalive_interval * 2 {
            return wrong(
                "dead_after",
                format!(
                    "is {:?}; use at least twice keepalive_interval ({:?})",
                    self.dead_after, self.keepalive_interval
                ),
            );
        }
        if self.handshake_timeout.is_zero() {
            return wrong("handshake_timeout", "is 0; use for example 2s".into());
        }
        if self.redial_min.is_zero() || self.redial_min > self.redial_max {
            return wrong(
                "redial_min",
                format!(
                    "is {:?}; use more than 0 and not more than redial_max ({:?})",
                    self.redial_min, self.redial_max
                ),
            );
        }
        if self.queue_age_max.is_zero() {
            return wrong("queue_age_max", "is 0, so that nothing would ever be sent; use for example 300ms".into());
        }
        if self.queue_stream_bytes_max < QUEUE_STREAM_BYTES_MIN {
            return wrong(
                "queue_stream_bytes_max",
                format!(
                    "is {}; use at least {QUEUE_STREAM_BYTES_MIN}, room for one keyframe",
                    self.queue_stream_bytes_max
                ),
            );
        }
        if self.queue_link_bytes_max < self.queue_stream_bytes_max {
            return wrong(
                "queue_link_bytes_max",
                format!(
                    "is {}; use at least queue_stream_bytes_max ({})",
                    self.queue_link_bytes_max, self.queue_stream_bytes_max
                ),
            );
        }
        if self.subscriptions_max == 0 {
            return wrong("subscriptions_max", "is 0, so that no stream could be pulled; use for example 10000".into());
        }
        if self.hops_max == 0 {
            return wrong("hops_max", "is 0, so that no stream could be pulled; use 1 or more".into());
        }
        Ok(())
    }

    /// The limits of one link's egress queue.
    pub fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            age_max: self.queue_age_max,
            stream_bytes_max: self.queue_stream_bytes_max,
            link_bytes_max: self.queue_link_bytes_max,
            streams_max: self.subscriptions_max,
            ..QueueLimits::default()
        }
    }
}

/// Room for one large keyframe.
const QUEUE_STREAM_BYTES_MIN: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_work_and_survive_a_round_trip() {
        let config = RelayConfig::default();
        config.validate().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("dead_after = \"3s\""), "{text}");
        assert_eq!(toml::from_str::<RelayConfig>(&text).unwrap(), config);
    }

    #[test]
    fn wrong_settings_name_the_key() {
        for (name, text, key) in [
            ("silence limit under two pings", "dead_after = \"1500ms\"", "dead_after"),
            ("redial range inverted", "redial_min = \"10s\"", "redial_min"),
            ("no queue", "queue_age_max = \"0s\"", "queue_age_max"),
            ("tiny queue", "queue_stream_bytes_max = 1000", "queue_stream_bytes_max"),
            ("link below stream", "queue_link_bytes_max = 1000000", "queue_link_bytes_max"),
            ("no hops", "hops_max = 0", "hops_max"),
        ] {
            let config: RelayConfig = toml::from_str(text).unwrap();
            assert_eq!(config.validate().unwrap_err().key, key, "{name}");
        }
        let unknown = toml::from_str::<RelayConfig>("dead_afer = \"3s\"").unwrap_err().to_string();
        assert!(unknown.contains("dead_afer"), "{unknown}");
    }
}
