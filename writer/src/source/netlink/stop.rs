//! How a receiving thread is asked to end, and woken for other reasons.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Asks a receiving thread to drain and return. It may be asked from a signal handler.
#[derive(Debug)]
pub struct Stop {
    requested: AtomicBool,
    wake: OwnedFd,
}

impl Stop {
    /// A stop that nobody has asked for.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { requested: AtomicBool::new(false), wake })
    }

    /// Asks to stop; more than once is the same as once.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Ends the receiver's present wait. A counter that is full wakes it as well.
    pub(super) fn wake(&self) {
        // Any number does.
        let _ = rustix::io::write(&self.wake, &[1; 8]);
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Waits until one of `sources` can be read, for a stop or a report, or until the time, which is
    /// below a second, is over.
    pub(crate) fn wait_or(&self, sources: &[BorrowedFd<'_>], limit: Duration) -> Result<(), Errno> {
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        fds.extend(sources.iter().map(|source| PollFd::new(source, PollFlags::IN)));
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if !fds[0].revents().is_empty() {
            self.clear();
        }
        Ok(())
    }
}
