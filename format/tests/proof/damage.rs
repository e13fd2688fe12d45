//! Every flipped bit, every cut, everything removed, put in or put elsewhere is found, and found
//! where it is.

use crate::common::{Scanned, Segment, recs, scan, three_frames};
use graven_format::consts::SEGMENT_BYTES_MIN;
use graven_format::trailer::SealReason;
use graven_format::{Class, FindingKind, TrailId};

/// The start of what byte `at` belongs to, and how far a finding may be from the byte.
fn block_of(segment: &Segment, at: usize, file_len: usize) -> std::ops::Range<usize> {
    let header_len = segment.header.stored_len();
    if at < header_len {
        return 0..header_len;
    }
    match segment.frames.iter().find(|frame| (frame.offset..frame.end()).contains(&at)) {
        Some(frame) => frame.offset..frame.end(),
        None => segment.bytes.len()..file_len,
    }
}

/// Asserts that something is reported that touches the structure to which byte `at` belongs.
fn assert_located(segment: &Segment, scanned: &Scanned, at: usize, file_len: usize, what: &str) {
    let block = block_of(segment, at, file_len);
    let near = scanned.findings.iter().any(|finding| {
        let start = finding.offset as usize;
        start <= block.end && start + finding.len as usize >= block.start
    });
    assert!(near, "{what} at {at} in {block:?}: {:?}", scanned.findings);
}

#[test]
fn every_flipped_bit_of_a_trimmed_segment_is_damage() {
    for segment in [three_frames(), wide()] {
        let good = segment.trimmed();
        let step = if segment.header.align_bytes == 512 { 1 } else { 5 };
        for bit in (0..good.len() * 8).step_by(step) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let scanned = scan(&bytes, segment.expect());
            assert_located(&segment, &scanned, bit / 8, good.len(), "flip");
            assert_eq!(scanned.worst(), Some(Class::Damage), "bit {bit}: {:?}", scanned.findings);
        }
    }
}

/// Frames and header at the largest alignment.
fn wide() -> Segment {
    let mut segment = Segment::first(4096);
    segment.frame(&recs(0, 3, 100), 0).frame(&recs(3, 30, 300), 3);
    segment
}

#[test]
fn one_flipped_bit_costs_one_frame_and_no_other() {
    for segment in [three_frames(), wide()] {
        let good = segment.trimmed();
        for frame in &segment.frames {
            let mut bytes = good.clone();
            bytes[frame.offset + 33] ^= 4;
            let scanned = scan(&bytes, segment.expect());
            let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
            assert!(matches!(finding.kind, FindingKind::Unreadable(_)), "{finding:?}");
            assert_eq!((finding.offset, finding.len), (frame.offset as u64, frame.len as u64));
            assert_eq!(finding.seq, frame.first_seq);
            assert_eq!(
                finding.missing as usize + scanned.records.len(),
                segment.records.len(),
                "all other records are read"
            );
        }
        // A header that is not readable costs no record at all.
        let mut bytes = good;
        bytes[90] ^= 1;
        let scanned = scan(&bytes, segment.expect());
        assert_eq!(scanned.findings.len(), 1, "{:?}", scanned.findings);
        assert!(matches!(scanned.findings[0].kind, FindingKind::Header(_)));
        assert_eq!(scanned.records.len(), segment.records.len());
    }
}

#[test]
fn flipped_bits_of_a_full_segment_are_damage_but_in_the_trailer() {
    let segment = three_frames();
    let good = segment.full();
    let trailer = segment.trailer(SealReason::Full).encode(512).0.len();
    let trailer_start = good.len() - trailer;
    let body = 0..segment.bytes.len();
    let gap = (body.end..trailer_start).step_by(9973);
    for at in body.step_by(37).chain(gap).chain((trailer_start..good.len()).step_by(7)) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let scanned = scan(&bytes, segment.expect());
        assert_located(&segment, &scanned, at, good.len(), "flip");
        if at < trailer_start {
            assert_eq!(scanned.worst(), Some(Class::Damage), "{at}: {:?}", scanned.findings);
        } else {
            // Such a trailer looks as if it had been cut off while it was written. No record is
            // missing, and where the segment has a successor it is damage.
            assert_eq!(scanned.worst(), Some(Class::Tail), "{at}: {:?}", scanned.findings);
            assert_eq!(scanned.findings[0].offset as usize, at / 512 * 512 / trailer * trailer);
            assert_eq!(scanned.findings[0].class(0, false), Class::Damage);
            assert_eq!(scanned.records.len(), segment.records.len());
        }
    }
}

