//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Owns both directions: [`FeedbackGenerator`] remembers when a publisher's packets arrived and reports it, so that the
//! publisher can raise its bitrate; [`Feedback`] reads what viewers report. Neither estimates a bandwidth. Memory is
//! bounded by [`HISTORY_PACKETS`], and the clock is an argument.

use std::time::{Duration, Instant};

use ams_types::Ssrc;

use crate::rtcp::{format, packet_type};

/// Time between reports. Senders react faster to short ones; at 50 ms they cost a publisher well under 20 kbit/s.
pub const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// Sequence numbers kept, reported or not. A later packet may be this far behind the newest and still be reported.
pub const HISTORY_PACKETS: usize = 2048;
/// Longest feedback packet built, in bytes; what does not fit goes into the next.
pub const FEEDBACK_LEN_MAX: usize = 1100;

/// Unit of arrival deltas.
const TICK: Duration = Duration::from_micros(250);
/// Ticks in one unit of the reference time, 64 ms.
const REFERENCE_TICKS: i64 = 256;
/// RTCP header, two SSRCs, base, count, reference time, feedback number.
const FIXED_LEN: usize = 20;
/// Longest run one chunk can say.
const RUN_MAX: usize = 0x1fff;
/// Ticks of the clock before the first packet, so that the reference time never starts below zero.
const EPOCH_TICKS: i64 = REFERENCE_TICKS;

/// One packet's state as a status chunk says it (§3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Lost = 0,
    /// Arrived 0 to 255 ticks after the one before: one byte of delta.
    Small = 1,
    /// Arrived later, or before it: two bytes.
    Large = 2,
}

/// Collects arrivals of one transport's packets and reports them.
///
/// Call [`Self::on_packet`] for each packet that carries a transport sequence number, and [`Self::poll`] until it
/// returns false whenever [`Self::poll_timeout`] has come.
#[derive(Debug)]
pub struct FeedbackGenerator {
    sender: Ssrc,
    media: Ssrc,
    /// Arrival in ticks by sequence number modulo the length; tells which number a slot holds.
    slots: Box<[Option<(u64, i64)>]>,
    /// Time of tick [`EPOCH_TICKS`].
    origin: Option<Instant>,
    /// First sequence number (extended) of the next report.
    next: u64,
    /// One past the highest sequence number seen.
    end: u64,
    /// Packets arrived since the last report, from when they are due.
    due_at: Option<Instant>,
    count: u8,
    symbols: Vec<Status>,
    deltas: Vec<u8>,
}

impl FeedbackGenerator {
    /// Reports as `sender`, the SSRC this node's RTCP on the transport speaks as.
    pub fn new(sender: Ssrc) -> Self {
        Self {
            sender,
            media: Ssrc(0),
            slots: vec![None; HISTORY_PACKETS].into_boxed_slice(),
            origin: None,
            next: 0,
            end: 0,
            due_at: None,
            count: 0,
            symbols: Vec::new(),
            deltas: Vec::new(),
        }
    }

    /// Notes the arrival of packet `seq` of source `media` at `now`, which must not run backwards.
    ///
    /// A second arrival of one number, and one more than [`HISTORY_PACKETS`] behind the newest, are ignored. A jump
    /// ahead of more than that forgets what was not reported yet.
    pub fn on_packet(&mut self, now: Instant, media: Ssrc, seq: u16) {
        let Some(origin) = self.origin else {
            self.origin = Some(now);
            // Room below the first number for packets that it overtook.
            self.next = 0x1_0000 + u64::from(seq);
            self.end = self.next;
            self.put(now, now, media, self.next);
            return;
        };
        let newest = self.end - 1;
        let step = seq.wrapping_sub(newest as u16).cast_signed();
        let Some(seq) = newest.checked_add_signed(i64::from(step)) else { return };
        if seq + HISTORY_PACKETS as u64 <= newest {
            return;
        }
        self.put(origin, now, media, seq);
    }

