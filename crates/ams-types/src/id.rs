//! Names of things that last: applications, streams, nodes, and the numbers that order their lives.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest accepted stream id, in bytes. AMS sets no limit; an index key and a log line need one.
pub const STREAM_ID_LEN_MAX: usize = 128;
/// Longest accepted application name, in bytes (AMS 4.0: `^[A-Za-z0-9_-]{1,32}$`).
pub const APP_NAME_LEN_MAX: usize = 32;
/// Longest accepted node id, in bytes.
pub const NODE_ID_LEN_MAX: usize = 128;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The name has no characters.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of name was being parsed.
        what: &'static str,
    },
    /// The name is longer than its limit.
    #[error("{what} is {len} bytes long; the limit is {max}")]
    TooLong {
        /// Which kind of name was being parsed.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The name holds a character outside its alphabet.
    #[error("{what} holds {found:?}; allowed are {allowed}")]
    Character {
        /// Which kind of name was being parsed.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
        /// The alphabet, for a person.
        allowed: &'static str,
    },
}

fn check(what: &'static str, s: &str, max: usize, extra: &str, allowed: &'static str) -> Result<(), InvalidId> {
    if s.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    if s.len() > max {
        return Err(InvalidId::TooLong { what, len: s.len(), max });
    }
    match s.chars().find(|c| !(c.is_ascii_alphanumeric() || extra.contains(*c))) {
        Some(found) => Err(InvalidId::Character { what, found, allowed }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $extra:literal, $allowed:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                check($what, s, $max, $extra, $allowed)?;
                Ok(Self(s.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// An application's name, the first path segment of its URLs: `[A-Za-z0-9_-]{1,32}`.
    AppName, "application name", APP_NAME_LEN_MAX, "_-", "letters, digits, '_' and '-'"
);
name!(
    /// A stream's public name: `[A-Za-z0-9_.-]{1,128}`, case sensitive. Unique within one application only.
    StreamId, "stream id", STREAM_ID_LEN_MAX, "_.-", "letters, digits, '_', '.' and '-'"
);
name!(
    /// A node's name in the cluster: `[A-Za-z0-9_.:-]{1,128}`, unique per host and boot volume.
    NodeId, "node id", NODE_ID_LEN_MAX, "_.:-", "letters, digits, '_', '.', ':' and '-'"
);

/// What names a stream in the whole cluster: two applications may use one stream id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The application the stream belongs to.
    pub app: AppName,
    /// The stream's id within it.
    pub id: StreamId,
}

impl StreamKey {
    /// Names stream `id` of application `app`.
    pub fn new(app: AppName, id: StreamId) -> Self {
        Self { app, id }
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.id)
    }
}

/// Counts the publications of one stream id over the cluster's life; a higher one always wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of one node's process. Random, so that a restarted node voids what its former self held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_are_parsed_at_the_door() {
        for (name, text, ok) in [
            ("plain", "stream1", true),
            ("all of the alphabet", "Az09_.-", true),
            ("empty", "", false),
            ("space", "a b", false),
            ("slash", "a/b", false),
            ("not ASCII", "strøm", false),
            ("longest", &"x".repeat(STREAM_ID_LEN_MAX), true),
            ("too long", &"x".repeat(STREAM_ID_LEN_MAX + 1), false),
        ] {
            assert_eq!(text.parse::<StreamId>().is_ok(), ok, "{name}");
        }
        assert!("a.b".parse::<AppName>().is_err(), "an application has no dot");
        assert!("10.0.0.1:5080".parse::<NodeId>().is_ok());
    }

    #[test]
    fn json_goes_through_the_same_door() {
        assert!(serde_json::from_str::<StreamId>("\"stream1\"").is_ok());
        let error = serde_json::from_str::<StreamId>("\"a b\"").unwrap_err().to_string();
        assert!(error.contains("stream id holds ' '"), "{error}");
    }
}
