//! Which layer suits one viewer's network.
//!
//! Owns the choice between the layers of a simulcast track and the parts of one, between pictures and sound alone, and its
//! patience: down at once, up only with room to spare, and after a climb that failed ever more slowly, unless the path
//! has plainly changed. Never switches by itself: a [`LayerSelector`](crate::LayerSelector) does, at a keyframe.

use std::time::{Duration, Instant};

use ams_types::{Bitrate, LayerNo};

use crate::sublayer::Depth;

/// Headers, extensions and tags on top of a layer's payload, in percent.
const OVERHEAD_PERCENT: u64 = 107;
/// Room the estimate must leave above a layer before the viewer climbs to it, in percent of the layer.
const CLIMB_PERCENT: u64 = 110;
/// Room that shows that the path is another one than where a climb failed, in percent of the layer: it ends patience.
const CHANGED_PERCENT: u64 = 140;
/// Pictures stop when not even this share of the lowest layer fits.
const SOUND_ONLY_PERCENT: u64 = 60;
/// And only when that has been so for this long.
const SOUND_ONLY_AFTER: Duration = Duration::from_secs(2);
/// Wait between going down and climbing again. It doubles when the climb did not last, but for a path that has changed.
const PATIENCE_MIN: Duration = Duration::from_millis(800);
const PATIENCE_MAX: Duration = Duration::from_secs(16);
/// A climb that was taken back within this time did not last.
const CLIMB_LASTS: Duration = Duration::from_secs(5);

/// One layer, or a part of its temporal and spatial layers, as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerOffer {
    /// Which.
    pub layer: LayerNo,
    /// How much of it.
    pub depth: Depth,
    /// Payload it sends now.
    pub bitrate: Bitrate,
    /// Height of its pictures in pixels; 0 while unknown.
    pub height: u32,
}

/// What a viewer is to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The layer; none for sound alone, or while there is none.
    pub layer: Option<LayerNo>,
    /// How much of it.
    pub depth: Depth,
    /// Payload it sends now.
    pub bitrate: Bitrate,
    /// The rate the path would have to carry for the next layer up, or for pictures again; none when nothing is left to
    /// wish for, or it is too early to try.
    pub wanted: Option<Bitrate>,
}

/// One viewer's choice for one track.
#[derive(Clone, Debug)]
pub struct LayerChoice {
    height: u32,
    chosen: Option<(LayerNo, Depth)>,
    sound_only: bool,
    too_little_since: Option<Instant>,
    climbed_at: Option<Instant>,
    fell_at: Option<Instant>,
    patience: Duration,
}

impl Default for LayerChoice {
    fn default() -> Self {
        Self {
            height: 0,
            chosen: None,
            sound_only: false,
            too_little_since: None,
            climbed_at: None,
            fell_at: None,
            patience: PATIENCE_MIN,
        }
    }
}

impl LayerChoice {
    /// The viewer wants pictures of this height, or of the layer nearest to it, whatever the network; 0 for what the
    /// network takes.
    pub fn want_height(&mut self, height: u32) {
        self.height = height;
    }

    /// The stream begins anew, perhaps with other layers. The viewer's wish and what was learnt of its path stay.
    pub fn on_source_restart(&mut self) {
        *self = Self { height: self.height, patience: self.patience, ..Self::default() };
    }

    /// Pictures are left out because the path is too narrow for the lowest layer.
    pub fn is_sound_only(&self) -> bool {
        self.sound_only
    }

    /// Chooses. `offers` are the living layers from the lowest bitrate up, `best` the one to take while no estimate is
    /// known, `estimate` what is left for this track. With no offers the present choice stays.
    pub fn choose(
        &mut self,
        now: Instant,
        offers: &[LayerOffer],
        best: Option<LayerNo>,
        estimate: Option<Bitrate>,
    ) -> Choice {
        let (Some(lowest), Some(highest)) = (offers.first(), offers.last()) else {
            let (layer, depth) = self.chosen.or(best.map(|best| (best, Depth::ALL))).unzip();
            return Choice { layer, depth: depth.unwrap_or_default(), ..Choice::default() };
        };
        if self.height != 0 {
            // The last of those that are equally near: the one with most pictures.
            let near = offers.iter().rev().min_by_key(|offer| offer.height.abs_diff(self.height)).unwrap_or(highest);
            self.sound_only = false;
            return self.take(near, None);
        }
        let Some(estimate) = estimate else {
            self.sound_only = false;
            let best = best.and_then(|best| offers.iter().rfind(|offer| offer.layer == best)).unwrap_or(highest);
            return self.take(best, None);
        };
        let Some(mut at) = self.place(offers) else {
            if highest.bitrate == Bitrate(0) {
                // Nothing is known of them yet: the viewer stays where it begins.
                return Choice::default();
            }
            // At first, or when the present layer fell silent.
            let fits = offers.iter().rposition(|offer| cost(offer) <= estimate).unwrap_or(0);
            let wanted = self.wanted(now, offers, fits);
            return self.take(offers.get(fits).unwrap_or(lowest), wanted);
        };
        if self.is_too_little(now, lowest, estimate) {
            return Choice { wanted: self.room(now, lowest).map(beyond), ..Choice::default() };
        }
        if offers.get(at).is_some_and(|offer| cost(offer) > estimate) {
            let fits = offers.iter().rposition(|offer| cost(offer) <= estimate).unwrap_or(0).min(at);
            if fits < at {
                self.fall(now);
                at = fits;
            }
        } else {
            let has_room = |offer: &LayerOffer| self.room(now, offer).is_some_and(|room| room <= estimate);
            let higher = offers.iter().rposition(has_room).unwrap_or(0);
            if higher > at {
                self.climbed_at = Some(now);
                at = higher;
            }
        }
        let wanted = self.wanted(now, offers, at);
        self.take(offers.get(at).unwrap_or(lowest), wanted)
    }

