//! The ring against a queue that is obviously right, and under real threads.

use super::state::{KEPT_PERCENT, REST_NS};
use super::{Batch, Ring, WakeOn};
use crate::disk::Wake;
use crate::source::AppendError;
use graven_format::consts::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, RECORD_HEADER_BYTES,
    RECORD_PAYLOAD_BYTES_MAX,
};
use graven_format::{Flags, Record, Source};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Counts wake-ups, and lets a test's engine sleep as a disk would.
#[derive(Default)]
struct Latch {
    wakes: AtomicUsize,
    set: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Latch {
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Latch {
    fn sleep(&self) {
        let set = self.set.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (mut set, timeout) =
            self.changed.wait_timeout_while(set, patience, |set| !*set).unwrap();
        assert!(!timeout.timed_out(), "the engine slept through its work");
        *set = false;
    }
}

fn ring(batches: usize, len: usize, first_seq: u64) -> (Arc<Ring<Vec<u8>>>, Arc<Latch>) {
    ring_standing(batches, len, first_seq, batches)
}

fn ring_standing(
    batches: usize,
    len: usize,
    first_seq: u64,
    standing: usize,
) -> (Arc<Ring<Vec<u8>>>, Arc<Latch>) {
    let latch = Arc::new(Latch::default());
    let buffers = vec![vec![0xaa; len]; batches];
    let ring = Ring::new(buffers, first_seq, Arc::clone(&latch) as Arc<dyn Wake>);
    (Arc::new(ring.with_standing(standing)), latch)
}

fn record(bytes: &[u8], kind: u16, source_seq: u64) -> Record<'_> {
    Record {
        source: Source::Socket,
        kind,
        flags: Flags::NONE,
        realtime_ns: 1000 + source_seq,
        boottime_ns: 5,
        source_seq,
        bytes,
    }
}

/// Takes a batch apart into (kind, source sequence, payload) and checks what it says of itself.
fn contents(batch: &Batch<Vec<u8>>) -> Vec<(u16, u64, Vec<u8>)> {
    let mut rest = batch.records();
    let mut list = Vec::new();
    let mut times = Vec::new();
    while !rest.is_empty() {
        let (record, behind) = Record::decode(rest).unwrap();
        times.push(record.realtime_ns);
        list.push((record.kind, record.source_seq, record.bytes.to_vec()));
        rest = behind;
    }
    assert_eq!(list.len(), batch.count as usize);
    assert_eq!(batch.realtime_ns_min, times.iter().copied().min().unwrap());
    assert_eq!(batch.realtime_ns_max, times.iter().copied().max().unwrap());
    list
}

#[derive(Clone, Debug)]
enum Step {
    TryAppend(usize),
    Take(bool),
    Recycle(usize),
    PrepareSleep(bool),
    Rest(u64),
    RestBeside(u64),
    Close,
    Poison,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0_usize..300).prop_map(Step::TryAppend),
        6 => any::<bool>().prop_map(Step::Take),
        6 => any::<usize>().prop_map(Step::Recycle),
        3 => any::<bool>().prop_map(Step::PrepareSleep),
        2 => (0..REST_NS / 2).prop_map(Step::Rest),
        2 => (0..REST_NS / 2).prop_map(Step::RestBeside),
        1 => Just(Step::Close),
        1 => Just(Step::Poison),
    ]
}

/// What the ring should be: queues of batches of records, sizes counted by hand.
struct Model {
    room: usize,
    free: usize,
    batches: usize,
    standing: usize,
    rested_ns: u64,
    full: VecDeque<Vec<(u64, usize)>>,
    open: Option<Vec<(u64, usize)>>,
    next_seq: u64,
    end: Option<AppendError>,
    asleep: Option<bool>,
    wakes: usize,
}

