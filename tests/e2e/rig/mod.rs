//! What the tests share: running the command with a bound on time, and saying why a test cannot run.

pub(crate) mod audit;
pub(crate) mod failing;
pub(crate) mod feeder;
pub(crate) mod kept;
pub(crate) mod lines;
pub(crate) mod mount;
pub(crate) mod random;
pub(crate) mod strace;
pub(crate) mod throttle;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time that any process of a test may take. It bounds a hang and measures nothing: the
/// machine may be slow and busy.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// How often a process is looked after.
const POLL: Duration = Duration::from_millis(2);

/// The smallest segments, so that a short test changes them often.
pub(crate) const SEGMENT: &str = "512K";

/// Says that a test did not run, and why.
pub(crate) fn skip(why: &str) {
    // Not through the harness, which keeps the output of tests that pass to itself; and in one piece, or
    // another test's output comes in between.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
    assert!(std::env::var_os("GRAVEN_E2E_STRICT").is_none(), "SKIPPED: {why}");
}

/// A number from the environment.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

/// Whether we are root; says so if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("this test needs root");
    }
    root
}

/// A directory for one test on a real filesystem: the one of the build, because /tmp is often
/// memory. It is removed on drop.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("e2e-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a temporary directory")
}

/// The command.
pub(crate) fn graven() -> Command {
    Command::new(env!("CARGO_BIN_EXE_graven"))
}

/// A signed trail whose checkpoints stand in trailers only: then the seq of a record is the number of
/// its line.
pub(crate) const NO_RECORDS: [&str; 5] =
    ["--checkpoint-interval=off", "--epoch", "365d", "--epoch-segments", "1000000"];

/// `graven record` from standard input into `trail`, with the smallest segments.
pub(crate) fn record(trail: &Path) -> Command {
    record_from("stdin", trail)
}

/// The same with checkpoints among the records as often as can be, and a key for each segment.
pub(crate) fn record_signed(trail: &Path) -> Command {
    let mut command = graven();
    command.args(["record", "--source", "stdin", "--ack", "--segment-bytes", SEGMENT, "--trail"]);
    command.arg(trail).args(["--checkpoint-interval", "10ms", "--epoch-segments", "1"]);
    command
}

/// The same from another source.
pub(crate) fn record_from(source: &str, trail: &Path) -> Command {
    let mut command = graven();
    command.args(["record", "--source", source, "--ack", "--segment-bytes", SEGMENT, "--trail"]);
    command.arg(trail).args(NO_RECORDS);
    command
}

/// How a process ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// The exit code; -n if signal n ended it.
    pub(crate) fn code(&self) -> i32 {
        code(self.status)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts an exit code, and shows everything if it is another.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// Asserts that standard error says something.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in: {}", self.stderr);
        self
    }

    /// The highest seq that was acknowledged.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        acknowledged(&self.stdout)
    }
}

/// The highest seq in lines `durable N`; a line that was cut off is none.
pub(crate) fn acknowledged(stdout: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(stdout).expect("acknowledgements are text");
    let mut last = None;
    for line in text.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else { break };
        let seq = line.strip_prefix("durable ").and_then(|seq| seq.parse::<u64>().ok());
        let seq = seq.unwrap_or_else(|| panic!("{line:?} is no acknowledgement"));
        assert!(last.is_none_or(|last| last < seq), "acknowledgements go up: {last:?}, {seq}");
        last = Some(seq);
    }
    last
}

/// The exit code; -n if signal n ended it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// A process that does not outlive the test, with its outputs being read.
pub(crate) struct Running {
    command: String,
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// What a process has written so far, and the thread that reads it.
#[derive(Default)]
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buf = vec![0; 64 * 1024];
            // What was read before an error is what there is.
            while let Ok(read @ 1..) = from.read(&mut buf) {
                shared.lock().expect("no panic").extend_from_slice(&buf[..read]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().expect("no panic").clone()
    }

    fn all(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("outputs can be read");
        }
        self.so_far()
    }
}

impl Running {
    /// Starts it; standard input is a pipe unless the command says otherwise by `stdin`.
    pub(crate) fn start(command: &mut Command, stdin: Stdio) -> Self {
        Self::start_saying_to(command, stdin, Stdio::piped())
    }

    /// The same with this as its standard error.
    pub(crate) fn start_saying_to(command: &mut Command, stdin: Stdio, stderr: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            // A group of its own, so that what strace has started ends with it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|why| panic!("{command:?}: {why}"));
        let stdout = child.stdout.take().map_or_else(Output::default, Output::read);
        let stderr = child.stderr.take().map_or_else(Output::default, Output::read);
        Self { command: format!("{command:?}"), child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once.
    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("standard input is a pipe")
    }

    /// The highest seq that it has acknowledged so far.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        acknowledged(&self.stdout.so_far())
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Waits until something is so, or the process has ended; a wait without end fails the test.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + HANG;
        while !is_so(self) && !self.has_ended() {
            let said = self.said();
            assert!(
                Instant::now() < deadline,
                "{what} does not come: {said}{}",
                stacks(self.pid())
            );
            std::thread::sleep(POLL);
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Sends a signal to it.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it has not been waited for");
    }

    /// Waits for its end; a process that hangs fails the test.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        let deadline = Instant::now() + HANG;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            assert!(Instant::now() < deadline, "{} hangs: {}", self.command, stacks(self.pid()));
            std::thread::sleep(POLL);
        };
        let stdout = self.stdout.all();
        let stderr = String::from_utf8_lossy(&self.stderr.all()).into_owned();
        assert!(!stderr.contains("panicked at"), "{}: {stderr}", self.command);
        Ran { status, stdout, stderr }
    }

    /// Kills it, as the out-of-memory killer would, and waits for its end.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Ran {
        self.child.kill().expect("it can be killed");
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Where the threads of a process, and of those that it has started, are in the kernel, for the
/// message about a hang.
fn stacks(pid: u32) -> String {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = read(format!("/proc/{pid}/task/{pid}/children").into());
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    tasks
        .map(|task| {
            format!("{}{}\n", read(task.path().join("comm")), read(task.path().join("stack")))
        })
        .chain(children.map(stacks))
        .collect()
}

/// Runs a command to its end, with `input` as its standard input.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ran {
    let mut running = Running::start(command, Stdio::piped());
    let mut stdin = running.stdin();
    std::thread::scope(|scope| {
        // Whoever ends early does not take everything, and the test sees that by other means.
        scope.spawn(move || stdin.write_all(input));
        running.end()
    })
}

/// `graven COMMAND TRAIL ARGS…`.
#[track_caller]
pub(crate) fn on(command: &str, trail: &Path, args: &[&str]) -> Ran {
    run(graven().arg(command).arg(trail).args(args), b"")
}

/// Whether a program is there; says so if not.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [OsStr::new("/usr/sbin").into(), OsStr::new("/sbin").into()];
    let found = std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file());
    if !found {
        skip(&format!("there is no program {program}"));
    }
    found
}
