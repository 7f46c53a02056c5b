//! The right to publish under an id: had from the registry, or from the other nodes while that is away, and given back.
//!
//! Owns claims from the wish to the release, and what of it could not be written yet. A claim that was not recorded is
//! recorded as soon as the registry is back; if another one's stands there by then, the publication ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ams_api::port::{EndReason, PublishRequest, Refusal, SessionId};
use ams_registry::{
    Claim, ClaimError, ClaimRequest, Grant, Lease, PublishType, RegistryError, ReleaseReason, Takeover, fresh_epoch,
};
use ams_types::{Epoch, StreamKey};
use futures_util::StreamExt;
use tracing::{debug, info, warn};

use super::NodeCore;
use super::directory::Role;
use super::suspicion::{Verdict, stands};
use super::webhooks::Former;

/// Longest a publisher waits for the registry: it leaves time to ask the nodes. The SDK tries again after 3 s.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(1200);
/// Pause before nodes are asked once more.
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// Releases that may wait for the registry; records beyond go stale by themselves.
const RELEASES_MAX: usize = 10_000;
/// Calls side by side when the registry is back.
const CALLS_AT_ONCE: usize = 16;
/// Longest time to write what is left when the node stops.
const LAST_TRIES_MAX: Duration = Duration::from_millis(1500);
const LAST_TRY_PAUSE: Duration = Duration::from_millis(300);

/// A stream id that is a session's now.
pub(super) struct Claimed {
    pub(super) lease: Lease,
    /// The registry knows of it.
    pub(super) recorded: bool,
    /// Its former publication ended without an end: viewers elsewhere may still wait for this one.
    pub(super) restores: bool,
    /// Whose claim it took.
    pub(super) former: Option<Former>,
}

/// An id that is being claimed, until the guard is dropped. Other nodes that ask are told so: of two that claim at one
/// time, at least one hears of the other.
pub(super) struct Claiming {
    node: Arc<NodeCore>,
    key: StreamKey,
}

impl Claiming {
    /// None if it is being claimed here already.
    pub(super) fn begin(node: &Arc<NodeCore>, key: &StreamKey) -> Option<Self> {
        let is_first = node.directory().claiming.insert(key.clone());
        is_first.then(|| Self { node: Arc::clone(node), key: key.clone() })
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        self.node.directory().claiming.remove(&self.key);
    }
}

/// Claims given back that the registry does not know of yet.
#[derive(Debug, Default)]
pub(super) struct Unreleased(Mutex<HashMap<StreamKey, (Lease, ReleaseReason)>>);

