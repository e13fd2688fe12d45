//! Who takes the records.

use super::kernel::KEY_FIELD;
use super::{LabError, io};
use crate::bench::audit::{self, Auditd, Keeps, Logging, Recorder};
use graven_format::{Record, kind};
use graven_writer::clock;
use graven_writer::source::kaudit::{self, Daemon};
use graven_writer::source::netlink::{NetlinkError, Stop, receive};
use graven_writer::source::past::Past;
use graven_writer::source::{AppendError, Sink};
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// What is there of a run when its consumer has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Null calls.
    pub null_calls: u64,
    /// What `graven verify` says of the trail: its exit code. Absent if there is none.
    pub verified: Option<i32>,
}

/// A daemon that runs.
pub trait Consumer {
    /// Grows while it consumes.
    fn progress(&self) -> u64;

    /// Ends it, and looks at what it has kept.
    ///
    /// # Errors
    /// It does not end well, or what it kept cannot be read.
    fn end(self: Box<Self>) -> Result<Kept, LabError>;
}

/// Whether a record, or the line of one, is that of a null call of the workload: getppid, which its shells call too.
///
/// Without a rule's key it is not ours to count: a BPF program that is freed from a soft interrupt, as the filter of a
/// receiver that ended is, makes an event of the call that was interrupted.
fn is_null_call(text: &[u8]) -> bool {
    let has = |part: &str| memchr::memmem::find(text, part.as_bytes()).is_some();
    has(" syscall=110 ") && has(KEY_FIELD) && !has(" comm=\"sh\"")
}

/// Graven's own receiver, whose records go nowhere.
pub struct Discard {
    seen: Arc<Seen>,
    stop: Arc<Stop>,
    /// None when it has ended.
    thread: Option<JoinHandle<Result<Daemon, NetlinkError>>>,
}

/// Where they go.
#[derive(Default)]
struct Seen {
    records: AtomicU64,
    syscalls: AtomicU64,
    null_calls: AtomicU64,
}

