//! As much SDP as light peers need: to read a node's descriptions, and to write theirs.

use std::net::SocketAddr;

use ams_rtc::dtls::Fingerprint;
use ams_rtc::ice::IceCredentials;
use anyhow::{Context, Result};

/// What a light peer takes from a node's description.
#[derive(Clone, Debug)]
pub struct NodeSdp {
    /// The node's ICE credentials.
    pub ice: IceCredentials,
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// Its candidates, in order.
    pub candidates: Vec<SocketAddr>,
    /// Its m-lines.
    pub media: Vec<NodeMedia>,
}

/// One m-line.
#[derive(Clone, Debug, Default)]
pub struct NodeMedia {
    /// `audio`, `video` or `application`.
    pub kind: String,
    /// Its name.
    pub mid: String,
    /// Payload types in order.
    pub pts: Vec<u8>,
    /// `a=rtpmap` encodings by payload type.
    pub encodings: Vec<(u8, String)>,
    /// SSRCs announced.
    pub ssrcs: Vec<u32>,
    /// Pairs of original and retransmission.
    pub fid: Option<(u32, u32)>,
    /// Port 0.
    pub rejected: bool,
    /// `sendonly`, `recvonly`, ….
    pub direction: String,
}

impl NodeSdp {
    /// Reads a node's description.
    ///
    /// # Errors
    /// Something a peer needs is missing.
    pub fn parse(sdp: &str) -> Result<Self> {
        let value = |name: &str| {
            sdp.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).with_context(|| format!("no {name} in {sdp}"))
        };
        let ice = IceCredentials::new(value("a=ice-ufrag:")?, value("a=ice-pwd:")?)?;
        let fingerprint = value("a=fingerprint:")?.parse()?;
        let mut candidates = Vec::new();
        let mut media: Vec<NodeMedia> = Vec::new();
        for line in sdp.lines().map(str::trim) {
            if let Some(candidate) = line.strip_prefix("a=candidate:") {
                let fields: Vec<&str> = candidate.split_whitespace().collect();
                let (ip, port) = (fields.get(4).context("candidate")?, fields.get(5).context("candidate")?);
                let address = SocketAddr::new(ip.parse()?, port.parse()?);
                if !candidates.contains(&address) {
                    candidates.push(address);
                }
            } else if let Some(m) = line.strip_prefix("m=") {
                let fields: Vec<&str> = m.split_whitespace().collect();
                media.push(NodeMedia {
                    kind: fields.first().copied().unwrap_or_default().to_owned(),
                    rejected: fields.get(1) == Some(&"0"),
                    pts: fields.iter().skip(3).filter_map(|pt| pt.parse().ok()).collect(),
                    ..NodeMedia::default()
                });
            }
            let Some(current) = media.last_mut() else { continue };
            if let Some(mid) = line.strip_prefix("a=mid:") {
                current.mid = mid.to_owned();
            } else if let Some(map) = line.strip_prefix("a=rtpmap:")
                && let Some((pt, encoding)) = map.split_once(' ')
            {
                current.encodings.push((pt.parse()?, encoding.to_owned()));
            } else if let Some(ssrc) = line.strip_prefix("a=ssrc:") {
                let ssrc = ssrc.split_whitespace().next().context("ssrc")?.parse()?;
                if !current.ssrcs.contains(&ssrc) {
                    current.ssrcs.push(ssrc);
                }
            } else if let Some(pair) = line.strip_prefix("a=ssrc-group:FID ")
                && let Some((a, b)) = pair.split_once(' ')
            {
                current.fid = Some((a.parse()?, b.parse()?));
            } else if ["a=sendonly", "a=recvonly", "a=sendrecv", "a=inactive"].contains(&line) {
                current.direction = line[2..].to_owned();
            }
        }
        Ok(Self { ice, fingerprint, candidates, media })
    }

    /// The candidate a light peer on this machine uses.
    ///
    /// # Errors
    /// There is none.
    pub fn candidate(&self) -> Result<SocketAddr> {
        let v4 = self.candidates.iter().find(|c| c.is_ipv4());
        v4.or(self.candidates.first()).copied().context("no candidate")
    }
}

/// Session lines and transport lines of a light peer's description.
fn head(bundle: &[&str]) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=msid-semantic: WMS *\r\n",
        bundle.join(" ")
    )
}

fn transport(ice: &IceCredentials, fingerprint: &Fingerprint, setup: &str, mid: &str) -> String {
    format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{fingerprint}\r\na=setup:{setup}\r\na=mid:{mid}\r\na=rtcp-mux\r\n",
        ice.ufrag(),
        ice.pwd()
    )
}

