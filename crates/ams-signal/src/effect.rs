//! What a session asks of its shell, and what it is told back.
//!
//! Owns the vocabulary between the machine and whatever performs its effects. The shell names sessions its own way;
//! here each is a [`Leg`], chosen by the machine, so that a `stop` may overtake the opening it ends.

use std::fmt;

use ams_types::StreamId;

use crate::server::Rendition;

/// One publisher or viewer of one connection. Never reused within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg(pub u64);

/// What the machine wants done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A text frame for the client.
    Send(String),
    /// Something to ask of the node.
    Effect(Effect),
    /// End the socket with a close frame; nothing follows.
    Close {
        /// Close code.
        code: CloseCode,
        /// A sentence of at most 123 bytes, for the close frame.
        reason: &'static str,
    },
}

/// Close codes of RFC 6455 §7.4.1 that a session uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// 1001: silence.
    GoingAway,
    /// 1008: a limit was passed.
    Policy,
}

/// Something to ask of the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Claim the id. Answered by [`Event::PublisherOpened`] or [`Event::Refused`].
    OpenPublisher {
        /// The leg from now on.
        leg: Leg,
        /// What is wanted.
        wish: PublishWish,
    },
    /// Hand in the publisher's offer. Answered by [`Event::PublisherAnswer`] or [`Event::Refused`].
    PublisherOffer {
        /// Which publisher.
        leg: Leg,
        /// The offer.
        sdp: String,
    },
    /// Make a viewer and our offer for it. Answered by [`Event::ViewerOffer`] or [`Event::Refused`].
    OpenViewer {
        /// The leg from now on.
        leg: Leg,
        /// What is wanted.
        wish: PlayWish,
    },
    /// Hand in the viewer's answer. Only a refusal is reported back.
    ViewerAnswer {
        /// Which viewer.
        leg: Leg,
        /// The answer.
        sdp: String,
    },
    /// A viewer's wish about its running stream. Nothing is reported back.
    Steer {
        /// Which viewer.
        leg: Leg,
        /// The wish.
        steer: Steer,
    },
    /// A candidate of the client.
    RemoteCandidate {
        /// Whose.
        leg: Leg,
        /// `candidate:…`, or empty at their end.
        candidate: String,
    },
    /// End the leg, even if it is still opening. Answered by [`Event::Closed`], and by nothing else from then on.
    Close {
        /// Which.
        leg: Leg,
    },
    /// Look something up. Answered by [`Event::Renditions`] or [`Event::Broadcast`] with the same `ask`.
    Get {
        /// The stream.
        stream: StreamId,
        /// What about it.
        ask: Ask,
    },
    /// Tell with [`Event::StreamStarted`] when the stream becomes playable, also if that happened just now.
    WaitFor {
        /// The stream.
        stream: StreamId,
    },
    /// No longer needed.
    StopWaiting {
        /// The stream.
        stream: StreamId,
    },
}

/// A question about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Renditions, for `streamInformation`.
    StreamInfo,
    /// Renditions, to learn whether it is live, for `trackList`.
    TrackList,
    /// The stored record.
    Broadcast,
}

/// What a client shows to be let in; what it did not say is empty. Printed as how much there is, never as what.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// A token.
    pub token: String,
    /// Who it says it is.
    pub subscriber_id: String,
    /// Its code.
    pub subscriber_code: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token_len", &self.token.len())
            .field("subscriber_id", &self.subscriber_id)
            .field("subscriber_code_len", &self.subscriber_code.len())
            .finish()
    }
}

/// A wish to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishWish {
    /// Which stream.
    pub stream: StreamId,
    /// Display name, or empty.
    pub stream_name: String,
    /// Room or main track, or empty.
    pub main_track: String,
    /// Free text, or empty.
    pub meta_data: String,
    /// Video will be sent.
    pub video: bool,
    /// Audio will be sent.
    pub audio: bool,
    /// To be let in with.
    pub credentials: Credentials,
}

