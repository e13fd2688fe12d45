//! Input and directories that are not as they should be: each has its exit code and says what is wrong.

use crate::rig::audit::Turn;
use crate::rig::lines::Lines;
use crate::rig::{Ran, Running, graven, has, is_root, on, record, run, temp_dir};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const LINES: Lines = Lines { seed: 11, bytes_max: 8 * 1024, long_every: 0 };

/// Longest line that is a record.
const LINE_MAX: usize = 128 * 1024;

fn recording(trail: &Path) -> Command {
    let mut command = record(trail);
    command.args(["--ring-bytes", "1M"]);
    command
}

/// A trail of `count` records.
fn trail_of(dir: &Path, count: u64) -> PathBuf {
    let trail = dir.join("trail");
    run(&mut recording(&trail), &LINES.bytes(0, count)).expect(0);
    trail
}

/// Its segments, by age.
fn segments(trail: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(trail).expect("it is there").flatten().map(|it| it.path());
    let mut segments: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|it| it == "seg")).collect();
    segments.sort();
    segments
}

#[test]
fn lines_that_are_too_long_are_refused_by_number() {
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    let long = |len: usize| [vec![b'x'; len], b"\n".to_vec()].concat();
    let input =
        [b"one\n".to_vec(), long(LINE_MAX), long(LINE_MAX + 1), long(3 << 20), b"five".to_vec()];
    let ran = run(&mut recording(&trail), &input.concat()).expect(7);
    assert_eq!(ran.acknowledged(), Some(4), "a loss statement is a record");
    let ran = ran.says("line 3 of 131073 bytes").says("line 4 of 3145728 bytes");
    assert!(!ran.stderr.contains("line 2"), "{}", ran.stderr);
    let verified = on("verify", &trail, &["--json"]).expect(4).text();
    assert!(verified.contains("\"count\":2"), "{verified}");
    let exported = on("export", &trail, &["--seq", "0..2"]).expect(0).stdout;
    assert_eq!(exported, input[..2].concat());
    assert_eq!(on("export", &trail, &["--seq", "4"]).expect(0).stdout, b"five");
}

#[test]
fn any_bytes_and_no_bytes_come_out_as_they_went_in() {
    let dir = temp_dir();
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (index, input) in [&b""[..], b"\n", b"\n\n\n", b"no end", b"\r\n\0\xff\n\xf0\x9f", &all]
        .into_iter()
        .enumerate()
    {
        let trail = dir.path().join(index.to_string());
        let ran = run(&mut recording(&trail), input).expect(0);
        let lines =
            input.split(|byte| *byte == b'\n').count() - usize::from(!input.ends_with(b"no end"));
        if input.ends_with(b"\n") || input.is_empty() {
            assert_eq!(ran.acknowledged(), lines.checked_sub(1).map(|last| last as u64));
        }
        assert_eq!(on("export", &trail, &[]).expect(0).stdout, input);
        on("verify", &trail, &[]).expect(0);
    }
    // Standard input that is not there at all cannot be read, and that is said.
    let trail = dir.path().join("closed");
    let mut command = recording(&trail);
    let shell = format!("exec {:?} \"$@\" <&-", command.get_program().to_str().expect("letters"));
    let mut closed = Command::new("sh");
    closed.args(["-c", &shell, "sh"]).args(command.get_args());
    command = closed;
    let code = Running::start(&mut command, Stdio::piped()).end().code();
    // The runtime opens /dev/null in its place, which is empty.
    assert!(matches!(code, 0 | 2), "{code}");
}

#[test]
fn a_reader_of_acknowledgements_that_goes_away_stops_no_recording() {
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    let mut child = recording(&trail)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut first = [0];
    let feed = |stdin: &mut Option<std::process::ChildStdin>, from, to| {
        stdin.as_mut().expect("a pipe").write_all(&LINES.bytes(from, to)).expect("it reads");
    };
    feed(&mut stdin, 0, 10);
    stdout.expect("a pipe").read_exact(&mut first).expect("an acknowledgement");
    feed(&mut stdin, 10, 400);
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(LINES.check(&trail), 400);
    on("verify", &trail, &[]).expect(0);
}

