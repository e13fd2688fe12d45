//! The disk as the engine sees it: operations in, completions out, owned buffers.
//!
//! Three drivers implement [`Disk`]: io_uring ([`uring`]), plain pwrite and fdatasync
//! ([`sync`]), and the simulator ([`sim`]). The engine never blocks in [`Disk::submit`] or
//! [`Disk::poll`]; it sleeps only in [`Disk::wait`], and whoever has work for it (a producer, a
//! completion) ends that sleep through a [`Wake`].
//!
//! What the drivers of real disks promise beyond the trait
//! - **A file that has failed stays failed.** After a failed [`Op::Write`] or [`Op::Sync`] every
//!   later one on the same open file fails with the same error, because the kernel reports a
//!   lost page once and then calls the next fsync a success.
//! - **Through the page cache, one barrier at a time.** Two concurrent synchronous writes of one
//!   file can find that the kernel tells only one of them that a page was lost. Without O_DIRECT
//!   a driver therefore never has two barriers in flight.
//! - **A file with operations in flight is not closed** (EBUSY), so that no rest of a short
//!   write can reach another file under the same number.
//! - **The lock outlives every write.** A process that is killed is gone before the direct writes that
//!   it has given to io_uring, which end when the device ends them, seconds later on a slow one.
//!   Whoever took the lock meanwhile would find their place empty, write there, and be written over.
//!   So the ring holds the lock's file too, and lets go of it with its last operation. A thread in
//!   pwrite keeps the files of its process open by itself.

use rustix::fd::BorrowedFd;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use buf::IoBuf;
pub use report::{DeviceReport, DiskChoice, DiskReport, DriverKind, RingReport};
pub use sync::SyncDisk;
pub use uring::UringDisk;

mod admit;
pub mod buf;
mod dir;
mod probe;
mod progress;
pub mod report;
pub mod sim;
pub mod sync;
pub mod uring;
mod wake;

/// Most operations in flight in one driver; one more is refused with EBUSY. The engine has a
/// handful of writes and one segment in preparation, so this is a bound, not a tuning knob.
pub const OPS_IN_FLIGHT_MAX: usize = 1024;

/// Bytes of one piece of [`Op::Zero`], of which one is in flight at a time. While zeroing goes on
/// small writes wait behind its pieces: measured on a virtio disk, their median is then 0.12 to
/// 0.2 ms and the slowest hundredth 0.4 ms, against 0.05 ms and 1 to 4 ms with pieces of 1 MiB.
/// Zeroing alone is about as fast either way.
const ZERO_BYTES: usize = 128 * 1024;

/// Opens the disk below the trail directory `dir`, which exists, and registers `buffers` with
/// the driver if it can. The result belongs to the calling thread. `lock` is the open file whose lock
/// keeps other writers away: it stays locked until the last operation has ended, even if this process
/// is killed before.
///
/// [`DiskChoice::Auto`] takes io_uring, and pwrite with fdatasync when no ring can be made; the
/// report says which it is and why.
///
/// # Errors
/// The directory cannot be opened or written in, or (with [`DiskChoice::Uring`]) there is no
/// ring. The message names the directory.
pub fn open_disk(
    dir: &Path,
    choice: DiskChoice,
    buffers: &mut [IoBuf],
    lock: Option<BorrowedFd<'_>>,
) -> io::Result<(Box<dyn Disk>, DiskReport)> {
    if choice != DiskChoice::Sync {
        match UringDisk::open(dir, buffers, lock) {
            Ok((disk, report)) => return Ok((Box::new(disk), report)),
            Err(error) if choice == DiskChoice::Uring || !error.is_ring() => {
                return Err(error.into());
            }
            Err(error) => {
                let (disk, mut report) = SyncDisk::open(dir)?;
                report.fallback_reason = Some(error.to_string());
                return Ok((Box::new(disk), report));
            }
        }
    }
    let (disk, report) = SyncDisk::open(dir)?;
    Ok((Box::new(disk), report))
}

