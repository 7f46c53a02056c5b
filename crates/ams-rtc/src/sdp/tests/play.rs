//! Offers to viewers, and their answers.

use super::*;
use crate::dtls::DtlsRole;
use crate::ext::Ext;

fn tracks() -> Vec<PlayTrack> {
    vec![play_track(0, params(Codec::Opus, "minptime=10;useinbandfec=1")), play_track(1, params(Codec::H264, H264))]
}

fn offer() -> PlayOffer {
    offer_play(&local(), &tracks()).unwrap()
}

#[test]
fn the_offer_is_what_amss_clients_expect() {
    let offer = offer();
    check_own(&offer.sdp);
    assert_eq!(
        m_lines(&offer.sdp),
        [
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
        ]
    );
    assert!(has_line(&offer.sdp, "a=group:BUNDLE 0 1 2"));
    let mapping: Vec<(&str, &str)> = offer.id_mapping.iter().map(|(mid, id)| (&*mid.0, id.as_str())).collect();
    assert_eq!(mapping, [("0", "stream1"), ("1", "stream1")], "each audio and video mid maps to the stream");
    assert_eq!(values(&offer.sdp, 0, "msid"), ["stream1 ARDAMSastream1"]);
    assert_eq!(values(&offer.sdp, 1, "msid"), ["stream1 ARDAMSvstream1"], "one media stream for both");
    assert_eq!(values(&offer.sdp, 1, "ssrc-group"), ["FID 1010 1011"]);
    assert!(values(&offer.sdp, 1, "ssrc").contains(&"1010 cname:node"));
    assert_eq!(values(&offer.sdp, 1, "fmtp"), [format!("96 {H264}"), "97 apt=96".into()]);
    assert_eq!(values(&offer.sdp, 1, "setup"), ["actpass"]);
    assert_eq!(offer.sdp.matches("a=sendonly").count(), 2);
    assert_eq!(offer.sdp, self::offer().sdp, "two offers of one stream are alike");
}

#[test]
fn offers_fit_what_the_stream_has() {
    let quiet = LocalSdp { data_channel: false, ..local() };
    let video = || play_track(0, params(Codec::Av1, "profile=0"));
    let av1 = offer_play(&quiet, &[video()]).unwrap();
    check_own(&av1.sdp);
    assert_eq!(m_lines(&av1.sdp), ["m=video 9 UDP/TLS/RTP/SAVPF 96 97"]);
    assert!(av1.data.is_none() && av1.tracks[0].exts.id(Ext::DependencyDescriptor).is_some());
    assert!(offer().tracks[1].exts.id(Ext::DependencyDescriptor).is_none(), "only AV1 has one");

    let no_rtx = offer_play(&quiet, &[PlayTrack { rtx_ssrc: None, ..video() }]).unwrap();
    assert_eq!(m_lines(&no_rtx.sdp), ["m=video 9 UDP/TLS/RTP/SAVPF 96"]);
    assert!(!no_rtx.sdp.contains("rtx") && !no_rtx.sdp.contains("FID"));

    let silent = offer_play(&quiet, &[play_track(0, params(Codec::Opus, ""))]).unwrap();
    assert_eq!(values(&silent.sdp, 0, "fmtp"), ["111 minptime=10;useinbandfec=1"], "nothing said becomes the usual");

    let data_only = offer_play(&local(), &[]).unwrap();
    check_own(&data_only.sdp);
    assert_eq!(offer_play(&quiet, &[]).unwrap_err(), SdpError::NoMedia);
    let many: Vec<PlayTrack> = (0..16).map(|no| play_track(no, params(Codec::Opus, ""))).collect();
    assert!(matches!(offer_play(&local(), &many), Err(SdpError::TooManyMedia { .. })));
}

#[test]
fn chromiums_answer_edited_by_the_sdk_is_taken() {
    let answer = parse_play_answer(sample::chromium_play_answer, &offer()).unwrap();
    assert_eq!((answer.remote.role, answer.refused.len()), (DtlsRole::Server, 0));
    assert!(answer.data.is_some());
    let [audio, video] = &answer.tracks[..] else { panic!("{:?}", answer.tracks) };
    assert_eq!((audio.pt.0, audio.ssrc, audio.rtx_pt), (111, Ssrc(1000), None));
    assert_eq!((video.pt.0, video.rtx_pt.map(|pt| pt.0), video.rtx_ssrc), (96, Some(97), Some(Ssrc(1011))));
    assert!(video.feedback.transport_cc && video.feedback.nack && video.feedback.pli && !video.feedback.remb);
    assert_eq!((video.exts.id(Ext::TransportCc), video.exts.id(Ext::Mid)), (Some(3), Some(4)));
    assert_eq!(video.exts.id(Ext::AbsSendTime), None, "one bandwidth feedback is enough");
    assert_eq!(video.exts.id(Ext::AbsCaptureTime), None, "what the answer leaves out is not sent");
    assert_eq!(audio.exts.id(Ext::AudioLevel), Some(1));
}

