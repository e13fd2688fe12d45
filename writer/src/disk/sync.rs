//! The plain driver, for kernels and sandboxes without io_uring: pwrite and fdatasync on one
//! worker thread, in the order of submission. Slower, and no less durable.
//!
//! Writes that wait together share one fdatasync a file: all are written, then the file is
//! synced, then all of them complete. Zeroing goes on between such groups, a piece at a time.

use super::admit::{Files, Work, refuse};
use super::dir::{TrailDir, open_flags};
use super::probe::probe;
use super::progress::Next;
use super::wake::Bell;
use super::{
    Completion, Disk, DiskReport, DriverKind, FileId, Geometry, IoBuf, Listed, OPS_IN_FLIGHT_MAX,
    Op, OpId, Wake, ZERO_BYTES,
};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, retry_on_intr};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The driver: the engine's end of it.
#[derive(Debug)]
pub struct SyncDisk {
    shared: Arc<Shared>,
    geometry: Geometry,
    worker: Option<JoinHandle<()>>,
    in_flight: usize,
    /// Completions of what never went to the worker.
    ready: Vec<Completion>,
}

/// What engine and worker share.
#[derive(Debug)]
struct Shared {
    dir: TrailDir,
    queue: Mutex<Queue>,
    /// The worker waits here for something in the queue.
    queued: Condvar,
    done: Mutex<Vec<Completion>>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct Queue {
    works: VecDeque<(OpId, Work)>,
    stop: bool,
}

/// Locks, also after a panic elsewhere: the data behind our locks is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SyncDisk {
    /// Opens the trail directory `dir`.
    ///
    /// # Errors
    /// The directory cannot be opened or written in, or there is no memory or thread to be had.
    /// The message names the directory.
    pub fn open(dir: &Path) -> io::Result<(Self, DiskReport)> {
        let at = |error: io::Error| {
            io::Error::new(error.kind(), format!("trail directory {}: {error}", dir.display()))
        };
        let trail = TrailDir::open(dir).map_err(at)?;
        let found = probe(&trail).map_err(at)?;
        let shared = Arc::new(Shared {
            dir: trail,
            queue: Mutex::default(),
            queued: Condvar::new(),
            done: Mutex::default(),
            bell: Arc::new(Bell::new()?),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            geometry: found.geometry,
            files: Files::new(),
            zeros: IoBuf::new(ZERO_BYTES)?,
            zeroing: VecDeque::new(),
            written: Vec::new(),
            dir_failed: None,
        };
        let worker =
            std::thread::Builder::new().name("graven-disk".into()).spawn(move || worker.run());
        let worker = worker.map_err(|why| {
            io::Error::new(why.kind(), format!("cannot start the thread that writes: {why}"))
        })?;
        let disk = Self {
            shared,
            geometry: found.geometry,
            worker: Some(worker),
            in_flight: 0,
            ready: Vec::new(),
        };
        let report = DiskReport {
            driver: DriverKind::Sync,
            fallback_reason: None,
            ring: None,
            geometry: found.geometry,
            statx_align_bytes: found.statx_align_bytes,
            filesystem: found.filesystem,
            device: found.device,
            warnings: found.warnings,
        };
        Ok((disk, report))
    }
}

impl Disk for SyncDisk {
    fn submit(&mut self, id: OpId, op: Op) {
        if self.in_flight >= OPS_IN_FLIGHT_MAX {
            self.ready.push(refuse(id, op, Errno::BUSY));
            return;
        }
        match Work::new(op, self.geometry) {
            Ok(work) => {
                self.in_flight += 1;
                lock(&self.shared.queue).works.push_back((id, work));
                self.shared.queued.notify_one();
            }
            Err((errno, buf)) => {
                self.ready.push(Completion { id, result: Err(errno.into()), buf });
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.ready);
        let mut arrived = lock(&self.shared.done);
        self.in_flight -= arrived.len();
        done.append(&mut arrived);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if self.ready.is_empty() && lock(&self.shared.done).is_empty() {
            self.shared.bell.sleep(timeout);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.shared.bell) as Arc<dyn Wake>
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        self.shared.dir.list()
    }

    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.shared.dir.read(name, offset, buf)
    }
}

impl Drop for SyncDisk {
    /// Waits for the system call under way; what has not begun is dropped.
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.queued.notify_one();
        if let Some(worker) = self.worker.take() {
            // A panic of the worker has been printed; there is nobody left to tell.
            let _ = worker.join();
        }
    }
}

/// The driver: the worker's end of it.
struct Worker {
    shared: Arc<Shared>,
    geometry: Geometry,
    files: Files<OwnedFd>,
    zeros: IoBuf,
    zeroing: VecDeque<(OpId, Work)>,
    /// Writes that are not synced yet, with the result of the pwrite.
    written: Vec<(OpId, FileId, Work, Result<(), Errno>)>,
    /// The first failure of a barrier of the directory.
    dir_failed: Option<Errno>,
}

impl Worker {
    fn run(mut self) {
        while let Some(works) = self.next_works() {
            for (id, work) in works {
                if matches!(work, Work::Write { .. }) {
                    self.write(id, work);
                } else {
                    self.commit();
                    self.other(id, work);
                }
            }
            self.commit();
            self.zero_piece();
        }
    }

