//! RTP header extensions this node knows: their URIs, their negotiated ids, their values.
//!
//! Owns the table of kinds and how each value is laid out. The block that holds them is [`crate::rtp`]'s; which of them
//! to offer is [`crate::sdp`]'s. Unknown extensions are never negotiated, so they never have to be carried.

use ams_media::{AbsCaptureTime, PacketExtensions};
use ams_types::MediaKind;
use bytes::Bytes;

use crate::rtp::RtpHeader;

/// A header extension this node understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ext {
    /// How loud an audio packet is (RFC 6464).
    AudioLevel,
    /// When the sender sent the packet, 24 bits of 6.18 fixed-point seconds.
    AbsSendTime,
    /// Number of the packet among all of the transport (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc,
    /// Which m-line the packet belongs to (RFC 8843 §15).
    Mid,
    /// Rotation and mirroring of the picture (3GPP TS 26.114 §7.4.5).
    VideoOrientation,
    /// When the capturer took the picture or sound.
    AbsCaptureTime,
    /// Least and most delay the sender wishes for playout.
    PlayoutDelay,
    /// Structure of a scalable AV1 stream.
    DependencyDescriptor,
    /// Which simulcast layer the packet belongs to (RFC 8852).
    Rid,
    /// Which simulcast layer an RTX packet repeats (RFC 8852).
    RepairedRid,
}

impl Ext {
    /// Every known extension; the place of each is its id in offers of this node, counted from 1.
    pub const ALL: [Self; 10] = [
        Self::AudioLevel,
        Self::AbsSendTime,
        Self::TransportCc,
        Self::Mid,
        Self::VideoOrientation,
        Self::AbsCaptureTime,
        Self::PlayoutDelay,
        Self::DependencyDescriptor,
        Self::Rid,
        Self::RepairedRid,
    ];

    /// The URI an `a=extmap` names it by.
    pub fn uri(self) -> &'static str {
        match self {
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
        }
    }

    /// The extension a URI names.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ext| ext.uri() == uri)
    }

    /// Whether it has a meaning on an m-line of this kind.
    pub fn applies_to(self, kind: MediaKind) -> bool {
        match self {
            Self::AbsSendTime | Self::TransportCc | Self::Mid | Self::AbsCaptureTime => true,
            Self::AudioLevel => kind == MediaKind::Audio,
            Self::VideoOrientation
            | Self::PlayoutDelay
            | Self::DependencyDescriptor
            | Self::Rid
            | Self::RepairedRid => kind == MediaKind::Video,
        }
    }

    /// The id this node gives it in its own offers, 1 to 14.
    pub fn own_id(self) -> u8 {
        self.index() as u8 + 1
    }

    fn index(self) -> usize {
        match self {
            Self::AudioLevel => 0,
            Self::AbsSendTime => 1,
            Self::TransportCc => 2,
            Self::Mid => 3,
            Self::VideoOrientation => 4,
            Self::AbsCaptureTime => 5,
            Self::PlayoutDelay => 6,
            Self::DependencyDescriptor => 7,
            Self::Rid => 8,
            Self::RepairedRid => 9,
        }
    }
}

/// Negotiated header extensions: which id stands for which extension, both ways. One id per extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtMap {
    /// By [`Ext::index`]; 0 where the extension was not negotiated.
    ids: [u8; Ext::ALL.len()],
    /// One-byte and two-byte blocks may follow each other in one RTP stream (`a=extmap-allow-mixed`, RFC 8285 §6).
    pub allow_mixed: bool,
}

impl ExtMap {
    /// An empty map; `allow_mixed` as the field of that name.
    pub fn new(allow_mixed: bool) -> Self {
        Self { allow_mixed, ..Self::default() }
    }

    /// Gives `ext` the id `id` (1 to 14, 16 to 255).
    ///
    /// Refuses, and returns false, when the id is out of range or already stands for another extension, and when `ext`
    /// has an id.
    pub fn insert(&mut self, ext: Ext, id: u8) -> bool {
        if id == 0 || id == 15 || self.ids.contains(&id) {
            return false;
        }
        match self.ids.get_mut(ext.index()) {
            Some(place @ 0) => {
                *place = id;
                true
            }
            _ => false,
        }
    }

