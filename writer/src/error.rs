//! Why the writer could not do what it was asked.

use crate::keys::KeyTrouble;
use graven_format::FormatError;
use graven_format::recovery::Refusal;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Storage failed: the writer is poisoned for good. The next start reads the truth from the disk.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{operation} of {file}{} failed: {source}; {}",
    offset.map(|offset| format!(" at offset {offset:#x}")).unwrap_or_default(),
    durable_text(*durable)
)]
pub struct WriteError {
    /// What was done, as a noun.
    pub operation: &'static str,
    /// The file's name in the trail directory.
    pub file: String,
    /// Where in it.
    pub offset: Option<u64>,
    /// How many records of the trail were announced durable before.
    pub durable: u64,
    /// How many had been accepted.
    pub accepted: u64,
    /// Whether the disk had no room and the writer was told to end then, or to wait no longer.
    pub no_room: bool,
    /// What the system said.
    #[source]
    pub source: Arc<io::Error>,
}

impl WriteError {
    /// The sequences of the records that were accepted and not announced durable. If `no_room`, none
    /// of them is on the disk; else the next start finds out which are.
    #[must_use]
    pub fn unannounced(&self) -> Range<u64> {
        self.durable..self.accepted.max(self.durable)
    }
}

/// What is still good, in words.
fn durable_text(durable: u64) -> String {
    match durable.checked_sub(1) {
        None => "no record was announced durable".to_owned(),
        Some(last) => format!("all records up to seq {last} are durable"),
    }
}

/// Why a trail could not be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path is there and is no directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// The directory has files and none of them is a trail's identity.
    #[error("{dir} is not a trail: it holds {example:?} and no file named `identity`")]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// One of its files.
        example: String,
    },
    /// Another writer has it.
    #[error("{dir} is locked by {}", pid.map_or_else(|| "another writer".to_owned(), |pid| format!("the writer with pid {pid}")))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The other writer's pid, if the lock file tells.
        pid: Option<u32>,
    },
    /// The writer that had it is dead, and the disk still works on what it was given.
    #[error("{dir}: the writer with pid {pid} has ended, but the disk has not ended its writes")]
    Ending {
        /// The directory.
        dir: PathBuf,
        /// The pid that the writer had.
        pid: u32,
    },
    /// The identity or a segment is of a later version, or not readable.
    #[error("{file}: {source}")]
    Format {
        /// The file's name.
        file: String,
        /// What is wrong.
        #[source]
        source: FormatError,
    },
    /// Recovery found something that had been announced durable and is not what it was.
    #[error(
        "segment {:#x}: offset {:#x}, seq {}: {}; recovery does not write over evidence",
        .0.segment, .0.finding.offset, .0.finding.seq, .0.finding
    )]
    Damaged(Box<Refusal>),
    /// The trail cannot be signed as it must be.
    #[error(transparent)]
    Key(#[from] KeyTrouble),
    /// An option is out of its range.
    #[error("{option} is {value}; it must be {range}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        range: String,
    },
    /// The system said no.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The first segment could not be made.
    #[error(transparent)]
    Write(#[from] WriteError),
}
