//! What can be wrong with a configuration, said so that it can be put right.
//!
//! Owns the wording: key, where its value came from, what is wrong, what to write instead.

use std::fmt;

use crate::exit::{Exit, ExitError};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// The key, dotted (`media.connect_timeout`); empty where no key is at fault.
    pub(crate) key: String,
    /// Where the value came from: `ams-node.toml line 3`, `AMS_HTTP in the environment`, `flag --http`.
    pub(crate) source: String,
    /// What is wrong with it.
    pub(crate) problem: String,
    /// What is allowed, or what to do.
    pub(crate) fix: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), self.source.is_empty()) {
            (false, false) => write!(f, "`{}` ({}): ", self.key, self.source)?,
            (false, true) => write!(f, "`{}`: ", self.key)?,
            (true, false) => write!(f, "{}: ", self.source)?,
            (true, true) => {}
        }
        f.write_str(&self.problem)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "; {}", self.fix) }
    }
}

/// All that is wrong, at least one: a person should not have to start the node once per mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "the configuration has {} errors", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for ExitError {
    fn from(errors: ConfigErrors) -> Self {
        ExitError::new(Exit::Config, errors.to_string())
            .hint("`ams-node --print-config` shows every key, its value and where it comes from")
    }
}

/// The name in `known` that was probably meant by `written`, if one is close enough.
pub(super) fn did_you_mean<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.chars().count() / 3).clamp(1, 3);
    known
        .map(|name| (distance(&written.to_ascii_lowercase(), &name.to_ascii_lowercase()), name))
        .filter(|(steps, _)| *steps <= limit)
        .min()
        .map(|(_, name)| name)
}

/// How many single letters must be typed, removed or replaced, or neighbours swapped, to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &cb) in b.iter().enumerate() {
            let swapped = i > 0 && j > 0 && a[i - 1] == cb && ca == b[j - 1];
            let replace = last[j] + usize::from(ca != cb);
            let mut best = replace.min(last[j + 1] + 1).min(row[j] + 1);
            if swapped {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_what_was_meant() {
        let known = ["http", "relay", "udp_ports", "connect_timeout", "log"];
        for (name, written, want) in [
            ("a letter left out", "conect_timeout", Some("connect_timeout")),
            ("two letters swapped", "htpt", Some("http")),
            ("other case", "Relay", Some("relay")),
            ("a dash", "udp-ports", Some("udp_ports")),
            ("short, one off", "lag", Some("log")),
            ("something else", "colour", None),
            ("nothing", "", None),
        ] {
            assert_eq!(did_you_mean(written, known.into_iter()), want, "{name}");
        }
    }

    #[test]
    fn one_error_is_one_sentence_and_several_are_a_list() {
        let error = |key: &str| ConfigError {
            key: key.into(),
            source: "flag --x".into(),
            problem: "is wrong".into(),
            fix: "write 1".into(),
        };
        assert_eq!(ConfigErrors(vec![error("a")]).to_string(), "`a` (flag --x): is wrong; write 1");
        let two = ConfigErrors(vec![error("a"), error("b")]).to_string();
        assert_eq!(two.lines().count(), 3, "{two}");
        assert!(two.starts_with("the configuration has 2 errors"), "{two}");
    }
}
