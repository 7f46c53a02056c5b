//! A stream's record: what REST shows of it, and who publishes it now.
//!
//! Owns the field table and the rule that reads a status; who may change what is in [`crate::claim`].

use std::fmt;

use ams_types::{Epoch, Incarnation, NodeId};
use serde_json::Value;

use super::field::{Changes, JsonMap, record};
use crate::claim::Holder;
use crate::status::{STALE_AFTER_MS, Status};

/// Name of the collection in MongoDB.
pub(crate) const COLLECTION: &str = "broadcast";

/// Epochs past this are not ours: JSON readers could not tell them apart any more (2^53).
pub(crate) const EPOCH_MAX: i64 = 9_007_199_254_740_992;

record! {
    /// One document of collection `broadcast`. Field names are the same in JSON and in MongoDB, misspellings included.
    pub struct BroadcastRecord {
        /// The stream's id. Text, because other programs may have stored ids this product would refuse.
        stream_id: String = String::new() => "streamId",
        /// The stored status; read it through [`BroadcastRecord::effective_status`].
        status: Option<String> = None => "status",
        /// Status of a playlist.
        play_list_status: Option<String> = None => "playListStatus",
        /// `liveStream`, `ipCamera`, `streamSource`, `VoD` or `playlist`.
        kind: Option<String> = Some("liveStream".to_owned()) => "type",
        /// `WebRTC`, `RTMP`, `Pull` or `SRT`.
        publish_type: Option<String> = None => "publishType",
        /// A name for people.
        name: Option<String> = None => "name",
        /// A description for people.
        description: Option<String> = None => "description",
        /// Whether publishing is allowed.
        publish: bool = true => "publish",
        /// When the record was made, ms since 1970.
        date: i64 = 0 => "date",
        /// Planned start, seconds since 1970.
        planned_start_date: i64 = 0 => "plannedStartDate",
        /// Planned end, seconds since 1970.
        planned_end_date: i64 = 0 => "plannedEndDate",
        /// Length in ms.
        duration: i64 = 0 => "duration",
        /// Where the stream is pushed to, as stored.
        end_point_list: Option<Vec<Value>> = None => "endPointList",
        /// Items of a playlist, as stored.
        play_list_item_list: Option<Vec<Value>> = None => "playListItemList",
        /// Whether the stream is listed.
        public_stream: bool = true => "publicStream",
        /// Whether the picture is a sphere.
        is_360: bool = false => "is360",
        /// Where webhooks go.
        listener_hook_url: Option<String> = None => "listenerHookURL",
        /// Free text.
        category: Option<String> = None => "category",
        /// Address of a camera.
        ip_addr: Option<String> = None => "ipAddr",
        /// User name at a camera.
        username: Option<String> = None => "username",
        /// Password at a camera.
        password: Option<String> = None => "password",
        /// A word for the quality of the ingest.
        quality: Option<String> = None => "quality",
        /// Ingest speed, 1.0 is real time.
        speed: f64 = 0.0 => "speed",
        /// Where the stream is pulled from.
        stream_url: Option<String> = None => "streamUrl",
        /// Address of the origin that other nodes dial (the name is misspelt in the format).
        origin_address: Option<String> = None => "originAdress",
        /// Recording to MP4: 1 on, -1 off, 0 as the application says.
        mp4_enabled: i32 = 0 => "mp4Enabled",
        /// Recording to WebM, likewise.
        webm_enabled: i32 = 0 => "webMEnabled",
        /// Seek position of a VoD source in ms.
        seek_time_in_ms: i64 = 0 => "seekTimeInMs",
        /// Most subtracks of a main track; -1 for no limit.
        subtracks_limit: i32 = -1 => "subtracksLimit",
        /// Time to live of the record in ms; 0 for ever.
        expire_duration_ms: i32 = 0 => "expireDurationMS",
        /// RTMP address for publishing.
        rtmp_url: Option<String> = None => "rtmpURL",
        /// True when the record was made by a publisher, not by REST: it is deleted when the publication ends.
        zombi: bool = false => "zombi",
        /// Packets waiting at the ingest.
        pending_packet_size: i32 = 0 => "pendingPacketSize",
        /// HLS viewers.
        hls_viewer_count: i32 = 0 => "hlsViewerCount",
        /// DASH viewers.
        dash_viewer_count: i32 = 0 => "dashViewerCount",
        /// WebRTC viewers.
        webrtc_viewer_count: i32 = 0 => "webRTCViewerCount",
        /// RTMP viewers.
        rtmp_viewer_count: i32 = 0 => "rtmpViewerCount",
        /// Start of the publication, ms since 1970.
        start_time: i64 = 0 => "startTime",
        /// Bytes received from the publisher.
        received_bytes: i64 = 0 => "receivedBytes",
        /// Ingest bits per second.
        bitrate: i64 = 0 => "bitrate",
        /// Picture width in pixels.
        width: i32 = 0 => "width",
        /// Picture height in pixels.
        height: i32 = 0 => "height",
        /// Frames waiting at an encoder.
        encoder_queue_size: i32 = 0 => "encoderQueueSize",
        /// Packets dropped at the ingest.
        drop_packet_count_in_ingestion: i32 = 0 => "dropPacketCountInIngestion",
        /// Frames dropped at an encoder.
        drop_frame_count_in_encoding: i32 = 0 => "dropFrameCountInEncoding",
        /// Share of packets lost on the way in.
        packet_lost_ratio: f64 = 0.0 => "packetLostRatio",
        /// Packets lost on the way in.
        packets_lost: i32 = 0 => "packetsLost",
        /// Jitter on the way in, ms.
        jitter_ms: i32 = 0 => "jitterMs",
        /// Round trip to the publisher, ms.
        rtt_ms: i32 = 0 => "rttMs",
        /// The publisher's program.
        user_agent: Option<String> = Some("N/A".to_owned()) => "userAgent",
        /// The publisher's address.
        remote_ip: Option<String> = None => "remoteIp",
        /// Where the publisher is.
        latitude: Option<String> = None => "latitude",
        /// Where the publisher is.
        longitude: Option<String> = None => "longitude",
        /// Where the publisher is.
        altitude: Option<String> = None => "altitude",
        /// The main track this stream belongs to.
        main_track_stream_id: Option<String> = None => "mainTrackStreamId",
        /// Start of the publication by the wall clock, ms since 1970.
        absolute_start_time_ms: i64 = 0 => "absoluteStartTimeMs",
        /// Most WebRTC viewers; -1 for no limit.
        webrtc_viewer_limit: i32 = -1 => "webRTCViewerLimit",
        /// Most HLS viewers; -1 for no limit.
        hls_viewer_limit: i32 = -1 => "hlsViewerLimit",
        /// Most DASH viewers; -1 for no limit.
        dash_viewer_limit: i32 = -1 => "dashViewerLimit",
        /// Folder of recordings.
        sub_folder: Option<String> = None => "subFolder",
        /// Which item of a playlist plays.
        current_play_index: i32 = 0 => "currentPlayIndex",
        /// Free text for applications.
        meta_data: Option<String> = None => "metaData",
        /// Whether a playlist starts over.
        playlist_loop_enabled: bool = true => "playlistLoopEnabled",
        /// When the publisher's node last confirmed the record, ms since 1970.
        update_time: i64 = 0 => "updateTime",
        /// Role in a conference.
        role: Option<String> = None => "role",
        /// HLS settings, as stored.
        hls_parameters: Option<JsonMap> = None => "hlsParameters",
        /// Whether a pull source starts with its first viewer.
        auto_start_stop_enabled: bool = false => "autoStartStopEnabled",
        /// Encoder settings, as stored.
        encoder_settings_list: Vec<Value> = Vec::new() => "encoderSettingsList",
        /// A main track without media of its own, such as a room.
        is_virtual: bool = false => "virtual",
        /// Seconds without a subtrack after which a main track ends.
        max_idle_time: i32 = 0 => "maxIdleTime",
        /// Epoch of the last claim; 0 before the first. Ours, as are the following.
        ams_epoch: i64 = 0 => "amsEpoch",
        /// Node that made the last claim.
        ams_node_id: Option<String> = None => "amsNodeId",
        /// Run of that node's process, 16 hexadecimal digits.
        ams_incarnation: Option<String> = None => "amsIncarnation",
        /// The publisher's session on that node.
        ams_session: Option<String> = None => "amsSession",
        /// `originAdress` of the last claim. Another program that takes the stream over changes that, but not this.
        ams_host: Option<String> = None => "amsHost",
    }
}

