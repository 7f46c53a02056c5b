//! A viewer behind the live packets, because it begins with those of the past, has come to another layer, or has a path that
//! takes no more now: how fast it is sent what it lacks.
//!
//! Owns the place in the ring that one track of one viewer has come to, and the pace. Never sends and never numbers:
//! the viewer does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::timeline::CATCH_UP_SPEED;
use ams_media::{MediaPacket, PacketRing, clock};
use ams_types::{Bitrate, ExtSeq, LayerNo};

/// Sent at once. The queue of a home router takes it, and it holds most keyframes of small pictures.
const BURST_BYTES: u64 = 16 * 1024;
/// Bytes around a payload: IP, UDP and RTP headers, extensions, the tag of SRTP.
const OVERHEAD: usize = 74;
/// Least pace: a keyframe of 40 kB is there within 30 ms.
const PACE_MIN: Bitrate = Bitrate(8_000_000);
/// Pace as a multiple of the live bitrate: a little more than pictures of the past need for the speed they are shown at.
const PACE_FACTOR: u64 = CATCH_UP_SPEED as u64 + 1;
/// Pictures are sent so long before the moment they are to be shown, at most.
const LEAD_MAX: Duration = Duration::from_millis(50);
/// Longest time between two pictures that is believed to be one.
const STEP_MAX: Duration = Duration::from_secs(20);

/// The place one viewer has come to in a layer's ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatchUp {
    layer: LayerNo,
    next: ExtSeq,
    clock_rate: u32,
    /// The timestamp of the first packet, and when it was sent.
    first: Option<(u32, Instant)>,
    /// Bytes that may be sent now; the last packet may overdraw it.
    credit: i64,
    at: Instant,
    /// It keeps the pace of the path. A viewer that joins does not: nothing is known of its path yet.
    is_paced: bool,
}

impl CatchUp {
    /// A viewer that joins, from this number on.
    pub(crate) fn from(now: Instant, layer: LayerNo, next: ExtSeq, clock_rate: u32) -> Self {
        Self { layer, next, clock_rate, first: None, credit: BURST_BYTES as i64, at: now, is_paced: false }
    }

    /// A viewer that has come to another layer, from what follows `packet` on.
    pub(crate) fn after(now: Instant, packet: &MediaPacket, clock_rate: u32) -> Self {
        let mut this = Self::from(now, packet.layer, ExtSeq(packet.seq.0 + 1), clock_rate);
        this.first = Some((packet.timestamp, now));
        this.is_paced = true;
        this.sent(packet);
        this
    }

    /// A viewer whose path takes no more now, from `packet` on.
    pub(crate) fn paced(now: Instant, packet: &MediaPacket, clock_rate: u32) -> Self {
        let this = Self::from(now, packet.layer, packet.seq, clock_rate);
        Self { credit: 0, is_paced: true, ..this }
    }

    /// Which layer's ring.
    pub(crate) fn layer(&self) -> LayerNo {
        self.layer
    }

    /// Whether a packet that is in the ring will be sent in its turn.
    pub(crate) fn will_come_to(&self, packet: &MediaPacket) -> bool {
        packet.layer == self.layer && packet.seq >= self.next
    }

    /// Credits the time since the last call. `live_rate` is what the layer sends by itself, `path` the bytes that the path
    /// takes now, if there is a limit.
    pub(crate) fn refill(&mut self, now: Instant, live_rate: Bitrate, path: Option<i64>) {
        let pace = live_rate.0.saturating_mul(PACE_FACTOR).max(PACE_MIN.0);
        let elapsed = now.saturating_duration_since(self.at).min(Duration::from_secs(1));
        let earned = u128::from(pace) * elapsed.as_micros() / 8_000_000;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(earned).min(BURST_BYTES as i64);
        if let Some(path) = path.filter(|_| self.is_paced) {
            self.credit = self.credit.min(path);
        }
        self.at = now;
    }

    /// The next packet to send, if the pace allows one.
    pub(crate) fn next<'r>(&mut self, ring: &'r PacketRing) -> Option<&'r Arc<MediaPacket>> {
        if self.credit <= 0 {
            return None;
        }
        let packet = ring.first_from(self.next)?;
        let (first, began) = *self.first.get_or_insert((packet.timestamp, self.at));
        // Sent earlier it would only wait at the viewer, as its timestamp says.
        let due =
            clock::duration_of_ticks(packet.timestamp.wrapping_sub(first).into(), self.clock_rate) / CATCH_UP_SPEED;
        let passed = self.at.saturating_duration_since(began) + LEAD_MAX;
        if due > passed && due < STEP_MAX / CATCH_UP_SPEED {
            return None;
        }
        self.next = ExtSeq(packet.seq.0 + 1);
        Some(packet)
    }

    /// The packet was sent; those that the viewer does not get cost nothing.
    pub(crate) fn sent(&mut self, packet: &MediaPacket) {
        self.credit -= cost(packet);
    }

    /// Nothing is left: the next packet is a live one.
    pub(crate) fn is_done(&self, ring: &PacketRing) -> bool {
        ring.first_from(self.next).is_none()
    }
}

