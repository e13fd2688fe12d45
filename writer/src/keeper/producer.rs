//! The keeper's side: datagrams and what else it has to say, published as entries.

use super::MemoryError;
use super::alloc::Alloc;
use super::entry::{Empty, Entry, HEAD_BYTES, Kind, OVERHEAD_BYTES_MAX, bytes_of};
use super::layout::{BATCH_FRAMES_MAX, BLOCK_BYTES, NOTES_FRAMES, Place, Position, TAKE_FRAMES};
use super::map::fuse;
use super::memory::{Memory, Taken as TakenTo};
use super::packer::Packer;
use super::staging::Staging;
use crate::clock::Now;
use crate::source::datagrams::SLOTS;
use crate::source::mapped::{
    Awaited, DATAGRAM_BYTES_MAX as MAPPED_BYTES_MAX, Mapped, Next, TAKE_MAX, about_to_come,
};
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
    /// Where the kernel leaves datagrams beside the socket.
    mapped: Option<Arc<Mapped>>,
    awaited: Awaited,
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
    /// socket and not published. Says how many datagrams that were. `mapped` is where the kernel leaves datagrams
    /// beside the socket.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn go_on(
        memory: &Arc<Memory>,
        mapped: Option<Arc<Mapped>>,
        at: Now,
    ) -> Result<(Self, usize), MemoryError> {
        let end = memory.head()?;
        let (_, place) = memory.descriptor(end.block())?;
        let Place::Raw { frame } = place else {
            return Err(MemoryError::Corrupted("the block that is being filled is compressed"));
        };
        let mut this = Self {
            memory: Arc::clone(memory),
            mapped,
            awaited: Awaited::default(),
            alloc: Arc::new(Alloc::new(Arc::clone(memory))),
            staging: Staging::of(memory),
            end,
            block_at: memory.geometry.frame(frame),
            begun: Vec::with_capacity(2 * BATCH_FRAMES_MAX),
            free: 0,
        };
        if let Some(mapped) = this.mapped.clone() {
            if let Some(taken) = memory.taken(end) {
                set_taken(&mapped, taken);
            }
            // What it says of a head that was never published must not come true of another.
            memory.forget_taken();
        }
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
        let usable = self.memory.geometry.frames - TAKE_FRAMES;
        let free = self.alloc.room()?.saturating_sub(TAKE_FRAMES).min(usable);
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
        let Some(mapped) = self.mapped.clone() else {
            return self.receive_from_socket(socket, SLOTS, now);
        };
        match mapped.next(mapped.consumed()) {
            Next::Ring { kept } => self.take_from_ring(&mapped, kept, now()).map(Ok),
            Next::Nothing => Ok(Ok(Taken::Nothing)),
            Next::Soon => {
                about_to_come();
                Ok(Ok(Taken::Some(0)))
            }
            Next::Socket { due } => {
                let received = self.receive_from_socket(socket, due as usize, now)?;
                match received {
                    Ok(Taken::Nothing) => {
                        if self.awaited.is_over() {
                            self.count_received(&mapped, due);
                        }
                        about_to_come();
                        Ok(Ok(Taken::Some(0)))
                    }
                    _ => {
                        self.awaited.came();
                        Ok(received)
                    }
                }
            }
        }
    }

    fn receive_from_socket(
        &mut self,
        socket: &impl AsFd,
        limit: usize,
        now: impl FnOnce() -> Now,
    ) -> Result<Result<Taken, Errno>, MemoryError> {
        self.staging.clear(&self.memory);
        self.memory.set_staged_at(self.end);
        match self.staging.receive(&self.memory, socket, limit) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Ok(Taken::Nothing)),
            Err(errno) => return Ok(Err(errno)),
        }
        // After the receiving: the time before it may be before the kernel's own.
        Ok(Ok(Taken::Some(self.publish_staged(now())?)))
    }

    /// Publishes what the ring has before more was `kept` for the socket.
    fn take_from_ring(
        &mut self,
        mapped: &Mapped,
        kept: u32,
        at: Now,
    ) -> Result<Taken, MemoryError> {
        let mut count = 0;
        let position = mapped.read(mapped.consumed(), kept, TAKE_MAX, |bytes| {
            let to = self.append(Kind::Datagram { whole_len: bytes.len() }, bytes.len(), at)?;
            self.memory.map.copy_in(to, bytes);
            count += 1;
            Ok::<_, MemoryError>(())
        })?;
        self.publish_taken(mapped, TakenTo { position, received: mapped.received() });
        Ok(Taken::Some(count))
    }

    /// Publishes, and lets go of what was taken; a successor does the second if this one does not come to it.
    fn publish_taken(&mut self, mapped: &Mapped, taken: TakenTo) {
        self.memory.set_taken(self.end, taken);
        self.publish();
        set_taken(mapped, taken);
    }

    /// So many datagrams of the socket were taken, or never came.
    fn count_received(&self, mapped: &Mapped, count: u32) {
        // What a successor would set it to is right no more.
        self.memory.forget_taken();
        mapped.set_received(mapped.received().wrapping_add(count));
    }

    /// Takes what the socket has, as much as one call takes, and throws it away. Says how many datagrams that were.
    ///
    /// # Errors
    /// What the socket says.
    pub fn discard(&mut self, socket: &impl AsFd) -> Result<usize, Errno> {
        let Some(mapped) = self.mapped.clone() else {
            return self.discard_from_socket(socket, SLOTS);
        };
        // What a successor would set it to is right no more.
        self.memory.forget_taken();
        match mapped.next(mapped.consumed()) {
            Next::Nothing | Next::Soon => Err(Errno::AGAIN),
            Next::Socket { due } => {
                let count = self.discard_from_socket(socket, due as usize)?;
                self.count_received(&mapped, count as u32);
                Ok(count)
            }
            Next::Ring { kept } => {
                let mut count = 0;
                let position = mapped.read(mapped.consumed(), kept, TAKE_MAX, |_| {
                    count += 1;
                    Ok::<_, Errno>(())
                })?;
                mapped.set_consumed(position);
                Ok(count)
            }
        }
    }

    fn discard_from_socket(&self, socket: &impl AsFd, limit: usize) -> Result<usize, Errno> {
        self.staging.clear(&self.memory);
        // Whoever takes this place publishes none of it.
        self.memory.set_nothing_staged();
        self.staging.receive(&self.memory, socket, limit)?;
        Ok(self.staging.count(&self.memory))
    }

    /// Says that the socket was found empty; false if there is no room to say it.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn empty(&mut self, empty: Empty) -> Result<bool, MemoryError> {
        let kind = Kind::Empty { failed_sends: empty.failed_sends };
        if !self.has_room()? {
            return Ok(false);
        }
        self.say(kind, &[], empty.at)?;
        Ok(true)
    }

    /// Says what it did or saw; false if there is no room to say it, which is kept for that, for some sixty of them, where nothing
    /// more is taken.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn note(&mut self, at: Now, text: &[u8]) -> Result<bool, MemoryError> {
        let text = &text[..text.len().min(NOTE_BYTES_MAX)];
        if self.end.offset() + bytes_of(text.len()) > BLOCK_BYTES {
            self.free = self.alloc.room()?;
            if self.free < NOTES_FRAMES {
                return Ok(false);
            }
        }
        self.say(Kind::Note, text, at)?;
        Ok(true)
    }

    /// There is room.
    fn say(&mut self, kind: Kind, text: &[u8], at: Now) -> Result<(), MemoryError> {
        let to = self.append(kind, text.len(), at)?;
        self.memory.map.copy_in(to, text);
        self.publish();
        Ok(())
    }

    /// Room for the largest batch, so that nothing is ever taken that cannot be published, and for notes behind it.
    ///
    /// It is looked for only when what was last found may be used up: what is free grows by itself, and the one
    /// that compresses takes a frame at most before it sets one free.
    fn has_room(&mut self) -> Result<bool, MemoryError> {
        if self.free < TAKE_FRAMES {
            self.free = self.alloc.room()?;
        }
        Ok(self.free >= TAKE_FRAMES)
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
        match self.mapped.clone() {
            None => self.publish(),
            Some(mapped) => {
                let received = mapped.received().wrapping_add(count as u32);
                let taken = TakenTo { position: mapped.consumed(), received };
                self.publish_taken(&mapped, taken);
            }
        }
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

/// The kernel may write over what was read, and whoever asks counts from here.
fn set_taken(mapped: &Mapped, taken: TakenTo) {
    fuse::step();
    mapped.set_consumed(taken.position);
    fuse::step();
    mapped.set_received(taken.received);
}

/// Longest entry of a datagram of the ring's.
const MAPPED_ENTRY_BYTES_MAX: usize = MAPPED_BYTES_MAX + OVERHEAD_BYTES_MAX;

/// A batch of the ring's finds room where the largest of the socket's does.
const _: () = assert!(
    (TAKE_MAX * MAPPED_ENTRY_BYTES_MAX).div_ceil(BLOCK_BYTES - MAPPED_ENTRY_BYTES_MAX) + 2
        <= BATCH_FRAMES_MAX
);
