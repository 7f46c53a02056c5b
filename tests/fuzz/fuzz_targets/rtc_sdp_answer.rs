//! A viewer's answer to this node's offer.
#![no_main]

use ams_rtc::sdp::{offer_play, parse_play_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let tracks = ams_fuzz::sdp::tracks();
    let offer = offer_play(&ams_fuzz::sdp::local(), &tracks).expect("an offer");
    let Ok(answer) = parse_play_answer(text, &offer) else { return };
    assert_eq!(answer.tracks.len() + answer.refused.len(), tracks.len(), "each track is taken or refused");
    for track in &answer.tracks {
        assert_eq!(track.rtx_pt.is_some(), track.rtx_ssrc.is_some());
    }
});