/// Fields that belong to the publication: changed by claim, mark_live, heartbeat and release, never by an upsert.
pub(crate) const PUBLICATION_FIELDS: &[&str] = &[
    "status",
    "publishType",
    "quality",
    "speed",
    "originAdress",
    "zombi",
    "pendingPacketSize",
    "hlsViewerCount",
    "dashViewerCount",
    "webRTCViewerCount",
    "rtmpViewerCount",
    "startTime",
    "receivedBytes",
    "bitrate",
    "width",
    "height",
    "encoderQueueSize",
    "dropPacketCountInIngestion",
    "dropFrameCountInEncoding",
    "packetLostRatio",
    "packetsLost",
    "jitterMs",
    "rttMs",
    "userAgent",
    "remoteIp",
    "absoluteStartTimeMs",
    "updateTime",
    "amsEpoch",
    "amsNodeId",
    "amsIncarnation",
    "amsSession",
    "amsHost",
];

/// Names that documents hold for the sake of a store or a mapper; REST does not show them.
const HIDDEN_FIELDS: &[&str] =
    &["_id", "dbId", "_t", "className", "amsEpoch", "amsNodeId", "amsIncarnation", "amsSession", "amsHost"];

impl BroadcastRecord {
    /// The status as every reader must see it at `now_ms`: one that says it is live but was not confirmed for
    /// [`STALE_AFTER_MS`] reads as `terminated_unexpectedly`. Virtual streams have no publisher and keep their word.
    pub fn effective_status(&self, now_ms: i64) -> Status {
        let stored = self.status.as_deref().map_or(Status::Unset, Status::from_wire);
        let stale = now_ms.saturating_sub(self.update_time) >= STALE_AFTER_MS;
        if stored.is_held() && stale && !self.is_virtual { Status::TerminatedUnexpectedly } else { stored }
    }

