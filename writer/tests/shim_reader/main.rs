//! The shim as a source, over the kernel side's twin: all of it is in the trail once and in order, whoever is killed, and
//! no room is given back before what was there is durable.

mod garbage;
mod rig;

use graven_format::loss::{Cause, Certainty};
use graven_shim_abi::{Call, PART_GAP, PART_LAST, Part};
use graven_shim_twin::{NoReader, Reader, Verdict};
use graven_writer::source::netlink::Stop;
use rig::{Plan, Side, drained, read, session};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn temp_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Four tasks make so many calls each; readers come by `plans` and end, the last one with them. How many readers were
/// killed.
fn storm(dir: &Path, side: &Side, calls: u64, mut plans: impl Iterator<Item = Plan>) -> u32 {
    std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..4)
            .map(|who| {
                scope.spawn(move || {
                    let mut task = side.twin.task();
                    for number in 0..calls {
                        if !side.call(&mut task, who, number, fastrand::u32(1..4)) {
                            break;
                        }
                    }
                })
            })
            .collect();
        let over = || tasks.iter().all(|task| task.is_finished());
        let mut killed = 0;
        loop {
            let plan = plans.next().unwrap_or(Plan::WHOLE);
            let stop = Stop::new().unwrap();
            let ended = std::thread::scope(|scope| {
                let reader = scope.spawn(|| session(dir, side, plan, &stop));
                let begun = Instant::now();
                while !reader.is_finished() && !over() {
                    if begun.elapsed() > Duration::from_secs(60) {
                        side.failed.store(true, SeqCst);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                stop.request();
                reader.join().unwrap_or_else(|panic| {
                    side.failed.store(true, SeqCst);
                    std::panic::resume_unwind(panic)
                })
            });
            match ended {
                Ok(_) => return killed,
                Err(_) => killed += 1,
            }
        }
    })
}

#[test]
fn readers_that_are_killed_lose_nothing_and_take_nothing_twice() {
    for rings in [1, 3] {
        let (dir, side) = (temp_dir(), Side::new(rings, 64, 2048));
        let plans = (0..30).map(|_| match fastrand::bool() {
            true => Plan { records: fastrand::u64(..200), ..Plan::WHOLE },
            false => Plan { moves: fastrand::u64(..6), ..Plan::WHOLE },
        });
        let killed = storm(dir.path(), &side, 2000, plans);
        assert!(killed >= 10, "only {killed} were killed");
        let found = read(dir.path());
        let calls = found.check(side.twin.status().order_next);
        assert_eq!(found.losses, []);
        assert!(calls.len() == 4 && calls.values().all(|made| made.iter().copied().eq(0..2000)));
    }
}

#[test]
fn with_a_slow_sink_and_a_full_ring_tasks_wait_and_nothing_is_missing() {
    let (dir, side) = (temp_dir(), Side::new(1, 16, 512));
    let plan = Plan { pause: Duration::from_millis(1), ..Plan::WHOLE };
    assert_eq!(storm(dir.path(), &side, 60, std::iter::once(plan)), 0);
    assert!(side.waited.load(SeqCst) > 50, "tasks have waited for room");
    let found = read(dir.path());
    let calls = found.check(side.twin.status().order_next);
    assert!(found.losses.is_empty() && calls.values().all(|made| made.len() == 60));
}

#[test]
fn a_reader_that_is_stopped_in_a_storm_takes_all_that_has_a_number() {
    let (dir, side) = (temp_dir(), Side::new(2, 64, 2048));
    let (made, stop) = (AtomicU64::new(0), Stop::new().unwrap());
    std::thread::scope(|scope| {
        for who in 0..4 {
            let (side, made) = (&side, &made);
            scope.spawn(move || {
                let mut task = side.twin.task();
                let mut number = 0;
                while side.call(&mut task, who, number, 2) {
                    number += 1;
                }
                made.fetch_add(number, SeqCst);
            });
        }
        let reader = scope.spawn(|| session(dir.path(), &side, Plan::WHOLE, &stop));
        std::thread::sleep(Duration::from_millis(200));
        stop.request();
        reader.join().unwrap().unwrap();
    });
    let found = read(dir.path());
    let calls = found.check(side.twin.status().order_next);
    assert_eq!(calls.values().map(|made| made.len() as u64).sum::<u64>(), made.load(SeqCst));
    assert!(found.losses.is_empty() && made.load(SeqCst) > 100);
}

#[test]
fn what_lies_in_several_rings_comes_in_the_order_of_numbers() {
    let (dir, side) = (temp_dir(), Side::new(3, 256, 512));
    for order in 0..100 {
        // Each tries a ring of its own first.
        assert!(side.call(&mut side.twin.task(), order as u32 % 3, order, 1));
    }
    drained(dir.path(), &side);
    let found = read(dir.path());
    found.check(100);
    let order = |bytes: &Vec<u8>| Part::read(bytes).unwrap().order;
    assert!(found.parts.iter().map(order).eq(0..100));
}

