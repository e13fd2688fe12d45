//! One round: a geometry, tasks, a reader, and how often what happens, all by chance.

use crate::reader::SimReader;
use crate::rings::{Expected, Model};
use crate::task::{Around, Sim, random_hint};
use fastrand::Rng;
use graven_shim_abi::{
    NO_READER_BLOCK, NO_READER_PANIC, NO_READER_PASS, Producer, SLOT_BYTES, STATE_PASSING,
};
use graven_shim_twin::{NoReader, Twin, Verdict};
use std::collections::BTreeMap;

/// How often what happened, so that a test can tell that it did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    records: u64,
    orphans: u64,
    passed: u64,
    bad_tails: u64,
    kills: u64,
    reader_deaths: u64,
    /// Tails that a reader found impossible, and put right.
    put_right: u64,
    full_rings: u64,
    /// Records of more than one part.
    in_parts: u64,
    pads: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.orphans += other.orphans;
        self.passed += other.passed;
        self.bad_tails += other.bad_tails;
        self.kills += other.kills;
        self.reader_deaths += other.reader_deaths;
        self.put_right += other.put_right;
        self.full_rings += other.full_rings;
        self.in_parts += other.in_parts;
        self.pads += other.pads;
    }

    pub(crate) fn assert_all(&self) {
        let Self { records, orphans, passed, bad_tails, kills, reader_deaths, .. } = *self;
        let Self { put_right, full_rings, in_parts, pads, .. } = *self;
        let all = [records, orphans, passed, bad_tails, kills, reader_deaths];
        for count in all.into_iter().chain([put_right, full_rings, in_parts, pads]) {
            assert!(count > 100, "too little happened: {self:?}");
        }
    }
}

/// How often each thing happens; 0: never in this round.
struct Weights {
    task: u32,
    kill: u32,
    read: u32,
    advance: u32,
    die: u32,
    nonsense: u32,
    drain: u32,
    policy: u32,
}

