//! The hashes of one batch on their way into the Merkle tree.

use crate::hash::Lanes;
use graven_format::consts::{FRAME_RECORDS_MAX, HASH_BYTES};
use graven_format::merkle::{Hash, Hashing, Scratch, SegmentTree};

/// What a [`Tree`] takes of memory: the leaves of a batch, and two levels of nodes above them
/// with half as many each, and the copy of a small batch.
pub(crate) const TREE_BYTES: usize = 2 * FRAME_RECORDS_MAX * HASH_BYTES + STAGED_BYTES_MAX;

/// Hashes batches with memory that is allocated once.
#[derive(Debug)]
pub(super) struct Tree {
    lanes: Lanes,
    /// The leaf hashes of the batch that was hashed last.
    leaves: Vec<Hash>,
    scratch: Scratch,
    /// The records of a batch that is hashed while the disk has its buffer.
    staged: Vec<u8>,
}

/// Stored bytes of a batch up to which copying it is cheaper than making the disk wait for its
/// hashes: at low load a frame holds a few records, and their latency is the disk's.
const STAGED_BYTES_MAX: usize = 16 * 1024;

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            lanes: Lanes::new(),
            leaves: Vec::with_capacity(FRAME_RECORDS_MAX),
            scratch: Scratch::new(FRAME_RECORDS_MAX),
            staged: Vec::with_capacity(STAGED_BYTES_MAX),
        }
    }

    /// Takes the `count` records of a batch before the disk gets their buffer: hashes a large
    /// batch, copies a small one to be hashed by [`Tree::append_to`] while the disk works.
    pub(super) fn take(&mut self, records: &[u8], count: u32) {
        self.staged.clear();
        if records.len() <= STAGED_BYTES_MAX {
            self.staged.extend_from_slice(records);
            self.leaves.clear();
        } else {
            self.hash(records, count);
        }
    }

    /// Hashes the `count` records of a batch.
    ///
    /// # Panics
    /// If there are not that many: the ring laid them out, and a tree with a hole would deny
    /// every record behind it.
    fn hash(&mut self, records: &[u8], count: u32) {
        self.leaves.clear();
        self.lanes.leaves(records, &mut self.leaves);
        assert_eq!(self.leaves.len(), count as usize, "each record of the batch has a leaf");
    }

    /// Appends the `count` records that were taken last.
    pub(super) fn append_to(&mut self, tree: &mut SegmentTree, count: u32) {
        if !self.staged.is_empty() {
            let staged = std::mem::take(&mut self.staged);
            self.hash(&staged, count);
            self.staged = staged;
        }
        tree.append_all(&self.leaves, &mut self.scratch, &mut self.lanes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_format::merkle::CompactRange;
    use graven_format::{Flags, Record, Source};
    use sha2::{Digest, Sha256};

    /// `count` records back to back, and the library's hash of each as RFC 6962 wants it.
    fn batch(count: usize, len: impl Fn(usize) -> usize) -> (Vec<u8>, Vec<Hash>) {
        let (mut stored, mut leaves) = (Vec::new(), Vec::new());
        for n in 0..count {
            let bytes = vec![n as u8; len(n)];
            let record = Record {
                source: Source::Socket,
                kind: 1300,
                flags: Flags::NONE,
                realtime_ns: 1,
                boottime_ns: 2,
                source_seq: n as u64,
                bytes: &bytes,
            };
            let start = stored.len();
            stored.extend(record.header());
            stored.extend(&bytes);
            leaves.push(
                Sha256::new_with_prefix([0]).chain_update(&stored[start..]).finalize().into(),
            );
        }
        (stored, leaves)
    }

    #[test]
    fn batches_become_the_tree_of_their_records_without_new_memory() {
        for lanes in [Lanes::new(), Lanes::one_by_one()] {
            become_the_tree(Tree { lanes, ..Tree::new() });
        }
    }

    fn become_the_tree(mut tree: Tree) {
        let (mut appended, mut expected) = (SegmentTree::new(5), CompactRange::new(5));
        let memory = |tree: &Tree| {
            (
                tree.leaves.capacity(),
                tree.leaves.as_ptr(),
                tree.staged.capacity(),
                tree.staged.as_ptr(),
            )
        };
        let at_start = memory(&tree);
        for count in [1, 2, 3, 700, 1, 40, FRAME_RECORDS_MAX, 17] {
            let (stored, leaves) = batch(count, |n| (n * 37 + count) % 700);
            tree.take(&stored, count as u32);
            tree.append_to(&mut appended, count as u32);
            assert_eq!(tree.leaves, leaves, "{count} records");
            leaves.iter().for_each(|leaf| expected.append(*leaf));
            assert_eq!(appended.range(), expected, "{count} records");
        }
        assert_eq!(memory(&tree), at_start, "no growth after the start");
        let stated = FRAME_RECORDS_MAX * HASH_BYTES + tree.scratch.memory_bytes();
        assert!(stated <= TREE_BYTES, "{stated} bytes");
    }

    #[test]
    #[should_panic(expected = "each record of the batch has a leaf")]
    fn a_batch_that_is_not_what_it_says_is_refused() {
        let (stored, _) = batch(3, |_| 10);
        let mut tree = Tree::new();
        tree.take(&stored[..stored.len() - 1], 3);
        tree.append_to(&mut SegmentTree::new(0), 3);
    }
}
