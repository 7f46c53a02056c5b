//! Records: made, read, listed, counted, edited and deleted, on MongoDB and on SQLite.

use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::mongo::bson::Bson;
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{EMPTY, NONE, Row, call, check, result, row};

fn made() -> Vec<Row> {
    let bad = |name, body, message: &str| row(name, "POST", "/broadcasts/create", body, 400, result(false, message));
    vec![
        row(
            "made",
            "POST",
            "/broadcasts/create",
            json!({
                "streamId": "one", "name": "Morning Show", "description": "d", "nobody knows": 1, "listenerHookURL": null,
                "status": "broadcasting", "webRTCViewerCount": 9, "zombi": true, "metaData": "m"
            }),
            200,
            json!({
                "streamId": "one", "name": "Morning Show", "status": "created", "type": "liveStream", "publish": true,
                "zombi": false, "webRTCViewerCount": 0, "webRTCViewerLimit": -1, "category": null, "virtual": false,
                "userAgent": "N/A", "endPointList": null, "encoderSettingsList": [], "metaData": "m"
            }),
        ),
        row(
            "a room",
            "POST",
            "/broadcasts/create",
            json!({"streamId": "two", "name": "Evening", "virtual": true}),
            200,
            json!({"streamId": "two", "virtual": true}),
        ),
        row(
            "a camera",
            "POST",
            "/broadcasts/create",
            json!({
                "streamId": "cam", "type": "ipCamera", "streamUrl": "rtsp://10.0.0.9/x", "plannedStartDate": 7
            }),
            200,
            json!({"streamId": "cam", "type": "ipCamera", "plannedStartDate": 7}),
        ),
        bad(
            "taken",
            json!({"streamId": "one"}),
            "Stream id is already being used. Please change stream id or keep it empty",
        ),
        bad("no id", json!({"streamId": "a b"}), "Stream id is not valid."),
        bad("no address", json!({"streamUrl": "file:///etc/passwd"}), "Stream url is not valid. "),
        bad("no folder", json!({"subFolder": "../up"}), "Subfolder is not valid. "),
        bad("another type", json!({"name": 5}), "The body cannot be used: the value of name has the wrong type"),
        bad("no object", json!([1]), "The body must be a JSON object"),
        row("no JSON", "POST", "/broadcasts/create", json!("{nonsense"), 400, json!({"success": false, "errorId": 0})),
        row(
            "started at once",
            "POST",
            "/broadcasts/create?autoStart=true",
            json!({"streamId": "three"}),
            200,
            result(false, "autoStart needs a broadcast of type ipCamera or streamSource"),
        ),
        row(
            "a source started at once",
            "POST",
            "/broadcasts/create?autoStart=true",
            json!({"type": "streamSource", "streamUrl": "rtmp://x/y"}),
            200,
            result(false, "Pulling streams from other sources is not supported by this server"),
        ),
        row("several at once", "POST", "/broadcasts/create-list", json!([]), 200, json!({"success": false})),
        row("nothing of that was made", "GET", "/broadcasts/count", NONE, 200, json!({"number": 3})),
    ]
}

