//! Who is asking: the client's address behind balancers, and its name for itself.
//!
//! Owns the rule which headers are believed. `X-Forwarded-For` is read from its right end, because a client can write
//! anything to the left of what the nearest proxy adds; `X-Real-IP` counts only where there is no `X-Forwarded-For` at all.
//! Nobody else can make a client this machine itself, which may do more than others: only what is here says who is here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap, HeaderValue, header};
use ipnet::IpNet;

use crate::port::{Caller, Door};

/// Longest kept `User-Agent`, in bytes.
const USER_AGENT_LEN_MAX: usize = 256;
/// Most `X-Forwarded-For` hops that are looked at.
const HOPS_MAX: usize = 16;

/// The client's address as far as it can be known; put into every request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddr(pub(crate) IpAddr);

impl ClientAddr {
    /// From the connection and, if it comes from a trusted proxy, the headers.
    pub(crate) fn find(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
        Self(resolve(peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), headers, trusted))
    }
}

/// What the client's browser takes for this server's origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Front {
    /// Whether the client speaks TLS, with a proxy that says so.
    pub(crate) https: bool,
    /// The host it asked, with a port if that is not the usual one.
    pub(crate) host: Option<HeaderValue>,
}

impl Front {
    /// From the request and, if it comes from a trusted proxy, what that adds.
    pub(crate) fn find(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
        let believed = is_trusted(peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), trusted);
        let of_proxy = |name: &str| headers.get(name).filter(|_| believed);
        // The nearest proxy adds its word at the end.
        let https = of_proxy("x-forwarded-proto")
            .and_then(|value| value.to_str().ok()?.rsplit(',').next())
            .is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"));
        Self { https, host: of_proxy("x-forwarded-host").or_else(|| headers.get(header::HOST)).cloned() }
    }
}

pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn resolve(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    if !headers.contains_key("x-forwarded-for") {
        let named = headers.get("x-real-ip").and_then(|v| v.to_str().ok()).and_then(parse);
        return named.filter(|address| is_possible(*address, peer)).unwrap_or(peer);
    }
    // Bytes, not text: what a client put into its own part must not hide what the proxies say.
    let hops = headers.get_all("x-forwarded-for").iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let hops: Vec<&[u8]> = hops.collect();
    let mut nearest = peer;
    for hop in hops.into_iter().rev().take(HOPS_MAX) {
        let Some(address) = std::str::from_utf8(hop).ok().and_then(parse) else { break };
        // Two proxies of one machine, or a lie: whoever it is, it is behind the hop that says so.
        if !is_possible(address, nearest) {
            continue;
        }
        nearest = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    nearest
}

/// Whether `said_by` can know of a client at `address`: only a machine itself knows its loopback.
fn is_possible(address: IpAddr, said_by: IpAddr) -> bool {
    !address.is_unspecified() && (!address.is_loopback() || said_by.is_loopback())
}

/// An address, with or without port or brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

/// The caller of a request.
pub(crate) fn caller(door: Door, client: ClientAddr, headers: &HeaderMap) -> Caller {
    let agent = headers.get(header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes())).unwrap_or_default();
    let end = (0..=USER_AGENT_LEN_MAX.min(agent.len())).rev().find(|at| agent.is_char_boundary(*at)).unwrap_or(0);
    let user_agent = agent.chars().scan(0, |used, c| {
        *used += c.len_utf8();
        (*used <= end).then_some(if c.is_control() { ' ' } else { c })
    });
    Caller { door, remote_ip: client.0, user_agent: user_agent.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ApiConfig;

    #[test]
    fn headers_are_believed_only_from_proxies() {
        let trusted = ApiConfig::default().trusted_proxies;
        for (name, peer, forwarded, real, want) in [
            ("no headers", "203.0.113.5", None, None, "203.0.113.5"),
            ("stranger with headers", "203.0.113.5", Some("198.51.100.1"), Some("198.51.100.2"), "203.0.113.5"),
            ("balancer", "10.0.0.7", Some("198.51.100.1"), None, "198.51.100.1"),
            ("forged left part", "10.0.0.7", Some("1.2.3.4, 198.51.100.1"), None, "198.51.100.1"),
            ("two proxies", "10.0.0.7", Some("198.51.100.1, 10.0.0.9"), None, "198.51.100.1"),
            ("only private hops", "127.0.0.1", Some("192.168.0.4"), None, "192.168.0.4"),
            ("real ip alone", "127.0.0.1", None, Some("198.51.100.2"), "198.51.100.2"),
            ("forwarded wins over real ip", "127.0.0.1", Some("198.51.100.1"), Some("1.1.1.1"), "198.51.100.1"),
            ("with a port", "10.0.0.7", Some("198.51.100.1:4711"), None, "198.51.100.1"),
            ("IPv6 in brackets", "::1", Some("[2001:db8::1]"), None, "2001:db8::1"),
            ("IPv6 with a port", "::1", Some("[2001:db8::1]:80"), None, "2001:db8::1"),
            ("mapped IPv4", "10.0.0.7", Some("::ffff:198.51.100.1"), None, "198.51.100.1"),
            ("garbage", "10.0.0.7", Some("unknown"), None, "10.0.0.7"),
            ("garbage hides no hop", "10.0.0.7", Some("\u{80}, 198.51.100.1"), None, "198.51.100.1"),
            ("garbage makes no real ip count", "10.0.0.7", Some("\u{80}"), Some("127.0.0.1"), "10.0.0.7"),
            ("a neighbour is not this machine", "10.0.0.7", Some("127.0.0.1"), None, "10.0.0.7"),
            ("nor behind another hop", "10.0.0.7", Some("::1, 10.0.0.9"), None, "10.0.0.9"),
            ("nor by its real ip", "10.0.0.7", None, Some("127.0.0.1"), "10.0.0.7"),
            ("nobody's address", "10.0.0.7", Some("0.0.0.0"), None, "10.0.0.7"),
            ("nor behind a proxy here", "127.0.0.1", Some("127.0.0.1, 10.0.0.9"), None, "10.0.0.9"),
            ("two proxies of one machine", "10.0.0.7", Some("198.51.100.1, 127.0.0.1"), None, "198.51.100.1"),
            ("a proxy here, for one from here", "127.0.0.1", Some("127.0.0.1"), None, "127.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for (key, value) in [("x-forwarded-for", forwarded), ("x-real-ip", real)] {
                if let Some(value) = value {
                    headers.insert(key, HeaderValue::from_bytes(value.as_bytes()).unwrap());
                }
            }
            let got = resolve(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(got, want.parse::<IpAddr>().unwrap(), "{name}");
        }
    }

    #[test]
    fn only_proxies_say_that_a_client_speaks_tls() {
        let trusted = ApiConfig::default().trusted_proxies;
        for (name, peer, proto, want) in [
            ("a proxy", "10.0.0.7", Some("https"), true),
            ("the nearest of two", "10.0.0.7", Some("http, HTTPS"), true),
            ("no TLS", "10.0.0.7", Some("http"), false),
            ("a client", "203.0.113.5", Some("https"), false),
            ("nobody", "10.0.0.7", None, false),
        ] {
            let mut headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("inside"))]);
            if let Some(proto) = proto {
                headers.insert("x-forwarded-proto", HeaderValue::from_static(proto));
                headers.insert("x-forwarded-host", HeaderValue::from_static("outside"));
            }
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
            let front = Front::find(&extensions, &headers, &trusted);
            let host = if peer == "10.0.0.7" && proto.is_some() { "outside" } else { "inside" };
            assert_eq!((front.https, front.host.unwrap()), (want, HeaderValue::from_static(host)), "{name}");
        }
    }

    #[test]
    fn user_agents_are_cut_and_cleaned() {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, "ø".repeat(200).parse::<http::HeaderValue>().unwrap());
        let client = ClientAddr(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let agent = caller(Door::Http, client, &headers).user_agent;
        assert_eq!((agent.len(), agent.chars().count()), (256, 128));
    }
}
