//! Who may publish under a stream id: the words of a claim, and the rule both stores decide by.
//!
//! Owns the decision and the field changes of each step in a publication's life. Never reads or writes a store:
//! a store reads the record, asks here, and writes only if the record is still the one it read.
//!
//! # Epochs
//! Each claim gets an epoch higher than any before it for the same key, also when the record was deleted in between:
//! both stores remember the last epoch of a key apart from its record. That memory is dropped after
//! [`EPOCH_MEMORY_MS`]; so that numbers rise even then, an epoch is never below the time of its claim.
//!
//! A store that fails over without its last second, or is restored, has forgotten epochs that nodes still hold, and would
//! give them out again. So each leaves some numbers out by chance: the same epoch twice takes one chance in
//! [`EPOCHS_PER_MS`] on top of all that.

use ams_types::{AppName, Epoch, Incarnation, NodeId, StreamKey};

use crate::error::RegistryError;
use crate::record::broadcast::{BroadcastRecord, epoch_to_stored};
use crate::record::field::{Changes, Field, Stored};
use crate::record::stream_info::StreamInfoRecord;
use crate::status::Status;

/// How long the last epoch of a key nobody publishes is remembered, in milliseconds: 30 days.
pub const EPOCH_MEMORY_MS: i64 = 30 * 24 * 3600 * 1000;

/// How the media came in, as the document says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishType {
    /// WebRTC, WHIP included.
    WebRtc,
    /// RTMP.
    Rtmp,
    /// Pulled by the node.
    Pull,
    /// SRT.
    Srt,
}

impl PublishType {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebRtc => "WebRTC",
            Self::Rtmp => "RTMP",
            Self::Pull => "Pull",
            Self::Srt => "SRT",
        }
    }
}

/// Whether a claim may take the id from one who holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// Only an id nobody holds.
    #[default]
    IfFree,
    /// Also one held by exactly this run of this node, which the caller has seen to be dead.
    FromDead {
        /// The dead node.
        node: NodeId,
        /// Its last run.
        incarnation: Incarnation,
    },
    /// Also one held by exactly this publication: the caller has checked that the newcomer may replace it.
    FromEpoch(Epoch),
}

/// A wish to publish under a stream id.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The stream.
    pub key: StreamKey,
    /// The node the publisher is connected to.
    pub node: NodeId,
    /// The run of that node's process.
    pub incarnation: Incarnation,
    /// Address of that node that other nodes dial.
    pub host: String,
    /// The publisher's session on that node. Repeating a claim with the same node, run and session is granted again,
    /// so that a claim whose answer was lost can be repeated.
    pub session: String,
    /// How the media comes in.
    pub publish_type: PublishType,
    /// The publisher's program.
    pub user_agent: Option<String>,
    /// The publisher's address.
    pub remote_ip: Option<String>,
    /// A name for people; `None` keeps the record's.
    pub name: Option<String>,
    /// Free text for applications; `None` keeps the record's.
    pub meta_data: Option<String>,
    /// The caller's clock, ms since 1970.
    pub now_ms: i64,
    /// Whether one who holds the id may lose it.
    pub takeover: Takeover,
}

/// What a publisher's node shows with each later write: only the holder of the highest epoch gets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The stream.
    pub key: StreamKey,
    /// The epoch the claim was given.
    pub epoch: Epoch,
    /// `originAdress` of the claim: another program that takes the stream over changes it, and the lease is lost.
    pub host: String,
}

/// A granted claim. The record reads `preparing` until [`crate::Registry::mark_live`].
#[derive(Clone, Debug)]
pub struct Claim {
    /// Shown with each later write.
    pub lease: Lease,
    /// True when the record exists for this publication only and will be deleted with it.
    pub zombi: bool,
    /// Why it was granted.
    pub grant: Grant,
    /// The record as it was before, if there was one.
    pub previous: Option<Box<BroadcastRecord>>,
}

