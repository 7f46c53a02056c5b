//! The UDP socket of one shard: batched reads with GRO, trains of packets with GSO, both IP families on one port.
//!
//! Owns the socket and its buffers, nothing of what is in the packets. Addresses outside are always canonical: an
//! IPv4 peer is an IPv4 address, however the socket sees it. Sending never waits: a full socket buffer is reported,
//! and the caller decides what to drop.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

/// Socket buffers asked for, each way. The system may give less (`net.core.rmem_max`, `wmem_max`).
pub const SOCKET_BUFFER_LEN: usize = 4 * 1024 * 1024;
/// Reads of one batch; each may bring many datagrams of one sender.
const BATCH: usize = 16;
/// Room per read: the longest train the kernel joins.
const BUFFER_LEN: usize = 65_536;

/// Longest train the kernel takes: what fits an IP packet, with room for headers.
const TRAIN_LEN_MAX: usize = 65_000;

/// Where a datagram came from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramMeta {
    /// The sender.
    pub from: SocketAddr,
    /// The address of ours it was sent to; unspecified if the system does not tell.
    pub local_ip: IpAddr,
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// Handed to the kernel whole.
    Sent,
    /// The socket's buffer is full; nothing or only the beginning of a train went out. Drop or try after
    /// [`UdpShard::writable`].
    WouldBlock,
    /// The kernel refused it for good: no route, too large, forbidden.
    Failed,
}

/// Things counted over a socket's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpStats {
    /// Datagrams read.
    pub datagrams_received: u64,
    /// Calls that sent, each a datagram or a train of them.
    pub sends: u64,
    /// Sends the full buffer refused.
    pub sends_blocked: u64,
    /// Sends the kernel refused for good.
    pub sends_failed: u64,
}

/// No socket could be had.
#[derive(Debug, thiserror::Error)]
pub enum UdpBindError {
    /// Every port of the range is taken.
    #[error("no free UDP port from {from} to {to}")]
    NoFreePort {
        /// First port tried.
        from: u16,
        /// Last port tried.
        to: u16,
    },
    /// The system refuses for another reason.
    #[error("cannot open UDP port {port}")]
    Io {
        /// The port tried.
        port: u16,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// Room for one batch of datagrams. Apart from the socket, so that what is read can be answered while it is read.
#[derive(Debug)]
pub struct ReceiveBuffer(Box<[u8]>);

impl ReceiveBuffer {
    /// An empty one.
    pub fn new() -> Self {
        Self(vec![0; BATCH * BUFFER_LEN].into_boxed_slice())
    }
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// One shard's socket. Lives on the shard's thread, inside its tokio runtime.
pub struct UdpShard {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    dual_stack: bool,
    port: u16,
    received: std::cell::Cell<u64>,
    sends: std::cell::Cell<u64>,
    blocked: std::cell::Cell<u64>,
    failed: std::cell::Cell<u64>,
}

impl UdpShard {
    /// Binds the first free port of `ports` on every address of both families, or of IPv4 where the system has no
    /// IPv6. Port 0 means any.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`UdpBindError`].
    pub fn bind(ports: RangeInclusive<u16>) -> Result<UdpShard, UdpBindError> {
        for port in ports.clone() {
            let (socket, dual_stack) = match open(port) {
                Ok(opened) => opened,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(cause) => return Err(UdpBindError::Io { port, cause }),
            };
            return UdpShard::from_socket(socket, dual_stack).map_err(|cause| UdpBindError::Io { port, cause });
        }
        Err(UdpBindError::NoFreePort { from: *ports.start(), to: *ports.end() })
    }

    fn from_socket(socket: Socket, dual_stack: bool) -> io::Result<UdpShard> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Best effort: a small buffer works, it only loses more in a burst.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_LEN);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_LEN);
        let socket = tokio::net::UdpSocket::from_std(socket.into())?;
        let port = socket.local_addr()?.port();
        Ok(UdpShard {
            socket,
            state,
            dual_stack,
            port,
            received: Default::default(),
            sends: Default::default(),
            blocked: Default::default(),
            failed: Default::default(),
        })
    }

    /// The port, to be named in ICE candidates.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether IPv6 peers can reach the socket.
    pub fn has_ipv6(&self) -> bool {
        self.dual_stack
    }

    /// Receive and send buffer the system really gave, in bytes.
    pub fn buffer_lens(&self) -> (usize, usize) {
        let socket = UdpSockRef::from(&self.socket);
        let receive = self.state.recv_buffer_size(socket).unwrap_or(0);
        (receive, self.state.send_buffer_size(UdpSockRef::from(&self.socket)).unwrap_or(0))
    }

