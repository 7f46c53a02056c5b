//! One stream on one shard: its layers' histories, and who is fed from here.
//!
//! Owns rings, keyframe throttles and clocks per layer, and the lists of viewers, links and replicas. Decides nothing
//! about peers: the shard core does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::sublayer::SUBLAYERS_MAX;
use ams_media::track::{LAYERS_MAX, TRACKS_MAX};
use ams_media::{
    Insert, KeyframeThrottle, LayerMonitor, LayerOffer, MediaPacket, PacketRing, RingLimits, SourceClock, StreamTracks,
};
use ams_types::{Bitrate, Codec, Epoch, LayerNo, MediaKind, StreamKey, TrackNo};

use super::protocol::{LayerReport, LinkId, PeerId, ShardNo};

/// Where a stream's media comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A publisher on this shard.
    Publisher(PeerId),
    /// A relay link on this shard, by our handle.
    Link(LinkId, u32),
    /// Another shard of this node.
    Shard(ShardNo),
    /// Nowhere at the moment: its source was lost, and another may come.
    Lost,
}

/// One layer of one track.
#[derive(Debug)]
pub struct Layer {
    /// Which track it belongs to.
    pub track: TrackNo,
    /// Its place in the track.
    pub no: LayerNo,
    /// The track's codec.
    pub codec: Codec,
    /// Recent packets, for NACKs.
    pub ring: PacketRing,
    /// Coalesces what asks for keyframes.
    pub throttle: KeyframeThrottle,
    /// The last sender report.
    pub clock: Option<SourceClock>,
    /// Picture size of the last keyframe that told it.
    pub size: (u32, u32),
    /// Heights of its spatial layers, where the last keyframe told them; 0 for those it does not have.
    heights: [u32; SUBLAYERS_MAX],
    packets: u64,
    bytes: u64,
    window_bytes: u64,
    window_at: Instant,
    bitrate: u64,
}

impl Layer {
    /// Height of its pictures up to a spatial layer; 0 while unknown.
    pub fn height(&self, spatial: u8) -> u32 {
        self.heights.get(usize::from(spatial)).copied().filter(|height| *height > 0).unwrap_or(self.size.1)
    }
}

/// A stream as one shard holds it.
#[derive(Debug)]
pub struct Stream {
    /// Its name.
    pub key: StreamKey,
    /// Which publication of it.
    pub epoch: Epoch,
    /// What it consists of.
    pub tracks: Arc<StreamTracks>,
    /// Where its media comes from.
    pub source: Source,
    /// Viewers on this shard, by their place in its slab.
    pub viewers: Vec<usize>,
    /// Links it is served on from this shard, with the edge's handle.
    pub links: Vec<(LinkId, u32)>,
    /// Shards fed with it.
    pub replicas: Vec<ShardNo>,
    /// Packets of this turn.
    pub pending: Vec<Arc<MediaPacket>>,
    /// Packets of former turns, too, which viewers did not get yet.
    pub held: Vec<Arc<MediaPacket>>,
    /// Since when there are any.
    pub held_since: Option<Instant>,
    /// The last packet of a picture is among them.
    pub held_whole: bool,
    live: bool,
    went_live: bool,
    has_video: bool,
    first_at: Option<Instant>,
    layers: Vec<Layer>,
    /// Place in `layers` by track and layer number, one more; zero for what the stream does not have.
    places: [u8; TRACKS_MAX * LAYERS_MAX],
    /// By track number.
    monitors: [LayerMonitor; TRACKS_MAX],
}

/// A stream with pictures is also called live when only sound came for this long.
const SOUND_ONLY_AFTER: Duration = Duration::from_secs(2);

impl Stream {
    /// A stream nobody watches yet.
    pub fn new(now: Instant, key: StreamKey, epoch: Epoch, tracks: Arc<StreamTracks>, source: Source) -> Self {
        let mut layers: Vec<Layer> = Vec::new();
        let mut places = [0; TRACKS_MAX * LAYERS_MAX];
        for track in &tracks.tracks {
            for layer in &track.layers {
                let Some(place) = place_of(track.no, layer.no).and_then(|at| places.get_mut(at)) else { continue };
                *place = layers.len() as u8 + 1;
                layers.push(Layer {
                    track: track.no,
                    no: layer.no,
                    codec: track.codec.codec,
                    ring: PacketRing::new(match track.kind {
                        MediaKind::Audio => RingLimits::AUDIO,
                        MediaKind::Video => RingLimits::VIDEO,
                    }),
                    throttle: KeyframeThrottle::new(),
                    clock: None,
                    size: (0, 0),
                    heights: [0; SUBLAYERS_MAX],
                    packets: 0,
                    bytes: 0,
                    window_bytes: 0,
                    window_at: now,
                    bitrate: 0,
                });
            }
        }
        let has_video = tracks.tracks.iter().any(|t| t.kind == MediaKind::Video);
        Self {
            key,
            epoch,
            tracks,
            source,
            viewers: Vec::new(),
            links: Vec::new(),
            replicas: Vec::new(),
            pending: Vec::new(),
            held: Vec::new(),
            held_since: None,
            held_whole: false,
            live: false,
            went_live: false,
            has_video,
            first_at: None,
            layers,
            places,
            monitors: Default::default(),
        }
    }

