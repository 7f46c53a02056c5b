//! AMS's own JavaScript, unmodified: the SDK and the web player.

use ams_testkit::driver::Driver;
use serde_json::{Value, json};

use super::{Demo, PATIENCE, Picture, but_when, saw, say};

/// Plays a scenario; returns its result. See the head of `sdk.mjs` for what a step can be.
async fn play(steps: &[Value]) -> Value {
    let scenario = json!({"steps": steps}).to_string();
    let mut driver = Driver::start("sdk.mjs", &["--scenario", &scenario, "--deadline", "150"]).unwrap();
    let result = driver.event("result", PATIENCE * 3).await.unwrap();
    assert_eq!(result["ok"], true, "{}: {result:#}", result["why"]);
    result
}

/// What the step `kind` on `on` brought; `of` is the callback or method it was about, if it was about one.
fn step<'a>(result: &'a Value, on: &str, kind: &str, of: &str) -> &'a Value {
    let steps = result["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let found = steps.iter().find(|s| s["on"] == on && s["do"] == kind && (of.is_empty() || s["of"] == of));
    found.unwrap_or_else(|| panic!("no step {kind} {of} on {on}"))
}

fn callbacks(result: &Value, on: &str) -> Vec<String> {
    let all = result["callbacks"][on].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
}

/// Says how long after the call a callback came.
fn say_after(result: &Value, on: &str, what: &str) {
    say(&format!("sdk, {on}: {what} after {} ms", step(result, on, "wait", what)["afterMs"]));
}

/// Viewers come first, on another node: the SDK in two browsers, and the web player, which waits for
/// `streaming_started` and does nothing else. Every page asks for ICE servers.
#[tokio::test]
async fn sdk_and_web_player_wait_for_a_publisher_on_another_node() {
    let demo = Demo::start().await;
    let (origin, edge, base) = (demo.origin_socket(), demo.edge_socket(), demo.edge(""));
    let viewer = |name: &str, retries: bool| {
        let options = json!({"reconnectIfRequiredFlag": retries});
        [
            json!({"do": "adaptor", "name": name, "url": edge, "play": true, "browser": name, "options": options}),
            json!({"do": "wait", "on": name, "info": "initialized", "since": "begin", "within": 20}),
            json!({"do": "call", "on": name, "method": "play", "args": ["live.1-a_b"]}),
            json!({"do": "wait", "on": name, "error": "no_stream_exist"}),
        ]
    };
    let mut steps = vec![];
    // One does only what the node says, as the web player does; the other asks again every 3 s, as is the SDK's habit.
    steps.extend(viewer("chromium", false));
    steps.extend(viewer("firefox", true));
    steps.extend([
        json!({"do": "webplayer", "name": "web player", "base": base, "stream": "live.1-a_b"}),
        json!({"do": "adaptor", "name": "publisher", "url": origin, "ice": "ask"}),
        json!({"do": "wait", "on": "publisher", "info": "initialized", "since": "begin", "within": 20}),
        json!({"do": "call", "on": "publisher", "method": "publish", "args": ["live.1-a_b"]}),
        json!({"do": "wait", "on": "publisher", "info": "publish_started"}),
        json!({"do": "wait", "on": "publisher", "info": "data_channel_opened"}),
    ]);
    steps.extend([
        json!({"do": "wait", "on": "chromium", "info": "streaming_started", "from": "publisher"}),
        json!({"do": "call", "on": "chromium", "method": "play", "args": ["live.1-a_b"]}),
    ]);
    for name in ["chromium", "firefox"] {
        steps.push(json!({"do": "wait", "on": name, "info": "play_started", "since": "begin", "within": 20}));
        steps.push(json!({"do": "wait", "on": name, "info": "data_channel_opened", "since": "begin"}));
    }
    for name in ["chromium", "firefox", "web player"] {
        steps.push(json!({"do": "frames", "on": name, "min": 20, "within": 30}));
        steps.push(json!({"do": "watch", "on": name, "seconds": 3}));
    }
    steps.extend([
        json!({"do": "call", "on": "publisher", "method": "sendData", "args": ["live.1-a_b", "hello"]}),
        json!({"do": "wait", "on": "chromium", "info": "data_received"}),
        json!({"do": "wait", "on": "firefox", "info": "data_received"}),
        json!({"do": "call", "on": "publisher", "method": "stop", "args": ["live.1-a_b"]}),
        json!({"do": "wait", "on": "publisher", "info": "publish_finished"}),
        json!({"do": "wait", "on": "chromium", "info": "play_finished", "from": "publisher"}),
        json!({"do": "wait", "on": "firefox", "info": "play_finished", "from": "publisher"}),
    ]);
    let result = play(&steps).await;

    let heard = callbacks(&result, "chromium");
    assert!(heard.iter().all(|c| !c.starts_with("reconnection_attempt")), "{heard:?}");
    let refusal = &step(&result, "chromium", "wait", "no_stream_exist")["detail"];
    assert_eq!(refusal["error_code"], "404", "{refusal}");
    assert_eq!(refusal["information"], "stream_not_exist_or_not_streaming", "{refusal}");
    say_after(&result, "publisher", "publish_started");
    say_after(&result, "chromium", "play_started");
    say_after(&result, "chromium", "play_finished");
    saw_in_scenario(&result, "chromium");
    saw_in_scenario(&result, "firefox");
    // Without sound, so that it may start by itself.
    let player = step(&result, "web player", "watch", "");
    assert!(player["looksLikeFakeCamera"] == true && player["moved"].as_u64() > Some(2), "{player:#}");
    for name in ["chromium", "firefox", "publisher"] {
        let errors = result["complaints"][name].to_string();
        assert!(!errors.contains("error:") && !errors.contains("exception"), "{name}: {errors}");
    }
}

