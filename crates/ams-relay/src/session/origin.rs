//! What the peer of one link pulls from this node.
//!
//! Owns the link's handles and the rules for a new one; ends with the link. Whether the stream exists is for the node
//! to say. Bounded by the number of streams one link may carry.

use std::collections::HashMap;

use ams_types::{Epoch, StreamKey};

use crate::wire::{Frame, RefuseCode, Refused, Resume, StreamHandle, Subscribe};

/// A subscription the link may have; now look for the stream, then send Subscribed or Refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// How the link names it.
    pub handle: StreamHandle,
    /// The stream.
    pub key: StreamKey,
    /// Nodes it will have passed at the peer.
    pub hops: u8,
    /// How far the peer got on an earlier link.
    pub resume: Option<Resume>,
}

/// A subscription the link may not have, or that has no stream: to be sent as Refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The handle the peer chose.
    pub handle: StreamHandle,
    /// For programs.
    pub code: RefuseCode,
    /// For people.
    pub sentence: String,
}

impl Refusal {
    /// The frame to send.
    pub fn frame(&self) -> Frame<'_> {
        Frame::Refused(Refused { handle: self.handle, code: self.code, sentence: &self.sentence })
    }
}

#[derive(Clone, Debug)]
struct Subscriber {
    key: StreamKey,
    /// Set once Subscribed was sent.
    epoch: Option<Epoch>,
}

/// The subscriptions of one link.
#[derive(Clone, Debug)]
pub struct LinkSubscribers {
    by_handle: HashMap<StreamHandle, Subscriber>,
    by_key: HashMap<StreamKey, StreamHandle>,
    max: usize,
    hops_max: u8,
}

impl LinkSubscribers {
    /// None yet; at most `max` at a time, of streams that pass at most `hops_max` nodes.
    pub fn new(max: usize, hops_max: u8) -> Self {
        Self { by_handle: HashMap::new(), by_key: HashMap::new(), max, hops_max }
    }

    /// The peer asks for a stream.
    ///
    /// # Errors
    /// A rule forbids it; send the [`Refusal`].
    pub fn on_subscribe(&mut self, subscribe: Subscribe) -> Result<Admitted, Refusal> {
        let Subscribe { handle, key, hops, resume } = subscribe;
        let refuse = |code, sentence| Err(Refusal { handle, code, sentence });
        if let Some(other) = self.by_handle.get(&handle) {
            let sentence = format!("handle {handle} already names {}: every subscription needs its own", other.key);
            return refuse(RefuseCode::HandleInUse, sentence);
        }
        if let Some(other) = self.by_key.get(&key) {
            let sentence = format!("{key} already goes over this link as handle {other}: share it on your side");
            return refuse(RefuseCode::AlreadySubscribed, sentence);
        }
        if hops == 0 || hops > self.hops_max {
            let sentence =
                format!("{key} would pass {hops} nodes, allowed are 1 to {} (relay.hops_max)", self.hops_max);
            return refuse(RefuseCode::TooManyHops, sentence);
        }
        if self.by_handle.len() >= self.max {
            let sentence =
                format!("this link carries {} streams, which is the limit (relay.subscriptions_max)", self.max);
            return refuse(RefuseCode::LinkFull, sentence);
        }
        self.by_handle.insert(handle, Subscriber { key: key.clone(), epoch: None });
        self.by_key.insert(key.clone(), handle);
        Ok(Admitted { handle, key, hops, resume })
    }

    /// Subscribed or TracksChanged was sent. Returns whether the subscription still exists.
    pub fn activate(&mut self, handle: StreamHandle, epoch: Epoch) -> bool {
        match self.by_handle.get_mut(&handle) {
            Some(subscriber) => {
                subscriber.epoch = Some(epoch);
                true
            }
            None => false,
        }
    }

    /// The subscription is over: the peer unsubscribed, or Refused or End was sent. Returns its stream.
    pub fn remove(&mut self, handle: StreamHandle) -> Option<StreamKey> {
        let key = self.by_handle.remove(&handle)?.key;
        self.by_key.remove(&key);
        Some(key)
    }

    /// The stream behind a handle.
    pub fn key(&self, handle: StreamHandle) -> Option<&StreamKey> {
        self.by_handle.get(&handle).map(|subscriber| &subscriber.key)
    }

    /// The publication the peer was told of; none before Subscribed.
    pub fn epoch(&self, handle: StreamHandle) -> Option<Epoch> {
        self.by_handle.get(&handle)?.epoch
    }

    /// The handle under which a stream goes over the link.
    pub fn handle(&self, key: &StreamKey) -> Option<StreamHandle> {
        self.by_key.get(key).copied()
    }

    /// Every subscription; what to let go when the link ends.
    pub fn iter(&self) -> impl Iterator<Item = (StreamHandle, &StreamKey)> {
        self.by_handle.iter().map(|(handle, subscriber)| (*handle, &subscriber.key))
    }

    /// How many streams go over the link.
    pub fn len(&self) -> usize {
        self.by_handle.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.by_handle.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(handle: u32, id: &str, hops: u8) -> Subscribe {
        let key = StreamKey::new("WebRTCAppEE".parse().unwrap(), id.parse().unwrap());
        Subscribe { handle: StreamHandle(handle), key, hops, resume: None }
    }

    #[test]
    fn what_the_link_may_not_have_is_refused_with_its_reason() {
        let mut link = LinkSubscribers::new(2, 3);
        link.on_subscribe(subscribe(1, "a", 1)).unwrap();
        for (name, wanted, code) in [
            ("handle twice", subscribe(1, "b", 1), RefuseCode::HandleInUse),
            ("stream twice", subscribe(2, "a", 1), RefuseCode::AlreadySubscribed),
            ("a loop", subscribe(2, "b", 4), RefuseCode::TooManyHops),
            ("no hop at all", subscribe(2, "b", 0), RefuseCode::TooManyHops),
        ] {
            let refusal = link.on_subscribe(wanted).unwrap_err();
            assert_eq!(refusal.code, code, "{name}");
            assert!(!refusal.sentence.is_empty(), "{name}");
        }
        link.on_subscribe(subscribe(2, "b", 3)).unwrap();
        assert_eq!(link.on_subscribe(subscribe(3, "c", 1)).unwrap_err().code, RefuseCode::LinkFull);
        assert_eq!(link.len(), 2, "a refused subscription leaves nothing behind");
    }

    #[test]
    fn an_ended_subscription_frees_handle_and_stream() {
        let mut link = LinkSubscribers::new(2, 3);
        let admitted = link.on_subscribe(subscribe(1, "a", 1)).unwrap();
        assert_eq!(link.epoch(admitted.handle), None);
        assert!(link.activate(admitted.handle, Epoch(4)));
        assert_eq!(link.epoch(admitted.handle), Some(Epoch(4)));
        assert_eq!(link.remove(admitted.handle), Some(admitted.key.clone()));
        assert_eq!(link.remove(admitted.handle), None);
        assert!(!link.activate(admitted.handle, Epoch(5)), "an answer after unsubscribe");
        assert_eq!(link.handle(&admitted.key), None);
        link.on_subscribe(subscribe(1, "a", 1)).unwrap();
    }
}
