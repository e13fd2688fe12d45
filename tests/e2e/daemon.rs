//! `graven record --config` in auditd's place: what it asks of the kernel, what it gives up, what it says of itself, and
//! that all is as it was afterwards.

use crate::rig::audit::{Rule, Turn, rules};
use crate::rig::kept::{Kept, Role};
use crate::rig::{HANG, Ran, Running, graven, has, on, run, temp_dir};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Users whose calls are audited; nobody else has these numbers.
const UID: u32 = 54_331;
const OTHER_UID: u32 = 54_332;

fn rule(uid: u32, key: &str) -> String {
    format!("-a always,exit -F arch=b64 -S openat -F uid={uid} -k {key}\n")
}

/// The files of a daemon.
struct Files {
    /// Nothing goes on recording if a test fails.
    kept: Kept,
    dir: tempfile::TempDir,
}

impl Files {
    fn new(rules: &str, more: &str) -> Self {
        let dir = temp_dir();
        let files = Self { kept: Kept::by(&dir.path().join("graven.toml")), dir };
        std::fs::write(files.rules(), rules).expect("written");
        let (trail, rules) = (files.trail(), files.rules());
        let text = format!(
            "[trail]\ndir = \"{}\"\nsegment_bytes = \"512K\"\nring_bytes = \"4M\"\n[netlink]\nrules = \"{}\"\n{more}",
            trail.display(),
            rules.display()
        );
        std::fs::write(files.config(), text).expect("written");
        files
    }

    fn trail(&self) -> PathBuf {
        self.dir.path().join("trail")
    }

    fn rules(&self) -> PathBuf {
        self.dir.path().join("audit.rules")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("graven.toml")
    }

    fn record(&self) -> Command {
        let mut command = graven();
        command.args(["record", "--ack", "--config"]).arg(self.config());
        command
    }

    /// What is recorded so far, as auditd would have written it.
    fn exported(&self) -> String {
        on("export", &self.trail(), &[]).text()
    }

    fn start(&self) -> Running {
        let mut running = Running::start(&mut self.record(), Stdio::null());
        running.wait_until("the start", |it| it.said().contains("recording kernel audit as pid"));
        assert!(!running.has_ended(), "{}", running.said());
        running
    }

    #[track_caller]
    fn eventually(&self, text: &str) {
        let deadline = Instant::now() + HANG;
        while !self.exported().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {}", self.exported());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Opens a file as this user.
fn open_as(uid: u32) {
    let id = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "cat", "/dev/null"]);
    run(&mut command, b"").expect(0);
}

fn end(running: Running) -> Ran {
    running.signal(Signal::TERM);
    running.end().expect(0)
}

#[test]
fn a_daemon_loads_its_rules_and_puts_everything_back() {
    if !has("setpriv") {
        return;
    }
    let Some(_turn) = Turn::take() else { return };
    // One that somebody else has: `-D` removes it, and it comes back.
    let Some(_others) = Rule::opens_by(OTHER_UID) else { return };
    let before = rules();
    let files = Files::new(&format!("-D\n-b 9000\n-f 0\n-e 1\n{}", rule(UID, "e2e-one")), "");
    let running = files.start();
    let loaded = rules();
    assert!(loaded.contains("e2e-one") && !loaded.contains("e2e-storm"), "{loaded}");
    let status = Command::new("auditctl").arg("-s").output().expect("auditctl").stdout;
    let status = String::from_utf8(status).expect("text");
    assert!(status.contains("failure 0") && status.contains("backlog_limit 9000"), "{status}");
    check_what_it_may(files.kept.pid(Role::Keeper), 2);
    check_what_it_may(files.kept.pid(Role::Writer), 5);
    open_as(UID);
    files.eventually("key=\"e2e-one\"");

    // Other rules, and with them another failure mode; nothing else changes.
    std::fs::write(files.rules(), rule(UID, "e2e-two")).expect("written");
    running.signal(Signal::HUP);
    files.eventually("op=reconfigure state=changed");
    let loaded = rules();
    assert!(loaded.contains("e2e-two") && !loaded.contains("e2e-one"), "{loaded}");
    assert!(loaded.contains("e2e-storm"), "without -D what was there stays: {loaded}");

    // A file that is wrong changes nothing, whoever finds it: we, or auditctl.
    for wrong in ["-e 2\n", "-a always,exit -S no_such_call -k e2e-three\n"] {
        let failed = files.exported().matches("res=failed").count();
        std::fs::write(files.rules(), wrong).expect("written");
        running.signal(Signal::HUP);
        let deadline = Instant::now() + HANG;
        while files.exported().matches("op=reconfigure").count() == 1
            || files.exported().matches("res=failed").count() == failed
        {
            assert!(Instant::now() < deadline, "{}", files.exported());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(rules(), loaded, "{wrong}");
    }
    let ran = end(running);
    for text in ["-e 2 locks the kernel's audit", "auditctl does not take a rule", "no_such_call"] {
        assert!(ran.stderr.contains(text), "no {text:?} in {}", ran.stderr);
    }
    assert_eq!(rules(), before, "all rules are as they were, in their order");
    on("verify", &files.trail(), &[]).expect(0);
}

/// Capabilities, memory and priority of every thread.
fn check_what_it_may(pid: u32, threads_min: u32) {
    const AUDIT_WRITE: u64 = 1 << 29;
    const AUDIT_CONTROL: u64 = 1 << 30;
    const IPC_LOCK: u64 = 1 << 14;
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        let status = std::fs::read_to_string(task.expect("a thread").path().join("status"));
        // A thread may just have ended.
        let Ok(status) = status else { continue };
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let name = line("Name:").unwrap_or_default().trim();
        for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let bits = u64::from_str_radix(line(set).expect(set).trim(), 16).expect("hexadecimal");
            assert_eq!(bits & !(AUDIT_WRITE | AUDIT_CONTROL | IPC_LOCK), 0, "{name} {set}");
        }
        threads += 1;
    }
    assert!(threads >= threads_min, "{threads}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("a line");
    assert_ne!(locked.trim(), "0 kB", "its memory is locked");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let nice = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(16));
    assert_eq!(nice, Some("-4"));
}

