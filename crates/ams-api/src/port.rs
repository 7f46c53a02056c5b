//! The port to the node: everything HTTP and WebSocket handlers may ask of the media plane and the directory.
//!
//! Owns the questions, their answers and the reasons of refusal, in the product's own words. Neither HTTP nor AMS's
//! wire words appear here; handlers translate. SDP is an opaque string. The binary implements [`Node`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ams_access::{Denial, Secret};
use ams_registry::{AppSettingsRecord, BroadcastRecord, Ended, Registry, RegistryError};
pub use ams_signal::{Media, Rates, Steer};
use ams_types::{AppName, NodeId, StreamId, StreamKey};
use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, mpsc};

/// One publisher's or viewer's session on this node. Random and unguessable: it is also the WHIP/WHEP resource name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub String);

/// Which door a session came through; decides nothing but logs, statistics and `publishType`-like words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// AMS's WebSocket.
    WebSocket,
    /// WHIP or WHEP.
    Http,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Which door.
    pub door: Door,
    /// Address of the client, behind the balancer.
    pub remote_ip: IpAddr,
    /// `User-Agent`, cut to 256 bytes.
    pub user_agent: String,
}

/// What a client shows to be let in. The doors bound the lengths, and leave out what is empty.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A token.
    pub token: Option<Secret>,
    /// Who the client says it is.
    pub subscriber_id: Option<String>,
    /// Its code.
    pub subscriber_code: Option<Secret>,
}

impl Credentials {
    /// From what was said; empty text is nothing.
    pub fn new(token: String, subscriber_id: String, subscriber_code: String) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        Self {
            token: some(token).map(Secret::from),
            subscriber_id: some(subscriber_id),
            subscriber_code: some(subscriber_code).map(Secret::from),
        }
    }
}

/// A wish to publish.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// Which stream.
    pub key: StreamKey,
    /// Who asks.
    pub caller: Caller,
    /// The stream's display name, if given.
    pub stream_name: String,
    /// Free text kept with the stream.
    pub meta_data: String,
    /// The room or main track this stream belongs to, if any.
    pub main_track: String,
    /// To be let in with.
    pub credentials: Credentials,
}

/// A wish to watch.
#[derive(Clone, Debug)]
pub struct PlayRequest {
    /// Which stream.
    pub key: StreamKey,
    /// Who asks.
    pub caller: Caller,
    /// The viewer wants a data channel.
    pub data_channel: bool,
    /// The room or main track the stream is watched as part of, if any.
    pub room: String,
    /// To be let in with.
    pub credentials: Credentials,
}

/// What the node says about a session after it was opened. The queue is bounded; the last event is `Ended`.
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// The peer is connected and, for a publisher, media has arrived.
    Started {
        /// A publisher took up a stream that was interrupted: viewers were kept.
        restored: bool,
    },
    /// What a viewer's network takes and what it gets, every few seconds. May be left out.
    Measured(Rates),
    /// A viewer's picture changed its height, in pixels.
    Resized(u32),
    /// The session is over. Nothing follows.
    Ended(EndReason),
}

/// Why a session or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client asked for it (stop, DELETE).
    ByRequest,
    /// The client went without a word (its socket closed, or its transport said goodbye): it may come back.
    Gone,
    /// The publisher left or its stream ended.
    StreamEnded,
    /// No connection or no media came in time. The sentence says how far it got and what to try.
    Timeout(String),
    /// The transport of a running session was lost: no packets, or closed by the other end.
    TransportLost(String),
    /// Another publication of the id took over.
    TakenOver,
    /// This node is stopping.
    NodeStopping,
    /// An operator or a rule ended it.
    ByServer(String),
}

