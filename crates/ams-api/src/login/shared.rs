//! What the nodes of a cluster share about logins: the key of the sessions, failures, and sessions that ended early.
//!
//! Owns the names and the texts of these entries. A failure is counted by compare-and-set, so that tries on several
//! nodes add up; what cannot be written now is still counted on this node.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ams_access::lockout::{Attempts, LockKey};
use ams_access::{Revocations, Session, SessionKeys};
use ams_registry::{Registry, RegistryError, Swap};
use tracing::{debug, info};

use super::{Login, LoginError, now};

/// Entry with the key that signs cookies: 32 random bytes in hex, made once by whichever node needs it first.
const SESSION_KEY: &str = "session-key";
/// How long a key is taken for the present one before a cookie it does not know makes a node look again.
pub(super) const KEY_AGE_MIN: Duration = Duration::from_secs(5);
/// How often a write is tried when others write too.
const TRIES: usize = 8;

fn attempts_name(key: LockKey) -> String {
    format!("attempts/{key}")
}

fn revoked_name(session: &Session) -> String {
    format!("revoked/{}", session.id)
}

fn ms(time: ams_access::UnixMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

impl Login {
    /// The key as it was read last, and when.
    pub(super) async fn known_keys(&self, registry: &dyn Registry) -> Result<(Arc<SessionKeys>, Instant), LoginError> {
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(known) => Ok(known),
            None => Ok((self.read_keys(registry).await?, Instant::now())),
        }
    }

    /// The key as it is now; made, if there is none.
    pub(super) async fn read_keys(&self, registry: &dyn Registry) -> Result<Arc<SessionKeys>, LoginError> {
        let names = [SESSION_KEY.to_owned()];
        for _ in 0..TRIES {
            if let Some(found) = registry.get_shared(&names).await?.pop() {
                let keys = Arc::new(SessionKeys::new(found.value.as_bytes())?);
                let known = (Arc::clone(&keys), Instant::now());
                *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
                return Ok(keys);
            }
            let value: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
            let swap = Swap { name: SESSION_KEY.to_owned(), value, version: 0, until_ms: None };
            if registry.swap_shared(&swap, ms(now())).await? {
                info!("made the key of the panel's sessions");
            }
        }
        Err(RegistryError::Contended { operation: "making the session key" }.into())
    }

    /// Takes in what other nodes counted.
    pub(super) async fn learn_attempts(
        &self,
        registry: &dyn Registry,
        email: &str,
        address: IpAddr,
    ) -> Result<(), RegistryError> {
        let keys = [LockKey::account(email, address), LockKey::address(address)];
        let found = registry.get_shared(&keys.map(attempts_name)).await?;
        let mut lockout = self.lockout();
        for key in keys {
            let name = attempts_name(key);
            let theirs = found.iter().find(|shared| shared.name == name);
            if let Some(theirs) = theirs.and_then(|shared| serde_json::from_str(&shared.value).ok()) {
                lockout.merge(key, theirs, now());
            }
        }
        Ok(())
    }

    /// Counts a wrong password, here and for all.
    pub(super) async fn count_failure(&self, registry: &dyn Registry, email: &str, address: IpAddr) {
        let now = now();
        let ours = self.lockout().failed(email, address, now);
        let policy = self.lockouts;
        for ((key, ours), failures_max) in ours.into_iter().zip([policy.failures_max, policy.address_failures_max]) {
            let counted = share_attempts(registry, key, policy.forget, |mut theirs| {
                theirs.failed(now, failures_max, &policy);
                theirs.merged(ours)
            });
            if let Some(counted) = counted.await {
                self.lockout().merge(key, counted, now);
            }
        }
    }

    /// Notes a right password, here and for all.
    pub(super) async fn forget_failures(&self, registry: &dyn Registry, email: &str, address: IpAddr) {
        let changed = self.lockout().succeeded(email, address, now());
        if let Some((key, ours)) = changed {
            share_attempts(registry, key, self.lockouts.forget, |theirs| theirs.merged(ours)).await;
        }
    }

    /// Ends a session on all nodes.
    pub(crate) async fn revoke(&self, registry: &dyn Registry, session: &Session) -> Result<(), RegistryError> {
        // Another cookie of the session may have been renewed since: until none of them can be good any more.
        let until = session.issued.plus(self.sessions.whole);
        let mut revoked = Revocations::default();
        revoked.end(&Session { expires: until, ..session.clone() }, now());
        let value = serde_json::to_string(&revoked).unwrap_or_default();
        let swap = Swap { name: revoked_name(session), value, version: 0, until_ms: Some(ms(until)) };
        // Of two that end it one is enough.
        registry.swap_shared(&swap, ms(now())).await.map(|_| ())
    }

    /// What is known to have ended that could be this session.
    pub(super) async fn revocations_of(
        &self,
        registry: &dyn Registry,
        session: &Session,
    ) -> Result<Revocations, RegistryError> {
        let mut revoked = Revocations::default();
        for shared in registry.get_shared(&[revoked_name(session)]).await? {
            match serde_json::from_str(&shared.value) {
                Ok(entry) => revoked.merge(&entry, now()),
                // It was ended; how it says so does not matter.
                Err(_) => revoked.end(session, now()),
            }
        }
        Ok(revoked)
    }
}

/// Changes what all nodes count under a key; none if that could not be written.
async fn share_attempts(
    registry: &dyn Registry,
    key: LockKey,
    forget: Duration,
    change: impl Fn(Attempts) -> Attempts,
) -> Option<Attempts> {
    let names = [attempts_name(key)];
    for _ in 0..TRIES {
        let found = match registry.get_shared(&names).await {
            Ok(mut found) => found.pop(),
            Err(error) => {
                debug!(%error, "a failed login is counted on this node alone");
                return None;
            }
        };
        let theirs = found.as_ref().and_then(|shared| serde_json::from_str(&shared.value).ok()).unwrap_or_default();
        let changed = change(theirs);
        let swap = Swap {
            name: attempts_name(key),
            value: serde_json::to_string(&changed).unwrap_or_default(),
            version: found.map_or(0, |shared| shared.version),
            until_ms: Some(ms(now().plus(forget))),
        };
        match registry.swap_shared(&swap, ms(now())).await {
            Ok(true) => return Some(changed),
            Ok(false) => {}
            Err(error) => {
                debug!(%error, "a failed login is counted on this node alone");
                return None;
            }
        }
    }
    None
}
