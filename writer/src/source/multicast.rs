//! A reader of the audit records that the kernel also sends to whoever listens: beside auditd, and without
//! a word to the kernel.
//!
//! It joins the group `AUDIT_NLGRP_READLOG`, for which `CAP_AUDIT_READ` is needed, changes no setting, and
//! holds nobody up. That is why it is *best effort*: when the socket is full the kernel drops, and counts
//! nothing. The first record of the source says so (`best-effort=yes`), its records are of the source
//! `import`, and a window over the serials states each event that is missing once a later one has come. What is lost at
//! the very end, or before the first record, shows nowhere.
//!
//! Records are lines as auditd would write them, as those of a [plugin](super::plugin) are.

use super::datagrams::Datagrams;
use super::nlmsg::{self, Message};
use super::plugin::{begin, compose};
use super::serials::Serials;
use super::{AppendError, Sink};
use crate::clock::Now;
use graven_format::loss::{Cause, Certainty};
use graven_format::{Flags, Record, Source};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{AUDIT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::os::fd::{BorrowedFd, OwnedFd};

/// `AUDIT_NLGRP_READLOG`, as a bit.
const READLOG: u32 = 1;

/// Memory that is asked for, to bridge what the disk takes.
const RECEIVE_BYTES: usize = 64 << 20;

/// Longest datagram taken whole. The kernel's longest audit text is below 9 KiB.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// How often the serials are looked at while some are missing.
const LOOK_NS: i64 = 100_000_000;

/// How long an end waits for what is still missing.
const END_NS_MAX: u64 = 2_500_000_000;

/// Overruns within this time are stated as one: the socket says each only once it was emptied.
const OVERRUN_NS: u64 = 1_000_000_000;

/// Calls to the socket between two looks at everything else.
const BATCH_CALLS: usize = 16;

/// What was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records given to the sink.
    pub records: u64,
    /// Times that the socket was full, which loses records.
    pub overruns: u64,
    /// Events that never came, by their serials.
    pub lost_events: u64,
    /// Loss statements given to the sink.
    pub statements: u64,
}

/// Why there is nothing to receive.
#[derive(Debug, thiserror::Error)]
pub enum MulticastError {
    /// The capability is missing.
    #[error("reading the kernel's audit records needs CAP_AUDIT_READ")]
    NotPermitted,
    /// The kernel has no audit, or no multicast of it.
    #[error("this kernel does not multicast audit records: {0}")]
    Unsupported(Errno),
    /// The socket failed.
    #[error("receiving audit records failed: {0}")]
    Socket(Errno),
    /// The trail did not take a record.
    #[error("the trail does not take audit records any more: {0}")]
    Append(#[from] AppendError),
}

/// A socket in the group.
#[derive(Debug)]
pub struct Multicast {
    fd: OwnedFd,
}

impl Multicast {
    /// Joins.
    ///
    /// # Errors
    /// [`MulticastError`].
    pub fn join() -> Result<Self, MulticastError> {
        let unsupported = MulticastError::Unsupported;
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(AUDIT))
            .map_err(unsupported)?;
        if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BYTES).is_err() {
            // As much as everybody may have: a smaller one loses more, and says so.
            let _ = sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BYTES);
        }
        bind(&fd, &SocketAddrNetlink::new(0, READLOG)).map_err(|errno| match errno {
            Errno::PERM | Errno::ACCESS => MulticastError::NotPermitted,
            errno => MulticastError::Unsupported(errno),
        })?;
        // Nobody but the kernel sends to a socket that is connected to it.
        connect(&fd, &SocketAddrNetlink::new(0, 0)).map_err(MulticastError::Socket)?;
        Ok(Self { fd })
    }

    /// Receives until `stopped` can be read or its other end is closed, and then what is still missing for
    /// as long as events may take.
    ///
    /// # Errors
    /// [`MulticastError`].
    pub fn receive(
        &self,
        sink: &dyn Sink,
        stopped: BorrowedFd<'_>,
        now: &dyn Fn() -> Now,
    ) -> Result<Summary, MulticastError> {
        begin("multicast", sink, now())?;
        let mut intake = Intake::new(sink, now());
        let mut datagrams = Datagrams::new(DATAGRAM_BYTES_MAX);
        // When a stop was asked for, and the last serial that is waited for since.
        let mut ending: Option<(u64, u32)> = None;
        loop {
            let empty = self.take(&mut datagrams, &mut intake, now)?;
            intake.set_now(now());
            if empty {
                intake.tick()?;
                if let Some((since_ns, last)) = ending
                    && (intake.serials.is_complete_to(last)
                        || intake.now.boottime_ns.saturating_sub(since_ns) > END_NS_MAX)
                {
                    return Ok(intake.finish()?);
                }
                let limit = (ending.is_some() || !intake.serials.is_settled()).then_some(LOOK_NS);
                let stop = self.wait(ending.is_none().then_some(stopped), limit)?;
                if stop {
                    ending = Some((intake.now.boottime_ns, intake.serials.head().wrapping_sub(1)));
                }
            }
        }
    }

    /// Takes what is there, at most a batch; true if the socket is empty.
    fn take(
        &self,
        datagrams: &mut Datagrams,
        intake: &mut Intake<'_>,
        now: &dyn Fn() -> Now,
    ) -> Result<bool, MulticastError> {
        for _ in 0..BATCH_CALLS {
            match datagrams.receive(&self.fd, usize::MAX) {
                Ok(()) => {
                    intake.set_now(now());
                    for (bytes, whole_len) in datagrams.iter() {
                        intake.datagram(bytes, whole_len)?;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::NOBUFS) => intake.overrun()?,
                Err(errno) => return Err(MulticastError::Socket(errno)),
            }
        }
        Ok(false)
    }

    /// Waits; true if a stop is asked for.
    fn wait(
        &self,
        stopped: Option<BorrowedFd<'_>>,
        limit_ns: Option<i64>,
    ) -> Result<bool, MulticastError> {
        let limit = limit_ns.map(|tv_nsec| Timespec { tv_sec: 0, tv_nsec });
        let mut fds = vec![PollFd::new(&self.fd, PollFlags::IN)];
        fds.extend(stopped.map(|stopped| PollFd::from_borrowed_fd(stopped, PollFlags::IN)));
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(MulticastError::Socket(errno)),
        }
        Ok(fds.get(1).is_some_and(|fd| !fd.revents().is_empty()))
    }
}

