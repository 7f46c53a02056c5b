//! How the process ends: the exit codes and the sentence that goes with each.
//!
//! Owns the numbers, which operators' scripts rely on: a number never changes its meaning. Never decides that
//! something is wrong; whoever does builds an [`ExitError`] and `main` prints it.

use std::fmt;
use std::process::ExitCode;

/// Exit codes other than 0. Usage errors (2) are clap's; a second signal exits 130, as shells expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// `ams-node health` found the node not healthy.
    Unhealthy = 1,
    /// The configuration cannot be used.
    Config = 3,
    /// A port is taken.
    PortInUse = 4,
    /// The system does not allow it: a port below 1024, a file that may not be read.
    Permission = 5,
    /// No file descriptors are left.
    Descriptors = 6,
    /// The registry does not answer or cannot be used.
    Registry = 7,
    /// Our own fault, or the system's in a way not foreseen here.
    Internal = 70,
}

/// The codes with their meaning, for `--help` and the README.
pub(crate) const MEANINGS: &[(u8, &str)] = &[
    (0, "ended as asked"),
    (Exit::Unhealthy as u8, "health: the node is not healthy"),
    (2, "usage: no such flag or sub-command"),
    (Exit::Config as u8, "the configuration cannot be used"),
    (Exit::PortInUse as u8, "a port is in use"),
    (Exit::Permission as u8, "not permitted by the system"),
    (Exit::Descriptors as u8, "no file descriptors left"),
    (Exit::Registry as u8, "the registry cannot be used"),
    (Exit::Internal as u8, "internal error"),
    (130, "stopped at once by a second signal"),
];

/// Why the process ends early: a code for scripts, a sentence for a person and, where there is one, what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExitError {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What is wrong. No full stop, starts in lower case unless with a name.
    pub(crate) sentence: String,
    /// What to do next; empty if the sentence says all.
    pub(crate) hint: String,
}

impl ExitError {
    /// An end without a hint.
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into(), hint: String::new() }
    }

    /// Adds what to do next.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// Prints it to standard error and returns the code for `main`.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("ams-node: {self}");
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.hint) }
    }
}

impl std::error::Error for ExitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_meaning() {
        let mut codes: Vec<u8> = MEANINGS.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), MEANINGS.len());
    }

    #[test]
    fn the_hint_follows_on_its_own_line() {
        let error = ExitError::new(Exit::PortInUse, "port 5080 is taken").hint("choose another with --http");
        assert_eq!(error.to_string(), "port 5080 is taken\n  choose another with --http");
    }
}