pub(crate) struct World {
    rng: Rng,
    twin: Twin,
    model: Model,
    tasks: Vec<Option<Sim>>,
    reader: SimReader,
    expected: BTreeMap<u64, Expected>,
    weights: Weights,
    now_ms: u64,
    absent_since: u64,
    big: bool,
    /// The reader has moved a tail, and has not said so.
    drain_owed: bool,
    ending: bool,
    /// So many orphans can there be until there are none again.
    orphans_most: usize,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let ring_count = rng.u32(1..=5);
        let slots = 16 << [0, 0, 0, 1, 1, 2, 3, 4, 5, 8][rng.usize(..10)];
        let most = (slots / 4 * SLOT_BYTES as u32).min(16_384);
        let part_bytes_max = rng.u32(512..=most);
        let twin = Twin::new(ring_count, slots, part_bytes_max).unwrap();
        let tasks = (0..rng.u32(1..=12)).map(|_| Some(Sim::new(&twin))).collect();
        let reader = SimReader::new(&twin, ring_count);
        let weights = Weights {
            task: 100,
            kill: [0, 1, 5][rng.usize(..3)],
            read: [10, 60, 150][rng.usize(..3)],
            advance: [3, 20, 100][rng.usize(..3)],
            die: [0, 1, 3][rng.usize(..3)],
            nonsense: [0, 0, 1][rng.usize(..3)],
            drain: rng.u32(..2),
            policy: rng.u32(..2),
        };
        Self {
            model: Model::new(ring_count, slots, part_bytes_max),
            tasks,
            reader,
            expected: BTreeMap::new(),
            weights,
            now_ms: 0,
            absent_since: 0,
            big: rng.bool(),
            drain_owed: false,
            ending: false,
            orphans_most: 0,
            seen: Seen::default(),
            rng,
            twin,
        }
    }

    /// Runs it to its end, at which all must have arrived. How many steps it had.
    pub(crate) fn run(&mut self) -> u64 {
        let steps = self.rng.u64(500..6000);
        for _ in 0..steps {
            self.step();
            self.check();
        }
        steps + self.end()
    }

    fn absent_ms(&self) -> u32 {
        if self.reader.alive { 0 } else { (self.now_ms - self.absent_since).max(1) as u32 }
    }

    fn step(&mut self) {
        self.now_ms += self.rng.u64(..3);
        if self.drain_owed && self.rng.u8(..3) == 0 {
            return self.drain();
        }
        let Weights { task, kill, read, advance, die, nonsense, drain, policy } = self.weights;
        let all = [task, kill, read, advance, die, nonsense, drain, policy];
        let sum: u32 = all.iter().sum();
        let mut at = self.rng.u32(..sum);
        let mut which = 0;
        while at >= all[which] {
            at -= all[which];
            which += 1;
        }
        let ring = self.rng.usize(..self.model.rings.len());
        match which {
            0 => self.task(false),
            1 => self.task(true),
            _ if !self.reader.alive && which < 6 => self.maybe_restart(),
            2 => {
                self.reader.read(&self.model, ring);
            }
            3 => self.advance(ring),
            4 => {
                self.reader.die(&mut self.rng);
                self.absent_since = self.now_ms;
                self.seen.reader_deaths += 1;
                // As when the device is closed.
                self.drain();
            }
            5 => self.reader.write_nonsense(&mut self.rng, &mut self.model, ring),
            6 => self.drain(),
            _ => self.policy(),
        }
    }

    fn maybe_restart(&mut self) {
        if self.rng.u8(..60) == 0 {
            self.attach();
        }
    }

    /// As when the device is opened.
    fn attach(&mut self) {
        self.drain();
        let put_right = self.reader.attach(&mut self.model);
        self.seen.put_right += put_right;
        self.drain_owed |= put_right > 0;
    }

    fn advance(&mut self, ring: usize) {
        let parts = self.rng.usize(1..=20);
        let repaired = self.rng.u8(..4) == 0 && self.reader.repair(&mut self.model, ring);
        let moved = self.reader.advance(&mut self.model, ring, parts);
        self.drain_owed |= repaired || moved;
    }

    fn drain(&mut self) {
        self.drain_owed = false;
        let hint = random_hint(&mut self.rng);
        self.twin.drain(hint);
        self.model.drain(hint);
    }

    fn policy(&mut self) {
        let after_ms = [0, 1, 50][self.rng.usize(..3)];
        let which = self.rng.usize(..3);
        self.twin.set_policy([NoReader::Block, NoReader::Pass, NoReader::Panic][which], after_ms);
        self.model.no_reader = [NO_READER_BLOCK, NO_READER_PASS, NO_READER_PANIC][which];
        self.model.no_reader_ms = after_ms;
    }

    fn task(&mut self, kill: bool) {
        let which = self.rng.usize(..self.tasks.len());
        let records = self.tasks.iter().flatten().filter(|task| task.has_record()).count();
        let orphans = self.model.orphans.len();
        let mut task = self.tasks[which].take().expect("a task");
        let absent_ms = self.absent_ms();
        let before = self.model.rings.iter().map(|ring| ring.ring_seq).sum::<u64>();
        let mut around = Around {
            rng: &mut self.rng,
            model: &mut self.model,
            twin: &self.twin,
            expected: &mut self.expected,
            absent_ms,
            now_ns: self.now_ms * 1_000_000,
            big: self.big,
            ending: self.ending,
        };
        if kill {
            task = task.kill(&mut around);
            self.seen.kills += 1;
        } else {
            task.step(&mut around);
        }
        let waits = task.has_record()
            && before == self.model.rings.iter().map(|ring| ring.ring_seq).sum::<u64>();
        self.seen.full_rings += u64::from(waits);
        self.tasks[which] = Some(task);
        if orphans == 0 {
            self.orphans_most = records;
        }
        self.seen.orphans += self.model.orphans.len().saturating_sub(orphans) as u64;
    }

    /// What anybody can see is what the model has.
    fn check(&self) {
        let (memory, status) = (self.reader.memory(), self.twin.status());
        for (index, ring) in self.model.rings.iter().enumerate() {
            let Producer { head, ring_seq, bad_tails, tail } = memory.producer(index as u32);
            assert_eq!((head, ring_seq), (ring.head, ring.ring_seq), "ring {index}");
            assert_eq!(tail, ring.believed, "the believed tail of ring {index}");
            assert_eq!(bad_tails, ring.bad_tails, "bad tails of ring {index}");
        }
        let control = memory.control();
        let orphans = self.model.orphans.len();
        assert_eq!((control.orphans, status.orphans), (orphans as u32, orphans as u32), "orphans");
        assert!(orphans <= self.orphans_most, "I4: no more orphans than there were records");
        let numbered = self.model.order_next;
        assert_eq!((control.order_next, status.order_next), (numbered, numbered), "numbers");
        assert_eq!((control.passed, status.passed), (self.model.passed, self.model.passed));
        let state = if self.model.gap.is_some() { STATE_PASSING } else { 0 };
        assert_eq!(control.state, state, "the state");
        let buffers = self.tasks.iter().flatten().filter(|task| task.has_buffer).count() + orphans;
        assert_eq!(status.tasks as usize, buffers, "I4: a buffer for each task, and orphans");
        let bad: u64 = self.model.rings.iter().map(|ring| ring.bad_tails).sum();
        assert_eq!(status.bad_tails, bad, "bad tails of all rings");
    }

    /// A reader that does its work, and tasks that start no more calls.
    fn end(&mut self) -> u64 {
        self.ending = true;
        if !self.reader.alive {
            self.attach();
        }
        for ring in 0..self.model.rings.len() {
            self.drain_owed |= self.reader.repair(&mut self.model, ring);
        }
        let mut steps = 0;
        loop {
            let mut moved = false;
            for ring in 0..self.model.rings.len() {
                while self.reader.read(&self.model, ring) {}
                moved |= self.reader.advance(&mut self.model, ring, usize::MAX);
            }
            // A reader that moved nothing has nothing to say.
            if moved || self.drain_owed {
                self.drain();
            }
            for _ in 0..self.tasks.len() * 4 {
                self.task(false);
                self.check();
                steps += 1;
            }
            let busy = self.tasks.iter().flatten().any(Sim::has_record);
            let empty = self.model.rings.iter().all(|ring| ring.tail == ring.head);
            if !busy && empty && self.model.gap.is_none() && self.model.orphans.is_empty() {
                break;
            }
            assert!(steps < 1_000_000, "all come to an end once somebody reads");
        }
        for ring in &self.model.rings {
            assert!(ring.parts.is_empty(), "everything was read");
            self.seen.bad_tails += ring.bad_tails;
        }
        assert_eq!(self.twin.task().enter(0, 0), Verdict::Go, "the gate is open again");
        self.seen.records += self.model.order_next;
        self.seen.passed += self.model.passed;
        self.seen.in_parts += self.reader.check_all(&self.model, &mut self.expected);
        self.seen.pads += self.reader.pads;
        steps
    }
}
