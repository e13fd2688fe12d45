//! `graven config`, and a daemon that lives by its configuration: what it is told, and what it says to the service
//! manager. Standard input is its source, so that no test needs more than a directory.

mod common;

use common::{Ran, graven, on};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HANG: Duration = Duration::from_secs(60);

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn the_sample_is_right_and_explains_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let sample = graven(["config", "show-default"]);
    assert_eq!(sample.code, 0, "{}", sample.stderr);
    let path = file(dir.path(), "graven.toml", &sample.text());
    let checked = graven(["config", "check", arg(&path)]);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    let explained = graven(["config", "explain", "netlink.rules"]);
    assert_eq!(explained.code, 0);
    assert!(explained.text().contains("auditctl -R"), "{}", explained.text());
    let unknown = graven(["config", "explain", "netlink.rule"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("did you mean `rules`"), "{}", unknown.stderr);
}

#[test]
fn what_is_wrong_is_said_with_file_line_and_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = file(dir.path(), "graven.toml", "[trail]\ndisk = \"tape\"\nring = 3\n");
    for args in [vec!["config", "check", arg(&path)], vec!["record", "--config", arg(&path)]] {
        let ran = graven(args);
        assert_eq!(ran.code, 2);
        let shown = path.display();
        for text in [
            format!("{shown}:2:8, key trail.disk"),
            format!("{shown}:3:1, key trail.ring"),
            "it takes one of \"auto\", \"uring\", \"sync\"".to_owned(),
            "did you mean `ring_bytes`?".to_owned(),
        ] {
            assert!(ran.stderr.contains(&text), "no {text:?} in {}", ran.stderr);
        }
    }
    let missing = dir.path().join("missing.toml");
    let ran = graven(["record", "--config", arg(&missing)]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("show-default"), "{}", ran.stderr);
}

/// A value of no kind, for every key that there is: each is refused at its own line, by its own name.
#[test]
fn every_key_is_refused_with_its_line_and_name() {
    let (mut text, mut expected) = (String::new(), Vec::new());
    for (section, _, keys) in graven_tools::config::Config::sections() {
        text.push_str(&format!("[{section}]\n"));
        for key in keys {
            let line = text.lines().count() + 1;
            let column = key.name.len() + 4;
            text.push_str(&format!("{} = {{}}\n", key.name));
            expected.push(format!("graven.toml:{line}:{column}, key {section}.{}\n", key.name));
        }
    }
    assert!(expected.len() > 40, "{}", expected.len());
    let dir = tempfile::tempdir().expect("a directory");
    let path = file(dir.path(), "graven.toml", &text);
    let checked = graven(["config", "check", arg(&path)]);
    assert_eq!(checked.code, 2, "{}", checked.stderr);
    for place in &expected {
        assert!(checked.stderr.contains(place.as_str()), "no {place:?} in {}", checked.stderr);
    }
    assert_eq!(checked.stderr.matches("error: wrong value for").count(), expected.len());
}

#[test]
fn an_auditd_conf_becomes_a_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let conf = "log_file = /var/log/audit/audit.log\nlog_format = ENRICHED\npriority_boost = 4\n";
    let conf = file(dir.path(), "auditd.conf", conf);
    let imported = graven(["config", "import-auditd", arg(&conf)]);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    assert!(imported.stderr.contains("auditd.conf:2") && imported.stderr.contains("ausearch -i"));
    assert!(!imported.stderr.contains("auditd.conf:1"), "{}", imported.stderr);
    let ours = file(dir.path(), "graven.toml", &imported.text());
    assert_eq!(graven(["config", "check", arg(&ours)]).code, 0, "{}", imported.text());
    let wrong = file(dir.path(), "wrong.conf", "\nlog_fil = /x\n");
    let refused = graven(["config", "import-auditd", arg(&wrong)]);
    assert_eq!((refused.code, refused.stdout.len()), (2, 0));
    assert!(refused.stderr.contains("wrong.conf:2"), "{}", refused.stderr);
}

