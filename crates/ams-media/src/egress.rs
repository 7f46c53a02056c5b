//! One track of one viewer: what it gets of every packet, and under which numbers.
//!
//! Joins [`LayerSelector`], [`DepthSelector`] and [`SequenceRewriter`] into the one call a shard makes per viewer and packet. Holds no
//! media: packets stay in the shard's [`PacketRing`](crate::PacketRing). Sealing, RTX numbering and sending are the
//! transport's.

use std::time::{Duration, Instant};

use ams_types::{Codec, ExtSeq, LayerNo};

use crate::depth::{DepthSelector, DepthVerdict};
use crate::layer::{LayerSelector, Verdict};
use crate::packet::MediaPacket;
use crate::rewrite::{Rewritten, SequenceRewriter, Source};
use crate::sublayer::{Depth, Sublayer};

/// How often one packet is sent again to one viewer.
pub const RESENDS_MAX: u8 = 10;
/// Least time between two answers to NACKs for one packet, however short the round trip.
pub const RESEND_INTERVAL_MIN: Duration = Duration::from_millis(5);
/// Packets whose last retransmission is remembered.
const RESENDS_REMEMBERED: usize = 128;

/// What one viewer got of one track, since it joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressCounters {
    /// Packets forwarded, without retransmissions.
    pub packets: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Packets not forwarded because the viewer waited for a keyframe.
    pub dropped_no_keyframe: u64,
    /// Packets not forwarded because they were duplicates or came after the viewer had moved on.
    pub dropped_late: u64,
    /// Packets left out because they are of temporal or spatial layers that the viewer does not get.
    pub left_out: u64,
    /// Retransmissions granted.
    pub resent: u64,
    /// Times the viewer began, resumed or changed its layer.
    pub switches: u64,
}

/// A packet that a viewer asks for again; look it up in the ring of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    /// Which layer's ring has it.
    pub layer: LayerNo,
    /// Its number there.
    pub source_seq: ExtSeq,
    /// The viewer's number of it: the original sequence number of an RTX payload (RFC 4588 §4).
    pub viewer_seq: ExtSeq,
    /// The viewer got it before. If not, pass the packet to [`ViewerTrack::forward`] and send it as an original.
    ///
    /// If so, without RTX, it must go out again byte for byte as it was: sealing other bytes under the same number
    /// (another header extension value, say) gives the key away.
    pub sent: bool,
    numbering: NumberingOf,
}

/// Keeps how the packet looks to the viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NumberingOf(crate::rewrite::SourcePacket);

impl Resend {
    /// The numbering under which the viewer knows `packet`.
    pub fn rewritten(&self, packet: &MediaPacket) -> Rewritten {
        self.numbering.0.rewritten(packet)
    }
}

/// One track of one viewer.
#[derive(Clone, Debug)]
pub struct ViewerTrack {
    selector: LayerSelector,
    depth: DepthSelector,
    /// How much of the target layer is wanted.
    target_depth: Depth,
    rewriter: SequenceRewriter,
    run: u32,
    resends: Resends,
    counters: EgressCounters,
}

impl ViewerTrack {
    /// A track that has not begun. `start_seq` (low 15 bits) and `start_timestamp` should be random (RFC 3550 §5.1).
    pub fn new(clock_rate: u32, start_seq: u16, start_timestamp: u32) -> Self {
        Self {
            selector: LayerSelector::default(),
            depth: DepthSelector::default(),
            target_depth: Depth::ALL,
            rewriter: SequenceRewriter::new(clock_rate, start_seq, start_timestamp),
            run: 0,
            resends: Resends::default(),
            counters: EgressCounters::default(),
        }
    }

    /// The same, for a track of this codec.
    pub fn for_codec(self, codec: Codec) -> Self {
        Self { rewriter: self.rewriter.for_codec(codec), ..self }
    }

    // --- the media path ---

