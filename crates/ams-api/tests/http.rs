//! WHIP, WHEP, health and pages, request by request.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ams_api::port::{EndReason, Node, Refusal, SessionId};
use ams_api::{Api, ApiConfig, TurnServer};
use axum::Router;
use axum::body::Body;
use common::{FakeNode, eventually, key, limited};
use http::{HeaderMap, Request, Response, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt;

const SDP: (&str, &str) = ("content-type", "application/sdp");
const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");
const OFFER: &str = "v=0\r\na=ice-ufrag:theirs\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";

struct Fixture {
    node: Arc<FakeNode>,
    api: Api,
    router: Router,
}

fn fixture_with(config: ApiConfig) -> Fixture {
    let node = FakeNode::new();
    let api = Api::new(Arc::clone(&node) as Arc<dyn Node>, config);
    Fixture { node, router: api.router(), api }
}

fn fixture() -> Fixture {
    fixture_with(ApiConfig::default())
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Fixture {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response: Response<Body> = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        Got { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    async fn get(&self, path: &str) -> Got {
        self.ask("GET", path, &[], "").await
    }

    /// A WHIP session's path.
    async fn publish(&self) -> String {
        let got = self.ask("POST", "/live/whip/cam", &[SDP], OFFER).await;
        assert_eq!(got.status, 201, "{}", got.body);
        got.header("location").to_owned()
    }
}

#[tokio::test]
async fn whip_opens_and_closes_a_session() {
    let f = fixture();
    let got = f.ask("POST", "/live/whip/cam?token=x", &[SDP, ("user-agent", "OBS")], OFFER).await;
    assert_eq!(got.status, 201);
    assert_eq!(got.body, "v=0 answer");
    assert_eq!(got.header("content-type"), "application/sdp");
    assert_eq!(got.header("location"), "/live/whip/cam/session-0");
    assert_eq!(got.header("etag"), "\"tag-0\"");
    assert_eq!(got.header("accept-patch"), "application/trickle-ice-sdpfrag");
    assert_eq!(f.node.requests.lock().unwrap()[0].caller.user_agent, "OBS");
    assert_eq!(f.api.http_session_count(), 1);

    let session = got.header("location").to_owned();
    assert!(f.ask("HEAD", &session, &[], "").await.status.is_success());
    let got = f.ask("DELETE", &session, &[("if-match", "\"any\"")], "").await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, ""));
    assert_eq!(f.node.closed.lock().unwrap().as_slice(), [(SessionId("session-0".into()), EndReason::ByRequest)]);
    assert_eq!(f.ask("DELETE", &session, &[], "").await.status, 404);
    assert_eq!(f.api.http_session_count(), 0);
}

#[tokio::test]
async fn refusals_are_told_apart_and_explained() {
    let f = fixture();
    f.node.start_stream(&key("live", "on"));
    let long = "a".repeat(200_000);
    for (name, method, path, headers, body, status) in [
        ("wrong type", "POST", "/live/whip/a", &[("content-type", "text/plain")][..], OFFER, 415),
        ("no type", "POST", "/live/whip/a", &[], OFFER, 415),
        ("empty body", "POST", "/live/whip/a", &[SDP], "", 400),
        ("malformed", "POST", "/live/whip/a", &[SDP], "malformed", 400),
        ("unsupported", "POST", "/live/whip/a", &[SDP], "unsupported", 422),
        ("publisher without a codec", "POST", "/live/whip/a", &[SDP], "no codec", 422),
        ("viewer without a codec", "POST", "/live/whep/on", &[SDP], "no codec", 406),
        ("too large", "POST", "/live/whip/a", &[SDP], &long, 413),
        ("bad stream id", "POST", "/live/whip/a%20b", &[SDP], OFFER, 400),
        ("long stream id", "POST", &format!("/live/whip/{}", "x".repeat(200)), &[SDP], OFFER, 400),
        ("unknown app", "POST", "/nobody/whip/a", &[SDP], OFFER, 404),
        ("not live", "POST", "/live/whep/off", &[SDP], OFFER, 409),
        ("PUT", "PUT", "/live/whip/a", &[SDP], OFFER, 405),
        ("PATCH on the endpoint", "PATCH", "/live/whep/on", &[FRAGMENT], "", 405),
        ("unknown session", "DELETE", "/live/whip/a/nothing", &[], "", 404),
        ("unknown session, PATCH", "PATCH", "/live/whep/on/nothing", &[FRAGMENT, ("if-match", "*")], "", 404),
    ] {
        let got = f.ask(method, path, headers, body.to_owned()).await;
        assert_eq!(got.status.as_u16(), status, "{name}: {}", got.body);
        assert_eq!(got.header("content-type"), "application/problem+json", "{name}");
        let problem = got.json();
        assert_eq!(problem["status"], status, "{name}");
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{name}: {problem}");
        match status {
            415 => assert_eq!(got.header("accept-post"), "application/sdp", "{name}"),
            409 => assert_eq!(got.header("retry-after"), "2", "{name}"),
            405 => assert!(!got.header("allow").is_empty(), "{name}"),
            _ => {}
        }
    }
    assert_eq!((f.node.session_count(), f.api.http_session_count()), (0, 0), "what was refused leaves nothing");

    f.publish().await;
    let got = f.ask("POST", "/live/whip/cam", &[SDP], OFFER).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (409, "5"), "{}", got.body);
    *f.node.refuse.lock().unwrap() = Some(Refusal::EdgeTakesNoPublishers(Some("10.0.0.1".into())));
    let got = f.ask("POST", "/live/whip/b", &[SDP], OFFER).await;
    assert_eq!(got.status, 403);
    assert!(got.body.contains("10.0.0.1"), "{}", got.body);
}

