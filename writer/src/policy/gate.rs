//! The gate before the ring: while it is closed, producers wait in front of it, and only Graven's own records
//! and those of exempt producers pass.
//!
//! Who is exempt is settled by where a record enters, and not by what is in it: by [`crate::Exempt`], which the program
//! that owns the trail gives to whom it trusts. Records of [`Source::Graven`] are, whatever way they come, so that a
//! loss can be stated at any time. A source that has one order for all its records, such as the kernel's socket,
//! cannot be exempt in part: a record that passed another would break that order.

use crate::source::AppendError;
use graven_format::{Record, Source};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// What producers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They go on.
    Open,
    /// They wait.
    Closed,
    /// Their records are dropped and counted.
    Dropping,
}

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const DROPPING: u8 = 2;
/// It stays open.
const ENDED: u8 = 3;

/// Records that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The source of the first of them.
    pub source: Source,
    /// How many.
    pub count: u64,
    /// Times of the first and the last, nanoseconds since 1970.
    pub between_ns: (u64, u64),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Gate {
    mode: AtomicU8,
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: u64,
    dropped: Option<Dropped>,
}

impl Gate {
    /// Changes what producers do. Who waits goes on, or is dropped, at once.
    pub fn set(&self, mode: Mode) {
        let mode = match mode {
            Mode::Open => OPEN,
            Mode::Closed => CLOSED,
            Mode::Dropping => DROPPING,
        };
        let _state = self.lock();
        if self.mode.load(Ordering::Relaxed) != ENDED {
            self.mode.store(mode, Ordering::Release);
        }
        self.opened.notify_all();
    }

    /// Opens it for good: recording ends, and nobody is to wait here.
    pub fn end(&self) {
        let _state = self.lock();
        self.mode.store(ENDED, Ordering::Release);
        self.opened.notify_all();
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.mode.load(Ordering::Acquire) == CLOSED
    }

    /// How many producers wait before it.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.lock().waiting
    }

    /// What was dropped since it was asked last.
    #[must_use]
    pub fn take_dropped(&self) -> Option<Dropped> {
        self.lock().dropped.take()
    }

    /// Waits until this record may go on.
    ///
    /// # Errors
    /// [`AppendError::Dropped`]: it is counted, and gone.
    pub(crate) fn pass(&self, record: &Record<'_>) -> Result<(), AppendError> {
        if self.stops(record) { self.pass_slowly(record) } else { Ok(()) }
    }

    /// Whether this record does not go on now.
    pub(crate) fn stops(&self, record: &Record<'_>) -> bool {
        let open = matches!(self.mode.load(Ordering::Acquire), OPEN | ENDED);
        !open && record.source != Source::Graven
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// As [`Gate::pass`], and [`AppendError::Full`] instead of a wait.
    pub(crate) fn try_pass(&self, record: &Record<'_>) -> Result<(), AppendError> {
        if record.source != Source::Graven && self.is_closed() {
            return Err(AppendError::Full);
        }
        self.pass(record)
    }

    #[cold]
    fn pass_slowly(&self, record: &Record<'_>) -> Result<(), AppendError> {
        let mut state = self.lock();
        loop {
            match self.mode.load(Ordering::Relaxed) {
                CLOSED => {
                    state.waiting += 1;
                    state = self.opened.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                }
                DROPPING => {
                    let at = record.realtime_ns;
                    let dropped = state.dropped.get_or_insert(Dropped {
                        source: record.source,
                        count: 0,
                        between_ns: (at, at),
                    });
                    dropped.count += 1;
                    let (from, to) = dropped.between_ns;
                    dropped.between_ns = (from.min(at), to.max(at));
                    return Err(AppendError::Dropped);
                }
                _ => return Ok(()),
            }
        }
    }

    /// A thread that died with this lock held had nothing half done.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
