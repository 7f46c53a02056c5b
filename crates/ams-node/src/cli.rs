//! The command line: flags, sub-commands, and the help that explains them.
//!
//! Owns names and texts. Flags that set a configuration key stay text here and are read by `config`, so that one
//! sentence per mistake serves file, environment and flags alike.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Inputs, Mode};
use crate::exit;

const EXAMPLES: &str = "\
Examples:
  ams-node demo
      one origin and one edge in this process, to try it out
  ams-node
      everything in one node, without a database
  ams-node --mode origin --registry mongodb://10.0.0.9 --cluster-key-file cluster.key
  ams-node --mode edge --registry mongodb://10.0.0.9 --cluster-key-file cluster.key
      a cluster of two machines: publish to the first, watch from the second
  ams-node --public-ip 203.0.113.7
      behind a NAT that forwards the UDP ports
  ams-node --config /etc/ams-node.toml --check
      look before starting

Every key of the file can also be set in the environment (AMS_HTTP, AMS_MEDIA__CONNECT_TIMEOUT: two
underscores after a section) and with --set. Flags win over the environment, which wins over the file.
SIGHUP reads the key `log` again; SIGINT and SIGTERM end the node after its clients have had time to go
elsewhere (section [drain]), a second one ends it at once.";

/// What stands below the flags.
fn below() -> String {
    let codes: String = exit::MEANINGS.iter().map(|(code, meaning)| format!("\n  {code:>3}  {meaning}")).collect();
    format!("{EXAMPLES}\n\nExit codes:{codes}")
}

/// WebRTC live streaming: an origin takes publishers, edges serve viewers.
#[derive(Debug, Parser)]
#[command(name = "ams-node", version = crate::version::LONG, about, after_help = below())]
#[command(args_conflicts_with_subcommands = true, subcommand_help_heading = "Other commands")]
#[command(disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to run instead of a node.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Flags of a node.
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// Sub-commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one origin and one edge in this process, with a registry in memory, to try it out
    Demo(DemoArgs),
    /// Measure how many viewers a core of this machine carries, and how quickly they see a picture
    Bench(crate::bench::BenchArgs),
    /// Ask a running node whether it is healthy; for container health checks
    Health(HealthArgs),
    /// Have a running node of this machine send its clients elsewhere and end, or stay after all
    Drain(DrainArgs),
}

/// Flags of a node. Each sets the key of the same name.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NodeArgs {
    /// standalone: takes publishers and serves viewers, no database
    /// origin: takes publishers, edges pull from it
    /// edge: pulls streams from origins and serves viewers
    /// [default: standalone]
    #[arg(long, value_enum, hide_possible_values = true, verbatim_doc_comment, help_heading = "Node")]
    pub(crate) mode: Option<Mode>,
    /// TOML file with any of the keys; config/ams-node.toml lists them all
    /// [env: AMS_CONFIG]
    #[arg(long, value_name = "FILE", verbatim_doc_comment, help_heading = "Node")]
    pub(crate) config: Option<PathBuf>,
    /// Application to serve, repeatable [default: WebRTCAppEE]
    #[arg(long = "app", value_name = "NAME", help_heading = "Node")]
    pub(crate) apps: Vec<String>,
    /// Media threads, each with a UDP port of its own [default: one less than the cores]
    #[arg(long, value_name = "N", help_heading = "Node")]
    pub(crate) shards: Option<String>,
    /// Set any other key, repeatable, for example --set media.connect_timeout=5s
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Node")]
    pub(crate) set: Vec<(String, String)>,

    /// Where HTTP and WebSocket listen [default: 0.0.0.0:5080]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Network")]
    pub(crate) http: Option<String>,
    /// Where an origin listens for edges [default: 0.0.0.0:5000]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Network")]
    pub(crate) relay: Option<String>,
    /// Ports for WebRTC media [default: 50000-60000]
    #[arg(long, value_name = "FROM-TO", help_heading = "Network")]
    pub(crate) udp_ports: Option<String>,
    /// What ICE offers to browsers besides this machine's own addresses, repeatable
    #[arg(long, value_name = "ADDR", help_heading = "Network")]
    pub(crate) public_ip: Vec<String>,

    /// What other nodes dial, without a port
    /// [default: the relay's address, or this machine's first private one]
    #[arg(long, value_name = "ADDR", verbatim_doc_comment, help_heading = "Cluster")]
    pub(crate) advertise: Option<String>,
    /// Who is where. Origins and edges share a MongoDB: mongodb://HOST,
    /// mongodb+srv://HOST, or just HOST. A node alone: sqlite:PATH or memory
    /// [default: sqlite:ams-node.db]
    #[arg(long, value_name = "URI", verbatim_doc_comment, help_heading = "Cluster")]
    pub(crate) registry: Option<String>,
    /// File with the secret shared by all nodes; make one with
    /// openssl rand -hex 32
    #[arg(long, value_name = "FILE", verbatim_doc_comment, help_heading = "Cluster")]
    pub(crate) cluster_key_file: Option<String>,
    /// Accept relay links from anyone: no cluster key
    #[arg(long, help_heading = "Cluster")]
    pub(crate) insecure_relay: bool,
    /// Name in the cluster [default: made anew at each start]
    #[arg(long, value_name = "ID", help_heading = "Cluster")]
    pub(crate) node_id: Option<String>,

    /// off, error, warn, info, debug, trace, or TARGET=LEVEL, with commas
    /// [default: info]
    #[arg(long, value_name = "LEVEL", verbatim_doc_comment, help_heading = "Logs and checks")]
    pub(crate) log: Option<String>,
    /// Print every key with its value and where it comes from, secrets masked, and end
    #[arg(long, conflicts_with = "check", help_heading = "Logs and checks")]
    pub(crate) print_config: bool,
    /// Check configuration, ports, files and registry, and end
    #[arg(long, help_heading = "Logs and checks")]
    pub(crate) check: bool,
}