    fn put(&mut self, origin: Instant, now: Instant, media: Ssrc, seq: u64) {
        let since = now.saturating_duration_since(origin).as_micros() / TICK.as_micros();
        let ticks = EPOCH_TICKS + i64::try_from(since).unwrap_or(i64::MAX - EPOCH_TICKS);
        let at = slot(seq);
        match self.slots.get_mut(at) {
            Some(Some((held, _))) if *held == seq => return,
            Some(place) => *place = Some((seq, ticks)),
            None => return,
        }
        self.media = media;
        self.end = self.end.max(seq + 1);
        self.next = self.next.min(seq).max(self.end.saturating_sub(HISTORY_PACKETS as u64));
        self.due_at.get_or_insert(now + FEEDBACK_INTERVAL);
    }

    /// When [`Self::poll`] has something to say next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due_at
    }

    /// Appends one feedback packet to `out` and returns true, if a report is due at `now`. Call until it returns false.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.due_at.is_none_or(|due| now < due) {
            return false;
        }
        // Losses since the last report come first: the history is short enough that one packet reaches the first arrival.
        let base = self.next;
        let Some(first) = (base..self.end).find_map(|seq| self.arrival(seq)) else {
            self.next = self.end;
            self.due_at = None;
            return false;
        };
        let reference = first.div_euclid(REFERENCE_TICKS);
        let count = self.collect(base, reference * REFERENCE_TICKS);
        self.write(base, count, reference, out);
        self.next = base + u64::from(count);
        if self.next >= self.end {
            self.due_at = None;
        }
        true
    }

    fn arrival(&self, seq: u64) -> Option<i64> {
        let (held, ticks) = (*self.slots.get(slot(seq))?)?;
        (held == seq).then_some(ticks)
    }

    /// Fills symbols and deltas from `base` on, as many as one packet takes; returns how many.
    fn collect(&mut self, base: u64, reference: i64) -> u16 {
        self.symbols.clear();
        self.deltas.clear();
        let mut last = reference;
        for seq in base..self.end {
            // Two-bit vectors are the most the symbols can need: seven in two bytes.
            let used = FIXED_LEN + (self.symbols.len() / 7 + 1) * 2 + self.deltas.len();
            if used + 4 > FEEDBACK_LEN_MAX {
                break;
            }
            let Some(ticks) = self.arrival(seq) else {
                self.symbols.push(Status::Lost);
                continue;
            };
            let delta = ticks - last;
            if let Ok(small) = u8::try_from(delta) {
                self.symbols.push(Status::Small);
                self.deltas.push(small);
            } else if let Ok(large) = i16::try_from(delta) {
                self.symbols.push(Status::Large);
                self.deltas.extend_from_slice(&large.to_be_bytes());
            } else {
                // More than 8 s off: only a new reference time can say it. The first arrival always fits its own.
                break;
            }
            last = ticks;
        }
        self.symbols.len() as u16
    }

    fn write(&mut self, base: u64, count: u16, reference: i64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0x80 | format::TRANSPORT_CC, packet_type::TRANSPORT_FEEDBACK, 0, 0]);
        out.extend_from_slice(&self.sender.0.to_be_bytes());
        out.extend_from_slice(&self.media.0.to_be_bytes());
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        let [.., r0, r1, r2] = reference.to_be_bytes();
        out.extend_from_slice(&[r0, r1, r2, self.count]);
        self.count = self.count.wrapping_add(1);
        write_chunks(&self.symbols, out);
        out.extend_from_slice(&self.deltas);

        let used = out.len() - start;
        let padding = used.next_multiple_of(4) - used;
        for left in (0..padding).rev() {
            out.push(if left == 0 { padding as u8 } else { 0 });
        }
        let words = ((used + padding) / 4 - 1) as u16;
        if let Some(header) = out.get_mut(start..start + 4) {
            let [w0, w1] = words.to_be_bytes();
            let first = if padding == 0 { 0x80 } else { 0xa0 };
            header.copy_from_slice(&[first | format::TRANSPORT_CC, packet_type::TRANSPORT_FEEDBACK, w0, w1]);
        }
    }
}

fn slot(seq: u64) -> usize {
    (seq % HISTORY_PACKETS as u64) as usize
}

