//! The configuration as an operator meets it: which value wins, what is refused and in which words.

use super::layers::env_name;
use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Inputs made from a file's text, variables and flags.
struct Given {
    inputs: Inputs,
    dir: tempfile::TempDir,
}

impl Given {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cluster.key"), KEY).unwrap();
        Self { inputs: Inputs::default(), dir }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.dir.path().join("node.toml");
        std::fs::write(&path, text.replace("KEYFILE", self.key_file().to_str().unwrap())).unwrap();
        self.inputs.file = Some(path);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.inputs.env.insert(name.into(), value.into());
        self
    }

    fn flag(mut self, flag: &str, key: &str, text: &str) -> Self {
        self.inputs.flags.push((flag.into(), key.into(), text.into()));
        self
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join("cluster.key")
    }

    fn config(&self) -> Config {
        load(&self.inputs).unwrap_or_else(|errors| panic!("{errors}")).config
    }

    fn error(&self) -> String {
        load(&self.inputs).map(|loaded| format!("{:?}", loaded.config)).unwrap_err().to_string()
    }
}

#[test]
fn a_node_without_any_configuration_is_standalone_and_complete() {
    let config = Given::new().config();
    assert_eq!(config.mode, Mode::Standalone);
    assert_eq!((config.http.to_string(), config.relay.to_string()), ("0.0.0.0:5080".into(), "0.0.0.0:5000".into()));
    assert_eq!((config.udp_ports.from, config.udp_ports.to), (50_000, 60_000));
    assert_eq!(config.apps, ["WebRTCAppEE".parse().unwrap()]);
    assert!(config.shards >= 1 && config.serve_viewers_on_origin && config.cluster_key.is_none());
    assert!(!config.registry.is_shared(), "{}", config.registry);
    assert!(!config.advertise.is_empty());
    assert!(config.node_id.as_str().starts_with(&config.advertise));
    assert_eq!(config.node_id, Given::new().config().node_id, "a node that starts again is the same node");
    let any_port = || Given::new().flag("--http", "http", "127.0.0.1:0").config().node_id;
    assert_ne!(any_port(), any_port(), "two that take any port are two");
}

#[test]
fn each_source_wins_over_the_one_before() {
    let mut given = Given::new();
    let port = |given: &Given| given.config().http.port();
    assert_eq!(port(&given), 5080, "default");
    given = given.file("http = '127.0.0.1:1'\n[media]\nconnect_timeout = '1s'\n");
    assert_eq!(port(&given), 1, "file over default");
    given = given.env("AMS_HTTP", "127.0.0.1:2");
    assert_eq!(port(&given), 2, "environment over file");
    given = given.flag("--http", "http", "127.0.0.1:3");
    assert_eq!(port(&given), 3, "flag over environment");
    assert_eq!(given.config().media.connect_timeout.as_secs(), 1, "what others leave alone stays");
    assert_eq!(given.config().media.consent_timeout.as_secs(), 8, "also within a section");
}

