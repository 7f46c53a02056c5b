//! The task of one light peer: its UDP socket, its transport, and what it does with media.
//!
//! Owns the socket, which stays open while the peer is silent: nothing tells the node that nobody listens.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ams_rtc::dtls::{DtlsIdentity, DtlsRole};
use ams_rtc::ice::{DatagramKind, IceCredentials, classify};
use ams_rtc::rtcp::{self, Rtcp};
use ams_rtc::testpeer::{Received, TestPeer, TestPeerConfig, TestPeerEvent};
use ams_types::Ssrc;
use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::check::MediaCheck;
use super::source::{FRAMES_PER_SECOND, HEADER_LEN, MediaSource, Outgoing};
use super::{Control, Counts, Habits};
use crate::sdp::NodeSdp;

/// Controls that may wait.
const CONTROLS: usize = 64;
/// How often a viewer looks for what it misses.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Our SSRC in feedback.
const OWN_SSRC: Ssrc = Ssrc(1);

/// What a peer does with media.
pub(super) enum Part {
    /// Makes it.
    Publisher(Box<MediaSource>),
    /// Checks it.
    Viewer(Box<MediaCheck>),
}

/// A started peer.
pub(super) struct Started {
    pub(super) counts: Arc<Counts>,
    pub(super) controls: mpsc::Sender<Control>,
    pub(super) task: JoinHandle<()>,
}

/// The certificate of every light peer of this process: making one costs more than a handshake.
pub(super) fn identity() -> Result<Arc<DtlsIdentity>> {
    static IDENTITY: std::sync::OnceLock<Arc<DtlsIdentity>> = std::sync::OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(Arc::clone(identity));
    }
    let made = Arc::new(DtlsIdentity::generate()?);
    Ok(Arc::clone(IDENTITY.get_or_init(|| made)))
}

/// Starts a peer that connects to the node at once.
pub(super) async fn start(ice: IceCredentials, node: &NodeSdp, part: Part, habits: Habits) -> Result<Started> {
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
    let counts = Arc::new(Counts::default());
    let (controls, receiver) = mpsc::channel(CONTROLS);
    let peer = Peer {
        transport: TestPeer::new(Instant::now(), &identity()?, config),
        socket,
        part,
        counts: Arc::clone(&counts),
        habits,
        silent: false,
        last_media: Vec::new(),
    };
    Ok(Started { counts, controls, task: tokio::spawn(peer.run(receiver)) })
}

struct Peer {
    transport: TestPeer,
    socket: UdpSocket,
    part: Part,
    counts: Arc<Counts>,
    habits: Habits,
    silent: bool,
    /// The media datagram sent last, to be forged and replayed.
    last_media: Vec<u8>,
}