/// Why a claim was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// There was no record; a zombi one was made.
    NoRecord,
    /// The record was not live, or had gone stale.
    NotHeld,
    /// The same node held it in an earlier run of its process.
    NodeRestarted,
    /// The same session held it: the claim was repeated.
    SameSession,
    /// Whoever held it is known to be dead.
    OwnerDead,
    /// The newcomer may replace the publication that held it.
    Replaced,
}

impl Lease {
    /// The lease of a record's publication, with when it was last confirmed; none if another program made it.
    pub(crate) fn of(app: &AppName, record: &BroadcastRecord) -> Option<(Self, i64)> {
        let key = StreamKey::new(app.clone(), record.stream_id.parse().ok()?);
        let (epoch, host) = (record.epoch(), record.origin_address.clone()?);
        (epoch.0 > 0 && !record.is_virtual).then_some((Self { key, epoch, host }, record.update_time))
    }
}

/// One who holds a stream id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node; `None` when another program wrote the record.
    pub node: Option<NodeId>,
    /// The run of its process.
    pub incarnation: Option<Incarnation>,
    /// The address other nodes dial.
    pub host: Option<String>,
    /// The publisher's session there.
    pub session: Option<String>,
    /// The epoch it holds.
    pub epoch: Epoch,
    /// The status as it reads now.
    pub status: Status,
    /// When it was last confirmed, ms since 1970 by the holder's clock.
    pub update_time: i64,
}

impl Holder {
    pub(crate) fn of(record: &BroadcastRecord, now_ms: i64) -> Self {
        Self {
            node: record.owner_node(),
            incarnation: record.owner_incarnation(),
            host: record.origin_address.clone(),
            session: record.owner_session().map(str::to_owned),
            epoch: record.epoch(),
            status: record.effective_status(now_ms),
            update_time: record.update_time,
        }
    }
}

/// Why a publication could not be begun, confirmed or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another publication holds the id.
    #[error("stream id is held by {:?} since epoch {}", .0.host, .0.epoch)]
    InUse(Box<Holder>),
    /// The lease is not ours any more: another claim has a higher epoch, or the record was ended or deleted.
    #[error("epoch {epoch} of the stream is over")]
    Lost {
        /// The epoch that was shown.
        epoch: Epoch,
    },
    /// The registry did not answer as it should.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl ClaimError {
    /// As [`RegistryError::is_away`]: a refusal is an answer.
    pub fn is_away(&self) -> Option<bool> {
        match self {
            Self::Registry(error) => error.is_away(),
            Self::InUse(_) | Self::Lost { .. } => Some(false),
        }
    }
}

/// What is known once media flows.
#[derive(Clone, Debug)]
pub struct LiveInfo {
    /// The caller's clock, ms since 1970.
    pub now_ms: i64,
    /// How the media comes in.
    pub publish_type: PublishType,
    /// Picture width in pixels, 0 without video.
    pub width: i32,
    /// Picture height in pixels, 0 without video.
    pub height: i32,
    /// One per rendition. Stream id, host and epoch are filled in from the lease.
    pub infos: Vec<StreamInfoRecord>,
}

/// Quality of an ingest; what is `None` stays as it is in the record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamQuality {
    /// Picture width in pixels.
    pub width: Option<i32>,
    /// Picture height in pixels.
    pub height: Option<i32>,
    /// Bits per second.
    pub bitrate: Option<i64>,
    /// 1.0 is real time.
    pub speed: Option<f64>,
    /// A word for it.
    pub quality: Option<String>,
    /// Bytes so far.
    pub received_bytes: Option<i64>,
    /// Length so far in ms.
    pub duration_ms: Option<i64>,
    /// Packets waiting.
    pub pending_packets: Option<i32>,
    /// Packets lost so far.
    pub packets_lost: Option<i32>,
    /// Share of packets lost.
    pub packet_lost_ratio: Option<f64>,
    /// Jitter in ms.
    pub jitter_ms: Option<i32>,
    /// Round trip in ms.
    pub rtt_ms: Option<i32>,
    /// WebRTC viewers over the whole cluster, as far as the publisher's node knows.
    pub webrtc_viewers: Option<i32>,
}

/// How a publication ended; a zombi record is deleted either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// In order: `finished`.
    Finished,
    /// The node stops or gave up on its publisher: `terminated_unexpectedly`.
    TerminatedUnexpectedly,
}

