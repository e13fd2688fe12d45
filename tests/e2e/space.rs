//! What is done when space is short or storage fails: the evaluators' cases (`test_space_left`,
//! `test_admin_space_left`, `test_disk_full_action`, `test_disk_error_action`, LAuS' `test_rollover_failure`) on loop
//! devices, with every action that would touch the machine below a root of the test's own.

use crate::rig::failing::Failing;
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::{Ran, Running, number, on, record, record_signed, temp_dir};
use graven_format::{Flags, Record, Source};
use graven_tools::config::SpaceSection;
use graven_tools::recording::housekeeping::Housekeeping;
use graven_tools::recording::{SpaceArgs, TrailArgs};
use graven_writer::source::Sink as _;
use graven_writer::{Trail, clock};
use rustix::process::Signal;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Bytes of a line: 200 of them, as many as evaluators write, are several of the smallest segments.
const LINE_BYTES: usize = 8000;

/// How long nothing may be accepted before producers count as waiting.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Line `n`.
fn line(n: u64) -> Vec<u8> {
    let mut line = format!("line {n} ").into_bytes();
    line.resize(LINE_BYTES, b'x');
    line.push(b'\n');
    line
}

/// A machine of the test's own: what actions use of one is here, and writes down what it is asked for.
struct Machine {
    root: tempfile::TempDir,
    log: UnixDatagram,
}

impl Machine {
    fn new() -> Self {
        let root = temp_dir();
        let made = |dir: &str| std::fs::create_dir_all(root.path().join(dir)).expect("a directory");
        ["sbin", "usr/sbin", "dev", "proc"].into_iter().for_each(made);
        let log = UnixDatagram::bind(root.path().join("dev/log")).expect("a socket");
        log.set_nonblocking(true).expect("a mode");
        let this = Self { root, log };
        this.script("sbin/telinit", "echo telinit $* >> $out/asked");
        this.script("usr/sbin/sendmail", "cat >> $out/mail; echo sendmail >> $out/asked");
        this.script("alarm", "echo exec $1 >> $out/asked");
        this
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(name);
        let text = format!("#!/bin/sh\nout={}\n{text}\n", self.root.path().display());
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("a mode");
        path
    }

    /// What was asked of it.
    fn asked(&self) -> String {
        std::fs::read_to_string(self.root.path().join("asked")).unwrap_or_default()
    }

    /// Lines that syslog got with this in them.
    fn logged(&self, text: &str) -> usize {
        let mut bytes = [0; 4096];
        let mut count = 0;
        while let Ok(len) = self.log.recv(&mut bytes) {
            count += usize::from(String::from_utf8_lossy(&bytes[..len]).contains(text));
        }
        count
    }

    /// `graven record` with the smallest segments, on this machine.
    fn recording(&self, trail: &Path, args: &[&str]) -> Command {
        let mut command = record(trail);
        // Compressing what is sealed would make room.
        command.args(["--ring-bytes", "2M", "--compress-sealed", "0"]).args(args);
        command.env("GRAVEN_SYSTEM_ROOT", self.root.path());
        command
    }
}

/// The lines of a trail, in order and each once, and Graven's own records in it.
#[track_caller]
fn exported(trail: &Path) -> (u64, Vec<String>) {
    let out = on("export", trail, &[]).expect(0).stdout;
    let (mut lines, mut own) = (0, Vec::new());
    for text in out.split_inclusive(|byte| *byte == b'\n') {
        if text == line(lines) {
            lines += 1;
        } else {
            own.push(String::from_utf8_lossy(text).into_owned());
        }
    }
    assert!(own.iter().all(|it| it.contains(" op=")), "only own records are between: {own:?}");
    (lines, own)
}

/// How many of them have all of these in them.
fn with(own: &[String], texts: &[&str]) -> usize {
    own.iter().filter(|it| texts.iter().all(|text| it.contains(text))).count()
}

