//! The reader with a hashing of the caller's: it is given whole frames, and what is found does not
//! depend on it.

use crate::common::{Segment, recs, three_frames};
use graven_format::FindingKind;
use graven_format::codec::Decoding;
use graven_format::consts::FRAME_HEADER_BYTES;
use graven_format::merkle::{CompactRange, Hash, Hashing, OneByOne, leaf_hash};
use graven_format::scan::{Event, Outcome, Scanner};
use graven_format::trailer::SealReason;

/// Hashes as it should, and keeps how many leaves each call was for.
#[derive(Default)]
struct Counted<'a>(Option<&'a mut Vec<usize>>);

impl Hashing for Counted<'_> {
    fn leaves(&mut self, records: &[u8], out: &mut Vec<Hash>) {
        let before = out.len();
        OneByOne.leaves(records, out);
        if let Some(calls) = &mut self.0 {
            calls.push(out.len() - before);
        }
    }

    fn nodes(&mut self, children: &[Hash], out: &mut Vec<Hash>) {
        OneByOne.nodes(children, out);
    }
}

/// Hashes every record to the same.
struct Wrong;

impl Decoding for Counted<'_> {}

impl Decoding for Wrong {}

impl Hashing for Wrong {
    fn leaves(&mut self, records: &[u8], out: &mut Vec<Hash>) {
        out.extend(graven_format::record::split(records).map(|_| [7; 32]));
    }

    fn nodes(&mut self, children: &[Hash], out: &mut Vec<Hash>) {
        OneByOne.nodes(children, out);
    }
}

/// Every event as text, and the outcome.
fn read<H: Hashing + Decoding>(mut scanner: Scanner<H>, bytes: &[u8]) -> (Vec<String>, Outcome) {
    let mut events = Vec::new();
    scanner.push(bytes);
    scanner.end();
    while let Some(event) = scanner.next_event() {
        events.push(format!("{event:?}"));
    }
    (events, scanner.outcome())
}

#[test]
fn records_of_a_frame_are_hashed_in_one_call() {
    let segment = three_frames();
    let mut calls = Vec::new();
    let scanner = Scanner::with_hashing(segment.expect(), Counted(Some(&mut calls)));
    let (events, outcome) = read(scanner, &segment.full());
    assert_eq!(outcome.prefix.tree, Some(segment.tree.clone()));
    assert_eq!(read(Scanner::new(segment.expect()), &segment.full()).0, events);
    assert_eq!(calls, [3, 5, 2]);
}

#[test]
fn nothing_is_hashed_unless_wanted_or_after_the_first_hole() {
    let segment = three_frames();
    let mut calls = Vec::new();
    let expect = graven_format::scan::Expect { merkle: false, ..segment.expect() };
    read(Scanner::with_hashing(expect, Counted(Some(&mut calls))), &segment.full());
    assert_eq!(calls, []);
    let mut bytes = segment.full();
    bytes[segment.frames[1].offset + FRAME_HEADER_BYTES] ^= 1;
    read(Scanner::with_hashing(segment.expect(), Counted(Some(&mut calls))), &bytes);
    assert_eq!(calls, [3]);
}

#[test]
fn the_hashing_that_was_given_is_what_the_root_is_checked_with() {
    let segment = three_frames();
    let mut scanner = Scanner::with_hashing(segment.expect(), Wrong);
    scanner.push(&segment.full());
    scanner.end();
    let mut kinds = Vec::new();
    while let Some(event) = scanner.next_event() {
        if let Event::Finding(finding) = event {
            kinds.push(finding.kind);
        }
    }
    assert_eq!(kinds, [FindingKind::Root]);
}

#[test]
fn every_flipped_byte_reads_the_same_with_another_hashing() {
    let segment = three_frames();
    let pristine = segment.trimmed();
    for at in 0..pristine.len() {
        let mut bytes = pristine.clone();
        bytes[at] ^= 0x10;
        let (events, outcome) = read(Scanner::new(segment.expect()), &bytes);
        let other = read(Scanner::with_hashing(segment.expect(), Counted::default()), &bytes);
        assert_eq!(events, other.0, "byte {at}");
        assert_eq!(format!("{outcome:?}"), format!("{:?}", other.1), "byte {at}");
    }
}

/// Who stops in the middle of a frame has the range of exactly the records that were given out.
#[test]
fn the_range_of_who_stops_early_is_that_of_the_records_read() {
    let mut segment = Segment::first(512);
    segment.frame(&recs(0, 7, 30), 0).frame(&recs(7, 21, 50), 7);
    for stop in 1..=28_u64 {
        let mut scanner = Scanner::new(segment.expect());
        scanner.push(&segment.full());
        while let Some(event) = scanner.next_event() {
            if matches!(event, Event::Record { seq, .. } if seq + 1 == stop) {
                break;
            }
        }
        let prefix = scanner.outcome().prefix;
        let mut expected = CompactRange::new(0);
        segment.records[..stop as usize]
            .iter()
            .for_each(|rec| expected.append(leaf_hash(&rec.record())));
        assert_eq!((prefix.next_seq, prefix.tree.map(|tree| tree.range())), (stop, Some(expected)));
    }
}

#[test]
fn frames_that_begin_in_the_middle_of_a_pair_have_the_same_tree() {
    let mut first = Segment::first(512);
    first.frame(&recs(0, 5, 10), 0);
    let mut second = first.successor(&first.trailer(SealReason::Full));
    second.frame(&recs(5, 6, 10), 5).frame(&recs(11, 40, 20), 11);
    let (events, outcome) = read(Scanner::new(second.expect()), &second.full());
    assert!(!events.iter().any(|event| event.starts_with("Finding")), "{events:#?}");
    assert_eq!(outcome.prefix.tree, Some(second.tree));
}
