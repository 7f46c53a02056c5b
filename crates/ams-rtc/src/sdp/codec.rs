//! Which codec formats fit each other: a stream's parameters against what a viewer can decode.
//!
//! Owns the comparison of profiles; nothing is transcoded, so a viewer that cannot take a stream's profile gets none.

use ams_types::{Codec, CodecParams, Pt};

use super::attr::fmtp_param;
use super::remote::{Encoding, Format, RemoteMedia, usable_with_mux};

/// H.264 profiles as RFC 6184 §8.1 tells them apart by profile_idc and constraint flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum H264Profile {
    /// Baseline too: nobody sends the tools that set it apart, and its flags are often written wrong.
    Baseline,
    Main,
    Extended,
    ConstrainedHigh,
    High,
    Other(u8),
}

fn h264_profile(fmtp: &str) -> Option<H264Profile> {
    // RFC 6184 §8.1: without the parameter it is Baseline, level 1.
    let text = fmtp_param(fmtp, "profile-level-id").unwrap_or("42000a");
    if text.len() != 6 {
        return None;
    }
    let value = u32::from_str_radix(text, 16).ok()?;
    let (idc, flags) = ((value >> 16) as u8, (value >> 8) as u8);
    Some(match idc {
        0x42 => H264Profile::Baseline,
        0x4d if flags & 0x80 != 0 => H264Profile::Baseline,
        0x4d => H264Profile::Main,
        0x58 if flags & 0xc0 != 0 => H264Profile::Baseline,
        0x58 => H264Profile::Extended,
        0x64 if flags == 0x0c => H264Profile::ConstrainedHigh,
        0x64 => H264Profile::High,
        other => H264Profile::Other(other),
    })
}

/// Whether a decoder of profile `decoder` takes a stream of profile `stream`.
fn h264_decodes(decoder: H264Profile, stream: H264Profile) -> bool {
    use H264Profile::{Baseline, ConstrainedHigh, High, Main};
    decoder == stream
        || match decoder {
            Main => stream == Baseline,
            ConstrainedHigh => stream == Baseline,
            High => matches!(stream, Baseline | Main | ConstrainedHigh),
            _ => false,
        }
}

/// How well a viewer's format suits a stream; lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// The same profile.
    Exact,
    /// A profile that includes the stream's.
    Superset,
}

/// Whether, and how well, a format of `codec` with `fmtp` can carry `stream`.
pub(super) fn fit(stream: &CodecParams, codec: Codec, fmtp: &str) -> Option<Fit> {
    if stream.codec != codec {
        return None;
    }
    let same = |name, default| {
        let value = |fmtp| fmtp_param(fmtp, name).unwrap_or(default);
        (value(&stream.fmtp) == value(fmtp)).then_some(Fit::Exact)
    };
    match codec {
        Codec::Opus | Codec::Vp8 => Some(Fit::Exact),
        Codec::Vp9 => same("profile-id", "0"),
        Codec::Av1 => same("profile", "0"),
        Codec::H265 => same("profile-id", "1"),
        Codec::H264 => {
            // A mode 0 stream is whole NAL units, which every mode takes; mode 1 is not for a mode 0 viewer.
            let (ours, theirs) = (h264_mode(&stream.fmtp), h264_mode(fmtp));
            if theirs > 1 || ours > theirs {
                return None;
            }
            let (stream, decoder) = (h264_profile(&stream.fmtp)?, h264_profile(fmtp)?);
            if decoder == stream && ours == theirs {
                Some(Fit::Exact)
            } else {
                h264_decodes(decoder, stream).then_some(Fit::Superset)
            }
        }
    }
}

fn h264_mode(fmtp: &str) -> u8 {
    fmtp_param(fmtp, "packetization-mode").and_then(|mode| mode.parse().ok()).unwrap_or(0)
}

