//! `graven record --source netlink` as two processes: the keeper, which takes from the kernel, and the writer,
//! which makes it durable. Each starts the other again when it dies. See
//! `docs/decisions/0012-keeper-and-writer.md`.

mod again;
mod freeze;
pub mod guard;
mod inherited;
pub mod keeper;
mod policy;
mod pressure;
pub mod writer;

pub use inherited::{Descriptors, Inherited, Shared};
pub use pressure::RingFull;

use crate::exit::Exit;
use crate::recording::Failure;
use graven_writer::keeper::{MemoryError, Role};
use rustix::fd::OwnedFd;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// This program, also when its file has been replaced by another meanwhile.
fn myself() -> Command {
    let mut command = Command::new("/proc/self/exe");
    // A name is for people.
    command.arg0("graven");
    command
}

/// Names this process, which was started by a name that says nothing.
fn call_it(role: Role) {
    // A name is for people.
    let _ = rustix::thread::set_name(match role {
        Role::Keeper => c"graven",
        Role::Writer => c"graven-writer",
    });
}

/// Takes what this process inherits, once, and before anything else is opened; and the process that started it.
///
/// # Errors
/// [`Failure`].
pub fn open(fds: Descriptors) -> Result<(Shared, OwnedFd), Failure> {
    inherited::open(fds).map_err(|why| memory_failure(&why))
}

/// The configuration that was in force when this process was started.
///
/// # Errors
/// [`Failure`].
pub fn config(shared: &Shared) -> Result<Option<String>, Failure> {
    shared.config().map_err(|why| memory_failure(&why))
}

/// A shared memory that cannot be used.
fn memory_failure(why: &MemoryError) -> Failure {
    Failure::new(Exit::CannotCheck, &why.to_string())
}

/// A process that could not be started.
fn no_process(which: &str, why: &io::Error) -> Failure {
    Failure::new(Exit::CannotCheck, &format!("cannot start the {which}: {why}"))
}
