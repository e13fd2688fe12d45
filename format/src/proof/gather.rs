//! Makes a proof in one walk over the tree, from left to right.

use crate::merkle::{CompactRange, Hash, Hashing, Scratch, node_hash, subtrees};
use crate::proof::{Consistency, Inclusion};
use alloc::vec::Vec;
use core::ops::Range;

/// Why a proof cannot be made of what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// The leaves that were given next do not follow those before them.
    #[error("leaves from {expected} on are needed, and leaves from {found} on are there")]
    Hole {
        /// The leaf that is needed next.
        expected: u64,
        /// The first leaf that was given.
        found: u64,
    },
    /// A subtree is in the proof and outside of it: its leaves are needed one by one.
    #[error("the subtree at leaf {0} is not a part of this proof: its leaves are needed")]
    Crosses(u64),
    /// Leaves are missing at the end.
    #[error("leaves up to {size} are needed, and only those up to {end} are there")]
    Short {
        /// After the last leaf that was given.
        end: u64,
        /// After the last leaf that is needed.
        size: u64,
    },
}

/// A proof, and what it leads from and to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// That a record is in a tree.
    Inclusion {
        /// The proof.
        proof: Inclusion,
        /// Hash of the record's leaf.
        leaf: Hash,
        /// Root of the tree.
        root: Hash,
    },
    /// That a tree contains an earlier one.
    Consistency {
        /// The proof.
        proof: Consistency,
        /// Root of the earlier tree.
        from_root: Hash,
        /// Root of the later tree.
        root: Hash,
    },
}

#[derive(Clone, Copy, Debug)]
enum Goal {
    Inclusion { seq: u64 },
    Consistency { from: u64 },
}

/// One subtree of the proof.
#[derive(Debug)]
struct Tile {
    leaves: Range<u64>,
    /// Its place in the path, where 0 is what the path begins at.
    place: usize,
    hash: Option<Hash>,
}

/// Joins compact ranges and leaves, given from leaf 0 on, into the hashes of a proof. See
/// [`crate::proof`]. Holds O(log n) hashes.
#[derive(Debug)]
pub struct Gather {
    goal: Goal,
    size: u64,
    /// From left to right; they cover `0..size`.
    tiles: Vec<Tile>,
    /// The tile that is being joined.
    now: usize,
    joined: CompactRange,
}

impl Gather {
    /// For the proof that record `seq` is in the tree of `size` leaves; `None` if it is not.
    #[must_use]
    pub fn inclusion(seq: u64, size: u64) -> Option<Self> {
        (seq < size).then(|| Self::new(Goal::Inclusion { seq }, size, &path(seq, 0, size)))
    }

    /// For the proof that the tree of `size` leaves begins with that of `from` leaves; `None` if
    /// `from` is 0 or above `size`.
    #[must_use]
    pub fn consistency(from: u64, size: u64) -> Option<Self> {
        let last = from.checked_sub(1).filter(|_| from <= size)?;
        let path = path(last, from.trailing_zeros(), size);
        Some(Self::new(Goal::Consistency { from }, size, &path))
    }

    fn new(goal: Goal, size: u64, path: &[Range<u64>]) -> Self {
        let mut tiles: Vec<Tile> = (path.iter().enumerate())
            .map(|(place, leaves)| Tile { leaves: leaves.clone(), place, hash: None })
            .collect();
        tiles.sort_unstable_by_key(|tile| tile.leaves.start);
        debug_assert!(tiles.windows(2).all(|pair| pair[0].leaves.end == pair[1].leaves.start));
        Self { goal, size, tiles, now: 0, joined: CompactRange::new(0) }
    }

