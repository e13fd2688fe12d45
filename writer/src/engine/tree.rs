//! The hashes of one batch on their way into the Merkle tree.

use crate::hash::Lanes;
use graven_format::consts::{FRAME_RECORDS_MAX, HASH_BYTES};
use graven_format::merkle::{Hash, Hashing, Scratch, SegmentTree};

/// What a [`Tree`] takes of memory: the leaves of a batch, and two levels of nodes above them
/// with half as many each.
pub(crate) const TREE_BYTES: usize = 2 * FRAME_RECORDS_MAX * HASH_BYTES;

/// Hashes batches with memory that is allocated once.
#[derive(Debug)]
pub(super) struct Tree {
    lanes: Lanes,
    /// The leaf hashes of the batch that was hashed last.
    leaves: Vec<Hash>,
    scratch: Scratch,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            lanes: Lanes::new(),
            leaves: Vec::with_capacity(FRAME_RECORDS_MAX),
            scratch: Scratch::new(FRAME_RECORDS_MAX),
        }
    }

    /// Hashes the `count` records of a batch.
    ///
    /// # Panics
    /// If there are not that many: the ring laid them out, and a tree with a hole would deny
    /// every record behind it.
    pub(super) fn hash(&mut self, records: &[u8], count: u32) {
        self.leaves.clear();
        self.lanes.leaves(records, &mut self.leaves);
        assert_eq!(self.leaves.len(), count as usize, "each record of the batch has a leaf");
    }

    /// Appends the records that were hashed last.
    pub(super) fn append_to(&mut self, tree: &mut SegmentTree) {
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
            (tree.leaves.capacity(), tree.leaves.as_ptr(), tree.scratch.memory_bytes())
        };
        let at_start = memory(&tree);
        for count in [1, 2, 3, 700, 1, 40, FRAME_RECORDS_MAX, 17] {
            let (stored, leaves) = batch(count, |n| (n * 37 + count) % 700);
            tree.hash(&stored, count as u32);
            tree.append_to(&mut appended);
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
        Tree::new().hash(&stored[..stored.len() - 1], 3);
    }
}
