//! What the tests share: kernels, guests with `graven` in them, and trails taken out of their disks.

use graven_guest::{Accelerator, Cache, GuestError, Initramfs, Kernel, Line, Machine};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

/// The command, as Cargo built it for this test.
const GRAVEN: &str = env!("CARGO_BIN_EXE_graven");

/// Says that a test did not run, and why.
pub(crate) fn skip(why: &str) {
    // In one piece, or another test's output comes in between.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
    assert!(std::env::var_os("GRAVEN_E2E_STRICT").is_none(), "SKIPPED: {why}");
}

/// A number from the environment.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

/// What was asked for, or nothing with the reason said if this machine lacks something; everything else that
/// goes wrong fails the test.
#[track_caller]
pub(crate) fn here<T>(result: Result<T, GuestError>) -> Option<T> {
    match result {
        Ok(it) => Some(it),
        Err(GuestError::Missing(why)) => {
            skip(&why);
            None
        }
        Err(why) => panic!("{why}"),
    }
}

/// Where packages are unpacked: beside what is built, so that a clean build begins anew.
pub(crate) fn cache() -> Option<Cache> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the build's folder");
    here(Cache::new(&target.join("guest")))
}

/// The newest kernel of a line.
pub(crate) fn kernel(line: Line) -> Option<Kernel> {
    here(Kernel::newest(&cache()?, line))
}

/// A directory for one test, on a real filesystem; it is removed on drop.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("guest-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// What a guest with `graven` has.
pub(crate) fn with_graven(kernel: &Kernel) -> Option<Initramfs> {
    let mut initramfs = here(Initramfs::new(kernel))?;
    here(initramfs.program("graven", Path::new(GRAVEN)))?;
    Some(initramfs)
}

/// A guest, under what the environment asks for.
pub(crate) fn machine(kernel: &Kernel, initramfs: Initramfs) -> Option<Machine> {
    let machine = Machine::new(kernel, initramfs);
    if std::env::var_os("GRAVEN_GUEST_ACCEL").is_none_or(|asked| asked != "kvm") {
        return Some(machine);
    }
    let dir = temp_dir();
    let best = here(Accelerator::best(kernel, dir.path()))?;
    eprintln!("accelerator: {best:?}");
    Some(machine.accelerator(best))
}

/// `graven ARGS…` on the host.
pub(crate) fn graven(args: &[&str]) -> Output {
    Command::new(GRAVEN).args(args).output().expect("graven runs")
}

/// Verifies a trail; its exit code is one of these.
#[track_caller]
pub(crate) fn verify(trail: &Path, codes: &[i32]) -> i32 {
    let verified = graven(&["verify", &trail.to_string_lossy()]);
    let code = verified.status.code().unwrap_or(-1);
    assert!(codes.contains(&code), "verify ends with {code}: {}", said(&verified));
    code
}

/// What a trail exports.
#[track_caller]
pub(crate) fn export(trail: &Path) -> String {
    let exported = graven(&["export", &trail.to_string_lossy()]);
    assert!(exported.status.success(), "{}", said(&exported));
    String::from_utf8_lossy(&exported.stdout).into_owned()
}

/// Both outputs of a process.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
