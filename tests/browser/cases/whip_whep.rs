//! Publishers by WHIP and viewers by WHEP: browsers, aiortc, FFmpeg, GStreamer.

use ams_testkit::driver::Driver;
use serde_json::Value;

use super::{Demo, PATIENCE, Picture, finish, result, saw};

/// Starts a WHIP publisher and waits until it is connected.
pub(super) async fn publish(script: &str, url: &str, args: &[&str]) -> Driver {
    let args = [&["--url", url, "--seconds", "0"], args].concat();
    let mut publisher = Driver::start(script, &args).unwrap();
    publisher.event("connected", PATIENCE).await.unwrap();
    publisher
}

/// Lets a WHEP viewer watch for a few seconds and checks what it saw and the HTTP around it.
async fn watch(publisher: &str, url: &str, viewer: &(&str, &[&str]), picture: Picture, codec: &str) {
    let (script, args) = viewer;
    let who = format!("{publisher} → {script} {}", args.join(" "));
    let seen = result(&mut Driver::start(script, &[&["--url", url, "--seconds", "4"], *args].concat()).unwrap()).await;
    saw(&who, &seen, picture, Some(codec));
    http_was_right(&who, &seen);
}

/// 201, a session to delete, a quoted ETag, and an answer of the right type.
fn http_was_right(who: &str, result: &Value) {
    let header = |name: &str| {
        let headers = result["headers"].as_object()?;
        let (_, value) = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        value.as_str()
    };
    assert_eq!(result["status"], 201, "{who}: {result:#}");
    assert_eq!(result["deleted"], 200, "{who}: {result:#}");
    assert!(header("Location").is_some(), "{who}: {result:#}");
    let etag = header("ETag").unwrap_or_default();
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{who}: ETag {etag}");
}

const CHROMIUM: (&str, &[&str]) = ("whep.mjs", &["--browser", "chromium"]);
const FIREFOX: (&str, &[&str]) = ("whep.mjs", &["--browser", "firefox"]);

#[tokio::test]
async fn aiortc_publishes_vp8_to_everyone() {
    let demo = Demo::start().await;
    let publisher = publish("whip_aiortc.py", &demo.origin("whip/vp8"), &["--codec", "VP8"]).await;
    let url = demo.edge("whep/vp8");
    for viewer in
        [CHROMIUM, FIREFOX, ("whep_aiortc.py", &["--codec", "VP8"][..]), ("whep_gstreamer.py", &["--codec", "VP8"])]
    {
        watch("aiortc VP8", &url, &viewer, Picture::Pattern, "VP8").await;
    }
    http_was_right("aiortc VP8", &finish(publisher).await);
}

#[tokio::test]
async fn aiortc_publishes_h264_to_all_who_have_it_and_the_others_are_told() {
    let demo = Demo::start().await;
    let publisher = publish("whip_aiortc.py", &demo.origin("whip/h264"), &["--codec", "H264"]).await;
    let url = demo.edge("whep/h264");
    for viewer in [CHROMIUM, ("whep_aiortc.py", &["--codec", "H264"][..]), ("whep_gstreamer.py", &["--codec", "H264"])]
    {
        watch("aiortc H264", &url, &viewer, Picture::Pattern, "H264").await;
    }
    // Debian's Firefox has no H.264 for WebRTC. If one day it has, it must see the picture like everyone else.
    let mut firefox = Driver::start(FIREFOX.0, &[&["--url", &url, "--seconds", "4"], FIREFOX.1].concat()).unwrap();
    let seen = firefox.event("result", PATIENCE).await.unwrap();
    if seen["ok"] == true {
        saw("aiortc H264 → firefox", &seen, Picture::Pattern, Some("H264"));
    } else {
        assert_eq!(seen["status"], 406, "{seen:#}");
        let why = seen["why"].as_str().unwrap_or_default();
        assert!(why.contains("H264") && why.contains("VP8"), "says neither what is needed nor what came: {why}");
    }
    http_was_right("aiortc H264", &finish(publisher).await);
}

/// FFmpeg's muxer is DTLS server by default and client when told so; either way the node takes the other part.
#[tokio::test]
async fn ffmpeg_publishes_as_dtls_server_and_as_client() {
    let demo = Demo::start().await;
    for (name, active, viewers) in [
        ("ffmpeg, dtls server", "0", [CHROMIUM, ("whep_gstreamer.py", &["--codec", "H264"][..])]),
        ("ffmpeg, dtls client", "1", [CHROMIUM, ("whep_aiortc.py", &["--codec", "H264"])]),
    ] {
        let stream = format!("ffmpeg-{active}");
        let url = demo.origin(&format!("whip/{stream}"));
        let publisher = publish("whip_ffmpeg.py", &url, &["--dtls-active", active]).await;
        for viewer in &viewers {
            watch(name, &demo.edge(&format!("whep/{stream}")), viewer, Picture::Pattern, "H264").await;
        }
        let sent = finish(publisher).await;
        assert!(sent["framesSent"].as_u64() > Some(100), "{name}: {sent:#}");
    }
}

/// H.264 of a browser, on the pages: published by WHIP, watched on the edge's player page.
#[tokio::test]
async fn chromium_publishes_h264_to_the_player_page() {
    let demo = Demo::start().await;
    let publisher = publish("whip.mjs", &demo.origin("whip/stream1"), &["--codec", "H264"]).await;
    let url = demo.edge("player.html");
    let player = &mut Driver::start("play.mjs", &["--url", &url, "--seconds", "4"]).unwrap();
    let seen = result(player).await;
    saw("chromium H264 → player page, chromium", &seen, Picture::Camera, Some("H264"));
    super::no_complaints("player page", &seen);
    watch(
        "chromium H264",
        &demo.edge("whep/stream1"),
        &("whep_gstreamer.py", &["--codec", "H264"]),
        Picture::Camera,
        "H264",
    )
    .await;
    let sent = finish(publisher).await;
    http_was_right("chromium H264", &sent);
    super::no_complaints("whip page", &sent);
}

/// What a browser can send besides: the node forwards it without looking far inside.
#[tokio::test]
async fn chromium_publishes_vp9_and_av1() {
    let demo = Demo::start().await;
    for codec in ["VP9", "AV1"] {
        let publisher = publish("whip.mjs", &demo.origin(&format!("whip/{codec}")), &["--codec", codec]).await;
        let url = demo.edge(&format!("whep/{codec}"));
        watch("chromium", &url, &FIREFOX, Picture::Camera, codec).await;
        finish(publisher).await;
    }
}
