//! A client's message to what it starts.
//!
//! Owns the order of AMS's checks: is there a stream id, is it valid, which command. Unknown commands and messages
//! about sessions that do not exist are ignored.

use ams_types::StreamId;

use super::Session;
use crate::client::{ClientMessage, Command, SdpKind};
use crate::effect::{Ask, Effect, PlayWish, PublishWish};
use crate::leg::{Phase, Role};
use crate::server::{ErrorFrame, Notification, ServerMessage};
use crate::words;

/// Longest invalid stream id that is echoed, in bytes.
const ECHO_LEN_MAX: usize = 256;
/// Longest subscriber id that is kept, in bytes.
const SUBSCRIBER_ID_LEN_MAX: usize = 256;

impl Session {
    pub(super) fn dispatch(&mut self, message: ClientMessage) {
        if message.command.is_streamless() {
            return self.dispatch_streamless(message.command);
        }
        let Some(name) = message.stream_id else {
            return self.send(ErrorFrame { definition: words::NO_STREAM_NAME_SPECIFIED.into(), ..Default::default() });
        };
        let Ok(stream) = name.parse::<StreamId>() else {
            return self.send(ErrorFrame {
                definition: words::INVALID_STREAM_NAME.into(),
                stream_id: Some(cut(name, ECHO_LEN_MAX)),
                ..Default::default()
            });
        };
        let subscriber = message.subscriber_id.map(|id| cut(id, SUBSCRIBER_ID_LEN_MAX));
        match message.command {
            Command::Publish { stream_name, main_track, meta_data, video, audio, credentials } => {
                let wish = PublishWish { stream, stream_name, main_track, meta_data, video, audio, credentials };
                self.publish(wish, subscriber);
            }
            Command::Play { credentials, room, track_list } => {
                self.play(PlayWish { stream, credentials, room, track_list }, subscriber);
            }
            Command::Stop => self.stop(&stream),
            Command::TakeConfiguration { kind, sdp } => self.take_configuration(&stream, kind, sdp),
            Command::TakeCandidate { candidate, .. } => {
                let leg = self.publishers.get(&stream).or_else(|| self.viewers.get(&stream)).copied();
                if let Some(leg) = leg {
                    self.effect(Effect::RemoteCandidate { leg, candidate });
                }
            }
            Command::Steer(steer) => {
                if let Some(leg) = self.viewers.get(&stream).copied() {
                    self.effect(Effect::Steer { leg, steer });
                }
            }
            Command::GetStreamInfo => self.ask(stream, Ask::StreamInfo),
            Command::GetTrackList => self.ask(stream, Ask::TrackList),
            Command::GetBroadcastObject => self.ask(stream, Ask::Broadcast),
            other => self.answer_absent_feature(&stream, other),
        }
    }

    fn dispatch_streamless(&mut self, command: Command) {
        match command {
            Command::Ping => self.send(ServerMessage::Pong),
            Command::GetIceServerConfig => {
                let server = self.ice_server.clone();
                self.send(ServerMessage::IceServerConfig {
                    stun_server_uri: server.uri,
                    turn_server_username: server.username,
                    turn_server_credential: server.credential,
                });
            }
            Command::Push(word) => self.send(Notification {
                definition: word,
                success: Some(false),
                information: Some("push notifications are not available on this server".into()),
                ..Default::default()
            }),
            _ => {}
        }
    }

    fn publish(&mut self, wish: PublishWish, subscriber: Option<String>) {
        if self.publishers.contains_key(&wish.stream) {
            return self.error(&wish.stream, words::ALREADY_PUBLISHING, None);
        }
        // A stop of the same id is still being carried out: the claim would meet its own predecessor.
        let closing =
            self.closing.values_mut().find(|closing| closing.role == Role::Publisher && closing.stream == wish.stream);
        match closing {
            Some(closing) if closing.then.is_some() => self.error(&wish.stream, words::ALREADY_PUBLISHING, None),
            Some(closing) => closing.then = Some((wish, subscriber)),
            None => self.open_publisher(wish, subscriber),
        }
    }

    pub(super) fn open_publisher(&mut self, wish: PublishWish, subscriber: Option<String>) {
        if let Some(leg) = self.new_leg(&wish.stream, Role::Publisher, subscriber) {
            self.effect(Effect::OpenPublisher { leg, wish });
        }
    }

    fn play(&mut self, wish: PlayWish, subscriber: Option<String>) {
        if self.viewers.contains_key(&wish.stream) {
            return self.error(&wish.stream, words::ALREADY_PLAYING, None);
        }
        if let Some(leg) = self.new_leg(&wish.stream, Role::Viewer, subscriber) {
            self.effect(Effect::OpenViewer { leg, wish });
        }
    }

