//! Values that must not be shown: which keys hold them and how they are masked.
//!
//! Owns the one rule used by `--print-config`, error messages and logs. Never keeps a secret.

use ams_registry::RegistryUri;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Whether the key (its last part counts) holds a secret or may hold one inside.
///
/// These keys can also be given by `AMS_…_FILE`, the path of a file with the value.
pub(super) fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    ["registry", "turn_servers"].contains(&name)
        || ["secret", "password", "token", "credential"]
            .iter()
            .any(|word| name == *word || name.strip_suffix(word).is_some_and(|rest| rest.ends_with('_')))
}

/// The value as it may be shown. Of a registry's address the login alone is, so that a person still sees which
/// server it is.
pub(super) fn masked(key: &str, value: &toml::Value) -> toml::Value {
    match value {
        toml::Value::String(text) if is_secret(key) => toml::Value::String(masked_text(key, text)),
        toml::Value::Array(items) => toml::Value::Array(items.iter().map(|item| masked(key, item)).collect()),
        toml::Value::Table(table) => {
            toml::Value::Table(table.iter().map(|(name, value)| (name.clone(), masked(name, value))).collect())
        }
        plain => plain.clone(),
    }
}

fn masked_text(name: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    // The registry's own type knows what of an address may be shown; what it cannot read may be anything.
    let shown = (name == "registry").then(|| text.parse::<RegistryUri>().ok()).flatten();
    shown.map_or_else(|| MASK.to_owned(), |uri| uri.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_and_servers_are_not() {
        for (name, uri, want) in [
            ("no login", "mongodb://db:27017", "mongodb://db:27017"),
            ("login", "mongodb://joe:s3cret@db/?w=1", "mongodb://***@db/?w=1"),
            ("bare host", "10.0.0.9", "mongodb://10.0.0.9"),
            ("unreadable", "joe:s3cret@10.0.0.9", "***"),
            ("embedded", "sqlite:/var/lib/x.db", "sqlite:/var/lib/x.db"),
            ("memory", "memory", "memory"),
            ("nothing", "", ""),
        ] {
            let got = masked("registry", &toml::Value::String(uri.into()));
            assert_eq!(got.as_str(), Some(want), "{name}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_name_at_any_depth() {
        for (key, want) in [
            ("registry", true),
            ("api.jwt_secret", true),
            ("api.password", true),
            ("api.token", true),
            ("api.turn_servers", true),
            ("cluster_key_file", false),
            ("http", false),
            ("api.token_lifetime", false),
        ] {
            assert_eq!(is_secret(key), want, "{key}");
        }
        let servers: toml::Table = toml::from_str("s = [{ urls = 'turn:a', credential = 'x y' }]").unwrap();
        let shown = masked("api.turn_servers", &servers["s"]).to_string();
        assert!(shown.contains("turn:a") && shown.contains(MASK) && !shown.contains("x y"), "{shown}");
    }
}