    /// The numbers under which the viewer gets this packet of the track; none if it does not get it.
    ///
    /// Seal and send it exactly once: no number is ever given out again.
    pub fn forward(&mut self, now: Instant, packet: &MediaPacket) -> Option<Rewritten> {
        let source = Source { run: self.run, layer: packet.layer };
        match self.selector.wants(packet) {
            Verdict::Forward => {
                // A keyframe that says nothing has no layers inside.
                if let Some(sublayer) = packet.sublayer.or(packet.keyframe.then(Sublayer::default))
                    && !self.has_depth_for(source, packet, sublayer)
                {
                    return None;
                }
            }
            Verdict::Drop => {
                self.counters.dropped_no_keyframe += u64::from(self.selector.current().is_none());
                return None;
            }
            Verdict::SwitchHere => {
                if !self.rewriter.switch_source(now, source, packet) {
                    self.counters.dropped_late += 1;
                    return None;
                }
                self.selector.switched(packet.layer);
                let depth = if self.selector.is_on_target() { self.target_depth } else { Depth::ALL };
                self.depth.begin(packet, depth);
                self.rewriter.set_top(source, packet.seq, depth.spatial);
                self.counters.switches += 1;
            }
        }
        let Some(rewritten) = self.rewriter.rewrite(source, packet) else {
            self.counters.dropped_late += 1;
            return None;
        };
        self.counters.packets += 1;
        self.counters.bytes += packet.payload.len() as u64;
        Some(rewritten)
    }

    /// Whether the viewer gets this much of its layer. What it does not get leaves no gap in its numbers.
    fn has_depth_for(&mut self, source: Source, packet: &MediaPacket, sublayer: Sublayer) -> bool {
        let verdict = self.depth.wants(packet, sublayer);
        match verdict {
            DepthVerdict::Send => {
                self.rewriter.set_top(source, packet.seq, self.depth.current().spatial);
                return true;
            }
            DepthVerdict::Skip { is_first } => {
                self.rewriter.skip(source, packet.seq, is_first);
                self.counters.left_out += 1;
            }
            DepthVerdict::Late => self.counters.dropped_late += 1,
        }
        false
    }

    // --- feedback from the viewer ---

    /// Which packet a NACK for `viewer_seq` asks for; none if it is unknown, was sent again within the last `rtt`, or
    /// too often. Nor from before the last switch: the keyframe there needs none of it.
    pub fn nack(&mut self, now: Instant, rtt: Duration, viewer_seq: u16) -> Option<Resend> {
        let found = self.rewriter.source_of(viewer_seq)?;
        // Rings hold the present run only.
        if found.source.run != self.run
            || self.rewriter.is_before_switch(found.viewer_seq)
            || !self.resends.grant(now, rtt.max(RESEND_INTERVAL_MIN), found.viewer_seq)
        {
            return None;
        }
        self.counters.resent += 1;
        Some(Resend {
            layer: found.source.layer,
            source_seq: found.seq,
            viewer_seq: found.viewer_seq,
            sent: found.sent,
            numbering: NumberingOf(found),
        })
    }

    /// A packet that [`Self::nack`] found is missing at the viewer.
    pub fn on_missed(&mut self, packet: &MediaPacket) {
        if let Some(sublayer) = packet.sublayer.filter(|_| self.selector.current() == Some(packet.layer)) {
            self.depth.on_missed(sublayer);
        }
    }

    // --- decisions of the shard ---

    /// Sets the layer the viewer is to get: that of the track's [`LayerMonitor`](crate::LayerMonitor), or its own.
    /// `depth` is how much of that layer.
    pub fn set_target(&mut self, layer: LayerNo, depth: Depth) {
        self.selector.set_target(layer);
        self.target_depth = depth;
        if self.selector.is_on_target() {
            self.depth.set_target(depth);
        }
    }

    /// Forwards nothing until the next keyframe: the viewer is too slow, or media before it is missing for good.
    ///
    /// Audio goes on with its next packet.
    pub fn skip_to_keyframe(&mut self) {
        self.selector.pause();
    }

    /// Forwards nothing until the next keyframe of the target layer: the present one is too much for the network.
    pub fn wait_for_target(&mut self) {
        self.selector.pause_for_target();
    }

