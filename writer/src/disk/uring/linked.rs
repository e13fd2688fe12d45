//! A barrier of two entries: a write, and an fdatasync that the kernel starts when the write is done.
//!
//! # Why not RWF_DSYNC
//!
//! Where a device has a volatile cache and takes no single write past it, a direct write with RWF_DSYNC ends in a flush, for
//! which the kernel has a worker thread bound to the processor that serves the device's interrupts. Since Linux 6.6 such a
//! thread waits there until whoever computes has used up its slice, twice for a barrier: beside one process that
//! computes, a barrier takes 6 ms in place of 0.2. An fdatasync is done by a thread of io_uring's, which runs where there is
//! room; and since 6.6 too, a write over blocks that were written before ends without that worker.
//!
//! # When the two are a barrier
//!
//! When both have succeeded, and the kernel took both in one call. An fdatasync that it takes in a later call, because
//! it had no memory in between, is linked to nothing and may be over before its write is; it is asked for again, alone.

use super::ops::TRIES_MAX;
use crate::disk::progress::Next;
use rustix::io::Errno;

/// What is known of the two entries.
#[derive(Debug, Default)]
pub(super) struct Linked {
    /// What follows from the answer to the write.
    wrote: Option<Next>,
    /// The answer to the fdatasync.
    flushed: Option<Result<(), Errno>>,
    /// The number of the fdatasync among the ring's entries, if it is linked.
    flush_at: Option<u64>,
    /// The kernel took the write before it, and not the fdatasync.
    cut: bool,
    tries: u32,
}

impl Linked {
    /// Whether only the fdatasync is left to do.
    pub(super) fn is_written(&self) -> bool {
        self.wrote == Some(Next::Complete)
    }

    /// It goes to the kernel: as the entry of this number if it is linked, or alone.
    pub(super) fn queued(&mut self, flush_at: Option<u64>) {
        self.flush_at = flush_at;
        self.cut = false;
    }

    /// A call took the entries before this number and no more.
    pub(super) fn taken(&mut self, before: u64) {
        self.cut |= self.flush_at == Some(before);
    }

    pub(super) fn wrote(&mut self, next: Next) {
        self.wrote = Some(next);
    }

    pub(super) fn flushed(&mut self, answer: Result<(), Errno>) {
        self.flushed = Some(answer);
    }

    /// What follows when everything in the kernel has been answered.
    pub(super) fn next(&mut self) -> Next {
        match (self.wrote, self.flushed.take()) {
            (Some(Next::Failed(errno)), _) => Next::Failed(errno),
            (Some(Next::Again), _) => {
                self.wrote = None;
                Next::Again
            }
            // Never tried again, whatever the error, unless it did not run.
            (_, Some(Err(errno))) if errno != Errno::CANCELED => Next::Failed(errno),
            (Some(Next::Complete), Some(Ok(()))) if !self.cut => Next::Complete,
            (Some(Next::Complete), _) if self.tries < TRIES_MAX => {
                self.tries += 1;
                Next::Again
            }
            (Some(Next::Complete) | None, _) => Next::Failed(Errno::CANCELED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Next = Next::Complete;

    /// Both have been taken together, and answered.
    fn answered(wrote: Next, flushed: Result<(), Errno>) -> Linked {
        let mut it = Linked::default();
        it.queued(Some(7));
        it.taken(8);
        it.wrote(wrote);
        it.flushed(flushed);
        it
    }

    #[test]
    fn both_are_needed() {
        assert_eq!(answered(DONE, Ok(())).next(), DONE);
        for errno in [Errno::IO, Errno::NOSPC, Errno::INTR, Errno::AGAIN] {
            assert_eq!(answered(DONE, Err(errno)).next(), Next::Failed(errno), "never tried again");
            let cancelled = Err(Errno::CANCELED);
            assert_eq!(answered(Next::Failed(errno), cancelled).next(), Next::Failed(errno));
        }
    }

    #[test]
    fn behind_a_short_write_comes_the_rest_of_it_and_both_again() {
        let mut it = answered(Next::Again, Err(Errno::CANCELED));
        assert_eq!(it.next(), Next::Again);
        assert!(!it.is_written());
        it.queued(Some(9));
        // The kernel answers in the order in which it likes to.
        it.flushed(Ok(()));
        it.wrote(DONE);
        assert_eq!(it.next(), DONE);
    }

    #[test]
    fn what_was_taken_apart_is_no_barrier() {
        let mut it = Linked::default();
        it.queued(Some(7));
        it.taken(6);
        it.taken(7);
        it.wrote(DONE);
        it.flushed(Ok(()));
        assert_eq!(it.next(), Next::Again);
        assert!(it.is_written());
        it.queued(None);
        it.taken(7);
        it.flushed(Ok(()));
        assert_eq!(it.next(), DONE);
        // It failed all the same.
        let mut it = answered(DONE, Err(Errno::IO));
        it.taken(7);
        assert_eq!(it.next(), Next::Failed(Errno::IO));
    }

    #[test]
    fn one_that_did_not_run_is_tried_again_but_not_for_ever() {
        let mut it = answered(DONE, Err(Errno::CANCELED));
        for _ in 0..TRIES_MAX {
            assert_eq!(it.next(), Next::Again);
            it.queued(None);
            it.flushed(Err(Errno::CANCELED));
        }
        assert_eq!(it.next(), Next::Failed(Errno::CANCELED));
    }
}
