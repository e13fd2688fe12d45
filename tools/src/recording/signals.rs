//! Signals that end recording, and an input that they end.

use crate::recording::room::Ending;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// SIGINT, SIGTERM and SIGHUP, caught from now until the process ends.
#[derive(Debug)]
pub struct Signals {
    /// A byte for each that has come.
    arrived: UnixStream,
}

impl Signals {
    /// Catches them.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch() -> io::Result<Self> {
        Self::caught(&[SIGINT, SIGTERM, SIGHUP])
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
        Self::caught(&[SIGINT, SIGTERM])
    }

    fn caught(signals: &[i32]) -> io::Result<Self> {
        let (arrived, sender) = UnixStream::pair()?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, sender.try_clone()?)?;
        }
        Ok(Self { arrived })
    }

    /// Starts the thread that stops the source at the first signal, and tells `ending` of each. It is
    /// not joined: no signal may ever come.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(
        self,
        ending: Arc<Ending>,
        stop: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let Self { mut arrived } = self;
        let mut stop = Some(stop);
        let watch = move || {
            while arrived.read_exact(&mut [0]).is_ok() {
                if let Some(stop) = stop.take() {
                    stop();
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
