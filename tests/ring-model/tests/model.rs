//! Schedules of producers, engine, close and poison, explored by shuttle at random and by PCT.
//!
//! Shuttle reports a deadlock when every thread sleeps, so a lost wake-up fails these tests
//! without any timeout. The buffers are tiny (a few records each) to make "full" the usual state.

use graven_format::consts::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use graven_format::{Flags, Record, Source};
use graven_writer::disk::Wake;
use graven_writer::source::AppendError;
use ring_model::{Batch, Ring, WakeOn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Config, Runner, thread};
use std::sync::Arc;

type Buffer = Vec<u8>;

const FIRST_SEQ: u64 = 7;
const PAYLOAD_BYTES_MAX: usize = 24;

/// What checkpoints have in the place of a producer.
const CHECKPOINT: u16 = 99;

/// The disk's waker as its contract says: it ends the sleep under way, or the next.
#[derive(Default)]
struct Latch {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Latch {
    fn wake(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Latch {
    fn sleep(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

/// A ring of `batches` buffers with room for `room` bytes of records each.
fn ring(batches: usize, room: usize) -> (Arc<Ring<Buffer>>, Arc<Latch>) {
    let latch = Arc::new(Latch::default());
    let buffers = vec![vec![0; FRAME_HEADER_BYTES + room]; batches];
    (Arc::new(Ring::new(buffers, FIRST_SEQ, Arc::clone(&latch) as Arc<dyn Wake>)), latch)
}

/// Room for two records of the longest kind, or for more that are shorter.
const ROOM: usize = 2 * (RECORD_HEADER_BYTES + PAYLOAD_BYTES_MAX);

/// Room for more short records than may pass a producer that waits.
const ROOM_TO_PASS: usize = 8 * RECORD_HEADER_BYTES;

/// Appends `records` records whose kind is the producer and whose source sequence counts from
/// 0. Returns the sequences of those that were accepted, and why it ended early.
fn produce(
    ring: &Ring<Buffer>,
    producer: u16,
    records: u64,
) -> (Vec<(u64, u64)>, Option<AppendError>) {
    let mut accepted = Vec::new();
    let bytes = [producer as u8; PAYLOAD_BYTES_MAX];
    for source_seq in 0..records {
        let len = thread_rng().gen_range(0..=PAYLOAD_BYTES_MAX);
        let record = Record {
            source: Source::Socket,
            kind: producer,
            flags: Flags::NONE,
            realtime_ns: 1,
            boottime_ns: 2,
            source_seq,
            bytes: &bytes[..len],
        };
        let result = match thread_rng().gen_range(0..4) {
            0 => match ring.try_append(&record) {
                // Full has taken nothing: the same record goes in again and must come out once.
                Err(AppendError::Full) => ring.append(&record),
                other => other,
            },
            _ => ring.append(&record),
        };
        match result {
            Ok(seq) => accepted.push((seq, source_seq)),
            Err(why) => return (accepted, Some(why)),
        }
    }
    (accepted, None)
}

/// An engine that sees what it takes, and gives batches back late and in any order.
#[derive(Default)]
struct Engine {
    held: Vec<Batch<Buffer>>,
    /// (seq, producer, source sequence), in the order taken.
    seen: Vec<(u64, u16, u64)>,
    /// Seqs that were kept for checkpoints.
    checkpoints: Vec<u64>,
}

impl Engine {
    fn look_at(&mut self, mut batch: Batch<Buffer>) {
        assert!(!batch.is_empty(), "an empty batch is not work");
        if batch.checkpoint {
            let bytes = [CHECKPOINT as u8; PAYLOAD_BYTES_MAX];
            let (kind, source_seq) = (CHECKPOINT, self.checkpoints.len() as u64);
            let record = Record { kind, source_seq, ..plain(&bytes) };
            self.checkpoints.push(batch.push_checkpoint(&record));
        }
        let (mut rest, mut seq) = (batch.records(), batch.first_seq);
        while !rest.is_empty() {
            let (record, behind) = Record::decode(rest).expect("what was put in");
            assert!(record.bytes.iter().all(|&byte| byte == record.kind as u8));
            self.seen.push((seq, record.kind, record.source_seq));
            (rest, seq) = (behind, seq + 1);
        }
        assert_eq!(seq, batch.first_seq + u64::from(batch.count));
        self.held.push(batch);
    }

    fn give_back_one(&mut self, ring: &Ring<Buffer>) {
        let index = thread_rng().gen_range(0..self.held.len());
        ring.recycle(self.held.swap_remove(index));
    }

    /// One turn as the real engine takes it: with writes in flight it takes full batches and
    /// sleeps for those; with none, anything. Sleeps only when nothing is in flight, because
    /// here no disk would end that sleep.
    fn turn(&mut self, ring: &Ring<Buffer>, latch: &Latch) {
        let idle = self.held.is_empty();
        let partial = idle || thread_rng().gen_range(0..4) == 0;
        if let Some(batch) = ring.take(partial) {
            self.look_at(batch);
            if thread_rng().gen_range(0..2) == 0 {
                return;
            }
        }
        if !self.held.is_empty() {
            self.give_back_one(ring);
        } else if ring.prepare_sleep(WakeOn::Record) {
            latch.sleep();
        }
    }

    /// Takes what is left once no producer can append.
    fn drain(&mut self, ring: &Ring<Buffer>) {
        while let Some(batch) = ring.take(true) {
            self.look_at(batch);
        }
        while !self.held.is_empty() {
            self.give_back_one(ring);
        }
        let stats = ring.stats();
        assert_eq!((stats.queued_records, stats.producers_waiting, stats.batches_taken), (0, 0, 0));
    }

    /// What was accepted came out once, dense, with the `seq` that each producer was told, and
    /// in each producer's order.
    fn check(&self, accepted: &[(u16, Vec<(u64, u64)>)]) {
        for (index, &(seq, ..)) in self.seen.iter().enumerate() {
            assert_eq!(seq, FIRST_SEQ + index as u64, "dense and in order");
        }
        let total: usize = accepted.iter().map(|(_, list)| list.len()).sum();
        assert_eq!(
            self.seen.len(),
            total + self.checkpoints.len(),
            "each accepted record once, no other"
        );
        for (producer, list) in accepted {
            let seen = self.seen.iter().filter(|(_, kind, _)| kind == producer);
            let seen: Vec<_> = seen.map(|&(seq, _, source_seq)| (seq, source_seq)).collect();
            assert_eq!(&seen, list, "producer {producer}");
        }
    }
}

type Produced = (Vec<(u64, u64)>, Option<AppendError>);

fn spawn(
    ring: &Arc<Ring<Buffer>>,
    producers: u16,
    records: u64,
) -> Vec<(u16, thread::JoinHandle<Produced>)> {
    let start = |producer| {
        let ring = Arc::clone(ring);
        (producer, thread::spawn(move || produce(&ring, producer, records)))
    };
    (0..producers).map(start).collect()
}

/// Explores `body` at random, then by PCT, which finds bugs of few ordered steps more surely.
fn explore(iterations: usize, body: impl Fn() + Send + Sync + Copy + 'static) {
    run(RandomScheduler::new(iterations), body);
    run(PctScheduler::new(3, iterations), body);
}

fn run(scheduler: impl Scheduler + 'static, body: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 0x20000;
    Runner::new(scheduler, config).run(body);
}

/// Producers and engine until every record is through: nobody waits for ever, nothing is lost.
fn all_through(batches: usize, producers: u16, records: u64) {
    through(ring(batches, ROOM), producers, records);
}

fn through((ring, latch): (Arc<Ring<Buffer>>, Arc<Latch>), producers: u16, records: u64) {
    let threads = spawn(&ring, producers, records);
    let mut engine = Engine::default();
    while (engine.seen.len() as u64) < u64::from(producers) * records {
        engine.turn(&ring, &latch);
    }
    let mut accepted = Vec::new();
    for (producer, thread) in threads {
        let (list, why) = thread.join().unwrap();
        assert_eq!(why, None);
        accepted.push((producer, list));
    }
    engine.drain(&ring);
    engine.check(&accepted);
}

#[test]
fn every_accepted_record_is_taken_once_and_in_order() {
    explore(6000, || all_through(2, 3, 4));
}

#[test]
fn blocked_producers_of_a_larger_crowd_get_room() {
    explore(2000, || all_through(3, 6, 3));
}

/// A ring in which the burst is over: two batches may stand, of the two others one can be paid at a time, when the
/// device has rested.
#[test]
fn producers_behind_a_burst_that_is_over_get_room() {
    explore(4000, || {
        let latch = Arc::new(Latch::default());
        let buffers = vec![vec![0; FRAME_HEADER_BYTES + ROOM]; 4];
        let ring = Ring::new(buffers, FIRST_SEQ, Arc::clone(&latch) as Arc<dyn Wake>);
        let ring = Arc::new(ring.with_standing(2));
        let resting = {
            let ring = Arc::clone(&ring);
            // Whenever it comes, room that it makes is somebody's.
            thread::spawn(move || ring.rest(500_000_000))
        };
        through((ring, latch), 3, 5);
        resting.join().unwrap();
    });
}

/// A ring with room for checkpoints beside the records.
fn ring_with_checkpoints(batches: usize) -> (Arc<Ring<Buffer>>, Arc<Latch>) {
    let latch = Arc::new(Latch::default());
    let reserve = RECORD_HEADER_BYTES + PAYLOAD_BYTES_MAX;
    let buffers = vec![vec![0; FRAME_HEADER_BYTES + ROOM + reserve]; batches];
    let ring = Ring::new(buffers, FIRST_SEQ, Arc::clone(&latch) as Arc<dyn Wake>);
    (Arc::new(ring.with_checkpoints(reserve)), latch)
}

/// Each checkpoint that is asked for gets a seq that covers all that was accepted before it was, or
/// there is one already, whatever the producers do, and also if they have nothing more; no seq is
/// kept twice, and no wake-up is lost on the way.
#[test]
fn a_checkpoint_that_was_asked_for_covers_what_was_accepted() {
    explore(6000, || {
        const ASKED: u64 = 3;
        let (ring, latch) = ring_with_checkpoints(2);
        let threads = spawn(&ring, 2, 3);
        let asker = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let before = ring.stats().next_seq;
                let sizes: Vec<u64> = (0..ASKED).map(|_| ring.cover()).collect();
                assert!(sizes[0] + 1 >= before && sizes.is_sorted(), "{before}, {sizes:?}");
                sizes
            })
        };
        let mut engine = Engine::default();
        while engine.seen.len() - engine.checkpoints.len() < 6 {
            engine.turn(&ring, &latch);
        }
        let accepted: Vec<_> =
            threads.into_iter().map(|(p, thread)| (p, thread.join().unwrap().0)).collect();
        let sizes = asker.join().unwrap();
        // The engine sleeps as the real one does: what is asked for must wake it.
        let last = sizes.last().copied().unwrap_or(0);
        while engine.checkpoints.iter().all(|seq| *seq < last) {
            engine.turn(&ring, &latch);
        }
        engine.drain(&ring);
        engine.check(&accepted);
        assert!(engine.checkpoints.len() as u64 <= ASKED, "{:?}", engine.checkpoints);
        for size in sizes {
            assert!(engine.checkpoints.iter().any(|seq| *seq >= size), "{size}");
        }
    });
}

/// Takes full batches only, and sleeps for those, until `batches` are seen. It gives a batch
/// back once it has the next, as if the write of one ended while the other is formed; so a
/// producer that blocks must hand over the batch that it closes, or both sleep for ever.
fn take_full_batches(ring: &Ring<Buffer>, latch: &Latch, batches: usize) -> Engine {
    let mut engine = Engine::default();
    for _ in 0..batches {
        loop {
            if let Some(batch) = ring.take(false) {
                engine.look_at(batch);
                break;
            }
            if ring.prepare_sleep(WakeOn::FullBatch) {
                latch.sleep();
            }
        }
        if engine.held.len() == 2 {
            engine.give_back_one(ring);
        }
    }
    engine
}

#[test]
fn an_engine_that_sleeps_for_full_batches_is_woken() {
    explore(6000, || {
        let (ring, latch) = ring(2, ROOM);
        let threads = spawn(&ring, 4, 3);
        // A batch has room for three records at most, so the tenth of twelve closes the third.
        let mut engine = take_full_batches(&ring, &latch, 3);
        while engine.seen.len() < 12 {
            engine.turn(&ring, &latch);
        }
        let produced: Vec<_> =
            threads.into_iter().map(|(p, thread)| (p, thread.join().unwrap().0)).collect();
        engine.drain(&ring);
        engine.check(&produced);
    });
}

/// A producer that never waits also closes a batch when it is told "full", and the engine must
/// hear of it.
#[test]
fn the_answer_full_wakes_an_engine_that_sleeps_for_full_batches() {
    let body = || {
        let (ring, latch) = ring(2, ROOM);
        let producer = {
            let ring = Arc::clone(&ring);
            let bytes = [0; PAYLOAD_BYTES_MAX];
            thread::spawn(move || {
                for _ in 0..7 {
                    while ring.try_append(&plain(&bytes)) == Err(AppendError::Full) {
                        thread::yield_now();
                    }
                }
            })
        };
        let mut engine = take_full_batches(&ring, &latch, 3);
        while engine.seen.len() < 7 {
            engine.turn(&ring, &latch);
        }
        producer.join().unwrap();
    };
    // Not by PCT: it may let the loop of the producer run for ever.
    run(RandomScheduler::new(5000), body);
}

/// The ring ends at any moment, with producers blocked: each of them returns with the reason,
/// what they were told is accepted comes out, and what was refused does not.
fn ends(poison: bool) {
    let (ring, latch) = ring(2, ROOM);
    let threads = spawn(&ring, 4, 4);
    let ender = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || if poison { ring.poison("EIO".into()) } else { ring.close() })
    };
    let mut engine = Engine::default();
    for _ in 0..thread_rng().gen_range(0..4) {
        if !ring.is_closed() {
            engine.turn(&ring, &latch);
        }
    }
    ender.join().unwrap();
    let expected = if poison { AppendError::Poisoned("EIO".into()) } else { AppendError::Closed };
    let mut accepted = Vec::new();
    for (producer, thread) in threads {
        let (list, why) = thread.join().unwrap();
        assert!(why.is_none() || why.as_ref() == Some(&expected), "{why:?}");
        assert_eq!(why.is_none(), list.len() == 4);
        accepted.push((producer, list));
    }
    engine.drain(&ring);
    engine.check(&accepted);
}

