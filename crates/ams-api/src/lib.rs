//! HTTP and WebSocket: translates AMS's wire and WHIP/WHEP to the node's port and back.
//!
//! Owns addresses, methods, headers, status codes, sockets and the pages; never media, peers or the registry's
//! driver. The domain behind [`port::Node`] does not know HTTP.
//!
//! - [`port`]: what is asked of the node
//! - [`config`]: the section of the configuration, and its limits
//! - `serve`, `middleware`, `client`, `rate`: from the TCP connection to a request with an address
//! - `socket`: AMS's WebSocket
//! - `media`, `resources`: WHIP and WHEP
//! - `rest`: AMS's REST API
//! - `login`: who is let into the panel
//! - [`outgoing`]: what is asked of others over HTTP
//! - `health`, `pages`: everything else a balancer or a browser asks for
//! - `problem`, `refusals`: refusals as HTTP, and how many there were

mod client;
pub mod config;
mod health;
mod login;
mod media;
mod middleware;
pub mod outgoing;
mod pages;
pub mod port;
mod problem;
mod rate;
mod refusals;
mod resources;
mod rest;
mod serve;
mod socket;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{ApiConfig, ApiLimits, ConfigError, Secret, TurnServer};

use crate::resources::Side;
use crate::state::ApiState;

/// Names that no application may have, because the server's own addresses start with them.
pub const RESERVED_APP_NAMES: [&str; 5] = ["rest", "healthz", "readyz", "metrics", ams_access::users::SYSTEM];

/// The HTTP side of one node.
///
/// Order of a stop: [`Api::announce_stop`], wait as long as clients are given to leave, cancel the token of
/// [`Api::serve`], [`Api::shutdown`].
#[derive(Clone)]
pub struct Api {
    state: Arc<ApiState>,
}

impl Api {
    /// Everything needed to answer requests about `node`. `config` should have passed [`ApiConfig::validate`].
    pub fn new(node: Arc<dyn port::Node>, config: ApiConfig) -> Self {
        Self { state: Arc::new(ApiState::new(node, config)) }
    }

    /// Every address of the server. Other routers may be merged in; client addresses, rate limits and cross-origin
    /// headers apply to the addresses of this one only.
    pub fn router(&self) -> Router {
        let state = Arc::clone(&self.state);
        let websocket = get(socket::upgrade);
        Router::new()
            .route("/", get(pages::landing))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(health::metrics))
            .route("/rest/v2/liveness", get(health::liveness))
            .route("/{app}", get(pages::to_directory))
            .route("/{app}/", get(pages::index))
            .route("/{app}/websocket", websocket.clone())
            .route("/{app}/websocket/signaling", websocket)
            .route("/{app}/whip/{stream}", media::endpoint(Side::Whip))
            .route("/{app}/whip/{stream}/{session}", media::resource(Side::Whip))
            .route("/{app}/whep/{stream}", media::endpoint(Side::Whep))
            .route("/{app}/whep/{stream}/{session}", media::resource(Side::Whep))
            .route("/{app}/streams/{*file}", any(pages::no_stream_file))
            .route("/{app}/{*file}", get(pages::file))
            .merge(rest::routes(&state))
            .fallback(pages::not_found)
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), middleware::guard))
            .with_state(state)
    }

    /// Serves [`Api::router`] on `listener` until `stop` is cancelled; running requests get a few seconds more.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        self.serve_router(listener, self.router(), stop).await;
    }

    /// As [`Api::serve`], with a router that more was merged into.
    pub async fn serve_router(&self, listener: TcpListener, router: Router, stop: CancellationToken) {
        serve::serve(listener, router, &self.state, stop).await;
    }

    /// Refuses new sockets and HTTP sessions and makes `/readyz` answer 503; after `notice` tells every WebSocket to
    /// reconnect elsewhere (`server_will_stop`), one after the other over `spread`.
    pub fn announce_stop(&self, notice: Duration, spread: Duration) {
        self.state.stopping.send_replace(Some((Instant::now() + notice, spread)));
    }

    /// Takes that back. Sockets that were told already go all the same, and are not told twice.
    pub fn withdraw_stop(&self) {
        self.state.stopping.send_replace(None);
    }

    /// Closes every WebSocket and waits until they and their sessions are gone, at most `patience`. The WHIP and
    /// WHEP sessions end with the node's own; their tasks are waited for as well. Returns whether all ended in time.
    pub async fn shutdown(&self, patience: Duration) -> bool {
        self.announce_stop(Duration::ZERO, Duration::ZERO);
        self.state.closing.cancel();
        self.state.tasks.close();
        tokio::time::timeout(patience, self.state.tasks.wait()).await.is_ok()
    }

    /// WebSockets, and WHIP and WHEP sessions, that are open.
    pub fn client_count(&self) -> usize {
        self.state.tasks.len()
    }

    /// WHIP and WHEP sessions that are open.
    pub fn http_session_count(&self) -> usize {
        self.state.resources.len()
    }
}

/// The router alone, for a caller that serves it by other means. Needs `ConnectInfo<SocketAddr>` to know clients.
pub fn router(node: Arc<dyn port::Node>, config: ApiConfig) -> Router {
    Api::new(node, config).router()
}
