//! An append allocates nothing: its thread's calls to the allocator are counted.

use allocation_counter::measure;
use graven_format::consts::{CHECKPOINT_STORED_BYTES_MAX, FRAME_BYTES_MAX, RECORD_HEADER_BYTES};
use graven_format::{Flags, Record, Source};
use graven_writer::disk::{DiskChoice, IoBuf, Wake};
use graven_writer::ring::Ring;
use graven_writer::{Options, Trail};
use std::hint::black_box;
use std::sync::Arc;

const PAYLOAD: [u8; 256] = [7; 256];

fn record(source_seq: u64) -> Record<'static> {
    let (source, kind, flags, bytes) = (Source::Netlink, 1300, Flags::NONE, &PAYLOAD);
    let (realtime_ns, boottime_ns) = (1_700_000_000_000_000_000 + source_seq, source_seq);
    Record { source, kind, flags, realtime_ns, boottime_ns, source_seq, bytes }
}

/// Calls to the allocator that this thread makes meanwhile; what is given back counts too.
fn allocations(run: impl FnOnce()) -> (u64, i64) {
    let counted = measure(run);
    (counted.count_total, counted.count_current)
}

#[test]
fn the_counter_counts() {
    let mut kept = None;
    // An optimizer may do without what nobody looks at.
    assert_eq!(allocations(|| kept = Some(black_box(Box::new(7)))), (1, 1));
    assert_eq!(allocations(|| drop(black_box(kept.take()))), (0, -1));
}

/// There is no engine that sleeps.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

/// From the first record on and five times around the ring; what the engine does to the ring neither.
#[test]
fn an_append_to_the_ring_allocates_nothing() {
    const BATCHES: usize = 4;
    const STORED_BYTES: usize = RECORD_HEADER_BYTES + PAYLOAD.len();
    let buffers = (0..BATCHES).map(|_| IoBuf::new(FRAME_BYTES_MAX).expect("memory")).collect();
    let ring = Ring::new(buffers, 0, Arc::new(Awake)).with_checkpoints(CHECKPOINT_STORED_BYTES_MAX);
    let (mut appended, mut taken, mut checkpoints) = (0, 0, 0);
    let counted = allocations(|| {
        for round in 0..5 * BATCHES {
            for n in 0..FRAME_BYTES_MAX / STORED_BYTES / 2 {
                let records = [record(n as u64); 2];
                let done = match round % 3 {
                    0 => ring.append(&records[0]).and_then(|_| ring.append(&records[1])).is_ok(),
                    1 => ring.append_all(&records).is_ok(),
                    _ => records.iter().all(|record| ring.try_append(record).is_ok()),
                };
                appended += if done { 2 } else { 0 };
            }
            ring.request_checkpoint();
            while let Some(batch) = ring.take(true) {
                taken += batch.count;
                checkpoints += u32::from(batch.checkpoint);
                ring.recycle(batch);
            }
        }
    });
    assert_eq!(counted, (0, 0));
    assert_eq!((appended, checkpoints), (taken, 5 * BATCHES as u32));
    assert!(taken as usize > 5 * (BATCHES - 1) * FRAME_BYTES_MAX / STORED_BYTES);
    assert_eq!(ring.stats().waits, 0);
}

/// With the engine and the disk at work: through the gate, past the count of losses, and with the engine to be woken.
#[test]
fn an_append_to_a_trail_allocates_nothing() {
    const RECORDS: u64 = 50_000;
    for disk in [DiskChoice::Auto, DiskChoice::Sync] {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { disk, ..Options::default() };
        let trail = Trail::open(&dir.path().join("trail"), &options).expect("a trail");
        let mut durable = 0;
        let counted = allocations(|| {
            for n in 0..RECORDS {
                let ticket = trail.append(&record(n)).expect("appended");
                // The engine goes to sleep now and then, and the next append wakes it.
                if n % 5000 == 0 {
                    durable += u64::from(ticket.wait_durable().is_ok());
                }
            }
        });
        assert_eq!(counted, (0, 0), "{disk:?}");
        let summary = trail.close().expect("closed");
        assert_eq!((summary.ring.waits, durable), (0, RECORDS / 5000), "the ring had room");
        assert!(summary.durable >= RECORDS);
    }
}
