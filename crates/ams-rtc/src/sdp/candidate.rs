//! ICE candidates: this node's own, written; the other end's, read for diagnosis only, because an ICE-lite agent
//! answers checks wherever they come from and sends none.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Most candidates this node writes into one SDP.
pub const LOCAL_CANDIDATES_MAX: usize = 32;

/// A host candidate of this node: UDP, component 1 (RFC 8839 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Where to send.
    pub addr: SocketAddr,
    /// Higher is tried first (RFC 8445 §5.1.2.1).
    pub priority: u32,
    /// Candidates of one foundation share interface and server.
    pub foundation: u32,
}

impl Candidate {
    /// The host candidate with the given place among this node's addresses: 0 is the one to try first.
    pub fn host(addr: SocketAddr, place: u16) -> Self {
        const HOST_PREFERENCE: u32 = 126;
        const COMPONENT: u32 = 1;
        let local = u32::from(u16::MAX - place);
        let priority = (HOST_PREFERENCE << 24) | (local << 8) | (256 - COMPONENT);
        Self { addr, priority, foundation: u32::from(place) + 1 }
    }

    /// Host candidates for `addrs`, the first to be tried first; at most [`LOCAL_CANDIDATES_MAX`].
    pub fn hosts(addrs: impl IntoIterator<Item = SocketAddr>) -> Vec<Self> {
        addrs.into_iter().take(LOCAL_CANDIDATES_MAX).zip(0..).map(|(addr, place)| Self::host(addr, place)).collect()
    }
}

/// Spells `candidate:…`, as signalling carries it; in SDP it follows `a=`.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, priority, foundation } = self;
        // `ip()` has no IPv6 scope, which would mean nothing to the other end.
        write!(f, "candidate:{foundation} 1 udp {priority} {} {} typ host", addr.ip(), addr.port())
    }
}

/// A candidate of the other end that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// Where it is, as far as it knows.
    pub addr: SocketAddr,
    /// Its priority.
    pub priority: u32,
    /// How it was found.
    pub typ: CandidateType,
}

/// How a candidate was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateType {
    /// An interface.
    Host,
    /// Seen by a STUN server.
    ServerReflexive,
    /// Seen by the other end.
    PeerReflexive,
    /// At a TURN server.
    Relayed,
}

/// Why a candidate is not used. None of these is an error: strangers name what others can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkippedCandidate {
    /// The end-of-candidates mark of trickle ICE.
    #[error("end of candidates")]
    End,
    /// Not the grammar of RFC 8839.
    #[error("not a candidate")]
    Malformed,
    /// TCP, or a protocol nobody knows.
    #[error("not UDP")]
    NotUdp,
    /// RTCP on its own port.
    #[error("not component 1")]
    Component,
    /// A `.local` name: the browser hides its address.
    #[error("an mDNS name")]
    Mdns,
    /// Another name; names are not resolved.
    #[error("a host name")]
    HostName,
}

/// Reads `candidate:…`, also with `a=` in front.
///
/// # Errors
/// [`SkippedCandidate`] when it cannot be used here.
pub fn parse_candidate(text: &str) -> Result<RemoteCandidate, SkippedCandidate> {
    use SkippedCandidate::{Component, End, HostName, Malformed, Mdns, NotUdp};
    let text = text.trim();
    let text = text.strip_prefix("a=").unwrap_or(text);
    if text.is_empty() || text == "end-of-candidates" {
        return Err(End);
    }
    let mut words = text.strip_prefix("candidate:").ok_or(Malformed)?.split_ascii_whitespace();
    let mut word = || words.next().ok_or(Malformed);
    let _foundation = word()?;
    let component: u16 = word()?.parse().map_err(|_| Malformed)?;
    let transport = word()?;
    let priority = word()?.parse().map_err(|_| Malformed)?;
    let host = word()?;
    let port = word()?.parse().map_err(|_| Malformed)?;
    if word()? != "typ" {
        return Err(Malformed);
    }
    let typ = match word()? {
        "host" => CandidateType::Host,
        "srflx" => CandidateType::ServerReflexive,
        "prflx" => CandidateType::PeerReflexive,
        "relay" => CandidateType::Relayed,
        _ => return Err(Malformed),
    };
    if !transport.eq_ignore_ascii_case("udp") {
        return Err(NotUdp);
    }
    if component != 1 {
        return Err(Component);
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => Ok(RemoteCandidate { addr: SocketAddr::new(ip, port), priority, typ }),
        Err(_) if host.to_ascii_lowercase().ends_with(".local") => Err(Mdns),
        Err(_) => Err(HostName),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_candidates_are_read_back_and_ordered() {
        let addrs: Vec<SocketAddr> = vec!["192.0.2.1:50000".parse().unwrap(), "[2001:db8::1]:50000".parse().unwrap()];
        let own = Candidate::hosts(addrs.clone());
        assert_eq!(own[0].to_string(), "candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host");
        assert!(own[0].priority > own[1].priority);
        for (candidate, addr) in own.iter().zip(addrs) {
            let read = parse_candidate(&candidate.to_string()).unwrap();
            assert_eq!((read.addr, read.priority, read.typ), (addr, candidate.priority, CandidateType::Host));
        }
        assert_eq!(Candidate::hosts(vec!["[::1]:1".parse().unwrap(); 99]).len(), LOCAL_CANDIDATES_MAX);
    }

    #[test]
    fn strangers_candidates_are_used_or_skipped_with_a_reason() {
        use SkippedCandidate::{Component, End, HostName, Malformed, Mdns, NotUdp};
        for (name, text, want) in [
            ("host", "candidate:1 1 UDP 2122 10.0.0.1 5000 typ host generation 0 ufrag abcd", Ok(())),
            ("as an attribute", "a=candidate:1 1 udp 2122 10.0.0.1 5000 typ host", Ok(())),
            ("reflexive", "candidate:1 1 udp 1 192.0.2.1 5 typ srflx raddr 0.0.0.0 rport 0", Ok(())),
            ("hidden address", "candidate:1 1 udp 1 8c3ad4e6-0f5b.local 5 typ host", Err(Mdns)),
            ("host name", "candidate:1 1 udp 1 example.org 5 typ host", Err(HostName)),
            ("tcp", "candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active", Err(NotUdp)),
            ("rtcp", "candidate:1 2 udp 1 10.0.0.1 9 typ host", Err(Component)),
            ("empty is the end", "", Err(End)),
            ("the end in words", "a=end-of-candidates", Err(End)),
            ("garbage", "candidate:", Err(Malformed)),
            ("port too large", "candidate:1 1 udp 1 10.0.0.1 65536 typ host", Err(Malformed)),
            ("no type", "candidate:1 1 udp 1 10.0.0.1 9", Err(Malformed)),
            ("unknown type", "candidate:1 1 udp 1 10.0.0.1 9 typ magic", Err(Malformed)),
        ] {
            assert_eq!(parse_candidate(text).map(|_| ()), want, "{name}");
        }
    }
}
