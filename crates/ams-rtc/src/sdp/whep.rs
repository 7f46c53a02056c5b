//! A viewer's offer, answered with a stream (WHEP: the viewer offers).
//!
//! Owns the matching of tracks to the viewer's m-lines, by kind and codec, with the viewer's numbers. An m-line no track
//! is for stays inactive.

use ams_types::{Codec, MediaKind, Mid};

use super::LocalSdp;
use super::attr::{Direction, Setup, setup_of};
use super::codec::{best_for_stream, describe, offered_fmtp};
use super::error::SdpError;
use super::play::{NegotiatedTrack, PlayAnswer, PlayTrack, negotiate, sources};
use super::publish::{bundle_order, data_session};
use super::remote::{Encoding, FeedbackFlags, Format, Purpose, RemoteMedia, RemoteSdp, usable_with_mux};
use super::write::{FormatLines, Writer, format_list};
use crate::ext::ExtMap;

/// What was agreed with a WHEP viewer.
#[derive(Clone, Debug)]
pub struct WhepAnswer {
    /// The answer to send.
    pub sdp: String,
    /// What to send, and to whom.
    pub agreed: PlayAnswer,
}

/// What becomes of one m-line.
enum Verdict<'a> {
    Track {
        track: &'a PlayTrack,
        agreed: NegotiatedTrack,
    },
    /// Accepted without media: the format shows which codec it would have been.
    Inactive(&'a Format, Codec),
    Data,
    Refused,
}

/// Answers a viewer's offer with `tracks`. A track takes the first m-line of its kind that wants media and has a codec
/// for it.
///
/// # Errors
/// [`SdpError::NoCommonCodec`] when the viewer asks for video (or, of a stream without video, audio) and cannot take the
/// stream's; [`SdpError::Direction`] when it wants to send only; [`SdpError::NotBundled`] and
/// [`SdpError::RtcpMuxRequired`] for an m-line a track needs; the faults of its transport.
pub fn answer_play(offer: &RemoteSdp, tracks: &[PlayTrack], local: &LocalSdp) -> Result<WhepAnswer, SdpError> {
    let assigned = assign(offer, tracks)?;
    let mut verdicts = Vec::with_capacity(offer.media.len());
    let mut alone = offer.bundle.is_none();
    let mut data = None;
    for (media, assigned) in offer.media.iter().zip(assigned) {
        let shares = offer.is_bundled(media) || alone;
        let verdict = match (media.purpose, assigned) {
            (_, Some((track, format))) => {
                check(media, shares)?;
                Verdict::Track { track, agreed: negotiate(media, format, track, None) }
            }
            (Purpose::Rtp(_), None) if !media.disabled && check(media, shares).is_ok() => {
                known_format(media).map_or(Verdict::Refused, |(format, codec)| Verdict::Inactive(format, codec))
            }
            (Purpose::Data, None) if local.data_channel && data.is_none() && !media.disabled && shares => {
                data = Some(data_session(media));
                Verdict::Data
            }
            _ => Verdict::Refused,
        };
        // Without a group there is one transport, and the first m-line accepted has it.
        alone &= matches!(verdict, Verdict::Refused);
        verdicts.push(verdict);
    }

    let accepted: Vec<&Mid> = offer
        .media
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| !matches!(verdict, Verdict::Refused))
        .map(|(media, _)| &media.mid)
        .collect();
    let remote = offer.transport(|media| accepted.contains(&&media.mid))?;
    let sdp = write_answer(offer, local, &verdicts, &accepted, setup_of(remote.role));
    let agreed: Vec<NegotiatedTrack> = verdicts
        .into_iter()
        .filter_map(|verdict| match verdict {
            Verdict::Track { agreed, .. } => Some(agreed),
            _ => None,
        })
        .collect();
    let taken = |track: &&PlayTrack| agreed.iter().any(|known| known.no == track.no);
    let refused = tracks.iter().filter(|track| !taken(track)).map(|track| track.no).collect();
    Ok(WhepAnswer { sdp, agreed: PlayAnswer { remote, tracks: agreed, refused, data } })
}

