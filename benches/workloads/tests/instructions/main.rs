//! Instructions of the hot paths beside those of the last release: more than 5 % more fail.
//!
//! Time drifts on a shared machine by several times; the number of instructions of the same program on the same input
//! does not. Valgrind counts those of [`graven_workloads::counted_region`] and what it calls, in the release profile,
//! and `benches/instructions.toml` holds what the last release took. A count belongs to the tools that it was made
//! with. With others nothing is compared, which is said as `SKIPPED`: then the last release is to be counted again.

use baseline::{Baseline, Counts, Judgement, Tools, judge};
use graven_workloads::{RUNS, WORKLOADS};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Instant;

mod baseline;

/// Set it to write the baseline anew.
const REGENERATE: &str = "GRAVEN_REGENERATE_INSTRUCTIONS";

/// What belongs to the release profile stays, what a caller's environment adds to it does not.
const ADDED: [&str; 3] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE"];

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../instructions.toml")
}

fn said(command: &mut Command) -> Output {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command:?}: {}\n{stderr}", ran.status);
    ran
}

/// The first line of what a program says.
fn line(program: &str, args: &[&str]) -> String {
    let said = said(Command::new(program).args(args));
    String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned()
}

fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var_os("GRAVEN_E2E_STRICT").is_none(), "SKIPPED: {why}");
}

fn valgrind_is_there() -> bool {
    let there = Command::new("valgrind").arg("--version").output().is_ok();
    if !there {
        skip("instructions are not counted: valgrind is not installed");
    }
    there
}

/// The program that does the work, as a release has it.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let start = Instant::now();
        // The one of this profile is target/debug/graven-work.
        let debug = Path::new(env!("CARGO_BIN_EXE_graven-work"));
        let target = debug.ancestors().nth(2).expect("a target directory");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--locked", "--quiet", "--package", "graven-workloads"]);
        cargo.args(["--bin", "graven-work", "--target-dir"]).arg(target);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ADDED.iter().any(|added| text.starts_with(added)) {
                cargo.env_remove(&name);
            }
        }
        said(&mut cargo);
        println!("built for release in {:.0} s", start.elapsed().as_secs_f64());
        target.join("release/graven-work")
    })
}

/// Valgrind, without what a user's settings or environment might change: also the length of the environment moves the
/// stack, and with it what is copied how.
fn valgrind(args: &[&str]) -> Output {
    let mut valgrind = Command::new("valgrind");
    valgrind.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    said(valgrind.arg("--command-line-only=yes").args(args))
}

/// Instructions of so many runs of a workload.
fn count(name: &str, runs: u32) -> u64 {
    let program = program().to_str().expect("a path of text");
    let said = valgrind(&[
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=*counted_region*",
        program,
        name,
        &runs.to_string(),
    ]);
    let said = String::from_utf8_lossy(&said.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    // Had valgrind not found the region, it would have counted nothing.
    count.filter(|count| *count > 0).unwrap_or_else(|| panic!("no count of {name}:\n{said}"))
}

fn tools() -> Tools {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let program = program().to_str().expect("a path of text");
    let seen = valgrind(&["--tool=none", program, "processor"]);
    Tools {
        rustc: line(&rustc, &["--version"]),
        // Zstandard is C.
        cc: line(&cc, &["--version"]),
        libc: line("getconf", &["GNU_LIBC_VERSION"]),
        valgrind: line("valgrind", &["--version"]),
        processor: String::from_utf8_lossy(&seen.stdout).trim().to_owned(),
    }
}

#[test]
fn no_hot_path_takes_more_instructions_than_in_the_last_release() {
    if !valgrind_is_there() {
        return;
    }
    let tools = tools();
    let start = Instant::now();
    let counts: Counts =
        WORKLOADS.iter().map(|it| (it.name.to_owned(), count(it.name, RUNS))).collect();
    let seconds = start.elapsed().as_secs_f64();
    println!("{} workloads counted in {seconds:.0} s", counts.len());
    if std::env::var_os(REGENERATE).is_some() {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        let baseline = Baseline { release, tools, instructions: counts };
        std::fs::write(baseline_path(), baseline.to_text()).expect("the baseline is written");
        return println!("written: {}", baseline_path().display());
    }
    let text = std::fs::read_to_string(baseline_path()).expect("benches/instructions.toml");
    let baseline: Baseline = toml::from_str(&text).expect("a baseline");
    let Judgement { lines, refused, other_tools } = judge(&baseline, &tools, &counts);
    lines.iter().for_each(|line| println!("{line}"));
    if !other_tools.is_empty() {
        return skip(&format!(
            "instructions are not compared with release {}: counted with other tools ({}); in a checkout of that \
             release run {REGENERATE}=1 cargo test -p graven-workloads --test instructions, and take its \
             benches/instructions.toml",
            baseline.release,
            other_tools.join("; ")
        ));
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn a_tenth_more_work_is_refused_and_the_same_work_is_not() {
    if !valgrind_is_there() {
        return;
    }
    let tools = tools();
    let once = |runs| Counts::from([("nlmsg/parse".to_owned(), count("nlmsg/parse", runs))]);
    let (release, instructions) = ("the same".to_owned(), once(10));
    let baseline = Baseline { release, tools: tools.clone(), instructions };
    let same = judge(&baseline, &tools, &once(10));
    assert!(same.refused.is_empty() && same.other_tools.is_empty(), "{:?}", same.refused);
    let more = judge(&baseline, &tools, &once(11));
    assert!(matches!(&more.refused[..], [one] if one.contains("nlmsg/parse")), "{:?}", more.lines);
}