#[test]
fn close_ends_every_wait_and_keeps_what_was_accepted() {
    explore(6000, || ends(false));
}

#[test]
fn poison_ends_every_wait_with_its_reason() {
    explore(6000, || ends(true));
}

/// Appends `records` records in groups. Returns how many were in groups that were accepted whole,
/// and why it ended early.
fn produce_groups(ring: &Ring<Buffer>, producer: u16, records: u64) -> (u64, Option<AppendError>) {
    let bytes = [producer as u8; PAYLOAD_BYTES_MAX];
    let all: Vec<_> = (0..records)
        .map(|source_seq| {
            let len = thread_rng().gen_range(0..=PAYLOAD_BYTES_MAX);
            Record { kind: producer, source_seq, ..plain(&bytes[..len]) }
        })
        .collect();
    let (mut accepted, mut rest) = (0, &all[..]);
    while !rest.is_empty() {
        let (group, behind) = rest.split_at(thread_rng().gen_range(1..=rest.len()));
        if let Err(why) = ring.append_all(group) {
            return (accepted, Some(why));
        }
        (accepted, rest) = (accepted + group.len() as u64, behind);
    }
    (accepted, None)
}

/// Groups beside single records, to the end or until the ring is closed: each producer's records
/// come out from its first on, in order and once, and at least those of accepted groups.
fn groups(closes: bool) {
    const RECORDS: u64 = 5;
    let (ring, latch) = ring(2, ROOM);
    let threads: Vec<_> = (0..3)
        .map(|producer| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || match producer {
                0 => {
                    let (list, why) = produce(&ring, producer, RECORDS);
                    (list.len() as u64, why)
                }
                _ => produce_groups(&ring, producer, RECORDS),
            })
        })
        .collect();
    let mut engine = Engine::default();
    if closes {
        for _ in 0..thread_rng().gen_range(0..4) {
            engine.turn(&ring, &latch);
        }
        ring.close();
    } else {
        while (engine.seen.len() as u64) < 3 * RECORDS {
            engine.turn(&ring, &latch);
        }
    }
    let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    engine.drain(&ring);
    for (producer, (accepted, why)) in ended.into_iter().enumerate() {
        let seen = engine.seen.iter().filter(|(_, kind, _)| usize::from(*kind) == producer);
        let seen: Vec<_> = seen.map(|&(_, _, source_seq)| source_seq).collect();
        let taken = seen.len() as u64;
        assert_eq!(seen, (0..taken).collect::<Vec<_>>(), "producer {producer}");
        assert!(taken >= accepted && taken <= RECORDS, "producer {producer}");
        assert_eq!(why.is_none(), accepted == RECORDS);
        assert!(why.is_none() || closes && why == Some(AppendError::Closed), "{why:?}");
    }
}

