//! The panel's sessions: signed cookies that every node with the key can read.
//!
//! Owns the cookie's value, the CSRF token that goes with it, and what ends a session early. A session lives in its
//! cookie; nodes share a key, and the few revocations.
//!
//! - `revocation`: sessions that ended before their time

mod revocation;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

pub use self::revocation::{REVOCATIONS_MAX, Revocations};
use crate::id128::hex_id;
use crate::password::PasswordVersion;
use crate::secret::{MacKey, Secret};
use crate::time::UnixMs;

/// Longest cookie value that is looked at, in bytes: what browsers take, name and attributes left out.
pub const COOKIE_LEN_MAX: usize = 3840;
/// Shortest key, in bytes.
pub const KEY_LEN_MIN: usize = 32;
/// Longest user name that gets a session, in bytes.
pub const USER_LEN_MAX: usize = 320;
/// Most keys that still verify.
const KEYS_MAX: usize = 4;
/// Says which format a cookie has, within what is signed.
const VERSION: &str = "v1";

/// A session's name: random, so that nobody guesses another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

hex_id!(SessionId);

/// What a cookie says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Who logged in.
    #[serde(rename = "u")]
    pub user: String,
    /// When.
    #[serde(rename = "i")]
    pub issued: UnixMs,
    /// Until when it is good.
    #[serde(rename = "e")]
    pub expires: UnixMs,
    /// Its name.
    #[serde(rename = "s")]
    pub id: SessionId,
    /// With which password: compare with [`StoredPassword::version`](crate::password::StoredPassword::version).
    #[serde(rename = "p")]
    pub password: PasswordVersion,
}

/// How long sessions last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPolicy {
    /// Without a request.
    pub idle: Duration,
    /// Altogether.
    pub whole: Duration,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self { idle: Duration::from_secs(2 * 3600), whole: Duration::from_secs(24 * 3600) }
    }
}

/// Why a cookie, a key or a CSRF token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Not a cookie of ours, or over [`COOKIE_LEN_MAX`].
    #[error("the session cookie cannot be read")]
    Malformed,
    /// Signed by nobody we know, or changed since.
    #[error("the session cookie's signature is wrong")]
    Signature,
    /// Past its end.
    #[error("the session has expired")]
    Expired,
    /// Logged out, here or on another node.
    #[error("the session has ended")]
    Revoked,
    /// The password is another now.
    #[error("the password has changed since the session began")]
    PasswordChanged,
    /// A key is shorter than [`KEY_LEN_MIN`].
    #[error("the session key is {len} bytes long; the minimum is {KEY_LEN_MIN}")]
    KeyTooShort {
        /// Its length in bytes.
        len: usize,
    },
    /// A user name is empty or longer than [`USER_LEN_MAX`].
    #[error("the user name is empty or too long for a session")]
    UserName,
}

#[derive(Clone, Debug)]
struct Key {
    cookie: MacKey,
    csrf: MacKey,
}

/// The keys of a cluster: the first signs, all verify.
#[derive(Clone, Debug)]
pub struct SessionKeys {
    keys: Vec<Key>,
}

impl SessionKeys {
    /// Signs and verifies with `key`, which may serve for other things too: it is not used itself.
    ///
    /// # Errors
    /// [`SessionError::KeyTooShort`].
    pub fn new(key: &[u8]) -> Result<Self, SessionError> {
        Ok(Self { keys: vec![Key::new(key)?] })
    }

    /// Verifies with `key` too: one that signed before. Of more than four the oldest are left out.
    ///
    /// # Errors
    /// [`SessionError::KeyTooShort`].
    pub fn and_before(mut self, key: &[u8]) -> Result<Self, SessionError> {
        let key = Key::new(key)?;
        if self.keys.len() < KEYS_MAX {
            self.keys.push(key);
        }
        Ok(self)
    }

    /// A new session of `user`, with its cookie value. `random` must come from a generator nobody can predict.
    ///
    /// # Errors
    /// [`SessionError::UserName`].
    pub fn issue(
        &self,
        user: &str,
        password: PasswordVersion,
        random: [u8; 16],
        now: UnixMs,
        policy: &SessionPolicy,
    ) -> Result<(Session, Secret), SessionError> {
        if user.is_empty() || user.len() > USER_LEN_MAX {
            return Err(SessionError::UserName);
        }
        let id = SessionId(u128::from_be_bytes(random));
        let expires = now.plus(policy.idle.min(policy.whole));
        let session = Session { user: user.to_owned(), issued: now, expires, id, password };
        let cookie = self.seal(&session);
        Ok((session, cookie))
    }

