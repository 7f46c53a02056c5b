//! `ams-node bench`: how many viewers a core of this machine carries, and how quickly they see a picture.
//!
//! Owns the run: a node as a process of its own on one core, a publisher and light viewers (real ICE, DTLS and SRTP) on
//! another, steps of more and more viewers, and the table and JSON at the end. The same load can be put on another node
//! or any WHEP server.

mod floor;
mod load;
mod rest;
mod sdp;
mod source;
mod target;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ams_rtc::srtp::SrtpProfile;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use load::{Load, LoadOptions, Window};
use target::Target;

/// Shares of packets lost and delays from which on a step does not count as carried.
const LOSS_MAX: f64 = 0.0001;
const DELAY_MAX: Duration = Duration::from_millis(50);
/// A node that uses so much of its core has no more to give.
const BUSY_MAX: f64 = 0.98;

/// Flags of `ams-node bench`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// Viewers at each step
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "100,200,300,500,1000,2000")]
    viewers: Vec<usize>,
    /// Seconds that each step is measured for
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Viewers that join per second
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    joins: f64,
    /// Frames come in bursts of ten packets of 1200 bytes; without it, packets are paced over the frame (2 Mbit/s, 30 fps)
    #[arg(long)]
    burst: bool,
    /// Seconds between keyframes that come by themselves
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    key_interval: f64,
    /// Viewers send no transport-wide feedback
    #[arg(long)]
    no_feedback: bool,
    /// Viewers take SRTP with AES-CM and SHA-1 only, as old ones do; without it, AES-128-GCM
    #[arg(long)]
    sha1: bool,
    /// After the last step, let so many viewers leave and others join in their places, and see what memory does
    #[arg(long, value_name = "N", default_value_t = 0)]
    churn: usize,
    /// Load another node instead of one of our own: its HTTP address, for example http://10.0.0.5:5080
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Load any WHEP server: the URL viewers POST to
    #[arg(long, value_name = "URL", conflicts_with = "target")]
    whep: Option<String>,
    /// Where to publish for --whep: the URL of its WHIP endpoint
    #[arg(long, value_name = "URL", requires = "whep")]
    whip: Option<String>,
    /// Process whose CPU and memory are measured, with --target or --whep on this machine
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Leave the choice of cores to the system; without it, the node runs on core 0 and the load on core 1
    #[arg(long)]
    no_pin: bool,
    /// media.load_max of the node it starts: above that load it refuses viewers. 100 refuses nobody, to find the knee
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    load_max: u8,
    /// Write the figures here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One step's figures.
#[derive(Clone, Debug, Serialize)]
struct Row {
    viewers: usize,
    /// So many more came and were told that the node is full.
    refused: usize,
    packets_per_second: f64,
    cpu_percent: Option<f64>,
    cpu_us_per_packet: Option<f64>,
    lost_ratio: f64,
    damaged: u64,
    delay_ms: Percentiles,
    memory_kb_per_viewer: Option<f64>,
    joins_per_second: f64,
    join_cpu_ms: Option<f64>,
    join_first_packet_ms: Percentiles,
    join_first_picture_ms: Percentiles,
    carried: bool,
}

/// Of some durations, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    p999: f64,
}

impl Percentiles {
    fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let place = ((micros.len() as f64 * share) as usize).min(micros.len().saturating_sub(1));
            micros.get(place).map_or(0.0, |micros| *micros as f64 / 1000.0)
        };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// Everything that goes into the JSON file.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    burst: bool,
    sha1: bool,
    floor: floor::Floor,
    rows: Vec<Row>,
    knee_viewers: usize,
    churn: Vec<Churned>,
}

/// Memory of the process after so many viewers left and others joined.
#[derive(Clone, Copy, Debug, Serialize)]
struct Churned {
    left: usize,
    memory_kb: Option<f64>,
}

