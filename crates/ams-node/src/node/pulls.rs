//! Streams that are elsewhere: found, pulled once however many want them, let go when nobody does.
//!
//! Owns the life of a pull. It is let go shortly after its last viewer has left; what becomes of it when it breaks is
//! [`super::interruptions`]' affair. Negative answers are never remembered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ams_api::port::{EndReason, Refusal};
use ams_media::StreamTracks;
use ams_registry::{OriginAddress, RegistryError, StreamLocation};
use ams_relay::wire;
use ams_types::{Epoch, StreamKey};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::NodeCore;
use super::directory::{Directory, LocalStream, Origin, PullState};
use crate::clock;
use crate::shard::protocol::{LinkId, PullEnd, ShardCommand, ShardNo};

/// Longest a viewer waits for its stream to be found and pulled. The SDK asks again after 3 s.
const ATTACH_TIMEOUT: Duration = Duration::from_millis(2000);
/// Longest a viewer waits for the registry: it leaves time to say that it was the registry.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1000);

/// Why a pull fails of a stream that nobody publishes.
const NO_NODE: &str = "no node has it";

/// A stream as a viewer needs it.
pub(super) struct Attached {
    pub(super) epoch: Epoch,
    pub(super) tracks: Arc<StreamTracks>,
    pub(super) home: ShardNo,
}

impl Attached {
    pub(super) fn of(stream: &LocalStream) -> Self {
        Self { epoch: stream.epoch, tracks: Arc::clone(&stream.tracks), home: stream.home }
    }
}

impl NodeCore {
    /// Finds a stream here or elsewhere; pulls it if it is elsewhere.
    pub(super) async fn attach(self: &Arc<Self>, key: &StreamKey) -> Result<Attached, Refusal> {
        if self.is_draining() {
            return Err(self.stopping());
        }
        if !self.config.mode.takes_viewers(self.config.serve_viewers_on_origin) {
            return Err(Refusal::OriginTakesNoViewers);
        }
        let deadline = tokio::time::Instant::now() + ATTACH_TIMEOUT;
        let mut watch = {
            let mut directory = self.directory();
            match directory.streams.get(key) {
                Some(stream) if stream.is_playable() => return Ok(Attached::of(stream)),
                Some(LocalStream { origin: Origin::Pulled { state, .. }, .. }) => state.subscribe(),
                Some(_) => return Err(Refusal::NotLive(key.id.clone())),
                None if self.config.mode.pulls() => self.begin_pull(&mut directory, key),
                None => return Err(Refusal::NotLive(key.id.clone())),
            }
        };
        let state = tokio::time::timeout_at(deadline, watch.wait_for(|s| *s != PullState::Asking)).await;
        match state {
            Ok(Ok(state)) if *state == PullState::Here => {}
            Ok(Ok(state)) => {
                debug!(stream_id = %key, state = ?*state, "stream cannot be had");
                let known = self.is_registry_ok() || *state == PullState::Failed(NO_NODE.to_owned());
                return Err(if known { Refusal::NotLive(key.id.clone()) } else { Refusal::RegistryUnavailable });
            }
            Ok(Err(_)) => return Err(Refusal::NotLive(key.id.clone())),
            Err(_) => {
                warn!(stream_id = %key, "the origin did not answer in time");
                return Err(Refusal::NotLive(key.id.clone()));
            }
        }
        let directory = self.directory();
        let stream = directory.streams.get(key).filter(|s| s.is_playable());
        stream.map(Attached::of).ok_or_else(|| Refusal::NotLive(key.id.clone()))
    }

