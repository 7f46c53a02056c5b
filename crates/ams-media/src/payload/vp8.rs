//! VP8 payloads (RFC 7741): the payload descriptor, and the picture size of a keyframe.

use super::FrameSize;
use super::bits::Bytes;
use crate::sublayer::Sublayer;

/// What the payload descriptor says (RFC 7741 §4.2).
#[derive(Clone, Copy, Debug)]
struct Descriptor<'a> {
    /// First packet of a frame: start of partition 0.
    starts_frame: bool,
    /// Temporal layer, and whether the frame needs the lowest one alone.
    temporal: Option<(u8, bool)>,
    /// What follows the descriptor.
    rest: &'a [u8],
}

fn descriptor(payload: &[u8]) -> Option<Descriptor<'_>> {
    let mut bytes = Bytes(payload);
    let first = bytes.u8()?;
    let mut temporal = None;
    if first & 0x80 != 0 {
        let present = bytes.u8()?;
        if present & 0x80 != 0 && bytes.u8()? & 0x80 != 0 {
            bytes.u8()?; // a picture id of 15 bits
        }
        if present & 0x40 != 0 {
            bytes.u8()?; // TL0PICIDX
        }
        if present & 0x30 != 0 {
            let byte = bytes.u8()?; // TID, Y and KEYIDX
            temporal = (present & 0x20 != 0).then_some((byte >> 6, byte & 0x20 != 0));
        }
    }
    Some(Descriptor { starts_frame: first & 0x10 != 0 && first & 0x07 == 0, temporal, rest: bytes.0 })
}

/// Where the packet stands among temporal layers. A frame that needs the lowest layer alone lets viewers of the layer
/// below its own climb.
pub(super) fn sublayer(payload: &[u8]) -> Option<Sublayer> {
    let (temporal, needs_lowest) = descriptor(payload)?.temporal?;
    let climb = temporal.checked_sub(1).filter(|_| needs_lowest).map(|below| (below, temporal));
    Some(Sublayer { temporal, climb, ..Sublayer::default() })
}

/// The packet is the first of a frame.
pub(super) fn starts_frame(payload: &[u8]) -> bool {
    descriptor(payload).is_some_and(|d| d.starts_frame)
}

/// The packet is the first of a keyframe: the inverse keyframe flag of the frame tag is 0 (RFC 6386 §9.1).
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    keyframe(payload).is_some()
}

fn keyframe(payload: &[u8]) -> Option<&[u8]> {
    let descriptor = descriptor(payload)?;
    let is_key = descriptor.rest.first()? & 1 == 0;
    (descriptor.starts_frame && is_key).then_some(descriptor.rest)
}

/// Picture size in a keyframe's header (RFC 6386 §9.1); the scaling hints are ignored.
pub(super) fn frame_size(payload: &[u8]) -> Option<FrameSize> {
    const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];
    let mut bytes = Bytes(keyframe(payload)?);
    bytes.take(3)?; // frame tag
    if bytes.take(3)? != START_CODE {
        return None;
    }
    let mut size = || Some(u32::from(bytes.u16()?.swap_bytes() & 0x3fff));
    FrameSize::new(size()?, size()?)
}
