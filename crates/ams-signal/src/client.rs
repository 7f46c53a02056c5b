//! What clients say: JSON text to [`ClientMessage`], as leniently as AMS reads it.
//!
//! Owns parsing and nothing that acts. A field of the wrong type counts as absent, `null` counts as absent, unknown
//! fields are ignored, and anything that is not an object with a `command` is not a message at all.

use serde_json::{Map, Value};

use crate::effect::{Credentials, Media, Steer};

/// Longest accepted text frame in bytes. AMS's own buffer is 81,920 bytes; escaped SDP may need more.
pub const MESSAGE_LEN_MAX: usize = 128 * 1024;
/// Longest accepted short field (ids, tokens, names) in bytes; a longer one counts as absent.
pub const FIELD_LEN_MAX: usize = 4096;

/// Longest accepted token in bytes, as the rules take it; a longer one counts as absent.
pub const TOKEN_LEN_MAX: usize = 8 * 1024;

/// One message of a client: its command and the stream it is about, not yet validated.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientMessage {
    /// The stream id as sent; `None` when absent, null, empty or not text.
    pub stream_id: Option<String>,
    /// Echoed in what answers it; `None` when absent, null or not text.
    pub subscriber_id: Option<String>,
    /// What is asked.
    pub command: Command,
}

/// Every command of the protocol. Those of features this server lacks are kept apart from unknown words, because
/// some of them are owed an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Keepalive.
    Ping,
    /// Which STUN or TURN server to use. Carries no stream id.
    GetIceServerConfig,
    /// Wants to publish; the client offers next.
    Publish {
        /// Display name, or empty.
        stream_name: String,
        /// Room or main track, or empty.
        main_track: String,
        /// Free text; an object is kept as its JSON text.
        meta_data: String,
        /// Absent means true.
        video: bool,
        /// Absent means true.
        audio: bool,
        /// To be let in with.
        credentials: Credentials,
    },
    /// Wants to watch; the server offers next.
    Play {
        /// To be let in with.
        credentials: Credentials,
        /// Room, or empty.
        room: String,
        /// Track ids to enable; `!` in front disables one.
        track_list: Vec<String>,
    },
    /// Ends whatever this socket does with the stream.
    Stop,
    /// A session description.
    TakeConfiguration {
        /// What kind it is.
        kind: SdpKind,
        /// The description; `None` when absent or not text.
        sdp: Option<String>,
    },
    /// A trickled candidate; empty at the end of candidates.
    TakeCandidate {
        /// `candidate:…`, or empty.
        candidate: String,
        /// The m-line's index; 0 when absent.
        label: u32,
        /// The m-line's id; `0` when absent or null, as AMS reads it.
        id: String,
    },
    /// What a viewer wants of its stream from now on.
    Steer(Steer),
    /// Renditions of a live stream.
    GetStreamInfo,
    /// The stored record.
    GetBroadcastObject,
    /// Track ids of a live stream.
    GetTrackList,
    /// Number of registered subscribers.
    GetSubscriberCount,
    /// Registered subscribers.
    GetSubscribers,
    /// Subtracks of a main track.
    GetSubtracks,
    /// Number of subtracks.
    GetSubtracksCount,
    /// Text for a developer.
    GetDebugInfo,
    /// Old conference entry.
    JoinRoom {
        /// Room, or empty.
        room: String,
    },
    /// Old conference exit.
    LeaveFromRoom {
        /// Room, or empty.
        room: String,
    },
    /// Members of a room.
    GetRoomInfo {
        /// Room, or empty.
        room: String,
    },
    /// A message for the other peer of a peer-to-peer session.
    PeerMessage,
    /// Push notification commands; the word is echoed.
    Push(String),
    /// A known command that asks for nothing back: conference switches, peer-to-peer entry.
    Silent(String),
    /// A word nobody knows.
    Unknown(String),
}

/// The type of a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdpKind {
    /// From a publisher.
    Offer,
    /// From a viewer.
    Answer,
    /// `pranswer`, `rollback`, absent or not text.
    Other,
}

/// Commands that are understood and need neither action nor answer while their features are absent.
const SILENT: [&str; 9] = [
    "updateStreamMetaData",
    "getVideoTrackAssignmentsCommand",
    "assignVideoTrackCommand",
    "updateVideoTrackAssignmentsCommand",
    "setMaxVideoTrackCountCommand",
    "join",
    "leave",
    "connectWithNewId",
    "addSubtrack",
];

