//! What a node does at its start with records an earlier run of it left behind.
//!
//! Owns the decision over one record, never the search for records.

use ams_types::{AppName, Epoch, Incarnation, NodeId, StreamKey};

use crate::record::broadcast::BroadcastRecord;
use crate::status::Status;

/// Who starts, and where it looks.
#[derive(Clone, Debug)]
pub struct LeftoverRequest {
    /// Applications of the node.
    pub apps: Vec<AppName>,
    /// The node that starts.
    pub node: NodeId,
    /// Its new run: what it holds by now stays.
    pub incarnation: Incarnation,
    /// Its address that other nodes dial.
    pub host: String,
    /// Its relay port: `StreamInfo` of this host and port is its own.
    pub origin_port: u16,
    /// The caller's clock, ms since 1970.
    pub now_ms: i64,
}

/// What was cleaned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leftovers {
    /// Zombi records deleted.
    pub deleted: u64,
    /// Records set to `finished`.
    pub finished: u64,
    /// `StreamInfo` documents deleted.
    pub infos_deleted: u64,
    /// Publications that could be played until then.
    pub ended: Vec<Ended>,
}

/// A publication that ended without its node saying so.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The stream.
    pub key: StreamKey,
    /// The publication.
    pub epoch: Epoch,
    /// What its record said.
    pub record: BroadcastRecord,
}

impl Ended {
    /// The publication of a record that is about to be ended; `None` if it never could be played.
    pub fn of(app: &AppName, record: &BroadcastRecord) -> Option<Self> {
        if record.status.as_deref().map(Status::from_wire) != Some(Status::Broadcasting) {
            return None;
        }
        let key = StreamKey::new(app.clone(), record.stream_id.parse().ok()?);
        Some(Self { key, epoch: record.epoch(), record: record.clone() })
    }
}

/// What to do with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    Delete,
    Finish,
    Leave,
}

/// Decides over one record.
///
/// A record that names a node is a leftover if that node is the one starting, in an earlier run. One that names none,
/// or whose node's address has passed to the one starting, is told by the address; if it names another node it must
/// also be stale, because several nodes can share an address.
pub(crate) fn decide(record: &BroadcastRecord, request: &LeftoverRequest) -> Leftover {
    let same_host = record.origin_address.as_deref() == Some(request.host.as_str());
    let is_ours = match record.owner_node() {
        Some(node) if node == request.node => record.owner_incarnation() != Some(request.incarnation),
        Some(_) => same_host && !record.is_held(request.now_ms),
        None => same_host,
    };
    if !is_ours {
        return Leftover::Leave;
    }
    if record.zombi {
        return Leftover::Delete;
    }
    let held = record.status.as_deref().is_some_and(|status| Status::from_wire(status).is_held());
    if held { Leftover::Finish } else { Leftover::Leave }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_earlier_run_left_is_cleaned() {
        const NOW: i64 = 1_000_000;
        let request = LeftoverRequest {
            apps: Vec::new(),
            node: "node-a".parse().unwrap(),
            incarnation: Incarnation(2),
            host: "10.0.0.1".into(),
            origin_port: 5000,
            now_ms: NOW,
        };
        let record = |node: Option<&str>, incarnation: u64, host: &str, status: &str, zombi, age| BroadcastRecord {
            ams_node_id: node.map(str::to_owned),
            ams_incarnation: Some(Incarnation(incarnation).to_string()),
            origin_address: Some(host.into()),
            ams_host: node.map(|_| host.to_owned()),
            status: Some(status.into()),
            zombi,
            update_time: NOW - age,
            ..BroadcastRecord::default()
        };
        const LIVE: &str = "broadcasting";
        let taken_over = BroadcastRecord {
            origin_address: Some("10.0.0.9".into()),
            ..record(Some("node-a"), 1, "10.0.0.1", LIVE, false, 1)
        };
        for (name, record, want) in [
            ("taken over by another program", taken_over, Leftover::Leave),
            ("zombi of the last run", record(Some("node-a"), 1, "10.0.0.1", LIVE, true, 1), Leftover::Delete),
            ("record of the last run", record(Some("node-a"), 1, "10.0.0.1", LIVE, false, 1), Leftover::Finish),
            ("preparing", record(Some("node-a"), 1, "10.0.0.1", "preparing", false, 1), Leftover::Finish),
            ("of this run", record(Some("node-a"), 2, "10.0.0.1", LIVE, true, 1), Leftover::Leave),
            ("another node here", record(Some("node-b"), 1, "10.0.0.1", LIVE, true, 1), Leftover::Leave),
            ("another node here, gone", record(Some("node-b"), 1, "10.0.0.1", LIVE, true, 20_000), Leftover::Delete),
            ("we had another address", record(Some("node-a"), 1, "10.0.0.2", LIVE, false, 1), Leftover::Finish),
            ("of another program here", record(None, 0, "10.0.0.1", LIVE, false, 1), Leftover::Finish),
            ("of another program elsewhere", record(None, 0, "10.0.0.2", LIVE, false, 1), Leftover::Leave),
            ("only created here", record(None, 0, "10.0.0.1", "created", false, 1), Leftover::Leave),
            ("already finished", record(Some("node-a"), 1, "10.0.0.1", "finished", false, 1), Leftover::Leave),
        ] {
            assert_eq!(decide(&record, &request), want, "{name}");
        }
    }
}
