//! Time-based one-time codes (RFC 6238), as AMS's subscribers use them.
//!
//! Owns secrets, codes and their window; never who a subscriber is. AMS counts from 1970 in periods of
//! `timeTokenPeriod` seconds, with six digits of HMAC-SHA1.

use std::fmt;

use aws_lc_rs::hmac;

use crate::base32;
use crate::purpose::Purpose;
use crate::secret::{MASK, Secret, same};
use crate::time::UnixMs;

/// Digits of an AMS code.
const DIGITS: u32 = 6;
/// Shortest and longest period, in seconds. AMS's field is a Java int.
const PERIOD_SECS_MAX: u32 = i32::MAX as u32;

/// The bytes codes are made from.
#[derive(Clone)]
pub struct TotpSecret(Box<[u8]>);

/// Why a text is no TOTP secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotpSecretError {
    /// The text is empty.
    #[error("the secret is empty")]
    Empty,
    /// It is no whole number of Base32 blocks, has a foreign character, or is too long.
    #[error("the secret is not Base32 text (A-Z and 2-7) whose length is a multiple of 8")]
    NotBase32,
}

impl TotpSecret {
    /// A subscriber's own secret, from `b32Secret`.
    ///
    /// # Errors
    /// What is wrong with the text; what it says is not repeated.
    pub fn from_base32(text: &Secret) -> Result<Self, TotpSecretError> {
        if text.is_blank() {
            return Err(TotpSecretError::Empty);
        }
        let bytes = base32::decode(text.expose()).ok_or(TotpSecretError::NotBase32)?;
        Ok(Self(bytes.into()))
    }

    /// The secret of a subscriber without one: the application's (`timeTokenSecretForPlay` or `…Publish`), then
    /// subscriber, stream and purpose, filled up with `X` to a multiple of eight characters.
    ///
    /// # Errors
    /// [`TotpSecretError::Empty`] when the application has no secret.
    pub fn derived(
        app_secret: &Secret,
        subscriber_id: &str,
        stream_id: &str,
        purpose: Purpose,
    ) -> Result<Self, TotpSecretError> {
        if app_secret.is_blank() {
            return Err(TotpSecretError::Empty);
        }
        let mut text = format!("{}{subscriber_id}{stream_id}{purpose}", app_secret.expose());
        // AMS counts in UTF-16 units.
        let over = text.encode_utf16().count() % 8;
        if over > 0 {
            text.extend(std::iter::repeat_n('X', 8 - over));
        }
        Ok(Self(text.into_bytes().into()))
    }

    /// The secret in Base32, for whoever sets up an authenticator. Never for logs.
    pub fn expose_base32(&self) -> String {
        base32::encode(&self.0)
    }

    /// The code at `now`: six digits.
    pub fn code(&self, period: Period, now: UnixMs) -> String {
        format!("{:06}", self.at(period.step(now)))
    }

    /// Whether `code` is the one of the present period or of one of its two neighbours. Returns which period's it
    /// was, for those who let a code pass once only.
    pub fn verify(&self, code: &str, period: Period, now: UnixMs) -> Option<u64> {
        let step = period.step(now);
        let mut found = None;
        // All three are always computed.
        for step in [step.saturating_add(1), step.saturating_sub(1), step] {
            if same(format!("{:06}", self.at(step)).as_bytes(), code.as_bytes()) {
                found = Some(step);
            }
        }
        found
    }

    fn at(&self, step: u64) -> u32 {
        truncated(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0, step) % 10u32.pow(DIGITS)
    }
}

