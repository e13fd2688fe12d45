//! The clean end: everything accepted is durable, the last segment is sealed, its file cut to its
//! trailer, and the spare removed, one operation after the other.

use super::signer::Signer;
use super::{Engine, Turn};
use crate::disk::{Disk, Op, OpId};
use graven_format::trailer::SealReason;
use std::collections::VecDeque;

/// The last operations, one after the other, once everything is durable and sealed.
#[derive(Debug)]
pub(super) struct Closing {
    ops: VecDeque<Op>,
    in_flight: Option<InFlight>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    id: OpId,
    is_close: bool,
}

impl Closing {
    /// Whether `id` was its operation in flight, which has ended, and then whether that closed a
    /// file.
    pub(super) fn completed(&mut self, id: OpId) -> Option<bool> {
        self.in_flight.take_if(|last| last.id == id).map(|last| last.is_close)
    }
}

impl<D: Disk> Engine<D> {
    /// Everything accepted is durable: seal, cut the file to its trailer, remove the spare.
    pub(super) fn close_down(&mut self) -> Turn {
        // A key that is being erased is waited for: its store has promised a wake-up.
        if self.spare.is_busy() || self.signer.as_ref().is_some_and(Signer::is_installing) {
            return Turn::Sleep { until_ns: None };
        }
        if self.closing.is_none() {
            let mut ops = VecDeque::new();
            if let Some(active) = &self.active {
                let (file, frames_end) = (active.file(), active.tally.frames_end);
                self.seal(SealReason::Stop);
                let len = frames_end + self.commits.seal_len();
                ops.extend([Op::Truncate { file, len }, Op::Sync { file }, Op::Close { file }]);
            }
            let removal = self.spare.removal();
            let removes = !removal.is_empty();
            ops.extend(removal);
            ops.extend(removes.then_some(Op::SyncDir));
            self.closing = Some(Closing { ops, in_flight: None });
            return Turn::Again;
        }
        let Some(closing) = &mut self.closing else { return Turn::Again };
        if closing.in_flight.is_some() {
            return Turn::Sleep { until_ns: None };
        }
        match closing.ops.pop_front() {
            Some(op) => {
                let is_close = matches!(op, Op::Close { .. });
                let id = self.submit(op);
                if let Some(closing) = &mut self.closing {
                    closing.in_flight = Some(InFlight { id, is_close });
                }
                Turn::Again
            }
            None => {
                self.checkpoints.end();
                self.watermark.close();
                Turn::Finished
            }
        }
    }
}
