//! SQLite and RocksDB, through a program in Python.
//!
//! Both are libraries. Built in they would make everybody who builds Graven build them; loaded at run time they would take
//! unsafe code for a comparison. Python's standard library has a module for one and calls the other; what that costs each
//! record is in the figures, and said beside them.

use super::super::process::{Process, Trouble};
use super::super::stats::histogram;
use super::library::Ran;
use super::load::{Load, Pushed};
use super::records::Tally;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const PROGRAM: &str = include_str!("rivals.py");

/// What it drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// With a write-ahead log, `synchronous=FULL`.
    Sqlite,
    /// With synchronous writes.
    Rocksdb,
}

impl Engine {
    const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Rocksdb => "rocksdb",
        }
    }

    fn command(self, what: &str) -> Command {
        let mut command = Command::new("python3");
        command.args(["-c", PROGRAM, what, self.name()]);
        command
    }

    /// What it says of itself, if it is installed.
    ///
    /// # Errors
    /// Why not.
    pub fn version(self) -> Result<String, String> {
        let output = self.command("check").stdin(Stdio::null()).output();
        let output = output.map_err(|why| format!("python3: {why}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

#[derive(Serialize)]
struct Spec<'a> {
    dir: &'a Path,
    producers: usize,
    group: usize,
    length_ns: u64,
    sizes: &'a [usize],
    text: &'a str,
}

#[derive(Deserialize)]
struct Done {
    sent: Vec<u64>,
    took_ns: u64,
    latencies_ns: Vec<u64>,
}

/// Runs it, and kills it.
///
/// # Errors
/// [`Trouble`]
pub fn run(engine: Engine, dir: &Path, load: &Load<'_>) -> Result<Ran, Trouble> {
    let mut command = engine.command("run");
    let mut process =
        Process::start(engine.name(), command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let (stdin, stdout) = (process.child().stdin.take(), process.child().stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(Trouble::said("a program has no pipes"));
    };
    let lines = lines(stdout);
    let spec = Spec {
        dir,
        producers: load.producers,
        group: load.mode.group(),
        length_ns: super::super::units::ns(load.length),
        sizes: load.records.sizes(),
        text: str::from_utf8(load.records.text()).unwrap_or_default(),
    };
    let mut spec = serde_json::to_vec(&spec).map_err(|why| Trouble::said(why.to_string()))?;
    spec.push(b'\n');
    // What it ended of is what it says itself.
    let _ = stdin.write_all(&spec);
    next(&lines, &mut process, load)?;
    let before = process.usage();
    let _ = stdin.write_all(b"go\n");
    let line = next(&lines, &mut process, load)?;
    let usage = process.usage().since(before);
    let done: Done = serde_json::from_str(&line)
        .map_err(|why| Trouble::Said(format!("{} said `{line}`: {why}", engine.name())))?;
    process.kill()?;
    let mut latency = histogram();
    for ns in &done.latencies_ns {
        latency.saturating_record_n(*ns, load.mode.group() as u64);
    }
    Ok(Ran { pushed: Pushed { sent: done.sent, latency, took_ns: done.took_ns }, usage })
}

/// Reads lines on a thread, so that who waits for one can be interrupted.
fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn next(
    lines: &Receiver<String>,
    process: &mut Process,
    load: &Load<'_>,
) -> Result<String, Trouble> {
    loop {
        match lines.recv_timeout(Duration::from_millis(20)) {
            Ok(line) => return Ok(line),
            Err(RecvTimeoutError::Timeout) if load.stop.load(Ordering::Relaxed) => {
                return Err(Trouble::Stopped);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(process.failed("failed")),
        }
    }
}

/// Opens its files again, and reads them.
///
/// # Errors
/// They cannot be read, or have what was not sent.
pub fn read(engine: Engine, dir: &Path, tally: &mut Tally<'_>) -> Result<(), Trouble> {
    let mut command = engine.command("read");
    command.arg(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(engine.name(), &mut command)?;
    let out = process.child().stdout.take().ok_or_else(|| Trouble::said("no pipe"))?;
    let (mut out, mut record) = (BufReader::with_capacity(1 << 20, out), Vec::new());
    while read_record(&mut out, &mut record).map_err(Trouble::io(engine.name()))? {
        tally.see(&record)?;
    }
    process.ended()
}

fn read_record(out: &mut impl Read, record: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    match out.read_exact(&mut length) {
        Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    record.resize(u32::from_le_bytes(length) as usize, 0);
    out.read_exact(record)?;
    Ok(true)
}
