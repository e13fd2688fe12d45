//! Looking at a writer: nothing here makes the engine or a producer wait for more than a copy of a few
//! numbers, or the exchange of two pointers.

use super::{Opened, Shared};
use crate::engine::checkpoints::Checkpoints;
use crate::engine::metrics::{Counts, Latencies};
use crate::error::WriteError;
use crate::losses::Losses;
use crate::ring::RingStats;
use crate::room::Room;

/// Looks at the writer of a trail.
#[derive(Clone, Debug)]
pub struct Observer {
    shared: Shared,
}

impl Observer {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// What opening the trail found and did.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.shared.opened
    }

    /// How many records of the trail are durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.watermark.durable()
    }

    /// What the ring holds now.
    #[must_use]
    pub fn ring(&self) -> RingStats {
        self.shared.ring.stats()
    }

    /// When the oldest record that is not durable was taken from its source, in nanoseconds since
    /// boot; `None` if all are.
    #[must_use]
    pub fn oldest_taken_ns(&self) -> Option<u64> {
        self.shared.ring.taken_ns_from(self.durable())
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.metrics.counts()
    }

    /// Moves the latencies since the last call into `fresh`, which loses what it had.
    pub fn drain(&self, fresh: &mut Box<Latencies>) {
        self.shared.metrics.drain(fresh);
    }

    /// Looks at the latencies of all that was ever drained.
    pub fn drained<T>(&self, look: impl FnOnce(&Latencies) -> T) -> T {
        self.shared.metrics.drained(look)
    }

    /// Whether the writer waits for room on the disk.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.shared.room
    }

    /// The durable checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.shared.checkpoints
    }

    /// What has been stated as lost.
    #[must_use]
    pub fn losses(&self) -> &Losses {
        &self.shared.losses
    }

    /// How storage failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<WriteError> {
        self.shared.watermark.failure()
    }
}
