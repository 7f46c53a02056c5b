//! RTCP: compound packets read without copying, built into a buffer the caller keeps.
//!
//! Owns the packet layouts of RFC 3550 §6, RFC 4585 §6, RFC 5104 §4.3.1 and of REMB. Written here rather than taken from
//! a crate because every viewer's feedback passes through it: nothing is allocated, and every loop is bounded by the
//! datagram. Transport-wide feedback has its own file, [`crate::twcc`]. Never decides when to send what.
//!
//! - [`parse`]: datagram → [`Rtcp`] items
//! - [`write`]: sender and receiver reports, NACK, PLI, FIR, REMB, BYE

pub mod parse;
pub mod write;

pub use parse::{Compound, FirEntries, Nacks, ReportBlocks, Rtcp, RtcpError, SenderReport, Ssrcs, parse};
pub use write::{
    write_bye, write_cname, write_fir, write_nack, write_pli, write_receiver_report, write_remb, write_sender_report,
};

use ams_types::Ssrc;

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1).
pub(crate) mod packet_type {
    pub(crate) const SENDER_REPORT: u8 = 200;
    pub(crate) const RECEIVER_REPORT: u8 = 201;
    pub(crate) const SOURCE_DESCRIPTION: u8 = 202;
    pub(crate) const BYE: u8 = 203;
    pub(crate) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(crate) const PAYLOAD_FEEDBACK: u8 = 206;
}

/// Feedback formats: the first three of the payload-specific, the rest of the transport kind.
pub(crate) mod format {
    pub(crate) const PLI: u8 = 1;
    pub(crate) const FIR: u8 = 4;
    pub(crate) const REMB: u8 = 15;
    pub(crate) const NACK: u8 = 1;
    pub(crate) const TRANSPORT_CC: u8 = 15;
}

/// What a sender says of itself (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// Whom the report is about.
    pub ssrc: Ssrc,
    /// Wall clock as 32.32 fixed-point NTP time.
    pub ntp: u64,
    /// The RTP timestamp of that moment.
    pub rtp_timestamp: u32,
    /// RTP packets sent so far; wraps.
    pub packets: u32,
    /// Payload bytes sent so far; wraps.
    pub octets: u32,
}

/// What a receiver says of one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// Whom it is about.
    pub ssrc: Ssrc,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost so far, 24 bits with sign: duplicates can make it negative.
    pub lost: i32,
    /// Highest sequence number received; the count of wraps in the upper half.
    pub highest_seq: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 if there was none.
    pub last_sr: u32,
    /// Time since that report, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// The middle 32 bits of an NTP time: what report blocks echo (RFC 3550 §6.4.1, LSR).
pub fn ntp_middle(ntp: u64) -> u32 {
    ((ntp >> 16) & 0xffff_ffff) as u32
}
