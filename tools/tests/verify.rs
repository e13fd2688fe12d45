//! Every exit code of `graven verify`, each on a trail that is made for it.

mod common;

use common::{ALIGN_BYTES, Maker, loss_payload, on, stdin};
use graven_format::consts::SEGMENT_BYTES_MIN;
use graven_format::loss::LossStatement;
use graven_format::trailer::SealReason;
use graven_format::{Flags, name};
use std::path::Path;

fn verify(dir: &Path) -> (i32, serde_json::Value) {
    let json = on("verify", dir, &["--json"]);
    // The text is another view of the same report.
    let text = on("verify", dir, &[]);
    assert_eq!(json.code, text.code, "{}", text.text());
    let quiet = on("verify", dir, &["--quiet"]);
    assert_eq!((quiet.code, quiet.stdout.len()), (json.code, 0));
    if json.stdout.is_empty() {
        assert!(json.stderr.starts_with("error: "), "{}", json.stderr);
        return (json.code, serde_json::Value::Null);
    }
    let report = json.json();
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["exit_code"], json.code);
    assert!(text.text().contains("(exit code"), "{}", text.text());
    (json.code, report)
}

/// Verifies and returns the words of all problems.
fn problems(dir: &Path, code: i32) -> Vec<String> {
    let (found, report) = verify(dir);
    assert_eq!(found, code, "{report:#}");
    let list = report["problems"].as_array().expect("a list");
    list.iter().map(|it| it["kind"].as_str().expect("a word").to_owned()).collect()
}

#[test]
fn an_intact_trail_is_complete() {
    let maker = Maker::sealed(5, 4);
    let (code, report) = verify(maker.path());
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["verdict"], "intact");
    assert_eq!(report["records"]["intact"], 60);
    assert_eq!(report["root"]["size"], 60);
    assert_eq!(report["segments"]["sealed"], 5);
    assert_eq!(report["recovery"], "sealed");
}

#[test]
fn trails_without_records_are_intact() {
    let maker = Maker::new();
    assert_eq!(verify(maker.path()).0, 0);
    let mut maker = Maker::new();
    maker.begin();
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["recovery"]), (0, &"unused".into()));
    let mut maker = Maker::new();
    maker.seal(SealReason::Stop);
    assert_eq!(verify(maker.path()).0, 0);
}

#[test]
fn a_trail_whose_writer_was_killed_is_intact() {
    let mut maker = Maker::sealed(2, 2);
    maker.frames(3);
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["recovery"]), (0, &"open".into()), "{report:#}");
    assert_eq!(report["records"]["intact"], 21);
    assert_eq!(report["root"]["size"], 21);
}

#[test]
fn one_flipped_bit_anywhere_is_found() {
    let maker = Maker::sealed(3, 2);
    for (segment, it) in maker.segments.iter().enumerate() {
        let len = std::fs::metadata(&it.path).expect("a file").len();
        for offset in (0..len).step_by(509) {
            maker.flip(segment, offset);
            let ran = on("verify", maker.path(), &["--quiet"]);
            assert_eq!(ran.code, 1, "segment {segment} offset {offset:#x}");
            maker.flip(segment, offset);
        }
    }
    assert_eq!(verify(maker.path()).0, 0);
}

#[test]
fn a_flipped_bit_is_located() {
    let maker = Maker::sealed(3, 4);
    let frame = maker.segments[1].frames[2];
    maker.flip(1, frame.offset + 100);
    let (code, report) = verify(maker.path());
    assert_eq!(code, 1);
    let problem = &report["problems"][0];
    assert_eq!(problem["kind"], "unreadable", "{report:#}");
    assert_eq!(problem["offset"], frame.offset);
    assert_eq!(problem["seq"], 18);
    assert_eq!(problem["missing"], 3);
    assert_eq!(problem["before"]["seq"], 17);
    assert_eq!(problem["after"]["seq"], 21);
    assert_eq!(report["records"]["intact"], 33);
    assert_eq!(report["records"]["intact_prefix"], 18);
    assert_eq!(report["records"]["missing"], 3);
    let text = on("verify", maker.path(), &[]).text();
    assert!(
        text.contains(&format!("offset {:#x}, 4096 bytes, seq 18..21", frame.offset)),
        "{text}"
    );
}

