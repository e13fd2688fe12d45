//! A shared memory with a checked geometry, and the words that both sides read.

use super::MemoryError;
use super::layout::{
    AT_ASLEEP, AT_BYTES, AT_DESCRIPTORS, AT_DONE, AT_FRAMES, AT_HEAD, AT_MAGIC, AT_SESSION,
    AT_STAGED, AT_TAKEN, AT_VERSION, BLOCK_BYTES, Geometry, MAGIC, Place, Position, SESSION_WORDS,
    VERSION,
};
use super::map::Map;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Up to where everything is durable, and where the rest can be found in the trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// All entries before it are durable, or say nothing that becomes a record.
    pub position: Position,
    /// The records of entries before it have lower seqs; those of entries from it on have this one or
    /// a higher one.
    pub seq: u64,
    /// What else has to be found again, as durable: words that this module gives no meaning.
    pub more: [u64; DONE_MORE],
}

/// Up to where the kernel's ring was read, and how many datagrams of the socket beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) position: u64,
    pub(super) received: u32,
}

/// Words beside a position and a seq.
const DONE_MORE: usize = 4;
/// Words of a slot: turn, position, seq, more, and last the check over them.
const SLOT_WORDS: usize = 4 + DONE_MORE;
const AT_CHECK: usize = 8 * (SLOT_WORDS - 1);

/// Loads of the two slots before it is believed that neither is whole: the other side rewrites one at a time.
const DONE_TRIES: usize = 1000;

/// A shared memory, mapped.
#[derive(Debug)]
pub struct Memory {
    pub(super) map: Map,
    pub(super) geometry: Geometry,
}

impl Memory {
    /// Makes one with so many bytes for entries, kept within [`super::MEMORY_BYTES_MIN`] and
    /// [`super::MEMORY_BYTES_MAX`].
    ///
    /// # Errors
    /// What the system says.
    pub fn create(bytes: u64) -> Result<Self, MemoryError> {
        let geometry = Geometry::of(bytes);
        let map = Map::create(geometry.bytes)?;
        let this = Self { map, geometry };
        let store = |at, value| this.map.store(at, value, Ordering::Relaxed);
        store(AT_VERSION, VERSION);
        store(AT_BYTES, geometry.bytes as u64);
        store(AT_FRAMES, geometry.frames as u64);
        store(AT_DESCRIPTORS, geometry.descriptors as u64);
        this.set_nothing_staged();
        this.forget_taken();
        this.set_descriptor(0, Place::Raw { frame: 0 });
        this.write_done(0, 1, Done::default());
        this.map.store(AT_MAGIC, MAGIC, Ordering::Release);
        Ok(this)
    }

    /// Maps one that another process made.
    ///
    /// # Errors
    /// [`MemoryError`] if it is no such memory, or the system refuses.
    pub fn open(fd: OwnedFd) -> Result<Self, MemoryError> {
        let map = Map::open(fd)?;
        let load = |at| map.load(at, Ordering::Acquire);
        if load(AT_MAGIC) != MAGIC {
            return Err(MemoryError::Foreign("its magic"));
        }
        if load(AT_VERSION) != VERSION {
            return Err(MemoryError::Foreign("its version"));
        }
        let geometry = Geometry::claimed(load(AT_FRAMES), map.bytes())
            .filter(|it| load(AT_BYTES) == it.bytes as u64)
            .filter(|it| load(AT_DESCRIPTORS) == it.descriptors as u64)
            .ok_or(MemoryError::Corrupted("its sizes do not agree"))?;
        Ok(Self { map, geometry })
    }

    /// Bytes for entries.
    #[must_use]
    pub fn entry_bytes(&self) -> u64 {
        self.geometry.frames as u64 * BLOCK_BYTES as u64
    }

    /// A word of the session area, which this module gives no meaning.
    ///
    /// # Panics
    /// At or past [`SESSION_WORDS`].
    #[must_use]
    pub fn session(&self, index: usize) -> &AtomicU64 {
        assert!(index < SESSION_WORDS);
        self.map.word(AT_SESSION + 8 * index)
    }

