//! A publisher's offer, answered: which m-lines become tracks, with which codec, layers and feedback.
//!
//! Owns the rules for ingest: one codec per m-line, so that a publisher sends exactly what viewers were told; the offer's
//! order decides among the codecs allowed. Never touches the transport itself.

use ams_media::track::LAYERS_MAX;
use ams_media::{LayerInfo, TrackInfo};
use ams_types::{CodecParams, LayerNo, MediaKind, Mid, Pt, Rid, Ssrc, TrackNo};

use super::LocalSdp;
use super::attr::{Direction, Msid, setup_of};
use super::codec::choose_for_publisher;
use super::error::SdpError;
use super::remote::{DataSession, Encoding, FeedbackFlags, Purpose, RemoteMedia, RemoteSdp};
use super::write::{FormatLines, Writer, format_list};
use crate::ext::{Ext, ExtMap};
use crate::transport::RemoteTransport;

/// What happens to an m-line that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is refused alone (port 0), and the others live (RFC 3264 §6).
    MLine,
    /// The whole offer is refused (RFC 9725 §4.2).
    Whole,
}

/// How strict to be with an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishPolicy {
    /// What happens to an m-line that cannot be taken.
    pub refusal: Refusal,
    /// Most tracks of audio, and of video.
    pub tracks_per_kind: usize,
}

impl PublishPolicy {
    /// For AMS's WebSocket: refuse what cannot be taken, take the rest.
    pub const WEBSOCKET: Self = Self { refusal: Refusal::MLine, tracks_per_kind: 1 };
    /// For WHIP: all or nothing, at most one audio and one video.
    pub const WHIP: Self = Self { refusal: Refusal::Whole, tracks_per_kind: 1 };
}

/// What was agreed with a publisher.
#[derive(Clone, Debug)]
pub struct PublishAnswer {
    /// The answer to send.
    pub sdp: String,
    /// The tracks to expect, in order of their m-lines; may be empty if there is a data channel.
    pub tracks: Vec<PublishedTrack>,
    /// The other end of the transport.
    pub remote: RemoteTransport,
    /// The data channel transport, if one was agreed.
    pub data: Option<DataSession>,
    /// Header extensions of all tracks together: to find a packet's track by its MID before the track is known.
    pub exts: ExtMap,
}

/// A track a publisher will send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTrack {
    /// Its place in the stream.
    pub no: TrackNo,
    /// Audio or video.
    pub kind: MediaKind,
    /// Its m-line.
    pub mid: Mid,
    /// The codec chosen, with the publisher's parameters.
    pub codec: CodecParams,
    /// Payload type of the codec.
    pub pt: Pt,
    /// Payload type of its retransmissions, if there are any.
    pub rtx_pt: Option<Pt>,
    /// Its layers: one, or as many as are simulcast; at most [`LAYERS_MAX`].
    pub layers: Vec<PublishedLayer>,
    /// Header extensions agreed.
    pub exts: ExtMap,
    /// RTCP feedback agreed. With `transport_cc` the extension is agreed too; `remb` only without it.
    pub feedback: FeedbackFlags,
    /// The browser's names for it.
    pub msid: Option<Msid>,
}

impl PublishedTrack {
    /// What viewers and other nodes have to know of it.
    pub fn info(&self) -> TrackInfo {
        let layer = |(no, layer): (u8, &PublishedLayer)| LayerInfo { no: LayerNo(no), rid: layer.rid.clone() };
        TrackInfo {
            no: self.no,
            kind: self.kind,
            codec: self.codec.clone(),
            layers: (0..).zip(&self.layers).map(layer).collect(),
        }
    }
}

/// A simulcast layer, or the only one. Without SSRC it is to be found by RID, MID or payload type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedLayer {
    /// Its name.
    pub rid: Option<Rid>,
    /// The source it comes from, if the offer says.
    pub ssrc: Option<Ssrc>,
    /// The source of its retransmissions, if the offer says.
    pub rtx_ssrc: Option<Ssrc>,
}

/// What becomes of one m-line.
enum Verdict {
    Track(Box<PublishedTrack>),
    Data(DataSession),
    Refused,
}

