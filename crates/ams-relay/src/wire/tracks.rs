//! The tracks of a stream on the wire: part of Subscribed and TracksChanged.
//!
//! Owns the layout and the limits. A track whose codec this version does not know is left out; what an element holds
//! beyond the known fields is skipped.

use ams_media::track::{LAYERS_MAX, TRACKS_MAX};
use ams_media::{LayerInfo, StreamTracks, TrackInfo};
use ams_types::{Codec, CodecParams, Rid};
use bytes::{BufMut, BytesMut};

use super::fields::{Fields, TooLong, put_element, put_text8, put_text16};
use super::{FRAME_LEN_MAX, WireError};

/// Most bytes of a track's format parameters.
pub const FMTP_LEN_MAX: usize = 4096;
/// Set in the flags byte when the publisher opened a data channel.
const FLAG_DATA_CHANNEL: u8 = 1;

// A stream with every field at its limit fits one frame.
const _: () = assert!(TRACKS_MAX * (FMTP_LEN_MAX + 64 + LAYERS_MAX * 260) + 64 < FRAME_LEN_MAX as usize);

pub(super) fn read_tracks(f: &mut Fields<'_>) -> Result<StreamTracks, WireError> {
    let flags = f.u8("flags")?;
    let count = usize::from(f.u8("track count")?);
    if count > TRACKS_MAX {
        return Err(f.malformed("more tracks than a stream may have"));
    }
    let mut tracks: Vec<TrackInfo> = Vec::with_capacity(count);
    for _ in 0..count {
        let len = f.u16("track length")?;
        let Some(track) = read_track(&mut f.element(len.into(), "track")?)? else {
            continue;
        };
        if tracks.iter().any(|other| other.no == track.no) {
            return Err(f.malformed("two tracks with one number"));
        }
        tracks.push(track);
    }
    Ok(StreamTracks { tracks, data_channel: flags & FLAG_DATA_CHANNEL != 0 })
}

fn read_track(f: &mut Fields<'_>) -> Result<Option<TrackInfo>, WireError> {
    let no = f.track()?;
    let codec = Codec::from_sdp_name(f.text8("codec")?);
    let fmtp = f.text16(FMTP_LEN_MAX, "format parameters")?;
    let count = usize::from(f.u8("layer count")?);
    if count == 0 || count > LAYERS_MAX {
        return Err(f.malformed("layer count"));
    }
    let mut layers: Vec<LayerInfo> = Vec::with_capacity(count);
    for _ in 0..count {
        let len = f.u16("layer length")?;
        let mut element = f.element(len.into(), "layer")?;
        let no = element.layer()?;
        let rid = element.text8("RID")?;
        if layers.iter().any(|other| other.no == no) {
            return Err(f.malformed("two layers with one number"));
        }
        layers.push(LayerInfo { no, rid: (!rid.is_empty()).then(|| Rid(rid.into())) });
    }
    Ok(codec.map(|codec| TrackInfo { no, kind: codec.kind(), codec: CodecParams { codec, fmtp: fmtp.into() }, layers }))
}

pub(super) fn write_tracks(tracks: &StreamTracks, frame: &'static str, out: &mut BytesMut) -> Result<(), TooLong> {
    out.put_u8(if tracks.data_channel { FLAG_DATA_CHANNEL } else { 0 });
    out.put_u8(counted(tracks.tracks.len(), TRACKS_MAX, frame, "tracks")?);
    for track in &tracks.tracks {
        put_element(out, frame, "track", |out| {
            out.put_u8(track.no.0);
            put_text8(out, track.codec.codec.sdp_name(), frame, "codec")?;
            put_text16(out, &track.codec.fmtp, FMTP_LEN_MAX, frame, "format parameters")?;
            if track.layers.is_empty() {
                return Err(TooLong { frame, what: "layer count" });
            }
            out.put_u8(counted(track.layers.len(), LAYERS_MAX, frame, "layers")?);
            for layer in &track.layers {
                put_element(out, frame, "layer", |out| {
                    out.put_u8(layer.no.0);
                    put_text8(out, layer.rid.as_ref().map_or("", |rid| &rid.0), frame, "RID")
                })?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn counted(len: usize, max: usize, frame: &'static str, what: &'static str) -> Result<u8, TooLong> {
    u8::try_from(len).ok().filter(|_| len <= max).ok_or(TooLong { frame, what })
}
