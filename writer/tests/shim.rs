//! The shim as a source, over the twin of its kernel side: the same C and the same memory, without a module.

use graven_format::loss::{Cause, LossStatement};
use graven_format::name::Name;
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::{Flags, Record, Source};
use graven_shim_abi::{Call, PART_LAST, Part, Rules, Status};
use graven_shim_twin::{NoReader, Task, Twin, Verdict};
use graven_writer::codec::Reading;
use graven_writer::source::netlink::Stop;
use graven_writer::source::shim::{Kernel, Memory, Past, ShimError, Summary, receive};
use graven_writer::source::{AppendError, Sink};
use graven_writer::{Options, Trail};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PRODUCERS: u64 = 3;

struct Device {
    twin: Twin,
    rules_gone: AtomicBool,
}

impl Kernel for Device {
    fn advanced(&self) -> Result<(), ShimError> {
        self.twin.drain(0);
        Ok(())
    }

    fn set_rules(&self, _: &Rules) -> Result<(), ShimError> {
        self.rules_gone.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn status(&self) -> Result<Status, ShimError> {
        Ok(self.twin.status())
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A trail that is gone after so many batches, as for a reader that is killed: some of them durable, some not, and
/// their room given back or not.
struct Dying<'a> {
    trail: &'a Trail,
    left: AtomicU64,
}

impl Sink for Dying<'_> {
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        Sink::append(self.trail, record)
    }

    fn next_seq(&self) -> u64 {
        self.trail.next_seq()
    }

    fn append_all(&self, records: &[Record<'_>]) -> Result<(), AppendError> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if left == 0 {
            // Part of the batch is in the trail, as if it had been killed within.
            self.trail.append_all(&records[..records.len() / 2])?;
            return Err(AppendError::Closed);
        }
        self.trail.append_all(records)
    }
}

fn make(task: &mut Task, producer: u64, n: u64, parts: u64) {
    while task.enter(producer as u32, 0) != Verdict::Go {
        std::thread::sleep(Duration::from_micros(50));
    }
    task.begin(&Call { nr: 110, args: [n, producer, parts, 0, 0, 0], ..Call::default() });
    task.number();
    for part in 1..=parts {
        let bytes = vec![part as u8; (n % 300) as usize];
        assert!(task.item(4, 0, 0, part as u32, &bytes));
        let flags = if part == parts { PART_LAST } else { 0 };
        while !task.push(producer as u32, flags) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Every record of a trail.
fn each(trail: &Path, visit: &mut dyn FnMut(&Record<'_>)) {
    let mut segments: Vec<_> = std::fs::read_dir(trail)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = Name::parse(path.file_name()?.to_str()?)?;
            let Name::Segment { segment, first_seq } = name else { return None };
            Some((segment, first_seq, path))
        })
        .collect();
    segments.sort();
    for (segment, first_seq, path) in segments {
        let expect = Expect { segment, first_seq, trail_id: None, merkle: false };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        scanner.push(&std::fs::read(path).unwrap());
        scanner.end();
        while let Some(event) = scanner.next_event() {
            if let Event::Record { record, .. } = event {
                visit(&record);
            }
        }
    }
}

/// What it states as lost: why, and how much.
fn losses(trail: &Path) -> Vec<(Cause, u64)> {
    let mut losses = Vec::new();
    each(trail, &mut |record| {
        if record.flags.contains(Flags::LOSS) {
            let (statement, _) = LossStatement::parse(record.bytes).unwrap();
            losses.push((statement.cause, statement.count));
        }
    });
    losses
}

/// Producers' numbers. Parts of each ring are there once and dense.
fn check(trail: &Path) -> BTreeMap<(u64, u64), u32> {
    let mut rings: BTreeMap<u32, u64> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    each(trail, &mut |record| {
        if record.source != Source::Shim {
            return;
        }
        let part = Part::read(record.bytes).unwrap();
        assert_eq!(part.bytes as usize, record.bytes.len());
        let next = rings.entry(part.ring).or_default();
        assert_eq!(part.ring_seq, *next, "ring {}", part.ring);
        *next += 1;
        if part.part == 0 {
            let call = Call::read(&record.bytes[Part::LEN..]).unwrap();
            *numbers.entry((call.args[1], call.args[0])).or_default() += 1;
        }
    });
    numbers
}

fn receive_once(
    device: &Device,
    trail_dir: &Path,
    dies_after: Option<u64>,
    stop: &Stop,
) -> Result<Summary, ShimError> {
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    let trail = Trail::open(trail_dir, &options).unwrap();
    let past = Past::read(trail_dir).unwrap();
    let memory = Memory::map(&device.twin.memory().unwrap()).unwrap();
    let sink = Dying { trail: &trail, left: AtomicU64::new(dies_after.unwrap_or(u64::MAX)) };
    let read = receive(device, &memory, &sink, &trail.watermark(), &past, stop);
    trail.close().unwrap();
    read
}

fn device(slots: u32) -> Device {
    let twin = Twin::new(2, slots, 4096).unwrap();
    twin.set_policy(NoReader::Block, 0);
    Device { twin, rules_gone: AtomicBool::new(false) }
}

#[test]
fn readers_that_die_lose_and_double_nothing() {
    const COUNT: u64 = 4000;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all_deaths = 0;
    for (slots, batches) in [(64, 60), (512, 8)] {
        let dir = tempfile::tempdir().unwrap();
        let trail = dir.path().join("trail");
        let device = &device(slots);
        let stop = Stop::new().unwrap();
        let (mut deaths, mut known) = (0, 0);
        std::thread::scope(|scope| {
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|producer| {
                    let mut task = device.twin.task();
                    scope.spawn(move || {
                        (0..COUNT).for_each(|n| make(&mut task, producer, n, 1 + n % 3));
                    })
                })
                .collect();
            scope.spawn(|| {
                producers.into_iter().for_each(|producer| producer.join().unwrap());
                stop.request();
            });
            loop {
                let dies = (deaths < 12).then(|| random.u64(0..batches));
                match receive_once(device, &trail, dies, &stop) {
                    Err(ShimError::Sink(AppendError::Closed)) => deaths += 1,
                    Err(why) => panic!("{why}"),
                    Ok(summary) => {
                        assert_eq!((summary.lost, summary.passed), (0, 0));
                        known = summary.known;
                        break;
                    }
                }
            }
        });
        assert!(device.rules_gone.load(Ordering::Relaxed));
        let numbers = check(&trail);
        let wanted: BTreeSet<_> =
            (0..PRODUCERS).flat_map(|producer| (0..COUNT).map(move |n| (producer, n))).collect();
        assert!(numbers.values().all(|times| *times == 1), "{deaths} deaths");
        assert_eq!(numbers.into_keys().collect::<BTreeSet<_>>(), wanted, "{deaths} deaths");
        eprintln!("{slots} slots: {deaths} deaths, {known} parts were known to the last reader");
        all_deaths += deaths;
    }
    assert!(all_deaths > 2);
}

