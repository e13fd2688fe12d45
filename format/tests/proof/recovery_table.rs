//! Recovery's decision table, row by row: each physical event built from bytes, and each state
//! that contradicts what had been announced, which recovery must leave as it is.

use crate::common::{Segment, fix_header_crc, recs, scan, three_frames};
use graven_format::consts::SEGMENT_BYTES_MIN;
use graven_format::recovery::{Action, Decision, Found, Label, Refusal, decide};
use graven_format::trailer::SealReason;
use graven_format::{FindingKind, FormatError};

fn found(segment: &Segment, bytes: &[u8]) -> Found {
    scan(bytes, segment.expect()).found(&segment.expect())
}

/// The decision for a trail of one segment.
fn alone(segment: &Segment, bytes: &[u8]) -> Result<Decision, Refusal> {
    decide(None, Some(&found(segment, bytes)))
}

/// The decision for two segments.
fn pair(a: (&Segment, &[u8]), b: (&Segment, &[u8])) -> Result<Decision, Refusal> {
    decide(Some(&found(a.0, a.1)), Some(&found(b.0, b.1)))
}

/// Asserts label and seal, and returns where the trailer goes and which seq follows.
#[track_caller]
fn sealed_at(decision: &Decision, label: Label) -> (usize, u64) {
    assert_eq!(decision.label, label);
    let Action::Seal(prefix) = &decision.action else { panic!("{decision:?}") };
    assert!(prefix.tree.is_some(), "read with hashes, so the trailer can be written");
    (prefix.tally.frames_end as usize, prefix.next_seq)
}

fn successor_of(segment: &Segment) -> Segment {
    segment.successor(&segment.trailer(SealReason::Full))
}

#[test]
fn fresh_when_there_is_no_segment() {
    let decision = decide(None, None).expect("in the table");
    assert_eq!(decision.label, Label::Fresh);
    assert!(matches!(decision.action, Action::None) && !decision.remove_orphan);
}

#[test]
fn sealed_after_a_clean_stop_and_after_a_full_segment() {
    let segment = three_frames();
    for bytes in [segment.trimmed(), segment.full()] {
        let decision = alone(&segment, &bytes).expect("in the table");
        assert_eq!(decision.label, Label::Sealed);
        assert!(matches!(decision.action, Action::None) && !decision.remove_orphan);
    }
}

#[test]
fn untrimmed_when_the_file_was_not_cut_after_an_early_trailer() {
    let segment = three_frames();
    let sealed = segment.trimmed();
    let mut zeros = sealed.clone();
    zeros.resize(SEGMENT_BYTES_MIN as usize, 0);
    // What a torn write left behind the trailer that recovery put over its start.
    let mut stale = zeros.clone();
    stale[sealed.len() + 512..][..700].fill(0x5A);
    for bytes in [zeros, stale] {
        let decision = alone(&segment, &bytes).expect("in the table");
        assert_eq!(decision.label, Label::Untrimmed);
        assert!(matches!(decision.action, Action::Trim(len) if len as usize == sealed.len()));
    }
}

#[test]
fn unused_when_no_frame_was_committed() {
    let before = three_frames();
    let mut segment = successor_of(&before);
    let empty = segment.unsealed();
    segment.frame(&recs(10, 4, 300), 10);
    let frame = segment.frames[0];
    // The first write of the segment was cut off: nothing of it was announced.
    let mut torn = segment.unsealed();
    torn[frame.offset + 512..frame.end()].fill(0);
    for bytes in [empty, torn] {
        for before_bytes in [before.trimmed(), before.full()] {
            let decision = pair((&before, &before_bytes), (&segment, &bytes)).expect("in table");
            assert_eq!(decision.label, Label::Unused);
            assert!(matches!(decision.action, Action::Remove) && !decision.remove_orphan);
        }
    }
}

#[test]
fn open_when_no_write_was_in_flight() {
    let segment = three_frames();
    let decision = alone(&segment, &segment.unsealed()).expect("in the table");
    assert_eq!(sealed_at(&decision, Label::Open), (segment.bytes.len(), 10));
}

#[test]
fn torn_when_the_last_write_was_cut_off_at_any_sector() {
    let segment = three_frames();
    let good = segment.unsealed();
    let last = segment.frames[1];
    let end = segment.frames[2].offset;
    let sectors = last.len / 512;
    assert!(sectors > 1);
    for kept in 0..(1u32 << sectors) - 1 {
        let mut bytes = good.clone();
        bytes[end..].fill(0);
        for sector in (0..sectors).filter(|sector| kept >> sector & 1 == 0) {
            bytes[last.offset + sector * 512..][..512].fill(0);
        }
        let decision = alone(&segment, &bytes).expect("in the table");
        let label = if kept == 0 { Label::Open } else { Label::Torn };
        assert_eq!(sealed_at(&decision, label), (last.offset, 3));
    }
}

#[test]
fn lost_write_when_a_later_one_reached_the_disk_first() {
    let mut segment = Segment::first(512);
    segment.frame(&recs(0, 3, 100), 0);
    for first_seq in [3, 6, 9] {
        // All three were formed while only the first frame was durable.
        segment.frame(&recs(first_seq, 3, 300), 3);
    }
    let [_, lost, _, also_lost] = segment.frames[..] else { panic!() };
    let mut bytes = segment.unsealed();
    bytes[lost.offset..lost.end()].fill(0);
    let decision = alone(&segment, &bytes).expect("in the table");
    assert_eq!(sealed_at(&decision, Label::LostWrite), (lost.offset, 3));
    bytes[also_lost.offset..][..512].fill(0);
    let decision = alone(&segment, &bytes).expect("in the table");
    assert_eq!(sealed_at(&decision, Label::LostWrite), (lost.offset, 3));
}

