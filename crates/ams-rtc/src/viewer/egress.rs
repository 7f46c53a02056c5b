//! Writing, sealing and gathering of one viewer's packets: the inner end of the media path.
//!
//! Owns how a packet's bytes come about. One path alone seals an SSRC's numbers: [`Egress::original`] for media,
//! [`Egress::rtx`] for retransmissions. Never decides whether a packet is sent.

use std::time::Instant;

use ams_media::payload::vp8_ids::Vp8Shift;
use ams_media::{BandwidthEstimator, MediaPacket, Rewritten};
use ams_types::{ExtSeq, Pt, Ssrc};

use super::Track;
use crate::ext::{Ext, ExtValues};
use crate::rtp::{HEADER_LEN_MAX, HeaderFields, write_header, write_rtx_header};
use crate::transport::Transport;
use crate::tx::{DatagramSink, TxBatch};

/// IP and UDP headers, which use the path as well.
const UDP_OVERHEAD: usize = 28;
/// Bytes of one packet of padding: as many as its length field can say (RFC 3550 §5.1).
const PADDING_LEN: usize = 255;

/// What packets of one viewer share beyond their tracks.
#[derive(Debug)]
pub(super) struct Shared {
    /// The last transport-wide number given out.
    transport_seq: u16,
    /// What the path carries; none where the viewer reports no arrivals and sent no estimate of its own.
    pub(super) bandwidth: Option<Box<BandwidthEstimator>>,
    /// Bytes sent, with headers and retransmissions.
    pub(super) bytes: u64,
    /// The delay the viewer is asked for, where the publisher does not say.
    playout_delay: Option<[u8; 3]>,
}

impl Shared {
    pub(super) fn new(playout_delay: Option<[u8; 3]>) -> Self {
        Self { transport_seq: 0, bandwidth: None, bytes: 0, playout_delay }
    }
}

/// What every packet of one viewer shares, and where it goes.
pub(super) struct Egress<'a> {
    pub(super) now: Instant,
    pub(super) transport: &'a Transport,
    pub(super) shared: &'a mut Shared,
    /// The transport-wide number of the packet that is being made.
    pub(super) number: Option<u16>,
    pub(super) tx: &'a mut TxBatch,
    pub(super) sink: &'a mut dyn DatagramSink,
}

impl Egress<'_> {
    /// A packet under its own number, for the first time; or again, byte for byte, where there is no RTX.
    pub(super) fn original(&mut self, track: &mut Track, packet: &MediaPacket, rewritten: Rewritten) -> bool {
        let fields = HeaderFields {
            marker: rewritten.marker,
            pt: track.setup.pt,
            seq: rewritten.seq.low16(),
            timestamp: rewritten.timestamp,
            ssrc: track.setup.ssrc,
        };
        let mut values = self.values_of(packet);
        // Without RTX the MID stays on for good, so that a packet sent again has the same bytes.
        if !track.bound || track.setup.rtx.is_none() {
            values.mid = Some(track.setup.mid.0.as_bytes());
        }
        values.transport_seq = self.transport_seq(track);
        let mut header = [0; HEADER_LEN_MAX];
        let Ok(header_len) = write_header(&mut header, &fields, &track.setup.exts, &values) else { return false };
        self.seal(rewritten.seq, header.get(..header_len).unwrap_or_default(), 0, &packet.payload, rewritten.vp8)
    }

    /// A packet again, as RTX (RFC 4588 §4): `seq` is the number it had.
    pub(super) fn rtx(
        &mut self,
        track: &mut Track,
        (ssrc, pt): (Ssrc, Pt),
        packet: &MediaPacket,
        rewritten: Rewritten,
    ) -> bool {
        let index = ExtSeq(track.rtx_seq);
        track.rtx_seq += 1;
        let timestamp = rewritten.timestamp;
        let fields = HeaderFields { marker: rewritten.marker, pt, seq: index.low16(), timestamp, ssrc };
        let mut values = self.values_of(packet);
        // Always: a viewer that has bound the track's SSRC has not yet bound this one, and Firefox takes no
        // retransmission before it has.
        values.mid = Some(track.setup.mid.0.as_bytes());
        values.transport_seq = self.transport_seq(track);
        let mut header = [0; HEADER_LEN_MAX];
        let original = rewritten.seq.low16();
        let Ok(header_len) = write_rtx_header(&mut header, &fields, original, &track.setup.exts, &values) else {
            return false;
        };
        // The original number is the head of the RTX payload.
        self.seal(index, header.get(..header_len).unwrap_or_default(), 2, &packet.payload, rewritten.vp8)
    }

    /// The extensions of a packet that are the same whenever it is sent.
    fn values_of<'m>(&self, packet: &'m MediaPacket) -> ExtValues<'m> {
        let mut values = ExtValues::from_media(&packet.extensions);
        values.playout_delay = values.playout_delay.or(self.shared.playout_delay);
        values
    }

    /// A packet of nothing, to try the path. Goes under the retransmissions' SSRC, which has no numbers to keep whole.
    /// Returns its length.
    pub(super) fn padding(&mut self, track: &mut Track, (ssrc, pt): (Ssrc, Pt)) -> usize {
        let index = ExtSeq(track.rtx_seq);
        track.rtx_seq += 1;
        let fields = HeaderFields { marker: false, pt, seq: index.low16(), timestamp: 0, ssrc };
        let values = ExtValues {
            mid: Some(track.setup.mid.0.as_bytes()),
            transport_seq: self.transport_seq(track),
            ..ExtValues::default()
        };
        let mut header = [0; HEADER_LEN_MAX];
        let Ok(header_len) = write_header(&mut header, &fields, &track.setup.exts, &values) else { return 0 };
        header[0] |= 0x20;
        let mut padding = [0; PADDING_LEN];
        padding[PADDING_LEN - 1] = PADDING_LEN as u8;
        self.seal(index, header.get(..header_len).unwrap_or_default(), 0, &padding, Vp8Shift::default());
        header_len + PADDING_LEN
    }

    /// The next transport-wide number, where the track has the extension.
    fn transport_seq(&mut self, track: &Track) -> Option<u16> {
        track.setup.exts.id(Ext::TransportCc)?;
        self.shared.transport_seq = self.shared.transport_seq.wrapping_add(1);
        self.number = Some(self.shared.transport_seq);
        self.number
    }

    /// Puts `head` and the payload into the batch, sealed under `index`. The last `in_payload` bytes of the head are
    /// payload already.
    fn seal(&mut self, index: ExtSeq, head: &[u8], in_payload: usize, payload: &[u8], vp8: Vp8Shift) -> bool {
        let (Some(sealer), Some(path)) = (self.transport.sealer(), self.transport.media_path()) else { return false };
        let from = (!path.local_ip.is_unspecified()).then_some(path.local_ip);
        let header_len = head.len() - in_payload;
        let plain_len = head.len() + payload.len();
        let len = plain_len + sealer.profile().rtp_overhead();
        self.shared.bytes += len as u64;
        if let (Some(bandwidth), Some(number)) = (&mut self.shared.bandwidth, self.number.take()) {
            bandwidth.on_sent(self.now, number, len + UDP_OVERHEAD);
        }
        self.tx.push(self.sink, path.remote, from, len, |room| {
            let Some(plain) = room.get_mut(..plain_len) else { return false };
            let (to, body) = plain.split_at_mut(head.len());
            to.copy_from_slice(head);
            body.copy_from_slice(payload);
            vp8.apply(body);
            sealer.seal_rtp(index.0, room, header_len, plain_len - header_len).is_ok()
        })
    }
}
