//! SDPs as strangers write them. Each is refused with a sentence or negotiated within the limits; none panics.

use proptest::prelude::*;

use super::*;
use crate::sdp::remote::{CANDIDATES_MAX, RIDS_MAX, SSRCS_MAX};

fn first_refusal(sdp: &str) -> SdpError {
    let parsed = match RemoteSdp::parse(sdp) {
        Ok(parsed) => parsed,
        Err(error) => return error,
    };
    answer_publish(&parsed, &local(), PublishPolicy::WHIP).map(|answer| answer.sdp).unwrap_err()
}

#[test]
fn strangers_sdps_are_refused_with_a_reason() {
    let base = sample::chromium_publish;
    let media = |n: usize| format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:{n}\na=rtpmap:111 opus/48000/2\n");
    let hundred: String = (0..100).map(media).collect();
    let malformed = |line| SdpError::Malformed { line, reason: "" };
    let line_of = |text: &str| base.lines().position(|line| line == text).unwrap() + 1;
    let change = |from: &str, to: &str| {
        assert!(base.contains(from), "{from}");
        base.replacen(from, to, 1)
    };
    let rows: Vec<(&str, String, SdpError)> = vec![
        ("empty", String::new(), SdpError::NoMedia),
        ("blank lines", "\r\n\r\n".into(), SdpError::NoMedia),
        ("no media", base.split("m=audio").next().unwrap().into(), SdpError::NoMedia),
        ("100 m-lines", format!("v=0\n{hundred}"), SdpError::TooManyMedia { max: MEDIA_MAX }),
        ("JSON", "{\"sdp\":\"v=0\"}".into(), malformed(1)),
        ("garbage", "\u{fffd}\u{1}garbage".into(), malformed(1)),
        ("HTML", "<html>".into(), malformed(1)),
        ("another version", base.replacen("v=0", "v=1", 1), malformed(1)),
        ("NUL", change("a=mid:0", "a=mid:0\0"), malformed(line_of("a=mid:0"))),
        ("lone CR", change("a=mid:0", "a=mid:0\ra=x"), malformed(line_of("a=mid:0"))),
        ("no type letter", change("a=mid:0", "=mid:0"), malformed(line_of("a=mid:0"))),
        ("long type", change("a=mid:0", "aa=mid:0"), malformed(line_of("a=mid:0"))),
        ("huge line", change("a=mid:0", &format!("a={}", "x".repeat(LINE_LEN_MAX))), malformed(line_of("a=mid:0"))),
        ("huge text", "v=0\n".repeat(SDP_LEN_MAX), SdpError::TooLong { len: SDP_LEN_MAX * 4, max: SDP_LEN_MAX }),
        ("many lines", "v=0\n".repeat(LINES_MAX + 4), SdpError::TooLong { len: LINES_MAX + 5, max: LINES_MAX }),
        ("same mids", change("a=mid:1", "a=mid:0"), SdpError::DuplicateMid { mid: ams_types::Mid("0".into()) }),
        ("mid with blanks", change("a=mid:0", "a=mid:a b"), malformed(line_of("a=mid:0"))),
        ("long mid", change("a=mid:0", &format!("a=mid:{}", "m".repeat(33))), malformed(line_of("a=mid:0"))),
        (
            "payload type 128",
            change("SAVPF 111", "SAVPF 128"),
            malformed(line_of("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126")),
        ),
        (
            "payload type twice",
            change("SAVPF 111 63", "SAVPF 111 111"),
            malformed(line_of("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126")),
        ),
        (
            "payload type of letters",
            change("rtpmap:111", "rtpmap:abc"),
            malformed(line_of("a=rtpmap:111 opus/48000/2")),
        ),
        (
            "no formats",
            change("SAVPF 111 63 9 0 8 13 110 126", "SAVPF"),
            malformed(line_of("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126")),
        ),
        (
            "port too large",
            change("m=audio 9", "m=audio 65536"),
            malformed(line_of("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126")),
        ),
        (
            "SSRC too large",
            change("a=ssrc:3735928559", "a=ssrc:4294967296"),
            malformed(line_of("a=ssrc:3735928559 cname:Zk3VbN0qXy1r")),
        ),
        (
            "extension id 0",
            change("a=extmap:1 ", "a=extmap:0 "),
            malformed(line_of("a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level")),
        ),
        ("setup of nobody", change("a=setup:actpass", "a=setup:holdconn"), malformed(line_of("a=setup:actpass"))),
        (
            "fingerprint of odd length",
            change("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 AB:"),
            malformed(line_of("a=setup:actpass") - 1),
        ),
        (
            "short ICE password",
            change("a=ice-pwd:vT0Lq9xN4wZr8yBcE1dFgHjK", "a=ice-pwd:x"),
            malformed(line_of("a=ice-pwd:vT0Lq9xN4wZr8yBcE1dFgHjK")),
        ),
        (
            "huge format parameters",
            change("minptime=10", &"x".repeat(3000)),
            malformed(line_of("a=fmtp:111 minptime=10;useinbandfec=1")),
        ),
        ("no fingerprints", base.replace("a=fingerprint", "a=x"), SdpError::NoFingerprint),
        ("only weak fingerprints", base.replace("a=fingerprint:sha-256", "a=fingerprint:md5"), SdpError::NoFingerprint),
        ("no ICE", base.replace("a=ice-ufrag", "a=x"), SdpError::NoIceCredentials),
        ("ICE-lite", change("t=0 0", "t=0 0\na=ice-lite"), SdpError::IceLitePeer),
        (
            "mixed directions",
            change("a=sendrecv", "a=recvonly"),
            SdpError::Direction {
                mid: ams_types::Mid("0".into()),
                offered: Direction::RecvOnly,
                wanted: "sendonly or sendrecv",
            },
        ),
    ];
    for (name, sdp, want) in rows {
        let got = first_refusal(&sdp);
        match (&got, &want) {
            // The sentence is for people; where the fault is, is for tests.
            (SdpError::Malformed { line, reason }, SdpError::Malformed { line: want, .. }) => {
                assert_eq!(line, want, "{name}: {reason}");
            }
            _ => assert_eq!(got, want, "{name}"),
        }
        assert!(!got.to_string().is_empty() && got.to_string().len() < 300, "{name}: {got}");
        let _ = got.fault();
    }
}

