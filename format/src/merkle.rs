//! The Merkle tree of RFC 6962 with SHA-256, one leaf a record, as compact ranges.
//!
//! A *compact range* `[begin, end)` is the shortest list of perfect subtrees that covers these
//! leaves: O(log n) hashes from which any larger range, and the root, follow. The writer keeps
//! two: the whole trail's, stored in segment headers, and the current segment's own, stored in
//! its trailer. With the trailers, a proof for any record needs at most one segment's records.

use crate::consts::{BLOCK_LEVEL, BLOCKS_MAX, HASH_BYTES, PEAKS_MAX, RANGE_NODES_MAX};
use crate::record::{self, Record};
use crate::sha256;
use alloc::vec::Vec;
use core::ops::Range;
use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; HASH_BYTES];

/// Hash of a leaf: SHA-256 of 0x00 and the record as stored (header, then payload).
#[must_use]
pub fn leaf_hash(record: &Record<'_>) -> Hash {
    sha256::leaf(&record.header(), record.bytes)
}

/// The same, of a record's bytes as they are stored.
#[must_use]
pub fn leaf_hash_stored(stored: &[u8]) -> Hash {
    match stored.split_first_chunk() {
        Some((header, payload)) => sha256::leaf(header, payload),
        // Shorter than any record: only other trees have such leaves.
        None => Sha256::new().chain_update([0x00]).chain_update(stored).finalize().into(),
    }
}

/// Hash of an inner node: SHA-256 of 0x01 and the hashes of its children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256::node(left, right)
}

/// Root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Computes the hashes of many leaves or nodes in one call, so that an implementation may work
/// on several at once. All implementations give the same hashes.
pub trait Hashing {
    /// Appends to `out` the leaf hash of each record in `records`, where they stand one behind
    /// the other as stored ([`record::split`]).
    fn leaves(&mut self, records: &[u8], out: &mut Vec<Hash>);

    /// Appends to `out` the hash of the node over each pair of `children`; the last of an odd
    /// number is left out.
    fn nodes(&mut self, children: &[Hash], out: &mut Vec<Hash>);
}

/// One hash after the other: the reference that other implementations are tested against.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneByOne;

impl Hashing for OneByOne {
    fn leaves(&mut self, records: &[u8], out: &mut Vec<Hash>) {
        out.extend(record::split(records).map(leaf_hash_stored));
    }

    fn nodes(&mut self, children: &[Hash], out: &mut Vec<Hash>) {
        let (pairs, _) = children.as_chunks();
        out.extend(pairs.iter().map(|[left, right]| node_hash(left, right)));
    }
}

/// The memory that [`CompactRange::append_all`] uses again for every batch.
#[derive(Debug, Default)]
pub struct Scratch {
    nodes: Vec<Hash>,
    parents: Vec<Hash>,
    /// The unpaired last nodes and their levels.
    lasts: Vec<(u32, Hash)>,
}

impl Scratch {
    /// Enough for batches of up to `leaves_max` leaves.
    #[must_use]
    pub fn new(leaves_max: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(leaves_max / 2),
            parents: Vec::with_capacity(leaves_max / 2),
            lasts: Vec::with_capacity(PEAKS_MAX),
        }
    }

    /// Bytes of the hashes that it has room for now.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        (self.nodes.capacity() + self.parents.capacity()) * HASH_BYTES
    }
}

/// The perfect subtrees that cover leaves `begin..end`, left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactRange {
    begin: u64,
    end: u64,
    nodes: Vec<Hash>,
}

impl CompactRange {
    /// The empty range at `begin`, with room for all it can ever hold.
    #[must_use]
    pub fn new(begin: u64) -> Self {
        Self { begin, end: begin, nodes: Vec::with_capacity(RANGE_NODES_MAX) }
    }

    /// A range read from disk, or `None` if `nodes` is not as many as `begin..end` has.
    #[must_use]
    pub fn from_nodes(begin: u64, end: u64, nodes: &[Hash]) -> Option<Self> {
        if begin > end || node_count(begin, end) != nodes.len() {
            return None;
        }
        let mut range = Self::new(begin);
        range.end = end;
        range.nodes.extend_from_slice(nodes);
        Some(range)
    }

