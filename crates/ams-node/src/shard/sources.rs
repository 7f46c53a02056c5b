//! Where a stream's media comes from: how a source comes, goes and is replaced under the stream's viewers.
//!
//! Owns that a stream on a shard has one source at a time, and that whoever reads its packets hears of a change. Viewers
//! stay what they are: their numbers and time go on. When a stream ends is the control runtime's decision.

use std::time::Instant;

use ams_relay::wire::EndReason;
use ams_types::{LayerNo, TrackNo};

use super::core::{Peer, Role, ShardCore};
use super::protocol::{LinkId, ShardEvent, ShardMedia};
use super::stream::{Source, Stream};

impl ShardCore {
    /// Takes a stream in. One of its name that is here already ends its links and leaves its viewers to the new one, as
    /// far as they can decode it.
    pub(super) fn put_stream(&mut self, now: Instant, mut stream: Stream) -> usize {
        let Some(&index) = self.by_key.get(&stream.key) else {
            let key = stream.key.clone();
            let index = self.streams.insert(stream);
            self.by_key.insert(key, index);
            return index;
        };
        self.lose_source(index, EndReason::Superseded);
        let published = |(at, peer): (usize, &Peer)| {
            (peer.stream == index && matches!(peer.role, Role::Publisher(_))).then_some(at)
        };
        if let Some(former) = self.peers.iter().find_map(published) {
            self.close_peer(now, former);
        }
        let Some(place) = self.streams.get_mut(index) else { return index };
        let viewers = std::mem::take(&mut place.viewers);
        let mut unfit = Vec::new();
        for &viewer in &viewers {
            let Some(Peer { id, role: Role::Viewer(viewer), .. }) = self.peers.get_mut(viewer) else { continue };
            if viewer.can_go_on_with(&stream.tracks) {
                viewer.on_source_restart();
            } else {
                unfit.push(*id);
            }
        }
        stream.viewers = viewers;
        *place = stream;
        for peer in unfit {
            self.emit(ShardEvent::ViewerUnfit { peer });
        }
        index
    }

    /// A stream's source is gone: links hear why, viewers stay and wait for another.
    pub(super) fn lose_source(&mut self, index: usize, reason: EndReason) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        if let Source::Link(link, _) = std::mem::replace(&mut stream.source, Source::Lost) {
            self.links.unsubscribe(link, &stream.key);
        }
        for (link, handle) in std::mem::take(&mut stream.links) {
            self.links.end(link, handle, reason);
        }
        stream.replicas.clear();
        stream.forget_pending();
        self.dirty.retain(|d| *d != index);
        self.holding.retain(|h| *h != index);
        self.links.wake();
    }

    /// Packets of a layer will not come: viewers go on at its next keyframe, as if nothing had been before it, and ask for
    /// nothing of the gap.
    pub(super) fn gap(&mut self, now: Instant, index: usize, track: TrackNo, layer: LayerNo) {
        let Some(stream) = self.streams.get(index) else { return };
        for &viewer in &stream.viewers {
            if let Some(Peer { role: Role::Viewer(viewer), .. }) = self.peers.get_mut(viewer) {
                viewer.on_gap(track, layer);
            }
        }
        for to in &stream.replicas {
            if let Some(Some(ring)) = self.siblings.get(usize::from(to.0)) {
                let (key, epoch) = (stream.key.clone(), stream.epoch);
                let _ = ring.try_send(ShardMedia::Gap { key, epoch, track, layer });
            }
        }
        self.request_keyframe(now, index, track, layer);
    }

    /// Ends a stream here: links hear why, its peers are closed, replicas are left to the control runtime.
    pub(super) fn close_stream(&mut self, now: Instant, index: usize, reason: EndReason) {
        self.lose_source(index, reason);
        let peers: Vec<usize> = self.peers.iter().filter(|(_, p)| p.stream == index).map(|(i, _)| i).collect();
        for peer in peers {
            self.close_peer(now, peer);
        }
        if let Some(stream) = self.streams.try_remove(index) {
            self.by_key.remove(&stream.key);
        }
    }

    /// Forgets a link whose connection is gone, or closes one that is not.
    pub(super) fn drop_link(&mut self, link: LinkId) {
        self.links.remove(link);
        let mut lost = Vec::new();
        for (index, stream) in &mut self.streams {
            stream.links.retain(|(l, _)| *l != link);
            if matches!(stream.source, Source::Link(l, _) if l == link) {
                lost.push(index);
            }
        }
        for index in lost {
            self.lose_source(index, EndReason::Moved);
        }
    }
}
