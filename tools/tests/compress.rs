//! `graven compress`: what is compressed says the same as before, and what it must not touch, or
//! cannot finish, stays as it was.

mod common;

use common::{Maker, on, stdin};
use graven_format::checksum::crc32;
use graven_format::codec::CODEC_ZSTD;
use graven_format::consts::RECORD_HEADER_BYTES;
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::trailer::SealReason;
use graven_format::{Finding, name};
use graven_writer::codec::Reading;
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::Command;

/// `segments` sealed segments of `frames` frames of thirty records of audit text, signed, with a
/// new key in every second one.
fn texts(segments: u64, frames: u64) -> Maker {
    let mut maker = Maker::new();
    maker.key = Some(maker.secret(1));
    for segment in 0..segments {
        for _ in 0..frames {
            let from = maker.next_seq;
            let texts: Vec<String> = (from..from + 30)
                .map(|n| format!("audit(1700000000.{n:03}:{n}): cwd=\"/home/user{}\"", n % 7))
                .collect();
            let records: Vec<_> =
                (from..).zip(&texts).map(|(n, text)| stdin(n, text.as_bytes())).collect();
            maker.frame(&records);
        }
        maker.checkpoint((segment % 2 == 0).then(|| maker.secret(segment as u8 + 2)));
        maker.seal(SealReason::Full);
    }
    maker
}

/// Every file of a directory; a running writer may rename or remove one that was listed, and has a
/// socket beside them.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("a file"));
    entries
        .filter(|entry| !entry.file_type().is_ok_and(|it| it.is_socket()))
        .filter_map(|entry| {
            let name = entry.file_name().into_string().expect("a name");
            match std::fs::read(entry.path()) {
                Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
                bytes => Some((name, bytes.expect("readable"))),
            }
        })
        .collect()
}

/// What a trail says to whoever reads it, in every way that there is.
fn said(dir: &Path, end: u64) -> Vec<Vec<u8>> {
    let verified = on("verify", dir, &["--json"]);
    assert_eq!(verified.code, 0, "{}{}", verified.text(), verified.stderr);
    let report = verified.json();
    let mut said = vec![report["root"].to_string().into_bytes()];
    said.push(on("export", dir, &[]).stdout);
    said.push(on("show", dir, &["--json"]).stdout);
    for seq in [0, 1, 31, 64, end / 2, end - 1] {
        let proof = on("prove", dir, &["--seq", &seq.to_string()]);
        assert_eq!(proof.code, 0, "{}", proof.stderr);
        said.push(proof.stdout);
        said.push(on("show", dir, &["--seq", &format!("{seq}..{}", seq + 2)]).stdout);
    }
    let grew = on("prove", dir, &["--from", "40", "--to", &end.to_string()]);
    assert_eq!(grew.code, 0, "{}", grew.stderr);
    said.push(grew.stdout);
    said
}

#[test]
fn a_compressed_trail_says_the_same_as_before_and_so_does_a_mixed_one() {
    let maker = texts(5, 6);
    let (dir, end) = (maker.path(), maker.next_seq);
    let before = (files(dir), said(dir, end));
    let ran = on("compress", dir, &["--level", "3"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("4 segments compressed"), "{}", ran.stderr);
    assert_eq!(said(dir, end), before.1);
    let after = files(dir);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.0.keys().collect::<Vec<_>>());
    for (name, old) in &before.0 {
        let is_rewritten =
            name.ends_with(".seg") && !maker.segments[4].path.ends_with(name.as_str());
        assert_eq!(after[name].len() < old.len(), is_rewritten, "{name}");
        let header = 0..old.len().min(4096);
        assert_eq!(after[name][header.clone()], old[header], "{name}: the header is the same");
    }
    // Mixed: some of them as they were.
    for segment in [1, 2] {
        let path = &maker.segments[segment].path;
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        std::fs::write(path, &before.0[name]).expect("writable");
        assert_eq!(said(dir, end), before.1);
    }
    let ran = on("compress", dir, &[]);
    assert!(ran.stderr.contains("2 segments compressed"), "{}", ran.stderr);
    assert_eq!(on("compress", dir, &["--quiet"]).stderr, "");
    assert_eq!(said(dir, end), before.1);
}

