//! How much arrives at the viewer, by its own clock.

use std::collections::VecDeque;

use ams_types::Bitrate;

/// Arrivals of this long are looked at.
const WINDOW_US: i64 = 300_000;
/// And of this long for the recent rate.
const RECENT_US: i64 = 125_000;
/// They are gathered in steps of this.
const STEP_US: i64 = 25_000;

/// Bytes that arrived lately.
#[derive(Debug, Default)]
pub(super) struct AckedRate {
    /// Start of a step, and bytes in it.
    steps: VecDeque<(i64, u64)>,
    newest: i64,
}

impl AckedRate {
    pub(super) fn add(&mut self, arrival_us: i64, len: u32) {
        let start = arrival_us.div_euclid(STEP_US) * STEP_US;
        match self.steps.back_mut() {
            Some((last, bytes)) if *last == start => *bytes += u64::from(len),
            Some((last, _)) if start < *last => {
                // Late, or a clock that was set back.
                if *last - start > 4 * WINDOW_US {
                    self.steps.clear();
                    self.newest = arrival_us;
                    self.steps.push_back((start, len.into()));
                } else if let Some((_, bytes)) = self.steps.iter_mut().find(|(at, _)| *at == start) {
                    *bytes += u64::from(len);
                }
            }
            _ => self.steps.push_back((start, len.into())),
        }
        self.newest = self.newest.max(arrival_us);
        while self.steps.front().is_some_and(|(at, _)| *at + WINDOW_US < self.newest) {
            self.steps.pop_front();
        }
    }

    /// The rate of the last eighth of a second: what a path carries whose queue is filling.
    pub(super) fn recent(&self) -> Option<Bitrate> {
        let from = self.newest - RECENT_US;
        let (mut bytes, mut first) = (0, None);
        for (at, len) in self.steps.iter().filter(|(at, _)| *at >= from) {
            first.get_or_insert(*at);
            bytes += len;
        }
        let span = self.newest - first?;
        (span >= RECENT_US / 2).then(|| Bitrate(bytes * 8_000_000 / span.unsigned_abs()))
    }

    /// The rate of the last third of a second; none before there is half of that to look at.
    pub(super) fn rate(&self) -> Option<Bitrate> {
        let first = self.steps.front()?.0;
        let span = self.newest - first;
        if span < WINDOW_US / 2 {
            return None;
        }
        let bytes: u64 = self.steps.iter().map(|(_, bytes)| bytes).sum();
        Some(Bitrate(bytes * 8_000_000 / span.unsigned_abs()))
    }
}
