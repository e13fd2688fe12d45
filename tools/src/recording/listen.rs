//! The socket for applications' own records: as the one source, or beside the kernel's audit, to one
//! trail.

use crate::diag::{Diagnostic, Level};
use crate::escape::{self, Escaped};
use crate::exit::Exit;
use crate::recording::Failure;
use graven_writer::source::socket::{
    self, CLIENTS_DEFAULT, CLIENTS_MAX, ListenError, Listener, MODE_MAX, SocketError, Summary,
};
use graven_writer::{Trail, clock};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The mode of a socket unless told otherwise: whoever owns it, and its group.
pub const MODE_DEFAULT: u32 = 0o660;

/// Where applications connect, and who may.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The socket.
    pub path: PathBuf,
    /// Its permissions: who may write to it may connect.
    pub mode: u32,
    /// Its group; the one of the process if none is given.
    pub group: Option<u32>,
    /// Clients at once.
    pub clients_max: u16,
}

impl Listen {
    /// A socket with the default of all else.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path, mode: MODE_DEFAULT, group: None, clients_max: CLIENTS_DEFAULT }
    }

    /// Makes the socket.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn bind(&self) -> Result<Listener, Failure> {
        Listener::bind(&self.path, self.mode, self.group).map_err(|why| {
            let help = match &why {
                ListenError::InUse { .. } => "name another socket with --path or --listen",
                ListenError::Foreign { .. } => "remove what is there, or name another path",
                ListenError::Io { .. } => "the directory has to be there and be ours to write in",
            };
            Failure::new(Exit::CannotCheck, &why.to_string()).note("no record was taken").help(help)
        })
    }

    /// Serves the socket until the other end of `stopped` is closed.
    fn serve(
        &self,
        listener: &Listener,
        trail: &Trail,
        stopped: &UnixStream,
    ) -> Result<Summary, SocketError> {
        let options = socket::Options { clients_max: self.clients_max };
        let (watermark, trail_id) = (trail.watermark(), trail.opened().trail_id);
        socket::serve(listener, trail, &watermark, trail_id, stopped.as_fd(), &clock::now, options)
    }

    fn say_ready(&self) {
        let path = escape::path(&self.path);
        let mode = self.mode;
        Diagnostic::new(Level::Note, "taking records of applications")
            .at(format!("{path}, mode {mode:04o}"))
            .emit();
    }
}

/// Serves the socket as the one source, until the other end of `stopped` is closed.
///
/// # Errors
/// [`Failure`] of serving.
pub fn record(
    listen: &Listen,
    listener: &Listener,
    trail: &Trail,
    stopped: &UnixStream,
    quiet: bool,
) -> Result<Summary, Failure> {
    if !quiet {
        listen.say_ready();
    }
    listen.serve(listener, trail, stopped).map_err(|why| failure(&why))
}

/// Runs `record` while applications are served, if a socket was asked for. When it returns, nothing
/// more is taken from them, and they have their answers for what is durable.
///
/// # Errors
/// What `record` says, or else what serving did.
pub fn while_served<T>(
    listen: Option<&Listen>,
    trail: &Trail,
    quiet: bool,
    record: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(listen) = listen else { return record() };
    let listener = listen.bind()?;
    let (stopped, stop) = pair()?;
    std::thread::scope(|scope| {
        let serve = || {
            let served = listen.serve(&listener, trail, &stopped);
            if let Err(why @ (SocketError::System(_) | SocketError::Thread(_))) = &served {
                // Recording goes on without it, which should not wait until the end to be known.
                Diagnostic::error(Escaped(why.to_string().as_bytes()).to_string())
                    .note("applications are not served any more; the kernel's records are")
                    .emit();
            }
            served
        };
        let server = std::thread::Builder::new()
            .name("graven-socket".to_owned())
            .spawn_scoped(scope, serve)
            .map_err(|why| Failure::thread(Exit::CannotCheck, &why).note("no record was taken"))?;
        if !quiet {
            listen.say_ready();
        }
        let recorded = record();
        drop(stop);
        let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let recorded = recorded?;
        let served = served.map_err(|why| failure(&why))?;
        if !quiet {
            say(&served);
        }
        Ok(recorded)
    })
}

/// What was served, in a line on standard error.
pub fn say(served: &Summary) {
    let Summary { clients, strangers, records, refused } = served;
    let mut note =
        Diagnostic::new(Level::Note, format!("{records} records of {clients} applications"));
    if *refused > 0 {
        note = note.note(format!("{refused} more were too long: a loss statement stands for each"));
    }
    if *strangers > 0 {
        note = note.note(format!("{strangers} connections were none of this protocol"));
    }
    note.emit();
}

/// The two ends of a stop: closing one ends who watches the other.
///
/// # Errors
/// [`Failure`] if there is no descriptor left.
pub fn pair() -> Result<(UnixStream, UnixStream), Failure> {
    UnixStream::pair()
        .map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot make a socket: {why}")))
}

fn failure(why: &SocketError) -> Failure {
    match why {
        SocketError::Thread(why) => Failure::thread(Exit::CannotCheck, why),
        why => Failure::new(Exit::CannotCheck, &why.to_string()),
    }
    .note("what was answered is durable")
}

/// Permissions as chmod takes them, in octal digits.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = if digits { u32::from_str_radix(text, 8).ok() } else { None };
    mode.filter(|mode| mode & !MODE_MAX == 0)
        .ok_or_else(|| "expected octal digits, 0000 to 0666 and none for executing".to_owned())
}

/// A group by its name or number.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_group(text: &str) -> Result<u32, String> {
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => text.parse().map_err(|_| "no such group".to_owned()),
    }
}

/// How many clients at once.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_clients(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=CLIENTS_MAX).contains(count))
        .ok_or_else(|| format!("expected 1 to {CLIENTS_MAX}"))
}

/// A path that a socket can have.
///
/// # Errors
/// [`Failure`] that says how long it may be.
pub fn address(path: &Path) -> Result<rustix::net::SocketAddrUnix, Failure> {
    rustix::net::SocketAddrUnix::new(path).map_err(|errno| {
        let why = io::Error::from(errno);
        let path = path.display();
        Failure::new(Exit::CannotCheck, &format!("{path}: cannot be the name of a socket: {why}"))
            .help("a socket's path has at most 107 bytes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_groups_and_counts_are_read() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0666", 0o666), ("0", 0)] {
            assert_eq!(parse_mode(text), Ok(mode));
        }
        for text in ["0770", "668", "-1", "+600", "0o660", "rw", "1660"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
        assert_eq!(parse_group("root"), Ok(0));
        assert_eq!(parse_group("4711"), Ok(4711));
        assert!(parse_group("no such group").is_err());
        assert_eq!(parse_clients("999"), Ok(999));
        for text in ["0", "1000", "x"] {
            assert!(parse_clients(text).is_err(), "{text}");
        }
    }
}
