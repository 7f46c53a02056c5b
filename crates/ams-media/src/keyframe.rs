//! Which packet of a layer starts a keyframe, once per keyframe.
//!
//! Owns the little memory H.264 and H.265 need for that; what one payload says is [`payload`](crate::payload)'s matter.
//! One detector per layer, on the node that takes the publisher's media; the answer then travels with the packet.

use ams_types::Codec;

use crate::payload::{dependency_descriptor_starts_keyframe, nal_units, starts_keyframe};

/// Finds the packets at which a decoder can begin.
///
/// A publisher of H.264 or H.265 may send parameter sets in front of every random access picture, as browsers do, or
/// once only. In the first case the keyframe starts at the parameter sets, and a picture without them (they were lost)
/// is no start; in the second the picture itself is.
#[derive(Clone, Debug)]
pub struct KeyframeDetector {
    codec: Codec,
    /// RTP timestamp of the frame that was last answered with true.
    started: Option<u32>,
    /// Parameter sets were seen in the stream.
    has_parameter_sets: bool,
    /// The last random access picture came without them.
    last_was_bare: bool,
}

impl KeyframeDetector {
    /// A detector for one layer of a track with this codec.
    pub fn new(codec: Codec) -> Self {
        Self { codec, started: None, has_parameter_sets: false, last_was_bare: false }
    }

    /// Whether this packet starts a keyframe; for [`MediaPacket::keyframe`](crate::MediaPacket::keyframe).
    ///
    /// `dependency_descriptor` is the AV1 extension where the packet has one.
    pub fn on_packet(&mut self, timestamp: u32, payload: &[u8], dependency_descriptor: Option<&[u8]>) -> bool {
        let Some(found) = nal_units(self.codec, payload) else {
            return starts_keyframe(self.codec, payload)
                || self.codec == Codec::Av1
                    && dependency_descriptor.is_some_and(dependency_descriptor_starts_keyframe);
        };
        let starts = if found.parameter_sets {
            self.has_parameter_sets = true;
            self.last_was_bare = false;
            true
        } else if found.random_access && self.started != Some(timestamp) {
            let expects_parameter_sets = self.has_parameter_sets && !self.last_was_bare;
            self.last_was_bare = true;
            !expects_parameter_sets
        } else {
            false
        };
        let is_new = starts && self.started != Some(timestamp);
        if starts {
            self.started = Some(timestamp);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::from_hex;

    const SPS: &str = "6742c01f";
    const PPS: &str = "68ce3c80";
    const IDR: &str = "6588840a";
    const P: &str = "419a";

    fn starts(codec: Codec, packets: &[(u32, &str)]) -> Vec<usize> {
        let mut detector = KeyframeDetector::new(codec);
        let is_start = |&(at, (timestamp, hex)): &(usize, &(u32, &str))| {
            detector.on_packet(*timestamp, &from_hex(hex), None).then_some(at).is_some()
        };
        packets.iter().enumerate().filter(is_start).map(|(at, _)| at).collect()
    }

    #[test]
    fn a_keyframe_starts_once() {
        for (name, codec, packets, want) in [
            (
                "parameter sets and picture in packets of their own",
                Codec::H264,
                &[(0, SPS), (0, PPS), (0, IDR), (3000, P), (6000, SPS), (6000, PPS), (6000, IDR)][..],
                &[0, 4][..],
            ),
            ("parameter sets never", Codec::H264, &[(0, IDR), (1, P), (2, IDR)], &[0, 2]),
            ("parameter sets once", Codec::H264, &[(0, SPS), (0, IDR), (1, IDR), (2, IDR), (3, IDR)], &[0, 3, 4]),
            (
                "parameter sets lost once",
                Codec::H264,
                &[(0, SPS), (0, IDR), (1, PPS), (1, IDR), (2, SPS), (2, IDR)],
                &[0, 4],
            ),
            ("timestamp wraps", Codec::H264, &[(u32::MAX, SPS), (u32::MAX, IDR), (0, SPS), (0, IDR)], &[0, 2]),
            ("vps, sps and picture", Codec::H265, &[(0, "40010c"), (0, "420101"), (0, "2601af")], &[0]),
            ("vp8", Codec::Vp8, &[(0, "10500800"), (0, "00aa"), (1, "10b1")], &[0]),
            ("every packet of audio", Codec::Opus, &[(0, "fc"), (960, "fc")], &[0, 1]),
        ] {
            assert_eq!(starts(codec, packets), want, "{name}");
        }
    }

    #[test]
    fn av1_starts_where_the_dependency_descriptor_says() {
        let mut detector = KeyframeDetector::new(Codec::Av1);
        let inter = from_hex("103000");
        assert!(detector.on_packet(0, &inter, Some(&from_hex("80000180"))));
        assert!(!detector.on_packet(3000, &inter, Some(&from_hex("800001"))));
    }
}
