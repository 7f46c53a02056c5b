//! The machine behind one WebSocket: what AMS answers to what, in which order.
//!
//! Owns the legs (publishers and viewers) of the connection, its waiting list and its limits. It never touches a
//! socket, a clock or a session description. The shell calls [`Session::handle`], [`Session::handle_event`] or
//! [`Session::handle_timeout`], and after each of them drains [`Session::poll_output`] to `None`.
//!
//! - `dispatch`: a client's message to what it starts
//! - `report`: the shell's events to what the client hears of them

mod dispatch;
mod report;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use ams_types::StreamId;

use crate::client::ClientMessage;
use crate::effect::{CloseCode, Effect, Leg, Output, PublishWish};
use crate::leg::{LegState, Role};
use crate::limits::{SignalLimits, TokenBucket};
use crate::server::{ErrorFrame, Notification, ServerMessage};
use crate::words;

/// What `getIceServerConfig` is answered with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:…` or `turn:…`; empty leaves the SDK with its own default.
    pub uri: String,
    /// TURN user, or empty.
    pub username: String,
    /// TURN password, or empty.
    pub credential: String,
}

/// A leg whose close is not confirmed yet, and the publication of the same id that waits for that.
#[derive(Debug)]
struct Closing {
    stream: StreamId,
    role: Role,
    then: Option<(PublishWish, Option<String>)>,
}

/// The signalling state of one connection.
///
/// Memory is bounded: by [`SignalLimits`] in legs, waits and questions, by [`crate::MESSAGE_LEN_MAX`] in text.
#[derive(Debug)]
pub struct Session {
    limits: SignalLimits,
    ice_server: IceServer,
    legs: HashMap<Leg, LegState>,
    publishers: HashMap<StreamId, Leg>,
    viewers: HashMap<StreamId, Leg>,
    closing: HashMap<Leg, Closing>,
    waiting: HashSet<StreamId>,
    asks: usize,
    next_leg: u64,
    bucket: TokenBucket,
    heard_at: Instant,
    stop_announced: bool,
    closed: bool,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A fresh connection.
    pub fn new(limits: SignalLimits, ice_server: IceServer, now: Instant) -> Self {
        Self {
            limits,
            ice_server,
            legs: HashMap::new(),
            publishers: HashMap::new(),
            viewers: HashMap::new(),
            closing: HashMap::new(),
            waiting: HashSet::new(),
            asks: 0,
            next_leg: 0,
            bucket: TokenBucket::new(limits.messages, now),
            heard_at: now,
            stop_announced: false,
            closed: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one text frame of the client. What is not a message is ignored, as AMS does.
    pub fn handle(&mut self, now: Instant, text: &str) {
        if self.closed {
            return;
        }
        self.touch(now);
        if self.bucket.take(now).is_err() {
            self.close(CloseCode::Policy, "too many messages in a short time; reconnect and send fewer");
            return;
        }
        let Some(message) = ClientMessage::parse(text) else { return };
        self.dispatch(message);
    }

    /// Notes that the connection is alive: any frame counts, protocol pings and pongs as well.
    pub fn touch(&mut self, now: Instant) {
        self.heard_at = self.heard_at.max(now);
    }

    /// The next thing to do, oldest first. `None` until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] is due. `None` once the connection is closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.closed).then(|| self.heard_at + self.limits.idle)
    }

    /// Closes the connection if it was silent for too long; early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.closed && now.saturating_duration_since(self.heard_at) >= self.limits.idle {
            self.close(CloseCode::GoingAway, "no frame came for too long; send a ping every few seconds");
        }
    }

    /// Streams this connection waits for.
    pub fn waiting(&self) -> impl Iterator<Item = &StreamId> {
        self.waiting.iter()
    }

    /// Publishers and viewers that are open or opening.
    pub fn leg_count(&self) -> usize {
        self.legs.len()
    }

    fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.closed = true;
        self.outputs.push_back(Output::Close { code, reason });
    }

    fn send(&mut self, message: impl Into<ServerMessage>) {
        self.outputs.push_back(Output::Send(message.into().to_json()));
    }

    fn effect(&mut self, effect: Effect) {
        self.outputs.push_back(Output::Effect(effect));
    }

    fn error(&mut self, stream: &StreamId, definition: &str, information: Option<String>) {
        self.send(ErrorFrame {
            definition: definition.into(),
            stream_id: Some(stream.to_string()),
            information: information.filter(|text| !text.is_empty()),
            ..Default::default()
        });
    }

    fn no_stream_exist(&mut self, stream: &StreamId, information: Option<&str>) {
        self.send(ErrorFrame {
            definition: words::NO_STREAM_EXIST.into(),
            stream_id: Some(stream.to_string()),
            error_code: Some(words::CODE_NOT_FOUND),
            information: information.map(str::to_owned),
            ..Default::default()
        });
    }

    fn notify(&mut self, definition: &str, stream: &StreamId, subscriber: Option<Option<String>>, why: Option<String>) {
        self.send(Notification {
            definition: definition.into(),
            stream_id: Some(stream.to_string()),
            subscriber_id: subscriber,
            information: why.filter(|text| !text.is_empty()),
            ..Default::default()
        });
    }

    /// A new leg, or `None` with an error sent when the connection has enough of them.
    fn new_leg(&mut self, stream: &StreamId, role: Role, subscriber_id: Option<String>) -> Option<Leg> {
        if self.legs.len() >= self.limits.sessions || self.closing.len() >= self.limits.sessions.saturating_mul(2) {
            let sentence = format!("one connection may carry {} sessions; open another", self.limits.sessions);
            self.error(stream, words::HIGH_RESOURCE_USAGE, Some(sentence));
            return None;
        }
        let leg = Leg(self.next_leg);
        self.next_leg += 1;
        self.by_stream(role).insert(stream.clone(), leg);
        self.legs.insert(leg, LegState::new(stream.clone(), role, subscriber_id));
        Some(leg)
    }

    /// Forgets a leg; the client's next message about it finds nothing.
    fn drop_leg(&mut self, leg: Leg) -> Option<LegState> {
        let state = self.legs.remove(&leg)?;
        self.by_stream(state.role).remove(&state.stream);
        Some(state)
    }

    /// Forgets a leg and has it ended.
    fn close_leg(&mut self, leg: Leg) -> Option<LegState> {
        let state = self.drop_leg(leg)?;
        self.closing.insert(leg, Closing { stream: state.stream.clone(), role: state.role, then: None });
        self.effect(Effect::Close { leg });
        Some(state)
    }

    fn by_stream(&mut self, role: Role) -> &mut HashMap<StreamId, Leg> {
        match role {
            Role::Publisher => &mut self.publishers,
            Role::Viewer => &mut self.viewers,
        }
    }

    fn stop_waiting(&mut self, stream: &StreamId) -> bool {
        let was_waiting = self.waiting.remove(stream);
        if was_waiting {
            self.effect(Effect::StopWaiting { stream: stream.clone() });
        }
        was_waiting
    }
}
