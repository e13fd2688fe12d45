//! The C core, held so that what is safe to call looks safe. All `unsafe` of this crate is here.
#![allow(unsafe_code, reason = "the state machine is C, and the memory is shared with it")]

use graven_shim_abi::{Call, Item};
use memmap2::MmapRaw;
use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A core built from another source, instead of the one compiled in: how tests see that they find its faults.
const LIBRARY: &str = "GRAVEN_TWIN_LIBRARY";
const SYMBOL: &CStr = c"graven_twin_api";

#[repr(C)]
struct CTwin {
    _opaque: [u8; 0],
}

#[repr(C)]
struct CBuffer {
    _opaque: [u8; 0],
}

/// As `struct twin_status`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Counts {
    pub(crate) order_next: u64,
    pub(crate) passed: u64,
    pub(crate) bad_tails: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) orphans: u32,
    pub(crate) buffers: u32,
}

type Twin = *mut CTwin;
type Buf = *mut CBuffer;

/// As `graven_twin_api` in twin.c.
#[repr(C)]
struct Api {
    bytes: unsafe extern "C" fn(u32, u32, u32) -> u64,
    create: unsafe extern "C" fn(*mut u8, u32, u32, u32, u64) -> Twin,
    destroy: unsafe extern "C" fn(Twin),
    buffer_new: unsafe extern "C" fn(Twin) -> Buf,
    buffer_free: unsafe extern "C" fn(Twin, Buf),
    enter: unsafe extern "C" fn(Twin, u32, u32) -> u32,
    full: unsafe extern "C" fn(Twin, u32) -> u32,
    pass: unsafe extern "C" fn(Twin, u64),
    begin: unsafe extern "C" fn(Buf, *const u8),
    call: unsafe extern "C" fn(Buf, *const u8),
    flags: unsafe extern "C" fn(Buf, u16),
    item_room: unsafe extern "C" fn(Buf) -> u32,
    item: unsafe extern "C" fn(Buf, u16, u16, u32, u32, *const u8, u32) -> bool,
    forget: unsafe extern "C" fn(Buf),
    number: unsafe extern "C" fn(Twin, Buf),
    push: unsafe extern "C" fn(Twin, u32, Buf, u16) -> bool,
    orphan: unsafe extern "C" fn(Twin, u32, Buf, u16),
    drain: unsafe extern "C" fn(Twin, u32),
    policy: unsafe extern "C" fn(Twin, u32, u32),
    status: unsafe extern "C" fn(Twin, *mut Counts),
}

unsafe extern "C" {
    static graven_twin_api: Api;
}

fn api() -> &'static Api {
    static API: OnceLock<&'static Api> = OnceLock::new();
    API.get_or_init(|| match std::env::var_os(LIBRARY) {
        Some(path) => load(path.as_bytes()),
        // SAFETY: it is a constant in C, laid out as `Api`: both lists have the same order.
        None => unsafe { &graven_twin_api },
    })
}

/// Panics if that is no such library: a test asked for it.
fn load(path: &[u8]) -> &'static Api {
    let name = std::ffi::CString::new(path).expect("a path has no zero");
    // SAFETY: the name ends with a zero. Whoever names a library vouches for what it does when loaded.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "{LIBRARY}: cannot load {name:?}");
    // SAFETY: the library is open and stays so; the symbol's name ends with a zero.
    let found = unsafe { libc::dlsym(library, SYMBOL.as_ptr()) }.cast::<Api>();
    // SAFETY: nothing, or the table of a library that is made of the same twin.c.
    unsafe { found.as_ref() }.expect("the library has a graven_twin_api")
}

/// Bytes of the memory for such rings; 0 if they cannot be.
pub(crate) fn bytes(ring_count: u32, slots: u32, part_bytes_max: u32) -> u64 {
    // SAFETY: it computes with numbers.
    unsafe { (api().bytes)(ring_count, slots, part_bytes_max) }
}

/// Rings and all that the core believes of them.
pub(crate) struct Core {
    core: NonNull<CTwin>,
    /// The core writes to it as long as it lives.
    memory: MmapRaw,
}

// SAFETY: nothing in it belongs to the thread that made it.
unsafe impl Send for Core {}
// SAFETY: every function of the core that takes it may run on all processors at once: heads are behind their ring's lock,
// orphans and the gap behind the core's, the rest is loaded and stored atomically.
unsafe impl Sync for Core {}

