//! Streams that lost their source: viewers are kept for a while, and whoever brings the stream next takes them over.
//!
//! Owns what happens between the loss and the return. A viewer notices a still picture and nothing else: its connection,
//! its numbers and its time go on. Never keeps viewers of a stream that was ended on purpose.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_api::port::EndReason;
use ams_registry::OriginAddress;
use ams_relay::{Redial, wire};
use ams_types::{AppName, Epoch, StreamId, StreamKey};
use futures_util::StreamExt;
use tokio::sync::{MutexGuard, watch};
use tracing::info;

use super::NodeCore;
use super::directory::{Interruption, Origin, PullState, Scattered};
use crate::clock;
use crate::shard::protocol::ShardCommand;

/// How often another source is looked for. Half of it, on average, is what a viewer waits longer than it must.
const SEEK_INTERVAL: Duration = Duration::from_millis(100);
/// Streams looked up side by side.
const LOOKUPS_AT_ONCE: usize = 16;

impl NodeCore {
    /// A stream lost its source: its viewers are kept, if there are any and it may come back; if not, it ends. `reason` is
    /// what edges are told. `is_epoch_over`: the same publication will not come back.
    pub(super) async fn lose(
        &self,
        key: &StreamKey,
        is_epoch_over: bool,
        reason: wire::EndReason,
        order: &MutexGuard<'_, ()>,
    ) {
        let now = clock::now();
        let interruption = self.interruption(now, is_epoch_over);
        let kept = {
            let mut directory = self.directory();
            let is_new = directory.streams.get(key).is_some_and(|s| s.interruption.is_none());
            let kept = directory.interrupt(key, now, interruption);
            if kept.is_some() && is_new {
                let viewers = directory.streams.get(key).map_or(0, |s| s.viewers.len());
                info!(stream_id = %key, viewers, window = ?self.config.media.resume_window, "stream is interrupted; its viewers are kept");
            }
            kept
        };
        let Some(Scattered { waiting, idle }) = kept else {
            return self.end_stream(key, &EndReason::StreamEnded, reason, order).await;
        };
        for shard in waiting {
            self.command(shard, ShardCommand::Interrupt { key: key.clone(), reason }).await;
        }
        for shard in idle {
            self.command(shard, ShardCommand::CloseStream { key: key.clone(), reason }).await;
        }
    }

    /// An interruption that begins now.
    pub(super) fn interruption(&self, now: Instant, is_epoch_over: bool) -> Interruption {
        Interruption {
            until: now + self.config.media.resume_window,
            is_epoch_over,
            asked: None,
            again_at: now,
            redial: Redial::new(self.config.relay_link.redial_min, self.config.relay_link.redial_max),
        }
    }

    /// Ends a stream and its viewers. `told` is what they hear, `reason` what edges are told.
    pub(super) async fn end_stream(
        &self,
        key: &StreamKey,
        told: &EndReason,
        reason: wire::EndReason,
        _order: &MutexGuard<'_, ()>,
    ) {
        let stream = self.directory().remove_stream(clock::now(), key, told);
        if let Some(stream) = stream {
            self.close_on_shards(key, &stream, reason).await;
        }
    }

    /// Looks for other sources of lost streams, and lets their viewers go when they have waited long enough.
    pub(super) async fn interruptions_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SEEK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            let lost = self.give_up_old_ones().await;
            if self.config.mode.is_clustered() && !lost.is_empty() {
                self.seek(lost).await;
            }
        }
    }

    /// Ends what nobody waits for any more. Returns the others.
    async fn give_up_old_ones(&self) -> Vec<StreamKey> {
        let now = clock::now();
        let (over, lost): (Vec<_>, Vec<_>) = {
            let mut directory = self.directory();
            directory.lost.retain(|_, at| now.saturating_duration_since(*at) < self.config.media.resume_window);
            let lost = directory.streams.iter().filter(|(_, stream)| matches!(stream.origin, Origin::Lost));
            let is_over = |stream: &super::directory::LocalStream| {
                stream.viewers.is_empty() || stream.interruption.as_ref().is_none_or(|i| i.until <= now)
            };
            lost.map(|(key, stream)| (key.clone(), is_over(stream))).partition(|(_, is_over)| *is_over)
        };
        for (key, _) in over {
            let order = self.in_order().await;
            let still = self.directory().streams.get(&key).is_some_and(|s| matches!(s.origin, Origin::Lost));
            if still {
                info!(stream_id = %key, "nobody brought the stream back in time");
                self.end_stream(&key, &EndReason::StreamEnded, wire::EndReason::PublisherLost, &order).await;
            }
        }
        lost.into_iter().map(|(key, _)| key).collect()
    }

    /// Asks the registry, or while it is away the nodes, whether lost streams are live somewhere.
    async fn seek(self: &Arc<Self>, lost: Vec<StreamKey>) {
        let mut by_app: HashMap<AppName, Vec<StreamId>> = HashMap::new();
        for key in lost {
            by_app.entry(key.app).or_default().push(key.id);
        }
        for (app, ids) in by_app {
            let live = self.live(&app, ids).await;
            for (key, origin, epoch) in live.said {
                self.take_up(key, origin, epoch);
            }
            let lookups = futures_util::stream::iter(live.recorded).for_each_concurrent(LOOKUPS_AT_ONCE, |key| async {
                if let Ok(Some(location)) = self.lookup(&key).await
                    && location.is_live()
                    && let Some(origin) = location.origin
                {
                    self.take_up(key, origin, location.epoch);
                }
            });
            lookups.await;
        }
    }

    /// Pulls a lost stream from where it is said to be now, unless that was tried in vain a moment ago.
    fn take_up(self: &Arc<Self>, key: StreamKey, origin: OriginAddress, epoch: Epoch) {
        let now = clock::now();
        let attempt = self.next_attempt();
        {
            let mut directory = self.directory();
            let Some(stream) = directory.streams.get_mut(&key) else { return };
            let (Origin::Lost, Some(waits)) = (&stream.origin, &mut stream.interruption) else { return };
            if waits.is_epoch_over && epoch == stream.epoch {
                return;
            }
            let asked = Some((origin.clone(), epoch));
            if waits.asked == asked {
                if now < waits.again_at {
                    return;
                }
            } else {
                waits.redial.reset();
                waits.asked = asked;
            }
            waits.again_at = now + waits.redial.wait(rand::random());
            let (state, _) = watch::channel(PullState::Asking);
            stream.origin = Origin::Pulled { link: None, state, attempt };
        }
        let node = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(sentence) = node.pull(&key, attempt, &origin).await {
                node.pull_failed(&key, attempt, sentence).await;
            }
        });
    }
}
