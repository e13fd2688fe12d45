//! A fresh audit session: what ties everything that a command's descendants do to one number.

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
