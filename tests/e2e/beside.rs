//! Beside a real auditd, one kernel's audit through every way at once: what it logs is what we export.

use crate::rig::audit::{Rule, Turn};
use crate::rig::{HANG, NO_RECORDS, Running, graven, has, on, skip, temp_dir};
use graven_client::Client;
use graven_writer::source::kaudit;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// No account of any machine.
const UID: u32 = 64_131;

/// Files that the test opens, each an event of several records.
const OPENS: usize = 400;

/// How auditd gives us its records, and what `graven record` is told about it.
const PLUGINS: [(&str, &str); 2] = [("string", "string"), ("binary", "auto")];

/// auditd with a configuration of its own in `dir`, plugins included.
fn auditd(dir: &Path, log_format: &str) -> Option<Running> {
    let plugins = dir.join("plugins");
    fs::create_dir(&plugins).expect("a directory");
    for (format, told) in PLUGINS {
        let script = dir.join(format!("plugin-{format}"));
        let trail = trail(dir, format);
        let command = graven().get_program().to_string_lossy().into_owned();
        let text = format!(
            "#!/bin/sh\nexec {command} record --source plugin --format {told} --trail {} {} 2>{}.said\n",
            trail.display(),
            NO_RECORDS.join(" "),
            trail.display(),
        );
        fs::write(&script, text).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).expect("set");
        let text = format!(
            "active = yes\ndirection = out\npath = {}\ntype = always\nformat = {format}\n",
            script.display()
        );
        write_private(&plugins.join(format!("{format}.conf")), &text);
    }
    // As auditd 3.0 has it: inside, and not of a program of its own.
    let text = format!(
        "active = yes\ndirection = out\npath = builtin_af_unix\ntype = builtin\nargs = 0600 {}\nformat = binary\n",
        dir.join("events").display()
    );
    write_private(&plugins.join("af_unix.conf"), &text);
    let text = format!(
        "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_group = root\nlog_format = {log_format}\n\
         flush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 400\nmax_log_file_action = IGNORE\nnum_logs = 5\n\
         priority_boost = 0\nname_format = NONE\nspace_left = 75\nspace_left_action = IGNORE\n\
         admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\n\
         disk_error_action = IGNORE\nq_depth = 20000\noverflow_action = SYSLOG\nplugin_dir = {}\n",
        dir.join("audit.log").display(),
        plugins.display(),
    );
    write_private(&dir.join("auditd.conf"), &text);
    let mut command = Command::new("auditd");
    command.args(["-n", "-s", "enable", "-c"]).arg(dir);
    let mut running = Running::start(&mut command, Stdio::null());
    let pid = running.pid();
    running.wait_until("the registration of auditd", |_| {
        kaudit::status().is_ok_and(|status| status.pid == pid)
    });
    if running.has_ended() {
        skip(&format!("auditd does not start here: {}", running.end().stderr));
        return None;
    }
    Some(running)
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("set");
}

fn trail(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("trail-{name}"))
}

/// A recorder of ours that auditd does not start.
fn recorder(dir: &Path, name: &str, args: &[&str]) -> Running {
    let mut command = graven();
    command.args(["record", "--trail"]).arg(trail(dir, name)).args(NO_RECORDS).args(args);
    Running::start(&mut command, Stdio::null())
}

/// Lines of a log or an export that are the kernel's.
fn of_kernel(log: &[u8]) -> Vec<&[u8]> {
    let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with(b"type=DAEMON_")).collect()
}

#[track_caller]
fn assert_same(what: &str, ours: &[&[u8]], theirs: &[&[u8]]) {
    for (place, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        assert_eq!(text(ours), text(theirs), "{what}: line {place}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}: lines");
}

/// The lines of ours from the first to the last that both have.
fn between<'a>(ours: &[&'a [u8]], theirs: &[&'a [u8]]) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
    let common = |line: &&[u8]| ours.contains(line);
    let from = theirs.iter().position(common).expect("something in common");
    let to = theirs.iter().rposition(common).expect("something in common");
    let start = ours.iter().position(|line| *line == theirs[from]).expect("common");
    let end = ours.iter().rposition(|line| *line == theirs[to]).expect("common");
    (ours[start..=end].to_vec(), theirs[from..=to].to_vec())
}

