//! AMS's WebSocket over real TCP, and what strangers do to a listening port.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ams_api::ApiConfig;
use ams_api::port::{EndReason, Refusal};
use common::{Server, eventually, key, limited, serve};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const PATIENCE: Duration = Duration::from_secs(10);

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

async fn connect(server: &Server, path: &str) -> Result<Client, Error> {
    let url = format!("ws://{}{path}", server.address);
    tokio_tungstenite::connect_async(url).await.map(|(socket, _)| Client(socket))
}

async fn client(server: &Server) -> Client {
    connect(server, "/live/websocket?target=origin&rtmpForward=undefined").await.unwrap()
}

impl Client {
    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("no frame in time") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    async fn hear_definition(&mut self, definition: &str) -> Value {
        let frame = self.hear().await;
        assert_eq!(frame["definition"], definition, "{frame}");
        frame
    }

    /// The server's close frame, after whatever comes before it.
    async fn hear_close(&mut self) -> Option<CloseFrame> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("no close in time") {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn publish(&mut self, stream: &str) {
        self.say(json!({"command":"publish","streamId":stream,"video":true,"audio":true,"metaData":"m"})).await;
        assert_eq!(self.hear().await["command"], "start");
        self.say(json!({"command":"takeConfiguration","streamId":stream,"type":"offer","sdp":"v=0"})).await;
        let answer = self.hear().await;
        assert_eq!((&answer["type"], &answer["sdp"]), (&json!("answer"), &json!("v=0 answer")));
        self.hear_definition("publish_started").await;
    }

    async fn play(&mut self, stream: &str) {
        self.say(json!({"command":"play","streamId":stream,"token":"","room":"","trackList":[]})).await;
        let offer = self.hear().await;
        assert_eq!(offer["type"], "offer", "{offer}");
        assert_eq!(offer["idMapping"], json!({"0": stream}));
        self.say(json!({"command":"takeConfiguration","streamId":stream,"type":"answer","sdp":"v=0"})).await;
        self.hear_definition("play_started").await;
    }
}

#[tokio::test]
async fn publish_and_play_as_the_sdk_does() {
    let server = serve(ApiConfig::default()).await;
    let mut publisher = client(&server).await;
    publisher.say(json!({"command":"getIceServerConfig"})).await;
    assert_eq!(publisher.hear().await["command"], "iceServerConfig");
    publisher.publish("stream1").await;
    assert_eq!(server.node.requests.lock().unwrap()[0].meta_data, "m");
    publisher
        .say(json!({"command":"takeCandidate","streamId":"stream1","label":0,"id":"0","candidate":"candidate:1"}))
        .await;

    let mut viewer = connect(&server, "/live/websocket/signaling?target=edge").await.unwrap();
    viewer.play("stream1").await;
    viewer.say(json!({"command":"getStreamInfo","streamId":"stream1"})).await;
    assert_eq!(viewer.hear().await["streamInfo"][0]["streamHeight"], 480);
    viewer.say(json!({"command":"getBroadcastObject","streamId":"stream1"})).await;
    let frame = viewer.hear_definition("broadcastObject").await;
    let record: Value = serde_json::from_str(frame["broadcast"].as_str().unwrap()).unwrap();
    assert_eq!((&record["streamId"], &record["name"]), (&json!("stream1"), &json!("a name")));
    assert!(!frame.to_string().contains("hunter2"), "credentials are not for viewers");
    viewer.say(json!({"command":"ping"})).await;
    assert_eq!(viewer.hear().await, json!({"command":"pong"}));

    // The SDK's retry: stop, and the same again on the same socket.
    viewer.say(json!({"command":"stop","streamId":"stream1"})).await;
    viewer.hear_definition("play_finished").await;
    viewer.play("stream1").await;

    publisher.say(json!({"command":"publish","streamId":"stream1"})).await;
    publisher.hear_definition("already_publishing").await;
    let mut other = client(&server).await;
    other.say(json!({"command":"publish","streamId":"stream1"})).await;
    let refused = other.hear_definition("streamIdInUse").await;
    assert!(refused["information"].as_str().unwrap().contains("stream1"));

    publisher.say(json!({"command":"stop","streamId":"stream1"})).await;
    publisher.say(json!({"command":"publish","streamId":"stream1"})).await;
    publisher.hear_definition("publish_finished").await;
    assert_eq!(publisher.hear().await["command"], "start", "the id is free again at once");
    assert_eq!(server.node.candidates.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_the_node_ends_is_told() {
    let server = serve(ApiConfig::default()).await;
    for (name, reason, definitions) in [
        ("stream ended", EndReason::StreamEnded, &["publish_finished"][..]),
        ("taken over", EndReason::TakenOver, &["publish_finished"]),
        ("media stopped", EndReason::Timeout("x".into()), &["noPacketReceivedForTimeoutDuration", "publish_finished"]),
        ("node stops", EndReason::NodeStopping, &["server_will_stop"]),
    ] {
        let mut socket = client(&server).await;
        socket.publish("stream1").await;
        server.node.end(&server.node.only_session(), reason).await;
        for definition in definitions {
            assert_eq!(socket.hear().await["definition"], *definition, "{name}");
        }
    }
    assert!(server.node.closed.lock().unwrap().is_empty(), "what has ended is not closed again");
}

#[tokio::test]
async fn a_socket_that_goes_away_takes_its_sessions_along() {
    let server = serve(ApiConfig::default()).await;
    let mut socket = client(&server).await;
    socket.publish("a").await;
    socket.play("a").await;
    socket.say(json!({"command":"play","streamId":"later"})).await;
    socket.hear_definition("no_stream_exist").await;
    assert_eq!(server.node.waiting.load(Ordering::SeqCst), 1);
    drop(socket);
    eventually("both sessions are closed", || server.node.closed.lock().unwrap().len() == 2).await;
    eventually("nothing is waited for", || server.node.waiting.load(Ordering::SeqCst) == 0).await;
    assert!(server.node.closed.lock().unwrap().iter().all(|(_, reason)| *reason == EndReason::Gone));
}

#[tokio::test]
async fn what_is_still_opening_when_the_socket_goes_is_closed_too() {
    let server = serve(ApiConfig::default()).await;
    server.node.gate.forget_permits(1_000_000);
    let mut socket = client(&server).await;
    for stream in ["a", "b"] {
        socket.say(json!({"command":"publish","streamId":stream})).await;
    }
    // One is stopped before it is open, the other loses its socket.
    socket.say(json!({"command":"stop","streamId":"a"})).await;
    socket.hear_definition("publish_finished").await;
    eventually("both are opening", || server.node.gate_waiting.load(Ordering::SeqCst) == 2).await;
    drop(socket);
    server.node.gate.add_permits(2);
    eventually("both are closed", || server.node.closed.lock().unwrap().len() == 2).await;
    assert_eq!(server.node.session_count(), 0);
}

#[tokio::test]
async fn viewers_that_come_first_are_called_when_there_is_something_to_see() {
    let server = serve(ApiConfig::default()).await;
    let mut viewer = client(&server).await;
    viewer.say(json!({"command":"play","streamId":"stream1"})).await;
    let frame = viewer.hear_definition("no_stream_exist").await;
    assert_eq!(frame["error_code"], "404");
    assert_eq!(frame["information"], "stream_not_exist_or_not_streaming");
    eventually("the node looks out", || server.node.waiting.load(Ordering::SeqCst) == 1).await;
    server.node.start_stream(&key("WebRTCAppEE", "stream1"));
    server.node.start_stream(&key("live", "other"));
    server.node.start_stream(&key("live", "stream1"));
    viewer.hear_definition("streaming_started").await;
    viewer.play("stream1").await;
    assert_eq!(server.node.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_start_among_many_is_not_missed() {
    let server = serve(ApiConfig::default()).await;
    let mut viewer = client(&server).await;
    viewer.say(json!({"command":"play","streamId":"stream1"})).await;
    viewer.hear_definition("no_stream_exist").await;
    eventually("the node looks out", || server.node.waiting.load(Ordering::SeqCst) == 1).await;
    // More at once than the queue holds: the oldest, which is ours, is overwritten.
    server.node.start_stream(&key("live", "stream1"));
    for n in 0..100 {
        server.node.start_stream(&key("live", &format!("other{n}")));
    }
    viewer.hear_definition("streaming_started").await;
}

#[tokio::test]
async fn refusals_carry_a_sentence() {
    let server = serve(ApiConfig::default()).await;
    let mut socket = client(&server).await;
    for (refusal, definition, word) in [
        (Refusal::EdgeTakesNoPublishers(Some("10.0.0.1".into())), "unauthorized_access", "10.0.0.1"),
        (Refusal::RegistryUnavailable, "data_store_not_available", "registry"),
        (
            Refusal::Busy { reason: "no memory".into(), retry_after: Duration::from_secs(1) },
            "highResourceUsage",
            "no memory",
        ),
        (
            Refusal::TooMany { reason: "ten already".into(), retry_after: Duration::from_secs(1) },
            "highResourceUsage",
            "ten already",
        ),
        (Refusal::Internal, "server_error_check_logs", "log"),
    ] {
        *server.node.refuse.lock().unwrap() = Some(refusal);
        socket.say(json!({"command":"publish","streamId":"a"})).await;
        let frame = socket.hear_definition(definition).await;
        assert!(frame["information"].as_str().unwrap().contains(word), "{frame}");
    }
    socket.say(json!({"command":"publish","streamId":"a"})).await;
    socket.hear().await;
    socket.say(json!({"command":"takeConfiguration","streamId":"a","type":"offer","sdp":"malformed"})).await;
    socket.hear_definition("notSetRemoteDescription").await;
    eventually("the claim is let go", || server.node.session_count() == 0).await;
}

#[tokio::test]
async fn frames_that_are_not_ours_end_the_socket_with_a_reason() {
    let server = serve(limited(|limits| limits.socket_message_burst = 20.0)).await;
    let not_utf8 = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    let flood = std::iter::repeat_with(|| Message::text(r#"{"command":"ping"}"#)).take(50).collect();
    for (name, frames, code) in [
        ("binary", vec![Message::binary(vec![1, 2, 3])], 1003),
        ("not UTF-8", vec![Message::Frame(not_utf8)], 1007),
        ("oversized", vec![Message::text("x".repeat(200_000))], 1009),
        ("flood", flood, 1008),
    ] {
        let mut socket = client(&server).await;
        socket.publish("a").await;
        for frame in frames {
            if socket.0.send(frame).await.is_err() {
                break;
            }
        }
        // A client that keeps sending may lose the close frame to a reset; the code counts where it arrives.
        if let Some(frame) = socket.hear_close().await {
            assert_eq!(u16::from(frame.code), code, "{name}: {frame:?}");
            assert!(frame.reason.len() > 10, "{name}: {frame:?}");
        } else {
            assert!(matches!(name, "oversized" | "flood"), "{name}: no close frame");
        }
        eventually(name, || server.node.session_count() == 0).await;
    }
    let mut socket = client(&server).await;
    for text in ["", "{", "[]", "null", r#"{"command":5}"#, r#"{"command":"play","streamId":{}}"#] {
        socket.0.send(Message::text(text)).await.unwrap();
    }
    socket.hear_definition("noStreamNameSpecified").await;
    socket.say(json!({"command":"ping"})).await;
    assert_eq!(socket.hear().await["command"], "pong", "nonsense does not end the socket");
}

#[tokio::test]
async fn a_silent_client_is_let_go_and_a_live_one_is_kept() {
    let server = serve(limited(|limits| limits.socket_idle = Duration::from_millis(600))).await;
    let mut dead = client(&server).await;
    dead.publish("dead").await;
    // Nobody reads this socket from here on, so nobody answers protocol pings.
    let mut live = client(&server).await;
    live.publish("live").await;
    // This one says nothing either, but its end is alive: it is read, and so pings are answered.
    let alive_until = tokio::time::timeout(Duration::from_secs(2), live.hear());
    assert!(alive_until.await.is_err(), "nothing but pings");
    eventually("the dead one is closed", || server.node.session_count() == 1).await;
    live.say(json!({"command":"ping"})).await;
    assert_eq!(live.hear().await["command"], "pong");
    drop(dead);
}

#[tokio::test]
async fn who_is_refused_at_the_door() {
    let mut config = limited(|limits| (limits.requests_per_second, limits.request_burst) = (1.0, 2.0));
    config.cors_origins = vec!["https://ours.example".into()];
    let server = serve(config).await;
    let status = |result: Result<Client, Error>| match result {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    assert_eq!(status(connect(&server, "/nobody/websocket").await), 404);
    let mut request = format!("ws://{}/live/websocket", server.address).into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://elsewhere.example".parse().unwrap());
    let result = tokio_tungstenite::connect_async(request).await.map(|(socket, _)| Client(socket));
    assert_eq!(status(result), 403);
    assert_eq!(status(connect(&server, "/live/websocket").await), 429, "the rate counts refused connects as well");
    let answer = talk(&server, "GET /live/websocket HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_leaves_nothing() {
    let server = serve(ApiConfig::default()).await;
    let mut socket = client(&server).await;
    socket.publish("a").await;
    server.api.announce_stop(std::time::Duration::ZERO, std::time::Duration::ZERO);
    socket.hear_definition("server_will_stop").await;
    socket.say(json!({"command":"ping"})).await;
    assert_eq!(socket.hear().await["command"], "pong", "there is time to leave");
    let Err(Error::Http(response)) = connect(&server, "/live/websocket").await else { panic!("accepted") };
    assert_eq!(response.status(), 503);

    server.stop.cancel();
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, server.task).await.expect("the listener ends").unwrap();
    let shutdown = tokio::spawn({
        let api = server.api.clone();
        async move { api.shutdown(patience).await }
    });
    let frame = socket.hear_close().await.expect("a close frame");
    assert_eq!(u16::from(frame.code), 1001);
    assert!(shutdown.await.unwrap(), "all tasks ended in time");
    assert_eq!(server.node.session_count(), 0);
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is free");
}

/// Sends bytes and reads until the server closes.
async fn talk(server: &Server, text: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn connections_are_limited_and_slow_ones_are_cut() {
    let server = serve(limited(|limits| {
        limits.connections = 2;
        limits.header_timeout = Duration::from_millis(200);
        limits.keep_alive = Duration::from_millis(700);
    }))
    .await;

    let mut socket = client(&server).await;
    let mut second = client(&server).await;
    let answer = talk(&server, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") || answer.is_empty(), "{answer}");
    second.0.close(None).await.unwrap();
    second.hear_close().await;
    let healthy = || async { talk(&server, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await };
    let deadline = Instant::now() + PATIENCE;
    while !healthy().await.starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "a closed socket gives its place back");
    }

    let begun = Instant::now();
    let answer = talk(&server, "GET /healthz HTTP/1.1\r\nHost: ").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(150), "the header timeout, not an error");
    let begun = Instant::now();
    let answer = talk(&server, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "a used connection may idle");
    let answer = talk(&server, "\u{1}\u{2}garbage\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer = talk(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(200_000))).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{}", answer.len());

    socket.say(json!({"command":"ping"})).await;
    assert_eq!(socket.hear().await["command"], "pong", "an upgraded connection has no header to send");
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let mut config = limited(|limits| limits.connections_per_address = 1);
    config.trusted_proxies = Vec::new();
    let server = serve(config).await;
    let _first = client(&server).await;
    let answer = talk(&server, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") || answer.is_empty(), "{answer}");
}

#[tokio::test]
async fn two_hundred_viewers_join_at_once() {
    let server = serve(ApiConfig::default()).await;
    let mut publisher = client(&server).await;
    publisher.publish("stream1").await;
    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let url = format!("ws://{}/live/websocket", server.address);
        viewers.spawn(async move {
            let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
            let mut viewer = Client(socket);
            viewer.play("stream1").await;
            viewer
        });
    }
    let viewers = viewers.join_all().await;
    assert_eq!(server.node.session_count(), 201);
    drop(viewers);
    eventually("all are gone", || server.node.session_count() == 1).await;
}
