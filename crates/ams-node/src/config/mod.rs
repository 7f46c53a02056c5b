//! Configuration: defaults < TOML file < environment < flags, checked once, before anything is bound.
//!
//! Owns the assembly and the checks. Each crate owns its own section's keys and defaults. What comes out is a
//! [`Config`] with plain values; nothing below `main` reads files, flags or the environment again.
//!
//! - `raw`: the keys and their defaults
//! - `layers`: merging with sources, unknown keys, wrong types
//! - `resolve`: empty keys chosen for, impossible combinations refused
//! - `print`: `--print-config`

mod cluster_key;
mod drain;
mod error;
mod layers;
mod limits;
mod media;
mod playout;
mod print;
mod raw;
mod resolve;
mod secret;
#[cfg(test)]
mod tests;
mod webhooks;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ams_api::ApiConfig;
use ams_registry::{RegistryConfig, RegistryUri};
use ams_relay::{ClusterKey, RelayConfig};
use ams_types::{AppName, NodeId};

pub(crate) use drain::DrainConfig;
pub(crate) use error::{ConfigError, ConfigErrors};
pub(crate) use limits::LimitsConfig;
pub(crate) use media::MediaConfig;
pub(crate) use raw::{FirstUser, Mode, PortRange};
pub(crate) use webhooks::WebhookConfig;

use crate::cli::DemoArgs;
use crate::logging::LogFormat;
use layers::Layers;
use raw::RawConfig;

/// One node's configuration: complete, checked, never changed. Reloading makes a new one.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What this node does.
    pub(crate) mode: Mode,
    /// Its name in the cluster. New for every process unless configured.
    pub(crate) node_id: NodeId,
    /// The applications served; at least one, each once.
    pub(crate) apps: Vec<AppName>,
    /// Where HTTP listens. Port 0: any free one.
    pub(crate) http: SocketAddr,
    /// Where an origin listens for relay links. Port 0: any free one. Other modes do not listen.
    pub(crate) relay: SocketAddr,
    /// One UDP port of these per shard carries WebRTC media. At least as many as shards.
    pub(crate) udp_ports: PortRange,
    /// Host name or IP address, without port, by which other nodes reach this one.
    pub(crate) advertise: String,
    /// Addresses that ICE offers besides the interfaces' own. May be empty.
    pub(crate) public_ips: Vec<IpAddr>,
    /// Which registry.
    pub(crate) registry: RegistryUri,
    /// The cluster's secret. `None`: relay links are not authenticated (loopback, or accepted by the operator).
    pub(crate) cluster_key: Option<ClusterKey>,
    /// Media threads, at least 1.
    pub(crate) shards: usize,
    /// Log directives as [`crate::logging::parse`] reads them.
    pub(crate) log: String,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// Whether an origin serves viewers too.
    pub(crate) serve_viewers_on_origin: bool,
    /// Who makes the panel's first user.
    pub(crate) first_user: FirstUser,
    /// Deadlines of peers and streams.
    pub(crate) media: MediaConfig,
    /// ICE servers for clients, cross-origin rules and limits of the HTTP side.
    pub(crate) api: ApiConfig,
    /// How many sessions there may be.
    pub(crate) limits: LimitsConfig,
    /// How the node leaves.
    pub(crate) drain: DrainConfig,
    /// How webhooks are sent.
    pub(crate) webhooks: WebhookConfig,
    /// Limits and times of relay links.
    pub(crate) relay_link: RelayConfig,
    /// Deadlines and limits of calls to the registry.
    pub(crate) registry_client: RegistryConfig,
}

/// What a configuration is for: the demo may do what a cluster may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Node,
    Demo,
}

/// Everything a configuration is made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    /// The TOML file, if one is named.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Flags that set keys: flag with its dashes, key, text.
    pub(crate) flags: Vec<(String, String, String)>,
}

/// A configuration and what there is to say about it.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// Things that work and may hurt, a sentence each, for the log.
    pub(crate) warnings: Vec<String>,
}

/// Reads and checks.
///
/// # Errors
/// All that is wrong, each with its key, its place and what to write instead.
pub(crate) fn load(inputs: &Inputs) -> Result<Loaded, ConfigErrors> {
    read(inputs, Purpose::Node).1
}

/// The text of `--print-config`, and what is wrong with the configuration if something is.
pub(crate) fn print(inputs: &Inputs) -> (String, Result<Loaded, ConfigErrors>) {
    let (layers, loaded) = read(inputs, Purpose::Node);
    (print::text(&layers, loaded.as_ref().ok()), loaded)
}

/// The two nodes of the demo, origin and edge. Both have [`RegistryUri::memory`] and are to share one registry.
///
/// # Errors
/// As [`load`].
pub(crate) fn demo(args: &DemoArgs) -> Result<(Config, Config), ConfigErrors> {
    let node = |mode: Mode, http: &str, relay: &str| {
        let mut flags = args.flags();
        for (flag, key, text) in [
            ("demo", "mode", mode.as_str()),
            (if mode == Mode::Origin { "--origin-http" } else { "--edge-http" }, "http", http),
            ("--relay", "relay", relay),
            ("demo", "registry", "memory"),
            ("demo", "advertise", "127.0.0.1"),
        ] {
            flags.push((flag.into(), key.into(), text.into()));
        }
        // Nobody dials an edge, so its relay address is only a place to say "loopback".
        let loaded = read(&Inputs { flags, ..Inputs::default() }, Purpose::Demo).1?;
        // There is nowhere else to go.
        Ok::<_, ConfigErrors>(Config { drain: DrainConfig::AT_ONCE, ..loaded.config })
    };
    let origin = node(Mode::Origin, &args.origin_http, &args.relay)?;
    let edge = node(Mode::Edge, &args.edge_http, "127.0.0.1:0")?;
    if origin.http == edge.http && origin.http.port() != 0 {
        return Err(ConfigErrors(vec![ConfigError {
            key: "http".into(),
            source: "flags --origin-http and --edge-http".into(),
            problem: format!("both nodes would listen on {}", origin.http),
            fix: "choose two ports".into(),
        }]));
    }
    Ok((origin, edge))
}

fn read(inputs: &Inputs, purpose: Purpose) -> (Layers, Result<Loaded, ConfigErrors>) {
    let mut layers = Layers::new(&RawConfig::default());
    if let Some(path) = &inputs.file {
        match read_file(path) {
            Ok(text) => layers.add_file(path, &text),
            Err(error) => return (layers, Err(ConfigErrors(vec![error]))),
        }
    }
    layers.add_env(inputs.env.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    layers.add_flags(inputs.flags.iter().map(|(flag, key, text)| (flag.as_str(), key.as_str(), text.as_str())));
    let (layers, raw) = layers.read::<RawConfig>();
    let loaded = match raw {
        Ok(raw) => resolve::resolve(raw, &layers, purpose).map(|(config, warnings)| Loaded { config, warnings }),
        Err(errors) => Err(ConfigErrors(errors)),
    };
    (layers, loaded)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        key: String::new(),
        source: format!("configuration file {}", path.display()),
        problem: format!("cannot be read: {error}"),
        fix: "check --config and AMS_CONFIG".into(),
    })
}
