//! Audit records without a system call: a socket filter puts them into memory that is mapped here.
//!
//! The kernel's queue thread asks the socket's filter about each datagram. Ours copies it into a BPF
//! ring buffer and says that the socket need not have it: no queueing, no waking, no call to receive it. In
//! a storm that is a sixth of what the whole path costs, paid on the processors that the audited
//! processes want. See `docs/decisions/0013-mapped-records.md`.
//!
//! # Nothing is lost by it
//! What finds no room in the ring goes into the socket's queue, as without a filter, and so does all
//! that follows it, until the reader has emptied both and says so: *spilled*. Where any of this is
//! not to be had (no CAP_BPF, a kernel before 5.12) records are received from the socket alone.
//!
//! # Order
//! The filter counts the datagrams that it leaves to the socket, and writes into each entry how many those
//! were before it: the reader takes so many from the socket first. Only a socket that was full itself is counted
//! wrong, because a datagram that it refuses is sent, and counted, again: what then does not come within
//! [`IN_FLIGHT_TIME`] was counted twice.

mod bpf;
mod program;

use super::control::{Received, receive};
use super::datagrams::Datagrams;
use bpf::{RingPages, StatePages};
use program::{
    ASLEEP_OFFSET, CLASSES_BYTES, ENTRY_HEADER_BYTES, KEPT_OFFSET, RECEIVED_OFFSET, SPILLED_OFFSET,
    assemble,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// Bytes in front of an entry that the kernel keeps for itself; entries are multiples of them.
const HEADER_BYTES: u64 = 8;
/// In an entry's first word: the kernel is still writing it.
const BUSY: u32 = 1 << 31;
/// In an entry's first word: it was given up.
const DISCARDED: u32 = 1 << 30;
/// Datagrams that are taken at once.
pub(crate) const TAKE_MAX: usize = 128;
/// How long a datagram may take from the filter into the socket. The kernel's thread waits at most a tenth of
/// a second for room there.
const IN_FLIGHT_TIME: Duration = Duration::from_millis(500);

/// Longest datagram that the ring takes; longer ones stay with the socket.
pub(crate) const DATAGRAM_BYTES_MAX: usize =
    (CLASSES_BYTES[CLASSES_BYTES.len() - 1] - ENTRY_HEADER_BYTES) as usize;

const _: () = assert!(ENTRY_HEADER_BYTES as u64 == HEADER_BYTES);

/// A filter on a socket, and the memory that it fills.
#[derive(Debug)]
pub struct Mapped {
    ring: RingPages,
    state: StatePages,
    ring_fd: OwnedFd,
    state_fd: OwnedFd,
    bytes: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The ring has it, and what was `kept` for the socket by then was all taken.
    Ring { kept: u32 },
    /// The socket has it, and so many in all before what the ring has.
    Socket { due: u32 },
    /// There is nothing.
    Nothing,
    /// It is being written.
    Soon,
}

impl Mapped {
    /// Puts a filter on `socket`, which has no datagram yet, that fills a ring of `bytes`, a power of two and of pages. The filter
    /// stays as long as the socket.
    ///
    /// # Errors
    /// What the kernel refuses; the socket is then as it was.
    pub(crate) fn attach(socket: &impl AsFd, bytes: usize) -> Result<Self, Errno> {
        if !bytes.is_power_of_two() {
            return Err(Errno::INVAL);
        }
        let (ring_fd, state_fd) = (bpf::ring(bytes)?, bpf::state()?);
        let ring = RingPages::map(&ring_fd, bytes)?;
        let state = StatePages::map(&state_fd)?;
        let program = bpf::load(&assemble(ring_fd.as_raw_fd(), state_fd.as_raw_fd()))?;
        bpf::attach(socket, &program)?;
        Ok(Self { ring, state, ring_fd, state_fd, bytes })
    }

    /// The same memory in another process, which inherits the socket as well. One of them reads.
    ///
    /// # Errors
    /// They are no such maps.
    pub fn inherit([ring_fd, state_fd]: [OwnedFd; 2], bytes: usize) -> Result<Self, Errno> {
        if !bytes.is_power_of_two() {
            return Err(Errno::INVAL);
        }
        let ring = RingPages::map(&ring_fd, bytes)?;
        let state = StatePages::map(&state_fd)?;
        Ok(Self { ring, state, ring_fd, state_fd, bytes })
    }

    /// What another process inherits it by.
    #[must_use]
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.ring_fd.as_fd(), self.state_fd.as_fd()]
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the ring's fill wakes is waited for here.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ring_fd.as_fd()
    }

    /// From now on the next datagram wakes who polls [`Mapped::fd`], which also shows what came before.
    pub fn lie_down(&self) {
        self.state.word(ASLEEP_OFFSET).store(1, Ordering::Relaxed);
        // Before poll looks at the ring. The filter reserves first and takes this word then.
        fence(Ordering::SeqCst);
    }

    /// Nobody sleeps any more.
    pub fn rise(&self) {
        self.state.word(ASLEEP_OFFSET).store(0, Ordering::Relaxed);
    }

    fn word(&self, offset: i16) -> u32 {
        self.state.word(offset).load(Ordering::Acquire)
    }

    /// What comes next goes to the ring again.
    fn unspill(&self) {
        self.state.word(SPILLED_OFFSET).store(0, Ordering::Release);
    }

    /// How many of the datagrams that were left to the socket have been taken from it.
    pub(crate) fn received(&self) -> u32 {
        self.word(RECEIVED_OFFSET)
    }

    /// There is one reader at a time; who follows it goes on counting here.
    pub(crate) fn set_received(&self, count: u32) {
        self.state.word(RECEIVED_OFFSET).store(count, Ordering::Release);
    }

    fn add_received(&self, count: u32) {
        self.set_received(self.received().wrapping_add(count));
    }

    /// Up to where the ring was read; the kernel may write over what is before.
    pub(crate) fn consumed(&self) -> u64 {
        self.ring.consumed().load(Ordering::Relaxed)
    }

    pub(crate) fn set_consumed(&self, position: u64) {
        self.ring.consumed().store(position, Ordering::Release);
    }

    /// What comes next for who has read the ring up to `position`. If there is nothing, what comes then goes to the ring
    /// again.
    pub(crate) fn next(&self, position: u64) -> Next {
        // Before the ring is looked at: what was kept until now and is not before an entry there is
        // before all that will be.
        let kept = self.word(KEPT_OFFSET);
        let received = self.received();
        let (in_ring, kept) = match self.entry(position) {
            Entry::Datagram { kept, .. } => (true, kept),
            Entry::None => (false, kept),
            Entry::Discarded => return Next::Ring { kept },
            Entry::Busy => return Next::Soon,
        };
        match kept.wrapping_sub(received) {
            0 if in_ring => Next::Ring { kept },
            0 => {
                if self.word(SPILLED_OFFSET) != 0 {
                    self.unspill();
                }
                Next::Nothing
            }
            due => Next::Socket { due },
        }
    }

    /// Gives what the ring has from `position` on, before more was `kept`, at most `limit` datagrams. Says up to where.
    ///
    /// # Errors
    /// What `take` says.
    pub(crate) fn read<E>(
        &self,
        mut position: u64,
        kept: u32,
        limit: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut taken = 0;
        while taken < limit {
            match self.entry(position) {
                Entry::Datagram { len, kept: before } if before == kept => {
                    let at = position + HEADER_BYTES + u64::from(ENTRY_HEADER_BYTES);
                    // SAFETY: committed, as `entry` saw, and not consumed while the only reader is here.
                    if let Some(bytes) = unsafe { self.ring.bytes(at, len) } {
                        take(bytes)?;
                    }
                    taken += 1;
                }
                Entry::Discarded => {}
                Entry::Datagram { .. } | Entry::Busy | Entry::None => break,
            }
            position += self.entry_bytes(position);
        }
        Ok(position)
    }

    /// Bytes of the entry at a position, with what the kernel has put around it.
    fn entry_bytes(&self, position: u64) -> u64 {
        let word = self.ring.header(position).load(Ordering::Relaxed);
        HEADER_BYTES + u64::from(word & !(BUSY | DISCARDED)).next_multiple_of(HEADER_BYTES)
    }

    fn entry(&self, position: u64) -> Entry {
        if position == self.ring.reserved().load(Ordering::Acquire) {
            return Entry::None;
        }
        let word = self.ring.header(position).load(Ordering::Acquire);
        if word & BUSY != 0 {
            return Entry::Busy;
        }
        if word & DISCARDED != 0 {
            return Entry::Discarded;
        }
        let len = self.ring.header(position + HEADER_BYTES).load(Ordering::Relaxed);
        let kept = self.ring.header(position + HEADER_BYTES + 4).load(Ordering::Relaxed);
        // The filter wrote it, no longer than its class.
        Entry::Datagram { len: (len as usize).min(DATAGRAM_BYTES_MAX), kept }
    }
}

