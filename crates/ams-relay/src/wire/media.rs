//! The frames that carry a stream: Media, Timing, Gap, DataMessage.
//!
//! Owns their layout. A media frame is written as a head only, so that the payload goes from its shared buffer to the
//! socket without being copied: [`media_head_into`].

use std::time::{Duration, Instant};

use ams_media::{AbsCaptureTime, MediaPacket, PacketExtensions, Sublayer};
use ams_types::{ExtSeq, LayerNo, NodeId, TrackNo};
use bytes::{BufMut, Bytes, BytesMut};

use super::fields::{Fields, put_text8};
use super::{DATA_LEN_MAX, EpochLow, FRAME_LEN_MAX, FrameKind, StreamHandle, WireError, finish_frame};

const FLAG_MARKER: u8 = 1;
const FLAG_KEYFRAME: u8 = 2;
const FLAG_BINARY: u8 = 1;

const EXT_AUDIO_LEVEL: u8 = 1;
const EXT_VIDEO_ORIENTATION: u8 = 2;
const EXT_ABS_CAPTURE_TIME: u8 = 3;
const EXT_PLAYOUT_DELAY: u8 = 4;
const EXT_DEPENDENCY_DESCRIPTOR: u8 = 5;
const EXT_SUBLAYER: u8 = 6;

/// Bytes of a media frame in front of its extensions, length field and type byte included.
pub const MEDIA_HEAD_LEN: usize = 34;
/// Most bytes the extensions this version writes can take.
pub const MEDIA_EXTENSIONS_LEN_MAX: usize = 3 + 3 + 18 + 5 + 257 + 4;
// A full-size payload fits with everything in front of it, and so does a data message.
const _: () = assert!(FRAME_LEN_MAX as usize >= MEDIA_HEAD_LEN + MEDIA_EXTENSIONS_LEN_MAX + 64 * 1024);
const _: () = assert!(FRAME_LEN_MAX as usize >= 1 + 4 + 1 + 256 + 8 + 4 + DATA_LEN_MAX);

/// One RTP packet of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFrame<'a> {
    /// The subscription.
    pub handle: StreamHandle,
    /// Which publication; of any other than the current one, drop it.
    pub epoch: EpochLow,
    /// Which track of the stream.
    pub track: TrackNo,
    /// Which layer of the track.
    pub layer: LayerNo,
    /// RTP marker bit.
    pub marker: bool,
    /// Starts a keyframe.
    pub keyframe: bool,
    /// The source's sequence number, extended.
    pub seq: ExtSeq,
    /// RTP timestamp.
    pub timestamp: u32,
    /// How old the packet is: how long it was in the sending node and those before it, in histories above all; in whole
    /// microseconds on the wire.
    pub age: Duration,
    /// Header extensions that travel with the media.
    pub extensions: MediaExtensions<'a>,
    /// RTP payload.
    pub payload: &'a [u8],
}

/// [`PacketExtensions`] as they lie in a frame, and what else only some packets have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaExtensions<'a> {
    /// Voice flag and level (RFC 6464).
    pub audio_level: Option<u8>,
    /// Rotation and flip bits.
    pub video_orientation: Option<u8>,
    /// `abs-capture-time`.
    pub abs_capture_time: Option<AbsCaptureTime>,
    /// `playout-delay`.
    pub playout_delay: Option<[u8; 3]>,
    /// AV1 dependency descriptor; left out when writing if over 255 bytes, which RFC 8285 does not allow.
    pub dependency_descriptor: Option<&'a [u8]>,
    /// Place among temporal and spatial layers.
    pub sublayer: Option<Sublayer>,
}

impl<'a> MediaExtensions<'a> {
    /// Those of a packet.
    pub fn of(packet: &'a MediaPacket) -> Self {
        let extensions = &packet.extensions;
        Self {
            audio_level: extensions.audio_level,
            video_orientation: extensions.video_orientation,
            abs_capture_time: extensions.abs_capture_time,
            playout_delay: extensions.playout_delay,
            dependency_descriptor: extensions.dependency_descriptor.as_deref(),
            sublayer: packet.sublayer,
        }
    }

    /// The header extensions, owned.
    pub fn to_packet(self) -> PacketExtensions {
        PacketExtensions {
            audio_level: self.audio_level,
            video_orientation: self.video_orientation,
            abs_capture_time: self.abs_capture_time,
            playout_delay: self.playout_delay,
            dependency_descriptor: self.dependency_descriptor.map(Bytes::copy_from_slice),
        }
    }

