//! The test kit: real nodes as processes, light WebRTC peers, an AMS signalling client, and the scripts that drive
//! browsers.
//!
//! Owns what several test targets need; asserts nothing by itself. Everything waits for a condition with a deadline.

pub mod ams;
pub mod balancer;
pub mod case;
pub mod cluster;
pub mod driver;
pub mod http;
pub mod light;
pub mod lossy;
pub mod metrics;
pub mod mongo;
pub mod mongod;
pub mod node;
pub mod proxy;
pub mod rawhttp;
pub mod sdp;

use std::future::Future;
use std::time::Duration;

/// The application every test uses.
pub const APP: &str = "WebRTCAppEE";

/// Waits until `check` gives something, asking every 50 ms; an error that says `what` after `limit`.
///
/// # Errors
/// The deadline passed.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut check: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = check().await {
            return Ok(found);
        }
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
