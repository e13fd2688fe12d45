//! The thread that serves every client.

use super::answers::Answers;
use super::listener::Listener;
use super::peer::Peer;
use super::session::{Common, Reason, Session};
use crate::clock::Now;
use crate::engine::durability::Watermark;
use crate::source::{AppendError, Sink};
use graven_format::TrailId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Most clients at once: their numbers have three digits, so that none is an audit type.
pub const CLIENTS_MAX: u16 = 999;

/// Clients at once unless told otherwise; each may take 128 KiB of memory for a record that is on
/// its way, and 80 KiB for what is unanswered.
pub const CLIENTS_DEFAULT: u16 = 256;

/// How long a client may take to say hello.
const SILENT_NS_MAX: u64 = 10_000_000_000;

/// How long clients may take, when recording ends, for the answers that are ready for them.
const GOODBYE_NS_MAX: u64 = 2_000_000_000;

/// How long nobody is accepted after the system had no descriptor left.
const EXHAUSTED_NS: u64 = 1_000_000_000;

/// Longest sleep while a time limit runs.
const SLEEP_NS_MAX: u64 = 200_000_000;

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Clients at once, at most [`CLIENTS_MAX`]; others wait to be accepted.
    pub clients_max: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { clients_max: CLIENTS_DEFAULT }
    }
}

/// What was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Clients that said hello.
    pub clients: u64,
    /// Connections that did not, or not in this protocol.
    pub strangers: u64,
    /// Records that were taken.
    pub records: u64,
    /// Records that were too long; each is a loss statement.
    pub refused: u64,
}

/// Why serving ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The trail did not take a record.
    #[error("the trail does not take records from the socket any more: {0}")]
    Append(#[from] AppendError),
    /// The system said no.
    #[error("the socket cannot be served: {0}")]
    System(Errno),
    /// The second thread could not be started: nobody was served.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Serves clients until `stopped` can be read or its other end is closed. Then nothing more is read, and
/// it returns when all that was taken is durable, or never will be, and answered.
///
/// # Errors
/// [`SocketError`]. Clients see their connections end, and have answers for what is durable.
pub fn serve(
    listener: &Listener,
    sink: &dyn Sink,
    watermark: &Arc<Watermark>,
    trail_id: TrailId,
    stopped: BorrowedFd<'_>,
    now: &dyn Fn() -> Now,
    options: Options,
) -> Result<Summary, SocketError> {
    let answers = Arc::new(Answers::new(watermark).map_err(SocketError::System)?);
    answers.start().map_err(SocketError::Thread)?;
    let mut server = Server {
        listener,
        common: Common { sink, awaits: &|line, seq| answers.awaits(line, seq), now, trail_id },
        answers: &answers,
        clients_max: options.clients_max.clamp(1, CLIENTS_MAX).into(),
        sessions: Vec::new(),
        last_number: 0,
        accept_from_ns: 0,
        stopping_since_ns: None,
        summary: Summary::default(),
    };
    let served = server.run(stopped);
    // However it ended, they may know what is durable.
    server.answer();
    answers.end();
    served.map(|()| server.summary)
}

struct Server<'a> {
    listener: &'a Listener,
    common: Common<'a, UnixStream>,
    answers: &'a Answers,
    clients_max: usize,
    sessions: Vec<Session<UnixStream>>,
    last_number: u16,
    /// Nobody is accepted before.
    accept_from_ns: u64,
    stopping_since_ns: Option<u64>,
    summary: Summary,
}

/// What a descriptor that is waited for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Answers,
    Stopped,
    Listener,
    /// The session at this place.
    Session(usize),
}

/// What there is to do.
#[derive(Debug, Default)]
struct Todo {
    stop: bool,
    accept: bool,
    /// Places of sessions that have something to be read, or have ended.
    read: Vec<usize>,
}

