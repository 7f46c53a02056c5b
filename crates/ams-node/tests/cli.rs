//! The binary as an operator meets it: what it prints, and which exit code it ends with.
//!
//! Runs the real program with an empty environment. Ports are free ones of the loopback interface.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Enough for a loaded machine; nothing here takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(20);

fn ams_node(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ams-node"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    ams_node(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn version_names_commit_and_compiler() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    let rest = text.strip_prefix(concat!("ams-node ", env!("CARGO_PKG_VERSION"), " (commit ")).unwrap();
    assert!(rest.contains(", rustc 1."), "{text}");
}

#[test]
fn help_reads_from_headings_over_defaults_to_examples() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    let order = [
        "Usage: ams-node",
        "Other commands:",
        "demo",
        "health",
        "Node:",
        "--mode",
        "--config",
        "Network:",
        "--http",
        "[default: 0.0.0.0:5080]",
        "--udp-ports",
        "[default: 50000-60000]",
        "--public-ip",
        "Cluster:",
        "--advertise",
        "--registry",
        "--cluster-key-file",
        "--log",
        "--print-config",
        "--check",
        "Examples:",
        "ams-node demo",
        "AMS_MEDIA__CONNECT_TIMEOUT",
        "Exit codes:",
        "port is in use",
    ];
    let mut from = 0;
    for part in order {
        let at = text.get(from..).and_then(|rest| rest.find(part));
        from += at.unwrap_or_else(|| panic!("{part:?} is missing or out of order:\n{text}"));
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "too wide:\n{text}");
}

#[test]
fn the_demo_tells_what_it_does() {
    let output = run(&["demo", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    for part in ["one origin and one edge", "--origin-http", "--edge-http", "5080", "5081", "--public-ip", "Examples:"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn mistakes_end_with_a_sentence_and_their_own_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (unknown, wrong_type) = (file("unknown.toml", "\nhtpt = 1\n"), file("type.toml", "http = 5080\n"));
    let short_key = file("short.key", "secret");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (name, args, code, parts) in [
        ("unknown flag", vec!["--htpt"], 2, vec!["--htpt", "--http"]),
        ("unknown mode", vec!["--mode", "master"], 2, vec!["master", "standalone", "origin", "edge"]),
        ("unknown command", vec!["dmeo"], 2, vec!["dmeo", "demo"]),
        ("flags before a command", vec!["--log", "debug", "demo"], 2, vec!["demo"]),
        ("set without a value", vec!["--set", "log"], 2, vec!["KEY=VALUE"]),
        ("missing file", vec!["--config", "/nonexistent.toml"], 3, vec!["/nonexistent.toml", "cannot be read"]),
        (
            "unknown key",
            vec!["--config", &unknown],
            3,
            vec!["`htpt`", "line 2", "did you mean `http`?", "--print-config"],
        ),
        ("wrong type", vec!["--config", &wrong_type], 3, vec!["`http`", "whole number"]),
        ("bad flag", vec!["--udp-ports", "9-1"], 3, vec!["flag --udp-ports", "1-9"]),
        ("edge alone", vec!["--mode", "edge"], 3, vec!["registry", "--registry mongodb://"]),
        ("short key", vec!["--cluster-key-file", &short_key], 3, vec!["cluster_key_file", "openssl rand -hex 32"]),
        ("not this machine", vec!["--http", "192.0.2.1:5080"], 3, vec!["not an address of this machine", "--http"]),
        ("port in use", vec!["--http", &taken], 4, vec![&taken, "in use", "--http"]),
        (
            "relay port in use",
            vec!["--mode", "origin", "--registry", "memory", "--http", "127.0.0.1:0", "--relay", &taken],
            4,
            vec![&taken, "relay links", "--relay"],
        ),
        ("demo port in use", vec!["demo", "--origin-http", "127.0.0.1:0", "--edge-http", &taken], 4, vec![&taken]),
        ("demo twice on a port", vec!["demo", "--edge-http", "0.0.0.0:5080"], 3, vec!["--origin-http and --edge-http"]),
    ] {
        let output = run(&args);
        let text = err(&output);
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert!(out(&output).is_empty(), "{name}: a mistake is nothing for standard output");
        for part in parts {
            assert!(text.contains(part), "{name}: {part:?} is missing in: {text}");
        }
        assert!(!text.contains("panicked"), "{name}: {text}");
    }
}

#[test]
fn the_environment_is_read_and_checked() {
    let output = ams_node(&[]).env("AMS_MEDIA_CONNECT_TIMEOUT", "1s").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("did you mean AMS_MEDIA__CONNECT_TIMEOUT?"), "{}", err(&output));
    let output = ams_node(&[]).env("AMS_CONFIG", "/nonexistent.toml").output().unwrap();
    assert!(err(&output).contains("/nonexistent.toml"), "{}", err(&output));
}

#[test]
fn no_file_descriptors_is_said_and_has_its_own_code() {
    // The three standard ones and one more: the shell lowers the hard limit, which the binary cannot raise.
    let script = "ulimit -n 4; exec \"$0\" --http 127.0.0.1:0 --registry memory --log error";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_ams-node")])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    let text = err(&output);
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains("LimitNOFILE"), "{text}");
}

#[test]
fn print_config_masks_secrets_and_names_sources() {
    let output = ams_node(&["--print-config", "--mode", "origin", "--relay", "127.0.0.1:5000"])
        .env("AMS_REGISTRY", "mongodb://joe:s3cret@db.example")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    assert!(text.contains("mode = \"origin\"") && text.contains("# flag --mode"), "{text}");
    assert!(text.contains("db.example") && text.contains("environment variable AMS_REGISTRY"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");

    let output = run(&["--print-config", "--mode", "edge"]);
    assert_eq!(output.status.code(), Some(3), "what cannot start is printed and refused");
    assert!(out(&output).contains("mode = \"edge\"") && err(&output).contains("registry"));
}

#[test]
fn check_prints_a_row_for_each_thing_it_looked_at() {
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let udp = udp.local_addr().unwrap().port().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let good = ["--check", "--http", "127.0.0.1:0", "--registry", "memory", "--shards", "1"];
    for (name, more, code, row) in [
        ("all well", vec![], 0, "ok       registry"),
        ("configuration", vec!["--set", "nothing=1"], 3, "failed   configuration"),
        ("no media port", vec!["--udp-ports", &udp], 4, "failed   media ports"),
        ("http", vec!["--set", "log=debug", "--set", "apps=a,b", "--relay", &taken], 0, "ok       listeners"),
    ] {
        let output = run(&[&good[..], &more[..]].concat());
        let text = out(&output);
        assert_eq!(output.status.code(), Some(code), "{name}: {text}{}", err(&output));
        assert!(text.contains(row), "{name}: {text}");
    }
    let output = run(&["--check", "--http", &taken, "--registry", "memory"]);
    assert_eq!(output.status.code(), Some(4), "{}", out(&output));
    assert!(out(&output).contains("failed   listeners"), "{}", out(&output));
}

#[test]
fn check_says_when_the_registry_does_not_answer() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let args = ["--check", "--http", "127.0.0.1:0", "--set", "registry_client.operation_timeout=500ms"];
    let output = run(&[&args[..], &["--registry", &free]].concat());
    assert_eq!(output.status.code(), Some(7), "{}", out(&output));
    assert!(out(&output).contains("failed   registry"), "{}", out(&output));
}

/// A running node, killed when dropped.
struct Node(Child);

impl Node {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let child = ams_node(args).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self(child)
    }

    /// Reads log lines until one contains `part`; returns all so far.
    fn log_until(&mut self, part: &str) -> String {
        let mut seen = String::new();
        let stderr = self.0.stderr.as_mut().unwrap();
        for line in BufReader::new(stderr).lines() {
            let line = line.unwrap();
            seen += &line;
            seen.push('\n');
            if line.contains(part) {
                return seen;
            }
        }
        panic!("{part:?} never came:\n{seen}");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it did not end");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_logs_json_lines_and_ends_cleanly_on_either_signal() {
    for name in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::start(dir.path(), &["--http", "127.0.0.1:0", "--registry", "memory"]);
        let log = node.log_until("\"starting\"");
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let time = line["timestamp"].as_str().unwrap();
            assert!(time.ends_with('Z') && line["level"].is_string() && line["message"].is_string(), "{line}");
        }
        node.signal(name);
        assert_eq!(node.exit_code(), Some(0), "{name}");
    }
}

