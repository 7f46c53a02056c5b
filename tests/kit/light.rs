//! Light WebRTC peers over real UDP: a publisher that makes recognisable media, viewers that check every byte of it.
//!
//! Owns a task per peer, ended when the value is dropped. Their media is not decodable; pictures are the browsers' part.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ams_rtc::dtls::{DtlsIdentity, DtlsRole};
use ams_rtc::ice::IceCredentials;
use ams_rtc::rtcp::{self, Rtcp};
use ams_rtc::rtp::RtpHeader;
use ams_rtc::testpeer::{Received, TestPeer, TestPeerConfig, TestPeerEvent};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::ams::AmsSocket;
use crate::sdp::{self, NodeSdp};
use crate::{eventually, http};

/// Longest wait for one step of signalling.
const STEP: Duration = Duration::from_secs(10);
/// Pictures per second of a light publisher.
const FRAMES_PER_SECOND: u64 = 30;
/// Packets per picture.
const PACKETS_PER_FRAME: u16 = 3;
/// Marks a light publisher's payload.
const MAGIC: [u8; 4] = *b"ams!";

/// What a peer counted so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connected: media may flow.
    pub connected: AtomicBool,
    /// The other end closed.
    pub closed: AtomicBool,
    /// Video packets received and checked.
    pub video: AtomicU64,
    /// Audio packets received and checked.
    pub audio: AtomicU64,
    /// Keyframes received, or sent by a publisher.
    pub keyframes: AtomicU64,
    /// Packets whose content was not what was published.
    pub wrong: AtomicU64,
    /// Numbers missing so far in the video.
    pub missing: AtomicU64,
    /// Sender reports received.
    pub reports: AtomicU64,
    /// Keyframe requests a publisher received.
    pub keyframe_requests: AtomicU64,
    /// NACKs a publisher received.
    pub nacks: AtomicU64,
}

impl Counts {
    /// Reads one counter.
    pub fn get(&self, counter: impl Fn(&Self) -> &AtomicU64) -> u64 {
        counter(self).load(Ordering::Relaxed)
    }
}

fn identity() -> Result<Arc<DtlsIdentity>> {
    // One certificate serves all light peers of a process: making one costs more than a handshake.
    static IDENTITY: std::sync::OnceLock<Arc<DtlsIdentity>> = std::sync::OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(Arc::clone(identity));
    }
    let made = Arc::new(DtlsIdentity::generate()?);
    Ok(Arc::clone(IDENTITY.get_or_init(|| made)))
}

/// A light publisher.
#[derive(Debug)]
pub struct LightPublisher {
    /// What it counted.
    pub counts: Arc<Counts>,
    /// Its socket, when it came by WebSocket.
    pub socket: Option<AmsSocket>,
    /// Its resource, when it came by WHIP.
    pub resource: Option<String>,
    task: JoinHandle<()>,
}

/// A light viewer.
#[derive(Debug)]
pub struct LightViewer {
    /// What it counted.
    pub counts: Arc<Counts>,
    /// Its socket, when it came by WebSocket.
    pub socket: Option<AmsSocket>,
    /// Its resource, when it came by WHEP.
    pub resource: Option<String>,
    /// The node's offer or answer.
    pub description: String,
    task: JoinHandle<()>,
}

impl LightPublisher {
    /// Publishes over the WebSocket and waits for `publish_started`.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn publish(websocket: &str, stream: &str) -> Result<Self> {
        let mut socket = AmsSocket::connect(websocket).await?;
        socket.send(json!({"command": "publish", "streamId": stream, "video": true, "audio": true})).await?;
        socket.command("start", STEP).await?;
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let offer = sdp::publish_offer(&ice, identity.fingerprint());
        socket.send(json!({"command": "takeConfiguration", "streamId": stream, "type": "offer", "sdp": offer})).await?;
        let answer = socket.command("takeConfiguration", STEP).await?;
        let answer = NodeSdp::parse(answer["sdp"].as_str().context("answer without sdp")?)?;
        let (counts, task) = start(ice, &answer, Part::Publisher).await?;
        socket.definition("publish_started", STEP).await?;
        Ok(Self { counts, socket: Some(socket), resource: None, task })
    }

    /// Publishes over WHIP and waits until it is connected.
    ///
    /// # Errors
    /// It was refused, or did not connect in time.
    pub async fn whip(base: &str, app: &str, stream: &str) -> Result<Self> {
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let offer = sdp::publish_offer(&ice, identity.fingerprint());
        let url = format!("{base}/{app}/whip/{stream}");
        let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
        ensure!(answer.status == 201, "WHIP answered {}: {}", answer.status, answer.body);
        let resource = format!("{base}{}", answer.header("location").context("no Location")?);
        let (counts, task) = start(ice, &NodeSdp::parse(&answer.body)?, Part::Publisher).await?;
        wait_connected(&counts).await?;
        Ok(Self { counts, socket: None, resource: Some(resource), task })
    }

    /// Stops sending at once and says nothing, as a machine that lost its network.
    pub fn vanish(&self) {
        self.task.abort();
    }
}

