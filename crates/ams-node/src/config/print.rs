//! `--print-config`: every key with its value and where it comes from, as TOML that can be used as a file.
//!
//! Owns that layout. Secrets are masked.

use std::fmt::Write;

use super::layers::{Layers, Source, env_name};
use super::secret::masked;
use super::{Config, Loaded};

/// Column at which the comments start, where the value is short enough.
const COMMENT_AT: usize = 44;

/// The whole text. `loaded` adds what empty keys came to; without it (because something is wrong) they are left open.
pub(crate) fn text(layers: &Layers, loaded: Option<&Loaded>) -> String {
    let mut out = format!("# ams-node {}: effective configuration, secrets masked\n", crate::version::LONG);
    // By section, the top level first: a key after a section's header would belong to the section.
    let mut rows: Vec<_> =
        layers.iter().map(|(key, leaf)| (key.rsplit_once('.').unwrap_or(("", key)), key, leaf)).collect();
    rows.sort_by_key(|(place, ..)| *place);
    let mut open = "";
    for ((section, name), key, leaf) in rows {
        if section != open {
            let _ = write!(out, "\n[{section}]\n");
            open = section;
        }
        let line = format!("{name} = {}", masked(name, &leaf.value));
        let from = match &leaf.source {
            Source::Default => format!("default; {}", env_name(key)),
            given => given.to_string(),
        };
        let came_to = loaded.and_then(|loaded| came_to(key, &loaded.config)).map(|it| format!("; comes to {it}"));
        let _ = writeln!(out, "{line:<COMMENT_AT$} # {from}{}", came_to.unwrap_or_default());
    }
    out
}

/// What was chosen for a key that may be left empty.
fn came_to(key: &str, config: &Config) -> Option<String> {
    match key {
        "advertise" => Some(config.advertise.clone()),
        "node_id" => Some(config.node_id.to_string()),
        "registry" => Some(config.registry.to_string()),
        "shards" => Some(config.shards.to_string()),
        _ => None,
    }
}
