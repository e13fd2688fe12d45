//! Proofs: made of headers, trailers and one segment's leaves, and the same as those of an
//! implementation that is not ours; checked the same as RFC 6962's own recursion does.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use graven_format::TrailId;
use graven_format::lines::{Head, TextError, origin, parse_hash};
use graven_format::merkle::{
    CompactRange, Hash, OneByOne, Scratch, leaf_hash_stored, node_count, node_hash,
};
use graven_format::proof::text::{Document, TEXT_BYTES_MAX};
use graven_format::proof::{
    Consistency, Gather, GatherError, Gathered, Inclusion, PATH_HASHES_MAX,
};
use proptest::prelude::*;
use sha2::Sha256;

/// A small generator: the same trees in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn leaf_bytes(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

/// What a trail keeps of its tree: where segments begin, the range before each, each one's own.
struct Trail {
    leaves: Vec<Hash>,
    cuts: Vec<u64>,
    before: Vec<CompactRange>,
    own: Vec<CompactRange>,
}

impl Trail {
    /// `size` leaves in segments of up to `longest`; some are empty.
    fn new(size: u64, longest: u64, random: &mut Random) -> Self {
        let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash_stored(&leaf_bytes(n))).collect();
        let mut cuts = vec![0];
        while cuts[cuts.len() - 1] < size {
            cuts.push((cuts[cuts.len() - 1] + random.below(longest + 1)).min(size));
        }
        let mut whole = CompactRange::new(0);
        let (mut before, mut own) = (Vec::new(), Vec::new());
        for pair in cuts.windows(2) {
            before.push(whole.clone());
            let mut range = CompactRange::new(pair[0]);
            leaves[pair[0] as usize..pair[1] as usize].iter().for_each(|leaf| range.append(*leaf));
            whole.extend(&range);
            own.push(range);
        }
        Self { leaves, cuts, before, own }
    }

    /// Feeds what a proof at `pivot` in a tree of `size` leaves is made of; counts the segments
    /// whose leaves were needed.
    fn gather(
        &self,
        mut gather: Gather,
        pivot: u64,
        whole_leaf: bool,
        size: u64,
    ) -> (Gathered, u32) {
        let first = (0..self.own.len()).rfind(|n| self.cuts[*n] <= pivot).expect("segment 0");
        gather.range(&self.before[first]).expect("the header's range");
        let mut read = 0;
        for n in first..self.own.len() {
            if gather.end() == size {
                break;
            }
            let (start, end) = (self.cuts[n], self.cuts[n + 1]);
            let around = start < pivot && pivot < end;
            if n == first && (whole_leaf || around) || size < end {
                let leaves = &self.leaves[start as usize..end as usize];
                // In two pieces, as a reader gives them.
                let (one, two) = leaves.split_at(leaves.len() / 3);
                gather.leaves(one, &mut Scratch::default(), &mut OneByOne);
                gather.leaves(two, &mut Scratch::default(), &mut OneByOne);
                read += 1;
            } else {
                gather.range(&self.own[n]).expect("a trailer's range");
            }
        }
        (gather.finish().expect("all leaves were given"), read)
    }

    fn inclusion(&self, seq: u64, size: u64) -> (Inclusion, Hash, Hash) {
        let gather = Gather::inclusion(seq, size).expect("it is in the tree");
        let (gathered, read) = self.gather(gather, seq, true, size);
        assert!(read <= 1 + u32::from(!self.cuts.contains(&size)), "{seq} of {size}: {read}");
        match gathered {
            Gathered::Inclusion { proof, leaf, root } => (proof, leaf, root),
            Gathered::Consistency { .. } => panic!("another proof was asked for"),
        }
    }

    fn consistency(&self, from: u64, size: u64) -> (Consistency, Hash, Hash) {
        let gather = Gather::consistency(from, size).expect("an earlier tree");
        let (gathered, read) = self.gather(gather, from, false, size);
        let inside = |end: u64| u32::from(!self.cuts.contains(&end));
        assert!(read <= inside(from) + inside(size), "{from} to {size}: {read}");
        match gathered {
            Gathered::Consistency { proof, from_root, root } => (proof, from_root, root),
            Gathered::Inclusion { .. } => panic!("another proof was asked for"),
        }
    }
}

