//! What happened and is not in the outbox yet.
//!
//! Owns the queue: bounded; when it is full a status makes room, or else the oldest, and that is counted. Noting
//! something never waits.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ams_access::webhook::Action;
use ams_types::{Epoch, StreamKey};
use tokio::sync::Notify;

use super::Happening;

/// Events one node keeps while the registry is away.
pub(super) const KEPT_MAX: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: Mutex<Queue>,
    more: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Happening)>,
}

impl Backlog {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, happening: Happening) {
        let mut queue = self.queue();
        if queue.waiting.len() >= KEPT_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            let is_status = |h: &Happening| h.action == Action::LiveStreamStatus;
            if is_status(&happening) {
                return;
            }
            let at = queue.waiting.iter().position(|(_, h)| is_status(h)).unwrap_or(0);
            queue.waiting.remove(at);
        }
        let no = queue.next;
        queue.next += 1;
        queue.waiting.push_back((no, happening));
        drop(queue);
        self.more.notify_one();
    }

    /// Waits until there is something.
    pub(super) async fn filled(&self) {
        while self.len() == 0 {
            self.more.notified().await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue().waiting.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The oldest of up to `max` streams, with their numbers. They stay until [`Self::done`].
    pub(super) fn oldest(&self, max: usize) -> Vec<(u64, Happening)> {
        let queue = self.queue();
        let mut seen: HashSet<&StreamKey> = HashSet::new();
        let first_of_stream = queue.waiting.iter().filter(|(_, happening)| seen.insert(&happening.key));
        first_of_stream.take(max).cloned().collect()
    }

    /// These are written.
    pub(super) fn done(&self, written: &[u64]) {
        self.queue().waiting.retain(|(no, _)| !written.contains(no));
    }

    /// The publication that went on with a stream before its end was to be told, if that is noted here, too.
    pub(super) fn goes_on(&self, end: &Happening) -> Option<Epoch> {
        let queue = self.queue();
        let start = queue.waiting.iter().map(|(_, h)| h).find(|h| {
            h.key == end.key
                && h.action == Action::LiveStreamStarted
                && h.epoch > end.epoch
                && h.at_ms < end.not_before_ms
        });
        start.map(|start| start.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(stream: &str, epoch: u64, action: Action) -> Happening {
        let key = StreamKey::new("live".parse().unwrap(), stream.parse().unwrap());
        Happening::at(0, &key, Epoch(epoch), action)
    }

    #[test]
    fn each_streams_order_is_kept_and_others_do_not_wait() {
        let backlog = Backlog::default();
        for (stream, epoch) in [("a", 1), ("a", 2), ("b", 3)] {
            backlog.push(happening(stream, epoch, Action::LiveStreamStarted));
        }
        let epochs = |backlog: &Backlog| backlog.oldest(8).iter().map(|(_, h)| h.epoch.0).collect::<Vec<_>>();
        assert_eq!(epochs(&backlog), [1, 3]);
        let first = backlog.oldest(1);
        backlog.done(&[first[0].0]);
        assert_eq!(epochs(&backlog), [2, 3]);
    }

    #[test]
    fn a_full_queue_drops_statuses_first_and_counts() {
        let backlog = Backlog::default();
        for epoch in 0..KEPT_MAX as u64 - 1 {
            backlog.push(happening("a", epoch, Action::LiveStreamStarted));
        }
        backlog.push(happening("a", 7, Action::LiveStreamStatus));
        backlog.push(happening("a", 8, Action::LiveStreamStatus));
        backlog.push(happening("b", 9, Action::LiveStreamEnded));
        assert_eq!((backlog.len(), backlog.dropped()), (KEPT_MAX, 2));
        assert_eq!(backlog.oldest(1)[0].1.epoch, Epoch(0), "no start was lost for a status");
        backlog.push(happening("b", 10, Action::LiveStreamEnded));
        assert_eq!((backlog.dropped(), backlog.oldest(1)[0].1.epoch), (3, Epoch(1)));
    }

    #[test]
    fn an_end_that_somebody_went_on_from_is_known_here() {
        let backlog = Backlog::default();
        let mut end = happening("a", 1, Action::LiveStreamEnded);
        end.not_before_ms += 10_000;
        assert_eq!(backlog.goes_on(&end), None);
        backlog.push(happening("a", 2, Action::LiveStreamStarted));
        assert_eq!(backlog.goes_on(&end), Some(Epoch(2)));
        end.not_before_ms -= 20_000;
        assert_eq!(backlog.goes_on(&end), None, "it came too late");
    }
}
