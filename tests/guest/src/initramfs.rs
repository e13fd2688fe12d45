//! The first root of a guest: a cpio archive (format newc) in memory.

use crate::command::{find, need, text};
use crate::kernel::Kernel;
use crate::{GuestError, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the kernel starts. The kernel's log is ttyS0, the script's words ttyS1, its data ttyS2.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
# The shell finds its other commands through /proc.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mkdir /dev/shm
stty -F /dev/ttyS1 raw
stty -F /dev/ttyS2 raw
exec </dev/null >/dev/ttyS1 2>&1
while read -r module; do
    insmod "/modules/$module" || echo "guest: no module $module"
done </modules/order
sh /script
echo "guest: end $?"
# Closing waits until the port has sent everything.
exec >/dev/console 2>&1
poweroff -f
"#;

/// Modules that every guest needs for its disks.
const DISKS: [&str; 2] = ["virtio_pci", "virtio_blk"];

/// What is in a guest when it starts: busybox, programs with their libraries, files, a script.
#[derive(Clone, Debug)]
pub struct Initramfs {
    /// By path, without the slash in front; each directory sorts before what is in it.
    entries: BTreeMap<String, Entry>,
    modules: Vec<String>,
}

#[derive(Clone, Debug)]
enum Entry {
    Directory,
    File {
        mode: u32,
        bytes: Vec<u8>,
    },
    Link(String),
    /// The console, which the kernel opens for the first process.
    Console,
}

const MODE_DIRECTORY: u32 = 0o040_755;
const MODE_FILE: u32 = 0o100_000;
const MODE_LINK: u32 = 0o120_777;
const MODE_CHARACTERS: u32 = 0o020_600;

impl Initramfs {
    /// Busybox, what the disks need of `kernel`, and what starts the script.
    ///
    /// # Errors
    /// [`GuestError::Missing`] without a busybox that needs no libraries.
    pub fn new(kernel: &Kernel) -> Result<Self> {
        let mut this = Self { entries: BTreeMap::new(), modules: Vec::new() };
        for dir in ["proc", "sys", "dev", "tmp", "mnt", "run", "modules"] {
            this.directory(dir);
        }
        this.put("dev/console", Entry::Console);
        let busybox = need("busybox", "busybox-static")?;
        if !libraries(&busybox)?.is_empty() {
            let why = "busybox is linked dynamically (apt-get install busybox-static)";
            return Err(GuestError::Missing(why.to_owned()));
        }
        this.file("bin/busybox", 0o755, read(&busybox)?);
        this.link("bin/sh", "busybox");
        this.file("init", 0o755, INIT.into());
        this.modules(kernel, &DISKS)?;
        Ok(this)
    }

    /// Adds modules and what they depend on; they are loaded, in this order, before the script.
    ///
    /// # Errors
    /// The kernel has no such module.
    pub fn modules(&mut self, kernel: &Kernel, names: &[&str]) -> Result<&mut Self> {
        for (name, bytes) in kernel.modules(names)? {
            if !self.modules.contains(&name) {
                self.file(&format!("modules/{name}"), 0o644, bytes);
                self.modules.push(name);
            }
        }
        Ok(self)
    }

    /// Adds a program as `/bin/NAME`, with the libraries that it is linked to.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn program(&mut self, name: &str, path: &Path) -> Result<&mut Self> {
        self.program_at(&format!("bin/{name}"), path)
    }

    /// The same where this machine has it, for one that looks for others from there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn placed(&mut self, path: &Path) -> Result<&mut Self> {
        self.program_at(path.to_string_lossy().trim_start_matches('/'), path)
    }

    /// The same at a path of the guest's, without the slash in front.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn program_at(&mut self, at: &str, path: &Path) -> Result<&mut Self> {
        for library in libraries(path)? {
            let at = library.to_string_lossy();
            self.file(at.trim_start_matches('/'), 0o755, read(&library)?);
        }
        Ok(self.file(at, 0o755, read(path)?))
    }

    /// Adds a program of this machine under its own name.
    ///
    /// # Errors
    /// [`GuestError::Missing`] if this machine does not have it; `package` has.
    pub fn host_program(&mut self, name: &str, package: &str) -> Result<&mut Self> {
        let path = need(name, package)?;
        self.program(name, &path)
    }

    /// Adds a file, and the directories that it stands in.
    pub fn file(&mut self, path: &str, permissions: u32, bytes: Vec<u8>) -> &mut Self {
        self.put(path, Entry::File { mode: MODE_FILE | permissions, bytes })
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, path: &str) -> &mut Self {
        self.put(path, Entry::Directory)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> &mut Self {
        self.put(path, Entry::Link(to.to_owned()))
    }

    /// Sets what the guest does; its exit code is the verdict.
    pub fn script(&mut self, text: &str) -> &mut Self {
        self.file("script", 0o755, text.into())
    }

    fn put(&mut self, path: &str, entry: Entry) -> &mut Self {
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
        self
    }

    /// The archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut order = self.modules.join("\n").into_bytes();
        order.push(b'\n');
        let order = Entry::File { mode: MODE_FILE | 0o644, bytes: order };
        let last = ("modules/order".to_owned(), order);
        let mut out = Vec::new();
        let entries = self.entries.iter().chain(std::iter::once((&last.0, &last.1)));
        for (number, (path, entry)) in entries.enumerate() {
            append(&mut out, number, path, entry);
        }
        append(&mut out, 0, "TRAILER!!!", &Entry::File { mode: 0, bytes: Vec::new() });
        out
    }
}

