//! The simulated disk: a directory in memory that keeps apart what reads see, what is durable,
//! and what may or may not be, so that a test can pull the plug at any moment.
//!
//! # What it promises, and what it does not
//!
//! - A completed [`Op::Write`] is durable, with as much of the file's size as its bytes need.
//!   Until then any of its sectors may have reached the media, in any order, whole or torn at
//!   any byte.
//! - `Zero`, `Allocate` and `Truncate` are durable behind a `Sync` submitted after they
//!   completed. Changes of size reach the media in their order, as a journal has them.
//! - A created, renamed or removed name is durable behind a `SyncDir` submitted after it
//!   completed. Until then each file may have any first part of its changes: a rename leaves
//!   the old name or the new, never neither, never both.
//! - A failed barrier loses: what it should have covered may be on the media or not, the kernel
//!   calls it clean, and the next barrier succeeds without it. Sizes are only late: a journal
//!   writes what it has taken on, or fails for good. Drivers of real disks refuse that
//!   next barrier; this one does not, so that an engine that tries it is found out.
//! - Operations in flight complete in any order. Every choice is drawn from one seed: one
//!   thread that does the same gets the same, and [`SimDisk::trace_hash`] tells.
//!
//! Not modelled: misdirected writes, and media that decay other than at a crash.

use super::{Completion, Disk, FileId, Geometry, Listed, Op, OpId, Wake};
use faults::{Rng, Trace};
use file::Luck;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{Ino, Store};

pub use crash::{CrashReport, FileReport, Flip};
pub use faults::SimFaults;
pub use file::{Fate, SECTOR_BYTES};
pub use kind::OpKind;

mod crash;
mod faults;
mod file;
mod kill;
mod kind;
mod run;
mod store;

#[cfg(test)]
mod tests;

/// What the disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimOptions {
    /// What is asked of writes; `direct` decides whether a failed write is still seen by reads.
    pub geometry: Geometry,
    /// Bytes of room for all files together.
    pub capacity_bytes: u64,
    /// How often what goes wrong.
    pub faults: SimFaults,
}

impl Default for SimOptions {
    /// 4 KiB direct writes, 1 GiB of room, no faults.
    fn default() -> Self {
        Self {
            geometry: Geometry { align_bytes: 4096, direct: true },
            capacity_bytes: 1 << 30,
            faults: SimFaults::none(),
        }
    }
}

/// The simulated disk.
#[derive(Debug)]
pub struct SimDisk {
    options: SimOptions,
    rng: Rng,
    store: Store,
    open: BTreeMap<FileId, Ino>,
    flying: Vec<Flying>,
    ready: Vec<Completion>,
    /// Counts everything that happens, so that "submitted after it completed" is a comparison.
    clock: u64,
    trace: Trace,
    waker: Arc<SimWake>,
    /// Operations of each kind so far.
    counts: BTreeMap<OpKind, u64>,
    /// Failures asked for, by kind and number.
    planned: Vec<(OpKind, u64, Errno)>,
    report: Option<CrashReport>,
    journal_failed: bool,
}

/// An operation that has been submitted and has not completed.
#[derive(Debug)]
struct Flying {
    id: OpId,
    op: Op,
    /// The file it is about, if it is about an open one.
    ino: Option<Ino>,
    /// When it was submitted.
    stamp: u64,
    /// Leading sectors of a write that are durable already.
    written: u64,
    /// How it ends, if that was planned.
    planned: Option<Errno>,
}

/// A waker that only counts: a simulated wait never sleeps.
#[derive(Debug, Default)]
pub struct SimWake {
    wakes: AtomicU64,
}

impl SimWake {
    /// How often it was used.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Wake for SimWake {
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

impl SimDisk {
    /// An empty directory. The same seed and the same calls give the same run.
    #[must_use]
    pub fn new(seed: u64, options: SimOptions) -> Self {
        assert!(
            (options.geometry.align_bytes as usize).is_multiple_of(SECTOR_BYTES),
            "writes are whole sectors"
        );
        Self {
            options,
            rng: Rng::new(seed),
            store: Store::default(),
            open: BTreeMap::new(),
            flying: Vec::new(),
            ready: Vec::new(),
            clock: 0,
            trace: Trace::new(),
            waker: Arc::default(),
            counts: BTreeMap::new(),
            planned: Vec::new(),
            report: None,
            journal_failed: false,
        }
    }