#[test]
fn a_hangup_reloads_the_log_level() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    std::fs::write(&file, "log = 'info'\n").unwrap();
    let args = ["--config", "node.toml", "--http", "127.0.0.1:0", "--registry", "memory"];
    let mut node = Node::start(dir.path(), &args);
    node.log_until("\"starting\"");
    std::fs::File::create(&file).unwrap().write_all(b"log = 'inof'\n").unwrap();
    node.signal("HUP");
    node.log_until("configuration not reloaded");
    std::fs::File::create(&file).unwrap().write_all(b"log = 'debug'\n").unwrap();
    node.signal("HUP");
    node.log_until("log level reloaded");
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn health_is_the_exit_code() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/healthz");
    let server = std::thread::spawn(move || {
        for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n\r\n"] {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert_eq!(run(&["health", &url]).status.code(), Some(0));
    let output = run(&["health", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("answers 503"), "{}", err(&output));
    server.join().unwrap();
    assert_eq!(run(&["health", &url]).status.code(), Some(1), "nobody there");
}

#[test]
fn the_bench_measures_a_node_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let args = ["bench", "--viewers", "2,5", "--seconds", "1", "--no-pin", "--json"];
    let output = ams_node(&args).arg(&json).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert!(!rows.is_empty(), "{report}");
    for row in rows {
        let viewers = row["viewers"].as_f64().unwrap();
        let packets = row["packets_per_second"].as_f64().unwrap();
        assert!(packets > 150.0 * viewers, "video and sound come: {row}");
        assert_eq!(row["damaged"], 0, "{row}");
        assert!(row["join_first_picture_ms"]["p50"].as_f64().unwrap() > 0.0, "{row}");
    }
    let refused = run(&["bench", "--viewers", "0"]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(err(&refused).contains("--viewers takes 1 to 50000"), "{}", err(&refused));
}
