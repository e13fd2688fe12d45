//! The io_uring driver: one thread, one ring, no helper threads of ours, and one system call that
//! both starts a write and sleeps until it is answered.
//!
//! Everything goes through the ring except ftruncate before Linux 6.9 (called inline; the engine
//! truncates at start and when it seals), fstat of a file just opened, changes of the ring's
//! table of files at open and close, and a rename on a filesystem without RENAME_NOREPLACE.
//!
//! # Memory that the kernel reads
//!
//! The kernel reads an operation's memory (its buffer, its names) from the moment its entry is in
//! the submission queue until its completion has been taken. During that time its slot counts it
//! as `in_kernel` and owns that memory. Whatever ends early (a dead ring, a drop that waits in vain)
//! leaks such slots instead of freeing them.

use crate::disk::admit::{Files, Lane, Work, refuse};
use crate::disk::dir::TrailDir;
use crate::disk::probe::probe;
use crate::disk::wake::Bell;
use crate::disk::{
    Completion, Disk, DiskReport, DriverKind, Geometry, IoBuf, Listed, OPS_IN_FLIGHT_MAX, Op, OpId,
    Wake, ZERO_BYTES,
};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use linked::Linked;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod linked;
mod ops;
mod setup;

/// The completion of the poll of the bell; slots count from 0 and never get here.
const BELL: u64 = u64::MAX;

/// Set beside the number of a slot: the completion of the fdatasync behind its write.
const FLUSH: u64 = 1 << 32;

/// How long the kernel may be out of memory for the ring's system calls before the ring counts
/// as dead.
const STALL_MAX: Duration = Duration::from_secs(5);

/// How long a sleep lasts that the kernel has no memory for.
const STALL_PAUSE: Duration = Duration::from_millis(1);

/// How long a drop waits for what the kernel still works on, before it leaks that memory.
const DROP_WAIT: Duration = Duration::from_secs(10);

/// Why [`UringDisk::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no ring to be had; the plain driver may still work.
    #[error("{0}")]
    Ring(io::Error),
    /// The directory, or the filesystem, refused.
    #[error("{0}")]
    Directory(io::Error),
}

impl OpenError {
    /// Whether another driver may succeed.
    #[must_use]
    pub fn is_ring(&self) -> bool {
        matches!(self, Self::Ring(_))
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Ring(error) | OpenError::Directory(error) => error,
        }
    }
}

/// A file as the ring knows it.
#[derive(Debug)]
struct OpenFile {
    fd: OwnedFd,
    /// Its slot in the ring's table of files.
    slot: Option<u32>,
}

/// An operation in flight.
#[derive(Debug)]
struct Slot {
    id: OpId,
    work: Work,
    /// Entries in the kernel: it may read the memory that `work` owns.
    in_kernel: usize,
    /// The barrier of a write, if that is an fdatasync.
    linked: Option<Linked>,
    /// Answers in a row of EINTR or EAGAIN, for work other than writing.
    tries: u32,
}

/// Entries that must reach the kernel together.
enum Chain {
    One([squeue::Entry; 1]),
    Linked([squeue::Entry; 2]),
}

impl Chain {
    fn entries(&self) -> &[squeue::Entry] {
        match self {
            Self::One(entries) => entries,
            Self::Linked(entries) => entries,
        }
    }
}

/// The driver. It is neither `Send` nor `Sync`: the kernel lets only the thread that made the
/// ring submit to it.
pub struct UringDisk {
    ring: IoUring,
    /// This driver's number, by which it knows its registered buffers.
    driver: u64,
    dir: TrailDir,
    geometry: Geometry,
    truncate_in_ring: bool,
    /// Whether the barrier of a write that is alone in flight is an fdatasync linked to it, and not RWF_DSYNC.
    linked_flush: bool,
    bell: Arc<Bell>,
    bell_armed: bool,
    files: Files<OpenFile>,
    file_slots_free: Vec<u32>,
    slots: Vec<Option<Slot>>,
    slots_free: Vec<usize>,
    /// Entries that the kernel has not answered.
    in_kernel: usize,
    /// What is not in the submission queue yet.
    queue: VecDeque<Chain>,
    /// Entries that were put into the submission queue so far.
    pushed: u64,
    /// Zeroing takes one piece at a time, so that it does not stand in the way of records.
    zeroing: Lane,
    /// Barriers take one at a time, if writes go through the page cache.
    barriers: Option<Lane>,
    zeros: Option<IoBuf>,
    /// The first failure of a barrier of the directory.
    dir_failed: Option<Errno>,
    ready: Vec<Completion>,
    arrived: Vec<cqueue::Entry>,
    /// Since when the ring's system calls have failed for want of memory.
    stalled: Option<Instant>,
    /// Why the ring can no longer be used.
    dead: Option<Errno>,
    closing: bool,
    _one_thread: PhantomData<*mut ()>,
}

