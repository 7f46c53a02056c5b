//! The address of a registry, as written by an operator.
//!
//! Owns telling the kinds apart and hiding the password; whether anyone answers there is not known here.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::mongo;

/// What an operator can write, for error messages.
const WHAT_TO_WRITE: &str = "write mongodb://HOST, mongodb+srv://HOST, a host name or address, sqlite:PATH, or memory";
/// Longest accepted address, in bytes.
pub const URI_LEN_MAX: usize = 4096;

/// Where the registry is. [`fmt::Display`] and [`fmt::Debug`] never show credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryUri(Kind);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A full connection string: scheme, and everything after.
    Mongo(String),
    Sqlite(PathBuf),
    Memory,
}

/// Why an address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Nothing was written.
    #[error("the registry address is empty: {WHAT_TO_WRITE}")]
    Empty,
    /// More than [`URI_LEN_MAX`] bytes.
    #[error("the registry address is {len} bytes long; the limit is {URI_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// AMS can keep its records in Redis; this product cannot.
    #[error("the registry cannot be Redis: MongoDB (mongodb://HOST) is needed for a cluster, sqlite:PATH for one node")]
    Redis,
    /// A scheme nobody knows. The rest of the address is left out: it may hold a password.
    #[error("the registry address begins with {scheme:?}, which is not known: {WHAT_TO_WRITE}")]
    Scheme {
        /// What stood before the colon.
        scheme: String,
    },
    /// `sqlite:` with nothing behind it.
    #[error("sqlite: needs a file name behind it, such as sqlite:/var/lib/ams-node/registry.db")]
    NoPath,
    /// Neither an address with a scheme nor a host.
    #[error("the registry address is not a host name, address, or host:port: {WHAT_TO_WRITE}")]
    Host,
    /// A connection string the driver cannot read.
    #[error("the MongoDB connection string cannot be used: {reason}")]
    Mongo {
        /// What the driver said, credentials taken out.
        reason: String,
    },
}

impl RegistryUri {
    /// The registry that lives and dies with this process.
    pub fn memory() -> Self {
        Self(Kind::Memory)
    }

    /// A registry in one file.
    pub fn sqlite(path: impl AsRef<Path>) -> Self {
        Self(Kind::Sqlite(path.as_ref().to_owned()))
    }

    /// Whether other nodes can share it: true for MongoDB only.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Mongo(_))
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }
}

impl FromStr for RegistryUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(UriError::Empty);
        }
        if text.len() > URI_LEN_MAX {
            return Err(UriError::TooLong { len: text.len() });
        }
        if text == "memory" {
            return Ok(Self::memory());
        }
        let lower = text.to_ascii_lowercase();
        for scheme in ["mongodb://", "mongodb+srv://"] {
            if lower.starts_with(scheme) {
                let rest = text.get(scheme.len()..).unwrap_or_default();
                if rest.is_empty() {
                    return Err(UriError::Host);
                }
                let uri = format!("{scheme}{rest}");
                mongo::validate(&uri)?;
                return Ok(Self(Kind::Mongo(uri)));
            }
        }
        if lower.starts_with("redis:") || lower.starts_with("rediss:") {
            return Err(UriError::Redis);
        }
        if lower.starts_with("sqlite:") {
            let path = text.get("sqlite:".len()..).unwrap_or_default();
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(UriError::NoPath) } else { Ok(Self::sqlite(path)) };
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(UriError::Scheme { scheme: scheme.chars().take(16).collect() });
        }
        host(text).map(|host| Self(Kind::Mongo(format!("mongodb://{host}"))))
    }
}

/// A bare host, address or host:port, made fit for a connection string.
fn host(text: &str) -> Result<String, UriError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(if address.is_ipv6() { format!("[{address}]") } else { text.to_owned() });
    }
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<IpAddr>().is_err() {
                return Err(UriError::Host);
            }
            match (rest, rest.strip_prefix(':')) {
                ("", _) => (None, None),
                (_, Some(port)) => (None, Some(port)),
                _ => return Err(UriError::Host),
            }
        }
        None => match text.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(text), None),
        },
    };
    let name_is_plain = name.is_none_or(|name| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    });
    let port_is_plain = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if name_is_plain && port_is_plain { Ok(text.to_owned()) } else { Err(UriError::Host) }
}

