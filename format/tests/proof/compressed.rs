//! Compressed frames: what is written is read, every flipped bit is found, and no length that they
//! state is believed.

use crate::common::{Rec, Scanned, Segment, fix_frame_crc, rec, recs, scan, scan_in};
use graven_format::codec::DecodeError;
use graven_format::consts::FRAME_BYTES_MAX;
use graven_format::frame::RAW_BYTES_MAX;
use graven_format::scan::{Event, Scanner};
use graven_format::trailer::SealReason;
use graven_format::{Class, FindingKind, FormatError};
use graven_writer::codec::Compressor;
use proptest::collection::vec;
use proptest::prelude::*;

/// Records whose text repeats, as audit's does.
fn texts(from: u64, count: u64) -> Vec<Rec> {
    let text = |n: u64| format!("audit(1700000000.000:{n}): cwd=\"/home/user{}\"", n % 3);
    (from..from + count).map(|n| Rec { bytes: text(n).into_bytes(), ..rec(n, 0) }).collect()
}

/// A frame as it is, a compressed one, and another as it is.
fn mixed() -> Segment {
    let mut segment = Segment::first(512);
    segment.frame(&recs(0, 2, 30), 0);
    segment.frame_zstd(&texts(2, 20), 2);
    segment.frame(&recs(22, 2, 30), 22);
    segment
}

/// The same, with this in the place of the middle frame's payload and of its length.
fn with_payload(payload: &[u8], raw_len: Option<u32>) -> Scanned {
    let mut segment = Segment::first(512);
    segment.frame(&recs(0, 2, 30), 0);
    segment.frame_as(&texts(2, 20), 2, Some(payload));
    segment.frame(&recs(22, 2, 30), 22);
    let mut bytes = segment.trimmed();
    let frame = segment.frames[1];
    if let Some(raw_len) = raw_len {
        let frame = &mut bytes[frame.offset..frame.end()];
        frame[16..20].copy_from_slice(&raw_len.to_le_bytes());
        fix_frame_crc(frame);
    }
    scan(&bytes, segment.expect())
}

fn payload() -> (Vec<u8>, u32) {
    let raw: Vec<u8> = texts(2, 20).iter().flat_map(Rec::stored).collect();
    let mut compressor = Compressor::new(3);
    (compressor.compress(&raw, raw.len()).expect("it is shorter").to_vec(), raw.len() as u32)
}

#[test]
fn frames_of_both_kinds_stand_side_by_side() {
    let segment = mixed();
    let plain = {
        let mut plain = Segment::first(512);
        plain.frame(&recs(0, 2, 30), 0).frame(&texts(2, 20), 2).frame(&recs(22, 2, 30), 22);
        plain
    };
    assert!(segment.bytes.len() < plain.bytes.len());
    let scanned = scan(&segment.trimmed(), segment.expect());
    assert_eq!(scanned.findings, []);
    let records: Vec<Rec> = scanned.records.into_iter().map(|(_, rec)| rec).collect();
    assert_eq!(records, plain.records);
    let root = |segment: &Segment| segment.trailer(SealReason::Stop).root;
    assert_eq!(root(&segment), root(&plain), "leaves are of the records");
    for chunk in [1, 100, 511, 4096] {
        let again = scan_in(&segment.trimmed(), segment.expect(), &[chunk]);
        assert_eq!(again.events, scanned.events, "pushes of {chunk}");
    }
}

#[test]
fn every_flipped_bit_is_found_in_its_frame_and_the_others_are_read() {
    let segment = mixed();
    let sound = segment.trimmed();
    let frame = segment.frames[1];
    for bit in frame.offset * 8..frame.end() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let scanned = scan(&bytes, segment.expect());
        let [finding] = &scanned.findings[..] else { panic!("bit {bit}: {:?}", scanned.findings) };
        assert_eq!(finding.class(scanned.outcome.announced, true), Class::Damage, "bit {bit}");
        let place = (finding.offset, finding.len);
        assert_eq!(place, (frame.offset as u64, frame.len as u64), "bit {bit}");
        assert_eq!((finding.missing, scanned.records.len()), (20, 4), "bit {bit}");
    }
}

/// With a right checksum: what somebody would write who wants to be read otherwise.
#[test]
fn every_flipped_bit_of_what_is_compressed_is_found_behind_a_right_checksum() {
    let (payload, _) = payload();
    for bit in 0..payload.len() * 8 {
        let mut changed = payload.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let scanned = with_payload(&changed, None);
        // Some bits of a compressed frame mean nothing: the records are then the same.
        let same = scanned.records.iter().map(|(_, rec)| rec.clone()).eq(mixed().records);
        assert_eq!(scanned.findings.is_empty(), same, "bit {bit}");
        assert!(scanned.findings.is_empty() || scanned.worst() == Some(Class::Damage), "bit {bit}");
    }
}

