//! Bytes that someone made up: the reader neither panics nor runs without end, holds bounded
//! memory, and names what it does not know.

use crate::common::{
    Scanned, Segment, fix_frame_crc, fix_header_crc, fix_trailer_crc, recs, scan, scan_in,
    three_frames,
};
use graven_format::consts::{FRAME_BYTES_MAX, SEGMENT_BYTES_MIN};
use graven_format::recovery::decide;
use graven_format::scan::Expect;
use graven_format::trailer::SealReason;
use graven_format::{Class, FindingKind, FormatError};
use proptest::collection::vec;
use proptest::prelude::*;

const ANY: Expect = Expect { segment: 0, first_seq: 0, trail_id: None, merkle: true };

/// What holds for every file whatever is in it.
fn assert_sane(bytes: &[u8], expect: Expect, chunk: usize) -> Scanned {
    let scanned = scan_in(bytes, expect, &[chunk]);
    assert!(scanned.buffer_bytes <= 2 * (chunk + FRAME_BYTES_MAX), "{}", scanned.buffer_bytes);
    for finding in &scanned.findings {
        let end = finding.offset.checked_add(finding.len).expect("no overflow");
        assert!(end <= bytes.len() as u64, "{finding:?}");
        assert!(!finding.to_string().is_empty());
    }
    if scanned.outcome.trailer.is_none() && scanned.outcome.header.is_none() {
        assert!(!scanned.findings.is_empty(), "a file without header is never in order");
    }
    // Whatever it is, a decision is made of it or refused.
    let found = scan(bytes, expect).found(&expect);
    let _ = decide(None, Some(&found));
    let _ = decide(Some(&found), Some(&found));
    scanned
}