impl LightViewer {
    /// Plays over the WebSocket and waits for `play_started`.
    ///
    /// # Errors
    /// It was refused, or did not start in time.
    pub async fn play(websocket: &str, stream: &str) -> Result<Self> {
        let mut socket = AmsSocket::connect(websocket).await?;
        socket.send(json!({"command": "play", "streamId": stream, "token": "", "room": "", "trackList": []})).await?;
        let first = socket
            .wait("an offer or an error", STEP, |m| m["command"] == "takeConfiguration" || m["command"] == "error")
            .await?;
        ensure!(first["command"] == "takeConfiguration", "play was refused: {first}");
        Self::answer(socket, stream, &first).await
    }

    /// Answers an offer that came on a socket.
    ///
    /// # Errors
    /// It did not start in time.
    pub async fn answer(mut socket: AmsSocket, stream: &str, message: &serde_json::Value) -> Result<Self> {
        let description = message["sdp"].as_str().context("offer without sdp")?.to_owned();
        let offer = NodeSdp::parse(&description)?;
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let answer = sdp::play_answer(&offer, &ice, identity.fingerprint());
        socket
            .send(json!({"command": "takeConfiguration", "streamId": stream, "type": "answer", "sdp": answer}))
            .await?;
        let (counts, task) = start(ice, &offer, Part::viewer(&offer)).await?;
        socket.definition("play_started", STEP).await?;
        Ok(Self { counts, socket: Some(socket), resource: None, description, task })
    }

    /// Plays over WHEP and waits until it is connected.
    ///
    /// # Errors
    /// It was refused, or did not connect in time.
    pub async fn whep(base: &str, app: &str, stream: &str) -> Result<Self> {
        let (ice, identity) = (IceCredentials::random(), identity()?);
        let offer = sdp::play_offer(&ice, identity.fingerprint());
        let url = format!("{base}/{app}/whep/{stream}");
        let answer = http::send("POST", &url, &[("content-type", "application/sdp")], offer).await?;
        ensure!(answer.status == 201, "WHEP answered {}: {}", answer.status, answer.body);
        let resource = format!("{base}{}", answer.header("location").context("no Location")?);
        let description = NodeSdp::parse(&answer.body)?;
        let (counts, task) = start(ice, &description, Part::viewer(&description)).await?;
        wait_connected(&counts).await?;
        Ok(Self { counts, socket: None, resource: Some(resource), description: answer.body, task })
    }

    /// Waits until at least this many more video packets came.
    ///
    /// # Errors
    /// They did not within `limit`.
    pub async fn wait_video(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.counts.get(|c| &c.video) + more;
        eventually(&format!("{more} more video packets"), limit, || async {
            (self.counts.get(|c| &c.video) >= goal).then_some(())
        })
        .await
    }

    /// Stops at once and says nothing.
    pub fn vanish(&self) {
        self.task.abort();
    }
}

impl Drop for LightPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for LightViewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn wait_connected(counts: &Counts) -> Result<()> {
    eventually("the peer connects", STEP, || async { counts.connected.load(Ordering::Relaxed).then_some(()) }).await
}

/// What a peer does with media.
enum Part {
    Publisher,
    Viewer { audio: Vec<u32>, video: Vec<u32>, rtx: Vec<u32> },
}

impl Part {
    fn viewer(description: &NodeSdp) -> Self {
        let of = |kind: &str| {
            description.media.iter().filter(|m| m.kind == kind).flat_map(|m| m.ssrcs.first().copied()).collect()
        };
        let rtx = description.media.iter().filter_map(|m| m.fid).map(|(_, rtx)| rtx).collect();
        Self::Viewer { audio: of("audio"), video: of("video"), rtx }
    }
}

