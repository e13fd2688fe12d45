//! A writer that is told to stop, one that is read beside, and one without io_uring.

use crate::rig::feeder::{Feeder, Plan, Speed};
use crate::rig::lines::Lines;
use crate::rig::strace::{can_trace, under};
use crate::rig::{on, record, run, temp_dir};
use rustix::process::Signal;

const LINES: Lines = Lines { seed: 13, bytes_max: 4 * 1024, long_every: 200 };

#[test]
fn a_signal_ends_it_and_all_that_was_read_is_durable() {
    let dir = temp_dir();
    for (signal, driver) in [
        (Signal::TERM, "uring"),
        (Signal::INT, "sync"),
        (Signal::HUP, "auto"),
        (Signal::TERM, "sync"),
    ] {
        let trail = dir.path().join(format!("{signal:?}-{driver}"));
        let mut command = record(&trail);
        command.args(["--ring-bytes", "2M", "--disk", driver]);
        let plan = Plan { lines: LINES, from: 0, to: u64::MAX, speed: Speed::Bursts(300), seed: 1 };
        let (mut running, feeder) = Feeder::start(&mut command, plan);
        running.wait_until("some records", |it| it.acknowledged() > Some(500));
        running.signal(signal);
        // A disk that has room is given the time that it needs, however often somebody asks.
        running.signal(Signal::TERM);
        let ran = running.end().expect(0);
        let sent = feeder.join();
        let acknowledged = ran.acknowledged().expect("records were acknowledged") + 1;
        let exported = on("export", &trail, &[]).expect(0).stdout;
        let (whole, rest) = LINES.count_and_rest(&exported);
        let mut line = Vec::new();
        LINES.write(whole, &mut line);
        assert!(line.starts_with(rest), "{signal:?}: the last line may be cut and is not changed");
        assert_eq!(
            whole + u64::from(!rest.is_empty()),
            acknowledged,
            "{signal:?}: all is announced"
        );
        assert!(whole <= sent + 64);
        let verified = on("verify", &trail, &[]).expect(0).text();
        assert!(verified.contains("stopped cleanly"), "{verified}");
    }
}

#[test]
fn a_trail_can_be_read_while_it_is_written() {
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    // Slowly, so that there is not too much to read again and again.
    let plan = Plan { lines: LINES, from: 0, to: u64::MAX, speed: Speed::Bursts(40_000), seed: 1 };
    let (mut running, feeder) = Feeder::start(record(&trail).args(["--ring-bytes", "4M"]), plan);
    running.wait_until("a record", |it| it.acknowledged().is_some());
    let pid = running.pid().to_string();
    let mut there = 0;
    for _ in 0..15 {
        let durable = running.acknowledged().expect("there was one");
        let verified = on("verify", &trail, &["--durable", &durable.to_string()]).expect(0).text();
        assert!(verified.contains(&pid), "it says that a writer is running: {verified}");
        let now = LINES.check(&trail);
        assert!(now > durable && now >= there, "{durable} announced, {there}, then {now} there");
        there = now;
    }
    running.signal(Signal::TERM);
    running.end().expect(0);
    feeder.stop();
    feeder.join();
    on("verify", &trail, &[]).expect(0);
}

#[test]
fn without_io_uring_it_uses_pwrite_and_says_so() {
    if !can_trace() {
        return;
    }
    let dir = temp_dir();
    for errno in ["EPERM", "ENOSYS", "ENOMEM", "EINVAL"] {
        let args = ["-o", "/dev/null", "-e", &format!("inject=io_uring_setup:error={errno}")]
            .map(str::to_owned);
        let trail = dir.path().join(errno);
        let ran = run(&mut under(&record(&trail), &args), &LINES.bytes(0, 300)).expect(0);
        assert_eq!(ran.acknowledged(), Some(299));
        assert_eq!(LINES.check(&trail), 300);
        on("verify", &trail, &[]).expect(0);
        ran.says("io_uring").says("pwrite");
        // Whoever asks for io_uring and nothing else gets an error.
        let trail = dir.path().join(format!("{errno}-only"));
        let mut command = record(&trail);
        command.args(["--disk", "uring"]);
        run(&mut under(&command, &args), b"x\n").expect(2).says("io_uring");
    }
}
