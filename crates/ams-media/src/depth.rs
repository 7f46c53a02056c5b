//! Which of an encoding's temporal and spatial layers one viewer gets now.
//!
//! Owns the moment of change: fewer layers with the next picture; more temporal layers where the publisher says a decoder
//! can climb; more spatial ones at a keyframe. Numbers are the rewriter's.

use crate::packet::MediaPacket;
use crate::sublayer::{Depth, Sublayer};

/// Frames left out whose late packets are known.
const SKIPPED_KEPT: usize = 16;
/// Pictures a viewer waits for a chance to climb before a keyframe is asked for.
const PICTURES_WAITED_MAX: u16 = 60;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepthVerdict {
    /// It is sent.
    Send,
    /// It is left out; the viewer's numbers are to close over it.
    Skip {
        /// It is the first of its frame that is left out.
        is_first: bool,
    },
    /// It came late, of a frame that was left out.
    Late,
}

/// One viewer's share of the layer it is on.
#[derive(Clone, Debug, Default)]
pub struct DepthSelector {
    now: Depth,
    want: Depth,
    /// Timestamp of the newest picture.
    picture: Option<u32>,
    /// Number of the newest packet.
    highest: Option<u64>,
    /// Timestamps and spatial layers, newest last.
    skipped: Skipped,
    /// Pictures left out that are wanted.
    waited: u16,
    /// Spatial layers are left out that are wanted.
    misses_spatial: bool,
    /// A picture lacks parts of spatial layers that have been left out since.
    is_torn: bool,
}

impl DepthSelector {
    /// Sets how much the viewer is to get.
    pub fn set_target(&mut self, want: Depth) {
        if self.want != want {
            self.want = want;
            self.waited = 0;
            self.misses_spatial = false;
        }
    }

    /// The viewer misses a packet that it was sent. Browsers decode all spatial layers of a picture or none, and stop asking
    /// for what is missing when a smaller picture that needs the smallest layer alone has come: they would be stuck.
    pub fn on_missed(&mut self, sublayer: Sublayer) {
        self.is_torn |= sublayer.spatial > self.now.spatial;
    }

    /// What the viewer gets now.
    pub fn current(&self) -> Depth {
        self.now
    }

    /// The viewer begins with this packet, a keyframe's first, on this layer or after a pause.
    pub fn begin(&mut self, packet: &MediaPacket, depth: Depth) {
        let (picture, highest) = (Some(packet.timestamp), Some(packet.seq.0));
        *self = Self { now: depth, want: depth, picture, highest, ..Self::default() };
    }

    /// Decides on a packet of the viewer's layer; all of one frame are decided alike.
    pub fn wants(&mut self, packet: &MediaPacket, sublayer: Sublayer) -> DepthVerdict {
        let seq = packet.seq.0;
        if self.highest.is_some_and(|highest| seq < highest) {
            // What should have been left out but was not there in time has its number, and may as well be sent.
            return match self.skipped.has(packet.timestamp, sublayer.spatial) {
                true => DepthVerdict::Late,
                false => DepthVerdict::Send,
            };
        }
        self.highest = Some(seq);
        if self.picture != Some(packet.timestamp) {
            self.picture = Some(packet.timestamp);
            self.turn(packet, sublayer);
        }
        if self.now.has(sublayer) {
            return DepthVerdict::Send;
        }
        let is_first = self.skipped.add(packet.timestamp, sublayer.spatial);
        if self.want.has(sublayer) {
            self.misses_spatial |= sublayer.spatial > self.now.spatial;
            self.waited = self.waited.saturating_add(u16::from(is_first));
        }
        DepthVerdict::Skip { is_first }
    }

    /// A picture begins: what changes, changes here.
    fn turn(&mut self, packet: &MediaPacket, sublayer: Sublayer) {
        let Depth { spatial, temporal } = self.want;
        if packet.keyframe {
            (self.now, self.waited, self.misses_spatial, self.is_torn) = (self.want, 0, false, false);
            return;
        }
        self.now = Depth { spatial: self.now.spatial.min(spatial), temporal: self.now.temporal.min(temporal) };
        if let Some((from, to)) = sublayer.climb
            && self.now.temporal >= from
            && self.now.temporal < to.min(temporal)
        {
            self.now.temporal = to.min(temporal);
            self.waited = 0;
        }
    }

    /// The viewer cannot go on, or not get the more it is to get, without a keyframe.
    pub fn needs_keyframe(&self) -> bool {
        self.is_torn || self.misses_spatial || self.waited >= PICTURES_WAITED_MAX
    }
}

/// The last frames left out.
#[derive(Clone, Copy, Debug, Default)]
struct Skipped {
    frames: [Option<(u32, u8)>; SKIPPED_KEPT],
    next: u8,
}

impl Skipped {
    fn has(&self, timestamp: u32, spatial: u8) -> bool {
        self.frames.contains(&Some((timestamp, spatial)))
    }

