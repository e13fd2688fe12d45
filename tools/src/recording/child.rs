//! The command of `graven run`: started in an audit session of its own, held before its exec until
//! the rules for that session are in force.
//!
//! ```text
//! graven                         child
//! ──────                         ─────
//! fork ────────────────────────▶ sets its session
//!        ◀──────── its number ──
//! adds the rules
//!        ── go ────────────────▶ exec
//! ```

use graven_writer::source::session::{SessionError, fresh_session};
use graven_writer::source::shim::follow_me;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// Bytes of the child's message: a tag, a file, a number.
const MESSAGE_BYTES: usize = 6;

/// Why the command did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command itself cannot be executed.
    #[error("{0}")]
    Exec(io::Error),
    /// The child has no session of its own.
    #[error("cannot make an audit session: {0}")]
    Session(SessionError),
    /// The caller was told the session and did not let the child go.
    #[error("not let go")]
    Held,
    /// No thread could be started to start it.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// Something before all that.
    #[error("cannot start a process: {0}")]
    Fork(io::Error),
}

/// Starts `command`. `prepared` is told the number of its session before it executes anything, and
/// says whether it may. Through `follow`, a device of the shim, the shim follows it from before its exec.
///
/// # Errors
/// [`StartError`]; no process is left.
pub fn start(
    command: &[OsString],
    follow: Option<OwnedFd>,
    prepared: impl FnOnce(u32) -> bool,
) -> Result<Child, StartError> {
    let fork = |why: io::Error| StartError::Fork(why);
    let (program, args) =
        command.split_first().ok_or_else(|| fork(io::Error::from(io::ErrorKind::NotFound)))?;
    let (told, tell) = pipe()?;
    let (go, let_go) = pipe()?;
    let mut command = Command::new(program);
    command.args(args);
    let hold = Hold { tell, go, told_there: raw(&told), let_go_there: raw(&let_go), follow };
    // SAFETY: the closure runs in the child between fork and exec. It calls only functions that
    // allocate nothing and take no lock (see `Hold::run`), and what it captures was made before
    // the fork.
    unsafe { command.pre_exec(move || hold.run()) };
    std::thread::scope(|scope| {
        // `spawn` returns when the exec has succeeded or failed, so somebody else has to answer
        // the child meanwhile.
        let spawned = std::thread::Builder::new()
            .name("graven-exec".to_owned())
            .spawn_scoped(scope, move || command.spawn())
            .map_err(StartError::Thread)?;
        let mut message = [0; MESSAGE_BYTES];
        let mut session = None;
        // The writing end stands in `hold` too, which the other thread drops with its command, so
        // that a child that dies without a word is the end of this pipe.
        if read_all(&told, &mut message) {
            session = Some(decode(&message));
        }
        let mut held = false;
        if let Some(Ok(number)) = session {
            held = !prepared(number);
            if !held {
                // A child that is gone does not listen; `spawn` says so.
                let _ = rustix::io::write(&let_go, &[1]);
            }
        }
        drop(let_go);
        let spawned = spawned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (spawned, session) {
            (Ok(child), _) => Ok(child),
            (Err(_), Some(Err(why))) => Err(StartError::Session(why)),
            (Err(_), Some(Ok(_))) if held => Err(StartError::Held),
            (Err(why), Some(Ok(_))) => Err(StartError::Exec(why)),
            (Err(why), None) => Err(StartError::Fork(why)),
        }
    })
}

/// The child's part.
struct Hold {
    tell: OwnedFd,
    go: OwnedFd,
    /// The parent's ends, of which the child has copies that it must close: it would wait for
    /// itself if the parent died.
    told_there: i32,
    let_go_there: i32,
    follow: Option<OwnedFd>,
}

impl Hold {
    /// Runs between fork and exec: nothing here may allocate or take a lock.
    fn run(&self) -> io::Result<()> {
        for fd in [self.told_there, self.let_go_there] {
            // SAFETY: these are the child's own copies; nothing in the child uses them, and it
            // never drops what owns them in the parent.
            unsafe { rustix::io::close(fd) };
        }
        let session = fresh_session();
        let message = encode(&session);
        rustix::io::retry_on_intr(|| rustix::io::write(&self.tell, &message))?;
        if session.is_err() || !read_all(&self.go, &mut [0]) {
            return Err(Errno::CANCELED.into());
        }
        if let Some(shim) = &self.follow {
            follow_me(shim.as_fd())?;
        }
        Ok(())
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| StartError::Fork(errno.into()))
}

fn raw(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd as _;
    fd.as_raw_fd()
}

/// Fills `buf`; false if the pipe ends before.
fn read_all(from: &impl AsFd, buf: &mut [u8]) -> bool {
    let mut len = 0;
    while len < buf.len() {
        match rustix::io::read(from, &mut buf[len..]) {
            Ok(0) => return false,
            Ok(more) => len += more,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// The files that a [`SessionError::Io`] can be about.
const FILES: [&str; 2] = ["loginuid", "sessionid"];

fn encode(session: &Result<u32, SessionError>) -> [u8; MESSAGE_BYTES] {
    let (tag, file, number) = match session {
        Ok(number) => (0, 0, *number),
        Err(SessionError::Immutable) => (1, 0, 0),
        Err(SessionError::NotPermitted) => (2, 0, 0),
        Err(SessionError::Unsupported) => (3, 0, 0),
        Err(SessionError::Io { file, errno }) => {
            (4, u8::from(*file == FILES[1]), errno.raw_os_error() as u32)
        }
    };
    let [a, b, c, d] = number.to_le_bytes();
    [tag, file, a, b, c, d]
}

fn decode(message: &[u8; MESSAGE_BYTES]) -> Result<u32, SessionError> {
    let [tag, file, a, b, c, d] = *message;
    let number = u32::from_le_bytes([a, b, c, d]);
    match tag {
        0 => Ok(number),
        1 => Err(SessionError::Immutable),
        2 => Err(SessionError::NotPermitted),
        3 => Err(SessionError::Unsupported),
        _ => Err(SessionError::Io {
            file: FILES[usize::from(file == 1)],
            errno: Errno::from_raw_os_error(number as i32),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_child_is_understood() {
        for session in [
            Ok(7),
            Ok(u32::MAX - 1),
            Err(SessionError::Immutable),
            Err(SessionError::NotPermitted),
            Err(SessionError::Unsupported),
            Err(SessionError::Io { file: "loginuid", errno: Errno::ACCESS }),
            Err(SessionError::Io { file: "sessionid", errno: Errno::BADMSG }),
        ] {
            assert_eq!(decode(&encode(&session)), session);
        }
    }
}