fn read() -> Vec<Row> {
    let list = |name, path, ids: &[&str]| {
        let want: Vec<Value> = ids.iter().map(|id| json!({"streamId": id})).collect();
        row(name, "GET", path, NONE, 200, Value::Array(want))
    };
    let count = |name, path, number: i32| row(name, "GET", path, NONE, 200, json!({"number": number}));
    vec![
        row("one", "GET", "/broadcasts/one", NONE, 200, json!({"streamId": "one", "status": "created"})),
        row("an unknown one", "GET", "/broadcasts/nobody", NONE, 404, EMPTY),
        row("a name no stream can have", "GET", "/broadcasts/a%20b", NONE, 404, EMPTY),
        list("all, oldest first", "/broadcasts/list/0/50", &["one", "two", "cam"]),
        list("a page", "/broadcasts/list/1/1", &["two"]),
        list("no page", "/broadcasts/list/0/0", &[]),
        list("behind the end", "/broadcasts/list/50/50", &[]),
        list("more than is given", "/broadcasts/list/-5/100000", &["one", "two", "cam"]),
        list("of a type", "/broadcasts/list/0/50?type_by=ipCamera", &["cam"]),
        list("by name", "/broadcasts/list/0/50?sort_by=name&order_by=desc", &["one", "two", "cam"]),
        list("by name, upwards", "/broadcasts/list/0/50?sort_by=name&order_by=asc", &["cam", "two", "one"]),
        list("by a field nobody has", "/broadcasts/list/0/50?sort_by=$where", &["one", "two", "cam"]),
        list("searched for", "/broadcasts/list/0/50?search=MORNING", &["one"]),
        list("searched for by id", "/broadcasts/list/0/50?search=ca", &["cam"]),
        list("by a pattern", "/broadcasts/list/0/50?search=%5E(one%7Ctwo)%24", &["one", "two"]),
        list("by what is no pattern", "/broadcasts/list/0/50?search=evening%5B", &["two"]),
        list("by a pattern that hurts", "/broadcasts/list/0/50?search=(a%2B)%2B%24", &[]),
        row("a page that is none", "GET", "/broadcasts/list/a/b", NONE, 404, EMPTY),
        count("all", "/broadcasts/count", 3),
        count("found", "/broadcasts/count/e", 2),
        count("found by a pattern", "/broadcasts/count/%5Ec", 1),
        count("live", "/broadcasts/active-live-stream-count", 0),
        row(
            "statistics",
            "GET",
            "/broadcasts/one/broadcast-statistics",
            NONE,
            200,
            json!({
                "totalRTMPWatchersCount": 0, "totalHLSWatchersCount": 0, "totalWebRTCWatchersCount": 0,
                "totalDASHWatchersCount": 0
            }),
        ),
        row(
            "statistics of nobody",
            "GET",
            "/broadcasts/nobody/broadcast-statistics",
            NONE,
            200,
            json!({
                "totalRTMPWatchersCount": -1, "totalHLSWatchersCount": -1, "totalWebRTCWatchersCount": -1,
                "totalDASHWatchersCount": -1
            }),
        ),
        row(
            "all statistics",
            "GET",
            "/broadcasts/total-broadcast-statistics",
            NONE,
            200,
            json!({
                "totalWebRTCWatchersCount": 0, "totalHLSWatchersCount": 0, "activeLiveStreamCount": 0
            }),
        ),
        row("renditions of what is not live", "GET", "/broadcasts/one/stream-info", NONE, 200, json!([])),
        row("version", "GET", "/version", NONE, 200, json!({"versionType": "Enterprise Edition"})),
        row("a call there is not", "GET", "/nonsense", NONE, 404, json!({"success": false})),
        row("a method there is not", "PATCH", "/broadcasts/one", NONE, 405, EMPTY),
    ]
}

fn edited() -> Vec<Row> {
    let edit = |name, body, want| row(name, "PUT", "/broadcasts/one", body, 200, want);
    vec![
        edit(
            "a name",
            json!({"name": "Noon", "description": null, "status": "finished", "updateTime": 5}),
            result(true, Value::Null),
        ),
        edit("the same again", json!({"name": "Noon"}), result(false, Value::Null)),
        edit("nothing", json!({}), result(false, Value::Null)),
        row(
            "only what was named",
            "GET",
            "/broadcasts/one",
            NONE,
            200,
            json!({
                "name": "Noon", "description": "d", "status": "created", "updateTime": 0
            }),
        ),
        row(
            "another type",
            "PUT",
            "/broadcasts/one",
            json!({"webRTCViewerLimit": "many"}),
            400,
            json!({"success": false}),
        ),
        row("no JSON", "PUT", "/broadcasts/one", json!("{"), 400, json!({"success": false})),
        row(
            "an unknown one",
            "PUT",
            "/broadcasts/nobody",
            json!({"name": "x"}),
            200,
            result(false, "Broadcast with streamId: nobody does not exist"),
        ),
        row("is not made by it", "GET", "/broadcasts/nobody", NONE, 404, EMPTY),
    ]
}