#[test]
fn orphan_when_the_trailer_or_a_write_before_it_was_in_flight() {
    let before = three_frames();
    let mut orphan = successor_of(&before);
    let header_only = orphan.unsealed();
    orphan.frame(&recs(10, 3, 300), 8).frame(&recs(13, 3, 300), 10);
    let in_use = orphan.unsealed();
    // The trailer never arrived, or arrived in part.
    let lost = before.unsealed();
    let mut torn = before.full();
    let end = torn.len();
    torn[end - 20..].fill(0);
    for (before_bytes, label) in [(&lost, Label::Open), (&torn, Label::Torn)] {
        for orphan_bytes in [&header_only, &in_use] {
            let decision = pair((&before, before_bytes), (&orphan, orphan_bytes)).expect("in it");
            assert!(decision.remove_orphan);
            assert_eq!(sealed_at(&decision, label), (before.bytes.len(), 10));
        }
    }
    // A frame before it never arrived: then nothing after record 8 was announced.
    let frame = before.frames[2];
    let mut hole = before.unsealed();
    hole[frame.offset..frame.end()].fill(0);
    let decision = pair((&before, &hole), (&orphan, &header_only)).expect("in the table");
    assert!(decision.remove_orphan);
    assert_eq!(sealed_at(&decision, Label::Open), (frame.offset, 8));
}

#[test]
fn every_label_has_a_row_and_a_name_of_its_own() {
    let table = include_str!("../../src/recovery.rs");
    let labels = [
        Label::Fresh,
        Label::Sealed,
        Label::Untrimmed,
        Label::Unused,
        Label::Open,
        Label::Torn,
        Label::LostWrite,
    ];
    for label in labels {
        assert!(table.contains(&format!("//! | `{}` |", label.name())), "{label:?}");
    }
}

#[track_caller]
fn refused(decision: Result<Decision, Refusal>) -> Refusal {
    match decision {
        Err(refusal) => refusal,
        Ok(decision) => panic!("not refused: {:?}", decision.label),
    }
}

#[test]
fn refused_when_an_announced_frame_is_gone_or_changed() {
    let segment = three_frames();
    let [first, second, _] = segment.frames[..] else { panic!() };
    for frame in [first, second] {
        for fill in [0x00, 0xA5] {
            let mut bytes = segment.unsealed();
            bytes[frame.offset..frame.end()].fill(fill);
            let refusal = refused(alone(&segment, &bytes));
            assert_eq!(refusal.finding.offset as usize, frame.offset);
            assert_eq!(refusal.finding.seq, frame.first_seq);
        }
    }
}

#[test]
fn refused_when_the_successor_says_that_more_was_announced() {
    let before = three_frames();
    let mut last = successor_of(&before);
    // The writer formed this frame when all ten records and its trailer were durable.
    last.frame(&recs(10, 3, 300), 10);
    let frame = before.frames[2];
    let mut hole = before.unsealed();
    hole[frame.offset..frame.end()].fill(0);
    let refusal = refused(pair((&before, &hole), (&last, &last.unsealed())));
    assert_eq!((refusal.segment, refusal.finding.missing), (0, 2));
    assert_eq!(refusal.finding.offset as usize, frame.offset);
    // Two frames later three records of the last segment were announced, which the writer does
    // only when the segment before it is sealed.
    last.frame(&recs(13, 3, 300), 13);
    let refusal = refused(pair((&before, &before.unsealed()), (&last, &last.unsealed())));
    assert_eq!((refusal.segment, refusal.finding.missing), (0, 3));
    // And so does a trailer.
    refused(pair((&before, &before.unsealed()), (&last, &last.trimmed())));
}

#[test]
fn refused_when_header_size_gap_or_tree_are_not_as_written() {
    let segment = three_frames();
    let mut header = segment.unsealed();
    header[100] ^= 1;
    let mut short = segment.unsealed();
    short.truncate(segment.bytes.len());
    let mut longer = segment.unsealed();
    longer.resize(longer.len() + 4096, 0);
    let mut cut_seal = segment.trimmed();
    cut_seal.truncate(segment.bytes.len() + 100);
    let mut gap = segment.full();
    gap[segment.bytes.len() + 600] = 1;
    let cases: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("header", header),
        ("short", short),
        ("longer", longer),
        ("cut seal", cut_seal),
        ("gap", gap),
    ];
    for (what, bytes) in cases {
        let refusal = refused(alone(&segment, &bytes));
        assert_ne!(refusal.finding.class(0, true), graven_format::Class::Tail, "{what}");
    }
}

#[test]
fn refused_when_it_was_written_by_a_later_version() {
    let segment = three_frames();
    let mut bytes = segment.unsealed();
    bytes[12] = 2;
    fix_header_crc(&mut bytes[..512]);
    let refusal = refused(alone(&segment, &bytes));
    assert_eq!(refusal.finding.kind, FindingKind::Header(FormatError::UnknownVersion(2)));
}

#[test]
fn refused_when_the_file_is_not_the_one_that_its_name_says() {
    let segment = three_frames();
    let mut expect = segment.expect();
    expect.segment = 3;
    let found = scan(&segment.unsealed(), expect).found(&expect);
    let refusal = refused(decide(None, Some(&found)));
    assert!(matches!(refusal.finding.kind, FindingKind::Misplaced { field: "segment", .. }));
}
