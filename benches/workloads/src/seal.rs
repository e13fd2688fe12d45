//! Frames: header, checksum and padding around a full batch, and compressing it before.

use crate::text::{self, Line};
use crate::{Unit, Work, Workload};
use graven_format::consts::{ALIGN_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use graven_format::frame::{self, FrameFields};
use graven_format::{Flags, Record, Source, TrailId};
use graven_writer::codec::Compressor;

pub(crate) const PLAIN: Workload =
    Workload { name: "seal/plain", unit: Unit::Bytes, prepare: plain };

pub(crate) const COMPRESSED: Workload =
    Workload { name: "seal/compressed", unit: Unit::Bytes, prepare: compressed };

pub(crate) const TRAIL: TrailId = TrailId(*b"of the workloads");

/// The level that the engine compresses with while the disk is slow.
const LEVEL: i32 = 1;

/// The record of this line.
pub(crate) fn record(line: &Line) -> Record<'_> {
    let at = u64::from(line.serial) * 1_000_000;
    Record {
        source: Source::Netlink,
        kind: line.kind,
        flags: Flags::NONE,
        realtime_ns: 1_700_000_000_000_000_000 + at,
        boottime_ns: at,
        source_seq: line.serial.into(),
        bytes: &line.text,
    }
}

/// A buffer as full of these lines as it gets, from [`FRAME_HEADER_BYTES`] on: where they end, and how many they are.
pub(crate) fn fill(buf: &mut [u8], lines: &[Line]) -> (usize, usize) {
    let (mut end, mut count) = (FRAME_HEADER_BYTES, 0);
    for record in lines.iter().map(record) {
        if record.stored_len() > buf.len() - end {
            break;
        }
        end += record.encode(&mut buf[end..]);
        count += 1;
    }
    (end, count)
}

fn fields(count: usize) -> FrameFields {
    let (prev_crc, segment, first_seq, announced) = (0x1234_5678, 3, 1_000_000, 999_000);
    let record_count = count as u32;
    FrameFields { record_count, prev_crc, trail_id: TRAIL, segment, first_seq, announced }
}

fn plain() -> Work {
    let mut buf = vec![0; FRAME_BYTES_MAX];
    let (end, count) = fill(&mut buf, &text::events(500));
    let mut last_crc = None;
    let run = move || {
        let (len, crc) = frame::seal(&mut buf, end, ALIGN_BYTES_MAX, &fields(count));
        assert_eq!((len, *last_crc.get_or_insert(crc)), (FRAME_BYTES_MAX, crc));
    };
    Work { units: FRAME_BYTES_MAX as u64, run: Box::new(run) }
}

fn compressed() -> Work {
    let mut buf = vec![0; FRAME_BYTES_MAX];
    let (end, count) = fill(&mut buf, &text::events(500));
    let records = buf[FRAME_HEADER_BYTES..end].to_vec();
    let units = records.len() as u64;
    let mut compressor = Compressor::new(LEVEL);
    let run = move || {
        let stored = compressor.compress(&records, records.len() / 2).expect("text gets shorter");
        let end = FRAME_HEADER_BYTES + stored.len();
        buf[FRAME_HEADER_BYTES..end].copy_from_slice(stored);
        let (len, _) =
            frame::seal_zstd(&mut buf, end, ALIGN_BYTES_MAX, &fields(count), records.len());
        assert!(len < FRAME_BYTES_MAX / 2);
    };
    Work { units, run: Box::new(run) }
}