/// Viewers leave and others join, a tenth at a time.
fn churn(args: &BenchArgs, load: &mut Load, target: &Target) -> Result<Vec<Churned>> {
    let mut seen = Vec::new();
    if args.churn == 0 {
        return Ok(seen);
    }
    eprintln!("{} viewers leave and as many join, {} per second", args.churn, args.joins);
    let (mut left, step) = (0, args.churn.div_ceil(10));
    while left <= args.churn {
        std::thread::sleep(Duration::from_secs(2));
        let memory_kb = target.memory_kb();
        eprintln!("{left:>7} left: {} kB", memory_kb.map_or("–".to_owned(), |kb| format!("{kb:.0}")));
        seen.push(Churned { left, memory_kb });
        if left < args.churn {
            load.replace(step.min(args.churn - left), args.joins)?;
        }
        left += step;
    }
    Ok(seen)
}

/// Runs it.
///
/// # Errors
/// What could not be started or reached, with what to try.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    ensure!(
        !args.viewers.is_empty() && args.viewers.iter().all(|n| (1..=50_000).contains(n)),
        "--viewers takes 1 to 50000"
    );
    ensure!(args.joins > 0.0 && args.key_interval > 0.0, "--joins and --key-interval must be above zero");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pin = !args.no_pin && cores > 1;
    if !pin {
        eprintln!("node and load share their cores: the figures are lower than the node's own");
    }
    let profile = if args.sha1 { SrtpProfile::Aes128CmHmacSha1_80 } else { SrtpProfile::AeadAes128Gcm };
    let floor = floor::measure(pin, profile)?;
    eprintln!(
        "floor: seal {:.3} µs, send {:.2} µs alone, {:.2} µs in a train of ten",
        floor.seal_us, floor.send_us, floor.train_us
    );
    let target = match (&args.target, &args.whep) {
        (Some(url), _) => Target::other(url, args.pid),
        (None, Some(whep)) => {
            let whip = args.whip.clone().context("--whep needs --whip: where the bench is to publish")?;
            Target::endpoints(whip, whep.clone(), args.pid)
        }
        (None, None) => Target::own(pin, args.load_max)?,
    };
    let options = LoadOptions {
        pin,
        burst: args.burst,
        key_interval: Duration::from_secs_f64(args.key_interval),
        feedback: !args.no_feedback,
        sha1: args.sha1,
    };
    let most = args.viewers.iter().copied().max().unwrap_or(0);
    let mut load = Load::start(&target.whip, &target.whep, most, options)?;
    target.settle();
    let idle = target.memory_kb();
    let mut rows: Vec<Row> = Vec::new();
    eprintln!("{HEAD}");
    for &viewers in &args.viewers {
        let before = (target.cpu(), Instant::now(), load.viewers());
        let refused = load.join_up_to(viewers, args.joins)?;
        let viewers = load.viewers();
        ensure!(viewers > 0, "all {refused} viewers were refused (503): is the node full already?");
        let joined = viewers.saturating_sub(before.2);
        let join_time = before.1.elapsed();
        let join_cpu = target.cpu().zip(before.0).map(|(after, before)| after - before);
        std::thread::sleep(Duration::from_millis(1500));
        let joining = load.window();
        let (cpu, begun) = (target.cpu(), Instant::now());
        std::thread::sleep(Duration::from_secs(args.seconds));
        let window = load.window();
        let elapsed = begun.elapsed().as_secs_f64();
        let cpu = target.cpu().zip(cpu).map(|(after, before)| after - before);
        // What media of those already there cost meanwhile is not the joins'.
        let media_cpu =
            cpu.map(|cpu| cpu / elapsed * join_time.as_secs_f64() * (before.2 + joined / 2) as f64 / viewers as f64);
        let join_cpu_ms = join_cpu
            .zip(media_cpu)
            .filter(|_| joined > 0)
            .map(|(all, media)| (all - media).max(0.0) * 1000.0 / joined as f64);
        let memory = target.memory_kb().zip(idle).map(|(now, idle)| (now - idle) / viewers as f64);
        let joins = (joined, refused, join_time, join_cpu_ms);
        let row = row(viewers, &joining, &window, elapsed, cpu, memory, joins);
        eprintln!("{}", line(&row));
        let carried = row.carried;
        rows.push(row);
        if !carried {
            break;
        }
    }
    let churn = churn(args, &mut load, &target)?;
    let knee_viewers = rows.iter().filter(|row| row.carried).map(|row| row.viewers).max().unwrap_or(0);
    println!("{HEAD}");
    rows.iter().for_each(|row| println!("{}", line(row)));
    println!(
        "carried on the core: {knee_viewers} viewers; floor: seal {:.3} µs, send {:.2} µs alone, {:.2} µs in a train of ten",
        floor.seal_us, floor.send_us, floor.train_us
    );
    let damaged: u64 = rows.iter().map(|row| row.damaged).sum();
    if let Some(path) = &args.json {
        let version = env!("CARGO_PKG_VERSION");
        let report = Report { version, burst: args.burst, sha1: args.sha1, floor, rows, knee_viewers, churn };
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    ensure!(damaged == 0, "{damaged} packets came with other bytes than were published");
    Ok(())
}