    /// Forgets `ext`.
    pub fn remove(&mut self, ext: Ext) {
        if let Some(place) = self.ids.get_mut(ext.index()) {
            *place = 0;
        }
    }

    /// The id `ext` goes by, if it was negotiated.
    pub fn id(&self, ext: Ext) -> Option<u8> {
        self.ids.get(ext.index()).copied().filter(|id| *id != 0)
    }

    /// The extension `id` stands for.
    pub fn ext(&self, id: u8) -> Option<Ext> {
        if id == 0 {
            return None;
        }
        let at = self.ids.iter().position(|known| *known == id)?;
        Ext::ALL.get(at).copied()
    }

    /// The negotiated extensions with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (Ext, u8)> + '_ {
        Ext::ALL.into_iter().filter_map(|ext| Some((ext, self.id(ext)?)))
    }
}

/// The values of one packet's known header extensions. Reading takes what is well-formed and leaves the rest out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtValues<'a> {
    /// Name of the m-line, as it stands in the packet: bytes of a stranger, not yet text.
    pub mid: Option<&'a [u8]>,
    /// Name of the simulcast layer, likewise.
    pub rid: Option<&'a [u8]>,
    /// Name of the layer an RTX packet repeats, likewise.
    pub repaired_rid: Option<&'a [u8]>,
    /// Number of the packet on this transport.
    pub transport_seq: Option<u16>,
    /// Send time in 2^-18 s, 24 bits, wraps every 64 s.
    pub abs_send_time: Option<u32>,
    /// Voice flag in the top bit, level in -dBov below.
    pub audio_level: Option<u8>,
    /// Camera, flip and rotation bits.
    pub video_orientation: Option<u8>,
    /// When it was captured.
    pub abs_capture_time: Option<AbsCaptureTime>,
    /// 12 bits of minimum, 12 of maximum, in 10 ms.
    pub playout_delay: Option<[u8; 3]>,
    /// AV1 dependency descriptor, at most 255 bytes.
    pub dependency_descriptor: Option<&'a [u8]>,
}

