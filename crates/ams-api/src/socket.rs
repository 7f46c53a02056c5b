//! AMS's WebSocket at `/{app}/websocket`: one task per socket that drives an `ams_signal::Session`.
//!
//! Owns the socket, its clock and its sessions' names; every wire word is the session machine's. Whatever way a
//! socket ends, everything it opened is closed.
//!
//! Bounds: one frame is read only after the last one was handled; sends wait at most the write timeout; what is in
//! flight is bounded by the machine's limits on sessions and questions.

mod driver;
mod translate;

use std::time::Duration;

use ams_signal::{CloseCode, MESSAGE_LEN_MAX};
use ams_types::AppName;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument, debug, info_span};

use self::driver::{Driver, Step};
use crate::client::{ClientAddr, caller};
use crate::port::{Caller, Door};
use crate::problem::Problem;
use crate::state::Shared;

/// Time for the close frame to leave.
/// Allocated for every socket, so small: most messages are far shorter, longer ones make it grow.
const READ_BUFFER_LEN: usize = 2048;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time to end everything a socket had open.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a socket ended.
struct Farewell {
    code: u16,
    reason: &'static str,
}

const CLIENT_LEFT: Farewell = Farewell { code: close_code::NORMAL, reason: "" };

pub(crate) async fn upgrade(
    State(state): State<Shared>,
    Path(app): Path<String>,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Some(app) = state.app(&app) else {
        let sentence = "there is no such application on this node; check the first part of the path";
        return Problem::new(StatusCode::NOT_FOUND, sentence).into_response();
    };
    let Ok(upgrade) = upgrade else {
        let sentence = "this address speaks WebSocket; connect to it with ws:// or wss://";
        return Problem::new(StatusCode::UPGRADE_REQUIRED, sentence).with(header::UPGRADE, "websocket").into_response();
    };
    if state.is_stopping() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this node is stopping; connect to another one");
        return problem.retry_after(Duration::from_secs(1)).into_response();
    }
    if !crate::middleware::origin_allowed(&state.config.cors_origins, &headers) {
        let sentence = "pages of this origin may not use this node; its operator lists them in cors_origins";
        return Problem::new(StatusCode::FORBIDDEN, sentence).into_response();
    }
    let caller = caller(Door::WebSocket, client, &headers);
    let span = info_span!("socket", %app);
    let task = state.tasks.token();
    let upgrade = upgrade.max_message_size(MESSAGE_LEN_MAX).max_frame_size(MESSAGE_LEN_MAX);
    upgrade.read_buffer_size(READ_BUFFER_LEN).write_buffer_size(0).on_upgrade(move |socket| {
        let run = async move {
            run(socket, state, app, caller).await;
            drop(task);
        };
        run.instrument(span)
    })
}

async fn run(mut socket: WebSocket, state: Shared, app: AppName, caller: Caller) {
    let mut driver = Driver::new(&state, app, caller);
    let farewell = converse(&mut socket, &state, &mut driver).await;
    state.refusals.closed(farewell.code);
    debug!(code = farewell.code, reason = farewell.reason, "socket ended");
    let goodbye = async {
        let frame = CloseFrame { code: farewell.code, reason: farewell.reason.into() };
        // The client may be gone already; then there is nobody to tell.
        let _ = timeout(CLOSE_TIMEOUT, socket.send(Message::Close(Some(frame)))).await;
        drop(socket);
    };
    let release = timeout(RELEASE_TIMEOUT, driver.release());
    let ((), released) = tokio::join!(goodbye, release);
    if released.is_err() {
        tracing::warn!("the sessions of a closed socket did not end in time");
    }
}

/// Runs the conversation until one side ends it.
async fn converse(socket: &mut WebSocket, state: &Shared, driver: &mut Driver) -> Farewell {
    let write_timeout = state.config.limits.write_timeout;
    let ping_interval = state.config.limits.socket_idle / 3;
    let mut ping_at = Instant::now() + ping_interval;
    let mut stopping = state.stopping.subscribe();
    let mut announce_at = stopping.borrow_and_update().map(|(begin, _)| Instant::from_std(begin));
    loop {
        while let Some(step) = driver.poll() {
            match step {
                Step::Send(text) => match timeout(write_timeout, socket.send(Message::text(text))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return CLIENT_LEFT,
                    Err(_) => return Farewell { code: close_code::POLICY, reason: "the client reads too slowly" },
                },
                Step::Close(CloseCode::Policy, reason) => return Farewell { code: close_code::POLICY, reason },
                Step::Close(CloseCode::GoingAway, reason) => return Farewell { code: close_code::AWAY, reason },
            }
        }
        let Some(deadline) = driver.deadline() else { return CLIENT_LEFT };
        tokio::select! {
            received = socket.recv() => match received {
                None | Some(Ok(Message::Close(_))) => return CLIENT_LEFT,
                Some(Ok(Message::Text(text))) => driver.text(text.as_str()),
                Some(Ok(Message::Binary(_))) => {
                    return Farewell {
                        code: close_code::UNSUPPORTED,
                        reason: "this socket takes text frames with JSON, no binary frames",
                    };
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => driver.touch(),
                Some(Err(error)) => return farewell_after(&error.to_string()),
            },
            () = driver.advance() => {}
            () = sleep_until(ping_at) => {
                ping_at = Instant::now() + ping_interval;
                match timeout(write_timeout, socket.send(Message::Ping(bytes::Bytes::new()))).await {
                    Ok(Ok(())) => {}
                    _ => return CLIENT_LEFT,
                }
            }
            () = sleep_until(deadline.into()) => driver.timeout(),
            // Everybody hears why before the end.
            () = state.closing.cancelled(), if !driver.stop_announced() => driver.announce_stop(),
            Ok(()) = stopping.changed() => {
                let told = *stopping.borrow_and_update();
                announce_at = told.map(|(begin, spread)| Instant::from_std(begin + state.place_within(spread)));
            }
            () = sleep_until(announce_at.unwrap_or(ping_at)), if announce_at.is_some() && !driver.stop_announced() => {
                driver.announce_stop();
            }
            () = state.closing.cancelled(), if driver.stop_announced() => {
                return Farewell { code: close_code::AWAY, reason: "this node is stopping; connect to another one" };
            }
        }
    }
}

/// The WebSocket library names its errors only in text.
fn farewell_after(error: &str) -> Farewell {
    let error = error.to_ascii_lowercase();
    if error.contains("utf-8") || error.contains("utf8") {
        Farewell { code: close_code::INVALID, reason: "a text frame was not UTF-8" }
    } else if error.contains("too long") || error.contains("space limit") || error.contains("capacity") {
        Farewell { code: close_code::SIZE, reason: "a frame was larger than 128 KiB" }
    } else {
        Farewell { code: close_code::PROTOCOL, reason: "the connection broke, or a frame was not as RFC 6455 wants it" }
    }
}
