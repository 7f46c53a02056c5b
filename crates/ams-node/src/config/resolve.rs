//! From the keys as written to a [`Config`] without gaps: empty keys are chosen for, combinations are checked.
//!
//! Owns every rule that concerns more than one key. Reads the cluster key's file and the machine's addresses; binds
//! nothing. Reports all that is wrong, not the first thing only.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ams_registry::{RegistryError, RegistryUri};
use ams_relay::ClusterKey;
use ams_types::NodeId;

use super::cluster_key;
use super::error::{ConfigError, ConfigErrors};
use super::layers::{Layers, Source};
use super::raw::{Mode, RawConfig};
use super::{Config, Purpose};

/// Most media threads; more than any machine this is meant for has cores.
const SHARDS_MAX: usize = 1024;
/// Most characters of the address in a node id that is made here: the id with its port stays within its limit.
const NODE_ID_HOST_LEN_MAX: usize = 100;
/// The registry of a single node that names none, in its working directory.
const REGISTRY_DEFAULT: &str = "ams-node.db";

/// Checks and completes. The second value are warnings: things that work and may hurt.
pub(super) fn resolve(
    raw: RawConfig,
    layers: &Layers,
    purpose: Purpose,
) -> Result<(Config, Vec<String>), ConfigErrors> {
    let mut resolver = Resolver { raw: &raw, layers, purpose, errors: Vec::new(), warnings: Vec::new() };
    let registry = resolver.registry();
    let cluster_key = resolver.cluster_key();
    let shards = resolver.shards();
    let advertise = resolver.advertise();
    let node_id = resolver.node_id(&advertise);
    resolver.apps();
    resolver.listeners();
    resolver.public_ips();
    resolver.log();
    resolver.sections();
    let Resolver { errors, warnings, .. } = resolver;
    let (Some(registry), Some(node_id), true) = (registry, node_id, errors.is_empty()) else {
        return Err(ConfigErrors(errors));
    };
    let config = Config {
        mode: raw.mode,
        node_id,
        apps: raw.apps,
        http: raw.http,
        relay: raw.relay,
        udp_ports: raw.udp_ports,
        advertise,
        public_ips: raw.public_ip,
        registry,
        cluster_key,
        shards,
        log: raw.log,
        log_format: raw.log_format,
        serve_viewers_on_origin: raw.serve_viewers_on_origin,
        first_user: raw.first_user,
        media: raw.media,
        limits: raw.limits,
        drain: raw.drain,
        webhooks: raw.webhooks,
        api: raw.api,
        relay_link: raw.relay_link,
        registry_client: raw.registry_client,
    };
    Ok((config, warnings))
}

