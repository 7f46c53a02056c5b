//! Conversations as the JavaScript SDK and the players hold them, frame by frame, and what strangers send.

mod vocabulary;

use ams_signal::effect::{Ask, CloseCode, Credentials, Effect, End, Event, Leg, PlayWish, Refusal};
use ams_signal::{IceServer, RateLimit, Rendition, Session, SignalLimits};
use serde_json::{Value, json};
use std::time::Duration;

use vocabulary::*;

#[test]
fn publish_from_the_first_frame_to_the_last() {
    for (name, steps) in [
        ("stopped by the client", vec![(stop_message(), vec![close(0), notification("publish_finished")])]),
        (
            "stopped twice",
            vec![
                (stop_message(), vec![close(0), notification("publish_finished")]),
                (stop_message(), vec![]),
                (closed(0), vec![]),
            ],
        ),
        ("stopped by the server", vec![(ended(0, End::Finished), vec![notification("publish_finished")])]),
        (
            "taken over",
            vec![(
                ended(0, End::Because("another publication took over".into())),
                vec![Out::Say(json!({"command":"notification","definition":"publish_finished","streamId":"stream1",
                "subscriberId":"","information":"another publication took over"}))],
            )],
        ),
        (
            "media stops",
            vec![(
                ended(0, End::Timeout("no packets for 10 s".into())),
                vec![
                    error_with("noPacketReceivedForTimeoutDuration", "no packets for 10 s"),
                    notification("publish_finished"),
                ],
            )],
        ),
        ("published again meanwhile", vec![(client(publish_message()), vec![error("already_publishing")])]),
        ("a second offer is not a renegotiation", vec![(offer_message("v=2"), vec![])]),
        ("a start is said once", vec![(started(0), vec![])]),
        (
            "nothing after stop",
            vec![
                (stop_message(), vec![close(0), notification("publish_finished")]),
                (started(0), vec![]),
                (ended(0, End::Finished), vec![]),
                (client(json!({"command":"takeCandidate","streamId":"stream1","label":0,"candidate":"c"})), vec![]),
                (offer_message("v=o"), vec![]),
            ],
        ),
    ] {
        run(name, session(), then(publishing(), steps));
    }
}

#[test]
fn publish_that_fails() {
    for (name, steps) in [
        (
            "id in use",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (refused(0, Refusal::InUse("in use".into())), vec![error_with("streamIdInUse", "in use")]),
                (client(publish_message()), vec![open_publisher(1)]),
            ],
        ),
        (
            "on an edge",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (
                    refused(0, Refusal::NotAllowed("publish to an origin".into())),
                    vec![error_with("unauthorized_access", "publish to an origin")],
                ),
            ],
        ),
        (
            "registry down",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (refused(0, Refusal::DataStore("down".into())), vec![error_with("data_store_not_available", "down")]),
            ],
        ),
        (
            "node full",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (refused(0, Refusal::Busy("full".into())), vec![error_with("highResourceUsage", "full")]),
            ],
        ),
        (
            "our fault",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (
                    refused(0, Refusal::Internal("see log".into())),
                    vec![error_with("server_error_check_logs", "see log")],
                ),
            ],
        ),
        (
            "no media in time",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (opened(0), vec![start_frame()]),
                (
                    ended(0, End::Timeout("no offer came".into())),
                    vec![error_with("publishTimeoutError", "no offer came"), notification("publish_finished")],
                ),
            ],
        ),
        (
            "bad offer",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (opened(0), vec![start_frame()]),
                (offer_message("x"), vec![Out::Do(Effect::PublisherOffer { leg: Leg(0), sdp: "x".into() })]),
                (
                    refused(0, Refusal::BadDescription("no media".into())),
                    vec![
                        close(0),
                        Out::Say(json!({"command":"error","definition":"notSetRemoteDescription","streamId":"stream1",
                        "subscriberId":"","information":"no media"})),
                    ],
                ),
            ],
        ),
        (
            "offer without a description",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (opened(0), vec![start_frame()]),
                (
                    client(json!({"command":"takeConfiguration","streamId":"stream1","type":"offer","sdp":7})),
                    vec![
                        close(0),
                        Out::Say(json!({"command":"error","definition":"notSetRemoteDescription","streamId":"stream1",
                        "subscriberId":"","information":"the message carries no session description"})),
                    ],
                ),
            ],
        ),
        (
            "gone before the offer came",
            vec![
                (client(publish_message()), vec![open_publisher(0)]),
                (opened(0), vec![start_frame()]),
                (offer_message("o"), vec![Out::Do(Effect::PublisherOffer { leg: Leg(0), sdp: "o".into() })]),
                (refused(0, Refusal::Gone), vec![close(0), notification("publish_finished")]),
            ],
        ),
    ] {
        run(name, session(), steps);
    }
}