#[test]
fn groups_of_records_stay_whole_and_in_order() {
    explore(6000, || groups(false));
}

#[test]
fn groups_that_the_end_cuts_lose_nothing_from_their_middle() {
    explore(6000, || groups(true));
}

/// An engine that sleeps for full batches hears of a batch that a group has closed on its way.
#[test]
fn a_group_wakes_an_engine_that_sleeps_for_full_batches() {
    explore(3000, || {
        let (ring, latch) = ring(2, ROOM);
        let producer = {
            let ring = Arc::clone(&ring);
            let bytes = [0; PAYLOAD_BYTES_MAX];
            thread::spawn(move || ring.append_all(&[plain(&bytes); 7]))
        };
        let mut engine = take_full_batches(&ring, &latch, 3);
        while engine.seen.len() < 7 {
            engine.turn(&ring, &latch);
        }
        assert_eq!(producer.join().unwrap(), Ok(()));
    });
}

/// A sleeping engine hears of the end, whatever it sleeps for.
#[test]
fn close_wakes_a_sleeping_engine() {
    explore(3000, || {
        let (ring, latch) = ring(2, ROOM);
        let closer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.close())
        };
        while !ring.is_closed() {
            if ring.prepare_sleep(WakeOn::FullBatch) {
                latch.sleep();
            }
        }
        closer.join().unwrap();
    });
}

