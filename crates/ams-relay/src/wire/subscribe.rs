//! The frames that say which streams go over a link: Subscribe, Subscribed, Refused, and the words of End and
//! StreamState.
//!
//! Owns their layout. Which subscriptions exist is kept in [`crate::session`].

use ams_media::StreamTracks;
use ams_media::track::{LAYERS_MAX, TRACKS_MAX};
use ams_types::{Epoch, ExtSeq, LayerNo, StreamKey, TrackNo};
use bytes::{BufMut, BytesMut};

use super::fields::{Fields, cut_text, put_text8, put_text16};
use super::hello::codes;
use super::tracks::{read_tracks, write_tracks};
use super::{SENTENCE_LEN_MAX, StreamHandle, WireError};

/// Most positions a [`Resume`] may carry: one per layer a stream can have.
pub const POSITIONS_MAX: usize = TRACKS_MAX * LAYERS_MAX;

/// Edge → origin: send me this stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// How all further frames name it on this link.
    pub handle: StreamHandle,
    /// The stream.
    pub key: StreamKey,
    /// Nodes the stream will have passed when it reaches the sender: 1 for an edge pulling from an origin.
    pub hops: u8,
    /// What the edge had of it when the last link broke.
    pub resume: Option<Resume>,
}

/// How far an edge got with a stream before its link broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The publication it had. Of another one nothing can be resumed.
    pub epoch: Epoch,
    /// Per layer the highest sequence number it has.
    pub positions: Vec<Position>,
}

/// How far an edge got with one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The track.
    pub track: TrackNo,
    /// Its layer.
    pub layer: LayerNo,
    /// The highest sequence number received.
    pub seq: ExtSeq,
}

impl Subscribe {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        let handle = f.handle()?;
        let key = StreamKey::new(f.name("application name")?, f.name("stream id")?);
        let hops = f.u8("hops")?;
        let resume = match f.u8("resume")? {
            0 => None,
            1 => {
                let epoch = Epoch(f.u64("epoch")?);
                let count = usize::from(f.u8("positions")?);
                if count > POSITIONS_MAX {
                    return Err(f.malformed("more positions than a stream has layers"));
                }
                let mut positions = Vec::with_capacity(count);
                for _ in 0..count {
                    positions.push(Position { track: f.track()?, layer: f.layer()?, seq: f.seq()? });
                }
                Some(Resume { epoch, positions })
            }
            _ => return Err(f.malformed("resume")),
        };
        Ok(Self { handle, key, hops, resume })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        const FRAME: &str = "Subscribe";
        out.put_u32(self.handle.0);
        put_text8(out, self.key.app.as_str(), FRAME, "application name")?;
        put_text8(out, self.key.id.as_str(), FRAME, "stream id")?;
        out.put_u8(self.hops);
        let Some(resume) = &self.resume else {
            out.put_u8(0);
            return Ok(());
        };
        out.put_u8(1);
        out.put_u64(resume.epoch.0);
        let count = u8::try_from(resume.positions.len()).ok().filter(|count| usize::from(*count) <= POSITIONS_MAX);
        out.put_u8(
            count.ok_or(WireError::Malformed { frame: FRAME, what: "more positions than a stream has layers" })?,
        );
        for Position { track, layer, seq } in &resume.positions {
            out.put_u8(track.0);
            out.put_u8(layer.0);
            out.put_u64(seq.0);
        }
        Ok(())
    }
}

/// Origin → edge: what the stream consists of. The body of both Subscribed and TracksChanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The subscription.
    pub handle: StreamHandle,
    /// Which publication of the stream.
    pub epoch: Epoch,
    /// Its tracks.
    pub tracks: StreamTracks,
}

impl Subscribed {
    pub(super) fn read(f: &mut Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { handle: f.handle()?, epoch: Epoch(f.u64("epoch")?), tracks: read_tracks(f)? })
    }

    pub(super) fn write(&self, frame: &'static str, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u32(self.handle.0);
        out.put_u64(self.epoch.0);
        write_tracks(&self.tracks, frame, out)?;
        Ok(())
    }
}

codes! {
    /// Why a stream is not sent.
    RefuseCode {
        /// The stream is not published on this node.
        NotFound = 1, "no such stream here";
        /// It has passed too many nodes already.
        TooManyHops = 2, "too many hops";
        /// The link carries as many streams as it may.
        LinkFull = 3, "link full";
        /// The handle names another subscription of this link.
        HandleInUse = 4, "handle in use";
        /// The link carries this stream already.
        AlreadySubscribed = 5, "subscribed already";
        /// The node is shutting down.
        Draining = 6, "draining";
        /// The node has no capacity left.
        Overloaded = 7, "overloaded";
        /// The peer may not have this stream.
        Forbidden = 8, "not allowed";
    }
}

/// Origin → edge: you do not get the stream; the handle is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The subscription that was asked for.
    pub handle: StreamHandle,
    /// For programs.
    pub code: RefuseCode,
    /// For people. From outside: clean it before it is shown (see [`super::hello::clean_sentence`]).
    pub sentence: &'a str,
}

impl<'a> Refused<'a> {
    pub(super) fn read(f: &mut Fields<'a>) -> Result<Self, WireError> {
        Ok(Self {
            handle: f.handle()?,
            code: RefuseCode::from_code(f.u16("code")?),
            sentence: f.text16(SENTENCE_LEN_MAX, "sentence")?,
        })
    }

    pub(super) fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        out.put_u32(self.handle.0);
        out.put_u16(self.code.code());
        put_text16(out, cut_text(self.sentence, SENTENCE_LEN_MAX), SENTENCE_LEN_MAX, "Refused", "sentence")?;
        Ok(())
    }
}

codes! {
    /// Why a stream is over on this link.
    EndReason {
        /// The publisher stopped.
        Finished = 1, "the publisher stopped";
        /// The publisher was lost and did not come back in time.
        PublisherLost = 2, "the publisher was lost";
        /// Another publication of the same id won.
        Superseded = 3, "another publisher took over";
        /// Someone ended it through the API.
        ByRequest = 4, "ended by request";
        /// The node leaves; look the stream up again.
        Draining = 5, "the node leaves";
        /// The stream lives on another node now; look it up again.
        Moved = 6, "moved to another node";
    }
}

/// What a stream's publisher does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamState {
    /// Gone for now; the origin keeps the stream for a while.
    Interrupted,
    /// Back; media goes on at a keyframe.
    Resumed,
    /// A state of a later version. To be ignored.
    Other(u8),
}

impl StreamState {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Interrupted => 1,
            Self::Resumed => 2,
            Self::Other(byte) => byte,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Interrupted,
            2 => Self::Resumed,
            other => Self::Other(other),
        }
    }
}
