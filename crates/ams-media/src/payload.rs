//! What a payload tells of itself without being decoded: frame and keyframe starts, picture size, its place among temporal
//! and spatial layers.
//!
//! Stateless but for [`dependency`], and hard against whatever a stranger sends: nonsense gives `false` or `None`, never a panic, and work is
//! bounded by the packet's length. [`KeyframeDetector`](crate::KeyframeDetector) adds what needs memory.

mod av1;
mod bits;
pub(crate) mod dependency;
mod h264;
mod h265;
mod vp8;
pub mod vp8_ids;
mod vp9;

use ams_types::Codec;

use crate::sublayer::{SUBLAYERS_MAX, Sublayer};

/// Picture size in pixels, both from 1 to [`FRAME_SIDE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameSize {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// Longest side of a picture that is believed.
pub const FRAME_SIDE_MAX: u32 = 16_384;

impl FrameSize {
    fn new(width: u32, height: u32) -> Option<Self> {
        let believable = |side| (1..=FRAME_SIDE_MAX).contains(&side);
        (believable(width) && believable(height)).then_some(Self { width, height })
    }
}

/// Parts of a keyframe's start found in one packet of a codec made of NAL units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NalUnits {
    /// A sequence (or video) parameter set.
    pub(crate) parameter_sets: bool,
    /// The first slice of a picture that needs no other.
    pub(crate) random_access: bool,
}

/// What of a keyframe's start `payload` holds; `None` for codecs that are not made of NAL units.
pub(crate) fn nal_units(codec: Codec, payload: &[u8]) -> Option<NalUnits> {
    match codec {
        Codec::H264 => Some(h264::nal_units(payload)),
        Codec::H265 => Some(h265::nal_units(payload)),
        Codec::Opus | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => None,
    }
}

/// Whether a decoder can begin at this packet, judged by its payload alone. Always true for audio.
///
/// For H.264 and H.265 both the parameter sets and the first slice after them answer true, so one keyframe may answer
/// true twice; [`KeyframeDetector`](crate::KeyframeDetector) tells which of them is the start.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => vp8::starts_keyframe(payload),
        Codec::Vp9 => vp9::starts_keyframe(payload),
        Codec::Av1 => av1::starts_keyframe(payload),
        Codec::H264 | Codec::H265 => {
            nal_units(codec, payload).is_some_and(|found| found.parameter_sets || found.random_access)
        }
    }
}

/// Whether this packet is the first of a frame; `None` where the payload does not tell (H.264, H.265, AV1).
pub fn starts_frame(codec: Codec, payload: &[u8]) -> Option<bool> {
    match codec {
        Codec::Opus => Some(true),
        Codec::Vp8 => Some(vp8::starts_frame(payload)),
        Codec::Vp9 => Some(vp9::starts_frame(payload)),
        Codec::Av1 | Codec::H264 | Codec::H265 => None,
    }
}

/// Whether an AV1 dependency descriptor belongs to the first packet of a keyframe: it brings a template structure.
pub fn dependency_descriptor_starts_keyframe(descriptor: &[u8]) -> bool {
    av1::descriptor_starts_keyframe(descriptor)
}

/// The picture size, if this packet happens to tell it: a keyframe's first packet mostly does.
///
/// VP9 with several spatial layers answers the size of the highest one.
pub fn frame_size(codec: Codec, payload: &[u8]) -> Option<FrameSize> {
    match codec {
        Codec::Opus => None,
        Codec::Vp8 => vp8::frame_size(payload),
        Codec::Vp9 => vp9::frame_size(payload),
        Codec::Av1 => av1::frame_size(payload),
        Codec::H264 => h264::frame_size(payload),
        Codec::H265 => h265::frame_size(payload),
    }
}

/// Where a packet stands among the temporal and spatial layers of its encoding, where its payload tells.
pub(crate) fn sublayer_of(codec: Codec, payload: &[u8]) -> Option<Sublayer> {
    match codec {
        Codec::Vp8 => vp8::sublayer(payload),
        Codec::Vp9 => vp9::sublayer(payload),
        Codec::Opus | Codec::Av1 | Codec::H264 | Codec::H265 => None,
    }
}