#[test]
fn every_truncation_is_damage() {
    let segment = three_frames();
    for (good, step) in [(segment.trimmed(), 1), (segment.full(), 4093), (segment.unsealed(), 4099)]
    {
        for len in (0..good.len()).step_by(step).chain([good.len() - 1]) {
            let scanned = scan(&good[..len], segment.expect());
            assert_located(&segment, &scanned, len, good.len(), "cut");
            assert_eq!(scanned.worst(), Some(Class::Damage), "{len}: {:?}", scanned.findings);
        }
    }
}

#[test]
fn an_unsealed_segment_tells_damage_from_a_torn_tail() {
    let mut segment = three_frames();
    segment.frame(&recs(10, 3, 90), 8);
    let good = segment.unsealed();
    assert_eq!(scan(&good, segment.expect()).worst(), None);
    // Ten records were durable, eight of them announced, when the last two frames were formed.
    let expected = [Class::Damage, Class::Damage, Class::Tail, Class::Tail];
    for (frame, class) in segment.frames.iter().zip(expected) {
        for bit in frame.offset * 8..frame.end() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let scanned = scan(&bytes, segment.expect());
            assert_located(&segment, &scanned, bit / 8, good.len(), "flip");
            assert_eq!(scanned.worst(), Some(class), "bit {bit}: {:?}", scanned.findings);
        }
    }
}

/// The file when the pieces of `good` at `parts` stand one after the other.
fn rearranged(good: &[u8], parts: &[std::ops::Range<usize>]) -> Vec<u8> {
    parts.iter().flat_map(|part| good[part.clone()].iter().copied()).collect()
}

#[test]
fn frames_removed_repeated_and_swapped_are_found() {
    let segment = three_frames();
    let good = segment.trimmed();
    let [a, b, c] = segment.frames[..] else { panic!() };
    let rest = c.end()..good.len();
    let [fa, fb, fc] = [a, b, c].map(|frame| frame.offset..frame.end());
    let head = 0..a.offset;
    type Parts = Vec<std::ops::Range<usize>>;
    let cases: [(&str, Parts, usize); 8] = [
        ("first removed", vec![head.clone(), fb.clone(), fc.clone(), rest.clone()], a.offset),
        ("middle removed", vec![head.clone(), fa.clone(), fc.clone(), rest.clone()], b.offset),
        ("last removed", vec![head.clone(), fa.clone(), fb.clone(), rest.clone()], c.offset),
        ("all removed", vec![head.clone(), rest.clone()], a.offset),
        (
            "repeated",
            vec![head.clone(), fa.clone(), fa.clone(), fb.clone(), fc.clone(), rest.clone()],
            a.end(),
        ),
        (
            "repeated at the end",
            vec![head.clone(), fa.clone(), fb.clone(), fc.clone(), fc.clone(), rest.clone()],
            c.end(),
        ),
        ("swapped", vec![head.clone(), fb.clone(), fa.clone(), fc.clone(), rest.clone()], a.offset),
        ("swapped at the end", vec![head, fa, fc, fb, rest], b.offset),
    ];
    for (what, parts, at) in cases {
        let scanned = scan(&rearranged(&good, &parts), segment.expect());
        assert_eq!(scanned.worst(), Some(Class::Damage), "{what}");
        assert_eq!(scanned.findings[0].offset as usize, at, "{what}: {:?}", scanned.findings);
        let missing: u64 = scanned.findings.iter().map(|finding| finding.missing).sum();
        let removed = what.contains("removed");
        assert_eq!(
            missing as usize + scanned.records.len() == segment.records.len(),
            removed,
            "{what}: what is not read is counted as missing"
        );
    }
}

