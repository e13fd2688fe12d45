//! Finding out what the filesystem and the device below the trail ask of writes, by asking and
//! then by trying.

use super::dir::{TrailDir, check_regular, open_flags};
use super::report::DeviceReport;
use super::{Geometry, IoBuf};
use graven_format::consts::{ALIGN_BYTES_MAX, ALIGN_BYTES_MIN};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::CString;
use std::io;
use std::path::Path;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) geometry: Geometry,
    pub(super) statx_align_bytes: Option<u32>,
    pub(super) filesystem: String,
    pub(super) device: Option<DeviceReport>,
    pub(super) warnings: Vec<String>,
}

/// Filesystem magic numbers (statfs `f_type`) and their names.
const FILESYSTEMS: &[(u64, &str)] = &[
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
    (0xCA45_1A4E, "bcachefs"),
    (0x2FC1_2FC1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58F6, "ramfs"),
    (0x794C_7630, "overlay"),
    (0x6969, "nfs"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x00C3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x4D44, "vfat"),
    (0x2011_BAB0, "exfat"),
    (0x7366_746E, "ntfs3"),
];

/// Looks at `dir`: its filesystem, its device, and what a real file in it accepts.
///
/// # Errors
/// What creating a file says, except that a full disk is not an error here.
pub(super) fn probe(dir: &TrailDir) -> io::Result<Found> {
    let filesystem = filesystem_name(dir)?;
    let mut warnings = filesystem_warnings(&filesystem);
    let device = device_of(dir);
    let (geometry, statx_align_bytes) = match trial_file(dir)? {
        Some(trial) => {
            let asked = statx_align(&trial)?;
            (settle(&trial, asked, device.as_ref(), &mut warnings)?, asked)
        }
        None => {
            warnings.push(
                "the disk is full and no file of the trail exists: alignment could not be tried, \
                 writes go through the page cache"
                    .into(),
            );
            (Geometry { align_bytes: ALIGN_BYTES_MAX, direct: false }, None)
        }
    };
    device_warnings(device.as_ref(), geometry, &mut warnings);
    Ok(Found { geometry, statx_align_bytes, filesystem, device, warnings })
}

/// A file to try on, and whether we may write to it.
struct Trial {
    fd: OwnedFd,
    /// `false` if it is a file of the trail, used only to ask statx because there is no room for
    /// one of our own.
    ours: bool,
}