#[test]
fn whoever_reads_a_part_only_is_no_error() {
    let dir = temp_dir();
    let trail = trail_of(dir.path(), 1000);
    for command in ["export", "show"] {
        let shell =
            format!("{} {command} {} | head -c 10", env!("CARGO_BIN_EXE_graven"), trail.display());
        let ran = run(Command::new("bash").args(["-o", "pipefail", "-c", &shell]), b"").expect(0);
        assert_eq!((ran.stdout.len(), ran.stderr.as_str()), (10, ""));
    }
    if Path::new("/dev/full").exists() {
        let shell =
            format!("{} export {} > /dev/full", env!("CARGO_BIN_EXE_graven"), trail.display());
        run(Command::new("sh").args(["-c", &shell]), b"").expect(2).says("No space left");
    }
}

#[test]
fn a_trail_in_use_names_its_writer() {
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    let mut running = Running::start(&mut recording(&trail), Stdio::piped());
    let mut stdin = running.stdin();
    stdin.write_all(&LINES.bytes(0, 5)).expect("it reads");
    running.wait_until("acknowledgement", |it| it.acknowledged() == Some(4));
    run(&mut recording(&trail), b"").expect(2).says(&format!("pid {}", running.pid()));
    let verified = on("verify", &trail, &["--durable", "4"]).expect(0).text();
    assert!(verified.contains(&running.pid().to_string()), "{verified}");
    assert_eq!(LINES.check(&trail), 5);
    drop(stdin);
    running.end().expect(0);
    // The pid in the file is of nobody now.
    run(&mut recording(&trail), b"").expect(0);
}

/// What is no trail is left alone.
#[test]
fn directories_that_are_no_trail_are_refused_and_not_touched() {
    let dir = temp_dir();
    let refuse = |path: &Path, text: &str| {
        let ran = run(&mut recording(path), b"x\n").expect(2).says("error: ").says(text);
        assert_eq!(ran.acknowledged(), None);
        on("verify", path, &[]).expect(2);
        on("export", path, &[]).expect(2);
    };
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").expect("a file");
    refuse(&file, "not a directory");
    refuse(&file.join("below"), "");
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).expect("a directory");
    std::fs::write(foreign.join("letter.txt"), "dear").expect("a file");
    refuse(&foreign, "letter.txt");
    assert_eq!(std::fs::read_dir(&foreign).expect("it is there").count(), 1);
    refuse(Path::new("/proc/self"), "");
    assert_eq!(on("verify", &dir.path().join("missing"), &[]).code(), 2);
}

#[test]
fn a_foreign_file_in_a_trail_is_said_and_harms_nothing() {
    let dir = temp_dir();
    let trail = trail_of(dir.path(), 20);
    std::fs::write(trail.join("notes.txt"), "mine").expect("a file");
    let verified = on("verify", &trail, &[]).expect(0).text();
    assert!(verified.contains("notes.txt"), "{verified}");
    run(&mut recording(&trail), &LINES.bytes(20, 30)).expect(0).says("notes.txt");
    assert_eq!(LINES.check(&trail), 30);
    assert_eq!(std::fs::read_to_string(trail.join("notes.txt")).expect("it is there"), "mine");
}

