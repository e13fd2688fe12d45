//! The keeper: it takes datagrams from the kernel's socket into the shared memory, and does nothing that could make
//! it wait. It starts the writer, passes signals on to it, and gives the kernel back at the end.

use super::again::Again;
use super::freeze::Cgroup;
use super::inherited::{Shared, arguments};
use super::policy::{self, Next};
use super::pressure::{Pressure, RingFull};
use super::{call_it, guard, memory_failure, myself, no_process};
use crate::config::{Config, NetlinkSection};
use crate::daemon::rules::Wanted;
use crate::daemon::{notify, process};
use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::recording::signals::Signals;
use crate::recording::{Failure, kernel};
use graven_writer::clock;
use graven_writer::keeper::{
    Empty, Memory, MemoryError, Packer, Producer, Role, Session, Taken, Vault, spawn,
};
use graven_writer::own::{self, Own};
use graven_writer::source::kaudit::{Daemon, Mapped};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for the socket, in which the writer learns that it is empty still.
const POLL_TIME: Duration = Duration::from_millis(100);
/// How long a socket that was busy until it was empty is left alone: else each record wakes the keeper.
const PAUSE_TIME: Duration = Duration::from_millis(1);
/// How soon to look for room again while there is none.
const ROOM_TIME: Duration = Duration::from_millis(5);
/// Datagrams between two empty looks that make a busy socket.
const PAUSE_DATAGRAMS_MIN: usize = 64;
/// Calls to the socket between two looks at everything else.
const BATCH_CALLS: usize = 32;
/// How often the socket is asked how many sends found it full.
const FAILED_SENDS_TIME: Duration = Duration::from_millis(500);
/// What is to be told and has no room yet; more than this is not remembered.
const NOTES_MAX: usize = 1000;
/// How often it is looked how full the memory is.
const PRESSURE_TIME: Duration = Duration::from_millis(10);
/// How long a writer may take to end when the keeper cannot go on.
const WRITER_END_TIME: Duration = Duration::from_secs(30);
/// How soon the one that compresses looks again when there is nothing to compress.
const PACK_TIME: Duration = Duration::from_millis(10);

/// What the keeper has to know.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// What was read of it, if it was: SIGHUP has it read again, and it is a daemon then.
    pub text: Option<&'a str>,
    /// Memory that the writer has beside.
    pub memory_bytes: u64,
}

impl Options<'_> {
    fn cgroups(&self) -> Result<Vec<Cgroup>, Failure> {
        let NetlinkSection { ring_full, freeze_cgroups, .. } = &self.config.netlink;
        if freeze_cgroups.is_empty() != (ring_full.0 != RingFull::Freeze) {
            let title = "to freeze takes cgroups to freeze, and they are for nothing else";
            return Err(Failure::new(Exit::CannotCheck, title)
                .help("give both `--ring-full freeze` and `--freeze-cgroup`, or neither"));
        }
        let open = |path: &PathBuf| {
            Cgroup::open(path).map_err(|why| {
                Failure::new(Exit::CannotCheck, &format!("{}: {why}", path.display()))
                    .help("name a directory below /sys/fs/cgroup, not the root of it")
            })
        };
        freeze_cgroups.iter().map(open).collect()
    }

    fn settle(&self) {
        if self.text.is_some() {
            process::settle(self.config, self.memory_bytes + self.config.netlink.keeper_ring.0);
        }
    }
}

/// Runs the keeper that the user started: it becomes the audit daemon.
///
/// # Errors
/// [`Failure`]; the kernel is then as it was.
pub fn begin(options: &Options<'_>) -> Result<Exit, Failure> {
    let cgroups = options.cgroups()?;
    let wanted = Wanted::read(&options.config.netlink)?;
    let signals = caught(Signals::catch(options.text.is_some()))?;
    let ring_bytes = options.config.netlink.keeper_ring.0;
    let memory = Arc::new(Memory::create(ring_bytes).map_err(|why| memory_failure(&why))?);
    let session = Session::of(&memory);
    let failed = |why: Errno| no_process("keeper", &why.into());
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
    let (end, alive) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let vault = Vault::create(&session).map_err(|why| memory_failure(&why))?;
    if let Some(text) = options.text {
        vault.set_config(text);
    }
    let socket = kernel::open(&wanted.options)?;
    options.settle();
    let daemon = kernel::become_daemon(socket, &wanted.options)?;
    let mapped = daemon.shared_mapped().cloned();
    let data = daemon.data().try_clone_to_owned().map_err(|why| no_process("keeper", &why))?;
    let fds = mapped.as_ref().map(|mapped| -> io::Result<_> {
        let [ring, state] = mapped.fds().map(|fd| fd.try_clone_to_owned());
        Ok([ring?, state?])
    });
    let fds = fds.transpose().map_err(|why| no_process("keeper", &why))?;
    session.set_mapped_bytes(mapped.as_ref().map_or(0, |mapped| mapped.bytes()));
    let shared = Shared { data, memory, wake, end, alive, vault, mapped: fds };
    session.set_handed(&daemon.handed());
    session.take(Role::Keeper);
    let pressure = Pressure::new(options.config.netlink.ring_full.0, cgroups, false);
    Keeper::new(daemon, shared, mapped, session, signals, None, pressure)?.run()
}

