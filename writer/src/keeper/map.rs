//! The mapping itself: words that are read and written atomically, and room that the kernel writes to.

use super::MemoryError;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Nobody can make the memory shorter under the feet of another.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A shared memory at some address of this process.
pub(super) struct Map {
    map: MmapRaw,
    file: File,
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("bytes", &self.map.len()).finish_non_exhaustive()
    }
}

impl Map {
    /// A new memory of zeros, every page of it there and, where that is permitted, kept there.
    pub(super) fn create(bytes: usize) -> Result<Self, MemoryError> {
        let failed = |operation| move |errno| MemoryError::system(operation, errno);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("graven-keeper", flags).map_err(failed("making it"))?;
        ftruncate(&fd, bytes as u64).map_err(failed("sizing it"))?;
        fcntl_add_seals(&fd, SEALS).map_err(failed("sealing it"))?;
        Self::open(fd)
    }

    /// Maps one that another process made.
    pub(super) fn open(fd: OwnedFd) -> Result<Self, MemoryError> {
        let failed = |operation| move |errno| MemoryError::system(operation, errno);
        let seals = fcntl_get_seals(&fd).map_err(failed("reading its seals"))?;
        if !seals.contains(SEALS) {
            return Err(MemoryError::Foreign("its size is not sealed"));
        }
        let bytes = fstat(&fd).map_err(failed("reading its size"))?.st_size;
        let bytes = usize::try_from(bytes).unwrap_or(0);
        if bytes == 0 || !bytes.is_multiple_of(4096) {
            return Err(MemoryError::Foreign("its size"));
        }
        let file = File::from(fd);
        let map = MmapOptions::new()
            .len(bytes)
            .populate()
            .map_raw(&file)
            .map_err(|why| MemoryError::system("mapping it", io_errno(&why)))?;
        // Without the right to it, pages may be swapped out: slower, and no less whole.
        let _ = map.lock();
        Ok(Self { map, file })
    }

    pub(super) fn bytes(&self) -> usize {
        self.map.len()
    }

    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at < self.bytes(), "word {at:#x}");
        // SAFETY: it is inside the mapping, whose length is a multiple of a page.
        let word = unsafe { self.map.as_mut_ptr().add(at) };
        // SAFETY: aligned, as a mapping begins at a page; it lives as long as `self`; and all accesses to
        // the mapping are atomic, here and in the other process, or made by the kernel.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    pub(super) fn load(&self, at: usize, order: Ordering) -> u64 {
        self.word(at).load(order)
    }

    /// Every store to the memory is made here, or is part of [`Map::copy_in`].
    pub(super) fn store(&self, at: usize, value: u64, order: Ordering) {
        fuse::step();
        self.word(at).store(value, order);
    }

    /// Copies out of the memory, from a word's start.
    pub(super) fn copy_out(&self, at: usize, out: &mut [u8]) {
        for (index, part) in out.chunks_mut(8).enumerate() {
            let word = self.load(at + 8 * index, Ordering::Relaxed).to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    /// Copies into the memory, from a word's start, and fills the last word up with zeros.
    pub(super) fn copy_in(&self, at: usize, bytes: &[u8]) {
        fuse::step();
        for (index, part) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.word(at + 8 * index).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Copies whole words from one part of the memory to another.
    pub(super) fn copy_words(&self, from: usize, to: usize, bytes: usize) {
        fuse::step();
        for at in (0..bytes).step_by(8) {
            let word = self.load(from + at, Ordering::Relaxed);
            self.word(to + at).store(word, Ordering::Relaxed);
        }
    }

    /// Where the kernel may write.
    pub(super) fn pointer(&self, at: usize, bytes: usize) -> *mut u8 {
        assert!(at.checked_add(bytes).is_some_and(|end| end <= self.bytes()), "{at:#x} {bytes}");
        // SAFETY: it is inside the mapping.
        unsafe { self.map.as_mut_ptr().add(at) }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn io_errno(why: &std::io::Error) -> Errno {
    Errno::from_io_error(why).unwrap_or(Errno::IO)
}

/// The kill of a test: it strikes before the n-th store of this thread.
#[cfg(test)]
pub(super) mod fuse {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// What a killed actor unwinds with.
    #[derive(Debug)]
    pub(in crate::keeper) struct Killed;

    pub(in crate::keeper) fn set(steps: Option<u32>) {
        LEFT.set(steps);
    }

    pub(in crate::keeper) fn step() {
        match LEFT.get() {
            Some(0) => {
                LEFT.set(None);
                std::panic::resume_unwind(Box::new(Killed));
            }
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
    }
}

#[cfg(not(test))]
pub(super) mod fuse {
    pub(in crate::keeper) fn step() {}
}
