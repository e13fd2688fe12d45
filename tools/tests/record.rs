//! `graven record --source stdin`: what went in comes out, whatever ends the recording.

mod common;

use common::{Maker, Ran, on};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const ARGS: [&str; 6] = ["--source", "stdin", "--ring-bytes", "4M", "--segment-bytes", "1M"];

fn command(trail: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("graven"));
    command.arg("record").arg("--trail").arg(trail).args(ARGS).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Records `input` to its end.
fn record(trail: &Path, args: &[&str], input: &[u8]) -> Ran {
    let mut child = command(trail, args).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // Whoever refuses to record does not read.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("it ends")
    });
    common::ran(&output)
}

fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("line {n} {}\n", "x".repeat(n % 300)).into_bytes()).collect()
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("it runs");
}

#[test]
fn what_goes_in_comes_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let mut input = lines(20_000);
    input.extend_from_slice(b"\0\xff\r\n\nlast");
    for disk in ["auto", "sync"] {
        let ran = record(&trail, &["--disk", disk], &input);
        assert_eq!((ran.code, ran.stdout.len()), (0, 0), "{}", ran.stderr);
    }
    assert_eq!(on("export", &trail, &[]).stdout, [input.clone(), input].concat());
    assert_eq!(on("verify", &trail, &[]).code, 0);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&trail).expect("a directory").permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn acknowledgements_rise_and_end_with_the_last_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let ran = record(dir.path(), &["--ack"], &lines(5_000));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let seqs: Vec<u64> = ran
        .text()
        .lines()
        .map(|line| line.strip_prefix("durable ").and_then(|seq| seq.parse().ok()).expect(line))
        .collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(seqs.last(), Some(&4_999));
    // With nothing more to record it says where the trail is.
    assert_eq!(record(dir.path(), &["--ack"], b"").text(), "durable 4999\n");
}

#[test]
fn what_was_acknowledged_survives_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = lines(200_000);
    let mut expected = Vec::new();
    for round in 0..5_u64 {
        let mut child = command(dir.path(), &["--ack"]).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut acknowledged = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| drop(stdin.write_all(&input)));
            for line in stdout.lines().map_while(Result::ok) {
                acknowledged = line["durable ".len()..].parse().expect("a seq");
                if acknowledged > (round + 1) * 3_000 {
                    break;
                }
            }
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        });
        let durable = acknowledged.to_string();
        let ran = on("verify", dir.path(), &["--json", "--durable", &durable]);
        assert!([0, 3].contains(&ran.code), "{}", ran.text());
        // Every round adds a prefix of the input, at least as far as was acknowledged.
        let exported = on("export", dir.path(), &[]).stdout;
        let added = exported.strip_prefix(&expected[..]).expect("earlier rounds stay");
        assert!(input.starts_with(added));
        expected = exported;
        assert!(ran.json()["records"]["end_seq"].as_u64() > Some(acknowledged));
    }
    assert_eq!(record(dir.path(), &[], b"").code, 0);
    assert_eq!(on("verify", dir.path(), &[]).code, 0);
    assert_eq!(on("export", dir.path(), &[]).stdout, expected);
}

#[test]
fn a_signal_ends_it_and_what_was_read_is_durable() {
    use rustix::process::Signal;
    for kind in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = command(dir.path(), &["--ack"]).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(b"one\ntwo\nthr").expect("written");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while line != "durable 1\n" {
            line.clear();
            assert!(stdout.read_line(&mut line).expect("a line") > 0);
        }
        signal(&child, kind);
        line.clear();
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, "durable 2\n");
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        assert_eq!(on("export", dir.path(), &[]).stdout, b"one\ntwo\nthr");
        assert_eq!(on("verify", dir.path(), &[]).code, 0);
    }
}

#[test]
fn a_line_that_is_too_long_is_refused_and_stated() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut input = b"before\n".to_vec();
    input.resize(input.len() + 131_073, b'x');
    input.extend_from_slice(b"\nafter\n");
    let ran = record(dir.path(), &["--ack"], &input);
    assert_eq!((ran.code, ran.text().lines().last()), (7, Some("durable 2")));
    assert!(ran.stderr.contains("line 2 of 131073 bytes"), "{}", ran.stderr);
    let report = on("verify", dir.path(), &["--json"]);
    assert_eq!(report.code, 4);
    let statement = report.json()["losses"]["statements"][0]["statement"].clone();
    assert_eq!((&statement["cause"], &statement["count"]), (&"input-too-long".into(), &1.into()));
    assert_eq!(statement["range"], serde_json::json!([2, 2]));
    assert_eq!(
        on("show", dir.path(), &["--seq", "2"]).text().split(' ').next_back(),
        Some("after\n")
    );
}

