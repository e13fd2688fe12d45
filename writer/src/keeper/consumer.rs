//! The writer's side: entries in their order, and what is done.

use super::MemoryError;
use super::entry::Entry;
use super::layout::{BLOCK_BYTES, Place, Position};
use super::memory::{Done, Memory};
use crate::codec::Reading;
use graven_format::codec::{CODEC_ZSTD, Decoding as _};
use std::sync::Arc;

/// A descriptor changes once at most while its block lives: from raw to compressed.
const TRIES: usize = 3;

/// The one that reads. There is one at a time.
#[derive(Debug)]
pub struct Consumer {
    memory: Arc<Memory>,
    zstd: Reading,
    /// What is read next.
    at: Position,
    /// A copy of the block of `at`, up to `valid` bytes: nobody changes it while it is looked at.
    block: Box<[u8]>,
    valid: usize,
    /// How many times what is done has been written, and last to which slot.
    turn: u64,
    done: Done,
}

impl Consumer {
    /// Goes on from what is done, however the last one ended.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn go_on(memory: &Arc<Memory>) -> Result<Self, MemoryError> {
        let (turn, done) = memory.newest_done()?;
        Ok(Self {
            memory: Arc::clone(memory),
            zstd: Reading::new(),
            at: done.position,
            block: vec![0; BLOCK_BYTES].into(),
            valid: 0,
            turn,
            done,
        })
    }

    /// What is done, as far as it was said.
    #[must_use]
    pub fn done(&self) -> Done {
        self.done
    }

    /// The position of the next entry, which is that behind the last one.
    #[must_use]
    pub fn position(&self) -> Position {
        self.at
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Looks for more to read; false if there is nothing.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn look(&mut self) -> Result<bool, MemoryError> {
        loop {
            if self.at.offset() < self.valid {
                return Ok(true);
            }
            let head = self.memory.head()?;
            if head < self.at {
                return Err(MemoryError::Corrupted("what was read lies behind what is published"));
            }
            if head == self.at {
                return Ok(false);
            }
            // As many blocks as any number can claim would be looked through for ever.
            if head.block() - self.at.block() >= self.memory.geometry.descriptors as u64 {
                return Err(MemoryError::Corrupted("more blocks wait than there are descriptors"));
            }
            let last = self.at.block() == head.block();
            let end = if last { head.offset() } else { self.memory.used(self.at.block())? };
            if self.at.offset() < end {
                self.load(end)?;
            } else if self.at.offset() > end {
                return Err(MemoryError::Corrupted("a block is shorter than it was"));
            } else {
                self.at = Position::new(self.at.block() + 1, 0);
                self.valid = 0;
            }
        }
    }

    /// The next entry that [`Consumer::look`] has found; it stays the next.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn peek(&self) -> Result<Option<Entry<'_>>, MemoryError> {
        match &self.block[self.at.offset().min(self.valid)..self.valid] {
            [] => Ok(None),
            bytes => Entry::parse(bytes).map(|(entry, _)| Some(entry)),
        }
    }

    /// The next entry that [`Consumer::look`] has found, which is thereby read.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`]; nothing more can be read then.
    pub fn take(&mut self) -> Result<Option<Entry<'_>>, MemoryError> {
        let offset = self.at.offset();
        if offset >= self.valid {
            return Ok(None);
        }
        let (entry, bytes) = Entry::parse(&self.block[offset..self.valid])?;
        let end = offset + bytes;
        if end > self.valid {
            return Err(MemoryError::Corrupted("an entry is longer than its block"));
        }
        self.at = Position::new(self.at.block(), end);
        Ok(Some(entry))
    }

    /// Says where the records of the first entry will be at the earliest, before any was read.
    pub fn begin(&mut self, seq: u64) {
        let turn = self.turn + 1;
        let done = Done { seq, ..self.done };
        self.memory.write_done(slot_of(turn), turn, done);
        (self.turn, self.done) = (turn, done);
    }

    /// Says that everything before a position is durable. It never moves back.
    pub fn set_done(&mut self, done: Done) {
        if done.position <= self.done.position {
            return;
        }
        let turn = self.turn + 1;
        self.memory.write_done(slot_of(turn), turn, done);
        (self.turn, self.done) = (turn, done);
    }

    /// Copies the block up to `end`.
    fn load(&mut self, end: usize) -> Result<(), MemoryError> {
        let block = self.at.block();
        for _ in 0..TRIES {
            let (word, place) = self.memory.descriptor(block)?;
            match place {
                Place::Raw { frame } => {
                    // What was copied before cannot have changed.
                    let from = self.memory.geometry.frame(frame) + self.valid;
                    self.memory.map.copy_out(from, &mut self.block[self.valid..end]);
                    if !self.memory.descriptor_is(block, word) {
                        continue;
                    }
                }
                Place::Packed { frame, offset, len } => {
                    let mut packed = vec![0; len];
                    self.memory
                        .map
                        .copy_out(self.memory.geometry.frame(frame) + offset, &mut packed);
                    let raw = &mut self.block[..end];
                    self.zstd
                        .decode(CODEC_ZSTD, &packed, raw)
                        .map_err(|_| MemoryError::Corrupted("a block does not decompress"))?;
                }
            }
            self.valid = end;
            return Ok(());
        }
        Err(MemoryError::Corrupted("a descriptor does not stand still"))
    }
}

/// The slots take turns, so that the newest is never overwritten.
fn slot_of(turn: u64) -> usize {
    usize::from(turn.is_multiple_of(2))
}