async fn start(ice: IceCredentials, node: &NodeSdp, part: Part) -> Result<(Arc<Counts>, JoinHandle<()>)> {
    let server = node.candidate()?;
    let local: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { "[::]:0".parse()? };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    let config = TestPeerConfig {
        local: ice,
        remote: node.ice.clone(),
        remote_fingerprint: node.fingerprint.clone(),
        server,
        role: DtlsRole::Client,
        data_channel: false,
    };
    let peer = TestPeer::new(Instant::now(), &identity()?, config);
    let counts = Arc::new(Counts::default());
    let task = tokio::spawn(run(peer, socket, part, Arc::clone(&counts)));
    Ok((counts, task))
}

async fn run(mut peer: TestPeer, socket: UdpSocket, part: Part, counts: Arc<Counts>) {
    let mut source = MediaSource::new();
    let mut check = MediaCheck::default();
    let mut buffer = vec![0; 2048];
    let mut frame = tokio::time::interval(Duration::from_millis(1000 / FRAMES_PER_SECOND));
    frame.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        while let Some(datagram) = peer.poll_transmit() {
            let _ = socket.send(&datagram).await;
        }
        while let Some(event) = peer.poll_event() {
            match event {
                TestPeerEvent::Connected { .. } => counts.connected.store(true, Ordering::Relaxed),
                TestPeerEvent::Closed => counts.closed.store(true, Ordering::Relaxed),
                _ => {}
            }
        }
        let timeout =
            peer.poll_timeout().map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let Ok(len) = received else { continue };
                let datagram = buffer.get_mut(..len).unwrap_or_default();
                match peer.handle_datagram(Instant::now(), datagram) {
                    Received::Rtp(packet) => check.packet(packet, &part, &counts),
                    Received::Rtcp(packet) => feedback(packet, &mut source, &counts),
                    Received::Nothing => {}
                }
            }
            () = tokio::time::sleep(timeout) => peer.handle_timeout(Instant::now()),
            _ = frame.tick(), if matches!(part, Part::Publisher) => {
                if peer.is_connected() {
                    for packet in source.frame(&counts) {
                        if let Ok(sealed) = peer.seal_rtp(packet.index, &packet.bytes, 12) {
                            let _ = socket.send(&sealed).await;
                        }
                    }
                    if let Some(report) = source.report()
                        && let Ok(sealed) = peer.seal_rtcp(&report)
                    {
                        let _ = socket.send(&sealed).await;
                    }
                }
            }
        }
    }
}