impl Model {
    fn try_append(&mut self, payload: usize) -> Result<u64, AppendError> {
        let (len, max) = (payload + RECORD_HEADER_BYTES, self.room - RECORD_HEADER_BYTES);
        if payload > max {
            return Err(AppendError::TooLong { len: payload, max });
        }
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let used = |batch: &Vec<(u64, usize)>| batch.iter().map(|(_, len)| len).sum::<usize>();
        if self.open.as_ref().is_some_and(|open| used(open) + len > self.room) {
            self.full.extend(self.open.take());
        }
        let stands = self.batches - self.free < self.standing;
        let price_ns = if stands { 0 } else { self.price_ns() };
        if self.open.is_none() && self.free > 0 && price_ns <= self.rested_ns {
            self.free -= 1;
            self.rested_ns -= price_ns;
            self.open = Some(Vec::new());
        }
        let result = match &mut self.open {
            None => Err(AppendError::Full),
            Some(open) => {
                open.push((self.next_seq, len));
                self.next_seq += 1;
                Ok(self.next_seq - 1)
            }
        };
        if self.asleep.is_some_and(|any| self.has_work(any)) {
            self.asleep = None;
            self.wakes += 1;
        }
        result
    }

    fn price_ns(&self) -> u64 {
        REST_NS / (self.batches - self.standing).max(1) as u64
    }

    fn recycle(&mut self) {
        if self.batches - self.free > self.standing {
            self.rest(self.price_ns() * KEPT_PERCENT / 100);
        }
        self.free += 1;
    }

    fn rest(&mut self, ns: u64) {
        self.rested_ns = (self.rested_ns + ns).min(REST_NS);
    }

    fn has_work(&self, any: bool) -> bool {
        !self.full.is_empty() || (any && self.open.as_ref().is_some_and(|open| !open.is_empty()))
    }

    fn end(&mut self, end: AppendError) {
        if !matches!(self.end, Some(AppendError::Poisoned(_))) {
            self.end = Some(end);
        }
        self.asleep = None;
        self.wakes += 1;
    }
}

proptest! {
    #[test]
    fn ring_behaves_as_the_model(
        batches in 2_usize..6,
        standing in 2_usize..7,
        room in 64_usize..400,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let (ring, latch) = ring_standing(batches, FRAME_HEADER_BYTES + room, 3, standing);
        let standing = standing.min(batches);
        let mut model = Model {
            room, free: batches, batches, standing, rested_ns: REST_NS, full: VecDeque::new(), open: None,
            next_seq: 3, end: None, asleep: None, wakes: 0,
        };
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::TryAppend(len) => {
                    let bytes = vec![len as u8; len];
                    let result = ring.try_append(&record(&bytes, len as u16, model.next_seq));
                    prop_assert_eq!(result, model.try_append(len));
                }
                Step::Take(partial) => {
                    model.asleep = None;
                    let expected = model.full.pop_front().or_else(|| {
                        model.open.take_if(|open| partial && !open.is_empty())
                    });
                    let batch = ring.take(partial);
                    prop_assert_eq!(batch.is_some(), expected.is_some());
                    let (Some(batch), Some(expected)) = (batch, expected) else { continue };
                    prop_assert_eq!(batch.first_seq, expected[0].0);
                    let found: Vec<_> = contents(&batch).into_iter()
                        .map(|(_, seq, bytes)| (seq, bytes.len() + RECORD_HEADER_BYTES)).collect();
                    prop_assert_eq!(found, expected);
                    held.push(batch);
                }
                Step::Recycle(index) if !held.is_empty() => {
                    ring.recycle(held.swap_remove(index % held.len()));
                    model.recycle();
                }
                Step::Recycle(_) => {}
                Step::PrepareSleep(any) => {
                    let on = if any { WakeOn::Record } else { WakeOn::FullBatch };
                    let work = model.has_work(any);
                    prop_assert_eq!(ring.prepare_sleep(on), !work);
                    model.asleep = (!work).then_some(any);
                }
                Step::Rest(ns) => {
                    ring.rest(ns);
                    model.rest(ns);
                }
                Step::RestBeside(ns) => {
                    ring.rest_beside(ns);
                    if model.full.is_empty() {
                        model.rest(ns);
                    }
                }
                Step::Close => {
                    ring.close();
                    model.end(AppendError::Closed);
                }
                Step::Poison => {
                    ring.poison("EIO".into());
                    model.end(AppendError::Poisoned("EIO".into()));
                }
            }
            let stats = ring.stats();
            let queued = || model.full.iter().chain(&model.open).flatten();
            prop_assert_eq!(stats.queued_records, queued().count() as u64);
            prop_assert_eq!(stats.queued_bytes, queued().map(|(_, len)| *len as u64).sum::<u64>());
            prop_assert_eq!(stats.batches_free, model.free);
            prop_assert_eq!(stats.batches_taken, held.len());
            prop_assert_eq!(stats.next_seq, model.next_seq);
            prop_assert_eq!(latch.wakes.load(Ordering::Relaxed), model.wakes);
        }
    }
}

