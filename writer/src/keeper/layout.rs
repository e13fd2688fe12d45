//! What lies where in the shared memory, in bytes from its start. Every word is a little-endian u64.
//!
//! ```text
//!      0  magic, version, bytes of all, frames, descriptors
//!    256  head: what is published · staged_at: the head for which the staging area was filled
//!    512  asleep: the writer waits, and wants to be woken
//!    768  taken: the head for which the next two are right · position in the ring that the kernel fills · datagrams
//!         that were taken from the socket beside it
//!   1024  done, first slot          1152  done, second slot
//!   2048  the session: what a successor has to know, see SESSION_WORDS
//!   4096  descriptors, two words each: place · bytes used
//!      .  staging: message headers and vectors, then the slots
//!      .  frames of 256 KiB
//! ```

use super::MemoryError;
use crate::source::datagrams::{SLOT_BYTES, SLOTS, STAGGER_BYTES};

/// Bytes of a block, and of the frame that it lies in.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Smallest shared memory.
pub const MEMORY_BYTES_MIN: u64 = 8 << 20;
/// Largest shared memory.
pub const MEMORY_BYTES_MAX: u64 = 64 << 30;
/// Words of the session area, for whoever uses the memory.
pub const SESSION_WORDS: usize = 64;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"GRVKEEP\0");
pub(super) const VERSION: u64 = 1;

pub(super) const AT_MAGIC: usize = 0;
pub(super) const AT_VERSION: usize = 8;
pub(super) const AT_BYTES: usize = 16;
pub(super) const AT_FRAMES: usize = 24;
pub(super) const AT_DESCRIPTORS: usize = 32;
pub(super) const AT_HEAD: usize = 256;
pub(super) const AT_STAGED: usize = 264;
pub(super) const AT_ASLEEP: usize = 512;
pub(super) const AT_TAKEN: usize = 768;
pub(super) const AT_DONE: [usize; 2] = [1024, 1152];
pub(super) const AT_SESSION: usize = 2048;
const AT_TABLE: usize = 4096;

/// Descriptors for each frame: audit text becomes about a tenth, so that a frame holds about ten blocks.
const DESCRIPTORS_PER_FRAME: usize = 16;
const DESCRIPTOR_BYTES: usize = 16;
const PAGE_BYTES: usize = 4096;
/// Space of one message header with its vector.
pub(super) const HEADER_BYTES: usize = 128;

/// Frames that one batch of datagrams can need beside the one that is being filled, and one that is taken to
/// compress meanwhile.
pub(super) const BATCH_FRAMES_MAX: usize = (SLOTS
    * (SLOT_BYTES + super::entry::OVERHEAD_BYTES_MAX))
    .div_ceil(BLOCK_BYTES - SLOT_BYTES - super::entry::OVERHEAD_BYTES_MAX)
    + 2;

/// Frames that are left for notes where nothing more is taken, the one that is compressed into meanwhile being one of them: what
/// happens while the memory is full is said then, and not forgotten with the keeper that saw it.
pub(super) const NOTES_FRAMES: usize = 2;
/// Frames without which nothing is taken.
pub(super) const TAKE_FRAMES: usize = BATCH_FRAMES_MAX + NOTES_FRAMES;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(PAGE_BYTES));
const _: () = assert!(AT_SESSION + 8 * SESSION_WORDS <= AT_TABLE);
const _: () = assert!(SLOT_BYTES + super::entry::OVERHEAD_BYTES_MAX < BLOCK_BYTES);
const _: () = assert!(MEMORY_BYTES_MIN as usize > 2 * TAKE_FRAMES * BLOCK_BYTES);

/// Where the parts of one memory begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) frames: usize,
    pub(super) descriptors: usize,
    pub(super) staging: usize,
    pub(super) slots: usize,
    frames_at: usize,
    pub(super) bytes: usize,
}

