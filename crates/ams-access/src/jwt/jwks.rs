//! JSON Web Key Sets (RFC 7517): the public keys of whoever signs tokens elsewhere.
//!
//! Owns parsing and choosing. The document was fetched by the caller, who also decides when to fetch it again:
//! [`JwtError::UnknownKey`] is a reason to, at a bounded rate.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;

use super::{Check, Claims, JwtError, Parts};

/// Longest document that is read, in bytes.
pub const JWKS_LEN_MAX: usize = 256 * 1024;
/// Most keys of a document.
pub const JWKS_KEYS_MAX: usize = 64;
/// Length of a P-256 coordinate, in bytes.
const COORDINATE_LEN: usize = 32;

/// Why a document is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Over [`JWKS_LEN_MAX`].
    #[error("the key set is {len} bytes long; the limit is {JWKS_LEN_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not JSON, or without `keys`.
    #[error("the key set is no JSON object with a list of keys")]
    Malformed,
    /// More keys than [`JWKS_KEYS_MAX`].
    #[error("the key set has {found} keys; the limit is {JWKS_KEYS_MAX}")]
    TooMany {
        /// How many it has.
        found: usize,
    },
    /// None of its keys is for RS256 or ES256 signatures.
    #[error("the key set has no key for RS256 or ES256 signatures")]
    NoUsableKey,
}

/// Public keys to verify with.
#[derive(Clone, Debug)]
pub struct Jwks {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    kid: Option<String>,
    public: Public,
}

#[derive(Clone)]
enum Public {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point of P-256.
    Ec {
        point: Vec<u8>,
    },
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwks {
    /// Reads a key set. Keys for something else (other algorithms, encryption) are skipped, as RFC 7517 §5 asks.
    ///
    /// # Errors
    /// See [`JwksError`]; a set without a usable key is one.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > JWKS_LEN_MAX {
            return Err(JwksError::TooLong { len: json.len() });
        }
        let document: Document = serde_json::from_slice(json).map_err(|_| JwksError::Malformed)?;
        if document.keys.len() > JWKS_KEYS_MAX {
            return Err(JwksError::TooMany { found: document.keys.len() });
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() { Err(JwksError::NoUsableKey) } else { Ok(Self { keys }) }
    }

    /// What `token` says, if a key of the set signed it and it is valid at the time of `check`.
    ///
    /// The key is the one whose `kid` the token names, or, if it names none, the only one for its algorithm.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub fn verify(&self, token: &str, check: &Check) -> Result<Claims, JwtError> {
        let parts = Parts::split(token)?;
        let alg = parts.header.alg.as_str();
        if !["RS256", "ES256"].contains(&alg) {
            return Err(JwtError::Algorithm { expected: "RS256 or ES256" });
        }
        let kid = parts.header.kid.as_deref();
        let mut meant = self.keys.iter().filter(|key| key.alg() == alg && (kid.is_none() || key.kid.as_deref() == kid));
        let (Some(key), None) = (meant.next(), meant.next()) else { return Err(JwtError::UnknownKey) };
        if !key.verifies(parts.signed, &parts.signature) {
            return Err(JwtError::Signature);
        }
        parts.claims(check)
    }

    /// How many keys are usable.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a set without a usable key is an error.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Key {
    fn read(json: serde_json::Value) -> Option<Self> {
        let written: Written = serde_json::from_value(json).ok()?;
        if written.usage.is_some_and(|usage| usage != "sig")
            || written.key_ops.is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
        {
            return None;
        }
        let bytes = |text: Option<String>| BASE64.decode(text?.trim_end_matches('=')).ok();
        let public = match written.kty.as_str() {
            "RSA" => {
                let public = Public::Rsa { modulus: bytes(written.n)?, exponent: bytes(written.e)? };
                public.is_sound().then_some(public)?
            }
            "EC" if written.crv.as_deref() == Some("P-256") => {
                let (x, y) = (bytes(written.x)?, bytes(written.y)?);
                if x.len() != COORDINATE_LEN || y.len() != COORDINATE_LEN {
                    return None;
                }
                Public::Ec { point: [&[4], x.as_slice(), &y].concat() }
            }
            _ => return None,
        };
        let key = Self { kid: written.kid, public };
        written.alg.is_none_or(|alg| alg == key.alg()).then_some(key)
    }

    fn alg(&self) -> &'static str {
        match self.public {
            Public::Rsa { .. } => "RS256",
            Public::Ec { .. } => "ES256",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Public::Ec { point } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
        }
    }
}

impl Public {
    /// RFC 7518 §3.3 wants 2048 bits or more; above 8192 a signature costs too much time.
    fn is_sound(&self) -> bool {
        match self {
            Self::Rsa { modulus, exponent } => {
                (256..=1024).contains(&modulus.len()) && (1..=8).contains(&exponent.len())
            }
            Self::Ec { point } => point.len() == 1 + 2 * COORDINATE_LEN,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key {:?}", self.alg(), self.kid)
    }
}