impl Server<'_> {
    fn run(&mut self, stopped: BorrowedFd<'_>) -> Result<(), SocketError> {
        loop {
            let now_ns = (self.common.now)().boottime_ns;
            let todo = self.wait(stopped, now_ns)?;
            if todo.stop {
                self.stopping_since_ns = Some(now_ns);
                self.sessions.iter_mut().for_each(|session| session.end(Reason::Stop));
            }
            for at in todo.read {
                if let Some(session) = self.sessions.get_mut(at).filter(|it| it.wants_more()) {
                    session.read(self.common)?;
                }
            }
            if todo.accept {
                self.accept(now_ns)?;
            }
            self.answer();
            self.leave(now_ns)?;
            if self.sessions.is_empty() {
                if self.stopping_since_ns.is_some() {
                    return Ok(());
                }
                if self.answers.have_ended() {
                    return Err(AppendError::Closed.into());
                }
            }
        }
    }

    /// Waits for anything to do. What nobody waits for is not looked at: an end that was closed would
    /// end every sleep.
    fn wait(&self, stopped: BorrowedFd<'_>, now_ns: u64) -> Result<Todo, SocketError> {
        let open = self.stopping_since_ns.is_none();
        let mut roles = vec![Role::Answers];
        let mut fds = vec![PollFd::new(self.answers.event(), PollFlags::IN)];
        if open {
            roles.push(Role::Stopped);
            fds.push(PollFd::from_borrowed_fd(stopped, PollFlags::IN));
        }
        if open && self.sessions.len() < self.clients_max && now_ns >= self.accept_from_ns {
            roles.push(Role::Listener);
            fds.push(PollFd::new(self.listener, PollFlags::IN));
        }
        for (at, session) in self.sessions.iter().enumerate() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, session.wants_more());
            flags.set(PollFlags::OUT, session.line.state().has_answers);
            if !flags.is_empty() {
                roles.push(Role::Session(at));
                fds.push(PollFd::new(&session.line.stream, flags));
            }
        }
        let limit = self.sleep_ns_max(now_ns).map(|ns| Timespec { tv_sec: 0, tv_nsec: ns as i64 });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Todo::default()),
            Err(errno) => return Err(SocketError::System(errno)),
        }
        let mut todo = Todo::default();
        for (role, fd) in roles.into_iter().zip(&fds) {
            match role {
                _ if fd.revents().is_empty() => {}
                Role::Answers => self.answers.clear(),
                Role::Stopped => todo.stop = true,
                Role::Listener => todo.accept = true,
                Role::Session(at) => todo.read.push(at),
            }
        }
        Ok(todo)
    }

    /// How long it may sleep: without limit unless a time runs.
    fn sleep_ns_max(&self, now_ns: u64) -> Option<u64> {
        let timed = self.stopping_since_ns.is_some()
            || now_ns < self.accept_from_ns
            || self.sessions.iter().any(|session| session.silent_since_ns().is_some());
        timed.then_some(SLEEP_NS_MAX)
    }

    fn accept(&mut self, now_ns: u64) -> Result<(), SocketError> {
        while self.sessions.len() < self.clients_max {
            let stream = match self.listener.accept() {
                Ok(Some(stream)) => stream,
                Ok(None) => return Ok(()),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    self.accept_from_ns = now_ns + EXHAUSTED_NS;
                    return Ok(());
                }
                Err(errno) => return Err(SocketError::System(errno)),
            };
            // Who is gone already has said nothing.
            let Ok(peer) = Peer::of(&stream) else { continue };
            let number = self.free_number();
            let session = Session::new(stream.into(), number, peer, now_ns);
            self.answers.add(&session.line);
            self.sessions.push(session);
        }
        Ok(())
    }

    /// Answers what is durable, as far as clients take it.
    fn answer(&self) {
        let durable = self.answers.durable();
        for session in &self.sessions {
            session.line.answer(durable);
        }
    }

    /// The next number after the last one that nobody has. There are more numbers than clients, or as
    /// many and one has just gone.
    fn free_number(&mut self) -> u16 {
        loop {
            self.last_number = self.last_number % CLIENTS_MAX + 1;
            if self.sessions.iter().all(|session| session.number != self.last_number) {
                return self.last_number;
            }
        }
    }

    /// Lets go of those with whom nothing more can happen.
    fn leave(&mut self, now_ns: u64) -> Result<(), SocketError> {
        let no_more_answers = self.answers.have_ended();
        let goodbye = |since_ns: u64| now_ns.saturating_sub(since_ns) >= GOODBYE_NS_MAX;
        let all_said = self.stopping_since_ns.is_some_and(goodbye);
        let mut at = 0;
        while let Some(session) = self.sessions.get_mut(at) {
            if session
                .silent_since_ns()
                .is_some_and(|since| now_ns.saturating_sub(since) >= SILENT_NS_MAX)
            {
                session.end(Reason::Silent);
            }
            let state = session.line.state();
            let waits = state.awaits.is_some() && !no_more_answers;
            if !(session.is_over() || all_said && !waits || no_more_answers && !state.has_answers) {
                at += 1;
                continue;
            }
            let session = self.sessions.swap_remove(at);
            self.answers.remove(&session.line);
            let (greeted, records, refused) = session.counts();
            self.summary.clients += u64::from(greeted);
            self.summary.strangers += u64::from(!greeted);
            self.summary.records += records;
            self.summary.refused += refused;
            match session.close(self.common) {
                // It cannot be said in a trail that has ended; the caller says that it has.
                Err(_) if no_more_answers => {}
                closed => closed?,
            }
        }
        Ok(())
    }
}
