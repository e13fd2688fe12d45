//! What the trailer of a damaged segment still confirms: the subtrees whose hashes it states are
//! computed again from those records that are intact.

use crate::trail::scan::{self, How};
use graven_format::merkle::{CompactRange, Hash, block_level, leaf_hash, node_hash, whole_blocks};
use graven_format::scan::{Event, Expect};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::Trailer;
use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};

/// A subtree and the hash that it must have.
#[derive(Debug)]
struct Tile {
    leaves: Range<u64>,
    hash: Hash,
}

/// The seqs of those records that the trailer's root covers, without a gap each, in rising order.
///
/// # Errors
/// What the system says.
pub(crate) fn confirmed(
    file: &File,
    expect: Expect,
    how: How<'_>,
    header: &SegmentHeader,
    trailer: &Trailer,
) -> io::Result<Vec<Range<u64>>> {
    let mut tiles = tiles(header, trailer).unwrap_or_default().into_iter();
    let mut now = tiles.next();
    let mut tree = CompactRange::new(0);
    let mut confirmed: Vec<Range<u64>> = Vec::new();
    let how = How { progress: None, sizes: &[], ..how };
    let expect = Expect { merkle: false, ..expect };
    scan::scan(file, expect, how, &mut |event| {
        let Event::Record { seq, record, .. } = event else { return ControlFlow::Continue(()) };
        while now.as_ref().is_some_and(|tile| tile.leaves.end <= seq) {
            now = tiles.next();
        }
        let Some(tile) = &now else { return ControlFlow::Break(()) };
        if seq == tile.leaves.start {
            tree = CompactRange::new(seq);
        }
        if tree.begin() == tile.leaves.start && tree.end() == seq {
            tree.append(leaf_hash(&record));
        }
        if tree.begin() == tile.leaves.start
            && tree.end() == tile.leaves.end
            && tree.nodes() == [tile.hash]
        {
            match confirmed.last_mut().filter(|last| last.end == tile.leaves.start) {
                Some(last) => last.end = tile.leaves.end,
                None => confirmed.push(tile.leaves.clone()),
            }
            now = tiles.next();
        }
        ControlFlow::Continue(())
    })?;
    Ok(confirmed)
}

/// The subtrees that lead to the trailer's root, from left to right: blocks where they lie whole in the
/// segment, what is smaller at its edges. `None` if the root is not that of the trailer's own range.
fn tiles(header: &SegmentHeader, trailer: &Trailer) -> Option<Vec<Tile>> {
    let range = &trailer.range;
    let mut whole = header.before.clone();
    if whole.end() != range.begin() {
        return None;
    }
    whole.extend(range);
    if whole.root() != Some(trailer.root) {
        return None;
    }
    let level = block_level(range.begin(), range.end());
    let first = whole_blocks(range.begin(), range.end(), level).start;
    let mut tiles = Vec::new();
    for (start, height, hash) in range.subtrees() {
        if height <= level {
            tiles.push(Tile { leaves: start..start + (1 << height), hash: *hash });
            continue;
        }
        let at = usize::try_from((start >> level) - first).ok()?;
        let Some(blocks) = trailer.blocks.get(at..at + (1 << (height - level))) else { continue };
        if fold(blocks) == *hash {
            let place = |n: usize| start + ((n as u64) << level);
            tiles.extend(
                (blocks.iter().enumerate())
                    .map(|(n, hash)| Tile { leaves: place(n)..place(n + 1), hash: *hash }),
            );
        }
    }
    Some(tiles)
}

/// The hash of a perfect tree over these subtrees, a power of two of them.
fn fold(nodes: &[Hash]) -> Hash {
    match nodes.split_at(nodes.len() / 2) {
        ([], right) => right[0],
        (left, right) => node_hash(&fold(left), &fold(right)),
    }
}