/// The other implementation's tree of each size.
fn oracle(size: u64) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    (0..size).for_each(|n| tree.push(leaf_bytes(n)));
    tree
}

fn check_inclusion(trail: &Trail, tree: &MemoryBackedTree<Sha256, Vec<u8>>, seq: u64) {
    let (proof, leaf, root) = trail.inclusion(seq, tree.len());
    assert_eq!(proof.path.as_flattened(), tree.prove_inclusion(seq as usize).as_bytes());
    assert_eq!((leaf, root), (trail.leaves[seq as usize], (*tree.root().as_bytes()).into()));
    assert_eq!(proof.root(&leaf), Some(root));
}

fn check_consistency(
    trail: &Trail,
    earlier: &Hash,
    tree: &MemoryBackedTree<Sha256, Vec<u8>>,
    from: u64,
) {
    let (proof, from_root, root) = trail.consistency(from, tree.len());
    let expected = tree.prove_consistency((tree.len() - from) as usize);
    let expected = if from == tree.len() { &[] } else { expected.as_bytes() };
    assert_eq!(proof.path.as_flattened(), expected, "{from} to {}", tree.len());
    assert_eq!((from_root, root), (*earlier, (*tree.root().as_bytes()).into()));
    assert_eq!(proof.root(&from_root), Some(root));
}

#[test]
fn every_proof_in_every_tree_up_to_300_is_that_of_another_implementation() {
    let mut random = Random(7);
    let trail = Trail::new(330, 40, &mut random);
    let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut roots = vec![<Hash>::from(*tree.root().as_bytes())];
    for size in 1..=300 {
        tree.push(leaf_bytes(size - 1));
        roots.push((*tree.root().as_bytes()).into());
        // Cut elsewhere too: at each leaf, at few, and not at all.
        let own = Trail::new(size, 1 + random.below(size + 20), &mut random);
        for at in 0..size {
            check_inclusion(&trail, &tree, at);
            check_inclusion(&own, &tree, at);
            check_consistency(&trail, &roots[at as usize + 1], &tree, at + 1);
            check_consistency(&own, &roots[at as usize + 1], &tree, at + 1);
        }
    }
}

#[test]
fn random_proofs_in_large_trees_are_those_of_another_implementation() {
    let mut random = Random(8);
    for longest in [1, 3000, 100_000] {
        let size = 20_000 + random.below(30_000);
        let (trail, tree) = (Trail::new(size, longest, &mut random), oracle(size));
        for _ in 0..30 {
            check_inclusion(&trail, &tree, random.below(size));
            let from = 1 + random.below(size);
            let mut earlier = CompactRange::new(0);
            trail.leaves[..from as usize].iter().for_each(|leaf| earlier.append(*leaf));
            check_consistency(&trail, &earlier.root().expect("from 0 on"), &tree, from);
        }
    }
}

/// Sections 2.1.1 and 2.1.2 of RFC 6962 read backwards, written as the RFC says them.
fn inclusion_by_recursion(seq: u64, size: u64, leaf: &Hash, path: &[Hash]) -> Option<Hash> {
    if seq >= size {
        return None;
    }
    if size == 1 {
        return path.is_empty().then_some(*leaf);
    }
    let (last, rest) = path.split_last()?;
    let split = 1 << (size - 1).ilog2();
    Some(if seq < split {
        node_hash(&inclusion_by_recursion(seq, split, leaf, rest)?, last)
    } else {
        node_hash(last, &inclusion_by_recursion(seq - split, size - split, leaf, rest)?)
    })
}

fn consistency_by_recursion(
    from: u64,
    size: u64,
    from_root: Option<&Hash>,
    path: &[Hash],
) -> Option<(Hash, Hash)> {
    if from == size {
        return match (from_root, path) {
            (Some(root), []) => Some((*root, *root)),
            (None, [hash]) => Some((*hash, *hash)),
            _ => None,
        };
    }
    let (last, rest) = path.split_last()?;
    let split = 1 << (size - 1).ilog2();
    Some(if from <= split {
        let (earlier, later) = consistency_by_recursion(from, split, from_root, rest)?;
        (earlier, node_hash(&later, last))
    } else {
        let (earlier, later) = consistency_by_recursion(from - split, size - split, None, rest)?;
        (node_hash(last, &earlier), node_hash(last, &later))
    })
}

