//! The API's section of the configuration: ICE servers for clients, cross-origin rules, limits.
//!
//! Owns defaults and validation; reads no file and no environment.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ams_signal::{IceServer, RateLimit, SignalLimits};
use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};

use crate::client::is_trusted;
use crate::rate::network_of;

/// Everything the HTTP side can be told.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// STUN servers named to clients: `stun:host` or `stun:host:port`. None leaves clients with their own default.
    pub stun_servers: Vec<String>,
    /// TURN servers named to clients.
    pub turn_servers: Vec<TurnServer>,
    /// Origins whose pages may use this node from a browser; `*` means every page. Applies to HTTP and WebSocket.
    pub cors_origins: Vec<String>,
    /// Networks whose `X-Forwarded-For` and `X-Real-IP` are believed, and which have no limit per address.
    pub trusted_proxies: Vec<IpNet>,
    /// What stands before the path in `Location` headers, for example `https://media.example`. Empty: only the path,
    /// which works behind every proxy.
    pub public_base: String,
    /// From where the server's REST calls (`/rest/…`) may be used: addresses and networks, with commas. Health checks
    /// are open to all.
    pub allowed_dashboard_cidr: String,
    /// Key of the JWTs that open the server's REST calls (`/rest/v2/…`) in header `ProxyAuthorization` as an
    /// administrator, 32 characters or more. Empty: only a login opens them.
    pub server_jwt_secret: Secret,
    /// Name shown in `/rest/v2/liveness`. Empty: the machine's own.
    pub host_name: String,
    /// Bounds.
    pub limits: ApiLimits,
}

/// A TURN server and the account on it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TurnServer {
    /// `turn:host:port`, `turn:host:port?transport=udp` or `turns:…`.
    pub url: String,
    /// User name.
    #[serde(default)]
    pub username: String,
    /// Password.
    #[serde(default)]
    pub credential: Secret,
}

/// Text that is not shown: it prints and serialises as stars.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "********" })
    }
}

/// Bounds of the HTTP side. Every one of them is refused over with a sentence, never queued.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiLimits {
    /// Open TCP connections.
    pub connections: usize,
    /// Open TCP connections of one address outside `trusted_proxies`.
    pub connections_per_address: usize,
    /// Time a new connection has for its first request line and headers.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// Time a used connection may stay idle. Keep it above the balancer's own (60 s on AWS), or requests get lost.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Time for a request body.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Time a client may take none of what is sent to it.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Longest request body, in bytes. Session descriptions of 80 KiB must fit.
    pub body_bytes: usize,
    /// POST, PUT, PATCH, DELETE and WebSocket connects per second and client address.
    pub requests_per_second: f64,
    /// The same at once, when rested.
    pub request_burst: f64,
    /// WHIP and WHEP sessions.
    pub http_sessions: usize,
    /// Publishers and viewers of one WebSocket.
    pub socket_sessions: usize,
    /// Streams one WebSocket may wait for.
    pub socket_waits: usize,
    /// Messages per second and WebSocket; over it the socket is closed.
    pub socket_messages_per_second: f64,
    /// The same at once, when rested.
    pub socket_message_burst: f64,
    /// Silence after which a WebSocket is closed. The SDK pings every 3 s, and this node every third of it.
    #[serde(with = "humantime_serde")]
    pub socket_idle: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            stun_servers: Vec::new(),
            turn_servers: Vec::new(),
            cors_origins: vec!["*".into()],
            trusted_proxies: PRIVATE_NETWORKS.iter().filter_map(|net| net.parse().ok()).collect(),
            public_base: String::new(),
            allowed_dashboard_cidr: "0.0.0.0/0,::/0".to_owned(),
            server_jwt_secret: Secret::default(),
            host_name: String::new(),
            limits: ApiLimits::default(),
        }
    }
}

/// Loopback, private, link-local and carrier-grade NAT networks.
const PRIVATE_NETWORKS: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

