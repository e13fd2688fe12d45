//! A process that may start no more threads: it says so and ends with a code that is documented.

use crate::rig::lines::Lines;
use crate::rig::{Ran, graven, has, is_root, on, record, run, skip, temp_dir};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

const LINES: Lines = Lines { seed: 21, bytes_max: 4 * 1024, long_every: 0 };

/// A user whom nobody is: the limit counts all threads of a user, and root is exempt from it.
const UID: u32 = 3_210_987;

/// More threads than recording needs.
const ENOUGH: u32 = 16;

/// The same command as [`UID`], which may have so many threads.
fn limited(command: &Command, threads: u32) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nproc={threads}:{threads}")).arg("--").arg(command.get_program());
    limited.args(command.get_args()).uid(UID).gid(UID);
    limited
}

/// Records some lines as [`UID`] with so many threads at most.
fn recorded(trail: &Path, driver: &str, threads: u32) -> Ran {
    let mut command = record(trail);
    command.args(["--disk", driver, "--ring-bytes", "1M"]);
    run(&mut limited(&command, threads), &LINES.bytes(0, 50))
}

#[test]
fn a_limit_on_threads_is_said_and_loses_nothing() {
    if !is_root() || !has("prlimit") {
        return;
    }
    let dir = temp_dir();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).expect("it is ours");
    let version = run(limited(graven().arg("--version"), ENOUGH).current_dir("/"), b"");
    if version.code() != 0 {
        skip(&format!("another user cannot run what was built: {}", version.stderr));
        return;
    }
    for driver in ["uring", "sync"] {
        let mut refused = 0;
        let enough = (1..=ENOUGH).find(|threads| {
            let trail = dir.path().join(format!("{driver}-{threads}"));
            let ran = recorded(&trail, driver, *threads);
            if ran.code() == 0 {
                assert_eq!(ran.acknowledged(), Some(49));
                assert_eq!(LINES.check(&trail), 50);
                return true;
            }
            refused += 1;
            // A panic would be 101, and `run` looks for its text as well. 5: the kernel's own threads for
            // io_uring, which it makes when it first needs them.
            assert!(matches!(ran.code(), 2 | 5), "{}: {}", ran.code(), ran.stderr);
            let ran = ran.says("error: ").says("thread").says("help: ");
            // Whatever was made of the trail is one, and goes on where it was.
            let exported = on("export", &trail, &[]);
            let there = if exported.code() == 0 { LINES.count(&exported.stdout) } else { 0 };
            assert!(ran.acknowledged().is_none_or(|last| last < there), "{there} are there");
            let mut command = record(&trail);
            run(command.args(["--disk", driver]), &LINES.bytes(there, 50)).expect(0);
            assert_eq!(LINES.check(&trail), 50);
            on("verify", &trail, &[]).expect(0);
            false
        });
        eprintln!("{driver}: {refused} limits were too low, {enough:?} was enough");
        assert!(enough.is_some() && refused >= 2, "{driver}: {refused} refused, {enough:?} enough");
    }
}