/// Writes lines until nothing more is taken for a while, on a thread.
struct Producer {
    written: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Producer {
    fn start(mut stdin: std::process::ChildStdin, from: u64, to: u64) -> Self {
        let written = Arc::new(AtomicU64::new(from));
        let count = Arc::clone(&written);
        let thread = std::thread::spawn(move || {
            for n in from..to {
                if stdin.write_all(&line(n)).is_err() {
                    return;
                }
                count.store(n + 1, Ordering::Release);
            }
        });
        Self { written, thread }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Waits until it waits.
    #[track_caller]
    fn standstill(&self, running: &mut Running) {
        running.wait_until("full disk", |it| it.said().contains("disk_full: "));
        loop {
            let before = self.written();
            std::thread::sleep(STANDSTILL);
            if self.written() == before {
                assert!(!running.has_ended(), "{}", running.said());
                return;
            }
        }
    }

    fn join(self) -> u64 {
        self.thread.join().expect("no panic");
        self.written.load(Ordering::Acquire)
    }
}

/// Fills to the limit and 5 KB, writes 200 records: the action is taken once, and is in the trail.
#[test]
fn each_threshold_acts_once_and_its_action_is_in_the_trail() {
    if !can_mount() {
        return;
    }
    for (option, op, words) in [
        ("--space-left", "op=space-left", "low on disk space for logging"),
        ("--admin-space-left", "op=admin-space-left", "only admin space is left"),
    ] {
        for (action, asked) in
            [("log", ""), ("email", "sendmail\n"), ("exec", "exec "), ("single", "telinit 1\n")]
        {
            let (machine, disk) = (Machine::new(), Mounted::ext4(48, 512));
            let trail = disk.trail();
            let program = format!("exec {}", machine.root.path().join("alarm").display());
            let action = if action == "exec" { program.as_str() } else { action };
            let limit_of = format!("{option}-action");
            // The other threshold is far from where anything happens.
            let other = if option == "--space-left" {
                ["--admin-space-left", "1"]
            } else {
                ["--space-left", "47"]
            };
            let ignored = if option == "--space-left" {
                "--admin-space-left-action"
            } else {
                "--space-left-action"
            };
            let mut command =
                machine.recording(&trail, &[option, "15", &limit_of, action, ignored, "ignore"]);
            let mut running = Running::start(command.args(other), Stdio::piped());
            let mut stdin = running.stdin();
            stdin.write_all(&line(0)).expect("it reads");
            running.wait_until("acknowledgement", |it| it.acknowledged().is_some());
            // The next segment is prepared, and the reserve is there.
            std::thread::sleep(Duration::from_millis(500));
            let before = machine.asked();
            assert_eq!(before, "", "{option}: nothing happens before it");
            let ballast = disk.fill(15 * MIB + 5 * 1024);
            (1..=200).for_each(|n| stdin.write_all(&line(n)).expect("it reads"));
            running.wait_until("alarm", |it| {
                it.said().contains("space_left: ")
                    && (asked.is_empty() || !machine.asked().is_empty())
            });
            // It does not come again while it lasts.
            (201..=250).for_each(|n| stdin.write_all(&line(n)).expect("it reads"));
            std::fs::remove_file(ballast).expect("it is there");
            running.wait_until("its end", |it| it.said().contains(" is over"));
            // What is said or ends while recording ends is in no trail: each is waited for there.
            running.wait_until("its end in the trail", |_| {
                with(&exported(&trail).1, &["type=DAEMON_RESUME", op]) > 0
            });
            running.wait_until("how the program ended", |_| {
                asked.is_empty() || with(&exported(&trail).1, &[op, "exit=0"]) > 0
            });
            drop(stdin);
            running.end().expect(0);
            let (lines, own) = exported(&trail);
            assert_eq!(lines, 251, "{option} {action}");
            let word = action.split(' ').next().expect("a word");
            assert_eq!(
                with(&own, &[op, &format!("act={word}"), "limit=15728640", "res=success"]),
                1,
                "{own:?}"
            );
            // How the program ended.
            assert_eq!(
                with(&own, &[op, "exit=0", "res=success"]),
                usize::from(!asked.is_empty()),
                "{own:?}"
            );
            assert!(with(&own, &["type=DAEMON_RESUME", op]) == 1, "{own:?}");
            assert!(machine.asked().starts_with(asked), "{}", machine.asked());
            assert_eq!(machine.asked().lines().count(), usize::from(!asked.is_empty()), "once");
            assert_eq!(machine.logged(words), 1);
            if word == "email" {
                let mail =
                    std::fs::read_to_string(machine.root.path().join("mail")).expect("a mail");
                assert!(mail.contains("Disk Space Alert\n"), "{mail}");
            }
            on("verify", &trail, &[]).expect(0);
        }
    }
}

/// A recorder whose producer waits because the disk is full.
struct Full {
    machine: Machine,
    disk: Mounted,
    ballast: PathBuf,
    trail: PathBuf,
    running: Running,
    producer: Producer,
}

/// Lines that are more than the disk takes with its ballast, and less than without.
const LINES: u64 = 2500;

impl Full {
    fn new(action: &str) -> Self {
        let (machine, disk) = (Machine::new(), Mounted::ext4(40, 512));
        let trail = disk.trail();
        let ballast = disk.fill(10 * MIB);
        let quiet =
            ["--space-left", "2", "--space-left-action", "ignore", "--admin-space-left", "1"];
        let mut command = machine.recording(&trail, &quiet);
        let program = format!("exec {}", machine.root.path().join("alarm").display());
        let action = if action == "exec" { program.as_str() } else { action };
        command.args(["--admin-space-left-action", "ignore", "--disk-full-action", action]);
        let mut running = Running::start(&mut command, Stdio::piped());
        let producer = Producer::start(running.stdin(), 0, LINES);
        producer.standstill(&mut running);
        Self { machine, disk, ballast, trail, running, producer }
    }

    /// Waits until Graven's own record of it can be read in the trail, while all wait.
    #[track_caller]
    fn recorded(&mut self, texts: &[&str]) {
        let trail = self.trail.clone();
        self.running.wait_until("own record", |_| with(&exported(&trail).1, texts) > 0);
    }

    /// Makes room, and waits for the end.
    #[track_caller]
    fn resume(self) -> (Ran, Vec<String>, Machine) {
        std::fs::remove_file(&self.ballast).expect("it is there");
        let ran = self.running.end().expect(0);
        assert_eq!(self.producer.join(), LINES);
        on("verify", &self.trail, &[]).expect(0);
        let (lines, own) = exported(&self.trail);
        assert_eq!(lines, LINES, "each is there once, in order");
        drop(self.disk);
        (ran, own, self.machine)
    }
}

/// The disk is full, with each action: it is taken once, it is in the trail while the producer still waits, nothing is lost
/// and recording goes on by itself.
#[test]
fn a_full_disk_acts_once_records_it_from_the_reserve_and_goes_on() {
    if !can_mount() {
        return;
    }
    let seconds = number("GRAVEN_E2E_BLOCKED_SECONDS").unwrap_or(5);
    for (action, asked) in [
        ("block", ""),
        ("halt", "telinit 0\n"),
        ("single", "telinit 1\n"),
        ("log", ""),
        ("email", "sendmail\n"),
        ("exec", "exec disk_full\n"),
    ] {
        let mut full = Full::new(action);
        full.recorded(&["op=disk-full", &format!("act={action}"), "res=success"]);
        let reserve = std::fs::metadata(full.trail.join("reserve")).expect("it is there");
        assert_eq!(reserve.len(), 0, "it was given back");
        if action == "block" {
            // LAuS: the producer is still blocked after 30 s, while whoever is not audited runs.
            let written = full.producer.written();
            let until = Instant::now() + Duration::from_secs(seconds);
            let mut ran = 0_u64;
            while Instant::now() < until {
                assert!(std::process::Command::new("true").status().expect("it runs").success());
                ran += 1;
            }
            assert_eq!(full.producer.written(), written, "it is still blocked after {seconds} s");
            eprintln!("blocked for {seconds} s, while {ran} other processes ran");
        }
        let (ran, own, machine) = full.resume();
        assert_eq!(
            with(&own, &["type=DAEMON_ERR", "op=disk-full", &format!("act={action}"), "free="]),
            1,
            "{own:?}"
        );
        assert_eq!(with(&own, &["type=DAEMON_RESUME", "op=disk-full"]), 1, "{own:?}");
        assert_eq!(machine.asked(), asked);
        assert_eq!(machine.logged("no space left on logging partition"), 1);
        ran.says("disk_full is over");
    }
}

#[test]
fn a_signal_ends_recording_while_producers_wait_at_the_gate() {
    if !can_mount() {
        return;
    }
    let full = Full::new("block");
    full.running.signal(Signal::TERM);
    // What was read fits what the reserve gave back.
    let ran = full.running.end().expect(0);
    let (lines, own) = exported(&full.trail);
    assert!(lines > 0 && lines <= LINES && with(&own, &["op=disk-full"]) > 0, "{own:?}");
    assert!(ran.acknowledged().expect("some") >= lines - 1);
    on("verify", &full.trail, &[]).expect(0);
    drop(full.producer);
}

/// `drop` was asked for: the producer goes on, and the trail says how many are missing.
#[test]
fn dropping_is_counted_and_stated() {
    if !can_mount() {
        return;
    }
    let (machine, disk) = (Machine::new(), Mounted::ext4(40, 512));
    let trail = disk.trail();
    disk.fill(10 * MIB);
    let quiet = ["--space-left", "2", "--admin-space-left", "1", "--disk-full-action", "drop"];
    let mut command = machine.recording(&trail, &quiet);
    let mut running = Running::start(&mut command, Stdio::piped());
    let producer = Producer::start(running.stdin(), 0, LINES);
    running.wait_until("full disk", |it| it.said().contains("disk_full: "));
    assert_eq!(producer.join(), LINES, "it does not wait");
    running.end().expect(0);
    let verified = on("verify", &trail, &["--json"]).expect(4).text();
    let report: serde_json::Value = serde_json::from_str(&verified).expect("it is JSON");
    let statements = report["losses"]["statements"].as_array().expect("a list").clone();
    let exactly: Vec<_> =
        statements.iter().filter(|it| it["statement"]["certainty"] == "exactly").collect();
    assert!(exactly.iter().all(|it| it["statement"]["cause"] == "dropped"), "{verified}");
    let dropped: u64 = exactly.iter().filter_map(|it| it["statement"]["count"].as_u64()).sum();
    let out = on("export", &trail, &[]).expect(0).stdout;
    let recorded =
        out.split(|byte| *byte == b'\n').filter(|it| it.starts_with(b"line ")).count() as u64;
    assert!(dropped > 0 && recorded > 0, "{dropped} {recorded}");
    assert_eq!(dropped + recorded, LINES, "what is not there is counted");
}

/// A write fails: the writer ends, says what is durable, and the action is taken.
#[test]
fn a_disk_error_acts_and_loses_nothing_announced() {
    if !can_mount() {
        return;
    }
    for (action, asked) in [("halt", "telinit 0\n"), ("exec", "exec disk_error\n"), ("log", "")] {
        let Some(disk) = Failing::ext4(64) else { return };
        let (machine, trail) = (Machine::new(), disk.trail());
        let program = format!("exec {}", machine.root.path().join("alarm").display());
        let action = if action == "exec" { program.as_str() } else { action };
        let mut command =
            machine.recording(&trail, &["--disk-error-action", action, "--reserve", "off"]);
        let mut running = Running::start(&mut command, Stdio::piped());
        let mut stdin = running.stdin();
        (0..20).for_each(|n| stdin.write_all(&line(n)).expect("it reads"));
        running.wait_until("acknowledgement", |it| it.acknowledged() >= Some(19));
        disk.fail();
        let _ = (20..500).try_for_each(|n| stdin.write_all(&line(n)));
        let ran = running.end().expect(5).says("disk_error: the trail's storage failed");
        assert_eq!(machine.asked(), asked);
        assert_eq!(machine.logged("disk_error"), 1);
        let announced = ran.acknowledged().expect("some") + 1;
        let good = disk.on_a_good_device(64);
        assert!(exported(&good.trail()).0 >= announced.min(20));
    }
}

/// The numbers of the lines that are left, which follow each other.
#[track_caller]
fn left(trail: &Path) -> std::ops::Range<u64> {
    let out = on("export", trail, &[]).expect(0).stdout;
    let numbers: Vec<u64> = out
        .split(|byte| *byte == b'\n')
        .filter_map(|it| {
            std::str::from_utf8(it.strip_prefix(b"line ")?).ok()?.split(' ').next()?.parse().ok()
        })
        .collect();
    let (first, last) =
        (numbers.first().copied().unwrap_or(0), numbers.last().map_or(0, |last| last + 1));
    assert!(numbers.iter().copied().eq(first..last), "none is missing, doubled or out of order");
    first..last
}

/// Old segments go while records come, also when the writer is killed: what is left begins where the trail says, and no
/// record in it is missing or doubled.
#[test]
fn old_segments_go_without_missing_or_doubled() {
    let (machine, dir) = (Machine::new(), temp_dir());
    let trail = dir.path().join("trail");
    let args = ["--keep", "4", "--space-left", "1", "--space-left-action", "ignore"];
    let thresholds = ["--admin-space-left", "0", "--reserve", "off"];
    let (mut next, mut announced) = (0, 0);
    for round in 0..4 {
        // Checkpoints are records here, and keys change.
        let mut command = record_signed(&trail);
        command.args(["--ring-bytes", "2M", "--compress-sealed", "0"]).args(args).args(thresholds);
        command.env("GRAVEN_SYSTEM_ROOT", machine.root.path());
        let mut running = Running::start(&mut command, Stdio::piped());
        let mut stdin = running.stdin();
        (next..next + 600).for_each(|n| stdin.write_all(&line(n)).expect("it reads"));
        let segments = |trail: &Path| {
            let names =
                std::fs::read_dir(trail).into_iter().flatten().flatten().map(|it| it.path());
            names.filter(|it| it.extension().is_some_and(|it| it == "seg")).count()
        };
        running.wait_until("removal", |_| (2..=4).contains(&segments(&trail)));
        if round == 3 {
            drop(stdin);
            running.end().expect(0);
        } else {
            running.kill();
        }
        let verified = on("verify", &trail, &["--json"]);
        let report: serde_json::Value = serde_json::from_str(&verified.text()).expect("it is JSON");
        assert!(matches!(verified.code(), 0 | 3), "{report:#}");
        assert!(report["scope"]["removed"]["last_segment"].as_u64() > Some(0), "{report:#}");
        let there = left(&trail);
        assert!(there.start > announced && there.end <= next + 600, "{there:?} of {next}");
        announced = there.start;
        eprintln!("round {round}: lines {there:?} are left, {}", report["scope"]["removed"]);
        // What was not acknowledged is sent again.
        next = there.end;
    }
    let text = on("verify", &trail, &[]).text();
    assert!(text.contains("removed by retention at"), "{text}");
}

#[derive(clap::Parser)]
struct Given {
    #[command(flatten)]
    trail: TrailArgs,
    #[command(flatten)]
    space: SpaceArgs,
}

fn application(bytes: &[u8]) -> Record<'_> {
    let now = clock::now();
    let (realtime_ns, boottime_ns) = (now.realtime_ns, now.boottime_ns);
    let (source, flags) = (Source::Socket, Flags::NONE);
    Record { source, kind: 0, flags, realtime_ns, boottime_ns, source_seq: 0, bytes }
}

/// LAuS' `test_rollover_failure`: two producers still wait after 30 s; the administrator's, which is exempt, goes on, and
/// each of its records becomes durable.
#[test]
fn the_exempt_administrator_goes_on_from_the_reserve_while_producers_wait() {
    if !can_mount() {
        return;
    }
    let disk = Mounted::ext4(40, 512);
    let ballast = disk.fill(10 * MIB);
    let dir = disk.trail();
    let args = [
        "test",
        "--trail",
        dir.to_str().expect("letters"),
        "--segment-bytes",
        "512K",
        "--ring-bytes",
        "2M",
        "--quiet",
    ];
    let given = <Given as clap::Parser>::parse_from(args.into_iter().chain([
        "--space-left",
        "2",
        "--admin-space-left",
        "1",
    ]));
    let trail = given.trail.open().expect("it opens");
    let section = given.space.over(&SpaceSection::default());
    let started = Housekeeping::start(&section, &given.trail, Source::Socket, &trail);
    let housekeeping = started.expect("it starts");
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let seconds = number("GRAVEN_E2E_BLOCKED_SECONDS").unwrap_or(30);
    std::thread::scope(|scope| {
        let (trail, written, stop): (&Trail, _, _) = (&trail, &written, &stop);
        for _ in 0..2 {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    trail.append(&application(&[b'p'; LINE_BYTES])).expect("never refused");
                    written.fetch_add(1, Ordering::Release);
                }
            });
        }
        while trail.gate().waiting() < 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = written.load(Ordering::Acquire);
        let until = Instant::now() + Duration::from_secs(seconds);
        let (exempt, watermark) = (trail.exempt(), trail.watermark());
        let mut done = 0_u64;
        while Instant::now() < until {
            let seq = exempt.append(&application(b"administrator")).expect("it is taken");
            watermark.wait_past(seq).expect("it becomes durable");
            done += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(done > 10, "{done}");
        assert_eq!(
            written.load(Ordering::Acquire),
            before,
            "producers still wait after {seconds} s"
        );
        std::fs::remove_file(&ballast).expect("it is there");
        stop.store(true, Ordering::Relaxed);
    });
    trail.close().expect("it is closed");
    housekeeping.end(false);
    on("verify", &dir, &[]).expect(0);
    let out = on("export", &dir, &[]).expect(0).stdout;
    let records = out.split(|byte| *byte == b'\n').filter(|it| it.starts_with(b"pppp")).count();
    assert_eq!(records as u64, written.into_inner(), "none is lost or twice");
}

/// Neither the trail nor the reserve is for others, whoever's umask it is.
#[test]
fn others_can_read_nothing() {
    if !can_mount() {
        return;
    }
    let (machine, disk) = (Machine::new(), Mounted::ext4(40, 512));
    let trail = disk.trail();
    let mut command = Command::new("sh");
    let inner = machine.recording(&trail, &["--space-left", "1%", "--admin-space-left", "1"]);
    command
        .args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.env("GRAVEN_SYSTEM_ROOT", machine.root.path());
    crate::rig::run(&mut command, &line(0)).expect(0);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").mode() & 0o7777;
    assert_eq!(mode(&trail), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&trail).expect("it is there").flatten() {
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{:?}", entry.path());
        files += 1;
    }
    assert!(files >= 4, "segment, identity, lock, reserve");
    // As another user.
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graven"));
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        crate::rig::run(command.args(args).arg(&trail), b"")
    };
    for args in [&["export"][..], &["verify"], &["show"]] {
        let ran = as_nobody(args);
        assert_ne!(ran.code(), 0, "{args:?}");
        assert!(ran.stdout.is_empty(), "{args:?}: {}", ran.text());
    }
}
