//! Beside auditd, as one of its plugins: on standard input, where auditd starts us ([`read`]), or at the
//! socket of its plugin af_unix ([`follow`]).
//!
//! # What a record is
//! The line that auditd writes to its log, `type=NAME msg=audit(…): …`, with `node=` in front and what an
//! enriched log has behind, byte for byte, of the source `import`. The type's number is the kind and
//! the event's serial the source sequence. auditd's binary records of version 0 come without what is
//! in front of the kernel's text: they get it as auditd writes it, and a line feed inside becomes a
//! space, as there. A record of type EOE is kept, and left out by `export` as auditd leaves it out of
//! its log.
//!
//! # Best effort
//! What stands between the kernel and us may lose records: auditd's queue for plugins drops what does not
//! fit. The first record of the source says so (`best-effort=yes`), and a window over the serials, as
//! for the kernel's own socket, states each event that is missing. It sees local records without
//! `node=`; where a filter stands in between, what it left out is stated like any other loss.
//!
//! # What is no record
//! Bytes that are no record of auditd's are kept as records of kind 0, and an own record says at which
//! offset of the stream they were. auditd 4.2 and 4.2.1 cut the last 16 bytes of
//! every record of the kernel; that shows at the records that end an event, because how those end is
//! known. The records are kept as they came, and a loss statement says how many lost their end.

mod decode;
mod feed;
mod line;

pub use decode::{Decoder, FIXED_BYTES, Format, HEADER_BYTES, Piece};
pub(crate) use feed::Feed;
pub use feed::{Summary, Trouble};
pub(crate) use line::compose;

use crate::clock::Now;
use crate::own::{self, Own};
use crate::source::{AppendError, Sink};
use graven_format::Source;
use graven_format::loss::{Cause, Certainty, LossStatement};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Bytes that one read takes at most.
const READ_BYTES: usize = 256 * 1024;

/// How long a stream that is to be left may be silent before it is: auditd closes ours when it has
/// given out everything, or a moment after its signal.
const DRAIN_MS: i64 = 250;

/// How often the serials are looked at while some are missing.
const LOOK_MS: i64 = 100;

/// How often a socket that is not there is looked for.
const RETRY_MS: i64 = 250;

/// Why reading ended before the stream did.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It could not be read; everything before was appended, and so was a statement that more may
    /// have followed.
    #[error("cannot read auditd's records at offset {offset}: {errno}")]
    Read {
        /// Bytes read before.
        offset: u64,
        /// What the system said.
        errno: Errno,
    },
    /// The socket cannot be used at all.
    #[error("cannot connect to auditd's socket: {0}")]
    Connect(Errno),
    /// The trail did not take a record.
    #[error("the trail does not take auditd's records any more: {0}")]
    Append(#[from] AppendError),
}

/// What both ways of reading need.
pub struct Plugin<'a> {
    /// Where records go.
    pub sink: &'a dyn Sink,
    /// Both clocks.
    pub now: &'a dyn Fn() -> Now,
    /// How records come.
    pub format: Format,
    /// When this can be read, or its other end is closed, the source is left.
    pub stopped: BorrowedFd<'a>,
    /// Is told what whoever runs this should know.
    pub trouble: &'a mut dyn FnMut(Trouble),
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Eof,
    Stopped,
}

/// Reads `input` until auditd closes it, or to what is there when a stop is asked for.
///
/// # Errors
/// [`PluginError`].
pub fn read(plugin: Plugin<'_>, input: BorrowedFd<'_>) -> Result<Summary, PluginError> {
    let Plugin { sink, now, format, stopped, trouble } = plugin;
    begin("plugin", sink, now())?;
    let mut feed = Feed::new(sink, trouble, now());
    let read = stream(input, stopped, format, now, &mut feed);
    feed.set_now(now());
    feed.finish()?;
    read.map(|_| feed.summary)
}

/// Reads the socket at `path` until a stop is asked for. When its other end closes, which happens when
/// auditd is started anew, it connects again as soon as there is one; what came in between is stated as
/// a loss of unknown size.
///
/// # Errors
/// [`PluginError`].
pub fn follow(
    plugin: Plugin<'_>,
    path: &SocketAddrUnix,
    waits: &mut dyn FnMut(Errno),
) -> Result<Summary, PluginError> {
    let Plugin { sink, now, format, stopped, trouble } = plugin;
    begin("af-unix", sink, now())?;
    let mut feed = Feed::new(sink, trouble, now());
    let mut gone_at: Option<Now> = None;
    let ended = loop {
        let socket = match connected(path, stopped, waits) {
            Ok(Some(socket)) => socket,
            Ok(None) => break Ok(End::Stopped),
            Err(errno) => break Err(PluginError::Connect(errno)),
        };
        if let Some(gone_at) = gone_at.take() {
            state_absence(sink, gone_at, now())?;
            feed.summary.reconnects += 1;
        }
        match stream(socket.as_fd(), stopped, format, now, &mut feed) {
            Ok(End::Eof) => gone_at = Some(now()),
            // It goes when auditd is killed.
            Err(PluginError::Read { errno: Errno::CONNRESET, .. }) => gone_at = Some(now()),
            ended => break ended,
        }
    };
    if let Some(gone_at) = gone_at {
        state_absence(sink, gone_at, now())?;
    }
    feed.set_now(now());
    feed.finish()?;
    feed.summary.statements += feed.summary.reconnects + u64::from(gone_at.is_some());
    ended.map(|_| feed.summary)
}

