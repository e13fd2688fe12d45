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
const TAKE_MAX: usize = 128;
/// How long a datagram may take from the filter into the socket. The kernel's thread waits at most a tenth of
/// a second for room there.
const IN_FLIGHT_TIME: Duration = Duration::from_millis(500);

const _: () = assert!(ENTRY_HEADER_BYTES as u64 == HEADER_BYTES);

/// A filter on a socket, and the memory that it fills.
#[derive(Debug)]
pub(crate) struct Mapped {
    ring: RingPages,
    state: StatePages,
    ring_fd: OwnedFd,
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
        Ok(Self { ring, state, ring_fd })
    }

    /// What the ring's fill wakes is waited for here.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.ring_fd.as_fd()
    }

    /// From now on the next datagram wakes who polls [`Mapped::fd`], which also shows what came before.
    pub(crate) fn lie_down(&self) {
        self.state.word(ASLEEP_OFFSET).store(1, Ordering::Relaxed);
        // Before poll looks at the ring. The filter reserves first and takes this word then.
        fence(Ordering::SeqCst);
    }

    /// Nobody sleeps any more.
    pub(crate) fn rise(&self) {
        self.state.word(ASLEEP_OFFSET).store(0, Ordering::Relaxed);
    }

    fn word(&self, offset: i16) -> u32 {
        self.state.word(offset).load(Ordering::Acquire)
    }

    /// What comes next goes to the ring again.
    fn unspill(&self) {
        self.state.word(SPILLED_OFFSET).store(0, Ordering::Release);
    }

    /// So many more of the datagrams that were left to the socket have been taken from it.
    fn add_received(&self, count: u32) {
        // There is one reader at a time; who follows it goes on counting here.
        self.state.word(RECEIVED_OFFSET).fetch_add(count, Ordering::Relaxed);
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
    /// Since when a datagram that was counted has not come.
    awaited: Option<Instant>,
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
        let position = mapped.map_or(0, |mapped| mapped.ring.consumed().load(Ordering::Relaxed));
        Self {
            socket,
            mapped,
            awaited: None,
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
        // Before the ring is looked at: what was kept until now and is not before an entry there is
        // before all that will be.
        let kept = mapped.word(KEPT_OFFSET);
        let received = mapped.word(RECEIVED_OFFSET);
        let (in_ring, kept) = match self.entry(mapped, self.position) {
            Entry::Datagram { kept, .. } => (true, kept),
            Entry::None => (false, kept),
            Entry::Discarded => return Ok(self.collect(mapped, kept)),
            Entry::Busy => return Ok(about_to_come()),
        };
        match kept.wrapping_sub(received) {
            0 if in_ring => Ok(self.collect(mapped, kept)),
            0 => {
                if mapped.word(SPILLED_OFFSET) != 0 {
                    mapped.unspill();
                }
                Ok(Received::Empty)
            }
            due => self.take_from_socket(mapped, due),
        }
    }

    /// Takes at most so many of the datagrams that were left to the socket.
    fn take_from_socket(&mut self, mapped: &Mapped, due: u32) -> Result<Received, Errno> {
        let received = receive(&self.socket, &mut self.slots, due as usize)?;
        match received {
            Received::Some => {
                self.awaited = None;
                mapped.add_received(self.slots.len() as u32);
            }
            Received::Empty => {
                if self.awaited.get_or_insert_with(Instant::now).elapsed() > IN_FLIGHT_TIME {
                    self.awaited = None;
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
        if mapped.ring.consumed().load(Ordering::Relaxed) != self.position {
            self.held.clear();
            mapped.ring.consumed().store(self.position, Ordering::Release);
        }
    }

    /// Holds what the ring has before more was `kept`, at most [`TAKE_MAX`].
    fn collect(&mut self, mapped: &Mapped, kept: u32) -> Received {
        while self.held.len() < TAKE_MAX {
            match self.entry(mapped, self.position) {
                Entry::Datagram { len, kept: before } if before == kept => {
                    let at = self.position + HEADER_BYTES + u64::from(ENTRY_HEADER_BYTES);
                    self.held.push((at, len));
                }
                Entry::Discarded => {}
                Entry::Datagram { .. } | Entry::Busy | Entry::None => break,
            }
            self.position += self.entry_bytes(mapped);
        }
        Received::Some
    }

    /// Bytes of the entry at the present position, with what the kernel has put around it.
    fn entry_bytes(&self, mapped: &Mapped) -> u64 {
        let word = mapped.ring.header(self.position).load(Ordering::Relaxed);
        HEADER_BYTES + u64::from(word & !(BUSY | DISCARDED)).next_multiple_of(HEADER_BYTES)
    }

    fn entry(&self, mapped: &Mapped, position: u64) -> Entry {
        if position == mapped.ring.reserved().load(Ordering::Acquire) {
            return Entry::None;
        }
        let word = mapped.ring.header(position).load(Ordering::Acquire);
        if word & BUSY != 0 {
            return Entry::Busy;
        }
        if word & DISCARDED != 0 {
            return Entry::Discarded;
        }
        let len = mapped.ring.header(position + HEADER_BYTES).load(Ordering::Relaxed);
        let kept = mapped.ring.header(position + HEADER_BYTES + 4).load(Ordering::Relaxed);
        // The filter wrote it, no longer than its class.
        let longest = CLASSES_BYTES[CLASSES_BYTES.len() - 1] - ENTRY_HEADER_BYTES;
        Entry::Datagram { len: len.min(longest) as usize, kept }
    }
}

/// What is next is being written, by a thread that may need this processor.
fn about_to_come() -> Received {
    std::thread::yield_now();
    Received::Some
}

#[cfg(test)]
mod tests;
