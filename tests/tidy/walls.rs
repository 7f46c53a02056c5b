//! Who may know whom: ARCHITECTURE.md's table, held against the manifests and the sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{files, root, rust};

/// A crate and the crates of ours it may depend on, tests and benches included.
const MAY_DEPEND_ON: [(&str, &[&str]); 9] = [
    ("ams-types", &[]),
    ("ams-media", &["ams-types"]),
    ("ams-signal", &["ams-types"]),
    ("ams-rtc", &["ams-types", "ams-media"]),
    ("ams-relay", &["ams-types", "ams-media"]),
    ("ams-registry", &["ams-types"]),
    ("ams-access", &["ams-types"]),
    ("ams-api", &["ams-types", "ams-signal", "ams-registry", "ams-access"]),
    (
        "ams-node",
        &[
            "ams-types",
            "ams-media",
            "ams-signal",
            "ams-rtc",
            "ams-relay",
            "ams-registry",
            "ams-access",
            "ams-api",
            "ams-testkit",
        ],
    ),
];

/// What a crate must never see, whoever else uses it.
const NEVER_SEES: [(&str, &[&str]); 7] = [
    ("ams-types", &["tokio", "serde_json", "axum", "mongodb"]),
    ("ams-media", &["tokio", "socket2", "serde_json", "axum", "mongodb"]),
    ("ams-signal", &["tokio", "axum", "mongodb", "rusqlite"]),
    ("ams-rtc", &["axum", "http", "serde_json", "mongodb", "rusqlite"]),
    ("ams-relay", &["axum", "http", "serde_json", "mongodb", "rusqlite"]),
    ("ams-access", &["tokio", "axum", "http", "hyper", "socket2", "mongodb", "rusqlite", "rand"]),
    ("ams-api", &["mongodb", "rusqlite", "quinn-udp"]),
];

/// Dependencies only one crate names. The testkit may look at MongoDB itself: it checks what others read there.
const ONLY_IN: [(&str, &[&str]); 4] = [
    ("rtc-", &["ams-rtc"]),
    ("mongodb", &["ams-registry", "ams-testkit"]),
    ("rusqlite", &["ams-registry"]),
    ("axum", &["ams-api"]),
];

/// Packages that are no members of the workspace: the walls are not theirs.
const OUTSIDE: [&str; 2] = ["tests/fuzz/", "benches/peers/"];

/// Package name to the names of its dependencies, those of its tests among them or not.
fn manifests(with_tests: bool) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for manifest in files(&["crates", "tests", "benches"], &["Cargo.toml"]) {
        if OUTSIDE.iter().any(|folder| manifest.path.starts_with(folder)) {
            continue;
        }
        let (mut section, mut package, mut dependencies) = (String::new(), String::new(), BTreeSet::new());
        for line in manifest.text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if section == "[package]"
                && let Some(name) = line.strip_prefix("name = ")
            {
                package = name.trim_matches('"').to_owned();
            } else if section.contains("dependencies") && (with_tests || !section.contains("dev-")) {
                let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
                if !name.is_empty() && !name.starts_with('#') {
                    dependencies.insert(name.to_owned());
                }
            }
        }
        assert!(!package.is_empty(), "{} names no package", manifest.path);
        found.insert(package, dependencies);
    }
    found
}

#[test]
fn the_table_names_every_crate() {
    let named: Vec<&str> = MAY_DEPEND_ON.iter().map(|(name, _)| *name).collect();
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for name in manifests(true).keys().filter(|name| !["ams-testkit", "ams-benches"].contains(&name.as_str())) {
        assert!(named.contains(&name.as_str()), "{name} is not in the table of walls");
        assert!(architecture.contains(&format!("| `{name}` |")), "{name} is not in ARCHITECTURE.md");
    }
}

#[test]
fn crates_depend_downwards_only() {
    let manifests = manifests(true);
    for (name, may) in MAY_DEPEND_ON {
        let dependencies = &manifests[name];
        for ours in dependencies.iter().filter(|d| d.starts_with("ams-")) {
            assert!(may.contains(&ours.as_str()), "{name} must not depend on {ours} (ARCHITECTURE.md, Crates)");
        }
    }
    for (name, dependencies) in &manifests {
        assert!(!dependencies.contains("ams-node"), "{name}: nobody depends on the binary");
    }
}

#[test]
fn nobody_sees_what_is_behind_a_wall() {
    let manifests = manifests(false);
    for (name, never) in NEVER_SEES {
        for foreign in never {
            assert!(!manifests[name].contains(*foreign), "{name} must never see {foreign} (ARCHITECTURE.md, Crates)");
        }
        if name != "ams-rtc" {
            let rtc = manifests[name].iter().find(|d| d.starts_with("rtc-"));
            assert_eq!(rtc, None, "{name} must never see rtc-*");
        }
    }
    for (foreign, only) in ONLY_IN {
        for (name, dependencies) in &self::manifests(true) {
            let names_it =
                dependencies.iter().any(|d| if foreign.ends_with('-') { d.starts_with(foreign) } else { d == foreign });
            assert!(!names_it || only.contains(&name.as_str()), "only {only:?} may name {foreign}, {name} does");
        }
    }
}

#[test]
fn sources_name_foreign_types_only_where_they_may() {
    for (word, folders) in [
        ("rtc_stun::", &["crates/ams-rtc/"][..]),
        ("rtc_dtls::", &["crates/ams-rtc/"]),
        ("rtc_sctp::", &["crates/ams-rtc/"]),
        ("rtc_srtp::", &["crates/ams-rtc/"]),
        ("mongodb::", &["crates/ams-registry/", "tests/"]),
        ("rusqlite::", &["crates/ams-registry/"]),
        ("axum::", &["crates/ams-api/"]),
    ] {
        let elsewhere = |path: &str| !folders.iter().chain(&OUTSIDE).any(|folder| path.starts_with(folder));
        for source in rust().iter().filter(|s| elsewhere(&s.path)) {
            let line = source
                .text
                .lines()
                .position(|l| l.contains(word) && !l.contains('"') && !l.trim_start().starts_with("//"));
            let own = source.path == "tests/tidy/walls.rs";
            assert!(
                own || line.is_none(),
                "{}:{}: only {folders:?} may name {word}",
                source.path,
                line.unwrap_or(0) + 1
            );
        }
    }
}

#[test]
fn foreign_versions_that_move_are_pinned() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for line in manifest.lines().filter(|l| l.starts_with("rtc-")) {
        assert!(line.contains("version = \"="), "rtc-* crates are young and pinned exactly: {line}");
    }
}