#[test]
fn what_is_kept_of_an_sdp_is_bounded() {
    let flood: String = (0..600)
        .map(|n| {
            format!(
                "a=ssrc:{n} cname:x\na=ssrc-group:FID {n} {}\na=rid:r{n} send\na=candidate:{n} 1 udp 1 10.0.0.1 {n} typ host\n",
                n + 1000
            )
        })
        .collect();
    let layers = (0..600).map(|n| format!("r{n}")).collect::<Vec<_>>().join(";");
    let text =
        sample::chromium_simulcast.replace("a=simulcast:send h;m;l", &format!("{flood}a=simulcast:send {layers}"));
    let sdp = RemoteSdp::parse(&text).unwrap();
    let media = &sdp.media[0];
    assert_eq!((media.ssrcs.len(), media.fid.len()), (SSRCS_MAX, SSRCS_MAX));
    assert_eq!((media.candidates.len(), media.rids.len(), media.simulcast.len()), (CANDIDATES_MAX, RIDS_MAX, RIDS_MAX));
    let answer = answer_publish(&sdp, &local(), PublishPolicy::WHIP).unwrap();
    assert!(answer.tracks[0].layers.len() <= ams_media::track::LAYERS_MAX);
    assert!(answer.sdp.len() < 4000, "an answer does not grow with the offer");
}

#[test]
fn nothing_of_a_stranger_breaks_out_of_its_line() {
    let spoiled = sample::chromium_publish
        .replace("m=audio 9", "m=aud\u{1}io 9")
        .replace("level-asymmetry-allowed=1", "x=\u{7f}\t=;;=a=candidate:1");
    assert!(matches!(RemoteSdp::parse(&spoiled), Err(SdpError::Malformed { .. })));
    let odd = sample::chromium_publish.replace("minptime=10", "a=candidate:1 1 udp 1 6.6.6.6 6 typ host; v=0");
    let answer = answer_publish(&RemoteSdp::parse(&odd).unwrap(), &local(), PublishPolicy::WHIP).unwrap();
    check_own(&answer.sdp);
    assert_eq!(values(&answer.sdp, 0, "candidate").len(), 2, "only our own");
}

/// Runs a text through everything that reads SDP.
fn read_everywhere(text: &str) {
    let own = local();
    let tracks = [play_track(0, params(Codec::Opus, "")), play_track(1, params(Codec::H264, H264))];
    let offer = offer_play(&own, &tracks).unwrap();
    let _ = parse_play_answer(text, &offer);
    let _ = parse_sdpfrag(text);
    let _ = parse_candidate(text);
    let Ok(sdp) = RemoteSdp::parse(text) else { return };
    assert!(!sdp.media.is_empty() && sdp.media.len() <= MEDIA_MAX);
    for policy in [PublishPolicy::WEBSOCKET, PublishPolicy::WHIP] {
        if let Ok(answer) = answer_publish(&sdp, &own, policy) {
            check_own(&answer.sdp);
            assert_eq!(m_lines(&answer.sdp).len(), sdp.media.len());
        }
    }
    if let Ok(answer) = answer_play(&sdp, &tracks, &own) {
        check_own(&answer.sdp);
        assert_eq!(m_lines(&answer.sdp).len(), sdp.media.len());
    }
}

#[test]
fn every_sample_is_read_in_every_role() {
    for (name, text) in sample::SAMPLES {
        assert!(RemoteSdp::parse(text).is_ok(), "{name}");
        read_everywhere(text);
    }
}

/// A real SDP with lines dropped, repeated, moved, cut, or with characters changed.
fn damaged() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..6u8, any::<prop::sample::Index>(), any::<char>());
    (prop::sample::select(sample::SAMPLES), proptest::collection::vec(edit, 1..12)).prop_map(|((_, text), edits)| {
        let mut lines: Vec<String> = text.lines().map(Into::into).collect();
        for (at, what, other, c) in edits {
            if lines.is_empty() {
                break;
            }
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match what {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[other].clone()),
                2 => lines.swap(at, other),
                3 => {
                    let keep = lines[at].chars().count() / 2;
                    lines[at] = lines[at].chars().take(keep).collect();
                }
                4 => lines[at].push(c),
                _ => {
                    let tail: String = lines[other].chars().skip(2).collect();
                    lines[at] = format!("{}{tail}", lines[at].split(':').next().unwrap_or_default());
                }
            }
        }
        lines.join("\r\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_sdps_never_panic(text in damaged()) {
        read_everywhere(&text);
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}", head in any::<bool>()) {
        read_everywhere(&if head { format!("v=0\r\nm=video 9 RTP/SAVPF 96\r\na={text}") } else { text });
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_everywhere(&String::from_utf8_lossy(&bytes));
        read_everywhere(&format!("v=0\n{}", String::from_utf8_lossy(&bytes)));
    }
}