impl ClientMessage {
    /// Reads one text frame. `None` for what is not a message: too long, not JSON, not an object, no `command`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MESSAGE_LEN_MAX {
            return None;
        }
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return None };
        let fields = Fields(fields);
        let word = fields.text("command")?;
        Some(Self {
            stream_id: fields.long_text("streamId").filter(|id| !id.is_empty()),
            subscriber_id: fields.text("subscriberId"),
            command: fields.command(word),
        })
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn long_text(&self, key: &str) -> Option<String> {
        self.0.get(key)?.as_str().map(str::to_owned)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.0.get(key)?.as_str().filter(|text| text.len() <= FIELD_LEN_MAX).map(str::to_owned)
    }

    fn word(&self, key: &str) -> String {
        self.text(key).unwrap_or_default()
    }

    fn credentials(&self) -> Credentials {
        Credentials {
            token: self.long_text("token").filter(|token| token.len() <= TOKEN_LEN_MAX).unwrap_or_default(),
            subscriber_id: self.word("subscriberId"),
            subscriber_code: self.word("subscriberCode"),
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(true)
    }

    fn free_text(&self, key: &str) -> String {
        match self.0.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Object(_) | Value::Array(_))) => value.to_string(),
            _ => String::new(),
        }
    }

    fn list(&self, key: &str) -> Vec<String> {
        let Some(Value::Array(items)) = self.0.get(key) else { return Vec::new() };
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn command(&self, word: String) -> Command {
        match word.as_str() {
            "ping" => Command::Ping,
            "getIceServerConfig" => Command::GetIceServerConfig,
            "publish" => Command::Publish {
                stream_name: self.word("streamName"),
                main_track: self.word("mainTrack"),
                meta_data: self.free_text("metaData"),
                video: self.flag("video"),
                audio: self.flag("audio"),
                credentials: self.credentials(),
            },
            "play" => Command::Play {
                credentials: self.credentials(),
                room: self.word("room"),
                track_list: self.list("trackList"),
            },
            "stop" => Command::Stop,
            "takeConfiguration" => Command::TakeConfiguration {
                kind: match self.0.get("type").and_then(Value::as_str) {
                    Some("offer") => SdpKind::Offer,
                    Some("answer") => SdpKind::Answer,
                    _ => SdpKind::Other,
                },
                sdp: self.long_text("sdp"),
            },
            "takeCandidate" => Command::TakeCandidate {
                candidate: self.word("candidate"),
                label: self.0.get("label").and_then(Value::as_u64).and_then(|n| n.try_into().ok()).unwrap_or(0),
                id: self.text("id").unwrap_or_else(|| "0".into()),
            },
            "forceStreamQuality" => Command::Steer(Steer::Quality { height: self.number("streamHeight") }),
            "toggleVideo" => self.switch(Media::Video),
            "toggleAudio" => self.switch(Media::Audio),
            "enableTrack" => self.switch(Media::Track(self.word("trackId"))),
            "getStreamInfo" => Command::GetStreamInfo,
            "getBroadcastObject" => Command::GetBroadcastObject,
            "getTrackList" => Command::GetTrackList,
            "getSubscriberCount" => Command::GetSubscriberCount,
            "getSubscribers" => Command::GetSubscribers,
            "getSubtracks" => Command::GetSubtracks,
            "getSubtracksCount" => Command::GetSubtracksCount,
            "getDebugInfo" => Command::GetDebugInfo,
            "joinRoom" => Command::JoinRoom { room: self.room() },
            "leaveFromRoom" => Command::LeaveFromRoom { room: self.room() },
            "getRoomInfo" => Command::GetRoomInfo { room: self.room() },
            "peerMessageCommand" => Command::PeerMessage,
            "registerPushNotificationToken" | "sendPushNotification" => Command::Push(word),
            known if SILENT.contains(&known) => Command::Silent(word),
            _ => Command::Unknown(word),
        }
    }

    /// A count, as a number or as the text an HTML form makes of it; 0 for anything else.
    fn number(&self, key: &str) -> u32 {
        let number = self.0.get(key).and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        number.and_then(|number| number.try_into().ok()).unwrap_or(0)
    }

    fn switch(&self, media: Media) -> Command {
        Command::Steer(Steer::Switch { media, on: self.flag("enabled") })
    }

    /// Newer SDKs name the room `mainTrack`.
    fn room(&self) -> String {
        self.text("room").filter(|room| !room.is_empty()).unwrap_or_else(|| self.word("mainTrack"))
    }
}

