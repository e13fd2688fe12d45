//! A filesystem of its own on a loop device, which can stall and be full.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is left when it is full: less than a second of events.
const LEFT_BYTES: u64 = 256 << 10;

pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// A new one of so many MiB, mounted.
    pub(super) fn new(scratch: &Path, mib: u64) -> Result<Self> {
        let (image, path) = (scratch.join("image"), scratch.join("mnt"));
        // Written, so that it takes no room later that there may not be.
        File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir(&path)?;
        // Without blocks that only root may use: the daemons are root.
        run(Command::new("mkfs.ext4").args(["-qF", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).args([&image, &path]))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Freezes it, and has another process thaw it, come what may.
    pub(super) fn freeze(&self, seconds: u64) -> Result<()> {
        let script = format!("sleep {seconds}; exec fsfreeze -u \"$1\"");
        let mut thaw = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(&self.path)
            .stdin(Stdio::null())
            // An interrupt from the terminal is for us, and leaves it to thaw.
            .process_group(0)
            .spawn()?;
        run(Command::new("fsfreeze").arg("-f").arg(&self.path))?;
        let thawed = thaw.wait()?;
        if !thawed.success() {
            bail!("{} was not thawed: {thawed}", self.path.display());
        }
        Ok(())
    }

    /// Takes the room but for a little.
    pub(super) fn fill(&self) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.path)?;
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(LEFT_BYTES);
        let file = File::create(self.path.join("ballast"))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        Ok(file.sync_all()?)
    }

    pub(super) fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.path.join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("umount").arg(&self.path)) {
            eprintln!("warning: {why:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