    /// The stream's source begins anew (a new epoch, another publisher): its numbers have nothing to do with the former.
    ///
    /// The viewer's own numbers go on, from the next keyframe. Clear the rings, too.
    pub fn on_source_restart(&mut self) {
        self.run = self.run.wrapping_add(1);
        self.selector = LayerSelector::default();
        self.depth = DepthSelector::default();
        self.target_depth = Depth::ALL;
    }

    // --- what it is doing ---

    /// Whether the viewer was given nothing yet of the present source.
    pub fn is_untouched(&self) -> bool {
        self.rewriter.source().is_none_or(|source| source.run != self.run)
    }

    /// Whether a packet comes after all that the viewer was given of its layer.
    pub fn is_new(&self, packet: &MediaPacket) -> bool {
        self.selector.current() == Some(packet.layer) && self.rewriter.is_new(packet.seq)
    }

    /// The layer the viewer is on; none while it waits for a keyframe to begin with.
    pub fn layer(&self) -> Option<LayerNo> {
        self.selector.current()
    }

    /// How much of its layer the viewer gets.
    pub fn depth(&self) -> Depth {
        self.depth.current()
    }

    /// The layer of which a keyframe is needed, to begin or to change layers: see that it is asked for.
    pub fn waiting_keyframe(&self) -> Option<LayerNo> {
        self.selector.waiting_keyframe().or_else(|| self.selector.current().filter(|_| self.depth.needs_keyframe()))
    }

    /// The viewer's timestamp for one of its present layer, for sender reports; none before the first packet of the
    /// present source.
    pub fn timestamp(&self, source_timestamp: u32) -> Option<u32> {
        if self.is_untouched() {
            return None;
        }
        self.rewriter.timestamp(source_timestamp)
    }

    /// What the viewer got so far. Packets and bytes are those of a sender report (RFC 3550 §6.4.1).
    pub fn counters(&self) -> EgressCounters {
        self.counters
    }
}

/// When packets were last sent again. Of two packets in one place the newer is remembered.
#[derive(Clone, Debug, Default)]
struct Resends(Vec<Option<(ExtSeq, Instant, u8)>>);

