//! `graven bench compare` as people use it: with what is installed here, with nothing, and with rivals that fail or lie.

#[path = "../../tests/kernel_turn.rs"]
mod kernel_turn;

use graven_writer::source::kaudit;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What the processes of a test have in their environment.
const MARK: &str = "GRAVEN_TEST_COMPARE";

struct Place {
    dir: tempfile::TempDir,
    mark: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        std::fs::create_dir(dir.path().join("runs")).expect("a directory");
        let mark = format!("{MARK}={}", dir.path().display());
        Self { dir, mark }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn compare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("graven"));
        command.args(["bench", "compare"]).args(args).arg("--dir").arg(self.path("runs"));
        command.arg("--json").arg(self.path("a.json")).env(MARK, self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn rows(&self) -> Vec<Value> {
        let json = std::fs::read(self.path("a.json")).expect("it was written");
        let report: Value = serde_json::from_slice(&json).expect("it is JSON");
        assert_eq!(report["schema_version"], 1);
        assert!(report["machine"]["kernel"].as_str().is_some_and(|it| !it.is_empty()));
        assert!(report["floor"]["p50_us"].as_f64() > Some(0.0));
        report["rows"].as_array().expect("rows").clone()
    }

    /// A program that is found first.
    fn program(&self, name: &str, script: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, script).expect("a script");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a script");
        let others = std::env::var("PATH").unwrap_or_default();
        format!("{}:{others}", self.dir.path().display())
    }

    /// Nothing is left: no file, no process.
    fn assert_clean(&self) {
        let left = std::fs::read_dir(self.path("runs")).expect("it is there").count();
        assert_eq!(left, 0, "files");
        let deadline = Instant::now() + Duration::from_secs(10);
        // A process whose parent was killed needs a moment to see it.
        while !self.processes().is_empty() {
            assert!(Instant::now() < deadline, "{:?} are left", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Command lines of those that this test has started, and they.
    fn processes(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").expect("proc").flatten().map(|it| it.path());
        let line = |it: PathBuf| {
            let environment = std::fs::read(it.join("environ")).ok()?;
            environment.split(|byte| *byte == 0).find(|it| *it == self.mark.as_bytes())?;
            let line = std::fs::read(it.join("cmdline")).ok()?;
            Some(text(&line).replace('\0', " "))
        };
        entries.filter_map(line).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn skip(why: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}

const SHORT: [&str; 6] = ["--seconds", "150ms", "--rounds", "1", "--group", "20"];

/// The row of a rival in a mode.
fn row<'a>(rows: &'a [Value], rival: &str, mode: &str) -> &'a Value {
    let found = rows.iter().find(|it| it["rival"] == rival && it["mode"] == mode);
    found.unwrap_or_else(|| panic!("no {rival}, {mode}"))
}

#[test]
fn what_everybody_has_is_what_was_sent() {
    let place = Place::new();
    // Records of different lengths, of which some have no room for a number.
    let trail = place.path("trail");
    let mut record = Command::new(assert_cmd::cargo::cargo_bin("graven"))
        .args(["record", "--source", "stdin", "--quiet", "--trail"])
        .arg(&trail)
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines: String = (0..40).map(|n| format!("{}\n", "x".repeat(n * n + 1))).collect();
    std::io::Write::write_all(&mut record.stdin.take().expect("a pipe"), lines.as_bytes())
        .expect("it reads");
    assert!(record.wait().expect("it ends").success());
    let sizes = format!("trail:{}", trail.display());
    let output = place
        .compare(&["--path", "library", "--producers", "3", "--size", &sizes])
        .args(SHORT)
        .output()
        .expect("it runs");
    assert_done(&output);
    let rows = place.rows();
    for it in &rows {
        let name = format!("{}, {}", it["rival"], it["mode"]);
        if it["state"]["is"] == "not_installed" {
            assert!(it["state"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{it}");
            assert!(it["per_s"].is_null() && it["sent"] == 0, "{it}");
            skip(&format!("{name}: {}", it["state"]["why"]));
            continue;
        }
        assert_eq!(it["state"]["is"], "measured", "{it}");
        assert!(it["sent"].as_u64() > Some(0), "{it}");
        assert_eq!((&it["found"], &it["lost"]), (&it["sent"], &Value::from(0)), "{it}");
        assert!(it["per_s"]["median"].as_f64() > Some(0.0), "{it}");
        assert!(it["over_graven"]["median"].as_f64() > Some(0.0), "{it}");
        // Of other processes the kernel tells it in ticks of 10 ms, and they may have had less.
        let cpu = it["cpu_us"]["median"].as_f64().expect("a number");
        assert!(cpu > 0.0 || it["rival"] != "graven", "{it}");
        // Whoever acknowledges has its latencies, and nobody else.
        assert_eq!(it["latency"].is_object(), it["durability"] == "acknowledged", "{it}");
        let weak = ["rsyslog", "journald"].contains(&it["rival"].as_str().expect("a name"));
        assert_eq!(it["durability"] == "weaker", weak, "{it}");
    }
    for mode in ["each", "group:20", "stream"] {
        let ours = row(&rows, "graven", mode);
        assert_eq!(ours["state"]["is"], "measured");
        assert_eq!(ours["over_graven"]["median"], 1.0);
        // The filesystem below may count nothing; else nobody writes less than the records.
        assert!(
            ours["written_bytes"].is_null()
                || ours["written_bytes"]["median"].as_f64() > Some(100.0)
        );
    }
    let table = text(&output.stdout);
    for word in ["library, each", "acknowledged", "sqlite", "lost"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    place.assert_clean();
}

#[test]
fn who_is_not_installed_is_reported_as_such() {
    let place = Place::new();
    let output = place.compare(&SHORT).env("PATH", "/nonexistent").output().expect("it runs");
    assert_done(&output);
    let rows = place.rows();
    for it in rows.iter().filter(|it| it["path"] == "library" && it["rival"] != "graven") {
        assert_eq!(it["state"]["is"], "not_installed", "{it}");
    }
    // Without auditctl nobody is measured there, Graven neither.
    for it in rows.iter().filter(|it| it["path"] == "netlink") {
        let expected =
            if it["rival"] == "graven record" { "not_measured" } else { "not_installed" };
        assert_eq!(it["state"]["is"], expected, "{it}");
    }
    assert_eq!(row(&rows, "graven", "each")["state"]["is"], "measured");
    assert_eq!(rows.iter().filter(|it| it["path"] == "shim").count(), 1);
    assert!(text(&output.stdout).contains("not installed: python3: "), "{}", text(&output.stdout));
    place.assert_clean();
}

#[test]
fn who_fails_is_cited_and_the_others_go_on() {
    let place = Place::new();
    let path = place.program(
        "redis-server",
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'Redis v=9.9'\necho 'no memory' >&2\nexit 1\n",
    );
    let mut command = place.compare(&["--path", "library", "--rival", "redis"]);
    let output = command.args(SHORT).env("PATH", path).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let rows = place.rows();
    let it = row(&rows, "redis", "each");
    assert_eq!((&it["state"]["is"], &it["version"]), (&"failed".into(), &"9.9".into()), "{it}");
    let why = it["state"]["why"].as_str().expect("why");
    assert!(
        why.starts_with("redis-server ended before it began") && why.ends_with("no memory"),
        "{why}"
    );
    for mode in ["each", "group:20", "stream"] {
        assert_eq!(row(&rows, "graven", mode)["state"]["is"], "measured");
    }
    assert!(text(&output.stdout).contains("FAILED: redis-server"), "{}", text(&output.stdout));
    place.assert_clean();
}

#[test]
fn who_has_lost_what_it_acknowledged_or_has_what_was_not_sent_is_found_out() {
    let place = Place::new();
    // Says that it has taken eight records. SQLite then has none; RocksDB has one of somebody else's.
    let path = place.program(
        "python3",
        "#!/bin/sh\n\
         case \"$3\" in\n\
         check) echo 9.9 ;;\n\
         run) read spec; echo ready; read go\n\
         echo '{\"sent\":[5,3],\"took_ns\":1000000,\"latencies_ns\":[1000]}'; cat >/dev/null ;;\n\
         read) [ \"$4\" = rocksdb ] && printf '\\003\\000\\000\\000abc'; exit 0 ;;\n\
         esac\n",
    );
    let mut command = place.compare(&["--path", "library", "--rival", "sqlite,rocksdb"]);
    let output = command.args(SHORT).env("PATH", path).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let rows = place.rows();
    let sqlite = row(&rows, "sqlite", "each");
    assert_eq!(sqlite["state"]["is"], "measured", "{sqlite}");
    let counts = ["sent", "found", "lost"].map(|name| sqlite[name].as_u64().expect("a number"));
    assert_eq!(counts, [8, 0, 8]);
    assert_eq!(sqlite["per_s"]["median"], 0.0, "what is not there was not durable");
    let rocksdb = row(&rows, "rocksdb", "each");
    assert_eq!(rocksdb["state"]["why"], "it has a record that was not sent: abc");
    place.assert_clean();
}

/// What may be compared of the settings of the kernel's audit.
fn settings() -> Option<(u32, u32, u32)> {
    let status = kaudit::status().ok()?;
    Some((status.pid, status.enabled, status.backlog_limit))
}

#[test]
fn a_storm_is_counted_event_by_event_and_kernel_audit_put_back() {
    let place = Place::new();
    let before = {
        let _turn = kernel_turn::take().expect("the turn");
        settings()
    };
    let output = place
        .compare(&["--path", "netlink", "--auditd", "raw:none", "--rival", "auditd,laurel"])
        .args(["--seconds", "200ms", "--rounds", "1"])
        .output()
        .expect("it runs");
    assert_done(&output);
    let rows = place.rows();
    assert_eq!(rows.len(), 3);
    for it in &rows {
        if it["state"]["is"] != "measured" {
            skip(&format!("{}: {}", it["rival"], it["state"]));
            continue;
        }
        let count = |name: &str| it[name].as_u64().expect("a number");
        assert!(count("sent") > 0 && count("found") > 0, "{it}");
        assert_eq!(count("sent"), count("found") + count("lost"), "{it}");
        assert_eq!(it["unit"], "events", "{it}");
        // What waits in kernel and keeper is memory, and two processes cannot fill it in this time.
        assert!(it["rival"] != "graven record" || count("lost") == 0, "{it}");
    }
    if rows[0]["state"]["is"] == "measured" {
        let _turn = kernel_turn::take().expect("the turn");
        assert_eq!(settings(), before);
        let rules = Command::new("auditctl").arg("-l").output().expect("auditctl");
        assert_eq!(text(&rules.stdout).trim(), "No rules");
    }
    place.assert_clean();
}

/// Audit on, as under somebody's daemon, until the end.
struct On(u32);

impl On {
    fn new() -> Option<Self> {
        let (pid, enabled, _) = settings()?;
        if pid != 0 || enabled > 1 || !Self::set(1) {
            return None;
        }
        Some(Self(enabled))
    }

    fn set(enabled: u32) -> bool {
        let status = Command::new("auditctl").args(["-e", &enabled.to_string()]).output();
        status.is_ok_and(|it| it.status.success())
    }
}

impl Drop for On {
    fn drop(&mut self) {
        Self::set(self.0);
    }
}

/// A journal of systemd's turns it on or off when it starts, unless it is told not to.
#[test]
fn who_runs_on_the_library_path_leaves_kernel_audit_as_it_is() {
    let place = Place::new();
    let _turn = kernel_turn::take().expect("the turn");
    let Some(_on) = On::new() else {
        return skip("kernel audit cannot be switched on here");
    };
    let before = settings();
    let output = place
        .compare(&["--path", "library", "--rival", "sqlite,rocksdb,redis,rsyslog,journald"])
        .args(SHORT)
        .output()
        .expect("it runs");
    assert_done(&output);
    for it in place.rows().iter().filter(|it| it["state"]["is"] != "measured") {
        skip(&format!("{}: {}", it["rival"], it["state"]));
    }
    assert_eq!(settings(), before);
    place.assert_clean();
}

#[test]
fn an_interrupted_run_leaves_nothing_behind_and_ends_as_interrupted() {
    let place = Place::new();
    let path = place.program(
        "python3",
        "#!/bin/sh\n[ \"$3\" = check ] && exec echo 9.9\nread spec; echo ready; read go; read forever\n",
    );
    let child = place
        .compare(&["--path", "library", "--rival", "sqlite", "--seconds", "20ms"])
        .env("PATH", path)
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    // It is silent for ever, and would be waited for.
    while !place.processes().iter().any(|it| it.contains("run sqlite")) {
        assert!(Instant::now() < deadline, "no rival was started");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let sent = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    assert!(sent.elapsed() < Duration::from_secs(20), "{:?}", sent.elapsed());
    assert_eq!(output.status.signal(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("interrupted"), "{}", text(&output.stderr));
    assert!(!place.path("a.json").exists());
    place.assert_clean();
}

#[test]
fn what_is_asked_in_a_wrong_way_is_refused_with_what_is_right() {
    let place = Place::new();
    let cases: [(&[&str], &str); 7] = [
        (&["--rival", "postgres"], "possible values: sqlite, rocksdb"),
        (&["--path", "fuse"], "possible values: library, netlink"),
        (&["--auditd", "raw"], "no FORMAT:FLUSH"),
        (&["--size", "5"], "14 bytes at least"),
        (&["--size", "trail:/nowhere"], "/nowhere"),
        (&["--group", "1"], "1 is not in 2..=100000"),
        (&["--seconds", "1"], "no duration"),
    ];
    for (args, message) in cases {
        let output = place.compare(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(message), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    place.assert_clean();
}

#[test]
fn help_has_examples_and_says_nothing_of_the_producer() {
    let help = |args: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("graven"));
        text(&command.args(args).output().expect("it runs").stdout)
    };
    assert!(help(&["bench", "compare", "--help"]).contains("graven bench compare --path library"));
    let bench = help(&["bench", "--help"]);
    assert!(bench.contains("compare") && !bench.contains("openat"), "{bench}");
}
