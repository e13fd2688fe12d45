//! The queue of what must become durable in order.

use crate::disk::{IoBuf, Op, OpId};
use crate::ring::Batch;
use graven_format::name;
use std::collections::VecDeque;

/// One thing that becomes durable as a whole.
#[derive(Debug)]
pub(super) struct Commit {
    /// Its operation in flight.
    pub(super) op: Option<OpId>,
    done: bool,
    what: What,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The segment's number.
    pub(super) segment: u64,
    /// Seq of the segment's first record, which is in its name.
    pub(super) first_seq: u64,
    /// Bytes from the start of its file.
    pub(super) offset: u64,
}

impl Place {
    fn file(&self) -> String {
        name::segment(self.segment, self.first_seq)
    }
}

#[derive(Debug)]
enum What {
    /// A frame: one write.
    Frame { place: Place, batch: Batch<()>, buf: Option<IoBuf>, submitted_ns: u64 },
    /// A trailer: one write, held back until everything before it is durable.
    Seal { place: Place, held_back: Option<Op>, buf: Option<IoBuf> },
    /// A segment comes into being: header, name, directory.
    Activation { from: String, to: String, step: Step, buf: Option<IoBuf> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Header,
    Rename,
    SyncDir,
}

/// What a completed commit gives back.
pub(super) enum Given {
    /// Records that are durable, in the buffer that held them.
    Batch(Batch<IoBuf>),
    /// The buffer of the trailer of this segment, which needs nothing more.
    Trailer(IoBuf, u64),
    /// The buffer of a header.
    Header(IoBuf),
}

impl Commit {
    pub(super) fn frame(op: OpId, place: Place, batch: Batch<()>, submitted_ns: u64) -> Self {
        let what = What::Frame { place, batch, buf: None, submitted_ns };
        Self { op: Some(op), done: false, what }
    }

    pub(super) fn seal(place: Place, write: Op) -> Self {
        let what = What::Seal { place, held_back: Some(write), buf: None };
        Self { op: None, done: false, what }
    }

    pub(super) fn activation(op: OpId, from: String, to: String) -> Self {
        let what = What::Activation { from, to, step: Step::Header, buf: None };
        Self { op: Some(op), done: false, what }
    }

    /// Bytes of the frame, without what pads it; 0 if it is none.
    pub(super) fn frame_bytes(&self) -> u64 {
        match &self.what {
            What::Frame { batch, .. } => batch.end_max() as u64,
            What::Seal { .. } | What::Activation { .. } => 0,
        }
    }

    /// If it is a frame: how long it has been in flight, in nanoseconds, and the share of that which it did not fill.
    pub(super) fn took(&self, now_ns: u64) -> Option<(u64, u64)> {
        match &self.what {
            What::Frame { batch, submitted_ns, .. } => {
                let took_ns = now_ns.saturating_sub(*submitted_ns);
                Some((took_ns, batch.unused_of(took_ns)))
            }
            What::Seal { .. } | What::Activation { .. } => None,
        }
    }

    /// What is being done, to which file and where, for errors.
    pub(super) fn describe(&self) -> (&'static str, String, Option<u64>) {
        match &self.what {
            What::Frame { place, .. } => ("write", place.file(), Some(place.offset)),
            What::Seal { place, .. } => ("write of the trailer", place.file(), Some(place.offset)),
            // Until it is renamed it has the other name.
            What::Activation { from, to, step, .. } => match step {
                Step::Header => ("write of the header", from.clone(), Some(0)),
                Step::Rename => ("rename", from.clone(), None),
                Step::SyncDir => ("sync of the directory after the rename", to.clone(), None),
            },
        }
    }

    /// The operation in flight has succeeded: the one that follows it, or none when the commit
    /// is complete.
    pub(super) fn succeeded(&mut self, returned: Option<IoBuf>) -> Option<Op> {
        match &mut self.what {
            What::Frame { buf, .. } | What::Seal { buf, .. } => *buf = returned,
            What::Activation { from, to, step, buf } => match step {
                Step::Header => {
                    *buf = returned;
                    *step = Step::Rename;
                    return Some(Op::Rename { from: from.clone(), to: to.clone() });
                }
                Step::Rename => {
                    *step = Step::SyncDir;
                    return Some(Op::SyncDir);
                }
                Step::SyncDir => {}
            },
        }
        self.done = true;
        None
    }

    /// What the completed commit gives back. A driver returns the buffer of every write that
    /// succeeded.
    fn into_given(self) -> Option<Given> {
        match self.what {
            What::Frame { batch, buf, .. } => Some(Given::Batch(batch.join(buf?))),
            What::Seal { place, buf, .. } => Some(Given::Trailer(buf?, place.segment)),
            What::Activation { buf, .. } => buf.map(Given::Header),
        }
    }
}

/// Commits in the order in which they count.
#[derive(Debug, Default)]
pub(super) struct Commits {
    queue: VecDeque<Commit>,
    frames_in_flight: usize,
}

impl Commits {
    pub(super) fn push(&mut self, commit: Commit) {
        self.frames_in_flight += usize::from(matches!(commit.what, What::Frame { .. }));
        self.queue.push_back(commit);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Frames whose write has not completed.
    pub(super) fn frames_in_flight(&self) -> usize {
        self.frames_in_flight
    }

    /// Whether a trailer or an activation is not durable yet.
    pub(super) fn changes_segment(&self) -> bool {
        self.queue.iter().any(|commit| !matches!(commit.what, What::Frame { .. }))
    }

    /// The commit whose operation in flight is `id`.
    pub(super) fn find(&mut self, id: OpId) -> Option<&mut Commit> {
        self.queue.iter_mut().find(|commit| commit.op == Some(id))
    }

    /// The write of `id` succeeded; the operation that follows it within its commit.
    pub(super) fn succeeded(&mut self, id: OpId, buf: Option<IoBuf>) -> Option<Op> {
        let commit = self.find(id)?;
        commit.op = None;
        let is_frame = matches!(commit.what, What::Frame { .. });
        let next = commit.succeeded(buf);
        self.frames_in_flight -= usize::from(is_frame);
        next
    }

    /// The commit that waits for the operation after the one that succeeded last.
    pub(super) fn continue_with(&mut self, id: OpId) {
        let waiting = |commit: &&mut Commit| {
            commit.op.is_none() && !commit.done && matches!(commit.what, What::Activation { .. })
        };
        if let Some(commit) = self.queue.iter_mut().find(waiting) {
            commit.op = Some(id);
        }
    }

    /// The oldest commit, if it is complete.
    pub(super) fn pop_done(&mut self) -> Option<Given> {
        while self.queue.front().is_some_and(|commit| commit.done) {
            let given = self.queue.pop_front().and_then(Commit::into_given);
            if given.is_some() {
                return given;
            }
        }
        None
    }

    /// The trailer that everything before it is durable for, if it was not submitted yet; its
    /// number in flight is given by [`Commits::seal_submitted`].
    pub(super) fn seal_due(&mut self) -> Option<Op> {
        match &mut self.queue.front_mut()?.what {
            What::Seal { held_back, .. } => held_back.take(),
            _ => None,
        }
    }

    /// Bytes of the trailer that was formed last and not submitted.
    pub(super) fn seal_len(&self) -> u64 {
        self.queue.back().map_or(0, |commit| match &commit.what {
            What::Seal { held_back: Some(Op::Write { len, .. }), .. } => *len as u64,
            _ => 0,
        })
    }

    pub(super) fn seal_submitted(&mut self, id: OpId) {
        if let Some(front) = self.queue.front_mut() {
            front.op = Some(id);
        }
    }
}
