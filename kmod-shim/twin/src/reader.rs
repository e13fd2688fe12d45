//! The memory as a reader has it: for tests, with nothing of its own but the geometry.

use crate::ffi::Shared;
use graven_shim_abi::{Consumer, Control, MAGIC, PAGE_BYTES, Part, Producer, SLOT_BYTES};
use std::fs::File;
use std::io;
use std::mem::offset_of;

/// What a reader can see and do.
pub struct Reader {
    shared: Shared,
    control: Control,
}

impl Reader {
    /// Maps the memory and reads how it is laid out.
    ///
    /// # Errors
    /// It cannot be mapped, or is no such memory.
    pub fn map(memory: &File) -> io::Result<Self> {
        let shared = Shared::map(memory)?;
        let control = control(&shared);
        if control.magic != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no memory of a shim"));
        }
        Ok(Self { shared, control })
    }

    /// The control page as it is now; its fields may be of different moments.
    #[must_use]
    pub fn control(&self) -> Control {
        control(&self.shared)
    }

    fn ring(&self, ring: u32) -> usize {
        (self.control.rings_offset + u64::from(ring) * self.control.ring_stride) as usize
    }

    /// Loads the head of a ring, with acquire.
    #[must_use]
    pub fn head(&self, ring: u32) -> u64 {
        self.shared.load(self.ring(ring) + offset_of!(Producer, head))
    }

    /// What the ring's producer page says.
    #[must_use]
    pub fn producer(&self, ring: u32) -> Producer {
        let at = self.ring(ring);
        Producer {
            head: self.shared.load(at + offset_of!(Producer, head)),
            ring_seq: self.shared.load(at + offset_of!(Producer, ring_seq)),
            bad_tails: self.shared.load(at + offset_of!(Producer, bad_tails)),
            tail: self.shared.load(at + offset_of!(Producer, tail)),
        }
    }

    /// Loads the tail of a ring.
    #[must_use]
    pub fn tail(&self, ring: u32) -> u64 {
        self.shared.load(self.ring(ring) + PAGE_BYTES + offset_of!(Consumer, tail))
    }

    /// Stores the tail of a ring, with release, whatever it is.
    pub fn set_tail(&self, ring: u32, tail: u64) {
        self.shared.store(self.ring(ring) + PAGE_BYTES + offset_of!(Consumer, tail), tail);
    }

    /// The bytes of the part, or of the pad's header, at this position; and how many slots it takes. `None`: it is none, or
    /// goes past the ring's end.
    #[must_use]
    pub fn part(&self, ring: u32, position: u64) -> Option<(Vec<u8>, u64)> {
        let slots = u64::from(self.control.slots);
        let place = (position % slots) as usize;
        let at = self.ring(ring) + 2 * PAGE_BYTES + place * SLOT_BYTES;
        let mut header = [0; Part::LEN];
        self.shared.copy(at, &mut header);
        let part = Part::read(&header)?;
        let len = part.bytes as usize;
        let takes = len.div_ceil(SLOT_BYTES);
        if len < Part::LEN || place + takes > slots as usize {
            return None;
        }
        let copied = if part.kind == graven_shim_abi::PART_PAD { Part::LEN } else { len };
        let mut bytes = vec![0; copied];
        self.shared.copy(at, &mut bytes);
        Some((bytes, takes as u64))
    }
}

fn control(shared: &Shared) -> Control {
    let mut bytes = [0; Control::LEN];
    for (word, at) in bytes.as_chunks_mut().0.iter_mut().zip((0..).step_by(8)) {
        *word = shared.load(at).to_le_bytes();
    }
    Control::read(&bytes).unwrap_or_default()
}

const _: () = assert!(Control::LEN.is_multiple_of(8) && Control::LEN <= PAGE_BYTES);
