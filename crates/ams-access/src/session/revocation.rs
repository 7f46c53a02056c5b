//! Sessions that ended before their time.
//!
//! Owns a bounded list every node holds; the shell shares it. When it is full it says no too often rather than too
//! rarely: what it can no longer remember one by one it remembers as "all of before".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Session, SessionId};
use crate::time::UnixMs;

/// Most sessions, and most users, remembered one by one.
pub const REVOCATIONS_MAX: usize = 4096;

/// What is revoked. Serialisable as JSON text (users' names are keys), and two are put together with
/// [`merge`](Self::merge): a node may share its whole list, or one of a single entry for every entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Revocations {
    /// Sessions, and when they would have ended anyway.
    sessions: BTreeMap<SessionId, UnixMs>,
    /// Users, all of whose sessions issued up to a time have ended, and until when that matters.
    users: BTreeMap<String, (UnixMs, UnixMs)>,
    /// All sessions issued up to here have ended.
    everybody: Option<UnixMs>,
}

impl Revocations {
    /// Ends one session: a logout.
    pub fn end(&mut self, session: &Session, now: UnixMs) {
        self.sessions.insert(session.id, session.expires);
        self.bound(now);
    }

    /// Ends all sessions of `user` issued until `now`: a deleted user, a change of rights, "log me out everywhere".
    /// `latest` is when the last of them would end: now and the longest session.
    pub fn end_all_of(&mut self, user: &str, now: UnixMs, latest: UnixMs) {
        let entry = self.users.entry(user.to_owned()).or_default();
        *entry = (entry.0.max(now), entry.1.max(latest));
        self.bound(now);
    }

    /// Ends every session issued until `now`.
    pub fn end_everything(&mut self, now: UnixMs) {
        self.everybody = self.everybody.max(Some(now));
        self.sessions.clear();
        self.users.retain(|_, (issued, _)| *issued > now);
    }

    /// Whether `session` has ended.
    pub fn has(&self, session: &Session) -> bool {
        self.sessions.contains_key(&session.id)
            || self.users.get(&session.user).is_some_and(|(issued, _)| session.issued <= *issued)
            || self.everybody.is_some_and(|issued| session.issued <= issued)
    }

    /// Takes in what another node knows.
    pub fn merge(&mut self, other: &Self, now: UnixMs) {
        for (id, expires) in &other.sessions {
            let known = self.sessions.entry(*id).or_default();
            *known = (*known).max(*expires);
        }
        for (user, (issued, latest)) in &other.users {
            let known = self.users.entry(user.clone()).or_default();
            *known = (known.0.max(*issued), known.1.max(*latest));
        }
        self.everybody = self.everybody.max(other.everybody);
        self.bound(now);
    }

    /// Forgets what has ended by itself.
    pub fn prune(&mut self, now: UnixMs) {
        self.sessions.retain(|_, expires| *expires > now);
        self.users.retain(|_, (_, latest)| *latest > now);
    }

    fn bound(&mut self, now: UnixMs) {
        if self.sessions.len() > REVOCATIONS_MAX || self.users.len() > REVOCATIONS_MAX {
            self.prune(now);
        }
        if self.sessions.len() > REVOCATIONS_MAX || self.users.len() > REVOCATIONS_MAX {
            self.end_everything(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::password::PasswordVersion;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn session(user: &str, id: u128, issued: UnixMs) -> Session {
        let expires = issued.plus(Duration::from_secs(60));
        Session { user: user.into(), issued, expires, id: SessionId(id), password: PasswordVersion(0) }
    }

    #[test]
    fn sessions_end_one_by_one_by_user_and_all() {
        let later = NOW.plus(Duration::from_secs(1));
        let mut revoked = Revocations::default();
        revoked.end(&session("a", 1, NOW), NOW);
        assert!(revoked.has(&session("a", 1, NOW)) && !revoked.has(&session("a", 2, NOW)));
        revoked.end_all_of("a", NOW, NOW.plus(Duration::from_secs(60)));
        assert!(revoked.has(&session("a", 2, NOW)) && !revoked.has(&session("b", 3, NOW)));
        assert!(!revoked.has(&session("a", 4, later)), "who logs in again is in");
        revoked.end_everything(NOW);
        assert!(revoked.has(&session("b", 3, NOW)) && !revoked.has(&session("b", 5, later)));
    }

    #[test]
    fn what_has_ended_by_itself_is_forgotten() {
        let mut revoked = Revocations::default();
        revoked.end(&session("a", 1, NOW), NOW);
        revoked.end_all_of("a", NOW, NOW.plus(Duration::from_secs(60)));
        revoked.prune(NOW.plus(Duration::from_secs(59)));
        assert_ne!(revoked, Revocations::default());
        revoked.prune(NOW.plus(Duration::from_secs(60)));
        assert_eq!(revoked, Revocations::default());
    }

    #[test]
    fn nodes_put_together_what_they_know() {
        let (mut one, mut two) = (Revocations::default(), Revocations::default());
        one.end(&session("a", 1, NOW), NOW);
        two.end_all_of("b", NOW, NOW.plus(Duration::from_secs(60)));
        let mut both = one.clone();
        both.merge(&two, NOW);
        two.merge(&one, NOW);
        assert_eq!(both, two);
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<Revocations>(&json).unwrap(), both);
    }

    #[test]
    fn a_full_list_ends_everything_rather_than_forgetting() {
        let mut revoked = Revocations::default();
        for id in 0..=REVOCATIONS_MAX as u128 {
            revoked.end(&session("a", id, NOW), NOW);
        }
        assert!(revoked.sessions.len() <= REVOCATIONS_MAX);
        assert!(revoked.has(&session("a", 0, NOW)) && revoked.has(&session("b", 1 << 100, NOW)));
        let mut other = Revocations::default();
        for n in 0..2 * REVOCATIONS_MAX {
            other.end_all_of(&format!("u{n}"), NOW, NOW.plus(Duration::from_secs(60)));
        }
        assert!(other.users.len() <= REVOCATIONS_MAX && other.has(&session("u0", 1, NOW)));
    }
}
