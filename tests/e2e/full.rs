//! A full disk is a state: producers wait, nothing is lost, and it goes on when room returns; or it ends,
//! when told to. And disks of other kinds: other sectors, read-only, in memory.

use crate::rig::feeder::{Feeder, Plan, Speed};
use crate::rig::lines::Lines;
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::{Running, on, record, run};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LINES: Lines = Lines { seed: 3, bytes_max: 8 * 1024, long_every: 100 };

/// Lines of about 20 MB: more than a disk of [`DISK_MIB`] with its ballast takes, and less than without.
const COUNT: u64 = 4200;
const DISK_MIB: u64 = 40;
const BALLAST_LEAVES: u64 = 9 << 20;

/// How long nothing may change before recording counts as waiting for room. It is asked for room twice
/// a second; if this is too short the test checks less and fails nothing.
const STANDSTILL: Duration = Duration::from_secs(2);

fn recording(trail: &Path, on_full: &str) -> Command {
    let mut command = record(trail);
    // Compressing what is sealed would make room.
    command.args(["--ring-bytes", "2M", "--on-full", on_full, "--compress-sealed", "0"]);
    command
}

fn plan(to: u64) -> Plan {
    Plan { lines: LINES, from: 0, to, speed: Speed::Full, seed: 1 }
}

/// Waits until nothing is acknowledged any more, and returns how many records are.
fn standstill(running: &mut Running, disk: &Mounted) -> u64 {
    running.wait_until("full disk", |_| disk.free_bytes() < 512 * 1024);
    loop {
        let before = running.acknowledged();
        std::thread::sleep(STANDSTILL);
        if running.acknowledged() == before {
            assert!(!running.has_ended(), "it waits: {}", running.said());
            return before.expect("records were acknowledged") + 1;
        }
    }
}

/// A writer that waits for room on a full disk.
struct Waiting {
    disk: Mounted,
    /// Takes the room that it waits for.
    ballast: PathBuf,
    trail: PathBuf,
    running: Running,
    feeder: Feeder,
    /// Records that it has acknowledged.
    durable: u64,
}

impl Waiting {
    fn new(driver: &str) -> Self {
        let disk = Mounted::ext4(DISK_MIB, 512);
        let ballast = disk.fill(BALLAST_LEAVES);
        let trail = disk.trail();
        let mut command = recording(&trail, "wait");
        let (mut running, feeder) = Feeder::start(command.args(["--disk", driver]), plan(COUNT));
        let durable = standstill(&mut running, &disk);
        Self { disk, ballast, trail, running, feeder, durable }
    }
}

#[test]
fn a_full_disk_makes_producers_wait_and_goes_on_when_there_is_room() {
    if !can_mount() {
        return;
    }
    for driver in ["uring", "sync"] {
        let Waiting { disk: _disk, ballast, trail, running, feeder, durable } =
            Waiting::new(driver);
        let said = running.said();
        assert_eq!(said.matches("has no room").count(), 1, "{driver}: once a wait: {said}");
        assert!(said.contains(trail.to_str().expect("a name of letters")), "{said}");
        assert!(said.contains("nothing is dropped") && said.contains("help: make room"), "{said}");
        assert!(!said.contains("room again"), "{said}");
        // The producer sleeps in its write: ring and pipe hold what it has written and no more.
        assert!(feeder.written() < COUNT, "the producer waits");
        assert!(LINES.check(&trail) >= durable, "{driver}: what was acknowledged is there");
        on("verify", &trail, &["--durable", &(durable - 1).to_string()]).expect(0);

        std::fs::remove_file(ballast).expect("it is there");
        let ran = running.end().expect(0);
        assert_eq!(feeder.join(), COUNT);
        assert_eq!(ran.acknowledged(), Some(COUNT - 1), "{driver}");
        assert_eq!(ran.stderr.matches("has no room").count(), 1, "{driver}: {}", ran.stderr);
        assert_eq!(ran.stderr.matches("room again after").count(), 1, "{driver}: {}", ran.stderr);
        on("verify", &trail, &[]).expect(0);
        assert_eq!(LINES.check(&trail), COUNT, "{driver}: each record is there once");
        eprintln!("full disk, {driver}: {durable} records before, {COUNT} after room returned");
    }
}

