//! Filesystems of our own: ext4 on a loop device, and tmpfs. Each is taken down when it is dropped, also
//! after a failure.

use super::{has, is_root, skip, temp_dir};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How often a busy filesystem is asked to go. The kernel takes apart what a killed process had open in
/// its own time.
const UNMOUNT_TRIES: u32 = 500;

/// What a file in memory takes whole or not at all.
pub(crate) const PAGE_BYTES: u32 = 4096;

/// A filesystem with a directory in it.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: PathBuf,
    device: Option<String>,
    /// The limit of its device's requests before it was changed.
    request_kib_before: Option<String>,
    /// Holds the mount point, and the device's file if it is there.
    _dir: tempfile::TempDir,
    /// The filesystem that the device's file is on.
    _below: Option<Box<Mounted>>,
}

/// Runs a tool of the system, and says what it said if it failed.
fn tool(program: &str, args: &[&str]) -> Result<String, String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output();
    let output = output.map_err(|why| format!("{program}: {why}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name of letters")
}

/// Whether this machine lets us make filesystems; says so if not.
pub(crate) fn can_mount() -> bool {
    if !is_root() || !["losetup", "mkfs.ext4", "mount", "umount"].into_iter().all(has) {
        return false;
    }
    let free = tool("losetup", &["-f"]);
    if let Err(why) = &free {
        skip(&format!("no loop devices: {why}"));
    }
    free.is_ok()
}

impl Mounted {
    /// ext4 of so many MiB on a loop device of this sector size.
    pub(crate) fn ext4(mib: u64, sector_bytes: u32) -> Self {
        Self::ext4_in(temp_dir(), None, mib, sector_bytes)
    }

    /// ext4 whose device fails: it says that it has `mib` MiB, and is a file on a tmpfs of less. What finds
    /// no room there is an error here.
    ///
    /// See [`Mounted::fail_by_pages`].
    pub(crate) fn ext4_on_failing_device(mib: u64, good_mib: u64) -> Self {
        let below = Self::tmpfs(good_mib);
        let dir = tempfile::Builder::new().tempdir_in(below.path()).expect("a directory");
        let mut disk = Self::ext4_in(dir, Some(Box::new(below)), mib, PAGE_BYTES);
        disk.fail_by_pages();
        disk
    }

    /// Makes its device's requests as small as a page, so that a file in memory takes each whole or not at
    /// all; its sectors have to be pages, or a request would span two.
    ///
    /// For the loop driver calls a write a success of which only the beginning was taken, which is a lie
    /// that no writer can see through.
    pub(crate) fn fail_by_pages(&mut self) {
        let limit = self.queue_limit();
        let before = std::fs::read_to_string(&limit).expect("a number").trim().to_owned();
        self.request_kib_before = Some(before);
        std::fs::write(&limit, (PAGE_BYTES >> 10).to_string()).expect("a limit");
    }

    /// Where the size of its device's requests is limited, in KiB.
    fn queue_limit(&self) -> String {
        format!("/sys/dev/block/{}/queue/max_sectors_kb", self.device_number())
    }

    fn ext4_in(
        dir: tempfile::TempDir,
        below: Option<Box<Mounted>>,
        mib: u64,
        sector_bytes: u32,
    ) -> Self {
        let image = dir.path().join("image");
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(mib << 20).expect("a length");
        Self::ext4_made_of(dir, below, &image, sector_bytes)
    }

