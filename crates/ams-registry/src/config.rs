//! The registry's section of the configuration: deadlines, limits, database names.
//!
//! Owns the settings and their defaults, never the address: a [`crate::RegistryUri`] holds that, and its secret.

use std::time::Duration;

use serde::Deserialize;

use crate::error::RegistryError;

/// Longest accepted [`RegistryConfig::database_prefix`], in bytes: MongoDB allows 63 for a whole database name.
pub const DATABASE_PREFIX_LEN_MAX: usize = 24;

/// How a registry behaves; the defaults suit a cluster in one region.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Longest a call may take, waiting for its turn included. A call never outlives it, whatever the server does.
    #[serde(with = "humantime_serde")]
    pub operation_timeout: Duration,
    /// Calls that may run at once. Heartbeats have [`RegistryConfig::heartbeats_in_flight_max`] on top.
    pub calls_in_flight_max: usize,
    /// Node and stream heartbeats that may run at once: a lane of their own, so that load cannot make a node look dead.
    pub heartbeats_in_flight_max: usize,
    /// Calls that may wait for their turn; one more is refused at once with [`RegistryError::Overloaded`].
    pub calls_waiting_max: usize,
    /// Put before every database name, so that two clusters can share one server. Lower-case letters, digits and `_`.
    pub database_prefix: String,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            operation_timeout: Duration::from_secs(2),
            calls_in_flight_max: 64,
            heartbeats_in_flight_max: 8,
            calls_waiting_max: 1024,
            database_prefix: String::new(),
        }
    }
}

impl RegistryConfig {
    /// Checks the settings against each other and against what the stores can take.
    ///
    /// # Errors
    /// [`RegistryError::Config`] names the key and what to write.
    pub fn validate(&self) -> Result<(), RegistryError> {
        let fault = |key, reason: &str| Err(RegistryError::Config { key, reason: reason.to_owned() });
        if self.operation_timeout < Duration::from_millis(50) || self.operation_timeout > Duration::from_secs(60) {
            return fault("operation_timeout", "write a time from 50ms to 60s, such as \"2s\"");
        }
        if !(1..=1024).contains(&self.calls_in_flight_max) {
            return fault("calls_in_flight_max", "write a number from 1 to 1024");
        }
        if !(1..=256).contains(&self.heartbeats_in_flight_max) {
            return fault("heartbeats_in_flight_max", "write a number from 1 to 256");
        }
        if self.calls_waiting_max > 65_536 {
            return fault("calls_waiting_max", "write a number up to 65536");
        }
        let prefix_is_plain =
            self.database_prefix.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !prefix_is_plain || self.database_prefix.len() > DATABASE_PREFIX_LEN_MAX {
            return fault("database_prefix", "write up to 24 lower-case letters, digits and '_'");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_named() {
        type Change = fn(&mut RegistryConfig);
        let rows: [(&str, Change, Option<&str>); 6] = [
            ("defaults", |_| {}, None),
            ("no time at all", |c| c.operation_timeout = Duration::ZERO, Some("operation_timeout")),
            ("no calls", |c| c.calls_in_flight_max = 0, Some("calls_in_flight_max")),
            ("no heartbeats", |c| c.heartbeats_in_flight_max = 0, Some("heartbeats_in_flight_max")),
            ("too many waiting", |c| c.calls_waiting_max = usize::MAX, Some("calls_waiting_max")),
            ("a dot in a database name", |c| c.database_prefix = "a.b".into(), Some("database_prefix")),
        ];
        for (name, change, key) in rows {
            let mut config = RegistryConfig::default();
            change(&mut config);
            let got = config.validate().err().map(|e| e.to_string());
            match key {
                None => assert_eq!(got, None, "{name}"),
                Some(key) => assert!(got.as_deref().is_some_and(|e| e.contains(key)), "{name}: {got:?}"),
            }
        }
    }
}
