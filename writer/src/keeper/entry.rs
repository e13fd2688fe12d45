//! What the keeper tells the writer, and how it lies in a block.
//!
//! ```text
//! word 0   kind (8 bits) · bytes of text (24 bits) · whole length or failed sends (32 bits)
//! word 1   realtime, ns since 1970
//! word 2   time since boot, ns
//! then     text, filled up with zeros to a whole word
//! ```

use super::MemoryError;
use crate::clock::Now;

/// Bytes of an entry beside its text, with the filling.
pub(super) const OVERHEAD_BYTES_MAX: usize = HEAD_BYTES + 8;
pub(super) const HEAD_BYTES: usize = 24;

const DATAGRAM: u64 = 1;
const EMPTY: u64 = 2;
const EMPTY_COUNTED: u64 = 3;
const NOTE: u64 = 4;

/// The socket had nothing at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty {
    /// When that was seen.
    pub at: Now,
    /// How many sends to the socket had failed for want of room until then, where that was asked.
    pub failed_sends: Option<u32>,
}

/// What the keeper says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A datagram of the kernel.
    Datagram {
        /// When it was taken.
        at: Now,
        /// Bytes that were sent; more than `bytes` if it was cut.
        whole_len: usize,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// The socket was found empty.
    Empty(Empty),
    /// What the keeper did or saw.
    Note {
        /// When.
        at: Now,
        /// What, in words of its own.
        text: &'a [u8],
    },
}

impl<'a> Entry<'a> {
    /// The three words in front of a text.
    pub(super) fn head(kind: Kind, text_len: usize, at: Now) -> [u64; 3] {
        let (kind, more) = match kind {
            Kind::Datagram { whole_len } => {
                (DATAGRAM, u32::try_from(whole_len).unwrap_or(u32::MAX))
            }
            Kind::Empty { failed_sends: None } => (EMPTY, 0),
            Kind::Empty { failed_sends: Some(count) } => (EMPTY_COUNTED, count),
            Kind::Note => (NOTE, 0),
        };
        [kind | (text_len as u64) << 8 | u64::from(more) << 32, at.realtime_ns, at.boottime_ns]
    }

    /// The entry at the start of `bytes`, and how many of them are it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<(Self, usize), MemoryError> {
        let wrong = MemoryError::Corrupted("an entry is none");
        let word = |index: usize| {
            bytes.get(8 * index..)?.first_chunk::<8>().map(|word| u64::from_le_bytes(*word))
        };
        let (Some(first), Some(realtime_ns), Some(boottime_ns)) = (word(0), word(1), word(2))
        else {
            return Err(wrong);
        };
        let at = Now { realtime_ns, boottime_ns };
        let (len, more) = ((first >> 8 & 0xff_ffff) as usize, (first >> 32) as u32);
        let text = bytes.get(HEAD_BYTES..HEAD_BYTES + len).ok_or(wrong.clone())?;
        let entry = match first & 0xff {
            DATAGRAM if more as usize >= len => {
                Self::Datagram { at, whole_len: more as usize, bytes: text }
            }
            EMPTY if len == 0 && more == 0 => Self::Empty(Empty { at, failed_sends: None }),
            EMPTY_COUNTED if len == 0 => Self::Empty(Empty { at, failed_sends: Some(more) }),
            NOTE if more == 0 => Self::Note { at, text },
            _ => return Err(wrong),
        };
        Ok((entry, bytes_of(len)))
    }

    /// When it was made.
    #[must_use]
    pub fn at(&self) -> Now {
        match *self {
            Self::Datagram { at, .. } | Self::Empty(Empty { at, .. }) | Self::Note { at, .. } => at,
        }
    }
}

/// An entry without its text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Datagram { whole_len: usize },
    Empty { failed_sends: Option<u32> },
    Note,
}

/// Bytes of an entry with a text of this length.
pub(super) fn bytes_of(text_len: usize) -> usize {
    HEAD_BYTES + text_len.next_multiple_of(8)
}
