//! Devices that fail, and devices that are slow, under io_uring, where no system call can be made to
//! fail.

use crate::rig::failing::Failing;
use crate::rig::feeder::{Feeder, Plan, Speed};
use crate::rig::lines::Lines;
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::random::Random;
use crate::rig::throttle::Slow;
use crate::rig::{NO_RECORDS, Ran, Running, graven, on, record, run};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LINES: Lines = Lines { seed: 5, bytes_max: 8 * 1024, long_every: 100 };

/// The device, a loop device whose file finds no room any more, breaks while records are written: the
/// process ends with code 5 and says what failed. Either driver sees the same error, one in a completion and
/// one from a system call.
#[test]
fn a_failing_device_ends_the_writer_and_what_was_announced_is_there() {
    if !can_mount() {
        return;
    }
    for (driver, good_mib) in [("uring", 12), ("sync", 12), ("uring", 9), ("sync", 9)] {
        let disk = Mounted::ext4_on_failing_device(64, good_mib);
        let trail = disk.trail();
        let plan = Plan { lines: LINES, from: 0, to: 10_000, speed: Speed::Full, seed: 1 };
        let mut command = record(&trail);
        command.args(["--ring-bytes", "2M", "--disk", driver]);
        let (running, feeder) = Feeder::start(&mut command, plan);
        let ran = running.end().expect(5).says("error: ");
        feeder.join();
        let durable = ran.acknowledged().expect("records were acknowledged") + 1;
        let verified = on("verify", &trail, &["--durable", &(durable - 1).to_string()]);
        assert!(matches!(verified.code(), 0 | 3), "{driver}: {}", verified.text());
        let there = LINES.check(&trail);
        assert!(there >= durable, "{driver}: {there} of {durable} are there");
        eprintln!("failing device, {driver}: {durable} announced, {there} there: {}", ran.stderr);
    }
}

/// Records that are durable before the device fails.
const BEFORE: u64 = 20;
const DISK_MIB: u64 = 64;
const EIO: &str = "Input/output error (os error 5)";

/// Larger segments than other tests have: for most of the time none is being prepared.
fn record_to_4m_segments(trail: &Path, driver: &str) -> Command {
    let mut command = graven();
    command
        .args(["record", "--source", "stdin", "--ack", "--segment-bytes", "4M"])
        .args(NO_RECORDS);
    command.args(["--ring-bytes", "2M", "--disk", driver, "--trail"]).arg(trail);
    command
}

/// EIO in the completion of a frame's write: the first one after the device has failed.
#[test]
fn a_frame_that_fails_with_eio_is_named_and_nothing_after_it_is_acknowledged() {
    if !can_mount() {
        return;
    }
    for driver in ["uring", "sync"] {
        until_it_fails_first("write of 0000000000000000-", |disk| {
            let (mut running, mut stdin) = with_records(&disk.trail(), driver);
            disk.fail();
            // The writer may end before it has taken them all.
            let _ = stdin.write_all(&LINES.bytes(BEFORE, 500));
            running.wait_until("end", |_| false);
            drop(stdin);
            (running.end(), 500)
        });
    }
}

/// What fails first is up to the writer: on a slow machine a piece of the next segment may be zeroed just then. Whatever it
/// is, it is named, and the rest holds; that of the test comes within a few times.
#[track_caller]
fn until_it_fails_first(what: &str, fail: impl Fn(&Failing) -> (Ran, u64)) {
    for _ in 0..10 {
        let Some(disk) = Failing::ext4(DISK_MIB) else { return };
        let (ran, sent) = fail(&disk);
        let ran = ran.expect(5).says(" at offset 0x").says(EIO);
        said_the_truth(&ran, BEFORE - 1);
        goes_on_elsewhere(disk, BEFORE, sent);
        if ran.stderr.contains(what) {
            return;
        }
        eprintln!("another write failed first: {}", ran.stderr);
    }
    panic!("{what:?} is never what fails first");
}

/// EIO in the completion of the trailer, which is written when all records are durable.
#[test]
fn a_trailer_that_fails_with_eio_is_an_error_after_the_last_acknowledgement() {
    if !can_mount() {
        return;
    }
    for driver in ["uring", "sync"] {
        until_it_fails_first("write of the trailer of 0000000000000000-", |disk| {
            let (running, stdin) = with_records(&disk.trail(), driver);
            disk.fail();
            drop(stdin);
            (running.end(), BEFORE)
        });
    }
}

