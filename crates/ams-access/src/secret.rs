//! Text and keys that are never shown.
//!
//! Owns masking: nothing here prints, serialises or compares early. [`Secret`] is what comes from settings and
//! requests, [`MacKey`] a key ready for use.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use serde::{Deserialize, Deserializer};

/// What is printed instead of a secret.
pub(crate) const MASK: &str = "********";

/// Text that is not shown. Deliberately without `Serialize` and `Display`: whoever stores it calls
/// [`expose`](Self::expose).
#[derive(Clone, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself. Never for logs or errors.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing is set: AMS writes an unset secret as empty or blank text.
    pub fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }

    /// Compares in a time that depends on the lengths alone.
    pub fn matches(&self, other: &str) -> bool {
        same(self.0.as_bytes(), other.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(unset)" } else { MASK })
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// `null` is AMS's way to write an unset secret.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// An HMAC-SHA256 key that is not shown.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// A key of these bytes, of any length (RFC 2104).
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A key for one purpose, so that what is made for one never passes for another.
    pub(crate) fn derive(&self, purpose: &str) -> Self {
        Self::new(&self.sign(purpose.as_bytes()))
    }

    /// HMAC-SHA256 of `data`.
    pub(crate) fn sign(&self, data: &[u8]) -> [u8; 32] {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.0, data).as_ref());
        mac
    }

    /// Whether `mac` is the HMAC-SHA256 of `data`, in constant time.
    pub(crate) fn verify(&self, data: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.0, data, mac).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), MASK);
        assert_eq!(format!("{:?}", Secret::default()), "(unset)");
        assert_eq!(format!("{:?}", MacKey::new(b"hunter2")), MASK);
    }

    #[test]
    fn unset_secrets_come_in_three_spellings() {
        for text in ["null", "\"\"", "\"  \""] {
            assert!(serde_json::from_str::<Secret>(text).unwrap().is_blank(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Secret>("\"a\"").unwrap().expose(), "a");
    }

    #[test]
    fn comparison_is_exact() {
        let secret = Secret::from("abc");
        assert!(secret.matches("abc"));
        for other in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!secret.matches(other), "{other}");
        }
    }
}
