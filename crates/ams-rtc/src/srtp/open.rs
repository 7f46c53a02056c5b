//! Checks and decrypts incoming SRTP and SRTCP.
//!
//! Remembers, per source and only once a packet of it was authenticated, how far its numbers have come and which it
//! has used. At most [`SOURCES_MAX`] sources each for RTP and RTCP: past that the one unused for longest is forgotten,
//! so a peer that changes its SSRCs for hours still works. Forgetting a source forgets its replay window too, which
//! only someone who holds the keys can bring about.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::cipher::{Cipher, CmSha1, Purpose, cm_apply, cm_iv, gcm_nonce, gcm_open, hmac80};
use super::replay::ReplayWindow;
use super::{
    MasterKey, RTCP_HEADER_LEN, RTCP_INDEX_END, RTCP_INDEX_LEN, RTP_HEADER_LEN, RTP_INDEX_END, SrtpError, SrtpProfile,
    be32, rtp_header_len,
};

/// Sources remembered at once, for RTP and for RTCP.
pub const SOURCES_MAX: usize = 64;

/// Longest packet for which a second rollover guess is tried.
const RETRY_LEN_MAX: usize = 2048;

struct Source {
    ssrc: u32,
    window: ReplayWindow,
    used_at: u64,
}

#[derive(Default)]
struct Sources {
    list: Vec<Source>,
    clock: u64,
}

impl Sources {
    fn find(&mut self, ssrc: u32) -> Option<&mut Source> {
        self.list.iter_mut().find(|source| source.ssrc == ssrc)
    }

    fn accept(&mut self, ssrc: u32, index: u64) {
        self.clock += 1;
        let used_at = self.clock;
        if let Some(source) = self.find(ssrc) {
            source.window.accept(index);
            source.used_at = used_at;
            return;
        }
        let fresh = Source { ssrc, window: ReplayWindow::starting_at(index), used_at };
        if self.list.len() < SOURCES_MAX {
            self.list.push(fresh);
        } else if let Some(oldest) = self.list.iter_mut().min_by_key(|source| source.used_at) {
            *oldest = fresh;
        }
    }
}

/// Opens what one peer sends.
pub struct SrtpOpener {
    profile: SrtpProfile,
    rtp: Cipher,
    rtcp: Cipher,
    rtp_sources: Sources,
    rtcp_sources: Sources,
    /// Copy of a new source's packet, for the second guess at its rollover counter.
    retry: Vec<u8>,
}

impl SrtpOpener {
    pub(super) fn new(profile: SrtpProfile, master: &MasterKey) -> Result<SrtpOpener, SrtpError> {
        Ok(SrtpOpener {
            profile,
            rtp: Cipher::new(profile, master, Purpose::Rtp)?,
            rtcp: Cipher::new(profile, master, Purpose::Rtcp)?,
            rtp_sources: Sources::default(),
            rtcp_sources: Sources::default(),
            retry: Vec::new(),
        })
    }

    /// The profile packets are opened with.
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Sources remembered for RTP and RTCP.
    #[cfg(test)]
    pub(super) fn sources(&self) -> (usize, usize) {
        (self.rtp_sources.list.len(), self.rtcp_sources.list.len())
    }

