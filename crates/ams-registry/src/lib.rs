//! The registry: which node holds which stream, and which nodes there are.
//!
//! Owns the records (documents other programs read too), the [`Registry`] trait and its two versions: MongoDB for
//! clusters, SQLite (in a file or in memory) for one node. Never sees media, HTTP or a peer.
//!
//! - [`uri`], [`config`]: where the registry is, how long a call may take
//! - [`record`], [`status`]: what is in the documents
//! - [`query`]: which of them a list shows
//! - [`claim`], [`leftovers`]: who may publish an id, and what a restarted node cleans up
//! - [`outbox`]: webhook events, from the one who says them to the one who sends them
//! - [`registry`], [`panel`], [`error`]: the contract
//! - `app`: which name an application's records go by
//! - `gate`: deadline and bounds of every call
//! - `mongo`, `sqlite`: the two versions; `contract` (tests) holds them to one suite

mod app;
pub mod claim;
pub mod config;
#[cfg(test)]
mod contract;
pub mod error;
mod gate;
pub mod leftovers;
mod mongo;
pub mod outbox;
pub mod panel;
pub mod query;
pub mod record;
pub mod registry;
mod sqlite;
pub mod status;
pub mod uri;

use std::sync::Arc;

pub use claim::{
    Claim, ClaimError, ClaimRequest, Grant, Holder, Lease, LiveInfo, PublishType, ReleaseReason, Released,
    StreamQuality, Takeover, fresh_epoch,
};
pub use config::RegistryConfig;
pub use error::RegistryError;
pub use leftovers::{Ended, LeftoverRequest, Leftovers};
pub use outbox::{OutboxReport, OutboxRules, TakeEvents};
pub use panel::{PanelStore, Shared, Swap};
pub use query::{BroadcastQuery, LiveTotals, Search, Sort};
pub use record::JsonMap;
pub use record::broadcast::BroadcastRecord;
pub use record::edit::{BroadcastEdit, WrongType};
pub use record::node::ClusterNodeRecord;
pub use record::outbox::OutboxRecord;
pub use record::settings::AppSettingsRecord;
pub use record::stream_info::StreamInfoRecord;
pub use record::token::{ConnectionEventRecord, Shelf, SubscriberRecord, TokenRecord, TokenUse};
pub use registry::{Answer, OriginAddress, Registry, RegistryStats, StreamLocation, Upserted};
pub use sqlite::InPlaceRegistry;
pub use status::Status;
pub use uri::{RegistryUri, UriError};

/// Opens the registry at `uri`.
///
/// MongoDB is not contacted, so that a node can start while it is away: ask [`Registry::ping`]. (The name of a
/// `mongodb+srv://` address is resolved, within the deadline.) A SQLite file is opened, and made if it is missing.
/// Call [`Registry::close`] before the runtime ends.
///
/// # Errors
/// [`RegistryError::Config`] or [`RegistryError::Uri`] for what was written, [`RegistryError::Open`] for a file,
/// [`RegistryError::Deadline`] or [`RegistryError::Unavailable`] for a name that cannot be resolved.
pub async fn connect(uri: &RegistryUri, config: RegistryConfig) -> Result<Arc<dyn Registry>, RegistryError> {
    config.validate()?;
    Ok(match uri.kind() {
        uri::Kind::Mongo(uri) => Arc::new(mongo::MongoRegistry::connect(uri, config).await?),
        uri::Kind::Sqlite(path) => Arc::new(sqlite::SqliteRegistry::open(Some(path.clone()), config).await?),
        uri::Kind::Memory => Arc::new(sqlite::SqliteRegistry::open(None, config).await?),
    })
}
