//! The next segment, prepared one ahead: created under a temporary name, allocated, overwritten
//! with zeros, synced.
//!
//! Zeroing makes every later commit a pure overwrite, which converts no unwritten extents and so
//! costs no journal commit: about half the latency on ext4. It keeps step with the filling of the
//! segment in use, since all at once it would cost commits milliseconds, by these rules:
//!
//! - one piece for sixteen frames, as long as what they filled, or for fewer that fill as much as the
//!   longest. The barrier that comes right behind a piece waits for it, so a long piece seldom is better
//!   for most records than a short one often, while with few records pieces are short;
//! - none while frames are long, since a journal commit costs a frame the same whatever its length, and
//!   zeros as much of the device's bandwidth as the frame itself; nor while as many frames are in flight
//!   as may be, since that bandwidth is then what records wait for;
//! - it goes a little faster than the filling, and is given up when an eighth of the segment in use
//!   is left, so that the sync of the new one is over before it is needed. What was not zeroed is
//!   used unwritten.

use crate::disk::{FileId, Op, OpId, ZERO_BYTES};
use graven_format::consts::FRAME_BYTES_MAX;
use graven_format::name;
use rustix::io::Errno;
use std::io;

/// Fewest and most bytes that one operation zeroes: the most are one write of the driver's.
const PIECE_BYTES_MIN: u64 = 64 * 1024;
/// See [`PIECE_BYTES_MIN`].
const PIECE_BYTES_MAX: u64 = ZERO_BYTES as u64;

/// Frames for each piece.
const FRAMES_A_PIECE: u64 = 16;

/// Longest frames, in the mean, for which anything is zeroed: half a buffer.
const FRAME_BYTES_LONG: u64 = FRAME_BYTES_MAX as u64 / 2;

/// Zeroing is over when this part of the segment in use is left: one in so many bytes.
const LEFT: u64 = 8;

/// How long to wait before asking again for room.
const RETRY_NS: u64 = 500_000_000;

