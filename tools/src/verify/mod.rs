//! `verify`: everything that format version 1 lets a reader check, as a [`Report`].
//!
//! Each segment is read whole, every checksum and every hash is computed, in parallel over the
//! cores and with bounded memory. Then the segments are held against each other ([`judge`]).
//! Nothing is written and nothing is locked, so a writer may run meanwhile.

pub mod judge;
pub mod problem;
pub mod report;
pub mod text;

use crate::trail::scan::How;
use crate::trail::segment::{self, SegmentRead};
use crate::trail::tail::Tail;
use crate::trail::{OpenError, SegmentFile, TrailDir};
use judge::Judge;
pub use report::{Report, Verdict};
use std::io;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often a directory is listed again because a running writer removed what was listed.
const LIST_ROUNDS: u32 = 3;

/// How to verify.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Threads that read; one a core if `None`.
    pub threads: Option<NonZero<usize>>,
    /// A seq that is known to have been announced durable, from `graven record --ack` for
    /// instance: if the trail does not reach it, records are missing.
    pub durable: Option<u64>,
    /// Counts bytes as they are read.
    pub progress: Option<&'a AtomicU64>,
}

/// A segment and what was read of it.
pub type Read = (SegmentFile, io::Result<SegmentRead>);

/// Verifies the trail in `path`.
///
/// # Errors
/// [`OpenError`] if there is no trail there or it cannot be listed. What is wrong inside a trail is
/// no error but part of the report.
pub fn verify(path: &Path, options: &Options<'_>) -> Result<Report, OpenError> {
    let mut rounds = 1;
    loop {
        let dir = TrailDir::open(path)?;
        let (reads, tail) = read_all(&dir, options);
        let gone =
            |read: &Read| read.1.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
        if rounds < LIST_ROUNDS && (reads.iter().chain(&tail.segments)).any(gone) {
            // A writer that starts removes a segment without records, and one of which nothing
            // was announced.
            rounds += 1;
            continue;
        }
        return Ok(Judge::new(&dir, options).report(reads, tail));
    }
}

/// Reads all segments: those at the end in this thread, the others in a pool.
fn read_all(dir: &TrailDir, options: &Options<'_>) -> (Vec<Read>, Tail) {
    let how = How { limit: None, progress: options.progress };
    let older = &dir.segments[..dir.segments.len() - Tail::len(dir)];
    let threads = options
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZero::get)
        .min(older.len());
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<io::Result<SegmentRead>>>> =
        older.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        while let Some((file, slot)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            older.get(index).zip(slots.get(index))
        } {
            let read = segment::read(dir, file, true, how);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        }
    };
    let tail = std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread it takes longer, and nothing else.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        let tail = Tail::read(dir, true, how);
        // This thread is one of the pool once it has read the end.
        work();
        tail
    });
    let reads = older
        .iter()
        .zip(slots)
        .map(|(file, slot)| {
            let read = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            let read = read.unwrap_or_else(|| Err(io::Error::other("was not read")));
            (file.clone(), read)
        })
        .collect();
    (reads, tail)
}