#[tokio::test]
async fn bodies_that_lie_about_themselves() {
    let f = fixture();
    let got = f.ask("POST", "/live/whip/a", &[SDP], vec![0xff, 0xfe, b'v']).await;
    assert_eq!(got.status, 400, "not UTF-8");
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'a'; 10_000]));
    let got = f.ask("POST", "/live/whip/a", &[SDP], Body::from_stream(endless)).await;
    assert_eq!(got.status, 413, "endless");
    let f = fixture_with(limited(|limits| limits.body_timeout = std::time::Duration::from_millis(50)));
    let silent = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    assert_eq!(f.ask("POST", "/live/whip/a", &[SDP], Body::from_stream(silent)).await.status, 408, "silent");
}

#[tokio::test]
async fn whep_opens_a_session_and_describes_its_endpoint() {
    let f = fixture();
    f.node.start_stream(&key("live", "cam"));
    let got = f.ask("HEAD", "/live/whep/cam", &[], "").await;
    assert_eq!((got.status.as_u16(), got.header("content-type")), (200, "application/sdp"));
    assert!(f.get("/live/whip/cam").await.status.is_success());
    let got = f.ask("POST", "/live/whep/cam", &[("content-type", "Application/SDP; charset=utf-8")], OFFER).await;
    assert_eq!(got.status, 201, "{}", got.body);
    let session = got.header("location").to_owned();
    assert_eq!(session, "/live/whep/cam/session-0");
    assert_eq!(f.ask("DELETE", &session.replace("whep", "whip"), &[], "").await.status, 404, "not a publisher");
    assert_eq!(f.ask("DELETE", &session.replace("cam", "other"), &[], "").await.status, 404, "not that stream");
    assert_eq!(f.ask("DELETE", &session.replace("live", "WebRTCAppEE"), &[], "").await.status, 404, "not that app");
    assert_eq!(f.ask("DELETE", &session, &[], "").await.status, 200);
}

