//! Who may publish and play, at every door: WebSocket, WHIP and WHEP, with the word, status and sentence each client gets.
//!
//! Owns a row for each rule of an application: allowed, denied, expired, for another stream, for another purpose, used.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ams_access::jwt::{Claims, Hs256Key};
use ams_access::totp::{Period, TotpSecret};
use ams_access::{Purpose, Secret, UnixMs, hash};
use ams_rtc::ice::IceCredentials;
use ams_testkit::ams::AmsSocket;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::http;
use ams_testkit::light::{LightPublisher, LightViewer, fingerprint};
use ams_testkit::mongo::bson::doc;
use ams_testkit::mongod::Mongod;
use ams_testkit::node::NodeProcess;
use ams_testkit::{APP, eventually, sdp};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{NONE, SETTINGS, SOON, call, call_with};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";
/// In the year 2100.
const LATER: i64 = 4_102_444_800;
/// Where the clients of a row come from, unless it says otherwise.
const HOME: &str = "203.0.113.5";
const AWAY: &str = "203.0.113.6";

const PLAY: Purpose = Purpose::Play;
const PUBLISH: Purpose = Purpose::Publish;

/// What a client says.
#[derive(Clone, Debug)]
struct Try {
    purpose: Purpose,
    stream: String,
    token: String,
    subscriber: String,
    code: String,
    room: String,
    from: &'static str,
}

fn ask(purpose: Purpose, stream: &str) -> Try {
    let none = String::new;
    Try {
        purpose,
        stream: stream.to_owned(),
        token: none(),
        subscriber: none(),
        code: none(),
        room: none(),
        from: HOME,
    }
}

impl Try {
    fn token(self, token: impl Into<String>) -> Self {
        Self { token: token.into(), ..self }
    }

    fn subscriber(self, id: &str, code: impl Into<String>) -> Self {
        Self { subscriber: id.to_owned(), code: code.into(), ..self }
    }

    fn from(self, from: &'static str) -> Self {
        Self { from, ..self }
    }
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    In,
    /// Of the WebSocket the word, of HTTP the status.
    Out(String, String),
}

/// What a client should hear: AMS's word, the status and a part of the sentence.
#[derive(Clone, Copy, Debug)]
enum Want {
    In,
    Out(&'static str, u16, &'static str),
}

const NO_TOKEN: Want = Want::Out("unauthorized_access", 401, "a token is needed");

