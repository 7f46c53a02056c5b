//! A stream offered to a viewer, and the viewer's answer (AMS's WebSocket: the server offers).
//!
//! Owns the shape of this node's offers: same payload types and extension ids each time, one media stream for audio and
//! video, data channels last. The offer needs no media, only what the stream consists of.

use ams_types::{CodecParams, MediaKind, Mid, Pt, Ssrc, StreamId, TrackNo};

use super::LocalSdp;
use super::attr::{Direction, Msid, Setup};
use super::codec::{PayloadTypes, best_for_stream, offered_fmtp};
use super::error::SdpError;
use super::lines::MEDIA_MAX;
use super::publish::data_session;
use super::remote::{DataSession, FeedbackFlags, Format, Purpose, RemoteMedia, RemoteSdp};
use super::write::{FormatLines, SourceLines, Writer, format_list};
use crate::ext::{Ext, ExtMap};
use crate::transport::RemoteTransport;

/// A track to be offered, or answered, to a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayTrack {
    /// Its place in the stream.
    pub no: TrackNo,
    /// Its codec, as the publisher negotiated it.
    pub codec: CodecParams,
    /// Names the browser knows it by; [`Msid::ams`] makes those AMS's clients expect.
    pub msid: Msid,
    /// What its m-line stands for in AMS's `idMapping`: the stream's id.
    pub track_id: String,
    /// The source this node will send it from.
    pub ssrc: Ssrc,
    /// The source of its retransmissions; only used for video.
    pub rtx_ssrc: Option<Ssrc>,
}

impl Msid {
    /// The names AMS gives: one media stream for all of `stream`, a track each for audio and video.
    pub fn ams(stream: &StreamId, kind: MediaKind) -> Self {
        let letter = match kind {
            MediaKind::Audio => 'a',
            MediaKind::Video => 'v',
        };
        Self { stream: stream.to_string(), track: format!("ARDAMS{letter}{stream}") }
    }
}

/// What was offered to a viewer; needed again to read the answer.
#[derive(Clone, Debug)]
pub struct PlayOffer {
    /// The offer to send.
    pub sdp: String,
    /// AMS's `idMapping`: mid → stream id, for each audio and video m-line.
    pub id_mapping: Vec<(Mid, String)>,
    /// The tracks in order of their m-lines.
    pub tracks: Vec<OfferedTrack>,
    /// The data channel's m-line, the last one.
    pub data: Option<Mid>,
}

/// One track as it was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedTrack {
    /// Its m-line.
    pub mid: Mid,
    /// The track.
    pub track: PlayTrack,
    /// Payload type offered.
    pub pt: Pt,
    /// Payload type offered for its retransmissions.
    pub rtx_pt: Option<Pt>,
    /// Header extensions offered.
    pub exts: ExtMap,
}

/// What was agreed with a viewer.
#[derive(Clone, Debug)]
pub struct PlayAnswer {
    /// The other end of the transport.
    pub remote: RemoteTransport,
    /// The tracks it takes.
    pub tracks: Vec<NegotiatedTrack>,
    /// The tracks it does not take: no common codec, or not wanted.
    pub refused: Vec<TrackNo>,
    /// The data channel transport, if one was agreed.
    pub data: Option<DataSession>,
}

/// A track a viewer takes, and how it must be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiatedTrack {
    /// Its place in the stream.
    pub no: TrackNo,
    /// Its codec.
    pub codec: CodecParams,
    /// Its m-line.
    pub mid: Mid,
    /// Payload type to send it with.
    pub pt: Pt,
    /// Payload type for retransmissions; without it they go out as they were.
    pub rtx_pt: Option<Pt>,
    /// The source to send from.
    pub ssrc: Ssrc,
    /// The source of its retransmissions; there is one exactly if `rtx_pt` is.
    pub rtx_ssrc: Option<Ssrc>,
    /// Header extensions the viewer takes.
    pub exts: ExtMap,
    /// RTCP feedback the viewer will send.
    pub feedback: FeedbackFlags,
}

