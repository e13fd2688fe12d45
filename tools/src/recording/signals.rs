//! Signals while recording, and an input that they end.

use crate::daemon::control::{Desk, Request};
use crate::daemon::who::Who;
use crate::recording::room::Ending;
use graven_writer::keeper::{Role, Session, spawn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Origin;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How often recording was asked to end: who ends all processes of a service signals this one as well as the keeper, which passes
/// that on, whenever it comes to it. Each time is one, on whichever way it comes first.
#[derive(Debug, Default)]
struct Asked {
    directly: u32,
    by_keeper: u32,
}

impl Asked {
    /// Whether this signal is one that did not come on the other way before.
    fn is_new(&mut self, by_keeper: bool) -> bool {
        let (way, other) = if by_keeper {
            (&mut self.by_keeper, self.directly)
        } else {
            (&mut self.directly, self.by_keeper)
        };
        *way += 1;
        *way > other
    }
}

/// SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2, caught from now until the process ends.
#[derive(Debug)]
pub struct Signals {
    arrived: SignalsInfo<WithOrigin>,
    /// Whether SIGHUP has the configuration read again, and does not end recording.
    reloads: bool,
    /// The keeper, which passes on what others send.
    passed_on: Option<Session>,
}

impl Signals {
    /// Catches them. SIGHUP ends recording unless it `reloads`.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch(reloads: bool) -> io::Result<Self> {
        let arrived = SignalsInfo::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2])?;
        Ok(Self { arrived, reloads, passed_on: None })
    }

    /// The same in a process that keeper or writer has started: those that have waited come now.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch_those_that_waited(reloads: bool) -> io::Result<Self> {
        let this = Self::catch(reloads)?;
        spawn::let_signals_in()?;
        Ok(this)
    }

    /// The same in a process to which the keeper passes signals on: they are of whoever sent them to it.
    #[must_use]
    pub fn passed_on_by(mut self, session: Session) -> Self {
        self.passed_on = Some(session);
        self
    }

    /// Those that have come since it was last asked, without waiting.
    pub fn take(&mut self) -> Vec<Origin> {
        self.arrived.pending().collect()
    }

    /// Whether this signal ends recording.
    #[must_use]
    pub fn ends(&self, signal: i32) -> bool {
        request_of(signal, self.reloads).is_none()
    }

    /// Catches what ends a plugin of auditd, and ignores what auditd and people send to all its plugins:
    /// SIGHUP to read their configurations again and SIGUSR1 to say how they are.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch_as_plugin() -> io::Result<Self> {
        let ignored = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGUSR1] {
            signal_hook::flag::register(signal, Arc::clone(&ignored))?;
        }
        let arrived = SignalsInfo::new([SIGINT, SIGTERM])?;
        Ok(Self { arrived, reloads: false, passed_on: None })
    }

    /// Starts the thread that stops the source at the first signal that ends recording, tells `ending` of each, and
    /// hands all else in at the `desk`. It is not joined: no signal may ever come.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(
        self,
        ending: Arc<Ending>,
        desk: Desk,
        stop: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let Self { mut arrived, reloads, passed_on } = self;
        let mut stop = Some(stop);
        let mut asked = Asked::default();
        let watch = move || {
            for mut origin in arrived.forever() {
                let by_keeper =
                    passed_on.as_ref().is_some_and(|keeper| is_passed_on(&mut origin, keeper));
                if let Some(request) = request_of(origin.signal, reloads) {
                    desk.hand_in(request, Who::signalled(&origin));
                    continue;
                }
                if !asked.is_new(by_keeper) {
                    continue;
                }
                if let Some(stop) = stop.take() {
                    desk.set_ended_by(Who::sent(&origin));
                    stop();
                    // The kernel may take its time to say more.
                    desk.set_ended_by(Who::signalled(&origin));
                }
                ending.signal();
            }
        };
        std::thread::Builder::new().name("graven-signals".to_owned()).spawn(watch).map(drop)
    }
}

/// What this signal asks for; `None` if it ends recording.
fn request_of(signal: i32, reloads: bool) -> Option<Request> {
    match signal {
        SIGUSR1 => Some(Request::Seal),
        SIGUSR2 => Some(Request::Resume),
        SIGHUP if reloads => Some(Request::Reload),
        _ => None,
    }
}

/// Whether the keeper sent this signal; then whoever sent it to the keeper takes its place.
fn is_passed_on(origin: &mut Origin, session: &Session) -> bool {
    let keeper = session.pid(Role::Keeper);
    let Some(process) = origin.process.as_mut().filter(|it| Some(it.pid.cast_unsigned()) == keeper)
    else {
        return false;
    };
    if let Some((pid, uid)) = session.signaller() {
        process.pid = pid.cast_signed();
        process.uid = uid;
    }
    true
}

/// An input that ends when it is told to: what was read until then is all there was.
#[derive(Debug)]
pub struct UntilStopped<R> {
    input: R,
    stopped: UnixStream,
    ended: bool,
}

impl<R> UntilStopped<R> {
    /// Reads `input` until the other end of `stopped` is closed.
    #[must_use]
    pub fn new(input: R, stopped: UnixStream) -> Self {
        Self { input, stopped, ended: false }
    }
}

impl<R: Read + AsFd> Read for UntilStopped<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let mut fds = [
                PollFd::new(&self.stopped, PollFlags::IN),
                PollFd::new(&self.input, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            if !fds[0].revents().is_empty() {
                self.ended = true;
            } else if !fds[1].revents().is_empty() {
                match self.input.read(buf) {
                    // Somebody made it non-blocking and took what was there.
                    Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_to_all_processes_is_one_however_late_the_keeper_passes_it_on() {
        let news = |ways: &[bool]| {
            let mut asked = Asked::default();
            ways.iter().filter(|by_keeper| asked.is_new(**by_keeper)).count()
        };
        assert_eq!(news(&[false, true]), 1);
        assert_eq!(news(&[true, false]), 1);
        assert_eq!(news(&[false, false, true, true]), 2);
        assert_eq!(news(&[false, true, true, false]), 2);
        assert_eq!(news(&[true, true]), 2);
        assert_eq!(news(&[false, false]), 2);
    }
}
