//! Parts made in Rust, byte for byte as the kernel side lays them out: for tests of what reads them.

use crate::decode::ITEM_ALIGN;
use crate::{
    Call, Gap, ITEM_NAME, Item, Object, PART_BYTES_MAX, PART_CALL, PART_GAP, PART_MORE, Part,
};
use alloc::vec::Vec;

/// A part that is being put together.
#[derive(Clone, Debug)]
pub struct PartBuilder {
    header: Part,
    bytes: Vec<u8>,
}

impl PartBuilder {
    /// A part of this kind, with nothing behind its header yet.
    #[must_use]
    pub fn new(kind: u16, order: u64) -> Self {
        let header = Part { bytes: 0, kind, flags: 0, ring: 0, part: 0, ring_seq: 0, order };
        Self { header, bytes: header.to_bytes().to_vec() }
    }

    /// The first part of a system call's record.
    #[must_use]
    pub fn call(order: u64, call: &Call) -> Self {
        Self::new(PART_CALL, order).raw(&call.to_bytes())
    }

    /// A later part of it: `part` is its place, from 1.
    #[must_use]
    pub fn more(order: u64, part: u32) -> Self {
        let mut more = Self::new(PART_MORE, order);
        more.header.part = part;
        more
    }

    /// Calls that went on unrecorded.
    #[must_use]
    pub fn gap(order: u64, gap: &Gap) -> Self {
        Self::new(PART_GAP, order).raw(&gap.to_bytes())
    }

    /// Sets these `PART_…` bits.
    #[must_use]
    pub fn flags(mut self, flags: u16) -> Self {
        self.header.flags |= flags;
        self
    }

    /// The ring that it was put into, and its number there.
    #[must_use]
    pub fn ring(mut self, ring: u32, ring_seq: u64) -> Self {
        (self.header.ring, self.header.ring_seq) = (ring, ring_seq);
        self
    }

    /// An item of this kind, with the flags and the index of `header`; its length is filled in.
    #[must_use]
    pub fn item(mut self, header: Item, bytes: &[u8]) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(ITEM_ALIGN), 0);
        let header = Item { bytes: (Item::LEN + bytes.len()) as u32, ..header };
        self.raw(&header.to_bytes()).raw(bytes)
    }

    /// A name in this role, the `index`th of the record, and what it led to.
    #[must_use]
    pub fn name(self, role: u16, index: u32, object: &Object, name: &[u8]) -> Self {
        let mut bytes = object.to_bytes().to_vec();
        bytes.extend_from_slice(name);
        self.item(Item { role, index, ..Item::of(ITEM_NAME) }, &bytes)
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The part, without what fills its last slot.
    ///
    /// # Panics
    /// If it is over [`PART_BYTES_MAX`]: the kernel side would have begun another part.
    #[must_use]
    pub fn build(mut self) -> Vec<u8> {
        assert!(self.bytes.len() <= PART_BYTES_MAX, "what does not fit goes into another part");
        self.header.bytes = self.bytes.len() as u32;
        self.bytes[..Part::LEN].copy_from_slice(&self.header.to_bytes());
        self.bytes
    }
}

impl Item {
    /// The header of an item of this kind, the first of its kind, without flags.
    #[must_use]
    pub const fn of(kind: u16) -> Self {
        Self { bytes: 0, kind, role: 0, flags: 0, index: 0 }
    }
}
