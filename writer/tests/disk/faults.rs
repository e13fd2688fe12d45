//! A disk that is full, a kernel that says no: every operation ends, with the reason.

use crate::rig::{Rig, everywhere, text_of};
use crate::{A, B, create};
use graven_writer::disk::{DiskChoice, DriverKind, FileId, Op, open_disk};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A filesystem of its own, unmounted at the end.
struct Mount {
    at: TempDir,
    _image: Option<tempfile::NamedTempFile>,
}

impl Mount {
    /// `None`, with a word about it, where we may not mount.
    fn new(what: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let mounted = |args: &[&str]| run("mount", args).then_some(());
        let path = at.path().to_str()?;
        let mount = if what == "tmpfs" {
            mounted(&["-t", "tmpfs", "-o", "size=4m", "tmpfs", path]).map(|()| None)
        } else {
            let image = tempfile::NamedTempFile::new().unwrap();
            image.as_file().set_len(16 << 20).unwrap();
            let from = image.path().to_str()?;
            let made = run(&format!("mkfs.{what}"), &["-q", "-F", from]);
            if made { mounted(&["-o", "loop", from, path]).map(|()| Some(image)) } else { None }
        };
        if mount.is_none() {
            eprintln!("SKIPPED: cannot mount {what} here");
        }
        Some(Self { _image: mount?, at })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = self.at.path().to_str().unwrap();
        if !std::thread::panicking() {
            assert!(run("umount", &[path]), "a driver that is gone holds no file");
        } else {
            run("umount", &["-l", path]);
        }
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

fn rig_in(at: &Path, choice: DiskChoice) -> Option<Rig> {
    Rig::new(tempfile::tempdir_in(at).unwrap(), choice)
}

/// Fills the disk to the last block, through file `A`.
fn fill(rig: &mut Rig) {
    for len in [1 << 20, 64 << 10, 4096, rig.align() as u64] {
        let mut offset = 0;
        while rig.run(Op::Zero { file: A, offset, len }).result.is_ok() {
            offset += len;
        }
    }
}

#[test]
fn a_full_disk_is_an_error_that_brings_the_buffer_back() {
    for what in ["tmpfs", "ext4"] {
        for choice in [DiskChoice::Uring, DiskChoice::Sync] {
            // One each: what the first has freed is not free before the next journal commit.
            let Some(mount) = Mount::new(what) else { continue };
            eprintln!("{choice:?} on {what}");
            let Some(mut rig) = rig_in(mount.at.path(), choice) else { continue };
            rig.ok(create(A, "a"));
            assert_eq!(rig.errno(Op::Allocate { file: A, len: 1 << 30 }), libc::ENOSPC);
            rig.ok(Op::Truncate { file: A, len: 0 });
            assert_eq!(rig.errno(Op::Zero { file: A, offset: 0, len: 1 << 30 }), libc::ENOSPC);
            // What was freed is free once the journal is committed.
            rig.ok(Op::Sync { file: A });
            fill(&mut rig);
            let done = rig.write(A, 1 << 30, 1);
            let error = done.result.expect_err("the disk is full");
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
            assert!(done.buf.is_some());
            // A barrier has failed, so no later one on this file is believed.
            rig.ok(Op::Truncate { file: A, len: 0 });
            assert_eq!(rig.errno(Op::Sync { file: A }), libc::ENOSPC);
            // Opened anew, it is a file like any other.
            rig.ok(Op::Close { file: A });
            rig.ok(Op::Open { file: A, name: "a".into() });
            rig.write(A, 0, 1).result.unwrap();
            assert_eq!(text_of(&mut *rig.disk, "a")[0], 1);
        }
    }
}

/// Full is a state: a driver opens on it, and finds the same alignment.
#[test]
fn a_full_disk_can_be_opened() {
    for what in ["tmpfs", "ext4"] {
        for choice in [DiskChoice::Uring, DiskChoice::Sync] {
            // One each: what the first has freed is not free before the next journal commit.
            let Some(mount) = Mount::new(what) else { continue };
            let Some(mut rig) = rig_in(mount.at.path(), choice) else { continue };
            let roomy = rig.disk.geometry();
            rig.ok(create(A, "a"));
            fill(&mut rig);
            rig.reopen();
            assert_eq!(rig.disk.geometry(), roomy, "{what}");
        }
    }
}

/// Makes a system call fail in this thread from now on (a seccomp filter). `false` if that cannot
/// be done.
fn forbid(call: libc::c_long, errno: i32) -> bool {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut is_call = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32);
    is_call.jf = 1;
    let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
    let mut filter = [
        // The number of the call is the first word that a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_call,
        statement(libc::BPF_RET | libc::BPF_K, refuse),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes integers only.
    let ready = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `program` describes `filter`, and both outlive the call.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    if ready != 0 || set != 0 {
        eprintln!("SKIPPED: no seccomp filter here");
    }
    ready == 0 && set == 0
}

/// Runs in a thread of its own, which a filter does not outlive.
fn aside(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().unwrap();
}

#[test]
fn without_io_uring_there_is_the_plain_driver_and_a_reason() {
    for (errno, reason) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "no io_uring")] {
        aside(move || {
            let at = tempfile::tempdir().unwrap();
            if !forbid(libc::SYS_io_uring_setup, errno) {
                return;
            }
            let (_, report) = open_disk(at.path(), DiskChoice::Auto, &mut [], None).unwrap();
            assert_eq!(report.driver, DriverKind::Sync);
            let said = report.fallback_reason.unwrap();
            assert!(said.contains(reason) || said.contains("io_uring_disabled"), "{said}");
            assert!(open_disk(at.path(), DiskChoice::Uring, &mut [], None).is_err());
        });
    }
}

