//! A node of the cluster, as its heartbeat describes it.

use std::fmt;

use ams_types::{Incarnation, NodeId};

use super::broadcast::incarnation_from_stored;
use super::field::{Changes, record};
use crate::error::RegistryError;
use crate::status::STALE_AFTER_MS;

/// Name of the collection in MongoDB.
pub(crate) const COLLECTION: &str = "clusternode";

record! {
    /// One document of collection `clusternode` in database `clusterdb`.
    ///
    /// The first six fields are those of the original product; the rest are ours and ignored by others.
    pub struct ClusterNodeRecord {
        /// The node's id.
        id: String = String::new() => "_id",
        /// Address other nodes dial.
        ip: Option<String> = None => "ip",
        /// When the node last said it is alive, ms since 1970, by its own clock: for display.
        last_update_time: i64 = 0 => "lastUpdateTime",
        /// Memory, `usedMB/totalMB`.
        memory: Option<String> = None => "memory",
        /// CPU load, `0` to `100`.
        cpu: Option<String> = None => "cpu",
        /// Mean time of a registry call in ms (the name is misspelt in the format).
        db_query_average_time_ms: i64 = 0 => "dbQueryAveargeTimeMs",
        /// The run of the node's process, 16 hexadecimal digits.
        incarnation: Option<String> = None => "incarnation",
        /// HTTP port at `ip`.
        http_port: i32 = 0 => "httpPort",
        /// Relay port at `ip`.
        relay_port: i32 = 0 => "relayPort",
        /// `origin`, `edge` or `standalone`.
        role: Option<String> = None => "role",
        /// `registering`, `ready`, `draining`.
        state: Option<String> = None => "state",
        /// Viewers the node would still take.
        seats_left: i32 = 0 => "seatsLeft",
        /// Streams published to the node.
        streams: i32 = 0 => "streams",
        /// Viewers connected to the node.
        viewers: i32 = 0 => "viewers",
    }
}

impl ClusterNodeRecord {
    /// The id, if it is one this product would give itself.
    pub fn node_id(&self) -> Option<NodeId> {
        self.id.parse().ok()
    }

    /// The run of the process, if the document names one.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.as_deref().and_then(incarnation_from_stored)
    }

    /// Every field but the id, which names the row.
    pub(crate) fn fields_but_id(&self) -> Changes {
        let mut fields = self.fields();
        fields.retain(|(name, _)| *name != "_id");
        fields
    }

    /// Refuses a row without a name of its own: all nodes that forgot theirs would overwrite one another.
    pub(crate) fn check_id(&self, operation: &'static str) -> Result<(), RegistryError> {
        match self.id.parse::<NodeId>() {
            Ok(_) => Ok(()),
            Err(error) => Err(RegistryError::InvalidRequest { operation, reason: error.to_string() }),
        }
    }

    /// What a table of nodes shows: whether the row was written less than [`STALE_AFTER_MS`] before `now_ms`.
    /// Not for failover: that takes an observer that saw the row change on its own monotonic clock.
    pub fn is_fresh(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.last_update_time) <= STALE_AFTER_MS
    }
}

impl fmt::Debug for ClusterNodeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterNodeRecord")
            .field("id", &self.id)
            .field("ip", &self.ip)
            .field("last_update_time", &self.last_update_time)
            .field("incarnation", &self.incarnation)
            .field("role", &self.role)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