    /// Whether a publisher holds the id at `now_ms`: effectively `preparing` or `broadcasting`.
    pub fn is_held(&self, now_ms: i64) -> bool {
        self.effective_status(now_ms).is_held()
    }

    /// Whether its stored word is `broadcasting`, confirmed at `since` (ms since 1970) or later.
    pub fn is_broadcasting_since(&self, since: i64) -> bool {
        self.status.as_deref() == Some(Status::Broadcasting.as_str()) && self.update_time >= since
    }

    /// The epoch of the last claim; 0 before the first.
    pub fn epoch(&self) -> Epoch {
        epoch_from_stored(self.ams_epoch)
    }

    /// Whether the last to take the stream was one of our nodes, and not another program since.
    fn is_claimed_by_us(&self) -> bool {
        self.ams_host.is_some() && self.ams_host == self.origin_address
    }

    /// Who held the stream by what is stored, however old that is; none if nobody did.
    pub fn last_holder(&self) -> Option<Holder> {
        let held = self.status.as_deref().is_some_and(|status| Status::from_wire(status).is_held());
        held.then(|| Holder::of(self, self.update_time))
    }

    /// The node that holds or last held the stream; `None` when another program does.
    pub fn owner_node(&self) -> Option<NodeId> {
        if self.is_claimed_by_us() { self.ams_node_id.as_deref()?.parse().ok() } else { None }
    }

    /// The run of that node's process.
    pub fn owner_incarnation(&self) -> Option<Incarnation> {
        if self.is_claimed_by_us() { self.ams_incarnation.as_deref().and_then(incarnation_from_stored) } else { None }
    }

    /// The publisher's session on that node.
    pub fn owner_session(&self) -> Option<&str> {
        if self.is_claimed_by_us() { self.ams_session.as_deref() } else { None }
    }

    /// What REST shows at `now_ms`: every known field, unset ones as null, the effective status, and unknown fields.
    /// Ownership and mapper fields are left out.
    pub fn to_rest_json(&self, now_ms: i64) -> JsonMap {
        let mut shown: JsonMap = self.extra.clone();
        for (name, field) in self.fields() {
            shown.insert(name.to_owned(), field.to_json());
        }
        for hidden in HIDDEN_FIELDS {
            shown.remove(*hidden);
        }
        if self.status.is_some() {
            shown.insert("status".to_owned(), Value::from(self.effective_status(now_ms).as_str()));
        }
        shown
    }

    /// Known fields that an upsert may change.
    pub(crate) fn descriptive_fields(&self) -> Changes {
        let mut fields = self.fields();
        fields.retain(|(name, _)| *name != "streamId" && !PUBLICATION_FIELDS.contains(name));
        fields
    }

    /// Known fields that only an insert writes.
    pub(crate) fn publication_fields(&self) -> Changes {
        let mut fields = self.fields();
        fields.retain(|(name, _)| PUBLICATION_FIELDS.contains(name));
        fields
    }

    /// Unknown fields an insert may write: none that the stores use themselves.
    pub(crate) fn insertable_extra(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.extra.iter().filter(|(name, _)| {
            !HIDDEN_FIELDS.contains(&name.as_str()) && !name.is_empty() && !name.starts_with('$') && !name.contains('.')
        })
    }
}

