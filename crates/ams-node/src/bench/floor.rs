//! What sealing and sending cost on this machine, without a node: no server can be cheaper.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ams_rtc::srtp::{SrtpKeys, SrtpProfile};
use ams_rtc::udp::{ReceiveBuffer, UdpShard};
use anyhow::Result;
use serde::Serialize;

use super::target::pin_to;

const LEN: usize = 1100;
const TRAIN: usize = 10;
const RECEIVERS: u8 = 200;
const ROUNDS: u32 = 400;

/// CPU microseconds per packet.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Floor {
    /// Sealing.
    pub(super) seal_us: f64,
    /// A send of one packet, with its way through loopback.
    pub(super) send_us: f64,
    /// The same in a train of ten for one receiver (UDP GSO).
    pub(super) train_us: f64,
}

pub(super) fn measure(pin: bool, profile: SrtpProfile) -> Result<Floor> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (address, port) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let sink = std::thread::spawn(move || -> Result<()> {
        if pin {
            pin_to(1);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let socket = UdpShard::bind(0..=0)?;
            let _ = address.send(socket.port());
            let mut buffer = ReceiveBuffer::new();
            while !matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {
                if socket.recv_batch(&mut buffer, |_, _| {})? == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            Ok(())
        })
    });
    let port = port.recv()?;
    let measured = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if pin {
                    pin_to(0);
                }
                runtime.block_on(async {
                    let socket = UdpShard::bind(0..=0)?;
                    let bytes = vec![7; LEN * TRAIN];
                    let send = |segments: usize| {
                        let begun = thread_cpu();
                        for _ in 0..ROUNDS / segments as u32 {
                            for n in 0..RECEIVERS {
                                let to = SocketAddr::from((Ipv4Addr::new(127, 2, 0, n + 1), port));
                                let contents = bytes.get(..LEN * segments).unwrap_or_default();
                                socket.send(to, None, contents, (segments > 1).then_some(LEN));
                            }
                        }
                        let packets = f64::from(ROUNDS / segments as u32) * f64::from(RECEIVERS) * segments as f64;
                        (thread_cpu() - begun).as_secs_f64() * 1e6 / packets
                    };
                    let (send_us, train_us) = (send(1), send(TRAIN));
                    Ok::<_, anyhow::Error>(Floor { seal_us: seal(profile)?, send_us, train_us })
                })
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the measuring thread ended by a panic"))?
    });
    drop(stop);
    let _ = sink.join();
    measured
}

fn seal(profile: SrtpProfile) -> Result<f64> {
    let keys = SrtpKeys::from_keying_material(profile, &vec![7; profile.keying_material_len()])?;
    let (sealer, _) = keys.session(false)?;
    let mut packet = vec![0x80; LEN + 64];
    let (rounds, begun) = (200_000u64, Instant::now());
    for index in 0..rounds {
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&((index & 0xffff) as u16).to_be_bytes());
        sealer.seal_rtp(index, &mut packet, 12, LEN - 12)?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / rounds as f64)
}

/// CPU this thread used so far.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