    /// Lets go at once, whatever state things are in: the SDK sends `stop` and, 500 ms later, the request again.
    fn stop(&mut self, stream: &StreamId) {
        self.stop_waiting(stream);
        for (role, word) in [(Role::Publisher, words::PUBLISH_FINISHED), (Role::Viewer, words::PLAY_FINISHED)] {
            let leg = self.by_stream(role).get(stream).copied();
            if let Some(state) = leg.and_then(|leg| self.close_leg(leg)) {
                self.notify(word, stream, Some(state.subscriber_id), None);
            }
        }
        let held = self
            .closing
            .values_mut()
            .filter(|closing| closing.stream == *stream)
            .find_map(|closing| closing.then.take());
        if let Some((_, subscriber)) = held {
            self.notify(words::PUBLISH_FINISHED, stream, Some(subscriber), None);
        }
    }

    fn take_configuration(&mut self, stream: &StreamId, kind: SdpKind, sdp: Option<String>) {
        let role = match kind {
            SdpKind::Offer => Role::Publisher,
            SdpKind::Answer => Role::Viewer,
            SdpKind::Other => return,
        };
        let Some(leg) = self.by_stream(role).get(stream).copied() else { return };
        let Some(state) = self.legs.get_mut(&leg) else { return };
        let waits_for_it = match (&state.phase, role) {
            (Phase::Opening { early_offer }, Role::Publisher) => early_offer.is_none(),
            (Phase::AwaitingSdp, _) => true,
            _ => false,
        };
        if !waits_for_it {
            return;
        }
        let Some(sdp) = sdp else {
            return self.bad_description(leg, "the message carries no session description".into());
        };
        match (&mut state.phase, role) {
            (Phase::Opening { early_offer }, _) => *early_offer = Some(sdp),
            (_, Role::Publisher) => {
                state.phase = Phase::Negotiating { early_start: None };
                self.effect(Effect::PublisherOffer { leg, sdp });
            }
            (_, Role::Viewer) => {
                state.phase = Phase::Connecting;
                self.effect(Effect::ViewerAnswer { leg, sdp });
            }
        }
    }

    fn ask(&mut self, stream: StreamId, ask: Ask) {
        if self.asks >= self.limits.asks {
            let sentence = "too many questions at once on this connection; wait for the answers";
            return self.error(&stream, words::HIGH_RESOURCE_USAGE, Some(sentence.into()));
        }
        self.asks += 1;
        self.effect(Effect::Get { stream, ask });
    }

    /// Features this server does not have: an answer where clients wait for one, silence otherwise.
    fn answer_absent_feature(&mut self, stream: &StreamId, command: Command) {
        let notification = |definition: &str| Notification {
            definition: definition.into(),
            stream_id: Some(stream.to_string()),
            ..Default::default()
        };
        match command {
            Command::GetSubscriberCount => {
                self.send(Notification { count: Some(0), ..notification(words::SUBSCRIBER_COUNT) });
            }
            Command::GetSubscribers => {
                self.send(Notification { subscriber_list: Some(Vec::new()), ..notification(words::SUBSCRIBER_LIST) });
            }
            Command::GetSubtracks => {
                self.send(Notification { subtrack_list: Some(Vec::new()), ..notification(words::SUBTRACK_LIST) });
            }
            Command::GetSubtracksCount => {
                self.send(Notification { count: Some(0), ..notification(words::SUBTRACK_COUNT) });
            }
            Command::GetDebugInfo => {
                let text = format!(
                    "publishers {}, viewers {}, waiting {} on this connection",
                    self.publishers.len(),
                    self.viewers.len(),
                    self.waiting.len()
                );
                self.send(Notification { debug_info: Some(text), ..notification(words::DEBUG_INFO) });
            }
            Command::JoinRoom { room } if room.is_empty() => self.error(stream, words::NO_ROOM_SPECIFIED, None),
            Command::JoinRoom { room } => self.room_error(stream, words::ROOM_NOT_ACTIVE, room),
            Command::GetRoomInfo { room } => self.room_error(stream, words::NO_ACTIVE_STREAMS_IN_ROOM, room),
            Command::LeaveFromRoom { room } => self.send(Notification {
                attr_room_name: Some(room.clone()),
                room: Some(room),
                ..notification(words::LEAVED_FROM_ROOM)
            }),
            Command::PeerMessage => self.error(stream, words::NO_PEER_ASSOCIATED, None),
            _ => {}
        }
    }

    fn room_error(&mut self, stream: &StreamId, definition: &str, room: String) {
        self.send(ErrorFrame {
            definition: definition.into(),
            stream_id: Some(stream.to_string()),
            room: Some(room),
            ..Default::default()
        });
    }
}

/// The longest prefix of at most `max` bytes that ends on a character.
fn cut(mut text: String, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn texts_are_cut_between_characters() {
        for (name, text, max, want) in [
            ("short", "ab", 5, "ab"),
            ("exact", "ab", 2, "ab"),
            ("long", "abc", 2, "ab"),
            ("inside a character", "aøb", 2, "a"),
            ("nothing fits", "ø", 1, ""),
        ] {
            assert_eq!(cut(text.into(), max), want, "{name}");
        }
    }
}
