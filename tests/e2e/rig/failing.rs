//! A device that fails with EIO when it is told to: a loop device over a file in memory, whose seals then
//! forbid the kernel to write to it, or to its end. What was written before stays readable.

use super::mount::{Mounted, PAGE_BYTES};
use super::{skip, temp_dir};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

/// ext4 on such a device.
pub(crate) struct Failing {
    disk: Mounted,
    memory: File,
}

impl Failing {
    /// A filesystem of so many MiB that works as yet; says so if this kernel has no such seals.
    pub(crate) fn ext4(mib: u64) -> Option<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = File::from(memfd_create("device", flags).expect("a file in memory"));
        let probe = memfd_create("probe", flags).expect("a file in memory");
        if let Err(why) = fcntl_add_seals(probe, SealFlags::FUTURE_WRITE) {
            skip(&format!("files in memory cannot be sealed: {why}"));
            return None;
        }
        memory.set_len(mib << 20).expect("a length");
        let mut disk = Mounted::ext4_made_of(temp_dir(), None, &path(&memory), PAGE_BYTES);
        disk.fail_by_pages();
        Some(Self { disk, memory })
    }

    /// Where its trail goes.
    pub(crate) fn trail(&self) -> PathBuf {
        self.disk.trail()
    }

    /// From now on no write succeeds, wherever it goes.
    pub(crate) fn fail(&self) {
        fcntl_add_seals(&self.memory, SealFlags::FUTURE_WRITE).expect("it can be sealed");
    }

    /// From now on no write past so many MiB succeeds, and each before it does.
    ///
    /// To be called while the filesystem has nothing there.
    pub(crate) fn fail_past(&self, mib: u64) {
        self.memory.set_len(mib << 20).expect("a shorter length");
        fcntl_add_seals(&self.memory, SealFlags::GROW).expect("it can be sealed");
    }

    /// What the device holds, and nothing that only the kernel remembers, as a filesystem on a device
    /// that works.
    pub(crate) fn on_a_good_device(self, mib: u64) -> Mounted {
        let Self { disk, memory } = self;
        drop(disk);
        let dir = temp_dir();
        let image = dir.path().join("image");
        std::fs::copy(path(&memory), &image).expect("it can be copied");
        // What had failed had never been written: it is zeros.
        let file = File::options().write(true).open(&image).expect("it was just made");
        file.set_len(mib << 20).expect("a length");
        Mounted::ext4_that_is_on(dir, &image)
    }
}

/// A name for a file without one.
fn path(memory: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()).into()
}