struct Resolver<'a> {
    raw: &'a RawConfig,
    layers: &'a Layers,
    purpose: Purpose,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Resolver<'_> {
    fn wrong(&mut self, key: &str, problem: impl Into<String>, fix: impl Into<String>) {
        let source = self.layers.source(key).to_string();
        self.errors.push(ConfigError { key: key.into(), source, problem: problem.into(), fix: fix.into() });
    }

    /// [`Self::wrong`] for a value that then does not exist.
    fn refused<T>(&mut self, key: &str, problem: impl Into<String>, fix: impl Into<String>) -> Option<T> {
        self.wrong(key, problem, fix);
        None
    }

    fn registry(&mut self) -> Option<RegistryUri> {
        let mode = self.raw.mode;
        let shared = "name the MongoDB that all nodes share, for example --registry mongodb://10.0.0.9:27017";
        if self.raw.registry.trim().is_empty() {
            if mode.is_clustered() {
                return self.refused("registry", format!("mode {mode} needs a registry and none is named"), shared);
            }
            return Some(RegistryUri::sqlite(REGISTRY_DEFAULT));
        }
        let uri = match self.raw.registry.parse::<RegistryUri>() {
            Ok(uri) => uri,
            Err(error) => return self.refused("registry", error.to_string(), ""),
        };
        match (mode, uri.is_shared(), self.purpose) {
            (_, true, _) | (Mode::Standalone, ..) | (_, _, Purpose::Demo) => {}
            (Mode::Edge, false, _) => {
                self.wrong(
                    "registry",
                    format!("an edge finds streams in its cluster's registry, and {uri} is this node's own"),
                    shared,
                );
            }
            (Mode::Origin, false, _) => {
                self.warnings.push(format!("edges cannot find this origin's streams: its registry {uri} is its own"));
            }
        }
        Some(uri)
    }

    fn cluster_key(&mut self) -> Option<ClusterKey> {
        let file = self.raw.cluster_key_file.trim();
        if !file.is_empty() {
            return match cluster_key::load(Path::new(file)) {
                Ok((key, warning)) => {
                    self.warnings.extend(warning);
                    Some(key)
                }
                Err((what, fix)) => self.refused("cluster_key_file", what, fix),
            };
        }
        let mode = self.raw.mode;
        if mode.is_clustered() && !self.raw.relay.ip().is_loopback() {
            if self.raw.insecure_relay {
                self.warnings.push(
                    "relay links are open: without a cluster key anyone who reaches an origin's relay port can pull \
                     every stream, or pose as an origin; set cluster_key_file on all nodes"
                        .into(),
                );
            } else {
                if self.purpose == Purpose::Demo {
                    let what = format!("the demo has no cluster key, so its relay cannot listen on {}", self.raw.relay);
                    return self.refused("relay", what, "keep it on a loopback address, for example 127.0.0.1:5000");
                }
                self.wrong(
                    "cluster_key_file",
                    format!(
                        "mode {mode} needs the cluster's key: relay links leave this machine (`relay` is {})",
                        self.raw.relay
                    ),
                    "make one with `openssl rand -hex 32 > cluster.key`, copy it to every node and pass \
                     --cluster-key-file cluster.key; or keep --relay on a loopback address; or accept open relay \
                     links with --insecure-relay",
                );
            }
        }
        None
    }

    fn shards(&mut self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = match self.raw.shards {
            0 => cores.saturating_sub(1).clamp(1, SHARDS_MAX),
            shards => shards,
        };
        let ports = self.raw.udp_ports;
        if shards > SHARDS_MAX {
            self.wrong(
                "shards",
                format!("{shards} is too many"),
                format!("at most {SHARDS_MAX}; 0 chooses for this machine"),
            );
        } else if ports.count() < shards {
            let given = if self.raw.shards == 0 { " (one less than the cores)" } else { "" };
            self.wrong(
                "udp_ports",
                format!("{ports} has {} ports, and each of the {shards} shards{given} needs one", ports.count()),
                "widen the range or lower shards",
            );
        }
        shards
    }

    fn advertise(&mut self) -> String {
        let host = self.raw.advertise.trim().to_owned();
        if host.is_empty() {
            return own_address(self.raw.relay).to_string();
        }
        let fix = "allowed: an IP address or a host name that the other nodes can reach, for example 10.0.0.5";
        match host.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => {
                self.wrong("advertise", format!("{ip} is not an address others can dial"), fix)
            }
            Ok(_) => {}
            Err(_) if host.parse::<SocketAddr>().is_ok() || host.contains(':') => {
                let fix = "leave the port out: other nodes dial the port of `relay`";
                self.wrong("advertise", format!("{host:?} has a port"), fix);
            }
            Err(_) if !is_host_name(&host) => self.wrong("advertise", format!("{host:?} is no host name"), fix),
            Err(_) => {}
        }
        host
    }

    fn node_id(&mut self, advertise: &str) -> Option<NodeId> {
        let id = match self.raw.node_id.trim() {
            // From the address, never from the machine's image: clones must not share a row, and a node that starts
            // again at its address takes up at once what its former run held.
            "" => {
                let allowed = |c: &char| c.is_ascii_alphanumeric() || "_.:-".contains(*c);
                let host: String = advertise.chars().filter(allowed).take(NODE_ID_HOST_LEN_MAX).collect();
                match self.raw.http.port() {
                    // Any free port: two nodes on one machine would have one name.
                    0 => format!("{host}:0-{:08x}", rand::random::<u32>()),
                    port => format!("{host}:{port}"),
                }
            }
            id => id.to_owned(),
        };
        id.parse()
            .map_err(|error: ams_types::InvalidId| self.wrong("node_id", error.to_string(), "choose another"))
            .ok()
    }

    fn apps(&mut self) {
        let apps = &self.raw.apps;
        let twice = apps.iter().enumerate().find(|(at, app)| apps.iter().take(*at).any(|before| before == *app));
        let reserved = apps.iter().find(|app| ams_api::RESERVED_APP_NAMES.contains(&app.as_str()));
        if let Some(app) = reserved {
            self.wrong(
                "apps",
                format!("names {app}, which the server's own addresses start with"),
                "choose another name",
            );
        } else if apps.is_empty() {
            self.wrong("apps", "names no application", "for example [\"WebRTCAppEE\"]");
        } else if let Some((_, app)) = twice {
            self.wrong("apps", format!("names {app} twice"), "name each once");
        }
    }

    fn listeners(&mut self) {
        let RawConfig { http, relay, mode, .. } = self.raw;
        let one_address = http.ip() == relay.ip() || http.ip().is_unspecified() || relay.ip().is_unspecified();
        if *mode == Mode::Origin && http.port() != 0 && http.port() == relay.port() && one_address {
            // Blame the key somebody wrote.
            let key = if self.layers.source("relay") == Source::Default { "http" } else { "relay" };
            self.wrong(key, format!("port {} is used for both http and relay", http.port()), "choose two ports");
        }
    }

    fn public_ips(&mut self) {
        let unusable = self.raw.public_ip.iter().find(|ip| ip.is_unspecified() || ip.is_multicast());
        if let Some(ip) = unusable {
            let fix = "give the address browsers reach this node by, for example 203.0.113.7";
            self.wrong("public_ip", format!("{ip} is not an address a browser can send to"), fix);
        }
    }

    /// Each section's own rules about its keys.
    fn sections(&mut self) {
        if let Err(error) = self.raw.api.validate() {
            self.wrong(&format!("api.{}", error.key), error.problem, "");
        }
        if let Err((key, problem)) = self.raw.media.validate() {
            self.wrong(&format!("media.{key}"), problem, "");
        }
        if let Err((key, problem)) = self.raw.drain.validate() {
            self.wrong(&format!("drain.{key}"), problem, "");
        }
        if let Err((key, problem)) = self.raw.webhooks.validate() {
            self.wrong(&format!("webhooks.{key}"), problem, "");
        }
        if let Err(error) = self.raw.relay_link.validate() {
            self.wrong(&format!("relay_link.{}", error.key), error.problem, "");
        }
        if let Err(RegistryError::Config { key, reason }) = self.raw.registry_client.validate() {
            self.wrong(&format!("registry_client.{key}"), reason, "");
        }
    }

    fn log(&mut self) {
        if let Err(what) = crate::logging::parse(&self.raw.log) {
            self.wrong("log", what, "for example info, or info,ams_rtc=debug");
        }
    }
}

fn is_host_name(text: &str) -> bool {
    text.len() <= 253 && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

/// The address other nodes dial: the relay's own if it has one, else this machine's first private address, else any
/// other of its addresses, else loopback.
fn own_address(relay: SocketAddr) -> IpAddr {
    if !relay.ip().is_unspecified() {
        return relay.ip();
    }
    let mut found: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| interface.ip())
        .collect();
    // Stable: interfaces keep the system's order within a rank.
    found.sort_by_key(|ip| match ip {
        IpAddr::V4(v4) if v4.is_private() => 0,
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 2,
    });
    found.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}