/// What became of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was a zombi and is gone.
    Deleted,
    /// It stays, with an end status.
    Ended,
}

/// Decides a claim over the record as it was read.
pub(crate) fn decide(existing: Option<&BroadcastRecord>, request: &ClaimRequest) -> Result<Grant, ClaimError> {
    let Some(record) = existing else { return Ok(Grant::NoRecord) };
    if !record.is_held(request.now_ms) {
        return Ok(Grant::NotHeld);
    }
    let owner = record.owner_node().zip(record.owner_incarnation());
    if let Some((node, incarnation)) = &owner
        && *node == request.node
    {
        if *incarnation != request.incarnation {
            return Ok(Grant::NodeRestarted);
        }
        if record.owner_session() == Some(request.session.as_str()) {
            return Ok(Grant::SameSession);
        }
    }
    let granted = match &request.takeover {
        Takeover::IfFree => None,
        Takeover::FromDead { node, incarnation } => {
            (owner == Some((node.clone(), *incarnation))).then_some(Grant::OwnerDead)
        }
        Takeover::FromEpoch(epoch) => (record.epoch() == *epoch).then_some(Grant::Replaced),
    };
    granted.ok_or_else(|| ClaimError::InUse(Box::new(Holder::of(record, request.now_ms))))
}

/// How many epochs a millisecond has.
pub(crate) const EPOCHS_PER_MS: u32 = 1024;

/// How far an epoch is to be above the one before it: by chance, at least 1.
pub(crate) fn epoch_step() -> u32 {
    rand::random_range(1..=EPOCHS_PER_MS)
}

/// An epoch above `last`, and not below the time of its claim (milliseconds since 1970): what a node gives itself when it
/// cannot ask a store.
pub fn fresh_epoch(last: Epoch, now_ms: i64) -> Epoch {
    let of_time = u64::try_from(now_ms).unwrap_or(0).saturating_mul(EPOCHS_PER_MS.into());
    Epoch(last.0.max(of_time).saturating_add(epoch_step().into()))
}

/// The least epoch a claim may get, given the record as it was read.
pub(crate) fn epoch_floor(existing: Option<&BroadcastRecord>, now_ms: i64) -> Epoch {
    fresh_epoch(existing.map_or(Epoch(0), BroadcastRecord::epoch), now_ms)
}

/// Changes to a record that exists: it now is `preparing` for the claimer.
pub(crate) fn claim_changes(request: &ClaimRequest, epoch: Epoch) -> Changes {
    let mut changes = vec![
        ("status", Field::Text(Status::Preparing.as_str().to_owned())),
        ("originAdress", Field::Text(request.host.clone())),
        ("updateTime", Field::Int64(request.now_ms)),
        ("publishType", Field::Text(request.publish_type.as_str().to_owned())),
        ("userAgent", Field::Text(request.user_agent.clone().unwrap_or_else(|| "N/A".to_owned()))),
        ("remoteIp", request.remote_ip.to_field()),
        ("amsEpoch", Field::Int64(epoch_to_stored(epoch))),
        ("amsNodeId", Field::Text(request.node.to_string())),
        ("amsIncarnation", Field::Text(request.incarnation.to_string())),
        ("amsSession", Field::Text(request.session.clone())),
        ("amsHost", Field::Text(request.host.clone())),
    ];
    for (name, text) in [("name", &request.name), ("metaData", &request.meta_data)] {
        if let Some(text) = text {
            changes.push((name, Field::Text(text.clone())));
        }
    }
    changes
}

/// A whole new record for an id nobody has heard of.
pub(crate) fn zombi_record(request: &ClaimRequest) -> BroadcastRecord {
    BroadcastRecord {
        stream_id: request.key.id.to_string(),
        zombi: true,
        date: request.now_ms,
        ..BroadcastRecord::default()
    }
}