/// The format of a viewer's m-line that carries `stream` best; among equals the viewer's first.
pub(super) fn best_for_stream<'a>(media: &'a RemoteMedia, stream: &CodecParams) -> Option<&'a Format> {
    let fits = media.formats.iter().filter(|format| usable_with_mux(format.pt)).filter_map(|format| {
        let Encoding::Codec(codec) = format.encoding else { return None };
        Some((fit(stream, codec, &format.fmtp)?, format))
    });
    fits.min_by_key(|(fit, _)| *fit).map(|(_, format)| format)
}

/// The format a publisher shall send: the first of its own order that is `allowed`; of H.264 the first with
/// packetization mode 1, if there is one, since mode 0 cannot carry large pictures.
pub(super) fn choose_for_publisher<'a>(media: &'a RemoteMedia, allowed: &[Codec]) -> Option<&'a Format> {
    let candidates = || {
        media.formats.iter().filter(|format| {
            usable_with_mux(format.pt) && matches!(format.encoding, Encoding::Codec(codec) if allowed.contains(&codec))
        })
    };
    let first = candidates().next()?;
    if first.encoding != Encoding::Codec(Codec::H264) {
        return Some(first);
    }
    let mode_1 = |format: &&Format| format.encoding == first.encoding && h264_mode(&format.fmtp) == 1;
    let same_profile = |format: &&Format| h264_profile(&format.fmtp) == h264_profile(&first.fmtp);
    Some(candidates().filter(mode_1).find(same_profile).or_else(|| candidates().find(mode_1)).unwrap_or(first))
}

/// A codec with its profile, for a sentence.
pub(super) fn describe(params: &CodecParams) -> String {
    let name = params.codec.sdp_name();
    let part = match params.codec {
        Codec::H264 => fmtp_param(&params.fmtp, "profile-level-id"),
        Codec::Vp9 | Codec::H265 => fmtp_param(&params.fmtp, "profile-id"),
        Codec::Av1 => fmtp_param(&params.fmtp, "profile"),
        Codec::Opus | Codec::Vp8 => None,
    };
    part.filter(|part| part.len() <= 16).map_or_else(|| name.into(), |part| format!("{name} (profile {part})"))
}

/// The parameters a stream is offered to viewers with: the publisher's, or what its packets imply if it named none.
pub(super) fn offered_fmtp(params: &CodecParams) -> &str {
    match (params.fmtp.is_empty(), params.codec) {
        (true, Codec::Opus) => "minptime=10;useinbandfec=1",
        (true, Codec::H264) => "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        _ => &params.fmtp,
    }
}

/// Hands out the payload types of an offer: the same each time, so that offers of one stream are alike.
#[derive(Debug)]
pub(super) struct PayloadTypes {
    audio: std::ops::RangeInclusive<u8>,
    video: std::iter::StepBy<std::ops::RangeInclusive<u8>>,
    given: Vec<(CodecParams, Pt, Option<Pt>)>,
}

impl PayloadTypes {
    /// 111 to 119 for audio; for video pairs of media and RTX from 96 up to 110, then from 35 to 62.
    pub(super) fn new() -> Self {
        Self { audio: 111..=119, video: (96..=109).step_by(2), given: Vec::new() }
    }

