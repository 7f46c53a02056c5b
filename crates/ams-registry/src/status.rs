//! The states a broadcast record can be in, and the rule that tells a live one from one left behind.

use std::fmt;

/// Age of `updateTime` from which a record that says it is live no longer is, in milliseconds.
/// Part of the document format: other readers of the same documents apply the same rule.
pub const STALE_AFTER_MS: i64 = 20_000;

/// A broadcast's `status`, as stored or as it reads now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The record has none.
    Unset,
    /// Made by REST, not published yet.
    Created,
    /// A publisher has the id, its media has not come yet.
    Preparing,
    /// Live.
    Broadcasting,
    /// Ended in order.
    Finished,
    /// A pull source failed.
    Error,
    /// A pull source failed for good.
    Failed,
    /// Said to be live, but nobody has confirmed it for [`STALE_AFTER_MS`].
    TerminatedUnexpectedly,
    /// A word this version does not know; kept as it is.
    Other(Box<str>),
}

impl Status {
    /// Reads the word a record holds.
    pub fn from_wire(word: &str) -> Self {
        match word {
            "" => Self::Unset,
            "created" => Self::Created,
            "preparing" => Self::Preparing,
            "broadcasting" => Self::Broadcasting,
            "finished" => Self::Finished,
            "error" => Self::Error,
            "failed" => Self::Failed,
            "terminated_unexpectedly" => Self::TerminatedUnexpectedly,
            other => Self::Other(other.into()),
        }
    }

    /// The word a record holds; empty for [`Status::Unset`].
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unset => "",
            Self::Created => "created",
            Self::Preparing => "preparing",
            Self::Broadcasting => "broadcasting",
            Self::Finished => "finished",
            Self::Error => "error",
            Self::Failed => "failed",
            Self::TerminatedUnexpectedly => "terminated_unexpectedly",
            Self::Other(word) => word,
        }
    }

    /// Whether a publisher holds the id: `preparing` or `broadcasting`.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Preparing | Self::Broadcasting)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
