//! Proofs about the tree over a trail's records: that a record is in it, and that a later tree
//! contains an earlier one. RFC 6962, section 2.1; checked as RFC 9162, section 2.1, says.
//!
//! # How a proof is made without reading the trail
//!
//! The *path* of a proof is a list of subtrees. With the leaf that is proven (or, for consistency,
//! the last perfect subtree of the earlier tree) they cover leaves `0..size` without gap and
//! overlap: call them *tiles*. [`Gather`] walks over the tree once from left to right and joins
//! what it is given into one hash a tile. It is given no more than:
//!
//! 1. the compact range in the **header** of the segment that holds the leaf: all before it;
//! 2. the **leaves** of that segment;
//! 3. the compact range in the **trailer** of each later segment, up to `size`;
//! 4. the leaves of the segment in which `size` ends, if it does not end with a segment.
//!
//! For a consistency proof the leaf is the last one of the earlier tree. If that tree ends with a
//! segment, 1 is the header of the segment after it (its range has the subtrees of the earlier tree
//! and nothing else), 2 is left out, and 3 begins with that segment's trailer.
//!
//! This works only if no node of those ranges reaches over the edge of a tile, and none does.
//! Perfect subtrees are nested or disjoint, so a node that reaches over an edge of a tile contains
//! the tile and is larger; then it contains the tile's sibling too. The sibling of a tile is on the
//! way from the leaf to the root: it holds the leaf. So a node that reaches over an edge holds the
//! leaf. A node of the header covers leaves before the leaf's segment only, a node of a later
//! trailer leaves after it only: neither does. A tile that `size` cuts short, `[s, size)`, is what
//! the tree has of the perfect subtree that begins at `s`; a node that ends at or before `size` is
//! inside of it or disjoint for the same reason.
//!
//! # What a proof proves
//!
//! That the record is in the tree *with this size and root*. Both must come from where the verifier
//! trusts them: a root fits more than one size if the path has the same shape in both trees.

use crate::merkle::{Hash, node_hash};
use alloc::vec::Vec;

mod gather;
pub mod text;

pub use gather::{Gather, GatherError, Gathered};

/// Most hashes in a path: one a level of a tree of up to 2^64 leaves, and the subtree with which a
/// consistency proof begins.
pub const PATH_HASHES_MAX: usize = 65;

/// That one record is in the tree of `size` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The record's seq: its leaf's number.
    pub seq: u64,
    /// Leaves of the tree.
    pub size: u64,
    /// The sibling of the leaf, of the leaf's parent, and so on up to a child of the root.
    pub path: Vec<Hash>,
}

impl Inclusion {
    /// The root to which the path leads from `leaf`, or `None` if no tree of this size has a path
    /// of this length there. RFC 9162, section 2.1.3.2. At most [`PATH_HASHES_MAX`] hashes are
    /// computed.
    #[must_use]
    pub fn root(&self, leaf: &Hash) -> Option<Hash> {
        // `at` and `last` are the numbers of the current node and of its level's last node.
        let mut at = self.seq;
        let mut last = self.size.checked_sub(1).filter(|last| at <= *last)?;
        let mut hash = *leaf;
        for sibling in &self.path {
            if last == 0 {
                return None;
            }
            if at & 1 == 1 || at == last {
                hash = node_hash(sibling, &hash);
                // A last node without a sibling is its own parent.
                while at & 1 == 0 && at != 0 {
                    (at, last) = (at >> 1, last >> 1);
                }
            } else {
                hash = node_hash(&hash, sibling);
            }
            (at, last) = (at >> 1, last >> 1);
        }
        (last == 0).then_some(hash)
    }
}

/// That the tree of `size` leaves begins with all leaves of the tree of `from` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// Leaves of the earlier tree.
    pub from: u64,
    /// Leaves of the later tree.
    pub size: u64,
    /// The last perfect subtree of the earlier tree (unless it is the whole of it), and the
    /// siblings from there up to a child of the later root. Empty if the sizes are equal.
    pub path: Vec<Hash>,
}

impl Consistency {
    /// The later root that follows from the path, or `None` if the path does not lead to
    /// `from_root`, the root of the earlier tree, or fits no trees of these sizes. RFC 9162,
    /// section 2.1.4.2. At most twice [`PATH_HASHES_MAX`] hashes are computed.
    #[must_use]
    pub fn root(&self, from_root: &Hash) -> Option<Hash> {
        // Every tree contains the empty one: that would prove nothing.
        if self.from == 0 || self.from > self.size {
            return None;
        }
        if self.from == self.size {
            return self.path.is_empty().then_some(*from_root);
        }
        let level = self.from.trailing_zeros();
        let (mut at, mut last) = ((self.from - 1) >> level, (self.size - 1) >> level);
        let (first, siblings) = if self.from.is_power_of_two() {
            (from_root, self.path.as_slice())
        } else {
            self.path.split_first()?
        };
        let (mut earlier, mut later) = (*first, *first);
        for sibling in siblings {
            if last == 0 {
                return None;
            }
            if at & 1 == 1 || at == last {
                earlier = node_hash(sibling, &earlier);
                later = node_hash(sibling, &later);
                while at & 1 == 0 && at != 0 {
                    (at, last) = (at >> 1, last >> 1);
                }
            } else {
                later = node_hash(&later, sibling);
            }
            (at, last) = (at >> 1, last >> 1);
        }
        (last == 0 && earlier == *from_root).then_some(later)
    }
}
