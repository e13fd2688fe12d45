//! The memory that the keeper and the writer share, so that the death of either loses nothing.
//!
//! The *keeper* takes datagrams from the kernel's socket and publishes them as entries; the *writer* reads
//! entries, and gives their room back when what they say is durable. Each is one process, and
//! may be killed between any two instructions: its successor maps the same memory, at another address, and goes on.
//!
//! # The memory
//! One memfd, sealed against any change of its size: a header, a table of descriptors, a staging area for
//! `recvmmsg`, and frames of 256 KiB. The entries are one endless FIFO, cut into blocks; a block lies in a frame, or is
//! compressed and lies in a part of one, which its descriptor says. See [`layout`].
//!
//! # Why a kill costs nothing
//! - *Publishing* is one store of the head. What a keeper had written behind it does not exist.
//! - *Staging*: a header field says at which head the staging area was filled. A new keeper that finds
//!   it to be the head publishes what lies there; else that had been published.
//! - *Compressing* writes to a free place first, and then switches the descriptor in one store.
//! - *Free room* is what no living descriptor names. It is never stored, so that it cannot be wrong.
//! - *Done*, up to where everything is durable, has two slots, of which the older one is overwritten.
//!
//! # Why nothing here is undefined
//! Every access is an atomic word or made by the kernel, and nothing that is read is trusted: a position, a
//! place or a length out of bounds is an error that says so.

mod alloc;
mod consumer;
mod entry;
mod feed;
mod layout;
mod map;
mod memory;
mod packer;
mod producer;
mod session;
pub mod spawn;
mod staging;
mod vault;

#[cfg(test)]
mod tests;

pub use consumer::Consumer;
pub use entry::{Empty, Entry};
pub(crate) use feed::SharedFeed;
pub use feed::{Kept, Progress, settled_of};
pub use layout::{BLOCK_BYTES, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, Position, SESSION_WORDS};
pub use memory::{Done, Memory};
pub use packer::Packer;
pub use producer::{Producer, Taken};
pub use session::{Role, Session};
pub use vault::Vault;

use rustix::io::Errno;

/// Why a shared memory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// A system call failed.
    #[error("shared memory: {operation}: {errno}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// How it failed.
        errno: Errno,
    },
    /// It is no such memory, or one of another version.
    #[error("shared memory of another kind or version: {0}")]
    Foreign(&'static str),
    /// No process fills it any more.
    #[error("the keeper ended, and what it held was recorded")]
    Over,
    /// Something in it is not as any keeper or writer leaves it.
    #[error("the shared memory of keeper and writer is corrupted: {0}")]
    Corrupted(&'static str),
}

impl MemoryError {
    fn system(operation: &'static str, errno: Errno) -> Self {
        Self::System { operation, errno }
    }
}