/// The driver's page counts from its opening, not from the call.
fn saw_in_scenario(result: &Value, name: &str) {
    saw(&format!("sdk viewer, {name}"), &but_when(step(result, name, "watch", "")), Picture::Camera, None);
}

/// Pages with ICE servers of their own ask the node for none. Each named error comes when it should, and hurts nobody.
#[tokio::test]
async fn sdk_gets_the_named_errors_and_goes_on() {
    let demo = Demo::start().await;
    let (origin, edge) = (demo.origin_socket(), demo.edge_socket());
    let error = |on: &str, method: &str, stream: &str, error: &str| {
        [
            json!({"do": "call", "on": on, "method": method, "args": [stream]}),
            json!({"do": "wait", "on": on, "error": error}),
        ]
    };
    let opened = |name: &str, url: &str, play: bool| {
        [
            json!({"do": "adaptor", "name": name, "url": url, "play": play, "ice": "own"}),
            json!({"do": "wait", "on": name, "info": "initialized", "since": "begin", "within": 20}),
        ]
    };
    let watched = |args: Value| {
        [
            json!({"do": "call", "on": "viewer", "method": "play", "args": [args]}),
            json!({"do": "wait", "on": "viewer", "info": "play_started"}),
            json!({"do": "frames", "on": "viewer", "min": 20, "within": 30}),
        ]
    };
    let mut steps = vec![];
    steps.extend(opened("publisher", &origin, false));
    steps.extend(error("publisher", "publish", "a room/ä", "invalidStreamName"));
    steps.extend(error("publisher", "publish", "", "noStreamNameSpecified"));
    steps.push(json!({"do": "call", "on": "publisher", "method": "publish", "args": ["mine"]}));
    steps.push(json!({"do": "wait", "on": "publisher", "info": "publish_started"}));
    steps.extend(error("publisher", "publish", "mine", "already_publishing"));
    steps.extend(opened("second", &origin, false));
    steps.extend(error("second", "publish", "mine", "streamIdInUse"));
    steps.push(json!({"do": "close", "on": "second"}));
    steps.extend(opened("viewer", &edge, true));
    steps.extend(error("viewer", "play", "nobody", "no_stream_exist"));
    steps.push(json!({"do": "call", "on": "viewer", "method": "stop", "args": ["nobody"]}));
    // Who opens the data channel depends on the form of the call: the node, or the page too.
    steps.extend(watched(json!("mine")));
    steps.extend(error("viewer", "play", "mine", "already_playing"));
    steps.push(json!({"do": "wait", "on": "viewer", "info": "data_channel_opened", "since": "begin"}));
    steps.push(json!({"do": "call", "on": "viewer", "method": "stop", "args": ["mine"]}));
    steps.push(json!({"do": "wait", "on": "viewer", "info": "play_finished"}));
    steps.extend(watched(json!({"streamId": "mine"})));
    steps.push(json!({"do": "wait", "on": "viewer", "info": "data_channel_opened"}));
    steps.push(json!({"do": "watch", "on": "viewer", "seconds": 3}));
    // Closing the page frees the name, and whoever publishes it next takes its viewers over.
    steps.push(json!({"do": "mark", "on": "viewer"}));
    steps.push(json!({"do": "close", "on": "publisher"}));
    steps.extend(opened("third", &origin, false));
    steps.push(json!({"do": "call", "on": "third", "method": "publish", "args": ["mine"]}));
    steps.push(json!({"do": "wait", "on": "third", "info": "session_restored"}));
    steps.push(json!({"do": "resumes", "on": "viewer", "from": "third", "info": "session_restored"}));
    steps.push(json!({"do": "frames", "on": "viewer", "min": 20, "within": 30}));
    steps.push(json!({"do": "call", "on": "third", "method": "stop", "args": ["mine"]}));
    steps.push(json!({"do": "wait", "on": "third", "info": "publish_finished"}));
    steps.push(json!({"do": "wait", "on": "viewer", "info": "play_finished", "from": "third"}));
    let result = play(&steps).await;

    assert_eq!(step(&result, "publisher", "wait", "invalidStreamName")["detail"]["streamId"], "a room/ä");
    say_after(&result, "viewer", "play_started");
    saw_in_scenario(&result, "viewer");
    let again = step(&result, "viewer", "resumes", "session_restored");
    say(&format!(
        "sdk viewer: picture {} ms after session_restored, {} ms of pause",
        again["afterMs"], again["pausedMs"]
    ));
    let heard = callbacks(&result, "third");
    assert!(heard.iter().all(|name| name != "streamIdInUse"), "{heard:?}");
}