fn row(
    viewers: usize,
    joining: &Window,
    window: &Window,
    elapsed: f64,
    cpu: Option<f64>,
    memory_kb_per_viewer: Option<f64>,
    (joined, refused, join_time, join_cpu_ms): (usize, usize, Duration, Option<f64>),
) -> Row {
    let lost = window.lost.cast_signed().max(0).unsigned_abs();
    let lost_ratio = lost as f64 / (window.packets + lost).max(1) as f64;
    let delay_ms = Percentiles::of(window.delays_us.clone());
    let busy = cpu.map_or(0.0, |cpu| cpu / elapsed);
    let carried = window.packets > 0
        && lost_ratio <= LOSS_MAX
        && delay_ms.p99 <= DELAY_MAX.as_secs_f64() * 1000.0
        && busy <= BUSY_MAX;
    Row {
        viewers,
        refused,
        packets_per_second: window.packets as f64 / elapsed,
        cpu_percent: cpu.map(|cpu| cpu / elapsed * 100.0),
        cpu_us_per_packet: cpu.map(|cpu| cpu * 1e6 / window.packets.max(1) as f64),
        lost_ratio,
        damaged: window.damaged,
        delay_ms,
        memory_kb_per_viewer,
        joins_per_second: joined as f64 / join_time.as_secs_f64().max(0.001),
        join_cpu_ms,
        join_first_packet_ms: Percentiles::of(joining.first_packet_us.clone()),
        join_first_picture_ms: Percentiles::of(joining.first_picture_us.clone()),
        carried,
    }
}

const HEAD: &str = "viewers  packets/s   CPU  µs/packet     lost   delay p50/p99/p99.9 ms   kB/viewer  joins/s  ms CPU/join  first packet p50/p99 ms  first picture p50/p99 ms";

fn line(row: &Row) -> String {
    let number =
        |value: Option<f64>, decimals: usize| value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"));
    let (delay, packet, picture) = (row.delay_ms, row.join_first_packet_ms, row.join_first_picture_ms);
    let refused = if row.refused > 0 { format!("  {} refused", row.refused) } else { String::new() };
    format!(
        "{:>7}  {:>9.0} {:>4}%  {:>9}  {:>6.3}%   {:>6.2} / {:>5.2} / {:>6.2}   {:>9}  {:>7.1}  {:>11}  {:>12.1} / {:>6.1}  {:>13.1} / {:>6.1}{}{refused}",
        row.viewers,
        row.packets_per_second,
        number(row.cpu_percent, 0),
        number(row.cpu_us_per_packet, 2),
        row.lost_ratio * 100.0,
        delay.p50,
        delay.p99,
        delay.p999,
        number(row.memory_kb_per_viewer, 0),
        row.joins_per_second,
        number(row.join_cpu_ms, 2),
        packet.p50,
        packet.p99,
        picture.p50,
        picture.p99,
        if row.carried { "" } else { "  beyond the knee" },
    )
}