    /// Returns whether it is new.
    fn add(&mut self, timestamp: u32, spatial: u8) -> bool {
        if self.has(timestamp, spatial) {
            return false;
        }
        if let Some(place) = self.frames.get_mut(usize::from(self.next)) {
            *place = Some((timestamp, spatial));
        }
        self.next = (self.next + 1) % SKIPPED_KEPT as u8;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{packet, start};

    /// Number, picture, spatial and temporal layer, climb.
    type Case = (u64, u32, u8, u8, Option<(u8, u8)>);

    /// The letters of what became of packets.
    fn outcome(selector: &mut DepthSelector, packets: &[Case]) -> String {
        let now = start();
        let mut take = |&(seq, picture, spatial, temporal, climb): &Case| {
            let sublayer = Sublayer { spatial, temporal, climb, ends_frame: false };
            match selector.wants(&packet(seq, picture, now), sublayer) {
                DepthVerdict::Send => 's',
                DepthVerdict::Skip { is_first: true } => 'X',
                DepthVerdict::Skip { is_first: false } => 'x',
                DepthVerdict::Late => 'l',
            }
        };
        packets.iter().map(&mut take).collect()
    }

    fn begun(now: Depth, want: Depth) -> DepthSelector {
        let mut selector = DepthSelector::default();
        selector.begin(&packet(1, 0, start()).keyframe(), now);
        selector.set_target(want);
        selector
    }

    const T0: Depth = Depth { spatial: u8::MAX, temporal: 0 };
    const S0: Depth = Depth { spatial: 0, temporal: u8::MAX };

    #[test]
    fn fewer_temporal_layers_begin_with_a_picture() {
        let mut selector = begun(Depth::ALL, Depth::ALL);
        assert_eq!(outcome(&mut selector, &[(2, 1, 0, 2, None)]), "s");
        selector.set_target(T0);
        let packets =
            [(3, 1, 0, 2, None), (4, 2, 0, 1, None), (5, 2, 0, 1, None), (6, 3, 0, 2, None), (7, 4, 0, 0, None)];
        assert_eq!(outcome(&mut selector, &packets), "sXxXs");
        assert!(!selector.needs_keyframe());
    }

    #[test]
    fn more_come_where_a_decoder_can_climb() {
        let mut selector = begun(T0, Depth::ALL);
        let packets = [
            (2, 1, 0, 2, Some((1, 2))), // two steps at once are none
            (3, 2, 0, 1, None),
            (4, 3, 0, 1, Some((0, 1))),
            (5, 3, 0, 1, Some((0, 1))),
            (6, 4, 0, 2, None),
            (7, 5, 0, 2, Some((1, 2))),
            (8, 6, 0, 2, None),
        ];
        assert_eq!(outcome(&mut selector, &packets), "XXssXss");
        let mut selector = begun(T0, Depth::ALL);
        let packets = [(2, 1, 0, 1, None), (3, 2, 0, 0, Some((0, 7))), (4, 3, 0, 2, None), (5, 4, 0, 1, None)];
        assert_eq!(outcome(&mut selector, &packets), "Xsss", "a switching up point of the lowest layer");
        let mut selector = begun(T0, Depth { temporal: 1, ..Depth::ALL });
        assert_eq!(outcome(&mut selector, &packets), "XsXs", "up to what is wanted");
    }

    #[test]
    fn without_a_chance_to_climb_a_keyframe_is_asked_for() {
        let mut selector = begun(T0, Depth::ALL);
        for n in 0..60 {
            assert!(!selector.needs_keyframe(), "{n}");
            assert_eq!(outcome(&mut selector, &[(u64::from(n) + 2, n + 1, 0, 1, None)]), "X");
        }
        assert!(selector.needs_keyframe());
        selector.wants(&packet(100, 100, start()).keyframe(), Sublayer::default());
        assert!(!selector.needs_keyframe());
        assert_eq!(outcome(&mut selector, &[(101, 101, 0, 2, None)]), "s");
    }

    #[test]
    fn spatial_layers_go_at_once_and_come_back_with_a_keyframe() {
        let mut selector = begun(Depth::ALL, S0);
        assert_eq!(outcome(&mut selector, &[(2, 1, 0, 0, None), (3, 1, 1, 0, None), (4, 1, 2, 0, None)]), "sXX");
        assert!(!selector.needs_keyframe());
        selector.set_target(Depth::ALL);
        assert!(!selector.needs_keyframe(), "there may be no more of them");
        assert_eq!(outcome(&mut selector, &[(5, 2, 0, 0, None), (6, 2, 1, 0, None)]), "sX");
        assert!(selector.needs_keyframe());
        selector.wants(&packet(7, 3, start()).keyframe(), Sublayer::default());
        assert_eq!(outcome(&mut selector, &[(8, 3, 1, 0, None), (9, 3, 2, 0, None)]), "ss");
        assert!(!selector.needs_keyframe());
    }

    #[test]
    fn a_picture_that_lacks_parts_of_layers_left_out_since_needs_a_keyframe() {
        let at = |spatial| Sublayer { spatial, ..Sublayer::default() };
        let mut selector = begun(Depth::ALL, Depth::ALL);
        selector.on_missed(at(2));
        assert!(!selector.needs_keyframe(), "it comes again");
        selector.set_target(S0);
        assert_eq!(outcome(&mut selector, &[(2, 1, 0, 0, None), (3, 1, 1, 0, None)]), "sX");
        selector.on_missed(at(0));
        assert!(!selector.needs_keyframe());
        selector.on_missed(at(1));
        assert!(selector.needs_keyframe());
        selector.wants(&packet(4, 2, start()).keyframe(), Sublayer::default());
        assert!(!selector.needs_keyframe());
    }

    #[test]
    fn late_packets_share_the_fate_of_their_frame() {
        let mut selector = begun(T0, T0);
        let packets = [
            (3, 1, 0, 1, None), // number 2 is missing, of the same frame
            (4, 2, 0, 0, None),
            (2, 1, 0, 1, None),
            (7, 4, 0, 0, None), // a whole frame is missing
            (5, 3, 0, 1, None),
            (6, 3, 0, 1, None),
        ];
        assert_eq!(outcome(&mut selector, &packets), "Xslsss");
    }
}