/// All keys with a value that differs from the default and may be written as text.
fn another_value_for_each_key() -> Vec<(String, String)> {
    let layers = Layers::new(&RawConfig::default());
    let named = |key: &str| match key {
        "mode" => Some("standalone"),
        "log_format" => Some("json"),
        "http" | "relay" => Some("127.0.0.1:7"),
        "udp_ports" => Some("40000-41000"),
        "public_ip" => Some("203.0.113.7,2001:db8::7"),
        "apps" => Some("live,WebRTCAppEE"),
        "registry" => Some("memory"),
        "log" => Some("debug"),
        "shards" => Some("2"),
        "api.stun_servers" => Some("stun:a.example:3478"),
        "api.turn_servers" => Some("[{ url = \"turn:a.example:3478\", credential = \"s3cret\" }]"),
        "api.server_jwt_secret" => Some("s3cret-s3cret-s3cret-s3cret-s3cret"),
        "webhooks.secret" => Some("s3cret-s3cret-s3cret-s3cret-s3cret"),
        "api.cors_origins" => Some("https://a.example"),
        "api.trusted_proxies" => Some("10.0.0.0/8"),
        "api.allowed_dashboard_cidr" => Some("10.0.0.0/8"),
        "first_user" => Some("none"),
        "api.public_base" => Some("https://a.example"),
        "relay_link.dead_after" => Some("4s"),
        "relay_link.redial_min" => Some("200ms"),
        "relay_link.hops_max" => Some("2"),
        "media.viewer_messages" => Some("publisher"),
        "media.playout_delay" => Some("0ms-400ms"),
        _ => None,
    };
    layers
        .iter()
        .filter(|(key, _)| !["cluster_key_file", "webhooks.ca_file"].contains(key))
        .map(|(key, leaf)| {
            let text = named(key).map(str::to_owned).unwrap_or_else(|| match &leaf.value {
                toml::Value::Boolean(truth) => (!truth).to_string(),
                toml::Value::Integer(number) => (number + 1).to_string(),
                toml::Value::String(text) if text.parse::<humantime_serde::re::humantime::Duration>().is_ok() => {
                    let time: std::time::Duration =
                        text.parse::<humantime_serde::re::humantime::Duration>().unwrap().into();
                    format!("{}ms", time.as_millis() + 100)
                }
                toml::Value::String(_) => "x7".into(),
                other => other.to_string(),
            });
            (key.to_owned(), text)
        })
        .collect()
}

#[test]
fn every_key_can_be_set_by_environment_flag_and_file() {
    for (key, text) in another_value_for_each_key() {
        let by_env = Given::new().env(&env_name(&key), &text);
        let by_flag = Given::new().flag("--set", &key, &text);
        for (name, given) in [("environment", by_env), ("flag", by_flag)] {
            let (printed, loaded) = print(&given.inputs);
            loaded.unwrap_or_else(|errors| panic!("{key} by {name}: {errors}"));
            let leaf = key.rsplit('.').next().unwrap();
            let line = printed.lines().find(|line| line.starts_with(&format!("{leaf} = ")) && line.contains(name));
            let line = line.unwrap_or_else(|| panic!("{key} by {name}:\n{printed}"));
            let telling = match key.as_str() {
                "api.turn_servers" => "turn:a.example",
                "api.server_jwt_secret" | "webhooks.secret" => "***",
                _ => text.split(',').next().unwrap(),
            };
            assert!(line.contains(telling), "{key} by {name}: {line}");
            assert!(!line.contains("s3cret"), "{key} by {name}: {line}");
            // What was printed is a file that says the same.
            Given::new().file(&printed).config();
        }
    }
}