impl<'a> ExtValues<'a> {
    /// Reads what `map` knows of a packet's extensions. An element of the wrong length counts as absent.
    pub fn read(header: &RtpHeader<'a>, map: &ExtMap) -> Self {
        let mut values = Self::default();
        for (id, data) in header.exts() {
            match map.ext(id) {
                Some(Ext::Mid) => values.mid = Some(data),
                Some(Ext::Rid) => values.rid = Some(data),
                Some(Ext::RepairedRid) => values.repaired_rid = Some(data),
                Some(Ext::TransportCc) => values.transport_seq = data.first_chunk().map(|b| u16::from_be_bytes(*b)),
                Some(Ext::AbsSendTime) => {
                    values.abs_send_time = data.first_chunk().map(|[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]));
                }
                Some(Ext::AudioLevel) => values.audio_level = data.first().copied(),
                Some(Ext::VideoOrientation) => values.video_orientation = data.first().copied(),
                Some(Ext::AbsCaptureTime) => values.abs_capture_time = read_capture_time(data),
                Some(Ext::PlayoutDelay) => values.playout_delay = data.first_chunk().copied(),
                Some(Ext::DependencyDescriptor) => values.dependency_descriptor = Some(data),
                None => {}
            }
        }
        values
    }

    /// The values that describe the media itself. Copies the dependency descriptor, if there is one.
    pub fn to_media(&self) -> PacketExtensions {
        PacketExtensions {
            audio_level: self.audio_level,
            video_orientation: self.video_orientation,
            abs_capture_time: self.abs_capture_time,
            playout_delay: self.playout_delay,
            dependency_descriptor: self.dependency_descriptor.map(Bytes::copy_from_slice),
        }
    }

    /// The values a forwarded packet carries on; those of the hop are for the caller to add.
    pub fn from_media(media: &'a PacketExtensions) -> Self {
        Self {
            audio_level: media.audio_level,
            video_orientation: media.video_orientation,
            abs_capture_time: media.abs_capture_time,
            playout_delay: media.playout_delay,
            dependency_descriptor: media.dependency_descriptor.as_deref(),
            ..Self::default()
        }
    }

    /// Calls `put` with id and bytes of each value that is present and has an id in `map`.
    ///
    /// MID, RID and descriptor over 255 bytes are left out: no form of the block can hold them.
    pub(crate) fn visit(&self, map: &ExtMap, mut put: impl FnMut(u8, &[u8])) {
        let mut element = |ext, data: &[u8]| {
            if let Some(id) = map.id(ext)
                && data.len() <= 255
            {
                put(id, data);
            }
        };
        if let Some(mid) = self.mid {
            element(Ext::Mid, mid);
        }
        if let Some(rid) = self.rid {
            element(Ext::Rid, rid);
        }
        if let Some(rid) = self.repaired_rid {
            element(Ext::RepairedRid, rid);
        }
        if let Some(seq) = self.transport_seq {
            element(Ext::TransportCc, &seq.to_be_bytes());
        }
        if let Some(time) = self.abs_send_time {
            let [_, a, b, c] = time.to_be_bytes();
            element(Ext::AbsSendTime, &[a, b, c]);
        }
        if let Some(level) = self.audio_level {
            element(Ext::AudioLevel, &[level]);
        }
        if let Some(orientation) = self.video_orientation {
            element(Ext::VideoOrientation, &[orientation]);
        }
        if let Some(time) = self.abs_capture_time {
            let mut data = [0; 16];
            data[..8].copy_from_slice(&time.timestamp.to_be_bytes());
            match time.clock_offset {
                Some(offset) => {
                    data[8..].copy_from_slice(&offset.to_be_bytes());
                    element(Ext::AbsCaptureTime, &data);
                }
                None => element(Ext::AbsCaptureTime, &data[..8]),
            }
        }
        if let Some(delay) = self.playout_delay {
            element(Ext::PlayoutDelay, &delay);
        }
        if let Some(descriptor) = self.dependency_descriptor {
            element(Ext::DependencyDescriptor, descriptor);
        }
    }
}

fn read_capture_time(data: &[u8]) -> Option<AbsCaptureTime> {
    let (timestamp, rest) = data.split_first_chunk()?;
    Some(AbsCaptureTime {
        timestamp: u64::from_be_bytes(*timestamp),
        clock_offset: rest.first_chunk().map(|b| i64::from_be_bytes(*b)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_places_go_both_ways() {
        for (at, ext) in Ext::ALL.into_iter().enumerate() {
            assert_eq!(Ext::from_uri(ext.uri()), Some(ext));
            assert_eq!(ext.index(), at);
            assert!((1..=14).contains(&ext.own_id()), "own offers stay in the one-byte form");
        }
        assert_eq!(Ext::from_uri("urn:ietf:params:rtp-hdrext:toffset"), None);
    }

    #[test]
    fn an_id_stands_for_one_extension() {
        let mut map = ExtMap::default();
        for (name, ext, id, taken) in [
            ("first", Ext::Mid, 4, true),
            ("id is taken", Ext::Rid, 4, false),
            ("extension has an id", Ext::Mid, 5, false),
            ("zero is padding", Ext::Rid, 0, false),
            ("fifteen is reserved", Ext::Rid, 15, false),
            ("two-byte id", Ext::Rid, 255, true),
        ] {
            assert_eq!(map.insert(ext, id), taken, "{name}");
        }
        assert_eq!(map.iter().collect::<Vec<_>>(), [(Ext::Mid, 4), (Ext::Rid, 255)]);
        assert_eq!((map.ext(4), map.ext(0), map.ext(9)), (Some(Ext::Mid), None, None));
        map.remove(Ext::Mid);
        assert_eq!((map.id(Ext::Mid), map.ext(4)), (None, None));
    }
}
