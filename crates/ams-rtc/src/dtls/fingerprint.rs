//! Certificate fingerprints as SDP carries them (RFC 8122 §5): parse, print, compare.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

/// Hash a fingerprint was made with. MD2 and MD5 are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintHash {
    /// `sha-1`: weak, but some old stacks offer nothing else.
    Sha1,
    /// `sha-256`: what browsers send and we send.
    Sha256,
    /// `sha-384`.
    Sha384,
    /// `sha-512`.
    Sha512,
}

impl FingerprintHash {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            FingerprintHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            FingerprintHash::Sha256 => &digest::SHA256,
            FingerprintHash::Sha384 => &digest::SHA384,
            FingerprintHash::Sha512 => &digest::SHA512,
        }
    }

    fn name(self) -> &'static str {
        match self {
            FingerprintHash::Sha1 => "sha-1",
            FingerprintHash::Sha256 => "sha-256",
            FingerprintHash::Sha384 => "sha-384",
            FingerprintHash::Sha512 => "sha-512",
        }
    }
}

/// Hash of a certificate. `Display` and `FromStr` use the form of the SDP attribute's value: `sha-256 AB:CD:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    hash: FingerprintHash,
    digest: Vec<u8>,
}

/// Why text is not a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFingerprint {
    /// The hash function is unknown or too weak.
    #[error("fingerprint hash must be sha-1, sha-256, sha-384 or sha-512")]
    Hash,
    /// The digest is not that hash's number of hexadecimal pairs separated by colons.
    #[error("fingerprint digest is not hexadecimal pairs of the hash's length")]
    Digest,
}

impl Fingerprint {
    /// The fingerprint of a DER certificate.
    pub fn of(certificate_der: &[u8], hash: FingerprintHash) -> Fingerprint {
        Fingerprint { hash, digest: digest::digest(hash.algorithm(), certificate_der).as_ref().to_vec() }
    }

    /// Whether `certificate_der` is the certificate this fingerprint was made of.
    pub fn matches(&self, certificate_der: &[u8]) -> bool {
        digest::digest(self.hash.algorithm(), certificate_der).as_ref() == self.digest
    }

    /// The hash it was made with.
    pub fn hash(&self) -> FingerprintHash {
        self.hash
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.name())?;
        for (at, byte) in self.digest.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Fingerprint, InvalidFingerprint> {
        let (name, pairs) = text.trim().split_once(' ').ok_or(InvalidFingerprint::Digest)?;
        let hash = [FingerprintHash::Sha1, FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512]
            .into_iter()
            .find(|hash| hash.name().eq_ignore_ascii_case(name))
            .ok_or(InvalidFingerprint::Hash)?;
        let mut digest = Vec::with_capacity(hash.algorithm().output_len());
        for pair in pairs.trim().split(':') {
            if pair.len() != 2 || !pair.bytes().all(|c| c.is_ascii_hexdigit()) || digest.len() >= 64 {
                return Err(InvalidFingerprint::Digest);
            }
            digest.push(u8::from_str_radix(pair, 16).map_err(|_| InvalidFingerprint::Digest)?);
        }
        if digest.len() != hash.algorithm().output_len() {
            return Err(InvalidFingerprint::Digest);
        }
        Ok(Fingerprint { hash, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_parsed_and_matches_its_certificate_only() {
        for hash in [FingerprintHash::Sha1, FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512] {
            let fingerprint = Fingerprint::of(b"certificate", hash);
            let parsed: Fingerprint = fingerprint.to_string().parse().unwrap();
            assert_eq!(parsed, fingerprint);
            assert_eq!(fingerprint.to_string().to_lowercase().parse(), Ok(fingerprint.clone()), "lower case");
            assert!(parsed.matches(b"certificate") && !parsed.matches(b"another"));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Fingerprint::of(b"certificate", FingerprintHash::Sha256).to_string();
        let rows = [
            ("nothing", String::new()),
            ("hash only", "sha-256".to_owned()),
            ("weak hash", "md5 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF".to_owned()),
            ("wrong length for the hash", good.replace("sha-256", "sha-512")),
            ("a pair short", good[..good.len() - 3].to_owned()),
            ("a pair long", format!("{good}:00")),
            ("not hexadecimal", good.replace(':', ";")),
            ("signs", format!("sha-256 {}", ["+1"; 32].join(":"))),
            ("not ASCII", format!("sha-256 {}", ["é"; 32].join(":"))),
        ];
        for (name, text) in rows {
            assert!(text.parse::<Fingerprint>().is_err(), "{name}");
        }
    }
}
