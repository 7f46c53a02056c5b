//! SDP fragments: trickled candidates and ICE restarts over HTTP.
#![no_main]

use ams_rtc::sdp::{parse_sdpfrag, write_sdpfrag};
use ams_types::Mid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(fragment) = parse_sdpfrag(text) else { return };
    let local = ams_fuzz::sdp::local();
    let mid = fragment.mid.unwrap_or_else(|| Mid("0".into()));
    let written = write_sdpfrag(&mid, &local.ice, &local.candidates);
    let again = parse_sdpfrag(&written).expect("this node reads its own fragment");
    assert_eq!(again.mid, Some(mid));
});
