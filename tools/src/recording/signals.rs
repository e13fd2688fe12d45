//! Signals that end recording, as something that a thread can wait for beside its input.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;

/// SIGINT, SIGTERM and SIGHUP, caught from now until the process ends.
#[derive(Debug)]
pub struct Signals {
    /// Readable once one has come.
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

    /// Waits until one has come.
    pub fn wait(&self) {
        let mut fds = [PollFd::new(&self.arrived, PollFlags::IN)];
        while let Err(Errno::INTR) = poll(&mut fds, None) {}
    }
}

/// An input that ends when a signal comes: what was read until then is all there was.
#[derive(Debug)]
pub struct UntilSignal<'a, R> {
    input: R,
    signals: &'a Signals,
    ended: bool,
}

impl<'a, R> UntilSignal<'a, R> {
    /// Reads `input` until one of `signals` comes.
    #[must_use]
    pub fn new(input: R, signals: &'a Signals) -> Self {
        Self { input, signals, ended: false }
    }
}

impl<R: Read + AsFd> Read for UntilSignal<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let mut fds = [
                PollFd::new(&self.signals.arrived, PollFlags::IN),
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