/// Appends one entry: a header of hexadecimal numbers, the name, the bytes; each padded to 4.
fn append(out: &mut Vec<u8>, number: usize, path: &str, entry: &Entry) {
    let (mode, bytes, device) = match entry {
        Entry::Directory => (MODE_DIRECTORY, &[][..], (0, 0)),
        Entry::File { mode, bytes } => (*mode, &bytes[..], (0, 0)),
        Entry::Link(to) => (MODE_LINK, to.as_bytes(), (0, 0)),
        Entry::Console => (MODE_CHARACTERS, &[][..], (5, 1)),
    };
    let header = [
        number,
        mode as usize,
        0, // uid
        0, // gid
        1, // links
        0, // modified
        bytes.len(),
        0, // device of the archive
        0,
        device.0,
        device.1,
        path.len() + 1,
        0, // no checksum
    ];
    out.extend_from_slice(b"070701");
    for field in header {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The libraries of a program, as its loader finds them; none if it is linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Some(ldd) = find("ldd") else {
        return Err(GuestError::Missing("there is no program ldd".to_owned()));
    };
    // It ends with 1 for what has no loader.
    let Ok(listed) = text(Command::new(ldd).arg(program)) else { return Ok(Vec::new()) };
    let paths = listed.lines().filter_map(|line| {
        // `libc.so.6 => /lib/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
        let (name, _) = line.rsplit_once(" (")?;
        let path = name.rsplit(" => ").next()?.trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|why| GuestError::failed(format!("read {}", path.display()), why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::Stdio;

    #[test]
    fn the_archive_is_one_that_cpio_reads() {
        let Ok(busybox) = need("busybox", "busybox-static") else {
            return eprintln!("SKIPPED: there is no program busybox");
        };
        let mut initramfs = Initramfs { entries: BTreeMap::new(), modules: vec!["a".into()] };
        initramfs.file("deep/er/file", 0o640, b"four\n".to_vec());
        initramfs.directory("modules").put("deep/link", Entry::Link("er/file".into()));
        let dir = tempfile::tempdir().unwrap();
        let mut cpio = Command::new(busybox)
            .args(["cpio", "-i", "-d"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&initramfs.archive()).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(fs::read(dir.path().join("deep/link")).unwrap(), b"four\n");
        assert_eq!(fs::read(dir.path().join("modules/order")).unwrap(), b"a\n");
    }
}
