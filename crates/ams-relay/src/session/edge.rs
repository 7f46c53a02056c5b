//! What an edge pulls from one origin.
//!
//! Owns the handles and outlives the link: after a redial [`Subscriptions::resubscribe`] lists what to ask for again.
//! Bounded by the number of streams one link may carry. Frames of handles it does not know are late ones of
//! subscriptions that ended here first, and are ignored.

use std::collections::HashMap;

use ams_types::{Epoch, StreamKey};

use crate::wire::{EndReason, EpochLow, RefuseCode, Refused, Resume, StreamHandle, Subscribe, Subscribed};

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Asked for, or to be asked for when the link stands again; no answer yet.
    Waiting,
    /// The origin sends it.
    Active {
        /// Which publication.
        epoch: Epoch,
    },
    /// The origin does not send it. Stays so until the edge lets go or asks again.
    Refused {
        /// Why.
        code: RefuseCode,
    },
}

/// Why a stream cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The link carries as many streams as it may.
    #[error("{max} streams are pulled from this origin already, which is the limit (relay.subscriptions_max)")]
    LinkFull {
        /// The limit.
        max: usize,
    },
}

#[derive(Clone, Debug)]
struct Subscription {
    handle: StreamHandle,
    hops: u8,
    state: SubscriptionState,
}

/// The streams an edge pulls from one origin.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    by_key: HashMap<StreamKey, Subscription>,
    by_handle: HashMap<StreamHandle, StreamKey>,
    next_handle: u32,
    max: usize,
}

impl Subscriptions {
    /// None yet; at most `max` at a time.
    pub fn new(max: usize) -> Self {
        Self { by_key: HashMap::new(), by_handle: HashMap::new(), next_handle: 1, max }
    }

    /// Wants a stream. Returns the frame to send if the link stands; none if it was asked for already and not refused.
    /// `hops` is the number of nodes the stream will have passed when it gets here.
    ///
    /// # Errors
    /// [`SubscribeError::LinkFull`].
    pub fn subscribe(&mut self, key: &StreamKey, hops: u8) -> Result<Option<Subscribe>, SubscribeError> {
        match self.by_key.get(key) {
            Some(Subscription { state: SubscriptionState::Refused { .. }, .. }) => {
                self.unsubscribe(key);
            }
            Some(_) => return Ok(None),
            None => {}
        }
        if self.by_key.len() >= self.max {
            return Err(SubscribeError::LinkFull { max: self.max });
        }
        let handle = self.free_handle();
        let state = SubscriptionState::Waiting;
        self.by_handle.insert(handle, key.clone());
        self.by_key.insert(key.clone(), Subscription { handle, hops, state });
        Ok(Some(Subscribe { handle, key: key.clone(), hops, resume: None }))
    }

    /// Handles are used in turn, so that late frames of an ended subscription find none.
    fn free_handle(&mut self) -> StreamHandle {
        loop {
            let handle = StreamHandle(self.next_handle);
            self.next_handle = self.next_handle.wrapping_add(1).max(1);
            if !self.by_handle.contains_key(&handle) {
                return handle;
            }
        }
    }

    /// Lets a stream go. Returns the handle to send in an Unsubscribe; none if the origin has nothing under it.
    pub fn unsubscribe(&mut self, key: &StreamKey) -> Option<StreamHandle> {
        let gone = self.by_key.remove(key)?;
        self.by_handle.remove(&gone.handle);
        match gone.state {
            SubscriptionState::Refused { .. } => None,
            _ => Some(gone.handle),
        }
    }

    /// The origin sends the stream, or its tracks or epoch changed. Returns the stream; none if it was let go.
    pub fn on_subscribed(&mut self, subscribed: &Subscribed) -> Option<&StreamKey> {
        let key = self.by_handle.get(&subscribed.handle)?;
        self.by_key.get_mut(key)?.state = SubscriptionState::Active { epoch: subscribed.epoch };
        Some(key)
    }

    /// The origin does not send the stream. Returns the stream; none if it was let go.
    pub fn on_refused(&mut self, refused: &Refused<'_>) -> Option<StreamKey> {
        // The origin has freed the handle: what still comes under it is not ours.
        let key = self.by_handle.remove(&refused.handle)?;
        self.by_key.get_mut(&key)?.state = SubscriptionState::Refused { code: refused.code };
        Some(key)
    }