/// Runs the keeper that a writer has started in place of one that died.
///
/// # Errors
/// [`Failure`].
pub fn go_on(options: &Options<'_>, (shared, pidfd): (Shared, OwnedFd)) -> Result<Exit, Failure> {
    call_it(Role::Keeper);
    let signals = caught(Signals::catch_those_that_waited(options.text.is_some()))?;
    options.settle();
    let session = Session::of(&shared.memory);
    let died = session.pid(Role::Keeper).unwrap_or(0);
    let data = shared.data.try_clone().map_err(|why| no_process("keeper", &why))?;
    let daemon = Daemon::inherit(data, &session.handed())
        .map_err(|why| kernel::failure(&why.to_string()))?;
    let fds = shared.mapped.as_ref().map(|fds| -> io::Result<_> {
        let [ring, state] = fds.each_ref().map(OwnedFd::try_clone);
        Ok(Mapped::inherit([ring?, state?], session.mapped_bytes())?)
    });
    let mapped = fds.transpose().map_err(|why| no_process("keeper", &why))?.map(Arc::new);
    // One that is gone cannot be frozen, and need not be thawed.
    let NetlinkSection { ring_full, freeze_cgroups, .. } = &options.config.netlink;
    let cgroups = freeze_cgroups.iter().filter_map(|path| Cgroup::open(path).ok()).collect();
    let pressure = Pressure::new(ring_full.0, cgroups, session.is_high());
    let writer = Some(Writer { pidfd, child: None });
    let mut keeper = Keeper::new(daemon, shared, mapped, session, signals, writer, pressure)?;
    // First of all: whoever is killed before has not taken the place, and the next one says it.
    let by = std::process::id();
    let own = Own::new(own::ABORT, "keeper-died", clock::now()).field("pid", died).field("by", by);
    keeper.notes.push_back(own.result(true));
    keeper.tell()?;
    keeper.session.take(Role::Keeper);
    notify::main_process();
    keeper.run()
}

fn caught(signals: io::Result<Signals>) -> Result<Signals, Failure> {
    signals.map_err(|why| Failure::new(Exit::CannotCheck, &format!("cannot catch signals: {why}")))
}

