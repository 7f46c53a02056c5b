//! Requests per client address.
//!
//! Owns one bucket per address, in a map of bounded size: rested buckets are forgotten, and when there are still too
//! many, newcomers share one. IPv6 clients are counted by their /64, because one host has all of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_signal::{RateLimit, TokenBucket};

/// Most addresses remembered at once.
const ADDRESSES_MAX: usize = 10_000;
/// Shortest time between two searches for rested buckets.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct RateLimiter {
    limit: RateLimit,
    state: Mutex<State>,
}

struct State {
    buckets: HashMap<IpAddr, TokenBucket>,
    overflow: TokenBucket,
    swept_at: Option<Instant>,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit, now: Instant) -> Self {
        let overflow = TokenBucket::new(limit, now);
        Self { limit, state: Mutex::new(State { buckets: HashMap::new(), overflow, swept_at: None }) }
    }

    /// Counts one request; `Err` says when to come back.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let key = network_of(address);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.buckets.contains_key(&key) {
            state.make_room(now);
            if state.buckets.len() >= ADDRESSES_MAX {
                return state.overflow.take(now);
            }
        }
        state.buckets.entry(key).or_insert_with(|| TokenBucket::new(self.limit, now)).take(now)
    }
}

impl State {
    fn make_room(&mut self, now: Instant) {
        let swept_lately = self.swept_at.is_some_and(|at| now.saturating_duration_since(at) < SWEEP_INTERVAL);
        if self.buckets.len() < ADDRESSES_MAX || swept_lately {
            return;
        }
        self.swept_at = Some(now);
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

/// What an address is counted by.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(now: Instant) -> RateLimiter {
        RateLimiter::new(RateLimit { per_second: 1.0, burst: 2.0 }, now)
    }

    #[test]
    fn addresses_do_not_disturb_each_other() {
        let now = Instant::now();
        let limiter = limiter(now);
        let [one, two] = ["198.51.100.1", "198.51.100.2"].map(|a| a.parse().unwrap());
        assert!(limiter.take(one, now).is_ok() && limiter.take(one, now).is_ok());
        assert!(limiter.take(one, now).is_err());
        assert!(limiter.take(two, now).is_ok());
        assert!(limiter.take(one, now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn one_ipv6_host_is_one_address() {
        let now = Instant::now();
        let limiter = limiter(now);
        for host in 0..2 {
            assert!(limiter.take(format!("2001:db8::{host}").parse().unwrap(), now).is_ok());
        }
        assert!(limiter.take("2001:db8::9".parse().unwrap(), now).is_err());
        assert!(limiter.take("2001:db8:0:1::9".parse().unwrap(), now).is_ok());
    }

    #[test]
    fn many_addresses_take_bounded_memory() {
        let now = Instant::now();
        let limiter = limiter(now);
        for n in 0..ADDRESSES_MAX as u32 + 500 {
            let _ = limiter.take(IpAddr::V4((0x0b00_0000 + n).into()), now);
        }
        assert_eq!(limiter.state.lock().unwrap().buckets.len(), ADDRESSES_MAX);
        assert!(limiter.take("198.51.100.1".parse().unwrap(), now).is_err(), "newcomers share one bucket");
        let later = now + Duration::from_secs(10);
        assert!(limiter.take("198.51.100.1".parse().unwrap(), later).is_ok());
        assert_eq!(limiter.state.lock().unwrap().buckets.len(), 1, "rested ones are forgotten");
    }
}