#[test]
fn lists_are_written_with_commas_or_brackets() {
    for text in ["a,b", " a , b ,", "['a', 'b']", "[\"a\",\"b\"]"] {
        assert_eq!(Given::new().env("AMS_APPS", text).config().apps.len(), 2, "{text}");
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    assert_eq!(Given::new().env("AMS_HTTP", "").config().http.port(), 5080);
}

#[test]
fn variables_of_others_with_our_prefix_are_left_alone() {
    let mut given = Given::new();
    for name in [
        "AMS_TEST_MONGO",
        "AMS_TESTS_PART",
        "AMS_SIM_SEED",
        "AMS_FUZZ_JOBS",
        "AMS_SKIP_WEBAPP",
        "AMS_CONFIG",
        "AMS_NODE_SERVICE_HOST",
        "AMS_NODE_SERVICE_PORT",
        "AMS_NODE_SERVICE_PORT_HTTP",
        "AMS_NODE_PORT",
        "AMS_NODE_PORT_5080_TCP",
        "AMS_NODE_PORT_5080_TCP_ADDR",
    ] {
        given = given.env(name, "tcp://10.0.0.1:5080");
    }
    given.config();
}

#[test]
fn the_variable_that_ams_itself_reads_is_understood() {
    let given = Given::new().env("AMS_HOST_ADDRESS", "10.1.2.3");
    assert_eq!(given.config().advertise, "10.1.2.3");
    assert_eq!(given.env("AMS_ADVERTISE", "10.9.9.9").config().advertise, "10.9.9.9");
}

#[test]
fn advertise_follows_a_specific_relay_address() {
    assert_eq!(Given::new().file("relay = '127.0.0.12:5000'").config().advertise, "127.0.0.12");
}

/// What is refused: name, file, variables, and what the sentence must say.
#[test]
fn what_is_wrong_is_named_with_its_place_and_the_fix() {
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let rows: &[Row] = &[
        ("unknown key", "\nhtpt = '0.0.0.0:1'", &[], &["`htpt`", "node.toml line 2", "did you mean `http`?"]),
        (
            "unknown key in a section",
            "[media]\nconect_timeout = '1s'",
            &[],
            &["`media.conect_timeout`", "line 2", "did you mean `media.connect_timeout`?"],
        ),
        ("key of another section", "[media]\nlinger = '1s'", &[], &["did you mean `relay_link.linger`?"]),
        ("key without its section", "consent_timeout = '1s'", &[], &["did you mean `media.consent_timeout`?"]),
        ("nothing like it", "[media]\ncolour = 1", &[], &["[media] has", "connect_timeout", "consent_timeout"]),
        ("unknown section", "[medai]\nconnect_timeout = '1s'", &[], &["`medai`", "line 1", "did you mean `media`?"]),
        ("section as a value", "media = 1", &[], &["`media`", "is a section", "[media]"]),
        ("value as a section", "[http]\nport = 1", &[], &["`http`", "is a table, wanted is text"]),
        ("not TOML", "a = 1\nhttp 0", &[], &["node.toml line 2", "not TOML", "config/ams-node.toml"]),
        ("twice", "shards = 1\nshards = 2", &[], &["line 2", "duplicate key"]),
        (
            "number for text",
            "http = 5080",
            &[],
            &["`http`", "line 1", "is a whole number, wanted is text", "0.0.0.0:5080"],
        ),
        ("text for a number", "shards = 'many'", &[], &["`shards`", "is text in quotes, wanted is a whole number"]),
        ("text for a list", "apps = 'live'", &[], &["`apps`", "wanted is a list", "[\"WebRTCAppEE\"]"]),
        ("number of a duration", "[media]\nconnect_timeout = 10", &[], &["wanted is text", "for example \"10s\""]),
        (
            "no duration",
            "[media]\nconnect_timeout = '10 parsecs'",
            &[],
            &["`media.connect_timeout`", "10 parsecs", "\"10s\""],
        ),
        ("no such mode", "mode = 'master'", &[], &["`mode`", "\"master\"", "standalone, origin, edge"]),
        ("no address", "http = 'localhost'", &[], &["`http`", "\"localhost\"", "an IP address and a port"]),
        ("no port", "", &[("AMS_HTTP", "0.0.0.0")], &["environment variable AMS_HTTP", "an IP address and a port"]),
        ("no IP", "public_ip = ['example.com']", &[], &["`public_ip`", "example.com", "IP addresses"]),
        ("odd application", "apps = ['a/b']", &[], &["`apps`", "'/'"]),
        ("negative", "shards = -1", &[], &["`shards`", "-1", "0"]),
        ("a number with letters", "", &[("AMS_SHARDS", "4x")], &["AMS_SHARDS", "\"4x\" is not a whole number"]),
        ("neither true nor false", "", &[("AMS_INSECURE_RELAY", "yes")], &["\"yes\" is not true or false"]),
        ("range backwards", "udp_ports = '2-1'", &[], &["`udp_ports`", "runs backwards; write 1-2"]),
        ("port 0 in the range", "udp_ports = '0-1'", &[], &["`udp_ports`", "no port from 1"]),
        (
            "fewer ports than shards",
            "udp_ports = '50000-50001'\nshards = 3",
            &[],
            &["`udp_ports`", "2 ports", "3 shards", "widen the range or lower shards"],
        ),
        ("too many shards", "shards = 5000", &[], &["`shards`", "at most 1024"]),
        ("no application", "apps = []", &[], &["`apps`", "no application"]),
        ("an application twice", "apps = ['a', 'b', 'a']", &[], &["`apps`", "names a twice"]),
        ("advertised port", "advertise = '10.0.0.1:5000'", &[], &["`advertise`", "leave the port out"]),
        ("advertised nowhere", "advertise = '0.0.0.0'", &[], &["`advertise`", "not an address others can dial"]),
        ("advertised nonsense", "advertise = 'a b'", &[], &["`advertise`", "no host name"]),
        ("public nowhere", "public_ip = ['0.0.0.0']", &[], &["`public_ip`", "not an address a browser can send to"]),
        ("odd node id", "node_id = 'a b'", &[], &["`node_id`", "' '"]),
        ("odd log level", "log = 'inof'", &[], &["`log`", "\"inof\" is no level"]),
        (
            "origin without registry",
            "mode = 'origin'\nrelay = '127.0.0.1:5000'",
            &[],
            &["`registry`", "needs a registry", "mongodb://"],
        ),
        (
            "edge without registry",
            "mode = 'edge'\nrelay = '127.0.0.1:5000'",
            &[],
            &["`registry`", "needs a registry", "mongodb://"],
        ),
        (
            "edge with its own registry",
            "mode = 'edge'\nregistry = 'memory'\nrelay = '127.0.0.1:5000'",
            &[],
            &["`registry`", "line 2", "this node's own", "mongodb://"],
        ),
        ("another database", "registry = 'redis://a'", &[], &["`registry`", "Redis", "mongodb://"]),
        (
            "no cluster key",
            "mode = 'edge'\nregistry = 'db'",
            &[],
            &["`cluster_key_file`", "openssl rand -hex 32", "--cluster-key-file", "--insecure-relay", "loopback"],
        ),
        (
            "key file missing",
            "cluster_key_file = '/nonexistent/key'",
            &[],
            &["`cluster_key_file`", "/nonexistent/key cannot be read", "openssl rand -hex 32"],
        ),
        (
            "one port for two",
            "mode='origin'\nregistry='db'\ncluster_key_file='KEYFILE'\nhttp='0.0.0.0:5000'",
            &[],
            &["`http`", "line 4", "port 5000 is used for both"],
        ),
        (
            "a section's own rule",
            "[relay_link]\ndead_after = '1s'",
            &[],
            &["`relay_link.dead_after`", "line 2", "twice"],
        ),
        (
            "the API's own rule",
            "[api.limits]\nsocket_idle = '1s'",
            &[],
            &["`api.limits.socket_idle`", "line 2", "6s or more"],
        ),
        (
            "a key of a list's table",
            "[[api.turn_servers]]\nurl = 'turn:a'\npasword = 's3cret'",
            &[],
            &["`api.turn_servers`", "pasword", "credential"],
        ),
        (
            "the registry's own rule",
            "[registry_client]\noperation_timeout = '1h'",
            &[],
            &["`registry_client.operation_timeout`", "50ms to 60s"],
        ),
        ("unknown variable", "", &[("AMS_HTPT", "x")], &["environment variable AMS_HTPT", "did you mean AMS_HTTP?"]),
        ("one underscore", "", &[("AMS_MEDIA_CONNECT_TIMEOUT", "1s")], &["did you mean AMS_MEDIA__CONNECT_TIMEOUT?"]),
        ("nothing like any", "", &[("AMS_WHATEVER_ELSE", "1s")], &["AMS_WHATEVER_ELSE", "two underscores"]),
        ("file of no secret", "", &[("AMS_HTTP_FILE", "x")], &["only secrets", "set AMS_HTTP instead"]),
        ("secret twice", "", &[("AMS_REGISTRY", "a"), ("AMS_REGISTRY_FILE", "x")], &["AMS_REGISTRY is set as well"]),
        (
            "secret's file missing",
            "",
            &[("AMS_REGISTRY_FILE", "/nonexistent")],
            &["`registry`", "/nonexistent cannot be read"],
        ),
    ];
    for (name, file, env, parts) in rows {
        let mut given = Given::new().file(file);
        for (variable, value) in *env {
            given = given.env(variable, value);
        }
        let error = given.error();
        for part in *parts {
            assert!(error.contains(part), "{name}: {part:?} is missing in: {error}");
        }
        assert!(!error.contains('\n'), "{name} is one error: {error}");
        assert!(!error.contains("s3cret"), "{name}: {error}");
        assert!(!error.ends_with("; ") && !error.contains(";;"), "{name}: {error}");
    }
}

#[test]
fn flags_are_named_as_they_were_typed() {
    let error = Given::new().flag("--udp-ports", "udp_ports", "9").flag("--shards", "shards", "2").error();
    assert!(error.contains("`udp_ports` (flag --udp-ports)"), "{error}");
    let error = Given::new().flag("--set", "media.nothing", "9").error();
    assert!(error.contains("`media.nothing` (flag --set)"), "{error}");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let error = Given::new().file("htpt = 1\nshards = 'x'").env("AMS_NOTHING", "1").error();
    assert!(error.starts_with("the configuration has 3 errors"), "{error}");
    let error = Given::new().file("mode = 'edge'\nadvertise = 'a b'\nlog = 'loud'").error();
    assert!(error.starts_with("the configuration has 4 errors"), "{error}");
}

#[test]
fn a_missing_file_is_an_error_and_not_the_defaults() {
    let inputs = Inputs { file: Some("/nonexistent/node.toml".into()), ..Inputs::default() };
    let error = load(&inputs).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/node.toml") && error.contains("cannot be read"), "{error}");
}

#[test]
fn a_cluster_needs_its_key_unless_nobody_outside_can_reach_the_relay() {
    let cluster = "registry = 'mongodb://db'\n";
    for (name, extra, key, warned) in [
        ("with the key", "mode = 'origin'\ncluster_key_file = 'KEYFILE'", true, ""),
        ("loopback only", "mode = 'edge'\nrelay = '127.0.0.12:5000'", false, ""),
        ("accepted by the operator", "mode = 'edge'\ninsecure_relay = true", false, "relay links are open"),
        ("alone", "mode = 'standalone'", false, ""),
    ] {
        let given = Given::new().file(&format!("{cluster}{extra}"));
        let loaded = load(&given.inputs).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        assert_eq!(loaded.config.cluster_key.is_some(), key, "{name}");
        let warnings: Vec<_> = loaded.warnings.iter().filter(|w| !w.contains("chmod")).collect();
        assert_eq!(warnings.is_empty(), warned.is_empty(), "{name}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains(warned)), "{name}: {warnings:?}");
    }
}

#[test]
fn an_origin_with_a_registry_of_its_own_is_warned() {
    let given = Given::new().file("mode = 'origin'\nregistry = 'memory'\nrelay = '127.0.0.1:5000'");
    let warnings = load(&given.inputs).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("edges cannot find")), "{warnings:?}");
}

