//! The three requests of bpf(2) that are needed, the option that attaches a filter, and the two
//! mappings. Everything unsafe of the module is here.

use super::program::{Insn, STATE_BYTES};
use crate::source::netlink_options::last_error;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_RINGBUF: u32 = 27;
const MAP_MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// `union bpf_attr` for MAP_CREATE, up to the flags.
#[repr(C)]
struct MapAttr {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
    flags: u32,
}

/// `union bpf_attr` for PROG_LOAD, up to the flags.
#[repr(C)]
struct ProgAttr {
    prog_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// One request; its answer is a descriptor that is closed on exec.
fn bpf<A>(command: libc::c_int, attr: &A) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel reads `attr`, whose size is given, and what it points to, which its maker keeps
    // alive through the call. It writes nothing.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<A>()) };
    let Ok(fd @ 0..) = i32::try_from(fd) else { return Err(last_error()) };
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A ring buffer of so many bytes, a power of two and of pages.
pub(super) fn ring(bytes: usize) -> Result<OwnedFd, Errno> {
    let entries_max = u32::try_from(bytes).map_err(|_| Errno::INVAL)?;
    let attr =
        MapAttr { map_type: MAP_TYPE_RINGBUF, key_bytes: 0, value_bytes: 0, entries_max, flags: 0 };
    bpf(MAP_CREATE, &attr)
}

/// The words that program and process share.
pub(super) fn state() -> Result<OwnedFd, Errno> {
    let attr = MapAttr {
        map_type: MAP_TYPE_ARRAY,
        key_bytes: 4,
        value_bytes: STATE_BYTES,
        entries_max: 1,
        flags: MAP_MMAPABLE,
    };
    bpf(MAP_CREATE, &attr)
}

/// Has the kernel verify and take a program.
pub(super) fn load(insns: &[Insn]) -> Result<OwnedFd, Errno> {
    let attr = ProgAttr {
        prog_type: PROG_TYPE_SOCKET_FILTER,
        insn_count: u32::try_from(insns.len()).map_err(|_| Errno::INVAL)?,
        insns: insns.as_ptr().expose_provenance() as u64,
        license: c"Dual MIT/GPL".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    bpf(PROG_LOAD, &attr)
}

/// Lets the program decide about each datagram that is sent to the socket.
pub(super) fn attach(socket: &impl AsFd, program: &OwnedFd) -> Result<(), Errno> {
    let fd = program.as_raw_fd();
    // SAFETY: the option value is a c_int that lives through the call, and its size is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const fd).cast(),
            size_of_val(&fd) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(last_error()) }
}

/// Pages of a map, mapped here until dropped.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the pages belong to no thread; what is in them is reached through atomics, or as bytes that
// do not change while they are borrowed.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(map: &OwnedFd, offset: u64, bytes: usize, prot: ProtFlags) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing of ours.
        let start =
            unsafe { mmap(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED, map, offset)? };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, bytes })
    }

    fn u64_at(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.bytes);
        // SAFETY: in bounds, as was just checked.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: aligned, mapped as long as `self`, and changed through atomics only, there and here.
        unsafe { at.cast().as_ref() }
    }

    fn u32_at(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.bytes);
        // SAFETY: in bounds, as was just checked.
        let at = unsafe { self.start.add(offset) };
        // SAFETY: aligned, mapped as long as `self`, and changed through atomics only, there and here.
        unsafe { at.cast().as_ref() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and every borrow of it has ended with `self`. It cannot fail for a
        // mapping that is there.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// The words of the state map.
#[derive(Debug)]
pub(super) struct StatePages(Pages);

impl StatePages {
    pub(super) fn map(map: &OwnedFd) -> Result<Self, Errno> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        Pages::map(map, 0, page_size(), prot).map(Self)
    }

    pub(super) fn word(&self, offset: i16) -> &AtomicU32 {
        self.0.u32_at(offset as usize)
    }
}

/// A ring buffer: a page with the reader's position, then one with the kernel's and the bytes, twice one
/// after the other, so that an entry is in one piece wherever it begins.
#[derive(Debug)]
pub(super) struct RingPages {
    consumer: Pages,
    producer: Pages,
    bytes: usize,
}

impl RingPages {
    pub(super) fn map(map: &OwnedFd, bytes: usize) -> Result<Self, Errno> {
        let page = page_size();
        let consumer = Pages::map(map, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = Pages::map(map, page as u64, page + 2 * bytes, ProtFlags::READ)?;
        Ok(Self { consumer, producer, bytes })
    }

    /// Up to where the reader is done; the kernel writes over what is before.
    pub(super) fn consumed(&self) -> &AtomicU64 {
        self.consumer.u64_at(0)
    }

    /// Up to where the kernel has reserved entries.
    pub(super) fn reserved(&self) -> &AtomicU64 {
        self.producer.u64_at(0)
    }

    /// The first word of the entry at this position.
    pub(super) fn header(&self, position: u64) -> &AtomicU32 {
        self.producer.u32_at(page_size() + self.offset(position))
    }

    /// Bytes from this position on; `None` if there are not so many in the ring.
    ///
    /// # Safety
    /// They lie in an entry that the kernel has committed and that is not consumed while they are
    /// borrowed: until then nobody changes them.
    pub(super) unsafe fn bytes(&self, position: u64, len: usize) -> Option<&[u8]> {
        if len > self.bytes {
            return None;
        }
        // SAFETY: an offset below `bytes`, in a mapping of a page and twice `bytes`.
        let start = unsafe { self.producer.start.add(page_size() + self.offset(position)) };
        // SAFETY: `len` is at most `bytes`, so the end is in the mapping; nobody changes them, as the
        // caller says.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    }

    fn offset(&self, position: u64) -> usize {
        // The mask is below `bytes`, so that nothing is cut off.
        (position & (self.bytes as u64 - 1)) as usize
    }
}
