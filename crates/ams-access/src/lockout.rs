//! Slowing down who guesses passwords, without locking anybody else out.
//!
//! Owns the counting; the shell keeps it in memory or shares it. AMS counts per account, so that anybody can lock an
//! administrator out, and per node, so that a cluster gives as many tries as it has nodes. Here a block holds for
//! one account from one address (an IPv6 network of 64 bits counts as one), and for one address over all accounts
//! after more failures. From elsewhere the right password still opens.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::id128::hex_id;
use crate::time::UnixMs;

/// How many failures cost how much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockoutPolicy {
    /// Failures of an account from an address until it is blocked. AMS blocks at the third.
    pub failures_max: u32,
    /// Failures of an address over all accounts until it is blocked altogether.
    pub address_failures_max: u32,
    /// The first block; each further failure doubles it.
    pub block: Duration,
    /// The longest block.
    pub block_max: Duration,
    /// Quiet time after which failures are forgotten. Not below `block_max`.
    pub forget: Duration,
}

impl Default for LockoutPolicy {
    /// AMS's numbers where it has some.
    fn default() -> Self {
        Self {
            failures_max: 3,
            address_failures_max: 30,
            block: Duration::from_secs(300),
            block_max: Duration::from_secs(3600),
            forget: Duration::from_secs(6 * 3600),
        }
    }
}

/// What is counted for one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Failures since the last success, or since it was quiet.
    pub failures: u32,
    /// The last of them.
    pub last: UnixMs,
    /// When the next try is heard again.
    pub blocked_until: UnixMs,
    /// The last success.
    pub cleared: UnixMs,
}

impl Attempts {
    /// Time until a try is heard; `None` for now.
    pub fn blocked_for(&self, now: UnixMs) -> Option<Duration> {
        (self.blocked_until > now).then(|| self.blocked_until.since(now))
    }

    /// A failure that is the `failures_max`th or a later one blocks.
    pub fn failed(&mut self, now: UnixMs, failures_max: u32, policy: &LockoutPolicy) {
        if now.since(self.last) > policy.forget {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last = self.last.max(now);
        if let Some(over) = self.failures.checked_sub(failures_max.max(1)) {
            let block = policy.block.saturating_mul(1 << over.min(20)).min(policy.block_max);
            self.blocked_until = self.blocked_until.max(now.plus(block));
        }
    }

    /// A success forgets.
    pub fn succeeded(&mut self, now: UnixMs) {
        *self = Self { cleared: self.cleared.max(now), ..Self::default() };
    }

    /// What two nodes know together, whatever order they tell each other in. Failures before a success elsewhere are
    /// forgotten.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let cleared = self.cleared.max(other.cleared);
        let mut merged = Self { cleared, ..Self::default() };
        for side in [self, other] {
            if side.last > cleared || (side.cleared == cleared && side.failures > 0) {
                merged.failures = merged.failures.max(side.failures);
                merged.last = merged.last.max(side.last);
                merged.blocked_until = merged.blocked_until.max(side.blocked_until);
            }
        }
        merged
    }
}

/// What is counted under: of fixed length, so that names of any length take no more room, and without the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey(u128);

hex_id!(LockKey);

impl LockKey {
    /// Tries for `account` from `address`. Accounts are compared as AMS compares them, exactly.
    pub fn account(account: &str, address: IpAddr) -> Self {
        Self::of(&format!("{}\n{account}", network(address)))
    }

    /// All tries from `address`.
    pub fn address(address: IpAddr) -> Self {
        Self::of(&network(address).to_string())
    }

    fn of(text: &str) -> Self {
        let mut word = [0; 16];
        word.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
        Self(u128::from_be_bytes(word))
    }
}

/// Whoever has one IPv6 address has 2⁶⁴.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// A refusal before the password is looked at, with AMS's sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Too many login attempts. User is blocked for {} secs", wait.as_secs().max(1))]
pub struct Blocked {
    /// Until the next try is heard.
    pub wait: Duration,
}

/// Time after which a try that was admitted and never came to an end counts no more.
const PENDING_MAX: Duration = Duration::from_secs(10);

/// A key's count, and the tries whose passwords are being checked right now.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    attempts: Attempts,
    pending: u32,
    admitted: UnixMs,
}

