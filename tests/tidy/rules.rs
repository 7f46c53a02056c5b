//! Habits every file keeps: headers, lengths, bounds, and what a repository never contains.

use crate::sources::{Source, files, root, rust};

/// Longest source file, in lines.
const LINES_MAX: usize = 800;

/// Complains about every line of `sources` in which `is_wrong`.
fn complain(sources: &[Source], rule: &str, is_wrong: impl Fn(&Source, &str) -> bool) {
    let mut wrong = Vec::new();
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            if is_wrong(source, line) {
                wrong.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// This file names what it forbids.
fn is_rules(source: &Source) -> bool {
    source.path == "tests/tidy/rules.rs"
}

#[test]
fn every_file_says_what_it_is() {
    for source in rust() {
        assert!(source.text.starts_with("//! "), "{} does not open with a //! header", source.path);
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.len() > 12, "{}: its header says nothing: {first}", source.path);
    }
}

#[test]
fn no_file_holds_two_ideas() {
    let long: Vec<String> = rust()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path} has {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines, find the second idea in them: {long:#?}");
}

#[test]
fn cores_ask_no_clock_and_throw_no_dice() {
    let pure = |path: &str| {
        let relay = ["wire/", "session/", "queue/", "handshake.rs", "keepalive.rs"];
        ["ams-types", "ams-media", "ams-signal", "ams-access"]
            .iter()
            .any(|c| path.starts_with(&format!("crates/{c}/src/")))
            || relay.iter().any(|part| path.starts_with(&format!("crates/ams-relay/src/{part}")))
    };
    for source in rust().iter().filter(|s| pure(&s.path)) {
        for word in
            ["Instant::now", "SystemTime::now", ".elapsed()", "rand::random", "rand::rng", "std::env::", "tokio::time"]
        {
            let found = source.without_tests().lines().position(|l| l.contains(word) && !is_comment(l));
            assert!(
                found.is_none(),
                "{}:{}: {word} in a core that takes time as an argument",
                source.path,
                found.unwrap_or(0) + 1
            );
        }
    }
}

#[test]
fn every_queue_has_a_bound() {
    complain(&rust(), "every queue has a bound", |source, line| {
        let unbounded = ["unbounded_channel", "mpsc::channel()", "async_channel::unbounded", "flume::unbounded"];
        !is_rules(source) && !is_comment(line) && unbounded.iter().any(|word| line.contains(word))
    });
}

#[test]
fn nothing_is_left_for_later() {
    complain(&rust(), "nothing is left for later, switched off or printed by the way", |source, line| {
        let words = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "FIXME", "XXX "];
        !is_rules(source) && words.iter().any(|word| line.contains(word))
    });
}

#[test]
fn nothing_outside_can_make_a_core_panic() {
    let cores = |path: &str| {
        ["ams-media", "ams-rtc", "ams-relay", "ams-access"]
            .iter()
            .any(|c| path.starts_with(&format!("crates/{c}/src/")))
    };
    for source in rust().iter().filter(|s| cores(&s.path) && !s.path.ends_with("testpeer.rs")) {
        for word in [".unwrap()", ".expect(", "panic!("] {
            let found = source.without_tests().lines().position(|l| l.contains(word) && !is_comment(l));
            assert!(
                found.is_none(),
                "{}:{}: {word} where bytes from outside may come",
                source.path,
                found.unwrap_or(0) + 1
            );
        }
    }
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let sources = files(
        &["crates", "tests", "benches", "config", "docker", "docs", "webapp", ".ci"],
        &[".rs", ".toml", ".md", ".sh", ".mjs", ".py", ".ts", ".tsx", ".yaml", "run", "Dockerfile", "with-mongo"],
    );
    // Put together here, so that this file is clean itself.
    let homes = ["root", "work", "home"].map(|name| format!("/{name}/"));
    complain(&sources, "no absolute path of some machine", |source, line| {
        let usual = ["/home/node", "/work/src"].iter().any(|path| line.contains(path));
        !source.path.contains("package-lock") && !usual && homes.iter().any(|home| names_path(line, home))
    });
}

/// Whether a line names a path that starts with `home`, and not one that only contains it.
fn names_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}$/".contains(c))
    })
}

#[test]
fn the_example_configuration_names_every_section_and_key() {
    let example = std::fs::read_to_string(root().join("config/ams-node.toml")).unwrap();
    for key in [
        "mode",
        "http",
        "relay",
        "udp_ports",
        "advertise",
        "public_ip",
        "registry",
        "cluster_key_file",
        "shards",
        "log",
    ] {
        assert!(example.contains(&format!("#{key} = ")), "config/ams-node.toml does not show {key}");
    }
    for section in ["[api]", "[api.limits]", "[media]", "[relay_link]", "[registry_client]"] {
        assert!(example.contains(section), "config/ams-node.toml has no {section}");
    }
    let mut commented = false;
    for (at, line) in example.lines().enumerate() {
        if line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ") {
            assert!(commented, "config/ams-node.toml:{}: no comment above {line}", at + 1);
        }
        commented = line.starts_with("# ") || (commented && line.starts_with('#'));
    }
}
