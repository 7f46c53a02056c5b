//! The shell's events to what the client hears of them.
//!
//! Owns the translation of refusals and ends into AMS's words, and the waiting list. Events of legs that were closed
//! meanwhile are ignored: after a `stop` the client hears nothing of that leg any more.

use std::time::Instant;

use ams_types::StreamId;

use super::Session;
use crate::effect::{Ask, Effect, End, Event, Leg, Rates, Refusal};
use crate::leg::{LegState, Phase, Role};
use crate::server::{ErrorFrame, Notification, Rendition, ServerMessage};
use crate::words;

impl Session {
    /// Takes one report of the shell. `now` is for symmetry with the other inputs: no event counts as a sign of life
    /// of the client.
    pub fn handle_event(&mut self, _now: Instant, event: Event) {
        if self.closed {
            return;
        }
        match event {
            Event::PublisherOpened { leg } => self.publisher_opened(leg),
            Event::PublisherAnswer { leg, sdp } => self.publisher_answer(leg, sdp),
            Event::ViewerOffer { leg, sdp, id_mapping } => self.viewer_offer(leg, sdp, id_mapping),
            Event::Refused { leg, refusal } => self.refused(leg, refusal),
            Event::Started { leg, restored } => self.started(leg, restored),
            Event::Measured { leg, rates } => self.measured(leg, rates),
            Event::Resized { leg, height } => self.resized(leg, height),
            Event::Ended { leg, end } => self.ended(leg, end),
            Event::Closed { leg } => {
                if let Some((wish, subscriber)) = self.closing.remove(&leg).and_then(|closing| closing.then) {
                    self.open_publisher(wish, subscriber);
                }
            }
            Event::Renditions { stream, ask, result } => self.renditions(&stream, ask, result),
            Event::Broadcast { stream, result } => self.broadcast(&stream, result),
            Event::StreamStarted { stream } => self.stream_started(&stream),
            Event::NodeStopping => self.node_stopping(),
        }
    }

    fn publisher_opened(&mut self, leg: Leg) {
        let Some(state) = self.legs.get_mut(&leg) else { return };
        let Phase::Opening { early_offer } = &mut state.phase else { return };
        let early_offer = early_offer.take();
        let start =
            ServerMessage::Start { stream_id: state.stream.to_string(), subscriber_id: state.subscriber_id.clone() };
        state.phase = match early_offer {
            Some(_) => Phase::Negotiating { early_start: None },
            None => Phase::AwaitingSdp,
        };
        self.send(start);
        if let Some(sdp) = early_offer {
            self.effect(Effect::PublisherOffer { leg, sdp });
        }
    }

    fn publisher_answer(&mut self, leg: Leg, sdp: String) {
        let Some(state) = self.legs.get_mut(&leg) else { return };
        let Phase::Negotiating { early_start } = state.phase else { return };
        state.phase = Phase::Connecting;
        let answer = ServerMessage::TakeConfiguration {
            stream_id: state.stream.to_string(),
            kind: "answer",
            sdp,
            id_mapping: None,
            link_session: None,
            subscriber_id: state.subscriber_id.clone(),
        };
        self.send(answer);
        if let Some(restored) = early_start {
            self.started(leg, restored);
        }
    }

    fn viewer_offer(&mut self, leg: Leg, sdp: String, id_mapping: Vec<(String, String)>) {
        let Some(state) = self.legs.get_mut(&leg) else { return };
        if !matches!(state.phase, Phase::Opening { .. }) {
            return;
        }
        state.phase = Phase::AwaitingSdp;
        let stream = state.stream.clone();
        let offer = ServerMessage::TakeConfiguration {
            stream_id: stream.to_string(),
            kind: "offer",
            sdp,
            id_mapping: Some(id_mapping.into_iter().collect()),
            link_session: None,
            subscriber_id: state.subscriber_id.clone(),
        };
        self.stop_waiting(&stream);
        self.send(offer);
    }

    fn started(&mut self, leg: Leg, restored: bool) {
        let Some(state) = self.legs.get_mut(&leg) else { return };
        match &mut state.phase {
            Phase::Negotiating { early_start } => *early_start = Some(restored),
            Phase::Connecting => {
                state.phase = Phase::Started;
                let word = match (state.role, restored) {
                    (Role::Viewer, _) => words::PLAY_STARTED,
                    (Role::Publisher, false) => words::PUBLISH_STARTED,
                    (Role::Publisher, true) => words::SESSION_RESTORED,
                };
                let (stream, subscriber) = (state.stream.clone(), state.subscriber_id.clone());
                self.notify(word, &stream, Some(subscriber), None);
            }
            Phase::Opening { .. } | Phase::AwaitingSdp | Phase::Started => {}
        }
    }

    /// The stream of a viewer that plays.
    fn playing(&self, leg: Leg) -> Option<String> {
        let state = self.legs.get(&leg)?;
        (state.role == Role::Viewer && matches!(state.phase, Phase::Started)).then(|| state.stream.to_string())
    }

    fn measured(&mut self, leg: Leg, rates: Rates) {
        let Some(stream_id) = self.playing(leg) else { return };
        self.send(Notification {
            definition: words::BITRATE_MEASUREMENT.into(),
            stream_id: Some(stream_id),
            target_bitrate: Some(rates.target),
            video_bitrate: Some(rates.video),
            audio_bitrate: Some(rates.audio),
            ..Default::default()
        });
    }

    fn resized(&mut self, leg: Leg, height: u32) {
        let Some(stream_id) = self.playing(leg) else { return };
        self.send(Notification {
            definition: words::RESOLUTION_CHANGE_INFO.into(),
            stream_id: Some(stream_id),
            stream_height: Some(height),
            ..Default::default()
        });
    }

