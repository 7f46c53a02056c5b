//! Publishers' offers as clients write them, and what is answered.

use ams_types::Rid;

use super::*;
use crate::dtls::DtlsRole;
use crate::ext::Ext;

fn answer(offer: &str, policy: PublishPolicy) -> Result<PublishAnswer, SdpError> {
    let answer = answer_publish(&RemoteSdp::parse(offer)?, &local(), policy)?;
    check_own(&answer.sdp);
    Ok(answer)
}

#[test]
fn every_client_gets_the_tracks_it_offers() {
    // Name, offer, policy, the answer's m-lines, DTLS role.
    let rows = [
        (
            "Chromium by AMS's SDK",
            sample::chromium_publish,
            PublishPolicy::WEBSOCKET,
            vec![
                "m=audio 9 UDP/TLS/RTP/SAVPF 111",
                "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
                "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            ],
            DtlsRole::Server,
        ),
        (
            "Chromium, simulcast",
            sample::chromium_simulcast,
            PublishPolicy::WHIP,
            vec!["m=video 9 UDP/TLS/RTP/SAVPF 96 97"],
            DtlsRole::Server,
        ),
        (
            "Firefox",
            sample::firefox_publish,
            PublishPolicy::WHIP,
            vec!["m=audio 9 UDP/TLS/RTP/SAVPF 109", "m=video 9 UDP/TLS/RTP/SAVPF 120 124"],
            DtlsRole::Server,
        ),
        (
            "aiortc",
            sample::aiortc_publish,
            PublishPolicy::WHIP,
            vec!["m=audio 9 UDP/TLS/RTP/SAVPF 96", "m=video 9 UDP/TLS/RTP/SAVPF 97 98"],
            DtlsRole::Server,
        ),
        (
            "FFmpeg as DTLS server",
            sample::ffmpeg_whip,
            PublishPolicy::WHIP,
            vec!["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 106"],
            DtlsRole::Client,
        ),
        (
            "FFmpeg without audio, its group naming an m-line that is not there",
            sample::ffmpeg_whip_video_only,
            PublishPolicy::WHIP,
            vec!["m=video 9 UDP/TLS/RTP/SAVPF 106"],
            DtlsRole::Server,
        ),
        (
            "GStreamer, video first, audio bundle-only",
            sample::gstreamer_publish,
            PublishPolicy::WHIP,
            vec!["m=video 9 UDP/TLS/RTP/SAVPF 96", "m=audio 9 UDP/TLS/RTP/SAVPF 97"],
            DtlsRole::Server,
        ),
        (
            "OBS, transport in the session part",
            sample::obs_whip,
            PublishPolicy::WHIP,
            vec!["m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96"],
            DtlsRole::Server,
        ),
    ];
    for (name, offer, policy, lines, role) in rows {
        let answer = answer(offer, policy).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(m_lines(&answer.sdp), lines, "{name}");
        assert_eq!(answer.remote.role, role, "{name}");
        let setup = if role == DtlsRole::Server { "passive" } else { "active" };
        assert_eq!(values(&answer.sdp, 0, "setup"), [setup], "{name}");
        let tracks = lines.iter().filter(|line| !line.contains("SCTP")).count();
        assert_eq!(answer.tracks.len(), tracks, "{name}");
        for (no, track) in answer.tracks.iter().enumerate() {
            assert_eq!(usize::from(track.no.0), no, "{name}");
            assert_eq!(track.info().layers.len(), track.layers.len(), "{name}");
        }
        assert!(!answer.sdp.contains("sendrecv") && answer.sdp.contains("a=recvonly"), "{name}");
    }
}

#[test]
fn chromium_is_answered_with_one_codec_and_known_extensions_only() {
    let answer = answer(sample::chromium_publish, PublishPolicy::WEBSOCKET).unwrap();
    assert!(has_line(&answer.sdp, "a=group:BUNDLE 0 1 2") && has_line(&answer.sdp, "a=extmap-allow-mixed"));
    assert_eq!(values(&answer.sdp, 1, "rtpmap"), ["96 VP8/90000", "97 rtx/90000"]);
    assert_eq!(values(&answer.sdp, 1, "rtcp-fb"), ["96 nack", "96 nack pli", "96 ccm fir", "96 transport-cc"]);
    let mut exts = values(&answer.sdp, 1, "extmap");
    exts.sort_unstable();
    let uris = [
        (10, Ext::Rid),
        (11, Ext::RepairedRid),
        (13, Ext::VideoOrientation),
        (3, Ext::TransportCc),
        (4, Ext::Mid),
        (5, Ext::PlayoutDelay),
    ];
    assert_eq!(exts, uris.map(|(id, ext)| format!("{id} {}", ext.uri())), "neither unknown ones nor the send time");

    let [audio, video] = &answer.tracks[..] else { panic!("{:?}", answer.tracks) };
    assert_eq!((audio.codec.codec, audio.pt.0, audio.rtx_pt), (Codec::Opus, 111, None));
    assert_eq!(&*audio.codec.fmtp, "minptime=10;useinbandfec=1");
    assert_eq!(audio.layers, [PublishedLayer { ssrc: Some(Ssrc(3_735_928_559)), ..Default::default() }]);
    assert_eq!(
        video.layers,
        [PublishedLayer { rid: None, ssrc: Some(Ssrc(1_111_222_233)), rtx_ssrc: Some(Ssrc(1_444_555_666)) }]
    );
    assert_eq!((video.rtx_pt.map(|pt| pt.0), video.exts.id(Ext::TransportCc)), (Some(97), Some(3)));
    assert!(video.feedback.transport_cc && !video.feedback.remb && video.exts.allow_mixed);
    assert_eq!(video.msid.as_ref().unwrap().track, "77aa-video");
    assert_eq!(answer.exts.ext(4), Some(Ext::Mid), "the MID is found whatever the track");
    let data = answer.data.unwrap();
    assert_eq!((&*data.mid.0, data.remote_port, data.remote_max_message_size), ("2", 5000, 262_144));
    assert_eq!(answer.remote.message_len_max, Some(262_144));
    assert_eq!(values(&answer.sdp, 2, "sctp-port"), ["5000"]);
}

#[test]
fn simulcast_layers_are_accepted_by_rid() {
    let with_rids = answer(sample::chromium_simulcast, PublishPolicy::WHIP).unwrap();
    let rids: Vec<Option<Rid>> = with_rids.tracks[0].layers.iter().map(|layer| layer.rid.clone()).collect();
    assert_eq!(rids, ["h", "m", "l"].map(|rid| Some(Rid(rid.into()))));
    assert_eq!(values(&with_rids.sdp, 0, "simulcast"), ["recv h;m;l"]);
    assert_eq!(values(&with_rids.sdp, 0, "rid"), ["h recv", "m recv", "l recv"]);

    let change = |from: &str, to: &str| {
        assert!(sample::chromium_simulcast.contains(from), "{from}");
        answer(&sample::chromium_simulcast.replace(from, to), PublishPolicy::WHIP).unwrap()
    };
    for (name, changed, want) in [
        ("alternatives and pauses", change("send h;m;l", "send h,x;~m;l"), "recv h;m;l"),
        ("a layer bound to another codec", change("a=rid:m send", "a=rid:m send pt=98"), "recv h;l"),
        (
            "more layers than are taken",
            change("a=rid:h send", "a=rid:a send\na=rid:b send\na=rid:h send"),
            "recv h;m;l",
        ),
        ("a layer without its a=rid", change("a=rid:l send\n", ""), "recv h;m"),
        ("both directions", change("send h;m;l", "recv x send h;m;l"), "recv h;m;l"),
    ] {
        assert_eq!(values(&changed.sdp, 0, "simulcast"), [want], "{name}");
    }
    let mute = change("a=extmap:10 ", "a=extmap:10/inactive ");
    assert_eq!(
        mute.tracks[0].layers,
        [PublishedLayer::default()],
        "layers that cannot be told apart are not asked for"
    );
    assert!(values(&mute.sdp, 0, "simulcast").is_empty());

    let six = "a=rid:a send\na=rid:b send\na=rid:c send\na=rid:h send";
    let six = sample::chromium_simulcast.replace("a=rid:h send", six).replace("send h;m;l", "send a;b;c;h;m;l");
    let six = answer(&six, PublishPolicy::WHIP).unwrap();
    assert_eq!(values(&six.sdp, 0, "simulcast"), ["recv a;b;c;h"]);
}

#[test]
fn layers_by_ssrc_alone_are_found() {
    let sim = sample::chromium_publish.replace(
        "a=ssrc-group:FID 1111222233 1444555666",
        "a=ssrc-group:SIM 1 2 3\na=ssrc-group:FID 1 11\na=ssrc-group:FID 2 12\na=ssrc-group:FID 3 13",
    );
    let layers: Vec<_> = answer(&sim, PublishPolicy::WEBSOCKET).unwrap().tracks[1]
        .layers
        .iter()
        .map(|layer| (layer.ssrc.unwrap().0, layer.rtx_ssrc.unwrap().0))
        .collect();
    assert_eq!(layers, [(1, 11), (2, 12), (3, 13)]);

    let rtx_first = sample::firefox_publish.replace("a=ssrc:2002003002 ", "a=ssrc:2002003003 ");
    let layer = answer(&rtx_first, PublishPolicy::WHIP).unwrap().tracks[1].layers[0].clone();
    assert_eq!((layer.ssrc, layer.rtx_ssrc), (Some(Ssrc(2_002_003_002)), Some(Ssrc(2_002_003_003))), "not its RTX");
}

#[test]
fn the_offers_order_decides_among_allowed_codecs() {
    let choose = |allowed: &[Codec], offer: &str| {
        let local = LocalSdp { codecs: allowed.to_vec(), ..local() };
        let answer = answer_publish(&RemoteSdp::parse(offer).unwrap(), &local, PublishPolicy::WHIP)?;
        let video = &answer.tracks[0];
        Ok::<_, SdpError>((video.codec.codec, video.pt.0, video.rtx_pt.map(|pt| pt.0)))
    };
    let offer = sample::chromium_simulcast;
    let mode_0_first = offer.replace("96 97 103 104 107 108", "107 108 103 104 96 97");
    for (name, allowed, offer, want) in [
        ("all", &Codec::ALL[..], offer, (Codec::Vp8, 96, Some(97))),
        ("ours in another order", &[Codec::H264, Codec::Vp8], offer, (Codec::Vp8, 96, Some(97))),
        ("H.264 only", &[Codec::H264], offer, (Codec::H264, 103, Some(104))),
        ("H.264, mode 0 first", &[Codec::H264], &mode_0_first, (Codec::H264, 103, Some(104))),
        ("AV1", &[Codec::Av1], offer, (Codec::Av1, 45, Some(46))),
        ("VP9, first profile", &[Codec::Vp9], offer, (Codec::Vp9, 98, Some(99))),
    ] {
        assert_eq!(choose(allowed, offer), Ok(want), "{name}");
    }
    let error = choose(&[Codec::H265], offer).unwrap_err();
    assert_eq!(error.to_string(), "no common video codec: offered VP8, H264, AV1, VP9, red, ulpfec; needed H265");
}

#[test]
fn rsa_and_many_fingerprints_are_taken_by_the_strongest() {
    let answer = answer(sample::aiortc_publish, PublishPolicy::WHIP).unwrap();
    assert_eq!(answer.remote.fingerprint.hash(), FingerprintHash::Sha512);
    assert_eq!(answer.remote.credentials.ufrag(), "uXq7");
    let video = &answer.tracks[1];
    assert!(video.feedback.remb && !video.feedback.transport_cc, "without transport-cc the estimate is taken");
    assert_eq!(video.exts.id(Ext::AbsSendTime), Some(3), "and the send time with it");
}

#[test]
fn firefox_extensions_it_only_receives_are_left_out() {
    let answer = answer(sample::firefox_publish, PublishPolicy::WHIP).unwrap();
    assert_eq!(answer.tracks[1].exts.id(Ext::PlayoutDelay), None);
    assert_eq!(answer.tracks[1].exts.id(Ext::TransportCc), Some(7));
    assert!(answer.tracks[0].exts.id(Ext::AudioLevel).is_some());
    assert!(!has_line(&answer.sdp, "a=extmap-allow-mixed"), "what was not offered is not answered");
}

#[test]
fn whip_refuses_whole_offers_and_the_websocket_single_m_lines() {
    let base = sample::chromium_publish;
    let no_mux = base.replacen("a=rtcp-mux\n", "", 1);
    let unbundled = base.replace("BUNDLE 0 1 2", "BUNDLE 0 2");
    let recvonly = base.replacen("a=sendrecv", "a=recvonly", 1);
    let inactive = base.replacen("a=sendrecv", "a=inactive", 1);
    let text = format!("{base}m=text 9 RTP/AVP 98\nc=IN IP4 0.0.0.0\na=mid:9\n");
    let no_opus = base.replace("opus/48000/2", "opus/44100/2");
    let second = base.split("m=video").nth(1).unwrap().split("m=application").next().unwrap();
    let two_videos =
        format!("{}m=video{}", base.replace("BUNDLE 0 1 2", "BUNDLE 0 1 2 3"), second.replace("a=mid:1", "a=mid:3"));
    for (name, offer, refused, whip_says) in [
        ("not bundled", &unbundled, 1, "not in the BUNDLE group"),
        ("no rtcp-mux", &no_mux, 0, "lacks a=rtcp-mux"),
        ("receives only", &recvonly, 0, "is recvonly; it must be sendonly or sendrecv"),
        ("inactive", &inactive, 0, "is inactive"),
        ("an m-line of text", &text, 3, "\"text RTP/AVP\""),
        ("no codec in common", &no_opus, 0, "no common audio codec"),
        ("a second video", &two_videos, 3, "at most 1 video track"),
    ] {
        let error = answer(offer, PublishPolicy::WHIP).unwrap_err();
        assert!(error.to_string().contains(whip_says), "{name}: {error}");
        let answer = answer(offer, PublishPolicy::WEBSOCKET).unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = m_lines(&answer.sdp);
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(line.split(' ').nth(1) == Some("0"), n == refused, "{name}: {lines:?}");
        }
        assert_eq!(lines.len(), offer.matches("\nm=").count(), "{name}");
    }
}

