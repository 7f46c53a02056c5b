//! RTP headers: read without copying, written without allocating, and the RTX wrapping of retransmissions.
//!
//! Owns the layout of RFC 3550 §5.1, of the header extension block (RFC 8285) and of RFC 4588. Never decides what to
//! send, never sees keys: [`header_len`] and [`peek`] work on packets that are still sealed, [`RtpHeader::parse`] on
//! opened ones, because padding can only be read there.

use std::ops::Range;

use ams_types::{Pt, Ssrc};

use crate::ext::{ExtMap, ExtValues};

/// Length of a header without CSRCs and extensions, in bytes.
pub const FIXED_LEN: usize = 12;
/// Enough bytes for any header [`write_header`] writes when MID and RIDs are at most 32 bytes each.
pub const HEADER_LEN_MAX: usize = FIXED_LEN + 4 + 512;

const ONE_BYTE_PROFILE: u16 = 0xbede;
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// The packet ends before its header does.
    #[error("RTP packet of {len} bytes ends inside its header")]
    Truncated {
        /// Length of the packet in bytes.
        len: usize,
    },
    /// The version field is not 2.
    #[error("RTP version is {0}, not 2")]
    Version(u8),
    /// The padding count is zero or larger than what follows the header.
    #[error("RTP padding of {padding} bytes does not fit behind the header")]
    Padding {
        /// The count the packet claims, in bytes.
        padding: usize,
    },
    /// The buffer given to a writer is too small.
    #[error("buffer of {len} bytes is too small for the RTP header")]
    BufferTooSmall {
        /// Length of the buffer in bytes.
        len: usize,
    },
}

/// Whether a datagram of the RTP range is RTCP: its second byte is 192 to 223 (RFC 5761 §4).
pub fn is_rtcp(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|b| (192..=223).contains(b))
}

/// What of the header can be read while the packet is sealed, and how much of it is header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Where the packet comes from.
    pub ssrc: Ssrc,
    /// Sequence number.
    pub seq: u16,
    /// Payload type.
    pub pt: Pt,
    /// Bytes of header: fixed part, CSRCs and extension block. Never more than the packet has.
    pub header_len: usize,
}

/// Reads the parts of a header that SRTP leaves open.
///
/// # Errors
/// [`RtpError::Truncated`] and [`RtpError::Version`].
pub fn peek(packet: &[u8]) -> Result<Peek, RtpError> {
    let header_len = header_len(packet)?;
    let [_, b1, s0, s1, _, _, _, _, x0, x1, x2, x3] = *fixed(packet)?;
    Ok(Peek {
        ssrc: Ssrc(u32::from_be_bytes([x0, x1, x2, x3])),
        seq: u16::from_be_bytes([s0, s1]),
        pt: Pt(b1 & 0x7f),
        header_len,
    })
}

/// Bytes of header of a packet, sealed or open: fixed part, CSRCs and extension block.
///
/// # Errors
/// [`RtpError::Truncated`] when the packet is shorter than that, [`RtpError::Version`].
pub fn header_len(packet: &[u8]) -> Result<usize, RtpError> {
    let truncated = RtpError::Truncated { len: packet.len() };
    let first = fixed(packet)?[0];
    if first >> 6 != 2 {
        return Err(RtpError::Version(first >> 6));
    }
    let mut len = FIXED_LEN + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        let words = packet.get(len + 2..len + 4).ok_or(truncated)?;
        len += 4 + usize::from(be16(words)) * 4;
    }
    if len > packet.len() { Err(truncated) } else { Ok(len) }
}

fn fixed(packet: &[u8]) -> Result<&[u8; FIXED_LEN], RtpError> {
    packet.first_chunk().ok_or(RtpError::Truncated { len: packet.len() })
}

/// Big-endian number from the first two bytes; missing bytes read as zero.
fn be16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
}

/// A parsed header; borrows the packet it was read from.
#[derive(Clone, Debug)]
pub struct RtpHeader<'a> {
    /// Last packet of a video frame, first of a talk spurt.
    pub marker: bool,
    /// Payload type.
    pub pt: Pt,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp in the codec's clock.
    pub timestamp: u32,
    /// Where the packet comes from.
    pub ssrc: Ssrc,
    /// Bytes of header: fixed part, CSRCs and extension block.
    pub header_len: usize,
    /// Where the payload lies in the packet, padding excluded. Always inside the packet; may be empty.
    pub payload: Range<usize>,
    exts: Extensions<'a>,
}

