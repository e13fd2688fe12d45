//! Devices that fail, and devices that are slow, under io_uring, where no system call can be made to
//! fail.

use crate::rig::feeder::{Feeder, Plan, Speed};
use crate::rig::lines::Lines;
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::throttle::Slow;
use crate::rig::{Running, graven, on, record, run};
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

const LINES: Lines = Lines { seed: 5, bytes_max: 8 * 1024, long_every: 100 };

/// The device, a loop device whose file finds no room any more, breaks while records are written: the process ends with code 5 and says what failed.
/// Either driver sees the same error, one in a completion and one from a system call.
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
            command.args(["record", "--source", "stdin", "--ack", "--segment-bytes", "4M"]);
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
