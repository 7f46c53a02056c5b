//! A stream on more shards than its home: how replicas come, go and are fed.
//!
//! Owns what passes between shards. A ring that is full loses what does not fit; a replica's viewers find the gap by the
//! numbers and ask for a keyframe.

use std::sync::Arc;
use std::time::Instant;

use ams_media::StreamTracks;
use ams_types::{Epoch, MediaKind, StreamKey};

use super::core::ShardCore;
use super::protocol::{ShardMedia, ShardNo};
use super::stream::{Source, Stream};

impl ShardCore {
    /// This shard is to hold a replica.
    pub(super) fn add_replica(
        &mut self,
        now: Instant,
        key: StreamKey,
        home: ShardNo,
        epoch: Epoch,
        tracks: Arc<StreamTracks>,
    ) {
        if let Some(&index) = self.by_key.get(&key) {
            let Some(stream) = self.streams.get(index) else { return };
            let is_home = matches!(stream.source, Source::Publisher(_));
            if is_home || (stream.epoch, stream.source) == (epoch, Source::Shard(home)) {
                return;
            }
        }
        self.links.unsubscribe_all(&key);
        self.put_stream(now, Stream::new(now, key, epoch, tracks, Source::Shard(home)));
    }

    /// This shard is the home and has one more replica to feed.
    pub(super) fn feed_replica(&mut self, key: &StreamKey, to: ShardNo) {
        let Some(stream) = self.by_key.get(key).and_then(|index| self.streams.get_mut(*index)) else { return };
        if stream.replicas.contains(&to) {
            return;
        }
        stream.replicas.push(to);
        let Some(Some(ring)) = self.siblings.get(usize::from(to.0)) else { return };
        // Without reports its viewers' sound and picture would not be in step before the publisher's next ones; without
        // the run since the last keyframe they would wait for another.
        for layer in stream.layers() {
            if let Some(clock) = layer.clock {
                let (key, epoch) = (stream.key.clone(), stream.epoch);
                let _ = ring.try_send(ShardMedia::Clock { key, epoch, track: layer.track, layer: layer.no, clock });
            }
            let packets: Vec<_> = layer.ring.run_since_keyframe().into_iter().flatten().cloned().collect();
            if !packets.is_empty() && layer.codec.kind() == MediaKind::Video {
                let _ = ring.try_send(ShardMedia::Packets { key: stream.key.clone(), epoch: stream.epoch, packets });
            }
        }
    }

    /// That replica is gone.
    pub(super) fn stop_replica(&mut self, key: &StreamKey, to: ShardNo) {
        if let Some(stream) = self.by_key.get(key).and_then(|index| self.streams.get_mut(*index)) {
            stream.replicas.retain(|r| *r != to);
        }
    }

    /// Something from a sibling shard.
    pub fn sibling(&mut self, now: Instant, media: ShardMedia) {
        match media {
            ShardMedia::Packets { key, epoch, packets } => {
                if let Some(index) = self.replica(&key, epoch) {
                    for packet in packets {
                        self.ingest(now, index, packet);
                    }
                }
            }
            ShardMedia::Clock { key, epoch, track, layer, clock } => {
                if let Some(index) = self.replica(&key, epoch) {
                    self.take_clock(index, track, layer, clock);
                }
            }
            ShardMedia::Gap { key, epoch, track, layer, to } => {
                if let Some(index) = self.replica(&key, epoch) {
                    self.gap(now, index, track, layer, to);
                }
            }
            ShardMedia::Data { key, epoch, from, binary, data } => {
                if let Some(index) = self.replica(&key, epoch) {
                    self.hand_out(now, index, from, None, binary, &data);
                }
            }
            ShardMedia::FromViewer { key, epoch, from, binary, data } => {
                if self.by_key.get(&key).and_then(|i| self.streams.get(*i)).is_some_and(|s| s.epoch == epoch) {
                    self.sibling_message(now, &key, from, binary, data);
                }
            }
            ShardMedia::KeyframeRequest { key, track, layer } => {
                if let Some(&index) = self.by_key.get(&key) {
                    self.request_keyframe(now, index, track, layer);
                }
            }
        }
    }

    /// The replica of this publication, if it is here.
    fn replica(&self, key: &StreamKey, epoch: Epoch) -> Option<usize> {
        let index = *self.by_key.get(key)?;
        let stream = self.streams.get(index)?;
        (stream.epoch == epoch && matches!(stream.source, Source::Shard(_))).then_some(index)
    }
}
