//! Whatever comes in, in whatever order: no panic, bounded state, and every frame out is one JSON object.

use std::time::{Duration, Instant};

use ams_signal::effect::{Ask, Effect, End, Event, Leg, Output, Refusal};
use ams_signal::{ClientMessage, IceServer, Session, SignalLimits};
use proptest::prelude::*;
use serde_json::{Value, json};

#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
fn epoch() -> Instant {
    Instant::now()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number)),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("a")),
        Just(json!("offer")),
        Just(json!("answer")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("\\PC{0,6}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn command() -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(vec![
        "publish",
        "play",
        "stop",
        "takeConfiguration",
        "takeCandidate",
        "ping",
        "getIceServerConfig",
        "getStreamInfo",
        "getBroadcastObject",
        "getTrackList",
        "getDebugInfo",
        "joinRoom",
        "peerMessageCommand",
        "sendPushNotification",
        "forceStreamQuality",
        "nonsense",
    ])
}

fn message() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "subscriberId",
        "token",
        "type",
        "sdp",
        "label",
        "id",
        "candidate",
        "streamName",
        "mainTrack",
        "metaData",
        "video",
        "audio",
        "room",
        "trackList",
        "streamId",
        "command",
        "other",
    ]);
    let ids = prop::sample::select(vec!["a", "b", "c.d", "", "bad id"]);
    let kinds = prop::sample::select(vec!["offer", "answer", "rollback"]);
    let typed = (command(), ids, kinds, "[a-z=\r\n]{0,12}").prop_map(
        |(command, id, kind, sdp)| json!({"command":command,"streamId":id,"type":kind,"sdp":sdp,"candidate":sdp}),
    );
    let wild = (typed.clone(), prop::collection::vec((keys, value()), 0..5)).prop_map(|(mut message, fields)| {
        for (key, value) in fields {
            message[key] = value;
        }
        message
    });
    prop_oneof![
        6 => typed.prop_map(|message| message.to_string()),
        3 => wild.prop_map(|message| message.to_string()),
        1 => value().prop_map(|value| value.to_string()),
        1 => "\\PC{0,60}",
        1 => any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let leg = (0u64..12).prop_map(Leg);
    let stream = || "a".parse::<ams_types::StreamId>().expect("a valid id");
    let refusal = prop::sample::select(vec![
        Refusal::NotLive,
        Refusal::InUse("in use".into()),
        Refusal::NotAllowed("no".into()),
        Refusal::Denied { word: "user_blocked", sentence: "blocked".into() },
        Refusal::DataStore("down".into()),
        Refusal::Busy("full".into()),
        Refusal::BadDescription("bad".into()),
        Refusal::Gone,
        Refusal::Internal("log".into()),
    ]);
    let end = prop::sample::select(vec![
        End::Finished,
        End::Because("so".into()),
        End::Timeout("late".into()),
        End::NodeStopping,
    ]);
    prop_oneof![
        leg.clone().prop_map(|leg| Event::PublisherOpened { leg }),
        leg.clone().prop_map(|leg| Event::PublisherAnswer { leg, sdp: "v=0".into() }),
        leg.clone().prop_map(|leg| Event::ViewerOffer { leg, sdp: "v=0".into(), id_mapping: vec![] }),
        (leg.clone(), refusal.clone()).prop_map(|(leg, refusal)| Event::Refused { leg, refusal }),
        (leg.clone(), any::<bool>()).prop_map(|(leg, restored)| Event::Started { leg, restored }),
        (leg.clone(), end).prop_map(|(leg, end)| Event::Ended { leg, end }),
        leg.prop_map(|leg| Event::Closed { leg }),
        refusal.clone().prop_map(move |refusal| Event::Renditions {
            stream: stream(),
            ask: Ask::StreamInfo,
            result: Err(refusal),
        }),
        Just(Event::Broadcast { stream: stream(), result: Ok(Some("{}".into())) }),
        Just(Event::StreamStarted { stream: stream() }),
        Just(Event::NodeStopping),
    ]
}

#[derive(Clone, Debug)]
enum Input {
    Text(String),
    Event(Event),
    Tick(u64),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        5 => message().prop_map(Input::Text),
        4 => event().prop_map(Input::Event),
        1 => (0u64..40_000).prop_map(Input::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_is_parsed_or_ignored(text in "\\PC{0,200}") {
        ClientMessage::parse(&text);
    }

    #[test]
    fn any_conversation_keeps_its_bounds(inputs in prop::collection::vec(input(), 0..80)) {
        let limits = SignalLimits { sessions: 3, waits: 2, asks: 2, ..Default::default() };
        let mut now = epoch();
        let mut session = Session::new(limits, IceServer::default(), now);
        let mut open = std::collections::HashSet::new();
        for input in inputs {
            match input {
                Input::Text(text) => session.handle(now, &text),
                Input::Event(event) => session.handle_event(now, event),
                Input::Tick(ms) => {
                    now += Duration::from_millis(ms);
                    session.handle_timeout(now);
                }
            }
            while let Some(output) = session.poll_output() {
                match output {
                    Output::Send(text) => {
                        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
                        prop_assert!(frame["command"].is_string(), "{text}");
                    }
                    Output::Effect(Effect::OpenPublisher { leg, .. } | Effect::OpenViewer { leg, .. }) => {
                        prop_assert!(open.insert(leg), "a leg is opened once");
                    }
                    Output::Effect(Effect::Close { leg }) => {
                        prop_assert!(open.remove(&leg), "what is closed was open, once");
                    }
                    Output::Effect(
                        Effect::PublisherOffer { leg, .. }
                        | Effect::ViewerAnswer { leg, .. }
                        | Effect::RemoteCandidate { leg, .. },
                    ) => prop_assert!(open.contains(&leg), "nothing is asked of a closed leg"),
                    Output::Effect(_) | Output::Close { .. } => {}
                }
            }
            prop_assert!(session.leg_count() <= limits.sessions);
            prop_assert!(session.waiting().count() <= limits.waits);
        }
    }
}
