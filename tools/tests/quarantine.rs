//! `graven quarantine`: the copy is the trail byte for byte, or there is no copy.

mod common;

use common::{Maker, graven, on};
use graven_format::consts::SEGMENT_BYTES_MIN;
use graven_format::name;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Every file of a directory.
fn files(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        (entry.file_name(), std::fs::read(entry.path()).expect("a file"))
    };
    entries.map(read).collect()
}

fn quarantine(dir: &Path, dest: &Path, more: &[&str]) -> common::Ran {
    let mut args = vec![dest.to_str().expect("a name of letters")];
    args.extend(more);
    on("quarantine", dir, &args)
}

/// Whether `sha256sum -c` finds every file as it should be, and says nothing else.
fn sums_hold(dest: &Path) -> bool {
    let mut command = std::process::Command::new("sha256sum");
    let output = command.args(["-c", "--strict", "--quiet", "SHA256SUMS"]).current_dir(dest);
    let output = output.output().expect("sha256sum");
    output.status.success() && output.stdout.is_empty() && output.stderr.is_empty()
}

#[test]
fn the_copy_is_the_trail_byte_for_byte() {
    let mut maker = Maker::sealed(3, 4);
    maker.frames(2);
    maker.flip(1, maker.segments[1].frames[2].offset + 99);
    std::fs::write(maker.path().join(name::LOCK), "1         \n").expect("a lock");
    std::fs::write(maker.path().join("0000000000000009.tmp"), "").expect("a temporary");
    // Names as bad as they get.
    let odd = OsStr::from_bytes(b"a\\b\nc \xff'");
    std::fs::write(maker.path().join(odd), "odd").expect("a file");
    let before = files(maker.path());

    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("copy");
    let ran = quarantine(maker.path(), &dest, &["--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.json()["verdict"], "damaged");
    assert_eq!(ran.json()["files"].as_array().map(Vec::len), Some(before.len()));
    assert_eq!(files(maker.path()), before, "the original is as it was");
    let mut copied = files(&dest);
    let report = copied.remove(OsStr::new("report.json")).expect("a report");
    assert!(copied.remove(OsStr::new("SHA256SUMS")).is_some());
    assert_eq!(copied, before);
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!((&report["verdict"], &report["exit_code"]), (&"damaged".into(), &1.into()));
    assert_eq!(std::fs::read_dir(room.path()).expect("it is there").count(), 1);

    assert!(sums_hold(&dest));
    // The checksums are of every file, and are read.
    let sums = std::fs::read(dest.join("SHA256SUMS")).expect("sums");
    assert_eq!(sums.iter().filter(|byte| **byte == b'\n').count(), before.len() + 1);
    std::fs::write(dest.join(name::LOCK), "2         \n").expect("changed");
    assert!(!sums_hold(&dest));
}

#[test]
fn holes_are_kept_and_so_is_the_time() {
    let mut maker = Maker::new();
    maker.frames(1);
    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("copy");
    assert_eq!(quarantine(maker.path(), &dest, &[]).code, 0);
    let path = &maker.segments[0].path;
    let copy = dest.join(path.file_name().expect("a name"));
    let (was, is) = (path.metadata().expect("a file"), copy.metadata().expect("a copy"));
    assert_eq!((is.len(), is.mtime_nsec()), (SEGMENT_BYTES_MIN, was.mtime_nsec()));
    assert!(is.blocks() * 512 < SEGMENT_BYTES_MIN / 2, "{} blocks", is.blocks());
    assert_eq!((is.mode() & 0o777, dest.metadata().expect("it").mode() & 0o777), (0o600, 0o700));
}

#[test]
fn private_keys_are_never_copied() {
    let maker = Maker::sealed(1, 1);
    let secret = format!("{}\n", *maker.secret(1).to_text());
    for file in ["key", "key.next", "key.witness", "key.old"] {
        std::fs::write(maker.path().join(file), format!("a line\n{secret}")).expect("a key");
    }
    // Whatever they hold.
    std::fs::write(maker.path().join("key"), "empty").expect("a key");
    std::os::unix::fs::symlink("/etc/passwd", maker.path().join("link")).expect("a link");
    std::fs::write(maker.path().join("report.json"), "old").expect("a file");
    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("copy");
    let ran = quarantine(maker.path(), &dest, &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for file in [
        "key: a private key",
        "key.next: a",
        "key.witness: a",
        "key.old: a",
        "link: not a",
        "report.json: ",
    ] {
        assert!(ran.text().contains(file), "{file}: {}", ran.text());
    }
    for (name, bytes) in files(&dest) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("PRIVATE+KEY") && text != "old", "{}", name.display());
    }
    assert_eq!(files(&dest).len(), 4, "identity, one segment, report, sums");
}

#[test]
fn move_frees_the_name_for_a_new_trail() {
    let room = tempfile::tempdir().expect("a directory");
    let maker = Maker::sealed(2, 2);
    let (trail, dest) = (room.path().join("trail"), room.path().join("copy"));
    std::fs::rename(maker.path(), &trail).expect("renamed");
    let before = files(&trail);
    // A slash at the end changes nothing.
    let ran = quarantine(&trail.join(""), &dest, &["--move", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let moved = room.path().join("trail.quarantined");
    assert_eq!(ran.json()["moved_to"], moved.to_str().expect("letters"));
    assert!(!trail.exists());
    assert_eq!(files(&moved), before);
    let mut record = assert_cmd::Command::cargo_bin("graven").expect("the binary");
    let args = ["record", "--source", "stdin", "--segment-bytes", "512K", "--trail"];
    record.args(args).arg(&trail).write_stdin("new\n").assert().success();
    assert_eq!(on("verify", &trail, &[]).code, 0);

    // Never over something, and then nothing is made.
    let again = room.path().join("again");
    let ran = quarantine(&trail, &again, &["--move"]);
    assert_eq!((ran.code, again.exists()), (2, false), "{}", ran.stderr);
    assert!(ran.stderr.contains("trail.quarantined exists"), "{}", ran.stderr);
    assert_eq!(files(&moved), before);
    // Nor may the copy take the name.
    let other = room.path().join("other");
    std::fs::rename(&moved, &other).expect("renamed");
    let ran = quarantine(&other, &room.path().join("other.quarantined"), &["--move"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(files(&other), before);
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let maker = Maker::sealed(2, 2);
    let before = files(maker.path());
    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("copy");
    let refused = |dest: &Path, what: &str| {
        let ran = quarantine(maker.path(), dest, &["--move"]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains(what), "{what}: {}", ran.stderr);
        assert_eq!(files(maker.path()), before);
    };
    std::fs::create_dir(&dest).expect("a directory");
    refused(&dest, "copy exists");
    std::fs::remove_dir(&dest).expect("it was empty");
    std::fs::create_dir(room.path().join("copy.partial")).expect("a directory");
    refused(&dest, "copy.partial exists");
    std::fs::remove_dir(room.path().join("copy.partial")).expect("it was empty");
    refused(&maker.path().join("inside"), "is in");
    refused(&room.path().join("no/where"), "cannot find");
    refused(Path::new("/"), "no name");
    // What is no trail.
    assert_eq!(quarantine(room.path(), &dest, &[]).code, 2);
    assert_eq!(graven(["quarantine", "x"]).code, 2);
    assert_eq!(std::fs::read_dir(room.path()).expect("it is there").count(), 0);
}

#[test]
fn a_running_writer_is_in_the_way() {
    let maker = Maker::sealed(1, 2);
    let room = tempfile::tempdir().expect("a directory");
    let dest = room.path().join("copy");
    let lock = std::fs::File::create(maker.path().join(name::LOCK)).expect("a lock");
    lock.lock().expect("locked");
    let ran = quarantine(maker.path(), &dest, &[]);
    assert_eq!((ran.code, dest.exists()), (2, false), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("pid {}", std::process::id())), "{}", ran.stderr);
    drop(lock);
    assert_eq!(quarantine(maker.path(), &dest, &[]).code, 0);
}
