//! Which layer of a track a viewer gets.
//!
//! [`LayerMonitor`] knows how the layers of a track fare and which is the best; one per track and shard.
//! [`LayerSelector`] holds one viewer's choice and changes it only where a decoder can follow: at a keyframe.

use std::time::{Duration, Instant};

use ams_types::{Bitrate, LayerNo};

use crate::choice::LayerOffer;
use crate::packet::MediaPacket;
use crate::sublayer::{Depth, SUBLAYERS_MAX};
use crate::track::LAYERS_MAX;

/// A layer without a packet for this long is not offered to viewers.
pub const LAYER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Bitrates are taken over this time.
const WINDOW: Duration = Duration::from_secs(1);
/// The first window is shorter, so that the first viewers need not wait for the best layer.
const FIRST_WINDOW: Duration = Duration::from_millis(300);
/// A layer replaces the best one, if that lives, when its bitrate is higher by this much, in percent.
const BETTER_PERCENT: u64 = 125;
/// Temporal layers are offered that take less than this share of the next more, in percent.
const LOWER_PERCENT: u64 = 90;

/// By spatial and temporal layer.
type PerSublayer = [[u64; SUBLAYERS_MAX]; SUBLAYERS_MAX];

#[derive(Clone, Copy, Debug, Default)]
struct Fare {
    bytes: PerSublayer,
    /// Bit/s of the last window.
    rates: PerSublayer,
    rate: Bitrate,
    last_at: Option<Instant>,
}

impl Fare {
    fn is_alive(&self, now: Instant) -> bool {
        self.last_at.is_some_and(|at| now.saturating_duration_since(at) <= LAYER_SILENCE_MAX)
    }

    /// Closes a window of so many microseconds.
    fn close(&mut self, micros: u64) {
        self.rates =
            std::mem::take(&mut self.bytes).map(|row| row.map(|bytes| bytes.saturating_mul(8_000_000) / micros));
        self.rate = self.up_to(Depth::ALL);
    }

    /// Bit/s of what is within `depth`.
    fn up_to(&self, depth: Depth) -> Bitrate {
        let rows = self.rates.iter().take(usize::from(depth.spatial) + 1);
        Bitrate(rows.flat_map(|row| row.iter().take(usize::from(depth.temporal) + 1)).sum())
    }

    /// Depths below the whole that lack spatial layers, the smallest first.
    fn spatial_depths(&self) -> impl Iterator<Item = Depth> + '_ {
        let top = self.rates.iter().rposition(|row| row.iter().any(|rate| *rate > 0)).unwrap_or(0);
        (0..top as u8).map(|spatial| Depth { spatial, ..Depth::ALL })
    }

    /// Depths below `whole` that lack temporal layers, the fewest first, and worth it.
    fn temporal_depths(&self, whole: Depth) -> Vec<Depth> {
        let rows = || self.rates.iter().take(usize::from(whole.spatial) + 1);
        let top = rows().filter_map(|row| row.iter().rposition(|rate| *rate > 0)).max().unwrap_or(0);
        let mut next = self.up_to(whole);
        let mut depths = Vec::new();
        for temporal in (0..top as u8).rev() {
            let depth = Depth { temporal, ..whole };
            let rate = self.up_to(depth);
            if rate.0 > 0 && rate.0.saturating_mul(100) < next.0.saturating_mul(LOWER_PERCENT) {
                depths.insert(0, depth);
                next = rate;
            }
        }
        depths
    }
}

/// Bitrate and life of a track's layers, and the best of them: the living one with the highest bitrate.
#[derive(Clone, Debug, Default)]
pub struct LayerMonitor {
    fares: [Fare; LAYERS_MAX],
    window: Option<Instant>,
    is_past_first: bool,
    best: Option<LayerNo>,
}

impl LayerMonitor {
    /// Counts a packet. Returns the best layer if it is another one than before.
    pub fn on_packet(&mut self, now: Instant, packet: &MediaPacket) -> Option<LayerNo> {
        let fare = self.fares.get_mut(usize::from(packet.layer.0))?;
        let (spatial, temporal) = packet.sublayer.map_or((0, 0), |s| (s.spatial, s.temporal));
        let place = |at: u8| usize::from(at).min(SUBLAYERS_MAX - 1);
        if let Some(bytes) = fare.bytes.get_mut(place(spatial)).and_then(|row| row.get_mut(place(temporal))) {
            *bytes += packet.payload.len() as u64;
        }
        fare.last_at = Some(now);
        let started = *self.window.get_or_insert(now);
        let elapsed = now.saturating_duration_since(started);
        let is_over = elapsed >= if self.is_past_first { WINDOW } else { FIRST_WINDOW };
        if is_over {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
            self.fares.iter_mut().for_each(|fare| fare.close(micros));
            self.window = Some(now);
            self.is_past_first = true;
        }
        let best_is_alive = self.best.is_some_and(|best| self.is_alive(now, best));
        if best_is_alive && !is_over {
            return None;
        }
        let best = self.choose(now, packet.layer);
        (self.best.replace(best) != Some(best)).then_some(best)
    }

