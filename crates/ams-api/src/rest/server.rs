//! Calls about the server: its applications, its nodes, its load.

use ams_registry::{BroadcastQuery, ClusterNodeRecord};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tracing::info;

use super::broadcasts::live_since;
use super::call::{Call, PAGE_MAX, no_such_app, now_ms};
use super::outcome::{Answer, Outcome, RestError, number, ok};
use super::system;

/// Said of calls that would change the server.
pub(super) const OFF: &str = "This server is configured by its file, its environment and its flags";

/// `GET /enterprise-edition`: AMS's tools look for it before they use a cluster.
pub(super) async fn enterprise_edition() -> Answer {
    Ok(Outcome::done().into_response())
}

/// `GET /cluster-mode-status`
pub(super) async fn cluster_mode(call: Call) -> Answer {
    Ok(Outcome::of(call.state.node.whereabouts().is_clustered).into_response())
}

/// `GET /applications`
pub(super) async fn applications(call: Call) -> Answer {
    ok(&json!({ "applications": call.state.node.apps() }))
}

/// `GET /applications-info`
pub(super) async fn applications_info(call: Call) -> Answer {
    let mut rows = Vec::new();
    for app in call.state.node.apps() {
        let live = call.registry().live_totals(&app, live_since()).await?.streams;
        rows.push(json!({ "name": app, "liveStreamCount": live, "vodCount": 0, "storage": 0 }));
    }
    ok(&rows)
}

/// `GET /applications/live-streams/{app}`
pub(super) async fn live_streams(call: Call) -> Answer {
    let query = BroadcastQuery { live_since: Some(live_since()), ..BroadcastQuery::default() };
    let found = call.registry().query_broadcasts(call.app()?, &query, 0, PAGE_MAX).await?;
    let rows: Vec<Value> = found
        .into_iter()
        .map(|stream| {
            let watchers = i64::from(stream.webrtc_viewer_count)
                + i64::from(stream.hls_viewer_count)
                + i64::from(stream.dash_viewer_count)
                + i64::from(stream.rtmp_viewer_count);
            json!({ "name": stream.stream_id, "watcherCount": watchers })
        })
        .collect();
    ok(&rows)
}

/// `POST /applications/{app}/reset` and all that makes, changes or deletes an application.
pub(super) async fn off() -> Answer {
    Ok(Outcome::failed(OFF).into_response())
}

/// `GET /system-resources`
pub(super) async fn resources(call: Call) -> Answer {
    let node = &call.state.node;
    let (here, load) = (node.whereabouts(), node.load());
    let mean_time = call.registry().stats().mean_time.as_millis();
    ok(&json!({
        "instanceId": here.node,
        "cpuUsage": system::cpu(load.cpu_percent),
        "jvmMemoryUsage": system::process_memory(),
        "systemInfo": system::about(),
        "systemMemoryInfo": system::memory(),
        "fileSystemInfo": system::file_system(),
        "jvmNativeMemoryUsage": { "inUseMemory": 0, "maxMemory": 0 },
        "softwareVersion": crate::health::version_object(),
        "gpuUsageInfo": [],
        "ffmpegBuildInfo": "",
        "dbAverageQueryTimeMs": u64::try_from(mean_time).unwrap_or(u64::MAX),
        "localWebRTCLiveStreams": load.streams,
        "localLiveStreams": load.streams,
        "localWebRTCViewers": load.viewers,
        "localHLSViewers": 0,
        "localDASHViewers": 0,
        "encoders-blocked": 0,
        "encoders-not-opened": 0,
        "publish-timeout-errors": 0,
        "vertx-worker-thread-queue-size": 0,
        "webrtc-vertx-worker-thread-queue-size": 0,
        "server-timing": system::timing(),
        "totalLiveStreamSize": load.streams,
        "license": licence(),
    }))
}

/// `GET /system-status`
pub(super) async fn system_status() -> Answer {
    ok(&system::about())
}

/// `GET /cpu-status`
pub(super) async fn cpu_status(call: Call) -> Answer {
    ok(&system::cpu(call.state.node.load().cpu_percent))
}

/// `GET /system-memory-status`
pub(super) async fn memory_status() -> Answer {
    ok(&system::memory())
}

/// `GET /jvm-memory-status`: there is no such machine; what this process takes.
pub(super) async fn process_memory_status() -> Answer {
    ok(&system::process_memory())
}

/// `GET /file-system-status`
pub(super) async fn file_system_status() -> Answer {
    ok(&system::file_system())
}

/// `GET /gpu-status`
pub(super) async fn gpu_status() -> Answer {
    ok(&json!([]))
}

