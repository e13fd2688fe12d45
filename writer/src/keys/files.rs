//! Keys in the files `key` and `key.next` of a trail's directory.
//!
//! Overwriting is what a program can do to make a filesystem forget. One that copies on write, a
//! journal of data, or a flash device may keep old blocks: see `docs/threat-model.md`.

use super::{KeyDone, KeyOp, KeyStore, LocalKeys};
use crate::disk::Wake;
use graven_format::TrailId;
use graven_format::key_file::{KEY_FILE_BYTES_MAX, KeyFile, KeyFileError};
use graven_format::lines::origin;
use graven_format::name;
use graven_format::note::SecretKey;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, JoinHandle};
use zeroize::Zeroizing;

const FILE_MODE: u32 = 0o600;

/// A key for this trail, of the kernel's randomness.
///
/// # Errors
/// The kernel has none.
pub fn generate(trail_id: TrailId, epoch: u64, since_ns: u64, segment: u64) -> io::Result<KeyFile> {
    let mut seed = Zeroizing::new([0; 32]);
    // 32 bytes are filled in one call (getrandom(2)).
    getrandom(&mut seed[..], GetRandomFlags::empty())?;
    let key = SecretKey::from_seed(&origin(trail_id), &seed).map_err(io::Error::other)?;
    Ok(KeyFile { epoch, since_ns, segment, key, trail_id })
}

/// Writes a new file that only its owner reads, behind a barrier. Its name is durable once its
/// directory is.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, file: &KeyFile) -> io::Result<()> {
    let mut out =
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
    out.write_all(file.to_text().as_bytes())?;
    out.sync_all()
}

/// Reads a key file; `None` if there is none.
///
/// # Errors
/// What the system says; the inner one if it is no key.
pub fn read(path: &Path) -> io::Result<Option<Result<KeyFile, KeyFileError>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // One byte more than there may be, so that a longer file is not taken for a good one.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 1));
    file.take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(KeyFile::parse(&bytes)))
}

/// The keys of the trail in `dir`.
///
/// # Errors
/// What the system says. What is in a file is told by [`LocalKeys`].
pub fn read_all(dir: &Path) -> io::Result<LocalKeys> {
    let mut local = LocalKeys::default();
    match read(&dir.join(name::KEY))? {
        Some(Ok(file)) => local.current = Some(file),
        Some(Err(why)) => local.unreadable = Some(why),
        None => {}
    }
    let next = read(&dir.join(name::KEY_NEXT))?;
    local.next_exists = next.is_some();
    local.next = next.and_then(Result::ok);
    Ok(local)
}

/// Makes a first key the trail's, durably.
///
/// # Errors
/// What the system says.
pub fn create(dir: &Path, file: &KeyFile) -> io::Result<()> {
    let next = dir.join(name::KEY_NEXT);
    write(&next, file)?;
    fs::rename(&next, dir.join(name::KEY))?;
    File::open(dir)?.sync_all()
}

/// Erases `key` and puts `key.next` in its place, durably. If it was cut off, it goes on.
///
/// # Errors
/// What the system says.
pub fn install(dir: &Path) -> io::Result<()> {
    let (key, next) = (dir.join(name::KEY), dir.join(name::KEY_NEXT));
    // Without it, what is in `key` is the next key already.
    if next.try_exists()? {
        overwrite(&key)?;
        fs::rename(next, key)?;
    }
    File::open(dir)?.sync_all()
}

/// Overwrites a file with zeros and removes it, durably. One that is not there is gone already.
///
/// # Errors
/// What the system says.
pub fn erase(path: &Path) -> io::Result<()> {
    overwrite(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let len = file.metadata()?.len().min(KEY_FILE_BYTES_MAX as u64);
    file.write_all(&vec![0; len as usize])?;
    file.sync_all()
}

/// The key files of an open trail. Each operation has a thread of its own, so that no commit waits
/// for it; there is at most one.
pub struct KeyFiles {
    dir: PathBuf,
    trail_id: TrailId,
    wake: Arc<dyn Wake>,
    working: Option<(JoinHandle<()>, Receiver<io::Result<KeyDone>>)>,
    /// An operation that could not be begun.
    failed: Option<io::Error>,
}

impl std::fmt::Debug for KeyFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFiles").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl KeyFiles {
    /// Those of the trail in `dir`; `wake` ends the sleep of whoever polls.
    #[must_use]
    pub fn new(dir: PathBuf, trail_id: TrailId, wake: Arc<dyn Wake>) -> Self {
        Self { dir, trail_id, wake, working: None, failed: None }
    }
}

fn work(dir: &Path, trail_id: TrailId, op: KeyOp) -> io::Result<KeyDone> {
    match op {
        KeyOp::Prepare { epoch, since_ns, segment } => {
            let next = generate(trail_id, epoch, since_ns, segment)?;
            write(&dir.join(name::KEY_NEXT), &next)?;
            File::open(dir)?.sync_all()?;
            Ok(KeyDone::Prepared(Box::new(next)))
        }
        KeyOp::Install => install(dir).map(|()| KeyDone::Installed),
    }
}

impl KeyStore for KeyFiles {
    fn submit(&mut self, op: KeyOp) {
        let (sender, receiver) = channel();
        let (dir, trail_id, wake) = (self.dir.clone(), self.trail_id, Arc::clone(&self.wake));
        let begun = Builder::new().name("graven-keys".to_owned()).spawn(move || {
            // Nobody listens only if the engine has ended.
            let _ = sender.send(work(&dir, trail_id, op));
            wake.wake();
        });
        match begun {
            Ok(thread) => self.working = Some((thread, receiver)),
            Err(error) => self.failed = Some(error),
        }
    }

    fn poll(&mut self) -> Option<io::Result<KeyDone>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let done = self.working.as_ref()?.1.try_recv().ok()?;
        let (thread, _) = self.working.take()?;
        // It has only its wake-up left to do.
        let _ = thread.join();
        Some(done)
    }
}

impl Drop for KeyFiles {
    fn drop(&mut self) {
        if let Some((thread, _)) = self.working.take() {
            // What it does is the next opening's to finish or undo, but not to race with.
            let _ = thread.join();
        }
    }
}