    fn read(f: &mut Fields<'a>) -> Result<Self, WireError> {
        let mut all = Self::default();
        while !f.is_empty() {
            let id = f.u8("extension")?;
            let len = f.u8("extension length")?;
            let mut value = f.element(len.into(), "extension")?;
            match id {
                EXT_AUDIO_LEVEL => all.audio_level = Some(value.u8("audio level")?),
                EXT_VIDEO_ORIENTATION => all.video_orientation = Some(value.u8("video orientation")?),
                EXT_ABS_CAPTURE_TIME => {
                    let timestamp = value.u64("capture time")?;
                    let clock_offset = match value.is_empty() {
                        true => None,
                        false => Some(i64::from_be_bytes(*value.array("capture clock offset")?)),
                    };
                    all.abs_capture_time = Some(AbsCaptureTime { timestamp, clock_offset });
                }
                EXT_PLAYOUT_DELAY => all.playout_delay = Some(*value.array("playout delay")?),
                EXT_DEPENDENCY_DESCRIPTOR => all.dependency_descriptor = Some(value.take_rest()),
                EXT_SUBLAYER => all.sublayer = Some(Sublayer::from_bits(u16::from_be_bytes(*value.array("sublayer")?))),
                _ => {}
            }
        }
        Ok(all)
    }

    fn write(&self, out: &mut BytesMut) {
        if let Some(level) = self.audio_level {
            out.put_slice(&[EXT_AUDIO_LEVEL, 1, level]);
        }
        if let Some(orientation) = self.video_orientation {
            out.put_slice(&[EXT_VIDEO_ORIENTATION, 1, orientation]);
        }
        if let Some(time) = self.abs_capture_time {
            out.put_slice(&[EXT_ABS_CAPTURE_TIME, if time.clock_offset.is_some() { 16 } else { 8 }]);
            out.put_u64(time.timestamp);
            if let Some(offset) = time.clock_offset {
                out.put_i64(offset);
            }
        }
        if let Some(delay) = self.playout_delay {
            out.put_slice(&[EXT_PLAYOUT_DELAY, 3]);
            out.put_slice(&delay);
        }
        if let Some(descriptor) = self.dependency_descriptor
            && let Ok(len) = u8::try_from(descriptor.len())
        {
            out.put_slice(&[EXT_DEPENDENCY_DESCRIPTOR, len]);
            out.put_slice(descriptor);
        }
        if let Some(sublayer) = self.sublayer {
            out.put_slice(&[EXT_SUBLAYER, 2]);
            out.put_u16(sublayer.to_bits());
        }
    }
}

impl<'a> MediaFrame<'a> {
    pub(super) fn read(f: &mut Fields<'a>) -> Result<Self, WireError> {
        let handle = f.handle()?;
        let epoch = EpochLow(f.u32("epoch")?);
        let track = f.track()?;
        let layer = f.layer()?;
        let flags = f.u8("flags")?;
        let seq = f.seq()?;
        let timestamp = f.u32("timestamp")?;
        let age = Duration::from_micros(f.u32("age")?.into());
        let extensions_len = f.u16("extensions length")?;
        let extensions = MediaExtensions::read(&mut f.element(extensions_len.into(), "extensions")?)?;
        Ok(Self {
            handle,
            epoch,
            track,
            layer,
            marker: flags & FLAG_MARKER != 0,
            keyframe: flags & FLAG_KEYFRAME != 0,
            seq,
            timestamp,
            age,
            extensions,
            payload: f.take_rest(),
        })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        self.write_head(out)?;
        out.put_slice(self.payload);
        Ok(())
    }

    fn write_head(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u32(self.handle.0);
        out.put_u32(self.epoch.0);
        out.put_u8(self.track.0);
        out.put_u8(self.layer.0);
        out.put_u8(if self.marker { FLAG_MARKER } else { 0 } | if self.keyframe { FLAG_KEYFRAME } else { 0 });
        out.put_u64(self.seq.0);
        out.put_u32(self.timestamp);
        out.put_u32(micros(self.age));
        let at = out.len();
        out.put_u16(0);
        self.extensions.write(out);
        // At most `MEDIA_EXTENSIONS_LEN_MAX`.
        let len = (out.len() - at - 2) as u16;
        if let Some(field) = out.get_mut(at..at + 2) {
            field.copy_from_slice(&len.to_be_bytes());
        }
        Ok(())
    }

    /// The packet as this node's media core takes it. Copies the payload once, out of the link's buffer.
    ///
    /// `ingest_at` is when it was read from the link.
    pub fn to_packet(&self, ingest_at: Instant) -> MediaPacket {
        MediaPacket {
            track: self.track,
            layer: self.layer,
            seq: self.seq,
            timestamp: self.timestamp,
            marker: self.marker,
            keyframe: self.keyframe,
            sublayer: self.extensions.sublayer,
            extensions: self.extensions.to_packet(),
            payload: Bytes::copy_from_slice(self.payload),
            ingest_at,
            age: self.age,
        }
    }
}

