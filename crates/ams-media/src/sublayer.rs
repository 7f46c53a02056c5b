//! Temporal and spatial layers inside one encoding (SVC): where a packet stands among them, and how deep a viewer's
//! share of them goes.
//!
//! Owns the two notions and how a [`Sublayer`] travels between nodes. Reading it from packets is [`SublayerReader`]'s
//! matter, leaving packets out [`DepthSelector`](crate::DepthSelector)'s.

use ams_types::Codec;

use crate::payload::dependency::DependencyReader;
use crate::payload::sublayer_of;

/// Temporal layers, and spatial layers, that are told apart; higher ones count as the last.
pub const SUBLAYERS_MAX: usize = 4;

/// Where a packet stands among the layers of its encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sublayer {
    /// Spatial layer, 0 to 7; 0 is the smallest picture.
    pub spatial: u8,
    /// Temporal layer, 0 to 7; 0 is the lowest picture rate.
    pub temporal: u8,
    /// From this picture on, who got temporal layers up to the first gets those up to the second without a keyframe.
    pub climb: Option<(u8, u8)>,
    /// The last packet of this picture in its spatial layer, where the codec tells.
    pub ends_frame: bool,
}

impl Sublayer {
    /// Two bytes, for the relay.
    pub fn to_bits(self) -> u16 {
        let (from, to) = self.climb.unwrap_or_default();
        let field = |value: u8, at: u16| u16::from(value.min(7)) << at;
        field(self.spatial, 0)
            | field(self.temporal, 3)
            | field(from, 6)
            | field(to, 9)
            | u16::from(self.climb.is_some()) << 12
            | u16::from(self.ends_frame) << 13
    }

    /// Of two bytes; those of a newer version's bits are ignored.
    pub fn from_bits(bits: u16) -> Self {
        let field = |at: u16| (bits >> at & 7) as u8;
        Self {
            spatial: field(0),
            temporal: field(3),
            climb: (bits >> 12 & 1 == 1).then(|| (field(6), field(9))),
            ends_frame: bits >> 13 & 1 == 1,
        }
    }
}

/// How many of an encoding's layers a viewer gets: all up to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Depth {
    /// Highest spatial layer.
    pub spatial: u8,
    /// Highest temporal layer.
    pub temporal: u8,
}

impl Depth {
    /// All there are.
    pub const ALL: Self = Self { spatial: u8::MAX, temporal: u8::MAX };

    /// Whether a packet is within.
    pub fn has(self, sublayer: Sublayer) -> bool {
        sublayer.spatial <= self.spatial && sublayer.temporal <= self.temporal
    }
}

impl Default for Depth {
    fn default() -> Self {
        Self::ALL
    }
}

/// Reads where the packets of one layer of a track stand; for the node that takes the publisher's media.
///
/// VP8 and VP9 say it in every payload (RFC 7741 §4.2, RFC 9628 §4.2). AV1 says it in its dependency descriptor, relative
/// to a structure that came with the last keyframe; so does Chromium for VP8, whose payloads then say nothing. H.264 and
/// H.265 say it there or not at all.
#[derive(Clone, Debug)]
pub struct SublayerReader {
    codec: Codec,
    dependencies: DependencyReader,
}

impl SublayerReader {
    /// A reader for one layer of a track with this codec.
    pub fn new(codec: Codec) -> Self {
        Self { codec, dependencies: DependencyReader::default() }
    }

    /// Reads a packet; none where it does not say.
    pub fn on_packet(&mut self, payload: &[u8], dependency_descriptor: Option<&[u8]>) -> Option<Sublayer> {
        // In any case: a structure may come with it.
        let described = dependency_descriptor.and_then(|descriptor| self.dependencies.read(descriptor));
        sublayer_of(self.codec, payload).or(described)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_depth_has_what_is_up_to_it() {
        let at = |spatial, temporal| Sublayer { spatial, temporal, ..Sublayer::default() };
        for (depth, spatial, temporal, want) in [
            (Depth::ALL, 7, 7, true),
            (Depth { spatial: 0, temporal: 1 }, 0, 1, true),
            (Depth { spatial: 0, temporal: 1 }, 0, 2, false),
            (Depth { spatial: 0, temporal: 1 }, 1, 0, false),
        ] {
            assert_eq!(depth.has(at(spatial, temporal)), want, "{depth:?} {spatial} {temporal}");
        }
    }

    proptest! {
        #[test]
        fn bits_hold_all_of_it(spatial in 0u8..8, temporal in 0u8..8, from in 0u8..8, to in 0u8..8, flags in 0u8..4) {
            let sublayer = Sublayer {
                spatial,
                temporal,
                climb: (flags & 1 != 0).then_some((from, to)),
                ends_frame: flags & 2 != 0,
            };
            prop_assert_eq!(Sublayer::from_bits(sublayer.to_bits()), sublayer);
        }

        #[test]
        fn any_bits_are_taken(bits in any::<u16>()) {
            prop_assert_eq!(Sublayer::from_bits(bits).to_bits() & 0x303f, bits & 0x303f);
        }
    }
}