/// Waits for a datagram that was counted and may be on its way into the socket.
#[derive(Debug, Default)]
pub(crate) struct Awaited(Option<Instant>);

impl Awaited {
    /// It came, or another did.
    pub(crate) fn came(&mut self) {
        self.0 = None;
    }

    /// The socket was empty: whether it is so for longer than anything takes, so that what is awaited was counted twice.
    pub(crate) fn is_over(&mut self) -> bool {
        let over = self.0.get_or_insert_with(Instant::now).elapsed() > IN_FLIGHT_TIME;
        if over {
            self.0 = None;
        }
        over
    }
}

/// What the ring has at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// A datagram of `len` bytes, before which so many were `kept` for the socket.
    Datagram {
        len: usize,
        kept: u32,
    },
    /// One that was given up.
    Discarded,
    /// One that is being written.
    Busy,
    None,
}

/// Takes datagrams from ring and socket in their order. There is one at a time for each [`Mapped`].
#[derive(Debug)]
pub(crate) struct Taker<'a> {
    socket: BorrowedFd<'a>,
    mapped: Option<&'a Mapped>,
    awaited: Awaited,
    /// Up to where the ring was taken; what is held is before it.
    position: u64,
    /// Position and length of each datagram that is held in the ring.
    held: Vec<(u64, usize)>,
    slots: Datagrams,
}

