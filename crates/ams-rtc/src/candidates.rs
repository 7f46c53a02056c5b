//! Which addresses to offer peers as ICE host candidates.
//!
//! Asks the system for the interfaces' addresses once per call; the choice itself is a plain function of them.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// Most candidates offered: a peer checks every one of them.
pub const CANDIDATES_MAX: usize = 16;

/// What the operator says about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceAddressConfig {
    /// Addresses by which peers reach this node from outside, for nodes behind NAT. Offered before all others. Each
    /// must be an IPv4 or IPv6 address; ports are not translated.
    pub public_ip: Vec<String>,
    /// Offer loopback addresses too, even if there are others. For tests and demos on one machine; browsers other
    /// than Chromium never use them.
    pub include_loopback: bool,
}

/// No candidates can be offered.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// An entry of [`IceAddressConfig::public_ip`] is not an address peers could use.
    #[error("public_ip '{text}' is not an IP address peers can reach; give one like 203.0.113.7 or 2001:db8::7")]
    PublicIp {
        /// The entry.
        text: String,
    },
    /// The system does not tell its interfaces.
    #[error("cannot list the network interfaces")]
    Interfaces(#[source] io::Error),
    /// There is no address at all.
    #[error("no usable network address was found; set public_ip")]
    None,
}

/// The host candidates to offer for `port`, best first. `ipv6` tells whether the socket serves IPv6.
///
/// # Errors
/// [`AddressError`]; a `public_ip` that cannot be used is an error, never skipped.
pub fn candidates(config: &IceAddressConfig, port: u16, ipv6: bool) -> Result<Vec<SocketAddr>, AddressError> {
    let public = parse_public(&config.public_ip)?;
    let interfaces = if_addrs::get_if_addrs().map_err(AddressError::Interfaces)?;
    let addresses: Vec<IpAddr> = interfaces.iter().map(|interface| interface.ip()).collect();
    let chosen = choose(&public, &addresses, config.include_loopback, ipv6);
    if chosen.is_empty() {
        return Err(AddressError::None);
    }
    Ok(chosen.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Checks `public_ip` entries.
///
/// # Errors
/// [`AddressError::PublicIp`] for the first that is no unicast address.
pub fn parse_public(entries: &[String]) -> Result<Vec<IpAddr>, AddressError> {
    entries
        .iter()
        .map(|text| match text.trim().parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast(ip) => Ok(ip.to_canonical()),
            _ => Err(AddressError::PublicIp { text: text.clone() }),
        })
        .collect()
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Public addresses, then the interfaces' (IPv4 before IPv6), then loopback if wanted or if nothing else is there.
fn choose(public: &[IpAddr], interfaces: &[IpAddr], include_loopback: bool, ipv6: bool) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = Vec::new();
    let mut add = |ips: &mut dyn Iterator<Item = IpAddr>| {
        for ip in ips {
            if chosen.len() < CANDIDATES_MAX && !chosen.contains(&ip) {
                chosen.push(ip);
            }
        }
        chosen.len()
    };
    add(&mut public.iter().copied());
    let mut hosts: Vec<IpAddr> = interfaces
        .iter()
        .map(IpAddr::to_canonical)
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !is_link_local(*ip) && (ipv6 || ip.is_ipv4()))
        .collect();
    hosts.sort_by_key(IpAddr::is_ipv6);
    let count = add(&mut hosts.iter().copied().filter(|ip| !ip.is_loopback()));
    if include_loopback || count == 0 {
        add(&mut hosts.iter().copied().filter(IpAddr::is_loopback));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn the_right_addresses_are_offered_in_order() {
        let lan = "127.0.0.1 192.0.2.5 ::1 2001:db8::5 fe80::1 169.254.3.4";
        let rows = [
            ("both families, IPv4 first", "", lan, false, true, "192.0.2.5 2001:db8::5"),
            ("IPv4 socket", "", lan, false, false, "192.0.2.5"),
            ("loopback asked for", "", lan, true, true, "192.0.2.5 2001:db8::5 127.0.0.1 ::1"),
            ("nothing but loopback", "", "127.0.0.1 ::1 fe80::1", false, true, "127.0.0.1 ::1"),
            ("public first", "203.0.113.7", lan, false, false, "203.0.113.7 192.0.2.5"),
            ("public is an interface's", "192.0.2.5", lan, false, false, "192.0.2.5"),
            ("public and loopback only", "203.0.113.7", "127.0.0.1", false, true, "203.0.113.7"),
            ("an IPv6 public address", "2001:db8::7", "192.0.2.5", false, true, "2001:db8::7 192.0.2.5"),
        ];
        for (name, public, interfaces, loopback, ipv6, want) in rows {
            assert_eq!(choose(&ips(public), &ips(interfaces), loopback, ipv6), ips(want), "{name}");
        }
        let many: Vec<IpAddr> = (0..40).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        assert_eq!(choose(&[], &many, false, true).len(), CANDIDATES_MAX);
    }

    #[test]
    fn no_public_ip_is_silently_ignored() {
        for bad in ["", "example.org", "203.0.113", "203.0.113.7:5000", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::"]
        {
            let error = parse_public(&["203.0.113.7".into(), bad.into()]).unwrap_err();
            assert!(error.to_string().contains(&format!("'{bad}'")), "{error}");
        }
    }

    #[test]
    fn this_machine_has_candidates() {
        let found = candidates(&IceAddressConfig { include_loopback: true, ..Default::default() }, 5000, true).unwrap();
        assert!(!found.is_empty() && found.iter().all(|candidate| candidate.port() == 5000));
    }
}
