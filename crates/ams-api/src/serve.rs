//! Accepts connections and runs HTTP/1.1 on them, within limits.
//!
//! Owns the listener, the number of open connections in total and per address, and the time a client may take to send
//! a header or to read an answer. An upgraded connection (a WebSocket) counts until it is closed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::client::is_trusted;
use crate::state::ApiState;

/// Pause after an accept that failed for want of something, usually file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest request head, in bytes.
const HEAD_LEN_MAX: usize = 64 * 1024;
/// Time connections have to finish their request when the server stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: text/plain\r\n\
    Content-Length: 53\r\nConnection: close\r\n\r\ntoo many open connections; try again in a few seconds";

/// Serves `router` on `listener` until `stop` is cancelled, then lets running requests finish for a few seconds.
///
/// WebSockets are not requests: they go on until [`crate::Api::shutdown`] closes them.
pub(crate) async fn serve(listener: TcpListener, router: Router, state: &ApiState, stop: CancellationToken) {
    let config = &state.config;
    let limits = &config.limits;
    let gate = Gate {
        total: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
        per_address_max: limits.connections_per_address,
        per_address: Arc::default(),
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.keep_alive).max_buf_size(HEAD_LEN_MAX);
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_about_the_peer(&error) => continue,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let counted = !is_trusted(peer.ip().to_canonical(), &config.trusted_proxies);
        let Some(place) = gate.enter(peer.ip().to_canonical(), counted) else {
            refuse(stream);
            state.refusals.connection();
            continue;
        };
        // Signalling is small messages that somebody waits for.
        let _ = stream.set_nodelay(true);
        let stream = Guarded { stream, _place: place, write_timeout: limits.write_timeout, stalled: None };
        let connection = Connection {
            http: http.clone(),
            router: router.clone(),
            peer,
            header_timeout: limits.header_timeout,
            stop: stop.clone(),
        };
        connections.spawn(connection.run(stream));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(FINISH_TIMEOUT, connections.wait()).await.is_err() {
        debug!(open = connections.len(), "requests were cut off because the node stops");
    }
}

/// The peer went away between the handshake and `accept`.
fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Tells a client that there is no room, as far as that can be done without waiting.
fn refuse(stream: TcpStream) {
    debug!("a connection was refused because there are too many");
    // The runtime does not know yet that a fresh socket takes bytes; the system does.
    if let Ok(mut stream) = stream.into_std() {
        let _ = std::io::Write::write(&mut stream, FULL);
    }
}

struct Connection {
    http: http1::Builder,
    router: Router,
    peer: SocketAddr,
    header_timeout: Duration,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: Guarded) {
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (router, peer, asked) = (self.router, self.peer, Arc::clone(&asked));
            move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                router.clone().oneshot(request)
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(connection);
        let (mut stopping, mut fresh) = (false, true);
        let first_header = sleep(self.header_timeout);
        tokio::pin!(first_header);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%error, "connection broke");
                    }
                    return;
                }
                // A used connection may idle longer than a new one: see `keep_alive`.
                () = first_header.as_mut(), if fresh => {
                    fresh = false;
                    if !asked.load(Ordering::Relaxed) {
                        return;
                    }
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Holds addresses with open connections only, so it is bounded by their number.
type OpenPerAddress = Arc<Mutex<HashMap<IpAddr, usize>>>;

struct Gate {
    total: Arc<Semaphore>,
    per_address_max: usize,
    per_address: OpenPerAddress,
}

/// One open connection's share of the limits, given back when dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    counted: Option<(IpAddr, OpenPerAddress)>,
}

impl Gate {
    fn enter(&self, address: IpAddr, counted: bool) -> Option<Place> {
        let permit = Arc::clone(&self.total).try_acquire_owned().ok()?;
        if !counted {
            return Some(Place { _permit: permit, counted: None });
        }
        let mut addresses = self.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        let open = addresses.entry(address).or_default();
        if *open >= self.per_address_max {
            return None;
        }
        *open += 1;
        drop(addresses);
        Some(Place { _permit: permit, counted: Some((address, Arc::clone(&self.per_address))) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((address, addresses)) = &self.counted else { return };
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = addresses.get_mut(address) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                addresses.remove(address);
            }
        }
    }
}

/// A TCP stream that holds its place, and fails when the client takes nothing for too long.
struct Guarded {
    stream: TcpStream,
    _place: Place,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    /// Passes a write's result on; a write that waits longer than the timeout becomes an error.
    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let deadline = Instant::now() + self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let gate = Gate { total: Arc::new(Semaphore::new(1)), per_address_max: 1, per_address: Arc::default() };
        let place = gate.enter(peer.ip(), true).unwrap();
        let mut stream = Guarded { stream, _place: place, write_timeout: Duration::from_millis(50), stalled: None };
        let flood = async { while stream.write_all(&[0; 65536]).await.map_err(|e| e.kind()) == Ok(()) {} };
        tokio::time::timeout(Duration::from_secs(20), flood).await.expect("the write fails in time");
        assert!(gate.enter(peer.ip(), true).is_none(), "the place is held while the stream lives");
        drop(stream);
        assert!(gate.per_address.lock().unwrap().is_empty(), "and given back");
        assert!(gate.enter(peer.ip(), true).is_some());
    }
}
