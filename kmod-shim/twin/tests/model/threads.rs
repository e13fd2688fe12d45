//! Tasks that are threads, and a reader that is one, with nothing between them but the core: what a model of one step after
//! the other cannot see.

use fastrand::Rng;
use graven_shim_abi::decode::{Body, PartView, parse};
use graven_shim_abi::{
    Call, ITEM_SOCKADDR, PART_CUT, PART_LAST, PART_NO_RETURN, PART_ORPHAN, PART_PAD, Part,
};
use graven_shim_twin::{NoReader, Reader, Task, Twin, Verdict};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PART_BYTES: u32 = 1024;
/// The least, so that there often is no room.
const SLOTS: u32 = 16;
const ITEM_BYTES: usize = 300;
/// Enough, however slow the machine is.
const LONGEST: Duration = Duration::from_secs(60);
/// Without a record for so long, something is lost that others wait for: what it is, the checks say.
const STUCK: Duration = Duration::from_secs(5);

struct World {
    twin: Twin,
    rings: u32,
    /// A task is killed in one of so many moments in which it can be.
    killed_in: u32,
    stop: AtomicBool,
    /// 0 while somebody reads.
    absent_ms: AtomicU32,
    busy: AtomicUsize,
    passed: AtomicU64,
}

/// What a call's record says, for whoever knows who made it.
fn item_of(task: u64, n: u64, index: u32) -> Vec<u8> {
    let mut rng = Rng::with_seed(task << 40 ^ n << 8 ^ u64::from(index));
    let mut bytes = vec![0; rng.usize(..ITEM_BYTES)];
    rng.fill(&mut bytes);
    bytes
}

fn items_of(n: u64) -> u32 {
    (n % 7) as u32
}

/// One less is busy when it is dropped, be it by a failure.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A task's life: its records, each with how many of its items were made before it was killed.
struct Life<'a> {
    world: &'a World,
    rng: Rng,
    id: u64,
    task: Task,
    made: HashMap<u64, u32>,
}

impl Life<'_> {
    fn killed(&mut self) -> bool {
        self.rng.u32(..self.world.killed_in) == 0
    }

    fn wait(&mut self) {
        thread::sleep(Duration::from_micros(self.rng.u64(..200)));
    }

    /// The record goes to the orphans, and the task is another one from here on.
    fn give_up(&mut self, flags: u16) {
        self.task.orphan(self.rng.u32(..), flags);
        self.task = self.world.twin.task();
    }

    /// False: it was killed, or may not wait.
    fn push(&mut self, flags: u16) -> bool {
        loop {
            if self.task.push(self.rng.u32(..), flags) {
                return true;
            }
            let absent_ms = self.world.absent_ms.load(Ordering::Acquire);
            if self.world.twin.full(absent_ms) == Verdict::Pass || self.killed() {
                self.give_up(if flags == 0 { PART_CUT } else { 0 });
                return false;
            }
            self.wait();
        }
    }

    fn record(&mut self, n: u64) -> u32 {
        self.task.begin(&Call { args: [self.id, n, 0, 0, 0, 0], ..Call::default() });
        if self.killed() {
            self.task.number();
            self.give_up(PART_NO_RETURN | PART_CUT);
            return 0;
        }
        self.task.number();
        for index in 0..items_of(n) {
            let bytes = item_of(self.id, n, index);
            if !self.task.item(ITEM_SOCKADDR, 0, 0, index, &bytes) {
                if !self.push(0) {
                    return index;
                }
                assert!(
                    self.task.item(ITEM_SOCKADDR, 0, 0, index, &bytes),
                    "an empty part has room"
                );
            }
        }
        self.push(PART_LAST);
        items_of(n)
    }

    fn live(mut self) -> HashMap<u64, u32> {
        let _busy = Busy(&self.world.busy);
        let mut n = 0;
        while !self.world.stop.load(Ordering::Acquire) {
            let absent_ms = self.world.absent_ms.load(Ordering::Acquire);
            match self.task.enter(self.rng.u32(..), absent_ms) {
                Verdict::Go => {
                    let made = self.record(n);
                    self.made.insert(n, made);
                    n += 1;
                }
                Verdict::Pass => {
                    self.task.pass(n);
                    self.world.passed.fetch_add(1, Ordering::Relaxed);
                    self.wait();
                }
                Verdict::Wait => self.wait(),
                Verdict::Panic => panic!("that policy was never set"),
            }
        }
        self.made
    }
}

