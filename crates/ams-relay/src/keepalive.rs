//! Whether the peer of a link is still there.
//!
//! Owns the ping rhythm, the round-trip time and the verdict; the caller sends the pings and asks again in time.
//! TCP alone notices a vanished peer only after minutes, and a peer that hangs with its sockets open never.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pings kept in memory until they are answered.
const UNANSWERED_MAX: usize = 32;
/// A peer that sends but answers no ping gets this many times the silence limit: its pongs may wait behind media.
const UNANSWERED_FACTOR: u32 = 3;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveAction {
    /// Nothing before [`Keepalive::next_at`].
    None,
    /// Send a ping with this nonce.
    SendPing(u64),
    /// The peer is gone: drop the link.
    Dead {
        /// How long nothing came, or how long a ping was left unanswered.
        silent_for: Duration,
    },
}

/// Keepalive of one link. Call [`Keepalive::on_received`] for every batch read, [`Keepalive::on_pong`] for every pong,
/// and [`Keepalive::poll`] whenever [`Keepalive::next_at`] has come.
#[derive(Clone, Debug)]
pub struct Keepalive {
    interval: Duration,
    dead_after: Duration,
    last_received: Instant,
    next_ping_at: Instant,
    next_nonce: u64,
    unanswered: VecDeque<(u64, Instant)>,
    rtt: Option<Duration>,
}

impl Keepalive {
    /// Pings every `interval`; the peer is dead after `dead_after` of silence. `now` is when the handshake ended.
    pub fn new(interval: Duration, dead_after: Duration, now: Instant) -> Self {
        Self {
            interval,
            dead_after,
            last_received: now,
            next_ping_at: now,
            next_nonce: 1,
            unanswered: VecDeque::new(),
            rtt: None,
        }
    }

    /// Any bytes came from the peer.
    pub fn on_received(&mut self, now: Instant) {
        self.last_received = self.last_received.max(now);
    }

    /// A pong came. Returns the round trip it measured; none if it answers no ping of ours.
    pub fn on_pong(&mut self, nonce: u64, now: Instant) -> Option<Duration> {
        self.on_received(now);
        let at = self.unanswered.iter().position(|(sent, _)| *sent == nonce)?;
        let (_, sent_at) = self.unanswered.drain(..=at).next_back()?;
        let rtt = now.saturating_duration_since(sent_at);
        self.rtt = Some(match self.rtt {
            Some(smoothed) => (smoothed * 7 + rtt) / 8,
            None => rtt,
        });
        Some(rtt)
    }

    /// Smoothed round trip; none before the first pong.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// When to call [`Keepalive::poll`] next.
    pub fn next_at(&self) -> Instant {
        let mut at = self.next_ping_at.min(self.last_received + self.dead_after);
        if let Some((_, sent_at)) = self.unanswered.front() {
            at = at.min(*sent_at + self.dead_after * UNANSWERED_FACTOR);
        }
        at
    }

    /// What to do now. Read what the socket holds before asking: bytes not read yet count as silence.
    ///
    /// A call that comes late because this node itself stood still gives the peer as much more time.
    pub fn poll(&mut self, now: Instant) -> KeepaliveAction {
        let late = now.saturating_duration_since(self.next_at());
        if late > self.interval {
            self.last_received = (self.last_received + late).min(now);
            self.unanswered.iter_mut().for_each(|(_, sent_at)| *sent_at = (*sent_at + late).min(now));
        }
        let silent_for = now.saturating_duration_since(self.last_received);
        if silent_for >= self.dead_after {
            return KeepaliveAction::Dead { silent_for };
        }
        if let Some((_, sent_at)) = self.unanswered.front() {
            let waited = now.saturating_duration_since(*sent_at);
            if waited >= self.dead_after * UNANSWERED_FACTOR {
                return KeepaliveAction::Dead { silent_for: waited };
            }
        }
        if now < self.next_ping_at {
            return KeepaliveAction::None;
        }
        self.next_ping_at = now + self.interval;
        if self.unanswered.len() >= UNANSWERED_MAX {
            return KeepaliveAction::None;
        }
        let nonce = self.next_nonce;
        self.next_nonce = self.next_nonce.wrapping_add(1);
        self.unanswered.push_back((nonce, now));
        KeepaliveAction::SendPing(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);
    const DEAD: Duration = Duration::from_secs(3);

    /// Polls at every moment asked for until the verdict or `until`; returns pings sent and the verdict's time.
    fn run(keepalive: &mut Keepalive, start: Instant, until: Duration, alive: bool) -> (u32, Option<Duration>) {
        let mut pings = 0;
        loop {
            let now = keepalive.next_at().max(start);
            if now.saturating_duration_since(start) > until {
                return (pings, None);
            }
            match keepalive.poll(now) {
                KeepaliveAction::SendPing(nonce) => {
                    pings += 1;
                    if alive {
                        keepalive.on_pong(nonce, now + Duration::from_millis(20));
                    }
                }
                KeepaliveAction::Dead { .. } => return (pings, Some(now.saturating_duration_since(start))),
                KeepaliveAction::None => {}
            }
        }
    }

    #[test]
    fn an_answering_peer_lives_and_its_round_trip_is_known() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(INTERVAL, DEAD, start);
        let (pings, dead) = run(&mut keepalive, start, Duration::from_secs(60), true);
        assert_eq!(dead, None);
        assert!((59..=61).contains(&pings), "{pings} pings in a minute");
        assert_eq!(keepalive.rtt(), Some(Duration::from_millis(20)));
    }

    #[test]
    fn a_silent_peer_is_dead_after_three_seconds() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(INTERVAL, DEAD, start);
        assert_eq!(run(&mut keepalive, start, Duration::from_secs(60), false).1, Some(DEAD));
    }

    #[test]
    fn a_peer_that_sends_but_never_answers_is_dead_too() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(INTERVAL, DEAD, start);
        for step in 0..200u32 {
            let now = start + Duration::from_millis(100) * step;
            keepalive.on_received(now);
            if let KeepaliveAction::Dead { .. } = keepalive.poll(now) {
                assert_eq!(now - start, DEAD * UNANSWERED_FACTOR);
                return;
            }
        }
        panic!("never noticed");
    }

    #[test]
    fn our_own_standstill_is_not_held_against_the_peer() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(INTERVAL, DEAD, start);
        assert_eq!(keepalive.poll(start), KeepaliveAction::SendPing(1));
        let woke = start + Duration::from_secs(10);
        assert!(matches!(keepalive.poll(woke), KeepaliveAction::SendPing(2)));
        assert_eq!(keepalive.on_pong(1, woke), Some(Duration::from_secs(1)));
        assert_eq!(keepalive.on_pong(77, woke), None, "a pong we did not ask for");
    }
}
