//! `ams-node drain`: tells a running node of this machine to leave, or to stay after all.
//!
//! Owns the search for the node and one signal. The system decides who may send it, so no secret is needed.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::DrainArgs;
use crate::exit::{Exit, ExitError};

/// Commands of this program that are no node, or none that drains.
const NO_NODES: [&str; 4] = ["drain", "health", "bench", "demo"];
/// What the system adds to the path of a program that was replaced while it ran.
const REPLACED: &str = " (deleted)";

/// Sends the wish.
///
/// # Errors
/// There is no such node, or several, or the system does not allow it.
pub(crate) fn run(args: &DrainArgs) -> Result<(), ExitError> {
    let pid = match args.pid {
        Some(pid) => pid,
        None => the_only(&nodes())?,
    };
    let wrong = || ExitError::new(Exit::Config, format!("{pid} is not a process id"));
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(wrong)?;
    let signal = if args.cancel { Signal::USR2 } else { Signal::USR1 };
    kill_process(process, signal).map_err(|error| match error {
        rustix::io::Errno::PERM => {
            ExitError::new(Exit::Permission, format!("process {pid} is another user's")).hint("run this as that user")
        }
        error => ExitError::new(Exit::Unhealthy, format!("process {pid} cannot be told: {error}")),
    })?;
    match args.cancel {
        true => println!("node {pid} stays"),
        false => println!("node {pid} drains; its log says how far it is, `ams-node drain --cancel` keeps it"),
    }
    Ok(())
}

fn the_only(nodes: &[u32]) -> Result<u32, ExitError> {
    match nodes {
        [pid] => Ok(*pid),
        [] => Err(ExitError::new(Exit::Unhealthy, "no node runs on this machine").hint("name it with --pid")),
        several => {
            let pids: Vec<String> = several.iter().map(ToString::to_string).collect();
            let found = format!("several nodes run on this machine: {}", pids.join(", "));
            Err(ExitError::new(Exit::Config, found).hint("choose one with --pid"))
        }
    }
}

/// Processes that run this program as a node.
fn nodes() -> Vec<u32> {
    let own = std::process::id();
    let program = |pid: &str| {
        let path = fs::read_link(PathBuf::from("/proc").join(pid).join("exe")).ok()?;
        let path = path.to_str()?;
        Some(path.strip_suffix(REPLACED).unwrap_or(path).to_owned())
    };
    let Some(this) = program("self") else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_node = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = arguments.split(|byte| *byte == 0).nth(1).unwrap_or_default();
        program(&pid.to_string()).is_some_and(|found| found == this)
            && !NO_NODES.iter().any(|name| name.as_bytes() == command)
    };
    let mut found: Vec<u32> = pids.filter(|pid| *pid != own).filter(is_node).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_is_meant_without_a_word() {
        assert_eq!(the_only(&[7]).unwrap(), 7);
        assert!(the_only(&[]).unwrap_err().to_string().contains("no node runs"));
        let several = the_only(&[7, 9]).unwrap_err();
        assert!(several.to_string().contains("7, 9") && several.to_string().contains("--pid"));
    }
}