#[test]
fn a_ring_that_dies_ends_all_that_is_in_flight_and_all_that_comes() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EBADF] {
        aside(move || {
            let at = tempfile::tempdir().unwrap();
            let Some(mut rig) = rig_in(at.path(), DiskChoice::Uring) else { return };
            rig.ok(create(A, "a"));
            rig.ok(Op::Allocate { file: A, len: 64 << 20 });
            rig.submit(Op::Zero { file: A, offset: 0, len: 64 << 20 });
            // Started now, most likely not complete.
            rig.disk.poll(&mut Vec::new());
            let align = rig.align();
            for at in 0..20 {
                let buf = rig.buffer();
                rig.submit(Op::Write { file: A, offset: (at * align) as u64, buf, len: align });
            }
            if !forbid(libc::SYS_io_uring_enter, errno) {
                return;
            }
            for _ in 0..21 {
                let error = rig.next().result.expect_err("the ring is dead");
                assert_eq!(error.raw_os_error(), Some(errno));
            }
            let done = rig.write(A, 0, 1);
            assert_eq!(done.result.unwrap_err().raw_os_error(), Some(errno));
            assert!(done.buf.is_some(), "it was never given to the kernel");
            // Sleeping and waking still work, and so does reading.
            rig.disk.waker().wake();
            rig.disk.wait(Some(Duration::from_secs(3600)));
            rig.disk.wait(Some(Duration::from_millis(1)));
            assert_eq!(rig.disk.list().unwrap().len(), 1);
        });
    }
}

/// A barrier that fails in the plain driver fails every write behind it, and is not repeated.
#[test]
fn a_failed_barrier_fails_its_whole_group() {
    aside(|| {
        let at = tempfile::tempdir().unwrap();
        // The worker thread inherits the filter, so it has to be there before the driver.
        if !forbid(libc::SYS_fdatasync, libc::EIO) {
            return;
        }
        let Some(mut rig) = rig_in(at.path(), DiskChoice::Sync) else { return };
        rig.ok(create(A, "a"));
        let align = rig.align();
        for at in 0..10 {
            let buf = rig.buffer();
            rig.submit(Op::Write { file: A, offset: (at * align) as u64, buf, len: align });
        }
        for _ in 0..10 {
            let done = rig.next();
            assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EIO));
            assert!(done.buf.is_some());
        }
        assert_eq!(rig.errno(Op::Sync { file: A }), libc::EIO, "fsync itself would succeed");
    });
}

/// A file may be no longer than a limit of the process: the kernel writes up to there, and has been asked for more.
#[test]
fn a_write_that_comes_out_short_is_gone_on_with_and_fails_where_it_cannot() {
    const BYTES: u64 = 20 * 1024;
    const INSIDE: &str = "GRAVEN_DISK_SHORT_WRITES";
    if std::env::var_os(INSIDE).is_none() {
        // In 512-byte blocks. The signal would end the process.
        let limit = format!("trap '' XFSZ; ulimit -f {} && exec \"$0\" \"$@\"", BYTES / 512);
        let test = "faults::a_write_that_comes_out_short_is_gone_on_with_and_fails_where_it_cannot";
        let ran = Command::new("sh")
            .args(["-c", &limit])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{ran:?}");
        return;
    }
    everywhere(|rig| {
        rig.ok(create(A, "a"));
        rig.ok(create(B, "b"));
        let whole = |rig: &mut Rig, file: FileId, len| {
            let mut buf = rig.buffer();
            buf.fill(7);
            rig.run(Op::Write { file, offset: 0, buf, len })
        };
        let done = whole(rig, A, 2 * BYTES as usize);
        let error = done.result.expect_err("there is no room for the rest");
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        assert!(done.buf.is_some());
        assert_eq!(text_of(&mut *rig.disk, "a"), vec![7; BYTES as usize]);
        // Nothing is believed of it any more; the other one has what it can have.
        assert_eq!(rig.write(A, 0, 1).result.unwrap_err().raw_os_error(), Some(libc::EFBIG));
        whole(rig, B, BYTES as usize).result.unwrap();
        assert_eq!(text_of(&mut *rig.disk, "b"), vec![7; BYTES as usize]);
    });
}
