//! What an operation is, without what it carries.

use super::SimFaults;
use super::{FileId, Op};
use rustix::io::Errno;

/// The kinds of operations, to count them and to make one fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// [`Op::Create`].
    Create,
    /// [`Op::Open`].
    Open,
    /// [`Op::Allocate`].
    Allocate,
    /// [`Op::Zero`].
    Zero,
    /// [`Op::Write`].
    Write,
    /// [`Op::Truncate`].
    Truncate,
    /// [`Op::Sync`].
    Sync,
    /// [`Op::Rename`].
    Rename,
    /// [`Op::Remove`].
    Remove,
    /// [`Op::SyncDir`].
    SyncDir,
    /// [`Op::Close`].
    Close,
}

impl OpKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Create,
        Self::Open,
        Self::Allocate,
        Self::Zero,
        Self::Write,
        Self::Truncate,
        Self::Sync,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Close,
    ];

    /// The kind of an operation.
    #[must_use]
    pub fn of(op: &Op) -> Self {
        match op {
            Op::Create { .. } => Self::Create,
            Op::Open { .. } => Self::Open,
            Op::Allocate { .. } => Self::Allocate,
            Op::Zero { .. } => Self::Zero,
            Op::Write { .. } => Self::Write,
            Op::Truncate { .. } => Self::Truncate,
            Op::Sync { .. } => Self::Sync,
            Op::Rename { .. } => Self::Rename,
            Op::Remove { .. } => Self::Remove,
            Op::SyncDir => Self::SyncDir,
            Op::Close { .. } => Self::Close,
        }
    }

    /// How it fails by chance, and how often.
    pub(super) fn fault(self, faults: &SimFaults) -> (Errno, u32) {
        match self {
            Self::Write => (Errno::IO, faults.write_error_ppm),
            Self::Sync => (Errno::IO, faults.sync_error_ppm),
            Self::SyncDir => (Errno::IO, faults.sync_dir_error_ppm),
            Self::Rename | Self::Remove => (Errno::IO, faults.rename_error_ppm),
            Self::Create | Self::Allocate => (Errno::NOSPC, faults.no_space_ppm),
            Self::Open | Self::Zero | Self::Truncate | Self::Close => {
                (Errno::IO, faults.other_error_ppm)
            }
        }
    }
}

/// The open file that an operation needs, if it needs one.
pub(super) fn file_of(op: &Op) -> Option<FileId> {
    match op {
        Op::Allocate { file, .. }
        | Op::Zero { file, .. }
        | Op::Write { file, .. }
        | Op::Truncate { file, .. }
        | Op::Sync { file }
        | Op::Close { file } => Some(*file),
        Op::Create { .. } | Op::Open { .. } | Op::Rename { .. } | Op::Remove { .. } => None,
        Op::SyncDir => None,
    }
}
