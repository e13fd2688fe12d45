//! A recording of standard input that runs for as long as a test needs it.

use crate::common::{Ran, graven};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A recording.
pub(crate) struct Recording {
    pub(crate) trail: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    acknowledged: BufReader<ChildStdout>,
}

impl Recording {
    /// Begins to record to `trail`, without checkpoints unless `args` say otherwise.
    pub(crate) fn start(trail: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("graven"));
        command.args(["record", "--source", "stdin", "--ack", "--quiet", "--trail"]).arg(trail);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take();
        let acknowledged = BufReader::new(child.stdout.take().expect("a pipe"));
        let recording = Self { trail: trail.to_owned(), child, input, acknowledged };
        let begun = Instant::now();
        while UnixStream::connect(trail.join("control")).is_err() && begun.elapsed() < PATIENCE {
            // What is too long for a socket's path is asked by the command.
            if recording.status(&[]).code < 3 && trail.join("control").exists() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        recording
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it so many lines, and waits until everything up to the record `last` is durable.
    pub(crate) fn feed(&mut self, lines: &[u8], last: u64) {
        let mut input = self.input.take().expect("it was not ended");
        let (acknowledged, input) = thread::scope(|scope| {
            let fed = scope.spawn(move || {
                input.write_all(lines).expect("it reads");
                input
            });
            let mut line = String::new();
            loop {
                line.clear();
                self.acknowledged.read_line(&mut line).expect("it acknowledges");
                let seq = line.trim().strip_prefix("durable ").expect("a number");
                let seq: u64 = seq.parse().expect("a number");
                if seq >= last {
                    break (seq, fed.join().expect("it reads"));
                }
            }
        });
        assert_eq!(acknowledged, last, "no more than was given");
        self.input = Some(input);
    }

    /// `graven status` with these arguments.
    pub(crate) fn status(&self, args: &[&str]) -> Ran {
        status(&self.trail, args)
    }

    /// The status when it is as wanted.
    #[track_caller]
    pub(crate) fn status_when(
        &self,
        is_it: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let status = self.status(&["--json"]).json();
            if is_it(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{status:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends its input, and returns its exit code and what it said.
    pub(crate) fn end(mut self) -> (i32, String) {
        drop(self.input.take());
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut self.acknowledged, &mut rest).expect("it ends");
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        std::io::Read::read_to_string(&mut stderr, &mut said).expect("it ends");
        let status = self.child.wait().expect("it ends");
        assert!(!said.contains("panicked"), "{said}");
        (status.code().unwrap_or(-1), said)
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // A test that fails leaves nothing running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `graven status`.
pub(crate) fn status(trail: &Path, args: &[&str]) -> Ran {
    let mut all = vec![std::ffi::OsString::from("status"), trail.into()];
    all.extend(args.iter().map(Into::into));
    graven(all)
}

/// So many lines of eleven bytes and their ends.
pub(crate) fn lines(count: u64) -> Vec<u8> {
    (0..count).flat_map(|number| format!("line {number:06}\n").into_bytes()).collect()
}