/// Answers a publisher's offer.
///
/// # Errors
/// The first reason an m-line could not be taken, if `policy` says [`Refusal::Whole`] or none of them could;
/// [`SdpError::NoFingerprint`], [`SdpError::NoIceCredentials`], [`SdpError::IceLitePeer`] for the transport.
pub fn answer_publish(offer: &RemoteSdp, local: &LocalSdp, policy: PublishPolicy) -> Result<PublishAnswer, SdpError> {
    let mut choice = Choice { offer, local, policy, kinds: Vec::new(), data: false, exts: ExtMap::default() };
    let mut refusal = None;
    let mut verdicts = Vec::new();
    for media in &offer.media {
        verdicts.push(choice.judge(media).or_else(|error| match policy.refusal {
            Refusal::Whole => Err(error),
            Refusal::MLine => {
                refusal.get_or_insert(error);
                Ok(Verdict::Refused)
            }
        })?);
    }
    let exts = choice.exts;
    let accepted: Vec<&Mid> =
        verdicts.iter().zip(&offer.media).filter(|(v, _)| !v.is_refused()).map(|(_, m)| &m.mid).collect();
    if accepted.is_empty() {
        return Err(refusal.unwrap_or(SdpError::NothingAccepted));
    }
    let remote = offer.transport(|media| accepted.contains(&&media.mid))?;
    let sdp = write_answer(offer, local, &verdicts, &accepted, &remote);
    let (mut tracks, mut data) = (Vec::new(), None);
    for verdict in verdicts {
        match verdict {
            Verdict::Track(track) => tracks.push(*track),
            Verdict::Data(session) => data = Some(session),
            Verdict::Refused => {}
        }
    }
    Ok(PublishAnswer { sdp, tracks, remote, data, exts })
}

impl Verdict {
    fn is_refused(&self) -> bool {
        matches!(self, Self::Refused)
    }
}

/// The state of going through an offer's m-lines.
struct Choice<'a> {
    offer: &'a RemoteSdp,
    local: &'a LocalSdp,
    policy: PublishPolicy,
    /// The kinds of the tracks so far.
    kinds: Vec<MediaKind>,
    data: bool,
    exts: ExtMap,
}

impl Choice<'_> {
    /// Decides on one m-line. A disabled one is no fault: the other end refused it itself.
    fn judge(&mut self, media: &RemoteMedia) -> Result<Verdict, SdpError> {
        if media.disabled {
            return Ok(Verdict::Refused);
        }
        let alone = self.kinds.is_empty() && !self.data && self.offer.bundle.is_none();
        let bundled = self.offer.is_bundled(media) || alone;
        match media.purpose {
            Purpose::Other => Err(SdpError::UnsupportedMedia {
                mid: media.mid.clone(),
                media: format!("{} {}", media.media, media.proto).chars().take(64).collect(),
            }),
            Purpose::Data if !self.local.data_channel || self.data => Ok(Verdict::Refused),
            _ if !bundled => Err(SdpError::NotBundled { mid: media.mid.clone() }),
            Purpose::Data => {
                self.data = true;
                Ok(Verdict::Data(data_session(media)))
            }
            Purpose::Rtp(kind) => self.judge_rtp(media, kind).map(|track| Verdict::Track(Box::new(track))),
        }
    }

    fn judge_rtp(&mut self, media: &RemoteMedia, kind: MediaKind) -> Result<PublishedTrack, SdpError> {
        let mid = media.mid.clone();
        if !media.direction.sends() {
            return Err(SdpError::Direction { mid, offered: media.direction, wanted: "sendonly or sendrecv" });
        }
        if !media.rtcp_mux {
            return Err(SdpError::RtcpMuxRequired { mid });
        }
        if self.kinds.iter().filter(|taken| **taken == kind).count() >= self.policy.tracks_per_kind {
            return Err(SdpError::TooManyTracks { kind, max: self.policy.tracks_per_kind });
        }
        let allowed: Vec<_> = self.local.codecs.iter().copied().filter(|codec| codec.kind() == kind).collect();
        let Some((format, Encoding::Codec(codec))) =
            choose_for_publisher(media, &allowed).map(|format| (format, format.encoding))
        else {
            let needed: Vec<&str> = allowed.iter().map(|codec| codec.sdp_name()).collect();
            return Err(SdpError::NoCommonCodec { kind, offered: media.encoding_names(), needed: needed.join(" or ") });
        };

        let mut exts = media.usable_exts(kind, true, &self.exts);
        let mut feedback = format.feedback;
        feedback.transport_cc &= exts.id(Ext::TransportCc).is_some();
        if feedback.transport_cc {
            // One bandwidth feedback is enough, and this one makes the send time needless.
            feedback.remb = false;
            exts.remove(Ext::AbsSendTime);
        } else {
            exts.remove(Ext::TransportCc);
        }
        let rtx_pt = media.rtx_of(format.pt).filter(|_| feedback.nack);
        let layers = layers(media, format.pt, &exts);
        for (ext, id) in exts.iter() {
            self.exts.insert(ext, id);
        }
        self.exts.allow_mixed |= exts.allow_mixed;
        // At most as many as there are m-lines.
        let no = TrackNo(self.kinds.len() as u8);
        self.kinds.push(kind);
        Ok(PublishedTrack {
            no,
            kind,
            mid,
            codec: CodecParams { codec, fmtp: format.fmtp.as_str().into() },
            pt: format.pt,
            rtx_pt,
            layers,
            exts,
            feedback,
            msid: media.msid.clone(),
        })
    }
}

