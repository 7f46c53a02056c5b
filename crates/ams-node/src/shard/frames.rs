//! What a relay frame does to a shard.
//!
//! Owns the meaning of frames, not their bytes: media is taken in, subscriptions go to the control runtime, which knows
//! where streams are.

use std::sync::Arc;
use std::time::Instant;

use ams_relay::wire::{EndReason, EpochLow, Frame, Subscribed};
use bytes::Bytes;

use super::core::ShardCore;
use super::protocol::{LinkId, ShardEvent};
use super::stream::{Source, Stream};

impl ShardCore {
    /// One frame of a link. An error is a sentence, and ends the link.
    ///
    /// # Errors
    /// The other end broke a rule of the protocol.
    pub fn frame(&mut self, now: Instant, link: LinkId, frame: Frame<'_>) -> Result<(), String> {
        match frame {
            Frame::Media(media) => {
                let Some(key) = self.links.pulled_key(link, media.handle) else { return Ok(()) };
                let Some(&index) = self.by_key.get(key) else { return Ok(()) };
                let current = self.streams.get(index).is_some_and(|s| EpochLow::from(s.epoch) == media.epoch);
                if current {
                    self.links.count_in();
                    let packet = Arc::new(media.to_packet(now));
                    self.ingest(now, index, packet);
                }
            }
            Frame::Timing(timing) => {
                let Some(key) = self.links.pulled_key(link, timing.handle) else { return Ok(()) };
                if let Some(&index) = self.by_key.get(key)
                    && self.streams.get(index).is_some_and(|s| EpochLow::from(s.epoch) == timing.epoch)
                {
                    self.take_clock(index, timing.track, timing.layer, timing.to_source_clock(now));
                }
            }
            Frame::Gap(gap) => {
                let Some(key) = self.links.pulled_key(link, gap.handle) else { return Ok(()) };
                if let Some(&index) = self.by_key.get(key) {
                    self.gap(now, index, gap.track, gap.layer);
                }
            }
            Frame::DataMessage(message) => {
                let Some(key) = self.links.pulled_key(link, message.handle) else { return Ok(()) };
                if let Some(&index) = self.by_key.get(key) {
                    self.take_message(now, index, None, message.binary, Bytes::copy_from_slice(message.payload));
                }
            }
            Frame::KeyframeRequest { handle, track, layer } => {
                if let Some(key) = self.links.served_key(link, handle)
                    && let Some(&index) = self.by_key.get(&key)
                {
                    self.request_keyframe(now, index, track, layer);
                }
            }
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
                    self.emit(ShardEvent::PullEnded { link, key, sentence });
                }
            }
            Frame::End { handle, reason } => {
                if let Some(key) = self.links.ended(link, handle, reason) {
                    self.pull_ended(now, link, key, reason);
                }
            }
            Frame::Ping { .. } | Frame::Pong { .. } => self.links.ping_or_pong(now, link, &frame),
            // The origin's drain and interruptions act on the control runtime once it knows them.
            Frame::GoAway { .. } | Frame::StreamState { .. } | Frame::Unknown { .. } => {}
            Frame::Hello(_) | Frame::Auth(_) | Frame::Reject(_) => {
                return Err("a handshake frame came after the handshake".to_owned());
            }
        }
        Ok(())
    }

    fn subscribed(&mut self, now: Instant, link: LinkId, subscribed: Subscribed) {
        let Some(key) = self.links.subscribed(link, &subscribed) else { return };
        if let Some(&old) = self.by_key.get(&key) {
            // Another publication, or other tracks: viewers of the old one cannot go on with it.
            self.forget_stream(now, old);
            self.emit(ShardEvent::PullEnded { link, key: key.clone(), sentence: "the publisher changed".to_owned() });
            self.links.unsubscribe(link, &key);
            return;
        }
        let tracks = Arc::new(subscribed.tracks);
        let handle = subscribed.handle.0;
        let stream = Stream::new(now, key.clone(), subscribed.epoch, Arc::clone(&tracks), Source::Link(link, handle));
        self.add_stream(stream);
        self.emit(ShardEvent::Pulled { link, key, epoch: subscribed.epoch, tracks });
    }

    fn pull_ended(&mut self, now: Instant, link: LinkId, key: ams_types::StreamKey, reason: EndReason) {
        if let Some(&index) = self.by_key.get(&key) {
            self.forget_stream(now, index);
        }
        self.emit(ShardEvent::PullEnded { link, key, sentence: reason.to_string() });
    }
}
