//! Leaving: nobody new, clients told to go elsewhere in groups, the end when they are gone.
//!
//! Owns the order and the times of it. What is still there at the end is ended by [`super::run`]. A drain that was asked for
//! can be taken back; the end cannot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ams_api::Api;
use ams_api::port::{Door, DrainState, EndReason, SessionId};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::NodeCore;

/// How often it is looked whether all are gone.
const LOOK: Duration = Duration::from_millis(100);

impl NodeCore {
    /// Runs until the node is told to end or to drain, and then until its clients are gone or have had their time.
    pub(super) async fn until_empty(self: &Arc<Self>, api: &Api) {
        let mut wishes = self.orders.drain.subscribe();
        loop {
            tokio::select! {
                () = self.orders.cancel.cancelled() => {}
                () = wish(&mut wishes, true) => {}
            }
            if self.drain(api, &mut wishes).await {
                // Whoever takes it back from here on is told that it is too late; who did before is heard.
                self.leaving.store(true, Ordering::SeqCst);
                if self.orders.cancel.is_cancelled() || *wishes.borrow() {
                    return;
                }
                self.leaving.store(false, Ordering::SeqCst);
            }
            info!("the drain is cancelled; this node stays");
            self.draining.store(false, Ordering::Relaxed);
            self.row_changed.notify_one();
            api.withdraw_stop();
            self.tell_edges(None).await;
        }
    }

    /// Begins a drain or takes it back. False if it is too late for that.
    pub(super) fn order_drain(&self, wanted: bool) -> bool {
        self.orders.drain.send_replace(wanted);
        wanted || !self.is_ending()
    }

    /// Whether this node was told to end, or does.
    fn is_ending(&self) -> bool {
        self.leaving.load(Ordering::SeqCst) || self.orders.cancel.is_cancelled()
    }

    /// The time until this node ends; none if it does not drain.
    pub(super) fn drain_left(&self) -> Option<Duration> {
        let since = self.is_draining().then(|| self.drains_since.load(Ordering::Relaxed))?;
        let past = u64::try_from(self.wall.ms().saturating_sub(since)).unwrap_or(0);
        Some(self.config.drain.timeout.saturating_sub(Duration::from_millis(past)))
    }

    /// How far the drain is.
    pub(super) fn drain_state(&self) -> DrainState {
        let since_ms = self.is_draining().then(|| self.drains_since.load(Ordering::Relaxed));
        let timeout = i64::try_from(self.config.drain.timeout.as_millis()).unwrap_or(i64::MAX);
        DrainState {
            since_ms,
            deadline_ms: since_ms.map(|since| since.saturating_add(timeout)),
            is_ending: self.is_ending(),
            sessions: self.sessions(),
        }
    }

    /// Sends everybody away. False if it was taken back.
    async fn drain(self: &Arc<Self>, api: &Api, wishes: &mut watch::Receiver<bool>) -> bool {
        let times = self.config.drain.clone();
        let begun = Instant::now();
        self.drains_since.store(self.wall.ms(), Ordering::Relaxed);
        self.draining.store(true, Ordering::Relaxed);
        self.row_changed.notify_one();
        if times.timeout == Duration::ZERO {
            return true;
        }
        info!(sessions = self.sessions(), timeout = ?times.timeout, "draining: takes nobody new");
        // Those who come now are refused, so that a balancer that has not noticed yet tries another node.
        api.announce_stop(times.notice, times.spread);
        self.tell_edges(Some(times.timeout)).await;
        tokio::select! {
            () = tokio::time::sleep_until(begun + times.notice) => {}
            () = self.taken_back(wishes) => return false,
        }
        info!(sessions = self.sessions(), spread = ?times.spread, "clients are told to go elsewhere");
        self.close_http_sessions(times.spread);
        if !self.wait_for_empty(api, begun + times.timeout, wishes).await {
            return false;
        }
        info!(left = self.sessions(), took = ?begun.elapsed(), "drained");
        true
    }

    fn sessions(&self) -> usize {
        self.directory().sessions.len()
    }

    /// Waits until the drain is taken back. Once the node is to end, it ends: then never.
    async fn taken_back(&self, wishes: &mut watch::Receiver<bool>) {
        tokio::select! {
            biased;
            () = self.orders.cancel.cancelled() => std::future::pending().await,
            () = wish(wishes, false) => {}
        }
    }

    /// Waits until no session and no socket is left, or the moment has come. False if the drain was taken back.
    async fn wait_for_empty(&self, api: &Api, until: Instant, wishes: &mut watch::Receiver<bool>) -> bool {
        while self.sessions() + api.client_count() > 0 && Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.taken_back(wishes) => return false,
            }
        }
        true
    }

    /// WHIP and WHEP have no word for it: their transports are closed, one after the other.
    fn close_http_sessions(self: &Arc<Self>, spread: Duration) {
        let mut sessions: Vec<SessionId> = {
            let directory = self.directory();
            directory.sessions.iter().filter(|(_, s)| s.door == Door::Http).map(|(id, _)| id.clone()).collect()
        };
        let pause = spread / u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        let node = Arc::clone(self);
        self.tasks.spawn(async move {
            while let Some(session) = sessions.pop() {
                if !node.is_draining() {
                    return;
                }
                node.end_session(&session, EndReason::NodeStopping).await;
                tokio::time::sleep(pause).await;
            }
        });
    }
}

/// Waits until the wish to drain is this one; for ever if nobody can have one.
async fn wish(drain: &mut watch::Receiver<bool>, wanted: bool) {
    if drain.wait_for(|wish| *wish == wanted).await.is_err() {
        std::future::pending().await
    }
}