impl UringDisk {
    /// Opens the trail directory `dir` and registers `buffers`, and `lock` to hold it as long as the
    /// ring lives. The calling thread is the one that uses the driver.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        dir: &Path,
        buffers: &mut [IoBuf],
        lock: Option<BorrowedFd<'_>>,
    ) -> Result<(Self, DiskReport), OpenError> {
        let at = |error: io::Error| {
            OpenError::Directory(io::Error::new(
                error.kind(),
                format!("trail directory {}: {error}", dir.display()),
            ))
        };
        let trail = TrailDir::open(dir).map_err(at)?;
        let found = probe(&trail).map_err(at)?;
        let linked_flush = setup::is_flush_linked(&found);
        let (ring, mut ring_report) = setup::make_ring(linked_flush).map_err(OpenError::Ring)?;
        let mut warnings = found.warnings;
        let mut zeros = IoBuf::new(ZERO_BYTES).map_err(OpenError::Ring)?;
        let bell = Arc::new(Bell::new().map_err(OpenError::Ring)?);
        setup::register_files(&ring, lock, &mut ring_report, &mut warnings)
            .map_err(OpenError::Ring)?;
        let driver =
            setup::register_buffers(&ring, buffers, &mut zeros, &mut ring_report, &mut warnings);
        let file_slots = if ring_report.files_registered { setup::FILE_SLOTS } else { 0 };
        let disk = Self {
            ring,
            driver,
            dir: trail,
            geometry: found.geometry,
            truncate_in_ring: ring_report.truncate_in_ring,
            linked_flush,
            bell,
            bell_armed: false,
            files: Files::new(),
            file_slots_free: (0..file_slots).rev().collect(),
            slots: Vec::new(),
            slots_free: Vec::new(),
            in_kernel: 0,
            queue: VecDeque::new(),
            pushed: 0,
            zeroing: Lane::default(),
            barriers: (!found.geometry.direct).then(Lane::default),
            zeros: Some(zeros),
            dir_failed: None,
            ready: Vec::new(),
            arrived: Vec::new(),
            stalled: None,
            dead: None,
            closing: false,
            _one_thread: PhantomData,
        };
        let report = DiskReport {
            driver: DriverKind::Uring,
            fallback_reason: None,
            ring: Some(ring_report),
            geometry: found.geometry,
            statx_align_bytes: found.statx_align_bytes,
            filesystem: found.filesystem,
            device: found.device,
            warnings,
        };
        Ok((disk, report))
    }

    /// Moves entries from our queue to the kernel's, as many as fit. From here on the kernel may
    /// read the memory of their slots.
    fn fill(&mut self) {
        let mut submissions = self.ring.submission();
        while let Some(chain) = self.queue.pop_front() {
            let entries = chain.entries();
            // SAFETY: the memory that an entry points to is owned by its slot, which is not freed
            // while it has entries in the kernel; the bell's entry points to none.
            if unsafe { submissions.push_multiple(entries) }.is_err() {
                self.queue.push_front(chain);
                break;
            }
            let index = entries.last().and_then(|entry| index_of(entry.get_user_data()));
            if let Some(Some(slot)) = index.and_then(|index| self.slots.get_mut(index)) {
                slot.in_kernel += entries.len();
                self.in_kernel += entries.len();
                let is_linked = matches!(chain, Chain::Linked(_));
                if let Some(linked) = &mut slot.linked {
                    linked.queued(is_linked.then_some(self.pushed + 1));
                }
            }
            self.pushed += entries.len() as u64;
        }
    }

    /// Starts all that is queued, and lets the kernel post completions that it has put off until
    /// we ask.
    fn flush(&mut self) {
        while self.dead.is_none() {
            self.fill();
            let submissions = self.ring.submission();
            let (left, due) =
                (submissions.len(), submissions.taskrun() || submissions.cq_overflow());
            drop(submissions);
            if left == 0 && !due {
                return;
            }
            let entered = self.ring.submit();
            let started = matches!(entered, Ok(count) if count > 0);
            self.entered(entered.map(drop));
            if !started {
                return;
            }
        }
    }

    /// Judges the result of io_uring_enter. `true` if it was a stall that a pause may cure.
    fn entered(&mut self, result: io::Result<()>) -> bool {
        let left = self.ring.submission().len() as u64;
        if left > 0 {
            let taken = self.pushed - left;
            let linked = self.slots.iter_mut().flatten().filter_map(|slot| slot.linked.as_mut());
            linked.for_each(|linked| linked.taken(taken));
        }
        let errno = match result {
            Ok(()) => None,
            Err(error) => Some(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        match errno {
            None | Some(Errno::INTR | Errno::TIME) => self.stalled = None,
            // No memory for a request, or completions to be taken first.
            Some(errno @ (Errno::AGAIN | Errno::BUSY)) => {
                let since = *self.stalled.get_or_insert_with(Instant::now);
                if since.elapsed() < STALL_MAX {
                    return true;
                }
                self.die(errno);
            }
            Some(errno) => self.die(errno),
        }
        false
    }

    /// Sleeps in the kernel, starting what is in its queue on the way.
    fn enter_and_sleep(&mut self, timeout: Option<Duration>) {
        let result = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        if self.entered(result.map(drop)) {
            std::thread::sleep(STALL_PAUSE);
        }
    }

    /// Takes the completions that are there.
    fn reap(&mut self) {
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.extend(self.ring.completion());
        for entry in arrived.drain(..) {
            if entry.user_data() == BELL {
                self.bell_armed = cqueue::more(entry.flags());
            } else if let Some(index) = index_of(entry.user_data()) {
                self.answered(index, entry.user_data() & FLUSH != 0, entry.result());
            }
        }
        self.arrived = arrived;
    }

    /// The ring is of no use any more: ends everything in flight with `errno`. The memory of what
    /// the kernel may still work on is given up for good.
    fn die(&mut self, errno: Errno) {
        if self.dead.is_some() {
            return;
        }
        // What has already been answered keeps its answer.
        self.reap();
        self.dead = Some(errno);
        self.queue.clear();
        for slot in self.slots.drain(..).flatten() {
            self.ready.push(give_up(slot, errno, &mut self.zeros));
        }
        self.slots_free.clear();
    }

    /// Queues the poll that lets the bell end a sleep in the ring. It stays armed for many rings.
    fn arm_bell(&mut self) {
        if !self.bell_armed {
            self.bell_armed = true;
            let poll = opcode::PollAdd::new(Fd(self.bell.as_fd().as_raw_fd()), libc::POLLIN as u32);
            self.queue.push_back(Chain::One([poll.multi(true).build().user_data(BELL)]));
        }
    }
}

/// The slot that an entry belongs to; none if it is the bell's.
fn index_of(user_data: u64) -> Option<usize> {
    if user_data == BELL { None } else { usize::try_from(user_data & !FLUSH).ok() }
}

/// Ends `slot` without an answer from the kernel.
fn give_up(slot: Slot, errno: Errno, zeros: &mut Option<IoBuf>) -> Completion {
    if slot.in_kernel == 0 {
        return slot.work.complete(slot.id, Err(errno));
    }
    if matches!(slot.work, Work::Zero { .. }) {
        std::mem::forget(zeros.take());
    }
    std::mem::forget(slot.work);
    Completion { id: slot.id, result: Err(errno.into()), buf: None }
}

impl Disk for UringDisk {
    fn submit(&mut self, id: OpId, op: Op) {
        let in_flight = self.slots.len() - self.slots_free.len();
        let refusal = if in_flight < OPS_IN_FLIGHT_MAX { self.dead } else { Some(Errno::BUSY) };
        if let Some(errno) = refusal {
            self.ready.push(refuse(id, op, errno));
            return;
        }
        match Work::new(op, self.geometry) {
            Ok(work) => self.begin(id, work),
            Err((errno, buf)) => {
                self.ready.push(Completion { id, result: Err(errno.into()), buf });
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.flush();
        self.reap();
        // Rests of short writes, next pieces, and whoever was next in a lane.
        if !self.queue.is_empty() {
            self.flush();
        }
        done.append(&mut self.ready);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if self.dead.is_some() {
            if self.ready.is_empty() {
                self.bell.sleep(timeout);
            }
            return;
        }
        self.arm_bell();
        self.fill();
        if self.bell.lie_down()
            && self.ready.is_empty()
            && self.queue.is_empty()
            && self.ring.completion().is_empty()
        {
            self.enter_and_sleep(timeout);
        } else {
            self.flush();
        }
        self.bell.rise();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.bell) as Arc<dyn Wake>
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        self.dir.list()
    }

    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.dir.read(name, offset, buf)
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        self.closing = true;
        self.queue.clear();
        let deadline = Instant::now() + DROP_WAIT;
        while self.in_kernel > 0 && self.dead.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.enter_and_sleep(Some(left));
            self.reap();
        }
        if self.in_kernel == 0 {
            // The kernel takes rings apart in its own time, and would hold the files until then:
            // the filesystem could not be unmounted, and the trail not be locked. An error means that
            // there was no table.
            let _ = self.ring.submitter().unregister_files();
        }
        for slot in self.slots.drain(..).flatten() {
            give_up(slot, Errno::CANCELED, &mut self.zeros);
        }
    }
}

impl fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDisk")
            .field("geometry", &self.geometry)
            .field("in_flight", &(self.slots.len() - self.slots_free.len()))
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}