#[test]
fn rules_that_cannot_be_are_refused_before_anything_is_changed() {
    let Some(_turn) = Turn::take() else { return };
    let before = rules();
    let files = Files::new("-D\n-e 2\n", "");
    let ran =
        run(&mut files.record(), b"").expect(2).says("-e 2 locks").says("until the next boot");
    assert!(ran.stderr.contains(&format!("{}:2:1", files.rules().display())), "{}", ran.stderr);
    assert!(!files.trail().exists(), "nothing was begun");

    let files = Files::new("\n-a always,exit -S no_such_call -k e2e\n", "");
    let ran = run(&mut files.record(), b"")
        .expect(2)
        .says("auditctl does not take")
        .says("audit.rules:2");
    assert!(ran.stderr.contains("no_such_call"), "{}", ran.stderr);
    assert_eq!(rules(), before);

    let files = Files::new("-f 2\n", "");
    run(&mut files.record(), b"").expect(2).says("netlink.failure = 2");
    std::fs::remove_file(files.rules()).expect("it is there");
    run(&mut files.record(), b"").expect(2).says("cannot read the rules");
}

/// FAU_GEN.1: start and end of the audit functions, what was done to them and by whom, readable for the tools that people
/// have.
#[test]
fn what_was_done_to_the_daemon_is_in_the_trail_and_auditds_tools_read_it() {
    if !has("ausearch") || !has("aureport") {
        return;
    }
    let Some(_turn) = Turn::take() else { return };
    let files = Files::new("", "");
    let running = files.start();
    let pid = files.kept.pid(Role::Writer);
    running.signal(Signal::USR1);
    files.eventually("type=DAEMON_ROTATE");
    running.signal(Signal::USR2);
    files.eventually("type=DAEMON_RESUME");
    running.signal(Signal::HUP);
    files.eventually("op=reconfigure");
    end(running);
    let exported = files.exported();
    // Marks of a session are of the same types, and of another operation.
    let line = |op: &str| {
        let of = exported.lines().find(|line| line.contains(&format!(": op={op} ")));
        of.unwrap_or_else(|| panic!("no {op} in {exported}")).to_owned()
    };
    let me = std::process::id();
    let start = line("start");
    assert!(start.starts_with("type=DAEMON_START "), "{start}");
    assert!(start.contains(&format!(" pid={pid} uid=0 ses=")), "{start}");
    assert!(start.contains("op=start ver=") && start.contains(" kernel="), "{start}");
    assert!(line("config").contains(" sha256="));
    for op in ["rotate-logs", "resume-logging", "reconfigure", "terminate"] {
        assert!(line(op).contains(&format!(" pid={me} ")), "who asked for it: {}", line(op));
    }
    let last = exported.lines().rfind(|line| line.starts_with("type=DAEMON_"));
    assert!(last.is_some_and(|line| line.starts_with("type=DAEMON_END ")), "{last:?}");

    let log = files.dir.path().join("audit.log");
    std::fs::write(&log, &exported).expect("written");
    let read = |program: &str, args: &[&str]| tool(program, &log, args);
    for (kind, word) in [
        ("DAEMON_START", "op=start"),
        ("DAEMON_END", "op=terminate"),
        ("DAEMON_ROTATE", "op=rotate-logs"),
        ("DAEMON_RESUME", "op=resume-logging"),
        ("DAEMON_CONFIG", "op=reconfigure"),
        ("DAEMON_CONFIG", "op=config"),
    ] {
        let found = read("ausearch", &["-m", kind, "--raw"]);
        assert!(found.contains(word), "{kind}: {found}");
    }
    // Its fields are where the tools look for them.
    assert!(read("ausearch", &["-p", &pid.to_string(), "--raw"]).contains("op=start"));
    assert!(
        read("ausearch", &["-m", "DAEMON_END", "-p", &me.to_string()]).contains("op=terminate")
    );
    assert!(read("ausearch", &["-m", "DAEMON_START", "-sv", "yes"]).contains("op=start"));
    let configs = read("aureport", &["-c"]);
    assert_eq!(configs.matches("DAEMON_CONFIG").count(), 3, "{configs}");
}

fn tool(program: &str, log: &Path, args: &[&str]) -> String {
    let output = Command::new(program).arg("-if").arg(log).args(args).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
