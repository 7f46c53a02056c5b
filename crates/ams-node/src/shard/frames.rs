//! What a relay frame does to a shard.
//!
//! Owns the meaning of frames, not their bytes: media is taken in, subscriptions go to the control runtime, which knows
//! where streams are.

use std::sync::Arc;
use std::time::Instant;

use ams_relay::wire::{EndReason, EpochLow, Find, Frame, GO_AWAY_WITHDRAWN, StreamHandle, Subscribed};
use ams_types::StreamKey;
use bytes::Bytes;

use super::core::ShardCore;
use super::messages::From;
use super::protocol::{LinkId, PullEnd, ShardEvent};
use super::stream::{Source, Stream};

/// Events the control runtime has not taken yet, beyond which nobody may ask for more streams.
const EVENTS_WAITING_MAX: usize = 4096;

impl ShardCore {
    /// One frame of a link. An error is a sentence, and ends the link.
    ///
    /// # Errors
    /// The other end broke a rule of the protocol.
    pub fn frame(&mut self, now: Instant, link: LinkId, frame: Frame<'_>) -> Result<(), String> {
        match frame {
            Frame::Media(media) => {
                let Some(index) = self.pulled_stream(link, media.handle) else { return Ok(()) };
                let current = self.streams.get(index).is_some_and(|s| EpochLow::from(s.epoch) == media.epoch);
                if current {
                    self.links.count_in();
                    let packet = Arc::new(media.to_packet(now));
                    self.ingest(now, index, packet);
                }
            }
            Frame::Timing(timing) => {
                if let Some(index) = self.pulled_stream(link, timing.handle)
                    && self.streams.get(index).is_some_and(|s| EpochLow::from(s.epoch) == timing.epoch)
                {
                    self.take_clock(index, timing.track, timing.layer, timing.to_source_clock(now));
                }
            }
            Frame::Gap(gap) => {
                if let Some(index) = self.pulled_stream(link, gap.handle)
                    && self.streams.get(index).is_some_and(|s| EpochLow::from(s.epoch) == gap.epoch)
                {
                    self.gap(now, index, gap.track, gap.layer, gap.to);
                }
            }
            Frame::DataMessage(message) => {
                let data = Bytes::copy_from_slice(message.payload);
                let from = From { node: message.from_node, peer: message.from_peer };
                if let Some(index) = self.pulled_stream(link, message.handle) {
                    // What viewers of this node said has been handed out here already.
                    if from.node != *self.links.node() {
                        let from = (from.peer != 0).then_some(from);
                        self.hand_out(now, index, from, None, message.binary, &data);
                    }
                } else if let Some(key) = self.links.served_key(link, message.handle)
                    && let Some(&index) = self.by_key.get(&key)
                {
                    self.upward(now, index, from, Some(link), message.binary, data);
                }
            }
            Frame::KeyframeRequest { handle, track, layer } => {
                if let Some(key) = self.links.served_key(link, handle)
                    && let Some(&index) = self.by_key.get(&key)
                {
                    self.request_keyframe(now, index, track, layer);
                }
            }
            Frame::Subscribe(_) if self.events_waiting() > EVENTS_WAITING_MAX => {
                return Err("the other end asks for streams faster than this node can answer".to_owned());
            }
            // Who asks does not wait for long, and the number is told again when it changes.
            Frame::Find(_) | Frame::Audience { .. } if self.events_waiting() > EVENTS_WAITING_MAX => {}
            Frame::Find(Find { nonce, key }) => self.emit(ShardEvent::FindRequested { link, nonce, key }),
            Frame::Audience { handle, viewers } => {
                if let Some(key) = self.links.served_key(link, handle) {
                    self.emit(ShardEvent::Audience { link, key, viewers });
                }
            }
            // Asked on links of their own.
            Frame::Found(_) => {}
            Frame::Subscribe(subscribe) => {
                if let Some((handle, key)) = self.links.asked(link, subscribe) {
                    self.emit(ShardEvent::ServeRequested { link, handle, key });
                }
            }
            Frame::Unsubscribe { handle } => {
                if let Some(key) = self.links.unsubscribed(link, handle) {
                    self.unserve(link, &key);
                    self.emit(ShardEvent::ServeEnded { link, key });
                }
            }
            Frame::Subscribed(subscribed) | Frame::TracksChanged(subscribed) => self.subscribed(now, link, subscribed),
            Frame::Refused(refused) => {
                if let Some(key) = self.links.refused(link, &refused) {
                    let sentence = format!("refused by the origin: {}", refused.code);
                    self.emit(ShardEvent::PullEnded { link, key, end: PullEnd::Way, sentence });
                }
            }
            Frame::End { handle, reason } => {
                if let Some(key) = self.links.ended(link, handle, reason) {
                    self.pull_ended(now, link, key, reason);
                }
            }
            Frame::Ping { .. } | Frame::Pong { .. } => self.links.ping_or_pong(now, link, &frame),
            // Nothing depends on it, as with the audience.
            Frame::GoAway { .. } if self.events_waiting() > EVENTS_WAITING_MAX => {}
            Frame::GoAway { deadline } => {
                if let Some(remote) = self.links.origin_of(link) {
                    let left = (deadline != GO_AWAY_WITHDRAWN).then_some(deadline);
                    self.emit(ShardEvent::OriginLeaves { link, remote, left });
                }
            }
            // Interruptions act on the control runtime once it knows them.
            Frame::StreamState { .. } | Frame::Unknown { .. } => {}
            Frame::Hello(_) | Frame::Auth(_) | Frame::Reject(_) => {
                return Err("a handshake frame came after the handshake".to_owned());
            }
        }
        Ok(())
    }

