//! The last keyframe a viewer was sent, and whether it may ask for another.
//!
//! Owns that judgement alone. On a narrow path a keyframe takes as long as many pictures: viewers who ask again while it is
//! on its way, as browsers do, would get nothing but the beginnings of keyframes.

use std::time::{Duration, Instant};

use ams_media::MediaPacket;
use ams_types::Bitrate;

use super::catch_up::cost;

/// One that was sent has been decoded after a round trip and this.
const DECODED_WITHIN: Duration = Duration::from_millis(100);
/// Share of a path that keyframes asked for may take, in percent.
const SHARE_PERCENT: u64 = 25;
/// Longest time for which a viewer's wish is not heard.
const DEAF_MAX: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, Debug)]
pub(super) struct Keyframe {
    timestamp: u32,
    begun_at: Instant,
    /// When all of it was sent.
    ended_at: Option<Instant>,
    bytes: u64,
}

impl Keyframe {
    pub(super) fn begun(now: Instant, timestamp: u32) -> Self {
        Self { timestamp, begun_at: now, ended_at: None, bytes: 0 }
    }

    /// Parts of it are still to be sent.
    pub(super) fn is_being_sent(&self) -> bool {
        self.ended_at.is_none()
    }

    /// A packet was sent while [`Self::is_being_sent`].
    pub(super) fn on_sent(&mut self, now: Instant, packet: &MediaPacket, ends_picture: bool) {
        let after = packet.timestamp.wrapping_sub(self.timestamp);
        if after >= 1 << 31 {
            return; // a late one, of an earlier picture
        }
        let is_of_it = after == 0;
        if is_of_it {
            self.bytes += cost(packet).unsigned_abs();
        }
        if ends_picture || !is_of_it {
            self.ended_at = Some(now);
        }
    }

    /// Another one is of no use yet: the viewer cannot have seen this one, or has no room for more of them.
    pub(super) fn is_enough(&self, now: Instant, rtt: Duration, estimate: Option<Bitrate>) -> bool {
        let since_begin = now.saturating_duration_since(self.begun_at);
        if since_begin >= DEAF_MAX {
            return false;
        }
        let is_on_its_way = self.ended_at.is_none_or(|at| now.saturating_duration_since(at) < rtt + DECODED_WITHIN);
        let takes = estimate.map_or(0, |estimate| self.bytes * 8_000 * 100 / SHARE_PERCENT / estimate.0.max(1));
        is_on_its_way || since_begin < Duration::from_millis(takes)
    }
}

#[cfg(test)]
mod tests {
    use ams_media::PacketExtensions;
    use ams_types::{ExtSeq, LayerNo, TrackNo};
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_viewer_asks_again_when_it_can_have_seen_the_last_one_and_has_room() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let packet = |timestamp| MediaPacket {
            track: TrackNo(0),
            layer: LayerNo(0),
            seq: ExtSeq(1),
            timestamp,
            marker: false,
            keyframe: false,
            sublayer: None,
            extensions: PacketExtensions::default(),
            payload: Bytes::from_static(&[0; 926]),
            ingest_at: begin,
            age: Duration::ZERO,
        };
        let sent = |ends: &dyn Fn(&mut Keyframe)| {
            let mut keyframe = Keyframe::begun(begin, 7);
            (0..20).for_each(|n| keyframe.on_sent(at(n), &packet(7), false));
            keyframe.on_sent(at(50), &packet(7u32.wrapping_sub(3000)), true);
            assert!(keyframe.is_being_sent());
            ends(&mut keyframe);
            keyframe
        };
        let whole = sent(&|keyframe| keyframe.on_sent(at(100), &packet(7), true));
        let left = sent(&|keyframe| keyframe.on_sent(at(100), &packet(3007), false));
        let unfinished = sent(&|_| {});
        assert!(!whole.is_being_sent() && !left.is_being_sent());
        for (name, keyframe, millis, kbit, is_enough) in [
            ("being sent", unfinished, 1499, None, true),
            ("but not for ever", unfinished, 1500, None, false),
            ("on its way", whole, 249, None, true),
            ("should have been decoded", whole, 250, None, false),
            ("its end was left out", left, 250, None, false),
            ("a wide path", whole, 250, Some(4000), false),
            ("21 kB are a quarter of 1.34 s", whole, 1300, Some(500), true),
            ("and then", whole, 1400, Some(500), false),
            ("next to no path", whole, 1499, Some(50), true),
            ("next to no path, at last", whole, 1500, Some(50), false),
        ] {
            let estimate = kbit.map(|kbit| Bitrate(kbit * 1000));
            assert_eq!(keyframe.is_enough(at(millis), Duration::from_millis(50), estimate), is_enough, "{name}");
        }
    }
}
