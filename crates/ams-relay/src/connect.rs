//! Dialling and accepting relay links: TCP, socket options, handshake.
//!
//! Owns a connection until its link stands. The only place of this crate that asks for randomness (the nonces). How
//! many strangers may be in a handshake at once is for the caller to bound.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::time::{Duration, Instant};

use ams_types::NodeId;
use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout_at;

use crate::error::RelayError;
use crate::handshake::{Established, Handshake, HandshakeConfig, PeerInfo, Progress};
use crate::link::{LinkReader, LinkWriter};
use crate::wire::{HANDSHAKE_FRAME_LEN_MAX, RejectCode};

/// Bytes the kernel may hold unsent before a write has to wait. Small, because they can no longer be dropped; a
/// kernel left to itself holds seconds of a slow link.
const UNSENT_LEN_MAX: u32 = 128 * 1024;
/// Time a refused peer has to take the reason.
const REJECT_LINGER: Duration = Duration::from_millis(200);

/// An established link in this thread's runtime.
#[derive(Debug)]
pub struct Connected {
    /// The connection, past its handshake.
    pub stream: TcpStream,
    /// The other end.
    pub peer: PeerInfo,
    /// Bytes read already: the start of the first frame.
    pub leftover: BytesMut,
}

/// An established link on its way to another thread's runtime.
#[derive(Debug)]
pub struct ConnectedStd {
    /// The connection, non-blocking.
    pub stream: StdTcpStream,
    /// The other end.
    pub peer: PeerInfo,
    /// Bytes read already.
    pub leftover: BytesMut,
}

impl Connected {
    /// Takes the link out of this runtime.
    ///
    /// # Errors
    /// The system cannot do it; the link is lost.
    pub fn into_std(self) -> io::Result<ConnectedStd> {
        Ok(ConnectedStd { stream: self.stream.into_std()?, peer: self.peer, leftover: self.leftover })
    }

    /// Puts the link into the runtime of the calling thread.
    ///
    /// # Errors
    /// The system cannot do it; the link is lost.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn from_std(connected: ConnectedStd) -> io::Result<Self> {
        let stream = TcpStream::from_std(connected.stream)?;
        Ok(Self { stream, peer: connected.peer, leftover: connected.leftover })
    }

    /// The two directions, for two tasks.
    pub fn split(self) -> (PeerInfo, LinkReader<OwnedReadHalf>, LinkWriter<OwnedWriteHalf>) {
        let (read, write) = self.stream.into_split();
        (self.peer, LinkReader::new(read, self.leftover), LinkWriter::new(write))
    }
}

/// Dials a node and sees the handshake through, both before `deadline`. `expected` is the node that should answer, if
/// known.
///
/// # Errors
/// No connection, no handshake in time, or one of the reasons to refuse a link.
pub async fn dial(
    addr: SocketAddr,
    config: &HandshakeConfig,
    expected: Option<NodeId>,
    deadline: Instant,
) -> Result<Connected, RelayError> {
    let stream = connect(addr, deadline).await?;
    shake(stream, Handshake::dialer(config.clone(), expected, rand::random())?, deadline).await
}

/// As [`dial`], with `limit` for the connection and as long again for the handshake: a host that answers late is far away
/// or behind a path that loses packets, and the handshake is two more round trips on it.
///
/// # Errors
/// As [`dial`].
pub async fn dial_far(
    addr: SocketAddr,
    config: &HandshakeConfig,
    expected: Option<NodeId>,
    limit: Duration,
) -> Result<Connected, RelayError> {
    let stream = connect(addr, Instant::now() + limit).await?;
    shake(stream, Handshake::dialer(config.clone(), expected, rand::random())?, Instant::now() + limit).await
}

async fn connect(addr: SocketAddr, deadline: Instant) -> Result<TcpStream, RelayError> {
    let failed = |cause| RelayError::Connect { addr, cause };
    timeout_at(deadline.into(), TcpStream::connect(addr))
        .await
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)
}

/// Sees the handshake of an accepted connection through before `deadline`.
///
/// # Errors
/// No handshake in time, or one of the reasons to refuse a link.
pub async fn accept(stream: TcpStream, config: &HandshakeConfig, deadline: Instant) -> Result<Connected, RelayError> {
    shake(stream, Handshake::acceptor(config.clone(), rand::random())?, deadline).await
}

/// Refuses an accepted connection before any handshake, with the reason; for a node that drains or has too many links.
pub async fn refuse(stream: TcpStream, config: &HandshakeConfig, code: RejectCode, sentence: &str) {
    let Ok(mut handshake) = Handshake::acceptor(config.clone(), [0; 32]) else { return };
    handshake.reject(code, sentence);
    send_reason(stream, &mut handshake).await;
}

async fn shake(mut stream: TcpStream, mut handshake: Handshake, deadline: Instant) -> Result<Connected, RelayError> {
    set_options(&stream)?;
    let result = match timeout_at(deadline.into(), run(&mut stream, &mut handshake)).await {
        Ok(result) => result,
        Err(_) => {
            handshake.reject(RejectCode::Timeout, "the handshake took too long");
            Err(RelayError::HandshakeTimeout)
        }
    };
    match result {
        Ok(Established { peer, leftover }) => Ok(Connected { stream, peer, leftover }),
        Err(error) => {
            send_reason(stream, &mut handshake).await;
            Err(error)
        }
    }
}

async fn run(stream: &mut TcpStream, handshake: &mut Handshake) -> Result<Established, RelayError> {
    let mut chunk = [0; HANDSHAKE_FRAME_LEN_MAX as usize];
    loop {
        stream.write_all(&handshake.take_output()).await?;
        let len = stream.read(&mut chunk).await?;
        if len == 0 {
            return Err(RelayError::Closed);
        }
        if let Progress::Established(established) = handshake.receive(chunk.get(..len).unwrap_or_default())? {
            stream.write_all(&handshake.take_output()).await?;
            return Ok(established);
        }
    }
}

/// Sends what the handshake still has to say and closes; gives up soon.
async fn send_reason(mut stream: TcpStream, handshake: &mut Handshake) {
    let output = handshake.take_output();
    if output.is_empty() {
        return;
    }
    let say = async {
        stream.write_all(&output).await?;
        stream.shutdown().await?;
        // A close with unread bytes becomes a reset, which would destroy the reason on its way.
        let mut rest = [0; 256];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The peer is refused either way.
    let _ = tokio::time::timeout(REJECT_LINGER, say).await;
}

fn set_options(stream: &TcpStream) -> Result<(), RelayError> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    // Helps the system let go of dead connections; the link's own keepalive is what counts.
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(10)));
        let _ = socket.set_tcp_notsent_lowat(UNSENT_LEN_MAX);
    }
    Ok(())
}
