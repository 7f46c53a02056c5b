//! The keyed ciphers of one direction: session keys from the master key, and the two profiles' transforms.
//!
//! Knows packets only as "clear part, secret part, tag"; indexes and replay are [`super::seal`]'s and
//! [`super::open`]'s. One [`Cipher`] serves RTP, another RTCP.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::{KEY_LEN, MasterKey, SrtpError, SrtpProfile};

/// Whether keys are for RTP or RTCP; decides the derivation labels (RFC 3711 §4.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Rtp,
    Rtcp,
}

/// Session keys of one direction and purpose.
pub(super) enum Cipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
    /// Boxed: two kilobytes that most peers do not need.
    CmSha1(Box<CmSha1>),
}

/// Session keys of AES-CM with HMAC-SHA1.
pub(super) struct CmSha1 {
    pub(super) key: EncryptingKey,
    pub(super) salt: [u8; 14],
    pub(super) auth: hmac::Key,
}

impl Cipher {
    /// Derives session keys with a key derivation rate of zero (RFC 3711 §4.3.1).
    pub(super) fn new(profile: SrtpProfile, master: &MasterKey, purpose: Purpose) -> Result<Cipher, SrtpError> {
        let base = if purpose == Purpose::Rtp { 0 } else { 3 };
        let mut key = [0; KEY_LEN];
        derive(master, base, &mut key)?;
        match profile {
            SrtpProfile::AeadAes128Gcm => {
                let mut salt = [0; 12];
                derive(master, base + 2, &mut salt)?;
                let key = UnboundKey::new(&AES_128_GCM, &key).map_err(|_| SrtpError::KeyLength)?;
                Ok(Cipher::Gcm { key: LessSafeKey::new(key), salt })
            }
            SrtpProfile::Aes128CmHmacSha1_80 => {
                let (mut salt, mut auth) = ([0; 14], [0; 20]);
                derive(master, base + 2, &mut salt)?;
                derive(master, base + 1, &mut auth)?;
                let auth = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth);
                Ok(Cipher::CmSha1(Box::new(CmSha1 { key: counter_mode(&key)?, salt, auth })))
            }
        }
    }
}

fn counter_mode(key: &[u8; KEY_LEN]) -> Result<EncryptingKey, SrtpError> {
    let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| SrtpError::KeyLength)?;
    EncryptingKey::ctr(key).map_err(|_| SrtpError::KeyLength)
}

/// AES-CM as pseudo-random function (RFC 3711 §4.3.3); GCM's shorter salt is padded with zeros (RFC 7714 §11).
fn derive(master: &MasterKey, label: u8, out: &mut [u8]) -> Result<(), SrtpError> {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(&master.salt);
    iv[7] ^= label;
    out.fill(0);
    apply_keystream(&counter_mode(&master.key)?, iv, out)
}

/// XORs the key stream over `data`: encrypts and decrypts alike.
fn apply_keystream(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), SrtpError> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv)))
        .map(|_| ())
        .map_err(|_| SrtpError::Unauthenticated)
}

/// AES-CM's counter block (RFC 3711 §4.1.1).
pub(super) fn cm_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[4..8].copy_from_slice(&ssrc.to_be_bytes());
    iv[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
    for (byte, salt) in iv.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    iv
}

/// GCM's nonce: for RTP from the 48-bit index (RFC 7714 §8.1), for RTCP from the 31-bit one (§9.1).
pub(super) fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
    nonce[6..12].copy_from_slice(&index.to_be_bytes()[2..]);
    for (byte, salt) in nonce.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// Encrypts `secret` and writes the tag over `clear` and `secret` to `tag`.
pub(super) fn gcm_seal(
    key: &LessSafeKey,
    nonce: Nonce,
    clear: &[u8],
    secret: &mut [u8],
    tag: &mut [u8],
) -> Result<(), SrtpError> {
    let made =
        key.seal_in_place_separate_tag(nonce, Aad::from(clear), secret).map_err(|_| SrtpError::Unauthenticated)?;
    tag.copy_from_slice(made.as_ref());
    Ok(())
}

/// Checks the tag and decrypts `secret`, which is rubbish afterwards if the check failed.
pub(super) fn gcm_open(
    key: &LessSafeKey,
    nonce: Nonce,
    clear: &[u8],
    secret: &mut [u8],
    tag: &[u8],
) -> Result<(), SrtpError> {
    key.open_in_place_separate_tag(nonce, Aad::from(clear), tag, secret)
        .map(|_| ())
        .map_err(|_| SrtpError::Unauthenticated)
}

/// XORs AES-CM's key stream for `iv` over `data`.
pub(super) fn cm_apply(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), SrtpError> {
    apply_keystream(key, iv, data)
}

/// HMAC-SHA1 cut to 80 bits over `covered` followed by `suffix`.
pub(super) fn hmac80(key: &hmac::Key, covered: &[u8], suffix: &[u8]) -> [u8; 10] {
    let mut context = hmac::Context::with_key(key);
    context.update(covered);
    context.update(suffix);
    let mut tag = [0; 10];
    tag.copy_from_slice(&context.sign().as_ref()[..10]);
    tag
}