impl Default for ApiLimits {
    fn default() -> Self {
        let signal = SignalLimits::default();
        Self {
            connections: 20_000,
            connections_per_address: 1000,
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            body_bytes: 128 * 1024,
            requests_per_second: 200.0,
            request_burst: 1000.0,
            http_sessions: 10_000,
            socket_sessions: signal.sessions,
            socket_waits: signal.waits,
            socket_messages_per_second: signal.messages.per_second,
            socket_message_burst: signal.messages.burst,
            socket_idle: signal.idle,
        }
    }
}

/// A value that cannot be used; the text names the key and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key within the API's section.
    pub key: &'static str,
    /// What is wrong and what is right.
    pub problem: String,
}

impl ApiConfig {
    /// What a client's sessions are counted by: its address, or the /64 an IPv6 host has all of. None for one in
    /// `trusted_proxies`: who is behind it is not known.
    pub fn counted_address(&self, client: IpAddr) -> Option<IpAddr> {
        (!is_trusted(client, &self.trusted_proxies)).then(|| network_of(client))
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key, problem: String| Err(ConfigError { key, problem });
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\".contains(&b));
        for uri in &self.stun_servers {
            if !(uri.starts_with("stun:") || uri.starts_with("stuns:")) || !plain(uri) {
                return refuse("stun_servers", format!("{uri:?} is no STUN address; write it as stun:host:port"));
            }
        }
        for server in &self.turn_servers {
            if !(server.url.starts_with("turn:") || server.url.starts_with("turns:")) || !plain(&server.url) {
                let problem = format!("{:?} is no TURN address; write it as turn:host:port", server.url);
                return refuse("turn_servers", problem);
            }
        }
        if !self.public_base.is_empty() {
            let base = &self.public_base;
            let has_scheme = base.starts_with("http://") || base.starts_with("https://");
            if !has_scheme || base.ends_with('/') || !plain(base) {
                return refuse(
                    "public_base",
                    format!("{base:?} must look like https://host, without a slash at its end"),
                );
            }
        }
        match ams_access::CidrList::parse(&self.allowed_dashboard_cidr) {
            Ok(list) if list.is_empty() => {
                return refuse("allowed_dashboard_cidr", "names nobody; write 0.0.0.0/0,::/0 for everybody".into());
            }
            Ok(_) => {}
            Err(error) => return refuse("allowed_dashboard_cidr", error.to_string()),
        }
        // Stars are what --print-config shows in its place.
        let key = self.server_jwt_secret.0.trim_matches('*');
        if (1..ams_access::jwt::KEY_LEN_MIN).contains(&key.len()) {
            let min = ams_access::jwt::KEY_LEN_MIN;
            return refuse("server_jwt_secret", format!("must have {min} characters or more, or be empty"));
        }
        for origin in &self.cors_origins {
            if origin != "*" && (!origin.contains("://") || origin.ends_with('/') || !plain(origin)) {
                return refuse("cors_origins", format!("{origin:?} must be * or look like https://host"));
            }
        }
        let limits = &self.limits;
        for (key, zero) in [
            ("limits.connections", limits.connections == 0),
            ("limits.connections_per_address", limits.connections_per_address == 0),
            ("limits.http_sessions", limits.http_sessions == 0),
            ("limits.socket_sessions", limits.socket_sessions == 0),
            ("limits.header_timeout", limits.header_timeout.is_zero()),
            ("limits.keep_alive", limits.keep_alive.is_zero()),
            ("limits.body_timeout", limits.body_timeout.is_zero()),
            ("limits.write_timeout", limits.write_timeout.is_zero()),
        ] {
            if zero {
                return refuse(key, "must be more than zero".into());
            }
        }
        if limits.body_bytes < 80 * 1024 || limits.body_bytes > 16 * 1024 * 1024 {
            return refuse("limits.body_bytes", "must be between 81920 and 16777216".into());
        }
        if limits.socket_idle < Duration::from_secs(6) {
            return refuse("limits.socket_idle", "must be 6s or more: clients ping every 3 s".into());
        }
        for (key, value) in [
            ("limits.requests_per_second", limits.requests_per_second),
            ("limits.request_burst", limits.request_burst),
            ("limits.socket_messages_per_second", limits.socket_messages_per_second),
            ("limits.socket_message_burst", limits.socket_message_burst),
        ] {
            if !(value.is_finite() && value >= 1.0) {
                return refuse(key, "must be 1 or more".into());
            }
        }
        Ok(())
    }