impl<'a> RtpHeader<'a> {
    /// Reads the header of an opened packet.
    ///
    /// # Errors
    /// [`RtpError`] when a length in it says more than there is.
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtpError> {
        let header_len = header_len(packet)?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3] = *fixed(packet)?;
        let mut end = packet.len();
        if b0 & 0x20 != 0 {
            let padding = usize::from(packet.last().copied().unwrap_or(0));
            if padding == 0 || padding > end - header_len {
                return Err(RtpError::Padding { padding });
            }
            end -= padding;
        }
        let ext_at = FIXED_LEN + usize::from(b0 & 0x0f) * 4;
        let exts = if b0 & 0x10 != 0 {
            Extensions::new(packet.get(ext_at..header_len).unwrap_or_default())
        } else {
            Extensions::default()
        };
        Ok(Self {
            marker: b1 & 0x80 != 0,
            pt: Pt(b1 & 0x7f),
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: Ssrc(u32::from_be_bytes([x0, x1, x2, x3])),
            header_len,
            payload: header_len..end,
            exts,
        })
    }

    /// The header extension elements in the order sent (RFC 8285). Ends at the first element whose length lies.
    pub fn exts(&self) -> Extensions<'a> {
        self.exts.clone()
    }

    /// The first element with this id.
    pub fn ext(&self, id: u8) -> Option<&'a [u8]> {
        self.exts().find(|(found, _)| *found == id).map(|(_, data)| data)
    }

    /// Turns the header of an RTX packet into that of the packet it repeats (RFC 4588 §4): the original sequence
    /// number comes from the payload's first two bytes, SSRC and payload type from the negotiation.
    ///
    /// `None` when there is no room for the number: senders probe bandwidth with such empty packets.
    pub fn unwrap_rtx(mut self, packet: &[u8], ssrc: Ssrc, pt: Pt) -> Option<Self> {
        let osn = packet.get(self.payload.clone())?.first_chunk::<2>()?;
        self.seq = u16::from_be_bytes(*osn);
        self.payload.start += 2;
        self.ssrc = ssrc;
        self.pt = pt;
        Some(self)
    }
}

/// Walks a header extension block, one-byte or two-byte form: `(id, data)`. Unknown profiles yield nothing.
#[derive(Clone, Debug, Default)]
pub struct Extensions<'a> {
    two_byte: bool,
    rest: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// `block` starts with the profile and word count and has been checked to be complete.
    fn new(block: &'a [u8]) -> Self {
        let profile = be16(block);
        let rest = block.get(4..).unwrap_or_default();
        match profile {
            ONE_BYTE_PROFILE => Self { two_byte: false, rest },
            p if p & 0xfff0 == TWO_BYTE_PROFILE => Self { two_byte: true, rest },
            _ => Self::default(),
        }
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            // Both forms pad with single zero bytes. In the one-byte form only id 0 with length bits 0 is padding.
            if first == 0 {
                self.rest = rest;
                continue;
            }
            let (id, len, rest) = if self.two_byte {
                let (&len, rest) = rest.split_first().unwrap_or((&0, &[]));
                (first, usize::from(len), rest)
            } else {
                (first >> 4, usize::from(first & 0x0f) + 1, rest)
            };
            // Id 15 ends a one-byte block; id 0 with a length is reserved (RFC 8285 §4.2).
            if (!self.two_byte && (id == 15 || id == 0)) || len > rest.len() {
                self.rest = &[];
                return None;
            }
            let (data, rest) = rest.split_at(len);
            self.rest = rest;
            return Some((id, data));
        }
    }
}

/// What a written header says, extensions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// Last packet of a video frame, first of a talk spurt.
    pub marker: bool,
    /// Payload type; only the low seven bits are written.
    pub pt: Pt,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp in the codec's clock.
    pub timestamp: u32,
    /// Where the packet comes from.
    pub ssrc: Ssrc,
}