/// How far records have got in the segment in use, for zeroing to keep step with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes that are filled.
    pub(super) filled: u64,
    /// Frames in it.
    pub(super) frames: u64,
    /// Whether as many are in flight as may be.
    pub(super) is_device_full: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Spare {
    segment: u64,
    segment_bytes: u64,
    zero_ahead: bool,
    hurried: bool,
    /// How far records had got when the last piece was due.
    last: Pace,
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
        let (hurried, lacks_room) = (false, false);
        let last = Pace { filled: 0, frames: 0, is_device_full: false };
        let (step, op) = (Step::Create, None);
        Self { segment, segment_bytes, zero_ahead, hurried, last, lacks_room, step, op }
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

    /// The next operation, to be submitted and told to [`Spare::submitted`]. There is no pace while no segment is in use:
    /// nobody waits then.
    pub(super) fn next_op(&mut self, boottime_ns: u64, pace: Option<Pace>) -> Option<Op> {
        if self.op.is_some() {
            return None;
        }
        let file = Self::file(self.segment);
        let temporary = || name::temporary(self.segment);
        match self.step {
            Step::Create => Some(Op::Create { file, name: temporary() }),
            Step::Allocate => Some(Op::Allocate { file, len: self.segment_bytes }),
            Step::Zero(offset, _) if self.zeroes_on(offset, pace) => {
                let len = self.piece(offset, pace)?;
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

    /// Whether there is more to zero, and it is not given up.
    fn zeroes_on(&self, offset: u64, pace: Option<Pace>) -> bool {
        let ends_at = self.segment_bytes - self.segment_bytes / LEFT;
        let is_late = pace.is_some_and(|pace| pace.filled >= ends_at);
        self.zero_ahead && !self.hurried && !is_late && offset < self.segment_bytes
    }

    /// The length of the piece from `offset` on that is due now, if any.
    fn piece(&mut self, offset: u64, pace: Option<Pace>) -> Option<u64> {
        let left = self.segment_bytes - offset;
        let Some(pace) = pace else { return Some(left.min(PIECE_BYTES_MAX)) };
        let frames = pace.frames.saturating_sub(self.last.frames);
        let filled = pace.filled.saturating_sub(self.last.filled);
        // The longest piece is due a little sooner than as much is filled, or it would fall behind.
        if frames < FRAMES_A_PIECE && filled < PIECE_BYTES_MAX - PIECE_BYTES_MAX / LEFT {
            return None;
        }
        self.last = pace;
        let behind = (pace.filled + pace.filled / (LEFT - 1)).saturating_sub(offset);
        if behind == 0 || filled > frames * FRAME_BYTES_LONG || pace.is_device_full {
            return None;
        }
        let len = behind.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        Some(len.next_multiple_of(PIECE_BYTES_MIN).min(left))
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

    const SEGMENT: u64 = 16 * PIECE_BYTES_MAX;
    const MIN: u64 = PIECE_BYTES_MIN;
    const MAX: u64 = PIECE_BYTES_MAX;

    /// So many bytes in so many frames.
    fn pace(filled: u64, frames: u64) -> Option<Pace> {
        Some(Pace { filled, frames, is_device_full: false })
    }

    /// The next operation, which is in flight from then on.
    fn next(spare: &mut Spare, now_ns: u64, pace: Option<Pace>) -> Option<Op> {
        let op = spare.next_op(now_ns, pace)?;
        spare.submitted(OpId(1));
        assert!(spare.next_op(now_ns, pace).is_none(), "one at a time");
        Some(op)
    }

    /// The next operation has succeeded: in short, what it was.
    fn done(spare: &mut Spare, pace: Option<Pace>) -> Option<String> {
        let said = match next(spare, 0, pace)? {
            Op::Create { name, .. } => format!("create {name}"),
            Op::Allocate { len, .. } => format!("allocate {len}"),
            Op::Zero { offset, len, .. } => format!("zero {offset} {len}"),
            Op::Sync { .. } => "sync".to_owned(),
            op => panic!("{op:?}"),
        };
        spare.completed(Ok(())).unwrap();
        Some(said)
    }

    fn zero(offset: u64, len: u64) -> Option<String> {
        Some(format!("zero {offset} {len}"))
    }

    /// Created and allocated.
    fn made(zero_ahead: bool) -> Spare {
        let mut spare = Spare::new(7, SEGMENT, zero_ahead);
        assert!(done(&mut spare, pace(1, 0)).is_some_and(|it| it.starts_with("create ")));
        assert_eq!(done(&mut spare, pace(1, 0)), Some(format!("allocate {SEGMENT}")));
        spare
    }

    #[test]
    fn before_the_first_segment_all_of_it_is_zeroed_at_once() {
        let mut spare = made(true);
        for n in 0..SEGMENT / MAX {
            assert_eq!(done(&mut spare, None), zero(n * MAX, MAX));
        }
        assert_eq!(done(&mut spare, None), Some("sync".to_owned()));
        assert!(spare.is_ready());
        assert_eq!(spare.take_ready(), Some(7));
        assert_eq!((spare.segment(), spare.take_ready()), (8, None));
    }

    #[test]
    fn a_piece_is_as_long_as_what_sixteen_frames_have_filled() {
        let mut spare = made(true);
        assert_eq!(done(&mut spare, pace(4096 * 15, 15)), None);
        // An eighth more, in whole pieces.
        assert_eq!(done(&mut spare, pace(4096 * 16, 16)), zero(0, 2 * MIN));
        assert_eq!(done(&mut spare, pace(4096 * 31, 31)), None);
        assert_eq!(done(&mut spare, pace(4096 * 32, 32)), zero(2 * MIN, MIN));
        assert_eq!(done(&mut spare, pace(4096 * 47 + 60_000, 47)), None);
        // Seven of half a buffer, which are not too long, are as good.
        let filled = 4096 * 32 + 6 * FRAME_BYTES_LONG;
        assert_eq!(done(&mut spare, pace(filled, 38)), None);
        assert_eq!(done(&mut spare, pace(filled + FRAME_BYTES_LONG, 39)), zero(3 * MIN, MAX));
    }

    #[test]
    fn a_device_whose_bandwidth_is_what_lacks_gets_no_zeros() {
        let mut spare = made(true);
        assert_eq!(done(&mut spare, pace(8 * FRAME_BYTES_LONG + 1, 8)), None, "long frames");
        let full = Pace { filled: 9 * FRAME_BYTES_LONG, frames: 24, is_device_full: true };
        assert_eq!(done(&mut spare, Some(full)), None, "as many in flight as may be");
        assert_eq!(done(&mut spare, pace(full.filled + 4096, 40)), zero(0, MAX));
        // It is ready before it is needed, however little of it was zeroed.
        let late = Pace { filled: SEGMENT - SEGMENT / LEFT, ..full };
        assert_eq!(done(&mut spare, Some(late)), Some("sync".to_owned()));
        assert!(spare.is_ready());
    }

    /// However long frames are, as long as zeros are written for them: all is zeroed when the last eighth begins.
    #[test]
    fn zeros_are_there_before_the_segment_in_use_is_full() {
        for frame in [4096, 16 * 1024, 60 * 1024, FRAME_BYTES_LONG] {
            let (mut spare, mut zeroed, mut frames) = (made(true), 0, 0);
            while !spare.is_ready() {
                frames += 1;
                match next(&mut spare, 0, pace(frames * frame, frames)) {
                    Some(Op::Zero { offset, len, .. }) => {
                        assert_eq!(offset, zeroed);
                        zeroed += len;
                    }
                    Some(Op::Sync { .. }) | None => {}
                    Some(op) => panic!("{op:?}"),
                }
                if spare.is_busy() {
                    spare.completed(Ok(())).unwrap();
                }
            }
            let left = SEGMENT - frames * frame;
            assert!(left >= SEGMENT / LEFT - frame, "frames of {frame}: {left} are left");
            // The last pieces are of frames that had not come.
            assert!(zeroed >= SEGMENT - FRAMES_A_PIECE * frame * 2, "frames of {frame}: {zeroed}");
        }
    }

    #[test]
    fn a_segment_that_is_needed_or_not_to_be_zeroed_is_synced_as_it_is() {
        let mut spare = made(true);
        assert_eq!(done(&mut spare, pace(4096, 16)), zero(0, MIN));
        spare.hurry();
        assert_eq!(done(&mut spare, pace(4096, 16)), Some("sync".to_owned()));
        assert!(spare.is_ready());
        let mut spare = made(false);
        assert_eq!(done(&mut spare, pace(4096, 16)), Some("sync".to_owned()));
        assert!(spare.is_ready());
    }

    /// Whichever operation finds no room: the file goes, and it is asked again, later or when there may be some.
    #[test]
    fn without_room_it_is_removed_and_asked_for_again() {
        for failing in 0..4 {
            let mut spare = Spare::new(7, SEGMENT, true);
            for _ in 0..failing {
                done(&mut spare, None).unwrap();
            }
            next(&mut spare, 0, None).unwrap();
            spare.completed(Err(Errno::NOSPC.into())).unwrap();
            assert!(spare.lacks_room() && spare.waits_for_room());
            if failing > 0 {
                assert!(matches!(next(&mut spare, 0, None), Some(Op::Close { .. })));
                // Whatever close says.
                spare.completed(Err(Errno::IO.into())).unwrap();
                assert!(matches!(next(&mut spare, 0, None), Some(Op::Remove { .. })));
                spare.completed(Ok(())).unwrap();
            }
            assert!(next(&mut spare, 5, None).is_none());
            assert_eq!(spare.retry_at_ns(), Some(5 + RETRY_NS));
            assert!(next(&mut spare, 4 + RETRY_NS, None).is_none());
            let asked = failing == 1;
            if asked {
                spare.ask_again();
            }
            let now_ns = if asked { 6 } else { 5 + RETRY_NS };
            assert!(matches!(next(&mut spare, now_ns, None), Some(Op::Create { .. })));
            spare.completed(Ok(())).unwrap();
            // It lacks room until all of it is there.
            assert!(spare.lacks_room() && !spare.waits_for_room());
            spare.hurry();
            assert!(done(&mut spare, None).is_some_and(|it| it.starts_with("allocate ")));
            assert_eq!(done(&mut spare, None), Some("sync".to_owned()));
            assert!(spare.is_ready() && !spare.lacks_room());
        }
    }

    #[test]
    fn another_error_is_the_trails() {
        let mut spare = made(true);
        next(&mut spare, 0, None).unwrap();
        assert_eq!(spare.completed(Err(Errno::IO.into())).unwrap_err().raw_os_error(), Some(5));
        let (operation, file, offset) = spare.describe();
        assert_eq!((operation, offset), ("zeroing", Some(0)));
        assert_eq!(file, name::temporary(7));
    }
}
