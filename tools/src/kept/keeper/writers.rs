//! The keeper's side of the writer: started, signalled, mourned; and the kernel given back when there is none any more.

use super::super::inherited::arguments;
use super::super::policy::{self, Next};
use super::super::{guard, myself, no_process};
use super::Keeper;
use crate::diag::Diagnostic;
use crate::recording::{Failure, kernel};
use graven_writer::clock;
use graven_writer::keeper::{Role, spawn};
use graven_writer::own::{self, Own};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::process::Child;
use std::sync::mpsc::{TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// What is to be told and has no room yet; more than this is not remembered.
const NOTES_MAX: usize = 1000;
/// How long a writer may take to end when the keeper cannot go on.
const WRITER_END_TIME: Duration = Duration::from_secs(30);

/// The writer, as the keeper sees it.
pub(super) struct Writer {
    pub(super) pidfd: OwnedFd,
    /// If this process has started it.
    pub(super) child: Option<Child>,
}

impl Keeper {
    /// Starts, stops and mourns the writer; the exit code if recording has ended.
    pub(super) fn look_at_the_writer(&mut self) -> Result<Option<u8>, Failure> {
        self.look_at_the_start()?;
        // Signals wait for whoever they are passed on to.
        let signals = if self.starting.is_none() { self.signals.take() } else { Vec::new() };
        for origin in signals {
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
        if std::mem::take(&mut self.ended) {
            if let Some(code) = self.writer_ended() {
                return Ok(Some(code));
            }
            // Before there is another: this keeper may be killed then, and nobody else has seen it.
            self.tell()?;
        }
        if self.start_at.is_some_and(|at| Instant::now() >= at) {
            self.start_at = None;
            self.start()?;
        }
        Ok(None)
    }

    fn writer_ended(&mut self) -> Option<u8> {
        // One of ours may have ended before it took the place.
        let mut pid = self.session.pid(Role::Writer).unwrap_or(0);
        if let Some(Writer { child: Some(mut child), .. }) = self.writer.take() {
            pid = child.id();
            // It has ended: this waits for nothing.
            let _ = child.wait();
        }
        let code = self.session.exit(Role::Writer);
        match policy::after(code, self.session.is_opened(), self.session.is_stopping()) {
            Next::End(code) => Some(code),
            Next::Again => {
                let wait = self.again.died(Instant::now());
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

    /// Begins to start the writer. Executing a program may wait for the disk, so a thread does, for as long as it takes.
    fn start(&mut self) -> Result<(), Failure> {
        let opened = self.session.is_opened();
        let fds = self.shared.fds(&self.own_pidfd);
        let fds = fds.into_iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<Vec<_>>>();
        let starting = fds.and_then(|fds| {
            let (sender, receiver) = sync_channel(1);
            let start = move || drop(sender.send(started(&fds, opened)));
            thread::Builder::new().name("graven-start".to_owned()).spawn(start)?;
            Ok(receiver)
        });
        self.again.started_again(Instant::now());
        match starting {
            Ok(starting) => self.starting = Some(starting),
            Err(why) => self.not_started(&why)?,
        }
        Ok(())
    }

    fn look_at_the_start(&mut self) -> Result<(), Failure> {
        let Some(starting) = &self.starting else { return Ok(()) };
        let started = match starting.try_recv() {
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("its thread has ended")),
            Ok(started) => started,
        };
        self.starting = None;
        match started {
            Ok(writer) => self.writer = Some(writer),
            Err(why) => self.not_started(&why)?,
        }
        Ok(())
    }

    fn not_started(&mut self, why: &io::Error) -> Result<(), Failure> {
        if !self.session.is_opened() {
            return Err(no_process("writer", why));
        }
        let wait = self.again.died(Instant::now()).max(Duration::from_millis(100));
        Diagnostic::warning(format!("cannot start the writer: {why}: it is tried again")).emit();
        self.start_at = Some(Instant::now() + wait);
        Ok(())
    }

    /// Gives the kernel back as it was found. The writer has ended.
    pub(super) fn give_back(self) -> Result<(), Failure> {
        let Self { daemon, shared, session, writer, starting, mut pressure, guard, .. } = self;
        let writer = writer.or_else(|| starting?.recv().ok()?.ok());
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

/// The writer, started with these descriptors.
fn started(fds: &[OwnedFd], opened: bool) -> io::Result<Writer> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut command = myself();
    command.args(arguments(Role::Writer, &fds, opened));
    let child = spawn::spawn(&mut command, &fds)?;
    Ok(Writer { pidfd: spawn::pidfd_of(&child)?, child: Some(child) })
}

/// Waits until the process has ended; false if it has not by then.
fn wait_for_end(pidfd: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit)).is_ok_and(|count| count > 0)
}
