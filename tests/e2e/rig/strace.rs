//! strace: which system calls a process makes, and making one of them fail.

use super::{has, skip};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether strace is there and may trace.
pub(crate) fn can_trace() -> bool {
    if !has("strace") {
        return false;
    }
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=io_uring_setup:error=EPERM", "true"])
        .stderr(Stdio::null())
        .status();
    let works = traced.is_ok_and(|status| status.success());
    if !works {
        skip("strace may not trace, or cannot inject errors");
    }
    works
}

/// The same command under strace.
pub(crate) fn under(command: &Command, args: &[String]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq"]).args(args).arg("--");
    traced.arg(command.get_program()).args(command.get_args());
    traced
}

/// The system calls of one run: for each call, the numbers that it has in the thread that makes it,
/// from the first call on that names `trail`. What the loader and the runtime do before is not ours.
pub(crate) fn calls(log: &Path, trail: &Path) -> BTreeMap<String, Vec<u64>> {
    let text = std::fs::read(log).expect("strace has written its log");
    let text = String::from_utf8_lossy(&text).into_owned();
    let trail = trail.to_str().expect("a name of letters");
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut ours: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut begun = false;
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        // "<... write resumed>", "+++ exited with 0 +++".
        if !call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let number = counts.entry((thread, call)).or_default();
        *number += 1;
        begun |= call != "execve" && arguments.contains(trail);
        if begun {
            ours.entry(call.to_owned()).or_default().push(*number);
        }
    }
    // Two threads may make a call with the same number: strace counts in each by itself.
    for numbers in ours.values_mut() {
        numbers.sort_unstable();
        numbers.dedup();
    }
    ours
}