/// Why a request was refused. `Display` is a sentence for the person at the other end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No live stream of that id anywhere in the cluster.
    #[error("stream {0} is not live")]
    NotLive(StreamId),
    /// Another publisher holds the id.
    #[error("stream id {0} is already being published; choose another id, or stop the other publisher")]
    InUse(StreamId),
    /// This node takes no publishers.
    #[error("this node is an edge and takes no publishers; publish to an origin{}", .0.as_ref().map(|o| format!(", for example {o}")).unwrap_or_default())]
    EdgeTakesNoPublishers(Option<String>),
    /// This node takes no viewers.
    #[error("this node is an origin that takes no viewers; play from an edge")]
    OriginTakesNoViewers,
    /// The application's rules do not allow it.
    #[error("{0}")]
    Denied(Denial),
    /// The registry did not answer in time.
    #[error("the registry cannot be reached at the moment; try again in a few seconds")]
    RegistryUnavailable,
    /// The node is full or draining.
    #[error("this node cannot take more sessions at the moment: {reason}")]
    Busy {
        /// What is short.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The client has more sessions than one may have.
    #[error("this node cannot take more sessions from you at the moment: {reason}")]
    TooMany {
        /// What there is too much of.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The session description cannot be used.
    #[error("{0}")]
    BadDescription(BadDescription),
    /// No such session on this node.
    #[error("there is no such session on this node; it has ended or belongs to another node")]
    NoSession,
    /// The `If-Match` tag is not that of the current ICE session.
    #[error("the entity tag is not that of the current ICE session")]
    StaleTag,
    /// Our own fault; the log has the cause.
    #[error("the node failed to handle the request; its log says why")]
    Internal,
}

/// What is wrong with a session description, sorted by what HTTP makes of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDescription {
    /// Not SDP, or a required line is missing (400).
    #[error("the session description cannot be read: {0}")]
    Malformed(String),
    /// Well-formed, but asks for what cannot be given (422).
    #[error("the session description asks for something this node does not do: {0}")]
    Unsupported(String),
    /// No codec in common (406 for viewers, 422 for publishers).
    #[error("no codec in common: {0}")]
    NoCommonCodec(String),
}

/// A node's answer to an offer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// SDP, with all candidates.
    pub sdp: String,
    /// Entity tag of this ICE session, without quotes.
    pub etag: String,
}

/// A viewer's session opened by a server offer.
#[derive(Clone, Debug)]
pub struct Offer {
    /// SDP, with all candidates.
    pub sdp: String,
    /// MID → track id, for AMS's `idMapping`.
    pub id_mapping: Vec<(String, String)>,
}

/// One rendition of a live stream, for `streamInformation`.
#[derive(Clone, Debug, Default)]
pub struct Rendition {
    /// Picture width in pixels, 0 if unknown.
    pub width: u32,
    /// Picture height in pixels, 0 if unknown.
    pub height: u32,
    /// Video bits per second.
    pub video_bitrate: u64,
    /// Audio bits per second.
    pub audio_bitrate: u64,
    /// Codec name as AMS writes it (`H264`, `VP8`, …), empty without video.
    pub video_codec: String,
}

/// An opened session and the queue of what happens to it.
#[derive(Debug)]
pub struct Opened<T> {
    /// Its name from now on.
    pub session: SessionId,
    /// The first answer: offer, answer or nothing.
    pub value: T,
    /// What happens next. Dropping it does not end the session; [`Node::close`] does.
    pub events: mpsc::Receiver<SessionEvent>,
}

/// Keeps this node looking out for a stream that is not live yet; dropped when the viewer leaves.
pub trait WaitGuard: Send + Sync {}

/// Readiness, one row per check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was checked: `http`, `relay`, `registry`, `shards`, `admission`, ….
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// A sentence for the operator.
    pub detail: String,
    /// Whether the node counts as not ready while this is not ok.
    pub required: bool,
}

/// Which node this is, and how others reach it.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    /// Its name.
    pub node: NodeId,
    /// Host name or address that other nodes dial; `originAdress` of its streams.
    pub host: String,
    /// Where its HTTP is, there.
    pub http_port: u16,
    /// Whether other nodes share its registry.
    pub is_clustered: bool,
}

/// What this node carries now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Streams published here.
    pub streams: usize,
    /// Viewers connected here.
    pub viewers: usize,
    /// How busy the machine's processors are, 0 to 100.
    pub cpu_percent: u32,
}

/// Whether a node is to leave, and how far that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainState {
    /// Since when it takes nobody new, in ms since 1970; none if it does.
    pub since_ms: Option<i64>,
    /// When it ends, whoever is still there, in ms since 1970.
    pub deadline_ms: Option<i64>,
    /// It was told to end: that is not taken back.
    pub is_ending: bool,
    /// Sessions that are still here.
    pub sessions: usize,
}

/// What became of a message to a stream's data channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It was sent to whoever has one.
    Sent,
    /// The stream is not published here.
    NotHere,
    /// It is longer than this many bytes.
    TooLong(usize),
}