impl Sink for Seen {
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        if record.kind == kind::SYSCALL {
            self.syscalls.fetch_add(1, Ordering::Relaxed);
            let is_null = is_null_call(record.bytes);
            self.null_calls.fetch_add(u64::from(is_null), Ordering::Relaxed);
        }
        Ok(self.records.fetch_add(1, Ordering::Relaxed))
    }

    fn next_seq(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

impl Discard {
    /// Becomes the audit daemon; audit is on then.
    ///
    /// # Errors
    /// The place cannot be had.
    pub fn start() -> Result<Self, LabError> {
        let stop = Arc::new(Stop::new().map_err(io("make a descriptor"))?);
        let daemon = Daemon::attach(&kaudit::Options::default())?;
        let seen = Arc::new(Seen::default());
        let (sink, until) = (Arc::clone(&seen), Arc::clone(&stop));
        let work = move || {
            let now = || {
                let now = clock::now();
                (now.realtime_ns, now.boottime_ns)
            };
            receive(&daemon, &*sink, Past::default(), &until, now)?;
            Ok(daemon)
        };
        let thread = std::thread::Builder::new().name("graven-discard".to_owned());
        let thread = thread.spawn(work).map_err(io("start a thread"))?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Receives what is owed, and gives the place back.
    fn finish(&mut self) -> Result<(), LabError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stop.request();
        let received = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(received.map_err(|why| LabError::Said(why.to_string()))?.detach()?)
    }
}

impl Drop for Discard {
    fn drop(&mut self) {
        // After a failure; else it has ended.
        let _ = self.finish();
    }
}

impl Consumer for Discard {
    fn progress(&self) -> u64 {
        // Not heartbeats, which go on for ever.
        self.seen.syscalls.load(Ordering::Relaxed)
    }

    fn end(mut self: Box<Self>) -> Result<Kept, LabError> {
        self.finish()?;
        Ok(Kept { null_calls: self.seen.null_calls.load(Ordering::Relaxed), verified: None })
    }
}

/// auditd, and its log.
pub struct Logged {
    auditd: Auditd,
    log: PathBuf,
}

impl Logged {
    /// Starts it with its files in `dir`.
    ///
    /// # Errors
    /// It is not installed, or does not come so far that the kernel has it for its daemon.
    pub fn start(dir: &Path, logging: Logging) -> Result<Self, LabError> {
        let auditd = Auditd::start(dir, Keeps::Log(logging))?;
        Ok(Self { auditd, log: dir.join("audit.log") })
    }
}

impl Consumer for Logged {
    fn progress(&self) -> u64 {
        audit::Consumer::progress(&self.auditd)
    }

    fn end(self: Box<Self>) -> Result<Kept, LabError> {
        self.auditd.process.end()?;
        let log = File::open(&self.log).map_err(io("read auditd's log"))?;
        let null_calls = count_null_calls(log).map_err(io("read auditd's log"))?;
        Ok(Kept { null_calls, verified: None })
    }
}

fn count_null_calls(lines: impl std::io::Read) -> std::io::Result<u64> {
    let (mut lines, mut line, mut count) = (BufReader::new(lines), Vec::new(), 0);
    while lines.read_until(b'\n', &mut line)? > 0 {
        count += u64::from(line.starts_with(b"type=SYSCALL ") && is_null_call(&line));
        line.clear();
    }
    Ok(count)
}

/// `graven record`, and its trail.
pub struct Recorded(Recorder);

impl Recorded {
    /// Starts it with its trail in `dir`, and waits until it records.
    ///
    /// # Errors
    /// It does not come so far: with what it said.
    pub fn start(dir: &Path, from: audit::From<'_>) -> Result<Self, LabError> {
        Ok(Self(Recorder::start(&program()?, dir, from)?))
    }
}

impl Consumer for Recorded {
    fn progress(&self) -> u64 {
        audit::Consumer::progress(&self.0)
    }

    fn end(self: Box<Self>) -> Result<Kept, LabError> {
        let (program, trail) = (program()?, self.0.end()?);
        let mut verify = Command::new(&program);
        verify.arg("verify").arg(&trail).stdout(Stdio::null()).stderr(Stdio::null());
        let verified = verify.status().map_err(io("start graven verify"))?;
        let mut export = Command::new(&program);
        export.args(["export", "--format", "raw"]).arg(&trail);
        export.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut export = export.spawn().map_err(io("start graven export"))?;
        let lines = export.stdout.take().ok_or_else(|| LabError::Said("no output".to_owned()))?;
        let null_calls = count_null_calls(lines).map_err(io("read what graven exports"))?;
        if !export.wait().map_err(io("wait for graven export"))?.success() {
            return Err(LabError::Said("the trail cannot be exported".to_owned()));
        }
        Ok(Kept { null_calls, verified: Some(verified.code().unwrap_or(-1)) })
    }
}

/// This program.
fn program() -> Result<PathBuf, LabError> {
    std::env::current_exe().map_err(io("find this program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_null_calls_of_the_workload_count() {
        let log: &[u8] = b"\
            type=SYSCALL msg=audit(1.0:1): syscall=110 success=yes comm=\"graven\" key=\"graven-seeds\"\n\
            type=SYSCALL msg=audit(1.0:2): syscall=110 success=yes comm=\"sh\" key=\"graven-seeds\"\n\
            type=SYSCALL msg=audit(1.0:3): syscall=1 success=yes comm=\"graven\" key=\"graven-seeds\"\n\
            type=PROCTITLE msg=audit(1.0:1): proctitle=\" syscall=110 key=\"graven-seeds\"\"\n\
            type=SYSCALL msg=audit(1.0:5): syscall=110 success=yes comm=\"graven\" key=(null)\n\
            type=SYSCALL msg=audit(1.0:4): syscall=110 success=yes comm=\"graven\" key=\"graven-seeds\"";
        assert_eq!(count_null_calls(log).expect("it is in memory"), 2);
    }
}