    /// The payload type for `params`, and the one for its RTX if it is video; the same parameters get the same types.
    /// `None` when they have run out.
    pub(super) fn give(&mut self, params: &CodecParams) -> Option<(Pt, Option<Pt>)> {
        if let Some((_, pt, rtx)) = self.given.iter().find(|(known, ..)| known == params) {
            return Some((*pt, *rtx));
        }
        let (pt, rtx) = match params.codec {
            Codec::Opus => (self.audio.next()?, None),
            _ => {
                let pt = self.video.next().or_else(|| {
                    let used = |pt: &u8| self.given.iter().any(|(_, given, _)| given.0 == *pt);
                    (35..=61).step_by(2).find(|pt| !used(pt))
                })?;
                (pt, Some(Pt(pt + 1)))
            }
        };
        self.given.push((params.clone(), Pt(pt), rtx));
        Some((Pt(pt), rtx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(codec: Codec, fmtp: &str) -> CodecParams {
        CodecParams { codec, fmtp: fmtp.into() }
    }

    #[test]
    fn h264_fits_by_profile_and_packetization_mode() {
        let h264 =
            |id: &str, mode: u8| format!("level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={id}");
        for (name, stream, viewer, want) in [
            ("the same", h264("42e01f", 1), h264("42e01f", 1), Some(Fit::Exact)),
            ("another level", h264("42e01f", 1), h264("42e034", 1), Some(Fit::Exact)),
            ("FFmpeg's constrained baseline", h264("42c01f", 1), h264("42e01f", 1), Some(Fit::Exact)),
            ("baseline for constrained baseline", h264("42001f", 1), h264("42e01f", 1), Some(Fit::Exact)),
            ("main decoder, baseline stream", h264("42e01f", 1), h264("4d001f", 1), Some(Fit::Superset)),
            ("baseline decoder, main stream", h264("4d001f", 1), h264("42e01f", 1), None),
            ("baseline decoder, high stream", h264("64001f", 1), h264("42e01f", 1), None),
            ("high decoder, main stream", h264("4d001f", 1), h264("64001f", 1), Some(Fit::Superset)),
            ("mode 0 viewer, mode 1 stream", h264("42e01f", 1), h264("42e01f", 0), None),
            ("mode 1 viewer, mode 0 stream", h264("42e01f", 0), h264("42e01f", 1), Some(Fit::Superset)),
            ("mode 2 is interleaved", h264("42e01f", 1), h264("42e01f", 2), None),
            ("nothing said: baseline, mode 0", String::new(), String::new(), Some(Fit::Exact)),
            ("profile is not hex", h264("42e01f", 1), h264("zzzzzz", 1), None),
            ("profile is short", h264("42e01f", 1), h264("42e", 1), None),
        ] {
            assert_eq!(fit(&params(Codec::H264, &stream), Codec::H264, &viewer), want, "{name}");
        }
    }

    #[test]
    fn other_codecs_fit_by_profile_or_name() {
        for (name, stream, codec, fmtp, want) in [
            ("VP8 whatever is said", params(Codec::Vp8, "max-fs=12288"), Codec::Vp8, "", true),
            ("VP8 is not VP9", params(Codec::Vp8, ""), Codec::Vp9, "", false),
            ("VP9 profile 0 by default", params(Codec::Vp9, ""), Codec::Vp9, "profile-id=0", true),
            ("VP9 profile 2", params(Codec::Vp9, "profile-id=2"), Codec::Vp9, "profile-id=0", false),
            ("AV1, other level", params(Codec::Av1, "level-idx=5;profile=0;tier=0"), Codec::Av1, "level-idx=8", true),
            ("H.265 main 10", params(Codec::H265, "profile-id=2"), Codec::H265, "level-id=93", false),
            ("Opus", params(Codec::Opus, "minptime=10"), Codec::Opus, "stereo=1", true),
        ] {
            assert_eq!(fit(&stream, codec, fmtp).is_some(), want, "{name}");
        }
    }

    #[test]
    fn payload_types_are_stable_and_never_clash() {
        let mut types = PayloadTypes::new();
        assert_eq!(types.give(&params(Codec::Opus, "")), Some((Pt(111), None)));
        assert_eq!(types.give(&params(Codec::Vp8, "")), Some((Pt(96), Some(Pt(97)))));
        assert_eq!(types.give(&params(Codec::Vp8, "")), Some((Pt(96), Some(Pt(97)))), "same parameters, same types");
        let mut seen = vec![111, 96, 97];
        for n in 0..16 {
            let (pt, rtx) = types.give(&params(Codec::H264, &n.to_string())).unwrap();
            seen.extend([pt.0, rtx.unwrap().0]);
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "{seen:?}");
        assert!(seen.iter().all(|pt| usable_with_mux(Pt(*pt)) && *pt <= 127));
    }
}
