//! What a node takes from the system before it starts: file descriptors and listening sockets.
//!
//! Owns the sentences for what the system may refuse, each with the flag to change. Accepts no connection and binds
//! no UDP port; the shards do, and use [`explain`] too.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, Mode, PortRange};
use crate::exit::{Exit, ExitError};

/// Fewer descriptors than this are worth a warning: each viewer's WebSocket takes one.
const DESCRIPTORS_FEW: u64 = 4096;
/// Connections the system holds until they are accepted; as many viewers may arrive at once.
const BACKLOG: i32 = 1024;

/// The sockets a node starts with. Non-blocking, ready for `tokio::net::TcpListener::from_std`.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// HTTP and WebSocket.
    pub(crate) http: TcpListener,
    /// Relay links, on an origin.
    pub(crate) relay: Option<TcpListener>,
}

/// What a socket is for; decides which key the sentence names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// HTTP and WebSocket, TCP.
    Http,
    /// Relay links, TCP.
    Relay,
    /// WebRTC media, UDP.
    Media,
}

impl Door {
    fn flag(self) -> &'static str {
        match self {
            Self::Http => "--http",
            Self::Relay => "--relay",
            Self::Media => "--udp-ports",
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Relay => "relay links",
            Self::Media => "media",
        })
    }
}

/// Binds what this configuration listens on.
///
/// # Errors
/// A sentence with the flag to change, and the exit code that fits.
pub(crate) fn bind(config: &Config) -> Result<Listeners, ExitError> {
    let tcp = |door, address| listen(address).map_err(|error| explain(door, address, &error));
    Ok(Listeners {
        http: tcp(Door::Http, config.http)?,
        relay: (config.mode == Mode::Origin).then(|| tcp(Door::Relay, config.relay)).transpose()?,
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node takes its port back from connections in TIME_WAIT. Another listener still keeps us out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] serves IPv4 as well, whatever the system's default.
        let dual = address.ip().is_unspecified();
        socket.set_only_v6(!dual)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The first `wanted` ports of the range that are free at this moment, or fewer.
pub(crate) fn free_udp_ports(range: PortRange, wanted: usize) -> Vec<u16> {
    let any = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    range.range().filter(|port| UdpSocket::bind((any, *port)).is_ok()).take(wanted).collect()
}

/// Says why a socket could not be had, and what to change.
pub(crate) fn explain(door: Door, address: impl fmt::Display, error: &io::Error) -> ExitError {
    let flag = door.flag();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ExitError::new(Exit::PortInUse, format!("{address} for {door} is in use by another process"))
                .hint(format!("end that process (`ss -lntup` shows it) or choose another with {flag}"))
        }
        io::ErrorKind::PermissionDenied => {
            ExitError::new(Exit::Permission, format!("the system does not allow to listen on {address} for {door}"))
                .hint(format!("ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose another with {flag}"))
        }
        io::ErrorKind::AddrNotAvailable => {
            ExitError::new(Exit::Config, format!("{address} for {door} is not an address of this machine"))
                .hint(format!("`ip address` lists those that are; choose one, or 0.0.0.0 for all, with {flag}"))
        }
        _ => match refused(&format!("cannot listen on {address} for {door}"), error) {
            other if other.exit == Exit::Internal => other.hint(format!("{flag} chooses the address")),
            known => known,
        },
    }
}

/// Says that the system refused something else than a port.
pub(crate) fn refused(what: &str, error: &io::Error) -> ExitError {
    if is_out_of_descriptors(error) {
        return ExitError::new(Exit::Descriptors, format!("{what}: no file descriptors are left"))
            .hint("raise the limit: `ulimit -n 65536`, or LimitNOFILE=65536 in the systemd unit");
    }
    ExitError::new(Exit::Internal, format!("{what}: {error}"))
}

/// Of this process (EMFILE) or of the whole machine (ENFILE).
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    error.raw_os_error().is_some_and(|raw| codes.iter().any(|code| code.raw_os_error() == raw))
}

/// How many file descriptors this process may have, after raising the limit as far as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// The limit now; `None` is unlimited.
    pub(crate) limit: Option<u64>,
}

impl Descriptors {
    /// A sentence for the operator when there are few.
    pub(crate) fn warning(self) -> Option<String> {
        let limit = self.limit.filter(|limit| *limit < DESCRIPTORS_FEW)?;
        Some(format!(
            "only {limit} file descriptors are allowed, and each viewer takes one; \
             raise it with `ulimit -n 65536`, or LimitNOFILE=65536 in the systemd unit"
        ))
    }
}

/// Raises the soft limit on file descriptors to the hard one. Failing that, the limit stays as it is.
pub(crate) fn raise_descriptors() -> Descriptors {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    Descriptors { limit: if raised { maximum } else { current } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_said_with_the_flag_to_change() {
        for (name, door, errno, exit, parts) in [
            ("in use", Door::Http, rustix::io::Errno::ADDRINUSE, Exit::PortInUse, ["in use", "--http"]),
            ("in use, relay", Door::Relay, rustix::io::Errno::ADDRINUSE, Exit::PortInUse, ["relay links", "--relay"]),
            ("forbidden", Door::Media, rustix::io::Errno::ACCESS, Exit::Permission, ["does not allow", "--udp-ports"]),
            ("not ours", Door::Http, rustix::io::Errno::ADDRNOTAVAIL, Exit::Config, ["not an address", "--http"]),
            ("no descriptors", Door::Http, rustix::io::Errno::MFILE, Exit::Descriptors, ["descriptors", "LimitNOFILE"]),
            ("none at all", Door::Http, rustix::io::Errno::NFILE, Exit::Descriptors, ["descriptors", "LimitNOFILE"]),
            ("anything else", Door::Http, rustix::io::Errno::IO, Exit::Internal, ["cannot listen", "--http"]),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let said = explain(door, "192.0.2.1:80", &error);
            assert_eq!(said.exit, exit, "{name}");
            let text = said.to_string();
            assert!(text.contains("192.0.2.1:80"), "{name}: {text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{name}: {text}");
        }
    }

    #[test]
    fn a_port_is_had_once() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(listen(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(taken).unwrap();
    }

    #[test]
    fn the_unspecified_ipv6_address_serves_ipv4() {
        let Ok(listener) = listen(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0))) else {
            return; // a machine without IPv6
        };
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn taken_udp_ports_are_skipped() {
        let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(free_udp_ports(PortRange { from: port, to: port }, 1), Vec::<u16>::new());
    }

    #[test]
    fn few_descriptors_are_warned_of() {
        assert!(Descriptors { limit: Some(1024) }.warning().unwrap().contains("only 1024"));
        assert_eq!(Descriptors { limit: Some(65_536) }.warning(), None);
        assert_eq!(Descriptors { limit: None }.warning(), None);
        assert!(raise_descriptors().limit.is_none_or(|limit| limit > 0));
    }
}