#[test]
fn a_full_disk_and_a_kill_lose_nothing_announced() {
    if !can_mount() {
        return;
    }
    let Waiting { disk, ballast, trail, running, feeder, .. } = Waiting::new("auto");
    let ran = running.kill();
    feeder.join();
    let durable = ran.acknowledged().expect("records were acknowledged") + 1;
    // Not even a start has room; the trail is readable, and a start with room goes on.
    assert!(LINES.check(&trail) >= durable);
    disk_is_full(run(&mut recording(&trail, "wait"), b"").code());
    assert!(LINES.check(&trail) >= durable);
    // Nor is there, with not a single block, room for anything that recovery would have to allocate.
    let rest = disk.fill(0);
    disk_is_full(run(&mut recording(&trail, "wait"), b"").code());
    assert!(LINES.check(&trail) >= durable);
    std::fs::remove_file(rest).expect("it is there");
    std::fs::remove_file(ballast).expect("it is there");
    let there = LINES.check(&trail);
    run(&mut recording(&trail, "wait"), &LINES.bytes(there, there + 5)).expect(0);
    assert_eq!(LINES.check(&trail), there + 5);
    on("verify", &trail, &["--durable", &(durable - 1).to_string()]).expect(0);
}

/// Whether there was room left for one segment after recovery depends on the filesystem's own needs.
fn disk_is_full(code: i32) {
    assert!(matches!(code, 0 | 6), "{code}");
}

#[test]
fn a_signal_ends_a_writer_that_waits_for_room() {
    if !can_mount() {
        return;
    }
    let waiting = Waiting::new("auto");
    let Waiting { disk: _disk, ballast, trail, mut running, feeder, durable } = waiting;
    running.signal(Signal::TERM);
    // What was read is kept in memory until it can be made durable: there is no end before that.
    std::thread::sleep(STANDSTILL);
    assert!(!running.has_ended(), "what was read is not given up: {}", running.said());
    let said = running.said();
    assert_eq!(said.matches("cannot end yet").count(), 1, "{said}");
    assert!(said.contains("records wait for room") && said.contains("another signal"), "{said}");
    std::fs::remove_file(ballast).expect("it is there");
    let ran = running.end().expect(0);
    feeder.join();
    let acknowledged = ran.acknowledged().expect("records were acknowledged") + 1;
    assert!(acknowledged >= durable);
    let exported = on("export", &trail, &[]).expect(0).stdout;
    let (whole, rest) = LINES.count_and_rest(&exported);
    assert_eq!(whole + u64::from(!rest.is_empty()), acknowledged);
    on("verify", &trail, &[]).expect(0);
}

/// The number that stands before `text`.
fn number_before(said: &str, text: &str) -> u64 {
    let before = said.split(text).next().expect("there is a first part");
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().expect("there is a last part");
    digits.parse().unwrap_or_else(|why| panic!("{text:?} in {said:?}: {why}"))
}

#[test]
fn a_second_signal_gives_up_what_waits_and_says_how_much() {
    if !can_mount() {
        return;
    }
    for driver in ["uring", "sync"] {
        let waiting = Waiting::new(driver);
        let Waiting { disk: _disk, ballast, trail, mut running, feeder, .. } = waiting;
        running.signal(Signal::TERM);
        running.wait_until("the question", |it| it.said().contains("with exit code 6"));
        assert!(!running.has_ended(), "{driver}: {}", running.said());
        let waiting = number_before(&running.said(), " records wait for room");
        running.signal(Signal::INT);
        let ran = running.end().expect(6).says("error: ").says("the wait was given up");
        feeder.join();
        let durable = ran.acknowledged().expect("records were acknowledged") + 1;
        // All that was accepted and is not durable is counted, and where the input goes on is said.
        assert_eq!(number_before(&ran.stderr, " accepted records, seq "), waiting, "{driver}");
        let accepted = durable + waiting;
        let ran = ran.says(&format!("seq {durable}..{accepted}, were never made durable"));
        ran.says(&format!("line {} and what was read after it", accepted + 1));
        // What was acknowledged is there, and nothing of what was given up.
        assert_eq!(LINES.check(&trail), durable, "{driver}");
        on("verify", &trail, &["--durable", &(durable - 1).to_string()]).expect(0);
        // It goes on from there.
        std::fs::remove_file(ballast).expect("it is there");
        run(&mut recording(&trail, "wait"), &LINES.bytes(durable, durable + 5)).expect(0);
        assert_eq!(LINES.check(&trail), durable + 5, "{driver}");
        on("verify", &trail, &[]).expect(0);
        eprintln!("given up, {driver}: {waiting} records after {durable}");
    }
}