impl Command {
    /// Whether the command is about the connection and needs no stream id.
    pub fn is_streamless(&self) -> bool {
        matches!(self, Self::Ping | Self::GetIceServerConfig | Self::Push(_))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_a_message_is_none() {
        for (name, text) in [
            ("empty", ""),
            ("truncated", r#"{"command":"publish","streamId":"a"#),
            ("array", r#"["command","ping"]"#),
            ("string", r#""ping""#),
            ("no command", r#"{"streamId":"a"}"#),
            ("null command", r#"{"command":null}"#),
            ("number for a command", r#"{"command":7}"#),
            ("two objects", r#"{"command":"ping"}{"command":"ping"}"#),
            ("deep nesting", &format!(r#"{{"command":"ping","x":{}"#, "[".repeat(100_000))),
            ("too long", &format!(r#"{{"command":"ping","x":"{}"}}"#, "x".repeat(MESSAGE_LEN_MAX))),
        ] {
            assert_eq!(ClientMessage::parse(text), None, "{name}");
        }
    }

    #[test]
    fn wrong_types_count_as_absent() {
        let message = ClientMessage::parse(
            r#"{"command":"publish","streamId":7,"subscriberId":[],"video":"no","audio":null,"token":null,
                "streamName":{},"mainTrack":1,"metaData":{"a":1},"extra":true}"#,
        )
        .unwrap();
        assert_eq!((message.stream_id, message.subscriber_id), (None, None));
        assert_eq!(
            message.command,
            Command::Publish {
                stream_name: String::new(),
                main_track: String::new(),
                meta_data: r#"{"a":1}"#.into(),
                video: true,
                audio: true,
                credentials: Credentials::default(),
            }
        );
    }

    #[test]
    fn credentials_are_bounded_and_never_printed() {
        let long = "t".repeat(TOKEN_LEN_MAX);
        for (name, token, code, want) in [
            ("usual", "secret-token", "123456", ("secret-token", "123456")),
            ("a long token", &long, "", (long.as_str(), "")),
            ("too long a token", &format!("{long}t"), "1", ("", "1")),
            ("too long a code", "t", &"c".repeat(FIELD_LEN_MAX + 1), ("t", "")),
        ] {
            for command in ["publish", "play"] {
                let text = json!({"command": command, "streamId": "s", "subscriberId": "sub", "token": token,
                    "subscriberCode": code, "room": "r"});
                let message = ClientMessage::parse(&text.to_string()).unwrap();
                let shown = format!("{message:?}");
                let (Command::Publish { credentials, .. } | Command::Play { credentials, .. }) = message.command else {
                    panic!("{command}")
                };
                assert_eq!((credentials.token.as_str(), credentials.subscriber_code.as_str()), want, "{name}");
                assert_eq!(credentials.subscriber_id, "sub");
                assert!(!shown.contains("secret-token") && !shown.contains("123456"), "{shown}");
            }
        }
    }

    #[test]
    fn candidates_are_read_as_ams_reads_them() {
        for (name, text, want) in [
            ("full", r#""label":1,"id":"v","candidate":"candidate:1""#, ("candidate:1", 1, "v")),
            ("null id", r#""label":0,"id":null,"candidate":"c""#, ("c", 0, "0")),
            ("end of candidates", r#""label":0,"id":"0","candidate":"""#, ("", 0, "0")),
            ("label as text", r#""label":"1","candidate":"c""#, ("c", 0, "0")),
            ("negative label", r#""label":-1,"candidate":"c""#, ("c", 0, "0")),
            ("nothing", r#""x":0"#, ("", 0, "0")),
        ] {
            let message =
                ClientMessage::parse(&format!(r#"{{"command":"takeCandidate","streamId":"s",{text}}}"#)).unwrap();
            let want = Command::TakeCandidate { candidate: want.0.into(), label: want.1, id: want.2.into() };
            assert_eq!(message.command, want, "{name}");
        }
    }

    #[test]
    fn long_descriptions_fit_and_long_names_do_not() {
        let sdp = "a".repeat(80 * 1024);
        let text = format!(r#"{{"command":"takeConfiguration","streamId":"s","type":"offer","sdp":"{sdp}"}}"#);
        let Command::TakeConfiguration { kind: SdpKind::Offer, sdp: Some(got) } =
            ClientMessage::parse(&text).unwrap().command
        else {
            panic!("not an offer")
        };
        assert_eq!(got.len(), sdp.len());
        let text = format!(r#"{{"command":"stop","streamId":"s","subscriberId":"{}"}}"#, "x".repeat(FIELD_LEN_MAX + 1));
        assert_eq!(ClientMessage::parse(&text).unwrap().subscriber_id, None);
    }
}