    /// The stream is over on this origin. Forgets it and returns it; none if it was let go.
    pub fn on_end(&mut self, handle: StreamHandle, _reason: EndReason) -> Option<StreamKey> {
        let key = self.by_handle.remove(&handle)?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// The stream a frame belongs to, if the frame is of its current publication.
    pub fn current(&self, handle: StreamHandle, epoch: EpochLow) -> Option<&StreamKey> {
        let key = self.by_handle.get(&handle)?;
        match self.by_key.get(key)?.state {
            SubscriptionState::Active { epoch: current } if EpochLow::from(current) == epoch => Some(key),
            _ => None,
        }
    }

    /// The stream behind a handle.
    pub fn key(&self, handle: StreamHandle) -> Option<&StreamKey> {
        self.by_handle.get(&handle)
    }

    /// The handle of a stream the origin sends or was asked for.
    pub fn handle(&self, key: &StreamKey) -> Option<StreamHandle> {
        match self.by_key.get(key)? {
            Subscription { state: SubscriptionState::Refused { .. }, .. } => None,
            subscription => Some(subscription.handle),
        }
    }

    /// How far a subscription is.
    pub fn state(&self, key: &StreamKey) -> Option<SubscriptionState> {
        self.by_key.get(key).map(|subscription| subscription.state)
    }

    /// What to send first on a new link: every stream still wanted, with how far `resume` says this node got with it.
    /// All of them wait for an answer again.
    pub fn resubscribe(&mut self, mut resume: impl FnMut(&StreamKey) -> Option<Resume>) -> Vec<Subscribe> {
        let mut all: Vec<Subscribe> = Vec::with_capacity(self.by_handle.len());
        for (handle, key) in &self.by_handle {
            if let Some(subscription) = self.by_key.get_mut(key) {
                subscription.state = SubscriptionState::Waiting;
                all.push(Subscribe { handle: *handle, key: key.clone(), hops: subscription.hops, resume: resume(key) });
            }
        }
        all.sort_by_key(|subscribe| subscribe.handle);
        all
    }

    /// Every stream, however far it is.
    pub fn iter(&self) -> impl Iterator<Item = (&StreamKey, SubscriptionState)> {
        self.by_key.iter().map(|(key, subscription)| (key, subscription.state))
    }

    /// How many streams are wanted.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is wanted: the link has no purpose.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ams_media::StreamTracks;

    use super::*;

    fn key(id: &str) -> StreamKey {
        StreamKey::new("WebRTCAppEE".parse().unwrap(), id.parse().unwrap())
    }

    fn subscribed(handle: StreamHandle, epoch: u64) -> Subscribed {
        Subscribed { handle, epoch: Epoch(epoch), tracks: StreamTracks::default() }
    }

    #[test]
    fn a_stream_is_asked_for_once_however_many_want_it() {
        let mut subscriptions = Subscriptions::new(10);
        let first = subscriptions.subscribe(&key("room"), 1).unwrap().unwrap();
        assert_eq!(subscriptions.subscribe(&key("room"), 1), Ok(None));
        assert_eq!(subscriptions.on_subscribed(&subscribed(first.handle, 7)), Some(&key("room")));
        assert_eq!(subscriptions.state(&key("room")), Some(SubscriptionState::Active { epoch: Epoch(7) }));
        assert_eq!(subscriptions.current(first.handle, EpochLow(7)), Some(&key("room")));
        assert_eq!(subscriptions.current(first.handle, EpochLow(6)), None, "media of the publication before");
        assert_eq!(subscriptions.unsubscribe(&key("room")), Some(first.handle));
        assert_eq!(subscriptions.on_subscribed(&subscribed(first.handle, 8)), None, "a late answer finds nothing");
        let again = subscriptions.subscribe(&key("room"), 1).unwrap().unwrap();
        assert_ne!(again.handle, first.handle, "late media of the old subscription must not mix in");
    }

    #[test]
    fn a_refused_stream_is_remembered_until_asked_for_again() {
        let mut subscriptions = Subscriptions::new(1);
        let first = subscriptions.subscribe(&key("room"), 1).unwrap().unwrap();
        let refused = Refused { handle: first.handle, code: RefuseCode::NotFound, sentence: "no" };
        assert_eq!(subscriptions.on_refused(&refused), Some(key("room")));
        assert_eq!(subscriptions.handle(&key("room")), None);
        assert!(subscriptions.resubscribe(|_| None).is_empty(), "a refused stream is not asked for on its own");
        assert!(subscriptions.subscribe(&key("room"), 1).unwrap().is_some());
        assert_eq!(subscriptions.subscribe(&key("other"), 1), Err(SubscribeError::LinkFull { max: 1 }));
    }

    #[test]
    fn a_new_link_asks_for_everything_with_the_last_position() {
        let mut subscriptions = Subscriptions::new(10);
        let a = subscriptions.subscribe(&key("a"), 1).unwrap().unwrap().handle;
        let b = subscriptions.subscribe(&key("b"), 2).unwrap().unwrap().handle;
        let c = subscriptions.subscribe(&key("c"), 1).unwrap().unwrap().handle;
        subscriptions.on_subscribed(&subscribed(a, 3));
        subscriptions.on_subscribed(&subscribed(c, 1));
        assert_eq!(subscriptions.on_end(c, EndReason::Finished), Some(key("c")));
        let resume = Resume { epoch: Epoch(3), positions: vec![] };
        let again = subscriptions.resubscribe(|stream| (*stream == key("a")).then(|| resume.clone()));
        assert_eq!(
            again,
            [
                Subscribe { handle: a, key: key("a"), hops: 1, resume: Some(resume) },
                Subscribe { handle: b, key: key("b"), hops: 2, resume: None },
            ]
        );
        assert_eq!(subscriptions.state(&key("a")), Some(SubscriptionState::Waiting));
    }

    #[test]
    fn handles_wrap_around_without_meeting_a_live_one() {
        let mut subscriptions = Subscriptions::new(10);
        subscriptions.next_handle = u32::MAX;
        let last = subscriptions.subscribe(&key("a"), 1).unwrap().unwrap().handle;
        subscriptions.next_handle = u32::MAX;
        let next = subscriptions.subscribe(&key("b"), 1).unwrap().unwrap().handle;
        assert_eq!((last, next), (StreamHandle(u32::MAX), StreamHandle(1)));
    }
}
