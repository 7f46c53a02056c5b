//! Payloads of every codec: keyframe and frame starts, picture sizes, temporal and spatial layers.
#![no_main]

use ams_fuzz::Input;
use ams_media::payload::{FRAME_SIDE_MAX, dependency_descriptor_starts_keyframe};
use ams_media::{
    KeyframeDetector, Sublayer, SublayerReader, frame_size, spatial_heights, starts_frame, starts_keyframe,
};
use ams_types::Codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let codec = Codec::ALL[usize::from(input.u8()) % Codec::ALL.len()];
    let mut detector = KeyframeDetector::new(codec);
    let mut sublayers = SublayerReader::new(codec);
    while !input.is_empty() {
        let timestamp = u32::from(input.u8());
        let payload = input.part();
        let is_start = starts_keyframe(codec, payload);
        assert!(!is_start || starts_frame(codec, payload) != Some(false), "a keyframe starts inside a frame");
        if detector.on_packet(timestamp, payload, None) {
            assert!(is_start, "the detector found what is not there");
        }
        if let Some(size) = frame_size(codec, payload) {
            assert!((1..=FRAME_SIDE_MAX).contains(&size.width) && (1..=FRAME_SIDE_MAX).contains(&size.height));
        }
        dependency_descriptor_starts_keyframe(payload);
        // The same bytes as payload and as descriptor: each reads its own.
        for descriptor in [None, Some(payload)] {
            if let Some(sublayer) = sublayers.on_packet(payload, descriptor) {
                assert_eq!(Sublayer::from_bits(sublayer.to_bits()), sublayer);
            }
            spatial_heights(codec, payload, descriptor);
        }
    }
});
