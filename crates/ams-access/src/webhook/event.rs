//! What happened, and its body.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::form;
use crate::purpose::Purpose;
use crate::secret::MacKey;
use crate::time::UnixMs;

/// Most request parameters a body repeats, and the longest of them, in bytes.
const PARAMS_MAX: usize = 32;
const PARAM_LEN_MAX: usize = 1024;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident => $word:literal,)*) => {
        /// What happened, by AMS's words.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// AMS's word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

actions! {
    /// A stream can be played.
    LiveStreamStarted => "liveStreamStarted",
    /// A stream has ended.
    LiveStreamEnded => "liveStreamEnded",
    /// How a stream is doing; every `webhookStreamStatusUpdatePeriodMs`.
    LiveStreamStatus => "liveStreamStatus",
    /// A recording can be played.
    VodReady => "vodReady",
    /// A publisher sent no media in time.
    PublishTimeoutError => "publishTimeoutError",
    /// An encoder could not be opened.
    EncoderNotOpenedError => "encoderNotOpenedError",
    /// A stream could not be sent on.
    EndpointFailed => "endpointFailed",
    /// A stream was idle for too long.
    IdleTimeIsExpired => "idleTimeIsExpired",
    /// A viewer began.
    PlayStarted => "playStarted",
    /// A viewer ended.
    PlayStopped => "playStopped",
    /// A stream came into a room.
    SubtrackAddedInTheMainTrack => "subtrackAddedInTheMainTrack",
    /// A stream left a room.
    SubtrackLeftTheMainTrack => "subtrackLeftTheMainTrack",
    /// The first stream came into a room.
    FirstActiveTrackAddedInMainTrack => "firstActiveTrackAddedInMainTrack",
    /// The last stream left a room.
    NoActiveSubtracksLeftInMainTrack => "noActiveSubtracksLeftInMainTrack",
    /// The node takes nobody more. To the server's webhook.
    HighResourceUsage => "highResourceUsage",
    /// The node had not been stopped properly. To the server's webhook; AMS sends it as `highResourceUsage`.
    UnexpectedServerShutdown => "unexpectedServerShutdown",
}

/// Tells events apart: the same for every try. Random, or made by [`EventId::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId(pub u128);

impl EventId {
    /// The id of what happens once in a publication: whoever says it, says it under one id. Nobody without `secret` can
    /// guess it.
    pub fn of(secret: &[u8], app: &str, stream_id: &str, epoch: u64, action: Action) -> Self {
        // No id holds a line break.
        let facts = format!("webhook event\n{app}\n{stream_id}\n{epoch}\n{}", action.as_str());
        let mac = MacKey::new(secret).sign(facts.as_bytes());
        Self(mac.iter().take(16).fold(0, |id, byte| id << 8 | u128::from(*byte)))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How a stream is doing, for [`Action::LiveStreamStatus`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamStatus {
    /// Width of the picture.
    pub width: u32,
    /// Height of the picture.
    pub height: u32,
    /// `totalByteReceived`.
    pub received_bytes: u64,
    /// `inputQueueSize`.
    pub input_queue: u64,
    /// Media time per time.
    pub speed: f64,
    /// `encodingQueueSize`.
    pub encoding_queue: u64,
    /// `dropFrameCountInEncoding`.
    pub dropped_frames: u64,
    /// `dropPacketCountInIngestion`.
    pub dropped_packets: u64,
}

/// Something that happened. What is blank is left out of the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// `id`: the stream.
    pub stream_id: String,
    /// The application.
    pub app: String,
    /// The stream's name.
    pub stream_name: Option<String>,
    /// The stream's category.
    pub category: Option<String>,
    /// A recording's name.
    pub vod_name: Option<String>,
    /// A recording's id.
    pub vod_id: Option<String>,
    /// The room; `roomId` says it too.
    pub main_track_id: Option<String>,
    /// Who watches or publishes.
    pub subscriber_id: Option<String>,
    /// Text, sent as what it is if it is JSON.
    pub metadata: Option<String>,
    /// How the stream is doing.
    pub status: Option<StreamStatus>,
    /// `host`, of the server's events.
    pub host: Option<String>,
    /// `resourceInfo`, of [`Action::HighResourceUsage`].
    pub resource_info: Option<String>,
    /// `appNames`, of [`Action::UnexpectedServerShutdown`], with commas between.
    pub app_names: Option<String>,
    /// The parameters the client came with. They never replace what is above; tokens should not be among them.
    pub params: Vec<(String, String)>,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

impl ContentType {
    /// From `webhookContentType`: JSON if it is unset or says so, a form otherwise, as in AMS.
    pub fn from_setting(setting: &str) -> Self {
        let setting = setting.split(';').next().unwrap_or_default().trim();
        if setting.is_empty() || setting.eq_ignore_ascii_case("application/json") { Self::Json } else { Self::Form }
    }

    /// For the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }
}

impl Event {
    /// The body that says that `action` happened at `at`.
    pub fn body(&self, action: Action, id: EventId, at: UnixMs, content_type: ContentType) -> Vec<u8> {
        let fields = self.fields(action, id, at);
        match content_type {
            // Values of JSON are always JSON.
            ContentType::Json => serde_json::to_vec(&InOrder(&fields)).unwrap_or_default(),
            ContentType::Form => form::encode(fields.iter().map(|(key, value)| (*key, text(value)))).into_bytes(),
        }
    }

    fn fields(&self, action: Action, id: EventId, at: UnixMs) -> Vec<(&str, Value)> {
        let mut fields = vec![];
        let mut say = |key, value: Option<&str>| {
            if let Some(value) = value.filter(|value| !value.trim().is_empty()) {
                fields.push((key, Value::from(value)));
            }
        };
        say("id", Some(&self.stream_id));
        say("action", Some(action.as_str()));
        say("streamName", self.stream_name.as_deref());
        say("category", self.category.as_deref());
        say("vodName", self.vod_name.as_deref());
        say("vodId", self.vod_id.as_deref());
        say("mainTrackId", self.main_track_id.as_deref());
        say("roomId", self.main_track_id.as_deref());
        say("subscriberId", self.subscriber_id.as_deref());
        say("app", Some(&self.app));
        say("host", self.host.as_deref());
        say("resourceInfo", self.resource_info.as_deref());
        say("appNames", self.app_names.as_deref());
        if let Some(metadata) = self.metadata.as_deref().filter(|text| !text.trim().is_empty()) {
            fields.push(("metadata", serde_json::from_str(metadata).unwrap_or_else(|_| metadata.into())));
        }
        if let Some(status) = &self.status {
            fields.extend([
                ("width", status.width.into()),
                ("height", status.height.into()),
                ("totalByteReceived", status.received_bytes.into()),
                ("inputQueueSize", status.input_queue.into()),
                ("speed", status.speed.into()),
                ("encodingQueueSize", status.encoding_queue.into()),
                ("dropFrameCountInEncoding", status.dropped_frames.into()),
                ("dropPacketCountInIngestion", status.dropped_packets.into()),
            ]);
        }
        fields.push(("timestamp", at.0.to_string().into()));
        fields.push(("eventId", id.to_string().into()));
        for (key, value) in self.params.iter().take(PARAMS_MAX) {
            let is_new = !key.is_empty() && fields.iter().all(|(known, _)| known != key);
            if is_new && key.len() <= PARAM_LEN_MAX && value.len() <= PARAM_LEN_MAX && !is_ours(key) {
                fields.push((key, value.as_str().into()));
            }
        }
        fields
    }
}

/// Keys that mean something to receivers, said or not: no client may say them.
fn is_ours(key: &str) -> bool {
    let ours = [
        "id",
        "action",
        "streamName",
        "category",
        "vodName",
        "vodId",
        "mainTrackId",
        "roomId",
        "subscriberId",
        "app",
        "host",
        "resourceInfo",
        "appNames",
        "metadata",
        "timestamp",
        "eventId",
    ];
    ours.contains(&key)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An object whose keys keep their order.
struct InOrder<'a>(&'a [(&'a str, Value)]);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// What an application's webhook is asked before somebody publishes (`webhookAuthenticateURL`) or plays
/// (`webhookPlayAuthUrl`).
#[derive(Clone, Copy, Debug)]
pub struct AuthAsk<'a> {
    /// The application.
    pub app: &'a str,
    /// The stream.
    pub stream_id: &'a str,
    /// What for.
    pub purpose: Purpose,
    /// What the client came with: token, subscriber and other parameters. The receiver decides by them.
    pub params: &'a [(String, String)],
    /// The stream's `metaData`.
    pub metadata: Option<&'a str>,
}

/// The JSON body to ask with; the answer is yes if it is [delivered](super::is_delivered) with status 200.
pub fn auth_body(ask: &AuthAsk<'_>) -> Vec<u8> {
    let mode = match ask.purpose {
        Purpose::Publish => "live",
        Purpose::Play => "play",
    };
    let mut fields = vec![
        ("appName", Value::from(ask.app)),
        ("name", ask.stream_id.into()),
        ("streamId", ask.stream_id.into()),
        ("mode", mode.into()),
    ];
    if !ask.params.is_empty() {
        // As Java prints a map.
        let params = ask.params.iter().take(PARAMS_MAX).map(|(key, value)| format!("{key}={value}"));
        fields.push(("queryParams", format!("{{{}}}", params.collect::<Vec<_>>().join(", ")).into()));
    }
    if let Some(metadata) = ask.metadata.filter(|text| !text.is_empty()) {
        fields.push(("metaData", metadata.into()));
    }
    serde_json::to_vec(&InOrder(&fields)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse_body;
    use super::*;

    const AT: UnixMs = UnixMs(1_700_000_000_000);

    fn event() -> Event {
        Event { stream_id: "stream1".into(), app: "live".into(), ..Event::default() }
    }

    fn json(event: &Event, action: Action) -> String {
        String::from_utf8(event.body(action, EventId(5), AT, ContentType::Json)).unwrap()
    }

    #[test]
    fn bodies_say_what_there_is_in_amss_order() {
        let ids = r#""timestamp":"1700000000000","eventId":"00000000000000000000000000000005"}"#;
        assert_eq!(
            json(&event(), Action::LiveStreamStarted),
            format!(r#"{{"id":"stream1","action":"liveStreamStarted","app":"live",{ids}"#)
        );
        let full = Event {
            stream_name: Some("A name".into()),
            category: Some(" ".into()),
            main_track_id: Some("room1".into()),
            subscriber_id: Some("sub1".into()),
            metadata: Some(r#"{"a":[1]}"#.into()),
            ..event()
        };
        assert_eq!(
            json(&full, Action::PlayStarted),
            format!(
                r#"{{"id":"stream1","action":"playStarted","streamName":"A name","mainTrackId":"room1","roomId":"room1","subscriberId":"sub1","app":"live","metadata":{{"a":[1]}},{ids}"#
            )
        );
        let form = full.body(Action::PlayStarted, EventId(5), AT, ContentType::Form);
        assert_eq!(
            String::from_utf8(form).unwrap(),
            "id=stream1&action=playStarted&streamName=A+name&mainTrackId=room1&roomId=room1&subscriberId=sub1&app=live\
             &metadata=%7B%22a%22%3A%5B1%5D%7D&timestamp=1700000000000&eventId=00000000000000000000000000000005"
        );
        let plain = Event { metadata: Some("just {text".into()), ..event() };
        assert!(json(&plain, Action::EndpointFailed).contains(r#""metadata":"just {text""#));
    }

    #[test]
    fn what_happens_once_has_one_id() {
        let id = |secret: &str, stream, epoch, action| EventId::of(secret.as_bytes(), "live", stream, epoch, action);
        let started = id("secret", "s", 1, Action::LiveStreamStarted);
        assert_eq!(started, id("secret", "s", 1, Action::LiveStreamStarted));
        assert!(started.0 >> 64 != 0 && started.0 as u64 != 0);
        for other in [
            id("other", "s", 1, Action::LiveStreamStarted),
            id("secret", "t", 1, Action::LiveStreamStarted),
            id("secret", "s", 2, Action::LiveStreamStarted),
            id("secret", "s", 1, Action::LiveStreamEnded),
        ] {
            assert_ne!(started, other);
        }
    }

    #[test]
    fn every_action_reads_back_in_both_content_types() {
        let mut words = Vec::new();
        for action in Action::ALL {
            for content_type in [ContentType::Json, ContentType::Form] {
                let body = event().body(*action, EventId(5), AT, content_type);
                let read = parse_body(content_type.as_str(), &body).unwrap();
                assert_eq!(read["action"], action.as_str());
                assert_eq!(read["timestamp"], "1700000000000");
            }
            words.push(action.as_str());
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 16);
        assert_eq!(parse_body("text/plain", b"{}"), None);
        assert_eq!(parse_body("application/json; charset=utf-8", b"{}"), Some(Default::default()));
        assert_eq!(parse_body("application/json", &vec![b' '; super::super::BODY_LEN_MAX + 1]), None);
    }

    #[test]
    fn a_status_has_numbers() {
        let status = StreamStatus { width: 1280, height: 720, speed: 1.0, received_bytes: 7, ..Default::default() };
        let body = json(&Event { status: Some(status), ..event() }, Action::LiveStreamStatus);
        assert!(body.contains(
            r#""width":1280,"height":720,"totalByteReceived":7,"inputQueueSize":0,"speed":1.0,"encodingQueueSize":0"#
        ));
        let odd = StreamStatus { speed: f64::NAN, ..status };
        assert!(json(&Event { status: Some(odd), ..event() }, Action::LiveStreamStatus).contains(r#""speed":null"#));
    }

    #[test]
    fn server_events_name_themselves() {
        let down = Event { host: Some("h".into()), app_names: Some("live,test".into()), ..Event::default() };
        let body = json(&down, Action::UnexpectedServerShutdown);
        assert!(
            body.starts_with(r#"{"action":"unexpectedServerShutdown","host":"h","appNames":"live,test","#),
            "{body}"
        );
    }

    #[test]
    fn a_clients_parameters_replace_nothing() {
        let param = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut params = vec![
            param("action", "liveStreamEnded"),
            param("subscriberId", "somebody else"),
            param("vodId", "x"),
            param("", "nameless"),
            param("long", &"x".repeat(PARAM_LEN_MAX + 1)),
            param("mine", "a&b"),
            param("mine", "again"),
        ];
        params.extend((0..100).map(|n| param(&format!("p{n}"), "x")));
        let body = json(&Event { params, ..event() }, Action::LiveStreamStarted);
        assert!(body.contains(r#""mine":"a&b""#));
        for not in ["liveStreamEnded", "somebody else", "vodId", "nameless", "again", "long", "p99"] {
            assert!(!body.contains(not), "{not}");
        }
    }

    #[test]
    fn content_types_are_read_as_ams_does() {
        for (setting, want) in [
            ("", ContentType::Json),
            ("application/json", ContentType::Json),
            ("Application/JSON; charset=utf-8", ContentType::Json),
            ("application/x-www-form-urlencoded", ContentType::Form),
            ("anything", ContentType::Form),
        ] {
            assert_eq!(ContentType::from_setting(setting), want, "{setting}");
        }
    }

    #[test]
    fn questions_look_as_amss() {
        let params = [("token".to_owned(), "t".to_owned()), ("x".to_owned(), "1".to_owned())];
        let ask =
            AuthAsk { app: "live", stream_id: "s", purpose: Purpose::Publish, params: &params, metadata: Some("m") };
        let body = String::from_utf8(auth_body(&ask)).unwrap();
        assert_eq!(
            body,
            r#"{"appName":"live","name":"s","streamId":"s","mode":"live","queryParams":"{token=t, x=1}","metaData":"m"}"#
        );
    }

    proptest! {
        #[test]
        fn any_text_survives_both_content_types(name in r"\PC{1,30}", key in r"\PC{1,10}", value in r"\PC{0,30}") {
            let event = Event { stream_name: Some(name.clone()), params: vec![(key, value)], ..event() };
            for content_type in [ContentType::Json, ContentType::Form] {
                let body = event.body(Action::VodReady, EventId(1), AT, content_type);
                let read = parse_body(content_type.as_str(), &body).unwrap();
                if !name.trim().is_empty() {
                    prop_assert_eq!(&read["streamName"], name.as_str());
                }
                prop_assert_eq!(&read["action"], "vodReady");
            }
        }
    }
}
