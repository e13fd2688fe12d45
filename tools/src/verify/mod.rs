//! `verify`: everything that format version 1 lets a reader check, as a [`Report`].
//!
//! Each segment is read whole, every checksum and every hash is computed, in parallel over the
//! cores and with bounded memory ([`pool`]). In the order of the trail the segments are then held
//! against each other ([`judge`]), so a report does not depend on how many threads read.
//! Nothing is written and nothing is locked, so a writer may run meanwhile.

pub mod anchors;
pub mod clock;
mod extent;
pub mod gaps;
pub mod judge;
pub mod keys;
pub mod parts;
pub mod pool;
pub mod problem;
pub mod problems;
pub mod provable;
pub mod report;
pub mod scope;
pub mod serials;
mod signing;
pub mod text;
pub mod witnesses;

use crate::trail::scan::How;
use crate::trail::segment::{self, SegmentRead};
use crate::trail::tail::Tail;
use crate::trail::{OpenError, SegmentFile, TrailDir};
use anchors::Anchor;
use graven_format::note::PublicKey;
use judge::Judge;
use pool::Pool;
pub use report::{Report, Verdict};
use scope::{Asked, Plan};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use witnesses::Trusted;

/// How often a directory is listed again because a running writer removed what was listed.
const LIST_ROUNDS: u32 = 3;

/// Most threads that read unless told otherwise: each takes some 2 MiB, and what it found waits in
/// memory for the segments before it.
const THREADS_MAX: usize = 32;

/// How to verify.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Threads that read; one a core, at most 32, if `None`.
    pub threads: Option<NonZero<usize>>,
    /// A seq that is known to have been announced durable, from `graven record --ack` for
    /// instance: if the trail does not reach it, records are missing.
    pub durable: Option<u64>,
    /// The key that the trail must begin with.
    pub key: Option<&'a PublicKey>,
    /// Checkpoints that were kept elsewhere.
    pub anchors: &'a [Anchor],
    /// The witnesses whose cosignatures on these count.
    pub witnesses: Trusted<'a>,
    /// The records that are asked for; all of them if `None`.
    pub range: Option<&'a Asked>,
    /// What is there is a part of the trail: that other segments are not there is no damage.
    pub part: bool,
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
    verify_opened(|| TrailDir::open(path), options)
}

/// Verifies segments by their files, which are in one directory: [`Options::part`] is meant.
///
/// # Errors
/// As [`verify`], and if one of the files has no segment's name.
pub fn verify_files(files: &[PathBuf], options: &Options<'_>) -> Result<Report, OpenError> {
    let options = Options { part: true, ..*options };
    verify_opened(|| TrailDir::open_files(files), &options)
}

fn verify_opened(
    open: impl Fn() -> Result<TrailDir, OpenError>,
    options: &Options<'_>,
) -> Result<Report, OpenError> {
    let mut rounds = 1;
    loop {
        let dir = open()?;
        let dir = if options.part { dir.part() } else { dir };
        let (report, gone) = read_all(&dir, options);
        if rounds < LIST_ROUNDS && gone {
            // A writer that starts removes a segment without records, and one of which nothing
            // was announced.
            rounds += 1;
            continue;
        }
        return Ok(report);
    }
}

/// Reads and judges all segments: those at the end are read in this thread, the others in a pool.
/// Also says whether one was not there any more.
fn read_all(dir: &TrailDir, options: &Options<'_>) -> (Report, bool) {
    let sizes = anchors::sizes(options.anchors);
    let how = How { limit: None, progress: options.progress, sizes: &sizes };
    let plan = Plan::new(dir, options);
    let older = &dir.segments[plan.older.clone()];
    let default = || std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let threads = options.threads.map_or_else(default, NonZero::get).min(older.len());
    // Enough that who is done early finds another segment while a slow one is waited for.
    let pool = Pool::new(older, 2 * threads + 2);
    let read = |file: &SegmentFile| segment::read(dir, file, true, how);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread it takes longer, and nothing else.
            if std::thread::Builder::new().spawn_scoped(scope, || pool.work(read)).is_err() {
                break;
            }
        }
        let tail = if plan.tail { Tail::read(dir, true, how) } else { Tail::not_read() };
        let is_gone =
            |(_, read): &Read| matches!(read, Err(why) if why.kind() == io::ErrorKind::NotFound);
        let mut gone = tail.segments.iter().any(is_gone);
        let (mut judge, mut before) = (Judge::new(dir, options, &plan), None);
        // This thread is one of the pool once it has read the end.
        pool.take_all(read, |file, read| {
            let this = (file.clone(), read);
            gone |= is_gone(&this);
            judge.segment(before.as_ref().or(plan.before.as_ref()), &this, &tail);
            before = Some(this);
        });
        let before = before.as_ref().or(plan.before.as_ref());
        (judge.report(before, &tail, plan.after.as_ref()), gone)
    })
}