impl Geometry {
    /// A memory with so many bytes of frames.
    pub(super) fn of(frame_bytes: u64) -> Self {
        let bytes = frame_bytes.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX);
        let frames = usize::try_from(bytes).unwrap_or(usize::MAX) / BLOCK_BYTES;
        Self::with_frames(frames)
    }

    fn with_frames(frames: usize) -> Self {
        let page = |bytes: usize| bytes.next_multiple_of(PAGE_BYTES);
        let descriptors = frames * DESCRIPTORS_PER_FRAME;
        let staging = AT_TABLE + page(descriptors * DESCRIPTOR_BYTES);
        let slots = staging + page(SLOTS * HEADER_BYTES);
        let frames_at = slots + page(SLOTS * (SLOT_BYTES + STAGGER_BYTES));
        Self {
            frames,
            descriptors,
            staging,
            slots,
            frames_at,
            bytes: frames_at + frames * BLOCK_BYTES,
        }
    }

    /// The geometry that a header claims, if a memory of `bytes` can have it.
    pub(super) fn claimed(frames: u64, bytes: usize) -> Option<Self> {
        let frames = usize::try_from(frames).ok()?;
        (MEMORY_BYTES_MIN as usize / BLOCK_BYTES..=MEMORY_BYTES_MAX as usize / BLOCK_BYTES)
            .contains(&frames)
            .then(|| Self::with_frames(frames))
            .filter(|it| it.bytes == bytes)
    }

    pub(super) fn frame(&self, frame: usize) -> usize {
        self.frames_at + frame * BLOCK_BYTES
    }

    /// Where the two words of a block's descriptor are.
    pub(super) fn descriptor(&self, block: u64) -> (usize, usize) {
        let index = (block % self.descriptors as u64) as usize;
        let at = AT_TABLE + index * DESCRIPTOR_BYTES;
        (at, at + 8)
    }
}

/// A place in the endless FIFO of entries: a block, and an offset in it. It orders entries, and is
/// the number of the entry that begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    const UNIT_BITS: u32 = 16;

    /// The beginning.
    pub const START: Self = Self(0);

    pub(super) const fn new(block: u64, offset: usize) -> Self {
        Self(block << Self::UNIT_BITS | (offset as u64 / 8))
    }

    /// What a word says, if that can be a position.
    pub(super) fn read(word: u64) -> Result<Self, MemoryError> {
        let this = Self(word);
        if this.offset() <= BLOCK_BYTES {
            Ok(this)
        } else {
            Err(MemoryError::Corrupted("a position is outside its block"))
        }
    }

    pub(super) const fn word(self) -> u64 {
        self.0
    }

    /// The number of the block.
    #[must_use]
    pub const fn block(self) -> u64 {
        self.0 >> Self::UNIT_BITS
    }

    /// Bytes from the start of the block.
    #[must_use]
    pub const fn offset(self) -> usize {
        (self.0 & ((1 << Self::UNIT_BITS) - 1)) as usize * 8
    }
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// As it is, in this frame.
    Raw { frame: usize },
    /// Compressed, in a part of this frame.
    Packed { frame: usize, offset: usize, len: usize },
}

impl Place {
    const RAW: u64 = 1;
    const PACKED: u64 = 2;

    /// Kind in 2 bits, frame in 24, then offset in words of 8 bytes in 16, and length in bytes in 20.
    pub(super) fn word(self) -> u64 {
        match self {
            Self::Raw { frame } => Self::RAW | (frame as u64) << 2,
            Self::Packed { frame, offset, len } => {
                Self::PACKED | (frame as u64) << 2 | (offset as u64 / 8) << 26 | (len as u64) << 42
            }
        }
    }

    pub(super) fn read(word: u64, frames: usize) -> Result<Self, MemoryError> {
        let frame = (word >> 2 & 0xff_ffff) as usize;
        let (offset, len) = ((word >> 26 & 0xffff) as usize * 8, (word >> 42) as usize);
        let place = match word & 3 {
            Self::RAW if offset == 0 && len == 0 => Self::Raw { frame },
            Self::PACKED if len > 0 && offset + len <= BLOCK_BYTES => {
                Self::Packed { frame, offset, len }
            }
            _ => return Err(MemoryError::Corrupted("a descriptor is none")),
        };
        if frame < frames {
            Ok(place)
        } else {
            Err(MemoryError::Corrupted("a descriptor names a frame that there is not"))
        }
    }

    pub(super) fn frame(self) -> usize {
        match self {
            Self::Raw { frame } | Self::Packed { frame, .. } => frame,
        }
    }
}

const _: () = assert!(MEMORY_BYTES_MAX as usize / BLOCK_BYTES < 1 << 24);
const _: () = assert!(BLOCK_BYTES / 8 < 1 << 16);