/// EIO at some moment while frames, zeros, headers and trailers are in flight: all of the device fails, or
/// its last third, so that some of what is in flight fails and the rest succeeds.
#[test]
fn eio_under_load_ends_the_writer_and_what_was_acknowledged_is_on_the_device() {
    if !can_mount() {
        return;
    }
    const LINES_SENT: u64 = 10_000;
    let seed = Random::seed();
    let mut random = Random::new(seed);
    for round in 0..12 {
        let Some(disk) = Failing::ext4(DISK_MIB) else { return };
        let driver = ["uring", "sync"][round % 2];
        let in_part = round % 4 < 2;
        if in_part {
            disk.fail_past(DISK_MIB * 5 / 8 + random.below(DISK_MIB / 8));
        }
        let trail = disk.trail();
        let mut command = record(&trail);
        command.args(["--ring-bytes", "2M", "--disk", driver]);
        let plan = Plan { lines: LINES, from: 0, to: LINES_SENT, speed: Speed::Full, seed };
        let (mut running, feeder) = Feeder::start(&mut command, plan);
        if !in_part {
            let some = random.below(2000);
            running.wait_until("load", |it| it.acknowledged().is_some_and(|seq| seq >= some));
            disk.fail();
        }
        let ran = running.end().expect(5);
        feeder.join();
        let acknowledged = ran.acknowledged().expect("records were acknowledged");
        // A filesystem whose own journal failed first lets nobody write any more.
        let read_only = !in_part && ran.stderr.contains("Read-only file system (os error 30)");
        assert!(read_only || ran.stderr.contains(EIO), "{}", ran.stderr);
        said_the_truth(&ran, acknowledged);
        eprintln!("EIO under load, GRAVEN_E2E_SEED={seed}, round {round}: {}", ran.stderr);
        goes_on_elsewhere(disk, acknowledged + 1, LINES_SENT);
    }
}

/// A writer with its first records durable, and its standard input.
fn with_records(trail: &Path, driver: &str) -> (Running, std::process::ChildStdin) {
    let mut running = Running::start(&mut record_to_4m_segments(trail, driver), Stdio::piped());
    let mut stdin = running.stdin();
    stdin.write_all(&LINES.bytes(0, BEFORE)).expect("it reads");
    running.wait_until("acknowledgement", |it| it.acknowledged() == Some(BEFORE - 1));
    (running, stdin)
}

/// The end said which file, and what it called durable is what was acknowledged: nothing was announced after
/// the failure, and nothing before it was left out.
#[track_caller]
fn said_the_truth(ran: &Ran, acknowledged: u64) {
    assert!(ran.stderr.contains("0000000000"), "a file is named: {}", ran.stderr);
    let seq = ran.stderr.split_once("all records up to seq ").map(|(_, rest)| rest);
    let seq = seq.and_then(|rest| rest.split_once(' ')).and_then(|(seq, _)| seq.parse().ok());
    assert_eq!(seq, ran.acknowledged(), "{}", ran.stderr);
    assert_eq!(ran.acknowledged(), Some(acknowledged), "{}", ran.stderr);
}

/// What the failed device really holds is moved to one that works: at least `durable` records are there, at
/// most `sent`, and the next writer goes on behind them.
#[track_caller]
fn goes_on_elsewhere(failed: Failing, durable: u64, sent: u64) {
    let disk = failed.on_a_good_device(DISK_MIB);
    let trail = disk.trail();
    let announced = (durable - 1).to_string();
    let verified = on("verify", &trail, &["--durable", &announced]);
    assert!(matches!(verified.code(), 0 | 3), "{}{}", verified.text(), verified.stderr);
    let there = LINES.check(&trail);
    assert!((durable..=sent).contains(&there), "{there} of {durable} are there");
    run(&mut record(&trail), &LINES.bytes(there, there + 5)).expect(0);
    on("verify", &trail, &["--durable", &announced]).expect(0);
    assert_eq!(LINES.check(&trail), there + 5);
}

/// A killed process is gone at once, and direct writes that it had given to io_uring are not: a slow
/// device still works on them. Who starts then must not take their place for empty, write there, and
/// be written over.
#[test]
fn what_a_killed_writer_had_in_flight_is_waited_for() {
    if !can_mount() {
        return;
    }
    for driver in ["uring", "sync"] {
        let disk = Mounted::ext4(64, 512);
        let Some(slow) = Slow::group(&disk, 2) else { return };
        let trail = disk.trail();
        let command = || {
            let mut command = graven();
            command
                .args(["record", "--source", "stdin", "--ack", "--segment-bytes", "4M"])
                .args(NO_RECORDS);
            command.args(["--disk", driver, "--trail"]).arg(&trail);
            command
        };
        let mut running = Running::start(&mut command(), Stdio::piped());
        let mut stdin = running.stdin();
        stdin.write_all(&LINES.bytes(0, 20)).expect("it reads");
        running.wait_until("acknowledgement", |it| it.acknowledged() == Some(19));
        // Or the next start would wait for the lock file's own bytes, which nothing promises.
        disk.sync();
        slow.take(&running);
        stdin.write_all(&LINES.bytes(20, 500)).expect("it reads");
        // Long enough that writes are in flight, and far from long enough for all of them.
        std::thread::sleep(Duration::from_millis(1000));
        let killed = running.kill();
        let announced = killed.acknowledged().expect("records were acknowledged") + 1;
        run(&mut command(), b"").expect(0);
        let there = LINES.check(&trail);
        assert!(there >= announced, "{driver}: {there} of {announced} are there");
        run(&mut command(), &LINES.bytes(there, there + 5)).expect(0);
        drop(slow);
        disk.sync();
        on("verify", &trail, &[]).expect(0);
        assert_eq!(LINES.check(&trail), there + 5, "{driver}");
        eprintln!("slow device, {driver}: {announced} announced at the kill, {there} there");
    }
}
