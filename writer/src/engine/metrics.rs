//! What the writer has done and how long it took.

use crate::clock::Now;
use crate::disk::IoBuf;
use crate::ring::Batch;
use graven_format::record;
use hdrhistogram::Histogram;
use std::sync::{Mutex, MutexGuard};

/// Longest latency that is told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// What the writer has done since it was opened.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Records that became durable.
    pub records: u64,
    /// Frames submitted.
    pub frames: u64,
    /// Bytes of these frames, padding included.
    pub frame_bytes: u64,
    /// Nanoseconds from each record's `boottime_ns` to its barrier.
    pub latency: Histogram<u64>,
}

/// Shared between the engine, which writes it a batch at a time, and whoever asks.
#[derive(Debug)]
pub struct Metrics {
    totals: Mutex<Totals>,
}

impl Default for Metrics {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
            .expect("the bounds are constants that the histogram accepts");
        Self { totals: Mutex::new(Totals { records: 0, frames: 0, frame_bytes: 0, latency }) }
    }
}

impl Metrics {
    /// A copy of what is known now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.lock().clone()
    }

    pub(super) fn note_frame(&self, bytes: u64) {
        let mut totals = self.lock();
        totals.frames += 1;
        totals.frame_bytes += bytes;
    }

    /// Counts a batch whose barrier has completed.
    pub(super) fn note_durable(&self, batch: &Batch<IoBuf>, now: Now) {
        let mut totals = self.lock();
        totals.records += u64::from(batch.count);
        for stored in record::split(batch.records()) {
            let mut boottime = [0; 8];
            boottime.copy_from_slice(&stored[16..24]);
            let taken_ns = u64::from_le_bytes(boottime);
            totals.latency.saturating_record(now.boottime_ns.saturating_sub(taken_ns).max(1));
        }
    }

    /// A thread that died with this lock held left counts that are at most one batch behind.
    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
