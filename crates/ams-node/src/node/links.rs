//! Relay links: those this node dials to pull, and those edges dial to be served.
//!
//! Owns dialling and accepting, handshakes included; an established link moves to a shard. One link per origin, however
//! many streams and however many ask at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ams_relay::{Connected, RelayError, accept};
use ams_types::StreamKey;
use tokio::sync::{Mutex, Semaphore};
use tracing::{debug, info, warn};

use super::NodeCore;
use crate::clock;
use crate::net::{Listener, Stream};
use crate::shard::protocol::{LinkId, LinkSetup, LinkSide, PullEnd, ShardCommand, ShardNo};

/// Longest wait for an origin's host to take a connection, and again for the node to shake hands; a viewer is waiting.
const DIAL_TIMEOUT: Duration = Duration::from_millis(1000);
/// Relay links open at one time.
const LINKS_MAX: usize = 4096;
/// Connections in their handshake at one time.
const HANDSHAKES_MAX: usize = 128;

/// A link to an origin, once there is one. The lock coalesces those who want it at one time.
type Slot = Arc<Mutex<Dialled>>;

/// What came of the last dial.
#[derive(Default)]
struct Dialled {
    link: Option<(LinkId, ShardNo)>,
    failed: Option<(Instant, String)>,
}

/// Links this node dialled, by origin.
#[derive(Default)]
pub(super) struct OriginLinks {
    slots: Mutex<HashMap<(String, u16), Slot>>,
    next_shard: AtomicUsize,
}

impl NodeCore {
    /// The link to an origin; dials it if there is none. An error is a sentence.
    pub(super) async fn link_to(&self, host: &str, port: u16) -> Result<(LinkId, ShardNo), String> {
        let asked = clock::now();
        let slot = self.slot(host, port).await;
        let mut dialled = slot.lock().await;
        if let Some((id, shard)) = dialled.link
            && self.directory().links.contains_key(&id)
        {
            return Ok((id, shard));
        }
        // Those who waited for one dial share its failure too, or each would wait for one more.
        if let Some((at, sentence)) = &dialled.failed
            && *at >= asked
        {
            return Err(sentence.clone());
        }
        match self.dial_origin(host, port).await {
            Ok(placed) => {
                *dialled = Dialled { link: Some(placed), failed: None };
                Ok(placed)
            }
            Err(sentence) => {
                *dialled = Dialled { link: None, failed: Some((clock::now(), sentence.clone())) };
                Err(sentence)
            }
        }
    }