#[test]
fn a_secret_comes_from_its_file_and_is_never_shown() {
    let given = Given::new();
    let file = given.dir.path().join("uri");
    std::fs::write(&file, "mongodb://joe:s3cret@db.example/?w=majority\n").unwrap();
    let given = given.env("AMS_REGISTRY_FILE", file.to_str().unwrap());
    let (printed, loaded) = print(&given.inputs);
    let config = loaded.unwrap().config;
    for (name, text) in
        [("printed", &printed), ("debug", &format!("{config:?}")), ("display", &config.registry.to_string())]
    {
        assert!(!text.contains("s3cret"), "{name}: {text}");
        assert!(text.contains("db.example"), "{name}: {text}");
    }
    let error = Given::new().file("registry = 'postgres://joe:s3cret@db'").error();
    assert!(error.contains("`registry`") && !error.contains("s3cret"), "{error}");
    let error = Given::new().env("AMS_REGISTRY", "joe:s3cret@db").error();
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn print_config_says_where_each_value_comes_from() {
    let given = Given::new()
        .file("# a comment\nhttp = '127.0.0.1:1'\n[media]\n\nconsent_timeout = '9s'")
        .env("AMS_LOG", "debug")
        .flag("--shards", "shards", "3");
    let (printed, loaded) = print(&given.inputs);
    loaded.unwrap();
    for (start, end) in [
        ("http = \"127.0.0.1:1\"", "node.toml line 2"),
        ("log = \"debug\"", "environment variable AMS_LOG"),
        ("shards = 3", "flag --shards; comes to 3"),
        ("relay = \"0.0.0.0:5000\"", "default; AMS_RELAY"),
        ("consent_timeout = \"9s\"", "node.toml line 5"),
        ("connect_timeout = \"10s\"", "default; AMS_MEDIA__CONNECT_TIMEOUT"),
        ("registry = \"\"", "comes to sqlite:ams-node.db"),
    ] {
        assert!(
            printed.lines().any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start} … {end}:\n{printed}"
        );
    }
}

