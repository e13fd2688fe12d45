//! Checkpoints as the reader sees them: each covers what stands before it, or is found.

use crate::common::{Rec, Scanned, Segment, checkpoint, recs, scan, three_frames};
use graven_format::consts::BLOCK_LEVEL;
use graven_format::finding::CheckpointError;
use graven_format::lines::{Head, origin};
use graven_format::merkle::{
    CompactRange, Hash, OneByOne, Scratch, SegmentTree, block_level, leaf_hash, node_hash,
    whole_blocks,
};
use graven_format::note::{Checkpoint, SecretKey};
use graven_format::trailer::SealReason;
use graven_format::{Class, FindingKind, Source, TrailId};

fn key(segment: &Segment, seed: u8) -> SecretKey {
    SecretKey::from_seed(&origin(segment.header.trail_id), &[seed; 32]).expect("a key")
}

/// Three frames and a fourth with a record, `last`, and another record.
fn with_last(last: impl FnOnce(&Segment) -> Rec) -> (Segment, Scanned) {
    let mut segment = three_frames();
    segment.frame(&recs(10, 1, 20), 10);
    let last = last(&segment);
    segment.frame(&[&[last][..], &recs(12, 1, 20)].concat(), 10);
    let scanned = scan(&segment.trimmed(), segment.expect());
    (segment, scanned)
}

/// Why the only finding of the scan is wrong.
fn why(scanned: Scanned) -> CheckpointError {
    let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
    assert_eq!((finding.seq, finding.class(0, true)), (11, Class::Damage));
    assert_eq!(scanned.records.len(), 13, "its records are read all the same");
    match finding.kind.clone() {
        FindingKind::Checkpoint(why) => why,
        other => panic!("{other:?}"),
    }
}

/// The checkpoint that belongs there, its head changed and signed again.
fn forged(segment: &Segment, change: impl FnOnce(&mut Head)) -> Rec {
    let right = checkpoint(segment, &key(segment, 1), None);
    let mut head = Head {
        origin: origin(segment.header.trail_id),
        size: segment.next_seq(),
        root: segment.trailer(SealReason::Stop).root,
    };
    change(&mut head);
    let note = key(segment, 1).sign(&Checkpoint { head, successor: None, sealed: None });
    Rec { bytes: note.into_bytes(), ..right }
}

#[test]
fn a_checkpoint_covers_the_records_before_it_wherever_it_stands_in_its_frame() {
    for place in 0..4 {
        let mut segment = three_frames();
        let mut before = segment.clone();
        before.frame(&recs(10, 4, 30)[..place.max(1)], 10);
        let whole = if place == 0 { &segment } else { &before };
        let last = checkpoint(whole, &key(whole, 1), Some(&key(whole, 2)));
        let records = recs(10, 4, 30);
        segment.frame(&[&records[..place], &[last], &records[place..]].concat(), 10);
        segment.key = Some(key(&segment, 2));
        let scanned = scan(&segment.trimmed(), segment.expect());
        assert_eq!(scanned.findings, [], "behind {place} records");
        assert_eq!(scanned.outcome.prefix.tree, Some(segment.tree.clone()));
    }
}

#[test]
fn a_checkpoint_that_does_not_belong_is_found_where_it_stands() {
    let (_, scanned) = with_last(|segment| forged(segment, |_| ()));
    assert_eq!(scanned.findings, [], "unchanged it belongs");
    let (_, scanned) = with_last(|segment| forged(segment, |head| head.size -= 1));
    assert_eq!(why(scanned), CheckpointError::Size { stated: 10, before: 11 });
    let (_, scanned) = with_last(|segment| forged(segment, |head| head.root[0] ^= 1));
    assert_eq!(why(scanned), CheckpointError::Root);
    let other = origin(TrailId([9; 16]));
    let (_, scanned) = with_last(|segment| forged(segment, |head| head.origin = other));
    assert_eq!(why(scanned), CheckpointError::Origin);
    let (_, scanned) = with_last(|segment| {
        let right = checkpoint(segment, &key(segment, 1), None);
        Rec { source: Source::Stdin, ..right }
    });
    assert_eq!(why(scanned), CheckpointError::Source(Source::Stdin));
    let (_, scanned) = with_last(|segment| {
        let right = checkpoint(segment, &key(segment, 1), None);
        Rec { bytes: b"no note".to_vec(), ..right }
    });
    assert!(matches!(why(scanned), CheckpointError::Text(_)));
}

