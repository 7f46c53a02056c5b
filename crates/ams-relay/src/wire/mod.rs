//! The relay codec: bytes to frames and back. The table it implements stands in `WIRE.md`.
//!
//! Owns framing, the table of frame types and their limits; no socket, no clock, no memory of earlier frames. Parsing
//! borrows from the caller's buffer, tells "not enough yet" from "wrong", and never allocates more than the frame's
//! own size.
//!
//! - [`fields`]: reading and writing of single fields
//! - [`hello`]: the frames of the handshake
//! - [`subscribe`]: which streams go over the link
//! - [`find`]: who publishes a stream
//! - [`tracks`]: what a stream consists of
//! - [`media`]: packets and what belongs to them

pub mod fields;
pub mod find;
pub mod hello;
pub mod media;
pub mod subscribe;
pub mod tracks;

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

pub use find::{Find, Found};
pub use hello::{Auth, AuthMethod, Features, Hello, MAGIC, NONCE_LEN, Reject, RejectCode, Role};
pub use media::{DataMessage, Gap, MediaExtensions, MediaFrame, Timing};
pub use subscribe::{EndReason, Position, RefuseCode, Refused, Resume, StreamState, Subscribe, Subscribed};

use ams_types::{LayerNo, TrackNo};
use fields::{Fields, TooLong};

/// The time left in a [`Frame::GoAway`] that takes an earlier one back: the longest there is.
pub const GO_AWAY_WITHDRAWN: Duration = Duration::from_millis(u32::MAX as u64);
/// The newest protocol version this node speaks.
pub const VERSION: u16 = 1;
/// The oldest protocol version this node accepts.
pub const VERSION_MIN: u16 = 1;
/// Bytes of the length field in front of each frame.
pub const LENGTH_LEN: usize = 4;
/// Most bytes after the length field: 64 KiB of payload and 2 KiB for the fields around it.
pub const FRAME_LEN_MAX: u32 = 66 * 1024;
/// The same before the handshake is over: what a stranger may make this node keep.
pub const HANDSHAKE_FRAME_LEN_MAX: u32 = 1024;
/// Most bytes of a data channel message.
pub const DATA_LEN_MAX: usize = 64 * 1024;
/// Most bytes of a sentence in a refusal; a longer one is cut.
pub const SENTENCE_LEN_MAX: usize = 512;

/// One subscription on one link, chosen by the edge. Means nothing on another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamHandle(pub u32);

impl fmt::Display for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The low 32 bits of an epoch, as frames of a known stream carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochLow(pub u32);

impl From<ams_types::Epoch> for EpochLow {
    fn from(epoch: ams_types::Epoch) -> Self {
        Self((epoch.0 & 0xffff_ffff) as u32)
    }
}

