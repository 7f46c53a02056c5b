//! The keys as they are written: one struct per section, with the defaults.
//!
//! Owns names and default values. A key of type text may be empty for "choose for me"; what is chosen then is
//! decided in `resolve`. Sections of other crates are theirs and only placed here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ams_api::ApiConfig;
use ams_registry::RegistryConfig;
use ams_relay::RelayConfig;
use ams_types::AppName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::drain::DrainConfig;
use super::limits::LimitsConfig;
use super::media::MediaConfig;
use super::webhooks::WebhookConfig;
use crate::logging::LogFormat;

/// Everything that can be written in the file. Field order is irrelevant: [`super::print`] sorts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    pub(crate) mode: Mode,
    pub(crate) node_id: String,
    pub(crate) apps: Vec<AppName>,
    pub(crate) http: SocketAddr,
    pub(crate) relay: SocketAddr,
    pub(crate) udp_ports: PortRange,
    pub(crate) advertise: String,
    pub(crate) public_ip: Vec<IpAddr>,
    pub(crate) registry: String,
    pub(crate) cluster_key_file: String,
    pub(crate) insecure_relay: bool,
    pub(crate) shards: usize,
    pub(crate) serve_viewers_on_origin: bool,
    pub(crate) first_user: FirstUser,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) api: ApiConfig,
    pub(crate) media: MediaConfig,
    pub(crate) limits: LimitsConfig,
    pub(crate) drain: DrainConfig,
    pub(crate) webhooks: WebhookConfig,
    pub(crate) relay_link: RelayConfig,
    #[serde(serialize_with = "registry_keys")]
    pub(crate) registry_client: RegistryConfig,
}

impl Default for RawConfig {
    fn default() -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            mode: Mode::default(),
            node_id: String::new(),
            apps: "WebRTCAppEE".parse().into_iter().collect(),
            http: SocketAddr::new(any, 5080),
            relay: SocketAddr::new(any, 5000),
            udp_ports: PortRange { from: 50_000, to: 60_000 },
            advertise: String::new(),
            public_ip: Vec::new(),
            registry: String::new(),
            cluster_key_file: String::new(),
            insecure_relay: false,
            shards: 0,
            serve_viewers_on_origin: true,
            first_user: FirstUser::default(),
            log: "info".into(),
            log_format: LogFormat::default(),
            api: ApiConfig::default(),
            media: MediaConfig::default(),
            limits: LimitsConfig::default(),
            drain: DrainConfig::default(),
            webhooks: WebhookConfig::default(),
            relay_link: RelayConfig::default(),
            registry_client: RegistryConfig::default(),
        }
    }
}

/// Writes down the section of a crate that only reads it. A field added there stops the build here.
fn registry_keys<S: Serializer>(config: &RegistryConfig, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Keys<'a> {
        #[serde(with = "humantime_serde")]
        operation_timeout: Duration,
        calls_in_flight_max: usize,
        heartbeats_in_flight_max: usize,
        calls_waiting_max: usize,
        database_prefix: &'a str,
    }
    let RegistryConfig {
        operation_timeout,
        calls_in_flight_max,
        heartbeats_in_flight_max,
        calls_waiting_max,
        ref database_prefix,
    } = *config;
    let keys =
        Keys { operation_timeout, calls_in_flight_max, heartbeats_in_flight_max, calls_waiting_max, database_prefix };
    keys.serialize(serializer)
}

