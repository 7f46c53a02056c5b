//! The load: one publisher and many light viewers, on threads of their own.
//!
//! Owns their sockets. All viewers share one: each has a loopback address of its own, by which the node and the load tell
//! them apart, so that one read takes packets of many. Most viewers only count; one in [`CHECKED`] decrypts and checks
//! every byte. All report arrivals as browsers do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_rtc::dtls::{DtlsIdentity, DtlsRole};
use ams_rtc::ext::{Ext, ExtMap, ExtValues};
use ams_rtc::ice::{DatagramKind, IceCredentials, classify};
use ams_rtc::rtcp::{self, ReportBlock, Rtcp};
use ams_rtc::rtp::{RtpHeader, write_header};
use ams_rtc::testpeer::{Received, TestPeer, TestPeerConfig};
use ams_rtc::twcc::FeedbackGenerator;
use ams_rtc::udp::{ReceiveBuffer, UdpShard};
use ams_types::Ssrc;
use anyhow::{Context, Result, bail, ensure};

use super::sdp::{self, Answer, VIDEO_PT};
use super::source::{self, MediaSource};
use super::target::pin_to;

/// One in so many viewers decrypts.
const CHECKED: usize = 50;
/// Threads that post offers, so that a slow answer holds up no other.
const POSTERS: usize = 8;
/// How often viewers speak and their timers run.
const TICK: Duration = Duration::from_millis(50);
/// Longest a viewer may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Answered viewers that wait for their thread.
const JOINS_WAITING: usize = 1024;
/// Size of a UDP datagram of the publisher at most.
const DATAGRAM_LEN: usize = 2048;

#[derive(Clone, Copy, Debug)]
pub(super) struct LoadOptions {
    pub(super) pin: bool,
    pub(super) burst: bool,
    pub(super) key_interval: Duration,
    pub(super) feedback: bool,
    /// Viewers take AES-CM with SHA-1 only.
    pub(super) sha1: bool,
}

/// What came in one span of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) packets: u64,
    pub(super) lost: u64,
    pub(super) damaged: u64,
    pub(super) delays_us: Vec<u64>,
    /// Of the viewers that joined since the last window.
    pub(super) first_packet_us: Vec<u64>,
    pub(super) first_picture_us: Vec<u64>,
    connected: usize,
}

/// A viewer that was answered.
struct Joined {
    /// Its place among the viewers; who is there has left.
    place: usize,
    requested_at: Instant,
    ice: IceCredentials,
    answer: Answer,
}

/// The running load.
pub(super) struct Load {
    whep: String,
    feedback: bool,
    identity: Arc<DtlsIdentity>,
    joins: SyncSender<Joined>,
    shared: Arc<Mutex<Window>>,
    /// Viewers that are there.
    viewers: usize,
    /// Viewers that were asked for: the others were refused.
    asked: usize,
    /// All that ever joined.
    joined: usize,
    most: usize,
    /// URLs of the viewers' sessions, by place.
    sessions: Mutex<Vec<Option<String>>>,
}

impl Load {
    /// Publishes, and readies a thread for up to `most` viewers.
    pub(super) fn start(whip: &str, whep: &str, most: usize, options: LoadOptions) -> Result<Self> {
        let identity = Arc::new(if options.sha1 { DtlsIdentity::generate_sha1()? } else { DtlsIdentity::generate()? });
        let origin = Instant::now();
        publish(whip, &identity, origin, options)?;
        let (joins, joined) = sync_channel(JOINS_WAITING);
        let shared = Arc::new(Mutex::new(Window::default()));
        let (counted, made) = (Arc::clone(&shared), Arc::clone(&identity));
        std::thread::Builder::new().name("viewers".into()).spawn(move || {
            if options.pin {
                pin_to(1);
            }
            if let Err(error) = watch(&joined, &counted, &made, origin) {
                eprintln!("the viewers' thread ended: {error:#}");
            }
        })?;
        Ok(Self {
            whep: whep.to_owned(),
            feedback: options.feedback,
            identity,
            joins,
            shared,
            viewers: 0,
            asked: 0,
            joined: 0,
            most,
            sessions: Mutex::new(vec![None; most]),
        })
    }

    pub(super) fn viewers(&self) -> usize {
        self.viewers
    }