    fn begin_pull(self: &Arc<Self>, directory: &mut Directory, key: &StreamKey) -> watch::Receiver<PullState> {
        let (state, watch) = watch::channel(PullState::Asking);
        let attempt = self.next_attempt();
        directory.streams.insert(key.clone(), LocalStream::pulled(state, attempt));
        let (node, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            let pulled = match node.locate(&key).await {
                Ok(origin) => node.pull(&key, attempt, &origin).await,
                Err(sentence) => Err(sentence),
            };
            if let Err(sentence) = pulled {
                node.pull_failed(&key, attempt, sentence).await;
            }
        });
        watch
    }

    /// Tells one pull of a stream from a later one.
    pub(super) fn next_attempt(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Where a live stream is to be pulled from: the registry says it, or while that is away the nodes do. An error is a
    /// sentence.
    async fn locate(self: &Arc<Self>, key: &StreamKey) -> Result<OriginAddress, String> {
        let mut why = "the registry does not answer".to_owned();
        if self.is_registry_ok() {
            match self.lookup(key).await {
                Ok(location) => match location.filter(StreamLocation::is_live).and_then(|l| l.origin) {
                    Some(origin) => return Ok(origin),
                    None if !self.may_doubt(clock::now()) => return Err(NO_NODE.to_owned()),
                    None => {}
                },
                Err(sentence) => why = sentence,
            }
        }
        if !self.is_registry_ok() && !self.may_ask(clock::now()) {
            return Err(why);
        }
        let around = self.ask_around(std::slice::from_ref(key)).await;
        match around.holders.into_iter().find(|(_, (_, found))| found.live) {
            Some((_, (origin, _))) => Ok(origin),
            None if around.answered > 0 => Err(NO_NODE.to_owned()),
            None => Err(why),
        }
    }

    pub(super) async fn lookup(&self, key: &StreamKey) -> Result<Option<StreamLocation>, String> {
        let late = RegistryError::Deadline { operation: "a lookup", after: LOOKUP_TIMEOUT };
        let asked = tokio::time::timeout(LOOKUP_TIMEOUT, self.registry.lookup(key, self.wall.ms())).await;
        let result = asked.unwrap_or(Err(late));
        self.note_registry(&result);
        result.map_err(|e| format!("registry: {e}"))
    }

    /// Subscribes to a stream at its origin. The answer comes as a shard event.
    pub(super) async fn pull(
        self: &Arc<Self>,
        key: &StreamKey,
        attempt: u64,
        origin: &OriginAddress,
    ) -> Result<(), String> {
        let port = origin.port.ok_or_else(|| format!("its record names no relay port at {}", origin.host))?;
        if origin.host == self.config.advertise && port == self.relay_port {
            return Err("its record names this node, which does not have it".to_owned());
        }
        let (link, shard) = self.link_to(&origin.host, port).await?;
        let order = self.in_order().await;
        let left = {
            let mut directory = self.directory();
            let Some(stream) = directory.streams.get_mut(key) else { return Ok(()) };
            match &mut stream.origin {
                Origin::Pulled { link: place, attempt: current, .. } if *current == attempt => *place = Some(link),
                _ => return Ok(()),
            }
            directory.rehome(key, shard)
        };
        self.command(shard, ShardCommand::Pull { link, key: key.clone() }).await;
        if let Some(left) = left {
            let reason = wire::EndReason::Moved;
            self.command(left, ShardCommand::CloseStream { key: key.clone(), reason }).await;
        }
        drop(order);
        // The origin answers at once or not at all.
        tokio::time::sleep(ATTACH_TIMEOUT).await;
        let asking = self.directory().streams.get(key).is_some_and(|s| {
            matches!(&s.origin, Origin::Pulled { attempt: a, state, .. } if *a == attempt && *state.borrow() == PullState::Asking)
        });
        if asking { Err(format!("{}:{port} did not answer the subscription", origin.host)) } else { Ok(()) }
    }

    pub(super) async fn pull_failed(&self, key: &StreamKey, attempt: u64, sentence: String) {
        let order = self.in_order().await;
        {
            let directory = self.directory();
            let Some(stream) = directory.streams.get(key) else { return };
            let Origin::Pulled { state, attempt: current, .. } = &stream.origin else { return };
            // It may have come while the order was waited for.
            if *current != attempt || *state.borrow() != PullState::Asking {
                return;
            }
            debug!(stream_id = %key, reason = sentence, "pull failed");
            state.send_replace(PullState::Failed(sentence));
        }
        self.lose(key, false, wire::EndReason::Moved, &order).await;
    }

    /// An origin answered a subscription.
    pub(super) async fn pulled(&self, key: StreamKey, link: LinkId, epoch: Epoch, tracks: Arc<StreamTracks>) {
        let _order = self.in_order().await;
        let pulled = {
            let mut directory = self.directory();
            let stream = directory.streams.get_mut(&key);
            let known = stream.is_some();
            let pulled = stream.filter(|stream| stream.is_pulled_on(link)).map(|stream| {
                stream.epoch = epoch;
                stream.tracks = tracks;
                stream.told_viewers = 0;
                // Whoever waits for it needs a moment to come.
                stream.idle_since = stream.viewers.is_empty().then(clock::now);
                let kept = stream.interruption.take().is_some();
                if let Origin::Pulled { state, .. } = &stream.origin {
                    state.send_replace(PullState::Here);
                }
                (Attached::of(stream), stream.replicas.clone(), kept.then_some(stream.viewers.len()))
            });
            // One that is known comes from elsewhere meanwhile, and takes what came on this link over.
            pulled.ok_or(known)
        };
        match pulled {
            Ok((stream, replicas, kept)) => {
                for replica in replicas {
                    self.add_replica(&key, replica, &stream).await;
                }
                match kept {
                    Some(viewers) => info!(stream_id = %key, %epoch, viewers, "stream is back; its viewers go on"),
                    None => info!(stream_id = %key, %epoch, "stream is pulled"),
                }
            }
            Err(true) => self.put_right(&key, link).await,
            Err(false) => {
                if let Some(shard) = self.link_shard(link) {
                    self.command(shard, ShardCommand::CloseStream { key, reason: wire::EndReason::Moved }).await;
                }
            }
        }
    }

    /// A late answer brought a stream to a shard that has it from elsewhere by now, or should not have it at all.
    async fn put_right(&self, key: &StreamKey, link: LinkId) {
        let Some(shard) = self.link_shard(link) else { return };
        let stream = {
            let directory = self.directory();
            let Some(stream) = directory.streams.get(key) else { return };
            if stream.home == shard {
                return;
            }
            stream.replicas.contains(&shard).then(|| Attached::of(stream))
        };
        match stream {
            Some(stream) => self.add_replica(key, shard, &stream).await,
            None => {
                let reason = wire::EndReason::Moved;
                self.command(shard, ShardCommand::CloseStream { key: key.clone(), reason }).await;
            }
        }
    }

    /// A pulled stream ended at its origin, or its link broke.
    pub(super) async fn pull_ended(&self, key: &StreamKey, link: LinkId, end: PullEnd, sentence: &str) {
        let order = self.in_order().await;
        {
            let directory = self.directory();
            let Some(stream) = directory.streams.get(key).filter(|s| s.is_pulled_on(link)) else { return };
            if let Origin::Pulled { state, .. } = &stream.origin {
                state.send_replace(PullState::Failed(sentence.to_owned()));
            }
        }
        info!(stream_id = %key, reason = sentence, "pulled stream ended");
        match end {
            PullEnd::Stream => self.end_stream(key, &EndReason::StreamEnded, wire::EndReason::Finished, &order).await,
            PullEnd::Publication => self.lose(key, true, wire::EndReason::PublisherLost, &order).await,
            PullEnd::Way => self.lose(key, false, wire::EndReason::Moved, &order).await,
        }
    }

    /// Lets go of pulled streams that nobody has watched for a while.
    pub(super) async fn drop_idle_pulls(&self) {
        let linger = self.config.relay_link.linger;
        let now = clock::now();
        let _order = self.in_order().await;
        let idle: Vec<(StreamKey, LocalStream)> = {
            let mut directory = self.directory();
            let keys: Vec<StreamKey> = directory
                .streams
                .iter()
                .filter(
                    |(_, s)| matches!(&s.origin, Origin::Pulled { state, .. } if *state.borrow() == PullState::Here),
                )
                .filter(|(_, s)| s.idle_since.is_some_and(|at| now.saturating_duration_since(at) >= linger))
                .map(|(key, _)| key.clone())
                .collect();
            keys.into_iter().filter_map(|k| Some((k.clone(), directory.streams.remove(&k)?))).collect()
        };
        for (key, stream) in idle {
            info!(stream_id = %key, "nobody watches; pull released");
            self.close_on_shards(&key, &stream, wire::EndReason::Finished).await;
        }
    }

    // --- on shards ---------------------------------------------------------------------------------------------------

    /// Makes a shard hold a stream whose home is another. In order.
    pub(super) async fn add_replica(&self, key: &StreamKey, to: ShardNo, stream: &Attached) {
        let (key_there, tracks) = (key.clone(), Arc::clone(&stream.tracks));
        let add = ShardCommand::AddReplica { key: key_there, home: stream.home, epoch: stream.epoch, tracks };
        self.command(to, add).await;
        self.command(stream.home, ShardCommand::FeedReplica { key: key.clone(), to }).await;
    }

    /// Makes sure that a shard holds the stream, as its home or as a replica. In order.
    pub(super) async fn ensure_on_shard(&self, key: &StreamKey, shard: ShardNo) -> bool {
        let stream = {
            let mut directory = self.directory();
            let Some(local) = directory.streams.get_mut(key).filter(|s| s.is_playable()) else { return false };
            if shard == local.home || !local.replicas.insert(shard) {
                return true;
            }
            Attached::of(local)
        };
        self.add_replica(key, shard, &stream).await;
        true
    }

    /// Takes a stream off every shard that has it. In order.
    pub(super) async fn close_on_shards(&self, key: &StreamKey, stream: &LocalStream, reason: wire::EndReason) {
        for shard in stream.replicas.iter().chain([&stream.home]) {
            self.command(*shard, ShardCommand::CloseStream { key: key.clone(), reason }).await;
        }
    }
}