/// The number a code's digits are the end of (RFC 4226 §5.3).
fn truncated(algorithm: hmac::Algorithm, key: &[u8], step: u64) -> u32 {
    let tag = hmac::sign(&hmac::Key::new(algorithm, key), &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag.last().copied().unwrap_or_default() & 0xf);
    let mut word = [0; 4];
    if let Some(bytes) = tag.get(at..at + 4) {
        word.copy_from_slice(bytes);
    }
    u32::from_be_bytes(word) & 0x7fff_ffff
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// How long a code is the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(u32);

impl Period {
    /// AMS's `timeTokenPeriod` unless set.
    pub const DEFAULT: Self = Self(60);

    /// A period of `secs`; nothing and negative numbers, which no division survives, mean the default.
    pub fn from_secs(secs: i64) -> Self {
        match u32::try_from(secs) {
            Ok(0) | Err(_) if secs <= 0 => Self::DEFAULT,
            Ok(secs) => Self(secs.min(PERIOD_SECS_MAX)),
            Err(_) => Self(PERIOD_SECS_MAX),
        }
    }

    fn step(self, now: UnixMs) -> u64 {
        now.secs() / u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_pass() {
        let (sha1, sha256, sha512) = (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA256, hmac::HMAC_SHA512);
        let digits = b"1234567890".repeat(7);
        for (secs, algorithm, want) in [
            (59, sha1, 94_287_082),
            (59, sha256, 46_119_246),
            (59, sha512, 90_693_936),
            (1_111_111_109, sha1, 7_081_804),
            (1_111_111_109, sha256, 68_084_774),
            (1_111_111_109, sha512, 25_091_201),
            (1_111_111_111, sha1, 14_050_471),
            (1_111_111_111, sha256, 67_062_674),
            (1_111_111_111, sha512, 99_943_326),
            (1_234_567_890, sha1, 89_005_924),
            (1_234_567_890, sha256, 91_819_424),
            (1_234_567_890, sha512, 93_441_116),
            (2_000_000_000, sha1, 69_279_037),
            (2_000_000_000, sha256, 90_698_825),
            (2_000_000_000, sha512, 38_618_901),
            (20_000_000_000, sha1, 65_353_130),
            (20_000_000_000, sha256, 77_737_706),
            (20_000_000_000, sha512, 47_863_826),
        ] {
            let key = &digits[..algorithm.digest_algorithm().output_len()];
            assert_eq!(truncated(algorithm, key, secs / 30) % 100_000_000, want, "{algorithm:?} at {secs}");
        }
    }

    #[test]
    fn ams_codes_are_the_last_six_digits() {
        let secret = TotpSecret::from_base32(&base32::encode(b"12345678901234567890").into()).unwrap();
        assert_eq!(secret.code(Period::from_secs(30), UnixMs::from_secs(59)), "287082");
        assert_eq!(secret.code(Period::from_secs(30), UnixMs::from_secs(1_111_111_109)), "081804", "zeroes stay");
    }

    #[test]
    fn a_code_passes_one_period_early_and_late() {
        let secret = TotpSecret::from_base32(&"GEZDGNBVGY3TQOJQ".into()).unwrap();
        let period = Period::from_secs(60);
        let now = UnixMs::from_secs(6_000_000);
        let code = secret.code(period, now);
        for (name, secs, passes) in [
            ("two early", 6_000_000 - 61, false),
            ("one early", 6_000_000 - 60, true),
            ("its own", 6_000_000, true),
            ("the end of its own", 6_000_059, true),
            ("one late", 6_000_119, true),
            ("two late", 6_000_120, false),
        ] {
            let found = secret.verify(&code, period, UnixMs::from_secs(secs));
            assert_eq!(found, passes.then_some(100_000), "{name}");
        }
        for wrong in ["", "12345", "1234567", "abcdef", "+12345", "éé"] {
            assert_eq!(secret.verify(wrong, period, now), None, "{wrong}");
        }
    }

    #[test]
    fn derived_secrets_are_filled_up_as_ams_does() {
        let derived = |secret: &str| TotpSecret::derived(&secret.into(), "sub1", "stream1", Purpose::Publish).unwrap();
        assert_eq!(&*derived("secret").0, b"secretsub1stream1publish", "24 characters need no X");
        assert_eq!(&*derived("secret123").0, b"secret123sub1stream1publishXXXXX");
        assert_eq!(
            TotpSecret::derived(&"".into(), "a", "b", Purpose::Play).unwrap_err(),
            TotpSecretError::Empty,
            "without a secret everybody could make codes"
        );
    }

    #[test]
    fn bad_secrets_are_refused_and_not_repeated() {
        assert_eq!(TotpSecret::from_base32(&" ".into()).unwrap_err(), TotpSecretError::Empty);
        let error = TotpSecret::from_base32(&"hunter2!".into()).unwrap_err();
        assert_eq!(error, TotpSecretError::NotBase32);
        assert!(!error.to_string().contains("hunter2"));
        assert_eq!(format!("{:?}", TotpSecret::from_base32(&"GEZDGNBV".into()).unwrap()), MASK);
    }

    #[test]
    fn periods_that_make_no_sense_are_the_default() {
        for (secs, want) in [(0, 60), (-5, 60), (1, 1), (30, 30), (i64::MAX, PERIOD_SECS_MAX), (i64::MIN, 60)] {
            assert_eq!(Period::from_secs(secs), Period(want), "{secs}");
        }
    }

    proptest! {
        #[test]
        fn every_code_passes_at_its_time(key in "[A-Z2-7]{16}", secs: u64, period in 1i64..100_000) {
            let (secret, period) = (TotpSecret::from_base32(&key.into()).unwrap(), Period::from_secs(period));
            let now = UnixMs(secs);
            prop_assert_eq!(secret.code(period, now).len(), 6);
            prop_assert!(secret.verify(&secret.code(period, now), period, now).is_some());
        }
    }
}