impl Core {
    /// Lays out the memory of this file, which has [`bytes`] zeros.
    pub(crate) fn new(file: &File, rings: u32, slots: u32, part: u32, id: u64) -> io::Result<Self> {
        let memory = MmapRaw::map_raw(file)?;
        assert_eq!(memory.len() as u64, bytes(rings, slots, part), "as many bytes as it needs");
        // SAFETY: the mapping is as long as this geometry needs, page-aligned, and lives as long as the core.
        let core = unsafe { (api().create)(memory.as_mut_ptr(), rings, slots, part, id) };
        let core = NonNull::new(core).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { core, memory })
    }

    pub(crate) fn enter(&self, hint: u32, absent_ms: u32) -> u32 {
        // SAFETY: the core lives.
        unsafe { (api().enter)(self.core.as_ptr(), hint, absent_ms) }
    }

    pub(crate) fn full(&self, absent_ms: u32) -> u32 {
        // SAFETY: the core lives.
        unsafe { (api().full)(self.core.as_ptr(), absent_ms) }
    }

    pub(crate) fn pass(&self, now_ns: u64) {
        // SAFETY: the core lives.
        unsafe { (api().pass)(self.core.as_ptr(), now_ns) }
    }

    pub(crate) fn number(&self, buffer: &mut Buffer) {
        // SAFETY: the core lives, and the buffer is the caller's alone.
        unsafe { (api().number)(self.core.as_ptr(), buffer.0.as_ptr()) }
    }

    pub(crate) fn push(&self, hint: u32, buffer: &mut Buffer, flags: u16) -> bool {
        // SAFETY: the core lives, and the buffer, which has a part, is the caller's alone.
        unsafe { (api().push)(self.core.as_ptr(), hint, buffer.0.as_ptr(), flags) }
    }

    /// The buffer is freed: now, by `drain`, or with the core.
    pub(crate) fn orphan(&self, hint: u32, buffer: Buffer, flags: u16) {
        // SAFETY: the core lives, and the buffer, which has a part, is given away.
        unsafe { (api().orphan)(self.core.as_ptr(), hint, buffer.0.as_ptr(), flags) }
    }

    pub(crate) fn drain(&self, hint: u32) {
        // SAFETY: the core lives. The buffers that it frees were given away.
        unsafe { (api().drain)(self.core.as_ptr(), hint) }
    }

    pub(crate) fn policy(&self, no_reader: u32, no_reader_ms: u32) {
        // SAFETY: the core lives.
        unsafe { (api().policy)(self.core.as_ptr(), no_reader, no_reader_ms) }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        // SAFETY: the core lives, and `counts` has the fields that are filled in.
        unsafe { (api().status)(self.core.as_ptr(), &raw mut counts) }
        counts
    }

    pub(crate) fn buffer(&self) -> io::Result<Buffer> {
        // SAFETY: the core lives.
        let buffer = unsafe { (api().buffer_new)(self.core.as_ptr()) };
        Ok(Buffer(NonNull::new(buffer).ok_or(io::ErrorKind::OutOfMemory)?))
    }

    /// Frees a buffer of this core's, whatever is in it.
    pub(crate) fn free(&self, buffer: Buffer) {
        // SAFETY: the core lives, the buffer is of its making, and nobody has it any more.
        unsafe { (api().buffer_free)(self.core.as_ptr(), buffer.0.as_ptr()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: nobody has the core any more, and the memory is unmapped only after this.
        unsafe { (api().destroy)(self.core.as_ptr()) }
    }
}

/// A task's buffer. It is freed by the core that made it.
pub(crate) struct Buffer(NonNull<CBuffer>);

// SAFETY: it is memory that one owner has; `&mut` is asked for wherever it is changed.
unsafe impl Send for Buffer {}

impl Buffer {
    pub(crate) fn begin(&mut self, call: &[u8; Call::LEN]) {
        // SAFETY: any buffer has room for the header and a call, which is as long as C reads.
        unsafe { (api().begin)(self.0.as_ptr(), call.as_ptr()) }
    }

    pub(crate) fn call(&mut self, call: &[u8; Call::LEN]) {
        // SAFETY: as in `begin`.
        unsafe { (api().call)(self.0.as_ptr(), call.as_ptr()) }
    }

    pub(crate) fn flags(&mut self, flags: u16) {
        // SAFETY: any buffer has room for the header.
        unsafe { (api().flags)(self.0.as_ptr(), flags) }
    }

    pub(crate) fn item_room(&self) -> u32 {
        // SAFETY: it looks at how much is used.
        unsafe { (api().item_room)(self.0.as_ptr()) }
    }

    pub(crate) fn item(&mut self, item: Item, bytes: &[u8]) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        let Item { kind, role, flags, index, .. } = item;
        let from = bytes.as_ptr();
        // SAFETY: `from` has `len` bytes; C writes them only if there is room.
        unsafe { (api().item)(self.0.as_ptr(), kind, role, flags, index, from, len) }
    }

    pub(crate) fn forget(&mut self) {
        // SAFETY: it is a buffer.
        unsafe { (api().forget)(self.0.as_ptr()) }
    }
}

/// The shared memory, as a reader has it mapped.
pub(crate) struct Shared(MmapRaw);

impl Shared {
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        MmapRaw::map_raw(file).map(Self)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.0.len(), "a word of the memory");
        // SAFETY: it lies within the mapping, which is page-aligned.
        let word = unsafe { self.0.as_mut_ptr().add(offset) }.cast::<u64>();
        // SAFETY: aligned, and mapped as long as `self` lives. Both sides use such words atomically only.
        unsafe { AtomicU64::from_ptr(word) }
    }

    pub(crate) fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Release);
    }

    /// Takes what lies before a head that was loaded: nobody writes there until the tail has passed it.
    pub(crate) fn copy(&self, offset: usize, to: &mut [u8]) {
        assert!(offset <= self.0.len() && to.len() <= self.0.len() - offset, "within the memory");
        // SAFETY: it lies within the mapping.
        let from = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: `from` has as many bytes as was asserted, and `to` is no part of the mapping. A reader that breaks the
        // protocol gets bytes that are torn, which is what its tests look for.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.cast::<c_void>().cast::<u8>(),
                to.as_mut_ptr(),
                to.len(),
            )
        }
    }
}