fn agree_inclusion(proof: &Inclusion, leaf: &Hash) -> Option<Hash> {
    let root = proof.root(leaf);
    let expected = inclusion_by_recursion(proof.seq, proof.size, leaf, &proof.path);
    assert_eq!(root, expected, "{} of {}", proof.seq, proof.size);
    root
}

fn agree_consistency(proof: &Consistency, from_root: &Hash) -> Option<Hash> {
    let root = proof.root(from_root);
    let expected = (0 < proof.from && proof.from <= proof.size)
        .then(|| consistency_by_recursion(proof.from, proof.size, Some(from_root), &proof.path))
        .flatten()
        .and_then(|(earlier, later)| (earlier == *from_root).then_some(later));
    assert_eq!(root, expected, "{} to {}", proof.from, proof.size);
    root
}

/// `path` with one hash altered, left out, doubled or swapped, in every way.
fn altered(path: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = vec![[path, &[[0; 32]]].concat()];
    for at in 0..path.len() {
        for byte in [0, 31] {
            let mut path = path.to_vec();
            path[at][byte] ^= 1;
            all.push(path);
        }
        let mut shorter = path.to_vec();
        shorter.remove(at);
        all.push(shorter);
        let mut longer = path.to_vec();
        longer.insert(at, path[at]);
        all.push(longer);
        if at > 0 {
            let mut swapped = path.to_vec();
            swapped.swap(at - 1, at);
            all.push(swapped);
        }
    }
    all
}

#[test]
fn every_altered_inclusion_proof_is_refused() {
    let trail = Trail::new(75, 10, &mut Random(9));
    for size in 1..=75 {
        for seq in 0..size {
            let (proof, leaf, root) = trail.inclusion(seq, size);
            assert_eq!(agree_inclusion(&proof, &leaf), Some(root));
            for path in altered(&proof.path) {
                let proof = Inclusion { path, ..proof.clone() };
                assert_ne!(agree_inclusion(&proof, &leaf), Some(root));
            }
            for other in 0..=size + 1 {
                let moved = Inclusion { seq: other, ..proof.clone() };
                assert_eq!(agree_inclusion(&moved, &leaf) == Some(root), other == seq);
                // A root fits every size in which the path has the same shape, and no other.
                let resized = Inclusion { size: other, ..proof.clone() };
                agree_inclusion(&resized, &leaf);
            }
            let other_leaf = trail.leaves[(seq as usize + 1) % 75];
            assert_ne!(agree_inclusion(&proof, &other_leaf), Some(root));
        }
    }
}

#[test]
fn every_altered_consistency_proof_is_refused() {
    let trail = Trail::new(60, 10, &mut Random(10));
    for size in 1..=60 {
        for from in 1..=size {
            let (proof, from_root, root) = trail.consistency(from, size);
            assert_eq!(agree_consistency(&proof, &from_root), Some(root));
            for path in altered(&proof.path) {
                let proof = Consistency { path, ..proof.clone() };
                assert_ne!(agree_consistency(&proof, &from_root), Some(root));
            }
            for other in 0..=size + 1 {
                agree_consistency(&Consistency { from: other, ..proof.clone() }, &from_root);
                agree_consistency(&Consistency { size: other, ..proof.clone() }, &from_root);
            }
            let mut wrong = from_root;
            wrong[7] ^= 0x10;
            assert_ne!(agree_consistency(&proof, &wrong), Some(root));
        }
    }
}

#[test]
fn what_cannot_be_proven_is_refused_before_anything_is_read() {
    assert!(Gather::inclusion(5, 5).is_none());
    assert!(Gather::inclusion(0, 0).is_none());
    assert!(Gather::inclusion(u64::MAX, u64::MAX).is_none());
    assert!(Gather::consistency(0, 5).is_none());
    assert!(Gather::consistency(6, 5).is_none());
    assert!(Gather::consistency(5, 5).is_some());
}