/// What a viewer wants of its stream from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// A rendition of this picture height in pixels; 0 for whatever the network takes.
    Quality {
        /// The height.
        height: u32,
    },
    /// Media switched on or off.
    Switch {
        /// Which.
        media: Media,
        /// Whether it is to be sent.
        on: bool,
    },
}

/// Some of a stream's media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// All pictures.
    Video,
    /// All sound.
    Audio,
    /// A track by the id in `idMapping`, or all of a stream by its id.
    Track(String),
}

/// A wish to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayWish {
    /// Which stream.
    pub stream: StreamId,
    /// To be let in with.
    pub credentials: Credentials,
    /// Room, or empty.
    pub room: String,
    /// Track ids to enable; empty means all.
    pub track_list: Vec<String>,
}

/// What the shell reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The id is claimed; the client may offer.
    PublisherOpened {
        /// Which.
        leg: Leg,
    },
    /// The answer to the publisher's offer.
    PublisherAnswer {
        /// Which.
        leg: Leg,
        /// SDP with every candidate.
        sdp: String,
    },
    /// Our offer to the viewer.
    ViewerOffer {
        /// Which.
        leg: Leg,
        /// SDP with every candidate.
        sdp: String,
        /// MID → track id.
        id_mapping: Vec<(String, String)>,
    },
    /// The last effect of this leg was refused. The machine closes the leg if it was open.
    Refused {
        /// Which.
        leg: Leg,
        /// Why.
        refusal: Refusal,
    },
    /// Connected, and for a publisher media has arrived.
    Started {
        /// Which.
        leg: Leg,
        /// An interrupted publication was taken up.
        restored: bool,
    },
    /// What a viewer's network takes and what it gets, every few seconds.
    Measured {
        /// Which.
        leg: Leg,
        /// Bits per second.
        rates: Rates,
    },
    /// A viewer's picture changed its size.
    Resized {
        /// Which.
        leg: Leg,
        /// Height in pixels.
        height: u32,
    },
    /// The leg ended without being asked to; it needs no `Close`.
    Ended {
        /// Which.
        leg: Leg,
        /// Why.
        end: End,
    },
    /// A `Close` was carried out.
    Closed {
        /// Which.
        leg: Leg,
    },
    /// Renditions of a live stream.
    Renditions {
        /// The stream.
        stream: StreamId,
        /// The question it answers.
        ask: Ask,
        /// The answer.
        result: Result<Vec<Rendition>, Refusal>,
    },
    /// The stored record as JSON text; `None` if there is none.
    Broadcast {
        /// The stream.
        stream: StreamId,
        /// The answer.
        result: Result<Option<String>, Refusal>,
    },
    /// A stream became playable.
    StreamStarted {
        /// The stream.
        stream: StreamId,
    },
    /// This node will stop soon: clients are to reconnect elsewhere.
    NodeStopping,
}

/// What a viewer's network takes and what it gets, in bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// What the path to the viewer is thought to carry.
    pub target: u64,
    /// Video that is sent.
    pub video: u64,
    /// Audio that is sent.
    pub audio: u64,
}

/// Why something was refused; the text is a sentence for the person at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No live stream of that id.
    NotLive,
    /// Another publisher holds the id.
    InUse(String),
    /// Not here.
    NotAllowed(String),
    /// Not by this client.
    Denied {
        /// AMS's word for why.
        word: &'static str,
        /// The sentence.
        sentence: String,
    },
    /// The registry cannot be reached.
    DataStore(String),
    /// The node is full or draining.
    Busy(String),
    /// The session description cannot be used.
    BadDescription(String),
    /// The session was gone already.
    Gone,
    /// Our own fault.
    Internal(String),
}

/// Why a leg ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was stopped, or its stream ended.
    Finished,
    /// It was ended for a reason the person at the other end should read.
    Because(String),
    /// No connection or no media came in time.
    Timeout(String),
    /// This node is stopping.
    NodeStopping,
}
