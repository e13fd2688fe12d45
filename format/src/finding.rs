//! What a reader finds wrong, as data: where, which records, and what it means.

use crate::codec::DecodeError;
use crate::error::FormatError;
use crate::lines::TextError;
use crate::record::{RecordError, Source};
use core::fmt;

/// Something in a segment that is not as the writer wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// First byte of it in the segment's file.
    pub offset: u64,
    /// Bytes that it covers.
    pub len: u64,
    /// Seq of the first record at or after it.
    pub seq: u64,
    /// Records that are known to be missing here.
    pub missing: u64,
}

/// The kinds of [`Finding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The file has no bytes at all.
    EmptyFile,
    /// The segment's header is not readable.
    Header(FormatError),
    /// The header says another segment, first seq or trail than the file's name and neighbours.
    Misplaced {
        /// The field that differs.
        field: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// Bytes that are no frame, with an intact frame or trailer after them.
    Unreadable(FormatError),
    /// Bytes that are no frame, with nothing intact after them.
    Tail(FormatError),
    /// Bytes between the last frame and the trailer that should be zero.
    Gap,
    /// A frame does not name the frame before it.
    Chain {
        /// The CRC of the frame before it.
        expected: u32,
        /// The CRC that it names.
        found: u32,
    },
    /// A frame's records do not follow those before it.
    Sequence {
        /// The seq that should follow.
        expected: u64,
        /// The seq that the frame has.
        found: u64,
    },
    /// A frame is intact, but what is compressed in it is not what it states.
    Decode(DecodeError),
    /// A frame is intact, but what is in it are not records.
    Record(RecordError),
    /// A frame is intact, but does not hold as many records as it says.
    RecordCount {
        /// What the header says.
        stated: u32,
        /// What is there.
        found: u32,
    },
    /// The trailer states something else than the frames show.
    Trailer {
        /// The field that differs.
        field: &'static str,
    },
    /// The Merkle tree over the records is not the one that the trailer states.
    Root,
    /// A checkpoint, in a record or in the trailer, does not cover what it stands behind.
    Checkpoint(CheckpointError),
    /// Bytes after the trailer, up to the end of what was reserved: the file was not cut yet.
    AfterTrailer,
    /// Bytes after the trailer of a file that is not as long as was reserved: somebody added them.
    Added,
    /// The file is not as long as was reserved, and has no trailer.
    Truncated {
        /// Bytes that were reserved.
        reserved: u64,
    },
}

/// Why a checkpoint does not belong where it stands. Signatures are for who has the keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is no signed note.
    #[error("{0}")]
    Text(#[from] TextError),
    /// It is a record of another source than Graven itself.
    #[error("it is a record of source {}", .0.name())]
    Source(Source),
    /// It is another log's.
    #[error("its origin is not this trail")]
    Origin,
    /// It covers another number of records than are before it.
    #[error("it covers {stated} records, {before} are before it")]
    Size {
        /// What it says.
        stated: u64,
        /// What is there.
        before: u64,
    },
    /// Its root is not that of the records before it.
    #[error("its root is not that of the records before it")]
    Root,
    /// It signs another header, reason or time than the segment's; or it is a record and signs one.
    #[error("what it signs is not what the segment's header and trailer say")]
    Sealed,
}

/// What a [`Finding`] means for whoever relies on the trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A write that was cut off before anything in it was announced durable.
    Tail,
    /// Written by a later version: this program cannot say.
    Unsupported,
    /// Something that had been announced durable is not what it was.
    Damage,
}

impl Finding {
    /// What it means, when `announced` records of the trail are known to have been announced and
    /// the finding is in the trail's last segment, or in one whose successors were never
    /// announced.
    #[must_use]
    pub fn class(&self, announced: u64, at_end_of_trail: bool) -> Class {
        match &self.kind {
            FindingKind::Header(why) | FindingKind::Unreadable(why) | FindingKind::Tail(why)
                if why.is_unsupported() =>
            {
                Class::Unsupported
            }
            FindingKind::Unreadable(_) | FindingKind::Tail(_)
                if at_end_of_trail && self.seq >= announced =>
            {
                Class::Tail
            }
            // Sealing writes the trailer first and cuts the file to it second.
            FindingKind::AfterTrailer if at_end_of_trail => Class::Tail,
            _ => Class::Damage,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FindingKind::EmptyFile => write!(f, "the file is empty"),
            FindingKind::Header(why) => write!(f, "{why}"),
            FindingKind::Misplaced { field, expected, found } => {
                write!(f, "segment header {field} is {found:#x}, should be {expected:#x}")
            }
            FindingKind::Unreadable(why) => write!(f, "unreadable bytes between records: {why}"),
            FindingKind::Tail(why) => write!(f, "unreadable bytes at the end: {why}"),
            FindingKind::Gap => write!(f, "bytes that should be zero are not"),
            FindingKind::Chain { expected, found } => write!(
                f,
                "frame does not follow the one before it: names checksum {found:08x}, that is {expected:08x}"
            ),
            FindingKind::Sequence { expected, found } => {
                write!(f, "frame starts at seq {found}, seq {expected} should follow")
            }
            FindingKind::Decode(why) => write!(f, "frame is intact, but {why}"),
            FindingKind::Record(why) => write!(f, "{why}"),
            FindingKind::RecordCount { stated, found } => {
                write!(f, "frame states {stated} records and holds {found}")
            }
            FindingKind::Trailer { field } => {
                write!(f, "trailer field {field} is not what the frames show")
            }
            FindingKind::Root => write!(f, "Merkle root is not that of the records"),
            FindingKind::Checkpoint(why) => write!(f, "checkpoint: {why}"),
            FindingKind::AfterTrailer => write!(f, "bytes after the trailer"),
            FindingKind::Added => write!(f, "bytes were added after the trailer"),
            FindingKind::Truncated { reserved } => {
                write!(
                    f,
                    "the file is not {reserved} bytes long as was reserved, and has no trailer"
                )
            }
        }
    }
}