#[test]
fn ranges_that_do_not_fit_are_refused() {
    let range = |begin: u64, end: u64| {
        CompactRange::from_nodes(begin, end, &vec![[1; 32]; node_count(begin, end)])
            .expect("as many as it has")
    };
    let mut gather = Gather::inclusion(5, 8).expect("it is in the tree");
    let hole = Err(GatherError::Hole { expected: 0, found: 1 });
    assert_eq!(gather.range(&range(1, 2)), hole);
    // Leaf 5 is in this subtree.
    assert_eq!(gather.range(&range(0, 8)), Err(GatherError::Crosses(0)));
    assert_eq!(gather.range(&range(0, 5)), Ok(()));
    assert_eq!(gather.end(), 5);
    assert_eq!(gather.finish(), Err(GatherError::Short { end: 5, size: 8 }));
}

/// A proof of each kind.
pub(crate) fn documents() -> [Document; 2] {
    let trail = Trail::new(20, 6, &mut Random(11));
    let head = |root| Head { origin: origin(TrailId([0xab; 16])), size: 20, root };
    let (proof, _, root) = trail.inclusion(13, 20);
    let inclusion =
        Document::Inclusion { record: leaf_bytes(13), proof, head: head(root), note: None };
    let (proof, from_root, root) = trail.consistency(11, 20);
    [inclusion, Document::Consistency { from_root, proof, head: head(root), note: None }]
}

