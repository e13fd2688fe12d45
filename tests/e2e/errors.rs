//! A device that fails under io_uring, where no system call can be made to: a loop device whose file
//! finds no room any more answers writes with EIO.

use crate::rig::feeder::{Feeder, Plan, Speed};
use crate::rig::lines::Lines;
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::{on, record};

const LINES: Lines = Lines { seed: 5, bytes_max: 8 * 1024, long_every: 100 };

/// The device breaks while records are written: the process ends with code 5 and says what failed.
/// Either driver sees the same error, one in a completion and one from a system call.
#[test]
fn a_failing_device_ends_the_writer_and_what_was_announced_is_there() {
    if !can_mount() {
        return;
    }
    for driver in ["uring", "sync"] {
        let disk = Mounted::ext4_on_failing_device(64, 12);
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
