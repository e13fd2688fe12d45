//! Tasks, the kernel side's twin, and a trail that notes what must be durable before its room is given back.

use graven_format::scan::{Event, Expect, Scanner};
use graven_format::{Flags, Record, Source, loss::LossStatement, name::Name};
use graven_shim_abi::decode::parse;
use graven_shim_abi::{Call, ITEM_ARGV, PAGE_BYTES, PART_GAP, PART_LAST, Part, SLOT_BYTES};
use graven_shim_twin::{Reader, Task, Twin, Verdict};
use graven_writer::codec::Reading;
use graven_writer::disk::DiskChoice;
use graven_writer::keys::KeyOption;
use graven_writer::source::netlink::Stop;
use graven_writer::source::shim::{self, Kernel, Memory, Past, Rules, ShimError, Status, Summary};
use graven_writer::source::{AppendError, Sink};
use graven_writer::{Options, Trail, Watermark};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The kernel side.
pub(crate) struct Side {
    pub(crate) twin: Twin,
    reader: Reader,
    slots: u64,
    rings: u32,
    room: (Mutex<()>, Condvar),
    /// Tasks that sleep now, and times that one did.
    waiting: AtomicU32,
    pub(crate) waited: AtomicU64,
    /// Rules are gone.
    pub(crate) quiet: AtomicBool,
    /// Tails were moved by somebody else.
    pub(crate) unchecked: AtomicBool,
    /// The test has failed: nobody is to wait any more.
    pub(crate) failed: AtomicBool,
    /// Times that tails may be moved before the reader is killed there.
    pub(crate) moves_left: AtomicU64,
    /// Of each ring: behind which slot a part ended, and the seq that it has in the trail.
    noted: Mutex<Vec<Vec<(u64, u64)>>>,
    watermark: Mutex<Option<Arc<Watermark>>>,
}

impl Side {
    pub(crate) fn new(rings: u32, slots: u32, part_bytes_max: u32) -> Self {
        let twin = Twin::new(rings, slots, part_bytes_max).unwrap();
        let reader = Reader::map(&twin.memory().unwrap()).unwrap();
        Self {
            twin,
            reader,
            slots: slots.into(),
            rings,
            room: (Mutex::new(()), Condvar::new()),
            waiting: AtomicU32::new(0),
            waited: AtomicU64::new(0),
            quiet: AtomicBool::new(false),
            unchecked: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            moves_left: AtomicU64::new(u64::MAX),
            noted: Mutex::new(vec![Vec::new(); rings as usize]),
            watermark: Mutex::new(None),
        }
    }

    /// A task sleeps for want of room.
    pub(crate) fn sleep(&self) {
        assert!(!self.failed.load(SeqCst), "the reader has failed");
        self.waiting.fetch_add(1, SeqCst);
        self.waited.fetch_add(1, SeqCst);
        let guard = self.room.0.lock().unwrap();
        // Who is woken between its look and here looks again after this.
        let _ = self.room.1.wait_timeout(guard, Duration::from_millis(5)).unwrap();
        self.waiting.fetch_sub(1, SeqCst);
    }

    /// One call of a task, in so many parts; false if there are no rules any more.
    pub(crate) fn call(&self, task: &mut Task, who: u32, number: u64, parts: u32) -> bool {
        loop {
            if self.quiet.load(SeqCst) {
                return false;
            }
            if task.enter(who, 0) == Verdict::Go {
                break;
            }
            self.sleep();
        }
        task.begin(&Call { pid: who, args: [number, 0, 0, 0, 0, 0], ..Call::default() });
        task.number();
        for part in 0..parts {
            let room = task.item_room().unwrap_or(0) as usize;
            let bytes = vec![number as u8; fastrand::usize(..=room)];
            assert!(task.item(ITEM_ARGV, 0, 0, part, &bytes));
            let flags = if part + 1 == parts { PART_LAST } else { 0 };
            while !task.push(who, flags) {
                self.sleep();
            }
        }
        true
    }

