//! A process that only waits for the end of keeper and writer, however they end, and then thaws what they have
//! frozen: nobody stays frozen because we were killed.
//!
//! It waits for the end of a pipe of which keepers and writers hold the other end.

use super::freeze::Cgroup;
use super::{myself, no_process};
use crate::exit::Exit;
use crate::recording::Failure;
use graven_writer::keeper::spawn;
use rustix::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// How the option says that a process is the guard, before the number of the pipe's end.
pub(super) const ROLE: &str = "guard:";

/// Waits, and thaws.
///
/// # Errors
/// [`Failure`] if there is no such pipe.
pub fn guard(end: RawFd, cgroups: &[PathBuf]) -> Result<Exit, Failure> {
    let end = spawn::inherited(end).map_err(|why| no_process("guard", &why.into()))?;
    let _ = rustix::thread::set_name(c"graven-guard");
    // Until nobody holds the other end any more.
    while let Ok(1..) | Err(Errno::INTR) = rustix::io::read(&end, &mut [0; 8]) {}
    for path in cgroups {
        // What was never frozen is thawed as well, which changes nothing; one that is gone is thawed.
        let _ = Cgroup::open(path).map(|cgroup| cgroup.thaw());
    }
    Ok(Exit::Success)
}

/// Whether this process is a guard.
pub(super) fn is_one(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0).any(|word| word.starts_with(ROLE.as_bytes()))
    })
}

/// Ends the guard, whoever has started it.
pub(super) fn dismiss(child: Option<Child>, pid: Option<u32>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    } else if let Some(pid) = pid.filter(|pid| is_one(*pid))
        && let Some(pid) = Pid::from_raw(pid.cast_signed())
    {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Starts the guard. It has no output of ours, which others wait for the end of.
///
/// # Errors
/// [`Failure`].
pub(super) fn start(end: &OwnedFd, cgroups: &[&Path]) -> Result<Child, Failure> {
    let mut command = myself();
    // It has no trail; the option has to be there.
    command.args(["record", "--source", "netlink", "--trail", "/"]);
    for path in cgroups {
        command.arg("--freeze-cgroup").arg(path);
    }
    command.arg(super::inherited::OPTION);
    command.arg(format!("{ROLE}{}", end.as_raw_fd()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn::spawn(&mut command, &[end.as_fd()]).map_err(|why| no_process("guard", &why))
}
