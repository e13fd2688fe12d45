//! Whether a writer is running on a trail.
//!
//! The writer holds an exclusive `flock` on the file `lock`. The kernel lists all such locks in
//! `/proc/locks`, which asks nothing of the file. Where that does not answer (another pid
//! namespace, a filesystem whose device numbers differ there), a shared lock is tried and given
//! back at once.

use crate::trail::dir::open_regular;
use graven_format::name::LOCK;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A writer that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its pid, if it is known.
    pub pid: Option<u32>,
}

/// The writer that runs on the trail in `path`, if one does.
#[must_use]
pub fn writer_of(path: &Path) -> Option<Writer> {
    let lock = open_regular(&path.join(LOCK)).ok()?;
    if let Some(pid) = listed(&lock) {
        return Some(Writer { pid: Some(pid) });
    }
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = flock(&lock, FlockOperation::Unlock);
            None
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Some(Writer { pid: stated(&lock) }),
        Err(_) => None,
    }
}

/// Keeps writers out of a trail until it is dropped. Nothing in the directory is changed.
#[derive(Debug)]
pub struct Held {
    _lock: Option<File>,
}

/// Why writers cannot be kept out.
#[derive(Debug)]
pub enum HoldError {
    /// One is running.
    Running(Writer),
    /// The lock cannot be opened or taken.
    Io(io::Error),
}

/// Keeps writers out of the trail in `path` by a shared lock, which a file that can only be read
/// gives too. A trail without a lock file, a copy for instance, has had no writer.
///
/// # Errors
/// [`HoldError`]
pub fn hold(path: &Path) -> Result<Held, HoldError> {
    let lock = match open_regular(&path.join(LOCK)) {
        Ok(lock) => lock,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Held { _lock: None }),
        Err(why) => return Err(HoldError::Io(why)),
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Held { _lock: Some(lock) }),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = listed(&lock).or_else(|| stated(&lock));
            Err(HoldError::Running(Writer { pid }))
        }
        Err(why) => Err(HoldError::Io(why.into())),
    }
}

/// The pid of whoever holds an exclusive lock on `lock`, by the kernel's list:
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
fn listed(lock: &File) -> Option<u32> {
    let meta = lock.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let list = std::fs::read_to_string("/proc/locks").ok()?;
    list.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, "WRITE", pid, at, ..] if at == place => pid.parse().ok(),
            _ => None,
        }
    })
}

/// The pid that the file itself states.
fn stated(mut lock: &File) -> Option<u32> {
    let mut text = String::new();
    (&mut lock).take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