fn grouped() -> Vec<Row> {
    let ids = |name, path, ids: &[&str]| {
        let want: Vec<Value> = ids.iter().map(|id| json!({"streamId": id})).collect();
        row(name, "GET", path, NONE, 200, Value::Array(want))
    };
    vec![
        row("a subtrack", "POST", "/broadcasts/two/subtrack?id=one", NONE, 200, result(true, Value::Null)),
        row(
            "of itself",
            "POST",
            "/broadcasts/two/subtrack?id=two",
            NONE,
            200,
            result(false, "A stream cannot be its own subtrack"),
        ),
        row(
            "an unknown subtrack",
            "POST",
            "/broadcasts/two/subtrack?id=nobody",
            NONE,
            200,
            result(false, "There is not stream with id:nobody"),
        ),
        row(
            "an unknown main track",
            "POST",
            "/broadcasts/nobody/subtrack?id=one",
            NONE,
            200,
            result(false, "There is not stream with id:nobody"),
        ),
        ids("subtracks", "/broadcasts/two/subtracks/0/50", &["one"]),
        ids("subtracks of a role", "/broadcasts/two/subtracks/0/50?role=speaker", &[]),
        ids("live ones", "/broadcasts/two/active-subtracks/0/50", &[]),
        row("live ones, counted", "GET", "/broadcasts/two/active-subtracks-count", NONE, 200, json!({"number": 0})),
        row(
            "of nobody",
            "GET",
            "/broadcasts/nobody/subtracks/0/50",
            NONE,
            404,
            result(false, "Broadcast not found with id: nobody"),
        ),
        row(
            "live ones of nobody",
            "GET",
            "/broadcasts/nobody/active-subtracks/0/50",
            NONE,
            404,
            result(false, "Broadcast not found with id: nobody"),
        ),
        row(
            "counted for nobody",
            "GET",
            "/broadcasts/nobody/active-subtracks-count",
            NONE,
            404,
            result(false, "Broadcast not found with id: nobody"),
        ),
        row(
            "not of this main track",
            "DELETE",
            "/broadcasts/cam/subtrack?id=one",
            NONE,
            200,
            result(false, "Subtrack:one could not be removed from main track: cam"),
        ),
        row("removed", "DELETE", "/broadcasts/two/subtrack?id=one", NONE, 200, result(true, Value::Null)),
        ids("no more", "/broadcasts/two/subtracks/0/50", &[]),
        row("a limit", "PUT", "/broadcasts/two", json!({"subtracksLimit": 0}), 200, result(true, Value::Null)),
        row(
            "which is reached",
            "POST",
            "/broadcasts/two/subtrack?id=one",
            NONE,
            200,
            result(false, "Subtrack limit is reached for the main track:two"),
        ),
        row("no limit", "PUT", "/broadcasts/two", json!({"subtracksLimit": -1}), 200, result(true, Value::Null)),
        row("again", "POST", "/broadcasts/two/subtrack?id=one", NONE, 200, result(true, Value::Null)),
    ]
}

fn ended() -> Vec<Row> {
    let alone = "broadcast is deleted but could not stopped ";
    vec![
        row("stopped while not live", "POST", "/broadcasts/cam/stop", NONE, 200, result(false, Value::Null)),
        row("stopped, an unknown one", "POST", "/broadcasts/nobody/stop", NONE, 200, result(false, Value::Null)),
        row(
            "started",
            "POST",
            "/broadcasts/cam/start",
            NONE,
            200,
            result(false, "Pulling streams from other sources is not supported by this server"),
        ),
        row(
            "started, an unknown one",
            "POST",
            "/broadcasts/nobody/start",
            NONE,
            200,
            result(false, "No Stream Exists with id:nobody"),
        ),
        row(
            "data for nobody",
            "POST",
            "/broadcasts/nobody/data",
            json!("hello"),
            200,
            result(false, "Requested WebRTC stream does not exist"),
        ),
        row("deleted, an unknown one", "DELETE", "/broadcasts/nobody", NONE, 200, result(false, Value::Null)),
        row("deleted with its subtracks", "DELETE", "/broadcasts/two", NONE, 200, result(true, alone)),
        row("which are gone", "GET", "/broadcasts/one", NONE, 404, EMPTY),
        row("several, none named", "DELETE", "/broadcasts", NONE, 200, result(false, "ids parameter is blank")),
        row("several, blank", "DELETE", "/broadcasts/?ids=%20", NONE, 200, result(false, "ids parameter is blank")),
        row("one more", "POST", "/broadcasts/create", json!({"streamId": "four"}), 200, json!({"streamId": "four"})),
        row(
            "several, up to an unknown one",
            "DELETE",
            "/broadcasts?ids=cam,nobody,four",
            NONE,
            200,
            result(false, Value::Null),
        ),
        row("the first went", "GET", "/broadcasts/cam", NONE, 404, EMPTY),
        row("the last did not", "GET", "/broadcasts/four", NONE, 200, json!({"streamId": "four"})),
        row("several", "DELETE", "/broadcasts/?ids=four", NONE, 200, result(true, alone)),
        row("nothing left", "GET", "/broadcasts/count", NONE, 200, json!({"number": 0})),
    ]
}

