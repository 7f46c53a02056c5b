//! What a viewer gets, checked byte by byte and number by number.
//!
//! Owns the gaps: in the node's numbering, which NACKs are about, and in the publisher's, which shows what the node left
//! out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ams_rtc::rtcp::SenderInfo;
use ams_rtc::rtp::RtpHeader;

use super::{Counts, body};
use crate::sdp::NodeSdp;

/// Gaps remembered; more are counted and forgotten.
const GAPS_MAX: usize = 4096;
/// Pause before a packet is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(40);
/// How often one packet is asked for.
const ASKS_MAX: u32 = 12;

/// A rising number and the ones it jumped over.
#[derive(Default)]
struct Numbers {
    highest: Option<u64>,
    gaps: BTreeMap<u64, Asked>,
}

#[derive(Clone, Copy, Default)]
struct Asked {
    times: u32,
    at: Option<Instant>,
}

enum Seen {
    /// The next one, or one further on.
    Ahead,
    /// One that was missing.
    Filled,
    /// One that was there.
    Again,
    /// From before the first.
    Before,
}

impl Numbers {
    fn extend(&self, seq: u16) -> u64 {
        let Some(highest) = self.highest else { return 0x1_0000 + u64::from(seq) };
        let step = seq.wrapping_sub((highest & 0xffff) as u16);
        if step < 0x8000 { highest + u64::from(step) } else { highest.saturating_sub(u64::from(step.wrapping_neg())) }
    }

    fn see(&mut self, number: u64) -> Seen {
        let Some(highest) = self.highest else {
            self.highest = Some(number);
            return Seen::Ahead;
        };
        if number > highest {
            self.highest = Some(number);
            for gap in highest + 1..number {
                if self.gaps.len() < GAPS_MAX {
                    self.gaps.insert(gap, Asked::default());
                }
            }
            return Seen::Ahead;
        }
        match self.gaps.remove(&number) {
            Some(_) => Seen::Filled,
            None if highest - number > 0x4000 => Seen::Before,
            None => Seen::Again,
        }
    }

    /// What lies before `number` and did not come is not missed.
    fn jump_to(&mut self, number: u64) {
        if self.highest.is_some_and(|highest| number > highest) {
            self.highest = Some(number - 1);
        }
    }

    fn missing(&self) -> u64 {
        self.gaps.len() as u64
    }
}

/// One track of the node's.
struct Track {
    ssrc: u32,
    clock: u64,
    seqs: Numbers,
    source: Numbers,
    /// Node's number less the publisher's, modulo 2^64.
    shift: Option<u64>,
    report: Option<SenderInfo>,
    first: Option<u64>,
    /// The node's number from which on `shift` holds.
    jumped_at: u64,
    /// The publication it is of, and the timestamp of its last packet.
    publication: Option<(u64, u32)>,
}

impl Track {
    fn new(ssrc: u32, clock: u64) -> Self {
        Self {
            ssrc,
            clock,
            seqs: Numbers::default(),
            source: Numbers::default(),
            shift: None,
            report: None,
            first: None,
            jumped_at: 0,
            publication: None,
        }
    }
}

/// The checker.
pub(super) struct MediaCheck {
    audio: Vec<Track>,
    video: Vec<Track>,
    /// Pairs of retransmission and original.
    rtx: Vec<(u32, u32)>,
}

impl MediaCheck {
    pub(super) fn new(node: &NodeSdp) -> Self {
        let of = |kind: &str, clock| {
            let ssrcs = node.media.iter().filter(|m| m.kind == kind).filter_map(|m| m.ssrcs.first());
            ssrcs.map(|ssrc| Track::new(*ssrc, clock)).collect()
        };
        let rtx = node.media.iter().filter_map(|m| m.fid).map(|(media, rtx)| (rtx, media)).collect();
        Self { audio: of("audio", 48_000), video: of("video", 90_000), rtx }
    }

    /// A sender report.
    pub(super) fn report(&mut self, info: SenderInfo, counts: &Counts) {
        counts.reports.fetch_add(1, Ordering::Relaxed);
        let track = self.audio.iter_mut().chain(&mut self.video).find(|t| t.ssrc == info.ssrc.0);
        match track {
            Some(track) => track.report = Some(info),
            None => wrong(counts, format!("a sender report of the unknown SSRC {:08x}", info.ssrc.0)),
        }
    }

