//! A fresh audit session: what ties everything that a command's descendants do to one number.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read, write};

/// What `/proc/self/loginuid` and `/proc/self/sessionid` hold where nothing was set.
const UNSET: u32 = u32::MAX;

/// Why there is no fresh session. It holds no memory of its own, so that a child between fork
/// and exec can carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The login uid is set and the kernel lets nobody change it.
    #[error(
        "this process has a login uid that the kernel does not let it change; \
         help: audit the existing session, or start from a service manager, where none is set"
    )]
    Immutable,
    /// The login uid is set and changing it needs a capability.
    #[error("changing the login uid needs CAP_AUDIT_CONTROL; help: run as root")]
    NotPermitted,
    /// The kernel has no audit sessions.
    #[error(
        "/proc/self/loginuid is missing: the kernel has no audit support, or /proc is not mounted"
    )]
    Unsupported,
    /// Another failure.
    #[error("/proc/self/{file}: {errno}")]
    Io {
        /// The file.
        file: &'static str,
        /// The failure.
        errno: Errno,
    },
}

/// Puts the calling process into a new audit session and returns its number. What it starts from
/// now on belongs to that session.
///
/// A login uid that is set is kept, otherwise the real uid becomes the login uid. It
/// allocates nothing and takes no lock, so that it may run between fork and exec.
///
/// # Errors
/// See [`SessionError`].
pub fn fresh_session() -> Result<u32, SessionError> {
    let login = read_number("loginuid")?;
    let before = read_number("sessionid")?;
    let login = if login == UNSET { rustix::process::getuid().as_raw() } else { login };
    write_login(login)?;
    let session = read_number("sessionid")?;
    if session == UNSET || session == before {
        return Err(SessionError::Io { file: "sessionid", errno: Errno::BADMSG });
    }
    Ok(session)
}

/// The audit session of the calling process, `None` if it has none.
///
/// # Errors
/// See [`SessionError`].
pub fn current_session() -> Result<Option<u32>, SessionError> {
    read_number("sessionid").map(|session| (session != UNSET).then_some(session))
}

/// Why a command was not started in a session of its own.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError<E> {
    /// The child did not get a fresh session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// What was to happen before the command runs did not.
    #[error(transparent)]
    Prepare(E),
    /// The command, or the thread that prepares it, could not be started.
    #[error("starting the command failed: {0}")]
    Spawn(io::Error),
}

/// Starts `command` in a fresh audit session. `prepare` gets the session's number and runs while
/// the child waits, before it executes anything: the place to add the session's rules.
///
/// # Errors
/// [`SpawnError`]; the command did not run then.
pub fn spawn_in_fresh_session<E: Send>(
    mut command: Command,
    prepare: impl FnOnce(u32) -> Result<(), E> + Send,
) -> Result<Child, SpawnError<E>> {
    let (ours, theirs) = UnixStream::pair().map_err(SpawnError::Spawn)?;
    let ours_in_child = ours.as_raw_fd();
    let before_exec = move || enter_session(&theirs, ours_in_child);
    // SAFETY: between fork and exec the closure only opens, reads, writes and closes files: it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(before_exec) };
    std::thread::scope(|scope| {
        let preparer = std::thread::Builder::new().spawn_scoped(scope, move || {
            let session = match read_outcome(&ours) {
                None => return Ok(()),
                Some(Err(error)) => return Err(SpawnError::Session(error)),
                Some(Ok(session)) => session,
            };
            let outcome = prepare(session).map_err(SpawnError::Prepare);
            // A child that is gone shows in what `spawn` returns.
            let _ = (&ours).write_all(&[u8::from(outcome.is_ok())]);
            outcome
        });
        let preparer = preparer.map_err(SpawnError::Spawn)?;
        let child = command.spawn();
        // With it goes the child's end, so that the preparer sees the end of a child that never
        // wrote.
        drop(command);
        match preparer.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => child.map_err(SpawnError::Spawn),
        }
    })
}

/// What the child does before it executes the command: enter a session, say which, wait for leave.
fn enter_session(parent: &UnixStream, ours_in_child: RawFd) -> io::Result<()> {
    // SAFETY: the child never uses or drops its copy of the parent's end. Left open, it would keep
    // the child waiting for itself if the parent died.
    unsafe { rustix::io::close(ours_in_child) };
    let outcome = fresh_session();
    let [tag, value] = match outcome {
        Ok(session) => [0, session],
        Err(SessionError::Immutable) => [1, 0],
        Err(SessionError::NotPermitted) => [2, 0],
        Err(SessionError::Unsupported) => [3, 0],
        Err(SessionError::Io { errno, .. }) => [4, errno.raw_os_error().unsigned_abs()],
    };
    let mut message = [0; 8];
    message[..4].copy_from_slice(&tag.to_le_bytes());
    message[4..].copy_from_slice(&value.to_le_bytes());
    let mut parent = parent;
    parent.write_all(&message)?;
    let mut leave = [0];
    let count = parent.read(&mut leave)?;
    if outcome.is_ok() && count == 1 && leave == [1] {
        return Ok(());
    }
    Err(Errno::CANCELED.into())
}

/// What the child said; `None` if it ended without a word.
fn read_outcome(mut child: &UnixStream) -> Option<Result<u32, SessionError>> {
    let mut message = [0; 8];
    child.read_exact(&mut message).ok()?;
    let number = |at: usize| {
        message[at..].first_chunk().map_or(0, |bytes: &[u8; 4]| u32::from_le_bytes(*bytes))
    };
    let value = number(4);
    Some(match number(0) {
        0 => Ok(value),
        1 => Err(SessionError::Immutable),
        2 => Err(SessionError::NotPermitted),
        3 => Err(SessionError::Unsupported),
        _ => {
            let errno = Errno::from_raw_os_error(i32::try_from(value).unwrap_or(0));
            Err(SessionError::Io { file: "loginuid", errno })
        }
    })
}

fn path(file: &'static str) -> &'static str {
    match file {
        "loginuid" => "/proc/self/loginuid",
        _ => "/proc/self/sessionid",
    }
}

fn failed(file: &'static str) -> impl Fn(Errno) -> SessionError {
    move |errno| match errno {
        Errno::NOENT => SessionError::Unsupported,
        errno => SessionError::Io { file, errno },
    }
}

fn read_number(file: &'static str) -> Result<u32, SessionError> {
    let fd = openat(CWD, path(file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(file))?;
    // A u32 has ten digits; one byte more shows that it is not longer.
    let mut buffer = [0; 11];
    let len = read(&fd, &mut buffer).map_err(failed(file))?;
    let text = buffer[..len].trim_ascii();
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or(SessionError::Io { file, errno: Errno::BADMSG })
}

fn write_login(login: u32) -> Result<(), SessionError> {
    const FILE: &str = "loginuid";
    let mut digits = [0; 10];
    let mut start = digits.len();
    let mut rest = login;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let fd = openat(CWD, path(FILE), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(FILE))?;
    match write(&fd, &digits[start..]) {
        Ok(_) => Ok(()),
        // The kernel says the same for both reasons; root has the capability.
        Err(Errno::PERM) if rustix::process::geteuid().is_root() => Err(SessionError::Immutable),
        Err(Errno::PERM | Errno::ACCESS) => Err(SessionError::NotPermitted),
        Err(errno) => Err(SessionError::Io { file: FILE, errno }),
    }
}
