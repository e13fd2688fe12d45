//! Room that is kept for what must be recorded when there is none: a file of the trail that holds nothing.
//!
//! It is allocated, and given back when the writer finds no room for its next segment. What it is for is what
//! was accepted by then, Graven's own records, and those of exempt producers; everybody else waits at the
//! [gate](super::gate). Whoever else writes to the filesystem may take what is given back before the writer does: a
//! trail deserves a filesystem of its own.

use graven_format::name;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// See the module's documentation.
#[derive(Debug)]
pub struct Reserve {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve of the trail in `dir`, of so many bytes once it is [filled](Reserve::fill).
    ///
    /// # Errors
    /// The file cannot be opened, or is not a file.
    pub fn open(dir: &Path, bytes: u64) -> io::Result<Self> {
        let path = dir.join(name::RESERVE);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { file, path, bytes })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has all of its room.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let held =
            |it: std::fs::Metadata| it.len() == self.bytes && it.blocks() * 512 >= self.bytes;
        self.file.metadata().is_ok_and(held)
    }

    /// Allocates it.
    ///
    /// # Errors
    /// What the system says; what it had allocated until then is given back.
    pub fn fill(&self) -> io::Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        self.file.set_len(0)?;
        let filled = rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, self.bytes)
            .map_err(io::Error::from)
            .and_then(|()| self.file.sync_all());
        if filled.is_err() {
            // Some filesystems keep what they had allocated when they found no more.
            let _ = self.release();
        }
        filled
    }

    /// Gives its room back.
    ///
    /// # Errors
    /// What the system says.
    pub fn release(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        // Some filesystems hand out freed blocks only behind a barrier.
        self.file.sync_all()
    }

    /// Removes it: the trail has none any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(dir: &Path) -> io::Result<()> {
        match std::fs::remove_file(dir.join(name::RESERVE)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