/// Parts in the order in which each ring has them.
type Durable = BTreeMap<(u32, u64), Vec<u8>>;

struct Reading<'a> {
    world: &'a World,
    memory: Reader,
    rng: Rng,
    durable: Durable,
}

impl Reading<'_> {
    /// What is there; some of it, or all, becomes durable. Whether there was any.
    fn ring(&mut self, ring: u32, all: bool) -> bool {
        let (from, head) = (self.memory.tail(ring), self.memory.head(ring));
        let mut taken = Vec::new();
        let mut at = from;
        while at < head && (all || self.rng.u8(..40) > 0) {
            let (bytes, slots) =
                self.memory.part(ring, at).expect("what lies before the head is whole");
            at += slots;
            taken.push(bytes);
        }
        assert!(at <= head, "a part goes past the head");
        if self.rng.u8(..4) == 0 {
            thread::sleep(Duration::from_micros(self.rng.u64(..300)));
        }
        let mut again = from;
        for bytes in &taken {
            let (now, slots) = self.memory.part(ring, again).expect("it was whole before");
            assert_eq!(now, *bytes, "I6: overwritten before the tail passed it");
            again += slots;
        }
        for bytes in taken.into_iter().filter(|bytes| Part::read(bytes).unwrap().kind != PART_PAD) {
            let header = Part::read(&bytes).unwrap();
            assert_eq!(header.ring, ring);
            let before = self.durable.insert((ring, header.ring_seq), bytes.clone());
            assert!(before.is_none_or(|before| before == bytes), "one part for each name");
        }
        // Killed before it said so: it reads that once more.
        if at > from && (all || self.rng.u8(..20) > 0) {
            self.memory.set_tail(ring, at);
            self.world.twin.drain(ring);
        }
        at > from
    }

    fn live(mut self) -> Durable {
        while self.world.busy.load(Ordering::Acquire) > 0 {
            for ring in 0..self.world.rings {
                self.ring(ring, false);
            }
            if self.rng.u8(..50) == 0 && !self.world.stop.load(Ordering::Acquire) {
                self.world.absent_ms.store(1, Ordering::Release);
                thread::sleep(Duration::from_millis(self.rng.u64(..15)));
                self.world.absent_ms.store(20, Ordering::Release);
                thread::sleep(Duration::from_millis(self.rng.u64(..15)));
                self.world.absent_ms.store(0, Ordering::Release);
                let policy = if self.rng.bool() { NoReader::Pass } else { NoReader::Block };
                self.world.twin.set_policy(policy, 10);
            }
        }
        // A gap may be the last thing that happened.
        self.world.twin.drain(0);
        while (0..self.world.rings).any(|ring| self.ring(ring, true)) {}
        self.durable
    }
}