#[test]
fn a_trail_has_one_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut first = command(dir.path(), &["--ack"]).spawn().expect("it starts");
    let mut stdin = first.stdin.take().expect("a pipe");
    stdin.write_all(b"one\n").expect("written");
    let mut line = String::new();
    BufReader::new(first.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let second = record(dir.path(), &[], b"two\n");
    assert_eq!(second.code, 2);
    assert!(second.stderr.contains(&format!("pid {}", first.id())), "{}", second.stderr);
    let report = on("verify", dir.path(), &["--json"]);
    assert_eq!((report.code, &report.json()["writer"]["pid"]), (0, &first.id().into()));
    drop(stdin);
    // Nobody reads its acknowledgements any more, and there is none left to write.
    assert!(first.wait().expect("it ends").code().is_some());
    assert_eq!(on("export", dir.path(), &[]).stdout, b"one\n");
}

#[test]
fn acknowledgements_that_nobody_reads_stop_no_recording() {
    let dir = tempfile::tempdir().expect("a directory");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let input = dir.path().join("input");
    std::fs::write(&input, lines(1000)).expect("written");
    let trail = dir.path().join("trail");
    let mut command = command(&trail, &["--ack"]);
    command.stdin(File::open(&input).expect("the input")).stdout(writer);
    let ran = common::ran(&command.output().expect("it runs"));
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("acknowledgements"), "{}", ran.stderr);
    assert_eq!(on("export", &trail, &[]).stdout, lines(1000));
}

#[test]
fn damage_and_foreign_directories_are_refused() {
    let mut maker = Maker::sealed(1, 2);
    maker.frames(3);
    maker.flip(1, maker.segments[1].frames[0].offset + 90);
    let ran = record(maker.path(), &[], b"more\n");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("help: keep the directory as evidence"), "{}", ran.stderr);

    let dir = tempfile::tempdir().expect("a directory");
    let letter = dir.path().join("letter");
    std::fs::write(&letter, "dear").expect("a file");
    assert_eq!(record(dir.path(), &[], b"more\n").code, 2);
    assert_eq!(record(&letter, &[], b"more\n").code, 2);
    assert_eq!(record(dir.path(), &["--segment-bytes", "1K"], b"").code, 2);
    assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 1);
}

#[test]
fn trails_made_by_hand_and_by_the_writer_go_together() {
    let mut maker = Maker::sealed(2, 2);
    maker.announced = Some(12);
    maker.frames(2);
    maker.flip(2, maker.segments[2].frames[1].offset + 90);
    assert_eq!(on("verify", maker.path(), &[]).code, 3);
    let before = on("export", maker.path(), &[]).stdout;
    let ran = record(maker.path(), &[], b"more\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("torn"), "{}", ran.stderr);
    assert_eq!(on("verify", maker.path(), &[]).code, 0);
    // What was shown before is what recovery kept.
    assert_eq!(on("export", maker.path(), &[]).stdout, [before, b"more\n".to_vec()].concat());
}

#[test]
fn a_full_disk_ends_it_if_that_was_asked_for() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a small filesystem");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8M", "tmpfs"])
        .arg(dir.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: cannot mount a small filesystem");
        return;
    }
    let input = lines(100_000);
    let ran = record(&dir.path().join("trail"), &["--ack", "--on-full", "end"], &input);
    let exported = on("export", &dir.path().join("trail"), &[]).stdout;
    let verified = on("verify", &dir.path().join("trail"), &[]);
    let unmounted = Command::new("umount").arg(dir.path()).status().expect("umount");
    assert!(unmounted.success());
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert!(ran.stderr.contains("make room"), "{}", ran.stderr);
    assert!([0, 3].contains(&verified.code), "{}", verified.text());
    let last = ran.text().lines().last().expect("some were durable").to_owned();
    let durable: usize = last["durable ".len()..].parse().expect("a seq");
    assert!(input.starts_with(&exported));
    assert!(exported.iter().filter(|byte| **byte == b'\n').count() > durable);
}
