//! The kernel's audit, which one run at a time may use, and which is put back after it.

use anyhow::{Context, Result, bail, ensure};
use graven_writer::source::kaudit;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared with the tests of the real kernel audit.
#[path = "../../tests/kernel_turn.rs"]
mod kernel_turn;

/// The uid of the producers: no account of this machine.
pub(crate) const UID: u32 = 64_123;

/// A run's turn at the kernel's audit. Puts its settings back, whatever happens.
pub(crate) struct Turn {
    backlog_limit: u32,
    enabled: u32,
    interrupted: Arc<AtomicBool>,
    _turn: kernel_turn::Turn,
}

impl Turn {
    /// Waits for it. From here on SIGINT and SIGTERM end nothing by themselves: see [`Turn::go_on`].
    pub(crate) fn take() -> Result<Self> {
        let turn = kernel_turn::take()?;
        let status = kaudit::status()?;
        ensure!(status.pid == 0, "process {} is the audit daemon here", status.pid);
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let (backlog_limit, enabled) = (status.backlog_limit, status.enabled);
        Ok(Self { backlog_limit, enabled, interrupted, _turn: turn })
    }

    /// An error if somebody has asked to end: what was begun then ends as after a failure.
    pub(crate) fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let settings = [["-b", &self.backlog_limit.to_string()], ["-e", &self.enabled.to_string()]];
        let done = auditctl(&["-D"]).and_then(|()| settings.iter().try_for_each(|s| auditctl(s)));
        if let Err(error) = done {
            eprintln!("warning: kernel audit is not as it was: {error}");
        }
    }
}

pub(crate) fn auditctl(args: &[&str]) -> Result<()> {
    let output = Command::new("auditctl").args(args).output().context("install auditd")?;
    if !output.status.success() {
        bail!("auditctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
