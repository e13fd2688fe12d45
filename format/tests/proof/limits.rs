//! The limits hold for the largest thing that each structure can be.

use crate::common::{Segment, TRAIL, rec, scan};
use graven_format::consts::{
    ALIGN_BYTES_MAX, ALIGN_BYTES_MIN, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX,
    INDEX_STRIDE_BYTES, NOTE_STORED_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, trailer_bytes_max,
};
use graven_format::merkle::{CompactRange, block_level, node_count, whole_blocks};
use graven_format::name::Name;
use graven_format::trailer::{SealReason, Tally, TallyFrame, Trailer};

const ALIGNS_BYTES: [u32; 4] = [512, 1024, 2048, 4096];

/// The trailer of a segment of `segment_bytes` with as many index entries, blocks and bytes of a
/// note as it can have.
fn largest_trailer(segment_bytes: u64) -> Trailer {
    let records = segment_bytes / RECORD_HEADER_BYTES as u64;
    let begin = (1 << 40) - records / 2 + 1;
    let end = begin + records;
    let mut tally = Tally::new(0, 0);
    let frame_len = INDEX_STRIDE_BYTES / 8;
    for offset in (0..segment_bytes).step_by(frame_len as usize) {
        tally.add(&TallyFrame {
            first_seq: u64::MAX,
            offset,
            frame_len,
            crc: u32::MAX,
            record_count: 0,
            record_bytes: 0,
            realtime_first_ns: u64::MAX,
            realtime_min_ns: u64::MAX,
            realtime_max_ns: u64::MAX,
        });
    }
    tally.record_count = end - begin;
    let nodes = vec![[0xFF; 32]; node_count(begin, end)];
    let blocks = whole_blocks(begin, end, block_level(begin, end));
    Trailer {
        crc: 0,
        trailer_len: 0,
        trail_id: TRAIL,
        segment: u64::MAX,
        first_seq: begin,
        tally,
        reason: SealReason::Recovery,
        sealed_realtime_ns: u64::MAX,
        root: [0xFF; 32],
        range: CompactRange::from_nodes(begin, end, &nodes).expect("as many as it has"),
        blocks: blocks.map(|_| [0xFF; 32]).collect(),
        first_crc: Some(u32::MAX),
        note: vec![0xFF; NOTE_STORED_BYTES_MAX],
    }
}

#[test]
fn the_room_kept_for_a_trailer_takes_the_largest() {
    for segment_bytes in [SEGMENT_BYTES_MIN, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX] {
        let trailer = largest_trailer(segment_bytes);
        for align_bytes in ALIGNS_BYTES {
            let (bytes, crc) = trailer.encode(align_bytes);
            assert!(bytes.len() as u64 <= trailer_bytes_max(segment_bytes, align_bytes));
            assert!(bytes.len() <= FRAME_BYTES_MAX, "it fits a frame buffer");
            let decoded = Trailer::decode(&bytes).expect("as written");
            assert_eq!((decoded.crc, decoded.trailer_len as usize), (crc, bytes.len()));
            assert_eq!(Trailer { crc: 0, trailer_len: 0, ..decoded }, trailer);
            assert_eq!(Trailer::footer_len(&bytes), Some(bytes.len()));
        }
    }
}

#[test]
fn the_longest_header_is_one_page() {
    let mut header = Segment::first(ALIGN_BYTES_MIN).header;
    header.first_seq = u64::MAX;
    let nodes = vec![[0xFF; 32]; node_count(0, u64::MAX)];
    header.before = CompactRange::from_nodes(0, u64::MAX, &nodes).expect("as many as it has");
    header.host = vec![0xFF; 64];
    for align_bytes in ALIGNS_BYTES {
        header.align_bytes = align_bytes;
        header.segment_len = SEGMENT_BYTES_MAX;
        let (bytes, crc) = header.encode();
        assert!(bytes.len() <= ALIGN_BYTES_MAX as usize);
        let decoded = graven_format::segment::SegmentHeader::decode(&bytes).expect("as written");
        assert_eq!(decoded, graven_format::segment::SegmentHeader { crc, ..header.clone() });
    }
}

#[test]
fn a_frame_of_most_records_and_one_of_most_bytes_are_read() {
    let mut segment = Segment::first(512);
    let smallest: Vec<_> = (0..FRAME_RECORDS_MAX as u64).map(|n| rec(n, 0)).collect();
    let room = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
    let largest = [rec(9, room / 2 - RECORD_HEADER_BYTES), rec(10, room / 2 - RECORD_HEADER_BYTES)];
    segment.frame(&smallest, 0).frame(&largest, FRAME_RECORDS_MAX as u64);
    assert_eq!(segment.frames[1].len, FRAME_BYTES_MAX);
    let scanned = scan(&segment.full(), segment.expect());
    assert_eq!((scanned.findings.len(), scanned.records.len()), (0, FRAME_RECORDS_MAX + 2));
}

#[test]
fn decoders_take_any_slice_without_panic() {
    let segment = crate::common::three_frames();
    let bytes = segment.trimmed();
    let starts = [0, segment.frames[0].offset, segment.bytes.len()];
    for start in starts {
        for len in 0..=(bytes.len() - start).min(2000) {
            let slice = &bytes[start..start + len];
            let header = graven_format::segment::SegmentHeader::decode(slice);
            assert_eq!(header.is_ok(), start == 0 && len == 512);
            let frame = graven_format::frame::FrameHeader::decode(slice);
            assert_eq!(frame.is_ok(), start == starts[1] && len == segment.frames[0].len);
            let trailer = Trailer::decode(slice);
            assert_eq!(trailer.is_ok(), start == starts[2] && start + len == bytes.len());
            let identity = graven_format::identity::Identity::decode(slice);
            assert!(identity.is_err());
        }
    }
}

#[test]
fn an_identity_is_exactly_its_bytes() {
    use graven_format::identity::Identity;
    let identity = Identity { trail_id: TRAIL, created_realtime_ns: 0x0123_4567_89AB_CDEF };
    let good = identity.encode();
    assert_eq!(Identity::decode(&good), Ok(identity));
    for bit in 0..good.len() * 8 {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Identity::decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn names_are_one_for_each_number() {
    for number in [0, 1, 0xE02CF, u64::MAX] {
        let name = graven_format::name::segment(number, u64::MAX - number);
        let expected = Name::Segment { segment: number, first_seq: u64::MAX - number };
        assert_eq!(Name::parse(&name), Some(expected));
        assert_eq!(Name::parse(&name.to_uppercase()), None);
    }
}
