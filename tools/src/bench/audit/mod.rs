//! The kernel's audit as something to measure: whose turn it is, a storm of events, and who takes them.
//!
//! `graven bench compare` and `graven-bench` both stand on this.

mod auditd;
#[allow(dead_code, reason = "who has to wait here can be interrupted, and waits by itself")]
pub(crate) mod kernel_turn;
mod recorder;
mod seen;
mod storm;

pub use auditd::{Auditd, Flush, Format, Keeps, LAUREL, Logging};
pub use recorder::{From, Recorder};
pub use seen::Seen;
pub use storm::{Consumer, Producer, Storm, UID, openat, storm, watch};

use super::process::Trouble;
use crate::diag::Diagnostic;
use crate::escape::Escaped;
use graven_writer::source::kaudit;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A turn at the kernel's audit. Puts its settings back, whatever happens.
pub struct Turn {
    backlog_limit: u32,
    enabled: u32,
    _turn: kernel_turn::Turn,
}

impl Turn {
    /// Waits for it.
    ///
    /// # Errors
    /// [`Trouble::Stopped`], or why this machine's audit is not to be touched: it has a daemon, rules, or is locked, or this
    /// process may not.
    pub fn take(stop: &AtomicBool) -> Result<Self, Trouble> {
        // Who cannot use it does not wait for it.
        auditctl(&["-v"])?;
        let turn = loop {
            if let Some(turn) = kernel_turn::try_take().map_err(Trouble::io("the turn"))? {
                break turn;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Trouble::Stopped);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let status = kaudit::status().map_err(|why| Trouble::said(why.to_string()))?;
        if status.pid != 0 {
            return Err(Trouble::Said(format!("process {} is the audit daemon here", status.pid)));
        }
        if status.enabled > 1 {
            return Err(Trouble::said("the configuration of kernel audit is locked"));
        }
        let rules = auditctl(&["-l"])?;
        if rules.trim() != "No rules" {
            return Err(Trouble::said("kernel audit has rules, which are not ours to remove"));
        }
        let (backlog_limit, enabled) = (status.backlog_limit, status.enabled);
        Ok(Self { backlog_limit, enabled, _turn: turn })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let settings = [["-b", &self.backlog_limit.to_string()], ["-e", &self.enabled.to_string()]];
        let done = auditctl(&["-D"])
            .and_then(|_| settings.iter().try_for_each(|it| auditctl(it).map(drop)));
        if let Err(why) = done {
            let text = Escaped(why.to_string().as_bytes()).to_string();
            Diagnostic::warning(format!("kernel audit is not as it was: {text}"))
                .help("look at `auditctl -s` and `auditctl -l`")
                .emit();
        }
    }
}

/// Runs auditctl; returns what it prints.
///
/// # Errors
/// It is not there, or fails.
pub fn auditctl(args: &[&str]) -> Result<String, Trouble> {
    let output = Command::new("auditctl").args(args).output();
    let output = output.map_err(Trouble::io("auditctl does not start: install auditd"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Trouble::Said(format!("auditctl {}: {why}", args.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