/// Writes a header with those of `values` that `map` has an id for; returns its length in bytes.
///
/// The one-byte form is used where everything fits it. What does not fit (an element over 16 bytes, an id over 14) makes
/// the block two-byte if `map` allows mixing the forms, and is left out otherwise.
///
/// # Errors
/// [`RtpError::BufferTooSmall`]; [`HEADER_LEN_MAX`] bytes are always enough.
pub fn write_header(
    buf: &mut [u8],
    fields: &HeaderFields,
    map: &ExtMap,
    values: &ExtValues<'_>,
) -> Result<usize, RtpError> {
    let too_small = RtpError::BufferTooSmall { len: buf.len() };
    let mut any = false;
    let mut needs_two_byte = false;
    values.visit(map, |id, data| {
        let fits = fits_one_byte(id, data);
        any |= fits || map.allow_mixed;
        needs_two_byte |= !fits && map.allow_mixed;
    });

    let fixed: &mut [u8; FIXED_LEN] = buf.first_chunk_mut().ok_or(too_small)?;
    let [s0, s1] = fields.seq.to_be_bytes();
    let [t0, t1, t2, t3] = fields.timestamp.to_be_bytes();
    let [x0, x1, x2, x3] = fields.ssrc.0.to_be_bytes();
    let first = if any { 0x90 } else { 0x80 };
    let second = (u8::from(fields.marker) << 7) | (fields.pt.0 & 0x7f);
    *fixed = [first, second, s0, s1, t0, t1, t2, t3, x0, x1, x2, x3];
    if !any {
        return Ok(FIXED_LEN);
    }

    let mut out = Cursor { buf: buf.get_mut(FIXED_LEN + 4..).ok_or(too_small)?, at: 0, overflow: false };
    values.visit(map, |id, data| {
        if needs_two_byte {
            // Known elements are at most 255 bytes: `visit` keeps longer ones back.
            out.put(&[id, u8::try_from(data.len()).unwrap_or(u8::MAX)]);
            out.put(data);
        } else if fits_one_byte(id, data) {
            out.put(&[(id << 4) | (u8::try_from(data.len()).unwrap_or(1).wrapping_sub(1) & 0x0f)]);
            out.put(data);
        }
    });
    while !out.at.is_multiple_of(4) && !out.overflow {
        out.put(&[0]);
    }
    if out.overflow {
        return Err(too_small);
    }
    let len = out.at;
    let profile = if needs_two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE };
    let words = u16::try_from(len / 4).map_err(|_| too_small)?;
    let [p0, p1] = profile.to_be_bytes();
    let [w0, w1] = words.to_be_bytes();
    buf.get_mut(FIXED_LEN..FIXED_LEN + 4).ok_or(too_small)?.copy_from_slice(&[p0, p1, w0, w1]);
    Ok(FIXED_LEN + 4 + len)
}

/// Writes the header of an RTX packet and the original sequence number behind it (RFC 4588 §4); returns the bytes
/// written. The original payload follows. `fields` carry SSRC, payload type and sequence number of the RTX stream, and
/// timestamp and marker of the original.
///
/// # Errors
/// [`RtpError::BufferTooSmall`].
pub fn write_rtx_header(
    buf: &mut [u8],
    fields: &HeaderFields,
    original_seq: u16,
    map: &ExtMap,
    values: &ExtValues<'_>,
) -> Result<usize, RtpError> {
    let at = write_header(buf, fields, map, values)?;
    let len = buf.len();
    let osn = buf.get_mut(at..at + 2).ok_or(RtpError::BufferTooSmall { len })?;
    osn.copy_from_slice(&original_seq.to_be_bytes());
    Ok(at + 2)
}

fn fits_one_byte(id: u8, data: &[u8]) -> bool {
    (1..=14).contains(&id) && (1..=16).contains(&data.len())
}

/// Writes into a slice and remembers when it did not fit.
struct Cursor<'a> {
    buf: &'a mut [u8],
    at: usize,
    overflow: bool,
}

