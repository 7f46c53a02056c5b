//! H.264 payloads (RFC 6184): which NAL units a packet holds, and the picture size of a sequence parameter set.

use super::bits::{Bits, Bytes};
use super::{FrameSize, NalUnits};

const SLICE_IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// What of a keyframe's start this packet holds.
pub(super) fn nal_units(payload: &[u8]) -> NalUnits {
    let mut found = NalUnits::default();
    let mut bytes = Bytes(payload);
    match bytes.u8().map(|header| header & 0x1f) {
        Some(FU_A | FU_B) => {
            let starts = |header: u8| header & 0x80 != 0;
            if let Some(header) = bytes.u8().filter(|h| starts(*h)) {
                note(&mut found, header & 0x1f, bytes.0);
            }
        }
        _ => each_nal(payload, |nal| {
            if let Some((header, body)) = nal.split_first() {
                note(&mut found, header & 0x1f, body);
            }
            None::<()>
        })
        .unwrap_or_default(),
    }
    found
}

fn note(found: &mut NalUnits, nal_type: u8, body: &[u8]) {
    match nal_type {
        SPS => found.parameter_sets = true,
        // `first_mb_in_slice` is 0: its Exp-Golomb code is a single 1 (ITU-T H.264 §7.3.3).
        SLICE_IDR if body.first().is_some_and(|b| b & 0x80 != 0) => found.random_access = true,
        _ => {}
    }
}

/// The picture size, if this packet holds a sequence parameter set.
pub(super) fn frame_size(payload: &[u8]) -> Option<FrameSize> {
    each_nal(payload, |nal| match nal.split_first() {
        Some((header, body)) if header & 0x1f == SPS => sps_size(body),
        _ => None,
    })
}

/// Calls `visit` for each whole NAL unit of the packet until it returns something. Fragments are not visited.
fn each_nal<'a, T>(payload: &'a [u8], mut visit: impl FnMut(&'a [u8]) -> Option<T>) -> Option<T> {
    let mut bytes = Bytes(payload);
    match bytes.u8()? & 0x1f {
        kind @ (STAP_A | STAP_B) => {
            if kind == STAP_B {
                bytes.u16()?;
            }
            while !bytes.is_empty() {
                let len = bytes.u16()?;
                if let Some(found) = visit(bytes.take(usize::from(len))?) {
                    return Some(found);
                }
            }
            None
        }
        1..=23 => visit(payload),
        _ => None,
    }
}

/// Picture size of a sequence parameter set without its NAL header (ITU-T H.264 §7.3.2.1.1), cropping applied.
fn sps_size(body: &[u8]) -> Option<FrameSize> {
    let mut bits = Bits::of_nal(body);
    let profile = bits.bits(8)?;
    bits.skip(16)?; // constraint flags, level
    bits.ue()?; // id
    let mut chroma_format = 1;
    let mut separate_planes = false;
    if matches!(profile, 44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244) {
        chroma_format = bits.ue()?;
        if chroma_format == 3 {
            separate_planes = bits.bit()?;
        }
        bits.ue()?; // luma depth
        bits.ue()?; // chroma depth
        bits.bit()?; // transform bypass
        if bits.bit()? {
            for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?; // frame number length
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.bit()?;
            bits.se()?;
            bits.se()?;
            let cycle = bits.ue()?;
            if cycle > 255 {
                return None;
            }
            for _ in 0..cycle {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?; // reference frames
    bits.bit()?; // gaps allowed
    let width_mbs = bits.ue()?.checked_add(1)?;
    let height_units = bits.ue()?.checked_add(1)?;
    let frames_only = bits.bit()?;
    if !frames_only {
        bits.bit()?;
    }
    bits.bit()?; // direct 8x8 inference
    let field = if frames_only { 1 } else { 2 };
    let (mut width, mut height) = (width_mbs.checked_mul(16)?, height_units.checked_mul(16)?.checked_mul(field)?);
    if bits.bit()? {
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?];
        let (unit_x, unit_y) = match chroma_format {
            1 if !separate_planes => (2, 2),
            2 if !separate_planes => (2, 1),
            _ => (1, 1),
        };
        width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y * field)?)?;
    }
    FrameSize::new(width, height)
}

fn skip_scaling_list(bits: &mut Bits<'_>, len: u32) -> Option<()> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..len {
        if next != 0 {
            next = last.wrapping_add(bits.se()?).wrapping_add(256).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}
