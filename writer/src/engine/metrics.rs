//! What the writer has done and how long it took.

use crate::clock::Now;
use crate::disk::IoBuf;
use crate::ring::Batch;
use hdrhistogram::Histogram;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// What is counted without a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that became durable.
    pub records: u64,
    /// Their stored bytes, headers included, before compression.
    pub record_bytes: u64,
    /// Frames submitted.
    pub frames: u64,
    /// Bytes of these frames, padding included.
    pub frame_bytes: u64,
    /// The segment that the last of them went to.
    pub segment: Option<SegmentInUse>,
}

/// The segment that frames go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInUse {
    /// Its number.
    pub segment: u64,
    /// Seq of its first record.
    pub first_seq: u64,
    /// Bytes of it that header and frames take.
    pub used_bytes: u64,
    /// All its bytes.
    pub total_bytes: u64,
}

/// How long things took.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Nanoseconds from each record's `boottime_ns` to its barrier, three digits.
    pub durable: Histogram<u64>,
    /// Nanoseconds from the submission of each frame to its barrier, two digits. Both moments are those of
    /// the engine's turns.
    pub barrier: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = |digits| {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits)
                .expect("the bounds are constants that the histogram accepts")
        };
        Self { durable: histogram(3), barrier: histogram(2) }
    }
}

impl Latencies {
    /// Forgets all of it.
    fn clear(&mut self) {
        self.durable.reset();
        self.barrier.reset();
    }

    fn add(&mut self, other: &Self) {
        // Not reached: all are made with the same bounds.
        const SAME: &str = "histograms of the same bounds";
        self.durable.add(&other.durable).expect(SAME);
        self.barrier.add(&other.barrier).expect(SAME);
    }
}

/// Shared between the engine, which writes it a batch at a time, and whoever asks.
///
/// The engine counts into one pair of histograms. Who looks exchanges it for an empty one, which takes
/// the time of two pointers, and adds it to the rest without the engine's lock.
#[derive(Debug, Default)]
pub struct Metrics {
    hot: Mutex<Hot>,
    /// Taken before the lock of `hot` by whoever takes both.
    drained: Mutex<Box<Latencies>>,
}

#[derive(Debug, Default)]
struct Hot {
    counts: Counts,
    latencies: Box<Latencies>,
}

impl Metrics {
    /// A copy of what is known now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let drained = self.lock_drained();
        let hot = self.lock();
        let mut all = Latencies::clone(&drained);
        all.add(&hot.latencies);
        let Counts { records, frames, frame_bytes, .. } = hot.counts;
        Totals { records, frames, frame_bytes, latency: all.durable }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Moves what was measured since the last call into `fresh`.
    pub(crate) fn drain(&self, fresh: &mut Box<Latencies>) {
        fresh.clear();
        let mut drained = self.lock_drained();
        std::mem::swap(&mut self.lock().latencies, fresh);
        drained.add(fresh);
    }

    /// Looks at all that was ever drained.
    pub(crate) fn drained<T>(&self, look: impl FnOnce(&Latencies) -> T) -> T {
        look(&self.lock_drained())
    }

    pub(super) fn note_frame(&self, bytes: u64, segment: SegmentInUse) {
        let mut hot = self.lock();
        hot.counts.frames += 1;
        hot.counts.frame_bytes += bytes;
        hot.counts.segment = Some(segment);
    }

    /// Counts a frame whose barrier has completed after this time.
    pub(super) fn note_barrier(&self, took_ns: u64) {
        self.lock().latencies.barrier.saturating_record(took_ns.max(1));
    }

    /// Counts a batch whose barrier has completed.
    pub(super) fn note_durable(&self, batch: &Batch<IoBuf>, now: Now) {
        let mut hot = self.lock();
        hot.counts.records += u64::from(batch.count);
        hot.counts.record_bytes += batch.records_len() as u64;
        // Records that a source took together carry the same time, and count together.
        let (mut run_ns, mut run) = (0, 0);
        for taken_ns in batch.boottimes().map(Some).chain([None]) {
            if run > 0 && taken_ns != Some(run_ns) {
                let latency_ns = now.boottime_ns.saturating_sub(run_ns).max(1);
                let latency = &mut hot.latencies.durable;
                latency.saturating_record_n(latency_ns, std::mem::take(&mut run));
            }
            run_ns = taken_ns.unwrap_or_default();
            run += 1;
        }
    }

    /// A thread that died with this lock held left counts that are at most one batch behind.
    fn lock(&self) -> MutexGuard<'_, Hot> {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_drained(&self) -> MutexGuard<'_, Box<Latencies>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut taken = Box::<Latencies>::default();
        metrics.note_barrier(70);
        metrics.drain(&mut taken);
        assert_eq!((taken.durable.len(), taken.barrier.len()), (8, 1));
        metrics.drain(&mut taken);
        assert!(taken.durable.is_empty() && taken.barrier.is_empty());
        metrics.note_barrier(80);
        metrics.drain(&mut taken);
        assert_eq!((taken.durable.len(), taken.barrier.max()), (0, 80));
        metrics.drained(|all| assert_eq!((all.durable.len(), all.barrier.len()), (8, 2)));
        assert_eq!(metrics.totals().latency, totals.latency, "drained or not, it is the same");
        let each: Vec<_> = totals
            .latency
            .iter_recorded()
            .map(|at| (at.value_iterated_to(), at.count_at_value()))
            .collect();
        assert_eq!(each, [(1, 1), (300, 2), (600, 4), (900, 1)]);
    }
}
