//! AV1 payloads (AOMedia's RTP payload format for AV1): the aggregation header, OBU elements and the sequence header.

use super::FrameSize;
use super::bits::{Bits, Bytes};

const SEQUENCE_HEADER: u8 = 1;
/// OBU elements looked at per packet; a keyframe's sequence header is among the first two.
const ELEMENTS_MAX: usize = 8;

/// The packet starts a coded video sequence: the N bit says so, or it opens with a sequence header (§4.4).
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    let Some(header) = payload.first() else { return false };
    let (continues, new_sequence) = (header & 0x80 != 0, header & 0x08 != 0);
    !continues && payload.len() > 1 && (new_sequence || sequence_header(payload).is_some())
}

/// Picture size of the sequence header, if this packet holds one.
pub(super) fn frame_size(payload: &[u8]) -> Option<FrameSize> {
    sequence_size(sequence_header(payload)?)
}

/// The template structure of a dependency descriptor: only a keyframe's first packet carries one (Annex A.8.1).
pub(super) fn descriptor_starts_keyframe(descriptor: &[u8]) -> bool {
    let starts_frame = descriptor.first().is_some_and(|b| b & 0x80 != 0);
    // Three mandatory bytes, then `template_dependency_structure_present_flag`.
    starts_frame && descriptor.get(3).is_some_and(|b| b & 0x80 != 0)
}

/// Body of the first sequence header that is whole in this packet.
fn sequence_header(payload: &[u8]) -> Option<&[u8]> {
    let mut bytes = Bytes(payload);
    let header = bytes.u8()?;
    let (continues, count) = (header & 0x80 != 0, usize::from(header >> 4 & 0x03));
    for element in 1..=ELEMENTS_MAX {
        if bytes.is_empty() {
            return None;
        }
        // With a count in the header, the last element has no length (§4.4).
        let obu = if element == count {
            bytes.take(bytes.0.len())?
        } else {
            let len = bytes.leb128()?;
            bytes.take(usize::try_from(len).ok()?)?
        };
        let is_fragment = continues && element == 1;
        if !is_fragment && let Some((SEQUENCE_HEADER, body)) = obu_body(obu) {
            return Some(body);
        }
        if element == count {
            return None;
        }
    }
    None
}

/// Type and body of an OBU (AV1 bitstream specification §5.3).
fn obu_body(obu: &[u8]) -> Option<(u8, &[u8])> {
    let mut bytes = Bytes(obu);
    let header = bytes.u8()?;
    if header & 0x80 != 0 {
        return None;
    }
    if header & 0x04 != 0 {
        bytes.u8()?; // temporal and spatial id
    }
    if header & 0x02 != 0 {
        let len = bytes.leb128()?;
        return Some((header >> 3 & 0x0f, bytes.take(usize::try_from(len).ok()?)?));
    }
    Some((header >> 3 & 0x0f, bytes.0))
}

/// `max_frame_width_minus_1` and its height of a sequence header (AV1 bitstream specification §5.5.1).
fn sequence_size(body: &[u8]) -> Option<FrameSize> {
    let mut bits = Bits::new(body);
    bits.skip(3 + 1)?; // profile, still picture
    let reduced = bits.bit()?;
    if reduced {
        bits.skip(5)?; // level
    } else {
        let mut delay_bits = None;
        if bits.bit()? {
            bits.skip(64)?; // display tick, time scale
            if bits.bit()? {
                bits.ue()?; // ticks per picture
            }
            if bits.bit()? {
                delay_bits = Some(bits.bits(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let has_display_delay = bits.bit()?;
        for _ in 0..=bits.bits(5)? {
            bits.skip(12)?; // operating point
            if bits.bits(5)? > 7 {
                bits.bit()?; // tier
            }
            if let Some(len) = delay_bits
                && bits.bit()?
            {
                bits.skip(2 * len + 1)?;
            }
            if has_display_delay && bits.bit()? {
                bits.skip(4)?;
            }
        }
    }
    let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
    FrameSize::new(bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1)
}
