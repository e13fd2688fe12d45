//! `graven run` and `graven record --source netlink` on this machine's kernel. Only one process can
//! be the audit daemon, so the tests take turns with all others that are.

mod common;
#[path = "../../tests/kernel_turn.rs"]
mod kernel_turn;

use common::{Ran, graven, on, ran};
use graven_format::name::Name;
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::{Flags, Record, Source};
use graven_writer::codec::Reading;
use graven_writer::source::kaudit;
use graven_writer::source::nlmsg::Status;
use graven_writer::{Options, Trail};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Held while a test may be the audit daemon: the kernel as it was is the kernel as it shall be.
struct Turn {
    before: Status,
    _turn: kernel_turn::Turn,
}

/// Waits for the turn; `None` if this machine cannot run the test, which is then said.
fn turn() -> Option<Turn> {
    let skip = |why: &str| {
        // In one piece, or another test's output comes in between.
        let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
        None
    };
    if !rustix::process::geteuid().is_root() {
        return skip("not root");
    }
    let turn = kernel_turn::take().expect("the turn");
    match kaudit::status() {
        Err(why) => skip(&why.to_string()),
        Ok(before @ Status { pid: 0, enabled: 0 | 1, .. }) => Some(Turn { before, _turn: turn }),
        Ok(status) => skip(&format!("pid {} is the audit daemon", status.pid)),
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let after = kaudit::status().expect("the status");
        assert_eq!((after.pid, after.enabled), (0, self.before.enabled));
        assert_eq!(after.backlog_limit, self.before.backlog_limit);
        assert_eq!(after.backlog_wait_ticks, self.before.backlog_wait_ticks);
        if let Ok(rules) = Command::new("auditctl").arg("-l").output() {
            let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
            assert!(!rules.contains("key=graven"), "{rules}");
        }
    }
}

fn run(trail: &Path, options: &[&str], command: &[&str]) -> Ran {
    let trail = trail.to_str().expect("a name");
    let mut args = vec!["run", "--trail", trail, "--segment-bytes", "1M"];
    args.extend_from_slice(options);
    args.push("--");
    args.extend_from_slice(command);
    graven(args)
}

fn exported(trail: &Path) -> String {
    String::from_utf8_lossy(&on("export", trail, &[]).stdout).into_owned()
}

#[test]
fn a_command_is_recorded_and_its_output_is_its_own() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let ran = run(&trail, &[], &["sh", "-c", "echo out; echo err >&2; cat; exit 7"]);
    assert_eq!((ran.code, ran.text().as_str()), (7, "out\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("err\n"));
    assert!(ran.stderr.contains("graven verify"), "{}", ran.stderr);
    assert_eq!(on("verify", &trail, &[]).code, 0);
    let log = exported(&trail);
    let execve: Vec<&str> = log.lines().filter(|line| line.starts_with("type=EXECVE")).collect();
    assert!(execve[0].contains("a0=\"sh\""), "{execve:?}");
    assert!(execve.iter().any(|line| line.contains("a0=\"cat\"")), "{execve:?}");
    assert!(!log.contains("type=EOE"));
}

#[test]
fn commands_that_cannot_run_have_the_codes_of_a_shell() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    for (command, code) in [
        (&["/nonexistent/command"][..], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -15 $$"], 143),
        (&["true"], 0),
    ] {
        let ran = run(&trail, &["--quiet"], command);
        assert_eq!(ran.code, code, "{command:?}: {}", ran.stderr);
    }
    let ran = run(&trail, &["--quiet", "--syscalls", "execve,nosuchcall"], &["true"]);
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.contains("nosuchcall"), "{}", ran.stderr);
    assert_eq!(graven(["run", "--no-such-option"]).code, 125);
    assert_eq!(on("verify", &trail, &[]).code, 0);
}

#[test]
fn all_calls_of_a_command_are_recorded() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (few, all) = (dir.path().join("few"), dir.path().join("all"));
    assert_eq!(run(&few, &["--syscalls", "execve"], &["true"]).code, 0);
    assert_eq!(run(&all, &["--syscalls", "all"], &["true"]).code, 0);
    let count = |trail: &Path| exported(trail).matches("key=\"graven\"").count();
    assert!(count(&few) >= 1);
    assert!(count(&all) > count(&few));
    assert_eq!(on("verify", &all, &[]).code, 0);
}

