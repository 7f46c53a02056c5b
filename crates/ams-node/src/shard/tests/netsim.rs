//! A viewer behind a bad network, in virtual time: one shard, real SRTP, a path that loses, delays, reorders and chokes.
//!
//! Owns the path and a viewer that does what a browser's transport does: NACKs, transport-wide feedback, reports, and a
//! decoder that shows a frame only when everything before it came. Every run replays from its seed.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use ams_rtc::rtcp::{self, ReportBlock, SenderInfo};
use ams_rtc::rtp::HeaderFields;
use ams_rtc::twcc::FeedbackGenerator;
use ams_types::{Pt, Ssrc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::harness::{Got, VIDEO, World, ms};
use super::{A, RTX, V};
use crate::shard::core::PUMPS_PER_TICK;
use crate::shard::fan_out::PUMP;

/// How packets are lost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// Each with this chance.
    Random(f64),
    /// Gilbert-Elliott: chances to enter and to leave a burst, in which everything is lost.
    Bursts(f64, f64),
}

/// One direction of a network path.
#[derive(Debug)]
pub(super) struct Path {
    rng: StdRng,
    /// Bits per second; what does not fit waits in a queue of [`Path::queue`].
    pub(super) rate: Option<u64>,
    /// One way, without queueing.
    delay: Duration,
    /// Share of packets that take up to 30 ms more and so are overtaken.
    pub(super) reorder: f64,
    pub(super) loss: Loss,
    queue: Duration,
    in_burst: bool,
    busy_until: Option<Instant>,
    flying: BinaryHeap<std::cmp::Reverse<(Instant, u64, Vec<u8>)>>,
    count: u64,
}

impl Path {
    pub(super) fn new(seed: u64, delay: Duration, loss: Loss) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            rate: None,
            delay,
            reorder: 0.0,
            loss,
            queue: ms(300),
            in_burst: false,
            busy_until: None,
            flying: BinaryHeap::new(),
            count: 0,
        }
    }

    fn push(&mut self, now: Instant, datagram: Vec<u8>) {
        let lost = match self.loss {
            Loss::Random(chance) => self.rng.random_bool(chance),
            Loss::Bursts(enter, leave) => {
                self.in_burst = self.rng.random_bool(if self.in_burst { 1.0 - leave } else { enter });
                self.in_burst
            }
        };
        if lost {
            return;
        }
        let mut at = now;
        if let Some(rate) = self.rate {
            let start = self.busy_until.map_or(now, |busy| busy.max(now));
            if start - now > self.queue {
                return;
            }
            let bits = (datagram.len() as u64 + 28) * 8;
            at = start + Duration::from_nanos(bits * 1_000_000_000 / rate);
            self.busy_until = Some(at);
        }
        at += self.delay;
        if self.reorder > 0.0 && self.rng.random_bool(self.reorder) {
            at += Duration::from_micros(self.rng.random_range(1000..30_000));
        }
        self.count += 1;
        self.flying.push(std::cmp::Reverse((at, self.count, datagram)));
    }

    fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.flying.peek().filter(|next| next.0.0 <= now)?;
        self.flying.pop().map(|next| next.0.2)
    }
}

/// A camera: 30 frames a second in one or more layers.
pub(super) struct Source {
    client: usize,
    /// Bits per second of each layer.
    layers: Vec<u64>,
    started: Instant,
    frame: u64,
    seqs: Vec<u64>,
    plis_seen: usize,
    keyframe_wanted: bool,
    keyframe_interval: u64,
    /// Pictures are of three temporal layers.
    temporal: bool,
    /// The last keyframe.
    key: u64,
    /// Pictures of the lowest temporal layer so far.
    lowest: u64,
    reported_at: Option<Instant>,
}

const PACKET_LEN: usize = 1100;
/// Layer, frame, needed frame.
const TRAILER_LEN: usize = 1 + 8 + 8;
const FRAME: Duration = Duration::from_nanos(33_333_333);

impl Source {
    pub(super) fn new(world: &mut World, layers: &[u64]) -> Self {
        let client = world.simulcaster(0, "s", layers.len() as u32);
        Self {
            client,
            layers: layers.to_vec(),
            started: world.now,
            frame: 0,
            seqs: vec![70_000; layers.len()],
            plis_seen: 0,
            keyframe_wanted: true,
            keyframe_interval: u64::MAX,
            temporal: false,
            key: 0,
            lowest: 0,
            reported_at: None,
        }
    }

