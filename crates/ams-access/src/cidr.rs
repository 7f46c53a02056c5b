//! Lists of addresses and networks, as AMS's settings write them: `10.0.0.0/8, 127.0.0.1, 2001:db8::/32`.
//!
//! Owns parsing and membership for `remoteAllowedCIDR`, `allowed_dashboard_CIDR` and `allowedPublisherCIDR`; what an
//! empty list means is each setting's own affair.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

/// Most entries of one list.
pub const ENTRIES_MAX: usize = 1024;
/// Longest entry an error repeats whole, in characters.
const ENTRY_SHOWN_MAX: usize = 64;

/// Why a list was refused: the whole list, since half a rule is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// An entry is neither an address nor a network.
    #[error("{entry:?} is neither an IP address nor a network in CIDR notation")]
    Entry {
        /// The entry, cut if it is long.
        entry: String,
    },
    /// More entries than [`ENTRIES_MAX`].
    #[error("the list has more than {ENTRIES_MAX} entries")]
    TooMany,
}

/// Addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrList(Vec<IpNet>);

impl CidrList {
    /// Parses a list with commas between; blanks and empty entries are skipped. IPv4 addresses written as IPv6
    /// (`::ffff:10.0.0.1`) are IPv4 here, in lists as in requests.
    ///
    /// # Errors
    /// [`CidrError`] names the first entry that is wrong.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let mut networks = Vec::new();
        for entry in text.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty()) {
            if networks.len() == ENTRIES_MAX {
                return Err(CidrError::TooMany);
            }
            networks.push(
                network(entry)
                    .ok_or_else(|| CidrError::Entry { entry: entry.chars().take(ENTRY_SHOWN_MAX).collect() })?,
            );
        }
        Ok(Self(networks))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is in the list. `0.0.0.0/0`, AMS's way to say everybody, includes IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address) || is_everybody(network))
    }

    /// Whether the address in `text` is in the list, see [`client_address`]; what is no address is not.
    pub fn contains_text(&self, text: &str) -> bool {
        client_address(text).is_some_and(|address| self.contains(address))
    }
}

impl fmt::Display for CidrList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// The address in a text as proxies write it: `1.2.3.4`, `1.2.3.4:5678` (Azure's gateway), `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:5678`, with or without a zone (`fe80::1%eth0`).
pub fn client_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let inner = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => text,
    };
    let address: Ipv6Addr = inner.split('%').next()?.parse().ok()?;
    Some(IpAddr::V6(address).to_canonical())
}

fn is_everybody(network: &IpNet) -> bool {
    matches!(network, IpNet::V4(network) if network.prefix_len() == 0)
}

fn network(entry: &str) -> Option<IpNet> {
    let network: IpNet = match entry.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().into(),
        Err(_) => entry.parse().ok()?,
    };
    let network = network.trunc();
    // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
    if let IpNet::V6(mapped) = network
        && mapped.prefix_len() >= 96
        && let Some(address) = mapped.network().to_ipv4_mapped()
    {
        return Ipv4Net::new(address, mapped.prefix_len() - 96).ok().map(IpNet::V4);
    }
    Some(network)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_found_in_lists() {
        for (name, list, address, inside) in [
            ("AMS's default", "127.0.0.1", "127.0.0.1", true),
            ("not the neighbour", "127.0.0.1", "127.0.0.2", false),
            ("a network", "10.0.0.0/8", "10.255.0.1", true),
            ("host bits are ignored", "10.1.2.3/8", "10.255.0.1", true),
            ("the second entry", "1.1.1.1, 10.0.0.0/8", "10.0.0.1", true),
            ("blanks and empty entries", " , 10.0.0.0/8 ,, ", "10.0.0.1", true),
            ("semicolons", "1.1.1.1;2.2.2.2", "2.2.2.2", true),
            ("empty list", "", "10.0.0.1", false),
            ("IPv6", "2001:db8::/32", "2001:db8::1", true),
            ("IPv6 outside", "2001:db8::/32", "2001:db9::1", false),
            ("mapped client", "10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("mapped list", "::ffff:10.0.0.1", "10.0.0.1", true),
            ("mapped network", "::ffff:10.0.0.0/104", "10.9.0.1", true),
            ("mapped network, outside", "::ffff:10.0.0.0/104", "11.0.0.1", false),
            ("everybody", "0.0.0.0/0", "8.8.8.8", true),
            ("everybody with IPv6", "0.0.0.0/0", "2001:db8::1", true),
            ("all of IPv6 is not IPv4", "::/0", "8.8.8.8", false),
            ("port", "10.0.0.0/8", "10.0.0.1:50123", true),
            ("IPv6 with port", "2001:db8::/32", "[2001:db8::1]:50123", true),
            ("brackets", "2001:db8::/32", "[2001:db8::1]", true),
            ("zone", "fe80::/10", "fe80::1%eth0", true),
            ("zone and port", "fe80::/10", "[fe80::1%eth0]:99", true),
            ("blanks around the client", "10.0.0.0/8", " 10.0.0.1 ", true),
            ("no address", "0.0.0.0/0", "unknown", false),
            ("nothing", "0.0.0.0/0", "", false),
            ("octal is no address", "0.0.0.0/0", "010.0.0.1", false),
        ] {
            assert_eq!(CidrList::parse(list).unwrap().contains_text(address), inside, "{name}");
        }
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for entry in ["10.0.0.0/33", "10.0.0", "localhost", "10.0.0.1-10.0.0.9", "::/129", "*", "10.0.0.0/", "[::1]"] {
            let error = CidrList::parse(&format!("10.0.0.0/8,{entry}")).unwrap_err();
            assert_eq!(error, CidrError::Entry { entry: entry.into() });
        }
        let error = CidrList::parse(&"é".repeat(100_000)).unwrap_err().to_string();
        assert!(error.len() < 250, "cut");
        assert_eq!(CidrList::parse(&"1.1.1.1,".repeat(ENTRIES_MAX + 1)), Err(CidrError::TooMany));
        assert!(CidrList::parse(&"1.1.1.1,".repeat(ENTRIES_MAX)).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(list in ".{0,64}", address in ".{0,64}") {
            if let Ok(list) = CidrList::parse(&list) {
                list.contains_text(&address);
                prop_assert_eq!(CidrList::parse(&list.to_string()).unwrap(), list);
            }
        }

        #[test]
        fn every_network_holds_its_own_address(address: [u8; 4], len in 0u8..=32) {
            let address = IpAddr::from(address);
            let list = CidrList::parse(&format!("{address}/{len}")).unwrap();
            prop_assert!(list.contains(address));
        }
    }
}
