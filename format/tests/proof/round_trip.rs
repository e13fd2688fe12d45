//! What goes in comes out: every record, whatever its bytes, however it was batched, and however
//! the file is read.

use crate::common::{Rec, Segment, recs, scan, scan_in};
use graven_format::consts::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX, SEGMENT_BYTES_MIN,
    trailer_bytes_max,
};
use graven_format::trailer::SealReason;
use graven_format::{Flags, Source};
use proptest::collection::vec;
use proptest::prelude::*;

fn flags() -> impl Strategy<Value = Flags> {
    prop::sample::select(vec![
        Flags::NONE,
        Flags::LOSS,
        Flags::UNTERMINATED,
        Flags::LOSS | Flags::UNTERMINATED,
    ])
}

/// Mostly short payloads, sometimes one at the limit.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..600),
        1 => Just(Vec::new()),
        1 => (any::<u8>(), 0..=RECORD_PAYLOAD_BYTES_MAX).prop_map(|(byte, len)| vec![byte; len]),
        1 => any::<u8>().prop_map(|byte| vec![byte; RECORD_PAYLOAD_BYTES_MAX]),
    ]
}

fn any_rec() -> impl Strategy<Value = Rec> {
    let source = prop::sample::select(Source::ALL.to_vec());
    (source, any::<u16>(), flags(), any::<(u64, u64, u64)>(), payload()).prop_map(
        |(source, kind, flags, (realtime_ns, boottime_ns, source_seq), bytes)| Rec {
            source,
            kind,
            flags,
            realtime_ns,
            boottime_ns,
            source_seq,
            bytes,
        },
    )
}

/// A segment with as many of `batches` as fit it; a batch ends early where a frame is full.
fn fill(segment: &mut Segment, batches: &[Vec<Rec>]) {
    let align_bytes = segment.header.align_bytes;
    let room_end = SEGMENT_BYTES_MIN - trailer_bytes_max(SEGMENT_BYTES_MIN, align_bytes);
    for batch in batches {
        let mut frame: Vec<Rec> = Vec::new();
        let mut len = FRAME_HEADER_BYTES;
        for rec in batch {
            len += rec.record().stored_len();
            if len > FRAME_BYTES_MAX {
                break;
            }
            frame.push(rec.clone());
        }
        let frame_len = len.min(FRAME_BYTES_MAX).next_multiple_of(align_bytes as usize);
        if segment.bytes.len() + frame_len > room_end as usize {
            return;
        }
        let announced = segment.frames.last().map_or(0, |frame| frame.first_seq);
        segment.frame(&frame, announced);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn records_come_out_as_they_went_in(
        align_bytes in prop::sample::select(vec![512u32, 1024, 4096]),
        batches in vec(vec(any_rec(), 1..12), 1..10),
        chunks in vec(1usize..70_000, 1..6),
    ) {
        let mut first = Segment::first(align_bytes);
        fill(&mut first, &batches);
        let mut second = first.successor(&first.trailer(SealReason::Full));
        fill(&mut second, &batches);
        for segment in [first, second] {
            for (bytes, sealed) in
                [(segment.trimmed(), true), (segment.full(), true), (segment.unsealed(), false)]
            {
                let scanned = scan(&bytes, segment.expect());
                prop_assert_eq!(&scanned.findings, &[]);
                let seqs = segment.header.first_seq..;
                let expected: Vec<_> = seqs.zip(segment.records.iter().cloned()).collect();
                prop_assert_eq!(&scanned.records, &expected);
                let outcome = &scanned.outcome;
                prop_assert_eq!(&outcome.prefix.tally, &segment.tally);
                prop_assert_eq!(outcome.prefix.tree.as_ref(), Some(&segment.tree));
                prop_assert_eq!(outcome.prefix.next_seq, segment.next_seq());
                prop_assert_eq!(outcome.end_seq, segment.next_seq());
                let reason = if bytes.len() < SEGMENT_BYTES_MIN as usize {
                    SealReason::Stop
                } else {
                    SealReason::Full
                };
                prop_assert_eq!(
                    outcome.trailer.as_ref().map(|trailer| (trailer.root, &trailer.tally)),
                    sealed.then(|| segment.trailer(reason).root).map(|root| (root, &segment.tally))
                );
                let header = outcome.header.as_ref().expect("intact");
                prop_assert_eq!(
                    graven_format::segment::SegmentHeader { crc: 0, ..header.clone() },
                    segment.header.clone()
                );
                let pieces = scan_in(&bytes, segment.expect(), &chunks);
                prop_assert_eq!(&pieces.events, &scanned.events);
            }
        }
    }
}

#[test]
fn a_reading_in_single_bytes_says_the_same() {
    let mut segment = Segment::first(512);
    segment.frame(&recs(0, 3, 100), 0).frame(&recs(3, 4, 300), 3);
    let whole = segment.trimmed();
    let mut flipped = whole.clone();
    flipped[600] ^= 1;
    let mut without_header = whole.clone();
    without_header[3] ^= 1;
    for bytes in [whole, flipped, without_header] {
        let at_once = scan(&bytes, segment.expect());
        for chunk in [1, 7, 176, 511, 513] {
            assert_eq!(scan_in(&bytes, segment.expect(), &[chunk]).events, at_once.events);
        }
    }
}

#[test]
fn the_longest_record_fits_the_smallest_segment() {
    let mut segment = Segment::first(4096);
    let mut longest = crate::common::rec(0, RECORD_PAYLOAD_BYTES_MAX);
    longest.realtime_ns = u64::MAX;
    segment.frame(std::slice::from_ref(&longest), 0);
    let scanned = scan(&segment.full(), segment.expect());
    assert_eq!((scanned.findings, scanned.records), (vec![], vec![(0, longest)]));
}
