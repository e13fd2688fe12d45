//! `graven record --source netlink` as it is installed: two processes.

use super::super::process::{Process, Trouble, Usage};
use super::Seen;
use super::storm::Consumer;
use graven_writer::source::kaudit;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// It, registered with the kernel.
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
    pub fn start(program: &Path, dir: &Path) -> Result<Self, Trouble> {
        let (program, trail) = (program.to_owned(), dir.join("trail"));
        let mut command = Command::new(&program);
        command.args(["record", "--source", "netlink", "--ack", "--quiet", "--trail"]).arg(&trail);
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
        // Its own first record comes before the kernel has it for its daemon.
        let pid = process.id();
        process.wait_until(|| {
            let status = kaudit::status().map_err(|why| Trouble::Said(why.to_string()))?;
            let is_daemon = status.pid == pid && status.enabled != 0;
            Ok(is_daemon && durable.load(Ordering::Relaxed) > 0)
        })?;
        Ok(Self { process, program, trail, durable, reader })
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
        self.process.end()?;
        self.reader.join().map_err(|_| Trouble::said("the reader panicked"))?;
        let mut seen = Seen::default();
        seen.read_trail(&self.program, &self.trail)?;
        Ok(seen.count())
    }
}