#[test]
fn text_is_read_as_it_was_written_and_no_altered_byte_passes() {
    for document in documents() {
        let text = document.to_string();
        assert_eq!(Document::parse(text.as_bytes()).as_ref(), Ok(&document), "{text}");
        assert!(document.holds());
        for at in 0..text.len() {
            for byte in [b'\n', b' ', b'0', b'A', b'=', 0xff, text.as_bytes()[at] ^ 1] {
                let mut text = text.clone().into_bytes();
                if core::mem::replace(&mut text[at], byte) == byte {
                    continue;
                }
                let Ok(read) = Document::parse(&text) else { continue };
                // Only the tree that is trusted can be altered without the path's noticing.
                assert!(!read.holds() || read.head() != document.head(), "byte {at}");
            }
            assert!(Document::parse(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        let longer = format!("{text}\n");
        assert!(matches!(Document::parse(longer.as_bytes()), Err(TextError::Line { .. })));
    }
}

#[test]
fn the_text_is_a_tlog_proof() {
    let [Document::Inclusion { record, proof, head, .. }, _] = documents() else {
        panic!("the first is of an inclusion")
    };
    let record = record[..1].to_vec();
    let text = Document::Inclusion { record, proof, head, note: None }.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["c2sp.org/tlog-proof@v1", "extra DQ==", "index 13"]);
    assert_eq!(lines[8..11], ["", "graven/abababababababababababababababab", "20"]);
    assert_eq!(lines.len(), 12);
    assert!(lines[3..8].iter().chain(&lines[11..]).all(|line| line.len() == 44));
}

#[test]
fn text_over_a_limit_is_refused() {
    assert!(matches!(
        Document::parse(&vec![b'\n'; TEXT_BYTES_MAX + 1]),
        Err(TextError::TooLong { what: "bytes", .. })
    ));
    let [Document::Inclusion { mut proof, head, .. }, _] = documents() else {
        panic!("the first is of an inclusion")
    };
    // The longest record and path fit.
    let record = vec![b'x'; 128 * 1024 + 32];
    proof.path = vec![[1; 32]; PATH_HASHES_MAX];
    let longest =
        Document::Inclusion { record, proof: proof.clone(), head: head.clone(), note: None };
    assert_eq!(Document::parse(longest.to_string().as_bytes()), Ok(longest));
    proof.path.push([1; 32]);
    let longer = Document::Inclusion { record: Vec::new(), proof, head, note: None };
    let parsed = Document::parse(longer.to_string().as_bytes());
    assert_eq!(parsed, Err(TextError::TooLong { what: "hashes", max: PATH_HASHES_MAX }));
}

#[test]
fn hashes_are_read_in_both_ways_people_keep_them() {
    let hash: Hash = core::array::from_fn(|n| n as u8 * 7);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(parse_hash(&hex), Some(hash));
    assert_eq!(parse_hash(&hex.to_uppercase()), Some(hash));
    assert_eq!(parse_hash("AAcOFRwjKjE4P0ZNVFtiaXB3foWMk5qhqK+2vcTL0tk="), Some(hash));
    for text in ["", "00", &hex[1..], &format!("{}g0", &hex[2..]), "é", &"+1".repeat(32)] {
        assert_eq!(parse_hash(text), None, "{text}");
    }
}

proptest! {
    /// Sizes that no test can hold leaf by leaf: what headers and trailers keep is made up.
    #[test]
    fn proofs_of_any_size_lead_to_the_root_that_ranges_give(
        begin in any::<u64>().prop_flat_map(|high| (0u32..64).prop_map(move |by| (high >> by).min(u64::MAX - 1000))),
        len in 1u64..60,
        at in any::<u64>(),
        gaps in proptest::collection::vec((any::<u64>(), 1u32..64), 0..5),
    ) {
        let made_up = |begin: u64, end: u64| {
            let nodes: Vec<Hash> = (0..node_count(begin, end))
                .map(|n| leaf_hash_stored(&[&begin.to_le_bytes()[..], &[n as u8]].concat()))
                .collect();
            CompactRange::from_nodes(begin, end, &nodes).expect("as many as it has")
        };
        let before = made_up(0, begin);
        let leaves: Vec<Hash> = (begin..begin + len).map(|n| leaf_hash_stored(&leaf_bytes(n))).collect();
        let mut whole = before.clone();
        leaves.iter().for_each(|leaf| whole.append(*leaf));
        let mut later = Vec::new();
        for (high, by) in gaps {
            let end = whole.end().saturating_add(high >> by);
            let range = made_up(whole.end(), end);
            whole.extend(&range);
            later.push(range);
        }
        let (size, seq) = (whole.end(), begin + at % len);
        let feed = |mut gather: Gather| {
            gather.range(&before).expect("the header's range");
            gather.leaves(&leaves, &mut Scratch::default(), &mut OneByOne);
            for range in &later {
                gather.range(range).expect("a trailer's range");
            }
            gather.finish().expect("all leaves were given")
        };
        let Gathered::Inclusion { proof, leaf, root } = feed(Gather::inclusion(seq, size).expect("in the tree")) else {
            panic!("another proof was asked for")
        };
        prop_assert_eq!(Some(root), whole.root());
        prop_assert_eq!(leaf, leaves[(seq - begin) as usize]);
        prop_assert_eq!(agree_inclusion(&proof, &leaf), Some(root));
        prop_assert!(proof.path.len() <= PATH_HASHES_MAX);

        let Gathered::Consistency { proof, from_root, root } = feed(Gather::consistency(seq + 1, size).expect("an earlier tree")) else {
            panic!("another proof was asked for")
        };
        let mut earlier = before.clone();
        leaves[..=(seq - begin) as usize].iter().for_each(|leaf| earlier.append(*leaf));
        prop_assert_eq!((Some(from_root), Some(root)), (earlier.root(), whole.root()));
        prop_assert_eq!(agree_consistency(&proof, &from_root), Some(root));
        prop_assert!(proof.path.len() <= PATH_HASHES_MAX);
    }

    #[test]
    fn made_up_proofs_are_judged_as_the_rfc_does(
        seq in any::<u64>(), size in any::<u64>(), by in 0u32..64, hashes in 0usize..80,
    ) {
        let path = vec![[3; 32]; hashes];
        let (seq, size) = (seq >> by, size >> by);
        agree_inclusion(&Inclusion { seq, size, path: path.clone() }, &[4; 32]);
        agree_consistency(&Consistency { from: seq, size, path }, &[3; 32]);
    }

    #[test]
    fn no_text_makes_the_reader_panic(
        text in proptest::collection::vec(any::<u8>(), 0..300), which in 0usize..2, at in any::<usize>(),
    ) {
        prop_assert!(Document::parse(&text).is_err());
        let mut whole = documents()[which].to_string().into_bytes();
        let at = at % whole.len();
        whole.splice(at..(at + text.len() / 2).min(whole.len()), text);
        if let Ok(read) = Document::parse(&whole) {
            let _ = read.holds();
        }
    }
}