/// What becomes of the datagrams; no socket and no clock.
struct Intake<'a> {
    sink: &'a dyn Sink,
    now: Now,
    serials: Serials,
    line: Vec<u8>,
    /// When the last overrun was stated, nanoseconds since boot.
    overrun_ns: Option<u64>,
    summary: Summary,
}

impl<'a> Intake<'a> {
    fn new(sink: &'a dyn Sink, now: Now) -> Self {
        Self {
            sink,
            now,
            serials: Serials::new(Source::Import, now),
            line: Vec::new(),
            overrun_ns: None,
            summary: Summary::default(),
        }
    }

    fn set_now(&mut self, now: Now) {
        self.now = now;
        self.serials.set_now(now);
    }

    fn datagram(&mut self, bytes: &[u8], whole_len: usize) -> Result<(), AppendError> {
        let Some(Message::Record { kind, payload }) = nlmsg::parse(bytes) else { return Ok(()) };
        let serial = nlmsg::stamp(payload).map(|stamp| stamp.serial);
        let source_seq = serial.map_or(0, u64::from);
        if whole_len > bytes.len() {
            let range = serial.map(|_| (source_seq, source_seq));
            self.serials.state(Certainty::Exactly, Cause::InputTooLong, 1, range, self.sink)?;
        }
        compose(kind, payload, &mut self.line);
        self.sink.append(&Record {
            source: Source::Import,
            kind,
            flags: Flags::NONE,
            realtime_ns: self.now.realtime_ns,
            boottime_ns: self.now.boottime_ns,
            source_seq,
            bytes: &self.line,
        })?;
        self.summary.records += 1;
        match serial {
            Some(serial) => self.serials.note(serial, kind, self.sink),
            None => Ok(()),
        }
    }

    /// The kernel dropped records. How many the serials show, if later ones come.
    fn overrun(&mut self) -> Result<(), AppendError> {
        self.summary.overruns += 1;
        let now_ns = self.now.boottime_ns;
        if self.overrun_ns.is_some_and(|last| now_ns.saturating_sub(last) < OVERRUN_NS) {
            return Ok(());
        }
        self.overrun_ns = Some(now_ns);
        self.serials.state(Certainty::AtLeast, Cause::Enobufs, 0, None, self.sink)
    }

    fn tick(&mut self) -> Result<(), AppendError> {
        self.serials.tick(self.sink)
    }

    fn finish(mut self) -> Result<Summary, AppendError> {
        self.serials.finish(self.sink)?;
        self.summary.lost_events = self.serials.lost_events;
        self.summary.statements = self.serials.statements;
        Ok(self.summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_format::loss::LossStatement;
    use std::cell::RefCell;

    type Kept = (Source, u16, u64, Vec<u8>);

    #[derive(Default)]
    struct List(RefCell<Vec<Kept>>);

    impl Sink for List {
        fn next_seq(&self) -> u64 {
            self.0.borrow().len() as u64
        }

        fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
            let mut list = self.0.borrow_mut();
            list.push((record.source, record.kind, record.source_seq, record.bytes.to_vec()));
            Ok(list.len() as u64 - 1)
        }
    }

    fn statements(list: &List) -> Vec<LossStatement> {
        let list = list.0.borrow();
        list.iter().filter_map(|it| LossStatement::parse(&it.3).ok()).map(|it| it.0).collect()
    }

    /// As the kernel multicasts it: the length counts the header.
    fn datagram(kind: u16, text: &str) -> Vec<u8> {
        nlmsg::request(kind, 0, text.as_bytes())
    }

    #[test]
    fn records_become_lines_and_what_is_missing_is_stated() {
        let list = List::default();
        let mut intake = Intake::new(&list, Now::default());
        for (kind, serial) in [(1307, 5), (1320, 5), (1305, 8)] {
            let datagram = datagram(kind, &format!("audit(1.002:{serial}): a=1"));
            intake.datagram(&datagram, datagram.len()).expect("taken");
        }
        // Neither is a record.
        for other in [datagram(1329, ""), datagram(3, ""), b"short".to_vec()] {
            intake.datagram(&other, other.len()).expect("taken");
        }
        let cut = datagram(1309, "audit(1.002:9): argc=1");
        intake.datagram(&cut, cut.len() + 1).expect("taken");
        intake.overrun().expect("taken");
        intake.overrun().expect("taken");
        let summary = intake.finish().expect("taken");
        let expected = Summary { records: 4, overruns: 2, lost_events: 2, statements: 3 };
        assert_eq!(summary, expected);
        let first = (Source::Import, 1307, 5, b"type=CWD msg=audit(1.002:5): a=1".to_vec());
        assert_eq!(list.0.borrow()[0], first);
        let causes: Vec<_> = statements(&list).iter().map(|it| (it.cause, it.range)).collect();
        let expected = [
            (Cause::InputTooLong, Some((9, 9))),
            (Cause::Enobufs, None),
            (Cause::SerialGap, Some((6, 7))),
        ];
        assert_eq!(causes, expected);
    }
}