    /// An opened RTP packet.
    pub(super) fn packet(&mut self, packet: &[u8], counts: &Counts) {
        count(&counts.received);
        let now = Instant::now();
        let last = counts.last_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(now);
        if let Some(last) = last {
            let gap = now.saturating_duration_since(last).as_micros();
            counts.longest_gap_us.fetch_max(u64::try_from(gap).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        let Ok(header) = RtpHeader::parse(packet) else { return wrong(counts, "no RTP header".to_owned()) };
        let mut payload = packet.get(header.payload.clone()).unwrap_or_default();
        let (mut ssrc, mut seq, mut repeated) = (header.ssrc.0, header.seq, false);
        if let Some((_, media)) = self.rtx.iter().find(|(rtx, _)| *rtx == ssrc) {
            let Some((osn, rest)) = payload.split_first_chunk::<2>() else { return };
            (ssrc, seq, payload, repeated) = (*media, u16::from_be_bytes(*osn), rest, true);
        }
        let Some(content) = body::read(payload) else {
            return wrong(counts, format!("content of packet {seq} of {ssrc:08x} was changed"));
        };
        if let Some(track) = self.audio.iter_mut().find(|t| t.ssrc == ssrc) {
            see(track, seq, header.timestamp, content, repeated, false, counts, &counts.audio_lag_us);
            count(&counts.audio);
            counts.audio_missing.store(track.seqs.missing(), Ordering::Relaxed);
            counts.audio_skipped.store(track.source.missing(), Ordering::Relaxed);
        } else if let Some(track) = self.video.iter_mut().find(|t| t.ssrc == ssrc) {
            let first = track.first.is_none();
            // First payload byte S, frame tag P clear: a keyframe starts.
            let keyframe = payload.first() == Some(&0x10) && payload.get(1).is_some_and(|b| b & 1 == 0);
            if first && !keyframe {
                wrong(counts, format!("the first picture is no keyframe: packet {}", content.number));
            }
            see(track, seq, header.timestamp, content, repeated, keyframe, counts, &counts.video_lag_us);
            count(&counts.video);
            if keyframe {
                count(&counts.keyframes);
            }
            if counts.missing.swap(track.seqs.missing(), Ordering::Relaxed) != track.seqs.missing() {
                let first = track.first.unwrap_or_default();
                let mut gaps = counts.gaps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                gaps.clear();
                gaps.extend(track.source.gaps.keys().take(8).map(|gap| gap.wrapping_sub(first)));
            }
            counts.skipped.store(track.source.missing(), Ordering::Relaxed);
        } else {
            wrong(counts, format!("the unknown SSRC {ssrc:08x}"));
        }
    }

    /// Numbers to ask for now, by track.
    pub(super) fn asks(&mut self, now: Instant) -> Vec<(u32, Vec<u16>)> {
        let mut asks = Vec::new();
        for track in &mut self.video {
            let mut seqs = Vec::new();
            for (number, asked) in &mut track.seqs.gaps {
                let due = asked.at.is_none_or(|at| now.saturating_duration_since(at) >= ASK_AGAIN);
                if due && asked.times < ASKS_MAX {
                    *asked = Asked { times: asked.times + 1, at: Some(now) };
                    seqs.push((number & 0xffff) as u16);
                }
            }
            if !seqs.is_empty() {
                asks.push((track.ssrc, seqs));
            }
        }
        asks
    }

    /// The SSRC of the first video track.
    pub(super) fn video_ssrc(&self) -> Option<u32> {
        self.video.first().map(|t| t.ssrc)
    }
}

#[allow(clippy::too_many_arguments, reason = "everything that is known of one packet")]
fn see(
    track: &mut Track,
    seq: u16,
    timestamp: u32,
    content: body::Body,
    repeated: bool,
    keyframe: bool,
    counts: &Counts,
    lag: &std::sync::atomic::AtomicI64,
) {
    track.first.get_or_insert(content.number);
    let number = track.seqs.extend(seq);
    if let Some((before, newest)) = track.publication
        && before != content.source
    {
        // The node's numbers and time go on as if nothing had been.
        let step = timestamp.wrapping_sub(newest);
        // Its first packet may get lost, which is counted with all that is missing.
        let is_first = track.seqs.highest.is_none_or(|highest| number <= highest + 1);
        if track.seqs.highest.is_none_or(|highest| number <= highest) || step == 0 || step >= 1 << 31 {
            wrong(counts, format!("another publication begins with a seam: packet {seq}, {step} ticks on"));
        }
        if track.clock == 90_000 {
            if is_first && !keyframe {
                wrong(counts, format!("another publication begins with packet {seq}, which is no keyframe"));
            }
            count(&counts.takeovers);
            let mut at = counts.taken_over_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *at = Some(Instant::now());
        }
        (track.source, track.shift, track.report) = (Numbers::default(), None, None);
        track.jumped_at = number;
    }
    track.publication = Some((content.source, timestamp));
    if repeated && track.seqs.highest.is_some_and(|highest| number > highest) {
        wrong(counts, format!("packet {seq} was sent again before it was sent"));
    }
    // A viewer that is behind may go on at a keyframe; the node's own numbers show no gap then.
    if keyframe && track.seqs.highest.is_some_and(|highest| number == highest + 1) {
        track.source.jump_to(content.number);
        track.jumped_at = number;
    }
    match track.seqs.see(number) {
        Seen::Ahead => track.shift = Some(number.wrapping_sub(content.number)),
        seen => {
            let known = track.shift.filter(|_| number >= track.jumped_at);
            if known.is_some_and(|shift| shift != number.wrapping_sub(content.number)) {
                wrong(counts, format!("packet {seq} came late with another content than it has"));
            }
            match seen {
                Seen::Filled if repeated => count(&counts.recovered),
                Seen::Again => count(&counts.repeated),
                _ => {}
            }
        }
    }
    track.source.see(content.number);
    if let Some(report) = &track.report {
        let since = i64::from(timestamp.wrapping_sub(report.rtp_timestamp) as i32) * 1_000_000 / track.clock as i64;
        let at = ((u128::from(report.ntp) * 1_000_000) >> 32) as i64 + since;
        lag.store(at - content.media_us as i64, Ordering::Relaxed);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn wrong(counts: &Counts, what: String) {
    counts.wrong.fetch_add(1, Ordering::Relaxed);
    let mut first = counts.first_wrong.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    first.get_or_insert(what);
}