/// A record of `bytes` that no test looks at again.
fn plain(bytes: &[u8]) -> Record<'_> {
    Record {
        source: Source::Socket,
        kind: 0,
        flags: Flags::NONE,
        realtime_ns: 1,
        boottime_ns: 2,
        source_seq: 0,
        bytes,
    }
}

/// Fills a ring of two batches of `room` bytes and lets one more producer block with `payload` bytes. Returns
/// when it waits.
fn full_ring_with_a_waiter(
    room: usize,
    payload: usize,
) -> (Arc<Ring<Buffer>>, thread::JoinHandle<Result<u64, AppendError>>) {
    let (ring, _) = ring(2, room);
    let whole = vec![0; room - RECORD_HEADER_BYTES];
    for _ in 0..2 {
        ring.append(&plain(&whole)).unwrap();
    }
    let waiter = {
        let (ring, whole) = (Arc::clone(&ring), whole[..payload].to_vec());
        thread::spawn(move || ring.append(&plain(&whole)))
    };
    while ring.stats().producers_waiting == 0 {
        thread::yield_now();
    }
    (ring, waiter)
}

/// A record that needs a whole batch is not starved by short ones: the room that comes back is
/// kept for it, however late it runs and however eagerly others try.
#[test]
fn room_that_comes_back_belongs_to_whoever_waited() {
    let body = || {
        let (ring, waiter) = full_ring_with_a_waiter(ROOM, ROOM - RECORD_HEADER_BYTES);
        ring.recycle(ring.take(false).expect("full"));
        for _ in 0..3 {
            assert_eq!(ring.try_append(&plain(&[])), Err(AppendError::Full));
        }
        assert_eq!(waiter.join().unwrap(), Ok(FIRST_SEQ + 2));
    };
    // Not by PCT: it may let the loop of the set-up run for ever.
    run(RandomScheduler::new(5000), body);
}

/// Newcomers may pass a woken producer while there is room for both, but only so often: the
/// engine could take the batch away each time, and then it would wait for ever.
#[test]
fn those_who_pass_are_counted() {
    let body = || {
        let (ring, waiter) = full_ring_with_a_waiter(ROOM_TO_PASS, 0);
        ring.recycle(ring.take(false).expect("full"));
        let mut passed = 0;
        while ring.try_append(&plain(&[])).is_ok() {
            passed += 1;
        }
        // Only if it still waits have they passed it; else they came after it.
        assert!(ring.stats().producers_waiting == 0 || passed <= ring_model::PASSES_MAX);
        assert!(waiter.join().unwrap().is_ok());
    };
    run(RandomScheduler::new(30_000), body);
}