    /// The one server `getIceServerConfig` can name: TURN if there is one, because clients then add STUN themselves.
    pub(crate) fn signal_ice_server(&self) -> IceServer {
        if let Some(turn) = self.turn_servers.first() {
            return IceServer {
                uri: turn.url.clone(),
                username: turn.username.clone(),
                credential: turn.credential.0.clone(),
            };
        }
        IceServer { uri: self.stun_servers.first().cloned().unwrap_or_default(), ..Default::default() }
    }

    pub(crate) fn signal_limits(&self) -> SignalLimits {
        SignalLimits {
            messages: RateLimit {
                per_second: self.limits.socket_messages_per_second,
                burst: self.limits.socket_message_burst,
            },
            sessions: self.limits.socket_sessions,
            waits: self.limits.socket_waits,
            idle: self.limits.socket_idle,
            ..Default::default()
        }
    }

    /// The `Link` header values that name the ICE servers (RFC 9725 §4.6).
    pub(crate) fn ice_links(&self) -> Vec<String> {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let stun = self.stun_servers.iter().map(|uri| format!("<{uri}>; rel=\"ice-server\""));
        let turn = self.turn_servers.iter().map(|server| {
            format!(
                "<{}>; rel=\"ice-server\"; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
                server.url,
                quoted(&server.username),
                quoted(&server.credential.0)
            )
        });
        stun.chain(turn).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_an_empty_section_is_the_default() {
        assert_eq!(ApiConfig::default().validate(), Ok(()));
        assert_eq!(toml::from_str::<ApiConfig>("").unwrap(), ApiConfig::default());
        assert_eq!(ApiConfig::default().trusted_proxies.len(), PRIVATE_NETWORKS.len());
    }

    #[test]
    fn mistakes_name_their_key() {
        for (name, text, key) in [
            ("unknown key", "stun = []", "stun"),
            ("unknown limit", "[limits]\nconnection = 1", "connection"),
            ("wrong type", "[limits]\nheader_timeout = 5", "header_timeout"),
            ("bad network", "trusted_proxies = [\"10.0.0.0/99\"]", "trusted_proxies"),
            ("not STUN", "stun_servers = [\"http://x\"]", "stun_servers"),
            ("bracket in TURN", "[[turn_servers]]\nurl = \"turn:a>b\"", "turn_servers"),
            ("not an address", "allowed_dashboard_cidr = \"10.0.0.0/8, home\"", "allowed_dashboard_cidr"),
            ("nobody", "allowed_dashboard_cidr = \"\"", "allowed_dashboard_cidr"),
            ("short key", "server_jwt_secret = \"secret\"", "server_jwt_secret"),
            ("slash", "public_base = \"https://x/\"", "public_base"),
            ("no scheme", "cors_origins = [\"example.com\"]", "cors_origins"),
            ("no connections", "[limits]\nconnections = 0", "limits.connections"),
            ("small bodies", "[limits]\nbody_bytes = 1000", "limits.body_bytes"),
            ("no rate", "[limits]\nrequests_per_second = 0.0", "limits.requests_per_second"),
            ("not a rate", "[limits]\nrequest_burst = nan", "limits.request_burst"),
            ("short silence", "[limits]\nsocket_idle = \"3s\"", "limits.socket_idle"),
        ] {
            let error = match toml::from_str::<ApiConfig>(text) {
                Err(error) => error.to_string(),
                Ok(config) => config.validate().expect_err(name).to_string(),
            };
            assert!(error.contains(key), "{name}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config: ApiConfig =
            toml::from_str("[[turn_servers]]\nurl = \"turn:t\"\nusername = \"u\"\ncredential = \"hunter2\"").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!toml::to_string(&config).unwrap().contains("hunter2"));
        assert_eq!(config.signal_ice_server().credential, "hunter2");
        assert_eq!(
            config.ice_links(),
            ["<turn:t>; rel=\"ice-server\"; username=\"u\"; credential=\"hunter2\"; credential-type=\"password\""]
        );
    }
}
