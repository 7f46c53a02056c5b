//! The way into a store: a deadline for each call, a bound on how many run, a bound on how many wait.
//!
//! Owns permits and numbers, nothing of a store. Full queue: a caller beyond the bound is refused at once and counted.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::registry::RegistryStats;

/// Which bound a call counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Heartbeats and pings: never behind ordinary calls.
    Heartbeat,
    /// All others.
    Call,
}

#[derive(Debug)]
pub(crate) struct Gate {
    timeout: Duration,
    calls: Bounded,
    heartbeats: Bounded,
    begun: AtomicU64,
    failed: AtomicU64,
    deadlines: AtomicU64,
    overloaded: AtomicU64,
    mean_time_us: AtomicU64,
}

#[derive(Debug)]
struct Bounded {
    permits: Semaphore,
    permits_max: u32,
    /// Callers inside: running and waiting.
    inside: AtomicU64,
    inside_max: u64,
}

impl Bounded {
    fn new(running_max: usize, waiting_max: usize) -> Self {
        Self {
            permits: Semaphore::new(running_max),
            permits_max: u32::try_from(running_max).unwrap_or(u32::MAX),
            inside: AtomicU64::new(0),
            inside_max: running_max.saturating_add(waiting_max) as u64,
        }
    }

    /// Counts a caller in; `None` when the bound is reached.
    fn enter(&self) -> Option<Inside<'_>> {
        let before = self.inside.fetch_add(1, Ordering::AcqRel);
        let guard = Inside(&self.inside);
        (before < self.inside_max).then_some(guard)
    }
}

/// Counts its caller out again, also when the call is dropped half-way.
struct Inside<'a>(&'a AtomicU64);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    pub(crate) fn new(config: &RegistryConfig) -> Self {
        Self {
            timeout: config.operation_timeout,
            calls: Bounded::new(config.calls_in_flight_max, config.calls_waiting_max),
            heartbeats: Bounded::new(config.heartbeats_in_flight_max, config.calls_waiting_max),
            begun: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            deadlines: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
            mean_time_us: AtomicU64::new(0),
        }
    }

    /// Runs `call` when its turn comes. Waiting and running together end at the deadline.
    pub(crate) async fn run<T, E, F>(&self, lane: Lane, operation: &'static str, call: F) -> Result<T, E>
    where
        E: From<RegistryError>,
        F: Future<Output = Result<T, E>>,
    {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let begun_at = Instant::now();
        let answer = self.admit(lane, operation, begun_at, call).await;
        self.note_time(begun_at.elapsed());
        if answer.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn admit<T, E, F>(&self, lane: Lane, operation: &'static str, begun_at: Instant, call: F) -> Result<T, E>
    where
        E: From<RegistryError>,
        F: Future<Output = Result<T, E>>,
    {
        let bounded = if lane == Lane::Heartbeat { &self.heartbeats } else { &self.calls };
        let Some(_inside) = bounded.enter() else {
            self.overloaded.fetch_add(1, Ordering::Relaxed);
            return Err(RegistryError::Overloaded { operation }.into());
        };
        let in_time = timeout_at(begun_at + self.timeout, async {
            let _permit = bounded.permits.acquire().await.map_err(|_| RegistryError::Closed)?;
            call.await
        });
        in_time.await.unwrap_or_else(|_| {
            self.deadlines.fetch_add(1, Ordering::Relaxed);
            Err(RegistryError::Deadline { operation, after: self.timeout }.into())
        })
    }

    /// An exponential mean over about 16 calls.
    fn note_time(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let update = |mean: u64| Some(if mean == 0 { took } else { mean - mean / 16 + took / 16 });
        let _ = self.mean_time_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// Waits until nothing runs, at most one deadline long, and lets nobody in from then on.
    pub(crate) async fn close(&self) {
        let deadline = Instant::now() + self.timeout;
        for bounded in [&self.calls, &self.heartbeats] {
            let _ = timeout_at(deadline, bounded.permits.acquire_many(bounded.permits_max)).await;
            bounded.permits.close();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.calls.permits.is_closed()
    }

    pub(crate) fn stats(&self, fields_misread: u64) -> RegistryStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RegistryStats {
            calls: count(&self.begun),
            failed: count(&self.failed),
            deadlines: count(&self.deadlines),
            overloaded: count(&self.overloaded),
            in_flight: count(&self.calls.inside) + count(&self.heartbeats.inside),
            fields_misread,
            mean_time: Duration::from_micros(count(&self.mean_time_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn gate(running: usize, waiting: usize) -> Arc<Gate> {
        Arc::new(Gate::new(&RegistryConfig {
            operation_timeout: Duration::from_millis(200),
            calls_in_flight_max: running,
            heartbeats_in_flight_max: 1,
            calls_waiting_max: waiting,
            database_prefix: String::new(),
        }))
    }

    async fn never() -> Result<(), RegistryError> {
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_call_that_hangs_ends_and_one_that_waits_behind_it_ends_too() {
        let gate = gate(1, 1);
        let begun_at = Instant::now();
        let (running, waiting, refused, heartbeat) = tokio::join!(
            gate.run(Lane::Call, "first", never()),
            gate.run(Lane::Call, "second", never()),
            gate.run(Lane::Call, "third", never()),
            gate.run(Lane::Heartbeat, "heartbeat", async { Ok::<_, RegistryError>(()) }),
        );
        assert!(matches!(running, Err(RegistryError::Deadline { operation: "first", .. })), "{running:?}");
        assert!(matches!(waiting, Err(RegistryError::Deadline { operation: "second", .. })), "{waiting:?}");
        assert!(matches!(refused, Err(RegistryError::Overloaded { operation: "third" })), "{refused:?}");
        assert!(heartbeat.is_ok(), "a heartbeat does not wait behind calls");
        assert!(begun_at.elapsed() < Duration::from_secs(2));
        let stats = gate.stats(0);
        assert_eq!((stats.calls, stats.failed, stats.deadlines, stats.overloaded, stats.in_flight), (4, 3, 2, 1, 0));
    }

    #[tokio::test]
    async fn a_dropped_call_gives_its_place_back() {
        let gate = gate(1, 0);
        let dropped = Arc::clone(&gate);
        let call = tokio::spawn(async move { dropped.run(Lane::Call, "dropped", never()).await });
        while gate.stats(0).in_flight == 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        let _ = call.await;
        assert!(gate.run(Lane::Call, "next", async { Ok::<_, RegistryError>(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn a_closed_gate_says_so() {
        let gate = gate(4, 0);
        gate.close().await;
        gate.close().await;
        let late = gate.run(Lane::Call, "late", async { Ok::<_, RegistryError>(()) }).await;
        assert!(matches!(late, Err(RegistryError::Closed)), "{late:?}");
    }
}
