//! `graven record` as it is installed: from the kernel's audit it is two processes.

use super::super::process::{Process, Trouble, Usage};
use super::Seen;
use super::storm::Consumer;
use graven_writer::source::kaudit;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// From where it records.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// The kernel's audit.
    Netlink,
    /// The kernel module, by these rules.
    Shim(&'a str),
}

/// It, so far that every record is owed to it.
#[derive(Debug)]
pub struct Recorder {
    process: Process,
    program: PathBuf,
    trail: PathBuf,
    durable: Arc<AtomicU64>,
    reader: JoinHandle<()>,
}

impl Recorder {
    /// Starts `program` on a new trail in `dir`.
    ///
    /// # Errors
    /// It cannot be started, or does not begin.
    pub fn start(program: &Path, dir: &Path, from: From<'_>) -> Result<Self, Trouble> {
        let (program, trail) = (program.to_owned(), dir.join("trail"));
        let mut command = Command::new(&program);
        command.args(["record", "--ack", "--trail"]).arg(&trail).arg("--source");
        match from {
            From::Netlink => {
                command.args(["netlink", "--quiet"]);
            }
            From::Shim(text) => {
                let rules = dir.join("rules");
                fs::write(&rules, text).map_err(Trouble::io("rules cannot be written"))?;
                command.args(["shim", "--shim-rules"]).arg(&rules);
            }
        }
        let mut process =
            Process::start("graven", command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let out = process.child().stdout.take().ok_or_else(|| Trouble::said("no pipe"))?;
        let durable = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&durable);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(seq) = line.strip_prefix("durable ").and_then(|seq| seq.parse().ok()) {
                    told.store(seq, Ordering::Relaxed);
                }
            }
        });
        process.wait_until(|process| match from {
            // Its own first record comes before the kernel has it for its daemon.
            From::Netlink => {
                let status = kaudit::status().map_err(|why| Trouble::Said(why.to_string()))?;
                let is_daemon = status.pid == process.id() && status.enabled != 0;
                Ok(is_daemon && durable.load(Ordering::Relaxed) > 0)
            }
            // Its own test of the module comes before.
            From::Shim(_) => Ok(process.has_said("recording from the kernel module")),
        })?;
        Ok(Self { process, program, trail, durable, reader })
    }

    /// Ends it, and says where its trail is.
    ///
    /// # Errors
    /// It does not end well.
    pub fn end(self) -> Result<PathBuf, Trouble> {
        self.process.end()?;
        self.reader.join().map_err(|_| Trouble::said("the reader panicked"))?;
        Ok(self.trail)
    }
}

impl Consumer for Recorder {
    fn progress(&self) -> u64 {
        // Heartbeats and checkpoints go on for ever, a few a second.
        self.durable.load(Ordering::Relaxed) / 64
    }

    fn usage(&self) -> Usage {
        self.process.usage()
    }

    fn events(self: Box<Self>) -> Result<u64, Trouble> {
        let (program, mut seen) = (self.program.clone(), Seen::default());
        seen.read_trail(&program, &self.end()?)?;
        Ok(seen.count())
    }
}
