//! Where `recvmmsg` puts datagrams: in the shared memory, so that a keeper that is killed when the call returns
//! has them no more than its successor.
//!
//! The lengths matter as much: they are in the message headers, which therefore lie there too. The
//! kernel writes a datagram's length right after its bytes.

use super::layout::HEADER_BYTES;
use super::map::fuse;
use super::memory::Memory;
use crate::source::datagrams::{self, SLOT_BYTES, SLOTS, STAGGER_BYTES};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

/// The header of a message is followed by its vector.
const HEADERS_BYTES: usize = SLOTS * size_of::<libc::mmsghdr>();
/// The word with a message's length in its lower half; what is above is not used.
const AT_LEN: usize = std::mem::offset_of!(libc::mmsghdr, msg_len);

const _: () = assert!(HEADERS_BYTES + SLOTS * size_of::<libc::iovec>() <= SLOTS * HEADER_BYTES);
const _: () = assert!(AT_LEN.is_multiple_of(8) && size_of::<libc::mmsghdr>().is_multiple_of(8));
const _: () = assert!((SLOT_BYTES + STAGGER_BYTES).is_multiple_of(8));

/// The places of the staging area.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staging {
    headers: usize,
    slots: usize,
}

impl Staging {
    pub(super) const SLOTS: usize = SLOTS;

    pub(super) fn of(memory: &Memory) -> Self {
        Self { headers: memory.geometry.staging, slots: memory.geometry.slots }
    }

    /// Forgets what lies there.
    pub(super) fn clear(&self, memory: &Memory) {
        for slot in 0..SLOTS {
            memory.map.store(self.len_at(slot), 0, Ordering::Relaxed);
        }
    }

    /// Takes what is there without waiting, at most `limit`.
    pub(super) fn receive(
        &self,
        memory: &Memory,
        socket: &impl AsFd,
        limit: usize,
    ) -> Result<(), Errno> {
        let places = datagrams::Places {
            headers: memory.map.pointer(self.headers, HEADERS_BYTES).cast(),
            vectors: memory
                .map
                .pointer(self.headers + HEADERS_BYTES, SLOTS * size_of::<libc::iovec>())
                .cast(),
            slots: memory.map.pointer(self.slots, SLOTS * (SLOT_BYTES + STAGGER_BYTES)),
            slot_bytes: SLOT_BYTES,
        };
        // SAFETY: the three parts lie in the mapping, which lives through the call, apart from each other;
        // the only references into it are to atomics, and none of them is used during the call.
        let taken = unsafe { places.receive(socket, limit) };
        fuse::step();
        taken.map(drop)
    }

    /// How many datagrams lie there.
    pub(super) fn count(&self, memory: &Memory) -> usize {
        (0..SLOTS).filter(|slot| self.datagram(memory, *slot).is_some()).count()
    }

    /// Where a slot's datagram lies, how long it was, and how much of it there is.
    pub(super) fn datagram(&self, memory: &Memory, slot: usize) -> Option<(usize, usize, usize)> {
        let len = memory.map.load(self.len_at(slot), Ordering::Relaxed) as u32 as usize;
        (len > 0)
            .then(|| (self.slots + slot * (SLOT_BYTES + STAGGER_BYTES), len, len.min(SLOT_BYTES)))
    }

    fn len_at(&self, slot: usize) -> usize {
        self.headers + slot * size_of::<libc::mmsghdr>() + AT_LEN
    }
}
