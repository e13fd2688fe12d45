//! The reader over a sealed segment of two full frames.

use crate::seal::{TRAIL, fill, record};
use crate::text::{self, Line};
use crate::{Unit, Work, Workload};
use graven_format::consts::{
    ALIGN_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_BYTES_DEFAULT,
};
use graven_format::frame::{self, FrameFields};
use graven_format::merkle::{CompactRange, OneByOne, Scratch, SegmentTree, leaf_hash};
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Tally, TallyFrame, Trailer};
use graven_writer::codec::{Compressor, Reading};

pub(crate) const RECORDS: Workload =
    Workload { name: "scan/records", unit: Unit::Bytes, prepare: || scan(None, false) };

pub(crate) const VERIFIED: Workload =
    Workload { name: "scan/verified", unit: Unit::Bytes, prepare: || scan(None, true) };

pub(crate) const COMPRESSED: Workload =
    Workload { name: "scan/compressed", unit: Unit::Bytes, prepare: || scan(Some(3), false) };

const FRAMES: usize = 2;

/// Reads a segment, whose frames are compressed at `level` if there is one, and hashes its records if `merkle`.
fn scan(level: Option<i32>, merkle: bool) -> Work {
    let (segment, records) = segment(&text::events(1000), level);
    let units = segment.len() as u64;
    let run = move || {
        let expect = Expect { segment: 0, first_seq: 0, trail_id: Some(TRAIL), merkle };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        scanner.push(&segment);
        scanner.end();
        let mut seen = 0;
        while let Some(event) = scanner.next_event() {
            match event {
                Event::Record { record, .. } => seen += usize::from(!record.bytes.is_empty()),
                Event::Finding(finding) => panic!("{finding}"),
                _ => {}
            }
        }
        assert!(seen == records && scanner.outcome().trailer.is_some());
    };
    Work { units, run: Box::new(run) }
}

/// The bytes of a sealed segment, and how many records it holds.
fn segment(lines: &[Line], level: Option<i32>) -> (Vec<u8>, usize) {
    let header = SegmentHeader {
        crc: 0,
        align_bytes: ALIGN_BYTES_MAX,
        prev_crc: 0,
        trail_id: TRAIL,
        segment: 0,
        first_seq: 0,
        segment_len: SEGMENT_BYTES_DEFAULT,
        created_realtime_ns: 1_700_000_000_000_000_000,
        created_boottime_ns: 4_000_000_000,
        boot_id: *b"sixteen bytes id",
        host: b"host.example".to_vec(),
        epoch: 0,
        key: [0; 32],
        before: CompactRange::new(0),
    };
    let (mut bytes, crc) = header.encode();
    let (mut tally, mut tree) = (Tally::new(bytes.len() as u64, crc), SegmentTree::new(0));
    let mut compressor = level.map(Compressor::new);
    let mut scratch = Scratch::default();
    let mut left = lines;
    for _ in 0..FRAMES {
        let mut buf = vec![0; FRAME_BYTES_MAX];
        let (mut end, count) = fill(&mut buf, left);
        let raw_len = end - FRAME_HEADER_BYTES;
        let (these, rest) = left.split_at(count);
        left = rest;
        let first_seq = tree.end();
        let leaves: Vec<_> = these.iter().map(|line| leaf_hash(&record(line))).collect();
        tree.append_all(&leaves, &mut scratch, &mut OneByOne);
        let fields = FrameFields {
            record_count: count as u32,
            prev_crc: tally.last_crc,
            trail_id: TRAIL,
            segment: 0,
            first_seq,
            announced: first_seq,
        };
        let (frame_len, crc) = match &mut compressor {
            None => frame::seal(&mut buf, end, ALIGN_BYTES_MAX, &fields),
            Some(compressor) => {
                let records = &buf[FRAME_HEADER_BYTES..end];
                let stored = compressor.compress(records, raw_len).expect("text gets shorter");
                end = FRAME_HEADER_BYTES + stored.len();
                buf[FRAME_HEADER_BYTES..end].copy_from_slice(stored);
                frame::seal_zstd(&mut buf, end, ALIGN_BYTES_MAX, &fields, raw_len)
            }
        };
        let times = || these.iter().map(|line| record(line).realtime_ns);
        tally.add(&TallyFrame {
            first_seq,
            offset: bytes.len() as u64,
            frame_len: frame_len as u64,
            crc,
            record_count: count as u64,
            record_bytes: raw_len as u64,
            realtime_first_ns: times().next().expect("a full frame"),
            realtime_min_ns: times().min().expect("a full frame"),
            realtime_max_ns: times().max().expect("a full frame"),
        });
        bytes.extend_from_slice(&buf[..frame_len]);
    }
    let records = lines.len() - left.len();
    let trailer = Trailer::new(&header, tally, &tree, SealReason::Stop, 1_800_000_000_000_000_000);
    bytes.extend_from_slice(&trailer.encode(ALIGN_BYTES_MAX).0);
    (bytes, records)
}
