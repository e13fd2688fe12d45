//! A turn at the kernel's audit that somebody may end.

use anyhow::{Result, ensure};
use graven_tools::bench::audit;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run's turn at the kernel's audit. Puts its settings back, whatever happens.
pub(crate) struct Turn {
    interrupted: Arc<AtomicBool>,
    _turn: audit::Turn,
}

impl Turn {
    /// Waits for it. From here on SIGINT and SIGTERM end nothing by themselves: see [`Turn::go_on`].
    pub(crate) fn take() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let turn = audit::Turn::take(&interrupted)?;
        Ok(Self { interrupted, _turn: turn })
    }

    /// An error if somebody has asked to end: what was begun then ends as after a failure.
    pub(crate) fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Set when somebody has asked to end.
    pub(crate) fn interrupted(&self) -> &AtomicBool {
        &self.interrupted
    }
}
