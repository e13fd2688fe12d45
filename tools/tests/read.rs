//! `graven show` and `graven export`: every byte, every range, and what is said when some are gone.

mod common;

use common::{Maker, graven, kernel, loss_payload, on, stdin};
use graven_format::loss::LossStatement;
use graven_format::trailer::SealReason;
use graven_format::{Flags, Record, kind};

/// The seqs that `show` prints.
fn seqs(maker: &Maker, range: &str, code: i32) -> Vec<u64> {
    let ran = on("show", maker.path(), &["--seq", range]);
    assert_eq!(ran.code, code, "{range}: {}", ran.stderr);
    let text = ran.text();
    text.lines()
        .map(|line| line.split(' ').next().and_then(|seq| seq.parse().ok()).expect("a seq"))
        .collect()
}

#[test]
fn ranges_are_cut_exactly_across_segments() {
    let mut maker = Maker::sealed(3, 2);
    maker.frames(1);
    for (range, expected) in [
        ("..", 0..21),
        ("0..1", 0..1),
        ("5..7", 5..7),
        ("5..=7", 5..8),
        ("17..", 17..21),
        ("..4", 0..4),
        ("20", 20..21),
        ("6..12", 6..12),
        ("100..", 0..0),
    ] {
        assert_eq!(seqs(&maker, range, 0), expected.collect::<Vec<_>>(), "{range}");
    }
    assert_eq!(on("show", maker.path(), &["--seq", "7..3"]).code, 2);
}

#[test]
fn the_index_of_a_large_segment_leads_to_the_right_records() {
    let mut maker = Maker::new();
    let payload = vec![b'x'; 20_000];
    // 12 records of 20,000 bytes a frame: each frame is more than the index's stride apart from
    // the next but one.
    for frame in 0..1_u64 {
        let records: Vec<Record<'_>> = (0..12).map(|n| stdin(frame * 12 + n, &payload)).collect();
        maker.frame(&records);
    }
    maker.frames(30);
    maker.seal(SealReason::Full);
    maker.frames(2);
    maker.seal(SealReason::Stop);
    for range in ["0..3", "11..14", "50..55", "101..103", "100.."] {
        let expected: Vec<u64> =
            seqs(&maker, "..", 0).into_iter().filter(|seq| in_range(range, *seq)).collect();
        assert_eq!(seqs(&maker, range, 0), expected, "{range}");
    }
}

fn in_range(range: &str, seq: u64) -> bool {
    let (start, end) = range.split_once("..").expect("a range");
    seq >= start.parse().expect("a start") && end.parse().map_or(true, |end: u64| seq < end)
}

#[test]
fn kernel_records_come_out_as_auditd_writes_them() {
    let mut maker = Maker::new();
    let statement = loss_payload();
    maker.frame(&[
        kernel(kind::SYSCALL, 7, b"audit(1.000:7): arch=c000003e \xff"),
        kernel(kind::EOE, 7, b"audit(1.000:7): "),
        kernel(1999, 8, b"audit(1.000:8): what"),
        LossStatement::record(&statement, 1, 1),
    ]);
    let ran = on("export", maker.path(), &["--format", "raw"]);
    let mut expected = b"type=SYSCALL msg=audit(1.000:7): arch=c000003e \xff\n".to_vec();
    expected.extend_from_slice(b"type=UNKNOWN[1999] msg=audit(1.000:8): what\n");
    expected.extend_from_slice(b"type=DAEMON_ERR msg=");
    expected.extend_from_slice(&statement);
    expected.push(b'\n');
    assert_eq!((ran.code, ran.stdout), (0, expected));
}

#[test]
fn lines_come_out_byte_for_byte() {
    let mut maker = Maker::new();
    let every_byte: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let last = Record { flags: Flags::UNTERMINATED, ..stdin(2, b"no end") };
    maker.frame(&[stdin(0, &every_byte), stdin(1, b""), last]);
    let mut expected = every_byte.clone();
    expected.extend_from_slice(b"\n\nno end");
    let ran = on("export", maker.path(), &[]);
    assert_eq!((ran.code, ran.stdout), (0, expected));
}

