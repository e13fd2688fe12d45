//! Signals while a command runs under `graven run`.
//!
//! The terminal sends Ctrl-C to graven and to the command alike: graven leaves it to the command. What
//! is sent to graven alone (SIGTERM, SIGHUP) is passed on. Once the command itself has ended and only
//! descendants are left, any of them means that nobody wants to wait for those.

use crate::recording::room::Ending;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Whom signals concern.
#[derive(Debug)]
enum Stage {
    /// Nobody yet; the signals that have come are sent once the command is there.
    Before(Vec<Signal>),
    /// The command, by a descriptor that cannot come to mean another process.
    Command(OwnedFd),
    /// The command has ended.
    After,
    /// A signal has come since.
    GaveUp,
}

/// Passes signals on from now until the process ends.
#[derive(Debug)]
pub struct Forwarder {
    stage: Arc<Mutex<Stage>>,
    ending: Arc<OnceLock<Arc<Ending>>>,
}

impl Forwarder {
    /// Catches the signals that were not ignored when this process started: who started it under
    /// `nohup` wants the command to ignore them too.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch() -> io::Result<Self> {
        let ignored = ignored()?;
        let caught: Vec<i32> = [SIGINT, SIGQUIT, SIGTERM, SIGHUP]
            .into_iter()
            .filter(|signal| ignored >> (signal - 1) & 1 == 0)
            .collect();
        let mut signals = Signals::new(caught)?;
        let stage = Arc::new(Mutex::new(Stage::Before(Vec::new())));
        let ending = Arc::new(OnceLock::<Arc<Ending>>::new());
        let (shared, told) = (Arc::clone(&stage), Arc::clone(&ending));
        std::thread::Builder::new().name("graven-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let ends = arrived(&mut lock(&shared), signal);
                if let (true, Some(ending)) = (ends, told.get()) {
                    ending.signal();
                }
            }
        })?;
        Ok(Self { stage, ending })
    }

    /// Whom to tell of signals that come once the command has ended.
    pub fn then(&self, ending: Arc<Ending>) {
        // There is one trail, so this is called once.
        let _ = self.ending.set(ending);
    }

    /// The command has started.
    pub fn to(&self, command: Pid) {
        // Without a descriptor, it has ended already or the kernel is older than 5.3: signals then
        // stay with the terminal.
        let Ok(pidfd) = pidfd_open(command, PidfdFlags::empty()) else { return };
        let mut stage = lock(&self.stage);
        if let Stage::Before(came) = &*stage {
            for signal in came {
                let _ = pidfd_send_signal(&pidfd, *signal);
            }
        }
        *stage = Stage::Command(pidfd);
    }

    /// The command has ended.
    pub fn command_ended(&self) {
        *lock(&self.stage) = Stage::After;
    }

    /// Whether a signal has come since the command ended.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        matches!(*lock(&self.stage), Stage::GaveUp)
    }
}

/// Does what a signal asks for; true if it is meant for the recording.
fn arrived(stage: &mut Stage, signal: i32) -> bool {
    let passed_on = match signal {
        SIGTERM => Some(Signal::TERM),
        SIGHUP => Some(Signal::HUP),
        // The terminal has sent these to the command already.
        _ => None,
    };
    match (&mut *stage, passed_on) {
        (Stage::Before(came), Some(signal)) => came.push(signal),
        (Stage::Command(pidfd), Some(signal)) => {
            // One that has just ended needs no signal.
            let _ = pidfd_send_signal(pidfd, signal);
        }
        (Stage::Before(_) | Stage::Command(_), None) => {}
        (Stage::After | Stage::GaveUp, _) => *stage = Stage::GaveUp,
    }
    matches!(stage, Stage::GaveUp)
}

/// A thread that died with this lock held had nothing half done.
fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signals that this process ignores, as the bits of `SigIgn` in `/proc/self/status`.
fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}