/// A daemon over standard input, and the socket on which it speaks to the service manager.
struct Daemon {
    child: Child,
    manager: UnixDatagram,
    trail: PathBuf,
    config: PathBuf,
    heard: String,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start(more: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let trail = dir.path().join("trail");
        let text = format!(
            "[trail]\ndir = \"{}\"\nsource = \"stdin\"\nsegment_bytes = \"1M\"\nring_bytes = \"2M\"\n\
             [process]\ndrop_capabilities = true\nmlock = true\n{more}",
            trail.display()
        );
        let config = file(dir.path(), "graven.toml", &text);
        let socket = dir.path().join("notify");
        let manager = UnixDatagram::bind(&socket).expect("a socket");
        manager.set_read_timeout(Some(HANG)).expect("a time limit");
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("graven"));
        command.args(["record", "--config"]).arg(&config).args(args);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("it starts");
        let mut daemon = Self { child, manager, trail, config, heard: String::new(), _dir: dir };
        daemon.hear("READY=1");
        daemon
    }

    /// Waits until the service manager was told this, after what it was told before.
    fn hear(&mut self, text: &str) {
        let deadline = Instant::now() + HANG;
        let mut buf = [0; 4096];
        while !self.heard.contains(text) {
            assert!(Instant::now() < deadline, "no {text} in {}", self.heard);
            let len = self.manager.recv(&mut buf).expect(text);
            self.heard.push_str(&String::from_utf8_lossy(&buf[..len]));
            self.heard.push('\n');
        }
        let at = self.heard.find(text).expect("it was heard") + text.len();
        self.heard.drain(..at);
    }

    fn write(&mut self, lines: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(lines.as_bytes()).expect("written");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    fn exported(&self) -> String {
        on("export", &self.trail, &[]).text()
    }

    fn eventually(&self, text: &str) {
        let deadline = Instant::now() + HANG;
        while !self.exported().contains(text) {
            assert!(Instant::now() < deadline, "no {text} in {}", self.exported());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn segments(&self) -> usize {
        let names = std::fs::read_dir(&self.trail).expect("a directory");
        names
            .filter(|it| {
                it.as_ref().is_ok_and(|it| it.path().extension().is_some_and(|it| it == "seg"))
            })
            .count()
    }

    fn end(self) -> (Ran, PathBuf, tempfile::TempDir) {
        let Self { child, trail, _dir, .. } = self;
        let ran = common::ran(&child.wait_with_output().expect("it ends"));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        (ran, trail, _dir)
    }
}

#[test]
fn it_is_configured_anew_and_a_wrong_file_changes_nothing() {
    let mut daemon = Daemon::start("[checkpoint]\ninterval = \"off\"\n", &[]);
    daemon.write("one\n");
    daemon.eventually("one\n");
    let text = std::fs::read_to_string(&daemon.config).expect("the file");
    let newer = text.replace("\"off\"", "\"10ms\"").replace("\"2M\"", "\"4M\"");
    std::fs::write(&daemon.config, &newer).expect("written");
    daemon.signal(Signal::HUP);
    daemon.hear("RELOADING=1");
    daemon.hear("MONOTONIC_USEC=");
    daemon.hear("READY=1");
    let pid = std::process::id();
    daemon.eventually("keys=checkpoint.interval restart=trail.ring_bytes res=success");
    assert!(daemon.exported().contains("op=reconfigure"), "{}", daemon.exported());
    assert!(daemon.exported().contains(&format!(" pid={pid} ")), "it says who has asked");
    std::fs::write(&daemon.config, newer.replace("\"10ms\"", "\"1ms\"")).expect("written");
    daemon.signal(Signal::HUP);
    daemon.hear("READY=1");
    daemon.eventually("state=no-change");
    daemon.eventually("res=failed");
    daemon.signal(Signal::TERM);
    let (ran, trail, _dir) = daemon.end();
    for text in [
        "in force now: checkpoint.interval",
        "at the next start: trail.ring_bytes",
        "wrong value for `checkpoint.interval`: 1ms is out of range",
        "the configuration in force stays as it is",
    ] {
        assert!(ran.stderr.contains(text), "no {text:?} in {}", ran.stderr);
    }
    let report = on("verify", &trail, &["--json"]);
    assert_eq!(report.code, 0, "{}", report.text());
    let signed = report.json()["signatures"]["checked"].as_u64();
    assert!(signed > Some(1), "more than that of the end: {}", report.text());
}

#[test]
fn it_seals_and_goes_on_when_it_is_told() {
    // The command line counts before the file.
    let mut daemon =
        Daemon::start("[checkpoint]\ninterval = \"1h\"\n", &["--checkpoint-interval", "off"]);
    daemon.hear("WATCHDOG=1");
    daemon.write("one\n");
    daemon.eventually("one\n");
    daemon.signal(Signal::USR1);
    daemon.eventually("type=DAEMON_ROTATE");
    daemon.write("two\n");
    daemon.eventually("two\n");
    assert_eq!(daemon.segments(), 2);
    daemon.signal(Signal::USR2);
    daemon.eventually("type=DAEMON_RESUME");
    assert_eq!(daemon.segments(), 2);
    daemon.hear("WATCHDOG=1");
    drop(daemon.child.stdin.take());
    let (ran, trail, _dir) = daemon.end();
    assert!(ran.stderr.contains("sealing the segment in use"), "{}", ran.stderr);
    let lines = on("export", &trail, &[]).text();
    let order: Vec<_> = ["one\n", "op=rotate-logs auid=", "two\n", "op=resume-logging auid="]
        .iter()
        .map(|text| lines.find(text).unwrap_or_else(|| panic!("no {text:?} in {lines}")))
        .collect();
    assert!(order.is_sorted(), "{lines}");
    assert_eq!(on("verify", &trail, &[]).code, 0);
}

/// Without a file there is nothing to read again: a terminal that goes away ends what was started from it.
#[test]
fn without_a_configuration_sighup_ends_recording() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("graven"));
    command.args(["record", "--source", "stdin", "--ack", "--trail"]).arg(dir.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.as_mut().expect("a pipe").write_all(b"one\n").expect("written");
    let mut line = [0; 10];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut line).expect("a line");
    kill_process(Pid::from_child(&child), Signal::HUP).expect("it runs");
    let _stdin = child.stdin.take();
    assert_eq!(common::ran(&child.wait_with_output().expect("it ends")).code, 0);
    assert_eq!(on("export", dir.path(), &[]).stdout, b"one\n");
}

