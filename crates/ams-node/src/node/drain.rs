//! Leaving: nobody new, clients told to go elsewhere in groups, the end when they are gone.
//!
//! Owns the order and the times of it. What is still there at the end is ended by [`super::run`]. A drain that was asked for
//! can be taken back; the end cannot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ams_api::Api;
use ams_api::port::{Door, EndReason, SessionId};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::NodeCore;
use super::run::Orders;

/// How often it is looked whether all are gone.
const LOOK: Duration = Duration::from_millis(100);

impl NodeCore {
    /// Runs until the node is told to end or to drain, and then until its clients are gone or have had their time.
    pub(super) async fn until_empty(self: &Arc<Self>, api: &Api, orders: &mut Orders) {
        loop {
            tokio::select! {
                () = orders.cancel.cancelled() => {}
                () = wish(&mut orders.drain, true) => {}
            }
            if self.drain(api, orders).await {
                return;
            }
            info!("the drain is cancelled; this node stays");
            self.draining.store(false, Ordering::Relaxed);
            api.withdraw_stop();
        }
    }

    /// Sends everybody away. False if it was taken back.
    async fn drain(self: &Arc<Self>, api: &Api, orders: &mut Orders) -> bool {
        let times = self.config.drain.clone();
        let begun = Instant::now();
        self.draining.store(true, Ordering::Relaxed);
        if times.timeout == Duration::ZERO {
            return true;
        }
        info!(sessions = self.sessions(), timeout = ?times.timeout, "draining: takes nobody new");
        // Those who come now are refused, so that a balancer that has not noticed yet tries another node.
        api.announce_stop(times.notice, times.spread);
        tokio::select! {
            () = tokio::time::sleep_until(begun + times.notice) => {}
            () = wish(&mut orders.drain, false), if !orders.cancel.is_cancelled() => return false,
        }
        info!(sessions = self.sessions(), spread = ?times.spread, "clients are told to go elsewhere");
        self.close_http_sessions(times.spread);
        if !self.wait_for_empty(api, begun + times.timeout, orders).await {
            return false;
        }
        info!(left = self.sessions(), took = ?begun.elapsed(), "drained");
        true
    }

    fn sessions(&self) -> usize {
        self.directory().sessions.len()
    }

    /// Waits until no session and no socket is left, or the moment has come. False if the drain was taken back.
    async fn wait_for_empty(&self, api: &Api, until: Instant, orders: &mut Orders) -> bool {
        // Once it is to end, it ends.
        while self.sessions() + api.client_count() > 0 && Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = wish(&mut orders.drain, false), if !orders.cancel.is_cancelled() => return false,
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
