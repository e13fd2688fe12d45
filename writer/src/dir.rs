//! The trail directory before there is an engine: its identity, and the lock of its one writer.

use crate::clock::Now;
use crate::error::OpenError;
use crate::keys::{KeyOption, KeyTrouble, files};
use graven_format::TrailId;
use graven_format::identity::Identity;
use graven_format::key_file::KeyFile;
use graven_format::name;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nobody but the owner reads a trail (CAPP FAU_SAR.2).
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How often, and how long each time, the end of a dead writer's last writes is waited for: half a
/// minute, which a device that still answers does not need.
const ENDING_WAITS: u32 = 6000;
/// See [`ENDING_WAITS`].
const ENDING_WAIT: Duration = Duration::from_millis(5);

/// A trail directory that this process, and no other, may write to.
#[derive(Debug)]
pub struct LockedDir {
    path: PathBuf,
    identity: Identity,
    /// Holds the lock until it is dropped, or until the process and all that it has asked of the
    /// disk have ended in whatever way.
    lock: File,
}

impl LockedDir {
    /// Opens a trail directory, or makes one of an empty or missing directory. A new trail gets its
    /// first key as `key` says.
    ///
    /// # Errors
    /// [`OpenError`]; an existing directory that is no trail is left as it was.
    pub fn open(path: &Path, key: &KeyOption, now: Now) -> Result<Self, OpenError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { operation, path, source }
        };
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(OpenError::NotADirectory(path.to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_dir(path).map_err(io("creation of directory", path))?;
            }
            Err(error) => return Err(io("opening directory", path)(error)),
        }
        refuse_foreign(path)?;
        let lock = lock(path)?;
        let identity = match read_identity(path)? {
            Some(identity) => identity,
            None => {
                let trail_id = first_key(path, key, now)?;
                create_identity(path, trail_id, now)
                    .map_err(io("creation of the identity in", path))?
            }
        };
        if let KeyOption::Given(file) = key {
            take_key(path, file, identity.trail_id)?;
        }
        Ok(Self { path: path.to_owned(), identity, lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file that the lock is on.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Lets the lock go at once. Nothing that was asked of the disk may be under way any more: io_uring holds the
    /// lock's file for a moment longer than it works.
    pub(crate) fn unlock(&self) {
        // One that cannot be let go ends with the file.
        let _ = self.lock.unlock();
    }

    /// The trail's id.
    #[must_use]
    pub fn trail_id(&self) -> TrailId {
        self.identity.trail_id
    }
}

/// Creates a directory and makes its name durable.
fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// A directory without an identity is made a trail only if nothing in it is somebody else's.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { operation: "listing of", path: path.to_owned(), source };
    let mut example = None;
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            name::IDENTITY => return Ok(()),
            // A first start that was cut off leaves these.
            name::IDENTITY_TMP | name::LOCK | name::KEY | name::KEY_NEXT => {}
            // mkfs makes this one, and a trail deserves a filesystem of its own.
            "lost+found" => {}
            _ => example = Some(name),
        }
    }
    match example {
        Some(example) => Err(OpenError::Foreign { dir: path.to_owned(), example }),
        None => Ok(()),
    }
}

/// Takes the lock, or says who has it. The kernel lets it go when the process has ended and the last
/// of its writes has.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(name::LOCK);
    let io = |source| OpenError::Io { operation: "opening", path: path.clone(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(io)?;
    for wait in 0.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let (dir, pid) = (dir.to_owned(), read_pid(&file));
        match pid.filter(|pid| has_ended(*pid)) {
            None => return Err(OpenError::Locked { dir, pid }),
            Some(pid) if wait == ENDING_WAITS => return Err(OpenError::Ending { dir, pid }),
            Some(_) => std::thread::sleep(ENDING_WAIT),
        }
    }
    // For people, for `verify`, and to know a writer that has ended.
    // Always as long, and written over what is there, so that a full disk has room for it.
    let text = format!("{:<10}\n", std::process::id());
    file.write_all_at(text.as_bytes(), 0).map_err(io)?;
    file.set_len(text.len() as u64).map_err(io)?;
    Ok(file)
}

/// Whether the process has ended: there is none of this pid, or only what its parent has not asked
/// for yet.
fn has_ended(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may be anything.
        Ok(stat) => {
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
        }
        // Without /proc nothing is known.
        Err(_) => Path::new("/proc/self/stat").exists(),
    }
}

/// The pid of the writer that has `dir` locked now, if there is one: 0 if it is not known.
/// Never waits, and changes nothing.
#[must_use]
pub fn writer_pid(dir: &Path) -> Option<u32> {
    let file = File::open(dir.join(name::LOCK)).ok()?;
    match file.try_lock_shared() {
        Ok(()) | Err(TryLockError::Error(_)) => None,
        Err(TryLockError::WouldBlock) => Some(read_pid(&file).unwrap_or(0)),
    }
}

