//! One layer of a publisher's track at ingest: what becomes of an RTP packet before it is frozen and fanned out.
//!
//! Joins [`SeqExtender`], [`KeyframeDetector`], [`NackGenerator`] and [`ReceiveStats`] into one call per packet. For the
//! node that takes the publisher's media; on an edge the relay brings numbers and keyframe starts along.

use std::time::{Duration, Instant};

use ams_types::{Codec, ExtSeq};

use crate::keyframe::KeyframeDetector;
use crate::nack::{NackCounters, NackGenerator};
use crate::payload::{FrameSize, frame_size};
use crate::receive_stats::{ReceiveStats, ReceptionReport};
use crate::seq::SeqExtender;
use crate::sublayer::{Sublayer, SublayerReader};
use crate::track::SourceClock;

/// An RTP packet as the publisher sent it: the fields that matter before it becomes a
/// [`MediaPacket`](crate::MediaPacket).
#[derive(Clone, Copy, Debug)]
pub struct ArrivedRtp<'a> {
    /// Sequence number; of a retransmission the original one (RFC 4588 §4).
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Payload without padding.
    pub payload: &'a [u8],
    /// AV1 dependency descriptor, if the packet has one.
    pub dependency_descriptor: Option<&'a [u8]>,
    /// It came as a retransmission.
    pub recovered: bool,
}

/// What is known of a packet once it is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// For [`MediaPacket::seq`](crate::MediaPacket::seq).
    pub seq: ExtSeq,
    /// For [`MediaPacket::keyframe`](crate::MediaPacket::keyframe).
    pub keyframe: bool,
    /// For [`MediaPacket::sublayer`](crate::MediaPacket::sublayer).
    pub sublayer: Option<Sublayer>,
    /// Too much is missing to be asked for packet by packet: ask for a keyframe.
    pub needs_keyframe: bool,
}

/// One layer at ingest.
#[derive(Clone, Debug)]
pub struct LayerIngest {
    codec: Codec,
    extender: SeqExtender,
    keyframes: KeyframeDetector,
    sublayers: SublayerReader,
    nack: NackGenerator,
    stats: ReceiveStats,
    clock: Option<SourceClock>,
    frame_size: Option<FrameSize>,
}

impl LayerIngest {
    /// A layer of a track with this codec, before its first packet.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            extender: SeqExtender::default(),
            keyframes: KeyframeDetector::new(codec),
            sublayers: SublayerReader::new(codec),
            nack: NackGenerator::default(),
            stats: ReceiveStats::new(codec.clock_rate()),
            clock: None,
            frame_size: None,
        }
    }

    /// Takes in a packet. Duplicates are not told apart here but by [`PacketRing::insert`](crate::PacketRing::insert).
    pub fn on_rtp(&mut self, now: Instant, rtp: ArrivedRtp<'_>) -> Ingested {
        let seq = self.extender.extend(rtp.seq);
        if !rtp.recovered {
            self.stats.on_packet(now, seq, rtp.timestamp);
        }
        let needs_keyframe = self.nack.on_packet(now, seq, rtp.recovered).is_err();
        let keyframe = self.keyframes.on_packet(rtp.timestamp, rtp.payload, rtp.dependency_descriptor);
        if keyframe && let Some(size) = frame_size(self.codec, rtp.payload) {
            self.frame_size = Some(size);
        }
        let sublayer = self.sublayers.on_packet(rtp.payload, rtp.dependency_descriptor);
        Ingested { seq, keyframe, sublayer, needs_keyframe }
    }

    /// Takes in a sender report's NTP time and RTP timestamp.
    pub fn on_sender_report(&mut self, now: Instant, ntp: u64, rtp: u32) -> SourceClock {
        self.stats.on_sender_report(now, ntp);
        let clock = SourceClock { ntp, rtp, learned_at: now };
        self.clock = Some(clock);
        clock
    }

    /// Numbers to ask for again now; see [`NackGenerator::poll`].
    pub fn poll_nack(&mut self, now: Instant, rtt: Duration, out: &mut [ExtSeq]) -> usize {
        self.nack.poll(now, rtt, out)
    }

    /// When [`poll_nack`](Self::poll_nack) has something to do next.
    pub fn poll_timeout(&self, rtt: Duration) -> Option<Instant> {
        self.nack.poll_timeout(rtt)
    }

    /// The report block for this layer; none before its first packet.
    pub fn report(&mut self, now: Instant) -> Option<ReceptionReport> {
        self.stats.report(now)
    }

    /// The last sender report, for the SRs of viewers.
    pub fn clock(&self) -> Option<SourceClock> {
        self.clock
    }

    /// Picture size of the last keyframe that told it.
    pub fn frame_size(&self) -> Option<FrameSize> {
        self.frame_size
    }

    /// Counts of what arrived and what was lost.
    pub fn stats(&self) -> &ReceiveStats {
        &self.stats
    }

    /// Counts of what was asked for again.
    pub fn nack_counters(&self) -> NackCounters {
        self.nack.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{from_hex, ms, start};

    fn vp8(seq: u16, payload: &[u8]) -> ArrivedRtp<'_> {
        ArrivedRtp { seq, timestamp: 0, payload, dependency_descriptor: None, recovered: false }
    }

    #[test]
    fn a_packet_is_numbered_judged_and_counted() {
        let (key, delta) = (from_hex("10500800 9d012a 8002 6801"), from_hex("1051"));
        let mut layer = LayerIngest::new(Codec::Vp8);
        let now = start();
        let first = layer.on_rtp(now, vp8(65_535, &key));
        assert_eq!(first, Ingested { seq: ExtSeq(131_071), keyframe: true, sublayer: None, needs_keyframe: false });
        assert_eq!(layer.frame_size().map(|s| (s.width, s.height)), Some((640, 360)));
        assert_eq!(layer.on_rtp(now, vp8(1, &delta)).seq, ExtSeq(131_073));
        let mut missing = [ExtSeq(0); 8];
        assert_eq!(layer.poll_nack(now + ms(20), ms(50), &mut missing), 1);
        assert_eq!(missing[0], ExtSeq(131_072));
        let late = layer.on_rtp(now + ms(60), ArrivedRtp { recovered: true, ..vp8(0, &delta) });
        assert_eq!(late.seq, ExtSeq(131_072));
        assert_eq!(layer.report(now).map(|r| r.cumulative_lost), Some(1), "repaired loss is still loss");
        assert_eq!(layer.poll_timeout(ms(50)), None);
        assert!(layer.on_rtp(now, vp8(2000, &delta)).needs_keyframe);
    }

    #[test]
    fn a_sender_report_is_kept_and_quoted() {
        let (mut layer, now) = (LayerIngest::new(Codec::Opus), start());
        assert_eq!(layer.clock(), None);
        layer.on_rtp(now, vp8(1, &[0xfc]));
        layer.on_sender_report(now, 0x1122_3344_5566_7788, 960);
        assert_eq!(layer.clock(), Some(SourceClock { ntp: 0x1122_3344_5566_7788, rtp: 960, learned_at: now }));
        assert_eq!(layer.report(now).map(|r| r.last_sr), Some(0x3344_5566));
    }
}
