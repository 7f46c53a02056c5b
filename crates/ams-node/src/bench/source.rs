//! The media of a bench: VP8-shaped pictures and Opus-shaped sound, each packet with its number and the time it was sent.
//!
//! Owns when packets are due and what is in them, so that a viewer can check every byte.

use std::time::{Duration, Instant};

use super::sdp::{AUDIO_PT, AUDIO_SSRC, VIDEO_PT, VIDEO_SSRC};
use ams_rtc::rtp::HeaderFields;
use ams_types::{Pt, Ssrc};

const FRAME: Duration = Duration::from_nanos(33_333_333);
const AUDIO: Duration = Duration::from_millis(20);
/// 2 Mbit/s at 30 fps in packets of this size, or ten of 1200 bytes at once.
const PACED: (u32, usize) = (8, 1040);
const BURST: (u32, usize) = (10, 1200);
const AUDIO_LEN: usize = 160;
/// A keyframe is this many times a frame.
const KEY_FACTOR: u32 = 4;
/// Bytes of number and time at the end of each payload.
const TRAILER: usize = 16;
/// Descriptor with picture id, frame tag.
const HEAD_LEN: usize = 14;

/// One packet to send.
pub(super) struct Outgoing {
    pub(super) seq: u64,
    pub(super) fields: HeaderFields,
    pub(super) payload: Vec<u8>,
}

pub(super) struct MediaSource {
    origin: Instant,
    burst: bool,
    key_interval: Duration,
    keyed_at: Option<Instant>,
    frame: u64,
    part: u32,
    parts: u32,
    is_key: bool,
    video_due: Instant,
    video_seq: u64,
    audio_due: Instant,
    audio_seq: u64,
    audio_no: u64,
    pub(super) keyframe_wanted: bool,
}

impl MediaSource {
    pub(super) fn new(origin: Instant, burst: bool, key_interval: Duration) -> Self {
        Self {
            origin,
            burst,
            key_interval,
            keyed_at: None,
            frame: 0,
            part: 0,
            parts: 0,
            is_key: false,
            video_due: origin,
            video_seq: 4_464,
            audio_due: origin,
            audio_seq: 14_464,
            audio_no: 0,
            keyframe_wanted: true,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.video_due.min(self.audio_due)
    }

    /// The next packet that is due, stamped with `now`.
    pub(super) fn next(&mut self, now: Instant) -> Option<Outgoing> {
        if self.audio_due <= now {
            self.audio_due += AUDIO;
            let timestamp = (self.audio_no * 960) as u32;
            self.audio_no += 1;
            let seq = self.audio_seq;
            self.audio_seq += 1;
            let fields = HeaderFields {
                marker: false,
                pt: Pt(AUDIO_PT),
                seq: (seq & 0xffff) as u16,
                timestamp,
                ssrc: Ssrc(AUDIO_SSRC),
            };
            return Some(Outgoing { seq, fields, payload: fill(&[0xfc], AUDIO_LEN, seq, self.micros(now)) });
        }
        if self.video_due > now {
            return None;
        }
        let (packets, len) = if self.burst { BURST } else { PACED };
        if self.part == 0 {
            let since = self.keyed_at.map(|at| now.saturating_duration_since(at));
            self.is_key =
                std::mem::take(&mut self.keyframe_wanted) || since.is_none_or(|since| since >= self.key_interval);
            if self.is_key {
                self.keyed_at = Some(now);
            }
            self.parts = if self.is_key { packets * KEY_FACTOR } else { packets };
        }
        let [high, low] = ((self.frame & 0x7fff) as u16).to_be_bytes();
        let mut head = vec![0x80, 0x80, 0x80 | high, low];
        if self.part == 0 {
            head[0] |= 0x10;
            head.push(u8::from(!self.is_key));
            if self.is_key {
                head.extend([0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
            }
        }
        let seq = self.video_seq;
        self.video_seq += 1;
        let timestamp = (self.frame * 3000) as u32;
        self.part += 1;
        let marker = self.part == self.parts;
        if marker {
            self.part = 0;
            self.frame += 1;
            self.video_due = self.origin + FRAME * u32::try_from(self.frame).unwrap_or(u32::MAX);
        } else if !self.burst {
            self.video_due += FRAME * 19 / 20 / self.parts;
        }
        let fields =
            HeaderFields { marker, pt: Pt(VIDEO_PT), seq: (seq & 0xffff) as u16, timestamp, ssrc: Ssrc(VIDEO_SSRC) };
        Some(Outgoing { seq, fields, payload: fill(&head, len, seq, self.micros(now)) })
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX)
    }
}

fn fill(head: &[u8], len: usize, seq: u64, micros: u64) -> Vec<u8> {
    let mut payload = vec![0; len];
    let start = HEAD_LEN.min(len);
    for (n, byte) in payload.iter_mut().enumerate().skip(start) {
        *byte = pattern(seq, n);
    }
    payload[..head.len()].copy_from_slice(head);
    payload[len - TRAILER..len - 8].copy_from_slice(&seq.to_be_bytes());
    payload[len - 8..].copy_from_slice(&micros.to_be_bytes());
    payload
}

fn pattern(seq: u64, n: usize) -> u8 {
    (seq as u8).wrapping_add((n as u8).wrapping_mul(31))
}

/// When a packet was sent, in microseconds since the origin; none if its bytes are not what was published.
pub(super) fn check(payload: &[u8]) -> Option<u64> {
    let (rest, micros) = payload.split_last_chunk::<8>()?;
    let (body, seq) = rest.split_last_chunk::<8>()?;
    let seq = u64::from_be_bytes(*seq);
    let intact = body.iter().enumerate().skip(HEAD_LEN).all(|(n, byte)| *byte == pattern(seq, n));
    intact.then_some(u64::from_be_bytes(*micros))
}
