//! What the node keeps telling and asking the registry: that it is alive, that its streams are, and for whom it waits.
//!
//! Owns these loops. None of them ever holds up a request, and a registry that is away only makes them try again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ams_api::port::SessionId;
use ams_registry::{
    ClaimError, ClusterNodeRecord, Ended, Lease, LeftoverRequest, ReleaseReason, Status, StreamQuality,
};
use ams_types::{AppName, MediaKind, StreamId};
use futures_util::StreamExt;
use tracing::{info, warn};

use super::NodeCore;
use super::directory::{Directory, Origin, PullState, Role};
use super::suspicion::RENEWED_WITHIN;
use crate::clock;
use crate::shard::protocol::ShardCommand;
use crate::system;

/// AMS's NODE_UPDATE_PERIOD.
const NODE_HEARTBEAT: Duration = Duration::from_secs(5);
/// A stream's record is stale for AMS after 20 s; this leaves room for three lost writes.
const STREAM_HEARTBEAT: Duration = Duration::from_secs(5);
/// Streams confirmed side by side.
const HEARTBEATS_AT_ONCE: usize = 16;
/// How often the registry is asked for streams somebody waits for.
const WAITING_POLL: Duration = Duration::from_millis(400);
/// How often it is seen whether the number of viewers has changed.
const AUDIENCE_INTERVAL: Duration = Duration::from_millis(500);
/// How often a registry that is away is asked for a sign of life.
const REGISTRY_WATCH: Duration = Duration::from_millis(500);
/// How often publications that nobody confirms are looked for.
const STALE_POLL: Duration = Duration::from_secs(5);
/// How often idle pulls are looked for.
const IDLE_POLL: Duration = Duration::from_millis(500);

impl NodeCore {
    /// Cleans up what an earlier run of this node left in the registry.
    pub(super) async fn clean_leftovers(&self) {
        let request = LeftoverRequest {
            apps: self.config.apps.clone(),
            node: self.id.clone(),
            incarnation: self.incarnation,
            host: self.config.advertise.clone(),
            origin_port: self.relay_port,
            now_ms: self.wall.ms(),
        };
        let result = self.registry.clean_own_leftovers(&request).await;
        self.note_registry(&result);
        // Their publishers may come back to this run, or to another node.
        for ended in result.iter().flat_map(|found| &found.ended) {
            self.note_released(ended, true);
        }
        if let Ok(found) = result
            && found.deleted + found.finished + found.infos_deleted > 0
        {
            info!(deleted = found.deleted, finished = found.finished, "cleaned up streams of an earlier run");
        }
    }

