//! A viewer that begins with packets of the past: how fast it is sent what it lacks.
//!
//! Owns the place in the ring that one track of one viewer has come to, and the pace. Never sends and never numbers:
//! the viewer does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::{MediaPacket, PacketRing};
use ams_types::{Bitrate, ExtSeq, LayerNo};

/// Sent at once. The queue of a home router takes it, and it holds most keyframes of small pictures.
const BURST_BYTES: u64 = 16 * 1024;
/// Bytes around a payload: IP, UDP and RTP headers, extensions, the tag of SRTP.
const OVERHEAD: usize = 74;
/// Least pace: a keyframe of 40 kB is there within 30 ms.
const PACE_MIN: Bitrate = Bitrate(8_000_000);
/// Pace as a multiple of the live bitrate: a run of a second is caught up with in a third of one.
const PACE_FACTOR: u64 = 4;

/// The place one viewer has come to in a layer's ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatchUp {
    layer: LayerNo,
    next: ExtSeq,
    /// Bytes that may be sent now; the last packet may overdraw it.
    credit: i64,
    at: Instant,
}

impl CatchUp {
    /// From this number on.
    pub(crate) fn from(now: Instant, layer: LayerNo, next: ExtSeq) -> Self {
        Self { layer, next, credit: BURST_BYTES as i64, at: now }
    }

    /// From what follows `packet` on.
    pub(crate) fn after(now: Instant, packet: &MediaPacket) -> Self {
        let mut this = Self::from(now, packet.layer, ExtSeq(packet.seq.0 + 1));
        this.credit -= cost(packet);
        this
    }

    /// Which layer's ring.
    pub(crate) fn layer(&self) -> LayerNo {
        self.layer
    }

    /// Whether a packet that is in the ring will be sent in its turn.
    pub(crate) fn will_come_to(&self, packet: &MediaPacket) -> bool {
        packet.layer == self.layer && packet.seq >= self.next
    }

    /// Credits the time since the last call. `live_rate` is what the layer sends by itself.
    pub(crate) fn refill(&mut self, now: Instant, live_rate: Bitrate) {
        let pace = live_rate.0.saturating_mul(PACE_FACTOR).max(PACE_MIN.0);
        let elapsed = now.saturating_duration_since(self.at).min(Duration::from_secs(1));
        let earned = u128::from(pace) * elapsed.as_micros() / 8_000_000;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(earned).min(BURST_BYTES as i64);
        self.at = now;
    }

    /// The next packet to send, if the pace allows one.
    pub(crate) fn next<'r>(&mut self, ring: &'r PacketRing) -> Option<&'r Arc<MediaPacket>> {
        if self.credit <= 0 {
            return None;
        }
        let packet = ring.first_from(self.next)?;
        self.next = ExtSeq(packet.seq.0 + 1);
        self.credit -= cost(packet);
        Some(packet)
    }

    /// Nothing is left: the next packet is a live one.
    pub(crate) fn is_done(&self, ring: &PacketRing) -> bool {
        ring.first_from(self.next).is_none()
    }
}

/// What a packet costs on the wire.
fn cost(packet: &MediaPacket) -> i64 {
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
            ring.insert(Arc::new(MediaPacket {
                track: TrackNo(0),
                layer: LayerNo(0),
                seq: ExtSeq(seq),
                timestamp: 0,
                marker: false,
                keyframe: seq == 1000,
                extensions: PacketExtensions::default(),
                payload: Bytes::from_static(&[0; 1000]),
                ingest_at: now,
            }));
        }
        ring
    }

    fn take(behind: &mut CatchUp, ring: &PacketRing) -> Vec<u64> {
        std::iter::from_fn(|| behind.next(ring).map(|p| p.seq.0)).collect()
    }

    #[test]
    fn a_run_is_sent_in_a_burst_and_then_at_its_pace() {
        let begin = Instant::now();
        let ring = ring(begin, (1000..1100).filter(|n| n % 10 != 3));
        let mut behind = CatchUp::from(begin, LayerNo(0), ExtSeq(1000));
        let burst = take(&mut behind, &ring);
        assert_eq!(burst.len(), 16, "16 KiB, the last packet overdraws");
        assert_eq!(burst[..4], [1000, 1001, 1002, 1004], "lost packets are passed over");
        assert!(take(&mut behind, &ring).is_empty());
        let mut sent = burst.len();
        for n in 1..=10 {
            behind.refill(begin + Duration::from_millis(5 * n), Bitrate(1_000_000));
            sent += take(&mut behind, &ring).len();
        }
        assert!((60..=63).contains(&sent), "50 ms at 8 Mbit/s are 46 packets of 1074 bytes: {sent}");
        assert!(!behind.is_done(&ring));
        for n in 11..=20 {
            behind.refill(begin + Duration::from_millis(5 * n), Bitrate(4_000_000));
            take(&mut behind, &ring);
        }
        assert!(behind.is_done(&ring));
    }

    #[test]
    fn long_silence_earns_no_more_than_a_burst() {
        let begin = Instant::now();
        let ring = ring(begin, 1000..1100);
        let mut behind = CatchUp::from(begin, LayerNo(0), ExtSeq(1000));
        take(&mut behind, &ring);
        behind.refill(begin + Duration::from_secs(3600), Bitrate(u64::MAX));
        assert_eq!(take(&mut behind, &ring).len(), 16);
    }

    #[test]
    fn only_what_is_ahead_waits_for_its_turn() {
        let begin = Instant::now();
        let ring = ring(begin, 1000..1010);
        let mut behind = CatchUp::from(begin, LayerNo(0), ExtSeq(1005));
        let packet = |seq| ring.get(ExtSeq(seq)).unwrap();
        assert!(behind.will_come_to(packet(1005)) && !behind.will_come_to(packet(1004)));
        assert_eq!(take(&mut behind, &ring), Vec::from_iter(1005..1010));
        assert!(behind.is_done(&ring));
    }
}