/// The engine's number for an operation in flight; unique over the life of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// The engine's number for an open file of the trail directory; the driver owns the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// One operation on the trail directory. Names are plain file names inside it.
#[derive(Debug)]
pub enum Op {
    /// Create a file that must not exist (mode 0600), open it for writing.
    Create {
        /// The number that later operations use.
        file: FileId,
        /// The name in the trail directory.
        name: String,
    },
    /// Open an existing file for writing.
    Open {
        /// The number that later operations use.
        file: FileId,
        /// The name in the trail directory.
        name: String,
    },
    /// Reserve `len` bytes from offset 0 and set the file's size to it (fallocate).
    Allocate {
        /// The file.
        file: FileId,
        /// Bytes.
        len: u64,
    },
    /// Overwrite a range with zeros, so that later writes convert no unwritten extents. No
    /// barrier is implied.
    Zero {
        /// The file.
        file: FileId,
        /// First byte, a multiple of the alignment.
        offset: u64,
        /// Bytes, a multiple of the alignment.
        len: u64,
    },
    /// Write `buf[..len]` and make it durable: the completion is a barrier for these bytes
    /// (RWF_DSYNC, or an fdatasync behind it). Short writes are resubmitted by the driver.
    Write {
        /// The file.
        file: FileId,
        /// First byte, a multiple of the alignment.
        offset: u64,
        /// The bytes; comes back in the completion.
        buf: IoBuf,
        /// How many of them, a multiple of the alignment.
        len: usize,
    },
    /// Set the file's size.
    Truncate {
        /// The file.
        file: FileId,
        /// Bytes.
        len: u64,
    },
    /// fsync: data, size and all metadata of the file.
    Sync {
        /// The file.
        file: FileId,
    },
    /// Rename within the trail directory; `to` must not exist.
    Rename {
        /// The present name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Remove a name.
    Remove {
        /// The name.
        name: String,
    },
    /// fsync of the trail directory: makes creations, renames and removals durable.
    SyncDir,
    /// Close the file; no barrier is implied.
    Close {
        /// The file.
        file: FileId,
    },
}

/// The end of one operation.
#[derive(Debug)]
pub struct Completion {
    /// Which one.
    pub id: OpId,
    /// How it ended. The driver retries only what is safe (short writes, EINTR, EAGAIN), never a
    /// failed write or barrier.
    pub result: io::Result<()>,
    /// The buffer of a [`Op::Write`]; absent only if the driver had to give it up (its ring died
    /// while the kernel could still read it).
    pub buf: Option<IoBuf>,
}

/// What the filesystem asks of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes to which offsets, lengths and buffers are aligned: STATX_DIOALIGN's, at least 512.
    pub align_bytes: u32,
    /// Whether writes bypass the page cache (O_DIRECT).
    pub direct: bool,
}

/// A file of the trail directory as [`Disk::list`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name; bytes that are no UTF-8 are replaced, such a name is never one of ours.
    pub name: String,
    /// Its size in bytes.
    pub len: u64,
}

/// The server of the queue. One thread, the engine's, calls all of it.
pub trait Disk {
    /// Queues an operation, which starts at the latest in the next [`Disk::poll`] or
    /// [`Disk::wait`]. Does not wait. Operations in flight are independent: the engine submits
    /// one only when all that it depends on have completed.
    fn submit(&mut self, id: OpId, op: Op);

    /// Starts what is queued and moves all completions that have arrived to the end of `done`.
    /// Does not wait.
    fn poll(&mut self, done: &mut Vec<Completion>);

    /// Starts what is queued and sleeps until a completion may have arrived, the waker was used
    /// since the last `wait` returned, or `timeout` is over. May return early for no reason.
    fn wait(&mut self, timeout: Option<Duration>);

    /// What ends a [`Disk::wait`] from any thread.
    fn waker(&self) -> Arc<dyn Wake>;

    /// What the filesystem asks of writes.
    fn geometry(&self) -> Geometry;

    /// The files of the trail directory, sorted by name. Blocks; used before the first append.
    ///
    /// # Errors
    /// What the system says.
    fn list(&mut self) -> io::Result<Vec<Listed>>;

    /// Reads up to `buf.len()` bytes of a file; 0 means its end. Blocks; used before the first
    /// append.
    ///
    /// # Errors
    /// What the system says.
    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl<D: Disk + ?Sized> Disk for Box<D> {
    fn submit(&mut self, id: OpId, op: Op) {
        (**self).submit(id, op);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        (**self).poll(done);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        (**self).wait(timeout);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        (**self).waker()
    }

    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        (**self).list()
    }

    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read(name, offset, buf)
    }
}

/// Ends the engine's sleep. Cheap when it is not asleep; callable from any thread.
pub trait Wake: Send + Sync {
    /// Ends the current [`Disk::wait`], or the next one if none is under way.
    fn wake(&self);
}
