//! The words conversations are made of, and the machine that plays them through.

use std::time::{Duration, Instant};

use ams_signal::effect::{CloseCode, Credentials, Effect, End, Event, Leg, Output, PlayWish, PublishWish, Refusal};
use ams_signal::{IceServer, Session, SignalLimits};
use serde_json::{Value, json};

#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

/// One input of a conversation.
pub(crate) enum In {
    Client(Value),
    Raw(String),
    Node(Event),
    /// Milliseconds since the start.
    Clock(u64),
}

/// One output of a conversation.
#[derive(Debug, PartialEq)]
pub(crate) enum Out {
    Say(Value),
    Do(Effect),
    Close(CloseCode),
}

pub(crate) fn drain(session: &mut Session) -> Vec<Out> {
    std::iter::from_fn(|| session.poll_output())
        .map(|output| match output {
            Output::Send(text) => Out::Say(serde_json::from_str(&text).unwrap()),
            Output::Effect(effect) => Out::Do(effect),
            Output::Close { code, reason } => {
                assert!(!reason.is_empty() && reason.len() <= 123, "{reason}");
                Out::Close(code)
            }
        })
        .collect()
}

pub(crate) fn session() -> Session {
    Session::new(SignalLimits::default(), IceServer::default(), epoch())
}

pub(crate) fn run(name: &str, mut session: Session, steps: Vec<(In, Vec<Out>)>) -> Session {
    let start = epoch();
    for (n, (input, want)) in steps.into_iter().enumerate() {
        match input {
            In::Client(value) => session.handle(start, &value.to_string()),
            In::Raw(text) => session.handle(start, &text),
            In::Node(event) => session.handle_event(start, event),
            In::Clock(ms) => session.handle_timeout(start + Duration::from_millis(ms)),
        }
        assert_eq!(drain(&mut session), want, "{name}, step {}", n + 1);
    }
    session
}

pub(crate) fn sid(text: &str) -> ams_types::StreamId {
    text.parse().unwrap()
}

pub(crate) fn publish_message() -> Value {
    json!({"command":"publish","streamId":"stream1","subscriberId":"","subscriberCode":"","streamName":"",
        "mainTrack":"","video":true,"audio":true,"metaData":"","role":""})
}

pub(crate) fn play_message() -> Value {
    json!({"command":"play","streamId":"stream1","token":"","room":"","trackList":[],"subscriberId":"",
        "subscriberCode":"","viewerInfo":"","role":"","userPublishId":""})
}

pub(crate) fn client(value: Value) -> In {
    In::Client(value)
}

pub(crate) fn stop_message() -> In {
    client(json!({"command":"stop","streamId":"stream1"}))
}

pub(crate) fn offer_message(sdp: &str) -> In {
    client(json!({"command":"takeConfiguration","streamId":"stream1","type":"offer","sdp":sdp}))
}

pub(crate) fn answer_message(sdp: &str) -> In {
    client(json!({"command":"takeConfiguration","streamId":"stream1","type":"answer","sdp":sdp}))
}

pub(crate) fn notification(definition: &str) -> Out {
    Out::Say(json!({"command":"notification","definition":definition,"streamId":"stream1","subscriberId":""}))
}

pub(crate) fn error(definition: &str) -> Out {
    Out::Say(json!({"command":"error","definition":definition,"streamId":"stream1"}))
}

pub(crate) fn error_with(definition: &str, information: &str) -> Out {
    Out::Say(json!({"command":"error","definition":definition,"streamId":"stream1","information":information}))
}

pub(crate) fn not_live_waiting() -> Out {
    Out::Say(json!({"command":"error","error_code":"404","definition":"no_stream_exist","streamId":"stream1",
        "information":"stream_not_exist_or_not_streaming"}))
}

pub(crate) fn open_publisher(leg: u64) -> Out {
    Out::Do(Effect::OpenPublisher {
        leg: Leg(leg),
        wish: PublishWish {
            stream: sid("stream1"),
            stream_name: String::new(),
            main_track: String::new(),
            meta_data: String::new(),
            video: true,
            audio: true,
            credentials: Credentials::default(),
        },
    })
}

