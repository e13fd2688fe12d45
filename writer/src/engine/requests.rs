//! What the engine is asked for beside records, by whoever runs the daemon.

use super::Engine;
use crate::disk::Disk;
use graven_format::trailer::SealReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// No other interval was asked for.
const INTERVAL_AS_IT_IS: u64 = 0;
/// No checkpoint for a record's age.
const INTERVAL_OFF: u64 = u64::MAX;

/// See the module's documentation. Whoever asks wakes the engine.
#[derive(Debug, Default)]
pub struct Requests {
    /// A segment that begins before this seq is to be sealed as soon as all records before it are in it.
    seal_at: AtomicU64,
    /// The interval between checkpoints from now on, in nanoseconds; see the constants.
    interval_ns: AtomicU64,
}

impl Requests {
    /// Asks for the segment to be sealed that the records before `seq` are in.
    pub fn seal(&self, seq: u64) {
        self.seal_at.fetch_max(seq, Ordering::Release);
    }

    /// Asks for checkpoints at another interval, or for none for a record's age.
    pub fn set_interval_ns(&self, interval_ns: Option<u64>) {
        let interval_ns = interval_ns.map_or(INTERVAL_OFF, |ns| ns.clamp(1, INTERVAL_OFF - 1));
        self.interval_ns.store(interval_ns, Ordering::Release);
    }

    fn take_interval_ns(&self) -> Option<Option<u64>> {
        if self.interval_ns.load(Ordering::Relaxed) == INTERVAL_AS_IT_IS {
            return None;
        }
        match self.interval_ns.swap(INTERVAL_AS_IT_IS, Ordering::Acquire) {
            INTERVAL_AS_IT_IS => None,
            INTERVAL_OFF => Some(None),
            interval_ns => Some(Some(interval_ns)),
        }
    }
}

impl<D: Disk> Engine<D> {
    /// Takes the interval that was asked for.
    pub(super) fn take_interval(&mut self) {
        if let Some(interval_ns) = self.requests.take_interval_ns()
            && let Some(signer) = &mut self.signer
        {
            signer.set_interval_ns(interval_ns);
        }
    }

    /// Seals the segment in use if that was asked for, and says whether it did.
    ///
    /// The next segment comes into being with its first record, as the first one of a writer does, so that none is
    /// ever without. The trailer stands where that of a full segment stands, at the end of the file: all that a
    /// crash can leave is what a change of segment leaves.
    pub(super) fn seal_if_asked(&mut self) -> bool {
        let seal_at = self.requests.seal_at.load(Ordering::Acquire);
        let due = self.active.as_ref().is_some_and(|active| {
            active.header.first_seq < seal_at && active.tree.end() >= seal_at
        });
        if !due || self.commits.changes_segment() {
            return false;
        }
        self.spare.hurry();
        self.seal(SealReason::Full);
        true
    }
}