    /// The session in a cookie's value, if it is genuine and not past its end. Ask [`Session::check`] next.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn verify(&self, cookie: &str, now: UnixMs) -> Result<Session, SessionError> {
        if cookie.len() > COOKIE_LEN_MAX {
            return Err(SessionError::Malformed);
        }
        let (signed, mac) = cookie.rsplit_once('.').ok_or(SessionError::Malformed)?;
        let payload = signed.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix('.'));
        let payload = payload.ok_or(SessionError::Malformed)?;
        let mac = BASE64.decode(mac).map_err(|_| SessionError::Malformed)?;
        if !self.keys.iter().any(|key| key.cookie.verify(signed.as_bytes(), &mac)) {
            return Err(SessionError::Signature);
        }
        let payload = BASE64.decode(payload).map_err(|_| SessionError::Malformed)?;
        let session: Session = serde_json::from_slice(&payload).map_err(|_| SessionError::Malformed)?;
        if now >= session.expires {
            return Err(SessionError::Expired);
        }
        Ok(session)
    }

    /// The session going on, with a new cookie value, once a quarter of its idle time is over; `None` before, and
    /// when it has lived as long as it may.
    pub fn renew(&self, session: &Session, now: UnixMs, policy: &SessionPolicy) -> Option<(Session, Secret)> {
        let expires = now.plus(policy.idle).min(session.issued.plus(policy.whole));
        if expires.since(session.expires) < policy.idle / 4 {
            return None;
        }
        let session = Session { expires, ..session.clone() };
        let cookie = self.seal(&session);
        Some((session, cookie))
    }

    /// What requests that change something must carry beside the cookie. The same for the whole session.
    pub fn csrf_token(&self, session: &Session) -> Secret {
        let mac = self.keys.first().map(|key| key.csrf.sign(session.csrf_text().as_bytes()));
        BASE64.encode(mac.unwrap_or_default()).into()
    }

    /// Whether `token` is the session's.
    pub fn csrf_matches(&self, session: &Session, token: &str) -> bool {
        let Ok(mac) = BASE64.decode(token.get(..64).unwrap_or(token)) else { return false };
        self.keys.iter().any(|key| key.csrf.verify(session.csrf_text().as_bytes(), &mac))
    }

    fn seal(&self, session: &Session) -> Secret {
        let payload = serde_json::to_string(session).unwrap_or_default();
        let signed = format!("{VERSION}.{}", BASE64.encode(payload));
        let mac = self.keys.first().map(|key| key.cookie.sign(signed.as_bytes()));
        format!("{signed}.{}", BASE64.encode(mac.unwrap_or_default())).into()
    }
}

impl Key {
    fn new(key: &[u8]) -> Result<Self, SessionError> {
        if key.len() < KEY_LEN_MIN {
            return Err(SessionError::KeyTooShort { len: key.len() });
        }
        let key = MacKey::new(key);
        Ok(Self { cookie: key.derive("ams session cookie 1"), csrf: key.derive("ams session csrf 1") })
    }
}

impl Session {
    /// Whether the session still holds: not revoked, and opened with the user's present password.
    ///
    /// # Errors
    /// [`SessionError::Revoked`] or [`SessionError::PasswordChanged`].
    pub fn check(&self, revocations: &Revocations, password: PasswordVersion) -> Result<(), SessionError> {
        if revocations.has(self) {
            return Err(SessionError::Revoked);
        }
        if self.password != password {
            return Err(SessionError::PasswordChanged);
        }
        Ok(())
    }

    fn csrf_text(&self) -> String {
        format!("{}\n{}", self.id, self.user)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);
    const PASSWORD: PasswordVersion = PasswordVersion(7);

    fn keys(seed: u8) -> SessionKeys {
        SessionKeys::new(&[seed; 32]).unwrap()
    }

    fn issue(keys: &SessionKeys) -> (Session, Secret) {
        keys.issue("admin@example.com", PASSWORD, [9; 16], NOW, &SessionPolicy::default()).unwrap()
    }