#[test]
fn a_trailer_with_the_note_of_another_end_is_found() {
    let mut segment = three_frames();
    segment.key = Some(key(&segment, 1));
    let note = segment.trailer(SealReason::Stop).note;
    segment.frame(&recs(10, 1, 20), 10);
    let mut trailer = segment.trailer(SealReason::Stop);
    assert_ne!(trailer.note, note);
    trailer.note = note;
    let mut bytes = segment.bytes.clone();
    bytes.extend(trailer.encode(512).0);
    let scanned = scan(&bytes, segment.expect());
    let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
    let size = CheckpointError::Size { stated: 10, before: 11 };
    assert_eq!(finding.kind, FindingKind::Checkpoint(size));
}

/// The root of the perfect tree over these leaves.
fn perfect(leaves: &[Hash]) -> Hash {
    if let [leaf] = leaves {
        return *leaf;
    }
    let (left, right) = leaves.split_at(leaves.len() / 2);
    node_hash(&perfect(left), &perfect(right))
}

#[test]
fn blocks_are_the_roots_of_their_leaves_whatever_the_frames() {
    let mut first = Segment::first(512);
    first.frame(&recs(0, 700, 0), 0);
    let mut segment = first.successor(&first.trailer(SealReason::Full));
    let mut from = 700;
    for count in [1, 322, 2, 1024, 2000, 5] {
        segment.frame(&recs(from, count, 0), from);
        from += count;
    }
    let leaves: Vec<Hash> = segment.records.iter().map(|rec| leaf_hash(&rec.record())).collect();
    let level = BLOCK_LEVEL;
    assert_eq!(block_level(700, from), level);
    let numbers = whole_blocks(700, from, level);
    assert_eq!(numbers, 1..3);
    let expected: Vec<Hash> = numbers
        .map(|block| perfect(&leaves[((block << level) - 700) as usize..][..1 << level]))
        .collect();
    assert_eq!(segment.trailer(SealReason::Full).blocks, expected);
    let mut bytes = segment.full();
    assert_eq!(scan(&bytes, segment.expect()).findings, []);
    // A block hash that is not that of its records.
    let mut trailer = segment.trailer(SealReason::Full);
    trailer.blocks[1][31] ^= 1;
    let (wrong, _) = trailer.encode(512);
    let start = bytes.len() - wrong.len();
    bytes[start..].copy_from_slice(&wrong);
    let findings = scan(&bytes, segment.expect()).findings;
    assert_eq!(findings.iter().map(|it| it.kind.clone()).collect::<Vec<_>>(), [FindingKind::Root]);
}

#[test]
fn blocks_of_a_long_segment_are_of_twice_as_many_records() {
    // The first whole block of 1024 has an odd number, so its sibling is not whole.
    let (begin, count) = ((4 << BLOCK_LEVEL) + 5, 2060 << BLOCK_LEVEL);
    let leaf = |seq: u64| {
        let mut hash = [0x5A; 32];
        hash[..8].copy_from_slice(&seq.to_le_bytes());
        hash
    };
    let leaves: Vec<Hash> = (begin..begin + count).map(leaf).collect();
    let mut tree = SegmentTree::new(begin);
    for leaves in leaves.chunks(1999) {
        tree.append_all(leaves, &mut Scratch::default(), &mut OneByOne);
    }
    let (level, blocks) = tree.blocks();
    assert_eq!((level, block_level(begin, begin + count)), (11, 11));
    let numbers = whole_blocks(begin, begin + count, level);
    assert_eq!(blocks.len() as u64, numbers.end - numbers.start);
    for (number, block) in numbers.zip(&blocks).step_by(97) {
        let leaves: Vec<Hash> = (number << level..(number + 1) << level).map(leaf).collect();
        assert_eq!(*block, perfect(&leaves), "block {number}");
    }
    let mut range = CompactRange::new(begin);
    leaves.iter().for_each(|leaf| range.append(*leaf));
    assert_eq!(tree.range(), range);
}

#[test]
fn there_are_never_more_blocks_than_a_trailer_takes() {
    for (begin, end, level) in [
        (0, 2048 << 10, 10),
        (0, 2049 << 10, 11),
        (1, 2049 << 10, 10),
        (5, (4097 << 11) + 3, 12),
        (0, u64::MAX, 53),
        (7, 7, 10),
        (1023, 1025, 10),
    ] {
        assert_eq!(block_level(begin, end), level, "{begin}..{end}");
    }
    assert_eq!(whole_blocks(1023, 1025, 10), 1..1);
}
