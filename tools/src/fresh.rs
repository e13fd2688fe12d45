//! Directories that are there only once they are complete: made under another name, renamed at the
//! end, and never over something.

use crate::exit::Exit;
use crate::recording::Failure;
use crate::trail::live::{self, Held, HoldError};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What a directory is called until it is complete.
const SUFFIX_PARTIAL: &str = ".partial";

/// A directory that is being filled.
#[derive(Debug)]
pub struct Fresh {
    dest: PathBuf,
    partial: PathBuf,
}

impl Fresh {
    /// Makes the directory that [`Fresh::finish`] calls `dest`; only its owner may read it. `dest`
    /// must not exist, and must not be in `trail`.
    ///
    /// # Errors
    /// [`Failure`], ready to be said; nothing was made.
    pub fn make(dest: &Path, trail: &Path) -> Result<Self, Failure> {
        let refuse = |text: String| Failure::new(Exit::CannotCheck, &text);
        let Some(name) = dest.file_name() else {
            return Err(refuse(format!("{} is no name for a new directory", dest.display())));
        };
        let parent = parent(dest);
        let real =
            |path: &Path| path.canonicalize().map_err(|why| read_failed("find", path, None, &why));
        if real(parent)?.starts_with(real(trail)?) {
            return Err(refuse(format!("{} is in {}", dest.display(), trail.display()))
                .help("name a directory elsewhere: the trail is left as it is"));
        }
        let partial = with_suffix(&parent.join(name), SUFFIX_PARTIAL);
        let exists = |path: &Path| refuse(format!("{} exists", path.display()));
        if fs::symlink_metadata(dest).is_ok() {
            return Err(exists(dest).help("name a directory that does not exist: it is made"));
        }
        match DirBuilder::new().mode(0o700).create(&partial) {
            Ok(()) => Ok(Self { dest: parent.join(name), partial }),
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Err(exists(&partial)
                .note("it is what a run that did not come to its end leaves, or runs now")
                .help("remove it if nothing is at work there")),
            Err(why) => Err(write_failed("make", &partial, &why)),
        }
    }

    /// Where the files go.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// What it will be called.
    #[must_use]
    pub fn dest(&self) -> &Path {
        &self.dest
    }

    /// Gives the directory its name, durably.
    ///
    /// # Errors
    /// [`Failure`], ready to be said; the directory keeps the name that it had.
    pub fn finish(self) -> Result<(), Failure> {
        sync_dir(&self.partial).map_err(|why| self.failed(&write_of(&self.partial), &why))?;
        rename_new(&self.partial, &self.dest)
            .map_err(|why| self.failed(&format!("rename to {}", self.dest.display()), &why))
    }

    fn failed(&self, what: &str, why: &io::Error) -> Failure {
        let text = format!("cannot {what}: {why}");
        self.unfinished(Failure::new(write_exit(why), &text))
    }

    /// The failure, with what became of the directory.
    #[must_use]
    pub fn unfinished(&self, failure: Failure) -> Failure {
        let partial = crate::escape::path(&self.partial);
        failure
            .note("the trail is as it was")
            .note(format!("{partial} is not complete: remove it before the next try"))
    }
}

/// Keeps writers out of `trail` until what is returned is dropped.
///
/// # Errors
/// [`Failure`], ready to be said, if one is running.
pub fn hold(trail: &Path) -> Result<Held, Failure> {
    live::hold(trail).map_err(|why| match why {
        HoldError::Running(writer) => {
            let who = writer.pid.map_or("a writer".to_owned(), |pid| format!("pid {pid}"));
            let text = format!("{}: {who} is writing to it", trail.display());
            Failure::new(Exit::CannotCheck, &text).help("stop the writer first")
        }
        HoldError::Io(why) => {
            read_failed("lock", &trail.join(graven_format::name::LOCK), None, &why)
        }
    })
}

/// Renames a directory, never over something, and makes the new name durable.
///
/// # Errors
/// What the system says; `AlreadyExists` if `to` is there.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every filesystem knows how; without it only an empty directory could be replaced.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => return Err(Errno::EXIST.into()),
            Err(_) => fs::rename(from, to)?,
        },
        renamed => renamed?,
    }
    sync_dir(parent(to))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the system says.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The directory that `path` is in.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `path` with `suffix` behind its name.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    // A slash at the end would put the suffix into the directory.
    let mut text = OsString::from(path.components().as_path());
    text.push(suffix);
    text.into()
}

/// Something of the trail could not be read.
#[must_use]
pub fn read_failed(operation: &str, path: &Path, offset: Option<u64>, why: &io::Error) -> Failure {
    let at = offset.map_or(String::new(), |offset| format!(" at offset {offset:#x}"));
    let text = format!("cannot {operation} {}{at}: {why}", path.display());
    let failure = Failure::new(Exit::CannotCheck, &text);
    match why.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.help("a trail is readable by its owner only: run this as that user")
        }
        io::ErrorKind::NotFound => failure.help("look at the name"),
        _ => failure
            .help("look at the device; rescue what it still gives with a tool for disks first"),
    }
}

/// Something new could not be written.
#[must_use]
pub fn write_failed(operation: &str, path: &Path, why: &io::Error) -> Failure {
    let failure =
        Failure::new(write_exit(why), &format!("cannot {operation} {}: {why}", path.display()));
    match write_exit(why) {
        Exit::NoRoom => failure.help("make room there, or name a directory on another filesystem"),
        Exit::Storage => failure.help("look at the device, or name a directory on another one"),
        _ => failure.help("name a directory that this user may write to"),
    }
}

fn write_of(path: &Path) -> String {
    format!("sync {}", path.display())
}

fn write_exit(why: &io::Error) -> Exit {
    match why.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::NoRoom,
        _ if why.raw_os_error() == Some(Errno::IO.raw_os_error()) => Exit::Storage,
        _ => Exit::CannotCheck,
    }
}