#[test]
fn old_and_odd_spellings_are_taken() {
    let base = sample::chromium_publish;
    for (name, offer) in [
        ("RTP/SAVPF", base.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF")),
        ("CRLF", base.replace('\n', "\r\n")),
        ("blank lines", base.replace("a=mid:1\n", "a=mid:1\n\n")),
        ("no setup at all means active", base.replace("a=setup:actpass\n", "")),
        ("feedback for every payload type", base.replace("a=rtcp-fb:96 ", "a=rtcp-fb:* ")),
        ("port with a count", base.replace("m=audio 9 ", "m=audio 9/2 ")),
    ] {
        let answer = answer(&offer, PublishPolicy::WHIP).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((answer.tracks.len(), answer.remote.role), (2, DtlsRole::Server), "{name}");
    }
    let sctpmap = base
        .replace("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5001")
        .replace("a=sctp-port:5000", "a=sctpmap:5001 webrtc-datachannel 1024");
    let answer = answer(&sctpmap, PublishPolicy::WHIP).unwrap();
    assert_eq!(m_lines(&answer.sdp)[2], "m=application 9 DTLS/SCTP 5000");
    assert_eq!(answer.data.unwrap().remote_port, 5001);
}

#[test]
fn one_m_line_needs_neither_group_nor_mid() {
    let plain = sample::chromium_simulcast.replace("a=group:BUNDLE 0\n", "").replace("a=mid:0\n", "");
    let answer = answer(&plain, PublishPolicy::WHIP).unwrap();
    assert!(!answer.sdp.contains("a=mid") && !answer.sdp.contains("BUNDLE"), "an answer names only what the offer did");
    assert_eq!(&*answer.tracks[0].mid.0, "0");
    let two = sample::ffmpeg_whip.replace("a=group:BUNDLE 0 1\n", "");
    assert!(matches!(super::publish::answer(&two, PublishPolicy::WHIP), Err(SdpError::NotBundled { .. })));
    assert_eq!(super::publish::answer(&two, PublishPolicy::WEBSOCKET).unwrap().tracks.len(), 1);
}

#[test]
fn data_alone_can_be_published_and_is_refused_where_it_is_off() {
    let data_only = {
        let (head, rest) = sample::chromium_publish.split_once("m=audio").unwrap();
        format!("{head}m=application{}", rest.split_once("m=application").unwrap().1)
    };
    let answer = answer(&data_only, PublishPolicy::WEBSOCKET).unwrap();
    assert!(answer.tracks.is_empty() && answer.data.is_some());
    let off = LocalSdp { data_channel: false, ..local() };
    let offer = RemoteSdp::parse(&data_only).unwrap();
    assert_eq!(answer_publish(&offer, &off, PublishPolicy::WEBSOCKET).unwrap_err(), SdpError::NothingAccepted);
    let offer = RemoteSdp::parse(sample::chromium_publish).unwrap();
    let answer = answer_publish(&offer, &off, PublishPolicy::WHIP).unwrap();
    assert_eq!(m_lines(&answer.sdp)[2], "m=application 0 UDP/DTLS/SCTP webrtc-datachannel");
    assert!(has_line(&answer.sdp, "a=group:BUNDLE 0 1"));
}

#[test]
fn one_extension_id_means_one_thing_on_a_transport() {
    let clash = sample::chromium_publish.replace("a=extmap:13 urn:3gpp", "a=extmap:1 urn:3gpp");
    let answer = answer(&clash, PublishPolicy::WEBSOCKET).unwrap();
    assert_eq!(answer.exts.ext(1), Some(Ext::AudioLevel));
    assert_eq!(answer.tracks[1].exts.id(Ext::VideoOrientation), None);
}