#[test]
fn options_that_are_not_given_are_the_same_with_a_file_and_without() {
    use clap::Parser as _;
    use graven_tools::cli::{Cli, Command};
    let settled = |args: &[&str], text: Option<&str>| {
        let cli = Cli::try_parse_from(args).expect("it is right");
        let Command::Record(args) = cli.command else { panic!("another command") };
        args.settled(text).map(|(args, config)| (format!("{args:?}"), config)).map_err(drop)
    };
    let given = ["graven", "record", "--trail", "/t", "--source", "stdin"];
    let (args, config) = settled(&given, None).expect("no file");
    let before = Cli::try_parse_from(given).expect("it is right");
    let Command::Record(before) = before.command else { panic!("another command") };
    assert_eq!(args, format!("{before:?}"), "the defaults of the file are those of the options");
    assert_eq!(config.trail.dir, Path::new("/t"));

    let dir = tempfile::tempdir().expect("a directory");
    let text = "[trail]\ndir = \"/f\"\nring_bytes = \"8M\"\non_full = \"end\"\n";
    let path = file(dir.path(), "graven.toml", text);
    let given = ["graven", "record", "--config", arg(&path), "--ring-bytes", "2M"];
    let (_, config) = settled(&given, Some(text)).expect("right");
    assert_eq!((config.trail.dir.as_path(), config.trail.ring_bytes.0), (Path::new("/f"), 2 << 20));
    assert!(Cli::try_parse_from(["graven", "record"]).is_err(), "a trail or a configuration");
    assert!(Cli::try_parse_from(["graven", "record", "--trail", "/t"]).is_err(), "a source or one");
}

#[test]
fn options_of_the_keeper_are_refused_where_there_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    for (option, value) in [
        ("--keeper-ring", "8M"),
        ("--ring-full", "drop"),
        ("--freeze-cgroup", "/sys/fs/cgroup/x"),
        ("--freeze-exempt", "0"),
    ] {
        let given = ["record", "--source", "stdin", "--trail", arg(&trail), option, value];
        let ran = common::graven(given);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!("{option} is for the source netlink")),
            "{}",
            ran.stderr
        );
        assert!(!trail.exists(), "nothing was begun");
    }
}
