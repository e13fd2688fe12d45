//! The two clocks of a record, read in one place.

use rustix::time::{ClockId, clock_gettime};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since 1970-01-01T00:00:00Z; may step.
    pub realtime_ns: u64,
    /// Nanoseconds since boot, suspend included; never steps.
    pub boottime_ns: u64,
}

/// Reads both clocks.
#[must_use]
pub fn now() -> Now {
    Now { realtime_ns: read(ClockId::Realtime), boottime_ns: read(ClockId::Boottime) }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // A clock before 1970 is a clock that nobody has set: it reads as 1970.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
