//! Every system call of a writer's life fails, or is its last one, once: after it nothing that was
//! acknowledged is missing, and the process has ended by itself with an exit code that is documented.
//!
//! One run under strace tells which calls there are; then there is one run for each call, each of its
//! numbers, and each error. Errors inside io_uring are in [`crate::errors`]: the operations of a ring are no
//! system calls.

use crate::rig::lines::Lines;
use crate::rig::random::Random;
use crate::rig::strace::{calls, can_trace, under};
use crate::rig::{Ran, Running, on, record, run, temp_dir};
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Cases of one driver in a run that is not exhaustive.
const SAMPLE: usize = 250;

/// The lines that a life records: more than one segment.
const LINES_A_LIFE: u64 = 170;

/// Calls that a guarantee hangs on. Each fails with EIO and ENOSPC, and is the last one before a kill.
const STORAGE: &[&str] = &[
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "fallocate",
    "ftruncate",
    "flock",
    "io_uring_enter",
    "io_uring_setup",
    "io_uring_register",
];

/// The same for calls that the loader makes too, before anything is ours: they are counted, and fail,
/// only on the trail's own directory and files.
const STORAGE_BY_PATH: &[&str] = &["openat", "renameat2", "unlinkat"];

/// Calls that are tried too. Not among them: getrandom, which does not fail once the machine has booted,
/// and the reading of standard input, whose failure is a loss statement and has its own test.
const OTHERS: &[&str] = &["write", "mkdir", "close", "fcntl", "eventfd2", "socketpair", "clone3"];

/// See [`STORAGE_BY_PATH`].
const OTHERS_BY_PATH: &[&str] =
    &["getdents64", "statx", "newfstatat", "fstatfs", "fstat", "pread64"];

#[derive(Clone, Debug)]
struct Case {
    driver: &'static str,
    /// Whether the life begins on a trail whose writer was killed.
    after_kill: bool,
    call: String,
    number: u64,
    /// Whether only calls on the trail's directory and files count.
    by_path: bool,
    /// An errno, or a signal.
    error: &'static str,
}

/// What all cases share.
struct Setting {
    lines: Lines,
    /// A trail whose writer was killed.
    killed: PathBuf,
    /// Its records.
    killed_count: u64,
}

#[test]
fn one_failed_system_call_loses_nothing_with_pwrite() {
    every_call("sync");
}

#[test]
fn one_failed_system_call_loses_nothing_with_io_uring() {
    every_call("uring");
}

fn every_call(driver: &'static str) {
    if !can_trace() {
        return;
    }
    let seed = Random::seed();
    let mut random = Random::new(seed);
    let dir = temp_dir();
    let lines = Lines { seed, bytes_max: 8 * 1024, long_every: 0 };
    let (killed, killed_count) = killed_trail(dir.path(), &lines);
    let setting = Setting { lines, killed, killed_count };
    let mut cases = Vec::new();
    for after_kill in [false, true] {
        for by_path in [false, true] {
            cases.append(&mut list(dir.path(), &setting, driver, after_kill, by_path));
        }
    }
    let all = cases.len();
    if std::env::var_os("GRAVEN_E2E_INJECT_ALL").is_none() {
        cases = sample(cases, &mut random);
    }
    eprintln!("{driver}: {} of {all} cases, GRAVEN_E2E_SEED={seed}", cases.len());
    let queue = Mutex::new(cases.into_iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((index, case)) = queue.lock().expect("no panic").next() else { break };
                    let trail = dir.path().join(format!("case-{index}"));
                    one_case(&trail, &setting, &case);
                    std::fs::remove_dir_all(&trail).expect("it can be removed");
                }
            });
        }
    });
}

/// A trail of one segment and a bit whose writer was killed, and how many records it has.
fn killed_trail(dir: &Path, lines: &Lines) -> (PathBuf, u64) {
    let trail = dir.join("killed");
    let mut running = Running::start(record(&trail).args(["--ring-bytes", "1M"]), Stdio::piped());
    let mut stdin = running.stdin();
    stdin.write_all(&lines.bytes(0, LINES_A_LIFE)).expect("it reads");
    running
        .wait_until("the last acknowledgement", |it| it.acknowledged() == Some(LINES_A_LIFE - 1));
    assert_eq!(running.kill().code(), -9);
    assert_eq!(lines.check(&trail), LINES_A_LIFE);
    (trail, LINES_A_LIFE)
}

/// The life that is led: it recovers if there is something to, changes segment, and stops cleanly.
fn life(trail: &Path, driver: &str) -> Command {
    let mut command = record(trail);
    command.args(["--ring-bytes", "1M", "--disk", driver]);
    command
}

/// Runs a life under strace and lists what can fail in it.
fn list(
    dir: &Path,
    setting: &Setting,
    driver: &'static str,
    after_kill: bool,
    by_path: bool,
) -> Vec<Case> {
    let trail = dir.join(format!("listed-{after_kill}-{by_path}"));
    let from = begin(&trail, setting, after_kill);
    let log = dir.join("strace.log");
    let mut args = paths(&trail, by_path);
    args.extend(["-o".to_owned(), log.to_str().expect("a name of letters").to_owned()]);
    let mut command = under(&life(&trail, driver), &args);
    run(&mut command, &setting.lines.bytes(from, from + LINES_A_LIFE)).expect(0);
    let (storage_calls, other_calls) =
        if by_path { (STORAGE_BY_PATH, OTHERS_BY_PATH) } else { (STORAGE, OTHERS) };
    let mut cases = Vec::new();
    for (call, numbers) in calls(&log, &trail) {
        let storage = storage_calls.contains(&call.as_str());
        if !storage && !other_calls.contains(&call.as_str()) {
            continue;
        }
        let errors: &[&'static str] = match call.as_str() {
            _ if storage => &["error=EIO", "error=ENOSPC", "signal=SIGKILL"],
            "clone3" => &["error=EAGAIN"],
            // Most writes are to an eventfd, and that cannot fail.
            "fcntl" | "close" | "write" => &["signal=SIGKILL"],
            _ => &["error=EIO"],
        };
        for (number, error) in numbers.iter().flat_map(|n| errors.iter().map(|e| (*n, *e))) {
            let call = call.clone();
            cases.push(Case { driver, after_kill, call, number, by_path, error });
        }
    }
    cases
}

