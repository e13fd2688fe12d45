//! `graven status`: its numbers are those that were fed, and it knows when there are none.

use crate::common::{graven, on};
use crate::rig::{Recording, lines, status};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

const RECORD_HEADER_BYTES: u64 = graven_format::consts::RECORD_HEADER_BYTES as u64;

#[test]
fn the_numbers_are_those_that_were_fed() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let mut recording = Recording::start(&trail, &["--no-key"]);
    recording.feed(&lines(1000), 999);

    let ran = recording.status(&["--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let told = recording
        .status_when(|it| it["ring"]["batches_used"] == 0 && it["records"]["written"] == 1000);
    let number = |path: &str| told.pointer(path).and_then(serde_json::Value::as_u64).expect(path);
    assert_eq!((told["schema"].as_u64(), told["source"].as_str()), (Some(1), Some("stdin")));
    assert_eq!(number("/pid"), u64::from(recording.pid()));
    assert_eq!(told["trail"].as_str(), trail.to_str());
    for (path, value) in [
        ("/records/first_seq", 0),
        ("/records/accepted", 1000),
        ("/records/durable", 1000),
        ("/records/written", 1000),
        ("/records/written_bytes", (11 + RECORD_HEADER_BYTES) * 1000),
        ("/latency/start/count", 1000),
        ("/latency/minute/count", 1000),
        ("/latency/buckets/count", 1000),
        ("/lag/records", 0),
        ("/lag/oldest_ns", 0),
        ("/lost/statements", 0),
        ("/producers/waiting", 0),
        ("/segment/number", 0),
        ("/segment/total_bytes", 64 << 20),
        ("/ring/capacity_bytes", 64 << 20),
        ("/ring/queued_records", 0),
    ] {
        assert_eq!(number(path), value, "{path}");
    }
    // Each frame was one barrier, and is on the disk.
    let (frames, frame_bytes) = (number("/records/frames"), number("/records/frame_bytes"));
    assert!(frames >= 1 && number("/barrier/start/count") == frames, "{told:#}");
    assert!(frame_bytes >= number("/records/written_bytes"), "{told:#}");
    assert!(number("/segment/used_bytes") > frame_bytes, "{told:#}");
    assert!((1..=number("/ring/batches")).contains(&number("/ring/batches_used_max")), "{told:#}");
    let (p50, p99) = (number("/latency/start/p50_ns"), number("/latency/start/p99_ns"));
    assert!(0 < p50 && p50 <= p99 && p99 <= number("/latency/start/max_ns"), "{told:#}");
    assert_eq!(told["rates"].as_array().map(Vec::len), Some(3));
    assert!(told["rates"][2]["records_per_s"].as_f64().expect("a rate") > 0.0, "{told:#}");
    assert!(told["kernel"].is_null() && told["epoch"].is_null() && told["checkpoint"].is_null());

    let ran = recording.status(&[]);
    let text = ran.text();
    assert!(text.starts_with("ok        recording stdin as pid "), "{text}");
    assert!(text.contains("seq 0..=999, all that was accepted"), "{text}");
    assert!(text.contains("lost      nothing\n"), "{text}");
    assert_eq!(recording.end(), (0, String::new()));
}

#[test]
fn a_loss_is_a_warning() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut recording = Recording::start(&dir.path().join("trail"), &["--no-key"]);
    let mut input = vec![b'x'; 200_000];
    input.extend_from_slice(b"\nshort\n");
    recording.feed(&input, 1);
    let told = recording.status_when(|it| it["lost"]["statements"] == 1);
    assert_eq!((&told["lost"]["records"], &told["lost"]["events"]), (&1.into(), &0.into()));
    assert_eq!(told["lost"]["causes"][0]["cause"], "input-too-long");
    let ran = recording.status(&[]);
    assert_eq!(ran.code, 1);
    assert!(ran.text().starts_with("warning "), "{}", ran.text());
    assert!(ran.text().contains("upstream_loss: 1 loss statements"), "{}", ran.text());
    assert_eq!(recording.end().0, 7);
}