    /// The best layer; none before the first packet. The last one stays the best when all have fallen silent.
    pub fn best(&self) -> Option<LayerNo> {
        self.best
    }

    /// Appends what a viewer can be given of the living layers, from the lowest bitrate up: each layer whole and with fewer
    /// spatial layers, and the least of these with fewer temporal layers. `height_of` tells the height of a layer's
    /// pictures up to a spatial layer.
    pub fn offers(&self, now: Instant, height_of: impl Fn(LayerNo, u8) -> u32, offers: &mut Vec<LayerOffer>) {
        let layers = || (0u8..).map(LayerNo).zip(&self.fares);
        let offer = |layer: LayerNo, fare: &Fare, depth: Depth| {
            let height = height_of(layer, depth.spatial);
            LayerOffer { layer, depth, bitrate: fare.up_to(depth), height }
        };
        for (layer, fare) in layers().filter(|(_, fare)| fare.is_alive(now)) {
            offers.extend(fare.spatial_depths().chain([Depth::ALL]).map(|depth| offer(layer, fare, depth)));
        }
        offers.sort_by_key(|offer| offer.bitrate);
        if let Some(lowest) = offers.first().copied()
            && let Some((layer, fare)) = layers().find(|(layer, _)| *layer == lowest.layer)
        {
            let fewer = fare.temporal_depths(lowest.depth);
            offers.splice(..0, fewer.into_iter().map(|depth| offer(layer, fare, depth)));
        }
    }

    /// Payload bitrate of a layer in the last full window.
    pub fn bitrate(&self, layer: LayerNo) -> Bitrate {
        self.fares.get(usize::from(layer.0)).map_or(Bitrate(0), |fare| fare.rate)
    }

    /// A packet of this layer came within [`LAYER_SILENCE_MAX`].
    pub fn is_alive(&self, now: Instant, layer: LayerNo) -> bool {
        self.fares.get(usize::from(layer.0)).is_some_and(|fare| fare.is_alive(now))
    }

    /// The best layer now; `seen` lives and is taken where nothing else is known.
    fn choose(&self, now: Instant, seen: LayerNo) -> LayerNo {
        let layers = (0u8..).map(LayerNo).zip(&self.fares);
        let fastest = layers.filter(|(_, fare)| fare.is_alive(now)).max_by_key(|(_, fare)| fare.rate);
        let Some((fastest, fare)) = fastest.filter(|(_, fare)| fare.rate.0 > 0) else {
            return self.best.filter(|best| self.is_alive(now, *best)).unwrap_or(seen);
        };
        match self.best {
            Some(best) if self.is_alive(now, best) => {
                let needed = self.bitrate(best).0.saturating_mul(BETTER_PERCENT) / 100;
                if fare.rate.0 > needed { fastest } else { best }
            }
            _ => fastest,
        }
    }
}

/// What to do with a packet for one viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is of the viewer's layer.
    Forward,
    /// It is of a layer the viewer is not on, or of no use without a keyframe.
    Drop,
    /// The viewer begins here, or changes its layer here.
    SwitchHere,
}

/// One viewer's layer of one track.
///
/// A viewer without a layer begins at any keyframe, to have a picture soon, and moves on to its target at that layer's
/// next keyframe. Audio, where every packet counts as a keyframe, begins at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct LayerSelector {
    current: Option<LayerNo>,
    target: Option<LayerNo>,
    /// Only the target will do.
    strict: bool,
}

impl LayerSelector {
    /// Sets the layer the viewer is to get; the change comes at its next keyframe.
    pub fn set_target(&mut self, target: LayerNo) {
        self.target = Some(target);
    }

    /// Decides on a packet; [`switched`](Self::switched) is to follow [`Verdict::SwitchHere`] if it was heeded.
    pub fn wants(&self, packet: &MediaPacket) -> Verdict {
        if self.current == Some(packet.layer) {
            Verdict::Forward
        } else if packet.keyframe && (self.target == Some(packet.layer) || (self.current.is_none() && !self.strict)) {
            Verdict::SwitchHere
        } else {
            Verdict::Drop
        }
    }