#[test]
fn damage_is_found_by_verify_and_not_written_over() {
    let dir = temp_dir();
    let trail = trail_of(dir.path(), 400);
    let all = segments(&trail);
    assert!(all.len() > 2, "{all:?}");
    let (middle, last) = (&all[1], &all[all.len() - 1]);
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let damaged = |harm: &dyn Fn(), undo: &dyn Fn(), file: &Path, record_codes: &[i32]| {
        harm();
        let verified = on("verify", &trail, &[]).expect(1).text();
        assert!(verified.contains(&name(file)), "{verified}");
        let before: Vec<_> = segments(&trail);
        let ran = run(&mut recording(&trail), b"");
        assert!(record_codes.contains(&ran.code()), "{}: {}", ran.code(), ran.stderr);
        assert_eq!(before, segments(&trail), "nothing is removed");
        undo();
        on("verify", &trail, &[]).expect(0);
    };
    let kept = dir.path().join("kept");
    let swap = |a: &Path, b: &Path| std::fs::rename(a, b).expect("renamed");
    // In the middle, recovery does not look; the writer goes on, and what is damaged stays so.
    damaged(&|| swap(middle, &kept), &|| swap(&kept, middle), middle, &[0]);
    // At the end it does: evidence is not written over.
    let bytes = std::fs::read(last).expect("it can be read");
    let whole = || std::fs::write(last, &bytes).expect("written");
    damaged(&|| std::fs::write(last, b"").expect("written"), &whole, last, &[1]);
    let mut harmed = bytes.clone();
    harmed[5000] ^= 1;
    damaged(&|| std::fs::write(last, &harmed[..]).expect("written"), &whole, last, &[0, 1]);
    // A later version is refused by name, and is no damage.
    let identity = trail.join("identity");
    let bytes = std::fs::read(&identity).expect("it can be read");
    std::fs::write(&identity, b"").expect("written");
    on("verify", &trail, &[]).expect(1);
    run(&mut recording(&trail), b"x\n").expect(1).says("identity");
    std::fs::write(&identity, bytes).expect("written");
    run(&mut recording(&trail), b"").expect(0);
}

#[test]
fn a_later_version_is_refused_by_name() {
    let dir = temp_dir();
    let trail = trail_of(dir.path(), 5);
    let identity = trail.join("identity");
    let mut bytes = std::fs::read(&identity).expect("it can be read");
    bytes[12] = 2;
    let crc = graven_format::checksum::crc32(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&identity, bytes).expect("written");
    on("verify", &trail, &[]).expect(2);
    let ran = run(&mut recording(&trail), b"x\n").expect(2).says("version 2");
    assert_eq!(ran.acknowledged(), None);
}

#[test]
fn whoever_may_not_read_a_trail_is_told() {
    if !is_root() || !has("setpriv") {
        return;
    }
    // Somewhere that nobody else is kept out of, so that it is the trail that refuses.
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("changed");
    let (trail, command) = (trail_of(dir.path(), 5), dir.path().join("graven"));
    // Not by this process: a child of another test would hold the copy open for writing for a moment.
    run(Command::new("cp").arg(env!("CARGO_BIN_EXE_graven")).arg(&command), b"").expect(0);
    let nobody = |args: &[&str], path: &Path| -> Ran {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        run(setpriv.arg(&command).args(args).arg(path), b"x\n")
    };
    nobody(&["verify"], &trail).expect(2).says("ermission denied");
    nobody(&["export"], &trail).expect(2).says("ermission denied");
    nobody(&["record", "--source", "stdin", "--trail"], &trail).expect(2).says("ermission denied");
    let other = dir.path().join("other");
    nobody(&["record", "--source", "stdin", "--trail"], &other).expect(2).says("ermission denied");
    on("verify", &trail, &[]).expect(0);
}

#[test]
fn commands_that_cannot_be_run_have_the_codes_of_a_shell() {
    // It becomes the audit daemon for a moment, which another test may want to be.
    let Some(_turn) = Turn::take() else { return };
    let dir = temp_dir();
    let script = dir.path().join("script");
    std::fs::write(&script, "not executable").expect("a file");
    for (command, code) in [(Path::new("/nonexistent/command"), 127), (script.as_path(), 126)] {
        let trail = dir.path().join(code.to_string());
        let ran = run(graven().args(["run", "--trail"]).arg(&trail).arg("--").arg(command), b"");
        ran.expect(code).says("error: ");
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    let path = trail.to_str().expect("letters");
    for args in [
        &["record"][..],
        &["record", "--trail", path],
        &["record", "--trail", path, "--source", "nothing"],
        &["record", "--trail", path, "--source", "stdin", "--segment-bytes", "1"],
        &["record", "--trail", path, "--source", "stdin", "--segment-bytes", "513K"],
        &["record", "--trail", path, "--source", "stdin", "--segment-bytes", "2G"],
        &["record", "--trail", path, "--source", "stdin", "--ring-bytes", "1K"],
        &["export", path, "--seq", "5..x"],
        &["verify"],
        &["no-such-command"],
        &[],
    ] {
        let ran = run(graven().args(args), b"");
        assert_eq!(ran.code(), 2, "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
    assert!(!trail.exists(), "nothing was made");
}