fn feedback(packet: &[u8], source: &mut MediaSource, counts: &Counts) {
    for item in rtcp::parse(packet).flatten() {
        match item {
            Rtcp::Pli { .. } | Rtcp::Fir { .. } => {
                counts.keyframe_requests.fetch_add(1, Ordering::Relaxed);
                source.keyframe_due = true;
            }
            Rtcp::Nack { .. } => {
                counts.nacks.fetch_add(1, Ordering::Relaxed);
            }
            Rtcp::SenderReport(_) => {
                counts.reports.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

struct Outgoing {
    index: u64,
    bytes: Vec<u8>,
}

/// Makes a publisher's packets: VP8-shaped pictures and Opus-shaped sound, each with its own number inside.
struct MediaSource {
    frame_no: u64,
    video_seq: u64,
    audio_seq: u64,
    keyframe_due: bool,
    started: Instant,
}

impl MediaSource {
    fn new() -> Self {
        Self {
            frame_no: 0,
            video_seq: u64::from(rand::random::<u16>() & 0x7fff),
            audio_seq: u64::from(rand::random::<u16>() & 0x7fff),
            keyframe_due: true,
            started: Instant::now(),
        }
    }

    fn frame(&mut self, counts: &Counts) -> Vec<Outgoing> {
        let mut out = Vec::new();
        let keyframe = std::mem::take(&mut self.keyframe_due);
        if keyframe {
            counts.keyframes.fetch_add(1, Ordering::Relaxed);
        }
        let timestamp = (self.frame_no * 3000 & 0xffff_ffff) as u32;
        for n in 0..PACKETS_PER_FRAME {
            let marker = n + 1 == PACKETS_PER_FRAME;
            let mut bytes = rtp(96, marker, self.video_seq, timestamp, sdp::VIDEO_SSRC);
            // VP8 payload descriptor: S on the first packet, no extensions.
            bytes.push(if n == 0 { 0x10 } else { 0x00 });
            if n == 0 {
                // Frame tag: P bit clear for a keyframe; then start code and 640x480.
                bytes.extend_from_slice(&[
                    if keyframe { 0x10 } else { 0x11 },
                    0,
                    0,
                    0x9d,
                    0x01,
                    0x2a,
                    0x80,
                    0x02,
                    0xe0,
                    0x01,
                ]);
            }
            body(&mut bytes, self.video_seq, 900);
            out.push(Outgoing { index: self.video_seq, bytes });
            self.video_seq += 1;
        }
        // 20 ms packets beside 33 ms pictures: five for three.
        let audio = if self.frame_no % 3 == 0 { 1 } else { 2 };
        for _ in 0..audio {
            let mut bytes =
                rtp(111, false, self.audio_seq, (self.audio_seq * 960 & 0xffff_ffff) as u32, sdp::AUDIO_SSRC);
            body(&mut bytes, self.audio_seq, 60);
            out.push(Outgoing { index: self.audio_seq, bytes });
            self.audio_seq += 1;
        }
        self.frame_no += 1;
        out
    }

    /// A sender report for each track, once a second.
    fn report(&self) -> Option<Vec<u8>> {
        if self.frame_no % FRAMES_PER_SECOND != 1 {
            return None;
        }
        let elapsed = self.started.elapsed();
        let ntp =
            ((3_900_000_000 + elapsed.as_secs()) << 32) | ((u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000);
        let mut out = Vec::new();
        for (ssrc, rtp_timestamp) in [(sdp::VIDEO_SSRC, self.frame_no * 3000), (sdp::AUDIO_SSRC, self.audio_seq * 960)]
        {
            let info = rtcp::SenderInfo {
                ssrc: ams_types::Ssrc(ssrc),
                ntp,
                rtp_timestamp: (rtp_timestamp & 0xffff_ffff) as u32,
                packets: 0,
                octets: 0,
            };
            rtcp::write_sender_report(&mut out, &info, &[]);
        }
        Some(out)
    }
}

fn rtp(pt: u8, marker: bool, seq: u64, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, pt | if marker { 0x80 } else { 0 }];
    bytes.extend_from_slice(&((seq & 0xffff) as u16).to_be_bytes());
    bytes.extend_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes
}

/// Content that tells whether it was changed: a mark, a number, and bytes that follow from it.
fn body(bytes: &mut Vec<u8>, number: u64, len: usize) {
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend((0..len).map(|n| (number as usize).wrapping_mul(31).wrapping_add(n) as u8));
}

fn body_is_right(bytes: &[u8]) -> Option<u64> {
    let at = bytes.windows(4).position(|w| w == MAGIC)?;
    let rest = bytes.get(at + 4..)?;
    let number = u64::from_be_bytes(*rest.first_chunk()?);
    let fine =
        rest.get(8..)?.iter().enumerate().all(|(n, b)| *b == (number as usize).wrapping_mul(31).wrapping_add(n) as u8);
    fine.then_some(number)
}

/// Checks what a viewer gets.
#[derive(Default)]
struct MediaCheck {
    highest: Option<u16>,
}

impl MediaCheck {
    fn packet(&mut self, packet: &[u8], part: &Part, counts: &Counts) {
        let Part::Viewer { audio, video, rtx } = part else { return };
        let Ok(header) = RtpHeader::parse(packet) else {
            counts.wrong.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let payload = packet.get(header.payload.clone()).unwrap_or_default();
        if body_is_right(payload).is_none() {
            counts.wrong.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if audio.contains(&header.ssrc.0) {
            counts.audio.fetch_add(1, Ordering::Relaxed);
        } else if video.contains(&header.ssrc.0) {
            counts.video.fetch_add(1, Ordering::Relaxed);
            // First payload byte S, frame tag P clear: a keyframe starts.
            if payload.first() == Some(&0x10) && payload.get(1).is_some_and(|b| b & 1 == 0) {
                counts.keyframes.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(highest) = self.highest {
                let step = header.seq.wrapping_sub(highest);
                if (1..0x8000).contains(&step) {
                    counts.missing.fetch_add(u64::from(step - 1), Ordering::Relaxed);
                    self.highest = Some(header.seq);
                } else {
                    // A late one fills its gap.
                    counts.missing.fetch_sub(1.min(counts.missing.load(Ordering::Relaxed)), Ordering::Relaxed);
                }
            } else {
                self.highest = Some(header.seq);
            }
        } else if !rtx.contains(&header.ssrc.0) {
            counts.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
}