#[test]
fn a_length_that_lies_is_damage_and_takes_no_memory() {
    let (payload, raw_len) = payload();
    assert_eq!(with_payload(&payload, Some(raw_len)).findings, []);
    for raw_len in [32, raw_len - 1, raw_len + 1, RAW_BYTES_MAX as u32] {
        let scanned = with_payload(&payload, Some(raw_len));
        let kind = FindingKind::Decode(DecodeError::Payload(raw_len));
        assert_eq!(scanned.findings[0].kind, kind);
        assert_eq!(scanned.findings[0].missing, 20);
        assert_eq!(scanned.records.len(), 4, "reading goes on behind it");
    }
    for raw_len in [0, 31, RAW_BYTES_MAX as u32 + 1, 1 << 31, u32::MAX] {
        let scanned = with_payload(&payload, Some(raw_len));
        let why = FormatError::Field { what: "frame", field: "raw_len", value: raw_len.into() };
        assert_eq!(scanned.findings[0].kind, FindingKind::Unreadable(why));
        assert!(scanned.buffer_bytes <= 2 * (64 * 1024 + FRAME_BYTES_MAX), "{raw_len}");
    }
    let twice = [&payload[..], &payload].concat();
    let trailing = [&payload[..], &[0]].concat();
    let cut = payload[..payload.len() - 1].to_vec();
    for payload in [twice, trailing, cut, vec![0x28], b"no such thing".to_vec()] {
        let scanned = with_payload(&payload, None);
        assert!(matches!(scanned.findings[0].kind, FindingKind::Decode(_)), "{payload:02x?}");
        assert_eq!(scanned.worst(), Some(Class::Damage));
    }
}

#[test]
fn a_reader_without_a_decoder_names_the_codec_and_goes_on() {
    let segment = mixed();
    let mut scanner = Scanner::new(segment.expect());
    scanner.push(&segment.trimmed());
    scanner.end();
    let (mut findings, mut records) = (Vec::new(), 0);
    while let Some(event) = scanner.next_event() {
        match event {
            Event::Finding(finding) => findings.push(finding),
            Event::Record { .. } => records += 1,
            _ => {}
        }
    }
    assert_eq!(findings[0].kind, FindingKind::Unreadable(FormatError::UnknownCodec(1)));
    assert_eq!((findings.len(), findings[0].missing, records), (1, 20, 4));
    assert_eq!(findings[0].class(0, true), Class::Unsupported);
}

#[test]
fn a_segment_may_hold_more_records_than_would_fit_uncompressed() {
    let mut segment = Segment::first(512);
    while segment.bytes.len() < 100_000 {
        let first = segment.next_seq();
        let same = vec![Rec { bytes: Vec::new(), ..rec(5, 0) }; 2048];
        segment.frame_zstd(&same, first);
    }
    assert!(segment.next_seq() > 100_000);
    let scanned = scan(&segment.full(), segment.expect());
    assert_eq!(scanned.findings, []);
    assert_eq!(scanned.records.len() as u64, segment.next_seq());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_compressed_is_read(
        payloads in vec(vec(any::<u8>(), 0..200), 1..60),
        repeat in 1usize..20,
        level in 1i32..=19,
    ) {
        let records: Vec<Rec> = (0..)
            .zip(payloads.iter().map(|payload| payload.repeat(repeat)))
            .map(|(n, bytes)| Rec { bytes, ..rec(n, 0) })
            .collect();
        let raw: Vec<u8> = records.iter().flat_map(Rec::stored).collect();
        prop_assume!(raw.len() <= RAW_BYTES_MAX);
        let mut compressor = Compressor::new(level);
        // Noise becomes a little longer, and is compressed all the same here.
        let payload = compressor.compress(&raw, RAW_BYTES_MAX).map(<[u8]>::to_vec);
        prop_assume!(payload.is_some());
        let mut segment = Segment::first(4096);
        segment.frame_as(&records, 0, payload.as_deref());
        let scanned = scan(&segment.trimmed(), segment.expect());
        prop_assert_eq!(scanned.findings, []);
        let read: Vec<Rec> = scanned.records.into_iter().map(|(_, rec)| rec).collect();
        prop_assert_eq!(read, records);
    }
}