#[test]
fn descendants_that_outlive_the_command_are_waited_for() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let script =
        "(setsid sh -c 'sleep 0.5; /bin/echo late >/dev/null' </dev/null >/dev/null 2>&1 &)";
    let ran = run(&trail, &["--quiet"], &["sh", "-c", script]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(exported(&trail).contains("a1=\"late\""), "the last execve is there");
}

#[test]
fn a_signal_goes_to_the_command_and_the_rest_is_recorded() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let script = "trap '/bin/echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("graven"))
        .args(["run", "--quiet", "--trail"])
        .arg(&trail)
        .args(["--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    // What the terminal sends to all is not graven's to act on.
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }
    assert_eq!(lines.next().expect("a line").expect("text"), "caught");
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    assert!(exported(&trail).contains("a1=\"caught\""));
    assert_eq!(on("verify", &trail, &[]).code, 0);
}

/// A trail of those records of another that are kept: what a writer would have made that did not get the others, or
/// kept silent.
fn remade(from: &Path, to: &Path, keep: &dyn Fn(&Record<'_>) -> bool) {
    let made = Trail::open(to, &Options::default()).expect("a trail");
    let mut names: Vec<_> = std::fs::read_dir(from)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    for file in &names {
        let Some(Name::Segment { segment, first_seq }) = Name::parse(file) else { continue };
        let expect = Expect { segment, first_seq, trail_id: None, merkle: false };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        scanner.push(&std::fs::read(from.join(file)).expect("a segment"));
        scanner.end();
        while let Some(event) = scanner.next_event() {
            let Event::Record { record, .. } = event else { continue };
            if !record.flags.contains(Flags::CHECKPOINT) && keep(&record) {
                made.append(&record).expect("taken");
            }
        }
    }
    made.close().expect("closed");
}

/// The source gaps that `verify` finds, as first, last and events.
fn gaps(trail: &Path) -> (i32, Vec<(u64, u64, u64)>) {
    let ran = on("verify", trail, &["--json"]);
    let report = ran.json()["source_gaps"].clone();
    assert_eq!((&report["sessions"], &report["without_end"]), (&1.into(), &0.into()), "{report}");
    let number = |gap: &serde_json::Value, name: &str| gap[name].as_u64().expect("a number");
    let list = report["gaps"].as_array().expect("a list").iter();
    let list = list.map(|it| (number(it, "first"), number(it, "last"), number(it, "events")));
    (ran.code, list.collect())
}

#[test]
fn the_serials_of_a_real_storm_show_what_a_writer_left_out_and_nothing_else() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (trail, less) = (dir.path().join("trail"), dir.path().join("less"));
    let opens = "n=3000; while [ $n -gt 0 ]; do n=$((n-1)); : </dev/null; done";
    let script = format!("({opens}) & {opens}; wait");
    let ran = run(&trail, &["--syscalls", "openat"], &["sh", "-c", &script]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(gaps(&trail), (0, vec![]), "no false alarm");
    let same = dir.path().join("same");
    remade(&trail, &same, &|_| true);
    assert_eq!(gaps(&same), (0, vec![]));
    // Three events in a row, and another one, of those that the two processes made.
    let log = exported(&trail);
    let calls = log.lines().filter(|line| line.starts_with("type=SYSCALL"));
    let serial = |line: &str| {
        let stamp = line.split_once("):").expect("a stamp").0;
        stamp.rsplit_once(':').expect("a serial").1.parse::<u64>().expect("a number")
    };
    let mut serials: Vec<u64> = calls.map(serial).collect();
    serials.sort_unstable();
    let (one, row) = (serials[5000], serials[2000]);
    remade(&trail, &less, &|record| {
        record.source != Source::Netlink
            || record.source_seq != one && !(row..row + 3).contains(&record.source_seq)
    });
    assert_eq!(gaps(&less), (4, vec![(row, row + 2, 3), (one, one, 1)]));
}

#[test]
fn the_daemon_records_until_it_is_told_to_stop_and_is_the_only_one() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let mut daemon = Command::new(assert_cmd::cargo::cargo_bin("graven"))
        .args(["record", "--source", "netlink", "--ack", "--trail"])
        .arg(&trail)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(daemon.stdout.take().expect("a pipe")).lines();
    // The opening marker.
    assert!(lines.next().expect("a line").expect("text").starts_with("durable "));
    let other = dir.path().join("other");
    let other = other.to_str().expect("a name");
    let second = graven(["record", "--source", "netlink", "--trail", other]);
    assert_eq!(second.code, 8, "{}", second.stderr);
    assert!(
        second.stderr.contains(&format!("process {} (graven)", daemon.id())),
        "{}",
        second.stderr
    );
    let third = graven(["run", "--trail", other, "--", "true"]);
    assert_eq!(third.code, 125, "{}", third.stderr);
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let output = daemon.wait_with_output().expect("it ends");
    assert_eq!(ran(&output).code, 0);
    assert_eq!(on("verify", &trail, &[]).code, 0);
}