#[test]
fn a_missing_segment_is_located() {
    for (removed, seq) in [(0, 0), (1, 6), (2, 12)] {
        let maker = Maker::sealed(4, 2);
        std::fs::remove_file(&maker.segments[removed].path).expect("it is there");
        let (code, report) = verify(maker.path());
        assert_eq!(code, 1);
        let problem = &report["problems"][0];
        assert_eq!(problem["kind"], "missing-segment", "{report:#}");
        assert_eq!((&problem["seq"], &problem["missing"]), (&seq.into(), &6.into()));
        let file = problem["file"].as_str().expect("a name");
        assert!(file.ends_with(&name::segment(removed as u64, seq)), "{file}");
    }
}

#[test]
fn a_missing_end_is_found_by_who_kept_a_number() {
    let maker = Maker::sealed(3, 2);
    std::fs::remove_file(&maker.segments[2].path).expect("it is there");
    assert_eq!(verify(maker.path()).0, 0);
    assert_eq!(on("verify", maker.path(), &["--durable", "11"]).code, 0);
    let ran = on("verify", maker.path(), &["--json", "--durable", "17"]);
    assert_eq!(ran.code, 1);
    let problem = &ran.json()["problems"][0];
    assert_eq!((&problem["seq"], &problem["missing"]), (&12.into(), &6.into()));
}

#[test]
fn a_segment_under_another_name_is_damage() {
    let maker = Maker::sealed(3, 2);
    let hidden = maker.path().join("kept.bak");
    std::fs::rename(&maker.segments[2].path, hidden).expect("renamed");
    assert_eq!(problems(maker.path(), 1), ["renamed-segment"]);
}

#[test]
fn a_foreign_file_is_said_and_is_no_damage() {
    let maker = Maker::sealed(2, 2);
    std::fs::write(maker.path().join("notes\x1b[2J.txt"), "mine").expect("a file");
    std::fs::copy(&maker.segments[0].path, maker.path().join("copy.seg")).expect("a copy");
    assert_eq!(problems(maker.path(), 0), ["foreign-file", "foreign-file"]);
    let text = on("verify", maker.path(), &[]).text();
    assert!(!text.contains('\x1b') && text.contains("notes\\x1b[2J.txt"), "{text}");
}

#[test]
fn a_torn_tail_that_was_never_announced_is_exit_3() {
    let mut maker = Maker::sealed(1, 2);
    maker.announced = Some(6);
    maker.frames(2);
    let frame = maker.segments[1].frames[1];
    maker.flip(1, frame.offset + 200);
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["verdict"]), (3, &"torn-tail".into()), "{report:#}");
    assert_eq!(report["recovery"], "torn");
    assert_eq!(report["records"]["intact"], 9);
    assert_eq!(report["records"]["end_seq"], 9);
    // Who was told that it is durable knows better.
    assert_eq!(on("verify", maker.path(), &["--durable", "8"]).code, 3);
    assert_eq!(on("verify", maker.path(), &["--durable", "9"]).code, 1);
}

#[test]
fn a_write_that_was_lost_between_others_is_exit_3() {
    let mut maker = Maker::sealed(1, 2);
    maker.announced = Some(6);
    maker.frames(3);
    let frame = maker.segments[1].frames[1];
    maker.write(1, frame.offset, &vec![0; frame.len as usize]);
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["recovery"]), (3, &"lost-write".into()), "{report:#}");
    assert_eq!(report["records"]["intact"], 9);
    assert_eq!(report["records"]["unannounced"], 3);
    // What recovery would remove is not shown either.
    assert_eq!(on("export", maker.path(), &[]).text().lines().count(), 9);
}

#[test]
fn what_was_announced_and_is_torn_is_damage() {
    let mut maker = Maker::sealed(1, 2);
    maker.frames(3);
    let frame = maker.segments[1].frames[1];
    maker.flip(1, frame.offset + 200);
    assert_eq!(problems(maker.path(), 1), ["unreadable"]);
    // Zeros instead of announced frames are no better.
    let mut maker = Maker::new();
    maker.frames(3);
    let frame = maker.segments[0].frames[1];
    maker.write(0, frame.offset, &vec![0; frame.len as usize]);
    assert_eq!(problems(maker.path(), 1), ["unreadable"]);
}

