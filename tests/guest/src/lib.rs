//! Debian's kernels in QEMU: what no test may do to the machine that it runs on.
//!
//! ```text
//! apt ──▶ Kernel ─┐
//! programs ──▶ Initramfs ─┼─▶ Machine ─▶ Running ─▶ Verdict
//! image, cache ──▶ Disk ──┘               │
//!                                         └─ power cut
//! ```
//!
//! A guest has three serial ports: the kernel's log, what the script prints, and *data* that the script
//! hands to the host, which stays with the host whatever happens to the guest.
//!
//! What a machine lacks for this (QEMU, a kernel in apt's lists) is [`GuestError::Missing`]: the test says
//! that it was skipped, and why.

mod apt;
mod command;
mod disk;
mod initramfs;
mod kernel;
mod machine;
mod module;
mod nbd;
mod verdict;
mod volatile;

pub use apt::Cache;
pub use disk::{CacheMode, Disk, Image};
pub use initramfs::Initramfs;
pub use kernel::{Kernel, Line};
pub use machine::{Accelerator, Machine, Running};
pub use module::Headers;
pub use verdict::{End, Verdict};
pub use volatile::{Loss, Volatile};

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// This machine does not have what it takes: the test is skipped.
    #[error("{0}")]
    Missing(String),
    /// Something that should work did not.
    #[error("{doing}: {why}")]
    Failed {
        /// What was being done.
        doing: String,
        /// What went wrong.
        why: String,
    },
}

impl GuestError {
    pub(crate) fn failed(doing: impl Into<String>, why: impl ToString) -> Self {
        Self::Failed { doing: doing.into(), why: why.to_string() }
    }
}

/// What went right, or why not.
pub type Result<T> = std::result::Result<T, GuestError>;
