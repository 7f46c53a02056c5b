//! SRTP and SRTCP (RFC 3711) with AES-128-GCM (RFC 7714) or AES-CM and HMAC-SHA1-80, keyed from a DTLS handshake.
//!
//! [`SrtpSealer`] protects what we send, [`SrtpOpener`] what comes. Both work in place; neither allocates per packet.
//! The opener keeps state for a source only after a packet of it was authenticated. Sequence numbers of what is sent
//! belong to the caller, as does not to use one twice.

mod cipher;
mod open;
mod replay;
mod seal;

pub use open::{SOURCES_MAX, SrtpOpener};
pub use seal::SrtpSealer;

/// Bytes of the RTP header without CSRCs and extensions.
pub(crate) const RTP_HEADER_LEN: usize = 12;
/// Bytes of an RTCP packet that stay in the clear: first header word and sender SSRC.
pub(crate) const RTCP_HEADER_LEN: usize = 8;
/// Bytes of the SRTCP E flag and index.
pub(crate) const RTCP_INDEX_LEN: usize = 4;
/// First SRTCP index that may not be used: 31 bits (RFC 3711 §3.4).
pub(crate) const RTCP_INDEX_END: u32 = 1 << 31;
/// First RTP packet index that may not be used: 48 bits (RFC 3711 §3.3.1).
pub(crate) const RTP_INDEX_END: u64 = 1 << 48;

const KEY_LEN: usize = 16;

/// How packets are protected, by DTLS-SRTP profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpProfile {
    /// `SRTP_AEAD_AES_128_GCM`, 0x0007: preferred, five times cheaper than the other.
    AeadAes128Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`, 0x0001: for peers without GCM.
    Aes128CmHmacSha1_80,
}

impl SrtpProfile {
    /// Bytes of authentication tag at the end of every packet.
    pub const fn tag_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm => 16,
            SrtpProfile::Aes128CmHmacSha1_80 => 10,
        }
    }

    /// Bytes a sealed RTP packet is longer than its plain form.
    pub const fn rtp_overhead(self) -> usize {
        self.tag_len()
    }

    /// Bytes a sealed RTCP packet is longer than its plain form: tag, E flag and index.
    pub const fn rtcp_overhead(self) -> usize {
        self.tag_len() + RTCP_INDEX_LEN
    }

    const fn salt_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm => 12,
            SrtpProfile::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// Bytes of keying material to export from the DTLS session (RFC 5764 §4.2).
    pub const fn keying_material_len(self) -> usize {
        2 * (KEY_LEN + self.salt_len())
    }
}

/// The largest overhead of any profile, for sizing buffers.
pub const SRTP_OVERHEAD_MAX: usize = SrtpProfile::AeadAes128Gcm.rtcp_overhead();

/// Master key and salt of one direction.
#[derive(Clone)]
pub(crate) struct MasterKey {
    key: [u8; KEY_LEN],
    /// As long as the profile's salt; the rest is zero.
    salt: [u8; 14],
}

/// What a DTLS handshake agreed on for SRTP: profile, and a key per direction. Not printable.
#[derive(Clone)]
pub struct SrtpKeys {
    profile: SrtpProfile,
    client: MasterKey,
    server: MasterKey,
}

/// Why a packet was not opened or sealed. Every variant leaves the session as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// Shorter than header and tag.
    #[error("packet is too short")]
    TooShort,
    /// The version is not 2, or the header's own lengths run past the packet.
    #[error("header lies about its length")]
    Header,
    /// Seen before, or too old to tell.
    #[error("packet was replayed")]
    Replayed,
    /// The tag does not fit: forged, damaged, or under another key.
    #[error("authentication failed")]
    Unauthenticated,
    /// The buffer has no room for the tag. A fault of the caller.
    #[error("no room for the tag")]
    NoRoom,
    /// Every index was used; only new keys help (RFC 3711 §9.2).
    #[error("packet index is used up")]
    IndexUsedUp,
    /// Keying material has the wrong length.
    #[error("keying material has the wrong length")]
    KeyLength,
}

impl SrtpKeys {
    /// Splits keying material exported with label `EXTRACTOR-dtls_srtp` (RFC 5764 §4.2).
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`] when it is not [`SrtpProfile::keying_material_len`] bytes.
    pub fn from_keying_material(profile: SrtpProfile, material: &[u8]) -> Result<SrtpKeys, SrtpError> {
        if material.len() != profile.keying_material_len() {
            return Err(SrtpError::KeyLength);
        }
        let (keys, salts) = material.split_at(2 * KEY_LEN);
        let (client_key, server_key) = keys.split_at(KEY_LEN);
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        let master = |key_bytes: &[u8], salt_bytes: &[u8]| {
            let mut master = MasterKey { key: [0; KEY_LEN], salt: [0; 14] };
            master.key.copy_from_slice(key_bytes);
            master.salt[..salt_bytes.len()].copy_from_slice(salt_bytes);
            master
        };
        Ok(SrtpKeys { profile, client: master(client_key, client_salt), server: master(server_key, server_salt) })
    }

    /// The agreed profile.
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Sealer and opener for the side that was DTLS client (`is_client`) or server.
    ///
    /// # Errors
    /// Only if the cryptographic library refuses the keys.
    pub fn session(&self, is_client: bool) -> Result<(SrtpSealer, SrtpOpener), SrtpError> {
        let (ours, theirs) = if is_client { (&self.client, &self.server) } else { (&self.server, &self.client) };
        Ok((SrtpSealer::new(self.profile, ours)?, SrtpOpener::new(self.profile, theirs)?))
    }
}

/// Length of an RTP header with its CSRCs and extension, or why there is none.
pub(crate) fn rtp_header_len(packet: &[u8]) -> Result<usize, SrtpError> {
    let first = *packet.first().ok_or(SrtpError::TooShort)?;
    if first >> 6 != 2 {
        return Err(SrtpError::Header);
    }
    let mut len = RTP_HEADER_LEN + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = packet.get(len + 2..len + 4).ok_or(SrtpError::Header)?;
        len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    if len > packet.len() {
        return Err(SrtpError::Header);
    }
    Ok(len)
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> Result<u32, SrtpError> {
    let word = bytes.get(at..at + 4).ok_or(SrtpError::TooShort)?;
    Ok(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests;
