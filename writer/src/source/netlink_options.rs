//! The two socket options of netlink that have no safe wrapper.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Keeps an overrun from closing the socket until it has been emptied.
///
/// By default a netlink socket that overran takes nothing more before every byte in it was read,
/// however much room there is again, and tells so with ENOBUFS. The kernel's audit queue gives a
/// record six tries of 100 ms; with a large socket the emptying alone can take that long. With this
/// option a send succeeds as soon as there is room. Nothing is hidden by it: the serials show what
/// is missing, and [`failed_sends`] counts the overruns.
pub(crate) fn stay_open_after_overrun(socket: &impl AsFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is a c_int that lives through the call, and its size is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_NO_ENOBUFS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(last_error()) }
}

/// How many sends to this socket have failed for want of room since it was opened; it wraps.
pub(crate) fn failed_sends(socket: &impl AsFd) -> Result<u32, Errno> {
    /// `SO_MEMINFO` and the place of the drop counter in its answer, from `linux/sock_diag.h`.
    const SO_MEMINFO: libc::c_int = 55;
    const DROPS: usize = 8;
    let mut words = [0_u32; DROPS + 1];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is the size of `words`.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if outcome != 0 {
        return Err(last_error());
    }
    // An old kernel answers with fewer words.
    if len as usize == size_of_val(&words) { Ok(words[DROPS]) } else { Err(Errno::OPNOTSUPP) }
}

/// What the last system call of this thread failed with.
pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