    /// The viewer is on this layer now.
    pub fn switched(&mut self, layer: LayerNo) {
        self.current = Some(layer);
        self.strict = false;
    }

    /// The viewer has no layer until the next keyframe.
    pub fn pause(&mut self) {
        self.current = None;
    }

    /// The viewer has no layer until the target's next keyframe: any other is too much for its network.
    pub fn pause_for_target(&mut self) {
        self.current = None;
        self.strict = self.target.is_some();
    }

    /// The layer the viewer is on; none while it waits for a keyframe.
    pub fn current(&self) -> Option<LayerNo> {
        self.current
    }

    /// The viewer is on the layer it is to get.
    pub fn is_on_target(&self) -> bool {
        self.target.is_none_or(|target| self.current == Some(target))
    }

    /// The layer whose keyframe the viewer waits for; none if it has what it is to get.
    pub fn waiting_keyframe(&self) -> Option<LayerNo> {
        match (self.current, self.target) {
            (None, target) => Some(target.unwrap_or_default()),
            (Some(current), Some(target)) if current != target => Some(target),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sublayer::Sublayer;
    use crate::testing::{ms, packet, start};

    /// Feeds one packet per ms and layer for `millis`; layer `n` sends `rates[n]` packets of 100 bytes per 10 ms.
    fn feed(monitor: &mut LayerMonitor, from: Instant, millis: u64, rates: &[u64]) -> Vec<(u64, u8)> {
        let mut changes = Vec::new();
        for at in (0..millis).step_by(10) {
            let now = from + ms(at);
            for (layer, rate) in (0u8..).zip(rates) {
                for _ in 0..*rate {
                    let change = monitor.on_packet(now, &packet(0, 0, now).on_layer(layer));
                    changes.extend(change.map(|best| (at, best.0)));
                }
            }
        }
        changes
    }

    #[test]
    fn the_best_layer_is_the_living_one_with_the_highest_bitrate() {
        let begin = start();
        let mut monitor = LayerMonitor::default();
        assert_eq!(monitor.best(), None);
        let changes = feed(&mut monitor, begin, 5000, &[1, 3, 10]);
        assert_eq!(changes, [(0, 0), (300, 2)]);
        assert!(monitor.bitrate(LayerNo(2)).0.abs_diff(800_000) < 20_000, "{}", monitor.bitrate(LayerNo(2)));
        let changes = feed(&mut monitor, begin + ms(5000), 5000, &[1, 3, 0]);
        assert!(matches!(changes[..], [(990..=1010, 1)]), "{changes:?}");
        let changes = feed(&mut monitor, begin + ms(10_000), 5000, &[1, 3, 10]);
        assert!(matches!(changes[..], [(0..=2000, 2)]), "{changes:?}");
    }

    #[test]
    fn layers_of_nearly_one_bitrate_do_not_take_turns() {
        let begin = start();
        let mut monitor = LayerMonitor::default();
        feed(&mut monitor, begin, 1000, &[10, 9]);
        for second in 1..10 {
            let rates: &[u64] = if second % 2 == 0 { &[10, 9] } else { &[9, 10] };
            assert_eq!(feed(&mut monitor, begin + ms(1000 * second), 1000, rates), []);
        }
    }

    #[test]
    fn when_all_fall_silent_the_first_to_return_is_taken() {
        let begin = start();
        let mut monitor = LayerMonitor::default();
        feed(&mut monitor, begin, 2000, &[1, 3]);
        assert_eq!(monitor.best(), Some(LayerNo(1)));
        assert_eq!(feed(&mut monitor, begin + ms(9000), 10, &[1]), [(0, 0)]);
        assert!(!monitor.is_alive(begin + ms(9000), LayerNo(1)));
    }

    /// Offers as (layer, spatial, temporal, kbit/s), all there are as `_`, after a second of `packets`: one of each, of so
    /// many bytes, per 10 ms.
    fn offered(packets: &[(u8, u8, u8, usize)]) -> Vec<String> {
        let begin = start();
        let mut monitor = LayerMonitor::default();
        for at in (0..1500).step_by(10) {
            for (layer, spatial, temporal, bytes) in packets {
                let sublayer = Some(Sublayer { spatial: *spatial, temporal: *temporal, ..Sublayer::default() });
                let packet = packet(0, 0, begin + ms(at)).on_layer(*layer);
                let payload = vec![0; *bytes].into();
                monitor.on_packet(begin + ms(at), &MediaPacket { sublayer, payload, ..packet });
            }
        }
        let mut offers = Vec::new();
        monitor.offers(begin + ms(1500), |layer, spatial| u32::from(layer.0) * 100 + u32::from(spatial), &mut offers);
        let name = |at: u8| if at == u8::MAX { "_".to_owned() } else { at.to_string() };
        let show = |offer: &LayerOffer| {
            assert_eq!(offer.height, u32::from(offer.layer.0) * 100 + u32::from(offer.depth.spatial), "{offer:?}");
            let kbit = (offer.bitrate.0 + 5000) / 10_000 * 10;
            format!("{} {} {} {kbit}", offer.layer.0, name(offer.depth.spatial), name(offer.depth.temporal))
        };
        offers.iter().map(show).collect()
    }

    #[test]
    fn every_layer_is_offered_with_fewer_spatial_layers_and_the_least_with_fewer_temporal_ones() {
        assert_eq!(offered(&[(0, 0, 0, 100)]), ["0 _ _ 80"]);
        let temporal = [(0, 0, 0, 100), (0, 0, 1, 50), (0, 0, 2, 100)];
        assert_eq!(offered(&temporal), ["0 _ 0 80", "0 _ 1 120", "0 _ _ 200"]);
        let spatial = [(0, 0, 0, 100), (0, 1, 0, 200), (0, 2, 0, 500)];
        assert_eq!(offered(&spatial), ["0 0 _ 80", "0 1 _ 240", "0 _ _ 640"]);
        let both = [(0, 0, 0, 100), (0, 0, 1, 100), (0, 1, 0, 200), (0, 1, 1, 300)];
        assert_eq!(offered(&both), ["0 0 0 80", "0 0 _ 160", "0 _ _ 560"]);
        let simulcast = [(0, 0, 0, 50), (0, 0, 1, 50), (1, 0, 0, 200), (1, 0, 1, 200)];
        assert_eq!(offered(&simulcast), ["0 _ 0 40", "0 _ _ 80", "1 _ _ 320"]);
    }

    #[test]
    fn a_part_that_saves_next_to_nothing_is_not_offered() {
        assert_eq!(offered(&[(0, 0, 0, 1000), (0, 0, 1, 20), (0, 0, 2, 20)]), ["0 _ _ 830"]);
    }

    #[test]
    fn a_layer_beyond_the_limit_is_ignored() {
        let now = start();
        let mut monitor = LayerMonitor::default();
        assert_eq!(monitor.on_packet(now, &packet(0, 0, now).on_layer(200)), None);
        assert_eq!((monitor.best(), monitor.bitrate(LayerNo(200))), (None, Bitrate(0)));
    }

    #[test]
    fn a_viewer_changes_layers_at_keyframes_only() {
        let now = start();
        let delta = |layer| packet(0, 0, now).on_layer(layer);
        let key = |layer| delta(layer).keyframe();
        for (name, current, target, packet, want) in [
            ("not begun, no keyframe", None, Some(1), delta(1), Verdict::Drop),
            ("not begun, keyframe of the target", None, Some(1), key(1), Verdict::SwitchHere),
            ("not begun, keyframe of another", None, Some(1), key(0), Verdict::SwitchHere),
            ("not begun, no target", None, None, key(0), Verdict::SwitchHere),
            ("present layer", Some(0), Some(0), delta(0), Verdict::Forward),
            ("present layer, keyframe", Some(0), Some(0), key(0), Verdict::Forward),
            ("present layer while waiting for another", Some(0), Some(1), delta(0), Verdict::Forward),
            ("target, no keyframe", Some(0), Some(1), delta(1), Verdict::Drop),
            ("target, keyframe", Some(0), Some(1), key(1), Verdict::SwitchHere),
            ("neither", Some(0), Some(1), key(2), Verdict::Drop),
        ] {
            let selector = LayerSelector { current: current.map(LayerNo), target: target.map(LayerNo), strict: false };
            assert_eq!(selector.wants(&packet), want, "{name}");
        }
    }

    #[test]
    fn it_says_whose_keyframe_it_waits_for() {
        for (name, current, target, want) in [
            ("not begun", None, Some(2), Some(2)),
            ("not begun, no target", None, None, Some(0)),
            ("content", Some(1), Some(1), None),
            ("content without a target", Some(1), None, None),
            ("on its way", Some(1), Some(2), Some(2)),
        ] {
            let selector = LayerSelector { current: current.map(LayerNo), target: target.map(LayerNo), strict: false };
            assert_eq!(selector.waiting_keyframe(), want.map(LayerNo), "{name}");
        }
    }
}