/// A nameless file in `dir`; on a full disk the first file that is there; `None` if there is none.
fn trial_file(dir: &TrailDir) -> io::Result<Option<Trial>> {
    let mode = Mode::from_raw_mode(0o600);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let made = match rustix::fs::openat(dir, c".", flags | OFlags::TMPFILE, mode) {
        // Old kernels say EISDIR to the unknown flag, filesystems without the feature EOPNOTSUPP.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => named_trial(dir),
        made => made,
    };
    match made {
        Ok(fd) => Ok(Some(Trial { fd, ours: true })),
        Err(Errno::NOSPC | Errno::DQUOT) => {
            let Some(file) = dir.list()?.into_iter().next() else { return Ok(None) };
            let name = CString::new(file.name).map_err(io::Error::other)?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let fd = rustix::fs::openat(dir, &name, flags, Mode::empty())?;
            check_regular(&fd)?;
            Ok(Some(Trial { fd, ours: false }))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// A file with a name, for filesystems without O_TMPFILE; the name is gone on return.
fn named_trial(dir: &TrailDir) -> Result<OwnedFd, Errno> {
    let name = format!(".probe-{}", std::process::id());
    let name = CString::new(name).map_err(|_nul| Errno::INVAL)?;
    let fd = dir.open_file(&name, open_flags(true, false))?;
    dir.remove(&name)?;
    Ok(fd)
}

/// The offset alignment of direct I/O that statx states; `None` on kernels before 6.1.
fn statx_align(trial: &Trial) -> io::Result<Option<u32>> {
    let stat = match rustix::fs::statx(&trial.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Err(Errno::NOSYS) => return Ok(None),
        stat => stat?,
    };
    let known = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    // Our buffers are page-aligned; a filesystem that wants more gets the page cache.
    let fits = stat.stx_dio_mem_align <= ALIGN_BYTES_MAX;
    Ok(known.then_some(if fits { stat.stx_dio_offset_align } else { 0 }))
}

/// Decides the alignment and proves it by a write.
///
/// The alignment is the largest of 512, what statx (or, without it, the device's logical block)
/// asks for, and the device's physical block. The last is for durability: a device that emulates
/// 512-byte sectors on 4096-byte ones reads, patches and writes the whole 4096, and a power cut
/// in the middle can damage neighbours that were announced as durable.
fn settle(
    trial: &Trial,
    asked: Option<u32>,
    device: Option<&DeviceReport>,
    warnings: &mut Vec<String>,
) -> io::Result<Geometry> {
    let (logical, physical) =
        device.map_or((0, 0), |device| (device.logical_block_bytes, device.physical_block_bytes));
    let mut align = asked.unwrap_or(logical).max(ALIGN_BYTES_MIN).next_power_of_two();
    let mut refusal = match asked {
        Some(0) => Some("the filesystem does not offer it"),
        _ if align > ALIGN_BYTES_MAX => Some("it asks for blocks of more than 4096 bytes"),
        _ => None,
    };
    align = align.max(physical.clamp(ALIGN_BYTES_MIN, ALIGN_BYTES_MAX).next_power_of_two());
    if refusal.is_none() && trial.ours {
        refusal = Some("a direct write was refused");
        while align <= ALIGN_BYTES_MAX {
            if direct_write_works(trial, align)? {
                refusal = None;
                break;
            }
            align *= 2;
        }
    }
    if let Some(why) = refusal {
        warnings.push(format!("no O_DIRECT ({why}): writes go through the page cache"));
        return Ok(Geometry { align_bytes: ALIGN_BYTES_MAX, direct: false });
    }
    Ok(Geometry { align_bytes: align, direct: true })
}

/// Whether the file takes direct writes of `align` bytes: some filesystems accept the flag and
/// refuse the write.
fn direct_write_works(trial: &Trial, align: u32) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(&trial.fd)?;
    match rustix::fs::fcntl_setfl(&trial.fd, flags | OFlags::DIRECT) {
        Err(Errno::INVAL) => return Ok(false),
        set => set?,
    }
    let unit = align as usize;
    let buf = IoBuf::new(unit)?;
    // At one unit, so that an offset and a length of just that alignment are tried.
    match retry_on_intr(|| rustix::io::pwrite(&trial.fd, &buf[..unit], u64::from(align))) {
        // Full is a state, not an accident: the write was refused for room, not for alignment.
        Ok(_) | Err(Errno::NOSPC | Errno::DQUOT) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The filesystem's name from its magic number.
fn filesystem_name(dir: &TrailDir) -> io::Result<String> {
    let magic = rustix::fs::fstatfs(dir)?.f_type;
    // 32 bits of it are the number; some platforms sign-extend them.
    let magic = magic as u64 & 0xFFFF_FFFF;
    let known = FILESYSTEMS.iter().find(|(number, _)| *number == magic);
    Ok(known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).into()))
}

fn filesystem_warnings(filesystem: &str) -> Vec<String> {
    let warning = match filesystem {
        "tmpfs" | "ramfs" => "nothing here survives a power cut",
        "nfs" | "cifs" | "smb2" | "9p" | "ceph" => {
            "a network filesystem: a record is as durable as its server makes it, and the audit \
             trail stops when the network does"
        }
        "overlay" => {
            "the files are on the upper layer of a container's filesystem, which goes when the \
             container goes: mount a volume here"
        }
        "btrfs" | "zfs" | "bcachefs" => {
            "copy on write: overwriting preallocated space allocates anew, so commits are slower \
             and space is not reserved; on btrfs set chattr +C on the empty directory"
        }
        "fuse" => "a user-space filesystem: durability is what its daemon makes of fsync",
        _ => return Vec::new(),
    };
    vec![format!("{filesystem}: {warning}")]
}

fn device_warnings(device: Option<&DeviceReport>, geometry: Geometry, warnings: &mut Vec<String>) {
    let Some(device) = device else { return };
    let physical = device.physical_block_bytes;
    if physical > geometry.align_bytes {
        warnings.push(format!(
            "{}: physical sectors are {physical} bytes, more than the {} that frames are aligned \
             to: a power cut while the device patches a sector can damage an earlier frame",
            device.name, geometry.align_bytes
        ));
    }
}

/// The block device below `dir`, from sysfs.
fn device_of(dir: &TrailDir) -> Option<DeviceReport> {
    let dev = rustix::fs::fstat(dir.as_fd()).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let node = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // A partition has no queue of its own; its disk, one level up, has.
    let disk = if node.join("queue").is_dir() { node.clone() } else { node.parent()?.into() };
    device_from(&node.file_name()?.to_string_lossy(), &disk.join("queue"))
}

/// Reads a device's `queue` directory in sysfs.
fn device_from(name: &str, queue: &Path) -> Option<DeviceReport> {
    let text = |attribute: &str| {
        let text = std::fs::read_to_string(queue.join(attribute)).ok()?;
        Some(text.trim().to_owned())
    };
    let number = |attribute: &str| text(attribute)?.parse::<u32>().ok();
    Some(DeviceReport {
        name: name.into(),
        logical_block_bytes: number("logical_block_size")?,
        physical_block_bytes: number("physical_block_size")?,
        volatile_cache: text("write_cache").map(|cache| cache == "write back"),
        fua: number("fua").map(|fua| fua != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(at: &Path) -> Found {
        probe(&TrailDir::open(at).unwrap()).unwrap()
    }

    #[test]
    fn a_probe_leaves_nothing_behind_and_stays_in_the_allowed_range() {
        let at = tempfile::tempdir().unwrap();
        let found = found(at.path());
        let align = found.geometry.align_bytes;
        assert!((ALIGN_BYTES_MIN..=ALIGN_BYTES_MAX).contains(&align) && align.is_power_of_two());
        assert_eq!(std::fs::read_dir(at.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_named_trial_file_is_gone_at_once() {
        let at = tempfile::tempdir().unwrap();
        let dir = TrailDir::open(at.path()).unwrap();
        let trial = Trial { fd: named_trial(&dir).unwrap(), ours: true };
        statx_align(&trial).unwrap();
        assert_eq!(std::fs::read_dir(at.path()).unwrap().count(), 0);
    }

    #[test]
    fn tmpfs_is_named_and_warned_about() {
        let Ok(at) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("SKIPPED: no /dev/shm");
            return;
        };
        let found = found(at.path());
        assert_eq!(found.filesystem, "tmpfs");
        assert!(found.warnings.iter().any(|line| line.contains("power cut")), "{found:?}");
        assert!(found.device.is_none());
    }

    #[test]
    fn sysfs_is_read_with_or_without_its_newer_attributes() {
        let queue = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(queue.path().join(name), text).unwrap();
        assert_eq!(device_from("sda", queue.path()), None);
        put("logical_block_size", "512\n");
        put("physical_block_size", "4096\n");
        let device = device_from("sda", queue.path()).unwrap();
        assert_eq!((device.volatile_cache, device.fua), (None, None));
        put("write_cache", "write back\n");
        put("fua", "0\n");
        let device = device_from("sda", queue.path()).unwrap();
        assert_eq!((device.volatile_cache, device.fua), (Some(true), Some(false)));
        let mut warnings = Vec::new();
        let at = |align_bytes| Geometry { align_bytes, direct: true };
        device_warnings(Some(&device), at(4096), &mut warnings);
        device_warnings(Some(&device), at(512), &mut warnings);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("can damage"));
    }
}
