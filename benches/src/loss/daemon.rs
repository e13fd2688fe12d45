//! The daemons, as somebody runs them who does things to them.

use crate::netlink::graven;
use anyhow::{Context, Result, bail, ensure};
use graven_tools::bench::audit::{Auditd, Keeps, Logging, Seen};
use graven_writer::source::kaudit;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a daemon to begin or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// How auditd writes here.
const AUDITD: Keeps = Keeps::Log(Logging::RAW_ASYNC);

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
            self.running = Some(Running::Auditd(Auditd::start(&self.home, AUDITD)?));
            return Ok(());
        }
        let child = Command::new(graven()?)
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
            Some(Running::Auditd(auditd)) => return Ok(auditd.process.signal(signal)?),
            _ => self.processes(self.kind)?,
        };
        ensure!(!pids.is_empty(), "there is no {}", self.kind.name());
        Ok(pids.into_iter().try_for_each(|pid| kill_process(pid, signal))?)
    }

    /// What an init system does after a while; Graven does it itself, at once.
    pub(super) fn start_again(&mut self, after: Duration) -> Result<()> {
        let Some(Running::Auditd(auditd)) =
            self.running.take_if(|it| matches!(it, Running::Auditd(_)))
        else {
            return Ok(());
        };
        auditd.process.gone()?;
        std::thread::sleep(after);
        // The log goes on.
        self.begin()
    }

    /// Asks it to end, and waits until it has.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.running.take() {
            None => {}
            Some(Running::Auditd(auditd)) => auditd.process.end()?,
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
        let mut seen = Seen::default();
        if self.kind == Kind::Auditd {
            Auditd::read(&self.log(), AUDITD, &mut seen)?;
        } else {
            seen.read_trail(&graven()?, &self.trail())?;
        }
        Ok(seen.count())
    }

    /// What `verify` says of the trail; nothing is asked of auditd's log.
    pub(super) fn verified(&self) -> Result<Verified> {
        if self.kind == Kind::Auditd {
            return Ok(Verified { complete: false, stated: 0 });
        }
        let output =
            Command::new(graven()?).args(["verify", "--json"]).arg(self.trail()).output()?;
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

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failure.
        let _ = self.end();
    }
}