    /// The number of the leaf that is needed next; the tree's size once none is.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.joined.end()
    }

    /// Adds the subtrees of `range`. What lies behind the tree's last leaf is left out.
    ///
    /// # Errors
    /// [`GatherError::Hole`] if the range does not begin at [`Gather::end`];
    /// [`GatherError::Crosses`] if its leaves are needed one by one.
    pub fn range(&mut self, range: &CompactRange) -> Result<(), GatherError> {
        if range.begin() != self.end() {
            return Err(GatherError::Hole { expected: self.end(), found: range.begin() });
        }
        for ((start, level), node) in subtrees(range.begin(), range.end()).zip(range.nodes()) {
            if self.now == self.tiles.len() {
                break;
            }
            if !self.subtree(level, node) {
                return Err(GatherError::Crosses(start));
            }
        }
        Ok(())
    }

    /// Adds the perfect subtree of 2^`level` leaves that begins at [`Gather::end`], if it is a part
    /// of the proof. Returns whether it was; if not, smaller ones or its leaves are needed.
    pub fn subtree(&mut self, level: u32, node: &Hash) -> bool {
        let Some((tile, leaves)) = self.tiles.get(self.now).zip(1_u64.checked_shl(level)) else {
            return false;
        };
        let at = self.end();
        if tile.leaves.end - at < leaves || !at.is_multiple_of(leaves) {
            return false;
        }
        self.joined.append_node(level, *node);
        self.step();
        true
    }

    /// Adds leaves, the first of them of number [`Gather::end`]. What lies behind the tree's last
    /// leaf is left out.
    pub fn leaves(&mut self, leaves: &[Hash], scratch: &mut Scratch, hashing: &mut impl Hashing) {
        let mut left = leaves;
        while let Some(tile) = self.tiles.get(self.now).filter(|_| !left.is_empty()) {
            let room = tile.leaves.end - self.joined.end();
            let take = usize::try_from(room).map_or(left.len(), |room| room.min(left.len()));
            let (these, rest) = left.split_at(take);
            self.joined.append_all(these, scratch, hashing);
            left = rest;
            self.step();
        }
    }

    /// Goes on to the next tile if this one is complete.
    fn step(&mut self) {
        let end = self.joined.end();
        if let Some(tile) = self.tiles.get_mut(self.now).filter(|tile| tile.leaves.end == end) {
            tile.hash = self.joined.fold();
            self.now += 1;
            self.joined = CompactRange::new(end);
        }
    }

    /// The proof.
    ///
    /// # Errors
    /// [`GatherError::Short`] if leaves are missing.
    pub fn finish(self) -> Result<Gathered, GatherError> {
        let short = GatherError::Short { end: self.end(), size: self.size };
        let mut tiles = self.tiles;
        tiles.sort_unstable_by_key(|tile| tile.place);
        let hashes: Option<Vec<Hash>> = tiles.iter().map(|tile| tile.hash).collect();
        let hashes = hashes.ok_or(short)?;
        let (first, siblings) = hashes.split_first().ok_or(short)?;
        match self.goal {
            Goal::Inclusion { seq } => {
                let proof = Inclusion { seq, size: self.size, path: siblings.to_vec() };
                let root = proof.root(first).ok_or(short)?;
                Ok(Gathered::Inclusion { proof, leaf: *first, root })
            }
            Goal::Consistency { from } => {
                let earlier = tiles.iter().skip(1).zip(siblings);
                let from_root = earlier
                    .filter(|(tile, _)| tile.leaves.end <= from)
                    .fold(*first, |right, (_, left)| node_hash(left, &right));
                let path = match from {
                    from if from == self.size => Vec::new(),
                    // The verifier has this one: it is the earlier root.
                    from if from.is_power_of_two() => siblings.to_vec(),
                    _ => hashes,
                };
                let proof = Consistency { from, size: self.size, path };
                let root = proof.root(&from_root).ok_or(short)?;
                Ok(Gathered::Consistency { proof, from_root, root })
            }
        }
    }
}

/// The leaves of the node of this level that holds `leaf`, then those of its sibling, of its
/// parent's sibling, and so on in the tree of `size` leaves. A node without a sibling has none.
fn path(leaf: u64, level: u32, size: u64) -> Vec<Range<u64>> {
    let cut = |end: u128| u64::try_from(end).map_or(size, |end| end.min(size));
    let node = |index: u64, level: u32| {
        let start = u128::from(index) << level;
        cut(start)..cut(start + (1 << level))
    };
    let siblings = (level..u64::BITS).map(|level| node((leaf >> level) ^ 1, level));
    core::iter::once(node(leaf >> level, level))
        .chain(siblings.filter(|leaves| !leaves.is_empty()))
        .collect()
}