#[test]
fn a_viewer_without_the_codec_refuses_that_track_only() {
    let answer = parse_play_answer(sample::firefox_refusing_answer, &offer()).unwrap();
    assert_eq!(answer.tracks.len(), 1);
    assert_eq!((answer.tracks[0].no, &answer.refused[..]), (TrackNo(0), &[TrackNo(1)][..]));
    assert!(answer.data.is_none());
    assert_eq!(answer.remote.role, DtlsRole::Client, "setup:passive makes us the DTLS client");
    assert_eq!(answer.tracks[0].exts.id(Ext::Mid), Some(4));
}

#[test]
fn answers_vary_and_are_understood() {
    let base = sample::chromium_play_answer;
    let change = |from: &str, to: &str| {
        assert!(base.contains(from), "{from}");
        parse_play_answer(&base.replace(from, to), &offer())
    };
    let video = |answer: Result<PlayAnswer, SdpError>| {
        let answer = answer.unwrap();
        answer.tracks.into_iter().find(|track| track.no == TrackNo(1))
    };
    let no_rtx = video(change("SAVPF 96 97", "SAVPF 96")).unwrap();
    assert_eq!((no_rtx.rtx_pt, no_rtx.rtx_ssrc), (None, None));
    let no_nack = video(change("a=rtcp-fb:96 nack\n", "")).unwrap();
    assert_eq!(no_nack.rtx_pt, None, "nothing asks for retransmissions");
    let no_cc = video(change("a=rtcp-fb:96 transport-cc\n", "")).unwrap();
    assert!(
        no_cc.feedback.remb && no_cc.exts.id(Ext::AbsSendTime).is_some() && no_cc.exts.id(Ext::TransportCc).is_none()
    );
    let own_numbers = base
        .replace("SAVPF 96 97", "SAVPF 102 103")
        .replace("rtpmap:96 ", "rtpmap:102 ")
        .replace("rtcp-fb:96 ", "rtcp-fb:102 ")
        .replace("fmtp:96 ", "fmtp:102 ")
        .replace("rtpmap:97 ", "rtpmap:103 ")
        .replace("fmtp:97 apt=96", "fmtp:103 apt=102");
    let renumbered = video(parse_play_answer(&own_numbers, &offer())).unwrap();
    assert_eq!((renumbered.pt.0, renumbered.rtx_pt.map(|pt| pt.0)), (102, Some(103)), "the answer's numbers are used");
    assert_eq!(video(change("m=video 9", "m=video 0")), None);
    let renamed = video(change("a=extmap:3 http", "a=extmap:9 http")).unwrap();
    assert_eq!(renamed.exts.id(Ext::TransportCc), None, "an answer may not renumber extensions");
    let other_level = video(change("42e01f", "42e034")).unwrap();
    assert_eq!(other_level.pt.0, 96, "a viewer states its own level");
    let unwanted = change("a=recvonly", "a=inactive").unwrap();
    assert!(unwanted.tracks.is_empty() && unwanted.data.is_some(), "it may want the data alone");
}

#[test]
fn answers_to_another_offer_are_refused() {
    let base = sample::chromium_play_answer;
    let without_data = base.split("m=application").next().unwrap();
    for (name, answer, want) in [
        ("an m-line short", without_data.into(), "another number of m-lines"),
        ("mids in another order", base.replace("a=mid:0", "a=mid:x"), "another order"),
        ("audio and video changed", base.replace("m=audio", "m=video"), "another kind"),
        ("nothing taken", base.replace(" 9 UDP", " 0 UDP"), "no m-line"),
        ("no fingerprint", base.replace("a=fingerprint", "a=x"), "no a=fingerprint"),
        ("no ICE", base.replace("a=ice-pwd", "a=x"), "no a=ice-ufrag"),
        ("ICE-lite as we are", base.replace("t=0 0", "t=0 0\na=ice-lite"), "both ends are ICE-lite"),
        ("our own offer, sent back", offer().sdp, "both ends are ICE-lite"),
        ("empty", String::new(), "no m-line"),
    ] {
        let error = parse_play_answer(&answer, &offer()).unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
}