impl<'a> Taker<'a> {
    /// Takes from where the last taker has ended. Datagrams of the socket are cut past `slot_bytes`.
    pub(crate) fn new(
        socket: BorrowedFd<'a>,
        mapped: Option<&'a Mapped>,
        slot_bytes: usize,
    ) -> Self {
        let position = mapped.map_or(0, Mapped::consumed);
        Self {
            socket,
            mapped,
            awaited: Awaited::default(),
            position,
            held: Vec::with_capacity(TAKE_MAX),
            slots: Datagrams::new(slot_bytes),
        }
    }

    /// Gives back what is held, and takes what is next without waiting. [`Received::Some`] may bring
    /// nothing, if what is next is about to be there.
    ///
    /// # Errors
    /// The socket failed.
    pub(crate) fn take(&mut self) -> Result<Received, Errno> {
        let Some(mapped) = self.mapped else {
            return receive(&self.socket, &mut self.slots, usize::MAX);
        };
        self.slots.clear();
        self.release(mapped);
        match mapped.next(self.position) {
            Next::Ring { kept } => Ok(self.collect(mapped, kept)),
            Next::Socket { due } => self.take_from_socket(mapped, due),
            Next::Nothing => Ok(Received::Empty),
            Next::Soon => Ok(about_to_come()),
        }
    }

    /// Takes at most so many of the datagrams that were left to the socket.
    fn take_from_socket(&mut self, mapped: &Mapped, due: u32) -> Result<Received, Errno> {
        let received = receive(&self.socket, &mut self.slots, due as usize)?;
        match received {
            Received::Some => {
                self.awaited.came();
                mapped.add_received(self.slots.len() as u32);
            }
            Received::Empty => {
                if self.awaited.is_over() {
                    mapped.add_received(due);
                }
                return Ok(about_to_come());
            }
            Received::Overrun | Received::Later => {}
        }
        Ok(received)
    }

    /// Each datagram that is held, in the order of its coming, with the bytes that were sent.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let held = self.mapped.into_iter().flat_map(|mapped| {
            self.held.iter().filter_map(|&(position, len)| {
                // SAFETY: committed, as `entry` saw, and not consumed before `release`, which takes
                // `self` for itself.
                unsafe { mapped.ring.bytes(position, len) }.map(|bytes| (bytes, len))
            })
        });
        held.chain(self.slots.iter())
    }

    /// The kernel may write over what was held.
    fn release(&mut self, mapped: &Mapped) {
        if mapped.consumed() != self.position {
            self.held.clear();
            mapped.set_consumed(self.position);
        }
    }

    /// Holds what the ring has before more was `kept`, at most [`TAKE_MAX`].
    fn collect(&mut self, mapped: &Mapped, kept: u32) -> Received {
        while self.held.len() < TAKE_MAX {
            match mapped.entry(self.position) {
                Entry::Datagram { len, kept: before } if before == kept => {
                    let at = self.position + HEADER_BYTES + u64::from(ENTRY_HEADER_BYTES);
                    self.held.push((at, len));
                }
                Entry::Discarded => {}
                Entry::Datagram { .. } | Entry::Busy | Entry::None => break,
            }
            self.position += mapped.entry_bytes(self.position);
        }
        Received::Some
    }
}

/// What is next is being written, by a thread that may need this processor.
pub(crate) fn about_to_come() -> Received {
    std::thread::yield_now();
    Received::Some
}

#[cfg(test)]
mod tests;