/// `GET /server-time`
pub(super) async fn server_time() -> Answer {
    ok(&system::timing())
}

/// `GET /live-clients-size`
pub(super) async fn live_clients(call: Call) -> Answer {
    let load = call.state.node.load();
    ok(&json!({ "totalConnectionSize": load.viewers + load.streams, "totalLiveStreamSize": load.streams }))
}

/// `GET /cluster/node-count`
pub(super) async fn node_count(call: Call) -> Answer {
    number(call.registry().list_nodes().await?.len() as u64)
}

/// `GET /cluster/nodes/{offset}/{size}`
pub(super) async fn nodes(call: Call) -> Answer {
    let (offset, size) = call.page()?;
    let now = now_ms();
    let rows = call.registry().list_nodes().await?;
    let shown: Vec<Value> = rows.iter().skip(offset).take(size).map(|row| node_row(row, now)).collect();
    ok(&shown)
}

fn node_row(row: &ClusterNodeRecord, now: i64) -> Value {
    json!({
        "id": row.id,
        "ip": row.ip,
        "lastUpdateTime": row.last_update_time,
        "memory": row.memory,
        "cpu": row.cpu,
        "dbQueryAveargeTimeMs": row.db_query_average_time_ms,
        "status": if row.is_fresh(now) { "alive" } else { "dead" },
    })
}

/// `DELETE /cluster/node/{node}`
pub(super) async fn delete_node(call: Call) -> Answer {
    let deleted = match call.named("node").parse() {
        Ok(id) => call.registry().remove_node(&id).await?,
        Err(_) => false,
    };
    Ok(Outcome::of(deleted).into_response())
}

/// `GET /licence-status` and `GET /last-licence-status`: nobody needs one.
pub(super) async fn licence_status() -> Answer {
    ok(&licence())
}

fn licence() -> Value {
    json!({
        "licenceId": null, "startDate": null, "endDate": null, "type": null, "licenceCount": null, "owner": null,
        "status": null, "hourUsed": 0,
    })
}

/// `GET /log-file/{offset}/{size}`: the log goes to standard output, and what collects that has it.
pub(super) async fn log_file(call: Call) -> Answer {
    const SENTENCE: &str = "This node writes its log to standard output; ask the service manager for it.";
    call.number("offset")?;
    call.number("size")?;
    match call.query("logType") {
        Some("ERROR" | "SERVER") => {}
        _ => {
            let sentence = "logType must be ERROR or SERVER".to_owned();
            return Err(RestError::Status(http::StatusCode::INTERNAL_SERVER_ERROR, sentence));
        }
    }
    ok(&json!({ "logContent": SENTENCE, "logContentSize": SENTENCE.len(), "logFileSize": SENTENCE.len() }))
}

/// `GET /shutdown-properly?appNames=…`: nothing is left behind that would have to be cleaned up.
pub(super) async fn shutdown_properly(call: Call) -> Answer {
    let Some(names) = call.query("appNames") else {
        return Err(RestError::Bad("appNames is missing".to_owned()));
    };
    match names.split(',').find(|name| call.state.app(name.trim()).is_none()) {
        Some(unknown) => Err(no_such_app(unknown)),
        None => ok(&true),
    }
}

/// `GET /drain`
pub(super) async fn drain_state(call: Call) -> Answer {
    let state = call.state.node.drain_state();
    ok(&json!({
        "nodeId": call.state.node.whereabouts().node,
        "draining": state.since_ms.is_some(),
        "ending": state.is_ending,
        "since": state.since_ms,
        "deadline": state.deadline_ms,
        "sessions": state.sessions,
    }))
}

/// `POST /drain?node=…`: this node leaves as at `ams-node drain`.
pub(super) async fn drain(call: Call) -> Answer {
    order_drain(&call, true)
}

/// `DELETE /drain?node=…`
pub(super) async fn cancel_drain(call: Call) -> Answer {
    order_drain(&call, false)
}

/// A balancer may have chosen another node than the one that is meant: who names it is refused by all others.
fn order_drain(call: &Call, wanted: bool) -> Answer {
    let here = call.state.node.whereabouts().node;
    if let Some(other) = call.query("node").filter(|name| *name != here.as_str()) {
        let sentence = format!("This is node {here}, not {other:.128}; ask that one at its own address");
        return Err(RestError::Status(http::StatusCode::MISDIRECTED_REQUEST, sentence));
    }
    info!(node_id = %here, wanted, "a drain is ordered or taken back over the REST API");
    Ok(match call.state.node.drain(wanted) {
        true => Outcome::done().into_response(),
        false => Outcome::failed("The node is ending and cannot stay").into_response(),
    })
}