/// What went on unrecorded by policy is a loss of the trail; what another load of the module had may be one.
#[test]
fn gaps_and_loads_that_were_left_are_stated() {
    let dir = tempfile::tempdir().unwrap();
    let trail = dir.path().join("trail");
    let stop = Stop::new().unwrap();
    stop.request();
    let first = device(64);
    let mut task = first.twin.task();
    make(&mut task, 0, 0, 1);
    task.pass(5);
    task.pass(9);
    make(&mut task, 0, 1, 1);
    let summary = receive_once(&first, &trail, None, &stop).unwrap();
    assert_eq!((summary.calls, summary.passed), (2, 2));
    assert_eq!(losses(&trail), [(Cause::Dropped, 2)]);
    // It ended as it should: the next load owes nothing.
    let second = device(64);
    make(&mut second.twin.task(), 1, 0, 1);
    receive_once(&second, &trail, Some(0), &stop).unwrap_err();
    assert_eq!(losses(&trail), [(Cause::Dropped, 2)]);
    // This one did not.
    receive_once(&device(64), &trail, None, &stop).unwrap();
    assert_eq!(losses(&trail), [(Cause::Dropped, 2), (Cause::Undrained, 0)]);
}

proptest! {
    /// Whatever is in the memory: an error that says where, or a part, and no panic.
    #[test]
    fn any_memory_is_refused_or_read(
        writes in proptest::collection::vec((0_u64..80_000, any::<u64>()), 0..40),
        position in any::<u64>(),
        ahead in 0_u64..70,
    ) {
        let twin = Twin::new(2, 64, 4096).unwrap();
        let mut task = twin.task();
        for n in 0..5 {
            make(&mut task, 0, n, 1);
        }
        let file = twin.memory().unwrap();
        for (at, value) in writes {
            let at = at.min(twin.memory_bytes() as u64 - 8) / 8 * 8;
            file.write_all_at(&value.to_le_bytes(), at).unwrap();
        }
        let Ok(memory) = Memory::map(&file) else { return Ok(()) };
        for position in [0, position, position % 64] {
            let (mut bytes, head) = (Vec::new(), position.wrapping_add(ahead));
            for ring in 0..memory.rings() {
                let _ = memory.head(ring);
                let _ = memory.part(ring, position, head, &mut bytes);
            }
        }
    }
}
