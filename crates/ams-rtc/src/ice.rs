//! ICE-lite (RFC 8445 §2.5) for one peer: answers checks, remembers the path the peer nominated and when it spoke.
//!
//! Owns the local and remote credentials and a few validated paths. Never sends a check of its own, holds no socket
//! and no clock. Also tells the protocols on one port apart ([`classify`], RFC 7983) and finds which peer an unknown
//! address belongs to ([`peek_ufrag`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use aws_lc_rs::hmac;
use rand::Rng;

use crate::stun::{self, Kind, Message};

/// Paths remembered per peer; the one silent for longest gives way.
pub const PATHS_MAX: usize = 8;

const UFRAG_LEN: usize = 8;
const PASSWORD_LEN: usize = 24;
/// Longest ufrag and password (RFC 8839 §5.4).
const CREDENTIAL_LEN_MAX: usize = 256;
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// One side's ICE user name fragment and password (RFC 8839 §5.4). `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    ufrag: String,
    pwd: String,
}

/// Why a ufrag and password pair is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// The user name fragment is too short, too long or has a character ICE does not allow.
    #[error("ice-ufrag must be 4 to 256 letters, digits, '+' or '/'")]
    Ufrag,
    /// The password is too short, too long or has a character ICE does not allow.
    #[error("ice-pwd must be 22 to 256 letters, digits, '+' or '/'")]
    Password,
}

impl IceCredentials {
    /// Takes what an SDP said.
    ///
    /// # Errors
    /// When a length or character is outside RFC 8839 §5.4. `-`, `_` and `=` are let through: some stacks use them.
    pub fn new(ufrag: impl Into<String>, pwd: impl Into<String>) -> Result<IceCredentials, InvalidCredentials> {
        let (ufrag, pwd) = (ufrag.into(), pwd.into());
        let fits = |text: &str, len_min: usize| {
            (len_min..=CREDENTIAL_LEN_MAX).contains(&text.len())
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"+/-_=".contains(&c))
        };
        if !fits(&ufrag, 4) {
            return Err(InvalidCredentials::Ufrag);
        }
        if !fits(&pwd, 22) {
            return Err(InvalidCredentials::Password);
        }
        Ok(IceCredentials { ufrag, pwd })
    }

    /// Fresh ones from the thread's cryptographic generator: 48 bits of ufrag, 144 of password.
    pub fn random() -> IceCredentials {
        IceCredentials { ufrag: random_text(UFRAG_LEN), pwd: random_text(PASSWORD_LEN) }
    }

    /// The user name fragment, as in `a=ice-ufrag`.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The password, as in `a=ice-pwd`.
    pub fn pwd(&self) -> &str {
        &self.pwd
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

fn random_text(len: usize) -> String {
    let mut rng = rand::rng();
    (0..len).map(|_| char::from(ICE_CHARS[rng.random_range(0..ICE_CHARS.len())])).collect()
}

/// What a datagram on a media port is, by its first bytes (RFC 7983, RFC 5761 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// STUN.
    Stun,
    /// A DTLS record.
    Dtls,
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP: packet type 192 to 223.
    Rtcp,
    /// Nothing expected here.
    Unknown,
}

/// Tells a datagram's protocol from its first two bytes.
pub fn classify(datagram: &[u8]) -> DatagramKind {
    match datagram {
        [0..=3, ..] => DatagramKind::Stun,
        [20..=63, ..] => DatagramKind::Dtls,
        [128..=191, 192..=223, ..] => DatagramKind::Rtcp,
        [128..=191, _, ..] => DatagramKind::Rtp,
        _ => DatagramKind::Unknown,
    }
}

/// Our ufrag out of a STUN request's USERNAME, nothing checked: only good for finding the peer to ask.
pub fn peek_ufrag(datagram: &[u8]) -> Option<&str> {
    stun::peek_username(datagram)?.split_once(':').map(|(local, _)| local)
}

/// A pair of addresses packets went over: the peer's, and the address of ours they came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where the peer is.
    pub remote: SocketAddr,
    /// Which of our addresses it talks to.
    pub local_ip: IpAddr,
}

#[derive(Debug)]
struct SeenPath {
    path: Path,
    last_seen: Instant,
}

/// One set of credentials on both sides; a restart has two of them alive for a while.
struct Generation {
    local: IceCredentials,
    key: hmac::Key,
    remote_ufrag: Option<String>,
}

impl Generation {
    fn new(local: IceCredentials, remote_ufrag: Option<String>) -> Generation {
        let key = stun::integrity_key(&local.pwd);
        Generation { local, key, remote_ufrag }
    }

    fn matches(&self, username: &str) -> bool {
        let Some((local, remote)) = username.split_once(':') else { return false };
        local == self.local.ufrag && self.remote_ufrag.as_deref().is_none_or(|known| known == remote)
    }
}

/// What came of one STUN datagram.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IceOutcome {
    /// What to send back on the same path.
    pub reply: Option<Vec<u8>>,
    /// The request carried our password: the peer is alive and consents (RFC 7675).
    pub authenticated: bool,
    /// The peer nominated another path than before.
    pub selected: Option<Path>,
    /// The datagram was no STUN message and is best counted.
    pub malformed: bool,
}