#[test]
fn show_escapes_and_json_keeps_every_byte() {
    let mut maker = Maker::new();
    maker.frame(&[stdin(0, b"\x1b[31mred\xff"), kernel(kind::SYSCALL, 9, "caf\u{e9}".as_bytes())]);
    let text = on("show", maker.path(), &[]).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0 2025-11-21T21:16:29.000000000Z stdin - \\x1b[31mred\\xff");
    assert_eq!(lines[1], "1 2025-11-21T21:16:29.009000000Z netlink SYSCALL caf\u{e9}");
    let ran = on("show", maker.path(), &["--json"]);
    let lines: Vec<serde_json::Value> =
        ran.text().lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(lines[0]["schema_version"], 1);
    assert_eq!(lines[0]["payload"]["bytes"], "G1szMW1yZWT/");
    assert_eq!((&lines[0]["type"], &lines[0]["source_seq"]), (&serde_json::Value::Null, &1.into()));
    assert_eq!(lines[1]["payload"]["text"], "caf\u{e9}");
    assert_eq!((&lines[1]["type"], &lines[1]["type_number"]), (&"SYSCALL".into(), &1300.into()));
}

#[test]
fn what_is_good_comes_out_beside_what_is_damaged() {
    let maker = Maker::sealed(3, 2);
    maker.flip(1, maker.segments[1].frames[0].offset + 90);
    let expected: Vec<u64> = (0..6).chain(9..18).collect();
    assert_eq!(seqs(&maker, "..", 1), expected);
    // Damage outside the range is no matter of this question.
    assert_eq!(seqs(&maker, "0..6", 0), (0..6).collect::<Vec<_>>());
    assert_eq!(seqs(&maker, "12..", 0), (12..18).collect::<Vec<_>>());
    let ran = on("export", maker.path(), &[]);
    assert_eq!((ran.code, ran.text().lines().count()), (1, 15));
    assert!(ran.stderr.contains("seq 6"), "{}", ran.stderr);
    std::fs::remove_file(&maker.segments[1].path).expect("it is there");
    let ran = on("export", maker.path(), &[]);
    assert_eq!((ran.code, ran.text().lines().count()), (1, 12));
    assert!(ran.stderr.contains("seq 6 to 11 are missing"), "{}", ran.stderr);
    assert_eq!(seqs(&maker, "12..", 0).len(), 6);
}

#[test]
fn a_damaged_sealed_segment_is_said_when_the_range_starts_inside_it() {
    let maker = Maker::sealed(2, 6);
    maker.flip(0, maker.segments[0].frames[4].offset + 90);
    assert_eq!(seqs(&maker, "9..", 1), (9..12).chain(15..36).collect::<Vec<_>>());
}

#[test]
fn what_was_never_announced_is_not_part_of_the_trail() {
    let mut maker = Maker::sealed(1, 1);
    maker.announced = Some(3);
    maker.frames(3);
    maker.flip(1, maker.segments[1].frames[1].offset + 90);
    let ran = on("export", maker.path(), &[]);
    assert_eq!((ran.code, ran.text().lines().count()), (0, 6), "{}", ran.stderr);
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let mut maker = Maker::new();
    let payload = vec![b'x'; 100_000];
    for n in 0..3 {
        maker.frame(&[stdin(n, &payload)]);
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("graven"));
    let output = command.arg("export").arg(maker.path()).stdout(writer).output().expect("it runs");
    assert_eq!(common::ran(&output).code, 0);
}

#[test]
fn what_is_no_trail_is_exit_2() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(on("show", dir.path(), &[]).code, 2);
    assert_eq!(on("export", dir.path(), &[]).code, 2);
    assert_eq!(on("export", dir.path(), &["--format", "csv"]).code, 2);
}

#[test]
fn every_command_explains_itself() {
    for command in [
        "run",
        "record",
        "verify",
        "show",
        "export",
        "prove",
        "check-proof",
        "doctor",
        "completions",
        "man",
    ] {
        let ran = graven([command, "--help"]);
        assert_eq!(ran.code, 0);
        let text = ran.text();
        assert!(text.contains("Exit codes:") || text.contains("Exit codes ("), "{command}");
        assert!(text.contains("Examples:"), "{command}");
    }
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(graven(["completions", shell]).text().contains("verify"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().to_str().expect("a name");
    assert_eq!(graven(["man", "--out", out]).code, 0);
    let page = std::fs::read_to_string(dir.path().join("graven-verify.1")).expect("a page");
    assert!(page.contains("torn tail"));
    assert_eq!(graven(["man", "--out", "/nonexistent/man"]).code, 2);
}

#[test]
fn doctor_looks_at_the_machine_and_the_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("not/yet");
    let place = place.to_str().expect("a name");
    let ran = graven(["doctor", "--json", "--trail", place]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let report = ran.json();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["place"]["exists"], false);
    let disk = &report["place"]["disk"];
    assert!(disk["align_bytes"].as_u64() >= Some(512), "{report:#}");
    assert_eq!(disk["linked_flush"].is_boolean(), disk["driver"] == "io_uring", "{report:#}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a listing").count(), 0);
    assert_eq!(graven(["doctor"]).code, 0);
}