#[test]
fn a_compressed_trail_is_recorded_on() {
    // Not signed: nobody can go on with a trail without its keys, and these are made up.
    let mut maker = Maker::sealed(2, 4);
    maker.frames(1);
    maker.frame(&[stdin(1, b"the same"); 1000]);
    maker.seal(SealReason::Stop);
    maker.frames(1);
    maker.seal(SealReason::Stop);
    let ran = on("compress", maker.path(), &[]);
    assert!(ran.code == 0 && ran.stderr.contains("3 segments compressed"), "{}", ran.stderr);
    let ran = assert_cmd::Command::cargo_bin("graven")
        .expect("the binary")
        .args(["record", "--source", "stdin", "--compress", "always", "--trail"])
        .arg(maker.path())
        .write_stdin("one more\n".repeat(2000))
        .output()
        .expect("it runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let report = on("verify", maker.path(), &["--json"]).json();
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert_eq!(report["records"]["intact"], maker.next_seq + 2000);
}

#[test]
fn what_would_not_be_smaller_and_the_last_are_left_as_they_are() {
    let mut maker = Maker::new();
    for seed in 0..3_u64 {
        let mut state = seed + 1;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        maker.frame(&[stdin(seed, &noise)]);
        maker.seal(SealReason::Full);
    }
    let before = files(maker.path());
    let ran = on("compress", maker.path(), &[]);
    assert_eq!((ran.code, files(maker.path()) == before), (0, true), "{}", ran.stderr);
}

#[test]
fn a_damaged_segment_is_said_and_left_and_the_others_are_compressed() {
    let maker = texts(4, 4);
    maker.flip(1, maker.segments[1].frames[2].offset + 300);
    let before = files(maker.path());
    let ran = on("compress", maker.path(), &[]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("damaged") && ran.stderr.contains("2 segments"), "{}", ran.stderr);
    let after = files(maker.path());
    let changed: Vec<bool> = before.iter().map(|(name, old)| after[name] != *old).collect();
    // Segments by name, then the identity.
    assert_eq!(changed, [true, false, true, false, false]);
    assert_eq!(after.len(), before.len(), "no temporary is left");
}

#[test]
fn bad_requests_are_refused() {
    let maker = texts(2, 1);
    for args in [["--level", "0"], ["--level", "20"], ["--level", "x"]] {
        assert_eq!(on("compress", maker.path(), &args).code, 2);
    }
    let empty = tempfile::tempdir().expect("a directory");
    assert_eq!(on("compress", empty.path(), &[]).code, 2);
    let held = std::fs::File::open(maker.path()).expect("a directory");
    held.lock().expect("a lock");
    let ran = on("compress", maker.path(), &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("another process"), "{}", ran.stderr);
}

/// A compressor that is killed at any of its system calls leaves one file or the other, whole, and
/// the next one finishes.
#[test]
fn killed_at_any_step_it_leaves_whole_segments() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: no strace to kill the compressor with");
        return;
    }
    let maker = texts(3, 3);
    let (dir, end) = (maker.path(), maker.next_seq);
    let (before, told) = (files(dir), said(dir, end));
    let (mut killed, mut states) = (0, std::collections::BTreeSet::new());
    for call in ["openat", "write", "fsync", "read", "rename", "unlink", "fchmod", "flock"] {
        for nth in 1..60 {
            for (name, bytes) in &before {
                std::fs::write(dir.join(name), bytes).expect("writable");
            }
            let output = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e"])
                .arg(format!("inject={call}:signal=KILL:when={nth}"))
                .arg(assert_cmd::cargo::cargo_bin!("graven"))
                .args(["compress", "--quiet"])
                .arg(dir)
                .output()
                .expect("strace runs");
            if output.status.success() {
                break;
            }
            killed += 1;
            let now = files(dir);
            let left = now.keys().filter(|name| name.ends_with(".tmp")).count();
            let smaller = before.iter().filter(|(name, old)| now[*name] != **old).count();
            states.insert((left, smaller));
            assert_eq!(said(dir, end), told, "{call} {nth}");
            let ran = on("compress", dir, &[]);
            assert_eq!(ran.code, 0, "{call} {nth}: {}", ran.stderr);
            assert!(files(dir).keys().all(|name| !name.ends_with(".tmp")), "{call} {nth}");
        }
    }
    assert!(killed > 20, "{killed}");
    for state in [(1, 0), (0, 1), (1, 1)] {
        assert!(states.contains(&state), "{states:?}: never {state:?}");
    }
    println!("killed {killed} times");
}