fn read_pid(file: &File) -> Option<u32> {
    let mut bytes = [0; 16];
    let read = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..read]).ok()?.trim().parse().ok()
}

fn read_identity(dir: &Path) -> Result<Option<Identity>, OpenError> {
    let path = dir.join(name::IDENTITY);
    match fs::read(&path) {
        Ok(bytes) => Identity::decode(&bytes)
            .map(Some)
            .map_err(|source| OpenError::Format { file: name::IDENTITY.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { operation: "reading", path, source }),
    }
}

/// The id of a new trail, whose first key is durable if it has one. The identity comes after it: a trail
/// is never there without the key that it was to have.
fn first_key(dir: &Path, key: &KeyOption, now: Now) -> Result<TrailId, OpenError> {
    let io = |operation| {
        let path = dir.to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    // A first start that was cut off may have left it.
    match files::read(&dir.join(name::KEY)).map_err(io("reading the key in"))? {
        Some(Ok(file)) => return Ok(file.trail_id),
        Some(Err(why)) => return Err(KeyTrouble::Unreadable(why).into()),
        None => {}
    }
    let made = match key {
        KeyOption::Given(path) => read_given(path)?,
        KeyOption::Auto | KeyOption::Restart | KeyOption::Unsigned => {
            let random = io("making of the identity in");
            let trail_id = random_id().map_err(random)?;
            if *key == KeyOption::Unsigned {
                return Ok(trail_id);
            }
            files::generate(trail_id, 0, now.realtime_ns, 0).map_err(io("making of a key in"))?
        }
    };
    files::create(dir, &made).map_err(io("writing the key in"))?;
    Ok(made.trail_id)
}

/// Makes the key that was given the trail's, and erases its file. If that is gone and the trail has a
/// key, this has happened before.
fn take_key(dir: &Path, path: &Path, trail: TrailId) -> Result<(), OpenError> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    let own = files::read(&dir.join(name::KEY)).map_err(io("reading the key in", dir))?;
    let given = match read_given(path) {
        Err(OpenError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound && own.is_some() =>
        {
            return Ok(());
        }
        given => given?,
    };
    if given.trail_id != trail {
        let (path, key) = (path.to_owned(), given.trail_id);
        return Err(KeyTrouble::OtherTrail { path, key, trail }.into());
    }
    match own {
        Some(Ok(own)) if own.key.public() == given.key.public() => {}
        Some(_) => return Err(KeyTrouble::HasAnother { path: path.to_owned() }.into()),
        None => files::create(dir, &given).map_err(io("writing the key in", dir))?,
    }
    files::erase(path).map_err(io("erasing", path))
}

fn read_given(path: &Path) -> Result<KeyFile, OpenError> {
    let io = |source| OpenError::Io { operation: "reading", path: path.to_owned(), source };
    let missing = || io(io::ErrorKind::NotFound.into());
    let read = files::read(path).map_err(io)?.ok_or_else(missing)?;
    read.map_err(|source| KeyTrouble::Given { path: path.to_owned(), source }.into())
}

/// A trail's id of the kernel's randomness.
///
/// # Errors
/// The kernel has none.
pub fn random_id() -> io::Result<TrailId> {
    let mut id = [0; 16];
    // 16 bytes are filled in one call (getrandom(2)).
    getrandom(&mut id, GetRandomFlags::empty())?;
    Ok(TrailId(id))
}

/// Makes a new identity durable: written, synced, renamed, directory synced.
fn create_identity(dir: &Path, trail_id: TrailId, now: Now) -> io::Result<Identity> {
    let identity = Identity { trail_id, created_realtime_ns: now.realtime_ns };
    let temporary = dir.join(name::IDENTITY_TMP);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&temporary)?;
    file.write_all(&identity.encode())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name::IDENTITY))?;
    File::open(dir)?.sync_all()?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_writer_and_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trail");
        let first = LockedDir::open(&path, &KeyOption::Auto, Now::default()).unwrap();
        match LockedDir::open(&path, &KeyOption::Auto, Now::default()) {
            Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        assert_eq!(writer_pid(&path), Some(std::process::id()));
        let id = first.trail_id();
        drop(first);
        assert_eq!(writer_pid(&path), None);
        assert_eq!(
            LockedDir::open(&path, &KeyOption::Auto, Now::default()).unwrap().trail_id(),
            id
        );
    }

    #[test]
    fn what_is_no_trail_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let refused = LockedDir::open(dir.path(), &KeyOption::Auto, Now::default());
        assert!(matches!(refused, Err(OpenError::Foreign { .. })), "{refused:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let file = dir.path().join("letter.txt");
        let refused = LockedDir::open(&file, &KeyOption::Auto, Now::default());
        assert!(matches!(refused, Err(OpenError::NotADirectory(_))), "{refused:?}");
    }
}
