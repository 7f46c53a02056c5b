//! VP9 payloads (RFC 9628): the payload descriptor, and the picture size from its scalability structure or the frame.

use super::FrameSize;
use super::bits::{Bits, Bytes};
use crate::sublayer::{SUBLAYERS_MAX, Sublayer};

/// What the payload descriptor says (RFC 9628 §4.2).
#[derive(Clone, Copy, Debug)]
struct Descriptor<'a> {
    /// First packet of a picture: of a frame in the lowest spatial layer.
    starts_picture: bool,
    /// The frame needs earlier pictures.
    inter_predicted: bool,
    /// Last packet of a frame.
    ends_frame: bool,
    /// The layer byte: temporal layer, switching up point, spatial layer, inter-layer dependency.
    layers: Option<u8>,
    /// Sizes of the spatial layers, if the scalability structure tells them.
    sizes: Option<Sizes>,
    /// What follows the descriptor.
    rest: &'a [u8],
}

/// Size of the highest spatial layer, and the heights of those that are told apart.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    highest: Option<FrameSize>,
    heights: [u32; SUBLAYERS_MAX],
}

fn descriptor(payload: &[u8]) -> Option<Descriptor<'_>> {
    let mut bytes = Bytes(payload);
    let first = bytes.u8()?;
    let flag = |bit: u8| first & bit != 0;
    let (has_id, inter_predicted, has_layer, flexible) = (flag(0x80), flag(0x40), flag(0x20), flag(0x10));
    let (begins, ends_frame, has_structure) = (flag(0x08), flag(0x04), flag(0x02));
    if has_id && bytes.u8()? & 0x80 != 0 {
        bytes.u8()?; // a picture id of 15 bits
    }
    let mut layers = None;
    if has_layer {
        layers = Some(bytes.u8()?);
        if !flexible {
            bytes.u8()?; // TL0PICIDX
        }
    }
    if flexible && inter_predicted {
        for _ in 0..3 {
            let more = bytes.u8()? & 1 != 0;
            if !more {
                break;
            }
        }
    }
    let sizes = if has_structure { scalability_structure(&mut bytes)? } else { None };
    let starts_picture = begins && layers.is_none_or(|layers| spatial(layers) == 0);
    Some(Descriptor { starts_picture, inter_predicted, ends_frame, layers, sizes, rest: bytes.0 })
}

fn spatial(layers: u8) -> u8 {
    layers >> 1 & 0x07
}

/// Where the packet stands among temporal and spatial layers.
///
/// A switching up point of the lowest temporal layer opens all above it, as RFC 9628 has it. Above the lowest, browsers
/// set it on frames that need lower layers alone, and it opens the frame's own layer to viewers of the one below.
pub(super) fn sublayer(payload: &[u8]) -> Option<Sublayer> {
    let descriptor = descriptor(payload)?;
    let layers = descriptor.layers?;
    let (temporal, is_switch) = (layers >> 5, layers & 0x10 != 0);
    let climb = is_switch.then(|| temporal.checked_sub(1).map_or((0, 7), |below| (below, temporal)));
    Some(Sublayer { spatial: spatial(layers), temporal, climb, ends_frame: descriptor.ends_frame })
}

/// Heights of the spatial layers, from a scalability structure.
pub(super) fn heights(payload: &[u8]) -> Option<[u32; SUBLAYERS_MAX]> {
    descriptor(payload)?.sizes.map(|sizes| sizes.heights)
}

fn scalability_structure(bytes: &mut Bytes<'_>) -> Option<Option<Sizes>> {
    let header = bytes.u8()?;
    let mut sizes = None;
    if header & 0x10 != 0 {
        let told = sizes.insert(Sizes { highest: None, heights: [0; SUBLAYERS_MAX] });
        for at in 0..=usize::from(header >> 5) {
            told.highest = FrameSize::new(bytes.u16()?.into(), bytes.u16()?.into());
            if let Some(height) = told.heights.get_mut(at) {
                *height = told.highest.map_or(0, |size| size.height);
            }
        }
    }
    if header & 0x08 != 0 {
        for _ in 0..bytes.u8()? {
            let references = bytes.u8()? >> 2 & 0x03;
            bytes.take(references.into())?;
        }
    }
    Some(sizes)
}

/// The packet is the first of a picture.
pub(super) fn starts_frame(payload: &[u8]) -> bool {
    descriptor(payload).is_some_and(|d| d.starts_picture)
}

/// The packet is the first of a keyframe. An intra-only frame is none: it does not reset the decoder.
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    descriptor(payload).is_some_and(|d| {
        d.starts_picture && !d.inter_predicted && frame_header(d.rest).is_none_or(|header| header.is_key)
    })
}

/// Picture size from a keyframe's first packet or from a scalability structure.
pub(super) fn frame_size(payload: &[u8]) -> Option<FrameSize> {
    let descriptor = descriptor(payload)?;
    if let Some(highest) = descriptor.sizes.and_then(|sizes| sizes.highest) {
        return Some(highest);
    }
    if !descriptor.starts_picture || descriptor.inter_predicted {
        return None;
    }
    let mut header = frame_header(descriptor.rest)?;
    if !header.is_key {
        return None;
    }
    let bits = &mut header.bits;
    bits.skip(2)?; // show_frame, error_resilient_mode
    if bits.bits(24)? != 0x49_83_42 {
        return None;
    }
    if header.profile >= 2 {
        bits.bit()?; // bit depth
    }
    const SRGB: u32 = 7;
    let color_space = bits.bits(3)?;
    let with_subsampling = header.profile & 1 == 1;
    match (color_space == SRGB, with_subsampling) {
        (false, true) => bits.skip(4)?,
        (false, false) | (true, true) => bits.skip(1)?,
        (true, false) => return None,
    }
    FrameSize::new(bits.bits(16)? + 1, bits.bits(16)? + 1)
}

/// The start of the uncompressed header (VP9 bitstream specification §6.2), up to and with `frame_type`.
struct FrameHeader<'a> {
    profile: u32,
    is_key: bool,
    bits: Bits<'a>,
}

fn frame_header(frame: &[u8]) -> Option<FrameHeader<'_>> {
    let mut bits = Bits::new(frame);
    if bits.bits(2)? != 2 {
        return None;
    }
    let profile = u32::from(bits.bit()?) | u32::from(bits.bit()?) << 1;
    if profile == 3 {
        bits.bit()?;
    }
    let shows_existing = bits.bit()?;
    let is_key = !shows_existing && !bits.bit()?;
    Some(FrameHeader { profile, is_key, bits })
}
