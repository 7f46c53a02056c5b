//! Load and memory of the machine and this process, as the node's row shows them.
//!
//! Reads `/proc`; where there is none, says nothing.

use std::fs;

/// Measures CPU load between calls.
#[derive(Debug, Default)]
pub struct LoadMeter {
    last: Option<(u64, u64)>,
}

impl LoadMeter {
    /// Share of CPU time the machine was busy since the last call, 0 to 100; none at the first.
    pub fn percent(&mut self) -> Option<u64> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let numbers: Vec<u64> =
            text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        let total: u64 = numbers.iter().take(8).sum();
        let idle: u64 = numbers.iter().skip(3).take(2).sum();
        let (last_total, last_idle) = self.last.replace((total, idle))?;
        let elapsed = total.checked_sub(last_total).filter(|n| *n > 0)?;
        Some(100 - (idle.saturating_sub(last_idle) * 100 / elapsed).min(100))
    }
}

/// Memory in use and in all, in MB.
pub fn memory_mb() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
    };
    let total = field("MemTotal:")?;
    Some((total.saturating_sub(field("MemAvailable:")?), total))
}

/// File descriptors this process may still open; none where that is unlimited or unknown.
pub fn descriptors_left() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(limit.saturating_sub(u64::try_from(open).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_plausible() {
        let mut meter = LoadMeter::default();
        assert_eq!(meter.percent(), None, "nothing to compare with yet");
        if let Some((used, total)) = memory_mb() {
            assert!(used <= total && total > 0);
        }
        assert!(descriptors_left().is_none_or(|left| left > 0));
    }
}
