//! What to do after the kernel has answered one piece of a longer write: pure arithmetic, shared
//! by both drivers.

use rustix::io::Errno;

/// How often in a row a write may come back without progress (EINTR, EAGAIN, or fewer bytes than
/// one aligned unit) before that counts as an error. Bounds a loop that would otherwise be one
/// for ever on a broken device.
const TRIES_MAX: u32 = 100;

/// A range of a file that is being written, and how far that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// First byte of the whole range in the file.
    pub(super) offset: u64,
    /// Bytes of the whole range.
    pub(super) len: u64,
    /// Bytes written so far: a multiple of the alignment, or all of them.
    pub(super) done: u64,
    /// Answers in a row that brought no progress.
    tries: u32,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// All bytes are written.
    Complete,
    /// Write again from `done`.
    Again,
    /// It failed, and is not tried again.
    Failed(Errno),
}

impl Progress {
    pub(super) fn new(offset: u64, len: u64) -> Self {
        Self { offset, len, done: 0, tries: 0 }
    }

    /// Where the next piece starts, and its length if it is to be at most `piece_max` bytes.
    pub(super) fn piece(&self, piece_max: u64) -> (u64, u64) {
        (self.offset + self.done, (self.len - self.done).min(piece_max))
    }

    /// Takes the answer to the piece that started at `done`: bytes written, or an error.
    ///
    /// A short answer that ends inside an aligned unit is cut back to the last aligned boundary:
    /// a direct write has to start on one, and writing the same bytes again does no harm.
    pub(super) fn answer(&mut self, answer: Result<u64, Errno>, align: u64) -> Next {
        let reached = match answer {
            Err(Errno::INTR | Errno::AGAIN) => self.done,
            Err(errno) => return Next::Failed(errno),
            Ok(0) => return Next::Failed(Errno::IO),
            Ok(bytes) if bytes >= self.len - self.done => {
                self.done = self.len;
                return Next::Complete;
            }
            Ok(bytes) => (self.done + bytes) / align * align,
        };
        self.tries = if reached > self.done { 0 } else { self.tries + 1 };
        self.done = self.done.max(reached);
        if self.tries < TRIES_MAX {
            Next::Again
        } else {
            Next::Failed(answer.err().unwrap_or(Errno::IO))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_answer_completes() {
        let mut write = Progress::new(4096, 8192);
        assert_eq!(write.piece(u64::MAX), (4096, 8192));
        assert_eq!(write.answer(Ok(8192), 512), Next::Complete);
    }

    #[test]
    fn a_short_answer_resumes_at_the_last_aligned_boundary() {
        let mut write = Progress::new(4096, 8192);
        assert_eq!(write.answer(Ok(1000), 512), Next::Again);
        assert_eq!(write.piece(u64::MAX), (4096 + 512, 8192 - 512));
        assert_eq!(write.answer(Ok(511), 512), Next::Again);
        assert_eq!(write.piece(u64::MAX), (4096 + 512, 8192 - 512));
        assert_eq!(write.answer(Ok(8192 - 512), 512), Next::Complete);
    }

    #[test]
    fn interruptions_are_retried_but_not_for_ever() {
        for errno in [Errno::INTR, Errno::AGAIN] {
            let mut write = Progress::new(0, 512);
            let mut again = 0;
            while write.answer(Err(errno), 512) == Next::Again {
                again += 1;
            }
            assert_eq!(again, TRIES_MAX - 1);
            assert_eq!(write.answer(Err(errno), 512), Next::Failed(errno));
        }
    }

    #[test]
    fn other_errors_and_nothing_written_fail_at_once() {
        for errno in [Errno::IO, Errno::NOSPC, Errno::INVAL, Errno::DQUOT, Errno::ROFS] {
            assert_eq!(Progress::new(0, 512).answer(Err(errno), 512), Next::Failed(errno));
        }
        assert_eq!(Progress::new(0, 512).answer(Ok(0), 512), Next::Failed(Errno::IO));
    }

    proptest! {
        /// Whatever lengths the kernel answers with: every piece starts aligned and inside the
        /// range, no byte is skipped, and it ends.
        #[test]
        fn any_sequence_of_short_answers_covers_the_range(
            units in 1u64..200,
            shift in 9u32..13,
            piece_units in 1u64..64,
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..50),
        ) {
            let align = 1u64 << shift;
            let mut write = Progress::new(align * 3, align * units);
            let mut covered = write.offset;
            for cut in cuts.iter().cycle() {
                let (start, len) = write.piece(piece_units * align);
                prop_assert!(start % align == 0 && start <= covered && len > 0);
                prop_assert!(start + len <= write.offset + write.len);
                let answered = 1 + cut.index(usize::try_from(len).unwrap()) as u64;
                covered = covered.max(start + answered);
                match write.answer(Ok(answered), align) {
                    Next::Again => {}
                    Next::Complete => break,
                    // Only cuts that bring no progress many times in a row end like this.
                    Next::Failed(_) => return Ok(()),
                }
            }
            prop_assert_eq!(covered, write.offset + write.len);
        }
    }
}
