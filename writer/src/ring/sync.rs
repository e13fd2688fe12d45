//! What the ring is made of: the standard library here, a model checker's in `tests/ring-model`.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard};

use std::sync::LazyLock;
use std::time::Instant;

/// Nanoseconds since the first call, for the lengths of waits; read only by producers that wait
/// and by whoever asks for statistics.
pub(super) fn monotonic_ns() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Condition variables over which waiting producers are spread by ticket, so that to wake the
/// head of the queue wakes nobody else unless more than this many wait.
pub(super) const LOTS: u64 = 32;

/// Records that may pass one head of the queue; one frame's worth of small records, so that
/// room is put to use for as long as a woken thread commonly needs to run.
pub(super) const PASSES_MAX: u32 = 1024;