/// What a frame can get wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length field is over the limit.
    #[error("frame of {len} bytes is over the {max} byte limit")]
    FrameTooLarge {
        /// Bytes after the length field.
        len: u64,
        /// The limit for them.
        max: u32,
    },
    /// The length field is 0: not even a type.
    #[error("frame of 0 bytes has no type")]
    Empty,
    /// The frame's fields do not fit its length or their own limits.
    #[error("{frame} frame is malformed: {what}")]
    Malformed {
        /// The frame's name.
        frame: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl From<TooLong> for WireError {
    fn from(TooLong { frame, what }: TooLong) -> Self {
        Self::Malformed { frame, what }
    }
}

macro_rules! kinds {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// The type byte of a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FrameKind {
            $(#[doc = concat!("`", stringify!($number), "`, see `WIRE.md`.")] $name = $number,)*
        }

        impl FrameKind {
            /// Every type this version knows.
            pub const ALL: &'static [FrameKind] = &[$(Self::$name,)*];

            /// The type with that number; none if this version does not know it.
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its name as `WIRE.md` writes it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    Hello = 0x01, "Hello";
    Auth = 0x02, "Auth";
    Reject = 0x03, "Reject";
    Subscribe = 0x10, "Subscribe";
    Subscribed = 0x11, "Subscribed";
    Refused = 0x12, "Refused";
    Unsubscribe = 0x13, "Unsubscribe";
    TracksChanged = 0x14, "TracksChanged";
    StreamState = 0x15, "StreamState";
    End = 0x16, "End";
    Find = 0x17, "Find";
    Found = 0x18, "Found";
    Audience = 0x19, "Audience";
    Media = 0x20, "Media";
    Timing = 0x21, "Timing";
    Gap = 0x22, "Gap";
    KeyframeRequest = 0x23, "KeyframeRequest";
    DataMessage = 0x24, "DataMessage";
    Ping = 0x30, "Ping";
    Pong = 0x31, "Pong";
    GoAway = 0x32, "GoAway";
}

/// One frame. Large fields borrow from the buffer it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Who is at this end; the first frame of each side.
    Hello(Hello),
    /// Proof of the cluster key.
    Auth(Auth),
    /// The link is refused; the sender closes after it.
    Reject(Reject<'a>),
    /// Edge → origin: send me this stream.
    Subscribe(Subscribe),
    /// Origin → edge: here it is, this is what it consists of.
    Subscribed(Subscribed),
    /// Origin → edge: you do not get it.
    Refused(Refused<'a>),
    /// Edge → origin: stop sending it.
    Unsubscribe {
        /// The subscription that ends.
        handle: StreamHandle,
    },
    /// Origin → edge: the stream's tracks, or its epoch, are other ones from here on.
    TracksChanged(Subscribed),
    /// Origin → edge: the publisher went missing, or is back.
    StreamState {
        /// The subscription.
        handle: StreamHandle,
        /// What the publisher does.
        state: StreamState,
    },
    /// Origin → edge: the stream is over; the handle is free.
    End {
        /// The subscription that ends.
        handle: StreamHandle,
        /// Why.
        reason: EndReason,
    },
    /// Either way: do you publish this stream?
    Find(Find),
    /// Either way: the answer to a Find.
    Found(Found),
    /// Edge → origin: how many watch a stream at the sender, and at those that pull it from there.
    Audience {
        /// The subscription.
        handle: StreamHandle,
        /// Viewers.
        viewers: u32,
    },
    /// Origin → edge: one RTP packet.
    Media(MediaFrame<'a>),
    /// Origin → edge: the last sender report of a layer.
    Timing(Timing),
    /// Origin → edge: packets that will not come.
    Gap(Gap),
    /// Edge → origin: viewers of this layer need a keyframe.
    KeyframeRequest {
        /// The subscription.
        handle: StreamHandle,
        /// Track that needs it.
        track: TrackNo,
        /// Layer that needs it.
        layer: LayerNo,
    },
    /// Either way: a data channel message.
    DataMessage(DataMessage<'a>),
    /// Either way: are you there?
    Ping {
        /// Comes back in the pong.
        nonce: u64,
    },
    /// Either way: I am.
    Pong {
        /// The ping's nonce.
        nonce: u64,
    },
    /// Either way: this node leaves; open nothing new, and be gone by then. [`GO_AWAY_WITHDRAWN`]: it stays after all.
    GoAway {
        /// Time left, counted from arrival; in whole milliseconds on the wire.
        deadline: Duration,
    },
    /// A type this version does not know. To be skipped.
    Unknown {
        /// The type byte.
        kind: u8,
        /// All after it.
        body: &'a [u8],
    },
}

/// What [`Frame::parse`] found at the start of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole frame.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Bytes it took, length field included.
        used: usize,
    },
    /// The frame is not complete yet.
    NeedMore {
        /// Bytes that must be there before parsing again is worth it.
        len: usize,
    },
}

/// The frame at the start of a buffer, cut out but not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A whole frame.
    Frame {
        /// Its type byte.
        kind: u8,
        /// All after the type byte.
        body: &'a [u8],
        /// Bytes it takes, length field included.
        used: usize,
    },
    /// The frame is not complete yet.
    NeedMore {
        /// Bytes that must be there.
        len: usize,
    },
}

/// Cuts the first frame out of `bytes`. `max` is the limit for the bytes after the length field.
///
/// # Errors
/// The length field is 0 or over `max`.
pub fn cut(bytes: &[u8], max: u32) -> Result<Cut<'_>, WireError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_LEN>() else {
        return Ok(Cut::NeedMore { len: LENGTH_LEN });
    };
    let length = u32::from_be_bytes(*length);
    if length > max {
        return Err(WireError::FrameTooLarge { len: length.into(), max });
    }
    if length == 0 {
        return Err(WireError::Empty);
    }
    let used = LENGTH_LEN + length as usize;
    match rest.split_first() {
        Some((kind, rest)) => match rest.get(..length as usize - 1) {
            Some(body) => Ok(Cut::Frame { kind: *kind, body, used }),
            None => Ok(Cut::NeedMore { len: used }),
        },
        None => Ok(Cut::NeedMore { len: used }),
    }
}