    /// Temporal layer of a picture, whether it needs the lowest layer alone, and how far back the picture is that it needs.
    fn place(&self) -> (u8, bool, u64) {
        match (self.frame - self.key) % 4 {
            _ if self.frame == self.key => (0, false, 0),
            _ if !self.temporal => (0, false, 1),
            0 => (0, false, 4),
            1 => (2, true, 1),
            2 => (1, true, 2),
            _ => (2, false, 1),
        }
    }

    /// Sends the frames that are due. All layers answer a keyframe request together.
    fn run(&mut self, world: &mut World) {
        let asked = world.clients[self.client].plis.len();
        self.keyframe_wanted |= asked > std::mem::replace(&mut self.plis_seen, asked);
        while self.started + FRAME * u32::try_from(self.frame).unwrap() <= world.now {
            let key = std::mem::take(&mut self.keyframe_wanted) || self.frame.is_multiple_of(self.keyframe_interval);
            if key {
                self.key = self.frame;
            }
            let (temporal, needs_lowest, back) = self.place();
            // TL0PICIDX grows with the pictures of the lowest temporal layer.
            self.lowest += u64::from(temporal == 0);
            for (layer, rate) in self.layers.iter().enumerate() {
                let bytes = rate / 8 / 30 * if key { 4 } else { 1 };
                let count = bytes.div_ceil(PACKET_LEN as u64).max(1);
                let size = (bytes / count) as usize;
                for n in 0..count {
                    let seq = self.seqs[layer];
                    self.seqs[layer] += 1;
                    let fields = HeaderFields {
                        marker: n + 1 == count,
                        pt: Pt(0),
                        seq: (seq & 0xffff) as u16,
                        timestamp: (self.frame * 3000) as u32,
                        ssrc: Ssrc(VIDEO.0 + layer as u32),
                    };
                    let ids =
                        Ids { layer: layer as u8, frame: self.frame, lowest: self.lowest, temporal, needs_lowest };
                    let payload = frame_part(ids, self.frame - back, n, key, size);
                    world.send_rtp(self.client, seq, fields, &payload);
                }
            }
            self.frame += 1;
        }
        if self.reported_at.is_none_or(|at| world.now - at >= Duration::from_secs(1)) {
            self.reported_at = Some(world.now);
            let since = world.now - self.started;
            let info = |layer: u32| SenderInfo {
                ssrc: Ssrc(VIDEO.0 + layer),
                ntp: (3_900_000_000 << 32) + (since.as_secs_f64() * 4_294_967_296.0) as u64,
                rtp_timestamp: (since.as_secs_f64() * 90_000.0) as u32,
                packets: 0,
                octets: 0,
            };
            let mut compound = Vec::new();
            (0..self.layers.len() as u32).for_each(|n| rtcp::write_sender_report(&mut compound, &info(n), &[]));
            let sealed = world.clients[self.client].peer.seal_rtcp(&compound).unwrap();
            world.carry(self.client, sealed);
        }
    }
}

/// The numbers of a picture.
#[derive(Clone, Copy)]
struct Ids {
    layer: u8,
    frame: u64,
    lowest: u64,
    temporal: u8,
    needs_lowest: bool,
}