/// The ICE side of one peer. Call [`IceLite::handle`] for each STUN datagram and send the reply.
pub struct IceLite {
    current: Generation,
    /// The generation before a restart, good until the first check on the new one (RFC 8445 §9).
    previous: Option<Generation>,
    paths: Vec<SeenPath>,
    selected: Option<Path>,
    stun_seen: bool,
    last_seen: Option<Instant>,
}

impl IceLite {
    /// Starts with our credentials; the peer's may follow.
    pub fn new(local: IceCredentials) -> IceLite {
        IceLite {
            current: Generation::new(local, None),
            previous: None,
            paths: Vec::new(),
            selected: None,
            stun_seen: false,
            last_seen: None,
        }
    }

    /// Our credentials, the newest after a restart.
    pub fn local(&self) -> &IceCredentials {
        &self.current.local
    }

    /// The peer's ufrag; checks naming another are refused from now on. A lite agent has no use for its password.
    pub fn set_remote_ufrag(&mut self, ufrag: &str) {
        self.current.remote_ufrag = Some(ufrag.to_owned());
    }

    /// Begins an ICE restart: `local` becomes current, what was stays good until a check on the new comes in.
    pub fn restart(&mut self, local: IceCredentials) {
        let previous = std::mem::replace(&mut self.current, Generation::new(local, None));
        // A second restart before anyone used the first keeps what the peer really uses.
        self.previous.get_or_insert(previous);
    }

    /// The ufrags a check may be addressed to right now.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.current).chain(&self.previous).map(|generation| generation.local.ufrag.as_str())
    }

    /// The path the peer nominated last.
    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// Where to send: the nominated path, else the one that spoke last.
    pub fn best_path(&self) -> Option<Path> {
        self.selected.or_else(|| self.paths.iter().max_by_key(|seen| seen.last_seen).map(|seen| seen.path))
    }

    /// Whether `remote` proved to be the peer with a check.
    pub fn is_validated(&self, remote: SocketAddr) -> bool {
        self.selected.is_some_and(|path| path.remote == remote) || self.paths.iter().any(|s| s.path.remote == remote)
    }

    /// Whether any STUN datagram came at all, good or bad.
    pub fn stun_seen(&self) -> bool {
        self.stun_seen
    }

    /// When the last authenticated check came.
    pub fn last_seen(&self) -> Option<Instant> {
        self.last_seen
    }

    /// Answers one STUN datagram from `path`.
    pub fn handle(&mut self, now: Instant, path: Path, datagram: &[u8]) -> IceOutcome {
        self.stun_seen = true;
        let Ok(message) = Message::parse(datagram) else {
            return IceOutcome { malformed: true, ..IceOutcome::default() };
        };
        if message.kind != Kind::Request {
            return IceOutcome::default();
        }
        let refuse = |code, reason, key| IceOutcome {
            reply: Some(stun::error(message.transaction_id, code, reason, None, key)),
            ..IceOutcome::default()
        };
        let (Some(username), true) = (message.username, message.has_integrity()) else {
            return refuse(400, "Bad Request", None);
        };
        let on_current = self.current.matches(username) && message.verify_integrity(&self.current.key);
        let on_previous = !on_current
            && self
                .previous
                .as_ref()
                .is_some_and(|generation| generation.matches(username) && message.verify_integrity(&generation.key));
        let generation = match (&self.previous, on_current, on_previous) {
            (_, true, _) => &self.current,
            (Some(previous), _, true) => previous,
            _ => return refuse(401, "Unauthenticated", None),
        };
        if let Some(unknown) = message.unknown_required {
            let reply =
                stun::error(message.transaction_id, 420, "Unknown Attribute", Some(unknown), Some(&generation.key));
            return IceOutcome { reply: Some(reply), ..IceOutcome::default() };
        }
        // A lite agent is always controlled; only the peer can give way (RFC 8445 §7.3.1.1).
        if message.controlled {
            return refuse(487, "Role Conflict", Some(&generation.key));
        }
        let reply = Some(stun::success(message.transaction_id, path.remote, &generation.key));
        if on_current {
            self.previous = None;
        }
        self.last_seen = Some(now);
        self.remember(now, path);
        let moved = message.use_candidate && self.selected != Some(path);
        if moved {
            self.selected = Some(path);
        }
        IceOutcome { reply, authenticated: true, selected: moved.then_some(path), malformed: false }
    }

    fn remember(&mut self, now: Instant, path: Path) {
        if let Some(seen) = self.paths.iter_mut().find(|seen| seen.path == path) {
            seen.last_seen = now;
        } else if self.paths.len() < PATHS_MAX {
            self.paths.push(SeenPath { path, last_seen: now });
        } else if let Some(oldest) = self.paths.iter_mut().min_by_key(|seen| seen.last_seen) {
            *oldest = SeenPath { path, last_seen: now };
        }
    }
}

#[cfg(test)]
mod tests;
