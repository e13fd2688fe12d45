//! Ending the engine's sleep from another thread, without ever losing a wake-up and without a
//! system call while the engine is awake.

use super::Wake;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

/// The engine runs, nobody has called since it last looked.
const AWAKE: u32 = 0;
/// Somebody has called: the sleep under way, or the next one, ends at once.
const CALLED: u32 = 1;
/// The engine sleeps, or is about to, and only the eventfd ends that.
const ASLEEP: u32 = 2;

/// The bell between producers and the engine: one word of state and an eventfd.
///
/// # Why no wake-up is lost
///
/// A producer first makes its work visible (a store W into a ring, say), then calls
/// [`Bell::wake`]. The engine calls [`Bell::lie_down`], sleeps if that says so, calls
/// [`Bell::rise`], and only then looks for work. Two things could go wrong.
///
/// 1. *The engine falls asleep over a call.* `wake` and `lie_down` both change the word with one
///    atomic read-modify-write, so one is first. If `wake` is first, `lie_down` finds `CALLED`
///    and does not sleep. If `lie_down` is first, `wake` finds `ASLEEP` and rings the eventfd,
///    which stays readable until it is looked at, so it does not matter whether the engine is
///    already in the kernel.
/// 2. *A producer keeps silent because somebody else has called, and the engine has already
///    answered that call without seeing W.* The producer's order is W, fence, load of the word;
///    the engine's is change of the word, fence, look for W. Both fences are sequentially
///    consistent, so one precedes the other. If the producer's is first, the engine's look sees
///    W. If the engine's is first, the load sees the engine's change or something later: not
///    the old `CALLED`, and a new one is a call that the engine has yet to answer.
///
/// The eventfd may be rung late, after a sleep ended for another reason. The next sleep then
/// ends early, which [`super::Disk::wait`] allows.
#[derive(Debug)]
pub(super) struct Bell {
    word: AtomicU32,
    fd: OwnedFd,
}

impl Bell {
    /// Makes a bell.
    ///
    /// # Errors
    /// What eventfd says: EMFILE, ENFILE, ENOMEM.
    pub(super) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { word: AtomicU32::new(AWAKE), fd })
    }

    /// The engine is about to sleep. `false` means that somebody has called: do not sleep. In
    /// both cases [`Bell::rise`] must follow before the engine looks for work.
    pub(super) fn lie_down(&self) -> bool {
        self.word.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The engine is awake again and will now look for work.
    pub(super) fn rise(&self) {
        self.word.store(AWAKE, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Sleeps in poll(2) until the eventfd is rung or `timeout` is over; for a driver that has no
    /// ring to sleep in.
    pub(super) fn sleep(&self, timeout: Option<Duration>) {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if self.lie_down() {
            loop {
                let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                let left = left.and_then(|left| left.try_into().ok());
                match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], left.as_ref()) {
                    Err(Errno::INTR) => {}
                    // Any other failure of poll would make this a busy loop at worst; the
                    // engine's next look is correct without it.
                    _ => break,
                }
            }
        }
        // Reset the counter before the word: a ring that comes later is a call that comes later.
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        self.rise();
    }
}

impl Wake for Bell {
    #[expect(clippy::host_endian_bytes, reason = "the kernel reads one of its own integers")]
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::Relaxed) == CALLED {
            return;
        }
        if self.word.swap(CALLED, Ordering::SeqCst) == ASLEEP {
            // The only error is EAGAIN on a counter of 2^64 - 2, and then it is readable anyway.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