impl Peer {
    async fn run(mut self, mut controls: mpsc::Receiver<Control>) {
        let mut buffer = vec![0; 2048];
        let period = match self.part {
            Part::Publisher(_) => Duration::from_micros(1_000_000 / FRAMES_PER_SECOND),
            Part::Viewer(_) => ASK_EVERY,
        };
        let ticks = matches!(self.part, Part::Publisher(_)) || self.habits.asks_again;
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        loop {
            self.flush().await;
            let due = self.transport.poll_timeout();
            let timeout = due.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                received = self.socket.recv(&mut buffer) => {
                    let Ok(len) = received else { continue };
                    if !self.silent && let Some(datagram) = buffer.get_mut(..len) {
                        self.datagram(datagram).await;
                    }
                }
                () = tokio::time::sleep(timeout) => self.transport.handle_timeout(Instant::now()),
                _ = tick.tick(), if ticks => self.tick().await,
                control = controls.recv() => match control {
                    Some(control) => self.control(control).await,
                    // The owner is gone; it aborts this task.
                    None => std::future::pending().await,
                },
            }
        }
    }

    async fn flush(&mut self) {
        while let Some(datagram) = self.transport.poll_transmit() {
            if !self.silent {
                let _ = self.socket.send(&datagram).await;
            }
        }
        while let Some(event) = self.transport.poll_event() {
            match event {
                TestPeerEvent::Connected { .. } => self.counts.connected.store(true, Ordering::Relaxed),
                TestPeerEvent::Closed => self.counts.closed.store(true, Ordering::Relaxed),
                TestPeerEvent::CheckRefused { .. } => {
                    self.counts.checks_refused.fetch_add(1, Ordering::Relaxed);
                }
                TestPeerEvent::Failed(error) => {
                    let mut first = self.counts.first_wrong.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(format!("transport: {error}"));
                }
                _ => {}
            }
        }
    }

    async fn datagram(&mut self, datagram: &mut [u8]) {
        let is_media = classify(datagram) == DatagramKind::Rtp;
        if is_media && lost(self.habits.lose_received) {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut again = Vec::new();
        match self.transport.handle_datagram(Instant::now(), datagram) {
            Received::Rtp(packet) => {
                if let Part::Viewer(check) = &mut self.part {
                    check.packet(packet, &self.counts);
                }
            }
            Received::Rtcp(packet) => again = feedback(packet, &mut self.part, &self.counts),
            Received::Nothing => {}
        }
        for packet in again {
            self.counts.recovered.fetch_add(1, Ordering::Relaxed);
            self.send_media(&packet).await;
        }
    }

    async fn tick(&mut self) {
        if self.silent || !self.transport.is_connected() {
            return;
        }
        let (mut packets, mut report) = (Vec::new(), None);
        match &mut self.part {
            Part::Publisher(source) => {
                let keyframe;
                (keyframe, packets) = source.frame();
                packets.retain(|packet| self.habits.only.is_none_or(|kind| packet.video == (kind == "video")));
                report = source.report();
                self.counts.keyframes.fetch_add(u64::from(keyframe), Ordering::Relaxed);
                let mut began = self.counts.began_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                began.get_or_insert_with(Instant::now);
            }
            Part::Viewer(check) => {
                let mut nacks = Vec::new();
                for (ssrc, seqs) in check.asks(Instant::now()) {
                    rtcp::write_receiver_report(&mut nacks, OWN_SSRC, &[]);
                    rtcp::write_nack(&mut nacks, OWN_SSRC, Ssrc(ssrc), &seqs);
                    self.counts.nacks.fetch_add(1, Ordering::Relaxed);
                }
                if !nacks.is_empty() {
                    report = Some(nacks);
                }
            }
        }
        for packet in packets {
            self.counts.video.fetch_add(u64::from(packet.video), Ordering::Relaxed);
            self.counts.audio.fetch_add(u64::from(!packet.video), Ordering::Relaxed);
            if packet.video && lost(self.habits.lose_sent) {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.send_media(&packet).await;
        }
        if let Some(report) = report {
            self.send_rtcp(&report).await;
        }
    }

    async fn send_media(&mut self, packet: &Outgoing) {
        if let Ok(sealed) = self.transport.seal_rtp(packet.index, &packet.bytes, HEADER_LEN) {
            let _ = self.socket.send(&sealed).await;
            self.last_media = sealed;
        }
    }

    async fn send_rtcp(&mut self, compound: &[u8]) {
        if let Ok(sealed) = self.transport.seal_rtcp(compound) {
            let _ = self.socket.send(&sealed).await;
        }
    }

    async fn control(&mut self, control: Control) {
        match control {
            Control::Habits(habits) => self.habits = habits,
            Control::Silent(silent) => self.silent = silent,
            Control::RestartIce { local, remote } => self.transport.restart_ice(Instant::now(), local, remote),
            Control::Close => self.transport.close(Instant::now()),
            Control::Raw(bytes) => {
                let _ = self.socket.send(&bytes).await;
            }
            Control::Replay => {
                let _ = self.socket.send(&self.last_media).await;
            }
            Control::Forge => {
                let mut forged = self.last_media.clone();
                // A later number, so that it is judged by its tag and not as a replay.
                if let Some(byte) = forged.get_mut(3) {
                    *byte = byte.wrapping_add(40);
                }
                if let Some(byte) = forged.last_mut() {
                    *byte ^= 0x55;
                }
                let _ = self.socket.send(&forged).await;
            }
            Control::Rtp { header_len, bytes } => {
                let seq = bytes.get(2..4).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b));
                if let Ok(sealed) = self.transport.seal_rtp(u64::from(seq), &bytes, header_len) {
                    let _ = self.socket.send(&sealed).await;
                }
            }
            Control::Rtcp(bytes) => self.send_rtcp(&bytes).await,
            Control::AskKeyframe => {
                let Part::Viewer(check) = &self.part else { return };
                let mut pli = Vec::new();
                rtcp::write_receiver_report(&mut pli, OWN_SSRC, &[]);
                rtcp::write_pli(&mut pli, OWN_SSRC, Ssrc(check.video_ssrc().unwrap_or_default()));
                self.send_rtcp(&pli).await;
            }
        }
    }
}

/// Takes a node's RTCP; gives what a publisher sends because of it.
fn feedback(packet: &[u8], part: &mut Part, counts: &Counts) -> Vec<Outgoing> {
    let mut again = Vec::new();
    for item in rtcp::parse(packet).flatten() {
        match (item, &mut *part) {
            (Rtcp::Pli { .. } | Rtcp::Fir { .. }, Part::Publisher(source)) => {
                counts.keyframe_requests.fetch_add(1, Ordering::Relaxed);
                let mut at = counts.keyframe_requests_at.lock().unwrap_or_else(PoisonError::into_inner);
                at.push(Instant::now());
                source.keyframe_due = true;
            }
            (Rtcp::Nack { seqs, .. }, Part::Publisher(source)) => {
                counts.nacks.fetch_add(1, Ordering::Relaxed);
                again.extend(source.again(seqs));
            }
            (Rtcp::TransportCc(_), _) => {
                counts.transport_feedback.fetch_add(1, Ordering::Relaxed);
            }
            (Rtcp::SenderReport(report), Part::Viewer(check)) => check.report(report.info, counts),
            (Rtcp::Bye(_), _) => {
                counts.byes.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
    again
}

fn lost(share: f32) -> bool {
    share > 0.0 && rand::random::<f32>() < share
}