impl fmt::Debug for BroadcastRecord {
    /// Leaves out what may be private: credentials, addresses, metadata.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastRecord")
            .field("stream_id", &self.stream_id)
            .field("status", &self.status)
            .field("origin_address", &self.origin_address)
            .field("update_time", &self.update_time)
            .field("zombi", &self.zombi)
            .field("ams_epoch", &self.ams_epoch)
            .field("ams_node_id", &self.ams_node_id)
            .finish_non_exhaustive()
    }
}

/// A stored epoch; nonsense reads as 0, the epoch before the first.
pub(crate) fn epoch_from_stored(stored: i64) -> Epoch {
    if (0..=EPOCH_MAX).contains(&stored) { Epoch(stored.unsigned_abs()) } else { Epoch(0) }
}

/// An epoch as documents hold it.
pub(crate) fn epoch_to_stored(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(EPOCH_MAX).min(EPOCH_MAX)
}

pub(crate) fn incarnation_from_stored(stored: &str) -> Option<Incarnation> {
    u64::from_str_radix(stored, 16).ok().map(Incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::field::Stored;
    use serde_json::json;

    fn record(document: Value) -> (BroadcastRecord, Vec<&'static str>) {
        BroadcastRecord::from_json(<JsonMap as Stored>::from_json(document).unwrap())
    }

    #[test]
    fn a_record_nobody_confirms_reads_as_terminated() {
        const NOW: i64 = 1_000_000;
        for (name, stored, update_time, is_virtual, want) in [
            ("confirmed now", "broadcasting", NOW, false, Status::Broadcasting),
            ("one ms short", "broadcasting", NOW - 19_999, false, Status::Broadcasting),
            ("at the limit", "broadcasting", NOW - 20_000, false, Status::TerminatedUnexpectedly),
            ("preparing too", "preparing", NOW - 20_000, false, Status::TerminatedUnexpectedly),
            ("never confirmed", "broadcasting", 0, false, Status::TerminatedUnexpectedly),
            ("confirmed by a clock ahead of ours", "broadcasting", NOW + 60_000, false, Status::Broadcasting),
            ("furthest in the past", "broadcasting", i64::MIN, false, Status::TerminatedUnexpectedly),
            ("furthest in the future", "broadcasting", i64::MAX, false, Status::Broadcasting),
            ("a room", "broadcasting", 0, true, Status::Broadcasting),
            ("finished stays", "finished", 0, false, Status::Finished),
            ("created stays", "created", 0, false, Status::Created),
            ("a word of the future", "warming_up", 0, false, Status::Other("warming_up".into())),
            ("none", "", 0, false, Status::Unset),
        ] {
            let record = BroadcastRecord {
                status: (!stored.is_empty()).then(|| stored.to_owned()),
                update_time,
                is_virtual,
                ..BroadcastRecord::default()
            };
            assert_eq!(record.effective_status(NOW), want, "{name}");
        }
    }

    #[test]
    fn rest_shows_nulls_defaults_unknown_fields_and_no_ownership() {
        let (record, misread) = record(json!({
            "_id": "x", "className": "io.x", "streamId": "s", "status": "broadcasting", "updateTime": 1,
            "conferenceMode": "lowlatency", "amsEpoch": 7, "amsNodeId": "n"
        }));
        assert!(misread.is_empty());
        let shown = record.to_rest_json(100_000);
        for (name, want) in [
            ("streamId", json!("s")),
            ("status", json!("terminated_unexpectedly")),
            ("name", Value::Null),
            ("webRTCViewerLimit", json!(-1)),
            ("type", json!("liveStream")),
            ("conferenceMode", json!("lowlatency")),
            ("virtual", json!(false)),
            ("is360", json!(false)),
        ] {
            assert_eq!(shown.get(name), Some(&want), "{name}");
        }
        for hidden in HIDDEN_FIELDS {
            assert!(!shown.contains_key(*hidden), "{hidden}");
        }
    }

    #[test]
    fn every_publication_field_is_a_field() {
        let known: Vec<_> = BroadcastRecord::default().fields().into_iter().map(|(name, _)| name).collect();
        for name in PUBLICATION_FIELDS {
            assert!(known.contains(name), "{name}");
        }
    }

    #[test]
    fn an_epoch_that_makes_no_sense_counts_as_none() {
        for (name, stored, want) in [
            ("none", 0, 0),
            ("plain", 7, 7),
            ("negative", -1, 0),
            ("the largest", EPOCH_MAX, EPOCH_MAX as u64),
            ("one more", EPOCH_MAX + 1, 0),
            ("furthest", i64::MAX, 0),
        ] {
            assert_eq!(epoch_from_stored(stored), Epoch(want), "{name}");
        }
    }
}