/// What a data m-line agrees to.
pub(super) fn data_session(media: &RemoteMedia) -> DataSession {
    DataSession {
        mid: media.mid.clone(),
        remote_port: media.sctp_port,
        remote_max_message_size: media.max_message_size,
    }
}

/// The layers an m-line announces: by RID (RFC 8853), by an old-style SIM group, or the one source.
fn layers(media: &RemoteMedia, pt: Pt, exts: &ExtMap) -> Vec<PublishedLayer> {
    // Without the RID in their packets, layers could not be told apart.
    if exts.id(Ext::Rid).is_some() {
        let bound =
            |rid: &&Rid| media.rids.iter().any(|(known, pts)| known == *rid && (pts.is_empty() || pts.contains(&pt)));
        let layers: Vec<_> = media
            .simulcast
            .iter()
            .filter(bound)
            .take(LAYERS_MAX)
            .map(|rid| PublishedLayer { rid: Some(rid.clone()), ..PublishedLayer::default() })
            .collect();
        if !layers.is_empty() {
            return layers;
        }
    }
    let rtx_of = |ssrc: Ssrc| media.fid.iter().find(|(source, _)| *source == ssrc).map(|(_, rtx)| *rtx);
    let by_ssrc = |ssrc: Ssrc| PublishedLayer { rid: None, ssrc: Some(ssrc), rtx_ssrc: rtx_of(ssrc) };
    if media.sim.len() > 1 {
        return media.sim.iter().take(LAYERS_MAX).copied().map(by_ssrc).collect();
    }
    // The first source that is not another's retransmission.
    let is_rtx = |ssrc: &Ssrc| media.fid.iter().any(|(_, rtx)| rtx == ssrc);
    let source =
        media.ssrcs.iter().copied().find(|ssrc| !is_rtx(ssrc)).or(media.fid.first().map(|(source, _)| *source));
    vec![source.map(by_ssrc).unwrap_or_default()]
}

fn write_answer(
    offer: &RemoteSdp,
    local: &LocalSdp,
    verdicts: &[Verdict],
    accepted: &[&Mid],
    remote: &RemoteTransport,
) -> String {
    let setup = setup_of(remote.role);
    let mut out = Writer::default();
    let allow_mixed = offer.media.iter().any(|media| media.allow_mixed);
    out.session(local, bundle_order(offer, accepted).into_iter(), allow_mixed);
    let mut first = true;
    for (media, verdict) in offer.media.iter().zip(verdicts) {
        let mid = media.has_mid.then_some(&media.mid);
        match verdict {
            Verdict::Refused => {
                out.refused(media);
                continue;
            }
            Verdict::Data(_) => {
                out.data(local, mid, Some(media));
                out.transport(local, setup, first);
            }
            Verdict::Track(track) => {
                out.media(&media.media, &media.proto, &format_list(track.pt, track.rtx_pt), mid);
                out.transport(local, setup, first);
                out.rtp(Direction::RecvOnly, media.rtcp_rsize, &track.exts);
                out.format(&FormatLines {
                    codec: track.codec.codec,
                    fmtp: &track.codec.fmtp,
                    pt: track.pt,
                    rtx_pt: track.rtx_pt,
                    feedback: track.feedback,
                });
                let rids: Vec<&str> = track.layers.iter().filter_map(|l| l.rid.as_ref()).map(|rid| &*rid.0).collect();
                for rid in &rids {
                    out.line(format_args!("a=rid:{rid} recv"));
                }
                if !rids.is_empty() {
                    out.line(format_args!("a=simulcast:recv {}", rids.join(";")));
                }
            }
        }
        first = false;
    }
    out.finish()
}

/// The accepted mids in the order the offer's group has them; none where there was no group.
pub(super) fn bundle_order<'a>(offer: &'a RemoteSdp, accepted: &[&Mid]) -> Vec<&'a Mid> {
    let mut order: Vec<&Mid> = Vec::new();
    for mid in offer.bundle.iter().flatten() {
        if accepted.contains(&mid) && !order.contains(&mid) {
            order.push(mid);
        }
    }
    order
}
