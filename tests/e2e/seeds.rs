//! `graven bench seeds` on this machine's kernel: each cell is a figure or says why there is none, what was to be recorded is there,
//! and kernel audit is afterwards as it was, also when it is interrupted.

use crate::rig::audit::{Turn, rules};
use crate::rig::{Running, graven, has, run, temp_dir};
use graven_writer::source::kaudit;
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Short, and everything that this machine may have.
fn seeds(dir: &Path, more: &[&str]) -> Command {
    let mut command = graven();
    command.args(["bench", "seeds", "--repetitions", "1", "--seconds", "20ms", "--dir"]);
    command.arg(dir).args(more);
    command
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it was written")).expect("it is JSON")
}

fn row<'a>(report: &'a Value, condition: &str) -> &'a Value {
    let rows = report["rows"].as_array().expect("rows");
    let found = rows.iter().find(|it| it["condition"] == condition);
    found.unwrap_or_else(|| panic!("no {condition} in {report:#}"))
}

/// Of a row: whether it has figures. Every cell of it is either a figure or a reason.
#[track_caller]
fn has_figures(row: &Value) -> bool {
    let calls = row["calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 7, "{row:#}");
    let is_figure = |cell: &Value| {
        let figure = cell["median"].as_f64().is_some_and(|it| it > 0.0);
        let reason = cell["reason"].as_str().is_some_and(|it| !it.is_empty());
        assert!(figure != reason, "neither or both: {cell}");
        figure
    };
    is_figure(&row["build"]["seconds"]);
    let figures: Vec<bool> = calls.iter().map(|it| is_figure(&it["us"])).collect();
    assert!(figures.iter().all(|it| *it == figures[0]), "{row:#}");
    figures[0]
}

/// What must be as before: settings and rules.
fn settings() -> (Vec<u32>, String) {
    let it = kaudit::status().expect("the status");
    let numbers = vec![
        it.pid,
        it.enabled,
        it.failure,
        it.rate_limit,
        it.backlog_limit,
        it.backlog_wait_ticks.unwrap_or(0),
    ];
    (numbers, rules())
}

#[test]
fn each_cell_is_a_figure_or_says_why_and_the_kernel_is_as_it_was() {
    // The command takes the turn itself. What every holder finds, every holder leaves.
    let Some(turn) = Turn::take() else { return };
    let before = settings();
    drop(turn);
    let (dir, out) = (temp_dir(), temp_dir());
    let json = out.path().join("json");
    let all = "on,rules,discard,auditd,auditd-data,graven,shim-rules,shim";
    let more = ["--files", "2", "--condition", all, "--json", &json.to_string_lossy()];
    let ran = run(&mut seeds(dir.path(), &more), b"").expect(0);
    let report = report(&json);
    let Some(_turn) = Turn::take() else { return };
    assert_eq!(settings(), before, "{report:#}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0);

    for condition in all.split(',').chain(["off"]) {
        let figures = has_figures(row(&report, condition));
        let expected = match condition {
            "shim" | "shim-rules" => Path::new("/dev/graven").exists(),
            "auditd" | "auditd-data" => has("auditd"),
            _ => true,
        };
        assert_eq!(figures, expected, "{condition}: {}", ran.text());
    }
    let count = |condition: &str, name: &str| row(&report, condition)["recorded"][name].as_u64();
    for condition in ["on", "rules"] {
        assert_eq!(count(condition, "recorded"), Some(0), "{report:#}");
    }
    for condition in ["discard", "graven"] {
        assert!(count(condition, "null_calls") > Some(100), "{report:#}");
        assert_eq!(count(condition, "recorded"), count(condition, "null_calls"), "{condition}");
        assert_eq!(count(condition, "lost"), Some(0), "{condition}");
    }
    // Complete and intact, no loss stated.
    assert_eq!(row(&report, "graven")["recorded"]["verified"], serde_json::json!([0]));
    // Of 2004 there is what was written, and nothing else.
    assert_eq!(row(&report, "on")["calls"][0]["us_2004"], 0.21);
    assert_eq!(row(&report, "discard")["build"]["speed_2004"], 0.79);
    assert!(row(&report, "graven")["build"]["speed_2004"].is_null());
    for words in ["16453.354.904646.836231@neuro.alephnull.com", "behind", "complete and intact"] {
        assert!(ran.text().contains(words), "{words}: {}", ran.text());
    }
}

#[test]
fn interrupted_it_puts_everything_back() {
    let Some(turn) = Turn::take() else { return };
    let before = settings();
    drop(turn);
    let dir = temp_dir();
    let more = ["--files", "0", "--condition", "graven", "--repetitions", "1000"];
    let mut command = graven();
    command.args(["bench", "seeds", "--seconds", "20ms", "--dir"]).arg(dir.path()).args(more);
    let mut running = Running::start(&mut command, Stdio::null());
    // Its daemon and its rule are there: in the middle of a run.
    let ours = |_: &Running| {
        let (numbers, rules) = settings();
        numbers[0] != 0 && rules.contains("graven-seeds")
    };
    running.wait_until("a rule of its own", ours);
    std::thread::sleep(Duration::from_millis(50));
    running.signal(Signal::INT);
    let ran = running.end();
    assert_eq!(ran.code(), -2, "{}", ran.stderr);
    assert!(ran.stderr.contains("interrupted"), "{}", ran.stderr);
    let Some(_turn) = Turn::take() else { return };
    assert_eq!(settings(), before);
    assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0);
}

#[test]
fn without_root_it_measures_what_it_can_and_says_why_not_the_rest() {
    if !crate::rig::is_root() || !has("setpriv") {
        return;
    }
    let dir = temp_dir();
    let work = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(work.path(), Some(65_534), Some(65_534)).expect("root may");
    // Copied, because the build's folder need not be anybody's.
    let program = work.path().join("graven");
    std::fs::copy(env!("CARGO_BIN_EXE_graven"), &program).expect("there is room");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["bench", "seeds", "--repetitions", "1", "--seconds", "5ms", "--files", "0"]);
    command.arg("--dir").arg(work.path()).arg("--json").arg(work.path().join("json"));
    let ran = run(command.current_dir(dir.path()), b"").expect(0);
    let report = report(&work.path().join("json"));
    assert!(has_figures(row(&report, "off")), "{}", ran.text());
    assert!(report["kernel_audit_as_found"].as_str().is_some_and(|it| it.contains("root")));
    for condition in ["on", "rules", "discard", "auditd", "graven"] {
        assert!(!has_figures(row(&report, condition)), "{condition}: {}", ran.text());
    }
}
