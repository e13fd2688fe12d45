//! Which frames are free: those that no living descriptor names, and that nobody in this process has begun
//! to fill.
//!
//! A block lives from the one that holds what is done to the one that holds the head, or that is compressed
//! just now. Only the keeper allocates, with two threads; the writer frees by moving what is done.

use super::MemoryError;
use super::layout::Position;
use super::memory::Memory;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Alloc {
    memory: Arc<Memory>,
    state: Mutex<State>,
}

/// What this process has begun; another one begins anew.
#[derive(Debug)]
struct State {
    /// A bit for each frame that is reserved.
    reserved: Box<[bool]>,
    /// Room for the marks of living frames.
    living: Box<[bool]>,
    /// The oldest block that is read here, which keeps it alive.
    packing: Option<u64>,
}

impl Alloc {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        let flags = || vec![false; memory.geometry.frames].into_boxed_slice();
        let state = State { reserved: flags(), living: flags(), packing: None };
        Self { memory, state: Mutex::new(state) }
    }

    /// Reserves a free frame until it is released, as which it lives if a descriptor names it by then.
    pub(super) fn reserve(&self) -> Result<Option<usize>, MemoryError> {
        let mut state = self.lock();
        self.mark(&mut state)?;
        let State { reserved, living, .. } = &mut *state;
        let free = reserved.iter().zip(living.iter()).position(|(a, b)| !a && !b);
        if let Some(frame) = free {
            reserved[frame] = true;
        }
        Ok(free)
    }

    pub(super) fn release(&self, frame: usize) {
        self.lock().reserved[frame] = false;
    }

    /// How many frames are free.
    pub(super) fn free(&self) -> Result<usize, MemoryError> {
        let mut state = self.lock();
        self.mark(&mut state)?;
        Ok(state.reserved.iter().zip(&state.living).filter(|(a, b)| !**a && !**b).count())
    }

    /// How many blocks can follow the head, with a frame and a descriptor each.
    pub(super) fn room(&self) -> Result<usize, MemoryError> {
        let (oldest, newest) = self.living_blocks(&self.lock())?;
        let living = usize::try_from(newest - oldest).unwrap_or(usize::MAX);
        Ok(self.free()?.min(self.memory.geometry.descriptors - 1 - living))
    }

    /// Keeps a block alive while it is read to be compressed; `None` ends that.
    ///
    /// Gives false if it does not live any more.
    pub(super) fn keep(&self, block: Option<u64>) -> Result<bool, MemoryError> {
        let mut state = self.lock();
        let done = self.memory.done()?.position.block();
        let lives = block.is_none_or(|block| block >= done);
        state.packing = block.filter(|_| lives);
        Ok(lives)
    }

    /// The first and the last block that live.
    fn living_blocks(&self, state: &State) -> Result<(u64, u64), MemoryError> {
        // Done first: it never passes a head that is read later.
        let done = self.memory.done()?.position;
        let head = self.memory.head()?;
        let oldest = state.packing.map_or(done.block(), |block| block.min(done.block()));
        check(done, head, oldest, self.memory.geometry.descriptors as u64)?;
        Ok((oldest, head.block()))
    }

    fn mark(&self, state: &mut State) -> Result<(), MemoryError> {
        let (oldest, newest) = self.living_blocks(state)?;
        state.living.fill(false);
        for block in oldest..=newest {
            let (_, place) = self.memory.descriptor(block)?;
            state.living[place.frame()] = true;
        }
        Ok(())
    }

    /// A thread that died with this lock held has ended the process.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(done: Position, head: Position, oldest: u64, descriptors: u64) -> Result<(), MemoryError> {
    if done > head {
        return Err(MemoryError::Corrupted("what is done lies behind what is published"));
    }
    if head.block() - oldest >= descriptors {
        return Err(MemoryError::Corrupted("more blocks live than there are descriptors"));
    }
    Ok(())
}