    /// All that is queued; waits for something unless there is zeroing to do. `None`: stop.
    fn next_works(&self) -> Option<VecDeque<(OpId, Work)>> {
        let mut queue = lock(&self.shared.queue);
        while queue.works.is_empty() && self.zeroing.is_empty() && !queue.stop {
            queue = self.shared.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        (!queue.stop).then(|| std::mem::take(&mut queue.works))
    }

    /// Hands completions to the engine, and wakes it.
    fn complete(&self, completions: impl IntoIterator<Item = Completion>) {
        lock(&self.shared.done).extend(completions);
        self.shared.bell.wake();
    }

    /// Writes, without the barrier.
    fn write(&mut self, id: OpId, work: Work) {
        let Work::Write { file, mut progress, buf } = work else { return };
        let mut result = self.files.begin(file, true);
        if let Err(errno) = result {
            self.complete([Work::Write { file, progress, buf }.complete(id, Err(errno))]);
            return;
        }
        while result.is_ok() {
            let (offset, len) = progress.piece(u64::MAX);
            let from = progress.done as usize;
            let answer = self.pwrite(file, &buf[from..from + len as usize], offset);
            match progress.answer(answer, u64::from(self.geometry.align_bytes)) {
                Next::Again => {}
                Next::Complete => break,
                Next::Failed(errno) => result = Err(errno),
            }
        }
        self.written.push((id, file, Work::Write { file, progress, buf }, result));
    }

    fn pwrite(&self, file: FileId, bytes: &[u8], offset: u64) -> Result<u64, Errno> {
        rustix::io::pwrite(self.files.get(file)?, bytes, offset).map(|bytes| bytes as u64)
    }

    /// Makes what was written durable, one fdatasync a file, and completes it.
    fn commit(&mut self) {
        if self.written.is_empty() {
            return;
        }
        let mut synced: Vec<(FileId, Result<(), Errno>)> = Vec::new();
        for (_, file, _, result) in &self.written {
            if result.is_ok() && !synced.iter().any(|(it, _)| it == file) {
                // A barrier that fails is never tried again, not even after EINTR.
                let result = self.files.get(*file).and_then(rustix::fs::fdatasync);
                synced.push((*file, result));
            }
        }
        let mut completions = Vec::with_capacity(self.written.len());
        for (id, file, work, result) in self.written.drain(..) {
            let barrier = synced.iter().find(|(it, _)| *it == file);
            let result = result.and(barrier.map_or(Ok(()), |(_, result)| *result));
            let result = self.files.end(file, true, result);
            completions.push(work.complete(id, result));
        }
        self.complete(completions);
    }

    /// Everything but writes.
    fn other(&mut self, id: OpId, work: Work) {
        if let Work::Zero { file, .. } = &work {
            match self.files.begin(*file, false) {
                Ok(()) => self.zeroing.push_back((id, work)),
                Err(errno) => self.complete([work.complete(id, Err(errno))]),
            }
            return;
        }
        let result = self.call(&work);
        self.complete([work.complete(id, result)]);
    }

    fn call(&mut self, work: &Work) -> Result<(), Errno> {
        let dir = &self.shared.dir;
        match work {
            Work::Open { file, name, create } => {
                self.files.reserve(*file)?;
                match dir.open_file(name, open_flags(*create, self.geometry.direct)) {
                    Ok(fd) => self.files.opened(*file, fd),
                    Err(errno) => {
                        self.files.forget(*file);
                        return Err(errno);
                    }
                }
                Ok(())
            }
            Work::Allocate { file, len } => {
                let (fd, mode) = (self.files.get(*file)?, rustix::fs::FallocateFlags::empty());
                retry_on_intr(|| rustix::fs::fallocate(fd, mode, 0, *len))
            }
            Work::Truncate { file, len } => {
                let fd = self.files.get(*file)?;
                retry_on_intr(|| rustix::fs::ftruncate(fd, *len))
            }
            Work::Sync { file } => {
                self.files.begin(*file, true)?;
                let result = self.files.get(*file).and_then(rustix::fs::fsync);
                self.files.end(*file, true, result)
            }
            Work::Rename { from, to } => dir.rename(from, to),
            Work::Remove { name } => dir.remove(name),
            Work::SyncDir => {
                self.dir_failed.map_or(Ok(()), Err)?;
                let result = rustix::fs::fsync(dir);
                self.dir_failed = result.err();
                result
            }
            Work::Close { file } => {
                drop(self.files.close(*file)?);
                self.files.forget(*file);
                Ok(())
            }
            // These have their own ways.
            Work::Write { .. } | Work::Zero { .. } => Err(Errno::INVAL),
        }
    }

    /// Writes one piece of the zeroing that is under way, if any.
    fn zero_piece(&mut self) {
        let Some((id, Work::Zero { file, mut progress })) = self.zeroing.pop_front() else {
            return;
        };
        let next = if progress.len == 0 {
            Next::Complete
        } else {
            let (offset, len) = progress.piece(ZERO_BYTES as u64);
            let answer = self.pwrite(file, &self.zeros[..len as usize], offset);
            progress.answer(answer, u64::from(self.geometry.align_bytes))
        };
        let work = Work::Zero { file, progress };
        let result = match next {
            Next::Again => return self.zeroing.push_front((id, work)),
            Next::Complete => Ok(()),
            Next::Failed(errno) => Err(errno),
        };
        let result = self.files.end(file, false, result);
        self.complete([work.complete(id, result)]);
    }
}
