//! What a driver is, what it found below it, and what a person should know about that: plain
//! data for `doctor`, the log line at start, and the bench.

use super::Geometry;
use std::fmt;

/// Which driver to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskChoice {
    /// io_uring; pwrite and fdatasync where the kernel or a sandbox forbids that.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// pwrite and fdatasync on one worker thread.
    Sync,
}

/// Which driver was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    Uring,
    /// pwrite and fdatasync on one worker thread.
    Sync,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Sync => "pwrite and fdatasync",
        })
    }
}

/// What was obtained of io_uring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingReport {
    /// Set-up flags that the kernel granted, without their prefix `IORING_SETUP_`.
    pub flags: Vec<&'static str>,
    /// Whether the buffers are registered (pinned once instead of at every write).
    pub buffers_registered: bool,
    /// Whether open files are registered (no reference count at every write).
    pub files_registered: bool,
    /// Whether the barrier of a write that is alone in flight is an fdatasync linked to it instead of RWF_DSYNC.
    pub linked_flush: bool,
    /// Whether ftruncate goes through the ring (Linux 6.9); if not it is called inline.
    pub truncate_in_ring: bool,
}

/// The block device below the trail, as far as sysfs tells. Filesystems with devices of their own
/// making (btrfs, overlay, tmpfs, nfs) have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// Its name in sysfs, `nvme0n1p2` for instance.
    pub name: String,
    /// Bytes that it addresses.
    pub logical_block_bytes: u32,
    /// Bytes that it writes at once.
    pub physical_block_bytes: u32,
    /// Whether it says that it has a volatile cache, so that a barrier means a flush.
    pub volatile_cache: Option<bool>,
    /// Whether it takes single writes past that cache (FUA), which makes RWF_DSYNC cheap.
    pub fua: Option<bool>,
}

/// What was chosen and found when a disk was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskReport {
    /// The driver.
    pub driver: DriverKind,
    /// Why it is not io_uring, if that was tried first.
    pub fallback_reason: Option<String>,
    /// The ring, if that is the driver.
    pub ring: Option<RingReport>,
    /// What writes are aligned to, and whether they bypass the page cache.
    pub geometry: Geometry,
    /// Offset alignment that statx (STATX_DIOALIGN) asks for, in bytes; 0 is "no direct I/O";
    /// absent on kernels before 6.1.
    pub statx_align_bytes: Option<u32>,
    /// The filesystem's name, or its magic number in hexadecimal.
    pub filesystem: String,
    /// The device below, if it can be found.
    pub device: Option<DeviceReport>,
    /// What a person should know, one sentence each.
    pub warnings: Vec<String>,
}

impl fmt::Display for DiskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Geometry { align_bytes, direct } = self.geometry;
        let how = if direct { "direct" } else { "through the page cache" };
        write!(f, "{} on {}, {how}, aligned to {align_bytes} bytes", self.driver, self.filesystem)?;
        if let Some(device) = &self.device {
            let (logical, physical) = (device.logical_block_bytes, device.physical_block_bytes);
            write!(f, ", device {} ({logical}/{physical})", device.name)?;
        }
        Ok(())
    }
}