fn check_record(order: u64, parts: &mut [PartView<'_>], lives: &mut [HashMap<u64, u32>]) {
    parts.sort_by_key(|part| part.header.part);
    assert!(
        parts.iter().map(|part| part.header.part).eq(0..parts.len() as u32),
        "parts of {order}"
    );
    let last = parts.iter().position(PartView::is_last);
    assert_eq!(last, Some(parts.len() - 1), "LAST of {order}");
    let [task, n, ..] = parts[0].call().expect("a record begins with a call").args;
    let made = lives[task as usize].remove(&n).expect("I3: a record that was made, once");
    let mut index = 0;
    for item in parts.iter().flat_map(PartView::items) {
        assert_eq!(item.bytes, item_of(task, n, index), "item {index} of {n} of task {task}");
        index += 1;
    }
    assert_eq!(index, made, "items of {n} of task {task}");
    let cut = parts.iter().any(|part| part.has(PART_CUT));
    assert!(made == items_of(n) || cut, "what is cut says so");
    assert!(!cut || parts.iter().any(|part| part.has(PART_ORPHAN)), "who is cut is an orphan");
}

fn check(world: &World, durable: &Durable, mut lives: Vec<HashMap<u64, u32>>) {
    let status = world.twin.status();
    let made: usize = lives.iter().map(HashMap::len).sum();
    assert_eq!((status.order_next, status.orphans), (made as u64, 0), "a number for each record");
    let (mut records, mut next, mut passed) = (BTreeMap::<u64, Vec<_>>::new(), BTreeMap::new(), 0);
    for ((ring, ring_seq), bytes) in durable {
        let dense = next.entry(*ring).or_insert(0);
        assert_eq!(ring_seq, dense, "ring_seq of ring {ring} is dense");
        *dense += 1;
        let part = parse(bytes).expect("a part that can be decoded");
        match part.body {
            Body::Gap(gap) => passed += gap.count,
            _ => records.entry(part.header.order).or_default().push(part),
        }
    }
    assert!(records.keys().copied().eq(0..status.order_next), "order is dense");
    assert!(status.order_next > 1000, "something happened");
    for (order, parts) in &mut records {
        check_record(*order, parts, &mut lives);
    }
    assert!(lives.iter().all(HashMap::is_empty), "I3: records that did not arrive");
    assert_eq!(passed, world.passed.load(Ordering::Relaxed), "every call that passed is in a gap");
    assert_eq!(status.passed, passed);
    assert_eq!(status.tasks, 0, "every buffer was freed");
}

#[test]
fn threads_lose_nothing() {
    storm(3, 6, 600, super::number_from("GRAVEN_TWIN_RECORDS").unwrap_or(60_000));
}

/// Nobody else pushes, which would have the reader come for it.
#[test]
fn one_task_alone_is_never_forgotten() {
    storm(1, 1, 60, super::number_from("GRAVEN_TWIN_RECORDS").unwrap_or(60_000) / 4);
}

fn storm(rings: u32, task_count: u64, killed_in: u32, records: u64) {
    let world = World {
        twin: Twin::new(rings, SLOTS, PART_BYTES).unwrap(),
        rings,
        killed_in,
        stop: AtomicBool::new(false),
        absent_ms: AtomicU32::new(0),
        busy: AtomicUsize::new(task_count as usize),
        passed: AtomicU64::new(0),
    };
    let (durable, lives) = thread::scope(|scope| {
        let memory = Reader::map(&world.twin.memory().unwrap()).unwrap();
        let reading = Reading { world: &world, memory, rng: Rng::new(), durable: Durable::new() };
        let reader = scope.spawn(|| reading.live());
        let tasks: Vec<_> = (0..task_count)
            .map(|id| {
                let (rng, task, made) = (Rng::new(), world.twin.task(), HashMap::new());
                let life = Life { world: &world, rng, id, task, made };
                scope.spawn(|| life.live())
            })
            .collect();
        let (end, mut grew, mut before) = (Instant::now() + LONGEST, Instant::now(), 0);
        while Instant::now() < end
            && !reader.is_finished()
            && grew.elapsed() < STUCK
            && before < records
        {
            thread::sleep(Duration::from_millis(10));
            let now = world.twin.status().order_next;
            if now > before {
                (grew, before) = (Instant::now(), now);
            }
        }
        // Else a record waits that nobody comes for, or the gate is shut for ever.
        let stuck = grew.elapsed() >= STUCK;
        world.stop.store(true, Ordering::Release);
        let lives: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
        let durable = reader.join().unwrap();
        assert!(!stuck, "no record for {STUCK:?} though there was a reader");
        (durable, lives)
    });
    let status = world.twin.status();
    println!(
        "{} records, {} calls passed, {} parts",
        status.order_next,
        status.passed,
        durable.len()
    );
    check(&world, &durable, lives);
}
