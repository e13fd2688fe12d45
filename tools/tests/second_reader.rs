//! The second reader, in Python and written from `docs/format.md` alone, and ours agree: record for
//! record on sound trails, and on what is damaged.

mod common;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use common::{Maker, on, stdin};
use graven_format::trailer::SealReason;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Exit code, listing and complaint of the second reader; `None` without Python, which is then said.
fn second(path: &Path) -> Option<(i32, String, String)> {
    let script = root().join("tests/second-reader/graven_reader.py");
    let Ok(output) = Command::new("python3").arg(script).arg(path).output() else {
        eprintln!("SKIPPED: no python3 for the second reader");
        return None;
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Some((output.status.code().expect("a code"), text(output.stdout), text(output.stderr)))
}

/// What a listing says of each record: seq and payload in hexadecimal.
fn records(listing: &str) -> Vec<(u64, String)> {
    let records = listing.lines().filter_map(|line| line.trim().strip_prefix("record seq="));
    records
        .map(|line| {
            let (seq, rest) = line.split_once(' ').expect("more fields");
            let (_, bytes) = rest.rsplit_once("bytes=").expect("bytes");
            (seq.parse().expect("a number"), bytes.to_owned())
        })
        .collect()
}

#[test]
fn the_golden_files_say_the_same_to_both() {
    let golden = root().join("format/tests/golden");
    let listing = std::fs::read_to_string(golden.join("listing.txt")).expect("the listing");
    let mut found = String::new();
    let names: Vec<_> = listing.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(names.len(), 6);
    for name in names {
        let Some((code, text, complaint)) = second(&golden.join(name)) else { return };
        found += &text;
        // Only this one has no trailer, and it is kept without the zeros up to its length.
        let cut = name.starts_with("0000000000000002");
        assert_eq!((code, complaint.contains("was cut")), (i32::from(cut), cut), "{complaint}");
    }
    assert_eq!(found, listing);
}

#[test]
fn a_trail_of_many_segments_is_one_chain_to_both() {
    let mut maker = Maker::new();
    for segment in 0..7 {
        if segment == 2 {
            maker.key = Some(maker.secret(1));
        }
        maker.frames(segment * 3 % 5);
        if segment > 2 {
            // Whole blocks of 1024 records, and checkpoints that stand among them.
            let records = [stdin(1, b"short"); 1700];
            maker.frame(&records);
            maker.checkpoint((segment % 2 == 0).then(|| maker.secret(segment as u8)));
        }
        let payloads: Vec<Vec<u8>> = (0..segment * 40)
            .map(|n| (0..n * 13 % 600).map(|at| (at * n) as u8).collect())
            .collect();
        let records: Vec<_> = payloads.iter().map(|payload| stdin(1, payload)).collect();
        if !records.is_empty() {
            maker.frame(&records);
        }
        maker.seal(SealReason::Full);
    }
    maker.frames(2);
    let Some((code, text, complaint)) = second(maker.path()) else { return };
    assert_eq!((code, complaint.as_str()), (0, ""));
    assert_eq!(on("verify", maker.path(), &[]).code, 0);
    let shown = on("show", maker.path(), &["--json"]);
    let ours: Vec<(u64, String)> = String::from_utf8(shown.stdout)
        .expect("text")
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let payload = &record["payload"];
            let bytes = match payload["text"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => STANDARD.decode(payload["bytes"].as_str().expect("bytes")).expect("base64"),
            };
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (record["seq"].as_u64().expect("a number"), hex)
        })
        .collect();
    let theirs = records(&text);
    assert_eq!(theirs.len() as u64, maker.next_seq);
    assert_eq!(theirs, ours);
}

#[test]
fn both_find_every_damage_of_a_sealed_trail() {
    let mut maker = Maker::sealed(2, 2);
    maker.key = Some(maker.secret(1));
    maker.frames(1);
    maker.checkpoint(Some(maker.secret(2)));
    maker.frames(1);
    maker.seal(SealReason::Full);
    for (segment, it) in maker.segments.iter().enumerate() {
        let len = std::fs::metadata(&it.path).expect("a file").len();
        for offset in (0..len).step_by(1021) {
            maker.flip(segment, offset);
            let Some((code, _, complaint)) = second(maker.path()) else { return };
            assert_eq!(code, 1, "segment {segment}, byte {offset}");
            assert!(complaint.contains("offset"), "{complaint}");
            assert_eq!(on("verify", maker.path(), &["--quiet"]).code, 1);
            maker.flip(segment, offset);
        }
    }
    let Some((code, ..)) = second(maker.path()) else { return };
    assert_eq!(code, 0, "as it was");
    std::fs::remove_file(&maker.segments[1].path).expect("removed");
    let Some((code, _, complaint)) = second(maker.path()) else { return };
    assert!(code == 1 && complaint.contains("a segment is missing"), "{complaint}");
}