    #[test]
    fn every_node_with_the_key_reads_a_cookie() {
        let (session, cookie) = issue(&keys(1));
        assert_eq!(keys(1).verify(cookie.expose(), NOW), Ok(session.clone()));
        assert_eq!(keys(2).verify(cookie.expose(), NOW), Err(SessionError::Signature));
        let rotated = keys(2).and_before(&[1; 32]).unwrap();
        assert_eq!(rotated.verify(cookie.expose(), NOW), Ok(session.clone()));
        assert!(rotated.csrf_matches(&session, keys(1).csrf_token(&session).expose()));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(cookie.expose().chars().all(allowed), "no character a cookie must quote");
    }

    #[test]
    fn sessions_end() {
        let (session, cookie) = issue(&keys(1));
        assert!(keys(1).verify(cookie.expose(), UnixMs(session.expires.0 - 1)).is_ok());
        assert_eq!(keys(1).verify(cookie.expose(), session.expires), Err(SessionError::Expired));
        assert_eq!(session.check(&Revocations::default(), PASSWORD), Ok(()));
        let other = session.check(&Revocations::default(), PasswordVersion(8));
        assert_eq!(other, Err(SessionError::PasswordChanged));
    }

    #[test]
    fn sessions_go_on_while_they_are_used_and_not_for_ever() {
        let (keys, policy) = (keys(1), SessionPolicy::default());
        let (mut session, _) = issue(&keys);
        assert!(keys.renew(&session, NOW.plus(policy.idle / 5), &policy).is_none(), "not with every request");
        let mut now = NOW;
        let mut renewals = 0;
        while now < session.expires {
            if let Some((renewed, cookie)) = keys.renew(&session, now, &policy) {
                assert_eq!(keys.verify(cookie.expose(), now).as_ref(), Ok(&renewed));
                assert_eq!((renewed.id, renewed.issued), (session.id, session.issued));
                session = renewed;
                renewals += 1;
            }
            now = now.plus(Duration::from_secs(600));
        }
        assert!(now.since(NOW) <= policy.whole + Duration::from_secs(600));
        assert!((20..60).contains(&renewals), "{renewals}");
    }

    #[test]
    fn a_csrf_token_is_its_sessions_own() {
        let (session, cookie) = issue(&keys(1));
        let token = keys(1).csrf_token(&session);
        assert!(keys(1).csrf_matches(&session, token.expose()));
        let (other, _) = keys(1).issue("admin@example.com", PASSWORD, [8; 16], NOW, &Default::default()).unwrap();
        let mac = cookie.expose().rsplit('.').next().unwrap();
        for wrong in ["", "x", mac, &format!("{}A", token.expose()), "é"] {
            assert!(!keys(1).csrf_matches(&session, wrong), "{wrong}");
        }
        assert!(!keys(1).csrf_matches(&other, token.expose()));
        assert!(!keys(2).csrf_matches(&session, token.expose()));
    }

    #[test]
    fn weak_keys_and_odd_names_are_refused() {
        assert_eq!(SessionKeys::new(&[1; 31]).unwrap_err(), SessionError::KeyTooShort { len: 31 });
        for user in [String::new(), "u".repeat(USER_LEN_MAX + 1)] {
            let refused = keys(1).issue(&user, PASSWORD, [1; 16], NOW, &SessionPolicy::default());
            assert_eq!(refused.unwrap_err(), SessionError::UserName);
        }
        let widest = "\u{1}".repeat(USER_LEN_MAX);
        let (session, cookie) = keys(1).issue(&widest, PASSWORD, [1; 16], NOW, &SessionPolicy::default()).unwrap();
        assert_eq!(keys(1).verify(cookie.expose(), NOW), Ok(session), "what is issued can be read");
        assert!(!format!("{:?} {cookie:?}", keys(1)).contains("0101"), "keys are not printed");
    }

    #[test]
    fn cookies_of_others_are_malformed() {
        for cookie in ["", ".", "v1", "v1.", "v1..", "v1.e30.", "v2.e30.AAAA", "JSESSIONID", &"a.".repeat(2000)] {
            let error = keys(1).verify(cookie, NOW).unwrap_err();
            assert!(matches!(error, SessionError::Malformed | SessionError::Signature), "{cookie}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_cookie_never_passes(at in 0usize..300, to in any::<char>()) {
            let (_, cookie) = issue(&keys(1));
            let mut chars: Vec<char> = cookie.expose().chars().collect();
            let at = at % chars.len();
            prop_assume!(chars[at] != to);
            chars[at] = to;
            prop_assert!(keys(1).verify(&chars.into_iter().collect::<String>(), NOW).is_err());
        }
    }
}
