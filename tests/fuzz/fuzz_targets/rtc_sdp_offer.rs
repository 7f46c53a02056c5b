//! Offers: a publisher's with both policies, a WHEP viewer's, and single candidates.
#![no_main]

use ams_rtc::sdp::{PublishPolicy, RemoteSdp, answer_play, answer_publish, parse_candidate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse_candidate(text);
    let Ok(offer) = RemoteSdp::parse(text) else { return };
    let local = ams_fuzz::sdp::local();
    let publish = [PublishPolicy::WEBSOCKET, PublishPolicy::WHIP].map(|policy| answer_publish(&offer, &local, policy));
    let answers = publish.into_iter().flatten().map(|answer| answer.sdp);
    let play = answer_play(&offer, &ams_fuzz::sdp::tracks(), &local).map(|answer| answer.sdp);
    for answer in answers.chain(play) {
        let again = RemoteSdp::parse(&answer).expect("this node reads its own answer");
        assert_eq!(again.media.len(), offer.media.len(), "an answer has the offer's m-lines");
    }
});
