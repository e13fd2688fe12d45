//! The socket in the filesystem: who may connect is decided before anybody can.

use rustix::fs::{AtFlags, Gid, Mode, chownat, fchmod, lstat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Connections that wait to be accepted. Who comes when they are full waits in `connect`.
const BACKLOG: i32 = 64;

/// Permissions that a socket may have: of a file that nobody executes.
pub const MODE_MAX: u32 = 0o666;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("{}: another process listens on this socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// What is there is no socket, and was left as it is.
    #[error("{}: there is something that is no socket", path.display())]
    Foreign {
        /// What is there.
        path: PathBuf,
    },
    /// The system said no.
    #[error("{}: cannot {operation}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A listening socket; its name is removed on drop.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode, so that only our own name is removed.
    id: (u64, u64),
}

impl Listener {
    /// Listens at `path`, in place of a socket that nobody listens on any more. A missing directory
    /// is made, if the one above it is there.
    ///
    /// Until the mode and the group are as they should be the kernel refuses every connection:
    /// the name is there, and nobody listens yet.
    ///
    /// # Errors
    /// [`ListenError`]; what was there before is still there.
    pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, ListenError> {
        let io = |operation| {
            move |errno: Errno| ListenError::Io {
                operation,
                path: path.to_owned(),
                source: errno.into(),
            }
        };
        let address = SocketAddrUnix::new(path).map_err(io("use the name"))?;
        if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty() && !it.exists())
        {
            std::fs::DirBuilder::new().mode(0o755).create(parent).map_err(|source| {
                ListenError::Io {
                    operation: "make the directory of",
                    path: path.to_owned(),
                    source,
                }
            })?;
        }
        clear(path, &address)?;
        let fd = new_socket().map_err(io("make"))?;
        // The file gets the socket's own mode: nobody else's from its first moment.
        fchmod(&fd, Mode::empty()).map_err(io("protect"))?;
        bind(&fd, &address).map_err(io("bind"))?;
        let stat = lstat(path).map_err(io("look at"))?;
        let listener = Self { fd, path: path.to_owned(), id: (stat.st_dev, stat.st_ino) };
        if let Some(group) = group {
            let group = Some(Gid::from_raw(group));
            chownat(rustix::fs::CWD, path, None, group, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io("give to the group"))?;
        }
        rustix::fs::chmod(path, Mode::from_raw_mode(mode & MODE_MAX))
            .map_err(io("set the mode of"))?;
        listen(&listener.fd, BACKLOG).map_err(io("listen on"))?;
        Ok(listener)
    }

    /// The next connection; `None` if there is none.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match accept_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if lstat(&self.path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.id) {
            // A name that stays is cleared by whoever listens next.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), ListenError> {
    let io = |operation, source| ListenError::Io { operation, path: path.to_owned(), source };
    let file = match std::fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(|why| io("look at", why))?,
    };
    if !file.file_type().is_socket() {
        return Err(ListenError::Foreign { path: path.to_owned() });
    }
    let probe = new_socket().map_err(|errno| io("make", errno.into()))?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => {}
        // It has a listener, whose backlog may be full.
        Ok(()) | Err(Errno::AGAIN) => return Err(ListenError::InUse { path: path.to_owned() }),
        Err(errno) => return Err(io("look at", errno.into())),
    }
    let same = std::fs::symlink_metadata(path)
        .is_ok_and(|now| (now.dev(), now.ino()) == (file.dev(), file.ino()));
    if !same {
        return Err(ListenError::InUse { path: path.to_owned() });
    }
    std::fs::remove_file(path).map_err(|why| io("remove the old", why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_socket_is_what_it_was_asked_to_be_and_gone_afterwards() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("made/socket");
        let listener = Listener::bind(&path, 0o640, None).expect("bound");
        let mode = std::fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert!(listener.accept().expect("works").is_none());
        let _client = UnixStream::connect(&path).expect("connected");
        assert!(listener.accept().expect("works").is_some());
        let again = Listener::bind(&path, 0o600, None);
        assert!(matches!(again, Err(ListenError::InUse { .. })), "{again:?}");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_process_left_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "its name stays");
        let listener = Listener::bind(&path, 0o600, None).expect("bound in its place");
        // A name that somebody else has taken meanwhile is not ours to remove.
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "theirs").expect("written");
        drop(listener);
        assert!(path.exists());
        let file = Listener::bind(&path, 0o600, None);
        assert!(matches!(file, Err(ListenError::Foreign { .. })), "{file:?}");
        assert_eq!(std::fs::read(&path).expect("there"), b"theirs");
        let long = dir.path().join("x".repeat(200));
        assert!(matches!(Listener::bind(&long, 0o600, None), Err(ListenError::Io { .. })));
    }
}