/// The writer, as the keeper sees it.
struct Writer {
    pidfd: OwnedFd,
    /// If this process has started it.
    child: Option<Child>,
}

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
                    let busy = std::mem::take(since_empty) >= PAUSE_DATAGRAMS_MIN;
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
        let mut fds = Vec::with_capacity(3);
        fds.extend(self.writer.iter().map(|it| PollFd::new(&it.pidfd, PollFlags::IN)));
        fds.push(PollFd::from_borrowed_fd(self.daemon.data(), events));
        fds.extend(mapped.map(|it| PollFd::from_borrowed_fd(it.fd(), events)));
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

    /// Starts, stops and mourns the writer; the exit code if recording has ended.
    fn look_at_the_writer(&mut self) -> Result<Option<u8>, Failure> {
        for origin in self.signals.take() {
            let ends = self.signals.ends(origin.signal);
            if ends {
                self.session.set_stopping();
            }
            if let Some(sender) = origin.process {
                let sender = (sender.pid.cast_unsigned(), sender.uid);
                self.session.set_signaller(sender);
            }
            let signal =
                if ends { Some(Signal::TERM) } else { Signal::from_named_raw(origin.signal) };
            match (&self.writer, signal) {
                // It is asked again each time: the second signal may mean something to it.
                (Some(writer), Some(signal)) => drop(pidfd_send_signal(&writer.pidfd, signal)),
                (None, _) if ends => self.start_at = Some(Instant::now()),
                _ => {}
            }
        }
        if std::mem::take(&mut self.ended)
            && let Some(code) = self.writer_ended()
        {
            return Ok(Some(code));
        }
        if self.start_at.is_some_and(|at| Instant::now() >= at) {
            self.start_at = None;
            self.start()?;
        }
        Ok(None)
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

    fn writer_ended(&mut self) -> Option<u8> {
        if let Some(Writer { child: Some(mut child), .. }) = self.writer.take() {
            // It has ended: this waits for nothing.
            let _ = child.wait();
        }
        let code = self.session.exit(Role::Writer);
        match policy::after(code, self.session.is_opened(), self.session.is_stopping()) {
            Next::End(code) => Some(code),
            Next::Again => {
                let wait = self.again.died(Instant::now());
                let pid = self.session.pid(Role::Writer).unwrap_or(0);
                let how = match code {
                    None => "was killed".to_owned(),
                    Some(code) => format!("ended with exit code {code}"),
                };
                Diagnostic::warning(format!("the writer (pid {pid}) {how}: it is started again"))
                    .note("nothing is lost: the keeper holds what is not durable yet")
                    .note(format!(
                        "start {} in a row, after {} ms",
                        self.again.deaths(),
                        wait.as_millis()
                    ))
                    .emit();
                self.start_at = Some(Instant::now() + wait);
                let own = Own::new(own::ABORT, "writer-died", clock::now()).field("pid", pid);
                let own = match code {
                    None => own,
                    Some(code) => own.field("code", code),
                };
                if self.notes.len() < NOTES_MAX {
                    self.notes.push_back(own.result(true));
                }
                None
            }
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let fds = self.shared.fds(&self.own_pidfd);
        let mut command = myself();
        command.args(arguments(Role::Writer, &fds, self.session.is_opened()));
        let started = spawn::spawn(&mut command, &fds)
            .and_then(|child| Ok((spawn::pidfd_of(&child)?, child)));
        self.again.started_again(Instant::now());
        match started {
            Ok((pidfd, child)) => self.writer = Some(Writer { pidfd, child: Some(child) }),
            Err(why) if !self.session.is_opened() => return Err(no_process("writer", &why)),
            Err(why) => {
                let wait = self.again.died(Instant::now()).max(Duration::from_millis(100));
                Diagnostic::warning(format!("cannot start the writer: {why}: it is tried again"))
                    .emit();
                self.start_at = Some(Instant::now() + wait);
            }
        }
        Ok(())
    }

    /// Gives the kernel back as it was found. The writer has ended.
    fn give_back(self) -> Result<(), Failure> {
        let Self { daemon, shared, session, writer, mut pressure, guard, .. } = self;
        if let Some(Writer { pidfd, child }) = writer {
            // The keeper cannot go on: the writer sees it, and ends when it has written what it can.
            if !wait_for_end(&pidfd, WRITER_END_TIME) {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let _ = wait_for_end(&pidfd, WRITER_END_TIME);
            }
            child.map(|mut child| child.wait());
        }
        if pressure.is_high() {
            // The writer has ended: this is said, and not recorded.
            drop(pressure.end(0, clock::now()));
        }
        // Nothing is frozen: the guard is not needed, and must not thaw what others freeze.
        guard::dismiss(guard, session.guard());
        for role in [Role::Writer, Role::Keeper] {
            if let Some(pid) = session.exempt(role).0 {
                let _ = daemon.unexempt(pid);
                session.set_exempt(role, None, 0);
            }
        }
        // A writer that drained has taken them back; what one has left that did not is taken back here.
        let rules = shared.vault.rules().ok().flatten();
        if let Some(Err(why)) = rules.map(|change| daemon.take_up(change)) {
            Diagnostic::warning(format!("the rules stay as they are: {why}")).emit();
        }
        daemon.take_up_limits(session.handed().ours);
        // Its other descriptor of the socket is the daemon's.
        drop(shared);
        let registered = session.handed().registered == std::process::id();
        let given_back = if registered { daemon.detach() } else { daemon.give_back_for() };
        given_back.map_err(|why| kernel::not_given_back(&why))
    }
}

/// Waits until the process has ended; false if it has not by then.
fn wait_for_end(pidfd: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit)).is_ok_and(|count| count > 0)
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