#[test]
fn an_orphan_that_was_never_announced_is_exit_3() {
    let mut maker = Maker::new();
    maker.frames(2);
    maker.abandon();
    maker.announced = Some(6);
    maker.frames(1);
    let (code, report) = verify(maker.path());
    assert_eq!(code, 3, "{report:#}");
    assert_eq!(report["problems"][0]["kind"], "orphan");
    assert_eq!(report["records"]["intact"], 6);
    assert_eq!(report["records"]["unannounced"], 3);
}

#[test]
fn an_unsealed_segment_in_the_middle_is_damage() {
    let mut maker = Maker::new();
    maker.frames(2);
    maker.abandon();
    maker.frames(2);
    maker.seal(SealReason::Full);
    maker.frames(1);
    maker.seal(SealReason::Stop);
    let (code, report) = verify(maker.path());
    assert_eq!(code, 1);
    assert_eq!(report["problems"][0]["kind"], "unsealed", "{report:#}");
}

#[test]
fn a_cut_file_is_damage() {
    let maker = Maker::sealed(3, 4);
    let frame = maker.segments[1].frames[2];
    let file = std::fs::OpenOptions::new().write(true).open(&maker.segments[1].path);
    file.expect("a segment").set_len(frame.offset + 512).expect("cut");
    let kinds = problems(maker.path(), 1);
    assert!(kinds.iter().any(|kind| kind == "missing-records"), "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind == "truncated"), "{kinds:?}");
    // The last one, cut where a frame ends.
    let mut maker = Maker::new();
    maker.frames(3);
    let frame = maker.segments[0].frames[2];
    let file = std::fs::OpenOptions::new().write(true).open(&maker.segments[0].path);
    file.expect("a segment").set_len(frame.offset).expect("cut");
    assert_eq!(problems(maker.path(), 1), ["truncated"]);
}

#[test]
fn an_empty_file_and_what_is_no_file_are_damage() {
    let maker = Maker::sealed(3, 2);
    std::fs::write(&maker.segments[1].path, b"").expect("emptied");
    let kinds = problems(maker.path(), 1);
    assert!(kinds.iter().any(|kind| kind == "empty-file"), "{kinds:?}");
    std::fs::remove_file(&maker.segments[1].path).expect("removed");
    std::os::unix::fs::symlink("/dev/zero", &maker.segments[1].path).expect("a link");
    assert_eq!(problems(maker.path(), 1), ["not-a-file"]);
}

#[test]
fn an_intact_segment_of_another_trail_or_history_is_damage() {
    // The same seqs, other records: every checksum of the segment fits.
    let maker = Maker::sealed(3, 2);
    let mut other = Maker::new();
    for n in 0..3 {
        let payload = format!("forged {n}");
        for first in [0, 3] {
            let seq = n * 6 + first;
            let records = [0, 1, 2].map(|more| stdin(seq + more, payload.as_bytes()));
            other.frame(&records);
        }
        other.seal(SealReason::Full);
    }
    std::fs::copy(&other.segments[1].path, &maker.segments[1].path).expect("replaced");
    let kinds = problems(maker.path(), 1);
    assert!(kinds.contains(&"chain".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"root".to_owned()), "{kinds:?}");
}

#[test]
fn segments_that_changed_places_are_damage() {
    let maker = Maker::sealed(4, 2);
    let (one, two) = (&maker.segments[1].path, &maker.segments[2].path);
    let aside = maker.path().join("aside");
    std::fs::rename(one, &aside).expect("renamed");
    std::fs::rename(two, one).expect("renamed");
    std::fs::rename(&aside, two).expect("renamed");
    let kinds = problems(maker.path(), 1);
    assert!(kinds.contains(&"misplaced".to_owned()), "{kinds:?}");
}

#[test]
fn a_second_segment_of_one_number_is_damage() {
    let maker = Maker::sealed(2, 2);
    std::fs::copy(&maker.segments[1].path, maker.path().join(name::segment(1, 7))).expect("a copy");
    let kinds = problems(maker.path(), 1);
    assert!(kinds.contains(&"doubled-segment".to_owned()), "{kinds:?}");
}

#[test]
fn a_later_version_is_named_and_not_called_damage() {
    let maker = Maker::sealed(3, 2);
    let path = &maker.segments[1].path;
    let mut bytes = std::fs::read(path).expect("a segment");
    bytes[12..14].copy_from_slice(&9_u16.to_le_bytes());
    let crc = graven_format::checksum::crc32(&bytes[12..ALIGN_BYTES as usize]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).expect("changed");
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["verdict"]), (2, &"unchecked".into()), "{report:#}");
    let message = report["problems"][0]["message"].as_str().expect("a sentence");
    assert!(message.contains("format version 9"), "{message}");
    // Damage beside it is graver.
    maker.flip(0, maker.segments[0].frames[0].offset + 99);
    assert_eq!(verify(maker.path()).0, 1);
}