impl Cursor<'_> {
    fn put(&mut self, bytes: &[u8]) {
        match self.buf.get_mut(self.at..self.at + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            None => self.overflow = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use ams_media::AbsCaptureTime;
    use proptest::prelude::*;

    use super::*;
    use crate::ext::Ext;

    const FIELDS: HeaderFields =
        HeaderFields { marker: true, pt: Pt(96), seq: 65_535, timestamp: 0xdead_beef, ssrc: Ssrc(0x0102_0304) };

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut p = vec![first, 0x60, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5];
        p.extend_from_slice(rest);
        p
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for (name, bytes, want) in [
            ("empty", vec![], RtpError::Truncated { len: 0 }),
            ("eleven bytes", vec![0x80; 11], RtpError::Truncated { len: 11 }),
            ("version 1", packet(0x40, &[]), RtpError::Version(1)),
            ("CSRCs past the end", packet(0x8f, &[0; 8]), RtpError::Truncated { len: 20 }),
            ("no room for the extension header", packet(0x90, &[0xbe, 0xde]), RtpError::Truncated { len: 14 }),
            ("extension past the end", packet(0x90, &[0xbe, 0xde, 0, 2, 0, 0, 0, 0]), RtpError::Truncated { len: 20 }),
            ("largest extension", packet(0x90, &[0xbe, 0xde, 0xff, 0xff]), RtpError::Truncated { len: 16 }),
            ("padding of zero", packet(0xa0, &[1, 0]), RtpError::Padding { padding: 0 }),
            ("padding into the header", packet(0xa0, &[1, 3]), RtpError::Padding { padding: 3 }),
            ("padding without payload", packet(0xa0, &[]), RtpError::Padding { padding: 5 }),
        ] {
            assert_eq!(RtpHeader::parse(&bytes).unwrap_err(), want, "{name}");
        }
    }

    #[test]
    fn payload_excludes_csrcs_extensions_and_padding() {
        for (name, bytes, want) in [
            ("plain", packet(0x80, b"abc"), &b"abc"[..]),
            ("padded", packet(0xa0, &[b'a', b'b', b'c', 0, 2]), b"abc"),
            ("only padding", packet(0xa0, &[0, 0, 3]), b""),
            ("csrc", packet(0x81, &[9, 9, 9, 9, b'x']), b"x"),
            ("extension", packet(0x90, &[0xbe, 0xde, 0, 1, 0x10, 7, 0, 0, b'x']), b"x"),
            ("empty extension block", packet(0x90, &[0xbe, 0xde, 0, 0, b'x']), b"x"),
        ] {
            let header = RtpHeader::parse(&bytes).unwrap();
            assert_eq!(&bytes[header.payload.clone()], want, "{name}");
            assert_eq!(header.seq, 7, "{name}");
            assert_eq!(header.ssrc, Ssrc(5), "{name}");
        }
    }

    #[test]
    fn extension_elements_end_where_they_lie() {
        let block = |profile: [u8; 2], data: &[u8]| {
            let mut rest = profile.to_vec();
            rest.extend_from_slice(&u16::try_from(data.len() / 4).unwrap().to_be_bytes());
            rest.extend_from_slice(data);
            packet(0x90, &rest)
        };
        for (name, bytes, want) in [
            ("one-byte", block([0xbe, 0xde], &[0x10, 7, 0x21, 8, 9, 0, 0, 0]), vec![(1, vec![7]), (2, vec![8, 9])]),
            (
                "one-byte, padding between",
                block([0xbe, 0xde], &[0x10, 7, 0, 0x20, 8, 0, 0, 0]),
                vec![(1, vec![7]), (2, vec![8])],
            ),
            ("one-byte, too long", block([0xbe, 0xde], &[0x10, 7, 0x2f, 8]), vec![(1, vec![7])]),
            ("one-byte, id 15 stops", block([0xbe, 0xde], &[0xf0, 7, 0x20, 8]), vec![]),
            (
                "two-byte",
                block([0x10, 0x00], &[1, 1, 7, 0, 200, 0, 3, 0]),
                vec![(1, vec![7]), (200, vec![]), (3, vec![])],
            ),
            ("two-byte, app bits", block([0x10, 0x0a], &[1, 2, 7, 8]), vec![(1, vec![7, 8])]),
            ("two-byte, too long", block([0x10, 0x00], &[1, 3, 7, 8]), vec![]),
            ("two-byte, no length", block([0x10, 0x00], &[0, 0, 0, 9]), vec![(9, vec![])]),
            ("unknown profile", block([0xab, 0xcd], &[0x10, 7, 0, 0]), vec![]),
        ] {
            let header = RtpHeader::parse(&bytes).unwrap();
            let got: Vec<(u8, Vec<u8>)> = header.exts().map(|(id, data)| (id, data.to_vec())).collect();
            assert_eq!(got, want, "{name}");
        }
    }

    fn full_values(descriptor: &[u8]) -> ExtValues<'_> {
        ExtValues {
            mid: Some(b"0"),
            transport_seq: Some(65_535),
            abs_send_time: Some(0x00ab_cdef),
            audio_level: Some(0x9f),
            video_orientation: Some(3),
            abs_capture_time: Some(AbsCaptureTime { timestamp: 1 << 40, clock_offset: Some(-5) }),
            playout_delay: Some([0, 16, 2]),
            dependency_descriptor: Some(descriptor),
            ..ExtValues::default()
        }
    }

    fn full_map(allow_mixed: bool) -> ExtMap {
        let mut map = ExtMap::new(allow_mixed);
        for (ext, id) in Ext::ALL.into_iter().zip(1..) {
            assert!(map.insert(ext, id));
        }
        map
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut buf = [0; HEADER_LEN_MAX];
        for (name, descriptor, mixed, want_descriptor) in [
            ("one-byte form", vec![1; 16], false, true),
            ("long element, mixing allowed", vec![1; 200], true, true),
            ("long element, mixing not allowed", vec![1; 17], false, false),
            ("longest element", vec![1; 255], true, true),
        ] {
            let (map, values) = (full_map(mixed), full_values(&descriptor));
            let len = write_header(&mut buf, &FIELDS, &map, &values).unwrap();
            assert_eq!(len % 4, 0, "{name}");
            let header = RtpHeader::parse(&buf[..len]).unwrap();
            let mut want = values.clone();
            if !want_descriptor {
                want.dependency_descriptor = None;
            }
            assert_eq!(ExtValues::read(&header, &map), want, "{name}");
            assert_eq!(
                (header.marker, header.pt, header.seq, header.timestamp, header.ssrc),
                (true, FIELDS.pt, FIELDS.seq, FIELDS.timestamp, FIELDS.ssrc),
                "{name}"
            );
            assert!(header.payload.is_empty(), "{name}");
        }
    }

    #[test]
    fn without_negotiated_extensions_the_header_is_twelve_bytes() {
        let mut buf = [0; FIXED_LEN];
        assert_eq!(write_header(&mut buf, &FIELDS, &ExtMap::default(), &full_values(&[1])), Ok(FIXED_LEN));
        assert_eq!(buf[0], 0x80);
    }

    #[test]
    fn a_small_buffer_is_an_error_and_never_a_panic() {
        let mut buf = [0; HEADER_LEN_MAX];
        let (map, values) = (full_map(true), full_values(&[7; 40]));
        let need = write_rtx_header(&mut buf, &FIELDS, 1, &map, &values).unwrap();
        for len in 0..need {
            assert!(write_rtx_header(&mut buf[..len], &FIELDS, 1, &map, &values).is_err(), "{len} of {need}");
        }
    }

    #[test]
    fn rtx_carries_the_original_number_both_ways() {
        let mut buf = [0; 64];
        for original in [0, 1, 65_535] {
            let at = write_rtx_header(&mut buf, &FIELDS, original, &ExtMap::default(), &ExtValues::default()).unwrap();
            buf[at..at + 3].copy_from_slice(b"abc");
            let packet = &buf[..at + 3];
            let header = RtpHeader::parse(packet).unwrap().unwrap_rtx(packet, Ssrc(9), Pt(97)).unwrap();
            assert_eq!((header.seq, header.ssrc, header.pt), (original, Ssrc(9), Pt(97)));
            assert_eq!(&packet[header.payload], b"abc");
        }
        let probe = packet(0x80, &[1]);
        assert!(
            RtpHeader::parse(&probe).unwrap().unwrap_rtx(&probe, Ssrc(9), Pt(97)).is_none(),
            "one byte is no number"
        );
    }

    #[test]
    fn rtcp_is_told_from_rtp() {
        for (name, second, want) in [
            ("PT 96, marker", 0xe0, false),
            ("SR", 200, true),
            ("APP", 204, true),
            ("RTPFB", 205, true),
            ("PT 63, marker", 191, false),
            ("PT 111", 111, false),
        ] {
            assert_eq!(is_rtcp(&[0x80, second]), want, "{name}");
        }
        assert!(!is_rtcp(&[0x80]));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_to_something_inside_them(bytes in proptest::collection::vec(any::<u8>(), 0..96), force in any::<bool>()) {
            let mut bytes = bytes;
            if force && !bytes.is_empty() {
                bytes[0] = 0x80 | (bytes[0] & 0x3f);
            }
            if let Ok(header) = RtpHeader::parse(&bytes) {
                prop_assert!(header.header_len <= header.payload.start);
                prop_assert!(header.payload.start <= header.payload.end && header.payload.end <= bytes.len());
                let inside: usize = header.exts().map(|(_, data)| data.len() + 1).sum();
                prop_assert!(inside <= header.header_len);
                prop_assert_eq!(peek(&bytes).map(|p| p.header_len), Ok(header.header_len));
                let _ = ExtValues::read(&header, &full_map(true));
                let _ = header.unwrap_rtx(&bytes, Ssrc(1), Pt(1));
            }
        }
    }
}
