//! Making the ring: as much as the kernel has of what makes it fast, and a reason in words when
//! there is none.

use crate::disk::buf::Registered;
use crate::disk::probe::Found;
use crate::disk::{DeviceReport, IoBuf, OPS_IN_FLIGHT_MAX, RingReport};
use io_uring::{IoUring, Probe, opcode};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries of the submission queue; more than that at once takes more than one system call.
const SUBMISSIONS: u32 = 128;

/// Entries of the completion queue: two for each operation in flight, and the bell, so that the kernel
/// never has to keep completions back.
const COMPLETIONS: u32 = 4 * OPS_IN_FLIGHT_MAX as u32;

/// Slots for registered files: the open segments, and room to spare. A file that finds no slot
/// is used by its descriptor.
pub(super) const FILE_SLOTS: u32 = 64;

/// What can be asked of the kernel, best first. The names are what the report shows.
const WISHES: &[&[Wish]] = &[
    // Linux 6.1: completions are worked off when we ask for them, by us, the only submitter.
    &[Wish::SingleIssuer, Wish::DeferTaskrun, Wish::TaskrunFlag, Wish::SubmitAll],
    // Linux 6.0.
    &[Wish::SingleIssuer, Wish::CoopTaskrun, Wish::TaskrunFlag, Wish::SubmitAll],
    // Linux 5.19: completions do not interrupt us.
    &[Wish::CoopTaskrun, Wish::TaskrunFlag, Wish::SubmitAll],
    // Linux 5.18.
    &[Wish::SubmitAll],
    &[],
];

/// The same for barriers of two entries: the first one's end must start the second at once, and not when we next
/// ask. While the engine hashes a frame that would be late: in turn, p50 at 1.9 M records/s was 0.45 ms for 0.35.
const INTERRUPTING: &[&[Wish]] = &[&[Wish::SubmitAll], &[]];

#[derive(Clone, Copy)]
enum Wish {
    SingleIssuer,
    DeferTaskrun,
    CoopTaskrun,
    TaskrunFlag,
    SubmitAll,
}

impl Wish {
    fn name(self) -> &'static str {
        match self {
            Self::SingleIssuer => "SINGLE_ISSUER",
            Self::DeferTaskrun => "DEFER_TASKRUN",
            Self::CoopTaskrun => "COOP_TASKRUN",
            Self::TaskrunFlag => "TASKRUN_FLAG",
            Self::SubmitAll => "SUBMIT_ALL",
        }
    }

    fn ask(self, builder: &mut io_uring::Builder) {
        match self {
            Self::SingleIssuer => builder.setup_single_issuer(),
            Self::DeferTaskrun => builder.setup_defer_taskrun(),
            Self::CoopTaskrun => builder.setup_coop_taskrun(),
            Self::TaskrunFlag => builder.setup_taskrun_flag(),
            Self::SubmitAll => builder.setup_submit_all(),
        };
    }
}

/// Makes a ring and fills in what was obtained.
///
/// # Errors
/// There is no ring, or one that is too old; the message says why.
pub(super) fn make_ring(linked_flush: bool) -> io::Result<(IoUring, RingReport)> {
    let wishes = if linked_flush { INTERRUPTING } else { WISHES };
    let (ring, wishes) = first_granted(wishes).map_err(explain)?;
    let truncate_in_ring = check_abilities(&ring)?;
    let flags = wishes.iter().map(|wish| wish.name()).collect();
    Ok((ring, RingReport { flags, truncate_in_ring, linked_flush, ..RingReport::default() }))
}

/// Whether a write and an fdatasync linked to it are a better barrier than RWF_DSYNC; see
/// [`super::linked`]. Where it is not known how the device does that, RWF_DSYNC is.
pub(super) fn is_flush_linked(found: &Found) -> bool {
    let flushes = |it: &DeviceReport| it.volatile_cache == Some(true) && it.fua == Some(false);
    let release = rustix::system::uname();
    found.geometry.direct
        && found.device.as_ref().is_some_and(flushes)
        && kernel_version(&release.release().to_string_lossy()) >= Some((6, 6))
}