/// Appends status chunks for `symbols` (§3.1.2 to §3.1.4): at each place the form that covers most of them.
fn write_chunks(symbols: &[Status], out: &mut Vec<u8>) {
    let mut rest = symbols;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|s| *s == first).count().min(RUN_MAX);
        let one_bit = rest.iter().take(14).all(|s| *s != Status::Large);
        let vector = rest.len().min(if one_bit { 14 } else { 7 });
        let chunk = if run >= vector {
            ((*first as u16) << 13) | run as u16
        } else {
            let (marker, bits) = if one_bit { (0x8000, 1) } else { (0xc000, 2) };
            let mut shift = 14;
            rest.iter().take(vector).fold(marker, |chunk, symbol| {
                shift -= bits;
                chunk | ((*symbol as u16) << shift)
            })
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        rest = rest.get(run.max(vector)..).unwrap_or_default();
    }
}

/// Feedback a receiver sent: which transport sequence numbers arrived, and when. Borrows the RTCP packet.
#[derive(Clone, Debug)]
pub struct Feedback<'a> {
    /// Who reports.
    pub sender: Ssrc,
    /// A source of the transport reported on; says nothing of the others.
    pub media: Ssrc,
    /// First number reported.
    pub base_seq: u16,
    /// How many numbers are reported.
    pub count: u16,
    /// Reference time in 64 ms, 24 bits with sign, on the receiver's clock; wraps.
    pub reference_time: i32,
    /// Number of this report; grows by one (wrapping) with each.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads the body of a transport-wide feedback packet: what follows the RTCP header, padding removed.
    ///
    /// `None` when chunks or deltas are fewer than the count asks for.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = body.split_first_chunk::<16>()?;
        let [s0, s1, s2, s3, m0, m1, m2, m3, b0, b1, c0, c1, r0, r1, r2, feedback_count] = *fixed;
        let count = u16::from_be_bytes([c0, c1]);
        let mut chunks = Symbols { bytes: rest, left: 0, chunk: 0, kind: ChunkKind::Run };
        let mut needed = 0;
        for _ in 0..count {
            needed += match chunks.next()? {
                1 => 1,
                2 => 2,
                _ => 0,
            };
        }
        let deltas = chunks.bytes;
        (deltas.len() >= needed).then_some(Self {
            sender: Ssrc(u32::from_be_bytes([s0, s1, s2, s3])),
            media: Ssrc(u32::from_be_bytes([m0, m1, m2, m3])),
            base_seq: u16::from_be_bytes([b0, b1]),
            count,
            reference_time: i32::from_be_bytes([r0, r1, r2, 0]) >> 8,
            feedback_count,
            chunks: rest,
            deltas,
        })
    }

    /// The numbers reported in order, each with its arrival in microseconds on the receiver's clock, or none if it has
    /// not arrived. At most 65 535.
    pub fn packets(&self) -> Arrivals<'a> {
        Arrivals {
            symbols: Symbols { bytes: self.chunks, left: 0, chunk: 0, kind: ChunkKind::Run },
            deltas: self.deltas,
            seq: self.base_seq,
            left: self.count,
            time_us: i64::from(self.reference_time) * 64_000,
        }
    }
}

/// Iterates the packets of a [`Feedback`].
#[derive(Clone, Debug)]
pub struct Arrivals<'a> {
    symbols: Symbols<'a>,
    deltas: &'a [u8],
    seq: u16,
    left: u16,
    time_us: i64,
}

impl Iterator for Arrivals<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let ticks = match self.symbols.next()? {
            1 => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(delta)
            }
            2 => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(*delta))
            }
            // 3 is reserved: arrived, but nothing says when.
            _ => return Some((seq, None)),
        };
        self.time_us += ticks * 250;
        Some((seq, Some(self.time_us)))
    }
}

#[derive(Clone, Copy, Debug)]
enum ChunkKind {
    Run,
    OneBit,
    TwoBit,
}

/// Iterates the symbols of status chunks; `bytes` is what follows the last chunk begun.
#[derive(Clone, Debug)]
struct Symbols<'a> {
    bytes: &'a [u8],
    /// Symbols left in `chunk`.
    left: u16,
    chunk: u16,
    kind: ChunkKind,
}

