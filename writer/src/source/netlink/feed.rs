//! Where a session's datagrams come from: the socket itself, or what somebody took from it before.

use super::super::control::Received;
use super::super::intake::Moment;
use super::super::kaudit::Daemon;
use super::super::mapped::Taker;
use super::super::past::Settled;
use super::Stop;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a receiver that has just emptied a busy socket leaves it alone. Else it is woken for
/// every record, on a core that the producers want.
const PAUSE_TIME: Duration = Duration::from_millis(1);
/// Longest wait for the socket.
const POLL_TIME: Duration = Duration::from_millis(100);
/// Time between two looks that counts as waiting; what is longer was time in which this
/// thread was kept from running.
const ACTIVE_NS_MAX: u64 = 200_000_000;
/// Longest datagram taken whole. The kernel's longest audit text is below 9 KiB.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(POLL_TIME.as_nanos() < ACTIVE_NS_MAX as u128);
const _: () = assert!(DATAGRAM_BYTES_MAX <= graven_format::consts::RECORD_PAYLOAD_BYTES_MAX);

/// Gives a session its datagrams, in the order of their coming, and the time that it reckons with:
/// two feeds that say the same make the same statements, however much later one of them says it.
pub(crate) trait Feed {
    /// Takes what is next, without waiting.
    fn take(&mut self) -> Result<Received, Errno>;

    /// When that was. After [`Received::Empty`] it is a moment from which on the socket was found
    /// empty: what had been sent before is here.
    fn now(&self) -> Moment;

    /// The datagrams that were taken last, each with the number of bytes that were sent.
    fn datagrams(&mut self) -> impl Iterator<Item = (&[u8], usize)>;

    /// How often the kernel had found the socket full by then; `None` where it does not count.
    fn failed_sends(&mut self) -> Option<u32>;

    /// Events that ending for good will make, beside those of a single process, while audit stays on.
    fn own_events(&self) -> u64 {
        0
    }

    /// Everything up to this place is settled: who begins again begins there.
    fn settled(&mut self, settled: &Settled);

    /// Waits until there is more, somebody wakes `stop`, or a tenth of a second has passed. After a
    /// `busy` time more may be let gather.
    fn wait(&mut self, stop: &Stop, busy: bool) -> Result<(), Errno>;
}

/// The socket, received from in this process.
pub(crate) struct SocketFeed<'a, N, T> {
    daemon: &'a Daemon,
    taker: Taker<'a>,
    clock: N,
    tap: T,
    now: Moment,
}

impl<'a, N: Fn() -> (u64, u64), T: FnMut(&[u8]) -> bool> SocketFeed<'a, N, T> {
    /// `clock` gives the realtime and the time since boot, in nanoseconds; what `tap` says no to
    /// disappears.
    pub(crate) fn new(daemon: &'a Daemon, clock: N, tap: T) -> Self {
        let (realtime_ns, boottime_ns) = clock();
        let now = Moment { realtime_ns, boottime_ns, active_ns: 0 };
        let taker = Taker::new(daemon.socket().as_fd(), daemon.mapped(), DATAGRAM_BYTES_MAX);
        Self { daemon, taker, clock, tap, now }
    }

    fn look_at_the_clock(&mut self) {
        let (realtime_ns, boottime_ns) = (self.clock)();
        let passed_ns = boottime_ns.saturating_sub(self.now.boottime_ns).min(ACTIVE_NS_MAX);
        let active_ns = self.now.active_ns + passed_ns;
        self.now = Moment { realtime_ns, boottime_ns, active_ns };
    }
}

impl<N: Fn() -> (u64, u64), T: FnMut(&[u8]) -> bool> Feed for SocketFeed<'_, N, T> {
    fn take(&mut self) -> Result<Received, Errno> {
        let received = self.taker.take()?;
        if received != Received::Empty {
            // After the receiving: the time before it may be before the kernel's own. That it was
            // found empty is so from the time before it on.
            self.look_at_the_clock();
        }
        Ok(received)
    }

    fn now(&self) -> Moment {
        self.now
    }

    fn datagrams(&mut self) -> impl Iterator<Item = (&[u8], usize)> {
        let tap = &mut self.tap;
        self.taker.iter().filter(|&(bytes, _)| tap(bytes))
    }

    fn failed_sends(&mut self) -> Option<u32> {
        self.daemon.socket().failed_sends()
    }

    /// What the socket gave away nobody can take again.
    fn settled(&mut self, _: &Settled) {}

    fn wait(&mut self, stop: &Stop, busy: bool) -> Result<(), Errno> {
        if busy {
            stop.wait_or(&[], PAUSE_TIME)?;
        } else {
            let socket = self.daemon.socket().as_fd();
            match self.daemon.mapped() {
                None => stop.wait_or(&[socket], POLL_TIME)?,
                Some(mapped) => {
                    mapped.lie_down();
                    stop.wait_or(&[socket, mapped.fd()], POLL_TIME)?;
                    mapped.rise();
                }
            }
        }
        self.look_at_the_clock();
        Ok(())
    }
}
