//! Hash tokens: hex SHA-256 of stream id, purpose and the application's secret, one after the other.
//!
//! Owns the format of AMS's `hashControl…Enabled`. Such a token never expires and is the same for everybody.

use aws_lc_rs::digest::{SHA256, digest};

use crate::purpose::Purpose;
use crate::secret::{Secret, same};

/// The token for `purpose` on `stream_id`: 64 lower-case hex digits.
pub fn token(stream_id: &str, purpose: Purpose, secret: &Secret) -> String {
    hex::encode(sum(stream_id, purpose, secret))
}

/// Whether `token` is the one for `purpose` on `stream_id`. Digits of either case pass; the time taken does not
/// depend on them. An unset secret matches nothing.
pub fn matches(token: &str, stream_id: &str, purpose: Purpose, secret: &Secret) -> bool {
    let mut given = [0; 32];
    let is_hex = hex::decode_to_slice(token.as_bytes(), &mut given).is_ok();
    let is_same = same(&given, &sum(stream_id, purpose, secret));
    is_hex && is_same && !secret.is_blank()
}

fn sum(stream_id: &str, purpose: Purpose, secret: &Secret) -> [u8; 32] {
    let text = format!("{stream_id}{purpose}{}", secret.expose());
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_token_passes() {
        // printf 'stream1playsecret' | sha256sum
        let known = "233e10ece077265fccae9207490faee00192690096b0a7d5a6211cfde327643e";
        let secret = Secret::from("secret");
        assert_eq!(token("stream1", Purpose::Play, &secret), known);
        assert!(matches(known, "stream1", Purpose::Play, &secret));
        assert!(
            matches(&known.to_uppercase(), "stream1", Purpose::Play, &secret),
            "AMS prints lower case, people paste"
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let secret = Secret::from("secret");
        let good = token("stream1", Purpose::Play, &secret);
        for (name, token, stream, purpose, secret) in [
            ("another purpose", good.as_str(), "stream1", Purpose::Publish, "secret"),
            ("another stream", &good, "stream2", Purpose::Play, "secret"),
            ("another secret", &good, "stream1", Purpose::Play, "Secret"),
            ("cut", &good[..63], "stream1", Purpose::Play, "secret"),
            ("longer", &format!("{good}00"), "stream1", Purpose::Play, "secret"),
            ("empty", "", "stream1", Purpose::Play, "secret"),
            ("not hex", &"z".repeat(64), "stream1", Purpose::Play, "secret"),
            ("not ASCII", "é", "stream1", Purpose::Play, "secret"),
            ("unset secret", &super::token("stream1", Purpose::Play, &"".into()), "stream1", Purpose::Play, ""),
        ] {
            assert!(!matches(token, stream, purpose, &secret.into()), "{name}");
        }
    }
}
