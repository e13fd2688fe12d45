//! Page-aligned buffers, owned by whoever fills or writes them, allocated once at start.

use memmap2::MmapMut;
use std::io;
use std::sync::Arc;

/// A page-aligned buffer. It moves between ring, engine and driver and is never copied.
#[derive(Debug)]
pub struct IoBuf {
    /// Shared with whoever reads it while a driver writes it to the disk.
    map: Arc<MmapMut>,
    /// Set by the driver that has registered this very mapping with its ring. Nobody else can:
    /// the kernel pins the pages at registration, so a buffer that merely claimed a number would
    /// put another buffer's bytes on the disk.
    registered: Option<Registered>,
}

/// A driver, and the number of a buffer with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// The driver, unique in the process.
    pub(super) driver: u64,
    /// The buffer's number with its ring.
    pub(super) index: u16,
}

impl IoBuf {
    /// Allocates `len` zeroed bytes, rounded up to whole pages by the kernel.
    ///
    /// # Errors
    /// What mmap says, ENOMEM for instance.
    pub fn new(len: usize) -> io::Result<Self> {
        Ok(Self { map: Arc::new(MmapMut::map_anon(len)?), registered: None })
    }

    /// What it holds, to be read while a driver has the buffer. It is to be dropped before anybody changes the buffer.
    pub(crate) fn share(&self) -> Arc<MmapMut> {
        Arc::clone(&self.map)
    }

    /// Index among a driver's registered buffers, if it is one.
    #[must_use]
    pub fn index(&self) -> Option<u16> {
        self.registered.map(|registered| registered.index)
    }

    /// The buffer's number with `driver`; another driver's number means nothing to it.
    pub(super) fn index_with(&self, driver: u64) -> Option<u16> {
        self.registered.filter(|registered| registered.driver == driver).map(|it| it.index)
    }

    /// Notes that a driver has registered this buffer.
    pub(super) fn set_registered(&mut self, registered: Registered) {
        self.registered = Some(registered);
    }
}

impl std::ops::Deref for IoBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl std::ops::DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        Arc::get_mut(&mut self.map).expect("who read it while it was written is done")
    }
}
