//! The bounded queue between sources and engine: full means the producer waits.
//!
//! The memory of the ring is the memory of the I/O. A fixed pool of frame buffers is allocated
//! at start. Producers copy records into the one being filled, behind the room left for the
//! frame header; the engine writes that header in front, pads, and submits the same buffer. A
//! buffer returns to the pool only when its records are durable, so room in the ring is a
//! promise that the disk has kept, and a slow disk is felt by the producers and by nobody else.
//!
//! `bounded`, `state` and `batch` take their primitives from the `sync` module beside them, so that the
//! crate `tests/ring-model` compiles the very same source over a model checker's primitives.

use crate::disk::Wake;
use crate::source::{AppendError, Sink};
use graven_format::Record;

pub use batch::Batch;
pub use bounded::{Ring, RingStats, WakeOn};

mod batch;
mod bounded;
mod state;
mod sync;

#[cfg(test)]
mod tests;

impl<B> Sink for Ring<B>
where
    B: std::ops::DerefMut<Target = [u8]>,
{
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        Ring::append(self, record)
    }

    fn next_seq(&self) -> u64 {
        self.stats().next_seq
    }
}
