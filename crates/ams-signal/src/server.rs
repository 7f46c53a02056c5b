//! What the server says, with the field names and the spelling AMS's clients expect.
//!
//! Owns rendering only. Fields that are `None` are left out, except where clients expect an explicit `null`.

use std::collections::BTreeMap;

use serde::Serialize;

/// One rendition in `streamInformation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendition {
    /// Picture width in pixels, 0 if unknown.
    pub stream_width: u32,
    /// Picture height in pixels, 0 if unknown.
    pub stream_height: u32,
    /// Video bits per second.
    pub video_bitrate: u64,
    /// Audio bits per second.
    pub audio_bitrate: u64,
    /// Codec name as AMS writes it.
    pub video_codec: String,
}

/// One frame of the server. `command` is its tag.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ServerMessage {
    /// Answers `ping`.
    Pong,
    /// Asks a publisher for its offer.
    Start {
        /// The stream.
        stream_id: String,
        /// As the client gave it, or null.
        subscriber_id: Option<String>,
    },
    /// An answer to a publisher or an offer to a viewer. Its SDP carries every candidate, so no `takeCandidate` of
    /// ours ever follows.
    TakeConfiguration {
        /// The stream.
        stream_id: String,
        /// `offer` or `answer`.
        #[serde(rename = "type")]
        kind: &'static str,
        /// The description.
        sdp: String,
        /// MID → track id. Every offer carries it: the SDK throws without.
        #[serde(skip_serializing_if = "Option::is_none")]
        id_mapping: Option<BTreeMap<String, String>>,
        /// Always null.
        link_session: Option<String>,
        /// As the client gave it, or null.
        subscriber_id: Option<String>,
    },
    /// Something happened.
    Notification(Notification),
    /// Something was refused or went wrong.
    Error(ErrorFrame),
    /// Answers `getStreamInfo`.
    StreamInformation {
        /// The stream.
        stream_id: String,
        /// Its renditions; always an array.
        stream_info: Vec<Rendition>,
    },
    /// Answers `getTrackList`.
    TrackList {
        /// The stream.
        stream_id: String,
        /// Track ids.
        track_list: Vec<String>,
    },
    /// Answers `getIceServerConfig`. An empty URI leaves the SDK with its own default.
    IceServerConfig {
        /// `stun:…` or `turn:…`; the name of the key is the same for both.
        stun_server_uri: String,
        /// TURN user.
        turn_server_username: String,
        /// TURN password.
        turn_server_credential: String,
    },
}

/// The body of a notification.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Which one, out of [`crate::words`].
    pub definition: String,
    /// The stream, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// As the client gave it; the outer `None` leaves the field out, the inner one writes null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_id: Option<Option<String>>,
    /// A sentence for the person at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub information: Option<String>,
    /// Whether a push command worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
    /// The record as JSON text, for `broadcastObject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<String>,
    /// A count, for `subscriberCount` and `subtrackCount`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// For `subscriberList`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_list: Option<Vec<String>>,
    /// For `subtrackList`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtrack_list: Option<Vec<String>>,
    /// For `getDebugInfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_info: Option<String>,
    /// Height of the picture from now on, for `resolutionChangeInfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_height: Option<u32>,
    /// For `bitrateMeasurement`: what the path carries, bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bitrate: Option<u64>,
    /// For `bitrateMeasurement`: video sent, bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_bitrate: Option<u64>,
    /// For `bitrateMeasurement`: audio sent, bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_bitrate: Option<u64>,
    /// The room under its old key.
    #[serde(rename = "ATTR_ROOM_NAME", skip_serializing_if = "Option::is_none")]
    pub attr_room_name: Option<String>,
    /// The room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
}

/// The body of an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorFrame {
    /// Which one, out of [`crate::words`].
    pub definition: String,
    /// The stream, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// As for notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber_id: Option<Option<String>>,
    /// `404` with `no_stream_exist`. The key is spelled with an underscore.
    #[serde(rename = "error_code", skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    /// A word players act on, or a sentence for the person at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub information: Option<String>,
    /// The room, for room errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
}

impl ServerMessage {
    /// The text frame.
    pub fn to_json(&self) -> String {
        // Only strings, numbers and string-keyed maps inside: rendering cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<Notification> for ServerMessage {
    fn from(notification: Notification) -> Self {
        Self::Notification(notification)
    }
}

impl From<ErrorFrame> for ServerMessage {
    fn from(error: ErrorFrame) -> Self {
        Self::Error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spelled_as_clients_read_them() {
        let subscriber = Some("sub".to_owned());
        for (name, message, want) in [
            ("pong", ServerMessage::Pong, r#"{"command":"pong"}"#),
            (
                "start",
                ServerMessage::Start { stream_id: "s".into(), subscriber_id: None },
                r#"{"command":"start","streamId":"s","subscriberId":null}"#,
            ),
            (
                "offer",
                ServerMessage::TakeConfiguration {
                    stream_id: "s".into(),
                    kind: "offer",
                    sdp: "v=0\r\n".into(),
                    id_mapping: Some([("0".to_owned(), "s".to_owned())].into()),
                    link_session: None,
                    subscriber_id: subscriber.clone(),
                },
                concat!(
                    r#"{"command":"takeConfiguration","streamId":"s","type":"offer","sdp":"v=0\r\n","#,
                    r#""idMapping":{"0":"s"},"linkSession":null,"subscriberId":"sub"}"#
                ),
            ),
            (
                "notification",
                Notification {
                    definition: "play_started".into(),
                    stream_id: Some("s".into()),
                    subscriber_id: Some(subscriber),
                    ..Default::default()
                }
                .into(),
                r#"{"command":"notification","definition":"play_started","streamId":"s","subscriberId":"sub"}"#,
            ),
            (
                "error",
                ErrorFrame {
                    definition: "no_stream_exist".into(),
                    stream_id: Some("s".into()),
                    error_code: Some("404"),
                    information: Some("stream_not_exist_or_not_streaming".into()),
                    ..Default::default()
                }
                .into(),
                concat!(
                    r#"{"command":"error","definition":"no_stream_exist","streamId":"s","error_code":"404","#,
                    r#""information":"stream_not_exist_or_not_streaming"}"#
                ),
            ),
            (
                "stream information",
                ServerMessage::StreamInformation { stream_id: "s".into(), stream_info: vec![Rendition::default()] },
                concat!(
                    r#"{"command":"streamInformation","streamId":"s","streamInfo":[{"streamWidth":0,"#,
                    r#""streamHeight":0,"videoBitrate":0,"audioBitrate":0,"videoCodec":""}]}"#
                ),
            ),
            (
                "ice servers",
                ServerMessage::IceServerConfig {
                    stun_server_uri: "turn:t".into(),
                    turn_server_username: "u".into(),
                    turn_server_credential: "c".into(),
                },
                concat!(
                    r#"{"command":"iceServerConfig","stunServerUri":"turn:t","turnServerUsername":"u","#,
                    r#""turnServerCredential":"c"}"#
                ),
            ),
        ] {
            assert_eq!(message.to_json(), want, "{name}");
        }
    }
}