#[test]
fn ring_limits_are_those_of_the_format() {
    let (ring, _) = ring(2, FRAME_BYTES_MAX, 0);
    let long = vec![1; RECORD_PAYLOAD_BYTES_MAX + 1];
    let too_long =
        AppendError::TooLong { len: RECORD_PAYLOAD_BYTES_MAX + 1, max: RECORD_PAYLOAD_BYTES_MAX };
    assert_eq!(ring.append(&record(&long, 0, 0)), Err(too_long));
    assert_eq!(ring.append(&record(&long[1..], 0, 0)), Ok(0));
    for seq in 1..=FRAME_RECORDS_MAX as u64 {
        assert_eq!(ring.append(&record(&[], 0, seq)), Ok(seq));
    }
    let batch = ring.take(false).expect("closed by the limit on records");
    assert_eq!(batch.count as usize, FRAME_RECORDS_MAX);
    let batch = ring.take(true).expect("the record after it");
    assert_eq!((batch.first_seq, batch.count), (FRAME_RECORDS_MAX as u64, 1));
}

/// A producer that never pauses fills the whole ring once; from then on it sinks as it is written, by a part of what is, to what
/// may stand. A burst after rest finds as much room as the rest pays for.
#[test]
fn ring_is_for_bursts_and_stands_no_higher_than_it_must() {
    const BATCHES: usize = 42;
    const STANDING: usize = 2;
    let len = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES;
    let (ring, _) = ring_standing(BATCHES, len, 0, STANDING);
    // One record fills a batch.
    let fill = || (0..).take_while(|_| ring.try_append(&record(&[], 0, 0)).is_ok()).count();
    let write_one = || {
        let batch = ring.take(true).expect("there is one");
        ring.recycle(batch);
    };
    let in_use = || BATCHES - ring.stats().batches_free;
    assert_eq!(fill(), BATCHES);
    let mut written = 0_usize;
    while in_use() > STANDING {
        write_one();
        written += 1;
        let before = in_use();
        assert!(fill() <= 1 && in_use() <= before + 1, "it never rises");
        assert!(written < 1000, "it does not sink");
    }
    let sunk_by = (BATCHES - STANDING) * 100 / (100 - KEPT_PERCENT as usize);
    assert!(written.abs_diff(sunk_by) <= 4, "{written} written until {sunk_by}");
    for _ in 0..100 {
        write_one();
        assert_eq!(fill(), 1);
        assert_eq!(in_use(), STANDING);
    }
    // A quarter of the rest for the whole ring, when it has been written.
    (0..STANDING).for_each(|_| write_one());
    ring.rest(REST_NS / 4);
    let quarter = STANDING + (BATCHES - STANDING) / 4;
    assert!((quarter..=quarter + 1).contains(&fill()), "what was left may pay for one more");
    while in_use() > 0 {
        write_one();
    }
    for _ in 0..3 {
        ring.rest(u64::MAX);
    }
    assert_eq!(fill(), BATCHES, "more rest than for the whole ring is no more room");
}

#[test]
fn ring_wait_is_visible_while_it_lasts() {
    let (ring, _) = ring(2, FRAME_HEADER_BYTES + RECORD_HEADER_BYTES, 0);
    assert_eq!(ring.append(&record(&[], 0, 0)), Ok(0));
    assert_eq!(ring.append(&record(&[], 0, 1)), Ok(1));
    assert_eq!(ring.try_append(&record(&[], 0, 2)), Err(AppendError::Full));
    let producer = {
        let ring = Arc::clone(&ring);
        std::thread::spawn(move || ring.append(&record(&[], 0, 2)))
    };
    while ring.stats().wait_ns_max < 1_000_000 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((ring.stats().producers_waiting, ring.stats().waits), (1, 1));
    let batch = ring.take(false).expect("full");
    assert_eq!(ring.stats().producers_waiting, 1, "a batch taken is not yet room");
    ring.recycle(batch);
    assert_eq!(producer.join().unwrap(), Ok(2));
    assert_eq!(ring.stats().producers_waiting, 0);
    let stats = ring.stats();
    assert!(stats.wait_ns_max >= 1_000_000);
    assert_eq!(stats.wait_ns_total, stats.wait_ns_max, "there was one wait");
}