#[test]
fn a_full_disk_ends_a_writer_that_was_told_so() {
    if !can_mount() {
        return;
    }
    for driver in ["uring", "sync"] {
        let disk = Mounted::ext4(24, 512);
        let trail = disk.trail();
        let mut command = recording(&trail, "end");
        let (running, feeder) = Feeder::start(command.args(["--disk", driver]), plan(COUNT * 2));
        let ran = running.end().expect(6).says("error: ").says("are durable");
        feeder.join();
        assert!(!ran.stderr.contains("recording waits"), "it does not: {}", ran.stderr);
        let durable = ran.acknowledged().expect("records were acknowledged") + 1;
        let there = LINES.check(&trail);
        assert!(there >= durable, "{driver}: {there} of {durable} are there");
        on("verify", &trail, &["--durable", &(durable - 1).to_string()]).expect(0);
    }
}

#[test]
fn a_disk_without_room_for_a_segment_is_an_error_at_start() {
    if !can_mount() {
        return;
    }
    for on_full in ["wait", "end"] {
        let disk = Mounted::ext4(24, 512);
        disk.fill(256 * 1024);
        let trail = disk.trail();
        let ran = run(&mut recording(&trail, on_full), b"a\nb\n").expect(6);
        assert_eq!(ran.acknowledged(), None);
        ran.says("error: ").says("room");
        // Not even a block for the lock or the identity.
        let disk = Mounted::ext4(24, 512);
        disk.fill(0);
        run(&mut recording(&disk.trail(), on_full), b"a\nb\n")
            .expect(6)
            .says("error: ")
            .says("room");
    }
}

#[test]
fn sectors_of_either_size_work_and_are_said() {
    if !can_mount() {
        return;
    }
    for sector_bytes in [512_u32, 4096] {
        let disk = Mounted::ext4(32, sector_bytes);
        let trail = disk.trail();
        run(&mut recording(&trail, "wait"), &LINES.bytes(0, 500)).expect(0);
        on("verify", &trail, &[]).expect(0);
        assert_eq!(LINES.check(&trail), 500);
        let said = run(crate::rig::graven().args(["doctor", "--trail"]).arg(&trail), b"").text();
        assert!(said.contains(&format!("frames of {sector_bytes} bytes")), "{said}");

        // What a record costs when each is a group commit of its own, at ten a second.
        let trail = disk.path().join("slow");
        let mut command = recording(&trail, "wait");
        let mut running = Running::start(&mut command, std::process::Stdio::piped());
        let mut stdin = running.stdin();
        const RECORDS: u64 = 20;
        for number in 0..RECORDS {
            std::io::Write::write_all(&mut stdin, b"type=TEST a record of about a hundred bytes ")
                .and_then(|()| std::io::Write::write_all(&mut stdin, &[b'x'; 56]))
                .and_then(|()| std::io::Write::write_all(&mut stdin, b"\n"))
                .expect("it reads");
            running.wait_until("its acknowledgement", |it| it.acknowledged() == Some(number));
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(stdin);
        running.end().expect(0);
        let files = std::fs::read_dir(&trail).expect("it is there").flatten();
        let bytes: u64 = files.filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum();
        assert!(
            sector_bytes > 512 || bytes / RECORDS <= 1024,
            "{bytes} bytes of {RECORDS} records"
        );
        eprintln!(
            "sectors of {sector_bytes}: {} bytes of trail for a record of 100 at 10 a second",
            bytes / RECORDS
        );
    }
}

#[test]
fn a_read_only_filesystem_can_be_verified_and_not_recorded_to() {
    if !can_mount() {
        return;
    }
    let disk = Mounted::ext4(24, 512);
    let trail = disk.trail();
    run(&mut recording(&trail, "wait"), &LINES.bytes(0, 50)).expect(0);
    disk.read_only();
    on("verify", &trail, &[]).expect(0);
    assert_eq!(LINES.check(&trail), 50);
    let ran = run(&mut recording(&trail, "wait"), &LINES.bytes(50, 60)).expect(2);
    assert_eq!(ran.acknowledged(), None);
    ran.says("error: ").says("Read-only");
}

#[test]
fn memory_works_with_a_warning() {
    if !can_mount() {
        return;
    }
    let memory = Mounted::tmpfs(16);
    let trail = memory.trail();
    run(&mut recording(&trail, "wait"), &LINES.bytes(0, 300)).expect(0).says("power cut");
    on("verify", &trail, &[]).expect(0);
    assert_eq!(LINES.check(&trail), 300);
    // A full tmpfs is a full disk.
    let trail = memory.path().join("full");
    let (running, feeder) = Feeder::start(&mut recording(&trail, "end"), plan(COUNT));
    let ran = running.end().expect(6);
    feeder.join();
    let durable = ran.acknowledged().expect("records were acknowledged") + 1;
    assert!(LINES.check(&trail) >= durable);
}
