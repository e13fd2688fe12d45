//! Signals that end recording, and an input that they end.

use crate::recording::room::Ending;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        let (arrived, sender) = UnixStream::pair()?;
        for signal in
            [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { arrived })
    }

    /// How many have come since it was last asked, without waiting.
    pub fn take(&self) -> usize {
        let _ = self.arrived.set_nonblocking(true);
        (&self.arrived).read(&mut [0; 16]).unwrap_or(0)
    }

    /// Starts the thread that stops the source at the first signal, and tells `ending` of each that comes `apart` from
    /// the one before. It is not joined: no signal may ever come.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(
        self,
        ending: Arc<Ending>,
        apart: Duration,
        stop: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let Self { mut arrived } = self;
        let mut stop = Some(stop);
        let watch = move || {
            let mut last: Option<Instant> = None;
            while arrived.read_exact(&mut [0]).is_ok() {
                if last.replace(Instant::now()).is_some_and(|last| last.elapsed() < apart) {
                    continue;
                }
                if let Some(stop) = stop.take() {
                    stop();
                }
                ending.signal();
            }
        };
        std::thread::Builder::new().name("graven-signals".to_owned()).spawn(watch).map(drop)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
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
