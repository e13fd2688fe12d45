//! The two ways to talk to the kernel's audit system: a raw socket, and requests over one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::netlink::{AUDIT, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, connect, send, socket_with, sockopt,
};

use super::datagrams::Datagrams;
use super::netlink_options;
use super::nlmsg::{self, Message, Status, StatusChange};

/// How long a reply may take. The kernel answers from a thread that it starts for the purpose.
const REPLY_TIME: Duration = Duration::from_secs(5);

/// Longest reply to a request: one rule of the largest kind is far below.
const REPLY_BYTES_MAX: usize = 16 * 1024;

/// A request to the kernel's audit system that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel audit: {operation}: {errno}")]
pub struct ControlError {
    /// What was tried.
    pub operation: &'static str,
    /// How the kernel refused; `TIMEDOUT` if it did not answer.
    pub errno: Errno,
}

impl ControlError {
    pub(crate) fn new(operation: &'static str, errno: Errno) -> Self {
        Self { operation, errno }
    }
}

/// A netlink socket of the audit family, connected to the kernel and closed on exec.
///
/// To a connected socket nobody but the kernel can send: no process forges a record.
#[derive(Debug)]
pub(crate) struct AuditSocket {
    fd: OwnedFd,
}

/// What one look at the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Datagrams of the kernel.
    Some,
    /// Nothing is there.
    Empty,
    /// Whether something is there is not known now. A socket always knows.
    Later,
    /// The socket overran since the last look.
    Overrun,
}

