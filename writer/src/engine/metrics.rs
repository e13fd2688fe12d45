//! What the writer has done and how long it took.

use crate::clock::Now;
use crate::disk::IoBuf;
use crate::ring::Batch;
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
        // Records that a source took together carry the same time, and count together.
        let (mut run_ns, mut run) = (0, 0);
        for taken_ns in batch.boottimes().map(Some).chain([None]) {
            if run > 0 && taken_ns != Some(run_ns) {
                let latency_ns = now.boottime_ns.saturating_sub(run_ns).max(1);
                totals.latency.saturating_record_n(latency_ns, std::mem::take(&mut run));
            }
            run_ns = taken_ns.unwrap_or_default();
            run += 1;
        }
    }

    /// A thread that died with this lock held left counts that are at most one batch behind.
    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ring;
    use graven_format::consts::FRAME_BYTES_MAX;
    use graven_format::{Flags, Record, Source};
    use std::sync::Arc;

    #[test]
    fn every_record_of_a_batch_is_counted_with_its_own_latency() {
        struct Nobody;
        impl crate::disk::Wake for Nobody {
            fn wake(&self) {}
        }
        let buffers = (0..2).map(|_| IoBuf::new(FRAME_BYTES_MAX).expect("memory")).collect();
        let ring = Ring::new(buffers, 0, Arc::new(Nobody));
        let taken = [400, 400, 400, 100, 700, 700, 400, 1000];
        for boottime_ns in taken {
            let record = Record {
                source: Source::Socket,
                kind: 0,
                flags: Flags::NONE,
                realtime_ns: 0,
                boottime_ns,
                source_seq: 0,
                bytes: b"x",
            };
            ring.append(&record).expect("room");
        }
        let metrics = Metrics::default();
        let now = Now { realtime_ns: 0, boottime_ns: 1000 };
        metrics.note_durable(&ring.take(true).expect("a batch"), now);
        let totals = metrics.totals();
        assert_eq!(totals.records, 8);
        let each: Vec<_> = totals
            .latency
            .iter_recorded()
            .map(|at| (at.value_iterated_to(), at.count_at_value()))
            .collect();
        assert_eq!(each, [(1, 1), (300, 2), (600, 4), (900, 1)]);
    }
}