    /// Puts the files on a disk that asks for something else, as a copy of the trail would be.
    ///
    /// # Panics
    /// If something is in flight, or if blocks are not whole sectors.
    pub fn set_geometry(&mut self, geometry: Geometry) {
        assert!(self.flying.is_empty(), "a disk is changed between two writers");
        assert!((geometry.align_bytes as usize).is_multiple_of(SECTOR_BYTES));
        self.options.geometry = geometry;
    }

    /// Changes how often what goes wrong from now on.
    pub fn set_faults(&mut self, faults: SimFaults) {
        self.options.faults = faults;
    }

    /// Changes the room for all files together; more of it ends a full disk.
    pub fn set_capacity(&mut self, capacity_bytes: u64) {
        self.options.capacity_bytes = capacity_bytes;
    }

    /// Makes the `nth` operation of this kind from now on fail with `errno` (0 is the next).
    pub fn fail_nth(&mut self, kind: OpKind, nth: u64, errno: i32) {
        let number = self.count(kind) + nth;
        self.planned.push((kind, number, Errno::from_raw_os_error(errno)));
    }

    /// Operations of this kind that were submitted so far.
    #[must_use]
    pub fn count(&self, kind: OpKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// A hash of all that happened: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.value()
    }

    /// The waker, to see how often it was used.
    #[must_use]
    pub fn sim_waker(&self) -> Arc<SimWake> {
        Arc::clone(&self.waker)
    }

    /// What the crash from which this disk came did to it.
    #[must_use]
    pub fn report(&self) -> Option<&CrashReport> {
        self.report.as_ref()
    }

    /// Whether a `SyncDir` has failed, seen by somebody or not. A filesystem whose journal has
    /// failed takes nothing more until it is mounted again, so a kill alone cannot follow.
    #[must_use]
    pub fn journal_failed(&self) -> bool {
        self.journal_failed
    }

    /// Puts a durable file in place, for a test's beginning or for tampering.
    pub fn put(&mut self, name: &str, content: &[u8]) {
        self.trace.bytes(name.as_bytes());
        self.trace.bytes(content);
        self.store.put(name, content);
    }

    /// A file as reads see it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let file = &self.store.files[&self.store.lookup(name)?];
        let mut content = vec![0; file.len() as usize];
        file.read(0, &mut content);
        Some(content)
    }

    /// What is durable of the file that has this name durably: what every crash now keeps,
    /// except in sectors that are being written.
    #[must_use]
    pub fn durable_content(&self, name: &str) -> Option<Vec<u8>> {
        let mut files = self.store.durable_listing();
        files.find(|(durable, ..)| *durable == name).map(|(_, _, file)| file.durable_content())
    }

    /// Flips one bit of a file, on the media and in what reads see. Returns whether there is
    /// such a byte.
    pub fn flip_bit(&mut self, name: &str, offset: u64, bit: u8) -> bool {
        let Some(ino) = self.store.lookup(name) else { return false };
        let Some(file) = self.store.files.get_mut(&ino) else { return false };
        let inside = offset < file.len();
        if inside {
            file.flip(offset, bit);
            self.trace.number(offset);
        }
        inside
    }

    /// What a power cut now would leave, drawn from this disk's own seed. The disk itself goes
    /// on as if nothing had happened, so that one moment can be followed by many crashes.
    #[must_use]
    pub fn crash(&mut self) -> Self {
        let seed = self.rng.next();
        self.crash_with(seed)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl Disk for SimDisk {
    fn submit(&mut self, id: OpId, op: Op) {
        self.start(id, op);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        // Each operation in flight gets its chance, in an order that is chance too.
        let mut ids: Vec<OpId> = self.flying.iter().map(|flying| flying.id).collect();
        while !ids.is_empty() {
            let id = ids.swap_remove(self.rng.index(ids.len()));
            if !self.rng.chance(self.options.faults.linger_ppm) {
                self.advance(id);
            }
        }
        done.append(&mut self.ready);
    }

    fn wait(&mut self, _timeout: Option<Duration>) {
        while self.ready.is_empty() && !self.flying.is_empty() {
            let id = self.flying[self.rng.index(self.flying.len())].id;
            self.advance(id);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.sim_waker()
    }

    fn geometry(&self) -> Geometry {
        self.options.geometry
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let listed = |(name, _, file): (&String, Ino, &file::File)| Listed {
            name: name.clone(),
            len: file.len(),
        };
        Ok(self.store.listing().map(listed).collect())
    }

    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let ino = self.store.lookup(name).ok_or(Errno::NOENT)?;
        Ok(self.store.files[&ino].read(offset, buf))
    }
}
