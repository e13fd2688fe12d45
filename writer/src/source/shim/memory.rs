//! The memory that the kernel side shares with its reader, as a reader sees it: read-only but for the page of each
//! ring that is the reader's own.

use super::ShimError;
use graven_shim_abi::{
    Consumer, Control, MAGIC, PAGE_BYTES, PART_BYTES_MAX, PART_BYTES_MIN, Part, Producer,
    RINGS_MAX, SLOT_BYTES, SLOTS_MAX, VERSION,
};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rings, mapped.
#[derive(Debug)]
pub struct Memory {
    map: MmapRaw,
    /// Of each ring, where this process writes; none if it only looks.
    consumers: Vec<MmapRaw>,
    control: Control,
}

impl Memory {
    /// Maps what `file` gives: the device of the module, or the memory of its twin. For the reader: a tail that cannot be, as
    /// whoever read before may have left it, is put right.
    ///
    /// # Errors
    /// [`ShimError::Foreign`] if it is not laid out as this version expects, [`ShimError::System`] if it cannot be mapped.
    pub fn map(file: &File) -> Result<Self, ShimError> {
        let mut memory = Self::look(file)?;
        for ring in 0..memory.rings() {
            let page = MmapOptions::new()
                .offset(consumer_at(&memory.control, ring) as u64)
                .len(PAGE_BYTES)
                .map_raw(file)
                .map_err(|why| ShimError::System { what: "map a ring's consumer page", why })?;
            memory.consumers.push(page);
            let first = memory.first(ring);
            if first != memory.tail(ring) {
                memory.set_tail(ring, first);
            }
        }
        Ok(memory)
    }

    /// The same to look at: tails cannot be moved through it.
    ///
    /// # Errors
    /// As [`Memory::map`].
    pub fn look(file: &File) -> Result<Self, ShimError> {
        let mapping = |what| move |why| ShimError::System { what, why };
        long_enough(file, PAGE_BYTES)?;
        let first = MmapOptions::new()
            .len(PAGE_BYTES)
            .map_raw_read_only(file)
            .map_err(mapping("map its first page"))?;
        let mut page = [0; Control::LEN];
        copy(&first, 0, &mut page);
        let control = Control::read(&page).unwrap_or_default();
        let bytes = checked(&control)?;
        long_enough(file, bytes)?;
        let map = MmapOptions::new()
            .len(bytes)
            .map_raw_read_only(file)
            .map_err(mapping("map its rings"))?;
        Ok(Self { map, consumers: Vec::new(), control })
    }

    /// What the first page said when it was mapped: the geometry and the instance, which never change.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// How many rings there are.
    #[must_use]
    pub fn rings(&self) -> u32 {
        self.control.ring_count
    }

    /// What lies before this position is whole.
    #[must_use]
    pub fn head(&self, ring: u32) -> u64 {
        let at = ring_at(&self.control, ring) + offset_of!(Producer, head);
        word(&self.map, at).load(Ordering::Acquire)
    }

    /// What lies before this position is durable.
    #[must_use]
    pub fn tail(&self, ring: u32) -> u64 {
        let at = consumer_at(&self.control, ring) + offset_of!(Consumer, tail);
        word(&self.map, at).load(Ordering::Acquire)
    }

    /// Where a reader begins: at the tail, or, if that cannot be, at the last one that could, which the kernel side believes.
    /// While it cannot, the kernel side puts nothing in and believes no other one.
    #[must_use]
    pub fn first(&self, ring: u32) -> u64 {
        let at = ring_at(&self.control, ring) + offset_of!(Producer, tail);
        let believed = word(&self.map, at).load(Ordering::Acquire);
        let tail = self.tail(ring);
        if (believed..=self.head(ring)).contains(&tail) { tail } else { believed }
    }

    /// Gives the room before this position back. All before it is durable.
    pub fn set_tail(&self, ring: u32, tail: u64) {
        self.write(ring, offset_of!(Consumer, tail), tail);
    }

    /// Says how far this process has come, so that waiting for more ends when there is more.
    pub fn set_read(&self, ring: u32, read: u64) {
        self.write(ring, offset_of!(Consumer, read), read);
    }