impl<'a> Frame<'a> {
    /// Reads the first frame of `bytes`. `max` is [`FRAME_LEN_MAX`], or [`HANDSHAKE_FRAME_LEN_MAX`] until the
    /// handshake is over.
    ///
    /// # Errors
    /// The bytes are not a frame of this protocol; the link cannot go on.
    pub fn parse(bytes: &'a [u8], max: u32) -> Result<Parsed<'a>, WireError> {
        match cut(bytes, max)? {
            Cut::Frame { kind, body, used } => Ok(Parsed::Frame { frame: Self::read(kind, body)?, used }),
            Cut::NeedMore { len } => Ok(Parsed::NeedMore { len }),
        }
    }

    /// Reads the frame whose type byte and body were cut out already.
    ///
    /// # Errors
    /// The body does not hold what the type promises.
    pub fn read(kind: u8, body: &'a [u8]) -> Result<Self, WireError> {
        let Some(known) = FrameKind::from_byte(kind) else {
            return Ok(Self::Unknown { kind, body });
        };
        let mut fields = Fields::new(known.name(), body);
        let f = &mut fields;
        Ok(match known {
            FrameKind::Hello => Self::Hello(Hello::read(f)?),
            FrameKind::Auth => Self::Auth(Auth::read(f)?),
            FrameKind::Reject => Self::Reject(Reject::read(f)?),
            FrameKind::Subscribe => Self::Subscribe(Subscribe::read(f)?),
            FrameKind::Subscribed => Self::Subscribed(Subscribed::read(f)?),
            FrameKind::Refused => Self::Refused(Refused::read(f)?),
            FrameKind::Unsubscribe => Self::Unsubscribe { handle: f.handle()? },
            FrameKind::TracksChanged => Self::TracksChanged(Subscribed::read(f)?),
            FrameKind::StreamState => {
                Self::StreamState { handle: f.handle()?, state: StreamState::from_byte(f.u8("state")?) }
            }
            FrameKind::End => Self::End { handle: f.handle()?, reason: EndReason::from_code(f.u16("reason")?) },
            FrameKind::Find => Self::Find(Find::read(f)?),
            FrameKind::Found => Self::Found(Found::read(f)?),
            FrameKind::Audience => Self::Audience { handle: f.handle()?, viewers: f.u32("viewers")? },
            FrameKind::Media => Self::Media(MediaFrame::read(f)?),
            FrameKind::Timing => Self::Timing(Timing::read(f)?),
            FrameKind::Gap => Self::Gap(Gap::read(f)?),
            FrameKind::KeyframeRequest => {
                Self::KeyframeRequest { handle: f.handle()?, track: f.track()?, layer: f.layer()? }
            }
            FrameKind::DataMessage => Self::DataMessage(DataMessage::read(f)?),
            FrameKind::Ping => Self::Ping { nonce: f.u64("nonce")? },
            FrameKind::Pong => Self::Pong { nonce: f.u64("nonce")? },
            FrameKind::GoAway => Self::GoAway { deadline: Duration::from_millis(f.u32("deadline")?.into()) },
        })
    }

    /// Appends the frame to `out`. On error `out` is as it was.
    ///
    /// # Errors
    /// A field is over its limit, so that no peer would take the frame.
    pub fn encode_into(&self, out: &mut BytesMut) -> Result<(), WireError> {
        frame_into(out, self.kind_byte(), |out| self.write(out))
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), WireError> {
        match self {
            Self::Hello(hello) => hello.write(out)?,
            Self::Auth(auth) => auth.write(out),
            Self::Reject(reject) => reject.write(out)?,
            Self::Subscribe(subscribe) => subscribe.write(out)?,
            Self::Subscribed(subscribed) | Self::TracksChanged(subscribed) => subscribed.write(self.name(), out)?,
            Self::Refused(refused) => refused.write(out)?,
            Self::Unsubscribe { handle } => out.put_u32(handle.0),
            Self::StreamState { handle, state } => {
                out.put_u32(handle.0);
                out.put_u8(state.byte());
            }
            Self::End { handle, reason } => {
                out.put_u32(handle.0);
                out.put_u16(reason.code());
            }
            Self::Find(find) => find.write(out)?,
            Self::Found(found) => found.write(out),
            Self::Audience { handle, viewers } => {
                out.put_u32(handle.0);
                out.put_u32(*viewers);
            }
            Self::Media(media) => media.write(out)?,
            Self::Timing(timing) => timing.write(out),
            Self::Gap(gap) => gap.write(out),
            Self::KeyframeRequest { handle, track, layer } => {
                out.put_u32(handle.0);
                out.put_u8(track.0);
                out.put_u8(layer.0);
            }
            Self::DataMessage(message) => message.write(out)?,
            Self::Ping { nonce } | Self::Pong { nonce } => out.put_u64(*nonce),
            Self::GoAway { deadline } => out.put_u32(u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX)),
            Self::Unknown { body, .. } => out.put_slice(body),
        }
        Ok(())
    }