/// The first two numbers of a kernel's release.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn first_granted(wishes: &'static [&'static [Wish]]) -> io::Result<(IoUring, &'static [Wish])> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for wishes in wishes {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp().dontfork();
        wishes.iter().for_each(|wish| wish.ask(&mut builder));
        match builder.build(SUBMISSIONS) {
            Ok(ring) => return Ok((ring, wishes)),
            // A flag that this kernel does not know: ask for less.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Whether the ring can do all that we need; the result says whether it can also truncate.
fn check_abilities(ring: &IoUring) -> io::Result<bool> {
    let params = ring.params();
    let needed = [
        (params.is_feature_nodrop(), "completions that are never dropped"),
        (params.is_feature_submit_stable(), "stable submissions"),
        (params.is_feature_ext_arg(), "a timeout for waiting"),
        // The feature that came with multishot poll, which has no bit of its own.
        (params.is_feature_resource_tagging(), "multishot poll"),
    ];
    if let Some((_, what)) = needed.iter().find(|(has, _)| !has) {
        return Err(too_old(what));
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let codes = [
        (opcode::Write::CODE, "write"),
        (opcode::WriteFixed::CODE, "write from registered buffers"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::Fallocate::CODE, "fallocate"),
        (opcode::OpenAt::CODE, "openat"),
        (opcode::Close::CODE, "close"),
        (opcode::RenameAt::CODE, "renameat"),
        (opcode::UnlinkAt::CODE, "unlinkat"),
        (opcode::PollAdd::CODE, "poll"),
    ];
    if let Some((_, what)) = codes.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(too_old(what));
    }
    Ok(probe.is_supported(opcode::Ftruncate::CODE))
}

fn too_old(what: &str) -> io::Error {
    let text = format!("this kernel's io_uring is too old (no {what}; Linux 5.13 has it)");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Says why io_uring_setup was refused.
fn explain(error: io::Error) -> io::Error {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let text = match (error.raw_os_error(), sysctl.trim()) {
        (Some(libc::EPERM), "2") => "io_uring is disabled (kernel.io_uring_disabled=2)".into(),
        (Some(libc::EPERM), "1") => {
            "io_uring is for one group only, and we are not in it (kernel.io_uring_disabled=1, \
             kernel.io_uring_group)"
                .into()
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "io_uring is forbidden by a seccomp filter or a security module".into()
        }
        (Some(libc::ENOSYS), _) => {
            "this kernel has no io_uring, or a seccomp filter hides it".into()
        }
        _ => format!("io_uring cannot be set up: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// Numbers the drivers of this process, so that a buffer knows whose it is.
static DRIVERS: AtomicU64 = AtomicU64::new(0);

/// Registers `buffers` and, after them, `zeros`, under a new driver's number, which is the result.
/// What is not registered works all the same, at the price of pinning pages at every write.
pub(super) fn register_buffers(
    ring: &IoUring,
    buffers: &mut [IoBuf],
    zeros: &mut IoBuf,
    report: &mut RingReport,
    warnings: &mut Vec<String>,
) -> u64 {
    let driver = DRIVERS.fetch_add(1, Ordering::Relaxed);
    let all = || 0..=u16::MAX;
    let iovecs: Vec<libc::iovec> = buffers
        .iter_mut()
        .chain([&mut *zeros])
        .map(|buf| libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() })
        .collect();
    // SAFETY: every element describes one live mapping. The kernel pins the pages, so that it
    // never reads freed memory even if the mapping goes first; and a buffer's `Registered` is set
    // only here, so that no other mapping can claim its index.
    let result = unsafe { ring.submitter().register_buffers(&iovecs) };
    match result {
        Ok(()) => {
            report.buffers_registered = true;
            for (buf, index) in buffers.iter_mut().chain([zeros]).zip(all()) {
                buf.set_registered(Registered { driver, index });
            }
        }
        Err(error) => {
            let bytes: usize = iovecs.iter().map(|iovec| iovec.iov_len).sum();
            warnings.push(format!(
                "{bytes} bytes of buffers could not be registered ({error}): writes cost a little \
                 more; raise the limit of locked memory (RLIMIT_MEMLOCK)"
            ));
        }
    }
    driver
}

/// Registers a table of files that is empty but for `lock`, in a slot of its own at the end.
///
/// # Errors
/// The ring cannot hold the lock: without that it must not be used, see [`crate::disk`].
pub(super) fn register_files(
    ring: &IoUring,
    lock: Option<BorrowedFd<'_>>,
    report: &mut RingReport,
    warnings: &mut Vec<String>,
) -> io::Result<()> {
    let mut table = [-1; FILE_SLOTS as usize + 1];
    table[FILE_SLOTS as usize] = lock.map_or(-1, |lock| lock.as_raw_fd());
    match ring.submitter().register_files(&table) {
        Ok(()) => report.files_registered = true,
        Err(error) if lock.is_some() => {
            let text = format!("io_uring cannot hold the lock of the trail: {error}");
            return Err(io::Error::new(error.kind(), text));
        }
        Err(error) => warnings.push(format!("files could not be registered ({error})")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_first_two_numbers() {
        let version = |release| kernel_version(release);
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44-fc-v769"), Some((6, 18)));
        assert_eq!(version("6.6"), Some((6, 6)));
        assert_eq!((version("6"), version("six.six"), version("")), (None, None, None));
        assert!(version("6.10-rc1") > version("6.9.99"));
    }
}
