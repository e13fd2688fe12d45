//! The ring: records in, batches out, by one thread that is producer and engine in turn.

use crate::{Unit, Work, Workload};
use graven_format::consts::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, RECORD_HEADER_BYTES,
};
use graven_format::{Flags, Record, Source};
use graven_writer::disk::Wake;
use graven_writer::ring::Ring;
use std::sync::Arc;

pub(crate) const APPEND: Workload =
    Workload { name: "ring/append", unit: Unit::Items, prepare: append };

pub(crate) const APPEND_ALL: Workload =
    Workload { name: "ring/append_all", unit: Unit::Items, prepare: append_all };

/// Bytes of a record's payload.
const PAYLOAD_BYTES: usize = 256;

/// Records that fill one batch.
const BATCH_RECORDS: usize =
    (FRAME_BYTES_MAX - FRAME_HEADER_BYTES) / (RECORD_HEADER_BYTES + PAYLOAD_BYTES);
const _: () = assert!(BATCH_RECORDS <= FRAME_RECORDS_MAX);

/// Batches that a run fills, of those that the ring has.
const RUN_BATCHES: usize = 2;
const BATCHES: usize = 4;

/// Nobody sleeps.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

fn ring() -> Ring<Vec<u8>> {
    let buffers = (0..BATCHES).map(|_| vec![0; FRAME_BYTES_MAX]).collect();
    Ring::new(buffers, 0, Arc::new(Awake))
}

fn record(bytes: &[u8], source_seq: u64) -> Record<'_> {
    let (source, kind, flags) = (Source::Netlink, 1300, Flags::NONE);
    let (realtime_ns, boottime_ns) = (1_700_000_000_000_000_000 + source_seq, source_seq);
    Record { source, kind, flags, realtime_ns, boottime_ns, source_seq, bytes }
}

/// Takes every batch as the engine does, and gives it back.
fn drain(ring: &Ring<Vec<u8>>) -> usize {
    let mut records = 0;
    while let Some(batch) = ring.take(true) {
        records += batch.count as usize;
        ring.recycle(batch);
    }
    records
}

fn append() -> Work {
    let (ring, payload) = (ring(), vec![7; PAYLOAD_BYTES]);
    let records = RUN_BATCHES * BATCH_RECORDS;
    let run = move || {
        for n in 0..records {
            ring.append(&record(&payload, n as u64)).expect("the ring is open");
        }
        assert_eq!(drain(&ring), records);
    };
    Work { units: records as u64, run: Box::new(run) }
}

/// As the receiver of kernel audit does: what has come together goes in together.
fn append_all() -> Work {
    const TOGETHER: usize = 16;
    let ring = ring();
    let records = RUN_BATCHES * BATCH_RECORDS / TOGETHER * TOGETHER;
    let payload = [7; PAYLOAD_BYTES];
    let run = move || {
        for first in (0..records).step_by(TOGETHER) {
            let together: [_; TOGETHER] =
                std::array::from_fn(|n| record(&payload, (first + n) as u64));
            ring.append_all(&together).expect("the ring is open");
        }
        assert_eq!(drain(&ring), records);
    };
    Work { units: records as u64, run: Box::new(run) }
}