#[test]
fn an_interrupted_publisher_hears_session_restored() {
    let mut steps = publishing();
    steps.pop();
    steps.push((In::Node(Event::Started { leg: Leg(0), restored: true }), vec![notification("session_restored")]));
    run("restored", session(), steps);
}

#[test]
fn an_offer_that_does_not_wait_for_start_is_kept() {
    run(
        "pipelined",
        session(),
        vec![
            (client(publish_message()), vec![open_publisher(0)]),
            (offer_message("v=o"), vec![]),
            (opened(0), vec![start_frame(), Out::Do(Effect::PublisherOffer { leg: Leg(0), sdp: "v=o".into() })]),
            (started(0), vec![]),
            (
                In::Node(Event::PublisherAnswer { leg: Leg(0), sdp: "v=a".into() }),
                vec![
                    Out::Say(json!({"command":"takeConfiguration","streamId":"stream1","type":"answer","sdp":"v=a",
                    "linkSession":null,"subscriberId":""})),
                    notification("publish_started"),
                ],
            ),
        ],
    );
}

#[test]
fn the_sdk_may_stop_and_publish_again_before_the_first_is_closed() {
    run(
        "retry loop",
        session(),
        vec![
            (client(publish_message()), vec![open_publisher(0)]),
            (stop_message(), vec![close(0), notification("publish_finished")]),
            (client(publish_message()), vec![]),
            (client(publish_message()), vec![error("already_publishing")]),
            (opened(0), vec![]),
            (closed(0), vec![open_publisher(1)]),
            (opened(1), vec![start_frame()]),
        ],
    );
    run(
        "and change its mind",
        session(),
        vec![
            (client(publish_message()), vec![open_publisher(0)]),
            (stop_message(), vec![close(0), notification("publish_finished")]),
            (client(publish_message()), vec![]),
            (stop_message(), vec![notification("publish_finished")]),
            (closed(0), vec![]),
        ],
    );
}

