//! The tree: hashes of records, batches that join it, roots and proofs.
//!
//! Hashes of records and roots are SHA-256's, one after the other, as a processor without lanes has it: valgrind shows
//! neither SHA instructions nor AVX-512. Where batches and proofs are walked through, hashing is [`Folding`], or what the
//! tree does itself would be lost beside it. What lanes gain, and what batches cost with real hashes, is timed in
//! `benches/benches/hash.rs`.

use crate::seal::fill;
use crate::{Unit, Work, Workload, text};
use graven_format::consts::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use graven_format::merkle::{
    CompactRange, Hash, Hashing, OneByOne, Scratch, SegmentTree, leaf_hash_stored, node_count,
};
use graven_format::proof::{Gather, Gathered};

pub(crate) const LEAVES: Workload =
    Workload { name: "merkle/leaves", unit: Unit::Items, prepare: hash_leaves };

pub(crate) const APPEND: Workload =
    Workload { name: "merkle/append", unit: Unit::Items, prepare: append };

pub(crate) const ROOT: Workload =
    Workload { name: "merkle/root", unit: Unit::Items, prepare: root };

pub(crate) const INCLUSION: Workload =
    Workload { name: "merkle/inclusion", unit: Unit::Items, prepare: inclusion };

pub(crate) const CONSISTENCY: Workload =
    Workload { name: "merkle/consistency", unit: Unit::Items, prepare: consistency };

/// Leaves that differ.
fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash_stored(&n.to_le_bytes())).collect()
}

/// Hashes of nodes that cost next to nothing.
struct Folding;

impl Hashing for Folding {
    fn leaves(&mut self, records: &[u8], out: &mut Vec<Hash>) {
        OneByOne.leaves(records, out);
    }

    fn nodes(&mut self, children: &[Hash], out: &mut Vec<Hash>) {
        let fold = |[left, right]: &[Hash; 2]| std::array::from_fn(|n| left[n] ^ right[31 - n]);
        out.extend(children.as_chunks().0.iter().map(fold));
    }
}

/// The records of a full frame.
fn hash_leaves() -> Work {
    let mut buf = vec![0; FRAME_BYTES_MAX];
    let (end, count) = fill(&mut buf, &text::events(500));
    let mut out = Vec::with_capacity(count);
    let run = move || {
        out.clear();
        OneByOne.leaves(&buf[FRAME_HEADER_BYTES..end], &mut out);
        assert_eq!(out.len(), count);
    };
    Work { units: count as u64, run: Box::new(run) }
}

/// Batches of several lengths join the tree of a segment, whose range and blocks are then asked for as at a seal.
fn append() -> Work {
    let leaves = leaves(2500);
    let mut scratch = Scratch::new(leaves.len());
    let units = leaves.len() as u64;
    let run = move || {
        let mut tree = SegmentTree::new(5);
        let mut left = &leaves[..];
        for len in [1, 3, 780, 16, 900, 800] {
            let (batch, rest) = left.split_at(len);
            tree.append_all(batch, &mut scratch, &mut Folding);
            left = rest;
        }
        assert!(left.is_empty());
        assert_eq!((tree.range().end(), tree.blocks().1.len()), (5 + leaves.len() as u64, 1));
    };
    Work { units, run: Box::new(run) }
}

/// Roots of a trail of a million records.
fn root() -> Work {
    const ROOTS: u64 = 10;
    const SIZE: u64 = (1 << 20) - 1;
    let nodes = leaves(node_count(0, SIZE) as u64);
    let range = CompactRange::from_nodes(0, SIZE, &nodes).expect("as many nodes as there are");
    let run = move || {
        for _ in 0..ROOTS {
            assert!(std::hint::black_box(&range).root().is_some());
        }
    };
    Work { units: ROOTS, run: Box::new(run) }
}

/// Proofs of records among a block of leaves, made and checked.
fn inclusion() -> Work {
    const SEQS: [u64; 3] = [0, 517, 999];
    let leaves = leaves(1000);
    let mut scratch = Scratch::new(leaves.len());
    let run = move || {
        for seq in SEQS {
            let mut gather = Gather::inclusion(seq, 1000).expect("the record is in the tree");
            gather.leaves(&leaves, &mut scratch, &mut Folding);
            let Ok(Gathered::Inclusion { proof, leaf, root }) = gather.finish() else {
                panic!("all leaves were given");
            };
            assert_eq!((proof.root(&leaf), leaf), (Some(root), leaves[seq as usize]));
        }
    };
    Work { units: SEQS.len() as u64, run: Box::new(run) }
}

/// Proofs that the tree only grew, made and checked.
fn consistency() -> Work {
    const SIZES: [u64; 3] = [1, 512, 777];
    let leaves = leaves(1000);
    let mut scratch = Scratch::new(leaves.len());
    let run = move || {
        for from in SIZES {
            let mut gather = Gather::consistency(from, 1000).expect("it is not the empty tree");
            gather.leaves(&leaves, &mut scratch, &mut Folding);
            let Ok(Gathered::Consistency { proof, from_root, root }) = gather.finish() else {
                panic!("all leaves were given");
            };
            assert_eq!(proof.root(&from_root), Some(root));
        }
    };
    Work { units: SIZES.len() as u64, run: Box::new(run) }
}
