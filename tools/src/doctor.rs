//! What this machine offers for recording: looked at without changing anything, except that a
//! nameless file is tried in the trail's directory.

use crate::escape;
use graven_writer::disk::{DiskChoice, DiskReport, IoBuf, open_disk};
use graven_writer::source::kaudit;
use graven_writer::source::session::current_session;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Version of the JSON that `doctor --json` prints.
pub const SCHEMA_VERSION: u32 = 1;

/// Buffers for trying a driver: as many as it takes to see whether it registers them.
const TRIAL_BUFFERS: usize = 4;

/// Everything that was seen.
#[derive(Debug, Serialize)]
pub struct Checkup {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of this program.
    pub graven: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's architecture.
    pub machine: String,
    /// What this process may do.
    pub process: Process,
    /// io_uring in general.
    pub io_uring: IoUring,
    /// Kernel audit.
    pub audit: Option<Audit>,
    /// Why it cannot be asked.
    pub audit_error: Option<String>,
    /// The place of a trail, if one was named.
    pub place: Option<Place>,
    /// What stands in the way, or will.
    pub warnings: Vec<Warning>,
}

/// What this process may do.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Its effective uid.
    pub uid: u32,
    /// The capabilities that recording from the kernel needs and that are missing.
    pub capabilities_missing: Vec<&'static str>,
    /// Its audit session, if it has one.
    pub audit_session: Option<u32>,
    /// Bytes of memory that it may lock, if that is limited.
    pub memlock_bytes: Option<u64>,
}

/// io_uring in general.
#[derive(Debug, Serialize)]
pub struct IoUring {
    /// The sysctl `kernel.io_uring_disabled`: 0 for everybody, 1 for the privileged, 2 for nobody;
    /// absent before Linux 6.6.
    pub disabled: Option<u32>,
}

/// The state of kernel audit.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// 0 off, 1 on, 2 on and locked until the next boot.
    pub enabled: u32,
    /// 0 silent, 1 a kernel message, 2 a panic.
    pub failure: u32,
    /// The audit daemon, if there is one.
    pub daemon: Option<Daemon>,
    /// Records a second that the kernel makes at most; 0 for no limit.
    pub rate_limit: u32,
    /// Records in the kernel's queue.
    pub backlog: u32,
    /// Most records in it before producers wait.
    pub backlog_limit: u32,
    /// Records that the kernel lost since boot, or since somebody reset this.
    pub lost: u32,
    /// Why records cannot be left in mapped memory and have to be received one by one.
    pub mapping_error: Option<String>,
}

/// The audit daemon.
#[derive(Debug, Serialize)]
pub struct Daemon {
    /// Its pid.
    pub pid: u32,
    /// Its name; absent if it is gone.
    pub comm: Option<String>,
}

/// Where a trail is, or is to be.
#[derive(Debug, Serialize)]
pub struct Place {
    /// The directory that was looked at: the one that was named, or where it would be made.
    pub directory: String,
    /// Whether the directory that was named is there.
    pub exists: bool,
    /// The writer that runs on it.
    pub writer_pid: Option<u32>,
    /// Bytes that are free for this user.
    pub free_bytes: Option<u64>,
    /// How it would be written.
    pub disk: Option<Disk>,
    /// Why that cannot be tried.
    pub disk_error: Option<String>,
}

/// How a trail would be written.
#[derive(Debug, Serialize)]
pub struct Disk {
    /// `io_uring` or `pwrite and fdatasync`.
    pub driver: String,
    /// Why it is not io_uring.
    pub fallback_reason: Option<String>,
    /// Whether buffers are registered with io_uring.
    pub buffers_registered: Option<bool>,
    /// Whether the barrier of a write that is alone in flight is an fdatasync linked to it, and not RWF_DSYNC; none
    /// without io_uring.
    pub linked_flush: Option<bool>,
    /// Whether writes bypass the page cache.
    pub direct: bool,
    /// Bytes to which frames are aligned.
    pub align_bytes: u32,
    /// What statx says that direct I/O needs.
    pub statx_align_bytes: Option<u32>,
    /// The filesystem.
    pub filesystem: String,
    /// The block device below, if it can be found.
    pub device: Option<Device>,
}

/// A block device.
#[derive(Debug, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Bytes that it addresses.
    pub logical_block_bytes: u32,
    /// Bytes that it writes at once.
    pub physical_block_bytes: u32,
    /// Whether it says that it has a volatile cache.
    pub volatile_cache: Option<bool>,
    /// Whether it takes single writes past that cache.
    pub fua: Option<bool>,
}