    fn note(&self, bytes: &[u8], seq: u64) {
        let part = Part::read(bytes).unwrap();
        let ends = &mut self.noted.lock().unwrap()[part.ring as usize];
        let at = ends.last().map_or(0, |(end, _)| *end);
        let takes = u64::from(part.bytes).div_ceil(SLOT_BYTES as u64);
        let to_end = self.slots - at % self.slots;
        let pad = if takes > to_end { to_end } else { 0 };
        ends.push((at + pad + takes, seq));
    }

    /// Nothing lies before a tail that is not durable.
    fn check_tails(&self) {
        let noted = self.noted.lock().unwrap();
        let watermark = self.watermark.lock().unwrap();
        for (ring, ends) in (0..self.rings).zip(&*noted) {
            let tail = self.reader.tail(ring);
            let before = ends.partition_point(|(end, _)| *end <= tail);
            let last = before.checked_sub(1).map(|at| ends[at]);
            let (end, seq) = last.unwrap_or((0, 0));
            let padded = end.next_multiple_of(self.slots);
            assert!(
                tail == end || tail == padded,
                "ring {ring}: {tail} is behind {end} in no part"
            );
            if last.is_some() {
                let durable = watermark.as_ref().unwrap().durable();
                assert!(durable > seq, "ring {ring}: tail {tail}, seq {seq}, durable {durable}");
            }
        }
    }
}

impl Kernel for Side {
    fn advanced(&self) -> Result<(), ShimError> {
        if !self.unchecked.load(SeqCst) {
            self.check_tails();
        }
        if self.moves_left.fetch_sub(1, SeqCst) == 0 {
            return Err(ShimError::System { what: "go on", why: io::Error::other("killed") });
        }
        self.twin.drain(0);
        self.room.1.notify_all();
        Ok(())
    }

    fn set_rules(&self, rules: &Rules) -> Result<(), ShimError> {
        assert_eq!(rules.count, 0);
        self.quiet.store(true, SeqCst);
        Ok(())
    }

    fn status(&self) -> Result<Status, ShimError> {
        Ok(Status { waiting: self.waiting.load(SeqCst), ..self.twin.status() })
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A trail, as a sink that may be slow, and ends after so many records.
struct Watched<'a> {
    trail: &'a Trail,
    side: &'a Side,
    left: AtomicU64,
    pause: Duration,
}

impl Sink for Watched<'_> {
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        if self.left.fetch_sub(1, SeqCst) == 0 {
            self.left.store(0, SeqCst);
            return Err(AppendError::Closed);
        }
        std::thread::sleep(self.pause);
        let seq = Sink::append(self.trail, record)?;
        if record.source == Source::Shim {
            self.side.note(record.bytes, seq);
        }
        Ok(seq)
    }

    fn next_seq(&self) -> u64 {
        self.trail.next_seq()
    }
}

/// How a session goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The sink takes so many records.
    pub(crate) records: u64,
    /// Tails are moved so often.
    pub(crate) moves: u64,
    /// What the sink takes for each.
    pub(crate) pause: Duration,
}

impl Plan {
    pub(crate) const WHOLE: Self =
        Self { records: u64::MAX, moves: u64::MAX, pause: Duration::ZERO };
}

/// One reader, from its start to its end, in the trail in `dir`.
pub(crate) fn session(
    dir: &Path,
    side: &Side,
    plan: Plan,
    stop: &Stop,
) -> Result<Summary, ShimError> {
    let options = Options {
        disk: DiskChoice::Sync,
        segment_bytes: 1024 * 1024,
        ring_bytes: 2 * 1024 * 1024,
        key: KeyOption::Unsigned,
        ..Options::default()
    };
    let trail = Trail::open(dir, &options).unwrap();
    let past = Past::read(dir).unwrap();
    let memory = Memory::map(&side.twin.memory().unwrap()).unwrap();
    *side.watermark.lock().unwrap() = Some(trail.watermark());
    side.moves_left.store(plan.moves, SeqCst);
    let left = AtomicU64::new(plan.records);
    let sink = Watched { trail: &trail, side, left, pause: plan.pause };
    let read = shim::receive(side, &memory, &sink, &trail.watermark(), &past, stop);
    trail.close().unwrap();
    read
}

