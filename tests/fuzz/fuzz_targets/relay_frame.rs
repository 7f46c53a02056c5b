//! Relay frames after the handshake: what is read can be written again and reads the same.
#![no_main]

use ams_relay::Frame;
use ams_relay::wire::{FRAME_LEN_MAX, Parsed};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Parsed::Frame { frame, used }) = Frame::parse(rest, FRAME_LEN_MAX) {
        let mut again = BytesMut::new();
        frame.encode_into(&mut again).expect("what was read can be written");
        match Frame::parse(&again, FRAME_LEN_MAX) {
            Ok(Parsed::Frame { frame: second, used }) => {
                assert_eq!(format!("{frame:?}"), format!("{second:?}"));
                assert_eq!(used, again.len());
            }
            other => panic!("{frame:?} reads as {other:?} once written"),
        }
        rest = &rest[used..];
    }
});
