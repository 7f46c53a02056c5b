//! Passwords of the panel's users: AMS's MD5 chain, and Argon2id beside it.
//!
//! Owns the stored forms and the verdict. AMS's panel sends `c = md5(password)`, its server stores `md5(c)`. We read
//! that, and write Argon2id over `c` into fields of our own at the first login; AMS's field stays what AMS expects.
//! A fingerprint remembers what AMS's field said then: if it says something else later, somebody reset the password
//! with AMS's tools or by hand, and AMS's field counts again.
//!
//! - `argon`: the Argon2id form

mod argon;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest, Md5};
use serde::Deserialize;

pub use self::argon::ArgonCost;
use crate::secret::{MASK, Secret, same};

/// Longest password that is looked at, in bytes.
pub const PASSWORD_LEN_MAX: usize = 1024;
/// Length of an MD5 sum in hex.
const MD5_LEN: usize = 32;

/// The fields of a user's document that hold its password. Serialised by its owner, field by field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StoredPassword {
    /// AMS's field.
    pub password: Secret,
    /// Ours: Argon2id as a PHC string.
    #[serde(rename = "passwordArgon2")]
    pub argon2: Secret,
    /// Ours: fingerprint of what AMS's field said when `argon2` was made.
    #[serde(rename = "passwordSeen")]
    pub seen: Option<String>,
}

/// Which password a session was opened with. Changes with every change of the stored fields, whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct PasswordVersion(pub u64);

impl StoredPassword {
    /// See [`PasswordVersion`]. After a login that stores new fields, take it of those.
    pub fn version(&self) -> PasswordVersion {
        let fields = [self.password.expose(), self.argon2.expose(), self.seen.as_deref().unwrap_or_default()];
        let sum = digest(&SHA256, fields.join("\0").as_bytes());
        let mut word = [0; 8];
        word.copy_from_slice(&sum.as_ref()[..8]);
        PasswordVersion(u64::from_be_bytes(word))
    }
}

/// What AMS's field says beside an Argon2id hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LegacyField {
    /// What AMS would have written: AMS's nodes and tools go on working.
    #[default]
    Kept,
    /// Nothing any password leads to: who reads the database learns nothing quickly. AMS's nodes let nobody in.
    Retired,
}

/// How passwords are checked and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// What Argon2id costs.
    pub cost: ArgonCost,
    /// What AMS's field says.
    pub legacy: LegacyField,
    /// Whether `md5(password)` in AMS's field is a password too. AMS's documentation resets passwords so, and AMS's
    /// panel cannot log in with it. Until the first login with it, who can read the field can log in.
    pub accept_single_md5: bool,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { cost: ArgonCost::default(), legacy: LegacyField::Kept, accept_single_md5: true }
    }
}

/// The outcome of [`check`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PasswordVerdict {
    /// Whether the password is right.
    pub ok: bool,
    /// Whether it is right and [`NewPassword::make`] of [`canonical`](Self::canonical) should be stored.
    pub must_rehash: bool,
    /// Whether AMS's field has changed since the Argon2id hash was made; said for wrong passwords too.
    pub reset_seen: bool,
    /// The password to store anew, if it is right.
    pub canonical: Option<Canonical>,
}

/// A password in the form that is stored: the MD5 sum of what people type, in hex.
#[derive(Clone, PartialEq)]
pub struct Canonical(String);

impl Canonical {
    /// Of what a client sent: the panel sends MD5 sums, other clients what people type. (Who types 32 hex digits is
    /// taken for a panel, as in AMS.)
    pub fn of_sent(sent: &Secret) -> Self {
        let sent = sent.expose();
        Self(if is_md5(sent) { sent.to_owned() } else { md5_hex(sent) })
    }
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Fields to store.
#[derive(Clone, Debug)]
pub struct NewPassword {
    /// For AMS's field `password`.
    pub password: Secret,
    /// For `passwordArgon2`.
    pub argon2: Secret,
    /// For `passwordSeen`.
    pub seen: String,
}

impl NewPassword {
    /// Hashes `canonical` with 16 random bytes as salt. Takes tens of milliseconds: not on an async thread.
    pub fn make(canonical: &Canonical, salt: [u8; 16], policy: &PasswordPolicy) -> Self {
        let argon2 = argon::hash(canonical.0.as_bytes(), &salt, policy.cost);
        let password = match policy.legacy {
            LegacyField::Kept => md5_hex(&canonical.0),
            LegacyField::Retired => format!("retired:{}", hex::encode(salt)),
        };
        Self { seen: fingerprint(&password), password: password.into(), argon2: argon2.into() }
    }