/// What restricts strace to the files that the trail has now, and to those of its names that are
/// always the same.
fn paths(trail: &Path, by_path: bool) -> Vec<String> {
    if !by_path {
        return Vec::new();
    }
    let listed = std::fs::read_dir(trail).into_iter().flatten().flatten();
    let listed = listed.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = listed.collect();
    names.extend(["lock", "identity", "identity.tmp", ""].map(str::to_owned));
    let path = |name: String| trail.join(name).to_string_lossy().trim_end_matches('/').to_owned();
    names.into_iter().flat_map(|name| ["-P".to_owned(), path(name)]).collect()
}

/// Puts a trail where a case wants it, and returns how many records it has.
fn begin(trail: &Path, setting: &Setting, after_kill: bool) -> u64 {
    if !after_kill {
        return 0;
    }
    std::fs::create_dir(trail).expect("a directory");
    for entry in std::fs::read_dir(&setting.killed).expect("it is there") {
        let entry = entry.expect("it can be listed");
        if entry.file_type().is_ok_and(|it| it.is_socket()) {
            continue;
        }
        std::fs::copy(entry.path(), trail.join(entry.file_name())).expect("it can be copied");
    }
    setting.killed_count
}

/// The first and the last number of each call and error, and others by chance.
fn sample(cases: Vec<Case>, random: &mut Random) -> Vec<Case> {
    let same =
        |a: &Case, b: &Case| (a.after_kill, &a.call, a.error) == (b.after_kill, &b.call, b.error);
    let end = |index: usize| {
        let case = &cases[index];
        let first = !cases[..index].iter().any(|it| same(it, case));
        let last = !cases[index + 1..].iter().any(|it| same(it, case));
        let storage = [STORAGE, STORAGE_BY_PATH].concat().contains(&case.call.as_str());
        storage && case.error == "error=EIO" && (first || last)
    };
    let (mut taken, mut rest): (Vec<_>, Vec<_>) = (0..cases.len()).partition(|index| end(*index));
    while taken.len() < SAMPLE && !rest.is_empty() {
        taken.push(rest.swap_remove(random.below(rest.len() as u64) as usize));
    }
    taken.sort_unstable();
    taken.into_iter().map(|index| cases[index].clone()).collect()
}

fn one_case(trail: &Path, setting: &Setting, case: &Case) {
    let from = begin(trail, setting, case.after_kill);
    let lines = &setting.lines;
    let inject = format!("inject={}:{}:when={}", case.call, case.error, case.number);
    let mut args = paths(trail, case.by_path);
    args.extend(["-o", "/dev/null", "-e", &inject].map(str::to_owned));
    let mut command = under(&life(trail, case.driver), &args);
    let ran = run(&mut command, &lines.bytes(from, from + LINES_A_LIFE));
    judge(&ran, case, from);
    let acknowledged = ran.acknowledged().map_or(from, |seq| seq + 1);
    if trail.join("identity").exists() {
        let durable = acknowledged.saturating_sub(1).to_string();
        let args = if acknowledged > 0 { vec!["--durable", &durable] } else { vec![] };
        let verified = on("verify", trail, &args);
        assert!(matches!(verified.code(), 0 | 3), "{case:?}: {}", verified.text());
    }
    // A clean start reads the truth from the disk, and goes on.
    let again = run(&mut life(trail, case.driver), b"");
    assert_eq!(again.code(), 0, "{case:?}: {}, after it: {}", ran.stderr, again.stderr);
    let there = lines.check(trail);
    assert!(there >= acknowledged, "{case:?}: {there} of {acknowledged} are there");
    assert!(there <= from + LINES_A_LIFE, "{case:?}: {there} are more than was sent");
    if ran.code() == 0 {
        assert_eq!(there, from + LINES_A_LIFE, "{case:?}: all is well, and not all is there");
    }
    run(&mut life(trail, case.driver), &lines.bytes(there, there + 3)).expect(0);
    on("verify", trail, &[]).expect(0);
    assert_eq!(lines.check(trail), there + 3, "{case:?}");
}

/// How the life with the failure has ended.
fn judge(ran: &Ran, case: &Case, from: u64) {
    let code = ran.code();
    let said = &ran.stderr;
    if case.error == "signal=SIGKILL" {
        assert!(matches!(code, 0 | -9 | 137), "{case:?}: {code}: {said}");
        return;
    }
    match code {
        0 => assert_eq!(
            ran.acknowledged(),
            Some(from + LINES_A_LIFE - 1),
            "{case:?}: all is well, and not all was acknowledged: {said}"
        ),
        2 | 5 | 6 => {
            assert!(said.contains("error: "), "{case:?}: {code} without a word: {said}");
        }
        _ => panic!("{case:?}: exit code {code} is not documented for this: {said}"),
    }
}