#[test]
fn play_from_the_first_frame_to_the_last() {
    for (name, steps) in [
        ("stopped by the viewer", vec![(stop_message(), vec![close(0), notification("play_finished")])]),
        ("the publisher leaves", vec![(ended(0, End::Finished), vec![notification("play_finished")])]),
        (
            "too slow",
            vec![(
                ended(0, End::Because("too slow".into())),
                vec![Out::Say(json!({"command":"notification","definition":"play_finished","streamId":"stream1",
                "subscriberId":"","information":"too slow"}))],
            )],
        ),
        ("already playing", vec![(client(play_message()), vec![error("already_playing")])]),
        (
            "stop, then the same stream again at once",
            vec![
                (stop_message(), vec![close(0), notification("play_finished")]),
                (client(play_message()), vec![open_viewer(1)]),
                (closed(0), vec![]),
                (viewer_offer(1), vec![offer_frame()]),
            ],
        ),
        (
            "ended, then the same stream again",
            vec![
                (ended(0, End::Finished), vec![notification("play_finished")]),
                (client(play_message()), vec![open_viewer(1)]),
            ],
        ),
        (
            "a late offer of a stopped leg is not shown",
            vec![(stop_message(), vec![close(0), notification("play_finished")]), (viewer_offer(0), vec![])],
        ),
        (
            "another stream beside it",
            vec![(
                client(json!({"command":"play","streamId":"other"})),
                vec![Out::Do(Effect::OpenViewer {
                    leg: Leg(1),
                    wish: PlayWish {
                        stream: sid("other"),
                        credentials: Credentials::default(),
                        room: String::new(),
                        track_list: vec![],
                    },
                })],
            )],
        ),
        (
            "publishing the same id beside it",
            vec![
                (client(publish_message()), vec![open_publisher(1)]),
                (
                    stop_message(),
                    vec![close(1), notification("publish_finished"), close(0), notification("play_finished")],
                ),
            ],
        ),
        (
            "stream information",
            vec![
                (
                    client(json!({"command":"getStreamInfo","streamId":"stream1"})),
                    vec![Out::Do(Effect::Get { stream: sid("stream1"), ask: Ask::StreamInfo })],
                ),
                (
                    In::Node(Event::Renditions {
                        stream: sid("stream1"),
                        ask: Ask::StreamInfo,
                        result: Ok(vec![Rendition {
                            stream_width: 640,
                            stream_height: 480,
                            video_bitrate: 1,
                            audio_bitrate: 2,
                            video_codec: "VP8".into(),
                        }]),
                    }),
                    vec![Out::Say(json!({"command":"streamInformation","streamId":"stream1","streamInfo":[
                    {"streamWidth":640,"streamHeight":480,"videoBitrate":1,"audioBitrate":2,"videoCodec":"VP8"}]}))],
                ),
            ],
        ),
        ("wrong answer", vec![(answer_message("again"), vec![])]),
        (
            "this node stops: said once",
            vec![
                (
                    In::Node(Event::NodeStopping),
                    vec![Out::Say(json!({"command":"notification","definition":"server_will_stop"}))],
                ),
                (ended(0, End::NodeStopping), vec![]),
            ],
        ),
    ] {
        run(name, session(), then(playing(), steps));
    }
}

#[test]
fn a_viewer_whose_answer_is_bad_is_told_and_let_go() {
    run(
        "bad answer",
        session(),
        vec![
            (client(play_message()), vec![open_viewer(0)]),
            (viewer_offer(0), vec![offer_frame()]),
            (answer_message("x"), vec![Out::Do(Effect::ViewerAnswer { leg: Leg(0), sdp: "x".into() })]),
            (
                refused(0, Refusal::BadDescription("not SDP".into())),
                vec![
                    close(0),
                    Out::Say(json!({"command":"error","definition":"notSetRemoteDescription","streamId":"stream1",
                    "subscriberId":"","information":"not SDP"})),
                ],
            ),
            (client(play_message()), vec![open_viewer(1)]),
        ],
    );
}

#[test]
fn a_viewer_that_never_connects_is_told_why() {
    run(
        "black screen",
        session(),
        vec![
            (client(play_message()), vec![open_viewer(0)]),
            (viewer_offer(0), vec![offer_frame()]),
            (
                ended(0, End::Timeout("no packet reached the node; is UDP blocked?".into())),
                vec![
                    error_with("noPacketReceivedForTimeoutDuration", "no packet reached the node; is UDP blocked?"),
                    notification("play_finished"),
                ],
            ),
        ],
    );
}