/// Whoever reads writes nonsense where the tails are, and is killed: the next one begins where the kernel side believes that
/// all was read, and goes on.
#[test]
fn after_nonsense_for_tails_another_reader_goes_on() {
    for nonsense in [u64::MAX, 0, 1 << 40] {
        let (dir, side) = (temp_dir(), Side::new(2, 64, 2048));
        let other = Reader::map(&side.twin.memory().unwrap()).unwrap();
        let mut plans = (0..).map(|round| {
            if round > 0 {
                for ring in 0..2 {
                    // As when the device is closed: the last tail that was possible is believed.
                    side.twin.drain(0);
                    let believed = other.producer(ring).tail;
                    assert_eq!(believed, other.tail(ring));
                    // 0 is one that went back, where there is one to go back from.
                    other.set_tail(ring, if believed == 0 { 1 << 41 } else { nonsense });
                }
                // And as when it is opened.
                side.twin.drain(0);
            }
            if round < 10 { Plan { records: 100, ..Plan::WHOLE } } else { Plan::WHOLE }
        });
        assert_eq!(storm(dir.path(), &side, 1000, plans.by_ref()), 10);
        assert!(side.twin.status().bad_tails >= 10, "they were looked at");
        let found = read(dir.path());
        let calls = found.check(side.twin.status().order_next);
        assert_eq!(found.losses, []);
        assert!(calls.len() == 4 && calls.values().all(|made| made.iter().copied().eq(0..1000)));
    }
}

/// Calls that pass without a reader, then one that has room.
fn with_a_gap(count: u64) -> Side {
    let side = Side::new(1, 16, 512);
    side.twin.set_policy(NoReader::Pass, 1);
    let mut task = side.twin.task();
    let mut number = 0;
    while task.enter(0, 2) == Verdict::Go {
        task.begin(&Call { args: [number, 0, 0, 0, 0, 0], ..Call::default() });
        task.number();
        assert!(task.push(0, PART_LAST));
        number += 1;
    }
    for at in 0..count {
        assert_eq!(task.enter(0, 2), Verdict::Pass);
        task.pass(1_000 + at);
    }
    side
}

#[test]
fn calls_that_went_on_unrecorded_are_stated_as_lost() {
    let (dir, side) = (temp_dir(), with_a_gap(7));
    assert_eq!(drained(dir.path(), &side).passed, 7);
    let found = read(dir.path());
    let [(said, before)] = &found.losses[..] else { panic!("{:?}", found.losses) };
    assert_eq!((said.cause, said.certainty, said.count), (Cause::Dropped, Certainty::Exactly, 7));
    assert_eq!(Part::read(&found.parts[*before]).unwrap().kind, PART_GAP);
    found.check(side.twin.status().order_next);
}

#[test]
fn a_reader_that_is_killed_at_a_gap_leaves_it_stated() {
    for records in 0..24 {
        let (dir, side) = (temp_dir(), with_a_gap(7));
        let stop = Stop::new().unwrap();
        stop.request();
        let killed = session(dir.path(), &side, Plan { records, ..Plan::WHOLE }, &stop);
        if killed.is_err() {
            drained(dir.path(), &side);
        }
        let found = read(dir.path());
        let gaps = found.parts.iter().filter(|part| Part::read(part).unwrap().kind == PART_GAP);
        assert_eq!(gaps.count(), 1);
        assert!((1..=2).contains(&found.losses.len()), "killed at {records}: {:?}", found.losses);
    }
}

#[test]
fn what_another_reader_took_away_is_stated_as_missing() {
    let (dir, side) = (temp_dir(), Side::new(1, 64, 512));
    let mut task = side.twin.task();
    side.call(&mut task, 0, 0, 1);
    drained(dir.path(), &side);
    side.quiet.store(false, SeqCst);
    for number in 1..4 {
        side.call(&mut task, 0, number, 1);
    }
    let other = Reader::map(&side.twin.memory().unwrap()).unwrap();
    other.set_tail(0, other.head(0));
    side.call(&mut task, 0, 4, 1);
    assert_eq!(session_unchecked(dir.path(), &side).lost, 3);
    let found = read(dir.path());
    let [(said, before)] = &found.losses[..] else { panic!("{:?}", found.losses) };
    assert_eq!((said.cause, said.count, said.range), (Cause::SerialGap, 3, Some((1, 3))));
    assert_eq!((*before, found.parts.len()), (1, 2));
}

/// As [`drained`], where tails are not where the trail's parts are.
fn session_unchecked(dir: &Path, side: &Side) -> graven_writer::source::shim::Summary {
    side.unchecked.store(true, SeqCst);
    drained(dir, side)
}

#[test]
fn a_module_that_was_loaded_again_before_all_was_read_is_stated() {
    let dir = temp_dir();
    let side = Side::new(1, 64, 512);
    side.call(&mut side.twin.task(), 0, 0, 1);
    drained(dir.path(), &side);
    // It ended as it should.
    drained(dir.path(), &Side::new(1, 64, 512));
    assert_eq!(read(dir.path()).losses, []);
    let killed = Side::new(1, 64, 512);
    killed.call(&mut killed.twin.task(), 0, 0, 1);
    let stop = Stop::new().unwrap();
    stop.request();
    // The mark, and the part; not the end.
    session(dir.path(), &killed, Plan { records: 2, ..Plan::WHOLE }, &stop).unwrap_err();
    drained(dir.path(), &Side::new(1, 64, 512));
    let found = read(dir.path());
    let [(said, _)] = &found.losses[..] else { panic!("{:?}", found.losses) };
    assert_eq!((said.cause, said.certainty, said.count), (Cause::Undrained, Certainty::AtLeast, 0));
}