#[test]
fn print_config_works_for_a_configuration_that_does_not() {
    let (printed, loaded) = print(&Given::new().file("mode = 'edge'").inputs);
    assert!(printed.contains("mode = \"edge\""), "{printed}");
    assert!(loaded.is_err());
}

fn example(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn the_complete_example_has_every_key_with_its_default_and_a_comment() {
    let (_, text) = example("ams-node.toml");
    // Every key is there, commented out with its default; without the leading '#' the file is the defaults.
    let mut lines = Vec::new();
    let mut explained = false;
    for line in text.lines() {
        let key = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        if let Some(key) = key.filter(|key| key.contains(" = ")) {
            assert!(explained, "no comment above {key}");
            lines.push(key);
            explained = false;
        } else {
            lines.push(line);
            explained = explained && !line.is_empty() || line.starts_with("# ");
        }
    }
    let given = Given::new().file(&lines.join("\n"));
    given.config();
    let (layers, _) = read(&given.inputs, Purpose::Node);
    for (key, leaf) in layers.iter() {
        assert_ne!(leaf.source, layers::Source::Default, "config/ams-node.toml lacks {key}");
    }
    // Read and written again, because one duration has many spellings.
    let written = Layers::new(&layers.read::<RawConfig>().1.unwrap());
    for ((key, leaf), (_, default)) in written.iter().zip(Layers::new(&RawConfig::default()).iter()) {
        assert_eq!(leaf.value, default.value, "config/ams-node.toml has another default of {key}");
    }
    // As it stands it changes nothing.
    let given = Given::new().file(&text);
    let (layers, loaded) = read(&given.inputs, Purpose::Node);
    loaded.unwrap();
    assert!(layers.iter().all(|(_, leaf)| leaf.source == layers::Source::Default));
}

#[test]
fn the_short_examples_start() {
    for (name, mode) in [("origin.toml", Mode::Origin), ("edge.toml", Mode::Edge)] {
        let (path, _) = example(name);
        let mut given = Given::new();
        given.inputs.file = Some(path);
        let key = given.key_file();
        let given = given.flag("--cluster-key-file", "cluster_key_file", key.to_str().unwrap());
        assert_eq!(given.config().mode, mode, "{name}");
    }
}

#[test]
fn the_demo_is_an_origin_and_an_edge_that_need_nothing() {
    use clap::Parser;
    let parse = |line: &str| match crate::cli::Cli::try_parse_from(line.split(' ')).unwrap().command {
        Some(crate::cli::Command::Demo(args)) => args,
        other => panic!("{other:?}"),
    };
    let (origin, edge) = demo(&parse("ams-node demo")).unwrap();
    assert_eq!((origin.mode, origin.http.port()), (Mode::Origin, 5080));
    assert_eq!((edge.mode, edge.http.port()), (Mode::Edge, 5081));
    assert!(origin.relay.ip().is_loopback() && edge.relay.ip().is_loopback());
    assert_ne!(origin.node_id, edge.node_id);
    assert_eq!(origin.registry.to_string(), "memory");

    let args = parse("ams-node demo --origin-http 127.0.0.1:0 --edge-http 127.0.0.1:0 --public-ip 10.0.0.1 --log warn");
    let (origin, edge) = demo(&args).unwrap();
    assert_eq!((origin.http.port(), edge.http.port()), (0, 0));
    assert_eq!((origin.public_ips.len(), edge.public_ips.len()), (1, 1));
    assert_eq!(edge.log, "warn");

    for (line, part) in [
        ("ams-node demo --edge-http 0.0.0.0:5080", "both nodes would listen"),
        ("ams-node demo --edge-http nowhere", "flag --edge-http"),
        ("ams-node demo --relay 0.0.0.0:5000", "loopback"),
    ] {
        let error = demo(&parse(line)).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}
