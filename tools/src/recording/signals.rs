//! Signals while recording, and an input that they end.

use crate::daemon::control::{Desk, Request};
use crate::daemon::who::Who;
use crate::recording::room::Ending;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2, caught from now until the process ends.
#[derive(Debug)]
pub struct Signals {
    arrived: SignalsInfo<WithOrigin>,
    /// Whether SIGHUP has the configuration read again, and does not end recording.
    reloads: bool,
}

impl Signals {
    /// Catches them. SIGHUP ends recording unless it `reloads`.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch(reloads: bool) -> io::Result<Self> {
        let arrived = SignalsInfo::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2])?;
        Ok(Self { arrived, reloads })
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
        let Self { mut arrived, reloads } = self;
        let mut stop = Some(stop);
        let watch = move || {
            for origin in arrived.forever() {
                let request = match origin.signal {
                    SIGUSR1 => Some(Request::Seal),
                    SIGUSR2 => Some(Request::Resume),
                    SIGHUP if reloads => Some(Request::Reload),
                    _ => None,
                };
                if let Some(request) = request {
                    desk.hand_in(request, Who::signalled(&origin));
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
