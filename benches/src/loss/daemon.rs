//! The daemons, as somebody runs them who does things to them.

use crate::netlink::{auditd, graven};
use anyhow::{Context, Result, bail, ensure};
use graven_tools::bench::seeds::auditd::{Auditd, RAW_ASYNC};
use graven_writer::source::kaudit;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a daemon to begin or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whom something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Auditd,
    Writer,
    Keeper,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Auditd => "auditd",
            Self::Writer => "graven-writer",
            Self::Keeper => "graven-keeper",
        }
    }
}

pub(super) struct Daemon {
    kind: Kind,
    home: PathBuf,
    /// Of Graven: what is allocated ahead, and so goes on for a while on a full disk.
    segment_bytes: &'static str,
    /// What Graven says, on another disk than the one that may be full.
    said: tempfile::NamedTempFile,
    running: Option<Running>,
}

enum Running {
    Auditd(Auditd),
    Graven(Child),
}

impl Daemon {
    pub(super) fn start(kind: Kind, home: &Path, segment_bytes: &'static str) -> Result<Self> {
        let (home, said) = (home.to_owned(), tempfile::NamedTempFile::new()?);
        let mut this = Self { kind, home, segment_bytes, said, running: None };
        this.begin()?;
        Ok(this)
    }

    fn trail(&self) -> PathBuf {
        self.home.join("trail")
    }

    fn log(&self) -> PathBuf {
        self.home.join("audit.log")
    }

    /// Whether Graven has said something; of auditd nothing is asked.
    pub(super) fn has_said(&self, text: &str) -> Result<bool> {
        Ok(self.kind == Kind::Auditd || fs::read_to_string(self.said.path())?.contains(text))
    }

