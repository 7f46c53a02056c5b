//! SDP text of this node: the parts offers and answers have in common. Knows how things are spelled and nothing of why.

use std::fmt;

use ams_types::{Codec, Mid, Pt, Ssrc};

use super::LocalSdp;
use super::attr::{Direction, Msid, Setup};
use super::remote::{FeedbackFlags, RemoteMedia};
use crate::ext::ExtMap;

/// Text being written, a line at a time.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
}

/// One payload type and what belongs to it.
pub(super) struct FormatLines<'a> {
    pub(super) codec: Codec,
    pub(super) fmtp: &'a str,
    pub(super) pt: Pt,
    pub(super) rtx_pt: Option<Pt>,
    pub(super) feedback: FeedbackFlags,
}

/// What a sending m-line says of its sources.
pub(super) struct SourceLines<'a> {
    pub(super) ssrc: Ssrc,
    pub(super) rtx_ssrc: Option<Ssrc>,
    pub(super) msid: &'a Msid,
    pub(super) cname: &'a str,
}

impl Writer {
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = fmt::Write::write_fmt(&mut self.text, line);
        self.text.push_str("\r\n");
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    /// The session's lines; `bundled` are the m-lines that share the transport.
    pub(super) fn session<'a>(&mut self, local: &LocalSdp, bundled: impl Iterator<Item = &'a Mid>, allow_mixed: bool) {
        self.line(format_args!("v=0"));
        let LocalSdp { session_id, session_version, .. } = local;
        self.line(format_args!("o=- {session_id} {session_version} IN IP4 0.0.0.0"));
        self.line(format_args!("s=-"));
        self.line(format_args!("t=0 0"));
        self.line(format_args!("a=ice-lite"));
        let mids: Vec<&str> = bundled.map(|mid| &*mid.0).collect();
        if !mids.is_empty() {
            self.line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        }
        if allow_mixed {
            self.line(format_args!("a=extmap-allow-mixed"));
        }
        self.line(format_args!("a=msid-semantic: WMS *"));
    }

    /// An m-line with its connection address; trickle ICE writes no real ones (RFC 8840 §4.1.1).
    pub(super) fn media(&mut self, media: &str, proto: &str, formats: &[String], mid: Option<&Mid>) {
        self.line(format_args!("m={media} 9 {proto} {}", formats.join(" ")));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        if let Some(mid) = mid {
            self.line(format_args!("a=mid:{mid}"));
        }
    }

    /// An m-line that is refused (RFC 3264 §6).
    pub(super) fn refused(&mut self, media: &RemoteMedia) {
        self.line(format_args!("m={} 0 {} {}", media.media, media.proto, media.format_list.join(" ")));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        if media.has_mid {
            self.line(format_args!("a=mid:{}", media.mid));
        }
        self.line(format_args!("a=inactive"));
    }

    /// ICE and DTLS. Only the first m-line of the group carries the candidates.
    pub(super) fn transport(&mut self, local: &LocalSdp, setup: Setup, first: bool) {
        self.line(format_args!("a=ice-ufrag:{}", local.ice.ufrag()));
        self.line(format_args!("a=ice-pwd:{}", local.ice.pwd()));
        self.line(format_args!("a=fingerprint:{}", local.fingerprint));
        self.line(format_args!("a=setup:{}", setup.as_str()));
        if first {
            for candidate in &local.candidates {
                self.line(format_args!("a={candidate}"));
            }
            self.line(format_args!("a=end-of-candidates"));
        }
    }

    /// Direction, RTCP and header extensions of an RTP m-line.
    pub(super) fn rtp(&mut self, direction: Direction, rsize: bool, exts: &ExtMap) {
        self.line(format_args!("a={direction}"));
        self.line(format_args!("a=rtcp-mux"));
        if rsize {
            self.line(format_args!("a=rtcp-rsize"));
        }
        for (ext, id) in exts.iter() {
            self.line(format_args!("a=extmap:{id} {}", ext.uri()));
        }
    }

    pub(super) fn format(&mut self, format: &FormatLines<'_>) {
        let FormatLines { codec, fmtp, pt: Pt(pt), rtx_pt, feedback } = format;
        let channels = if *codec == Codec::Opus { "/2" } else { "" };
        self.line(format_args!("a=rtpmap:{pt} {}/{}{channels}", codec.sdp_name(), codec.clock_rate()));
        if !fmtp.is_empty() {
            self.line(format_args!("a=fmtp:{pt} {fmtp}"));
        }
        for value in feedback.values() {
            self.line(format_args!("a=rtcp-fb:{pt} {value}"));
        }
        if let Some(Pt(rtx)) = rtx_pt {
            self.line(format_args!("a=rtpmap:{rtx} rtx/{}", codec.clock_rate()));
            self.line(format_args!("a=fmtp:{rtx} apt={pt}"));
        }
    }

    pub(super) fn sources(&mut self, sources: &SourceLines<'_>) {
        let SourceLines { ssrc, rtx_ssrc, msid: Msid { stream, track }, cname } = sources;
        self.line(format_args!("a=msid:{stream} {track}"));
        if let Some(rtx) = rtx_ssrc {
            self.line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
        }
        for ssrc in [Some(*ssrc), *rtx_ssrc].into_iter().flatten() {
            self.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
            self.line(format_args!("a=ssrc:{ssrc} msid:{stream} {track}"));
        }
    }

    /// An m-line for data channels, up to its transport. `offered` is the one being answered.
    pub(super) fn data(&mut self, local: &LocalSdp, mid: Option<&Mid>, offered: Option<&RemoteMedia>) {
        let proto = offered.map_or("UDP/DTLS/SCTP", |media| &media.proto);
        if offered.is_some_and(|media| media.sctpmap) {
            self.media("application", proto, &[super::SCTP_PORT.to_string()], mid);
            self.line(format_args!("a=sctpmap:{} webrtc-datachannel 1024", super::SCTP_PORT));
        } else {
            self.media("application", proto, &["webrtc-datachannel".into()], mid);
            self.line(format_args!("a=sctp-port:{}", super::SCTP_PORT));
        }
        self.line(format_args!("a=max-message-size:{}", local.max_message_size));
    }
}

/// The format list of an m-line.
pub(super) fn format_list(pt: Pt, rtx: Option<Pt>) -> Vec<String> {
    [Some(pt), rtx].into_iter().flatten().map(|pt| pt.0.to_string()).collect()
}
