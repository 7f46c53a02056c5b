//! Data channel messages: from the publisher to every viewer, from viewers to the publisher and to each other.
//!
//! Owns who gets a message, and how much one viewer may say. A message goes out from its stream's home: to the viewers
//! there, to replicas, over served links, and towards the publisher; with each goes who sent it, so that nobody gets an
//! own message back. Messages pass unchanged and in the order of their sender; what a slow receiver's backlog has no
//! room for is lost and counted.

use std::time::{Duration, Instant};

use ams_types::{NodeId, StreamKey};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::core::{Peer, Role, ShardCore};
use super::protocol::{LinkId, ShardMedia};
use super::stream::Source;

/// Messages a viewer may send at once when rested, and per second. The SDK splits what is binary into pieces of 16 kB.
const BURST: f64 = 200.0;
const PER_SECOND: f64 = 50.0;

/// Who gets what viewers say; AMS's `dataChannelPlayerDistribution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// The publisher and all other viewers.
    #[default]
    All,
    /// The publisher.
    Publisher,
    /// Nobody.
    None,
}

/// Who sent a message, if it was a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The node the viewer is connected to.
    pub node: NodeId,
    /// Its peer there.
    pub peer: u64,
}

/// How much a viewer has left to say.
#[derive(Debug)]
pub(super) struct Talk {
    left: f64,
    at: Option<Instant>,
}

impl Default for Talk {
    fn default() -> Self {
        Self { left: BURST, at: None }
    }
}

impl Talk {
    fn may(&mut self, now: Instant) -> bool {
        let since = self.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.left = (self.left + since.as_secs_f64() * PER_SECOND).min(BURST);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

impl ShardCore {
    /// The publisher on this shard said something.
    pub(super) fn publisher_message(&mut self, now: Instant, index: usize, binary: bool, data: Bytes) {
        self.hand_out(now, index, None, None, binary, &data);
    }

    /// A viewer on this shard said something.
    pub(super) fn viewer_message(&mut self, now: Instant, peer: usize, index: usize, binary: bool, data: Bytes) {
        let Some(viewer) = self.peers.get_mut(peer) else { return };
        if self.distribution == Distribution::None || !viewer.talk.may(now) {
            self.counts.messages_dropped += 1;
            return;
        }
        let from = From { node: self.links.node().clone(), peer: viewer.id.0 };
        self.upward(now, index, from, None, binary, data);
    }

    /// What a viewer, here or behind `came_by`, said reaches its stream's home, and from there everybody it is for.
    pub(super) fn upward(
        &mut self,
        now: Instant,
        index: usize,
        from: From,
        came_by: Option<LinkId>,
        binary: bool,
        data: Bytes,
    ) {
        let Some(stream) = self.streams.get(index) else { return };
        match stream.source {
            Source::Shard(home) => {
                let (key, epoch) = (stream.key.clone(), stream.epoch);
                if let Some(Some(ring)) = self.siblings.get(usize::from(home.0)) {
                    let message = ShardMedia::FromViewer { key, epoch, from, binary, data };
                    self.counts.messages_dropped += u64::from(ring.try_send(message).is_err());
                }
                return;
            }
            Source::Publisher(id) => {
                if let Some(&at) = self.by_id.get(&id)
                    && let Some(Peer { role: Role::Publisher(publisher), .. }) = self.peers.get_mut(at)
                {
                    self.counts.messages_dropped += publisher.send_message(now, binary, &data);
                    self.after(now, at, None);
                }
            }
            Source::Link(link, handle) => self.links.push_message(link, handle, Some(&from), binary, &data),
            Source::Lost => {}
        }
        if self.distribution == Distribution::All {
            self.hand_out(now, index, Some(from), came_by, binary, &data);
        }
    }

    /// A message goes to the viewers of a stream on this shard, to replicas and over served links, but not back to its
    /// sender, nor over the link it came by.
    pub(super) fn hand_out(
        &mut self,
        now: Instant,
        index: usize,
        from: Option<From>,
        came_by: Option<LinkId>,
        binary: bool,
        data: &Bytes,
    ) {
        let Some(stream) = self.streams.get(index) else { return };
        for &(link, handle) in stream.links.iter().filter(|(link, _)| Some(*link) != came_by) {
            self.links.push_message(link, handle, from.as_ref(), binary, data);
        }
        for to in &stream.replicas {
            if let Some(Some(ring)) = self.siblings.get(usize::from(to.0)) {
                let (key, epoch, data) = (stream.key.clone(), stream.epoch, data.clone());
                let message = ShardMedia::Data { key, epoch, from: from.clone(), binary, data };
                self.counts.messages_dropped += u64::from(ring.try_send(message).is_err());
            }
        }
        let sender = from.filter(|from| from.node == *self.links.node()).map(|from| from.peer);
        for viewer in stream.viewers.clone() {
            let Some(Peer { id, role: Role::Viewer(peer), .. }) = self.peers.get_mut(viewer) else { continue };
            if sender == Some(id.0) {
                continue;
            }
            self.counts.messages_dropped += peer.send_message(now, binary, data);
            self.after(now, viewer, None);
        }
    }

    /// The server itself says something, to the publisher and to every viewer.
    pub(super) fn say(&mut self, now: Instant, key: &StreamKey, text: &Bytes) {
        let Some(&index) = self.by_key.get(key) else { return };
        if let Some(Source::Publisher(id)) = self.streams.get(index).map(|stream| &stream.source)
            && let Some(&at) = self.by_id.get(id)
            && let Some(Peer { role: Role::Publisher(publisher), .. }) = self.peers.get_mut(at)
        {
            self.counts.messages_dropped += publisher.send_message(now, false, text);
            self.after(now, at, None);
        }
        self.hand_out(now, index, None, None, false, text);
    }

    /// A message of a viewer on another shard of this node.
    pub(super) fn sibling_message(&mut self, now: Instant, key: &StreamKey, from: From, binary: bool, data: Bytes) {
        if let Some(&index) = self.by_key.get(key) {
            self.upward(now, index, from, None, binary, data);
        }
    }
}