#[test]
fn a_second_loss_is_told_apart_from_the_first() {
    // The first frame is damaged and the last one taken out cleanly, trailer moved up.
    let segment = three_frames();
    let good = segment.trimmed();
    let [a, _, c] = segment.frames[..] else { panic!() };
    let mut bytes = rearranged(&good, &[0..c.offset, c.end()..good.len()]);
    bytes[a.offset + 100] ^= 1;
    let scanned = scan(&bytes, segment.expect());
    let missing: Vec<u64> = scanned.findings.iter().map(|finding| finding.missing).collect();
    assert_eq!(missing, [3, 2], "{:?}", scanned.findings);
}

#[test]
fn frames_of_another_trail_or_segment_are_not_taken_for_ours() {
    let segment = three_frames();
    let good = segment.trimmed();
    let mut other_trail = Segment::with(graven_format::segment::SegmentHeader {
        trail_id: TrailId([9; 16]),
        ..segment.header.clone()
    });
    other_trail.frame(&recs(0, 3, 100), 0).frame(&recs(3, 5, 200), 3);
    let mut other_segment = segment.successor(&segment.trailer(SealReason::Full));
    other_segment.frame(&recs(3, 5, 200), 8);
    for (foreign, frame) in
        [(&other_trail, other_trail.frames[1]), (&other_segment, other_segment.frames[0])]
    {
        let b = segment.frames[1];
        let spliced = &foreign.bytes[frame.offset..frame.end()];
        let inserted = [&good[..b.offset], spliced, &good[b.offset..]].concat();
        let replaced = [&good[..b.offset], spliced, &good[b.end()..]].concat();
        for (bytes, missing) in [(inserted, 0), (replaced, 5)] {
            let scanned = scan(&bytes, segment.expect());
            assert_eq!(scanned.worst(), Some(Class::Damage));
            let finding = &scanned.findings[0];
            assert_eq!((finding.offset as usize, finding.missing), (b.offset, missing));
            assert_eq!(scanned.records.len(), segment.records.len() - missing as usize);
        }
    }
}

#[test]
fn what_follows_the_trailer_and_what_fills_the_gap_is_found() {
    let segment = three_frames();
    let sealed = segment.trimmed();
    let stale = &segment.bytes[segment.frames[2].offset..segment.frames[2].end()];
    let scanned = scan(&[&sealed[..], stale].concat(), segment.expect());
    assert_eq!(scanned.findings[0].kind, FindingKind::Added);
    assert_eq!(scanned.findings[0].class(0, true), Class::Damage);
    let mut uncut = [&sealed[..], stale].concat();
    uncut.resize(SEGMENT_BYTES_MIN as usize, 0);
    let scanned = scan(&uncut, segment.expect());
    let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
    assert_eq!(finding.kind, FindingKind::AfterTrailer);
    assert_eq!(
        (finding.offset as usize, finding.len as usize),
        (sealed.len(), uncut.len() - sealed.len())
    );
    assert_eq!(scanned.records.len(), segment.records.len(), "they are not read");
    assert_eq!((finding.class(0, true), finding.class(0, false)), (Class::Tail, Class::Damage));

    let mut full = segment.full();
    let at = segment.bytes.len() + 70_000;
    full[at] = 1;
    let scanned = scan(&full, segment.expect());
    let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
    assert_eq!((&finding.kind, finding.offset as usize), (&FindingKind::Gap, at / 512 * 512));
    assert_eq!(finding.class(0, true), Class::Damage);
}

#[test]
fn a_file_under_another_name_is_misplaced_and_still_read() {
    let segment = three_frames();
    let bytes = segment.trimmed();
    for (field, change) in [("segment", 0), ("first_seq", 1), ("trail_id", 2)] {
        let mut expect = segment.expect();
        match change {
            0 => expect.segment += 1,
            1 => expect.first_seq += 1,
            _ => expect.trail_id = Some(TrailId([1; 16])),
        }
        let scanned = scan(&bytes, expect);
        let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
        assert!(
            matches!(finding.kind, FindingKind::Misplaced { field: found, .. } if found == field)
        );
        assert_eq!(finding.class(0, true), Class::Damage);
        assert_eq!(scanned.records.len(), segment.records.len());
    }
}