async fn all(node: &NodeProcess) -> Result<()> {
    for rows in [made(), read(), edited(), grouped(), ended()] {
        check(node, &rows).await?;
    }
    Ok(())
}

#[test]
fn records_are_made_read_edited_and_deleted() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(60, 1)).await?;
        all(&cluster.origin).await?;
        all(cluster.edge(0)?).await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn records_in_sqlite_are_the_same() {
    case(async {
        let options =
            NodeOptions { registry: Some("memory".to_owned()), ..NodeOptions::new("standalone", [127, 0, 61, 11]) };
        let node = NodeProcess::start(options).await?;
        all(&node).await
    });
}

#[test]
fn a_new_record_has_what_ams_writes() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(62, 0)).await?;
        let node = &cluster.origin;
        let made = call(node, "POST", "/broadcasts/create", &json!({})).await?;
        ensure!(made.status == 200, "{made:?}");
        ensure!(made.header("content-type") == Some("application/json"), "{made:?}");
        let id = made.json()["streamId"].as_str().unwrap_or_default().to_owned();
        let (random, counter) = id.split_at(16);
        ensure!(random.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
        ensure!(counter.len() > 8 && counter.chars().all(|c| c.is_ascii_digit()), "{id}");
        let stored = cluster.databases.broadcast(APP, &id).await?.unwrap_or_default();
        let host = node.ip().to_string();
        for (name, want) in [
            ("status", Bson::from("created")),
            ("type", Bson::from("liveStream")),
            ("originAdress", Bson::from(host.clone())),
            ("rtmpURL", Bson::from(format!("rtmp://{host}/{APP}/{id}"))),
            ("zombi", Bson::Boolean(false)),
            ("webRTCViewerLimit", Bson::Int32(-1)),
        ] {
            ensure!(stored.get(name) == Some(&want), "{name} is {:?}", stored.get(name));
        }
        ensure!(matches!(stored.get("date"), Some(Bson::Int64(date)) if *date > 1_600_000_000_000), "{stored}");
        let empty = call(node, "POST", "/broadcasts/create", &json!("")).await?;
        ensure!(empty.status == 200 && empty.json()["streamId"] != made.json()["streamId"], "{empty:?}");
        let large = json!({"metaData": "x".repeat(200_000)});
        let large = call(node, "POST", "/broadcasts/create", &large).await?;
        ensure!(large.status == 413 && large.json()["success"] == false, "{large:?}");
        let long = call(node, "GET", &format!("/broadcasts/list/0/50?search={}", "x".repeat(300)), &json!("")).await?;
        ensure!(long.status == 400 && long.json()["success"] == false, "{long:?}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_page_has_fifty_at_most() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(63, 0)).await?;
        let ids = (0..55).map(|n| json!({"streamId": format!("s{n}")}));
        for body in ids {
            ensure!(call(&cluster.origin, "POST", "/broadcasts/create", &body).await?.status == 200, "{body}");
        }
        for (path, want) in [
            ("/broadcasts/list/0/1000", 50),
            ("/broadcasts/list/50/50", 5),
            ("/broadcasts/list/0/1000?search=s%5Cd", 50),
            ("/broadcasts/list/54/50?search=s%5Cd", 1),
        ] {
            let got = call(&cluster.origin, "GET", path, &Value::Null).await?.json();
            ensure!(got.as_array().map(Vec::len) == Some(want), "{path}: {:?}", got.as_array().map(Vec::len));
        }
        cluster.end().await;
        Ok(())
    });
}