impl Entry {
    /// Why another try must wait. Where one more failure would block, one try runs at a time: a hundred at once must
    /// not get a hundred answers.
    fn wait(&self, now: UnixMs, failures_max: u32) -> Option<Duration> {
        let pending = if now.since(self.admitted) > PENDING_MAX { 0 } else { self.pending };
        let crowded = pending > 0 && self.attempts.failures.saturating_add(pending) >= failures_max;
        self.attempts.blocked_for(now).or(crowded.then_some(Duration::from_secs(1)))
    }

    fn begin(&mut self, now: UnixMs) {
        let stale = now.since(self.admitted) > PENDING_MAX;
        self.pending = if stale { 1 } else { self.pending.saturating_add(1) };
        self.admitted = self.admitted.max(now);
    }

    fn end(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Whether it says nothing any more.
    fn is_over(&self, now: UnixMs, policy: &LockoutPolicy) -> bool {
        let counts = self.attempts;
        let last = counts.last.max(counts.cleared);
        let quiet = counts.failures == 0 && last == UnixMs(0) || now.since(last) > policy.forget;
        quiet && counts.blocked_for(now).is_none() && (self.pending == 0 || now.since(self.admitted) > PENDING_MAX)
    }
}

/// All counts of a node. Bounded: when it is full, what matters least is forgotten.
///
/// [`admit`](Self::admit) a try, check the password, then say [`failed`](Self::failed) or
/// [`succeeded`](Self::succeeded).
#[derive(Clone, Debug)]
pub struct Lockout {
    policy: LockoutPolicy,
    entries: HashMap<LockKey, Entry>,
    entries_max: usize,
}

impl Lockout {
    /// Counts under `policy` for at most `entries_max` keys (of about 100 bytes).
    pub fn new(policy: LockoutPolicy, entries_max: usize) -> Self {
        Self { policy, entries: HashMap::new(), entries_max: entries_max.max(8) }
    }

    /// Whether a try for `account` from `address` is heard. A refused try is not counted.
    ///
    /// # Errors
    /// [`Blocked`], with the time to wait.
    pub fn admit(&mut self, account: &str, address: IpAddr, now: UnixMs) -> Result<(), Blocked> {
        if let Some(wait) = self.blocked_for(account, address, now) {
            return Err(Blocked { wait });
        }
        self.make_room(now);
        for (key, _) in self.keys(account, address) {
            self.entries.entry(key).or_default().begin(now);
        }
        Ok(())
    }

    /// How long a try would not be heard; `None` if it would. For `GET /users/{mail}/blocked`.
    pub fn blocked_for(&self, account: &str, address: IpAddr, now: UnixMs) -> Option<Duration> {
        let keys = self.keys(account, address).into_iter();
        keys.filter_map(|(key, failures_max)| self.entries.get(&key)?.wait(now, failures_max)).max()
    }

    /// Counts a wrong password. Returns what changed, for sharing.
    pub fn failed(&mut self, account: &str, address: IpAddr, now: UnixMs) -> [(LockKey, Attempts); 2] {
        self.make_room(now);
        let policy = self.policy;
        self.keys(account, address).map(|(key, failures_max)| {
            let entry = self.entries.entry(key).or_default();
            entry.end();
            entry.attempts.failed(now, failures_max, &policy);
            (key, entry.attempts)
        })
    }

    /// Notes a right password. Returns what changed, for sharing. The address's own count stays: who knows one
    /// password may not guess others with its help.
    pub fn succeeded(&mut self, account: &str, address: IpAddr, now: UnixMs) -> Option<(LockKey, Attempts)> {
        for (key, _) in self.keys(account, address) {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.end();
            }
        }
        let key = LockKey::account(account, address);
        let entry = self.entries.get_mut(&key).filter(|entry| entry.attempts.failures > 0)?;
        entry.attempts.succeeded(now);
        Some((key, entry.attempts))
    }

    /// Takes in what another node counted.
    pub fn merge(&mut self, key: LockKey, theirs: Attempts, now: UnixMs) {
        self.make_room(now);
        let ours = &mut self.entries.entry(key).or_default().attempts;
        *ours = ours.merged(theirs);
    }