/// Takes the user information out of a connection string: all up to the last `@` before the path.
fn masked(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return String::new() };
    let (before_query, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
    // A password may hold an unescaped '/', so the last '@' decides, wherever it stands.
    let authority = match before_query.rsplit_once('@') {
        Some((_, hosts)) => format!("***@{hosts}"),
        None => before_query.to_owned(),
    };
    let query = query.map(|query| {
        let parts = query.split('&').map(|pair| match pair.split_once('=') {
            Some((key, _)) if is_secret_option(key) => format!("{key}=***"),
            _ => pair.to_owned(),
        });
        parts.collect::<Vec<_>>().join("&")
    });
    // An '@' left over in the query means that the password held a '?'.
    match query {
        Some(query) if query.contains('@') => format!("{scheme}://***"),
        Some(query) => format!("{scheme}://{authority}?{query}"),
        None => format!("{scheme}://{authority}"),
    }
}

fn is_secret_option(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("password") || key.contains("authmechanismproperties")
}

impl fmt::Display for RegistryUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Mongo(uri) => f.write_str(&masked(uri)),
            Kind::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Kind::Memory => f.write_str("memory"),
        }
    }
}

impl fmt::Debug for RegistryUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes_is_understood_and_shown_without_secrets() {
        for (written, shown) in [
            ("memory", "memory"),
            (" memory ", "memory"),
            ("sqlite:registry.db", "sqlite:registry.db"),
            ("sqlite:/var/lib/r.db", "sqlite:/var/lib/r.db"),
            ("sqlite:///var/lib/r.db", "sqlite:/var/lib/r.db"),
            ("10.0.0.5", "mongodb://10.0.0.5"),
            ("10.0.0.5:27018", "mongodb://10.0.0.5:27018"),
            ("localhost", "mongodb://localhost"),
            ("mongo.internal:27017", "mongodb://mongo.internal:27017"),
            ("::1", "mongodb://[::1]"),
            ("[::1]:27017", "mongodb://[::1]:27017"),
            ("mongodb://h", "mongodb://h"),
            ("MongoDB://h", "mongodb://h"),
            ("mongodb://a,b,c/?replicaSet=rs0", "mongodb://a,b,c/?replicaSet=rs0"),
            ("mongodb://root:secret@h:1/db?w=1", "mongodb://***@h:1/db?w=1"),
            ("mongodb+srv://root:secret@c.example.net/?w=majority", "mongodb+srv://***@c.example.net/?w=majority"),
        ] {
            let uri = written.parse::<RegistryUri>().unwrap_or_else(|e| panic!("{written}: {e}"));
            assert_eq!(uri.to_string(), shown, "{written}");
            assert!(!format!("{uri:?}").contains("secret"), "{written}");
        }
    }

    #[test]
    fn a_password_is_hidden_whatever_it_holds() {
        for (uri, shown) in [
            ("mongodb://root:se%40cret@h", "mongodb://***@h"),
            ("mongodb://root:se@cret@h", "mongodb://***@h"),
            ("mongodb://root:se/cret@h/db", "mongodb://***@h/db"),
            ("mongodb://root:se?cret@h/db", "mongodb://***"),
            ("mongodb://h/?proxyPassword=secret&w=1", "mongodb://h/?proxyPassword=***&w=1"),
            ("mongodb://h/?authMechanismProperties=TOKEN:secret", "mongodb://h/?authMechanismProperties=***"),
            ("secret", ""),
        ] {
            assert_eq!(masked(uri), shown, "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_remedy() {
        for (written, expected) in [
            ("", "write mongodb://HOST"),
            ("redis://h:6379", "cannot be Redis"),
            ("rediss://h", "cannot be Redis"),
            ("redis:conf.yaml", "cannot be Redis"),
            ("postgres://root:secret@h", "begins with \"postgres\""),
            ("http://h", "begins with \"http\""),
            ("sqlite:", "needs a file name"),
            ("mongodb://", "not a host name"),
            ("h o s t", "not a host name"),
            ("root:secret@host", "not a host name"),
            ("host:port", "not a host name"),
            ("host:0", "not a host name"),
            ("host:65536", "not a host name"),
            ("[::1", "not a host name"),
            ("[::1]x", "not a host name"),
            ("[name]:1", "not a host name"),
            ("/etc/redis.yaml", "not a host name"),
            (&"x".repeat(URI_LEN_MAX + 1), "the limit is 4096"),
        ] {
            let error = written.parse::<RegistryUri>().map(|u| u.to_string()).unwrap_err().to_string();
            assert!(error.contains(expected), "{written}: {error}");
            assert!(!error.contains("secret"), "{written}: {error}");
        }
    }
}
