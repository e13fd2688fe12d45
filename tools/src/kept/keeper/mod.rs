//! The keeper: it takes datagrams from the kernel's socket into the shared memory, and does nothing that could make
//! it wait. It starts the writer, passes signals on to it, and gives the kernel back at the end.

mod begin;
mod writers;

pub use begin::{Options, begin, go_on};

use super::again::Again;
use super::inherited::Shared;
use super::pressure::Pressure;
use super::{guard, memory_failure, no_process};
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::recording::signals::Signals;
use crate::recording::{Failure, kernel};
use graven_writer::clock;
use graven_writer::keeper::{Empty, MemoryError, Packer, Producer, Role, Session, Taken, spawn};
use graven_writer::own::Own;
use graven_writer::source::kaudit::{Daemon, Mapped};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use writers::Writer;

/// Longest wait for the socket, in which the writer learns that it is empty still.
const POLL_TIME: Duration = Duration::from_millis(100);
/// How long the socket is left alone after something came, until it was empty: else each record wakes the keeper, and with it the
/// writer and the disk, on processors that the audited processes want.
const PAUSE_TIME: Duration = Duration::from_millis(2);
/// How soon to look for room again while there is none.
const ROOM_TIME: Duration = Duration::from_millis(5);
/// Calls to the socket between two looks at everything else.
const BATCH_CALLS: usize = 32;
/// How often the socket is asked how many sends found it full.
const FAILED_SENDS_TIME: Duration = Duration::from_millis(500);
/// How often it is looked how full the memory is.
const PRESSURE_TIME: Duration = Duration::from_millis(10);
/// How soon the one that compresses looks again when there is nothing to compress.
const PACK_TIME: Duration = Duration::from_millis(10);

struct Keeper {
    daemon: Daemon,
    shared: Shared,
    /// Where the kernel leaves records beside the socket.
    mapped: Option<Arc<Mapped>>,
    session: Session,
    producer: Producer,
    own_pidfd: OwnedFd,
    signals: Signals,
    writer: Option<Writer>,
    /// What becomes of a writer that is being started.
    starting: Option<Receiver<io::Result<Writer>>>,
    again: Again,
    /// When the writer is to be started.
    start_at: Option<Instant>,
    failed_sends_at: Instant,
    packing: Arc<AtomicBool>,
    pressure: Pressure,
    pressure_at: Instant,
    /// What is to be told, and had no room.
    notes: VecDeque<Own>,
    /// The guard, if this process has started it.
    guard: Option<Child>,
    /// Whether the last wait has seen the end of the writer.
    ended: bool,
}

/// What the socket had.
#[derive(Clone, Copy)]
enum Looked {
    More,
    Empty { busy: bool },
    NoRoom,
}

impl Keeper {
    fn new(
        daemon: Daemon,
        shared: Shared,
        mapped: Option<Arc<Mapped>>,
        session: Session,
        signals: Signals,
        writer: Option<Writer>,
        pressure: Pressure,
    ) -> Result<Self, Failure> {
        let own_pidfd = spawn::own_pidfd().map_err(|why| no_process("writer", &why.into()))?;
        let (producer, _) = Producer::go_on(&shared.memory, mapped.clone(), clock::now())
            .map_err(|why| memory_failure(&why))?;
        let start_at = writer.is_none().then(Instant::now);
        let packing = Arc::new(AtomicBool::new(true));
        let (packer, goes_on) = (producer.packer(), Arc::clone(&packing));
        let thread = std::thread::Builder::new().name("graven-packer".to_owned());
        if let Err(why) = thread.spawn(move || pack(packer, &goes_on)) {
            // What waits is as long as it is.
            Diagnostic::warning(format!("what waits is not compressed: no thread: {why}")).emit();
        }
        let mut this = Self {
            daemon,
            shared,
            mapped,
            session,
            producer,
            pressure,
            pressure_at: Instant::now(),
            notes: VecDeque::new(),
            guard: None,
            own_pidfd,
            signals,
            writer,
            starting: None,
            again: Again::started(),
            start_at,
            failed_sends_at: Instant::now(),
            packing,
            ended: false,
        };
        this.guard()?;
        // Whoever slept when the last keeper died is not woken by it any more.
        this.wake();
        Ok(this)
    }

    fn run(mut self) -> Result<Exit, Failure> {
        let ended = self.keep();
        self.packing.store(false, Ordering::Relaxed);
        let code = match &ended {
            Ok(code) => *code,
            Err(failure) => failure.exit.code(),
        };
        // Before the writer sees that this process is gone: it was no accident.
        self.session.set_exit(Role::Keeper, code);
        let given_back = self.give_back();
        let code = ended?;
        given_back?;
        Ok(Exit::of(code))
    }

    /// Receives until the writer has ended for good, and says with which code.
    fn keep(&mut self) -> Result<u8, Failure> {
        let mut datagrams = 0;
        loop {
            let looked = self.receive(&mut datagrams).map_err(|why| match why {
                Trouble::Memory(why) => memory_failure(&why),
                Trouble::Socket(errno) => {
                    kernel::failure(&format!("receiving audit records failed: {errno}"))
                }
            })?;
            let (limit, events) = match looked {
                Looked::More => (Duration::ZERO, PollFlags::empty()),
                Looked::Empty { busy: true } => (PAUSE_TIME, PollFlags::empty()),
                Looked::Empty { busy: false } => (POLL_TIME, PollFlags::IN),
                Looked::NoRoom => (ROOM_TIME, PollFlags::empty()),
            };
            self.look_at_the_memory(looked)?;
            self.wait(limit, events).map_err(|why| no_process("keeper", &why.into()))?;
            if let Some(code) = self.look_at_the_writer()? {
                return Ok(code);
            }
        }
    }

