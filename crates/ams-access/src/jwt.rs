//! JSON Web Tokens (RFC 7519) in compact form (RFC 7515 §7.1): HS256 to sign and verify, RS256 and ES256 to verify.
//!
//! Owns the format and the checks of time and signature; what claims mean is the caller's. The algorithm is the
//! key's, never the token's: a token that names another is refused before its signature is looked at.
//!
//! - `claims`: what a token says
//! - `jwks`: public keys of somebody else

mod claims;
mod jwks;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;

pub use self::claims::Claims;
pub use self::jwks::{JWKS_KEYS_MAX, JWKS_LEN_MAX, Jwks, JwksError};
use crate::secret::{MacKey, Secret};
use crate::time::UnixMs;

/// Longest token that is looked at, in bytes. A query string or a header carries no more.
pub const TOKEN_LEN_MAX: usize = 8 * 1024;
/// Shortest HS256 key, in bytes (RFC 7518 §3.2); AMS asks for the same.
pub const KEY_LEN_MIN: usize = 32;

/// Why a token is not accepted. Nothing of the token is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// There is no token.
    #[error("there is no token")]
    Missing,
    /// Over [`TOKEN_LEN_MAX`].
    #[error("the token is {len} bytes long; the limit is {TOKEN_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not three parts of base64url with JSON in the first two.
    #[error("the token's {part} cannot be read")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// The token names an algorithm its key is not for, `none` among them.
    #[error("the token does not say algorithm {expected}")]
    Algorithm {
        /// What it should name.
        expected: &'static str,
    },
    /// The token asks for an extension (`crit`, RFC 7515 §4.1.11); we know none.
    #[error("the token asks for an extension")]
    Critical,
    /// No key of the set is meant: ask for a newer one.
    #[error("no known key is meant by the token")]
    UnknownKey,
    /// Signed with another key, or changed since.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` has passed.
    #[error("the token expired {ago_secs} s ago")]
    Expired {
        /// Seconds since then, leeway not counted.
        ago_secs: u64,
    },
    /// `nbf` has not come.
    #[error("the token is valid in {in_secs} s")]
    NotYetValid {
        /// Seconds until then, leeway not counted.
        in_secs: u64,
    },
    /// There is no `exp` and it is asked for.
    #[error("the token never expires")]
    NoExpiry,
    /// The key is shorter than [`KEY_LEN_MIN`].
    #[error("the key is {len} bytes long; HS256 needs at least {KEY_LEN_MIN}")]
    KeyTooShort {
        /// Its length in bytes.
        len: usize,
    },
}

/// When a token counts as valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The present.
    pub now: UnixMs,
    /// How far the signer's clock may be off, either way.
    pub leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub require_expiry: bool,
}

impl Check {
    /// With a minute of leeway, and `exp` optional as in AMS.
    pub fn at(now: UnixMs) -> Self {
        Self { now, leeway: Duration::from_secs(60), require_expiry: false }
    }

    /// With this leeway.
    pub fn leeway(self, leeway: Duration) -> Self {
        Self { leeway, ..self }
    }

    /// With `exp` required.
    pub fn with_expiry(self) -> Self {
        Self { require_expiry: true, ..self }
    }

    fn claims(&self, claims: &Claims) -> Result<(), JwtError> {
        match claims.exp {
            // RFC 7519 §4.1.4: "on or after which the JWT MUST NOT be accepted".
            Some(exp) if self.now >= UnixMs::from_secs(exp).plus(self.leeway) => {
                return Err(JwtError::Expired { ago_secs: self.now.secs().saturating_sub(exp) });
            }
            None if self.require_expiry => return Err(JwtError::NoExpiry),
            _ => {}
        }
        match claims.nbf {
            Some(nbf) if self.now < UnixMs::from_secs(nbf).minus(self.leeway) => {
                Err(JwtError::NotYetValid { in_secs: nbf.saturating_sub(self.now.secs()) })
            }
            _ => Ok(()),
        }
    }
}

/// A shared key for HS256.
#[derive(Clone)]
pub struct Hs256Key(MacKey);

impl Hs256Key {
    /// The key in an application's or the server's settings: the bytes of its text.
    ///
    /// # Errors
    /// [`JwtError::KeyTooShort`], an unset key among them: with one of a few characters anybody finds it out from a
    /// single token.
    pub fn new(secret: &Secret) -> Result<Self, JwtError> {
        let len = secret.expose().len();
        if len < KEY_LEN_MIN || secret.is_blank() {
            return Err(JwtError::KeyTooShort { len });
        }
        Ok(Self(MacKey::new(secret.expose().as_bytes())))
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &Claims) -> String {
        let header = BASE64.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let mut token = format!("{header}.{}", BASE64.encode(claims.to_json()));
        let signature = BASE64.encode(self.0.sign(token.as_bytes()));
        token.push('.');
        token.push_str(&signature);
        token
    }

    /// What `token` says, if it is signed with this key and valid at the time of `check`.
    ///
    /// # Errors
    /// See [`JwtError`]. The signature is looked at before anything in the claims.
    pub fn verify(&self, token: &str, check: &Check) -> Result<Claims, JwtError> {
        let parts = Parts::split(token)?;
        if parts.header.alg != "HS256" {
            return Err(JwtError::Algorithm { expected: "HS256" });
        }
        if !self.0.verify(parts.signed, &parts.signature) {
            return Err(JwtError::Signature);
        }
        parts.claims(check)
    }
}

impl fmt::Debug for Hs256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The token in an `Authorization` or `ProxyAuthorization` header: AMS takes it with and without `Bearer`.
pub fn bearer(header: &str) -> &str {
    let header = header.trim();
    match header.get(..6) {
        Some(word) if word.eq_ignore_ascii_case("bearer") => header.get(6..).unwrap_or_default().trim_start(),
        _ => header,
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

/// A token taken apart; nothing in it is believed yet.
struct Parts<'a> {
    header: Header,
    /// Header and payload as they stand, which is what was signed.
    signed: &'a [u8],
    payload: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, JwtError> {
        if token.is_empty() {
            return Err(JwtError::Missing);
        }
        if token.len() > TOKEN_LEN_MAX {
            return Err(JwtError::TooLong { len: token.len() });
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed { part: "form" })?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed { part: "form" })?;
        if payload.contains('.') {
            return Err(JwtError::Malformed { part: "form" });
        }
        let malformed = |part| move |_| JwtError::Malformed { part };
        let header = BASE64.decode(header).map_err(malformed("header"))?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| JwtError::Malformed { part: "header" })?;
        if header.crit.is_some() {
            return Err(JwtError::Critical);
        }
        let signature = BASE64.decode(signature).map_err(malformed("signature"))?;
        Ok(Self { header, signed: signed.as_bytes(), payload, signature })
    }

    /// What it says. Only for a token whose signature was found right.
    fn claims(&self, check: &Check) -> Result<Claims, JwtError> {
        let payload = BASE64.decode(self.payload).map_err(|_| JwtError::Malformed { part: "payload" })?;
        let claims = Claims::from_json(&payload).ok_or(JwtError::Malformed { part: "payload" })?;
        check.claims(&claims)?;
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