/// A session that reads what is there, and ends.
pub(crate) fn drained(dir: &Path, side: &Side) -> Summary {
    let stop = Stop::new().unwrap();
    stop.request();
    session(dir, side, Plan::WHOLE, &stop).unwrap()
}

/// What a trail has.
#[derive(Default)]
pub(crate) struct Found {
    /// The parts, in order.
    pub(crate) parts: Vec<Vec<u8>>,
    /// The statements of loss, and how many parts stand before each.
    pub(crate) losses: Vec<(LossStatement, usize)>,
}

pub(crate) fn read(dir: &Path) -> Found {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut found = Found::default();
    for name in names {
        let Some(Name::Segment { segment, first_seq }) = Name::parse(&name) else { continue };
        let expect = Expect { segment, first_seq, trail_id: None, merkle: true };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        scanner.push(&fs::read(dir.join(&name)).unwrap());
        scanner.end();
        while let Some(event) = scanner.next_event() {
            match event {
                Event::Record { record, .. } if record.flags.contains(Flags::LOSS) => {
                    let statement = LossStatement::parse(record.bytes).unwrap().0;
                    found.losses.push((statement, found.parts.len()));
                }
                Event::Record { record, .. } if record.source == Source::Shim => {
                    let part = Part::read(record.bytes).unwrap();
                    assert_eq!((record.kind, record.source_seq), (part.kind, part.order));
                    found.parts.push(record.bytes.to_vec());
                }
                Event::Finding(finding) => panic!("{name}: {finding} {finding:?}"),
                _ => {}
            }
        }
    }
    found
}

impl Found {
    /// Every part of every ring once and in its order; every number below `order_next` once and whole. Numbers of each
    /// task's calls. Parts of one record, and calls of one task, may lie in several rings, and come in any order then.
    pub(crate) fn check(&self, order_next: u64) -> BTreeMap<u32, BTreeSet<u64>> {
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        let mut records: BTreeMap<u64, (BTreeSet<u32>, Option<u32>)> = BTreeMap::new();
        let mut calls: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for bytes in &self.parts {
            let part = parse(bytes).unwrap();
            let header = part.header;
            let expected = next.entry(header.ring).or_default();
            assert_eq!(header.ring_seq, *expected, "of ring {}", header.ring);
            *expected += 1;
            if header.kind == PART_GAP {
                continue;
            }
            if let Some(call) = part.call() {
                assert!(calls.entry(call.pid).or_default().insert(call.args[0]), "{call:?} twice");
            }
            for item in part.items() {
                assert!(item.bytes.windows(2).all(|two| two[0] == two[1]));
            }
            let (parts, last) = records.entry(header.order).or_default();
            assert!(parts.insert(header.part), "{header:?} twice");
            if header.flags & PART_LAST != 0 {
                assert_eq!(last.replace(header.part), None, "{header:?}: another last one");
            }
        }
        assert!(records.keys().copied().eq(0..order_next), "numbers are dense to {order_next}");
        for (order, (parts, last)) in records {
            assert!(parts.into_iter().eq(0..=last.unwrap()), "{order} is whole");
        }
        calls
    }
}

/// Bytes of a ring's place and of its pages, for who writes there what should not be.
pub(crate) fn ring_at(ring: u32, slots: u32) -> usize {
    PAGE_BYTES + ring as usize * (2 * PAGE_BYTES + slots as usize * SLOT_BYTES)
}
