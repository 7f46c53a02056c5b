//! The other end's SDP as typed, owned values: what it offers or answers, before anything is decided.
//!
//! Owns the reading of offers and answers alike, and the limits on what is kept of them. Strict about lines it
//! understands, silent about those it does not. What will be done with it is decided in [`super::publish`],
//! [`super::play`] and [`super::whep`].

use ams_types::{Codec, MediaKind, Mid, Pt, Rid, Ssrc};

use super::attr::{self, Direction, FMTP_LEN_MAX, Msid, Setup};
use super::candidate::{RemoteCandidate, parse_candidate};
use super::error::SdpError;
use super::lines::{self, Attr, RawMedia};
use crate::dtls::Fingerprint;
use crate::ext::{Ext, ExtMap};
use crate::ice::{IceCredentials, InvalidCredentials};
use crate::transport::RemoteTransport;

/// Most SSRCs kept of one m-line.
pub const SSRCS_MAX: usize = 32;
/// Most candidates kept of one m-line.
pub const CANDIDATES_MAX: usize = 32;
/// Most RIDs kept of one m-line.
pub const RIDS_MAX: usize = 8;

/// An SDP as the other end wrote it.
#[derive(Clone, Debug, Default)]
pub struct RemoteSdp {
    /// It never sends checks (RFC 8839 §5.3).
    pub ice_lite: bool,
    /// Mids of the first BUNDLE group; none where there is no group. May name what no m-line has.
    pub bundle: Option<Vec<Mid>>,
    /// The m-lines in order; at least one, at most [`super::MEDIA_MAX`].
    pub media: Vec<RemoteMedia>,
}

/// What an m-line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Audio or video over DTLS-SRTP.
    Rtp(MediaKind),
    /// Data channels: SCTP over DTLS (RFC 8841).
    Data,
    /// Something not done here.
    Other,
}

/// One m-line with its attributes; those of the session are merged in.
#[derive(Clone, Debug)]
pub struct RemoteMedia {
    /// What it is for.
    pub purpose: Purpose,
    /// Its name; made up from its place where it has none.
    pub mid: Mid,
    /// It carried `a=mid`, so an answer does too.
    pub has_mid: bool,
    /// Media word as written, for an answer to repeat.
    pub media: String,
    /// Protocol as written, likewise.
    pub proto: String,
    /// Format list as written, likewise.
    pub format_list: Vec<String>,
    /// Port 0 without `a=bundle-only`: refused or ended (RFC 8843 §6).
    pub disabled: bool,
    /// Which way it flows, seen from the other end.
    pub direction: Direction,
    /// The formats in order of preference; empty unless RTP.
    pub formats: Vec<Format>,
    /// Known header extensions with their id and direction.
    pub exts: Vec<(Ext, u8, Direction)>,
    /// `a=extmap-allow-mixed`, here or in the session.
    pub allow_mixed: bool,
    /// RTCP on the same port.
    pub rtcp_mux: bool,
    /// Reduced-size RTCP (RFC 5506).
    pub rtcp_rsize: bool,
    /// The sources it sends from, in order.
    pub ssrcs: Vec<Ssrc>,
    /// `a=ssrc-group`: FID pairs (source, its RTX).
    pub fid: Vec<(Ssrc, Ssrc)>,
    /// `a=ssrc-group:SIM`: simulcast without RIDs, as old or altered offers have it.
    pub sim: Vec<Ssrc>,
    /// Media stream and track.
    pub msid: Option<Msid>,
    /// `a=rid … send` with the payload types each is bound to; empty list: any.
    pub rids: Vec<(Rid, Vec<Pt>)>,
    /// `a=simulcast:send`: layers in order, the first of alternatives.
    pub simulcast: Vec<Rid>,
    /// ICE user name fragment and password.
    pub ice: Option<IceCredentials>,
    /// Hash of its certificate; the strongest of several.
    pub fingerprint: Option<Fingerprint>,
    /// Part in the DTLS handshake.
    pub setup: Option<Setup>,
    /// Candidates that could be used; informative.
    pub candidates: Vec<RemoteCandidate>,
    /// SCTP port (RFC 8841 §5); 5000 where it is not said.
    pub sctp_port: u16,
    /// The m-line names its SCTP port in the old way, `a=sctpmap`.
    pub sctpmap: bool,
    /// Largest message the other end takes, in bytes; 0 is any (RFC 8841 §6).
    pub max_message_size: u64,
}