    /// The fields to write into the user's document, by name.
    pub fn fields(&self) -> [(&'static str, &str); 3] {
        [
            ("password", self.password.expose()),
            ("passwordArgon2", self.argon2.expose()),
            ("passwordSeen", self.seen.as_str()),
        ]
    }

    /// What it looks like once stored.
    pub fn stored(&self) -> StoredPassword {
        StoredPassword { password: self.password.clone(), argon2: self.argon2.clone(), seen: Some(self.seen.clone()) }
    }
}

/// Whether `sent` is the password. Takes tens of milliseconds: not on an async thread.
pub fn check(stored: &StoredPassword, sent: &Secret, policy: &PasswordPolicy) -> PasswordVerdict {
    let reset_seen = stored
        .seen
        .as_deref()
        .is_some_and(|seen| !same(seen.as_bytes(), fingerprint(stored.password.expose()).as_bytes()));
    let hash = argon::Hash::parse(stored.argon2.expose()).filter(|_| !reset_seen);
    let canonical = match &hash {
        _ if sent.expose().is_empty() || sent.expose().len() > PASSWORD_LEN_MAX => None,
        Some(hash) => with_argon(hash, sent.expose()),
        None => {
            let found = with_legacy(stored.password.expose(), sent.expose(), policy);
            if found.is_none() {
                check_nobody(sent, policy);
            }
            found
        }
    };
    let retires = policy.legacy == LegacyField::Retired && is_md5(stored.password.expose());
    let outdated = hash.is_none_or(|hash| hash.cost != policy.cost) || retires;
    let ok = canonical.is_some();
    PasswordVerdict { ok, must_rehash: ok && outdated, reset_seen, canonical }
}

/// Takes as long as [`check`] of a wrong password, so that answers do not tell who is there.
pub fn check_nobody(sent: &Secret, policy: &PasswordPolicy) -> PasswordVerdict {
    if sent.expose().len() <= PASSWORD_LEN_MAX {
        for candidate in candidates(sent.expose()) {
            std::hint::black_box(argon::hash(candidate.as_bytes(), &[0; 16], policy.cost));
        }
    }
    PasswordVerdict::default()
}

fn with_argon(hash: &argon::Hash, sent: &str) -> Option<Canonical> {
    candidates(sent).find(|candidate| hash.matches(candidate.as_bytes())).map(Canonical)
}

/// What may be stored of what was sent: itself if it can be the panel's sum, and its sum.
fn candidates(sent: &str) -> impl Iterator<Item = String> {
    is_md5(sent).then(|| sent.to_owned()).into_iter().chain(std::iter::once_with(|| md5_hex(sent)))
}

/// AMS's chain. All forms are always compared.
fn with_legacy(stored: &str, sent: &str, policy: &PasswordPolicy) -> Option<Canonical> {
    let stored = stored.trim().to_ascii_lowercase();
    let (once, twice) = (md5_hex(sent), md5_hex(&md5_hex(sent)));
    let is = |sum: &str| same(stored.as_bytes(), sum.as_bytes());
    let (is_once, is_twice, is_sent) = (is(&once), is(&twice), is(sent));
    if !is_md5(&stored) {
        return None;
    }
    if is_once && is_md5(sent) || is_sent && policy.accept_single_md5 && is_md5(sent) {
        return Some(Canonical(sent.to_owned()));
    }
    (is_twice || is_once && policy.accept_single_md5).then_some(Canonical(once))
}

/// Whether a text is an MD5 sum as the panel writes it.
fn is_md5(text: &str) -> bool {
    text.len() == MD5_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn md5_hex(text: &str) -> String {
    hex::encode(Md5::digest(text.as_bytes()))
}

/// Says whether a field has changed, without saying what it was.
fn fingerprint(field: &str) -> String {
    hex::encode(digest(&SHA256, field.as_bytes()))
}

#[cfg(test)]
mod tests;