    fn ended(&mut self, leg: Leg, end: End) {
        let Some(state) = self.drop_leg(leg) else { return };
        match end {
            End::Finished => self.finished(state, None),
            End::Because(sentence) => self.finished(state, Some(sentence)),
            End::NodeStopping => self.node_stopping(),
            End::Timeout(sentence) => {
                let word = match (state.role, &state.phase) {
                    (Role::Publisher, Phase::Started) | (Role::Viewer, _) => words::NO_PACKET_RECEIVED,
                    (Role::Publisher, _) => words::PUBLISH_TIMEOUT,
                };
                self.error(&state.stream, word, Some(sentence));
                self.finished(state, None);
            }
        }
    }

    fn finished(&mut self, state: LegState, why: Option<String>) {
        let word = match state.role {
            Role::Publisher => words::PUBLISH_FINISHED,
            Role::Viewer => words::PLAY_FINISHED,
        };
        self.notify(word, &state.stream, Some(state.subscriber_id), why);
    }

    fn refused(&mut self, leg: Leg, refusal: Refusal) {
        let Some(state) = self.legs.get(&leg) else { return };
        let opening = matches!(state.phase, Phase::Opening { .. });
        if let Refusal::BadDescription(sentence) = refusal {
            return self.bad_description(leg, sentence);
        }
        // What was opened must be closed; what was refused at the door never was open.
        let Some(state) = (if opening { self.drop_leg(leg) } else { self.close_leg(leg) }) else { return };
        match refusal {
            Refusal::NotLive if state.role == Role::Viewer => self.not_live(&state),
            Refusal::Gone => self.finished(state, None),
            refusal => self.explain(&state.stream, refusal),
        }
    }

    pub(super) fn bad_description(&mut self, leg: Leg, sentence: String) {
        let Some(state) = self.close_leg(leg) else { return };
        self.send(ErrorFrame {
            definition: words::NOT_SET_REMOTE_DESCRIPTION.into(),
            stream_id: Some(state.stream.to_string()),
            subscriber_id: Some(state.subscriber_id),
            information: Some(sentence),
            ..Default::default()
        });
    }

    /// A refusal as an error frame.
    fn explain(&mut self, stream: &StreamId, refusal: Refusal) {
        let (word, sentence) = match refusal {
            Refusal::NotLive | Refusal::Gone => return self.no_stream_exist(stream, None),
            Refusal::InUse(sentence) => (words::STREAM_ID_IN_USE, sentence),
            Refusal::NotAllowed(sentence) => (words::UNAUTHORIZED_ACCESS, sentence),
            Refusal::Denied { word, sentence } => (word, sentence),
            Refusal::DataStore(sentence) => (words::DATA_STORE_NOT_AVAILABLE, sentence),
            Refusal::Busy(sentence) => (words::HIGH_RESOURCE_USAGE, sentence),
            Refusal::BadDescription(sentence) => (words::NOT_SET_REMOTE_DESCRIPTION, sentence),
            Refusal::Internal(sentence) => (words::SERVER_ERROR, sentence),
        };
        self.error(stream, word, Some(sentence));
    }

    /// The viewer came before the publisher: it is told so, and told again when there is something to see.
    fn not_live(&mut self, state: &LegState) {
        let stream = &state.stream;
        let waits = state.start_seen || self.waiting.contains(stream) || self.waiting.len() < self.limits.waits;
        if !waits {
            return self.no_stream_exist(stream, None);
        }
        self.no_stream_exist(stream, Some(words::STREAM_NOT_EXIST_OR_NOT_STREAMING));
        if state.start_seen {
            self.notify(words::STREAMING_STARTED, stream, None, None);
        } else if self.waiting.insert(stream.clone()) {
            self.effect(Effect::WaitFor { stream: stream.clone() });
        }
    }

    fn stream_started(&mut self, stream: &StreamId) {
        if !self.stop_waiting(stream) {
            return;
        }
        // A play of it may be under way: its outcome decides whether the client needs to hear of this.
        let viewer = self.viewers.get(stream).and_then(|leg| self.legs.get_mut(leg));
        match viewer {
            Some(state) => state.start_seen = true,
            None => self.notify(words::STREAMING_STARTED, stream, None, None),
        }
    }

    fn renditions(&mut self, stream: &StreamId, ask: Ask, result: Result<Vec<Rendition>, Refusal>) {
        self.asks = self.asks.saturating_sub(1);
        let stream_id = stream.to_string();
        match (result, ask) {
            (Err(refusal), _) => self.explain(stream, refusal),
            (Ok(_), Ask::TrackList) => {
                self.send(ServerMessage::TrackList { track_list: vec![stream_id.clone()], stream_id });
            }
            (Ok(stream_info), _) => self.send(ServerMessage::StreamInformation { stream_id, stream_info }),
        }
    }

    fn broadcast(&mut self, stream: &StreamId, result: Result<Option<String>, Refusal>) {
        self.asks = self.asks.saturating_sub(1);
        match result {
            Err(refusal) => self.explain(stream, refusal),
            Ok(None) => self.no_stream_exist(stream, None),
            Ok(Some(json)) => self.send(Notification {
                definition: words::BROADCAST_OBJECT.into(),
                stream_id: Some(stream.to_string()),
                broadcast: Some(json),
                ..Default::default()
            }),
        }
    }

    /// Said once per connection: on it the SDK reconnects elsewhere with everything it has.
    fn node_stopping(&mut self) {
        if !std::mem::replace(&mut self.stop_announced, true) {
            self.send(Notification { definition: words::SERVER_WILL_STOP.into(), ..Default::default() });
        }
    }
}