/// RTCP feedback this node understands from viewers.
fn own_feedback(kind: MediaKind) -> FeedbackFlags {
    let video = kind == MediaKind::Video;
    FeedbackFlags { nack: video, pli: video, fir: video, transport_cc: true, remb: video }
}

/// Header extensions this node sends on a track. RIDs are not among them: a viewer gets one layer at a time.
fn own_exts(codec: &CodecParams) -> ExtMap {
    let mut map = ExtMap::new(true);
    for ext in Ext::ALL {
        let wanted = match ext {
            Ext::Rid | Ext::RepairedRid => false,
            Ext::DependencyDescriptor => codec.codec == ams_types::Codec::Av1,
            _ => ext.applies_to(codec.codec.kind()),
        };
        if wanted {
            map.insert(ext, ext.own_id());
        }
    }
    map
}

/// Offers `tracks` to a viewer, in their order, and a data channel if `local` says so.
///
/// # Errors
/// [`SdpError::TooManyMedia`] when there are more tracks than an offer has room for, [`SdpError::NoMedia`] when there is
/// nothing to offer.
pub fn offer_play(local: &LocalSdp, tracks: &[PlayTrack]) -> Result<PlayOffer, SdpError> {
    if tracks.len() + usize::from(local.data_channel) > MEDIA_MAX {
        return Err(SdpError::TooManyMedia { max: MEDIA_MAX });
    }
    if tracks.is_empty() && !local.data_channel {
        return Err(SdpError::NoMedia);
    }
    let mut types = PayloadTypes::new();
    let mut offered = Vec::with_capacity(tracks.len());
    for (place, track) in tracks.iter().enumerate() {
        let (pt, rtx_pt) = types.give(&track.codec).ok_or(SdpError::TooManyMedia { max: MEDIA_MAX })?;
        let rtx_pt = rtx_pt.filter(|_| track.rtx_ssrc.is_some());
        let track = PlayTrack { rtx_ssrc: track.rtx_ssrc.filter(|_| rtx_pt.is_some()), ..track.clone() };
        let exts = own_exts(&track.codec);
        offered.push(OfferedTrack { mid: Mid(place.to_string().into()), track, pt, rtx_pt, exts });
    }
    let data = local.data_channel.then(|| Mid(tracks.len().to_string().into()));

    let mut out = Writer::default();
    out.session(local, offered.iter().map(|track| &track.mid).chain(&data), true);
    for (place, OfferedTrack { mid, track, pt, rtx_pt, exts }) in offered.iter().enumerate() {
        let kind = track.codec.codec.kind();
        out.media(kind.as_str(), "UDP/TLS/RTP/SAVPF", &format_list(*pt, *rtx_pt), Some(mid));
        out.transport(local, Setup::ActPass, place == 0);
        out.rtp(Direction::SendOnly, true, exts);
        out.format(&FormatLines {
            codec: track.codec.codec,
            fmtp: offered_fmtp(&track.codec),
            pt: *pt,
            rtx_pt: *rtx_pt,
            feedback: own_feedback(kind),
        });
        out.sources(&sources(track, *rtx_pt, &local.cname));
    }
    if let Some(mid) = &data {
        out.data(local, Some(mid), None);
        out.transport(local, Setup::ActPass, offered.is_empty());
    }
    let id_mapping = offered.iter().map(|track| (track.mid.clone(), track.track.track_id.clone())).collect();
    Ok(PlayOffer { sdp: out.finish(), id_mapping, tracks: offered, data })
}