#[test]
fn a_signed_trail_tells_of_its_checkpoints() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["--checkpoint-interval", "50ms"];
    let mut recording = Recording::start(&dir.path().join("trail"), &args);
    recording.feed(&lines(10), 9);
    let told = recording.status_when(|it| it["checkpoint"]["size"] == 10);
    assert_eq!((&told["epoch"], &told["checkpoint"]["uncovered_records"]), (&0.into(), &0.into()));
    assert!(told["checkpoint"]["age_ns"].as_u64().is_some_and(|ns| ns > 0), "{told:#}");
    assert_eq!(recording.end().0, 0);
}

#[test]
fn without_a_writer_the_trails_end_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    assert_eq!(status(&trail, &[]).code, 3, "there is no trail");
    assert_eq!(graven(["status"]).code, 3, "usage");
    assert_eq!(graven(["status", "--frobnicate", "x"]).code, 3, "usage");

    let mut recording = Recording::start(&trail, &["--no-key"]);
    assert!(trail.join("control").exists());
    recording.feed(&lines(5), 4);
    assert_eq!(recording.end().0, 0);
    assert!(!trail.join("control").exists(), "a writer that ends takes its socket away");
    let ran = status(&trail, &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.text().starts_with("critical  no writer runs\n"), "{}", ran.text());
    assert!(ran.text().contains("sealed (stop) at 20"), "{}", ran.text());
    let told = status(&trail, &["--json"]).json();
    assert_eq!((&told["running"], &told["records"]), (&false.into(), &5.into()));
    assert_eq!((&told["end"], &told["sealed"]), (&"sealed".into(), &"stop".into()));
    let ran = status(&trail, &["--metrics"]);
    assert_eq!((ran.code, ran.text()), (2, String::new()));

    let mut recording = Recording::start(&trail, &["--no-key"]);
    recording.feed(&lines(3), 7);
    recording.kill();
    let left = trail.join("control").symlink_metadata().expect("it is left behind");
    assert!(left.file_type().is_socket());
    let ran = status(&trail, &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.text().contains("its writer died, with 8 records"), "{}", ran.text());
    // It is no part of the trail, and nothing foreign.
    let verified = on("verify", &trail, &[]);
    assert_eq!(verified.code, 0, "{}", verified.text());
    let said = verified.text() + &verified.stderr;
    assert!(!said.contains("control") && !said.contains("foreign"), "{said}");

    // The next one takes its place.
    let recording = Recording::start(&trail, &["--no-key"]);
    assert_eq!(recording.status(&[]).code, 0);
    let verified = on("verify", &trail, &[]);
    assert!([0, 3].contains(&verified.code), "{}", verified.text());
    assert_eq!(recording.end().0, 0);
}

#[test]
fn a_writer_that_does_not_tell_is_unknown() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    std::fs::create_dir(&trail).expect("a directory");
    let options = graven_writer::Options::default();
    let silent = graven_writer::Trail::open(&trail, &options).expect("a trail");
    let ran = status(&trail, &[]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("a writer runs"), "{}", ran.stderr);
    assert!(ran.stderr.contains("help: "), "{}", ran.stderr);
    silent.close().expect("it closes");
}

#[test]
fn what_has_the_sockets_name_and_is_none_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    Recording::start(&trail, &[]).end();
    std::fs::write(trail.join("control"), "somebody's").expect("a file");
    let input = dir.path().join("input");
    std::fs::write(&input, lines(3)).expect("a file");
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("graven"))
        .args(["record", "--source", "stdin", "--quiet", "--trail"])
        .arg(&trail)
        .stdin(std::fs::File::open(&input).expect("the input"))
        .output()
        .expect("it runs");
    let ran = crate::common::ran(&output);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("will not be answered"), "{}", ran.stderr);
    assert_eq!(std::fs::read(trail.join("control")).expect("it is there"), b"somebody's");
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("a directory");
    let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).expect("directories");
    let mut recording = Recording::start(&deep.join("trail"), &["--no-key"]);
    recording.feed(&lines(2), 1);
    let ran = recording.status(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mode = deep.join("trail/control").metadata().expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(recording.end(), (0, String::new()));
}
