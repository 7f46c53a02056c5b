//! Figures of this machine and this process, in the shapes AMS's panel reads.
//!
//! Reads `/proc`; what is not known there is 0. Sizes are in bytes, times in ms unless their name says otherwise.

use std::fs;
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::{Value, json};

use super::call::now_ms;

/// A line's first number, in bytes where the file counts in kB.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let number = line.trim_start_matches(':').split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

pub(super) fn about() -> Value {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    json!({
        "osName": std::env::consts::OS,
        "osArch": std::env::consts::ARCH,
        "javaVersion": "",
        "processorCount": processors,
    })
}

pub(super) fn cpu(system_load: u32) -> Value {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let last_minute: f64 = load.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
    json!({
        "processCPUTime": process_time_us(),
        "systemCPULoad": system_load,
        "processCPULoad": 0,
        "systemLoadAverageLastMinute": last_minute,
    })
}

/// Processor time this process has used, in µs.
fn process_time_us() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold anything.
    let after_name = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    // A tick is 10 ms on every Linux that is in use.
    ticks * 10_000
}

pub(super) fn memory() -> Value {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (total, free, available) = (field(&text, "MemTotal"), field(&text, "MemFree"), field(&text, "MemAvailable"));
    let (swap, swap_free) = (field(&text, "SwapTotal"), field(&text, "SwapFree"));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    json!({
        "virtualMemory": field(&status, "VmSize"),
        "totalMemory": total,
        "freeMemory": free,
        "inUseMemory": total.saturating_sub(available),
        "totalSwapSpace": swap,
        "freeSwapSpace": swap_free,
        "inUseSwapSpace": swap.saturating_sub(swap_free),
        "availableMemory": available,
    })
}

pub(super) fn process_memory() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let total = field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal");
    let used = field(&status, "VmRSS");
    json!({
        "maxMemory": total,
        "totalMemory": total,
        "freeMemory": total.saturating_sub(used),
        "inUseMemory": used,
    })
}

pub(super) fn file_system() -> Value {
    let (usable, total, free) = rustix::fs::statvfs(".")
        .map_or((0, 0, 0), |fs| (fs.f_bavail * fs.f_frsize, fs.f_blocks * fs.f_frsize, fs.f_bfree * fs.f_frsize));
    json!({
        "usableSpace": usable,
        "totalSpace": total,
        "freeSpace": free,
        "inUseSpace": total.saturating_sub(free),
    })
}

/// When this process began to serve, by both clocks.
static STARTED: OnceLock<(Instant, i64)> = OnceLock::new();

pub(crate) fn note_start() {
    STARTED.get_or_init(|| (Instant::now(), now_ms()));
}

pub(super) fn timing() -> Value {
    let (since, at) = STARTED.get_or_init(|| (Instant::now(), now_ms()));
    json!({ "up-time": u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX), "start-time": at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_plausible() {
        let memory = memory();
        assert!(memory["totalMemory"].as_u64() >= memory["inUseMemory"].as_u64());
        let space = file_system();
        assert!(space["totalSpace"].as_u64() >= space["usableSpace"].as_u64());
        assert!(about()["processorCount"].as_u64() > Some(0));
        assert!(timing()["start-time"].as_i64() > Some(1_600_000_000_000));
    }
}
