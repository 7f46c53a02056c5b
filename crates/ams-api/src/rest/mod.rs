//! AMS's REST API v2: its addresses, its words and its habits, over the registry and the node's port.
//!
//! Owns the routes. Handlers are thin: they read a [`call::Call`], ask the registry or the node, and map the answer.
//! A call that exists in AMS exists here too; for what this server does not do it answers as AMS with that switched off.
//!
//! - [`guard`]: who may ask
//! - [`forward`]: calls for streams of other nodes
//! - [`call`], [`outcome`]: what is asked and what is answered
//! - `broadcasts`, `ending`, `subtracks`, `data`, `tokens`, `subscribers`: an application's calls
//! - `off`: calls for what is not done here
//! - `server`, `settings`, `system`: the server's calls

mod broadcasts;
mod call;
mod data;
mod ending;
mod forward;
mod guard;
mod off;
mod outcome;
mod server;
mod settings;
mod subscribers;
mod subtracks;
pub(crate) mod system;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{any, delete, get, post, put};

use self::outcome::{Answer, RestError};
use crate::health;
use crate::state::Shared;

/// Every REST address.
pub(crate) fn routes(state: &Shared) -> Router<Shared> {
    let guarded = from_fn_with_state(Arc::clone(state), guard::app);
    let forwarded = from_fn_with_state(Arc::clone(state), forward::to_owner);
    let app = broadcast_routes()
        .merge(off::routes())
        .route("/{app}/rest/v2/version", get(health::version))
        .route("/{app}/rest/{*call}", any(no_such_call))
        .route_layer(forwarded)
        .route_layer(guarded);
    let server = server_routes().route_layer(from_fn_with_state(Arc::clone(state), guard::server));
    app.merge(server)
}

fn broadcast_routes() -> Router<Shared> {
    let base = |path: &str| format!("/{{app}}/rest/v2/broadcasts{path}");
    Router::new()
        .route(&base(""), delete(ending::delete_many))
        .route(&base("/"), delete(ending::delete_many))
        .route(&base("/create"), post(broadcasts::create))
        .route(&base("/create-list"), post(broadcasts::create_list))
        .route(&base("/list/{offset}/{size}"), get(broadcasts::list))
        .route(&base("/count"), get(broadcasts::count))
        .route(&base("/count/{search}"), get(broadcasts::count_found))
        .route(&base("/active-live-stream-count"), get(broadcasts::count_live))
        .route(&base("/total-broadcast-statistics"), get(broadcasts::total_statistics))
        .route(&base("/validate-token"), post(tokens::validate))
        .route(&base("/{id}"), get(broadcasts::get).put(broadcasts::update).delete(ending::delete))
        .route(&base("/{id}/stop"), post(ending::stop))
        .route(&base("/{id}/start"), post(ending::start))
        .route(&base("/{id}/broadcast-statistics"), get(broadcasts::statistics))
        .route(&base("/{id}/stream-info"), get(broadcasts::stream_info))
        .route(&base("/{id}/subtrack"), post(subtracks::add).delete(subtracks::remove))
        .route(&base("/{id}/subtracks/{offset}/{size}"), get(subtracks::list))
        .route(&base("/{id}/active-subtracks/{offset}/{size}"), get(subtracks::list_live))
        .route(&base("/{id}/active-subtracks-count"), get(subtracks::count_live))
        .route(&base("/{id}/data"), post(data::say))
        .route(&base("/{id}/token"), get(tokens::create))
        .route(&base("/{id}/jwt-token"), get(tokens::create_jwt))
        .route(&base("/{id}/tokens"), delete(tokens::revoke))
        .route(&base("/{id}/tokens/list/{offset}/{size}"), get(tokens::list))
        .route(&base("/{id}/subscribers"), post(subscribers::add).delete(subscribers::delete_all))
        .route(&base("/{id}/subscribers/list/{offset}/{size}"), get(subscribers::list))
        .route(&base("/{id}/subscriber-stats/list/{offset}/{size}"), get(subscribers::list))
        .route(&base("/{id}/subscribers/{subscriber}/totp"), get(subscribers::time_code))
        .route(&base("/{id}/subscribers/{subscriber}"), delete(subscribers::delete))
        .route(&base("/{id}/subscribers/{subscriber}/block/{seconds}/{type}"), put(subscribers::block))
        .route(&base("/{id}/connection-events/{offset}/{size}"), get(subscribers::connection_events))
}

fn server_routes() -> Router<Shared> {
    let application = post(server::off).put(server::off).delete(server::off);
    Router::new()
        .route("/rest/v2/version", get(health::version))
        .route("/rest/v2/enterprise-edition", get(server::enterprise_edition))
        .route("/rest/v2/cluster-mode-status", get(server::cluster_mode))
        .route("/rest/v2/applications", get(server::applications))
        .route("/rest/v2/applications-info", get(server::applications_info))
        .route("/rest/v2/applications/live-streams/{app}", get(server::live_streams))
        .route("/rest/v2/applications/settings/{app}", get(settings::get).post(settings::post))
        .route("/rest/v2/applications/{app}", application)
        .route("/rest/v2/applications/{app}/reset", post(server::off))
        .route("/rest/v2/server-settings", post(server::off))
        .route("/rest/v2/ssl-settings", post(server::off))
        .route("/rest/v2/system-resources", get(server::resources))
        .route("/rest/v2/system-status", get(server::system_status))
        .route("/rest/v2/cpu-status", get(server::cpu_status))
        .route("/rest/v2/system-memory-status", get(server::memory_status))
        .route("/rest/v2/jvm-memory-status", get(server::process_memory_status))
        .route("/rest/v2/file-system-status", get(server::file_system_status))
        .route("/rest/v2/gpu-status", get(server::gpu_status))
        .route("/rest/v2/server-time", get(server::server_time))
        .route("/rest/v2/live-clients-size", get(server::live_clients))
        .route("/rest/v2/cluster/node-count", get(server::node_count))
        .route("/rest/v2/cluster/nodes/{offset}/{size}", get(server::nodes))
        .route("/rest/v2/cluster/node/{node}", delete(server::delete_node))
        .route("/rest/cluster/deleteNode/{node}", get(server::delete_node))
        .route("/rest/v2/licence-status", get(server::licence_status))
        .route("/rest/v2/last-licence-status", get(server::licence_status))
        .route("/rest/v2/log-file/{offset}/{size}", get(server::log_file))
        .route("/rest/v2/shutdown-properly", get(server::shutdown_properly))
        .route("/rest/{*call}", any(no_such_call))
}

async fn no_such_call() -> Answer {
    let sentence = "There is no such call; check the path and the method".to_owned();
    Ok(RestError::NoSuch(sentence).into_response())
}