    fn begin(&mut self) -> Result<()> {
        if self.kind == Kind::Auditd {
            self.running = Some(Running::Auditd(auditd(&self.home, RAW_ASYNC)?));
            return Ok(());
        }
        let child = graven()?
            .args(["record", "--source", "netlink", "--quiet", "--trail"])
            .arg(self.trail())
            .args(["--segment-bytes", self.segment_bytes])
            .stdin(Stdio::null())
            .stderr(self.said.as_file().try_clone()?)
            .spawn()
            .context("graven does not start: cargo build --release -p graven")?;
        let deadline = Instant::now() + PATIENCE;
        while kaudit::status()?.pid != child.id() || self.processes(Kind::Writer)?.is_empty() {
            ensure!(Instant::now() < deadline, "graven did not register");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.running = Some(Running::Graven(child));
        // The writer opens the trail.
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    /// The processes of this trail in a role.
    fn processes(&self, kind: Kind) -> Result<Vec<Pid>> {
        let trail = self.trail().into_os_string().into_encoded_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let is_writer = words.iter().any(|word| word.starts_with(b"writer:"));
            if words.get(1) == Some(&&b"record"[..])
                && words.contains(&&trail[..])
                && is_writer == (kind == Kind::Writer)
            {
                found.extend(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }

    /// Resident memory of the process in a role.
    pub(super) fn resident_mib(&self, kind: Kind) -> Result<f64> {
        let pid = *self.processes(kind)?.first().context("it is gone")?;
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
        let kib =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Ok(kib.context("VmRSS")?.parse::<f64>()? / 1024.0)
    }

    /// Sends a signal to the one that the case is about.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pids = match &self.running {
            Some(Running::Auditd(auditd)) => vec![Pid::from_child(&auditd.child)],
            _ => self.processes(self.kind)?,
        };
        ensure!(!pids.is_empty(), "there is no {}", self.kind.name());
        Ok(pids.into_iter().try_for_each(|pid| kill_process(pid, signal))?)
    }

    /// What an init system does after a while; Graven does it itself, at once.
    pub(super) fn start_again(&mut self, after: Duration) -> Result<()> {
        let Some(Running::Auditd(mut auditd)) =
            self.running.take_if(|it| matches!(it, Running::Auditd(_)))
        else {
            return Ok(());
        };
        auditd.child.wait()?;
        std::thread::sleep(after);
        // The log goes on.
        self.begin()
    }

    /// Asks it to end, and waits until it has.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.running.take() {
            None => {}
            Some(Running::Auditd(mut auditd)) => auditd.end()?,
            Some(Running::Graven(mut child)) => {
                let deadline = Instant::now() + PATIENCE;
                for pid in self.processes(Kind::Keeper)? {
                    kill_process(pid, Signal::TERM)?;
                }
                loop {
                    // The keeper may be another by now.
                    let _ = child.try_wait()?;
                    if self.processes(Kind::Keeper)?.is_empty()
                        && self.processes(Kind::Writer)?.is_empty()
                    {
                        break;
                    }
                    ensure!(Instant::now() < deadline, "graven does not end");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        Ok(())
    }

    /// Events that are there; it fails if one is there twice.
    pub(super) fn events(&self) -> Result<u64> {
        let mut seen = Serials::default();
        if self.kind == Kind::Auditd {
            seen.read(BufReader::new(File::open(self.log())?))?;
            return Ok(seen.count);
        }
        let mut export = graven()?
            .args(["export", "--format", "raw"])
            .arg(self.trail())
            .stdout(Stdio::piped())
            .spawn()?;
        seen.read(BufReader::new(export.stdout.take().context("no output")?))?;
        ensure!(export.wait()?.success(), "the trail cannot be exported");
        Ok(seen.count)
    }

    /// What `verify` says of the trail; nothing is asked of auditd's log.
    pub(super) fn verified(&self) -> Result<Verified> {
        if self.kind == Kind::Auditd {
            return Ok(Verified { complete: false, stated: 0 });
        }
        let output = graven()?.args(["verify", "--json"]).arg(self.trail()).output()?;
        if !matches!(output.status.code(), Some(0 | 4)) {
            bail!("verify: {}", String::from_utf8_lossy(&output.stdout));
        }
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(report["source_gaps"]["count"] == 0, "a gap that is not stated: {report:#}");
        let statements = report["losses"]["statements"].as_array().context("statements")?;
        let exact =
            statements.iter().map(|it| &it["statement"]).filter(|it| it["unit"] == "events");
        let stated = exact
            .filter(|it| it["cause"] != "partial-event")
            .filter_map(|it| it["count"].as_u64())
            .sum();
        Ok(Verified { complete: output.status.code() == Some(0), stated })
    }
}

/// What a trail says of itself.
pub(super) struct Verified {
    /// Intact, and no loss of any kind is stated in it.
    pub(super) complete: bool,
    /// Events that are stated as missing, each with its number.
    pub(super) stated: u64,
}

/// Serials of the producers' events: a bit each, in pages that are made as they are needed.
#[derive(Default)]
struct Serials {
    pages: BTreeMap<u32, Vec<u64>>,
    count: u64,
}

impl Serials {
    /// Takes the PATH records of `/dev/null`, of which an event has one.
    fn read(&mut self, mut lines: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            if line.starts_with(b"type=PATH ")
                && line.windows(16).any(|part| part == b"name=\"/dev/null\"")
            {
                let serial = serial(&line)
                    .with_context(|| format!("no serial: {}", String::from_utf8_lossy(&line)))?;
                ensure!(self.insert(serial), "event {serial} is there twice");
            }
            line.clear();
        }
        Ok(())
    }

    /// Whether it is new.
    fn insert(&mut self, serial: u32) -> bool {
        let page = self.pages.entry(serial >> 16).or_insert_with(|| vec![0; 1 << 10]);
        let word = &mut page[(serial as usize & 0xFFFF) / 64];
        let bit = 1 << (serial % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }
}

/// The serial in `msg=audit(1732.123:SERIAL):`.
fn serial(line: &[u8]) -> Option<u32> {
    let stamp = line.split(|byte| *byte == b'(').nth(1)?.split(|byte| *byte == b')').next()?;
    str::from_utf8(stamp).ok()?.rsplit_once(':')?.1.parse().ok()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failure.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once() {
        let path = |serial: u32| {
            format!(
                "type=PATH msg=audit(1732.123:{serial}): item=0 name=\"/dev/null\" inode=4\n\
                 type=CWD msg=audit(1732.123:{serial}): cwd=\"/\"\n"
            )
        };
        let mut seen = Serials::default();
        for serial in [7, u32::MAX, 65_535, 65_536, 0] {
            seen.read(path(serial).as_bytes()).unwrap();
        }
        assert_eq!(seen.count, 5);
        assert!(seen.read(path(65_536).as_bytes()).is_err());
        assert!(seen.read(&b"type=PATH name=\"/dev/null\"\n"[..]).is_err());
    }
}
