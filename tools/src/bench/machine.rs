//! Where it was measured.

use crate::time::rfc3339;
use graven_writer::clock::{self, Now};
use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The machine, and the filesystem below the directory.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The architecture.
    pub architecture: String,
    /// The processor's name.
    pub processor: Option<String>,
    /// Processors that this process may use.
    pub processors: usize,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// The filesystem's type.
    pub filesystem: Option<String>,
    /// What is mounted.
    pub device: Option<String>,
    /// Where.
    pub mount_point: Option<String>,
    /// How, the filesystem's own options included.
    pub mount_options: Option<String>,
    /// Graven's driver on it.
    pub driver: Option<String>,
}

impl Machine {
    /// Looks at it.
    #[must_use]
    pub fn look(dir: &Path) -> Self {
        let uname = rustix::system::uname();
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kib = memory.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let dev = fs::metadata(dir)
            .ok()
            .map(|it| (rustix::fs::major(it.dev()), rustix::fs::minor(it.dev())));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = dev.and_then(|dev| mount(&mounts, dev));
        let text = |at: fn(&Mount) -> &String| mount.as_ref().map(|it| at(it).clone());
        let disk = crate::doctor::look(Some(dir)).place.and_then(|it| it.disk);
        let driver = disk.map(|disk| {
            let how = if disk.direct { "direct" } else { "through the page cache" };
            format!("{}, {how}, aligned to {} bytes", disk.driver, disk.align_bytes)
        });
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.map(|kib| kib * 1024),
            filesystem: text(|it| &it.filesystem),
            device: text(|it| &it.device),
            mount_point: text(|it| &it.point),
            mount_options: text(|it| &it.options),
            driver,
        }
    }
}

/// What every report begins with.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// Of the report's JSON.
    pub schema_version: u32,
    /// The version of this program.
    pub graven: &'static str,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Where it was measured.
    pub machine: Machine,
}

impl About {
    /// Of what began then, in this directory, and has just ended.
    #[must_use]
    pub fn of(schema_version: u32, began: Now, dir: &Path) -> Self {
        let took_ns = clock::now().boottime_ns.saturating_sub(began.boottime_ns);
        Self {
            schema_version,
            graven: env!("CARGO_PKG_VERSION"),
            started: rfc3339(began.realtime_ns),
            took_s: took_ns as f64 / 1e9,
            machine: Machine::look(dir),
        }
    }
}

struct Mount {
    filesystem: String,
    device: String,
    point: String,
    options: String,
}

/// The last mount of a device in `/proc/self/mountinfo`, see proc(5).
fn mount(text: &str, (major, minor): (u32, u32)) -> Option<Mount> {
    let number = format!("{major}:{minor}");
    text.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let before: Vec<_> = before.split(' ').collect();
        let [_, _, found, _, point, options, ..] = before[..] else { return None };
        let mut after = after.split(' ');
        let (filesystem, device, own) =
            (after.next()?, after.next()?, after.next().unwrap_or_default());
        (found == number).then(|| Mount {
            filesystem: filesystem.to_owned(),
            device: device.to_owned(),
            point: point.to_owned(),
            options: if own.is_empty() { options.to_owned() } else { format!("{options}; {own}") },
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_device() {
        let text = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
                    23 22 0:21 / /proc rw - proc proc rw\n";
        let it = mount(text, (254, 0)).expect("it is there");
        assert_eq!(
            (it.filesystem.as_str(), it.device.as_str(), it.point.as_str()),
            ("ext4", "/dev/vda", "/")
        );
        assert_eq!(it.options, "rw,relatime; rw,discard");
        assert!(mount(text, (1, 1)).is_none());
        assert!(mount("nonsense\n", (1, 1)).is_none());
        assert!(Machine::look(".".as_ref()).processors > 0);
    }
}