const fn no(sentence: &'static str) -> Want {
    Want::Out("unauthorized_access", 403, sentence)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Door {
    Socket,
    /// WHIP or WHEP, with the token in the header.
    Header,
    /// WHIP or WHEP, with the token in the query.
    Query,
}

const DOORS: [Door; 3] = [Door::Socket, Door::Header, Door::Query];

/// Knocks, and leaves again if let in.
async fn knock(node: &NodeProcess, door: Door, what: &Try) -> Result<Heard> {
    if door == Door::Socket {
        return knock_by_socket(node, what).await;
    }
    let answer = post(node, door, what).await?;
    if answer.status == 201 {
        let resource = node.url(answer.header("location").context("no Location")?);
        http::send("DELETE", &resource, &[], "").await?;
        return Ok(Heard::In);
    }
    ensure!(answer.header("content-type") == Some("application/problem+json"), "{answer:?}");
    let challenge = answer.header("www-authenticate");
    ensure!(challenge == (answer.status == 401).then_some("Bearer"), "{answer:?}");
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    Ok(Heard::Out(answer.status.to_string(), detail))
}

async fn post(node: &NodeProcess, door: Door, what: &Try) -> Result<http::Answer> {
    let (ice, fingerprint) = (IceCredentials::random(), fingerprint()?);
    let (path, offer) = match what.purpose {
        PUBLISH => ("whip", sdp::publish_offer(&ice, &fingerprint)),
        PLAY => ("whep", sdp::play_offer(&ice, &fingerprint)),
    };
    let bearer = format!("Bearer {}", what.token);
    let mut headers = vec![("content-type", "application/sdp"), ("x-forwarded-for", what.from)];
    let mut query = vec![("subscriberId", &what.subscriber), ("subscriberCode", &what.code), ("room", &what.room)];
    match door {
        Door::Header if !what.token.is_empty() => headers.push(("authorization", &bearer)),
        Door::Query => query.push(("token", &what.token)),
        _ => {}
    }
    let query: Vec<String> =
        query.into_iter().filter(|(_, v)| !v.is_empty()).map(|(name, value)| format!("{name}={value}")).collect();
    let url = node.url(&format!("/{APP}/{path}/{}?{}", what.stream, query.join("&")));
    http::send("POST", &url, &headers, offer).await
}

async fn knock_by_socket(node: &NodeProcess, what: &Try) -> Result<Heard> {
    let mut socket = AmsSocket::connect_from(&node.socket(), Some(what.from)).await?;
    let room = if what.purpose == PUBLISH { "mainTrack" } else { "room" };
    socket
        .send(json!({"command": what.purpose.as_str(), "streamId": what.stream, "token": what.token,
            "subscriberId": what.subscriber, "subscriberCode": what.code, room: what.room}))
        .await?;
    let is_answer = |m: &Value| ["start", "takeConfiguration", "error"].iter().any(|word| m["command"] == *word);
    let answer = socket.wait("an answer", SOON, is_answer).await?;
    if answer["command"] != "error" {
        socket.stop(&what.stream).await?;
        let ended = if what.purpose == PUBLISH { "publish_finished" } else { "play_finished" };
        socket.definition(ended, SOON).await?;
        socket.close().await;
        return Ok(Heard::In);
    }
    ensure!(answer["streamId"] == what.stream.as_str(), "{answer}");
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    Ok(Heard::Out(text("definition"), text("information")))
}

/// Whether a client heard what it should.
fn is_right(door: Door, heard: &Heard, want: Want) -> bool {
    match (heard, want) {
        (Heard::In, Want::In) => true,
        (Heard::Out(got, sentence), Want::Out(word, status, part)) => {
            let wanted = if door == Door::Socket { word.to_owned() } else { status.to_string() };
            *got == wanted && sentence.contains(part)
        }
        _ => false,
    }
}

/// Knocks at one door after the other with rows that are made for each of them, and complains about all that is wrong.
async fn at_every_door(
    node: &NodeProcess,
    rows: impl AsyncFn(Door) -> Result<Vec<(&'static str, Try, Want)>>,
) -> Result<()> {
    let mut wrong = Vec::new();
    for door in DOORS {
        for (name, what, want) in rows(door).await? {
            let heard = knock(node, door, &what).await.with_context(|| format!("{door:?}, {name}"))?;
            if !is_right(door, &heard, want) {
                wrong.push(format!("{door:?}, {name}: {} {heard:?} instead of {want:?}", what.purpose));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

async fn set(node: &NodeProcess, settings: Value) -> Result<()> {
    let path = format!("/rest/v2/applications/settings/{APP}");
    let done = call_with(node, "POST", &path, &[], &settings).await?;
    ensure!(done.json()["success"] == true, "{settings}: {done:?}");
    Ok(())
}

fn now() -> UnixMs {
    UnixMs::from(SystemTime::now())
}

/// A time this many seconds from now, in seconds since 1970.
fn secs(from_now: i64) -> i64 {
    i64::try_from(now().secs()).unwrap_or_default() + from_now
}

async fn one_time(node: &NodeProcess, stream: &str, purpose: Purpose, expires: i64) -> Result<String> {
    let path = format!("/broadcasts/{stream}/token?expireDate={expires}&type={purpose}");
    let made = call(node, "GET", &path, &NONE).await?.json();
    Ok(made["tokenId"].as_str().context("no token")?.to_owned())
}

fn jwt(key: &str, stream: &str, purpose: &str, expires: i64) -> String {
    let key = Hs256Key::new(&Secret::from(key)).expect("a long key");
    key.sign(&Claims::until(expires.unsigned_abs()).and("streamId", stream).and("type", purpose))
}

/// A node with a live stream `s`, on which `settings` are set afterwards.
async fn with_stream(net: u8, settings: Value) -> Result<(Cluster, LightPublisher)> {
    let cluster = Cluster::start(ClusterOptions::new(net, 0)).await?;
    let publisher = LightPublisher::publish(&cluster.origin.socket(), "s").await?;
    set(&cluster.origin, settings).await?;
    Ok((cluster, publisher))
}

/// Ends a case: none of these texts may have been logged.
async fn end(cluster: Cluster, secrets: &[&str]) -> Result<()> {
    let log = cluster.origin.log();
    for secret in secrets {
        ensure!(!log.contains(secret), "the log has {secret}");
    }
    cluster.end().await;
    Ok(())
}

#[test]
fn a_one_time_token_lets_one_client_in() {
    case(async {
        let settings = json!({"publishTokenControlEnabled": true, "playTokenControlEnabled": true});
        let (cluster, _publisher) = with_stream(84, settings).await?;
        let node = &cluster.origin;
        let mut used = Vec::new();
        let all = Mutex::new(&mut used);
        at_every_door(node, async |_| {
            let mut rows = Vec::new();
            for (purpose, stream, other) in [(PLAY, "s", PUBLISH), (PUBLISH, "p", PLAY)] {
                let me = || ask(purpose, stream);
                let good = one_time(node, stream, purpose, LATER).await?;
                all.lock().unwrap_or_else(PoisonError::into_inner).push(good.clone());
                rows.extend([
                    ("none", me(), NO_TOKEN),
                    ("unknown", me().token("nonsense"), no("the token is not known")),
                    ("long", me().token("x".repeat(300)), no("the token is not known")),
                    ("expired", me().token(one_time(node, stream, purpose, secs(-60)).await?), no("has expired")),
                    ("another stream's", me().token(one_time(node, "t", purpose, LATER).await?), no("another stream")),
                    ("another purpose", me().token(one_time(node, stream, other, LATER).await?), no("another purpose")),
                    ("good", me().token(&good), Want::In),
                    ("by somebody else", me().token(&good).from(AWAY), no("the token has been used")),
                    ("once more", me().token(&good), Want::In),
                    ("by somebody else still", me().token(&good).from(AWAY), no("the token has been used")),
                ]);
            }
            Ok(rows)
        })
        .await?;
        let shown = call(node, "GET", "/broadcasts/s/tokens/list/0/50", &NONE).await?.body;
        ensure!(!shown.contains(HOME) && !shown.contains("amsUsed"), "{shown}");
        let body = json!({"tokenId": used[0], "streamId": "s", "type": "play"});
        let validated = call(node, "POST", "/broadcasts/validate-token", &body).await?;
        ensure!(validated.json()["success"] == false, "what was used to play is not valid: {validated:?}");
        let secrets: Vec<&str> = used.iter().map(String::as_str).collect();
        end(cluster, &secrets).await
    });
}

#[test]
fn of_several_clients_with_one_token_one_gets_in_on_any_node() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(85, 1)).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let _publisher = LightPublisher::publish(&origin.socket(), "s").await?;
        set(origin, json!({"playTokenControlEnabled": true})).await?;
        eventually("the edge asks for tokens", SOON, || async {
            let heard = knock(edge, Door::Socket, &ask(PLAY, "s")).await.ok()?;
            is_right(Door::Socket, &heard, NO_TOKEN).then_some(())
        })
        .await?;
        for door in DOORS {
            let token = one_time(origin, "s", PLAY, LATER).await?;
            let from = |from| ask(PLAY, "s").token(&token).from(from);
            let tries = [from("203.0.113.1"), from("203.0.113.2"), from("203.0.113.3"), from("203.0.113.4")];
            let [a, b, c, d] = &tries;
            let heard = tokio::join!(
                knock(origin, door, a),
                knock(edge, door, b),
                knock(origin, door, c),
                knock(edge, door, d)
            );
            let heard = [heard.0?, heard.1?, heard.2?, heard.3?];
            let inside = heard.iter().filter(|heard| **heard == Heard::In).count();
            let used = no("the token has been used");
            let others = heard.iter().filter(|heard| is_right(door, heard, used)).count();
            ensure!((inside, others) == (1, 3), "{door:?}: {heard:?}");
        }
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_viewer_who_comes_too_early_keeps_its_token_and_its_next_session_ends_the_one_before() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(86, 0)).await?;
        let node = &cluster.origin;
        set(node, json!({"playTokenControlEnabled": true})).await?;
        let token = one_time(node, "s", PLAY, LATER).await?;
        let me = ask(PLAY, "s").token(&token);
        let early = knock(node, Door::Socket, &me).await?;
        ensure!(matches!(&early, Heard::Out(word, _) if word == "no_stream_exist"), "{early:?}");
        let early = knock(node, Door::Header, &me).await?;
        ensure!(matches!(&early, Heard::Out(status, _) if status == "409"), "{early:?}");
        let _publisher = LightPublisher::publish(&node.socket(), "s").await?;
        // Another one may have it, for nobody did.
        ensure!(knock(node, Door::Query, &me.clone().from(AWAY)).await? == Heard::In);
        ensure!(knock(node, Door::Query, &me).await? != Heard::In);

        let token = one_time(node, "s", PLAY, LATER).await?;
        let mut before = AmsSocket::connect_from(&node.socket(), Some(HOME)).await?;
        let play = json!({"command": "play", "streamId": "s", "token": token});
        before.send(play).await?;
        before.command("takeConfiguration", SOON).await?;
        ensure!(knock(node, Door::Socket, &ask(PLAY, "s").token(&token)).await? == Heard::In);
        let told = before.definition("play_finished", SOON).await?;
        ensure!(told["information"].as_str().is_some_and(|text| text.contains("one-time token")), "{told}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_signed_token_is_good_for_its_stream_and_purpose_until_it_expires() {
    case(async {
        let settings =
            json!({"publishJwtControlEnabled": true, "playJwtControlEnabled": true, "jwtStreamSecretKey": KEY});
        let (cluster, _publisher) = with_stream(87, settings).await?;
        let node = &cluster.origin;
        let in_room = |stream: &str| {
            let claims =
                Claims::until(LATER.unsigned_abs()).and("streamId", stream).and("type", "play").and("roomId", "r");
            Hs256Key::new(&Secret::from(KEY)).expect("a long key").sign(&claims)
        };
        at_every_door(node, async |_| {
            let mut rows = Vec::new();
            for (purpose, stream, other) in [(PLAY, "s", "publish"), (PUBLISH, "p", "play")] {
                let me = || ask(purpose, stream);
                let good = jwt(KEY, stream, purpose.as_str(), secs(60));
                let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap_or_default());
                rows.extend([
                    ("none", me(), NO_TOKEN),
                    ("good", me().token(&good), Want::In),
                    ("again, by somebody else", me().token(&good).from(AWAY), Want::In),
                    ("expired", me().token(jwt(KEY, stream, purpose.as_str(), secs(-60))), no("the token expired 6")),
                    ("a clock a little off", me().token(jwt(KEY, stream, purpose.as_str(), secs(-10))), Want::In),
                    ("another stream's", me().token(jwt(KEY, "t", purpose.as_str(), LATER)), no("another stream")),
                    ("another purpose", me().token(jwt(KEY, stream, other, LATER)), no("another purpose")),
                    ("another key's", me().token(jwt(OTHER_KEY, stream, purpose.as_str(), LATER)), no("signature")),
                    ("unsigned", me().token(unsigned), no("algorithm")),
                    ("no JWT", me().token("nonsense"), no("cannot be read")),
                ]);
            }
            let spoofed = Try { room: "r".to_owned(), ..ask(PLAY, "s").token(in_room("t")) };
            rows.push(("a room its stream is not in", spoofed, no("another stream")));
            rows.push(("the stream of the rest API", ask(PLAY, "s").token(rest_jwt(node).await?), Want::In));
            Ok(rows)
        })
        .await?;
        end(cluster, &[KEY, &jwt(KEY, "s", "play", LATER)]).await
    });
}

async fn rest_jwt(node: &NodeProcess) -> Result<String> {
    let path = format!("/broadcasts/s/jwt-token?expireDate={LATER}&type=play");
    let made = call(node, "GET", &path, &NONE).await?.json();
    Ok(made["tokenId"].as_str().context("no token")?.to_owned())
}

#[test]
fn a_hash_is_good_for_its_stream_and_purpose() {
    case(async {
        let settings =
            json!({"hashControlPublishEnabled": true, "hashControlPlayEnabled": true, "tokenHashSecret": "hush"});
        let (cluster, _publisher) = with_stream(88, settings).await?;
        let (secret, fits) = (Secret::from("hush"), no("the hash does not fit stream and purpose"));
        at_every_door(&cluster.origin, async |_| {
            let mut rows = Vec::new();
            for (purpose, stream, other) in [(PLAY, "s", PUBLISH), (PUBLISH, "p", PLAY)] {
                let me = || ask(purpose, stream);
                let good = hash::token(stream, purpose, &secret);
                rows.extend([
                    ("none", me(), NO_TOKEN),
                    ("good", me().token(&good), Want::In),
                    ("again, by somebody else", me().token(&good).from(AWAY), Want::In),
                    ("another stream's", me().token(hash::token("t", purpose, &secret)), fits),
                    ("another purpose", me().token(hash::token(stream, other, &secret)), fits),
                    ("another secret's", me().token(hash::token(stream, purpose, &"other".into())), fits),
                ]);
            }
            Ok(rows)
        })
        .await?;
        end(cluster, &["hush", &hash::token("s", PLAY, &secret)]).await
    });
}

#[test]
fn a_code_is_good_for_its_subscriber_for_a_while() {
    const OWN: &str = "ABCDEFGHABCDEFGH";
    case(async {
        let settings = json!({"enableTimeTokenForPlay": true, "enableTimeTokenForPublish": true,
            "timeTokenSecretForPlay": "play secret", "timeTokenSecretForPublish": "publish secret"});
        let (cluster, _publisher) = with_stream(89, settings).await?;
        let node = &cluster.origin;
        for stream in ["s", "p"] {
            for (id, kind) in [("alice", ""), ("viewer", "play"), ("blocked", "")] {
                let body = json!({"subscriberId": id, "b32Secret": OWN, "type": kind, "concurrentConnectionsLimit": 5});
                ensure!(
                    call(node, "POST", &format!("/broadcasts/{stream}/subscribers"), &body).await?.json()["success"]
                        == true
                );
            }
            let path = format!("/broadcasts/{stream}/subscribers/blocked/block/600/publish_play");
            ensure!(call(node, "PUT", &path, &NONE).await?.json()["success"] == true);
        }
        let own = TotpSecret::from_base32(&OWN.into())?;
        let at = |secs: u64| now().minus(Duration::from_secs(secs));
        let own = |secs| own.code(Period::DEFAULT, at(secs));
        let derived = |secret: &str, id: &str, stream: &str, purpose| {
            TotpSecret::derived(&secret.into(), id, stream, purpose).map(|secret| secret.code(Period::DEFAULT, now()))
        };
        at_every_door(node, async |_| {
            let mut rows = Vec::new();
            for (purpose, stream, secret) in [(PLAY, "s", "play secret"), (PUBLISH, "p", "publish secret")] {
                let me = |id, code: String| ask(purpose, stream).subscriber(id, code);
                let (wrong, blocked) = (no("wrong or out of date"), Want::Out("user_blocked", 403, "is blocked"));
                let viewer = if purpose == PLAY { Want::In } else { no("registered for another purpose") };
                rows.extend([
                    ("nobody", ask(purpose, stream), no("a subscriber id is needed")),
                    ("no code", me("alice", String::new()), no("a subscriber code is needed")),
                    ("the present code", me("alice", own(0)), Want::In),
                    ("a clock 60 s off", me("alice", own(60)), Want::In),
                    ("out of date", me("alice", own(180)), wrong),
                    ("registered to play", me("viewer", own(0)), viewer),
                    ("blocked", me("blocked", own(0)), blocked),
                    ("not registered", me("carol", derived(secret, "carol", stream, purpose)?), Want::In),
                    ("another's", me("carol", derived(secret, "dave", stream, purpose)?), wrong),
                    ("another stream's", me("carol", derived(secret, "carol", "t", purpose)?), wrong),
                    ("the application's for one's own", me("alice", derived(secret, "alice", stream, purpose)?), wrong),
                ]);
            }
            Ok(rows)
        })
        .await?;

        let body = json!({"subscriberId": "alone", "b32Secret": OWN});
        call(node, "POST", "/broadcasts/s/subscribers", &body).await?;
        let mut inside = AmsSocket::connect_from(&node.socket(), Some(AWAY)).await?;
        inside
            .send(json!({"command": "play", "streamId": "s", "subscriberId": "alone", "subscriberCode": own(0)}))
            .await?;
        inside.command("takeConfiguration", SOON).await?;
        let many = no("as many sessions as it may have");
        at_every_door(node, async |_| Ok(vec![("twice", ask(PLAY, "s").subscriber("alone", own(0)), many)])).await?;
        inside.close().await;
        eventually("there is room again", SOON, || async {
            let heard = knock(node, Door::Socket, &ask(PLAY, "s").subscriber("alone", own(0))).await.ok()?;
            (heard == Heard::In).then_some(())
        })
        .await?;
        end(cluster, &[OWN, "play secret", "publish secret"]).await
    });
}

#[test]
fn blocked_subscribers_planned_times_addresses_and_limits_hold_in_open_applications() {
    case(async {
        let (cluster, _publisher) = with_stream(94, json!({})).await?;
        let node = &cluster.origin;
        for (id, more) in [
            ("soon", json!({"plannedStartDate": secs(60)})),
            ("over", json!({"plannedEndDate": secs(-60)})),
            ("now", json!({"plannedStartDate": secs(-60), "plannedEndDate": secs(600)})),
        ] {
            let mut body = more;
            body["streamId"] = id.into();
            ensure!(call(node, "POST", "/broadcasts/create", &body).await?.status == 200);
        }
        ensure!(
            call(node, "PUT", "/broadcasts/s/subscribers/eve/block/600/play", &NONE).await?.json()["success"] == true
        );
        let closed = Want::Out("stream_not_active_or_expired", 403, "not active yet, or has expired");
        at_every_door(node, async |_| {
            Ok(vec![
                ("anybody", ask(PLAY, "s"), Want::In),
                ("a token nobody asks for", ask(PLAY, "s").token("x"), Want::In),
                ("too early a publisher", ask(PUBLISH, "soon"), closed),
                ("too early a viewer", ask(PLAY, "soon"), closed),
                ("too late a publisher", ask(PUBLISH, "over"), closed),
                ("too late a viewer", ask(PLAY, "over"), closed),
                ("in time", ask(PUBLISH, "now"), Want::In),
                ("blocked", ask(PLAY, "s").subscriber("eve", ""), Want::Out("user_blocked", 403, "is blocked")),
                ("another", ask(PLAY, "s").subscriber("bob", ""), Want::In),
            ])
        })
        .await?;

        set(node, json!({"acceptOnlyStreamsInDataStore": true})).await?;
        let unregistered = Want::Out("not_allowed_unregistered_streams", 403, "only registered streams");
        at_every_door(node, async |_| {
            Ok(vec![
                ("registered", ask(PUBLISH, "now"), Want::In),
                ("not registered", ask(PUBLISH, "nobody"), unregistered),
                ("viewers may", ask(PLAY, "s"), Want::In),
            ])
        })
        .await?;

        set(node, json!({"allowedPublisherCIDR": "10.9.0.0/16"})).await?;
        at_every_door(node, async |_| {
            Ok(vec![
                ("on the list", ask(PUBLISH, "p").from("10.9.1.1"), Want::In),
                ("off the list", ask(PUBLISH, "p").from("10.8.1.1"), no("not allowed from this address")),
                ("viewers may", ask(PLAY, "s").from("10.8.1.1"), Want::In),
            ])
        })
        .await?;

        set(node, json!({"ingestingStreamLimit": 1, "webRTCViewerLimit": 1})).await?;
        let full = Want::Out("highResourceUsage", 403, "as many streams are published as may be");
        at_every_door(node, async |_| {
            Ok(vec![("one more", ask(PUBLISH, "p"), full), ("the first viewer", ask(PLAY, "s"), Want::In)])
        })
        .await?;
        let mut viewer = LightViewer::play(&node.socket(), "s").await?;
        let full = Want::Out("viewerLimitReached", 403, "as many viewers as it may have");
        at_every_door(node, async |_| Ok(vec![("one more", ask(PLAY, "s"), full)])).await?;
        viewer.socket()?.stop("s").await?;
        end(cluster, &[]).await
    });
}

/// A webhook that says yes to what holds `good`, and keeps what it was asked.
async fn webhook(asked: Arc<Mutex<Vec<String>>>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hook?x=1", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&asked)));
        }
    });
    Ok(url)
}