    /// Forgets the leaves and starts at `begin`, keeping the memory.
    fn restart(&mut self, begin: u64) {
        (self.begin, self.end) = (begin, begin);
        self.nodes.clear();
    }

    /// The first leaf's number.
    #[must_use]
    pub const fn begin(&self) -> u64 {
        self.begin
    }

    /// One past the last leaf's number.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The hashes, left to right.
    #[must_use]
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// The first leaf, the level and the hash of each subtree, left to right.
    pub fn subtrees(&self) -> impl Iterator<Item = (u64, u32, &Hash)> {
        subtrees(self.begin, self.end)
            .zip(&self.nodes)
            .map(|((start, level), node)| (start, level, node))
    }

    /// Appends the leaf of number [`CompactRange::end`].
    pub fn append(&mut self, leaf: Hash) {
        self.append_node(0, leaf);
    }

    /// Appends `leaves`, the first of them of number [`CompactRange::end`]: the same as
    /// [`CompactRange::append`] for each, but one level of the tree at a time, so that `hashing`
    /// gets many pairs at once.
    ///
    /// On each level a first node of odd number has its sibling left of the batch, and a last
    /// node of even number has none yet; all between are pairs. The first nodes of rising levels
    /// follow each other from left to right, so they join the range at once; the last ones stand
    /// in the order of falling levels and join it at the end.
    pub fn append_all(
        &mut self,
        leaves: &[Hash],
        scratch: &mut Scratch,
        hashing: &mut impl Hashing,
    ) {
        let Scratch { nodes, parents, lasts } = scratch;
        lasts.clear();
        let mut first = self.end;
        let mut level = 0;
        let mut left = leaves;
        while !left.is_empty() {
            if first & 1 == 1 {
                let (node, rest) = (left[0], &left[1..]);
                self.append_node(level, node);
                (left, first) = (rest, first + 1);
            }
            let (pairs, last) = left.split_at(left.len() & !1);
            lasts.extend(last.first().map(|node| (level, *node)));
            parents.clear();
            hashing.nodes(pairs, parents);
            debug_assert_eq!(parents.len(), pairs.len() / 2);
            core::mem::swap(nodes, parents);
            left = nodes;
            first >>= 1;
            level += 1;
        }
        while let Some((level, node)) = lasts.pop() {
            self.append_node(level, node);
        }
    }

    /// Appends the leaves of `right`, which starts where this range ends.
    ///
    /// # Panics
    /// If it does not: the caller has made a tree with a hole.
    pub fn extend(&mut self, right: &Self) {
        assert_eq!(self.end, right.begin, "ranges to join are adjacent");
        for ((_, level), node) in subtrees(right.begin, right.end).zip(&right.nodes) {
            self.append_node(level, *node);
        }
        debug_assert_eq!(self.end, right.end);
    }

    /// The RFC 6962 root over leaves `0..end`, or `None` if the range does not start at 0.
    #[must_use]
    pub fn root(&self) -> Option<Hash> {
        if self.begin != 0 {
            return None;
        }
        Some(self.fold().unwrap_or_else(empty_root))
    }

    /// MTH of RFC 6962 over the range's own leaves, as if the first were leaf 0; `None` if there
    /// are none. It is a hash of the whole tree if no subtree of the range is smaller than the one
    /// after it, which holds of a range that begins at a multiple of a power of two that is at
    /// least its length.
    pub(crate) fn fold(&self) -> Option<Hash> {
        let (last, rest) = self.nodes.split_last()?;
        Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
    }

    /// Appends a perfect subtree of 2^`level` leaves and merges while it is a right child whose
    /// left sibling is in the range.
    pub(crate) fn append_node(&mut self, level: u32, node: Hash) {
        debug_assert!(self.end.is_multiple_of(1 << level));
        let mut index = self.end >> level;
        let mut level = level;
        self.end += 1 << level;
        let mut node = node;
        while index & 1 == 1 && (index - 1) << level >= self.begin {
            let Some(left) = self.nodes.pop() else { break };
            node = node_hash(&left, &node);
            index >>= 1;
            level += 1;
        }
        self.nodes.push(node);
    }
}

