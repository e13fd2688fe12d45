//! Builds the core with each fault, and runs this program's own tests with it.

use crate::faults::{By, FAULTS, Fault};
use crate::sanitized;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// A fault that makes the core spin is found by that.
const LONGEST: Duration = Duration::from_secs(30);
/// Runs for a fault that only threads show.
const TRIES: usize = 8;

/// The core's sources, changed in this way.
pub(crate) fn copy_core(dir: &Path, fault: Option<&Fault>) {
    for (folder, file) in [
        ("core", "graven_core.c"),
        ("core", "graven_core.h"),
        ("core", "graven_env.h"),
        ("include", "graven_shim.h"),
        ("twin/src", "twin.c"),
    ] {
        let mut text = fs::read_to_string(Path::new(SHIM).join(folder).join(file)).unwrap();
        if let Some(fault) = fault.filter(|fault| fault.file == file) {
            let there = text.matches(fault.from).count();
            assert_eq!(there, 1, "{}: {:?} must be in {file} once", fault.what, fault.from);
            text = text.replace(fault.from, fault.to);
        }
        fs::create_dir_all(dir.join(folder)).unwrap();
        fs::write(dir.join(folder).join(file), text).unwrap();
    }
}

/// They, as a library.
fn build(dir: &Path, fault: Option<&Fault>) -> PathBuf {
    copy_core(dir, fault);
    let library = dir.join("core.so");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-w", "-shared", "-fPIC", "-I"]).arg(dir.join("core"));
    let said = cc.arg("-o").arg(&library).arg(dir.join("twin/src/twin.c")).output().unwrap();
    let what = fault.map_or("nothing", |fault| fault.what);
    assert!(said.status.success(), "{what}: {}", String::from_utf8_lossy(&said.stderr));
    library
}

/// How the test ended with this core; `None`: it did not.
fn run(library: &Path, by: By) -> Option<ExitStatus> {
    let test = match by {
        By::Model => "random_interleavings_keep_the_invariants",
        By::Threads | By::Sanitizer => "threads::",
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--test-threads=1"]);
    command.env("GRAVEN_TWIN_LIBRARY", library).env("RUST_BACKTRACE", "0");
    command.env("GRAVEN_TWIN_SEED", "1").env("GRAVEN_TWIN_STEPS", "3000000");
    command.env("GRAVEN_TWIN_RECORDS", "20000");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn is_found(fault: &Fault) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let found = if fault.by == By::Sanitizer {
        copy_core(dir.path(), Some(fault));
        (0..TRIES).any(|_| sanitized::run("thread", &dir.path().join("core")).is_err())
    } else {
        let library = build(dir.path(), Some(fault));
        let tries = if fault.by == By::Model { 1 } else { TRIES };
        (0..tries).any(|_| !run(&library, fault.by).is_some_and(|status| status.success()))
    };
    println!(
        "{}: {} in {:?}",
        fault.what,
        if found { "found" } else { "NOT FOUND" },
        started.elapsed()
    );
    found
}

#[test]
fn the_core_as_it_is_passes_as_a_library() {
    let dir = tempfile::tempdir().unwrap();
    let library = build(dir.path(), None);
    for by in [By::Model, By::Threads] {
        assert!(run(&library, by).is_some_and(|status| status.success()), "{by:?}");
    }
}

#[test]
fn every_fault_is_found() {
    let next = AtomicUsize::new(0);
    let sanitizer = sanitized::works("thread");
    let missed = std::thread::scope(|scope| {
        let work = || {
            let mut missed = Vec::new();
            while let Some(fault) = FAULTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                if (sanitizer || fault.by != By::Sanitizer) && !is_found(fault) {
                    missed.push(fault.what);
                }
            }
            missed
        };
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(missed.is_empty(), "not found: {missed:?}");
}
