//! The next segment, prepared one ahead: created under a temporary name, allocated, overwritten
//! with zeros, synced.
//!
//! Zeroing makes every later commit a pure overwrite, which converts no unwritten extents and so
//! costs no journal commit: about half the latency on ext4. Zeroing keeps step with the filling
//! of the segment in use, in small pieces, because every barrier waits for what the device has
//! just been given; all at once it would cost commits milliseconds. It is given up when the
//! segment is needed early or as many frames as may be are in flight, since then the device's
//! bandwidth is what records wait for and zeros take half of it; the rest is used unwritten.

use crate::disk::{FileId, Op, OpId};
use graven_format::name;
use rustix::io::Errno;
use std::io;

/// Fewest and most bytes that one operation zeroes. Every operation delays the barrier that comes
/// right behind it by some tens of microseconds, whatever its length: fewer bytes would delay more
/// barriers, more would delay one for longer. The most are for catching up.
const ZERO_BYTES_MIN: u64 = 64 * 1024;
/// See [`ZERO_BYTES_MIN`].
const ZERO_BYTES_MAX: u64 = 1024 * 1024;

/// How long to wait before asking again for room.
const RETRY_NS: u64 = 500_000_000;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Spare {
    segment: u64,
    segment_bytes: u64,
    zero_ahead: bool,
    hurried: bool,
    /// Whether there was no room for it, and it has not been made since.
    lacks_room: bool,
    step: Step,
    op: Option<OpId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Allocate,
    /// Zeroed up to the first offset; up to the second once the operation in flight ends.
    Zero(u64, u64),
    Sync,
    Ready,
    /// There was no room: the file is closed and removed, and made again later.
    Close,
    Remove,
    /// Waiting for room until this boottime; none before the first look at the clock.
    Wait(Option<u64>),
}

impl Spare {
    pub(super) fn new(segment: u64, segment_bytes: u64, zero_ahead: bool) -> Self {
        let (hurried, lacks_room, step, op) = (false, false, Step::Create, None);
        Self { segment, segment_bytes, zero_ahead, hurried, lacks_room, step, op }
    }

    /// The file number of a segment. Four segments are never open together.
    pub(super) fn file(segment: u64) -> FileId {
        FileId((segment % 4) as u32)
    }

    /// The number of the segment that is prepared.
    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// The number of its own file.
    pub(super) fn file_in_use(&self) -> FileId {
        Self::file(self.segment)
    }

    pub(super) fn owns(&self, id: OpId) -> bool {
        self.op == Some(id)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.step == Step::Ready
    }

    pub(super) fn waits_for_room(&self) -> bool {
        matches!(self.step, Step::Close | Step::Remove | Step::Wait(_))
    }

    /// The same, also while it asks for room again.
    pub(super) fn lacks_room(&self) -> bool {
        self.lacks_room
    }

    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// A wait for room ends: there may be some now.
    pub(super) fn ask_again(&mut self) {
        if matches!(self.step, Step::Wait(_)) {
            self.step = Step::Wait(Some(0));
        }
    }

    /// When [`Spare::next_op`] has to be asked again even if nothing completes.
    pub(super) fn retry_at_ns(&self) -> Option<u64> {
        if let Step::Wait(until_ns) = self.step { until_ns } else { None }
    }