/// The track and format each m-line carries.
type Assigned<'a> = Vec<Option<(&'a PlayTrack, &'a Format)>>;

fn assign<'a>(offer: &'a RemoteSdp, tracks: &'a [PlayTrack]) -> Result<Assigned<'a>, SdpError> {
    let mut assigned: Assigned<'a> = vec![None; offer.media.len()];
    let mut mismatch = None;
    for track in tracks {
        let kind = track.codec.codec.kind();
        let of_kind = |media: &RemoteMedia| media.purpose == Purpose::Rtp(kind) && !media.disabled;
        let mut places = offer
            .media
            .iter()
            .zip(&mut assigned)
            .filter(|(media, place)| of_kind(media) && place.is_none() && media.direction.receives());
        let found = places.find_map(|(media, place)| Some((place, best_for_stream(media, &track.codec)?)));
        if let Some((place, format)) = found {
            *place = Some((track, format));
            continue;
        }
        let free = offer.media.iter().zip(&assigned).filter(|(media, place)| of_kind(media) && place.is_none());
        let wanting = |(media, _): &(&RemoteMedia, _)| media.direction.receives();
        // What wants media and cannot take ours says more than what wants none.
        let unmatched = free.clone().find(wanting).or_else(|| free.clone().next()).map(|(media, _)| media);
        let error = match unmatched {
            Some(media) if media.direction.receives() => {
                SdpError::NoCommonCodec { kind, offered: media.encoding_names(), needed: describe(&track.codec) }
            }
            Some(media) if media.direction == Direction::SendOnly => {
                SdpError::Direction { mid: media.mid.clone(), offered: media.direction, wanted: "recvonly or sendrecv" }
            }
            _ => continue,
        };
        // A picture that cannot be shown is worth an error even when the sound could be heard.
        if kind == MediaKind::Video {
            return Err(error);
        }
        mismatch.get_or_insert(error);
    }
    if assigned.iter().all(Option::is_none) && !tracks.is_empty() {
        return Err(mismatch.unwrap_or(SdpError::NothingAccepted));
    }
    Ok(assigned)
}

/// Whether an m-line can share the transport.
fn check(media: &RemoteMedia, shares: bool) -> Result<(), SdpError> {
    if !shares {
        Err(SdpError::NotBundled { mid: media.mid.clone() })
    } else if !media.rtcp_mux {
        Err(SdpError::RtcpMuxRequired { mid: media.mid.clone() })
    } else {
        Ok(())
    }
}

fn known_format(media: &RemoteMedia) -> Option<(&Format, Codec)> {
    media.formats.iter().find_map(|format| match format.encoding {
        Encoding::Codec(codec) if usable_with_mux(format.pt) => Some((format, codec)),
        _ => None,
    })
}

fn write_answer(
    offer: &RemoteSdp,
    local: &LocalSdp,
    verdicts: &[Verdict<'_>],
    accepted: &[&Mid],
    setup: Setup,
) -> String {
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
            Verdict::Data => {
                out.data(local, mid, Some(media));
                out.transport(local, setup, first);
            }
            Verdict::Inactive(format, codec) => {
                out.media(&media.media, &media.proto, &format_list(format.pt, None), mid);
                out.transport(local, setup, first);
                out.rtp(Direction::Inactive, media.rtcp_rsize, &ExtMap::default());
                out.format(&FormatLines {
                    codec: *codec,
                    fmtp: &format.fmtp,
                    pt: format.pt,
                    rtx_pt: None,
                    feedback: FeedbackFlags::default(),
                });
            }
            Verdict::Track { track, agreed } => {
                out.media(&media.media, &media.proto, &format_list(agreed.pt, agreed.rtx_pt), mid);
                out.transport(local, setup, first);
                out.rtp(Direction::SendOnly, media.rtcp_rsize, &agreed.exts);
                out.format(&FormatLines {
                    codec: track.codec.codec,
                    fmtp: offered_fmtp(&track.codec),
                    pt: agreed.pt,
                    rtx_pt: agreed.rtx_pt,
                    feedback: agreed.feedback,
                });
                out.sources(&sources(track, agreed.rtx_pt, &local.cname));
            }
        }
        first = false;
    }
    out.finish()
}