/// One payload type of an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its number on this m-line.
    pub pt: Pt,
    /// What it encodes.
    pub encoding: Encoding,
    /// Encoding name as written; empty for static payload types without `a=rtpmap`.
    pub name: String,
    /// Format parameters as written.
    pub fmtp: String,
    /// RTCP feedback.
    pub feedback: FeedbackFlags,
}

/// What a format encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A codec that is forwarded.
    Codec(Codec),
    /// Retransmissions of another format (RFC 4588).
    Rtx {
        /// That other format.
        apt: Pt,
    },
    /// Something else.
    Other,
}

/// RTCP feedback of a format (RFC 4585 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedbackFlags {
    /// `nack`: generic NACK.
    pub nack: bool,
    /// `nack pli`.
    pub pli: bool,
    /// `ccm fir`.
    pub fir: bool,
    /// `transport-cc`.
    pub transport_cc: bool,
    /// `goog-remb`.
    pub remb: bool,
}

impl FeedbackFlags {
    /// The flags with their `a=rtcp-fb` values.
    pub(super) fn values(self) -> impl Iterator<Item = &'static str> {
        [
            (self.nack, "nack"),
            (self.pli, "nack pli"),
            (self.fir, "ccm fir"),
            (self.transport_cc, "transport-cc"),
            (self.remb, "goog-remb"),
        ]
        .into_iter()
        .filter_map(|(on, value)| on.then_some(value))
    }

    fn add(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("nack"), None) => self.nack = true,
            (Some("nack"), Some("pli")) => self.pli = true,
            (Some("ccm"), Some("fir")) => self.fir = true,
            (Some("transport-cc"), None) => self.transport_cc = true,
            (Some("goog-remb"), None) => self.remb = true,
            _ => {}
        }
    }
}

/// A negotiated data channel transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSession {
    /// Its m-line.
    pub mid: Mid,
    /// The other end's SCTP port; this node's is 5000.
    pub remote_port: u16,
    /// Largest message the other end takes, in bytes; 0 is any.
    pub remote_max_message_size: u64,
}

impl RemoteSdp {
    /// Reads an offer or answer.
    ///
    /// # Errors
    /// [`SdpError::TooLong`], [`SdpError::Malformed`], [`SdpError::NoMedia`], [`SdpError::TooManyMedia`],
    /// [`SdpError::DuplicateMid`].
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        let raw = lines::parse(text)?;
        if raw.media.is_empty() {
            return Err(SdpError::NoMedia);
        }
        let mut sdp = Self::default();
        for attr in &raw.session {
            match attr.name {
                "ice-lite" => sdp.ice_lite = true,
                "group" if sdp.bundle.is_none() => sdp.bundle = bundle_group(attr)?,
                _ => {}
            }
        }
        for (place, media) in raw.media.iter().enumerate() {
            let media = RemoteMedia::read(place, &raw.session, media)?;
            if sdp.media.iter().any(|other| other.mid == media.mid) {
                return Err(SdpError::DuplicateMid { mid: media.mid });
            }
            sdp.media.push(media);
        }
        Ok(sdp)
    }

    /// Whether this m-line shares the transport of the BUNDLE group, or is the only one it could be.
    pub(super) fn is_bundled(&self, media: &RemoteMedia) -> bool {
        self.bundle.as_ref().is_some_and(|group| group.contains(&media.mid))
    }

    /// The transport of the m-lines for which `accepted` holds: that of the first of them in the order of the BUNDLE
    /// group (RFC 8843 §7.3.1), or the first at all.
    pub(super) fn transport(&self, accepted: impl Fn(&RemoteMedia) -> bool) -> Result<RemoteTransport, SdpError> {
        let by_mid = |mid: &Mid| self.media.iter().find(|media| media.mid == *mid && accepted(media));
        let tagged = self.bundle.iter().flatten().find_map(by_mid);
        let media =
            tagged.or_else(|| self.media.iter().find(|media| accepted(media))).ok_or(SdpError::NothingAccepted)?;
        if self.ice_lite {
            return Err(SdpError::IceLitePeer);
        }
        let credentials = media.ice.clone().ok_or(SdpError::NoIceCredentials)?;
        let fingerprint = media.fingerprint.clone().ok_or(SdpError::NoFingerprint)?;
        let data = self.media.iter().find(|media| media.purpose == Purpose::Data && accepted(media));
        Ok(RemoteTransport {
            credentials,
            fingerprint,
            role: attr::role_beside(media.setup),
            message_len_max: data.map(|data| data.max_message_size),
        })
    }
}

