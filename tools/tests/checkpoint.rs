//! `graven keygen`, `graven checkpoint`, and the copies that `graven record` makes.

use graven_format::note::{Note, PublicKey, Signed};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn graven(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_graven")).args(args).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `graven record` on these lines to its end.
fn record(trail: &Path, args: &[&str], input: &str) -> Output {
    let mut child = recorder(trail, args);
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn recorder(trail: &Path, args: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_graven"))
        .args(["record", "--source", "stdin", "--trail"])
        .arg(trail)
        .args(["--segment-bytes", "1M", "--ring-bytes", "2M"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs")
}

/// The notes that stand one behind the other, as sizes; each is signed by `key` if one is given.
fn sizes(mut bytes: &[u8], key: Option<&PublicKey>) -> Vec<u64> {
    let mut sizes = Vec::new();
    while !bytes.is_empty() {
        let (note, rest, _) = Note::parse_first(bytes).expect("a note");
        if let Some(key) = key {
            assert_eq!(note.verify(key), Signed::Yes);
        }
        sizes.push(note.checkpoint.head.size);
        bytes = rest;
    }
    sizes
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

#[test]
fn a_key_made_elsewhere_signs_what_is_recorded_and_copied() {
    let dir = tempfile::tempdir().unwrap();
    let [trail, key, to, exec] = ["trail", "key", "to", "exec"].map(|name| dir.path().join(name));
    let made = graven(&["keygen", "--out", path(&key)]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let public = PublicKey::parse(text(&made.stdout).trim()).expect("a public key");
    assert!(!text(&made.stdout).contains("PRIVATE"));
    // Never written over.
    let again = graven(&["keygen", "--out", path(&key)]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("never written over"), "{}", text(&again.stderr));

    let command = format!("cat >> {}", path(&exec));
    let args = ["--key", path(&key), "--checkpoint-to", path(&to), "--checkpoint-exec", &command];
    let ran = record(&trail, &args, "one\ntwo\n");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains(&public.to_string()), "{}", text(&ran.stderr));
    assert!(!key.exists(), "it is in the trail now");
    for copies in [&to, &exec] {
        let copied = std::fs::read(copies).unwrap();
        assert_eq!(sizes(&copied, Some(&public)).last(), Some(&2));
    }
    // Without a writer the trail's end is printed, and copied.
    let printed = graven(&["checkpoint", path(&trail), "--to", path(&to)]);
    assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
    assert_eq!(sizes(&printed.stdout, Some(&public)), [2]);
    assert!(text(&std::fs::read(&to).unwrap()).ends_with(&text(&printed.stdout)));
    assert_eq!(text(&graven(&["export", path(&trail)]).stdout), "one\ntwo\n");
}

#[test]
fn a_running_writer_answers_with_all_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let trail = dir.path().join("trail");
    let mut child = recorder(&trail, &["--checkpoint-interval", "off", "--ack"]);
    let mut input = child.stdin.take().expect("a pipe");
    let mut durable = 0;
    for round in 0..5_u64 {
        for line in 0..10 {
            writeln!(input, "line {line}").expect("it reads");
        }
        let start = Instant::now();
        let size = loop {
            let asked = graven(&["checkpoint", path(&trail)]);
            // It may not have begun, and may not have read the lines.
            if asked.status.success() {
                let [size] = sizes(&asked.stdout, None)[..] else { panic!("one note") };
                if size >= durable + 10 {
                    break size;
                }
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{}", text(&asked.stderr));
        };
        durable = size;
        // Asked again, it needs no other one.
        let again = graven(&["checkpoint", path(&trail)]);
        assert_eq!(sizes(&again.stdout, None), [size], "round {round}");
    }
    drop(input);
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(graven(&["verify", path(&trail)]).status.code(), Some(0));
}

/// A writer that was killed has copied no checkpoint over its last records; the next one signs them when
/// it starts, and may get no record of its own.
#[test]
fn what_recovery_signs_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let [trail, to] = ["trail", "to"].map(|name| dir.path().join(name));
    let args = ["--checkpoint-to", path(&to), "--checkpoint-interval", "off", "--ack"];
    let mut child = recorder(&trail, &args);
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"one\ntwo\nthree\n").expect("it reads");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while line != "durable 2\n" {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).expect("it says") > 0);
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(!to.exists(), "nothing has signed them");
    let ran = record(&trail, &args, "");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert_eq!(sizes(&std::fs::read(&to).unwrap(), None).last(), Some(&3));
    let verified = graven(&["verify", path(&trail), "--checkpoint", path(&to)]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
}

/// The signal would end a process that does not catch it.
#[test]
fn a_writer_that_does_not_answer_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let trail = dir.path().join("trail");
    let options = graven_writer::Options { ring_bytes: 2 << 20, ..Default::default() };
    let open = graven_writer::Trail::open(&trail, &options).unwrap();
    let asked = graven(&["checkpoint", path(&trail)]);
    assert_eq!(asked.status.code(), Some(2));
    assert!(text(&asked.stderr).contains("cannot be asked"), "{}", text(&asked.stderr));
    open.close().unwrap();
}

#[test]
fn a_copy_that_fails_is_said_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let trail = dir.path().join("trail");
    let ran = record(&trail, &["--checkpoint-exec", "exit 3"], "one\n");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let said = text(&ran.stderr);
    assert!(said.contains("it ended with 3") && said.contains("the last checkpoint"), "{said}");
    let missing = dir.path().join("nowhere/checkpoints");
    let printed = graven(&["checkpoint", path(&trail), "--to", path(&missing)]);
    assert_eq!(printed.status.code(), Some(2));
    assert_eq!(sizes(&printed.stdout, None), [1], "it is printed all the same");
}

#[test]
fn a_trail_without_its_key_or_without_any_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let [signed, unsigned] = ["signed", "unsigned"].map(|name| dir.path().join(name));
    assert_eq!(record(&signed, &[], "one\n").status.code(), Some(0));
    std::fs::remove_file(signed.join("key")).unwrap();
    let refused = record(&signed, &[], "");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--restart-key"), "{}", text(&refused.stderr));
    let ran = record(&signed, &["--restart-key"], "two\n");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).contains("the trail's last key is gone"), "{}", text(&ran.stderr));

    assert_eq!(record(&unsigned, &["--no-key"], "one\n").status.code(), Some(0));
    let none = graven(&["checkpoint", path(&unsigned)]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("not signed"), "{}", text(&none.stderr));
}
