//! How often a shard's viewers get their packets late.
//!
//! Owns two counters: the shard's thread writes them, the control runtime reads them to judge whether the shard takes more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From its intake to its last viewer's send, a turn of packets that takes longer is late. Half of what viewers are promised
/// (20 ms): those who come before it shows make it later still.
const LATE: Duration = Duration::from_millis(10);

/// Turns of packets that went to viewers, and how many of them were late.
#[derive(Debug, Default)]
pub struct Punctuality {
    turns: AtomicU64,
    late: AtomicU64,
}

impl Punctuality {
    /// A turn took so long.
    pub(super) fn note(&self, delay: Duration) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.late.fetch_add(u64::from(delay > LATE), Ordering::Relaxed);
    }

    /// All turns so far, and the late ones.
    pub fn counted(&self) -> (u64, u64) {
        (self.turns.load(Ordering::Relaxed), self.late.load(Ordering::Relaxed))
    }
}
