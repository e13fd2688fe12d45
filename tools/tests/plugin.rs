//! `graven record --source plugin` as auditd starts it, `--source af-unix` as a person does, and `--source
//! multicast` where it may.

mod common;

use common::{Ran, on, ran};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LOG: &str = "\
type=DAEMON_START msg=audit(1733000000.100:4711): op=start ver=3.0.9 format=raw
type=SYSCALL msg=audit(1733000000.123:7): arch=c000003e syscall=257 success=yes key=\"k\"
type=PROCTITLE msg=audit(1733000000.123:7): proctitle=6C73
node=web-1 type=USER_LOGIN msg=audit(1733000000.200:8): pid=1 msg='op=login res=success'\x1dUID=\"root\"
";

fn record(trail: &Path, args: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("graven"))
        .args(["record", "--segment-bytes", "1M", "--ring-bytes", "4M", "--trail"])
        .arg(trail)
        .args(["--checkpoint-interval", "off", "--source"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Gives it all of `input` and ends it.
fn fed(trail: &Path, args: &[&str], input: &[u8]) -> Ran {
    let mut child = record(trail, args);
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    ran(&child.wait_with_output().expect("it ends"))
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("it runs");
}

/// Waits until the trail has this text.
#[track_caller]
fn wait_for(trail: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !on("show", trail, &[]).text().contains(text) {
        assert!(Instant::now() < deadline, "{text:?} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the trail has of other sources than ourselves.
fn exported(trail: &Path) -> String {
    let all = on("export", trail, &[]).text();
    let own = ["op=source source=", "op=plugin-", "op=loss "];
    let lines = all.split_inclusive('\n');
    lines.filter(|line| !own.iter().any(|own| line.contains(own))).collect()
}

#[test]
fn what_auditd_gives_is_what_its_log_has_and_best_effort() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let eoe = "type=EOE msg=audit(1733000000.123:7): \n";
    let ran = fed(&trail, &["plugin"], format!("{LOG}{eoe}").as_bytes());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("5 records of auditd, best effort"), "{}", ran.stderr);
    assert_eq!(exported(&trail), LOG, "without the record that auditd does not log either");
    let verified = on("verify", &trail, &[]);
    assert_eq!(verified.code, 0);
    assert!(verified.text().contains("imported  5 records, best effort"));
    let verified = on("verify", &trail, &["--json"]).text();
    let report: serde_json::Value = serde_json::from_str(&verified).expect("JSON");
    assert_eq!(report["records"]["best_effort"], 5);
    let shown = on("show", &trail, &[]).text();
    assert!(shown.contains("op=source source=plugin best-effort=yes"), "{shown}");
    assert!(shown.contains(" import SYSCALL type=SYSCALL msg=audit("), "{shown}");
}

#[test]
fn what_is_no_record_is_kept_and_said_and_what_is_too_long_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let input = format!("{LOG}who knows\n{}\n", "x".repeat(140_000));
    let ran = fed(&trail, &["plugin", "--format", "string"], input.as_bytes());
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let offset = format!("offset {:#x}, 9 bytes", LOG.len());
    assert!(ran.stderr.contains(&offset), "{offset}: {}", ran.stderr);
    let offset = format!("offset {:#x}, 140000 bytes", LOG.len() + 10);
    assert!(ran.stderr.contains(&offset), "{offset}: {}", ran.stderr);
    assert_eq!(exported(&trail), format!("{LOG}who knows\n"));
    assert_eq!(on("verify", &trail, &[]).code, 4);
    let shown = on("show", &trail, &[]).text();
    assert!(
        shown.contains(&format!("op=plugin-malformed offset={} bytes=9", LOG.len())),
        "{shown}"
    );
}

#[test]
fn signals_of_auditd_are_taken_as_they_are_meant() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let mut child = record(&trail, &["plugin"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    let (first, second) = LOG.split_at(LOG.find("type=PROCTITLE").expect("in it"));
    stdin.write_all(first.as_bytes()).expect("it reads");
    wait_for(&trail, "type=SYSCALL");
    // To read a configuration again, and to say how it is.
    signal(&child, rustix::process::Signal::HUP);
    signal(&child, rustix::process::Signal::USR1);
    std::thread::sleep(Duration::from_millis(100));
    stdin.write_all(second.as_bytes()).expect("it still reads");
    // What is there is taken; auditd keeps its end open for a moment.
    signal(&child, rustix::process::Signal::TERM);
    let status = child.wait().expect("it ends");
    drop(stdin);
    assert_eq!(status.code(), Some(0));
    assert_eq!(exported(&trail), LOG);
}

#[test]
fn af_unix_is_followed_and_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let (trail, socket) = (dir.path().join("trail"), dir.path().join("events"));
    let mut child = record(&trail, &["af-unix", "--path", socket.to_str().expect("text")]);
    wait_for(&trail, "op=source source=af-unix");
    let serve = |text: &str| -> UnixStream {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("bound");
        let (mut stream, _) = listener.accept().expect("it connects");
        stream.write_all(text.as_bytes()).expect("it reads");
        stream
    };
    let (first, second) = LOG.split_at(LOG.find("type=PROCTITLE").expect("in it"));
    let one = serve(first);
    wait_for(&trail, "type=SYSCALL");
    drop(one);
    let two = serve(second);
    wait_for(&trail, "USER_LOGIN");
    signal(&child, rustix::process::Signal::TERM);
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{said}");
    drop(two);
    assert!(said.contains("waiting for auditd's socket"), "{said}");
    assert_eq!(exported(&trail), LOG);
    let verified = on("verify", &trail, &[]);
    assert_eq!(verified.code, 4);
    let text = verified.text();
    assert!(text.contains("may be missing from source import: no-daemon"), "{text}");
}

#[test]
fn multicast_is_best_effort_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let mut child = record(&trail, &["multicast"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !on("show", &trail, &[]).text().contains("op=source source=multicast best-effort=yes") {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            assert_eq!(status.code(), Some(8));
            eprintln!("SKIPPED: no multicast of audit records here");
            return;
        }
        assert!(Instant::now() < deadline, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, rustix::process::Signal::TERM);
    let ended = ran(&child.wait_with_output().expect("it ends"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("best effort"), "{}", ended.stderr);
}
