//! The Merkle tree of the segment that is read.

use super::Scanner;
use crate::codec::Decoding;
use crate::finding::CheckpointError;
use crate::lines::{Head, trail_of};
use crate::merkle::{Hash, Hashing, Scratch, SegmentTree};
use crate::note::{Checkpoint, Note};
use crate::trailer::Trailer;
use alloc::vec::Vec;

/// The tree of the records read so far. A frame's leaves are hashed together, so that
/// the hashing may work on several at once.
#[derive(Debug)]
pub(super) struct Tree<H> {
    hashing: H,
    /// `None` if nothing is to be hashed, and from the moment on when leaves are missing, doubled
    /// or unreadable: what follows them cannot be computed.
    so_far: Option<SegmentTree>,
    /// The leaves of one frame.
    leaves: Vec<Hash>,
    scratch: Scratch,
}

impl<H: Hashing> Tree<H> {
    /// A tree that has not begun.
    pub(super) fn new(hashing: H) -> Self {
        Self { hashing, so_far: None, leaves: Vec::new(), scratch: Scratch::default() }
    }

    /// Starts with the leaf of this number.
    pub(super) fn begin(&mut self, seq: u64) {
        self.so_far = Some(SegmentTree::new(seq));
    }

    /// Gives up: the leaves that come next are not those that follow.
    pub(super) fn stop(&mut self) {
        self.so_far = None;
    }

    /// What hashes, and decodes.
    pub(super) fn hashing(&mut self) -> &mut H {
        &mut self.hashing
    }

    pub(super) fn so_far(&self) -> Option<&SegmentTree> {
        self.so_far.as_ref()
    }

    /// Appends `records`, which are as many as `count` says and stand one behind the other as
    /// stored.
    fn append(&mut self, records: &[u8], count: u32) {
        let Some(so_far) = &mut self.so_far else { return };
        self.leaves.clear();
        self.hashing.leaves(records, &mut self.leaves);
        debug_assert_eq!(self.leaves.len(), count as usize, "a leaf for each record");
        so_far.append_all(&self.leaves, &mut self.scratch, &mut self.hashing);
    }
}

impl<H: Hashing + Decoding> Scanner<H> {
    /// Appends those records of the current frame that were read and are not in the tree yet.
    pub(super) fn append_frame(&mut self) {
        if let Some(current) = &mut self.current {
            let (hashed, count) = current.hashed;
            let frame = if current.decoded { &self.raw } else { &self.buf[self.used..] };
            self.tree.append(&frame[hashed..current.at], current.index - count);
            current.hashed = (current.at, current.index);
        }
    }

    /// Keeps the root over all records up to the next one, if it was asked for.
    pub(super) fn note_root(&mut self) {
        while let Some(size) = self.wanted.pop_if(|size| *size <= self.next_seq) {
            if size < self.next_seq {
                continue;
            }
            self.append_frame();
            let known = self.tree.so_far().is_some_and(|tree| tree.end() == size);
            self.roots.extend(self.root().filter(|_| known).map(|root| (size, root)));
        }
    }

    /// The root over all records of the trail up to the last one in the tree, as far as that can
    /// be computed.
    pub(super) fn root(&self) -> Option<Hash> {
        let mut whole = self.header.as_ref()?.before.clone();
        let range = self.tree.so_far()?.range();
        if whole.end() != range.begin() {
            return None;
        }
        whole.extend(&range);
        whole.root()
    }

    /// What is wrong with the checkpoint `note` over `before` records, whose root is `root` if that
    /// is known. Only a trailer's has a hash of what is sealed.
    pub(super) fn check_note(
        &self,
        note: &[u8],
        before: u64,
        root: Option<Hash>,
        trailer: Option<&Trailer>,
    ) -> Result<(), CheckpointError> {
        let Checkpoint { head, sealed, .. } = Note::parse(note)?.checkpoint;
        let Head { origin, size, root: stated } = head;
        let trail = self.expect.trail_id;
        if trail_of(&origin).is_none_or(|found| trail.is_some_and(|trail| trail != found)) {
            return Err(CheckpointError::Origin);
        }
        if size != before {
            return Err(CheckpointError::Size { stated: size, before });
        }
        if root.is_some_and(|root| root != stated) {
            return Err(CheckpointError::Root);
        }
        let fits = match (trailer, &self.header) {
            (None, _) => sealed.is_none(),
            (Some(trailer), Some(header)) => sealed == Some(trailer.seal_hash(header)),
            (Some(_), None) => sealed.is_some(),
        };
        if !fits {
            return Err(CheckpointError::Sealed);
        }
        Ok(())
    }
}
