//! The module's device, and what is asked of it.

use super::{Kernel, ShimError};
use graven_shim_abi::{
    IOC_ADVANCED, IOC_FOLLOW, IOC_POLICY, IOC_RULES, IOC_STATUS, Policy, Rules, Status,
};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Where the module has its device.
pub const DEVICE: &str = "/dev/graven";

/// The open device.
#[derive(Debug)]
pub struct Device {
    file: File,
}

impl Device {
    /// As the one reader, which is exempt.
    ///
    /// # Errors
    /// [`ShimError::Absent`] without the module, [`ShimError::Taken`] if there is a reader, [`ShimError::System`].
    pub fn reader() -> Result<Self, ShimError> {
        Self::open(true)
    }

    /// To look only, beside a reader.
    ///
    /// # Errors
    /// As [`Device::reader`].
    pub fn observer() -> Result<Self, ShimError> {
        Self::open(false)
    }

    fn open(write: bool) -> Result<Self, ShimError> {
        match OpenOptions::new().read(true).write(write).open(DEVICE) {
            Ok(file) => Ok(Self { file }),
            Err(why) => Err(match Errno::from_io_error(&why) {
                Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => ShimError::Absent,
                Some(Errno::BUSY) => ShimError::Taken,
                _ => ShimError::System { what: "open /dev/graven", why },
            }),
        }
    }

    /// The file, to be mapped.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What there is a choice about.
    ///
    /// # Errors
    /// [`ShimError::System`].
    pub fn set_policy(&self, policy: &Policy) -> Result<(), ShimError> {
        let bytes = policy.to_bytes();
        self.ioctl(IOC_POLICY, bytes.as_ptr().cast_mut(), "set the policy")
    }

    fn ioctl(&self, command: u32, argument: *mut u8, what: &'static str) -> Result<(), ShimError> {
        // SAFETY: the argument is null or points to as many bytes as the command's number says, which the ABI's test
        // compares with the structures; they live through the call.
        let outcome =
            unsafe { libc::ioctl(self.file.as_raw_fd(), command as libc::Ioctl, argument) };
        if outcome == -1 {
            return Err(ShimError::System { what, why: io::Error::last_os_error() });
        }
        Ok(())
    }
}

impl Kernel for Device {
    fn advanced(&self) -> Result<(), ShimError> {
        self.ioctl(IOC_ADVANCED, std::ptr::null_mut(), "say that there is room")
    }

    fn set_rules(&self, rules: &Rules) -> Result<(), ShimError> {
        let bytes = Box::new(rules.to_bytes());
        self.ioctl(IOC_RULES, bytes.as_ptr().cast_mut(), "set rules")
    }

    fn status(&self) -> Result<Status, ShimError> {
        let mut bytes = [0; Status::LEN];
        self.ioctl(IOC_STATUS, bytes.as_mut_ptr(), "read the status")?;
        Ok(Status::read(&bytes).unwrap_or_default())
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// Marks the calling process, and all that will descend from it, through the device that `fd` is. For the time between fork
/// and exec: it neither allocates nor takes a lock.
///
/// # Errors
/// What the system says.
pub fn follow_me(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: this command takes no argument.
    let outcome = unsafe { libc::ioctl(fd.as_raw_fd(), IOC_FOLLOW as libc::Ioctl) };
    if outcome == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