/// Changes when media flows.
pub(crate) fn live_changes(lease: &Lease, live: &LiveInfo) -> Changes {
    vec![
        ("status", Field::Text(Status::Broadcasting.as_str().to_owned())),
        ("startTime", Field::Int64(live.now_ms)),
        ("absoluteStartTimeMs", Field::Int64(live.now_ms)),
        ("updateTime", Field::Int64(live.now_ms)),
        ("originAdress", Field::Text(lease.host.clone())),
        ("publishType", Field::Text(live.publish_type.as_str().to_owned())),
        ("width", Field::Int32(live.width)),
        ("height", Field::Int32(live.height)),
        ("webRTCViewerCount", Field::Int32(0)),
        ("hlsViewerCount", Field::Int32(0)),
        ("dashViewerCount", Field::Int32(0)),
    ]
}

/// The renditions of a publication, with what the lease knows filled in.
pub(crate) fn live_infos(lease: &Lease, live: LiveInfo) -> Vec<StreamInfoRecord> {
    let with_lease = |info| StreamInfoRecord {
        stream_id: lease.key.id.to_string(),
        host: Some(lease.host.clone()),
        ams_epoch: epoch_to_stored(lease.epoch),
        ..info
    };
    live.infos.into_iter().map(with_lease).collect()
}

/// Changes of a heartbeat.
pub(crate) fn heartbeat_changes(now_ms: i64, quality: &StreamQuality) -> Changes {
    let mut changes = vec![("updateTime", Field::Int64(now_ms))];
    let optional = [
        ("width", quality.width.to_field()),
        ("height", quality.height.to_field()),
        ("bitrate", quality.bitrate.to_field()),
        ("speed", quality.speed.to_field()),
        ("quality", quality.quality.to_field()),
        ("receivedBytes", quality.received_bytes.to_field()),
        ("duration", quality.duration_ms.to_field()),
        ("pendingPacketSize", quality.pending_packets.to_field()),
        ("packetsLost", quality.packets_lost.to_field()),
        ("packetLostRatio", quality.packet_lost_ratio.to_field()),
        ("jitterMs", quality.jitter_ms.to_field()),
        ("rttMs", quality.rtt_ms.to_field()),
        ("webRTCViewerCount", quality.webrtc_viewers.map(|viewers| viewers.max(0)).to_field()),
    ];
    changes.extend(optional.into_iter().filter(|(_, field)| *field != Field::Unset));
    changes
}

/// Changes when a publication ends and its record stays.
pub(crate) fn end_changes(status: &Status, now_ms: i64) -> Changes {
    vec![
        ("status", Field::Text(status.as_str().to_owned())),
        ("updateTime", Field::Int64(now_ms)),
        ("webRTCViewerCount", Field::Int32(0)),
        ("hlsViewerCount", Field::Int32(0)),
        ("dashViewerCount", Field::Int32(0)),
        ("rtmpViewerCount", Field::Int32(0)),
    ]
}

impl ReleaseReason {
    pub(crate) fn end_status(self) -> Status {
        match self {
            Self::Finished => Status::Finished,
            Self::TerminatedUnexpectedly => Status::TerminatedUnexpectedly,
        }
    }
}

