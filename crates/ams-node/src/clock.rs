//! The node's two clocks.
//!
//! Owns where time is read: durations by the runtime's clock, which a simulation can set, and dates by the wall clock,
//! which may jump and differs between nodes.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, by the runtime's clock.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A wall clock in ms since 1970, for records that people and other programs read.
pub struct WallClock(Box<dyn Fn() -> i64 + Send + Sync>);

impl WallClock {
    /// A clock that shows what `read` says.
    #[cfg(test)]
    pub fn new(read: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }

    /// What it shows, ms since 1970.
    pub fn ms(&self) -> i64 {
        (self.0)()
    }
}

impl Default for WallClock {
    /// The system's.
    fn default() -> Self {
        Self(Box::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        }))
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.ms()).finish()
    }
}
