//! The way to other nodes: TCP, or in tests the simulation's network.
//!
//! Owns names, addresses and sockets of relay connections until a shard takes them over. Never reads or writes a frame.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ams_relay::{Connected, HandshakeConfig, RelayError, dial_over, tune};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout_at;

use crate::clock;
#[cfg(test)]
use crate::node::sim::net::{Pipe, Place, SimListener};

/// Where a node's connections go.
#[derive(Debug, Default)]
pub enum Net {
    /// Out into the network.
    #[default]
    Tcp,
    /// Into a simulated one.
    #[cfg(test)]
    Simulated(Place),
}

/// A relay connection in this thread's runtime.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A simulated one.
    #[cfg(test)]
    Simulated(Pipe),
}

/// A relay connection on its way to another thread's runtime.
#[derive(Debug)]
pub enum Parked {
    /// TCP, non-blocking.
    Tcp(std::net::TcpStream),
    /// A simulated one.
    #[cfg(test)]
    Simulated(Pipe),
}

/// Where other nodes' connections come in.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A simulated one.
    #[cfg(test)]
    Simulated(SimListener),
}

impl Net {
    /// Dials a node before `deadline`, its name's resolution included, and sees the handshake through before that or within
    /// `handshake` of its own: a host that answers late is far away, or behind a path that loses packets, and the handshake is
    /// two more round trips on it.
    ///
    /// # Errors
    /// As [`ams_relay::dial`], and a name that has no address.
    pub async fn dial(
        &self,
        host: &str,
        port: u16,
        identity: &HandshakeConfig,
        deadline: Instant,
        handshake: Duration,
    ) -> Result<(SocketAddr, Connected<Stream>), RelayError> {
        let (address, stream) = match self {
            Self::Tcp => {
                let address = resolve(host, port, deadline).await?;
                let connect = |cause| RelayError::Connect { addr: address, cause };
                let stream = timeout_at(deadline.into(), TcpStream::connect(address))
                    .await
                    .map_err(|_| connect(io::ErrorKind::TimedOut.into()))?
                    .map_err(connect)?;
                tune(&stream)?;
                (address, Stream::Tcp(stream))
            }
            #[cfg(test)]
            Self::Simulated(place) => {
                let (address, pipe) = place.connect(host, port, deadline).await?;
                (address, Stream::Simulated(pipe))
            }
        };
        let deadline = deadline.max(clock::now() + handshake);
        Ok((address, dial_over(stream, identity, None, deadline).await?))
    }
}

async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<SocketAddr, RelayError> {
    let cannot = |cause| RelayError::Resolve { host: host.to_owned(), cause };
    let resolved = timeout_at(deadline.into(), tokio::net::lookup_host((host, port))).await;
    let mut addresses = resolved.map_err(|_| cannot(io::ErrorKind::TimedOut.into()))?.map_err(cannot)?;
    addresses.next().ok_or_else(|| cannot(io::Error::new(io::ErrorKind::NotFound, "it has no address")))
}

impl Stream {
    /// Takes the connection out of this runtime.
    ///
    /// # Errors
    /// The system cannot do it; the connection is lost.
    pub fn park(self) -> io::Result<Parked> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Parked::Tcp),
            #[cfg(test)]
            Self::Simulated(pipe) => Ok(Parked::Simulated(pipe)),
        }
    }
}

impl Parked {
    /// The other end's address; zeros if the connection is broken already.
    pub fn remote(&self) -> SocketAddr {
        let remote = match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            #[cfg(test)]
            Self::Simulated(pipe) => Some(pipe.remote()),
        };
        remote.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}

impl Listener {
    /// Waits for a connection.
    ///
    /// # Errors
    /// Those of the system; the next call may succeed.
    pub async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // One that is broken already is noticed by the handshake.
                let _ = tune(&stream);
                Ok((Stream::Tcp(stream), from))
            }
            #[cfg(test)]
            Self::Simulated(listener) => {
                let pipe = listener.accept().await;
                let from = pipe.remote();
                Ok((Stream::Simulated(pipe), from))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}
