//! The server's own calls.

use ams_testkit::APP;
use ams_testkit::case::case;
use ams_testkit::cluster::{Cluster, ClusterOptions};
use ams_testkit::eventually;
use ams_testkit::light::{LightPublisher, LightViewer};
use ams_testkit::node::{NodeOptions, NodeProcess};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{NONE, SOON, call_with, is_like, result};

async fn check_server(node: &NodeProcess, rows: &[(&str, &str, u16, Value)]) -> Result<()> {
    let mut wrong = Vec::new();
    for (method, path, status, want) in rows {
        let got = call_with(node, method, &format!("/rest{path}"), &[], &NONE).await?;
        if got.status != *status || !is_like(&got.json(), want) {
            wrong.push(format!("{method} {path} gave {} {}", got.status, got.body));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Checks that an object has exactly these fields, and that all of them are numbers.
async fn has_numbers(node: &NodeProcess, path: &str, fields: &[&str]) -> Result<()> {
    let got = call_with(node, "GET", &format!("/rest/v2{path}"), &[], &NONE).await?.json();
    ensure!(got.as_object().is_some_and(|got| got.len() == fields.len()), "{path}: {got}");
    for field in fields {
        ensure!(got[field].is_number(), "{path}: {field} is {}", got[field]);
    }
    Ok(())
}

#[test]
fn a_node_says_what_it_serves_and_how_it_is() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(78, 1)).await?;
        let (origin, edge) = (&cluster.origin, cluster.edge(0)?);
        let _publisher = LightPublisher::publish(&origin.socket(), "s").await?;
        let _viewer = LightViewer::play(&origin.socket(), "s").await?;
        eventually("the viewer is counted", SOON, || async {
            let path = format!("/rest/v2/applications/live-streams/{APP}");
            let got = call_with(edge, "GET", &path, &[], &NONE).await.ok()?.json();
            (got == json!([{"name": "s", "watcherCount": 1}])).then_some(())
        })
        .await?;
        let configured = "This server is configured by its file, its environment and its flags";
        check_server(
            origin,
            &[
                ("GET", "/v2/liveness", 200, json!({"status": "ok"})),
                ("GET", "/v2/version", 200, json!({"versionType": "Enterprise Edition"})),
                ("GET", "/v2/enterprise-edition", 200, result(true, Value::Null)),
                ("GET", "/v2/cluster-mode-status", 200, result(true, Value::Null)),
                ("GET", "/v2/applications", 200, json!({"applications": [APP]})),
                (
                    "GET",
                    "/v2/applications-info",
                    200,
                    json!([{"name": APP, "liveStreamCount": 1, "vodCount": 0, "storage": 0}]),
                ),
                ("GET", "/v2/applications/live-streams/nobody", 404, json!({"success": false})),
                ("POST", "/v2/applications/new", 200, result(false, configured)),
                ("DELETE", "/v2/applications/new", 200, result(false, configured)),
                ("POST", "/v2/server-settings", 200, result(false, configured)),
                ("GET", "/v2/system-status", 200, json!({"osName": "linux", "javaVersion": ""})),
                ("GET", "/v2/gpu-status", 200, json!([])),
                ("GET", "/v2/live-clients-size", 200, json!({"totalConnectionSize": 2, "totalLiveStreamSize": 1})),
                ("GET", "/v2/licence-status?key=x", 200, json!({"licenceId": null, "status": null})),
                ("GET", "/v2/last-licence-status", 200, json!({"licenceId": null})),
                ("GET", "/v2/log-file/0/1000", 500, json!({"success": false})),
                ("GET", "/v2/log-file/a/1000?logType=SERVER", 404, Value::Null),
                ("GET", "/v2/shutdown-properly", 400, json!({"success": false})),
                ("GET", "/v2/nonsense", 404, json!({"success": false})),
                ("GET", "/v2/cluster/node-count", 200, json!({"number": 2})),
                ("DELETE", "/v2/cluster/node/nobody", 200, result(false, Value::Null)),
            ],
        )
        .await?;
        for (path, fields) in [
            ("/cpu-status", &["processCPUTime", "systemCPULoad", "processCPULoad", "systemLoadAverageLastMinute"][..]),
            ("/jvm-memory-status", &["maxMemory", "totalMemory", "freeMemory", "inUseMemory"]),
            (
                "/system-memory-status",
                &[
                    "virtualMemory",
                    "totalMemory",
                    "freeMemory",
                    "inUseMemory",
                    "totalSwapSpace",
                    "freeSwapSpace",
                    "inUseSwapSpace",
                    "availableMemory",
                ],
            ),
            ("/file-system-status", &["usableSpace", "totalSpace", "freeSpace", "inUseSpace"]),
            ("/server-time", &["up-time", "start-time"]),
        ] {
            has_numbers(origin, path, fields).await?;
        }
        let resources = call_with(origin, "GET", "/rest/v2/system-resources", &[], &NONE).await?.json();
        for (field, want) in [
            ("localLiveStreams", json!(1)),
            ("localWebRTCViewers", json!(1)),
            ("localHLSViewers", json!(0)),
            ("gpuUsageInfo", json!([])),
        ] {
            ensure!(resources[field] == want, "{field} is {}", resources[field]);
        }
        for field in [
            "cpuUsage",
            "jvmMemoryUsage",
            "systemInfo",
            "systemMemoryInfo",
            "fileSystemInfo",
            "license",
            "softwareVersion",
            "server-timing",
            "jvmNativeMemoryUsage",
        ] {
            ensure!(resources[field].is_object(), "{field} is {}", resources[field]);
        }
        let log = call_with(origin, "GET", "/rest/v2/log-file/0/1000?logType=ERROR", &[], &NONE).await?.json();
        ensure!(log["logContent"].is_string() && log["logFileSize"].is_number(), "{log}");

        let nodes = call_with(origin, "GET", "/rest/v2/cluster/nodes/0/50", &[], &NONE).await?.json();
        let rows = nodes.as_array().cloned().unwrap_or_default();
        ensure!(rows.len() == 2 && rows.iter().all(|row| row["status"] == "alive"), "{nodes}");
        ensure!(rows.iter().all(|row| row["dbQueryAveargeTimeMs"].is_number() && row["ip"].is_string()), "{nodes}");
        let page = call_with(origin, "GET", "/rest/v2/cluster/nodes/1/50", &[], &NONE).await?.json();
        ensure!(page == json!([rows[1]]) || page.as_array().map(Vec::len) == Some(1), "{page}");
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_dead_nodes_row_is_shown_and_can_be_deleted() {
    case(async {
        let cluster = Cluster::start(ClusterOptions::new(79, 0)).await?;
        let dead = ams_testkit::mongo::bson::doc! {"_id": "10.0.0.9:5080", "ip": "10.0.0.9", "lastUpdateTime": 5_i64};
        cluster.databases.collection("clusterdb", "clusternode").insert_one(dead).await?;
        let nodes = call_with(&cluster.origin, "GET", "/rest/v2/cluster/nodes/0/50", &[], &NONE).await?.json();
        ensure!(nodes[0]["id"] == "10.0.0.9:5080" && nodes[0]["status"] == "dead", "{nodes}");
        check_server(
            &cluster.origin,
            &[
                ("DELETE", "/v2/cluster/node/10.0.0.9:5080", 200, result(true, Value::Null)),
                ("DELETE", "/v2/cluster/node/10.0.0.9:5080", 200, result(false, Value::Null)),
                ("GET", "/v2/cluster/node-count", 200, json!({"number": 1})),
            ],
        )
        .await?;
        cluster.end().await;
        Ok(())
    });
}

#[test]
fn a_node_alone_is_no_cluster() {
    case(async {
        let options =
            NodeOptions { registry: Some("memory".to_owned()), ..NodeOptions::new("standalone", [127, 0, 80, 11]) };
        let node = NodeProcess::start(options).await?;
        check_server(&node, &[("GET", "/v2/cluster-mode-status", 200, result(false, Value::Null))]).await
    });
}