impl Iterator for Symbols<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        while self.left == 0 {
            let (chunk, rest) = self.bytes.split_first_chunk()?;
            self.bytes = rest;
            self.chunk = u16::from_be_bytes(*chunk);
            (self.kind, self.left) = match self.chunk >> 14 {
                0 | 1 => (ChunkKind::Run, self.chunk & 0x1fff),
                2 => (ChunkKind::OneBit, 14),
                _ => (ChunkKind::TwoBit, 7),
            };
        }
        self.left -= 1;
        let symbol = match self.kind {
            ChunkKind::Run => (self.chunk >> 13) & 3,
            ChunkKind::OneBit => (self.chunk >> self.left) & 1,
            ChunkKind::TwoBit => (self.chunk >> (self.left * 2)) & 3,
        };
        Some(symbol as u8)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, SymbolSizeTypeTcc, SymbolTypeTcc, TransportLayerCc,
    };

    use super::*;
    use crate::rtcp::{Rtcp, parse};

    const US: Ssrc = Ssrc(1);
    const THEM: Ssrc = Ssrc(2);

    /// Reports of all arrivals `(ms, seq)`, polled once at the end.
    fn reports(arrivals: &[(u64, u16)]) -> Vec<Vec<u8>> {
        let start = Instant::now();
        let mut generator = FeedbackGenerator::new(US);
        let mut now = start;
        for (ms, seq) in arrivals {
            now = start + Duration::from_millis(*ms);
            generator.on_packet(now, THEM, *seq);
        }
        drain(&mut generator, now + FEEDBACK_INTERVAL)
    }

    fn drain(generator: &mut FeedbackGenerator, now: Instant) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        loop {
            let mut out = Vec::new();
            if !generator.poll(now, &mut out) {
                return packets;
            }
            assert!(out.len() <= FEEDBACK_LEN_MAX && out.len() % 4 == 0);
            packets.push(out);
        }
    }

    fn ours(bytes: &[u8]) -> Feedback<'_> {
        match parse(bytes).next() {
            Some(Ok(Rtcp::TransportCc(feedback))) => feedback,
            other => panic!("{other:?}"),
        }
    }

    /// The same packet as an independent implementation understands it: number → arrival in µs.
    fn theirs(bytes: &[u8]) -> Vec<(u16, Option<i64>)> {
        let mut rest = bytes;
        let packets = rtc_rtcp::packet::unmarshal(&mut rest).unwrap();
        let cc: &TransportLayerCc = packets[0].as_any().downcast_ref().unwrap();
        let mut symbols = Vec::new();
        for chunk in &cc.packet_chunks {
            match chunk {
                PacketStatusChunk::RunLengthChunk(run) => {
                    symbols.extend(vec![run.packet_status_symbol; usize::from(run.run_length)]);
                }
                PacketStatusChunk::StatusVectorChunk(vector) => {
                    assert!(matches!(vector.symbol_size, SymbolSizeTypeTcc::OneBit | SymbolSizeTypeTcc::TwoBit));
                    symbols.extend(vector.symbol_list.iter().copied());
                }
            }
        }
        symbols.truncate(usize::from(cc.packet_status_count));
        let mut deltas = cc.recv_deltas.iter();
        let mut time = i64::from(cc.reference_time) * 64_000;
        symbols
            .iter()
            .enumerate()
            .map(|(n, symbol)| {
                let arrived = *symbol != SymbolTypeTcc::PacketNotReceived;
                if arrived {
                    time += deltas.next().unwrap().delta;
                }
                (cc.base_sequence_number.wrapping_add(n as u16), arrived.then_some(time))
            })
            .collect()
    }

    #[test]
    fn arrivals_are_reported_with_their_times() {
        for (name, arrivals) in [
            ("in order", vec![(0, 10), (5, 11), (5, 12), (60, 13)]),
            ("with losses", vec![(0, 10), (5, 13), (9, 30)]),
            ("wraps", vec![(0, 65_534), (1, 65_535), (2, 0), (3, 1)]),
            ("lost at the wrap", vec![(0, 65_533), (3, 2)]),
            ("reordered: a negative delta", vec![(0, 10), (5, 12), (7, 11)]),
            ("the first was overtaken", vec![(0, 11), (5, 10)]),
            ("a long pause: a large delta", vec![(0, 10), (5_000, 11)]),
            ("past a large delta: a new reference", vec![(0, 10), (20_000, 11), (20_001, 12)]),
            ("one", vec![(0, 7)]),
            ("run of fourteen and more", (0..40).map(|n| (u64::from(n), n)).collect()),
            ("every second lost", (0..40).map(|n| (u64::from(n), n * 2)).collect()),
            ("large ones between", (0..40).map(|n| (u64::from(n) * 80, n * 2)).collect()),
            ("longest loss in the history", vec![(0, 0), (5, 2047)]),
        ] {
            let packets = reports(&arrivals);
            let mut seen = BTreeMap::new();
            for packet in &packets {
                let read: Vec<_> = ours(packet).packets().collect();
                assert_eq!(read, theirs(packet), "{name}: both readers agree");
                seen.extend(read.into_iter().filter_map(|(seq, time)| Some((seq, time?))));
            }
            // Times count from 64 ms before the first arrival.
            let want: BTreeMap<u16, i64> =
                arrivals.iter().map(|(ms, seq)| (*seq, 64_000 + (*ms as i64) * 1000)).collect();
            assert_eq!(seen, want, "{name}");
        }
    }

    #[test]
    fn chunks_take_the_shortest_form() {
        use Status::{Large, Lost, Small};
        for (name, symbols, want) in [
            ("run", vec![Small; 100], vec![0x2064]),
            ("run of losses", vec![Lost; 8191], vec![0x1fff]),
            ("run past the longest", vec![Lost; 8192], vec![0x1fff, 0x0001]),
            ("large run", vec![Large; 7], vec![0x4007]),
            ("one-bit vector", [vec![Small, Lost], vec![Small; 12]].concat(), vec![0x8000 | 0b10_1111_1111_1111]),
            (
                "two-bit vector",
                vec![Small, Lost, Large, Small, Small, Small, Small],
                vec![0xc000 | 0b01_00_10_01_01_01_01],
            ),
            ("short rest", vec![Small, Lost, Small], vec![0x8000 | 0b10_1000_0000_0000]),
            ("nothing", vec![], vec![]),
        ] {
            let mut out = Vec::new();
            write_chunks(&symbols, &mut out);
            let chunks: Vec<u16> = out.chunks(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect();
            assert_eq!(chunks, want, "{name}");
        }
    }

    #[test]
    fn reports_come_when_due_and_say_nothing_twice() {
        let start = Instant::now();
        let mut generator = FeedbackGenerator::new(US);
        assert_eq!(generator.poll_timeout(), None);
        assert!(drain(&mut generator, start + Duration::from_secs(9)).is_empty(), "nothing came, nothing to say");

        generator.on_packet(start, THEM, 5);
        assert_eq!(generator.poll_timeout(), Some(start + FEEDBACK_INTERVAL));
        assert!(drain(&mut generator, start + FEEDBACK_INTERVAL / 2).is_empty(), "not yet due");
        assert_eq!(drain(&mut generator, start + FEEDBACK_INTERVAL).len(), 1);
        assert_eq!(generator.poll_timeout(), None);

        generator.on_packet(start + FEEDBACK_INTERVAL, THEM, 5);
        assert!(drain(&mut generator, start + Duration::from_secs(9)).is_empty(), "a repeated packet is no news");

        generator.on_packet(start + FEEDBACK_INTERVAL, THEM, 7);
        let packets = drain(&mut generator, start + Duration::from_secs(9));
        let feedback = ours(&packets[0]);
        assert_eq!((feedback.feedback_count, feedback.base_seq, feedback.count), (1, 6, 2), "6 is reported lost");

        generator.on_packet(start + FEEDBACK_INTERVAL * 3, THEM, 6);
        let packets = drain(&mut generator, start + Duration::from_secs(9));
        let late: Vec<_> = ours(&packets[0]).packets().collect();
        assert_eq!(late[0].0, 6);
        assert!(late[0].1.is_some(), "6 came after all");
    }

    #[test]
    fn history_is_bounded_however_numbers_jump() {
        let start = Instant::now();
        let mut generator = FeedbackGenerator::new(US);
        for (n, seq) in [0_u16, 30_000, 60_000, 10_000, 40_000, 39_000, 8_000].into_iter().enumerate() {
            generator.on_packet(start + Duration::from_millis(n as u64), THEM, seq);
        }
        let packets = drain(&mut generator, start + Duration::from_secs(1));
        let reported: usize = packets.iter().map(|p| ours(p).packets().count()).sum();
        assert!(reported <= HISTORY_PACKETS, "{reported}");
        assert_eq!(generator.slots.len(), HISTORY_PACKETS);
    }

    #[test]
    fn a_burst_is_split_over_packets_that_fit_a_datagram() {
        let arrivals: Vec<(u64, u16)> = (0..1500).map(|n| (u64::from(n) * 70, n)).collect();
        let packets = reports(&arrivals);
        assert!(packets.len() > 2);
        let counts: Vec<u8> = packets.iter().map(|p| ours(p).feedback_count).collect();
        assert!(counts.windows(2).all(|w| w[1] == w[0] + 1), "{counts:?}");
    }

    #[test]
    fn reference_time_wraps_at_24_bits_and_keeps_its_sign() {
        let body = |reference: [u8; 3]| {
            let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 9, 0, 1];
            body.extend_from_slice(&reference);
            body.extend_from_slice(&[0, 0x20, 0x01, 4]);
            body
        };
        for (name, reference, want) in [
            ("highest", [0x7f, 0xff, 0xff], 0x7f_ffff),
            ("lowest", [0x80, 0, 0], -0x80_0000),
            ("minus one", [0xff, 0xff, 0xff], -1),
        ] {
            let body = body(reference);
            let feedback = Feedback::parse(&body).unwrap();
            assert_eq!(feedback.reference_time, want, "{name}");
            assert_eq!(feedback.packets().collect::<Vec<_>>(), [(9, Some(i64::from(want) * 64_000 + 1000))], "{name}");
        }
    }

    #[test]
    fn feedback_that_contradicts_itself_is_refused() {
        let head = |count: u16| {
            let mut body = vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 9];
            body.extend_from_slice(&count.to_be_bytes());
            body.extend_from_slice(&[0, 0, 0, 0]);
            body
        };
        for (name, count, tail, ok) in [
            ("nothing reported", 0, vec![], true),
            ("no chunks", 1, vec![], false),
            ("half a chunk", 1, vec![0x20], false),
            ("chunk without its delta", 1, vec![0x20, 1], false),
            ("large delta cut", 1, vec![0x40, 1, 0], false),
            ("chunks of zero length", 1, vec![0, 0, 0, 0, 0, 0], false),
            ("run longer than the count", 1, vec![0x3f, 0xff, 9], true),
            ("reserved symbol", 1, vec![0x60, 1], true),
            ("most a packet can claim", 65_535, [0x1f, 0xff].repeat(9), true),
        ] {
            let body = [head(count), tail].concat();
            let feedback = Feedback::parse(&body);
            assert_eq!(feedback.is_some(), ok, "{name}");
            if let Some(feedback) = feedback {
                assert_eq!(feedback.packets().count(), usize::from(count), "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_read_back(steps in proptest::collection::vec((0u64..300, -20i32..60), 1..300), first in any::<u16>()) {
            let mut arrivals = vec![(0, first)];
            let (mut ms, mut seq) = (0, first);
            for (wait, step) in steps {
                ms += wait;
                seq = seq.wrapping_add(step as u16);
                arrivals.push((ms, seq));
            }
            let mut seen = BTreeMap::new();
            for packet in reports(&arrivals) {
                let read: Vec<_> = ours(&packet).packets().collect();
                prop_assert_eq!(&read, &theirs(&packet));
                seen.extend(read.into_iter().filter_map(|(seq, time)| Some((seq, time?))));
            }
            for (seq, time) in seen {
                let (ms, _) = *arrivals.iter().find(|(_, s)| *s == seq).unwrap();
                prop_assert_eq!(time, 64_000 + ms as i64 * 1000);
            }
        }

        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(feedback) = Feedback::parse(&body) {
                prop_assert_eq!(feedback.packets().count(), usize::from(feedback.count));
            }
        }
    }
}
