//! Tokens, subscribers, time codes and connection events.

use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::mongo::bson::doc;
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{NONE, call, call_with, check, result, row};

/// In the year 2100.
const LATER: &str = "4102444800";
const WORDS: &str = "Define stream ID, token type and expire date (unix time)";

async fn tokens(node: &NodeProcess) -> Result<()> {
    let made = call(node, "GET", &format!("/broadcasts/s/token?expireDate={LATER}&type=play&roomId="), &NONE).await?;
    let token = made.json();
    ensure!(made.status == 200, "{made:?}");
    ensure!(token["streamId"] == "s" && token["type"] == "play" && token["roomId"].is_null(), "{token}");
    ensure!(token["expireDate"] == 4_102_444_800_i64, "{token}");
    ensure!(token["tokenId"].as_str().is_some_and(|id| id.len() == 32), "{token}");
    let listed = call(node, "GET", "/broadcasts/s/tokens/list/0/50", &NONE).await?.json();
    ensure!(listed == json!([token]), "{listed}");

    let with = |name: &str, value: Value| {
        let mut changed = token.clone();
        changed[name] = value;
        changed
    };
    for (name, body, want) in [
        ("another stream's", with("streamId", json!("t")), false),
        ("another purpose", with("type", json!("publish")), false),
        ("no token", with("tokenId", json!("nonsense")), false),
        ("nothing", json!({}), false),
        ("the right one", token.clone(), true),
        ("used up", token.clone(), false),
    ] {
        let got = call(node, "POST", "/broadcasts/validate-token", &body).await?;
        ensure!(got.status == 200 && got.json() == result(want, Value::Null), "{name}: {got:?}");
    }
    let old = call(node, "GET", "/broadcasts/s/token?expireDate=1000&type=play", &NONE).await?.json();
    let got = call(node, "POST", "/broadcasts/validate-token", &old).await?;
    ensure!(got.json()["success"] == false, "expired: {got:?}");

    check(node, &[
        row("no purpose", "GET", "/broadcasts/s/token?expireDate=5", NONE, 400, result(false, WORDS)),
        row("no purpose there is", "GET", "/broadcasts/s/token?expireDate=5&type=x", NONE, 400, result(false, WORDS)),
        row("no date", "GET", "/broadcasts/s/token?type=play", NONE, 400, result(false, WORDS)),
        row("no date there is", "GET", "/broadcasts/s/token?type=play&expireDate=x", NONE, 400, result(false, WORDS)),
        row("revoked", "DELETE", "/broadcasts/s/tokens", NONE, 200, result(true, Value::Null)),
        row("revoked again", "DELETE", "/broadcasts/s/tokens", NONE, 200, result(false, Value::Null)),
        row("none left", "GET", "/broadcasts/s/tokens/list/0/50", NONE, 200, json!([])),
        row("no key", "GET", "/broadcasts/s/jwt-token?expireDate=4102444800&type=play", NONE, 400, result(false,
            "Cannot create JWT token. The problem may be -> JWT stream key is not set or its length is less than 32")),
        row("a body that is none", "POST", "/broadcasts/validate-token", json!({"tokenId": 5}), 400,
            json!({"success": false})),
    ])
    .await?;

    let settings =
        json!({"jwtStreamSecretKey": "0123456789abcdef0123456789abcdef", "timeTokenSecretForPlay": "secret"});
    let path = format!("/rest/v2/applications/settings/{APP}");
    ensure!(call_with(node, "POST", &path, &[], &settings).await?.json()["success"] == true);
    let jwt = call(node, "GET", &format!("/broadcasts/s/jwt-token?expireDate={LATER}&type=publish"), &NONE).await?;
    let id = jwt.json()["tokenId"].as_str().unwrap_or_default().to_owned();
    ensure!(jwt.status == 200 && id.split('.').count() == 3, "{jwt:?}");
    Ok(())
}