    /// Up to where entries are published.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn head(&self) -> Result<Position, MemoryError> {
        Position::read(self.map.load(AT_HEAD, Ordering::Acquire))
    }

    pub(super) fn publish(&self, head: Position) {
        self.map.store(AT_HEAD, head.word(), Ordering::Release);
    }

    pub(super) fn staged_at(&self) -> u64 {
        self.map.load(AT_STAGED, Ordering::Acquire)
    }

    pub(super) fn set_staged_at(&self, head: Position) {
        self.map.store(AT_STAGED, head.word(), Ordering::Release);
    }

    /// What is staged is staged for no head that there is.
    pub(super) fn set_nothing_staged(&self) {
        self.map.store(AT_STAGED, u64::MAX, Ordering::Release);
    }

    /// Up to where the kernel's ring and its socket have been read once `head` is published.
    pub(super) fn set_taken(&self, head: Position, taken: Taken) {
        self.forget_taken();
        self.map.store(AT_TAKEN + 8, taken.position, Ordering::Relaxed);
        self.map.store(AT_TAKEN + 16, u64::from(taken.received), Ordering::Relaxed);
        self.map.store(AT_TAKEN, head.word(), Ordering::Release);
    }

    /// The same, if it is of this head.
    pub(super) fn taken(&self, head: Position) -> Option<Taken> {
        (self.map.load(AT_TAKEN, Ordering::Acquire) == head.word()).then(|| Taken {
            position: self.map.load(AT_TAKEN + 8, Ordering::Relaxed),
            received: self.map.load(AT_TAKEN + 16, Ordering::Relaxed) as u32,
        })
    }

    /// It is of no head that there is.
    pub(super) fn forget_taken(&self) {
        self.map.store(AT_TAKEN, u64::MAX, Ordering::Release);
    }

    /// Up to where the writer has made everything durable.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn done(&self) -> Result<Done, MemoryError> {
        Ok(self.newest_done()?.1)
    }

    /// The same, and how many times it was written.
    pub(super) fn newest_done(&self) -> Result<(u64, Done), MemoryError> {
        for _ in 0..DONE_TRIES {
            let slots = [0, 1].map(|slot| self.read_done(slot));
            let newest = slots.into_iter().flatten().max_by_key(|words| words[0]);
            if let Some([turn, position, seq, more @ ..]) = newest {
                return Ok((turn, Done { position: Position::read(position)?, seq, more }));
            }
            std::hint::spin_loop();
        }
        Err(MemoryError::Corrupted("neither place for what is done is whole"))
    }

    fn read_done(&self, slot: usize) -> Option<[u64; SLOT_WORDS - 1]> {
        let at = AT_DONE[slot];
        let check = self.map.load(at + AT_CHECK, Ordering::Acquire);
        let words = std::array::from_fn(|word| self.map.load(at + 8 * word, Ordering::Relaxed));
        fence(Ordering::Acquire);
        let again = self.map.load(at + AT_CHECK, Ordering::Relaxed);
        (check == again && check == check_of(&words)).then_some(words)
    }

    /// Writes what is done in turn `turn` to one of the two slots, which is not the newest.
    pub(super) fn write_done(&self, slot: usize, turn: u64, done: Done) {
        let at = AT_DONE[slot];
        let [a, b, c, d] = done.more;
        let words = [turn, done.position.word(), done.seq, a, b, c, d];
        // No check is ever zero: from here on the slot is not whole, until its last word is there.
        self.map.store(at + AT_CHECK, 0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (index, word) in words.into_iter().enumerate() {
            self.map.store(at + 8 * index, word, Ordering::Relaxed);
        }
        self.map.store(at + AT_CHECK, check_of(&words), Ordering::Release);
    }

    /// Where a block lies, as a word to compare, and as a place.
    pub(super) fn descriptor(&self, block: u64) -> Result<(u64, Place), MemoryError> {
        let word = self.map.load(self.geometry.descriptor(block).0, Ordering::Acquire);
        Ok((word, Place::read(word, self.geometry.frames)?))
    }

    /// Whether the descriptor is still this word, after all that was read before.
    pub(super) fn descriptor_is(&self, block: u64, word: u64) -> bool {
        fence(Ordering::Acquire);
        self.map.load(self.geometry.descriptor(block).0, Ordering::Relaxed) == word
    }

    pub(super) fn set_descriptor(&self, block: u64, place: Place) {
        self.map.store(self.geometry.descriptor(block).0, place.word(), Ordering::Release);
        // Whoever sees what is written to the frame that this set free sees this first.
        fence(Ordering::Release);
    }

    /// How long a block is that is not the last one.
    pub(super) fn used(&self, block: u64) -> Result<usize, MemoryError> {
        let used = self.map.load(self.geometry.descriptor(block).1, Ordering::Acquire);
        match usize::try_from(used) {
            Ok(used) if used <= BLOCK_BYTES && used.is_multiple_of(8) => Ok(used),
            _ => Err(MemoryError::Corrupted("a block is longer than a block")),
        }
    }

    pub(super) fn set_used(&self, block: u64, used: usize) {
        self.map.store(self.geometry.descriptor(block).1, used as u64, Ordering::Release);
    }

    /// Says that the writer is about to wait; false if there is something to read after all.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn fall_asleep(&self, read: Position) -> Result<bool, MemoryError> {
        self.map.store(AT_ASLEEP, 1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.head()? == read {
            return Ok(true);
        }
        self.awake();
        Ok(false)
    }

    /// Says that the writer waits no more.
    pub fn awake(&self) {
        self.map.store(AT_ASLEEP, 0, Ordering::SeqCst);
    }

    /// Whether the writer has to be woken, after something was published. It is told once.
    #[must_use]
    pub fn wants_waking(&self) -> bool {
        fence(Ordering::SeqCst);
        self.map.load(AT_ASLEEP, Ordering::Relaxed) != 0
            && self.map.word(AT_ASLEEP).swap(0, Ordering::SeqCst) != 0
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A check over the words of a slot; never zero. It tells a slot that is half written, not a forged one.
fn check_of(words: &[u64]) -> u64 {
    let mix = |state: u64, word: &u64| {
        let state = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^ state >> 29
    };
    words.iter().fold(MAGIC, mix) | 1
}