/// What the API asks of the node. Every call has its deadline inside; none takes longer than about 2 s, and 3 s
/// more where an application's webhook is asked.
pub trait Node: Send + Sync + 'static {
    /// The applications this node serves.
    fn apps(&self) -> Vec<AppName>;

    /// Claims the id and opens a publisher session that waits for the client's offer (WebSocket order).
    fn open_publisher(&self, request: PublishRequest) -> BoxFuture<'_, Result<Opened<()>, Refusal>>;

    /// Hands the publisher's offer in and returns the answer.
    fn publisher_offer(&self, session: &SessionId, sdp: String) -> BoxFuture<'_, Result<Answer, Refusal>>;

    /// Opens a viewer session with an offer of ours (WebSocket order).
    fn open_viewer(&self, request: PlayRequest) -> BoxFuture<'_, Result<Opened<Offer>, Refusal>>;

    /// Hands the viewer's answer in.
    fn viewer_answer(&self, session: &SessionId, sdp: String) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Opens a viewer session from the viewer's own offer (WHEP order).
    fn open_viewer_with_offer(
        &self,
        request: PlayRequest,
        sdp: String,
    ) -> BoxFuture<'_, Result<Opened<Answer>, Refusal>>;

    /// A viewer's wish about its running stream. Unknown sessions are ignored.
    fn steer(&self, session: &SessionId, steer: Steer) -> BoxFuture<'_, ()>;

    /// A remote candidate. The node is ICE-lite and needs none; they are counted for diagnosis.
    fn remote_candidate(&self, session: &SessionId, candidate: &str);

    /// ICE restart: new remote credentials in, our new ones out, both as SDP fragments (RFC 8840).
    /// `if_match` is `*` or the current tag.
    fn restart_ice(
        &self,
        session: &SessionId,
        if_match: String,
        fragment: String,
    ) -> BoxFuture<'_, Result<Answer, Refusal>>;

    /// Trickled candidates as an SDP fragment; refused when the tag is stale.
    fn trickle(
        &self,
        session: &SessionId,
        if_match: Option<String>,
        fragment: String,
    ) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Ends a session. Unknown sessions are ignored; returns whether there was one.
    fn close(&self, session: &SessionId, reason: EndReason) -> BoxFuture<'_, bool>;

    /// The stored record, with its effective status.
    fn broadcast(&self, key: &StreamKey) -> BoxFuture<'_, Result<Option<BroadcastRecord>, Refusal>>;

    /// The renditions of a live stream; `NotLive` otherwise.
    fn renditions(&self, key: &StreamKey) -> BoxFuture<'_, Result<Vec<Rendition>, Refusal>>;

    /// Joins the cluster-wide waiting list for a stream.
    fn wait_for(&self, key: &StreamKey) -> Box<dyn WaitGuard>;

    /// Streams somebody on this node waits for, as they become playable.
    fn starts(&self) -> broadcast::Receiver<StreamKey>;

    /// The registry.
    fn registry(&self) -> Arc<dyn Registry>;

    /// Which node this is.
    fn whereabouts(&self) -> Whereabouts;

    /// What it carries.
    fn load(&self) -> Load;

    /// An application's settings as they were last read: never older than 2 s while the registry answers.
    fn settings(&self, app: &AppName) -> Arc<AppSettingsRecord>;

    /// Writes an application's settings; they are applied here at once, and by the others within 2 s.
    fn store_settings(&self, app: &AppName, settings: AppSettingsRecord) -> BoxFuture<'_, Result<(), RegistryError>>;

    /// Ends the publication of a stream on this node; whether there was one.
    fn stop_stream(&self, key: &StreamKey, sentence: String) -> BoxFuture<'_, bool>;

    /// Sends a text to all data channels of a stream that is published on this node.
    fn say(&self, key: &StreamKey, text: String) -> BoxFuture<'_, Said>;

    /// A publication of a node that cannot be reached was ended here.
    fn released(&self, ended: &Ended);

    /// What nodes of this cluster prove themselves to each other with over HTTP; none without a cluster key.
    fn cluster_secret(&self) -> Option<Secret>;

    /// Begins a drain, or takes it back; a node that drains already goes on with it. False if the node is ending, and not
    /// to stay any more.
    fn drain(&self, wanted: bool) -> bool;

    /// Whether this node drains.
    fn drain_state(&self) -> DrainState;

    /// Whether the process and its loops run. Never asks the registry.
    fn alive(&self) -> bool;

    /// Readiness, check by check.
    fn readiness(&self) -> Vec<Check>;

    /// The node's figures in the Prometheus text format.
    fn metrics(&self) -> BoxFuture<'_, String>;
}
