//! Disks that lie, each standing for a mistake that an engine could make. An oracle that does
//! not find them out within a few lives could not find the mistake either.

use crate::rng::Rng;
use graven_writer::disk::sim::{OpKind, SimDisk};
use graven_writer::disk::{Completion, Disk, IoBuf, Op, OpId};
use std::collections::BTreeSet;

/// What the disk says that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A write is called durable when it is submitted: an engine that announces too early.
    EarlyWrite,
    /// The same for frames alone: an engine that writes a trailer before its frames are durable.
    EarlyFrame,
    /// A rename is called durable without its directory's barrier.
    NoSyncDir,
    /// A file's barrier is left out.
    NoSync,
    /// A rename is left out.
    NoRename,
    /// A truncation is left out.
    NoTruncate,
    /// A failed write or barrier is called a success.
    HiddenError,
    /// Some writes never happen.
    LostWrite,
    /// Some writes have a wrong byte.
    WrongByte,
    /// Some writes go to another place of the file.
    Misplaced,
}

impl Lie {
    /// Every lie.
    pub const ALL: [Self; 10] = [
        Self::EarlyWrite,
        Self::EarlyFrame,
        Self::NoSyncDir,
        Self::NoSync,
        Self::NoRename,
        Self::NoTruncate,
        Self::HiddenError,
        Self::LostWrite,
        Self::WrongByte,
        Self::Misplaced,
    ];
}

/// How often a write is lied about that is lied about at times.
const ONE_IN: u64 = 12;

/// A disk's liar.
#[derive(Debug)]
pub(crate) struct Liar {
    lie: Lie,
    rng: Rng,
    /// Completions that are made up.
    ready: Vec<Completion>,
    /// Operations that go on although their completion was given already.
    secret: BTreeSet<OpId>,
}

impl Liar {
    /// A liar of this kind.
    #[must_use]
    pub(crate) fn new(lie: Lie, seed: u64) -> Self {
        Self { lie, rng: Rng::new(seed, 2), ready: Vec::new(), secret: BTreeSet::new() }
    }

    /// Whether a made-up completion waits to be taken.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Passes an operation on, or not, or another one.
    pub(crate) fn submit(&mut self, sim: &mut SimDisk, id: OpId, op: Op) {
        match (self.lie, op) {
            (Lie::EarlyWrite, op @ Op::Write { .. }) => self.copy(sim, id, op),
            (Lie::EarlyFrame, op @ Op::Write { .. }) if is_frame(&op) => self.copy(sim, id, op),
            (Lie::NoSyncDir, op @ Op::SyncDir)
            | (Lie::NoSync, op @ Op::Sync { .. })
            | (Lie::NoRename, op @ Op::Rename { .. })
            | (Lie::NoTruncate, op @ Op::Truncate { .. }) => self.pretend(id, op),
            (Lie::LostWrite, op @ Op::Write { .. }) if self.rng.one_in(ONE_IN) => {
                self.pretend(id, op);
            }
            (Lie::WrongByte, Op::Write { file, offset, mut buf, len })
                if self.rng.one_in(ONE_IN) =>
            {
                let at = self.rng.below(len as u64) as usize;
                buf[at] ^= 1 << self.rng.below(8);
                sim.submit(id, Op::Write { file, offset, buf, len });
            }
            (Lie::Misplaced, Op::Write { file, offset, buf, len })
                if offset >= len as u64 && self.rng.one_in(ONE_IN) =>
            {
                sim.submit(id, Op::Write { file, offset: offset - len as u64, buf, len });
            }
            (_, op) => sim.submit(id, op),
        }
    }

    /// Takes away what was told already and adds what is made up.
    pub(crate) fn poll(&mut self, done: &mut Vec<Completion>) {
        done.retain(|completion| !self.secret.remove(&completion.id));
        done.append(&mut self.ready);
    }

    /// The last word on a completion.
    pub(crate) fn completed(&self, kind: OpKind, completion: &mut Completion) {
        let barrier = matches!(kind, OpKind::Write | OpKind::Sync | OpKind::SyncDir);
        if self.lie == Lie::HiddenError && barrier && completion.result.is_err() {
            completion.result = Ok(());
        }
    }

    /// Says that it is done, and does it later.
    fn copy(&mut self, sim: &mut SimDisk, id: OpId, op: Op) {
        let Op::Write { file, offset, buf, len } = op else { return };
        let mut copy = IoBuf::new(buf.len()).expect("memory for a copy");
        copy.copy_from_slice(&buf);
        sim.submit(id, Op::Write { file, offset, buf: copy, len });
        self.secret.insert(id);
        self.ready.push(Completion { id, result: Ok(()), buf: Some(buf) });
    }

    /// Says that it is done, and does not do it.
    fn pretend(&mut self, id: OpId, op: Op) {
        let buf = if let Op::Write { buf, .. } = op { Some(buf) } else { None };
        self.ready.push(Completion { id, result: Ok(()), buf });
    }
}

fn is_frame(op: &Op) -> bool {
    matches!(op, Op::Write { buf, .. } if graven_format::frame::FrameHeader::starts(buf))
}