/// A change of a file.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    /// Copies so many bytes from the first offset to the second.
    Copy(usize, usize, usize),
    Zero(usize, usize),
    Cut(usize),
    /// Sets a 32-bit field and makes the frame's CRC right again.
    Field(usize, usize, u32),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0usize..1 << 20;
    prop_oneof![
        4 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at.clone(), at.clone(), 0usize..4096).prop_map(|(f, t, n)| Change::Copy(f, t, n)),
        1 => (at.clone(), 0usize..4096).prop_map(|(at, len)| Change::Zero(at, len)),
        1 => at.prop_map(Change::Cut),
        4 => (0usize..3, 2usize..18, prop_oneof![any::<u32>(), 0u32..64, Just(u32::MAX)])
            .prop_map(|(frame, field, value)| Change::Field(frame, field * 4, value)),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>, segment: &Segment) {
    let len = bytes.len();
    match *change {
        _ if len == 0 => {}
        Change::Set(at, byte) => bytes[at % len] = byte,
        Change::Copy(from, to, count) => {
            let (from, to) = (from % len, to % len);
            let count = count.min(len - from).min(len - to);
            bytes.copy_within(from..from + count, to);
        }
        Change::Zero(at, count) => {
            let at = at % len;
            let end = (at + count).min(len);
            bytes[at..end].fill(0);
        }
        Change::Cut(at) => bytes.truncate(at % len),
        Change::Field(frame, field, value) => {
            let frame = &segment.frames[frame % segment.frames.len()];
            if let Some(bytes) = bytes.get_mut(frame.offset..frame.end()) {
                bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
                fix_frame_crc(bytes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_are_read_to_their_end(
        bytes in vec(any::<u8>(), 0..5000),
        chunk in 1usize..5000,
        magic in 0usize..4,
    ) {
        let mut bytes = bytes;
        let start: &[u8] = [&b""[..], b"GRAVENSG", b"GRVF", b"GRAVENTR"][magic];
        if bytes.len() >= start.len() {
            bytes[..start.len()].copy_from_slice(start);
        }
        assert_sane(&bytes, ANY, chunk);
    }

    #[test]
    fn changed_segments_are_read_to_their_end(
        changes in vec(change(), 1..6),
        sealed in any::<bool>(),
        known in any::<bool>(),
        chunk in 1usize..9000,
    ) {
        let segment = three_frames();
        let good = if sealed { segment.trimmed() } else { segment.unsealed()[..16384].to_vec() };
        let mut bytes = good.clone();
        for change in &changes {
            apply(change, &mut bytes, &segment);
        }
        let expect = if known { segment.expect() } else { ANY };
        let scanned = assert_sane(&bytes, expect, chunk);
        if sealed && bytes != good {
            prop_assert!(!scanned.findings.is_empty());
        }
    }
}

/// A segment whose first frame had `change` made to it, its CRC made right.
fn with_frame(change: impl FnOnce(&mut [u8])) -> (Segment, Scanned) {
    let segment = three_frames();
    let mut bytes = segment.trimmed();
    let frame = segment.frames[0];
    change(&mut bytes[frame.offset..frame.end()]);
    fix_frame_crc(&mut bytes[frame.offset..frame.end()]);
    let scanned = assert_sane(&bytes, segment.expect(), 4096);
    (segment, scanned)
}

#[test]
fn an_unknown_codec_is_named_and_its_records_are_counted() {
    let (segment, scanned) = with_frame(|frame| frame[24] = 7);
    let finding = &scanned.findings[0];
    assert_eq!(finding.kind, FindingKind::Unreadable(FormatError::UnknownCodec(7)));
    assert_eq!((finding.missing, finding.class(u64::MAX, true)), (3, Class::Unsupported));
    assert_eq!(finding.kind_text(), "codec 7 is not known to this program");
    assert_eq!(scanned.records.len(), segment.records.len() - 3, "the other frames are read");
}

/// The part of a finding's text after its last colon: what the format error says.
trait KindText {
    fn kind_text(&self) -> String;
}

impl KindText for graven_format::Finding {
    fn kind_text(&self) -> String {
        let text = self.to_string();
        text.rsplit(": ").next().unwrap_or(&text).to_string()
    }
}

#[test]
fn an_unknown_codec_does_not_hide_damage() {
    let segment = three_frames();
    let mut bytes = segment.trimmed();
    let [a, b, _] = segment.frames[..] else { panic!() };
    bytes[a.offset + 24] = 7;
    fix_frame_crc(&mut bytes[a.offset..a.end()]);
    bytes[b.offset + 80] ^= 1;
    let scanned = scan(&bytes, segment.expect());
    assert_eq!(scanned.worst(), Some(Class::Damage), "{:?}", scanned.findings);
}

#[test]
fn unknown_versions_and_features_are_named_and_nothing_is_guessed() {
    let cases: [(usize, u32, &str); 3] = [
        (12, 2, "format version 2 is not known to this program, which reads version 1"),
        (16, 1 << 4, "needs feature bit 4, which this program does not know"),
        (16, 0x8000_0001, "needs feature bit 0, feature bit 31, which this program does not know"),
    ];
    for (at, value, text) in cases {
        let segment = three_frames();
        let mut bytes = segment.trimmed();
        let len = if at == 12 { 2 } else { 4 };
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        fix_header_crc(&mut bytes[..segment.header.stored_len()]);
        let scanned = assert_sane(&bytes, segment.expect(), 1000);
        let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
        assert_eq!(finding.to_string(), text);
        assert_eq!(finding.class(u64::MAX, true), Class::Unsupported);
        assert_eq!(finding.class(0, false), Class::Unsupported);
        assert!(scanned.records.is_empty());
        let refusal = decide(None, Some(&scanned.found(&segment.expect()))).expect_err("refused");
        assert!(refusal.finding.to_string().contains("not know"));
    }
}

#[test]
fn a_later_version_may_have_a_longer_header() {
    let mut bytes = vec![0; 16 * 1024];
    bytes[..8].copy_from_slice(b"GRAVENSG");
    bytes[12] = 9;
    bytes[20..24].copy_from_slice(&(8192u32).to_le_bytes());
    fix_header_crc(&mut bytes[..8192]);
    let scanned = assert_sane(&bytes, ANY, 700);
    assert_eq!(scanned.findings[0].kind, FindingKind::Header(FormatError::UnknownVersion(9)));
}

#[test]
fn frames_that_lie_about_their_records_are_found() {
    let stated =
        |count: u32| with_frame(move |frame| frame[20..24].copy_from_slice(&count.to_le_bytes())).1;
    for (count, missing, read) in [(4, 1, 10), (2, 0, 9), (1, 0, 8)] {
        let scanned = stated(count);
        let kind = FindingKind::RecordCount { stated: count, found: 3 };
        assert_eq!(scanned.findings[0].kind, kind);
        assert_eq!(scanned.findings[0].missing, missing);
        assert_eq!(scanned.records.len(), read, "no record beyond the count is given out");
        assert_eq!(scanned.worst(), Some(Class::Damage));
    }
    for (at, value, text) in [
        (72, 255, "left in the frame"),
        (74, 4, "over the limit"),
        (78, 7, "unknown source"),
        (79, 8, "unknown record flags"),
    ] {
        let (_, scanned) = with_frame(|frame| frame[at] = value);
        let finding = &scanned.findings[0];
        assert!(finding.to_string().contains(text), "{finding}");
        assert_eq!(finding.class(0, true), Class::Damage);
        let missing: u64 = scanned.findings.iter().map(|finding| finding.missing).sum();
        assert_eq!(missing as usize + scanned.records.len(), 10, "{:?}", scanned.findings);
    }
}

#[test]
fn numbers_near_the_end_of_u64_do_not_overflow() {
    // A frame at the very end of the sequence, one past it, and one that holds more than it says.
    for (first_seq, count) in
        [(u64::MAX - 3, 3), (u64::MAX - 2, 3), (u64::MAX - 1, 1), (u64::MAX, 3), (u64::MAX - 1, 2)]
    {
        let segment = three_frames();
        let mut bytes = segment.trimmed();
        let frame = segment.frames[0];
        let frame = &mut bytes[frame.offset..frame.end()];
        frame[56..64].copy_from_slice(&first_seq.to_le_bytes());
        frame[20..24].copy_from_slice(&(count as u32).to_le_bytes());
        fix_frame_crc(frame);
        for known in [0, first_seq] {
            let expect = Expect { first_seq: known, ..segment.expect() };
            let scanned = assert_sane(&bytes, expect, 4096);
            assert!(!scanned.findings.is_empty());
            // The same without the header, whose first_seq would otherwise win.
            let mut headless = bytes.clone();
            headless[0] = 0;
            assert_sane(&headless, expect, 4096);
        }
    }
}

#[test]
fn trailers_that_lie_are_found() {
    let nodes_end = 168 + 32 * three_frames().trailer(SealReason::Stop).range.nodes().len();
    let fields: [(usize, &str); 11] = [
        (56, "frame_count"),
        (64, "frames_end"),
        (72, "last_crc"),
        (80, "realtime_min_ns"),
        (88, "realtime_max_ns"),
        (96, "record_bytes"),
        (112, "root"),
        (168, "node"),
        (nodes_end, "index"),
        (nodes_end + 9, "index"),
        (nodes_end + 16, "index"),
    ];
    for (at, field) in fields {
        let segment = three_frames();
        let mut bytes = segment.trimmed();
        let start = segment.bytes.len();
        bytes[start + at] ^= 1;
        fix_trailer_crc(&mut bytes[start..]);
        let scanned = assert_sane(&bytes, segment.expect(), 4096);
        let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
        let as_expected = match finding.kind {
            FindingKind::Trailer { field: found } => found == field,
            FindingKind::Root => field == "root" || field == "node",
            _ => false,
        };
        assert!(as_expected, "{field}: {finding:?}");
        assert_eq!(finding.class(0, true), Class::Damage);
    }
}

#[test]
fn a_frame_written_again_does_not_follow_its_neighbours() {
    // The records of the middle frame are others, its checksum is right, and no trailer tells.
    let segment = three_frames();
    let mut other = Segment::first(512);
    other.frame(&recs(0, 3, 100), 0).frame(&recs(70, 5, 200), 3);
    let [_, b, c] = segment.frames[..] else { panic!() };
    let mut bytes = segment.unsealed();
    bytes[b.offset..b.end()].copy_from_slice(&other.bytes[b.offset..b.end()]);
    let scanned = assert_sane(&bytes, segment.expect(), 4096);
    let [finding] = &scanned.findings[..] else { panic!("{:?}", scanned.findings) };
    assert!(matches!(finding.kind, FindingKind::Chain { .. }), "{finding:?}");
    assert_eq!(finding.offset as usize, c.offset);
    assert_eq!(finding.class(0, true), Class::Damage);
    decide(None, Some(&scanned.found(&segment.expect()))).expect_err("refused");
}

#[test]
fn a_frame_that_announces_its_own_records_is_none() {
    let (_, scanned) = with_frame(|frame| frame[64] = 1);
    let field = FormatError::Field { what: "frame", field: "announced", value: 1 };
    assert_eq!(scanned.findings[0].kind, FindingKind::Unreadable(field));
}

#[test]
fn a_segment_without_room_for_its_trailer_is_neither_sealed_nor_cut() {
    let mut segment = Segment::first(512);
    loop {
        let next = segment.next_seq();
        let mut longer = segment.clone();
        longer.frame(&recs(next, 40, 1000), next);
        if longer.bytes.len() > SEGMENT_BYTES_MIN as usize {
            break;
        }
        segment = longer;
    }
    // Fill what is left to the last block with frames of one.
    while segment.bytes.len() < SEGMENT_BYTES_MIN as usize {
        let next = segment.next_seq();
        segment.frame(&[crate::common::rec(next, 100)], next);
    }
    let scanned = assert_sane(&segment.unsealed(), segment.expect(), 65_536);
    assert_eq!(scanned.findings, [], "all of it can be read");
    decide(None, Some(&scanned.found(&segment.expect()))).expect_err("nowhere to seal it");
    // A trailer that goes past what was reserved is not taken for one.
    let scanned = assert_sane(&segment.trimmed(), segment.expect(), 65_536);
    assert!(scanned.outcome.trailer.is_none());
    assert_eq!(scanned.worst(), Some(Class::Damage));
}

#[test]
fn nothing_is_read_beyond_what_was_reserved() {
    // More frames than the segment has room for, chained as they should be.
    let mut segment = Segment::first(512);
    while segment.bytes.len() < SEGMENT_BYTES_MIN as usize + 200_000 {
        let announced = segment.next_seq();
        segment.frame(&recs(announced, 40, 1000), announced);
    }
    for bytes in [segment.bytes.clone(), segment.trimmed()] {
        let scanned = assert_sane(&bytes, segment.expect(), 65_536);
        let within = segment.frames.iter().filter(|at| at.end() <= SEGMENT_BYTES_MIN as usize);
        assert_eq!(scanned.records.len(), within.count() * 40);
        assert_eq!(scanned.worst(), Some(Class::Damage));
    }
}

#[test]
fn made_up_frame_headers_are_one_finding() {
    // Every block claims to start the largest frame. The reader looks at trail and segment first,
    // so that not each of them costs the checksum of 256 KiB; how fast it is no test here says.
    let mut block = vec![0u8; 512];
    block[..4].copy_from_slice(b"GRVF");
    block[8..12].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
    block[12..16].copy_from_slice(&(FRAME_BYTES_MAX as u32 - 72).to_le_bytes());
    let segment = three_frames();
    let mut bytes = segment.bytes[..segment.header.stored_len()].to_vec();
    bytes.extend(block.iter().cycle().take(SEGMENT_BYTES_MIN as usize - bytes.len()));
    let scanned = assert_sane(&bytes, segment.expect(), 65_536);
    assert_eq!(scanned.findings.len(), 1, "{:?}", scanned.findings);
}