    /// Copies the part at `position`, which lies before `head`, to the end of `to`, and returns the position behind it;
    /// of a pad nothing is copied.
    ///
    /// # Errors
    /// [`ShimError::Ring`] if what lies there cannot be a part.
    pub fn part(
        &self,
        ring: u32,
        position: u64,
        head: u64,
        to: &mut Vec<u8>,
    ) -> Result<u64, ShimError> {
        let wrong = |what: &'static str| ShimError::Ring { ring, position, what };
        let slots = u64::from(self.control.slots);
        if head.checked_sub(position).is_none_or(|ahead| ahead > slots) {
            return Err(wrong("its head is behind, or more than a ring ahead"));
        }
        let slot = (position % slots) as usize;
        let at = ring_at(&self.control, ring) + 2 * PAGE_BYTES + slot * SLOT_BYTES;
        let mut header = [0; Part::LEN];
        copy(&self.map, at, &mut header);
        let header = Part::read(&header).unwrap_or_default();
        let len = header.bytes as usize;
        let next = position.saturating_add(len.div_ceil(SLOT_BYTES) as u64);
        if header.kind == graven_shim_abi::PART_PAD {
            let whole = len >= SLOT_BYTES && len.is_multiple_of(SLOT_BYTES);
            return if whole && next <= head && next.is_multiple_of(slots) {
                Ok(next)
            } else {
                Err(wrong("a pad does not end where the ring does"))
            };
        }
        if len < Part::LEN || len > self.control.part_bytes_max as usize {
            return Err(wrong("a part of an impossible length"));
        }
        if next > head || slot + len.div_ceil(SLOT_BYTES) > slots as usize {
            return Err(wrong("a part goes past what is there"));
        }
        if header.ring != ring {
            return Err(wrong("a part of another ring"));
        }
        let from = to.len();
        to.resize(from + len, 0);
        copy(&self.map, at, &mut to[from..]);
        Ok(next)
    }

    fn write(&self, ring: u32, at: usize, value: u64) {
        if let Some(page) = self.consumers.get(ring as usize) {
            word(page, at).store(value, Ordering::Release);
        }
    }
}

/// Whether all of it is there. A device has no length, and refuses itself to map more than it has; of a file, the pages
/// beyond its end would kill whoever reads them.
fn long_enough(file: &File, bytes: usize) -> Result<(), ShimError> {
    let found = file.metadata().map_err(|why| ShimError::System { what: "look at it", why })?;
    if found.is_file() && found.len() < bytes as u64 {
        let text = format!("{} bytes, where its layout has {bytes}", found.len());
        return Err(ShimError::Foreign(text));
    }
    Ok(())
}

/// Bytes of all of it, if it can be.
fn checked(control: &Control) -> Result<usize, ShimError> {
    let foreign = |what: &'static str| Err(ShimError::Foreign(what.to_owned()));
    if control.magic != MAGIC {
        return foreign("no shim's memory: the magic number is another");
    }
    if control.version != VERSION {
        let text = format!("version {} of the layout, this is {VERSION}", control.version);
        return Err(ShimError::Foreign(text));
    }
    let slots = control.slots;
    let part = control.part_bytes_max as usize;
    let stride = 2 * PAGE_BYTES as u64 + u64::from(slots) * SLOT_BYTES as u64;
    let fits = slots.is_power_of_two()
        && slots <= SLOTS_MAX
        && (1..=RINGS_MAX).contains(&control.ring_count)
        && control.slot_bytes as usize == SLOT_BYTES
        && (PART_BYTES_MIN..=PART_BYTES_MAX).contains(&part)
        && part.div_ceil(SLOT_BYTES) <= slots as usize / 4
        && control.rings_offset == PAGE_BYTES as u64
        && control.ring_stride == stride
        && stride.is_multiple_of(PAGE_BYTES as u64);
    if !fits {
        return foreign("a geometry that cannot be");
    }
    let bytes = PAGE_BYTES as u64 + u64::from(control.ring_count) * stride;
    usize::try_from(bytes).or_else(|_| foreign("more than this machine can map"))
}

fn ring_at(control: &Control, ring: u32) -> usize {
    (control.rings_offset + u64::from(ring) * control.ring_stride) as usize
}

fn consumer_at(control: &Control, ring: u32) -> usize {
    ring_at(control, ring) + PAGE_BYTES
}

fn word(map: &MmapRaw, at: usize) -> &AtomicU64 {
    assert!(at.is_multiple_of(8) && at + 8 <= map.len(), "a word within the mapping");
    let word = map.as_ptr().wrapping_add(at).cast::<AtomicU64>();
    // SAFETY: it lies within the mapping, which lives as long as the reference, and is aligned: mappings start at a
    // page. Both sides access it atomically only.
    unsafe { &*word }
}

fn copy(map: &MmapRaw, at: usize, to: &mut [u8]) {
    assert!(at + to.len() <= map.len(), "bytes within the mapping");
    let from = map.as_ptr().wrapping_add(at);
    // SAFETY: within the mapping. The kernel side writes to slots before the head passes them and not before the tail,
    // which only this process moves, has: nobody writes here now. If it did, these would be wrong bytes, which are
    // checked like all others.
    unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) }
}
