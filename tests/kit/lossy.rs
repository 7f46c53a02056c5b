//! An IP path that really loses packets: TCP over it has to find out, send again and wait, as between two data centres.
//!
//! Owns a TUN device and the task that is its other end. Each packet to the far address is lost by the dice, or comes back
//! after the delay with its two addresses exchanged: so connections to the far address reach listeners at the near one,
//! both ways through the device, and no network namespace is needed. The checksums do not change with the exchange.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_tun::Tun;

/// Longest packet of the device.
const PACKET_LEN_MAX: usize = 1500;
/// Packets on their way, in both directions; more are lost.
const PACKETS_MAX: usize = 2048;

/// What the path does to each packet.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Share of packets that get lost, each way.
    pub loss: f64,
    /// Each way takes this long.
    pub delay: Duration,
    /// Of the dice.
    pub seed: u64,
}

/// What happened to the packets so far.
#[derive(Debug, Default)]
struct Passed {
    carried: AtomicU64,
    lost: AtomicU64,
}

/// The path.
#[derive(Debug)]
pub struct LossyPath {
    /// Connections to this address cross the path and reach who listens at every address of the machine.
    pub far: Ipv4Addr,
    passed: Arc<Passed>,
    tasks: Vec<JoinHandle<()>>,
}

/// Congestion controls of TCP that this machine has.
pub fn congestion_controls() -> Vec<String> {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    known.split_whitespace().map(str::to_owned).collect()
}

impl LossyPath {
    /// A path between 198.18.NET.1 and 198.18.NET.2, addresses for such tests (RFC 2544). Connections over it have this
    /// congestion control. None, with the reason said, if the machine gives no such device to this user.
    ///
    /// # Errors
    /// The device is there but cannot be used.
    pub fn open(net: u8, congestion: &str, quality: Quality) -> Result<Option<Self>> {
        let [near, far] = [1, 2].map(|host| Ipv4Addr::new(198, 18, net, host));
        let device = Tun::builder().address(near).netmask(Ipv4Addr::new(255, 255, 255, 252)).mtu(PACKET_LEN_MAX as i32);
        let tun = match device.up().build() {
            Ok(mut tuns) => tuns.pop().context("no device")?,
            Err(error) => {
                crate::case::say(&format!("SKIPPED: no TUN device, so no path that loses packets: {error}"));
                return Ok(None);
            }
        };
        let mut route = Command::new("ip");
        route.args(["route", "replace", &format!("{far}/32"), "dev", tun.name(), "congctl", congestion]);
        let routed = route.output().context("starting ip (iproute2)")?;
        ensure!(routed.status.success(), "ip route: {}", String::from_utf8_lossy(&routed.stderr));
        let passed = Arc::new(Passed::default());
        let carrying = tokio::spawn(carry(tun, quality, Arc::clone(&passed)));
        Ok(Some(Self { far, passed, tasks: vec![carrying] }))
    }

    /// A door to the path at a free port of `at`, for those who cannot be told to dial the far address: connections go on
    /// over the path to the same port as that of `at`.
    ///
    /// # Errors
    /// No port.
    pub async fn door(&mut self, at: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind((at.ip(), 0)).await?;
        let door = listener.local_addr()?;
        self.tasks.push(tokio::spawn(keep_door(listener, (self.far, at.port()).into())));
        Ok(door)
    }

    /// Packets carried and lost so far, both ways together.
    pub fn passed(&self) -> (u64, u64) {
        (self.passed.carried.load(Ordering::Relaxed), self.passed.lost.load(Ordering::Relaxed))
    }
}

impl Drop for LossyPath {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Who comes to the door goes on to the far address. What lies between door and caller is no part of the path: it takes
/// whatever comes at once.
async fn keep_door(listener: TcpListener, far: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        connections.spawn(async move {
            let Ok(mut to) = TcpStream::connect(far).await else { return };
            let _ = (from.set_nodelay(true), to.set_nodelay(true));
            // When one way ends, so does the other.
            let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
        });
    }
}

async fn carry(tun: Tun, quality: Quality, passed: Arc<Passed>) {
    let mut dice = StdRng::seed_from_u64(quality.seed);
    let mut travelling: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; PACKET_LEN_MAX];
    loop {
        let first = travelling.front().map(|(at, _)| *at);
        tokio::select! {
            read = tun.recv(&mut buffer) => {
                let Ok(len) = read else { return };
                let Some(packet) = turned_round(buffer.get(..len).unwrap_or_default()) else { continue };
                if dice.random_bool(quality.loss) || travelling.len() == PACKETS_MAX {
                    passed.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                travelling.push_back((Instant::now() + quality.delay, packet));
            }
            () = tokio::time::sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {
                while travelling.front().is_some_and(|(at, _)| *at <= Instant::now())
                    && let Some((_, packet)) = travelling.pop_front()
                {
                    passed.carried.fetch_add(1, Ordering::Relaxed);
                    // What the system does not take is lost, as on any path.
                    let _ = tun.send(&packet).await;
                }
            }
        }
    }
}

/// The packet from the far end's point of view; none if it is not IPv4.
fn turned_round(packet: &[u8]) -> Option<Vec<u8>> {
    let mut packet = packet.to_vec();
    let (from, to) = (packet.get(12..16)?.to_vec(), packet.get(16..20)?.to_vec());
    if packet.first()? >> 4 != 4 {
        return None;
    }
    packet.get_mut(12..16)?.copy_from_slice(&to);
    packet.get_mut(16..20)?.copy_from_slice(&from);
    Some(packet)
}
