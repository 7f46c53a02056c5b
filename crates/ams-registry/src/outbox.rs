//! Taking webhook events out of the outbox, and keeping it in bounds.
//!
//! Owns what a taker and a keeper say. The documents are [`crate::record::outbox`]'s.

use std::collections::HashMap;

use ams_types::NodeId;

use crate::record::outbox::OutboxRecord;

/// Most events one [`crate::Registry::take_events`] gives.
pub const TAKE_MAX: usize = 64;
/// Most events one sweep drops of those beyond the bound; the next one drops more.
pub(crate) const DROP_MAX: usize = 1000;

/// Who takes what.
#[derive(Clone, Debug)]
pub struct TakeEvents {
    /// The node that will send them.
    pub node: NodeId,
    /// The caller's clock, ms since 1970.
    pub now_ms: i64,
    /// Until when they are that node's alone.
    pub until_ms: i64,
    /// Targets that are not to be bothered now.
    pub not_to: Vec<String>,
    /// Most events for one target.
    pub per_target: usize,
    /// Most events; at most [`TAKE_MAX`].
    pub max: usize,
}

/// Which events are given up or dropped.
#[derive(Clone, Copy, Debug)]
pub struct OutboxRules {
    /// The caller's clock, ms since 1970.
    pub now_ms: i64,
    /// What happened before this is given up,
    pub given_up_before_ms: i64,
    /// if it was tried so many times.
    pub attempts_min: i32,
    /// Most events that wait; of more, the oldest are dropped.
    pub waiting_max: usize,
}

/// How an application's outbox stands after a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxReport {
    /// Events that wait.
    pub waiting: u64,
    /// Events given up within the last day.
    pub dead: u64,
    /// Given up by this sweep.
    pub given_up: u64,
    /// Dropped by this sweep.
    pub dropped: u64,
}

/// Counts events per target while they are taken.
#[derive(Debug, Default)]
pub(crate) struct Shares(HashMap<String, usize>);

impl Shares {
    /// Whether one more may be taken for its target; counts it then.
    pub(crate) fn take(&mut self, event: &OutboxRecord, per_target: usize) -> bool {
        let taken = self.0.entry(event.target.clone()).or_default();
        let fits = *taken < per_target;
        *taken += usize::from(fits);
        fits
    }
}
