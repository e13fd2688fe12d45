//! Waiting for a command and everything that it has started, however deep.
//!
//! The process makes itself the reaper of its descendants: one whose parent has died becomes its
//! own child, so that waiting for children until there are none waits for all of them.

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, set_child_subreaper, wait};
use std::io;
use std::time::Duration;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// The code that a shell would show.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

/// Makes this process the reaper of its descendants from now on.
///
/// # Errors
/// What the system says.
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// How often descendants that outlive the command are looked at.
const PATIENCE: Duration = Duration::from_millis(50);

/// Waits until no descendant is left. `command_ended` is told when the first of them, the command
/// itself, has ended; from then on the waiting also ends when `give_up` says so. Returns how the
/// command ended.
pub fn wait_for_all(
    command: Pid,
    mut command_ended: impl FnMut(),
    give_up: &dyn Fn() -> bool,
) -> Option<Ended> {
    let mut ended = None;
    loop {
        // Until the command has ended there is nothing else to look at.
        let options = if ended.is_none() { WaitOptions::empty() } else { WaitOptions::NOHANG };
        match wait(options) {
            Ok(Some((pid, status))) if pid == command => {
                ended = Some(ended_of(status));
                command_ended();
            }
            Ok(None) if give_up() => return ended,
            Ok(None) => std::thread::sleep(PATIENCE),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // ECHILD: none is left.
            Err(_) => return ended,
        }
    }
}

fn ended_of(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Code(u8::MAX),
    }
}