    /// Its type; none for a frame this version does not know.
    pub fn kind(&self) -> Option<FrameKind> {
        Some(match self {
            Self::Hello(_) => FrameKind::Hello,
            Self::Auth(_) => FrameKind::Auth,
            Self::Reject(_) => FrameKind::Reject,
            Self::Subscribe(_) => FrameKind::Subscribe,
            Self::Subscribed(_) => FrameKind::Subscribed,
            Self::Refused(_) => FrameKind::Refused,
            Self::Unsubscribe { .. } => FrameKind::Unsubscribe,
            Self::TracksChanged(_) => FrameKind::TracksChanged,
            Self::StreamState { .. } => FrameKind::StreamState,
            Self::End { .. } => FrameKind::End,
            Self::Find(_) => FrameKind::Find,
            Self::Found(_) => FrameKind::Found,
            Self::Audience { .. } => FrameKind::Audience,
            Self::Media(_) => FrameKind::Media,
            Self::Timing(_) => FrameKind::Timing,
            Self::Gap(_) => FrameKind::Gap,
            Self::KeyframeRequest { .. } => FrameKind::KeyframeRequest,
            Self::DataMessage(_) => FrameKind::DataMessage,
            Self::Ping { .. } => FrameKind::Ping,
            Self::Pong { .. } => FrameKind::Pong,
            Self::GoAway { .. } => FrameKind::GoAway,
            Self::Unknown { .. } => return None,
        })
    }

    /// Its name for errors and logs.
    pub fn name(&self) -> &'static str {
        self.kind().map_or("unknown", FrameKind::name)
    }

    /// Whether it belongs to the handshake and has no place after it.
    pub fn is_handshake(&self) -> bool {
        matches!(self, Self::Hello(_) | Self::Auth(_))
    }

    fn kind_byte(&self) -> u8 {
        match self {
            Self::Unknown { kind, .. } => *kind,
            known => known.kind().map_or(0, |k| k as u8),
        }
    }
}

/// Appends length field and type byte, lets `body` append the rest, and puts the length right. On error `out` is as it
/// was.
fn frame_into(
    out: &mut BytesMut,
    kind: u8,
    body: impl FnOnce(&mut BytesMut) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    let result = body(out).and_then(|()| finish_frame(out, start, 0));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Writes the length of the frame that began at `start`, of which `payload_len` bytes follow elsewhere.
fn finish_frame(out: &mut BytesMut, start: usize, payload_len: usize) -> Result<(), WireError> {
    let len = (out.len() - start).saturating_sub(LENGTH_LEN).saturating_add(payload_len);
    match u32::try_from(len) {
        Ok(length) if length <= FRAME_LEN_MAX => {
            if let Some(field) = out.get_mut(start..start + LENGTH_LEN) {
                field.copy_from_slice(&length.to_be_bytes());
            }
            Ok(())
        }
        _ => Err(WireError::FrameTooLarge { len: len as u64, max: FRAME_LEN_MAX }),
    }
}