/// What stands in the way, or will.
#[derive(Debug, Serialize)]
pub struct Warning {
    /// In one sentence.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Looks at the machine, and at `place` if one is named.
#[must_use]
pub fn look(place: Option<&Path>) -> Checkup {
    let uname = rustix::system::uname();
    let mut warnings = Vec::new();
    let process = process(&mut warnings);
    let io_uring = io_uring(&mut warnings);
    let (audit, audit_error) = split(audit(&mut warnings));
    let place = place.map(|path| look_at_place(path, &mut warnings));
    Checkup {
        schema_version: SCHEMA_VERSION,
        graven: env!("CARGO_PKG_VERSION"),
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        process,
        io_uring,
        audit,
        audit_error,
        place,
        warnings,
    }
}

/// What is there and why it is not, as two fields: programs find the first where it is.
fn split<T>(known: Result<T, String>) -> (Option<T>, Option<String>) {
    match known {
        Ok(known) => (Some(known), None),
        Err(why) => (None, Some(why)),
    }
}

fn warn(warnings: &mut Vec<Warning>, message: impl Into<String>, help: &str) {
    let help = Some(help).filter(|help| !help.is_empty()).map(str::to_owned);
    warnings.push(Warning { message: message.into(), help });
}

fn process(warnings: &mut Vec<Warning>) -> Process {
    let effective = status_field("CapEff:").unwrap_or(0);
    // The numbers are those of linux/capability.h.
    let needed = [("CAP_NET_ADMIN", 12), ("CAP_AUDIT_WRITE", 29), ("CAP_AUDIT_CONTROL", 30)];
    let capabilities_missing: Vec<&str> = needed
        .into_iter()
        .filter_map(|(name, bit)| (effective >> bit & 1 == 0).then_some(name))
        .collect();
    if !capabilities_missing.is_empty() {
        let message = format!("missing {}", capabilities_missing.join(", "));
        let help =
            "`graven run` and `record --source netlink` need root; `--source stdin` does not";
        warn(warnings, message, help);
    }
    Process {
        uid: rustix::process::geteuid().as_raw(),
        capabilities_missing,
        audit_session: current_session().ok().flatten(),
        memlock_bytes: getrlimit(Resource::Memlock).current,
    }
}

/// A mask in `/proc/self/status`.
fn status_field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn io_uring(warnings: &mut Vec<Warning>) -> IoUring {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let disabled = text.and_then(|text| text.trim().parse().ok());
    if disabled.is_some_and(|disabled| disabled != 0) {
        let message = format!(
            "io_uring is restricted: kernel.io_uring_disabled is {}",
            disabled.unwrap_or(0)
        );
        warn(warnings, message, "records are as safe without it, and a commit costs a little more");
    }
    IoUring { disabled }
}

fn audit(warnings: &mut Vec<Warning>) -> Result<Audit, String> {
    let status = kaudit::status().map_err(|why| why.to_string())?;
    let daemon = (status.pid != 0).then(|| Daemon {
        pid: status.pid,
        comm: std::fs::read_to_string(format!("/proc/{}/comm", status.pid))
            .ok()
            .map(|comm| escape::Escaped(comm.trim_end().as_bytes()).to_string()),
    });
    if let Some(daemon) = &daemon {
        let name = daemon.comm.as_deref().unwrap_or("gone");
        let message = format!("process {} ({name}) is the audit daemon", daemon.pid);
        warn(warnings, message, "the kernel serves one at a time: stop it before recording");
    }
    if status.enabled == 2 {
        let message = "the audit configuration is locked";
        warn(warnings, message, "only a reboot unlocks it: rules cannot be added until then");
    }
    if status.lost > 0 {
        let message = format!("the kernel has lost {} audit records since boot", status.lost);
        warn(warnings, message, "`graven record` states what is lost while it runs");
    }
    if status.rate_limit > 0 {
        let message =
            format!("the kernel drops what is over {} records a second", status.rate_limit);
        warn(warnings, message, "`auditctl -r 0` takes the limit away");
    }
    Ok(Audit {
        enabled: status.enabled,
        failure: status.failure,
        daemon,
        rate_limit: status.rate_limit,
        backlog: status.backlog,
        backlog_limit: status.backlog_limit,
        lost: status.lost,
        mapping_error: kaudit::try_mapping().err().map(|why| why.to_string()),
    })
}

fn look_at_place(path: &Path, warnings: &mut Vec<Warning>) -> Place {
    let directory = existing(path);
    let disk = try_disk(&directory);
    match &disk {
        Ok(report) => warnings.extend(report.warnings.iter().map(|warning| Warning {
            message: escape::Escaped(warning.as_bytes()).to_string(),
            help: None,
        })),
        Err(why) => warn(warnings, format!("no trail can be written there: {why}"), ""),
    }
    let free_bytes = rustix::fs::statvfs(&directory)
        .ok()
        .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let (disk, disk_error) = split(disk.map(Disk::from));
    Place {
        exists: directory == path,
        writer_pid: crate::trail::live::writer_of(path).and_then(|writer| writer.pid),
        directory: escape::path(&directory),
        free_bytes,
        disk,
        disk_error,
    }
}

/// The directory itself, or the nearest one above it that is there.
fn existing(path: &Path) -> PathBuf {
    let above = path.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    match above {
        Some(path) if !path.as_os_str().is_empty() => path.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn try_disk(directory: &Path) -> Result<DiskReport, String> {
    let buffers: Result<Vec<_>, _> =
        (0..TRIAL_BUFFERS).map(|_| IoBuf::new(graven_format::consts::FRAME_BYTES_MAX)).collect();
    let tried =
        buffers.and_then(|mut buffers| open_disk(directory, DiskChoice::Auto, &mut buffers, None));
    tried
        .map(|(_, report)| report)
        .map_err(|why| escape::Escaped(why.to_string().as_bytes()).to_string())
}

impl From<DiskReport> for Disk {
    fn from(report: DiskReport) -> Self {
        Self {
            driver: report.driver.to_string(),
            fallback_reason: report.fallback_reason,
            buffers_registered: report.ring.as_ref().map(|ring| ring.buffers_registered),
            linked_flush: report.ring.as_ref().map(|ring| ring.linked_flush),
            direct: report.geometry.direct,
            align_bytes: report.geometry.align_bytes,
            statx_align_bytes: report.statx_align_bytes,
            filesystem: report.filesystem,
            device: report.device.map(|device| Device {
                name: device.name,
                logical_block_bytes: device.logical_block_bytes,
                physical_block_bytes: device.physical_block_bytes,
                volatile_cache: device.volatile_cache,
                fua: device.fua,
            }),
        }
    }
}
