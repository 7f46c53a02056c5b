//! As much SDP as the load needs: its offers, and what it takes from answers.

use std::net::SocketAddr;

use ams_rtc::dtls::Fingerprint;
use ams_rtc::ice::IceCredentials;
use anyhow::{Context, Result};

/// Payload types the load offers.
pub(super) const AUDIO_PT: u8 = 111;
pub(super) const VIDEO_PT: u8 = 96;
/// Id of the transport-wide numbers' extension.
pub(super) const TRANSPORT_CC_ID: u8 = 3;
/// The publisher's sources.
pub(super) const AUDIO_SSRC: u32 = 0x0a0a_1001;
pub(super) const VIDEO_SSRC: u32 = 0x0b0b_1001;

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// What an answer says of the other end.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) ice: IceCredentials,
    pub(super) fingerprint: Fingerprint,
    pub(super) server: SocketAddr,
}

impl Answer {
    pub(super) fn parse(sdp: &str) -> Result<Self> {
        let value = |name: &str| {
            sdp.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
                .with_context(|| format!("the answer has no {name}"))
        };
        let candidate = |line: &str| {
            let fields: Vec<&str> = line.strip_prefix("a=candidate:")?.split_whitespace().collect();
            let is_udp = fields.get(2)?.eq_ignore_ascii_case("udp");
            let address = SocketAddr::new(fields.get(4)?.parse().ok()?, fields.get(5)?.parse().ok()?);
            (is_udp && address.is_ipv4()).then_some(address)
        };
        let candidates: Vec<SocketAddr> = sdp.lines().filter_map(candidate).collect();
        let loopback = candidates.iter().find(|address| address.ip().is_loopback());
        Ok(Self {
            ice: IceCredentials::new(value("a=ice-ufrag:")?, value("a=ice-pwd:")?)?,
            fingerprint: value("a=fingerprint:")?.parse()?,
            server: *loopback.or(candidates.first()).context("the answer has no IPv4 candidate over UDP")?,
        })
    }
}

/// An offer to publish or, without `publish`, to watch.
pub(super) fn offer(ice: &IceCredentials, fingerprint: &Fingerprint, publish: bool, feedback: bool) -> String {
    let direction = if publish { "sendonly" } else { "recvonly" };
    let transport = |mid: u8| {
        format!(
            "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{fingerprint}\r\na=setup:{}\r\na=mid:{mid}\r\na=rtcp-mux\r\na={direction}\r\n",
            ice.ufrag(),
            ice.pwd(),
            if publish { "actpass" } else { "active" },
        )
    };
    let cc = |pt: u8| {
        if feedback {
            format!("a=extmap:{TRANSPORT_CC_ID} {TRANSPORT_CC}\r\na=rtcp-fb:{pt} transport-cc\r\n")
        } else {
            String::new()
        }
    };
    let source = |ssrc: u32| {
        if publish { format!("a=msid:bench {ssrc}\r\na=ssrc:{ssrc} cname:bench\r\n") } else { String::new() }
    };
    let mut sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=msid-semantic: WMS *\r\n"
        .to_owned();
    sdp += &format!("m=audio 9 UDP/TLS/RTP/SAVPF {AUDIO_PT}\r\n");
    sdp += &transport(0);
    sdp += &format!("a=rtpmap:{AUDIO_PT} opus/48000/2\r\n");
    sdp += &cc(AUDIO_PT);
    sdp += &source(AUDIO_SSRC);
    sdp += &format!("m=video 9 UDP/TLS/RTP/SAVPF {VIDEO_PT} 97\r\n");
    sdp += &transport(1);
    sdp += &format!(
        "a=rtpmap:{VIDEO_PT} VP8/90000\r\na=rtcp-fb:{VIDEO_PT} nack\r\na=rtcp-fb:{VIDEO_PT} nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt={VIDEO_PT}\r\n"
    );
    sdp += &cc(VIDEO_PT);
    sdp += &source(VIDEO_SSRC);
    sdp
}
