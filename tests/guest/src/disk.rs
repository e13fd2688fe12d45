//! Disks of a guest, and what a test does with their images on the host.

use crate::command::{need, output};
use crate::{GuestError, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How QEMU writes an image. The guest sees a disk with a volatile write cache in either case.
///
/// A write that was completed is in the image when QEMU is killed, whether the guest has flushed or not: the
/// host's memory is no cache that a killed process loses. So images lose what the guest kept, and
/// no more; [`crate::Volatile`] loses what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMode {
    /// Through the host's page cache; a flush is an fdatasync of the host.
    Writeback,
    /// Past it (O_DIRECT).
    None,
}

/// A disk of a guest: `/dev/vda` is the first that it is given.
#[derive(Clone, Debug)]
pub enum Disk {
    /// An image.
    Image {
        /// Its file.
        path: PathBuf,
        /// How QEMU writes it.
        cache: CacheMode,
    },
    /// What answers at a socket, as [`crate::Volatile`] does.
    Socket(PathBuf),
}

impl Disk {
    /// Its arguments for QEMU, as the disk of this number.
    pub(crate) fn args(&self, number: usize) -> [String; 4] {
        // A comma in a file's name is written twice.
        let quoted = |path: &Path| path.to_string_lossy().replace(',', ",,");
        let (file, cache) = match self {
            Self::Image { path, cache: CacheMode::Writeback } => (quoted(path), "writeback"),
            Self::Image { path, cache: CacheMode::None } => (quoted(path), "none"),
            Self::Socket(path) => (format!("nbd+unix:///?socket={}", quoted(path)), "writeback"),
        };
        let drive = format!("file={file},format=raw,if=none,id=disk{number},cache={cache}");
        let device = format!("virtio-blk-pci,drive=disk{number}");
        ["-drive".to_owned(), drive, "-device".to_owned(), device]
    }
}

/// A raw image with an ext4 filesystem on it.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
}

impl Image {
    /// Makes one of so many MiB.
    ///
    /// # Errors
    /// [`GuestError::Missing`] without e2fsprogs.
    pub fn ext4(path: &Path, mib: u64) -> Result<Self> {
        for program in ["mkfs.ext4", "e2fsck", "debugfs"] {
            need(program, "e2fsprogs")?;
        }
        File::create(path)
            .and_then(|file| file.set_len(mib << 20))
            .map_err(|why| GuestError::failed(format!("make {}", path.display()), why))?;
        output(Command::new(need("mkfs.ext4", "e2fsprogs")?).args(["-q", "-F"]).arg(path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As a disk.
    #[must_use]
    pub fn disk(&self, cache: CacheMode) -> Disk {
        Disk::Image { path: self.path.clone(), cache }
    }

    /// Copies a folder of the filesystem, as it is after the journal was replayed, into the folder `to`. The
    /// image stays as it is. The filesystem itself must be sound: it would not have to be on a disk
    /// that lies.
    ///
    /// # Errors
    /// There is no such folder, or the filesystem is damaged.
    pub fn copy_out(&self, folder: &str, to: &Path) -> Result<PathBuf> {
        let copy = to.join("examined.img");
        output(Command::new("cp").arg("--sparse=always").arg(&self.path).arg(&copy))?;
        let fsck = need("e2fsck", "e2fsprogs")?;
        output(Command::new(&fsck).args(["-p", "-E", "journal_only"]).arg(&copy))?;
        // It would mend what a crash may leave, and complain of anything else.
        output(Command::new(&fsck).args(["-f", "-n"]).arg(&copy))?;
        let dump = format!("rdump {folder} {}", to.display());
        output(Command::new(need("debugfs", "e2fsprogs")?).args(["-R", &dump]).arg(&copy))?;
        // It ends with 0 whatever happens.
        let out = to.join(folder.rsplit('/').next().unwrap_or(folder));
        if !out.is_dir() {
            return Err(GuestError::failed(dump, "there is no such folder"));
        }
        std::fs::remove_file(&copy).map_err(|why| GuestError::failed("remove a copy", why))?;
        Ok(out)
    }
}