/// What a top-level key takes, for error messages: key, sentence, example. Sections show their default instead.
pub(super) const ALLOWED: &[(&str, &str, &str)] = &[
    ("mode", "one of standalone, origin, edge", "\"origin\""),
    ("node_id", "letters, digits, '_', '.', ':' and '-', at most 128", "\"edge-7\""),
    ("apps", "application names: 1 to 32 letters, digits, '_' and '-' each", "[\"WebRTCAppEE\"]"),
    ("http", "an IP address and a port", "\"0.0.0.0:5080\""),
    ("relay", "an IP address and a port", "\"0.0.0.0:5000\""),
    ("udp_ports", "two ports, the lower one first", "\"50000-60000\""),
    ("advertise", "an IP address or a host name, without a port", "\"10.0.0.5\""),
    ("public_ip", "IP addresses", "[\"203.0.113.7\"]"),
    (
        "registry",
        "mongodb://…, mongodb+srv://…, a host or IP address of a MongoDB, sqlite:PATH, memory",
        "\"mongodb://10.0.0.9:27017\"",
    ),
    ("cluster_key_file", "the path of a file with at least 16 characters", "\"/etc/ams-node/cluster.key\""),
    ("insecure_relay", "true or false", "true"),
    ("shards", "a whole number from 0 (one less than the cores) to 1024", "4"),
    ("serve_viewers_on_origin", "true or false", "false"),
    ("first_user", "one of auto, random, none", "\"none\""),
    ("log", "off, error, warn, info, debug, trace, or TARGET=LEVEL separated by commas", "\"info,ams_rtc=debug\""),
    ("log_format", "one of auto, text, json", "\"json\""),
];

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Everything in one process: takes publishers, serves viewers, needs no database.
    #[default]
    Standalone,
    /// Takes publishers; edges pull from it.
    Origin,
    /// Pulls streams from origins and serves viewers.
    Edge,
}

impl Mode {
    /// The word used in the file and on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Origin => "origin",
            Self::Edge => "edge",
        }
    }

    /// Whether publishers may come to this node.
    pub(crate) fn takes_publishers(self) -> bool {
        self != Self::Edge
    }

    /// Whether viewers may come to this node; `on_origin` is the key `serve_viewers_on_origin`.
    pub(crate) fn takes_viewers(self, on_origin: bool) -> bool {
        self != Self::Origin || on_origin
    }

    /// Whether this node pulls streams from origins.
    pub(crate) fn pulls(self) -> bool {
        self == Self::Edge
    }

    /// Whether this node works together with others, over relay links and a shared registry.
    pub(crate) fn is_clustered(self) -> bool {
        self != Self::Standalone
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who makes the panel's first user, and with which password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FirstUser {
    /// The node: with its EC2 instance id, as AMS does, or a random one where there is none.
    #[default]
    Auto,
    /// The node, with a random one; no metadata service is asked.
    Random,
    /// Whoever opens the panel first.
    None,
}

/// Ports `from` to `to`, both included. `from <= to` and `from > 0` hold for every value that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    /// The first port.
    pub(crate) from: u16,
    /// The last port.
    pub(crate) to: u16,
}

impl PortRange {
    /// How many ports there are, at least 1.
    pub(crate) fn count(self) -> usize {
        usize::from(self.to - self.from) + 1
    }

    /// The ports in ascending order.
    pub(crate) fn range(self) -> RangeInclusive<u16> {
        self.from..=self.to
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// Reads `FROM-TO` or a single port.
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(0) | Err(_) => Err(format!("{:?} is no port from 1 to 65535", text.trim())),
            Ok(port) => Ok(port),
        };
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = (port(from)?, port(to)?);
        if from > to {
            return Err(format!("the range runs backwards; write {to}-{from}"));
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        for (name, text, want) in [
            ("a range", "50000-60000", Ok((50_000, 60_000))),
            ("with spaces", " 1 - 65535 ", Ok((1, 65_535))),
            ("one port", "5000", Ok((5_000, 5_000))),
            ("backwards", "60000-50000", Err("runs backwards; write 50000-60000")),
            ("port 0", "0-10", Err("\"0\" is no port")),
            ("too high", "1-65536", Err("\"65536\" is no port")),
            ("a word", "many", Err("\"many\" is no port")),
            ("empty", "", Err("\"\" is no port")),
        ] {
            match (text.parse::<PortRange>(), want) {
                (Ok(range), Ok(want)) => assert_eq!((range.from, range.to), want, "{name}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{name}: {error}"),
                (got, want) => panic!("{name}: {got:?} instead of {want:?}"),
            }
        }
        let all: PortRange = "1-65535".parse().unwrap();
        assert_eq!((all.count(), all.range().count()), (65_535, 65_535));
    }

    #[test]
    fn every_top_level_key_says_what_it_takes() {
        let defaults = toml::Table::try_from(RawConfig::default()).unwrap();
        for (key, _) in defaults.iter().filter(|(_, value)| !value.is_table()) {
            assert!(ALLOWED.iter().any(|(named, ..)| named == key), "{key} has no entry in ALLOWED");
        }
        for (key, _, example) in ALLOWED {
            let text = format!("{key} = {example}");
            toml::from_str::<RawConfig>(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }
}
