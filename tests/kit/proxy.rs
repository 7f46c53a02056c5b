//! A TCP path that can stall, break, delay and choke: the network between two nodes, from outside of both.
//!
//! Owns a task per connection, ended when the value is dropped. Loses nothing: TCP would make delay of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Bytes read at a time.
const CHUNK: usize = 4096;
/// Chunks on their way in one direction: what the path holds.
const CHUNKS_MAX: usize = 8;
/// What the system may hold besides. A path that holds more hands over seconds of media at once when it is free again.
const BUFFER_BYTES: u32 = 16 * 1024;

/// What the path does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathState {
    /// Nothing passes, and nobody is told: a partition.
    pub stalled: bool,
    /// Each way takes this long.
    pub delay: Duration,
    /// Bytes per second and way; none is no limit.
    pub rate: Option<u32>,
}

/// The path.
#[derive(Debug)]
pub struct TcpPath {
    /// Where it begins.
    pub address: SocketAddr,
    state: Arc<watch::Sender<PathState>>,
    task: JoinHandle<()>,
}

impl TcpPath {
    /// A path from a free port at `ip` to `target`.
    ///
    /// # Errors
    /// No port.
    pub async fn to(ip: Ipv4Addr, target: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        socket.bind((ip, 0).into())?;
        let listener = socket.listen(64)?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(PathState::default()));
        let of_task = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                connections.spawn(connection(from, target, of_task.subscribe()));
            }
        });
        Ok(Self { address, state, task })
    }

    /// Changes what it does, from now on.
    pub fn set(&self, state: PathState) {
        self.state.send_replace(state);
    }
}

impl Drop for TcpPath {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(from: TcpStream, target: SocketAddr, mut state: watch::Receiver<PathState>) {
    if state.wait_for(|state| !state.stalled).await.is_err() {
        return;
    }
    let Ok(to) = TcpSocket::new_v4() else { return };
    let _ = to.set_recv_buffer_size(BUFFER_BYTES);
    let Ok(to) = to.connect(target).await else { return };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    // When one way ends, so does the other.
    tokio::select! {
        () = way(from_read, to_write, state.clone()) => {}
        () = way(to_read, from_write, state) => {}
    }
}

async fn way(mut read: OwnedReadHalf, mut write: OwnedWriteHalf, mut state: watch::Receiver<PathState>) {
    let (enter, mut leave) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let mut entering = state.clone();
    let entering = async move {
        let mut chunk = vec![0; CHUNK];
        loop {
            let Ok(1..) = read.read(&mut chunk).await.map(|len| chunk.truncate(len)).map(|()| chunk.len()) else {
                return;
            };
            let PathState { delay, rate, .. } = *entering.borrow_and_update();
            let bytes = std::mem::replace(&mut chunk, vec![0; CHUNK]);
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate))).await;
            }
            if enter.send((Instant::now() + delay, bytes)).await.is_err() {
                return;
            }
        }
    };
    let leaving = async move {
        while let Some((at, bytes)) = leave.recv().await {
            tokio::time::sleep_until(at).await;
            if state.wait_for(|state| !state.stalled).await.is_err() || write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(entering, leaving);
}
