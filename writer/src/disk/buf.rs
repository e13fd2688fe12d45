//! Page-aligned buffers, owned by whoever fills or writes them, allocated once at start.

use memmap2::MmapMut;
use std::io;

/// A page-aligned buffer. It moves between ring, engine and driver and is never copied.
#[derive(Debug)]
pub struct IoBuf {
    map: MmapMut,
    /// Index among the driver's registered buffers, if it is one.
    registered: Option<u16>,
}

impl IoBuf {
    /// Allocates `len` zeroed bytes, rounded up to whole pages by the kernel.
    ///
    /// # Errors
    /// What mmap says, ENOMEM for instance.
    pub fn new(len: usize) -> io::Result<Self> {
        Ok(Self { map: MmapMut::map_anon(len)?, registered: None })
    }

    /// The same, to be registered by a driver as number `index`.
    ///
    /// # Errors
    /// What mmap says.
    pub fn registered(len: usize, index: u16) -> io::Result<Self> {
        Ok(Self { registered: Some(index), ..Self::new(len)? })
    }

    /// Index among the driver's registered buffers, if it is one.
    #[must_use]
    pub fn index(&self) -> Option<u16> {
        self.registered
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
        &mut self.map
    }
}