/// Appends everything of a media frame but its payload, which must be written right behind. On error `out` is as it
/// was.
///
/// `age` is how old the packet is by now.
///
/// # Errors
/// The payload is too large for a frame.
pub fn media_head_into(
    out: &mut BytesMut,
    handle: StreamHandle,
    epoch: EpochLow,
    packet: &MediaPacket,
    age: Duration,
) -> Result<(), WireError> {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(FrameKind::Media as u8);
    let frame = MediaFrame {
        handle,
        epoch,
        track: packet.track,
        layer: packet.layer,
        marker: packet.marker,
        keyframe: packet.keyframe,
        seq: packet.seq,
        timestamp: packet.timestamp,
        age,
        extensions: MediaExtensions::of(packet),
        payload: &[],
    };
    let result = frame.write_head(out).and_then(|()| finish_frame(out, start, packet.payload.len()));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// The last sender report of a layer (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The subscription.
    pub handle: StreamHandle,
    /// Which publication.
    pub epoch: EpochLow,
    /// The track.
    pub track: TrackNo,
    /// Its layer.
    pub layer: LayerNo,
    /// The publisher's wall clock, 32.32 fixed-point NTP time.
    pub ntp: u64,
    /// The RTP timestamp of that moment.
    pub rtp: u32,
    /// How long ago the report came to the origin; in whole microseconds on the wire.
    pub age: Duration,
}

impl Timing {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            handle: f.handle()?,
            epoch: EpochLow(f.u32("epoch")?),
            track: f.track()?,
            layer: f.layer()?,
            ntp: f.u64("NTP time")?,
            rtp: f.u32("RTP time")?,
            age: Duration::from_micros(f.u32("age")?.into()),
        })
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u32(self.handle.0);
        out.put_u32(self.epoch.0);
        out.put_u8(self.track.0);
        out.put_u8(self.layer.0);
        out.put_u64(self.ntp);
        out.put_u32(self.rtp);
        out.put_u32(micros(self.age));
    }

    /// The report as this node's media core takes it; `now` is when it was read from the link.
    pub fn to_source_clock(&self, now: Instant) -> ams_media::SourceClock {
        ams_media::SourceClock { ntp: self.ntp, rtp: self.rtp, learned_at: now.checked_sub(self.age).unwrap_or(now) }
    }
}

/// Packets of a layer that will not come any more; some of the range may have come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The subscription.
    pub handle: StreamHandle,
    /// Which publication.
    pub epoch: EpochLow,
    /// The track.
    pub track: TrackNo,
    /// Its layer.
    pub layer: LayerNo,
    /// First number of the range.
    pub from: ExtSeq,
    /// Last number of the range.
    pub to: ExtSeq,
}

impl Gap {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        let gap = Self {
            handle: f.handle()?,
            epoch: EpochLow(f.u32("epoch")?),
            track: f.track()?,
            layer: f.layer()?,
            from: f.seq()?,
            to: f.seq()?,
        };
        if gap.from > gap.to {
            return Err(f.malformed("range inverted"));
        }
        Ok(gap)
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u32(self.handle.0);
        out.put_u32(self.epoch.0);
        out.put_u8(self.track.0);
        out.put_u8(self.layer.0);
        out.put_u64(self.from.0);
        out.put_u64(self.to.0);
    }
}

/// A data channel message, with who sent it so that nobody gets an own message back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataMessage<'a> {
    /// The subscription.
    pub handle: StreamHandle,
    /// Binary, or text.
    pub binary: bool,
    /// The node the sender is connected to.
    pub from_node: NodeId,
    /// The sender among that node's peers; 0 for the publisher.
    pub from_peer: u64,
    /// The message, at most [`DATA_LEN_MAX`] bytes.
    pub payload: &'a [u8],
}

impl<'a> DataMessage<'a> {
    pub(super) fn read(f: &mut Fields<'a>) -> Result<Self, WireError> {
        let handle = f.handle()?;
        let flags = f.u8("flags")?;
        let from_node = f.name("sender's node id")?;
        let from_peer = f.u64("sender")?;
        let len = f.u32("message length")? as usize;
        if len > DATA_LEN_MAX {
            return Err(f.malformed("message over 64 KiB"));
        }
        let payload = f.take(len, "message")?;
        Ok(Self { handle, binary: flags & FLAG_BINARY != 0, from_node, from_peer, payload })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        if self.payload.len() > DATA_LEN_MAX {
            return Err(WireError::Malformed { frame: "DataMessage", what: "message over 64 KiB" });
        }
        out.put_u32(self.handle.0);
        out.put_u8(if self.binary { FLAG_BINARY } else { 0 });
        put_text8(out, self.from_node.as_str(), "DataMessage", "sender's node id")?;
        out.put_u64(self.from_peer);
        out.put_u32(self.payload.len() as u32);
        out.put_slice(self.payload);
        Ok(())
    }
}

/// Whole microseconds, or as many as the field holds (71 minutes).
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