/// Sound alone and picture alone, without a data channel.
#[tokio::test]
async fn sdk_publishes_only_sound_or_only_a_picture() {
    let demo = Demo::start().await;
    let (origin, edge) = (demo.origin_socket(), demo.edge_socket());
    for (stream, video, audio) in [("sound", false, true), ("picture", true, false)] {
        let options = json!({"mediaConstraints": {"video": video, "audio": audio}, "dataChannelEnabled": false});
        let result = play(&[
            json!({"do": "adaptor", "name": "publisher", "url": origin, "ice": "own", "options": options}),
            json!({"do": "wait", "on": "publisher", "info": "initialized", "since": "begin", "within": 20}),
            json!({"do": "call", "on": "publisher", "method": "publish", "args": [stream]}),
            json!({"do": "wait", "on": "publisher", "info": "publish_started"}),
            json!({"do": "adaptor", "name": "viewer", "url": edge, "play": true, "ice": "own", "browser": "firefox"}),
            json!({"do": "wait", "on": "viewer", "info": "initialized", "since": "begin", "within": 20}),
            json!({"do": "call", "on": "viewer", "method": "play", "args": [stream]}),
            json!({"do": "wait", "on": "viewer", "info": "play_started"}),
            json!({"do": "watch", "on": "viewer", "seconds": 4}),
        ])
        .await;
        let seen = step(&result, "viewer", "watch", "");
        assert_eq!(seen["audioEnergy"].as_f64() > Some(0.0), audio, "{stream}: {seen:#}");
        assert_eq!(seen["framesDecoded"].as_u64() > Some(20), video, "{stream}: {seen:#}");
        assert_eq!(seen["looksLikeFakeCamera"] == true, video, "{stream}: {seen:#}");
    }
}
