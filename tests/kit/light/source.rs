//! A light publisher's media: VP8-shaped pictures and Opus-shaped sound, each packet with its own number inside.
//!
//! Owns what is sent and what can be sent again. Numbers and timestamps start shortly before they wrap, so that every
//! test sees them wrap.

use std::collections::VecDeque;
use std::time::Instant;

use ams_rtc::rtcp;

use super::body::{self, Body};
use crate::sdp;

/// Pictures per second.
pub(super) const FRAMES_PER_SECOND: u64 = 30;
/// Packets per picture.
const PACKETS_PER_FRAME: u64 = 3;
/// Bytes of filler in a video packet.
const VIDEO_BYTES: usize = 900;
/// Bytes of filler in an audio packet.
const AUDIO_BYTES: usize = 60;
/// Packets kept for those who miss them.
const KEPT: usize = 1024;
/// Bytes of header of every packet: 12, and one extension block with a transport-wide number.
pub(super) const HEADER_LEN: usize = 20;

/// A packet to be sealed.
pub(super) struct Outgoing {
    /// Its index for SRTP.
    pub(super) index: u64,
    /// Header and payload.
    pub(super) bytes: Vec<u8>,
    /// It belongs to the video track.
    pub(super) video: bool,
}

/// The source.
pub(super) struct MediaSource {
    id: u64,
    frame_no: u64,
    video_seq: u64,
    audio_seq: u64,
    rtx_seq: u64,
    transport_seq: u16,
    timestamps: (u32, u32),
    audio_no: u64,
    sent: VecDeque<(u16, Vec<u8>)>,
    started: Instant,
    ntp_base: u64,
    /// The next picture is a keyframe.
    pub(super) keyframe_due: bool,
}

impl MediaSource {
    pub(super) fn new() -> Self {
        let early = || u64::from(rand::random::<u8>());
        Self {
            id: rand::random(),
            frame_no: 0,
            video_seq: 0x1_0000 - 64 - early(),
            audio_seq: 0x1_0000 - 64 - early(),
            rtx_seq: early(),
            transport_seq: u16::MAX - 100,
            timestamps: (0_u32.wrapping_sub(90_000 + early() as u32), 0_u32.wrapping_sub(48_000 + early() as u32)),
            audio_no: 0,
            sent: VecDeque::new(),
            started: Instant::now(),
            ntp_base: 3_900_000_000 + early(),
            keyframe_due: true,
        }
    }

    /// The next picture and the sound beside it. Says whether the picture is a keyframe.
    pub(super) fn frame(&mut self) -> (bool, Vec<Outgoing>) {
        let mut out = Vec::new();
        let keyframe = std::mem::take(&mut self.keyframe_due);
        let timestamp = self.timestamps.0.wrapping_add((self.frame_no * 3000) as u32);
        let media_us = self.frame_no * 1_000_000 / FRAMES_PER_SECOND;
        for n in 0..PACKETS_PER_FRAME {
            let marker = n + 1 == PACKETS_PER_FRAME;
            let mut bytes = self.header(96, marker, self.video_seq, timestamp, sdp::VIDEO_SSRC);
            // VP8 payload descriptor: S on the first packet, no extensions.
            bytes.push(if n == 0 { 0x10 } else { 0x00 });
            if n == 0 {
                // Frame tag: P bit clear for a keyframe; then start code and 640x480.
                let tag = if keyframe { 0x10 } else { 0x11 };
                bytes.extend_from_slice(&[tag, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
            }
            let body = Body { number: self.video_seq, media_us, source: self.id };
            body::write(&mut bytes, body, VIDEO_BYTES);
            if self.sent.len() == KEPT {
                self.sent.pop_front();
            }
            self.sent.push_back(((self.video_seq & 0xffff) as u16, bytes.clone()));
            out.push(Outgoing { index: self.video_seq, bytes, video: true });
            self.video_seq += 1;
        }
        // 20 ms packets beside 33 ms pictures: five for three.
        let audio = if self.frame_no.is_multiple_of(3) { 1 } else { 2 };
        for _ in 0..audio {
            let timestamp = self.timestamps.1.wrapping_add((self.audio_no * 960) as u32);
            let mut bytes = self.header(111, false, self.audio_seq, timestamp, sdp::AUDIO_SSRC);
            let body = Body { number: self.audio_seq, media_us: self.audio_no * 20_000, source: self.id };
            body::write(&mut bytes, body, AUDIO_BYTES);
            out.push(Outgoing { index: self.audio_seq, bytes, video: false });
            self.audio_seq += 1;
            self.audio_no += 1;
        }
        self.frame_no += 1;
        (keyframe, out)
    }

    /// Packets asked for again, as RTX (RFC 4588).
    pub(super) fn again(&mut self, seqs: impl Iterator<Item = u16>) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for seq in seqs {
            let Some((_, original)) = self.sent.iter().rev().find(|(kept, _)| *kept == seq) else { continue };
            let original = original.clone();
            let marker = original.get(1).is_some_and(|b| b & 0x80 != 0);
            let timestamp = original.get(4..8).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
            let mut bytes = self.header(97, marker, self.rtx_seq, timestamp, sdp::VIDEO_RTX_SSRC);
            bytes.extend_from_slice(&seq.to_be_bytes());
            bytes.extend_from_slice(original.get(HEADER_LEN..).unwrap_or_default());
            out.push(Outgoing { index: self.rtx_seq, bytes, video: true });
            self.rtx_seq += 1;
        }
        out
    }

    /// A sender report for each track, once a second.
    pub(super) fn report(&self) -> Option<Vec<u8>> {
        if self.frame_no % FRAMES_PER_SECOND != 1 {
            return None;
        }
        let elapsed = self.started.elapsed();
        let ntp =
            ((self.ntp_base + elapsed.as_secs()) << 32) | ((u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000);
        let mut out = Vec::new();
        let of = |base: u32, step: u64| base.wrapping_add((self.frame_no * step) as u32);
        for (ssrc, rtp_timestamp) in
            [(sdp::VIDEO_SSRC, of(self.timestamps.0, 3000)), (sdp::AUDIO_SSRC, of(self.timestamps.1, 1600))]
        {
            let info = rtcp::SenderInfo { ssrc: ams_types::Ssrc(ssrc), ntp, rtp_timestamp, packets: 0, octets: 0 };
            rtcp::write_sender_report(&mut out, &info, &[]);
        }
        Some(out)
    }

    fn header(&mut self, pt: u8, marker: bool, seq: u64, timestamp: u32, ssrc: u32) -> Vec<u8> {
        let mut bytes = vec![0x90, pt | if marker { 0x80 } else { 0 }];
        bytes.extend_from_slice(&((seq & 0xffff) as u16).to_be_bytes());
        bytes.extend_from_slice(&timestamp.to_be_bytes());
        bytes.extend_from_slice(&ssrc.to_be_bytes());
        // One-byte form (RFC 8285), one word: the transport-wide number.
        bytes.extend_from_slice(&[0xbe, 0xde, 0, 1, sdp::TRANSPORT_CC_ID << 4 | 1]);
        bytes.extend_from_slice(&self.transport_seq.to_be_bytes());
        bytes.push(0);
        self.transport_seq = self.transport_seq.wrapping_add(1);
        bytes
    }
}
