//! Reading compound RTCP. Lengths are checked once, when a packet is cut out of the datagram; the iterators over its
//! parts then cannot fail.

use std::slice::ChunksExact;

use ams_types::{Bitrate, Ssrc};

use super::{ReportBlock, SenderInfo, format, packet_type};
use crate::twcc;

const HEADER_LEN: usize = 4;
const REPORT_BLOCK_LEN: usize = 24;

/// Why the rest of a datagram was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// A length says more than there is.
    #[error("RTCP packet of type {packet_type} is cut short")]
    Truncated {
        /// The packet's type, 0 if even that is missing.
        packet_type: u8,
    },
    /// The version field is not 2.
    #[error("RTCP version is {0}, not 2")]
    Version(u8),
    /// The padding count is zero, uneven, or larger than the packet.
    #[error("RTCP padding does not fit its packet")]
    Padding,
    /// Transport-wide feedback whose parts do not add up.
    #[error("transport-wide feedback contradicts itself")]
    Feedback,
}

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Rtcp<'a> {
    /// What the peer sent, and how it receives.
    SenderReport(SenderReport<'a>),
    /// How the peer receives.
    ReceiverReport {
        /// Who reports.
        ssrc: Ssrc,
        /// One block per source.
        reports: ReportBlocks<'a>,
    },
    /// Names of sources; nothing here needs them, so they stay unread.
    SourceDescription,
    /// Sources that ended.
    Bye(Ssrcs<'a>),
    /// Packets asked for again (RFC 4585 §6.2.1).
    Nack {
        /// Who asks.
        sender: Ssrc,
        /// Whose packets.
        media: Ssrc,
        /// Their sequence numbers.
        seqs: Nacks<'a>,
    },
    /// When packets arrived, or that they did not.
    TransportCc(twcc::Feedback<'a>),
    /// A picture is lost: send a keyframe (RFC 4585 §6.3.1).
    Pli {
        /// Who asks.
        sender: Ssrc,
        /// Whose picture.
        media: Ssrc,
    },
    /// A decoder starts: send a keyframe (RFC 5104 §4.3.1).
    Fir {
        /// Who asks.
        sender: Ssrc,
        /// Whose pictures, with the command's number.
        entries: FirEntries<'a>,
    },
    /// The bandwidth the receiver estimates (draft-alvestrand-rmcat-remb-03).
    Remb {
        /// Who estimates.
        sender: Ssrc,
        /// Its estimate for all of `ssrcs` together.
        bitrate: Bitrate,
        /// The sources it covers.
        ssrcs: Ssrcs<'a>,
    },
    /// Anything else.
    Unknown {
        /// The RTCP packet type.
        packet_type: u8,
        /// The count or format field.
        format: u8,
    },
}

/// A sender report with its report blocks.
#[derive(Clone, Debug)]
pub struct SenderReport<'a> {
    /// What the sender says of itself.
    pub info: SenderInfo,
    /// How it receives.
    pub reports: ReportBlocks<'a>,
}

/// Reads an opened RTCP datagram. Ends after the first error.
pub fn parse(datagram: &[u8]) -> Compound<'_> {
    Compound { rest: datagram }
}

/// The packets of one datagram, in order.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Rtcp<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = cut(self.rest).and_then(|(packet, rest)| {
            self.rest = rest;
            packet.read()
        });
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// One packet cut out of the datagram: header fields, and the body without padding.
struct Packet<'a> {
    packet_type: u8,
    /// Count of reports or sources, or feedback format.
    count: u8,
    body: &'a [u8],
}

fn cut(bytes: &[u8]) -> Result<(Packet<'_>, &[u8]), RtcpError> {
    let (&[first, packet_type, l0, l1], _) =
        bytes.split_first_chunk::<HEADER_LEN>().ok_or(RtcpError::Truncated { packet_type: 0 })?;
    if first >> 6 != 2 {
        return Err(RtcpError::Version(first >> 6));
    }
    let len = HEADER_LEN + usize::from(u16::from_be_bytes([l0, l1])) * 4;
    let (packet, rest) = bytes.split_at_checked(len).ok_or(RtcpError::Truncated { packet_type })?;
    let mut body = packet.get(HEADER_LEN..).unwrap_or_default();
    if first & 0x20 != 0 {
        let padding = usize::from(body.last().copied().unwrap_or(0));
        if padding == 0 {
            return Err(RtcpError::Padding);
        }
        let kept = body.len().checked_sub(padding).ok_or(RtcpError::Padding)?;
        body = body.get(..kept).unwrap_or_default();
    }
    Ok((Packet { packet_type, count: first & 0x1f, body }, rest))
}