pub(crate) fn open_viewer(leg: u64) -> Out {
    Out::Do(Effect::OpenViewer {
        leg: Leg(leg),
        wish: PlayWish {
            stream: sid("stream1"),
            credentials: Credentials::default(),
            room: String::new(),
            track_list: vec![],
        },
    })
}

pub(crate) fn close(leg: u64) -> Out {
    Out::Do(Effect::Close { leg: Leg(leg) })
}

pub(crate) fn wait_for() -> Out {
    Out::Do(Effect::WaitFor { stream: sid("stream1") })
}

pub(crate) fn stop_waiting() -> Out {
    Out::Do(Effect::StopWaiting { stream: sid("stream1") })
}

pub(crate) fn start_frame() -> Out {
    Out::Say(json!({"command":"start","streamId":"stream1","subscriberId":""}))
}

pub(crate) fn opened(leg: u64) -> In {
    In::Node(Event::PublisherOpened { leg: Leg(leg) })
}

pub(crate) fn started(leg: u64) -> In {
    In::Node(Event::Started { leg: Leg(leg), restored: false })
}

pub(crate) fn ended(leg: u64, end: End) -> In {
    In::Node(Event::Ended { leg: Leg(leg), end })
}

pub(crate) fn refused(leg: u64, refusal: Refusal) -> In {
    In::Node(Event::Refused { leg: Leg(leg), refusal })
}

pub(crate) fn closed(leg: u64) -> In {
    In::Node(Event::Closed { leg: Leg(leg) })
}

pub(crate) fn viewer_offer(leg: u64) -> In {
    In::Node(Event::ViewerOffer {
        leg: Leg(leg),
        sdp: "v=offer".into(),
        id_mapping: vec![("0".into(), "stream1".into()), ("1".into(), "stream1".into())],
    })
}

pub(crate) fn offer_frame() -> Out {
    Out::Say(json!({"command":"takeConfiguration","streamId":"stream1","type":"offer","sdp":"v=offer",
        "idMapping":{"0":"stream1","1":"stream1"},"linkSession":null,"subscriberId":""}))
}

pub(crate) fn streaming_started() -> Out {
    Out::Say(json!({"command":"notification","definition":"streaming_started","streamId":"stream1"}))
}

/// A publisher up to the point where `publish_started` was said.
pub(crate) fn publishing() -> Vec<(In, Vec<Out>)> {
    vec![
        (client(publish_message()), vec![open_publisher(0)]),
        (opened(0), vec![start_frame()]),
        (offer_message("v=o"), vec![Out::Do(Effect::PublisherOffer { leg: Leg(0), sdp: "v=o".into() })]),
        (
            client(
                json!({"command":"takeCandidate","streamId":"stream1","label":0,"id":"0","candidate":"candidate:1"}),
            ),
            vec![Out::Do(Effect::RemoteCandidate { leg: Leg(0), candidate: "candidate:1".into() })],
        ),
        (
            In::Node(Event::PublisherAnswer { leg: Leg(0), sdp: "v=a".into() }),
            vec![Out::Say(json!({"command":"takeConfiguration","streamId":"stream1","type":"answer","sdp":"v=a",
                "linkSession":null,"subscriberId":""}))],
        ),
        (started(0), vec![notification("publish_started")]),
    ]
}

/// A viewer up to the point where `play_started` was said.
pub(crate) fn playing() -> Vec<(In, Vec<Out>)> {
    vec![
        (client(play_message()), vec![open_viewer(0)]),
        (viewer_offer(0), vec![offer_frame()]),
        (answer_message("v=a"), vec![Out::Do(Effect::ViewerAnswer { leg: Leg(0), sdp: "v=a".into() })]),
        (started(0), vec![notification("play_started")]),
    ]
}

pub(crate) fn then(mut steps: Vec<(In, Vec<Out>)>, more: Vec<(In, Vec<Out>)>) -> Vec<(In, Vec<Out>)> {
    steps.extend(more);
    steps
}