/// All findings of one segment.
fn findings(maker: &Maker, segment: usize, bytes: &[u8]) -> Vec<Finding> {
    let file = maker.segments[segment].path.file_name().and_then(|name| name.to_str());
    let Some(name::Name::Segment { segment, first_seq }) = file.and_then(name::Name::parse) else {
        panic!("a segment")
    };
    let trail_id = Some(maker.trail_id);
    let expect = Expect { segment, first_seq, trail_id, merkle: true };
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    scanner.push(bytes);
    scanner.end();
    let mut findings = Vec::new();
    while let Some(event) = scanner.next_event() {
        if let Event::Finding(finding) = event {
            findings.push(finding);
        }
    }
    findings
}

#[test]
fn every_flipped_bit_of_a_rewritten_segment_is_found() {
    let maker = texts(2, 5);
    assert_eq!(on("compress", maker.path(), &[]).code, 0);
    let sound = std::fs::read(&maker.segments[0].path).expect("readable");
    assert_eq!(findings(&maker, 0, &sound), []);
    assert_eq!(sound[4096 + 24], CODEC_ZSTD, "the frame after the header is compressed");
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(findings(&maker, 0, &bytes), [], "bit {bit}");
    }
}

#[test]
fn a_payload_that_was_exchanged_behind_a_right_checksum_is_found() {
    let maker = texts(2, 5);
    assert_eq!(on("compress", maker.path(), &[]).code, 0);
    let path = &maker.segments[0].path;
    let mut bytes = std::fs::read(path).expect("readable");
    let frame_len = u32::from_le_bytes(bytes[4104..4108].try_into().expect("four")) as usize;
    let frame = &mut bytes[4096..4096 + frame_len];
    let payload_len = u32::from_le_bytes(frame[12..16].try_into().expect("four")) as usize;
    let raw_len = u32::from_le_bytes(frame[16..20].try_into().expect("four")) as usize;
    let mut raw = vec![0; raw_len];
    use graven_format::codec::Decoding as _;
    Reading::new()
        .decode(CODEC_ZSTD, &frame[72..72 + payload_len], &mut raw)
        .expect("it was compressed");
    raw[RECORD_HEADER_BYTES + 3] ^= 1;
    let mut compressor = graven_writer::codec::Compressor::new(6);
    let payload = compressor.compress(&raw, frame_len - 72).expect("it fits");
    frame[72..].fill(0);
    frame[72..72 + payload.len()].copy_from_slice(payload);
    frame[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = crc32(&frame[8..]).to_le_bytes();
    frame[4..8].copy_from_slice(&crc);
    std::fs::write(path, &bytes).expect("writable");
    let report = on("verify", maker.path(), &["--json"]).json();
    assert_eq!(report["exit_code"], 1, "{report:#}");
    assert_eq!(on("compress", maker.path(), &[]).code, 0, "rewritten once already");
}

/// Beside a recording: what it seals becomes smaller while it goes on.
#[test]
fn a_recording_compresses_what_it_seals() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("graven"))
        .args(["record", "--quiet", "--source", "stdin", "--compress", "never"])
        .args(["--segment-bytes", "512K"])
        .arg("--trail")
        .arg(&trail)
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut input = child.stdin.take().expect("a pipe");
    let lines: String = (0..20_000)
        .map(|n| format!("type=CWD msg=audit(1700000000.000:{n}): cwd=\"/home/user{}\"\n", n % 9))
        .collect();
    input.write_all(lines.as_bytes()).expect("it reads");
    let is_small =
        |(name, bytes): (&String, &Vec<u8>)| name.ends_with(".seg") && bytes.len() < 400_000;
    let begun = std::time::Instant::now();
    while files(&trail).iter().filter(|file| is_small(*file)).count() < 2 {
        assert!(begun.elapsed().as_secs() < 60, "nothing becomes smaller");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // It is read, and goes on, while it is being rewritten.
    assert_eq!(on("verify", &trail, &["--quiet"]).code, 0);
    input.write_all(b"the last line\n").expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    assert_eq!(on("export", &trail, &[]).stdout, [lines.as_bytes(), b"the last line\n"].concat());
    assert_eq!(on("verify", &trail, &["--quiet"]).code, 0);
    assert!(files(&trail).keys().all(|name| !name.ends_with(".tmp")));
}