fn bundle_group(attr: &Attr<'_>) -> Result<Option<Vec<Mid>>, SdpError> {
    let mut words = attr.value.split_ascii_whitespace();
    if words.next() != Some("BUNDLE") {
        return Ok(None);
    }
    let mut mids = Vec::new();
    for word in words {
        let mid = attr::mid(word).ok_or_else(|| attr.malformed("not a mid"))?;
        if mids.len() >= lines::MEDIA_MAX * 2 {
            return Err(attr.malformed("the BUNDLE group names too many m-lines"));
        }
        mids.push(mid);
    }
    // An empty group bundles nothing, which is as if there were none.
    Ok(Some(mids).filter(|mids| !mids.is_empty()))
}

impl RemoteMedia {
    fn read(place: usize, session: &[Attr<'_>], raw: &RawMedia<'_>) -> Result<Self, SdpError> {
        let purpose = purpose(raw);
        let mut media = Self {
            purpose,
            mid: Mid(place.to_string().into()),
            has_mid: false,
            media: raw.media.into(),
            proto: raw.proto.into(),
            format_list: raw.formats.iter().map(|format| (*format).into()).collect(),
            disabled: raw.port == 0 && !raw.attrs.iter().any(|attr| attr.name == "bundle-only"),
            direction: Direction::default(),
            formats: Vec::new(),
            exts: Vec::new(),
            allow_mixed: false,
            rtcp_mux: false,
            rtcp_rsize: false,
            ssrcs: Vec::new(),
            fid: Vec::new(),
            sim: Vec::new(),
            msid: None,
            rids: Vec::new(),
            simulcast: Vec::new(),
            ice: None,
            fingerprint: None,
            setup: None,
            candidates: Vec::new(),
            sctp_port: super::SCTP_PORT,
            sctpmap: false,
            // RFC 8841 §6.1: what holds where nothing is said.
            max_message_size: 65_536,
        };
        if let Purpose::Rtp(_) = purpose {
            media.formats = read_formats(raw)?;
        }
        media.read_transport(session, &raw.attrs)?;
        for attr in session.iter().chain(&raw.attrs) {
            media.read_attr(attr)?;
        }
        Ok(media)
    }

    /// ICE and DTLS: what the m-line says stands before what the session says (RFC 8839 §5.4, RFC 8122 §5).
    fn read_transport(&mut self, session: &[Attr<'_>], own: &[Attr<'_>]) -> Result<(), SdpError> {
        let find = |name: &str| own.iter().chain(session).find(|attr| attr.name == name);
        if let (Some(ufrag), Some(pwd)) = (find("ice-ufrag"), find("ice-pwd")) {
            let credentials = IceCredentials::new(ufrag.value, pwd.value).map_err(|error| match error {
                InvalidCredentials::Ufrag => {
                    ufrag.malformed("an ICE user name fragment is 4 to 256 letters and digits")
                }
                InvalidCredentials::Password => pwd.malformed("an ICE password is 22 to 256 letters and digits"),
            });
            self.ice = Some(credentials?);
        }
        if let Some(setup) = find("setup") {
            let value = Setup::from_value(setup.value);
            self.setup = Some(value.ok_or_else(|| setup.malformed("setup is active, passive or actpass"))?);
        }
        let level = if own.iter().any(|attr| attr.name == "fingerprint") { own } else { session };
        for attr in level.iter().filter(|attr| attr.name == "fingerprint") {
            if let Some(read) = attr::fingerprint(attr.value).map_err(|reason| attr.malformed(reason))?
                && self.fingerprint.as_ref().is_none_or(|known| attr::strength(known) < attr::strength(&read))
            {
                self.fingerprint = Some(read);
            }
        }
        Ok(())
    }

    fn read_attr(&mut self, attr: &Attr<'_>) -> Result<(), SdpError> {
        if let Some(direction) = Direction::from_name(attr.name) {
            self.direction = direction;
            return Ok(());
        }
        match attr.name {
            "mid" => {
                self.mid = attr::mid(attr.value).ok_or_else(|| attr.malformed("not a mid"))?;
                self.has_mid = true;
            }
            "rtcp-mux" | "rtcp-mux-only" => self.rtcp_mux = true,
            "rtcp-rsize" => self.rtcp_rsize = true,
            "extmap-allow-mixed" => self.allow_mixed = true,
            "extmap" => {
                let (id, direction, uri) = attr::extmap(attr.value).ok_or_else(|| attr.malformed("not an extmap"))?;
                // Ids past a byte are proposals to be renumbered (RFC 8285 §7); only ids that can be used are taken.
                if let (Some(ext), Ok(id)) = (Ext::from_uri(uri), u8::try_from(id))
                    && !self.exts.iter().any(|(known, other, _)| *known == ext || *other == id)
                {
                    self.exts.push((ext, id, direction));
                }
            }
            "ssrc" => {
                let (ssrc, rest) = attr::ssrc(attr.value).ok_or_else(|| attr.malformed("not an SSRC"))?;
                if !self.ssrcs.contains(&ssrc) && self.ssrcs.len() < SSRCS_MAX {
                    self.ssrcs.push(ssrc);
                }
                if let Some(msid) = rest.strip_prefix("msid:")
                    && self.msid.is_none()
                {
                    self.msid = Msid::parse(msid);
                }
            }
            "ssrc-group" => self.read_ssrc_group(attr)?,
            "msid" => self.msid = Msid::parse(attr.value).or(self.msid.take()),
            "rid" => self.read_rid(attr)?,
            "simulcast" => self.read_simulcast(attr)?,
            "candidate" => {
                if let Ok(candidate) = parse_candidate(&format!("candidate:{}", attr.value))
                    && self.candidates.len() < CANDIDATES_MAX
                {
                    self.candidates.push(candidate);
                }
            }
            "sctp-port" => {
                self.sctp_port = attr.value.parse().map_err(|_| attr.malformed("not an SCTP port"))?;
            }
            "sctpmap" => {
                self.sctpmap = true;
                let port = attr.value.split_ascii_whitespace().next().and_then(|port| port.parse().ok());
                self.sctp_port = port.ok_or_else(|| attr.malformed("not an SCTP port"))?;
            }
            "max-message-size" => {
                self.max_message_size = attr.value.parse().map_err(|_| attr.malformed("not a message size"))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn read_ssrc_group(&mut self, attr: &Attr<'_>) -> Result<(), SdpError> {
        let mut words = attr.value.split_ascii_whitespace();
        let semantics = words.next();
        let ssrcs = words.take(SSRCS_MAX).map(|word| word.parse().map(Ssrc)).collect::<Result<Vec<_>, _>>();
        let ssrcs = ssrcs.map_err(|_| attr.malformed("not an SSRC"))?;
        match (semantics, ssrcs.as_slice()) {
            (Some("FID"), &[source, rtx]) if self.fid.len() < SSRCS_MAX => self.fid.push((source, rtx)),
            (Some("SIM"), layers) if self.sim.is_empty() => self.sim = layers.to_vec(),
            _ => {}
        }
        Ok(())
    }

    fn read_rid(&mut self, attr: &Attr<'_>) -> Result<(), SdpError> {
        let mut words = attr.value.split_ascii_whitespace();
        let rid = words.next().and_then(attr::rid).ok_or_else(|| attr.malformed("not a rid"))?;
        if words.next() != Some("send") || self.rids.len() >= RIDS_MAX {
            return Ok(());
        }
        let bound = attr::fmtp_param(words.next().unwrap_or_default(), "pt").unwrap_or_default();
        let pts = bound.split(',').filter_map(attr::payload_type).collect();
        if !self.rids.iter().any(|(known, _)| *known == rid) {
            self.rids.push((rid, pts));
        }
        Ok(())
    }

    fn read_simulcast(&mut self, attr: &Attr<'_>) -> Result<(), SdpError> {
        let mut words = attr.value.split_ascii_whitespace();
        while let Some(direction) = words.next() {
            let layers = words.next().ok_or_else(|| attr.malformed("simulcast lists no layers"))?;
            if direction != "send" {
                continue;
            }
            // `;` parts layers, `,` alternatives of one, `~` marks it paused (RFC 8853 §5.1).
            for layer in layers.split(';').take(RIDS_MAX) {
                let first = layer.split(',').next().unwrap_or_default().trim_start_matches('~');
                let rid = attr::rid(first).ok_or_else(|| attr.malformed("not a rid"))?;
                if !self.simulcast.contains(&rid) {
                    self.simulcast.push(rid);
                }
            }
        }
        Ok(())
    }

    /// Known header extensions that this node and the other end can both use, given who sends.
    ///
    /// `taken` are those of the m-lines before: one id means one thing on a shared transport (RFC 8843 §14).
    pub(super) fn usable_exts(&self, kind: MediaKind, peer_sends: bool, taken: &ExtMap) -> ExtMap {
        let mut map = ExtMap::new(self.allow_mixed);
        for (ext, id, direction) in &self.exts {
            let flows = if peer_sends { direction.sends() } else { direction.receives() };
            let conflicts = taken.ext(*id).is_some_and(|other| other != *ext);
            if flows && !conflicts && ext.applies_to(kind) {
                map.insert(*ext, *id);
            }
        }
        map
    }

    /// The encoding names offered, for a sentence: a few of them, once each.
    pub(super) fn encoding_names(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for format in &self.formats {
            let name = if format.name.is_empty() { "a static payload type" } else { &format.name };
            if !matches!(format.encoding, Encoding::Rtx { .. }) && !names.contains(&name) && names.len() < 12 {
                names.push(name);
            }
        }
        names.join(", ")
    }

    /// Payload type of the RTX format that repeats `pt`.
    pub(super) fn rtx_of(&self, pt: Pt) -> Option<Pt> {
        let rtx = |format: &&Format| format.encoding == Encoding::Rtx { apt: pt } && usable_with_mux(format.pt);
        self.formats.iter().find(rtx).map(|format| format.pt)
    }
}

/// Whether packets of this type can be told from RTCP on the same port (RFC 5761 §4).
pub(super) fn usable_with_mux(pt: Pt) -> bool {
    !(64..=95).contains(&pt.0)
}

fn purpose(raw: &RawMedia<'_>) -> Purpose {
    let rtp = matches!(
        raw.proto,
        "UDP/TLS/RTP/SAVPF"
            | "UDP/TLS/RTP/SAVP"
            | "TCP/DTLS/RTP/SAVPF"
            | "TCP/DTLS/RTP/SAVP"
            | "RTP/SAVPF"
            | "RTP/SAVP"
    );
    let sctp = matches!(raw.proto, "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP" | "DTLS/SCTP");
    match raw.media {
        "audio" if rtp => Purpose::Rtp(MediaKind::Audio),
        "video" if rtp => Purpose::Rtp(MediaKind::Video),
        "application" if sctp => Purpose::Data,
        _ => Purpose::Other,
    }
}

fn read_formats(raw: &RawMedia<'_>) -> Result<Vec<Format>, SdpError> {
    let malformed = |reason| SdpError::Malformed { line: raw.line, reason };
    let mut formats: Vec<Format> = Vec::new();
    for word in &raw.formats {
        let pt = attr::payload_type(word).ok_or_else(|| malformed("a payload type is a number from 0 to 127"))?;
        if formats.iter().any(|format| format.pt == pt) {
            return Err(malformed("a payload type is listed twice"));
        }
        formats.push(Format {
            pt,
            encoding: Encoding::Other,
            name: String::new(),
            fmtp: String::new(),
            feedback: FeedbackFlags::default(),
        });
    }
    for attr in &raw.attrs {
        match attr.name {
            "rtcp-fb" => {
                let (pt, value) = attr.value.split_once(' ').ok_or_else(|| attr.malformed("not RTCP feedback"))?;
                let pt = if pt == "*" {
                    None
                } else {
                    Some(attr::payload_type(pt).ok_or_else(|| attr.malformed("not a payload type"))?)
                };
                for format in formats.iter_mut().filter(|format| pt.is_none_or(|pt| pt == format.pt)) {
                    format.feedback.add(value);
                }
            }
            "rtpmap" | "fmtp" => {
                let (pt, rest) =
                    attr::with_payload_type(attr.value).ok_or_else(|| attr.malformed("not a payload type"))?;
                let Some(format) = formats.iter_mut().find(|format| format.pt == pt) else { continue };
                if attr.name == "fmtp" {
                    if rest.len() > FMTP_LEN_MAX {
                        return Err(attr.malformed("the format parameters are too long"));
                    }
                    format.fmtp = rest.into();
                } else {
                    let (name, clock, channels) = attr::rtpmap(rest).ok_or_else(|| attr.malformed("not an rtpmap"))?;
                    format.name = name.chars().take(32).collect();
                    format.encoding = encoding(name, clock, channels);
                }
            }
            _ => {}
        }
    }
    let pts: Vec<Pt> = formats.iter().map(|format| format.pt).collect();
    for format in formats.iter_mut().filter(|format| format.name.eq_ignore_ascii_case("rtx")) {
        let apt = attr::fmtp_param(&format.fmtp, "apt").and_then(attr::payload_type);
        if let Some(apt) = apt.filter(|apt| pts.contains(apt) && *apt != format.pt) {
            format.encoding = Encoding::Rtx { apt };
        }
    }
    Ok(formats)
}

fn encoding(name: &str, clock: u32, channels: u32) -> Encoding {
    let fits = |codec: &Codec| {
        // RFC 7587 §7: Opus is always written with two channels.
        codec.clock_rate() == clock && channels == if *codec == Codec::Opus { 2 } else { 1 }
    };
    Codec::from_sdp_name(name).filter(fits).map_or(Encoding::Other, Encoding::Codec)
}