#[tokio::test]
async fn trickle_and_restart() {
    let f = fixture();
    let session = f.publish().await;
    let trickle =
        "a=ice-ufrag:theirs\r\na=ice-pwd:x\r\nm=audio 9 x 0\r\na=mid:0\r\na=candidate:1 1 udp 1 1.1.1.1 1 typ host\r\n";
    let restart = "a=ice-ufrag:new1\r\na=ice-pwd:y\r\n";
    let tag = ("if-match", "\"tag-0\"");
    for (name, headers, body, status) in [
        ("candidate", &[FRAGMENT, tag][..], trickle, 204),
        ("tag without quotes", &[FRAGMENT, ("if-match", "tag-0")], trickle, 204),
        ("star and the known ufrag", &[FRAGMENT, ("if-match", "*")], trickle, 204),
        ("end of candidates without a ufrag", &[FRAGMENT, tag], "a=end-of-candidates\r\n", 204),
        ("no tag", &[FRAGMENT], trickle, 428),
        ("stale tag", &[FRAGMENT, ("if-match", "\"old\"")], trickle, 412),
        ("weak tag", &[FRAGMENT, ("if-match", "W/\"tag-0\"")], trickle, 412),
        ("half a tag", &[FRAGMENT, ("if-match", "\"tag-0")], trickle, 412),
        ("wrong type", &[SDP, tag], trickle, 415),
        ("a restart that cannot be", &[FRAGMENT, ("if-match", "*")], "a=ice-ufrag:new0\r\nunsupported\r\n", 422),
        ("the session lives on", &[FRAGMENT, tag], trickle, 204),
    ] {
        let got = f.ask("PATCH", &session, headers, body.to_owned()).await;
        assert_eq!(got.status.as_u16(), status, "{name}: {}", got.body);
        if status == 204 {
            assert!(got.body.is_empty() && got.headers.get(header::ETAG).is_none(), "{name}");
        }
        if status == 415 {
            assert_eq!(got.header("accept-patch"), "application/trickle-ice-sdpfrag");
        }
    }
    let got = f.ask("PATCH", &session, &[FRAGMENT, ("if-match", "\"*\"")], restart).await;
    assert_eq!((got.status.as_u16(), got.header("etag")), (200, "\"tag-0+\""), "{}", got.body);
    assert_eq!(got.header("content-type"), "application/trickle-ice-sdpfrag");
    assert_eq!(got.body, "a=ice-ufrag:ours");
    let old = f.ask("PATCH", &session, &[FRAGMENT, tag], restart.to_owned() + "a=candidate:1").await;
    assert_eq!(old.status, 412, "the old tag is stale after a restart");
    let new = f.ask("PATCH", &session, &[FRAGMENT, ("if-match", "\"tag-0+\"")], restart).await;
    assert_eq!(new.status, 204, "the new fragment's candidates are trickled, not another restart");
    assert_eq!(f.node.session_count(), 1);
}

#[tokio::test]
async fn an_ended_session_is_no_resource_any_more() {
    let f = fixture();
    let session = f.publish().await;
    f.node.end(&f.node.only_session(), EndReason::Timeout("no media".into())).await;
    eventually("the resource is gone", || f.api.http_session_count() == 0).await;
    assert_eq!(f.ask("PATCH", &session, &[FRAGMENT, ("if-match", "*")], "").await.status, 404);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_its_session_opens_leaves_nothing() {
    let f = fixture();
    f.node.gate.forget_permits(1_000_000);
    let request = Request::post("/live/whip/cam").header(SDP.0, SDP.1).body(Body::from(OFFER)).unwrap();
    let asking = tokio::spawn(f.router.clone().oneshot(request));
    eventually("the node is asked", || f.node.gate_waiting.load(Ordering::SeqCst) == 1).await;
    asking.abort();
    let _ = asking.await;
    f.node.gate.add_permits(1);
    eventually("the session is closed", || f.node.closed.lock().unwrap().len() == 1).await;
    assert_eq!((f.node.session_count(), f.api.http_session_count()), (0, 0));
}

#[tokio::test]
async fn http_sessions_are_limited() {
    let f = fixture_with(limited(|limits| limits.http_sessions = 1));
    let session = f.publish().await;
    let got = f.ask("POST", "/live/whip/other", &[SDP], OFFER).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (503, "5"));
    f.ask("DELETE", &session, &[], "").await;
    assert_eq!(f.ask("POST", "/live/whip/other", &[SDP], OFFER).await.status, 201);
}

