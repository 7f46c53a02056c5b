//! What is loaded: a node of our own in a process of its own, or something that runs already.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest wait for our own node.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM: &str = "bench";

pub(super) struct Target {
    child: Option<Child>,
    pid: Option<u32>,
    /// Where to publish and to play.
    pub(super) whip: String,
    pub(super) whep: String,
}

impl Target {
    /// Starts a node: standalone, one shard, registry in memory, on core 0.
    pub(super) fn own(pin: bool, load_max: u8) -> Result<Self> {
        let port = || -> Result<u16> { Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()) };
        let (http, relay) = (port()?, port()?);
        let binary = std::env::current_exe().context("this program's own file")?;
        let mut command = Command::new(binary);
        command
            .args(["--mode", "standalone", "--registry", "memory", "--shards", "1", "--log", "warn"])
            .args(["--http", &format!("127.0.0.1:{http}"), "--relay", &format!("127.0.0.1:{relay}")])
            .args(["--set", "api.limits.requests_per_second=100000", "--set", "api.limits.request_burst=100000"])
            .args(["--set", "api.limits.http_sessions=100000", "--set", &format!("media.load_max={load_max}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // A child runs where the thread that starts it runs.
        let child = std::thread::scope(|scope| {
            let start = scope.spawn(|| {
                if pin {
                    pin_to(0);
                }
                command.spawn()
            });
            start
                .join()
                .map_err(|_| anyhow::anyhow!("the starting thread ended by a panic"))?
                .context("starting a node")
        })?;
        let base = format!("http://127.0.0.1:{http}/WebRTCAppEE");
        let mut target = Self {
            pid: Some(child.id()),
            child: Some(child),
            whip: format!("{base}/whip/{STREAM}"),
            whep: format!("{base}/whep/{STREAM}"),
        };
        let begun = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, http)).is_err() {
            if let Some(Ok(Some(status))) = target.child.as_mut().map(Child::try_wait) {
                bail!("the node ended at once ({status}); start `ams-node --mode standalone` by hand to see why");
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!("the node does not answer on port {http}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(target)
    }

    /// A node that runs already.
    pub(super) fn other(url: &str, pid: Option<u32>) -> Self {
        let base = format!("{}/WebRTCAppEE", url.trim_end_matches('/'));
        Self::endpoints(format!("{base}/whip/{STREAM}"), format!("{base}/whep/{STREAM}"), pid)
    }

    pub(super) fn endpoints(whip: String, whep: String, pid: Option<u32>) -> Self {
        Self { child: None, pid, whip, whep }
    }

    /// CPU seconds used so far, user and system.
    pub(super) fn cpu(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid?)).ok()?;
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Memory in use (RSS), in kB.
    pub(super) fn memory_kb(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Lets start-up work end before anything is measured.
    pub(super) fn settle(&self) {
        std::thread::sleep(Duration::from_millis(500));
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps this thread, and what it starts, on one core. Where that is refused, nothing is lost but precision.
pub(super) fn pin_to(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}
