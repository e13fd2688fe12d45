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

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 4 * ZERO_BYTES_MAX;
    const NO_ROOM: Errno = Errno::NOSPC;

    fn spare(zero_ahead: bool) -> Spare {
        Spare::new(7, SEGMENT, zero_ahead)
    }

    /// The next operation, which is in flight from then on.
    fn next(spare: &mut Spare, now_ns: u64, filled: u64) -> Option<Op> {
        let op = spare.next_op(now_ns, filled)?;
        spare.submitted(OpId(1));
        assert!(spare.next_op(now_ns, filled).is_none(), "one at a time");
        Some(op)
    }

    /// The next operation has succeeded: in short, what it was.
    fn done(spare: &mut Spare, filled: u64) -> Option<String> {
        let said = match next(spare, 0, filled)? {
            Op::Create { name, .. } => format!("create {name}"),
            Op::Allocate { len, .. } => format!("allocate {len}"),
            Op::Zero { offset, len, .. } => format!("zero {offset} {len}"),
            Op::Sync { .. } => "sync".to_owned(),
            op => panic!("{op:?}"),
        };
        spare.completed(Ok(())).unwrap();
        Some(said)
    }

    /// Created and allocated.
    fn made(zero_ahead: bool) -> Spare {
        let mut spare = spare(zero_ahead);
        assert!(done(&mut spare, 0).is_some_and(|it| it.starts_with("create ")));
        assert_eq!(done(&mut spare, 0), Some(format!("allocate {SEGMENT}")));
        spare
    }

    #[test]
    fn zeros_keep_step_with_the_segment_in_use_and_are_all_there_before_the_first() {
        let (piece, mut spare) = (ZERO_BYTES_MIN, made(true));
        assert_eq!(done(&mut spare, 0), None);
        // A piece for each that is begun, and no further.
        assert_eq!(done(&mut spare, 1), Some(format!("zero 0 {piece}")));
        assert_eq!(done(&mut spare, piece), None);
        assert_eq!(done(&mut spare, 3 * piece + 1), Some(format!("zero {piece} {}", 3 * piece)));
        // What was missed is caught up with in larger ones.
        let (at, most) = (4 * piece, ZERO_BYTES_MAX);
        assert_eq!(done(&mut spare, SEGMENT), Some(format!("zero {at} {most}")));
        let mut spare = made(true);
        for n in 0..SEGMENT / most {
            assert_eq!(done(&mut spare, u64::MAX), Some(format!("zero {} {most}", n * most)));
        }
        assert_eq!(done(&mut spare, u64::MAX), Some("sync".to_owned()));
        assert!(spare.is_ready());
        assert_eq!(spare.take_ready(), Some(7));
        assert_eq!((spare.segment(), spare.take_ready()), (8, None));
    }

    #[test]
    fn a_segment_that_is_needed_or_not_to_be_zeroed_is_synced_as_it_is() {
        let mut spare = made(true);
        assert!(done(&mut spare, 1).is_some_and(|it| it.starts_with("zero ")));
        spare.hurry();
        assert_eq!(done(&mut spare, SEGMENT), Some("sync".to_owned()));
        assert!(spare.is_ready());
        let mut spare = made(false);
        assert_eq!(done(&mut spare, 0), Some("sync".to_owned()));
        assert!(spare.is_ready());
    }

    /// Whichever operation finds no room: the file goes, and it is asked again, later or when there may be some.
    #[test]
    fn without_room_it_is_removed_and_asked_for_again() {
        for failing in 0..4 {
            let mut spare = spare(true);
            for _ in 0..failing {
                done(&mut spare, 1).unwrap();
            }
            next(&mut spare, 0, 1 + failing * ZERO_BYTES_MIN).unwrap();
            spare.completed(Err(NO_ROOM.into())).unwrap();
            assert!(spare.lacks_room() && spare.waits_for_room());
            if failing > 0 {
                assert!(matches!(next(&mut spare, 0, 1), Some(Op::Close { .. })));
                // Whatever close says.
                spare.completed(Err(Errno::IO.into())).unwrap();
                assert!(matches!(next(&mut spare, 0, 1), Some(Op::Remove { .. })));
                spare.completed(Ok(())).unwrap();
            }
            assert!(next(&mut spare, 5, 1).is_none());
            assert_eq!(spare.retry_at_ns(), Some(5 + RETRY_NS));
            assert!(next(&mut spare, 4 + RETRY_NS, 1).is_none());
            if failing == 1 {
                spare.ask_again();
            }
            let now_ns = if failing == 1 { 6 } else { 5 + RETRY_NS };
            assert!(matches!(next(&mut spare, now_ns, 1), Some(Op::Create { .. })));
            spare.completed(Ok(())).unwrap();
            // It lacks room until all of it is there.
            assert!(spare.lacks_room() && !spare.waits_for_room());
            spare.hurry();
            assert!(done(&mut spare, 1).is_some_and(|it| it.starts_with("allocate ")));
            assert_eq!(done(&mut spare, 1), Some("sync".to_owned()));
            assert!(spare.is_ready() && !spare.lacks_room());
        }
    }

    #[test]
    fn another_error_is_the_trails() {
        let mut spare = made(true);
        next(&mut spare, 0, 1).unwrap();
        assert_eq!(spare.completed(Err(Errno::IO.into())).unwrap_err().raw_os_error(), Some(5));
        let (operation, file, offset) = spare.describe();
        assert_eq!((operation, offset), ("zeroing", Some(0)));
        assert_eq!(file, name::temporary(7));
    }
}