async fn answer(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) -> Result<()> {
    let mut text = String::new();
    let mut buffer = vec![0; 16 * 1024];
    // The body is one JSON object.
    while !text.ends_with('}') {
        match stream.read(&mut buffer).await? {
            0 => bail!("broke off"),
            n => text.push_str(&String::from_utf8_lossy(&buffer[..n])),
        }
    }
    let status = match &text {
        t if t.contains("good") => "200 OK",
        t if t.contains("elsewhere") => "302 Found\r\nLocation: /hook?good",
        t if t.contains("created") => "201 Created",
        t if t.contains("silence") => return std::future::pending().await,
        _ => "403 Forbidden",
    };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?;
    Ok(())
}

#[test]
fn the_applications_webhook_has_the_last_word() {
    case(async {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let url = webhook(Arc::clone(&asked)).await?;
        let settings = json!({"webhookAuthenticateURL": url, "webhookPlayAuthUrl": url});
        let (cluster, _publisher) = with_stream(95, settings).await?;
        let node = &cluster.origin;
        let refused = no("the application's webhook does not allow it");
        at_every_door(node, async |_| {
            let mut rows = Vec::new();
            for (purpose, stream) in [(PLAY, "s"), (PUBLISH, "p")] {
                rows.extend([
                    ("yes", ask(purpose, stream).token("good"), Want::In),
                    ("no", ask(purpose, stream).token("bad"), refused),
                    ("nothing said", ask(purpose, stream), refused),
                    ("a redirect", ask(purpose, stream).token("elsewhere"), refused),
                    ("another success", ask(purpose, stream).token("created"), refused),
                ]);
            }
            Ok(rows)
        })
        .await?;
        let begun = Instant::now();
        let heard = knock(node, Door::Header, &ask(PUBLISH, "p").token("silence")).await?;
        ensure!(is_right(Door::Header, &heard, refused), "{heard:?}");
        ensure!((2..5).contains(&begun.elapsed().as_secs()), "after {:?}", begun.elapsed());
        let first = asked.lock().unwrap_or_else(PoisonError::into_inner).first().cloned().context("nobody asked")?;
        ensure!(first.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{first}");
        for part in
            ["content-type: application/json", r#""appName":"#, r#""name":"s""#, r#""mode":"play""#, "token=good"]
        {
            ensure!(first.contains(part), "{part} is not in {first}");
        }

        set(
            node,
            json!({"webhookAuthenticateURL": "https://127.0.0.1:1/", "webhookPlayAuthUrl": "http://127.0.0.1:1/"}),
        )
        .await?;
        at_every_door(node, async |_| {
            Ok(vec![
                ("no TLS", ask(PUBLISH, "p").token("good"), refused),
                ("nobody there", ask(PLAY, "s").token("good"), refused),
            ])
        })
        .await?;
        let log = node.log();
        let told = log.lines().filter(|line| line.contains("webhookAuthenticateURL") && line.contains("https")).count();
        ensure!(told == 1, "what cannot work is said {told} times");
        end(cluster, &[]).await
    });
}

#[test]
fn what_needs_no_registry_is_decided_without_it_and_the_rest_is_refused() {
    case(async {
        let mut mongod = Mongod::start().await?;
        let cluster = Cluster::start(ClusterOptions::new(96, 0).registry(mongod.uri())).await?;
        let node = &cluster.origin;
        let settings = json!({"publishJwtControlEnabled": true, "jwtStreamSecretKey": KEY,
            "playTokenControlEnabled": true, "enableTimeTokenForPublish": true, "timeTokenSecretForPublish": "hush"});
        set(node, settings).await?;
        let token = one_time(node, "s", PLAY, LATER).await?;
        mongod.kill()?;
        node.wait_status("/healthz", 200, SOON).await?;
        let code =
            || TotpSecret::derived(&"hush".into(), "carol", "p", PUBLISH).map(|s| s.code(Period::DEFAULT, now()));
        let away = Want::Out("data_store_not_available", 503, "the registry cannot be reached");
        at_every_door(node, async |_| {
            let me = || ask(PUBLISH, "p").subscriber("carol", code().unwrap_or_default());
            Ok(vec![
                ("a signed token and a code", me().token(jwt(KEY, "p", "publish", LATER)), Want::In),
                ("no token", me(), NO_TOKEN),
                ("expired", me().token(jwt(KEY, "p", "publish", secs(-60))), no("the token expired")),
                ("a one-time token", ask(PLAY, "s").token(&token), away),
                ("none", ask(PLAY, "s"), NO_TOKEN),
            ])
        })
        .await?;
        let other = Want::Out("data_store_not_available", 503, "the registry cannot be reached");
        let wrong = ask(PUBLISH, "p").subscriber("carol", "000000").token(jwt(KEY, "p", "publish", LATER));
        at_every_door(node, async |_| Ok(vec![("a code that may be one's own", wrong.clone(), other)])).await?;
        drop(cluster);
        Ok(())
    });
}

#[test]
fn a_setting_that_cannot_work_refuses_and_is_said_once() {
    case(async {
        let (cluster, _publisher) =
            with_stream(97, json!({"playJwtControlEnabled": true, "jwtStreamSecretKey": "short"})).await?;
        let node = &cluster.origin;
        at_every_door(node, async |_| {
            Ok(vec![
                ("any token", ask(PLAY, "s").token("x"), no("jwtStreamSecretKey is missing or cannot be used")),
                ("publishers may", ask(PUBLISH, "p"), Want::In),
            ])
        })
        .await?;
        tokio::time::sleep(SETTINGS).await;
        let log = node.log();
        ensure!(log.lines().filter(|line| line.contains("jwtStreamSecretKey")).count() == 1, "{log}");
        // Written by somebody else, of a type it should not have: as strict as can be.
        let settings = cluster.databases.collection("clusterdb", "AppSettings");
        let change = doc! {"$set": {"playJwtControlEnabled": false, "timeTokenSubscriberOnly": "yes"}};
        settings.update_one(doc! {"appName": APP}, change).await?;
        eventually("codes are asked for", SOON, || async {
            let heard = knock(node, Door::Socket, &ask(PLAY, "s")).await.ok()?;
            is_right(Door::Socket, &heard, no("a subscriber id is needed")).then_some(())
        })
        .await?;
        end(cluster, &[]).await
    });
}
