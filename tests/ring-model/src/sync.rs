//! What the ring is made of when it is model-checked. See the writer's `ring/sync.rs`.

pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};

/// No clock: the lengths of waits mean nothing under a scheduler that explores.
pub(super) fn monotonic_ns() -> u64 {
    0
}

/// Few, so that producers share them.
pub(super) const LOTS: u64 = 2;

/// Few, so that the explored schedules reach the limit.
pub const PASSES_MAX: u32 = 2;
