//! The AV1 dependency descriptor (Annex A of AOMedia's RTP payload format for AV1): where a packet stands among the
//! temporal and spatial layers, and how large the spatial layers are.
//!
//! Owns the structure of templates that a keyframe brings and that all packets until the next refer to.

use super::FRAME_SIDE_MAX;
use super::bits::Bits;
use crate::sublayer::{SUBLAYERS_MAX, Sublayer};

const TEMPLATES_MAX: usize = 64;
const TARGETS_MAX: usize = 32;
/// Decode target indication: from this frame on the target can be decoded.
const SWITCH: u32 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Template {
    spatial: u8,
    temporal: u8,
    /// Highest temporal layer of a target that can be switched to here.
    climbs_to: Option<u8>,
}

/// The structure of a layer's templates.
#[derive(Clone, Debug, Default)]
struct Structure {
    offset: u8,
    templates: Vec<Template>,
    /// Highest temporal layer of each decode target.
    targets: Vec<u8>,
    /// Heights of the spatial layers, where they are told.
    heights: [u32; SUBLAYERS_MAX],
}

/// Reads the descriptors of one layer's packets.
#[derive(Clone, Debug, Default)]
pub(crate) struct DependencyReader {
    structure: Structure,
}

impl DependencyReader {
    /// Reads one; none before the first structure, and for nonsense.
    pub(crate) fn read(&mut self, descriptor: &[u8]) -> Option<Sublayer> {
        let mut bits = Bits::new(descriptor);
        let (starts_frame, ends_frame) = (bits.bit()?, bits.bit()?);
        let template = bits.bits(6)?;
        bits.skip(16)?; // frame number
        let mut custom_targets = false;
        if descriptor.len() > 3 {
            let (has_structure, has_active) = (bits.bit()?, bits.bit()?);
            custom_targets = bits.bit()?;
            bits.skip(2)?; // custom frame differences and chains
            if has_structure {
                self.structure = structure(&mut bits)?;
            }
            if has_active {
                bits.skip(self.structure.targets.len() as u32)?;
            }
        }
        let at = (template + 64 - u32::from(self.structure.offset)) % 64;
        let template = *self.structure.templates.get(at as usize)?;
        let climbs_to = match custom_targets {
            true => climbs_to(&mut bits, &self.structure.targets)?,
            false => template.climbs_to,
        };
        Some(Sublayer {
            spatial: template.spatial,
            temporal: template.temporal,
            climb: climbs_to.filter(|to| starts_frame && *to > template.temporal).map(|to| (template.temporal, to)),
            ends_frame,
        })
    }
}

/// Heights of the spatial layers, from a keyframe's descriptor; 0 where none is told.
pub(super) fn heights(descriptor: &[u8]) -> Option<[u32; SUBLAYERS_MAX]> {
    let mut bits = Bits::new(descriptor);
    bits.skip(24)?;
    let has_structure = bits.bit()?;
    bits.skip(4)?;
    let heights = has_structure.then(|| structure(&mut bits))??.heights;
    (heights[0] > 0).then_some(heights)
}

/// The highest temporal layer among the targets that can be switched to, by their indications.
fn climbs_to(bits: &mut Bits<'_>, targets: &[u8]) -> Option<Option<u8>> {
    let mut highest = None;
    for temporal in targets {
        if bits.bits(2)? == SWITCH {
            highest = highest.max(Some(*temporal));
        }
    }
    Some(highest)
}

fn structure(bits: &mut Bits<'_>) -> Option<Structure> {
    let offset = bits.bits(6)? as u8;
    let target_count = bits.bits(5)? as usize + 1;
    let mut templates = Vec::new();
    let (mut spatial, mut temporal) = (0u8, 0u8);
    loop {
        templates.push(Template { spatial, temporal, climbs_to: None });
        match bits.bits(2)? {
            0 => {}
            1 => temporal += 1,
            2 => (spatial, temporal) = (spatial + 1, 0),
            _ => break,
        }
        if templates.len() == TEMPLATES_MAX || temporal > 7 || spatial > 3 {
            return None;
        }
    }
    let mut indications = [[0; TARGETS_MAX]; TEMPLATES_MAX];
    let mut targets = vec![0; target_count];
    for (template, row) in templates.iter().zip(&mut indications) {
        for (target, indication) in targets.iter_mut().zip(row) {
            *indication = bits.bits(2)?;
            if *indication != 0 {
                *target = template.temporal.max(*target);
            }
        }
    }
    for (template, row) in templates.iter_mut().zip(&indications) {
        let switched = targets.iter().zip(row).filter(|(_, indication)| **indication == SWITCH);
        template.climbs_to = switched.map(|(temporal, _)| *temporal).max();
    }
    for _ in 0..templates.len() {
        while bits.bit()? {
            bits.skip(4)?; // frame difference
        }
    }
    let chains = non_symmetric(bits, target_count as u32 + 1)?;
    if chains > 0 {
        for _ in 0..target_count {
            non_symmetric(bits, chains)?; // the chain that protects the target
        }
        bits.skip(4 * chains * templates.len() as u32)?;
    }
    let mut heights = [0; SUBLAYERS_MAX];
    if bits.bit()? {
        for height in heights.iter_mut().take(usize::from(spatial) + 1) {
            bits.skip(16)?; // width
            *height = bits.bits(16)? + 1;
            if *height > FRAME_SIDE_MAX {
                return None;
            }
        }
    }
    Some(Structure { offset, templates, targets, heights })
}

