//! The kernel shim in its kernels: what it records is all there once, whoever is killed, stopped or cut off, and programs
//! cannot see that it is there.

mod build;
mod cases;
mod full;
mod seeds;
mod service;
mod speed;
mod trail;

use crate::rig::{cache, here, kernel, machine, skip, temp_dir, verify, with_graven};
use graven_guest::{CacheMode, End, Headers, Image, Initramfs, Kernel, Line, Machine, Verdict};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use trail::{Whole, records};

/// A guest with the module, `graven`, the workloads and a disk for the trail.
struct Rig {
    kernel: Kernel,
    dir: TempDir,
    image: Image,
    module: Vec<u8>,
}

impl Rig {
    /// One for each line of kernels that there is here.
    fn all() -> Vec<Self> {
        Line::ALL.into_iter().filter_map(Self::of).collect()
    }

    fn of(line: Line) -> Option<Self> {
        let (cache, kernel) = (cache()?, kernel(line)?);
        let headers = here(Headers::fetch(&cache, &kernel))?;
        let (dir, build) = (temp_dir(), temp_dir());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kmod-shim");
        let module = headers.build(&source, build.path(), "module/graven_shim").unwrap();
        // What is for a debugger is most of it.
        let stripped = Command::new("strip").arg("-g").arg(&module).status();
        assert!(stripped.is_ok_and(|it| it.success()), "strip: package binutils");
        let module = std::fs::read(module).unwrap();
        let image = here(Image::ext4(&dir.path().join("disk"), 512))?;
        Some(Self { kernel, dir, image, module })
    }

    /// Runs the script, behind what all of them share.
    fn machine(&self, script: &str) -> Option<Machine> {
        self.machine_of(self.initramfs(script, &[], &[])?)
    }

    /// The same with these programs of the package auditd, and files.
    fn machine_with(
        &self,
        script: &str,
        programs: &[&str],
        files: &[(String, String)],
    ) -> Option<Machine> {
        self.machine_of(self.initramfs(script, programs, files)?)
    }

    /// What such a guest has.
    fn initramfs(
        &self,
        script: &str,
        programs: &[&str],
        files: &[(String, String)],
    ) -> Option<Initramfs> {
        let mut initramfs = with_graven(&self.kernel)?;
        for program in programs {
            here(initramfs.host_program(program, "auditd"))?;
        }
        for (path, text) in files {
            initramfs.file(path, 0o640, text.as_bytes().to_vec());
        }
        here(initramfs.program("load", &load()?))?;
        initramfs
            .file("graven_shim.ko", 0o644, self.module.clone())
            .file("watched", 0o644, b"x".to_vec())
            .file("all.rules", 0o644, b"-a always,exit -F uid=1000\n".to_vec())
            .file("numbers.rules", 0o644, NUMBERS.as_bytes().to_vec())
            .script(&format!("{COMMON}{script}"));
        Some(initramfs)
    }

    /// The guest of it.
    fn machine_of(&self, initramfs: Initramfs) -> Option<Machine> {
        let mut machine = machine(&self.kernel, initramfs)?.size(512, 2);
        // The threads of QEMU 7.2 do not bear code that is changed under them, which a booting kernel and the module both do.
        if std::env::var_os("GRAVEN_GUEST_SHIM_THREADS").is_none() {
            machine = machine.single_thread();
        }
        // A campaign's guest lives as long as it has rounds.
        let limit = Duration::from_secs(400 + 120 * cases::rounds());
        Some(machine.disk(self.image.disk(CacheMode::Writeback)).limit(limit))
    }

    /// The verdict of a script that ended well, without a complaint in the kernel's log.
    fn run(&self, script: &str) -> Option<Verdict> {
        let running = here(self.machine(script)?.boot(self.dir.path()))?;
        let verdict = running.end().unwrap().expect(&End::Script(0));
        eprintln!("{}: {:?}", self.kernel.release, verdict.took);
        Some(verdict)
    }

    /// The same, and what of its trail, which is intact and without losses, the shim has recorded.
    fn recorded(&self, script: &str) -> Option<(Verdict, BTreeMap<u64, Whole>)> {
        let verdict = self.run(script)?;
        let trail = self.trail();
        verify(&trail, &[0]);
        Some((verdict, records(&trail)))
    }

    /// The trail that the guest has left.
    fn trail(&self) -> PathBuf {
        self.trail_of("trail")
    }

    /// One of several.
    fn trail_of(&self, folder: &str) -> PathBuf {
        let _ = std::fs::remove_dir_all(self.dir.path().join(folder));
        self.image.copy_out(&format!("/{folder}"), self.dir.path()).unwrap()
    }
}

/// Only numbered calls.
const NUMBERS: &str = "-a always,exit -F arch=b64 -S getppid -F uid=1000\n";

/// Functions of the guest's shell. `record RULES OPTION…` starts a reader of the trail `$trail`, whose process is `$reader`; `ended`
/// ends it, `finish` all.
const COMMON: &str = r#"
mount -t ext4 /dev/vda /mnt || exit 1
trail=/mnt/trail
load_shim() { graven shim load --module /graven_shim.ko "$@" || exit 1; }
record() {
    # Not the words of the one before.
    rm -f /tmp/reader; : >/tmp/reader
    rules=$1; shift
    graven record --source shim --trail $trail --shim-rules /$rules.rules --segment-bytes 8M \
        --compress-sealed 0 "$@" 2>/tmp/reader &
    reader=$!
    tries=0
    # Its own test of the module comes before.
    while ! grep -q 'recording from the kernel module' /tmp/reader; do
        kill -0 $reader && [ $tries -lt 600 ] || { cat /tmp/reader; exit 1; }
        tries=$((tries + 1)); sleep 0.05
    done
}
ended() { kill -TERM $reader; wait $reader || { cat /tmp/reader; exit 1; }; }
finish() { ended; graven shim unload || exit 1; umount /mnt; }
field() { graven shim status --json | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }
"#;

/// The workloads, compiled once for what they are made of.
fn load() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guest/shim/load.c");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kmod-shim/include");
    let mut hasher = DefaultHasher::new();
    for path in [&source, &include.join("graven_shim.h")] {
        std::fs::read(path).unwrap().hash(&mut hasher);
    }
    let name = format!("load-{:016x}", hasher.finish());
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if program.exists() {
        return Some(program);
    }
    let dir = temp_dir();
    let fresh = dir.path().join("load");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wno-unused-result", "-Werror", "-static"]);
    cc.args(["-pthread", "-I"]).arg(include).arg(source).arg("-o").arg(&fresh);
    let said = match cc.output() {
        Ok(said) => said,
        Err(why) => {
            skip(&format!("no C compiler: {why}"));
            return None;
        }
    };
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    std::fs::rename(&fresh, &program).unwrap();
    Some(program)
}