/// SSRCs of a light publisher.
pub const AUDIO_SSRC: u32 = 0x0a0a_0001;
/// See [`AUDIO_SSRC`].
pub const VIDEO_SSRC: u32 = 0x0b0b_0001;
/// See [`AUDIO_SSRC`].
pub const VIDEO_RTX_SSRC: u32 = 0x0b0b_0002;
/// Header extension of transport-wide numbers.
pub const TRANSPORT_CC_ID: u8 = 3;
const TRANSPORT_CC: &str = "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";

/// The ICE credentials of a fragment.
///
/// # Errors
/// There are none.
pub fn credentials(fragment: &str) -> Result<IceCredentials> {
    let value =
        |name: &str| fragment.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).context("no credentials");
    Ok(IceCredentials::new(value("a=ice-ufrag:")?, value("a=ice-pwd:")?)?)
}

/// A fragment that restarts ICE (RFC 8840).
pub fn restart_fragment(ice: &IceCredentials) -> String {
    format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 UDP 2130706431 127.0.0.1 9 typ host\r\n",
        ice.ufrag(),
        ice.pwd()
    )
}

/// A publisher's offer: Opus and VP8 with RTX, and transport-wide numbers.
pub fn publish_offer(ice: &IceCredentials, fingerprint: &Fingerprint) -> String {
    let mut sdp = head(&["0", "1"]);
    sdp += "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
    sdp += &transport(ice, fingerprint, "actpass", "0");
    sdp += &format!(
        "a=sendonly\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=ssrc:{AUDIO_SSRC} cname:light\r\n"
    );
    sdp += TRANSPORT_CC;
    sdp += "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n";
    sdp += &transport(ice, fingerprint, "actpass", "1");
    sdp += "a=sendonly\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";
    sdp += &format!(
        "a=ssrc-group:FID {VIDEO_SSRC} {VIDEO_RTX_SSRC}\r\na=ssrc:{VIDEO_SSRC} cname:light\r\na=ssrc:{VIDEO_RTX_SSRC} cname:light\r\n"
    );
    sdp += TRANSPORT_CC;
    sdp
}

/// A publisher's offer with one of its tracks alone: `audio` or `video`.
pub fn publish_offer_of(kind: &str, ice: &IceCredentials, fingerprint: &Fingerprint) -> String {
    let (mid, other) = if kind == "audio" { ("0", "m=video") } else { ("1", "m=audio") };
    let mut sdp = head(&[mid]);
    for section in publish_offer(ice, fingerprint).split("m=").skip(1) {
        if !other.ends_with(section.split(' ').next().unwrap_or_default()) {
            sdp += "m=";
            sdp += section;
        }
    }
    sdp
}

/// A viewer's own offer (WHEP).
pub fn play_offer(ice: &IceCredentials, fingerprint: &Fingerprint) -> String {
    let mut sdp = head(&["0", "1"]);
    sdp += "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
    sdp += &transport(ice, fingerprint, "actpass", "0");
    sdp += "a=recvonly\r\na=rtpmap:111 opus/48000/2\r\n";
    sdp += "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n";
    sdp += &transport(ice, fingerprint, "actpass", "1");
    sdp += "a=recvonly\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";
    sdp
}

/// A viewer's answer to a node's offer: takes everything but the data channel.
pub fn play_answer(offer: &NodeSdp, ice: &IceCredentials, fingerprint: &Fingerprint) -> String {
    let mids: Vec<&str> = offer.media.iter().map(|m| m.mid.as_str()).collect();
    let mut sdp = head(&mids);
    for media in &offer.media {
        if media.kind == "application" {
            sdp += "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n";
            sdp += &transport(ice, fingerprint, "active", &media.mid);
            continue;
        }
        let pts: Vec<String> = media.pts.iter().map(u8::to_string).collect();
        sdp += &format!("m={} 9 UDP/TLS/RTP/SAVPF {}\r\n", media.kind, pts.join(" "));
        sdp += &transport(ice, fingerprint, "active", &media.mid);
        sdp += "a=recvonly\r\n";
        for (pt, encoding) in &media.encodings {
            sdp += &format!("a=rtpmap:{pt} {encoding}\r\n");
        }
        if let [first, second, ..] = media.pts[..]
            && media.encodings.iter().any(|(pt, e)| *pt == second && e.starts_with("rtx"))
        {
            sdp += &format!("a=fmtp:{second} apt={first}\r\na=rtcp-fb:{first} nack\r\na=rtcp-fb:{first} nack pli\r\n");
        }
    }
    sdp
}