    /// How many keys are counted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn keys(&self, account: &str, address: IpAddr) -> [(LockKey, u32); 2] {
        [
            (LockKey::account(account, address), self.policy.failures_max),
            (LockKey::address(address), self.policy.address_failures_max),
        ]
    }

    /// Room for two more entries: what is over goes; if that is not enough, the eighth with the fewest failures, the
    /// oldest of them first.
    fn make_room(&mut self, now: UnixMs) {
        if self.entries.len() + 2 <= self.entries_max {
            return;
        }
        let policy = self.policy;
        self.entries.retain(|_, entry| !entry.is_over(now, &policy));
        if self.entries.len() + 2 <= self.entries_max {
            return;
        }
        let rank = |(key, entry): (&LockKey, &Entry)| (entry.attempts.failures, entry.attempts.last, *key);
        let mut ranked: Vec<_> = self.entries.iter().map(rank).collect();
        ranked.sort_unstable();
        for (.., key) in ranked.into_iter().take(self.entries_max / 8 + 2) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: UnixMs = UnixMs(1_000_000_000);

    fn at(secs: u64) -> UnixMs {
        T0.plus(Duration::from_secs(secs))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn lockout() -> Lockout {
        Lockout::new(LockoutPolicy::default(), 1000)
    }

    #[test]
    fn the_third_failure_blocks_for_five_minutes_in_amss_words() {
        let (mut lockout, here) = (lockout(), ip("10.0.0.1"));
        for _ in 0..2 {
            lockout.failed("admin", here, T0);
            assert_eq!(lockout.blocked_for("admin", here, T0), None);
        }
        lockout.failed("admin", here, T0);
        let blocked = lockout.admit("admin", here, T0).unwrap_err();
        assert_eq!(blocked.to_string(), "Too many login attempts. User is blocked for 300 secs");
        assert!(lockout.blocked_for("admin", here, at(299)).is_some());
        assert_eq!(lockout.blocked_for("admin", here, at(300)), None);
    }

    #[test]
    fn a_hundred_tries_at_once_get_few_answers() {
        let (mut lockout, here) = (lockout(), ip("10.0.0.1"));
        let heard = (0..100).filter(|_| lockout.admit("admin", here, T0).is_ok()).count();
        assert_eq!(heard, 3);
        for _ in 0..3 {
            lockout.failed("admin", here, T0);
        }
        assert!(lockout.admit("admin", here, T0).is_err());
        let heard = (0..100).filter(|_| lockout.admit("admin", here, at(300)).is_ok()).count();
        assert_eq!(heard, 1, "one at a time from then on");
        lockout.succeeded("admin", here, at(300));
        assert!(lockout.admit("admin", here, at(300)).is_ok());

        let mut lockout = self::lockout();
        let heard = (0..100).filter(|n| lockout.admit(&format!("user{n}"), here, T0).is_ok()).count();
        assert_eq!(heard, 30, "over all accounts too");
        assert!(lockout.admit("user", here, at(11)).is_ok(), "tries that never came to an end");
    }

    #[test]
    fn logins_that_go_well_leave_nothing_for_long() {
        let mut lockout = Lockout::new(LockoutPolicy::default(), 100);
        for n in 0..1000 {
            let user = format!("user{n}");
            lockout.admit(&user, ip("10.0.0.1"), T0).unwrap();
            assert_eq!(lockout.succeeded(&user, ip("10.0.0.1"), T0), None);
            assert!(lockout.len() <= 100);
        }
    }

    #[test]
    fn nobody_can_lock_an_administrator_out() {
        let mut lockout = lockout();
        for n in 0..100 {
            lockout.failed("admin", ip("6.6.6.6"), at(n));
        }
        assert!(lockout.blocked_for("admin", ip("6.6.6.6"), at(100)).is_some());
        assert_eq!(lockout.blocked_for("admin", ip("10.0.0.1"), at(100)), None);
    }

    #[test]
    fn blocks_double_up_to_an_hour_and_are_forgotten() {
        let (mut lockout, here) = (lockout(), ip("10.0.0.1"));
        let mut now = T0;
        lockout.failed("admin", here, now);
        lockout.failed("admin", here, now);
        for want in [300, 600, 1200, 2400, 3600, 3600] {
            lockout.failed("admin", here, now);
            let wait = lockout.blocked_for("admin", here, now).unwrap();
            assert_eq!(wait, Duration::from_secs(want));
            now = now.plus(wait);
            assert!(lockout.blocked_for("admin", here, now).is_none());
        }
        now = now.plus(Duration::from_secs(6 * 3600));
        lockout.failed("admin", here, now);
        assert!(lockout.blocked_for("admin", here, now).is_none(), "one failure after a quiet night");
    }

    #[test]
    fn a_success_forgets_the_account_but_not_the_address() {
        let (mut lockout, here) = (lockout(), ip("10.0.0.1"));
        for n in 0..15 {
            lockout.failed(&format!("user{n}"), here, T0);
            lockout.failed(&format!("user{n}"), here, T0);
            lockout.succeeded("mine", here, T0);
        }
        assert!(lockout.blocked_for("user0", here, T0).is_some(), "thirty failures of one address");
        assert!(lockout.blocked_for("mine", here, T0).is_some());
        assert!(lockout.blocked_for("mine", ip("10.0.0.2"), T0).is_none());

        let mut lockout = self::lockout();
        lockout.failed("a", here, T0);
        lockout.failed("a", here, T0);
        assert_eq!(lockout.succeeded("a", here, at(1)).unwrap().1.failures, 0);
        lockout.failed("a", here, at(2));
        assert!(lockout.blocked_for("a", here, at(2)).is_none());
        assert_eq!(lockout.succeeded("nobody", here, T0), None, "a success makes no entry");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let mut lockout = lockout();
        for n in 0..3 {
            lockout.failed("admin", ip(&format!("2001:db8::{n}")), T0);
        }
        assert!(lockout.blocked_for("admin", ip("2001:db8::ffff"), T0).is_some());
        assert!(lockout.blocked_for("admin", ip("2001:db8:0:1::1"), T0).is_none());
        assert_eq!(LockKey::address(ip("::ffff:10.0.0.1")), LockKey::address(ip("10.0.0.1")));
        assert_ne!(LockKey::account("a", ip("10.0.0.1")), LockKey::account("b", ip("10.0.0.1")));
    }

    #[test]
    fn nodes_count_together() {
        let (mut one, mut two, here) = (lockout(), lockout(), ip("10.0.0.1"));
        for n in 0..3 {
            for (key, attempts) in one.failed("admin", here, at(n)) {
                two.merge(key, attempts, at(n));
            }
        }
        assert!(two.blocked_for("admin", here, at(3)).is_some());
        let (key, cleared) = one.succeeded("admin", here, at(4)).unwrap();
        two.merge(key, cleared, at(4));
        assert!(two.blocked_for("admin", here, at(4)).is_none());
        let json = serde_json::to_string(&(key, cleared)).unwrap();
        assert_eq!(serde_json::from_str::<(LockKey, Attempts)>(&json).unwrap(), (key, cleared));
    }

    #[test]
    fn a_flood_of_names_forgets_itself_first() {
        let mut lockout = Lockout::new(LockoutPolicy::default(), 100);
        let (victim, flood) = (ip("10.0.0.1"), |n: u32| IpAddr::from(n.to_be_bytes()));
        for _ in 0..3 {
            lockout.failed("admin", victim, T0);
        }
        for n in 0..10_000 {
            lockout.failed(&"x".repeat(1000), flood(n), at(1));
            assert!(lockout.len() <= 100);
        }
        assert!(lockout.blocked_for("admin", victim, at(2)).is_some(), "three failures outlive single ones");
    }

    fn attempts() -> impl Strategy<Value = Attempts> {
        (0u32..5, 0u64..9, 0u64..9, 0u64..9).prop_map(|(failures, last, blocked, cleared)| Attempts {
            failures,
            last: UnixMs(last),
            blocked_until: UnixMs(blocked),
            cleared: UnixMs(cleared),
        })
    }

    proptest! {
        #[test]
        fn merging_knows_no_order(a in attempts(), b in attempts()) {
            prop_assert_eq!(a.merged(b), b.merged(a));
            prop_assert_eq!(a.merged(b).merged(b), a.merged(b));
        }

        #[test]
        fn hostile_numbers_do_no_harm(failures: u32, last: u64, blocked: u64, now: u64, max: u32) {
            let mut attempts =
                Attempts { failures, last: UnixMs(last), blocked_until: UnixMs(blocked), cleared: UnixMs(0) };
            attempts.failed(UnixMs(now), max, &LockoutPolicy::default());
            attempts.blocked_for(UnixMs(now));
            attempts.succeeded(UnixMs(now));
            prop_assert_eq!(attempts.failures, 0);
        }
    }
}
