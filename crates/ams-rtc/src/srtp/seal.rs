//! Protects outgoing RTP and RTCP.
//!
//! Holds keys and the SRTCP index. The RTP index is the caller's: it numbers packets, and is the one who must never
//! seal two different packets under one (SSRC, index).

use super::cipher::{Cipher, CmSha1, Purpose, cm_apply, cm_iv, gcm_nonce, gcm_seal, hmac80};
use super::{
    MasterKey, RTCP_HEADER_LEN, RTCP_INDEX_END, RTCP_INDEX_LEN, RTP_HEADER_LEN, RTP_INDEX_END, SrtpError, SrtpProfile,
    be32,
};

/// Seals what is sent to one peer.
pub struct SrtpSealer {
    profile: SrtpProfile,
    rtp: Cipher,
    rtcp: Cipher,
    rtcp_index: u32,
}

impl SrtpSealer {
    pub(super) fn new(profile: SrtpProfile, master: &MasterKey) -> Result<SrtpSealer, SrtpError> {
        Ok(SrtpSealer {
            profile,
            rtp: Cipher::new(profile, master, Purpose::Rtp)?,
            rtcp: Cipher::new(profile, master, Purpose::Rtcp)?,
            rtcp_index: 0,
        })
    }

    /// For published vectors, which give session keys and an index to start from.
    #[cfg(test)]
    pub(super) fn with_ciphers(profile: SrtpProfile, rtp: Cipher, rtcp: Cipher, rtcp_index: u32) -> SrtpSealer {
        SrtpSealer { profile, rtp, rtcp, rtcp_index }
    }

    /// The profile packets are sealed with.
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Seals one RTP packet in place and returns its new length.
    ///
    /// `packet` starts with `header_len` bytes of RTP header (CSRCs and extensions included), then `payload_len` bytes
    /// of payload, then room for at least [`SrtpProfile::rtp_overhead`] bytes. `ext_seq` is the packet index: rollover
    /// counter in bits 16 to 47, and in the low 16 the sequence number that stands in the header. The rollover counter
    /// of a source starts at zero, or the peer cannot follow.
    ///
    /// **Contract:** the caller never seals two different packets of one SSRC under the same `ext_seq`; with GCM that
    /// would give the keys away (RFC 7714 §8.4). A retransmission of the identical packet is fine.
    ///
    /// Takes no lock, allocates nothing.
    ///
    /// # Errors
    /// [`SrtpError::NoRoom`] and [`SrtpError::TooShort`] for a wrongly sized buffer, [`SrtpError::IndexUsedUp`] past
    /// 2^48 packets.
    pub fn seal_rtp(
        &self,
        ext_seq: u64,
        packet: &mut [u8],
        header_len: usize,
        payload_len: usize,
    ) -> Result<usize, SrtpError> {
        if header_len < RTP_HEADER_LEN {
            return Err(SrtpError::TooShort);
        }
        if ext_seq >= RTP_INDEX_END {
            return Err(SrtpError::IndexUsedUp);
        }
        let plain_len = header_len + payload_len;
        let total = plain_len + self.profile.tag_len();
        let packet = packet.get_mut(..total).ok_or(SrtpError::NoRoom)?;
        debug_assert_eq!(packet[2..4], (ext_seq as u16).to_be_bytes(), "index and header disagree");
        let ssrc = be32(packet, 8)?;
        let (plain, tag) = packet.split_at_mut(plain_len);
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (header, payload) = plain.split_at_mut(header_len);
                gcm_seal(key, gcm_nonce(salt, ssrc, ext_seq), header, payload, tag)?;
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, salt, auth } = &**cm;
                cm_apply(key, cm_iv(salt, ssrc, ext_seq), &mut plain[header_len..])?;
                let roc = (ext_seq >> 16) as u32;
                tag.copy_from_slice(&hmac80(auth, plain, &roc.to_be_bytes()));
            }
        }
        Ok(total)
    }

    /// Seals one compound RTCP packet of `len` bytes in place and returns its new length; numbers it itself.
    ///
    /// `packet` must have room for [`SrtpProfile::rtcp_overhead`] more bytes.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`] for less than an RTCP header, [`SrtpError::NoRoom`] for a small buffer,
    /// [`SrtpError::IndexUsedUp`] past 2^31 packets.
    pub fn seal_rtcp(&mut self, packet: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        if len < RTCP_HEADER_LEN {
            return Err(SrtpError::TooShort);
        }
        let total = len + self.profile.rtcp_overhead();
        let packet = packet.get_mut(..total).ok_or(SrtpError::NoRoom)?;
        let index = self.rtcp_index;
        if index >= RTCP_INDEX_END {
            return Err(SrtpError::IndexUsedUp);
        }
        self.rtcp_index += 1;
        let ssrc = be32(packet, 4)?;
        let trailer = (index | RTCP_INDEX_END).to_be_bytes();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let mut clear = [0; RTCP_HEADER_LEN + RTCP_INDEX_LEN];
                clear[..RTCP_HEADER_LEN].copy_from_slice(&packet[..RTCP_HEADER_LEN]);
                clear[RTCP_HEADER_LEN..].copy_from_slice(&trailer);
                let (plain, rest) = packet.split_at_mut(len);
                let (tag, index_field) = rest.split_at_mut(self.profile.tag_len());
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                gcm_seal(key, nonce, &clear, &mut plain[RTCP_HEADER_LEN..], tag)?;
                index_field.copy_from_slice(&trailer);
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, salt, auth } = &**cm;
                cm_apply(key, cm_iv(salt, ssrc, u64::from(index)), &mut packet[RTCP_HEADER_LEN..len])?;
                packet[len..len + RTCP_INDEX_LEN].copy_from_slice(&trailer);
                let (covered, tag) = packet.split_at_mut(len + RTCP_INDEX_LEN);
                tag.copy_from_slice(&hmac80(auth, covered, &[]));
            }
        }
        Ok(total)
    }
}
