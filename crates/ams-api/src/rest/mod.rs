//! AMS's REST API v2: its addresses, its words and its habits, over the registry and the node's port.
//!
//! Handlers are thin: they read a [`call::Call`], ask the registry or the node, and map the answer.
//! A call that exists in AMS exists here too; for what this server does not do it answers as AMS with that switched off.
//!
//! - [`table`]: every call there is
//! - [`guard`]: who may ask
//! - [`forward`]: calls for streams of other nodes
//! - [`call`], [`outcome`]: what is asked and what is answered
//! - `broadcasts`, `ending`, `subtracks`, `data`, `tokens`, `subscribers`: an application's calls
//! - `off`: calls for what is not done here
//! - `server`, `settings`, `system`: the server's calls
//! - `users`, `cookie`: the panel's users and their sessions
//! - `proxy`: the panel's way to an application's calls

mod broadcasts;
mod call;
mod cookie;
mod data;
mod ending;
mod forward;
mod guard;
mod off;
mod outcome;
mod proxy;
mod server;
mod settings;
mod subscribers;
mod subtracks;
pub(crate) mod system;
mod table;
mod tokens;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{any, get};

use self::outcome::{Answer, RestError};
use crate::state::Shared;

/// Every REST address.
pub(crate) fn routes(state: &Shared) -> Router<Shared> {
    let guarded = from_fn_with_state(Arc::clone(state), guard::app);
    let forwarded = from_fn_with_state(Arc::clone(state), forward::to_owner);
    let app = table::application()
        .fold(Router::new(), |router, call| call.add_to(router, "/{app}/rest/v2"))
        .route("/{app}/rest/{*call}", any(no_such_call))
        .route_layer(forwarded)
        .route_layer(guarded);
    let by_proxy = app.clone().fallback(no_such_call).with_state(Arc::clone(state));
    let old_proxy = proxy::calls(&by_proxy).fold(Router::new(), |router, call| call.add_to(router, "/rest"));
    let server = table::server()
        .chain(proxy::calls(&by_proxy))
        .fold(Router::new(), |router, call| call.add_to(router, "/rest/v2"))
        .merge(old_proxy)
        .route("/rest/cluster/deleteNode/{node}", get(server::delete_node))
        .route("/rest/{*call}", any(no_such_call))
        .route_layer(from_fn_with_state(Arc::clone(state), guard::server));
    app.merge(server)
}

async fn no_such_call() -> Answer {
    let sentence = "There is no such call; check the path and the method".to_owned();
    Ok(RestError::NoSuch(sentence).into_response())
}
