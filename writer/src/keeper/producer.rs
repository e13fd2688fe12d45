//! The keeper's side: datagrams and what else it has to say, published as entries.

use super::MemoryError;
use super::alloc::Alloc;
use super::entry::{Empty, Entry, HEAD_BYTES, Kind, bytes_of};
use super::layout::{BATCH_FRAMES_MAX, BLOCK_BYTES, Place, Position};
use super::memory::Memory;
use super::packer::Packer;
use super::staging::Staging;
use crate::clock::Now;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Longest text of a note; a longer one is cut.
const NOTE_BYTES_MAX: usize = 4096;

/// What one look at the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many datagrams, which are published.
    Some(usize),
    /// Nothing was there.
    Nothing,
    /// There is no room in the memory: nothing was taken from the socket.
    NoRoom,
}

/// The one that publishes. There is one at a time.
#[derive(Debug)]
pub struct Producer {
    memory: Arc<Memory>,
    alloc: Arc<Alloc>,
    staging: Staging,
    /// The end of what has been written; the head once it is published.
    end: Position,
    /// Where the block at `end` begins in the memory.
    block_at: usize,
    /// Frames that become blocks with the next publishing.
    begun: Vec<usize>,
    /// Blocks for which there was room when it was last looked for, and that have not been begun since.
    free: usize,
}

impl Producer {
    /// Goes on where the last one stopped, however it ended, and publishes what that had taken from the
    /// socket and not published. Says how many datagrams that were.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn go_on(memory: &Arc<Memory>, at: Now) -> Result<(Self, usize), MemoryError> {
        let end = memory.head()?;
        let (_, place) = memory.descriptor(end.block())?;
        let Place::Raw { frame } = place else {
            return Err(MemoryError::Corrupted("the block that is being filled is compressed"));
        };
        let mut this = Self {
            memory: Arc::clone(memory),
            alloc: Arc::new(Alloc::new(Arc::clone(memory))),
            staging: Staging::of(memory),
            end,
            block_at: memory.geometry.frame(frame),
            begun: Vec::with_capacity(2 * BATCH_FRAMES_MAX),
            free: 0,
        };
        // There was room for it when it was taken.
        let left = if memory.staged_at() == end.word() { this.publish_staged(at)? } else { 0 };
        Ok((this, left))
    }

    /// The one that compresses, for another thread.
    #[must_use]
    pub fn packer(&self) -> Packer {
        Packer::new(&self.memory, &self.alloc)
    }

    /// Up to where it has published.
    #[must_use]
    pub fn head(&self) -> Position {
        self.end
    }

    /// How much of the memory is in use, in permille of what can be before nothing more is taken.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn used_permille(&self) -> Result<u64, MemoryError> {
        let usable = self.memory.geometry.frames - BATCH_FRAMES_MAX;
        let free = self.alloc.room()?.saturating_sub(BATCH_FRAMES_MAX).min(usable);
        Ok((usable - free) as u64 * 1000 / usable as u64)
    }

    /// Takes what the socket has, as much as one call takes, and publishes it.
    ///
    /// # Errors
    /// What the socket says, or the memory.
    pub fn receive(
        &mut self,
        socket: &impl AsFd,
        now: impl FnOnce() -> Now,
    ) -> Result<Result<Taken, Errno>, MemoryError> {
        if !self.has_room()? {
            return Ok(Ok(Taken::NoRoom));
        }
        self.staging.clear(&self.memory);
        self.memory.set_staged_at(self.end);
        match self.staging.receive(&self.memory, socket) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Ok(Taken::Nothing)),
            Err(errno) => return Ok(Err(errno)),
        }
        // After the receiving: the time before it may be before the kernel's own.
        Ok(Ok(Taken::Some(self.publish_staged(now())?)))
    }

    /// Takes what the socket has, as much as one call takes, and throws it away. Says how many datagrams that were.
    ///
    /// # Errors
    /// What the socket says.
    pub fn discard(&mut self, socket: &impl AsFd) -> Result<usize, Errno> {
        self.staging.clear(&self.memory);
        // Whoever takes this place publishes none of it.
        self.memory.set_nothing_staged();
        self.staging.receive(&self.memory, socket)?;
        let taken = |slot: &usize| self.staging.datagram(&self.memory, *slot).is_some();
        Ok((0..Staging::SLOTS).filter(taken).count())
    }

    /// Says that the socket was found empty; false if there is no room to say it.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn empty(&mut self, empty: Empty) -> Result<bool, MemoryError> {
        let kind = Kind::Empty { failed_sends: empty.failed_sends };
        self.say(kind, &[], empty.at)
    }

    /// Says what it did or saw; false if there is no room to say it.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn note(&mut self, at: Now, text: &[u8]) -> Result<bool, MemoryError> {
        self.say(Kind::Note, &text[..text.len().min(NOTE_BYTES_MAX)], at)
    }

    fn say(&mut self, kind: Kind, text: &[u8], at: Now) -> Result<bool, MemoryError> {
        if !self.has_room()? {
            return Ok(false);
        }
        let to = self.append(kind, text.len(), at)?;
        self.memory.map.copy_in(to, text);
        self.publish();
        Ok(true)
    }

    /// Room for the largest batch, so that nothing is ever taken that cannot be published.
    ///
    /// It is looked for only when what was last found may be used up: what is free grows by itself, and the one
    /// that compresses takes a frame at most before it sets one free.
    fn has_room(&mut self) -> Result<bool, MemoryError> {
        if self.free < BATCH_FRAMES_MAX {
            self.free = self.alloc.room()?;
        }
        Ok(self.free >= BATCH_FRAMES_MAX)
    }

    /// Publishes what lies in the staging area as one.
    fn publish_staged(&mut self, at: Now) -> Result<usize, MemoryError> {
        let mut count = 0;
        for slot in 0..Staging::SLOTS {
            let Some((from, whole_len, len)) = self.staging.datagram(&self.memory, slot) else {
                continue;
            };
            let to = self.append(Kind::Datagram { whole_len }, len, at)?;
            self.memory.map.copy_words(from, to, len.next_multiple_of(8));
            count += 1;
        }
        self.publish();
        Ok(count)
    }

    /// Writes the head of an entry behind what has been written, and says where its text goes.
    fn append(&mut self, kind: Kind, text_len: usize, at: Now) -> Result<usize, MemoryError> {
        let bytes = bytes_of(text_len);
        if self.end.offset() + bytes > BLOCK_BYTES {
            self.begin_block()?;
        }
        let to = self.block_at + self.end.offset();
        let mut head = [0; HEAD_BYTES];
        for (place, word) in head.chunks_exact_mut(8).zip(Entry::head(kind, text_len, at)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.memory.map.copy_in(to, &head);
        self.end = Position::new(self.end.block(), self.end.offset() + bytes);
        Ok(to + HEAD_BYTES)
    }

    fn begin_block(&mut self) -> Result<(), MemoryError> {
        let Some(frame) = self.alloc.reserve()? else {
            return Err(MemoryError::Corrupted("there is less room than there was"));
        };
        self.begun.push(frame);
        self.free = self.free.saturating_sub(1);
        self.memory.set_used(self.end.block(), self.end.offset());
        self.end = Position::new(self.end.block() + 1, 0);
        self.memory.set_descriptor(self.end.block(), Place::Raw { frame });
        self.block_at = self.memory.geometry.frame(frame);
        Ok(())
    }

    fn publish(&mut self) {
        self.memory.publish(self.end);
        for frame in self.begun.drain(..) {
            self.alloc.release(frame);
        }
    }
}
