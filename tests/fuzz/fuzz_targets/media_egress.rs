//! One viewer's track and its ring, under any order of packets, switches, restarts and NACKs.
//!
//! The numbers of packets come from a relay link, so they are outside input too. What must hold: a viewer's number is
//! given out once, and a NACK finds the packet that was sent under it.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ams_fuzz::{Input, at};
use ams_media::payload::vp8_ids::Vp8Ids;
use ams_media::{
    Depth, Insert, Kept, LayerMonitor, MediaPacket, PacketExtensions, PacketRing, Rewritten, RingLimits, Sublayer,
    ViewerTrack,
};
use ams_types::{Codec, ExtSeq, LayerNo, TrackNo};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const KEPT: Kept = Kept { bytes: 4000, span: Duration::from_secs(2) };
const LIMITS: RingLimits = RingLimits { packets: 64, history: KEPT, run: KEPT };

/// A VP8 payload whose descriptor may be anything.
fn payload(input: &mut Input<'_>) -> Bytes {
    let mut payload = vec![0; 100];
    for byte in payload.iter_mut().take(8) {
        *byte = input.u8();
    }
    payload.truncate(usize::from(input.u8() % 100));
    payload.into()
}

fn depth(input: &mut Input<'_>) -> Depth {
    Depth { spatial: input.u8() % 4, temporal: input.u8() % 4 }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut track = ViewerTrack::new(90_000, input.u16(), input.u32()).for_codec(Codec::Vp8);
    let mut monitor = LayerMonitor::default();
    let mut rings: Vec<PacketRing> = (0..3).map(|_| PacketRing::new(LIMITS)).collect();
    let mut next = [1u64 << 16; 3];
    let mut given: HashMap<u64, (u32, u8, u64, Rewritten)> = HashMap::new();
    let (mut clock, mut run) = (0u64, 0u32);
    while !input.is_empty() {
        let what = input.u8();
        clock += u64::from(what >> 6) * 20;
        match what & 0x0f {
            0 => track.skip_to_keyframe(),
            1 => {
                track.on_source_restart();
                rings.iter_mut().for_each(PacketRing::clear);
                run += 1;
            }
            2 => track.set_target(LayerNo(input.u8() % 4), depth(&mut input)),
            3 => {
                let asked = input.u16();
                let Some(resend) = track.nack(at(clock), Duration::from_millis(20), asked) else { continue };
                assert_eq!(resend.viewer_seq.low16(), asked);
                let known = given.get(&resend.viewer_seq.0);
                assert_eq!(known.is_some(), resend.sent);
                if let Some((of_run, layer, seq, sent)) = known {
                    assert_eq!((*of_run, *layer, *seq), (run, resend.layer.0, resend.source_seq.0));
                    if let Some(packet) = rings.get(usize::from(*layer)).and_then(|ring| ring.get(resend.source_seq)) {
                        assert_eq!(resend.rewritten(packet), *sent, "other bytes under one number");
                    }
                }
            }
            kind => {
                let layer = what >> 4 & 0x03;
                let Some(place) = next.get_mut(usize::from(layer)) else { continue };
                let seq = match kind {
                    4 => input.u64(),
                    5 => place.saturating_sub(input.u8().into()),
                    6 => place.saturating_add(input.u16().into()),
                    _ => *place,
                };
                *place = (*place).max(seq.saturating_add(1)).min(1 << 60);
                let packet = Arc::new(MediaPacket {
                    track: TrackNo(0),
                    layer: LayerNo(layer),
                    seq: ExtSeq(seq),
                    timestamp: (seq as u32 / 3).wrapping_mul(3000),
                    marker: false,
                    keyframe: kind & 1 == 1,
                    sublayer: (kind & 2 == 2).then(|| Sublayer::from_bits(input.u16())),
                    extensions: PacketExtensions::default(),
                    payload: payload(&mut input),
                    ingest_at: at(clock),
                    age: Duration::from_secs(seq % 5),
                });
                if rings[usize::from(layer)].insert(packet.clone()) != Insert::Stored {
                    continue;
                }
                if let Some(best) = monitor.on_packet(at(clock), &packet) {
                    track.set_target(best, Depth::ALL);
                }
                if let Some(rewritten) = track.forward(at(clock), &packet) {
                    assert!(rewritten.seq.0 < 1 << 48);
                    let mut patched = packet.payload.to_vec();
                    rewritten.vp8.apply(&mut patched);
                    assert_eq!(patched.len(), packet.payload.len());
                    assert_eq!(Vp8Ids::read(&patched).is_some(), Vp8Ids::read(&packet.payload).is_some());
                    let former = given.insert(rewritten.seq.0, (run, layer, seq, rewritten));
                    assert!(former.is_none(), "number {} was given out twice", rewritten.seq.0);
                }
            }
        }
    }
});