/// Flags of `ams-node drain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The node says that it is not ready, tells its clients to go elsewhere, and ends when they are gone or
after drain.timeout. Until then --cancel keeps it.

Examples:
  ams-node drain
  ams-node drain --cancel
  ams-node drain --pid 1")]
pub(crate) struct DrainArgs {
    /// Stay after all: clients that were not told yet are not told any more
    #[arg(long)]
    pub(crate) cancel: bool,
    /// Process id of the node [default: the only one of this machine]
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
}

/// Flags of the demo.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The demo prints where to publish and where to watch. It keeps nothing and needs no database, key or file.

Examples:
  ams-node demo
  ams-node demo --origin-http 127.0.0.1:8080 --edge-http 127.0.0.1:8081
  ams-node demo --public-ip 192.168.1.20")]
pub(crate) struct DemoArgs {
    /// Where the origin's HTTP listens; publish here
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:5080")]
    pub(crate) origin_http: String,
    /// Where the edge's HTTP listens; watch here
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:5081")]
    pub(crate) edge_http: String,
    /// Where the origin listens for the edge; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) relay: String,
    /// Ports for WebRTC media
    #[arg(long, value_name = "FROM-TO", default_value = "50000-60000")]
    pub(crate) udp_ports: String,
    /// What ICE offers to browsers besides this machine's own addresses, repeatable
    #[arg(long, value_name = "ADDR")]
    pub(crate) public_ip: Vec<String>,
    /// Application to serve, repeatable [default: WebRTCAppEE]
    #[arg(long = "app", value_name = "NAME")]
    pub(crate) apps: Vec<String>,
    /// Media threads of each node
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) shards: String,
    /// off, error, warn, info, debug, trace, or TARGET=LEVEL separated by commas
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: String,
}

/// Flags of the health question.
#[derive(Clone, Debug, Args)]
pub(crate) struct HealthArgs {
    /// What to ask [default: /healthz on this machine, on the port of AMS_HTTP or 5080]
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
}

impl NodeArgs {
    /// The configuration's inputs: these flags, and the process's environment.
    ///
    /// # Errors
    /// The name of a variable of ours whose value is not text.
    pub(crate) fn inputs(&self) -> Result<Inputs, String> {
        let mut env = std::collections::BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            if name.starts_with("AMS_") {
                let value = value.into_string().map_err(|_| name.clone())?;
                env.insert(name, value);
            }
        }
        let named = env.get("AMS_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Inputs { file: self.config.clone().or(named), env, flags: self.flags() })
    }

    fn flags(&self) -> Vec<(String, String, String)> {
        let mut flags = Flags::default();
        flags.add("--mode", "mode", self.mode.map(Mode::as_str));
        flags.list("--app", "apps", &self.apps);
        flags.add("--shards", "shards", self.shards.as_deref());
        flags.add("--http", "http", self.http.as_deref());
        flags.add("--relay", "relay", self.relay.as_deref());
        flags.add("--udp-ports", "udp_ports", self.udp_ports.as_deref());
        flags.list("--public-ip", "public_ip", &self.public_ip);
        flags.add("--advertise", "advertise", self.advertise.as_deref());
        flags.add("--registry", "registry", self.registry.as_deref());
        flags.add("--cluster-key-file", "cluster_key_file", self.cluster_key_file.as_deref());
        flags.add("--insecure-relay", "insecure_relay", self.insecure_relay.then_some("true"));
        flags.add("--node-id", "node_id", self.node_id.as_deref());
        flags.add("--log", "log", self.log.as_deref());
        for (key, value) in &self.set {
            flags.add("--set", key, Some(value));
        }
        flags.0
    }
}

impl DemoArgs {
    /// The flags that both nodes share.
    pub(crate) fn flags(&self) -> Vec<(String, String, String)> {
        let mut flags = Flags::default();
        flags.add("--udp-ports", "udp_ports", Some(&self.udp_ports));
        flags.list("--public-ip", "public_ip", &self.public_ip);
        flags.list("--app", "apps", &self.apps);
        flags.add("--shards", "shards", Some(&self.shards));
        flags.add("--log", "log", Some(&self.log));
        flags.0
    }
}

#[derive(Default)]
struct Flags(Vec<(String, String, String)>);

impl Flags {
    fn add(&mut self, flag: &str, key: &str, text: Option<&str>) {
        self.0.extend(text.map(|text| (flag.to_owned(), key.to_owned(), text.to_owned())));
    }

    fn list(&mut self, flag: &str, key: &str, items: &[String]) {
        let all = items.join(",");
        self.add(flag, key, (!items.is_empty()).then_some(&all));
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, for example media.connect_timeout=5s".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_name_the_key_they_set() {
        let line =
            "ams-node --mode edge --app a --app b --public-ip ::1 --insecure-relay --set media.connect_timeout=1s";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let flags = cli.node.flags();
        for (flag, key, text) in [
            ("--mode", "mode", "edge"),
            ("--app", "apps", "a,b"),
            ("--public-ip", "public_ip", "::1"),
            ("--insecure-relay", "insecure_relay", "true"),
            ("--set", "media.connect_timeout", "1s"),
        ] {
            assert!(flags.contains(&(flag.into(), key.into(), text.into())), "{flag}: {flags:?}");
        }
        assert_eq!(flags.len(), 5, "flags not given set nothing: {flags:?}");
    }
}
