//! The port's words to the session machine's, and back.
//!
//! Owns nothing but the mapping.

use ams_registry::BroadcastRecord;
use ams_signal::{End, PlayWish, PublishWish};
use ams_types::StreamKey;

use crate::port::{Caller, Credentials, EndReason, PlayRequest, PublishRequest, Refusal, Rendition};

/// Fields of a record that are for operators: a viewer's page gets them as null.
const PRIVATE_FIELDS: [&str; 10] = [
    "username",
    "password",
    "ipAddr",
    "remoteIp",
    "listenerHookURL",
    "streamUrl",
    "rtmpURL",
    "endPointList",
    "playListItemList",
    "userAgent",
];

pub(super) fn publish_request(key: StreamKey, caller: Caller, wish: PublishWish) -> PublishRequest {
    PublishRequest {
        key,
        caller,
        stream_name: wish.stream_name,
        meta_data: wish.meta_data,
        main_track: wish.main_track,
        credentials: credentials(wish.credentials),
    }
}

pub(super) fn play_request(key: StreamKey, caller: Caller, wish: PlayWish) -> PlayRequest {
    // The SDK cannot say whether it wants a data channel: it expects to be offered one.
    PlayRequest { key, caller, data_channel: true, room: wish.room, credentials: credentials(wish.credentials) }
}

fn credentials(said: ams_signal::Credentials) -> Credentials {
    Credentials::new(said.token, said.subscriber_id, said.subscriber_code)
}

pub(super) fn refusal_of(refusal: &Refusal) -> ams_signal::Refusal {
    let sentence = refusal.to_string();
    match refusal {
        Refusal::NotLive(_) => ams_signal::Refusal::NotLive,
        Refusal::InUse(_) => ams_signal::Refusal::InUse(sentence),
        Refusal::EdgeTakesNoPublishers(_) | Refusal::OriginTakesNoViewers => ams_signal::Refusal::NotAllowed(sentence),
        Refusal::Denied(denial) => ams_signal::Refusal::Denied { word: denial.wire_name(), sentence },
        Refusal::RegistryUnavailable => ams_signal::Refusal::DataStore(sentence),
        Refusal::Busy { .. } | Refusal::TooMany { .. } => ams_signal::Refusal::Busy(sentence),
        Refusal::BadDescription(_) => ams_signal::Refusal::BadDescription(sentence),
        Refusal::NoSession => ams_signal::Refusal::Gone,
        Refusal::StaleTag | Refusal::Internal => ams_signal::Refusal::Internal(sentence),
    }
}

pub(super) fn end_of(reason: EndReason) -> End {
    match reason {
        EndReason::ByRequest | EndReason::Gone | EndReason::StreamEnded => End::Finished,
        EndReason::Timeout(sentence) => End::Timeout(sentence),
        EndReason::TransportLost(sentence) | EndReason::ByServer(sentence) => End::Because(sentence),
        EndReason::TakenOver => End::Because("another publication of this stream id took over".into()),
        EndReason::NodeStopping => End::NodeStopping,
    }
}

pub(super) fn rendition_of(rendition: Rendition) -> ams_signal::Rendition {
    ams_signal::Rendition {
        stream_width: rendition.width,
        stream_height: rendition.height,
        video_bitrate: rendition.video_bitrate,
        audio_bitrate: rendition.audio_bitrate,
        video_codec: rendition.video_codec,
    }
}

/// The record as anybody may see it.
pub(super) fn shown_broadcast(record: &BroadcastRecord, now_ms: i64) -> String {
    let mut shown = record.to_rest_json(now_ms);
    for name in PRIVATE_FIELDS {
        if let Some(value) = shown.get_mut(name) {
            *value = serde_json::Value::Null;
        }
    }
    serde_json::Value::Object(shown).to_string()
}
