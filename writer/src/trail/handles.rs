//! Who has something to do with a trail's writer and does not own the trail: it is asked for checkpoints and seals, and
//! takes records past the gate.

use super::Shared;
use crate::engine::checkpoints::{Checkpoints, Published};
use crate::engine::durability::{WaitError, Watermark};
use crate::losses::Losses;
use crate::source::{AppendError, Sink};
use graven_format::Record;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no checkpoint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The trail has no key.
    #[error("the trail is not signed: it has no key")]
    Unsigned,
    /// The trail was closed, or storage failed.
    #[error(transparent)]
    Ended(WaitError),
}

/// Asks the writer of a trail for what is beside records: checkpoints, and the end of a segment.
#[derive(Clone, Debug)]
pub struct Asker {
    pub(super) shared: Shared,
}

impl Asker {
    /// The durable checkpoints, to look at and to wait for.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<Checkpoints> {
        Arc::clone(&self.shared.checkpoints)
    }

    /// Has the segment in use sealed as soon as all that has been accepted is in it, and says how many records that
    /// is. What comes later goes to a new segment, but for what is taken before the writer gets to it. Asked again before another record, it is the same seal; a trail
    /// that has ended is sealed anyway.
    #[must_use = "the records before this seq are those that it seals"]
    pub fn seal_now(&self) -> u64 {
        let seq = self.shared.ring.stats().next_seq;
        self.shared.requests.seal(seq);
        self.shared.ring.nudge();
        seq
    }

    /// From now on a checkpoint comes when the oldest record that none covers is this old, or only when one is asked
    /// for. What no checkpoint covers yet gets one now, so that no record waits as long as was asked for before.
    pub fn set_checkpoint_interval(&self, interval: Option<Duration>) {
        let ns = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
        self.shared.requests.set_interval_ns(interval.map(ns));
        let _ = self.shared.ring.cover();
        self.shared.ring.nudge();
    }

    /// Records that have been accepted, and those among them that are durable: a writer that goes on brings the
    /// second to the first.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let durable = self.shared.watermark.durable();
        (self.shared.ring.stats().next_seq, durable)
    }

    /// Whether the writer waits for room on the disk.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.shared.room.is_missing()
    }

    /// Appends a record of the writer's own, if there is room for it now, and returns its `seq`.
    ///
    /// # Errors
    /// [`AppendError`]; the record was not taken.
    pub fn try_append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        self.shared.ring.try_append(record)
    }

    /// A durable checkpoint over all that has been accepted: the newest, if it covers that, or else one
    /// that is made now and waited for.
    ///
    /// # Errors
    /// [`CheckpointError`] if the trail is not signed, or ended before.
    pub fn checkpoint(&self) -> Result<Arc<Published>, CheckpointError> {
        let size = self.ask_checkpoint()?;
        let waited = self.shared.checkpoints.wait_covering(size);
        waited.map_err(|_| CheckpointError::Ended(self.how_ended()))
    }

    /// The same, without blocking the thread.
    ///
    /// # Errors
    /// As [`Asker::checkpoint`].
    pub async fn checkpoint_durable(&self) -> Result<Arc<Published>, CheckpointError> {
        let size = self.ask_checkpoint()?;
        let waited = self.shared.checkpoints.covering(size).await;
        waited.map_err(|_| CheckpointError::Ended(self.how_ended()))
    }

    /// Asks for a checkpoint if one is needed, and says what it must cover.
    fn ask_checkpoint(&self) -> Result<u64, CheckpointError> {
        if self.shared.opened.key.is_none() {
            return Err(CheckpointError::Unsigned);
        }
        let size = self.shared.ring.stats().next_seq;
        let covered = self.shared.checkpoints.newest().is_some_and(|it| it.size >= size);
        Ok(if covered { size } else { self.shared.ring.cover() })
    }

    /// Why no checkpoint comes any more.
    fn how_ended(&self) -> WaitError {
        // It ends before or with the watermark.
        self.shared.watermark.wait_past(u64::MAX - 1).err().unwrap_or(WaitError::Closed)
    }
}

/// Graven's own records, from who outlives the trail: they are refused once it has ended.
impl Sink for Asker {
    fn next_seq(&self) -> u64 {
        self.shared.ring.stats().next_seq
    }

    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        self.shared.ring.append(record)
    }
}

/// Appends to a trail past its gate: Graven's own records, and those of producers that are trusted to go on while
/// others wait, because their work is what ends it.
#[derive(Clone, Debug)]
pub struct Exempt {
    pub(super) shared: Shared,
}

impl Exempt {
    /// Appends one record if there is room for it now.
    ///
    /// # Errors
    /// [`AppendError::Full`] if there is not: the record was not taken and not dropped.
    pub fn try_append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        let seq = self.shared.ring.try_append(record)?;
        self.shared.losses.note(record);
        Ok(seq)
    }

    /// What has been stated as lost so far.
    #[must_use]
    pub fn losses(&self) -> &Losses {
        &self.shared.losses
    }

    /// The durable watermark, to wait for.
    #[must_use]
    pub fn watermark(&self) -> Arc<Watermark> {
        Arc::clone(&self.shared.watermark)
    }
}

impl Sink for Exempt {
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        let seq = self.shared.ring.append(record)?;
        self.shared.losses.note(record);
        Ok(seq)
    }

    fn next_seq(&self) -> u64 {
        Sink::next_seq(&*self.shared.ring)
    }

    fn append_all(&self, records: &[Record<'_>]) -> Result<(), AppendError> {
        self.shared.ring.append_all(records)?;
        records.iter().for_each(|record| self.shared.losses.note(record));
        Ok(())
    }
}