#[test]
fn the_waiting_list() {
    let wait = || {
        vec![
            (client(play_message()), vec![open_viewer(0)]),
            (refused(0, Refusal::NotLive), vec![not_live_waiting(), wait_for()]),
        ]
    };
    let live = || In::Node(Event::StreamStarted { stream: sid("stream1") });
    for (name, steps) in [
        (
            "told when it starts, then plays",
            vec![
                (live(), vec![stop_waiting(), streaming_started()]),
                (client(play_message()), vec![open_viewer(1)]),
                (viewer_offer(1), vec![offer_frame()]),
            ],
        ),
        ("told once", vec![(live(), vec![stop_waiting(), streaming_started()]), (live(), vec![])]),
        ("stop leaves the list", vec![(stop_message(), vec![stop_waiting()]), (live(), vec![])]),
        (
            "the SDK's loop waits once",
            vec![
                (client(play_message()), vec![open_viewer(1)]),
                (refused(1, Refusal::NotLive), vec![not_live_waiting()]),
                (live(), vec![stop_waiting(), streaming_started()]),
            ],
        ),
        (
            "a play that succeeds leaves the list",
            vec![
                (client(play_message()), vec![open_viewer(1)]),
                (viewer_offer(1), vec![stop_waiting(), offer_frame()]),
                (live(), vec![]),
            ],
        ),
        (
            "a start during a play that succeeds is not said",
            vec![
                (client(play_message()), vec![open_viewer(1)]),
                (live(), vec![stop_waiting()]),
                (viewer_offer(1), vec![offer_frame()]),
            ],
        ),
        (
            "a start during a play that fails is said after it",
            vec![
                (client(play_message()), vec![open_viewer(1)]),
                (live(), vec![stop_waiting()]),
                (refused(1, Refusal::NotLive), vec![not_live_waiting(), streaming_started()]),
            ],
        ),
    ] {
        run(name, session(), then(wait(), steps));
    }
    run("somebody else's stream", session(), vec![(live(), vec![])]);
}

#[test]
fn a_full_waiting_list_lets_players_poll() {
    let limits = SignalLimits { waits: 1, ..Default::default() };
    let mut session = Session::new(limits, IceServer::default(), epoch());
    let now = epoch();
    for (n, stream, waits) in [(0, "a", true), (1, "b", false)] {
        session.handle(now, &json!({"command":"play","streamId":stream}).to_string());
        drain(&mut session);
        session.handle_event(now, Event::Refused { leg: Leg(n), refusal: Refusal::NotLive });
        let out = drain(&mut session);
        let Some(Out::Say(frame)) = out.first() else { panic!("no frame: {out:?}") };
        assert_eq!(frame["definition"], "no_stream_exist");
        assert_eq!(frame.get("information").is_some(), waits, "{stream}");
        assert_eq!(out.len(), 1 + usize::from(waits), "{stream}");
    }
    assert_eq!(session.waiting().count(), 1);
}