async fn subscribers(node: &NodeProcess) -> Result<()> {
    let missing = "Missing parameter: Make sure you set subscriber object correctly and make subscriberId's length \
         at least 3";
    let secret = "Secret code is not multiple of 8 bytes length. Use b32Secret, which is a string and its length is \
         multiple of 8 bytes and allowed characters A-Z, 2-7";
    let add = |name, body, want| row(name, "POST", "/broadcasts/s/subscribers", body, 200, want);
    let alice = json!({"subscriberId": "alice", "subscriberName": "A", "b32Secret": "ABCDEFGH", "type": "play",
        "connected": true, "currentConcurrentConnections": 5});
    check(
        node,
        &[
            add("added", alice, result(true, Value::Null)),
            add("too short", json!({"subscriberId": "ab"}), result(false, missing)),
            add("none", json!({}), result(false, missing)),
            add("a secret that is none", json!({"subscriberId": "bob", "b32Secret": "ABC"}), result(false, secret)),
            add(
                "a secret of other letters",
                json!({"subscriberId": "bob", "b32Secret": "abcdefg1"}),
                result(false, secret),
            ),
            row(
                "another type",
                "POST",
                "/broadcasts/s/subscribers",
                json!({"subscriberId": 7}),
                400,
                json!({"success": false}),
            ),
            row(
                "listed",
                "GET",
                "/broadcasts/s/subscribers/list/0/50",
                NONE,
                200,
                json!([{
                    "subscriberId": "alice", "streamId": "s", "connected": false, "currentConcurrentConnections": 0,
                    "concurrentConnectionsLimit": 1, "blockedType": null
                }]),
            ),
            row(
                "blocked",
                "PUT",
                "/broadcasts/s/subscribers/alice/block/60/publish_play",
                NONE,
                200,
                result(true, Value::Null),
            ),
            row(
                "seen",
                "GET",
                "/broadcasts/s/subscribers/list/0/50",
                NONE,
                200,
                json!([{"subscriberName": "A", "blockedType": "publish_play"}]),
            ),
            row(
                "blocked from nothing",
                "PUT",
                "/broadcasts/s/subscribers/alice/block/60/x",
                NONE,
                200,
                json!({"success": false}),
            ),
            row("blocked for no time", "PUT", "/broadcasts/s/subscribers/alice/block/x/play", NONE, 404, Value::Null),
            row("no events", "GET", "/broadcasts/s/connection-events/0/50", NONE, 200, json!([])),
            row(
                "a code of one's own",
                "GET",
                "/broadcasts/s/subscribers/alice/totp",
                NONE,
                200,
                json!({"success": true}),
            ),
            row(
                "a code of the application's",
                "GET",
                "/broadcasts/s/subscribers/carol/totp?type=play",
                NONE,
                200,
                json!({"success": true}),
            ),
            row(
                "no secret",
                "GET",
                "/broadcasts/s/subscribers/carol/totp?type=publish",
                NONE,
                200,
                result(false, "Secret is not set for AppSettings.timeTokenSecret or not in db"),
            ),
            row("no purpose", "GET", "/broadcasts/s/subscribers/carol/totp", NONE, 200, json!({"success": false})),
        ],
    )
    .await?;
    let listed = call(node, "GET", "/broadcasts/s/subscribers/list/0/50", &NONE).await?;
    ensure!(!listed.body.contains("ABCDEFGH") && !listed.body.contains("b32Secret"), "secrets are never read");
    let code = call(node, "GET", "/broadcasts/s/subscribers/alice/totp", &NONE).await?.json();
    let code = code["dataId"].as_str().unwrap_or_default();
    ensure!(code.len() == 6 && code.chars().all(|c| c.is_ascii_digit()), "{code}");
    check(
        node,
        &[
            row("deleted", "DELETE", "/broadcasts/s/subscribers/alice", NONE, 200, result(true, Value::Null)),
            row("deleted again", "DELETE", "/broadcasts/s/subscribers/alice", NONE, 200, result(false, Value::Null)),
            add("another", json!({"subscriberId": "dave"}), result(true, Value::Null)),
            row("all deleted", "DELETE", "/broadcasts/s/subscribers", NONE, 200, result(true, Value::Null)),
            row("none left", "GET", "/broadcasts/s/subscribers/list/0/50", NONE, 200, json!([])),
        ],
    )
    .await
}

#[test]
fn tokens_and_subscribers_are_kept_in_mongodb() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(76, 1)).await?;
        tokens(&cluster.origin).await?;
        subscribers(&cluster.origin).await?;
        let event = doc! {"streamId": "s", "subscriberId": "alice", "timestamp": 5_i64, "eventType": "connected",
        "instanceIP": "10.0.0.1", "type": "play", "eventProtocol": "webrtc"};
        cluster.databases.collection(&APP.to_lowercase(), "ConnectionEvent").insert_one(event).await?;
        check(
            cluster.edge(0)?,
            &[
                row(
                    "events",
                    "GET",
                    "/broadcasts/s/connection-events/0/50?subscriberId=alice",
                    NONE,
                    200,
                    json!([{"timestamp": 5, "eventType": "connected", "instanceIP": "10.0.0.1", "type": "play"}]),
                ),
                row("of another", "GET", "/broadcasts/s/connection-events/0/50?subscriberId=bob", NONE, 200, json!([])),
            ],
        )
        .await?;
        // Made on one node, used up on the other, once.
        let path = format!("/broadcasts/s/token?expireDate={LATER}&type=play");
        let token = call(&cluster.origin, "GET", &path, &NONE).await?.json();
        let validate = |node| call(node, "POST", "/broadcasts/validate-token", &token);
        let (one, two) = tokio::join!(validate(cluster.edge(0)?), validate(&cluster.origin));
        let passed = [one?, two?].iter().filter(|got| got.json()["success"] == true).count();
        ensure!(passed == 1, "{passed} of two got through with one token");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn tokens_and_subscribers_are_kept_in_sqlite() {
    case(async {
        let options =
            NodeOptions { registry: Some("memory".to_owned()), ..NodeOptions::new("standalone", [127, 0, 77, 11]) };
        let node = NodeProcess::start(options).await?;
        tokens(&node).await?;
        subscribers(&node).await
    });
}
