//! Sorts the driver's errors by what a caller can do about them.
//!
//! Owns the codes; passes on the driver's words, cut short, never a connection string.

use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::error::RegistryError;

/// A unique index refused a second document.
pub(super) const DUPLICATE_KEY: i32 = 11000;
/// An index of that name or those keys exists with other options.
pub(super) const INDEX_CONFLICTS: [i32; 3] = [68, 85, 86];

/// Commands refused because the server is not, or no longer, able to serve: elections, shutdown, time limits.
const PASSING: [i32; 15] = [6, 7, 50, 64, 89, 91, 112, 134, 189, 262, 10107, 11600, 11602, 13435, 13436];

/// Most characters of a driver message that are passed on.
const REASON_LEN_MAX: usize = 300;

pub(super) fn classify(operation: &'static str, error: &Error) -> RegistryError {
    let passing = match error.kind.as_ref() {
        ErrorKind::Shutdown => return RegistryError::Closed,
        ErrorKind::ServerSelection { .. }
        | ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. }
        | ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
        _ => code(error).is_some_and(|code| PASSING.contains(&code)),
    };
    let reason: String = match error.kind.as_ref() {
        ErrorKind::Command(command) => format!("{} ({})", command.message, command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => format!("{} ({})", write.message, write.code),
        kind => kind.to_string(),
    };
    let reason = reason.chars().take(REASON_LEN_MAX).collect();
    if passing {
        RegistryError::Unavailable { operation, reason }
    } else {
        RegistryError::Refused { operation, reason }
    }
}

/// The server's error code, if it gave one.
pub(super) fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        ErrorKind::InsertMany(many) => many.write_errors.as_ref()?.first().map(|first| first.code),
        _ => None,
    }
}

pub(super) fn is_duplicate_key(error: &Error) -> bool {
    code(error) == Some(DUPLICATE_KEY)
}