    /// Appends what a viewer can have of a track, from the lowest bitrate up. Returns the best layer.
    pub fn offers(&self, now: Instant, track: TrackNo, offers: &mut Vec<LayerOffer>) -> Option<LayerNo> {
        let monitor = self.monitors.get(usize::from(track.0))?;
        let height_of = |no, spatial| self.layer(track, no).map_or(0, |layer| layer.height(spatial));
        monitor.offers(now, height_of, offers);
        monitor.best()
    }

    /// What a layer's packets amount to now.
    pub fn bitrate(&self, track: TrackNo, layer: LayerNo) -> Bitrate {
        self.monitors.get(usize::from(track.0)).map_or(Bitrate(0), |monitor| monitor.bitrate(layer))
    }

    /// A layer by its place; `None` for what the stream does not have.
    pub fn layer_mut(&mut self, track: TrackNo, layer: LayerNo) -> Option<&mut Layer> {
        let place = *self.places.get(place_of(track, layer)?)?;
        self.layers.get_mut(usize::from(place.checked_sub(1)?))
    }

    /// As [`Self::layer_mut`], to read.
    pub fn layer(&self, track: TrackNo, layer: LayerNo) -> Option<&Layer> {
        let place = *self.places.get(place_of(track, layer)?)?;
        self.layers.get(usize::from(place.checked_sub(1)?))
    }

    /// Every layer of every track.
    pub fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        self.layers.iter_mut()
    }

    /// Every layer of every track, to read.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter()
    }

    /// Takes one packet in. Returns false for what the stream does not have or has already.
    pub fn take(&mut self, now: Instant, packet: Arc<MediaPacket>) -> bool {
        let Some(layer) = self.layer_mut(packet.track, packet.layer) else { return false };
        if layer.ring.insert(Arc::clone(&packet)) != Insert::Stored {
            return false;
        }
        layer.packets += 1;
        layer.bytes += packet.payload.len() as u64;
        layer.window_bytes += packet.payload.len() as u64;
        let picture = packet.keyframe && layer.codec.kind() == MediaKind::Video;
        if picture {
            layer.throttle.on_keyframe();
            if let Some(size) = ams_media::frame_size(layer.codec, &packet.payload) {
                layer.size = (size.width, size.height);
            }
            let descriptor = packet.extensions.dependency_descriptor.as_deref();
            layer.heights = ams_media::spatial_heights(layer.codec, &packet.payload, descriptor).unwrap_or_default();
        }
        if let Some(monitor) = self.monitors.get_mut(usize::from(packet.track.0)) {
            monitor.on_packet(now, &packet);
        }
        let first_at = *self.first_at.get_or_insert(now);
        if !self.live {
            self.live = picture || !self.has_video || now.saturating_duration_since(first_at) >= SOUND_ONLY_AFTER;
            self.went_live = self.live;
        }
        self.pending.push(packet);
        true
    }

    /// Forgets what viewers did not get yet.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
        self.held.clear();
        self.held_since = None;
        self.held_whole = false;
    }

    /// Whether a packet is of an audio track.
    pub fn is_sound(&self, packet: &MediaPacket) -> bool {
        self.layer(packet.track, packet.layer).is_some_and(|layer| layer.codec.kind() == MediaKind::Audio)
    }

    /// Whether a packet completes a picture.
    pub fn ends_picture(&self, packet: &MediaPacket) -> bool {
        let is_video = |layer: &Layer| layer.codec.kind() == MediaKind::Video;
        packet.marker && self.layer(packet.track, packet.layer).is_some_and(is_video)
    }

    /// The publisher's transport is up. Returns whether that alone makes the stream live: no media will ever come.
    pub fn connected(&mut self) -> bool {
        self.layers.is_empty() && !std::mem::replace(&mut self.live, true)
    }

    /// True once: when it turns out that the stream can be watched.
    pub fn take_went_live(&mut self) -> bool {
        std::mem::take(&mut self.went_live)
    }

    /// Layers whose publisher sends pictures while the stream still waits for the first whole one: its beginning was lost,
    /// and nobody else asks for another before there are viewers.
    pub fn layers_without_beginning(&self) -> impl Iterator<Item = (TrackNo, LayerNo)> {
        let waits = !self.live && matches!(self.source, Source::Publisher(_));
        let pictures = |layer: &&Layer| layer.packets > 0 && layer.codec.kind() == MediaKind::Video;
        self.layers.iter().filter(move |_| waits).filter(pictures).map(|layer| (layer.track, layer.no))
    }

    /// The layers' figures; closes the current window.
    pub fn report(&mut self, now: Instant) -> Vec<LayerReport> {
        self.layers
            .iter_mut()
            .map(|layer| {
                let elapsed = now.saturating_duration_since(layer.window_at);
                if elapsed >= Duration::from_millis(500) {
                    layer.bitrate = (layer.window_bytes * 8_000) / (elapsed.as_millis() as u64).max(1);
                    layer.window_bytes = 0;
                    layer.window_at = now;
                }
                LayerReport {
                    kind: layer.codec.kind(),
                    codec: layer.codec,
                    layer: layer.no,
                    size: layer.size,
                    bitrate: layer.bitrate,
                    packets: layer.packets,
                    bytes: layer.bytes,
                }
            })
            .collect()
    }
}