#[test]
fn ring_knows_since_when_the_disk_owes_something() {
    let (ring, _) = ring(4, FRAME_HEADER_BYTES + 2 * RECORD_HEADER_BYTES, 10);
    assert_eq!((ring.taken_ns_from(0), ring.stats().batches_used_max), (None, 0));
    let at = |boottime_ns| Record { boottime_ns, ..record(&[], 0, 0) };
    // Two records a batch: 10 and 11, 12 and 13, 14.
    for boottime_ns in [100, 110, 120, 130, 140] {
        ring.append(&at(boottime_ns)).unwrap();
    }
    assert_eq!(ring.taken_ns_from(10), Some(100));
    // Durable, and not given back yet: the batch is not owed any more.
    assert_eq!(ring.taken_ns_from(12), Some(120));
    let (first, second) = (ring.take(false).unwrap(), ring.take(false).unwrap());
    assert_eq!(ring.taken_ns_from(10), Some(100), "taken is not durable");
    ring.recycle(second);
    assert_eq!(ring.taken_ns_from(10), Some(100));
    assert_eq!(ring.taken_ns_from(12), Some(140));
    ring.recycle(first);
    ring.recycle(ring.take(true).unwrap());
    assert_eq!((ring.taken_ns_from(0), ring.stats().batches_used_max), (None, 3));
    ring.append(&at(150)).unwrap();
    assert_eq!((ring.taken_ns_from(15), ring.stats().batches_used_max), (Some(150), 3));
}

/// Real threads: records of many lengths through few small batches. Returns the wake-ups.
fn stress(producers: u16, records: u64, batches: usize, len: usize) -> usize {
    let (ring, latch) = ring(batches, len, 0);
    let threads: Vec<_> = (0..producers)
        .map(|producer| {
            let ring = Arc::clone(&ring);
            std::thread::spawn(move || {
                let bytes = [producer as u8; 512];
                for source_seq in 0..records {
                    let len = (source_seq * 37 + u64::from(producer) * 101) as usize % 512;
                    ring.append(&record(&bytes[..len], producer, source_seq)).unwrap();
                }
            })
        })
        .collect();
    let mut next = vec![0; usize::from(producers)];
    let (mut seq, mut held) = (0, VecDeque::new());
    while seq < u64::from(producers) * records {
        match ring.take(held.is_empty()) {
            Some(batch) => {
                assert_eq!(batch.first_seq, seq);
                for (kind, source_seq, _) in contents(&batch) {
                    assert_eq!(source_seq, next[usize::from(kind)], "order of one producer");
                    next[usize::from(kind)] += 1;
                    seq += 1;
                }
                held.push_back(batch);
            }
            None if held.is_empty() => {
                if ring.prepare_sleep(WakeOn::Record) {
                    latch.sleep();
                }
            }
            None => ring.recycle(held.pop_front().expect("not empty")),
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    latch.wakes.load(Ordering::Relaxed)
}

#[test]
fn ring_stress_many_producers_small_batches() {
    stress(16, 2_000, 3, FRAME_HEADER_BYTES + 1024);
}

#[test]
fn ring_stress_few_producers_frames_of_full_length() {
    stress(3, 30_000, 4, FRAME_BYTES_MAX);
}

#[test]
fn ring_costs_a_busy_engine_no_wake_ups() {
    let (ring, latch) = ring(2, FRAME_BYTES_MAX, 0);
    for seq in 0..1000 {
        ring.append(&record(&[], 0, seq)).unwrap();
    }
    assert_eq!(latch.wakes.load(Ordering::Relaxed), 0, "nobody sleeps");
    assert!(!ring.prepare_sleep(WakeOn::Record), "there is work");
    assert!(ring.prepare_sleep(WakeOn::FullBatch));
    for seq in 1000..FRAME_RECORDS_MAX as u64 {
        ring.append(&record(&[], 0, seq)).unwrap();
    }
    assert_eq!(latch.wakes.load(Ordering::Relaxed), 0, "no batch is full");
    for seq in 0..10 {
        ring.append(&record(&[], 0, FRAME_RECORDS_MAX as u64 + seq)).unwrap();
    }
    assert_eq!(latch.wakes.load(Ordering::Relaxed), 1, "once for the full batch");
}