#[test]
fn a_thread_that_cannot_be_started_is_said_and_the_kernel_is_given_back() {
    let Some(_turn) = turn() else { return };
    let trace = |args: &[&str]| Command::new("strace").args(args).output();
    if !trace(&["-f", "-qq", "-o", "/dev/null", "true"]).is_ok_and(|it| it.status.success()) {
        eprintln!("SKIPPED: strace is not there or may not trace");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let bin = assert_cmd::cargo::cargo_bin("graven");
    let bin = bin.to_str().expect("a name");
    let mut refused = Vec::new();
    // Each thread counts its own calls: the main thread starts all but one, the receiver that one.
    for number in 1..12 {
        let trail = dir.path().join(format!("trail-{number}"));
        let trail = trail.to_str().expect("a name");
        let inject = format!("inject=clone3:error=EAGAIN:when={number}");
        let output = trace(&[
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &inject,
            "--",
            bin,
            "run",
            "--trail",
            trail,
            "--segment-bytes",
            "1M",
            "--",
            "true",
        ]);
        let ran = ran(&output.expect("it starts"));
        assert!(!ran.stderr.contains("panicked"), "{number}: {}", ran.stderr);
        if ran.code == 0 {
            break;
        }
        assert_eq!(ran.code, 125, "{number}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("error: ") && ran.stderr.contains("help: raise"),
            "{number}: {}",
            ran.stderr
        );
        refused.push(ran.stderr);
    }
    let threads = refused.iter().filter(|said| said.contains("cannot start a thread")).count();
    assert!(threads >= 3, "{refused:#?}");
    // That the kernel is as it was is looked at when the turn ends.
}

/// A tmpfs that is gone when it is dropped.
struct Memory(tempfile::TempDir);

impl Memory {
    /// `None` if this machine does not let us, which is then said.
    fn mounted(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED: a tmpfs cannot be mounted");
        None
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_and_a_signal_after_that_gives_up_and_gives_the_kernel_back() {
    let Some(_turn) = turn() else { return };
    let Some(memory) = Memory::mounted(5) else { return };
    let trail = memory.0.path().join("trail");
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("stderr");
    // More records than disk and ring take, and fewer than the socket does.
    let script = "i=0; while [ $i -lt 400 ]; do /bin/true; i=$((i + 1)); done";
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("graven"))
        .args(["run", "--segment-bytes", "1M", "--ring-bytes", "1M", "--syscalls", "all"])
        .arg("--trail")
        .arg(&trail)
        .args(["--", "sh", "-c", script])
        .stderr(File::create(&log).expect("a file"))
        .spawn()
        .expect("it starts");
    let said = || std::fs::read_to_string(&log).expect("text");
    let pid = rustix::process::Pid::from_child(&child);
    let term =
        || rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("not waited");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
    let mut asked = false;
    // Signals before the command's end are the command's; the first one after it is answered.
    while child.try_wait().expect("a child").is_none() {
        assert!(std::time::Instant::now() < deadline, "it hangs: {}", said());
        if said().contains("has no room") {
            asked |= said().contains("cannot end yet");
            term();
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let (said, status) = (said(), child.wait().expect("it ends"));
    assert!(asked, "it does not end before it was said what waits: {said}");
    assert_eq!(status.code(), Some(125), "{said}");
    assert_eq!(said.matches("has no room").count(), 1, "{said}");
    assert!(said.contains("with exit code 125"), "{said}");
    assert!(said.contains("were never made durable and are gone"), "{said}");
    assert_eq!(on("verify", &trail, &[]).code, 0);
}