    /// Lets viewers come at this rate until `count` have come, and waits until all that were taken are connected. Gives
    /// how many were refused.
    pub(super) fn join_up_to(&mut self, count: usize, per_second: f64) -> Result<usize> {
        ensure!(count <= self.most, "more viewers than were announced");
        let places: Vec<usize> = (self.asked..count).collect();
        self.asked = self.asked.max(count);
        let taken = self.join(&places, per_second)?;
        self.viewers += taken;
        Ok(places.len() - taken)
    }

    /// Lets so many viewers leave, the longest there first, and others join in their places at this rate.
    pub(super) fn replace(&mut self, count: usize, per_second: f64) -> Result<()> {
        let before = self.joined;
        let places: Vec<usize> = (before..before + count).map(|n| n % self.viewers.max(1)).collect();
        self.join(&places, per_second).map(drop)
    }

    fn join(&mut self, places: &[usize], per_second: f64) -> Result<usize> {
        let begun = Instant::now();
        let (failed, taken) = (Mutex::new(None), AtomicUsize::new(0));
        let (given, due) = (Mutex::new(0usize), |n: usize| begun + Duration::from_secs_f64(n as f64 / per_second));
        std::thread::scope(|scope| {
            for _ in 0..POSTERS.min(places.len()) {
                scope.spawn(|| {
                    loop {
                        let n = {
                            let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
                            *given += 1;
                            *given - 1
                        };
                        let Some(&place) = places.get(n) else { break };
                        if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                            break;
                        }
                        std::thread::sleep(due(n).saturating_duration_since(Instant::now()));
                        match self.join_one(place) {
                            Ok(was_taken) => drop(taken.fetch_add(usize::from(was_taken), Ordering::Relaxed)),
                            Err(error) => *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.context("a viewer could not join"));
        }
        let taken = taken.into_inner();
        self.joined += taken;
        let begun = Instant::now();
        loop {
            let connected = self.shared.lock().unwrap_or_else(PoisonError::into_inner).connected;
            if connected >= self.joined {
                return Ok(taken);
            }
            if begun.elapsed() > CONNECT_TIMEOUT {
                bail!(
                    "only {connected} of {} viewers got connected within {} s",
                    self.joined,
                    CONNECT_TIMEOUT.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it was taken; an error is anything but a refusal.
    fn join_one(&self, place: usize) -> Result<bool> {
        let ice = IceCredentials::random();
        let offer = sdp::offer(&ice, self.identity.fingerprint(), false, self.feedback);
        let requested_at = Instant::now();
        let Some(answered) = super::rest::post_sdp(&self.whep, &offer)? else { return Ok(false) };
        let answer = Answer::parse(&answered.sdp)?;
        let former = self
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(place)
            .and_then(|session| std::mem::replace(session, answered.session));
        self.joins.send(Joined { place, requested_at, ice, answer }).context("the viewers' thread has ended")?;
        former.map_or(Ok(()), |former| super::rest::delete(&former)).map(|()| true)
    }

    /// What came since the last call.
    pub(super) fn window(&self) -> Window {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = shared.connected;
        let window = std::mem::replace(&mut *shared, Window { connected, ..Window::default() });
        drop(shared);
        window
    }
}

// --- the publisher ---------------------------------------------------------------------------------------------------

fn publish(whip: &str, identity: &Arc<DtlsIdentity>, origin: Instant, options: LoadOptions) -> Result<()> {
    let ice = IceCredentials::random();
    let offer = sdp::offer(&ice, identity.fingerprint(), true, false);
    let answered = super::rest::post_sdp(whip, &offer).context("publishing")?;
    let answer = Answer::parse(&answered.context("publishing: the server is full (503)")?.sdp)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(answer.server)?;
    let mut peer = TestPeer::new(Instant::now(), identity, config(ice, &answer));
    let mut source = MediaSource::new(origin, options.burst, options.key_interval);
    let (up, is_up) = sync_channel(1);
    std::thread::Builder::new().name("publisher".into()).spawn(move || {
        if options.pin {
            pin_to(1);
        }
        let mut buffer = [0; DATAGRAM_LEN];
        let mut told = false;
        loop {
            let now = Instant::now();
            peer.handle_timeout(now);
            while peer.poll_event().is_some() {}
            while let Some(datagram) = peer.poll_transmit() {
                let _ = socket.send(&datagram);
            }
            if peer.is_connected() {
                if !std::mem::replace(&mut told, true) {
                    let _ = up.send(());
                }
                while let Some(out) = source.next(now) {
                    let _ = send_media(&socket, &peer, &out);
                }
            }
            let wait = source.due().saturating_duration_since(Instant::now()).min(Duration::from_millis(20));
            let _ = socket.set_read_timeout(Some(wait.max(Duration::from_micros(50))));
            while let Ok(len) = socket.recv(&mut buffer) {
                if let Some(datagram) = buffer.get_mut(..len)
                    && let Received::Rtcp(compound) = peer.handle_datagram(Instant::now(), datagram)
                {
                    source.keyframe_wanted |=
                        rtcp::parse(compound).any(|item| matches!(item, Ok(Rtcp::Pli { .. } | Rtcp::Fir { .. })));
                }
                if source.due() <= Instant::now() {
                    break;
                }
            }
        }
    })?;
    is_up.recv_timeout(CONNECT_TIMEOUT).context("the publisher did not get connected")?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

fn send_media(socket: &UdpSocket, peer: &TestPeer, out: &source::Outgoing) -> Result<()> {
    let mut packet = vec![0; 64];
    let header_len = write_header(&mut packet, &out.fields, &ExtMap::default(), &ExtValues::default())?;
    packet.truncate(header_len);
    packet.extend_from_slice(&out.payload);
    socket.send(&peer.seal_rtp(out.seq, &packet, header_len)?)?;
    Ok(())
}

fn config(ice: IceCredentials, answer: &Answer) -> TestPeerConfig {
    TestPeerConfig {
        local: ice,
        remote: answer.ice.clone(),
        remote_fingerprint: answer.fingerprint.clone(),
        server: answer.server,
        role: DtlsRole::Client,
        data_channel: false,
    }
}

// --- viewers ---------------------------------------------------------------------------------------------------------

/// Numbers of one source as they came.
#[derive(Default)]
struct Numbers {
    ssrc: u32,
    last: Option<u64>,
    behind: u64,
}

struct Viewer {
    peer: TestPeer,
    server: SocketAddr,
    local: IpAddr,
    requested_at: Instant,
    first_packet: bool,
    first_picture: bool,
    connected: bool,
    checks: bool,
    numbers: [Numbers; 2],
    feedback: FeedbackGenerator,
    reported_at: Instant,
}

fn address_of(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1 + (n / 62_500) as u8, (n / 250 % 250) as u8, (n % 250) as u8 + 1)
}

fn number_of(address: IpAddr) -> Option<usize> {
    let IpAddr::V4(address) = address else { return None };
    let [_, a, b, c] = address.octets();
    Some(usize::from(a.checked_sub(1)?) * 62_500 + usize::from(b) * 250 + usize::from(c.checked_sub(1)?))
}

fn watch(
    joined: &Receiver<Joined>,
    shared: &Mutex<Window>,
    identity: &Arc<DtlsIdentity>,
    origin: Instant,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let socket = UdpShard::bind(0..=0)?;
    let mut buffer = ReceiveBuffer::new();
    let mut exts = ExtMap::default();
    exts.insert(Ext::TransportCc, sdp::TRANSPORT_CC_ID);
    let mut viewers: Vec<Option<Viewer>> = Vec::new();
    let mut window = Window::default();
    let mut ticked_at = Instant::now();
    let mut out = Vec::new();
    loop {
        while let Ok(Joined { place, requested_at, ice, answer }) = joined.try_recv() {
            let local = IpAddr::V4(address_of(place));
            let mut viewer = Viewer {
                server: answer.server,
                local,
                peer: TestPeer::new(Instant::now(), identity, config(ice, &answer)),
                requested_at,
                first_packet: false,
                first_picture: false,
                connected: false,
                checks: place.is_multiple_of(CHECKED),
                numbers: Default::default(),
                feedback: FeedbackGenerator::new(Ssrc(1)),
                reported_at: Instant::now(),
            };
            viewer.peer.handle_timeout(Instant::now());
            flush(&socket, &mut viewer);
            viewers.resize_with(viewers.len().max(place + 1), || None);
            if let Some(there) = viewers.get_mut(place) {
                *there = Some(viewer);
            }
        }
        let now = Instant::now();
        let read = socket.recv_batch(&mut buffer, |meta, datagram| {
            let Some(viewer) = number_of(meta.local_ip).and_then(|n| viewers.get_mut(n)?.as_mut()) else { return };
            if classify(datagram) == DatagramKind::Rtp {
                viewer.rtp(now, datagram, &exts, origin, &mut window);
            } else {
                viewer.peer.handle_datagram(now, datagram);
                flush(&socket, viewer);
            }
        })?;
        if now.duration_since(ticked_at) >= TICK {
            ticked_at = now;
            for viewer in viewers.iter_mut().flatten() {
                viewer.peer.handle_timeout(now);
                while viewer.peer.poll_event().is_some() {}
                window.connected +=
                    usize::from(viewer.peer.is_connected() && !std::mem::replace(&mut viewer.connected, true));
                viewer.speak(now, &socket, &mut out);
                flush(&socket, viewer);
            }
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = std::mem::take(&mut window);
            shared.packets += taken.packets;
            shared.lost = shared.lost.wrapping_add(taken.lost);
            shared.damaged += taken.damaged;
            shared.connected += taken.connected;
            shared.delays_us.extend(taken.delays_us);
            shared.first_packet_us.extend(taken.first_packet_us);
            shared.first_picture_us.extend(taken.first_picture_us);
        }
        if read == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn flush(socket: &UdpShard, viewer: &mut Viewer) {
    while let Some(datagram) = viewer.peer.poll_transmit() {
        socket.send(viewer.server, Some(viewer.local), &datagram, None);
    }
}

impl Viewer {
    fn rtp(&mut self, now: Instant, datagram: &mut [u8], exts: &ExtMap, origin: Instant, window: &mut Window) {
        let Ok(header) = RtpHeader::parse(datagram) else { return };
        let (ssrc, seq, marker, pt) = (header.ssrc, header.seq, header.marker, header.pt.0);
        if let Some(number) = ExtValues::read(&header, exts).transport_seq {
            self.feedback.on_packet(now, ssrc, number);
        }
        let is_video = pt == VIDEO_PT;
        if !is_video && pt != sdp::AUDIO_PT {
            return;
        }
        window.packets += 1;
        let waited = || u64::try_from(now.saturating_duration_since(self.requested_at).as_micros()).unwrap_or(u64::MAX);
        if !std::mem::replace(&mut self.first_packet, true) {
            window.first_packet_us.push(waited());
        }
        if is_video && marker && !std::mem::replace(&mut self.first_picture, true) {
            window.first_picture_us.push(waited());
        }
        window.lost = window.lost.wrapping_add(self.numbers[usize::from(is_video)].see(ssrc, seq));
        if self.checks
            && let Received::Rtp(packet) = self.peer.handle_datagram(now, datagram)
            && let Ok(header) = RtpHeader::parse(packet)
        {
            match source::check(packet.get(header.payload).unwrap_or_default()) {
                None => window.damaged += 1,
                // What came before the viewer is old for a reason.
                Some(sent) if origin + Duration::from_micros(sent) > self.requested_at => {
                    let sent = origin + Duration::from_micros(sent);
                    let delay = now.saturating_duration_since(sent).as_micros();
                    window.delays_us.push(u64::try_from(delay).unwrap_or(u64::MAX));
                }
                Some(_) => {}
            }
        }
    }

    /// Sends the reports that are due.
    fn speak(&mut self, now: Instant, socket: &UdpShard, out: &mut Vec<u8>) {
        if !self.connected {
            return;
        }
        out.clear();
        while self.feedback.poll(now, out) {}
        if now.duration_since(self.reported_at) >= Duration::from_secs(1) {
            self.reported_at = now;
            let report = |numbers: &Numbers| ReportBlock {
                ssrc: Ssrc(numbers.ssrc),
                fraction_lost: 0,
                lost: 0,
                highest_seq: 0,
                jitter: 0,
                last_sr: 0,
                delay_since_last_sr: 0,
            };
            let reports: Vec<ReportBlock> = self.numbers.iter().filter(|n| n.last.is_some()).map(report).collect();
            rtcp::write_receiver_report(out, Ssrc(1), &reports);
        }
        if !out.is_empty()
            && let Ok(sealed) = self.peer.seal_rtcp(out)
        {
            socket.send(self.server, Some(self.local), &sealed, None);
        }
    }
}

impl Numbers {
    /// Packets lost before this one; a late one makes up for one that counted as lost (as a wrapped minus one).
    fn see(&mut self, ssrc: Ssrc, seq: u16) -> u64 {
        self.ssrc = ssrc.0;
        let Some(last) = self.last else {
            self.last = Some(0x1_0000 + u64::from(seq));
            return 0;
        };
        let step = i64::from(seq.wrapping_sub((last & 0xffff) as u16).cast_signed());
        if step > 0 {
            self.last = last.checked_add_signed(step);
            self.behind += step.unsigned_abs() - 1;
            return step.unsigned_abs() - 1;
        }
        if step < 0 && self.behind > 0 {
            self.behind -= 1;
            return u64::MAX;
        }
        0
    }
}
