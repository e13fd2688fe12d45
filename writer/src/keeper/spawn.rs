//! Starting the other process, which inherits descriptors under the numbers that they have here.

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// What one of the two is told by signals, and must not be killed by before it catches them.
const SIGNALS: [libc::c_int; 5] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Starts `command` in a process group of its own, so that a terminal's Ctrl-C reaches one of the two
/// only, with these descriptors. Signals wait until it says that it catches them: [`let_signals_in`].
///
/// # Errors
/// What the system says.
pub fn spawn(command: &mut Command, inherit: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let numbers: Vec<RawFd> = inherit.iter().map(|fd| fd.as_raw_fd()).collect();
    let keep = move || {
        numbers.iter().try_for_each(|&number| {
            // SAFETY: the parent borrows it until the child has executed its program.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl_setfd(fd, FdFlags::empty())
        })?;
        mask_signals(libc::SIG_BLOCK)
    };
    // SAFETY: between fork and exec it makes one system call for each descriptor and one for signals, and
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(keep) };
    command.process_group(0).spawn()
}

/// Takes the signals that have waited since this process was started by [`spawn`], now that they are caught.
///
/// # Errors
/// What the system says.
pub fn let_signals_in() -> io::Result<()> {
    mask_signals(libc::SIG_UNBLOCK)
}

fn mask_signals(how: libc::c_int) -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: it makes the set that it is given an empty one.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it is one now.
    let mut set = unsafe { set.assume_init() };
    for signal in SIGNALS {
        // SAFETY: it is a set, and the number a signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: it is a set, and the old mask is not asked for.
    let answer = unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(answer)) }
}

/// Takes a descriptor that this process inherited, once, before anything else is opened, and closes it on exec from now on.
///
/// # Errors
/// `BADF` if there is no such descriptor.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number <= 2 {
        return Err(Errno::BADF);
    }
    // SAFETY: it is only asked about; if it is none, that is the answer.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: it is open, and the caller names each once: nobody else in this process knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// A descriptor of this process, for another to watch it by.
///
/// # Errors
/// What the system says; kernels before 5.3 have none.
pub fn own_pidfd() -> Result<OwnedFd, Errno> {
    pidfd_open(getpid(), PidfdFlags::empty())
}

/// A descriptor of a child that has not been waited for.
///
/// # Errors
/// What the system says.
pub fn pidfd_of(child: &Child) -> Result<OwnedFd, Errno> {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty())
}