#[tokio::test]
async fn browsers_of_other_origins_may_use_whip() {
    let f = fixture();
    let preflight = [("origin", "https://elsewhere.example"), ("access-control-request-method", "PATCH")];
    for path in ["/live/whip/a", "/live/whep/a", "/live/whip/a/s", "/live/rest/v2/version", "/live/websocket"] {
        let got = f.ask("OPTIONS", path, &preflight, "").await;
        assert_eq!(got.status, 204, "{path}");
        assert_eq!(got.header("access-control-allow-origin"), "*", "{path}");
        for word in ["PATCH", "DELETE", "POST"] {
            assert!(got.header("access-control-allow-methods").contains(word), "{path}");
        }
        for word in ["Authorization", "Content-Type", "If-Match"] {
            assert!(got.header("access-control-allow-headers").contains(word), "{path}");
        }
        assert!(got.headers.get(header::LINK).is_none(), "no credentials in a preflight");
    }
    assert_eq!(f.ask("OPTIONS", "/live/whip/a", &[], "").await.header("accept-post"), "application/sdp");
    let got = f.ask("POST", "/live/whip/a", &[SDP, preflight[0]], OFFER).await;
    for word in ["Location", "Link", "ETag", "Accept-Patch", "Retry-After"] {
        assert!(got.header("access-control-expose-headers").contains(word), "{word}");
    }
    assert_eq!(got.header("access-control-allow-credentials"), "");

    let f = fixture_with(ApiConfig { cors_origins: vec!["https://ours.example".into()], ..Default::default() });
    for (origin, want) in [("https://ours.example", "https://ours.example"), ("https://elsewhere.example", "")] {
        let got = f.ask("OPTIONS", "/live/whip/a", &[("origin", origin)], "").await;
        assert_eq!(got.header("access-control-allow-origin"), want);
    }
}

#[tokio::test]
async fn ice_servers_and_base_come_from_the_configuration() {
    let f = fixture_with(ApiConfig {
        stun_servers: vec!["stun:stun.example:3478".into()],
        turn_servers: vec![TurnServer {
            url: "turn:turn.example?transport=udp".into(),
            username: "us\"er".into(),
            credential: ams_api::Secret("pass".into()),
        }],
        public_base: "https://media.example".into(),
        ..Default::default()
    });
    let got = f.ask("POST", "/live/whip/a", &[SDP], OFFER).await;
    assert_eq!(got.header("location"), "https://media.example/live/whip/a/session-0");
    let links: Vec<_> = got.headers.get_all(header::LINK).iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(
        links,
        [
            "<stun:stun.example:3478>; rel=\"ice-server\"",
            "<turn:turn.example?transport=udp>; rel=\"ice-server\"; username=\"us\\\"er\"; credential=\"pass\"; \
             credential-type=\"password\"",
        ]
    );
}

#[tokio::test]
async fn one_address_cannot_take_all() {
    let f = fixture_with(limited(|limits| (limits.requests_per_second, limits.request_burst) = (1.0, 3.0)));
    let from = |address| [("x-forwarded-for", address), SDP];
    for _ in 0..3 {
        assert_eq!(f.ask("POST", "/live/whep/off", &from("198.51.100.1"), OFFER).await.status, 409);
    }
    let got = f.ask("POST", "/live/whep/off", &from("198.51.100.1"), OFFER).await;
    assert_eq!((got.status.as_u16(), got.header("retry-after")), (429, "1"));
    assert!(!got.header("access-control-allow-origin").is_empty(), "a page can read why");
    assert_eq!(f.ask("DELETE", "/live/whip/a/b", &from("198.51.100.1"), "").await.status, 429);
    assert_eq!(f.ask("GET", "/live/whep/off", &from("198.51.100.1"), "").await.status, 200, "reading is free");
    assert_eq!(
        f.ask("POST", "/live/whep/off", &from("198.51.100.2"), OFFER).await.status,
        409,
        "a neighbour is not hurt"
    );
}