    /// The next operation, to be submitted and told to [`Spare::submitted`]. `filled` says how
    /// many bytes of the segment in use are filled: zeroing goes no further than a piece beyond.
    pub(super) fn next_op(&mut self, boottime_ns: u64, filled: u64) -> Option<Op> {
        if self.op.is_some() {
            return None;
        }
        let file = Self::file(self.segment);
        let temporary = || name::temporary(self.segment);
        match self.step {
            Step::Create => Some(Op::Create { file, name: temporary() }),
            Step::Allocate => Some(Op::Allocate { file, len: self.segment_bytes }),
            Step::Zero(offset, _) if self.zeroes_on(offset) => {
                let behind = filled.saturating_sub(offset);
                if behind == 0 {
                    return None;
                }
                let len =
                    behind.clamp(ZERO_BYTES_MIN, ZERO_BYTES_MAX).next_multiple_of(ZERO_BYTES_MIN);
                let len = len.min(self.segment_bytes - offset);
                self.step = Step::Zero(offset, offset + len);
                Some(Op::Zero { file, offset, len })
            }
            Step::Zero(..) | Step::Sync => {
                self.step = Step::Sync;
                Some(Op::Sync { file })
            }
            Step::Close => Some(Op::Close { file }),
            Step::Remove => Some(Op::Remove { name: temporary() }),
            Step::Wait(None) => {
                self.step = Step::Wait(Some(boottime_ns + RETRY_NS));
                None
            }
            Step::Wait(Some(until_ns)) if boottime_ns >= until_ns => {
                self.step = Step::Create;
                Some(Op::Create { file, name: temporary() })
            }
            Step::Wait(Some(_)) | Step::Ready => None,
        }
    }

    pub(super) fn submitted(&mut self, id: OpId) {
        self.op = Some(id);
    }

    /// The operation in flight has ended.
    ///
    /// # Errors
    /// What it ended with, unless that was a lack of room: then the spare starts again later.
    pub(super) fn completed(&mut self, result: io::Result<()>) -> Result<(), io::Error> {
        self.op = None;
        match result {
            Ok(()) => {
                self.lacks_room &= self.step != Step::Sync;
                self.step = match self.step {
                    Step::Create => Step::Allocate,
                    Step::Allocate => Step::Zero(0, 0),
                    Step::Zero(_, end) => Step::Zero(end, end),
                    Step::Sync => Step::Ready,
                    Step::Close => Step::Remove,
                    Step::Remove => Step::Wait(None),
                    rest @ (Step::Ready | Step::Wait(_)) => rest,
                };
                Ok(())
            }
            // It is closed, whatever close says, and nothing in it is needed.
            Err(_) if self.step == Step::Close => {
                self.step = Step::Remove;
                Ok(())
            }
            Err(error) if is_no_room(&error) => {
                self.lacks_room = true;
                self.step = match self.step {
                    Step::Create => Step::Wait(None),
                    Step::Allocate | Step::Zero(..) | Step::Sync => Step::Close,
                    Step::Close | Step::Remove | Step::Ready | Step::Wait(_) => return Err(error),
                };
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What is being done, to which file and where in it, for errors.
    pub(super) fn describe(&self) -> (&'static str, String, Option<u64>) {
        let operation = match self.step {
            Step::Create => "creation",
            Step::Allocate => "allocation",
            Step::Zero(..) => "zeroing",
            Step::Sync => "sync",
            Step::Close => "closing",
            Step::Ready | Step::Remove | Step::Wait(_) => "removal",
        };
        let offset = if let Step::Zero(offset, _) = self.step { Some(offset) } else { None };
        (operation, name::temporary(self.segment), offset)
    }

    /// Hands the prepared segment over and starts on the one after it.
    pub(super) fn take_ready(&mut self) -> Option<u64> {
        if self.step != Step::Ready {
            return None;
        }
        let segment = self.segment;
        *self = Self::new(segment + 1, self.segment_bytes, self.zero_ahead);
        Some(segment)
    }

    /// What removes the spare when the writer stops: nothing of it was ever announced.
    pub(super) fn removal(&self) -> Vec<Op> {
        let remove = Op::Remove { name: name::temporary(self.segment) };
        match self.step {
            Step::Create | Step::Wait(_) => Vec::new(),
            Step::Remove => vec![remove],
            _ => vec![Op::Close { file: Self::file(self.segment) }, remove],
        }
    }

    /// Whether an operation is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.op.is_some()
    }

    fn zeroes_on(&self, offset: u64) -> bool {
        self.zero_ahead && !self.hurried && offset < self.segment_bytes
    }
}

/// Whether the system had no room, rather than failed.
fn is_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(Errno::NOSPC.raw_os_error()) || errno == Some(Errno::DQUOT.raw_os_error())
}
