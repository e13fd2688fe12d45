//! The writer as its users see it, on the real disk.

use graven_format::name::{self, Name};
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::{Flags, Record, Source};
use graven_writer::codec::Reading;
use graven_writer::disk::DiskChoice;
use graven_writer::keys::KeyOption;
use graven_writer::{Options, Trail, clock};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn record(bytes: &[u8]) -> Record<'_> {
    let now = clock::now();
    Record {
        source: Source::Stdin,
        kind: 0,
        flags: Flags::NONE,
        realtime_ns: now.realtime_ns,
        boottime_ns: now.boottime_ns,
        source_seq: 0,
        bytes,
    }
}

/// Every record of a trail, in order; panics on any finding.
fn read_all(dir: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut records = Vec::new();
    for name in names {
        let Some(Name::Segment { segment, first_seq }) = Name::parse(&name) else { continue };
        assert_eq!(name, name::segment(segment, first_seq));
        assert_eq!(first_seq, records.len() as u64);
        let mut scanner = Scanner::with_hashing(
            Expect { segment, first_seq, trail_id: None, merkle: true },
            Reading::new(),
        );
        scanner.push(&fs::read(dir.join(&name)).unwrap());
        scanner.end();
        while let Some(event) = scanner.next_event() {
            match event {
                Event::Record { seq, record, .. } => {
                    assert_eq!(seq, records.len() as u64);
                    records.push(record.bytes.to_vec());
                }
                Event::Finding(finding) => panic!("{name}: {finding} {finding:?}"),
                _ => {}
            }
        }
        assert!(scanner.outcome().trailer.is_some(), "{name} is sealed");
    }
    records
}

fn options(disk: DiskChoice) -> Options {
    // Checkpoints would be records among those that were appended: `checkpoints.rs` looks at them.
    let key = KeyOption::Unsigned;
    let (segment_bytes, ring_bytes) = (1024 * 1024, 2 * 1024 * 1024);
    Options { disk, segment_bytes, ring_bytes, key, ..Options::default() }
}

#[test]
fn what_is_appended_is_read_back_over_many_segments_and_restarts() {
    for choice in [DiskChoice::Uring, DiskChoice::Sync] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut expected = Vec::new();
        for round in 0..3u32 {
            let trail = Trail::open(dir.path(), &options(choice)).unwrap();
            assert_eq!(trail.opened().next_seq, expected.len() as u64);
            for n in 0..4000u32 {
                let mut bytes = format!("round {round} record {n} ").into_bytes();
                bytes.resize(bytes.len() + (n as usize * 37) % 1500, b'x');
                let ticket = trail.append(&record(&bytes)).unwrap();
                assert_eq!(ticket.seq(), expected.len() as u64);
                expected.push(bytes);
            }
            let summary = trail.close().unwrap();
            assert_eq!(summary.durable, expected.len() as u64);
            assert_eq!(summary.totals.records, 4000);
            assert_eq!(summary.totals.latency.len(), 4000);
        }
        assert_eq!(read_all(dir.path()), expected);
    }
}

#[test]
fn tickets_wait_for_the_barrier() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let trail = Arc::new(Trail::open(dir.path(), &options(DiskChoice::Auto)).unwrap());
    std::thread::scope(|scope| {
        for producer in 0..4 {
            let trail = &trail;
            scope.spawn(move || {
                for n in 0..50 {
                    let bytes = format!("producer {producer} record {n}");
                    let ticket = trail.append(&record(bytes.as_bytes())).unwrap();
                    ticket.wait_durable().unwrap();
                    assert!(trail.durable() > ticket.seq());
                }
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let ticket = trail.append(&record(b"asked without blocking")).unwrap();
        ticket.durable().await.unwrap();
        assert!(trail.durable() > ticket.seq());
    });
    assert_eq!(trail.durable(), 201);
    drop(trail);
    assert_eq!(read_all(dir.path()).len(), 201);
}

#[test]
fn an_empty_run_leaves_no_segment() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for _ in 0..2 {
        let trail = Trail::open(dir.path(), &options(DiskChoice::Auto)).unwrap();
        assert_eq!(trail.close().unwrap().durable, 0);
    }
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["identity", "lock"]);
}

#[test]
fn a_segment_is_sealed_when_that_is_asked_for() {
    for choice in [DiskChoice::Uring, DiskChoice::Sync] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut expected = Vec::new();
        for _ in 0..2 {
            let trail = Trail::open(dir.path(), &options(choice)).unwrap();
            assert_eq!(trail.seal_now(), expected.len() as u64, "nothing is there to seal");
            for n in 0..3 {
                for _ in 0..40 {
                    let bytes = vec![b'a' + n; 100];
                    trail.append(&record(&bytes)).unwrap();
                    expected.push(bytes);
                }
                let seq = trail.seal_now();
                assert_eq!((seq, trail.seal_now()), (expected.len() as u64, seq));
                trail.watermark().wait_past(seq - 1).unwrap();
                // The writer has its turn before more comes.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            trail.close().unwrap();
        }
        // `read_all` sees that each segment is sealed and begins where the last one ends.
        assert_eq!(read_all(dir.path()), expected);
        let mut firsts: Vec<u64> = fs::read_dir(dir.path())
            .unwrap()
            .filter_map(|entry| {
                match Name::parse(&entry.unwrap().file_name().into_string().unwrap()) {
                    Some(Name::Segment { first_seq, .. }) => Some(first_seq),
                    _ => None,
                }
            })
            .collect();
        firsts.sort_unstable();
        // Where one seal waits for another, two requests may be one seal.
        assert!(
            firsts.iter().all(|first| first % 40 == 0),
            "only where it was asked for: {firsts:?}"
        );
        assert!(firsts.len() > 2, "two sessions without a request would have two: {firsts:?}");
        assert!(firsts.len() <= 6, "one segment a request, and none without records: {firsts:?}");
    }
}
