//! Where a stream's media comes from: how a source comes, goes and is replaced under the stream's viewers.
//!
//! Owns that a stream on a shard has one source at a time, and that whoever reads its packets hears of a change. Viewers
//! stay what they are: their numbers and time go on. When a stream ends is the control runtime's decision.

use std::time::Instant;

use ams_relay::wire::EndReason;
use ams_types::{ExtSeq, LayerNo, TrackNo};

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
        self.lose_source(now, index, EndReason::Superseded);
        let Some(place) = self.streams.get_mut(index) else { return index };
        let viewers = std::mem::take(&mut place.viewers);
        let mut unfit = Vec::new();
        for &viewer in &viewers {
            let Some(Peer { id, role: Role::Viewer(viewer), .. }) = self.peers.get_mut(viewer) else { continue };
            // Whatever becomes of it: numbers of the former source mean nothing in the new one's rings.
            viewer.on_source_restart();
            if !viewer.can_go_on_with(&stream.tracks) {
                viewer.switch(None, false);
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
    pub(super) fn lose_source(&mut self, now: Instant, index: usize, reason: EndReason) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        let mut publisher = None;
        match std::mem::replace(&mut stream.source, Source::Lost) {
            Source::Link(link, _) => self.links.unsubscribe(link, &stream.key),
            Source::Publisher(id) => publisher = self.by_id.get(&id).copied(),
            Source::Shard(_) | Source::Lost => {}
        }
        for (link, handle) in std::mem::take(&mut stream.links) {
            self.links.end(link, handle, reason);
        }
        stream.replicas.clear();
        stream.forget_pending();
        self.dirty.retain(|d| *d != index);
        self.holding.retain(|h| *h != index);
        self.links.wake();
        if let Some(publisher) = publisher {
            self.close_peer(now, publisher);
        }
    }

    /// Packets of a layer up to `to` will not come: viewers go on at its next keyframe, as if nothing had been before it, and
    /// ask for nothing of the gap.
    pub(super) fn gap(&mut self, now: Instant, index: usize, track: TrackNo, layer: LayerNo, to: ExtSeq) {
        let Some(found) = self.streams.get(index).and_then(|s| s.layer(track, layer)) else { return };
        // Of one packet that came too late for the link: viewers are past it.
        if found.ring.first_from(ExtSeq(to.0.saturating_add(1))).is_some() {
            return;
        }
        // What came before the gap comes before it for viewers, too.
        self.hand_on(now, index);
        self.fan_out(now, index);
        let Some(stream) = self.streams.get(index) else { return };
        for &viewer in &stream.viewers {
            if let Some(Peer { role: Role::Viewer(viewer), .. }) = self.peers.get_mut(viewer) {
                viewer.on_gap(track, layer);
            }
        }
        for replica in &stream.replicas {
            if let Some(Some(ring)) = self.siblings.get(usize::from(replica.0)) {
                let (key, epoch) = (stream.key.clone(), stream.epoch);
                let _ = ring.try_send(ShardMedia::Gap { key, epoch, track, layer, to });
            }
        }
        self.request_keyframe(now, index, track, layer);
    }

    /// Ends a stream here: links hear why, its peers are closed, replicas are left to the control runtime.
    pub(super) fn close_stream(&mut self, now: Instant, index: usize, reason: EndReason) {
        self.lose_source(now, index, reason);
        let peers: Vec<usize> = self.peers.iter().filter(|(_, p)| p.stream == index).map(|(i, _)| i).collect();
        for peer in peers {
            self.close_peer(now, peer);
        }
        if let Some(stream) = self.streams.try_remove(index) {
            self.by_key.remove(&stream.key);
        }
    }

    /// Forgets a link whose connection is gone, or closes one that is not.
    pub(super) fn drop_link(&mut self, now: Instant, link: LinkId) {
        self.links.remove(link);
        let mut lost = Vec::new();
        for (index, stream) in &mut self.streams {
            stream.links.retain(|(l, _)| *l != link);
            if matches!(stream.source, Source::Link(l, _) if l == link) {
                lost.push(index);
            }
        }
        for index in lost {
            self.lose_source(now, index, EndReason::Moved);
        }
    }
}
