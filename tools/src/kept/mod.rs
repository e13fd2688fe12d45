//! `graven record --source netlink` as two processes: the keeper, which takes from the kernel, and the writer,
//! which makes it durable. Each starts the other again when it dies. See
//! `docs/decisions/0012-keeper-and-writer.md`.

mod again;
mod inherited;
pub mod keeper;
mod policy;
pub mod writer;

pub use inherited::Inherited;

use crate::recording::Failure;
use crate::exit::Exit;
use graven_writer::keeper::MemoryError;
use std::io;

/// A shared memory that cannot be used.
fn memory_failure(why: &MemoryError) -> Failure {
    Failure::new(Exit::CannotCheck, &why.to_string())
}

/// A process that could not be started.
fn no_process(which: &str, why: &io::Error) -> Failure {
    Failure::new(Exit::CannotCheck, &format!("cannot start the {which}: {why}"))
}