    fn take(&mut self, offer: &LayerOffer, wanted: Option<Bitrate>) -> Choice {
        self.chosen = Some((offer.layer, offer.depth));
        Choice { layer: Some(offer.layer), depth: offer.depth, bitrate: offer.bitrate, wanted }
    }

    /// Where the present choice stands among the offers: as it is, or the most of its layer.
    fn place(&self, offers: &[LayerOffer]) -> Option<usize> {
        let (layer, depth) = self.chosen?;
        let whole = offers.iter().rposition(|offer| offer.layer == layer);
        offers.iter().position(|offer| (offer.layer, offer.depth) == (layer, depth)).or(whole)
    }

    /// Whether not even the lowest layer can be sent, for long enough to give pictures up.
    fn is_too_little(&mut self, now: Instant, lowest: &LayerOffer, estimate: Bitrate) -> bool {
        if self.sound_only {
            if self.room(now, lowest).is_some_and(|room| room <= estimate) {
                self.sound_only = false;
                self.too_little_since = None;
                self.climbed_at = Some(now);
                self.chosen = Some((lowest.layer, lowest.depth));
            }
            return self.sound_only;
        }
        if estimate >= percent(cost(lowest), SOUND_ONLY_PERCENT) {
            self.too_little_since = None;
            return false;
        }
        let since = *self.too_little_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SOUND_ONLY_AFTER {
            self.sound_only = true;
            self.fall(now);
        }
        self.sound_only
    }

    fn fall(&mut self, now: Instant) {
        let lasted = self.climbed_at.is_none_or(|at| now.saturating_duration_since(at) >= CLIMB_LASTS);
        self.patience = if lasted { PATIENCE_MIN } else { (self.patience * 2).min(PATIENCE_MAX) };
        self.fell_at = Some(now);
    }

    /// What the path must carry before the viewer climbs to `offer`; none just after it went down.
    fn room(&self, now: Instant, offer: &LayerOffer) -> Option<Bitrate> {
        let since_fall = self.fell_at.map(|at| now.saturating_duration_since(at));
        let needed = match since_fall {
            Some(since) if since < PATIENCE_MIN => return None,
            Some(since) if since < self.patience => CHANGED_PERCENT,
            _ => CLIMB_PERCENT,
        };
        Some(percent(cost(offer), needed))
    }

    fn wanted(&self, now: Instant, offers: &[LayerOffer], at: usize) -> Option<Bitrate> {
        self.room(now, offers.get(at + 1)?).map(beyond)
    }
}

/// A little more than is needed, so that an estimate just below it does not keep a viewer down.
fn beyond(room: Bitrate) -> Bitrate {
    percent(room, 105)
}

/// What a layer takes on the wire.
fn cost(offer: &LayerOffer) -> Bitrate {
    percent(offer.bitrate, OVERHEAD_PERCENT)
}