/// Reads one stream and gives it to the feed.
fn stream(
    input: BorrowedFd<'_>,
    stopped: BorrowedFd<'_>,
    format: Format,
    now: &dyn Fn() -> Now,
    feed: &mut Feed<'_>,
) -> Result<End, PluginError> {
    let mut decoder = Decoder::new(format);
    let mut buf = vec![0; READ_BYTES];
    let mut stopping = false;
    let mut offset = 0;
    let ended = loop {
        let wait_ms = match (stopping, feed.serials.is_settled()) {
            (true, _) => Some(DRAIN_MS),
            (false, true) => None,
            (false, false) => Some(LOOK_MS),
        };
        let (readable, stop) = wait(input, (!stopping).then_some(stopped), wait_ms)
            .map_err(|errno| PluginError::Read { offset, errno })?;
        feed.set_now(now());
        stopping |= stop;
        if !readable {
            feed.serials.tick(feed.sink)?;
            if stopping && !stop {
                break Ok(End::Stopped);
            }
            continue;
        }
        let len = match rustix::io::read(input, &mut buf[..]) {
            Ok(0) => break Ok(if stopping { End::Stopped } else { End::Eof }),
            Ok(len) => len,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => break Err(PluginError::Read { offset, errno }),
        };
        offset += len as u64;
        feed.summary.bytes += len as u64;
        decoder.push(&buf[..len], &mut |offset, piece| feed.piece(offset, piece))?;
    };
    decoder.finish(&mut |offset, piece| feed.piece(offset, piece))?;
    if ended.is_err() {
        feed.serials.state(Certainty::AtLeast, Cause::Undrained, 0, None, feed.sink)?;
    }
    ended
}

/// Waits for input, a stop, or until the time is over.
fn wait(
    input: BorrowedFd<'_>,
    stopped: Option<BorrowedFd<'_>>,
    limit_ms: Option<i64>,
) -> Result<(bool, bool), Errno> {
    let limit = limit_ms.map(|ms| Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 });
    let mut fds = vec![PollFd::from_borrowed_fd(input, PollFlags::IN)];
    fds.extend(stopped.map(|stopped| PollFd::from_borrowed_fd(stopped, PollFlags::IN)));
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok((false, false)),
        Err(errno) => return Err(errno),
    }
    let any = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
    Ok((any(0), any(1)))
}

/// A connection, as soon as there can be one; `None` if a stop is asked for before.
fn connected(
    path: &SocketAddrUnix,
    stopped: BorrowedFd<'_>,
    waits: &mut dyn FnMut(Errno),
) -> Result<Option<OwnedFd>, Errno> {
    let mut said = false;
    loop {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        match connect(&socket, path) {
            Ok(()) => return Ok(Some(socket)),
            // There is none now, or it has its one client, or nobody listens any more.
            Err(errno @ (Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN)) => {
                if !said {
                    waits(errno);
                    said = true;
                }
            }
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        let mut fds = [PollFd::from_borrowed_fd(stopped, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: RETRY_MS * 1_000_000 })) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

/// Says in the trail that what follows is best effort.
pub(crate) fn begin(source: &str, sink: &dyn Sink, now: Now) -> Result<(), AppendError> {
    Own::new(own::CONFIG, "source", now)
        .field("source", source)
        .field("best-effort", "yes")
        .result(true)
        .append(sink)
        .map(drop)
}

/// Nobody gave us anything in between.
fn state_absence(sink: &dyn Sink, from: Now, to: Now) -> Result<(), AppendError> {
    let statement = LossStatement {
        source: Source::Import,
        cause: Cause::NoDaemon,
        certainty: Certainty::AtLeast,
        count: 0,
        range: None,
        between_ns: Some((from.realtime_ns.min(to.realtime_ns), to.realtime_ns)),
    };
    let payload = statement.encode(to.realtime_ns);
    sink.append(&LossStatement::record(&payload, to.realtime_ns, to.boottime_ns)).map(drop)
}

/// What a stream that comes in pieces of at most `piece` bytes brings: for tests and the fuzzer, which
/// bring the sink.
///
/// # Errors
/// What the sink says.
#[doc(hidden)]
pub fn fed(
    sent: &[u8],
    piece: usize,
    format: Format,
    sink: &dyn Sink,
) -> Result<Summary, AppendError> {
    let mut ignored = |_| {};
    let mut feed = Feed::new(sink, &mut ignored, Now::default());
    let mut decoder = Decoder::new(format);
    for bytes in sent.chunks(piece.max(1)) {
        decoder.push(bytes, &mut |offset, piece| feed.piece(offset, piece))?;
    }
    decoder.finish(&mut |offset, piece| feed.piece(offset, piece))?;
    feed.finish()?;
    Ok(feed.summary)
}

#[cfg(test)]
mod tests;