    /// Writes this node's row.
    pub(super) async fn heartbeat_node_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(NODE_HEARTBEAT);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut load = system::LoadMeter::default();
        let mut written_at = clock::now();
        let mut back = self.registry_back.subscribe();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
                Ok(()) = back.changed() => interval.reset(),
                // Others are to know at once that it leaves, or stays.
                () = self.row_changed.notified() => interval.reset(),
            }
            let row = self.node_row(&mut load);
            let result = self.registry.heartbeat_node(&row).await;
            self.note_registry(&result);
            let late = clock::now().saturating_duration_since(written_at).saturating_sub(NODE_HEARTBEAT).as_millis();
            self.heartbeat_lag.store(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            if result.is_ok() {
                written_at = clock::now();
            }
            if let Ok(rows) = self.registry.list_nodes().await {
                self.learn_nodes(&rows);
            }
        }
    }

    fn node_row(&self, load: &mut system::LoadMeter) -> ClusterNodeRecord {
        let (streams, viewers) = self.directory().census();
        let memory = system::memory_mb();
        let cpu = load.percent().unwrap_or(0);
        self.cpu_percent.store(u32::try_from(cpu).unwrap_or(100), Ordering::Relaxed);
        let int = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        ClusterNodeRecord {
            id: self.id.to_string(),
            ip: Some(self.config.advertise.clone()),
            last_update_time: self.wall.ms(),
            memory: memory.map(|(used, total)| format!("{used}/{total}")),
            cpu: Some(cpu.to_string()),
            db_query_average_time_ms: i64::try_from(self.registry.stats().mean_time.as_millis()).unwrap_or(i64::MAX),
            incarnation: Some(self.incarnation.to_string()),
            http_port: self.http_port.into(),
            relay_port: self.relay_port.into(),
            role: Some(self.config.mode.to_string()),
            state: Some(if self.is_draining() { "draining" } else { "ready" }.to_owned()),
            seats_left: i32::try_from(self.seats_left()).unwrap_or(i32::MAX),
            streams: int(streams),
            viewers: int(viewers),
            ..ClusterNodeRecord::default()
        }
    }

    /// Confirms the streams published here.
    pub(super) async fn heartbeat_streams_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(STREAM_HEARTBEAT);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut back = self.registry_back.subscribe();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
                Ok(()) = back.changed() => interval.reset(),
            }
            let published: Vec<_> = {
                let directory = self.directory();
                let quality = |stream: &super::directory::LocalStream| {
                    let int = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
                    let top = stream.layers.iter().filter(|l| l.kind == MediaKind::Video).max_by_key(|l| l.size.1);
                    let sum = |f: fn(&crate::shard::protocol::LayerReport) -> u64| stream.layers.iter().map(f).sum();
                    let (bitrate, bytes): (u64, u64) = (sum(|l| l.bitrate), sum(|l| l.bytes));
                    StreamQuality {
                        width: top.map(|l| int(l.size.0.into())),
                        height: top.map(|l| int(l.size.1.into())),
                        bitrate: i64::try_from(bitrate).ok(),
                        received_bytes: i64::try_from(bytes).ok(),
                        speed: Some(1.0),
                        webrtc_viewers: i32::try_from(stream.audience()).ok(),
                        ..StreamQuality::default()
                    }
                };
                directory
                    .streams
                    .values()
                    .filter_map(|stream| match &stream.origin {
                        Origin::Published { session, live: true, announced } => {
                            Some((session.clone(), *announced, quality(stream)))
                        }
                        _ => None,
                    })
                    .collect()
            };
            // Side by side: with a slow registry the last one's lease would end before its turn.
            let beats = futures_util::stream::iter(published).for_each_concurrent(HEARTBEATS_AT_ONCE, |stream| {
                let (session, announced, quality) = stream;
                let node = &self;
                async move {
                    // The registry was away when it went live.
                    if announced || node.announce(&session).await {
                        node.heartbeat_stream(&session, &quality).await;
                    }
                }
            });
            beats.await;
        }
    }

    async fn heartbeat_stream(self: &Arc<Self>, session: &SessionId, quality: &StreamQuality) {
        let lease = match self.directory().sessions.get(session).map(|s| &s.role) {
            Some(Role::Publisher(publication)) if publication.recorded => publication.lease.clone(),
            _ => return,
        };
        let result = self.registry.heartbeat(&lease, self.wall.ms(), quality).await;
        self.note_registry(&result);
        match result {
            // A record that was lost, by a restore from an older copy say, is made again; one that is another's stays so.
            Err(ClaimError::Lost { .. }) if self.record_claim(session).await => {
                warn!(stream_id = %lease.key, "the stream's record was lost and is made again");
                self.announce(session).await;
            }
            // The copy was made before the stream was live.
            Ok(status) if status != Status::Broadcasting => {
                warn!(stream_id = %lease.key, %status, "the stream's record was set back; it is announced again");
                self.announce(session).await;
            }
            _ => {}
        }
    }

    /// Writes how many watch each stream when that changes, and tells the origins of pulled ones.
    pub(super) async fn audience_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(AUDIENCE_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            let (mut written, mut told) = (Vec::new(), Vec::new());
            {
                let mut directory = self.directory();
                let Directory { streams, sessions, .. } = &mut *directory;
                for (key, stream) in streams {
                    let viewers = stream.audience();
                    if viewers == stream.told_viewers {
                        continue;
                    }
                    match &stream.origin {
                        Origin::Published { session, announced: true, .. } => {
                            if let Some(Role::Publisher(publication)) = sessions.get(session).map(|s| &s.role) {
                                written.push((key.clone(), publication.lease.epoch, viewers));
                            }
                        }
                        Origin::Pulled { link: Some(link), state, .. } if *state.borrow() == PullState::Here => {
                            stream.told_viewers = viewers;
                            told.push((stream.home, *link, key.clone(), viewers));
                        }
                        _ => {}
                    }
                }
            }
            for (shard, link, key, viewers) in told {
                self.command(shard, ShardCommand::TellAudience { link, key, viewers }).await;
            }
            let node = &self;
            let writes =
                futures_util::stream::iter(written).for_each_concurrent(HEARTBEATS_AT_ONCE, |write| async move {
                    let (key, epoch, viewers) = write;
                    let result = node.registry.set_viewer_count(&key, Some(epoch), viewers).await;
                    node.note_registry(&result);
                    if result.is_ok()
                        && let Some(stream) = node.directory().streams.get_mut(&key)
                    {
                        stream.told_viewers = viewers;
                    }
                });
            writes.await;
        }
    }

    /// Sees whether the registry is back, and has everything written then that it missed.
    pub(super) async fn registry_watch_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(REGISTRY_WATCH);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            if !self.is_registry_ok() {
                let result = self.registry.ping().await;
                self.note_registry(&result);
            }
            if self.is_registry_ok() && self.unreleased.len() > 0 {
                self.settle().await;
            }
        }
    }

    /// Ends publications in the registry whose node is gone, or has forgotten them: nobody else may ever do it.
    pub(super) async fn stale_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(STALE_POLL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            if !self.is_registry_ok() || !self.config.mode.takes_publishers() {
                continue;
            }
            for app in &self.config.apps {
                let result = self.registry.find_stale(app, self.wall.ms()).await;
                self.note_registry(&result);
                for (lease, confirmed) in result.unwrap_or_default() {
                    self.end_stale(lease, confirmed).await;
                }
            }
        }
    }

    /// Dates are another clock's, so a record that reads as stale must also have stood still for a while by ours.
    async fn end_stale(&self, lease: Lease, confirmed: i64) {
        let now = clock::now();
        let unchanged = self.watched.unchanged_for(now, &lease.key, (lease.epoch, confirmed));
        let is_ours = matches!(
            self.directory().streams.get(&lease.key).map(|stream| &stream.origin),
            Some(Origin::Published { .. })
        );
        if is_ours || unchanged < RENEWED_WITHIN {
            return;
        }
        let record = self.registry.get_broadcast(&lease.key).await.ok().flatten();
        let result = self.registry.release(&lease, ReleaseReason::TerminatedUnexpectedly, self.wall.ms()).await;
        if result.is_ok() {
            if let Some(ended) = record.as_ref().and_then(|record| Ended::of(&lease.key.app, record)) {
                self.note_released(&ended, false);
            }
            info!(stream_id = %lease.key, host = lease.host, "a publication that nobody confirms is ended");
        }
    }

    /// Looks out for streams somebody here waits for.
    pub(super) async fn waiting_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(WAITING_POLL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            let mut by_app: HashMap<AppName, Vec<StreamId>> = HashMap::new();
            let mut here = Vec::new();
            {
                let directory = self.directory();
                for key in directory.waiting.keys() {
                    match directory.streams.get(key) {
                        Some(stream) if stream.is_playable() => here.push(key.clone()),
                        _ => by_app.entry(key.app.clone()).or_default().push(key.id.clone()),
                    }
                }
            }
            for key in here {
                let _ = self.starts.send(key);
            }
            if !self.config.mode.pulls() {
                continue;
            }
            for (app, ids) in by_app {
                let live = self.live(&app, ids).await;
                let said = live.said.into_iter().map(|(key, _, _)| key);
                for key in live.recorded.into_iter().chain(said) {
                    let _ = self.starts.send(key);
                }
            }
        }
    }

    /// Lets go of pulls nobody watches.
    pub(super) async fn idle_loop(self: Arc<Self>) {
        let mut interval = tokio::time::interval(IDLE_POLL);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = interval.tick() => self.drop_idle_pulls().await,
            }
        }
    }

    /// An origin a misled publisher could go to, if the registry knows one.
    pub(super) async fn an_origin(&self) -> Option<String> {
        let nodes = self.registry.list_nodes().await.ok()?;
        let now = self.wall.ms();
        let origins = nodes.into_iter().filter(|n| n.role.as_deref() != Some("edge") && n.is_fresh(now));
        // Rows are others' too: one that names no address is passed over.
        let is_host = |host: &&str| {
            host.contains(|c: char| c.is_ascii_alphanumeric())
                && host.len() < 256
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(c))
        };
        let address = |node: ClusterNodeRecord| {
            let port = u16::try_from(node.http_port).ok().filter(|port| *port > 0)?;
            Some(format!("http://{}:{port}", node.ip.as_deref().filter(is_host)?))
        };
        origins.filter_map(address).next()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
