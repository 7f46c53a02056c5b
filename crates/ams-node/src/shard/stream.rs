//! One stream on one shard: its layers' histories, and who is fed from here.
//!
//! Owns rings, keyframe throttles and clocks per layer, and the lists of viewers, links and replicas. Decides nothing
//! about peers: the shard core does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_media::{
    Insert, KeyframeThrottle, LayerMonitor, MediaPacket, PacketRing, RingLimits, SourceClock, StreamTracks,
};
use ams_types::{Epoch, LayerNo, MediaKind, StreamKey, TrackNo};

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
}

/// One layer of one track.
#[derive(Debug)]
pub struct Layer {
    /// Which track it belongs to.
    pub track: TrackNo,
    /// Its place in the track.
    pub no: LayerNo,
    /// Recent packets, for NACKs.
    pub ring: PacketRing,
    /// Coalesces what asks for keyframes.
    pub throttle: KeyframeThrottle,
    /// The last sender report.
    pub clock: Option<SourceClock>,
    /// Picture size of the last keyframe that told it.
    pub size: (u32, u32),
    packets: u64,
    bytes: u64,
    window_bytes: u64,
    window_at: Instant,
    bitrate: u64,
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
    /// Packets of this turn, not fanned out yet.
    pub pending: Vec<Arc<MediaPacket>>,
    live: bool,
    went_live: bool,
    has_video: bool,
    first_at: Option<Instant>,
    layers: Vec<Layer>,
    index: Vec<usize>,
    monitors: Vec<LayerMonitor>,
    /// Tracks whose best layer changed this turn.
    pub retargets: Vec<(TrackNo, LayerNo)>,
}

/// A stream with pictures is also called live when only sound came for this long.
const SOUND_ONLY_AFTER: Duration = Duration::from_secs(2);

impl Stream {
    /// A stream nobody watches yet.
    pub fn new(now: Instant, key: StreamKey, epoch: Epoch, tracks: Arc<StreamTracks>, source: Source) -> Self {
        let mut layers = Vec::new();
        let mut index = Vec::with_capacity(tracks.tracks.len());
        for track in &tracks.tracks {
            index.push(layers.len());
            for layer in &track.layers {
                layers.push(Layer {
                    track: track.no,
                    no: layer.no,
                    ring: PacketRing::new(match track.kind {
                        MediaKind::Audio => RingLimits::AUDIO,
                        MediaKind::Video => RingLimits::VIDEO,
                    }),
                    throttle: KeyframeThrottle::new(),
                    clock: None,
                    size: (0, 0),
                    packets: 0,
                    bytes: 0,
                    window_bytes: 0,
                    window_at: now,
                    bitrate: 0,
                });
            }
        }
        let monitors = tracks.tracks.iter().map(|_| LayerMonitor::default()).collect();
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
            live: false,
            went_live: false,
            has_video,
            first_at: None,
            layers,
            index,
            monitors,
            retargets: Vec::new(),
        }
    }

    /// The best layer of a track, once media told.
    pub fn best_layer(&self, track: TrackNo) -> Option<LayerNo> {
        self.monitors.get(usize::from(track.0))?.best()
    }

    /// A layer by its place; `None` for what the stream does not have.
    pub fn layer_mut(&mut self, track: TrackNo, layer: LayerNo) -> Option<&mut Layer> {
        let at = self.index.get(usize::from(track.0))? + usize::from(layer.0);
        self.layers.get_mut(at).filter(|l| l.track == track && l.no == layer)
    }

    /// As [`Self::layer_mut`], to read.
    pub fn layer(&self, track: TrackNo, layer: LayerNo) -> Option<&Layer> {
        let at = self.index.get(usize::from(track.0))? + usize::from(layer.0);
        self.layers.get(at).filter(|l| l.track == track && l.no == layer)
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
        let codec = match self.tracks.tracks.get(usize::from(packet.track.0)) {
            Some(track) => track.codec.codec,
            None => return false,
        };
        let Some(layer) = self.layer_mut(packet.track, packet.layer) else { return false };
        if layer.ring.insert(Arc::clone(&packet)) != Insert::Stored {
            return false;
        }
        layer.packets += 1;
        layer.bytes += packet.payload.len() as u64;
        layer.window_bytes += packet.payload.len() as u64;
        let picture = packet.keyframe && codec.kind() == MediaKind::Video;
        if picture {
            layer.throttle.on_keyframe();
            if let Some(size) = ams_media::frame_size(codec, &packet.payload) {
                layer.size = (size.width.into(), size.height.into());
            }
        }
        if let Some(monitor) = self.monitors.get_mut(usize::from(packet.track.0))
            && let Some(best) = monitor.on_packet(now, &packet)
        {
            self.retargets.push((packet.track, best));
        }
        let first_at = *self.first_at.get_or_insert(now);
        if !self.live {
            self.live = picture || !self.has_video || now.saturating_duration_since(first_at) >= SOUND_ONLY_AFTER;
            self.went_live = self.live;
        }
        self.pending.push(packet);
        true
    }

    /// True once: when it turns out that the stream can be watched.
    pub fn take_went_live(&mut self) -> bool {
        std::mem::take(&mut self.went_live)
    }

    /// The layers' figures; closes the current window.
    pub fn report(&mut self, now: Instant) -> Vec<LayerReport> {
        let tracks = Arc::clone(&self.tracks);
        self.layers
            .iter_mut()
            .filter_map(|layer| {
                let elapsed = now.saturating_duration_since(layer.window_at);
                if elapsed >= Duration::from_millis(500) {
                    layer.bitrate = (layer.window_bytes * 8_000) / (elapsed.as_millis() as u64).max(1);
                    layer.window_bytes = 0;
                    layer.window_at = now;
                }
                let track = tracks.tracks.get(usize::from(layer.track.0))?;
                Some(LayerReport {
                    kind: track.kind,
                    codec: track.codec.codec,
                    layer: layer.no,
                    size: layer.size,
                    bitrate: layer.bitrate,
                    packets: layer.packets,
                    bytes: layer.bytes,
                })
            })
            .collect()
    }
}