/// Whether `record` still is what `lease` was given for; `must_be_held` also asks for a live stored status.
pub(crate) fn lease_holds(record: &BroadcastRecord, lease: &Lease, must_be_held: bool) -> bool {
    let held = record.status.as_deref().is_some_and(|status| Status::from_wire(status).is_held());
    record.epoch() == lease.epoch
        && record.origin_address.as_deref() == Some(lease.host.as_str())
        && (held || !must_be_held)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn request() -> ClaimRequest {
        ClaimRequest {
            key: StreamKey::new("live".parse().unwrap(), "s".parse().unwrap()),
            node: "node-a".parse().unwrap(),
            incarnation: Incarnation(2),
            host: "10.0.0.1".into(),
            session: "session-1".into(),
            publish_type: PublishType::WebRtc,
            user_agent: None,
            remote_ip: None,
            name: None,
            meta_data: None,
            now_ms: NOW,
            takeover: Takeover::IfFree,
        }
    }

    fn held_by(node: &str, incarnation: u64, host: &str, session: &str) -> BroadcastRecord {
        BroadcastRecord {
            status: Some("broadcasting".into()),
            update_time: NOW - 1_000,
            ams_epoch: 5,
            ams_node_id: Some(node.into()),
            ams_incarnation: Some(Incarnation(incarnation).to_string()),
            ams_session: Some(session.into()),
            origin_address: Some(host.into()),
            ams_host: Some(host.into()),
            ..BroadcastRecord::default()
        }
    }

    #[test]
    fn a_claim_is_granted_only_for_a_reason() {
        let other = || held_by("node-b", 9, "10.0.0.2", "x");
        let dead =
            |incarnation| Takeover::FromDead { node: "node-b".parse().unwrap(), incarnation: Incarnation(incarnation) };
        let stale = BroadcastRecord { update_time: NOW - 20_000, ..other() };
        let finished = BroadcastRecord { status: Some("finished".into()), ..other() };
        let foreign = BroadcastRecord { ams_node_id: None, ams_incarnation: None, ..other() };
        let taken_by_ams =
            BroadcastRecord { origin_address: Some("10.0.0.9".into()), ..held_by("node-a", 1, "10.0.0.1", "x") };
        for (name, record, takeover, want) in [
            ("no record", None, Takeover::IfFree, Some(Grant::NoRecord)),
            ("held elsewhere", Some(other()), Takeover::IfFree, None),
            ("stale", Some(stale), Takeover::IfFree, Some(Grant::NotHeld)),
            ("finished", Some(finished), Takeover::IfFree, Some(Grant::NotHeld)),
            ("held by another program", Some(foreign), Takeover::IfFree, None),
            ("we restarted", Some(held_by("node-a", 1, "10.0.0.1", "x")), Takeover::IfFree, Some(Grant::NodeRestarted)),
            (
                "we restarted at another address",
                Some(held_by("node-a", 1, "10.0.0.7", "x")),
                Takeover::IfFree,
                Some(Grant::NodeRestarted),
            ),
            ("ours, then taken by another program", Some(taken_by_ams), Takeover::IfFree, None),
            ("held here by another session", Some(held_by("node-a", 2, "10.0.0.1", "x")), Takeover::IfFree, None),
            (
                "repeated",
                Some(held_by("node-a", 2, "10.0.0.1", "session-1")),
                Takeover::IfFree,
                Some(Grant::SameSession),
            ),
            ("known dead", Some(other()), dead(9), Some(Grant::OwnerDead)),
            ("an earlier run was dead", Some(other()), dead(8), None),
            ("replaced", Some(other()), Takeover::FromEpoch(Epoch(5)), Some(Grant::Replaced)),
            ("another came first", Some(other()), Takeover::FromEpoch(Epoch(4)), None),
        ] {
            let got = decide(record.as_ref(), &ClaimRequest { takeover, ..request() });
            assert_eq!(got.ok(), want, "{name}");
        }
    }

    #[test]
    fn an_epoch_is_above_the_record_and_not_below_the_clock() {
        let record = |epoch| BroadcastRecord { ams_epoch: epoch, ..BroadcastRecord::default() };
        let of_time = |ms: i64| ms * i64::from(EPOCHS_PER_MS);
        for (name, existing, now_ms, above) in [
            ("first", None, 0, 0),
            ("first, with a clock", None, NOW, of_time(NOW)),
            ("clock ahead of the record", Some(record(5)), NOW, of_time(NOW)),
            ("a record whose epoch is a time in milliseconds", Some(record(NOW)), NOW, of_time(NOW)),
            ("clock behind the record", Some(record(of_time(NOW))), NOW - 10, of_time(NOW)),
            ("clock before 1970", Some(record(5)), -1, 5),
        ] {
            let got: Vec<i64> = (0..64).map(|_| epoch_floor(existing.as_ref(), now_ms).0 as i64 - above).collect();
            assert!(got.iter().all(|over| (1..=i64::from(EPOCHS_PER_MS)).contains(over)), "{name}: {got:?}");
            assert!(got.iter().any(|over| *over != got[0]), "{name}: who forgot an epoch must not give it out again");
        }
    }
}
