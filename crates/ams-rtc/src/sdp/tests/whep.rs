//! Viewers' offers as clients write them, and what is answered.

use super::*;
use crate::ext::Ext;

fn answer(offer: &str, tracks: &[PlayTrack]) -> Result<WhepAnswer, SdpError> {
    let answer = answer_play(&RemoteSdp::parse(offer)?, tracks, &local())?;
    check_own(&answer.sdp);
    Ok(answer)
}

fn opus() -> PlayTrack {
    play_track(0, params(Codec::Opus, ""))
}

fn video(codec: Codec, fmtp: &str) -> PlayTrack {
    play_track(1, params(codec, fmtp))
}

#[test]
fn streams_are_answered_with_the_viewers_numbers() {
    let rows = [
        ("Chromium, VP8", sample::chromium_view, video(Codec::Vp8, ""), "96 97"),
        (
            "Chromium, H.264 exact",
            sample::chromium_view,
            video(Codec::H264, &H264.replace("42e01f", "4d001f")),
            "117 118",
        ),
        (
            "Chromium, FFmpeg's H.264",
            sample::chromium_view,
            video(Codec::H264, &H264.replace("42e01f", "42c01f")),
            "103 104",
        ),
        ("Chromium, VP9 profile 2", sample::chromium_view, video(Codec::Vp9, "profile-id=2"), "100 101"),
        ("Chromium, AV1", sample::chromium_view, video(Codec::Av1, "profile=0"), "45 46"),
        ("aiortc, VP8", sample::aiortc_view, video(Codec::Vp8, ""), "97 98"),
        ("aiortc, H.264", sample::aiortc_view, video(Codec::H264, H264), "99 100"),
    ];
    for (name, offer, video, pts) in rows {
        let answer = answer(offer, &[opus(), video]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(m_lines(&answer.sdp)[1], format!("m=video 9 UDP/TLS/RTP/SAVPF {pts}"), "{name}");
        assert_eq!((answer.agreed.tracks.len(), answer.agreed.refused.len()), (2, 0), "{name}");
        assert_eq!(values(&answer.sdp, 1, "setup"), ["passive"], "{name}");
        assert_eq!(answer.sdp.matches("a=sendonly").count(), 2, "{name}");
        assert_eq!(values(&answer.sdp, 1, "ssrc-group"), ["FID 1010 1011"], "{name}");
        assert_eq!(answer.agreed.tracks[1].exts.id(Ext::Rid), None, "{name}: viewers get one layer");
    }
}

#[test]
fn extension_ids_are_the_viewers() {
    let answer = answer(sample::chromium_view, &[opus(), video(Codec::Vp8, "")]).unwrap();
    let exts = answer.agreed.tracks[1].exts;
    assert_eq!((exts.id(Ext::VideoOrientation), exts.id(Ext::TransportCc)), (Some(13), Some(3)));
    assert!(exts.allow_mixed);
}

#[test]
fn m_lines_no_track_is_for_stay_inactive() {
    let silent = answer(sample::chromium_view, &[video(Codec::Vp8, "")]).unwrap();
    assert_eq!(m_lines(&silent.sdp)[0], "m=audio 9 UDP/TLS/RTP/SAVPF 111");
    assert_eq!((silent.sdp.matches("a=inactive").count(), silent.agreed.tracks.len()), (1, 1));
    assert!(has_line(&silent.sdp, "a=group:BUNDLE 0 1"));
    let blind = answer(sample::chromium_view, &[opus()]).unwrap();
    assert_eq!(m_lines(&blind.sdp)[1], "m=video 9 UDP/TLS/RTP/SAVPF 96");
    let audio_only = sample::chromium_view.split("m=video").next().unwrap();
    let listened = answer(audio_only, &[opus(), video(Codec::Vp8, "")]).unwrap();
    assert_eq!(listened.agreed.refused, [TrackNo(1)], "a viewer may want the sound alone");
}

#[test]
fn what_cannot_be_played_says_why() {
    let both = || vec![opus(), video(Codec::H265, "profile-id=1")];
    let h264 = |id: &str| vec![video(Codec::H264, &H264.replace("42e01f", id))];
    let base = sample::chromium_view;
    let rows = [
        ("no such codec", base.into(), both(), "offered VP8, H264, AV1, VP9, red, ulpfec; needed H265 (profile 1)"),
        ("no such profile", base.into(), h264("64001f"), "needed H264 (profile 64001f)"),
        ("no audio codec, audio stream", base.replace("opus", "speex"), vec![opus()], "no common audio codec"),
        ("it only sends", base.replace("recvonly", "sendonly"), both(), "must be recvonly or sendrecv"),
        ("it wants nothing", base.replace("recvonly", "inactive"), both(), "no m-line of the SDP can be used"),
        ("not bundled", base.replace("BUNDLE 0 1", "BUNDLE 0"), vec![video(Codec::Vp8, "")], "not in the BUNDLE group"),
        ("no rtcp-mux", base.replace("a=rtcp-mux\n", ""), vec![opus()], "lacks a=rtcp-mux"),
        ("no fingerprint", base.replace("a=fingerprint", "a=x"), vec![opus()], "no a=fingerprint"),
    ];
    for (name, offer, tracks, want) in rows {
        let error = answer(&offer, &tracks).unwrap_err();
        assert!(error.to_string().contains(want), "{name}: {error}");
    }
    assert_eq!(answer(base, &both()).unwrap_err().fault(), Fault::Codec);
    let deaf = answer(&base.replace("opus", "speex"), &[opus(), video(Codec::Vp8, "")]).unwrap();
    assert_eq!(deaf.agreed.refused, [TrackNo(0)], "a picture without sound is better than nothing");
}

#[test]
fn data_channels_are_answered_too() {
    let data = sample::chromium_publish.split("m=application").nth(1).unwrap();
    let offer = format!("{}m=application{data}", sample::chromium_view.replace("BUNDLE 0 1", "BUNDLE 0 1 2"));
    let answer = answer(&offer, &[opus(), video(Codec::Vp8, "")]).unwrap();
    assert!(answer.agreed.data.is_some());
    assert!(has_line(&answer.sdp, "a=group:BUNDLE 0 1 2") && has_line(&answer.sdp, "a=sctp-port:5000"));
}