    /// Opens one SRTP packet in place and returns the length of the plain RTP packet at its start.
    ///
    /// Allocates nothing for a known source. After an error the bytes are of no use.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`], [`SrtpError::Header`], [`SrtpError::Replayed`] or [`SrtpError::Unauthenticated`]; count
    /// it and drop the packet.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        if packet.len() < RTP_HEADER_LEN + self.profile.tag_len() {
            return Err(SrtpError::TooShort);
        }
        let body_len = packet.len() - self.profile.tag_len();
        let header_len = rtp_header_len(&packet[..body_len])?;
        let seq = u16::from_be_bytes([packet[2], packet[3]]);
        let ssrc = be32(packet, 8)?;
        if let Some(source) = self.rtp_sources.find(ssrc) {
            let index = nearest_index(source.window.highest(), seq);
            if index >= RTP_INDEX_END || !source.window.is_fresh(index) {
                return Err(SrtpError::Replayed);
            }
            self.open_rtp_at(packet, header_len, ssrc, index)?;
            self.rtp_sources.accept(ssrc, index);
            return Ok(body_len);
        }
        // Nothing is known of a new source's rollover counter. It is zero, unless the packets before a first wrap were
        // sent while we could not read them yet: then it is one.
        let second_guess = seq < 0x8000 && packet.len() <= RETRY_LEN_MAX;
        if second_guess {
            self.retry.clear();
            self.retry.extend_from_slice(packet);
        }
        let mut index = u64::from(seq);
        let mut opened = self.open_rtp_at(packet, header_len, ssrc, index);
        if opened.is_err() && second_guess {
            packet.copy_from_slice(&self.retry);
            index |= 1 << 16;
            opened = self.open_rtp_at(packet, header_len, ssrc, index);
        }
        opened?;
        self.rtp_sources.accept(ssrc, index);
        Ok(body_len)
    }

    fn open_rtp_at(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        let body_len = packet.len() - self.profile.tag_len();
        let (body, tag) = packet.split_at_mut(body_len);
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (header, payload) = body.split_at_mut(header_len);
                gcm_open(key, gcm_nonce(salt, ssrc, index), header, payload, tag)
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, salt, auth } = &**cm;
                let roc = (index >> 16) as u32;
                let wanted = hmac80(auth, body, &roc.to_be_bytes());
                verify_slices_are_equal(&wanted, tag).map_err(|_| SrtpError::Unauthenticated)?;
                cm_apply(key, cm_iv(salt, ssrc, index), &mut body[header_len..])
            }
        }
    }

    /// Opens one SRTCP packet in place and returns the length of the plain compound packet at its start.
    ///
    /// Packets authenticated but not encrypted (E flag clear) are refused: nobody negotiates them over DTLS.
    ///
    /// # Errors
    /// As [`SrtpOpener::open_rtp`].
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let overhead = self.profile.rtcp_overhead();
        if packet.len() < RTCP_HEADER_LEN + overhead {
            return Err(SrtpError::TooShort);
        }
        if packet[0] >> 6 != 2 {
            return Err(SrtpError::Header);
        }
        let plain_len = packet.len() - overhead;
        let ssrc = be32(packet, 4)?;
        let trailer_at = match self.profile {
            SrtpProfile::AeadAes128Gcm => packet.len() - RTCP_INDEX_LEN,
            SrtpProfile::Aes128CmHmacSha1_80 => plain_len,
        };
        let trailer = be32(packet, trailer_at)?;
        if trailer & RTCP_INDEX_END == 0 {
            return Err(SrtpError::Header);
        }
        let index = u64::from(trailer & !RTCP_INDEX_END);
        if self.rtcp_sources.find(ssrc).is_some_and(|source| !source.window.is_fresh(index)) {
            return Err(SrtpError::Replayed);
        }
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let mut clear = [0; RTCP_HEADER_LEN + RTCP_INDEX_LEN];
                clear[..RTCP_HEADER_LEN].copy_from_slice(&packet[..RTCP_HEADER_LEN]);
                clear[RTCP_HEADER_LEN..].copy_from_slice(&trailer.to_be_bytes());
                let (plain, rest) = packet.split_at_mut(plain_len);
                let tag = &rest[..self.profile.tag_len()];
                gcm_open(key, gcm_nonce(salt, ssrc, index), &clear, &mut plain[RTCP_HEADER_LEN..], tag)?;
            }
            Cipher::CmSha1(cm) => {
                let CmSha1 { key, salt, auth } = &**cm;
                let (covered, tag) = packet.split_at_mut(plain_len + RTCP_INDEX_LEN);
                let wanted = hmac80(auth, covered, &[]);
                verify_slices_are_equal(&wanted, tag).map_err(|_| SrtpError::Unauthenticated)?;
                cm_apply(key, cm_iv(salt, ssrc, index), &mut covered[RTCP_HEADER_LEN..plain_len])?;
            }
        }
        self.rtcp_sources.accept(ssrc, index);
        Ok(plain_len)
    }
}

/// The index with low bits `seq` closest to `highest` (RFC 3711 §3.3.1). Never below zero.
fn nearest_index(highest: u64, seq: u16) -> u64 {
    let ahead = i64::from(seq.wrapping_sub(highest as u16) as i16);
    let index = highest as i64 + ahead;
    if index < 0 { (index + (1 << 16)) as u64 } else { index as u64 }
}