    /// A new ext4 on a loop device over this file, mounted in `dir`.
    pub(crate) fn ext4_made_of(
        dir: tempfile::TempDir,
        below: Option<Box<Mounted>>,
        image: &Path,
        sector_bytes: u32,
    ) -> Self {
        let disk = Self::loop_device(dir, below, image, sector_bytes);
        // Everything is written now, and nothing in the background later.
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        tool("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096", "-E", lazy, disk.device()])
            .expect("a filesystem");
        disk.mount();
        disk
    }

    /// The ext4 that this file holds, mounted in `dir` from a loop device.
    pub(crate) fn ext4_that_is_on(dir: tempfile::TempDir, image: &Path) -> Self {
        let disk = Self::loop_device(dir, None, image, 512);
        disk.mount();
        disk
    }

    /// A loop device over this file, to be mounted. The drop takes it down.
    fn loop_device(
        dir: tempfile::TempDir,
        below: Option<Box<Mounted>>,
        image: &Path,
        sector_bytes: u32,
    ) -> Self {
        let at = dir.path().join("mnt");
        std::fs::create_dir(&at).expect("a directory");
        let sector = sector_bytes.to_string();
        let device = tool("losetup", &["-f", "--show", "-b", &sector, text(image)]);
        let device = Some(device.expect("a loop device"));
        Self { at, device, request_kib_before: None, _dir: dir, _below: below }
    }

    fn mount(&self) {
        tool("mount", &["-t", "ext4", self.device(), text(&self.at)]).expect("mounted");
    }

    fn device(&self) -> &str {
        self.device.as_deref().expect("it is on a device")
    }

    /// A tmpfs of so many MiB.
    pub(crate) fn tmpfs(mib: u64) -> Self {
        let dir = temp_dir();
        let at = dir.path().join("mnt");
        std::fs::create_dir(&at).expect("a directory");
        tool("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", text(&at)])
            .expect("mounted");
        Self { at, device: None, request_kib_before: None, _dir: dir, _below: None }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Where a trail goes.
    pub(crate) fn trail(&self) -> PathBuf {
        self.at.join("trail")
    }

    /// Its device's number as the kernel writes it, `7:0`.
    pub(crate) fn device_number(&self) -> String {
        let name = self.device().strip_prefix("/dev/").expect("it is a device");
        let file = format!("/sys/block/{name}/dev");
        std::fs::read_to_string(file).expect("a number").trim().to_owned()
    }

    /// Writes everything that the page cache holds of it.
    pub(crate) fn sync(&self) {
        let dir = std::fs::File::open(&self.at).expect("it is mounted");
        rustix::fs::syncfs(dir).expect("it is synced");
    }

    /// Free bytes.
    pub(crate) fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it with a file of its own until only so many bytes are free.
    pub(crate) fn fill(&self, leave_bytes: u64) -> PathBuf {
        let len = self.free_bytes().saturating_sub(leave_bytes);
        let ballast = self.at.join(format!("ballast-{len}"));
        // In many pieces, the file needs a few blocks more for the map of them.
        let fill = |blocks: u64| {
            let len = len.saturating_sub(blocks * 4096).max(1);
            tool("fallocate", &["-l", &len.to_string(), text(&ballast)])
        };
        (1..8).fold(fill(0), |filled, blocks| filled.or_else(|_| fill(blocks))).expect("room");
        ballast
    }

    /// Makes it read-only.
    pub(crate) fn read_only(&self) {
        tool("mount", &["-o", "remount,ro", text(&self.at)]).expect("remounted");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut unmounted = Err(String::new());
        for _ in 0..UNMOUNT_TRIES {
            unmounted = tool("umount", &[text(&self.at)]);
            match &unmounted {
                Err(why) if why.contains("busy") => std::thread::sleep(Duration::from_millis(20)),
                _ => break,
            }
        }
        if let Err(why) = unmounted {
            // Mounting had failed, or it is busy for ever: gone as soon as nobody uses it.
            let _ = tool("umount", &["-l", text(&self.at)]);
            eprintln!("{why}");
        }
        if let Some(before) = &self.request_kib_before {
            // The device may be another's next.
            let _ = std::fs::write(self.queue_limit(), before);
        }
        if let Some(device) = &self.device
            && let Err(why) = tool("losetup", &["-d", device])
        {
            eprintln!("{why}");
        }
    }
}
