//! Why a call to the registry did not do what was asked, sorted by what the caller can do about it.
//!
//! Never carries an address with credentials: driver messages are kept only where they hold none.

use std::time::Duration;

use crate::uri::UriError;

/// A call failed. Nothing is known about whether a write took effect after [`RegistryError::Deadline`] or
/// [`RegistryError::Unavailable`]; every write of this crate may be repeated.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The address of the registry makes no sense.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A setting makes no sense.
    #[error("registry setting {key} cannot be used: {reason}")]
    Config {
        /// The key in the registry's section.
        key: &'static str,
        /// What to write instead.
        reason: String,
    },
    /// The embedded database could not be opened.
    #[error("cannot open the registry file {path}: {reason}")]
    Open {
        /// The file, as configured.
        path: String,
        /// What the system or SQLite said.
        reason: String,
    },
    /// The call was not answered in time. Try again later.
    #[error("registry did not finish {operation} within {after:?}")]
    Deadline {
        /// What was being done.
        operation: &'static str,
        /// The time it was given.
        after: Duration,
    },
    /// Too many calls wait already. Try again later.
    #[error("registry is busy: too many calls wait, {operation} was refused")]
    Overloaded {
        /// What was asked.
        operation: &'static str,
    },
    /// The server cannot be reached or has no primary. Try again later.
    #[error("registry cannot be reached for {operation}: {reason}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// Other writers kept changing the record. Try again.
    #[error("registry record kept changing under {operation}")]
    Contended {
        /// What was being done.
        operation: &'static str,
    },
    /// The server understood and refused: wrong credentials, missing rights, a full disk. A person has to act.
    #[error("registry refused {operation}: {reason}")]
    Refused {
        /// What was being done.
        operation: &'static str,
        /// What the store said.
        reason: String,
    },
    /// The arguments cannot be stored, such as an application named like one of the server's own databases.
    #[error("registry cannot do {operation}: {reason}")]
    InvalidRequest {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// [`crate::Registry::close`] was called.
    #[error("registry is closed")]
    Closed,
}

impl RegistryError {
    /// Whether the store cannot be reached at all; none when this error does not tell.
    pub fn is_away(&self) -> Option<bool> {
        match self {
            Self::Deadline { .. } | Self::Unavailable { .. } | Self::Closed => Some(true),
            Self::Refused { .. } | Self::Contended { .. } => Some(false),
            Self::Overloaded { .. }
            | Self::InvalidRequest { .. }
            | Self::Uri(_)
            | Self::Config { .. }
            | Self::Open { .. } => None,
        }
    }

    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Deadline { .. } | Self::Overloaded { .. } | Self::Unavailable { .. } | Self::Contended { .. }
        )
    }
}