#[test]
fn validation_comes_in_ams_order() {
    let no_name = || vec![Out::Say(json!({"command":"error","definition":"noStreamNameSpecified"}))];
    let invalid = |id: &str| vec![Out::Say(json!({"command":"error","definition":"invalidStreamName","streamId":id}))];
    let raw = |text: &str| In::Raw(text.into());
    for (name, input, want) in [
        ("ping", client(json!({"command":"ping"})), vec![Out::Say(json!({"command":"pong"}))]),
        (
            "ping with a bad id",
            client(json!({"command":"ping","streamId":"a b"})),
            vec![Out::Say(json!({"command":"pong"}))],
        ),
        ("no id", client(json!({"command":"publish"})), no_name()),
        ("null id", client(json!({"command":"play","streamId":null})), no_name()),
        ("empty id", client(json!({"command":"stop","streamId":""})), no_name()),
        ("number for an id", client(json!({"command":"play","streamId":5})), no_name()),
        ("unknown command without an id", client(json!({"command":"dance"})), no_name()),
        ("space in an id", client(json!({"command":"publish","streamId":"a b"})), invalid("a b")),
        ("path in an id", client(json!({"command":"play","streamId":"../x"})), invalid("../x")),
        ("dots are legal", client(json!({"command":"stop","streamId":"a.b"})), vec![]),
        ("long id", client(json!({"command":"play","streamId":"x".repeat(1000)})), invalid(&"x".repeat(256))),
        ("unknown command", client(json!({"command":"dance","streamId":"a"})), vec![]),
        ("stop of nothing", stop_message(), vec![]),
        ("offer of nothing", offer_message("v=0"), vec![]),
        ("answer of nothing", answer_message("v=0"), vec![]),
        (
            "candidate of nothing",
            client(json!({"command":"takeCandidate","streamId":"a","label":0,"id":"0","candidate":""})),
            vec![],
        ),
        ("truncated", raw(r#"{"command":"play","streamId":"a""#), vec![]),
        ("not an object", raw("[1,2]"), vec![]),
        ("nothing", raw(""), vec![]),
        ("a NUL", raw("{\"command\":\"ping\"}\0"), vec![]),
        ("oversized", raw(&format!(r#"{{"command":"ping","x":"{}"}}"#, "x".repeat(200_000))), vec![]),
        ("lone surrogate", raw(r#"{"command":"play","streamId":"\ud800"}"#), vec![]),
    ] {
        run(name, session(), vec![(input, want)]);
    }
}

#[test]
fn questions_about_streams() {
    let get = |ask| Out::Do(Effect::Get { stream: sid("stream1"), ask });
    let not_found =
        || Out::Say(json!({"command":"error","definition":"no_stream_exist","streamId":"stream1","error_code":"404"}));
    for (name, command, ask, event, want) in [
        (
            "broadcast",
            "getBroadcastObject",
            Ask::Broadcast,
            Event::Broadcast { stream: sid("stream1"), result: Ok(Some(r#"{"streamId":"stream1"}"#.into())) },
            Out::Say(json!({"command":"notification","definition":"broadcastObject","streamId":"stream1",
                "broadcast":"{\"streamId\":\"stream1\"}"})),
        ),
        (
            "no broadcast",
            "getBroadcastObject",
            Ask::Broadcast,
            Event::Broadcast { stream: sid("stream1"), result: Ok(None) },
            not_found(),
        ),
        (
            "registry down",
            "getBroadcastObject",
            Ask::Broadcast,
            Event::Broadcast { stream: sid("stream1"), result: Err(Refusal::DataStore("down".into())) },
            error_with("data_store_not_available", "down"),
        ),
        (
            "not live",
            "getStreamInfo",
            Ask::StreamInfo,
            Event::Renditions { stream: sid("stream1"), ask: Ask::StreamInfo, result: Err(Refusal::NotLive) },
            not_found(),
        ),
        (
            "track list",
            "getTrackList",
            Ask::TrackList,
            Event::Renditions { stream: sid("stream1"), ask: Ask::TrackList, result: Ok(vec![]) },
            Out::Say(json!({"command":"trackList","streamId":"stream1","trackList":["stream1"]})),
        ),
    ] {
        run(
            name,
            session(),
            vec![
                (client(json!({"command":command,"streamId":"stream1"})), vec![get(ask)]),
                (In::Node(event), vec![want]),
            ],
        );
    }
}

#[test]
fn ice_servers_need_no_stream_id() {
    let ice = IceServer { uri: "turn:t.example:3478".into(), username: "u".into(), credential: "c".into() };
    for (name, server, want) in
        [("none configured", IceServer::default(), ("", "", "")), ("turn", ice, ("turn:t.example:3478", "u", "c"))]
    {
        let session = Session::new(SignalLimits::default(), server, epoch());
        run(
            name,
            session,
            vec![(
                client(json!({"command":"getIceServerConfig"})),
                vec![Out::Say(json!({"command":"iceServerConfig","stunServerUri":want.0,"turnServerUsername":want.1,
                "turnServerCredential":want.2}))],
            )],
        );
    }
}

#[test]
fn absent_features_are_answered_where_clients_wait_for_it() {
    let note = |extra: Value| {
        let mut frame = json!({"command":"notification","streamId":"stream1"});
        frame.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        vec![Out::Say(frame)]
    };
    for (command, extra, want) in [
        ("forceStreamQuality", json!({"streamHeight":480}), vec![]),
        ("toggleVideo", json!({"trackId":"a","enabled":true}), vec![]),
        ("toggleAudio", json!({"trackId":"a","enabled":"yes"}), vec![]),
        ("enableTrack", json!({}), vec![]),
        ("updateStreamMetaData", json!({"metaData":"x"}), vec![]),
        ("join", json!({"multiPeer":false}), vec![]),
        ("leave", json!({}), vec![]),
        ("setMaxVideoTrackCountCommand", json!({"maxTrackCount":3}), vec![]),
        ("getSubscriberCount", json!({}), note(json!({"definition":"subscriberCount","count":0}))),
        ("getSubscribers", json!({}), note(json!({"definition":"subscriberList","subscriberList":[]}))),
        ("getSubtracks", json!({"offset":0}), note(json!({"definition":"subtrackList","subtrackList":[]}))),
        ("getSubtracksCount", json!({}), note(json!({"definition":"subtrackCount","count":0}))),
        ("joinRoom", json!({}), vec![error("no_room_specified")]),
        (
            "joinRoom",
            json!({"room":"r"}),
            vec![Out::Say(json!({"command":"error","definition":"room_not_active_or_expired","streamId":"stream1",
                "room":"r"}))],
        ),
        (
            "getRoomInfo",
            json!({"room":"r"}),
            vec![Out::Say(json!({"command":"error","definition":"no_active_streams_in_room","streamId":"stream1",
                "room":"r"}))],
        ),
        (
            "leaveFromRoom",
            json!({"mainTrack":"r"}),
            note(json!({"definition":"leavedFromRoom","ATTR_ROOM_NAME":"r","room":"r"})),
        ),
        ("peerMessageCommand", json!({"data":"x"}), vec![error("no_peer_associated_before")]),
    ] {
        let mut message = json!({"command":command,"streamId":"stream1"});
        message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        run(command, session(), vec![(client(message), want)]);
    }
    let mut push = session();
    push.handle(epoch(), r#"{"command":"sendPushNotification","subscriberId":"x"}"#);
    let Some(Out::Say(frame)) = drain(&mut push).pop() else { panic!("no answer") };
    assert_eq!((&frame["command"], &frame["success"]), (&json!("notification"), &json!(false)));
}

#[test]
fn limits_of_one_connection() {
    let limits = SignalLimits {
        messages: RateLimit { per_second: 1.0, burst: 5.0 },
        sessions: 2,
        asks: 1,
        ..Default::default()
    };
    let new = || Session::new(limits, IceServer::default(), epoch());
    let now = epoch();

    let mut sessions = new();
    for stream in ["a", "b", "c"] {
        sessions.handle(now, &json!({"command":"play","streamId":stream}).to_string());
    }
    let out = drain(&mut sessions);
    assert_eq!(sessions.leg_count(), 2);
    let Some(Out::Say(frame)) = out.last() else { panic!("{out:?}") };
    assert_eq!((&frame["definition"], &frame["streamId"]), (&json!("highResourceUsage"), &json!("c")));

    let mut asks = new();
    for _ in 0..2 {
        asks.handle(now, r#"{"command":"getStreamInfo","streamId":"a"}"#);
    }
    let Some(Out::Say(frame)) = drain(&mut asks).pop() else { panic!("no answer") };
    assert_eq!(frame["definition"], "highResourceUsage");

    let mut flood = new();
    for _ in 0..6 {
        flood.handle(now, r#"{"command":"ping"}"#);
    }
    let out = drain(&mut flood);
    assert_eq!(out.len(), 6);
    assert_eq!(out.last(), Some(&Out::Close(CloseCode::Policy)));
    flood.handle(now, r#"{"command":"ping"}"#);
    assert_eq!(drain(&mut flood), vec![], "nothing follows the close");
    assert_eq!(flood.poll_timeout(), None);
}

#[test]
fn silence_closes_the_connection_and_a_ping_keeps_it() {
    let start = epoch();
    let mut session = Session::new(SignalLimits::default(), IceServer::default(), start);
    let due = session.poll_timeout().unwrap();
    assert_eq!(due - start, Duration::from_secs(30));
    session.handle(start + Duration::from_secs(29), r#"{"command":"ping"}"#);
    drain(&mut session);
    session.handle_timeout(due);
    assert_eq!(drain(&mut session), vec![], "the timer of before the ping");
    session.touch(start + Duration::from_secs(40));
    session.handle_timeout(start + Duration::from_secs(69));
    assert_eq!(drain(&mut session), vec![], "protocol frames count as well");
    session.handle_timeout(start + Duration::from_secs(70));
    assert_eq!(drain(&mut session), vec![Out::Close(CloseCode::GoingAway)]);
    run("early timers do nothing", self::session(), vec![(In::Clock(100), vec![])]);
}