impl<'a> Packet<'a> {
    fn read(&self) -> Result<Rtcp<'a>, RtcpError> {
        let mut body = Reader { bytes: self.body, packet_type: self.packet_type };
        let count = usize::from(self.count);
        match (self.packet_type, self.count) {
            (packet_type::SENDER_REPORT, _) => {
                let info = SenderInfo {
                    ssrc: body.ssrc()?,
                    ntp: u64::from_be_bytes(body.chunk()?),
                    rtp_timestamp: body.u32()?,
                    packets: body.u32()?,
                    octets: body.u32()?,
                };
                let reports = ReportBlocks(body.take(count * REPORT_BLOCK_LEN)?.chunks_exact(REPORT_BLOCK_LEN));
                Ok(Rtcp::SenderReport(SenderReport { info, reports }))
            }
            (packet_type::RECEIVER_REPORT, _) => Ok(Rtcp::ReceiverReport {
                ssrc: body.ssrc()?,
                reports: ReportBlocks(body.take(count * REPORT_BLOCK_LEN)?.chunks_exact(REPORT_BLOCK_LEN)),
            }),
            (packet_type::SOURCE_DESCRIPTION, _) => Ok(Rtcp::SourceDescription),
            (packet_type::BYE, _) => Ok(Rtcp::Bye(Ssrcs(body.take(count * 4)?.chunks_exact(4)))),
            (packet_type::TRANSPORT_FEEDBACK, format::NACK) => Ok(Rtcp::Nack {
                sender: body.ssrc()?,
                media: body.ssrc()?,
                seqs: Nacks { pairs: body.bytes.chunks_exact(4), seq: 0, mask: 0 },
            }),
            (packet_type::TRANSPORT_FEEDBACK, format::TRANSPORT_CC) => {
                twcc::Feedback::parse(self.body).map(Rtcp::TransportCc).ok_or(RtcpError::Feedback)
            }
            (packet_type::PAYLOAD_FEEDBACK, format::PLI) => Ok(Rtcp::Pli { sender: body.ssrc()?, media: body.ssrc()? }),
            (packet_type::PAYLOAD_FEEDBACK, format::FIR) => {
                let sender = body.ssrc()?;
                body.ssrc()?;
                Ok(Rtcp::Fir { sender, entries: FirEntries(body.bytes.chunks_exact(8)) })
            }
            (packet_type::PAYLOAD_FEEDBACK, format::REMB) => self.read_remb(),
            (packet_type, format) => Ok(Rtcp::Unknown { packet_type, format }),
        }
    }

    /// Format 15 is any application's; only what starts with the four letters is an estimate.
    fn read_remb(&self) -> Result<Rtcp<'a>, RtcpError> {
        let mut body = Reader { bytes: self.body, packet_type: self.packet_type };
        let sender = body.ssrc()?;
        body.ssrc()?;
        if !body.bytes.starts_with(b"REMB") {
            return Ok(Rtcp::Unknown { packet_type: self.packet_type, format: self.count });
        }
        body.take(4)?;
        let [count, m0, m1, m2] = body.chunk()?;
        let exponent = u32::from(m0 >> 2);
        let mantissa = u64::from(u32::from_be_bytes([0, m0 & 0x03, m1, m2]));
        // 18 bits shifted by up to 63: a value past 64 bits is as good as unlimited.
        let bitrate = if mantissa.leading_zeros() >= exponent { mantissa << exponent } else { u64::MAX };
        let ssrcs = Ssrcs(body.take(usize::from(count) * 4)?.chunks_exact(4));
        Ok(Rtcp::Remb { sender, bitrate: Bitrate(bitrate), ssrcs })
    }
}

/// Takes fields off the front of a body.
struct Reader<'a> {
    bytes: &'a [u8],
    packet_type: u8,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RtcpError> {
        let (taken, rest) =
            self.bytes.split_at_checked(len).ok_or(RtcpError::Truncated { packet_type: self.packet_type })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], RtcpError> {
        let (taken, rest) =
            self.bytes.split_first_chunk::<N>().ok_or(RtcpError::Truncated { packet_type: self.packet_type })?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, RtcpError> {
        self.chunk().map(u32::from_be_bytes)
    }

    fn ssrc(&mut self) -> Result<Ssrc, RtcpError> {
        self.u32().map(Ssrc)
    }
}

/// Big-endian number at `at`; the chunk's length has been checked.
fn be32(chunk: &[u8], at: usize) -> u32 {
    chunk.get(at..at + 4).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

/// The report blocks of a sender or receiver report; at most 31.
#[derive(Clone, Debug)]
pub struct ReportBlocks<'a>(ChunksExact<'a, u8>);

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let block = self.0.next()?;
        let loss = be32(block, 4);
        Some(ReportBlock {
            ssrc: Ssrc(be32(block, 0)),
            fraction_lost: (loss >> 24) as u8,
            // Shifting up and down again spreads the sign of the 24 bits.
            lost: ((loss << 8).cast_signed()) >> 8,
            highest_seq: be32(block, 8),
            jitter: be32(block, 12),
            last_sr: be32(block, 16),
            delay_since_last_sr: be32(block, 20),
        })
    }
}

/// A list of sources.
#[derive(Clone, Debug)]
pub struct Ssrcs<'a>(ChunksExact<'a, u8>);

impl Iterator for Ssrcs<'_> {
    type Item = Ssrc;

    fn next(&mut self) -> Option<Ssrc> {
        self.0.next().map(|chunk| Ssrc(be32(chunk, 0)))
    }
}

/// The entries of a FIR: whose picture, and the command's number, which grows with each new command.
#[derive(Clone, Debug)]
pub struct FirEntries<'a>(ChunksExact<'a, u8>);

impl Iterator for FirEntries<'_> {
    type Item = (Ssrc, u8);

    fn next(&mut self) -> Option<(Ssrc, u8)> {
        self.0.next().map(|chunk| (Ssrc(be32(chunk, 0)), chunk.get(4).copied().unwrap_or(0)))
    }
}

/// The sequence numbers of a NACK, in the order asked: at most 17 for each four bytes of it.
#[derive(Clone, Debug)]
pub struct Nacks<'a> {
    pairs: ChunksExact<'a, u8>,
    /// Next number the mask's lowest bit stands for.
    seq: u16,
    mask: u16,
}

impl Iterator for Nacks<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            let pair = be32(self.pairs.next()?, 0);
            let first = (pair >> 16) as u16;
            self.mask = (pair & 0xffff) as u16;
            self.seq = first.wrapping_add(1);
            return Some(first);
        }
        let skip = self.mask.trailing_zeros() as u16;
        let seq = self.seq.wrapping_add(skip);
        self.seq = seq.wrapping_add(1);
        self.mask = self.mask.checked_shr(u32::from(skip) + 1).unwrap_or(0);
        Some(seq)
    }
}