#[test]
fn a_missing_or_broken_identity_is_damage() {
    let maker = Maker::sealed(2, 2);
    let identity = maker.path().join(name::IDENTITY);
    let mut bytes = std::fs::read(&identity).expect("identity");
    std::fs::remove_file(&identity).expect("removed");
    assert_eq!(problems(maker.path(), 1), ["identity"]);
    bytes[20] ^= 1;
    std::fs::write(&identity, bytes).expect("written");
    assert_eq!(problems(maker.path(), 1), ["identity"]);
}

#[test]
fn a_loss_statement_is_exit_4_and_listed() {
    let mut maker = Maker::sealed(1, 1);
    let payload = loss_payload();
    let mut unreadable = LossStatement::record(b"audit(what", 5, 5);
    unreadable.flags = Flags::LOSS;
    maker.frame(&[LossStatement::record(&payload, 5, 5), unreadable]);
    maker.announced = Some(5);
    maker.frames(1);
    // A torn tail beside it is less grave.
    maker.flip(1, maker.segments[1].frames[1].offset + 80);
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["losses"]["count"]), (4, &2.into()), "{report:#}");
    let statement = &report["losses"]["statements"][0];
    assert_eq!((&statement["seq"], &statement["statement"]["count"]), (&3.into(), &5.into()));
    assert_eq!(statement["statement"]["cause"], "serial-gap");
    let text = on("verify", maker.path(), &[]).text();
    assert!(text.contains("5 events are missing from source netlink: serial-gap"), "{text}");
}

#[test]
fn what_is_no_trail_cannot_be_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(verify(dir.path()).0, 2);
    assert_eq!(verify(&dir.path().join("nothing")).0, 2);
    let file = dir.path().join("file");
    std::fs::write(&file, "text").expect("a file");
    assert_eq!(verify(&file).0, 2);
    assert_eq!(common::graven(["verify"]).code, 2);
    assert_eq!(common::graven(["verify", "--no-such-option", "x"]).code, 2);
}

#[test]
fn bytes_after_a_trailer_that_was_not_cut_yet_are_exit_3() {
    let maker = Maker::sealed(2, 2);
    let file = std::fs::OpenOptions::new().write(true).open(&maker.segments[1].path);
    file.expect("a segment").set_len(SEGMENT_BYTES_MIN).expect("longer");
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["recovery"]), (3, &"untrimmed".into()), "{report:#}");
    // In the middle it is damage: nothing was sealed after it without being cut.
    let file = std::fs::OpenOptions::new().write(true).open(&maker.segments[0].path);
    file.expect("a segment").set_len(SEGMENT_BYTES_MIN).expect("longer");
    assert_eq!(verify(maker.path()).0, 1);
}

#[test]
fn beside_a_running_writer_the_end_is_not_judged() {
    let mut maker = Maker::sealed(1, 2);
    maker.announced = Some(6);
    maker.frames(2);
    maker.flip(1, maker.segments[1].frames[1].offset + 200);
    let lock = std::fs::File::create(maker.path().join(name::LOCK)).expect("a lock");
    lock.lock().expect("locked");
    let (code, report) = verify(maker.path());
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["writer"]["pid"], std::process::id());
    drop(lock);
    let (code, report) = verify(maker.path());
    assert_eq!((code, &report["writer"]), (3, &serde_json::Value::Null));
}

#[test]
fn a_trail_of_another_user_cannot_be_checked() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return;
    }
    let maker = Maker::sealed(1, 1);
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(maker.path(), owner_only).expect("closed to others");
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(assert_cmd::cargo::cargo_bin("graven"))
        .arg("verify")
        .arg(maker.path())
        .output()
        .expect("setpriv");
    let ran = common::ran(&output);
    if ran.stderr.contains("setpriv: failed to execute") {
        eprintln!("SKIPPED: the build directory is closed to others");
        return;
    }
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
}