/// What a packet costs on the wire, in bytes.
pub(crate) fn cost(packet: &MediaPacket) -> i64 {
    (packet.payload.len() + OVERHEAD) as i64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ams_media::{Kept, PacketExtensions, RingLimits};
    use ams_types::TrackNo;
    use bytes::Bytes;

    use super::*;

    fn ring(now: Instant, seqs: impl Iterator<Item = u64>) -> PacketRing {
        let kept = Kept { bytes: 1 << 24, span: Duration::from_secs(60) };
        let mut ring = PacketRing::new(RingLimits { packets: 4096, history: kept, run: kept });
        for seq in seqs {
            ring.insert(Arc::new(packet(now, seq)));
        }
        ring
    }

    fn packet(now: Instant, seq: u64) -> MediaPacket {
        MediaPacket {
            track: TrackNo(0),
            layer: LayerNo(0),
            seq: ExtSeq(seq),
            timestamp: 0,
            marker: false,
            keyframe: seq == 1000,
            sublayer: None,
            extensions: PacketExtensions::default(),
            payload: Bytes::from_static(&[0; 1000]),
            ingest_at: now,
            age: Duration::ZERO,
        }
    }

    fn take(behind: &mut CatchUp, ring: &PacketRing) -> Vec<u64> {
        let mut one = || {
            let packet = behind.next(ring)?;
            behind.sent(packet);
            Some(packet.seq.0)
        };
        std::iter::from_fn(&mut one).collect()
    }

    #[test]
    fn a_run_is_sent_in_a_burst_and_then_at_its_pace() {
        let begin = Instant::now();
        let ring = ring(begin, (1000..1100).filter(|n| n % 10 != 3));
        let mut behind = CatchUp::from(begin, LayerNo(0), ExtSeq(1000), 90_000);
        let burst = take(&mut behind, &ring);
        assert_eq!(burst.len(), 16, "16 KiB, the last packet overdraws");
        assert_eq!(burst[..4], [1000, 1001, 1002, 1004], "lost packets are passed over");
        assert!(take(&mut behind, &ring).is_empty());
        let mut sent = burst.len();
        for n in 1..=10 {
            behind.refill(begin + Duration::from_millis(5 * n), Bitrate(1_000_000), None);
            sent += take(&mut behind, &ring).len();
        }
        assert!((60..=63).contains(&sent), "50 ms at 8 Mbit/s are 46 packets of 1074 bytes: {sent}");
        assert!(!behind.is_done(&ring));
        for n in 11..=20 {
            behind.refill(begin + Duration::from_millis(5 * n), Bitrate(4_000_000), None);
            take(&mut behind, &ring);
        }
        assert!(behind.is_done(&ring));
    }

    #[test]
    fn long_silence_earns_no_more_than_a_burst() {
        let begin = Instant::now();
        let ring = ring(begin, 1000..1100);
        let mut behind = CatchUp::from(begin, LayerNo(0), ExtSeq(1000), 90_000);
        take(&mut behind, &ring);
        behind.refill(begin + Duration::from_secs(3600), Bitrate(u64::MAX), None);
        assert_eq!(take(&mut behind, &ring).len(), 16);
    }

    #[test]
    fn no_picture_is_sent_long_before_it_is_to_be_shown() {
        let begin = Instant::now();
        // Small pictures, 25 a second: the pace would allow a second of them at once.
        let mut ring = ring(begin, 0..0);
        for seq in 1000..1100u64 {
            let timestamp = 7 + (seq - 1000) as u32 * 3600 + if seq >= 1090 { 4_000_000 } else { 0 };
            let packet = packet(begin, seq);
            ring.insert(Arc::new(MediaPacket { timestamp, payload: Bytes::from_static(&[0; 100]), ..packet }));
        }
        let mut behind = CatchUp::from(begin, LayerNo(0), ExtSeq(1000), 90_000);
        let mut sent = take(&mut behind, &ring).len();
        assert_eq!(sent, 6, "50 ms ahead, at four times the speed");
        for n in 1..=40 {
            behind.refill(begin + Duration::from_millis(5 * n), Bitrate(1_000_000), None);
            sent += take(&mut behind, &ring).len();
        }
        assert_eq!(sent, 26, "250 ms are 25 pictures");
        for n in 41..=200 {
            behind.refill(begin + Duration::from_millis(5 * n), Bitrate(1_000_000), None);
            sent += take(&mut behind, &ring).len();
        }
        assert_eq!(sent, 100, "a jump of the publisher's clock stops nothing");
    }

    #[test]
    fn only_what_is_ahead_waits_for_its_turn() {
        let begin = Instant::now();
        let ring = ring(begin, 1000..1010);
        let mut behind = CatchUp::from(begin, LayerNo(0), ExtSeq(1005), 90_000);
        let packet = |seq| ring.get(ExtSeq(seq)).unwrap();
        assert!(behind.will_come_to(packet(1005)) && !behind.will_come_to(packet(1004)));
        assert_eq!(take(&mut behind, &ring), Vec::from_iter(1005..1010));
        assert!(behind.is_done(&ring));
    }
}
