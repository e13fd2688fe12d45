//! Compressing what waits: the oldest full blocks first, while more than half of the memory is in use.

use super::MemoryError;
use super::alloc::Alloc;
use super::layout::{BLOCK_BYTES, Place};
use super::memory::Memory;
use crate::codec::Compressor;
use std::sync::Arc;

/// Audit text becomes a tenth at any level: the fastest.
const LEVEL: i32 = 1;
/// A block that does not become shorter than this is left as it is.
const PACKED_BYTES_MAX: usize = BLOCK_BYTES / 4 * 3;

/// The keeper's second thread, step by step. There is one at a time.
#[derive(Debug)]
pub struct Packer {
    memory: Arc<Memory>,
    alloc: Arc<Alloc>,
    compressor: Compressor,
    block: Box<[u8]>,
    /// The frame that is being filled with compressed blocks, and how far.
    target: Option<(usize, usize)>,
    /// Blocks below were looked at.
    next: u64,
}

impl Packer {
    pub(super) fn new(memory: &Arc<Memory>, alloc: &Arc<Alloc>) -> Self {
        Self {
            memory: Arc::clone(memory),
            alloc: Arc::clone(alloc),
            compressor: Compressor::new(LEVEL),
            block: vec![0; BLOCK_BYTES].into(),
            target: None,
            next: 0,
        }
    }

    /// Compresses one block if that is called for; false if there was none.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub fn step(&mut self) -> Result<bool, MemoryError> {
        let memory = Arc::clone(&self.memory);
        if self.alloc.free()? * 2 > memory.geometry.frames {
            return Ok(false);
        }
        // What is done first: it never passes a head that is read later.
        let oldest = memory.done()?.position.block();
        let head = memory.head()?.block();
        let block = self.next.max(oldest);
        if block >= head {
            return Ok(false);
        }
        // Its frame and its descriptor stay what they are while it is read.
        if self.alloc.keep(Some(block))? {
            self.pack(block)?;
        }
        self.alloc.keep(None)?;
        self.next = block + 1;
        Ok(true)
    }

    fn pack(&mut self, block: u64) -> Result<(), MemoryError> {
        let (_, place) = self.memory.descriptor(block)?;
        let Place::Raw { frame } = place else { return Ok(()) };
        let raw = &mut self.block[..self.memory.used(block)?];
        self.memory.map.copy_out(self.memory.geometry.frame(frame), raw);
        let Some(packed) = self.compressor.compress(raw, PACKED_BYTES_MAX) else { return Ok(()) };
        let len = packed.len();
        let full = |&(_, offset): &(usize, usize)| offset + len > BLOCK_BYTES;
        if self.target.as_ref().is_none_or(full) {
            // With nothing free nothing can be compressed; there is room again when the writer gives some back.
            let Some(frame) = self.alloc.reserve()? else { return Ok(()) };
            if let Some((before, _)) = self.target.replace((frame, 0)) {
                self.alloc.release(before);
            }
        }
        let Some((frame, offset)) = self.target else { return Ok(()) };
        self.memory.map.copy_in(self.memory.geometry.frame(frame) + offset, packed);
        self.target = Some((frame, (offset + len).next_multiple_of(8)));
        self.memory.set_descriptor(block, Place::Packed { frame, offset, len });
        Ok(())
    }
}