    /// Most segments one send may have; 1 where the system has no GSO.
    pub fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// What was counted so far.
    pub fn stats(&self) -> UdpStats {
        UdpStats {
            datagrams_received: self.received.get(),
            sends: self.sends.get(),
            sends_blocked: self.blocked.get(),
            sends_failed: self.failed.get(),
        }
    }

    /// Waits until there is something to read. Cancel-safe.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Waits until there is room to send. Cancel-safe.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Reads what is there, at most one batch, and hands each datagram over. Returns how many; zero if there was
    /// nothing.
    ///
    /// # Errors
    /// Anything the system says but "would block".
    pub fn recv_batch(
        &self,
        buffer: &mut ReceiveBuffer,
        mut handle: impl FnMut(DatagramMeta, &mut [u8]),
    ) -> io::Result<usize> {
        let mut metas = [RecvMeta::default(); BATCH];
        let UdpShard { socket, state, .. } = self;
        let received = {
            let mut rest: &mut [u8] = &mut buffer.0;
            let mut slices: [IoSliceMut<'_>; BATCH] = std::array::from_fn(|_| {
                let (slice, after) = std::mem::take(&mut rest).split_at_mut(BUFFER_LEN);
                rest = after;
                IoSliceMut::new(slice)
            });
            let receive = || state.recv(UdpSockRef::from(&*socket), &mut slices, &mut metas);
            without_readiness(socket, Interest::READABLE, receive)
        };
        let received = match received {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            // An ICMP answer to something sent earlier; says nothing about what can be read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut count = 0;
        for (meta, slice) in metas.iter().take(received).zip(buffer.0.chunks_exact_mut(BUFFER_LEN)) {
            let local_ip = meta.dst_ip.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ip| ip.to_canonical());
            let from = canonical(meta.addr);
            let bytes = slice.get_mut(..meta.len).unwrap_or_default();
            for datagram in bytes.chunks_mut(meta.stride.max(1)) {
                count += 1;
                handle(DatagramMeta { from, local_ip }, datagram);
            }
        }
        self.received.set(self.received.get() + count as u64);
        Ok(count)
    }

    /// Sends one datagram, or with `segment_size` a train of datagrams of that many bytes each (the last may be
    /// shorter), in as few system calls as can be. `from_ip` is the address of ours to send from.
    pub fn send(
        &self,
        to: SocketAddr,
        from_ip: Option<IpAddr>,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> SendOutcome {
        let Some(segment) = segment_size.filter(|&size| size > 0 && size < contents.len()) else {
            return self.send_once(to, from_ip, contents, None);
        };
        let mut rest = contents;
        while !rest.is_empty() {
            // Asked each time: the kernel may turn out not to do it after all.
            let segments = self.state.max_gso_segments().min(TRAIN_LEN_MAX / segment).max(1);
            let (train, after) = rest.split_at(rest.len().min(segments * segment));
            match self.send_once(to, from_ip, train, (segments > 1).then_some(segment)) {
                SendOutcome::Sent => rest = after,
                SendOutcome::Failed if segments > 1 && self.state.max_gso_segments() == 1 => {}
                other => return other,
            }
        }
        SendOutcome::Sent
    }

    fn send_once(
        &self,
        to: SocketAddr,
        from_ip: Option<IpAddr>,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> SendOutcome {
        let destination = if self.dual_stack { mapped(to) } else { to };
        let src_ip = from_ip.filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == to.is_ipv4());
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        let send = || self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        let result = without_readiness(&self.socket, Interest::WRITABLE, send);
        let (counter, outcome) = match result {
            Ok(()) => (&self.sends, SendOutcome::Sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (&self.blocked, SendOutcome::WouldBlock),
            Err(_) => (&self.failed, SendOutcome::Failed),
        };
        counter.set(counter.get() + 1);
        outcome
    }
}

/// Tries `operate` at once, whatever the runtime believes about readiness (it knows nothing before its first turn). If
/// it would block, tries again under the runtime's eyes, which makes `readable` and `writable` wait.
fn without_readiness<T>(
    socket: &tokio::net::UdpSocket,
    interest: Interest,
    mut operate: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    match operate() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.try_io(interest, operate),
        result => result,
    }
}

/// A bound socket and whether it serves both families.
fn open(port: u16) -> io::Result<(Socket, bool)> {
    match open_family(Domain::IPV6, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
        Ok(socket) => Ok((socket, true)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => Ok((open_family(Domain::IPV4, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))?, false)),
    }
}

fn open_family(domain: Domain, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests;