fn one_life(log_format: &str) {
    let dir = temp_dir();
    let dir = dir.path();
    let mut multicast = recorder(dir, "multicast", &["--source", "multicast"]);
    multicast.wait_until("the group", |it| it.said().contains("best effort"));
    let Some(auditd) = auditd(dir, log_format) else { return };
    let socket = dir.join("events");
    let socket = socket.to_str().expect("text");
    let mut af_unix = recorder(dir, "af-unix", &["--source", "af-unix", "--path", socket]);
    let connected = |trail: &Path| !on("show", trail, &[]).text().is_empty();
    af_unix.wait_until("its connection", |_| connected(&trail(dir, "af-unix")));
    // It reads its configuration again and passes the signal on, which no plugin may take for an end.
    auditd.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(500));
    let Some(rule) = Rule::opens_by(UID) else { return };
    let script = format!("i=0; while [ $i -lt {OPENS} ]; do : < /dev/null; i=$((i+1)); done");
    let opened = Command::new("sh").args(["-c", &script]).uid(UID).gid(UID).status();
    assert!(opened.expect("a shell").success());
    drop(rule);
    // auditd gives up what it has for its plugins when it ends, so that they get it before.
    let log = dir.join("audit.log");
    let deadline = Instant::now() + HANG;
    let ways = ["string", "binary", "af-unix"];
    loop {
        let logged = fs::read(&log).expect("a log");
        let logged = of_kernel(&logged).len();
        let have = |name: &str| {
            let exported = on("export", &trail(dir, name), &[]).stdout;
            of_kernel(&exported).len() >= logged
        };
        // What came before it was connected af_unix never had.
        if logged > 3 * OPENS && have("string") && have("binary") {
            break;
        }
        assert!(Instant::now() < deadline, "auditd has {logged} lines, and they do not come");
        std::thread::sleep(Duration::from_millis(200));
    }
    auditd.signal(Signal::TERM);
    auditd.end().expect(0);
    af_unix.signal(Signal::TERM);
    multicast.signal(Signal::TERM);
    af_unix.end().expect(0);
    multicast.end().expect(0);
    let logged = fs::read(&log).expect("a log");
    let theirs = of_kernel(&logged);
    assert!(theirs.iter().filter(|line| line.starts_with(b"type=SYSCALL ")).count() >= OPENS);
    for name in ways.into_iter().chain(["multicast"]) {
        // Plugins end by themselves; auditd does not wait for them.
        let ended = || {
            fs::exists(trail(dir, name).join("lock")).is_ok_and(|it| it)
                && on("verify", &trail(dir, name), &[]).text().contains("sealed: ")
        };
        while !ended() {
            assert!(Instant::now() < deadline, "{name} does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
        let exported = on("export", &trail(dir, name), &[]).stdout;
        let ours = of_kernel(&exported);
        let verified = on("verify", &trail(dir, name), &[]);
        let said = fs::read_to_string(trail(dir, name).with_extension("said")).unwrap_or_default();
        let said = format!("{log_format} {name}: {said}{}", verified.text());
        assert!(said.contains("best effort"), "{said}");
        match name {
            "string" | "binary" => assert_same(&said, &ours, &theirs),
            // The kernel's own text is what auditd enriches.
            "multicast" if log_format != "RAW" => {
                assert!(ours.len() >= theirs.len() - 20, "{said}")
            }
            _ => {
                let (ours, theirs) = between(&ours, &theirs);
                assert!(theirs.len() > 3 * OPENS, "{said}");
                assert_same(&said, &ours, &theirs);
            }
        }
        // af_unix saw auditd go.
        assert_eq!(verified.code(), if name == "af-unix" { 4 } else { 0 }, "{said}");
    }
}

#[test]
fn what_auditd_logs_is_what_comes_out_of_us() {
    if !has("auditd") {
        return;
    }
    let Some(turn) = Turn::take() else { return };
    one_life("RAW");
    one_life("ENRICHED");
    turn.put_back();
}

#[test]
fn applications_and_the_kernel_write_to_one_trail() {
    let Some(_turn) = Turn::take() else { return };
    let dir = temp_dir();
    let socket = dir.path().join("socket");
    let listen = socket.to_str().expect("text");
    let mut daemon = recorder(dir.path(), "both", &["--source", "netlink", "--listen", listen]);
    daemon.wait_until("the socket", |it| it.said().contains("taking records of applications"));
    assert!(!daemon.has_ended(), "{}", daemon.said());
    let Some(rule) = Rule::opens_by(UID) else { return };
    let mut client = Client::connect(&socket).expect("it listens");
    let first = client.record(b"before").expect("durable");
    let opened = Command::new("sh").args(["-c", ": < /dev/null"]).uid(UID).gid(UID).status();
    assert!(opened.expect("a shell").success());
    let second = client.record(b"after").expect("durable");
    drop((rule, client));
    daemon.signal(Signal::TERM);
    daemon.end().expect(0).says("2 records of 1 applications");
    let trail = trail(dir.path(), "both");
    on("verify", &trail, &[]).expect(0);
    let exported = |seq: u64| on("export", &trail, &["--seq", &seq.to_string()]).stdout;
    assert_eq!((exported(first), exported(second)), (b"before\n".to_vec(), b"after\n".to_vec()));
    let all = on("export", &trail, &[]).text();
    assert!(all.contains("type=SYSCALL ") && all.contains("op=socket-close client="), "{all}");
}