/// The leaves of one segment: their compact range, and the hash of every whole block among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentTree {
    /// Leaves up to the block that is being filled.
    whole: CompactRange,
    /// Leaves of the block that is being filled.
    open: CompactRange,
    /// The hashes of whole blocks of 2^[`BLOCK_LEVEL`] leaves.
    blocks: Vec<Hash>,
}

impl SegmentTree {
    /// No leaf, before the leaf of number `begin`.
    #[must_use]
    pub fn new(begin: u64) -> Self {
        let (whole, open) = (CompactRange::new(begin), CompactRange::new(begin));
        Self { whole, open, blocks: Vec::new() }
    }

    /// One past the last leaf's number.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.open.end
    }

    /// Appends `leaves` as [`CompactRange::append_all`] does.
    pub fn append_all(
        &mut self,
        leaves: &[Hash],
        scratch: &mut Scratch,
        hashing: &mut impl Hashing,
    ) {
        let mut left = leaves;
        while !left.is_empty() {
            let to_end = (1 << BLOCK_LEVEL) - (self.open.end & ((1 << BLOCK_LEVEL) - 1));
            let (block, rest) = left.split_at(left.len().min(to_end as usize));
            self.open.append_all(block, scratch, hashing);
            left = rest;
            if block.len() as u64 == to_end {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        if let ([hash], true) =
            (&self.open.nodes[..], self.open.end - self.open.begin == 1 << BLOCK_LEVEL)
        {
            self.blocks.push(*hash);
        }
        self.whole.extend(&self.open);
        self.open.restart(self.whole.end);
    }

    /// The compact range of all leaves.
    #[must_use]
    pub fn range(&self) -> CompactRange {
        let mut range = self.whole.clone();
        range.extend(&self.open);
        range
    }

    /// The hashes of whole blocks as a trailer has them, and their level: see [`block_level`].
    #[must_use]
    pub fn blocks(&self) -> (u32, Vec<Hash>) {
        let (begin, end) = (self.whole.begin, self.open.end);
        let level = block_level(begin, end);
        let mut blocks = self.blocks.clone();
        for below in BLOCK_LEVEL..level {
            // Only pairs that are siblings; what is left over is no whole block of the next level.
            let odd = usize::from(whole_blocks(begin, end, below).start & 1 == 1);
            let pairs = blocks.get(odd..).unwrap_or_default().as_chunks::<2>().0;
            blocks = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
        }
        (level, blocks)
    }
}

/// The level of a segment's blocks: the smallest from [`BLOCK_LEVEL`] on at which no more than
/// [`BLOCKS_MAX`] blocks of 2^level leaves lie whole in `begin..end`.
#[must_use]
pub fn block_level(begin: u64, end: u64) -> u32 {
    let few = |level: &u32| {
        let blocks = whole_blocks(begin, end, *level);
        blocks.end - blocks.start <= BLOCKS_MAX as u64
    };
    (BLOCK_LEVEL..u64::BITS).find(few).unwrap_or(u64::BITS - 1)
}

/// The numbers of the blocks of 2^`level` leaves that lie whole in `begin..end`.
#[must_use]
pub const fn whole_blocks(begin: u64, end: u64, level: u32) -> Range<u64> {
    let (first, last) = (begin.div_ceil(1 << level), end >> level);
    first..if last > first { last } else { first }
}

/// How many nodes the compact range `begin..end` has.
#[must_use]
pub fn node_count(begin: u64, end: u64) -> usize {
    subtrees(begin, end).count()
}

/// The first leaf and level of each perfect subtree of the compact range `begin..end`.
pub(crate) fn subtrees(begin: u64, end: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut at = begin;
    core::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let level = at.trailing_zeros().min(left.ilog2());
        let start = at;
        at += 1 << level;
        Some((start, level))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MTH of RFC 6962, section 2.1, written as the RFC says it.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&mth(&leaves[..split]), &mth(&leaves[split..]))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash_stored(&n.to_le_bytes())).collect()
    }

    #[test]
    fn roots_are_those_of_the_rfc() {
        let all = leaves(130);
        let mut range = CompactRange::new(0);
        assert_eq!(range.root(), Some(empty_root()));
        for (count, leaf) in all.iter().enumerate() {
            range.append(*leaf);
            assert_eq!(range.root(), Some(mth(&all[..=count])), "{count}");
            assert_eq!(range.nodes().len(), node_count(0, range.end()));
        }
    }

    #[test]
    fn known_roots_of_certificate_transparency() {
        // The first two roots of the reference tree that Certificate Transparency logs are
        // tested with: leaves "" and 0x00.
        let hex = |hash: Hash| {
            hash.iter().map(|b| alloc::format!("{b:02x}")).collect::<alloc::string::String>()
        };
        let mut range = CompactRange::new(0);
        range.append(leaf_hash_stored(b""));
        assert_eq!(
            range.root().map(hex).as_deref(),
            Some("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
        );
        range.append(leaf_hash_stored(&[0]));
        assert_eq!(
            range.root().map(hex).as_deref(),
            Some("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125")
        );
    }

    /// The range that appending one by one gives must come of `batches` too.
    fn check_batches(begin: u64, batches: &[usize]) {
        let all = leaves(begin + batches.iter().sum::<usize>() as u64);
        let first = usize::try_from(begin).unwrap();
        let (mut single, mut whole) = (CompactRange::new(begin), CompactRange::new(0));
        all[..first].iter().for_each(|leaf| whole.append(*leaf));
        let (mut batched, mut scratch) = (single.clone(), Scratch::default());
        let mut left = &all[first..];
        for &len in batches {
            let (batch, rest) = left.split_at(len);
            batch.iter().for_each(|leaf| single.append(*leaf));
            batched.append_all(batch, &mut scratch, &mut OneByOne);
            whole.append_all(batch, &mut scratch, &mut OneByOne);
            assert_eq!(batched, single, "begin {begin}, batches {batches:?}");
            left = rest;
        }
        assert_eq!(whole.root(), Some(mth(&all)), "begin {begin}, batches {batches:?}");
    }

    #[test]
    fn a_batch_is_its_leaves_for_every_begin_and_length() {
        for begin in 0..34 {
            for len in 0..70 {
                check_batches(begin, &[len]);
            }
        }
    }

    #[test]
    fn one_by_one_hashes_records_back_to_back_and_pairs() {
        let mut records = Vec::new();
        let mut expected = Vec::new();
        for len in [0usize, 1, 30, 31, 500] {
            let bytes = alloc::vec![len as u8; len];
            let record = Record {
                source: crate::Source::Stdin,
                kind: 1,
                flags: crate::Flags::NONE,
                realtime_ns: 2,
                boottime_ns: 3,
                source_seq: 4,
                bytes: &bytes,
            };
            records.extend(record.header());
            records.extend(&bytes);
            expected.push(leaf_hash(&record));
        }
        let mut out = Vec::new();
        OneByOne.leaves(&records, &mut out);
        assert_eq!(out, expected);
        OneByOne.nodes(&expected, &mut out);
        assert_eq!(out[5..], [node_hash(&out[0], &out[1]), node_hash(&out[2], &out[3])]);
    }

    proptest! {
        #[test]
        fn batches_are_their_leaves(
            begin in 0u64..300,
            batches in proptest::collection::vec(0usize..90, 0..8),
        ) {
            check_batches(begin, &batches);
        }

        #[test]
        fn ranges_join_into_the_whole(a in 0u64..200, b in 0u64..200, c in 0u64..200) {
            let all = leaves(a + b + c);
            let mut parts = [CompactRange::new(0), CompactRange::new(a), CompactRange::new(a + b)];
            for (n, leaf) in (0u64..).zip(&all) {
                parts[usize::from(n >= a) + usize::from(n >= a + b)].append(*leaf);
            }
            for part in &parts {
                let again = CompactRange::from_nodes(part.begin(), part.end(), part.nodes());
                prop_assert_eq!(again.as_ref(), Some(part));
                prop_assert!(part.nodes().len() <= RANGE_NODES_MAX);
            }
            let [mut whole, middle, right] = parts;
            whole.extend(&middle);
            whole.extend(&right);
            prop_assert_eq!(whole.root(), Some(mth(&all)));
        }
    }
}