impl Resends {
    /// Whether a packet may be sent again now; if so that is remembered.
    fn grant(&mut self, now: Instant, interval: Duration, seq: ExtSeq) -> bool {
        // Most viewers never ask: the table comes with the first NACK.
        self.0.resize(RESENDS_REMEMBERED, None);
        let Some(place) = self.0.get_mut((seq.0 % RESENDS_REMEMBERED as u64) as usize) else { return false };
        let times = match place {
            Some((known, last, times)) if *known == seq => {
                if *times >= RESENDS_MAX || now.saturating_duration_since(*last) < interval {
                    return false;
                }
                *times
            }
            _ => 0,
        };
        *place = Some((seq, now, times + 1));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::payload::sublayer_of;
    use crate::payload::vp8_ids::{Vp8Ids, Vp8Shift};
    use crate::ring::{PacketRing, RingLimits};
    use crate::testing::{ms, packet, start};

    const RTT: Duration = Duration::from_millis(50);

    fn track() -> ViewerTrack {
        ViewerTrack::new(90_000, 100, 7000)
    }

    #[test]
    fn video_begins_at_a_keyframe() {
        let (mut track, now) = (track(), start());
        assert_eq!(track.waiting_keyframe(), Some(LayerNo(0)));
        assert_eq!(track.forward(now, &packet(1, 0, now)), None);
        let first = track.forward(now, &packet(2, 3000, now).keyframe()).unwrap();
        assert_eq!((first.seq, first.timestamp), (ExtSeq(100), 7000));
        assert_eq!(track.waiting_keyframe(), None);
        let counters = track.counters();
        assert_eq!((counters.packets, counters.bytes, counters.dropped_no_keyframe), (1, 100, 1));
    }

    #[test]
    fn a_layer_change_waits_for_its_keyframe_and_shows_in_no_number() {
        let (mut track, now) = (track(), start());
        let seqs: Vec<_> = [
            packet(2, 0, now).keyframe(),
            packet(3, 3000, now + ms(33)),
            packet(70, 90, now + ms(40)).on_layer(1),
            packet(71, 90, now + ms(50)).on_layer(1).keyframe(),
            packet(4, 6000, now + ms(66)),
            packet(72, 3090, now + ms(83)).on_layer(1),
        ]
        .iter()
        .enumerate()
        .map(|(n, packet)| {
            if n == 1 {
                track.set_target(LayerNo(1), Depth::ALL);
                assert_eq!(track.waiting_keyframe(), Some(LayerNo(1)));
            }
            track.forward(now, packet).map(|r| (r.seq.0, r.timestamp))
        })
        .collect();
        let want = [Some((100, 7000)), Some((101, 10_000)), None, Some((102, 11_530)), None, Some((103, 14_530))];
        assert_eq!(seqs, want);
        assert_eq!(track.layer(), Some(LayerNo(1)));
    }

    #[test]
    fn vp8_pictures_are_counted_on_over_a_layer_change_and_a_pause() {
        let (mut track, now) = (track().for_codec(Codec::Vp8), start());
        let picture = |seq: u64, layer: u8, picture: u16, key: bool| {
            let [high, low] = picture.to_be_bytes();
            let payload = vec![0x90, 0xc0, 0x80 | high, low, (picture & 0xff) as u8, u8::from(!key)];
            let packet = packet(seq, seq as u32 * 3000, now + ms(33 * (seq % 100))).on_layer(layer);
            MediaPacket { payload: payload.into(), ..if key { packet.keyframe() } else { packet } }
        };
        let mut got = Vec::new();
        let mut take = |track: &mut ViewerTrack, packet: MediaPacket| {
            let Some(rewritten) = track.forward(now, &packet) else { return };
            let mut payload = packet.payload.to_vec();
            rewritten.vp8.apply(&mut payload);
            let again = track.nack(now, RTT, rewritten.seq.low16()).map(|resend| resend.rewritten(&packet));
            assert_eq!(again, Some(rewritten), "sent again it is the same");
            got.push(Vp8Ids::read(&payload).map(|ids| (ids.picture, ids.tl0().unwrap())).unwrap());
        };
        (0..3).for_each(|n| take(&mut track, picture(100 + n, 0, 0x7ffe + n as u16, n == 0)));
        track.set_target(LayerNo(1), Depth::ALL);
        (3..6).for_each(|n| take(&mut track, picture(500 + n, 1, 900 + n as u16, n == 3)));
        track.skip_to_keyframe();
        (6..20).for_each(|n| take(&mut track, picture(500 + n, 1, 900 + n as u16, n == 18)));
        let want: Vec<_> = (0..8u16).map(|n| ((0x7ffe + n) & 0x7fff, (0xfe + n as u8 as u16) as u8)).collect();
        assert_eq!(got, want);
    }

    /// Pictures of a VP8 stream in three temporal layers (0 2 1 2), one packet each, number and picture id `n`.
    fn in_three_temporal_layers(n: u16, now: Instant) -> MediaPacket {
        let (temporal, climbs) = [(0, false), (2, true), (1, true), (2, false)][usize::from(n % 4)];
        let [high, low] = n.to_be_bytes();
        let ids = [0x80 | high, low, (n / 4) as u8, temporal << 6 | u8::from(climbs) << 5];
        let payload = [&[0x90, 0xe0][..], &ids, &[u8::from(n != 0)]].concat();
        let sublayer = sublayer_of(Codec::Vp8, &payload);
        let packet = packet(n.into(), u32::from(n) * 3000, now + ms(33 * u64::from(n)));
        let packet = if n == 0 { packet.keyframe() } else { packet };
        MediaPacket { payload: payload.into(), sublayer, ..packet }
    }

    #[test]
    fn vp8_pictures_left_out_show_in_no_number() {
        let (mut track, now) = (track().for_codec(Codec::Vp8), start());
        let at_lowest = Depth { temporal: 0, ..Depth::ALL };
        let mut last: Option<(Rewritten, Vp8Ids)> = None;
        let mut shown = Vec::new();
        for n in 0..24 {
            match n {
                6 => track.set_target(LayerNo(0), at_lowest),
                14 => track.set_target(LayerNo(0), Depth::ALL),
                _ => {}
            }
            let packet = in_three_temporal_layers(n, now);
            let Some(rewritten) = track.forward(now, &packet) else { continue };
            shown.push(n);
            let again = track.nack(now, RTT, rewritten.seq.low16()).map(|resend| resend.rewritten(&packet));
            assert_eq!(again, Some(rewritten), "sent again it is the same");
            let mut payload = packet.payload.to_vec();
            rewritten.vp8.apply(&mut payload);
            let ids = Vp8Ids::read(&payload).unwrap();
            if let Some((last, last_ids)) = &last {
                assert_eq!(rewritten.seq.0, last.seq.0 + 1, "{n}");
                assert_eq!(ids.picture, last_ids.picture + 1, "{n}");
                assert_eq!(ids.tl0().unwrap(), last_ids.tl0().unwrap() + u8::from(n % 4 == 0), "{n}");
            }
            last = Some((rewritten, ids));
        }
        let want: Vec<u16> = (0..6).chain([8, 12]).chain([14]).chain([16]).chain(17..24).collect();
        assert_eq!(shown, want);
        assert_eq!(track.counters().left_out, 24 - want.len() as u64);
    }

    #[test]
    fn the_last_packet_of_the_highest_spatial_layer_sent_ends_the_picture() {
        let (mut track, now) = (track(), start());
        let take = |track: &mut ViewerTrack, picture: u64| {
            // Two packets in each of three spatial layers; the publisher marks the last of all.
            let packets = (0..6u8).map(|at| MediaPacket {
                marker: at == 5,
                keyframe: picture == 0 && at == 0,
                sublayer: Some(Sublayer { spatial: at / 2, ends_frame: at % 2 == 1, ..Sublayer::default() }),
                ..packet(picture * 6 + u64::from(at), picture as u32 * 3000, now + ms(33 * picture))
            });
            let seen = packets.filter_map(|packet| {
                let rewritten = track.forward(now, &packet)?;
                let again = track.nack(now, RTT, rewritten.seq.low16()).map(|resend| resend.rewritten(&packet));
                assert_eq!(again, Some(rewritten), "sent again it is the same");
                assert_eq!(rewritten.vp8, Vp8Shift::default(), "a payload that is not VP8's stays as it is");
                Some((rewritten.seq.0 - 100, rewritten.marker))
            });
            seen.collect::<Vec<_>>()
        };
        let marked =
            |first: u64, count: u64| (first..first + count).map(|n| (n, n + 1 == first + count)).collect::<Vec<_>>();
        assert_eq!(take(&mut track, 0), marked(0, 6));
        track.set_target(LayerNo(0), Depth { spatial: 1, ..Depth::ALL });
        assert_eq!(take(&mut track, 1), marked(6, 4));
        track.set_target(LayerNo(0), Depth { spatial: 0, ..Depth::ALL });
        assert_eq!(take(&mut track, 2), marked(10, 2));
        track.set_target(LayerNo(0), Depth::ALL);
        assert_eq!(track.waiting_keyframe(), None);
        assert_eq!(take(&mut track, 3), marked(12, 2));
        assert_eq!(track.waiting_keyframe(), Some(LayerNo(0)), "more of the picture needs a keyframe");
    }

    #[test]
    fn a_publisher_that_has_no_layers_inside_any_more_ends_the_wait_for_them() {
        let (mut track, now) = (track(), start());
        let with = |seq: u64, temporal: u8| {
            let sublayer = Some(Sublayer { temporal, ..Sublayer::default() });
            MediaPacket { sublayer, ..packet(seq, seq as u32 * 3000, now) }
        };
        track.set_target(LayerNo(0), Depth { temporal: 0, ..Depth::ALL });
        track.forward(now, &with(1, 0).keyframe()).unwrap();
        track.set_target(LayerNo(0), Depth::ALL);
        (2..100).for_each(|seq| assert_eq!(track.forward(now, &with(seq, 1)), None));
        assert_eq!(track.waiting_keyframe(), Some(LayerNo(0)));
        track.forward(now, &packet(100, 300_000, now).keyframe()).unwrap();
        assert_eq!(track.waiting_keyframe(), None);
    }

    #[test]
    fn a_slow_viewer_resumes_at_a_keyframe_without_a_gap() {
        let (mut track, now) = (track(), start());
        track.forward(now, &packet(1, 0, now).keyframe()).unwrap();
        track.skip_to_keyframe();
        assert_eq!(track.forward(now, &packet(2, 3000, now)), None);
        let next = track.forward(now, &packet(300, 900_000, now + ms(10_000)).keyframe()).unwrap();
        assert_eq!((next.seq, next.timestamp), (ExtSeq(101), 907_000));
        assert_eq!(track.forward(now, &packet(2, 3000, now)), None, "from before the pause");
    }

    #[test]
    fn a_new_publisher_goes_on_where_the_old_one_stopped() {
        let (mut track, now) = (track(), start());
        track.forward(now, &packet(900, 123_456, now).keyframe()).unwrap();
        track.on_source_restart();
        assert_eq!(track.waiting_keyframe(), Some(LayerNo(0)));
        assert_eq!(track.nack(now, RTT, 100), None, "its packet belongs to a former source");
        let next = track.forward(now, &packet(3, 50, now + ms(2000)).keyframe()).unwrap();
        assert_eq!((next.seq, next.timestamp), (ExtSeq(101), 7000 + 180_000));
    }

    #[test]
    fn a_nack_leads_to_the_ring_once_per_round_trip() {
        let (mut track, now) = (track(), start());
        let mut ring = PacketRing::new(RingLimits::VIDEO);
        for seq in 1..=5 {
            let packet = Arc::new(packet(seq, seq as u32 * 3000, now).keyframe());
            ring.insert(packet.clone());
            assert!(track.forward(now, &packet).is_some());
        }
        let resend = track.nack(now, RTT, 102).unwrap();
        assert!(resend.sent);
        let packet = ring.get(resend.source_seq).unwrap();
        assert_eq!(packet.seq, ExtSeq(3));
        let again = resend.rewritten(packet);
        assert_eq!((again.seq, again.timestamp), (ExtSeq(102), 13_000));
        for (name, after, seq, want) in [
            ("at once again", 0, 102, false),
            ("another meanwhile", 10, 103, true),
            ("within the round trip", 49, 102, false),
            ("after it", 50, 102, true),
            ("not yet sent", 50, 105, false),
            ("never sent", 50, 99, false),
        ] {
            assert_eq!(track.nack(now + ms(after), RTT, seq).is_some(), want, "{name}");
        }
        let granted = (2..50).filter(|n| track.nack(now + ms(50 * n), RTT, 102).is_some()).count();
        assert_eq!(granted, usize::from(RESENDS_MAX) - 2, "a viewer cannot have it sent for ever");
    }

    #[test]
    fn a_packet_the_viewer_never_got_is_an_original() {
        let (mut track, now) = (track(), start());
        // The picture's slice overtook its parameter sets, where the keyframe starts.
        let (parameter_sets, slice) = (packet(1, 0, now).keyframe(), packet(2, 0, now));
        assert_eq!(track.forward(now, &slice), None);
        track.forward(now, &parameter_sets).unwrap();
        track.forward(now, &packet(3, 0, now)).unwrap();
        let resend = track.nack(now, RTT, 101).unwrap();
        assert_eq!((resend.sent, resend.source_seq), (false, ExtSeq(2)));
        assert_eq!(track.forward(now, &slice).map(|r| r.seq), Some(ExtSeq(101)));
    }

    #[test]
    fn audio_begins_at_once_and_never_repeats() {
        let (mut track, now) = (ViewerTrack::new(48_000, 0x8000, 0), start());
        let audio = |seq: u64| packet(seq, seq as u32 * 960, now).keyframe();
        let seqs: Vec<_> =
            [7, 9, 8, 8, 10].into_iter().map(|s| track.forward(now, &audio(s)).map(|r| r.seq.0)).collect();
        assert_eq!(seqs, [Some(0), Some(2), Some(1), None, Some(3)]);
        assert_eq!(track.counters().dropped_late, 1);
    }

    proptest! {
        #[test]
        fn vp8_pictures_never_skip(
            pictures in vec((0u8..3, any::<bool>(), 1u64..4, 0u8..12, 0u8..4, 0u64..3), 1..200),
        ) {
            let now = start();
            let mut track = track().for_codec(Codec::Vp8);
            let (mut seq, mut lowest) = (1000, 0u8);
            // What the viewer got: its number, picture id, first and last of the picture.
            let mut got: Vec<(u64, u16, bool, bool)> = Vec::new();
            for (n, (temporal, climbs, count, what, depth, at)) in (0u16..).zip(pictures) {
                let key = n == 0 || what == 0;
                let temporal = if key { 0 } else { temporal };
                lowest = lowest.wrapping_add(u8::from(temporal == 0));
                for part in 0..count {
                    match what {
                        1 if part == at => track.skip_to_keyframe(),
                        2..6 if part == at => track.set_target(LayerNo(0), Depth { temporal: depth, ..Depth::ALL }),
                        _ => {}
                    }
                    let [high, low] = n.to_be_bytes();
                    let ids = [0x80 | high, low, lowest, temporal << 6 | u8::from(climbs) << 5];
                    let payload = [&[0x80 | u8::from(part == 0) << 4, 0xe0][..], &ids, &[u8::from(!key)]].concat();
                    let packet = packet(seq, u32::from(n) * 3000, now + ms(33 * u64::from(n)));
                    let sublayer = sublayer_of(Codec::Vp8, &payload);
                    let keyframe = key && part == 0;
                    let packet = MediaPacket { payload: payload.into(), sublayer, keyframe, ..packet };
                    seq += 1;
                    let Some(rewritten) = track.forward(now, &packet) else { continue };
                    let mut payload = packet.payload.to_vec();
                    rewritten.vp8.apply(&mut payload);
                    let ids = Vp8Ids::read(&payload).unwrap();
                    got.push((rewritten.seq.0, ids.picture, part == 0, part + 1 == count));
                }
            }
            for pair in got.windows(2) {
                let ((seq, picture, _, ends), (next_seq, next_picture, starts, _)) = (pair[0], pair[1]);
                prop_assert_eq!(next_seq, seq + 1);
                prop_assert_eq!(next_picture, if starts { picture + 1 } else { picture }, "{:?} ends {}", pair, ends);
            }
        }

        #[test]
        fn viewer_numbers_never_skip(
            choices in vec((0u8..3, 0u8..3, 0u8..4, any::<bool>(), 0u8..20), 1..300),
            shapes in vec((0u8..3, 0u8..4, 0u8..8), 7),
        ) {
            let now = start();
            let mut track = track();
            let mut next = [1000u64, 65_530, 131_000];
            let mut last: Option<Rewritten> = None;
            for (tick, (target, spatial, temporal, keyframe, what)) in choices.into_iter().enumerate() {
                match what {
                    0 => track.skip_to_keyframe(),
                    1 => { track.on_source_restart(); next = [5, 65_530, 1 << 40]; }
                    2 => track.wait_for_target(),
                    _ => track.set_target(LayerNo(target), Depth { spatial, temporal }),
                }
                let (highest, level, climb) = shapes[tick % shapes.len()];
                for (layer, spatial) in (0..3u8).flat_map(|layer| (0..=highest).map(move |spatial| (layer, spatial))) {
                    let seq = &mut next[usize::from(layer)];
                    *seq += 1;
                    let packet = packet(*seq, tick as u32 * 3000, now + ms(33 * tick as u64)).on_layer(layer);
                    let climb = (climb > 3).then(|| (climb - 4, climb - 3));
                    let sublayer = Some(Sublayer { spatial, temporal: level, climb, ends_frame: true });
                    let packet = MediaPacket { sublayer, keyframe: keyframe && spatial == 0, ..packet };
                    if let Some(rewritten) = track.forward(now, &packet) {
                        if let Some(last) = last {
                            prop_assert_eq!(rewritten.seq.0, last.seq.0 + 1);
                            prop_assert!(rewritten.timestamp.wrapping_sub(last.timestamp) < 1 << 31);
                        }
                        last = Some(rewritten);
                    }
                }
            }
        }
    }
}
