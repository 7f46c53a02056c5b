//! Calls for what this server does not do: they exist, and answer as AMS does for a feature that is off.
//!
//! Owns the table of them. A client that lists finds nothing, one that asks for something to be done is told no.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::outcome::{Outcome, json as answer};
use super::table::Entry;

/// Said of cameras, pulled sources and playlists.
pub(super) const SOURCES_OFF: &str = "Pulling streams from other sources is not supported by this server";
const PLAYLISTS: &str = "Playlists are not supported by this server";
const ENDPOINTS: &str = "Restreaming to endpoints is not supported by this server";
const RECORDING: &str = "Recording is not supported by this server";
const HLS: &str = "HLS is not supported by this server";
const ROOMS: &str = "Conference rooms are broadcasts with virtual:true; this older call is not supported";
const VODS: &str = "Recorded files are not supported by this server";
const PUSH: &str = "Push notifications are not supported by this server";
const DETECTION: &str = "Object detection is not supported by this server";

/// What a call that does nothing answers.
#[derive(Clone, Copy)]
enum Off {
    /// `success:false` with a sentence.
    Says(&'static str),
    /// `success:false` without one.
    No,
    /// An empty list.
    List,
    /// The number 0.
    Count,
    /// A VoD that is none.
    NoVod,
    /// Statistics nobody has, under these two names.
    NoStats(&'static str, &'static str),
}

/// Method, path below `/{app}/rest/v2`, answer.
const TABLE: &[(&str, &str, Off)] = &[
    ("POST", "/broadcasts/playlists/{id}/next", Off::Says(PLAYLISTS)),
    ("PUT", "/broadcasts/{id}/seek-time/{ms}", Off::Says(SOURCES_OFF)),
    ("GET", "/broadcasts/duration", Off::Says(SOURCES_OFF)),
    ("POST", "/broadcasts/{id}/endpoint", Off::Says(ENDPOINTS)),
    ("DELETE", "/broadcasts/{id}/endpoint", Off::Says(ENDPOINTS)),
    ("POST", "/broadcasts/{id}/rtmp-endpoint", Off::Says(ENDPOINTS)),
    ("DELETE", "/broadcasts/{id}/rtmp-endpoint", Off::Says(ENDPOINTS)),
    ("PUT", "/broadcasts/{id}/recording/{on}", Off::Says(RECORDING)),
    ("POST", "/broadcasts/{id}/id3", Off::Says(HLS)),
    ("POST", "/broadcasts/{id}/sei", Off::Says(HLS)),
    ("POST", "/broadcasts/{id}/hls-to-mp4", Off::Says(HLS)),
    ("GET", "/broadcasts/onvif-devices", Off::List),
    ("GET", "/broadcasts/{id}/ip-camera/device-profiles", Off::List),
    ("POST", "/broadcasts/{id}/ip-camera/move", Off::Says(SOURCES_OFF)),
    ("POST", "/broadcasts/{id}/ip-camera/stop-move", Off::Says(SOURCES_OFF)),
    ("GET", "/broadcasts/{id}/ip-camera-error", Off::Says(SOURCES_OFF)),
    ("GET", "/broadcasts/{id}/webrtc-client-stats/{offset}/{size}", Off::List),
    ("GET", "/broadcasts/webrtc-send-low-level-stats", Off::NoStats("audioSendStats", "videoSendStats")),
    ("GET", "/broadcasts/webrtc-receive-low-level-stats", Off::NoStats("audioReceiveStats", "videoReceiveStats")),
    ("GET", "/broadcasts/{id}/metrics-history", Off::List),
    ("GET", "/broadcasts/{id}/detections", Off::List),
    ("GET", "/broadcasts/{id}/detections/{offset}/{size}", Off::List),
    ("GET", "/broadcasts/{id}/detections/count", Off::Count),
    ("PUT", "/broadcasts/{id}/object-detection/{on}", Off::Says(DETECTION)),
    ("POST", "/broadcasts/conference-rooms", Off::Says(ROOMS)),
    ("GET", "/broadcasts/conference-rooms/list/{offset}/{size}", Off::List),
    ("GET", "/broadcasts/conference-rooms/{room}", Off::Says(ROOMS)),
    ("PUT", "/broadcasts/conference-rooms/{room}", Off::Says(ROOMS)),
    ("DELETE", "/broadcasts/conference-rooms/{room}", Off::Says(ROOMS)),
    ("GET", "/broadcasts/conference-rooms/{room}/room-info", Off::Says(ROOMS)),
    ("PUT", "/broadcasts/conference-rooms/{room}/add", Off::Says(ROOMS)),
    ("PUT", "/broadcasts/conference-rooms/{room}/delete", Off::Says(ROOMS)),
    ("GET", "/vods/{vod}", Off::NoVod),
    ("DELETE", "/vods/{vod}", Off::No),
    ("DELETE", "/vods", Off::No),
    ("DELETE", "/vods/", Off::No),
    ("GET", "/vods/list/{offset}/{size}", Off::List),
    ("GET", "/vods/count", Off::Count),
    ("GET", "/vods/count/{search}", Off::Count),
    ("POST", "/vods/create", Off::Says(VODS)),
    ("POST", "/vods/directory", Off::Says(VODS)),
    ("DELETE", "/vods/directory", Off::Says(VODS)),
    ("POST", "/vods/import-to-stalker", Off::Says(VODS)),
    ("GET", "/push-notification/subscriber-auth-token", Off::Says(PUSH)),
    ("POST", "/push-notification/subscribers", Off::Says(PUSH)),
    ("POST", "/push-notification/topics/{topic}", Off::Says(PUSH)),
];

/// The calls of the table.
pub(super) fn calls() -> impl Iterator<Item = Entry> {
    TABLE.iter().map(|(method, path, off)| {
        let off = *off;
        Entry::new(method, path, move || async move { off.into_response() }).off()
    })
}

impl IntoResponse for Off {
    fn into_response(self) -> Response {
        let body = match self {
            Self::Says(sentence) => return Outcome::failed(sentence).into_response(),
            Self::No => return Outcome::not_done().into_response(),
            Self::List => json!([]),
            Self::Count => json!({ "number": 0 }),
            Self::NoStats(audio, video) => json!({ audio: null, video: null }),
            Self::NoVod => no_vod(),
        };
        answer(StatusCode::OK, &body)
    }
}

/// AMS answers for a file it does not have with one that has no values.
fn no_vod() -> Value {
    json!({
        "streamName": null, "vodName": null, "streamId": null, "creationDate": 0, "startTime": 0, "duration": 0,
        "fileSize": 0, "filePath": null, "vodId": null, "type": null, "previewFilePath": null, "processStatus": null,
        "processStartTime": 0, "processEndTime": 0, "description": null, "metadata": null, "latitude": null,
        "longitude": null, "altitude": null,
    })
}
