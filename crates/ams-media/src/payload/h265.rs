//! H.265 payloads (RFC 7798): which NAL units a packet holds, and the picture size of a sequence parameter set.
//!
//! Decoding order numbers (`sprop-max-don-diff` above 0) are not supported: no browser sends them.

use super::bits::{Bits, Bytes};
use super::{FrameSize, NalUnits};

const IRAP: std::ops::RangeInclusive<u8> = 16..=23;
const VPS: u8 = 32;
const SPS: u8 = 33;
const AGGREGATION: u8 = 48;
const FRAGMENT: u8 = 49;
const HEADER_LEN: usize = 2;

fn nal_type(nal: &[u8]) -> Option<u8> {
    nal.first().map(|b| b >> 1 & 0x3f)
}

/// What of a keyframe's start this packet holds.
pub(super) fn nal_units(payload: &[u8]) -> NalUnits {
    let mut found = NalUnits::default();
    if nal_type(payload) == Some(FRAGMENT) {
        if let Some(header) = payload.get(HEADER_LEN).filter(|h| **h & 0x80 != 0) {
            note(&mut found, header & 0x3f, payload.get(HEADER_LEN + 1..).unwrap_or_default());
        }
    } else {
        each_nal(payload, |nal| {
            if let Some(nal_type) = nal_type(nal) {
                note(&mut found, nal_type, nal.get(HEADER_LEN..).unwrap_or_default());
            }
            None::<()>
        });
    }
    found
}

fn note(found: &mut NalUnits, nal_type: u8, body: &[u8]) {
    match nal_type {
        VPS | SPS => found.parameter_sets = true,
        // `first_slice_segment_in_pic_flag` (ITU-T H.265 §7.3.6.1).
        t if IRAP.contains(&t) && body.first().is_some_and(|b| b & 0x80 != 0) => found.random_access = true,
        _ => {}
    }
}

/// The picture size, if this packet holds a sequence parameter set.
pub(super) fn frame_size(payload: &[u8]) -> Option<FrameSize> {
    each_nal(payload, |nal| match nal_type(nal) {
        Some(SPS) => sps_size(nal.get(HEADER_LEN..)?),
        _ => None,
    })
}

/// Calls `visit` for each whole NAL unit of the packet until it returns something. Fragments are not visited.
fn each_nal<'a, T>(payload: &'a [u8], mut visit: impl FnMut(&'a [u8]) -> Option<T>) -> Option<T> {
    match nal_type(payload)? {
        AGGREGATION => {
            let mut bytes = Bytes(payload.get(HEADER_LEN..)?);
            while !bytes.is_empty() {
                let len = bytes.u16()?;
                if let Some(found) = visit(bytes.take(usize::from(len))?) {
                    return Some(found);
                }
            }
            None
        }
        0..AGGREGATION => visit(payload),
        _ => None,
    }
}

/// Picture size of a sequence parameter set without its NAL header (ITU-T H.265 §7.3.2.2), cropping applied.
fn sps_size(body: &[u8]) -> Option<FrameSize> {
    let mut bits = Bits::of_nal(body);
    bits.skip(4)?; // video parameter set
    let sub_layers = bits.bits(3)?; // minus 1
    bits.bit()?; // temporal nesting
    skip_profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?; // id
    let chroma_format = bits.ue()?;
    let separate_planes = chroma_format == 3 && bits.bit()?;
    let (mut width, mut height) = (bits.ue()?, bits.ue()?);
    if bits.bit()? {
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?];
        let (unit_x, unit_y) = match chroma_format {
            1 if !separate_planes => (2, 2),
            2 if !separate_planes => (2, 1),
            _ => (1, 1),
        };
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
    }
    FrameSize::new(width, height)
}

/// ITU-T H.265 §7.3.3, with the general profile present.
fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    const PROFILE_BITS: u32 = 88;
    const LEVEL_BITS: u32 = 8;
    bits.skip(PROFILE_BITS + LEVEL_BITS)?;
    let mut skip = 0;
    for _ in 0..sub_layers {
        skip += if bits.bit()? { PROFILE_BITS } else { 0 };
        skip += if bits.bit()? { LEVEL_BITS } else { 0 };
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    bits.skip(skip)
}
