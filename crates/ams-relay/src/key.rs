//! The cluster key: the secret that all nodes of a cluster share.
//!
//! Owns reading, checking and hiding it. The bytes go into the HMAC context and nowhere else: there is no way to read
//! them back, print them or compare them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;

/// Fewest bytes a cluster key may have, after trimming white space at both ends.
pub const KEY_LEN_MIN: usize = 16;
/// Most bytes a cluster key may have; a longer file is probably not a key.
pub const KEY_LEN_MAX: usize = 4096;

/// Why a cluster key was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the cluster key file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Too short to be a secret.
    #[error("the cluster key has {len} bytes, at least {KEY_LEN_MIN} are needed: make one with `openssl rand -hex 32`")]
    TooShort {
        /// Its length in bytes.
        len: usize,
    },
    /// Too long to be meant.
    #[error("the cluster key has {len} bytes, over the limit of {KEY_LEN_MAX}: is this the right file?")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// The secret shared by the nodes of one cluster. `Debug` shows `***`.
#[derive(Clone)]
pub struct ClusterKey(hmac::Key);

impl ClusterKey {
    /// Reads the key from a file; white space around it is not part of it. Who may read the file is for the caller to
    /// judge.
    ///
    /// # Errors
    /// The file cannot be read, or holds too little or too much.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let read = |cause| KeyError::Read { path: path.to_owned(), cause };
        // One byte over the limit (and some white space) is enough to know that it is too long.
        let len = std::fs::metadata(path).map_err(read)?.len();
        if len > 2 * KEY_LEN_MAX as u64 {
            return Err(KeyError::TooLong { len: usize::try_from(len).unwrap_or(usize::MAX) });
        }
        Self::from_bytes(&std::fs::read(path).map_err(read)?)
    }

    /// Takes the key from memory; ASCII white space around it is not part of it.
    ///
    /// # Errors
    /// Too few or too many bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < KEY_LEN_MIN {
            return Err(KeyError::TooShort { len: bytes.len() });
        }
        if bytes.len() > KEY_LEN_MAX {
            return Err(KeyError::TooLong { len: bytes.len() });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// A key for another purpose, of which this one cannot be learnt. No proof of a link is made over such a text.
    pub fn derive(&self, purpose: &[u8]) -> [u8; PROOF_LEN] {
        self.prove(&[b"ams-node derived key: ", purpose])
    }

    /// HMAC-SHA256 of the parts in order.
    pub(crate) fn prove(&self, parts: &[&[u8]]) -> [u8; PROOF_LEN] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut proof = [0; PROOF_LEN];
        for (to, from) in proof.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        proof
    }

    /// Whether `proof` is the HMAC-SHA256 of the parts; takes the same time wherever they differ.
    pub(crate) fn verify(&self, parts: &[&[u8]], proof: &[u8]) -> bool {
        hmac::verify(&self.0, &parts.concat(), proof).is_ok()
    }
}

/// Bytes of an HMAC-SHA256.
pub const PROOF_LEN: usize = 32;

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_keys_are_refused_in_a_sentence() {
        for (name, bytes, ok) in [
            ("shortest", vec![b'k'; KEY_LEN_MIN], true),
            ("one too short", vec![b'k'; KEY_LEN_MIN - 1], false),
            ("white space does not count", [vec![b'k'; 15], vec![b'\n'; 5]].concat(), false),
            ("longest", vec![b'k'; KEY_LEN_MAX], true),
            ("too long", vec![b'k'; KEY_LEN_MAX + 1], false),
            ("empty", vec![], false),
        ] {
            assert_eq!(ClusterKey::from_bytes(&bytes).is_ok(), ok, "{name}");
        }
        let sentence = ClusterKey::from_bytes(b"secret").unwrap_err().to_string();
        assert!(sentence.contains("openssl rand") && !sentence.contains("secret"), "{sentence}");
    }

    #[test]
    fn a_file_with_a_final_newline_is_the_same_key_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let from_file = ClusterKey::from_file(&path).unwrap();
        let from_memory = ClusterKey::from_bytes(b"0123456789abcdef").unwrap();
        assert_eq!(from_file.prove(&[b"a", b"b"]), from_memory.prove(&[b"ab"]));
        assert!(from_memory.verify(&[b"a", b"b"], &from_file.prove(&[b"ab"])));
        assert!(!from_memory.verify(&[b"ab"], b"short"));
        assert_eq!(format!("{from_file:?}"), "ClusterKey(***)");
        let missing = ClusterKey::from_file(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
    }
}
