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
use std::time::{Duration, Instant};

/// Two signals of one end come within this time.
const APART: Duration = Duration::from_millis(100);

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
        let mut last: Option<Instant> = None;
        let watch = move || {
            for mut origin in arrived.forever() {
                if let Some(session) = &passed_on {
                    name_sender(&mut origin, session);
                }
                if let Some(request) = request_of(origin.signal, reloads) {
                    desk.hand_in(request, Who::signalled(&origin));
                    continue;
                }
                // Who ends all processes of a service signals this one as well as the keeper, which passes that on.
                let again = last.replace(Instant::now()).is_some_and(|it| it.elapsed() < APART);
                if again && passed_on.is_some() {
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

/// Puts whoever sent a signal to the keeper in the place of the keeper.
fn name_sender(origin: &mut Origin, session: &Session) {
    if let (Some(process), Some(keeper), Some((pid, uid))) =
        (&mut origin.process, session.pid(Role::Keeper), session.signaller())
        && process.pid.cast_unsigned() == keeper
    {
        process.pid = pid.cast_signed();
        process.uid = uid;
    }
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
