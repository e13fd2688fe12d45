//! Asking a running writer, for `graven status` and `graven watch`.

use super::Snapshot;
use super::protocol::{Body, REPLY_BYTES_MAX, Reply, Request, VERSION, What};
use graven_format::name;
use rustix::fs::{Mode, OFlags};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the writer may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Longest path of a socket: `sun_path` with its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket cannot be reached, or was closed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The writer does not want to answer.
    #[error("it says: {0}")]
    Refused(String),
    /// The answer is not one.
    #[error("its answer is not understood: {0}")]
    Answer(String),
}

/// Calls `with` with a path of the trail's socket that is not too long for one.
///
/// # Errors
/// What `with` says, or that the directory cannot be opened.
pub fn with_short_path<T>(dir: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(name::CONTROL);
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return with(&path);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(dir, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{}", open.as_raw_fd(), name::CONTROL);
    with(&PathBuf::from(short))
}

/// A request that was made, and its answers.
#[derive(Debug)]
pub struct Asked {
    answers: BufReader<UnixStream>,
}

impl Asked {
    /// Asks the writer of the trail in `dir`. It may be silent for `silence` more than usual.
    ///
    /// # Errors
    /// [`AskError::Io`]
    pub fn ask(dir: &Path, request: Request, silence: Duration) -> Result<Self, AskError> {
        let mut stream = with_short_path(dir, |path| UnixStream::connect(path))?;
        stream.set_read_timeout(Some(ANSWER_TIME + silence))?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
        line.push(b'\n');
        // A writer that refuses has answered before it was asked, and gone: its answer is what matters.
        match stream.write_all(&line) {
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => return Err(why.into()),
            _ => {}
        }
        Ok(Self { answers: BufReader::new(stream) })
    }

    /// The next answer.
    ///
    /// # Errors
    /// [`AskError`]
    pub fn answer(&mut self) -> Result<Body, AskError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.answers).take(REPLY_BYTES_MAX);
        limited.read_until(b'\n', &mut line).map_err(|why| match why.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
            }
            _ => why,
        })?;
        if line.is_empty() {
            let closed =
                io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the connection");
            return Err(closed.into());
        }
        let reply: Reply =
            serde_json::from_slice(&line).map_err(|why| AskError::Answer(why.to_string()))?;
        match reply {
            Reply { v, .. } if v != VERSION => {
                Err(AskError::Answer(format!("it speaks version {v}")))
            }
            Reply { body: Body::Error(why), .. } => {
                Err(AskError::Refused(crate::escape::Escaped(why.as_bytes()).to_string()))
            }
            Reply { body, .. } => Ok(body),
        }
    }

    /// The next answer, which is to be a snapshot.
    ///
    /// # Errors
    /// [`AskError`]
    pub fn next_snapshot(&mut self) -> Result<Box<Snapshot>, AskError> {
        match self.answer()? {
            Body::Status(mut snapshot) => {
                clean(&mut snapshot);
                Ok(snapshot)
            }
            _ => Err(AskError::Answer("it answers something else".to_owned())),
        }
    }
}

/// The status of the writer of the trail in `dir`.
///
/// # Errors
/// [`AskError`]
pub fn status(dir: &Path) -> Result<Box<Snapshot>, AskError> {
    Asked::ask(dir, Request::new(What::Status), Duration::ZERO)?.next_snapshot()
}

/// Its metrics, as text of OpenMetrics.
///
/// # Errors
/// [`AskError`]
pub fn metrics(dir: &Path) -> Result<String, AskError> {
    match Asked::ask(dir, Request::new(What::Metrics), Duration::ZERO)?.answer()? {
        Body::Metrics(text) => {
            let lines = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
                Some(line) => harmless(line) + "\n",
                None => harmless(line),
            });
            Ok(lines.collect())
        }
        _ => Err(AskError::Answer("it answers something else".to_owned())),
    }
}

/// Makes every text harmless: whoever owns the trail's directory may be anybody, and who looks may be root.
fn clean(snapshot: &mut Snapshot) {
    let Snapshot { version, trail_id, trail, source, conditions, last_condition, lost, .. } =
        snapshot;
    let past = last_condition.iter_mut().map(|past| &mut past.condition);
    let conditions = conditions.iter_mut().chain(past);
    let conditions = conditions.flat_map(|it| [&mut it.name, &mut it.text]);
    let causes = lost.causes.iter_mut().flat_map(|it| [&mut it.cause, &mut it.unit]);
    for text in [version, trail_id, trail, source].into_iter().chain(conditions).chain(causes) {
        *text = harmless(text);
    }
}

/// The text as it is, if a terminal shows all of it as it stands, or else escaped.
fn harmless(text: &str) -> String {
    // A writer has escaped what came from elsewhere, with backslashes.
    let plain = text.replace('\\', "/");
    let escaped = |text: &str| crate::escape::Escaped(text.as_bytes()).to_string();
    if escaped(&plain) == plain { text.to_owned() } else { escaped(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::{Condition, Grade, LostFor, Past};

    #[test]
    fn nothing_that_is_told_moves_the_cursor() {
        assert_eq!(harmless("/a\\x0ab é"), "/a\\x0ab é");
        let evil = || "\x1b]0;x\x07".to_owned();
        let condition = || Condition { name: evil(), grade: Grade::Ok, text: evil() };
        let mut snapshot = Snapshot {
            version: evil(),
            trail_id: evil(),
            trail: evil(),
            source: evil(),
            conditions: vec![condition()],
            last_condition: Some(Past { condition: condition(), ended_realtime_ns: 0 }),
            ..Snapshot::default()
        };
        snapshot.lost.causes.push(LostFor { cause: evil(), unit: evil(), ..LostFor::default() });
        let before = serde_json::to_string(&snapshot).expect("JSON");
        assert_eq!(before.matches("\\u001b").count(), 10);
        clean(&mut snapshot);
        let after = serde_json::to_string(&snapshot).expect("JSON");
        assert!(!after.contains("\\u00"), "{after}");
    }
}
