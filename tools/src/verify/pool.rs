//! Segments read by several threads, handed over in the order of the trail.
//!
//! A thread takes the next segment, reads it whole, and puts down what it found. Nobody reads
//! further ahead of who takes the results than the window allows, so that memory does not grow
//! with the trail.

use crate::trail::SegmentFile;
use crate::trail::segment::SegmentRead;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Segments that are read, and those that wait for the ones before them.
#[derive(Debug)]
pub(crate) struct Pool<'a> {
    files: &'a [SegmentFile],
    window: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The next one to read.
    next: usize,
    /// The next one to hand over.
    due: usize,
    read: BTreeMap<usize, io::Result<SegmentRead>>,
}

/// What who takes the results has to do now.
enum Turn<'a> {
    HandOver(&'a SegmentFile, io::Result<SegmentRead>),
    Read(Claim<'a>),
    End,
}

/// A segment that one thread reads. Whatever happens to that thread, something is put down for it.
struct Claim<'a> {
    pool: &'a Pool<'a>,
    index: usize,
    read: Option<io::Result<SegmentRead>>,
}

impl<'a> Pool<'a> {
    /// Of `files`, with at most `window` of them being read or waiting.
    pub(crate) fn new(files: &'a [SegmentFile], window: usize) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { files, window: window.max(1), state, changed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is only ever changed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&'a self, state: &mut State) -> Option<Claim<'a>> {
        let index = state.next;
        let room = index < self.files.len() && index - state.due < self.window;
        room.then(|| {
            state.next += 1;
            Claim { pool: self, index, read: None }
        })
    }

    /// Reads with `read` until every segment is taken.
    pub(crate) fn work(&'a self, read: impl Fn(&SegmentFile) -> io::Result<SegmentRead>) {
        let mut state = self.lock();
        while state.next < self.files.len() {
            match self.claim(&mut state) {
                Some(claim) => {
                    drop(state);
                    claim.run(&read);
                    state = self.lock();
                }
                None => state = self.wait(state),
            }
        }
    }

    /// Gives every segment to `take` in order; reads with `read` while the next one is not there.
    pub(crate) fn take_all(
        &'a self,
        read: impl Fn(&SegmentFile) -> io::Result<SegmentRead>,
        mut take: impl FnMut(&SegmentFile, io::Result<SegmentRead>),
    ) {
        loop {
            match self.turn() {
                Turn::HandOver(file, read) => take(file, read),
                Turn::Read(claim) => claim.run(&read),
                Turn::End => return,
            }
        }
    }

    fn turn(&'a self) -> Turn<'a> {
        let mut state = self.lock();
        loop {
            let due = state.due;
            let Some(file) = self.files.get(due) else { return Turn::End };
            if let Some(read) = state.read.remove(&due) {
                state.due += 1;
                self.changed.notify_all();
                return Turn::HandOver(file, read);
            }
            if let Some(claim) = self.claim(&mut state) {
                return Turn::Read(claim);
            }
            state = self.wait(state);
        }
    }
}

impl Claim<'_> {
    fn run(mut self, read: impl Fn(&SegmentFile) -> io::Result<SegmentRead>) {
        self.read = Some(read(&self.pool.files[self.index]));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let read = self.read.take().unwrap_or_else(|| Err(io::Error::other("was not read")));
        self.pool.lock().read.insert(self.index, read);
        self.pool.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn segments_are_handed_over_in_order_and_no_thread_runs_ahead() {
        let files: Vec<SegmentFile> =
            (0..200).map(|segment| SegmentFile { segment, first_seq: segment }).collect();
        for (threads, window) in [(1, 1), (2, 1), (3, 4), (7, 16)] {
            let pool = Pool::new(&files, window);
            let (begun, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let read = |file: &SegmentFile| {
                let ahead = begun.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(ahead <= taken.load(Ordering::SeqCst) + 1 + window);
                // Later ones are often there before earlier ones.
                std::thread::sleep(Duration::from_micros(300 * (7 - file.segment % 7)));
                Err(io::Error::other(file.segment.to_string()))
            };
            let mut order = Vec::new();
            std::thread::scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|| pool.work(read));
                }
                pool.take_all(read, |file, read| {
                    let text = read.expect_err("it is one").to_string();
                    assert_eq!(text, file.segment.to_string());
                    order.push(file.segment);
                    taken.fetch_add(1, Ordering::SeqCst);
                });
            });
            assert_eq!(order, (0..200).collect::<Vec<_>>(), "{threads} threads, {window}");
        }
    }
}
