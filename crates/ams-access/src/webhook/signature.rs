//! Who sent a webhook, and when.
//!
//! The signature is HMAC-SHA256 over the timestamp, a dot, and the body, and travels in headers:
//!
//! ```text
//! X-Ams-Event-Id: 5f0c…            the same for every try
//! X-Ams-Timestamp: 1700000000000   when this try was sent, ms since 1970
//! X-Ams-Signature: v1=9a3f…        several with commas between, while a key is being replaced
//! ```

use std::time::Duration;

use crate::secret::{MacKey, Secret};
use crate::time::UnixMs;

/// Header of the event's id.
pub const HEADER_EVENT_ID: &str = "X-Ams-Event-Id";
/// Header of the time of sending, ms since 1970.
pub const HEADER_TIMESTAMP: &str = "X-Ams-Timestamp";
/// Header of the signature.
pub const HEADER_SIGNATURE: &str = "X-Ams-Signature";
/// Shortest key, in bytes.
const KEY_LEN_MIN: usize = 16;
/// Most signatures a receiver looks at.
const SIGNATURES_MAX: usize = 8;

/// Why a delivery is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The timestamp is no number of milliseconds.
    #[error("the timestamp cannot be read")]
    Timestamp,
    /// Sent too long ago, or in the future: perhaps a recording.
    #[error("the timestamp is {off_secs} s off")]
    TooOld {
        /// By how much, either way.
        off_secs: u64,
    },
    /// No signature is right.
    #[error("the signature is wrong")]
    Signature,
}

/// A webhook key is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the webhook key is {len} bytes long; the minimum is {KEY_LEN_MIN}")]
pub struct WebhookKeyError {
    /// Its length in bytes.
    pub len: usize,
}

/// What a sender and its receivers share.
#[derive(Clone, Debug)]
pub struct WebhookKey(MacKey);

impl WebhookKey {
    /// The key of these characters.
    ///
    /// # Errors
    /// When there are fewer than 16 bytes of them.
    pub fn new(secret: &Secret) -> Result<Self, WebhookKeyError> {
        let len = secret.expose().len();
        if len < KEY_LEN_MIN { Err(WebhookKeyError { len }) } else { Ok(Self(MacKey::new(secret.expose().as_bytes()))) }
    }

    /// The value of [`HEADER_SIGNATURE`] for a body sent at `at`, the value of [`HEADER_TIMESTAMP`].
    pub fn sign(&self, at: UnixMs, body: &[u8]) -> String {
        format!("v1={}", hex::encode(self.0.sign(&signed(&at.0.to_string(), body))))
    }

    /// Whether a delivery is from who shares the key, and not older than `tolerance`. `timestamp` and `signature` are
    /// the headers' values. For receivers.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn verify(
        &self,
        timestamp: &str,
        signature: &str,
        body: &[u8],
        now: UnixMs,
        tolerance: Duration,
    ) -> Result<(), WebhookError> {
        let at = timestamp.parse().map(UnixMs).map_err(|_| WebhookError::Timestamp)?;
        let signed = signed(timestamp, body);
        let is_ours = signature.split(',').take(SIGNATURES_MAX).any(|one| {
            let mut mac = [0; 32];
            let hex = one.trim().strip_prefix("v1=").unwrap_or_default();
            hex::decode_to_slice(hex, &mut mac).is_ok() && self.0.verify(&signed, &mac)
        });
        if !is_ours {
            return Err(WebhookError::Signature);
        }
        let off = now.since(at).max(at.since(now));
        if off > tolerance {
            return Err(WebhookError::TooOld { off_secs: off.as_secs() });
        }
        Ok(())
    }
}

fn signed(timestamp: &str, body: &[u8]) -> Vec<u8> {
    [timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn key(text: &str) -> WebhookKey {
        WebhookKey::new(&text.into()).unwrap()
    }

    #[test]
    fn a_known_signature() {
        // printf '1700000000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let want = "v1=cd08d6ce62dd5fb4489d9aff87256f4aa94716385a04d368cd6ac41d5516bc4b";
        assert_eq!(key("0123456789abcdef").sign(NOW, b"{}"), want);
    }

    #[test]
    fn only_fresh_and_genuine_deliveries_are_believed() {
        let key = key("0123456789abcdef");
        let good = key.sign(NOW, b"{}");
        let other = self::key("fedcba9876543210").sign(NOW, b"{}");
        let at = "1700000000000";
        let off = |off_secs| Err(WebhookError::TooOld { off_secs });
        for (name, timestamp, signature, body, now, want) in [
            ("good", at, good.clone(), "{}", NOW, Ok(())),
            ("a minute late", at, good.clone(), "{}", NOW.plus(MINUTE), Ok(())),
            ("replayed", at, good.clone(), "{}", NOW.plus(MINUTE * 2), off(120)),
            ("from the future", at, good.clone(), "{}", NOW.minus(MINUTE * 2), off(120)),
            ("another body", at, good.clone(), "{} ", NOW, Err(WebhookError::Signature)),
            ("another time", "1700000000001", good.clone(), "{}", NOW, Err(WebhookError::Signature)),
            ("another key", at, other.clone(), "{}", NOW, Err(WebhookError::Signature)),
            ("two keys", at, format!("{other}, {good}"), "{}", NOW, Ok(())),
            ("no version", at, good[3..].to_owned(), "{}", NOW, Err(WebhookError::Signature)),
            ("empty", at, String::new(), "{}", NOW, Err(WebhookError::Signature)),
            ("no time", "now", good.clone(), "{}", NOW, Err(WebhookError::Timestamp)),
            ("a time of many digits", &"9".repeat(99), good.clone(), "{}", NOW, Err(WebhookError::Timestamp)),
            ("hidden behind many", at, "v1=00,".repeat(8) + &good, "{}", NOW, Err(WebhookError::Signature)),
        ] {
            assert_eq!(key.verify(timestamp, &signature, body.as_bytes(), now, MINUTE), want, "{name}");
        }
    }

    #[test]
    fn short_keys_are_refused() {
        assert_eq!(WebhookKey::new(&"short".into()).unwrap_err(), WebhookKeyError { len: 5 });
        assert!(!format!("{:?}", key("0123456789abcdef")).contains("0123"));
    }
}