    /// The place of the link to an origin. Origins come out of the registry: places without a link are not kept.
    async fn slot(&self, host: &str, port: u16) -> Slot {
        let mut slots = self.links.slots.lock().await;
        if let Some(slot) = slots.get(&(host.to_owned(), port)) {
            return Arc::clone(slot);
        }
        let directory = self.directory();
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot.try_lock().is_ok_and(|d| d.link.is_some_and(|(id, _)| directory.links.contains_key(&id)))
        });
        Arc::clone(slots.entry((host.to_owned(), port)).or_default())
    }

    async fn dial_origin(&self, host: &str, port: u16) -> Result<(LinkId, ShardNo), String> {
        let deadline = clock::now() + DIAL_TIMEOUT;
        let dialled = self.net.dial(host, port, &self.relay_identity, deadline, DIAL_TIMEOUT).await;
        let (address, connected) = dialled.map_err(|error| {
            warn!(host, port, %error, "cannot link to origin");
            error.to_string()
        })?;
        info!(%address, node_id = %connected.peer.node_id, "linked to origin");
        self.place_link(LinkSide::Pull, connected).await.map_err(|e| e.to_string())
    }

    /// Gives an established link to a shard.
    async fn place_link(&self, side: LinkSide, connected: Connected<Stream>) -> std::io::Result<(LinkId, ShardNo)> {
        let Connected { stream, peer, leftover } = connected;
        let stream = stream.park()?;
        let link = self.next_link();
        let shard = ShardNo((self.links.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len()) as u16);
        let _order = self.in_order().await;
        self.directory().links.insert(link, shard);
        let setup = LinkSetup { link, side, stream, peer, leftover };
        self.command(shard, ShardCommand::AddLink(Box::new(setup))).await;
        if side == LinkSide::Serve
            && let Some(left) = self.drain_left()
        {
            self.command(shard, ShardCommand::GoAway { link, left: Some(left) }).await;
        }
        Ok((link, shard))
    }

    /// The shard a link is on.
    pub(super) fn link_shard(&self, link: LinkId) -> Option<ShardNo> {
        self.directory().links.get(&link).copied()
    }

    /// A link broke: what it served is let go, what it brought has ended.
    pub(super) async fn link_down(&self, link: LinkId, side: LinkSide, remote: SocketAddr, sentence: &str) {
        let order = self.in_order().await;
        let (served, pulled, was_told) = {
            let mut directory = self.directory();
            let was_told = directory.draining_origins.remove(&link);
            let served: Vec<StreamKey> = directory
                .streams
                .iter()
                .filter(|(_, s)| s.served.contains_key(&link))
                .map(|(k, _)| k.clone())
                .collect();
            let idle: Vec<_> = served.iter().map(|key| directory.unserve(clock::now(), link, key)).collect();
            let pulled: Vec<StreamKey> =
                directory.streams.iter().filter(|(_, s)| s.is_pulled_on(link)).map(|(k, _)| k.clone()).collect();
            directory.links.remove(&link);
            (idle, pulled, was_told)
        };
        match side {
            LinkSide::Pull if was_told => {
                info!(%remote, reason = sentence, streams = pulled.len(), "the origin that was to leave is gone");
            }
            LinkSide::Pull => warn!(%remote, reason = sentence, streams = pulled.len(), "link to origin is down"),
            // Nodes that only ask hang up soon.
            LinkSide::Serve if served.is_empty() => debug!(%remote, reason = sentence, "link is down"),
            LinkSide::Serve => info!(%remote, reason = sentence, "link to edge is down"),
        }
        for idle in served {
            self.drop_replica(idle).await;
        }
        drop(order);
        for key in pulled {
            self.pull_ended(&key, link, PullEnd::Way, sentence).await;
        }
    }

    /// An origin says that it is to leave, or stays after all. What it has is pulled on: nobody else has it, and it is looked
    /// for everywhere from the moment it ends there. That its link then breaks is no accident.
    pub(super) fn origin_leaves(&self, link: LinkId, remote: SocketAddr, left: Option<Duration>) {
        let streams = {
            let mut directory = self.directory();
            let news = match left {
                Some(_) if directory.links.contains_key(&link) => directory.draining_origins.insert(link),
                Some(_) => false,
                None => directory.draining_origins.remove(&link),
            };
            if !news {
                return;
            }
            directory.streams.values().filter(|stream| stream.is_pulled_on(link)).count()
        };
        match left {
            Some(left) => info!(%remote, ?left, streams, "an origin is to leave; its streams are awaited elsewhere"),
            None => info!(%remote, streams, "the origin stays after all"),
        }
    }

    /// Tells edges that this node is to leave, or stays after all.
    pub(super) async fn tell_edges(&self, left: Option<Duration>) {
        // A link that is just taken in hears of it there.
        let _order = self.in_order().await;
        let links: Vec<(LinkId, ShardNo)> = {
            let directory = self.directory();
            directory.links.iter().map(|(link, shard)| (*link, *shard)).collect()
        };
        for (link, shard) in links {
            self.command(shard, ShardCommand::GoAway { link, left }).await;
        }
    }

    /// Takes edges' links until the node stops.
    pub(super) async fn accept_links(self: Arc<Self>, mut listener: Listener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a relay connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // More than that at once is no cluster; whoever is over it tries again.
            if self.directory().links.len() >= LINKS_MAX {
                debug!(%remote, "relay connection refused: {LINKS_MAX} links are open");
                self.links_refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else { continue };
            let node = Arc::clone(&self);
            self.tasks.spawn(async move {
                let _permit = permit;
                let deadline = clock::now() + node.config.relay_link.handshake_timeout;
                match accept(stream, &node.relay_identity, deadline).await {
                    Ok(connected) => {
                        debug!(%remote, node_id = %connected.peer.node_id, "node linked");
                        if let Err(error) = node.place_link(LinkSide::Serve, connected).await {
                            warn!(%remote, %error, "cannot keep an edge's link");
                        }
                    }
                    Err(RelayError::Closed) => debug!(%remote, "relay connection closed before its handshake"),
                    Err(error) => {
                        node.links_refused.fetch_add(1, Ordering::Relaxed);
                        warn!(%remote, %error, "relay link refused");
                    }
                }
            });
        }
    }
}