fn percent(rate: Bitrate, percent: u64) -> Bitrate {
    Bitrate(rate.0.saturating_mul(percent) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ms, start};

    const THREE: [LayerOffer; 3] = [
        LayerOffer { layer: LayerNo(0), depth: Depth::ALL, bitrate: Bitrate(150_000), height: 180 },
        LayerOffer { layer: LayerNo(1), depth: Depth::ALL, bitrate: Bitrate(500_000), height: 360 },
        LayerOffer { layer: LayerNo(2), depth: Depth::ALL, bitrate: Bitrate(1_500_000), height: 720 },
    ];

    fn layers(choice: &mut LayerChoice, begin: Instant, steps: &[(u64, u64)]) -> Vec<Option<u8>> {
        let at = |&(at, kbit): &(u64, u64)| {
            choice.choose(begin + ms(at), &THREE, Some(LayerNo(2)), Some(Bitrate(kbit * 1000))).layer.map(|l| l.0)
        };
        steps.iter().map(at).collect()
    }

    #[test]
    fn down_at_once_and_up_with_patience() {
        let begin = start();
        for (name, steps, want) in [
            ("wide", &[(0, 5000), (100, 5000)][..], &[Some(2), Some(2)][..]),
            ("narrow at once", &[(0, 5000), (100, 600)], &[Some(2), Some(1)]),
            ("two down", &[(0, 5000), (100, 200)], &[Some(2), Some(0)]),
            ("lowest even if it does not fit", &[(0, 100)], &[Some(0)]),
            ("no room to climb", &[(0, 200), (5000, 540)], &[Some(0), Some(0)]),
            ("room", &[(0, 200), (5000, 600)], &[Some(0), Some(1)]),
            ("too early", &[(0, 5000), (100, 200), (300, 5000), (1000, 5000)], &[Some(2), Some(0), Some(0), Some(2)]),
            (
                "a climb that does not last",
                &[(0, 2000), (100, 200), (1000, 2000), (1100, 200), (2000, 2000), (2800, 2000)],
                &[Some(2), Some(0), Some(2), Some(0), Some(1), Some(2)],
            ),
            (
                "nor the next, but then the path is another one",
                &[(0, 2000), (100, 200), (1000, 2000), (1100, 200), (2700, 2000), (2800, 200), (3700, 2300)],
                &[Some(2), Some(0), Some(2), Some(0), Some(2), Some(0), Some(2)],
            ),
        ] {
            assert_eq!(layers(&mut LayerChoice::default(), begin, steps), want, "{name}");
        }
    }

    #[test]
    fn pictures_stop_when_they_cannot_be_carried_and_come_back() {
        let (mut choice, begin) = (LayerChoice::default(), start());
        let one = &THREE[2..];
        let mut choose = |at: u64, kbit: u64| choice.choose(begin + ms(at), one, None, Some(Bitrate(kbit * 1000)));
        assert_eq!(choose(0, 5000).layer, Some(LayerNo(2)));
        assert_eq!(choose(100, 300).layer, Some(LayerNo(2)), "it may pass");
        assert_eq!(choose(2200, 300).layer, None);
        let sound = choose(4000, 300);
        assert!(sound.layer.is_none() && sound.wanted.is_some_and(|wanted| wanted.0 > 1_605_000), "{sound:?}");
        assert_eq!(choose(5000, 2000).layer, Some(LayerNo(2)));
    }

    #[test]
    fn fewer_pictures_come_before_none_at_all() {
        let (mut choice, begin) = (LayerChoice::default(), start());
        let rungs = [(0, 250_000), (1, 500_000), (u8::MAX, 1_000_000)].map(|(temporal, rate)| LayerOffer {
            layer: LayerNo(0),
            depth: Depth { temporal, ..Depth::ALL },
            bitrate: Bitrate(rate),
            height: 720,
        });
        for (at, kbit, want) in [
            (0, 5000, Some(u8::MAX)),
            (100, 900, Some(1)),
            (200, 300, Some(0)),
            (300, 150, Some(0)),
            (2500, 150, None),
            (4000, 350, Some(0)),
            (9000, 700, Some(1)),
            (14_000, 2000, Some(u8::MAX)),
        ] {
            let chosen = choice.choose(begin + ms(at), &rungs, Some(LayerNo(0)), Some(Bitrate(kbit * 1000)));
            assert_eq!(chosen.layer.map(|_| chosen.depth.temporal), want, "{at}");
        }
        choice.want_height(720);
        let chosen = choice.choose(begin + ms(14_100), &rungs, Some(LayerNo(0)), Some(Bitrate(100_000)));
        assert_eq!(chosen.depth, Depth::ALL, "of one height the one with all pictures");
        let chosen = choice.choose(begin + ms(14_200), &rungs[2..], Some(LayerNo(0)), Some(Bitrate(100_000)));
        assert_eq!(chosen.bitrate, Bitrate(1_000_000));
    }

    #[test]
    fn a_wish_for_a_height_is_kept_and_can_be_taken_back() {
        let (mut choice, begin) = (LayerChoice::default(), start());
        for (height, kbit, want) in [(360, 5000, 1), (700, 100, 2), (100, 5000, 0), (0, 5000, 2)] {
            choice.want_height(height);
            let chosen = choice.choose(begin + ms(9000), &THREE, None, Some(Bitrate(kbit * 1000)));
            assert_eq!(chosen.layer, Some(LayerNo(want)), "{height}");
        }
    }

    #[test]
    fn without_an_estimate_the_best_is_taken_and_silent_layers_are_left() {
        let (mut choice, begin) = (LayerChoice::default(), start());
        assert_eq!(choice.choose(begin, &THREE, Some(LayerNo(1)), None).layer, Some(LayerNo(1)));
        assert_eq!(choice.choose(begin, &THREE[..1], None, Some(Bitrate(900_000))).layer, Some(LayerNo(0)));
        assert_eq!(choice.choose(begin, &[], None, None).layer, Some(LayerNo(0)));
    }
}
