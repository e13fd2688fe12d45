//! The Merkle tree against an implementation that is not ours.

use crate::common::{Rec, recs};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use graven_format::merkle::{CompactRange, Hash, leaf_hash, leaf_hash_stored};
use sha2::Sha256;

/// The bytes of a record as they stand in a frame.
fn stored(rec: &Rec) -> Vec<u8> {
    let mut bytes = vec![0; rec.record().stored_len()];
    rec.record().encode(&mut bytes);
    bytes
}

/// The roots over the first 0, 1, 2 … of `leaves`, as the other implementation has them.
fn roots(leaves: &[Vec<u8>]) -> Vec<Hash> {
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut roots = vec![(*tree.root().as_bytes()).into()];
    for leaf in leaves {
        tree.push(leaf.clone());
        roots.push((*tree.root().as_bytes()).into());
    }
    roots
}

#[test]
fn roots_agree_for_every_size_up_to_300() {
    let records = recs(0, 300, 60);
    let leaves: Vec<Vec<u8>> = records.iter().map(stored).collect();
    let expected = roots(&leaves);
    let mut range = CompactRange::new(0);
    assert_eq!(range.root(), Some(expected[0]));
    for ((rec, leaf), root) in records.iter().zip(&leaves).zip(&expected[1..]) {
        assert_eq!(leaf_hash(&rec.record()), leaf_hash_stored(leaf));
        range.append(leaf_hash(&rec.record()));
        assert_eq!(range.root().as_ref(), Some(root), "{} leaves", range.end());
    }
}

#[test]
fn roots_agree_wherever_segments_are_cut() {
    let leaves: Vec<Vec<u8>> = recs(0, 70, 10).iter().map(stored).collect();
    let expected = roots(&leaves);
    for cut in 0..=leaves.len() {
        let mut before = CompactRange::new(0);
        let mut segment = CompactRange::new(cut as u64);
        for (n, leaf) in leaves.iter().enumerate() {
            let part = if n < cut { &mut before } else { &mut segment };
            part.append(leaf_hash_stored(leaf));
            // From a segment's header and what of its own range there is, any root follows.
            let mut whole = before.clone();
            if n >= cut {
                whole.extend(&segment);
            }
            assert_eq!(whole.root(), Some(expected[n + 1]), "cut at {cut}, {n}");
        }
    }
}

#[test]
fn the_largest_ranges_have_no_more_nodes_than_their_limits() {
    use graven_format::consts::{PEAKS_MAX, RANGE_NODES_MAX};
    use graven_format::merkle::node_count;
    assert_eq!(node_count(0, u64::MAX), PEAKS_MAX);
    assert!(node_count(1, u64::MAX) <= RANGE_NODES_MAX);
    let nodes = vec![[7; 32]; node_count(1, u64::MAX)];
    let widest = CompactRange::from_nodes(1, u64::MAX, &nodes).expect("as many as it has");
    let mut whole = CompactRange::new(0);
    whole.append([1; 32]);
    whole.extend(&widest);
    assert_eq!((whole.end(), whole.nodes().len()), (u64::MAX, PEAKS_MAX));
    assert!(CompactRange::from_nodes(1, u64::MAX, &nodes[1..]).is_none());
    assert!(CompactRange::from_nodes(2, 1, &[]).is_none());
}