    /// The stream a handle of a pulled link brings, if it is here.
    fn pulled_stream(&self, link: LinkId, handle: StreamHandle) -> Option<usize> {
        self.brought_by(link, self.links.pulled_key(link, handle)?)
    }

    /// A stream, if it is here and this link is where it comes from.
    fn brought_by(&self, link: LinkId, key: &StreamKey) -> Option<usize> {
        let index = *self.by_key.get(key)?;
        let stream = self.streams.get(index)?;
        matches!(stream.source, Source::Link(source, _) if source == link).then_some(index)
    }

    /// The origin sends a stream, or has another publication of it. Viewers who watch it already go on with it.
    fn subscribed(&mut self, now: Instant, link: LinkId, subscribed: Subscribed) {
        let Some(key) = self.links.subscribed(link, &subscribed) else { return };
        let source = Source::Link(link, subscribed.handle.0);
        if let Some(stream) = self.by_key.get(&key).and_then(|index| self.streams.get_mut(*index)) {
            match stream.source {
                Source::Publisher(_) => {
                    self.links.unsubscribe(link, &key);
                    let sentence = "it is published on this node meanwhile".to_owned();
                    self.emit(ShardEvent::PullEnded { link, key, end: PullEnd::Way, sentence });
                    return;
                }
                // The subscription stays: only what it brings is another.
                present if present == source => stream.source = Source::Lost,
                _ => {}
            }
        }
        let tracks = Arc::new(subscribed.tracks);
        self.put_stream(now, Stream::new(now, key.clone(), subscribed.epoch, Arc::clone(&tracks), source));
        self.emit(ShardEvent::Pulled { link, key, epoch: subscribed.epoch, tracks });
    }

    fn pull_ended(&mut self, now: Instant, link: LinkId, key: StreamKey, reason: EndReason) {
        if let Some(index) = self.brought_by(link, &key) {
            self.lose_source(now, index, reason);
        }
        let end = match reason {
            EndReason::Finished | EndReason::ByRequest => PullEnd::Stream,
            EndReason::PublisherLost | EndReason::Superseded => PullEnd::Publication,
            _ => PullEnd::Way,
        };
        self.emit(ShardEvent::PullEnded { link, key, end, sentence: reason.to_string() });
    }
}
