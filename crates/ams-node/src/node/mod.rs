//! The control side of a node: what is published, played and pulled here, and who is told.
//!
//! Owns the directory, the shards' handles, the registry client and every control task. Media never passes through
//! here. Implements [`ams_api::port::Node`]; see ARCHITECTURE.md, "The path of one request".
//!
//! - [`directory`]: what is held, as plain data
//! - [`publish`], [`play`], [`serve`]: the three things a stream does here: come in, go out to viewers, go out to edges
//! - [`pulls`], [`interruptions`]: streams that are elsewhere, and streams that lost their source
//! - [`access`]: who may, by the application's rules
//! - [`claims`], [`suspicion`], [`around`]: the right to an id, whether another's still stands, and what nodes tell each other
//! - [`links`]: relay links to origins, and those of edges to us
//! - [`events`]: what shards report
//! - [`load`], [`places`]: how much and how many the node takes
//! - [`metrics`]: what all of it counts
//! - [`registry_tasks`]: heartbeats, the waiting list
//! - [`settings`]: applications' settings, kept fresh
//! - [`webhooks`]: what applications are told
//! - [`first_user`]: the panel's first user, where there is none
//! - [`port`]: the port for the API
//! - [`run`], [`drain`]: start and stop, in order, and leaving without anybody noticing

mod access;
mod around;
mod claims;
pub mod directory;
mod drain;
mod events;
mod first_user;
mod interruptions;
mod links;
mod load;
mod metrics;
mod places;
mod play;
mod port;
mod publish;
mod pulls;
mod registry_tasks;
pub mod run;
mod serve;
mod settings;
#[cfg(test)]
pub(crate) mod sim;
mod suspicion;
mod tasks;
#[cfg(test)]
mod tests;
pub(crate) mod webhooks;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ams_api::port::SessionId;
use ams_registry::{ClaimError, Registry, RegistryError};
use ams_relay::HandshakeConfig;
use ams_rtc::dtls::DtlsIdentity;
use ams_types::{Incarnation, NodeId, StreamKey};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use run::{Orders, run};

use crate::clock::{self, WallClock};
use crate::config::Config;
use crate::net::Net;
use crate::shard::ShardHandle;
use crate::shard::protocol::{LinkId, PeerId, ShardCommand, ShardNo};
use access::Access;
use around::KnownNodes;
use claims::Unreleased;
use directory::Directory;
use links::OriginLinks;
use load::{ShardLoads, Shortage};
use places::Places;
use settings::Settings;
use suspicion::Watched;
use tasks::Tasks;
use webhooks::Webhooks;

/// Streams that became playable, kept for sockets that are slow to listen.
const STARTS_KEPT: usize = 1024;

/// A node, shared by its control tasks.
pub struct NodeCore {
    config: Config,
    id: NodeId,
    incarnation: Incarnation,
    relay_identity: HandshakeConfig,
    relay_port: u16,
    http_port: u16,
    registry: Arc<dyn Registry>,
    net: Net,
    wall: WallClock,
    dtls: Arc<DtlsIdentity>,
    shards: Vec<ShardHandle>,
    addresses: Vec<IpAddr>,
    directory: Mutex<Directory>,
    loads: ShardLoads,
    places: Places,
    short_of: Mutex<Option<Shortage>>,
    /// See [`NodeCore::in_order`].
    order: tokio::sync::Mutex<()>,
    links: OriginLinks,
    settings: Settings,
    access: Access,
    webhooks: Webhooks,
    watched: Watched,
    known_nodes: KnownNodes,
    unreleased: Unreleased,
    starts: broadcast::Sender<StreamKey>,
    registry_ok: AtomicBool,
    /// Changes when the registry answers again.
    registry_back: watch::Sender<()>,
    registry_back_at: Mutex<Option<Instant>>,
    /// Time between the last two heartbeats that the registry took, beyond the interval, in ms.
    heartbeat_lag: AtomicU64,
    /// How busy the machine was when that was last measured, 0 to 100.
    cpu_percent: AtomicU32,
    /// Relay links that were refused.
    links_refused: AtomicU64,
    orders: Orders,
    /// Takes nobody new.
    draining: AtomicBool,
    /// Since when, by the wall clock.
    drains_since: AtomicI64,
    /// The node's row is to be written now.
    row_changed: Notify,
    /// Ends now.
    leaving: AtomicBool,
    next_id: AtomicU64,
    tasks: Tasks,
    cancel: CancellationToken,
}

impl NodeCore {
    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while the directory is changed and the commands that follow from the change are sent: each shard gets them in
    /// the order of the changes, and none is made for a state that is over. Never held while the network or the registry
    /// is waited for.
    async fn in_order(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.order.lock().await
    }

    fn shard(&self, no: ShardNo) -> Option<&ShardHandle> {
        self.shards.get(usize::from(no.0))
    }

    /// Sends a command to a shard. A shard that is gone is not an error here: its end is reported elsewhere.
    async fn command(&self, no: ShardNo, command: ShardCommand) {
        if let Some(shard) = self.shard(no) {
            let _ = shard.commands.send(command).await;
        }
    }

    fn next_peer(&self) -> PeerId {
        PeerId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn next_link(&self) -> LinkId {
        LinkId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes how a call to the registry went; one log line per change. What only this call met says nothing of the registry.
    fn note_registry<T, E: RegistrySign>(&self, result: &Result<T, E>) {
        let away = match result {
            Ok(_) => false,
            Err(error) => match error.is_away() {
                Some(away) => away,
                None => return,
            },
        };
        let was_ok = self.registry_ok.swap(!away, Ordering::Relaxed);
        match result {
            Err(error) if away && was_ok => {
                tracing::warn!(%error, "registry does not answer; media goes on without it");
            }
            _ if !away && !was_ok => {
                tracing::info!("registry answers again");
                *self.registry_back_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
                self.registry_back.send_replace(());
            }
            _ => {}
        }
    }

    fn is_registry_ok(&self) -> bool {
        self.registry_ok.load(Ordering::Relaxed)
    }
}

/// An error of a call to the registry that tells whether the registry is there.
trait RegistrySign: std::fmt::Display {
    /// Whether it is away; none if this does not tell.
    fn is_away(&self) -> Option<bool>;
}

impl RegistrySign for RegistryError {
    fn is_away(&self) -> Option<bool> {
        RegistryError::is_away(self)
    }
}

impl RegistrySign for ClaimError {
    fn is_away(&self) -> Option<bool> {
        ClaimError::is_away(self)
    }
}

/// A session name nobody can guess: 128 random bits.
fn new_session_id() -> SessionId {
    SessionId(format!("{:032x}", rand::random::<u128>()))
}