/// Heights of an encoding's spatial layers, if this packet happens to tell them: a keyframe's first packet may. 0 for
/// those it does not have.
pub fn spatial_heights(
    codec: Codec,
    payload: &[u8],
    dependency_descriptor: Option<&[u8]>,
) -> Option<[u32; SUBLAYERS_MAX]> {
    match codec {
        Codec::Vp9 => vp9::heights(payload),
        Codec::Av1 => dependency::heights(dependency_descriptor?),
        Codec::Opus | Codec::Vp8 | Codec::H264 | Codec::H265 => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::from_hex;

    /// SPS of a 1280×720 constrained baseline stream, and of a 1920×1080 high profile one (cropped from 1088).
    const SPS_720: &str = "6742c01fda014016ec0440000003004000000f03c60ca8";
    const SPS_1080: &str = "67640028acd940780227e5c044000003000400000300f03c60c658";
    const PPS: &str = "68ce3c80";

    fn stap_a(nals: &[&str]) -> String {
        nals.iter().fold("78".to_owned(), |all, nal| format!("{all}{:04x}{nal}", nal.len() / 2))
    }

    #[test]
    fn keyframe_starts_are_found() {
        let sps_pps = stap_a(&[SPS_720, PPS]);
        let sps_pps_idr = stap_a(&[SPS_720, PPS, "6588840a"]);
        let pps_only = stap_a(&[PPS]);
        for (name, codec, hex, want) in [
            ("opus", Codec::Opus, "fc00", true),
            ("opus, empty (DTX)", Codec::Opus, "", true),
            ("h264 idr", Codec::H264, "6588840a", true),
            ("h264 second slice of an idr", Codec::H264, "6542", false),
            ("h264 sps", Codec::H264, SPS_720, true),
            ("h264 pps", Codec::H264, PPS, false),
            ("h264 stap-a with sps", Codec::H264, &sps_pps, true),
            ("h264 stap-a with sps and idr", Codec::H264, &sps_pps_idr, true),
            ("h264 stap-a without sps", Codec::H264, &pps_only, false),
            ("h264 stap-a whose length lies", Codec::H264, "78ffff67", false),
            ("h264 fu-a start of an idr", Codec::H264, "7c8588840a", true),
            ("h264 fu-a middle of an idr", Codec::H264, "7c0588840a", false),
            ("h264 fu-a start of a p slice", Codec::H264, "7c8188", false),
            ("h264 p slice", Codec::H264, "419a", false),
            ("h264 empty", Codec::H264, "", false),
            ("h265 idr", Codec::H265, "2601af", true),
            ("h265 cra", Codec::H265, "2a01af", true),
            ("h265 second slice of an idr", Codec::H265, "26012f", false),
            ("h265 vps", Codec::H265, "40010c", true),
            ("h265 aggregate of vps and sps", Codec::H265, "6001000340010c0003420101", true),
            ("h265 aggregate cut short", Codec::H265, "6001ff", false),
            ("h265 fragment, start of an idr", Codec::H265, "620193af", true),
            ("h265 fragment, middle of an idr", Codec::H265, "620113af", false),
            ("h265 trailing picture", Codec::H265, "0201d0", false),
            ("h265 one byte", Codec::H265, "26", false),
            ("vp8 keyframe, bare descriptor", Codec::Vp8, "10500800", true),
            ("vp8 keyframe, 15 bit picture id", Codec::Vp8, "9080812300", true),
            ("vp8 keyframe, all fields", Codec::Vp8, "90f081230501500800", true),
            ("vp8 delta frame", Codec::Vp8, "90808123b1", false),
            ("vp8 continuation", Codec::Vp8, "0000", false),
            ("vp8 second partition", Codec::Vp8, "1100", false),
            ("vp8 descriptor cut short", Codec::Vp8, "9080", false),
            ("vp8 nothing after the descriptor", Codec::Vp8, "10", false),
            ("vp9 keyframe, flexible", Codec::Vp9, "98812382498342", true),
            ("vp9 keyframe, not flexible", Codec::Vp9, "a8812300058249", true),
            ("vp9 upper spatial layer of a keyframe", Codec::Vp9, "a8812302058249", false),
            ("vp9 inter frame", Codec::Vp9, "d8812302860000", false),
            ("vp9 intra-only frame", Codec::Vp9, "98812386", false),
            ("vp9 continuation", Codec::Vp9, "90812382", false),
            ("vp9 descriptor cut short", Codec::Vp9, "a881", false),
            ("av1 new sequence", Codec::Av1, "180a0b", true),
            ("av1 sequence header without the N bit", Codec::Av1, "20030a01000132", true),
            ("av1 continuation of a fragment", Codec::Av1, "980a0b", false),
            ("av1 inter frame", Codec::Av1, "103000", false),
            ("av1 aggregation header alone", Codec::Av1, "18", false),
        ] {
            assert_eq!(starts_keyframe(codec, &from_hex(hex)), want, "{name}");
        }
    }

    #[test]
    fn frame_starts_are_found_where_the_payload_tells() {
        for (name, codec, hex, want) in [
            ("vp8 delta frame", Codec::Vp8, "90808123b1", Some(true)),
            ("vp8 continuation", Codec::Vp8, "8080812300", Some(false)),
            ("vp9 inter frame", Codec::Vp9, "d8812302860000", Some(true)),
            ("vp9 continuation", Codec::Vp9, "d0812302860000", Some(false)),
            ("h264", Codec::H264, "419a", None),
            ("opus", Codec::Opus, "fc", Some(true)),
        ] {
            assert_eq!(starts_frame(codec, &from_hex(hex)), want, "{name}");
        }
    }

    #[test]
    fn picture_sizes_are_read() {
        let stap = stap_a(&["0910", SPS_1080, PPS]);
        // Main profile, level 3.1.
        let h265 = "420101016000000300b0000003000003005da00280802d165ab930b4c0";
        for (name, codec, hex, want) in [
            ("vp8", Codec::Vp8, "10500800 9d012a 8002 6801", Some((640, 360))),
            ("vp8 with scaling hints", Codec::Vp8, "10500800 9d012a 8042 6881", Some((640, 360))),
            ("vp8 without the start code", Codec::Vp8, "10500800 9d012b 8002 6801", None),
            ("vp8 delta frame", Codec::Vp8, "10510800 9d012a 8002 6801", None),
            ("vp8 cut short", Codec::Vp8, "10500800 9d012a 8002 68", None),
            ("vp8 without width", Codec::Vp8, "10500800 9d012a 0000 6801", None),
            ("vp9 frame header, profile 0", Codec::Vp9, "98812382498342 00 4ff0 2cf0", Some((1280, 720))),
            ("vp9 scalability structure", Codec::Vp9, "8a8123 30 0140 00b4 0280 0168 82", Some((640, 360))),
            ("vp9 wrong sync code", Codec::Vp9, "98812382498343 00 4ff0 2cf0", None),
            ("h264 720p", Codec::H264, SPS_720, Some((1280, 720))),
            ("h264 1080p, cropped, in a stap-a", Codec::H264, &stap, Some((1920, 1080))),
            ("h264 without sps", Codec::H264, PPS, None),
            ("h265 720p", Codec::H265, h265, Some((1280, 720))),
            ("av1", Codec::Av1, "1a 0a 0b 00 00 00 24 c6 ab df 3e fe 24 04 04", Some((854, 480))),
            ("opus", Codec::Opus, "fc", None),
        ] {
            let size = frame_size(codec, &from_hex(hex)).map(|s| (s.width, s.height));
            assert_eq!(size, want, "{name}");
        }
    }

    #[test]
    fn places_among_temporal_and_spatial_layers_are_read() {
        let at = |spatial, temporal, climb, ends_frame| Some(Sublayer { spatial, temporal, climb, ends_frame });
        for (name, codec, hex, want) in [
            ("vp8 without temporal layers", Codec::Vp8, "90808123b1", None),
            ("vp8 lowest", Codec::Vp8, "90e08123 05 00 b1", at(0, 0, None, false)),
            ("vp8 second", Codec::Vp8, "90e08123 05 40 b1", at(0, 1, None, false)),
            ("vp8 second, needs the lowest alone", Codec::Vp8, "90e08123 05 60 b1", at(0, 1, Some((0, 1)), false)),
            ("vp8 third, the same", Codec::Vp8, "90e08123 05 a0 b1", at(0, 2, Some((1, 2)), false)),
            ("vp8 key index alone", Codec::Vp8, "90908123 05 b1", None),
            ("vp9 without layers", Codec::Vp9, "98812382498342", None),
            ("vp9 lowest, switching up point", Codec::Vp9, "b88123 10 82", at(0, 0, Some((0, 7)), false)),
            ("vp9 second temporal", Codec::Vp9, "b88123 30 82", at(0, 1, Some((0, 1)), false)),
            ("vp9 end of the second spatial", Codec::Vp9, "b48123 02 82", at(1, 0, None, true)),
            ("vp9 cut short", Codec::Vp9, "b88123", None),
            ("h264", Codec::H264, "419a", None),
        ] {
            assert_eq!(sublayer_of(codec, &from_hex(hex)), want, "{name}");
        }
        let structure = from_hex("8a8123 30 0140 00b4 0280 0168 82");
        assert_eq!(spatial_heights(Codec::Vp9, &structure, None), Some([180, 360, 0, 0]));
        assert_eq!(spatial_heights(Codec::Vp9, &from_hex("98812382498342"), None), None);
    }

    #[test]
    fn a_template_structure_marks_a_keyframe() {
        for (name, hex, want) in [
            ("structure", "80000180", true),
            ("none", "80000100", false),
            ("not the first packet of the frame", "00000180", false),
            ("mandatory fields only", "800001", false),
            ("empty", "", false),
        ] {
            assert_eq!(dependency_descriptor_starts_keyframe(&from_hex(hex)), want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(bytes in vec(any::<u8>(), 0..200), cut in 0usize..60) {
            let mut inputs = vec![bytes.clone()];
            // Real headers with nonsense behind them reach deeper than nonsense alone.
            for start in [SPS_720, SPS_1080, "4201010160", "98812382498342", "180a0b", "10500800", "8a812330", "78"] {
                let mut input = from_hex(start);
                input.truncate(cut.max(1));
                input.extend_from_slice(&bytes);
                inputs.push(input);
            }
            for input in inputs {
                for codec in Codec::ALL {
                    starts_keyframe(codec, &input);
                    starts_frame(codec, &input);
                    if let Some(size) = frame_size(codec, &input) {
                        prop_assert!(size.width <= FRAME_SIDE_MAX && size.height <= FRAME_SIDE_MAX);
                    }
                }
                dependency_descriptor_starts_keyframe(&input);
                let mut dependencies = dependency::DependencyReader::default();
                dependencies.read(&input);
                dependencies.read(&bytes);
                spatial_heights(Codec::Av1, &[], Some(&input));
                spatial_heights(Codec::Vp9, &input, None);
                sublayer_of(Codec::Vp8, &input);
                sublayer_of(Codec::Vp9, &input);
            }
        }
    }
}