    /// Takes what is there, at most a batch.
    fn receive(&mut self, since_empty: &mut usize) -> Result<Looked, Trouble> {
        let mut looked = Looked::More;
        for _ in 0..BATCH_CALLS {
            let before = clock::now();
            match self.producer.receive(&self.daemon.data(), clock::now)? {
                Ok(Taken::Some(count)) => *since_empty += count,
                Ok(Taken::Nothing) => {
                    let failed_sends = self.failed_sends();
                    self.producer.empty(Empty { at: before, failed_sends })?;
                    let busy = std::mem::take(since_empty) > 0;
                    looked = Looked::Empty { busy };
                    break;
                }
                Ok(Taken::NoRoom) if self.pressure.drops() => {
                    looked = Looked::NoRoom;
                    match self.producer.discard(&self.daemon.data()) {
                        Ok(count) => self.pressure.note_dropped(count),
                        Err(Errno::AGAIN | Errno::INTR) => break,
                        Err(Errno::NOBUFS) => {}
                        Err(errno) => return Err(Trouble::Socket(errno)),
                    }
                }
                Ok(Taken::NoRoom) => {
                    looked = Looked::NoRoom;
                    break;
                }
                // The socket overran, which the count of failed sends tells.
                Err(Errno::NOBUFS) => {}
                Err(errno) => return Err(Trouble::Socket(errno)),
            }
        }
        if self.shared.memory.wants_waking() {
            self.wake();
        }
        Ok(looked)
    }

    /// How many sends found the socket full, now and then.
    fn failed_sends(&mut self) -> Option<u32> {
        let now = Instant::now();
        if now < self.failed_sends_at {
            return None;
        }
        self.failed_sends_at = now + FAILED_SENDS_TIME;
        self.daemon.failed_sends()
    }

    fn wake(&self) {
        // Any number does.
        let _ = rustix::io::write(&self.shared.wake, &[1; 8]);
    }

    /// Waits for these events of the socket, and for what is looked at next.
    fn wait(&mut self, limit: Duration, events: PollFlags) -> Result<(), Errno> {
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mapped = self.mapped.as_ref().filter(|_| !events.is_empty());
        let data = PollFd::from_borrowed_fd(self.daemon.data(), events);
        // The socket again where there is nothing else.
        let writer = self.writer.as_ref().map(|it| PollFd::new(&it.pidfd, PollFlags::IN));
        let ring = mapped.map(|it| PollFd::from_borrowed_fd(it.fd(), events));
        let mut fds = [writer.unwrap_or(data.clone()), ring.unwrap_or(data.clone()), data];
        mapped.inspect(|mapped| mapped.lie_down());
        let polled = poll(&mut fds, Some(&limit));
        mapped.inspect(|mapped| mapped.rise());
        match polled {
            Ok(_) => {
                self.ended = self.writer.is_some() && !fds[0].revents().is_empty();
                Ok(())
            }
            // A signal ends the wait, and is looked at next.
            Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Acts on how full the memory is, and tells what was done.
    fn look_at_the_memory(&mut self, looked: Looked) -> Result<(), Failure> {
        let now = Instant::now();
        if now >= self.pressure_at {
            self.pressure_at = now + PRESSURE_TIME;
            let failed = |why: MemoryError| memory_failure(&why);
            let used = match looked {
                Looked::NoRoom => 1000,
                _ => self.producer.used_permille().map_err(failed)?,
            };
            let pids = [Role::Keeper, Role::Writer].map(|role| self.session.pid(role));
            let others = [self.session.guard(), Some(self.session.handed().registered)];
            let spared: Vec<u32> = pids.into_iter().chain(others).flatten().collect();
            if !self.pressure.is_high() && self.pressure.is_near(used) {
                // Before anything is done that has to be undone.
                self.session.set_high(true);
                self.guard()?;
            }
            self.notes.extend(self.pressure.look(used, &spared, clock::now()));
            self.session.set_high(self.pressure.is_high());
            self.tell()?;
        }
        Ok(())
    }

    /// Publishes what is to be told, as far as there is room.
    fn tell(&mut self) -> Result<(), Failure> {
        while let Some(own) = self.notes.front() {
            let record = own.record();
            let note: Vec<u8> =
                record.kind.to_le_bytes().iter().chain(record.bytes).copied().collect();
            let told = self.producer.note(clock::now(), &note);
            if !told.map_err(|why| memory_failure(&why))? {
                break;
            }
            self.notes.pop_front();
        }
        Ok(())
    }

    /// Sees to it that what is frozen is thawed if all of us are killed.
    fn guard(&mut self) -> Result<(), Failure> {
        if !self.pressure.freezes() {
            return Ok(());
        }
        if let Some(mut child) = self.guard.take()
            && matches!(child.try_wait(), Ok(None))
        {
            self.guard = Some(child);
            return Ok(());
        }
        if self.guard.is_none() && self.session.guard().is_some_and(guard::is_one) {
            return Ok(());
        }
        let child = guard::start(&self.shared.end, &self.pressure.paths())?;
        self.session.set_guard(child.id());
        self.guard = Some(child);
        Ok(())
    }
}

/// Why the keeper cannot go on.
enum Trouble {
    Memory(MemoryError),
    Socket(Errno),
}

impl From<MemoryError> for Trouble {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

fn pack(mut packer: Packer, goes_on: &AtomicBool) {
    while goes_on.load(Ordering::Relaxed) {
        match packer.step() {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(PACK_TIME),
            // The thread that receives finds the same, and says it.
            Err(_) => return,
        }
    }
}