impl Unreleased {
    fn put(&self, lease: Lease, reason: ReleaseReason) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get(&lease.key) {
            Some((later, _)) if later.epoch > lease.epoch => {}
            None if waiting.len() >= RELEASES_MAX => {}
            _ => {
                waiting.insert(lease.key.clone(), (lease, reason));
            }
        }
    }

    fn all(&self) -> Vec<(Lease, ReleaseReason)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The registry knows of this one, or of a later claim.
    fn forget(&self, key: &StreamKey, until: Epoch) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(key).is_some_and(|(lease, _)| lease.epoch <= until) {
            waiting.remove(key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl NodeCore {
    /// What a publisher claims with.
    pub(super) fn claim_request(&self, session: &SessionId, request: &PublishRequest) -> ClaimRequest {
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        ClaimRequest {
            key: request.key.clone(),
            node: self.id.clone(),
            incarnation: self.incarnation,
            host: self.config.advertise.clone(),
            session: session.0.clone(),
            publish_type: PublishType::WebRtc,
            user_agent: text(&request.caller.user_agent),
            remote_ip: Some(request.caller.remote_ip.to_string()),
            name: text(&request.stream_name),
            meta_data: text(&request.meta_data),
            now_ms: 0,
            takeover: Takeover::IfFree,
        }
    }

    /// Claims an id in the registry, or among the nodes while that is away.
    pub(super) async fn claim(self: &Arc<Self>, wish: &ClaimRequest) -> Result<Claimed, Refusal> {
        if self.is_registry_ok() {
            match self.claim_recorded(wish).await {
                Err(ClaimError::Registry(error)) if error.is_away() == Some(true) => {}
                result => return result.map_err(|error| self.refusal_of(&wish.key, &error)),
            }
        }
        self.claim_among_nodes(&wish.key).await
    }

    fn refusal_of(&self, key: &StreamKey, error: &ClaimError) -> Refusal {
        match error {
            ClaimError::InUse(_) | ClaimError::Lost { .. } => Refusal::InUse(key.id.clone()),
            ClaimError::Registry(_) => Refusal::RegistryUnavailable,
        }
    }

    /// Claims an id in the registry. A claim of a dead node, or of one that does not publish it any more, is void.
    async fn claim_recorded(self: &Arc<Self>, wish: &ClaimRequest) -> Result<Claimed, ClaimError> {
        let mut takeover = Takeover::IfFree;
        let mut asked = false;
        loop {
            let claim = ClaimRequest { now_ms: self.wall.ms(), takeover: takeover.clone(), ..wish.clone() };
            let late = RegistryError::Deadline { operation: "a claim", after: CLAIM_TIMEOUT };
            let result = tokio::time::timeout(CLAIM_TIMEOUT, self.registry.claim(claim)).await;
            let result = result.unwrap_or(Err(ClaimError::Registry(late)));
            self.note_registry(&result);
            let holder = match result {
                Ok(claim) => {
                    if self.is_held_unrecorded(&wish.key, &claim).await {
                        self.release(claim.lease.clone(), ReleaseReason::Finished).await;
                        let epoch = claim.lease.epoch;
                        return Err(ClaimError::Lost { epoch });
                    }
                    self.unreleased.forget(&wish.key, claim.lease.epoch);
                    let restores = matches!(claim.grant, Grant::NodeRestarted | Grant::OwnerDead | Grant::Replaced);
                    let former = Former::of(&claim);
                    return Ok(Claimed { lease: claim.lease, recorded: true, restores, former });
                }
                Err(ClaimError::InUse(holder)) => holder,
                Err(error) => return Err(error),
            };
            debug!(stream_id = %wish.key, host = ?holder.host, "stream id is in use");
            let owner = holder.node.clone().zip(holder.incarnation);
            let Some((node, run)) = owner.filter(|_| !std::mem::replace(&mut asked, true)) else {
                return Err(ClaimError::InUse(holder));
            };
            takeover = match self.judge(&wish.key, &holder, &node, run).await {
                Verdict::Holds => return Err(ClaimError::InUse(holder)),
                Verdict::Gone => Takeover::FromDead { node, incarnation: run },
                Verdict::LetGo => Takeover::FromEpoch(holder.epoch),
            };
            info!(stream_id = %wish.key, node_id = ?holder.node, "its former claim is void: the stream id is free");
        }
    }

    /// Whether an id that the registry gave away is another node's all the same: one whose records went stale because only
    /// that node cannot reach the registry, or that publishes what was never written down.
    async fn is_held_unrecorded(self: &Arc<Self>, key: &StreamKey, claim: &Claim) -> bool {
        if !matches!(claim.grant, Grant::NoRecord | Grant::NotHeld) {
            return false;
        }
        if let Some(holder) = claim.previous.as_deref().and_then(|previous| previous.last_holder())
            && let Some((node, run)) = holder.node.clone().zip(holder.incarnation)
            && self.says_it_publishes(key, &holder, &node, run).await
        {
            return true;
        }
        self.is_registry_behind()
            && self.ask_around(std::slice::from_ref(key)).await.holders.values().any(|(_, found)| stands(found))
    }

    /// Claims an id without the registry: no node that can be reached may hold it, or be about to.
    async fn claim_among_nodes(self: &Arc<Self>, key: &StreamKey) -> Result<Claimed, Refusal> {
        let keys = std::slice::from_ref(key);
        let mut around = self.ask_around(keys).await;
        if around.holders.get(key).is_some_and(|(_, found)| stands(found)) {
            // Publishers hear of their end a moment before it: one that moves may be quicker than its former node.
            tokio::time::sleep(ASK_AGAIN).await;
            around = self.ask_around(keys).await;
        }
        if around.holders.get(key).is_some_and(|(_, found)| stands(found)) {
            return Err(Refusal::InUse(key.id.clone()));
        }
        info!(stream_id = %key, nodes = around.answered, "claimed without the registry: no node holds it");
        let known = self.directory().streams.get(key).map_or(Epoch(0), |stream| stream.epoch);
        let heard = around.holders.get(key).map_or(Epoch(0), |(_, found)| found.epoch);
        let epoch = fresh_epoch(known.max(heard), self.wall.ms());
        let lease = Lease { key: key.clone(), epoch, host: self.config.advertise.clone() };
        Ok(Claimed { lease, recorded: false, restores: false, former: None })
    }

    /// Has a publication's claim recorded that the registry does not know, or has lost. False if it could not be; ends the
    /// publication if another one has the id.
    pub(super) async fn record_claim(self: &Arc<Self>, session: &SessionId) -> bool {
        let wish = {
            let directory = self.directory();
            let Some(Role::Publisher(publication)) = directory.sessions.get(session).map(|s| &s.role) else {
                return false;
            };
            publication.wish.clone()
        };
        match self.claim_recorded(&wish).await {
            Ok(claimed) => {
                let lease = claimed.lease.clone();
                let taken = {
                    let mut directory = self.directory();
                    match directory.sessions.get_mut(session).map(|s| &mut s.role) {
                        Some(Role::Publisher(publication)) => {
                            let before = std::mem::replace(&mut publication.lease, claimed.lease);
                            self.note_renewed(publication, before.epoch);
                            publication.recorded = true;
                            true
                        }
                        _ => false,
                    }
                };
                if !taken {
                    // It ended meanwhile.
                    self.release(lease, ReleaseReason::Finished).await;
                }
                taken
            }
            Err(ClaimError::Registry(_)) => false,
            Err(ClaimError::InUse(_) | ClaimError::Lost { .. }) => {
                if self.end_session(session, EndReason::TakenOver).await {
                    warn!(stream_id = %wish.key, "the stream id belongs to another publication now");
                }
                false
            }
        }
    }

    /// Gives a claim back. One try: when the registry is away it is told later, because a record that stays would block the
    /// id until its lease ends.
    pub(super) async fn release(&self, lease: Lease, reason: ReleaseReason) {
        if !self.is_registry_ok() {
            self.unreleased.put(lease, reason);
            return;
        }
        let result = self.registry.release(&lease, reason, self.wall.ms()).await;
        let failed = matches!(result, Err(ClaimError::Registry(_)));
        self.note_registry(&result);
        match failed {
            true => self.unreleased.put(lease, reason),
            false => self.unreleased.forget(&lease.key, lease.epoch),
        }
    }

    /// Writes what the registry has not been told while it was away.
    pub(super) async fn settle(&self) {
        let releases = futures_util::stream::iter(self.unreleased.all());
        releases.for_each_concurrent(CALLS_AT_ONCE, |(lease, reason)| self.release(lease, reason)).await;
    }

    /// The same, once more before the node goes.
    pub(super) async fn settle_last(&self) {
        let tries = async {
            while self.unreleased.len() > 0 {
                self.settle().await;
                tokio::time::sleep(LAST_TRY_PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(LAST_TRIES_MAX, tries).await;
        let left = self.unreleased.len();
        if left > 0 {
            warn!(records = left, "some streams' records stay in the registry until they are stale");
        }
    }
}