impl AuditSocket {
    pub(crate) fn open() -> Result<Self, Errno> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(AUDIT),
        )?;
        // It is bound first, to a port that the kernel chooses: a process may hold several such
        // sockets. What comes between the two has no right to be there.
        connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        let socket = Self { fd };
        let mut discarded = Datagrams::new(0);
        while socket.receive(&mut discarded)? != Received::Empty {}
        Ok(socket)
    }

    /// Asks for this much receive memory, past the system's limit where that is permitted, and
    /// says how much there is now.
    pub(crate) fn enlarge(&self, bytes: usize) -> Result<usize, Errno> {
        if sockopt::set_socket_recv_buffer_size_force(&self.fd, bytes).is_err() {
            sockopt::set_socket_recv_buffer_size(&self.fd, bytes)?;
        }
        // The kernel doubles what was asked for, to cover its own bookkeeping.
        Ok(sockopt::socket_recv_buffer_size(&self.fd)? / 2)
    }

    /// See [`netlink_options::stay_open_after_overrun`].
    pub(crate) fn stay_open_after_overrun(&self) -> Result<(), Errno> {
        netlink_options::stay_open_after_overrun(&self.fd)
    }

    /// How many sends to this socket failed for want of room; `None` where the kernel does not
    /// count.
    pub(crate) fn failed_sends(&self) -> Option<u32> {
        netlink_options::failed_sends(&self.fd).ok()
    }

    pub(crate) fn send(&self, message: &[u8]) -> Result<(), Errno> {
        loop {
            match send(&self.fd, message, SendFlags::empty()) {
                Err(Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    }

    /// Takes what is there without waiting.
    pub(crate) fn receive(&self, datagrams: &mut Datagrams) -> Result<Received, Errno> {
        receive(&self.fd, datagrams, usize::MAX)
    }

    fn wait(&self, limit: Duration) -> Result<(), Errno> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let limit = limit.try_into().map_err(|_| Errno::INVAL)?;
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// Takes what is in a socket without waiting, at most `limit` datagrams.
pub(crate) fn receive(
    socket: &impl AsFd,
    datagrams: &mut Datagrams,
    limit: usize,
) -> Result<Received, Errno> {
    loop {
        match datagrams.receive(socket, limit) {
            Ok(()) => return Ok(Received::Some),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::Empty),
            Err(Errno::NOBUFS) => return Ok(Received::Overrun),
            Err(errno) => return Err(errno),
        }
    }
}

impl From<OwnedFd> for AuditSocket {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for AuditSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Requests and their answers, one at a time.
///
/// A request may block for as long as a producer may: the kernel makes the sender of any audit
/// message wait while its queue is over the limit. The thread that empties the queue must not
/// send any.
#[derive(Debug)]
pub(crate) struct Control {
    socket: AuditSocket,
    sequence: u32,
}

impl Control {
    pub(crate) fn open() -> Result<Self, ControlError> {
        let socket = AuditSocket::open().map_err(|errno| ControlError::new("open", errno))?;
        Ok(Self { socket, sequence: 0 })
    }

    pub(crate) fn status(&mut self) -> Result<Status, ControlError> {
        const OPERATION: &str = "get status";
        let reply = self.call(OPERATION, nlmsg::GET, &[], true)?;
        Status::parse(&reply).ok_or(ControlError::new(OPERATION, Errno::BADMSG))
    }

    pub(crate) fn set(
        &mut self,
        operation: &'static str,
        change: &StatusChange,
    ) -> Result<(), ControlError> {
        self.call(operation, nlmsg::SET, &change.encode(), false).map(drop)
    }

    pub(crate) fn call(
        &mut self,
        operation: &'static str,
        kind: u16,
        payload: &[u8],
        wants_reply: bool,
    ) -> Result<Vec<u8>, ControlError> {
        self.exchange(kind, payload, wants_reply)
            .map_err(|errno| ControlError::new(operation, errno))
    }

    /// A request that is answered with a message for each of many things, and an end.
    pub(crate) fn list(
        &mut self,
        operation: &'static str,
        kind: u16,
    ) -> Result<Vec<Vec<u8>>, ControlError> {
        self.exchange_all(kind).map_err(|errno| ControlError::new(operation, errno))
    }

    fn exchange_all(&mut self, kind: u16) -> Result<Vec<Vec<u8>>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&nlmsg::request(kind, self.sequence, &[]))?;
        let mut deadline = Instant::now() + REPLY_TIME;
        let (mut acknowledged, mut ended) = (false, false);
        let mut replies = Vec::new();
        let mut datagrams = Datagrams::new(REPLY_BYTES_MAX);
        while !(acknowledged && ended) {
            match self.socket.receive(&mut datagrams)? {
                Received::Some => {
                    // The kernel sends them as fast as they are taken.
                    deadline = Instant::now() + REPLY_TIME;
                    for (bytes, whole_len) in datagrams.iter() {
                        match nlmsg::parse(bytes) {
                            Some(Message::Ack { sequence, errno }) if sequence == self.sequence => {
                                if errno != 0 {
                                    return Err(Errno::from_raw_os_error(errno));
                                }
                                acknowledged = true;
                            }
                            Some(Message::Done { sequence }) => ended |= sequence == self.sequence,
                            Some(Message::Reply { sequence, payload, .. })
                                if sequence == self.sequence =>
                            {
                                if whole_len > bytes.len() {
                                    return Err(Errno::MSGSIZE);
                                }
                                replies.push(payload.to_vec());
                            }
                            _ => {}
                        }
                    }
                }
                Received::Overrun => return Err(Errno::NOBUFS),
                Received::Empty | Received::Later => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Errno::TIMEDOUT);
                    }
                    self.socket.wait(left)?;
                }
            }
        }
        Ok(replies)
    }

    fn exchange(&mut self, kind: u16, payload: &[u8], wants_reply: bool) -> Result<Vec<u8>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&nlmsg::request(kind, self.sequence, payload))?;
        let deadline = Instant::now() + REPLY_TIME;
        let mut acknowledged = false;
        let mut reply = None;
        let mut datagrams = Datagrams::new(REPLY_BYTES_MAX);
        loop {
            if acknowledged && (reply.is_some() || !wants_reply) {
                return Ok(reply.unwrap_or_default());
            }
            match self.socket.receive(&mut datagrams)? {
                Received::Some => {
                    for (bytes, _) in datagrams.iter() {
                        match nlmsg::parse(bytes) {
                            Some(Message::Ack { sequence, errno }) if sequence == self.sequence => {
                                if errno != 0 {
                                    return Err(Errno::from_raw_os_error(errno));
                                }
                                acknowledged = true;
                            }
                            Some(Message::Reply { sequence, payload, .. })
                                if sequence == self.sequence && wants_reply =>
                            {
                                reply = Some(payload.to_vec());
                            }
                            // An answer to an earlier request that came too late.
                            _ => {}
                        }
                    }
                }
                Received::Overrun => {}
                Received::Empty | Received::Later => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Errno::TIMEDOUT);
                    }
                    self.socket.wait(left)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, getsockname, sendto};

    fn audit_socket() -> Result<OwnedFd, Errno> {
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(AUDIT))
    }

    fn address(socket: &impl AsFd) -> SocketAddrNetlink {
        let address = getsockname(socket).expect("it is bound");
        address.try_into().expect("of netlink")
    }

    /// A forged record from another socket, which even root cannot get into ours.
    #[test]
    fn nobody_but_the_kernel_sends_to_our_socket() {
        let sender = match audit_socket() {
            Ok(sender) => sender,
            Err(errno) => {
                eprintln!("SKIPPED: no audit sockets here: {errno}");
                return;
            }
        };
        let ours = AuditSocket::open().expect("a second socket");
        // The same kind of socket, only not connected: it gets what ours must not.
        let other = audit_socket().expect("a third socket");
        bind(&other, &SocketAddrNetlink::new(0, 0)).expect("bound");
        let forged = nlmsg::request(graven_format::kind::SYSCALL, 0, b"audit(1.000:1): forged");
        match sendto(&sender, &forged, SendFlags::empty(), &address(&other)) {
            Ok(sent) => assert_eq!(sent, forged.len()),
            Err(Errno::PERM) => {
                eprintln!("SKIPPED: without CAP_NET_ADMIN nobody can send to any such socket");
                return;
            }
            Err(errno) => panic!("{errno}"),
        }
        let mut datagrams = Datagrams::new(REPLY_BYTES_MAX);
        datagrams.receive(&other, usize::MAX).expect("it has arrived");
        assert_eq!(datagrams.iter().next().map(|(bytes, _)| bytes), Some(&forged[..]));

        let refused = sendto(&sender, &forged, SendFlags::empty(), &address(&ours));
        assert_eq!(refused, Err(Errno::CONNREFUSED));
        assert_eq!(ours.receive(&mut datagrams), Ok(Received::Empty));
    }
}
