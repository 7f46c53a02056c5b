//! WHIP and WHEP sessions by name.
//!
//! Owns which sessions exist as HTTP resources, until they are deleted or the node says that they ended. Bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ams_types::StreamKey;

use crate::port::SessionId;

/// Which protocol a session was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Publishers.
    Whip,
    /// Viewers.
    Whep,
}

impl Side {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Whip => "whip",
            Self::Whep => "whep",
        }
    }
}

#[derive(Clone, Debug)]
struct Resource {
    side: Side,
    key: StreamKey,
    /// The client's current ICE user fragment: a fragment with another one asks for an ICE restart.
    remote_ufrag: Option<String>,
}

pub(crate) struct Resources {
    max: usize,
    sessions: Mutex<HashMap<SessionId, Resource>>,
}

impl Resources {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, sessions: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lock().len() >= self.max
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn insert(&self, id: SessionId, side: Side, key: StreamKey, remote_ufrag: Option<String>) {
        self.lock().insert(id, Resource { side, key, remote_ufrag });
    }

    pub(crate) fn remove(&self, id: &SessionId) {
        self.lock().remove(id);
    }

    /// The client's ICE user fragment of a session, if there is such a session under this address.
    pub(crate) fn find(&self, side: Side, key: &StreamKey, id: &SessionId) -> Option<Option<String>> {
        let sessions = self.lock();
        let resource = sessions.get(id).filter(|resource| resource.side == side && resource.key == *key)?;
        Some(resource.remote_ufrag.clone())
    }

    pub(crate) fn restarted(&self, id: &SessionId, remote_ufrag: String) {
        if let Some(resource) = self.lock().get_mut(id) {
            resource.remote_ufrag = Some(remote_ufrag);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Resource>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
