//! What this crate's unit tests share.

use std::time::{Duration, Instant};

use ams_types::{ExtSeq, LayerNo, TrackNo};
use bytes::Bytes;

use crate::packet::{MediaPacket, PacketExtensions};

/// The moment a test begins; nothing but differences to it matter.
#[allow(clippy::disallowed_methods)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Bytes of a hex text; blanks are for the reader.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A packet of 100 bytes on layer 0, no keyframe.
pub(crate) fn packet(seq: u64, timestamp: u32, ingest_at: Instant) -> MediaPacket {
    MediaPacket {
        track: TrackNo(0),
        layer: LayerNo(0),
        seq: ExtSeq(seq),
        timestamp,
        marker: false,
        keyframe: false,
        sublayer: None,
        extensions: PacketExtensions::default(),
        payload: Bytes::from_static(&[0x77; 100]),
        ingest_at,
        age: Duration::ZERO,
    }
}

impl MediaPacket {
    pub(crate) fn on_layer(mut self, layer: u8) -> Self {
        self.layer = LayerNo(layer);
        self
    }

    pub(crate) fn keyframe(mut self) -> Self {
        self.keyframe = true;
        self
    }
}