/// A number below `count`, in its shortest form: `ns(n)` (AV1 bitstream specification §4.10.7).
fn non_symmetric(bits: &mut Bits<'_>, count: u32) -> Option<u32> {
    let width = u32::BITS - count.leading_zeros();
    let short = (1 << width) - count;
    let value = bits.bits(width - 1)?;
    if value < short {
        return Some(value);
    }
    Some((value << 1) - short + u32::from(bits.bit()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes bits, most significant first.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn put(&mut self, value: u32, count: u32) -> &mut Self {
            self.0.extend((0..count).rev().map(|at| value >> at & 1 == 1));
            self
        }

        fn bytes(&self) -> Vec<u8> {
            self.0
                .chunks(8)
                .map(|c| c.iter().enumerate().fold(0, |b, (n, bit)| b | u8::from(*bit) << (7 - n)))
                .collect()
        }
    }

    /// A keyframe's descriptor of an encoding with one spatial and three temporal layers, as libwebrtc has it.
    fn l1t3() -> Vec<u8> {
        let mut w = Writer::default();
        w.put(0b11, 2).put(60, 6).put(1, 16); // starts and ends the frame, template 60, frame 1
        w.put(0b10000, 5); // a structure
        w.put(60, 6).put(2, 5); // templates from 60 on, three targets
        w.put(0, 2).put(1, 2).put(1, 2).put(0, 2).put(3, 2); // temporal layers 0, 0, 1, 2, 2
        for row in [[2, 2, 2], [2, 2, 2], [0, 1, 2], [0, 0, 1], [0, 0, 1]] {
            row.iter().for_each(|indication| _ = w.put(*indication, 2));
        }
        w.put(0, 1); // no reference
        w.put(0b10_0110, 6).put(0b10_0010, 6).put(0b10_0000, 6).put(0b10_0000, 6); // one each
        w.put(0b01, 2); // one chain of at most three
        [0, 4, 2, 1, 3].iter().for_each(|diff| _ = w.put(*diff, 4));
        w.put(1, 1).put(639, 16).put(359, 16);
        w.bytes()
    }

    fn later(template: u32) -> Vec<u8> {
        Writer::default().put(0b11, 2).put(template % 64, 6).put(9, 16).bytes()
    }

    #[test]
    fn packets_are_placed_by_the_last_structure() {
        let mut reader = DependencyReader::default();
        assert_eq!(reader.read(&later(60)), None, "no structure yet");
        let key = reader.read(&l1t3()).unwrap();
        assert_eq!((key.spatial, key.temporal, key.climb, key.ends_frame), (0, 0, Some((0, 2)), true));
        assert_eq!(heights(&l1t3()), Some([360, 0, 0, 0]));
        for (template, temporal, climb) in [(61, 0, Some((0, 2))), (62, 1, Some((1, 2))), (63, 2, None), (64, 2, None)]
        {
            let read = reader.read(&later(template)).unwrap();
            assert_eq!((read.temporal, read.climb), (temporal, climb), "{template}");
        }
        assert_eq!(reader.read(&later(65)), None, "no such template");
        assert_eq!(heights(&later(60)), None);
    }

    #[test]
    fn a_frame_with_indications_of_its_own() {
        let mut reader = DependencyReader::default();
        reader.read(&l1t3()).unwrap();
        let own = Writer::default().put(0b11, 2).put(63, 6).put(9, 16).put(0b00100, 5).put(0b00_10_01, 6).bytes();
        assert_eq!(reader.read(&own).unwrap().climb, None, "a target below the frame's own layer is no climb");
        let own = Writer::default().put(0b11, 2).put(62, 6).put(9, 16).put(0b00100, 5).put(0b00_01_01, 6).bytes();
        assert_eq!(reader.read(&own).unwrap().climb, None);
    }

    #[test]
    fn a_structure_that_is_cut_off_is_none() {
        let whole = l1t3();
        for len in 0..whole.len() {
            let mut reader = DependencyReader::default();
            assert_eq!(reader.read(&whole[..len]), None, "{len}");
            assert_eq!(heights(&whole[..len]), None, "{len}");
        }
    }
}
