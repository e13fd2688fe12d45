//! The Merkle tree of the segment that is read.

use super::Scanner;
use crate::consts::FRAME_HEADER_BYTES;
use crate::merkle::{CompactRange, Hash, Hashing, Scratch};
use alloc::vec::Vec;

/// The compact range of the records read so far. A frame's leaves are hashed together, so that
/// the hashing may work on several at once.
#[derive(Debug)]
pub(super) struct Tree<H> {
    hashing: H,
    /// `None` if nothing is to be hashed, and from the moment on when leaves are missing, doubled
    /// or unreadable: what follows them cannot be computed.
    range: Option<CompactRange>,
    /// The leaves of one frame.
    leaves: Vec<Hash>,
    scratch: Scratch,
}

impl<H: Hashing> Tree<H> {
    /// A tree that has no range yet.
    pub(super) fn new(hashing: H) -> Self {
        Self { hashing, range: None, leaves: Vec::new(), scratch: Scratch::default() }
    }

    /// Starts with the leaf of this number.
    pub(super) fn begin(&mut self, seq: u64) {
        self.range = Some(CompactRange::new(seq));
    }

    /// Gives up: the leaves that come next are not those that follow.
    pub(super) fn stop(&mut self) {
        self.range = None;
    }

    pub(super) fn range(&self) -> Option<&CompactRange> {
        self.range.as_ref()
    }

    /// Appends `records`, which are as many as `count` says and stand one behind the other as
    /// stored.
    fn append(&mut self, records: &[u8], count: u32) {
        let Some(range) = &mut self.range else { return };
        self.leaves.clear();
        self.hashing.leaves(records, &mut self.leaves);
        debug_assert_eq!(self.leaves.len(), count as usize, "a leaf for each record");
        range.append_all(&self.leaves, &mut self.scratch, &mut self.hashing);
    }
}

impl<H: Hashing> Scanner<H> {
    /// Appends those records of the current frame that were given out.
    pub(super) fn append_frame(&mut self) {
        if let Some(current) = &self.current {
            let records = self.used + FRAME_HEADER_BYTES..self.used + current.at;
            self.tree.append(&self.buf[records], current.index);
        }
    }
}