/// VP8: descriptor with picture id, TL0PICIDX and temporal layer, frame tag, then layer, frame number and the number of
/// the frame it needs.
fn frame_part(ids: Ids, needs: u64, n: u64, key: bool, len: usize) -> Vec<u8> {
    let start = n == 0;
    // Every layer counts its pictures from elsewhere.
    let [high, low] = ((ids.frame + 10_000 * u64::from(ids.layer)) as u16).to_be_bytes();
    let lowest = (ids.lowest + 50 * u64::from(ids.layer)) as u8;
    let temporal = ids.temporal << 6 | u8::from(ids.needs_lowest) << 5;
    let mut payload = vec![0x80 | if start { 0x10 } else { 0 }, 0xe0, 0x80 | high, low, lowest, temporal];
    if start {
        payload.push(u8::from(!key));
        if key {
            payload.extend([0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
        }
    } else {
        payload.push(0xff);
    }
    payload.resize(len.max(payload.len() + 24), 0);
    let at = payload.len() - TRAILER_LEN;
    payload[at] = ids.layer;
    payload[at + 1..at + 9].copy_from_slice(&ids.frame.to_be_bytes());
    payload[at + 9..].copy_from_slice(&needs.to_be_bytes());
    payload
}

/// A packet of a frame, as the viewer reads it.
#[derive(Clone, Copy, Debug)]
struct Part {
    starts: bool,
    ends: bool,
    key: bool,
    layer: u8,
    picture: u16,
    lowest: u8,
    temporal: u8,
    frame: u64,
    needs: u64,
}

impl Part {
    fn of(got: &Got) -> Self {
        let payload = &got.payload;
        let starts = payload[0] & 0x10 != 0;
        let (_, trailer) = payload.split_at(payload.len() - TRAILER_LEN);
        let number = |at: usize| u64::from_be_bytes(trailer[at..at + 8].try_into().unwrap());
        Self {
            starts,
            ends: got.marker,
            key: starts && payload[6] & 1 == 0,
            layer: trailer[0],
            picture: u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff,
            lowest: payload[4],
            temporal: payload[5] >> 6,
            frame: number(1),
            needs: number(9),
        }
    }
}

/// A frame that was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) at: Instant,
    pub(super) layer: u8,
    frame: u64,
}

/// A browser that watches.
pub(super) struct Watcher {
    client: usize,
    media: Ssrc,
    feedback: FeedbackGenerator,
    /// What came before was not carried by the path.
    is_far: bool,
    seen: usize,
    /// Packets not shown yet, by extended number.
    parts: BTreeMap<u64, Part>,
    next: Option<u64>,
    highest: u64,
    /// Missing numbers: since when, asked when, how often.
    missing: BTreeMap<u64, (Instant, Option<Instant>, u32)>,
    /// Numbers that came, once.
    pub(super) came: BTreeSet<u64>,
    pub(super) doubles: u64,
    pub(super) shown: Vec<Shown>,
    /// Number after the last picture shown, and its first packet.
    picture: Option<(u64, Part)>,
    stuck_since: Option<Instant>,
    asked_keyframe_at: Option<Instant>,
    /// A browser learns it from its own reports; here it is told.
    rtt: Duration,
    reported_at: Option<Instant>,
}

impl Watcher {
    pub(super) fn new(world: &mut World) -> Self {
        let client = world.viewer(0, "s", true).0;
        Self {
            client,
            media: Ssrc(0x10_0000 + client as u32),
            feedback: FeedbackGenerator::new(Ssrc(9)),
            is_far: false,
            seen: 0,
            parts: BTreeMap::new(),
            next: None,
            highest: 0,
            missing: BTreeMap::new(),
            came: BTreeSet::new(),
            doubles: 0,
            shown: Vec::new(),
            picture: None,
            stuck_since: None,
            asked_keyframe_at: None,
            rtt: ms(50),
            reported_at: None,
        }
    }

    /// Reads what came since the last time.
    fn read(&mut self, world: &World) {
        let got: Vec<Got> = world.clients[self.client].rtp[self.seen..].to_vec();
        self.seen += got.len();
        for mut got in got {
            if let Some(seq) = got.transport_seq.filter(|_| self.is_far) {
                self.feedback.on_packet(world.now, got.ssrc, seq);
            }
            match got.pt.0 {
                V => {}
                RTX => {
                    if got.payload.len() < 16 {
                        continue;
                    }
                    got.seq = u16::from_be_bytes([got.payload[0], got.payload[1]]);
                    got.payload.drain(..2);
                }
                A => continue,
                other => panic!("payload type {other}"),
            }
            self.packet(world.now, &got);
        }
        self.show(world.now);
    }

    fn packet(&mut self, now: Instant, got: &Got) {
        let number = if self.highest == 0 {
            0x1_0000 + u64::from(got.seq)
        } else {
            let step = got.seq.wrapping_sub((self.highest & 0xffff) as u16).cast_signed();
            self.highest.checked_add_signed(i64::from(step)).unwrap()
        };
        if self.highest == 0 {
            (self.next, self.highest) = (Some(number), number);
        }
        for gap in self.highest + 1..number {
            self.missing.insert(gap, (now, None, 0));
        }
        self.highest = self.highest.max(number);
        self.missing.remove(&number);
        if !self.came.insert(number) {
            self.doubles += 1;
        } else if self.next.is_some_and(|next| number >= next) {
            self.parts.insert(number, Part::of(got));
        }
    }

    /// Shows every frame that is whole and whose forerunners are.
    fn show(&mut self, now: Instant) {
        while let Some(next) = self.next {
            let whole = self.whole_frame(next);
            match whole {
                Some((end, layer)) => {
                    let part = self.parts[&next];
                    if let Some((expected, last)) = self.picture.replace((end, part))
                        && expected == next
                    {
                        assert_eq!(part.picture, (last.picture + 1) & 0x7fff, "the decoder would think a picture lost");
                        assert_eq!(part.lowest, last.lowest.wrapping_add(u8::from(part.temporal == 0)), "TL0PICIDX");
                    }
                    let mut former = self.shown.iter().rev().take(10);
                    let has_it = part.key || former.any(|s| (s.layer, s.frame) == (layer, part.needs));
                    assert!(has_it, "picture {} of layer {layer} needs {}, which never came", part.frame, part.needs);
                    self.shown.push(Shown { at: now, layer, frame: part.frame });
                    self.next = Some(end);
                    self.parts = self.parts.split_off(&end);
                    self.stuck_since = None;
                }
                None => {
                    // A keyframe that is whole saves those who lost something before it.
                    let keys: Vec<u64> = self.parts.range(next + 1..).filter(|(_, p)| p.key).map(|(n, _)| *n).collect();
                    let Some(key) = keys.into_iter().find(|key| self.whole_frame(*key).is_some()) else {
                        let behind = self.parts.len() > 1 || !self.missing.is_empty();
                        if behind {
                            self.stuck_since.get_or_insert(now);
                        }
                        return;
                    };
                    self.next = Some(key);
                    self.missing = self.missing.split_off(&key);
                }
            }
        }
    }

    /// The number after the frame that starts with this packet, if all of it is here; and its layer.
    fn whole_frame(&self, first: u64) -> Option<(u64, u8)> {
        let start = self.parts.get(&first).filter(|part| part.starts)?;
        let mut at = first;
        loop {
            // A picture that was given up is followed by the start of another.
            let part = self.parts.get(&at).filter(|part| at == first || !part.starts)?;
            at += 1;
            if part.ends {
                return Some((at, start.layer));
            }
        }
    }

    /// What the browser says now.
    fn say(&mut self, now: Instant, last_report: Option<(u64, Instant)>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut seqs = Vec::new();
        self.missing.retain(|_, (_, _, times)| *times < 10);
        for (number, (since, asked, times)) in &mut self.missing {
            let due = match asked {
                None => now - *since >= ms(5),
                Some(asked) => now - *asked >= self.rtt + ms(10),
            };
            if due {
                (*asked, *times) = (Some(now), *times + 1);
                seqs.push((*number & 0xffff) as u16);
            }
        }
        for some in seqs.chunks(200) {
            rtcp::write_nack(&mut out, Ssrc(9), self.media, some);
        }
        while self.feedback.poll(now, &mut out) {}
        if self.stuck_since.is_some_and(|since| now - since > ms(300))
            && self.asked_keyframe_at.is_none_or(|at| now - at > ms(500))
        {
            self.asked_keyframe_at = Some(now);
            rtcp::write_pli(&mut out, Ssrc(9), self.media);
        }
        if self.reported_at.is_none_or(|at| now - at >= Duration::from_secs(1)) {
            self.reported_at = Some(now);
            let report = ReportBlock {
                ssrc: self.media,
                fraction_lost: 0,
                lost: 0,
                highest_seq: 0,
                jitter: 0,
                last_sr: last_report.map_or(0, |(ntp, _)| rtcp::ntp_middle(ntp)),
                delay_since_last_sr: last_report
                    .map_or(0, |(_, at)| (now.duration_since(at).as_secs_f64() * 65_536.0) as u32),
            };
            rtcp::write_receiver_report(&mut out, Ssrc(9), &[report]);
        }
        (!out.is_empty()).then_some(out)
    }

    /// The longest time between two frames from `from` on.
    pub(super) fn longest_still(&self, from: Instant, to: Instant) -> Duration {
        let at: Vec<Instant> = self.shown.iter().map(|s| s.at).filter(|at| (from..=to).contains(at)).collect();
        let ends = [from].into_iter().chain(at).chain([to]).collect::<Vec<_>>();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Share of the numbers given out so far, but the last few, that came.
    pub(super) fn arrived(&self) -> f64 {
        let (Some(first), Some(last)) = (self.came.first(), self.came.last()) else { return 0.0 };
        let settled = last.saturating_sub(100);
        self.came.range(..settled).count() as f64 / (settled - first) as f64
    }
}

/// A stream, a viewer, and the network between them.
pub(super) struct Net {
    pub(super) world: World,
    pub(super) source: Source,
    pub(super) watcher: Watcher,
    pub(super) down: Path,
    pub(super) up: Path,
    steps: u32,
}

impl Net {
    pub(super) fn new(seed: u64, layers: &[u64], rtt: Duration, loss: Loss) -> Self {
        let mut world = World::new(1);
        let mut source = Source::new(&mut world, layers);
        source.run(&mut world);
        let mut watcher = Watcher::new(&mut world);
        watcher.rtt = rtt;
        watcher.read(&world);
        watcher.is_far = true;
        Self {
            world,
            source,
            watcher,
            down: Path::new(seed, rtt / 2, loss),
            up: Path::new(seed + 1_000_000, rtt / 2, Loss::Random(0.0)),
            steps: 0,
        }
    }

    /// Lets time pass, a millisecond at a time.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.world.now + time;
        let (viewer, publisher) = (self.watcher.client, self.source.client);
        while self.world.now < until {
            self.world.now += ms(1);
            let now = self.world.now;
            self.steps += 1;
            self.source.run(&mut self.world);
            if ms(self.steps.into()).as_millis().is_multiple_of(PUMP.as_millis()) {
                self.world.shards[0].core.pump(now);
            }
            if ms(self.steps.into()).as_millis().is_multiple_of((PUMP * PUMPS_PER_TICK).as_millis()) {
                self.world.shards[0].core.tick(now);
                for client in [viewer, publisher] {
                    self.world.clients[client].peer.handle_timeout(now);
                    while let Some(datagram) = self.world.clients[client].peer.poll_transmit() {
                        self.world.carry(client, datagram);
                    }
                }
            }
            for (to, datagram) in self.world.take_sent(0) {
                if to == self.world.clients[viewer].address {
                    self.down.push(now, datagram);
                } else {
                    self.world.arrive(publisher, datagram);
                }
            }
            while let Some(datagram) = self.down.pop(now) {
                self.world.arrive(viewer, datagram);
            }
            self.watcher.read(&self.world);
            let last_report = self.world.clients[viewer].last_report;
            if let Some(compound) = self.watcher.say(now, last_report)
                && let Ok(sealed) = self.world.clients[viewer].peer.seal_rtcp(&compound)
            {
                self.up.push(now, sealed);
            }
            while let Some(datagram) = self.up.pop(now) {
                self.world.carry(viewer, datagram);
            }
        }
    }
}

#[test]
fn what_a_path_loses_comes_again() {
    for (name, rtt, loss, least) in [
        ("1 %, 20 ms", 20, Loss::Random(0.01), 0.9999),
        ("5 %, 50 ms", 50, Loss::Random(0.05), 0.999),
        ("10 %, 50 ms", 50, Loss::Random(0.10), 0.999),
        ("5 %, 150 ms", 150, Loss::Random(0.05), 0.999),
        ("10 %, 300 ms", 300, Loss::Random(0.10), 0.999),
        ("bursts, 50 ms", 50, Loss::Bursts(0.01, 0.2), 0.999),
        ("bursts, 150 ms", 150, Loss::Bursts(0.01, 0.2), 0.999),
    ] {
        for seed in 1..=3 {
            let mut net = Net::new(seed, &[1_500_000], ms(rtt), loss);
            net.run(Duration::from_secs(20));
            let (arrived, begun) = (net.watcher.arrived(), net.world.now - Duration::from_secs(19));
            let still = net.watcher.longest_still(begun, net.world.now);
            println!(
                "{name}, seed {seed}: {:.5} arrived, longest still {still:?}, {} frames, {} doubles, {} plis",
                arrived,
                net.watcher.shown.len(),
                net.watcher.doubles,
                net.world.clients[net.source.client].plis.len()
            );
            assert!(arrived >= least, "{name}, seed {seed}: {arrived}");
        }
    }
}

#[test]
fn packets_that_overtake_each_other_cost_no_picture() {
    for seed in 1..=5 {
        for (share, loss) in [(0.05, 0.0), (0.3, 0.0), (0.1, 0.02)] {
            let mut net = Net::new(seed, &[1_500_000], ms(50), Loss::Random(loss));
            net.down.reorder = share;
            net.run(Duration::from_secs(20));
            let begun = net.world.now - Duration::from_secs(19);
            let (arrived, still) = (net.watcher.arrived(), net.watcher.longest_still(begun, net.world.now));
            let (shown, plis) = (net.watcher.shown.len(), net.world.clients[net.source.client].plis.len());
            let name = format!("seed {seed}, {share} late, {loss} lost");
            println!("{name}: {arrived:.5} arrived, longest still {still:?}, {shown} frames, {plis} plis");
            assert!(arrived >= 0.9999, "{name}: {arrived}");
            assert!(still <= ms(if loss == 0.0 { 100 } else { 300 }), "{name}: {still:?}");
            assert!(shown >= 590, "{name}: {shown} frames of 600");
        }
    }
}

#[test]
fn a_narrow_path_gets_the_lowest_layer_and_the_top_comes_back() {
    const LAYERS: [u64; 3] = [150_000, 500_000, 1_500_000];
    for seed in 1..=10 {
        let mut net = Net::new(seed, &LAYERS, ms(50), Loss::Random(if seed % 2 == 0 { 0.01 } else { 0.0 }));
        net.down.rate = Some(4_000_000);
        net.run(Duration::from_secs(10) + ms(37 * seed));
        let layer = |net: &Net| net.watcher.shown.last().map(|shown| shown.layer);
        assert_eq!(layer(&net), Some(2), "seed {seed}: a wide path carries the top");
        let narrowed = net.world.now;
        net.down.rate = Some(500_000);
        net.run(Duration::from_secs(20));
        let still = net.watcher.longest_still(narrowed, net.world.now);
        let frames = net.watcher.shown.iter().filter(|s| s.at > narrowed).count();
        println!("seed {seed}: narrow: longest still {still:?}, {frames} frames, layer {:?}", layer(&net));
        assert_eq!(layer(&net), Some(0), "seed {seed}");
        assert!(still <= ms(500), "seed {seed}: {still:?}");
        let widened = net.world.now;
        net.down.rate = Some(4_000_000);
        net.run(Duration::from_secs(10));
        let top = net.watcher.shown.iter().find(|s| s.at > widened && s.layer == 2).map(|s| s.at - widened);
        let still = net.watcher.longest_still(widened, net.world.now);
        println!("seed {seed}: wide again: top after {top:?}, longest still {still:?}");
        assert!(top.is_some() && layer(&net) == Some(2), "seed {seed}: {:?}", layer(&net));
        assert!(still <= ms(500), "seed {seed}: {still:?}");
    }
}

#[test]
fn a_path_that_wavered_is_climbed_soon_once_it_is_wide() {
    for seed in 1..=10 {
        let mut net = Net::new(seed, &[150_000, 500_000, 1_500_000], ms(50), Loss::Random(0.0));
        for _ in 0..12 {
            for rate in [900_000, 350_000] {
                net.down.rate = Some(rate);
                net.run(ms(2500 + 100 * seed));
            }
        }
        let widened = net.world.now;
        net.down.rate = Some(4_000_000);
        net.run(Duration::from_secs(10));
        let top = net.watcher.shown.iter().find(|s| s.at > widened && s.layer == 2).map(|s| s.at - widened);
        println!("seed {seed}: top after {top:?}");
        assert!(top.is_some(), "seed {seed}: layer {:?}", net.watcher.shown.last().map(|shown| shown.layer));
    }
}

#[test]
fn a_narrow_path_gets_fewer_pictures_of_the_only_layer() {
    for seed in 1..=5 {
        let mut net = Net::new(seed, &[1_500_000], ms(50), Loss::Random(if seed % 2 == 0 { 0.01 } else { 0.0 }));
        net.source.temporal = true;
        net.down.rate = Some(4_000_000);
        net.run(Duration::from_secs(10) + ms(37 * seed));
        for (name, rate, seconds, fps) in
            [("half", 1_000_000, 20, 13..=16), ("quarter", 600_000, 20, 6..=8), ("whole", 4_000_000, 10, 26..=30)]
        {
            let changed = net.world.now;
            let plis = net.world.clients[net.source.client].plis.len();
            net.down.rate = Some(rate);
            net.run(Duration::from_secs(seconds));
            let still = net.watcher.longest_still(changed, net.world.now);
            let settled = net.world.now - Duration::from_secs(4);
            let pictures = net.watcher.shown.iter().filter(|s| s.at > settled).count() / 4;
            let plis = net.world.clients[net.source.client].plis.len() - plis;
            println!(
                "seed {seed}, {name}: {pictures} pictures a second, longest still {still:?}, {plis} keyframes asked for"
            );
            assert!(fps.contains(&pictures), "seed {seed}, {name}: {pictures} pictures a second");
            // One keyframe takes a third of a second on the narrowest.
            assert!(still <= ms(1000), "seed {seed}, {name}: {still:?}");
        }
    }
}
