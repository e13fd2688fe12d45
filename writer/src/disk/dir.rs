//! The trail directory as one descriptor: every name is looked up relative to it, so nobody who
//! moves directories about can make two operations of one trail end in two places.

use super::Listed;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;

/// Longest name that Linux filesystems accept, in bytes (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;

/// Mode of the files we create: an audit trail is its owner's only.
pub(super) const FILE_MODE: u32 = 0o600;

/// A directory, held open.
#[derive(Debug)]
pub(super) struct TrailDir {
    fd: OwnedFd,
}

/// Checks that `name` is a plain file name and makes a C string of it.
///
/// # Errors
/// EINVAL for an empty name, `.`, `..`, or one with a slash or a NUL; ENAMETOOLONG.
pub(super) fn plain_name(name: &str) -> Result<CString, Errno> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Errno::INVAL);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    CString::new(name).map_err(|_nul| Errno::INVAL)
}

/// Flags for a file that we create (`create`) or find, to be written with or without the page
/// cache. A symbolic link is never followed: we make none.
pub(super) fn open_flags(create: bool, direct: bool) -> OFlags {
    let mut flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    flags.set(OFlags::CREATE | OFlags::EXCL, create);
    flags.set(OFlags::DIRECT, direct);
    flags
}

/// Whether `fd` is a regular file; EINVAL if not. Only such a file can be part of a trail.
pub(super) fn check_regular(fd: impl AsFd) -> Result<(), Errno> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    if FileType::from_raw_mode(mode) == FileType::RegularFile { Ok(()) } else { Err(Errno::INVAL) }
}

impl TrailDir {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// What the system says: ENOENT, ENOTDIR, EACCES.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))? })
    }

    /// Opens or creates a file for writing.
    pub(super) fn open_file(&self, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mode = Mode::from_raw_mode(FILE_MODE);
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, mode))?;
        check_regular(&fd)?;
        Ok(fd)
    }

    /// Renames; EEXIST if `to` exists.
    pub(super) fn rename(&self, from: &CStr, to: &CStr) -> Result<(), Errno> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, flags) {
            Err(Errno::INVAL | Errno::NOSYS) => self.rename_by_link(from, to),
            result => result,
        }
    }

    /// The same for filesystems that do not know RENAME_NOREPLACE (NFS, some FUSE): link is as
    /// strict about an existing name. A crash in between leaves both names on one file.
    pub(super) fn rename_by_link(&self, from: &CStr, to: &CStr) -> Result<(), Errno> {
        rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?;
        self.remove(from)
    }

    /// Removes a name.
    pub(super) fn remove(&self, name: &CStr) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }

    /// See [`super::Disk::list`].
    pub(super) fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let stat =
                match rustix::fs::statat(&self.fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    // Removed since we read its name: not there.
                    Err(Errno::NOENT) => continue,
                    stat => stat?,
                };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                let name = entry.file_name().to_string_lossy().into_owned();
                listed.push(Listed { name, len: u64::try_from(stat.st_size).unwrap_or(0) });
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// See [`super::Disk::read`].
    pub(super) fn read(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let name = plain_name(name)?;
        // NONBLOCK so that a FIFO somebody has put there cannot hang the start; it means nothing
        // for the regular files that we go on to read.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, &name, flags, Mode::empty()))?;
        check_regular(&fd)?;
        Ok(retry_on_intr(|| rustix::io::pread(&fd, &mut *buf, offset))?)
    }
}

impl AsFd for TrailDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for name in ["a", "x.seg", ".hidden", "..."] {
            assert!(plain_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/a", "../a", "a/", "a\0b"] {
            assert_eq!(plain_name(name), Err(Errno::INVAL), "{name:?}");
        }
        assert_eq!(plain_name(&"n".repeat(256)), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn rename_by_link_refuses_an_existing_name() {
        let at = tempfile::tempdir().unwrap();
        let dir = TrailDir::open(at.path()).unwrap();
        std::fs::write(at.path().join("a"), "a").unwrap();
        std::fs::write(at.path().join("b"), "b").unwrap();
        assert_eq!(dir.rename_by_link(c"a", c"b"), Err(Errno::EXIST));
        dir.rename_by_link(c"a", c"c").unwrap();
        let names: Vec<_> = dir.list().unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn links_fifos_and_directories_are_no_files_of_a_trail() {
        let at = tempfile::tempdir().unwrap();
        let dir = TrailDir::open(at.path()).unwrap();
        std::fs::write(at.path().join("file"), "x").unwrap();
        std::fs::create_dir(at.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("file", at.path().join("link")).unwrap();
        rustix::fs::mknodat(&dir, "fifo", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let listed = dir.list().unwrap();
        assert_eq!(listed, [Listed { name: "file".into(), len: 1 }]);
        for name in ["dir", "link", "fifo"] {
            assert!(dir.read(name, 0, &mut [0; 4]).is_err(), "{name}");
        }
        assert!(dir.open_file(c"link", open_flags(false, false)).is_err());
    }
}
