//! A slow disk: a control group whose writes to a device wait.

use super::mount::Mounted;
use super::{Running, skip};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where control groups of version 1 limit block devices.
const BLKIO: &str = "/sys/fs/cgroup/blkio";

/// Where those of version 2 do, if the controller is on.
const UNIFIED: &str = "/sys/fs/cgroup";

/// A group of its own that is gone on drop, and with it the limit.
pub(crate) struct Slow {
    group: PathBuf,
}

impl Slow {
    /// Makes the group, with so many writes a second to the disk; says so if that cannot be had here.
    pub(crate) fn group(disk: &Mounted, writes_a_second: u32) -> Option<Self> {
        let (parent, file, limit) = if Path::new(BLKIO).is_dir() {
            let limit = format!("{} {writes_a_second}", disk.device_number());
            (BLKIO, "blkio.throttle.write_iops_device", limit)
        } else {
            (UNIFIED, "io.max", format!("{} wiops={writes_a_second}", disk.device_number()))
        };
        let group = Path::new(parent).join(format!("graven-e2e-{}", std::process::id()));
        let slow = Self { group };
        let made = std::fs::create_dir(&slow.group)
            .and_then(|()| std::fs::write(slow.group.join(file), limit));
        if let Err(why) = made {
            skip(&format!("no control group can slow a disk down: {why}"));
            return None;
        }
        Some(slow)
    }

    /// Puts a process into it.
    pub(crate) fn take(&self, running: &Running) {
        let pid = running.pid().to_string();
        std::fs::write(self.group.join("cgroup.procs"), pid).expect("it can be moved");
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // A process that was killed is in it until the kernel has taken it apart.
        for _ in 0..500 {
            if std::fs::remove_dir(&self.group).is_ok() || !self.group.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.group.display());
    }
}
