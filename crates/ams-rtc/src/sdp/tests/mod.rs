//! SDPs as real clients write them, negotiated; and as strangers write them, refused.
//!
//! What this node writes is read back by an independent parser too.

mod hostile;
mod play;
mod publish;
mod whep;

use std::io::Cursor;

use ams_types::{Codec, CodecParams, MediaKind, Ssrc, TrackNo};
use rtc_sdp::description::session::SessionDescription;

use super::*;
use crate::dtls::FingerprintHash;

macro_rules! samples {
    ($($name:ident),* $(,)?) => {
        $(pub(super) const $name: &str = include_str!(concat!("samples/", stringify!($name), ".sdp"));)*
        /// Every sample with its name.
        pub(super) const SAMPLES: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

#[allow(non_upper_case_globals)]
mod sample {
    samples!(
        aiortc_publish,
        aiortc_view,
        chromium_play_answer,
        chromium_publish,
        chromium_simulcast,
        chromium_view,
        ffmpeg_whip,
        ffmpeg_whip_video_only,
        firefox_publish,
        firefox_refusing_answer,
        gstreamer_publish,
        obs_whip,
    );
}

const H264: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";

fn local() -> LocalSdp {
    LocalSdp {
        ice: IceCredentials::new("nodeufrag", "nodepasswordnodepassword").unwrap(),
        fingerprint: Fingerprint::of(b"certificate", FingerprintHash::Sha256),
        candidates: Candidate::hosts(["192.0.2.1:50000".parse().unwrap(), "[2001:db8::1]:50000".parse().unwrap()]),
        session_id: 4242,
        session_version: 1,
        cname: "node".into(),
        codecs: Codec::ALL.to_vec(),
        data_channel: true,
        max_message_size: MAX_MESSAGE_SIZE,
    }
}

fn params(codec: Codec, fmtp: &str) -> CodecParams {
    CodecParams { codec, fmtp: fmtp.into() }
}

fn play_track(no: u8, codec: CodecParams) -> PlayTrack {
    let kind = codec.codec.kind();
    let ssrc = 1000 + u32::from(no) * 10;
    PlayTrack {
        no: TrackNo(no),
        codec,
        msid: Msid::ams(&"stream1".parse().unwrap(), kind),
        track_id: "stream1".into(),
        ssrc: Ssrc(ssrc),
        rtx_ssrc: (kind == MediaKind::Video).then_some(Ssrc(ssrc + 1)),
    }
}

/// The value of each attribute of this name on the `n`th m-line, in order.
fn values<'a>(sdp: &'a str, n: usize, name: &str) -> Vec<&'a str> {
    let section = sdp.split("\r\nm=").nth(n + 1).unwrap();
    let prefix = format!("a={name}:");
    section.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).collect()
}

fn has_line(sdp: &str, line: &str) -> bool {
    sdp.lines().any(|l| l == line)
}

fn m_lines(sdp: &str) -> Vec<&str> {
    sdp.lines().filter(|line| line.starts_with("m=")).collect()
}

/// Checks what must hold of every SDP this node writes, and returns it as another parser reads it.
fn check_own(sdp: &str) -> SessionDescription {
    assert!(sdp.ends_with("\r\n") && !sdp.replace("\r\n", "").contains(['\r', '\n', '\0']), "{sdp}");
    assert!(has_line(sdp, "a=ice-lite"));
    let read = RemoteSdp::parse(sdp).unwrap();
    let theirs = SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes())).unwrap();
    assert_eq!(theirs.media_descriptions.len(), read.media.len());
    for (ours, theirs) in read.media.iter().zip(&theirs.media_descriptions) {
        let accepted = !ours.disabled;
        let names: Vec<&str> = theirs.attributes.iter().map(|attr| attr.key.as_str()).collect();
        for needed in ["ice-ufrag", "ice-pwd", "fingerprint", "setup"] {
            assert_eq!(names.contains(&needed), accepted, "{needed} in\n{sdp}");
        }
        let directions = names.iter().filter(|name| attr::Direction::from_name(name).is_some()).count();
        assert!(directions <= 1, "{sdp}");
        assert_eq!(theirs.media_name.port.value == 0, ours.disabled);
    }
    let count = |start: &str| sdp.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("a=candidate:"), count("a=end-of-candidates")), (2, 1), "on one m-line only");
    theirs
}
