//! Memory for many datagrams, filled by one system call.
//!
//! Audit brings a record a datagram, half a million of them a second in a storm, on the cores that
//! the audited processes want: a call for each would cost more than all else that the receiver does.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Datagrams that one call takes at most.
pub(crate) const SLOTS: usize = 32;

/// Longest datagram taken whole. The kernel's longest audit text is below 9 KiB.
pub(crate) const SLOT_BYTES: usize = 64 * 1024;

/// Space between slots, so that their starts do not all compete for the same lines of the cache.
pub(crate) const STAGGER_BYTES: usize = 320;

/// Memory for one call: a header, a vector and a slot for each datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// [`SLOTS`] headers; the kernel writes to each how long its datagram was.
    pub(crate) headers: *mut libc::mmsghdr,
    /// [`SLOTS`] vectors.
    pub(crate) vectors: *mut libc::iovec,
    /// [`SLOTS`] slots, each followed by [`STAGGER_BYTES`].
    pub(crate) slots: *mut u8,
    /// Bytes of a slot.
    pub(crate) slot_bytes: usize,
}

impl Places {
    /// Takes what is there without waiting, at most `limit` datagrams, and says how many it was.
    ///
    /// # Safety
    /// The three parts are writable, aligned and as long as said, and nobody else uses them during the call.
    pub(crate) unsafe fn receive(&self, socket: &impl AsFd, limit: usize) -> Result<usize, Errno> {
        for at in 0..SLOTS {
            // SAFETY: the caller has made room for all slots.
            let slot = unsafe { self.slots.add(at * (self.slot_bytes + STAGGER_BYTES)) };
            // SAFETY: and for as many vectors,
            let vector = unsafe { self.vectors.add(at) };
            // SAFETY: and headers.
            let header = unsafe { self.headers.add(at) };
            // SAFETY: the vector is in the caller's memory.
            unsafe {
                vector.write(libc::iovec { iov_base: slot.cast(), iov_len: self.slot_bytes })
            };
            // SAFETY: an mmsghdr of zeros is one that asks for nothing.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
            // SAFETY: the header is in the caller's memory.
            unsafe { header.write(message) };
        }
        // SAFETY: each message names one vector and that one slot, which nothing else uses meanwhile.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers,
                limit.min(SLOTS) as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(taken).map_err(|_| super::netlink_options::last_error())
    }
}

/// The datagrams that the last call brought.
#[derive(Debug)]
pub(crate) struct Datagrams {
    memory: Vec<u8>,
    slot_bytes: usize,
    /// Whole length of each datagram, as it was sent.
    whole_lens: Vec<usize>,
}

impl Datagrams {
    /// Room for datagrams of up to `slot_bytes` each; longer ones are cut, and it shows.
    pub(crate) fn new(slot_bytes: usize) -> Self {
        let memory = vec![0; SLOTS * (slot_bytes + STAGGER_BYTES)];
        Self { memory, slot_bytes, whole_lens: Vec::with_capacity(SLOTS) }
    }

    /// Holds nothing any more.
    pub(crate) fn clear(&mut self) {
        self.whole_lens.clear();
    }

    /// Takes what is there without waiting, at most `limit`, in place of what was held before.
    ///
    /// # Errors
    /// `AGAIN` if nothing is there; nothing is held then.
    pub(crate) fn receive(&mut self, socket: &impl AsFd, limit: usize) -> Result<(), Errno> {
        self.clear();
        // SAFETY: headers and vectors of zeros are valid ones.
        let mut headers: [libc::mmsghdr; SLOTS] = unsafe { std::mem::zeroed() };
        // SAFETY: the same.
        let mut vectors: [libc::iovec; SLOTS] = unsafe { std::mem::zeroed() };
        let places = Places {
            headers: headers.as_mut_ptr(),
            vectors: vectors.as_mut_ptr(),
            slots: self.memory.as_mut_ptr(),
            slot_bytes: self.slot_bytes,
        };
        // SAFETY: all three are exclusively borrowed here, and the memory was made for these slots.
        let taken = unsafe { places.receive(socket, limit) }?;
        self.whole_lens.extend(headers[..taken].iter().map(|message| message.msg_len as usize));
        Ok(())
    }

    /// How many are held.
    pub(crate) fn len(&self) -> usize {
        self.whole_lens.len()
    }

    /// Each datagram in the order of its coming, and its whole length, which is longer if it was
    /// cut.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let slots = self.memory.chunks_exact(self.slot_bytes + STAGGER_BYTES);
        slots.zip(&self.whole_lens).map(|(slot, &len)| (&slot[..len.min(self.slot_bytes)], len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn datagrams_come_whole_and_in_order_and_cut_ones_show() {
        let (ours, theirs) = UnixDatagram::pair().expect("socket pair");
        let mut datagrams = Datagrams::new(100);
        assert_eq!(datagrams.receive(&ours, usize::MAX), Err(Errno::AGAIN));
        assert_eq!(datagrams.iter().count(), 0);
        let sent: Vec<Vec<u8>> = (0..SLOTS + 3).map(|n| vec![n as u8; 97 + n % 6]).collect();
        let mut unsent = sent.iter();
        let mut taken = Vec::new();
        while taken.len() < sent.len() {
            // The queue of such a socket is short.
            for bytes in unsent.by_ref().take(5) {
                theirs.send(bytes).expect("send");
            }
            datagrams.receive(&ours, usize::MAX).expect("receive");
            taken.extend(datagrams.iter().map(|(bytes, whole)| (bytes.to_vec(), whole)));
        }
        let expected =
            sent.iter().map(|bytes| (bytes[..bytes.len().min(100)].to_vec(), bytes.len()));
        assert!(taken.into_iter().eq(expected));
        assert_eq!(datagrams.receive(&ours, usize::MAX), Err(Errno::AGAIN));
        assert_eq!(datagrams.iter().count(), 0, "nothing is held twice");
    }

    #[test]
    fn one_call_takes_no_more_than_there_is_room_for() {
        let (ours, theirs) = UnixDatagram::pair().expect("socket pair");
        theirs.set_nonblocking(true).expect("non-blocking");
        let sent = (0..2 * SLOTS).take_while(|&n| theirs.send(&[n as u8]).is_ok()).count();
        let mut datagrams = Datagrams::new(8);
        let mut taken = 0;
        while datagrams.receive(&ours, usize::MAX).is_ok() {
            assert!((1..=SLOTS).contains(&datagrams.iter().count()));
            assert!(datagrams.iter().all(|(bytes, whole)| whole == 1 && bytes.len() == 1));
            taken += datagrams.iter().count();
        }
        assert_eq!(taken, sent);
    }
}