/// Reads a viewer's answer to `offer`.
///
/// # Errors
/// [`SdpError`] for text that is not SDP, [`SdpError::AnswerMismatch`] when its m-lines are not those of the offer,
/// [`SdpError::NothingAccepted`] when it takes none of them, and the faults of its transport.
pub fn parse_play_answer(sdp: &str, offer: &PlayOffer) -> Result<PlayAnswer, SdpError> {
    let answer = RemoteSdp::parse(sdp)?;
    if answer.media.len() != offer.tracks.len() + usize::from(offer.data.is_some()) {
        return Err(SdpError::AnswerMismatch { reason: "it has another number of m-lines" });
    }
    let mids = offer.tracks.iter().map(|track| &track.mid).chain(&offer.data);
    if answer.media.iter().zip(mids).any(|(media, mid)| media.has_mid && media.mid != *mid) {
        return Err(SdpError::AnswerMismatch { reason: "its m-lines are in another order" });
    }

    let (mut tracks, mut refused) = (Vec::new(), Vec::new());
    for (media, offered) in answer.media.iter().zip(&offer.tracks) {
        if media.purpose != Purpose::Rtp(offered.track.codec.codec.kind()) {
            return Err(SdpError::AnswerMismatch { reason: "an m-line is of another kind" });
        }
        let format = best_for_stream(media, &offered.track.codec).or_else(|| repeated(media, offered));
        match format.filter(|_| !media.disabled && media.direction.receives()) {
            Some(format) => tracks.push(negotiate(media, format, &offered.track, Some(&offered.exts))),
            None => refused.push(offered.track.no),
        }
    }
    let data = answer.media.get(offer.tracks.len()).filter(|media| media.purpose == Purpose::Data && !media.disabled);
    let taken = |media: &RemoteMedia| {
        tracks.iter().any(|track| track.mid == media.mid) || data.is_some_and(|data| data.mid == media.mid)
    };
    let remote = answer.transport(taken)?;
    Ok(PlayAnswer { remote, tracks, refused, data: data.map(data_session) })
}

/// The offered format as the answer repeats it. An answer that keeps our payload type has agreed, however it describes
/// the profile: browsers state their own level, some clients nothing at all.
fn repeated<'a>(media: &'a RemoteMedia, offered: &OfferedTrack) -> Option<&'a Format> {
    let codec = offered.track.codec.codec.sdp_name();
    media
        .formats
        .iter()
        .find(|format| format.pt == offered.pt && (format.name.is_empty() || format.name.eq_ignore_ascii_case(codec)))
}

/// What was agreed for one track on m-line `media` with the viewer's `format`. `ours` are the extensions we offered, or
/// none where the viewer offered.
pub(super) fn negotiate(
    media: &RemoteMedia,
    format: &Format,
    track: &PlayTrack,
    ours: Option<&ExtMap>,
) -> NegotiatedTrack {
    let kind = track.codec.codec.kind();
    let own = own_feedback(kind);
    let mut exts = media.usable_exts(kind, false, &ExtMap::default());
    let allowed = own_exts(&track.codec);
    for ext in Ext::ALL {
        // An answer may leave extensions out but not renumber them.
        if allowed.id(ext).is_none() || ours.is_some_and(|ours| ours.id(ext) != exts.id(ext)) {
            exts.remove(ext);
        }
    }
    let mut feedback = FeedbackFlags {
        nack: format.feedback.nack && own.nack,
        pli: format.feedback.pli && own.pli,
        fir: format.feedback.fir && own.fir,
        transport_cc: format.feedback.transport_cc && exts.id(Ext::TransportCc).is_some(),
        remb: format.feedback.remb && own.remb,
    };
    if feedback.transport_cc {
        feedback.remb = false;
    } else {
        exts.remove(Ext::TransportCc);
    }
    if !feedback.remb {
        exts.remove(Ext::AbsSendTime);
    }
    let rtx = media.rtx_of(format.pt).filter(|_| feedback.nack).zip(track.rtx_ssrc);
    NegotiatedTrack {
        no: track.no,
        codec: track.codec.clone(),
        mid: media.mid.clone(),
        pt: format.pt,
        rtx_pt: rtx.map(|(pt, _)| pt),
        ssrc: track.ssrc,
        rtx_ssrc: rtx.map(|(_, ssrc)| ssrc),
        exts,
        feedback,
    }
}

pub(super) fn sources<'a>(track: &'a PlayTrack, rtx_pt: Option<Pt>, cname: &'a str) -> SourceLines<'a> {
    SourceLines { ssrc: track.ssrc, rtx_ssrc: track.rtx_ssrc.filter(|_| rtx_pt.is_some()), msid: &track.msid, cname }
}