#[tokio::test]
async fn figures_are_for_the_network_only() {
    let f = fixture_with(ApiConfig::default());
    let got = f.get("/metrics").await;
    assert_eq!((got.status.as_u16(), got.body.contains("ams_publishers 1")), (200, true));
    let outside = [("x-forwarded-for", "203.0.113.9")];
    assert_eq!(f.ask("GET", "/metrics", &outside, "").await.status, 403);
}

#[tokio::test]
async fn health() {
    let f = fixture_with(ApiConfig { host_name: "node-7".into(), ..Default::default() });
    assert_eq!(f.get("/healthz").await.json()["status"], "ok");
    assert_eq!(f.get("/rest/v2/liveness").await.json(), serde_json::json!({"host": "node-7", "status": "ok"}));
    let got = f.get("/readyz").await;
    assert_eq!((got.status.as_u16(), got.json().get("checks")), (200, None));
    let got = f.get("/readyz?verbose").await;
    assert_eq!(got.json()["checks"][1]["name"], "relay");
    assert_eq!(f.ask("HEAD", "/readyz", &[], "").await.status, 200);
    assert_eq!(f.get("/rest/v2/version").await.status, 403, "a login opens it");
    assert_eq!(f.get("/live/rest/v2/version").await.status, 200);

    f.node.ready.store(false, Ordering::SeqCst);
    let got = f.get("/readyz").await;
    assert_eq!((got.status.as_u16(), &got.json()["checks"][0]["ok"]), (503, &Value::Bool(false)));
    assert_eq!(f.get("/healthz").await.status, 200, "a database outage is no reason to restart");
    f.node.alive.store(false, Ordering::SeqCst);
    assert_eq!(f.get("/healthz").await.status, 503);
    let got = f.get("/rest/v2/liveness").await;
    assert_eq!((got.status.as_u16(), &got.json()["status"]), (500, &Value::from("error")));

    f.node.ready.store(true, Ordering::SeqCst);
    f.api.announce_stop(std::time::Duration::ZERO, std::time::Duration::ZERO);
    assert_eq!(f.get("/readyz").await.status, 503);
    assert_eq!(f.ask("POST", "/live/whip/a", &[SDP], OFFER).await.status, 503);
}

#[tokio::test]
async fn pages() {
    let f = fixture();
    let got = f.get("/").await;
    assert_eq!(got.status, 200);
    assert!(got.body.contains("/WebRTCAppEE/player.html"), "{}", got.body);
    for path in ["/WebRTCAppEE/", "/live/index.html", "/live/player.html", "/live/play.html?id=stream1"] {
        let got = f.get(path).await;
        assert_eq!((got.status.as_u16(), got.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert!(got.header("content-security-policy").contains("default-src 'self'"), "{path}");
        assert_eq!(got.header("x-content-type-options"), "nosniff");
        assert_eq!(got.header("cache-control"), "no-cache", "{path}");
        if !got.header("etag").is_empty() {
            let again = f.ask("GET", path, &[("if-none-match", got.header("etag"))], "").await;
            assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""), "{path}");
        }
    }
    for (path, location) in [("/live", "/live/"), ("/live?target=edge&id=a", "/live/?target=edge&id=a")] {
        for method in ["GET", "HEAD"] {
            let got = f.ask(method, path, &[], "").await;
            assert_eq!((got.status.as_u16(), got.header("location")), (307, location), "{method}");
        }
    }
    for (path, word) in [
        ("/nobody", "WebRTCAppEE"),
        ("/nobody/", "WebRTCAppEE"),
        ("/nobody/player.html", "WebRTCAppEE"),
        ("/live/nothing.js", "no such page"),
        ("/live/../secret", "no such page"),
        ("/live/assets/%2e%2e/%2e%2e/Cargo.toml", "no such page"),
        ("/live/streams/stream1.m3u8", "WebRTC only"),
        ("/live/streams/stream1/stream1.mpd", "WebRTC only"),
        ("/a/b/c/d", "WebRTCAppEE"),
    ] {
        let got = f.get(path).await;
        assert_eq!(got.status, 404, "{path}");
        assert!(got.body.contains(word), "{path}: {}", got.body);
    }
    assert_eq!(f.ask("POST", "/", &[], "").await.status, 405);
}
