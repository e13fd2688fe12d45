//! The netlink path: a storm of `openat`, which the kernel's audit hands to its one daemon.

use super::super::audit::{
    Auditd, Consumer, Flush, Format, From, Keeps, LAUREL, Logging, Recorder,
};
use super::super::process::{Trouble, is_installed};
use super::rival::{Durability, Promise};
use std::path::Path;
use std::process::Command;

/// The kernel's audit daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// `graven record`, two processes.
    Graven,
    /// auditd.
    Auditd(Logging),
    /// auditd that only hands records on to LAUREL.
    Laurel,
}

impl Daemon {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Graven => "graven record".to_owned(),
            Self::Auditd(logging) => format!("auditd {logging}"),
            Self::Laurel => "auditd, laurel".to_owned(),
        }
    }

    /// What it promises.
    #[must_use]
    pub fn promise(self) -> Promise {
        let (durability, barrier) = match self {
            Self::Graven => (
                Durability::Acknowledged,
                "RWF_DSYNC or fdatasync of each frame; the watermark says up to where",
            ),
            Self::Auditd(Logging { flush, .. }) => match flush {
                Flush::None => (Durability::Weaker, "none: left to the kernel (flush=NONE)"),
                Flush::IncrementalAsync => (
                    Durability::Weaker,
                    "one by a thread for every 50 records, which nobody waits for (flush=INCREMENTAL_ASYNC)",
                ),
                Flush::Data => (Durability::Untold, "O_DSYNC: each write (flush=DATA)"),
                Flush::Sync => (Durability::Untold, "O_SYNC: each write (flush=SYNC)"),
            },
            Self::Laurel => (Durability::Weaker, "none: left to the kernel"),
        };
        Promise { durability, barrier }
    }

    /// What of its figures is not its own.
    #[must_use]
    pub fn handicap(self) -> Option<&'static str> {
        match self {
            Self::Auditd(Logging { format: Format::Enriched, .. }) => {
                Some("looks up names, which RAW and Graven leave to the reader")
            }
            Self::Graven => Some("compresses while the disk is too slow, as it is installed"),
            Self::Laurel => Some("turns records into JSON, and is the second process they pass"),
            Self::Auditd(_) => None,
        }
    }

    /// What it says of itself, if it is installed.
    ///
    /// # Errors
    /// Why not.
    pub fn version(self) -> Result<String, String> {
        match self {
            Self::Graven => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Auditd(_) => auditd_version(),
            Self::Laurel => {
                let output = Command::new(LAUREL).arg("--version").output();
                let output = output.map_err(|why| format!("{LAUREL}: {why}"))?;
                let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                auditd_version().map(|auditd| format!("auditd {auditd}, {said}"))
            }
        }
    }

    /// Starts it with its files in `dir`; `program` is graven.
    ///
    /// # Errors
    /// [`Trouble`]
    pub fn start(self, program: &Path, dir: &Path) -> Result<Box<dyn Consumer>, Trouble> {
        Ok(match self {
            Self::Graven => Box::new(Recorder::start(program, dir, From::Netlink)?),
            Self::Auditd(logging) => Box::new(Auditd::start(dir, Keeps::Log(logging))?),
            Self::Laurel => Box::new(Auditd::start(dir, Keeps::Laurel)?),
        })
    }
}

/// auditd has no option that only says it; auditctl is of the same package.
fn auditd_version() -> Result<String, String> {
    if !is_installed("auditd") {
        return Err("auditd: it is not there".to_owned());
    }
    let output = Command::new("auditctl").arg("-v").output();
    let output = output.map_err(|why| format!("auditctl: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().last().unwrap_or("unknown").to_owned())
}