/// Where a layer stands in the table of places.
fn place_of(track: TrackNo, layer: LayerNo) -> Option<usize> {
    let (track, layer) = (usize::from(track.0), usize::from(layer.0));
    (track < TRACKS_MAX && layer < LAYERS_MAX).then_some(track * LAYERS_MAX + layer)
}

#[cfg(test)]
mod tests {
    use ams_media::{LayerInfo, PacketExtensions, TrackInfo};
    use ams_types::{CodecParams, ExtSeq};
    use bytes::Bytes;

    use super::*;

    fn track(no: u8, codec: Codec, layers: u8) -> TrackInfo {
        TrackInfo {
            no: TrackNo(no),
            kind: codec.kind(),
            codec: CodecParams { codec, fmtp: "".into() },
            layers: (0..layers).map(|no| LayerInfo { no: LayerNo(no), rid: None }).collect(),
        }
    }

    fn stream(now: Instant, tracks: Vec<TrackInfo>) -> Stream {
        let key = StreamKey::new("live".parse().unwrap(), "s".parse().unwrap());
        let tracks = Arc::new(StreamTracks { tracks, data_channel: false });
        Stream::new(now, key, Epoch(1), tracks, Source::Shard(ShardNo(0)))
    }

    fn packet(now: Instant, track: u8, layer: u8, seq: u64) -> Arc<MediaPacket> {
        Arc::new(MediaPacket {
            track: TrackNo(track),
            layer: LayerNo(layer),
            seq: ExtSeq(seq),
            timestamp: 0,
            marker: true,
            keyframe: true,
            sublayer: None,
            extensions: PacketExtensions::default(),
            payload: Bytes::from_static(&[0; 100]),
            ingest_at: now,
            age: Duration::ZERO,
        })
    }

    #[test]
    fn packets_are_sorted_by_the_tracks_own_numbers() {
        let now = Instant::now();
        // Track 0 has a codec this version does not know and was left out; track 2 has three layers.
        let mut stream = stream(now, vec![track(1, Codec::Opus, 1), track(2, Codec::Vp8, 3)]);
        for (name, at, want) in [
            ("left out", (0, 0), false),
            ("sound", (1, 0), true),
            ("again", (1, 0), false),
            ("no such layer", (1, 1), false),
            ("lowest layer", (2, 0), true),
            ("highest layer", (2, 2), true),
            ("beyond", (2, 3), false),
            ("layer of nonsense", (2, 255), false),
            ("track of nonsense", (255, 0), false),
        ] {
            assert_eq!(stream.take(now, packet(now, at.0, at.1, 70_000)), want, "{name}");
        }
        let layers: Vec<_> = stream.layers().map(|l| (l.track.0, l.no.0, l.codec)).collect();
        let vp8 = Codec::Vp8;
        assert_eq!(layers, [(1, 0, Codec::Opus), (2, 0, vp8), (2, 1, vp8), (2, 2, vp8)]);
        let packets: Vec<u64> = stream.report(now).iter().map(|l| l.packets).collect();
        assert_eq!(packets, [1, 1, 0, 1]);
    }

    #[test]
    fn a_layer_that_never_comes_is_nobodys_target() {
        let now = Instant::now();
        let mut stream = stream(now, vec![track(0, Codec::Vp8, 3)]);
        assert_eq!(stream.offers(now, TrackNo(0), &mut Vec::new()), None);
        for n in 0..200 {
            let now = now + Duration::from_millis(10 * n);
            stream.take(now, packet(now, 0, 1, 70_000 + n));
        }
        let (end, mut offers) = (now + Duration::from_millis(2000), Vec::new());
        assert_eq!(stream.offers(end, TrackNo(0), &mut offers), Some(LayerNo(1)));
        assert_eq!(offers.iter().map(|offer| offer.layer).collect::<Vec<_>>(), [LayerNo(1)]);
    }
}
