//! Who is at the other end of a connection, by the kernel's word.

use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd as _};

/// `AUDIT_UID_UNSET`: no login.
const UNSET: u32 = u32::MAX;

/// The process that connected, as it was when it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its process id; 0 if it is of another pid namespace.
    pub(super) pid: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Who logged in, as the process's entry in `/proc` says; unset if it is gone already.
    pub(super) auid: u32,
    /// The audit session.
    pub(super) session: u32,
}

impl Peer {
    pub(super) fn of(socket: &impl AsFd) -> Result<Self, Errno> {
        let mut peer = libc::ucred { pid: 0, uid: UNSET, gid: UNSET };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `peer`, which is so long, and any bytes
        // are a `ucred`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(crate::source::netlink_options::last_error());
        }
        let pid = u32::try_from(peer.pid).unwrap_or(0);
        let of = |file: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
            text.trim().parse().ok()
        };
        let (auid, session) = match pid {
            0 => (UNSET, UNSET),
            _ => (of("loginuid").unwrap_or(UNSET), of("sessionid").unwrap_or(UNSET)),
        };
        Ok(Self { pid, uid: peer.uid, gid: peer.gid, auid, session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn we_are_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let peer = Peer::of(&ours).expect("the kernel knows");
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getgid().as_raw());
        let no_socket = std::fs::File::open("/dev/null").expect("there");
        assert_eq!(Peer::of(&no_socket), Err(Errno::NOTSOCK));
    }
}
